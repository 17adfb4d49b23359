//! Hooks: code of the host's that sees, changes or stops what a run does, at named points.
//!
//! A [`HookSpec`] says where a hook runs and what it may do; [`HookInput`] is what it gets,
//! [`HookResponse`] what it answers, [`HookRecord`] what the journal keeps, and
//! [`HookMutationJournalPlan`] the three records of an accepted change.

mod input;
mod plan;
mod point;
mod record;
mod response;
mod spec;

pub use input::{HookCancellation, HookInput, HookView};
pub use plan::{HookMutationJournalPlan, hook_ref, rejected_response};
pub use point::{HookMutationRight, HookPoint, HookResponseClass};
pub use record::{
    HOOK_SCHEMA_VERSION, HookRecord, HookRecordPayload, HookResponseDecision, RIGHTS_CHECKED,
};
pub use response::{
    ApprovalRequestPatch, ContextInjection, HookNote, HookReason, HookResponse, ToolRequestPatch,
    ToolResultPatch,
};
pub use spec::{
    HookExecutionMode, HookFailurePolicy, HookMutationRights, HookOrdering, HookOrderingPhase,
    HookOverflowPolicy, HookPrivacyPolicy, HookQueueConfig, HookSource, HookSpec, HookSpecError,
    HookTimeoutPolicy, hook_set_validate,
};
