//! Well-formedness of XML. quick-xml finds the markup; this module checks what it leaves open, and builds the tree.
//! `tests/body_schemas.rs` compares the result with libxml2.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::errors::{Error, IllFormedError};
use quick_xml::escape::{EscapeError, resolve_xml_entity};
use quick_xml::events::attributes::Attributes;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::name::{LocalName, Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use super::{Attribute, Document, MAX_DEPTH, MAX_ELEMENTS, MAX_NAMESPACES, Node, Vocabulary, is_char};

/// Blanks of XML (XML 1.0 section 2.3).
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

pub(super) const BAD_CHARACTER: &str = "it refers to a character that XML forbids";
pub(super) const OUTSIDE: &str = "there is text outside the root element";

/// Error that ends the parsing of a document.
pub(super) enum XmlError {
    /// The document is not well-formed, for this reason.
    Why(&'static str),
    /// The document exceeds this limit of this unit.
    TooMuch(usize, &'static str),
}

impl From<Error> for XmlError {
    fn from(error: Error) -> Self {
        Self::Why(match error {
            Error::Syntax(_) => "it ends inside its markup",
            Error::IllFormed(IllFormedError::MismatchedEndTag { .. } | IllFormedError::UnmatchedEndTag(_)) => {
                "an end tag does not match its start tag"
            }
            Error::IllFormed(IllFormedError::DoubleHyphenInComment) => "a comment holds two hyphens",
            Error::IllFormed(IllFormedError::MissingDeclVersion(_) | IllFormedError::UnknownVersion) => {
                "its XML declaration has no known version"
            }
            Error::IllFormed(IllFormedError::MissingDoctypeName) => "it has a document type declaration",
            Error::IllFormed(_) => "a reference does not end with a semicolon",
            Error::InvalidAttr(_) => "an attribute is not well-formed or there twice",
            Error::Escape(EscapeError::InvalidCharRef(_)) => BAD_CHARACTER,
            Error::Escape(_) => "it refers to an entity that XML does not define",
            Error::Namespace(quick_xml::name::NamespaceError::TooManyBindings(_)) => {
                return Self::TooMuch(MAX_NAMESPACES, "namespace declarations");
            }
            Error::Namespace(_) => "a reserved namespace prefix is declared anew",
            Error::Encoding(_) | Error::Io(_) => "it is not UTF-8",
        })
    }
}

/// Parses a document. Its characters have been checked.
pub(super) fn build(source: &str) -> Result<Document<'_>, XmlError> {
    Builder::default().build(source)
}

#[derive(Default)]
struct Builder<'a> {
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute>,
    /// Indices of the nodes that are open, outermost first.
    open: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn build(mut self, source: &'a str) -> Result<Document<'a>, XmlError> {
        let mut reader = NsReader::from_str(source);
        reader.config_mut().check_comments = true;
        reader.resolver_mut().set_max_namespace_bindings(MAX_NAMESPACES);
        loop {
            let at_start = reader.buffer_position() == 0;
            match reader.read_event()? {
                Event::Start(tag) => self.start(&reader, &tag)?,
                Event::Empty(tag) => {
                    self.start(&reader, &tag)?;
                    self.end();
                }
                Event::End(_) => self.end(),
                Event::Text(text) if text.contains("]]>") => return Err(XmlError::Why("its text holds a bare ]]>")),
                Event::Text(text) => self.text(text.into_inner())?,
                Event::CData(_) if self.open.is_empty() => return Err(XmlError::Why(OUTSIDE)),
                Event::CData(text) => self.text(text.into_inner())?,
                Event::GeneralRef(reference) => self.text(resolve(&reference)?)?,
                Event::Decl(declaration) if at_start => check_declaration(&declaration)?,
                Event::Decl(_) => return Err(XmlError::Why("its XML declaration is not at the very start")),
                Event::PI(instruction) if is_name(instruction.target()) => (),
                Event::PI(_) => return Err(XmlError::Why("a processing instruction has no proper name")),
                Event::Comment(_) => (),
                Event::DocType(_) => return Err(XmlError::Why("it has a document type declaration")),
                Event::Eof => break,
            }
        }
        if !self.open.is_empty() {
            return Err(XmlError::Why("it ends before its elements do"));
        }
        if self.nodes.is_empty() {
            return Err(XmlError::Why("it has no root element"));
        }
        Ok(Document { nodes: self.nodes, attributes: self.attributes })
    }

    fn start(&mut self, reader: &NsReader<&'a [u8]>, tag: &BytesStart<'_>) -> Result<(), XmlError> {
        if self.open.is_empty() && !self.nodes.is_empty() {
            return Err(XmlError::Why("it has a second root element"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(XmlError::TooMuch(MAX_DEPTH, "levels of elements"));
        }
        if self.nodes.len() == MAX_ELEMENTS {
            return Err(XmlError::TooMuch(MAX_ELEMENTS, "elements"));
        }
        if !is_name(tag.name().as_ref()) {
            return Err(XmlError::Why("an element has no proper name"));
        }
        let (vocabulary, name) = vocabulary(reader.resolver().resolve_element(tag.name()))?;
        if !are_apart(tag.attributes_raw()) {
            return Err(XmlError::Why("there is no blank between two attributes"));
        }
        let first = self.attributes.len();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(Error::from)?;
            if !is_name(attribute.key.as_ref()) {
                return Err(XmlError::Why("an attribute has no proper name"));
            }
            if attribute.value.contains('<') {
                return Err(XmlError::Why("an attribute holds a bare <"));
            }
            let value = attribute.normalized_value_with(XmlVersion::Explicit1_0, 1, resolve_xml_entity)?;
            if !value.chars().all(is_char) {
                return Err(XmlError::Why(BAD_CHARACTER));
            }
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (whose, name) = match attribute.key.prefix() {
                None => (Vocabulary::Plain, attribute.key.local_name()),
                Some(_) => self::vocabulary(reader.resolver().resolve_attribute(attribute.key))?,
            };
            self.attributes.push(Attribute { vocabulary: whose, name: name.into_inner().into(), value: value.into() });
        }
        self.open.push(self.nodes.len());
        self.nodes.push(Node {
            vocabulary,
            name: name.into_inner().into(),
            attributes: first..self.attributes.len(),
            text: Cow::Borrowed(""),
            end: 0,
        });
        Ok(())
    }

    fn end(&mut self) {
        // quick-xml has matched the end tag to a start tag, so a node is open.
        if let Some(index) = self.open.pop() {
            self.nodes[index].end = self.nodes.len();
        }
    }

    fn text(&mut self, piece: Cow<'a, str>) -> Result<(), XmlError> {
        let Some(&index) = self.open.last() else {
            // A blank written as a character reference is text as well, which is not allowed here.
            let blank = matches!(piece, Cow::Borrowed(_)) && piece.chars().all(|c| BLANKS.contains(&c));
            return if blank { Ok(()) } else { Err(XmlError::Why(OUTSIDE)) };
        };
        let text = &mut self.nodes[index].text;
        // Blanks between child elements come in pieces and are not copied. Only leading blanks are dropped, so that a
        // long run of blanks is not searched again for every piece after it.
        if text.trim_start().is_empty() {
            *text = piece;
        } else {
            text.to_mut().push_str(&piece);
        }
        Ok(())
    }
}

/// Checks the XML declaration. It may name any encoding that is a superset of ASCII: some publishers always write
/// `ISO-8859-1`, but send ASCII or UTF-8 (invalid UTF-8 was rejected before).
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
    const ENCODINGS: [&str; 4] = ["UTF-8", "US-ASCII", "ASCII", "ISO-8859-1"];
    let version = declaration.version()?;
    let minor = version.strip_prefix("1.").unwrap_or_default();
    if minor.is_empty() || !minor.bytes().all(|b| b.is_ascii_digit()) {
        return Err(XmlError::Why("its XML declaration has no known version"));
    }
    let attributes = &declaration["xml".len()..];
    let mut parts = ["version", "encoding", "standalone"].into_iter();
    for attribute in Attributes::new(attributes, 0) {
        let attribute = attribute.map_err(Error::from)?;
        let name = attribute.key.into_inner();
        if !parts.any(|part| part == name) || !are_apart(attributes) {
            return Err(XmlError::Why("its XML declaration is not well-formed"));
        }
        if name == "encoding" && !ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(&attribute.value)) {
            return Err(XmlError::Why("it declares an encoding other than UTF-8, US-ASCII and ISO-8859-1"));
        }
        if name == "standalone" && !matches!(&*attribute.value, "yes" | "no") {
            return Err(XmlError::Why("its XML declaration is not well-formed"));
        }
    }
    Ok(())
}

/// Returns true if a blank or nothing follows each value among these attributes. quick-xml does not check that.
fn are_apart(attributes: &str) -> bool {
    let mut rest = attributes;
    while let Some(open) = rest.find(['"', '\'']) {
        let (quote, value) = rest[open..].split_at(1);
        // quick-xml has checked that the closing quote exists.
        rest = value.split_once(quote).map_or("", |(_, after)| after);
        if !rest.is_empty() && !rest.starts_with(BLANKS) {
            return false;
        }
    }
    true
}

/// Text of a reference: a character by its number, or one of the five entities of XML.
fn resolve(reference: &BytesRef<'_>) -> Result<Cow<'static, str>, XmlError> {
    match reference.resolve_char_ref()? {
        Some(c) if is_char(c) => Ok(Cow::Owned(c.into())),
        Some(_) => Err(XmlError::Why(BAD_CHARACTER)),
        None => match resolve_xml_entity(reference) {
            Some(text) => Ok(Cow::Owned(text.to_owned())),
            None => Err(XmlError::Why("it refers to an entity that XML does not define")),
        },
    }
}

fn vocabulary<'n>(
    (namespace, name): (ResolveResult<'_>, LocalName<'n>),
) -> Result<(Vocabulary, LocalName<'n>), XmlError> {
    match namespace {
        ResolveResult::Bound(Namespace(namespace)) => Ok((Vocabulary::of(namespace), name)),
        ResolveResult::Unbound => Ok((Vocabulary::Foreign, name)),
        ResolveResult::Unknown(_) => Err(XmlError::Why("it uses a namespace prefix that it does not declare")),
    }
}

/// Returns true for a name with at most one prefix. Any character outside ASCII counts as a letter, because such a
/// name is foreign to us and is not processed further.
fn is_name(name: &str) -> bool {
    let (prefix, local) = name.split_once(':').map_or((None, name), |(prefix, local)| (Some(prefix), local));
    let is_part = |part: &str| {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        part.starts_with(letter) && part.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-' || c == '.')
    };
    prefix.is_none_or(is_part) && is_part(local)
}
