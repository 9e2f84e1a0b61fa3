//! Upgrade: a journal of an earlier version is opened completely. Subscriptions, publications, entity-tags and lamps
//! are as they were when that server was killed. `tests/fixtures/journal-format-1/` documents the recording.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lamplighter::journal::{Durability, Journal, Key, Recovered};
use lamplighter::notifier::Restored;
use lamplighter::presence::state::CallState::Early;
use lamplighter::sip::Transport;
use lamplighter::sip::wire::Name;
use lamplighter::transport::{FlowId, ListenerId, Source};
use serde::Deserialize;

use crate::office::{Office, Phone, Sent, dialog};

/// Lifetime of each subscription and publication (seconds).
const GRANTED: u64 = 3600;

/// State that the earlier server had acknowledged.
#[derive(Deserialize)]
struct Recording {
    version: String,
    /// Time at which it was killed (ms).
    recorded_at: u64,
    subscriptions: Vec<Watched>,
    /// A subscription that its phone has ended.
    ended: Watched,
    publications: Vec<Published>,
    /// A publication that its publisher has removed.
    removed: Published,
    lamps: Vec<Lamp>,
}

#[derive(Clone, Deserialize)]
struct Watched {
    call_id: String,
    tag: String,
    to_tag: String,
    transport: String,
    peer: String,
    target: String,
    event: String,
    cseq: u32,
    more: String,
    instance: String,
    granted_at: u64,
    /// CSeq number and document of the last NOTIFY that the phone has answered.
    notify_cseq: u32,
    body: String,
    /// True if it has answered the last one.
    answered: bool,
}

impl Watched {
    fn name(&self) -> &str {
        self.call_id.trim_end_matches("@phones")
    }

    /// The phone after the restart, with a new connection.
    fn phone(&self) -> Phone {
        let (transport, listener, flow) = match &*self.transport {
            "udp" => (Transport::Udp, ListenerId(0), None),
            _ => (Transport::Tcp, ListenerId(1), Some(FlowId(1))),
        };
        Phone {
            source: Source { transport, listener, peer: self.peer.parse().unwrap(), flow, certified: false },
            target: self.target.clone(),
            event: self.event.clone(),
            call_id: self.call_id.clone(),
            tag: self.tag.clone(),
            to_tag: Some(self.to_tag.clone()),
            cseq: self.cseq,
            more: self.more.clone(),
            instance: self.instance.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Published {
    target: String,
    event: String,
    etag: String,
    granted_at: u64,
}

#[derive(Deserialize)]
struct Lamp {
    target: String,
    event: String,
    body: String,
}

impl Recording {
    fn read() -> Recording {
        let text = std::fs::read_to_string(fixture().join("recorded.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn watched(&self, name: &str) -> &Watched {
        self.subscriptions.iter().find(|watched| watched.name() == name).unwrap()
    }

    /// State that this lamp has shown.
    fn lamp(&self, target: &str, event: &str) -> &str {
        let target = target.to_lowercase();
        &self.lamps.iter().find(|lamp| (&*lamp.target, &*lamp.event) == (&*target, event)).unwrap().body
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-format-1")
}

/// A copy of the recorded journal, removed when the value is dropped.
struct Copied(PathBuf);

impl Copied {
    fn new() -> Copied {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lamplighter-upgrade-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let copied = Copied(std::env::temp_dir().join(name));
        std::fs::create_dir(&copied.0).unwrap();
        for file in std::fs::read_dir(fixture().join("journal")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copied.0.join(file.file_name())).unwrap();
        }
        copied
    }

    fn open(&self) -> (Journal, Recovered) {
        Journal::open(&self.0, Durability::Strict).unwrap()
    }

    /// Output of `lamplighter journal check`, and true if it succeeded.
    fn check(&self) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_lamplighter")).args(["journal", "check"]).arg(&self.0).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server restored from the journal, at the time when the earlier server was killed.
fn upgraded() -> (Office, Recording, Restored) {
    let (recording, journal) = (Recording::read(), Copied::new());
    let mut office = Office::open();
    office.now = recording.recorded_at;
    office.disk = journal.open().1.records.into_iter().collect();
    let restored = office.crash();
    (office, recording, restored)
}

/// A document without the parts that differ between NOTIFYs or between spellings of the realm.
fn plain(document: &str) -> String {
    let document = document.replace("ACME.TEST", "acme.test");
    let Some((head, root)) = document.split_once("<dialog-info") else { return document };
    let (before, after) = root.split_once(" version=\"").unwrap();
    format!("{head}<dialog-info{before}{}", after.split_once('"').unwrap().1)
}

fn fetch(office: &mut Office, lamp: &Lamp) -> String {
    let target = lamp.target.trim_start_matches("sip:");
    let sent = office.phone(target, &lamp.event).subscribe(office, 0);
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    plain(sent[1].body())
}

fn assert_lamps(office: &mut Office, recording: &Recording) {
    for lamp in &recording.lamps {
        assert_eq!(fetch(office, lamp), plain(&lamp.body), "{} of {}", lamp.event, lamp.target);
    }
}

/// Refreshes a publication, or changes it if there is a body.
fn publish(office: &mut Office, published: &Published, body: &str) -> Vec<Sent> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let Published { target, event, etag, .. } = published;
    let content = if body.is_empty() { "" } else { "Content-Type: application/dialog-info+xml\r\n" };
    let request = format!(
        "PUBLISH {target} SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKu{n}\r\nFrom: <{target}>;tag=u{n}\r\n\
         To: <{target}>\r\nCall-ID: u{n}\r\nCSeq: 1 PUBLISH\r\nEvent: {event}\r\nExpires: 3600\r\nSIP-If-Match: {etag}\r\n\
         {content}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    office.receive(crate::office::udp("203.0.113.9:5060"), &request)
}

fn to(sent: &[Sent], watched: &Watched) -> Vec<Sent> {
    sent.iter().filter(|sent| sent.is_notify() && sent.message().call_id == watched.call_id).cloned().collect()
}

#[test]
fn the_files_are_sound_and_read_alike_before_and_after_the_first_start() {
    let journal = Copied::new();
    let (sound, said) = journal.check();
    assert!(sound, "{said}");
    let mut opened: Vec<(Vec<(Key, Bytes)>, usize)> = Vec::new();
    for _ in 0..2 {
        let (journal, recovered) = journal.open();
        assert_eq!((recovered.report.new, recovered.report.cut), (false, None));
        opened.push((recovered.records, recovered.report.files.len()));
        journal.close();
    }
    assert!(!opened[0].0.is_empty());
    assert_eq!(opened[0].0, opened[1].0);
    assert_eq!((opened[0].1, opened[1].1), (1, 2), "the old log is complete, and a new one begun");
    let (sound, said) = journal.check();
    assert!(sound, "{said}");
}

#[test]
fn everything_comes_back_and_only_the_phone_that_had_not_answered_is_told() {
    let (mut office, recording, restored) = upgraded();
    assert_eq!(recording.version, "0.1.0");
    let silent = recording.watched("silent");
    assert_eq!(recording.subscriptions.iter().filter(|watched| !watched.answered).count(), 1);
    assert!(!silent.answered);
    let subscriptions = recording.subscriptions.len();
    assert_eq!(restored, Restored { subscriptions, behind: 1, states: 8, ..Restored::default() });
    assert_eq!(office.notifier.dormant_records(), 0);
    let told = office.pass_quietly(400);
    assert_eq!(told.len(), 1);
    let told = to(&told, silent);
    assert_eq!(plain(told[0].body()), plain(recording.lamp("sip:1006@acme.test", "dialog")));
    assert!(told[0].cseq() > silent.notify_cseq);
}

#[test]
fn every_subscription_is_refreshed_by_its_old_to_tag() {
    let (mut office, recording, _) = upgraded();
    for watched in &recording.subscriptions {
        let mut phone = watched.phone();
        let sent = phone.subscribe(&mut office, 600);
        let name = watched.name();
        assert_eq!((sent.len(), sent[0].status(), phone.to_tag.as_ref()), (2, 200, Some(&watched.to_tag)), "{name}");
        let notify = &sent[1];
        assert!(notify.cseq() > watched.notify_cseq, "{name}");
        if watched.event.starts_with("dialog") {
            let last = Sent { text: format!("\r\n\r\n{}", watched.body), ..notify.clone() };
            assert!(notify.version() > last.version(), "{name}");
        }
        let (event, names) = watched.event.split_once(';').unwrap_or((&watched.event, ""));
        let shown = match names.starts_with("call-id") {
            true => &watched.body,
            false => recording.lamp(&watched.target, event),
        };
        assert_eq!(plain(notify.body()), plain(shown), "{name}");
        assert_eq!(phone.answer(&mut office, notify, 200), [], "{name}");
    }
    assert_eq!(office.list().len(), recording.subscriptions.len() - 1, "one is of the other tenant");
    assert_eq!(recording.ended.phone().subscribe(&mut office, 600)[0].status(), 481);
}

#[test]
fn what_phones_had_asked_for_still_holds() {
    let (mut office, recording, _) = upgraded();
    let with_id = recording.watched("second");
    let sent = with_id.phone().subscribe(&mut office, 600);
    assert_eq!(sent[1].message().all(Name::Event).collect::<Vec<_>>(), ["dialog;id=7"]);

    let routed =
        office.list().into_iter().find(|record| record.call_id == recording.watched("routed").call_id).unwrap();
    assert!(routed.user_agent.unwrap().starts_with("Yealink"));
    assert_eq!(routed.proxy_route.unwrap(), format!("sip:{};lr", recording.watched("routed").peer));

    let suppressed = recording.watched("suppressed");
    assert_eq!(to(&office.set("1003", Early), suppressed), [], "whatever changes (RFC 5839)");

    let slow = recording.watched("slow");
    assert_eq!(to(&office.set("1001", Early), slow), [], "it may have been told something just before the restart");
    let (at, told) = office.pass(6_000).into_iter().find(|(_, sent)| sent.message().call_id == slow.call_id).unwrap();
    assert!((5_000..=5_250).contains(&at), "{at}");
    assert!(told.header("Subscription-State").ends_with(";max-rate=0.2"), "{}", told.text);
}

#[test]
fn a_subscription_to_one_dialog_ends_with_it() {
    let (mut office, recording, _) = upgraded();
    let over = "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"9\" state=\"full\" \
         entity=\"sip:1001@acme.test\"><dialog id=\"1\" call-id=\"c1@pbx\" local-tag=\"a\" remote-tag=\"b\" \
         direction=\"recipient\"><state>terminated</state></dialog></dialog-info>";
    let published = recording.publications.iter().find(|published| published.target == "sip:1001@acme.test").unwrap();
    let sent = publish(&mut office, published, over);
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    let told = to(&sent, recording.watched("named"));
    assert_eq!(told[0].header("Subscription-State"), "terminated;reason=noresource");
}

#[test]
fn every_entity_tag_is_accepted_once() {
    let (mut office, recording, _) = upgraded();
    let mut generations = Vec::new();
    for published in &recording.publications {
        let sent = publish(&mut office, published, "");
        let name = format!("{} of {}", published.event, published.target);
        assert_eq!((sent.len(), sent[0].status()), (1, 200), "{name}: {}", sent[0].text);
        let new = sent[0].header("SIP-ETag").to_string();
        assert_ne!(new, published.etag, "{name}");
        assert_eq!(publish(&mut office, published, "")[0].status(), 412, "{name}");
        let renewed =
            Published { etag: new, target: published.target.clone(), event: published.event.clone(), ..*published };
        assert_eq!(publish(&mut office, &renewed, "")[0].status(), 200, "{name}");
        generations.push(published.etag.split('.').nth(1).unwrap().to_string());
    }
    assert_eq!(generations, ["2", "0", "1", "0", "0", "0", "1", "0"]);
    assert_eq!(publish(&mut office, &recording.removed, "")[0].status(), 412);
    assert_lamps(&mut office, &recording);
}

#[test]
fn every_lamp_shows_what_it_showed() {
    let (mut office, recording, _) = upgraded();
    assert_lamps(&mut office, &recording);
    // A restart of this version, with records in its own layout, changes nothing.
    office.compact();
    assert_eq!(office.crash().unusable(), 0);
    assert_lamps(&mut office, &recording);
}

#[test]
fn a_late_report_of_a_call_that_had_ended_lights_no_lamp() {
    let (mut office, recording, _) = upgraded();
    let late = "<dialog id=\"4\" call-id=\"c4@pbx\" local-tag=\"a\" remote-tag=\"b\" direction=\"recipient\">\
                <state>early</state></dialog>";
    let sent = office.publish("1002", None, late);
    assert_eq!((sent.len(), sent[0].status()), (1, 200));
    assert_lamps(&mut office, &recording);
    let sent = office.publish("1002", None, &dialog("c9@pbx", "early"));
    assert!(sent.len() > 1, "another call does");
}

#[test]
fn lifetimes_end_when_they_would_have() {
    let (office, recording, _) = upgraded();
    let listed = office.list();
    for watched in recording.subscriptions.iter().filter(|watched| !watched.target.ends_with("umbrella.test")) {
        let record = listed.iter().find(|record| record.call_id == watched.call_id).unwrap();
        assert_eq!(u64::from(record.expires), GRANTED);
        // The phone recorded the arrival time of the response; that is within a second.
        assert!(record.subscribed_at.abs_diff(watched.granted_at / 1_000) <= 1, "{}", watched.call_id);
    }
    for published in recording.publications.iter().filter(|published| published.target.ends_with("acme.test")) {
        let user = published.target.trim_start_matches("sip:").split('@').next().unwrap();
        let story = office.story(user);
        let row = story.publications.iter().find(|row| row.etag == published.etag).unwrap();
        assert!(row.expires_at.abs_diff(published.granted_at + GRANTED * 1_000) <= 1_000, "{user}");
    }
}
