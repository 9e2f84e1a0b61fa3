//! `lamplighter watch`: a SIP subscriber with one lamp.
//!
//! It works with any presence server: it subscribes, responds to every NOTIFY, refreshes before the expiry, and prints
//! the state of the lamp. It shows within a minute if a server works, and shows a lamp in a terminal.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::WatchArgs;
use crate::package;
use crate::sip::headers::{NameAddr, param, seconds};
use crate::sip::wire::{self, Message, Name, RequestMethod};
use crate::sip::{Method, StatusCode};

mod lamp;
mod phone;

use phone::Phone;

/// Address of a SIP server: `udp:127.0.0.1:5060` or `tcp:[::1]:5060`; without a transport it is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// True for TCP.
    pub tcp: bool,
    /// The address.
    pub address: SocketAddr,
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tcp, rest) = match text.split_once(':') {
            Some(("udp", rest)) => (false, rest),
            Some(("tcp", rest)) => (true, rest),
            _ => (false, text),
        };
        let address = rest
            .trim_start_matches("//")
            .parse()
            .map_err(|_| "expected TRANSPORT:ADDRESS:PORT, such as udp:127.0.0.1:5060 or tcp:[::1]:5060")?;
        Ok(ServerAddress { tcp, address })
    }
}

/// Reason why watching ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The target is not of the form `user@realm`.
    #[error("'{0}' is not USER@REALM, such as 1001@acme.test")]
    Target(String),
    /// A socket failed.
    #[error("the connection to the server failed: {0}")]
    Io(#[from] io::Error),
    /// The server refused the subscription.
    #[error("the server answered {status} {reason}{}", hint(*.status))]
    Refused {
        /// Status of the response.
        status: u16,
        /// Reason phrase of the response.
        reason: String,
    },
    /// The server did not respond in time.
    #[error("no answer from {0} within {1} s; is the server running there?")]
    Silent(SocketAddr, u64),
}

/// Advice for some error statuses.
fn hint(status: u16) -> &'static str {
    match status {
        401 | 407 => {
            "; it asks for a password, and this watcher has none: ask from an address that is in access.trusted_proxies, such as \
             loopback on the server's own machine"
        }
        404 => "; has an account this realm?",
        _ => "",
    }
}

/// Timeout for a response. A SIP transaction lasts longer (RFC 3261 section 17.1.2.2), but the operator should not have
/// to wait so long.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Watches until it is interrupted or refused, or the server ends the subscription.
pub async fn run(args: &WatchArgs) -> Result<(), WatchError> {
    let target = args.target.strip_prefix("sip:").unwrap_or(&args.target);
    let sound = target.split_once('@').is_some_and(|(user, realm)| !user.is_empty() && !realm.is_empty());
    if !sound || target.contains(char::is_whitespace) {
        return Err(WatchError::Target(args.target.clone()));
    }
    let mut phone = Phone::connect(args, target).await?;
    let mut watcher = Watcher { args, target, lifetime: if args.once { 0 } else { args.expires }, refresh_at: None };
    phone.subscribe(watcher.lifetime).await?;
    let mut answer_by = Some(Instant::now() + ANSWER_WITHIN);
    loop {
        let now = Instant::now();
        let wake = [answer_by, watcher.refresh_at, phone.repeat_at()].into_iter().flatten().min();
        tokio::select! {
            message = phone.receive() => {
                let bytes = message?;
                let Ok(Some(message)) = wire::read(&bytes) else { continue };
                match message.status() {
                    Some(status) if status >= 200 => {
                        if phone.take_answer(&message) {
                            answer_by = None;
                            watcher.take_answer(&message, status)?;
                        }
                    }
                    Some(_) => {}
                    None => if watcher.take_request(&mut phone, &message).await? { return Ok(()) },
                }
            }
            _ = tokio::signal::ctrl_c() => {
                // The server sends a final NOTIFY, but an operator who interrupts does not want to wait for it.
                phone.subscribe(0).await?;
                return Ok(());
            }
            () = tokio::time::sleep_until(wake.unwrap_or(now + Duration::from_secs(3_600))) => {
                let now = Instant::now();
                if answer_by.is_some_and(|by| by <= now) {
                    return Err(WatchError::Silent(args.server.address, ANSWER_WITHIN.as_secs()));
                }
                if watcher.refresh_at.is_some_and(|at| at <= now) {
                    watcher.refresh_at = None;
                    phone.subscribe(watcher.lifetime).await?;
                    answer_by = Some(now + ANSWER_WITHIN);
                }
                phone.repeat().await?;
            }
        }
    }
}

struct Watcher<'a> {
    args: &'a WatchArgs,
    target: &'a str,
    lifetime: u32,
    refresh_at: Option<Instant>,
}

impl Watcher<'_> {
    fn take_answer(&mut self, answer: &Message<'_>, status: u16) -> Result<(), WatchError> {
        let minimum = answer.first(Name::MinExpires).and_then(seconds);
        if let (423, Some(minimum)) = (status, minimum.filter(|m| *m > self.lifetime)) {
            self.lifetime = minimum;
            self.refresh_at = Some(Instant::now());
            return Ok(());
        }
        if status >= 300 {
            let reason = StatusCode::from(status).to_string();
            let reason = reason.split_once(' ').map_or(String::new(), |(_, text)| text.to_string());
            return Err(WatchError::Refused { status, reason });
        }
        let granted = answer.first(Name::Expires).and_then(seconds).unwrap_or(self.lifetime);
        if granted > 0 {
            // Early enough that a lost message or two do not end the subscription.
            self.refresh_at = Some(Instant::now() + Duration::from_secs(u64::from(granted)) * 4 / 5);
        }
        Ok(())
    }

    /// Handles a request of the server; true if the subscription has ended.
    async fn take_request(&mut self, phone: &mut Phone, request: &Message<'_>) -> Result<bool, WatchError> {
        let Some((verb, _)) = request.request() else { return Ok(false) };
        if verb != RequestMethod::Known(Method::Notify) {
            phone.answer(request, StatusCode::MethodNotAllowed, "Method Not Allowed").await?;
            return Ok(false);
        }
        if !phone.is_ours(request) {
            phone.answer(request, StatusCode::CallTransactionDoesNotExist, "Subscription Does Not Exist").await?;
            return Ok(false);
        }
        phone.answer(request, StatusCode::OK, "OK").await?;
        let state = request.first(Name::SubscriptionState).unwrap_or_default();
        let (word, params) = state.split_once(';').unwrap_or((state, ""));
        let over = word.trim().eq_ignore_ascii_case("terminated");
        if phone.is_news(request) {
            self.print(request)?;
        }
        if over && !self.args.once {
            println!(
                "{}  the subscription has ended ({})",
                self.target,
                param(params, "reason").unwrap_or("no reason")
            );
        }
        Ok(over)
    }

    fn print(&self, notify: &Message<'_>) -> io::Result<()> {
        let package = package::by_name(&self.args.event).map(package::get);
        let text = match package.map(|package| package.read(notify.body)) {
            _ if notify.body.is_empty() => "nothing known".to_string(),
            Some(Ok(report)) => lamp::describe(&report),
            Some(Err(error)) => format!("unreadable: {error}"),
            None => "unknown package".to_string(),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}  {text}", self.target)?;
        if self.args.body {
            writeln!(out, "{}", String::from_utf8_lossy(notify.body))?;
        }
        out.flush()
    }
}

/// Tag of a From or To header value.
fn tag_of(value: &str) -> Option<&str> {
    NameAddr::read(value).and_then(|name| name.tag())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_address_names_transport_and_socket() {
        let address = |text: &str| text.parse::<ServerAddress>();
        assert_eq!(address("tcp:[::1]:5060"), Ok(ServerAddress { tcp: true, address: "[::1]:5060".parse().unwrap() }));
        assert_eq!(address("127.0.0.1:1"), Ok(ServerAddress { tcp: false, address: "127.0.0.1:1".parse().unwrap() }));
        assert_eq!(address("udp://127.0.0.1:1"), address("udp:127.0.0.1:1"));
        assert!(address("tls:127.0.0.1:1").is_err() && address("localhost").is_err());
    }
}
