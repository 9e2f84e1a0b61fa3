//! Messages that arrive together.

use super::*;
use crate::transport::OutboundMessage;

/// Creates a notifier with watchers of two extensions that have not answered their latest NOTIFY, and the messages
/// that arrive next.
fn scene() -> (Office, Vec<(Source, String)>) {
    let mut office = Office::new();
    let mut phones: Vec<_> = (0..7)
        .map(|n| {
            let whom = if n < 4 { "1001@acme.test" } else { "1002@acme.test" };
            let mut phone = office.watcher(&format!("w{n}"), whom, 3_600);
            phone.source = source(Transport::Udp, &format!("127.0.0.1:{}", 6_000 + n), None);
            phone
        })
        .collect();
    for extension in ["1001@acme.test", "1002@acme.test"] {
        office.report(&mut Publisher::new(extension), &[("c1", "early")]);
    }
    let notifies = std::mem::take(&mut office.notifies);
    assert_eq!(notifies.len(), 7);
    let mut messages: Vec<_> = notifies.iter().map(|notify| (phones[0].source, answer_text(notify, 200, ""))).collect();
    for phone in &mut phones {
        let refresh = office.subscribe_text(phone, 1_800);
        messages.push((phone.source, refresh));
    }
    // All watchers of 1002 unsubscribe, which removes the presentity; then one more refresh arrives too late.
    office.report(&mut Publisher::new("1002@acme.test"), &[]);
    for phone in &mut phones[4..] {
        let end = office.subscribe_text(phone, 0);
        messages.push((phone.source, end));
    }
    let late = office.subscribe_text(&mut phones[6], 600);
    messages.push((phones[6].source, late));
    // In between: messages that cannot be parsed, keep-alives, a new watcher, retransmissions, and a response to no
    // NOTIFY.
    let repeated = messages[8].clone();
    let noise =
        ["\r\n\r\n", "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\r\n", "\u{0}"];
    messages.extend(noise.map(|text| (repeated.0, text.to_string())));
    messages.push(repeated);
    messages.push((phones[1].source, answer_text(&notifies[0], 200, "")));
    let stranger = office.subscribe_text(&mut Phone::new("new", "1001@acme.test"), 60);
    messages.insert(3, (phones[0].source, stranger));
    (office, messages)
}

fn sent(out: &Outbox) -> Vec<(Destination, String)> {
    let text = |packet: &OutboundMessage| String::from_utf8(packet.bytes.to_vec()).unwrap();
    out.messages.iter().map(|packet| (packet.to.clone(), text(packet))).collect()
}

#[test]
fn they_bring_what_they_would_bring_one_after_the_other() {
    let (mut apart, mut together) = (Outbox::default(), Outbox::default());
    let (office, messages) = scene();
    for (source, text) in &messages {
        office.notifier.receive(Tick(office.now), *source, text.as_bytes(), &mut apart);
    }
    let (other, same) = scene();
    assert_eq!(messages, same, "the scene can be played again");
    let mut all = same.iter().map(|(source, text)| (*source, text.as_bytes()));
    other.notifier.receive_all(Tick(other.now), &mut all, &mut together);
    assert!(apart.messages.len() > 20);
    assert_eq!(sent(&apart), sent(&together));
    assert_eq!((office.notifier.subscriptions(), office.notifier.panics()), (other.notifier.subscriptions(), 0));
}
