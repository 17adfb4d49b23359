//! The export for systems that watch other systems, over a log with every kind of record a gateway
//! writes, against what the published schemas say.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use chrono::DateTime;
use serde_json::{Map, Value, json};

use crate::common::{Gateway, World, finish, principal, wait_for};

const SCHEMA: &str = include_str!("../../../fixtures/ocsf/v1/api-activity-1.5.0.json");

const SLOW: &str = r#"
[tool]
name = "slow"
version = "1.0.0"
description = "Takes its time."
risk_tier = "low"
binary = "sleep"
[args.seconds]
type = "integer"
required = true
[command]
exec = ["sleep", "{seconds}"]
[output]
format = "text"
"#;

/// What is wrong with a value that should be of this type, and where.
fn wrong(schema: &Value, kind: &str, value: &Value, at: &str, found: &mut Vec<String>) {
    let fits = match kind {
        "string" => value.is_string(),
        "integer" | "long" => value.is_i64(),
        // Milliseconds; in seconds it would be long before this was written, in nanoseconds long
        // after it is read.
        "timestamp" => value.as_i64().is_some_and(|ms| (1 << 40..1 << 43).contains(&ms)),
        "any_object" => value.is_object(),
        object => match value.as_object() {
            Some(fields) => return wrong_object(schema, object, fields, at, found),
            None => false,
        },
    };
    if !fits {
        found.push(format!("{at} is no {kind}: {value}"));
    }
}

fn wrong_object(
    schema: &Value,
    object: &str,
    fields: &Map<String, Value>,
    at: &str,
    found: &mut Vec<String>,
) {
    let object = &schema["objects"][object];
    let names = |what: &str| -> Vec<&str> {
        let names = object[what].as_array().into_iter().flatten();
        names.map(|name| name.as_str().unwrap()).collect()
    };
    // What is null or empty says nothing.
    let there = |name: &&str| {
        fields
            .get(*name)
            .is_some_and(|value| !value.is_null() && *value != "" && *value != json!({}))
    };
    for name in names("required") {
        if !there(&name) {
            found.push(format!("{at}/{name} is required"));
        }
    }
    let one = names("at_least_one");
    if !one.is_empty() && !one.iter().any(there) {
        found.push(format!("{at} has none of {}", one.join(", ")));
    }
    for (name, value) in fields {
        let at = format!("{at}/{name}");
        let Some(field) = object["fields"].get(name) else {
            found.push(format!("{at} is not in the schema"));
            continue;
        };
        if field["values"].as_array().is_some_and(|values| !values.contains(value)) {
            found.push(format!("{at} cannot be {value}"));
        }
        wrong(schema, field["type"].as_str().unwrap(), value, &at, found);
    }
}

/// What the schema, and its rules over several fields, find wrong with an event.
fn problems(event: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut found = Vec::new();
    wrong(&schema, schema["event"].as_str().unwrap(), event, "", &mut found);
    let number = |name: &str| event[name].as_i64();
    let type_uid = number("class_uid").zip(number("activity_id")).map(|(c, a)| c * 100 + a);
    if type_uid != number("type_uid") {
        found.push("/type_uid is not that of the class and the activity".to_owned());
    }
    if number("class_uid").map(|class| class / 1000) != number("category_uid") {
        found.push("/category_uid is not that of the class".to_owned());
    }
    // `Other` is told by a name of one's own.
    if event["activity_id"] == 99 && event["activity_name"].as_str().is_none_or(str::is_empty) {
        found.push("/activity_name is missing".to_owned());
    }
    if event["metadata"]["version"] != schema["schema"] {
        found.push("/metadata/version is another schema's".to_owned());
    }
    found
}

/// A call of `create_directory` by the agent, left waiting.
fn ask(world: &World, path: &str) -> Child {
    begin(world, "create_directory", &json!({ "path": path }))
}

fn begin(world: &World, tool: &str, args: &Value) -> Child {
    let mut command = world.command(&["call", tool, "--json", "--args", &args.to_string()]);
    command.env("COUNTERSIGN_TOKEN", "agent-token");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn hold(gateway: &Gateway) -> String {
    wait_for("a hold", || {
        let holds = gateway.send("GET /api/v1/approvals", Some("ada-token"), None).json();
        Some(holds.as_array()?.first()?["id"].as_str()?.to_owned())
    })
}

fn answer(gateway: &Gateway, who: &str, id: &str, what: &str, body: &Value) -> Value {
    let token = format!("{who}-token");
    let path = format!("POST /api/v1/approvals/{id}/{what}");
    let answer = gateway.send(&path, Some(&token), Some(body));
    assert!(answer.status < 300, "{who} {what}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// A gateway has seen all that it writes records about.
fn lived() -> World {
    let world = World::with_tools(&[("slow.clad.toml", SLOW)]);
    let people =
        ["ada", "bob"].map(|id| principal(id, "approver") + "groups = [\"ops\"]\n").concat();
    let others = ["agent", "critic", "auditor"].map(|role| principal(role, role)).concat();
    world.configure(&format!(
        "[[approvals.rules]]\nname = \"two\"\ntool = \"create_directory\"\nwhen = \"path == two\"\n\
         factors = [{{ group = \"ops\", count = 2 }}]\n\
         [[approvals.rules]]\nname = \"short\"\ntool = \"create_directory\"\nwhen = \"path == gone\"\n\
         factors = [{{ group = \"ops\", count = 1 }}]\ntimeout_seconds = 1\n\
         [[hooks]]\nid = \"h\"\npoint = \"before_tool_call\"\ntimeout_ms = 30000\n\
         command = [\"sh\", \"-c\", \"cat > /dev/null; echo '{{\\\"type\\\": \\\"observe_only\\\"}}'\"]\n\
         {people}{others}"
    ));
    let gateway = world.start();
    let run = |tool: &str, args: Value| {
        let body = json!({ "tool": tool, "arguments": args });
        gateway.send("POST /api/v1/calls", Some("agent-token"), Some(&body)).json()
    };
    run("git_log", json!({ "limit": 5 }));
    run("read_file", json!({ "path": "nothing.md" }));
    run("read_file", json!({ "path": "../out" }));
    run("no_such_tool", json!({}));
    for (path, what) in [("one", "approve"), ("none", "deny")] {
        let call = ask(&world, path);
        answer(&gateway, "ada", &hold(&gateway), what, &json!({ "reason": "why" }));
        finish(call);
    }
    let call = ask(&world, "two");
    let id = hold(&gateway);
    answer(&gateway, "ada", &id, "claim", &json!({}));
    answer(&gateway, "ada", &id, "approve", &json!({}));
    answer(&gateway, "bob", &id, "approve", &json!({}));
    finish(call);
    let call = ask(&world, "asked");
    let id = hold(&gateway);
    let arguments = json!({ "path": "edited" });
    let shown = answer(&gateway, "ada", &id, "edit", &json!({ "arguments": arguments }));
    let edited = json!({ "arguments": arguments, "fingerprint": shown["fingerprint"] });
    answer(&gateway, "ada", &id, "approve", &edited);
    finish(call);
    let verdict = json!({
        "director_output": "this", "critic_assessment": "that", "verdict": "rejected", "score": 0.1,
        "dimension_scores": {}, "iteration": 0,
    });
    assert_eq!(
        gateway.send("POST /api/v1/verdicts", Some("critic-token"), Some(&verdict)).status,
        200
    );
    // Nobody answers in time; then the gateway goes away while one call waits and another runs.
    finish(ask(&world, "gone"));
    let late = ask(&world, "late");
    hold(&gateway);
    let slow = begin(&world, "slow", &json!({ "seconds": 30 }));
    wait_for("the effect", || {
        let records = records(&world);
        let begun = |record: &Value| record["payload"]["canonical_tool_name"] == "slow";
        records.iter().any(begun).then_some(())
    });
    gateway.kill();
    for mut left in [late, slow] {
        left.kill().unwrap();
        left.wait().unwrap();
    }
    world.text(&["audit", "critic", "rotate"]);
    world.start().stop();
    world.text(&["audit", "key", "rotate"]);
    world.start().stop();
    world
}

fn lines(world: &World, more: &[&str]) -> Vec<Value> {
    let text = world.text(&[&["audit", "export", "--ocsf", "-"], more].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of the log, as they are stored.
fn records(world: &World) -> Vec<Value> {
    let text = world.text(&["journal", "tail", "-n", "100000", "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn all_that_a_gateway_records_is_told_as_the_published_schemas_have_it() {
    let world = lived();
    every_event_is_as_the_published_schema_has_it(&world);
    every_envelope_is_a_cloudevent_in_json(&world);
    an_event_with_anything_wrong_is_told_from_one_that_is_right(&lines(&world, &[]));
}

fn every_event_is_as_the_published_schema_has_it(world: &World) {
    let (events, records) = (lines(world, &[]), records(world));
    for event in &events {
        let found = problems(event);
        assert!(found.is_empty(), "{}\n{event:#}", found.join("\n"));
    }
    // It has seen them all, and each is there but those that others tell as well.
    let kinds: BTreeSet<_> = records
        .iter()
        .map(|record| {
            let payload = &record["payload"];
            let part = payload["record_type"].as_str().or(payload["status"].as_str());
            (payload["type"].as_str().unwrap(), part.unwrap_or_default())
        })
        .collect();
    for kind in [
        ("approval", "denied"),
        ("approval", "dispatch_intent"),
        ("approval", "dispatch_result"),
        ("approval", "requested"),
        ("approval", "responded"),
        ("critic_verdict", ""),
        ("hold", "claimed"),
        ("hold", "edited"),
        ("hold", "voted"),
        ("hook", ""),
        ("log_key_rotation", ""),
        ("recovery", ""),
        ("tool", "completed"),
        ("tool", "denied_before_execution"),
        ("tool", "failed"),
        ("tool", "intent_recorded"),
    ] {
        assert!(kinds.contains(&kind), "no {kind:?} among {kinds:?}");
    }
    let told: BTreeSet<_> =
        events.iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect();
    let untold: BTreeSet<_> = records
        .iter()
        .filter(|record| !told.contains(&record["journal_seq"].as_u64().unwrap()))
        .map(|record| record["payload"]["record_type"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(untold, BTreeSet::from(["dispatch_intent", "dispatch_result"]));
    // Each leads back to its record.
    for event in &events {
        let seq = event["metadata"]["sequence"].as_u64().unwrap();
        let record = &records[usize::try_from(seq).unwrap() - 1];
        assert_eq!(event["metadata"]["uid"], record["record_id"]);
        assert_eq!(event["time"], record["timestamp_millis"]);
    }
    let by = |operation: &str| {
        let events = events.iter().filter(|event| event["api"]["operation"] == operation);
        let told = events.map(|event| {
            (event["actor"]["user"]["uid"].as_str().unwrap(), event["status_id"].as_i64().unwrap())
        });
        told.collect::<Vec<_>>()
    };
    // Approved, denied, approved by two, and as edited.
    assert_eq!(by("approval.decide"), [("ada", 1), ("ada", 2), ("bob", 1), ("ada", 1)]);
}

fn an_event_with_anything_wrong_is_told_from_one_that_is_right(events: &[Value]) {
    let event = events.iter().find(|event| event["api"]["request"]["uid"].is_string()).unwrap();
    assert_eq!(problems(event), Vec::<String>::new());
    let refused = |path: &str, value: Option<Value>| {
        let mut changed = event.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match &value {
            None => drop(parent.remove(name).unwrap()),
            Some(value) => drop(parent.insert(name.to_owned(), value.clone())),
        }
        assert!(!problems(&changed).is_empty(), "{path} {value:?}");
    };
    let required = [
        "/activity_id",
        "/activity_name",
        "/actor",
        "/actor/user",
        "/actor/user/uid",
        "/api",
        "/api/operation",
        "/api/request/uid",
        "/api/service/name",
        "/category_uid",
        "/class_uid",
        "/metadata",
        "/metadata/product",
        "/metadata/product/name",
        "/metadata/version",
        "/severity_id",
        "/src_endpoint",
        "/src_endpoint/name",
        "/time",
        "/type_uid",
    ];
    for path in required {
        for value in [None, Some(Value::Null), Some(json!("")), Some(json!([])), Some(json!({}))] {
            refused(path, value);
        }
    }
    for (path, value) in [
        ("/activity_id", json!(5)),
        ("/activity_id", json!(1)),
        ("/category_uid", json!(3)),
        ("/class_uid", json!(6002)),
        ("/severity_id", json!(7)),
        ("/severity_id", json!("1")),
        ("/status_id", json!(3)),
        ("/time", json!(1.5)),
        ("/time", json!("2026-01-01T00:00:00Z")),
        ("/time", json!(1_790_000_000)),
        ("/time", json!(1_790_000_000_000_000_i64)),
        ("/time", json!(-1)),
        ("/type_uid", json!(600_301)),
        ("/message", Value::Null),
        ("/metadata/sequence", json!("1")),
        ("/metadata/version", json!("1.0.0")),
        ("/unmapped", json!("x")),
        ("/api/service", json!("x")),
        ("/no_such_field", json!(1)),
        ("/actor/no_such_field", json!(1)),
    ] {
        refused(path, Some(value));
    }
}

fn every_envelope_is_a_cloudevent_in_json(world: &World) {
    let (enveloped, plain) = (lines(world, &["--cloudevents"]), lines(world, &[]));
    assert_eq!(enveloped.len(), plain.len());
    let mut seen = BTreeSet::new();
    for (event, data) in enveloped.iter().zip(&plain) {
        let attributes = event.as_object().unwrap();
        for (name, value) in attributes {
            // Section 3.1: names are lower-case letters and digits; 3.1.1: no value is null.
            assert!(
                !name.is_empty()
                    && name.len() <= 20
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
                "{name}"
            );
            assert!(
                name == "data" || value.as_str().is_some_and(|text| !text.is_empty()),
                "{event}"
            );
        }
        let known =
            ["data", "datacontenttype", "id", "source", "specversion", "subject", "time", "type"];
        assert!(attributes.keys().all(|name| known.contains(&name.as_str())), "{event}");
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}: {event}"));
        assert_eq!(text("specversion"), "1.0");
        assert_eq!(text("datacontenttype"), "application/json");
        assert!(seen.insert((text("source"), text("id"))), "{event} is there twice");
        assert!(is_reference(text("source")), "{event}");
        assert!(text("type").bytes().all(|byte| byte.is_ascii_graphic()), "{event}");
        let time = DateTime::parse_from_rfc3339(text("time")).unwrap();
        assert_eq!(time.timestamp_millis(), event["data"]["time"].as_i64().unwrap());
        assert_eq!(&event["data"], data);
    }
}

/// Whether a text is a URI reference without a scheme: RFC 3986, 4.1.
fn is_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    !text.is_empty()
        && !text.starts_with("//")
        && !text.split('/').next().unwrap_or_default().contains(':')
        && bytes.iter().enumerate().all(|(at, byte)| match byte {
            b'%' => {
                bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte),
        })
}
