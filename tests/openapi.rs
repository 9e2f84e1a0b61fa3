//! OpenAPI document: a validator finds no error in it, and a schema fuzzer (schemathesis) finds no response of a real
//! server that it does not describe.
//!
//! Seed and number of examples are fixed, so that every run is the same. Skipped where schemathesis is not installed;
//! `.ci/run` installs it as tests/peers/schemathesis/requirements.txt says.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "peers/harness/process.rs"]
#[allow(dead_code)] // of the peers' harness only what skips is needed here
mod process;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // what the tests of the API ask for is not all asked for here
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use process::skip_unless;
use serde_json::{Value, json};
use world::{ACME, Phone, World};

const REMEDY: &str = "(.ci/run makes it from tests/peers/schemathesis/requirements.txt)";

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/schemathesis/.venv/bin").join(name)
}

fn is_missing() -> bool {
    let installed = program("schemathesis").is_file() && program("openapi-spec-validator").is_file();
    skip_unless(installed, "schemathesis", REMEDY)
}

/// Temporary folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("openapi").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn document(world: &World) -> Value {
    let (head, body) = world.text_as("no token is needed", "/openapi.json", "");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// Makes the document strict: no field may be missing and none may be added. Clients should be tolerant, a test should
/// not.
fn strict(mut document: Value) -> Value {
    fn tighten(schema: &mut Value) {
        match schema {
            Value::Object(map) => {
                if map.contains_key("properties") {
                    map.entry("additionalProperties").or_insert(json!(false));
                }
                map.values_mut().for_each(tighten);
            }
            Value::Array(all) => all.iter_mut().for_each(tighten),
            _ => {}
        }
    }
    for (_, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
        // Requests may have further fields: the server reads only those that it knows.
        if schema.as_object_mut().unwrap().remove("x-request").is_none() {
            tighten(schema);
        }
    }
    tighten(&mut document["paths"]);
    document
}

#[test]
fn the_document_is_an_openapi_document_and_the_reference_shows_it() {
    let world = World::new("");
    let document = document(&world);
    let (head, page) = world.text_as("no token is needed", "/docs", "");
    assert!(head.contains("text/html") && page.contains("/assets/docs.js"), "{head}");
    assert!(head.contains("x-request-id: "), "every answer names its request: {head}");
    if is_missing() {
        return;
    }
    let file = folder("validator").join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    run(Command::new(program("openapi-spec-validator")).args(["--validation-errors", "all"]).arg(file));
}

#[test]
fn a_schema_fuzzer_finds_no_answer_that_the_document_does_not_foresee() {
    if is_missing() {
        return;
    }
    let world = World::new("");
    let (phone, pbx) = (Phone::new(&world), Phone::new(&world));
    // One extension has every kind of data and is not reset, so that every schema is used: a call, a publication, a
    // watcher that has answered one NOTIFY, and one NOTIFY that it has not answered.
    phone.subscribe("1001", "acme.test");
    phone.subscribe("1004", "acme.test");
    pbx.publish(1, "1004", "confirmed", "");
    world.set("1002", "early");
    let watchers = world.data("subscriptions");
    let id = |extension: &str| {
        let found = watchers.as_array().unwrap().iter().find(|row| row["extension"] == extension);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (story, lamp) = (id("1004"), id("1001"));

    // Refusals of an account, and of none.
    for (extension, realm) in [("x".repeat(129), "acme.test"), ("1001".into(), "nowhere.test")] {
        let refused = Phone::new(&world);
        refused.send_subscribe(&extension, realm);
        refused.hear_start("SIP/2.0 404");
    }

    // A trace with a message in it.
    assert_eq!(world.ask("POST", &format!("subscriptions/{story}"), r#"{"data":{"action":"trace"}}"#).0, 200);
    assert_eq!(world.ask("POST", &format!("subscriptions/{story}"), r#"{"data":{"action":"resend"}}"#).0, 200);

    let folder = folder("fuzzer");
    std::fs::write(folder.join("openapi.json"), strict(document(&world)).to_string()).unwrap();
    // Most requests are for resources that exist; the others have values that the fuzzer generates.
    let configuration = format!(
        r#"
[dictionaries.account]
values = ["{ACME}"]
[dictionaries.extension]
values = ["1001", "1002", "1003"]
[dictionaries.device]
values = ["d1", "d2"]
[dictionaries.user]
values = ["u1"]
[dictionaries.subscription]
values = ["{story}", "{lamp}"]
[dictionaries.story]
values = ["1004", "1001"]
# A method that is served nowhere, such as TRACE, is 501 (RFC 9110 section 15.6.2).
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501"]
[parameters]
"path.account" = {{ dictionary = "account", probability = 0.9 }}
"path.extension" = {{ dictionary = "extension", probability = 0.7 }}
"path.device" = {{ dictionary = "device", probability = 0.8 }}
"path.user" = {{ dictionary = "user", probability = 0.8 }}
"path.subscription" = {{ dictionary = "subscription", probability = 0.8 }}
[[operations]]
include-operation-id = "explainLamp"
parameters = {{ "path.extension" = {{ dictionary = "story", probability = 0.8 }} }}
# 128 characters may be more than the 128 bytes that an extension has, which JSON Schema has no words for.
[[operations]]
include-path-regex = "presence/.extension"
checks.positive_data_acceptance.enabled = false
"#
    );
    std::fs::write(folder.join("schemathesis.toml"), configuration).unwrap();
    let fuzz = |more: &[&str]| {
        let mut command = Command::new(program("schemathesis"));
        command.current_dir(&folder).arg("--config-file").arg(folder.join("schemathesis.toml"));
        command.args(["--no-color", "run", "openapi.json", "--url"]).arg(world.page(""));
        command.args(["--seed", "6", "--max-examples", "25", "--warnings", "off"]);
        command.args(["--header", "X-Auth-Token: root-token", "--request-timeout", "20", "--continue-on-failure"]);
        command.args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic"]);
        let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,allow_header_conformance,\
                      negative_data_rejection,positive_data_acceptance";
        run(command.args(["--checks", checks]).args(more));
    };
    // The event stream does not end by itself (tests/lamps.rs reads it). Subscriptions are ended last.
    fuzz(&["--exclude-operation-id", "lampEvents", "--exclude-operation-id", "drain", "--exclude-method", "DELETE"]);
    fuzz(&["--include-method", "DELETE"]);
    // After this request the server is not ready any more, and answers 503.
    fuzz(&["--include-operation-id", "drain"]);
    // The server has survived without a panic.
    let (_, metrics) = world.text_as("root-token", "/metrics", "");
    assert!(metrics.contains("lamplighter_panics_total 0\n"), "{metrics}");
}
