//! Content of a webhook delivery.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;

use super::pending::Batch;
use super::{Hook, MOST_AT_ONCE, Signer};
use crate::api::{ApiState, events};

/// A delivery that can be sent several times.
pub(super) struct Delivery {
    id: String,
    pub(super) body: String,
    pub(super) batch: Batch,
}

/// JSON body, described in `/openapi.json` as WebhookDelivery.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    sequence: u64,
    at: u64,
    account: &'a str,
    realm: &'a str,
    reset: bool,
    coalesced: u64,
    lamps: Vec<Box<RawValue>>,
    subscriptions: Vec<Box<RawValue>>,
}

impl Hook {
    /// Takes waiting changes and writes their current state.
    pub(super) fn make(&self, state: &ApiState) -> Delivery {
        let batch = self.pending.take(MOST_AT_ONCE);
        let (mut lamps, mut subscriptions) = (Vec::new(), Vec::new());
        for thing in &batch.things {
            let written = events::look_up(state, thing).and_then(|text| RawValue::from_string(text).ok());
            match thing.subscription {
                Some(_) => subscriptions.extend(written),
                None => lamps.extend(written),
            }
        }
        let id = new_id();
        let body = Body {
            id: &id,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            at: now().as_millis() as u64,
            account: state.directory.account_id(self.account),
            realm: state.directory.realm(self.account),
            reset: batch.reset,
            coalesced: batch.coalesced,
            lamps,
            subscriptions,
        };
        // serde fails only for keys that are not strings and for numbers that are not finite; our own types have
        // neither.
        let body = serde_json::to_string(&body).unwrap_or_default();
        Delivery { id, body, batch }
    }
}

impl Delivery {
    /// Headers of one attempt: the id stays the same, the timestamp and the signature are new.
    pub(super) fn headers(&self, signer: &Signer) -> [(&'static str, String); 3] {
        let seconds = now().as_secs();
        let signature = signer.sign(&self.id, seconds, self.body.as_bytes());
        [("webhook-id", self.id.clone()), ("webhook-timestamp", seconds.to_string()), ("webhook-signature", signature)]
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn new_id() -> String {
    let mut random = [0u8; 16];
    // If the random source fails, the id is not unique; the sequence still tells deliveries apart.
    let _ = getrandom::fill(&mut random);
    random.iter().fold(String::from("msg_"), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}
