//! Kamailio's pua_dialoginfo publishes a real call: the lamps of both parties follow it and go out at its end.
//!
//! The difficulties (5.6.3): the "Trying" and the "early" of the caller leave within a millisecond, mostly as two
//! publications of the same call, so that one of them is never updated again and remains for an hour. Tags are given
//! only while the state is early. And "terminated" is published with Expires: 11, on only one of the two.

use crate::harness::{Kamailio, Phones, Server, Settings, Sipp, Transport, skip_without, wait_for};

const ONE_CALL: [&str; 4] = ["-m", "1", "-d", "500"];

#[test]
fn the_lamps_of_both_parties_follow_a_call_through_kamailio() {
    if skip_without("sipp") || skip_without("curl") || skip_without("kamailio") {
        return;
    }
    let server = Server::start("pua", &Settings::default());
    let folder = server.folder();
    let mut callee = Sipp::start("callee", "answer.xml", None, &ONE_CALL, folder);
    let kamailio = Kamailio::publisher(server.sip_port(), callee.port(), folder);
    let watch = |name, watched, notifies| {
        let phone = Phones { name, count: 1, watched, event: "dialog", transport: Transport::Udp, notifies };
        let phone = phone.watch(server.sip_port(), folder);
        server.until_answered(1, watched, "dialog", "terminated");
        phone
    };
    // The caller's first two states may be merged (trying and early come at the same time), so this phone watches to
    // the end.
    let (mut of_callee, of_caller) = (watch("watch-1001", "1001", 4), watch("watch-1002", "1002", 1000));

    let mut caller = Sipp::start("caller", "call.xml", Some(kamailio.port()), &ONE_CALL, folder);
    caller.succeed();
    callee.succeed();
    of_callee.succeed();

    let seen = of_callee.notifies();
    let states: Vec<_> = seen.iter().take(4).map(|notify| notify.states()).collect();
    assert_eq!(states, [["terminated"], ["early"], ["confirmed"], ["terminated"]]);
    let ringing = &seen[1];
    assert_eq!(ringing.attribute("direction"), Some("recipient"));
    assert!(ringing.attribute("call-id").is_some_and(|id| id.ends_with("@127.0.0.1")), "for pickup: {}", ringing.body);
    assert!(ringing.attribute("local-tag").is_some_and(|tag| tag.starts_with("callee")), "{}", ringing.body);
    assert!(ringing.attribute("remote-tag").is_some_and(|tag| tag.starts_with("caller")), "{}", ringing.body);
    assert!(ringing.body.contains("sip:1002@acme.test"), "who calls: {}", ringing.body);

    let seen = wait_for("end of the call at the caller's lamp", || {
        let seen = of_caller.notifies();
        let talked = seen.iter().any(|notify| notify.states() == ["confirmed"]);
        (talked && seen.last().is_some_and(|notify| notify.states() == ["terminated"])).then_some(seen)
    });
    assert!(seen.iter().all(|notify| notify.states().len() == 1), "it is one call, however published: {seen:?}");

    let fresh =
        Phones { name: "later", count: 1, watched: "1002", event: "dialog", transport: Transport::Udp, notifies: 1 };
    let mut fresh = fresh.watch(server.sip_port(), folder);
    fresh.succeed();
    assert_eq!(fresh.notifies()[0].states(), ["terminated"], "nothing of the call is left for who comes later");
}
