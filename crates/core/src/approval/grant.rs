//! What an approval for the session covers beyond the call it was given for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgentId, RefId};

/// Later calls that need no further decision. It stands in the decision that gave it, so it is
/// durable and signed with it; its id is the approval request's.
///
/// Everything about it is narrow: one agent, one session, one tool as it was described then,
/// under the rules of then, with these arguments, so many times, until then. What may differ
/// is named in `any_value_of`; everything else must be as it was, absent arguments included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalGrant {
    /// Who may use it.
    pub agent_id: AgentId,
    /// In which session: the client's own, or the run where there is none.
    pub session: RefId,
    /// The tool's name in the manifest.
    pub canonical_tool_name: String,
    /// The manifest's digest at the time.
    pub manifest_digest: String,
    /// The digest of the rules at the time.
    pub policy_digest: Digest,
    /// Arguments that must be the same: SHA-256 over each as it stands in the plan, defaults
    /// included. One that is not named here must be absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Digest>,
    /// Arguments that may have any value that the manifest accepts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub any_value_of: BTreeSet<String>,
    /// How many later calls it covers.
    pub max_uses: u64,
    /// Milliseconds since the Unix epoch; from then on it covers nothing.
    pub expires_at_millis: u64,
}

/// A call that looks for a grant.
#[derive(Clone, Copy, Debug)]
pub struct GrantCall<'a> {
    /// Who calls.
    pub agent_id: &'a AgentId,
    /// In which session.
    pub session: &'a RefId,
    /// The tool's name in the manifest.
    pub canonical_tool_name: &'a str,
    /// The manifest's digest now.
    pub manifest_digest: &'a str,
    /// The digest of the rules now.
    pub policy_digest: &'a Digest,
    /// The digest of each argument as it stands in the plan, defaults included.
    pub arguments: &'a BTreeMap<String, Digest>,
    /// Milliseconds since the Unix epoch.
    pub now_millis: u64,
}

/// Why a grant does not cover a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantMismatch {
    /// It was given to another agent.
    #[error("another agent")]
    Agent,
    /// It was given in another session.
    #[error("another session")]
    Session,
    /// It is for another tool.
    #[error("another tool")]
    Tool,
    /// The tool is not described as it was.
    #[error("the manifest has changed")]
    Manifest,
    /// The rules are not what they were.
    #[error("the policy has changed")]
    Policy,
    /// An argument has another value, or none.
    #[error("argument `{0}` differs")]
    Argument(String),
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It was used as often as it may be.
    #[error("used up")]
    UsedUp,
}

impl ApprovalGrant {
    /// Whether the grant, used `uses` times so far, covers this call.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn covers(&self, call: &GrantCall<'_>, uses: u64) -> Result<(), GrantMismatch> {
        let same = [
            (self.agent_id == *call.agent_id, GrantMismatch::Agent),
            (self.session == *call.session, GrantMismatch::Session),
            (self.canonical_tool_name == call.canonical_tool_name, GrantMismatch::Tool),
            (self.manifest_digest == call.manifest_digest, GrantMismatch::Manifest),
            (self.policy_digest == *call.policy_digest, GrantMismatch::Policy),
            (call.now_millis < self.expires_at_millis, GrantMismatch::Expired),
            (uses < self.max_uses, GrantMismatch::UsedUp),
        ];
        if let Some((_, differs)) = same.into_iter().find(|(same, _)| !same) {
            return Err(differs);
        }
        let names = self.arguments.keys().chain(call.arguments.keys());
        let mut bound = names.filter(|name| !self.any_value_of.contains(*name));
        match bound.find(|name| self.arguments.get(*name) != call.arguments.get(*name)) {
            Some(name) => Err(GrantMismatch::Argument(name.clone())),
            None => Ok(()),
        }
    }
}
