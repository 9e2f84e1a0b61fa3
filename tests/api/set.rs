//! Setting the state of a lamp in every profile, and the limits of extension names.

use lamplighter::presence::state::CallState;
use serde_json::json;

use crate::world::{Change, World};

fn set_in_acme(users: &[&str], state: CallState) -> Change {
    Change::Set("acme.test".into(), users.iter().map(|user| (*user).to_owned()).collect(), state)
}

#[test]
fn set_on_every_path() {
    let world = World::new();
    for (word, state) in
        [("early", CallState::Early), ("confirmed", CallState::Confirmed), ("terminated", CallState::Terminated)]
    {
        let body = format!(r#"{{"data":{{"action":"set","state":"{word}"}}}}"#);
        assert_eq!(world.post("presence/%2AAbc", &body).data(), "set command sent for extension *Abc");
        assert_eq!(world.post("devices/d1/presence", &body).data(), "set commands sent");
        assert_eq!(world.post("users/bob/presence", &body).data(), "set commands sent");
        let expected = [&["*abc"][..], &["desk1"], &["1002", "1003"]].map(|users| set_in_acme(users, state));
        assert_eq!(world.changes(), expected);
    }
    assert_eq!(world.post("presence/7?action=set&state=early", "").data(), "set command sent for extension 7");
    assert_eq!(world.changes(), [set_in_acme(&["7"], CallState::Early)]);
    for path in ["presence/1001", "devices/d2/presence", "users/bob/presence"] {
        let text = world.post(path, r#"{"data":{"action":"reset"}}"#).data();
        assert!(text.as_str().unwrap().starts_with("reset command"), "{text}");
    }
    assert_eq!(world.changes().len(), 3);
}

#[test]
fn set_and_actions_are_validated() {
    let world = World::new();
    let states = json!(["early", "confirmed", "terminated"]);
    for path in ["presence/1001", "devices/d1/presence", "users/bob/presence"] {
        let fault = |body: &str| world.post(path, body).fault(400, "invalid request");
        let missing = fault(r#"{"data":{"action":"set","state":null}}"#);
        assert_eq!(missing["state"]["required"]["target"], states);
        for (wrong, echoed) in [("\"ringing\"", json!("ringing")), ("true", json!(true)), ("[1]", json!("(array)"))] {
            let data = fault(&format!(r#"{{"data":{{"action":"set","state":{wrong}}}}}"#));
            assert_eq!(data["state"]["enum"]["message"], "Value not found in enumerated list of values");
            assert_eq!((&data["state"]["enum"]["target"], &data["state"]["enum"]["value"]), (&states, &echoed));
        }
        for wrong in ["\"x\"", "\"Set\"", "1", "{}"] {
            let data = fault(&format!(r#"{{"data":{{"action":{wrong},"reset":true}}}}"#));
            assert_eq!(data["action"]["enum"]["target"], json!(["set", "reset"]));
        }
    }
    assert_eq!(world.changes(), []);
}

#[test]
fn set_where_there_is_no_room() {
    let world = World::new();
    world.notes.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = world.post("presence/1001", r#"{"data":{"action":"set","state":"early"}}"#);
    let data = answer.fault(503, "service_unavailable");
    assert!(data["cause"].as_str().unwrap().contains("limits.presentities_per_account"), "{data}");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((30..60).contains(&seconds), "{seconds}");
}

#[test]
fn extensions_have_bounds() {
    let world = World::new();
    let longest = "x".repeat(128);
    assert_eq!(world.post(&format!("presence/{longest}"), "").status, 200);
    assert_eq!(world.changes().len(), 1);
    for wrong in [
        format!("{longest}x"),
        "a%00b".into(),
        "%0d%0a".into(),
        "%7f".into(),
        "/".into(),
        "%C3%BC".repeat(65),
        "%C4%B0".repeat(43),
    ] {
        let data = world.post(&format!("presence/{wrong}"), "").fault(400, "invalid request");
        assert_eq!(data["extension"]["invalid"]["target"], "extension", "{wrong}");
    }
    for broken in ["%", "%zz", "%ff"] {
        world.post(&format!("presence/{broken}"), "").fault(400, "malformed_request");
    }
    assert_eq!(world.changes(), []);
}
