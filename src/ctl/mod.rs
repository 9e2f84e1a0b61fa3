//! Operator commands: they query a running server over its HTTP API, and print the result as text or as JSON.
//!
//! Nothing is decided here: state and reason of a lamp come from the server, so the terminal and the dashboard always
//! agree.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::cli::{ExplainArgs, ResetArgs, ServerArgs, SetArgs, SubscriptionArgs};

mod client;
mod drain;
pub mod health_check;
mod journal;
mod list;
mod manual;
mod print;
mod refusals;

use client::Client;
pub use client::OperatorError;
pub use drain::drain;
pub use journal::{JournalCommandError, check_journal, repair_journal};
pub use list::{accounts, lamps, search, subscriptions};
pub use manual::{completion, man};
pub use refusals::refusals;

/// Address of an extension as an operator writes it: `1001@acme.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The extension.
    pub extension: String,
    /// The realm of its account.
    pub realm: String,
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("sip:").unwrap_or(text);
        match bare.rsplit_once('@') {
            Some((extension, realm)) if !extension.is_empty() && !realm.is_empty() => {
                Ok(Address { extension: extension.into(), realm: realm.into() })
            }
            _ => Err("expected EXTENSION@REALM, such as 1001@acme.test".into()),
        }
    }
}

/// `lamplighter explain`: prints why a lamp shows its state, and which state each watcher has acknowledged.
pub fn explain(args: &ExplainArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let account = client.account(Some(&args.address.realm))?;
    let mut story = client.get(&format!("{account}/lamps/{}", escaped(&args.address.extension)))?;
    let mut subscriptions = Vec::new();
    if let Some(wanted) = &args.watcher {
        let wanted = wanted.to_lowercase();
        let is_wanted =
            |row: &Value| row["watcher"].as_str().is_some_and(|watcher| watcher.to_lowercase().contains(&wanted));
        if let Some(watching) = story["watching"].as_array_mut() {
            watching.retain(is_wanted);
        }
        for row in story["watching"].as_array().into_iter().flatten() {
            let id = row["id"].as_str().unwrap_or_default();
            subscriptions.push(client.get(&format!("{account}/subscriptions/{}", escaped(id)))?);
        }
    }
    if args.server.json {
        if args.watcher.is_some() {
            story["subscriptions"] = Value::Array(subscriptions);
        }
        return print_json(&story);
    }
    let now = client.now();
    put(&print::lamp_story(&story, now))?;
    subscriptions.iter().try_for_each(|subscription| put(&print::subscription(subscription, now)))
}

/// `lamplighter reset`: discards the calls of an extension and sends its watchers a fresh NOTIFY.
pub fn reset(args: &ResetArgs) -> Result<(), OperatorError> {
    change(&args.server, &args.address, &json!({ "data": { "action": "reset" } }))
}

/// `lamplighter set`: sets the state of an extension by hand.
pub fn set(args: &SetArgs) -> Result<(), OperatorError> {
    change(&args.server, &args.address, &json!({ "data": { "action": "set", "state": args.state } }))
}

fn change(server: &ServerArgs, address: &Address, what: &Value) -> Result<(), OperatorError> {
    let client = Client::new(server)?;
    let account = client.account(Some(&address.realm))?;
    let path = format!("{account}/presence/{}", escaped(&address.extension));
    say_done(server, &client.ask("POST", &path, Some(what))?)
}

/// `lamplighter resend`: sends a fresh NOTIFY in one subscription.
pub fn resend(args: &SubscriptionArgs) -> Result<(), OperatorError> {
    with_subscription(args, "POST", Some(&json!({ "data": { "action": "resend" } })))
}

/// `lamplighter end`: ends one subscription with a final NOTIFY.
pub fn end(args: &SubscriptionArgs) -> Result<(), OperatorError> {
    with_subscription(args, "DELETE", None)
}

fn with_subscription(args: &SubscriptionArgs, method: &str, what: Option<&Value>) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let account = client.account(args.realm.as_deref())?;
    say_done(&args.server, &client.ask(method, &format!("{account}/subscriptions/{}", escaped(&args.id)), what)?)
}

fn say_done(server: &ServerArgs, done: &Value) -> Result<(), OperatorError> {
    match server.json {
        true => print_json(&done["data"]),
        false => put(&format!("{}\n", done["data"].as_str().unwrap_or("done"))),
    }
}

fn print_json(value: &Value) -> Result<(), OperatorError> {
    put(&format!("{value:#}\n"))
}

fn put(text: &str) -> Result<(), OperatorError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Not an error: a reader such as `head` has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(OperatorError::Output),
    }
}

/// Percent-encodes a part of a path or query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => out.push(byte as char),
            false => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let address = |text: &str| text.parse::<Address>().map(|a| (a.extension, a.realm));
        assert_eq!(address("1001@acme.test"), Ok(("1001".into(), "acme.test".into())));
        assert_eq!(address("sip:*98@acme.test"), Ok(("*98".into(), "acme.test".into())));
        assert!(address("1001").is_err() && address("@x").is_err() && address("x@").is_err());
        assert_eq!(escaped("*98 ä/"), "%2A98%20%C3%A4%2F");
    }
}
