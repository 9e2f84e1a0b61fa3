//! Webhooks of a real server, received by a real HTTP server: their content, their signature, and their handling when
//! the receiver fails, is slow, redirects or is gone.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "webhooks/receiver.rs"]
mod receiver;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // what the tests of the API ask for is not all asked for here
mod world;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use receiver::{Receiver, hook};
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use world::{ACME, Phone, World};

/// Counter of one outcome in /metrics.
fn count(world: &World, outcome: &str) -> u64 {
    let (_, text) = world.text_as("root-token", "/metrics", "");
    let name = format!("lamplighter_webhook_deliveries_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_change_is_delivered_signed_and_to_its_own_account_only() {
    let receiver = Receiver::new(&[]);
    let world = World::with("", &receiver.hook(""));
    let first = receiver.next();
    let json = first.json();
    assert_eq!(first.path, "POST /hooks?k=1");
    assert_eq!(first.header("content-type"), "application/json");
    assert!(first.header("user-agent").starts_with("lamplighter/"));
    // The changes before the start were not delivered to the receiver, so it has to load the state.
    assert_eq!((&json["reset"], &json["lamps"], &json["sequence"]), (&json!(true), &json!([]), &json!(1)));
    assert_eq!((&json["account"], &json["realm"]), (&json!(ACME), &json!("acme.test")));
    assert_eq!(json["id"], first.header("webhook-id"));

    let body = r#"{"data":{"action":"set","state":"early"}}"#;
    world.ask_as("root-token", "POST", &format!("/v2/accounts/{}/presence/9", world::UMBRELLA), body);
    world.set("1001", "confirmed");
    let second = receiver.next();
    let json = second.json();
    let lamps: Vec<_> = json["lamps"].as_array().unwrap().iter().map(|lamp| &lamp["extension"]).collect();
    assert_eq!(lamps, ["1001"], "nothing of another account: {json:#}");
    assert_eq!((&json["lamps"][0]["state"], &json["lamps"][0]["name"]), (&json!("talking"), &json!("Alice")));
    assert_eq!((&json["reset"], &json["sequence"], &json["subscriptions"]), (&json!(false), &json!(2), &json!([])));
    assert_ne!(first.header("webhook-id"), second.header("webhook-id"));
    until("two are counted", || count(&world, "delivered") == 2);
}

#[test]
fn subscriptions_are_told_to_who_asks_for_them() {
    let receiver = Receiver::new(&[]);
    let world = World::with("", &receiver.hook("events = [\"subscription\"]"));
    receiver.next();
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let json = receiver.next().json();
    let row = &json["subscriptions"][0];
    assert_eq!((&row["extension"], &row["gone"], &json["lamps"]), (&json!("1001"), &json!(false), &json!([])));
    let id = row["id"].as_str().unwrap().to_owned();
    world.ask("DELETE", &format!("subscriptions/{id}"), "");
    loop {
        let json = receiver.next().json();
        if json["subscriptions"][0]["gone"] == true {
            return assert_eq!(json["subscriptions"][0]["id"], *id);
        }
    }
}

#[test]
fn what_fails_is_sent_again_with_the_same_id() {
    let receiver = Receiver::new(&[(500, &[]), (503, &[("retry-after", "1")])]);
    let world = World::with("", &receiver.hook(""));
    let seen = [receiver.next(), receiver.next(), receiver.next()];
    let [first, second, third] = seen.each_ref().map(|seen| seen.json());
    assert!(first == second && second == third, "{first:#}\n{second:#}\n{third:#}");
    let [first, second, _] = seen.each_ref().map(|seen| seen.header("webhook-id"));
    assert_eq!(first, second);
    until("two refusals and a success are counted", || {
        (count(&world, "refused"), count(&world, "delivered")) == (2, 1)
    });
    world.set("1002", "early");
    assert_eq!(receiver.lamp("1002").1["state"], "ringing");
}

#[test]
fn what_has_changed_since_it_failed_is_told_as_it_is_now() {
    let receiver = Receiver::new(&[(204, &[]), (500, &[])]);
    let world = World::with("", &receiver.hook(""));
    receiver.next();
    world.set("1001", "early");
    let (failed, lamp) = receiver.lamp("1001");
    assert_eq!(lamp["state"], "ringing");
    world.set("1001", "confirmed");
    let (next, lamp) = receiver.lamp("1001");
    assert_eq!(lamp["state"], "talking", "never a state that is over");
    assert_ne!(failed.header("webhook-id"), next.header("webhook-id"), "another delivery, by its id");
    assert!(next.json()["sequence"].as_u64() > failed.json()["sequence"].as_u64());
}

#[test]
fn a_slow_receiver_holds_up_nobody_and_hears_the_newest() {
    let (slow, quick) = (Receiver::new(&[]), Receiver::new(&[]));
    let world = World::with("", &(slow.hook("") + &quick.hook("")));
    slow.next();
    quick.next();
    // The receiver has the delivery before the server counts the response.
    until("both are answered", || count(&world, "delivered") == 2);
    slow.hold();
    world.set("1001", "early");
    slow.lamp("1001");
    // While the slow receiver does not respond, many changes happen; the other one gets them at once.
    for (state, shown) in [("confirmed", "talking"), ("early", "ringing"), ("confirmed", "talking")] {
        world.set("1001", state);
        while quick.lamp("1001").1["state"] != shown {}
    }
    world.set("1002", "early");
    while quick.lamp("1002").1["state"] != "ringing" {}
    slow.release();
    let json = slow.next().json();
    assert_eq!(json["lamps"].as_array().unwrap().len(), 2, "{json:#}");
    assert_eq!((&json["lamps"][0]["extension"], &json["lamps"][0]["state"]), (&json!("1001"), &json!("talking")));
    assert_eq!(json["coalesced"], 2, "and it says how many changes it has not seen");
    assert!(slow.has_none());
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::new(&[]);
    // The header has to be static. A client that followed the redirect would reach `elsewhere`, whatever the path.
    let location: &'static str = Box::leak(format!("http://{}/", elsewhere.address).into_boxed_str());
    let headers: &'static [(&'static str, &'static str)] = Box::leak(Box::new([("location", location)]));
    let receiver = Receiver::new(&[(307, headers)]);
    let world = World::with("", &receiver.hook(""));
    receiver.next();
    receiver.next();
    until("it is counted", || (count(&world, "redirected"), count(&world, "delivered")) == (1, 1));
    assert!(elsewhere.has_none());
}

#[test]
fn the_last_change_is_delivered_before_the_server_is_gone() {
    let receiver = Receiver::new(&[]);
    let world = World::with("", &receiver.hook(""));
    receiver.next();
    world.set("1001", "early");
    world.stop();
    assert_eq!(receiver.lamp("1001").1["state"], "ringing");
}

#[test]
fn receivers_that_are_gone_or_silent_do_not_hold_up_the_end() {
    let silent = Receiver::new(&[]);
    silent.hold();
    let gone = hook(&format!("http://127.0.0.1:{}/", ports::free()), "");
    let world = World::with("", &(gone + &silent.hook("")));
    silent.next();
    until("one is not there", || count(&world, "unreachable") > 0);
    let from = Instant::now();
    world.stop();
    assert!(from.elapsed() < Duration::from_secs(10), "{:?}", from.elapsed());
}

#[test]
fn authorities_that_cannot_be_read_are_told_at_the_start() {
    let account = "[[account]]\nid = \"a\"\nrealm = \"acme.test\"\n";
    let text = account.to_owned() + &hook("https://127.0.0.1:1/", "ca = \"/nowhere/ca.pem\"");
    let config = lamplighter::config::Config::parse(&text, "hooks.toml").unwrap();
    let error = lamplighter::server::Server::start(&config).unwrap_err().to_string();
    assert!(error.starts_with("[[account.webhook]]: ca /nowhere/ca.pem: cannot be read: "), "{error}");
}

#[test]
fn receivers_over_tls_are_known_by_their_certificate() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("webhooks");
    std::fs::create_dir_all(&folder).unwrap();
    let identity = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (theirs, another) = (identity(), identity());
    let write = |name: &str, pem: String| {
        let path = folder.join(name);
        std::fs::File::create(&path).unwrap().write_all(pem.as_bytes()).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (write("right.pem", theirs.cert.pem()), write("wrong.pem", another.cert.pem()));

    // This receiver only completes the handshake and responds; the deliveries are checked in the other tests.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(theirs.signing_key.serialize_der()).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![theirs.cert.der().clone()], key).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let acceptor = TlsAcceptor::from(Arc::new(server));
        while let Ok((stream, _)) = listener.accept().await {
            // A client that rejects the certificate closes the connection.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let url = format!("https://127.0.0.1:{port}/");
    let world = World::with("", &hook(&url, &format!("ca = \"{right}\"")));
    until("delivered over TLS", || count(&world, "delivered") == 1);
    let world = World::with("", &hook(&url, &format!("ca = \"{wrong}\"")));
    until("a stranger is not spoken to", || count(&world, "unreachable") > 0);
    assert_eq!(count(&world, "delivered"), 0);
}
