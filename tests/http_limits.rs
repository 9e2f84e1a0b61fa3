//! Resource limits of the HTTP API (F12): no unverified client and no account can block the API for others. One client
//! holds as many bodies, listings, streams, traces or connections as it can get, and meanwhile another account and the
//! health probes are served. Over IPv4 and IPv6. All clients have the same address, which is the hardest case: limits
//! per address alone would affect all of them.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

#[path = "http_limits/phones.rs"]
mod phones;
#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "http_limits/world.rs"]
mod world;

use phones::Phones;
use world::{ACME, UMBRELLA, World, resident, until};

const BOTH: [&str; 2] = ["127.0.0.1", "::1"];
/// Largest allowed growth of memory under attack (octets).
const MEMORY: usize = 512 * 1024 * 1024;

/// Sends a body of eight million octets without its last octet.
fn send_half_a_body(world: &World, headers: &str) -> TcpStream {
    let path = format!("/v2/accounts/{ACME}/presence/1001");
    let mut stream = world.begin("POST", &path, &format!("{headers}Content-Length: 8000000\r\n"), "");
    // A refusal may close the connection before all is sent, which is acceptable.
    let _ = stream.write_all(&vec![b' '; 7_999_999]);
    stream
}

#[test]
fn half_a_body_without_a_token_takes_no_room() {
    for ip in BOTH {
        let world = World::new(ip, "");
        let before = resident();
        for headers in ["", "X-Auth-Token: wrong\r\n"] {
            let held: Vec<_> = (0..8).map(|_| send_half_a_body(&world, headers)).collect();
            world.serves_others("while strangers hold bodies");
            let body = r#"{"data":{},"auth_token":"umbrella-token"}"#;
            let path = format!("/v2/accounts/{UMBRELLA}/presence/2001");
            world.ask("", "POST", &path, body).is_served("a token in the body");
            assert_eq!(world.ask("acme-token", "POST", &format!("/v2/accounts/{ACME}/presence/1001"), "").status, 200);
            drop(held);
        }
        assert!(resident().saturating_sub(before) < MEMORY / 8, "{} -> {}", before, resident());
    }
}

#[test]
fn a_token_in_a_large_body_is_not_looked_for_and_that_is_said() {
    let world = World::new("127.0.0.1", "");
    let path = format!("/v2/accounts/{ACME}/presence/1001");
    let body = |length: usize| format!(r#"{{"data":{{}},"auth_token":"acme-token","x":"{}"}}"#, "x".repeat(length));
    world.ask("", "POST", &path, &body(16_000)).is_served("a small body");
    let refused = world.ask("", "POST", &path, &body(16_384));
    assert!(refused.status == 401 && refused.text.contains("up to 16384 octets"), "{refused:?}");
    world.ask("acme-token", "POST", &path, &body(7_900_000)).is_served("with a token in the head");
}

#[test]
fn half_a_body_with_a_token_takes_the_room_of_its_account_alone() {
    for ip in BOTH {
        let world = World::new(ip, "");
        let held: Vec<_> = (0..16).map(|_| send_half_a_body(&world, "X-Auth-Token: acme-token\r\n")).collect();
        world.serves_others("while an account holds bodies");
        let path = format!("/v2/accounts/{UMBRELLA}/presence/2001");
        let large = format!(r#"{{"data":{{"x":"{}"}}}}"#, "x".repeat(7_000_000));
        world.ask("umbrella-token", "POST", &path, &large).is_served("a large body of another account");
        let refused = world.ask("acme-token", "POST", &format!("/v2/accounts/{ACME}/presence/1001"), &large);
        refused.is_refused_by("HTTP body octets of one account");
        drop(held);
        until("the room is given back", || {
            world.ask("acme-token", "POST", &format!("/v2/accounts/{ACME}/presence/1001"), &large).status == 200
        });
    }
}

#[test]
fn listings_that_nobody_reads_hold_up_nobody_and_little_memory() {
    for ip in BOTH {
        let world = World::new(ip, "");
        let mut phones = Phones::new(world.sip);
        phones.watch("1001", 0..250);
        phones.publish("1001", 60, 300);
        phones.answer(250);
        let lamp = format!("/v2/accounts/{ACME}/lamps/1001");
        until("the answers have arrived", || {
            world.ask("acme-token", "GET", &lamp, "").text.contains("\"watchers\":250,\"behind\":0,")
        });
        let path = format!("/v2/accounts/{ACME}/presence");
        let whole = world.ask("acme-token", "GET", &path, "");
        assert!(whole.status == 200 && whole.text.len() > 5_000_000, "{} octets", whole.text.len());
        drop(whole);
        let before = resident();
        let begin = || world.begin("GET", &path, "X-Auth-Token: acme-token\r\n", "");
        let mut held: Vec<_> = (0..520).map(|_| begin()).collect();
        // The first octet shows that a response has begun; with one thread per connection some would never begin.
        for stream in &mut held[..500] {
            stream.read_exact(&mut [0]).unwrap();
        }
        world.serves_others("while an account reads none of its listings");
        let grown = resident().saturating_sub(before);
        assert!(grown < MEMORY / 4, "{grown} octets");
        world.ask("acme-token", "GET", &path, "").is_refused_by("limits.listings_per_account");
        drop(held);
        until("the places are given back", || world.ask("acme-token", "GET", &path, "").status == 200);
    }
}

/// Status of a live stream that has begun, and the stream.
fn listen(world: &World, token: &str, account: &str) -> (u16, TcpStream) {
    let path = format!("/v2/accounts/{account}/lamp_events");
    let mut stream = world.begin("GET", &path, &format!("X-Auth-Token: {token}\r\n"), "");
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    (std::str::from_utf8(&start[9..]).unwrap().parse().unwrap(), stream)
}

#[test]
fn an_account_has_a_share_of_the_live_streams() {
    for ip in BOTH {
        let world = World::new(ip, "");
        let held: Vec<_> = (0..512).map(|_| listen(&world, "acme-token", ACME)).collect();
        assert!(held.iter().all(|(status, _)| *status == 200));
        let path = format!("/v2/accounts/{ACME}/lamp_events");
        world.ask("acme-token", "GET", &path, "").is_refused_by("limits.event_streams_per_account");
        assert_eq!(listen(&world, "umbrella-token", UMBRELLA).0, 200);
        world.serves_others("while an account holds all streams that it may have");
        drop(held);
        until("the places are given back", || listen(&world, "acme-token", ACME).0 == 200);
    }
}

#[test]
fn an_account_has_a_share_of_the_traces() {
    let world = World::new("127.0.0.1", "");
    let mut phones = Phones::new(world.sip);
    phones.watch("1001", 0..17);
    let path = format!("/v2/accounts/{ACME}/subscriptions");
    let found = world.ask("acme-token", "GET", &path, "").text;
    let json: Value = serde_json::from_str(found.split_once("\r\n\r\n").unwrap().1).unwrap();
    let trace = |row: &Value| {
        let path = format!("{path}/{}", row["id"].as_str().unwrap());
        world.ask("acme-token", "POST", &path, r#"{"data":{"action":"trace","seconds":3600}}"#)
    };
    let rows = json["data"].as_array().unwrap();
    assert!(rows[..16].iter().all(|row| trace(row).status == 200));
    trace(&rows[16]).is_refused_by("limits.traces_per_account");
    // A publication and a phone of another account.
    let mut theirs = Phones::new(world.sip);
    theirs.watch_in("umbrella.test", "2001", 0..1);
    let path = format!("/v2/accounts/{UMBRELLA}/subscriptions");
    let found = world.ask("umbrella-token", "GET", &path, "").text;
    let json: Value = serde_json::from_str(found.split_once("\r\n\r\n").unwrap().1).unwrap();
    let path = format!("{path}/{}", json["data"][0]["id"].as_str().unwrap());
    world
        .ask("umbrella-token", "POST", &path, r#"{"data":{"action":"trace"}}"#)
        .is_served("a trace of another account");
}

#[test]
fn half_requests_keep_nobody_out() {
    for ip in BOTH {
        let world = World::new(ip, "");
        let before = resident();
        let halves = ["GET /heal", "GET / HTTP/1.1\r\nHost: x\r\nX: ", ""];
        let mut held: Vec<_> = (0..1_100)
            .map(|n| {
                let mut stream = world.connect();
                stream.write_all(halves[n % halves.len()].as_bytes()).unwrap();
                stream
            })
            .collect();
        world.serves_others("while 1,100 half requests are open");
        for n in 0..3_000 {
            let mut stream = world.connect();
            let _ = stream.write_all(halves[n % halves.len()].as_bytes());
            held.push(stream);
        }
        world.serves_others("while 4,100 connections from one address have been opened");
        assert!(resident().saturating_sub(before) < MEMORY / 4);
    }
}

#[test]
fn whole_heads_whose_bodies_do_not_come_keep_nobody_out() {
    let world = World::new("::1", "");
    let path = format!("/v2/accounts/{ACME}/presence/1001");
    let begin = |headers: &str| world.begin("POST", &path, &format!("{headers}Content-Length: 9\r\n"), r#"{"data":"#);
    let _held: Vec<_> =
        (0..1_600).map(|n| begin(if n % 2 == 0 { "X-Auth-Token: acme-token\r\n" } else { "" })).collect();
    world.serves_others("while 1,600 half bodies are open");
}

#[test]
fn probes_and_metrics_answer_when_every_connection_is_a_stream() {
    for ip in BOTH {
        let world = World::new(ip, "limits = { http_connections = 8, event_streams = 8 }");
        let held: Vec<_> = (0..8).map(|_| listen(&world, "acme-token", ACME)).collect();
        assert!(held.iter().all(|(status, _)| *status == 200));
        for (token, path) in [("", "/readyz"), ("", "/healthz"), ("root-token", "/metrics")] {
            world.ask(token, "GET", path, "").is_served(path);
        }
        let path = format!("/v2/accounts/{UMBRELLA}/presence");
        world.ask("umbrella-token", "GET", &path, "").is_refused_by("limits.http_connections");
        drop(held);
        until("there is room again", || world.ask("umbrella-token", "GET", &path, "").status == 200);
    }
}

#[test]
fn requests_in_a_row_whose_answers_nobody_reads_keep_nobody_out() {
    let world = World::new("127.0.0.1", "");
    let request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = world.connect();
        stream.set_nonblocking(true).unwrap();
        // The client writes as many requests as the server accepts while nothing is read.
        while stream.write(request.repeat(50).as_bytes()).is_ok() {}
        held.push(stream);
    }
    let before = resident();
    world.serves_others("while thousands of answers wait to be read");
    assert!(resident().saturating_sub(before) < MEMORY / 4);
}

#[test]
fn refusals_and_connections_are_counted() {
    let world = World::new("127.0.0.1", "limits = { event_streams = 2, event_streams_per_account = 1 }");
    let _held = listen(&world, "acme-token", ACME);
    assert_eq!(listen(&world, "acme-token", ACME).0, 503);
    let text = world.ask("root-token", "GET", "/metrics", "").text;
    for line in [
        "lamplighter_http_refused_total{limit=\"limits.event_streams_per_account\"} 1",
        "lamplighter_http_refused_total{limit=\"limits.event_streams\"} 0",
        "lamplighter_http_refused_total{limit=\"limits.listings\"} 0",
        "lamplighter_event_streams_refused_total 1",
        "lamplighter_http_bodies_bytes 0.0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    assert!(text.contains("\nlamplighter_http_connections "), "{text}");
}
