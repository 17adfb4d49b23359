//! Telling people that a call waits for them.

use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::hold::HeldAction;

/// What somebody is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The hold as it was when the notice was made.
    pub hold: HeldAction,
    /// What happened to it.
    pub kind: NoticeKind,
}

/// Why somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A call waits.
    Held,
    /// Nobody has decided for some time, so that others can: the hold's `escalated` says how
    /// many steps of its policy have been taken.
    Escalated,
    /// It has ended, as the hold's status says.
    Ended,
}

impl Notice {
    /// Names the notice, the same at every try and after a restart: the hold, `_`, and `held`,
    /// `escalated_` with the step, or the final status.
    #[must_use]
    pub fn id(&self) -> String {
        let HeldAction { id, escalated, status, .. } = &self.hold;
        match self.kind {
            NoticeKind::Held => format!("{id}_held"),
            NoticeKind::Escalated => format!("{id}_escalated_{escalated}"),
            NoticeKind::Ended => format!("{id}_{status}"),
        }
    }
}

/// Tells people, by whatever way. Nothing waits for it: neither the hold nor its deadline.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// What it is called where a lost notice is reported.
    fn name(&self) -> &str;

    /// Whether they are told of this at all. Of ends, unless it says so, they are not.
    fn wants(&self, notice: &Notice) -> bool {
        notice.kind != NoticeKind::Ended
    }

    /// Tells them. Dropping the future calls it off, which happens when its time is over. A
    /// panic is contained and counts as an error.
    ///
    /// # Errors
    /// When nobody was told.
    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError>;
}

/// Why nobody was told: one line, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotifyError(pub String);
