//! State of a lamp as text.

use crate::presence::state::{Basic, CallReport, CallState, Direction, MessageClass, PublishedState};

/// One line that describes the state in a NOTIFY's body.
pub(super) fn describe(report: &PublishedState) -> String {
    match report {
        PublishedState::Calls(calls) => {
            let live = |call: &&CallReport| call.state != CallState::Terminated;
            let lines: Vec<_> = calls.calls.iter().filter(live).map(call).collect();
            if lines.is_empty() { "idle".into() } else { lines.join(", ") }
        }
        PublishedState::PersonState(person) => {
            let basic = if person.basic == Some(Basic::Closed) { "closed" } else { "open" };
            let note = person.note.as_deref().map(|note| format!(" \"{note}\"")).unwrap_or_default();
            let activities: String = person.activities.iter().map(|a| format!(" {a}")).collect();
            format!("{basic}{note}{activities}")
        }
        PublishedState::Mailbox(mailbox) => {
            let waiting = if mailbox.waiting == Some(true) { "messages waiting" } else { "no messages waiting" };
            let counts = MessageClass::ALL.iter().zip(&mailbox.counts).filter_map(|(class, counts)| {
                counts.map(|c| format!(", {}: {} new, {} old", format!("{class:?}").to_lowercase(), c.new, c.old))
            });
            format!("{waiting}{}", counts.collect::<String>())
        }
    }
}

fn call(call: &CallReport) -> String {
    let state = match (call.state, call.direction) {
        (CallState::Confirmed, _) if call.is_held() => "on hold",
        (CallState::Confirmed, _) => "talking",
        (CallState::Early, Some(Direction::Recipient)) => "ringing",
        _ => "calling",
    };
    let other = call.remote.display.as_ref().or(call.remote.identity.as_ref());
    match (other, call.call_id.is_some()) {
        (Some(other), true) => format!("{state} ({other})"),
        _ => state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{EventPackage as _, dialog_info::DialogInfo, message_summary::MessageSummary};

    #[test]
    fn calls_are_told_by_what_the_lamp_does() {
        let doc = |state: &str| {
            format!(
                "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='0' state='full' entity='sip:a@b'>\
                 <dialog id='1' call-id='c' direction='recipient'><state>{state}</state>\
                 <remote><identity>sip:bob@acme.test</identity></remote></dialog></dialog-info>"
            )
        };
        let say = |state| describe(&DialogInfo.read(doc(state).as_bytes()).unwrap());
        assert_eq!(say("early"), "ringing (sip:bob@acme.test)");
        assert_eq!(say("confirmed"), "talking (sip:bob@acme.test)");
        assert_eq!(say("terminated"), "idle");
    }

    #[test]
    fn messages_are_counted() {
        let report = MessageSummary.read(b"Messages-Waiting: yes\r\nVoice-Message: 2/1 (0/0)\r\n").unwrap();
        assert_eq!(describe(&report), "messages waiting, voice: 2 new, 1 old");
    }
}
