//! The hooks: each is one call where a request is decided, and does nothing for one that is accepted.

use std::net::IpAddr;
use std::time::Duration;

use super::book::{Owner, Refusal, SenderKind, Stranger};
use super::{METHODS, UNKNOWN_USER, WRONG_PASSWORD};
use crate::directory::AccountNo;
use crate::notifier::Notifier;
use crate::notifier::answer::Answer;
use crate::notifier::gate::Size;
use crate::presence::Tick;
use crate::sip::headers::NameAddr;
use crate::sip::uri::{Host, Uri};
use crate::sip::wire::{Head, Message, Name, Verb};
use crate::sip::{Method, StatusCode};
use crate::transport::{Destination, Source};

/// So many of those that exceed their rate are noted in a second; the others are only counted. A flood costs no more than a look at
/// one word for each message then.
const UNREAD_NOTED_PER_SECOND: u32 = 100;
/// What everything is counted under that was not read because its sender exceeded its rate.
const RATES: &str = "rate_limits";

/// A request of the HTTP API that was refused.
#[derive(Clone, Copy, Debug)]
pub struct ApiRefusal<'a> {
    /// The account that the token opens; none for an unknown one, or for a superuser's.
    pub account: Option<AccountNo>,
    /// The name of the sender, which is not its token.
    pub who: &'a str,
    /// Where it came from.
    pub address: IpAddr,
    /// The method of HTTP.
    pub method: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// Why, in our words.
    pub reason: &'static str,
    /// User-Agent.
    pub agent: &'a str,
}

impl Notifier {
    /// A request has been decided.
    pub(in crate::notifier) fn decided(&self, now: Tick, request: &Message<'_>, source: Source, answer: &Answer) {
        let Some((verb, uri)) = request.request() else { return };
        if let Some(counted) = self.refusals.count(verb, answer) {
            let from = Uri::read(request.from.uri);
            let address = source.peer.ip();
            self.note_refusal(now, &Refused { counted, answer, from, target: Some(uri), head: &request.head, address });
        }
    }

    /// A request that cannot be read was refused.
    pub(in crate::notifier) fn decided_unreadable(&self, now: Tick, head: &Head<'_>, source: Source, answer: &Answer) {
        let counted = self.refusals.count_unreadable(answer);
        let from = head.first(Name::From).and_then(NameAddr::read).and_then(|from| Uri::read(from.uri));
        let address = source.peer.ip();
        self.note_refusal(now, &Refused { counted, answer, from, target: None, head, address });
    }

    /// A request was answered that its sender exceeds its rate.
    pub(in crate::notifier) fn told_off(&self, now: Tick, request: &Message<'_>, source: Source, answer: &Answer) {
        let Some((_, uri)) = request.request() else { return };
        let method = method_of(request);
        let counted = (method, answer.status.code(), RATES);
        let (from, address) = (Uri::read(request.from.uri), source.peer.ip());
        self.note_refusal(now, &Refused { counted, answer, from, target: Some(uri), head: &request.head, address });
    }

    /// A request that had been accepted was refused after all, because the journal has not kept it. `accepted` is the answer that it
    /// does not get, and `to` where that would have gone.
    pub(in crate::notifier) fn not_kept_after_all(
        &self,
        now: Tick,
        accepted: &Message<'_>,
        to: &Destination,
        answer: &Answer,
    ) {
        let counted = self.refusals.count_refusal(method_of(accepted), answer);
        let address = match to {
            Destination::Datagram { peer, .. } => peer.ip(),
            Destination::Connection(remote) | Destination::Flow { otherwise: Some(remote), .. } => remote.peer.ip(),
            // Of a connection that only the peer can open, the address is known to the transport alone.
            Destination::Flow { otherwise: None, .. } => return,
        };
        let from = Uri::read(accepted.from.uri);
        self.note_refusal(now, &Refused { counted, answer, from, target: None, head: &accepted.head, address });
    }

    /// A message was not read because its sender exceeded its rate.
    pub(in crate::notifier) fn left_unread(&self, now: Tick, source: Source) {
        if self.refusals.unread.take(now, Size::of(UNREAD_NOTED_PER_SECOND)) {
            let unread = Refusal {
                owner: Owner::None(Stranger::Unread),
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

    /// The answer to a password that is not looked at because too many before it were wrong (480); none if it is to be looked at.
    pub(in crate::notifier) fn must_wait(
        &self,
        now: Tick,
        source: Source,
        account: AccountNo,
        user: &str,
    ) -> Option<Answer> {
        let wait = self.refusals.guesses.wait(now, source.peer.ip(), account, user)?;
        let seconds = u32::try_from(wait.div_ceil(1_000)).unwrap_or(u32::MAX);
        Some(
            Answer::new(StatusCode::TemporarilyUnavailable, "Too Many Wrong Passwords")
                .with("Retry-After", seconds)
                .with("Warning", "399 lamplighter \"Too many passwords for this user were wrong\""),
        )
    }

    /// A password was wrong: `user` is whom it was said to be of, in the realm of `account`.
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
        let publishes = matches!(request.request(), Some((Verb::Known(Method::Publish), _)));
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

    /// A token was wrong. Says how long the answer is to be held back.
    pub fn wrong_token(&self, now: Tick, address: IpAddr) -> Duration {
        let outcome = self.refusals.guesses.wrong_token(now, address);
        if let Some(tries) = outcome.log {
            log_wrong(address, tries, None);
        }
        Duration::from_millis(outcome.wait)
    }

    /// A request of the HTTP API was refused.
    pub fn note_api_refusal(&self, now: Tick, refusal: &ApiRefusal<'_>) {
        let ApiRefusal { account, who, address, method, status, reason, agent } = *refusal;
        self.refusals.refused_by_api.add((method, status, reason));
        let owner = account.map_or(Owner::None(Stranger::Http), Owner::Account);
        let kind = SenderKind::Client;
        self.refusals.note(now, &Refusal { owner, kind, who, address, method, status, reason, detail: "", agent });
    }

    /// Those who were refused lately in an account, or in none: the latest first, no more than `most`, none later than `from`.
    pub fn refusal_rows(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<super::RefusalRow> {
        self.refusals.rows(account, from, most)
    }

    fn note_refusal(&self, now: Tick, refused: &Refused<'_, '_>) {
        let Refused { counted: (method, status, reason), answer, from, target, head, address } = refused;
        let realm_of = |uri: &Option<Uri<'_>>| uri.as_ref().and_then(|uri| self.realm_of(uri));
        let account = realm_of(from).or_else(|| realm_of(target));
        let refusal = Refusal {
            owner: account.map_or(Owner::None(Stranger::Sip), Owner::Account),
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

/// A SIP request that was refused.
struct Refused<'r, 'm> {
    counted: super::Counted,
    answer: &'r Answer,
    from: Option<Uri<'m>>,
    target: Option<Uri<'m>>,
    /// Of the request; of its answer where the request is gone.
    head: &'r Head<'m>,
    address: IpAddr,
}

/// The method of a request, or of the request of an answer, as it is counted.
fn method_of(message: &Message<'_>) -> &'static str {
    METHODS.into_iter().find(|known| *known == message.cseq.method).unwrap_or(METHODS[METHODS.len() - 1])
}

/// `user@host` of a URI, as its writer may have written it.
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

/// The line that docs/fail2ban/filter.d/lamplighter.conf finds: the source first, then what its sender may have made up.
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
