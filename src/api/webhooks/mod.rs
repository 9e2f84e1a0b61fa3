//! Webhooks: configured receivers of an account are notified by HTTP of changed lamps and subscriptions, with their
//! current state.
//!
//! The live stream's task (`events`) feeds them. They are level-triggered as well (rule 1): the queue of a receiver
//! holds the names of changed lamps and subscriptions, each once, and a delivery reads their state when it is written.
//! So a receiver that was slow or offline gets the current state, not the past; the queue is bounded, and no receiver
//! delays another. Each receiver has one delivery in flight. A failed delivery is sent again, or replaced by a new one
//! if any of its content has changed meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::settings::{Webhook, WebhookUrl};
use super::{Api, events};
use crate::directory::AccountNo;
use crate::notifier::change_feed::Changed;

mod client;
mod delivery;
mod pending;
pub mod settings;
mod signature;

use client::{Client, Failure};
use delivery::Delivery;
use pending::Pending;
use signature::Signer;

/// Most changes in one delivery.
const MOST_AT_ONCE: usize = 500;
/// Back-off after the first failure; it doubles with each further failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest back-off, also if the receiver asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Time for the last deliveries when the server stops.
const LAST_WITHIN: Duration = Duration::from_millis(1_500);

/// Outcomes of deliveries.
pub(super) const OUTCOMES: [&str; 5] = ["delivered", "refused", "redirected", "timed_out", "unreachable"];

/// Error in the setup of the webhooks.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The file of CA certificates is not usable.
    #[error("ca {path}: {problem}")]
    Authorities {
        /// Path of the file.
        path: PathBuf,
        /// Cause, as text for the operator.
        problem: String,
    },
    /// The machine has no CA certificates.
    #[error(
        "{0} is https, but this machine has no certificates of authorities; install ca-certificates, or name a file as ca"
    )]
    NoAuthorities(WebhookUrl),
}

/// All receivers of all accounts.
#[derive(Debug, Default)]
pub struct Webhooks {
    all: Vec<Arc<Receiver>>,
}

/// One receiver.
#[derive(Debug)]
struct Receiver {
    account: AccountNo,
    url: WebhookUrl,
    lamps: bool,
    subscriptions: bool,
    signer: Signer,
    tls: Option<Arc<ClientConfig>>,
    pending: Pending,
    sequence: AtomicU64,
    outcomes: [AtomicU64; OUTCOMES.len()],
    failing: AtomicBool,
}

/// Delivery statistics of all receivers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeliveryStats {
    /// Deliveries, in the order of [`OUTCOMES`].
    pub(super) outcomes: [u64; OUTCOMES.len()],
    /// Changes that wait.
    pub(super) waiting: usize,
    /// Receivers whose latest delivery failed.
    pub(super) failing: usize,
    /// Number of receivers.
    pub(super) receivers: usize,
}

impl Webhooks {
    /// The receivers of these settings.
    pub fn new(webhooks: &[Webhook]) -> Result<Webhooks, WebhookError> {
        let receiver = |webhook: &Webhook| {
            Ok(Arc::new(Receiver {
                account: webhook.account,
                url: webhook.url.clone(),
                lamps: webhook.lamps,
                subscriptions: webhook.subscriptions,
                signer: Signer::new(&webhook.key()),
                tls: webhook.url.is_https().then(|| tls(webhook)).transpose()?,
                pending: Pending::new(),
                sequence: AtomicU64::new(0),
                outcomes: Default::default(),
                failing: AtomicBool::new(false),
            }))
        };
        Ok(Webhooks { all: webhooks.iter().map(receiver).collect::<Result<_, _>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a change to the queue of every receiver that wants it.
    pub(super) fn add(&self, changed: &Changed) {
        for hook in self.all.iter().filter(|hook| hook.account == changed.account) {
            if if changed.subscription.is_some() { hook.subscriptions } else { hook.lamps } {
                hook.pending.add(changed);
            }
        }
    }

    /// Records for every receiver that changes were lost.
    pub(super) fn reset(&self) {
        self.all.iter().for_each(|hook| hook.pending.reset());
    }

    pub(super) fn fares(&self) -> DeliveryStats {
        self.all.iter().fold(DeliveryStats::default(), |mut sum, hook| {
            sum.outcomes.iter_mut().zip(&hook.outcomes).for_each(|(sum, one)| *sum += one.load(Ordering::Relaxed));
            sum.waiting += hook.pending.len();
            sum.failing += usize::from(hook.failing.load(Ordering::Relaxed));
            sum.receivers += 1;
            sum
        })
    }
}

/// TLS settings for checking a receiver's certificate.
fn tls(webhook: &Webhook) -> Result<Arc<ClientConfig>, WebhookError> {
    let mut roots = RootCertStore::empty();
    match &webhook.ca {
        Some(path) => {
            let fault = |problem: String| WebhookError::Authorities { path: path.clone(), problem };
            let pem = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| fault(format!("is no PEM file: {error}")))?;
                roots.add(certificate).map_err(|error| fault(format!("holds an unusable root: {error}")))?;
            }
            if roots.is_empty() {
                return Err(fault("holds no certificate in PEM".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(WebhookError::NoAuthorities(webhook.url.clone()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| WebhookError::Authorities {
        path: webhook.ca.clone().unwrap_or_default(),
        problem: error.to_string(),
    })?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Delivers until `stopping` is true, then tries once more to deliver the rest.
pub(super) async fn run(api: Arc<Api>, mut stopping: watch::Receiver<bool>) {
    if api.webhooks.is_empty() {
        return;
    }
    api.state.control.listen(true);
    let (last, words) = watch::channel(false);
    let mut workers = JoinSet::new();
    for hook in &api.webhooks.all {
        workers.spawn(work(Arc::clone(&api), Arc::clone(hook), words.clone()));
    }
    let pump = tokio::spawn(events::forward_changes(Arc::clone(&api)));
    drop(stopping.wait_for(|stopping| *stopping).await);
    pump.abort();
    events::feed_webhooks(&api);
    last.send_replace(true);
    while workers.join_next().await.is_some() {}
}

/// Delivers to one receiver.
async fn work(api: Arc<Api>, hook: Arc<Receiver>, last: watch::Receiver<bool>) {
    let stopped = |mut last: watch::Receiver<bool>| async move { drop(last.wait_for(|last| *last).await) };
    let mut client = Client::new(hook.url.clone(), hook.tls.clone());
    let mut failed: Option<Delivery> = None;
    let mut failures = 0;
    loop {
        if failed.is_none() {
            tokio::select! {
                () = hook.pending.wait() => {}
                () = stopped(last.clone()) => if hook.pending.is_empty() { return },
            }
        }
        let is_last = *last.borrow();
        let delivery = failed.take().unwrap_or_else(|| hook.make(&api.state));
        let headers = delivery.headers(&hook.signer);
        let outcome = tokio::select! {
            outcome = client.post(&headers, &delivery.body) => outcome,
            () = async { stopped(last.clone()).await; sleep(LAST_WITHIN).await } => Err(Failure::TimedOut),
        };
        hook.note(&outcome, &mut failures);
        let Err(failure) = outcome else { continue };
        // Only one attempt at the end; a receiver that misses it gets a reset after the next start.
        if is_last {
            return;
        }
        tokio::select! {
            () = sleep(pause(failures, &failure)) => {}
            () = stopped(last.clone()) => {}
        }
        if !hook.pending.put_back(&delivery.batch) {
            failed = Some(delivery);
        }
    }
}

/// Back-off after so many failures in a row. Half of it is fixed and half random, so that receivers that failed
/// together are not tried together.
fn pause(failures: u32, failure: &Failure) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let mut random = [0u8];
    let _ = getrandom::fill(&mut random);
    let spread = doubled.min(LONGEST_PAUSE).mul_f64(0.5 + f64::from(random[0]) / 510.0);
    match failure {
        Failure::Refused { retry_after: Some(wished), .. } => spread.max((*wished).min(LONGEST_PAUSE)),
        _ => spread,
    }
}

impl Receiver {
    /// Counts an outcome; logs the first failure in a row and the recovery.
    fn note(&self, outcome: &Result<(), Failure>, failures: &mut u32) {
        let kind = match outcome {
            Ok(()) => 0,
            Err(Failure::Refused { .. }) => 1,
            Err(Failure::Redirected { .. }) => 2,
            Err(Failure::TimedOut) => 3,
            Err(Failure::Unreachable(_)) => 4,
        };
        self.outcomes[kind].fetch_add(1, Ordering::Relaxed);
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        let url = &self.url;
        match outcome {
            Err(failure) => {
                *failures = failures.saturating_add(1);
                match *failures {
                    1 => tracing::warn!(%url, ?failure, "a webhook delivery failed; it is retried"),
                    failures => tracing::debug!(%url, ?failure, failures, "a webhook still does not take its delivery"),
                }
            }
            Ok(()) => {
                if std::mem::take(failures) > 0 {
                    tracing::info!(%url, "a webhook accepts deliveries again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere_and_follow_the_receiver() {
        let spread = |failures, low: u64, high: u64| {
            let pause = pause(failures, &Failure::TimedOut).as_millis() as u64;
            assert!((low..=high).contains(&pause), "{failures}: {pause}");
        };
        spread(1, 500, 1_000);
        spread(2, 1_000, 2_000);
        spread(5, 8_000, 16_000);
        spread(40, 150_000, 300_000);
        spread(u32::MAX, 150_000, 300_000);
        let wished = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            pause(1, &Failure::Refused { status: 503, retry_after })
        };
        assert_eq!(wished(7), Duration::from_secs(7));
        assert_eq!(wished(100_000), LONGEST_PAUSE);
    }
}
