//! Records of hooks: how they are built, and the task that writes behind.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::hook::{HookRecordPayload, HookSpec};
use countersign_core::id::RecordId;
use countersign_core::journal::{EncodedDraft, RecordBase};
use countersign_ports::journal::{Batch, Journal};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::hooks::{HookMoment, Invocation, verdict_drafts};
use crate::records::{BuildError, encode};

/// Events that wait to be written; one more makes whoever brings it wait.
const BACKLOG: usize = 1024;

/// Most records of one append.
const BATCH: usize = 256;

/// How long the task gathers before it writes. Waking it for each event would cost the caller
/// more than everything else about a hook.
const GATHER: Duration = Duration::from_millis(2);

/// Something that happened to a hook.
pub(super) struct Event {
    spec: Arc<HookSpec>,
    moment: Arc<HookMoment>,
    invocation: Invocation,
    at: u64,
    payload: HookRecordPayload,
}

impl Event {
    pub(super) fn new(
        spec: &Arc<HookSpec>,
        moment: &Arc<HookMoment>,
        invocation: Invocation,
        at: u64,
        payload: HookRecordPayload,
    ) -> Self {
        let (spec, moment) = (Arc::clone(spec), Arc::clone(moment));
        Self { spec, moment, invocation, at, payload }
    }

    pub(super) fn drafts(&self) -> Result<Vec<EncodedDraft>, BuildError> {
        let base = RecordBase { timestamp_millis: self.at, ..self.moment.base.clone() };
        let (part, kind) = match &self.payload {
            HookRecordPayload::ResponseDecision { response_class, decision, .. } => {
                let (class, decision) = (*response_class, *decision);
                return verdict_drafts(self.invocation, &base, &self.spec, class, decision);
            }
            HookRecordPayload::Registered { .. } => ("registered", "hook_registered"),
            HookRecordPayload::InvocationStarted { .. } => ("started", "hook_invocation_started"),
            HookRecordPayload::Completed { .. } => ("completed", "hook_completed"),
            HookRecordPayload::TimedOut { .. } => ("timed_out", "hook_timed_out"),
            HookRecordPayload::Cancelled { .. } => ("cancelled", "hook_cancelled"),
            HookRecordPayload::Failed { .. } => ("failed", "hook_failed"),
        };
        let (hook, number) = (&self.spec.hook_id, self.invocation.0);
        let id = RecordId::new(format!("journal.hook.{hook}.{number}.{part}"))?;
        let record = self.spec.record(self.payload.clone());
        Ok(vec![encode(base.hook(id, kind, record))?])
    }
}

enum Message {
    Event(Box<Event>, Option<oneshot::Sender<bool>>),
    Flush(oneshot::Sender<bool>),
}

/// The records of one event, and who waits for them.
type Step = (Vec<EncodedDraft>, Option<oneshot::Sender<bool>>);

/// Writes behind, in order. Clones feed one task, which ends with the last of them.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    /// Somebody waits, or the queue is half full.
    now: Arc<Notify>,
}

impl Writer {
    pub(super) fn start(journal: Arc<dyn Journal>) -> Self {
        let (queue, receiver) = mpsc::channel(BACKLOG);
        let now = Arc::new(Notify::new());
        tokio::spawn(write(journal, receiver, Arc::clone(&now)));
        Self { queue, now }
    }

    /// Waits when too much is waiting to be written.
    pub(super) async fn write(&self, event: Event) {
        // The task outlives every sender.
        let _ = self.queue.send(Message::Event(Box::new(event), None)).await;
        if self.queue.capacity() < BACKLOG / 2 {
            self.now.notify_one();
        }
    }

    /// Returns when this event is durable, or `false` when it is not, whatever became of
    /// others.
    pub(super) async fn record(&self, event: Event) -> bool {
        let (done, wait) = oneshot::channel();
        let event = Message::Event(Box::new(event), Some(done));
        if self.queue.send(event).await.is_err() {
            return false;
        }
        self.now.notify_one();
        wait.await.unwrap_or(false)
    }

    /// Returns when everything written before is durable; `false` when some of it may not be,
    /// with an error in the log.
    pub(super) async fn flush(&self) -> bool {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_err() {
            return false;
        }
        self.now.notify_one();
        wait.await.unwrap_or(false)
    }
}

async fn write(journal: Arc<dyn Journal>, mut receiver: mpsc::Receiver<Message>, now: Arc<Notify>) {
    let mut messages = Vec::with_capacity(BATCH);
    let mut whole = true;
    while let Some(first) = receiver.recv().await {
        let _ = tokio::time::timeout(GATHER, now.notified()).await;
        messages.push(first);
        while messages.len() < BATCH
            && let Ok(message) = receiver.try_recv()
        {
            messages.push(message);
        }
        let (mut steps, mut waiting) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Flush(done) => waiting.push(done),
                Message::Event(event, done) => match event.drafts() {
                    Ok(drafts) => steps.push((drafts, done)),
                    Err(error) => {
                        tracing::error!(hook = %event.spec.hook_id, %error, "not recorded");
                        whole = false;
                    }
                },
            }
        }
        whole &= append(&*journal, steps).await;
        if !waiting.is_empty() {
            let whole = std::mem::replace(&mut whole, true);
            for done in waiting {
                let _ = done.send(whole);
            }
        }
    }
}

/// Appends all steps at once, or, when one of them spoils that, each by itself.
async fn append(journal: &dyn Journal, steps: Vec<Step>) -> bool {
    if steps.is_empty() {
        return true;
    }
    let drafts = steps.iter().flat_map(|(drafts, _)| drafts).cloned().collect();
    let together = journal.append(Batch { drafts, contents: Vec::new() }).await.is_ok();
    let mut whole = true;
    for (drafts, done) in steps {
        let recorded = together
            || match journal.append(Batch { drafts, contents: Vec::new() }).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::error!(%error, "what a hook did is not recorded");
                    false
                }
            };
        whole &= recorded;
        if let Some(done) = done {
            let _ = done.send(recorded);
        }
    }
    whole
}
