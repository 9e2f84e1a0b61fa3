//! Checks of `[[account]]` and `[[token]]`: ids are present, unique and refer to existing entries; weak secrets are
//! reported.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use toml::Spanned;

use super::error::{ConfigError, Source};
use super::validate::Unique;
use super::{Account, Device, DeviceSip, Grants, Publishes, Secret, Token, User, Webhook, raw, webhook};
use crate::presence::AccountNo;
use crate::presence::aor::{MAX_USER, canonical_user};

/// Longest id; Kazoo's have 32 characters.
const MAX_ID: usize = 64;
/// Longest token; JWTs of Kazoo 4.x reach a kilobyte.
const MAX_TOKEN: usize = 4_096;
/// Length from which a token gives no warning.
const SAFE_TOKEN: usize = 16;

pub(super) fn accounts(source: Source<'_>, raw: &[raw::Account]) -> Result<(Vec<Account>, Vec<Webhook>), ConfigError> {
    let mut ids = Unique::new();
    let mut realms = Unique::new();
    let (mut accounts, mut webhooks) = (Vec::with_capacity(raw.len()), Vec::new());
    for (i, account) in raw.iter().enumerate() {
        let path = format!("account[{i}]");
        let id = id(source, &account.id, &format!("{path}.id"))?;
        if !ids.first(&id) {
            return Err(source.fault(
                account.id.span(),
                format!("{path}.id"),
                format!("another account has the id \"{id}\""),
            ));
        }
        let realm = realm(source, &account.realm, &format!("{path}.realm"))?;
        if !realms.first(&realm) {
            let problem =
                format!("another account has the realm \"{realm}\"; realms are compared without regard to case");
            return Err(source.fault(account.realm.span(), format!("{path}.realm"), problem));
        }
        let (users, devices) = members(source, account, &path)?;
        webhooks.extend(webhook::all(source, &account.webhook, &path, AccountNo(i as u32))?);
        let name = account.name.clone().unwrap_or_else(|| realm.clone());
        let parent = account.parent.as_ref().map(|parent| parent.get_ref().clone());
        accounts.push(Account { id, name, realm, parent, users, devices });
    }
    parents(source, raw)?;
    Ok((accounts, webhooks))
}

/// Checks that every parent exists and that no account is its own ancestor.
fn parents(source: Source<'_>, raw: &[raw::Account]) -> Result<(), ConfigError> {
    let above: HashMap<&str, Option<&str>> =
        raw.iter().map(|a| (a.id.get_ref().as_str(), a.parent.as_ref().map(|p| p.get_ref().as_str()))).collect();
    let children = || raw.iter().enumerate().filter_map(|(i, account)| Some((i, account, account.parent.as_ref()?)));
    let fault = |i: usize, parent: &Spanned<String>, problem: String| {
        Err(source.fault(parent.span(), format!("account[{i}].parent"), problem))
    };
    for (i, _, parent) in children() {
        if !above.contains_key(parent.get_ref().as_str()) {
            return fault(i, parent, format!("no account has the id \"{}\"", parent.get_ref()));
        }
    }
    for (i, account, parent) in children() {
        let mut seen = HashSet::from([account.id.get_ref().as_str()]);
        let mut next = Some(parent.get_ref().as_str());
        while let Some(id) = next {
            if !seen.insert(id) {
                return fault(i, parent, "makes the account its own ancestor".to_owned());
            }
            next = above.get(id).copied().flatten();
        }
    }
    Ok(())
}

fn members(source: Source<'_>, account: &raw::Account, path: &str) -> Result<(Vec<User>, Vec<Device>), ConfigError> {
    // Users and devices share one set of ids, as the documents of a Kazoo account do.
    let mut ids = Unique::new();
    let mut user_ids = HashSet::new();
    let mut names = Unique::new();
    let mut users = Vec::with_capacity(account.user.len());
    for (i, user) in account.user.iter().enumerate() {
        let path = format!("{path}.user[{i}]");
        let id = id(source, &user.id, &format!("{path}.id"))?;
        if !ids.first(&id) {
            let problem = format!("another user or device of the account has the id \"{id}\"");
            return Err(source.fault(user.id.span(), format!("{path}.id"), problem));
        }
        user_ids.insert(id.clone());
        if let Some(name) = &user.username
            && !names.first(&name.get_ref().to_lowercase())
        {
            let problem = format!("another user of the account is called \"{}\"", name.get_ref());
            return Err(source.fault(name.span(), format!("{path}.username"), problem));
        }
        let username = user.username.as_ref().map(|name| name.get_ref().clone());
        let presence_id = presence_id(source, &user.presence_id, &path)?;
        users.push(User { id, username, presence_id });
    }
    let mut sip_names = Unique::new();
    let mut devices = Vec::with_capacity(account.device.len());
    for (i, device) in account.device.iter().enumerate() {
        let path = format!("{path}.device[{i}]");
        let id = id(source, &device.id, &format!("{path}.id"))?;
        if !ids.first(&id) {
            let problem = format!("another user or device of the account has the id \"{id}\"");
            return Err(source.fault(device.id.span(), format!("{path}.id"), problem));
        }
        if let Some(owner) = &device.owner_id
            && !user_ids.contains(owner.get_ref())
        {
            let problem = format!("the account has no user with the id \"{}\"", owner.get_ref());
            return Err(source.fault(owner.span(), format!("{path}.owner_id"), problem));
        }
        let sip = device.sip.as_ref().map(|sip| device_sip(source, sip, &path, &mut sip_names)).transpose()?;
        let owner_id = device.owner_id.as_ref().map(|owner| owner.get_ref().clone());
        let presence_id = presence_id(source, &device.presence_id, &path)?;
        devices.push(Device { id, owner_id, sip, presence_id });
    }
    Ok((users, devices))
}

fn device_sip(
    source: Source<'_>,
    sip: &raw::DeviceSip,
    path: &str,
    names: &mut Unique,
) -> Result<DeviceSip, ConfigError> {
    let key = format!("{path}.sip.username");
    let fault = |problem: String| source.fault(sip.username.span(), key.clone(), problem);
    let username = sip.username.get_ref();
    extension(username).map_err(fault)?;
    if !names.first(&username.to_lowercase()) {
        return Err(fault(format!("another device of the account has the SIP user name \"{username}\"")));
    }
    let publishes = match &sip.publishes {
        None => Publishes::Own,
        Some(written) => match written.get_ref().as_str() {
            "own" => Publishes::Own,
            "account" => Publishes::Account,
            other => {
                let problem = format!("\"{other}\" is not allowed here; allowed: \"own\", \"account\"");
                return Err(source.fault(written.span(), format!("{path}.sip.publishes"), problem));
            }
        },
    };
    let password = match &sip.password {
        Some(written) if is_blank(written.get_ref()) => {
            let problem = "is empty; allowed: a text with at least one visible character, or no password at all for a device that \
                           never has to prove itself";
            return Err(source.fault(written.span(), format!("{path}.sip.password"), problem));
        }
        written => written.as_ref().map(|written| written.get_ref().clone()),
    };
    Ok(DeviceSip { username: username.clone(), password, publishes })
}

/// Returns true if a secret has no visible character. Such a value is a leftover of a template and easy to guess.
pub(super) fn is_blank(secret: &Secret) -> bool {
    let invisible = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
    };
    secret.expose().chars().all(invisible)
}

fn presence_id(
    source: Source<'_>,
    written: &Option<Spanned<raw::PresenceId>>,
    path: &str,
) -> Result<Option<String>, ConfigError> {
    let Some(written) = written else { return Ok(None) };
    let text = &written.get_ref().0;
    extension(text).map_err(|problem| source.fault(written.span(), format!("{path}.presence_id"), problem))?;
    Ok(Some(text.clone()))
}

fn extension(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err(format!("\"{text}\" holds an \"@\"; name the extension alone, the realm is the account's"));
    }
    if canonical_user(text).is_none() || text.contains(char::is_whitespace) {
        return Err(format!(
            "is no extension; allowed: 1 to {MAX_USER} bytes in lower case, without spaces and control characters"
        ));
    }
    Ok(())
}

fn id(source: Source<'_>, written: &Spanned<String>, key: &str) -> Result<String, ConfigError> {
    let text = written.get_ref();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.is_empty() || text.len() > MAX_ID || !text.bytes().all(plain) {
        let problem = format!("\"{text}\" is no id; allowed: 1 to {MAX_ID} letters, digits, \"-\" and \"_\"");
        return Err(source.fault(written.span(), key, problem));
    }
    Ok(text.clone())
}

/// Checks a realm by Kazoo's rule. Returns it in lower case, as realms are compared without regard to case.
fn realm(source: Source<'_>, written: &Spanned<String>, key: &str) -> Result<String, ConfigError> {
    let text = written.get_ref();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !(4..=253).contains(&text.len()) || !text.bytes().all(plain) {
        let problem = format!("\"{text}\" is no realm; allowed: 4 to 253 letters, digits, \".\", \"_\" and \"-\"");
        return Err(source.fault(written.span(), key, problem));
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn tokens(
    source: Source<'_>,
    raw: &[Spanned<raw::Token>],
    accounts: &[Account],
    warnings: &mut Vec<ConfigError>,
) -> Result<Vec<Token>, ConfigError> {
    let known: HashSet<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let mut values: HashMap<&str, usize> = HashMap::new();
    let mut tokens = Vec::with_capacity(raw.len());
    for (i, token) in raw.iter().enumerate() {
        let path = format!("token[{i}]");
        let (token, span) = (token.get_ref(), token.span());
        let value = token.value.get_ref().expose();
        let key = format!("{path}.value");
        if value.is_empty() || value.len() > MAX_TOKEN || !value.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = format!("is no token; allowed: 1 to {MAX_TOKEN} visible ASCII characters without spaces");
            return Err(source.fault(token.value.span(), key, problem));
        }
        if value.len() < SAFE_TOKEN {
            let problem = format!(
                "has fewer than {SAFE_TOKEN} characters and may be guessed; \"openssl rand -hex 32\" prints a better one"
            );
            warnings.push(source.fault(token.value.span(), key.clone(), problem));
        }
        match values.entry(value) {
            Entry::Vacant(entry) => drop(entry.insert(i)),
            Entry::Occupied(first) => {
                let problem = format!(
                    "is the value of token[{}] as well, and what that one opens is all that it opens; each token needs a value of its own",
                    first.get()
                );
                warnings.push(source.fault(token.value.span(), key, problem));
            }
        }
        let grants = match (&token.account, token.superuser) {
            (Some(account), None | Some(false)) => {
                if !known.contains(account.get_ref().as_str()) {
                    let problem = format!("no account has the id \"{}\"", account.get_ref());
                    return Err(source.fault(account.span(), format!("{path}.account"), problem));
                }
                Grants::Account(account.get_ref().clone())
            }
            (None, Some(true)) => Grants::Superuser,
            (Some(_), Some(true)) => {
                return Err(source.fault(
                    span,
                    path,
                    "has both account and superuser = true; a token needs exactly one of them",
                ));
            }
            (None, None | Some(false)) => {
                return Err(source.fault(
                    span,
                    path,
                    "opens nothing; a token needs either account = \"ID\" or superuser = true",
                ));
            }
        };
        tokens.push(Token { value: token.value.get_ref().clone(), grants });
    }
    Ok(tokens)
}
