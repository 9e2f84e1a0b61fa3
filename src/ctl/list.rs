//! List commands: accounts, lamps and subscriptions, all of them or those that contain a text.

use serde_json::{Value, json};

use super::client::{Account, Client};
use super::{OperatorError, print, print_json, put};
use crate::cli::{AccountsArgs, LampsArgs, SearchArgs, SubscriptionsArgs};

/// `lamplighter accounts`: lists the accounts that the token may see.
pub fn accounts(args: &AccountsArgs) -> Result<(), OperatorError> {
    let all: Vec<_> = Client::new(&args.server)?.accounts()?.into_iter().map(|account| account.row).collect();
    match args.server.json {
        true => print_json(&Value::Array(all)),
        false => put(&print::accounts(&all)),
    }
}

/// `lamplighter lamps`: lists the lamps of an account and their states.
pub fn lamps(args: &LampsArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let account = client.account(args.realm.as_deref())?;
    let lamps = client.pages(&format!("{account}/lamps"), args.filter.as_deref().unwrap_or_default())?;
    match args.server.json {
        true => print_json(&Value::Array(lamps)),
        false => put(&print::lamps(&lamps, client.now())),
    }
}

/// `lamplighter subscriptions`: lists the subscriptions of an account.
pub fn subscriptions(args: &SubscriptionsArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let account = client.account(args.realm.as_deref())?;
    let found = client.pages(&format!("{account}/subscriptions"), args.filter.as_deref().unwrap_or_default())?;
    match args.server.json {
        true => print_json(&Value::Array(found)),
        false => put(&print::subscriptions(&found, client.now())),
    }
}

/// `lamplighter search`: lists lamps and subscriptions that contain a text, in every account that the token may see.
pub fn search(args: &SearchArgs) -> Result<(), OperatorError> {
    let client = Client::new(&args.server)?;
    let (mut lamps, mut subscriptions) = (Vec::new(), Vec::new());
    for account in client.accounts_in(args.realm.as_deref())? {
        lamps.extend(found(&client, &account, "lamps", &args.text)?);
        subscriptions.extend(found(&client, &account, "subscriptions", &args.text)?);
    }
    match args.server.json {
        true => print_json(&json!({ "lamps": lamps, "subscriptions": subscriptions })),
        false => put(&print::found(&lamps, &subscriptions, client.now())),
    }
}

/// Rows of one account; each gets the realm of the account.
fn found(client: &Client, account: &Account, list: &str, text: &str) -> Result<Vec<Value>, OperatorError> {
    let mut rows = client.pages(&format!("{}/{list}", account.path), text)?;
    rows.iter_mut().for_each(|row| row["realm"] = account.realm.as_str().into());
    Ok(rows)
}
