//! The facts that publications report and that documents are composed from.
//!
//! A document of the wire is read into these by a room of `package/` and never kept as text (law 4): what a watcher is
//! sent is composed from the facts that hold now, whoever reported them and in whatever dialect.

use serde::{Deserialize, Serialize};

/// The ids of dialogs that are no calls: the state set by hand, the idle lamp, and what stands for calls of which no more is
/// known than that they are live. No call bears them.
pub const RESERVED_IDS: [&str; 3] = ["manual", "idle", "more"];

/// How far a call has come (RFC 4235 section 3.7.1). Ordered: a call only ever moves up, and `Terminated` absorbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CallState {
    /// The request has been sent or received, nothing has come of it yet.
    Trying,
    /// A provisional answer without a tag.
    Proceeding,
    /// It rings.
    Early,
    /// They talk.
    Confirmed,
    /// Over; final.
    Terminated,
}

/// Which side of the call the presentity is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The presentity called.
    Initiator,
    /// The presentity was called.
    Recipient,
}

/// One side of a call as a publisher described it; each part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The `identity` URI.
    pub identity: Option<Box<str>>,
    /// The display name of the identity.
    pub display: Option<Box<str>>,
    /// The `target` URI, which a pickup key dials.
    pub target: Option<Box<str>>,
}

/// One call as one publication reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
    /// The `id` of the dialog element; never empty.
    pub id: Box<str>,
    /// Call-ID of the call; Asterisk sends none.
    pub call_id: Option<Box<str>>,
    /// Tag of the presentity's side.
    pub local_tag: Option<Box<str>>,
    /// Tag of the other side.
    pub remote_tag: Option<Box<str>>,
    /// Direction, where reported.
    pub direction: Option<Direction>,
    /// State of the call.
    pub state: CallState,
    /// The presentity's side.
    pub local: Party,
    /// The other side.
    pub remote: Party,
    /// Whether the call is on hold: `+sip.rendering` of the local target is `no`, or `yes` where it is not. None where
    /// nothing is said of it.
    pub held: Option<bool>,
}

impl CallReport {
    /// The call is on hold by all that is known.
    pub fn is_held(&self) -> bool {
        self.held == Some(true)
    }
}

/// The calls that a dialog-info document speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedCalls {
    /// True for `state="full"`: calls that are not listed are over. False for `partial`: they are as they were.
    pub full: bool,
    /// The listed calls, in document order.
    pub calls: Vec<CallReport>,
}

/// Whether somebody can be reached at all (RFC 3863 section 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basic {
    /// Ready to communicate.
    Open,
    /// Not there.
    Closed,
}

/// What a PIDF document says of a person (RFC 3863, 4479, 4480).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonState {
    /// Open if any tuple is open, closed if all are, none where no tuple has a status.
    pub basic: Option<Basic>,
    /// The first note: of the person, else of a tuple, else of the document.
    pub note: Option<Box<str>>,
    /// RPID activities by their element name (`on-the-phone`, `away`, ...), in document order, each once.
    pub activities: Vec<Box<str>>,
}

/// The classes of messages that RFC 3842 section 5.2 knows, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageClass {
    /// `Voice-Message`
    Voice,
    /// `Fax-Message`
    Fax,
    /// `Pager-Message`
    Pager,
    /// `Multimedia-Message`
    Multimedia,
    /// `Text-Message`
    Text,
    /// `None`
    None,
}

impl MessageClass {
    /// Every class, in the order in which they are written.
    pub const ALL: [MessageClass; 6] = [Self::Voice, Self::Fax, Self::Pager, Self::Multimedia, Self::Text, Self::None];
}

/// Message counts of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// New messages.
    pub new: u32,
    /// Old messages.
    pub old: u32,
    /// New and old urgent messages, where reported.
    pub urgent: Option<(u32, u32)>,
}

/// A mailbox, as a simple-message-summary describes it (RFC 3842).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// `Messages-Waiting`; none where nothing has been reported yet.
    pub waiting: Option<bool>,
    /// `Message-Account`, a URI.
    pub account: Option<Box<str>>,
    /// Counts by class, indexed like [`MessageClass::ALL`].
    pub counts: [Option<MessageCounts>; 6],
}

/// What the body of one publication says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishedState {
    /// From a dialog-info document.
    Calls(PublishedCalls),
    /// From a PIDF document.
    PersonState(PersonState),
    /// From a simple-message-summary.
    Mailbox(Mailbox),
}

/// All that holds of a presentity at one moment, put together from every publication and the manual state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposedState<'a> {
    /// `sip:user@realm`, canonical.
    pub uri: &'a str,
    /// The live calls, the one that matters most to a lamp first, then those that have just ended; no id twice.
    pub calls: Vec<&'a CallReport>,
    /// State set by hand or by the API: never `Terminated`.
    pub manual: Option<CallState>,
    /// What is published of the person, put together.
    pub person: PersonState,
    /// What is published of the mailbox, put together.
    pub mailbox: Mailbox,
}
