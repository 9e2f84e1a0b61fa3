//! Refusals: the refused source and the reason, over the API, as a command, on the dashboard, as metrics, and in the
//! log for fail2ban. Wrong passwords and tokens are delayed; right ones are never delayed because of others.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "dashboard/browser.rs"]
#[allow(dead_code)] // the tests of the dashboard do more with it
mod browser;
#[path = "refusals/digest.rs"]
mod digest;
#[path = "refusals/fail2ban.rs"]
mod fail2ban;
#[path = "peers/harness/folder.rs"]
mod folder;
#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "peers/harness/process.rs"]
#[allow(dead_code)] // of the peers' harness only what skips is needed here
mod process;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // the tests of lamps ask for more
mod world;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use browser::Browser;
use digest::{DigestPhone, nonce};
use process::skip_without;
use serde_json::{Value, json};
use world::{ACME, PATIENCE, Phone, UMBRELLA, World};

const DIGEST: &str = "access = { authenticate = \"digest\", trusted_proxies = [] }";
const WITH_PASSWORD: &str =
    "  [[account.device]]\n  id = \"d3\"\n  sip = { username = \"1003\", password = \"right password\" }\n";

/// Sends a SUBSCRIBE that is refused, and checks its status.
fn refused(world: &World, phone: &Phone, to: &str, more: &str, status: &str) {
    let local = phone.address();
    let unique = format!("{to}{more}{local}").bytes().map(|b| format!("{b:02x}")).collect::<String>();
    phone.send(&format!(
        "SUBSCRIBE sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{unique};rport\r\n\
         From: <sip:1002@{}>;tag=p\r\nTo: <sip:{to}>\r\nCall-ID: {unique}{}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:1002@{local}>\r\n{more}Content-Length: 0\r\n\r\n",
        to.split('@').nth(1).unwrap(),
        world.sip.port(),
    ));
    phone.hear_start(&format!("SIP/2.0 {status}"));
}

fn refusals(world: &World) -> Vec<Value> {
    world.data("refusals").as_array().unwrap().clone()
}

fn of_no_account(world: &World) -> Vec<Value> {
    let (status, json) = world.ask_as("root-token", "GET", "/v2/refusals", "");
    assert_eq!(status, 200, "{json}");
    json["data"].as_array().unwrap().clone()
}

fn brief(rows: &[Value]) -> Vec<(String, String, u64, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|r| {
            (
                text(&r["kind"]),
                text(&r["who"]),
                r["status"].as_u64().unwrap(),
                text(&r["reason"]),
                r["count"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn row(kind: &str, who: &str, status: u64, reason: &str, count: u64) -> (String, String, u64, String, u64) {
    (kind.into(), who.into(), status, reason.into(), count)
}

#[test]
fn what_was_refused_is_told_to_its_account_and_to_no_other() {
    let world = World::new("limits = { watchers_per_presentity = 1 }");
    let phones: Vec<_> = (0..3).map(|_| Phone::new(&world)).collect();
    let agent = "User-Agent: Phone\u{1b}[31m<b> 1\r\n";
    refused(&world, &phones[0], "1001@acme.test", &format!("Event: dialog\r\nExpires: 1\r\n{agent}"), "423");
    refused(&world, &phones[1], "1001@acme.test", "Event: dialog\r\nExpires: 1\r\n", "423");
    refused(&world, &phones[0], "1001@acme.test", "Event: nonsense\r\n", "489");
    refused(&world, &phones[0], "1001@nowhere.test", "Event: dialog\r\n", "404");
    phones[2].subscribe("1001", "acme.test");
    refused(&world, &phones[0], "1001@acme.test", "Event: dialog\r\n", "480");

    let rows = refusals(&world);
    let expected = [
        row("phone", "1002@acme.test", 480, "limits.watchers_per_presentity", 1),
        row("phone", "1002@acme.test", 489, "Bad Event", 1),
        row("phone", "1002@acme.test", 423, "Interval Too Brief", 2),
    ];
    assert_eq!(brief(&rows), expected);
    assert_eq!((&rows[2]["address"], &rows[2]["method"]), (&json!("127.0.0.1"), &json!("SUBSCRIBE")));
    assert_eq!(rows[2]["agent"], "Phone\u{fffd}[31m<b> 1", "the latest that was named, harmless");
    assert!(rows[2]["first_at"].as_u64() <= rows[2]["last_at"].as_u64());
    assert_eq!(brief(&of_no_account(&world)), [row("phone", "1002@nowhere.test", 404, "No Account Has This Realm", 1)]);

    // Umbrella sees none of these refusals, and Acme none of Umbrella's.
    let path = format!("/v2/accounts/{UMBRELLA}/refusals");
    assert_eq!(world.ask_as("umbrella-token", "GET", &path, "").1["data"], json!([]));
    assert_eq!(world.ask_as("acme-token", "GET", &path, "").0, 403);
    assert_eq!(world.ask_as("acme-token", "GET", "/v2/refusals", "").0, 403);
    assert_eq!(world.ask_as("umbrella-token", "GET", &path, "").1["data"], json!([]), "nor that Acme has looked");
    assert_eq!(brief(&refusals(&world))[0], row("client", "acme.test", 403, "forbidden", 1));

    // Pages, as in every list.
    let (_, first) = world.ask("GET", "refusals?page_size=3", "");
    assert_eq!(
        (first["data"].as_array().unwrap().len(), &first["page_size"], &first["start_key"]),
        (3, &json!(3), &json!(""))
    );
    let next = first["next_start_key"].as_str().unwrap();
    let (_, second) = world.ask("GET", &format!("refusals?page_size=3&start_key={next}"), "");
    assert_eq!(
        (brief(second["data"].as_array().unwrap()), second.get("next_start_key")),
        (expected[2..].to_vec(), None)
    );
    for (query, field) in [("page_size=0", "page_size"), ("start_key=x", "start_key"), ("start_key=%2B1", "start_key")]
    {
        let (status, fault) = world.ask("GET", &format!("refusals?{query}"), "");
        assert_eq!((status, &fault["data"][field]["invalid"]["target"]), (400, &json!(field)), "{query}");
    }
}

#[test]
fn the_check_of_a_configuration_names_secrets_that_are_none_and_shows_none() {
    let folder = folder::Folder::new("check");
    let check = |password: &str, tokens: [&str; 2]| {
        let file = folder.path().join("l.toml");
        let text = format!(
            "[[token]]\nvalue = \"{}\"\nsuperuser = true\n[[token]]\nvalue = \"{}\"\naccount = \"a\"\n[[account]]\nid = \"a\"\n\
             realm = \"acme.test\"\n[[account.device]]\nid = \"d\"\nsip = {{ username = \"1\", password = \"{password}\" }}\n",
            tokens[0], tokens[1]
        );
        std::fs::write(&file, text).unwrap();
        let run = |command: &str| {
            let mut lamplighter = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
            let output = lamplighter.args([command, "--config"]).arg(&file).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let checked = run("check");
        if checked.0 != Some(0) {
            assert_eq!(run("serve"), checked, "the start refuses as the check does");
        }
        checked
    };
    let long = ["one-token-of-enough-length", "another-of-enough-length"];
    assert_eq!(check("right password", long), (Some(0), String::new()));
    for blank in ["", "  ", "\\t", "\\u200b"] {
        let (code, said) = check(blank, long);
        assert_eq!(code, Some(2), "{said}");
        let place = "l.toml:12:36: account[0].device[0].sip.password: is empty; allowed: ";
        assert!(said.contains(place), "{said}");
        let (code, said) = check("right password", [long[0], blank]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("l.toml:5:9: token[1].value: is no token; allowed: 1 to 4096 visible"), "{said}");
    }
    let (code, said) = check("right password", ["short-of-it", "short-of-it"]);
    assert_eq!((code, said.lines().count()), (Some(0), 3), "{said}");
    assert!(said.lines().all(|line| line.starts_with("lamplighter: warning: ") && line.contains("l.toml:")), "{said}");
    assert!(
        said.contains("fewer than 16 characters") && said.contains("as well") && !said.contains("short-of-it"),
        "{said}"
    );
}

#[test]
fn a_wrong_token_is_told_to_superusers_and_never_shown() {
    let world = World::new("");
    assert_eq!(world.ask_as("a-wrong-token", "GET", &format!("/v2/accounts/{ACME}/lamps"), "").0, 401);
    assert_eq!(world.ask_as("", "GET", "/readyz", "").0, 200);
    let rows = of_no_account(&world);
    assert_eq!(brief(&rows), [row("client", "", 401, "Wrong Token", 1)]);
    assert_eq!(
        (&rows[0]["address"], &rows[0]["method"], &rows[0]["who"]),
        (&json!("127.0.0.1"), &json!("GET"), &Value::Null)
    );
    assert_eq!(refusals(&world), [] as [Value; 0], "it says nothing of the account that it was tried on");
    assert!(!json!(rows).to_string().contains("wrong-token"));
    let (_, metrics) = world.text_as("root-token", "/metrics", "");
    let counted = "lamplighter_api_requests_rejected_total{method=\"GET\",status=\"401\",reason=\"Wrong Token\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_first_challenge_and_a_stale_nonce_are_no_refusals_and_a_wrong_password_is() {
    let world = World::with(DIGEST, WITH_PASSWORD);
    let mut phone = DigestPhone::new(world.sip, Ipv4Addr::LOCALHOST);
    let challenge = nonce(&phone.subscribe("1003", ""));
    assert!(phone.answer_nonce("1003", "right password", &challenge, "").starts_with("SIP/2.0 200"));
    // A reused nonce is stale with a right password. A nonce of another server is stale with any password, which
    // reveals nothing about the password.
    for (password, nonce) in
        [("right password", challenge), ("right password", "0".repeat(64)), ("guess", "0".repeat(64))]
    {
        let stale = phone.answer_nonce("1003", password, &nonce, "");
        assert!(stale.starts_with("SIP/2.0 401") && stale.contains("stale=true"), "{stale}");
    }
    assert_eq!(refusals(&world), [] as [Value; 0]);

    for (user, password) in [("1003", "guess"), ("1003", ""), ("nobody", "guess")] {
        let again = phone.try_password(user, password);
        assert!(again.starts_with("SIP/2.0 401") && !again.contains("stale"), "{again}");
    }
    // Stale credentials beside wrong ones do not hide them.
    let challenge = nonce(&phone.subscribe("1003", ""));
    let beside = "Authorization: Digest username=\"1003\", realm=\"acme.test\", nonce=\"x\", uri=\"sip:1001@acme.test\", \
                  response=\"x\"\r\n";
    assert!(phone.answer_nonce("1003", "guess", &challenge, beside).starts_with("SIP/2.0 401"));
    let expected = [
        row("phone", "1003@acme.test", 401, "Wrong Password", 3),
        row("phone", "nobody@acme.test", 401, "Unknown User", 1),
    ];
    assert_eq!(brief(&refusals(&world)), expected);
    let (_, metrics) = world.text_as("root-token", "/metrics", "");
    for line in [
        "lamplighter_requests_rejected_total{method=\"SUBSCRIBE\",status=\"401\",reason=\"Wrong Password\"} 3\n",
        "lamplighter_requests_rejected_total{method=\"SUBSCRIBE\",status=\"401\",reason=\"Unknown User\"} 1\n",
        "lamplighter_requests_challenged_total 12\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(!metrics.contains("reason=\"Unauthorized\""), "{metrics}");
}

#[test]
fn a_guesser_has_to_wait_and_shuts_out_no_phone_at_another_address() {
    let world = World::with(DIGEST, WITH_PASSWORD);
    let mut guesser = DigestPhone::new(world.sip, Ipv4Addr::new(127, 0, 0, 66));
    let mut answers: Vec<_> = (0..8).map(|n| guesser.try_password("1003", &format!("guess {n}"))).collect();
    answers.push(guesser.try_password("1003", "right password"));
    let statuses: Vec<_> = answers.iter().map(|answer| &answer[8..11]).collect();
    assert_eq!(statuses[..6], ["401"; 6], "people mistype");
    assert_eq!(statuses[6], "480");
    // During the delay even the right password is not checked, because the response would reveal it. On a slow machine
    // a delay may have passed.
    let waiting = answers.iter().filter(|answer| answer.starts_with("SIP/2.0 480 Too Many Wrong Passwords"));
    for answer in waiting {
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    }
    let mut phone = DigestPhone::new(world.sip, Ipv4Addr::new(127, 0, 0, 67));
    assert!(phone.try_password("1003", "right password").starts_with("SIP/2.0 200"));
    let listed = refusals(&world);
    assert!(
        listed.iter().any(|row| row["reason"] == "Too Many Wrong Passwords" && row["address"] == "127.0.0.66"),
        "{listed:?}"
    );
}

#[test]
fn wrong_tokens_are_held_back_longer_each_time_and_right_ones_are_not() {
    let world = World::new("");
    let wrong = || world.ask_as("wrong", "GET", "/v2/accounts", "");
    assert_eq!(wrong().0, 401);
    let from = Instant::now();
    assert_eq!((wrong().0, wrong().0, wrong().0), (401, 401, 401));
    assert!(from.elapsed() >= Duration::from_millis(250 + 500 + 1_000), "{:?}", from.elapsed());
    // A limited number of wrong tokens is delayed at the same time, and the rest is refused; right tokens are accepted
    // meanwhile.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| wrong().0)).collect();
        for _ in 0..10 {
            assert_eq!(world.ask_as("acme-token", "GET", "/v2/accounts", "").0, 200);
        }
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|s| **s == status).count();
    assert!(of(401) >= 8 && of(429) >= 1 && of(401) + of(429) == 40, "{statuses:?}");
    assert_eq!(world.ask_as("acme-token", "GET", "/v2/accounts", "").0, 200);
}

#[test]
fn who_exceeds_its_rate_is_listed_by_its_address() {
    let world = World::new("access = { trusted_proxies = [] }\nrate_limits = { unverified_source = 1 }");
    let phone = Phone::new(&world);
    for n in 0..40 {
        phone.send(&format!(
            "OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKr{n};rport\r\n\
             From: <sip:1@acme.test>;tag=n\r\nTo: <sip:acme.test>\r\nCall-ID: r{n}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        ));
    }
    let deadline = Instant::now() + PATIENCE;
    let unread = loop {
        if let Some(row) = of_no_account(&world).into_iter().find(|row| row["status"].is_null()) {
            break row;
        }
        assert!(Instant::now() < deadline, "not listed");
    };
    assert_eq!(
        (&unread["reason"], &unread["address"], &unread["kind"]),
        (&json!("rate_limits"), &json!("127.0.0.1"), &json!("peer"))
    );
    assert_eq!(brief(&refusals(&world))[0].3, "rate_limits", "those that were answered are in their account");
}

#[test]
fn the_command_lists_what_its_token_may_see() {
    let world = World::new("");
    let run = |args: &[&str], token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
        command.args(args).args(["--server", &world.page("")]).env("LAMPLIGHTER_TOKEN", token);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["refusals"], "acme-token"), "no recent refusals\n");
    assert_eq!(run(&["refusals"], "acme-token"), "no recent refusals\n", "and asking does not change that");
    let phone = Phone::new(&world);
    refused(&world, &phone, "1001@acme.test", "Event: dialog\r\nExpires: 1\r\nUser-Agent: x\r\n", "423");
    refused(&world, &phone, "1001@umbrella.test", "Event: dialog\r\nExpires: 1\r\n", "423");
    refused(&world, &phone, "1001@nowhere.test", "Event: dialog\r\n", "404");
    let of_acme = run(&["refusals"], "acme-token");
    for part in ["ACCOUNT", "acme.test", "phone", "1002@acme.test", "127.0.0.1", "SUBSCRIBE", "423 Interval Too Brief"]
    {
        assert!(of_acme.contains(part), "{part}: {of_acme}");
    }
    assert!(!of_acme.contains("umbrella") && !of_acme.contains("nowhere"), "{of_acme}");
    let all: Value = serde_json::from_str(&run(&["refusals", "--json"], "root-token")).unwrap();
    let realms: Vec<_> = all.as_array().unwrap().iter().map(|row| row["realm"].clone()).collect();
    assert_eq!(realms.len(), 3);
    assert!(
        [json!("acme.test"), json!("umbrella.test"), Value::Null].iter().all(|realm| realms.contains(realm)),
        "{all}"
    );
    let one = run(&["refusals", "umbrella.test"], "root-token");
    assert!(one.contains("1002@umbrella.test") && !one.contains("nowhere") && !one.contains("acme"), "{one}");
}

#[test]
fn the_page_shows_who_was_refused_and_text_of_strangers_is_text() {
    if skip_without("node") || skip_without("chromium") {
        return;
    }
    let world = World::new("");
    let phone = Phone::new(&world);
    refused(
        &world,
        &phone,
        "1001@acme.test",
        "Event: dialog\r\nExpires: 1\r\nUser-Agent: <img src=x onerror=alert(1)>\r\n",
        "423",
    );
    refused(&world, &phone, "1001@acme.test", "Event: nonsense\r\nUser-Agent: Yealink SIP-T46U 108.86\r\n", "489");
    let mut browser = Browser::start("refusals");
    browser.size(1_280, 800);
    browser.scheme("light");
    browser.go(&world.page(&format!("#token=acme-token&account={ACME}")));
    browser.until("document.querySelector('.lamp')");
    browser.eval("location.hash = '#/refusals'");
    browser.until("document.querySelectorAll('#refusals tbody tr').length === 2");
    let text = browser.eval("document.querySelector('#refusals').textContent");
    for part in
        ["423 Interval Too Brief", "489 Bad Event", "1002@acme.test", "127.0.0.1", "<img src=x onerror=alert(1)>"]
    {
        assert!(text.as_str().unwrap().contains(part), "{part}: {text}");
    }
    assert_eq!(browser.eval("document.querySelectorAll('#refusals img').length"), 0);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("refusals");
    std::fs::create_dir_all(&folder).unwrap();
    browser.shot(&folder.join("light.png"), true);
    browser.scheme("dark");
    browser.until("document.documentElement.dataset.theme === 'dark'");
    browser.shot(&folder.join("dark.png"), true);
    // A further refusal appears without a reload.
    refused(&world, &phone, "1001@acme.test", "Event: dialog\r\nExpires: 1\r\nUser-Agent: other\r\n", "423");
    browser.until("document.querySelector('#refusals').textContent.includes('other')");
    browser.size(360, 800);
    let overflow = browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "nothing is wider than a phone");
    browser.shot(&folder.join("phone.png"), false);
    assert_eq!(browser.complaints(), json!([]));

    // Refusals of no account are visible to superusers only.
    refused(&world, &phone, "1001@nowhere.test", "Event: dialog\r\n", "404");
    browser.eval("document.querySelector('a[href=\"#/refusals/none\"]').click()");
    browser.until("document.querySelector('.none')?.textContent.includes('forbidden')");
    browser.eval("document.querySelector('#leave').click()");
    browser.go(&world.page(&format!("#token=root-token&account={ACME}")));
    browser.until("document.querySelector('.lamp')");
    browser.eval("location.hash = '#/refusals/none'");
    browser.until("document.querySelector('#refusals')?.textContent.includes('1002@nowhere.test')");
    assert_eq!(browser.eval("document.querySelectorAll('#refusals tbody tr').length"), 1);
}
