//! Commands for operators, as processes with a real server.

use std::process::Command;

use serde_json::{Value, json};

use crate::world::{ACME, Phone, UMBRELLA, World};

/// True if it succeeded, its output, and its error output.
type Outcome = (bool, String, String);

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(args).env_remove("LAMPLIGHTER_TOKEN").env_remove("LAMPLIGHTER_SERVER");
    command
}

fn run(world: &World, args: &[&str], token: Option<&str>) -> Outcome {
    let mut command = command(args);
    command.args(["--server", &world.page("")]);
    if let Some(token) = token {
        command.env("LAMPLIGHTER_TOKEN", token);
    }
    outcome(&mut command)
}

fn json_of(world: &World, args: &[&str], token: &str) -> Value {
    let (good, told, error) = run(world, &[args, &["--json"]].concat(), Some(token));
    assert!(good, "{error}");
    serde_json::from_str(&told).unwrap()
}

#[test]
fn the_commands_print_what_the_api_says() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let run = |args: &[&str], token: Option<&str>| run(&world, args, token);
    let token = Some("acme-token");
    assert_eq!(run(&["set", "1001@ACME.test", "early"], token).1, "set command sent for extension 1001\n");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    world.until("lamps/1001", |story| (story["watching"][0]["delivery_status"] == "current").then_some(()));
    let (_, told, _) = run(&["explain", "1001@acme.test", "--watcher", "1002"], token);
    assert!(told.starts_with("sip:1001@acme.test is ringing, changed "), "{told}");
    for part in ["It was set to early by hand", "1002@acme.test", "Yealink", "current", "SUBSCRIBE 1", "NOTIFY 2"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!run(&["explain", "1001@acme.test", "--watcher", "7777"], token).1.contains("1002@acme.test"));
    let json: Value = serde_json::from_str(&run(&["explain", "1001@acme.test", "--json"], token).1).unwrap();
    assert_eq!(json["manual"], "early");
    let (_, lamps, _) = run(&["lamps"], token);
    assert!(lamps.contains("1001       Alice  ringing") && lamps.contains("1002              unknown"), "{lamps}");
    assert_eq!(run(&["reset", "1001@acme.test"], token).1, "reset command sent for extension 1001\n");
    for (args, token, said) in [
        (
            &["lamps", "umbrella.test"][..],
            token,
            "opens no account with the realm 'umbrella.test'; it opens: acme.test",
        ),
        (&["lamps"], None, "a token of the API is needed"),
        (&["lamps"], Some("wrong"), "the server refuses: 401 invalid credentials"),
        (&["explain", "7777@acme.test"], token, "404 7777"),
        (&["explain", "1001"], token, "expected EXTENSION@REALM"),
        (&["set", "1001@acme.test", "red"], token, "possible values: early"),
    ] {
        let (good, _, error) = run(args, token);
        assert!(!good && error.contains(said), "{args:?}: {error}");
        assert!(!error.contains("acme-token"), "{error}");
    }
    let (_, accounts) = world.ask_as("umbrella-token", "GET", "/v2/accounts", "");
    assert_eq!(accounts["data"], json!([{"id": UMBRELLA, "name": "umbrella.test", "realm": "umbrella.test"}]));
    assert_eq!(world.ask_as("wrong", "GET", "/v2/accounts", "").0, 401);
}

#[test]
fn an_operator_finds_lamps_and_subscriptions_in_every_account() {
    let world = World::new("");
    let (here, there) = (Phone::new(&world), Phone::new(&world));
    here.subscribe("1001", "acme.test");
    there.subscribe("1001", "umbrella.test");
    let root = Some("root-token");
    let (_, accounts, _) = run(&world, &["accounts"], root);
    assert!(
        accounts.contains("REALM") && accounts.contains(&format!("umbrella.test  umbrella.test  {UMBRELLA}")),
        "{accounts}"
    );
    assert_eq!(json_of(&world, &["accounts"], "acme-token")[0]["id"], ACME);

    let (_, found, _) = run(&world, &["search", "yealink"], root);
    assert!(
        !found.contains("Lamps\n") && found.contains("1001@acme.test") && found.contains("1001@umbrella.test"),
        "{found}"
    );
    let (_, found, _) = run(&world, &["search", "alice"], root);
    assert!(found.starts_with("Lamps\n") && found.contains("1001@acme.test") && !found.contains("umbrella"), "{found}");
    let (_, found, _) = run(&world, &["search", "1002", "--realm", "umbrella.test"], root);
    assert!(found.starts_with("Subscriptions\n") && !found.contains("acme"), "{found}");
    let json = json_of(&world, &["search", "1002"], "root-token");
    assert_eq!((&json["lamps"][0]["extension"], &json["lamps"][0]["realm"]), (&json!("1002"), &json!("acme.test")));
    let realms: Vec<_> = json["subscriptions"].as_array().unwrap().iter().map(|row| &row["realm"]).collect();
    assert_eq!(realms, ["acme.test", "umbrella.test"]);
    assert_eq!(run(&world, &["search", "nobody's"], root).1, "nothing has that in it\n");

    let (_, told, _) = run(&world, &["subscriptions", "acme.test"], root);
    assert!(told.contains("1002@acme.test") && told.contains("Yealink") && !told.contains("umbrella"), "{told}");
    assert_eq!(json_of(&world, &["subscriptions", "--filter", "snom"], "acme-token"), json!([]));
    let (good, _, error) = run(&world, &["subscriptions"], root);
    assert!(!good && error.contains("name one of these realms: acme.test, umbrella.test"), "{error}");
    let (_, lamps, _) = run(&world, &["lamps", "acme.test", "--filter", "ali"], root);
    assert!(lamps.contains("1001") && !lamps.contains("1002"), "{lamps}");
}

#[test]
fn an_operator_has_a_notify_sent_again_and_ends_a_subscription() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let id = json_of(&world, &["subscriptions"], "acme-token")[0]["id"].as_str().unwrap().to_owned();
    let (good, told, _) = run(&world, &["resend", &id], Some("acme-token"));
    assert_eq!((good, &*told), (true, "resend command sent\n"));
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    // A superuser names the account; the subscription id is valid only in that account.
    let (good, _, error) = run(&world, &["end", &id, "umbrella.test"], Some("root-token"));
    assert!(!good && error.contains("404"), "{error}");
    let (good, told, _) = run(&world, &["end", &id, "acme.test"], Some("root-token"));
    assert_eq!((good, &*told), (true, "subscription ended\n"));
    let last = phone.hear_start("NOTIFY");
    assert!(last.contains("Subscription-State: terminated;reason=timeout"), "{last}");
    phone.answer(&last, "200 OK");
    assert!(!run(&world, &["end", &id], Some("acme-token")).0);
}

#[test]
fn a_server_is_drained_and_taken_back_by_whoever_may_see_everything() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    let ready = |wanted| assert_eq!(world.ask_as("", "GET", "/readyz", "").0, wanted);
    let (good, _, error) = run(&world, &["drain"], Some("acme-token"));
    assert!(!good && error.contains("403 forbidden"), "{error}");
    ready(200);
    assert!(run(&world, &["drain", "--status"], Some("root-token")).1.starts_with("Not draining"));
    ready(200);

    // The drain waits for a NOTIFY that is not answered yet.
    world.set("1001", "early");
    let notify = phone.hear_start("NOTIFY");
    let (good, told, _) = run(&world, &["drain"], Some("root-token"));
    assert!(
        good && told.starts_with("Draining: ")
            && told.contains("  1 NOTIFY(s) not answered yet\n  1 subscription(s), the last ends in "),
        "{told}"
    );
    ready(503);
    let (good, _, error) = run(&world, &["drain", "--wait", "1"], Some("root-token"));
    assert!(!good && error.contains("1 NOTIFY(s) are still not answered"), "{error}");
    phone.answer(&notify, "200 OK");
    let (good, told, error) = run(&world, &["drain", "--wait", "60"], Some("root-token"));
    assert!(good && told.contains("  0 NOTIFY(s)"), "{told}{error}");

    // New phones are refused, existing ones are served.
    let other = Phone::new(&world);
    other.send_subscribe("1001", "acme.test");
    let refused = other.hear_start("SIP/2.0 503");
    assert!(refused.contains("Retry-After: "), "{refused}");
    world.set("1001", "confirmed");
    // Retransmissions of the previous NOTIFY may still be in transit.
    let told = loop {
        let notify = phone.hear_start("NOTIFY");
        if notify.contains("<state>confirmed</state>") {
            break notify;
        }
    };
    phone.answer(&told, "200 OK");

    let left = json_of(&world, &["drain", "--undo"], "root-token");
    assert_eq!((&left["draining"], &left["subscriptions"]), (&json!(false), &json!(1)));
    ready(200);
    Phone::new(&world).subscribe("1001", "acme.test");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let (_, help, _) = outcome(&mut command(&["--help"]));
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"drain") && commands.contains(&"search"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let (good, script, error) = outcome(&mut command(&["completion", shell]));
        assert!(good, "{error}");
        for command in &commands {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let (good, page, error) = outcome(&mut command(&["man"]));
    assert!(good && page.contains(".TH lamplighter 1") && page.contains("lamplighter\\-drain(1)"), "{error}{page}");
    let folder = std::env::temp_dir().join(format!("lamplighter-man-{}", std::process::id()));
    let (good, _, error) = outcome(&mut command(&["man", "--folder", folder.to_str().unwrap()]));
    assert!(good, "{error}");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = std::fs::read_to_string(folder.join(format!("lamplighter-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let (good, _, error) = outcome(&mut command(&["man", "--folder", "/dev/null/x"]));
    assert!(!good && error.contains("/dev/null/x cannot be written"), "{error}");
}
