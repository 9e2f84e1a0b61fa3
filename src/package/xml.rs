//! XML for the event packages: parses untrusted documents into a small tree, and writes our own safely.
//!
//! Parsing: quick-xml finds the markup, and `grammar` checks what quick-xml leaves open: one root, declared prefixes,
//! legal names and characters, only blanks around the root. Only the five entities of XML itself are known, a DOCTYPE
//! is rejected, and depth, elements and lengths have limits. The tree is flat (one vector, in document order), so
//! that readers need not care about the order in which a dialect puts its elements, and no function here recurses.
//!
//! Writing: two functions append to the caller's string and escape all that could break the markup.

use std::borrow::Cow;
use std::ops::Range;

use super::{BodyError, MAX_BODY};

mod grammar;

use grammar::XmlError;

/// Limit on the nesting of elements. Our vocabularies need 5; the rest is for foreign extensions.
pub(super) const MAX_DEPTH: usize = 32;
/// Limit on the elements of a document. 64 kB of the shortest dialogs or tuples hold this many, so no document is
/// rejected for the number of its calls.
pub(super) const MAX_ELEMENTS: usize = 4096;
/// Limit on a text or attribute value that is stored (octets). No URI, name or note of a phone is longer, and every
/// watcher is sent it. Values that are not stored, such as a session description, have no limit of their own.
pub(super) const MAX_TEXT: usize = 1024;
/// Limit on namespace declarations in force at one place. Each costs a comparison per name.
const MAX_NAMESPACES: usize = 64;

/// The namespace of dialog-info (RFC 4235 section 4.4).
pub(super) const DIALOG_INFO_NS: &str = "urn:ietf:params:xml:ns:dialog-info";
/// The namespace of PIDF (RFC 3863 section 4.1.1).
pub(super) const PIDF_NS: &str = "urn:ietf:params:xml:ns:pidf";
/// The namespace of the data model (RFC 4479).
pub(super) const DATA_MODEL_NS: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// The namespace of RPID (RFC 4480).
pub(super) const RPID_NS: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// Vocabulary of an element or attribute: the namespace that defines its name.
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
    /// None, for an attribute without a prefix. Its element decides its meaning.
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

/// Parsed document, well-formed and within the limits.
#[derive(Debug)]
pub(super) struct Document<'a> {
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Node<'a> {
    vocabulary: Vocabulary,
    name: Box<str>,
    /// Range of its attributes in [`Document::attributes`].
    attributes: Range<usize>,
    /// Text of the element without that of its children. Leading blanks may be missing.
    text: Cow<'a, str>,
    /// Index of the first node that is not inside this one.
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
    /// Parses `body`. `what` names the kind of document in errors.
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
            XmlError::Why(why) => malformed(why),
            XmlError::TooMuch(limit, unit) => BodyError::TooMuch { limit, unit },
        })
    }

    /// Root element.
    pub(super) fn root(&self) -> Element<'_> {
        Element { document: self, index: 0 }
    }
}

impl<'d> Element<'d> {
    fn node(self) -> &'d Node<'d> {
        &self.document.nodes[self.index]
    }

    /// Name without prefix.
    pub(super) fn name(self) -> &'d str {
        &self.node().name
    }

    /// Vocabulary of the name.
    pub(super) fn vocabulary(self) -> Vocabulary {
        self.node().vocabulary
    }

    /// Returns true if it is this element.
    pub(super) fn is(self, vocabulary: Vocabulary, name: &str) -> bool {
        self.vocabulary() == vocabulary && self.name() == name
    }

    /// Child elements, in document order.
    pub(super) fn children(self) -> impl Iterator<Item = Element<'d>> {
        let (document, end) = (self.document, self.node().end);
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(Element { document, index: next })?;
            next = child.node().end;
            Some(child)
        })
    }

    /// Child elements with this name.
    pub(super) fn named(self, vocabulary: Vocabulary, name: &'static str) -> impl Iterator<Item = Element<'d>> {
        self.children().filter(move |child| child.is(vocabulary, name))
    }

    /// First child element with this name.
    pub(super) fn child(self, vocabulary: Vocabulary, name: &'static str) -> Option<Element<'d>> {
        self.named(vocabulary, name).next()
    }

    /// Text in one line, without blanks around it; none if it is empty.
    pub(super) fn text(self) -> Result<Option<Box<str>>, BodyError> {
        kept(&self.node().text)
    }

    /// Value of the attribute without prefix, treated like [`Element::text`].
    pub(super) fn attribute(self, name: &str) -> Result<Option<Box<str>>, BodyError> {
        self.attribute_of(Vocabulary::Plain, name)
    }

    /// Value of the attribute of a vocabulary, treated like [`Element::text`].
    pub(super) fn attribute_of(self, vocabulary: Vocabulary, name: &str) -> Result<Option<Box<str>>, BodyError> {
        let attributes = &self.document.attributes[self.node().attributes.clone()];
        let found = attributes.iter().find(|a| a.vocabulary == vocabulary && &*a.name == name);
        found.map_or(Ok(None), |a| kept(&a.value))
    }
}

/// Stored form of an untrusted text: one line without blanks around it. A line break inside could break a log line or
/// a header that the text is written to.
fn kept(text: &str) -> Result<Option<Box<str>>, BodyError> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        return Err(BodyError::TooMuch { limit: MAX_TEXT, unit: "octets in one text or attribute" });
    }
    Ok((!text.is_empty()).then(|| text.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ").into()))
}

/// Returns true if XML 1.0 section 2.2 allows this character in a document.
fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Appends `text`, escaped for an element or an attribute in double quotes. Characters that XML forbids are left out.
/// Tabs and line breaks become blanks, as an XML parser would read them in an attribute anyway.
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

/// Appends ` name="value"` with the value escaped.
pub(super) fn attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape(value, out);
    out.push('"');
}

#[cfg(test)]
mod tests;
