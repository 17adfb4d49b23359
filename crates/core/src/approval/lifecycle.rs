//! Where an approval request stands, and which step follows which.

use crate::effect::EffectTerminalStatus;
use crate::word::words;

words! {
    /// Where a request stands.
    ApprovalLifecycleStatus {
        /// The question is recorded.
        Requested = "requested",
        /// That it will be put to somebody is recorded.
        DispatchIntentRecorded = "dispatch_intent_recorded",
        /// It is before somebody's eyes.
        Dispatched = "dispatched",
        /// Approved, once.
        Approved = "approved",
        /// Approved, with later calls.
        ApprovedForSession = "approved_for_session",
        /// Refused.
        Denied = "denied",
        /// Nobody answered in time.
        TimedOut = "timed_out",
        /// Whoever asked went away.
        Cancelled = "cancelled",
        /// It could not be put to anybody.
        DispatcherUnavailable = "dispatcher_unavailable",
        /// Its time ran out while nobody could answer: a person has to look.
        RecoveryRequired = "recovery_required",
    }
}

words! {
    /// How a request ended.
    ApprovalTerminalStatus {
        /// Approved, once.
        Approved = "approved",
        /// Approved, with later calls.
        ApprovedForSession = "approved_for_session",
        /// Refused.
        Denied = "denied",
        /// Nobody answered in time.
        TimedOut = "timed_out",
        /// Whoever asked went away.
        Cancelled = "cancelled",
        /// It could not be put to anybody.
        DispatcherUnavailable = "dispatcher_unavailable",
        /// Its time ran out while nobody could answer: a person has to look.
        RecoveryRequired = "recovery_required",
    }
}

impl ApprovalTerminalStatus {
    /// Whether the call may run. Of all endings only the two approvals say so.
    #[must_use]
    pub const fn releases_tool(self) -> bool {
        matches!(self, Self::Approved | Self::ApprovedForSession)
    }

    /// How the effect of asking ended. One case is not told by the ending alone: without any
    /// dispatcher the request is `denied` and asking has `failed`.
    #[must_use]
    pub const fn effect_status(self) -> EffectTerminalStatus {
        match self {
            Self::Approved | Self::ApprovedForSession => EffectTerminalStatus::Completed,
            Self::Denied => EffectTerminalStatus::DeniedBeforeExecution,
            Self::TimedOut | Self::RecoveryRequired => EffectTerminalStatus::TimedOut,
            Self::Cancelled => EffectTerminalStatus::Cancelled,
            Self::DispatcherUnavailable => EffectTerminalStatus::Failed,
        }
    }
}

impl From<ApprovalTerminalStatus> for ApprovalLifecycleStatus {
    fn from(status: ApprovalTerminalStatus) -> Self {
        match status {
            ApprovalTerminalStatus::Approved => Self::Approved,
            ApprovalTerminalStatus::ApprovedForSession => Self::ApprovedForSession,
            ApprovalTerminalStatus::Denied => Self::Denied,
            ApprovalTerminalStatus::TimedOut => Self::TimedOut,
            ApprovalTerminalStatus::Cancelled => Self::Cancelled,
            ApprovalTerminalStatus::DispatcherUnavailable => Self::DispatcherUnavailable,
            ApprovalTerminalStatus::RecoveryRequired => Self::RecoveryRequired,
        }
    }
}

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApprovalEvent {
    /// That it will be put to somebody is durable.
    IntentRecorded,
    /// It is before somebody's eyes.
    Dispatched,
    /// Somebody approved.
    Approve,
    /// Somebody approved later calls too.
    ApproveForSession,
    /// Somebody refused.
    Deny,
    /// There is nobody to put it to.
    DispatcherMissing,
    /// Putting it to somebody failed.
    DispatcherFailed,
    /// Its time is over.
    Deadline,
    /// Whoever asked went away.
    CallOff,
    /// A restart found it with its time over.
    FoundLapsed,
}

impl ApprovalEvent {
    /// Every event.
    pub const ALL: &'static [Self] = &[
        Self::IntentRecorded,
        Self::Dispatched,
        Self::Approve,
        Self::ApproveForSession,
        Self::Deny,
        Self::DispatcherMissing,
        Self::DispatcherFailed,
        Self::Deadline,
        Self::CallOff,
        Self::FoundLapsed,
    ];
}

/// An event that cannot happen to a request that stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a request that is `{status}`")]
pub struct IllegalStep {
    /// Where the request stands, and stays.
    pub status: ApprovalLifecycleStatus,
    /// What was to happen.
    pub event: ApprovalEvent,
}

impl ApprovalLifecycleStatus {
    /// How the request ended; `None` while it has not.
    #[must_use]
    pub const fn terminal(self) -> Option<ApprovalTerminalStatus> {
        match self {
            Self::Requested | Self::DispatchIntentRecorded | Self::Dispatched => None,
            Self::Approved => Some(ApprovalTerminalStatus::Approved),
            Self::ApprovedForSession => Some(ApprovalTerminalStatus::ApprovedForSession),
            Self::Denied => Some(ApprovalTerminalStatus::Denied),
            Self::TimedOut => Some(ApprovalTerminalStatus::TimedOut),
            Self::Cancelled => Some(ApprovalTerminalStatus::Cancelled),
            Self::DispatcherUnavailable => Some(ApprovalTerminalStatus::DispatcherUnavailable),
            Self::RecoveryRequired => Some(ApprovalTerminalStatus::RecoveryRequired),
        }
    }

    /// Where the request stands after an event. Nobody can answer before the question was put,
    /// and nothing happens to a request that has ended.
    ///
    /// # Errors
    /// When the event cannot happen there. The request stays where it is.
    pub const fn step(self, event: ApprovalEvent) -> Result<Self, IllegalStep> {
        use ApprovalEvent as Event;
        Ok(match (self, event) {
            (Self::Requested, Event::IntentRecorded) => Self::DispatchIntentRecorded,
            (Self::DispatchIntentRecorded, Event::Dispatched) => Self::Dispatched,
            (Self::DispatchIntentRecorded, Event::DispatcherMissing) => Self::Denied,
            (Self::DispatchIntentRecorded | Self::Dispatched, Event::DispatcherFailed) => {
                Self::DispatcherUnavailable
            }
            (Self::Dispatched, Event::Approve) => Self::Approved,
            (Self::Dispatched, Event::ApproveForSession) => Self::ApprovedForSession,
            (Self::Dispatched, Event::Deny) => Self::Denied,
            (Self::Requested | Self::DispatchIntentRecorded | Self::Dispatched, event) => {
                match event {
                    Event::Deadline => Self::TimedOut,
                    Event::CallOff => Self::Cancelled,
                    Event::FoundLapsed => Self::RecoveryRequired,
                    _ => return Err(IllegalStep { status: self, event }),
                }
            }
            (status, event) => return Err(IllegalStep { status, event }),
        })
    }
}
