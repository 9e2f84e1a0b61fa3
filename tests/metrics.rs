//! Metrics for Prometheus and Grafana: names and units follow the conventions, alert rules fire when they should, and
//! every panel of the dashboard has data. Checked with `promtool` (Debian's `prometheus`).

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/folder.rs"]
mod folder;
#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "peers/harness/process.rs"]
#[allow(dead_code)] // others start processes that go on
mod process;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // others ask for more
mod world;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use folder::Folder;
use serde_json::Value;
use world::{Events, PATIENCE, Phone, World};

/// Runs promtool on an input; returns its output, and true if it succeeded.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    (output.status.success(), said)
}

/// A server with a journal on which every counter has been used: both transports, every outcome, refusals, an event
/// stream.
fn busy_world(folder: &Folder) -> (World, (Events, UdpSocket)) {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let hep = format!("hep = {{ server = \"udp://{}\" }}", collector.local_addr().unwrap());
    let dir = folder.path().join("data");
    let world =
        World::new(&format!("data = {{ dir = \"{}\" }}\nlimits = {{ event_streams = 1 }}\n{hep}", dir.display()));
    let mut events = world.listen("");
    let (phone, pbx) = (Phone::new(&world), Phone::new(&world));
    phone.subscribe("1001", "acme.test");
    pbx.publish(1, "1001", "early", "");
    phone.answer(&phone.hear_start("NOTIFY"), "200 OK");
    world.until("lamps/1001", |story| (story["watching"][0]["delivery_status"] == "current").then_some(()));
    pbx.publish(2, "1001", "confirmed", "");
    phone.answer(&phone.hear_start("NOTIFY"), "500 Not Now");
    world.until("lamps/1001", |story| (story["failing"] == 1).then_some(()));
    phone.send(
        "SUBSCRIBE sip:1001@nowhere.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKn;rport\r\n\
                From: <sip:1@nowhere.test>;tag=n\r\nTo: <sip:1001@nowhere.test>\r\nCall-ID: n\r\nCSeq: 1 SUBSCRIBE\r\n\
                Contact: <sip:1@127.0.0.1:9>\r\nEvent: dialog\r\nContent-Length: 0\r\n\r\n",
    );
    phone.hear_start("SIP/2.0 404");
    phone.send(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKm;rport\r\n\
                From: <sip:1@acme.test>;tag=n\r\nTo: <sip:1001@acme.test>\r\nCall-ID: m\r\nCSeq: x SUBSCRIBE\r\n\r\n",
    );
    phone.hear_start("SIP/2.0 400");
    over_tcp(&world);
    events.until_lamp("1001", "talking");
    (world, (events, collector))
}

/// Sends the same OPTIONS twice over TCP.
fn over_tcp(world: &World) {
    let mut stream = TcpStream::connect(world.sip).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..2 {
        stream
            .write_all(
                b"OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKo\r\n\
                  From: <sip:1@acme.test>;tag=n\r\nTo: <sip:acme.test>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\
                  Content-Length: 0\r\n\r\n",
            )
            .unwrap();
        let mut answer = [0; 4_096];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"SIP/2.0 200"));
    }
}

/// Value of a sample, by its full name and labels.
fn sample(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

#[test]
fn every_number_tells_what_has_happened() {
    let folder = Folder::new("metrics");
    let (world, _rest) = busy_world(&folder);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    for (name, value) in [
        ("lamplighter_subscriptions{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"}", 1.0),
        ("lamplighter_subscriptions_stale{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"}", 1.0),
        ("lamplighter_subscriptions_failing{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"}", 1.0),
        ("lamplighter_subscriptions_stale_over{seconds=\"3600\"}", 0.0),
        ("lamplighter_publications{event=\"dialog\"}", 2.0),
        ("lamplighter_notifies_total{transport=\"udp\",vendor=\"Yealink\",outcome=\"acknowledged\"}", 2.0),
        ("lamplighter_notifies_total{transport=\"udp\",vendor=\"Yealink\",outcome=\"refused\"}", 1.0),
        ("lamplighter_notifies_total{transport=\"udp\",vendor=\"other\",outcome=\"refused\"}", 0.0),
        ("lamplighter_notify_response_seconds_count{vendor=\"Yealink\"}", 2.0),
        ("lamplighter_state_changes_total{cause=\"published\"}", 2.0),
        ("lamplighter_requests_total{method=\"SUBSCRIBE\"}", 2.0),
        ("lamplighter_requests_total{method=\"PUBLISH\"}", 2.0),
        ("lamplighter_requests_total{method=\"OPTIONS\"}", 1.0),
        ("lamplighter_requests_total{method=\"other\"}", 1.0),
        ("lamplighter_request_retransmissions_total", 1.0),
        ("lamplighter_requests_challenged_total", 0.0),
        ("lamplighter_requests_rejected_total{method=\"SUBSCRIBE\",status=\"401\",reason=\"Wrong Password\"}", 0.0),
        ("lamplighter_api_requests_rejected_total{method=\"GET\",status=\"401\",reason=\"Wrong Token\"}", 0.0),
        (
            "lamplighter_requests_rejected_total{method=\"SUBSCRIBE\",status=\"404\",reason=\"No Account Has This Realm\"}",
            1.0,
        ),
        ("lamplighter_requests_rejected_total{method=\"other\",status=\"400\",reason=\"Malformed\"}", 1.0),
        (
            "lamplighter_requests_rejected_total{method=\"SUBSCRIBE\",status=\"503\",reason=\"limits.subscriptions\"}",
            0.0,
        ),
        ("lamplighter_messages_received_total{transport=\"udp\"}", 8.0),
        ("lamplighter_messages_sent_total{transport=\"udp\"}", 8.0),
        ("lamplighter_messages_received_total{transport=\"tcp\"}", 2.0),
        ("lamplighter_messages_sent_total{transport=\"tcp\"}", 2.0),
        ("lamplighter_received_batch_datagrams_sum", 8.0),
        ("lamplighter_sent_batch_datagrams_sum", 8.0),
        ("lamplighter_journal_up", 1.0),
        ("lamplighter_journal_queue_bytes", 0.0),
        ("lamplighter_journal_refused_total{reason=\"overloaded\"}", 0.0),
        ("lamplighter_event_streams", 1.0),
        ("lamplighter_event_streams_dropped_total", 0.0),
        ("lamplighter_panics_total", 0.0),
    ] {
        assert_eq!(sample(&text, name), value, "{name}: {text}");
    }
    for name in [
        "lamplighter_stale_max_seconds",
        "lamplighter_received_bytes_total{transport=\"udp\"}",
        "lamplighter_sent_bytes_total{transport=\"tcp\"}",
        "lamplighter_journal_commit_seconds_count",
        "lamplighter_journal_commit_seconds_sum",
        "lamplighter_journal_commit_records_sum",
        "lamplighter_journal_written_bytes_total",
        "lamplighter_journal_size_bytes",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
    ] {
        assert!(sample(&text, name) > 0.0, "{name}: {text}");
    }
    let listener = format!("lamplighter_udp_receive_drops_total{{listener=\"{}\"}}", world.sip);
    assert_eq!(sample(&text, &listener), 0.0);
    // One event stream is allowed; the next is refused and counted.
    assert_eq!(world.ask("GET", "lamp_events", "").0, 503);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    assert_eq!(sample(&text, "lamplighter_event_streams_refused_total"), 1.0);
}

#[test]
fn how_long_a_lamp_has_been_wrong_counts_from_the_first_change_that_its_phone_does_not_know() {
    let world = World::new("");
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    world.set("1001", "early");
    let _ignored = phone.hear_start("NOTIFY");
    let longest = || sample(&world.text_as("root-token", "/metrics", "").1, "lamplighter_stale_max_seconds");
    let behind = "lamplighter_subscriptions_stale{event=\"dialog\",transport=\"udp\",vendor=\"Yealink\"}";
    assert_eq!(sample(&world.text_as("root-token", "/metrics", "").1, behind), 1.0);
    let until = |seconds: f64| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while longest() < seconds {
            assert!(std::time::Instant::now() < deadline, "{} s", longest());
        }
    };
    until(0.2);
    // The next change does not restart the measured time.
    world.set("1001", "confirmed");
    assert!(longest() >= 0.2, "{} s", longest());
    until(1.1);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    assert_eq!(sample(&text, "lamplighter_subscriptions_stale_over{seconds=\"1\"}"), 1.0);
    assert_eq!(sample(&text, "lamplighter_subscriptions_stale_over{seconds=\"300\"}"), 0.0);
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    if process::skip_without("promtool") {
        return;
    }
    let folder = Folder::new("promtool");
    let (world, _rest) = busy_world(&folder);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    let (good, said) = promtool(&["check", "metrics"], &text);
    assert!(good && said.trim().is_empty(), "{said}");
    assert!(!promtool(&["check", "metrics"], "# TYPE x_total gauge\nx_total 1\n").0, "it complains where it should");
}

#[test]
fn the_alert_rules_load_and_do_what_their_tests_say() {
    if process::skip_without("promtool") {
        return;
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prometheus");
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts_test.yml")] {
        let (good, said) = promtool(&[what, "rules", rules.join(file).to_str().unwrap()], "");
        assert!(good, "{said}");
    }
    let (rules, tests) =
        ["alerts.yml", "alerts_test.yml"].map(|file| std::fs::read_to_string(rules.join(file)).unwrap()).into();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test has {alert} go off");
    }
}

/// Collects all Prometheus queries of the dashboard, with values for the variables that Grafana would insert.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(expr) = fields.get("expr").and_then(Value::as_str) {
                found.push(expr.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$job", ".*"));
            }
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Names of metrics in a text: the server's own, and those of every process.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("lamplighter_") || word.starts_with("process_")).map(String::from).collect()
}

#[test]
fn dashboard_and_alerts_ask_only_for_what_there_is_and_promtool_understands_them() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let dashboard = std::fs::read_to_string(docs.join("grafana/lamplighter.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 50, "{asked:?}");
    assert!(!asked.iter().any(|expr| expr.contains('$')), "a variable that is not known here: {asked:?}");
    let alerts = std::fs::read_to_string(docs.join("prometheus/alerts.yml")).unwrap();
    let variables = dashboard["templating"].to_string();
    let folder = Folder::new("dashboard");
    let (world, _rest) = busy_world(&folder);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    let there: BTreeSet<_> = text.lines().filter(|line| !line.starts_with('#')).flat_map(names_in).collect();
    let wanted = names_in(&format!("{} {alerts} {variables}", asked.join(" ")));
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {text}");
    // And no metric is missing: each has a panel, through at least one of its series.
    let base = |name: &String| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let shown: BTreeSet<_> = wanted.iter().map(base).collect();
    let hidden: Vec<_> = there.iter().map(base).filter(|name| !shown.contains(name)).collect();
    assert_eq!(hidden, ["process_start_time_seconds"], "no plot shows these");

    if process::skip_without("promtool") {
        return;
    }
    let rule =
        |(n, expr): (usize, &String)| format!("  - {{ record: \"plot:{n}\", expr: {} }}\n", Value::from(expr.as_str()));
    let rules: String = asked.iter().enumerate().map(rule).collect();
    let file = folder.path().join("plots.yml");
    std::fs::write(&file, format!("groups:\n- name: plots\n  rules:\n{rules}")).unwrap();
    let (good, said) = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(good && said.contains(&format!("SUCCESS: {} rules found", asked.len())), "{said}");
}

#[test]
fn the_documentation_names_every_metric() {
    let folder = Folder::new("documented");
    let (world, _rest) = busy_world(&folder);
    let (_, text) = world.text_as("root-token", "/metrics", "");
    let documented = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let ours = described.filter(|name| name.starts_with("lamplighter_"));
    let silent: Vec<_> = ours.filter(|name| !documented.contains(&format!("`{name}"))).collect();
    assert!(silent.is_empty(), "docs/metrics.md does not have {silent:?}");
}
