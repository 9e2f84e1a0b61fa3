//! `lamplighter refusals`: lists requests that were refused recently, with the reasons.

use serde_json::Value;

use super::client::Client;
use super::{OperatorError, print, print_json, put};
use crate::cli::RefusalsArgs;

/// HTTP status of the response to a token that is not a superuser's.
const FORBIDDEN: u16 = 403;

/// Lists the refusals of the account with this realm; without a realm, all that the token may see.
pub fn refusals(args: &RefusalsArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let mut rows = Vec::new();
    for account in client.accounts_in(args.realm.as_deref())? {
        rows.extend(of(&client, &format!("{}/refusals", account.path), account.realm.into())?);
    }
    if args.realm.is_none() {
        match of(&client, "refusals", Value::Null) {
            // The token belongs to an account, so it may not see refusals without an account.
            Err(OperatorError::Refused { status: FORBIDDEN, .. }) => {}
            others => rows.extend(others?),
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row["last_at"].as_u64()));
    match args.server.json {
        true => print_json(&Value::Array(rows)),
        false => put(&print::refusals(&rows, client.now())),
    }
}

/// A list of refusals; each row gets the realm of its account.
fn of(client: &Client, path: &str, realm: Value) -> Result<Vec<Value>, OperatorError> {
    let mut rows = client.pages(path, "")?;
    rows.iter_mut().for_each(|row| row["realm"] = realm.clone());
    Ok(rows)
}
