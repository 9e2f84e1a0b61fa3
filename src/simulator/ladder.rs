//! Ladder diagram of one dialog: every message with its time and direction, for people to read.

use std::fmt::Write as _;

use super::lamp::Lamp;
use super::phone::version_of;
use crate::package;
use crate::sip::headers::Event;
use crate::sip::wire::{self, Name};

/// Topic of a ladder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Call-ID of the dialog.
    pub call_id: Option<String>,
    /// The presentity whose PUBLISHes belong to it.
    pub presentity: Option<usize>,
}

/// Collector of the lines of one topic.
#[derive(Debug, Default)]
pub struct Ladder {
    topic: Option<Topic>,
    lines: Vec<String>,
}

/// Most lines shown. Older lines are cut.
const LONGEST: usize = 80;

impl Ladder {
    /// A ladder about a topic; without a topic nothing is collected.
    pub fn about(topic: Option<Topic>) -> Ladder {
        Ladder { topic, lines: Vec::new() }
    }

    /// Topic of the ladder, if it is drawn.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// Returns true if the ladder is drawn.
    pub fn is_drawn(&self) -> bool {
        self.topic.is_some()
    }

    /// Adds a message. `presentity` is the one that a PUBLISH is about, `fate` is the network's treatment of the
    /// message.
    pub fn message(&mut self, now: u64, to_server: bool, bytes: &[u8], presentity: Option<usize>, fate: &str) {
        let Some(topic) = &self.topic else { return };
        let Ok(Some(m)) = wire::read(bytes) else { return };
        let (mine, about) = (topic.call_id.as_deref() == Some(m.call_id), presentity.is_some());
        if !(mine || about && presentity == topic.presentity) {
            return;
        }
        let other = if about { "publisher" } else { "phone" };
        let (from, to) = if to_server { (other, "server") } else { ("server", other) };
        let mut line = format!("{:>11.3} s  {from:>9} -> {to:<9} ", now as f64 / 1000.0);
        match m.status() {
            Some(status) => {
                let _ = write!(line, "{status} to {} {}", m.cseq.method, m.cseq.number);
            }
            None => {
                let _ = write!(line, "{} {}", m.cseq.method, m.cseq.number);
            }
        }
        for (name, label) in [
            (Name::Expires, "expires"),
            (Name::RetryAfter, "retry-after"),
            (Name::SipIfMatch, "if-match"),
            (Name::SubscriptionState, ""),
        ] {
            if let Some(value) = m.first(name) {
                let _ = write!(line, " {label} {value}");
            }
        }
        if let Some(version) = version_of(m.body).filter(|_| !about) {
            let _ = write!(line, " v{version}");
        }
        let package = m.first(Name::Event).and_then(Event::read).and_then(|e| package::by_name(e.package));
        if let Some(lamp) = package.filter(|_| !m.body.is_empty()).and_then(|id| Lamp::read(id, m.body).ok()) {
            let _ = write!(line, " [{lamp}]");
        }
        let _ = write!(line, "  {} {fate}", m.call_id);
        self.lines.push(line);
    }

    /// Adds a note about a presentity.
    pub fn note(&mut self, now: u64, presentity: usize, text: &str) {
        if self.topic.as_ref().is_some_and(|topic| topic.presentity == Some(presentity)) {
            self.lines.push(format!("{:>11.3} s  {text}", now as f64 / 1000.0));
        }
    }

    /// Returns the diagram as text.
    pub fn draw(&self) -> String {
        let skipped = self.lines.len().saturating_sub(LONGEST);
        let mut picture = if skipped > 0 { format!("  ({skipped} earlier lines left out)\n") } else { String::new() };
        for line in &self.lines[skipped..] {
            picture.push_str(line);
            picture.push('\n');
        }
        picture
    }
}
