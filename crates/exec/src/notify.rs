//! Notifiers: people are told of holds through HTTP endpoints, and cannot answer there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::hold::HoldStatus;
use countersign_ports::clock::Clock;
use countersign_ports::notifier::{Notice, NoticeKind, Notifier, NotifyError};
use serde_json::json;
use tokio::sync::SetOnce;

use crate::webhook::Webhook;
pub use crate::webhook::{WebhookConfig, WebhookConfigError};

/// What people can be told of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeEvent {
    /// It waits.
    Held,
    /// It still waits, and others may decide.
    Escalated,
    /// Somebody approved or denied, or a denial stands in for a decision that could not be
    /// recorded.
    Decided,
    /// Its time is over.
    Expired,
    /// Whoever asked went away.
    Cancelled,
}

impl NoticeEvent {
    /// All, in the order in which they can happen.
    pub const ALL: [Self; 5] =
        [Self::Held, Self::Escalated, Self::Decided, Self::Expired, Self::Cancelled];

    /// What a notice is about.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        match (notice.kind, notice.hold.status) {
            (NoticeKind::Held, _) => Self::Held,
            (NoticeKind::Escalated, _) => Self::Escalated,
            (NoticeKind::Ended, HoldStatus::Approved | HoldStatus::Denied) => Self::Decided,
            (NoticeKind::Ended, HoldStatus::Cancelled) => Self::Cancelled,
            (
                NoticeKind::Ended,
                HoldStatus::Expired | HoldStatus::RecoveryRequired | HoldStatus::Pending,
            ) => Self::Expired,
        }
    }

    /// The word for it, in the configuration and after `hold.` in the payload.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Escalated => "escalated",
            Self::Decided => "decided",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An endpoint that gets each notice as a signed POST, after Standard Webhooks 1.0.0, with
/// [`Notice::id`] as the `webhook-id`: `{"type": "hold.held", "data": {"hold": …, "console": …}}`,
/// the hold as every surface lists it, and where a person can decide. 2xx says that it arrived.
pub struct WebhookNotifier {
    name: String,
    webhook: Webhook,
    events: BTreeSet<NoticeEvent>,
    console: Arc<SetOnce<String>>,
}

impl fmt::Debug for WebhookNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookNotifier")
            .field("name", &self.name)
            .field("webhook", &self.webhook)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl WebhookNotifier {
    /// Connects to nothing. Nothing is sent before it is known where the `console` is, without a
    /// slash at its end.
    ///
    /// # Errors
    /// When the configuration breaks a rule.
    pub fn new(
        name: String,
        config: WebhookConfig,
        events: BTreeSet<NoticeEvent>,
        console: Arc<SetOnce<String>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WebhookConfigError> {
        Ok(Self { name, webhook: Webhook::new(config, clock)?, events, console })
    }
}

#[async_trait]
impl Notifier for WebhookNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.events.contains(&NoticeEvent::of(notice))
    }

    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError> {
        let console = format!("{}/#/hold/{}", self.console.wait().await, notice.hold.id);
        let body = json!({
            "type": format!("hold.{}", NoticeEvent::of(&notice).as_str()),
            "data": { "hold": notice.hold, "console": console },
        });
        let body = serde_json::to_vec(&body).map_err(|error| NotifyError(error.to_string()))?;
        self.webhook.tell(&notice.id(), body).await.map_err(NotifyError)
    }
}
