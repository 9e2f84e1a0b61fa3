//! What a lamp shows, in a form in which truth and screen can be compared.

use std::collections::HashMap;

use crate::package::{self, PackageId};
use crate::presence::state::{CallState, PublishedState};

/// One live call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Its Call-ID, and after a slash the remote tag of a branch where it forked; empty where there is no Call-ID.
    pub call: String,
    /// How far it is.
    pub state: CallState,
    /// It is on hold.
    pub held: bool,
}

/// What is known of a presentity by one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lamp {
    /// The live calls, sorted.
    Calls(Vec<Line>),
    /// The note and the activity of a person.
    Person(String, String),
    /// New and old voice messages.
    Mailbox(u32, u32),
}

/// How the remote tags of the branches of forked calls begin; other tags come and go with the publisher's mood.
pub const BRANCH: &str = "branch";

/// The name of a call, or of one branch of it.
pub fn label(call_id: &str, branch: Option<&str>) -> String {
    branch.map_or_else(|| call_id.to_string(), |branch| format!("{call_id}/{branch}"))
}

impl Lamp {
    /// Reads the body of a NOTIFY.
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

/// Remembers what bodies were read as: many are told the same, but for what stands in the root element.
#[derive(Debug, Default)]
pub struct Memo(HashMap<Box<[u8]>, Lamp>);

/// How much is remembered.
const LONGEST_MEMO: usize = 256;

impl Memo {
    /// [`Lamp::read`].
    pub fn read(&mut self, package: PackageId, body: &[u8]) -> Result<Lamp, String> {
        // The XML declaration is one line, and the root element begins with the next.
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
