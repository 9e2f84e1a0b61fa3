//! Requests composed line by line, valid or invalid.

/// An ordinary request; each case changes the part under test.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    start: String,
    lines: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// An ordinary request without oddities.
    pub(crate) fn new(method: &str, uri: &str) -> Request {
        let lines = [
            "Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKordinary",
            "Max-Forwards: 70",
            "From: \"Phone\" <sip:1002@acme.test>;tag=phone1",
            "To: <sip:1001@acme.test>",
            "Call-ID: ordinary@192.0.2.99",
            "CSeq: 1 METHOD",
            "Contact: <sip:1002@192.0.2.99:5070>",
            "Content-Length: 0",
        ];
        let lines = lines.iter().map(|line| line.replace("METHOD", method)).collect();
        Request { start: format!("{method} {uri} SIP/2.0"), lines, body: Vec::new() }
    }

    /// A request with only its start line.
    #[allow(dead_code)] // of use to the conformance tests
    pub(crate) fn bare(line: &str) -> Request {
        Request { start: line.into(), lines: Vec::new(), body: Vec::new() }
    }

    /// A SUBSCRIBE for the lamp of 1001.
    pub(crate) fn subscribe(uri: &str) -> Request {
        Request::new("SUBSCRIBE", uri).put("Event: dialog").put("Expires: 600")
    }

    /// Replaces the start line.
    pub(crate) fn start(mut self, line: &str) -> Request {
        self.start = line.into();
        self
    }

    /// Removes the headers of this name.
    pub(crate) fn without(mut self, name: &str) -> Request {
        self.lines.retain(|line| name_of(line) != name);
        self
    }

    /// Replaces the line with the same header name.
    pub(crate) fn put(mut self, line: &str) -> Request {
        let at = self.lines.iter().position(|old| name_of(old) == name_of(line)).unwrap_or(self.lines.len());
        self = self.without(name_of(line));
        self.lines.insert(at.min(self.lines.len()), line.into());
        self
    }

    /// Appends one more line.
    pub(crate) fn add(mut self, line: &str) -> Request {
        self.lines.push(line.into());
        self
    }

    /// Sets a body with its type and length.
    pub(crate) fn body(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Request {
        self.body = body.as_ref().to_vec();
        let length = format!("Content-Length: {}", self.body.len());
        self.put(&format!("Content-Type: {content_type}")).put(&length)
    }

    /// The request as octets.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let head = format!("{}\r\n{}\r\n\r\n", self.start, self.lines.join("\r\n"));
        [head.as_bytes(), &self.body].concat()
    }
}

fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or_default().trim()
}
