//! Hooks that record refusals. Each is one call at the place where a request is decided, and does nothing for a
//! request that is accepted.

use std::net::IpAddr;
use std::time::Duration;

use super::log::{Owner, Refusal, SenderKind, UnaccountedSender};
use super::{METHODS, UNKNOWN_USER, WRONG_PASSWORD};
use crate::directory::AccountNo;
use crate::notifier::Notifier;
use crate::notifier::rate_limit::Size;
use crate::notifier::response::Response;
use crate::presence::Tick;
use crate::sip::headers::NameAddr;
use crate::sip::uri::{Host, Uri};
use crate::sip::wire::{Head, Message, Name, RequestMethod};
use crate::sip::{Method, StatusCode};
use crate::transport::{Destination, Source};

/// Maximum number of rate-limited messages per second that get an entry in the list; the others are only counted. So
/// during a flood most messages cost one read of a word.
const UNREAD_NOTED_PER_SECOND: u32 = 100;
/// Reason under which messages are counted that were not read because of the rate limit.
const RATES: &str = "rate_limits";

/// A refused request of the HTTP API.
#[derive(Clone, Copy, Debug)]
pub struct ApiRefusal<'a> {
    /// Account of the token; `None` for an unknown token and for that of a superuser.
    pub account: Option<AccountNo>,
    /// Name of the sender, which is not its token.
    pub who: &'a str,
    /// Source address.
    pub address: IpAddr,
    /// HTTP method.
    pub method: &'static str,
    /// Status of the response.
    pub status: u16,
    /// Reason: one of our own texts.
    pub reason: &'static str,
    /// User-Agent of the sender.
    pub agent: &'a str,
}

impl Notifier {
    /// Counts a request that has been decided, and records it if it was refused.
    pub(in crate::notifier) fn decided(&self, now: Tick, request: &Message<'_>, source: Source, answer: &Response) {
        let Some((verb, uri)) = request.request() else { return };
        if let Some(counted) = self.refusals.count(verb, answer) {
            let from = Uri::read(request.from.uri);
            let address = source.peer.ip();
            self.note_refusal(now, &Refused { counted, answer, from, target: Some(uri), head: &request.head, address });
        }
    }

    /// Counts and records a request that could not be parsed.
    pub(in crate::notifier) fn decided_unreadable(
        &self,
        now: Tick,
        head: &Head<'_>,
        source: Source,
        answer: &Response,
    ) {
        let counted = self.refusals.count_unreadable(answer);
        let from = head.first(Name::From).and_then(NameAddr::read).and_then(|from| Uri::read(from.uri));
        let address = source.peer.ip();
        self.note_refusal(now, &Refused { counted, answer, from, target: None, head, address });
    }

    /// Records a request that got the response for an exceeded rate limit.
    pub(in crate::notifier) fn told_off(&self, now: Tick, request: &Message<'_>, source: Source, answer: &Response) {
        let Some((_, uri)) = request.request() else { return };
        let method = method_of(request);
        let counted = (method, answer.status.code(), RATES);
        let (from, address) = (Uri::read(request.from.uri), source.peer.ip());
        self.note_refusal(now, &Refused { counted, answer, from, target: Some(uri), head: &request.head, address });
    }

    /// Records a request that was accepted first and then refused, because the journal did not write its change.
    /// `accepted` is the response that is not sent, and `to` the destination of that response.
    pub(in crate::notifier) fn not_kept_after_all(
        &self,
        now: Tick,
        accepted: &Message<'_>,
        to: &Destination,
        answer: &Response,
    ) {
        let counted = self.refusals.count_refusal(method_of(accepted), answer);
        let address = match to {
            Destination::Datagram { peer, .. } => peer.ip(),
            Destination::Connection(remote) | Destination::Flow { otherwise: Some(remote), .. } => remote.peer.ip(),
            // On a connection that only the peer can open, only the transport layer knows the address.
            Destination::Flow { otherwise: None, .. } => return,
        };
        let from = Uri::read(accepted.from.uri);
        self.note_refusal(now, &Refused { counted, answer, from, target: None, head: &accepted.head, address });
    }

    /// Records a message that was not read because its source exceeded the rate limit.
    pub(in crate::notifier) fn left_unread(&self, now: Tick, source: Source) {
        if self.refusals.unread.take(now, Size::of(UNREAD_NOTED_PER_SECOND)) {
            let unread = Refusal {
                owner: Owner::None(UnaccountedSender::Unread),
                kind: SenderKind::Peer,
                who: "",
                address: source.peer.ip(),
                method: "other",
                status: 0,
                reason: RATES,
                detail: "",
                agent: "",
            };
            self.refusals.note(now, &unread);
        }
    }

    /// Returns the 480 for a password that is not checked because too many before it were wrong; `None` if it is to
    /// be checked.
    pub(in crate::notifier) fn must_wait(
        &self,
        now: Tick,
        source: Source,
        account: AccountNo,
        user: &str,
    ) -> Option<Response> {
        let wait = self.refusals.guesses.wait(now, source.peer.ip(), account, user)?;
        let seconds = u32::try_from(wait.div_ceil(1_000)).unwrap_or(u32::MAX);
        Some(
            Response::new(StatusCode::TemporarilyUnavailable, "Too Many Wrong Passwords")
                .with("Retry-After", seconds)
                .with("Warning", "399 lamplighter \"Too many passwords for this user were wrong\""),
        )
    }

    /// Records a wrong password. `user` is the user name in the request, in the realm of `account`.
    pub(in crate::notifier) fn wrong_password(
        &self,
        now: Tick,
        request: &Message<'_>,
        source: Source,
        account: AccountNo,
        user: &str,
    ) {
        let address = source.peer.ip();
        let directory = &self.settings.directory;
        let reason = match directory.principal(account, user) {
            Some(_) => WRONG_PASSWORD,
            None => UNKNOWN_USER,
        };
        let publishes = matches!(request.request(), Some((RequestMethod::Known(Method::Publish), _)));
        let (kind, method) = match publishes {
            true => (SenderKind::Publisher, "PUBLISH"),
            false => (SenderKind::Phone, "SUBSCRIBE"),
        };
        let realm = directory.realm(account);
        let outcome = self.refusals.guesses.wrong_password(now, address, account, user);
        self.refusals.refused.add((method, StatusCode::Unauthorized.code(), reason));
        let refusal = Refusal {
            owner: Owner::Account(account),
            kind,
            who: &format!("{user}@{realm}"),
            address,
            method,
            status: StatusCode::Unauthorized.code(),
            reason,
            detail: "",
            agent: request.first(Name::UserAgent).unwrap_or_default(),
        };
        self.refusals.note(now, &refusal);
        if let Some(tries) = outcome.log {
            log_wrong(address, tries, Some((user, realm)));
        }
    }

    /// Records a wrong token. Returns the time for which the response is to be delayed.
    pub fn wrong_token(&self, now: Tick, address: IpAddr) -> Duration {
        let outcome = self.refusals.guesses.wrong_token(now, address);
        if let Some(tries) = outcome.log {
            log_wrong(address, tries, None);
        }
        Duration::from_millis(outcome.wait)
    }

    /// Records a refused request of the HTTP API.
    pub fn note_api_refusal(&self, now: Tick, refusal: &ApiRefusal<'_>) {
        let ApiRefusal { account, who, address, method, status, reason, agent } = *refusal;
        self.refusals.refused_by_api.add((method, status, reason));
        let owner = account.map_or(Owner::None(UnaccountedSender::Http), Owner::Account);
        let kind = SenderKind::Client;
        self.refusals.note(now, &Refusal { owner, kind, who, address, method, status, reason, detail: "", agent });
    }

    /// Returns the recent refusals of an account; with `None`, those that belong to no account. The latest come
    /// first: at most `most` entries, and none with a number above `from`.
    pub fn refusal_rows(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<super::RefusalRow> {
        self.refusals.rows(account, from, most)
    }

    fn note_refusal(&self, now: Tick, refused: &Refused<'_, '_>) {
        let Refused { counted: (method, status, reason), answer, from, target, head, address } = refused;
        let realm_of = |uri: &Option<Uri<'_>>| uri.as_ref().and_then(|uri| self.realm_of(uri));
        let account = realm_of(from).or_else(|| realm_of(target));
        let refusal = Refusal {
            owner: account.map_or(Owner::None(UnaccountedSender::Sip), Owner::Account),
            kind: match *method {
                "SUBSCRIBE" => SenderKind::Phone,
                "PUBLISH" => SenderKind::Publisher,
                _ => SenderKind::Peer,
            },
            who: &from.as_ref().map(address_of).unwrap_or_default(),
            address: *address,
            method,
            status: *status,
            reason,
            detail: &answer.reason,
            agent: head.first(Name::UserAgent).unwrap_or_default(),
        };
        self.refusals.note(now, &refusal);
    }
}

/// A refused SIP request.
struct Refused<'r, 'm> {
    counted: super::Counted,
    answer: &'r Response,
    from: Option<Uri<'m>>,
    target: Option<Uri<'m>>,
    /// Header of the request; if only its response is left, the header of that.
    head: &'r Head<'m>,
    address: IpAddr,
}

/// Returns the method under which a request, or the request of a response, is counted.
fn method_of(message: &Message<'_>) -> &'static str {
    METHODS.into_iter().find(|known| *known == message.cseq.method).unwrap_or(METHODS[METHODS.len() - 1])
}

/// Returns `user@host` of a URI, with the user unescaped and the host in lower case.
fn address_of(uri: &Uri<'_>) -> String {
    let host = match uri.host {
        Host::Name(name) => name.to_ascii_lowercase(),
        Host::Ip(ip) => ip.to_string(),
    };
    match uri.decoded_user() {
        Some(user) => format!("{user}@{host}"),
        None => host,
    }
}

/// Writes the log line that docs/fail2ban/filter.d/lamplighter.conf matches. The source comes first, in front of all
/// texts that the sender may have chosen.
fn log_wrong(source: IpAddr, tries: u64, user: Option<(&str, &str)>) {
    let source = source.to_canonical();
    match user {
        Some((user, realm)) => {
            let user = super::source::harmless(user, 64);
            tracing::warn!(target: "lamplighter::refusals", %source, user, realm, tries, "wrong password");
        }
        None => tracing::warn!(target: "lamplighter::refusals", %source, tries, "wrong token"),
    }
}
