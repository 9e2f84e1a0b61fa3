//! Access rights: digest, trusted sources, realms and extensions (conformance group L), and the destinations to which
//! an unverified source can make the server send.

use std::collections::HashSet;

use lamplighter::presence::state::CallState::{Confirmed, Early};
use lamplighter::transport::Destination;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::office::{Office, Phone, Sent, dialog, udp};

const PEOPLE: &str = r#"
  [[account.user]]
  id = "bob"
  presence_id = "2000"
  [[account.device]]
  id = "d1"
  owner_id = "bob"
  sip = { username = "1002", password = "hush \"hush\"" }
  presence_id = "Front"
  [[account.device]]
  id = "d2"
  sip = { username = "pbx", password = "switch", publishes = "account" }
  [[account.device]]
  id = "d3"
  sip = { username = "mute" }
"#;
const PASSWORD: &str = "hush \"hush\"";

fn guarded() -> Office {
    Office::with_people("[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n", PEOPLE)
}

fn hash(algorithm: &str, text: &str) -> String {
    let octets = match algorithm {
        "MD5" => Md5::digest(text).to_vec(),
        _ => Sha256::digest(text).to_vec(),
    };
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Nonce of a challenge.
fn nonce(refused: &Sent) -> String {
    refused.header("WWW-Authenticate").split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_string()
}

struct Proof<'a> {
    user: &'a str,
    password: &'a str,
    method: &'a str,
    algorithm: &'a str,
    uri: &'a str,
    count: u32,
}

const BOB: Proof<'_> = Proof {
    user: "1002",
    password: PASSWORD,
    method: "SUBSCRIBE",
    algorithm: "SHA-256",
    uri: "sip:1001@acme.test",
    count: 1,
};

impl Proof<'_> {
    /// Authorization header line for a challenge of acme.test.
    fn line(&self, nonce: &str) -> String {
        let Proof { user, password, method, algorithm, uri, count } = self;
        let a1 = hash(algorithm, &format!("{user}:acme.test:{password}"));
        let a2 = hash(algorithm, &format!("{method}:{uri}"));
        let response = hash(algorithm, &format!("{a1}:{nonce}:{count:08x}:c:auth:{a2}"));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm={algorithm}, qop=auth, nc={count:08x}, cnonce=\"c\"\r\n"
        )
    }
}

/// Subscribes without credentials, and returns the nonce of the challenge.
fn challenged(office: &mut Office, phone: &mut Phone) -> String {
    phone.more.clear();
    let sent = phone.subscribe(office, 600);
    assert_eq!((sent.len(), sent[0].status()), (1, 401), "{}", sent[0].text);
    nonce(&sent[0])
}

fn subscribe_with(office: &mut Office, phone: &mut Phone, proof: &Proof<'_>, nonce: &str) -> Vec<Sent> {
    phone.more = proof.line(nonce);
    phone.subscribe(office, 600)
}

#[test]
fn a_stranger_is_challenged_by_the_better_algorithm_first_and_nothing_is_kept_of_him() {
    // L-001, L-002, L-005
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent.len(), sent[0].status()), (1, 401));
    let challenges: Vec<_> =
        sent[0].text.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: Digest ")).collect();
    assert_eq!(challenges.len(), 2);
    for (challenge, algorithm) in challenges.iter().zip(["SHA-256", "MD5"]) {
        assert!(challenge.starts_with("realm=\"acme.test\", nonce=\""), "{challenge}");
        assert!(challenge.ends_with(&format!("algorithm={algorithm}, qop=\"auth\"")), "{challenge}");
    }
    assert_eq!(office.list(), []);
    assert_eq!(office.publish("1001", None, &dialog("c", "early"))[0].status(), 401);
}

#[test]
fn a_phone_that_gives_up_over_what_it_does_not_know_is_offered_md5_alone() {
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    phone.more = "User-Agent: baresip v1.0.0 (x86_64/linux)\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(sent[0].text.matches("WWW-Authenticate").count(), 1);
    assert!(sent[0].header("WWW-Authenticate").contains("algorithm=MD5"), "{}", sent[0].text);
}

#[test]
fn what_is_not_offered_is_not_taken() {
    let more = "[access]\nauthenticate = \"digest\"\ntrusted_proxies = []\nalgorithms = [\"SHA-256\"]\n";
    let mut office = Office::with_people(more, PEOPLE);
    let mut phone = office.phone("1001", "dialog");
    phone.more = "User-Agent: baresip v1.0.0\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(sent[0].text.matches("algorithm=SHA-256").count(), 1, "a challenge there has to be");
    let nonce = nonce(&sent[0]);
    assert_eq!(subscribe_with(&mut office, &mut phone, &Proof { algorithm: "MD5", ..BOB }, &nonce)[0].status(), 401);
    assert_eq!(subscribe_with(&mut office, &mut phone, &BOB, &nonce)[0].status(), 200);
}

#[test]
fn a_request_that_was_challenged_is_not_remembered_and_its_repetition_is_challenged_anew() {
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let first = phone.subscribe(&mut office, 600);
    let again = office.receive(phone.source, &phone.request(600));
    assert_eq!((again.len(), again[0].status()), (1, 401));
    assert_ne!(nonce(&first[0]), nonce(&again[0]));
}

#[test]
fn a_password_opens_with_either_algorithm_and_one_nonce_serves_every_refresh() {
    // L-004, L-008, L-014
    for algorithm in ["SHA-256", "MD5"] {
        let mut office = guarded();
        let mut phone = office.phone("1001", "dialog");
        let nonce = challenged(&mut office, &mut phone);
        let sent = subscribe_with(&mut office, &mut phone, &Proof { algorithm, ..BOB }, &nonce);
        assert_eq!((sent.len(), sent[0].status()), (2, 200), "{}", sent[0].text);
        phone.answer(&mut office, &sent[1], 200);
        for count in 2..5 {
            office.pass(500_000);
            let sent = subscribe_with(&mut office, &mut phone, &Proof { algorithm, count, ..BOB }, &nonce);
            assert_eq!(sent[0].status(), 200, "{count}");
            phone.answer(&mut office, &sent[1], 200);
        }
        phone.more.clear();
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 401, "a refresh is asked as well");
        assert_eq!(office.list().len(), 1, "and refusing it ends nothing");
    }
}

#[test]
fn what_proves_nothing_is_challenged_again() {
    // L-001, L-003, L-006, L-010
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let nonce = challenged(&mut office, &mut phone);
    let good = BOB.line(&nonce);
    for wrong in [
        Proof { password: "guess", ..BOB }.line(&nonce),
        Proof { user: "nobody", ..BOB }.line(&nonce),
        Proof { user: "mute", password: "", ..BOB }.line(&nonce),
        Proof { method: "PUBLISH", ..BOB }.line(&nonce),
        Proof { uri: "sip:1001@elsewhere.invalid", ..BOB }.line(&nonce),
        good.replace("algorithm=SHA-256", "algorithm=FOO"),
        good.replace("realm=\"acme.test\"", "realm=\"umbrella.test\""),
        "Authorization: Basic MTAwMjpodXNo\r\n".into(),
    ] {
        phone.more = wrong;
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!((sent.len(), sent[0].status()), (1, 401), "{}", phone.more);
        assert!(!sent[0].text.contains("stale"), "{}", phone.more);
    }
    let unknown = hash("SHA-256", "made up");
    let sent = subscribe_with(&mut office, &mut phone, &BOB, &unknown);
    assert_eq!(sent[0].status(), 401, "a nonce of his own making");
    phone.more = good;
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200, "and the door is not shut by that");
}

#[test]
fn a_proof_for_another_uri_of_ours_will_do_since_a_proxy_may_have_changed_it() {
    // L-007
    for uri in ["sip:1001@ACME.test:5080;x=y", "sip:192.0.2.1"] {
        let mut office = guarded();
        let mut phone = office.phone("1001", "dialog");
        let nonce = challenged(&mut office, &mut phone);
        assert_eq!(subscribe_with(&mut office, &mut phone, &Proof { uri, ..BOB }, &nonce)[0].status(), 200, "{uri}");
    }
}

#[test]
fn names_of_users_may_be_any_text() {
    // L-012
    let people = "[[account.device]]\nid = \"d\"\nsip = { username = \"bj\u{f8}rn\", password = \"p\" }\n";
    let mut office = Office::with_people("[access]\nauthenticate = \"digest\"\ntrusted_proxies = []\n", people);
    let mut phone = office.phone("1001", "dialog");
    let nonce = challenged(&mut office, &mut phone);
    phone.cseq += 1;
    phone.more = Proof { user: "bj\u{f8}rn", password: "p", ..BOB }.line(&nonce);
    let request = phone.request(600).replace("From: <sip:1002@", "From: <sip:bj%C3%B8rn@");
    assert_eq!(office.receive(phone.source, &request)[0].status(), 200);
}

#[test]
fn a_contact_elsewhere_or_at_our_own_address_has_us_send_to_nobody_but_the_source() {
    // L-020, L-022
    for contact in ["203.0.113.200:5060", "192.0.2.1:5060"] {
        let mut office = Office::open();
        let mut phone = office.phone("1001", "dialog");
        phone.cseq = 1;
        let request = phone
            .request(600)
            .replace(&format!("Contact: <sip:1002@{}>", phone.source.peer), &format!("Contact: <sip:1002@{contact}>"));
        let sent = office.receive(phone.source, &request);
        assert_eq!(sent[0].status(), 200);
        let back = Destination::Datagram { listener: phone.source.listener, peer: phone.source.peer };
        assert_eq!(sent[1].to, back, "{contact}");
    }
}

#[test]
fn who_is_sent_away_comes_back_at_a_time_of_his_own() {
    // L-027
    let mut office = Office::with("[limits]\nsubscriptions = 1\n");
    office.settled("1001", "dialog");
    let waits: HashSet<String> = (0..50)
        .map(|_| {
            let sent = office.watch("1001", "dialog").1;
            assert_eq!(sent[0].status(), 503);
            sent[0].header("Retry-After").to_string()
        })
        .collect();
    assert!(waits.len() > 10, "{waits:?}");
}

#[test]
fn an_identity_that_is_to_be_kept_private_is_shown_to_nobody() {
    // L-016
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    phone.source = udp("10.0.0.7:5060");
    phone.more = "P-Asserted-Identity: <sip:1002@acme.test>\r\nPrivacy: id\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| !sent.text.contains("Asserted")), "{sent:?}");
}

#[test]
fn no_answer_says_what_version_we_are() {
    // L-040
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    let options = phone.request(600).replace("SUBSCRIBE", "OPTIONS").replace("branch=z9hG4bK", "branch=z9hG4bKo");
    let answer = office.receive(phone.source, &options);
    for text in sent.iter().chain(&answer).map(|sent| &sent.text) {
        assert!(!text.contains("Server:") && !text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

#[test]
fn a_nonce_that_was_used_or_is_too_old_or_another_address_s_is_stale_for_who_knows_the_password() {
    // L-008, L-009, L-010
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let nonce = challenged(&mut office, &mut phone);
    assert_eq!(subscribe_with(&mut office, &mut phone, &BOB, &nonce)[0].status(), 200);
    let stale = |sent: Vec<Sent>| {
        assert_eq!(sent[0].status(), 401);
        assert!(sent[0].header("WWW-Authenticate").ends_with(", stale=true"), "{}", sent[0].text);
    };
    stale(subscribe_with(&mut office, &mut phone, &BOB, &nonce));
    let mut elsewhere = office.phone("1001", "dialog");
    stale(subscribe_with(&mut office, &mut elsewhere, &Proof { count: 2, ..BOB }, &nonce));
    office.pass(7_200_001);
    let mut late = office.phone("1001", "dialog");
    late.source = phone.source;
    stale(subscribe_with(&mut office, &mut late, &Proof { count: 3, ..BOB }, &nonce));
}

#[test]
fn the_repetition_of_a_request_that_was_let_in_is_no_replay() {
    // L-013
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let nonce = challenged(&mut office, &mut phone);
    let first = subscribe_with(&mut office, &mut phone, &BOB, &nonce);
    let again = Phone { to_tag: None, ..phone.clone() }.request(600);
    let copy = office.receive(phone.source, &again);
    assert_eq!((copy.len(), &copy[0].text), (1, &first[0].text));
}

#[test]
fn a_watcher_watches_in_his_own_realm_and_as_himself() {
    // rule 8
    let mut office = guarded();
    let mut abroad = office.phone("1001@umbrella.test", "dialog");
    let nonce = challenged(&mut office, &mut abroad);
    let sent = subscribe_with(&mut office, &mut abroad, &BOB, &nonce);
    assert_eq!((sent.len(), sent[0].status()), (1, 403), "{}", sent[0].text);
    let mut phone = office.phone("1001", "dialog");
    phone.more = BOB.line(&challenged(&mut office, &mut phone));
    phone.cseq += 1;
    for (from, status) in [("9999", 403), ("2000", 200), ("front", 200)] {
        phone.cseq += 1;
        phone.call_id = format!("as{from}");
        phone.more = BOB.line(&{
            let refused = office.receive(phone.source, &Phone { more: String::new(), ..phone.clone() }.request(600));
            phone.cseq += 1;
            crate::access::nonce(&refused[0])
        });
        let request = phone.request(600).replace("From: <sip:1002@", &format!("From: <sip:{from}@"));
        assert_eq!(office.receive(phone.source, &request)[0].status(), status, "{from}");
    }
}

#[test]
fn a_publisher_publishes_for_his_own_and_a_pbx_for_its_account() {
    // L-018
    let mut office = guarded();
    let publish = |office: &mut Office, whom: &str, proof: Proof<'_>| {
        let refused = office.publish(whom, None, &dialog("c", "early"));
        assert_eq!(refused[0].status(), 401);
        let line = Proof { method: "PUBLISH", ..proof }.line(&nonce(&refused[0]));
        office.publish_as(proof.user, whom, &line, &dialog("c", "early"))[0].status()
    };
    assert_eq!(publish(&mut office, "1002", BOB), 200);
    assert_eq!(publish(&mut office, "2000", BOB), 200, "his user's");
    assert_eq!(publish(&mut office, "1001", BOB), 403);
    let pbx = || Proof { user: "pbx", password: "switch", ..BOB };
    assert_eq!(publish(&mut office, "1001", pbx()), 200);
}

#[test]
fn a_trusted_source_is_never_asked_and_its_word_names_the_sender() {
    // L-015, L-017
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    phone.source = udp("10.0.0.7:5060");
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
    for (identity, status) in [("sip:1002@acme.test", 200), ("sip:eve@umbrella.test", 403), ("sip:eve@x.invalid", 403)]
    {
        let mut phone = office.phone("1001", "dialog");
        phone.source = udp("10.0.0.7:5060");
        phone.more = format!("P-Asserted-Identity: \"Bob\" <{identity}>, <tel:+15550100>\r\n");
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), status, "{identity}");
    }
    let mut outsider = office.phone("1001", "dialog");
    outsider.more = "P-Asserted-Identity: <sip:1002@acme.test>\r\n".into();
    assert_eq!(outsider.subscribe(&mut office, 600)[0].status(), 401);
    let more =
        "[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"10.0.0.7\"]\nidentity_header = \"X-Auth-User\"\n";
    let mut office = Office::with_people(more, PEOPLE);
    let mut phone = office.phone("1001", "dialog");
    phone.source = udp("10.0.0.7:5060");
    phone.more = "x-auth-user: <sip:eve@umbrella.test>\r\nP-Asserted-Identity: <sip:1002@acme.test>\r\n".into();
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 403);
}

#[test]
fn an_address_that_has_not_shown_that_it_receives_is_sent_one_notify_and_two_copies() {
    // L-019, rule 7
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    assert_eq!((sent[0].status(), sent.len()), (200, 2));
    let mut copies = office.pass_quietly(3_000);
    office.set("1001", Early);
    copies.extend(office.pass_quietly(400_000));
    office.set("1001", Confirmed);
    copies.extend(office.pass_quietly(190_000));
    assert_eq!(copies.len(), 2, "{copies:?}");
    let cseqs: HashSet<_> = copies.iter().map(Sent::cseq).collect();
    assert_eq!(cseqs.len(), 1);
    // The phone was there all the time: its refresh is answered and brings the current state.
    let mut phone = phone;
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["confirmed".into()]));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.set("1001", Early).len(), 1);
    assert!(office.pass_quietly(31_900).len() > 8, "now it is known to be there");
}

#[test]
fn having_shown_it_for_one_address_counts_for_that_address_alone() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.source = udp("203.0.113.77:5060");
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(sent[0].status(), 200);
    assert_eq!(office.pass_quietly(100_000).len(), 2);
}

#[test]
fn who_has_answered_a_challenge_has_shown_that_he_receives() {
    let mut office = guarded();
    let mut phone = office.phone("1001", "dialog");
    let nonce = challenged(&mut office, &mut phone);
    subscribe_with(&mut office, &mut phone, &BOB, &nonce);
    assert!(office.pass_quietly(31_900).len() > 8);
}

#[test]
fn a_flood_of_strangers_leaves_the_phones_that_are_here_alone_and_takes_no_memory() {
    // L-024
    let mut office = Office::with("[rate_limits]\nunverified_total = 100\nunverified_source = 10\nper_address = 20\n");
    let mut phone = office.settled("1001", "dialog");
    let mut answered = 0;
    for n in 0..5_000u32 {
        let mut forged = office.phone("1001", "dialog");
        forged.source = udp(&format!("203.{}.{}.7:5060", n / 250, n % 250));
        answered += usize::from(!forged.subscribe(&mut office, 600).is_empty());
    }
    assert!((80..=100).contains(&answered), "less than a second's worth of a hundred: {answered}");
    assert!(office.notifier.turned_away() > 4_000);
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent.len()), (200, 2));
    phone.answer(&mut office, &sent[1], 200);
    assert!(office.set("1001", Early).iter().any(|notify| notify.message().call_id == phone.call_id));
}

#[test]
fn who_says_too_much_is_told_so_now_and_then_with_a_time_to_come_back() {
    let mut office = Office::with("[rate_limits]\nverified_source = 10\n");
    let mut phone = office.settled("1001", "dialog");
    let statuses: Vec<_> =
        (0..1_000).filter_map(|_| phone.subscribe(&mut office, 600).first().map(Sent::status)).collect();
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert!((45..=51).contains(&count(200)), "{}", count(200));
    assert_eq!(count(480), 10);
    office.pass(5_000);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
}
