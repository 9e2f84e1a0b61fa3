//! HTTP API over a real port. First the required checks of Kazoo's presence API (profile 3.22), each test named after
//! its check; then the general rules of HTTP (conformance group M) and of invalid input.

#![allow(clippy::unwrap_used)] // a test that panics has failed, as it should

#[path = "api/world.rs"]
mod world;

#[path = "api/http.rs"]
mod http;

#[path = "api/set.rs"]
mod set;

use lamplighter::notifier::control::PublicationRecord;
use lamplighter::package;
use serde_json::json;
use world::{A, CHILD, Change, SIBLING, T, World};

fn reset_in_acme(users: &[&str]) -> Change {
    Change::Reset("acme.test".into(), users.iter().map(|user| (*user).to_owned()).collect())
}

#[test]
fn check_01_listing_of_an_account_without_subscriptions() {
    let answer = World::new().get("presence");
    let json = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(json["data"], json!({"subscriptions": {}}));
    assert_eq!(
        (&json["status"], &json["auth_token"], &json["revision"]),
        (&json!("success"), &json!(T), &json!("undefined"))
    );
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["auth_token", "data", "request_id", "revision", "status"]);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn check_03_a_record_has_what_upstream_shows_and_no_more() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1@10.0.0.5", 1800);
    let data = world.get("presence").data();
    let record = &data["subscriptions"]["1001"]["dialog"]["c1@10.0.0.5"];
    assert_eq!(record["expires"], 1820);
    assert_eq!(record["from"], "Carol@acme.test");
    assert_eq!(record["version"], 1);
    assert_eq!(record["timestamp"], 63_606_201_099_u64, "the sample of the owner's document");
    assert_eq!(record["stalker"], "BLF-pres1");
    let keys: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["expires", "from", "notify", "stalker", "timestamp", "version"]);
}

#[test]
fn check_03_user_agent_and_route_are_shown_where_known() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    {
        let mut all = world.notes.subscriptions.lock().unwrap();
        all[0].1.user_agent = Some("Yealink \"T46\"".into());
        all[0].1.proxy_route = Some("<sip:edge.test;lr>".into());
    }
    let record = world.get("presence").data()["subscriptions"]["1001"]["dialog"]["c1"].clone();
    assert_eq!(
        (&record["user_agent"], &record["proxy_route"]),
        (&json!("Yealink \"T46\""), &json!("<sip:edge.test;lr>"))
    );
}

#[test]
fn check_05_notify_before_and_after_the_first_answer() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    let notify = || world.get("presence").data()["subscriptions"]["1001"]["dialog"]["c1"]["notify"].clone();
    assert_eq!(notify(), json!({"sequence": 0, "reply": 0, "body": "undefined"}));
    world.answered(3, 200, "<?xml version=\"1.0\"?>\n<dialog-info/>");
    assert_eq!(notify(), json!({"sequence": 3, "reply": 200, "body": "<?xml version=\"1.0\"?>\n<dialog-info/>"}));
}

#[test]
fn check_06_one_record_per_call_id_the_youngest() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    world.subscribe("1001", "dialog", "c1", 600);
    world.notes.subscriptions.lock().unwrap()[1].1.subscribed_at += 5;
    world.subscribe("1001", "dialog", "c0", 0);
    let answer = world.get("presence");
    assert_eq!(answer.body.matches("\"c1\"").count(), 1);
    let dialogs = answer.data()["subscriptions"]["1001"]["dialog"].clone();
    assert_eq!((&dialogs["c1"]["expires"], &dialogs["c1"]["timestamp"]), (&json!(620), &json!(63_606_201_104_u64)));
    assert_eq!(dialogs["c0"]["expires"], 0, "0 stays 0");
}

#[test]
fn check_10_the_listing_of_one_event() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    world.subscribe("1001", "message-summary", "c2", 1800);
    let listed = |query: &str| world.get(&format!("presence{query}")).data()["subscriptions"].clone();
    let events = |query: &str| -> Vec<String> {
        listed(query)["1001"].as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default()
    };
    assert_eq!(events("?event=dialog"), ["dialog"]);
    assert_eq!(events(""), ["dialog", "message-summary"]);
    for empty in ["?event=presence", "?event=x", "?event=", "?event=Dialog", "?event=%27%22%20OR%201=1;--"] {
        assert_eq!(listed(empty), json!({}), "{empty}");
    }
    assert_eq!(
        world.get("presence?event=x&include_presentity=true").data(),
        json!({"presentities": {}, "subscriptions": {}})
    );
}

#[test]
fn check_11_publications_where_asked_for() {
    let world = World::new();
    let account = world.directory.account_by_id(A).unwrap();
    let record = PublicationRecord {
        user: "1001".into(),
        package: package::by_name("presence").unwrap(),
        etag: "e1".into(),
        body: "<presence/>".into(),
    };
    world.notes.publications.lock().unwrap().push((account, record));
    let data = world.get("presence?include_presentity=true").data();
    let expected = json!({"1001": {"lamplighter@pres1": {"presence": {"e1": {"body": "<presence/>", "etag": "e1"}}}}});
    assert_eq!(data, json!({"presentities": expected, "subscriptions": {}}));
    assert!(world.get("presence").data().get("presentities").is_none());
    assert!(world.get("presence?include_presentity=1").data().get("presentities").is_none());
}

#[test]
fn check_12_reset_of_a_percent_encoded_extension() {
    let world = World::new();
    let answer = world.post("presence/%2A3101", r#"{"data":{"reset":true}}"#);
    assert_eq!(answer.data(), "reset command sent for extension *3101");
    assert_eq!(answer.json()["revision"], "undefined");
    assert_eq!(world.changes(), [reset_in_acme(&["*3101"])]);
}

#[test]
fn check_13_reset_in_every_way_to_send_it() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence/*3101");
    let token = "X-Auth-Token: acme-token";
    let body = r#"{"data":{"reset":true}}"#;
    for (headers, body) in [
        (vec![token], ""),
        (vec![token, "Content-Length: 0"], ""),
        (vec![token], body),
        (vec![token, "Content-Type: application/x-www-form-urlencoded"], body),
        (vec![token, "Content-Type: application/x-json"], body),
        (vec![token, "Content-Type: Application/JSON; charset=utf-8"], body),
        (vec![token, "Content-Type: application/json"], r#"{"data":{}}"#),
        (vec![token], r#"{"data":{"reset":false}}"#),
    ] {
        let answer = world.send("POST", &path, &headers, body);
        assert_eq!(answer.data(), "reset command sent for extension *3101", "{headers:?} {body}");
        assert_eq!(world.changes(), [reset_in_acme(&["*3101"])], "{headers:?} {body}");
    }
}

#[test]
fn check_14_reset_of_an_extension_that_nobody_watches() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    assert_eq!(world.post("presence/9999", "").data(), "reset command sent for extension 9999");
    assert_eq!(world.post("devices/no-such/presence/9999", "").data(), "reset command sent for extension 9999");
    assert_eq!(world.changes(), [reset_in_acme(&["9999"]), reset_in_acme(&["9999"])]);
}

#[test]
fn check_16_reset_is_the_only_thing_asked_for() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 1800);
    let before = world.get("presence").data();
    world.post("presence/1001", "").data();
    assert_eq!(world.changes(), [reset_in_acme(&["1001"])]);
    assert_eq!(world.get("presence").data(), before);
}

#[test]
fn check_22_reset_of_a_device() {
    let world = World::new();
    let body = r#"{"data":{"reset":true}}"#;
    let answer = world.post("devices/d1/presence", body);
    assert_eq!((answer.data(), answer.json()["revision"].clone()), (json!("reset commands sent"), json!("undefined")));
    assert_eq!(world.post("devices/d2/presence", body).data(), "reset commands sent");
    assert_eq!(world.changes(), [reset_in_acme(&["desk1"]), reset_in_acme(&["1002"])]);
}

#[test]
fn check_23_a_device_is_not_reset_without_saying_so() {
    let required = json!({"reset": {"required": {"message": "Field must be set to true", "target": "required"}}});
    let world = World::new();
    for body in
        ["", r#"{"data":{}}"#, r#"{"data":{"reset":false}}"#, r#"{"data":{"reset":1}}"#, r#"{"data":{"reset":"yes"}}"#]
    {
        for path in ["devices/d1/presence", "users/bob/presence"] {
            assert_eq!(world.post(path, body).fault(400, "invalid request"), required, "{body}");
        }
    }
    assert_eq!(world.changes(), []);
    let strict = World::with_strict_compat(true);
    assert_eq!(strict.post("devices/d1/presence", r#"{"data":{}}"#).fault(500, "invalid request"), required);
    let v1 = world.send("POST", &format!("/v1/accounts/{A}/devices/d1/presence"), &["X-Auth-Token: acme-token"], "");
    assert_eq!(v1.fault(400, "invalid request"), json!({"reset": {"required": "Field must be set to true"}}));
}

#[test]
fn check_24_reset_may_stand_in_the_query_or_be_a_string() {
    let world = World::new();
    assert_eq!(world.post("devices/d2/presence?reset=true", "").data(), "reset commands sent");
    assert_eq!(world.post("devices/d2/presence", r#"{"data":{"reset":"true"}}"#).data(), "reset commands sent");
    assert_eq!(world.post("devices/d2/presence", r#"{"data":{},"reset":true}"#).data(), "reset commands sent");
    assert_eq!(world.changes().len(), 3);
    world.post("devices/d2/presence?reset=true", r#"{"data":{"reset":false}}"#).fault(400, "invalid request");
}

#[test]
fn check_26_reset_of_a_user() {
    let world = World::new();
    let body = r#"{"data":{"reset":true}}"#;
    assert_eq!(world.post("users/alice/presence", body).data(), "reset commands sent");
    assert_eq!(world.changes(), [reset_in_acme(&["2000"])], "the presence id, and not her device");
    assert_eq!(world.post("users/bob/presence", body).data(), "reset commands sent");
    assert_eq!(world.changes(), [reset_in_acme(&["1002", "1003"])]);
}

#[test]
fn check_27_a_user_without_anything_to_reset() {
    let world = World::new();
    assert_eq!(world.post("users/nobody/presence", r#"{"data":{"reset":true}}"#).data(), "nothing to reset");
    assert_eq!(
        world.post("users/nobody/presence", r#"{"data":{"action":"set","state":"early"}}"#).data(),
        "nothing to set"
    );
    assert_eq!(world.changes(), []);
}

#[test]
fn check_28_unknown_devices_and_users() {
    let world = World::new();
    for (path, id) in [("devices/d9/presence", "d9"), ("users/d1/presence", "d1"), ("devices/alice/presence", "alice")]
    {
        let data = world.post(path, r#"{"data":{"reset":true}}"#).fault(404, "bad_identifier");
        assert_eq!(data, json!({"message": "bad identifier", "cause": id}));
    }
}

#[test]
fn check_29_post_to_the_whole_account() {
    assert_eq!(World::new().post("presence", r#"{"data":{"reset":true}}"#).fault(404, "faulty request"), json!({}));
}

#[test]
fn check_30_an_extension_cannot_be_read() {
    let world = World::new();
    for path in ["presence/1001", "devices/d1/presence/1001"] {
        let answer = world.get(path);
        assert_eq!(answer.fault(405, "invalid_method"), json!({"message": "method not allowed"}));
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    }
    let report = world.get("presence/report-abc").fault(405, "invalid_method");
    assert_eq!(report["cause"], "reports are not available");
    for path in ["devices/d1/presence", "users/whoever/presence"] {
        assert_eq!(world.get(path).data(), json!({"subscriptions": {}}), "the whole account");
    }
}

#[test]
fn check_31_other_methods_and_deeper_paths() {
    let world = World::new();
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = world.send(method, &format!("/v2/accounts/{A}/presence"), &["X-Auth-Token: acme-token"], "");
        answer.fault(405, "invalid_method");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    }
    for path in ["presence/a/b", "devices/d1/presence/1001/x", "", "devices", "devices/d1", "channels", "presences"] {
        assert_eq!(world.get(path).fault(404, "not_found"), json!({"message": "not found"}), "{path}");
    }
}

#[test]
fn check_32_without_a_token_and_without_an_account() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence");
    for headers in [&[][..], &["X-Auth-Token: wrong"], &["X-Auth-Token:"], &["Authorization: Bearer acme"]] {
        let answer = world.send("GET", &path, headers, "");
        assert_eq!(answer.fault(401, "invalid_credentials"), json!({"message": "invalid credentials"}));
        assert_eq!(answer.json()["auth_token"], "");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"lamplighter\""));
    }
    for headers in [&["X-Auth-Token: acme-token"][..], &[]] {
        let data = world.send("GET", "/v2/accounts/nobody/presence", headers, "").fault(404, "bad_identifier");
        assert_eq!(data, json!({"message": "bad identifier", "cause": "nobody"}));
    }
    for path in ["/v2/channels", "/v2", &format!("/v2/accounts/{A}/channels")] {
        world.send("GET", path, &[], "").fault(401, "invalid_credentials");
    }
}

#[test]
fn check_33_accounts_are_walls() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c-acme", 1800);
    world.subscribe_in(CHILD, "1001", "dialog", "c-child", 1800);
    let get = |account: &str, token: &str| {
        world.send("GET", &format!("/v2/accounts/{account}/presence"), &[&format!("X-Auth-Token: {token}")], "")
    };
    for (account, token, seen) in [
        (A, "acme-token", "c-acme"),
        (A, "root-token", "c-acme"),
        (CHILD, "acme-token", "c-child"),
        (CHILD, "child-token", "c-child"),
    ] {
        let data = get(account, token).data();
        let calls: Vec<&String> = data["subscriptions"]["1001"]["dialog"].as_object().unwrap().keys().collect();
        assert_eq!(calls, [seen], "{token}");
    }
    for (account, token) in [(A, "child-token"), (SIBLING, "child-token"), (SIBLING, "acme-token")] {
        assert_eq!(get(account, token).fault(403, "forbidden"), json!({"message": "forbidden"}));
    }
    let path = format!("/v2/accounts/{SIBLING}/presence/1001");
    world.send("POST", &path, &["X-Auth-Token: acme-token"], "").fault(403, "forbidden");
    assert_eq!(world.changes(), []);
    world.send("POST", &path, &["X-Auth-Token: root-token"], "").data();
    assert_eq!(world.changes(), [Change::Reset("umbrella.test".into(), vec!["1001".into()])]);
}

#[test]
fn check_34_the_places_of_a_token() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence/1001");
    for (path, headers, body) in [
        (path.clone(), &["X-Auth-Token: acme-token"][..], ""),
        (format!("{path}?auth_token=acme-token"), &[], ""),
        (path.clone(), &[], r#"{"data":{},"auth_token":"acme-token"}"#),
        (path.clone(), &[], r#"{"data":{"Auth-Token":"acme-token"}}"#),
        (path.clone(), &["Authorization: Bearer acme-token"], ""),
        (path.clone(), &["X-Auth-Token: acme-token", "Authorization: Bearer wrong"], ""),
    ] {
        let answer = world.send("POST", &path, headers, body);
        assert_eq!(answer.data(), "reset command sent for extension 1001", "{path} {headers:?} {body}");
        assert_eq!(answer.json()["auth_token"], T);
    }
    let first = world.send("POST", &format!("{path}?auth_token=acme-token"), &["X-Auth-Token: wrong"], "");
    first.fault(401, "invalid_credentials");
    let basic = world.send("GET", &path.replace("/1001", ""), &["Authorization: Basic YTpi"], "");
    let data = basic.fault(401, "invalid_credentials");
    assert!(data["cause"].as_str().unwrap().contains("Basic authentication is not supported"), "{data}");
}

#[test]
fn check_55_a_large_listing_is_whole_and_never_a_timeout() {
    let world = World::new();
    for i in 0..2_000 {
        world.subscribe(&format!("{}", 1000 + i % 100), "dialog", &format!("c{i}"), 1800);
    }
    let answer = world.get("presence");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "it leaves before its end is known");
    let data = answer.data();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["subscriptions"]);
    let by_user = data["subscriptions"].as_object().unwrap();
    assert_eq!(by_user.len(), 100);
    assert!(by_user.values().all(|events| events["dialog"].as_object().unwrap().len() == 20));
}

#[test]
fn check_57_plus_signs() {
    let world = World::new();
    assert_eq!(world.post("presence/%2B15551234", "").data(), "reset command sent for extension +15551234");
    assert_eq!(world.post("presence/+15551234", "").data(), "reset command sent for extension  15551234");
    assert_eq!(world.changes(), [reset_in_acme(&["+15551234"]), reset_in_acme(&[" 15551234"])]);
}

#[test]
fn check_58_extensions_are_matched_in_any_case_and_echoed_as_typed() {
    let world = World::new();
    assert_eq!(world.post("presence/ABC", "").data(), "reset command sent for extension ABC");
    assert_eq!(world.changes(), [reset_in_acme(&["abc"])]);
}
