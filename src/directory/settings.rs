//! Settings of the directory: accounts with their users and devices, and tokens.

use crate::util::secret::Secret;

/// A bearer token of the API.
#[derive(Clone, Debug)]
pub struct Token {
    /// Text that the client sends.
    pub value: Secret,
    /// Access that it gives.
    pub grants: Grants,
}

/// Access that a token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grants {
    /// The account with this id and its descendants.
    Account(String),
    /// All accounts and the whole server.
    Superuser,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Account {
    /// Id in the paths of the API.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Realm in lower case.
    pub realm: String,
    /// Id of the parent account, which may manage this one.
    pub parent: Option<String>,
    /// Its users.
    pub users: Vec<User>,
    /// Its devices.
    pub devices: Vec<Device>,
}

/// A person of an account.
#[derive(Clone, Debug)]
pub struct User {
    /// Id in the paths of the API.
    pub id: String,
    /// Login name; informational only.
    pub username: Option<String>,
    /// Extension whose lamp shows this user.
    pub presence_id: Option<String>,
}

/// A phone of an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// Id in the paths of the API.
    pub id: String,
    /// Id of the user who owns the device.
    pub owner_id: Option<String>,
    /// SIP identity and credentials.
    pub sip: Option<DeviceSip>,
    /// Extension whose lamp shows this device, if it is not the SIP user name.
    pub presence_id: Option<String>,
}

/// SIP identity and credentials of a device.
#[derive(Clone, Debug)]
pub struct DeviceSip {
    /// SIP user name.
    pub username: String,
    /// Password for digest authentication; without one the device cannot authenticate.
    pub password: Option<Secret>,
    /// Extensions that it may publish for.
    pub publishes: Publishes,
}

/// Extensions that a device may publish for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publishes {
    /// Its own extensions and those of its owner.
    #[default]
    Own,
    /// All extensions of its account, as a PBX needs.
    Account,
}
