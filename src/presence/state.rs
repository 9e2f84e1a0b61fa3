//! State that publications report and that documents are composed from.
//!
//! A document of the wire is read into these types by a module of `package/` and never kept as text (rule 4). A
//! watcher is sent a document composed from the state that holds now, whichever publisher reported it and in whatever
//! dialect.

use serde::{Deserialize, Serialize};

/// Dialog ids that no call has: the state set by hand, the idle lamp, and the stand-in for calls that are known to be
/// live but not by name.
pub const RESERVED_IDS: [&str; 3] = ["manual", "idle", "more"];

/// State of a call (RFC 4235 section 3.7.1). Ordered: a call only moves up, and `Terminated` is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CallState {
    /// The request has been sent or received; there is no response yet.
    Trying,
    /// A provisional response without a tag.
    Proceeding,
    /// Ringing: a provisional response with a tag.
    Early,
    /// Answered.
    Confirmed,
    /// Ended; final.
    Terminated,
}

/// Side of the call that the presentity is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The presentity called.
    Initiator,
    /// The presentity was called.
    Recipient,
}

/// One side of a call as a publisher described it. Each part may be missing.
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
    /// Direction of the call, where reported.
    pub direction: Option<Direction>,
    /// State of the call.
    pub state: CallState,
    /// The presentity's side.
    pub local: Party,
    /// The other side.
    pub remote: Party,
    /// Hold state: true if `+sip.rendering` of the local target is `no`, false if it is `yes`. None where the document
    /// says neither.
    pub held: Option<bool>,
}

impl CallReport {
    /// Returns true if the call is reported to be on hold.
    pub fn is_held(&self) -> bool {
        self.held == Some(true)
    }
}

/// Calls that a dialog-info document reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedCalls {
    /// True for `state="full"`: calls that are not listed have ended. False for `partial`: calls that are not listed
    /// are unchanged.
    pub full: bool,
    /// Listed calls, in document order.
    pub calls: Vec<CallReport>,
}

/// Basic status: whether the presentity can be reached at all (RFC 3863 section 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basic {
    /// Ready to communicate.
    Open,
    /// Not able to communicate.
    Closed,
}

/// State of a person as a PIDF document reports it (RFC 3863, 4479, 4480).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonState {
    /// Open if any tuple is open, closed if all are, none where no tuple has a status.
    pub basic: Option<Basic>,
    /// First note: of the person, else of a tuple, else of the document.
    pub note: Option<Box<str>>,
    /// RPID activities by their element name (`on-the-phone`, `away`, ...), in document order, each once.
    pub activities: Vec<Box<str>>,
}

/// Message classes of RFC 3842 section 5.2, in the order in which they are written.
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

/// State of a mailbox, as a simple-message-summary reports it (RFC 3842).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// `Messages-Waiting`; none if it has not been reported yet.
    pub waiting: Option<bool>,
    /// `Message-Account`, a URI.
    pub account: Option<Box<str>>,
    /// Counts by class, indexed like [`MessageClass::ALL`].
    pub counts: [Option<MessageCounts>; 6],
}

/// Content of the body of one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishedState {
    /// From a dialog-info document.
    Calls(PublishedCalls),
    /// From a PIDF document.
    PersonState(PersonState),
    /// From a simple-message-summary.
    Mailbox(Mailbox),
}

/// Complete state of a presentity at one moment, composed from every publication and the manual state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposedState<'a> {
    /// `sip:user@realm`, canonical.
    pub uri: &'a str,
    /// Live calls, the one that matters most to a lamp first, then the calls that have just ended. No id occurs
    /// twice.
    pub calls: Vec<&'a CallReport>,
    /// State set by hand or by the API; never `Terminated`.
    pub manual: Option<CallState>,
    /// Person state, composed from all publications.
    pub person: PersonState,
    /// Mailbox state, composed from all publications.
    pub mailbox: Mailbox,
}
