//! The domain: presentities, the state that is known of each, and its watchers.
//!
//! A *presentity* owns everything that must change together: the calls, publications and manual state that its
//! documents are composed from, and the subscriptions of its watchers. One lock per presentity gives one order of
//! events (rule 3). Input is decoded requests as plain values; output is changed values, on which the notifier acts.
//! Nothing here knows sockets, clocks (time comes in as [`Tick`]), HTTP, or the form of a document on the wire.

pub mod aor;
pub mod calls;
pub mod device;
pub mod dialog_filter;
pub mod intern;
mod number_pages;
pub mod presentity;
mod presentity_index;
pub mod publication;
pub mod state;
pub mod subscription;
pub mod table;
pub mod vendor;

pub use aor::{AccountNo, Aor, canonical_user};

/// Unix time in milliseconds, the only time that the domain knows. Its clock never goes back while the server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tick(pub u64);

impl Tick {
    /// Returns the time `ms` milliseconds later.
    pub fn after(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

/// Event package, as an index into the registry of `package/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackageId(pub u8);

/// Number of event packages that a presentity has room for.
pub const MAX_PACKAGES: usize = 4;
