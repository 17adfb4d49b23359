//! What upstream servers said their tools are, as the journal has it: the definitions that were
//! seen first, or that a person accepted.

use std::collections::BTreeMap;

use countersign_core::digest::Digest;
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_manifest::Manifest;
use countersign_ports::journal::{Content, Journal};
use serde_json::Value;

use crate::govern::Kernel;
use crate::recovery::{PAGE, StartError};
use crate::run::{Note, Run, RunError};

/// Why a definition is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinReason {
    /// It was the first one seen.
    FirstSeen,
    /// A person accepted it.
    Accepted,
}

/// The definitions in force, by upstream and tool.
pub type Pins = BTreeMap<(String, String), Value>;

/// Reads from a journal which definitions are in force.
///
/// # Errors
/// When the journal cannot be read, or has a record that cannot be understood.
pub async fn pins(journal: &dyn Journal) -> Result<Pins, StartError> {
    let mut places = BTreeMap::new();
    let mut next = 1;
    loop {
        let entries = journal.read(next, PAGE).await?;
        let Some(last) = entries.last() else { break };
        next = last.seq + 1;
        for entry in &entries {
            // Most records say nothing of this, and need not be read.
            if !contains(&entry.bytes, KEY.as_bytes()) {
                continue;
            }
            let record: JournalRecord = countersign_core::json::read(&entry.bytes)
                .map_err(|source| StartError::Record { seq: entry.seq, source })?;
            if let Some((tool, digest)) = pinned(&record) {
                places.insert(tool, (entry.seq, digest));
            }
        }
    }
    let mut pins = Pins::new();
    for (tool, (seq, digest)) in places {
        let content = journal.content(seq, digest).await?;
        let definition = content.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // One that is not there is in force for nobody, and has to be accepted anew.
        pins.insert(tool, definition.unwrap_or(Value::Null));
    }
    Ok(pins)
}

/// The key by which the records about an upstream tool are found.
const KEY: &str = "upstream_tool";

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn pinned(record: &JournalRecord) -> Option<((String, String), Digest)> {
    let JournalPayload::RunLifecycle(run) = &record.payload else { return None };
    if !["tool_pinned", "tool_accepted"].contains(&run.status.as_str()) {
        return None;
    }
    let key = record.correlation_keys.iter().find(|entry| entry.key == KEY)?;
    let (upstream, tool) = key.value.split_once('/')?;
    let digest = Digest::parse(record.content_refs.first()?.as_str()).ok()?;
    Some(((upstream.to_owned(), tool.to_owned()), digest))
}

impl Kernel {
    /// Whether the tool is still there, and the same.
    pub(crate) fn is_current(&self, manifest: &Manifest) -> bool {
        let manifests = self.manifests();
        manifests.get(manifest.name()).is_some_and(|now| now.digest() == manifest.digest())
    }

    /// Records something about a run outside a call, as often as it happens.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn run_note(&self, run: &Run, status: &str, reason: &str) -> Result<(), RunError> {
        self.run_note_with(run, Note { status, reason, key: None, contents: Vec::new() }).await
    }

    /// Records that the definition of an upstream tool is in force from now on.
    ///
    /// # Errors
    /// When it cannot be recorded; then it is not in force.
    pub async fn pin(
        &self,
        run: &Run,
        (upstream, tool): (&str, &str),
        definition: &Value,
        why: PinReason,
    ) -> Result<(), RunError> {
        let text = countersign_manifest::definition_text(definition);
        let (status, words) = match why {
            PinReason::FirstSeen => ("tool_pinned", "was seen for the first time"),
            PinReason::Accepted => ("tool_accepted", "was accepted by a person"),
        };
        let note = Note {
            status,
            reason: &format!("the definition of `{tool}` of upstream `{upstream}` {words}"),
            key: Some((KEY, format!("{upstream}/{tool}"))),
            contents: vec![Content::new(text.into_bytes())],
        };
        self.run_note_with(run, note).await
    }
}
