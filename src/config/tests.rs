//! Configurations that are accepted or refused, and the error texts.

use super::*;
use crate::package::PackageId;

mod secrets;

/// Same content as the example file for users, without its comments.
const CONTRACT: &str = r#"
[sip]
listen = ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]
[http]
listen = "127.0.0.1:8000"
[presence]
min_expires = 60
max_expires = 3600
packages = ["dialog", "presence", "message-summary"]
[data]
dir = "lamplighter-data"
durability = "strict"
[access]
authenticate = "off"
trusted_proxies = ["127.0.0.0/8"]
allow_unauthenticated = false
[api]
profile = "3.22"
strict_compat = false
[[token]]
value = "acme-token"
account = "4642"
[[token]]
value = "root-token"
superuser = true
[[account]]
id = "4642"
name = "Acme"
realm = "acme.test"
  [[account.user]]
  id = "a001"
  username = "alice"
  presence_id = "2000"
  [[account.device]]
  id = "d001"
  owner_id = "a001"
  sip = { username = "1001", password = "s3cret-1001" }
  presence_id = 1001
[[account]]
id = "5a5a"
name = "Umbrella"
realm = "umbrella.test"
parent = "4642"
"#;

fn refused(text: &str) -> ConfigError {
    Config::parse(text, "l.toml").expect_err(text)
}

/// Replaces a line of the example.
fn contract_with(line: &str, instead: &str) -> String {
    assert!(CONTRACT.contains(line), "{line}");
    CONTRACT.replacen(line, instead, 1)
}

#[test]
fn the_contract_is_read_into_what_it_says() {
    let config = Config::parse(CONTRACT, "l.toml").unwrap();
    let addresses: Vec<String> = config.sip.listen.iter().map(Listen::to_string).collect();
    assert_eq!(addresses, ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]);
    assert_eq!(config.http.listen, "127.0.0.1:8000".parse().unwrap());
    assert_eq!((config.presence.min_expires, config.presence.max_expires), (60, 3600));
    assert_eq!(config.presence.packages, [PackageId(0), PackageId(1), PackageId(2)]);
    assert_eq!(config.data.dir, Path::new("lamplighter-data"));
    assert_eq!(config.data.durability, Durability::Strict);
    assert_eq!(config.access.trusted_proxies, ["127.0.0.0/8".parse().unwrap()]);
    assert!(!config.api.strict_compat);
    assert_eq!(config.tokens[0].grants, Grants::Account("4642".into()));
    assert_eq!(config.tokens[1].grants, Grants::Superuser);
    let acme = &config.accounts[0];
    assert_eq!((acme.id.as_str(), acme.name.as_str(), acme.realm.as_str()), ("4642", "Acme", "acme.test"));
    assert_eq!(acme.users[0].presence_id.as_deref(), Some("2000"));
    assert_eq!(acme.devices[0].presence_id.as_deref(), Some("1001"), "a number will do");
    let sip = acme.devices[0].sip.as_ref().unwrap();
    assert_eq!((sip.username.as_str(), sip.password.as_ref().unwrap().expose()), ("1001", "s3cret-1001"));
    assert_eq!(config.accounts[1].parent.as_deref(), Some("4642"));
}

#[test]
fn the_configuration_of_the_contract_is_accepted_as_it_is_written() {
    let text = include_str!("tests/contract.toml");
    let config = Config::parse(text, "lamplighter.toml").unwrap();
    assert_eq!(config.access.trusted_proxies, ["127.0.0.0/8".parse().unwrap()]);
    assert_eq!((config.accounts.len(), config.tokens.len(), config.warnings.len()), (2, 2, 0));
    assert_eq!(config.accounts[0].realm, "acme.test");
    assert_eq!((config.accounts[0].users.len(), config.accounts[0].devices.len()), (2, 3));
}

#[test]
fn nothing_at_all_serves() {
    let config = Config::parse("", "l.toml").unwrap();
    assert_eq!(config.sip.listen.len(), 2);
    assert!(config.sip.listen.iter().all(|l| l.address.ip().is_loopback() && l.address.port() == 5060));
    assert_eq!(config.presence.packages.len(), 3);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.history.exchanges, 65_536);
    assert_eq!(config.limits.subscriptions, 1_000_000);
    assert_eq!(config.log.level, "info");
}

#[test]
fn the_demo_has_an_account_its_phones_and_the_token() {
    let token = "with \"quotes\"\n[table]";
    let config = Config::demo(token);
    assert_eq!(config.accounts.len(), 1);
    assert_eq!(config.accounts[0].realm, "demo.lamplighter.test");
    let phones: Vec<&str> =
        config.accounts[0].devices.iter().map(|d| d.sip.as_ref().unwrap().username.as_str()).collect();
    assert_eq!(phones, ["1001", "1002", "1003"]);
    assert_eq!(config.tokens[0].value.expose(), token);
    assert_eq!(config.tokens[0].grants, Grants::Account(config.accounts[0].id.clone()));
    assert_eq!(config.data.durability, Durability::Memory);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_is_allowed() {
    let error = refused("[sip]\n\n  lisen = []\n");
    assert_eq!((error.place, error.key.as_str()), (Some((3, 3)), "sip.lisen"));
    assert!(error.problem.contains("listen") && error.problem.contains("advertise"), "{error}");
    assert!(error.to_string().starts_with("l.toml:3:3: sip.lisen: unknown field"), "{error}");
    assert_eq!(refused("[spi]\n").key, "spi");
    assert_eq!(refused("colour = 1\n").key, "colour");
    let deep = refused("[[account]]\nid='a'\nrealm='acme.test'\n[[account.device]]\nid='d'\nsip = { user = 'x' }\n");
    assert_eq!((deep.place, deep.key.as_str()), (Some((6, 9)), "account[0].device[0].sip.user"));
    let second = refused("[[token]]\nvalue='a'\nsuperuser=true\n[[token]]\nvalu='b'\n");
    assert_eq!((second.place.unwrap().0, second.key.as_str()), (5, "token[1].valu"));
}

#[test]
fn wrong_types_missing_keys_and_broken_toml_are_placed() {
    let error = refused("[presence]\nmin_expires = \"60\"\n");
    assert_eq!((error.place, error.key.as_str()), (Some((2, 15)), "presence.min_expires"));
    let error = refused("[[account]]\nid = \"a\"\n");
    assert!(error.problem.contains("realm"), "{error}");
    assert_eq!(error.key, "account[0]");
    let error = refused("[sip\n");
    assert_eq!(error.place.unwrap().0, 1);
    assert_eq!(refused("[http]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n").place.unwrap().0, 3);
}

#[test]
fn listen_addresses() {
    let config = Config::parse("sip.listen = ['udp://[::1]:5070', 'tcp://127.0.0.9:0']", "l.toml").unwrap();
    assert_eq!(config.sip.listen[0].to_string(), "udp://[::1]:5070");
    assert_eq!(config.sip.listen[1].transport, ListenTransport::Tcp);
    for (address, said) in [
        ("sctp://127.0.0.1:5060", "no transport"),
        ("127.0.0.1:5060", "no transport before"),
        ("udp://localhost:5060", "not an IP address and a port"),
        ("udp://127.0.0.1", "not an IP address and a port"),
    ] {
        let error = refused(&format!("[sip]\nlisten = [\"{address}\"]\n"));
        assert!(error.problem.contains(said), "{error}");
        assert!(error.problem.contains("udp://ADDRESS:PORT"), "{error}");
        assert_eq!((error.key.as_str(), error.place), ("sip.listen[0]", Some((2, 11))));
    }
    assert!(refused("[sip]\nlisten = []").problem.contains("no address"));
    let twice = refused("sip.listen = ['udp://127.0.0.1:1', 'tcp://127.0.0.1:1', 'udp://127.0.0.1:1']");
    assert_eq!((twice.key.as_str(), twice.problem.contains("twice")), ("sip.listen[2]", true));
}

#[test]
fn a_wildcard_needs_a_name_to_advertise() {
    for wildcard in ["0.0.0.0", "[::]"] {
        let text = format!("access.allow_unauthenticated = true\n[sip]\nlisten = [\"udp://{wildcard}:5060\"]\n");
        assert!(refused(&text).problem.contains("sip.advertise"));
        let named = format!("{text}advertise = \"sip.example.com\"");
        assert_eq!(Config::parse(&named, "l").unwrap().sip.advertise.as_deref(), Some("sip.example.com"));
    }
    let written =
        |host: &str| Config::parse(&format!("sip.advertise = '{host}'"), "l").map(|c| c.sip.advertise.unwrap());
    assert_eq!(written("2001:db8::1").unwrap(), "[2001:db8::1]");
    assert_eq!(written("[2001:DB8::1]").unwrap(), "[2001:db8::1]");
    assert_eq!(written("192.0.2.1").unwrap(), "192.0.2.1");
    for wrong in ["", "a b", "host:5060", "0.0.0.0", "1.2.3.4.5", "-x", "a..b", "[1.2.3.4]"] {
        assert_eq!(written(wrong).expect_err(wrong).key, "sip.advertise");
    }
}

#[test]
fn strangers_are_not_let_in_by_accident() {
    let beyond = "sip.listen = ['udp://192.0.2.1:5060']\n";
    let error = refused(beyond);
    assert!(error.problem.contains("access.allow_unauthenticated = true"), "{error}");
    assert_eq!(error.key, "sip.listen[0]");
    for safe in ["access.allow_unauthenticated = true", "access.authenticate = 'digest'"] {
        assert!(Config::parse(&format!("{beyond}{safe}"), "l").is_ok(), "{safe}");
    }
    let error = refused("access.authenticate = 'basic'");
    assert_eq!((error.key.as_str(), error.place.is_some()), ("access.authenticate", true));
    assert!(error.problem.contains("allowed: \"digest\", \"off\""), "{error}");
    for wrong in ["[]", "['sha-256']", "['MD5', 'MD5']"] {
        assert!(refused(&format!("access.algorithms = {wrong}")).key.starts_with("access.algorithms"), "{wrong}");
    }
    assert_eq!(refused("access.identity_header = 'X Y'").key, "access.identity_header");
    assert!(Config::parse("http.listen = '192.0.2.1:8000'", "l").is_ok(), "HTTP has its tokens");
    assert_eq!(refused("http.listen = 'localhost:8000'").key, "http.listen");
}

#[test]
fn what_is_known_but_not_there_yet_says_so() {
    for profile in ["4.3", "5.x"] {
        assert!(refused(&format!("api.profile = '{profile}'")).problem.contains("not available yet"));
    }
    assert!(refused("api.profile = '2'").problem.contains("no profile; allowed: \"3.22\""));
}

#[test]
fn expires_and_limits_stay_in_their_ranges() {
    for (text, key) in [
        ("presence.min_expires = 0", "presence.min_expires"),
        ("presence.min_expires = 3601", "presence.min_expires"),
        ("presence.max_expires = 604801", "presence.max_expires"),
        ("presence.max_expires = 30", "presence.max_expires"),
        ("presence.min_notify_interval_ms = 60001", "presence.min_notify_interval_ms"),
        ("limits.subscriptions = 0", "limits.subscriptions"),
        ("limits.tcp_idle_seconds = -1", "limits.tcp_idle_seconds"),
        ("limits.http_connections = 100000001", "limits.http_connections"),
        ("limits.event_streams = 0", "limits.event_streams"),
        ("limits.event_streams_per_account = 0", "limits.event_streams_per_account"),
        ("limits.http_connections_per_address = 0", "limits.http_connections_per_address"),
        ("limits.listings_per_address = -1", "limits.listings_per_address"),
        ("limits.traces = 0", "limits.traces"),
        ("history.exchanges = -1", "history.exchanges"),
    ] {
        assert_eq!(refused(text).key, key, "{text}");
    }
    assert!(refused("presence = { min_expires = 600, max_expires = 300 }").problem.contains("above max_expires (300)"));
    let equal = Config::parse("presence = { min_expires = 300, max_expires = 300 }", "l").unwrap();
    assert_eq!(equal.presence.min_expires, equal.presence.max_expires);
    let limits = Config::parse("limits = { subscriptions = 7, tcp_idle_seconds = 8 }", "l").unwrap().limits;
    assert_eq!((limits.subscriptions, limits.tcp_idle_seconds, limits.tcp_connections), (7, 8, 20_000));
}

#[test]
fn packages_are_known_and_named_once() {
    let two = Config::parse("presence.packages = ['message-summary', 'dialog']", "l").unwrap();
    assert_eq!(two.presence.packages, [PackageId(2), PackageId(0)]);
    let error = refused("presence.packages = ['dialog', 'reg']");
    assert_eq!(error.key, "presence.packages[1]");
    assert!(error.problem.contains("\"dialog\", \"presence\", \"message-summary\""), "{error}");
    assert!(refused("presence.packages = ['dialog', 'dialog']").problem.contains("twice"));
    assert_eq!(refused("presence.packages = []").key, "presence.packages");
}

#[test]
fn data_access_and_log() {
    assert_eq!(Config::parse("data.durability = 'relaxed'", "l").unwrap().data.durability, Durability::Relaxed);
    assert!(refused("data.durability = 'yes'").problem.contains("\"strict\", \"relaxed\", \"memory\""));
    assert_eq!(Config::parse("", "l").unwrap().data.on_damage, OnDamage::Refuse);
    assert_eq!(Config::parse("data.on_damage = 'repair'", "l").unwrap().data.on_damage, OnDamage::Repair);
    assert!(refused("data.on_damage = 'ignore'").problem.contains("\"refuse\", \"repair\""));
    assert_eq!(refused("data.dir = ''").key, "data.dir");
    let trusted = Config::parse("access.trusted_proxies = ['10.0.0.0/8', '::1', '192.0.2.7']", "l")
        .unwrap()
        .access
        .trusted_proxies;
    assert_eq!(trusted, ["10.0.0.0/8", "::1/128", "192.0.2.7/32"].map(|n| n.parse().unwrap()));
    assert!(Config::parse("access.trusted_proxies = []", "l").unwrap().access.trusted_proxies.is_empty());
    assert_eq!(refused("access.trusted_proxies = ['10.0.0.0/33']").key, "access.trusted_proxies[0]");
    assert!(refused("log.level = 'lamplighter=loudly'").problem.contains("\"debug\""));
    assert_eq!(Config::parse("log.format = 'json'", "l").unwrap().log.format, LogFormat::Json);
    assert_eq!(Config::parse("log.level = 'warn'", "l").unwrap().log.format, LogFormat::Text);
    let error = refused("[log]\nformat = 'xml'");
    assert_eq!((error.key.as_str(), error.place), ("log.format", Some((2, 10))));
    assert!(error.problem.contains("allowed: \"text\", \"json\""), "{error}");
}

#[test]
fn ids_and_realms_are_there_once() {
    let realm = |text: &str| contract_with("realm = \"umbrella.test\"", &format!("realm = \"{text}\""));
    let error = refused(&realm("ACME.test"));
    assert!(error.problem.contains("another account has the realm \"acme.test\""), "{error}");
    assert_eq!(error.key, "account[1].realm");
    for wrong in ["abc", "has space.test", "ümlaut.test", &"a".repeat(254)] {
        assert!(refused(&realm(wrong)).problem.contains("4 to 253"), "{wrong}");
    }
    assert_eq!(Config::parse(&realm("Big_Realm-1.Test"), "l").unwrap().accounts[1].realm, "big_realm-1.test");
    for (line, instead, key) in [
        ("id = \"5a5a\"", "id = \"4642\"", "account[1].id"),
        ("id = \"5a5a\"", "id = \"../etc\"", "account[1].id"),
        ("id = \"d001\"", "id = \"a001\"", "account[0].device[0].id"),
        ("id = \"d001\"", "id = \"\"", "account[0].device[0].id"),
        ("owner_id = \"a001\"", "owner_id = \"a002\"", "account[0].device[0].owner_id"),
        ("presence_id = 1001", "presence_id = -1", "account[0].device[0].presence_id"),
        ("presence_id = 1001", "presence_id = \"1001@acme.test\"", "account[0].device[0].presence_id"),
        ("presence_id = \"2000\"", "presence_id = \"\"", "account[0].user[0].presence_id"),
        ("username = \"1001\"", "username = \"a\\u0007\"", "account[0].device[0].sip.username"),
        ("parent = \"4642\"", "parent = \"77\"", "account[1].parent"),
        ("parent = \"4642\"", "parent = \"5a5a\"", "account[1].parent"),
    ] {
        assert_eq!(refused(&contract_with(line, instead)).key, key, "{instead}");
    }
    let again = "  [[account.device]]\n  id = \"d001\"\n[[account]]\nid = \"5a5a\"";
    assert!(refused(&contract_with("[[account]]\nid = \"5a5a\"", again)).problem.contains("\"d001\""));
    let same_name = "  [[account.device]]\n  id = \"d9\"\n  sip = { username = \"1001\" }\n[[account]]\nid = \"5a5a\"";
    assert!(refused(&contract_with("[[account]]\nid = \"5a5a\"", same_name)).problem.contains("SIP user name"));
}

#[test]
fn accounts_cannot_be_their_own_ancestors() {
    let ring = "[[account]]\nid='a'\nrealm='a.test'\nparent='b'\n[[account]]\nid='b'\nrealm='b.test'\nparent='a'\n";
    let error = refused(ring);
    assert_eq!((error.key.as_str(), error.place.unwrap().0), ("account[0].parent", 4));
    assert!(error.problem.contains("ancestor"), "{error}");
}

#[test]
fn tokens_open_exactly_one_thing_and_never_show() {
    for (line, instead, key) in [
        ("superuser = true", "superuser = true\naccount = \"4642\"", "token[1]"),
        ("superuser = true", "superuser = false", "token[1]"),
        ("superuser = true", "", "token[1]"),
        ("account = \"4642\"", "account = \"77\"", "token[0].account"),
        ("\"root-token\"", "\"root token\"", "token[1].value"),
        ("\"root-token\"", "\"\"", "token[1].value"),
        ("\"root-token\"", "\" \\t\"", "token[1].value"),
        ("\"root-token\"", "4711", "token[1].value"),
        ("\"s3cret-1001\"", "4711", "account[0].device[0].sip.password"),
    ] {
        let error = refused(&contract_with(line, instead));
        assert_eq!(error.key, key, "{instead}: {error}");
        for secret in ["acme-token", "root token", "4711"] {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
    let shown = format!("{:?}", Config::parse(CONTRACT, "l").unwrap());
    for secret in ["acme-token", "root-token", "s3cret"] {
        assert!(!shown.contains(secret));
    }
    assert_eq!(Secret::new("hush").to_string(), "<secret>");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let error = Config::load("/nowhere/lamplighter.toml").unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/lamplighter.toml: cannot be read: "), "{error}");
}

#[test]
fn every_configuration_that_a_document_shows_is_accepted() {
    let accepted = |name: &str, text: &str| Config::parse(text, name).unwrap_or_else(|error| panic!("{error}"));
    for (name, text) in
        [("README.md", include_str!("../../README.md")), ("asterisk.md", include_str!("../../docs/asterisk.md"))]
    {
        // Blocks with `[tls]` are skipped: they name certificate files that do not exist here.
        let shown = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let whole: Vec<_> = shown.filter(|block| !block.contains("[tls]")).collect();
        assert!(!whole.is_empty(), "{name}");
        whole.into_iter().for_each(|block| assert_eq!(accepted(name, block).accounts.len(), 1));
    }
    // The packaged file as it is installed, and with every commented-out key enabled.
    let installed = include_str!("../../packaging/lamplighter.toml");
    assert_eq!(accepted("packaging/lamplighter.toml", installed).accounts.len(), 0);
    let proposed: Vec<_> = installed
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.trim_start().starts_with('[') || rest.contains(" = "))
                .unwrap_or(line)
        })
        .collect();
    let all = accepted("packaging/lamplighter.toml", &proposed.join("\n"));
    assert_eq!((all.accounts[0].devices.len(), all.tokens.len()), (1, 1));
}

#[test]
fn webhooks_have_a_url_and_a_key_and_show_neither() {
    let with =
        |lines: &str| contract_with("[[account]]\nid = \"5a5a\"", &format!("{lines}\n[[account]]\nid = \"5a5a\""));
    let hook = |url: &str, secret: &str, more: &str| {
        with(&format!("  [[account.webhook]]\n  url = \"{url}\"\n  secret = \"{secret}\"\n  {more}"))
    };
    let (url, secret) = ("https://crm.acme.test/lamps?k=hidden", "a key of four and twenty octets");
    let config = Config::parse(&hook(url, secret, ""), "l").unwrap();
    let webhook = &config.webhooks[0];
    assert_eq!((webhook.lamps, webhook.subscriptions, webhook.ca.clone()), (true, false, None));
    assert_eq!(
        (webhook.url.host(), webhook.url.port(), webhook.url.path_and_query()),
        ("crm.acme.test", 443, "/lamps?k=hidden")
    );
    assert_eq!(webhook.key(), secret.as_bytes());
    let shown = format!("{config:?}");
    assert!(shown.contains("crm.acme.test") && !shown.contains("hidden") && !shown.contains("twenty"), "{shown}");
    let both = Config::parse(
        &hook("http://[::1]:81", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "events = ['lamp', 'subscription']"),
        "l",
    );
    let both = &both.unwrap().webhooks[0];
    assert_eq!((both.url.host(), both.url.port(), both.url.path_and_query()), ("::1", 81, "/"));
    assert_eq!((both.key().len(), both.lamps, both.subscriptions), (24, true, true));

    for wrong in [
        "ftp://a.test",
        "/lamps",
        "https://",
        "https://u:p@a.test/",
        "https://a.test/#x",
        "http://a.test:0",
        "http://a:x",
    ] {
        assert_eq!(refused(&hook(wrong, secret, "")).key, "account[0].webhook[0].url", "{wrong}");
    }
    for wrong in ["short", "whsec_MfKQ", "whsec_not Base64 at all, not Base64", &"a".repeat(513)] {
        let error = refused(&hook(url, wrong, ""));
        assert_eq!(error.key, "account[0].webhook[0].secret", "{wrong}");
        assert!(!error.to_string().contains(wrong), "{error}");
    }
    assert_eq!(refused(&hook(url, secret, "events = []")).key, "account[0].webhook[0].events");
    assert_eq!(refused(&hook(url, secret, "events = ['call']")).key, "account[0].webhook[0].events[0]");
    assert!(refused(&hook(url, secret, "retries = 3")).to_string().contains("retries"));
    let many = format!("  [[account.webhook]]\n  url = \"{url}\"\n  secret = \"{secret}\"\n").repeat(17);
    assert!(refused(&with(&many)).problem.contains("16 webhooks"));
}

#[test]
fn a_key_that_was_renamed_is_refused_with_its_new_name() {
    for (text, key, new) in [
        ("access = { trusted = [] }", "access.trusted", "`access.trusted_proxies`"),
        ("access = { open_to_the_world = true }", "access.open_to_the_world", "`access.allow_unauthenticated`"),
        ("hep.node = 1", "hep.node", "`hep.agent_id`"),
        (
            "limits = { subscriptions_per_phone = 5 }",
            "limits.subscriptions_per_phone",
            "`limits.subscriptions_per_device`",
        ),
        ("presence.large_notify = \"tcp\"", "presence.large_notify", "`presence.oversize_notify`"),
        ("presence.notify_gap_ms = 5", "presence.notify_gap_ms", "`presence.min_notify_interval_ms`"),
        ("rates = { known = 5 }", "rates", "`rate_limits` with the keys `verified_source`"),
    ] {
        let error = refused(text);
        assert_eq!(error.key, key);
        assert!(error.place.is_some() && error.problem.contains(new), "{error}");
    }
    assert!(refused("rate_limits = { known = 5 }").problem.contains("`verified_source`"), "the keys that there are");
}
