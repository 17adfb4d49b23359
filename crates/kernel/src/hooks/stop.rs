//! What follows when a hook stops a step.

use std::sync::{Arc, OnceLock};

use countersign_core::error::RetryClassification;
use countersign_core::error::{AgentError, AgentErrorKind, CausalIds, ErrorContext};
use countersign_core::hook::{
    HookFailurePolicy, HookReason, HookResponse, HookResponseClass, HookSpec,
};
use countersign_core::id::{HookId, ToolCallId};
use countersign_core::journal::{RecordBase, TOOL_CALL_KEY};
use countersign_core::text::visible;

use crate::hooks::invoke::Answer;
use crate::render::shorten;

/// Why a hook is not invoked that is behind.
pub(super) const FULL: &str = "its queue is full";

/// How much is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopScope {
    /// The step at hand.
    Step,
    /// The step, and every further one of the run.
    InterruptRun,
    /// The same, and the run counts as failed.
    FailRun,
}

/// A step that a hook stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct HookStop {
    /// The hook.
    pub hook_id: HookId,
    /// `hook.denied`, `hook.stop_run`, `hook.repair_needed`, `hook.timed_out`, `hook.failed`,
    /// `hook.rejected`, `hook.called_off` or `not_recorded`.
    pub code: &'static str,
    /// Which hook, and why, for the agent and its operator.
    pub message: String,
    /// What the hook itself gave as its reason.
    pub reason: Option<HookReason>,
    /// How much is stopped.
    pub scope: StopScope,
    /// The same in the contract's form.
    pub error: AgentError,
}

impl HookStop {
    fn new(
        spec: &HookSpec,
        base: &RecordBase,
        code: &'static str,
        why: String,
        (kind, retry): (AgentErrorKind, RetryClassification),
        scope: StopScope,
    ) -> Self {
        let call = base.correlation_keys.iter().find(|entry| entry.key == TOOL_CALL_KEY);
        let message = format!("hook `{}`: {}", spec.hook_id, shorten(&visible(&why)));
        let error = AgentError::Classified {
            kind,
            retry,
            context: Box::new(ErrorContext {
                message: message.clone(),
                policy_refs: vec![spec.policy_ref.clone()],
                source: Some(base.source.clone()),
                destination: base.destination.clone(),
                ..ErrorContext::default()
            }),
            causal_ids: Box::new(CausalIds {
                run_id: Some(base.run_id.clone()),
                turn_id: base.turn_id.clone(),
                attempt_id: base.attempt_id.clone(),
                tool_call_id: call.and_then(|entry| ToolCallId::new(&entry.value).ok()),
                ..CausalIds::default()
            }),
        };
        Self { hook_id: spec.hook_id.clone(), code, message, reason: None, scope, error }
    }

    /// What the failure policy makes of a hook that is late or broke; `None` if it fails open.
    pub(super) fn failed(spec: &HookSpec, base: &RecordBase, answer: &Answer) -> Option<Self> {
        let (code, why) = match answer {
            Answer::Late => {
                let after = spec.timeout.timeout_ms;
                ("hook.timed_out", format!("no answer within {after} ms"))
            }
            // Its own words are for the record: they may speak of what no agent should read.
            Answer::Broke(_) => ("hook.failed", "it gave no answer".to_owned()),
            Answer::Full => ("hook.failed", FULL.to_owned()),
            Answer::Response(_) | Answer::CalledOff => return None,
        };
        Self::by_policy(spec, base, code, why)
    }

    /// What the failure policy makes of an answer that was not allowed.
    pub(super) fn rejected(
        spec: &HookSpec,
        base: &RecordBase,
        class: HookResponseClass,
        reason: &str,
    ) -> Option<Self> {
        let why = format!("its answer `{class}` was rejected: {reason}");
        Self::by_policy(spec, base, "hook.rejected", why)
    }

    fn by_policy(
        spec: &HookSpec,
        base: &RecordBase,
        code: &'static str,
        why: String,
    ) -> Option<Self> {
        let (kind, scope) = match spec.failure {
            HookFailurePolicy::FailOpenObserveOnly => return None,
            HookFailurePolicy::Deny => (AgentErrorKind::PolicyDenial, StopScope::Step),
            HookFailurePolicy::InterruptRun => {
                (AgentErrorKind::HookFailure, StopScope::InterruptRun)
            }
            HookFailurePolicy::FailRun => (AgentErrorKind::HookFailure, StopScope::FailRun),
        };
        Some(Self::new(spec, base, code, why, (kind, RetryClassification::RepairNeeded), scope))
    }

    /// What an accepted answer stops; `None` if it stops nothing.
    pub(super) fn answered(
        spec: &HookSpec,
        base: &RecordBase,
        response: &HookResponse,
    ) -> Option<Self> {
        let (code, reason, scope) = match response {
            HookResponse::Deny(reason) => ("hook.denied", reason, StopScope::Step),
            HookResponse::StopRun(reason) => ("hook.stop_run", reason, StopScope::InterruptRun),
            HookResponse::StopCompletionWithRepairNeeded(reason) => {
                ("hook.repair_needed", reason, StopScope::Step)
            }
            _ => return None,
        };
        let why = format!("{}: {}", reason.code, reason.redacted_summary);
        let class = (AgentErrorKind::PolicyDenial, RetryClassification::RepairNeeded);
        let stop = Self::new(spec, base, code, why, class, scope);
        Some(Self { reason: Some(reason.clone()), ..stop })
    }

    pub(super) fn called_off(spec: &HookSpec, base: &RecordBase) -> Self {
        let class = (AgentErrorKind::Cancellation, RetryClassification::Retryable);
        let why = "the caller went away".to_owned();
        Self::new(spec, base, "hook.called_off", why, class, StopScope::Step)
    }

    pub(super) fn not_recorded(
        spec: &HookSpec,
        base: &RecordBase,
        error: &dyn std::fmt::Display,
    ) -> Self {
        let class = (AgentErrorKind::JournalFailure, RetryClassification::RepairNeeded);
        let why = format!("not recorded: {error}");
        Self::new(spec, base, "not_recorded", why, class, StopScope::Step)
    }

    /// The same when the step has passed already: a refusal of it then ends the run.
    pub(super) fn late(mut self) -> Self {
        self.scope = self.scope.max(StopScope::InterruptRun);
        self
    }
}

/// Keeps a run from taking further steps. Clones are handles to one brake.
#[derive(Clone, Debug, Default)]
pub struct Brake(Arc<OnceLock<HookStop>>);

impl Brake {
    /// Pulls the brake, if the stop is one of the run. The first one counts.
    pub(crate) fn engage(&self, stop: &HookStop) {
        if stop.scope > StopScope::Step {
            let _ = self.0.set(stop.clone());
        }
    }

    /// What stopped the run.
    #[must_use]
    pub fn engaged(&self) -> Option<&HookStop> {
        self.0.get()
    }
}
