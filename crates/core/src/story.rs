//! Telling people what a record says: one title, one line, and who did it.

use serde::Serialize;

use crate::approval::{ApprovalDecision, ApprovalLifecycleStatus, ApprovalRecord};
use crate::hold::HoldRecord;
use crate::hook::{HookRecord, HookRecordPayload, HookResponseDecision};
use crate::journal::{JournalPayload, JournalRecord};
use crate::refs::SourceRef;
use crate::text::reveal;
use crate::tool::{ToolCallRecord, ToolCallStatus};

/// A record in words. Nothing in it hides: every text has passed [`reveal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What happened, in a few words.
    pub title: &'static str,
    /// To what, and why; may be empty.
    pub detail: String,
    /// The person or agent who did it, where somebody did.
    pub actor: Option<String>,
}

/// Where a call stands, judged by all its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    /// A person has to decide.
    Held,
    /// A person approved; the effect has not been announced.
    Approved,
    /// The effect has been announced and may be under way.
    Running,
    /// It succeeded.
    Completed,
    /// It ran and failed, or could not start.
    Failed,
    /// Its deadline came first.
    TimedOut,
    /// It was called off.
    Cancelled,
    /// It was refused; nothing happened.
    DeniedBeforeExecution,
    /// Nobody can say whether it happened.
    Unknown,
}

impl CallStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Approved => "approved",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::DeniedBeforeExecution => "denied_before_execution",
            Self::Unknown => "unknown",
        }
    }
}

/// Judges the records of one call, in journal order. `None` when none of them says anything
/// about a call.
pub fn call_status<'a>(records: impl IntoIterator<Item = &'a JournalRecord>) -> Option<CallStatus> {
    let mut status = None;
    for record in records {
        status = match &record.payload {
            // These say nothing of how far the call has come, or how it ended.
            JournalPayload::Tool(tool)
                if matches!(
                    tool.status,
                    ToolCallStatus::Requested
                        | ToolCallStatus::RequestModified
                        | ToolCallStatus::ResultRewritten
                ) =>
            {
                status
            }
            JournalPayload::Tool(tool) => Some(match tool.status {
                ToolCallStatus::Completed => CallStatus::Completed,
                ToolCallStatus::Failed => CallStatus::Failed,
                ToolCallStatus::TimedOut => CallStatus::TimedOut,
                ToolCallStatus::Cancelled => CallStatus::Cancelled,
                ToolCallStatus::DeniedBeforeExecution => CallStatus::DeniedBeforeExecution,
                ToolCallStatus::Unknown | ToolCallStatus::RecoveryRequired => CallStatus::Unknown,
                ToolCallStatus::Requested
                | ToolCallStatus::RequestModified
                | ToolCallStatus::ResultRewritten
                | ToolCallStatus::IntentRecorded => CallStatus::Running,
            }),
            JournalPayload::Approval(ApprovalRecord::DispatchResult {
                lifecycle_status, ..
            }) => match lifecycle_status {
                ApprovalLifecycleStatus::Approved | ApprovalLifecycleStatus::ApprovedForSession => {
                    Some(CallStatus::Approved)
                }
                ApprovalLifecycleStatus::Cancelled => Some(CallStatus::Cancelled),
                _ => Some(CallStatus::DeniedBeforeExecution),
            },
            JournalPayload::Approval(ApprovalRecord::Requested { .. }) => Some(CallStatus::Held),
            JournalPayload::Recovery(_) => Some(CallStatus::Unknown),
            _ => status,
        };
    }
    status
}

/// Tells one record.
#[must_use]
pub fn tell(record: &JournalRecord) -> Told {
    let (title, detail, actor) = match &record.payload {
        JournalPayload::Approval(approval) => tell_approval(approval),
        JournalPayload::Hold(step) => tell_hold(step),
        JournalPayload::Tool(tool) => tell_tool(tool),
        JournalPayload::RunLifecycle(run) => {
            let title = match run.status.as_str() {
                "started" => "Run started",
                "ended" => "Run ended",
                "access_refused" => "Access refused",
                "notice_lost" => "Nobody told",
                "manifests_replaced" => "Tools replaced",
                "manifests_refused" => "Tools not replaced",
                "tool_pinned" => "Tool first seen",
                "tool_accepted" => "Tool accepted",
                "tool_changed" => "Tool changed",
                "passed" => "Passed on",
                "passed_back" => "Passed back",
                _ => "Run",
            };
            let detail = match title {
                "Run" => format!("{}: {}", run.status, run.reason),
                _ => run.reason.clone(),
            };
            (title, detail, None)
        }
        JournalPayload::Recovery(marker) => {
            ("Outcome unknown, needs a person", marker.recovery_reason.clone(), None)
        }
        JournalPayload::Hook(hook) => tell_hook(hook),
        JournalPayload::Checkpoint(checkpoint) => {
            ("Checkpoint", checkpoint.checkpoint_id.clone(), None)
        }
        JournalPayload::TurnLifecycle(turn) => ("Turn", turn.redacted_summary.clone(), None),
        JournalPayload::TerminalResult(result) => {
            ("Run has its result", result.terminal_status.clone(), None)
        }
        JournalPayload::EffectIntent(intent) => {
            ("Effect announced", intent.redacted_summary.clone(), Some(name(&intent.source)))
        }
        JournalPayload::EffectResult(result) => {
            ("Effect ended", result.redacted_summary.clone(), None)
        }
        JournalPayload::Other(_) => ("Record", record.event_index.event_kind.clone(), None),
    };
    Told {
        title,
        detail: reveal(&detail).into_owned(),
        actor: actor.map(|actor| reveal(&actor).into_owned()),
    }
}

fn name(source: &SourceRef) -> String {
    source.redacted_summary.clone().unwrap_or_else(|| source.id.to_string())
}

fn tell_approval(record: &ApprovalRecord) -> (&'static str, String, Option<String>) {
    let quote = |reason: &Option<String>| match reason {
        Some(reason) => format!("\u{201c}{reason}\u{201d}"),
        None => "no reason given".to_owned(),
    };
    match record {
        ApprovalRecord::Requested { request } => {
            let tool = &request.canonical_tool_name;
            let why = request.policy_refs.first().and_then(|policy| policy.version.clone());
            let mut detail = format!("{tool}: {}", request.redacted_args_summary);
            if let Some(why) = why {
                detail.push_str(" — ");
                detail.push_str(&why);
            }
            ("Approval requested", detail, Some(request.agent_id.to_string()))
        }
        ApprovalRecord::DispatchIntent { .. } => ("Put to the approvers", String::new(), None),
        ApprovalRecord::Responded { decision, edit, .. } => match decision {
            ApprovalDecision::Approved { actor_ref, reason, .. } if edit.is_some() => {
                ("Approved as edited", quote(reason), Some(name(actor_ref)))
            }
            ApprovalDecision::Approved { actor_ref, reason, .. } => {
                ("Approved", quote(reason), Some(name(actor_ref)))
            }
            ApprovalDecision::ApprovedForSession { actor_ref, reason, grant, .. } => {
                let covers = match grant {
                    Some(grant) => format!("and up to {} later calls: ", grant.max_uses),
                    None => String::new(),
                };
                let detail = format!("{covers}{}", quote(reason));
                ("Approved for the session", detail, Some(name(actor_ref)))
            }
            ApprovalDecision::Denied { reason, actor_ref, .. } => {
                ("Denied", quote(reason), actor_ref.as_ref().map(name))
            }
        },
        ApprovalRecord::Denied { actor_ref: Some(actor), reason, .. } => {
            ("Approval taken back", quote(reason), Some(name(actor)))
        }
        ApprovalRecord::Denied { reason_code, .. } => {
            let why = match reason_code.as_str() {
                "approval.timeout" => "nobody decided before the deadline",
                "approval.cancelled" => "the caller went away",
                "approval.lapsed" => "the deadline passed while the gateway was down",
                other => other,
            };
            ("Denied", why.to_owned(), None)
        }
        ApprovalRecord::DispatchResult { effect_result, .. } => {
            ("Approval closed", effect_result.redacted_summary.clone(), None)
        }
    }
}

fn tell_hold(step: &HoldRecord) -> (&'static str, String, Option<String>) {
    match step {
        HoldRecord::Voted { vote, .. } => {
            let mut detail = match &vote.reason {
                Some(reason) => format!("\u{201c}{reason}\u{201d}"),
                None => "no reason given".to_owned(),
            };
            if let Some(delegator) = &vote.on_behalf_of {
                detail.push_str(&format!(", for {delegator}"));
            }
            ("Approved, more are needed", detail, Some(vote.approver.display.clone()))
        }
        HoldRecord::Claimed { by, at_millis, until_millis, .. } => {
            let seconds = until_millis.saturating_sub(*at_millis).div_ceil(1000);
            ("Claimed", format!("for {seconds} s at most"), Some(by.display.clone()))
        }
        HoldRecord::Released { by, .. } => {
            ("Claim released", String::new(), Some(by.display.clone()))
        }
        HoldRecord::Escalated { steps, .. } => ("Escalated", format!("step {steps}"), None),
        HoldRecord::Edited { edit, .. } => {
            ("Arguments edited", edit.redacted_args_summary.clone(), Some(edit.by.display.clone()))
        }
    }
}

fn tell_hook(hook: &HookRecord) -> (&'static str, String, Option<String>) {
    let at = |what: &str| match what {
        "" => format!("{} at {}", hook.hook_id, hook.point),
        what => format!("{} at {}: {what}", hook.hook_id, hook.point),
    };
    let (title, detail) = match &hook.payload {
        HookRecordPayload::Registered { .. } => ("Hook registered", at("")),
        HookRecordPayload::InvocationStarted { .. } => ("Hook invoked", at("")),
        HookRecordPayload::Completed { elapsed_ms, .. } => {
            ("Hook answered", at(&format!("after {elapsed_ms} ms")))
        }
        HookRecordPayload::TimedOut { elapsed_ms, .. } => {
            ("Hook was late", at(&format!("given up after {elapsed_ms} ms")))
        }
        HookRecordPayload::Cancelled { .. } => ("Hook called off", at("")),
        HookRecordPayload::Failed { redacted_summary, .. } => ("Hook failed", at(redacted_summary)),
        HookRecordPayload::ResponseDecision { decision, response_class, .. } => {
            let title = match decision {
                HookResponseDecision::AcceptedJournaledBeforeApply => "Hook answer accepted",
                HookResponseDecision::RejectedMutationRight
                | HookResponseDecision::RejectedPointMatrix
                | HookResponseDecision::RejectedPolicy => "Hook answer rejected",
            };
            (title, at(response_class.as_str()))
        }
    };
    (title, detail, None)
}

fn tell_tool(tool: &ToolCallRecord) -> (&'static str, String, Option<String>) {
    let result = tool.redacted_result_summary.clone().unwrap_or_default();
    let caller = Some(name(&tool.source));
    let mut about = format!("{}: {}", tool.canonical_tool_name, tool.redacted_args_summary);
    if let Some(number) = tool.grant_use {
        about.push_str(&format!(" — use {number} of an approval for the session"));
    }
    match tool.status {
        ToolCallStatus::IntentRecorded => ("About to run", about, caller),
        ToolCallStatus::Completed => ("Done", result, None),
        ToolCallStatus::Failed => ("Failed", result, None),
        ToolCallStatus::TimedOut => ("Timed out", result, None),
        ToolCallStatus::Cancelled => ("Called off", result, None),
        ToolCallStatus::DeniedBeforeExecution => {
            ("Refused", format!("{}: {result}", tool.canonical_tool_name), caller)
        }
        ToolCallStatus::Unknown | ToolCallStatus::RecoveryRequired => {
            ("Outcome unknown", result, None)
        }
        ToolCallStatus::Requested => ("Requested", about, caller),
        ToolCallStatus::RequestModified => ("Arguments changed by a hook", about, None),
        ToolCallStatus::ResultRewritten => ("Result replaced by a hook", result, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook's record of a tool call with this status.
    fn record(status: &str) -> JournalRecord {
        let line = include_str!("../../../fixtures/records/v1/journal-tool-intent.json");
        serde_json::from_str(&line.replace("\"intent_recorded\"", &format!("{status:?}"))).unwrap()
    }

    #[test]
    fn what_a_hook_changed_says_nothing_of_how_a_call_stands() {
        for (statuses, expected) in [
            (&["request_modified"][..], None),
            (&["intent_recorded", "failed", "result_rewritten"], Some(CallStatus::Failed)),
            (&["intent_recorded", "completed", "result_rewritten"], Some(CallStatus::Completed)),
            (&["request_modified", "intent_recorded"], Some(CallStatus::Running)),
        ] {
            let records: Vec<_> = statuses.iter().map(|status| record(status)).collect();
            assert_eq!(call_status(&records), expected, "{statuses:?}");
        }
    }
}
