//! The hook coordinator: order, deadlines, rights, records.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;
mod rig;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{CountDrop, answers, blocking, broken, hook, hooked, observing};
use common::{journal, seed, settle, until, world_with};
use countersign_core::error::{AgentError, AgentErrorKind, RetryClassification};
use countersign_core::hook::{
    HookFailurePolicy, HookMutationRight as Right, HookOrdering, HookOrderingPhase as Phase,
    HookPoint, HookPrivacyPolicy, HookReason, HookRecordPayload as Payload, HookResponse, HookSpec,
    HookSpecError, HookView,
};
use countersign_core::id::ToolCallId;
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_kernel::{Hook, HookCoordinator, Observed, Parts, StartError, StopScope};
use countersign_manifest::ManifestSet;
use countersign_ports::hook::HookError;
use countersign_ports::memory::{ManualClock, SeededEntropy};
use rig::{AFTER, BEFORE, Board, Slow, WRONG, base, deny, first, modify, rig, within};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn hooks_run_by_phase_order_and_id_and_each_sees_what_earlier_ones_changed() {
    let appending = |id: &str, phase, order| {
        let ordering = HookOrdering { phase, order };
        let spec = HookSpec { ordering, ..blocking(id, BEFORE, &[Right::ModifyToolRequest]) };
        hook(spec, |input| async move {
            Ok(modify(format!("{}{}", input.view.redacted_summary, input.hook_id)))
        })
    };
    let w = rig(vec![
        appending("e", Phase::Normal, 7),
        appending("f", Phase::Late, i32::MIN),
        appending("d", Phase::Normal, 7),
        appending("c", Phase::Normal, -7),
        appending("b", Phase::Early, i32::MAX),
        answers(blocking("a", AFTER, &[]), HookResponse::ObserveOnly),
    ]);
    let order: Vec<_> = w.hooks.specs().map(|spec| spec.hook_id.to_string()).collect();
    assert_eq!(order, ["b", "c", "d", "e", "f", "a"]);
    let mut board = Board::default();
    w.run(BEFORE, &mut board).await.unwrap();
    assert_eq!(board.text(), "bcdef");
    assert_eq!(w.hooks.has(BEFORE), w.hooks.has(AFTER));
    assert!(!w.hooks.has(HookPoint::RunStarting));
    w.pass(HookPoint::RunStarting).await.unwrap();
}

#[tokio::test]
async fn a_set_that_breaks_a_rule_is_refused() {
    let clock = Arc::new(ManualClock::at(1));
    let new = |hooks| HookCoordinator::new(hooks, journal(), clock.clone(), 1).err().unwrap();
    let twice = || answers(blocking("a", AFTER, &[]), HookResponse::ObserveOnly);
    assert!(matches!(new(vec![twice(), twice()]), HookSpecError::Duplicate { .. }));
    let open =
        HookSpec { failure: HookFailurePolicy::FailOpenObserveOnly, ..blocking("a", BEFORE, &[]) };
    assert!(matches!(new(vec![answers(open, deny())]), HookSpecError::FailOpen { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_coordinator_holds_the_clock_cancels_at_the_deadline_and_records_the_time() {
    let slow = Slow::new();
    let w = rig(vec![slow.hook(blocking("h", BEFORE, &[Right::Deny]), deny())]);
    let before = Instant::now();
    let stop = w.pass(BEFORE).await.unwrap_err();
    assert_eq!((stop.code, before.elapsed()), ("hook.timed_out", Duration::from_millis(250)));
    slow.dropped().await;
    let failure_policy = "InterruptRun".to_owned();
    let timed_out = Payload::TimedOut {
        invocation_id: "hook.invocation.1".into(),
        elapsed_ms: 250,
        failure_policy,
    };
    assert_eq!(w.recorded().await, [timed_out]);
    // In time, and the time it took.
    let prompt = hook(within(100, blocking("h", BEFORE, &[])), |_| async {
        tokio::time::sleep(Duration::from_millis(99)).await;
        Ok(HookResponse::ObserveOnly)
    });
    let w = rig(vec![prompt]);
    w.pass(BEFORE).await.unwrap();
    let completed =
        Payload::Completed { invocation_id: "hook.invocation.1".into(), elapsed_ms: 99 };
    assert_eq!(w.recorded().await, [completed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_hook_that_never_gives_way_is_given_up_at_its_deadline() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (blocked, ended) = (Arc::new(Mutex::new(blocked)), Arc::new(AtomicUsize::new(0)));
    let counted = ended.clone();
    let stuck = hook(within(20, blocking("h", BEFORE, &[Right::Deny])), move |_| {
        let (blocked, ended) = (blocked.clone(), CountDrop(counted.clone()));
        async move {
            let _ended = ended;
            let _ = blocked.lock().unwrap().recv();
            Ok(deny())
        }
    });
    let w = rig(vec![stuck]);
    let stop = w.pass(BEFORE).await.unwrap_err();
    assert_eq!((stop.code, ended.load(Ordering::SeqCst)), ("hook.timed_out", 0));
    release.send(()).unwrap();
    while ended.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let recorded = w.recorded().await;
    let [Payload::TimedOut { elapsed_ms, .. }] = &recorded[..] else { panic!("{recorded:?}") };
    assert!(*elapsed_ms >= 20, "{elapsed_ms}");
}

#[tokio::test]
async fn an_answer_that_comes_late_does_not_count() {
    // On the only thread: the timer cannot fire before the hook has answered.
    let late = hook(within(5, blocking("h", BEFORE, &[Right::ModifyToolRequest])), |_| async {
        std::thread::sleep(Duration::from_millis(20));
        Ok(modify("late"))
    });
    let w = rig(vec![late]);
    let mut board = Board::default();
    assert_eq!(w.run(BEFORE, &mut board).await.unwrap_err().code, "hook.timed_out");
    assert_eq!(board.text(), "");
    let recorded = w.recorded().await;
    let [Payload::TimedOut { elapsed_ms, .. }] = &recorded[..] else { panic!("{recorded:?}") };
    assert!(*elapsed_ms >= 20, "{elapsed_ms}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_called_off_when_the_caller_goes_away() {
    let slow = Slow::new();
    let mut w = rig(vec![
        slow.hook(blocking("a", BEFORE, &[]), HookResponse::ObserveOnly),
        slow.hook(blocking("b", BEFORE, &[]), HookResponse::ObserveOnly),
    ]);
    let (caller, gone) = watch::channel(());
    w.caller = Some(gone);
    let before = Instant::now();
    let (stopped, ()) = tokio::join!(w.pass(BEFORE), async {
        until(async || slow.begun() == 1).await;
        drop(caller);
    });
    let stop = stopped.unwrap_err();
    assert_eq!((stop.code, stop.scope), ("hook.called_off", StopScope::Step));
    assert_eq!(stop.error.kind(), AgentErrorKind::Cancellation);
    assert_eq!((before.elapsed(), slow.begun()), (Duration::ZERO, 1));
    slow.dropped().await;
    assert!(w.brake.engaged().is_none());
    let invocation_id = "hook.invocation.1".to_owned();
    assert_eq!(w.recorded().await, [Payload::Cancelled { invocation_id }]);
}

#[tokio::test(start_paused = true)]
async fn rejections_timeouts_and_failures_are_journaled_and_follow_the_failure_policy() {
    use HookFailurePolicy::{Deny, FailOpenObserveOnly, FailRun, InterruptRun};
    let follows = [
        (FailOpenObserveOnly, "FailOpenObserveOnly", None),
        (Deny, "Deny", Some((AgentErrorKind::PolicyDenial, StopScope::Step))),
        (
            InterruptRun,
            "InterruptRun",
            Some((AgentErrorKind::HookFailure, StopScope::InterruptRun)),
        ),
        (FailRun, "FailRun", Some((AgentErrorKind::HookFailure, StopScope::FailRun))),
    ];
    for (wrong, make, records, code) in WRONG {
        for (failure, word, expected) in follows {
            let guarded = *wrong == "answers what the domain refuses";
            let rights: &[Right] = if guarded { &[Right::RewriteToolResult] } else { &[] };
            if guarded && failure == FailOpenObserveOnly {
                continue; // What may change something cannot fail open.
            }
            let w = rig(vec![make(HookSpec { failure, ..blocking("h", AFTER, rights) })]);
            let mut board = Board { refuses: Some("closed"), ..Board::default() };
            let stopped = w.run(AFTER, &mut board).await;
            let at = format!("a hook {wrong}, {word}");
            assert_eq!(w.recorded().await, records(word), "{at}");
            // One record for the verdict, none of an effect; all of the step in one append.
            let appends = w.journal.batches.lock().unwrap().clone();
            assert_eq!(appends.len(), 1, "{at}: {appends:?}");
            assert_eq!(appends[0].len(), records(word).len(), "{at}");
            let Some((kind, scope)) = expected else {
                assert_eq!((stopped, w.brake.engaged()), (Ok(()), None), "{at}");
                continue;
            };
            let stop = stopped.unwrap_err();
            assert_eq!((stop.code, stop.scope), (*code, scope), "{at}");
            let AgentError::Classified { kind: found, retry, context, causal_ids } = &stop.error
            else {
                panic!("{at}")
            };
            assert_eq!((*found, *retry), (kind, RetryClassification::RepairNeeded), "{at}");
            assert_eq!(context.policy_refs, [common::hook_policy()], "{at}");
            assert_eq!(causal_ids.run_id, Some(base().run_id), "{at}");
            assert_eq!(causal_ids.turn_id, base().turn_id, "{at}");
            assert_eq!(causal_ids.attempt_id, base().attempt_id, "{at}");
            assert_eq!(causal_ids.tool_call_id, Some(ToolCallId::new("call.1").unwrap()), "{at}");
            let braked = (scope > StopScope::Step).then_some(&stop);
            assert_eq!(w.brake.engaged(), braked, "{at}");
        }
    }
}

#[tokio::test]
async fn an_observed_point_lets_hooks_stop_and_change_nothing() {
    let reason = HookReason { code: "enough".into(), redacted_summary: "over".into() };
    for (point, right, response, code) in [
        (
            HookPoint::RunStarting,
            Right::StopRun,
            HookResponse::StopRun(reason.clone()),
            "hook.stop_run",
        ),
        (
            HookPoint::RunStarting,
            Right::InjectContext,
            HookResponse::InjectContext(vec![]),
            "hook.rejected",
        ),
        (
            HookPoint::BeforeRunComplete,
            Right::StopCompletionWithRepairNeeded,
            HookResponse::StopCompletionWithRepairNeeded(reason.clone()),
            "hook.repair_needed",
        ),
    ] {
        let w = rig(vec![answers(blocking("h", point, &[right]), response)]);
        let stop = w.run(point, &mut Observed(HookView::new("it"))).await.unwrap_err();
        assert_eq!(stop.code, code);
        assert_eq!(stop.reason.is_some(), code != "hook.rejected");
    }
}

#[tokio::test]
async fn an_accepted_answer_is_one_atomic_batch_and_durable_before_it_is_applied() {
    let spec = blocking("h", BEFORE, &[Right::ModifyToolRequest]);
    let w = rig(vec![answers(spec, modify("new"))]);
    w.journal.permits.forget_permits(usize::MAX);
    let text = Arc::new(Mutex::new("old".to_owned()));
    let (hooks, moment, shared) = (w.hooks.clone(), w.moment(BEFORE), text.clone());
    let running = tokio::spawn(async move {
        let mut board = Board { text: shared, ..Board::default() };
        hooks.run(&moment, &mut board).await
    });
    settle().await;
    assert!(!running.is_finished() && *text.lock().unwrap() == "old", "applied before durable");
    w.journal.permits.add_permits(1);
    running.await.unwrap().unwrap();
    assert_eq!(*text.lock().unwrap(), "new");
    let batch = ["completed", "response", "intent", "result"];
    let batch = batch.map(|part| format!("journal.hook.h.1.{part}"));
    let batch = [&["board.h".to_owned()], &batch[..]].concat();
    assert_eq!(*w.journal.batches.lock().unwrap(), [batch]);
    let records = w.journal.records().await;
    let JournalPayload::EffectIntent(intent) = &records[3].payload else { panic!() };
    let JournalPayload::EffectResult(result) = &records[4].payload else { panic!() };
    assert_eq!(intent.effect_id.as_str(), "effect.hook.h.hook.invocation.1");
    assert_eq!(result.effect_id, intent.effect_id);
}

#[tokio::test]
async fn an_accepted_answer_that_cannot_be_recorded_is_not_applied_and_stops_the_step() {
    // One record of the five is enough.
    for part in ["board.h", ".1.completed", ".1.response", ".1.intent", ".1.result"] {
        let spec = blocking("h", BEFORE, &[Right::ModifyToolRequest]);
        let w = rig(vec![answers(spec, modify("new"))]);
        w.journal.refuse(Some(part));
        let mut board = Board::default();
        let stop = w.run(BEFORE, &mut board).await.unwrap_err();
        assert_eq!((stop.code, stop.scope), ("not_recorded", StopScope::Step), "{part}");
        assert_eq!(stop.error.kind(), AgentErrorKind::JournalFailure, "{part}");
        assert!(stop.message.contains("disk full"), "{}", stop.message);
        assert_eq!((board.text(), w.journal.records().await.len()), (String::new(), 0), "{part}");
    }
}

#[tokio::test]
async fn the_result_says_what_happened_though_a_later_hook_stops_the_step() {
    let spec = |id| blocking(id, BEFORE, &[Right::ModifyToolRequest, Right::Deny]);
    for last in [answers(spec("b"), deny()), broken(spec("b"))] {
        let w = rig(vec![answers(spec("a"), modify("new")), last]);
        let mut board = Board::default();
        let stop = w.run(BEFORE, &mut board).await.unwrap_err();
        assert_eq!((stop.hook_id.as_str(), board.text().as_str()), ("b", "new"));
        let completed = w.journal.batch_of("journal.hook.a.1.result").unwrap();
        assert!(completed.contains(&"board.a".to_owned()), "{completed:?}");
    }
}

#[tokio::test]
async fn a_denial_carries_the_hooks_reason() {
    let w = rig(vec![answers(blocking("h", BEFORE, &[Right::Deny]), deny())]);
    let stop = w.pass(BEFORE).await.unwrap_err();
    assert_eq!((stop.code, stop.scope), ("hook.denied", StopScope::Step));
    assert_eq!(stop.message, "hook `h`: no.thanks: not today");
    assert_eq!(stop.reason.unwrap().code, "no.thanks");
    assert_eq!(stop.error.kind(), AgentErrorKind::PolicyDenial);
    assert!(w.brake.engaged().is_none());
}

#[tokio::test]
async fn a_hook_sees_as_much_as_its_privacy_policy_lets_it() {
    for (privacy, summary, content) in [
        (HookPrivacyPolicy::ContentRefsOnly, "before_tool_call", false),
        (HookPrivacyPolicy::EnvelopeAndRedactedSummary, "seen", false),
        (HookPrivacyPolicy::ContentCaptureAllowed, "seen", true),
    ] {
        let seen = Arc::new(Mutex::new(None));
        let keep = seen.clone();
        let spec = HookSpec { privacy, ..blocking("h", BEFORE, &[]) };
        let w = rig(vec![hook(spec, move |input| {
            *keep.lock().unwrap() = Some(input);
            async { Ok(HookResponse::ObserveOnly) }
        })]);
        let text = Arc::new(Mutex::new("seen".to_owned()));
        w.run(BEFORE, &mut Board { text, ..Board::default() }).await.unwrap();
        let input = seen.lock().unwrap().take().unwrap();
        assert_eq!(
            (input.view.redacted_summary.as_str(), input.view.content.is_some()),
            (summary, content)
        );
        assert_eq!((input.run_id, input.turn_id), (base().run_id, base().turn_id));
        assert_eq!(input.invocation_id, Some(first()));
    }
}

#[tokio::test]
async fn every_invocation_has_its_own_id() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = |spec| {
        let seen = seen.clone();
        hook(spec, move |input: countersign_core::hook::HookInput| {
            seen.lock().unwrap().push(input.invocation_id.unwrap());
            async { Err(HookError("no".into())) }
        })
    };
    let open = |spec| HookSpec { failure: HookFailurePolicy::FailOpenObserveOnly, ..spec };
    let w = rig(vec![noting(open(blocking("a", AFTER, &[]))), noting(observing("b", AFTER))]);
    let passes = (0..20).map(|_| {
        let (hooks, moment) = (w.hooks.clone(), w.moment(AFTER));
        tokio::spawn(async move { hooks.run(&moment, &mut Board::default()).await })
    });
    for pass in passes.collect::<Vec<_>>() {
        pass.await.unwrap().unwrap();
    }
    until(async || seen.lock().unwrap().len() == 40).await;
    let given: BTreeSet<_> = seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(given.len(), 40);
    until(async || w.recorded().await.len() == 40).await;
    let recorded = w.recorded().await;
    let recorded: BTreeSet<_> = recorded.iter().map(|p| p.invocation_id().unwrap()).collect();
    assert_eq!(recorded, given.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn invocation_ids_go_on_after_a_restart() {
    let hooks = || {
        let open = HookFailurePolicy::FailOpenObserveOnly;
        let silent = HookSpec { failure: open, ..blocking("a", AFTER, &[]) };
        vec![broken(silent), answers(observing("b", AFTER), HookResponse::ObserveOnly)]
    };
    let (journal, clock) = (journal(), Arc::new(ManualClock::at(1_000_000)));
    let mut highest = 0;
    for (calls, seed) in [(2, 1), (3, 2), (1, 3)] {
        let setup = common::Setup { seed, ..hooked(hooks()) };
        let w = common::start(journal.clone(), clock.clone(), setup).await;
        for _ in 0..calls {
            w.call("look", json!({"file": "a"})).await;
        }
        w.kernel.hooks().close(Duration::from_secs(1)).await;
        highest += 2 * calls;
    }
    let hooks = journal.hooks().await;
    let ids: Vec<_> = hooks.iter().filter_map(|(_, payload)| payload.invocation_id()).collect();
    let numbers: BTreeSet<u64> =
        ids.iter().map(|id| id.rsplit('.').next().unwrap().parse().unwrap()).collect();
    assert_eq!(ids.len(), numbers.len(), "an id was given twice: {ids:?}");
    assert_eq!(numbers, (1..=highest).collect());
}

#[tokio::test]
async fn an_invocation_that_a_crash_cut_off_is_cancelled_at_the_next_start() {
    let stuck = hook(blocking("h", AFTER, &[]), |_| std::future::pending());
    let w = world_with(hooked(vec![common::outside(stuck)])).await;
    let _call = w.spawn("look", json!({"file": "a"}));
    until(async || w.story().await.contains(&"hook_invocation_started".to_owned())).await;
    let (journal, clock) = w.crash().await;
    // Once, and not again at the start after that.
    for seed in [2, 3] {
        let setup = common::Setup { seed, ..common::Setup::default() };
        let w = common::start(journal.clone(), clock.clone(), setup).await;
        let records = w.records().await;
        let of = |kind: &str| {
            let of = records.iter().filter(|r| r.event_index.event_kind == kind);
            of.cloned().collect::<Vec<_>>()
        };
        let [started] = &of("hook_invocation_started")[..] else { panic!() };
        let [ended] = &of("hook_cancelled")[..] else { panic!("{seed}") };
        assert_eq!(ended.run_id, started.run_id);
        assert_eq!(ended.correlation_keys, started.correlation_keys);
        let id = |record: &JournalRecord| match &record.payload {
            JournalPayload::Hook(hook) => hook.payload.invocation_id().map(str::to_owned),
            _ => None,
        };
        assert_eq!(id(ended), id(started));
    }
}

#[tokio::test]
async fn a_specification_is_registered_once_over_restarts() {
    let (journal, clock) = (journal(), Arc::new(ManualClock::at(1_000_000)));
    let other = || within(251, observing("b", AFTER));
    let quiet = |spec| answers(spec, HookResponse::ObserveOnly);
    let registered = async || {
        let hooks = journal.hooks().await.into_iter();
        let hooks = hooks.filter(|(_, payload)| matches!(payload, Payload::Registered { .. }));
        hooks.map(|(id, _)| id).collect::<Vec<_>>()
    };
    let sets: [(Vec<Hook>, &[&str]); 4] = [
        (vec![quiet(blocking("a", AFTER, &[])), quiet(observing("b", AFTER))], &["a", "b"]),
        (vec![quiet(observing("b", AFTER)), quiet(blocking("a", AFTER, &[]))], &["a", "b"]),
        (vec![quiet(other())], &["a", "b", "b"]),
        (vec![quiet(observing("b", AFTER))], &["a", "b", "b"]),
    ];
    for (at, (hooks, expected)) in sets.into_iter().enumerate() {
        clock.advance(Duration::from_secs(1));
        hooked(hooks).kernel(&journal, &clock).await;
        assert_eq!(registered().await, expected, "start {at}");
    }
    let first = &journal.hooks().await[1].1;
    let Payload::Registered { spec_hash, executor_ref, policy_ref } = first else { panic!() };
    assert_eq!(*spec_hash, observing("b", AFTER).spec_hash().unwrap().to_string());
    assert_eq!((executor_ref.as_str(), policy_ref), ("executor.b", &common::hook_policy()));
    // All of them in one append.
    assert_eq!(journal.batches.lock().unwrap()[0].len(), 2);
}

#[tokio::test]
async fn a_kernel_does_not_start_with_hooks_it_cannot_record() {
    let journal = journal();
    journal.fails.store(true, Ordering::SeqCst);
    let parts = Parts {
        journal: journal.clone(),
        clock: Arc::new(ManualClock::at(1)),
        entropy: Arc::new(SeededEntropy::new(1)),
        executor: Arc::new(common::Hands::default()),
        manifests: ManifestSet::load(Vec::new()).0,
        policy: seed(1).policy,
        limits: countersign_escalation::Limits::default(),
        hooks: vec![answers(observing("h", AFTER), HookResponse::ObserveOnly)],
        notifiers: Vec::new(),
        version: "test".into(),
    };
    let error = countersign_kernel::Kernel::start(parts).await.err().unwrap();
    assert!(matches!(error, StartError::Hooks(_)), "{error}");
}
