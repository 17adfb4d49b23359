//! What a hook is registered as: where it runs, in which order, how long, with which rights,
//! and what follows when it fails.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hook::{HookMutationRight, HookPoint, HookResponseClass};
use crate::id::{HookExecutorRef, HookId};
use crate::refs::PolicyRef;
use crate::word::words;

words! {
    /// Who registered a hook.
    HookSource {
        /// The host's configuration file.
        HostConfig = "host_config",
        /// Code of the host's own process.
        InProcess = "in_process",
        /// An extension of the runtime.
        Extension = "extension",
        /// The runtime itself.
        SdkDefault = "sdk_default",
        /// A test.
        TestOnlyFake = "test_only_fake",
    }
}

words! {
    /// The coarse order of hooks at one point.
    HookOrderingPhase {
        /// Before the others.
        Early = "early",
        /// Among the others.
        Normal = "normal",
        /// After the others.
        Late = "late",
    }
}

words! {
    /// What happens to an invocation for which the queue has no room.
    HookOverflowPolicy {
        /// It is dropped, and that is recorded.
        DropObserveOnly = "drop_observe_only",
        /// It is dropped, and one record says how many were.
        SummarizeAndContinue = "summarize_and_continue",
        /// It has failed, and the failure policy applies.
        FailHookInvocation = "fail_hook_invocation",
    }
}

words! {
    /// What follows when a hook breaks, is late, or answers what it may not.
    HookFailurePolicy {
        /// Nothing: the run goes on as if the hook had only looked.
        FailOpenObserveOnly = "fail_open_observe_only",
        /// The guarded step is refused.
        Deny = "deny",
        /// The step is refused, and the run takes no further one.
        InterruptRun = "interrupt_run",
        /// The step is refused, and the run has failed.
        FailRun = "fail_run",
    }
}

impl HookFailurePolicy {
    /// Whether a failure stops anything.
    #[must_use]
    pub const fn fails_closed(self) -> bool {
        !matches!(self, Self::FailOpenObserveOnly)
    }

    /// The word the peer writes into hook records: the variant's name.
    #[must_use]
    pub const fn record_word(self) -> &'static str {
        match self {
            Self::FailOpenObserveOnly => "FailOpenObserveOnly",
            Self::Deny => "Deny",
            Self::InterruptRun => "InterruptRun",
            Self::FailRun => "FailRun",
        }
    }
}

words! {
    /// How much a hook is shown.
    HookPrivacyPolicy {
        /// Who, where and when, and a summary without secrets.
        EnvelopeAndRedactedSummary = "envelope_and_redacted_summary",
        /// The same without the summary; content by digest.
        ContentRefsOnly = "content_refs_only",
        /// The content too.
        ContentCaptureAllowed = "content_capture_allowed",
    }
}

/// The order of hooks at one point: phase, then this number, then the hook's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookOrdering {
    /// The coarse order.
    pub phase: HookOrderingPhase,
    /// The order within the phase, the smallest first.
    pub order: i32,
}

/// Whether the run waits for the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum HookExecutionMode {
    /// It does, up to the deadline.
    Blocking,
    /// It does not; invocations wait in a queue of the hook's own.
    NonBlocking {
        /// How many may wait.
        queue: HookQueueConfig,
        /// What happens to one too many.
        overflow: HookOverflowPolicy,
    },
}

/// The bounds of a hook's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookQueueConfig {
    /// Invocations that wait at once.
    pub capacity: NonZeroUsize,
    /// How many of those places only points where something ends may take. A reserve as large
    /// as the capacity leaves the other points one place.
    pub terminal_reserve: NonZeroUsize,
}

/// How long an invocation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTimeoutPolicy {
    /// Milliseconds; measured by whoever invokes the hook, never by the hook.
    pub timeout_ms: u64,
}

/// What a hook may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookMutationRights {
    /// Each once, in the order of the contract.
    pub rights: BTreeSet<HookMutationRight>,
}

impl HookMutationRights {
    /// To look.
    #[must_use]
    pub fn observe() -> Self {
        Self { rights: BTreeSet::from([HookMutationRight::Observe]) }
    }

    /// These, and to look.
    #[must_use]
    pub fn with(rights: impl IntoIterator<Item = HookMutationRight>) -> Self {
        let mut all = Self::observe();
        all.rights.extend(rights);
        all
    }

    /// Whether this answer is covered.
    #[must_use]
    pub fn cover(&self, class: HookResponseClass) -> bool {
        self.rights.contains(&class.right())
    }

    /// The first right by which something could change.
    #[must_use]
    pub fn first_change(&self) -> Option<HookMutationRight> {
        self.rights.iter().copied().find(|right| *right != HookMutationRight::Observe)
    }
}

/// A hook, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSpec {
    /// Its name, unique in its set.
    pub hook_id: HookId,
    /// Where it runs.
    pub point: HookPoint,
    /// Who registered it.
    pub source: HookSource,
    /// When, among those at its point.
    pub ordering: HookOrdering,
    /// Whether the run waits for it.
    pub execution: HookExecutionMode,
    /// How long it may take.
    pub timeout: HookTimeoutPolicy,
    /// What follows when it fails.
    pub failure: HookFailurePolicy,
    /// What it may do.
    pub mutation_rights: HookMutationRights,
    /// How much it is shown.
    pub privacy: HookPrivacyPolicy,
    /// The rule by which it exists.
    pub policy_ref: PolicyRef,
    /// The code behind it.
    pub executor_ref: HookExecutorRef,
}

/// Which rule a specification breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookSpecError {
    /// A hook without time would always be late.
    #[error("hook {hook_id}: timeout.timeout_ms is 0")]
    NoTime {
        /// The hook.
        hook_id: HookId,
    },
    /// The point allows no such answer.
    #[error(
        "hook {hook_id}: mutation_rights: `{right}` is not possible at `{point}`, only {}",
        possible(*point)
    )]
    Right {
        /// The hook.
        hook_id: HookId,
        /// The right.
        right: HookMutationRight,
        /// The point.
        point: HookPoint,
    },
    /// The run would have gone on before the answer came.
    #[error("hook {hook_id}: mutation_rights: `{right}` needs execution `blocking`")]
    NonBlockingChange {
        /// The hook.
        hook_id: HookId,
        /// The right.
        right: HookMutationRight,
    },
    /// A failure would let something irreversible through.
    #[error("hook {hook_id}: failure: `fail_open_observe_only` is not possible {why}")]
    FailOpen {
        /// The hook.
        hook_id: HookId,
        /// `at …` the point, or `with …` the right.
        why: String,
    },
    /// Records name hooks by id alone.
    #[error("hook {hook_id}: hook_id is taken by another hook of the set")]
    Duplicate {
        /// The hook.
        hook_id: HookId,
    },
    /// The specification is no JSON.
    #[error("hook {hook_id} cannot be written as JSON: {reason}")]
    Json {
        /// The hook.
        hook_id: HookId,
        /// Why.
        reason: String,
    },
}

fn possible(point: HookPoint) -> String {
    let mut words = "`observe`".to_owned();
    for class in point.changes() {
        words.push_str(&format!(", `{class}`"));
    }
    words
}

impl HookSpec {
    /// A hook that looks and is not waited for: normal phase, order 100, 250 ms, 64 places
    /// with a reserve of 4, dropped when there is no room, nothing follows from a failure.
    #[must_use]
    pub fn observing(
        hook_id: HookId,
        point: HookPoint,
        source: HookSource,
        executor_ref: HookExecutorRef,
        policy_ref: PolicyRef,
    ) -> Self {
        Self {
            execution: HookExecutionMode::NonBlocking {
                queue: HookQueueConfig {
                    capacity: NonZeroUsize::MIN.saturating_add(63),
                    terminal_reserve: NonZeroUsize::MIN.saturating_add(3),
                },
                overflow: HookOverflowPolicy::DropObserveOnly,
            },
            failure: HookFailurePolicy::FailOpenObserveOnly,
            ..Self::blocking(
                hook_id,
                point,
                source,
                executor_ref,
                policy_ref,
                HookMutationRights::observe(),
            )
        }
    }

    /// A hook the run waits for: normal phase, order 100, 250 ms, and a failure interrupts
    /// the run.
    #[must_use]
    pub fn blocking(
        hook_id: HookId,
        point: HookPoint,
        source: HookSource,
        executor_ref: HookExecutorRef,
        policy_ref: PolicyRef,
        mutation_rights: HookMutationRights,
    ) -> Self {
        Self {
            hook_id,
            point,
            source,
            ordering: HookOrdering { phase: HookOrderingPhase::Normal, order: 100 },
            execution: HookExecutionMode::Blocking,
            timeout: HookTimeoutPolicy { timeout_ms: 250 },
            failure: HookFailurePolicy::InterruptRun,
            mutation_rights,
            privacy: HookPrivacyPolicy::EnvelopeAndRedactedSummary,
            policy_ref,
            executor_ref,
        }
    }

    /// Holds the specification against the contract.
    ///
    /// # Errors
    /// The first rule that is broken: it has time, its rights are possible at its point, one
    /// that is not waited for changes nothing, and where a change is possible or the point is
    /// security-critical it does not fail open.
    pub fn validate(&self) -> Result<(), HookSpecError> {
        let hook_id = || self.hook_id.clone();
        if self.timeout.timeout_ms == 0 {
            return Err(HookSpecError::NoTime { hook_id: hook_id() });
        }
        let mut rights = self.mutation_rights.rights.iter().copied();
        if let Some(right) = rights.find(|right| !self.point.allows(right.response_class())) {
            return Err(HookSpecError::Right { hook_id: hook_id(), right, point: self.point });
        }
        let change = self.mutation_rights.first_change();
        if let (HookExecutionMode::NonBlocking { .. }, Some(right)) = (&self.execution, change) {
            return Err(HookSpecError::NonBlockingChange { hook_id: hook_id(), right });
        }
        if !self.failure.fails_closed() {
            let why = match change {
                _ if self.point.is_security_critical() => {
                    format!("at `{}`, where something irreversible comes next", self.point)
                }
                Some(right) => format!("with the right `{right}`, which changes what happens"),
                None => return Ok(()),
            };
            return Err(HookSpecError::FailOpen { hook_id: hook_id(), why });
        }
        Ok(())
    }

    /// Running order: point, phase, order, id.
    #[must_use]
    pub fn sort_key(&self) -> (HookPoint, HookOrdering, HookId) {
        (self.point, self.ordering, self.hook_id.clone())
    }

    /// SHA-256 over the specification's compact JSON, its fields in the order they are
    /// declared in. Records name what was registered by it.
    ///
    /// # Errors
    /// When the specification is not valid: what has no hash cannot be registered.
    pub fn spec_hash(&self) -> Result<Digest, HookSpecError> {
        self.validate()?;
        match serde_json::to_vec(self) {
            Ok(bytes) => Ok(Digest::of(bytes)),
            Err(error) => Err(HookSpecError::Json {
                hook_id: self.hook_id.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

/// Holds a set of specifications against the contract: each by itself, and no id twice.
///
/// # Errors
/// The first rule that is broken.
pub fn hook_set_validate<'a>(
    specs: impl IntoIterator<Item = &'a HookSpec>,
) -> Result<(), HookSpecError> {
    let mut seen = BTreeSet::new();
    for spec in specs {
        spec.validate()?;
        if !seen.insert(&spec.hook_id) {
            return Err(HookSpecError::Duplicate { hook_id: spec.hook_id.clone() });
        }
    }
    Ok(())
}
