//! Held actions, decisions and those who make them, in the JSON of symbi-runtime 1.16–3.0.
//!
//! Times are RFC 3339 with `Z` and 0, 3, 6 or 9 fractional digits.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::id::{AgentId, ApprovalRequestId};
use crate::refs::words;

words! {
    /// What is being held.
    #[allow(missing_docs)]
    HoldKind { ToolCall, Delegate, Schedule, Other }
}

words! {
    /// Where a hold stands. All but `pending` are final.
    HoldStatus {
        /// Waiting for a decision.
        Pending,
        /// Released by a person.
        Approved,
        /// Refused, by a person or because the decision could not be recorded.
        Denied,
        /// Its deadline came first.
        Expired,
        /// Whoever asked went away.
        Cancelled,
        /// Found after a restart with its deadline already past.
        RecoveryRequired,
    }
}

words! {
    /// Where a decision was made.
    #[allow(missing_docs)]
    Surface { Tui, Rest, Chat, Terminal, Cli, Mcp, Web, Webhook }
}

words! {
    /// The two answers.
    DecisionKind {
        /// Release the call.
        Approve,
        /// Refuse it.
        Deny,
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
}

/// An answer to a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Which of the two.
    pub decision: DecisionKind,
    /// Why; a missing reason reads as `null` and is written as such.
    #[serde(default)]
    pub reason: Option<String>,
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
