//! Hooks at the points the kernel passes, through `Kernel::govern`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Setup, World, answers, blocking, broken, hook, hooked, journal, observing, start};
use common::{seed, until, world, world_with};
use countersign_core::approval::ApprovalRecord;
use countersign_core::digest::Digest;
use countersign_core::hold::{Decision, DecisionKind, GrantTerms, HoldStatus};
use countersign_core::hook::{
    ApprovalRequestPatch, HookFailurePolicy, HookInput, HookMutationRight as Right, HookNote,
    HookPoint, HookPrivacyPolicy, HookReason, HookRecordPayload, HookResponse,
    HookResponseDecision as Verdict, HookSpec, HookView, ToolRequestPatch, ToolResultPatch,
};
use countersign_core::id::AgentId;
use countersign_core::journal::JournalPayload;
use countersign_core::tool::ToolCallStatus;
use countersign_escalation::ResolveError;
use countersign_kernel::{Hook, Policy, RunError};
use countersign_manifest::EnvelopeStatus;
use countersign_ports::journal::Journal as _;
use countersign_ports::memory::ManualClock;
use serde_json::{Value, json};

const BEFORE: HookPoint = HookPoint::BeforeToolCall;
const ASKING: HookPoint = HookPoint::BeforeApprovalRequest;
const DECIDED: HookPoint = HookPoint::AfterApprovalDecision;
const AFTER: HookPoint = HookPoint::AfterToolCall;

fn modify(patch: Value) -> HookResponse {
    let (redacted_summary, merge_patch) = ("changed".to_owned(), Some(patch));
    HookResponse::ModifyToolRequest(ToolRequestPatch { redacted_summary, merge_patch })
}

fn present(patch: Value) -> HookResponse {
    let (redacted_summary, merge_patch) = ("shown".to_owned(), Some(patch));
    HookResponse::ModifyApprovalRequest(ApprovalRequestPatch { redacted_summary, merge_patch })
}

fn rewrite(replacement: Value) -> HookResponse {
    let (redacted_summary, replacement) = ("less of it".to_owned(), Some(replacement));
    HookResponse::RewriteToolResult(ToolResultPatch { redacted_summary, replacement })
}

fn reason() -> HookReason {
    HookReason { code: "no.thanks".into(), redacted_summary: "not today".into() }
}

fn note() -> HookNote {
    HookNote { redacted_summary: "look at it".into() }
}

fn wide(spec: HookSpec) -> HookSpec {
    HookSpec { privacy: HookPrivacyPolicy::ContentCaptureAllowed, ..spec }
}

/// A hook that keeps what it sees.
fn watching(spec: HookSpec) -> (Hook, Arc<Mutex<Vec<HookInput>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let hook = hook(spec, move |input| {
        keep.lock().unwrap().push(input);
        async { Ok(HookResponse::ObserveOnly) }
    });
    (hook, seen)
}

fn views(seen: &Mutex<Vec<HookInput>>) -> Vec<HookView> {
    seen.lock().unwrap().iter().map(|input| input.view.clone()).collect()
}

async fn verdicts(w: &World) -> Vec<Verdict> {
    let hooks = w.journal.hooks().await.into_iter();
    let verdicts = hooks.filter_map(|(_, payload)| match payload {
        HookRecordPayload::ResponseDecision { decision, .. } => Some(decision),
        _ => None,
    });
    verdicts.collect()
}

#[tokio::test]
async fn a_tool_hook_is_called_and_sees_the_call() {
    let (seeing, seen) = watching(wide(blocking("h", BEFORE, &[])));
    let w = world_with(hooked(vec![seeing])).await;
    let governed = w.call("look", json!({"file": "a"})).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
    let input = seen.lock().unwrap().pop().unwrap();
    assert_eq!((&input.run_id, &input.agent_id), (w.run.id(), w.run.agent_id()));
    assert_eq!(input.turn_id.unwrap().as_str(), "turn.1");
    assert_eq!(input.view.redacted_summary, "look: file=a");
    assert_eq!(input.view.subject_refs[0].id.as_str(), governed.call_id.unwrap().as_str());
    let content = input.view.content.unwrap();
    assert_eq!(content["arguments"], json!({"file": "a"}));
    assert_eq!(content["command"], "head -- a");
    assert!(w.kernel.hooks().flush().await);
    assert!(w.story().await.contains(&"hook_completed".to_owned()));
    // What cannot be planned reaches no hook.
    w.call("look", json!({"file": "../a"})).await;
    w.call("nothing", json!({})).await;
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_hook_denies_before_anybody_is_asked() {
    let denies = answers(blocking("h", BEFORE, &[Right::Deny]), HookResponse::Deny(reason()));
    let w = world_with(hooked(vec![denies])).await;
    for tool in ["look", "write"] {
        let governed = w.call(tool, json!({"file": "a"})).await;
        let denial = governed.denial.unwrap();
        assert_eq!((denial.code.as_str(), denial.hook.unwrap().as_str()), ("hook.denied", "h"));
        assert_eq!(denial.reason.unwrap(), "no.thanks: not today");
        assert_eq!(denial.message, "denied by hook `h`: no.thanks: not today");
        assert_eq!(governed.envelope.status, EnvelopeStatus::Denied);
    }
    assert_eq!((w.ran(), w.kernel.queue().pending().len()), (0, 0));
    let last = w.tool_records().await.pop().unwrap();
    assert_eq!(last.status, ToolCallStatus::DeniedBeforeExecution);
    assert_eq!(last.hook_id.unwrap().as_str(), "h");
}

#[tokio::test]
async fn a_hook_changes_the_arguments_and_the_call_is_planned_again() {
    let patch = modify(json!({"file": "b", "lines": 3}));
    let w = world_with(hooked(vec![answers(
        blocking("h", BEFORE, &[Right::ModifyToolRequest]),
        patch,
    )]))
    .await;
    let governed = w.call("look", json!({"file": "a"})).await;
    assert_eq!(w.last_ran(), "head --lines=3 -- b");
    assert_eq!(governed.envelope.command, "head --lines=3 -- b");
    let story = w.story().await;
    let decided = ["hook_completed", "hook_response_decision"];
    assert_eq!(story[1], "tool_request_modified", "{story:?}");
    assert_eq!(story[2..4], decided);
    let [modified, intent, result] = &w.tool_records().await[..] else { panic!("{story:?}") };
    assert_eq!(modified.status, ToolCallStatus::RequestModified);
    assert_eq!(modified.original_redacted_args_summary.as_deref(), Some("file=a"));
    assert_eq!(modified.patched_redacted_args_summary.as_deref(), Some("file=b lines=3"));
    assert_eq!(intent.requested_args_refs, modified.requested_args_refs);
    assert_eq!(
        (intent.fingerprint, result.fingerprint),
        (modified.fingerprint, modified.fingerprint)
    );
    // Both records know the new arguments, and the fingerprint is that of the new call.
    for record in w.records().await {
        let JournalPayload::Tool(tool) = &record.payload else { continue };
        let digest = Digest::parse(tool.requested_args_refs[0].as_str()).unwrap();
        if tool.effect_result.is_none() {
            let stored = w.journal.content(record.journal_seq, digest).await.unwrap().unwrap();
            assert_eq!(stored, br#"{"file":"b","lines":3}"#);
        }
    }
    let plain = world_with(seed(1)).await;
    plain.call("look", json!({"file": "b", "lines": 3})).await;
    assert_eq!(plain.tool_records().await[0].fingerprint, modified.fingerprint);
}

#[tokio::test]
async fn what_a_hook_changed_is_what_the_approver_sees_and_releases() {
    let changes = || {
        answers(blocking("h", BEFORE, &[Right::ModifyToolRequest]), modify(json!({"file": "b"})))
    };
    let w = world_with(hooked(vec![changes()])).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    assert_eq!(hold.summary, "touch -- b");
    assert_eq!(hold.fingerprint, w.requests().await[0].fingerprint);
    // It is the same question after a restart, and the same call from the agent answers to it.
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, Setup { seed: 2, ..hooked(vec![changes()]) }).await;
    assert_eq!(w.kernel.queue().pending(), [hold]);
    let again = w.spawn("write", json!({"file": "a"}));
    tokio::task::yield_now().await;
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(again.await.unwrap().envelope.status, EnvelopeStatus::Success);
    assert_eq!((w.last_ran().as_str(), w.requests().await.len()), ("touch -- b", 1));
    call.abort();
}

#[tokio::test]
async fn a_hook_cannot_change_the_arguments_to_bad_ones() {
    for patch in [json!({"file": "../b"}), json!({"file": null}), json!({"nope": 1}), json!(7)] {
        let spec = blocking("h", BEFORE, &[Right::ModifyToolRequest]);
        let w = world_with(hooked(vec![answers(spec, modify(patch.clone()))])).await;
        let denial = w.call("look", json!({"file": "a"})).await.denial.unwrap();
        assert_eq!(denial.code, "hook.rejected", "{patch}");
        assert_eq!(verdicts(&w).await, [Verdict::RejectedPolicy], "{patch}");
        assert_eq!(w.ran(), 0, "{patch}");
        // Arguments that were refused are not those of the call.
        assert_eq!(w.tool_records().await[0].redacted_args_summary, "file=a", "{patch}");
    }
}

#[tokio::test]
async fn ask_asks_and_required_means_required() {
    let asks = || {
        let spec = blocking("h", BEFORE, &[Right::RequestApproval]);
        answers(spec, HookResponse::RequestApproval(note()))
    };
    let never = || Policy { hold_from: None, ..Policy::default() };
    let mut medium = Setup::default().tools;
    medium.iter_mut().for_each(|(_, text)| {
        *text =
            text.replace("human_approval = true", "human_approval = true\nrisk_tier = \"medium\"");
    });
    let (from_hook, from_manifest) = ("policy.approval.hook", "policy.approval.manifest");
    for (setup, tool, rule, why) in [
        (hooked(vec![asks()]), "look", from_hook, "a hook asks for a person: look at it"),
        (hooked(vec![asks()]), "write", from_hook, "a hook asks for a person: look at it"),
        (
            Setup { tools: medium, policy: never(), ..seed(1) },
            "write",
            from_manifest,
            "the manifest asks for a person (human_approval)",
        ),
    ] {
        let w = world_with(setup).await;
        let call = w.spawn(tool, json!({"file": "a"}));
        assert_eq!(w.held().await.reason, why);
        assert_eq!((w.ran(), call.is_finished()), (0, false));
        assert_eq!(w.requests().await[0].policy_refs[0].id.as_str(), rule);
        w.decide(DecisionKind::Approve, "ada").await.unwrap();
        assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    }
}

#[tokio::test]
async fn a_grant_does_not_answer_what_a_hook_asks() {
    let spec = blocking("h", BEFORE, &[Right::RequestApproval]);
    let w = world_with(hooked(vec![answers(spec, HookResponse::RequestApproval(note()))])).await;
    let terms = GrantTerms { max_uses: 9, valid_for_ms: 60_000, any_value_of: Vec::new() };
    for asked in 1..=2 {
        let call = w.spawn("write", json!({"file": "a"}));
        w.grant(terms.clone()).await.unwrap();
        assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
        assert_eq!(w.requests().await.len(), asked);
    }
    assert!(w.kernel.broker().grants().iter().all(|grant| grant.uses == 0));
}

#[tokio::test]
async fn what_was_approved_before_a_restart_does_not_answer_what_a_hook_asks() {
    let asking = || {
        let spec = blocking("h", BEFORE, &[Right::RequestApproval]);
        vec![answers(spec, HookResponse::RequestApproval(note()))]
    };
    // Approved or still waiting, by the policy; then a hook asks about the same call.
    for approved in [true, false] {
        let w = world_with(seed(1)).await;
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        if approved {
            // The journal ends with the decision.
            w.decide(DecisionKind::Approve, "ada").await.unwrap();
            call.await.unwrap();
        }
        let kept = w
            .records()
            .await
            .iter()
            .position(|r| approved && r.event_index.event_kind == "tool_intent_recorded");
        let journal = common::cut(&w.journal, kept.unwrap_or(usize::MAX)).await;
        let clock = Arc::new(ManualClock::at(1_000_001));
        let w = start(journal, clock, Setup { seed: 2, ..hooked(asking()) }).await;
        assert_eq!(w.found.unused_approvals, usize::from(approved));
        let before = w.requests().await.len();
        let call = w.spawn("write", json!({"file": "a"}));
        until(async || w.requests().await.len() == before + 1).await;
        assert_eq!((w.ran(), call.is_finished()), (0, false), "{approved}");
        // The same question is taken up again, though.
        let journal = common::cut(&w.journal, usize::MAX).await;
        let clock = Arc::new(ManualClock::at(1_000_002));
        let w = start(journal, clock, Setup { seed: 3, ..hooked(asking()) }).await;
        let call = w.spawn("write", json!({"file": "a"}));
        common::settle().await;
        assert_eq!(w.requests().await.len(), before + 1, "{approved}");
        for hold in w.kernel.queue().pending() {
            let decision = Decision { decision: DecisionKind::Approve, reason: None, grant: None };
            w.kernel.decide(&hold.id, decision, common::approver("ada")).await.unwrap();
        }
        assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    }
}

#[tokio::test]
async fn arguments_are_stored_as_they_were_given() {
    let w = world().await;
    // 2^53 + 1, which no double can hold.
    let given = json!({"file": "a", "lines": 9_007_199_254_740_993_i64});
    let denied = w.call("look", given.clone()).await.denial.unwrap();
    assert_eq!(denied.code, "bad_arguments");
    let tools = [(
        "count.clad.toml",
        common::TOOLS[0]
            .1
            .replace("max = 9", "max = 9007199254740999")
            .replace("\"look\"", "\"count\""),
    )];
    let tools = tools.map(|(name, text)| (name.to_owned(), text)).to_vec();
    let w = world_with(Setup { tools, ..Setup::default() }).await;
    let governed = w.call("count", given).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success, "{governed:?}");
    let records = w.records().await;
    let intent = records.iter().find(|r| r.event_index.event_kind == "tool_intent_recorded");
    let intent = intent.unwrap();
    let digest = Digest::parse(intent.content_refs[0].as_str()).unwrap();
    let stored = w.journal.content(intent.journal_seq, digest).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(stored).unwrap(), r#"{"file":"a","lines":9007199254740993}"#);
}

#[tokio::test]
async fn a_hook_changes_how_a_question_is_put_and_what_was_asked_stands_beside_it() {
    let hooks = || {
        let spec = |id| blocking(id, ASKING, &[Right::ModifyApprovalRequest]);
        let first = json!({"summary": "empties\u{202e} a", "note": "the owner is away"});
        vec![
            answers(spec("a"), present(first)),
            answers(spec("b"), present(json!({"reason": "end of the month"}))),
        ]
    };
    let w = world_with(hooked(hooks())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    let shown = "empties\\u{202e} a";
    assert_eq!((hold.summary.as_str(), hold.reason.as_str()), (shown, "end of the month"));
    let presentation = json!({
        "summary": shown,
        "reason": "end of the month",
        "note": "the owner is away",
        "asked_summary": "touch -- a",
        "asked_reason": "the manifest asks for a person (human_approval)",
        "changed_by": ["a", "b"],
    });
    assert_eq!(hold.context_snapshot["presentation"], presentation);
    assert_eq!(hold.context_snapshot["command"], "touch -- a");
    let request = w.requests().await.remove(0);
    assert_eq!(serde_json::to_value(&request.presentation).unwrap(), presentation);
    assert_eq!(request.rendering_digest, hold.rendering_digest);
    // The digest covers what is shown, and the fingerprint only the call.
    let plain = world_with(seed(1)).await;
    let _plain = plain.spawn("write", json!({"file": "a"}));
    let unchanged = plain.held().await;
    assert_ne!(unchanged.rendering_digest, hold.rendering_digest);
    assert_eq!(unchanged.fingerprint, hold.fingerprint);

    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, Setup { seed: 2, ..hooked(hooks()) }).await;
    assert_eq!(w.kernel.queue().pending(), std::slice::from_ref(&hold));
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    let approvals = w.approvals().await;
    let decided = approvals.iter().find_map(|approval| match approval {
        ApprovalRecord::Responded { decision, .. } => serde_json::to_value(decision).ok(),
        _ => None,
    });
    assert_eq!(decided.unwrap()["rendering_digest"], json!(hold.rendering_digest));
}

#[tokio::test]
async fn a_hook_cannot_change_what_a_question_is_about() {
    for patch in [
        json!({"command": "touch -- harmless"}),
        json!({"arguments": []}),
        json!({"summary": ""}),
        json!({"reason": " \t "}),
        json!({"summary": "\u{202e}".repeat(400)}),
        json!({"reason": null}),
        json!({"note": 7}),
        json!({"note": "x".repeat(2001)}),
        json!("text"),
    ] {
        let spec = blocking("h", ASKING, &[Right::ModifyApprovalRequest]);
        let w = world_with(hooked(vec![answers(spec, present(patch.clone()))])).await;
        let denial = w.call("write", json!({"file": "a"})).await.denial.unwrap();
        assert_eq!(denial.code, "hook.rejected", "{patch}");
        assert_eq!(verdicts(&w).await, [Verdict::RejectedPolicy], "{patch}");
        assert_eq!((w.ran(), w.requests().await.len()), (0, 0), "{patch}");
    }
}

#[tokio::test]
async fn a_hook_denies_a_question_and_its_place_in_the_queue_is_free_again() {
    let denies = answers(blocking("h", ASKING, &[Right::Deny]), HookResponse::Deny(reason()));
    let w = world_with(hooked(vec![denies])).await;
    for _ in 0..150 {
        let denial = w.call("write", json!({"file": "a"})).await.denial.unwrap();
        assert_eq!(denial.code, "hook.denied");
    }
    assert_eq!((w.ran(), w.requests().await.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn hooks_after_a_decision_see_how_every_question_ended() {
    let (seeing, seen) = watching(wide(blocking("h", DECIDED, &[])));
    let w = world_with(hooked(vec![seeing])).await;
    for (decision, status, code) in [
        (Some(DecisionKind::Approve), "approved", "approval.approved"),
        (Some(DecisionKind::Deny), "denied", "approval.denied"),
        (None, "timed_out", "approval.timeout"),
    ] {
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        if let Some(decision) = decision {
            w.decide(decision, "ada").await.unwrap();
        }
        call.await.unwrap();
        let view = views(&seen).pop().unwrap();
        assert_eq!(view.redacted_summary, format!("write: {status} ({code})"));
        let outcome = &view.content.unwrap()["outcome"];
        let actor = decision.map_or(&Value::Null, |_| &outcome["decision"]["actor_ref"]["id"]);
        assert_eq!((&outcome["status"], actor == "ada"), (&json!(status), decision.is_some()));
    }
    assert_eq!((seen.lock().unwrap().len(), w.ran()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_learns_of_a_decision_before_its_hooks_have_seen_it() {
    let slow = hook(blocking("h", DECIDED, &[]), |_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(HookResponse::ObserveOnly)
    });
    let w = world_with(hooked(vec![slow])).await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let before = tokio::time::Instant::now();
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_millis(200));
    call.await.unwrap();
    assert_eq!(w.ran(), 1);
}

#[tokio::test]
async fn a_failing_hook_takes_an_approval_back_also_after_a_restart() {
    let hooks = || vec![broken(blocking("h", DECIDED, &[]))];
    for granted in [false, true] {
        let w = world_with(hooked(hooks())).await;
        let call = w.spawn("write", json!({"file": "a"}));
        let terms = GrantTerms { max_uses: 9, valid_for_ms: 60_000, any_value_of: Vec::new() };
        let error = match granted {
            true => w.grant(terms).await.map(drop),
            false => w.decide(DecisionKind::Approve, "ada").await.map(drop),
        };
        assert!(
            matches!(error, Err(ResolveError::Overruled { code: "hook.failed", .. })),
            "{error:?}"
        );
        let denial = call.await.unwrap().denial.unwrap();
        assert_eq!((denial.code.as_str(), denial.hook.unwrap().as_str()), ("hook.failed", "h"));
        assert_eq!((w.ran(), w.kernel.broker().grants()), (0, Vec::new()));
        assert!(w.story().await.contains(&"approval_revoked".to_owned()));
        let denial = w.call("look", json!({"file": "a"})).await.denial.unwrap();
        assert_eq!(denial.code, "run_stopped");
        let taken_back =
            w.approvals().await.into_iter().rev().find_map(|approval| match approval {
                ApprovalRecord::Denied { reason_code, reason, .. } => Some((reason_code, reason)),
                _ => None,
            });
        let why = Some("hook `h`: it gave no answer".to_owned());
        assert_eq!(taken_back, Some(("hook.failed".to_owned(), why)));
        // Cut right after that record, what ended the call is lost, and the approval stays back.
        // Cut before it, right after the decision, the hooks are asked again.
        let records = w.records().await;
        let at = |kind: &str| records.iter().position(|r| r.event_index.event_kind == kind);
        let (ended, revoked) = (at("approval_dispatch_result"), at("approval_revoked"));
        for cut in [ended.unwrap(), revoked.unwrap()] {
            let journal = common::cut(&w.journal, cut + 1).await;
            let w = start(journal, w.clock.clone(), Setup { seed: 2, ..hooked(hooks()) }).await;
            assert_eq!((w.found.unused_approvals, w.found.grants), (0, 0), "{cut}");
            let again = w.spawn("write", json!({"file": "a"}));
            w.held().await;
            assert_eq!(w.ran(), 0);
            again.abort();
        }
    }
}

#[tokio::test]
async fn a_failing_hook_takes_back_an_approval_of_a_hold_from_before_a_restart() {
    let w = world_with(seed(1)).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let (journal, clock) = w.crash().await;
    let broken = broken(blocking("h", DECIDED, &[]));
    let w = start(journal, clock, Setup { seed: 2, ..hooked(vec![broken]) }).await;
    assert_eq!(w.found.reopened, 1);
    let error = w.decide(DecisionKind::Approve, "ada").await;
    assert!(matches!(error, Err(ResolveError::Overruled { code: "hook.failed", .. })), "{error:?}");
    let denial = w.call("write", json!({"file": "a"})).await.denial.unwrap();
    assert_eq!(
        (denial.code.as_str(), denial.message.as_str()),
        ("hook.failed", "a hook took the approval back: hook.failed")
    );
    assert_eq!(w.ran(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_hook_leaves_a_denial_as_it_was_given() {
    for decided in [true, false] {
        let w = world_with(hooked(vec![broken(blocking("h", DECIDED, &[]))])).await;
        let call = w.spawn("write", json!({"file": "a"}));
        w.held().await;
        if decided {
            assert_eq!(w.decide(DecisionKind::Deny, "ada").await, Ok(HoldStatus::Denied));
        }
        let denial = call.await.unwrap().denial.unwrap();
        let (code, by) =
            if decided { ("approval.denied", Some("ada")) } else { ("approval.timeout", None) };
        assert_eq!(denial.code, code, "{}", denial.message);
        assert_eq!(denial.by.as_ref().map(|by| by.id.as_str()), by);
        assert!(!w.story().await.contains(&"approval_revoked".to_owned()));
        assert_eq!(w.run.stopped().unwrap().code, "hook.failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_covers_nothing_before_the_hooks_have_seen_it() {
    let slow = hook(blocking("h", DECIDED, &[]), |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(countersign_ports::hook::HookError("no".into()))
    });
    let w = world_with(hooked(vec![slow])).await;
    let call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let terms = GrantTerms { max_uses: 9, valid_for_ms: 60_000, any_value_of: vec!["file".into()] };
    let (granted, other) = tokio::join!(w.grant(terms), async {
        until(async || w.story().await.contains(&"approval_responded".to_owned())).await;
        // Another call, which the grant would cover; an equal one would share the outcome.
        w.call("write", json!({"file": "b"})).await
    });
    assert!(granted.is_err());
    assert_eq!(call.await.unwrap().denial.unwrap().code, "hook.failed");
    assert_eq!(other.denial.unwrap().code, "approval.timeout");
    assert_eq!(w.ran(), 0, "released by a grant that was taken back");
}

#[tokio::test]
async fn a_hook_rewrites_a_result_and_both_are_on_record() {
    let less = json!({"text": "d…"});
    let spec = |id| blocking(id, AFTER, &[Right::RewriteToolResult]);
    let (seeing, seen) = watching(HookSpec {
        ordering: countersign_core::hook::HookOrdering {
            phase: countersign_core::hook::HookOrderingPhase::Late,
            order: 0,
        },
        ..wide(blocking("z", AFTER, &[]))
    });
    let hooks = vec![answers(spec("h"), rewrite(less.clone())), seeing];
    let w = world_with(hooked(hooks)).await;
    let governed = w.call("look", json!({"file": "a"})).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
    assert_eq!(governed.envelope.results, less);
    // Its hash too: that of a short secret is as good as the secret.
    assert_eq!(governed.envelope.output_hash, Digest::of(less.to_string()).to_string());
    let view = views(&seen).remove(0);
    assert_eq!(view.redacted_summary, "look: less of it");
    assert_eq!(view.content.unwrap()["results"], less);
    let [_, result, rewritten] = &w.tool_records().await[..] else { panic!() };
    assert_eq!(rewritten.status, ToolCallStatus::ResultRewritten);
    assert_eq!(rewritten.original_redacted_result_summary, result.redacted_result_summary);
    assert_eq!(rewritten.patched_redacted_result_summary.as_deref(), Some("less of it"));
    let records = w.records().await;
    let record =
        records.iter().find(|r| r.record_id.as_str().contains("result_rewritten")).unwrap();
    let digest = Digest::parse(rewritten.result_content_refs[0].as_str()).unwrap();
    let stored = w.journal.content(record.journal_seq, digest).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap(), less);
    // The original is where it was.
    let result =
        records.iter().find(|r| r.event_index.event_kind == "tool_result_recorded").unwrap();
    let stored = w.journal.content(result.journal_seq, Digest::of("done\n")).await.unwrap();
    assert_eq!(stored.unwrap(), b"done\n");
}

#[tokio::test]
async fn a_hook_that_stops_after_a_call_withholds_the_result() {
    let spec = |rights| blocking("h", AFTER, rights);
    for (hook, code) in [
        (broken(spec(&[])), "hook.failed"),
        // An effect is never run again by itself.
        (
            answers(spec(&[Right::RequestRetry]), HookResponse::RequestRetry(note())),
            "hook.rejected",
        ),
        // Every envelope has an object there.
        (answers(spec(&[Right::RewriteToolResult]), rewrite(json!("text"))), "hook.rejected"),
    ] {
        let w = world_with(hooked(vec![hook])).await;
        let governed = w.call("look", json!({"file": "a"})).await;
        assert_eq!(governed.envelope.status, EnvelopeStatus::Error, "{code}");
        assert_eq!(governed.envelope.results["withheld"]["code"], code);
        assert!(!governed.envelope.results.to_string().contains("done"), "{code}");
        // Neither in words nor as a digest that a guess can be held against.
        let given = serde_json::to_string(&(&governed.envelope, &governed.receipt)).unwrap();
        assert!(!given.contains(&Digest::of("done\n").to_string()), "{code}: {given}");
        assert_eq!(w.ran(), 1, "{code}");
        // It has happened, and that is what the journal says.
        let last = w.tool_records().await.pop().unwrap();
        assert_eq!(last.status, ToolCallStatus::Completed, "{code}");
    }
}

#[tokio::test]
async fn a_rewrite_that_cannot_be_recorded_withholds_the_result() {
    let spec = blocking("h", AFTER, &[Right::RewriteToolResult]);
    let w = world_with(hooked(vec![answers(spec, rewrite(json!({})))])).await;
    w.journal.refuse(Some(".response"));
    let governed = w.call("look", json!({"file": "a"})).await;
    assert_eq!(governed.envelope.results["withheld"]["code"], "not_recorded");
    assert_eq!(w.tool_records().await.len(), 2, "half a step is on record");
}

#[tokio::test]
async fn a_run_that_a_hook_stops_does_not_begin() {
    let stop = HookResponse::StopRun(reason());
    for (hook, code) in [
        (answers(blocking("h", HookPoint::RunStarting, &[Right::StopRun]), stop), "hook.stop_run"),
        (broken(blocking("h", HookPoint::RunStarting, &[])), "hook.failed"),
    ] {
        let (journal, clock) = (journal(), Arc::new(ManualClock::at(1)));
        let (kernel, ..) = hooked(vec![hook]).kernel(&journal, &clock).await;
        let error = kernel.run_start(AgentId::new("agent.a").unwrap(), None, "test").await;
        let Err(RunError::Stopped(stop)) = error else { panic!("{error:?}") };
        assert_eq!(stop.code, code);
        let records = journal.records().await;
        assert!(!records.iter().any(|r| r.event_index.event_kind == "run_started"), "{code}");
    }
}

#[tokio::test]
async fn the_end_of_a_run_says_what_hooks_made_of_it() {
    let ending = HookPoint::BeforeRunComplete;
    let repair = || HookResponse::StopCompletionWithRepairNeeded(reason());
    let needs_repair =
        || answers(blocking("r", ending, &[Right::StopCompletionWithRepairNeeded]), repair());
    let failing = |failure| broken(HookSpec { failure, ..blocking("h", AFTER, &[]) });
    for (hooks, status) in [
        (vec![], "ended"),
        (vec![needs_repair()], "repair_needed"),
        (vec![broken(blocking("h", ending, &[]))], "interrupted"),
        (vec![failing(HookFailurePolicy::Deny)], "ended"),
        (vec![failing(HookFailurePolicy::InterruptRun)], "interrupted"),
        (vec![failing(HookFailurePolicy::FailRun)], "failed"),
        // The gravest counts.
        (vec![failing(HookFailurePolicy::FailRun), needs_repair()], "failed"),
    ] {
        let (seeing, seen) = watching(observing("z", HookPoint::AfterRunTerminal));
        let w = world_with(hooked([hooks, vec![seeing]].concat())).await;
        w.call("look", json!({"file": "a"})).await;
        w.kernel.run_end(&w.run, "done").await.unwrap();
        let ended = w.records().await.into_iter().find_map(|record| match record.payload {
            JournalPayload::RunLifecycle(run) if record.event_index.event_kind == "run_ended" => {
                Some(run)
            }
            _ => None,
        });
        assert_eq!(ended.unwrap().status, status);
        w.kernel.hooks().close(Duration::from_secs(1)).await;
        assert_eq!(seen.lock().unwrap().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn an_interrupted_run_takes_no_further_call_and_others_go_on() {
    let spec = HookSpec { failure: HookFailurePolicy::InterruptRun, ..blocking("h", BEFORE, &[]) };
    let fails_for = hook(spec, |input: HookInput| async move {
        match input.view.redacted_summary.as_str() {
            "look: file=bad" => Err(countersign_ports::hook::HookError("bad".into())),
            _ => Ok(HookResponse::ObserveOnly),
        }
    });
    let w = world_with(hooked(vec![fails_for])).await;
    let held = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let denial = w.call("look", json!({"file": "bad"})).await.denial.unwrap();
    assert_eq!(denial.code, "hook.failed");
    let denial = w.call("look", json!({"file": "a"})).await.denial.unwrap();
    assert_eq!((denial.code.as_str(), denial.hook.unwrap().as_str()), ("run_stopped", "h"));
    // Nobody is asked about such a call.
    let denial = w.call("write", json!({"file": "b"})).await.denial.unwrap();
    assert_eq!((denial.code.as_str(), w.requests().await.len()), ("run_stopped", 1));
    // Neither does one that was held meanwhile, though a person approves it.
    w.decide(DecisionKind::Approve, "ada").await.unwrap();
    assert_eq!(held.await.unwrap().denial.unwrap().code, "run_stopped");
    assert_eq!(w.ran(), 0);
    let other = common::new_run(&w.kernel, "agent.a", None).await;
    let governed = w.call_in(&other, "look", json!({"file": "a"})).await;
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
}

#[tokio::test]
async fn a_hook_nobody_waits_for_ends_the_run_it_failed_in() {
    let spec = HookSpec { failure: HookFailurePolicy::Deny, ..observing("h", BEFORE) };
    let w = world_with(hooked(vec![broken(spec)])).await;
    w.call("look", json!({"file": "a"})).await;
    until(async || w.run.stopped().is_some()).await;
    assert_eq!(w.call("look", json!({"file": "a"})).await.denial.unwrap().code, "run_stopped");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_calls_a_hook_off() {
    let stuck = hook(blocking("h", BEFORE, &[]), |_| std::future::pending());
    let w = world_with(hooked(vec![stuck])).await;
    let call = w.spawn("look", json!({"file": "a"}));
    common::settle().await;
    call.abort();
    until(async || w.kernel.hooks().flush().await && w.story().await.len() == 3).await;
    let story = w.story().await;
    assert!(story.contains(&"hook_cancelled".to_owned()), "{story:?}");
    let denied = w.tool_records().await.pop().unwrap();
    let code = denied.effect_result.unwrap().error_ref;
    assert_eq!(code.as_deref(), Some("called_off"));
}
