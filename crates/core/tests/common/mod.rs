//! The fixtures, and every type of the contract by its name in them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use countersign_core::approval::{
    ApprovalDecision, ApprovalOutcome, ApprovalRecord, ApprovalRequest,
};
use countersign_core::effect::{EffectIntent, EffectResult};
use countersign_core::error::AgentError;
use countersign_core::hold::{Approver, Decision, HeldAction};
use countersign_core::hook::{HookInput, HookRecord, HookResponse, HookSpec};
use countersign_core::journal::JournalRecord;
use countersign_core::json;
use countersign_core::plan::Plan;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub mod random;

pub fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"))
}

pub fn fixture(name: &str) -> String {
    let path = fixtures().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Does something with a type of the contract, whichever a case names.
pub trait Visit {
    type Out;
    fn visit<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(self) -> Self::Out;
}

/// Every type that stands alone, by its name in the fixtures and in `types.json`.
pub const DOCUMENTS: &[(&str, &str)] = &[
    ("agent-error", "AgentError"),
    ("approval-decision", "ApprovalDecision"),
    ("approval-outcome", "ApprovalOutcome"),
    ("approval-record", "ApprovalRecord"),
    ("approval-request", "ApprovalRequest"),
    ("approver", "Approver"),
    ("decision", "Decision"),
    ("effect-intent", "EffectIntent"),
    ("effect-result", "EffectResult"),
    ("held-action", "HeldAction"),
    ("hook-input", "HookInput"),
    ("hook-record", "HookRecord"),
    ("hook-response", "HookResponse"),
    ("hook-spec", "HookSpec"),
    ("journal-record", "JournalRecord"),
    ("plan", "Plan"),
];

pub fn with_type<V: Visit>(document: &str, visit: V) -> V::Out {
    match document {
        "agent-error" => visit.visit::<AgentError>(),
        "approval-decision" => visit.visit::<ApprovalDecision>(),
        "approval-outcome" => visit.visit::<ApprovalOutcome>(),
        "approval-record" => visit.visit::<ApprovalRecord>(),
        "approval-request" => visit.visit::<ApprovalRequest>(),
        "approver" => visit.visit::<Approver>(),
        "decision" => visit.visit::<Decision>(),
        "effect-intent" => visit.visit::<EffectIntent>(),
        "effect-result" => visit.visit::<EffectResult>(),
        "held-action" => visit.visit::<HeldAction>(),
        "hook-input" => visit.visit::<HookInput>(),
        "hook-record" => visit.visit::<HookRecord>(),
        "hook-response" => visit.visit::<HookResponse>(),
        "hook-spec" => visit.visit::<HookSpec>(),
        "journal-record" => visit.visit::<JournalRecord>(),
        "plan" => visit.visit::<Plan>(),
        other => panic!("no type `{other}`"),
    }
}

/// Reads a document and writes it again. What is written reads back as the same value, and is
/// written the same.
pub struct Again<'a>(pub &'a [u8]);

impl Visit for Again<'_> {
    type Out = Result<String, String>;

    fn visit<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(self) -> Self::Out {
        let value: T = json::read(self.0).map_err(|error| error.to_string())?;
        let written = serde_json::to_string(&value).unwrap();
        let second: T = serde_json::from_str(&written)
            .unwrap_or_else(|e| panic!("what was written cannot be read: {e}\n{written}"));
        assert_eq!(second, value, "{written}");
        let mut quick = Vec::new();
        json::write(&second, &mut quick).unwrap();
        assert_eq!(String::from_utf8(quick).unwrap(), written);
        Ok(written)
    }
}

/// One line of a `*.ndjson` of cases.
#[derive(Deserialize)]
pub struct Case {
    pub case: String,
    pub why: String,
    #[serde(rename = "type")]
    pub document: String,
    /// A JSON value; or a text, whose characters are the document.
    input: Box<RawValue>,
    pub expect: Expect,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It comes back byte for byte.
    Same,
    /// It comes back as these.
    Bytes(String),
    /// It is refused, with this in the reason.
    Error(String),
}

impl Case {
    pub fn input(&self) -> String {
        let raw = self.input.get();
        if raw.starts_with('"') { serde_json::from_str(raw).unwrap() } else { raw.to_owned() }
    }
}

/// The files of a family, of every version.
fn documents(family: &str) -> Vec<String> {
    let names = |path: PathBuf| {
        let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut files = Vec::new();
    for version in names(fixtures().join(family)) {
        let folder = format!("{family}/{version}");
        for name in names(fixtures().join(&folder)) {
            if name.ends_with(".ndjson") {
                files.push(format!("{folder}/{name}"));
            }
        }
    }
    files
}

/// Every case of every family, by its file.
pub fn cases() -> Vec<(String, Case)> {
    let mut found = Vec::new();
    for family in ["approvals", "effects", "errors", "holds", "hooks", "journal"] {
        for file in documents(family) {
            for (number, line) in fixture(&file).lines().enumerate() {
                let at = format!("fixtures/{file}:{}", number + 1);
                let case =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{at}: {e}\n{line}"));
                found.push((at, case));
            }
        }
    }
    found
}
