//! Phones with all their subscriptions: reboots, slow and silent phones, and phones that return on another path.

use lamplighter::presence::state::CallState::{Confirmed, Early};
use lamplighter::sip::Transport;
use lamplighter::transport::{Destination, FlowId, ListenerId, Source};

use crate::office::{Office, Phone, Sent};

const DESK: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"";
const KITCHEN: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e129>\"";

impl Phone {
    /// Adds an instance to its Contact.
    fn named(mut self, instance: &str) -> Phone {
        self.instance = format!(";{instance}");
        self
    }

    /// The phone after a reboot: it has lost its dialogs and subscribes anew from the same address.
    fn rebooted(&self) -> Phone {
        Phone { call_id: format!("{}again", self.call_id), tag: "new".into(), to_tag: None, cseq: 0, ..self.clone() }
    }

    fn for_another(&self, target: &str, event: &str) -> Phone {
        let (target, call_id) = (format!("sip:{target}@acme.test"), format!("{}{target}{event}", self.call_id));
        Phone { target, event: event.into(), call_id, to_tag: None, cseq: 0, ..self.clone() }
    }
}

fn dialogs(sent: &[Sent]) -> Vec<&str> {
    sent.iter().filter(|sent| sent.is_notify()).map(|sent| sent.message().call_id).collect()
}

fn listed(office: &Office) -> Vec<String> {
    let mut ids: Vec<_> = office.list().into_iter().map(|record| record.call_id).collect();
    ids.sort();
    ids
}

#[test]
fn a_rebooted_phone_that_names_its_instance_gets_one_subscription_for_its_old() {
    let mut office = Office::open();
    let mut before = office.phone("1001", "dialog").named(DESK);
    before.refresh(&mut office);
    let mut after = before.rebooted();
    after.refresh(&mut office);
    assert_eq!(listed(&office), [after.call_id.clone()]);
    assert_eq!(dialogs(&office.set("1001", Early)), [&after.call_id]);
    assert_eq!(before.subscribe(&mut office, 600)[0].status(), 481);
    office.crash();
    assert_eq!(listed(&office), [after.call_id], "the old one does not come back with a restart");
}

#[test]
fn phones_that_share_an_account_keep_their_lamps() {
    let mut office = Office::open();
    let mut desk = office.phone("1001", "dialog").named(DESK);
    desk.refresh(&mut office);
    // From the same address, with the same Contact.
    let mut kitchen = desk.rebooted().named(KITCHEN);
    kitchen.refresh(&mut office);
    assert_eq!(office.set("1001", Early).len(), 2);
}

#[test]
fn a_phone_has_one_subscription_for_each_target_event_and_id() {
    let mut office = Office::open();
    let mut first = office.phone("1001", "dialog").named(DESK);
    first.refresh(&mut office);
    for (target, event) in [("1002", "dialog"), ("1001", "presence"), ("1001", "dialog;id=7")] {
        first.for_another(target, event).refresh(&mut office);
    }
    assert_eq!(office.list().len(), 4);
    assert_eq!(first.rebooted().subscribe(&mut office, 0)[0].status(), 200, "a mere look");
    assert_eq!(office.list().len(), 4);
}

#[test]
fn a_rebooted_phone_finds_its_place_where_all_are_taken() {
    let mut office = Office::with("[limits]\nwatchers_per_presentity = 1\n");
    let mut desk = office.phone("1001", "dialog").named(DESK);
    desk.refresh(&mut office);
    desk.rebooted().refresh(&mut office);
    assert_eq!(office.phone("1001", "dialog").named(KITCHEN).subscribe(&mut office, 600)[0].status(), 480);
}

#[test]
fn a_phone_has_a_limit_of_its_own() {
    let mut office = Office::with("[limits]\nsubscriptions_per_device = 2\n");
    let mut desk = office.phone("1001", "dialog").named(DESK);
    desk.refresh(&mut office);
    desk.for_another("1002", "dialog").refresh(&mut office);
    let sent = desk.for_another("1003", "dialog").subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent.len()), (480, 1));
    assert!(sent[0].header("Warning").contains("limits.subscriptions_per_device"), "{}", sent[0].text);
    desk.rebooted().refresh(&mut office);
    office.phone("1003", "dialog").named(KITCHEN).refresh(&mut office);
}

#[test]
fn a_phone_that_names_no_instance_loses_only_the_dialog_that_it_does_not_answer_in() {
    let mut office = Office::open();
    let mut before = office.settled("1001", "dialog");
    let mut after = before.rebooted();
    after.refresh(&mut office);
    assert_eq!(office.list().len(), 2, "two phones may look alike from here");
    let sent = office.set("1001", Early);
    for notify in &sent {
        before.answer(&mut office, notify, 200);
    }
    office.pass(40_000);
    assert_eq!(office.list().len(), 2, "both have answered");
    after.rebooted().refresh(&mut office);
    let sent = office.set("1001", Confirmed);
    for notify in sent.iter().filter(|notify| notify.message().call_id != after.call_id) {
        before.answer(&mut office, notify, 200);
    }
    office.pass(40_000);
    assert!(!listed(&office).contains(&after.call_id) && office.list().len() == 2, "{:?}", listed(&office));
    assert_eq!(before.subscribe(&mut office, 600)[0].status(), 200);
}

#[test]
fn a_slow_phone_gets_twenty_at_once_and_ten_in_a_second_and_a_quick_one_all() {
    let (mut office, users) = (Office::open(), 100..160);
    let mut key = office.phone("100", "dialog").named(DESK);
    key.refresh(&mut office);
    for user in users.clone().skip(1) {
        let mut other = key.for_another(&user.to_string(), "dialog");
        let sent = other.subscribe(&mut office, 600);
        office.pass(300);
        other.answer(&mut office, &sent[1], 200);
    }
    office.pass(60_000);
    let burst: Vec<_> = users.clone().flat_map(|user| office.set(&user.to_string(), Early)).collect();
    assert_eq!(burst.len(), 20);
    // The phone answers every NOTIFY, but slowly; changes while a NOTIFY waits are merged into one.
    let again: Vec<_> = users.clone().flat_map(|user| office.set(&user.to_string(), Confirmed)).collect();
    assert_eq!(again, []);
    let mut told = Vec::new();
    for _ in 0..90 {
        let sent = office.pass_quietly(100);
        let news = sent.iter().filter(|notify| notify.states() == ["confirmed"]);
        let fresh: Vec<_> = news.filter(|n| !told.contains(&(n.message().call_id.to_string(), n.cseq()))).collect();
        assert!(fresh.len() <= 2 + 20, "at once: {}", fresh.len());
        told.extend(fresh.iter().map(|notify| (notify.message().call_id.to_string(), notify.cseq())));
        for notify in &sent {
            key.answer(&mut office, notify, 200);
        }
    }
    let mut lamps: Vec<_> = told.iter().map(|(call_id, _)| call_id.clone()).collect();
    lamps.sort();
    lamps.dedup();
    assert_eq!(lamps.len(), 60, "every lamp is right in the end");
    let mut sent: Vec<_> = users.clone().flat_map(|user| office.set(&user.to_string(), Early)).collect();
    for _ in 0..20 {
        for notify in &sent {
            key.answer(&mut office, notify, 200);
        }
        sent = office.pass_quietly(100);
    }
    let at_once: Vec<_> = users.flat_map(|user| office.set(&user.to_string(), Confirmed)).collect();
    let soon = office.pass_quietly(200);
    assert_eq!((at_once.len(), soon.len()), (20, 40), "quick answers earn a quicker pace");
}

/// A phone with three lamps that has not answered any of its NOTIFYs.
fn silent(office: &mut Office) -> [Phone; 3] {
    let mut first = office.phone("1001", "dialog");
    first.refresh(office);
    let mut keys = [first.clone(), first.for_another("1002", "dialog"), first.for_another("1003", "dialog")];
    for key in &mut keys[1..] {
        key.refresh(office);
    }
    for user in ["1001", "1002", "1003"] {
        assert_eq!(office.set(user, Early).len(), 1);
    }
    // The first probes have failed too; the next are minutes away.
    office.pass(200_000);
    keys
}

#[test]
fn a_refresh_of_one_subscription_wakes_all_of_a_silent_phone() {
    let mut office = Office::open();
    let mut keys = silent(&mut office);
    let sent = keys[0].subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]));
    let woken = office.pass_quietly(50);
    assert_eq!(dialogs(&woken), [&keys[1].call_id, &keys[2].call_id]);
    assert!(woken.iter().all(|notify| notify.states() == ["early"]));
}

#[test]
fn so_do_an_options_in_a_dialog_and_an_answer() {
    let mut office = Office::open();
    let keys = silent(&mut office);
    let options = keys[0].request(600).replace("SUBSCRIBE", "OPTIONS").replace("branch=z9hG4bK", "branch=z9hG4bKo");
    let sent = office.receive(keys[0].source, &options);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]));
    assert_eq!(dialogs(&office.pass_quietly(50)), [&keys[1].call_id, &keys[2].call_id]);

    let mut office = Office::open();
    let keys = silent(&mut office);
    let probes: Vec<_> = office.pass(300_000).into_iter().map(|(_, sent)| sent).collect();
    let at_last = probes.iter().rfind(|notify| notify.message().call_id == keys[1].call_id).unwrap();
    office.pass(40_000);
    keys[1].answer(&mut office, at_last, 200);
    let woken = office.pass_quietly(50);
    assert!(dialogs(&woken).contains(&&*keys[0].call_id) && dialogs(&woken).contains(&&*keys[2].call_id), "{woken:?}");
}

#[test]
fn a_phone_that_asked_to_be_left_alone_is_not_woken() {
    let mut office = Office::open();
    let mut first = office.settled("1001", "dialog");
    let mut second = first.for_another("1002", "dialog");
    second.refresh(&mut office);
    let sent = office.set("1002", Early);
    second.answer_with(&mut office, &sent[0], 503, "Retry-After: 100\r\n");
    first.subscribe(&mut office, 600);
    assert!(dialogs(&office.pass_quietly(400)).iter().all(|id| *id == first.call_id));
}

fn stream(flow: u64) -> Source {
    let peer = format!("198.51.100.7:{}", 40_000 + flow).parse().unwrap();
    Source { transport: Transport::Tcp, listener: ListenerId(1), peer, flow: Some(FlowId(flow)), certified: false }
}

fn flow_of(sent: &Sent) -> Option<u64> {
    match sent.to {
        Destination::Flow { flow, .. } => Some(flow.0),
        _ => None,
    }
}

#[test]
fn after_a_restart_the_other_keys_of_a_phone_follow_it_to_its_new_connection() {
    let mut office = Office::open();
    let mut first = office.phone("1001", "dialog").named(DESK);
    first.source = stream(1);
    first.refresh(&mut office);
    let mut second = first.for_another("1002", "dialog");
    second.refresh(&mut office);
    assert_eq!(office.crash().behind, 0);
    assert_eq!(office.pass_quietly(1_000), [], "dormant");
    first.source = stream(2);
    first.refresh(&mut office);
    assert_eq!(office.set("1002", Early).iter().map(flow_of).collect::<Vec<_>>(), [Some(2)]);
}

#[test]
fn a_key_whose_connection_is_gone_follows_to_the_one_that_the_phone_has_now() {
    let mut office = Office::open();
    let mut first = office.phone("1001", "dialog").named(DESK);
    first.source = stream(1);
    first.refresh(&mut office);
    let mut second = first.for_another("1002", "dialog");
    second.refresh(&mut office);
    first.source = stream(2);
    first.refresh(&mut office);
    let lost = office.set("1002", Early);
    assert_eq!(flow_of(&lost[0]), Some(1));
    let again = office.undeliverable(&lost[0]);
    assert_eq!((flow_of(&again[0]), again[0].states()), (Some(2), vec!["early".to_string()]));
    assert_eq!(office.undeliverable(&again[0]), [], "gone as well: it waits for the phone");
    first.source = stream(3);
    first.refresh(&mut office);
    let woken = office.pass_quietly(50);
    assert_eq!((flow_of(&woken[0]), dialogs(&woken)), (Some(3), vec![&*second.call_id]));
}
