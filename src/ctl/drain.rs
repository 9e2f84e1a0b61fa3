//! `lamplighter drain`: makes a server refuse new work before it is stopped, and reports the work it still has.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::{OperatorError, print, print_json, put};
use crate::cli::DrainArgs;

/// Interval of polling the drain status.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the drain, ends it, or only asks for the status; prints the status.
pub fn drain(args: &DrainArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let method = match (args.undo, args.status) {
        (true, _) => "DELETE",
        (_, true) => "GET",
        _ => "POST",
    };
    let mut left = client.ask(method, "drain", None)?["data"].take();
    let deadline = Instant::now() + Duration::from_secs(args.wait.into());
    while unanswered(&left) > 0 && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        left = client.get("drain")?;
    }
    match args.server.json {
        true => print_json(&left)?,
        false => put(&print::left(&left, client.now()))?,
    }
    match unanswered(&left) {
        still if still > 0 && args.wait > 0 => Err(OperatorError::Unanswered(still)),
        _ => Ok(()),
    }
}

fn unanswered(left: &Value) -> u64 {
    left["unanswered"].as_u64().unwrap_or_default()
}
