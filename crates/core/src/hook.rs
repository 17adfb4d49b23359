//! Hook records, as far as a journal reader needs them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{HookExecutorRef, HookId};
use crate::refs::{EntityRef, PolicyRef, words};

words! {
    /// Where in the life of a run a hook runs.
    #[allow(missing_docs)]
    HookPoint {
        RunStarting, BeforeContextAssembly, AfterContextAssembly, BeforeProviderProjection,
        BeforeModelCall, OnModelDelta, AfterModelCall, BeforeStructuredOutputValidation,
        AfterStructuredOutputValidation, BeforeToolCall, AfterToolCall, BeforeApprovalRequest,
        AfterApprovalDecision, BeforeSubagentStart, AfterSubagentTerminal,
        BeforeIsolationProcessStart, AfterIsolationProcessExit, OnRunCancelRequested,
        BeforeRunComplete, AfterRunTerminal, BeforeCompaction, AfterCompaction,
    }
}

words! {
    /// What kind of answer a hook gave.
    #[allow(missing_docs)]
    HookResponseClass {
        Observe, InjectContext, ModifyProjection, RequestCompaction, ModifyValidationHints,
        ModifyToolRequest, ModifyApprovalRequest, Deny, RequestApproval, RequestRetry,
        RewriteToolResult, ModifySubagentRequest, ModifyProcessRequest, ValidateDetach,
        RequestUsageRollupRepair, RequestCleanupRepair, MarkProtectedContext,
        RequestProjectionAuditRepair, StopCompletionWithRepairNeeded, StopRun,
    }
}

words! {
    /// What became of an answer.
    HookResponseDecision {
        /// It is in the journal and may now be applied.
        AcceptedJournaledBeforeApply,
        /// The hook had no right to it.
        RejectedMutationRight,
        /// The point does not allow it.
        RejectedPointMatrix,
        /// The guarded domain refused it.
        RejectedPolicy,
    }
}

/// One event in the life of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// 1.
    pub schema_version: u32,
    /// The hook.
    pub hook_id: HookId,
    /// Where it ran.
    pub point: HookPoint,
    /// What happened.
    pub payload: HookRecordPayload,
}

/// What happened to a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum HookRecordPayload {
    /// It was taken into a set.
    Registered { spec_hash: Digest, executor_ref: HookExecutorRef, policy_ref: PolicyRef },
    /// It was called.
    InvocationStarted { invocation_id: String },
    /// It answered in time.
    Completed { invocation_id: String, elapsed_ms: u64 },
    /// Its deadline came first.
    TimedOut { invocation_id: String, elapsed_ms: u64, failure_policy: String },
    /// It was called off.
    Cancelled { invocation_id: String },
    /// It broke.
    Failed { invocation_id: String, failure_policy: String, redacted_summary: String },
    /// Its answer was judged.
    ResponseDecision {
        invocation_id: String,
        decision: HookResponseDecision,
        response_class: HookResponseClass,
        mutation_right_decision: String,
        target_domain_refs: Vec<EntityRef>,
    },
}
