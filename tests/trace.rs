//! Diagnosis over the API of a real server: the trace of one subscription, its content, its secrets and its access
//! rights; and the link from an HTTP request to the NOTIFYs that it causes.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // what the tests of the API ask for is not all asked for here
mod world;

use serde_json::{Value, json};
use world::{Phone, UMBRELLA, World};

/// A server with a phone that watches 1001, and the id of that subscription.
fn watched() -> (World, Phone, String) {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let id = world.until("subscriptions?filter=1002", |found| {
        let row = found.as_array()?.first()?;
        (row["delivery_status"] == "current").then(|| row["id"].as_str().unwrap().to_owned())
    });
    (world, phone, id)
}

fn trace(world: &World, id: &str, more: &str) -> (u16, Value) {
    world.ask("POST", &format!("subscriptions/{id}"), &format!(r#"{{"data":{{"action":"trace"{more}}}}}"#))
}

fn lines(story: &Value) -> Vec<(String, String)> {
    let messages = story["messages"].as_array().unwrap().iter();
    messages
        .map(|one| {
            let text = one["text"].as_str().unwrap();
            (one["direction"].as_str().unwrap().to_owned(), text.split(' ').next().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn what_is_said_in_a_subscription_is_kept_whole_but_for_proofs() {
    let (world, phone, id) = watched();
    let another = Phone::new(&world);
    another.subscribe("1001", "acme.test");
    let path = format!("subscriptions/{id}/trace");
    assert_eq!(world.ask("GET", &path, "").0, 404, "nothing is kept that nobody has asked for");
    assert_eq!(world.data(&format!("subscriptions/{id}"))["traced_until"], Value::Null);
    assert_eq!(trace(&world, &id, "").0, 200);

    // A change reaches both phones, but only one is traced. Then it refreshes; the trace must not show the
    // credentials.
    world.set("1001", "early");
    let notify = phone.hear_start("NOTIFY");
    phone.answer(&notify, "200 OK");
    another.answer(&another.hear_start("NOTIFY"), "200 OK");
    let field = |name: &str| notify.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let (ours, theirs, call) = (field("From:"), field("To:"), field("Call-ID:"));
    let local = call.split('@').nth(1).unwrap();
    phone.send(&format!(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKagain;rport\r\nFrom: {theirs}\r\n\
         To: {ours}\r\nCall-ID: {call}\r\nCSeq: 2 SUBSCRIBE\r\nContact: <sip:1002@{local}>\r\nEvent: dialog\r\n\
         Expires: 600\r\nAuthorization: Digest username=\"1002\", response=\"0123456789abcdef\"\r\nContent-Length: 0\r\n\r\n"
    ));
    phone.hear_start("SIP/2.0 200");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");

    let story = world.until(&path, |story| (story["messages"].as_array()?.len() == 6).then(|| story.clone()));
    let expected = [
        ("sent", "NOTIFY"),
        ("received", "SIP/2.0"),
        ("received", "SUBSCRIBE"),
        ("sent", "SIP/2.0"),
        ("sent", "NOTIFY"),
        ("received", "SIP/2.0"),
    ];
    assert_eq!(lines(&story), expected.map(|(direction, word)| (direction.to_owned(), word.to_owned())));
    let texts: Vec<_> = story["messages"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap()).collect();
    assert_eq!(texts[0], notify, "word for word, body included");
    assert!(
        texts[2].contains("Authorization: Digest (removed)\r\n") && !texts[2].contains("0123456789abcdef"),
        "{}",
        texts[2]
    );
    let first = &story["messages"][0];
    assert_eq!(
        (&first["transport"], &first["peer"], &first["bytes"]),
        (&json!("UDP"), &json!(local), &json!(notify.len()))
    );
    assert_eq!((&story["running"], &story["evicted"]), (&json!(true), &json!(0)));
    assert_eq!(story["until_at"].as_u64().unwrap() - story["since_at"].as_u64().unwrap(), 300_000);
    assert_eq!(world.data(&format!("subscriptions/{id}"))["traced_until"], story["until_at"]);

    // The trace outlives its subscription, and is removed on request.
    assert_eq!(world.ask("DELETE", &format!("subscriptions/{id}"), "").0, 200);
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    world.until(&path, |story| (story["messages"].as_array()?.len() == 8).then_some(()));
    assert_eq!(world.ask("DELETE", &path, "").0, 200);
    assert_eq!((world.ask("GET", &path, "").0, world.ask("DELETE", &path, "").0), (404, 404));
}

#[test]
fn traces_are_of_ones_own_account_and_of_what_is_there() {
    let (world, _phone, id) = watched();
    assert_eq!(trace(&world, &id, r#","seconds":60"#).0, 200);
    let theirs = |method: &str, end: &str, body: &str| {
        world.ask_as("umbrella-token", method, &format!("/v2/accounts/{UMBRELLA}/subscriptions/{id}{end}"), body).0
    };
    assert_eq!(theirs("GET", "/trace", ""), 404);
    assert_eq!(theirs("DELETE", "/trace", ""), 404);
    assert_eq!(theirs("POST", "", r#"{"data":{"action":"trace"}}"#), 404);
    assert_eq!(trace(&world, "1.0.0123456789abcdef", "").0, 404);
    assert_eq!(trace(&world, "nonsense", "").0, 404);
    for wrong in ["0", "3601", "-1", "1.5", "\"soon\"", "true", "[60]", "4294967297"] {
        let (status, json) = trace(&world, &id, &format!(r#","seconds":{wrong}"#));
        assert_eq!((status, json["data"]["seconds"].is_object()), (400, true), "{wrong}: {json}");
    }
    assert_eq!(world.ask("PUT", &format!("subscriptions/{id}/trace"), "").0, 405);
    assert_eq!(world.data(&format!("subscriptions/{id}/trace"))["messages"], json!([]), "and nothing was said yet");
}

#[test]
fn no_more_are_traced_at_once_than_is_good() {
    let (world, phone, _) = watched();
    for n in 0..16 {
        phone.subscribe(&format!("2{n:03}"), "acme.test");
    }
    let ids: Vec<String> = world.until("subscriptions", |found| {
        let ids: Vec<_> = found.as_array()?.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        (ids.len() == 17).then_some(ids)
    });
    for id in &ids[..16] {
        assert_eq!(trace(&world, id, "").0, 200);
    }
    let (status, json) = trace(&world, &ids[16], "");
    assert_eq!(status, 503);
    assert!(json["data"]["cause"].as_str().unwrap().contains("16 (limits.traces_per_account)"), "{json}");
    assert_eq!(trace(&world, &ids[0], "").0, 200, "anew");
    assert_eq!(world.ask("DELETE", &format!("subscriptions/{}/trace", ids[1]), "").0, 200);
    assert_eq!(trace(&world, &ids[16], "").0, 200);
}

/// Sends a request, and returns the request id in its response.
fn request(world: &World, method: &str, path: &str, body: &str) -> Value {
    let (status, json) = world.ask(method, path, body);
    assert_eq!(status, 200, "{json}");
    json["request_id"].clone()
}

#[test]
fn a_request_is_named_by_what_it_sets_off_and_by_nothing_else() {
    let (world, phone, id) = watched();
    let pbx = Phone::new(&world);
    let path = format!("subscriptions/{id}");
    // The NOTIFY with this CSeq, once it is answered.
    let request_of = |cseq: u64| {
        world.until(&path, |story| {
            let found =
                story["exchanges"].as_array()?.iter().find(|one| one["method"] == "NOTIFY" && one["cseq"] == cseq);
            found.map(|one| one["request"].clone())
        })
    };
    assert_eq!(request_of(1), Value::Null, "the first is the work of the SUBSCRIBE");

    let set = request(&world, "POST", "presence/1001", r#"{"data":{"action":"set","state":"early"}}"#);
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    assert_eq!(request_of(2), set);

    pbx.publish(1, "1001", "confirmed", "");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    assert_eq!(request_of(3), Value::Null, "a PUBLISH is nobody's request");

    let resend = request(&world, "POST", &path, r#"{"data":{"action":"resend"}}"#);
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    assert_eq!(request_of(4), resend);

    // A NOTIFY that is not answered yet carries the request id as well.
    let reset = request(&world, "POST", "presence/1001", "");
    let notify = phone.hear_start("NOTIFY");
    assert_eq!(world.data(&path)["under_way"]["request"], reset);
    phone.answer(&notify, "200 OK");
    assert_eq!(request_of(5), reset);

    // A NOTIFY after a refresh is attributed to the phone, whatever happened before.
    let field = |name: &str| notify.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let (ours, theirs, call) = (field("From:"), field("To:"), field("Call-ID:"));
    let local = call.split('@').nth(1).unwrap();
    phone.send(&format!(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKrefresh;rport\r\nFrom: {theirs}\r\n\
         To: {ours}\r\nCall-ID: {call}\r\nCSeq: 2 SUBSCRIBE\r\nContact: <sip:1002@{local}>\r\nEvent: dialog\r\n\
         Expires: 600\r\nContent-Length: 0\r\n\r\n"
    ));
    phone.hear_start("SIP/2.0 200");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    assert_eq!(request_of(6), Value::Null);

    let story = world.data("lamps/1001");
    let changes: Vec<_> =
        story["changes"].as_array().unwrap().iter().map(|one| (&one["cause"], &one["request"])).collect();
    let expected =
        [(&json!("set by hand"), &set), (&json!("published"), &Value::Null), (&json!("reset by hand"), &reset)];
    assert_eq!(changes, expected);
    let told: Vec<_> = story["exchanges"].as_array().unwrap().iter().filter(|one| one["request"] == resend).collect();
    assert_eq!(told.len(), 1, "the story of the lamp names it too");
}

#[test]
fn every_answer_bears_the_id_of_its_request() {
    let world = World::new("");
    for path in ["/healthz", "/metrics", "/", "/docs", "/openapi.json", "/v2/accounts", "/v2/nowhere", "/nowhere"] {
        let (head, _) = world.text_as("root-token", path, "X-Request-ID: mine-1\r\n");
        assert!(head.contains("x-request-id: mine-1\r\n"), "{path}: {head}");
    }
}
