//! Interface between the notifier and the HTTP API: commands and queries in terms of the domain, without SIP.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::explain::Explain;
use super::explain::report::NotifierStats;
use super::refusals::{ApiRefusal, RefusalRow};
use crate::capture;
use crate::directory::AccountNo;
use crate::journal;
use crate::package::PackageId;
use crate::presence::state::CallState;
use crate::transport;

/// A subscription, as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// User part of the presentity, lower case.
    pub user: String,
    /// Event package.
    pub package: PackageId,
    /// Call-ID of the dialog.
    pub call_id: String,
    /// `user@realm` of the watcher as its SUBSCRIBE wrote it, without scheme.
    pub from: String,
    /// Lifetime that the latest SUBSCRIBE was granted (seconds).
    pub expires: u32,
    /// Time of the latest SUBSCRIBE (Unix seconds).
    pub subscribed_at: u64,
    /// The last NOTIFY with a final response or a timeout; none before the first.
    pub last: Option<LastNotify>,
    /// User-Agent of the latest SUBSCRIBE that had one.
    pub user_agent: Option<String>,
    /// First Route of the NOTIFYs, if any.
    pub proxy_route: Option<String>,
}

/// The last NOTIFY of a subscription that was answered or timed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastNotify {
    /// CSeq number.
    pub cseq: u32,
    /// Status of the final response; 408 if none came in time.
    pub reply: u16,
    /// Body of the NOTIFY.
    pub body: String,
}

/// A publication, as the API lists it (`include_presentity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationRecord {
    /// User part of the presentity, lower case.
    pub user: String,
    /// Event package.
    pub package: PackageId,
    /// Entity-tag (RFC 3903).
    pub etag: String,
    /// Current document of the presentity in that package, as a watcher would receive it with version 0.
    pub body: String,
}

/// One page of a long list. Lists are read in pages, so that no caller has to hold a whole one in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListingPage<T> {
    /// The records, ordered by user, event package and key: the Call-ID of a subscription, the entity-tag of a
    /// publication. Of records that are equal in all three, only the newest is listed.
    pub records: Vec<T>,
    /// Start of the next page; none after the last page.
    pub next: Option<PageStart>,
}

/// Start of a page in a long list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageStart {
    /// Lower bound: no user that sorts before this one is listed.
    pub user: String,
    /// For this user, only records after this event package and key are listed.
    pub behind: Option<(PackageId, String)>,
}

/// Error of a command of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A configured limit is reached. Nothing was changed.
    #[error("the limit of {limit} ({key}) is reached")]
    LimitReached {
        /// Configuration key of the limit.
        key: &'static str,
        /// Value of the limit.
        limit: usize,
    },
    /// The journal could not write the change: the disk is full or broken.
    #[error("the change could not be written to disk, so it may not survive a restart; nothing was acknowledged")]
    NotKept,
    /// The server is shutting down.
    #[error("the server is stopping; start it again to take new work")]
    Stopping,
}

/// Remaining work of a server that drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainStatus {
    /// True while new subscriptions are refused.
    pub draining: bool,
    /// NOTIFYs that wait for a response from phones that are known to respond.
    pub unanswered: usize,
    /// Number of subscriptions. They are still refreshed and notified.
    pub subscriptions: usize,
    /// Time at which the last subscription expires unless refreshed (Unix milliseconds); none if there is no
    /// subscription.
    pub last_expires_at: Option<u64>,
    /// Number of publications.
    pub publications: usize,
}

/// Outcomes of a DNS lookup: the name has addresses, it has none, the DNS did not respond in time, there is no DNS
/// server.
pub const LOOKUPS: [&str; 4] = ["found", "unknown", "timeout", "no_server"];

/// Statistics of the whole server, by module.
#[derive(Clone, Debug, Default)]
pub struct ServerStats {
    /// Start time of the server (Unix milliseconds).
    pub up_since_ms: u64,
    /// Statistics of the notifier.
    pub numbers: NotifierStats,
    /// Statistics of sockets and connections.
    pub transport: transport::Stats,
    /// Statistics of the journal; none without a journal.
    pub journal: Option<journal::Stats>,
    /// Number of DNS lookups that are queued.
    pub names_waiting: usize,
    /// Number of DNS lookups in progress.
    pub names_under_way: usize,
    /// Number of finished DNS lookups, by [`LOOKUPS`].
    pub lookups: [u64; LOOKUPS.len()],
    /// Statistics of the HEP capture; none without a capture server.
    pub capture: Option<capture::Stats>,
}

/// Commands and queries that the API may send to the notifier. Every call is quick, and may be made from any thread.
pub trait Control: Explain {
    /// One page of the subscriptions of an account, of one package or of all. A page is bounded in records and in
    /// octets.
    fn subscriptions(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<SubscriptionRecord>;
    /// One page of the publications of an account, of one package or of all. A page is bounded in records and in
    /// octets.
    fn publications(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<PublicationRecord>;
    /// Removes all calls and the manual state of each presentity, and sends every watcher one fresh NOTIFY. `request`
    /// is the id of the API request, for the reports of [`Explain`].
    fn reset(&self, account: AccountNo, users: &[String], request: &str) -> Result<(), ControlError>;
    /// Sets the manual state of each presentity; `Terminated` removes it. `request` is the id of the API request.
    fn set(&self, account: AccountNo, users: &[String], state: CallState, request: &str) -> Result<(), ControlError>;
    /// Begins or ends draining. A draining server refuses new subscriptions and is not ready. SIGTERM does the same,
    /// and then ends the process.
    fn drain(&self, begin: bool) -> Result<(), ControlError>;
    /// Returns true if the journal can write changes. While it cannot, the server is not ready.
    fn can_keep(&self) -> bool {
        true
    }
    /// Remaining subscriptions, publications and NOTIFYs in flight.
    fn left(&self) -> DrainStatus;
    /// Records a refused API request in the book of refusals.
    fn note_refusal(&self, refusal: &ApiRefusal<'_>);
    /// Records a wrong token from this address, and returns the delay of the response.
    fn wrong_token(&self, from: IpAddr) -> Duration;
    /// The requests that were refused lately, the latest first: in one account, or (with `None`) those that belong to
    /// no account. Returns at most `most`, none with a number above `from`.
    fn refusals(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow>;
}
