//! The event packages: for each, how its body is read into facts and written from them.
//!
//! In flow bytes of PUBLISH bodies and [`ComposedState`]s of presentities; out flow [`PublishedState`]s and bodies for NOTIFY.
//! One file per package and one line in [`REGISTRY`]: that is all that a new package needs. The rooms here know
//! nothing of requests, subscriptions, sockets or time. Bodies come from strangers: they are bounded in size, depth
//! and number of elements, no entity of theirs is expanded, and nothing in them can make us panic or stall.
//!
//! A written body has two parts, so that all watchers of a presentity share its bulk: the *tail*, written once per
//! revision, and the head, in which each watcher has its own `version` and `entity`.

use crate::presence::state::{ComposedState, PublishedState};

pub mod dialog_info;
pub mod message_summary;
pub mod pidf;
mod xml;

/// A body larger than this is refused unread (octets).
pub const MAX_BODY: usize = 64 * 1024;

/// Why a body was refused. The texts go to the publisher, who is a person or is debugged by one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than [`MAX_BODY`], deeper or with more elements than is sensible.
    #[error("the body exceeds the limit of {limit} {unit}")]
    TooMuch {
        /// The limit that was passed.
        limit: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// Not well-formed, or not the document that its Content-Type promised.
    #[error("the body is not well-formed {what}: {why}")]
    Malformed {
        /// The kind of document.
        what: &'static str,
        /// What is wrong, in our words.
        why: &'static str,
    },
}

/// How one event package reads and writes its bodies.
pub trait EventPackage: Sync {
    /// Name in the Event header; compared byte by byte (RFC 6665 section 8.2.1).
    fn name(&self) -> &'static str;
    /// Content-Type of its bodies, in lower case and without parameters.
    fn content_type(&self) -> &'static str;
    /// Reads the body of a PUBLISH.
    fn read(&self, body: &[u8]) -> Result<PublishedState, BodyError>;
    /// Appends the part of the body that all watchers of the presentity share.
    fn write_tail(&self, picture: &ComposedState<'_>, tail: &mut String);
    /// Appends what stands in front of the tail, which is the watcher's own.
    ///
    /// `version` counts the documents of the subscription, `entity` is the URI that the watcher subscribed to.
    fn write_head(&self, version: u32, entity: &str, head: &mut String);
    /// A whole body.
    fn body(&self, version: u32, entity: &str, tail: &str) -> String {
        let mut body = String::with_capacity(tail.len() + 256);
        self.write_head(version, entity, &mut body);
        body.push_str(tail);
        body
    }
}

/// Every package there is; a [`PackageId`] is an index into it.
pub static REGISTRY: [&dyn EventPackage; 3] = [&dialog_info::DialogInfo, &pidf::Pidf, &message_summary::MessageSummary];

pub use crate::presence::PackageId;

/// Looks a package up by the name in an Event header.
pub fn by_name(name: &str) -> Option<PackageId> {
    REGISTRY.iter().position(|p| p.name() == name).map(|i| PackageId(i as u8))
}

/// The package with this id.
pub fn get(id: PackageId) -> &'static dyn EventPackage {
    REGISTRY[id.0 as usize]
}
