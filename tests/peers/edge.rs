//! Kamailio as record-routing edge proxy in front of the server: NOTIFYs take the route set to the phone, with the
//! Contact unchanged.

use crate::harness::{Kamailio, Leg, Server, Settings, Transport, skip_without};
use crate::hundred_phones::one_change_one_notify_each;

#[test]
fn a_hundred_phones_behind_kamailio_reached_over_udp() {
    behind_kamailio("edge-udp", Leg::Udp);
}

#[test]
fn a_hundred_phones_behind_kamailio_reached_over_tcp() {
    behind_kamailio("edge-tcp", Leg::Tcp);
}

fn behind_kamailio(name: &str, leg: Leg) {
    if skip_without("sipp") || skip_without("curl") || skip_without("kamailio") {
        return;
    }
    let server = Server::start(name, &Settings::default());
    let edge = Kamailio::edge(leg, server.sip_port(), server.folder());
    one_change_one_notify_each(&server, edge.port(), Transport::Udp);
}

#[test]
fn the_page_on_kamailio_shows_the_configuration_tested_here() {
    let page = include_str!("../../docs/kamailio.md");
    let tested = include_str!("kamailio-edge.cfg");
    assert!(page.contains(tested), "docs/kamailio.md must hold tests/peers/kamailio-edge.cfg to the letter");
    let readme = include_str!("../../README.md");
    let section = readme.split("## Kamailio in front").nth(1).expect("the README's section");
    let snippet = section.split("```\n").nth(1).expect("its snippet");
    assert!(tested.contains(snippet), "the README's snippet must stand in tests/peers/kamailio-edge.cfg to the letter");
}
