//! `[[account.webhook]]`: receivers that are notified by HTTP of changes in an account.

use toml::Spanned;

use super::error::{ConfigError, Source};
use super::{accounts, raw};
use crate::api::webhooks::settings::{Webhook, WebhookUrl, key};
use crate::presence::AccountNo;

/// Most webhooks of an account.
const MOST: usize = 16;

/// Checks the webhooks of an account.
pub(super) fn all(
    source: Source<'_>,
    raw: &[Spanned<raw::Webhook>],
    path: &str,
    account: AccountNo,
) -> Result<Vec<Webhook>, ConfigError> {
    if let Some(one) = raw.get(MOST) {
        let problem = format!("is one too many; allowed: {MOST} webhooks of an account");
        return Err(source.fault(one.span(), format!("{path}.webhook[{MOST}]"), problem));
    }
    raw.iter()
        .enumerate()
        .map(|(i, one)| webhook(source, one.get_ref(), &format!("{path}.webhook[{i}]"), account))
        .collect()
}

fn webhook(source: Source<'_>, raw: &raw::Webhook, path: &str, account: AccountNo) -> Result<Webhook, ConfigError> {
    let url = WebhookUrl::read(raw.url.get_ref())
        .map_err(|problem| source.fault(raw.url.span(), format!("{path}.url"), problem))?;
    if accounts::is_blank(raw.secret.get_ref()) {
        return Err(source.fault(raw.secret.span(), format!("{path}.secret"), "is empty; it needs visible characters"));
    }
    if let Err(problem) = key(raw.secret.get_ref().expose()) {
        return Err(source.fault(raw.secret.span(), format!("{path}.secret"), problem));
    }
    let (mut lamps, mut subscriptions) = (raw.events.is_none(), false);
    if let Some(events) = &raw.events {
        let key = format!("{path}.events");
        for (i, event) in events.get_ref().iter().enumerate() {
            match event.get_ref().as_str() {
                "lamp" => lamps = true,
                "subscription" => subscriptions = true,
                other => {
                    let problem = format!("\"{other}\" is no event; allowed: \"lamp\", \"subscription\"");
                    return Err(source.fault(event.span(), format!("{key}[{i}]"), problem));
                }
            }
        }
        if !lamps && !subscriptions {
            return Err(source.fault(events.span(), key, "names no event; allowed: \"lamp\", \"subscription\""));
        }
    }
    Ok(Webhook { account, url, secret: raw.secret.get_ref().clone(), lamps, subscriptions, ca: raw.ca.clone() })
}
