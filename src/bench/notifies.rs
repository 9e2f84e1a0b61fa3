//! NOTIFYs: each one is answered and checked.

use super::body;
use super::book::{Life, Watcher};
use super::engine::Engine;
use super::ops::Kind;
use super::scan::{Scan, parameter};
use super::text::answer;
use crate::sip::headers::list;

/// One document in this many is also checked with the strict parser of its package; the others only with the fast one.
const THOROUGHLY: u64 = 64;

impl Engine {
    pub(super) fn take_request(&mut self, lane: usize, request: &Scan<'_>) {
        if request.method != "NOTIFY" {
            // A phone that only watches supports no other request.
            return self.net.lanes[lane].post(|out, _| answer(out, request, "405 Method Not Allowed"));
        }
        // The NOTIFY belongs to an earlier run, or to a dialog that was given up.
        let known = self.names.who(request.call_id).and_then(|who| self.book.find(who));
        let Some(number) = known.filter(|number| self.book.get(*number).cseq > 0) else {
            return self.net.lanes[lane].post(|out, _| answer(out, request, "481 Subscription Does Not Exist"));
        };
        self.net.lanes[lane].post(|out, _| answer(out, request, "200 OK"));
        self.tally.last = self.now;
        if lane != self.lane_of(number) {
            self.tally.faults.note("a NOTIFY went to another phone's address", || request.call_id.into());
        }
        if let Err(what) = self.check_notify(request, number) {
            let watcher = self.book.get(number).clone();
            let detail = || {
                let Watcher { extension, heard, version, step, life, .. } = watcher;
                let body = String::from_utf8_lossy(request.body);
                format!(
                    "NOTIFY {} ({}) to {} about e{extension}; before: CSeq {heard}, version {version:?}, \
                     step {step}, {life:?}; body: {body}",
                    request.cseq, request.state, request.call_id
                )
            };
            self.tally.faults.note(what, detail);
        }
    }

    /// Checks and applies a NOTIFY; the error names the violation.
    fn check_notify(&mut self, notify: &Scan<'_>, number: u32) -> Result<(), &'static str> {
        let tag = Scan::tag(notify.from).ok_or("a NOTIFY has no From tag")?;
        // Our tag equals the Call-ID.
        if Scan::tag(notify.to) != Some(notify.call_id) {
            return Err("a NOTIFY does not have our tag");
        }
        if self.book.tag(number).is_empty() {
            let routes: Vec<&str> = notify.all("Record-Route", "Record-Route").flat_map(list).collect();
            self.establish(notify, number, tag, &routes);
        } else if tag != self.book.tag(number) {
            return Err("a NOTIFY is of a dialog that we do not have");
        }
        let gap = match self.check_order(notify, number)? {
            Some(gap) => gap,
            None => return Ok(()),
        };
        self.tally.notifies += 1;
        self.tally.missed += if self.skips_are_expected { 0 } else { u64::from(gap) };
        let ended = self.check_state(notify, number);
        let shown = self.check_body(notify, number, gap);
        // Even a wrong NOTIFY is the awaited one: one fault must not be reported as two.
        self.notified(number, ended == Ok(true), shown.unwrap_or(u32::MAX));
        ended.and(shown.map(drop))
    }

    /// Checks CSeq and branch. Returns none for a retransmission, otherwise the number of NOTIFYs before it that never
    /// arrived.
    fn check_order(&mut self, notify: &Scan<'_>, number: u32) -> Result<Option<u32>, &'static str> {
        let branch = crc32fast::hash(notify.branch().as_bytes());
        let cseq = notify.cseq;
        let watcher = self.book.get_mut(number);
        if cseq == watcher.heard {
            if branch != watcher.branch {
                return Err("two NOTIFYs have the same CSeq");
            }
            self.tally.notify_copies += 1;
            return Ok(None);
        }
        if cseq < watcher.heard {
            return Err("CSeq fell");
        }
        let gap = if watcher.heard == 0 { 0 } else { cseq - watcher.heard - 1 };
        (watcher.heard, watcher.branch) = (cseq, branch);
        if watcher.life == Life::Closed {
            return Err("a NOTIFY came after the end of its subscription");
        }
        Ok(Some(gap))
    }

    /// Checks Event and Subscription-State. Returns true if the subscription has ended as requested.
    fn check_state<'a>(&mut self, notify: &Scan<'a>, number: u32) -> Result<bool, &'static str> {
        let before_params = |value: &'a str| value.split(';').next().unwrap_or_default().trim();
        if !before_params(notify.event).eq_ignore_ascii_case("dialog") {
            return Err("a NOTIFY is of another event package");
        }
        if notify.state.is_empty() {
            return Err("a NOTIFY has no Subscription-State");
        }
        let word = before_params(notify.state);
        if word.eq_ignore_ascii_case("active") {
            let left = parameter(notify.state, "expires").and_then(|seconds| seconds.parse::<u32>().ok());
            return match left {
                Some(left) if left <= self.settings.expires => Ok(false),
                _ => Err("a NOTIFY says no lifetime or too long a one"),
            };
        }
        if !word.eq_ignore_ascii_case("terminated") {
            return Err("a subscription is neither active nor terminated");
        }
        match self.book.get(number).life {
            Life::Closing => Ok(true),
            _ => {
                self.book.get_mut(number).life = Life::Closed;
                Err("the server ended a subscription")
            }
        }
    }

    /// Checks the version of the document, and returns its step.
    fn check_body(&mut self, notify: &Scan<'_>, number: u32, gap: u32) -> Result<u32, &'static str> {
        let watcher = self.book.get(number).clone();
        if notify.body.is_empty() {
            // The final NOTIFY of a subscription may be empty. Any other may be empty only if no call is known.
            let nothing_to_say = watcher.life == Life::Closing || watcher.step == 0;
            return if nothing_to_say { Ok(watcher.step) } else { Err("a NOTIFY has lost its document") };
        }
        let media = notify.content_type.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/dialog-info+xml") {
            return Err("a NOTIFY has another kind of body");
        }
        let shown = body::read(notify.body, &self.names, watcher.extension, &mut self.scratch)?;
        if self.tally.notifies % THOROUGHLY == 1 && !body::is_sound(notify.body) {
            return Err("a document breaks the rules of its package");
        }
        let (before, now) = (watcher.version, self.now);
        self.book.get_mut(number).version = Some(shown.version);
        // The lost NOTIFYs may have had documents or not.
        let most = if self.skips_are_expected { u32::MAX } else { gap + 1 };
        if before.is_some_and(|before| shown.version <= before || shown.version - before > most) {
            return Err("a document's version did not rise by one");
        }
        let lamp = self.lamps.get_mut(watcher.extension);
        if shown.step > lamp.sent {
            return Err("a document shows a state that was not published");
        }
        if shown.step < watcher.step {
            return Err("an older state came after a newer one");
        }
        if shown.step > watcher.step {
            self.book.get_mut(number).step = shown.step;
            if before.is_some() {
                self.tally.news += 1;
                self.tally.overtaken += u64::from(shown.step - watcher.step - 1);
                self.tally.notify.record(now - lamp.published_at(shown.step));
                lamp.reached += u32::from(shown.step == lamp.sent);
            }
        }
        Ok(shown.step)
    }

    /// Records that the NOTIFY of a pending request has arrived.
    fn notified(&mut self, number: u32, ended: bool, step: u32) {
        let slot = self.book.get(number).op;
        let now = self.now;
        let Some(op) = self.ops.get_mut(slot).filter(|op| !op.notified && op.kind.is_notified()) else { return };
        // A change may still arrive while the phone waits for the final NOTIFY.
        if op.kind == Kind::Unsubscribe && !ended {
            return;
        }
        op.notified = true;
        let (answered, kind) = (op.answered, op.kind);
        let stale = step < op.floor && kind != Kind::Unsubscribe;
        self.tally.notify.record(now - op.began);
        if stale {
            self.tally.faults.note("the NOTIFY to a SUBSCRIBE shows an old state", || format!("dialog {number}"));
        }
        if answered {
            self.finish(slot, true, 200, None);
        }
    }
}
