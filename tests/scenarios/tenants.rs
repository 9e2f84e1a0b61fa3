//! Tenants that are removed from the configuration and added again, with restarts and compactions in between: none of
//! their numbers, slots or tags is given to another tenant (rule 8), and all their state is complete when they are
//! back.

use lamplighter::directory::AccountNo;
use lamplighter::presence::state::CallState::Early;

use crate::office::{ACME, Office, Phone, dialog};

const ACME_TENANT: (&str, &str) = ("acme", "acme.test");
const UMBRELLA: (&str, &str) = ("umbrella", "umbrella.test");
const GLOBEX: (&str, &str) = ("globex", "globex.test");

/// Nine extensions of acme.test with a watcher each, and a publication.
fn office() -> (Office, Vec<Phone>, String) {
    let mut office = Office::open();
    let phones = (1..=9).map(|n| office.settled(&format!("100{n}"), "dialog")).collect();
    let etag = office.publish("1001", None, &dialog("c1", "early"))[0].header("SIP-ETag").to_string();
    (office, phones, etag)
}

/// Another tenant uses numbers and tags meanwhile.
fn use_by(office: &mut Office, realm: &str) -> Vec<Phone> {
    (1..=9).map(|n| office.settled(&format!("200{n}@{realm}"), "dialog")).collect()
}

fn whole(office: &mut Office, phones: &mut [Phone], etag: &str) {
    for phone in phones.iter_mut() {
        phone.refresh(office);
    }
    assert_eq!(office.list().len(), 9);
    assert_eq!(office.publish("1001", Some(etag), &dialog("c1", "confirmed"))[0].status(), 200);
    for n in 2..=9 {
        office.pass(2_000);
        let told = office.set(&format!("100{n}"), Early);
        let call_ids: Vec<_> = told.iter().map(|sent| sent.message().call_id.to_string()).collect();
        assert!(call_ids.contains(&phones[n - 1].call_id), "each hears of its own extension");
        assert!(told.iter().all(|sent| sent.text.contains("@acme.test")), "and of no other");
    }
}

#[test]
fn a_tenant_that_comes_back_is_whole_and_nobody_has_its_numbers() {
    for compact in [false, true] {
        let (mut office, mut phones, etag) = office();
        let restored = office.crash_into(&[UMBRELLA]);
        assert_eq!((restored.subscriptions, restored.unusable() > 9), (0, true));
        let foreign = use_by(&mut office, "umbrella.test");
        let tags: Vec<_> = phones.iter().map(|phone| phone.to_tag.clone().unwrap()).collect();
        let number = |tag: &String| tag.split('.').next().unwrap().to_string();
        assert!(
            foreign.iter().all(|phone| !tags.iter().map(number).any(|n| n == number(phone.to_tag.as_ref().unwrap())))
        );
        if compact {
            office.compact();
        }
        // Twice, so that the reserved numbers are reserved again.
        office.crash_into(&[GLOBEX, UMBRELLA]);
        use_by(&mut office, "globex.test");
        if compact {
            office.compact();
        }
        let restored = office.crash_into(&[GLOBEX, ACME_TENANT, UMBRELLA]);
        assert_eq!((restored.subscriptions, restored.unusable()), (27, 0), "compacted: {compact}");
        let listed = |office: &Office, account| office.notifier.list_subscriptions(AccountNo(account), None).len();
        assert_eq!([0, 1, 2].map(|account| listed(&office, account)), [9, 9, 9]);
        office.crash_into(&[ACME_TENANT, GLOBEX, UMBRELLA]);
        assert_eq!(office.list().len(), 9);
        whole(&mut office, &mut phones, &etag);
    }
}

#[test]
fn what_is_of_a_tenant_that_stays_away_ends_when_its_time_is_over() {
    let (mut office, mut phones, _) = office();
    office.crash_into(&[UMBRELLA]);
    assert!(office.notifier.dormant_records() > 0);
    let foreign = use_by(&mut office, "umbrella.test");
    office.pass(3_700_000);
    assert_eq!(office.notifier.dormant_records(), 0);
    office.compact();
    assert!(office.disk.is_empty());
    office.crash_into(&[ACME_TENANT, UMBRELLA]);
    assert_eq!((office.list().len(), phones[0].subscribe(&mut office, 600)[0].status()), (0, 481));
    drop(foreign);
}

#[test]
fn a_state_that_was_set_by_hand_stays_however_long_its_tenant_is_away() {
    let mut office = Office::open();
    office.set("1001", Early);
    office.crash_into(&[UMBRELLA]);
    office.pass(7_200_000);
    office.compact();
    office.crash_into(&[ACME_TENANT]);
    assert_eq!(office.watch("1001", "dialog").1[1].states(), ["early"]);
}

#[test]
fn what_a_later_version_has_written_stays_as_it_is() {
    let (mut office, mut phones, etag) = office();
    let written = office.disk.clone();
    // An unknown, later layout.
    let later = bytes::Bytes::from_static(&[0, 250, 1, 2, 3]);
    for value in office.disk.iter_mut().filter(|(key, _)| key.0 >> 32 == 0).map(|(_, value)| value) {
        *value = later.clone();
    }
    office.crash();
    use_by(&mut office, "umbrella.test");
    office.pass(4_000_000);
    office.compact();
    let kept = office.disk.values().filter(|value| **value == later).count();
    assert_eq!(kept, 18, "nine subscriptions and nine states");
    for (key, value) in office.disk.iter_mut().filter(|(_, value)| **value == later) {
        value.clone_from(&written[key]);
    }
    office.now -= 4_000_000;
    office.crash();
    whole(&mut office, &mut phones, &etag);
}

#[test]
fn a_subscription_over_a_transport_that_is_switched_off_leaves_its_slot_free_to_no_other() {
    let mut office = Office::open();
    let mut kept = office.settled("1001", "dialog");
    let tcp = lamplighter::transport::Source {
        transport: lamplighter::sip::Transport::Tls,
        listener: lamplighter::transport::ListenerId(1),
        ..kept.source
    };
    // It came over TLS, which is not configured now.
    let mut over_tls = office.phone("1001", "dialog");
    over_tls.source = tcp;
    let sent = over_tls.subscribe(&mut office, 600);
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    let restored = office.crash();
    assert_eq!((restored.subscriptions, restored.dormant.len()), (1, 1));
    let other = office.settled("1001", "dialog");
    let slot = |tag: Option<String>| tag.unwrap().rsplit_once('.').unwrap().0.to_string();
    assert_ne!(slot(other.to_tag), slot(over_tls.to_tag));
    kept.refresh(&mut office);
    assert_eq!(office.notifier.list_subscriptions(ACME, None).len(), 2);
    // Its presentity is not removed with all the others.
    let sent = kept.subscribe(&mut office, 0);
    kept.answer(&mut office, &sent[1], 200);
    office.pass(700_000);
    assert_eq!(office.notifier.dormant_records(), 0);
}
