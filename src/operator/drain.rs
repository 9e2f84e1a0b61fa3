//! `lamplighter drain`: nothing new for a server that is to go, and how long it is still needed.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::{OperatorError, print, print_json, put};
use crate::cli::DrainArgs;

/// How often it is asked what is left.
const LOOK: Duration = Duration::from_millis(200);

/// Begins to drain, takes that back, or only asks; says what is left.
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
