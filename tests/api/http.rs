//! Bodies, request ids, CORS and the general rules of HTTP, with correct and incorrect clients.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{A, T, World};

#[test]
fn check_37_bodies_that_cannot_be_read() {
    let world = World::new();
    let strict = World::with_strict_compat(true);
    for body in ["{", "x=1", "[1]", r#"{"data":{"reset":true}"#] {
        let data = world.post("presence/1001", body).fault(400, "parse_error");
        assert_eq!(data["json"]["invalid"]["target"], "body", "{body}");
        let upstream = strict.post("presence/1001", body);
        assert_eq!((upstream.status, upstream.body.as_str()), (400, ""));
    }
    let data = world.post("presence/1001", r#"{"reset":true}"#).fault(400, "invalid request");
    assert_eq!(data["data"]["required"]["target"], "required");
    let data = world.post("presence/1001", r#"{"data":"reset"}"#).fault(400, "invalid request");
    assert_eq!(data["data"]["type"]["target"], "object");
    for content_type in ["text/plain", "text/xml", "multipart/form-data; boundary=x", "application/jsonp"] {
        let headers = ["X-Auth-Token: acme-token", &format!("Content-Type: {content_type}")];
        let path = format!("/v2/accounts/{A}/presence/1001");
        world.send("POST", &path, &headers, r#"{"data":{}}"#).fault(415, "unsupported_media_type");
        let upstream = strict.send("POST", &path, &headers, r#"{"data":{}}"#);
        assert_eq!((upstream.status, upstream.body.as_str()), (415, ""));
    }
    assert_eq!((world.changes(), strict.changes()), (vec![], vec![]));
}

#[test]
fn check_37_bodies_that_are_too_large() {
    let world = World::new();
    let large = format!(r#"{{"data":{{"x":"{}"}}}}"#, "a".repeat(9_000_000));
    let data = world.post("presence/1001", &large).fault(413, "request_entity_too_large");
    assert_eq!(data["file"]["maxSize"]["target"], 8_000_000);
    let chunked = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let head = format!("POST /v2/accounts/{A}/presence/1001 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    world.raw((head + &chunked).as_bytes()).fault(413, "request_entity_too_large");
    assert_eq!(world.changes(), []);
    let fits = format!(r#"{{"data":{{"x":"{}"}}}}"#, "a".repeat(7_999_900));
    assert_eq!(world.post("presence/1001", &fits).data(), "reset command sent for extension 1001");
}

#[test]
fn check_38_request_ids() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence");
    let id = |header: &str| {
        let answer = world.send("GET", &path, &["X-Auth-Token: acme-token", header], "");
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id("X-Request-ID: abc"), "abc");
    assert_eq!(id("x-y: z").len(), 32);
    assert_ne!(id("x-y: z"), id("x-y: z"));
    assert_eq!(id("X-Request-ID: <script>").len(), 32, "odd ids are not repeated");
}

#[test]
fn check_39_cross_origin_requests() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence/1001");
    let asking = ["Origin: https://ui.test", "Access-Control-Request-Method: POST"];
    let answer = world.send("OPTIONS", &path, &asking, "");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("OPTIONS, POST"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("X-Auth-Token"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("X-Request-ID"));
    assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    let plain = world.send("OPTIONS", &path, &[], "");
    plain.fault(405, "invalid_method");
    assert_eq!(plain.header("allow"), Some("POST"));
    let listing = format!("/v2/accounts/{A}/presence");
    let from_browser = world.send("GET", &listing, &["X-Auth-Token: acme-token", "Origin: https://ui.test"], "");
    assert_eq!(from_browser.header("access-control-allow-origin"), Some("*"));
    assert_eq!(world.get("presence").header("access-control-allow-origin"), None);
}

#[test]
fn check_41_trailing_slash_and_jsonp() {
    let world = World::new();
    assert_eq!(world.get("presence/").data(), json!({"subscriptions": {}}));
    let wrapped = world.get("presence?jsonp=my.fn_$1");
    let inner = wrapped.body.strip_prefix("my.fn_$1(").and_then(|rest| rest.strip_suffix(");")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(inner).unwrap()["status"], "success");
    assert_eq!(wrapped.header("content-type"), Some("application/javascript"));
    let fault = world.send("GET", &format!("/v2/accounts/{A}/presence?jsonp=f"), &[], "");
    assert!(fault.status == 401 && fault.body.starts_with("f({"), "{fault:?}");
    for name in ["", "alert(1)", "a%3Cb", "a%20b"] {
        let data = world.get(&format!("presence?jsonp={name}")).fault(400, "malformed_request");
        assert!(data["jsonp"].is_object(), "{data}");
    }
}

#[test]
fn probes_need_no_token() {
    let world = World::new();
    let probe = |path: &str| world.send("GET", path, &[], "");
    assert_eq!((probe("/healthz").status, probe("/healthz").json()), (200, json!({"status": "ok"})));
    assert_eq!(probe("/readyz").status, 200);
    world.ready.store(false, Ordering::Release);
    assert_eq!(probe("/healthz").status, 200);
    assert_eq!(probe("/readyz").fault(503, "service_unavailable"), json!({"message": "not ready"}));
    let post = world.send("POST", "/healthz", &[], "");
    post.fault(405, "invalid_method");
    assert_eq!(post.header("allow"), Some("GET, HEAD"));
}

#[test]
fn unknown_methods_and_paths_have_the_envelope() {
    let world = World::new();
    world
        .send("BREW", &format!("/v2/accounts/{A}/presence"), &["X-Auth-Token: acme-token"], "")
        .fault(501, "not_implemented");
    world.send("BREW", "/", &[], "").fault(501, "not_implemented");
    world.send("POST", "/", &[], "").fault(404, "not_found");
    assert!(world.send("GET", "/", &[], "").body.contains("Lamplighter"), "the dashboard");
    for path in ["/x", "/assets/x", "/v3/accounts", "/favicon.ico", "//", "/healthz/x"] {
        assert_eq!(world.send("GET", path, &[], "").fault(404, "not_found"), json!({"message": "not found"}), "{path}");
    }
}

#[test]
fn logins_say_where_tokens_come_from() {
    let world = World::new();
    for (method, path) in
        [("PUT", "/v2/user_auth"), ("PUT", "/v2/api_auth"), ("GET", "/v2/user_auth/abc"), ("PUT", "/v1/user_auth")]
    {
        let data = world
            .send(method, path, &["Content-Type: application/json"], r#"{"data":{}}"#)
            .fault(501, "not_implemented");
        assert!(data["cause"].as_str().unwrap().contains("configuration"), "{data}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence");
    let headers = ["X-Auth-Token: acme-token", "X-Request-ID: same"];
    let (get, head) = (world.send("GET", &path, &headers, ""), world.send("HEAD", &path, &headers, ""));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for name in ["content-length", "content-type", "expires", "x-request-id", "cache-control"] {
        assert!(get.header(name).is_some(), "{name}");
        assert_eq!(get.header(name), head.header(name), "{name}");
    }
    assert!(get.header("expires").unwrap().contains("1999"));
    assert_eq!(world.post("presence/1", "").header("expires"), None);
}

#[test]
fn methods_may_be_tunnelled_through_post() {
    let world = World::new();
    world.subscribe("1001", "dialog", "c1", 60);
    assert!(world.post("presence?verb=get", "").data()["subscriptions"]["1001"].is_object());
    world.post("presence", r#"{"data":{},"verb":"DELETE"}"#).fault(405, "invalid_method");
    world.post("presence?verb=brew", "").fault(501, "not_implemented");
    let get =
        world.send("GET", &format!("/v2/accounts/{A}/presence/1001?verb=POST"), &["X-Auth-Token: acme-token"], "");
    get.fault(405, "invalid_method");
    assert_eq!(world.changes(), []);
}

#[test]
fn accept_is_honoured_and_can_be_overridden() {
    let world = World::new();
    let path = format!("/v2/accounts/{A}/presence");
    let get = |path: &str, accept: &str| {
        world.send("GET", path, &["X-Auth-Token: acme-token", &format!("Accept: {accept}")], "")
    };
    get(&path, "text/xml").fault(406, "not_acceptable");
    assert_eq!(get(&path, "text/html, */*;q=0.1").status, 200);
    assert_eq!(get(&format!("{path}?accept=application/json"), "text/xml").status, 200);
    get(&format!("{path}?accept=text/xml"), "*/*").fault(406, "not_acceptable");
}

#[test]
fn checks_come_in_the_order_of_upstream() {
    let world = World::new();
    let send = |method: &str, account: &str, token: &str, rest: &str, body: &str| {
        let headers = [&format!("X-Auth-Token: {token}"), "Content-Type: text/plain", "Accept: text/xml"];
        world.send(method, &format!("/v2/accounts/{account}/{rest}"), &headers, body)
    };
    // Each request also has every fault of the requests below it.
    send("BREW", "nobody", "wrong", "devices/d9/presence", "{").fault(501, "not_implemented");
    send("PUT", "nobody", "wrong", "devices/d9/presence", "{").fault(405, "invalid_method");
    send("POST", "nobody", "wrong", "devices/d9/presence", "{").fault(404, "bad_identifier");
    send("POST", A, "wrong", "devices/d9/presence", "{").fault(401, "invalid_credentials");
    send("POST", A, "child-token", "devices/d9/presence", "{").fault(403, "forbidden");
    send("POST", A, T, "devices/d9/presence", "{").fault(415, "unsupported_media_type");
    let json = |accept: &str, path: &str, body: &str| {
        let headers = ["X-Auth-Token: acme-token", "Content-Type: application/json", accept];
        world.send("POST", &format!("/v2/accounts/{A}/{path}"), &headers, body)
    };
    json("Accept: text/xml", "devices/d9/presence", "{").fault(406, "not_acceptable");
    json("Accept: */*", "devices/d9/presence", "{").fault(400, "parse_error");
    json("Accept: */*", "devices/d9/presence", r#"{"data":{}}"#).fault(404, "bad_identifier");
    json("Accept: */*", "devices/d1/presence", r#"{"data":{}}"#).fault(400, "invalid request");
    assert_eq!(world.changes(), []);
}

#[test]
fn pretty_answers_where_wished_for() {
    let world = World::new();
    assert!(world.get("presence?pretty_print=true").body.contains("\n  \"data\""));
    let path = format!("/v2/accounts/{A}/presence");
    assert!(world.send("GET", &path, &["X-Auth-Token: acme-token", "X-Pretty-Print: true"], "").body.contains("\n  "));
    assert!(!world.get("presence").body.contains('\n'));
}

#[test]
fn version_1_is_served_alike() {
    let world = World::new();
    let answer = world.send("GET", &format!("/v1/accounts/{A}/presence"), &["X-Auth-Token: acme-token"], "");
    assert_eq!(answer.data(), json!({"subscriptions": {}}));
}

#[test]
fn a_request_has_one_host() {
    let world = World::new();
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let text = format!("GET /healthz HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert!(world.raw(text.as_bytes()).fault(400, "malformed_request")["host"].is_object());
    }
    assert_eq!(world.raw(b"GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(world.raw(b"what is this\r\n\r\n").status, 400);
}

#[test]
fn lengths_that_contradict_each_other_let_nothing_be_smuggled() {
    let world = World::new();
    let head = format!("POST /v2/accounts/{A}/presence/1001 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {T}\r\n");
    let smuggled = format!("0\r\n\r\n{}\r\n", head.replace("1001", "6666"));
    let framings =
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"];
    for framing in framings {
        // RFC 9112 section 6.1: Transfer-Encoding overrides Content-Length, and the connection is closed after the
        // response.
        let answer = world.raw(format!("{head}{framing}\r\n\r\n{smuggled}").as_bytes());
        assert_eq!(answer.body.matches("HTTP/1.1").count(), 0, "{answer:?}");
        assert_eq!(world.changes().len(), 1, "{framing}");
    }
    for refused in ["Content-Length: 1\r\nContent-Length: 2", "Content-Length: +1", "Transfer-Encoding: gzip"] {
        assert_eq!(world.raw(format!("{head}{refused}\r\n\r\nxx").as_bytes()).status, 400, "{refused}");
    }
    assert_eq!(world.changes(), []);
}

#[test]
fn chunked_bodies_are_understood() {
    let world = World::new();
    let head = format!(
        "POST /v2/accounts/{A}/devices/d2/presence HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Auth-Token: {T}\r\n"
    );
    let body = "Transfer-Encoding: chunked\r\n\r\n9\r\n{\"data\":{\r\ne\r\n\"reset\":true}}\r\n0\r\n\r\n";
    assert_eq!(world.raw(format!("{head}{body}").as_bytes()).data(), "reset commands sent");
    let broken = "Transfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(world.raw(format!("{head}{broken}").as_bytes()).status, 400);
}

#[test]
fn connections_are_kept_for_the_next_request() {
    let world = World::new();
    let mut stream = world.connect();
    let mut read = Vec::new();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let before = read.len();
        while !read[before..].ends_with(b"{\"status\":\"ok\"}") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).unwrap();
            assert_ne!(length, 0, "closed");
            read.extend_from_slice(&piece[..length]);
        }
    }
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert!(stream.read_to_end(&mut Vec::new()).is_ok());
}

#[test]
fn targets_and_headers_have_bounds() {
    let world = World::new();
    let long = world.send("GET", &format!("/v2/accounts/{A}/presence?x={}", "y".repeat(9_000)), &[], "");
    assert_eq!(long.fault(414, "uri_too_long")["limit"], 8192);
    assert_eq!(world.send("GET", &format!("/{}", "y".repeat(100_000)), &[], "").status, 414);
    let large = world.send("GET", "/healthz", &[&format!("X-Large: {}", "y".repeat(40_000))], "");
    assert_eq!(large.fault(431, "header_fields_too_large")["limit"], 32_768);
    let many = "X-Many: 1\r\n".repeat(200);
    assert_eq!(world.send("GET", "/healthz", &[many.trim_end()], "").status, 431);
}

#[test]
fn a_client_that_asks_first_is_refused_before_it_sends() {
    let world = World::new();
    let head = format!("POST /v2/accounts/{A}/presence/1001 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {T}\r\n");
    let answer = world.raw(format!("{head}Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n").as_bytes());
    answer.fault(413, "request_entity_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn queries_that_cannot_be_read_are_named() {
    let world = World::new();
    for query in ["event=%ff", "event=%", "%zz=1"] {
        assert!(world.get(&format!("presence?{query}")).fault(400, "malformed_request")["query"].is_object());
    }
}
