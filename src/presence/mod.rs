//! The domain: who is watched, what is known of them, who watches.
//!
//! A *presentity* owns everything that must change together: the calls, publications and manual state that make up
//! its picture, and the subscriptions of its watchers. One lock per presentity, one order of events (law 3).
//! In flow decoded requests as plain values; out flow changed values for the notifier to act upon. Nothing here
//! knows sockets, clocks (time comes in as [`Tick`]), HTTP, or how a document looks on the wire.

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

/// The only time that the domain knows: Unix milliseconds, by a clock that never goes back while the server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tick(pub u64);

impl Tick {
    /// So many milliseconds later.
    pub fn after(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

/// Names an event package: an index into the registry of `package/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackageId(pub u8);

/// How many packages a presentity has room for.
pub const MAX_PACKAGES: usize = 4;
