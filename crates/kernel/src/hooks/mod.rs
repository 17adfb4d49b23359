//! Hooks at the points of a run: in order, bounded in time, held to their rights, recorded.
//!
//! An answer that changes or stops something is durable before it does. What changes nothing
//! is written behind, in order, by one task that gathers records into batches.

mod domain;
mod invoke;
mod queue;
mod stop;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_core::hook::{
    HookExecutionMode, HookInput, HookMutationJournalPlan, HookPoint, HookRecordPayload,
    HookResponse, HookResponseClass, HookResponseDecision, HookSpec, HookSpecError, hook_ref,
    hook_set_validate, rejected_response,
};
use countersign_core::id::{HookId, RecordId};
use countersign_core::journal::{EncodedDraft, RecordBase};
use countersign_core::refs::PolicyRef;
use countersign_ports::clock::Clock;
use countersign_ports::hook::HookExecutor;
use countersign_ports::journal::{Batch, Journal};
use tokio::sync::watch;

use crate::records::{BuildError, encode};

pub use domain::{Accepted, HookDomain, Observed};
pub use stop::{Brake, HookStop, StopScope};

use invoke::Answer;
use queue::HookQueue;
use write::{Event, Writer};

/// A hook and the code behind it.
#[derive(Clone)]
pub struct Hook {
    /// What it is registered as.
    pub spec: HookSpec,
    /// What answers.
    pub executor: Arc<dyn HookExecutor>,
}

/// One passage of one point by one run.
#[derive(Clone, Debug)]
pub struct HookMoment {
    /// The point.
    pub point: HookPoint,
    /// What the hooks' records have in common. Its time is that of the passage; each record
    /// gets its own.
    pub base: RecordBase,
    /// The rules that applied so far.
    pub policy_refs: Vec<PolicyRef>,
    /// The run's brake.
    pub brake: Brake,
    /// Closed when nobody waits any more; the hook that is under way is then called off.
    pub caller: Option<watch::Receiver<()>>,
}

/// Runs hooks. Clones share one set.
#[derive(Clone)]
pub struct HookCoordinator(Arc<Inner>);

struct Inner {
    points: BTreeMap<HookPoint, Vec<Registered>>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    writer: Writer,
}

#[derive(Clone)]
struct Registered {
    spec: Arc<HookSpec>,
    executor: Arc<dyn HookExecutor>,
    timeout: Duration,
    queue: Option<Arc<HookQueue>>,
}

impl HookCoordinator {
    /// Takes the hooks in. Must be called inside a tokio runtime: each hook that is not waited
    /// for gets a task, and so does the writer.
    ///
    /// `first_invocation` numbers the first invocation and must be above every number in the
    /// journal: records are named by it.
    ///
    /// # Errors
    /// The first rule that a hook breaks, or that two have one id.
    pub fn new(
        mut hooks: Vec<Hook>,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        first_invocation: u64,
    ) -> Result<Self, HookSpecError> {
        hook_set_validate(hooks.iter().map(|hook| &hook.spec))?;
        hooks.sort_by_cached_key(|hook| hook.spec.sort_key());
        let writer = Writer::start(Arc::clone(&journal));
        let mut points: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Hook { spec, executor } in hooks {
            let timeout = Duration::from_millis(spec.timeout.timeout_ms);
            let mut hook = Registered { spec: Arc::new(spec), executor, timeout, queue: None };
            if let HookExecutionMode::NonBlocking { queue, overflow } = &hook.spec.execution {
                let worker = (hook.clone(), writer.clone(), Arc::clone(&clock));
                hook.queue = Some(HookQueue::start(*queue, *overflow, worker));
            }
            points.entry(hook.spec.point).or_default().push(hook);
        }
        let next = AtomicU64::new(first_invocation);
        Ok(Self(Arc::new(Inner { points, journal, clock, next, writer })))
    }

    /// The specifications, in running order.
    pub fn specs(&self) -> impl Iterator<Item = &HookSpec> {
        self.0.points.values().flatten().map(|hook| &*hook.spec)
    }

    /// Whether any hook runs at this point.
    #[must_use]
    pub fn has(&self, point: HookPoint) -> bool {
        self.0.points.contains_key(&point)
    }

    /// Records which hooks there are, all in one batch, but for those whose hook id and
    /// specification hash are `known` from the journal.
    ///
    /// # Errors
    /// When they cannot be recorded.
    pub async fn register(
        &self,
        base: &RecordBase,
        known: &BTreeSet<(HookId, String)>,
    ) -> Result<(), HookStop> {
        let mut drafts = Vec::new();
        for spec in self.specs() {
            let failed = |error: &dyn std::fmt::Display| HookStop::not_recorded(spec, base, error);
            let hash = spec.spec_hash().map_err(|error| failed(&error))?.to_string();
            if known.contains(&(spec.hook_id.clone(), hash.clone())) {
                continue;
            }
            let id = RecordId::new(format!("journal.hook.{}.registered.{hash}", spec.hook_id))
                .map_err(|error| failed(&error))?;
            let record = spec.record(HookRecordPayload::Registered {
                spec_hash: hash,
                executor_ref: spec.executor_ref.to_string(),
                policy_ref: spec.policy_ref.clone(),
            });
            let base = RecordBase { timestamp_millis: self.now(), ..base.clone() };
            let draft = encode(base.hook(id, "hook_registered", record));
            drafts.push(draft.map_err(|error| failed(&error))?);
        }
        if drafts.is_empty() {
            return Ok(());
        }
        let appended = self.0.journal.append(Batch { drafts, contents: Vec::new() }).await;
        let Some(spec) = self.specs().next() else { return Ok(()) };
        appended.map(drop).map_err(|error| HookStop::not_recorded(spec, base, &error))
    }

    /// Runs the hooks of a point, one after the other, each seeing what the ones before it
    /// changed. Returns when those that are waited for have answered.
    ///
    /// # Errors
    /// When a hook stopped the step: by its answer, or by its failure policy. What hooks
    /// before it changed stays changed, and is recorded as such. The run's brake is engaged
    /// when no further step may follow.
    pub async fn run(
        &self,
        moment: &Arc<HookMoment>,
        domain: &mut dyn HookDomain,
    ) -> Result<(), HookStop> {
        let Some(hooks) = self.0.points.get(&moment.point) else { return Ok(()) };
        for hook in hooks {
            let stopped = match &hook.queue {
                Some(queue) => self.enqueue(hook, queue, moment, domain).await,
                None => self.wait_for(hook, moment, domain).await,
            };
            if let Err(stop) = stopped {
                moment.brake.engage(&stop);
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Waits until everything that was written behind is durable.
    ///
    /// `false` when something since the last such wait could not be recorded; the log says what.
    pub async fn flush(&self) -> bool {
        self.0.writer.flush().await
    }

    /// Lets the queues run empty, at most for `limit`. What still waits then, or is under way,
    /// is called off and recorded as cancelled, which gets as long again; then everything left
    /// is made durable.
    pub async fn close(&self, limit: Duration) {
        let queues = || self.0.points.values().flatten().filter_map(|hook| hook.queue.as_ref());
        let drained = || async {
            for queue in queues() {
                queue.drained().await;
            }
        };
        let _ = tokio::time::timeout(limit, drained()).await;
        for queue in queues() {
            queue.close();
        }
        let _ = tokio::time::timeout(limit, drained()).await;
        self.flush().await;
    }

    fn now(&self) -> u64 {
        self.0.clock.now_millis()
    }

    fn invocation(&self) -> Invocation {
        Invocation(self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn enqueue(
        &self,
        hook: &Registered,
        queue: &Arc<HookQueue>,
        moment: &Arc<HookMoment>,
        domain: &dyn HookDomain,
    ) -> Result<(), HookStop> {
        let invocation = self.invocation();
        let input = input(&hook.spec, moment, domain, invocation);
        queue.push(&hook.spec, moment, invocation, input, (&self.0.writer, self.now())).await
    }

    async fn wait_for(
        &self,
        hook: &Registered,
        moment: &Arc<HookMoment>,
        domain: &mut dyn HookDomain,
    ) -> Result<(), HookStop> {
        let (spec, invocation) = (&hook.spec, self.invocation());
        let input = input(spec, moment, domain, invocation);
        let event = |payload| Event::new(spec, moment, invocation, self.now(), payload);
        if hook.executor.reaches_outside() {
            let started = HookRecordPayload::InvocationStarted { invocation_id: invocation.id() };
            self.append(&[event(started)], Accepted::default(), moment, spec).await?;
        }
        let executor = Arc::clone(&hook.executor);
        let (answer, elapsed) =
            invoke::invoke(executor, input, hook.timeout, moment.caller.clone()).await;
        match answer {
            Answer::Response(HookResponse::ObserveOnly) => {
                self.0.writer.write(event(completed(invocation, elapsed))).await;
                Ok(())
            }
            Answer::Response(response) => {
                self.judge(spec, moment, domain, (invocation, elapsed), response).await
            }
            Answer::CalledOff => {
                let cancelled = HookRecordPayload::Cancelled { invocation_id: invocation.id() };
                self.0.writer.write(event(cancelled)).await;
                Err(HookStop::called_off(spec, &moment.base))
            }
            Answer::Late | Answer::Broke(_) | Answer::Full => {
                tracing::warn!(hook = %spec.hook_id, point = %spec.point, ?answer, "a hook failed");
                let event = event(failure(spec, invocation, elapsed, &answer));
                match HookStop::failed(spec, &moment.base, &answer) {
                    None => {
                        self.0.writer.write(event).await;
                        Ok(())
                    }
                    Some(stop) => {
                        self.append(&[event], Accepted::default(), moment, spec).await?;
                        Err(stop)
                    }
                }
            }
        }
    }

    /// Holds an answer that is more than a look against the matrix, the rights and the domain;
    /// records the verdict; and applies what was accepted.
    async fn judge(
        &self,
        spec: &Arc<HookSpec>,
        moment: &Arc<HookMoment>,
        domain: &mut dyn HookDomain,
        (invocation, elapsed): (Invocation, Duration),
        response: HookResponse,
    ) -> Result<(), HookStop> {
        let class = response.class();
        let verdict = match verdict(spec, class) {
            Some(rejected) => Err((rejected, rejected_by(rejected, spec, class))),
            None => domain
                .accept(spec, &response)
                .map_err(|reason| (HookResponseDecision::RejectedPolicy, reason)),
        };
        let event = |payload| Event::new(spec, moment, invocation, self.now(), payload);
        let completed = event(completed(invocation, elapsed));
        match verdict {
            Err((decision, reason)) => {
                let decided = event(response_rejected(invocation, class, decision));
                self.append(&[completed, decided], Accepted::default(), moment, spec).await?;
                tracing::warn!(hook = %spec.hook_id, %class, reason, "an answer was rejected");
                match HookStop::rejected(spec, &moment.base, class, &reason) {
                    Some(stop) => Err(stop),
                    None => Ok(()),
                }
            }
            Ok(accepted) => {
                let decided = event(HookRecordPayload::ResponseDecision {
                    invocation_id: invocation.id(),
                    decision: HookResponseDecision::AcceptedJournaledBeforeApply,
                    response_class: class,
                    mutation_right_decision: String::new(),
                    target_domain_refs: vec![hook_ref(&spec.hook_id)],
                });
                self.append(&[completed, decided], accepted, moment, spec).await?;
                match HookStop::answered(spec, &moment.base, &response) {
                    Some(stop) => Err(stop),
                    None => {
                        domain.apply(response);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Makes one step durable: all of it or nothing.
    async fn append(
        &self,
        events: &[Event],
        accepted: Accepted,
        moment: &HookMoment,
        spec: &HookSpec,
    ) -> Result<(), HookStop> {
        let Accepted { mut drafts, contents } = accepted;
        let failed =
            |error: &dyn std::fmt::Display| HookStop::not_recorded(spec, &moment.base, error);
        for event in events {
            drafts.extend(event.drafts().map_err(|error| failed(&error))?);
        }
        let appended = self.0.journal.append(Batch { drafts, contents }).await;
        appended.map(drop).map_err(|error| failed(&error))
    }
}

/// The number of an invocation, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invocation(u64);

impl Invocation {
    const PREFIX: &'static str = "hook.invocation.";

    fn id(self) -> String {
        format!("{}{}", Self::PREFIX, self.0)
    }

    /// The number in an id of the form that [`id`](Self::id) gives.
    pub(crate) fn number(id: &str) -> Option<u64> {
        id.strip_prefix(Self::PREFIX)?.parse().ok()
    }
}

fn input(
    spec: &HookSpec,
    moment: &HookMoment,
    domain: &dyn HookDomain,
    invocation: Invocation,
) -> HookInput {
    let base = &moment.base;
    HookInput {
        hook_id: spec.hook_id.clone(),
        point: spec.point,
        run_id: base.run_id.clone(),
        agent_id: base.agent_id.clone(),
        turn_id: base.turn_id.clone(),
        attempt_id: base.attempt_id.clone(),
        source: base.source.clone(),
        destination: base.destination.clone(),
        package_fingerprint: base.runtime_package_fingerprint.clone(),
        view: domain::cut(spec, domain),
        policy_refs: moment.policy_refs.clone(),
        cancellation: countersign_core::hook::HookCancellation::default(),
        invocation_id: Some(invocation.id()),
    }
}

fn completed(invocation: Invocation, elapsed: Duration) -> HookRecordPayload {
    HookRecordPayload::Completed { invocation_id: invocation.id(), elapsed_ms: millis(elapsed) }
}

fn failure(
    spec: &HookSpec,
    invocation: Invocation,
    elapsed: Duration,
    answer: &Answer,
) -> HookRecordPayload {
    let (invocation_id, failure_policy) = (invocation.id(), spec.failure.record_word().to_owned());
    match answer {
        Answer::Late => HookRecordPayload::TimedOut {
            invocation_id,
            elapsed_ms: millis(elapsed),
            failure_policy,
        },
        Answer::Broke(_) | Answer::Full => HookRecordPayload::Failed {
            invocation_id,
            failure_policy,
            redacted_summary: match answer {
                Answer::Broke(reason) => reason.clone(),
                _ => stop::FULL.to_owned(),
            },
        },
        Answer::Response(_) | Answer::CalledOff => HookRecordPayload::Cancelled { invocation_id },
    }
}

/// Why the answer cannot be considered at all; `None` when it can.
fn verdict(spec: &HookSpec, class: HookResponseClass) -> Option<HookResponseDecision> {
    if !spec.point.allows(class) {
        return Some(HookResponseDecision::RejectedPointMatrix);
    }
    let covered = class == HookResponseClass::Observe || spec.mutation_rights.cover(class);
    (!covered).then_some(HookResponseDecision::RejectedMutationRight)
}

fn rejected_by(
    decision: HookResponseDecision,
    spec: &HookSpec,
    class: HookResponseClass,
) -> String {
    match decision {
        HookResponseDecision::RejectedPointMatrix => {
            format!("`{class}` is not possible at `{}`", spec.point)
        }
        _ => format!("the hook has no right to `{class}`"),
    }
}

fn response_rejected(
    invocation: Invocation,
    response_class: HookResponseClass,
    decision: HookResponseDecision,
) -> HookRecordPayload {
    HookRecordPayload::ResponseDecision {
        invocation_id: invocation.id(),
        decision,
        response_class,
        mutation_right_decision: String::new(),
        target_domain_refs: Vec::new(),
    }
}

/// The drafts of a verdict: three records for an accepted answer, one for a rejected one.
fn verdict_drafts(
    invocation: Invocation,
    base: &RecordBase,
    spec: &HookSpec,
    class: HookResponseClass,
    decision: HookResponseDecision,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let id = invocation.id();
    match decision {
        HookResponseDecision::AcceptedJournaledBeforeApply => {
            let plan = HookMutationJournalPlan::accepted(invocation.0, base, spec, &id, class)?;
            plan.into_records().into_iter().map(encode).collect()
        }
        _ => {
            let record = rejected_response(invocation.0, base, spec, &id, class, decision)?;
            Ok(vec![encode(record)?])
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
