//! Accounts, users, devices and tokens of a small family of accounts.

use super::*;
use crate::config::Config;

const FAMILY: &str = r#"
[[token]]
value = "top-token"
account = "top"
[[token]]
value = "mid-token"
account = "mid"
[[token]]
value = "other-token"
account = "other"
[[token]]
value = "root-token"
superuser = true
[[account]]
id = "leaf"
realm = "leaf.test"
parent = "mid"
[[account]]
id = "mid"
realm = "Mid.Test"
parent = "top"
[[account]]
id = "top"
realm = "top.test"
  [[account.user]]
  id = "with-own"
  presence_id = "2000"
  [[account.user]]
  id = "with-devices"
  [[account.user]]
  id = "with-nothing"
  [[account.device]]
  id = "d1"
  owner_id = "with-own"
  sip = { username = "1001", password = "hush" }
  presence_id = "Front-Door"
  [[account.device]]
  id = "d2"
  owner_id = "with-devices"
  sip = { username = "1002" }
  [[account.device]]
  id = "d3"
  owner_id = "with-devices"
  presence_id = 1003
  [[account.device]]
  id = "d4"
  owner_id = "with-devices"
  sip = { username = "x" }
  presence_id = "1002"
  [[account.device]]
  id = "d5"
  owner_id = "with-nothing"
[[account]]
id = "other"
realm = "other.test"
"#;

fn family() -> Directory {
    Config::parse(FAMILY, "family.toml").unwrap().directory()
}

#[test]
fn realms_are_found_in_any_case_and_ids_as_they_are() {
    let directory = family();
    let mid = directory.account_by_realm("mid.test").unwrap();
    assert_eq!(directory.account_by_realm("MID.tesT"), Some(mid));
    assert_eq!(directory.account_by_id("mid"), Some(mid));
    assert_eq!((directory.realm(mid), directory.account_id(mid)), ("mid.test", "mid"));
    assert_eq!(directory.account_by_realm("mid"), None);
    assert_eq!(directory.account_by_id("MID"), None);
    assert_eq!(directory.realm(AccountNo(77)), "");
    assert_eq!(directory.accounts().len(), 4);
}

#[test]
fn tokens_are_recognised_whole() {
    let directory = family();
    assert_eq!(directory.bearer("root-token"), Some(TokenScope::Superuser));
    assert_eq!(directory.bearer("mid-token"), Some(TokenScope::Account(directory.account_by_id("mid").unwrap())));
    for stranger in ["", "mid-toke", "mid-tokenx", "MID-TOKEN", " mid-token"] {
        assert_eq!(directory.bearer(stranger), None, "{stranger}");
    }
}

#[test]
fn a_bearer_sees_his_account_and_those_below_it() {
    let directory = family();
    let sees = |token: &str| -> Vec<&str> {
        let bearer = directory.bearer(token).unwrap();
        let mut seen: Vec<&str> =
            directory.accounts().filter(|a| directory.may_see(&bearer, *a)).map(|a| directory.account_id(a)).collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(sees("top-token"), ["leaf", "mid", "top"]);
    assert_eq!(sees("mid-token"), ["leaf", "mid"]);
    assert_eq!(sees("other-token"), ["other"]);
    assert_eq!(sees("root-token"), ["leaf", "mid", "other", "top"]);
    let stranger = directory.bearer("other-token").unwrap();
    assert!(!directory.may_see(&stranger, AccountNo(77)));
}

#[test]
fn a_device_is_its_presence_id_or_else_its_sip_name() {
    let directory = family();
    let top = directory.account_by_id("top").unwrap();
    let addresses = |id: &str| directory.device(top, id).unwrap().addresses.clone();
    assert_eq!(addresses("d1"), ["front-door"]);
    assert_eq!(addresses("d2"), ["1002"]);
    assert_eq!(addresses("d3"), ["1003"]);
    assert!(addresses("d5").is_empty());
    assert!(directory.device(top, "with-own").is_none(), "a user is no device");
    assert!(directory.device(directory.account_by_id("mid").unwrap(), "d1").is_none(), "not his account's");
}

#[test]
fn a_user_is_his_presence_id_or_else_all_his_devices() {
    let directory = family();
    let top = directory.account_by_id("top").unwrap();
    let addresses = |id: &str| directory.user(top, id).unwrap().addresses.clone();
    assert_eq!(addresses("with-own"), ["2000"]);
    assert_eq!(addresses("with-devices"), ["1002", "1003"], "each extension once");
    assert!(addresses("with-nothing").is_empty());
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", family());
    assert!(shown.contains("4 tokens") && shown.contains("mid.test"), "{shown}");
    for secret in ["mid-token", "root-token", "hush"] {
        assert!(!shown.contains(secret));
    }
}
