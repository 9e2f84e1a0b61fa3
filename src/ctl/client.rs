//! HTTP API client for the commands: one request per connection, limited in time and size.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::escaped;
use crate::cli::ServerArgs;
use crate::util::secret::Secret;

/// Timeout of connecting, reading and writing.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest response (octets); a page of lamps has less than a tenth of it.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Error of an operator command.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The URL is not of the form `http://HOST:PORT`.
    #[error("--server '{0}' is not http://HOST:PORT; an API behind TLS is best asked on its own machine")]
    Url(String),
    /// No token was given.
    #[error("a token of the API is needed: --token-file FILE, or LAMPLIGHTER_TOKEN in the environment")]
    NoToken,
    /// The token file cannot be read.
    #[error("--token-file: {0}")]
    TokenFile(io::Error),
    /// The server cannot be reached or does not respond.
    #[error("no answer from {0}: {1}")]
    Unreachable(String, io::Error),
    /// The response is not one of Lamplighter's API.
    #[error("{0} does not answer as Lamplighter does")]
    Strange(String),
    /// The server refused the request.
    #[error("the server refuses: {status} {why}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Reason given by the server.
        why: String,
    },
    /// The token may not see an account with this realm.
    #[error("this token opens no account with the realm '{0}'; it opens: {1}")]
    Realm(String, String),
    /// The token may see several accounts, and the command needs one.
    #[error("this token opens several accounts; name one of these realms: {0}")]
    Several(String),
    /// Some NOTIFYs were not answered in time.
    #[error("{0} NOTIFY(s) are still not answered; phones that do not answer are told again by the next server")]
    Unanswered(u64),
    /// The manual pages cannot be written.
    #[error("{0} cannot be written: {1}")]
    Pages(PathBuf, io::Error),
    /// Standard output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// An account that the token may see.
pub(super) struct Account {
    /// Path of the account below `/v2/`.
    pub(super) path: String,
    pub(super) realm: String,
    /// Its row in the API's list.
    pub(super) row: Value,
}

pub(super) struct Client {
    host: String,
    token: Secret,
}

impl Client {
    pub(super) fn new(args: &ServerArgs) -> Result<Client, OperatorError> {
        let wrong = || OperatorError::Url(args.server.clone());
        let host = args.server.trim_end_matches('/').strip_prefix("http://").ok_or_else(wrong)?;
        if host.is_empty() || host.contains(['/', '@']) || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let token = match &args.token_file {
            Some(file) => std::fs::read_to_string(file).map_err(OperatorError::TokenFile)?.trim().to_owned(),
            None => std::env::var("LAMPLIGHTER_TOKEN").unwrap_or_default(),
        };
        if token.is_empty() || token.contains(char::is_control) {
            return Err(OperatorError::NoToken);
        }
        Ok(Client { host: host.into(), token: Secret::new(&token) })
    }

    /// Current time in Unix milliseconds, for printing ages.
    pub(super) fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    /// Path of the account with this realm; without a realm, of the only account that the token may see.
    pub(super) fn account(&self, realm: Option<&str>) -> Result<String, OperatorError> {
        Ok(self.accounts_of(realm)?.swap_remove(0).path)
    }

    /// The account with this realm. Without a realm, the only account that the token may see; an error if there are
    /// several.
    fn accounts_of(&self, realm: Option<&str>) -> Result<Vec<Account>, OperatorError> {
        let all = self.accounts()?;
        let realms = || all.iter().map(|account| account.realm.as_str()).collect::<Vec<_>>().join(", ");
        match realm {
            None if all.len() == 1 => Ok(all),
            None => Err(OperatorError::Several(realms())),
            Some(realm) => match all.iter().position(|account| account.realm.eq_ignore_ascii_case(realm)) {
                Some(at) => Ok(all.into_iter().skip(at).take(1).collect()),
                None => Err(OperatorError::Realm(realm.into(), realms())),
            },
        }
    }

    /// All accounts that the token may see, or the one with this realm.
    pub(super) fn accounts_in(&self, realm: Option<&str>) -> Result<Vec<Account>, OperatorError> {
        if realm.is_some() { self.accounts_of(realm) } else { self.accounts() }
    }

    /// All accounts that the token may see.
    pub(super) fn accounts(&self) -> Result<Vec<Account>, OperatorError> {
        let data = self.get("accounts")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let account = |one: &Value| Account {
            path: format!("accounts/{}", escaped(&text(&one["id"]))),
            realm: text(&one["realm"]),
            row: one.clone(),
        };
        Ok(data.as_array().into_iter().flatten().map(account).collect())
    }

    /// Fetches all rows of a paged list.
    pub(super) fn pages(&self, path: &str, filter: &str) -> Result<Vec<Value>, OperatorError> {
        let mut rows = Vec::new();
        let mut start = String::new();
        loop {
            let query = format!("page_size=1000&filter={}&start_key={}", escaped(filter), escaped(&start));
            let mut page = self.ask("GET", &format!("{path}?{query}"), None)?;
            if let Value::Array(more) = page["data"].take() {
                rows.extend(more);
            }
            match page["next_start_key"].as_str() {
                Some(next) => start = next.to_owned(),
                None => return Ok(rows),
            }
        }
    }

    /// `data` of the response for a path below `/v2/`.
    pub(super) fn get(&self, path: &str) -> Result<Value, OperatorError> {
        Ok(self.ask("GET", path, None)?["data"].take())
    }

    /// Sends a request and returns the whole envelope of the response.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, OperatorError> {
        let answer =
            self.exchange(method, path, body).map_err(|error| OperatorError::Unreachable(self.host.clone(), error))?;
        let strange = || OperatorError::Strange(self.host.clone());
        let (head, rest) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
        let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(strange)?;
        let envelope: Value = serde_json::from_str(rest).map_err(|_| strange())?;
        if (200..300).contains(&status) {
            return Ok(envelope);
        }
        let data = &envelope["data"];
        let words = [&data["cause"], &data["message"], &envelope["message"]];
        let why = words.iter().find_map(|word| word.as_str()).unwrap_or_default().to_owned();
        Err(OperatorError::Refused { status, why })
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<String> {
        let host = &self.host;
        let address = if host.ends_with(']') || !host.contains(':') { format!("{host}:80") } else { host.clone() };
        let address = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the response is not chunked and ends with the connection.
        let head = format!(
            "{method} /v2/{path} HTTP/1.0\r\nHost: {host}\r\nX-Auth-Token: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token.expose(),
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    }
}
