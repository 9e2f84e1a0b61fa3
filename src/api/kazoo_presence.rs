//! Kazoo's presence commands: list, reset and set.

use crate::directory::{AccountNo, Directory, Member};
use crate::package;
use crate::presence::canonical_user;
use crate::presence::state::CallState;

use super::ApiState;
use super::envelope::{Data, Reply};
use super::error::ApiError;
use super::listing::{ListingQuery, PackageFilter};
use super::request::RequestContext;
use super::request_body::Field;
use super::route::{PresenceScope, Route};

const ACTIONS: &[&str] = &["set", "reset"];
const STATES: &[&str] = &["early", "confirmed", "terminated"];
/// Longest part of an invalid value that is repeated in the error (characters).
const MAX_ECHO: usize = 128;

/// Existing resource that a request names.
pub(super) enum Resource {
    /// The whole account.
    Everybody,
    /// An extension as the client wrote it.
    Extension(String),
    /// The extensions of a device or a user.
    Member(Vec<String>),
}

/// Validated command.
pub(super) enum Command {
    List(ListingQuery),
    Change { place: Resource, change: Change },
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    Reset,
    Set(CallState),
}

/// Finds the resource that the path names: 404 if it does not exist.
pub(super) fn resolve(
    directory: &Directory,
    account: AccountNo,
    target: &Route,
    ask: &RequestContext,
) -> Result<Resource, ApiError> {
    let Route::Presence { of, .. } = target else { return Err(ApiError::NotFound) };
    let member = |found: Option<&Member>, id: &str| {
        found.map(|m| Resource::Member(m.addresses.clone())).ok_or_else(|| ApiError::BadIdentifier(id.to_owned()))
    };
    match of {
        // For a listing, Kazoo ignores the device or user in the path.
        _ if ask.verb.reads() => Ok(Resource::Everybody),
        PresenceScope::Account => Err(ApiError::FaultyRequest),
        PresenceScope::Device(id) => member(directory.device(account, id), id),
        PresenceScope::User(id) => member(directory.user(account, id), id),
        PresenceScope::Extension(name) => Ok(Resource::Extension(name.clone())),
    }
}

/// Validates the parameters: 400 names the field that is wrong.
pub(super) fn validate(place: Resource, ask: &RequestContext) -> Result<Command, ApiError> {
    if matches!(place, Resource::Everybody) {
        let only = match ask.query("event") {
            None => PackageFilter::All,
            Some(name) => package::by_name(name).map_or(PackageFilter::Nothing, PackageFilter::Package),
        };
        return Ok(Command::List(ListingQuery {
            only,
            with_publications: ask.query("include_presentity") == Some("true"),
        }));
    }
    if let Resource::Extension(name) = &place
        && canonical_user(name).is_none()
    {
        return Err(ApiError::BadExtension);
    }
    let change = match ask.parameter("action") {
        Some(action) => match text(&action) {
            Some("set") => Change::Set(state(ask)?),
            Some("reset") => Change::Reset,
            _ => return Err(not_allowed("action", ACTIONS, action)),
        },
        None if matches!(place, Resource::Extension(_)) => Change::Reset,
        None => match ask.parameter("reset") {
            Some(Field::Bool(true)) => Change::Reset,
            Some(Field::Text(yes)) if yes == "true" => Change::Reset,
            _ => return Err(ApiError::ResetRequired),
        },
    };
    Ok(Command::Change { place, change })
}

fn state(ask: &RequestContext) -> Result<CallState, ApiError> {
    let Some(state) = ask.parameter("state") else {
        return Err(ApiError::Required { field: "state", allowed: STATES });
    };
    match text(&state) {
        Some("early") => Ok(CallState::Early),
        Some("confirmed") => Ok(CallState::Confirmed),
        Some("terminated") => Ok(CallState::Terminated),
        _ => Err(not_allowed("state", STATES, state)),
    }
}

fn text(field: &Field) -> Option<&str> {
    match field {
        Field::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn not_allowed(field: &'static str, allowed: &'static [&'static str], value: Field) -> ApiError {
    let value = match value {
        Field::Text(text) => text.chars().take(MAX_ECHO).collect::<String>().into(),
        Field::Bool(value) => value.into(),
        Field::Number(value) => value.into(),
        Field::Null => serde_json::Value::Null,
        Field::Other(kind) => format!("({kind})").into(),
    };
    ApiError::NotAllowed { field, allowed, value }
}

/// Resets or sets the extensions, and confirms in Kazoo's words.
pub(super) fn execute(
    state: &ApiState,
    account: AccountNo,
    place: Resource,
    change: Change,
    ask: &RequestContext,
) -> Result<Reply, ApiError> {
    let verb = match change {
        Change::Reset => "reset",
        Change::Set(_) => "set",
    };
    let (users, done) = match place {
        // Extensions match without regard to case; the response repeats what the client wrote.
        Resource::Extension(name) => (
            canonical_user(&name).map(String::from).into_iter().collect(),
            format!("{verb} command sent for extension {name}"),
        ),
        Resource::Member(users) => (users, format!("{verb} commands sent")),
        Resource::Everybody => (Vec::new(), String::new()),
    };
    if users.is_empty() {
        return Ok(Reply::Data(Data::Text(format!("nothing to {verb}"))));
    }
    // Log lines of this command carry the request's id.
    let _span = tracing::info_span!("request", id = ask.id).entered();
    match change {
        Change::Reset => state.control.reset(account, &users, &ask.id),
        Change::Set(to) => state.control.set(account, &users, to, &ask.id),
    }
    .map_err(ApiError::Refused)?;
    let account = state.directory.account_id(account);
    tracing::info!(account, ?users, "presence {verb} by the API");
    Ok(Reply::Data(Data::Text(done)))
}
