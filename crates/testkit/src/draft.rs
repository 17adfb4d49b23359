//! Records to append.

use countersign_core::id::{AgentId, RecordId, RefId, RunId};
use countersign_core::journal::{
    EventIndexProjection, JournalDraft, JournalPayload, JournalRecord, JournalRecordKind,
    RunLifecycle, TOOL_CALL_KEY,
};
use countersign_core::refs::{
    CorrelationEntry, EntityKind, EntityRef, PrivacyClass, SourceKind, SourceRef,
};

/// A run record with this id and text, filed under `call` when there is one.
#[must_use]
pub fn draft(record_id: &str, reason: &str, call: Option<&str>) -> JournalDraft {
    let run_id = RunId::new("run.test").unwrap();
    let agent_id = AgentId::new("agent.test").unwrap();
    let source = SourceRef::new(SourceKind::Host, RefId::new("source.test").unwrap());
    let subject = EntityRef::new(EntityKind::Run, RefId::new("run.test").unwrap());
    let correlation_keys: Vec<_> = call
        .map(|call| CorrelationEntry { key: TOOL_CALL_KEY.into(), value: call.into() })
        .into_iter()
        .collect();
    JournalDraft::new(JournalRecord {
        journal_schema_version: 1,
        journal_seq: 0,
        record_id: RecordId::new(record_id).unwrap(),
        record_kind: JournalRecordKind::Run,
        run_id: run_id.clone(),
        session_id: None,
        agent_id: agent_id.clone(),
        turn_id: None,
        attempt_id: None,
        subject_ref: subject.clone(),
        related_refs: Vec::new(),
        causal_refs: Vec::new(),
        source: source.clone(),
        destination: None,
        correlation_keys,
        tags: Vec::new(),
        delivery_semantics: "journal_backed".into(),
        event_index: EventIndexProjection {
            run_id,
            session_id: None,
            agent_id,
            turn_id: None,
            event_family: "run".into(),
            event_kind: "test".into(),
            source,
            destination: None,
            subject_ref: subject,
            related_refs: Vec::new(),
            correlation_keys: Vec::new(),
            tags: Vec::new(),
            privacy_class: PrivacyClass::default(),
            delivery_semantics: "journal_backed".into(),
        },
        timestamp_millis: 0,
        runtime_package_fingerprint: "fp".into(),
        privacy: PrivacyClass::default(),
        content_refs: Vec::new(),
        redaction_policy_id: "redaction.default".into(),
        idempotency_key: None,
        dedupe_key: None,
        checkpoint_ref: None,
        payload: JournalPayload::RunLifecycle(RunLifecycle {
            status: "test".into(),
            reason: reason.into(),
        }),
    })
}
