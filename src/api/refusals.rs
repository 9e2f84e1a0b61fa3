//! Records requests that the API refuses, and lists all recent refusals.
//!
//! In flow errors on their way to the client; out flow entries in the notifier's list of refused requests. The response
//! to a wrong token is delayed. A right token is never delayed, even if other clients of its address try wrong ones:
//! all clients behind a proxy share one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use parking_lot::Mutex;

use crate::directory::{AccountNo, TokenScope};
use crate::notifier::control::ControlError;
use crate::notifier::refusals::ApiRefusal;
use crate::transport::limited_as;

use super::envelope::{Data, Page, Reply};
use super::error::ApiError;
use super::explain::page_size;
use super::quota::Limit;
use super::request::RequestContext;
use super::{Api, ApiState};

/// Default `page_size`.
const PAGE: usize = 200;
/// Most responses to wrong tokens delayed at once; each keeps a connection and a task.
const MOST_HELD: usize = 128;
/// Most delayed responses for one address. Further ones are answered at once with 429.
const MOST_HELD_PER_ADDRESS: usize = 8;

/// Address that a request came from, stored as an extension of the HTTP request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Number of delayed responses by address.
#[derive(Debug, Default)]
pub(super) struct DelayedResponses(Mutex<HashMap<IpAddr, usize>>);

/// Entry of one delayed response.
struct DelayGuard<'a> {
    held: &'a DelayedResponses,
    address: IpAddr,
}

impl DelayedResponses {
    /// Counts one more delayed response for an address; `None` if a limit is reached.
    fn enter(&self, address: IpAddr) -> Option<DelayGuard<'_>> {
        let mut held = self.0.lock();
        if held.values().sum::<usize>() >= MOST_HELD {
            return None;
        }
        let of_address = held.entry(address).or_default();
        if *of_address >= MOST_HELD_PER_ADDRESS {
            return None;
        }
        *of_address += 1;
        Some(DelayGuard { held: self, address })
    }
}

impl Drop for DelayGuard<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.held.0.lock().entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Records an error before it is sent, and delays the response to a wrong token.
pub(super) async fn settle(api: &Api, head: &Parts, ask: &RequestContext, fault: ApiError) -> ApiError {
    let Some(reason) = reason(&fault) else { return fault };
    let control = &api.state.control;
    let address = head.extensions.get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let (account, who) = match ask.bearer {
        Some(TokenScope::Account(account)) => (Some(account), api.state.directory.realm(account)),
        Some(TokenScope::Superuser) => (None, "superuser"),
        None => (None, ""),
    };
    control.note_refusal(&ApiRefusal {
        account,
        who,
        address,
        method: ask.verb.name(),
        status: fault.shape(api.state.strict_compat, ask.is_v1).status.as_u16(),
        reason,
        agent: head.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default(),
    });
    if fault != ApiError::WrongToken {
        return fault;
    }
    let wait = control.wrong_token(address);
    if wait.is_zero() {
        return fault;
    }
    match api.held.enter(limited_as(address)) {
        Some(_place) => {
            tokio::time::sleep(wait).await;
            fault
        }
        None => ApiError::TooManyWrongTokens { seconds: u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(1) },
    }
}

/// Name under which an error is listed and counted. `None` if it is not a refusal: a request without any token is asked
/// for one, a probe reports the state of the server, and reading the list must not add to it.
fn reason(fault: &ApiError) -> Option<&'static str> {
    match fault {
        ApiError::Unauthenticated { cause: None } | ApiError::NotReady | ApiError::NoSuperuser => None,
        ApiError::WrongToken => Some("Wrong Token"),
        ApiError::Refused(ControlError::LimitReached { key, .. }) | ApiError::NoRoom(Limit { key, .. }) => Some(key),
        other => Some(other.shape(false, false).message),
    }
}

/// One page of the refused requests of an account, or of those without an account.
pub(super) fn list(state: &ApiState, account: Option<AccountNo>, ask: &RequestContext) -> Result<Reply, ApiError> {
    let size = page_size(ask, PAGE)?;
    let start_key = ask.query("start_key").unwrap_or_default().to_owned();
    let from = match &*start_key {
        "" => None,
        key => {
            Some(read_key(key).ok_or(ApiError::malformed("start_key", "must be the next_start_key of another page"))?)
        }
    };
    // One entry more than the page holds: its number is the start key of the next page.
    let mut found = state.control.refusals(account, from, size + 1);
    let next_start_key = found.get(size).map(|row| row.number.to_string());
    found.truncate(size);
    let page = Page { start_key, next_start_key, page_size: found.len() };
    Ok(Reply::Page(Data::Refusals(found), page))
}

/// Parses a page key: digits only, so `+1` is not accepted.
fn read_key(key: &str) -> Option<u64> {
    key.bytes().all(|b| b.is_ascii_digit()).then(|| key.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_answers_are_held_back_and_of_one_address_fewer() {
        let held = DelayedResponses::default();
        let here = IpAddr::from([192, 0, 2, 1]);
        let mut places: Vec<_> = std::iter::from_fn(|| held.enter(here)).collect();
        assert_eq!(places.len(), MOST_HELD_PER_ADDRESS);
        places.extend(
            (2..=255).flat_map(|n| (0..4).map_while(|_| held.enter(IpAddr::from([192, 0, 2, n]))).collect::<Vec<_>>()),
        );
        assert_eq!(places.len(), MOST_HELD);
        assert!(held.enter(IpAddr::from([198, 51, 100, 1])).is_none());
        drop(places);
        assert!(held.0.lock().is_empty() && held.enter(here).is_some());
    }
}
