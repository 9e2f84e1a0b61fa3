//! What can be wrong with a message.

use super::Name;
use crate::sip::StatusCode;

/// Why a message was refused. Its text becomes the reason phrase of the answer, so it never holds bytes of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not SIP at all: noise, HTTP, a scan. Such a thing gets no answer.
    #[error("Not a SIP message")]
    NotSip,
    /// A SIP version that we do not speak.
    #[error("Version Not Supported")]
    Version,
    /// The start line is not `METHOD URI SIP/2.0` with single blanks.
    #[error("Malformed request line")]
    StartLine,
    /// The head is not UTF-8 (RFC 3261 section 7).
    #[error("Header is not UTF-8")]
    NotUtf8,
    /// NUL, or a CR or LF on its own.
    #[error("Control character in header")]
    ControlCharacter,
    /// A line without colon or with a name that is no token.
    #[error("Malformed header line")]
    HeaderLine,
    /// More than [`super::MAX_HEADERS`] lines.
    #[error("Too many headers")]
    TooManyHeaders,
    /// A value longer than [`super::MAX_LINE`].
    #[error("Header too long")]
    HeaderTooLong,
    /// The end of the head is missing.
    #[error("Incomplete header")]
    Incomplete,
    /// Larger than [`super::MAX_MESSAGE`].
    #[error("Message Too Large")]
    TooLarge,
    /// A header that every message needs is not there.
    #[error("Missing {name} header", name = .0.text())]
    Missing(Name),
    /// A header that may stand once stands twice.
    #[error("Repeated {name} header", name = .0.text())]
    Repeated(Name),
    /// The value of a header that we need cannot be read.
    #[error("Malformed {name} header", name = .0.text())]
    Invalid(Name),
    /// CSeq names another method than the request line (RFC 3261 section 8.1.1.5).
    #[error("CSeq method does not match")]
    CSeqMethod,
    /// Content-Length is more than what follows, no number, or missing on a stream (RFC 3261 section 18.3).
    #[error("Wrong Content-Length")]
    ContentLength,
    /// The Request-URI cannot be read.
    #[error("Malformed Request-URI")]
    RequestUri,
}

impl ParseError {
    /// The status to answer a request with that has this fault.
    pub fn status(self) -> StatusCode {
        match self {
            ParseError::Version => StatusCode::VersionNotSupported,
            ParseError::TooLarge => StatusCode::MessageTooLarge,
            _ => StatusCode::BadRequest,
        }
    }
}
