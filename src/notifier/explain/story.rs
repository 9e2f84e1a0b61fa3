//! The answers to "why is this lamp as it is", as plain values that can be written as JSON.
//!
//! Times are Unix milliseconds and end in `_at`; spans say their unit.

use std::fmt;

use serde::Serialize;

use crate::notifier::LargeNotifies;
use crate::notifier::refusals::Answered;
use crate::notifier::tally::Tally;
use crate::presence::subscription::Place;

/// What a lamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LampState {
    /// Nothing is known of the extension: nobody has published for it, nobody watches it.
    Unknown,
    /// No call.
    Idle,
    /// It is being called.
    Ringing,
    /// It calls somebody.
    Calling,
    /// In a call.
    Talking,
    /// In a call that is on hold.
    Held,
}

/// The lamp of an extension, as a wall shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lamp {
    /// The extension, lower case.
    pub extension: String,
    /// The name of its user, where the directory has one.
    pub name: Option<String>,
    /// What it shows.
    pub state: LampState,
    /// When it last changed; none before.
    pub changed_at: Option<u64>,
    /// The other side of the call that the lamp shows.
    pub with: Option<Other>,
    /// How many calls are live.
    pub calls: usize,
    /// Messages are waiting; none where nothing was published about that.
    pub messages_waiting: Option<bool>,
    /// How many subscriptions there are to it.
    pub watchers: usize,
    /// How many of these do not know the state of the moment.
    pub behind: usize,
    /// How many of these have let their latest NOTIFY fail.
    pub failing: usize,
}

/// The other side of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// Display name, where published.
    pub name: Option<String>,
    /// Identity, without scheme, where published.
    pub number: Option<String>,
}

/// Everything about one extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LampStory {
    /// What the wall shows.
    #[serde(flatten)]
    pub lamp: Lamp,
    /// `sip:user@realm`
    pub uri: String,
    /// Why it shows that, for people: one sentence each, the deciding one first.
    pub why: Vec<String>,
    /// The state that was set by hand.
    pub manual: Option<&'static str>,
    /// The live calls that are shown, the one that matters most first.
    pub live_calls: Vec<CallRow>,
    /// How many more are live and known by name, but not shown.
    pub calls_not_shown: usize,
    /// The publications that hold, oldest first.
    pub publications: Vec<PublicationRow>,
    /// What is published of the person and his mailbox.
    pub person: PersonRow,
    /// Revision of what watchers of each package are told.
    pub revisions: Vec<RevisionRow>,
    /// The watchers, those who are behind first; no more than [`super::MOST_WATCHERS`].
    pub watching: Vec<WatcherRow>,
    /// The latest changes, oldest first, as far as the history reaches.
    pub changes: Vec<ChangeRow>,
    /// The latest exchanges with its watchers, oldest first, as far as the history reaches.
    pub exchanges: Vec<ExchangeRow>,
}

/// A live call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallRow {
    /// The id that watchers are shown.
    pub id: String,
    /// Its Call-ID, where published.
    pub call_id: Option<String>,
    /// `trying`, `proceeding`, `early` or `confirmed`.
    pub state: &'static str,
    /// `initiator` or `recipient`, where published.
    pub direction: Option<&'static str>,
    /// It is on hold.
    pub held: bool,
    /// The other side.
    pub with: Other,
    /// When it was last spoken of.
    pub said_at: u64,
    /// When it goes, unless it is answered or spoken of.
    pub lapses_at: Option<u64>,
    /// Entity-tags of the publications that hold it.
    pub held_by: Vec<String>,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicationRow {
    /// Its entity-tag.
    pub etag: String,
    /// Its event package.
    pub event: &'static str,
    /// When it ends unless refreshed.
    pub expires_at: u64,
    /// How many times it has been changed or refreshed.
    pub changes: u32,
    /// Who made it; none if it was made before the last restart.
    pub source: Option<SourceRow>,
}

/// Who has published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    /// The URI of his From.
    pub from: String,
    /// Address and port that it came from.
    pub address: String,
    /// How it came.
    pub transport: String,
    /// His User-Agent, if he names one.
    pub user_agent: Option<String>,
}

/// What is published of a person and his mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PersonRow {
    /// Can be reached.
    pub open: Option<bool>,
    /// A note.
    pub note: Option<String>,
    /// What he does.
    pub activities: Vec<String>,
    /// New voice messages.
    pub new_messages: Option<u32>,
}

/// How often what the watchers of a package are told has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RevisionRow {
    /// The event package.
    pub event: &'static str,
    /// The revision of the moment.
    pub revision: u64,
}

/// How a subscription fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The phone has acknowledged the state of the moment.
    Current,
    /// A NOTIFY is under way.
    Sending,
    /// It is told when its turn comes.
    Waiting,
    /// The name of its next hop is being looked up.
    Resolving,
    /// The latest NOTIFY was refused or failed; the next try is set.
    Failing,
    /// The phone does not answer; the next try is set.
    Silent,
    /// It does not know the state of the moment.
    Behind,
    /// It has ended; its last NOTIFY is under way.
    Ended,
}

/// One watcher of a lamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatcherRow {
    /// Names the subscription.
    pub id: String,
    /// The extension that it is to.
    pub extension: String,
    /// `user@realm` of the watcher, as he wrote it.
    pub watcher: String,
    /// Event package.
    pub event: &'static str,
    /// Make of the phone, as far as its User-Agent tells.
    pub vendor: Option<&'static str>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<String>,
    /// How the latest SUBSCRIBE came.
    pub transport: String,
    /// Where the latest SUBSCRIBE came from.
    pub peer: String,
    /// When it ends unless refreshed.
    pub expires_at: u64,
    /// How it fares.
    pub delivery_status: Standing,
    /// The revision that the phone has acknowledged last.
    pub acknowledged: u64,
    /// How many revisions have come since.
    pub behind: u64,
    /// Since when there is something that it does not know; the history may not reach back far enough to tell.
    pub stale_since: Option<u64>,
    /// It may be longer.
    pub stale_since_is_lower_bound: bool,
    /// CSeq and final answer of the last NOTIFY; 408 for none. None before the first.
    pub last: Option<LastRow>,
    /// NOTIFYs that failed in a row.
    pub failures: u32,
    /// When the next try is made or its turn comes.
    pub next_try_at: Option<u64>,
}

impl WatcherRow {
    /// Where it stands in a list of subscriptions.
    pub fn bookmark(&self) -> Bookmark {
        let slot = Place::read(&self.id).map_or(0, |place| place.slot);
        Bookmark { extension: self.extension.clone(), slot }
    }
}

/// Where a list of subscriptions goes on: at an extension, and there at a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// The extension, lower case.
    pub extension: String,
    /// The first slot that is meant.
    pub slot: u32,
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.slot, self.extension)
    }
}

impl Bookmark {
    /// Reads what it prints.
    pub fn read(text: &str) -> Option<Bookmark> {
        let (slot, extension) = text.split_once('.')?;
        let sound = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if !(1..=8).contains(&slot.len()) || !slot.bytes().all(sound) {
            return None;
        }
        Some(Bookmark { extension: extension.to_lowercase(), slot: u32::from_str_radix(slot, 16).ok()? })
    }
}

/// The last answered NOTIFY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastRow {
    /// Its CSeq.
    pub cseq: u32,
    /// The final answer; 408 for none.
    pub reply: u16,
    /// The version of its document.
    pub version: u32,
}

/// Everything about one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionStory {
    /// What the page of its lamp shows.
    #[serde(flatten)]
    pub row: WatcherRow,
    /// The id of its Event.
    pub event_id: Option<String>,
    /// Granted by the latest SUBSCRIBE, seconds.
    pub granted: u32,
    /// When the latest SUBSCRIBE came.
    pub subscribed_at: u64,
    /// The revision of the moment.
    pub revision: u64,
    /// Its dialog.
    pub dialog: DialogRow,
    /// The way that its SUBSCRIBEs come and its NOTIFYs go.
    pub flow: FlowRow,
    /// The NOTIFY that waits for its answer.
    pub under_way: Option<UnderWayRow>,
    /// The body of the last answered NOTIFY, put together again.
    pub last_body: Option<String>,
    /// The latest exchanges, oldest first, as far as the history reaches.
    pub exchanges: Vec<ExchangeRow>,
    /// How many NOTIFYs, at most, were sent before those and are not in the history any more.
    pub earlier: u32,
    /// There is a trace of it, which ends or has ended then.
    pub traced_until: Option<u64>,
}

/// What was said in a subscription while it was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceStory {
    /// The subscription.
    pub subscription: String,
    /// When tracing began.
    pub since_at: u64,
    /// When it ends, or has ended.
    pub until_at: u64,
    /// It goes on.
    pub running: bool,
    /// How many messages have made room for later ones.
    pub evicted: u64,
    /// The messages, oldest first.
    pub messages: Vec<TracedMessage>,
}

/// A message, word for word but for what proves who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracedMessage {
    /// When it came or was given to the network.
    pub at: u64,
    /// `received` or `sent`.
    pub direction: &'static str,
    /// How it went, or was to go; none for one sent over a connection that the phone has opened.
    pub transport: Option<String>,
    /// The other end; none for the same.
    pub peer: Option<String>,
    /// Its size (octets).
    pub bytes: usize,
    /// Itself.
    pub text: String,
}

/// A dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DialogRow {
    /// Call-ID.
    pub call_id: String,
    /// Our side.
    pub local: String,
    /// Our tag.
    pub local_tag: String,
    /// The phone's side, with its tag.
    pub remote: String,
    /// The phone's Contact, where NOTIFYs are aimed.
    pub target: String,
    /// The proxies in between, ours first.
    pub route_set: Vec<String>,
    /// CSeq of our last NOTIFY.
    pub local_cseq: u32,
    /// CSeq of the phone's last SUBSCRIBE.
    pub remote_cseq: u32,
}

/// A way over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowRow {
    /// `UDP`, `TCP`, `TLS`, `WS` or `WSS`.
    pub transport: String,
    /// Address and port of the other end.
    pub peer: String,
    /// Host and port of ours.
    pub local: String,
    /// Number of the connection, where there is one.
    pub connection: Option<u64>,
    /// The peer has shown a certificate that we trust.
    pub certified: bool,
}

/// A NOTIFY that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnderWayRow {
    /// Its CSeq.
    pub cseq: u32,
    /// The version of its document.
    pub version: u32,
    /// When it first left.
    pub sent_at: u64,
    /// How many copies followed.
    pub copies: u8,
    /// Octets.
    pub bytes: usize,
    /// The request of the API that it is the work of, where that is certain.
    pub request: Option<String>,
}

/// Something that was exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExchangeRow {
    /// The subscription that it was for.
    pub subscription: String,
    /// When it was over.
    pub at: u64,
    /// `SUBSCRIBE`, of the phone, or `NOTIFY`, of ours.
    pub method: &'static str,
    /// Its CSeq.
    pub cseq: u32,
    /// The final answer; 408 for none in time, 0 where the next NOTIFY superseded it before there was one.
    pub reply: u16,
    /// The version of the document; none for a SUBSCRIBE.
    pub version: Option<u32>,
    /// Seconds granted; none for a NOTIFY.
    pub granted: Option<u32>,
    /// From the first copy to the answer; none for a SUBSCRIBE.
    pub delay_ms: Option<u32>,
    /// Octets; none for a SUBSCRIBE.
    pub bytes: Option<u32>,
    /// How many copies followed the first.
    pub copies: u8,
    /// How it went; none for a SUBSCRIBE.
    pub transport: Option<String>,
    /// The request of the API that a NOTIFY is the work of, where that is certain.
    pub request: Option<String>,
}

/// A change of a lamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeRow {
    /// When.
    pub at: u64,
    /// Why, in a word.
    pub cause: &'static str,
    /// The revision of the dialog package since.
    pub revision: u32,
    /// The request of the API that it is the work of.
    pub request: Option<String>,
}

/// How an account fares as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Extensions of which something is known.
    pub extensions: usize,
    /// Of these, how many show which state.
    pub states: States,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Of these, how many do not know the state of the moment.
    pub behind: usize,
    /// Of these, how many have let their latest NOTIFY fail.
    pub failing: usize,
    /// Publications.
    pub publications: usize,
    /// Live calls.
    pub calls: usize,
    /// The first moment of the first bucket.
    pub from_at: u64,
    /// The length of a bucket.
    pub bucket_ms: u64,
    /// What was exchanged in each, the oldest first.
    pub buckets: Vec<Bucket>,
    /// The history begins in the middle of the buckets: before this moment entries are missing.
    pub complete_from: Option<u64>,
}

/// How subscriptions of one kind fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Their event package.
    pub event: &'static str,
    /// How their SUBSCRIBEs come: one of [`TRANSPORTS`](crate::notifier::tally::TRANSPORTS).
    pub transport: &'static str,
    /// Their phones' make, where it is known.
    pub vendor: Option<&'static str>,
    /// How many there are.
    pub subscriptions: usize,
    /// Of these, how many do not know the state of the moment.
    pub behind: usize,
    /// Of these, how many have let their latest NOTIFY fail.
    pub failing: usize,
}

/// For how long lamps may have been wrong, in seconds, as they are counted in [`Numbers`].
pub const AGES: [u64; 6] = [1, 5, 30, 300, 3_600, 86_400];

/// How the notifier fares as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Subscriptions, by kind; none of a kind, and it is not named.
    pub subscriptions: Vec<Kind>,
    /// How many subscriptions have been behind for longer than each of [`AGES`].
    pub behind_longer_than: [usize; AGES.len()],
    /// The longest that one has been (ms).
    pub behind_longest_ms: u64,
    /// Extensions of which something is known.
    pub presentities: usize,
    /// Publications, by event package.
    pub publications: Vec<(&'static str, usize)>,
    /// What became of requests.
    pub answered: Answered,
    /// NOTIFYs that were too large for a datagram.
    pub large: LargeNotifies,
    /// Names of next hops that are remembered.
    pub names: usize,
    /// Phones that have a subscription.
    pub phones: usize,
    /// Messages that were not read, by the reason.
    pub turned_away: [(&'static str, u64); 6],
    /// Messages whose handling met a bug.
    pub panics: u64,
    /// What has been counted since the start.
    pub tally: Tally,
}

/// How many lamps show what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of LampState")]
pub struct States {
    pub idle: usize,
    pub ringing: usize,
    pub calling: usize,
    pub talking: usize,
    pub held: usize,
}

/// What was exchanged in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Changes of lamps.
    pub changes: u32,
    /// SUBSCRIBEs granted.
    pub subscribed: u32,
    /// NOTIFYs acknowledged.
    pub acknowledged: u32,
    /// NOTIFYs superseded by the next.
    pub superseded: u32,
    /// NOTIFYs refused, or not answered.
    pub failed: u32,
    /// The median delay of those acknowledged.
    pub delay_ms: Option<u32>,
    /// The delay that one in twenty exceeded.
    pub delay_95_ms: Option<u32>,
}
