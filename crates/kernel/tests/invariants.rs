//! The invariants of the architecture, each with a test of its name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Gate, Setup, World, seed, start, world};
use countersign_core::approval::ApprovalRecord;
use countersign_core::digest::Digest;
use countersign_core::hold::{DecisionKind, HoldStatus};
use countersign_core::journal::JournalPayload;
use countersign_core::tool::ToolCallStatus;
use countersign_escalation::ResolveError;
use countersign_kernel::Policy;
use countersign_manifest::{EnvelopeStatus, ManifestSet};
use countersign_ports::journal::Journal as _;
use countersign_ports::memory::ManualClock;
use serde_json::json;

#[tokio::test]
async fn an_allowed_call_is_announced_run_and_recorded() {
    let w = world().await;
    let governed = w.call("look", json!({"file": "a.txt"})).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
    assert_eq!(governed.envelope.results, json!({"text": "done\n"}));
    assert_eq!(governed.envelope.command, "head -- a.txt");
    assert_eq!(w.story().await, ["tool_intent_recorded", "tool_result_recorded"]);
    let call = governed.call_id.unwrap();
    assert_eq!(w.journal.read_call(call.as_str()).await.unwrap().len(), 2);
    let records = w.records().await;
    let result = records.last().unwrap();
    let output = Digest::parse(result.content_refs[0].as_str()).unwrap();
    assert_eq!(w.journal.content(result.journal_seq, output).await.unwrap().unwrap(), b"done\n");
}

#[tokio::test]
async fn journal_before_effect() {
    let w = world().await;
    w.journal.permits.forget_permits(usize::MAX);
    let call = w.spawn("look", json!({"file": "a"}));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.ran(), 0, "started before its intent was durable");
    w.journal.permits.add_permits(1);
    while w.ran() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.story().await, ["tool_intent_recorded"]);
    assert!(!call.is_finished(), "answered before its result was durable");
    w.journal.permits.add_permits(1);
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
}

#[tokio::test]
async fn record_before_release() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    w.journal.permits.forget_permits(usize::MAX);
    let decision = w.decide(DecisionKind::Approve, "ada");
    let mut decision = std::pin::pin!(decision);
    for _ in 0..100 {
        tokio::select! {
            biased;
            _ = &mut decision => panic!("confirmed before it was durable"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(!call.is_finished() && w.ran() == 0);
    assert_eq!(w.story().await, ["approval_requested", "approval_dispatch_intent"]);
    w.journal.permits.add_permits(100);
    assert_eq!(decision.await, Ok(HoldStatus::Approved));
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    assert_eq!(
        w.story().await[2..],
        [
            "approval_responded",
            "approval_dispatch_result",
            "tool_intent_recorded",
            "tool_result_recorded"
        ]
    );
}

#[tokio::test]
async fn a_hold_is_not_visible_before_it_is_recorded() {
    let w = world().await;
    w.journal.permits.forget_permits(usize::MAX);
    let _call = w.spawn("write", json!({"file": "a"}));
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(w.kernel.queue().pending(), []);
    }
    w.journal.permits.add_permits(1);
    w.held().await;
}

#[tokio::test]
async fn a_person_denies_with_a_reason_and_the_agent_learns_who_and_why() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.decide(DecisionKind::Deny, "ada").await.unwrap();
    let governed = call.await.unwrap();
    let denial = governed.denial.unwrap();
    assert_eq!((denial.code.as_str(), denial.by.unwrap().id.as_str()), ("approval.denied", "ada"));
    assert_eq!(denial.message, "denied by ada: because");
    assert_eq!(governed.envelope.status, EnvelopeStatus::Denied);
    assert_eq!(w.ran(), 0);
    assert_eq!(
        w.story().await[2..],
        ["approval_responded", "approval_dispatch_result", "tool_denied"]
    );
    let records = w.records().await;
    let responded = records.iter().find_map(|r| match &r.payload {
        JournalPayload::Approval(ApprovalRecord::Responded { decision, .. }) => Some(decision),
        _ => None,
    });
    let json = serde_json::to_value(responded.unwrap()).unwrap();
    assert_eq!((&json["actor_ref"]["id"], &json["reason"]), (&json!("ada"), &json!("because")));
    assert!(json["fingerprint"].is_string() && json["rendering_digest"].is_string());
}

#[tokio::test]
async fn fail_closed_bad_arguments_are_all_named_and_nothing_else_happens() {
    let w = world().await;
    let governed = w.call("look", json!({"lines": "many", "nope": 1, "file": "../x"})).await;
    let denial = governed.denial.unwrap();
    let named: BTreeSet<_> = denial.problems.iter().map(|p| p.arg.as_str()).collect();
    assert_eq!(named, BTreeSet::from(["file", "lines", "nope"]));
    assert_eq!((w.ran(), w.kernel.queue().pending().len()), (0, 0));
    assert_eq!(w.story().await, ["tool_denied"]);
}

#[tokio::test]
async fn fail_closed_an_unknown_tool_is_refused_by_name() {
    let w = world().await;
    let governed = w.call("no\u{202e}pe", json!({})).await;
    let denial = governed.denial.unwrap();
    assert_eq!(denial.code, "unknown_tool");
    assert!(denial.message.contains("no\\u{202e}pe"), "{}", denial.message);
}

#[tokio::test]
async fn fail_closed_a_failing_append_denies_by_name_and_the_gateway_goes_on() {
    let w = world().await;
    w.journal.fails.store(true, Ordering::SeqCst);
    for tool in ["look", "write"] {
        let governed = w.call(tool, json!({"file": "a"})).await;
        let denial = governed.denial.unwrap();
        assert!(denial.message.contains("disk full"), "{tool}: {}", denial.message);
    }
    assert_eq!((w.ran(), w.kernel.queue().pending().len()), (0, 0));
    w.journal.fails.store(false, Ordering::SeqCst);
    assert_eq!(w.call("look", json!({"file": "a"})).await.envelope.status, EnvelopeStatus::Success);
}

#[tokio::test]
async fn fail_closed_a_decision_that_cannot_be_recorded_denies() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    w.journal.fails.store(true, Ordering::SeqCst);
    let error = w.decide(DecisionKind::Approve, "ada").await.unwrap_err();
    assert!(matches!(error, ResolveError::NotRecorded(_)), "{error}");
    assert_eq!(call.await.unwrap().denial.unwrap().code, "approval.not_recorded");
    assert_eq!(w.ran(), 0);
}

/// What a person answered is never told as something else, though the journal is back at once.
#[tokio::test]
async fn an_answer_that_could_not_be_recorded_leaves_the_question_open() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    w.journal.refuse(Some(".responded"));
    let error = w.decide(DecisionKind::Deny, "ada").await.unwrap_err();
    assert!(matches!(error, ResolveError::NotRecorded(_)), "{error}");
    assert_eq!(call.await.unwrap().denial.unwrap().code, "approval.not_recorded");
    assert_eq!(w.story().await, ["approval_requested", "approval_dispatch_intent", "tool_denied"]);
}

#[tokio::test]
async fn fail_closed_a_panicking_executor_is_an_unknown_outcome() {
    let w = world().await;
    w.hands.panics.store(true, Ordering::SeqCst);
    let governed = w.call("look", json!({"file": "a"})).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Error);
    let records = w.records().await;
    let JournalPayload::Tool(tool) = &records.last().unwrap().payload else { panic!() };
    assert_eq!(tool.status, ToolCallStatus::Unknown);
}

#[tokio::test]
async fn an_unrecorded_result_is_not_a_success() {
    let w = world().await;
    w.journal.permits.forget_permits(usize::MAX);
    w.journal.permits.add_permits(1);
    let call = w.spawn("look", json!({"file": "a"}));
    while w.ran() == 0 {
        tokio::task::yield_now().await;
    }
    w.journal.fails.store(true, Ordering::SeqCst);
    w.journal.permits.add_permits(100);
    let governed = call.await.unwrap();
    assert_eq!(governed.envelope.status, EnvelopeStatus::Error);
    assert!(governed.envelope.results["error"].as_str().unwrap().contains("disk full"));
}

#[tokio::test]
async fn no_self_approval() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    assert_eq!(w.decide(DecisionKind::Approve, "agent.a").await, Err(ResolveError::OwnRequest));
}

#[tokio::test]
async fn calling_a_held_call_off_cancels_and_records_it() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    call.abort();
    let mut head = w.journal.head();
    while w.story().await.len() < 5 {
        head.changed().await.unwrap();
    }
    assert_eq!(w.kernel.queue().pending(), []);
    assert_eq!(
        w.story().await[2..],
        ["approval_denied", "approval_dispatch_result", "tool_denied"]
    );
    assert_eq!(w.ran(), 0);
}

#[tokio::test]
async fn calling_a_running_call_off_kills_it_and_records_it() {
    let w = world().await;
    w.hands.hangs.store(true, Ordering::SeqCst);
    let call = w.spawn("look", json!({"file": "a"}));
    while w.ran() == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    let mut head = w.journal.head();
    head.wait_for(|head| *head == 3).await.unwrap();
    assert_eq!(w.hands.dropped.load(Ordering::SeqCst), 1);
    let records = w.records().await;
    let JournalPayload::Tool(tool) = &records.last().unwrap().payload else { panic!() };
    assert_eq!(tool.status, ToolCallStatus::Cancelled);
}

#[tokio::test]
async fn what_was_handed_to_the_journal_is_followed_up_though_the_caller_is_gone() {
    for (tool, end) in [("write", "approval_dispatch_result"), ("look", "tool_result_recorded")] {
        let w = world().await;
        w.journal.permits.forget_permits(usize::MAX);
        let call = w.spawn(tool, json!({"file": "a"}));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        w.journal.permits.add_permits(100);
        let mut head = w.journal.head();
        while !w.story().await.iter().any(|event| event == end) {
            head.changed().await.unwrap();
        }
        assert_eq!(w.kernel.queue().pending(), []);
        let records = w.records().await;
        let statuses: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.payload {
                JournalPayload::Tool(tool) => Some(tool.status),
                _ => None,
            })
            .collect();
        assert!(!statuses.contains(&ToolCallStatus::Completed), "{tool}: {statuses:?}");
    }
}

#[tokio::test]
async fn what_you_see_is_what_you_decide() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "notes.md"}));
    let hold = w.held().await;
    assert_eq!(hold.summary, "touch -- notes.md");
    assert_eq!(hold.context_snapshot["arguments"], json!([{"name": "file", "value": "notes.md"}]));
    let records = w.records().await;
    let request = records.iter().find_map(|r| match &r.payload {
        JournalPayload::Approval(ApprovalRecord::Requested { request }) => Some(request.clone()),
        _ => None,
    });
    let request = request.unwrap();
    assert_eq!(
        (request.fingerprint, request.rendering_digest),
        (hold.fingerprint, hold.rendering_digest)
    );
}

#[tokio::test]
async fn a_held_call_outlives_the_process_and_is_joined_by_the_same_call() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let before = w.held().await;
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    assert_eq!(w.found.reopened, 1);
    assert_eq!(w.kernel.queue().pending(), [before]);
    let call = w.spawn("write", json!({"file": "a"}));
    tokio::task::yield_now().await;
    assert_eq!(w.decide(DecisionKind::Approve, "ada").await, Ok(HoldStatus::Approved));
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    assert_eq!(w.ran(), 1);
    let asked = w.story().await.iter().filter(|e| *e == "approval_requested").count();
    assert_eq!(asked, 1, "asked again");
}

#[tokio::test]
async fn a_decision_made_with_nobody_connected_is_kept_and_used_once() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(3)).await;
    assert_eq!((w.found.reopened, w.found.unused_approvals), (0, 1));
    let other = w.spawn("write", json!({"file": "b"}));
    assert_eq!(w.held().await.summary, "touch -- b", "released another call");
    other.abort();
    assert_eq!(
        w.call("write", json!({"file": "a"})).await.envelope.status,
        EnvelopeStatus::Success
    );
    let again = w.spawn("write", json!({"file": "a"}));
    while !w.kernel.queue().pending().iter().any(|h| h.summary == "touch -- a") {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.ran(), 1);
    again.abort();
}

#[tokio::test]
async fn bound_approval_a_changed_manifest_or_policy_needs_a_new_one() {
    let mut tools = Setup::default().tools;
    tools.iter_mut().for_each(|(_, text)| *text = text.replace("Writes.", "Writes!"));
    let context = vec![("root".to_owned(), "elsewhere".to_owned())];
    let policy = Policy { context, ..Policy::default() };
    for setup in [Setup { tools, ..seed(2) }, Setup { policy, ..seed(2) }] {
        let w = world().await;
        let _call = w.spawn("write", json!({"file": "a"}));
        w.decide(DecisionKind::Approve, "ada").await.unwrap();
        // The approval is durable; the effect's intent is not yet.
        let (journal, clock) = crash_after_approval(w).await;
        let w = start(journal, clock, setup).await;
        assert_eq!(w.found.unused_approvals, 1);
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        assert_eq!(w.ran(), 0);
        call.abort();
    }
}

#[tokio::test]
async fn bound_approval_a_tool_that_is_replaced_while_its_call_is_held_needs_a_new_one() {
    let mut tools = Setup::default().tools;
    tools.iter_mut().for_each(|(_, text)| *text = text.replace("Writes.", "Writes!"));
    for tools in [tools, Vec::new()] {
        let w = world().await;
        let mut changes = w.kernel.manifests_changes();
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        w.kernel.manifests_replace(ManifestSet::load(tools).0);
        assert!(changes.has_changed().unwrap());
        w.decide(DecisionKind::Approve, "ada").await.unwrap();
        let governed = call.await.unwrap();
        let denial = governed.denial.unwrap();
        assert_eq!(denial.code, "approval.stale", "{denial:?}");
        assert!(denial.message.contains("has changed"), "{denial:?}");
        assert_eq!(w.ran(), 0);
        // It can be taken up by nothing that comes later.
        changes.mark_unchanged();
        w.kernel.manifests_replace(ManifestSet::load(Setup::default().tools).0);
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        assert_eq!(w.ran(), 0);
        call.abort();
    }
}

/// Cuts the journal right after the approval.
async fn crash_after_approval(w: World) -> (Arc<Gate>, Arc<ManualClock>) {
    while w.ran() == 0 {
        tokio::task::yield_now().await;
    }
    let (full, clock) = w.crash().await;
    let kinds = full.records().await.into_iter().map(|record| record.event_index.event_kind);
    let before = kinds.take_while(|kind| kind != "tool_intent_recorded").count();
    (common::cut(&full, before).await, clock)
}

#[tokio::test]
async fn an_approval_not_used_in_time_is_stale() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    let (journal, clock) = crash_after_approval(w).await;
    clock.advance(Duration::from_secs(601));
    let w = start(journal, clock, seed(2)).await;
    assert_eq!(w.found.unused_approvals, 0);
}

#[tokio::test]
async fn at_most_once_an_effect_of_unknown_outcome_is_listed_and_not_run_again() {
    let w = world().await;
    w.hands.hangs.store(true, Ordering::SeqCst);
    let _call = w.spawn("look", json!({"file": "a"}));
    while w.ran() == 0 {
        tokio::task::yield_now().await;
    }
    let (journal, clock) = w.crash().await;
    for seed in [2, 3] {
        let w = start(journal.clone(), clock.clone(), common::seed(seed)).await;
        assert_eq!(w.found.unknown_effects.len(), 1);
        assert_eq!(w.ran(), 0);
        let story = w.story().await;
        assert_eq!(story.iter().filter(|e| *e == "effect_outcome_unknown").count(), 1);
    }
}

#[tokio::test]
async fn a_hold_whose_time_ran_out_while_down_needs_recovery_and_releases_nothing() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let (journal, clock) = w.crash().await;
    clock.advance(Duration::from_secs(301));
    let w = start(journal, clock, seed(2)).await;
    assert_eq!((w.found.reopened, w.found.lapsed), (0, 1));
    assert_eq!(w.kernel.queue().pending(), []);
    let records = w.records().await;
    assert!(records.iter().any(|r| r.record_id.as_str().ends_with(".recovery")));
}

/// Cuts the journal after every record of a full story and starts again: nothing runs that
/// was not approved, nothing runs twice, nothing is asked twice.
#[tokio::test]
async fn recovery_from_a_crash_after_any_record() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    call.await.unwrap();
    let all = w.records().await;
    for cut in 0..=all.len() {
        let kinds: Vec<_> = all[..cut].iter().map(|r| r.event_index.event_kind.clone()).collect();
        let journal = common::cut(&w.journal, cut).await;
        let w = start(journal, Arc::new(ManualClock::at(1_000_500)), seed(9)).await;
        let has = |kind: &str| kinds.iter().any(|k| k == kind);
        let asked = has("approval_requested");
        let approved = has("approval_responded");
        let announced = has("tool_intent_recorded");
        let ended = has("tool_result_recorded");
        assert_eq!(w.found.reopened, usize::from(asked && !approved), "after {kinds:?}");
        assert_eq!(w.found.unused_approvals, usize::from(approved && !announced), "{kinds:?}");
        assert_eq!(w.found.unknown_effects.len(), usize::from(announced && !ended), "{kinds:?}");
        assert_eq!(w.ran(), 0, "something ran by itself after {kinds:?}");
    }
}
