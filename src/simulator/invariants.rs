//! Invariants: checks of every message that the server decides to send, and of those that leave.

use std::collections::HashMap;

use super::lamp::{Lamp, ParseCache};
use super::monotonic::{Shown, went_back};
use super::oracle::{CLOCK_TOLERANCE_MS, Oracle};
use super::phone::version_of;
use super::scenario::Scenario;
use crate::package::{self, PackageId};
use crate::presence::state::{CallState, PublishedState};
use crate::sip::wire::{self, Message, Name};

/// Shortest time after which an unanswered NOTIFY may be retransmitted or superseded (ms): Timer E.
const T1: u64 = 500;
/// On a stream a NOTIFY may be superseded only at the end of its transaction (ms): Timer F.
const TIMER_F: u64 = 32_000;
/// Responses that end a dialog (RFC 6665 section 4.2.2), of those that phones give here.
const ENDING: [u16; 1] = [481];
/// Most CSeq numbers and versions that a crash may skip. The server reserves 64 at a time, and more may have left
/// while the disk refused to reserve them.
const RESERVE: u32 = 64 + (1 << 16);
/// Longest time for which a phone that answers may be stale (ms): it leaves room for the pacing of NOTIFYs per device.
const PROMPT: u64 = 5_000;

/// Purpose of a Call-ID.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Index of the watched presentity.
    pub presentity: usize,
    /// Event package.
    pub package: PackageId,
    /// Index of the subscribing phone.
    pub phone: usize,
}

/// Checker's state of a dialog that the server has accepted.
#[derive(Debug)]
pub(super) struct Dialog {
    expected: Expected,
    cseq: u32,
    version: Option<u32>,
    bytes: Vec<u8>,
    sent_at: u64,
    /// True if the latest NOTIFY went over a stream. An oversize one may, even in a dialog over UDP.
    reliable: bool,
    answered: bool,
    /// True if a SUBSCRIBE arrived since the last NOTIFY.
    asked: bool,
    last_said: bool,
    shown: Shown,
    lamp: Option<Lamp>,
    over: Option<&'static str>,
    /// CSeq of the last NOTIFY at the time when the phone last proved to have the dialog, by a SUBSCRIBE or a 200. Its
    /// other responses to this NOTIFY and earlier ones are out of date.
    proven: u32,
    /// Decision that created the last NOTIFY.
    made_by: u64,
    /// CSeq and version of the last NOTIFY that left.
    left: (u32, Option<u32>),
    /// Largest allowed value of the next CSeq, after a crash.
    most: Option<u32>,
    /// End of the lifetime granted last, and the decision that granted it.
    until: (u64, u64),
    /// That lifetime (ms).
    granted: u64,
    /// End of the lifetime granted by the last 200 that left, and that lifetime (ms).
    promised: u64,
    promised_for: u64,
    /// State in the last NOTIFY that left, and the states in those that were created and have not left, by CSeq.
    left_lamp: Option<Lamp>,
    made: Vec<(u32, Lamp)>,
    /// Value of `heard` before the NOTIFYs that have not left.
    heard_before: Option<u64>,
    /// Decision that ended it.
    ended: Option<u64>,
    /// True if its phone has subscribed anew, so that the server may drop it without a NOTIFY.
    replaced: bool,
    /// Decision that may have replaced it.
    replaced_by: Option<u64>,
    /// True if its latest NOTIFY was answered after that decision. A server that had removed the dialog did not record
    /// the response.
    unheard: bool,
    /// Decision that answered its latest SUBSCRIBE.
    asked_by: u64,
    /// Decision in which the server processed a 200 to the last NOTIFY; none without a 200.
    heard: Option<u64>,
    /// True if it was up to date when the server crashed, and nothing has happened since.
    settled: bool,
}

/// Consequence of a message for the invariants when it leaves.
#[derive(Clone, Debug)]
pub enum Leaving {
    /// An acknowledged subscription, and the end of its lifetime (ms).
    Subscribed((String, String), u64),
    /// A NOTIFY of a dialog, with its CSeq and version.
    Notify((String, String), u32, Option<u32>),
    /// Any other message, which no invariant concerns.
    Other,
}

/// Checker of the invariants.
#[derive(Debug, Default)]
pub struct Invariants {
    /// Purpose of each Call-ID.
    expected: HashMap<String, Expected>,
    /// Dialogs by Call-ID and the server's tag.
    dialogs: HashMap<(String, String), Dialog>,
    /// Decision that answered a SUBSCRIBE, and the end of the lifetime: by Call-ID and CSeq.
    answers: HashMap<(String, u32), (u64, u64)>,
    /// Time of the last crash of the server.
    crashed_at: u64,
    pub(super) memo: ParseCache,
}

impl Dialog {
    fn new(expected: Expected) -> Dialog {
        Dialog {
            expected,
            cseq: 0,
            version: None,
            bytes: Vec::new(),
            sent_at: 0,
            reliable: false,
            answered: true,
            asked: true,
            last_said: false,
            shown: Shown::new(),
            lamp: None,
            over: None,
            proven: 0,
            made_by: 0,
            left: (0, None),
            most: None,
            until: (0, 0),
            granted: 0,
            promised: 0,
            promised_for: 0,
            left_lamp: None,
            made: Vec::new(),
            heard_before: None,
            ended: None,
            replaced: false,
            replaced_by: None,
            unheard: false,
            asked_by: 0,
            heard: None,
            settled: false,
        }
    }

    /// Rolls back decisions that have not survived.
    fn forget(&mut self, survived: impl Fn(u64) -> bool) {
        if !survived(self.until.1) {
            (self.until.0, self.granted) = (self.promised, self.promised_for);
        }
        if self.ended.is_some_and(|by| !survived(by)) {
            (self.ended, self.over, self.last_said) = (None, None, false);
        }
    }

    /// Returns true if the server must know the dialog.
    fn stands(&self, now: u64) -> bool {
        let lives = self.promised.min(self.until.0) > now + CLOCK_TOLERANCE_MS;
        lives && self.ended.is_none() && self.over.is_none() && !self.replaced
    }

    /// Checks that the numbers of a new NOTIFY continue those before. Across a crash they may skip, but never fall
    /// (rule 2).
    fn counts_on(&self, cseq: u32, version: Option<u32>, has_version: bool) -> Result<(), String> {
        let skips = match self.most {
            None if cseq != self.cseq + 1 => return Err(format!("CSeq {cseq} after {}", self.cseq)),
            Some(_) if cseq <= self.cseq => return Err(format!("CSeq {cseq} after {}, over a crash", self.cseq)),
            Some(most) if cseq > most => return Err(format!("CSeq {cseq} over a crash, but {most} at most")),
            _ => cseq - self.cseq - 1,
        };
        let follows = self.version.map_or(self.cseq, |version| version + 1) + skips;
        if has_version && version != Some(follows) {
            return Err(format!("version {version:?}, but {follows} has to follow"));
        }
        Ok(())
    }
}

impl Invariants {
    /// Registers the Call-ID under which a phone will subscribe.
    pub fn expect(&mut self, call_id: String, expected: Expected) {
        self.expected.insert(call_id, expected);
    }

    /// Purpose of a Call-ID.
    pub fn expected(&self, call_id: &str) -> Option<Expected> {
        self.expected.get(call_id).copied()
    }

    /// Checks a 200 to a SUBSCRIBE. Returns the decision that has to be durable before it leaves.
    pub fn accepted(&mut self, now: u64, decision: u64, answer: &Message<'_>) -> Result<(u64, Leaving), String> {
        let tag = answer.to.tag().ok_or("a 200 to SUBSCRIBE without To tag")?;
        let granted: u64 = answer.first(Name::Expires).and_then(|e| e.parse().ok()).ok_or("a 200 without Expires")?;
        let expected = self.expected(answer.call_id).ok_or("a 200 for nobody's Call-ID")?;
        let key = (answer.call_id.to_string(), tag.to_string());
        let fresh = (decision, now + granted * 1_000);
        let (by, until) = *self.answers.entry((key.0.clone(), answer.cseq.number)).or_insert(fresh);
        if !self.dialogs.contains_key(&key) {
            let again = |(of, dialog): (&(String, String), &Dialog)| of.0 == key.0 && dialog.stands(now);
            if granted > 0 && self.dialogs.iter().any(again) {
                return Err("a SUBSCRIBE that was repeated has made a second subscription".into());
            }
            let same = |old: &Expected| {
                (old.phone, old.presentity, old.package) == (expected.phone, expected.presentity, expected.package)
            };
            let old = self.dialogs.values_mut().filter(|old| granted > 0 && same(&old.expected));
            for old in old {
                old.replaced = true;
                if old.over.is_none() {
                    (old.replaced_by, old.unheard) = (Some(decision), false);
                }
            }
        }
        let dialog = self.dialogs.entry(key.clone()).or_insert_with(|| Dialog::new(expected));
        // This may be the same SUBSCRIBE again. After its transaction is forgotten, it causes a NOTIFY too.
        (dialog.asked, dialog.asked_by) = (true, decision);
        if by == decision {
            (dialog.asked, dialog.proven, dialog.settled) = (true, dialog.cseq, false);
            (dialog.until, dialog.granted) = ((until, decision), granted * 1_000);
            if granted == 0 {
                dialog.ended = Some(decision);
            }
        }
        Ok((by, Leaving::Subscribed(key, until)))
    }

    /// Checks a 481 to a SUBSCRIBE: the server says that it does not know the subscription.
    pub fn on_481(&self, now: u64, answer: &Message<'_>) -> Result<(), String> {
        let key = (answer.call_id.to_string(), answer.to.tag().unwrap_or_default().to_string());
        match self.dialogs.get(&key) {
            Some(dialog) if dialog.stands(now) => Err("an acknowledged subscription is not known to the server".into()),
            _ => Ok(()),
        }
    }

    /// Applies a response to a NOTIFY, which the server processes in this decision.
    pub fn answered(&mut self, decision: u64, answer: &Message<'_>, status: u16) {
        let Some(tag) = answer.from.tag() else { return };
        let Some(dialog) = self.dialogs.get_mut(&(answer.call_id.into(), tag.into())) else { return };
        if status < 200 {
            return;
        }
        if ENDING.contains(&status) && answer.cseq.number > dialog.proven {
            dialog.over = Some("the phone's 481");
            dialog.ended = dialog.ended.or(Some(decision));
        }
        if status < 300 {
            dialog.proven = dialog.proven.max(answer.cseq.number);
        }
        // A CSeq from before a crash may have been used again, so the response proves nothing.
        if answer.cseq.number == dialog.cseq && dialog.most.is_none() {
            if !dialog.answered && status < 300 {
                dialog.heard = Some(decision);
            }
            dialog.unheard |= !dialog.answered && dialog.replaced_by.is_some();
            dialog.answered = true;
            if dialog.last_said {
                dialog.over = Some("the answer to the final NOTIFY");
            }
        }
    }

    /// Applies a failed transmission of a NOTIFY: the server may try again.
    ///
    /// One Call-ID may have two dialogs here, because a phone that has not received the response to the first opens
    /// another.
    pub fn undeliverable(&mut self, dialog: &(String, String), cseq: u32) {
        if let Some(dialog) = self.dialogs.get_mut(dialog).filter(|dialog| dialog.cseq == cseq) {
            dialog.answered = true;
            // A final NOTIFY that has not left does not count as sent.
            dialog.last_said = false;
        }
    }

    /// Applies an operator's reset: all watchers are notified, even those that are up to date.
    pub fn reset(&mut self, presentity: usize) {
        let concerned = self.dialogs.values_mut().filter(|dialog| dialog.expected.presentity == presentity);
        concerned.for_each(|dialog| dialog.settled = false);
    }

    /// Checks a NOTIFY. Returns the decision that has to be durable before it leaves.
    #[allow(clippy::too_many_arguments)]
    pub fn notify(
        &mut self,
        now: u64,
        decision: u64,
        m: &Message<'_>,
        bytes: &[u8],
        reliable: bool,
        truth: &Oracle,
        plan: &Scenario,
    ) -> Result<(u64, Leaving), String> {
        let tag = m.from.tag().ok_or("a NOTIFY without From tag")?;
        let Expected { presentity, package, .. } = self.expected(m.call_id).ok_or("a NOTIFY for nobody's Call-ID")?;
        let key = (m.call_id.to_string(), tag.to_string());
        let dialog = self.dialogs.get_mut(&key).ok_or("a NOTIFY before the 200 to its SUBSCRIBE")?;
        if let Some(why) = dialog.over {
            return Err(format!("a NOTIFY after {why}"));
        }
        let lamp = self.memo.read(package, m.body).map_err(|why| format!("a NOTIFY that cannot be read: {why}"))?;
        realm_isolation(m, &lamp, plan, presentity)?;
        let state = m.first(Name::SubscriptionState).ok_or("a NOTIFY without Subscription-State")?;
        let is_final = state.starts_with("terminated");
        let since = now.saturating_sub(dialog.sent_at);
        let waited = if dialog.reliable { TIMER_F } else { T1 };
        let version = version_of(m.body);
        if m.cseq.number == dialog.cseq && dialog.most.is_none() {
            repeated(dialog, bytes, since, reliable)?;
        } else {
            dialog.counts_on(m.cseq.number, version, package.0 == 0)?;
            if dialog.last_said {
                return Err("a NOTIFY after the final one".into());
            }
            if is_final && dialog.ended.is_none() && now < dialog.until.0 {
                return Err("a subscription is ended before its time".into());
            }
            if !dialog.answered && !dialog.asked && !is_final && since < waited {
                return Err(format!("a second NOTIFY {since} ms after one that is not answered"));
            }
            // A state that has gone and come back since, for example by an expiry while the server was down, is a
            // change.
            let unchanged = truth.changed_at(presentity) <= self.crashed_at;
            if dialog.settled && unchanged && !is_final && says_the_same(package, m.body, &dialog.bytes) {
                return Err("a phone that is up to date is told again after a restart".into());
            }
            if is_final {
                dialog.ended = dialog.ended.or(Some(decision));
            }
            if dialog.asked_by == decision {
                // Its phone has asked for the NOTIFY, if only by a retransmitted SUBSCRIBE.
                dialog.proven = dialog.proven.max(dialog.cseq);
            }
            (dialog.cseq, dialog.version, dialog.answered) = (m.cseq.number, version, false);
            dialog.unheard = false;
            dialog.heard_before = dialog.heard.or(dialog.heard_before);
            (dialog.most, dialog.heard, dialog.settled, dialog.made_by) = (None, None, false, decision);
            // Numbers that had not left before a crash may be used again.
            dialog.proven = dialog.proven.min(dialog.cseq - 1);
            dialog.bytes = bytes.to_vec();
            dialog.lamp = Some(lamp.clone());
            dialog.made.push((dialog.cseq, lamp.clone()));
            if truth.is_uncertain(now, presentity) {
                // It is unknown to which life of a call this state belongs.
                dialog.shown.clear();
            } else if let Some(law) = went_back(&mut dialog.shown, &lamp, |call| truth.lives_of(presentity, call)) {
                return Err(law);
            }
            // The NOTIFY contains the last decision about the presentity, so that has to be durable too.
            dialog.made_by = dialog.made_by.max(truth.unkept(presentity).unwrap_or_default());
        }
        (dialog.sent_at, dialog.asked, dialog.last_said) = (now, false, is_final);
        dialog.reliable = reliable;
        let true_lamp = truth.lamp(presentity, package);
        // The final NOTIFY is retransmitted unchanged, so it may be out of date; the phone drops the dialog anyway.
        if lamp != true_lamp && !truth.is_uncertain(now, presentity) && !is_final {
            return Err(format!("a NOTIFY leaves that says [{lamp}] while [{true_lamp}] is true"));
        }
        Ok((dialog.made_by, Leaving::Notify(key, dialog.cseq, dialog.version)))
    }

    /// Applies the departure of a message.
    pub fn left(&mut self, what: &Leaving) {
        match what {
            Leaving::Subscribed(key, until) => {
                if let Some(dialog) = self.dialogs.get_mut(key) {
                    dialog.promised = *until;
                    if dialog.until.0 == *until {
                        dialog.promised_for = dialog.granted;
                    }
                }
            }
            Leaving::Notify(key, cseq, version) => {
                if let Some(dialog) = self.dialogs.get_mut(key).filter(|dialog| dialog.left.0 < *cseq) {
                    dialog.left = (*cseq, *version);
                    let lamp = dialog.made.iter().find(|(made, _)| made == cseq).map(|(_, lamp)| lamp.clone());
                    dialog.left_lamp = lamp.or(dialog.left_lamp.take());
                    dialog.made.retain(|(made, _)| made > cseq);
                    if *cseq == dialog.cseq {
                        dialog.heard_before = None;
                    }
                }
            }
            Leaving::Other => {}
        }
    }

    /// Applies a crash of the server. `survived` says which decisions are in the journal, `noted` says which
    /// acknowledgements.
    pub fn crash(&mut self, now: u64, survived: impl Fn(u64) -> bool, noted: impl Fn(u64) -> bool) {
        self.crashed_at = now;
        // A SUBSCRIBE that is repeated across the crash gets the lifetime granted at first, and no more.
        self.answers.retain(|_, (by, _)| survived(*by));
        for dialog in self.dialogs.values_mut() {
            dialog.most = Some(dialog.most.unwrap_or(dialog.cseq) + RESERVE + 1);
            dialog.heard = dialog.heard.filter(|by| noted(*by));
            dialog.heard_before = None;
            dialog.settled = dialog.heard.is_some();
            dialog.proven = dialog.proven.max(dialog.cseq);
            if dialog.cseq != dialog.left.0 {
                // No phone has seen a NOTIFY that did not leave.
                dialog.made.clear();
                dialog.shown.clear();
                (dialog.cseq, dialog.version) = dialog.left;
            }
            dialog.answered = true;
            dialog.forget(&survived);
        }
    }

    /// Withdraws a NOTIFY that will not leave, because the change in it was rolled back.
    pub fn on_rollback(&mut self, key: &(String, String), cseq: u32) {
        if let Some(dialog) = self.dialogs.get_mut(key).filter(|dialog| dialog.cseq == cseq) {
            (dialog.answered, dialog.last_said) = (true, false);
            dialog.made.clear();
            dialog.shown.clear();
            dialog.lamp.clone_from(&dialog.left_lamp);
            dialog.heard = dialog.heard.or(dialog.heard_before.take());
        }
    }

    /// Applies a refused commit: decisions that were not durable are rolled back. The rollback journals anew, under
    /// its own decision, which NOTIFYs the phones have acknowledged.
    pub fn refused(&mut self, decision: u64, survived: impl Fn(u64) -> bool) {
        self.answers.retain(|_, (by, _)| survived(*by));
        for dialog in self.dialogs.values_mut() {
            // A dialog returns if the dialog that replaced it does not survive, and so does its NOTIFY in flight. The
            // server had removed it when the phone's response to that NOTIFY came, so it has no record of the
            // response.
            if let Some(by) = dialog.replaced_by.take_if(|by| !survived(*by)) {
                dialog.over = None;
                dialog.ended.take_if(|ended| *ended > by);
                dialog.answered &= !std::mem::take(&mut dialog.unheard);
            }
            // An end caused by the phone's response or by expiry remains, because no request caused it.
            let asked = dialog.granted == 0 && dialog.over.is_none();
            let ended = dialog.ended.filter(|_| !asked);
            let (over, last_said) = (dialog.over, dialog.last_said);
            dialog.forget(&survived);
            if ended.is_some() {
                (dialog.ended, dialog.over, dialog.last_said) = (ended, over, last_said);
            }
            for heard in [&mut dialog.heard, &mut dialog.heard_before] {
                *heard = heard.map(|_| decision);
            }
        }
    }

    /// Shifts all lifetimes: the server's clock will have jumped by `by` ms when it starts again. A subscription whose
    /// lifetime is over by then is not restored.
    pub fn shift(&mut self, now: u64, start: u64, by: i64) {
        for ((call_id, _), (_, until)) in &mut self.answers {
            let of_call = self.dialogs.iter().filter(|((of, _), _)| of == call_id);
            let granted = of_call.map(|(_, dialog)| dialog.granted).max().unwrap_or_default();
            *until = until.saturating_add_signed(-by).min(start + granted);
        }
        for dialog in self.dialogs.values_mut() {
            let (granted, promised) = (dialog.granted, dialog.promised_for);
            for (until, granted) in [(&mut dialog.until.0, granted), (&mut dialog.promised, promised)] {
                if *until > now {
                    *until = until.saturating_add_signed(-by).min(start + granted);
                }
            }
        }
    }

    /// Checks the Call-IDs of the subscriptions that the server has restored: all acknowledged ones, and none that has
    /// ended.
    ///
    /// `away` says which presentities belong to a tenant that is not configured.
    pub fn restarted(&self, now: u64, known: &[String], away: impl Fn(usize) -> bool) -> Result<(), (String, String)> {
        let mut counted: HashMap<&str, (usize, usize, usize)> = HashMap::new();
        for call_id in known {
            counted.entry(call_id).or_default().0 += 1;
        }
        for ((call_id, _), dialog) in self.dialogs.iter().filter(|(_, dialog)| !away(dialog.expected.presentity)) {
            let entry = counted.entry(call_id).or_default();
            entry.1 += usize::from(dialog.stands(now));
            entry.2 += usize::from(dialog.ended.is_none());
        }
        let mut wrong: Vec<_> = counted.into_iter().filter(|(_, (is, least, most))| is < least || is > most).collect();
        wrong.sort();
        match wrong.first() {
            Some((call_id, (is, least, _))) if is < least => {
                Err((call_id.to_string(), "an acknowledged subscription is lost in a crash".into()))
            }
            Some((call_id, _)) => {
                Err((call_id.to_string(), "a subscription that had ended is back after a crash".into()))
            }
            None => Ok(()),
        }
    }

    /// Checks liveness: a phone that answers receives every change in time, even while other phones are silent.
    pub fn check_liveness(
        &self,
        now: u64,
        up_since: u64,
        truth: &Oracle,
        away: impl Fn(usize) -> bool,
    ) -> Result<(), (String, String)> {
        for ((call_id, _), dialog) in self.dialogs.iter().filter(|(_, dialog)| !away(dialog.expected.presentity)) {
            let Expected { presentity, package, phone } = dialog.expected;
            let healthy = dialog.heard.is_some() && dialog.stands(now);
            if !healthy || truth.changed_at(presentity).max(up_since) + PROMPT > now {
                continue;
            }
            let true_lamp = truth.lamp(presentity, package);
            if let Some(lamp) = dialog.lamp.as_ref().filter(|lamp| **lamp != true_lamp) {
                let law = format!("phone {phone} answers, but is not told that [{lamp}] has become [{true_lamp}]");
                return Err((call_id.clone(), law));
            }
        }
        Ok(())
    }
}

/// Returns true if a body has the same content as that of an earlier NOTIFY, details included. Calls that had just
/// ended are ignored.
fn says_the_same(package: PackageId, body: &[u8], earlier: &[u8]) -> bool {
    let live = |body: &[u8]| match package::get(package).read(body) {
        Ok(PublishedState::Calls(mut report)) => {
            report.calls.retain(|call| call.state != CallState::Terminated);
            Some(PublishedState::Calls(report))
        }
        other => other.ok(),
    };
    wire::read(earlier).ok().flatten().is_some_and(|earlier| live(earlier.body) == live(body))
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

/// Checks that nothing crosses realms (rule 8).
fn realm_isolation(m: &Message<'_>, lamp: &Lamp, plan: &Scenario, presentity: usize) -> Result<(), String> {
    let (user, realm) = plan.name(presentity);
    let text = std::str::from_utf8(m.body).map_err(|_| "a body that is not UTF-8")?;
    if !text.contains(&format!("sip:{user}@{realm}")) {
        return Err(format!("a document that does not speak of {user}@{realm}"));
    }
    let foreign = |call: &&str| !call.is_empty() && !call.split('/').next().unwrap_or(call).ends_with(realm);
    if let Lamp::Calls(calls) = lamp
        && let Some(call) = calls.iter().map(|line| line.call.as_str()).find(foreign)
    {
        return Err(format!("{call} is shown in {realm}"));
    }
    Ok(())
}
