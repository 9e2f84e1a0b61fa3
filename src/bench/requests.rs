//! Requests of the phones and of the PBX, and the responses to them.

use super::body;
use super::dialogs::{DialogState, NOTHING};
use super::digest_client::{DigestClient, password};
use super::engine::{Done, Engine};
use super::fast_parse::Scan;
use super::messages::{Party, Publish, Subscribe};
use super::transactions::{Kind, Transaction};
use crate::sip::digest::Algorithm;
use crate::sip::headers::{NameAddr, list, retry_after, seconds};

/// Most challenges answered for one request. A server that asks more often would never accept it.
const PATIENCE: u8 = 3;

impl Engine {
    /// Starts a request, provided that the previous one on the same dialog or extension has ended.
    pub(super) fn start(&mut self, kind: Kind, number: u32) {
        let now = self.tick();
        match kind {
            Kind::Publish | Kind::Withdraw => {
                let lamp = self.lamps.get_mut(number);
                if kind == Kind::Publish {
                    lamp.advance(now);
                }
                lamp.cseq += 1;
                lamp.op = self.ops.begin(now, kind, number, 0);
                self.count_nonce(NOTHING);
            }
            _ => {
                let extension = self.book.get(number).extension;
                let floor = self.lamps.get_mut(extension).accepted;
                let slot = self.ops.begin(now, kind, number, floor);
                let watcher = self.book.get_mut(number);
                (watcher.op, watcher.cseq) = (slot, watcher.cseq + 1);
                match kind {
                    Kind::Subscribe => watcher.life = DialogState::Opening,
                    Kind::Unsubscribe => watcher.life = DialogState::Closing,
                    _ => {}
                }
                self.count_nonce(number);
            }
        }
        let slot = self.slot_of(kind, number);
        self.send(slot);
    }

    fn slot_of(&mut self, kind: Kind, number: u32) -> u32 {
        match kind {
            Kind::Publish | Kind::Withdraw => self.lamps.get_mut(number).op,
            _ => self.book.get(number).op,
        }
    }

    /// Increments the nonce count; a retransmission does not.
    fn count_nonce(&mut self, who: u32) {
        if !self.logins.is_empty()
            && let Some(login) = self.logins.get_mut(&who)
        {
            login.count += 1;
        }
    }

    /// Number of the user as which a dialog's phone authenticates.
    pub(super) fn phone_of(&self, watcher: u32) -> u32 {
        watcher % self.settings.phones
    }

    /// Sends or retransmits a request.
    pub(super) fn send(&mut self, slot: u32) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        let (kind, number) = (op.kind, op.number);
        match kind {
            Kind::Publish | Kind::Withdraw => self.send_publish(kind, number),
            _ => self.send_subscribe(kind, number),
        }
    }

    fn send_subscribe(&mut self, kind: Kind, number: u32) {
        let (phone, lane) = (self.phone_of(number), self.lane_of(number));
        let (mut contact, mut routes) = (std::mem::take(&mut self.contact), std::mem::take(&mut self.routes));
        let own = self.own_tag(number);
        self.book.target(number, &own, &mut contact, &mut routes);
        let watcher = self.book.get(number);
        let proof = match self.logins.is_empty() {
            true => String::new(),
            false => {
                let plain = format!("sip:e{}@{}", watcher.extension, self.names.domain);
                let uri = if contact.is_empty() { &plain } else { &contact };
                self.proof(number, &format!("p{phone}"), "SUBSCRIBE", uri)
            }
        };
        let subscribe = Subscribe {
            who: self.book.who(number),
            phone,
            extension: watcher.extension,
            cseq: watcher.cseq,
            expires: if kind == Kind::Unsubscribe { 0 } else { self.settings.expires },
            to_tag: self.book.tag(number),
            target: &contact,
            routes: &routes,
            proof: &proof,
        };
        let names = &self.names;
        self.net.lanes[lane].post(|out, lane| names.subscribe(out, lane, &subscribe));
        (self.contact, self.routes) = (contact, routes);
    }

    fn send_publish(&mut self, kind: Kind, extension: u32) {
        let uri = format!("sip:e{extension}@{}", self.names.domain);
        let proof = self.proof(NOTHING, "pbx", "PUBLISH", &uri);
        let lane = self.pbx_lane();
        let lamp = self.lamps.get_mut(extension);
        self.scratch.clear();
        let mut expires = 0;
        if kind == Kind::Publish {
            body::write(&mut self.scratch, &self.names, extension, lamp.sent);
            expires = self.settings.expires;
        }
        let (cseq, etag, body) = (lamp.cseq, &*lamp.etag, &*self.scratch);
        let publish = Publish { extension, cseq, expires, etag, proof: &proof, body };
        let names = &self.names;
        self.net.lanes[lane].post(|out, lane| names.publish(out, lane, &publish));
    }

    fn proof(&self, who: u32, user: &str, method: &str, uri: &str) -> String {
        let login = self.logins.get(&who);
        login.map_or_else(String::new, |login| login.proof(user, &password(user, &self.names.domain), method, uri))
    }

    /// Our tag in a dialog, which is also its Call-ID.
    pub(super) fn own_tag(&self, number: u32) -> String {
        format!("{}.w{}.{number}", self.names.run, self.book.get(number).epoch)
    }

    pub(super) fn take_answer(&mut self, answer: &Scan<'_>) {
        let status = answer.status;
        let Some(who) = self.names.who(answer.call_id).filter(|_| status >= 200) else { return };
        let (slot, cseq) = match who {
            Party::Lamp(extension) => {
                let lamp = self.lamps.get_mut(extension);
                (lamp.op, lamp.cseq)
            }
            Party::Watcher(..) => {
                let Some(number) = self.book.find(who) else { return };
                let watcher = self.book.get(number);
                (watcher.op, watcher.cseq)
            }
        };
        // A copy of a response that was already processed is ignored.
        let Some(op) = self.ops.get_mut(slot).filter(|op| !op.answered && cseq == answer.cseq) else { return };
        let (kind, number, notified) = (op.kind, op.number, op.notified);
        if status == 401 && op.challenges < PATIENCE {
            op.challenges += 1;
            return self.take_challenge(answer, slot);
        }
        op.answered = true;
        let took = self.now - op.began;
        *self.tally.statuses.entry(status).or_default() += 1;
        self.tally.last = self.now;
        if status >= 300 {
            return self.refused(answer, slot, status);
        }
        self.tally.answer.record(took);
        match kind {
            Kind::Publish | Kind::Withdraw => self.published(answer, kind, number),
            _ => self.subscribed(answer, kind, number),
        }
        if notified || !kind.is_notified() {
            self.finish(slot, true, status, None);
        }
    }

    /// Repeats the request with credentials.
    fn take_challenge(&mut self, answer: &Scan<'_>, slot: u32) {
        let Some(Transaction { kind, number, .. }) = self.ops.get_mut(slot).cloned() else { return };
        let is_publish = matches!(kind, Kind::Publish | Kind::Withdraw);
        // As in the field: some phones support SHA-256, most do not.
        let preferred = if number.is_multiple_of(2) { Algorithm::Md5 } else { Algorithm::Sha256 };
        let Some(login) = DigestClient::take(answer, preferred) else {
            self.tally.faults.note("a 401 has no challenge that can be answered", || answer.call_id.into());
            return self.finish(slot, false, 401, None);
        };
        let who = if is_publish { NOTHING } else { number };
        self.logins.insert(who, login);
        self.count_nonce(who);
        self.tally.challenges += 1;
        if is_publish {
            self.lamps.get_mut(number).cseq += 1;
        } else {
            self.book.get_mut(number).cseq += 1;
        }
        self.ops.restart(self.now, slot);
        self.send(slot);
    }

    fn refused(&mut self, answer: &Scan<'_>, slot: u32, status: u16) {
        let Some(Transaction { kind, number, .. }) = self.ops.get_mut(slot).cloned() else { return };
        if status == 412 {
            // The server has forgotten the publication; the next PUBLISH is an initial one.
            let lamp = self.lamps.get_mut(number);
            (lamp.etag, lamp.accepted) = (Box::default(), 0);
        }
        if !self.refusals_are_expected || (500..600).contains(&status) {
            let what = if status >= 500 { "a request was answered with 5xx" } else { "a request was refused" };
            self.tally.faults.note(what, || format!("{status} to a {} {number}", kind.name()));
        }
        let after = answer.first("Retry-After").and_then(retry_after);
        self.finish(slot, false, status, after);
    }

    fn subscribed(&mut self, answer: &Scan<'_>, kind: Kind, number: u32) {
        let Some(tag) = Scan::tag(answer.to) else {
            return self.tally.faults.note("a 200 to SUBSCRIBE has no To tag", || answer.call_id.into());
        };
        let granted = seconds(answer.expires);
        let asked = if kind == Kind::Unsubscribe { 0 } else { self.settings.expires };
        if granted.is_none_or(|granted| granted > asked) {
            let detail = || format!("{granted:?} of {asked} asked for by {}", answer.call_id);
            self.tally.faults.note("a 200 to SUBSCRIBE grants no lifetime or too long a one", detail);
        }
        if kind == Kind::Subscribe {
            let mut routes: Vec<&str> = answer.all("Record-Route", "Record-Route").flat_map(list).collect();
            routes.reverse();
            self.establish(answer, number, tag, &routes);
        } else if tag != self.book.tag(number) {
            self.tally.faults.note("the server's tag changed within a dialog", || answer.call_id.into());
        }
    }

    /// Establishes the dialog by the first message of the server in it, which may be a 200 or a NOTIFY (RFC 6665
    /// section 4.4.1).
    pub(super) fn establish(&mut self, message: &Scan<'_>, number: u32, tag: &str, routes: &[&str]) {
        let known = self.book.tag(number);
        if !known.is_empty() {
            if known != tag {
                self.tally.faults.note("the 200 and the NOTIFY are of different dialogs", || message.call_id.into());
            }
            return;
        }
        let contact = list(message.contact).next().and_then(NameAddr::read);
        let Some(contact) = contact else {
            return self.tally.faults.note("the server gives no Contact", || message.call_id.into());
        };
        let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        let own = self.own_tag(number);
        if !self.book.establish(number, tag, contact.uri, &routes, &own) {
            let detail = || format!("tag {tag}, Contact {}", contact.uri);
            self.tally.faults.note("the server's tags or Contacts are more than this tool can keep", detail);
        }
    }

    fn published(&mut self, answer: &Scan<'_>, kind: Kind, extension: u32) {
        let lamp = self.lamps.get_mut(extension);
        if kind == Kind::Withdraw {
            // Subscriptions from now on must show no call.
            (lamp.etag, lamp.accepted) = (Box::default(), 0);
            return;
        }
        lamp.accepted = lamp.sent;
        match answer.first("SIP-ETag") {
            Some(etag) => lamp.etag = etag.into(),
            None => self.tally.faults.note("a 200 to PUBLISH has no SIP-ETag", || answer.call_id.into()),
        }
    }

    /// Ends a request that has timed out.
    pub(super) fn give_up(&mut self, slot: u32) {
        let Some(Transaction { kind, number, answered, .. }) = self.ops.get_mut(slot).cloned() else { return };
        let what = if answered { "no NOTIFY came after a SUBSCRIBE" } else { "a request was never answered" };
        self.tally.faults.note(what, || format!("{} {number}", kind.name()));
        self.tally.lost += 1;
        self.finish(slot, false, 0, None);
    }

    pub(super) fn finish(&mut self, slot: u32, ok: bool, status: u16, retry_after: Option<u32>) {
        let Some(Transaction { kind, number, .. }) = self.ops.get_mut(slot).cloned() else { return };
        self.ops.end(slot);
        match kind {
            Kind::Publish | Kind::Withdraw => self.lamps.get_mut(number).op = NOTHING,
            _ => {
                let watcher = self.book.get_mut(number);
                watcher.op = NOTHING;
                watcher.life = match kind {
                    Kind::Unsubscribe => DialogState::Closed,
                    _ if ok => DialogState::Open,
                    Kind::Refresh if status != 481 => DialogState::Open,
                    _ => DialogState::Closed,
                };
            }
        }
        *(if ok { &mut self.tally.done } else { &mut self.tally.failed }) += 1;
        self.tally.last = self.now;
        self.done.push(Done { kind, number, ok, status, retry_after });
    }
}
