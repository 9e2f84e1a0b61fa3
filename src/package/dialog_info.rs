//! Dialog package (RFC 4235): calls as dialog-info documents, which busy lamp fields use.
//!
//! The parser accepts every dialect that is met in the field (order of elements, case of states, missing tags). The
//! writer follows the schema exactly, and beyond it the needs of phones. A document is always full and has at least
//! one dialog, and the dialog that matters to a lamp comes first. `local` and `remote` are always present, because a
//! phone may crash when they vanish between two documents.

use std::collections::HashSet;

use super::xml::{self, Document, Element, Vocabulary};
use super::{BodyError, EventPackage};
use crate::presence::state::{CallReport, CallState, ComposedState, Direction, Party, PublishedCalls, PublishedState};

/// Name of the package.
pub const NAME: &str = "dialog";

const WHAT: &str = "dialog-info document";
const OURS: Vocabulary = Vocabulary::DialogInfo;

/// The dialog package.
#[derive(Debug)]
pub struct DialogInfo;

impl EventPackage for DialogInfo {
    fn name(&self) -> &'static str {
        NAME
    }

    fn content_type(&self) -> &'static str {
        "application/dialog-info+xml"
    }

    fn read(&self, body: &[u8]) -> Result<PublishedState, BodyError> {
        let document = Document::read(body, WHAT)?;
        read_calls(document.root()).map(PublishedState::Calls)
    }

    fn write_tail(&self, picture: &ComposedState<'_>, tail: &mut String) {
        for dialog in dialogs(picture) {
            dialog.write(picture.uri, tail);
        }
        tail.push_str("\n</dialog-info>\n");
    }

    fn write_head(&self, version: u32, entity: &str, head: &mut String) {
        head.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<dialog-info");
        // No value here needs escaping.
        for part in [
            " xmlns=\"",
            xml::DIALOG_INFO_NS,
            "\" version=\"",
            itoa::Buffer::new().format(version),
            "\" state=\"full\"",
        ] {
            head.push_str(part);
        }
        xml::attribute("entity", entity, head);
        head.push('>');
    }
}

/// Tail of a document, which all watchers share.
pub fn tail(picture: &ComposedState<'_>) -> String {
    let mut tail = String::new();
    DialogInfo.write_tail(picture, &mut tail);
    tail
}

fn malformed(why: &'static str) -> BodyError {
    BodyError::Malformed { what: WHAT, why }
}

fn read_calls(root: Element<'_>) -> Result<PublishedCalls, BodyError> {
    if !root.is(OURS, "dialog-info") {
        return Err(malformed("its root element is not dialog-info in the namespace of RFC 4235"));
    }
    let full = match root.attribute("state")? {
        None => true,
        Some(state) if state.eq_ignore_ascii_case("full") => true,
        Some(state) if state.eq_ignore_ascii_case("partial") => false,
        Some(_) => return Err(malformed("its state is neither full nor partial")),
    };
    let mut calls = root.named(OURS, "dialog").map(read_call).collect::<Result<Vec<_>, _>>()?;
    // If an id occurs twice, the later dialog counts.
    let mut said = HashSet::new();
    let mut is_latest: Vec<_> = calls.iter().rev().map(|call| said.insert(call.id.clone())).collect();
    calls.retain(|_| is_latest.pop().unwrap_or(true));
    Ok(PublishedCalls { full, calls })
}

fn read_call(dialog: Element<'_>) -> Result<CallReport, BodyError> {
    let call_id = dialog.attribute("call-id")?;
    let id = dialog.attribute("id")?.or_else(|| call_id.clone());
    let id = id.ok_or(malformed("a dialog has neither id nor call-id"))?;
    let state = dialog.child(OURS, "state").ok_or(malformed("a dialog has no state"))?;
    let state = state.text()?.and_then(|name| state_of(&name));
    let direction = dialog.attribute("direction")?;
    let (local, held) = read_party(dialog.child(OURS, "local"))?;
    let (remote, _) = read_party(dialog.child(OURS, "remote"))?;
    Ok(CallReport {
        id,
        call_id,
        local_tag: dialog.attribute("local-tag")?,
        remote_tag: dialog.attribute("remote-tag")?,
        direction: direction.and_then(|name| direction_of(&name)),
        state: state.ok_or(malformed("a dialog has a state that RFC 4235 does not know"))?,
        local,
        remote,
        held,
    })
}

/// One side of the call, and its hold state: `+sip.rendering` tells whether the side renders the media that it
/// receives. None if the side does not say.
fn read_party(side: Option<Element<'_>>) -> Result<(Party, Option<bool>), BodyError> {
    let (mut party, mut held) = (Party::default(), None);
    let Some(side) = side else { return Ok((party, held)) };
    if let Some(identity) = side.child(OURS, "identity") {
        party.identity = identity.text()?;
        party.display = identity.attribute("display")?;
    }
    if let Some(target) = side.child(OURS, "target") {
        party.target = target.attribute("uri")?;
        for param in target.named(OURS, "param") {
            // The schema calls the attribute pval; Asterisk and others write pvalue.
            let value = param.attribute("pval")?.or(param.attribute("pvalue")?);
            if param.attribute("pname")?.is_some_and(|name| name.eq_ignore_ascii_case("+sip.rendering")) {
                held = match value.as_deref() {
                    Some(value) if value.eq_ignore_ascii_case("no") => Some(true),
                    Some(value) if value.eq_ignore_ascii_case("yes") => Some(false),
                    // `unknown` (RFC 4235 section 4.1.6) and invalid values mean the same as a missing parameter.
                    Some(_) | None => None,
                };
            }
        }
    }
    Ok((party, held))
}

/// States of RFC 4235 section 3.7.1, with their names in documents.
const STATES: [(&str, CallState); 5] = [
    ("trying", CallState::Trying),
    ("proceeding", CallState::Proceeding),
    ("early", CallState::Early),
    ("confirmed", CallState::Confirmed),
    ("terminated", CallState::Terminated),
];

fn state_of(name: &str) -> Option<CallState> {
    STATES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, state)| state)
}

fn name_of(state: CallState) -> &'static str {
    STATES[state as usize].0
}

fn direction_of(name: &str) -> Option<Direction> {
    if name.eq_ignore_ascii_case("initiator") {
        Some(Direction::Initiator)
    } else if name.eq_ignore_ascii_case("recipient") {
        Some(Direction::Recipient)
    } else {
        None
    }
}

/// Dialog to be written.
enum Dialog<'a> {
    /// A call.
    Call(&'a CallReport),
    /// Not a call: the manual state, or the idle state. Written without call-id and tags, so that no phone offers to
    /// pick it up.
    Made { id: String, state: CallState },
}

/// Priority of a state for a lamp, the lowest number first. Ringing comes before talking, because a ringing call can
/// be picked up.
fn rank(state: CallState) -> u8 {
    match state {
        CallState::Early => 0,
        CallState::Confirmed => 1,
        CallState::Proceeding => 2,
        CallState::Trying => 3,
        CallState::Terminated => 4,
    }
}

fn dialogs<'a>(picture: &'a ComposedState<'_>) -> Vec<Dialog<'a>> {
    let mut dialogs: Vec<_> = picture.calls.iter().map(|call| Dialog::Call(call)).collect();
    if let Some(state) = picture.manual {
        let before = |dialog: &Dialog<'_>| matches!(dialog, Dialog::Call(call) if rank(call.state) <= rank(state));
        let place = dialogs.iter().take_while(|dialog| before(dialog)).count();
        dialogs.insert(place, Dialog::Made { id: free_id("manual", picture), state });
    }
    if dialogs.is_empty() {
        dialogs.push(Dialog::Made { id: free_id("idle", picture), state: CallState::Terminated });
    }
    dialogs
}

/// Returns `wanted`, or the first of `wanted-1`, `wanted-2`, ... that is not the id of a call.
fn free_id(wanted: &str, picture: &ComposedState<'_>) -> String {
    let is_free = |id: &String| picture.calls.iter().all(|call| *call.id != **id);
    let mut id = wanted.to_owned();
    for number in 1.. {
        if is_free(&id) {
            break;
        }
        id = format!("{wanted}-{number}");
    }
    id
}

impl Dialog<'_> {
    fn write(&self, own_uri: &str, out: &mut String) {
        match self {
            Self::Call(call) => {
                out.push_str("\n<dialog");
                xml::attribute("id", &call.id, out);
                let known =
                    [("call-id", &call.call_id), ("local-tag", &call.local_tag), ("remote-tag", &call.remote_tag)];
                for (name, value) in known {
                    if let Some(value) = value {
                        xml::attribute(name, value, out);
                    }
                }
                write_rest(call.direction, call.state, (&call.local, call.is_held()), &call.remote, own_uri, out);
            }
            Self::Made { id, state } => {
                out.push_str("\n<dialog");
                xml::attribute("id", id, out);
                let own = Party::default();
                write_rest(None, *state, (&own, false), &own, own_uri, out);
            }
        }
    }
}

/// Writes the direction and the children of a dialog, in the order of the schema.
fn write_rest(
    direction: Option<Direction>,
    state: CallState,
    (local, held): (&Party, bool),
    remote: &Party,
    own_uri: &str,
    out: &mut String,
) {
    // Phones offer the pickup only for a recipient, so an unknown direction is written as such.
    let direction = match direction {
        Some(Direction::Initiator) => "initiator",
        Some(Direction::Recipient) | None => "recipient",
    };
    xml::attribute("direction", direction, out);
    out.push_str(">\n<state>");
    out.push_str(name_of(state));
    out.push_str("</state>");
    write_party("local", local, held, own_uri, out);
    write_party("remote", remote, false, own_uri, out);
    out.push_str("\n</dialog>");
}

fn write_party(side: &str, party: &Party, held: bool, own_uri: &str, out: &mut String) {
    let known = party.identity.as_deref().or(party.target.as_deref()).unwrap_or(own_uri);
    out.push_str("\n<");
    out.push_str(side);
    out.push_str("><identity");
    if let Some(display) = &party.display {
        xml::attribute("display", display, out);
    }
    out.push('>');
    xml::escape(known, out);
    out.push_str("</identity><target");
    xml::attribute("uri", party.target.as_deref().unwrap_or(known), out);
    out.push_str(if held { "><param pname=\"+sip.rendering\" pval=\"no\"/></target></" } else { "/></" });
    out.push_str(side);
    out.push('>');
}

#[cfg(test)]
mod tests;
