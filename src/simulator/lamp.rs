//! State of a lamp, in a form in which the oracle and a phone's screen can be compared.

use std::collections::HashMap;

use crate::package::{self, PackageId};
use crate::presence::state::{CallState, PublishedState};

/// One live call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Call-ID, followed by a slash and the remote tag of a branch if the call forked; empty if there is no Call-ID.
    pub call: String,
    /// State of the call.
    pub state: CallState,
    /// True if the call is on hold.
    pub held: bool,
}

/// State of a presentity in one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lamp {
    /// Live calls, sorted.
    Calls(Vec<Line>),
    /// Note and activity of a person.
    Person(String, String),
    /// New and old voice messages.
    Mailbox(u32, u32),
}

/// Prefix of the remote tags of the branches of a forked call. Publishers send or omit other tags, so those are
/// ignored.
pub const BRANCH: &str = "branch";

/// Name of a call, or of one branch of it.
pub fn label(call_id: &str, branch: Option<&str>) -> String {
    branch.map_or_else(|| call_id.to_string(), |branch| format!("{call_id}/{branch}"))
}

impl Lamp {
    /// Parses the body of a NOTIFY.
    pub fn read(package: PackageId, body: &[u8]) -> Result<Lamp, String> {
        let report = package::get(package).read(body).map_err(|error| error.to_string())?;
        Ok(match report {
            PublishedState::Calls(calls) => {
                let live = calls.calls.iter().filter(|call| call.state != CallState::Terminated);
                let mut live: Vec<_> = live
                    .map(|call| {
                        let branch = call.remote_tag.as_deref().filter(|tag| tag.starts_with(BRANCH));
                        let id = call.call_id.as_deref().unwrap_or_default();
                        Line { call: label(id, branch), state: call.state, held: call.is_held() }
                    })
                    .collect();
                live.sort();
                Lamp::Calls(live)
            }
            PublishedState::PersonState(person) => {
                let activity = person.activities.first().map_or("", |activity| activity);
                Lamp::Person(person.note.as_deref().unwrap_or_default().into(), activity.into())
            }
            PublishedState::Mailbox(mailbox) => {
                let voice = mailbox.counts[0].unwrap_or_default();
                Lamp::Mailbox(voice.new, voice.old)
            }
        })
    }
}

/// Parse cache: many bodies differ only in the root element, so the rest is the key.
#[derive(Debug, Default)]
pub struct Memo(HashMap<Box<[u8]>, Lamp>);

/// Capacity of the parse cache.
const LONGEST_MEMO: usize = 256;

impl Memo {
    /// Parses a body as [`Lamp::read`] does, from the cache if possible.
    pub fn read(&mut self, package: PackageId, body: &[u8]) -> Result<Lamp, String> {
        // The XML declaration is one line, and the root element begins on the next.
        let root = body.iter().position(|octet| *octet == b'\n').unwrap_or_default();
        let end = body[root..].iter().position(|octet| *octet == b'>').filter(|_| package.0 < 2);
        let Some(end) = end else { return Lamp::read(package, body) };
        let tail = &body[root + end..];
        if let Some(lamp) = self.0.get(tail) {
            return Ok(lamp.clone());
        }
        let lamp = Lamp::read(package, body)?;
        if self.0.len() >= LONGEST_MEMO {
            self.0.clear();
        }
        self.0.insert(tail.into(), lamp.clone());
        Ok(lamp)
    }
}

impl std::fmt::Display for Lamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lamp::Calls(calls) if calls.is_empty() => f.write_str("idle"),
            Lamp::Calls(calls) => {
                for (i, Line { call, state, held }) in calls.iter().enumerate() {
                    let (id, branch) = call.split_once('/').unwrap_or((call, ""));
                    let call = if id.is_empty() { "-" } else { id.split('@').next().unwrap_or(id) };
                    let (gap, slash) = (if i > 0 { " " } else { "" }, if branch.is_empty() { "" } else { "/" });
                    let held = if *held { " (held)" } else { "" };
                    write!(f, "{gap}{call}{slash}{branch}:{}{held}", format!("{state:?}").to_lowercase())?;
                }
                Ok(())
            }
            Lamp::Person(note, activity) => write!(f, "{note}; {activity}"),
            Lamp::Mailbox(new, old) => write!(f, "{new}/{old}"),
        }
    }
}
