//! HTTP API as an operator uses it, with curl.

use std::process::Command;

use serde_json::Value;

/// One subscription as the listing shows it (dialect 3.22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) call_id: String,
    pub(crate) sequence: u64,
    pub(crate) reply: u64,
    pub(crate) body: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends one request. None: the port has no listener (yet).
pub(crate) fn request(method: &str, url: &str, token: &str, json: Option<&str>) -> Option<Answer> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--max-time", "10", "--write-out", "\n%{http_code}", "-X", method]);
    curl.args(["-H", &format!("X-Auth-Token: {token}")]);
    if let Some(json) = json {
        curl.args(["-H", "Content-Type: application/json", "--data-binary", json]);
    }
    let done = curl.arg(url).output().expect("curl runs");
    let text = String::from_utf8(done.stdout).expect("the API speaks UTF-8");
    let (body, status) = text.rsplit_once('\n').expect("curl ends with the status");
    let status: u16 = status.parse().expect("a status is a number");
    (done.status.success() && status != 0).then(|| Answer { status, body: body.to_owned() })
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }
}

/// `data.subscriptions.{extension}.{event}.{call-id}` of a listing.
pub(crate) fn subscriptions(listing: &Value, extension: &str, event: &str) -> Vec<Listed> {
    let of_event = &listing["data"]["subscriptions"][extension][event];
    let records = of_event.as_object().into_iter().flatten();
    records
        .map(|(call_id, record)| Listed {
            call_id: call_id.clone(),
            sequence: record["notify"]["sequence"].as_u64().expect("notify.sequence is a number"),
            reply: record["notify"]["reply"].as_u64().expect("notify.reply is a number"),
            body: record["notify"]["body"].as_str().expect("notify.body is a string").to_owned(),
        })
        .collect()
}
