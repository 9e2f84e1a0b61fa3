//! Subscriptions: one watcher's view of one package of a presentity, and what has come of our NOTIFYs to it.
//!
//! The notifier is level-triggered (law 1): a subscription knows the revision that its phone has acknowledged, and
//! whoever is behind is sent the state of the moment. At most one NOTIFY is under way (law 2).

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
use crate::ahead::{self, Lines};
use crate::per_thread::PLACES;
use crate::sip::dialog::{Dialog, TooLong};
use crate::sip::transaction::ClientTransaction;
use crate::sip::wire::{Hex, Value};
use crate::transport::{Destination, PackedSource, Source};

/// Where a subscription lives, as our To tag and the branches of our NOTIFYs say it, so that a request or a reply
/// finds its subscription without a table of dialogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId {
    /// The presentity's number.
    pub presentity: u32,
    /// The subscription's slot there.
    pub slot: u32,
    /// Unguessable, and another one for each subscription that ever had the slot.
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
    /// Reads what [`SubscriptionId`] prints, in either case (tags compare without case, RFC 3261 section 7.3.1).
    pub fn read(text: &str) -> Option<SubscriptionId> {
        let (presentity, rest) = text.split_at_checked(text.bytes().position(|c| c == b'.')?)?;
        let (slot, nonce) = rest[1..].split_at_checked(rest[1..].bytes().position(|c| c == b'.')?)?;
        let number = |digits: &str| Hex::read(digits).and_then(|number| u32::try_from(number).ok());
        let nonce = Some(&nonce[1..]).filter(|digits| digits.len() == 16).and_then(Hex::read)?;
        Some(SubscriptionId { presentity: number(presentity)?, slot: number(slot)?, nonce })
    }
}

/// Counts the changes of what the watchers of one package are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// What is not certain about a subscription. In one octet, for there is no room for two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts(u8);

impl Doubts {
    /// The same phone, by all that can be told, has subscribed to the same again in another dialog. Should it not know
    /// this one any more, it will not answer, and then this one is forgotten.
    pub const REPLACED: Doubts = Doubts(1);
    /// It was read from the journal and its phone has not subscribed in its dialog since: the answer to its latest
    /// SUBSCRIBE may have been lost in the crash, so that may be repeated.
    pub const ANSWER_LOST: Doubts = Doubts(2);

    /// Whether there is this doubt.
    pub fn has(self, doubt: Doubts) -> bool {
        self.0 & doubt.0 != 0
    }

    /// From now on there is.
    pub fn add(&mut self, doubt: Doubts) {
        self.0 |= doubt.0;
    }

    /// From now on there is not.
    pub fn remove(&mut self, doubt: Doubts) {
        self.0 &= !doubt.0;
    }
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    lines: Lines,
    /// Where it lives.
    pub place: SubscriptionId,
    /// Its event package.
    pub package: PackageId,
    /// What few watchers ask for.
    pub particulars: Option<Box<SubscribeOptions>>,
    /// The phone that it is for.
    pub phone: Arc<Device>,
    /// What is not certain about it.
    pub doubts: Doubts,
    /// The dialog that it lives in.
    pub dialog: Dialog,
    /// The URI that was subscribed to, as the phone wrote it, without parameters; none where that is the presentity's own.
    pub written: Option<InternedStr>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<InternedStr>,
    /// What that says of the make of the phone.
    pub family: Vendor,
    /// The way that the latest SUBSCRIBE came.
    way: PackedSource,
    /// NOTIFYs go back that way, and not only this time: neither it nor the target has changed since that was found.
    pub straight_back: bool,
    /// Granted then, in seconds.
    pub granted: u32,
    /// When it ends unless refreshed.
    pub expires_at: Tick,
    /// It has ended; what is left to do is to say so. Not listed, and unknown to a refresh.
    pub ended: bool,
    /// The revision that the phone has acknowledged.
    pub acknowledged: Revision,
    /// How many documents have been made for it: the `version` of the next one (RFC 4235 section 4.1).
    pub documents: u32,
    /// How many documents the journal accounts for: after a crash counting goes on from there, so that no CSeq and no
    /// version is used twice (law 2).
    pub reserved: u32,
    /// The CSeq number of our latest NOTIFY when the phone last proved to have this dialog, by a SUBSCRIBE or by
    /// accepting that NOTIFY. What it says of this one or earlier ones is out of date.
    pub proven: u32,
    /// When the latest NOTIFY was made; repetitions of it do not count.
    pub told_at: Tick,
    /// What has become of the latest NOTIFY.
    pub delivery: Delivery,
    /// How many targets of the name that its NOTIFYs go to have failed in a row.
    pub tried: u8,
    /// Of the latest NOTIFY that was answered: see [`Subscription::last`].
    last_cseq: u32,
    last_version: u32,
    last_reply: Option<NonZeroU16>,
    last_tail: Option<InternedStr>,
    /// When the timer that watches over its expiry will look next.
    pub expiry_timer: Tick,
    /// When the timer that watches over its NOTIFY will look next, if there is one.
    pub delivery_timer: Option<TimerHandle>,
}

/// Where a timer has been filed: for when, and in which of the places that threads have. In one word, for millions have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerHandle(NonZeroU64);

impl TimerHandle {
    /// In this place for this time.
    pub fn new(at: Tick, place: usize) -> TimerHandle {
        // One more, for it is not 0 then.
        let word = (at.0 + 1).saturating_mul(PLACES as u64) | (place % PLACES) as u64;
        TimerHandle(NonZeroU64::new(word).unwrap_or(NonZeroU64::MAX))
    }

    /// For when.
    pub fn at(self) -> Tick {
        Tick(self.0.get() / PLACES as u64 - 1)
    }

    /// In which place.
    pub fn place(self) -> usize {
        (self.0.get() % PLACES as u64) as usize
    }
}

/// What few watchers ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The `id` of its Event, given back in every NOTIFY.
    pub event_id: Option<Box<str>>,
    /// The one dialog that the latest SUBSCRIBE named; none for all.
    pub named: Option<DialogFilter>,
    /// How often the latest SUBSCRIBE asked to be told at most.
    pub max_rate: Option<MaxRate>,
    /// What the latest SUBSCRIBE asked not to be told.
    pub suppressed: Suppressed,
}

impl SubscribeOptions {
    /// None of them, if there is none.
    pub fn boxed(self) -> Option<Box<SubscribeOptions>> {
        (self != SubscribeOptions::default()).then(|| Box::new(self))
    }
}

/// The most NOTIFYs in a second that a watcher wants (RFC 6446 section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxRate {
    /// As he wrote it, which is what he is told back.
    pub written: Box<str>,
    /// What that leaves between two NOTIFYs (ms).
    pub gap: u32,
}

impl MaxRate {
    /// Of a number of seconds; none if it is no number. A rate of 0 leaves only what SUBSCRIBEs bring.
    pub fn of(written: &str) -> Option<MaxRate> {
        let rate: f64 = written.parse().ok()?;
        // Rounded up, for a little too rarely is allowed; what is too great to be counted becomes the greatest number.
        Some(MaxRate { written: written.into(), gap: (1_000.0 / rate).ceil() as u32 })
    }
}

/// What a watcher does not want to be told (RFC 5839 section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suppressed {
    /// It wants to know all.
    #[default]
    Nothing,
    /// The state of this revision, which it has.
    State(Revision),
    /// Any state, until it says otherwise.
    Everything,
}

/// What has become of the latest NOTIFY of a subscription.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Nothing is under way.
    Idle,
    /// The phone has had enough for the moment: at `until` it is told what holds then.
    Paced {
        /// When its turn comes.
        until: Tick,
        /// Failures in a row before.
        failures: u32,
    },
    /// A NOTIFY is due, but where it goes is a name that is being looked up. It leaves when that is known, and at `until`
    /// in any case.
    Asked {
        /// How long to wait.
        until: Tick,
        /// Failures in a row before.
        failures: u32,
    },
    /// A NOTIFY waits for its answer.
    InFlight(Box<InFlight>),
    /// The latest NOTIFY failed, but that does not end the subscription (law 6): another try is made at `until`.
    Suspended {
        /// When to try again.
        until: Tick,
        /// Failures in a row.
        failures: u32,
        /// The phone is silent or has asked to be left alone: changes wait as well. Else only the failed one does.
        silent: bool,
    },
}

impl Delivery {
    /// How many NOTIFYs in a row have failed.
    pub fn failures(&self) -> u32 {
        match self {
            Delivery::Idle => 0,
            Delivery::Paced { failures, .. }
            | Delivery::Asked { failures, .. }
            | Delivery::Suspended { failures, .. } => *failures,
            Delivery::InFlight(flight) => flight.failures,
        }
    }
}

impl Delivery {
    /// Whether this is the final answer to the NOTIFY under way, from where that went: nobody else can have had it, and
    /// it is answered once.
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

/// A NOTIFY that waits for its answer.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its CSeq number.
    pub cseq: u32,
    /// The revision that it tells of.
    pub revision: Revision,
    /// The version of its document.
    pub version: u32,
    /// The shared part of its document; none where it was sent without.
    pub tail: Option<InternedStr>,
    /// Tells what the phone knows once it has answered.
    pub fingerprint: u64,
    /// How long it was (octets). The message itself is not kept: to be repeated it is written again from what is here.
    pub size: u32,
    /// Where it went.
    pub to: Destination,
    /// What was done about its size.
    pub carried: NotifyTransport,
    /// How many more copies of it, or NOTIFYs in its place, have left without an answer.
    pub copies: u8,
    /// When it first left.
    pub sent_at: Tick,
    /// Its transaction.
    pub transaction: ClientTransaction,
    /// Failures in a row before it.
    pub failures: u32,
    /// It says that the subscription has ended.
    pub last: bool,
}

/// How a NOTIFY is carried that may be too large for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyTransport {
    /// As any other.
    Plainly,
    /// With short header names.
    Slim,
    /// Over a connection that only large ones take.
    ByDetour,
    /// Not at all: no datagram holds it, and there is no connection that it may take.
    Not,
}

/// A NOTIFY that was answered, or to which no answer came in time.
#[derive(Clone, Copy, Debug)]
pub struct LastReply<'a> {
    /// Its CSeq number.
    pub cseq: u32,
    /// Status of the final answer; 408 for none.
    pub reply: u16,
    /// The version of its document.
    pub version: u32,
    /// The shared part of its document, from which it is put together again when somebody asks; none where it was sent
    /// without.
    pub tail: Option<&'a str>,
}

/// What a subscription begins with.
#[derive(Debug)]
pub struct NewSubscription {
    /// Where it lives.
    pub place: SubscriptionId,
    /// Its event package.
    pub package: PackageId,
    /// The phone that it is for.
    pub phone: Arc<Device>,
    /// The dialog that it lives in.
    pub dialog: Dialog,
    /// The URI that was subscribed to, unless it is the presentity's own.
    pub written: Option<InternedStr>,
    /// The way that its SUBSCRIBE came.
    pub source: Source,
}

impl Subscription {
    /// A subscription of which no NOTIFY has been made and nothing is granted yet.
    pub fn new(now: Tick, beginning: NewSubscription) -> Subscription {
        let NewSubscription { place, package, phone, dialog, written, source } = beginning;
        Subscription {
            lines: Lines::default(),
            place,
            package,
            particulars: None,
            phone,
            doubts: Doubts::default(),
            dialog,
            written,
            user_agent: None,
            family: Vendor::default(),
            way: source.into(),
            straight_back: false,
            granted: 0,
            expires_at: now,
            ended: false,
            acknowledged: Revision::default(),
            documents: 0,
            reserved: 0,
            proven: 0,
            told_at: now,
            delivery: Delivery::Idle,
            tried: 0,
            last_cseq: 0,
            last_version: 0,
            last_reply: None,
            last_tail: None,
            expiry_timer: Tick(u64::MAX),
            delivery_timer: None,
        }
    }

    /// The URI that was subscribed to, as the phone wrote it; `own` is that of the presentity.
    pub fn entity<'a>(&'a self, own: &'a str) -> &'a str {
        self.written.as_deref().unwrap_or(own)
    }

    /// The latest NOTIFY that was answered, or given up.
    pub fn last(&self) -> Option<LastReply<'_>> {
        let reply = self.last_reply?.get();
        Some(LastReply { cseq: self.last_cseq, reply, version: self.last_version, tail: self.last_tail.as_deref() })
    }

    /// The NOTIFY under way, which this was, has come to this end.
    pub fn conclude(&mut self, cseq: u32, reply: u16, version: u32, tail: Option<InternedStr>) {
        (self.last_cseq, self.last_version) = (cseq, version);
        (self.last_reply, self.last_tail) = (NonZeroU16::new(reply), tail);
    }

    /// Asks for its memory.
    pub fn fetch_itself(&self) {
        self.lines.fetch::<Subscription>(offset_of!(Subscription, lines));
    }

    /// Asks for its memory and for what it leads to.
    pub fn fetch(&self) {
        self.fetch_itself();
        ahead::fetch(&*self.phone);
        self.dialog.fetch();
    }

    /// The way that the latest SUBSCRIBE came.
    pub fn source(&self) -> Source {
        Source::from(&self.way)
    }

    /// Its phone comes this way now.
    pub fn comes_by(&mut self, source: Source) {
        let way = PackedSource::from(source);
        if self.way != way {
            (self.way, self.straight_back) = (way, false);
        }
    }

    /// Its phone has this Contact now.
    pub fn aim_at(&mut self, target: &str) -> Result<(), TooLong> {
        if self.dialog.target() != target {
            self.straight_back = false;
            self.dialog.set_target(target)?;
        }
        Ok(())
    }

    /// When the latest SUBSCRIBE came.
    pub fn subscribed_at(&self) -> Tick {
        Tick(self.expires_at.0.saturating_sub(u64::from(self.granted) * 1_000))
    }

    /// The `id` of its Event.
    pub fn event_id(&self) -> Option<&str> {
        self.particulars.as_ref()?.event_id.as_deref()
    }

    /// The one dialog that the latest SUBSCRIBE named; none for all.
    pub fn named(&self) -> Option<&DialogFilter> {
        self.particulars.as_ref()?.named.as_ref()
    }

    /// How often the latest SUBSCRIBE asked to be told at most.
    pub fn max_rate(&self) -> Option<&MaxRate> {
        self.particulars.as_ref()?.max_rate.as_ref()
    }

    /// What the latest SUBSCRIBE asked not to be told.
    pub fn suppressed(&self) -> Suppressed {
        self.particulars.as_ref().map_or(Suppressed::Nothing, |particulars| particulars.suppressed)
    }

    /// Whether the phone does not know the state of the moment, the presentity being at `current`.
    pub fn is_behind(&self, current: Revision) -> bool {
        !self.ended && self.acknowledged != current && !self.suppresses(current)
    }

    /// When the next NOTIFY may leave that the watcher did not ask for himself; `gap`: milliseconds between two where he
    /// has no wish of his own.
    pub fn may_be_told(&self, gap: u32) -> Tick {
        self.told_at.after(self.max_rate().map_or(gap, |rate| rate.gap).into())
    }

    /// Whether the watcher does not want to be told the state of a revision.
    pub fn suppresses(&self, revision: Revision) -> bool {
        match self.suppressed() {
            Suppressed::Nothing => false,
            Suppressed::State(known) => known == revision,
            Suppressed::Everything => true,
        }
    }

    /// The seconds left at `now`, rounded up.
    pub fn remaining(&self, now: Tick) -> u32 {
        self.expires_at.0.saturating_sub(now.0).div_ceil(1_000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million in a small machine.
    #[test]
    fn a_subscription_is_small() {
        assert!(size_of::<Subscription>() <= 192, "{}", size_of::<Subscription>());
    }

    #[test]
    fn a_timer_keeps_its_time_and_its_place_in_one_word() {
        for (at, place) in [(0, 0), (0, PLACES - 1), (1_700_000_000_510, 7)] {
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
