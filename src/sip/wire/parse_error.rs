//! Parse errors of messages.

use super::Name;
use crate::sip::StatusCode;

/// Reason why a message was rejected. Its text becomes the reason phrase of the response, so it never holds octets of
/// the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not SIP: noise, HTTP, a port scan. It gets no response.
    #[error("Not a SIP message")]
    NotSip,
    /// SIP version that is not supported.
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
    /// A line without a colon, or with a name that is not a token.
    #[error("Malformed header line")]
    HeaderLine,
    /// More than [`super::MAX_HEADERS`] lines.
    #[error("Too many headers")]
    TooManyHeaders,
    /// A value longer than [`super::MAX_LINE`].
    #[error("Header too long")]
    HeaderTooLong,
    /// The head has no end.
    #[error("Incomplete header")]
    Incomplete,
    /// Larger than [`super::MAX_MESSAGE`].
    #[error("Message Too Large")]
    TooLarge,
    /// A mandatory header is missing.
    #[error("Missing {name} header", name = .0.text())]
    Missing(Name),
    /// A header that may occur only once occurs twice.
    #[error("Repeated {name} header", name = .0.text())]
    Repeated(Name),
    /// The value of a header that we need cannot be parsed.
    #[error("Malformed {name} header", name = .0.text())]
    Invalid(Name),
    /// CSeq names another method than the request line (RFC 3261 section 8.1.1.5).
    #[error("CSeq method does not match")]
    CSeqMethod,
    /// Content-Length is greater than the octets that follow, is no number, or is missing on a stream (RFC 3261
    /// section 18.3).
    #[error("Wrong Content-Length")]
    ContentLength,
    /// The Request-URI cannot be parsed.
    #[error("Malformed Request-URI")]
    RequestUri,
}

impl ParseError {
    /// Status of the response to a request with this fault.
    pub fn status(self) -> StatusCode {
        match self {
            ParseError::Version => StatusCode::VersionNotSupported,
            ParseError::TooLarge => StatusCode::MessageTooLarge,
            _ => StatusCode::BadRequest,
        }
    }
}
