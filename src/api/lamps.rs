//! API resources that explain lamps: the lamps of an account, one lamp with its history, the subscriptions and their
//! delivery status.

use crate::directory::{AccountNo, Directory, TokenScope};
use crate::notifier::explain::report::{Cursor, Lamp, LampState};
use crate::presence::aor::MAX_USER;

use super::ApiState;
use super::envelope::{AccountRow, Data, Page, Reply};
use super::error::Fault;
use super::fields::Field;
use super::presence::not_allowed;
use super::request::{Ask, Verb};
use super::route::Subject;

/// Default `page_size` of lamps.
const PAGE: usize = 1_000;
/// Largest `page_size`.
const MAX_PAGE: usize = 10_000;
/// Default `page_size` of subscriptions.
const PAGE_OF_WATCHERS: usize = 200;
/// Longest `filter`, in bytes.
const MAX_FILTER: usize = 128;
const ACTIONS: &[&str] = &["resend", "trace"];
/// Default duration of a trace and longest duration, in seconds.
const TRACE: u32 = 300;
const MAX_TRACE: u32 = 3_600;

/// The accounts that a token may see, for clients that know only their token.
pub(super) fn accounts(directory: &Directory, bearer: TokenScope) -> Reply {
    let row =
        |(id, name, realm): (&str, &str, &str)| AccountRow { id: id.into(), name: name.into(), realm: realm.into() };
    Reply::Data(Data::Accounts(directory.visible_to(bearer).map(row).collect()))
}

/// Answers requests about lamps, except the live event stream.
pub(super) fn answer(state: &ApiState, account: AccountNo, subject: &Subject, ask: &Ask) -> Result<Reply, Fault> {
    let missing = |id: &str| Fault::BadIdentifier(id.to_owned());
    match subject {
        Subject::Lamps => list(state, account, ask),
        Subject::Overview => Ok(Reply::Data(Data::Overview(Box::new(state.control.overview(account))))),
        Subject::Lamp(extension) => {
            let extension = extension.to_lowercase();
            if let Some(story) = state.control.lamp_story(account, &extension) {
                return Ok(Reply::Data(Data::Story(Box::new(story))));
            }
            let known = state.directory.has_extension(account, &extension);
            let lamp = known.then(|| unknown(&state.directory, account, &extension));
            lamp.map(|lamp| Reply::Data(Data::Lamp(Box::new(lamp)))).ok_or_else(|| missing(&extension))
        }
        Subject::Subscriptions => watchers(state, account, ask),
        Subject::Subscription(id) if ask.verb.reads() => {
            let story = state.control.subscription_story(account, id).ok_or_else(|| missing(id))?;
            Ok(Reply::Data(Data::Subscription(Box::new(story))))
        }
        Subject::Subscription(id) => {
            // Log lines of this command carry the request's id.
            let _span = tracing::info_span!("request", id = ask.id).entered();
            let (found, done) = match ask.verb {
                Verb::Delete => (state.control.end(account, id, &ask.id), "subscription ended"),
                _ => match action(ask)? {
                    Action::Resend => (state.control.resend(account, id, &ask.id), "resend command sent"),
                    Action::Trace(seconds) => (state.control.trace(account, id, seconds), "trace begun"),
                },
            };
            if !found.map_err(Fault::Refused)? {
                return Err(missing(id));
            }
            let account = state.directory.account_id(account);
            tracing::info!(account, subscription = id, done, "subscription changed by the API");
            Ok(Reply::Data(Data::Text(done.into())))
        }
        Subject::Trace(id) if ask.verb == Verb::Delete => match state.control.forget_trace(account, id) {
            true => Ok(Reply::Data(Data::Text("trace forgotten".into()))),
            false => Err(missing(id)),
        },
        Subject::Trace(id) => {
            let story = state.control.trace_story(account, id).ok_or_else(|| missing(id))?;
            Ok(Reply::Data(Data::Trace(Box::new(story))))
        }
        // Handled elsewhere.
        Subject::Events | Subject::Refusals => Err(Fault::NotFound),
    }
}

/// Command of a POST to a subscription.
enum Action {
    Resend,
    Trace(u32),
}

fn action(ask: &Ask) -> Result<Action, Fault> {
    match ask.parameter("action") {
        Some(Field::Text(action)) if action == "resend" => Ok(Action::Resend),
        Some(Field::Text(action)) if action == "trace" => seconds(ask).map(Action::Trace),
        Some(other) => Err(not_allowed("action", ACTIONS, other)),
        None => Err(Fault::Required { field: "action", allowed: ACTIONS }),
    }
}

fn seconds(ask: &Ask) -> Result<u32, Fault> {
    let number = match ask.parameter("seconds") {
        None => return Ok(TRACE),
        Some(Field::Number(number)) => u32::try_from(number).ok(),
        Some(Field::Text(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let allowed = number.filter(|seconds| (1..=MAX_TRACE).contains(seconds));
    allowed.ok_or(Fault::malformed("seconds", "must be a number from 1 to 3600"))
}

/// The `filter` parameter; 400 if it is too long.
fn filter(ask: &Ask) -> Result<&str, Fault> {
    let filter = ask.query("filter").unwrap_or_default();
    match filter.len() {
        0..=MAX_FILTER => Ok(filter),
        _ => Err(Fault::malformed("filter", "must be no longer than 128 bytes")),
    }
}

pub(super) fn page_size(ask: &Ask, usual: usize) -> Result<usize, Fault> {
    match ask.query("page_size").map(str::parse::<usize>) {
        None => Ok(usual),
        Some(Ok(size)) if (1..=MAX_PAGE).contains(&size) => Ok(size),
        Some(_) => Err(Fault::malformed("page_size", "must be a number from 1 to 10000")),
    }
}

/// One page of subscriptions.
fn watchers(state: &ApiState, account: AccountNo, ask: &Ask) -> Result<Reply, Fault> {
    let (filter, size) = (filter(ask)?, page_size(ask, PAGE_OF_WATCHERS)?);
    let start_key = ask.query("start_key").unwrap_or_default().to_owned();
    let from = match &*start_key {
        "" => Cursor::default(),
        key => Cursor::read(key).ok_or(Fault::malformed("start_key", "must be the next_start_key of another page"))?,
    };
    // One entry more than the page holds: its key is the start key of the next page.
    let mut found = state.control.find_watchers(account, filter, &from, size + 1);
    let next_start_key = found.get(size).map(|row| row.bookmark().to_string());
    found.truncate(size);
    let page = Page { start_key, next_start_key, page_size: found.len() };
    Ok(Reply::Page(Data::Watchers(found), page))
}

/// One page of lamps: all, or those whose extension or name contains the filter text.
fn list(state: &ApiState, account: AccountNo, ask: &Ask) -> Result<Reply, Fault> {
    let (size, wanted) = (page_size(ask, PAGE)?, filter(ask)?.to_lowercase());
    let start = ask.query("start_key").unwrap_or_default().to_lowercase();
    if start.len() > MAX_USER {
        return Err(Fault::malformed("start_key", "must be an extension, which has no more than 128 bytes"));
    }
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    let is_wanted = |lamp: &Lamp| has(&lamp.extension) || lamp.name.as_deref().is_some_and(has);
    let (mut lamps, mut from) = (Vec::new(), Some(start.clone()));
    // One entry more than the page holds: its key is the start key of the next page.
    while let Some(start) = from.take_if(|_| lamps.len() <= size) {
        let (some, next) = some_lamps(state, account, &start, if wanted.is_empty() { size + 1 } else { MAX_PAGE });
        lamps.extend(some.into_iter().filter(is_wanted));
        from = next;
    }
    let next_start_key = lamps.get(size).map(|lamp| lamp.extension.clone());
    lamps.truncate(size);
    let page = Page { start_key: start, next_start_key, page_size: lamps.len() };
    Ok(Reply::Page(Data::Lamps(lamps), page))
}

/// Lamps from an extension on: those with a known state and those that only the configuration names. Also returns the
/// extension at which the next part begins.
fn some_lamps(state: &ApiState, account: AccountNo, start: &str, most: usize) -> (Vec<Lamp>, Option<String>) {
    let mut lamps = state.control.lamps(account, start, most + 1);
    let configured = state.directory.extensions_from(account, start).take(most + 1);
    let missing: Vec<_> = configured
        .filter(|extension| lamps.binary_search_by(|lamp| lamp.extension.as_str().cmp(extension)).is_err())
        .map(|extension| unknown(&state.directory, account, extension))
        .collect();
    lamps.extend(missing);
    lamps.sort_by(|a, b| a.extension.cmp(&b.extension));
    let next = lamps.get(most).map(|lamp| lamp.extension.clone());
    lamps.truncate(most);
    (lamps, next)
}

/// Lamp of an extension without any known state; its name may be known from the configuration.
pub(super) fn unknown(directory: &Directory, account: AccountNo, extension: &str) -> Lamp {
    Lamp {
        extension: extension.to_owned(),
        name: directory.name_of(account, extension).map(String::from),
        state: LampState::Unknown,
        changed_at: None,
        with: None,
        calls: 0,
        messages_waiting: None,
        watchers: 0,
        behind: 0,
        failing: 0,
    }
}
