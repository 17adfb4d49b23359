//! Building records: what the records of one step have in common, and the forms of the
//! contract for those that are no call's own.

use crate::effect::{EffectIntent, EffectResult};
use crate::id::{
    AgentId, AttemptId, RecordId, RefId, RunId, RuntimePackageFingerprint, SessionId, TurnId,
};
use crate::journal::{
    EventIndexProjection, JOURNAL_BACKED, JournalPayload, JournalRecord, RecoveryMarker,
    RunCheckpoint, SCHEMA_VERSION,
};
use crate::refs::{
    CorrelationEntry, DestinationRef, EntityKind, EntityRef, PrivacyClass, SourceRef,
};

/// Who a record is about and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordBase {
    /// The run.
    pub run_id: RunId,
    /// The client's own session.
    pub session_id: Option<SessionId>,
    /// The agent.
    pub agent_id: AgentId,
    /// The step of the run.
    pub turn_id: Option<TurnId>,
    /// The try of that step.
    pub attempt_id: Option<AttemptId>,
    /// Who caused it.
    pub source: SourceRef,
    /// What it acts on.
    pub destination: Option<DestinationRef>,
    /// What it follows from.
    pub causal_refs: Vec<String>,
    /// Keys under which it is found again.
    pub correlation_keys: Vec<CorrelationEntry>,
    /// Words to filter by.
    pub tags: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_millis: u64,
    /// The runtime and its configuration.
    pub runtime_package_fingerprint: RuntimePackageFingerprint,
    /// How widely it may be shown.
    pub privacy: PrivacyClass,
    /// How its summaries were redacted.
    pub redaction_policy_id: String,
    /// A checkpoint of the run.
    pub checkpoint_ref: Option<String>,
}

impl RecordBase {
    /// A base with the contract's defaults: time 0, content references only,
    /// `redaction.default`, and everything optional absent.
    #[must_use]
    pub fn new(
        run_id: RunId,
        agent_id: AgentId,
        source: SourceRef,
        runtime_package_fingerprint: RuntimePackageFingerprint,
    ) -> Self {
        Self {
            run_id,
            session_id: None,
            agent_id,
            turn_id: None,
            attempt_id: None,
            source,
            destination: None,
            causal_refs: Vec::new(),
            correlation_keys: Vec::new(),
            tags: Vec::new(),
            timestamp_millis: 0,
            runtime_package_fingerprint,
            privacy: PrivacyClass::default(),
            redaction_policy_id: "redaction.default".to_owned(),
            checkpoint_ref: None,
        }
    }

    /// A record with an event index that mirrors it. `event` is its family and kind. The
    /// sequence number is 0: only a journal gives one.
    #[must_use]
    pub fn record(
        self,
        record_id: RecordId,
        event: (&str, &str),
        subject_ref: EntityRef,
        related_refs: Vec<EntityRef>,
        payload: JournalPayload,
    ) -> JournalRecord {
        let (event_family, event_kind) = event;
        let event_index = EventIndexProjection {
            run_id: self.run_id.clone(),
            session_id: self.session_id.clone(),
            agent_id: self.agent_id.clone(),
            turn_id: self.turn_id.clone(),
            event_family: event_family.to_owned(),
            event_kind: event_kind.to_owned(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            subject_ref: subject_ref.clone(),
            related_refs: related_refs.clone(),
            correlation_keys: self.correlation_keys.clone(),
            tags: self.tags.clone(),
            privacy_class: self.privacy,
            delivery_semantics: JOURNAL_BACKED.into(),
        };
        JournalRecord {
            journal_schema_version: SCHEMA_VERSION,
            journal_seq: 0,
            record_id,
            record_kind: payload.record_kind(),
            run_id: self.run_id,
            session_id: self.session_id,
            agent_id: self.agent_id,
            turn_id: self.turn_id,
            attempt_id: self.attempt_id,
            subject_ref,
            related_refs,
            causal_refs: self.causal_refs,
            source: self.source,
            destination: self.destination,
            correlation_keys: self.correlation_keys,
            tags: self.tags,
            delivery_semantics: JOURNAL_BACKED.into(),
            event_index,
            timestamp_millis: self.timestamp_millis,
            runtime_package_fingerprint: self.runtime_package_fingerprint,
            privacy: self.privacy,
            content_refs: Vec::new(),
            redaction_policy_id: self.redaction_policy_id,
            idempotency_key: None,
            dedupe_key: None,
            checkpoint_ref: self.checkpoint_ref,
            payload,
        }
    }

    /// The announcement of an effect. Its source and destination are the intent's; the event
    /// index keeps those of the base, as the peer's does.
    #[must_use]
    pub fn effect_intent(&self, record_id: RecordId, intent: EffectIntent) -> JournalRecord {
        let effect = EntityRef::new(EntityKind::Effect, RefId::from(&intent.effect_id));
        let subject = intent.subject_ref.clone();
        let record = self.clone().record(
            record_id,
            ("effect", "intent"),
            subject,
            vec![effect],
            intent.clone().into(),
        );
        JournalRecord {
            source: intent.source,
            destination: intent.destination,
            content_refs: intent.content_refs,
            idempotency_key: intent.idempotency_key,
            dedupe_key: intent.dedupe_key,
            ..record
        }
    }

    /// The end of an effect.
    #[must_use]
    pub fn effect_result(&self, record_id: RecordId, result: EffectResult) -> JournalRecord {
        let effect = EntityRef::new(EntityKind::Effect, RefId::from(&result.effect_id));
        let content_refs = result.content_refs.clone();
        let record = self.clone().record(
            record_id,
            ("effect", "result"),
            effect.clone(),
            vec![effect],
            result.into(),
        );
        JournalRecord { content_refs, ..record }
    }

    /// The state of a run.
    #[must_use]
    pub fn checkpoint(&self, record_id: RecordId, checkpoint: RunCheckpoint) -> JournalRecord {
        let content_refs = checkpoint.content_ref_manifest.clone();
        let checkpoint_ref = Some(checkpoint.checkpoint_id.clone());
        let record = self.about_run(record_id, ("checkpoint", "saved"), checkpoint.into());
        JournalRecord { content_refs, checkpoint_ref, ..record }
    }

    /// What a restart found unfinished.
    #[must_use]
    pub fn recovery(&self, record_id: RecordId, marker: RecoveryMarker) -> JournalRecord {
        self.about_run(record_id, ("recovery", "marker"), marker.into())
    }

    /// Something about the run as a whole.
    #[must_use]
    pub fn about_run(
        &self,
        record_id: RecordId,
        event: (&str, &str),
        payload: JournalPayload,
    ) -> JournalRecord {
        let run = EntityRef::new(EntityKind::Run, RefId::from(&self.run_id));
        self.clone().record(record_id, event, run, Vec::new(), payload)
    }
}
