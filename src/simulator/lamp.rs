//! What a lamp shows, in a form in which truth and screen can be compared.

use crate::package::{self, PackageId};
use crate::presence::facts::{CallState, Report};

/// What is known of a presentity by one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lamp {
    /// The live calls: Call-ID (empty where there is none) and state, sorted.
    Calls(Vec<(String, CallState)>),
    /// The word for a person.
    Person(String),
    /// New and old voice messages.
    Mailbox(u32, u32),
}

impl Lamp {
    /// Reads the body of a NOTIFY.
    pub fn read(package: PackageId, body: &[u8]) -> Result<Lamp, String> {
        let report = package::get(package).read(body).map_err(|error| error.to_string())?;
        Ok(match report {
            Report::Calls(calls) => {
                let live = calls.calls.iter().filter(|call| call.state != CallState::Terminated);
                let mut live: Vec<_> =
                    live.map(|call| (call.call_id.as_deref().unwrap_or_default().to_string(), call.state)).collect();
                live.sort();
                Lamp::Calls(live)
            }
            Report::Person(person) => Lamp::Person(person.note.unwrap_or_default().into()),
            Report::Mailbox(mailbox) => {
                let voice = mailbox.counts[0].unwrap_or_default();
                Lamp::Mailbox(voice.new, voice.old)
            }
        })
    }
}

impl std::fmt::Display for Lamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lamp::Calls(calls) if calls.is_empty() => f.write_str("idle"),
            Lamp::Calls(calls) => {
                for (i, (call, state)) in calls.iter().enumerate() {
                    let call = if call.is_empty() { "-" } else { call.split('@').next().unwrap_or(call) };
                    write!(f, "{}{call}:{}", if i > 0 { " " } else { "" }, format!("{state:?}").to_lowercase())?;
                }
                Ok(())
            }
            Lamp::Person(note) => f.write_str(note),
            Lamp::Mailbox(new, old) => write!(f, "{new}/{old}"),
        }
    }
}
