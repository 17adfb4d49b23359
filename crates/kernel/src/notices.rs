//! Telling people of holds, and recording what reached nobody.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{RunId, ToolCallId};
use countersign_core::text::visible;
use countersign_escalation::{LostNotice, Notifiers};
use countersign_ports::journal::Batch;
use countersign_ports::notifier::Notifier;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::govern::{Kernel, KernelRef};
use crate::records::Base;
use crate::render::shorten;

/// Everybody who is told, and where it comes out what reached nobody.
pub(crate) fn notifiers(
    all: Vec<(Arc<dyn Notifier>, Duration)>,
) -> (Notifiers, UnboundedReceiver<LostNotice>) {
    // There are at most as many as holds had places, for each notifier.
    let (send, lost) = unbounded_channel();
    let report = move |notice| drop(send.send(notice));
    let all = all.into_iter().fold(Notifiers::new(report), |notifiers, (notifier, limit)| {
        notifiers.with_retries(notifier, limit)
    });
    (all, lost)
}

/// Records lost notices until the kernel is gone.
pub(crate) fn record_lost(kernel: KernelRef, mut lost: UnboundedReceiver<LostNotice>) {
    tokio::spawn(async move {
        while let Some(notice) = lost.recv().await {
            let Some(kernel) = kernel.kernel() else { return };
            kernel.notice_lost(&notice).await;
        }
    });
}

impl Kernel {
    /// One record for the notice, among those of the call it is about.
    async fn notice_lost(&self, lost: &LostNotice) {
        let LostNotice { id, notifier, notice, tries, reason } = lost;
        tracing::warn!(%id, notifier, notice, tries, "nobody was told: {reason}");
        let Some((hold, _)) = self.queue().find(id) else { return };
        let about = |name: &str| hold.context_snapshot.get(name)?.as_str();
        let run = about("run_id").and_then(|id| RunId::new(id).ok());
        let call = about("call_id").and_then(|id| ToolCallId::new(id).ok());
        let (Some(run_id), Some(call)) = (run, call) else { return };
        let base = Base {
            run_id: &run_id,
            agent_id: &hold.agent_id,
            package: self.package(),
            now: self.now(),
        };
        let tried = if *tries == 1 { "once".to_owned() } else { format!("{tries} times") };
        let why = format!("{notifier} was not told of {notice}, tried {tried}: {reason}");
        let suffix = format!("notice_lost.{notifier}.{notice}");
        let recorded = match base.notice(&call, &suffix, &shorten(&visible(&why))) {
            Ok(draft) => {
                let batch = Batch { drafts: vec![draft], contents: Vec::new() };
                self.journal().append(batch).await.map(drop).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = recorded {
            tracing::error!(%id, error, "that a notice is lost is not recorded");
        }
    }
}
