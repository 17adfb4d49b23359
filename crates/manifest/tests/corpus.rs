//! Every case below `fixtures/manifest`: its verdict, and the reason.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::collections::BTreeSet;

use countersign_core::plan::Plan;
use countersign_manifest::{Manifest, Project, Severity};
use serde_json::{Map, Value, json};

fn fixture(path: &str) -> String {
    let path = format!("{}/../../fixtures/manifest/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn cases(path: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    fixture(path).lines().map(parse).collect()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn project(case: &Value) -> Project {
    let mut project = Project::default();
    let mut found = Vec::new();
    if let Some(types) = case["types"].as_str() {
        let (next, diagnostics) = project.with_types(types);
        project = next;
        found.extend(diagnostics);
    }
    if let Some(scope) = case["scope"].as_str() {
        let (next, diagnostics) = project.with_scope(scope);
        project = next;
        found.extend(diagnostics);
    }
    assert!(found.is_empty(), "{}: {found:?}", case["case"]);
    project
}

/// What a call with the value gives: the text in the plan, or a code.
fn verdict(case: &Value) -> Result<String, String> {
    let arg = text(case, "arg");
    let manifest = common::text(&format!(
        "[args.x]\nrequired = true\n{arg}\n[command]\nexec = [\"tool\", \"mid\", \"{{x}}\", \"end\"]"
    ));
    let (manifest, found) = Manifest::parse_in(&project(case), "t.clad.toml", &manifest);
    let manifest = manifest.unwrap_or_else(|| panic!("{}: {found:?}", case["case"]));
    let args = Map::from_iter([("x".to_owned(), case["value"].clone())]);
    let planned = manifest.plan(&args).map_err(|problems| {
        assert_eq!(problems.len(), 1, "{}", case["case"]);
        problems[0].code.to_owned()
    })?;
    assert_eq!(manifest.plan(&args).as_ref(), Ok(&planned), "{}", case["case"]);
    let value = planned.args[0].1.clone();
    let Plan::Command(plan) = planned.plan else { panic!("{}", case["case"]) };
    let closed = arg.contains("\"enum\"") || arg.contains("\"boolean\"");
    let expected: &[&str] = match closed {
        true => &["tool", "mid", &value, "end"],
        false => &["tool", "mid", "--", &value, "end"],
    };
    assert_eq!(plan.argv, expected, "{}", case["case"]);
    Ok(value)
}

#[test]
fn accepted_values_become_one_element() {
    let mut wrong = Vec::new();
    for case in cases("accept/values.ndjson") {
        let expected = case["resolved"].as_str().or(case["value"].as_str()).unwrap();
        let found = verdict(&case);
        if found.as_deref() != Ok(expected) {
            wrong.push(format!("{}: {found:?}", case["case"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn refused_values_have_their_code() {
    let mut wrong = Vec::new();
    for case in cases("reject/values.ndjson") {
        let found = verdict(&case);
        if found != Err(text(&case, "code").to_owned()) {
            wrong.push(format!("{}: {found:?}, not {}", case["case"], case["code"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn good_manifests_load_and_plan() {
    let mut wrong = Vec::new();
    for case in cases("accept/manifests.ndjson") {
        let (manifest, found) =
            Manifest::parse_in(&project(&case), "t.clad.toml", text(&case, "text"));
        let codes: Vec<&str> = found.iter().map(|d| d.code).collect();
        let Some(manifest) = manifest.filter(|_| json!(codes) == case["codes"]) else {
            wrong.push(format!("{}: {found:#?}", case["case"]));
            continue;
        };
        if let Some(args) = case["args"].as_object() {
            let plan = manifest.plan(args).map(|planned| json!(planned.plan));
            if plan != Ok(case["plan"].clone()) {
                wrong.push(format!("{}: {plan:?}\n    not {}", case["case"], case["plan"]));
            }
        }
        // Calls of it that are refused.
        for refused in case["refused"].as_array().into_iter().flatten() {
            let codes = manifest
                .plan(refused[0].as_object().unwrap())
                .map_err(|problems| problems.iter().map(|p| p.code).collect::<Vec<_>>());
            if codes.as_ref().err() != Some(&vec![refused[1].as_str().unwrap()]) {
                wrong.push(format!("{}: {refused}: {codes:?}", case["case"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn broken_manifests_have_their_codes() {
    let mut wrong = Vec::new();
    for case in cases("reject/manifests.ndjson") {
        let source = text(&case, "text");
        let (manifest, found) = Manifest::parse_in(&project(&case), "t.clad.toml", source);
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        let mut codes: Vec<&str> = errors.map(|d| d.code).collect();
        codes.sort_unstable();
        let mut expected: Vec<&str> =
            case["codes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        expected.sort_unstable();
        if manifest.is_some() || codes != expected {
            wrong.push(format!("{}: {codes:?}, not {expected:?}", case["case"]));
        }
        for d in &found {
            assert!(source.get(d.span.clone()).is_some(), "{}: {d:?}", case["case"]);
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_case_says_what_and_why_once_and_most_are_refusals() {
    let mut names = BTreeSet::new();
    let mut count = |files: [&str; 2]| -> usize {
        let cases = files.into_iter().flat_map(cases);
        cases
            .map(|case| {
                assert!(names.insert(text(&case, "case").to_owned()), "{} is taken", case["case"]);
                let why = text(&case, "why");
                assert!(why.ends_with('.') && why.len() > 10, "{}: {why}", case["case"]);
            })
            .count()
    };
    let accepted = count(["accept/values.ndjson", "accept/manifests.ndjson"]);
    let refused = count(["reject/values.ndjson", "reject/manifests.ndjson"]);
    assert!(accepted + refused >= 300 && refused > accepted, "{accepted}, {refused}");
}

/// What the other implementations of the format share.
#[test]
fn the_shared_vectors_of_the_scope_hold() {
    let vectors: Value = serde_json::from_str(&fixture("vectors/scope.json")).unwrap();
    let vectors = &vectors["vectors"];
    let check = |arg: &str, value: &str, scope: &str, expected: &Value| {
        let mut case = json!({"case": value, "arg": arg, "value": value});
        if !scope.is_empty() {
            case["scope"] = json!(scope);
        }
        assert_eq!(json!(verdict(&case).is_ok()), *expected, "{arg} {value} {scope}");
    };
    let scoped = "type = \"scope_target\"\nscope_check = true";
    for family in ["ipv4_in_cidr", "ipv6_in_cidr"] {
        for v in vectors[family].as_array().unwrap() {
            let scope = format!("[scope]\ntargets = [{}]", v["cidr"]);
            check(scoped, text(v, "ip"), &scope, &v["expected"]);
        }
    }
    for v in vectors["hostname_wildcard_match"].as_array().unwrap() {
        let scope = format!("[scope]\ndomains = [{}]", v["pattern"]);
        check(scoped, text(v, "hostname"), &scope, &v["expected"]);
    }
    for v in vectors["scope_target_validation"].as_array().unwrap() {
        check("type = \"scope_target\"", text(v, "value"), "", &v["valid"]);
    }
    for v in vectors["url_scope_check"].as_array().unwrap() {
        let scope = format!("[scope]\ndomains = {}", v["allowed_hosts"]);
        check("type = \"url\"\nscope_check = true", text(v, "url"), &scope, &v["expected"]);
    }
}

/// But for `pattern_search`: a pattern has to match the whole value here.
#[test]
fn the_shared_vectors_of_literal_text_hold() {
    let vectors: Value = serde_json::from_str(&fixture("vectors/literal_text.json")).unwrap();
    for v in vectors["cases"].as_array().unwrap() {
        let pattern = v["pattern"].as_str().map(|p| format!("\npattern = {:?}", p));
        let arg = format!("[args.x]\ntype = \"literal_text\"{}", pattern.unwrap_or_default());
        let manifest = common::text(&format!("{arg}\n[command]\nexec = [\"tool\", \"{{x}}\"]"));
        let value =
            text(v, "value").repeat(usize::try_from(v["repeat"].as_u64().unwrap()).unwrap());
        let args = Map::from_iter([("x".to_owned(), json!(value))]);
        let (manifest, _) = Manifest::parse("t.clad.toml", &manifest);
        let planned = manifest.and_then(|manifest| manifest.plan(&args).ok());
        let refused = v["error"] == true || v["name"] == "pattern_search";
        assert_eq!(planned.is_none(), refused, "{}", v["name"]);
        if let Some(planned) = planned {
            assert_eq!(common::argv(&planned), ["tool", "--", &value]);
        }
    }
}
