//! Every lamp can be explained (rule 10): the API calls that tell why a lamp is as it is, and the live stream, with a
//! real server and real phones.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "lamps/commands.rs"]
mod commands;
#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // the browser's tests ask for more
mod world;

use serde_json::{Value, json};
use world::{ACME, Phone, UMBRELLA, World};

fn only_watcher(world: &World, extension: &str) -> Value {
    world.data(&format!("lamps/{extension}"))["watching"][0].clone()
}

#[test]
fn a_wall_has_every_extension_that_is_configured_or_known_in_pages() {
    let world = World::new("");
    let pbx = Phone::new(&world);
    pbx.publish(1, "1001", "early", "");
    pbx.publish(
        2,
        "0999",
        "confirmed",
        "<local><target uri='sip:x'><param pname='+sip.rendering' pval='no'/></target></local>",
    );
    world.set("2000", "confirmed");
    let (_, all) = world.ask("GET", "lamps", "");
    let shown: Vec<_> = all["data"].as_array().unwrap().iter().map(|l| (&l["extension"], &l["state"])).collect();
    let expected = [("0999", "held"), ("1001", "ringing"), ("1002", "unknown"), ("2000", "talking")];
    assert_eq!(format!("{shown:?}"), format!("{:?}", expected.map(|(e, s)| (json!(e), json!(s)))));
    assert_eq!((&all["page_size"], &all["start_key"], all.get("next_start_key")), (&json!(4), &json!(""), None));
    let ringing = &all["data"][1];
    assert_eq!(ringing["with"], json!({"name": "Carol", "number": "1003@acme.test"}));
    assert_eq!((&ringing["name"], &ringing["calls"]), (&json!("Alice"), &json!(1)));
    let (_, first) = world.ask("GET", "lamps?page_size=3", "");
    assert_eq!((&first["data"].as_array().unwrap().len(), &first["next_start_key"]), (&3, &json!("2000")));
    let (_, second) = world.ask("GET", "lamps?page_size=3&start_key=2000", "");
    assert_eq!((&second["data"][0]["extension"], second.get("next_start_key")), (&json!("2000"), None));
    for (query, field) in [
        ("page_size=0", "page_size"),
        ("page_size=10001", "page_size"),
        ("page_size=-1", "page_size"),
        ("page_size=x", "page_size"),
        (&*format!("start_key={}", "x".repeat(129)), "start_key"),
    ] {
        let (status, fault) = world.ask("GET", &format!("lamps?{query}"), "");
        assert_eq!((status, &fault["data"][field]["invalid"]["target"]), (400, &json!(field)), "{query}");
    }
}

#[test]
fn the_story_of_a_lamp_names_its_call_publication_watcher_and_why() {
    let world = World::new("");
    let (phone, pbx) = (Phone::new(&world), Phone::new(&world));
    phone.subscribe("1001", "acme.test");
    pbx.publish(1, "1001", "early", "");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    let story = world.until("lamps/1001", |story| {
        (story["watching"][0]["delivery_status"] == "current" && story["state"] == "ringing").then(|| story.clone())
    });
    assert_eq!((&story["uri"], &story["manual"]), (&json!("sip:1001@acme.test"), &Value::Null));
    let call = &story["live_calls"][0];
    assert_eq!(
        (&call["state"], &call["direction"], &call["call_id"]),
        (&json!("early"), &json!("recipient"), &json!("c"))
    );
    assert_eq!(call["held_by"][0], story["publications"][0]["etag"]);
    let source = &story["publications"][0]["source"];
    assert_eq!((&source["from"], &source["user_agent"]), (&json!("sip:pbx@acme.test"), &json!("pbx/1")));
    assert!(story["why"][0].as_str().unwrap().starts_with("Call c is early, as published "), "{story:#}");
    let watcher = &story["watching"][0];
    assert_eq!((&watcher["vendor"], &watcher["watcher"]), (&json!("Yealink"), &json!("1002@acme.test")));
    assert_eq!((&watcher["acknowledged"], &watcher["behind"]), (&story["revisions"][0]["revision"], &json!(0)));
    let causes: Vec<_> = story["changes"].as_array().unwrap().iter().map(|change| &change["cause"]).collect();
    assert_eq!(causes, ["published"]);
    assert_eq!(world.ask("GET", "lamps/7777", "").0, 404);
    assert_eq!(world.data("lamps/1002")["state"], "unknown", "configured, but nothing is known of it");
    let found = world.data("subscriptions?filter=yealink");
    assert_eq!((&found[0]["extension"], found.as_array().unwrap().len()), (&json!("1001"), 1));
    assert_eq!(world.data("subscriptions?filter=snom"), json!([]));
    let (_, named) = world.ask("GET", "lamps?filter=ALI", "");
    assert_eq!((&named["data"][0]["extension"], &named["page_size"]), (&json!("1001"), &json!(1)));
    assert_eq!(world.data("lamps?filter=002")[0]["extension"], "1002");
    assert_eq!(world.ask("GET", &format!("lamps?filter={}", "x".repeat(129)), "").0, 400);
    let (status, fault) = world.ask("GET", &format!("subscriptions?filter={}", "x".repeat(129)), "");
    assert_eq!((status, &fault["data"]["filter"]["invalid"]["target"]), (400, &json!("filter")));
    let overview = world.data("lamp_overview");
    assert_eq!((&overview["subscriptions"], &overview["states"]["ringing"]), (&json!(1), &json!(1)));
    let sum = |key: &str| overview["buckets"].as_array().unwrap().iter().map(|b| b[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("changes"), sum("subscribed"), sum("acknowledged"), sum("failed")), (1, 1, 2, 0));
}

#[test]
fn subscriptions_come_in_pages_ordered_by_extension() {
    let world = World::new("");
    // A page boundary may also fall between the subscriptions of one extension.
    let phones: Vec<_> = (0..5).map(|_| Phone::new(&world)).collect();
    for (phone, extension) in phones.iter().zip(["1003", "1001", "1002", "1002", "1002"]) {
        phone.subscribe(extension, "acme.test");
    }
    let mut seen = Vec::new();
    let mut start = String::new();
    loop {
        let (_, page) = world.ask("GET", &format!("subscriptions?page_size=2&start_key={start}"), "");
        assert_eq!(page["start_key"], json!(start));
        seen.extend(page["data"].as_array().unwrap().iter().map(|row| row["extension"].clone()));
        match page["next_start_key"].as_str() {
            Some(next) => start = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["1001", "1002", "1002", "1002", "1003"]);
    for (query, field) in
        [("page_size=0", "page_size"), ("start_key=x", "start_key"), ("start_key=%2B1.1", "start_key")]
    {
        let (status, fault) = world.ask("GET", &format!("subscriptions?{query}"), "");
        assert_eq!((status, &fault["data"][field]["invalid"]["target"]), (400, &json!(field)), "{query}");
    }
}

#[test]
fn a_watcher_that_refuses_is_shown_as_behind_and_since_when() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    world.set("1001", "early");
    phone.answer(&phone.hear_start("NOTIFY"), "500 Not Now");
    let story = world.until("lamps/1001", |story| (story["failing"] == 1).then(|| story.clone()));
    let watcher = &story["watching"][0];
    assert_eq!(
        (&watcher["delivery_status"], &watcher["behind"], &watcher["failures"]),
        (&json!("failing"), &json!(1), &json!(1))
    );
    assert_eq!(
        (&watcher["stale_since"], &watcher["stale_since_is_lower_bound"]),
        (&story["changes"][0]["at"], &json!(false))
    );
    assert_eq!((&watcher["last"]["reply"], &story["behind"]), (&json!(500), &json!(1)));
    assert!(watcher["next_try_at"].as_u64() > watcher["stale_since"].as_u64(), "{watcher:#}");
}

#[test]
fn the_story_of_a_subscription_has_its_dialog_its_flow_and_its_exchanges() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let id = only_watcher(&world, "1001")["id"].as_str().unwrap().to_owned();
    world.set("1001", "early");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    let path = format!("subscriptions/{id}");
    let story = world.until(&path, |story| (story["exchanges"].as_array()?.len() == 3).then(|| story.clone()));
    let brief = |e: &Value| {
        [&e["method"], &e["cseq"], &e["reply"], &e["version"], &e["granted"], &e["transport"]]
            .map(Value::to_string)
            .join(" ")
    };
    let exchanges: Vec<_> = story["exchanges"].as_array().unwrap().iter().map(brief).collect();
    assert_eq!(
        exchanges,
        [r#""SUBSCRIBE" 1 200 null 600 null"#, r#""NOTIFY" 1 200 0 null "UDP""#, r#""NOTIFY" 2 200 1 null "UDP""#]
    );
    assert!(story["exchanges"][1]["bytes"].as_u64().unwrap() > 400 && story["exchanges"][1]["delay_ms"].is_u64());
    assert_eq!((&story["dialog"]["local_cseq"], &story["dialog"]["remote_cseq"]), (&json!(2), &json!(1)));
    assert_eq!((&story["flow"]["transport"], &story["earlier"]), (&json!("UDP"), &json!(0)));
    assert!(story["last_body"].as_str().unwrap().contains("<state>early</state>"), "{story:#}");
}

#[test]
fn a_history_of_nothing_says_how_much_is_missing() {
    let world = World::new("history = { exchanges = 0 }");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let id = only_watcher(&world, "1001")["id"].as_str().unwrap().to_owned();
    let answered = |story: &Value| (!story["last"].is_null()).then(|| story.clone());
    let story = world.until(&format!("subscriptions/{id}"), answered);
    assert_eq!((&story["exchanges"], &story["earlier"]), (&json!([]), &json!(1)));
}

#[test]
fn resend_brings_one_notify_and_delete_the_last() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let id = only_watcher(&world, "1001")["id"].as_str().unwrap().to_owned();
    let path = format!("subscriptions/{id}");
    assert_eq!(world.ask("POST", &path, r#"{"data":{"action":"resend"}}"#).1["data"], "resend command sent");
    let again = phone.hear_start("NOTIFY");
    assert!(again.contains("CSeq: 2 NOTIFY") && again.contains("version=\"1\""), "{again}");
    phone.answer(&again, "200 OK");
    let (status, fault) = world.ask("POST", &path, r#"{"data":{"action":"reset"}}"#);
    assert_eq!((status, &fault["data"]["action"]["enum"]["target"]), (400, &json!(["resend", "trace"])));
    let (status, fault) = world.ask("POST", &path, "");
    assert_eq!((status, &fault["data"]["action"]["required"]["target"]), (400, &json!(["resend", "trace"])));
    assert_eq!(world.ask("PUT", &path, "").0, 405);
    world.until(&path, |story| (story["delivery_status"] == "current").then_some(()));
    assert_eq!(world.ask("DELETE", &path, "").1["data"], "subscription ended");
    let last = phone.hear_start("NOTIFY");
    assert!(last.contains("Subscription-State: terminated;reason=timeout"), "{last}");
    phone.answer(&last, "200 OK");
    for (method, body) in [("GET", ""), ("DELETE", ""), ("POST", r#"{"data":{"action":"resend"}}"#)] {
        assert_eq!(world.ask(method, &path, body).0, 404, "{method}");
    }
    for odd in ["x", "1.2", "0.0.0000000000000000", "%20"] {
        assert_eq!(world.ask("GET", &format!("subscriptions/{odd}"), "").0, 404, "{odd}");
    }
}

#[test]
fn tenants_are_walls() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "umbrella.test");
    let of_umbrella = |path: &str| format!("/v2/accounts/{UMBRELLA}/{path}");
    let (_, story) = world.ask_as("umbrella-token", "GET", &of_umbrella("lamps/1001"), "");
    let id = story["data"]["watching"][0]["id"].as_str().unwrap().to_owned();
    for path in
        ["lamps", "lamps/1001", "lamp_overview", "lamp_events", "subscriptions", &*format!("subscriptions/{id}")]
    {
        assert_eq!(world.ask_as("acme-token", "GET", &of_umbrella(path), "").0, 403, "{path}");
        assert_eq!(world.ask_as("", "GET", &of_umbrella(path), "").0, 401, "{path}");
    }
    // Another account cannot reach the subscription, although the client knows its id.
    for (method, body) in [("GET", ""), ("DELETE", ""), ("POST", r#"{"data":{"action":"resend"}}"#)] {
        assert_eq!(world.ask(method, &format!("subscriptions/{id}"), body).0, 404, "{method}");
    }
    assert_eq!(world.data("subscriptions"), json!([]));
    let mut events = world.listen("");
    assert_eq!(events.next().0, "hello");
    let set = r#"{"data":{"action":"set","state":"early"}}"#;
    assert_eq!(world.ask_as("umbrella-token", "POST", &of_umbrella("presence/1001"), set).0, 200);
    world.set("1002", "early");
    assert_eq!(events.next_named("lamp")["extension"], "1002", "nothing of the other account came before");
    assert_eq!(world.ask_as("acme-token", "GET", &format!("/v2/accounts/{ACME}x/lamps"), "").0, 404);
}

#[test]
fn the_live_stream_tells_of_lamps_and_subscriptions() {
    let world = World::new("");
    let mut events = world.listen("Accept: text/event-stream\r\n");
    assert_eq!(events.next().0, "hello");
    let (phone, pbx) = (Phone::new(&world), Phone::new(&world));
    phone.subscribe("1001", "acme.test");
    let began = events.next_named("subscription");
    assert_eq!(
        (&began["extension"], &began["gone"], &began["watcher"]),
        (&json!("1001"), &json!(false), &json!("1002@acme.test"))
    );
    pbx.publish(1, "1001", "early", "");
    let lamp = events.until_lamp("1001", "ringing");
    assert_eq!(
        (&lamp["with"]["name"], &lamp["name"], &lamp["gone"]),
        (&json!("Carol"), &json!("Alice"), &json!(false))
    );
    pbx.publish(2, "1001", "confirmed", "");
    events.until_lamp("1001", "talking");
    pbx.publish(3, "1001", "terminated", "");
    events.until_lamp("1001", "idle");
    let id = began["id"].as_str().unwrap();
    assert_eq!(world.ask("DELETE", &format!("subscriptions/{id}"), "").0, 200);
    loop {
        let ended = events.next_named("subscription");
        if ended["gone"] == true {
            assert_eq!((&ended["id"], &ended["extension"]), (&json!(id), &json!("1001")));
            break;
        }
    }
}

#[test]
fn a_stream_is_resumed_by_its_last_id_or_reset() {
    let world = World::new("");
    let mut events = world.listen("");
    assert_eq!(events.next().0, "hello");
    world.set("1001", "early");
    events.until_lamp("1001", "ringing");
    let id = events.last_id.clone();
    world.set("1001", "confirmed");
    world.set("1002", "early");
    events.until_lamp("1002", "ringing");
    drop(events);
    let mut resumed = world.listen(&format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(resumed.next().0, "resumed");
    resumed.until_lamp("1001", "talking");
    resumed.until_lamp("1002", "ringing");
    for stale in ["0-0", "x", "ffffffffffffffffffff-1"] {
        let mut events = world.listen(&format!("Last-Event-ID: {stale}\r\n"));
        assert_eq!(events.next().0, "reset", "{stale}");
        world.set("1003", "early");
        assert_eq!(events.next_named("lamp")["extension"], "1003", "and it goes on");
        world.set("1003", "terminated");
        events.until_lamp("1003", "unknown");
    }
}

#[test]
fn five_hundred_streams_hear_of_a_change() {
    let world = World::new("");
    let mut all: Vec<_> = (0..500).map(|_| world.listen("")).collect();
    for events in &mut all {
        assert_eq!(events.next().0, "hello");
    }
    world.set("1001", "early");
    for events in &mut all {
        events.until_lamp("1001", "ringing");
    }
}

#[test]
fn there_are_only_so_many_streams() {
    let world = World::new("limits = { event_streams = 1 }");
    let mut events = world.listen("");
    assert_eq!(events.next().0, "hello");
    let (status, fault) = world.ask("GET", "lamp_events", "");
    assert_eq!(status, 503);
    assert!(fault["data"]["cause"].as_str().unwrap().contains("limits.event_streams"), "{fault}");
    assert_eq!(world.ask("POST", "lamp_events", "").0, 405);
}

#[test]
fn metrics_are_for_who_may_see_everything() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    world.set("1001", "early");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    world.until("lamps/1001", |story| (story["watching"][0]["delivery_status"] == "current").then_some(()));
    world.set("1001", "confirmed");
    phone.answer(&phone.hear_start("NOTIFY"), "503 Not Now");
    world.until("lamps/1001", |story| (story["failing"] == 1).then_some(()));
    assert_eq!(world.ask_as("acme-token", "GET", "/metrics", "").0, 403);
    assert_eq!(world.ask_as("", "GET", "/metrics", "").0, 401);
    let (head, text) = world.text_as("root-token", "/metrics", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(text.contains("\n# TYPE lamplighter_notifies_total counter\n") && !text.contains("# UNIT"), "{text}");
    let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, text2) = world.text_as("root-token", "/metrics", open);
    assert_eq!(text.matches("_total{").count(), text2.matches("_total{").count());
    let text = text2;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    for line in [
        "lamplighter_subscriptions{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"} 1.0",
        "lamplighter_subscriptions_stale{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"} 1.0",
        "lamplighter_subscriptions_stale_over{seconds=\"300\"} 0.0",
        "lamplighter_subscriptions_failing{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"} 1.0",
        "# TYPE lamplighter_notifies counter",
        "lamplighter_notifies_total{transport=\"udp\",vendor=\"Yealink\",outcome=\"acknowledged\"} 2",
        "lamplighter_notifies_total{transport=\"udp\",vendor=\"Yealink\",outcome=\"refused\"} 1",
        "lamplighter_state_changes_total{cause=\"set\"} 2",
        "lamplighter_subscribes_total{effect=\"granted\"} 1",
        "# UNIT lamplighter_state_propagation_seconds seconds",
        "lamplighter_state_propagation_seconds_count 1",
        "lamplighter_notify_response_seconds_bucket{le=\"+Inf\",vendor=\"Yealink\"} 2",
        "lamplighter_panics_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
}
