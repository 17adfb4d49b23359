//! Records to append.

use countersign_core::id::{AgentId, RecordId, RefId, RunId, RuntimePackageFingerprint};
use countersign_core::journal::{JournalDraft, RecordBase, RunLifecycle, TOOL_CALL_KEY};
use countersign_core::refs::{CorrelationEntry, SourceKind, SourceRef};

/// A run record with this id and text, filed under `call` when there is one.
#[must_use]
pub fn draft(record_id: &str, reason: &str, call: Option<&str>) -> JournalDraft {
    let base = RecordBase {
        correlation_keys: call
            .map(|call| CorrelationEntry { key: TOOL_CALL_KEY.into(), value: call.into() })
            .into_iter()
            .collect(),
        ..RecordBase::new(
            RunId::new("run.test").unwrap(),
            AgentId::new("agent.test").unwrap(),
            SourceRef::new(SourceKind::Host, RefId::new("source.test").unwrap()),
            RuntimePackageFingerprint::new("fp"),
        )
    };
    let run = RunLifecycle { status: "started".into(), reason: reason.into() };
    let id = RecordId::new(record_id).unwrap();
    JournalDraft::new(base.about_run(id, ("run", "run_started"), run.into()))
}
