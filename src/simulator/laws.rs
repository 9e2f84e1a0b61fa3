//! The laws, checked on every message that the server decides to send, and on those that leave.

use std::collections::HashMap;

use super::lamp::{Lamp, Memo};
use super::phone::version_of;
use super::plan::Plan;
use super::screen::{Shown, went_back};
use super::truth::{COARSENESS, Truth};
use crate::package::{self, PackageId};
use crate::presence::state::{CallState, PublishedState};
use crate::sip::wire::{self, Message, Name};

/// The shortest time after which a NOTIFY without answer may be repeated or superseded (ms): Timer E.
const T1: u64 = 500;
/// On a stream only the end of the transaction makes way for the next (ms): Timer F.
const TIMER_F: u64 = 32_000;
/// Answers that end a dialog (RFC 6665 section 4.2.2), of those that phones give here.
const ENDING: [u16; 1] = [481];
/// How many CSeq numbers and versions a crash may skip: the server reserves 64 at a time, and more may have left while the
/// disk refused to reserve them.
const RESERVE: u32 = 64 + (1 << 16);
/// How long a phone that answers may be behind (ms): time for a server that paces NOTIFYs to each phone.
const PROMPT: u64 = 5_000;

/// Whom a Call-ID is for.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Whom it is about.
    pub presentity: usize,
    /// By which package.
    pub package: PackageId,
    /// Who subscribes.
    pub phone: usize,
}

/// What is known of a dialog that the server has accepted.
#[derive(Debug)]
pub(super) struct Dialog {
    expected: Expected,
    cseq: u32,
    version: Option<u32>,
    bytes: Vec<u8>,
    sent_at: u64,
    /// The latest NOTIFY went over a stream; a large one may, in a dialog over UDP.
    reliable: bool,
    answered: bool,
    /// A SUBSCRIBE came since the last NOTIFY.
    asked: bool,
    last_said: bool,
    shown: Shown,
    lamp: Option<Lamp>,
    over: Option<&'static str>,
    /// The last NOTIFY when the phone last proved to have the dialog, by a SUBSCRIBE or a 200: what it says of this one
    /// and earlier ones is out of date.
    proven: u32,
    /// The decision by which the last NOTIFY was made.
    made_by: u64,
    /// CSeq and version of the last NOTIFY that left.
    left: (u32, Option<u32>),
    /// After a crash: the most that the next CSeq may be.
    most: Option<u32>,
    /// The lifetime that was granted last, and by which decision.
    until: (u64, u64),
    /// For how long that was granted (ms).
    granted: u64,
    /// The lifetime granted by the last 200 that left, and for how long that was (ms).
    promised: u64,
    promised_for: u64,
    /// What the last NOTIFY that left shows, and what those show that were made and have not left, by CSeq.
    left_lamp: Option<Lamp>,
    made: Vec<(u32, Lamp)>,
    /// What `heard` was before the NOTIFYs that have not left.
    heard_before: Option<u64>,
    /// The decision by which it ended.
    ended: Option<u64>,
    /// Its phone has subscribed anew, so it may be dropped in silence.
    replaced: bool,
    /// The decision that may have replaced it.
    replaced_by: Option<u64>,
    /// Its latest NOTIFY was answered since then, which a server that had let go of it has not noted.
    unheard: bool,
    /// The decision by which its latest SUBSCRIBE was answered.
    asked_by: u64,
    /// The last NOTIFY was answered with 200; by which decision the server took note of that.
    heard: Option<u64>,
    /// It was up to date when the server crashed, and nothing has happened since.
    settled: bool,
}

/// What a message becomes when it leaves.
#[derive(Clone, Debug)]
pub enum Leaving {
    /// An acknowledged subscription, until then.
    Subscribed((String, String), u64),
    /// A NOTIFY with this CSeq and version.
    Notify((String, String), u32, Option<u32>),
    /// Nothing that a law is about.
    Other,
}

/// The watcher of the laws.
#[derive(Debug, Default)]
pub struct Laws {
    /// What each Call-ID is for.
    expected: HashMap<String, Expected>,
    /// By Call-ID and the server's tag.
    dialogs: HashMap<(String, String), Dialog>,
    /// By which decision a SUBSCRIBE was answered, and until when it lives: by Call-ID and CSeq.
    answers: HashMap<(String, u32), (u64, u64)>,
    /// When the server crashed last.
    crashed_at: u64,
    pub(super) memo: Memo,
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

    /// What was decided and has not survived has not happened.
    fn forget(&mut self, survived: impl Fn(u64) -> bool) {
        if !survived(self.until.1) {
            (self.until.0, self.granted) = (self.promised, self.promised_for);
        }
        if self.ended.is_some_and(|by| !survived(by)) {
            (self.ended, self.over, self.last_said) = (None, None, false);
        }
    }

    /// The server has to know it.
    fn stands(&self, now: u64) -> bool {
        let lives = self.promised.min(self.until.0) > now + COARSENESS;
        lives && self.ended.is_none() && self.over.is_none() && !self.replaced
    }

    /// The numbers of a new NOTIFY follow those before; over a crash they may skip, and never fall.
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

impl Laws {
    /// A phone will subscribe under this Call-ID.
    pub fn expect(&mut self, call_id: String, expected: Expected) {
        self.expected.insert(call_id, expected);
    }

    /// Whom a Call-ID is about.
    pub fn expected(&self, call_id: &str) -> Option<Expected> {
        self.expected.get(call_id).copied()
    }

    /// The server decides to answer a SUBSCRIBE with 200. Gives the decision that has to be kept before.
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
        // The same SUBSCRIBE again: when its transaction is forgotten, it brings a NOTIFY as well.
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

    /// The server decides to say that it knows no such subscription.
    pub fn disowned(&self, now: u64, answer: &Message<'_>) -> Result<(), String> {
        let key = (answer.call_id.to_string(), answer.to.tag().unwrap_or_default().to_string());
        match self.dialogs.get(&key) {
            Some(dialog) if dialog.stands(now) => Err("an acknowledged subscription is not known to the server".into()),
            _ => Ok(()),
        }
    }

    /// The server is told the fate of a NOTIFY, which makes for this decision.
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
        // A number that was counted before a crash and may be used again by now says nothing.
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

    /// The server is told that a NOTIFY could not be sent: it may try again.
    ///
    /// One Call-ID may have two dialogs here: a phone that has not heard of the first asks for another.
    pub fn undeliverable(&mut self, dialog: &(String, String), cseq: u32) {
        if let Some(dialog) = self.dialogs.get_mut(dialog).filter(|dialog| dialog.cseq == cseq) {
            dialog.answered = true;
            // A final one that has not left has not been said.
            dialog.last_said = false;
        }
    }

    /// An operator resets somebody: all are told, whatever they know.
    pub fn reset(&mut self, presentity: usize) {
        let concerned = self.dialogs.values_mut().filter(|dialog| dialog.expected.presentity == presentity);
        concerned.for_each(|dialog| dialog.settled = false);
    }

    /// The server decides to send a NOTIFY. Gives the decision that has to be kept before.
    #[allow(clippy::too_many_arguments)]
    pub fn notify(
        &mut self,
        now: u64,
        decision: u64,
        m: &Message<'_>,
        bytes: &[u8],
        reliable: bool,
        truth: &Truth,
        plan: &Plan,
    ) -> Result<(u64, Leaving), String> {
        let tag = m.from.tag().ok_or("a NOTIFY without From tag")?;
        let Expected { presentity, package, .. } = self.expected(m.call_id).ok_or("a NOTIFY for nobody's Call-ID")?;
        let key = (m.call_id.to_string(), tag.to_string());
        let dialog = self.dialogs.get_mut(&key).ok_or("a NOTIFY before the 200 to its SUBSCRIBE")?;
        if let Some(why) = dialog.over {
            return Err(format!("a NOTIFY after {why}"));
        }
        let lamp = self.memo.read(package, m.body).map_err(|why| format!("a NOTIFY that cannot be read: {why}"))?;
        walls(m, &lamp, plan, presentity)?;
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
            // What has gone and come back since, as by an expiry while the server was down, is news.
            let unchanged = truth.changed_at(presentity) <= self.crashed_at;
            if dialog.settled && unchanged && !is_final && says_the_same(package, m.body, &dialog.bytes) {
                return Err("a phone that is up to date is told again after a restart".into());
            }
            if is_final {
                dialog.ended = dialog.ended.or(Some(decision));
            }
            if dialog.asked_by == decision {
                // Its phone has asked for it, if only by the same SUBSCRIBE once more.
                dialog.proven = dialog.proven.max(dialog.cseq);
            }
            (dialog.cseq, dialog.version, dialog.answered) = (m.cseq.number, version, false);
            dialog.unheard = false;
            dialog.heard_before = dialog.heard.or(dialog.heard_before);
            (dialog.most, dialog.heard, dialog.settled, dialog.made_by) = (None, None, false, decision);
            // Numbers that had not left before a crash may come again.
            dialog.proven = dialog.proven.min(dialog.cseq - 1);
            dialog.bytes = bytes.to_vec();
            dialog.lamp = Some(lamp.clone());
            dialog.made.push((dialog.cseq, lamp.clone()));
            if truth.is_uncertain(now, presentity) {
                // Which life of a call this shows cannot be told.
                dialog.shown.clear();
            } else if let Some(law) = went_back(&mut dialog.shown, &lamp, |call| truth.lives_of(presentity, call)) {
                return Err(law);
            }
            // It tells what was decided last, whoever decided that.
            dialog.made_by = dialog.made_by.max(truth.unkept(presentity).unwrap_or_default());
        }
        (dialog.sent_at, dialog.asked, dialog.last_said) = (now, false, is_final);
        dialog.reliable = reliable;
        let true_lamp = truth.lamp(presentity, package);
        // The final NOTIFY is repeated as it is: nobody is shown it for long.
        if lamp != true_lamp && !truth.is_uncertain(now, presentity) && !is_final {
            return Err(format!("a NOTIFY leaves that says [{lamp}] while [{true_lamp}] is true"));
        }
        Ok((dialog.made_by, Leaving::Notify(key, dialog.cseq, dialog.version)))
    }

    /// A message leaves.
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

    /// The server has crashed. `survived` tells which decisions are in the journal, `noted` which acknowledgements.
    pub fn crash(&mut self, now: u64, survived: impl Fn(u64) -> bool, noted: impl Fn(u64) -> bool) {
        self.crashed_at = now;
        // A SUBSCRIBE that is repeated over the crash is granted what it was granted then, and no more.
        self.answers.retain(|_, (by, _)| survived(*by));
        for dialog in self.dialogs.values_mut() {
            dialog.most = Some(dialog.most.unwrap_or(dialog.cseq) + RESERVE + 1);
            dialog.heard = dialog.heard.filter(|by| noted(*by));
            dialog.heard_before = None;
            dialog.settled = dialog.heard.is_some();
            dialog.proven = dialog.proven.max(dialog.cseq);
            if dialog.cseq != dialog.left.0 {
                // What did not leave was shown to nobody.
                dialog.made.clear();
                dialog.shown.clear();
                (dialog.cseq, dialog.version) = dialog.left;
            }
            dialog.answered = true;
            dialog.forget(&survived);
        }
    }

    /// A NOTIFY will not leave, for what it tells of has not happened.
    pub fn withdrawn(&mut self, key: &(String, String), cseq: u32) {
        if let Some(dialog) = self.dialogs.get_mut(key).filter(|dialog| dialog.cseq == cseq) {
            (dialog.answered, dialog.last_said) = (true, false);
            dialog.made.clear();
            dialog.shown.clear();
            dialog.lamp.clone_from(&dialog.left_lamp);
            dialog.heard = dialog.heard.or(dialog.heard_before.take());
        }
    }

    /// The journal has refused a commit: what was decided and not kept has not happened. What phones know is remarked anew by
    /// the decision that undoes it.
    pub fn refused(&mut self, decision: u64, survived: impl Fn(u64) -> bool) {
        self.answers.retain(|_, (by, _)| survived(*by));
        for dialog in self.dialogs.values_mut() {
            // One comes back where the dialog that has replaced it does not, and with it the NOTIFY that was under way: what
            // its phone has said of that meanwhile was said to a server that had let go of it.
            if let Some(by) = dialog.replaced_by.take_if(|by| !survived(*by)) {
                dialog.over = None;
                dialog.ended.take_if(|ended| *ended > by);
                dialog.answered &= !std::mem::take(&mut dialog.unheard);
            }
            // What a phone or its time has ended stays so: nobody has asked for that.
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

    /// The server's clock will have gone on by so much (ms), or back, when it starts again.
    /// What is over by then is not back.
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

    /// The server is back and knows subscriptions with these Call-IDs: all that were acknowledged, none that has ended.
    ///
    /// `away` tells which presentities belong to a tenant that is not configured.
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

    /// Nobody who answers is kept waiting for news, whoever else may be silent.
    pub fn roll_call(
        &self,
        now: u64,
        up_since: u64,
        truth: &Truth,
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

/// Whether a body says what that of an earlier NOTIFY said, details included; but for calls that had just ended then.
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

/// Nothing crosses realms (law 8).
fn walls(m: &Message<'_>, lamp: &Lamp, plan: &Plan, presentity: usize) -> Result<(), String> {
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
