//! A change is not announced to any peer before the journal has made it durable (rule 5).

use lamplighter::directory::AccountNo;
use lamplighter::notifier::Outbox;
use lamplighter::presence::Tick;
use lamplighter::sip::wire;

use crate::office::{Office, Phone};

/// A SUBSCRIBE has been decided, and its records wait for the journal.
fn undecided() -> (Office, Phone, Outbox) {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.cseq = 1;
    let out = take(&office, &phone);
    assert!(!out.records.is_empty());
    (office, phone, out)
}

fn take(office: &Office, phone: &Phone) -> Outbox {
    let mut out = Outbox::default();
    office.notifier.receive(Tick(office.now), phone.source, phone.request(600).as_bytes(), &mut out);
    out
}

/// The journal refuses the records.
fn refuse(office: &Office, out: &mut Outbox) -> Outbox {
    let mut left = Outbox::default();
    out.take_records();
    office.notifier.roll_back(Tick(office.now), std::mem::take(out), None, &mut left);
    left
}

fn statuses(out: &Outbox) -> Vec<Option<u16>> {
    out.messages.iter().map(|packet| wire::read(&packet.bytes).unwrap().unwrap().status()).collect()
}

#[test]
fn a_repeated_request_gets_nothing_before_its_change_is_kept_and_then_the_same_answer() {
    let (office, phone, mut out) = undecided();
    assert!(take(&office, &phone).is_empty());
    let answer = out.messages[0].bytes.clone();
    office.notifier.on_committed(Tick(office.now), &mut out);
    assert_eq!(take(&office, &phone).messages[0].bytes, answer);
}

#[test]
fn a_request_whose_change_cannot_be_kept_is_told_503_every_time() {
    let (office, phone, mut out) = undecided();
    let out = refuse(&office, &mut out);
    assert_eq!(statuses(&out), [Some(503)], "and no NOTIFY: there is no subscription");
    assert_eq!(statuses(&take(&office, &phone)), [Some(503)]);
    let listed = office.notifier.refusal_rows(Some(AccountNo(0)), None, 10);
    let brief: Vec<_> = listed.iter().map(|row| (row.who.as_deref(), row.status, row.reason, row.count)).collect();
    assert_eq!(brief, [(Some("1002@acme.test"), Some(503), "Journal Unavailable", 1)]);
    assert_eq!(office.notifier.subscriptions(), 0);
}
