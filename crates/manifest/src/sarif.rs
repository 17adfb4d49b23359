//! Findings in the Static Analysis Results Interchange Format 2.1.0, for code scanners.

use serde_json::{Value, json};

use crate::codes::{CODES, CodeKind};
use crate::diagnostic::Severity;
use crate::set::FileDiagnostic;

/// One run of the tool with every finding, and every rule that could have been found. Files are
/// named as they were given, with `/` between folders.
#[must_use]
pub fn sarif(found: &[FileDiagnostic], version: &str) -> Value {
    let rules: Vec<Value> = CODES
        .iter()
        .filter(|code| code.kind != CodeKind::Argument || code.code == "nul")
        .map(|code| {
            let level = if code.kind == CodeKind::Warning { "warning" } else { "error" };
            json!({
                "id": code.code,
                "shortDescription": {"text": code.meaning},
                "defaultConfiguration": {"level": level},
            })
        })
        .collect();
    let results: Vec<Value> = found.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "countersign",
                "version": version,
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(found: &FileDiagnostic) -> Value {
    let diagnostic = &found.diagnostic;
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let text = match &diagnostic.fix {
        Some(fix) => format!("{}; {fix}", diagnostic.message),
        None => diagnostic.message.clone(),
    };
    json!({
        "ruleId": diagnostic.code,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri(&found.file)},
            "region": {
                "startLine": found.line,
                "startColumn": found.column,
                "byteOffset": diagnostic.span.start,
                "byteLength": diagnostic.span.len(),
            },
        }}],
    })
}

/// A relative reference, or a path as a `file` URL would have it.
fn uri(file: &str) -> String {
    let mut out = String::new();
    for byte in file.bytes() {
        match byte {
            b'\\' => out.push('/'),
            b if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}
