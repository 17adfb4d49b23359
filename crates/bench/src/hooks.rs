//! What a hook costs the call that passes it, beside what the runtime alone takes for a task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::hook::{
    HookFailurePolicy, HookMutationRights, HookPoint, HookResponse, HookSource, HookSpec, HookView,
};
use countersign_core::id::{
    AgentId, HookExecutorRef, HookId, RefId, RunId, RuntimePackageFingerprint,
};
use countersign_core::journal::RecordBase;
use countersign_core::refs::{PolicyKind, PolicyRef, SourceKind, SourceRef};
use countersign_kernel::{Brake, Hook, HookCoordinator, HookMoment, Observed};
use countersign_ports::hook::HookFn;
use countersign_ports::memory::{ManualClock, MemoryJournal};

/// Passages between two looks at what was written behind.
const ROUND: usize = 32;

#[derive(serde::Serialize)]
pub(crate) struct HookFigures {
    /// Nanoseconds of the caller's time per observing hook that is waited for.
    pub(crate) blocking_ns: f64,
    /// The same for one that is not.
    pub(crate) non_blocking_ns: f64,
    /// All processor work per observation, recording included, in nanoseconds of wall time.
    pub(crate) recorded_ns: f64,
    /// A spawned task that does nothing, awaited: what containing a panic costs at least.
    pub(crate) task_ns: f64,
}

pub(crate) fn measure(time: Duration) -> HookFigures {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (blocking_ns, recorded_ns) = passages(spec_blocking, time).await;
        let (non_blocking_ns, _) = passages(spec_observing, time).await;
        HookFigures { blocking_ns, non_blocking_ns, recorded_ns, task_ns: tasks(time).await }
    })
}

fn spec_observing(n: usize) -> HookSpec {
    HookSpec::observing(
        HookId::new(format!("bench.{n}")).unwrap(),
        HookPoint::AfterToolCall,
        HookSource::InProcess,
        HookExecutorRef::new("bench").unwrap(),
        PolicyRef { kind: PolicyKind::Host, id: RefId::new("bench").unwrap(), version: None },
    )
}

fn spec_blocking(n: usize) -> HookSpec {
    let observing = spec_observing(n);
    let spec = HookSpec::blocking(
        observing.hook_id,
        observing.point,
        observing.source,
        observing.executor_ref,
        observing.policy_ref,
        HookMutationRights::observe(),
    );
    HookSpec { failure: HookFailurePolicy::FailOpenObserveOnly, ..spec }
}

/// Nanoseconds per hook: of the caller's time, and until everything is recorded.
async fn passages(spec: fn(usize) -> HookSpec, time: Duration) -> (f64, f64) {
    const HOOKS: usize = 8;
    let hooks = (0..HOOKS)
        .map(|n| Hook {
            spec: spec(n),
            executor: Arc::new(HookFn::new(|_| async { Ok(HookResponse::ObserveOnly) })),
        })
        .collect();
    let (journal, clock) = (Arc::new(MemoryJournal::default()), Arc::new(ManualClock::at(1)));
    let coordinator = HookCoordinator::new(hooks, journal, clock, 1).unwrap();
    let moment = Arc::new(HookMoment {
        point: HookPoint::AfterToolCall,
        base: RecordBase::new(
            RunId::new("run.bench").unwrap(),
            AgentId::new("agent.bench").unwrap(),
            SourceRef::new(SourceKind::Host, RefId::new("bench").unwrap()),
            RuntimePackageFingerprint::new("bench"),
        ),
        policy_refs: Vec::new(),
        brake: Brake::default(),
        caller: None,
    });
    let mut domain = Observed(HookView::new("measure: name=caller-1 number=1 path=docs/notes.md"));
    let (mut passed, mut waited, begin) = (0, Duration::ZERO, Instant::now());
    while begin.elapsed() < time {
        let start = Instant::now();
        for _ in 0..ROUND {
            coordinator.run(&moment, &mut domain).await.unwrap();
        }
        waited += start.elapsed();
        passed += ROUND * HOOKS;
        assert!(coordinator.flush().await);
    }
    let per = |time: Duration| time.as_secs_f64() * 1e9 / passed as f64;
    (per(waited), per(begin.elapsed()))
}

async fn tasks(time: Duration) -> f64 {
    let (mut count, begin) = (0, Instant::now());
    while begin.elapsed() < time {
        for _ in 0..ROUND {
            tokio::spawn(async {}).await.unwrap();
        }
        count += ROUND;
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap())
}
