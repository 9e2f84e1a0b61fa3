//! State set and reset over HTTP reaches the phones, both present watchers and later ones.

use crate::harness::{Notify, Phones, Server, Settings, Transport, skip_without};

const SET_EARLY: &str = r#"{"data":{"action":"set","state":"early"}}"#;
const SET_CONFIRMED: &str = r#"{"data":{"action":"set","state":"confirmed"}}"#;
const RESET: &str = r#"{"data":{"reset":true}}"#;

fn one_phone<'a>(name: &'a str, event: &'a str, notifies: usize) -> Phones<'a> {
    Phones { name, count: 1, watched: "1001", event, transport: Transport::Udp, notifies }
}

#[test]
fn a_dialog_watcher_sees_each_state_that_is_set_and_the_reset() {
    if skip_without("sipp") || skip_without("curl") {
        return;
    }
    let server = Server::start("manual-dialog", &Settings::default());
    let mut phone = one_phone("phone", "dialog", 4).watch(server.sip_port(), server.folder());
    server.until_answered(1, "1001", "dialog", "terminated");
    assert_eq!(server.post("1001", SET_EARLY), "set command sent for extension 1001");
    server.until_answered(1, "1001", "dialog", "early");
    server.post("1001", SET_CONFIRMED);
    server.until_answered(1, "1001", "dialog", "confirmed");
    server.post("1001", RESET);
    phone.succeed();
    let seen = phone.notifies();
    let states: Vec<_> = seen.iter().take(4).map(Notify::states).collect();
    assert_eq!(states, [["terminated"], ["early"], ["confirmed"], ["terminated"]]);
}

#[test]
fn a_presence_watcher_sees_on_the_phone_until_the_reset() {
    if skip_without("sipp") || skip_without("curl") {
        return;
    }
    let server = Server::start("manual-presence", &Settings::default());
    let mut phone = one_phone("phone", "presence", 3).watch(server.sip_port(), server.folder());
    server.until_answered(1, "1001", "presence", "<basic>");
    server.post("1001", SET_CONFIRMED);
    server.until_answered(1, "1001", "presence", "on-the-phone");
    server.post("1001", RESET);
    phone.succeed();
    let on_the_phone: Vec<_> = phone.notifies().iter().map(|notify| notify.body.contains("on-the-phone")).collect();
    assert_eq!(on_the_phone[..3], [false, true, false]);
}

#[test]
fn a_state_that_was_set_is_there_for_who_subscribes_later() {
    if skip_without("sipp") || skip_without("curl") {
        return;
    }
    let server = Server::start("manual-later", &Settings::default());
    server.post("1001", SET_CONFIRMED);
    let mut phone = one_phone("phone", "dialog", 1).watch(server.sip_port(), server.folder());
    phone.succeed();
    assert_eq!(phone.notifies()[0].states(), ["confirmed"]);
}
