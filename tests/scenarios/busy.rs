//! A lamp is idle only when no call is live, however many calls there are and whatever publishers omit (rule 4).

use crate::office::{Office, Phone, Sent, dialog};

/// This many confirmed calls.
fn talking(name: &str, count: usize) -> String {
    (0..count).map(|n| dialog(&format!("{name}{n}"), "confirmed")).collect()
}

/// A call with tags.
fn branch(call_id: &str, remote_tag: &str, state: &str) -> String {
    format!(
        "<dialog id=\"{call_id}{remote_tag}\" call-id=\"{call_id}\" local-tag=\"a\" remote-tag=\"{remote_tag}\" \
         direction=\"recipient\"><state>{state}</state></dialog>"
    )
}

struct Watched {
    office: Office,
    phone: Phone,
    shown: Vec<String>,
}

impl Watched {
    fn new() -> Watched {
        let mut office = Office::open();
        let phone = office.settled("1001", "dialog");
        Watched { office, phone, shown: vec!["terminated".into()] }
    }

    /// Publishes, updates the shown lamp, and returns the entity-tag.
    fn publish(&mut self, etag: Option<&str>, dialogs: &str) -> String {
        let sent = self.office.publish("1001", etag, dialogs);
        assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
        self.see(&sent[1..]);
        sent[0].header("SIP-ETag").to_string()
    }

    fn see(&mut self, sent: &[Sent]) {
        for notify in sent.iter().filter(|sent| sent.is_notify()) {
            self.shown = notify.states();
            let more = self.phone.answer(&mut self.office, notify, 200);
            self.see(&more);
        }
    }

    fn is_idle(&self) -> bool {
        self.shown.iter().all(|state| state == "terminated")
    }

    /// Number of calls that the lamp shows as live.
    fn live(&self) -> usize {
        self.shown.iter().filter(|state| *state != "terminated").count()
    }
}

#[test]
fn another_call_after_64_is_shown_when_these_are_over() {
    let mut lamp = Watched::new();
    let etag = lamp.publish(None, &talking("c", 64));
    assert_eq!(lamp.live(), 64);
    lamp.publish(Some(&etag), &talking("other", 1));
    assert_eq!(lamp.live(), 1);
}

#[test]
fn a_65th_call_of_another_publication_outlives_the_64() {
    let mut lamp = Watched::new();
    let one = lamp.publish(None, &talking("c", 64));
    let two = lamp.publish(None, &talking("d", 1));
    assert_eq!(lamp.live(), 64);
    lamp.publish(Some(&one), "");
    assert_eq!(lamp.live(), 1);
    lamp.publish(Some(&two), "");
    assert!(lamp.is_idle());
}

#[test]
fn a_document_of_65_calls_and_more_lights_the_lamp_until_the_last_has_ended() {
    for count in [65, 90, 300] {
        let mut lamp = Watched::new();
        let short = |from: usize| {
            (from..count)
                .map(|n| format!("<dialog id=\"{n}\" call-id=\"c{n}\"><state>confirmed</state></dialog>"))
                .collect::<String>()
        };
        let mut etag = lamp.publish(None, &short(0));
        assert_eq!(lamp.live(), 64, "{count}");
        let story = lamp.office.story("1001");
        assert!(
            story.calls_not_shown > 0 && story.why.iter().any(|why| why.contains("more call(s) are live")),
            "{story:?}"
        );
        for left in [2, 1, 0] {
            etag = lamp.publish(Some(&etag), &short(count - left));
            assert_eq!((lamp.live(), lamp.is_idle()), (left, left == 0), "{count}");
        }
        assert_eq!(lamp.office.story("1001").calls_not_shown, 0);
    }
}

#[test]
fn what_is_not_shown_survives_a_restart() {
    let mut lamp = Watched::new();
    let one = lamp.publish(None, &talking("c", 64));
    lamp.publish(None, &talking("d", 8));
    lamp.office.crash();
    assert_eq!(lamp.office.story("1001").calls_not_shown, 8);
    lamp.office.publish("1001", Some(&one), "");
    assert_eq!(lamp.office.story("1001").live_calls.len(), 8);
}

#[test]
fn a_call_that_comes_back_to_the_extension_is_shown() {
    let mut lamp = Watched::new();
    let ended = "<dialog id=\"c\" call-id=\"c\" direction=\"recipient\"><state>terminated</state></dialog>";
    let etag = lamp.publish(None, &branch("c", "x", "early"));
    let etag = lamp.publish(Some(&etag), ended);
    assert!(lamp.is_idle());
    let etag = lamp.publish(Some(&etag), &branch("c", "x", "early"));
    assert!(lamp.is_idle(), "a late word of the first");
    let etag = lamp.publish(Some(&etag), &branch("c", "z", "early"));
    assert_eq!(lamp.shown, ["early"]);
    lamp.publish(Some(&etag), &branch("c", "z", "confirmed"));
    assert_eq!(lamp.shown, ["confirmed"]);
}

#[test]
fn a_fork_that_is_answered_without_tags_is_released() {
    let mut lamp = Watched::new();
    let etag = lamp.publish(None, &(branch("c", "x", "early") + &branch("c", "y", "early")));
    assert_eq!(lamp.live(), 2);
    lamp.publish(Some(&etag), &dialog("c", "confirmed"));
    assert_eq!((lamp.live(), &*lamp.shown[0]), (1, "confirmed"));
}

#[test]
fn a_hold_stays_until_it_is_taken_back() {
    let said = |rendering: &str| {
        let param = match rendering {
            "" => String::new(),
            rendering => format!("<param pname=\"+sip.rendering\" pval=\"{rendering}\"/>"),
        };
        format!(
            "<dialog id=\"c\" call-id=\"c\" direction=\"recipient\"><state>confirmed</state>\
             <local><target uri=\"sip:1001@192.0.2.9\">{param}</target></local></dialog>"
        )
    };
    let mut lamp = Watched::new();
    let held = |lamp: &Watched| lamp.office.story("1001").live_calls[0].held;
    let one = lamp.publish(None, &said("no"));
    assert!(held(&lamp));
    let two = lamp.publish(None, &dialog("c", "confirmed"));
    lamp.publish(Some(&two), &said(""));
    assert!(held(&lamp), "nothing was said of it");
    lamp.publish(Some(&one), &said("yes"));
    assert!(!held(&lamp));
}

/// A call in which every text has the greatest length.
fn verbose(call_id: &str, length: usize) -> String {
    let long = "x".repeat(length);
    format!(
        "<dialog id=\"{call_id}\" call-id=\"{call_id}-{long}\" local-tag=\"{long}\" remote-tag=\"{long}\" \
         direction=\"recipient\"><state>confirmed</state><local><identity>sip:1001@acme.test</identity></local>\
         <remote><identity display=\"{long}\">sip:{long}@acme.test</identity><target uri=\"sip:{long}@192.0.2.9\"/></remote></dialog>"
    )
}

#[test]
fn a_publish_that_would_make_the_document_larger_than_a_datagram_changes_nothing() {
    let mut lamp = Watched::new();
    let verbose =
        |name: &str, count: usize| -> String { (0..count).map(|n| verbose(&format!("{name}{n}"), 900)).collect() };
    let eight = |name: &str| verbose(name, 8);
    let one = lamp.publish(None, &eight("a"));
    assert_eq!(lamp.live(), 8);
    let before = lamp.office.story("1001");
    for (etag, dialogs) in [(None, eight("b")), (Some(&*one), verbose("b", 11))] {
        let refused = lamp.office.publish("1001", etag, &dialogs);
        assert_eq!((refused.len(), refused[0].status()), (1, 413), "{}", refused[0].text);
        assert_eq!(lamp.office.story("1001"), before);
    }
    // The entity-tag is still valid, the end of a call is never refused, and afterwards there is room.
    let one = lamp.publish(Some(&one), &eight("a").replace("confirmed", "terminated"));
    assert!(lamp.is_idle());
    lamp.publish(Some(&one), &eight("b"));
    assert_eq!(lamp.live(), 8);
    // Dozens of short calls fit.
    lamp.publish(None, &talking("short", 40));
    assert_eq!(lamp.live(), 48);
}

#[test]
fn a_notify_that_no_datagram_holds_is_not_sent_and_the_lamp_says_why() {
    let mut office = Office::with("[presence]\noversize_notify = \"udp\"\n");
    let etag = {
        let calls = (0..9).map(|n| verbose(&format!("a{n}"), 1_000)).collect::<String>() + &talking("b", 7);
        office.publish("1001", None, &calls)[0].header("SIP-ETag").to_string()
    };
    let near = office.settled("1001", "dialog");
    // The head of this NOTIFY is longer than the remaining space.
    let mut far = office.phone("1001", "dialog");
    (far.call_id, far.tag) = ("c".repeat(5_500), "t".repeat(1_500));
    let sent = far.subscribe(&mut office, 600);
    assert_eq!((sent.len(), sent[0].status()), (1, 200));
    let story = office.story("1001");
    assert_eq!((story.lamp.watchers, story.lamp.failing, story.lamp.behind), (2, 1, 1));
    assert!(story.why.iter().any(|why| why.contains("too large for a datagram (513)")), "{:?}", story.why);
    assert_eq!(office.pass_quietly(100_000), [], "it is not sent later either");
    // When the document is smaller, both phones are notified at once.
    let sent = office.publish("1001", Some(&etag), &dialog("b", "confirmed"));
    assert_eq!(sent.iter().filter(|sent| sent.is_notify()).count(), 2);
    for (phone, notify) in [(&near, &sent[1]), (&far, &sent[2])] {
        assert_eq!(phone.answer(&mut office, notify, 200), []);
    }
    let story = office.story("1001");
    assert_eq!((story.lamp.failing, story.lamp.behind), (0, 0));
    assert!(story.why.iter().all(|why| !why.contains("too large")));
}
