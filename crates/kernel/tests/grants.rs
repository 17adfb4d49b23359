//! Approvals for the session: what they cover, how they are counted, what outlives a restart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Setup, World, answers, approver, blocking, hook, hooked, observing, seed, start};
use common::{new_run, until, world, world_with};
use countersign_core::approval::{ApprovalDecisionKind, ApprovalRecord};
use countersign_core::hold::{Decision, DecisionKind, GrantTerms};
use countersign_core::hook::{
    ApprovalRequestPatch, HookInput, HookMutationRight as Right, HookPoint, HookResponse,
    ToolRequestPatch,
};
use countersign_core::id::{RefId, SessionId};
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::refs::{EntityKind, SourceKind, SourceRef};
use countersign_escalation::ResolveError;
use countersign_kernel::{Hook, Policy, Run, RunError};
use countersign_manifest::EnvelopeStatus;
use countersign_ports::memory::ManualClock;
use serde_json::{Value, json};

fn terms(max_uses: u64) -> GrantTerms {
    GrantTerms { max_uses, valid_for_ms: 60_000, any_value_of: Vec::new() }
}

fn file(name: &str) -> Value {
    json!({"file": name})
}

/// A world in which `write a` was approved with later calls, and ran once.
async fn granted(setup: Setup, terms: GrantTerms) -> World {
    let w = world_with(setup).await;
    let call = w.spawn("write", file("a"));
    w.grant(terms).await.unwrap();
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    w
}

/// Whether the call is released without anybody being asked.
async fn covered(w: &World, run: &Arc<Run>, tool: &str, arguments: Value) -> bool {
    let call = w.spawn_in(run, tool, arguments);
    let before = w.requests().await.len();
    until(async || call.is_finished() || w.requests().await.len() > before).await;
    if call.is_finished() {
        let governed = call.await.unwrap();
        assert_eq!(governed.envelope.status, EnvelopeStatus::Success, "{governed:?}");
        return true;
    }
    call.abort();
    until(async || w.kernel.queue().pending().is_empty()).await;
    false
}

/// Which approval and which use of it released each call that was announced.
fn releases(records: &[JournalRecord]) -> Vec<(Option<String>, Option<u64>)> {
    let intents = records.iter().filter_map(|record| match &record.payload {
        JournalPayload::Tool(tool) if tool.effect_intent.is_some() => {
            let mut related = record.related_refs.iter();
            let approval = related.find(|entity| entity.kind == EntityKind::ApprovalRequest);
            Some((approval.map(|entity| entity.id.to_string()), tool.grant_use))
        }
        _ => None,
    });
    intents.collect()
}

#[tokio::test]
async fn session_approvals_are_not_asked_again_and_are_counted_to_their_end() {
    let w = granted(seed(1), terms(2)).await;
    let id = w.requests().await[0].approval_request_id.clone();
    for used in 0..2 {
        let grants = w.kernel.broker().grants();
        assert_eq!((grants[0].request_id.clone(), grants[0].uses), (id.clone(), used));
        assert_eq!(grants[0].granted_by.id.as_str(), "ada");
        assert!(covered(&w, &w.run, "write", file("a")).await, "use {}", used + 1);
    }
    assert!(w.kernel.broker().grants().is_empty());
    assert!(!covered(&w, &w.run, "write", file("a")).await, "used a third time");
    let used = |number| (Some(id.to_string()), number);
    assert_eq!(releases(&w.records().await), [used(None), used(Some(1)), used(Some(2))]);
    assert_eq!(w.ran(), 3);
    // It stands in the decision, signed with it.
    let approvals = w.approvals().await;
    let decision = approvals.iter().find_map(|approval| match approval {
        ApprovalRecord::Responded { decision, .. } => serde_json::to_value(decision).ok(),
        _ => None,
    });
    assert_eq!(decision.unwrap()["grant"]["max_uses"], 2);
}

#[tokio::test]
async fn calls_at_the_same_time_share_a_grant_without_sharing_a_use() {
    let w = granted(seed(1), terms(4)).await;
    let calls: Vec<_> = (0..9).map(|_| w.spawn("write", file("a"))).collect();
    // Those that no use was left for wait for one hold.
    until(async || w.kernel.queue().pending().len() == 1 && w.ran() == 5).await;
    let uses: BTreeSet<_> =
        releases(&w.records().await).into_iter().map(|(_, used)| used).collect();
    assert_eq!(uses, [None, Some(1), Some(2), Some(3), Some(4)].into());
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_grant_covers_what_was_granted_and_nothing_else() {
    let session = |session| Setup { session, ..seed(1) };
    let any = || GrantTerms { any_value_of: vec!["file".into()], ..terms(9) };
    // Session of the grant; agent and session of the later call; its tool and file.
    for (first, terms, agent, later, tool, name, expected) in [
        (Some("s"), terms(9), "agent.a", Some("s"), "write", "a", true),
        (Some("s"), terms(9), "agent.a", Some("s"), "write", "b", false),
        (Some("s"), any(), "agent.a", Some("s"), "write", "b", true),
        (Some("s"), any(), "agent.a", Some("s"), "wipe", "b", false),
        (Some("s"), any(), "agent.b", Some("s"), "write", "a", false),
        (Some("s"), any(), "agent.a", Some("t"), "write", "a", false),
        (Some("s"), any(), "agent.a", None, "write", "a", false),
        // Without a session of the client's it is good for the run.
        (None, any(), "agent.a", None, "write", "a", false),
        (None, any(), "agent.a", Some("s"), "write", "a", false),
    ] {
        let w = granted(session(first), terms).await;
        let other = new_run(&w.kernel, agent, later).await;
        let at = format!("{agent} {later:?} {tool} {name} by a grant for {first:?}");
        assert_eq!(covered(&w, &other, tool, file(name)).await, expected, "{at}");
        assert!(covered(&w, &w.run, "write", file("a")).await, "{at}: the same run");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_ends_with_its_time() {
    let w = granted(seed(1), terms(9)).await;
    w.clock.advance(Duration::from_millis(59_999));
    assert!(covered(&w, &w.run, "write", file("a")).await);
    w.clock.advance(Duration::from_millis(1));
    assert!(!covered(&w, &w.run, "write", file("a")).await);
    assert!(w.kernel.broker().grants().is_empty());
}

#[tokio::test]
async fn a_revoked_grant_covers_nothing_and_the_next_call_is_asked_about() {
    let w = granted(seed(1), terms(9)).await;
    let id = w.requests().await[0].approval_request_id.clone();
    let bob = SourceRef::new(SourceKind::User, RefId::new("bob").unwrap());
    let why = Some("done".to_owned());
    let broker = w.kernel.broker();
    assert!(broker.revoke(&id, bob.clone(), why.clone()).await.unwrap());
    assert!(!broker.revoke(&id, bob.clone(), None).await.unwrap(), "revoked twice");
    assert!(!covered(&w, &w.run, "write", file("a")).await);
    let revoked = w.approvals().await.into_iter().find_map(|approval| match approval {
        ApprovalRecord::Denied { reason_code, actor_ref, reason, .. } => {
            Some((reason_code, actor_ref, reason))
        }
        _ => None,
    });
    assert_eq!(revoked.unwrap(), ("approval.grant_revoked".to_owned(), Some(bob), why));
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, seed(2)).await;
    assert_eq!((w.found.grants, w.kernel.broker().grants().len()), (0, 0));
}

#[tokio::test]
async fn a_call_that_took_its_use_before_a_revocation_is_on_record_before_it() {
    let w = granted(seed(1), terms(9)).await;
    let id = w.requests().await[0].approval_request_id.clone();
    // The use is taken, and its record is on the way.
    w.journal.parks.send_replace(Some(".intent".to_owned()));
    let call = w.spawn("write", file("a"));
    until(async || w.kernel.broker().grants()[0].uses == 1).await;
    let broker = w.kernel.broker().clone();
    let bob = SourceRef::new(SourceKind::User, RefId::new("bob").unwrap());
    let revoking = tokio::spawn(async move { broker.revoke(&id, bob, None).await });
    until(async || w.kernel.broker().grants().is_empty()).await;
    common::settle().await;
    w.journal.parks.send_replace(None);
    assert!(revoking.await.unwrap().unwrap());
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    let records = w.records().await;
    let at = |part: &str| records.iter().rposition(|r| r.record_id.as_str().contains(part));
    assert!(at(".intent").unwrap() < at(".revoked").unwrap(), "{:?}", w.story().await);
}

#[tokio::test]
async fn a_revocation_that_cannot_be_recorded_holds_until_the_next_start_and_can_be_repeated() {
    let w = granted(seed(1), terms(9)).await;
    let id = w.requests().await[0].approval_request_id.clone();
    let bob = SourceRef::new(SourceKind::User, RefId::new("bob").unwrap());
    w.journal.refuse(Some(".revoked"));
    w.kernel.broker().revoke(&id, bob.clone(), None).await.unwrap_err();
    assert!(!covered(&w, &w.run, "write", file("a")).await);
    assert!(w.kernel.broker().grants().is_empty());
    w.journal.refuse(None);
    assert!(w.kernel.broker().revoke(&id, bob, None).await.unwrap(), "not tried again");
    let (journal, clock) = w.crash().await;
    assert_eq!(start(journal, clock, seed(2)).await.found.grants, 0);
}

#[tokio::test]
async fn a_grant_and_its_count_outlive_a_restart() {
    let session = |seed| Setup { session: Some("s"), ..common::seed(seed) };
    let w = granted(session(1), terms(3)).await;
    assert!(covered(&w, &w.run, "write", file("a")).await);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, session(2)).await;
    assert_eq!((w.found.grants, w.kernel.broker().grants()[0].uses), (1, 1));
    assert!(covered(&w, &w.run, "write", file("a")).await);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, session(3)).await;
    assert_eq!(w.kernel.broker().grants()[0].uses, 2);
    assert!(covered(&w, &w.run, "write", file("a")).await);
    assert!(!covered(&w, &w.run, "write", file("a")).await);
    let (journal, clock) = w.crash().await;
    assert_eq!(start(journal, clock, session(4)).await.found.grants, 0);
}

#[tokio::test]
async fn a_grant_does_not_cover_a_tool_or_rules_that_have_changed() {
    let mut tools = Setup::default().tools;
    tools.iter_mut().for_each(|(_, text)| *text = text.replace("Writes.", "Writes!"));
    let context = vec![("root".to_owned(), "elsewhere".to_owned())];
    let policy = Policy { context, ..Policy::default() };
    for (setup, expected) in
        [(seed(2), true), (Setup { tools, ..seed(2) }, false), (Setup { policy, ..seed(2) }, false)]
    {
        let w = granted(Setup { session: Some("s"), ..seed(1) }, terms(9)).await;
        let (journal, clock) = w.crash().await;
        let w = start(journal, clock, Setup { session: Some("s"), ..setup }).await;
        assert_eq!(covered(&w, &w.run, "write", file("a")).await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_granted_leaves_the_hold_open() {
    let decide = async |w: &World, decision, grant, who: &str| {
        let decision = Decision { decision, reason: None, grant };
        w.kernel.decide(&w.held().await.id, decision, approver(who)).await
    };
    let any_value_of = vec!["size".to_owned()];
    let without = Policy { grants: None, ..Policy::default() };
    let approve = DecisionKind::Approve;
    for (case, policy, tool, decision, grant, who) in [
        ("critical", Policy::default(), "wipe", approve, Some(terms(1)), "ada"),
        ("no grants", without, "write", approve, Some(terms(1)), "ada"),
        ("no uses", Policy::default(), "write", approve, Some(terms(0)), "ada"),
        ("too many", Policy::default(), "write", approve, Some(terms(101)), "ada"),
        (
            "no time",
            Policy::default(),
            "write",
            approve,
            Some(GrantTerms { valid_for_ms: 0, ..terms(1) }),
            "ada",
        ),
        (
            "too long",
            Policy::default(),
            "write",
            approve,
            Some(GrantTerms { valid_for_ms: 3_600_001, ..terms(1) }),
            "ada",
        ),
        (
            "argument",
            Policy::default(),
            "write",
            approve,
            Some(GrantTerms { any_value_of, ..terms(1) }),
            "ada",
        ),
        ("denial", Policy::default(), "write", DecisionKind::Deny, Some(terms(1)), "ada"),
        ("no approver", Policy::default(), "write", approve, None, "a\nb"),
    ] {
        let w = world_with(Setup { policy, ..seed(1) }).await;
        let call = w.spawn(tool, file("a"));
        let refused = decide(&w, decision, grant, who).await;
        assert!(matches!(refused, Err(ResolveError::NotAllowed(_))), "{case}: {refused:?}");
        assert_eq!((w.kernel.queue().pending().len(), w.requests().await.len()), (1, 1), "{case}");
        let offered = &w.requests().await[0].allowed_decisions;
        let grantable = !matches!(case, "critical" | "no grants");
        assert_eq!(
            offered.contains(&ApprovalDecisionKind::ApprovedForSession),
            grantable,
            "{case}"
        );
        decide(&w, approve, None, "ada").await.unwrap();
        assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success, "{case}");
        assert!(w.kernel.broker().grants().is_empty(), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_for_the_longest_time_ends_with_it_however_long_deciding_took() {
    let w = world().await;
    let call = w.spawn("write", file("a"));
    let hold = w.held().await;
    let latest = w.clock.clone();
    // The hold counts its own time too, so the decision comes later than the clock says.
    tokio::time::advance(Duration::from_secs(5)).await;
    let longest = GrantTerms { valid_for_ms: 3_600_000, ..terms(9) };
    w.grant(longest).await.unwrap();
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    let grants = w.kernel.broker().grants();
    assert_eq!(grants[0].grant.expires_at_millis, 1_000_000 + 3_600_000);
    assert_eq!(hold.context_snapshot["session_grant"]["expires_at_most"], "1970-01-01T01:16:40Z");
    latest.advance(Duration::from_secs(3600));
    assert!(w.kernel.broker().grants().is_empty());
}

#[tokio::test]
async fn a_call_that_could_not_be_announced_gives_its_use_back() {
    let w = granted(seed(1), terms(1)).await;
    w.journal.fails.store(true, Ordering::SeqCst);
    let denial = w.call("write", file("a")).await.denial.unwrap();
    assert_eq!(denial.code, "not_recorded");
    assert_eq!((w.kernel.broker().grants()[0].uses, w.ran()), (0, 1));
    w.journal.fails.store(false, Ordering::SeqCst);
    assert!(covered(&w, &w.run, "write", file("a")).await);
    assert!(!covered(&w, &w.run, "write", file("a")).await);
    assert_eq!(releases(&w.records().await)[1].1, Some(1));
}

/// A hook at each point that the story passes, one of every kind.
fn hooks() -> Vec<Hook> {
    let changing = hook(
        blocking("change", HookPoint::BeforeToolCall, &[Right::ModifyToolRequest]),
        |input: HookInput| async move {
            let merge_patch = Some(json!({"lines": 3}));
            let redacted_summary = "three lines".to_owned();
            Ok(match input.view.redacted_summary.starts_with("look") {
                true => HookResponse::ModifyToolRequest(ToolRequestPatch {
                    redacted_summary,
                    merge_patch,
                }),
                false => HookResponse::ObserveOnly,
            })
        },
    );
    let (redacted_summary, merge_patch) = ("a note".to_owned(), Some(json!({"note": "careful"})));
    let patch = ApprovalRequestPatch { redacted_summary, merge_patch };
    let asking = HookPoint::BeforeApprovalRequest;
    vec![
        changing,
        answers(
            blocking("present", asking, &[Right::ModifyApprovalRequest]),
            HookResponse::ModifyApprovalRequest(patch),
        ),
        answers(blocking("see", HookPoint::AfterApprovalDecision, &[]), HookResponse::ObserveOnly),
        answers(observing("watch", HookPoint::AfterToolCall), HookResponse::ObserveOnly),
    ]
}

/// Cuts the journal after every record of a run with hooks and a grant, and starts again:
/// nothing runs by itself, no approval and no use of a grant releases two calls, and hook
/// invocations are numbered on.
#[tokio::test]
async fn recovery_from_a_crash_after_any_record_of_hooks_and_grants() {
    const USES: u64 = 3;
    let setup = |seed| Setup { session: Some("s"), seed, ..hooked(hooks()) };
    let w = granted(setup(1), terms(USES)).await;
    for tool in ["write", "look", "write"] {
        assert!(covered(&w, &w.run, tool, file("a")).await);
    }
    w.kernel.run_end(&w.run, "done").await.unwrap();
    w.kernel.hooks().close(Duration::from_secs(1)).await;
    let all = w.records().await;
    assert!(all.len() > 30, "{}", all.len());
    let number = |record: &JournalRecord| match &record.payload {
        JournalPayload::Hook(hook) => {
            let id = hook.payload.invocation_id()?;
            id.rsplit('.').next().unwrap().parse::<u64>().ok()
        }
        _ => None,
    };
    for cut in 0..=all.len() {
        let kept = &all[..cut];
        let has = |kind: &str| kept.iter().filter(|r| r.event_index.event_kind == kind).count();
        let at = format!("cut after {cut}: {:?}", kept.last().map(|r| r.record_id.as_str()));
        let clock = Arc::new(ManualClock::at(1_000_500));
        let w = start(common::cut(&w.journal, cut).await, clock, setup(2)).await;
        let asked = has("approval_requested");
        let approved = has("approval_responded");
        let used = releases(kept).into_iter().filter_map(|(_, used)| used).max().unwrap_or(0);
        let first = releases(kept).iter().any(|(id, used)| id.is_some() && used.is_none());
        let open = has("tool_intent_recorded") - has("tool_result_recorded");
        assert_eq!(w.found.reopened, asked - approved, "{at}");
        assert_eq!(w.found.unused_approvals, usize::from(approved == 1 && !first), "{at}");
        assert_eq!(w.found.unknown_effects.len(), open, "{at}");
        assert_eq!(w.found.grants, approved, "{at}");
        let grants = w.kernel.broker().grants();
        assert_eq!(grants.iter().map(|grant| grant.uses).max().unwrap_or(0), used, "{at}");
        assert_eq!(w.ran(), 0, "something ran by itself, {at}");
        // The agent sends the call again and again until somebody would be asked.
        let mut released = 0;
        loop {
            let again = w.spawn("write", file("a"));
            until(async || again.is_finished() || !w.kernel.queue().pending().is_empty()).await;
            if !again.is_finished() {
                again.abort();
                break;
            }
            released += 1;
            assert!(released < 9, "{at}");
        }
        assert_eq!(w.call("look", file("a")).await.envelope.status, EnvelopeStatus::Success);
        assert!(w.kernel.hooks().flush().await, "a record could not be written, {at}");
        let records = w.records().await;
        let releases: Vec<_> = releases(&records).into_iter().filter(|r| r.0.is_some()).collect();
        let distinct: BTreeSet<_> = releases.iter().collect();
        assert_eq!(distinct.len(), releases.len(), "released twice, {at}: {releases:?}");
        let expected = if approved == 1 { 1 + USES as usize } else { 0 };
        assert_eq!(releases.len(), expected, "{at}: {releases:?}");
        let highest = kept.iter().filter_map(number).max().unwrap_or(0);
        let later: Vec<_> = records[cut..].iter().filter_map(number).collect();
        assert!(!later.is_empty() && later.iter().all(|n| *n > highest), "{at}: {later:?}");
    }
}

/// A run's name is in every receipt of it.
#[tokio::test]
async fn no_session_can_take_the_name_of_a_run_and_its_grants() {
    let w = granted(seed(1), terms(9)).await;
    let name = SessionId::new(w.run.id().as_str()).unwrap();
    let agent = w.run.agent_id().clone();
    let taken = w.kernel.run_start(agent, Some(name), "test").await;
    assert!(matches!(taken, Err(RunError::Session)), "{taken:?}");
}

/// What the call left out, the approver saw as it would be: nothing of it is free.
#[tokio::test]
async fn a_grant_binds_defaults_and_what_was_left_out() {
    const NOTE: &str = r#"
[tool]
name = "note"
version = "1.0.0"
description = "Notes."
binary = "echo"
human_approval = true
[args.text]
type = "string"
required = true
[args.mode]
type = "enum"
allowed = ["safe", "wild"]
default = "safe"
[args.number]
type = "integer"
min = 0
max = 9007199254740993
[command]
exec = ["echo", "--mode={mode}", "--n={number}", "--", "{text}"]
[output]
format = "text"
"#;
    let tools = vec![("note.clad.toml".to_owned(), NOTE.to_owned())];
    let setup = Setup { tools, ..seed(1) };
    let w = world_with(setup).await;
    let first = json!({"text": "x", "number": 9_007_199_254_740_992_u64});
    let call = w.spawn("note", first.clone());
    w.grant(terms(9)).await.unwrap();
    call.await.unwrap();
    for (arguments, runs) in [
        (first, true),
        (json!({"text": "x", "mode": "safe", "number": 9_007_199_254_740_992_u64}), true),
        (json!({"text": "x", "mode": "wild", "number": 9_007_199_254_740_992_u64}), false),
        (json!({"text": "x", "number": 9_007_199_254_740_993_u64}), false),
    ] {
        assert_eq!(covered(&w, &w.run, "note", arguments.clone()).await, runs, "{arguments}");
    }
}
