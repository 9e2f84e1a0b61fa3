//! SIPp's message trace: blocks of a dashed line with the time, "UDP message received [350] bytes :", and the message.

use std::collections::BTreeMap;

/// A NOTIFY as a phone received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) call_id: String,
    pub(crate) cseq: u64,
    pub(crate) subscription_state: String,
    pub(crate) body: String,
    /// True if the phone answered it with 200.
    pub(crate) answered: bool,
}

impl Notify {
    /// The `version` of its dialog-info.
    pub(crate) fn version(&self) -> u64 {
        let version = self.attribute("version").expect("a dialog-info has a version");
        version.parse().expect("a version is a number")
    }

    /// First value of an attribute of this name in the body.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        // The XML declaration has a version too.
        let document = self.body.split_once("?>").map_or(self.body.as_str(), |(_, document)| document);
        let (_, rest) = document.split_once(&format!(" {name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    }

    /// Texts of all `<state>` elements.
    pub(crate) fn states(&self) -> Vec<&str> {
        let elements = self.body.split("<state").skip(1);
        elements
            .filter_map(|rest| rest.split_once('>')?.1.split_once("</state>").map(|(text, _)| text.trim()))
            .collect()
    }

    /// NOTIFYs of each dialog, by Call-ID, in order of arrival.
    pub(crate) fn by_dialog(all: Vec<Self>) -> BTreeMap<String, Vec<Self>> {
        let mut dialogs = BTreeMap::<_, Vec<_>>::new();
        for notify in all {
            dialogs.entry(notify.call_id.clone()).or_default().push(notify);
        }
        dialogs
    }
}

/// NOTIFYs of a trace; a retransmission (same Call-ID and CSeq) counts once.
pub(crate) fn notifies(trace: &[u8]) -> Vec<Notify> {
    let mut found: Vec<Notify> = Vec::new();
    for (received, message) in messages(&String::from_utf8_lossy(trace)) {
        let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
        let Some((cseq, method)) = header(head, "CSeq").and_then(|cseq| cseq.split_once(' ')) else { continue };
        let (Some(call_id), Ok(cseq), "NOTIFY") = (header(head, "Call-ID"), cseq.parse(), method) else { continue };
        let same = found.iter_mut().find(|one| one.call_id == call_id && one.cseq == cseq);
        if received && head.starts_with("NOTIFY ") && same.is_none() {
            found.push(Notify {
                call_id: call_id.to_owned(),
                cseq,
                subscription_state: header(head, "Subscription-State").unwrap_or_default().to_owned(),
                body: body.to_owned(),
                answered: false,
            });
        } else if let (false, true, Some(notify)) = (received, head.starts_with("SIP/2.0 200 "), same) {
            notify.answered = true;
        }
    }
    found
}

/// Each complete message of a trace, with true if it was received and false if it was sent.
fn messages(trace: &str) -> Vec<(bool, &str)> {
    let mut found = Vec::new();
    let mut rest = trace;
    while let Some(at) = rest.find(" message ") {
        rest = &rest[at + " message ".len()..];
        // Some lines contain "message" without being a title: "Added first buffered message to socket 9".
        let received = rest.starts_with("received [");
        if !received && !rest.starts_with("sent (") {
            continue;
        }
        // "sent (413 bytes):" or "received [350] bytes :", an empty line, then exactly that many bytes.
        let Some((title, message)) = rest.split_once("\n\n") else { break };
        let length: String = title.chars().filter(char::is_ascii_digit).collect();
        let Some(message) = length.parse().ok().and_then(|length: usize| message.get(..length)) else { break };
        found.push((received, message));
        rest = &rest[title.len() + 2 + message.len()..];
    }
    found
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let values = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim())
}
