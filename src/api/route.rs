//! Routes: the resource that a path names, and its methods.

use crate::directory::{AccountNo, Directory};

use super::error::ApiError;
use super::request::{JSON, Method, RequestContext, SCRIPT};

/// Resource that a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/healthz` and `/readyz`.
    Health(Probe),
    /// `user_auth`, `api_auth`, `token_auth`: Kazoo's logins.
    Login,
    /// The presence resources of an account.
    Presence {
        /// Account id as written in the path.
        account: String,
        /// Scope inside the account.
        of: PresenceScope,
    },
    /// `/metrics`
    Metrics,
    /// `drain`: starts or stops refusing new work.
    Drain,
    /// `refusals`: refused requests that belong to no account.
    Refusals,
    /// `/openapi.json`
    Document,
    /// `accounts`: those that the token may see.
    Accounts,
    /// Our own resources that explain lamps, below an account.
    Explained {
        /// Account id as written in the path.
        account: String,
        /// Kind of explanation.
        subject: ExplainRoute,
    },
    /// A path below `/v1` or `/v2` that is not served. The 404 is sent only after the token was accepted.
    Unknown {
        /// Account id, if the path begins with one.
        account: Option<String>,
    },
}

/// Kind of health probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Liveness: the process runs.
    Live,
    /// Readiness: the server accepts work.
    Ready,
}

/// Resource that explains lamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExplainRoute {
    /// `lamps`
    Lamps,
    /// `lamps/EXT`
    Lamp(String),
    /// `lamp_overview`
    Overview,
    /// `lamp_events`
    Events,
    /// `subscriptions`
    Subscriptions,
    /// `subscriptions/ID`
    Subscription(String),
    /// `subscriptions/ID/trace`
    Trace(String),
    /// `refusals`
    Refusals,
}

/// Part of an account whose presence a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PresenceScope {
    /// `presence`
    Account,
    /// `presence/EXT`, also below a device or user, which Kazoo ignores.
    Extension(String),
    /// `devices/ID/presence`
    Device(String),
    /// `users/ID/presence`
    User(String),
}

/// Builds the route from the values of a pattern's placeholders, in their order.
type BuildRoute = fn(&[&str]) -> Route;

/// Every served path except the dashboard, each once; the OpenAPI document lists the same. `/v1` is the same as `/v2`.
const ROUTES: [(&str, BuildRoute); 21] = [
    ("/healthz", |_| Route::Health(Probe::Live)),
    ("/readyz", |_| Route::Health(Probe::Ready)),
    ("/metrics", |_| Route::Metrics),
    ("/openapi.json", |_| Route::Document),
    ("/v2/drain", |_| Route::Drain),
    ("/v2/refusals", |_| Route::Refusals),
    ("/v2/accounts", |_| Route::Accounts),
    ("/v2/accounts/{account}/presence", |p| presence(p, PresenceScope::Account)),
    ("/v2/accounts/{account}/presence/{extension}", |p| presence(p, PresenceScope::Extension(p[1].into()))),
    ("/v2/accounts/{account}/devices/{device}/presence", |p| presence(p, PresenceScope::Device(p[1].into()))),
    ("/v2/accounts/{account}/users/{user}/presence", |p| presence(p, PresenceScope::User(p[1].into()))),
    ("/v2/accounts/{account}/devices/{device}/presence/{extension}", |p| {
        presence(p, PresenceScope::Extension(p[2].into()))
    }),
    ("/v2/accounts/{account}/users/{user}/presence/{extension}", |p| {
        presence(p, PresenceScope::Extension(p[2].into()))
    }),
    ("/v2/accounts/{account}/lamps", |p| explained(p, ExplainRoute::Lamps)),
    ("/v2/accounts/{account}/lamps/{extension}", |p| explained(p, ExplainRoute::Lamp(p[1].into()))),
    ("/v2/accounts/{account}/lamp_overview", |p| explained(p, ExplainRoute::Overview)),
    ("/v2/accounts/{account}/lamp_events", |p| explained(p, ExplainRoute::Events)),
    ("/v2/accounts/{account}/refusals", |p| explained(p, ExplainRoute::Refusals)),
    ("/v2/accounts/{account}/subscriptions", |p| explained(p, ExplainRoute::Subscriptions)),
    ("/v2/accounts/{account}/subscriptions/{subscription}", |p| explained(p, ExplainRoute::Subscription(p[1].into()))),
    ("/v2/accounts/{account}/subscriptions/{subscription}/trace", |p| explained(p, ExplainRoute::Trace(p[1].into()))),
];

fn presence(parts: &[&str], of: PresenceScope) -> Route {
    Route::Presence { account: parts[0].into(), of }
}

fn explained(parts: &[&str], subject: ExplainRoute) -> Route {
    Route::Explained { account: parts[0].into(), subject }
}

/// Values of a pattern's placeholders; `None` if the path does not match.
fn fit<'a>(pattern: &str, path: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split('/').skip(1);
    let mut filled = Vec::new();
    for part in path {
        match parts.next()? {
            placeholder if placeholder.starts_with('{') => filled.push(*part),
            literal if literal == *part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(filled)
}

/// Every served path with its methods.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (String, &'static str)> {
    ROUTES.iter().map(|(pattern, make)| ((*pattern).to_owned(), make(&["a", "b", "c"]).allow()))
}

impl Route {
    /// Finds the route of a path that has been split and decoded.
    pub(super) fn of(path: &[String], ask: &mut RequestContext) -> Result<Self, ApiError> {
        let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
        if let Some(version @ (&mut "v1" | &mut "v2")) = path.first_mut() {
            ask.is_v1 = *version == "v1";
            *version = "v2";
        }
        let served = ROUTES.iter().find_map(|(pattern, make)| Some(make(&fit(pattern, &path)?)));
        if let Some(target) = served {
            return Ok(target);
        }
        match path.as_slice() {
            ["v2", "user_auth" | "api_auth" | "token_auth", ..] => Ok(Self::Login),
            ["v2", "accounts", account, ..] => Ok(Self::Unknown { account: Some((*account).to_owned()) }),
            ["v2", ..] => Ok(Self::Unknown { account: None }),
            _ => Err(ApiError::NotFound),
        }
    }

    /// Media type of a success.
    pub(super) fn content_type(&self, ask: &RequestContext) -> &'static str {
        match self {
            Self::Explained { subject: ExplainRoute::Events, .. } => "text/event-stream",
            _ if ask.jsonp.is_some() => SCRIPT,
            _ => JSON,
        }
    }

    /// Value of the Allow header.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Health(_) | Self::Document => "GET, HEAD",
            Self::Presence { of: PresenceScope::Extension(_), .. } => "POST, OPTIONS",
            // POST on the whole account is a known method without an effect; it has its own error.
            Self::Presence { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Explained { subject: ExplainRoute::Subscription(_), .. } | Self::Drain => {
                "GET, HEAD, POST, DELETE, OPTIONS"
            }
            Self::Explained { subject: ExplainRoute::Trace(_), .. } => "GET, HEAD, DELETE, OPTIONS",
            Self::Explained { subject: ExplainRoute::Events, .. } => "GET, OPTIONS",
            Self::Explained { .. } | Self::Accounts | Self::Metrics | Self::Refusals => "GET, HEAD, OPTIONS",
            Self::Login | Self::Unknown { .. } => "",
        }
    }

    /// Returns 405 for a method that the resource does not have.
    pub(super) fn check_method(&self, verb: Method) -> Result<(), ApiError> {
        let allow = self.allow();
        if !matches!(
            self,
            Self::Presence { .. }
                | Self::Explained { .. }
                | Self::Accounts
                | Self::Metrics
                | Self::Drain
                | Self::Refusals
        ) || allow.split(", ").any(|method| method == verb.name())
        {
            return Ok(());
        }
        let report =
            matches!(self, Self::Presence { of: PresenceScope::Extension(name), .. } if name.starts_with("report-"));
        Err(ApiError::MethodNotAllowed { allow, cause: report.then_some("reports are not available") })
    }

    /// Account of the path: 404 if there is none with this id. Like Kazoo, this is checked before the token.
    pub(super) fn account(&self, directory: &Directory) -> Result<Option<AccountNo>, ApiError> {
        let (Self::Presence { account: id, .. }
        | Self::Explained { account: id, .. }
        | Self::Unknown { account: Some(id) }) = self
        else {
            // A login needs no credentials here: logins are not offered.
            return if *self == Self::Login { Err(ApiError::NoLogins) } else { Ok(None) };
        };
        directory.account_by_id(id).map(Some).ok_or_else(|| ApiError::BadIdentifier(id.clone()))
    }

    /// Returns 404 for a path that is not served, now that the client has authenticated.
    pub(super) fn known(&self, account: Option<AccountNo>) -> Result<AccountNo, ApiError> {
        match (self, account) {
            (Self::Presence { .. } | Self::Explained { .. }, Some(account)) => Ok(account),
            _ => Err(ApiError::NotFound),
        }
    }
}
