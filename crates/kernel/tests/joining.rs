//! Equal calls: they share one hold and one outcome. And callers that go away and come back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{World, args, hooked, seed, settle, start, until, world, world_with};
use countersign_core::hold::{DecisionKind, HoldStatus};
use countersign_core::hook::{
    HookFailurePolicy, HookMutationRight as Right, HookPoint, HookResponse, HookSpec,
};
use countersign_core::id::IdempotencyKey;
use countersign_core::journal::JournalRecord;
use countersign_kernel::{Call, CallOptions, Governed, Hook};
use countersign_manifest::EnvelopeStatus;
use countersign_ports::memory::ManualClock;
use serde_json::{Value, json};

fn file(name: &str) -> Value {
    json!({ "file": name })
}

fn kept(w: &World, tool: &str, arguments: Value) -> Call {
    let options = CallOptions { kept: true, ..CallOptions::default() };
    w.kernel.call(&w.run, tool, &args(arguments), options)
}

fn keyed(w: &World, key: &str, tool: &str, arguments: Value) -> Call {
    let idempotency_key = Some(IdempotencyKey::new(key).unwrap());
    w.kernel.call(
        &w.run,
        tool,
        &args(arguments),
        CallOptions { kept: true, idempotency_key, mcp: None },
    )
}

fn succeeded(governed: &Governed) -> bool {
    governed.envelope.status == EnvelopeStatus::Success
}

fn code(governed: Governed) -> String {
    governed.denial.unwrap().code
}

/// The call is held, and whoever made it is gone.
async fn left(w: &World, arguments: Value) {
    let call = kept(w, "write", arguments);
    w.held().await;
    drop(call);
    settle().await;
}

#[tokio::test]
async fn equal_calls_share_one_hold_and_one_outcome() {
    for decision in [DecisionKind::Approve, DecisionKind::Deny] {
        let w = world().await;
        let first = w.spawn("write", file("a"));
        w.held().await;
        // Another run of the same agent, and an equal call without the gateway's noticing.
        let other = common::new_run(&w.kernel, "agent.a", None).await;
        let second = w.spawn_in(&other, "write", file("a"));
        settle().await;
        assert_eq!((w.kernel.queue().pending().len(), w.requests().await.len()), (1, 1));
        w.decide(decision, "ada").await.unwrap();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first, second);
        assert_eq!(succeeded(&first), decision == DecisionKind::Approve);
        assert_eq!(w.ran(), usize::from(decision == DecisionKind::Approve));
        // It is over: the next one is a call of its own.
        let third = w.spawn("write", file("a"));
        w.held().await;
        assert_eq!(w.requests().await.len(), 2);
        third.abort();
    }
}

#[tokio::test]
async fn other_calls_do_not_join() {
    let w = world().await;
    let _calls = [w.spawn("write", file("a")), w.spawn("write", file("b"))];
    let other = common::new_run(&w.kernel, "agent.b", None).await;
    let _other = w.spawn_in(&other, "write", file("a"));
    until(async || w.kernel.queue().pending().len() == 3).await;
}

#[tokio::test]
async fn who_calls_off_does_not_speak_for_the_others() {
    let w = world().await;
    let (first, second) = (w.spawn("write", file("a")), w.spawn("write", file("a")));
    w.held().await;
    settle().await;
    first.abort();
    settle().await;
    assert_eq!(w.held().await.status, HoldStatus::Pending);
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert!(succeeded(&second.await.unwrap()));
    // The last one does.
    let (first, second) = (w.spawn("write", file("b")), w.spawn("write", file("b")));
    w.held().await;
    settle().await;
    first.abort();
    second.abort();
    until(async || w.kernel.queue().pending().is_empty()).await;
    until(async || w.story().await.last().unwrap() == "tool_denied").await;
    assert_eq!(w.ran(), 1);
}

#[tokio::test]
async fn a_hold_never_ends_because_its_caller_did_and_its_approval_is_used_once() {
    let w = world().await;
    left(&w, file("a")).await;
    assert_eq!(w.held().await.status, HoldStatus::Pending);
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    settle().await;
    assert_eq!(w.ran(), 0, "a call ran that nobody waited for");
    // Several come back at once.
    let calls = [kept(&w, "write", file("a")), kept(&w, "write", file("a"))];
    let mut ids = Vec::new();
    for mut call in calls {
        let governed = call.outcome().await.unwrap();
        assert!(succeeded(&governed), "{governed:?}");
        ids.push(governed.call_id);
    }
    assert_eq!((w.ran(), w.requests().await.len()), (1, 1));
    assert_eq!(ids[0], ids[1]);
    let _again = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!((w.ran(), w.requests().await.len()), (1, 2));
}

#[tokio::test]
async fn who_comes_back_while_it_is_held_joins() {
    let w = world().await;
    left(&w, file("a")).await;
    let mut again = kept(&w, "write", file("a"));
    let mut hold = again.hold();
    let id = hold.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(id, Some(w.held().await.id));
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert!(succeeded(&again.outcome().await.unwrap()));
    assert_eq!((w.ran(), w.requests().await.len()), (1, 1));
}

#[tokio::test]
async fn an_approval_nobody_came_back_for_ends_with_its_own_time() {
    let w = world().await;
    left(&w, file("a")).await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    settle().await;
    // A hold's own clock goes on with real time, by some milliseconds.
    w.clock.advance(w.kernel.policy().approval_valid_for + Duration::from_secs(60));
    let _again = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!((w.ran(), w.requests().await.len()), (0, 2));
}

#[tokio::test]
async fn a_denial_nobody_heard_is_for_who_comes_back_and_once() {
    let w = world().await;
    left(&w, file("a")).await;
    w.decide(DecisionKind::Deny, "ada").await.unwrap();
    settle().await;
    let governed = kept(&w, "write", file("a")).outcome().await.unwrap();
    let denial = governed.denial.unwrap();
    assert_eq!((denial.code.as_str(), denial.by.unwrap().id.as_str()), ("approval.denied", "ada"));
    let _again = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!(w.requests().await.len(), 2);
}

#[tokio::test]
async fn what_runs_when_its_caller_leaves_runs_to_its_end_and_is_told_to_who_comes_back() {
    let w = world().await;
    w.hands.hangs.store(true, Ordering::SeqCst);
    let call = kept(&w, "write", file("a"));
    w.held().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    until(async || w.ran() == 1).await;
    drop(call);
    settle().await;
    assert_eq!(w.hands.dropped.load(Ordering::SeqCst), 0, "it was killed");
    let mut again = kept(&w, "write", file("a"));
    settle().await;
    assert_eq!((w.ran(), w.requests().await.len()), (1, 1));
    // Called off by the only one who is there now, it is killed.
    again.call_off();
    let governed = again.outcome().await.unwrap();
    assert_eq!(governed.envelope.status, EnvelopeStatus::Error);
    assert_eq!(w.hands.dropped.load(Ordering::SeqCst), 1);
    // Under a key, an outcome is told as often as it is asked for.
    let w = world().await;
    let call = keyed(&w, "k", "write", file("a"));
    w.held().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    until(async || w.story().await.contains(&"tool_result_recorded".to_owned())).await;
    drop(call);
    for _ in 0..3 {
        assert!(succeeded(&keyed(&w, "k", "write", file("a")).outcome().await.unwrap()));
    }
    assert_eq!(w.ran(), 1);
}

#[tokio::test]
async fn an_outcome_that_its_caller_did_not_take_is_for_who_comes_back() {
    let w = world().await;
    let call = kept(&w, "write", file("a"));
    w.held().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    until(async || w.story().await.contains(&"tool_result_recorded".to_owned())).await;
    settle().await;
    // It is there, and nobody has taken it.
    drop(call);
    settle().await;
    let mut again = kept(&w, "write", file("a"));
    let governed = tokio::time::timeout(Duration::from_secs(20), again.outcome()).await;
    assert!(succeeded(&governed.expect("asked again").unwrap()));
    assert_eq!((w.ran(), w.requests().await.len()), (1, 1));
    let _next = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!(w.requests().await.len(), 2);
}

#[tokio::test]
async fn a_stop_waits_for_what_was_left_and_runs_and_can_end_it() {
    let w = world().await;
    w.hands.hangs.store(true, Ordering::SeqCst);
    let call = kept(&w, "write", file("a"));
    let hold = call.hold();
    w.held().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    until(async || w.ran() == 1).await;
    drop(call);
    settle().await;
    w.kernel.queue().close();
    let settled = w.kernel.settled();
    tokio::pin!(settled);
    let waits = tokio::time::timeout(Duration::from_millis(50), &mut settled).await;
    assert!(waits.is_err() && hold.has_changed().is_ok(), "nobody waits for what runs");
    w.kernel.call_off_all();
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    assert_eq!(w.story().await.last().unwrap(), "tool_result_recorded");
    assert_eq!(w.hands.dropped.load(Ordering::SeqCst), 1);
    until(async || hold.has_changed().is_err()).await;
}

#[tokio::test]
async fn a_call_is_taken_up_by_its_key_and_nothing_new_is_asked_or_run() {
    let w = world().await;
    let key = |key: &str| IdempotencyKey::new(key).unwrap();
    let made = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    let held = keyed(&w, "h", "write", file("h"));
    w.held().await;
    drop(held);
    let off = keyed(&w, "o", "write", file("o"));
    until(async || w.kernel.queue().pending().len() == 2).await;
    off.call_off();
    until(async || w.kernel.queue().pending().len() == 1).await;
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    let mut again = w.kernel.take_up(&w.run, &key("k")).await.unwrap().unwrap();
    assert_eq!(again.tool, "look");
    assert_eq!(again.call.outcome().await.unwrap().call_id, made.call_id);
    for unknown in ["o", "none"] {
        assert!(w.kernel.take_up(&w.run, &key(unknown)).await.unwrap().is_none(), "{unknown}");
    }
    let other = common::new_run(&w.kernel, "agent.b", None).await;
    assert!(w.kernel.take_up(&other, &key("h")).await.unwrap().is_none());
    let mut held = w.kernel.take_up(&w.run, &key("h")).await.unwrap().unwrap();
    let mut hold = held.call.hold();
    hold.wait_for(Option::is_some).await.unwrap();
    // It is waited for.
    assert!(w.kernel.take_up(&w.run, &key("h")).await.unwrap().is_none());
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert!(succeeded(&held.call.outcome().await.unwrap()));
    assert_eq!((w.ran(), w.requests().await.len()), (1, 2));
}

#[tokio::test]
async fn a_call_is_made_once_under_its_key() {
    let w = world().await;
    let mut first = keyed(&w, "k", "look", file("a"));
    let mut same_time = keyed(&w, "k", "look", file("a"));
    let first = first.outcome().await.unwrap();
    assert!(succeeded(&first));
    assert_eq!(same_time.outcome().await.unwrap(), first);
    assert_eq!(keyed(&w, "k", "look", file("a")).outcome().await.unwrap(), first);
    assert_eq!(w.ran(), 1);
    // Another call under a used key is an error, whatever differs.
    for (tool, arguments) in [("look", file("b")), ("write", file("a"))] {
        let refused = keyed(&w, "k", tool, arguments).outcome().await.unwrap();
        assert_eq!(code(refused), "idempotency_key_reused");
    }
    // Another key, none, or another agent's is another call.
    keyed(&w, "l", "look", file("a")).outcome().await.unwrap();
    w.call("look", file("a")).await;
    let run = common::new_run(&w.kernel, "agent.b", None).await;
    let idempotency_key = Some(IdempotencyKey::new("k").unwrap());
    let options = CallOptions { kept: true, idempotency_key, mcp: None };
    w.kernel.call(&run, "look", &args(file("a")), options).outcome().await.unwrap();
    assert_eq!(w.ran(), 4);
}

#[tokio::test]
async fn what_could_not_be_recorded_can_be_sent_again_under_its_key() {
    let w = world().await;
    w.journal.fails.store(true, Ordering::SeqCst);
    let refused = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    assert_eq!(code(refused), "not_recorded");
    w.journal.fails.store(false, Ordering::SeqCst);
    assert!(succeeded(&keyed(&w, "k", "look", file("a")).outcome().await.unwrap()));
}

#[tokio::test]
async fn a_key_and_its_outcome_outlive_a_restart() {
    let w = world().await;
    let first = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    keyed(&w, "bad", "look", json!({})).outcome().await.unwrap();
    let denied = keyed(&w, "d", "write", file("a"));
    w.held().await;
    w.decide(DecisionKind::Deny, "ada").await.unwrap();
    drop(denied);
    settle().await;
    w.hands.hangs.store(true, Ordering::SeqCst);
    let _under_way = keyed(&w, "u", "look", file("u"));
    until(async || w.ran() == 2).await;
    let held = keyed(&w, "h", "write", file("h"));
    w.held().await;
    drop(held);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    let again = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    assert_eq!((&again.call_id, again.envelope.status), (&first.call_id, first.envelope.status));
    assert_eq!(again.envelope.results, first.envelope.results);
    assert_eq!(again.envelope.output_hash, first.envelope.output_hash);
    let refused = keyed(&w, "k", "look", file("b")).outcome().await.unwrap();
    assert_eq!(code(refused), "idempotency_key_reused");
    let denied = keyed(&w, "d", "write", file("a")).outcome().await.unwrap();
    assert_eq!(code(denied), "approval.denied");
    let bad = keyed(&w, "bad", "look", json!({})).outcome().await.unwrap();
    assert_eq!(code(bad), "bad_arguments");
    // It may have run: nobody knows, and it is not run again.
    let unknown = keyed(&w, "u", "look", file("u")).outcome().await.unwrap();
    assert_eq!(code(unknown), "outcome_unknown");
    assert_eq!(w.ran(), 0);
    // The key of what was held stands for that call, and for no other.
    let refused = keyed(&w, "h", "write", file("other")).outcome().await.unwrap();
    assert_eq!(code(refused), "idempotency_key_reused");
    let other = kept(&w, "write", file("h"));
    until(async || w.kernel.queue().pending().len() == 2).await;
    other.call_off();
    until(async || w.kernel.queue().pending().len() == 1).await;
    // What was held is joined.
    let mut held = keyed(&w, "h", "write", file("h"));
    settle().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert!(succeeded(&held.outcome().await.unwrap()));
    assert_eq!(w.requests().await.len(), 3);
}

#[tokio::test]
async fn a_rewritten_result_is_told_as_rewritten_after_a_restart() {
    let less = json!({"text": "less"});
    let patch = countersign_core::hook::ToolResultPatch {
        redacted_summary: "less".into(),
        replacement: Some(less.clone()),
    };
    let spec = common::blocking("h", HookPoint::AfterToolCall, &[Right::RewriteToolResult]);
    let hook = common::answers(spec, HookResponse::RewriteToolResult(patch));
    let w = world_with(hooked(vec![hook])).await;
    let first = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    assert_eq!(first.envelope.results, less);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    let again = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    assert_eq!(again.envelope.results, less);
    assert_eq!(again.envelope.output_hash, first.envelope.output_hash);
}

#[tokio::test]
async fn a_decision_made_while_nobody_is_there_is_used_once_after_a_restart_too() {
    let w = world().await;
    left(&w, file("a")).await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    settle().await;
    let journal = common::cut(&w.journal, usize::MAX).await;
    let w = start(journal, Arc::new(ManualClock::at(1_000_001)), seed(2)).await;
    assert_eq!(w.found.unused_approvals, 1);
    let governed = kept(&w, "write", file("a")).outcome().await.unwrap();
    assert!(succeeded(&governed));
    let _again = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!((w.ran(), w.requests().await.len()), (1, 2));
}

#[tokio::test]
async fn a_panic_in_a_shared_call_is_told_to_all_who_wait() {
    let w = world().await;
    w.hands.panics.store(true, Ordering::SeqCst);
    let calls = [w.spawn("write", file("a")), w.spawn("write", file("a"))];
    w.held().await;
    settle().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    for call in calls {
        let governed = tokio::time::timeout(Duration::from_secs(20), call).await;
        assert_eq!(governed.unwrap().unwrap().envelope.status, EnvelopeStatus::Error);
    }
    assert_eq!(w.ran(), 1);
}

#[tokio::test]
async fn what_its_last_caller_calls_off_while_it_is_approved_does_not_run() {
    let w = world().await;
    let mut call = kept(&w, "write", file("a"));
    w.held().await;
    // The decision is on its way into the journal.
    w.journal.parks.send_replace(Some("approval".to_owned()));
    let hold = w.held().await;
    let kernel = w.kernel.clone();
    let decision = countersign_core::hold::Decision {
        decision: DecisionKind::Approve,
        reason: None,
        grant: None,
    };
    let deciding =
        tokio::spawn(
            async move { kernel.decide(&hold.id, decision, common::approver("ada")).await },
        );
    settle().await;
    call.call_off();
    settle().await;
    w.journal.parks.send_replace(None);
    let _ = deciding.await.unwrap();
    let governed = tokio::time::timeout(Duration::from_secs(20), call.outcome()).await;
    assert_eq!(code(governed.unwrap().unwrap()), "called_off");
    assert_eq!(w.ran(), 0);
    let story = w.story().await;
    assert_eq!(story.iter().filter(|kind| *kind == "tool_denied").count(), 1, "{story:?}");
}

#[tokio::test]
async fn a_key_stays_taken_when_its_caller_leaves() {
    let w = world().await;
    let call = keyed(&w, "k", "write", file("a"));
    w.held().await;
    drop(call);
    settle().await;
    let refused = keyed(&w, "k", "write", file("b")).outcome().await.unwrap();
    assert_eq!(code(refused), "idempotency_key_reused");
    // Another key is another call: each is asked about, and each runs.
    let mut same = keyed(&w, "k", "write", file("a"));
    let mut other = keyed(&w, "l", "write", file("a"));
    until(async || w.kernel.queue().pending().len() == 2).await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert!(succeeded(&same.outcome().await.unwrap()));
    assert!(succeeded(&other.outcome().await.unwrap()));
    assert_eq!((w.ran(), w.requests().await.len()), (2, 2));
}

#[tokio::test]
async fn a_revoked_grant_takes_the_approval_that_gave_it_along() {
    let w = world().await;
    left(&w, file("a")).await;
    let terms = countersign_core::hold::GrantTerms {
        max_uses: 1,
        valid_for_ms: 60_000,
        any_value_of: Vec::new(),
    };
    let granted = w.grant(terms).await.unwrap();
    settle().await;
    let id = granted.hold.id().clone();
    let revoked = w.kernel.grant_revoke(&id, &common::approver("bob"), None).await;
    assert!(revoked.unwrap());
    let _again = kept(&w, "write", file("a"));
    w.held().await;
    assert_eq!(w.ran(), 0);
}

#[tokio::test]
async fn what_a_hook_kept_from_the_agent_is_not_told_under_its_key_later() {
    let after = |rights: &[Right]| HookSpec {
        failure: HookFailurePolicy::Deny,
        ..common::blocking("h", HookPoint::AfterToolCall, rights)
    };
    let retry = HookResponse::RequestRetry(countersign_core::hook::HookNote {
        redacted_summary: "again".into(),
    });
    let open = HookSpec { failure: HookFailurePolicy::FailOpenObserveOnly, ..after(&[]) };
    type Case = (&'static str, fn(HookSpec, HookResponse) -> Hook, HookSpec, bool);
    let broken: fn(HookSpec, HookResponse) -> Hook = |spec, _| common::broken(spec);
    let answers: fn(HookSpec, HookResponse) -> Hook = common::answers;
    let cases: [Case; 3] = [
        ("it broke", broken, after(&[]), true),
        ("it answered what it may not", answers, after(&[Right::RequestRetry]), true),
        ("it broke, and may", broken, open, false),
    ];
    for (why, hook, spec, keeps) in cases {
        let hook = || hook(spec.clone(), retry.clone());
        let w = world_with(hooked(vec![hook()])).await;
        let first = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
        assert_eq!(succeeded(&first), !keeps, "{why}");
        // Whoever made it left, and sends it again.
        let call = keyed(&w, "l", "write", file("a"));
        w.held().await;
        drop(call);
        settle().await;
        w.decide(DecisionKind::Approve, "ada").await.unwrap();
        let left = keyed(&w, "l", "write", file("a")).outcome().await.unwrap();
        assert_eq!(succeeded(&left), !keeps, "{why}");
        assert!(w.kernel.hooks().flush().await);
        // Also when the hook is not there any more.
        for hooks in [vec![hook()], Vec::new()] {
            let journal = common::cut(&w.journal, usize::MAX).await;
            let clock = Arc::new(ManualClock::at(1_000_001));
            let w = start(journal, clock, common::Setup { hooks, ..seed(2) }).await;
            for (key, tool) in [("k", "look"), ("l", "write")] {
                let again = keyed(&w, key, tool, file("a")).outcome().await.unwrap();
                let told = serde_json::to_string(&again.envelope).unwrap();
                assert_eq!(told.contains("done"), !keeps, "{why}: {told}");
                let digest = countersign_core::digest::Digest::of("done\n").to_string();
                assert_eq!(told.contains(&digest), !keeps, "{why}: {told}");
                assert_eq!(succeeded(&again), !keeps, "{why}: {told}");
                assert_eq!(again.envelope.results["withheld"].is_object(), keeps, "{why}: {told}");
            }
            assert_eq!(w.ran(), 0, "{why}");
        }
    }
}

#[tokio::test]
async fn a_result_that_a_hook_has_not_seen_is_not_told_past_it() {
    let spec = common::blocking("h", HookPoint::AfterToolCall, &[Right::RewriteToolResult]);
    let hook = || common::answers(spec.clone(), HookResponse::ObserveOnly);
    let w = world_with(hooked(vec![hook()])).await;
    let first = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
    assert!(succeeded(&first) && w.kernel.hooks().flush().await);
    let story = w.records().await;
    let result = |r: &JournalRecord| r.event_index.event_kind == "tool_result_recorded";
    let result = story.iter().position(result).unwrap() + 1;
    for (records, told) in [(result, false), (usize::MAX, true)] {
        let journal = common::cut(&w.journal, records).await;
        let clock = Arc::new(ManualClock::at(1_000_001));
        let w = start(journal, clock, common::Setup { hooks: vec![hook()], ..seed(2) }).await;
        let again = keyed(&w, "k", "look", file("a")).outcome().await.unwrap();
        assert_eq!(succeeded(&again), told);
        assert_eq!(again.envelope.results.to_string().contains("done"), told);
        assert_eq!(w.ran(), 0);
    }
}
