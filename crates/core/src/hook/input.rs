//! What a hook gets.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hook::HookPoint;
use crate::id::{AgentId, AttemptId, ContentRef, HookId, RunId, RuntimePackageFingerprint, TurnId};
use crate::refs::{DestinationRef, EntityRef, PolicyRef, PrivacyClass, SourceRef};

/// One invocation of one hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookInput {
    /// The hook that is invoked.
    pub hook_id: HookId,
    /// Where the run stands.
    pub point: HookPoint,
    /// The run.
    pub run_id: RunId,
    /// Whose run it is.
    pub agent_id: AgentId,
    /// The step of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// The try of that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// Who caused what the hook looks at.
    pub source: SourceRef,
    /// What it acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationRef>,
    /// The tools and rules in force.
    pub package_fingerprint: RuntimePackageFingerprint,
    /// What the hook may see of it.
    pub view: HookView,
    /// The rules that applied so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_refs: Vec<PolicyRef>,
    /// Whether it was called off before the hook saw it.
    pub cancellation: HookCancellation,
    /// The invocation, as its records name it: above every number in the journal. One whose
    /// record a crash lost can come again. Countersign's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
}

/// What a hook may see, cut down to its privacy policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookView {
    /// How widely this view may be shown on.
    pub privacy: PrivacyClass,
    /// What it is about, without secrets.
    pub redacted_summary: String,
    /// The records it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_refs: Vec<EntityRef>,
    /// The content it is about, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_refs: Vec<ContentRef>,
    /// The content itself, for a hook whose privacy policy is `content_capture_allowed`: an
    /// object whose fields depend on the point. Countersign's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
}

impl HookView {
    /// A view of a summary and nothing else.
    #[must_use]
    pub fn new(redacted_summary: impl Into<String>) -> Self {
        Self {
            privacy: PrivacyClass::ContentRefsOnly,
            redacted_summary: redacted_summary.into(),
            subject_refs: Vec::new(),
            content_refs: Vec::new(),
            content: None,
        }
    }
}

/// Whether an invocation was called off when it began. One that is called off later is
/// dropped, not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCancellation {
    /// True when nobody waits for the answer any more.
    pub cancelled: bool,
}
