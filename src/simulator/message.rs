//! SIP messages that phones and publishers write.

use std::fmt::Write as _;

use super::oracle::{CallClaim, Claim, PublisherClaim};
use crate::package;
use crate::presence::state::{CallState, Direction};
use crate::sip::wire::{Message, Name};

/// Address of the server.
pub const SERVER: &str = "192.0.2.1:5060";

/// Retransmission of a request until it is answered (RFC 3261 section 17.1.2.2).
#[derive(Clone, Debug)]
pub struct Pending {
    /// The request as it is sent.
    pub bytes: Vec<u8>,
    /// CSeq number of the request.
    pub cseq: u32,
    interval: u64,
    ends: u64,
}

impl Pending {
    /// A request that is sent at `now`; it is first retransmitted after 500 ms.
    pub fn new(now: u64, cseq: u32, bytes: Vec<u8>) -> Pending {
        Pending { bytes, cseq, interval: 500, ends: now + 32_000 }
    }

    /// Time at which the request was first sent (ms).
    pub fn sent_at(&self) -> u64 {
        self.ends - 32_000
    }

    /// Called when a retransmission is due. Returns the time until the next one (ms), or none if the transaction timed
    /// out.
    pub fn repeat(&mut self, now: u64) -> Option<u64> {
        self.interval = (self.interval * 2).min(4_000);
        (now < self.ends).then_some(self.interval.min(self.ends.saturating_sub(now)))
    }
}

/// Writes the response of a phone to a NOTIFY.
pub fn answer(request: &Message<'_>, status: u16, retry_after: Option<u32>) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status} Simulated\r\n");
    for via in request.all(Name::Via) {
        let _ = write!(text, "Via: {via}\r\n");
    }
    let (from, to, call_id) = (request.from.text, request.to.text, request.call_id);
    let _ = write!(
        text,
        "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {} {}\r\n",
        request.cseq.number, request.cseq.method
    );
    if let Some(seconds) = retry_after {
        let _ = write!(text, "Retry-After: {seconds}\r\n");
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    text.into_bytes()
}

/// Returns the value of a header that the server itself never parses.
pub fn header<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(&format!("\r\n{name}: "))?;
    rest.split("\r\n").next()
}

/// Writes a PUBLISH as Kamailio or Asterisk would.
pub fn publish(said: &PublisherClaim, address: &str, call_id: &str, user: &str, realm: &str) -> Vec<u8> {
    let package = package::get(said.package);
    let body = match &said.statement {
        Claim::Mailbox(new, old) => {
            let waiting = if *new > 0 { "yes" } else { "no" };
            format!("Messages-Waiting: {waiting}\r\nVoice-Message: {new}/{old} (0/0)\r\n")
        }
        Claim::Note(note) => format!(
            "<?xml version=\"1.0\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}@{realm}\">\
             <tuple id=\"a\"><status><basic>open</basic></status><note>{note}</note></tuple></presence>\n"
        ),
        Claim::Calls { .. } | Claim::Extension(_) => dialog_info(&said.statement, user, realm),
        Claim::Still => String::new(),
    };
    let mut text = format!(
        "PUBLISH sip:{user}@{realm} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{call_id};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{user}@{realm}>;tag={call_id}\r\nTo: <sip:{user}@{realm}>\r\n\
         Call-ID: {call_id}\r\nCSeq: 10 PUBLISH\r\nEvent: {}\r\nExpires: {}\r\n",
        package.name(),
        said.expires
    );
    if let Some(etag) = &said.if_match {
        let _ = write!(text, "SIP-If-Match: {etag}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(text, "Content-Type: {}\r\n", package.content_type());
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

fn dialog_info(statement: &Claim, user: &str, realm: &str) -> String {
    let whole = !matches!(statement, Claim::Calls { full: false, .. });
    let mut body = format!(
        "<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
         state=\"{}\" entity=\"sip:{user}@{realm}\">\n",
        if whole { "full" } else { "partial" }
    );
    match statement {
        Claim::Calls { calls, .. } => calls.iter().for_each(|call| dialog(call, realm, &mut body)),
        Claim::Extension(state) => {
            let _ = write!(body, "<dialog id=\"{user}\"><state>{}</state></dialog>", state_name(*state));
        }
        Claim::Mailbox(..) | Claim::Note(_) | Claim::Still => {}
    }
    body.push_str("</dialog-info>\n");
    body
}

fn dialog(said: &CallClaim, realm: &str, body: &mut String) {
    let direction = if said.direction == Direction::Initiator { "initiator" } else { "recipient" };
    let (call_id, branch) = said.call.split_once('/').unwrap_or((&said.call, ""));
    let tags = match said.state {
        _ if !branch.is_empty() => format!(" local-tag=\"l\" remote-tag=\"{branch}\""),
        // Kamailio sends tags only while a call rings.
        CallState::Early => " local-tag=\"l\" remote-tag=\"r\"".into(),
        _ => String::new(),
    };
    // An omitted parameter leaves the state unchanged, so the end of a hold has to be stated.
    let rendering = match said.held {
        true => "<param pname=\"+sip.rendering\" pval=\"no\"/>",
        false => "<param pname=\"+sip.rendering\" pval=\"yes\"/>",
    };
    let _ = write!(
        body,
        "<dialog id=\"{call_id}{branch}\" call-id=\"{call_id}\"{tags} direction=\"{direction}\"><state>{}</state>\
         <local><target uri=\"sip:1@{realm}\">{rendering}</target></local>\
         <remote><identity>sip:9@{realm}</identity></remote></dialog>",
        state_name(said.state)
    );
}

fn state_name(state: CallState) -> &'static str {
    match state {
        // Kamailio writes it with a capital T.
        CallState::Trying => "Trying",
        CallState::Proceeding => "proceeding",
        CallState::Early => "early",
        CallState::Confirmed => "confirmed",
        CallState::Terminated => "terminated",
    }
}
