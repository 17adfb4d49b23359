//! Hooks that nobody waits for: a bounded queue and a task for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::hook::{
    HookFailurePolicy, HookInput, HookOverflowPolicy, HookQueueConfig, HookRecordPayload,
    HookResponse, HookSpec,
};
use countersign_ports::clock::Clock;
use tokio::sync::{Notify, watch};

use crate::hooks::invoke::{Answer, invoke};
use crate::hooks::write::{Event, Writer};
use crate::hooks::{
    HookMoment, HookStop, Invocation, Registered, completed, failure, rejected_by,
    response_rejected, verdict,
};

struct Waiting {
    moment: Arc<HookMoment>,
    invocation: Invocation,
    input: HookInput,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// How many were dropped since the last record that says so, and the last of them.
    dropped: Option<(u64, Arc<HookMoment>, Invocation)>,
    /// Dropped when the queue is closed; the invocation that is under way is then called off.
    open: Option<watch::Sender<()>>,
}

pub(super) struct HookQueue {
    state: Mutex<State>,
    wake: Notify,
    /// True while the worker has nothing to do.
    idle: watch::Sender<bool>,
    bounds: HookQueueConfig,
    overflow: HookOverflowPolicy,
}

impl HookQueue {
    pub(super) fn start(
        bounds: HookQueueConfig,
        overflow: HookOverflowPolicy,
        worker: (Registered, Writer, Arc<dyn Clock>),
    ) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                dropped: None,
                open: Some(watch::Sender::new(())),
            }),
            wake: Notify::new(),
            idle: watch::Sender::new(true),
            bounds,
            overflow,
        });
        let (hook, writer, clock) = worker;
        tokio::spawn(work(Arc::clone(&queue), hook, writer, clock));
        queue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, moment: &HookMoment) -> usize {
        let capacity = self.bounds.capacity.get();
        match moment.point.is_terminal() {
            true => capacity,
            false => capacity.saturating_sub(self.bounds.terminal_reserve.get()).max(1),
        }
    }

    /// Puts an invocation in line, or does with it what the overflow policy says.
    pub(super) async fn push(
        &self,
        spec: &Arc<HookSpec>,
        moment: &Arc<HookMoment>,
        invocation: Invocation,
        input: HookInput,
        (writer, now): (&Writer, u64),
    ) -> Result<(), HookStop> {
        {
            let mut state = self.lock();
            let open = state.open.is_some();
            if open && state.waiting.len() < self.room(moment) {
                let moment = Arc::clone(moment);
                state.waiting.push_back(Waiting { moment, invocation, input });
                self.idle.send_replace(false);
                drop(state);
                self.wake.notify_one();
                return Ok(());
            }
            if open && self.overflow == HookOverflowPolicy::SummarizeAndContinue {
                let count = state.dropped.take().map_or(0, |(count, ..)| count);
                state.dropped = Some((count + 1, Arc::clone(moment), invocation));
                return Ok(());
            }
        }
        let event = |payload| Event::new(spec, moment, invocation, now, payload);
        match self.overflow {
            HookOverflowPolicy::FailHookInvocation => {
                let full = Answer::Full;
                let payload = failure(spec, invocation, std::time::Duration::ZERO, &full);
                match HookStop::failed(spec, &moment.base, &full) {
                    None => writer.write(event(payload)).await,
                    Some(stop) => {
                        writer.record(event(payload)).await;
                        return Err(stop);
                    }
                }
            }
            HookOverflowPolicy::DropObserveOnly | HookOverflowPolicy::SummarizeAndContinue => {
                let invocation_id = invocation.id();
                writer.write(event(HookRecordPayload::Cancelled { invocation_id })).await;
            }
        }
        Ok(())
    }

    /// Takes no more, drops what waits, and calls off what is under way.
    pub(super) fn close(&self) {
        self.lock().open = None;
        self.wake.notify_one();
    }

    /// Returns when nothing waits or runs.
    pub(super) async fn drained(&self) {
        let mut idle = self.idle.subscribe();
        let _ = idle.wait_for(|idle| *idle).await;
    }
}

/// Closes the queue when the coordinator is gone: nobody can push any more.
impl Drop for super::Inner {
    fn drop(&mut self) {
        for queue in self.points.values().flatten().filter_map(|hook| hook.queue.as_ref()) {
            queue.close();
        }
    }
}

enum Next {
    Invoke(Waiting, watch::Receiver<()>),
    Drop(Waiting),
    Summarize(u64, Arc<HookMoment>, Invocation),
    Sleep,
    End,
}

impl HookQueue {
    fn next(&self) -> Next {
        let mut state = self.lock();
        if let Some((count, moment, invocation)) = state.dropped.take() {
            return Next::Summarize(count, moment, invocation);
        }
        let open = state.open.as_ref().map(watch::Sender::subscribe);
        match (state.waiting.pop_front(), open) {
            (Some(waiting), None) => Next::Drop(waiting),
            (Some(waiting), Some(open)) => Next::Invoke(waiting, open),
            (None, open) => {
                self.idle.send_replace(true);
                if open.is_some() { Next::Sleep } else { Next::End }
            }
        }
    }
}

async fn work(queue: Arc<HookQueue>, hook: Registered, writer: Writer, clock: Arc<dyn Clock>) {
    let spec = &hook.spec;
    let event = |moment: &Arc<HookMoment>, invocation, payload| {
        Event::new(spec, moment, invocation, clock.now_millis(), payload)
    };
    loop {
        match queue.next() {
            Next::Invoke(Waiting { moment, invocation, input }, open) => {
                let executor = Arc::clone(&hook.executor);
                let mut announced = true;
                if executor.reaches_outside() {
                    let invocation_id = invocation.id();
                    let started = HookRecordPayload::InvocationStarted { invocation_id };
                    announced = writer.record(event(&moment, invocation, started)).await;
                }
                let (answer, elapsed) = match announced {
                    true => invoke(executor, input, hook.timeout, Some(open)).await,
                    false => {
                        let why = "not invoked: that could not be recorded".to_owned();
                        (Answer::Broke(why), std::time::Duration::ZERO)
                    }
                };
                let (payloads, stop) = match &answer {
                    Answer::Response(HookResponse::ObserveOnly) => {
                        (vec![completed(invocation, elapsed)], None)
                    }
                    Answer::Response(response) => {
                        let class = response.class();
                        // Nothing but a look is covered by the rights of such a hook.
                        let decision = verdict(spec, class).unwrap_or(
                            countersign_core::hook::HookResponseDecision::RejectedMutationRight,
                        );
                        let reason = rejected_by(decision, spec, class);
                        (
                            vec![
                                completed(invocation, elapsed),
                                response_rejected(invocation, class, decision),
                            ],
                            HookStop::rejected(spec, &moment.base, class, &reason),
                        )
                    }
                    Answer::Late | Answer::Broke(_) | Answer::Full | Answer::CalledOff => (
                        vec![failure(spec, invocation, elapsed, &answer)],
                        HookStop::failed(spec, &moment.base, &answer),
                    ),
                };
                // The step it looked at has passed: what is left is the run.
                if let Some(stop) = stop {
                    moment.brake.engage(&stop.late());
                }
                for payload in payloads {
                    writer.write(event(&moment, invocation, payload)).await;
                }
            }
            Next::Drop(Waiting { moment, invocation, .. }) => {
                let invocation_id = invocation.id();
                let cancelled = HookRecordPayload::Cancelled { invocation_id };
                writer.write(event(&moment, invocation, cancelled)).await;
            }
            Next::Summarize(count, moment, invocation) => {
                // Going on is this policy's whole point, whatever follows from other failures.
                let policy = HookFailurePolicy::FailOpenObserveOnly;
                let payload = HookRecordPayload::Failed {
                    invocation_id: invocation.id(),
                    failure_policy: policy.record_word().to_owned(),
                    redacted_summary: format!(
                        "dropped, because the queue was full: {count}, this one last"
                    ),
                };
                writer.write(event(&moment, invocation, payload)).await;
            }
            Next::Sleep => queue.wake.notified().await,
            Next::End => return,
        }
    }
}
