//! Builders shared by the tests.

#![allow(dead_code, reason = "each test uses some")]

use countersign_core::plan::Plan;
use countersign_manifest::{Manifest, Planned};
use serde_json::{Map, Value};

pub(crate) const TOOL: &str = r#"
[tool]
name = "t"
version = "1.0.0"
description = "A tool"
binary = "tool"
"#;

pub(crate) const OUTPUT: &str = "[output]\nformat = \"text\"\nschema = {}\n";

/// A manifest with these `[args]` and `[command]` tables.
pub(crate) fn text(rest: &str) -> String {
    format!("{TOOL}{OUTPUT}{rest}")
}

pub(crate) fn manifest(rest: &str) -> Manifest {
    let (manifest, found) = Manifest::parse("t.clad.toml", &text(rest));
    manifest.unwrap_or_else(|| panic!("{rest}\n{found:#?}"))
}

/// A tool with one required argument `x`, alone in its element.
pub(crate) fn one(arg: &str) -> Manifest {
    manifest(&format!("[args.x]\nrequired = true\n{arg}\n[command]\nexec = [\"tool\", \"{{x}}\"]"))
}

pub(crate) fn object(args: &str) -> Map<String, Value> {
    serde_json::from_str(args).unwrap_or_else(|e| panic!("{args}: {e}"))
}

/// The codes of the findings of a text.
pub(crate) fn codes(text: &str) -> Vec<&'static str> {
    let (manifest, found) = Manifest::parse("t.clad.toml", text);
    let error = found.iter().any(|d| d.severity == countersign_manifest::Severity::Error);
    assert_eq!(manifest.is_none(), error, "{text}\n{found:#?}");
    for d in &found {
        assert!(text.get(d.span.clone()).is_some(), "{d:?}");
    }
    found.iter().map(|d| d.code).collect()
}

pub(crate) fn argv(planned: &Planned) -> &[String] {
    let Plan::Command(command) = &planned.plan else { panic!("{planned:?}") };
    &command.argv
}
