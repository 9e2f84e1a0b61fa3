//! Layouts of the journal records: the meaning of a key, and the encoding of a value.
//!
//! A value begins with the octet 0 and the octet of its [`Layout`]. The fields follow in postcard's encoding, with
//! account and user first in each layout. A value of the first layout begins with the length of the account id
//! instead, which is never 0; such values are read as long as an upgrade from a version that wrote them is supported.
//! Acknowledgements have no such header, because they are small and frequent; their layout has never changed.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::CSEQ_SKIP;
use crate::journal::Key;
use crate::presence::calls::{Calls, EarlierCalls};
use crate::presence::device::DeviceId;
use crate::presence::dialog_filter::DialogFilter;
use crate::presence::presentity::NotifyEtag;
use crate::presence::publication::{Content, EntityTag, RemovedPublications, RequestLog};
use crate::presence::state::CallState;
use crate::presence::subscription::MaxRate;
use crate::presence::{MAX_PACKAGES, Tick};
use crate::sip::Transport;
use crate::sip::dialog::Dialog;
use crate::transport::Source;

/// Slot number that stands for the state of a presentity, that is, for everything but its subscriptions.
pub(in super::super) const STATE_SLOT: u32 = u32::MAX;
/// Bit in the first half of a key that marks an acknowledgement.
pub(super) const ACKNOWLEDGED: u64 = 1 << 32;

/// First octet of every value with a versioned layout.
const VERSIONED: u8 = 0;

/// Layout of the fields after the header of a value.
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

/// Key of the count of starts.
pub(super) const STARTS: Key = Key(1 << 33, 0);

/// Returns true for the key of the count of starts.
pub(in super::super) fn is_count_of_starts(key: Key) -> bool {
    key == STARTS
}

/// Returns the key of a subscription; with [`STATE_SLOT`] as its slot, that of the state of a presentity.
pub(in super::super) fn key_of(presentity: u32, slot: u32) -> Key {
    Key(u64::from(presentity), slot)
}

/// Returns the key of the acknowledgement of a subscription.
pub(super) fn acknowledged_key(presentity: u32, slot: u32) -> Key {
    Key(u64::from(presentity) | ACKNOWLEDGED, slot)
}

/// Returns true for the key of an acknowledgement.
pub(in super::super) fn is_acknowledgement(key: Key) -> bool {
    key.0 & ACKNOWLEDGED != 0
}

/// A decoded record.
pub(in super::super) enum PersistedRecord {
    Acknowledged(Acknowledged),
    State(Box<PersistedState>),
    Subscription(Box<PersistedSubscription>),
    EndedSubscription(EndedSubscription),
    /// Number of starts with this journal.
    Starts(u32),
}

impl PersistedRecord {
    /// Decodes a value; `None` if a later version wrote it, or if it is not one of our records.
    pub(in super::super) fn read(key: Key, value: &[u8]) -> Option<PersistedRecord> {
        let Key(_, slot) = key;
        if is_acknowledgement(key) {
            return decode(value).map(PersistedRecord::Acknowledged);
        }
        match value {
            [VERSIONED, layout, fields @ ..] => match *layout {
                l if l == Layout::State as u8 => decode(fields).map(|kept| PersistedRecord::State(Box::new(kept))),
                l if l == Layout::Subscription as u8 => {
                    decode(fields).map(|kept| PersistedRecord::Subscription(Box::new(kept)))
                }
                l if l == Layout::EarlierSubscription as u8 => {
                    decode(&[fields, &[0]].concat()).map(|kept| PersistedRecord::Subscription(Box::new(kept)))
                }
                l if l == Layout::Starts as u8 => decode(fields).map(PersistedRecord::Starts),
                l if l == Layout::EndedSubscription as u8 => decode(fields).map(PersistedRecord::EndedSubscription),
                _ => None,
            },
            _ if slot == STATE_SLOT => {
                decode::<FirstState>(value).map(|first| PersistedRecord::State(Box::new(PersistedState::from(first))))
            }
            // Fields that were added before there were versioned layouts are absent in older records; zeros stand for
            // their defaults.
            _ => decode(&[value, &[0; 9]].concat()).map(|kept| PersistedRecord::Subscription(Box::new(kept))),
        }
    }
}

#[derive(Serialize)]
pub(super) struct SubscriptionFields<'a, D> {
    pub(super) account: &'a str,
    pub(super) user: &'a str,
    pub(super) package: &'static str,
    pub(super) nonce: u64,
    pub(super) event_id: Option<&'a str>,
    pub(super) phone: DeviceId,
    pub(super) dialog: D,
    pub(super) entity: &'a str,
    pub(super) user_agent: Option<&'a str>,
    pub(super) way: PersistedTransport,
    pub(super) listener: u8,
    pub(super) peer: SocketAddr,
    pub(super) subscribed_at: Tick,
    pub(super) granted: u32,
    pub(super) expires_at: Tick,
    pub(super) reserved: u32,
    /// True if the watcher wants no NOTIFY, whatever changes (RFC 5839).
    pub(super) suppressed: bool,
    pub(super) max_rate: Option<&'a MaxRate>,
    pub(super) named: Option<&'a DialogFilter>,
    /// Count of starts at the time when `reserved` was written.
    pub(super) starts: u32,
}

/// [`SubscriptionFields`] decoded: the same fields in the same order, as in the first layout.
#[derive(Deserialize)]
pub(in super::super) struct PersistedSubscription {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) package: String,
    pub(super) nonce: u64,
    pub(super) event_id: Option<Box<str>>,
    pub(super) phone: DeviceId,
    pub(super) dialog: Dialog,
    pub(super) entity: String,
    pub(super) user_agent: Option<Box<str>>,
    pub(super) way: PersistedTransport,
    pub(super) listener: u8,
    pub(super) peer: SocketAddr,
    #[expect(dead_code, reason = "the end and what was granted say the same")]
    pub(super) subscribed_at: Tick,
    pub(super) granted: u32,
    pub(super) expires_at: Tick,
    pub(super) reserved: u32,
    pub(super) suppressed: bool,
    pub(super) max_rate: Option<MaxRate>,
    pub(super) named: Option<DialogFilter>,
    pub(super) starts: u32,
}

impl PersistedSubscription {
    /// Returns the time when the subscription ends. A wrong clock can only make that earlier.
    pub(super) fn ends(&self, now: Tick) -> Tick {
        self.expires_at.min(now.after(u64::from(self.granted) * 1_000))
    }

    /// Returns the number from which CSeq and version continue in the start with this count. It is above every number
    /// that earlier starts may have used, also while the disk refused to reserve numbers.
    pub(super) fn counted(&self, starts: u32) -> u32 {
        let since = starts.saturating_sub(self.starts);
        self.reserved.saturating_add(since.saturating_mul(CSEQ_SKIP))
    }
}

/// A subscription that its phone has ended: the data to answer that SUBSCRIBE if it is retransmitted after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct EndedSubscription {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) nonce: u64,
    pub(super) call_id: String,
    /// CSeq number of the SUBSCRIBE that ended it.
    pub(super) cseq: u32,
    /// Time when it is forgotten.
    pub(super) until: Tick,
}

/// Transport of the latest SUBSCRIBE. The first two variants are encoded like the field `tcp: bool` of an earlier
/// version, and so can be read from its records.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum PersistedTransport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    CertifiedTls,
    CertifiedWss,
}

impl PersistedTransport {
    pub(super) fn of(source: &Source) -> PersistedTransport {
        match (source.transport, source.certified) {
            (Transport::Tls, false) => PersistedTransport::Tls,
            (Transport::Tls, true) => PersistedTransport::CertifiedTls,
            (Transport::Ws, _) => PersistedTransport::Ws,
            (Transport::Wss, false) => PersistedTransport::Wss,
            (Transport::Wss, true) => PersistedTransport::CertifiedWss,
            (Transport::Udp, _) => PersistedTransport::Udp,
            // SCTP is not supported, so this does not occur.
            (Transport::Tcp | Transport::Sctp | Transport::TlsSctp, _) => PersistedTransport::Tcp,
        }
    }

    pub(super) fn transport(self) -> Transport {
        match self {
            PersistedTransport::Udp => Transport::Udp,
            PersistedTransport::Tcp => Transport::Tcp,
            PersistedTransport::Tls | PersistedTransport::CertifiedTls => Transport::Tls,
            PersistedTransport::Ws => Transport::Ws,
            PersistedTransport::Wss | PersistedTransport::CertifiedWss => Transport::Wss,
        }
    }

    pub(super) fn is_certified(self) -> bool {
        matches!(self, PersistedTransport::CertifiedTls | PersistedTransport::CertifiedWss)
    }
}

#[derive(Serialize)]
pub(super) struct StateFields<'a> {
    pub(super) account: &'a str,
    pub(super) user: &'a str,
    pub(super) calls: &'a Calls,
    pub(super) publications: Vec<PublicationFields<'a>>,
    pub(super) manual: Option<CallState>,
    /// Revision of each view. An acknowledgement counts only if its revision is still the current one. Another
    /// revision may have the same document again, but the phone may have seen a different one in between.
    pub(super) revisions: [u64; MAX_PACKAGES],
    pub(super) removed: Option<&'a RemovedPublications>,
}

#[derive(Serialize)]
pub(super) struct PublicationFields<'a> {
    pub(super) etag: EntityTag,
    pub(super) package: &'static str,
    pub(super) expires_at: Tick,
    pub(super) granted: Option<u32>,
    pub(super) requests: Option<RequestLog>,
    pub(super) content: &'a Content,
}

/// [`StateFields`] decoded: the same fields in the same order.
#[derive(Deserialize)]
pub(in super::super) struct PersistedState {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) calls: Calls,
    pub(super) publications: Vec<PersistedPublication>,
    pub(super) manual: Option<CallState>,
    pub(super) revisions: [u64; MAX_PACKAGES],
    pub(super) removed: Option<RemovedPublications>,
}

/// [`PublicationFields`] decoded: the same fields in the same order.
#[derive(Deserialize)]
pub(in super::super) struct PersistedPublication {
    pub(super) etag: EntityTag,
    pub(super) package: String,
    pub(super) expires_at: Tick,
    /// `None`, like `requests`, in records of the first layout.
    pub(super) granted: Option<u32>,
    pub(super) requests: Option<RequestLog>,
    pub(super) content: Content,
}

impl PersistedPublication {
    /// Returns the granted lifetime (seconds); if it is not known, the longest lifetime that may be granted.
    pub(super) fn granted(&self, max_expires: u32) -> u32 {
        self.granted.unwrap_or(max_expires)
    }

    /// Returns the time when the publication ends. A wrong clock can only make that earlier.
    pub(super) fn ends(&self, now: Tick, max_expires: u32) -> Tick {
        self.expires_at.min(now.after(u64::from(self.granted(max_expires)) * 1_000))
    }
}

/// State record in the first layout.
#[derive(Deserialize)]
struct FirstState {
    account: String,
    user: String,
    calls: EarlierCalls,
    publications: Vec<(EntityTag, String, Tick, Content)>,
    manual: Option<CallState>,
    revisions: [u64; MAX_PACKAGES],
}

impl From<FirstState> for PersistedState {
    fn from(first: FirstState) -> PersistedState {
        let FirstState { account, user, calls, publications, manual, revisions } = first;
        let publication = |(etag, package, expires_at, content)| PersistedPublication {
            etag,
            package,
            expires_at,
            granted: None,
            requests: None,
            content,
        };
        let publications = publications.into_iter().map(publication).collect();
        PersistedState { account, user, calls: calls.into(), publications, manual, revisions, removed: None }
    }
}

/// Acknowledgement of a phone: the revision, and the fingerprint of the document with that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Acknowledged(pub(in super::super) u64, pub(in super::super) u64);

impl From<NotifyEtag> for Acknowledged {
    fn from(tag: NotifyEtag) -> Acknowledged {
        Acknowledged(tag.revision.0, tag.fingerprint)
    }
}

/// Initial size of the buffer for a value (octets); few values are larger.
const USUAL_VALUE: usize = 512;

/// Encodes a value with its header. Encoding these types cannot fail.
pub(super) fn encode<T: Serialize>(layout: Layout, value: &T) -> Bytes {
    let mut head = Vec::with_capacity(USUAL_VALUE);
    head.extend([VERSIONED, layout as u8]);
    postcard::to_extend(value, head).map(Bytes::from).unwrap_or_default()
}

/// Encodes an acknowledgement.
pub(super) fn encode_known(known: &Acknowledged) -> Bytes {
    postcard::to_stdvec(known).map(Bytes::from).unwrap_or_default()
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
