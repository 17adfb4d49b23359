//! What records say of runs, their steps and their recovery.

use serde::{Deserialize, Serialize};

use crate::id::{
    AttemptId, ContentRef, ContextProjectionId, DedupeKey, EffectId, IdempotencyKey, MessageId,
    RecordId, RunId, RuntimePackageFingerprint, TurnId,
};
use crate::refs::PolicyRef;
use crate::word::words;

/// The start or end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLifecycle {
    /// What became of the run, such as `started`. The contract leaves the words open.
    pub status: String,
    /// Why, for people.
    pub reason: String,
}

words! {
    /// How far a step of a run has come.
    TurnLifecycleStatus {
        /// It began.
        Started = "started",
        /// It ended well.
        Completed = "completed",
        /// It ended badly, or was called off.
        Failed = "failed",
    }
}

/// The start or end of a step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLifecycle {
    /// The step.
    pub turn_id: TurnId,
    /// The runs it belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_ids: Vec<RunId>,
    /// How far it has come.
    pub status: TurnLifecycleStatus,
    /// The message it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_message_id: Option<MessageId>,
    /// The message it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_message_id: Option<MessageId>,
    /// The context its model got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_projection_id: Option<ContextProjectionId>,
    /// For people, without secrets.
    pub redacted_summary: String,
}

/// The result that ended a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalResult {
    /// The effect of ending it.
    pub effect_id: EffectId,
    /// The record that says how it ended.
    pub result_record_id: RecordId,
    /// `completed`, `failed` or `cancelled`; the contract leaves the words open.
    pub terminal_status: String,
}

/// The state of a run at one place of the journal, so that a replay can begin there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCheckpoint {
    /// Its name.
    pub checkpoint_id: String,
    /// The run.
    pub run_id: RunId,
    /// Which checkpoint of the run it is.
    pub checkpoint_seq: u64,
    /// The last record whose effect the state holds; never after the checkpoint itself.
    pub covers_journal_seq: u64,
    /// Where the run's loop stands, in the writer's words.
    pub loop_state: String,
    /// The step it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// The try of that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// The tools and rules in force.
    pub runtime_package_fingerprint: RuntimePackageFingerprint,
    /// Effects that are announced and have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_side_effects: Vec<UnsafePendingEffect>,
    /// Approval requests nobody has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_approvals: Vec<String>,
    /// Content the state needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_ref_manifest: Vec<ContentRef>,
    /// The writer's digest of the state; not checked here.
    pub state_hash: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_millis: u64,
    /// Who wrote it.
    pub writer_id: String,
}

/// What a restart found unfinished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryMarker {
    /// Effects that may have happened and are not run again; written even when there are none.
    pub unsafe_pending: Vec<UnsafePendingEffect>,
    /// Why the marker was written.
    pub recovery_reason: String,
    /// The rules that applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_refs: Vec<PolicyRef>,
}

/// One effect with an intent and no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafePendingEffect {
    /// The effect.
    pub effect_id: EffectId,
    /// The record that announced it.
    pub intent_record_id: RecordId,
    /// The caller's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The caller's name for repeated deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<DedupeKey>,
    /// Why its outcome is not known.
    pub unsafe_pending_reason: String,
}
