//! Settings of the webhooks: URL, key and events of each receiver.

use std::fmt;
use std::path::PathBuf;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::presence::AccountNo;
use crate::util::secret::Secret;

/// Longest URL (octets).
const MAX_URL: usize = 2_048;

/// Allowed length of the key in octets: a shorter one can be guessed, a longer one adds nothing.
const KEY: std::ops::RangeInclusive<usize> = 24..=512;

/// Prefix of a key in Base64, as Standard Webhooks defines it.
const IN_BASE64: &str = "whsec_";

/// A webhook receiver.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its account.
    pub account: AccountNo,
    /// URL of the receiver.
    pub url: WebhookUrl,
    /// Text in the configuration from which the key is derived.
    pub secret: Secret,
    /// True if it is notified of lamps.
    pub lamps: bool,
    /// True if it is notified of subscriptions.
    pub subscriptions: bool,
    /// File of the CA certificates for the receiver's certificate; `None` for those of this machine.
    pub ca: Option<PathBuf>,
}

impl Webhook {
    /// Signing key: the decoded Base64 after `whsec_`, otherwise the octets of the text.
    pub fn key(&self) -> Vec<u8> {
        key(self.secret.expose()).unwrap_or_default()
    }
}

/// URL of a receiver. Its path may be a secret, so `Debug` and `Display` show only the origin.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    host: String,
}

impl WebhookUrl {
    /// Returns true for https.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; 443 or 80 by default.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Host and port as written, for the Host header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query; may be secret.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    pub(crate) fn read(text: &str) -> Result<WebhookUrl, &'static str> {
        const WANTED: &str = "is no URL such as \"https://crm.acme.test/lamps\"";
        if text.len() > MAX_URL {
            return Err("is longer than 2048 bytes");
        }
        if text.contains('#') {
            return Err("has a fragment, which is never sent");
        }
        let uri: Uri = text.parse().map_err(|_| WANTED)?;
        let authority = uri.authority().ok_or(WANTED)?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err("begins with neither \"http://\" nor \"https://\""),
        }
        if authority.as_str().contains('@') {
            return Err("holds a user name; what comes from us is known by its signature");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port_is_there = authority.as_str().len() > authority.host().len();
        if host.is_empty() || (port_is_there && uri.port_u16().is_none_or(|port| port == 0)) {
            return Err(WANTED);
        }
        Ok(WebhookUrl { uri, host })
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.uri.scheme_str().unwrap_or_default(), self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/...")
    }
}

pub(crate) fn key(secret: &str) -> Result<Vec<u8>, String> {
    let key = match secret.strip_prefix(IN_BASE64) {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| format!("is not Base64 behind \"{IN_BASE64}\", with its padding"))?
        }
        None => secret.as_bytes().to_vec(),
    };
    match KEY.contains(&key.len()) {
        true => Ok(key),
        false => Err(format!(
            "makes a key of {} octets; allowed: {} to {}, such as what \"openssl rand -base64 32\" prints",
            key.len(),
            KEY.start(),
            KEY.end()
        )),
    }
}
