//! What the journal keeps of hooks.

use serde::{Deserialize, Serialize};

use crate::hook::{HookPoint, HookResponseClass};
use crate::id::HookId;
use crate::refs::{EntityRef, PolicyRef};
use crate::word::words;

/// The version hook records carry.
pub const HOOK_SCHEMA_VERSION: u16 = 1;

/// What `mutation_right_decision` says in every record of the contract.
pub const RIGHTS_CHECKED: &str = "checked_against_point_and_spec_rights";

words! {
    /// What became of an answer.
    HookResponseDecision {
        /// It is in the journal and may now be applied.
        AcceptedJournaledBeforeApply = "accepted_journaled_before_apply",
        /// The hook had no right to it.
        RejectedMutationRight = "rejected_mutation_right",
        /// The point does not allow it.
        RejectedPointMatrix = "rejected_point_matrix",
        /// The domain it would have changed refused it.
        RejectedPolicy = "rejected_policy",
    }
}

/// One event in the life of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// [`HOOK_SCHEMA_VERSION`].
    pub schema_version: u16,
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
pub enum HookRecordPayload {
    /// It was taken into a set.
    Registered {
        /// The digest of its specification.
        spec_hash: String,
        /// The code behind it.
        executor_ref: String,
        /// The rule by which it exists.
        policy_ref: PolicyRef,
    },
    /// It is about to be invoked; written before an invocation that others can see.
    InvocationStarted {
        /// The invocation; never given twice.
        invocation_id: String,
    },
    /// It answered in time.
    Completed {
        /// The invocation.
        invocation_id: String,
        /// Milliseconds from start to answer, as whoever invoked it measured them.
        elapsed_ms: u64,
    },
    /// Its deadline came first.
    TimedOut {
        /// The invocation.
        invocation_id: String,
        /// Milliseconds from start until it was given up.
        elapsed_ms: u64,
        /// What followed, by [`record_word`](crate::hook::HookFailurePolicy::record_word).
        failure_policy: String,
    },
    /// It was called off, or dropped for want of room.
    Cancelled {
        /// The invocation.
        invocation_id: String,
    },
    /// It broke, or answered what it may not.
    Failed {
        /// The invocation.
        invocation_id: String,
        /// What followed, by [`record_word`](crate::hook::HookFailurePolicy::record_word).
        failure_policy: String,
        /// How, without secrets.
        redacted_summary: String,
    },
    /// Its answer was judged.
    ResponseDecision {
        /// The invocation.
        invocation_id: String,
        /// The verdict.
        decision: HookResponseDecision,
        /// What kind of answer.
        response_class: HookResponseClass,
        /// [`RIGHTS_CHECKED`].
        mutation_right_decision: String,
        /// What an accepted answer acts on; written even when there is nothing.
        target_domain_refs: Vec<EntityRef>,
    },
}

impl HookRecordPayload {
    /// The invocation it is about; `None` for a registration.
    #[must_use]
    pub fn invocation_id(&self) -> Option<&str> {
        match self {
            Self::Registered { .. } => None,
            Self::InvocationStarted { invocation_id }
            | Self::Completed { invocation_id, .. }
            | Self::TimedOut { invocation_id, .. }
            | Self::Cancelled { invocation_id }
            | Self::Failed { invocation_id, .. }
            | Self::ResponseDecision { invocation_id, .. } => Some(invocation_id),
        }
    }
}
