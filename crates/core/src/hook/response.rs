//! What a hook answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hook::HookResponseClass;
use crate::id::ContextItemId;
use crate::refs::PolicyRef;

/// An answer. Whether it counts is decided by the point's matrix, the hook's rights and the
/// domain it would change, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload", rename_all = "snake_case")]
pub enum HookResponse {
    /// Nothing to change.
    ObserveOnly,
    /// Add these to a model's context.
    InjectContext(Vec<ContextInjection>),
    /// Change what a provider is sent.
    ModifyProjection(HookNote),
    /// Have context replaced by a summary.
    RequestCompaction(HookNote),
    /// Change how an answer's form is checked.
    ModifyValidationHints(HookNote),
    /// Change the arguments of the call; they are planned again.
    ModifyToolRequest(ToolRequestPatch),
    /// Change how the question is put to a person; what was asked stays visible.
    ModifyApprovalRequest(ApprovalRequestPatch),
    /// Refuse.
    Deny(HookReason),
    /// Have a person decide, whatever the policy says.
    RequestApproval(HookNote),
    /// Have it tried again.
    RequestRetry(HookNote),
    /// Replace what the call returned.
    RewriteToolResult(ToolResultPatch),
    /// Change what another agent is started with.
    ModifySubagentRequest(HookNote),
    /// Change what a confined process is started with.
    ModifyProcessRequest(HookNote),
    /// Judge whether something may be left running.
    ValidateDetach(HookNote),
    /// Have usage figures put right.
    RequestUsageRollupRepair(HookNote),
    /// Have leftovers removed.
    RequestCleanupRepair(HookNote),
    /// Keep these pieces of context out of a summary.
    MarkProtectedContext(Vec<ContextItemId>),
    /// Have a summary checked.
    RequestProjectionAuditRepair(HookNote),
    /// The run is not complete: something has to be put right first.
    StopCompletionWithRepairNeeded(HookReason),
    /// End the run.
    StopRun(HookReason),
}

impl HookResponse {
    /// What kind of answer it is.
    #[must_use]
    pub const fn class(&self) -> HookResponseClass {
        use HookResponseClass as Class;
        match self {
            Self::ObserveOnly => Class::Observe,
            Self::InjectContext(_) => Class::InjectContext,
            Self::ModifyProjection(_) => Class::ModifyProjection,
            Self::RequestCompaction(_) => Class::RequestCompaction,
            Self::ModifyValidationHints(_) => Class::ModifyValidationHints,
            Self::ModifyToolRequest(_) => Class::ModifyToolRequest,
            Self::ModifyApprovalRequest(_) => Class::ModifyApprovalRequest,
            Self::Deny(_) => Class::Deny,
            Self::RequestApproval(_) => Class::RequestApproval,
            Self::RequestRetry(_) => Class::RequestRetry,
            Self::RewriteToolResult(_) => Class::RewriteToolResult,
            Self::ModifySubagentRequest(_) => Class::ModifySubagentRequest,
            Self::ModifyProcessRequest(_) => Class::ModifyProcessRequest,
            Self::ValidateDetach(_) => Class::ValidateDetach,
            Self::RequestUsageRollupRepair(_) => Class::RequestUsageRollupRepair,
            Self::RequestCleanupRepair(_) => Class::RequestCleanupRepair,
            Self::MarkProtectedContext(_) => Class::MarkProtectedContext,
            Self::RequestProjectionAuditRepair(_) => Class::RequestProjectionAuditRepair,
            Self::StopCompletionWithRepairNeeded(_) => Class::StopCompletionWithRepairNeeded,
            Self::StopRun(_) => Class::StopRun,
        }
    }
}

/// An answer that says in words what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookNote {
    /// For people, without secrets.
    pub redacted_summary: String,
}

/// An answer that stops something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReason {
    /// A stable code, such as `deploys.frozen`.
    pub code: String,
    /// For people, without secrets.
    pub redacted_summary: String,
}

/// One addition to a model's context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextInjection {
    /// What is added, without secrets.
    pub redacted_summary: String,
    /// The rules that allow it; written even when there are none.
    pub policy_refs: Vec<PolicyRef>,
}

/// A change of a call's arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolRequestPatch {
    /// What changes and why, without secrets.
    pub redacted_summary: String,
    /// An RFC 7396 merge patch on the arguments. The kernel rejects an answer without it:
    /// a change that is announced and not given must not pass for one. Countersign's
    /// addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_patch: Option<Value>,
}

/// A change of how a question is put to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRequestPatch {
    /// What changes and why, without secrets.
    pub redacted_summary: String,
    /// An RFC 7396 merge patch on `{"summary", "reason", "note"}`, what the approver is shown
    /// around the call itself. Rejected without it, as above. Countersign's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_patch: Option<Value>,
}

/// A change of what a call returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolResultPatch {
    /// What changes and why, without secrets.
    pub redacted_summary: String,
    /// What the agent gets instead, an object. Rejected without it, as above. Countersign's
    /// addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Value>,
}
