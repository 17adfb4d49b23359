//! Held actions, decisions and those who make them, in the JSON of symbi-runtime 1.16–3.0.
//!
//! Times are RFC 3339 with `Z` and 0, 3, 6 or 9 fractional digits.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
pub use crate::hold_policy::{
    EscalationStep, Factor, HoldPolicy, HoldPolicyError, MAX_APPROVALS, MAX_NAME_LEN,
};
pub use crate::hold_record::HoldRecord;
use crate::id::{AgentId, ApprovalRequestId};
use crate::word::words;

words! {
    /// What is being held.
    HoldKind {
        /// A call of a tool.
        ToolCall = "tool_call",
        /// Work for another agent.
        Delegate = "delegate",
        /// Something to happen later.
        Schedule = "schedule",
        /// Whatever the asker says it is.
        Other = "other",
    }
}

words! {
    /// Where a hold stands. All but `pending` are final.
    HoldStatus {
        /// Waiting for a decision.
        Pending = "pending",
        /// Released by a person.
        Approved = "approved",
        /// Refused, by a person or because the decision could not be recorded.
        Denied = "denied",
        /// Its deadline came first.
        Expired = "expired",
        /// Whoever asked went away.
        Cancelled = "cancelled",
        /// Found after a restart with its deadline already past.
        RecoveryRequired = "recovery_required",
    }
}

words! {
    /// Where a decision was made.
    Surface {
        /// The terminal screen.
        Tui = "tui",
        /// The REST API, by a program.
        Rest = "rest",
        /// A chat application.
        Chat = "chat",
        /// A prompt in a terminal.
        Terminal = "terminal",
        /// The command line.
        Cli = "cli",
        /// An MCP client.
        Mcp = "mcp",
        /// The console in a browser.
        Web = "web",
        /// A link in a notification.
        Webhook = "webhook",
    }
}

words! {
    /// The two answers.
    DecisionKind {
        /// Release the call.
        Approve = "approve",
        /// Refuse it.
        Deny = "deny",
    }
}

/// A live hold, as every surface lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldAction {
    /// The approval request that is waiting.
    pub id: ApprovalRequestId,
    /// Who asked.
    pub agent_id: AgentId,
    /// What is held.
    pub kind: HoldKind,
    /// One line: what would happen.
    pub summary: String,
    /// Which rule asks for a person.
    pub reason: String,
    /// What the approver needs to see, without secrets; `null` when there is nothing.
    pub context_snapshot: Value,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; from then on silence is a denial.
    pub expires_at: String,
    /// Where it stands.
    pub status: HoldStatus,
    /// The exact call an approval would release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// The digest of what the approver is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendering_digest: Option<Digest>,
    /// Whose approvals it takes; absent when one approver is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<HoldPolicy>,
    /// The answers so far, the first one first. Those about another fingerprint do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// Who is looking at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The fingerprint of the call as it was asked, once an approver has edited the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_from: Option<Digest>,
    /// How many steps of the policy's `escalate` have been taken.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub escalated: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An answer to a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Which of the two.
    pub decision: DecisionKind,
    /// Why; a missing reason reads as `null` and is written as such.
    #[serde(default)]
    pub reason: Option<String>,
    /// Later calls an approval covers too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantTerms>,
}

/// What an approver lets later calls of the same agent, session and tool differ in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantTerms {
    /// How many later calls; at least 1.
    pub max_uses: u64,
    /// Milliseconds from the decision on; at least 1.
    pub valid_for_ms: u64,
    /// Arguments that may have another value. All others must be as they were shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_value_of: Vec<String>,
}

/// Who answered, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// Where the decision was made.
    pub surface: Surface,
    /// The principal's id; what identity is compared by.
    pub id: String,
    /// The principal's name for people.
    pub display: String,
}

/// One answer of several. One denial ends a hold, so all but the last are approvals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Which of the two answers.
    pub decision: DecisionKind,
    /// Why; a missing reason reads as `null` and is written as such.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who answered.
    pub approver: Approver,
    /// The principal the answer was given for, by a delegation that was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// The groups it may count for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The call it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// RFC 3339.
    pub at: String,
}

impl Vote {
    /// Whether a person stands behind both, as voter or as the one voted for.
    #[must_use]
    pub fn shares_person(&self, other: &Self) -> bool {
        let people = [Some(&self.approver.id), self.on_behalf_of.as_ref()];
        people.into_iter().flatten().any(|person| other.involves(person))
    }

    /// Whether it approves the call of this fingerprint.
    #[must_use]
    pub fn approves(&self, fingerprint: Option<Digest>) -> bool {
        self.decision == DecisionKind::Approve && self.fingerprint == fingerprint
    }

    /// Whether this principal stands behind it.
    #[must_use]
    pub fn involves(&self, principal: &str) -> bool {
        self.approver.id == principal || self.on_behalf_of.as_deref() == Some(principal)
    }
}

/// Somebody is looking at a hold. It tells others; it keeps nobody from deciding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub by: Approver,
    /// RFC 3339.
    pub at: String,
    /// RFC 3339; from then on the claim is over.
    pub until: String,
}
