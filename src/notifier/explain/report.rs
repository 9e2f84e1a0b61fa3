//! Reports that answer "why does this lamp show this?", as plain values that can be written as JSON.
//!
//! Times are Unix milliseconds and end in `_at`; the names or comments of durations give their unit.

use std::fmt;

use serde::Serialize;

use crate::notifier::OversizeNotifies;
use crate::notifier::metrics::NotifyCounters;
use crate::notifier::refusals::RequestStats;
use crate::presence::subscription::SubscriptionId;

/// State that a lamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LampState {
    /// The server knows nothing of the extension: it has no publication and no watcher.
    Unknown,
    /// There is no call.
    Idle,
    /// The extension is being called.
    Ringing,
    /// The extension is calling, and the call is not answered yet.
    Calling,
    /// The extension is in a call.
    Talking,
    /// The extension is in a call that is on hold.
    Held,
}

/// Lamp of an extension, as the wall shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lamp {
    /// The extension, lower case.
    pub extension: String,
    /// Name of its user, if the directory has one.
    pub name: Option<String>,
    /// State of the lamp.
    pub state: LampState,
    /// Time of the last change; none if there was none.
    pub changed_at: Option<u64>,
    /// Remote party of the call that determines the lamp.
    pub with: Option<RemoteParty>,
    /// Number of live calls.
    pub calls: usize,
    /// True if messages are waiting; none if nothing is published about that.
    pub messages_waiting: Option<bool>,
    /// Number of subscriptions.
    pub watchers: usize,
    /// Number of subscriptions that have not acknowledged the current state.
    pub behind: usize,
    /// Number of subscriptions whose latest NOTIFY failed.
    pub failing: usize,
}

/// Remote party of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteParty {
    /// Display name, if published.
    pub name: Option<String>,
    /// Identity without its scheme, if published.
    pub number: Option<String>,
}

/// Full report of one extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LampReport {
    /// The fields of the wall.
    #[serde(flatten)]
    pub lamp: Lamp,
    /// URI of the presentity: `sip:user@realm`.
    pub uri: String,
    /// Reasons for the state of the lamp, in words: one sentence each, the decisive one first.
    pub why: Vec<String>,
    /// Manual state, if one is set.
    pub manual: Option<&'static str>,
    /// Live calls that are shown, the most important first.
    pub live_calls: Vec<CallRow>,
    /// Number of further live calls that are stored, but not shown.
    pub calls_not_shown: usize,
    /// Current publications, oldest first.
    pub publications: Vec<PublicationRow>,
    /// Published state of the person and the mailbox.
    pub person: PersonRow,
    /// Revision of the document of each package.
    pub revisions: Vec<RevisionRow>,
    /// Watchers, those that have not acknowledged the current state first; at most [`super::MOST_WATCHERS`].
    pub watching: Vec<WatcherRow>,
    /// Latest changes, oldest first, as far back as the history reaches.
    pub changes: Vec<ChangeRow>,
    /// Latest exchanges with the watchers, oldest first, as far back as the history reaches.
    pub exchanges: Vec<ExchangeRow>,
}

/// A live call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallRow {
    /// Id of the call in the documents.
    pub id: String,
    /// Call-ID, if published.
    pub call_id: Option<String>,
    /// `trying`, `proceeding`, `early` or `confirmed`.
    pub state: &'static str,
    /// `initiator` or `recipient`, if published.
    pub direction: Option<&'static str>,
    /// True if the call is on hold.
    pub held: bool,
    /// Remote party.
    pub with: RemoteParty,
    /// Time of the last publication that listed the call.
    pub said_at: u64,
    /// Time at which the call is dropped unless it is answered or published again; none for an answered call.
    pub lapses_at: Option<u64>,
    /// Entity-tags of the publications that list the call.
    pub held_by: Vec<String>,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicationRow {
    /// Entity-tag.
    pub etag: String,
    /// Event package.
    pub event: &'static str,
    /// Time at which it expires unless refreshed.
    pub expires_at: u64,
    /// Number of times that it was modified or refreshed.
    pub changes: u32,
    /// Sender of the publication; none if it was made before the last restart.
    pub source: Option<SourceRow>,
}

/// Sender of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    /// URI of its From.
    pub from: String,
    /// Address and port that the PUBLISH came from.
    pub address: String,
    /// Transport of the PUBLISH.
    pub transport: String,
    /// User-Agent of the PUBLISH, if it has one.
    pub user_agent: Option<String>,
}

/// Published state of a person and the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PersonRow {
    /// True if the person can be reached (`open`), false if not (`closed`).
    pub open: Option<bool>,
    /// A note.
    pub note: Option<String>,
    /// Activities of the person.
    pub activities: Vec<String>,
    /// Number of new voice messages.
    pub new_messages: Option<u32>,
}

/// Revision of a package: the number of changes of the document that its watchers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RevisionRow {
    /// Event package.
    pub event: &'static str,
    /// Current revision.
    pub revision: u64,
}

/// Delivery status of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// The phone has acknowledged the current state.
    Current,
    /// A NOTIFY is in flight.
    Sending,
    /// A NOTIFY is scheduled: it is held back by the rate limit of the phone.
    Waiting,
    /// A NOTIFY waits for DNS to resolve its next hop.
    Resolving,
    /// The latest NOTIFY was refused or failed; the next attempt is scheduled.
    Failing,
    /// The phone does not respond; the next attempt is scheduled.
    Silent,
    /// The phone has not acknowledged the current state.
    Behind,
    /// The subscription has ended; its last NOTIFY is in flight.
    Ended,
}

/// A watcher of a lamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatcherRow {
    /// Id of the subscription.
    pub id: String,
    /// Extension that it watches.
    pub extension: String,
    /// `user@realm` of the watcher, as its SUBSCRIBE wrote it.
    pub watcher: String,
    /// Event package.
    pub event: &'static str,
    /// Make of the phone, if its User-Agent shows it.
    pub vendor: Option<&'static str>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<String>,
    /// Transport of the latest SUBSCRIBE.
    pub transport: String,
    /// Source address and port of the latest SUBSCRIBE.
    pub peer: String,
    /// Time at which it expires unless refreshed.
    pub expires_at: u64,
    /// Delivery status.
    pub delivery_status: DeliveryStatus,
    /// Revision that the phone acknowledged last.
    pub acknowledged: u64,
    /// Number of later revisions.
    pub behind: u64,
    /// Time of the first change that the phone has not acknowledged; none if there is no such change, if the history
    /// does not reach back far enough, or if this row is not part of a full report.
    pub stale_since: Option<u64>,
    /// True if that time is only the latest possible one, because older entries are gone from the history.
    pub stale_since_is_lower_bound: bool,
    /// CSeq and final response of the last NOTIFY that was answered or timed out (408); none before the first.
    pub last: Option<LastNotifyRow>,
    /// Number of NOTIFYs that failed in a row.
    pub failures: u32,
    /// Time of the next attempt, or of the NOTIFY that is scheduled.
    pub next_try_at: Option<u64>,
}

impl WatcherRow {
    /// Position in a list of subscriptions.
    pub fn bookmark(&self) -> Cursor {
        let slot = SubscriptionId::read(&self.id).map_or(0, |place| place.slot);
        Cursor { extension: self.extension.clone(), slot }
    }
}

/// Position in a list of subscriptions, from which the next page continues: an extension, and a slot in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The extension, lower case.
    pub extension: String,
    /// First slot of the page.
    pub slot: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.slot, self.extension)
    }
}

impl Cursor {
    /// Parses the output of `Display`.
    pub fn read(text: &str) -> Option<Cursor> {
        let (slot, extension) = text.split_once('.')?;
        let sound = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if !(1..=8).contains(&slot.len()) || !slot.bytes().all(sound) {
            return None;
        }
        Some(Cursor { extension: extension.to_lowercase(), slot: u32::from_str_radix(slot, 16).ok()? })
    }
}

/// The last NOTIFY that was answered or timed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastNotifyRow {
    /// CSeq number.
    pub cseq: u32,
    /// Status of the final response; 408 if none came in time.
    pub reply: u16,
    /// Version of the document.
    pub version: u32,
}

/// Full report of one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionReport {
    /// The fields of the row in the report of its lamp.
    #[serde(flatten)]
    pub row: WatcherRow,
    /// `id` parameter of its Event.
    pub event_id: Option<String>,
    /// Lifetime that the latest SUBSCRIBE was granted (seconds).
    pub granted: u32,
    /// Time of the latest SUBSCRIBE.
    pub subscribed_at: u64,
    /// Current revision of the document.
    pub revision: u64,
    /// The dialog.
    pub dialog: DialogRow,
    /// Network path that its SUBSCRIBEs come by and its NOTIFYs take.
    pub flow: FlowRow,
    /// The NOTIFY in flight, if any.
    pub under_way: Option<InFlightRow>,
    /// Body of the last NOTIFY that was answered or timed out. It is not stored, but rebuilt.
    pub last_body: Option<String>,
    /// Latest exchanges, oldest first, as far back as the history reaches.
    pub exchanges: Vec<ExchangeRow>,
    /// Maximum number of NOTIFYs that were sent before these exchanges and are gone from the history.
    pub earlier: u32,
    /// End of the trace of this subscription, in the future or in the past; none if it was not traced.
    pub traced_until: Option<u64>,
}

/// Messages of a subscription while it was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceReport {
    /// Id of the subscription.
    pub subscription: String,
    /// Start of the trace.
    pub since_at: u64,
    /// End of the trace, in the future or in the past.
    pub until_at: u64,
    /// True while the trace is running.
    pub running: bool,
    /// Number of messages that were evicted for later ones.
    pub evicted: u64,
    /// Messages, oldest first.
    pub messages: Vec<TracedMessage>,
}

/// A message of a trace. Its text is unchanged except for credentials, which are replaced by `(removed)`; their scheme
/// stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracedMessage {
    /// Time at which it was received or handed to the network.
    pub at: u64,
    /// `received` or `sent`.
    pub direction: &'static str,
    /// Transport that it used, or was to use; none if it was sent over a connection that the phone had opened.
    pub transport: Option<String>,
    /// Address and port of the other end; none in the same case as `transport`.
    pub peer: Option<String>,
    /// Size of the message (octets).
    pub bytes: usize,
    /// Text of the message.
    pub text: String,
}

/// Dialog of a subscription (RFC 3261 section 12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DialogRow {
    /// Call-ID.
    pub call_id: String,
    /// Local URI, which is that of the presentity.
    pub local: String,
    /// Local tag.
    pub local_tag: String,
    /// Remote URI, which is that of the phone, with its tag.
    pub remote: String,
    /// Remote target: the Contact of the phone, to which NOTIFYs are addressed.
    pub target: String,
    /// Route set: the proxies on the path, the one next to us first.
    pub route_set: Vec<String>,
    /// CSeq of our latest NOTIFY.
    pub local_cseq: u32,
    /// CSeq of the phone's latest SUBSCRIBE.
    pub remote_cseq: u32,
}

/// Network path of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowRow {
    /// `UDP`, `TCP`, `TLS`, `WS` or `WSS`.
    pub transport: String,
    /// Address and port of the other end.
    pub peer: String,
    /// Our host and port.
    pub local: String,
    /// Number of the connection; none for datagrams.
    pub connection: Option<u64>,
    /// True if the peer has shown a certificate that we trust.
    pub certified: bool,
}

/// A NOTIFY in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InFlightRow {
    /// CSeq number.
    pub cseq: u32,
    /// Version of its document.
    pub version: u32,
    /// Time at which it was first sent.
    pub sent_at: u64,
    /// Number of retransmissions.
    pub copies: u8,
    /// Size of the message (octets).
    pub bytes: usize,
    /// Id of the API request that caused it, if that is certain.
    pub request: Option<String>,
}

/// A finished exchange: a SUBSCRIBE or a NOTIFY, with its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExchangeRow {
    /// Id of the subscription.
    pub subscription: String,
    /// Time at which it was finished.
    pub at: u64,
    /// `SUBSCRIBE`, sent by the phone, or `NOTIFY`, sent by the server.
    pub method: &'static str,
    /// CSeq number.
    pub cseq: u32,
    /// Status of the final response: 408 if none came in time, 0 if the next NOTIFY superseded this one first.
    pub reply: u16,
    /// Version of the document; none for a SUBSCRIBE.
    pub version: Option<u32>,
    /// Granted lifetime (seconds); none for a NOTIFY.
    pub granted: Option<u32>,
    /// Time from the first transmission to the response; none for a SUBSCRIBE.
    pub delay_ms: Option<u32>,
    /// Size of the message (octets); none for a SUBSCRIBE.
    pub bytes: Option<u32>,
    /// Number of retransmissions.
    pub copies: u8,
    /// Transport; none for a SUBSCRIBE.
    pub transport: Option<String>,
    /// Id of the API request that caused the NOTIFY, if that is certain.
    pub request: Option<String>,
}

/// A change of a lamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeRow {
    /// Time of the change.
    pub at: u64,
    /// Cause, in a few words.
    pub cause: &'static str,
    /// Revision of the dialog package after the change.
    pub revision: u32,
    /// Id of the API request that caused the change, if it was one.
    pub request: Option<String>,
}

/// Overview of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Number of extensions that the server knows.
    pub extensions: usize,
    /// Number of these extensions by the state of their lamp.
    pub states: StateCounts,
    /// Number of subscriptions.
    pub subscriptions: usize,
    /// Number of subscriptions that have not acknowledged the current state.
    pub behind: usize,
    /// Number of subscriptions whose latest NOTIFY failed.
    pub failing: usize,
    /// Number of publications.
    pub publications: usize,
    /// Number of live calls.
    pub calls: usize,
    /// Start of the first bucket.
    pub from_at: u64,
    /// Length of a bucket.
    pub bucket_ms: u64,
    /// Exchanges by time, the oldest bucket first.
    pub buckets: Vec<Bucket>,
    /// Time since which the history is complete, if that is later than the start of the first bucket.
    pub complete_from: Option<u64>,
}

/// Number and delivery status of the subscriptions of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionGroup {
    /// Event package.
    pub event: &'static str,
    /// Transport of their SUBSCRIBEs: one of [`TRANSPORTS`](crate::notifier::metrics::TRANSPORTS).
    pub transport: &'static str,
    /// Make of their phones, if known.
    pub vendor: Option<&'static str>,
    /// Number of subscriptions.
    pub subscriptions: usize,
    /// Number of subscriptions that have not acknowledged the current state.
    pub behind: usize,
    /// Number of subscriptions whose latest NOTIFY failed.
    pub failing: usize,
}

/// Thresholds (seconds) by which [`NotifierStats`] counts subscriptions that have not acknowledged the current state.
pub const AGES: [u64; 6] = [1, 5, 30, 300, 3_600, 86_400];

/// Statistics of the notifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifierStats {
    /// Subscriptions by kind. Kinds without any are left out.
    pub subscriptions: Vec<SubscriptionGroup>,
    /// Number of subscriptions that have not acknowledged the current state for longer than each of [`AGES`].
    pub behind_longer_than: [usize; AGES.len()],
    /// The longest time that one of them has waited (ms).
    pub behind_longest_ms: u64,
    /// Number of presentities.
    pub presentities: usize,
    /// Number of publications, by event package.
    pub publications: Vec<(&'static str, usize)>,
    /// Counts of requests by their outcome.
    pub answered: RequestStats,
    /// Counts of NOTIFYs that were too large for a datagram, by the way in which they were sent.
    pub large: OversizeNotifies,
    /// Number of host names in the DNS cache.
    pub names: usize,
    /// Number of phones with a subscription.
    pub phones: usize,
    /// Number of messages that were not processed, by reason.
    pub turned_away: [(&'static str, u64); 6],
    /// Number of messages whose handling panicked.
    pub panics: u64,
    /// Counters since the start.
    pub tally: NotifyCounters,
}

/// Number of lamps in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of LampState")]
pub struct StateCounts {
    pub idle: usize,
    pub ringing: usize,
    pub calling: usize,
    pub talking: usize,
    pub held: usize,
}

/// Counts of changes and exchanges in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Number of changes of lamps.
    pub changes: u32,
    /// Number of granted SUBSCRIBEs.
    pub subscribed: u32,
    /// Number of acknowledged NOTIFYs.
    pub acknowledged: u32,
    /// Number of NOTIFYs that were superseded by the next one.
    pub superseded: u32,
    /// Number of NOTIFYs that were refused or timed out.
    pub failed: u32,
    /// Median delay of the acknowledged NOTIFYs; none if there are none.
    pub delay_ms: Option<u32>,
    /// 95th percentile of their delay.
    pub delay_95_ms: Option<u32>,
}
