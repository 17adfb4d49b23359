//! The JSON Schema for editors takes every manifest that loads, and refuses what it can tell.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod common;

use countersign_manifest::{Manifest, editor_schema};
use serde_json::Value;

fn errors(validator: &jsonschema::Validator, text: &str) -> Vec<String> {
    let document: Value =
        serde_json::to_value(text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{text}\n{e}")))
            .unwrap();
    validator.iter_errors(&document).map(|error| error.to_string()).collect()
}

fn validator() -> jsonschema::Validator {
    let schema = editor_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_manifest_that_loads_is_valid() {
    let validator = validator();
    let cases = include_str!("../../../fixtures/manifest/accept/manifests.ndjson");
    let mut texts: Vec<String> = cases
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tools");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".clad.toml") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
    for text in &texts {
        let found = errors(&validator, text);
        assert!(found.is_empty(), "{text}\n{found:#?}");
    }
}

#[test]
fn what_a_type_needs_or_has_no_use_for_is_told() {
    let validator = validator();
    for (arg, good) in [
        ("type = \"enum\"", false),
        ("type = \"enum\"\nallowed = [\"a\"]", true),
        ("type = \"regex_match\"", false),
        ("type = \"regex_match\"\npattern = \"^a$\"", true),
        ("type = \"string\"\nallowed = [\"a\"]", false),
        ("type = \"string\"\nschemes = [\"https\"]", false),
        ("type = \"string\"\nallow_at = true\npattern = \"^a$\"", true),
        ("type = \"integer\"\nscope_check = true", false),
        ("type = \"integer\"\nmin_float = 1.0", false),
        ("type = \"integer\"\nmin = 1\nclamp = true", true),
        ("type = \"port\"\nmin = 1", false),
        ("type = \"cidr\"\nallow_internal = true", false),
        ("type = \"cidr\"\nallow_any = true", true),
        ("type = \"agent_summary\"\nallow_whitespace = true", false),
        // Only `toolclad.toml` tells what a type of one's own needs.
        ("type = \"mine\"\nallowed = [\"a\"]", true),
    ] {
        let text =
            common::text(&format!("[args.x]\n{arg}\n[command]\nexec = [\"tool\", \"{{x}}\"]\n"));
        let found = errors(&validator, &text);
        assert_eq!(found.is_empty(), good, "{arg}: {found:?}");
        let loads = Manifest::parse("t.clad.toml", &text).0.is_some();
        assert!(loads == good || arg.contains("mine"), "{arg}");
    }
}
