//! Kazoo's presence commands: list, reset and set.

use crate::directory::{AccountNo, Directory, Member};
use crate::package;
use crate::presence::canonical_user;
use crate::presence::state::CallState;

use super::ApiState;
use super::envelope::{Data, Reply};
use super::error::Fault;
use super::fields::Field;
use super::listing::{Only, What};
use super::request::Ask;
use super::route::{Scope, Target};

const ACTIONS: &[&str] = &["set", "reset"];
const STATES: &[&str] = &["early", "confirmed", "terminated"];
/// Longest part of an invalid value that is repeated in the error (characters).
const MAX_ECHO: usize = 128;

/// Existing resource that a request names.
pub(super) enum Place {
    /// The whole account.
    Everybody,
    /// An extension as the client wrote it.
    Extension(String),
    /// The extensions of a device or a user.
    Member(Vec<String>),
}

/// Validated command.
pub(super) enum Command {
    List(What),
    Change { place: Place, change: Change },
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    Reset,
    Set(CallState),
}

/// Finds the resource that the path names: 404 if it does not exist.
pub(super) fn resolve(directory: &Directory, account: AccountNo, target: &Target, ask: &Ask) -> Result<Place, Fault> {
    let Target::Presence { of, .. } = target else { return Err(Fault::NotFound) };
    let member = |found: Option<&Member>, id: &str| {
        found.map(|m| Place::Member(m.addresses.clone())).ok_or_else(|| Fault::BadIdentifier(id.to_owned()))
    };
    match of {
        // For a listing, Kazoo ignores the device or user in the path.
        _ if ask.verb.reads() => Ok(Place::Everybody),
        Scope::Account => Err(Fault::FaultyRequest),
        Scope::Device(id) => member(directory.device(account, id), id),
        Scope::User(id) => member(directory.user(account, id), id),
        Scope::Extension(name) => Ok(Place::Extension(name.clone())),
    }
}

/// Validates the parameters: 400 names the field that is wrong.
pub(super) fn validate(place: Place, ask: &Ask) -> Result<Command, Fault> {
    if matches!(place, Place::Everybody) {
        let only = match ask.query("event") {
            None => Only::All,
            Some(name) => package::by_name(name).map_or(Only::Nothing, Only::Package),
        };
        return Ok(Command::List(What { only, with_publications: ask.query("include_presentity") == Some("true") }));
    }
    if let Place::Extension(name) = &place
        && canonical_user(name).is_none()
    {
        return Err(Fault::BadExtension);
    }
    let change = match ask.parameter("action") {
        Some(action) => match text(&action) {
            Some("set") => Change::Set(state(ask)?),
            Some("reset") => Change::Reset,
            _ => return Err(not_allowed("action", ACTIONS, action)),
        },
        None if matches!(place, Place::Extension(_)) => Change::Reset,
        None => match ask.parameter("reset") {
            Some(Field::Bool(true)) => Change::Reset,
            Some(Field::Text(yes)) if yes == "true" => Change::Reset,
            _ => return Err(Fault::ResetRequired),
        },
    };
    Ok(Command::Change { place, change })
}

fn state(ask: &Ask) -> Result<CallState, Fault> {
    let Some(state) = ask.parameter("state") else { return Err(Fault::Required { field: "state", allowed: STATES }) };
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

pub(super) fn not_allowed(field: &'static str, allowed: &'static [&'static str], value: Field) -> Fault {
    let value = match value {
        Field::Text(text) => text.chars().take(MAX_ECHO).collect::<String>().into(),
        Field::Bool(value) => value.into(),
        Field::Number(value) => value.into(),
        Field::Null => serde_json::Value::Null,
        Field::Other(kind) => format!("({kind})").into(),
    };
    Fault::NotAllowed { field, allowed, value }
}

/// Resets or sets the extensions, and confirms in Kazoo's words.
pub(super) fn execute(
    state: &ApiState,
    account: AccountNo,
    place: Place,
    change: Change,
    ask: &Ask,
) -> Result<Reply, Fault> {
    let verb = match change {
        Change::Reset => "reset",
        Change::Set(_) => "set",
    };
    let (users, done) = match place {
        // Extensions match without regard to case; the response repeats what the client wrote.
        Place::Extension(name) => (
            canonical_user(&name).map(String::from).into_iter().collect(),
            format!("{verb} command sent for extension {name}"),
        ),
        Place::Member(users) => (users, format!("{verb} commands sent")),
        Place::Everybody => (Vec::new(), String::new()),
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
    .map_err(Fault::Refused)?;
    let account = state.directory.account_id(account);
    tracing::info!(account, ?users, "presence {verb} by the API");
    Ok(Reply::Data(Data::Text(done)))
}
