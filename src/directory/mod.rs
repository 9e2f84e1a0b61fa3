//! Directory of accounts, users, devices and tokens, and their permissions.
//!
//! Input is the validated configuration. The directory answers which account has a realm, what a token grants, and
//! whether a token may see an account. It knows nothing of SIP messages, HTTP or presence state. It is built once and
//! never changed, so it is shared without locks. Tokens and passwords never leave this module, nor do they appear in
//! its `Debug` output.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::sip::digest::Verifier;

pub mod settings;
mod tokens;

use settings::Publishes;
use tokens::Tokens;

pub use crate::presence::AccountNo;

/// Scope of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// One account: sees itself and its descendants.
    Account(AccountNo),
    /// The operator: sees everything.
    Superuser,
}

/// Lamp addresses of a user or a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Extensions that a reset of it affects, in lower case, each once; none if it has no address.
    pub addresses: Vec<String>,
}

/// A device that authenticates over SIP.
#[derive(Debug)]
pub struct Principal {
    /// Verifier of its password; none for a device without one.
    pub verifier: Option<Verifier>,
    /// Own extensions: its SIP user name, its presence id and its owner's; in lower case.
    own: Vec<Box<str>>,
    publishes: Publishes,
}

impl Principal {
    /// Returns true if this extension is its own. Case does not matter.
    pub fn is(&self, extension: &str) -> bool {
        self.own.iter().any(|own| own.eq_ignore_ascii_case(extension))
    }

    /// Returns true if it may publish for this extension of its account.
    pub fn may_publish_for(&self, extension: &str) -> bool {
        self.publishes == Publishes::Account || self.is(extension)
    }
}

/// All accounts, with their users, devices and tokens.
#[derive(Debug)]
pub struct Directory {
    accounts: Vec<Account>,
    by_realm: HashMap<Box<str>, AccountNo>,
    by_id: HashMap<Box<str>, AccountNo>,
    tokens: Tokens,
}

#[derive(Debug)]
struct Account {
    id: Box<str>,
    name: Box<str>,
    realm: Box<str>,
    parent: Option<AccountNo>,
    users: HashMap<Box<str>, Member>,
    devices: HashMap<Box<str>, Member>,
    principals: HashMap<Box<str>, Principal>,
    /// Extensions of all devices and users, each with the name of its user.
    extensions: BTreeMap<Box<str>, Option<Box<str>>>,
}

impl Directory {
    /// Builds the directory of a validated configuration.
    pub fn new(accounts: &[settings::Account], tokens: &[settings::Token]) -> Self {
        let numbered = || accounts.iter().zip(0..).map(|(account, i)| (account, AccountNo(i)));
        let by_id: HashMap<Box<str>, AccountNo> =
            numbered().map(|(account, no)| (account.id.as_str().into(), no)).collect();
        let by_realm = numbered().map(|(account, no)| (account.realm.to_ascii_lowercase().into(), no)).collect();
        let accounts = accounts.iter().map(|account| Account::new(account, &by_id)).collect();
        let tokens = Tokens::new(tokens.iter().filter_map(|token| {
            let bearer = match &token.grants {
                settings::Grants::Superuser => TokenScope::Superuser,
                settings::Grants::Account(id) => TokenScope::Account(*by_id.get(id.as_str())?),
            };
            Some((token.value.clone(), bearer))
        }));
        Self { accounts, by_realm, by_id, tokens }
    }

    /// All accounts.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = AccountNo> + use<> {
        (0..self.accounts.len() as u32).map(AccountNo)
    }

    /// Account with this realm. Case does not matter.
    pub fn account_by_realm(&self, realm: &str) -> Option<AccountNo> {
        // Nearly every realm in a message is in lower case already, and this runs for every request.
        let key: Cow<'_, str> = if realm.bytes().any(|b| b.is_ascii_uppercase()) {
            realm.to_ascii_lowercase().into()
        } else {
            realm.into()
        };
        self.by_realm.get(&*key).copied()
    }

    /// Account with this id, compared byte by byte.
    pub fn account_by_id(&self, id: &str) -> Option<AccountNo> {
        self.by_id.get(id).copied()
    }

    /// Realm of an account, in lower case; empty for an account that is not in this directory.
    pub fn realm(&self, account: AccountNo) -> &str {
        self.account(account).map_or("", |account| &account.realm)
    }

    /// Id of an account; empty for an account that is not in this directory.
    pub fn account_id(&self, account: AccountNo) -> &str {
        self.account(account).map_or("", |account| &account.id)
    }

    /// Scope of a token; none for an unknown token. The time that this takes reveals nothing about the valid tokens.
    pub fn bearer(&self, token: &str) -> Option<TokenScope> {
        self.tokens.bearer(token)
    }

    /// Accounts that `bearer` may see and manage: id, name and realm of each, in the order of the configuration.
    pub fn visible_to(&self, bearer: TokenScope) -> impl Iterator<Item = (&str, &str, &str)> {
        let seen = move |no: &AccountNo| self.may_see(&bearer, *no);
        self.accounts().filter(seen).filter_map(|no| self.account(no)).map(|a| (&*a.id, &*a.name, &*a.realm))
    }

    /// Returns true if `bearer` may see and manage `account`: its own account, a descendant of it, or any for the
    /// superuser.
    pub fn may_see(&self, bearer: &TokenScope, account: AccountNo) -> bool {
        match bearer {
            TokenScope::Superuser => true,
            TokenScope::Account(own) => {
                std::iter::successors(Some(account), |at| self.account(*at)?.parent).any(|at| at == *own)
            }
        }
    }

    /// Extensions of an account in the configuration, from one on, ordered.
    pub fn extensions_from(&self, account: AccountNo, from: &str) -> impl Iterator<Item = &str> {
        let from = (Bound::Included(from), Bound::Unbounded);
        self.account(account)
            .into_iter()
            .flat_map(move |account| account.extensions.range::<str, _>(from))
            .map(|(e, _)| &**e)
    }

    /// Returns true if this extension, in lower case, is in the configuration.
    pub fn has_extension(&self, account: AccountNo, extension: &str) -> bool {
        self.account(account).is_some_and(|account| account.extensions.contains_key(extension))
    }

    /// Name of the user of this extension. The extension is in lower case.
    pub fn name_of(&self, account: AccountNo, extension: &str) -> Option<&str> {
        self.account(account)?.extensions.get(extension)?.as_deref()
    }

    /// Device of an account with this id.
    pub fn device(&self, account: AccountNo, id: &str) -> Option<&Member> {
        self.account(account)?.devices.get(id)
    }

    /// User of an account with this id.
    pub fn user(&self, account: AccountNo, id: &str) -> Option<&Member> {
        self.account(account)?.users.get(id)
    }

    /// Device of an account with this SIP user name. Case matters.
    pub fn principal(&self, account: AccountNo, username: &str) -> Option<&Principal> {
        self.account(account)?.principals.get(username)
    }

    fn account(&self, account: AccountNo) -> Option<&Account> {
        self.accounts.get(account.0 as usize)
    }
}

impl Account {
    fn new(account: &settings::Account, by_id: &HashMap<Box<str>, AccountNo>) -> Self {
        let device = |device: &settings::Device| {
            (device.id.as_str().into(), Member { addresses: own(device).into_iter().collect() })
        };
        let user = |user: &settings::User| {
            let mut addresses = Vec::new();
            match &user.presence_id {
                // Only the user's own presence id counts, whatever presence ids the user's devices have.
                Some(id) => addresses.push(id.to_ascii_lowercase()),
                None => {
                    let owned = account.devices.iter().filter(|device| device.owner_id.as_ref() == Some(&user.id));
                    for address in owned.filter_map(own) {
                        // Two devices may share an extension, but a reset must notify each watcher once.
                        if !addresses.contains(&address) {
                            addresses.push(address);
                        }
                    }
                }
            }
            (user.id.as_str().into(), Member { addresses })
        };
        let realm: Box<str> = account.realm.to_ascii_lowercase().into();
        let principals = account.devices.iter().filter_map(|device| principal(account, device, &realm)).collect();
        Self {
            id: account.id.as_str().into(),
            name: account.name.as_str().into(),
            realm,
            parent: account.parent.as_ref().and_then(|parent| by_id.get(parent.as_str()).copied()),
            users: account.users.iter().map(user).collect(),
            devices: account.devices.iter().map(device).collect(),
            principals,
            extensions: extensions(account),
        }
    }
}

/// Device with its SIP user name; none if it has no SIP settings.
fn principal(account: &settings::Account, device: &settings::Device, realm: &str) -> Option<(Box<str>, Principal)> {
    let sip = device.sip.as_ref()?;
    let owner = account.users.iter().find(|user| Some(&user.id) == device.owner_id.as_ref());
    let owners = owner.and_then(|user| user.presence_id.as_ref());
    let own = [Some(&sip.username), device.presence_id.as_ref(), owners].into_iter().flatten();
    let own = own.map(|extension| extension.to_ascii_lowercase().into()).collect();
    let verifier = sip.password.as_ref().map(|password| Verifier::new(&sip.username, realm, password.expose()));
    Some((sip.username.as_str().into(), Principal { verifier, own, publishes: sip.publishes }))
}

/// Extensions of all devices and users, each with the name of its user, if there is one.
fn extensions(account: &settings::Account) -> BTreeMap<Box<str>, Option<Box<str>>> {
    let name = |user: &settings::User| user.username.as_deref().map(Box::from);
    let of_devices = account.devices.iter().filter_map(|device| {
        let owner = account.users.iter().find(|user| Some(&user.id) == device.owner_id.as_ref());
        Some((own(device)?.into(), owner.and_then(name)))
    });
    let of_users = account.users.iter().filter_map(|user| {
        let extension = user.presence_id.as_ref()?.to_ascii_lowercase();
        Some((extension.into(), name(user)))
    });
    of_devices.chain(of_users).collect()
}

/// Extension of a device: its presence id, else its SIP user name.
fn own(device: &settings::Device) -> Option<String> {
    let sip = device.sip.as_ref().map(|sip| &sip.username);
    device.presence_id.as_ref().or(sip).map(|address| address.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
