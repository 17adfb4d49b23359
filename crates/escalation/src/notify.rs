//! Notices: all side by side, each try within its own limit and the hold's own end. Nothing
//! waits for them.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::ApprovalRequestId;
use countersign_ports::notifier::{Notice, NoticeKind, Notifier};
use tokio::time::Instant;

use crate::contain::contained;
use crate::held::Held;
use crate::sync::Spawner;

/// How long to wait after the first try, and at most. Each time it is twice as long.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A notice that reached nobody, however often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNotice {
    /// About which hold.
    pub id: ApprovalRequestId,
    /// [`Notifier::name`].
    pub notifier: String,
    /// [`Notice::id`].
    pub notice: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    pub reason: LostReason,
}

/// Why a notice reached nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// The notifier said so.
    #[error("the notifier failed: {0}")]
    Failed(String),
    /// It took longer than its limit, or the hold's time was over first.
    #[error("the notifier was not done within {0:?}")]
    TimedOut(Duration),
    /// It panicked.
    #[error("the notifier panicked")]
    Panicked,
}

/// What a notice that did not arrive is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// Another try.
    Trying,
    /// Nothing any more: the hold has ended.
    Nothing,
    /// The process stops. Whoever starts anew will tell of what is still pending.
    Later,
}

type Report = dyn Fn(LostNotice) + Send + Sync;

/// Everybody who is told about each hold.
#[derive(Clone)]
pub struct Notifiers {
    all: Vec<Told>,
    report: Arc<Report>,
}

#[derive(Clone)]
struct Told {
    notifier: Arc<dyn Notifier>,
    limit: Duration,
    again: bool,
}

impl Notifiers {
    /// Nobody yet. `report` is called for each notice that is lost, in the task that lost it.
    pub fn new(report: impl Fn(LostNotice) + Send + Sync + 'static) -> Self {
        Self { all: Vec::new(), report: Arc::new(report) }
    }

    /// One more, which may take so long for each notice, and is asked once.
    #[must_use]
    pub fn with(self, notifier: Arc<dyn Notifier>, limit: Duration) -> Self {
        self.and(Told { notifier, limit, again: false })
    }

    /// One more, which may take so long for each try. A notice is tried until it arrives, after
    /// 1 s, 2 s, 4 s and so on up to a minute, as long as the hold is pending and has time left;
    /// that a hold has ended, for five minutes.
    #[must_use]
    pub fn with_retries(self, notifier: Arc<dyn Notifier>, limit: Duration) -> Self {
        self.and(Told { notifier, limit, again: true })
    }

    fn and(mut self, told: Told) -> Self {
        self.all.push(told);
        self
    }

    /// Starts telling everybody, and returns at once. `left` is the time there is.
    pub(crate) fn send(
        &self,
        spawner: &Spawner,
        held: &Held,
        kind: NoticeKind,
        left: Duration,
        worth: impl Fn() -> Worth + Clone + Send + 'static,
    ) {
        if self.all.is_empty() {
            return;
        }
        let notice = Arc::new(Notice { hold: held.to_action(), kind });
        for told in self.all.iter().filter(|told| told.notifier.wants(&notice)) {
            let (told, notice, report) = (told.clone(), Arc::clone(&notice), self.report.clone());
            let worth = worth.clone();
            spawner.spawn(async move {
                let lost = told.tell(&notice, left, worth).await;
                if let Some((tries, reason)) = lost {
                    let (id, name) = (notice.hold.id.clone(), told.notifier.name().to_owned());
                    report(LostNotice { id, notifier: name, notice: notice.id(), tries, reason });
                }
            });
        }
    }
}

impl Told {
    /// How often it was tried and what happened last, if nobody was told or will be.
    async fn tell(
        &self,
        notice: &Arc<Notice>,
        left: Duration,
        worth: impl Fn() -> Worth,
    ) -> Option<(u32, LostReason)> {
        let end = Instant::now() + left;
        let (mut pause, longest) = PAUSES;
        for tries in 1.. {
            let limit = self.limit.min(end.saturating_duration_since(Instant::now()));
            let told = contained(async { self.notifier.notify(Arc::clone(notice)).await });
            let reason = match tokio::time::timeout(limit, told).await {
                Ok(Some(Ok(()))) => return None,
                Ok(Some(Err(error))) => LostReason::Failed(error.to_string()),
                Ok(None) => LostReason::Panicked,
                Err(_) => LostReason::TimedOut(limit),
            };
            if !self.again || Instant::now() + pause >= end {
                return Some((tries, reason));
            }
            tokio::time::sleep(pause).await;
            match worth() {
                Worth::Trying => {}
                Worth::Nothing => return Some((tries, reason)),
                Worth::Later => return None,
            }
            pause = longest.min(pause * 2);
        }
        None
    }
}
