//! Next hops that are names (RFC 3263): NOTIFYs wait for DNS, and try one target after the other.

use std::net::SocketAddr;

use lamplighter::notifier::dns_cache::{DnsAnswer, DnsError, DnsQuery, SrvTarget};
use lamplighter::presence::state::CallState::{Confirmed, Early};
use lamplighter::sip::Transport;
use lamplighter::transport::{Destination, FlowId, ListenerId, Remote};

use crate::office::{Office, Phone, Sent, dialog};

/// A server that trusts all phones, and a phone behind a proxy that uses a name as its address.
fn office() -> (Office, Phone) {
    let mut office = Office::with("[access]\ntrusted_proxies = [\"198.51.0.0/16\"]\n");
    let phone = behind_proxy(office.phone("1001", "dialog"), "");
    (office, phone)
}

fn behind_proxy(mut phone: Phone, parameters: &str) -> Phone {
    phone.more = format!("Record-Route: <sip:proxy.acme.test{parameters};lr>\r\n");
    phone
}

/// The same with a proxy that has opened a connection to the server.
fn connected() -> (Office, Phone) {
    let (office, phone) = office();
    let mut phone = behind_proxy(phone, ";transport=tcp");
    phone.source.transport = Transport::Tcp;
    phone.source.listener = ListenerId(1);
    phone.source.flow = Some(FlowId(7));
    (office, phone)
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 5060))
}

/// Hosts in this order, valid for a minute.
fn hosts(transport: Transport, hosts: &[u8]) -> Result<DnsAnswer, DnsError> {
    let candidate =
        |(priority, host): (u32, &u8)| SrvTarget { priority, weight: 0, transport, addresses: vec![address(*host)] };
    Ok(DnsAnswer { candidates: (1..).zip(hosts).map(candidate).collect(), ttl: 60 })
}

fn by_udp(host: u8) -> Destination {
    Destination::Datagram { listener: ListenerId(0), peer: address(host) }
}

fn remote(host: u8) -> Remote {
    Remote { listener: ListenerId(1), peer: address(host), name: None }
}

fn by_tcp(host: u8) -> Destination {
    Destination::Connection(remote(host))
}

fn to_source(phone: &Phone) -> Destination {
    Destination::Datagram { listener: ListenerId(0), peer: phone.source.peer }
}

/// CSeq and destination of each NOTIFY.
fn ways(sent: &[Sent]) -> Vec<(u32, Destination)> {
    sent.iter().filter(|sent| sent.is_notify()).map(|sent| (sent.cseq(), sent.to.clone())).collect()
}

fn branch(sent: &Sent) -> String {
    sent.message().via.branch().unwrap().to_string()
}

#[test]
fn a_notify_waits_for_a_name_and_goes_where_it_leads() {
    let (mut office, mut phone) = office();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent.len(), sent[0].status()), (1, 200), "the answer does not wait");
    let host = "proxy.acme.test".into();
    assert_eq!(office.questions, [DnsQuery { host, port: None, transport: None, secure: false }]);
    office.pass(50);
    let sent = office.learn(hosts(Transport::Udp, &[11, 12]));
    assert_eq!(ways(&sent), [(1, by_udp(11))]);
    phone.answer(&mut office, &sent[0], 200);
    // The result is valid for a minute.
    office.pass(59_000);
    let sent = office.set("1001", Early);
    assert_eq!((ways(&sent), office.questions.len()), (vec![(2, by_udp(11))], 0));
    phone.answer(&mut office, &sent[0], 200);
    office.pass(2_000);
    assert_eq!(office.set("1001", Confirmed), []);
    let sent = office.learn(hosts(Transport::Tcp, &[13]));
    assert_eq!((ways(&sent), sent[0].states()), (vec![(3, by_tcp(13))], vec!["confirmed".to_string()]));
    assert!(sent[0].header("Via").starts_with("SIP/2.0/TCP "));
}

#[test]
fn what_happens_meanwhile_is_told_once() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    assert_eq!(office.set("1001", Early), []);
    assert_eq!(office.set("1001", Confirmed), []);
    let refreshed = phone.subscribe(&mut office, 600);
    assert_eq!((refreshed.len(), refreshed[0].status(), office.questions.len()), (1, 200, 1));
    let sent = office.learn(hosts(Transport::Udp, &[11]));
    assert_eq!((ways(&sent), sent[0].states()), (vec![(1, by_udp(11))], vec!["confirmed".to_string()]));
    phone.answer(&mut office, &sent[0], 200);
    assert_eq!(office.pass_quietly(50_000), []);
}

#[test]
fn an_end_is_told_as_well() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    assert_eq!(phone.subscribe(&mut office, 0).len(), 1);
    let sent = office.learn(hosts(Transport::Udp, &[11]));
    assert_eq!(ways(&sent), [(1, by_udp(11))]);
    assert!(sent[0].header("Subscription-State").starts_with("terminated"));
    phone.answer(&mut office, &sent[0], 200);
    assert_eq!((office.list(), office.pass_quietly(60_000)), (vec![], vec![]));
}

#[test]
fn a_name_is_asked_for_once_whoever_waits() {
    let (mut office, mut first) = office();
    first.subscribe(&mut office, 600);
    for user in 0..300 {
        let phone = office.phone(&format!("2{user}"), "dialog");
        behind_proxy(phone, "").subscribe(&mut office, 600);
    }
    assert_eq!(office.questions.len(), 1);
    let at_once = office.learn(hosts(Transport::Udp, &[11]));
    assert_eq!(at_once.len(), 256);
    assert_eq!(office.pass_quietly(20).len(), 45);
}

#[test]
fn without_an_answer_a_notify_goes_back_to_the_source() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    let sent = office.pass(3_000);
    assert_eq!((sent.len(), sent[0].0, sent[0].1.to.clone()), (1, 3_000, to_source(&phone)));
    phone.answer(&mut office, &sent[0].1, 200);
    // Later NOTIFYs fail without waiting too, until the name may be queried again.
    office.questions.clear();
    let sent = office.set("1001", Early);
    assert_eq!((ways(&sent), office.questions.len()), (vec![(2, to_source(&phone))], 0));
    phone.answer(&mut office, &sent[0], 200);
    office.pass(31_000);
    office.set("1001", Confirmed);
    assert_eq!(office.questions.len(), 1);
}

#[test]
fn so_does_one_whose_name_leads_nowhere() {
    for answer in [Err(DnsError::Unknown), hosts(Transport::Udp, &[]), hosts(Transport::Tls, &[11])] {
        let (mut office, mut phone) = office();
        phone.subscribe(&mut office, 600);
        assert_eq!(ways(&office.learn(answer)), [(1, to_source(&phone))]);
    }
}

#[test]
fn a_stranger_s_names_are_not_looked_up() {
    let mut office = Office::open();
    let mut phone = behind_proxy(office.phone("1001", "dialog"), "");
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((ways(&sent), office.questions.len()), (vec![(1, to_source(&phone))], 0));
}

/// D-027.
#[test]
fn the_next_target_gets_a_new_notify_when_the_first_refuses_a_connection() {
    let (mut office, phone) = office();
    let mut phone = behind_proxy(phone, ";transport=tcp");
    phone.subscribe(&mut office, 600);
    let first = office.learn(hosts(Transport::Tcp, &[11, 12]));
    assert_eq!(ways(&first), [(1, by_tcp(11))]);
    let second = office.undeliverable(&first[0]);
    assert_eq!(ways(&second), [(2, by_tcp(12))]);
    assert_ne!(branch(&first[0]), branch(&second[0]));
    phone.answer(&mut office, &second[0], 200);
    // The first target is avoided for a while.
    let third = office.set("1001", Early);
    assert_eq!(ways(&third), [(3, by_tcp(12))]);
    phone.answer(&mut office, &third[0], 200);
    office.pass(30_000);
    assert_eq!(ways(&office.set("1001", Confirmed)), [(4, by_tcp(11))]);
}

#[test]
fn so_it_does_after_503_and_after_silence_but_not_for_a_phone_that_fails() {
    for (status, goes_on) in [(503, true), (408, false), (500, false), (486, false)] {
        let (mut office, mut phone) = office();
        phone.subscribe(&mut office, 600);
        let first = office.learn(hosts(Transport::Udp, &[11, 12]));
        let second = phone.answer(&mut office, &first[0], status);
        assert_eq!(ways(&second), if goes_on { vec![(2, by_udp(12))] } else { vec![] }, "{status}");
    }
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    office.learn(hosts(Transport::Udp, &[11, 12]));
    let mut sent = office.pass(33_000);
    sent.retain(|(_, sent)| sent.cseq() == 2);
    assert_eq!((sent[0].0, sent[0].1.to.clone()), (32_000, by_udp(12)));
}

#[test]
fn once_all_targets_have_failed_it_is_a_failure_like_any_other() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    let first = office.learn(hosts(Transport::Udp, &[11, 12]));
    let second = phone.answer(&mut office, &first[0], 503);
    assert_eq!(phone.answer(&mut office, &second[0], 503), []);
    let again = office.pass(5_000);
    assert_eq!((again.len(), again[0].0, again[0].1.to.clone()), (1, 5_000, to_source(&phone)));
    assert_eq!(office.list().len(), 1, "the subscription is kept");
}

#[test]
fn silent_targets_are_tried_once_each_before_it_backs_off() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    let answer = DnsAnswer { ttl: 600, ..hosts(Transport::Udp, &[11, 12]).unwrap() };
    office.learn(Ok(answer));
    let sent = office.pass_quietly(68_900);
    let last = sent.iter().map(Sent::cseq).max();
    assert_eq!(last, Some(2), "two targets, two NOTIFYs, and then a pause");
    assert_eq!(ways(&office.pass_quietly(200)).first().map(|(cseq, _)| *cseq), Some(3));
}

/// A name in the Contact, without a Route.
#[test]
fn a_contact_may_be_a_name_too() {
    let (mut office, mut phone) = office();
    phone.more.clear();
    phone.cseq += 1;
    let named = format!("Contact: <sip:1002@{}>", phone.source.peer);
    let request = phone.request(600).replace(&named, "Contact: <sip:1002@desk.acme.test:5070>");
    assert_eq!(office.receive(phone.source, &request).len(), 1);
    assert_eq!((&*office.questions[0].host, office.questions[0].port), ("desk.acme.test", Some(5070)));
    let sent = office.learn(hosts(Transport::Udp, &[11]));
    assert_eq!(ways(&sent), [(1, by_udp(11))]);
    assert!(sent[0].text.starts_with("NOTIFY sip:1002@desk.acme.test:5070 SIP/2.0"));
}

#[test]
fn after_a_restart_names_are_asked_for_anew() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    let sent = office.learn(hosts(Transport::Udp, &[11]));
    phone.answer(&mut office, &sent[0], 200);
    office.crash();
    assert_eq!((office.set("1001", Early), office.questions.len()), (vec![], 1));
    assert_eq!(ways(&office.learn(hosts(Transport::Udp, &[12]))).len(), 1);
}

/// A connection that is gone, and the first host to which it could be opened again does not answer.
#[test]
fn the_next_target_is_tried_in_place_of_a_connection_as_well() {
    let (mut office, mut phone) = connected();
    let sent = phone.subscribe(&mut office, 600);
    phone.answer(&mut office, &sent[1], 200);
    office.learn(hosts(Transport::Tcp, &[11, 12]));
    let down = |host| Destination::Flow { flow: FlowId(7), otherwise: Some(remote(host)) };
    let sent = office.set("1001", Early);
    assert_eq!(ways(&sent), [(2, down(11))]);
    assert_eq!(ways(&office.undeliverable(&sent[0])), [(3, down(12))]);
}

/// RFC 3261 section 18.1.1: too large for a datagram, to a name that resolves to a UDP host.
#[test]
fn a_large_notify_goes_over_tcp_to_the_host_that_the_name_stands_for() {
    let (mut office, mut phone) = office();
    phone.subscribe(&mut office, 600);
    let sent = office.learn(hosts(Transport::Udp, &[11]));
    phone.answer(&mut office, &sent[0], 200);
    let calls: String = (0..9).map(|i| dialog(&format!("call-{i}"), "confirmed")).collect();
    let sent = office.publish("1001", None, &calls);
    let sent: Vec<_> = sent.into_iter().filter(Sent::is_notify).collect();
    assert_eq!(ways(&sent), [(2, by_tcp(11))]);
    assert_eq!(ways(&office.undeliverable(&sent[0])), [(3, by_udp(11))], "and in fragments where nobody takes that");
}

#[test]
fn a_proxy_that_is_connected_waits_for_no_name_and_is_found_again_by_it() {
    let (mut office, mut phone) = connected();
    let sent = phone.subscribe(&mut office, 600);
    let down = |otherwise| Destination::Flow { flow: FlowId(7), otherwise };
    assert_eq!((ways(&sent), office.questions.len()), (vec![(1, down(None))], 1));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.learn(hosts(Transport::Tcp, &[11])), []);
    assert_eq!(ways(&office.set("1001", Early)), [(2, down(Some(remote(11))))]);
}
