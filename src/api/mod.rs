//! The HTTP API, in the dialect of Kazoo 3.22's Crossbar: who watches whom, reset, set, and the server's health.
//! Beside it our own calls: why a lamp is as it is, and a live stream of what changes.
//!
//! In flow HTTP requests; out flow calls of [`Control`] and answers in Kazoo's envelope, faults too. It knows the
//! directory and the notifier's words for subscriptions and publications; nothing of SIP messages, sockets or
//! dialogs. The order of checks is part of the contract, so `handle` does not leave it to a router: it is one
//! function that reads from top to bottom. Whatever a client sends is bounded before it is kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;

use crate::config::Limits;
use crate::directory::{Bearer, Directory};
use crate::notifier::control::Control;

mod auth;
mod body;
mod cors;
mod dashboard;
mod drain;
mod envelope;
mod error;
mod events;
mod fields;
mod flow;
mod health;
mod json;
mod lamps;
mod listen;
mod listing;
mod metrics;
mod openapi;
mod presence;
mod refusals;
mod request;
mod route;
mod seats;
mod share;
mod stall;
mod turns;
mod webhooks;

pub use listen::serve;
pub use seats::Connections;
pub use webhooks::{WebhookError, Webhooks};

use envelope::{Hold, Reply};
use error::Fault;
use presence::Command;
use request::{Ask, Verb};
use route::{Subject, Target};
use seats::{Seat, Seats};
use share::{Client, Shares};
use turns::{Turns, aside};

/// What the API stands on.
#[derive(Clone)]
pub struct ApiState {
    /// Accounts, users, devices, tokens.
    pub directory: Arc<Directory>,
    /// The notifier.
    pub control: Arc<dyn Control>,
    /// Upstream's empty bodies for a bad body, and its 500 for a missing `reset`.
    pub strict_compat: bool,
    /// False while the server starts or drains; `/readyz` tells. It also tells when [`Control::can_keep`] says no.
    pub ready: Arc<AtomicBool>,
    /// The name of this server in listings.
    pub node: String,
    /// How many live streams and listings there may be at once.
    pub limits: Limits,
}

/// The state of all requests together.
struct Api {
    state: ApiState,
    /// Room for the bodies that are being received (octets).
    bodies: Arc<Shares>,
    /// Room for answers that are held as a whole (octets).
    answers: Arc<Shares>,
    /// Places for listings that are being sent.
    listings: Arc<Shares>,
    /// Places for live streams.
    streams: Arc<Shares>,
    questions: Turns,
    changes: Turns,
    /// The connections, once the API is served.
    seats: OnceLock<Arc<Seats>>,
    /// Who listens to the live streams.
    hub: events::Hub,
    /// Who is told without listening.
    webhooks: Webhooks,
    /// The answers to wrong tokens that are held back.
    held: refusals::Held,
}

/// The API and all that runs beside it, for [`serve`].
pub struct Service {
    router: Router,
    /// Whose webhooks are to be delivered.
    api: Option<Arc<Api>>,
}

impl Service {
    /// The API, and deliveries to these receivers for as long as it is served.
    pub fn new(state: ApiState, webhooks: Webhooks) -> Service {
        let accounts = state.directory.accounts().len();
        let api = Arc::new(Api {
            bodies: body::room(),
            answers: flow::room(),
            listings: listing::places(&state.limits),
            streams: events::places(&state.limits),
            questions: Turns::new(accounts, turns::QUESTIONS),
            changes: Turns::new(accounts, turns::CHANGES),
            seats: OnceLock::new(),
            held: refusals::Held::default(),
            hub: events::Hub::new(!webhooks.is_empty()),
            webhooks,
            state,
        });
        Service { router: Router::new().fallback(answer).with_state(Arc::clone(&api)), api: Some(api) }
    }
}

impl From<Router> for Service {
    fn from(router: Router) -> Service {
        Service { router, api: None }
    }
}

/// The API without webhooks.
pub fn router(state: ApiState) -> Router {
    Service::new(state, Webhooks::default()).router
}

/// Answers one request, whatever it is.
async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut ask = Ask::new(&head);
    let outcome = match handle(&api, &head, body, &mut ask).await {
        Ok(reply) => Ok(reply),
        Err(fault) => Err(refusals::settle(&api, &head, &ask, fault).await),
    };
    envelope::response(&api, &ask, outcome).await
}

/// The paths that are answered on a spare seat as well: those by which others see whether the server is well.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Where a request came from.
#[derive(Clone, Debug, Default)]
struct Origin {
    /// The seat of its connection; none where there is no real connection.
    seat: Option<Arc<Seat>>,
}

impl Origin {
    fn of(head: &Parts) -> Origin {
        Origin { seat: head.extensions.get().cloned() }
    }

    /// The other end of the connection.
    fn peer(&self) -> Option<SocketAddr> {
        self.seat.as_ref().map(|seat| seat.peer())
    }

    /// Against whom the request counts.
    fn client(&self, bearer: Bearer) -> Client {
        Client { bearer, network: self.peer().map(|peer| peer.ip().into()) }
    }

    /// From now on the connection does not give way to others, until what comes back is dropped.
    fn busy(&self) -> Option<seats::Busy> {
        self.seat.as_ref().map(|seat| seat.busy())
    }

    /// [`Fault::NoRoom`] on a spare seat, unless the path is one that is always answered.
    fn check_seat(&self, head: &Parts) -> Result<(), Fault> {
        match self.seat.as_ref().and_then(|seat| seat.full()) {
            Some(limit) if !ALWAYS_ANSWERED.contains(&head.uri.path()) => Err(Fault::NoRoom(limit)),
            _ => Ok(()),
        }
    }
}

/// The life of a request: each check in the order that clients of Kazoo know, then the work.
///
/// What is learnt of the request goes into `ask`, for a fault must be answered in the right form as well.
async fn handle(api: &Arc<Api>, head: &Parts, body: Body, ask: &mut Ask) -> Result<Reply, Fault> {
    request::well_formed(head)?;
    ask.read_query(head)?;
    ask.verb = Verb::known(head.method.as_str())?;
    let origin = Origin::of(head);
    origin.check_seat(head)?;
    if let Some(page) = dashboard::answer(head) {
        return Ok(Reply::File(page));
    }
    let path = request::path(head.uri.path())?;
    let target = Target::of(&path, ask)?;
    if let Target::Health(probe) = target {
        let ready = api.state.ready.load(Ordering::Acquire) && api.state.control.can_keep();
        return health::answer(probe, ready, ask.verb);
    }
    if target == Target::Document {
        return openapi::answer(ask.verb);
    }

    // The token and the method may stand in the body, so it comes before them; what is wrong with it or with the token
    // is told in its turn. Who has shown a token in the head gets room for it, anybody else for a small one.
    let sender = match auth::by_head(head, ask, &api.state.directory) {
        Some(bearer) => body::Sender::Known(origin.client(bearer), &api.bodies),
        None => body::Sender::Unknown,
    };
    let body = body::receive(head, body, sender).await?;
    ask.unread = body.unread;
    let malformed = aside_if_large(&body, || ask.read_body(head, &body));
    drop(body);
    let caller = auth::identify(head, ask, &api.state.directory);
    ask.apply_tunnelled_verb()?;
    ask.allow = target.allow();
    if ask.verb == Verb::Options {
        return cors::preflight(ask, &target);
    }
    target.check_method(ask.verb)?;

    let account = target.account(&api.state.directory)?;
    let bearer = caller?;
    let client = origin.client(bearer);
    ask.client = Some(client);
    if target == Target::Metrics {
        return aside(|| metrics::answer(api, bearer, head));
    }
    if target == Target::Accounts {
        request::check_accept(head, ask, target.content_type(ask))?;
        return Ok(lamps::accounts(&api.state.directory, bearer));
    }
    if target == Target::Drain {
        request::check_content_type(head, ask.verb)?;
        request::check_accept(head, ask, target.content_type(ask))?;
        malformed?;
        return drain::answer(&api.state, bearer, ask);
    }
    if target == Target::Refusals {
        request::check_accept(head, ask, target.content_type(ask))?;
        return match bearer {
            Bearer::Superuser => refusals::list(&api.state, None, ask),
            Bearer::Account(_) => Err(Fault::NoSuperuser),
        };
    }
    let account = target.known(account)?;
    auth::authorise(&api.state.directory, bearer, account)?;

    request::check_content_type(head, ask.verb)?;
    request::check_accept(head, ask, target.content_type(ask))?;
    malformed?;

    if let Target::Explained { subject, .. } = &target {
        if *subject == Subject::Events {
            let hold = Hold { _share: api.streams.take(client, 1)?, _busy: origin.busy() };
            return events::begin(api, account, head, ask, hold);
        }
        if *subject == Subject::Refusals {
            return refusals::list(&api.state, Some(account), ask);
        }
        let turns = if ask.verb.reads() { &api.questions } else { &api.changes };
        let _turn = turns.take(bearer).await;
        let _busy = origin.busy();
        return aside(|| lamps::answer(&api.state, account, subject, ask));
    }

    let place = presence::resolve(&api.state.directory, account, &target, ask)?;
    match presence::validate(place, ask)? {
        Command::List(what) => {
            let hold = Hold { _share: api.listings.take(client, 1)?, _busy: origin.busy() };
            Ok(Reply::Long(listing::Listing::new(&api.state, account, what), hold))
        }
        Command::Change { place, change } => {
            let _turn = api.changes.take(bearer).await;
            let _busy = origin.busy();
            presence::execute(&api.state, account, place, change, ask)
        }
    }
}

/// From this size on (octets), reading a body takes a millisecond and more.
const LARGE: usize = 256 * 1024;

/// Reads a body, aside if that takes a while.
fn aside_if_large<T>(body: &[u8], read: impl FnOnce() -> T) -> T {
    if body.len() < LARGE { read() } else { aside(read) }
}
