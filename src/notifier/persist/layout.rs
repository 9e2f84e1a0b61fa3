//! The layouts of our journal records: what a key names, and how a value is written and read back.
//!
//! A value begins with the octet 0 and the octet of its [`Layout`]; the fields follow in postcard's encoding, account and
//! user first in each of them. Values of the first layout begin with the length of the account's id instead, which is
//! never 0; they are read for as long as this server can be upgraded from one that wrote them. What a phone has
//! acknowledged is too small and too frequent for a head, and has not changed.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::SKIP;
use crate::journal::Key;
use crate::presence::calls::{Calls, EarlierCalls};
use crate::presence::facts::CallState;
use crate::presence::named::NamedDialog;
use crate::presence::phone::PhoneId;
use crate::presence::publication::{Content, EntityTag, RemovedPublications, RequestLog};
use crate::presence::subscription::MaxRate;
use crate::presence::{MAX_PACKAGES, Tick};
use crate::sip::Transport;
use crate::sip::dialog::Dialog;
use crate::transport::Source;

/// The slot under which all that is no subscription is kept.
pub(in super::super) const STATE: u32 = u32::MAX;
/// Set in the first half of the key of what a phone has acknowledged.
pub(super) const ACKNOWLEDGED: u64 = 1 << 32;

/// The first octet of every value with a layout of its own.
const VERSIONED: u8 = 0;

/// What follows the head of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Layout {
    State = 1,
    /// [`Layout::Subscription`] without the count of starts.
    EarlierSubscription = 2,
    EndedSubscription = 3,
    Subscription = 4,
    Starts = 5,
}

/// The key of the count of starts.
pub(super) const STARTS: Key = Key(1 << 33, 0);

/// Whether a key is that of the count of starts.
pub(in super::super) fn is_count_of_starts(key: Key) -> bool {
    key == STARTS
}

/// The key of a subscription, or with [`STATE`] of everything else about a presentity.
pub(in super::super) fn key_of(presentity: u32, slot: u32) -> Key {
    Key(u64::from(presentity), slot)
}

/// The key of what the phone of a subscription has acknowledged.
pub(super) fn acknowledged_key(presentity: u32, slot: u32) -> Key {
    Key(u64::from(presentity) | ACKNOWLEDGED, slot)
}

/// Whether a key is that of what a phone has acknowledged.
pub(in super::super) fn is_acknowledgement(key: Key) -> bool {
    key.0 & ACKNOWLEDGED != 0
}

/// A record read back.
pub(in super::super) enum Kept {
    Acknowledged(Known),
    State(Box<KeptState>),
    Subscription(Box<KeptSubscription>),
    EndedSubscription(EndedSubscription),
    /// How often a server has started with this journal.
    Starts(u32),
}

impl Kept {
    /// Reads a value; none if it has been written by a later version, or is not one of ours.
    pub(in super::super) fn read(key: Key, value: &[u8]) -> Option<Kept> {
        let Key(_, slot) = key;
        if is_acknowledgement(key) {
            return decode(value).map(Kept::Acknowledged);
        }
        match value {
            [VERSIONED, layout, fields @ ..] => match *layout {
                l if l == Layout::State as u8 => decode(fields).map(|kept| Kept::State(Box::new(kept))),
                l if l == Layout::Subscription as u8 => decode(fields).map(|kept| Kept::Subscription(Box::new(kept))),
                l if l == Layout::EarlierSubscription as u8 => {
                    decode(&[fields, &[0]].concat()).map(|kept| Kept::Subscription(Box::new(kept)))
                }
                l if l == Layout::Starts as u8 => decode(fields).map(Kept::Starts),
                l if l == Layout::EndedSubscription as u8 => decode(fields).map(Kept::EndedSubscription),
                _ => None,
            },
            _ if slot == STATE => {
                decode::<FirstState>(value).map(|first| Kept::State(Box::new(KeptState::from(first))))
            }
            // What was added to it before there were layouts is nothing in the records of before.
            _ => decode(&[value, &[0; 9]].concat()).map(|kept| Kept::Subscription(Box::new(kept))),
        }
    }
}

#[derive(Serialize)]
pub(super) struct SubscriptionToKeep<'a, D> {
    pub(super) account: &'a str,
    pub(super) user: &'a str,
    pub(super) package: &'static str,
    pub(super) nonce: u64,
    pub(super) event_id: Option<&'a str>,
    pub(super) phone: PhoneId,
    pub(super) dialog: D,
    pub(super) entity: &'a str,
    pub(super) user_agent: Option<&'a str>,
    pub(super) way: Way,
    pub(super) listener: u8,
    pub(super) peer: SocketAddr,
    pub(super) subscribed_at: Tick,
    pub(super) granted: u32,
    pub(super) expires_at: Tick,
    pub(super) reserved: u32,
    /// Whatever changes, it is not to be told (RFC 5839).
    pub(super) suppressed: bool,
    pub(super) max_rate: Option<&'a MaxRate>,
    pub(super) named: Option<&'a NamedDialog>,
    /// The count of starts when `reserved` was written.
    pub(super) starts: u32,
}

/// [`SubscriptionToKeep`] read back: the same fields in the same order, as in the first layout.
#[derive(Deserialize)]
pub(in super::super) struct KeptSubscription {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) package: String,
    pub(super) nonce: u64,
    pub(super) event_id: Option<Box<str>>,
    pub(super) phone: PhoneId,
    pub(super) dialog: Dialog,
    pub(super) entity: String,
    pub(super) user_agent: Option<Box<str>>,
    pub(super) way: Way,
    pub(super) listener: u8,
    pub(super) peer: SocketAddr,
    #[expect(dead_code, reason = "the end and what was granted say the same")]
    pub(super) subscribed_at: Tick,
    pub(super) granted: u32,
    pub(super) expires_at: Tick,
    pub(super) reserved: u32,
    pub(super) suppressed: bool,
    pub(super) max_rate: Option<MaxRate>,
    pub(super) named: Option<NamedDialog>,
    pub(super) starts: u32,
}

impl KeptSubscription {
    /// When it ends: a clock that was wrong can only shorten that.
    pub(super) fn ends(&self, now: Tick) -> Tick {
        self.expires_at.min(now.after(u64::from(self.granted) * 1_000))
    }

    /// Where counting goes on in the start of this count: beyond all that may have left in the starts before it, also what left
    /// while the disk refused to reserve numbers for it.
    pub(super) fn counted(&self, starts: u32) -> u32 {
        let since = starts.saturating_sub(self.starts);
        self.reserved.saturating_add(since.saturating_mul(SKIP))
    }
}

/// A subscription that its phone has ended: what answers that SUBSCRIBE, should it be repeated after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct EndedSubscription {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) nonce: u64,
    pub(super) call_id: String,
    /// CSeq number of the SUBSCRIBE that ended it.
    pub(super) cseq: u32,
    /// When it is forgotten.
    pub(super) until: Tick,
}

/// The way that the latest SUBSCRIBE came. The first two are what was once `tcp: bool`, and read as such.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Way {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    CertifiedTls,
    CertifiedWss,
}

impl Way {
    pub(super) fn of(source: &Source) -> Way {
        match (source.transport, source.certified) {
            (Transport::Tls, false) => Way::Tls,
            (Transport::Tls, true) => Way::CertifiedTls,
            (Transport::Ws, _) => Way::Ws,
            (Transport::Wss, false) => Way::Wss,
            (Transport::Wss, true) => Way::CertifiedWss,
            (Transport::Udp, _) => Way::Udp,
            // SCTP is not spoken here.
            (Transport::Tcp | Transport::Sctp | Transport::TlsSctp, _) => Way::Tcp,
        }
    }

    pub(super) fn transport(self) -> Transport {
        match self {
            Way::Udp => Transport::Udp,
            Way::Tcp => Transport::Tcp,
            Way::Tls | Way::CertifiedTls => Transport::Tls,
            Way::Ws => Transport::Ws,
            Way::Wss | Way::CertifiedWss => Transport::Wss,
        }
    }

    pub(super) fn is_certified(self) -> bool {
        matches!(self, Way::CertifiedTls | Way::CertifiedWss)
    }
}

#[derive(Serialize)]
pub(super) struct StateToKeep<'a> {
    pub(super) account: &'a str,
    pub(super) user: &'a str,
    pub(super) calls: &'a Calls,
    pub(super) publications: Vec<PublicationToKeep<'a>>,
    pub(super) manual: Option<CallState>,
    /// Of each view: what a phone has acknowledged says nothing about it if the state has moved on since, even if it
    /// has come back to the same document.
    pub(super) revisions: [u64; MAX_PACKAGES],
    pub(super) removed: Option<&'a RemovedPublications>,
}

#[derive(Serialize)]
pub(super) struct PublicationToKeep<'a> {
    pub(super) etag: EntityTag,
    pub(super) package: &'static str,
    pub(super) expires_at: Tick,
    pub(super) granted: Option<u32>,
    pub(super) requests: Option<RequestLog>,
    pub(super) content: &'a Content,
}

/// [`StateToKeep`] read back: the same fields in the same order.
#[derive(Deserialize)]
pub(in super::super) struct KeptState {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) calls: Calls,
    pub(super) publications: Vec<KeptPublication>,
    pub(super) manual: Option<CallState>,
    pub(super) revisions: [u64; MAX_PACKAGES],
    pub(super) removed: Option<RemovedPublications>,
}

/// [`PublicationToKeep`] read back: the same fields in the same order.
#[derive(Deserialize)]
pub(in super::super) struct KeptPublication {
    pub(super) etag: EntityTag,
    pub(super) package: String,
    pub(super) expires_at: Tick,
    /// Neither this nor the next is known of a record in the first layout.
    pub(super) granted: Option<u32>,
    pub(super) requests: Option<RequestLog>,
    pub(super) content: Content,
}

impl KeptPublication {
    /// For how long it was granted (seconds); as long as may be granted at all where that is not known.
    pub(super) fn granted(&self, max_expires: u32) -> u32 {
        self.granted.unwrap_or(max_expires)
    }

    /// When it ends: a clock that was wrong can only shorten that.
    pub(super) fn ends(&self, now: Tick, max_expires: u32) -> Tick {
        self.expires_at.min(now.after(u64::from(self.granted(max_expires)) * 1_000))
    }
}

/// What a presentity's record was in the first layout.
#[derive(Deserialize)]
struct FirstState {
    account: String,
    user: String,
    calls: EarlierCalls,
    publications: Vec<(EntityTag, String, Tick, Content)>,
    manual: Option<CallState>,
    revisions: [u64; MAX_PACKAGES],
}

impl From<FirstState> for KeptState {
    fn from(first: FirstState) -> KeptState {
        let FirstState { account, user, calls, publications, manual, revisions } = first;
        let publication = |(etag, package, expires_at, content)| KeptPublication {
            etag,
            package,
            expires_at,
            granted: None,
            requests: None,
            content,
        };
        let publications = publications.into_iter().map(publication).collect();
        KeptState { account, user, calls: calls.into(), publications, manual, revisions, removed: None }
    }
}

/// What a phone has acknowledged: a revision, and the document that it knows with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Known(pub(in super::super) u64, pub(in super::super) u64);

/// How large a buffer for a value is at first (octets): few grow.
const USUAL_VALUE: usize = 512;

/// Writes a value with its head. The types here have nothing that could fail to be written.
pub(super) fn encode<T: Serialize>(layout: Layout, value: &T) -> Bytes {
    let mut head = Vec::with_capacity(USUAL_VALUE);
    head.extend([VERSIONED, layout as u8]);
    postcard::to_extend(value, head).map(Bytes::from).unwrap_or_default()
}

/// Writes what a phone has acknowledged.
pub(super) fn encode_known(known: &Known) -> Bytes {
    postcard::to_stdvec(known).map(Bytes::from).unwrap_or_default()
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
