//! `[[account.webhook]]`: who is told by HTTP when lamps of an account change.

use std::fmt;
use std::path::PathBuf;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml::Spanned;

use super::error::{ConfigError, Source};
use super::{Secret, people, raw};

/// The most webhooks of an account.
const MOST: usize = 16;
/// The longest URL.
const MAX_URL: usize = 2_048;
/// The shortest and the longest key, in octets: less can be guessed, more adds nothing.
const KEY: std::ops::RangeInclusive<usize> = 24..=512;
/// What a key in Base64 begins with, as Standard Webhooks has it.
const IN_BASE64: &str = "whsec_";

/// Who is told.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where he listens.
    pub url: WebhookUrl,
    /// The text of the configuration that the key comes from.
    pub secret: Secret,
    /// He is told of lamps.
    pub lamps: bool,
    /// He is told of subscriptions.
    pub subscriptions: bool,
    /// The authorities that his certificate is by; none for those of this machine.
    pub ca: Option<PathBuf>,
}

impl Webhook {
    /// The key of the signature: what `secret` says in Base64 behind `whsec_`, else its text.
    pub fn key(&self) -> Vec<u8> {
        key(self.secret.expose()).unwrap_or_default()
    }
}

/// An address by HTTP. Its path may be a secret of its own, so only its origin is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    host: String,
}

impl WebhookUrl {
    /// Over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Host and port as they were written, for the Host header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query: a secret.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    fn read(text: &str) -> Result<WebhookUrl, &'static str> {
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

/// The webhooks of an account.
pub(super) fn all(source: Source<'_>, raw: &[Spanned<raw::Webhook>], path: &str) -> Result<Vec<Webhook>, ConfigError> {
    if let Some(one) = raw.get(MOST) {
        let problem = format!("is one too many; allowed: {MOST} webhooks of an account");
        return Err(source.fault(one.span(), format!("{path}.webhook[{MOST}]"), problem));
    }
    raw.iter().enumerate().map(|(i, one)| webhook(source, one.get_ref(), &format!("{path}.webhook[{i}]"))).collect()
}

fn webhook(source: Source<'_>, raw: &raw::Webhook, path: &str) -> Result<Webhook, ConfigError> {
    let url = WebhookUrl::read(raw.url.get_ref())
        .map_err(|problem| source.fault(raw.url.span(), format!("{path}.url"), problem))?;
    if people::is_blank(raw.secret.get_ref()) {
        return Err(source.fault(raw.secret.span(), format!("{path}.secret"), "is empty; it needs visible characters"));
    }
    if let Err(problem) = key(raw.secret.get_ref().expose()) {
        return Err(source.fault(raw.secret.span(), format!("{path}.secret"), problem));
    }
    let (mut lamps, mut subscriptions) = (raw.events.is_none(), false);
    if let Some(events) = &raw.events {
        let key = format!("{path}.events");
        for (i, event) in events.get_ref().iter().enumerate() {
            match event.get_ref().as_str() {
                "lamp" => lamps = true,
                "subscription" => subscriptions = true,
                other => {
                    let problem = format!("\"{other}\" is no event; allowed: \"lamp\", \"subscription\"");
                    return Err(source.fault(event.span(), format!("{key}[{i}]"), problem));
                }
            }
        }
        if !lamps && !subscriptions {
            return Err(source.fault(events.span(), key, "names no event; allowed: \"lamp\", \"subscription\""));
        }
    }
    Ok(Webhook { url, secret: raw.secret.get_ref().clone(), lamps, subscriptions, ca: raw.ca.clone() })
}

fn key(secret: &str) -> Result<Vec<u8>, String> {
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
