//! The laws, checked on every message that the server sends.

use std::collections::HashMap;

use super::lamp::Lamp;
use super::phone::version_of;
use super::plan::Plan;
use super::screen::{Shown, went_back};
use super::truth::Truth;
use crate::package::PackageId;
use crate::sip::wire::{Message, Name};

/// The shortest time after which a NOTIFY without answer may be repeated or superseded (ms): Timer E.
const T1: u64 = 500;
/// On a stream only the end of the transaction makes way for the next (ms): Timer F.
const TIMER_F: u64 = 32_000;
/// Answers that end a dialog (RFC 6665 section 4.2.2), of those that phones give here.
const ENDING: [u16; 1] = [481];

/// What is known of a dialog that the server has accepted.
#[derive(Debug)]
struct Dialog {
    cseq: u32,
    version: Option<u32>,
    bytes: Vec<u8>,
    sent_at: u64,
    answered: bool,
    /// A SUBSCRIBE came since the last NOTIFY.
    asked: bool,
    last_said: bool,
    shown: Shown,
    over: Option<&'static str>,
    /// The last NOTIFY when the phone last proved to have the dialog, by a SUBSCRIBE or a 200: what it says of this one
    /// and earlier ones is out of date.
    proven: u32,
}

/// The watcher of the laws.
#[derive(Debug, Default)]
pub struct Laws {
    /// What each Call-ID is for.
    expected: HashMap<String, (usize, PackageId)>,
    /// By Call-ID and the server's tag.
    dialogs: HashMap<(String, String), Dialog>,
}

impl Laws {
    /// A phone will subscribe under this Call-ID.
    pub fn expect(&mut self, call_id: String, presentity: usize, package: PackageId) {
        self.expected.insert(call_id, (presentity, package));
    }

    /// Whom a Call-ID is about.
    pub fn presentity_of(&self, call_id: &str) -> Option<usize> {
        self.expected.get(call_id).map(|(presentity, _)| *presentity)
    }

    /// The server answers a SUBSCRIBE with 200.
    pub fn accepted(&mut self, answer: &Message<'_>) -> Result<(), String> {
        let tag = answer.to.tag().ok_or("a 200 to SUBSCRIBE without To tag")?;
        let fresh = || Dialog {
            cseq: 0,
            version: None,
            bytes: Vec::new(),
            sent_at: 0,
            answered: true,
            asked: true,
            last_said: false,
            shown: Shown::new(),
            over: None,
            proven: 0,
        };
        let dialog = self.dialogs.entry((answer.call_id.into(), tag.into())).or_insert_with(fresh);
        (dialog.asked, dialog.proven) = (true, dialog.cseq);
        Ok(())
    }

    /// The server is told the fate of a NOTIFY.
    pub fn answered(&mut self, answer: &Message<'_>, status: u16) {
        let Some(tag) = answer.from.tag() else { return };
        let Some(dialog) = self.dialogs.get_mut(&(answer.call_id.into(), tag.into())) else { return };
        if status < 200 {
            return;
        }
        if ENDING.contains(&status) && answer.cseq.number > dialog.proven {
            dialog.over = Some("the phone's 481");
        }
        if status < 300 {
            dialog.proven = dialog.proven.max(answer.cseq.number);
        }
        if answer.cseq.number == dialog.cseq {
            dialog.answered = true;
            if dialog.last_said {
                dialog.over = Some("the answer to the final NOTIFY");
            }
        }
    }

    /// The server is told that a NOTIFY could not be sent: it may try again.
    pub fn undeliverable(&mut self, call_id: &str) {
        for (_, dialog) in self.dialogs.iter_mut().filter(|((id, _), _)| id == call_id) {
            dialog.answered = true;
        }
    }

    /// The server sends a NOTIFY.
    pub fn notify(
        &mut self,
        now: u64,
        m: &Message<'_>,
        bytes: &[u8],
        reliable: bool,
        truth: &Truth,
        plan: &Plan,
    ) -> Result<(), String> {
        let tag = m.from.tag().ok_or("a NOTIFY without From tag")?;
        let (presentity, package) = *self.expected.get(m.call_id).ok_or("a NOTIFY for nobody's Call-ID")?;
        let key = (m.call_id.to_string(), tag.to_string());
        let dialog = self.dialogs.get_mut(&key).ok_or("a NOTIFY before the 200 to its SUBSCRIBE")?;
        if let Some(why) = dialog.over {
            return Err(format!("a NOTIFY after {why}"));
        }
        let lamp = Lamp::read(package, m.body).map_err(|why| format!("a NOTIFY that cannot be read: {why}"))?;
        walls(m, &lamp, plan, presentity)?;
        let state = m.first(Name::SubscriptionState).ok_or("a NOTIFY without Subscription-State")?;
        let is_final = state.starts_with("terminated");
        let since = now.saturating_sub(dialog.sent_at);
        let waited = if reliable { TIMER_F } else { T1 };
        if m.cseq.number == dialog.cseq {
            repeated(dialog, bytes, since, reliable)?;
        } else {
            if m.cseq.number != dialog.cseq + 1 {
                return Err(format!("CSeq {} after {}", m.cseq.number, dialog.cseq));
            }
            if dialog.last_said {
                return Err("a NOTIFY after the final one".into());
            }
            let version = version_of(m.body);
            let follows = dialog.version.map_or(0, |version| version + 1);
            if package.0 == 0 && version != Some(follows) {
                return Err(format!("version {version:?}, but {follows} has to follow"));
            }
            if !dialog.answered && !dialog.asked && !is_final && since < waited {
                return Err(format!("a second NOTIFY {since} ms after one that is not answered"));
            }
            (dialog.cseq, dialog.version, dialog.answered) = (m.cseq.number, version, false);
            dialog.bytes = bytes.to_vec();
            if truth.is_uncertain(now, presentity) {
                // Which life of a call this shows cannot be told.
                dialog.shown.clear();
            } else if let Some(law) = went_back(&mut dialog.shown, &lamp, |call| truth.lives_of(presentity, call)) {
                return Err(law);
            }
        }
        (dialog.sent_at, dialog.asked, dialog.last_said) = (now, false, is_final);
        let true_lamp = truth.lamp(presentity, package);
        // The final NOTIFY is repeated as it is: nobody is shown it for long.
        if lamp != true_lamp && !truth.is_uncertain(now, presentity) && !is_final {
            return Err(format!("a NOTIFY leaves that says [{lamp}] while [{true_lamp}] is true"));
        }
        Ok(())
    }
}

fn repeated(dialog: &Dialog, bytes: &[u8], since: u64, reliable: bool) -> Result<(), String> {
    if dialog.bytes != bytes {
        return Err(format!("two different NOTIFYs under CSeq {}", dialog.cseq));
    }
    if dialog.answered {
        return Err("a NOTIFY is repeated after its answer".into());
    }
    if reliable {
        return Err("a NOTIFY is repeated on a stream".into());
    }
    if since < T1 {
        return Err(format!("a NOTIFY is repeated after {since} ms"));
    }
    Ok(())
}

/// Nothing crosses realms (law 8).
fn walls(m: &Message<'_>, lamp: &Lamp, plan: &Plan, presentity: usize) -> Result<(), String> {
    let (user, realm) = plan.name(presentity);
    let text = std::str::from_utf8(m.body).map_err(|_| "a body that is not UTF-8")?;
    if !text.contains(&format!("sip:{user}@{realm}")) {
        return Err(format!("a document that does not speak of {user}@{realm}"));
    }
    if let Lamp::Calls(calls) = lamp
        && let Some((call, _)) = calls.iter().find(|(call, _)| !call.is_empty() && !call.ends_with(realm))
    {
        return Err(format!("{call} is shown in {realm}"));
    }
    Ok(())
}
