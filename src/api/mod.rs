//! The HTTP API, in the dialect of Kazoo 3.22's Crossbar: who watches whom, reset, set, and the server's health.
//! Beside it our own calls: why a lamp is as it is, and a live stream of what changes.
//!
//! In flow HTTP requests; out flow calls of [`Control`] and answers in Kazoo's envelope, faults too. It knows the
//! directory and the notifier's words for subscriptions and publications; nothing of SIP messages, sockets or
//! dialogs. The order of checks is part of the contract, so `handle` does not leave it to a router: it is one
//! function that reads from top to bottom. Whatever a client sends is bounded before it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use tokio::sync::Semaphore;

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
mod lamps;
mod listen;
mod listing;
mod metrics;
mod openapi;
mod presence;
mod refusals;
mod request;
mod route;
mod webhooks;

pub use listen::serve;
pub use webhooks::{WebhookError, Webhooks};

use envelope::Reply;
use error::Fault;
use request::{Ask, Verb};
use route::{Subject, Target};

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
    /// How many live streams there may be at once.
    pub event_streams: usize,
}

/// The state of all requests together.
struct Api {
    state: ApiState,
    /// Room for the bodies that are being received, in bytes.
    bodies: Semaphore,
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
        let hub = events::Hub::new(state.event_streams, !webhooks.is_empty());
        let bodies = Semaphore::new(body::MAX_TOGETHER);
        let api = Arc::new(Api { state, hub, webhooks, bodies, held: refusals::Held::default() });
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
    envelope::response(&api.state, &ask, outcome).await
}

/// The life of a request: each check in the order that clients of Kazoo know, then the work.
///
/// What is learnt of the request goes into `ask`, for a fault must be answered in the right form as well.
async fn handle(api: &Arc<Api>, head: &Parts, body: Body, ask: &mut Ask) -> Result<Reply, Fault> {
    request::well_formed(head)?;
    ask.read_query(head)?;
    ask.verb = Verb::known(head.method.as_str())?;
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
    // is told in its turn.
    let body = body::receive(head, body, &api.bodies).await?;
    let malformed = ask.read_body(head, &body);
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
    if target == Target::Metrics {
        return metrics::answer(api, bearer, head);
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
        return match subject {
            Subject::Events => events::begin(api, account, head, ask),
            Subject::Refusals => refusals::list(&api.state, Some(account), ask),
            _ => lamps::answer(&api.state, account, subject, ask),
        };
    }

    let place = presence::resolve(&api.state.directory, account, &target, ask)?;
    let command = presence::validate(place, ask)?;
    presence::execute(&api.state, account, command, ask)
}
