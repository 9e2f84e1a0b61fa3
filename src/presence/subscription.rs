//! Subscriptions: one watcher's subscription to one package of a presentity, and the delivery of its NOTIFYs.
//!
//! The notifier is level-triggered (rule 1). A subscription knows the revision that its device has acknowledged; a
//! stale one is sent the state of the moment. At most one NOTIFY is in flight (rule 2).

use std::fmt;
use std::mem::offset_of;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::device::Device;
use super::dialog_filter::DialogFilter;
use super::intern::InternedStr;
use super::vendor::Vendor;
use super::{PackageId, Tick};
use crate::sip::dialog::{Dialog, TooLong};
use crate::sip::transaction::ClientTransaction;
use crate::sip::wire::{Hex, Value};
use crate::transport::{Destination, PackedSource, Source};
use crate::util::per_thread::SLOTS;
use crate::util::prefetch::{self, PrefetchMark};

/// Identity of a subscription. It stands in our To tag and in the branches of our NOTIFYs, so that a request or a
/// reply finds its subscription without a table of dialogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId {
    /// Number of the presentity.
    pub presentity: u32,
    /// Slot of the subscription in the presentity.
    pub slot: u32,
    /// Random part, which cannot be guessed and differs for each subscription that ever had the slot.
    pub nonce: u64,
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:016x}", self.presentity, self.slot, self.nonce)
    }
}

impl Value for SubscriptionId {
    fn put(&self, out: &mut Vec<u8>) {
        let (mut text, mut length) = ([0; 51], 0);
        for number in [Hex(self.presentity.into(), 1), Hex(self.slot.into(), 1), Hex(self.nonce, 16)] {
            let (digits, count) = number.digits();
            text[length..length + 16].copy_from_slice(&digits);
            text[length + count] = b'.';
            length += count + 1;
        }
        out.extend_from_slice(&text[..length - 1]);
    }
}

impl SubscriptionId {
    /// Parses the text form of a [`SubscriptionId`], in either case (tags compare without case, RFC 3261 section 7.3.1).
    pub fn read(text: &str) -> Option<SubscriptionId> {
        let (presentity, rest) = text.split_at_checked(text.bytes().position(|c| c == b'.')?)?;
        let (slot, nonce) = rest[1..].split_at_checked(rest[1..].bytes().position(|c| c == b'.')?)?;
        let number = |digits: &str| Hex::read(digits).and_then(|number| u32::try_from(number).ok());
        let nonce = Some(&nonce[1..]).filter(|digits| digits.len() == 16).and_then(Hex::read)?;
        Some(SubscriptionId { presentity: number(presentity)?, slot: number(slot)?, nonce })
    }
}

/// Revision: the number of changes of the state that the watchers of one package are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Flags for what is uncertain about a subscription. In one octet, as there is no room for two booleans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts(u8);

impl Doubts {
    /// The device, as far as it can be identified, has subscribed to the same again in another dialog. If it has lost
    /// this dialog, it will not reply here, and the subscription is then removed.
    pub const REPLACED: Doubts = Doubts(1);
    /// The subscription was read from the journal and its device has not refreshed it since. The response to its
    /// latest SUBSCRIBE may have been lost in the crash, so that SUBSCRIBE may be retransmitted.
    pub const ANSWER_LOST: Doubts = Doubts(2);

    /// Returns true if the flag is set.
    pub fn has(self, doubt: Doubts) -> bool {
        self.0 & doubt.0 != 0
    }

    /// Sets a flag.
    pub fn add(&mut self, doubt: Doubts) {
        self.0 |= doubt.0;
    }

    /// Clears a flag.
    pub fn remove(&mut self, doubt: Doubts) {
        self.0 &= !doubt.0;
    }
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    lines: PrefetchMark,
    /// Identity of the subscription.
    pub place: SubscriptionId,
    /// Its event package.
    pub package: PackageId,
    /// Options of the SUBSCRIBE. Boxed, as few watchers use any.
    pub options: Option<Box<SubscribeOptions>>,
    /// Device of the watcher.
    pub phone: Arc<Device>,
    /// Flags for what is uncertain about it.
    pub doubts: Doubts,
    /// Dialog of the subscription.
    pub dialog: Dialog,
    /// URI that was subscribed to, as the device wrote it, without parameters; none if it is the presentity's own.
    pub requested_uri: Option<InternedStr>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<InternedStr>,
    /// Vendor of the device by that User-Agent.
    pub family: Vendor,
    /// Source of the latest SUBSCRIBE.
    way: PackedSource,
    /// True if the next hop of NOTIFYs is the source of the latest SUBSCRIBE. A cached result, valid until the source
    /// or the remote target changes.
    pub next_hop_is_source: bool,
    /// Lifetime that the latest SUBSCRIBE was granted (seconds).
    pub granted: u32,
    /// Time at which it expires unless refreshed.
    pub expires_at: Tick,
    /// True if it has ended and only the final NOTIFY is left to send. It is not listed, and a refresh is answered as
    /// for an unknown dialog.
    pub ended: bool,
    /// Revision that the device has acknowledged.
    pub acknowledged: Revision,
    /// Number of documents made for it, which is the `version` of the next one (RFC 4235 section 4.1).
    pub next_version: u32,
    /// Number of documents that the journal accounts for. After a crash counting goes on from there, so that no CSeq
    /// and no version is used twice (rule 2).
    pub reserved: u32,
    /// CSeq number of our latest NOTIFY when the device last proved that it has this dialog, by a SUBSCRIBE or by
    /// accepting that NOTIFY. Its replies to this NOTIFY or earlier ones are out of date.
    pub confirmed_cseq: u32,
    /// Time at which the latest NOTIFY was made. Retransmissions do not count.
    pub last_notify_at: Tick,
    /// Delivery state of the latest NOTIFY.
    pub delivery: Delivery,
    /// Number of DNS targets of its next hop that have failed in a row.
    pub failed_targets: u8,
    /// CSeq number of the latest NOTIFY that was answered; see [`Subscription::last`].
    last_cseq: u32,
    last_version: u32,
    last_reply: Option<NonZeroU16>,
    last_tail: Option<InternedStr>,
    /// Time at which its expiry timer fires next.
    pub expiry_timer: Tick,
    /// Its delivery timer, if one is armed.
    pub delivery_timer: Option<TimerHandle>,
}

/// Handle of a timer: its time, and the per-thread slot that it is kept in. In one word, as millions of subscriptions
/// have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerHandle(NonZeroU64);

impl TimerHandle {
    /// Handle of a timer for this time in this slot.
    pub fn new(at: Tick, place: usize) -> TimerHandle {
        // Plus one, so that the word is never 0.
        let word = (at.0 + 1).saturating_mul(SLOTS as u64) | (place % SLOTS) as u64;
        TimerHandle(NonZeroU64::new(word).unwrap_or(NonZeroU64::MAX))
    }

    /// Time of the timer.
    pub fn at(self) -> Tick {
        Tick(self.0.get() / SLOTS as u64 - 1)
    }

    /// Slot of the timer.
    pub fn place(self) -> usize {
        (self.0.get() % SLOTS as u64) as usize
    }
}

/// Options of a SUBSCRIBE that few watchers use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// `id` parameter of its Event header, copied to every NOTIFY.
    pub event_id: Option<Box<str>>,
    /// Dialog that the latest SUBSCRIBE names; none for all dialogs.
    pub named: Option<DialogFilter>,
    /// Rate limit on NOTIFYs that the latest SUBSCRIBE asks for.
    pub max_rate: Option<MaxRate>,
    /// State that the latest SUBSCRIBE asks not to be notified of.
    pub suppressed: Suppressed,
}

impl SubscribeOptions {
    /// Returns none if no option is set.
    pub fn boxed(self) -> Option<Box<SubscribeOptions>> {
        (self != SubscribeOptions::default()).then(|| Box::new(self))
    }
}

/// Limit on NOTIFYs in a second that a watcher asks for (RFC 6446 section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxRate {
    /// Value as received, which is copied to our messages.
    pub written: Box<str>,
    /// Shortest interval between two NOTIFYs that follows from it (ms).
    pub gap: u32,
}

impl MaxRate {
    /// Parses a number of NOTIFYs per second; none if it is no number. At a rate of 0, only SUBSCRIBEs cause NOTIFYs.
    pub fn of(written: &str) -> Option<MaxRate> {
        let rate: f64 = written.parse().ok()?;
        // Rounded up, as a rate below the limit is allowed. The cast saturates.
        Some(MaxRate { written: written.into(), gap: (1_000.0 / rate).ceil() as u32 })
    }
}

/// State that a watcher asks not to be notified of (RFC 5839 section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suppressed {
    /// The watcher wants every NOTIFY.
    #[default]
    Nothing,
    /// The watcher has the state of this revision.
    State(Revision),
    /// The watcher wants no state until another SUBSCRIBE asks for it.
    Everything,
}

/// Delivery state of the latest NOTIFY of a subscription.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// No NOTIFY is in flight or due.
    Idle,
    /// A NOTIFY is due, but the device is rate-limited. The state that holds at `until` is sent then.
    Throttled {
        /// Time at which the NOTIFY may leave.
        until: Tick,
        /// Failures in a row so far.
        failures: u32,
    },
    /// A NOTIFY is due, but the name of its next hop is being resolved. It leaves once that is known, and at `until`
    /// in any case.
    Resolving {
        /// End of the wait for the DNS.
        until: Tick,
        /// Failures in a row so far.
        failures: u32,
    },
    /// A NOTIFY waits for its final response.
    InFlight(Box<InFlight>),
    /// The latest NOTIFY failed, but the failure does not end the subscription (rule 6). It is retried at `until`.
    Suspended {
        /// Time of the next attempt.
        until: Tick,
        /// Failures in a row.
        failures: u32,
        /// True if the device does not reply or has asked for a delay: changes wait as well. False if only the failed
        /// revision waits, and a change is sent at once.
        silent: bool,
    },
}

impl Delivery {
    /// Number of NOTIFYs that have failed in a row.
    pub fn failures(&self) -> u32 {
        match self {
            Delivery::Idle => 0,
            Delivery::Throttled { failures, .. }
            | Delivery::Resolving { failures, .. }
            | Delivery::Suspended { failures, .. } => *failures,
            Delivery::InFlight(flight) => flight.failures,
        }
    }
}

impl Delivery {
    /// Returns true if this is a final response to the NOTIFY in flight, received from its destination. Such a
    /// response can be trusted, as nothing else was sent the request, and it can come once only.
    pub fn is_answered_by(&self, cseq: u32, status: u16, source: &Source) -> bool {
        match self {
            Delivery::InFlight(flight) if flight.cseq == cseq && status >= 200 => match &flight.to {
                Destination::Datagram { peer, .. } => !source.is_stream() && peer.ip() == source.peer.ip(),
                Destination::Flow { flow, .. } if source.flow == Some(*flow) => true,
                Destination::Flow { otherwise: Some(remote), .. } | Destination::Connection(remote) => {
                    source.is_stream() && remote.peer == source.peer
                }
                Destination::Flow { otherwise: None, .. } => false,
            },
            _ => false,
        }
    }
}

/// A NOTIFY that waits for its final response.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// CSeq number of the NOTIFY.
    pub cseq: u32,
    /// Revision that it reports.
    pub revision: Revision,
    /// Version of its document.
    pub version: u32,
    /// Shared part of its document; none if it was sent without a body.
    pub tail: Option<InternedStr>,
    /// Hash of its document, which tells what the device knows once it has accepted the NOTIFY.
    pub fingerprint: u64,
    /// Size of the message (octets). The message itself is not kept: a retransmission is encoded again from these
    /// fields.
    pub size: u32,
    /// Destination of the message.
    pub to: Destination,
    /// Measure that was taken because of its size.
    pub sent_as: NotifyTransport,
    /// Number of retransmissions, or NOTIFYs in its place, that have left without a reply.
    pub copies: u8,
    /// Time at which it first left.
    pub sent_at: Tick,
    /// Client transaction, for its timers.
    pub transaction: ClientTransaction,
    /// Failures in a row before it.
    pub failures: u32,
    /// True if it reports the end of the subscription.
    pub last: bool,
}

/// Transport of a NOTIFY that may be too large for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyTransport {
    /// Sent like any other.
    Normal,
    /// Sent with compact header names.
    CompactHeaders,
    /// Sent over a TCP connection that only oversize NOTIFYs take.
    Tcp,
    /// Not sent: no datagram holds it, and it may take no connection.
    Not,
}

/// Result of the latest NOTIFY that was answered or timed out.
#[derive(Clone, Copy, Debug)]
pub struct LastReply<'a> {
    /// CSeq number of the NOTIFY.
    pub cseq: u32,
    /// Status of the final response; 408 if none came in time.
    pub reply: u16,
    /// Version of its document.
    pub version: u32,
    /// Shared part of its document, from which the document is composed again for an operator; none if it was sent
    /// without a body.
    pub tail: Option<&'a str>,
}

/// Fields that a new subscription needs.
#[derive(Debug)]
pub struct NewSubscription {
    /// Identity of the subscription.
    pub place: SubscriptionId,
    /// Its event package.
    pub package: PackageId,
    /// Device of the watcher.
    pub phone: Arc<Device>,
    /// Dialog of the subscription.
    pub dialog: Dialog,
    /// URI that was subscribed to, unless it is the presentity's own.
    pub requested_uri: Option<InternedStr>,
    /// Source of its SUBSCRIBE.
    pub source: Source,
}

impl Subscription {
    /// Creates a subscription that is granted no lifetime yet and has no NOTIFY.
    pub fn new(now: Tick, beginning: NewSubscription) -> Subscription {
        let NewSubscription { place, package, phone, dialog, requested_uri, source } = beginning;
        Subscription {
            lines: PrefetchMark::default(),
            place,
            package,
            options: None,
            phone,
            doubts: Doubts::default(),
            dialog,
            requested_uri,
            user_agent: None,
            family: Vendor::default(),
            way: source.into(),
            next_hop_is_source: false,
            granted: 0,
            expires_at: now,
            ended: false,
            acknowledged: Revision::default(),
            next_version: 0,
            reserved: 0,
            confirmed_cseq: 0,
            last_notify_at: now,
            delivery: Delivery::Idle,
            failed_targets: 0,
            last_cseq: 0,
            last_version: 0,
            last_reply: None,
            last_tail: None,
            expiry_timer: Tick(u64::MAX),
            delivery_timer: None,
        }
    }

    /// URI that was subscribed to, as the device wrote it. `own` is the presentity's URI.
    pub fn entity<'a>(&'a self, own: &'a str) -> &'a str {
        self.requested_uri.as_deref().unwrap_or(own)
    }

    /// Latest NOTIFY that was answered or has timed out.
    pub fn last(&self) -> Option<LastReply<'_>> {
        let reply = self.last_reply?.get();
        Some(LastReply { cseq: self.last_cseq, reply, version: self.last_version, tail: self.last_tail.as_deref() })
    }

    /// Records the result of the NOTIFY that was in flight.
    pub fn record_reply(&mut self, cseq: u32, reply: u16, version: u32, tail: Option<InternedStr>) {
        (self.last_cseq, self.last_version) = (cseq, version);
        (self.last_reply, self.last_tail) = (NonZeroU16::new(reply), tail);
    }

    /// Prefetches the subscription itself.
    pub fn fetch_itself(&self) {
        self.lines.prefetch::<Subscription>(offset_of!(Subscription, lines));
    }

    /// Prefetches the subscription, its device and its dialog.
    pub fn fetch(&self) {
        self.fetch_itself();
        prefetch::prefetch(&*self.phone);
        self.dialog.fetch();
    }

    /// Source of the latest SUBSCRIBE.
    pub fn source(&self) -> Source {
        Source::from(&self.way)
    }

    /// Sets the source of the latest SUBSCRIBE. A new one invalidates the cached next hop.
    pub fn set_source(&mut self, source: Source) {
        let way = PackedSource::from(source);
        if self.way != way {
            (self.way, self.next_hop_is_source) = (way, false);
        }
    }

    /// Sets the remote target to the device's latest Contact (RFC 3261 section 12.2.2). A new one invalidates the
    /// cached next hop.
    pub fn set_remote_target(&mut self, target: &str) -> Result<(), TooLong> {
        if self.dialog.target() != target {
            self.next_hop_is_source = false;
            self.dialog.set_target(target)?;
        }
        Ok(())
    }

    /// Time of the latest SUBSCRIBE.
    pub fn subscribed_at(&self) -> Tick {
        Tick(self.expires_at.0.saturating_sub(u64::from(self.granted) * 1_000))
    }

    /// `id` parameter of its Event header.
    pub fn event_id(&self) -> Option<&str> {
        self.options.as_ref()?.event_id.as_deref()
    }

    /// Dialog that the latest SUBSCRIBE names; none for all dialogs.
    pub fn named(&self) -> Option<&DialogFilter> {
        self.options.as_ref()?.named.as_ref()
    }

    /// Rate limit on NOTIFYs that the latest SUBSCRIBE asks for.
    pub fn max_rate(&self) -> Option<&MaxRate> {
        self.options.as_ref()?.max_rate.as_ref()
    }

    /// State that the latest SUBSCRIBE asks not to be notified of.
    pub fn suppressed(&self) -> Suppressed {
        self.options.as_ref().map_or(Suppressed::Nothing, |particulars| particulars.suppressed)
    }

    /// Returns true if the device lacks the state of the moment and wants it. `current` is the presentity's revision.
    pub fn is_behind(&self, current: Revision) -> bool {
        !self.ended && self.acknowledged != current && !self.suppresses(current)
    }

    /// Earliest time of the next NOTIFY that no SUBSCRIBE asks for. `gap` is the interval between two NOTIFYs (ms)
    /// where the watcher has set no `max-rate`.
    pub fn next_notify_allowed_at(&self, gap: u32) -> Tick {
        self.last_notify_at.after(self.max_rate().map_or(gap, |rate| rate.gap).into())
    }

    /// Returns true if the watcher asks not to be notified of this revision.
    pub fn suppresses(&self, revision: Revision) -> bool {
        match self.suppressed() {
            Suppressed::Nothing => false,
            Suppressed::State(known) => known == revision,
            Suppressed::Everything => true,
        }
    }

    /// Remaining lifetime at `now` in seconds, rounded up.
    pub fn remaining(&self, now: Tick) -> u32 {
        self.expires_at.0.saturating_sub(now.0).div_ceil(1_000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million subscriptions must fit into a small machine.
    #[test]
    fn a_subscription_is_small() {
        assert!(size_of::<Subscription>() <= 192, "{}", size_of::<Subscription>());
    }

    #[test]
    fn a_timer_keeps_its_time_and_its_place_in_one_word() {
        for (at, place) in [(0, 0), (0, SLOTS - 1), (1_700_000_000_510, 7)] {
            let filed = TimerHandle::new(Tick(at), place);
            assert_eq!((filed.at(), filed.place(), size_of::<Option<TimerHandle>>()), (Tick(at), place, 8));
        }
    }

    #[test]
    fn a_place_is_read_back_from_a_tag_in_either_case() {
        let place = SubscriptionId { presentity: 0x1f, slot: 3, nonce: 0x9c2e };
        assert_eq!(place.to_string(), "1f.3.0000000000009c2e");
        assert_eq!(SubscriptionId::read("1F.3.0000000000009C2E"), Some(place));
        for bad in [
            "",
            "1f.3",
            "1f.3.9c2e",
            "1f.3.0000000000009c2e.1",
            "1f.3.000000000000zzzz",
            "100000000.0.0000000000000000",
        ] {
            assert_eq!(SubscriptionId::read(bad), None, "{bad}");
        }
    }
}
