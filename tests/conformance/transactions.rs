//! Group C: client and server transactions (RFC 3261 section 17, RFC 4320).

use lamplighter::notifier::Outbox;
use lamplighter::presence::Tick;
use lamplighter::presence::state::CallState::{Confirmed, Early};
use lamplighter::sip::Transport;
use lamplighter::sip::wire;
use lamplighter::transport::{FlowId, ListenerId, Source};

use crate::bench::Expected::{Answer, Silence, Subscribed};
use crate::bench::{Bench, compare};
use crate::notifier::tcp_source;
use crate::office::{Office, Phone, Sent};
use crate::request::Request;
use crate::{URI, options, publish, subscribe};

/// Branch in the Via of a NOTIFY.
fn branch(notify: &Sent) -> String {
    notify.message().via.branch().unwrap().to_owned()
}

#[test]
fn a_request_is_known_by_branch_sent_by_and_method() {
    // C-001: each of these is another transaction. Its content equals the first, so it counts as a merged request that
    // took another path (8.2.2.2).
    let via = |sent_by: &str| format!("Via: SIP/2.0/UDP {sent_by};branch=z9hG4bKsame");
    let bench = Bench::new();
    let first = bench.udp(subscribe().put(&via("192.0.2.99:5070")).bytes());
    compare("C-001", &first, Subscribed);
    for sent_by in ["192.0.2.99:5071", "192.0.2.99", "192.0.2.98:5070", "phone.example:5070"] {
        compare(sent_by, &bench.udp(subscribe().put(&via(sent_by)).bytes()), Answer(&[482]));
    }
    assert_eq!(bench.udp(subscribe().put(&via("192.0.2.99:5070")).bytes())[0].text, first[0].text);
    compare("another method", &bench.udp(options().put(&via("192.0.2.99:5070")).bytes()), Answer(&[200]));
}

#[test]
fn without_the_cookie_a_request_is_known_by_all_that_it_says() {
    // C-002
    let bench = Bench::new();
    let old = |call_id: &str, n: u32| {
        publish("early")
            .put("Via: SIP/2.0/UDP 192.0.2.99:5070;branch=1")
            .put(&format!("Call-ID: {call_id}"))
            .put(&format!("CSeq: {n} PUBLISH"))
    };
    let tag = |request: &Request| bench.udp(request.bytes())[0].header("SIP-ETag").to_owned();
    let first = tag(&old("a", 1));
    assert_eq!(tag(&old("a", 1)), first, "a repetition");
    assert_ne!(tag(&old("b", 1)), first);
    assert_ne!(tag(&old("a", 2)), first);
}

#[test]
fn for_32_seconds_a_repeated_request_gets_its_answer_again_and_changes_nothing() {
    // C-003, C-004, C-007
    let mut bench = Bench::new();
    let (first, publication) = (bench.udp(subscribe().bytes()), publish("early").bytes());
    let etag = bench.udp(&publication)[0].header("SIP-ETag").to_owned();
    for _ in 0..3 {
        bench.wait(7_000);
        let again = bench.udp(&publication);
        compare("C-004", &again, Answer(&[200]));
        assert_eq!(again[0].header("SIP-ETag"), etag);
        let again = bench.udp(subscribe().bytes());
        assert_eq!((again.len(), &again[0].text), (1, &first[0].text));
    }
    assert_eq!(bench.notifier.subscriptions(), 1);
}

#[test]
fn a_request_repeated_on_a_stream_changes_the_state_once() {
    // C-005: on streams Timer J is zero, but the request is still recognised by its branch.
    let bench = Bench::new();
    let request = subscribe().put("Via: SIP/2.0/TCP 192.0.2.99:5070;branch=z9hG4bKstream").bytes();
    let source = tcp_source("192.0.2.99:40000");
    let first = bench.send_from(source, &request);
    compare("C-005", &first, Subscribed);
    let again = bench.send_from(source, &request);
    assert_eq!((again.len(), &again[0].text), (1, &first[0].text));
    assert_eq!(bench.notifier.subscriptions(), 1);
}

/// A SUBSCRIBE has been decided, and its records wait for the journal.
fn stalled(source: Option<Source>) -> (Office, Phone, Outbox) {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.source = source.unwrap_or(phone.source);
    phone.cseq = 1;
    let out = repeat(&office, &phone);
    assert!(!out.records.is_empty());
    (office, phone, out)
}

fn repeat(office: &Office, phone: &Phone) -> Outbox {
    let mut out = Outbox::default();
    office.notifier.receive(Tick(office.now), phone.source, phone.request(600).as_bytes(), &mut out);
    out
}

/// The journal refuses the records at this time.
fn refuse(office: &Office, now: u64, out: &mut Outbox) -> Outbox {
    let mut left = Outbox::default();
    out.take_records();
    office.notifier.roll_back(Tick(now), std::mem::take(out), None, &mut left);
    left
}

/// Statuses of the messages sent; 0 for a NOTIFY.
fn statuses(out: &Outbox) -> Vec<u16> {
    out.messages.iter().map(|p| wire::read(&p.bytes).unwrap().unwrap().status().unwrap_or_default()).collect()
}

#[test]
fn while_a_request_is_worked_on_its_copies_are_absorbed_and_later_told_100() {
    // C-006, C-009: not before the client's Timer E has reached T2, which its retransmission after 3.5 seconds shows.
    let (mut office, phone, mut out) = stalled(None);
    let began = office.now;
    for (at, said) in [(500, vec![]), (1_500, vec![]), (3_500, vec![100]), (7_500, vec![100])] {
        office.now = began + at;
        assert_eq!(statuses(&repeat(&office, &phone)), said, "after {at} ms");
    }
    office.now += 8_000;
    office.notifier.on_committed(Tick(office.now), &mut out);
    assert_eq!(statuses(&out), [200, 0], "one final answer");
    assert_eq!(statuses(&repeat(&office, &phone)), [200]);
}

#[test]
fn a_100_has_no_tag_and_there_is_none_on_a_stream() {
    // C-009
    let (mut office, phone, _) = stalled(None);
    office.now += 4_000;
    let out = repeat(&office, &phone);
    assert_eq!(wire::read(&out.messages[0].bytes).unwrap().unwrap().to.text, "<sip:1001@acme.test>");
    let peer = "198.51.100.7:40000".parse().unwrap();
    let stream =
        Source { transport: Transport::Tcp, listener: ListenerId(1), peer, flow: Some(FlowId(1)), certified: false };
    let (mut office, phone, _) = stalled(Some(stream));
    office.now += 4_000;
    assert!(repeat(&office, &phone).is_empty());
}

#[test]
fn what_could_not_be_kept_is_503_and_never_408() {
    // C-007, C-008
    let (office, phone, mut out) = stalled(None);
    let out = refuse(&office, office.now + 20_000, &mut out);
    assert_eq!(statuses(&out)[0], 503);
    assert_eq!(statuses(&repeat(&office, &phone)), [503]);
}

#[test]
fn an_answer_that_comes_too_late_is_not_given() {
    // C-010: the client has timed out. If the change was made, its NOTIFY reports it; if not, nothing is sent.
    let (office, _, mut out) = stalled(None);
    office.notifier.on_committed(Tick(office.now + 32_000), &mut out);
    assert_eq!(statuses(&out), [0]);
    let (office, _, mut out) = stalled(None);
    assert!(statuses(&refuse(&office, office.now + 32_000, &mut out)).is_empty());
    let (office, _, mut out) = stalled(None);
    office.notifier.on_committed(Tick(office.now + 31_900), &mut out);
    assert_eq!(statuses(&out), [200, 0]);
}

#[test]
fn a_notify_without_an_answer_leaves_eleven_times_in_32_seconds() {
    // C-011, C-012, C-014 (the subscription is suspended and not removed: rule 6, a listed deviation)
    let mut office = Office::open();
    office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    let copies = office.pass(36_000);
    let at: Vec<_> = copies.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert!(copies.iter().all(|(_, copy)| copy.text == sent[0].text), "the same branch, CSeq and octets");
    assert_eq!(office.list()[0].last.as_ref().unwrap().reply, 408);
}

#[test]
fn after_a_100_copies_leave_every_four_seconds_until_timer_f() {
    // C-012
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    phone.answer(&mut office, &sent[0], 100);
    let at: Vec<_> = office.pass(36_000).iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [4_000, 8_000, 12_000, 16_000, 20_000, 24_000, 28_000]);
}

#[test]
fn an_answer_from_another_branch_or_sent_by_stops_nothing() {
    // C-018, C-020
    for (from, to) in [("branch=z9hG4bK", "branch=z9hG4bKx"), ("192.0.2.1:5060", "192.0.2.1:5061")] {
        let mut office = Office::open();
        let (phone, sent) = office.watch("1001", "dialog");
        let bent = Sent { text: sent[1].text.replacen(from, to, 1), ..sent[1].clone() };
        assert_ne!(bent.text, sent[1].text);
        assert_eq!(phone.answer(&mut office, &bent, 200), []);
        assert_eq!(office.pass_quietly(600).len(), 1, "{to}");
    }
}

#[test]
fn no_branch_is_used_twice() {
    // C-022: over many NOTIFYs of one dialog, and of several dialogs.
    let mut office = Office::open();
    let phones = [office.settled("1001", "dialog"), office.settled("1001", "dialog")];
    let mut branches = Vec::new();
    for n in 0..500 {
        office.now += 1_000;
        let sent = office.set("1001", if n % 2 == 0 { Early } else { Confirmed });
        assert_eq!(sent.len(), 2);
        for notify in &sent {
            let phone = phones.iter().find(|p| p.call_id == notify.message().call_id).unwrap();
            phone.answer(&mut office, notify, 200);
            branches.push(branch(notify));
        }
    }
    assert!(branches.iter().all(|branch| branch.starts_with("z9hG4bK")));
    branches.sort();
    branches.dedup();
    assert_eq!(branches.len(), 1_000);
}

#[test]
fn a_status_that_nobody_knows_counts_as_the_first_of_its_kind() {
    // C-023, C-024
    for (status, replied) in [(299, true), (399, false), (499, false), (599, false), (699, false)] {
        let mut office = Office::open();
        let (phone, sent) = office.watch("1001", "dialog");
        assert_eq!(phone.answer(&mut office, &sent[1], status), []);
        assert_eq!(office.list().len(), 1, "{status}");
        assert_eq!(office.pass_quietly(60_000).is_empty(), replied, "{status}");
    }
}

#[test]
fn a_challenge_to_a_notify_makes_no_loop() {
    // C-025: the server has no credentials for the challenge, so the NOTIFY has failed, and is retried like any failed
    // one.
    for status in [401, 407] {
        let mut office = Office::open();
        let (phone, sent) = office.watch("1001", "dialog");
        let challenge = "WWW-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n";
        assert_eq!(phone.answer_with(&mut office, &sent[1], status, challenge), []);
        assert_eq!((office.pass_quietly(4_900), office.list().len()), (vec![], 1));
    }
}

#[test]
fn an_invite_is_refused_once_for_each_copy_and_its_ack_absorbed() {
    // C-026, C-027: a stateless 405 is sent again for each retransmission of the INVITE.
    let mut bench = Bench::new();
    let invite = Request::new("INVITE", URI);
    let first = bench.udp(invite.bytes());
    compare("C-026", &first, Answer(&[405]));
    assert_eq!(bench.wait(60_000).len(), 0, "nothing leaves by itself");
    let again = bench.udp(invite.bytes());
    compare("C-026", &again, Answer(&[405]));
    assert_eq!(again[0].text, first[0].text);
    let ack = Request::new("ACK", URI).put(&format!("To: {}", first[0].header("To")));
    compare("C-027", &bench.udp(ack.bytes()), Silence);
    assert_eq!(bench.wait(60_000).len(), 0);
}

#[test]
fn what_a_dialog_is_told_comes_in_order() {
    // C-030: the next NOTIFY waits for the response to the last, and shows the state at that time.
    let mut office = Office::open();
    let (phone, mut sent) = office.watch("1001", "dialog");
    let mut told = vec![(1, sent[1].version())];
    for state in [Early, Confirmed, Early] {
        assert_eq!(office.set("1001", state), [], "one is under way");
        office.now += 300;
        sent = phone.answer(&mut office, sent.last().unwrap(), 200);
        told.push((sent[0].cseq(), sent[0].version()));
    }
    assert_eq!(told, [(1, 0), (2, 1), (3, 2), (4, 3)]);
}
