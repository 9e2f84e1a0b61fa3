//! The HTTP API, compatible with the presence API of Kazoo 3.22's Crossbar: list the subscriptions, reset, set, health.
//! Beside it our own resources: explanations of lamps, and a live stream of changes.
//!
//! In flow HTTP requests; out flow calls of [`Control`] and responses in Kazoo's envelope, errors included. It knows
//! the directory and the notifier's types for subscriptions and publications; nothing of SIP messages, sockets or
//! dialogs. The order of the checks is part of the contract. A router would hide it, so `handle` is one function that
//! reads from top to bottom. All input is limited in size before it is stored.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;

use crate::directory::{Directory, TokenScope};
use crate::notifier::control::Control;
use crate::notifier::settings::Limits;

mod auth;
mod body;
mod concurrency;
mod connection_slots;
mod cors;
mod dashboard;
mod drain;
mod envelope;
mod error;
mod events;
mod explain;
mod health;
mod http_server;
mod json;
mod kazoo_presence;
mod listing;
mod metrics;
mod openapi;
mod quota;
mod refusals;
mod request;
mod request_body;
mod route;
mod streaming_body;
pub mod webhooks;
mod write_timeout;

pub use connection_slots::Connections;
pub use http_server::serve;
pub use webhooks::{WebhookError, Webhooks};

use concurrency::{AccountLimiter, aside};
use connection_slots::{ConnectionSlots, Slot};
use envelope::{Hold, Reply};
use error::ApiError;
use kazoo_presence::Command;
use quota::{Client, QuotaPool};
use request::{Method, RequestContext};
use route::{ExplainRoute, Route};

/// Everything that the API needs from the rest of the server.
#[derive(Clone)]
pub struct ApiState {
    /// Accounts, users, devices and tokens.
    pub directory: Arc<Directory>,
    /// The notifier.
    pub control: Arc<dyn Control>,
    /// True for Kazoo's deviations: empty response to a bad body, and 500 for a missing `reset`.
    pub strict_compat: bool,
    /// False while the server starts or drains; `/readyz` reports it, and also reports if [`Control::can_keep`] is
    /// false.
    pub ready: Arc<AtomicBool>,
    /// Name of this server in listings.
    pub node: String,
    /// Limits of concurrent live streams and listings.
    pub limits: Limits,
}

/// State shared by all requests.
struct Api {
    state: ApiState,
    /// Memory pool for bodies that are being received (octets).
    bodies: Arc<QuotaPool>,
    /// Memory pool for responses that are held as a whole (octets).
    answers: Arc<QuotaPool>,
    /// Pool of listings that are being sent.
    listings: Arc<QuotaPool>,
    /// Pool of live streams.
    streams: Arc<QuotaPool>,
    questions: AccountLimiter,
    changes: AccountLimiter,
    /// The connections; set when the API is served.
    seats: OnceLock<Arc<ConnectionSlots>>,
    /// Subscribers of the live streams.
    hub: events::Hub,
    /// Webhook receivers.
    webhooks: Webhooks,
    /// Delayed responses to wrong tokens.
    held: refusals::DelayedResponses,
}

/// The API and its background work, for [`serve`].
pub struct Service {
    router: Router,
    /// The API whose webhooks are delivered; `None` for a plain router.
    api: Option<Arc<Api>>,
}

impl Service {
    /// The API with webhook deliveries to these receivers while it is served.
    pub fn new(state: ApiState, webhooks: Webhooks) -> Service {
        let accounts = state.directory.accounts().len();
        let api = Arc::new(Api {
            bodies: body::room(),
            answers: streaming_body::room(),
            listings: listing::places(&state.limits),
            streams: events::places(&state.limits),
            questions: AccountLimiter::new(accounts, concurrency::QUESTIONS),
            changes: AccountLimiter::new(accounts, concurrency::CHANGES),
            seats: OnceLock::new(),
            held: refusals::DelayedResponses::default(),
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

/// Answers one request, valid or not.
async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut ask = RequestContext::new(&head);
    let outcome = match handle(&api, &head, body, &mut ask).await {
        Ok(reply) => Ok(reply),
        Err(fault) => Err(refusals::settle(&api, &head, &ask, fault).await),
    };
    envelope::response(&api, &ask, outcome).await
}

/// Paths that are answered on a spare seat as well: health checks and monitoring.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Connection that a request came from.
#[derive(Clone, Debug, Default)]
struct Origin {
    /// Slot of the connection; `None` without a real connection, as in tests.
    seat: Option<Arc<Slot>>,
}

impl Origin {
    fn of(head: &Parts) -> Origin {
        Origin { seat: head.extensions.get().cloned() }
    }

    /// Remote address of the connection.
    fn peer(&self) -> Option<SocketAddr> {
        self.seat.as_ref().map(|seat| seat.peer())
    }

    /// Client that the request is charged to.
    fn client(&self, bearer: TokenScope) -> Client {
        Client { bearer, network: self.peer().map(|peer| peer.ip().into()) }
    }

    /// Protects the connection from eviction until the returned value is dropped.
    fn busy(&self) -> Option<connection_slots::BusyGuard> {
        self.seat.as_ref().map(|seat| seat.busy())
    }

    /// Returns [`ApiError::NoRoom`] on a spare seat, unless the path is always answered.
    fn check_seat(&self, head: &Parts) -> Result<(), ApiError> {
        match self.seat.as_ref().and_then(|seat| seat.full()) {
            Some(limit) if !ALWAYS_ANSWERED.contains(&head.uri.path()) => Err(ApiError::NoRoom(limit)),
            _ => Ok(()),
        }
    }
}

/// Handles one request: each check in the order that clients of Kazoo expect, then the work.
///
/// Everything learnt about the request is stored in `ask`, so that an error is also answered in the right form.
async fn handle(api: &Arc<Api>, head: &Parts, body: Body, ask: &mut RequestContext) -> Result<Reply, ApiError> {
    request::well_formed(head)?;
    ask.read_query(head)?;
    ask.verb = Method::known(head.method.as_str())?;
    let origin = Origin::of(head);
    origin.check_seat(head)?;
    if let Some(page) = dashboard::answer(head) {
        return Ok(Reply::File(page));
    }
    let path = request::path(head.uri.path())?;
    let target = Route::of(&path, ask)?;
    if let Route::Health(probe) = target {
        let ready = api.state.ready.load(Ordering::Acquire) && api.state.control.can_keep();
        return health::answer(probe, ready, ask.verb);
    }
    if target == Route::Document {
        return openapi::answer(ask.verb);
    }

    // The body may hold the token and the method, so it is received first; an error in the body or the token is
    // reported in its turn. A client with a valid token in the head may send a large body, any other client a small
    // one.
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
    if ask.verb == Method::Options {
        return cors::preflight(ask, &target);
    }
    target.check_method(ask.verb)?;

    let account = target.account(&api.state.directory)?;
    let bearer = caller?;
    let client = origin.client(bearer);
    ask.client = Some(client);
    if target == Route::Metrics {
        return aside(|| metrics::answer(api, bearer, head));
    }
    if target == Route::Accounts {
        request::check_accept(head, ask, target.content_type(ask))?;
        return Ok(explain::accounts(&api.state.directory, bearer));
    }
    if target == Route::Drain {
        request::check_content_type(head, ask.verb)?;
        request::check_accept(head, ask, target.content_type(ask))?;
        malformed?;
        return drain::answer(&api.state, bearer, ask);
    }
    if target == Route::Refusals {
        request::check_accept(head, ask, target.content_type(ask))?;
        return match bearer {
            TokenScope::Superuser => refusals::list(&api.state, None, ask),
            TokenScope::Account(_) => Err(ApiError::NoSuperuser),
        };
    }
    let account = target.known(account)?;
    auth::authorise(&api.state.directory, bearer, account)?;

    request::check_content_type(head, ask.verb)?;
    request::check_accept(head, ask, target.content_type(ask))?;
    malformed?;

    if let Route::Explained { subject, .. } = &target {
        if *subject == ExplainRoute::Events {
            let hold = Hold { _share: api.streams.take(client, 1)?, _busy: origin.busy() };
            return events::open_stream(api, account, head, ask, hold);
        }
        if *subject == ExplainRoute::Refusals {
            return refusals::list(&api.state, Some(account), ask);
        }
        let turns = if ask.verb.reads() { &api.questions } else { &api.changes };
        let _turn = turns.take(bearer).await;
        let _busy = origin.busy();
        return aside(|| explain::answer(&api.state, account, subject, ask));
    }

    let place = kazoo_presence::resolve(&api.state.directory, account, &target, ask)?;
    match kazoo_presence::validate(place, ask)? {
        Command::List(what) => {
            let hold = Hold { _share: api.listings.take(client, 1)?, _busy: origin.busy() };
            Ok(Reply::Long(listing::Listing::new(&api.state, account, what), hold))
        }
        Command::Change { place, change } => {
            let _turn = api.changes.take(bearer).await;
            let _busy = origin.busy();
            kazoo_presence::execute(&api.state, account, place, change, ask)
        }
    }
}

/// Size (octets) from which parsing a body takes a millisecond or more.
const LARGE: usize = 256 * 1024;

/// Parses a body, outside the async executor if it is large.
fn aside_if_large<T>(body: &[u8], read: impl FnOnce() -> T) -> T {
    if body.len() < LARGE { read() } else { aside(read) }
}
