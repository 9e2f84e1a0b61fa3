//! What the HTTP API and the tools may ask of the notifier, in the words of the domain.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::explain::Explain;
use super::explain::story::Numbers;
use super::refusals::{ApiRefusal, RefusalRow};
use crate::capture;
use crate::directory::AccountNo;
use crate::journal;
use crate::package::PackageId;
use crate::presence::facts::CallState;
use crate::transport;

/// One subscription as the listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// User part of the presentity, lower case.
    pub user: String,
    /// Event package.
    pub package: PackageId,
    /// Call-ID of the dialog.
    pub call_id: String,
    /// `user@realm` of the watcher as he wrote it, without scheme.
    pub from: String,
    /// Granted by the latest SUBSCRIBE, seconds.
    pub expires: u32,
    /// When the latest SUBSCRIBE came, Unix seconds.
    pub subscribed_at: u64,
    /// The last NOTIFY that was answered; none before the first answer.
    pub last: Option<LastNotify>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<String>,
    /// First Route that our NOTIFYs take, if any.
    pub proxy_route: Option<String>,
}

/// The last answered NOTIFY of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastNotify {
    /// Its CSeq.
    pub cseq: u32,
    /// Status of the final reply; 408 where none came in time.
    pub reply: u16,
    /// Its body.
    pub body: String,
}

/// One publication as the listing shows it (`include_presentity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationRecord {
    /// User part of the presentity, lower case.
    pub user: String,
    /// Event package.
    pub package: PackageId,
    /// Its entity-tag.
    pub etag: String,
    /// The presentity's present document of that package, as a watcher would get it with version 0.
    pub body: String,
}

/// A part of a long list, which is told in parts so that nobody has to hold all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part<T> {
    /// Ordered by user, event package and key (the Call-ID of a subscription, the entity-tag of a publication); of those that
    /// are alike in all three, the youngest alone.
    pub records: Vec<T>,
    /// Where the next part begins; none after the last.
    pub next: Option<Position>,
}

/// Where a part of a long list begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// At the first user that is not before this one ...
    pub user: String,
    /// ... and if it is this one, behind the record of this event package and key.
    pub behind: Option<(PackageId, String)>,
}

/// Why a change by the API was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A configured limit is reached; nothing was changed.
    #[error("the limit of {limit} ({key}) is reached")]
    LimitReached {
        /// The limit's key in the configuration.
        key: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The journal could not keep the change: the disk is full or broken.
    #[error("the change could not be written to disk, so it may not survive a restart; nothing was acknowledged")]
    NotKept,
    /// The server is about to end.
    #[error("the server is stopping; start it again to take new work")]
    Stopping,
}

/// What a server that drains still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Whether new subscriptions are sent away.
    pub draining: bool,
    /// NOTIFYs whose answer is still awaited, from phones that are known to answer.
    pub unanswered: usize,
    /// Subscriptions, which go on being refreshed and notified.
    pub subscriptions: usize,
    /// When the last of them ends unless refreshed, Unix milliseconds; none if there is none.
    pub last_expires_at: Option<u64>,
    /// Publications.
    pub publications: usize,
}

/// What becomes of looking a name up: its addresses are known, there are none, no answer came in time, nobody can be asked.
pub const LOOKUPS: [&str; 4] = ["found", "unknown", "timeout", "no_server"];

/// How the whole server fares, room by room.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// When the server started (Unix milliseconds).
    pub up_since_ms: u64,
    /// The notifier.
    pub numbers: Numbers,
    /// Sockets and connections.
    pub transport: transport::Stats,
    /// The journal, where there is one.
    pub journal: Option<journal::Stats>,
    /// Names that wait for their turn to be looked up.
    pub names_waiting: usize,
    /// Names that are being looked up.
    pub names_under_way: usize,
    /// Names that were looked up, by [`LOOKUPS`].
    pub lookups: [u64; LOOKUPS.len()],
    /// Copies for the capture server, if there is one.
    pub capture: Option<capture::Stats>,
}

/// The notifier as the API sees it. Every call is quick and may be made from any thread.
pub trait Control: Explain {
    /// Some subscriptions of an account, of one package or of all; how many is bounded in number and octets.
    fn subscriptions(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &Position,
    ) -> Part<SubscriptionRecord>;
    /// Some publications of an account, of one package or of all; how many is bounded in number and octets.
    fn publications(&self, account: AccountNo, package: Option<PackageId>, from: &Position) -> Part<PublicationRecord>;
    /// Removes all calls and the manual state of each presentity, and sends every watcher one fresh NOTIFY. `request` names
    /// who asked for it, in stories.
    fn reset(&self, account: AccountNo, users: &[String], request: &str) -> Result<(), Refusal>;
    /// Sets the manual state of each presentity; `Terminated` removes it.
    fn set(&self, account: AccountNo, users: &[String], state: CallState, request: &str) -> Result<(), Refusal>;
    /// Begins to send new subscriptions away and to be not ready, as SIGTERM does but without ending; or takes that back.
    fn drain(&self, begin: bool) -> Result<(), Refusal>;
    /// Whether the journal can keep changes; while it cannot, the server is not ready.
    fn can_keep(&self) -> bool {
        true
    }
    /// What there still is.
    fn left(&self) -> Left;
    /// A request of the API was refused: it goes into the book of refusals.
    fn note_refusal(&self, refusal: &ApiRefusal<'_>);
    /// A token from this address was wrong: how long the answer is to be held back.
    fn wrong_token(&self, from: IpAddr) -> Duration;
    /// Those that were refused lately in an account, or in none, the latest first: no more than `most`, none whose number is above
    /// `from`.
    fn refusals(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow>;
}
