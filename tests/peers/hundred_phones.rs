//! A hundred phones watch one extension: each change causes exactly one NOTIFY to each, and the API shows the
//! documents that they received.

use crate::harness::{Listed, Notify, Phones, Publisher, Server, Settings, Transport, skip_without, wait_for};

const PHONES: usize = 100;

#[test]
fn over_udp() {
    direct("hundred-udp", Transport::Udp);
}

#[test]
fn over_one_tcp_connection() {
    direct("hundred-tcp-shared", Transport::TcpShared);
}

#[test]
fn over_a_tcp_connection_each() {
    direct("hundred-tcp-each", Transport::TcpEach);
}

fn direct(name: &str, transport: Transport) {
    if skip_without("sipp") || skip_without("curl") {
        return;
    }
    let server = Server::start(name, &Settings::default());
    one_change_one_notify_each(&server, server.sip_port(), transport);
}

/// The whole test, with the phones and the publisher at `port`: the server's own, or that of a proxy in front.
pub(crate) fn one_change_one_notify_each(server: &Server, port: u16, transport: Transport) {
    let phones = Phones { name: "phones", count: PHONES, watched: "1001", event: "dialog", transport, notifies: 4 };
    let mut phones = phones.watch(port, server.folder());

    server.until_answered(PHONES, "1001", "dialog", "terminated");
    let seen = answered(PHONES, || phones.notifies());
    assert!(seen.iter().all(|notify| notify.states() == ["terminated"]), "idle is one ended dialog: {:?}", seen[0]);

    Publisher::publish("confirmed", port, server.folder());
    let listed = server.until_answered(PHONES, "1001", "dialog", "confirmed");
    let seen = answered(2 * PHONES, || phones.notifies());
    the_api_shows_what_the_phones_got(&listed, seen);

    let said = server.post("1001", r#"{"data":{"reset":true}}"#);
    assert_eq!(said, "reset command sent for extension 1001");
    server.until_answered(PHONES, "1001", "dialog", "terminated");
    answered(3 * PHONES, || phones.notifies());

    // If the reset had caused a second NOTIFY, this change would not be the fourth.
    server.post("1001", r#"{"data":{"action":"set","state":"early"}}"#);
    phones.succeed();
    let dialogs = Notify::by_dialog(phones.notifies());
    assert_eq!(dialogs.len(), PHONES);
    for notifies in dialogs.values() {
        let states: Vec<_> = notifies.iter().take(4).map(Notify::states).collect();
        assert_eq!(states, [["terminated"], ["confirmed"], ["terminated"], ["early"]]);
        assert_eq!(notifies.len(), 5, "four changes and the end: {notifies:?}");
        let (end, before) = notifies.split_last().expect("five of them");
        assert!(before.iter().all(|one| one.subscription_state.starts_with("active;expires=")), "{before:?}");
        assert!(end.subscription_state.starts_with("terminated"), "{end:?}");
        assert!(notifies.iter().all(|one| one.answered), "{notifies:?}");
        one_by_one(notifies);
    }
    wait_for("empty listing after all have unsubscribed", || server.listed("1001", "dialog").is_empty().then_some(()));
}

fn the_api_shows_what_the_phones_got(listed: &[Listed], seen: Vec<Notify>) {
    let dialogs = Notify::by_dialog(seen);
    for one in listed {
        let last = dialogs[&one.call_id].last().expect("two NOTIFYs");
        assert_eq!((one.sequence, &one.body), (last.cseq, &last.body));
        assert_eq!(last.attribute("entity"), Some("sip:1001@acme.test"));
        assert_eq!(last.attribute("state"), Some("full"));
    }
}

/// Waits until `count` NOTIFYs are in the phones' trace, all answered; one more is a failure.
fn answered(count: usize, look: impl Fn() -> Vec<Notify>) -> Vec<Notify> {
    let seen = wait_for(&format!("{count} answered NOTIFYs in the trace"), || {
        let seen = look();
        (seen.len() >= count && seen.iter().all(|notify| notify.answered)).then_some(seen)
    });
    assert_eq!(seen.len(), count, "NOTIFYs too many");
    seen
}

/// Checks that CSeq and version rise by exactly one from NOTIFY to NOTIFY.
fn one_by_one(notifies: &[Notify]) {
    for pair in notifies.windows(2) {
        assert_eq!(pair[1].cseq, pair[0].cseq + 1, "CSeq of {pair:?}");
        assert_eq!(pair[1].version(), pair[0].version() + 1, "version of {pair:?}");
    }
}
