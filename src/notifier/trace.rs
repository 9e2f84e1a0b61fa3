//! Tracing of single subscriptions: keeps the complete messages of one dialog for the time that the operator asked
//! for.
//!
//! While no trace runs, a message costs one read of a flag. While one runs, each message is searched for our tag of
//! that dialog. The tag stands in every message of the dialog, requests and responses of both sides, and in no other
//! message. The kept messages are bounded in number, size and time. Credentials are removed before a message is kept.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memmem::Finder;
use parking_lot::Mutex;

use super::Notifier;
use super::control::ControlError;
use super::explain::report::{TraceReport, TracedMessage};
use super::settings::Limits;
use crate::directory::AccountNo;
use crate::presence::Tick;
use crate::presence::subscription::SubscriptionId;
use crate::sip::Transport;
use crate::transport::{Destination, OutboundMessage, Source};

/// Maximum number of messages in one trace.
const MOST_MESSAGES: usize = 200;
/// Maximum size of the messages in one trace (octets).
const MOST_OCTETS: usize = 1024 * 1024;
/// Maximum size of all traces of all accounts together (octets): a quarter of the maximum that the default of
/// `limits.traces` allows, because few traces are full. Above it, the largest trace loses its oldest messages.
const MOST_OCTETS_OF_ALL: usize = 16 * MOST_OCTETS;
/// Time for which a trace can be read after it has ended (ms).
const KEPT_FOR: u64 = 3_600_000;
/// Header fields with credentials; none of them has a short form.
const SECRETS: [&str; 4] = ["authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info"];
/// Authentication schemes, which may stay in the trace. Any other first word of such a field may be the secret
/// itself.
const SCHEMES: [&str; 3] = ["Digest", "Basic", "Bearer"];

/// All traces.
#[derive(Debug, Default)]
pub(super) struct Trace {
    on: AtomicBool,
    traces: Mutex<Vec<Traced>>,
}

/// Trace of one subscription, which may be gone by now.
#[derive(Debug)]
struct Traced {
    account: AccountNo,
    place: SubscriptionId,
    tag: Finder<'static>,
    since: Tick,
    until: Tick,
    messages: VecDeque<TracedMessage>,
    octets: usize,
    evicted: u64,
}

impl Trace {
    /// Records a received message.
    #[inline]
    pub(super) fn received(&self, now: Tick, source: Source, bytes: &[u8]) {
        if self.on.load(Ordering::Relaxed) {
            self.look(now, "received", bytes, || (Some(source.transport), Some(source.peer)));
        }
    }

    /// Records messages that leave.
    #[inline]
    pub(super) fn sent(&self, now: Tick, notifier: &Notifier, packets: &[OutboundMessage]) {
        if self.on.load(Ordering::Relaxed) {
            for packet in packets {
                self.look(now, "sent", &packet.bytes, || way(notifier, &packet.to));
            }
        }
    }

    #[cold]
    fn look(
        &self,
        now: Tick,
        direction: &'static str,
        bytes: &[u8],
        way: impl Fn() -> (Option<Transport>, Option<SocketAddr>),
    ) {
        let mut traces = self.traces.lock();
        for trace in traces.iter_mut().filter(|trace| now < trace.until && trace.tag.find(bytes).is_some()) {
            let (transport, peer) = way();
            trace.keep(TracedMessage {
                at: now.0,
                direction,
                transport: transport.map(|transport| transport.to_string()),
                peer: peer.map(|peer| peer.to_string()),
                bytes: bytes.len(),
                text: without_secrets(&String::from_utf8_lossy(bytes)),
            });
        }
        give_up_oldest(&mut traces);
        self.switch(now, &mut traces);
    }

    /// Drops traces that are too old to be read, and clears the flag if no trace runs any more.
    fn switch(&self, now: Tick, traces: &mut Vec<Traced>) {
        traces.retain(|trace| now.0 < trace.until.0.saturating_add(KEPT_FOR));
        self.on.store(traces.iter().any(|trace| now < trace.until), Ordering::Relaxed);
    }

    /// Starts a trace of a subscription, or starts it again. There is a limit for each account, whatever the other
    /// accounts use, and one for all accounts together.
    fn begin(
        &self,
        now: Tick,
        limits: &Limits,
        account: AccountNo,
        place: SubscriptionId,
        seconds: u32,
    ) -> Result<(), ControlError> {
        let mut traces = self.traces.lock();
        traces.retain(|trace| trace.place != place);
        let of = |traces: &[Traced], account| traces.iter().filter(|trace| trace.account == account).count();
        let (mine, all) = (of(&traces, account), traces.len());
        let full = match () {
            () if mine >= limits.traces_per_account => Some(("limits.traces_per_account", limits.traces_per_account)),
            () if all >= limits.traces => Some(("limits.traces", limits.traces)),
            () => None,
        };
        if let Some((key, limit)) = full {
            // The new trace may replace one that has ended, but not a running one. If the limit of all accounts
            // together is reached, the replaced one belongs to the account with the most traces.
            let only_mine = mine >= limits.traces_per_account;
            let has_ended = |trace: &Traced| trace.until <= now && (!only_mine || trace.account == account);
            let rank = |n: &usize| (Reverse(of(&traces, traces[*n].account)), traces[*n].until.0);
            let oldest = (0..traces.len()).filter(|n| has_ended(&traces[*n])).min_by_key(rank);
            traces.remove(oldest.ok_or(ControlError::LimitReached { key, limit })?);
        }
        traces.push(Traced {
            account,
            place,
            tag: Finder::new(&place.to_string()).into_owned(),
            since: now,
            until: now.after(u64::from(seconds) * 1_000),
            messages: VecDeque::new(),
            octets: 0,
            evicted: 0,
        });
        self.switch(now, &mut traces);
        Ok(())
    }

    fn read(&self, now: Tick, account: AccountNo, place: SubscriptionId) -> Option<TraceReport> {
        let mut traces = self.traces.lock();
        self.switch(now, &mut traces);
        let trace = traces.iter().find(|trace| trace.place == place && trace.account == account)?;
        Some(TraceReport {
            subscription: place.to_string(),
            since_at: trace.since.0,
            until_at: trace.until.0,
            running: now < trace.until,
            evicted: trace.evicted,
            messages: trace.messages.iter().cloned().collect(),
        })
    }

    fn forget(&self, now: Tick, account: AccountNo, place: SubscriptionId) -> bool {
        let mut traces = self.traces.lock();
        let before = traces.len();
        traces.retain(|trace| trace.place != place || trace.account != account);
        let found = traces.len() < before;
        self.switch(now, &mut traces);
        found
    }
}

/// Evicts the oldest messages of the largest trace until all traces together are within the limit.
fn give_up_oldest(traces: &mut [Traced]) {
    let mut octets: usize = traces.iter().map(|trace| trace.octets).sum();
    while octets > MOST_OCTETS_OF_ALL {
        let Some(fullest) = traces.iter_mut().max_by_key(|trace| trace.octets) else { return };
        octets -= fullest.give_up_oldest();
    }
}

impl Traced {
    fn keep(&mut self, message: TracedMessage) {
        self.octets += message.text.len();
        self.messages.push_back(message);
        while self.messages.len() > MOST_MESSAGES || (self.octets > MOST_OCTETS && self.messages.len() > 1) {
            self.give_up_oldest();
        }
    }

    /// Evicts the oldest message, and returns its size in octets. The trace must not be empty.
    fn give_up_oldest(&mut self) -> usize {
        let oldest = self.messages.pop_front().map_or(0, |message| message.text.len());
        self.octets -= oldest;
        self.evicted += 1;
        oldest
    }
}

/// Returns the transport and the peer of a message, as far as they are known before it is sent. For a connection that
/// the phone has opened, only the transport layer knows the peer.
fn way(notifier: &Notifier, to: &Destination) -> (Option<Transport>, Option<SocketAddr>) {
    let of = |listener| Some(notifier.settings.routing.listener(listener).transport);
    match to {
        Destination::Datagram { listener, peer } => (of(*listener), Some(*peer)),
        Destination::Connection(remote) => (of(remote.listener), Some(remote.peer)),
        Destination::Flow { otherwise: Some(remote), .. } => (of(remote.listener), Some(remote.peer)),
        Destination::Flow { otherwise: None, .. } => (None, None),
    }
}

/// Returns a message without credentials; the header name and the authentication scheme stay.
fn without_secrets(text: &str) -> String {
    let (head, body) = match text.find("\r\n\r\n") {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let mut kept = String::with_capacity(text.len());
    let mut secret = false;
    for line in head.split_inclusive('\n') {
        let folded = line.starts_with([' ', '\t']);
        if secret && folded {
            continue;
        }
        let field = line.split_once(':').filter(|_| !folded);
        let name = field.map(|(name, _)| name.trim());
        secret = name.is_some_and(|name| SECRETS.iter().any(|known| name.eq_ignore_ascii_case(known)));
        match field.filter(|_| secret) {
            Some((name, value)) => {
                let first = value.split_whitespace().next().unwrap_or_default();
                let scheme = SCHEMES.iter().find(|known| first.eq_ignore_ascii_case(known));
                kept.push_str(name);
                kept.push_str(": ");
                scheme.iter().for_each(|scheme| kept.extend([scheme, " "]));
                kept.push_str("(removed)");
                kept.push_str(if line.ends_with('\n') { "\r\n" } else { "" });
            }
            None => kept.push_str(line),
        }
    }
    kept + body
}

impl Notifier {
    /// Traces one subscription from now on, for this number of seconds. Returns false if there is no such
    /// subscription.
    ///
    /// Errors: a limit of traces is reached, and no ended trace may be replaced.
    pub fn trace(&self, now: Tick, account: AccountNo, id: &str, seconds: u32) -> Result<bool, ControlError> {
        match self.with_subscription(account, id, |_, _, place| place) {
            Some(place) => self.trace.begin(now, &self.settings.limits, account, place, seconds).map(|()| true),
            None => Ok(false),
        }
    }

    /// Returns the trace of a subscription, even if the subscription is gone. Returns `None` if it was not traced, or
    /// belongs to another account.
    pub fn trace_story(&self, now: Tick, account: AccountNo, id: &str) -> Option<TraceReport> {
        self.trace.read(now, account, SubscriptionId::read(id)?)
    }

    /// Returns the end of the trace of a subscription, in the past or in the future (Unix ms); `None` if there is no
    /// trace.
    pub(super) fn trace_ends(&self, place: SubscriptionId) -> Option<u64> {
        let traces = self.trace.traces.lock();
        traces.iter().find(|trace| trace.place == place).map(|trace| trace.until.0)
    }

    /// Ends the trace of a subscription and deletes its messages. Returns false if it was not traced.
    pub fn forget_trace(&self, now: Tick, account: AccountNo, id: &str) -> bool {
        SubscriptionId::read(id).is_some_and(|place| self.trace.forget(now, account, place))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::transport::ListenerId;

    const A: AccountNo = AccountNo(0);

    fn place(slot: u32) -> SubscriptionId {
        SubscriptionId { presentity: 1, slot, nonce: 0xabc }
    }

    fn source() -> Source {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
        Source { transport: Transport::Udp, listener: ListenerId(0), peer, flow: None, certified: false }
    }

    fn message(slot: u32, body: &str) -> Vec<u8> {
        format!("SUBSCRIBE sip:a@b SIP/2.0\r\nTo: <sip:a@b>;tag={}\r\n\r\n{body}", place(slot)).into_bytes()
    }

    #[test]
    fn only_what_has_the_tag_is_kept_and_only_for_its_time() {
        let trace = Trace::default();
        trace.received(Tick(1), source(), &message(1, "before"));
        trace.begin(Tick(1_000), &Limits::default(), A, place(1), 10).unwrap();
        trace.received(Tick(1_001), source(), &message(1, "mine"));
        trace.received(Tick(1_002), source(), &message(2, "another's"));
        trace.received(Tick(11_000), source(), &message(1, "too late"));
        assert!(!trace.on.load(Ordering::Relaxed), "nobody looks any more");
        let story = trace.read(Tick(11_001), A, place(1)).unwrap();
        assert_eq!((story.messages.len(), story.running, story.until_at), (1, false, 11_000));
        assert!(story.messages[0].text.ends_with("mine") && story.messages[0].direction == "received");
        assert!(trace.read(Tick(11_001), AccountNo(1), place(1)).is_none(), "another account's eyes");
        assert!(trace.read(Tick(11_000 + KEPT_FOR), A, place(1)).is_none());
    }

    #[test]
    fn the_oldest_messages_make_room() {
        let trace = Trace::default();
        trace.begin(Tick(0), &Limits::default(), A, place(0), 10).unwrap();
        for n in 0..MOST_MESSAGES + 5 {
            trace.received(Tick(1), source(), &message(0, &n.to_string()));
        }
        let story = trace.read(Tick(1), A, place(0)).unwrap();
        assert_eq!((story.messages.len(), story.evicted), (MOST_MESSAGES, 5));
        assert!(story.messages[0].text.ends_with("\r\n\r\n5"));
        trace.received(Tick(2), source(), &message(0, &"x".repeat(2 * MOST_OCTETS)));
        assert_eq!(trace.read(Tick(2), A, place(0)).unwrap().messages.len(), 1, "one too large is shown alone");
    }

    #[test]
    fn an_account_has_its_share_of_traces_and_the_oldest_that_has_ended_makes_room() {
        let (trace, limits) = (Trace::default(), Limits { traces: 4, traces_per_account: 2, ..Limits::default() });
        let begin = |now, account, n| trace.begin(Tick(now), &limits, AccountNo(account), place(n), 10);
        let reached = |outcome: Result<(), ControlError>| match outcome {
            Err(ControlError::LimitReached { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        begin(0, 0, 1).unwrap();
        begin(5_000, 0, 2).unwrap();
        assert_eq!(reached(begin(5_000, 0, 3)), "limits.traces_per_account");
        begin(5_000, 0, 2).expect("begun anew");
        begin(5_000, 1, 4).expect("another account has a share of its own");
        begin(5_000, 2, 5).unwrap();
        assert_eq!(reached(begin(5_000, 3, 6)), "limits.traces");
        // The first trace has ended.
        begin(10_000, 3, 6).unwrap();
        assert!(trace.read(Tick(10_000), A, place(1)).is_none());
        begin(15_000, 1, 7).expect("one of those that have ended goes");
        begin(15_000, 1, 8).expect("of an account with as many as it may have, it is one of its own");
        assert!(trace.read(Tick(15_000), AccountNo(1), place(4)).is_none());
        assert!(trace.forget(Tick(15_000), AccountNo(1), place(8)));
        assert!(!trace.forget(Tick(15_000), AccountNo(1), place(8)));
    }

    #[test]
    fn all_traces_together_have_so_much_room_and_the_fullest_gives_up() {
        let (trace, limits) = (Trace::default(), Limits::default());
        trace.begin(Tick(0), &limits, AccountNo(1), place(99), 10).unwrap();
        trace.received(Tick(1), source(), &message(99, "small"));
        for account in 2..4 {
            for n in 0..16 {
                let place = account * 100 + n;
                trace.begin(Tick(0), &limits, AccountNo(account), self::place(place), 10).unwrap();
                for _ in 0..4 {
                    trace.received(Tick(1), source(), &message(place, &"x".repeat(MOST_OCTETS / 4 - 200)));
                }
            }
        }
        let octets: usize = trace.traces.lock().iter().map(|trace| trace.octets).sum();
        assert!(octets <= MOST_OCTETS_OF_ALL, "{octets}");
        let small = trace.read(Tick(1), AccountNo(1), place(99)).unwrap();
        assert_eq!((small.messages.len(), small.evicted), (1, 0), "a small one keeps what it has");
    }

    #[test]
    fn proofs_are_taken_out_wherever_they_stand() {
        let text = "SUBSCRIBE sip:a@b SIP/2.0\r\nAUTHORIZATION : Digest username=\"a\",\r\n response=\"s3cret\"\r\n\
                    Call-ID: x\r\nProxy-Authorization: s3cret\r\nAuthentication-Info: rspauth=\"s3cret\"\r\n\r\n\
                    Authorization: in a body";
        let kept = without_secrets(text);
        assert!(!kept.contains("s3cret") && !kept.contains("username"), "{kept}");
        assert!(
            kept.contains("AUTHORIZATION : Digest (removed)\r\nCall-ID: x\r\nProxy-Authorization: (removed)"),
            "{kept}"
        );
        assert!(kept.ends_with("\r\n\r\nAuthorization: in a body"), "{kept}");
        assert_eq!(without_secrets("no head at all"), "no head at all");
    }
}
