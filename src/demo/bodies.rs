//! Bodies of the PUBLISH requests of the demo phones.

use std::fmt::Write as _;

use super::people::REALM;

/// A call as seen by one phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) state: &'static str,
    /// True if this phone is the caller.
    pub(super) outgoing: bool,
    pub(super) held: bool,
    /// Name and number of the remote party.
    pub(super) other: (String, String),
}

/// Body of type dialog-info with all calls of a phone.
pub(super) fn dialog_info(version: u32, extension: &str, calls: &[Call]) -> String {
    let mut body = format!(
        "<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"{version}\" \
         state=\"full\" entity=\"sip:{extension}@{REALM}\">\n"
    );
    for Call { id, state, outgoing, held, other: (name, number) } in calls {
        let direction = if *outgoing { "initiator" } else { "recipient" };
        let rendering = if *held { "no" } else { "yes" };
        let _ = writeln!(
            body,
            "<dialog id=\"{id}\" call-id=\"{id}\" direction=\"{direction}\"><state>{state}</state>\
             <local><target uri=\"sip:{extension}@{REALM}\"><param pname=\"+sip.rendering\" pval=\"{rendering}\"/>\
             </target></local><remote><identity display=\"{}\">sip:{number}@{REALM}</identity></remote></dialog>",
            escaped(name)
        );
    }
    body + "</dialog-info>\n"
}

/// Body of type message-summary.
pub(super) fn summary(extension: &str, new: u32) -> String {
    let waiting = if new > 0 { "yes" } else { "no" };
    format!(
        "Messages-Waiting: {waiting}\r\nMessage-Account: sip:{extension}@{REALM}\r\nVoice-Message: {new}/0 (0/0)\r\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{EventPackage as _, dialog_info::DialogInfo, message_summary::MessageSummary};
    use crate::presence::state::{CallState, PublishedState};

    #[test]
    fn the_server_understands_them() {
        let other = ("Linen & Loom".to_owned(), "+1555".to_owned());
        let call = Call { id: "c".into(), state: "confirmed", outgoing: false, held: true, other };
        let Ok(PublishedState::Calls(calls)) = DialogInfo.read(dialog_info(1, "100", &[call]).as_bytes()) else {
            panic!()
        };
        assert!(calls.full && calls.calls[0].is_held() && calls.calls[0].state == CallState::Confirmed);
        assert_eq!(calls.calls[0].remote.display.as_deref(), Some("Linen & Loom"));
        assert!(MessageSummary.read(summary("100", 2).as_bytes()).is_ok());
    }
}
