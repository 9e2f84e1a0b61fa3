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

impl Target {
    /// Reads a path that has been split and decoded.
    pub(super) fn of(path: &[String], ask: &mut Ask) -> Result<Self, Fault> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let rest = match path.as_slice() {
            ["healthz"] => return Ok(Self::Health(Probe::Live)),
            ["metrics"] => return Ok(Self::Metrics),
            ["readyz"] => return Ok(Self::Health(Probe::Ready)),
            [version @ ("v1" | "v2"), rest @ ..] => {
                ask.version_1 = *version == "v1";
                rest
            }
            _ => return Err(Fault::NotFound),
        };
        let (account, rest) = match rest {
            ["user_auth" | "api_auth" | "token_auth", ..] => return Ok(Self::Login),
            ["accounts"] => return Ok(Self::Accounts),
            ["drain"] => return Ok(Self::Drain),
            ["accounts", account, rest @ ..] => ((*account).to_owned(), rest),
            _ => return Ok(Self::Unknown { account: None }),
        };
        let subject = match rest {
            ["lamps"] => Some(Subject::Lamps),
            ["lamps", extension] => Some(Subject::Lamp((*extension).to_owned())),
            ["lamp_overview"] => Some(Subject::Overview),
            ["lamp_events"] => Some(Subject::Events),
            ["subscriptions"] => Some(Subject::Subscriptions),
            ["subscriptions", id] => Some(Subject::Subscription((*id).to_owned())),
            _ => None,
        };
        if let Some(subject) = subject {
            return Ok(Self::Explained { account, subject });
        }
        let of = match rest {
            ["presence"] => Scope::Account,
            ["devices", id, "presence"] => Scope::Device((*id).to_owned()),
            ["users", id, "presence"] => Scope::User((*id).to_owned()),
            ["presence", extension] | ["devices" | "users", _, "presence", extension] => {
                Scope::Extension((*extension).to_owned())
            }
            _ => return Ok(Self::Unknown { account: Some(account) }),
        };
        Ok(Self::Presence { account, of })
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
            Self::Health(_) => "GET, HEAD",
            Self::Presence { of: Scope::Extension(_), .. } => "POST, OPTIONS",
            // POST on the whole account is a known method with nothing to do, and answered so.
            Self::Presence { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Explained { subject: Subject::Subscription(_), .. } | Self::Drain => {
                "GET, HEAD, POST, DELETE, OPTIONS"
            }
            Self::Explained { subject: Subject::Events, .. } => "GET, OPTIONS",
            Self::Explained { .. } | Self::Accounts | Self::Metrics => "GET, HEAD, OPTIONS",
            Self::Login | Self::Unknown { .. } => "",
        }
    }

    /// 405 for a method that the resource does not have.
    pub(super) fn check_method(&self, verb: Verb) -> Result<(), Fault> {
        let allow = self.allow();
        if !matches!(
            self,
            Self::Presence { .. } | Self::Explained { .. } | Self::Accounts | Self::Metrics | Self::Drain
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
