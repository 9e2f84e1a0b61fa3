//! What a path means, and which methods it has.

use crate::directory::{AccountNo, Directory};

use super::error::Fault;
use super::request::{Ask, JSON, SCRIPT, Verb};

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/healthz` and `/readyz`.
    Health(Probe),
    /// `user_auth`, `api_auth`, `token_auth`: what Kazoo has for logging in.
    Login,
    /// Something below an account.
    Presence {
        /// The account's id, as it was written.
        account: String,
        /// Whose presence.
        of: Scope,
    },
    /// `/metrics`
    Metrics,
    /// `drain`: whether the server takes new work.
    Drain,
    /// `refusals`: those of no account that were refused.
    Refusals,
    /// `/openapi.json`
    Document,
    /// `accounts`: those that the token opens.
    Accounts,
    /// What explains lamps, below an account.
    Explained {
        /// The account's id, as it was written.
        account: String,
        /// What is to be explained.
        subject: Subject,
    },
    /// Below `/v1` or `/v2`, but nothing that is served; told only to those who show a token.
    Unknown {
        /// The account's id, where the path begins with one.
        account: Option<String>,
    },
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Alive at all.
    Live,
    /// Open for work.
    Ready,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
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

/// Whose presence a path speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `presence`
    Account,
    /// `presence/EXT`, also below a device or user, which upstream ignores.
    Extension(String),
    /// `devices/ID/presence`
    Device(String),
    /// `users/ID/presence`
    User(String),
}

/// What a path with these placeholders filled is about; the parts come in their order.
type Make = fn(&[&str]) -> Target;

/// Every path that is served but for the pages, each once; the OpenAPI document names the same. `/v1` is the same as `/v2`.
const ROUTES: [(&str, Make); 21] = [
    ("/healthz", |_| Target::Health(Probe::Live)),
    ("/readyz", |_| Target::Health(Probe::Ready)),
    ("/metrics", |_| Target::Metrics),
    ("/openapi.json", |_| Target::Document),
    ("/v2/drain", |_| Target::Drain),
    ("/v2/refusals", |_| Target::Refusals),
    ("/v2/accounts", |_| Target::Accounts),
    ("/v2/accounts/{account}/presence", |p| presence(p, Scope::Account)),
    ("/v2/accounts/{account}/presence/{extension}", |p| presence(p, Scope::Extension(p[1].into()))),
    ("/v2/accounts/{account}/devices/{device}/presence", |p| presence(p, Scope::Device(p[1].into()))),
    ("/v2/accounts/{account}/users/{user}/presence", |p| presence(p, Scope::User(p[1].into()))),
    ("/v2/accounts/{account}/devices/{device}/presence/{extension}", |p| presence(p, Scope::Extension(p[2].into()))),
    ("/v2/accounts/{account}/users/{user}/presence/{extension}", |p| presence(p, Scope::Extension(p[2].into()))),
    ("/v2/accounts/{account}/lamps", |p| explained(p, Subject::Lamps)),
    ("/v2/accounts/{account}/lamps/{extension}", |p| explained(p, Subject::Lamp(p[1].into()))),
    ("/v2/accounts/{account}/lamp_overview", |p| explained(p, Subject::Overview)),
    ("/v2/accounts/{account}/lamp_events", |p| explained(p, Subject::Events)),
    ("/v2/accounts/{account}/refusals", |p| explained(p, Subject::Refusals)),
    ("/v2/accounts/{account}/subscriptions", |p| explained(p, Subject::Subscriptions)),
    ("/v2/accounts/{account}/subscriptions/{subscription}", |p| explained(p, Subject::Subscription(p[1].into()))),
    ("/v2/accounts/{account}/subscriptions/{subscription}/trace", |p| explained(p, Subject::Trace(p[1].into()))),
];

fn presence(parts: &[&str], of: Scope) -> Target {
    Target::Presence { account: parts[0].into(), of }
}

fn explained(parts: &[&str], subject: Subject) -> Target {
    Target::Explained { account: parts[0].into(), subject }
}

/// What stands in the places of a pattern's placeholders, if the path is one of that pattern.
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

/// Every path that is served, with the methods that it has.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (String, &'static str)> {
    ROUTES.iter().map(|(pattern, make)| ((*pattern).to_owned(), make(&["a", "b", "c"]).allow()))
}

impl Target {
    /// Reads a path that has been split and decoded.
    pub(super) fn of(path: &[String], ask: &mut Ask) -> Result<Self, Fault> {
        let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
        if let Some(version @ (&mut "v1" | &mut "v2")) = path.first_mut() {
            ask.version_1 = *version == "v1";
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
            _ => Err(Fault::NotFound),
        }
    }

    /// What a success is written in.
    pub(super) fn content_type(&self, ask: &Ask) -> &'static str {
        match self {
            Self::Explained { subject: Subject::Events, .. } => "text/event-stream",
            _ if ask.jsonp.is_some() => SCRIPT,
            _ => JSON,
        }
    }

    /// The value of Allow.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Health(_) | Self::Document => "GET, HEAD",
            Self::Presence { of: Scope::Extension(_), .. } => "POST, OPTIONS",
            // POST on the whole account is a known method with nothing to do, and answered so.
            Self::Presence { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Explained { subject: Subject::Subscription(_), .. } | Self::Drain => {
                "GET, HEAD, POST, DELETE, OPTIONS"
            }
            Self::Explained { subject: Subject::Trace(_), .. } => "GET, HEAD, DELETE, OPTIONS",
            Self::Explained { subject: Subject::Events, .. } => "GET, OPTIONS",
            Self::Explained { .. } | Self::Accounts | Self::Metrics | Self::Refusals => "GET, HEAD, OPTIONS",
            Self::Login | Self::Unknown { .. } => "",
        }
    }

    /// 405 for a method that the resource does not have.
    pub(super) fn check_method(&self, verb: Verb) -> Result<(), Fault> {
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
        let report = matches!(self, Self::Presence { of: Scope::Extension(name), .. } if name.starts_with("report-"));
        Err(Fault::MethodNotAllowed { allow, cause: report.then_some("reports are not available") })
    }

    /// The account of the path: 404 if there is none with that id. Before the token is looked at, as upstream does.
    pub(super) fn account(&self, directory: &Directory) -> Result<Option<AccountNo>, Fault> {
        let (Self::Presence { account: id, .. }
        | Self::Explained { account: id, .. }
        | Self::Unknown { account: Some(id) }) = self
        else {
            // There are no credentials to look at: nobody can log in yet.
            return if *self == Self::Login { Err(Fault::NoLogins) } else { Ok(None) };
        };
        directory.account_by_id(id).map(Some).ok_or_else(|| Fault::BadIdentifier(id.clone()))
    }

    /// 404 for what is not served, now that the caller has shown who he is.
    pub(super) fn known(&self, account: Option<AccountNo>) -> Result<AccountNo, Fault> {
        match (self, account) {
            (Self::Presence { .. } | Self::Explained { .. }, Some(account)) => Ok(account),
            _ => Err(Fault::NotFound),
        }
    }
}
