//! Editing a held call: what is approved then is exactly what was shown, nothing else happens,
//! and all of it is on record.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::{Setup, World, approver, args, blocking, settle, start, world, world_with};
use countersign_core::approval::{ApprovalDecision, ApprovalEdit, ApprovalRecord};
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Decision, DecisionKind, Factor, GrantTerms, HeldAction, HoldRecord, HoldStatus,
};
use countersign_core::hook::{
    ApprovalRequestPatch, HookInput, HookMutationRight, HookNote, HookPoint, HookReason,
    HookResponse, ToolRequestPatch,
};
use countersign_core::id::{AgentId, IdempotencyKey};
use countersign_core::journal::JournalPayload;
use countersign_escalation::{Delegation, Refusal, ResolveError, Voted, Voter};
use countersign_kernel::{
    ApprovalRule, CallOptions, EditError, People, Policy, RuleAction, RuleTerms, Rules,
};
use countersign_manifest::{EnvelopeStatus, ManifestSet};
use countersign_ports::memory::ManualClock;
use serde_json::{Value, json};

fn ops(who: &str) -> Voter {
    Voter::of(approver(who), vec!["ops".to_owned(), "approvers".to_owned()])
}

fn yes() -> Decision {
    Decision { decision: DecisionKind::Approve, reason: Some("so".into()), grant: None }
}

fn terms(group: &str, count: u32) -> RuleTerms {
    RuleTerms {
        factors: vec![Factor::new(group, count).unwrap()],
        exclude_owner: false,
        timeout: None,
        escalate: Vec::new(),
        session_grants: true,
    }
}

/// A world in which calls of `write` take this, by the first rule whose condition holds.
fn ruled(seed: u64, rules: &[(&str, Option<&str>, RuleTerms)]) -> Setup {
    let held =
        rules.iter().map(|(name, when, terms)| (*name, *when, RuleAction::Hold(terms.clone())));
    acting(seed, "write", &held.collect::<Vec<_>>())
}

/// A world in which this becomes of calls of a tool.
fn acting(seed: u64, tool: &str, rules: &[(&str, Option<&str>, RuleAction)]) -> Setup {
    let setup = common::seed(seed);
    let approvers = [("ada", "ops"), ("bob", "ops"), ("carol", "leads")];
    let people = People {
        approvers: approvers
            .into_iter()
            .map(|(id, group)| (id.to_owned(), [group.to_owned()].into_iter().collect()))
            .collect(),
        agents: [(AgentId::new("agent.a").unwrap(), None)].into(),
    };
    let rules = rules.iter().map(|(name, when, action)| ApprovalRule {
        name: (*name).into(),
        reason: None,
        tools: vec![tool.into()],
        agents: Vec::new(),
        risk: None,
        when: when.map(|when| when.parse().unwrap()),
        action: action.clone(),
    });
    let (manifests, _) = ManifestSet::load(setup.tools.clone());
    let timeout = Policy::default().approval_timeout;
    let rules = Rules::new(rules.collect(), timeout, &manifests, &people).unwrap();
    Setup { policy: Policy { rules, ..Policy::default() }, ..setup }
}

/// What an approver is shown of the held call with this file.
async fn preview(w: &World, who: &str, file: &str) -> Digest {
    let id = w.held().await.id;
    let with = args(json!({ "file": file }));
    w.kernel.edit_preview(&id, &ops(who), &with).unwrap().fingerprint
}

async fn edit(w: &World, who: &str, file: &str) -> Result<Voted, EditError> {
    let (id, confirmed) = (w.held().await.id, preview(w, who, file).await);
    w.kernel.edit(&id, ops(who), yes(), args(json!({ "file": file })), confirmed).await
}

fn ended(voted: Result<Voted, EditError>) -> HoldStatus {
    match voted.unwrap() {
        Voted::Ended(resolved) => resolved.outcome.status,
        Voted::Counted(held) => panic!("{held:?}"),
    }
}

async fn decision(w: &World) -> (ApprovalDecision, Option<ApprovalEdit>) {
    let responded = w.approvals().await.into_iter().find_map(|record| match record {
        ApprovalRecord::Responded { decision, edit, .. } => Some((decision, edit)),
        _ => None,
    });
    let (decision, edit) = responded.unwrap();
    (decision, edit.map(|edit| *edit))
}

async fn made(w: &World) -> Vec<ApprovalEdit> {
    let payloads = w.records().await.into_iter().map(|record| record.payload);
    let edits = payloads.filter_map(|payload| match payload {
        JournalPayload::Hold(HoldRecord::Edited { edit, .. }) => Some(*edit),
        _ => None,
    });
    edits.collect()
}

/// What of a hold must not change when nothing happens to it.
fn unmoved(hold: &HeldAction) -> Value {
    serde_json::to_value(hold).unwrap()
}

#[tokio::test]
async fn what_runs_is_what_was_shown_after_the_edit_and_both_are_on_record() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    let asked = w.held().await;
    let before = w.records().await.len();
    let with = args(json!({"file": "b"}));
    let shown = w.kernel.edit_preview(&asked.id, &ops("ada"), &with).unwrap();
    assert_eq!(shown.summary, "touch -- b");
    assert_eq!(shown.context["arguments"][0]["value"], "b");
    assert_eq!(shown.context["edited"]["asked_command"], "touch -- a");
    assert_ne!(Some(shown.fingerprint), asked.fingerprint);
    assert_ne!(Some(shown.rendering_digest), asked.rendering_digest);
    assert_eq!(unmoved(&w.held().await), unmoved(&asked), "a look changes nothing");
    assert_eq!(w.records().await.len(), before, "and records nothing");
    let edited = w.kernel.edit(&asked.id, ops("ada"), yes(), with.clone(), shown.fingerprint).await;
    assert_eq!(ended(edited), HoldStatus::Approved);
    let governed = call.await.unwrap();
    assert_eq!(governed.envelope.status, EnvelopeStatus::Success);
    assert_eq!((w.ran(), w.last_ran()), (1, "touch -- b".to_owned()));
    let (decision, edit) = decision(&w).await;
    let edit = edit.unwrap();
    assert_eq!(edit.by, approver("ada"));
    assert_eq!(edit.asked_fingerprint, asked.fingerprint);
    assert_eq!(edit.asked_rendering_digest, asked.rendering_digest);
    assert_eq!(edit.fingerprint, shown.fingerprint);
    assert_eq!(edit.rendering_digest, shown.rendering_digest);
    let decision = serde_json::to_value(&decision).unwrap();
    assert_eq!(decision["fingerprint"], json!(shown.fingerprint));
    assert_eq!(decision["rendering_digest"], json!(shown.rendering_digest));
    assert_eq!(made(&w).await, std::slice::from_ref(&edit));
    assert_eq!(governed.edited.as_deref(), Some(&edit), "the agent learns of it");
    let intent = w.tool_records().await.into_iter().find(|tool| tool.effect_intent.is_some());
    let intent = intent.unwrap();
    assert_eq!(intent.fingerprint, Some(shown.fingerprint));
    assert_eq!(intent.original_redacted_args_summary.as_deref(), Some("file=a"));
    assert_eq!(intent.requested_args_refs[0], edit.args_ref);
    assert_eq!(
        w.story().await,
        [
            "approval_requested",
            "approval_dispatch_intent",
            "approval_edited",
            "approval_responded",
            "approval_dispatch_result",
            "tool_intent_recorded",
            "tool_result_recorded"
        ]
    );
}

#[tokio::test]
async fn an_edit_that_does_not_count_changes_nothing() {
    let w = world_with(ruled(1, &[("one", None, terms("ops", 1))])).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    let before = w.records().await.len();
    let file = |file: &str| args(json!({ "file": file }));
    let fingerprint = preview(&w, "ada", "b").await;
    let for_ada = Delegation::new("ada", "bob", 0, u64::MAX).unwrap();
    let leads = Voter::of(approver("carol"), vec!["leads".to_owned()]);
    let cases: Vec<(&str, Voter, Value, Digest)> = vec![
        ("bad_arguments", ops("ada"), json!({"file": 1, "fil": "b"}), fingerprint),
        ("bad_arguments", ops("ada"), json!({}), fingerprint),
        ("other_fingerprint", ops("ada"), json!({"file": "c"}), fingerprint),
        ("other_fingerprint", ops("ada"), json!({"file": "b"}), hold.fingerprint.unwrap()),
        ("same_call", ops("ada"), json!({"file": "a"}), hold.fingerprint.unwrap()),
        ("own_request", ops("agent.a"), json!({"file": "b"}), fingerprint),
        ("no_group", leads, json!({"file": "b"}), fingerprint),
        (
            "not_allowed",
            Voter { on_behalf_of: Some(for_ada), ..ops("bob") },
            json!({"file": "b"}),
            fingerprint,
        ),
    ];
    for (code, voter, given, confirmed) in cases {
        let edited = w.kernel.edit(&hold.id, voter, yes(), args(given.clone()), confirmed).await;
        let found = match edited.unwrap_err() {
            EditError::Arguments(problems) => {
                let named = problems.iter().any(|problem| problem.arg == "file");
                assert!(named, "{problems:?}");
                "bad_arguments"
            }
            EditError::OtherFingerprint(_) => "other_fingerprint",
            EditError::Hold(ResolveError::Refused(Refusal::SameCall)) => "same_call",
            EditError::Hold(ResolveError::Refused(Refusal::NoGroup(_))) => "no_group",
            EditError::Hold(ResolveError::OwnRequest) => "own_request",
            EditError::Hold(ResolveError::NotAllowed(_)) => "not_allowed",
            error => panic!("{code}: {error:?}"),
        };
        assert_eq!(found, code, "{given}");
        assert_eq!(unmoved(&w.held().await), unmoved(&hold), "{code}");
    }
    // A grant of more than may be granted is refused before anything is changed.
    let grant = GrantTerms { max_uses: 1, valid_for_ms: 1, any_value_of: vec!["no".into()] };
    let decision = Decision { grant: Some(grant), ..yes() };
    let edited = w.kernel.edit(&hold.id, ops("ada"), decision, file("b"), fingerprint).await;
    assert!(matches!(edited, Err(EditError::Hold(ResolveError::NotAllowed(_)))), "{edited:?}");
    // Nor one that cannot be recorded.
    w.journal.refuse(Some(".edit."));
    let edited = w.kernel.edit(&hold.id, ops("ada"), yes(), file("b"), fingerprint).await;
    assert!(matches!(edited, Err(EditError::Hold(ResolveError::NotCounted(_)))), "{edited:?}");
    w.journal.refuse(None);
    assert_eq!(unmoved(&w.held().await), unmoved(&hold));
    assert_eq!((w.records().await.len(), w.ran()), (before, 0));
    // The call goes on as it was asked.
    w.decide(DecisionKind::Approve, "ada").await.unwrap_err();
    let approved = w.kernel.vote(&hold.id, ops("ada"), yes(), hold.fingerprint).await;
    assert!(matches!(approved, Ok(Voted::Ended(_))), "{approved:?}");
    let governed = call.await.unwrap();
    assert_eq!((governed.edited, w.last_ran()), (None, "touch -- a".to_owned()));
    let late = w.kernel.edit(&hold.id, ops("ada"), yes(), file("b"), fingerprint).await;
    let late = late.unwrap_err();
    assert!(matches!(late, EditError::Hold(ResolveError::AlreadyResolved(_))), "{late:?}");
}

#[tokio::test]
async fn answers_about_the_call_as_it_was_do_not_count_for_the_edited_one() {
    let w = world_with(ruled(1, &[("two", None, terms("ops", 2))])).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let asked = w.held().await;
    w.kernel.vote(&asked.id, ops("ada"), yes(), asked.fingerprint).await.unwrap();
    let edited = edit(&w, "bob", "b").await.unwrap();
    assert!(matches!(edited, Voted::Counted(_)), "ada's answer is about another call");
    let hold = w.held().await;
    assert_eq!(hold.edited_from, asked.fingerprint);
    assert_eq!(hold.summary, "touch -- b");
    // Who has seen the old one, or none, cannot approve the new one.
    for seen in [asked.fingerprint, None] {
        let error = w.kernel.vote(&hold.id, ops("ada"), yes(), seen).await.unwrap_err();
        assert_eq!(error, ResolveError::Refused(Refusal::OtherCall), "{seen:?}");
    }
    assert_eq!(w.ran(), 0);
    w.kernel.vote(&hold.id, ops("ada"), yes(), hold.fingerprint).await.unwrap();
    call.await.unwrap();
    assert_eq!((w.ran(), w.last_ran()), (1, "touch -- b".to_owned()));
    let (_, edit) = decision(&w).await;
    assert_eq!(edit.unwrap().by, approver("bob"));
}

#[tokio::test]
async fn the_last_edit_is_what_runs_and_a_denial_is_of_it_too() {
    let rules = [("two", None, terms("ops", 2))];
    for deny in [false, true] {
        let w = world_with(ruled(1, &rules)).await;
        let call = w.spawn("write", json!({"file": "a"}));
        edit(&w, "ada", "b").await.unwrap();
        edit(&w, "bob", "c").await.unwrap();
        let hold = w.held().await;
        if deny {
            let no = Decision { decision: DecisionKind::Deny, ..yes() };
            w.kernel.vote(&hold.id, ops("ada"), no, hold.fingerprint).await.unwrap();
        } else {
            w.kernel.vote(&hold.id, ops("ada"), yes(), hold.fingerprint).await.unwrap();
        }
        let governed = call.await.unwrap();
        assert_eq!(governed.envelope.status == EnvelopeStatus::Denied, deny);
        assert_eq!(w.ran(), usize::from(!deny));
        if !deny {
            assert_eq!(w.last_ran(), "touch -- c");
        }
        assert_eq!(decision(&w).await.1.map(|edit| edit.fingerprint), hold.fingerprint);
        assert_eq!(made(&w).await.len(), 2);
    }
}

#[tokio::test]
async fn an_edit_to_what_takes_other_approvals_is_refused_by_name() {
    let strict = ("strict", Some("file == prod"), terms("leads", 1));
    let rules = [strict.clone(), ("usual", None, terms("ops", 1))];
    let w = world_with(ruled(1, &rules)).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    let refused = w.kernel.edit_preview(&id, &ops("ada"), &args(json!({"file": "prod"})));
    match refused.unwrap_err() {
        EditError::OtherRule(rule) => assert!(rule.contains("rule `strict`"), "{rule}"),
        error => panic!("{error:?}"),
    }
    assert_eq!(ended(edit(&w, "ada", "b").await), HoldStatus::Approved);
    call.await.unwrap();
    assert_eq!(w.last_ran(), "touch -- b");
}

#[tokio::test]
async fn an_edited_call_passes_the_hooks_that_its_arguments_would_have_passed() {
    let sees_b = |input: &HookInput| input.view.redacted_summary == "write: file=b";
    let point = HookPoint::BeforeToolCall;
    let spec =
        blocking("guard", point, &[HookMutationRight::ModifyToolRequest, HookMutationRight::Deny]);
    for denies in [true, false] {
        let guard = common::hook(spec.clone(), move |input| {
            let answer = match (sees_b(&input), denies) {
                (false, _) => HookResponse::ObserveOnly,
                (true, true) => HookResponse::Deny(HookReason {
                    code: "no".into(),
                    redacted_summary: "not there".into(),
                }),
                (true, false) => HookResponse::ModifyToolRequest(ToolRequestPatch {
                    merge_patch: Some(json!({"file": "c"})),
                    redacted_summary: "c".into(),
                }),
            };
            async move { Ok(answer) }
        });
        let w = world_with(common::hooked(vec![guard])).await;
        let call = w.spawn("write", json!({"file": "a"}));
        let hold = w.held().await;
        let error = edit(&w, "ada", "b").await.unwrap_err();
        let EditError::Hook { message, .. } = &error else { panic!("{error:?}") };
        assert!(message.contains("guard"), "{message}");
        assert_eq!(unmoved(&w.held().await), unmoved(&hold));
        assert_eq!(made(&w).await, []);
        assert_eq!(ended(edit(&w, "ada", "d").await), HoldStatus::Approved);
        let governed = call.await.unwrap();
        assert_eq!(governed.denial, None, "{denies}");
        assert_eq!((w.ran(), w.last_ran()), (1, "touch -- d".to_owned()));
    }
}

#[tokio::test]
async fn equal_calls_share_the_edited_one_and_a_key_stands_for_it() {
    let w = world().await;
    let key = || Some(IdempotencyKey::new("k").unwrap());
    let keyed = CallOptions { kept: true, idempotency_key: key(), mcp: None };
    let file = args(json!({"file": "a"}));
    let mut call = w.kernel.call(&w.run, "write", &file, keyed.clone());
    w.held().await;
    let mut same = w.kernel.call(&w.run, "write", &file, keyed.clone());
    assert_eq!(ended(edit(&w, "ada", "b").await), HoldStatus::Approved);
    let (first, second) = (call.outcome().await.unwrap(), same.outcome().await.unwrap());
    assert_eq!(first, second);
    assert!(first.edited.is_some());
    let again = w.kernel.call(&w.run, "write", &file, keyed.clone()).outcome().await.unwrap();
    assert_eq!(again.edited, first.edited);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, common::seed(2)).await;
    let again = w.kernel.call(&w.run, "write", &file, keyed).outcome().await.unwrap();
    assert_eq!((again.edited, w.ran()), (first.edited, 0), "it has been made");
}

#[tokio::test]
async fn an_approval_for_the_session_covers_the_edited_arguments() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    let (hold, confirmed) = (w.held().await, preview(&w, "ada", "b").await);
    let grant = GrantTerms { max_uses: 2, valid_for_ms: 60_000, any_value_of: Vec::new() };
    let decision = Decision { grant: Some(grant), ..yes() };
    let with = args(json!({"file": "b"}));
    let edited = w.kernel.edit(&hold.id, ops("ada"), decision, with, confirmed).await;
    assert_eq!(ended(edited), HoldStatus::Approved);
    call.await.unwrap();
    assert_eq!(
        w.call("write", json!({"file": "b"})).await.envelope.status,
        EnvelopeStatus::Success
    );
    assert_eq!((w.ran(), w.last_ran()), (2, "touch -- b".to_owned()));
    let _held = w.spawn("write", json!({"file": "a"}));
    assert_eq!(w.held().await.summary, "touch -- a", "what was asked was not granted");
}

/// Cuts the journal after every record and starts again: the call that the agent sends again is
/// made as it was approved, once in both lives, and never as it was not.
#[tokio::test]
async fn an_edit_outlives_a_crash_at_any_record() {
    let rules = || [("two", None, terms("ops", 2))];
    let w = world_with(ruled(1, &rules())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    edit(&w, "ada", "b").await.unwrap();
    let hold = w.held().await;
    w.kernel.vote(&hold.id, ops("bob"), yes(), hold.fingerprint).await.unwrap();
    call.await.unwrap();
    let all = w.records().await;
    for cut in 0..=all.len() {
        let kinds: Vec<_> = all[..cut].iter().map(|r| r.event_index.event_kind.clone()).collect();
        let has = |kind: &str| kinds.iter().any(|k| k == kind);
        let journal = common::cut(&w.journal, cut).await;
        let clock = Arc::new(ManualClock::at(1_000_500));
        let w = start(journal, clock, ruled(9, &rules())).await;
        if has("tool_intent_recorded") || !has("approval_requested") {
            assert_eq!((w.ran(), w.found.reopened), (0, 0), "{kinds:?}");
            continue;
        }
        let decided = has("approval_responded");
        assert_eq!(w.found.unused_approvals, usize::from(decided), "{kinds:?}");
        if !decided {
            let hold = w.held().await;
            let edited = has("approval_edited");
            let shown = if edited { "touch -- b" } else { "touch -- a" };
            assert_eq!(hold.summary, shown, "{kinds:?}");
            assert_eq!(hold.edited_from.is_some(), edited, "{kinds:?}");
            for who in ["ada", "bob"] {
                let (id, seen) = (&hold.id, hold.fingerprint);
                let _ = w.kernel.vote(id, ops(who), yes(), seen).await;
            }
        }
        let again = w.call("write", json!({"file": "a"})).await;
        let edited = has("approval_edited");
        assert_eq!(again.envelope.status, EnvelopeStatus::Success, "{kinds:?}");
        assert_eq!(again.edited.is_some(), edited, "{kinds:?}");
        assert_eq!(w.last_ran(), if edited { "touch -- b" } else { "touch -- a" }, "{kinds:?}");
        assert_eq!(w.ran(), 1, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_call_whose_tool_or_policy_has_changed_cannot_be_edited() {
    let w = world().await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let (journal, clock) = w.crash().await;
    let policy = Policy { hold_from: None, ..Policy::default() };
    let w = start(journal, clock, Setup { policy, ..common::seed(2) }).await;
    let id = w.held().await.id;
    let error = w.kernel.edit_preview(&id, &ops("ada"), &args(json!({"file": "b"})));
    assert_eq!(error.unwrap_err(), EditError::Stale);
}

#[tokio::test]
async fn an_edit_whose_approval_would_not_count_changes_nothing() {
    let w = world_with(ruled(1, &[("two", None, terms("ops", 2))])).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    let (before, confirmed) = (w.records().await.len(), preview(&w, "ada", "b").await);
    // One approver alone cannot approve for the session where it takes two.
    let grant = GrantTerms { max_uses: 1, valid_for_ms: 60_000, any_value_of: Vec::new() };
    let decision = Decision { grant: Some(grant), ..yes() };
    let with = args(json!({"file": "b"}));
    let edited = w.kernel.edit(&hold.id, ops("ada"), decision, with, confirmed).await;
    let refused = EditError::Hold(ResolveError::Refused(Refusal::SharedGrant));
    assert_eq!(edited.unwrap_err(), refused);
    assert_eq!(unmoved(&w.held().await), unmoved(&hold));
    assert_eq!(w.records().await.len(), before);
}

#[tokio::test]
async fn a_call_that_is_changed_back_is_shown_as_it_was_and_has_to_be_looked_at_again() {
    let spec = blocking(
        "words",
        HookPoint::BeforeApprovalRequest,
        &[HookMutationRight::ModifyApprovalRequest],
    );
    let patch = ApprovalRequestPatch {
        merge_patch: Some(json!({"summary": "touches a file", "note": "look twice"})),
        redacted_summary: "words".into(),
    };
    let words =
        || common::answers(spec.clone(), HookResponse::ModifyApprovalRequest(patch.clone()));
    let setup = |seed| {
        let setup = ruled(seed, &[("two", None, terms("ops", 2))]);
        Setup { hooks: vec![words()], ..setup }
    };
    let w = world_with(setup(1)).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let asked = w.held().await;
    w.kernel.vote(&asked.id, ops("ada"), yes(), asked.fingerprint).await.unwrap();
    edit(&w, "bob", "b").await.unwrap();
    let back = edit(&w, "bob", "a").await.unwrap();
    let Voted::Counted(held) = back else { panic!("ada's answer was before the edits") };
    assert_eq!(held.approvals().len(), 1);
    let hold = w.held().await;
    assert_eq!(hold.fingerprint, asked.fingerprint);
    assert_eq!(hold.rendering_digest, asked.rendering_digest, "shown as it was");

    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, setup(2)).await;
    let again = w.held().await;
    assert_eq!(again.fingerprint, asked.fingerprint);
    let about = again.votes.iter().filter(|vote| vote.fingerprint == asked.fingerprint);
    assert_eq!(about.map(|vote| vote.approver.id.as_str()).collect::<Vec<_>>(), ["bob"]);
    let call = w.spawn("write", json!({"file": "a"}));
    w.kernel.vote(&again.id, ops("ada"), yes(), again.fingerprint).await.unwrap();
    let governed = call.await.unwrap();
    assert_eq!((governed.edited, w.ran(), w.last_ran()), (None, 1, "touch -- a".to_owned()));
    let (decision, edit) = decision(&w).await;
    let decision = serde_json::to_value(&decision).unwrap();
    assert_eq!(edit, None, "it is the call that was asked");
    assert_eq!(decision["rendering_digest"], json!(asked.rendering_digest));
}

#[tokio::test]
async fn an_edit_for_which_a_hook_asks_a_person_takes_what_the_rules_ask_for_then() {
    let run = RuleAction::Run;
    let hold = |group| RuleAction::Hold(terms(group, 1));
    let rules = [
        ("usual", Some("file == a"), hold("ops")),
        ("free", Some("file == b"), run),
        ("strict", None, hold("leads")),
    ];
    let asks = |input: HookInput| async move {
        let about_b = input.view.redacted_summary == "look: file=b";
        Ok(match about_b {
            true => HookResponse::RequestApproval(HookNote { redacted_summary: "b?".into() }),
            false => HookResponse::ObserveOnly,
        })
    };
    let spec = blocking("asks", HookPoint::BeforeToolCall, &[HookMutationRight::RequestApproval]);
    for asked in [false, true] {
        let mut setup = acting(1, "look", &rules);
        if asked {
            setup.hooks = vec![common::hook(spec.clone(), asks)];
        }
        let w = world_with(setup).await;
        let call = w.spawn("look", json!({"file": "a"}));
        w.held().await;
        let edited = edit(&w, "ada", "b").await;
        if asked {
            // Whose approval it takes says the rule that would count were it asked anew.
            assert!(matches!(edited, Err(EditError::OtherRule(_))), "{edited:?}");
            assert_eq!((w.ran(), made(&w).await), (0, Vec::new()));
        } else {
            assert_eq!(ended(edited), HoldStatus::Approved);
            call.await.unwrap();
            assert_eq!(w.last_ran(), "head -- b");
        }
    }
}

#[tokio::test]
async fn of_an_edit_and_a_decision_at_once_the_first_on_record_counts() {
    // The decision, while the edit is on its way into the journal.
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    let (hold, confirmed) = (w.held().await, preview(&w, "ada", "b").await);
    w.journal.parks.send_replace(Some(".edit.".to_owned()));
    let (kernel, id) = (w.kernel.clone(), hold.id.clone());
    let with = args(json!({"file": "b"}));
    let editing =
        tokio::spawn(async move { kernel.edit(&id, ops("ada"), yes(), with, confirmed).await });
    settle().await;
    let (kernel, id) = (w.kernel.clone(), hold.id.clone());
    let deciding =
        tokio::spawn(async move { kernel.vote(&id, ops("bob"), yes(), hold.fingerprint).await });
    settle().await;
    w.journal.parks.send_replace(None);
    let (edited, decided) = (editing.await.unwrap(), deciding.await.unwrap());
    let governed = call.await.unwrap();
    let of_edit = edited.is_ok();
    assert_ne!(of_edit, decided.is_ok(), "{edited:?} {decided:?}");
    let ran = if of_edit { "touch -- b" } else { "touch -- a" };
    assert_eq!((w.ran(), w.last_ran()), (1, ran.to_owned()));
    assert_eq!(governed.edited.is_some(), of_edit);
    assert_eq!(decision(&w).await.1.is_some(), of_edit);

    // Two edits: whoever confirmed what is not there any more has to look again.
    let w = world_with(ruled(1, &[("two", None, terms("ops", 2))])).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    let (of_ada, of_bob) = (preview(&w, "ada", "b").await, preview(&w, "bob", "c").await);
    let first = w.kernel.edit(&id, ops("ada"), yes(), args(json!({"file": "b"})), of_ada);
    let second = w.kernel.edit(&id, ops("bob"), yes(), args(json!({"file": "c"})), of_bob);
    let (first, second) = tokio::join!(first, second);
    let hold = w.held().await;
    for (voted, fingerprint) in [(first, of_ada), (second, of_bob)] {
        match voted {
            Ok(Voted::Counted(held)) => assert_eq!(held.fingerprint(), Some(fingerprint)),
            other => {
                let refused = EditError::Hold(ResolveError::Refused(Refusal::OtherCall));
                assert_eq!(other.unwrap_err(), refused);
            }
        }
    }
    let about: Vec<_> = hold.votes.iter().filter(|v| v.fingerprint == hold.fingerprint).collect();
    assert_eq!(about.len(), 1, "only whoever saw it has approved it: {hold:?}");
    assert_eq!((w.ran(), hold.edited_from.is_some()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn an_edit_at_the_deadline_comes_too_late() {
    let w = world().await;
    let call = w.spawn("write", json!({"file": "a"}));
    let (hold, confirmed) = (w.held().await, preview(&w, "ada", "b").await);
    w.clock.advance(Policy::default().approval_timeout);
    let with = args(json!({"file": "b"}));
    let edited = w.kernel.edit(&hold.id, ops("ada"), yes(), with, confirmed).await;
    let error = edited.unwrap_err();
    assert!(matches!(error, EditError::Hold(ResolveError::Expired(_))), "{error:?}");
    assert_eq!(call.await.unwrap().denial.unwrap().code, "approval.timeout");
    assert_eq!((w.ran(), made(&w).await), (0, Vec::new()));
}
