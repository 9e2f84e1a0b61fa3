//! Test kit: a server per test, peers, and ways to wait for them.

mod folder;
mod http;
mod kamailio;
mod lines;
mod ports;
mod process;
mod server;
mod sipp;
mod trace;

pub(crate) use http::Listed;
pub(crate) use kamailio::{Kamailio, Leg};
pub(crate) use lines::Lines;
pub(crate) use process::{Process, skip_without, skip_without_file};
pub(crate) use server::{Server, Settings};
pub(crate) use sipp::{Phones, Publisher, Sipp, Transport};
pub(crate) use trace::Notify;

use std::time::{Duration, Instant};

/// Longest wait for any one event. It is generous, because of a debug build on two shared cores; it is never a measure
/// of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Polls until there is a result; fails the test, naming the awaited event, if there is none in time.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
