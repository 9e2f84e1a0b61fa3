//! XML as the packages need it: strangers' documents read into a small tree, our own written without surprises.
//!
//! Reading: quick-xml finds the markup, `grammar` holds it to what that leaves open: one root, declared prefixes, legal
//! names and characters, nothing but blanks around the root. No entity is known but the five of XML itself, a DOCTYPE
//! is refused, and depth, elements and lengths have limits. The tree is flat (one vector, in document order), so that
//! readers need not care in which order a dialect puts its elements, and nothing here recurses.
//!
//! Writing: two functions that append to the caller's string and let nothing through that could break the markup.

use std::borrow::Cow;
use std::ops::Range;

use super::{BodyError, MAX_BODY};

mod grammar;

use grammar::Fault;

/// How deep elements may nest. Our vocabularies need 5; the rest is for foreign extensions.
pub(super) const MAX_DEPTH: usize = 32;
/// How many elements a document may have: as many as 64 kB of the shortest dialogs or tuples hold, so that none is refused
/// for the number of its calls.
pub(super) const MAX_ELEMENTS: usize = 4096;
/// How long a text or attribute value may be that we keep (octets): no URI, name or note of a phone is longer, and
/// every watcher would be sent it. What we do not keep, such as a session description, may be as long as it likes.
pub(super) const MAX_TEXT: usize = 1024;
/// How many namespace declarations may be in force at one place; each costs a comparison per name.
const MAX_NAMESPACES: usize = 64;

/// The namespace of dialog-info (RFC 4235 section 4.4).
pub(super) const DIALOG_INFO_NS: &str = "urn:ietf:params:xml:ns:dialog-info";
/// The namespace of PIDF (RFC 3863 section 4.1.1).
pub(super) const PIDF_NS: &str = "urn:ietf:params:xml:ns:pidf";
/// The namespace of the data model (RFC 4479).
pub(super) const DATA_MODEL_NS: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// The namespace of RPID (RFC 4480).
pub(super) const RPID_NS: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// Whose words an element or attribute is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// [`DIALOG_INFO_NS`]
    DialogInfo,
    /// [`PIDF_NS`]
    Pidf,
    /// [`DATA_MODEL_NS`]
    DataModel,
    /// [`RPID_NS`]
    Rpid,
    /// An attribute without a prefix: its element decides what it means.
    Plain,
    /// Any other, or none: not understood.
    Foreign,
}

impl Vocabulary {
    fn of(namespace: &str) -> Self {
        match namespace {
            DIALOG_INFO_NS => Self::DialogInfo,
            PIDF_NS => Self::Pidf,
            DATA_MODEL_NS => Self::DataModel,
            RPID_NS => Self::Rpid,
            _ => Self::Foreign,
        }
    }
}

/// A document that has been read, well-formed and within the limits.
#[derive(Debug)]
pub(super) struct Document<'a> {
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Node<'a> {
    vocabulary: Vocabulary,
    name: Box<str>,
    /// Its attributes in [`Document::attributes`].
    attributes: Range<usize>,
    /// Its own text, without that of its children; leading blanks may be missing.
    text: Cow<'a, str>,
    /// The first node that is not inside it.
    end: usize,
}

#[derive(Debug)]
struct Attribute {
    vocabulary: Vocabulary,
    name: Box<str>,
    value: Box<str>,
}

/// An element of a [`Document`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'d> {
    document: &'d Document<'d>,
    index: usize,
}

impl<'a> Document<'a> {
    /// Reads `body`; `what` names the kind of document in errors.
    pub(super) fn read(body: &'a [u8], what: &'static str) -> Result<Self, BodyError> {
        if body.len() > MAX_BODY {
            return Err(BodyError::TooMuch { limit: MAX_BODY, unit: "octets" });
        }
        let malformed = |why| BodyError::Malformed { what, why };
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
        if !text.chars().all(is_char) {
            return Err(malformed("it holds a character that XML forbids"));
        }
        grammar::build(text).map_err(|fault| match fault {
            Fault::Why(why) => malformed(why),
            Fault::TooMuch(limit, unit) => BodyError::TooMuch { limit, unit },
        })
    }

    /// The root element.
    pub(super) fn root(&self) -> Element<'_> {
        Element { document: self, index: 0 }
    }
}

impl<'d> Element<'d> {
    fn node(self) -> &'d Node<'d> {
        &self.document.nodes[self.index]
    }

    /// The name without prefix.
    pub(super) fn name(self) -> &'d str {
        &self.node().name
    }

    /// Whose word the name is.
    pub(super) fn vocabulary(self) -> Vocabulary {
        self.node().vocabulary
    }

    /// Whether it is this element.
    pub(super) fn is(self, vocabulary: Vocabulary, name: &str) -> bool {
        self.vocabulary() == vocabulary && self.name() == name
    }

    /// The elements directly inside it, in document order.
    pub(super) fn children(self) -> impl Iterator<Item = Element<'d>> {
        let (document, end) = (self.document, self.node().end);
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(Element { document, index: next })?;
            next = child.node().end;
            Some(child)
        })
    }

    /// The elements directly inside it that have this name.
    pub(super) fn named(self, vocabulary: Vocabulary, name: &'static str) -> impl Iterator<Item = Element<'d>> {
        self.children().filter(move |child| child.is(vocabulary, name))
    }

    /// The first element directly inside it that has this name.
    pub(super) fn child(self, vocabulary: Vocabulary, name: &'static str) -> Option<Element<'d>> {
        self.named(vocabulary, name).next()
    }

    /// Its text in one line and without the blanks around it; none if nothing remains.
    pub(super) fn text(self) -> Result<Option<Box<str>>, BodyError> {
        kept(&self.node().text)
    }

    /// The value of its attribute without prefix, treated like [`Element::text`].
    pub(super) fn attribute(self, name: &str) -> Result<Option<Box<str>>, BodyError> {
        self.attribute_of(Vocabulary::Plain, name)
    }

    /// The value of its attribute of another vocabulary, treated like [`Element::text`].
    pub(super) fn attribute_of(self, vocabulary: Vocabulary, name: &str) -> Result<Option<Box<str>>, BodyError> {
        let attributes = &self.document.attributes[self.node().attributes.clone()];
        let found = attributes.iter().find(|a| a.vocabulary == vocabulary && &*a.name == name);
        found.map_or(Ok(None), |a| kept(&a.value))
    }
}

/// What is kept of a stranger's text: one line without blanks around it. A line break inside could otherwise come out
/// in a place that is made of lines, such as a log or a header.
fn kept(text: &str) -> Result<Option<Box<str>>, BodyError> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        return Err(BodyError::TooMuch { limit: MAX_TEXT, unit: "octets in one text or attribute" });
    }
    Ok((!text.is_empty()).then(|| text.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ").into()))
}

/// Whether XML 1.0 section 2.2 allows this character in a document.
fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Appends `text` so that it can stand in an element or between double quotes in an attribute. What XML forbids is
/// left out, and tabs and line breaks become blanks, which is what a reader would make of them in an attribute anyway.
pub(super) fn escape(text: &str, out: &mut String) {
    let harmless = |c: u8| (b' '..0x7f).contains(&c) & (c != b'<') & (c != b'>') & (c != b'&') & (c != b'"');
    if text.bytes().fold(true, |all, c| all & harmless(c)) {
        return out.push_str(text);
    }
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let instead = match c {
            '<' => "&lt;",
            '>' => "&gt;",
            '&' => "&amp;",
            '"' => "&quot;",
            '\t' | '\n' | '\r' => " ",
            c if is_char(c) => continue,
            _ => "",
        };
        out.push_str(&text[plain..at]);
        out.push_str(instead);
        plain = at + c.len_utf8();
    }
    out.push_str(&text[plain..]);
}

/// Appends ` name="value"`, the value escaped.
pub(super) fn attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape(value, out);
    out.push('"');
}

#[cfg(test)]
mod tests;
