//! Presence package (RFC 3856): whether a person can be reached, and the person's activities. Documents are PIDF (RFC
//! 3863) with the person of the data model (RFC 4479) and the activities of RPID (RFC 4480).
//!
//! A watcher of presence sees the calls, too. A live call sets the basic status to open, the note of the tuple to its
//! state, and comes first among the activities. Watchers compare prefixes as text (baresip with a regular
//! expression), so ours are exactly `dm` and `rpid`, and the `basic` element holds no blanks.

use super::xml::{self, Document, Element, Vocabulary};
use super::{BodyError, EventPackage};
use crate::presence::state::{Basic, CallReport, CallState, ComposedState, Direction, PersonState, PublishedState};

/// Limit on the activities of a person. RFC 4480 defines 26, and a person has far fewer at a time.
pub const MAX_ACTIVITIES: usize = 16;
/// Limit on the name of an activity (octets). The longest of RFC 4480 has 17.
const MAX_ACTIVITY_NAME: usize = 32;

const WHAT: &str = "PIDF document";

/// The presence package.
#[derive(Debug)]
pub struct Pidf;

impl EventPackage for Pidf {
    fn name(&self) -> &'static str {
        "presence"
    }

    fn content_type(&self) -> &'static str {
        "application/pidf+xml"
    }

    fn read(&self, body: &[u8]) -> Result<PublishedState, BodyError> {
        let document = Document::read(body, WHAT)?;
        read_person(document.root()).map(PublishedState::PersonState)
    }

    fn write_tail(&self, picture: &ComposedState<'_>, tail: &mut String) {
        let call = Call::of(picture);
        let person = &picture.person;
        let open = call.is_some() || person.basic != Some(Basic::Closed);
        let note = match (call, &person.note) {
            (Some(call), _) => call.note(),
            (None, Some(published)) => published,
            (None, None) if open => "Available",
            (None, None) => "Offline",
        };
        tail.push_str("\n<tuple id=\"t1\"><status><basic>");
        tail.push_str(if open { "open" } else { "closed" });
        tail.push_str("</basic></status><contact>");
        xml::escape(picture.uri, tail);
        tail.push_str("</contact><note>");
        xml::escape(note, tail);
        tail.push_str("</note></tuple>\n<dm:person id=\"p1\">");
        write_activities(call, &person.activities, tail);
        if let Some(note) = &person.note {
            tail.push_str("<dm:note>");
            xml::escape(note, tail);
            tail.push_str("</dm:note>");
        }
        tail.push_str("</dm:person>\n</presence>\n");
    }

    fn write_head(&self, _: u32, entity: &str, head: &mut String) {
        head.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence");
        xml::attribute("xmlns", xml::PIDF_NS, head);
        xml::attribute("xmlns:dm", xml::DATA_MODEL_NS, head);
        xml::attribute("xmlns:rpid", xml::RPID_NS, head);
        xml::attribute("entity", entity, head);
        head.push('>');
    }
}

fn malformed(why: &'static str) -> BodyError {
    BodyError::Malformed { what: WHAT, why }
}

fn read_person(root: Element<'_>) -> Result<PersonState, BodyError> {
    if !root.is(Vocabulary::Pidf, "presence") {
        return Err(malformed("its root element is not presence in the namespace of RFC 3863"));
    }
    let mut person = PersonState::default();
    let (mut tuple_note, mut document_note) = (None, None);
    for element in root.children() {
        if element.is(Vocabulary::Pidf, "tuple") {
            if let Some(basic) = read_basic(element)? {
                // The person is open if any tuple is open.
                person.basic = if person.basic == Some(Basic::Open) { person.basic } else { Some(basic) };
            }
            if tuple_note.is_none() {
                tuple_note = first_note(element)?;
            }
        } else if element.is(Vocabulary::DataModel, "person") && is_understood(element)? {
            if person.note.is_none() {
                person.note = first_note(element)?;
            }
        } else if element.is(Vocabulary::Pidf, "note") && document_note.is_none() {
            document_note = element.text()?;
        }
    }
    read_activities(root, &mut person.activities)?;
    person.note = person.note.or(tuple_note).or(document_note);
    Ok(person)
}

fn read_basic(tuple: Element<'_>) -> Result<Option<Basic>, BodyError> {
    let Some(status) = tuple.child(Vocabulary::Pidf, "status") else { return Ok(None) };
    let Some(basic) = status.child(Vocabulary::Pidf, "basic") else { return Ok(None) };
    match basic.text()? {
        None => Ok(None),
        Some(word) if word.eq_ignore_ascii_case("open") => Ok(Some(Basic::Open)),
        Some(word) if word.eq_ignore_ascii_case("closed") => Ok(Some(Basic::Closed)),
        Some(_) => Err(malformed("a basic status is neither open nor closed")),
    }
}

fn first_note(element: Element<'_>) -> Result<Option<Box<str>>, BodyError> {
    for child in element.children() {
        let ours = matches!(child.vocabulary(), Vocabulary::Pidf | Vocabulary::DataModel);
        if ours
            && child.name() == "note"
            && let Some(note) = child.text()?
        {
            return Ok(Some(note));
        }
    }
    Ok(None)
}

/// Collects the activities wherever publishers put them: in the person, in a tuple or in its status.
///
/// The recursion is as deep as the document, which is limited by the XML parser.
fn read_activities(element: Element<'_>, activities: &mut Vec<Box<str>>) -> Result<(), BodyError> {
    for child in element.children() {
        if child.vocabulary() == Vocabulary::Foreign || !is_understood(child)? {
            continue;
        }
        if !child.is(Vocabulary::Rpid, "activities") {
            read_activities(child, activities)?;
            continue;
        }
        for activity in child.children().filter(|activity| activity.vocabulary() == Vocabulary::Rpid) {
            let name = activity.name();
            let new = is_activity(name) && activities.iter().all(|known| **known != *name);
            if new && activities.len() < MAX_ACTIVITIES {
                activities.push(name.into());
            }
        }
    }
    Ok(())
}

/// Returns false for an extension with a part that must be understood and is not; the extension is then ignored as a
/// whole (RFC 3863 section 4.2). PIDF's own elements are not extensions.
fn is_understood(element: Element<'_>) -> Result<bool, BodyError> {
    if element.vocabulary() == Vocabulary::Pidf {
        return Ok(true);
    }
    for child in element.children().filter(|child| child.vocabulary() == Vocabulary::Foreign) {
        if matches!(child.attribute_of(Vocabulary::Pidf, "mustUnderstand")?.as_deref(), Some("1" | "true")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns true if this can be the name of an activity. Those of RFC 4480 section 3.2 consist of lower-case letters
/// and hyphens.
fn is_activity(name: &str) -> bool {
    name.len() <= MAX_ACTIVITY_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && name != "note"
}

/// State of a person that follows from calls and the manual state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Dialling,
    Ringing,
    Talking,
}

impl Call {
    /// Returns the state that matters most. Talking comes before ringing here, unlike for a lamp: presence shows what
    /// the person does, and it has no pickup. A person who dials is on the phone as well; only an incoming call
    /// rings.
    fn of(picture: &ComposedState<'_>) -> Option<Self> {
        let of_call = |call: &CallReport| match (call.state, call.direction) {
            (CallState::Terminated, _) => None,
            (CallState::Confirmed, _) => Some(Self::Talking),
            (CallState::Early, Some(Direction::Recipient) | None) => Some(Self::Ringing),
            _ => Some(Self::Dialling),
        };
        let manual = picture.manual.map(|state| match state {
            CallState::Confirmed => Self::Talking,
            CallState::Early => Self::Ringing,
            _ => Self::Dialling,
        });
        picture.calls.iter().filter_map(|call| of_call(call)).chain(manual).max()
    }

    fn note(self) -> &'static str {
        match self {
            Self::Talking | Self::Dialling => "On the phone",
            Self::Ringing => "Ringing",
        }
    }

    fn activity(self) -> &'static str {
        match self {
            Self::Talking | Self::Dialling => "on-the-phone",
            Self::Ringing => "busy",
        }
    }
}

fn write_activities(call: Option<Call>, published: &[Box<str>], out: &mut String) {
    let call = call.map(Call::activity);
    let mut names: Vec<&str> = call.into_iter().collect();
    for name in published {
        if is_activity(name) && !names.contains(&&**name) {
            names.push(name);
        }
    }
    // The schema allows `unknown` only on its own, and beside another activity it has no meaning.
    if names.len() > 1 {
        names.retain(|&name| name != "unknown");
    }
    if names.is_empty() {
        return;
    }
    out.push_str("<rpid:activities>");
    for name in names {
        out.push_str("<rpid:");
        out.push_str(name);
        out.push_str("/>");
    }
    out.push_str("</rpid:activities>");
}

#[cfg(test)]
mod tests;
