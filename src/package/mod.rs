//! Event packages: parsing and writing the bodies of each package.
//!
//! Input is the bodies of PUBLISH requests and the composed state ([`ComposedState`]) of presentities; output is published
//! state ([`PublishedState`]) and bodies for NOTIFY. A new package needs one file and one line in [`REGISTRY`], nothing else.
//! Nothing here knows requests, subscriptions, sockets or time. Bodies come from unverified sources: size, depth and
//! number of elements are bounded, no entity that they define is expanded, and no body can cause a panic or a stall.
//!
//! A written body has two parts, so that all watchers of a presentity share most of it: the *tail*, written once per
//! revision, and the head, which holds the `version` and `entity` of each watcher.

use crate::presence::state::{ComposedState, PublishedState};

pub mod dialog_info;
pub mod message_summary;
pub mod pidf;
mod xml;

/// Limit on a body (octets). A larger one is rejected without parsing.
pub const MAX_BODY: usize = 64 * 1024;

/// Reason why a body was rejected. The text is sent to the publisher, for the person who debugs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than [`MAX_BODY`], or beyond another limit such as depth or number of elements.
    #[error("the body exceeds the limit of {limit} {unit}")]
    TooMuch {
        /// Limit that was exceeded.
        limit: usize,
        /// Unit of the limit.
        unit: &'static str,
    },
    /// Not well-formed, or not the kind of document that its Content-Type announced.
    #[error("the body is not well-formed {what}: {why}")]
    Malformed {
        /// Kind of document.
        what: &'static str,
        /// Error, in plain words.
        why: &'static str,
    },
}

/// An event package, with the parser and the writer of its bodies.
pub trait EventPackage: Sync {
    /// Name in the Event header. Compared byte by byte (RFC 6665 section 8.2.1).
    fn name(&self) -> &'static str;
    /// Content-Type of its bodies, in lower case and without parameters.
    fn content_type(&self) -> &'static str;
    /// Parses the body of a PUBLISH.
    fn read(&self, body: &[u8]) -> Result<PublishedState, BodyError>;
    /// Appends the part of the body that all watchers of the presentity share.
    fn write_tail(&self, picture: &ComposedState<'_>, tail: &mut String);
    /// Appends the head, which stands in front of the tail and is different for each watcher.
    ///
    /// `version` counts the documents of the subscription. `entity` is the URI that the watcher subscribed to.
    fn write_head(&self, version: u32, entity: &str, head: &mut String);
    /// Complete body: head and tail.
    fn body(&self, version: u32, entity: &str, tail: &str) -> String {
        let mut body = String::with_capacity(tail.len() + 256);
        self.write_head(version, entity, &mut body);
        body.push_str(tail);
        body
    }
}

/// All packages. A [`PackageId`] is an index into this table.
pub static REGISTRY: [&dyn EventPackage; 3] = [&dialog_info::DialogInfo, &pidf::Pidf, &message_summary::MessageSummary];

pub use crate::presence::PackageId;

/// Finds a package by the name in an Event header.
pub fn by_name(name: &str) -> Option<PackageId> {
    REGISTRY.iter().position(|p| p.name() == name).map(|i| PackageId(i as u8))
}

/// Package with this id.
pub fn get(id: PackageId) -> &'static dyn EventPackage {
    REGISTRY[id.0 as usize]
}
