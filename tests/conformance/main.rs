//! Rows of the conformance list that no other test checks (docs/conformance.md has them all). Each file is a group; a
//! test names the rows for which it fails. Most go through a real notifier without sockets.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[allow(dead_code)] // the torture tests use the rest
#[path = "../torture/bench.rs"]
mod bench;
#[allow(dead_code)] // the tests on sockets use the rest
#[path = "../sockets/office.rs"]
mod loopback;
#[path = "../torture/notifier.rs"]
mod notifier;
#[allow(dead_code)] // the scenarios use the rest
#[path = "../scenarios/office.rs"]
mod office;
#[path = "../torture/request.rs"]
mod request;

mod checks;
mod syntax;
mod transactions;
mod transports;

use bench::Expected::{Answer, Subscribed};
use bench::{Bench, Sent, compare};
use request::Request;

const URI: &str = "sip:1001@acme.test";

fn subscribe() -> Request {
    Request::subscribe(URI)
}

fn options() -> Request {
    Request::new("OPTIONS", URI)
}

/// A PUBLISH of one call for 1001.
fn publish(state: &str) -> Request {
    Request::new("PUBLISH", URI).put("Event: dialog").put("Call-ID: published").body(
        "application/dialog-info+xml",
        format!(
            "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
             state=\"full\" entity=\"{URI}\"><dialog id=\"c\"><state>{state}</state></dialog></dialog-info>"
        ),
    )
}

/// Messages that a new notifier sends for a request.
fn say(request: &Request) -> Vec<Sent> {
    Bench::new().udp(request.bytes())
}

/// The 200 and the NOTIFY after it.
fn subscribed(row: &str, request: &Request) -> [Sent; 2] {
    let sent = say(request);
    compare(row, &sent, Subscribed);
    sent.try_into().unwrap()
}

/// The only response, which must have one of these statuses.
fn answered(row: &str, request: &Request, statuses: &'static [u16]) -> Sent {
    let mut sent = say(request);
    compare(row, &sent, Answer(statuses));
    sent.remove(0)
}
