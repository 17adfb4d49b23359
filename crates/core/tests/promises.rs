//! What the peer promises and breaks, and is kept here: as much of it as records and types alone
//! can show.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::approval::*;
use countersign_core::digest::Digest;
use countersign_core::effect::{EffectKind, EffectTerminalStatus};
use countersign_core::hook::*;
use countersign_core::id::*;
use countersign_core::journal::{JournalDraft, JournalPayload, JournalRecord, RecordBase};
use countersign_core::refs::*;
use serde_json::Value;

use crate::common::fixture;

fn source(kind: SourceKind, id: &str) -> SourceRef {
    SourceRef::new(kind, RefId::new(id).unwrap())
}

fn hook(id: &str) -> HookSpec {
    HookSpec::blocking(
        HookId::new(id).unwrap(),
        HookPoint::BeforeToolCall,
        HookSource::InProcess,
        HookExecutorRef::new("executor").unwrap(),
        PolicyRef { kind: PolicyKind::Host, id: RefId::new("policy").unwrap(), version: None },
        HookMutationRights::with([HookMutationRight::Deny]),
    )
}

fn hook_base() -> RecordBase {
    RecordBase::new(
        RunId::new("run.hook").unwrap(),
        AgentId::new("agent.hook").unwrap(),
        source(SourceKind::Sdk, "sdk"),
        RuntimePackageFingerprint::new("fp"),
    )
}

/// The request the peer's approval records are about.
fn request() -> ApprovalRequest {
    let line = fixture("approvals/v1/peer.ndjson").lines().next().unwrap().to_owned();
    let case: Value = serde_json::from_str(&line).unwrap();
    serde_json::from_value(case["input"]["record"]["request"].clone()).unwrap()
}

fn approved(actor_ref: SourceRef) -> ApprovalDecision {
    ApprovalDecision::from_finite_token("approved", actor_ref).unwrap()
}

#[test]
fn identity_is_kind_and_id() {
    let mut labelled = source(SourceKind::User, "ada");
    labelled.trust = TrustClass::Trusted;
    labelled.privacy = PrivacyClass::Secret;
    labelled.redacted_summary = Some("Ada".to_owned());
    labelled.correlation = vec![CorrelationEntry { key: "k".into(), value: "v".into() }];
    let request = ApprovalRequest { source: source(SourceKind::User, "ada"), ..request() };
    for (actor, counts) in [
        (source(SourceKind::User, "ada"), false),
        (labelled, false),
        (source(SourceKind::Host, "ada"), true),
        (source(SourceKind::User, "Ada"), true),
        (source(SourceKind::User, "bob"), true),
    ] {
        for token in ["approved", "approved_for_session", "denied"] {
            let answer = ApprovalDecision::from_finite_token(token, actor.clone()).unwrap();
            let outcome = ApprovalOutcome::decided(&request, answer);
            assert_eq!(outcome.is_ok(), counts, "{token} by {actor:?}");
            if !counts {
                let error = outcome.unwrap_err();
                assert_eq!(error.to_string(), "whoever asked cannot decide: ada");
            }
        }
    }
}

#[test]
fn an_answer_that_is_not_offered_does_not_count() {
    let actor = source(SourceKind::User, "ada");
    for (allowed, token, counts) in [
        (ApprovalDecisionKind::Approved, "approved", true),
        (ApprovalDecisionKind::Approved, "approved_for_session", false),
        (ApprovalDecisionKind::Denied, "approved", false),
        (ApprovalDecisionKind::Denied, "denied", true),
    ] {
        let request = ApprovalRequest { allowed_decisions: vec![allowed], ..request() };
        let answer = ApprovalDecision::from_finite_token(token, actor.clone()).unwrap();
        assert_eq!(request.admits(&answer).is_ok(), counts, "{allowed} {token}");
    }
}

#[test]
fn a_denial_keeps_person_and_reason_through_its_record() {
    let denial = ApprovalDecision::Denied {
        reason_code: "deploys.frozen".to_owned(),
        actor_ref: Some(source(SourceKind::User, "ada")),
        reason: Some("not on a Friday".to_owned()),
        decided_at_millis: Some(5),
        fingerprint: None,
        rendering_digest: None,
    };
    let request = request();
    let outcome = ApprovalOutcome::decided(&request, denial.clone()).unwrap();
    assert_eq!(outcome.status, ApprovalTerminalStatus::Denied);
    assert_eq!(outcome.reason_code, "deploys.frozen");
    assert!(!outcome.releases_tool());
    let record = request
        .journal_record(
            request.record_base(5),
            ApprovalPart::Responded,
            ApprovalRecord::Responded {
                request_id: request.approval_request_id.clone(),
                decision: denial.clone(),
                votes: Vec::new(),
                edit: None,
            },
        )
        .unwrap();
    let text = serde_json::to_string(&record).unwrap();
    let read: JournalRecord = serde_json::from_str(&text).unwrap();
    let JournalPayload::Approval(ApprovalRecord::Responded { decision, .. }) = read.payload else {
        panic!("{text}");
    };
    assert_eq!(decision, denial);
}

#[test]
fn the_journal_holds_the_whole_question() {
    let request = request();
    let question = ApprovalRecord::Requested { request: Box::new(request.clone()) };
    let record = request
        .journal_record(request.record_base(101), ApprovalPart::Requested, question)
        .unwrap();
    assert_eq!(record.record_id.as_str(), "journal.record.approval.approval.request.1.requested");
    let JournalPayload::Approval(ApprovalRecord::Requested { request: kept }) = &record.payload
    else {
        panic!("{record:?}");
    };
    assert_eq!(**kept, request);
    assert_eq!(record.content_refs, [request.requested_args_ref]);
}

#[test]
fn the_announcement_of_asking_is_the_peers_byte_for_byte() {
    let request = request();
    let effect_intent = request.dispatch_intent();
    let request_id = request.approval_request_id.clone();
    let record = request
        .journal_record(
            request.record_base(101),
            ApprovalPart::Intent,
            ApprovalRecord::DispatchIntent { request_id, effect_intent },
        )
        .unwrap();
    let record = JournalRecord { journal_seq: 1, ..record };
    let peers = fixture("records/v1/journal-approval-dispatch-intent.json");
    assert_eq!(serde_json::to_string(&record).unwrap(), peers.trim_end());
}

#[test]
fn an_accepted_answer_is_planned_as_three_records() {
    let plan = HookMutationJournalPlan::accepted(
        1,
        &hook_base(),
        &hook("a"),
        "hook.invocation.1",
        HookResponseClass::Deny,
    )
    .unwrap();
    let peers = fixture("records/v1/journal-hook-accepted.json");
    let written = serde_json::to_string(&plan.hook_journal_record).unwrap();
    assert_eq!(written, peers.trim_end(), "the verdict is the peer's byte for byte");
    assert_eq!(plan.effect_intent.effect_id.as_str(), "effect.hook.a.hook.invocation.1");
    assert_eq!(plan.effect_intent.kind, EffectKind::HookMutation);

    let records = plan.clone().into_records();
    let told: Vec<_> = records
        .iter()
        .map(|r| (r.journal_seq, r.record_id.as_str(), r.record_kind.as_str(), r.tags.len()))
        .collect();
    let expected = [
        (1, "journal.hook.a.1.response", "hook", 1),
        (2, "journal.hook.a.1.intent", "effect_intent", 0),
        (3, "journal.hook.a.1.result", "effect_result", 0),
    ];
    assert_eq!(told, expected);
    let JournalPayload::Hook(verdict) = &records[0].payload else { panic!("{records:?}") };
    assert_eq!(*verdict, plan.hook_record);
    let JournalPayload::EffectIntent(intent) = &records[1].payload else { panic!("{records:?}") };
    assert_eq!(*intent, plan.effect_intent);
    let JournalPayload::EffectResult(result) = &records[2].payload else { panic!("{records:?}") };
    assert_eq!(result.effect_id, intent.effect_id);
    assert_eq!(result.terminal_status, EffectTerminalStatus::Completed);
    for record in &records {
        assert_eq!(record.redaction_policy_id, "policy.redaction.hook.default");
        assert_eq!(record.run_id.as_str(), "run.hook");
    }
}

#[test]
fn the_number_of_a_plan_is_an_argument_and_two_invocations_share_no_id() {
    let plan = |seq, invocation| {
        let class = HookResponseClass::Deny;
        HookMutationJournalPlan::accepted(seq, &hook_base(), &hook("a"), invocation, class).unwrap()
    };
    assert_eq!(plan(7, "hook.invocation.7"), plan(7, "hook.invocation.7"));
    let mut ids: Vec<_> = [plan(7, "hook.invocation.7"), plan(8, "hook.invocation.8")]
        .into_iter()
        .flat_map(|plan| plan.into_records().map(|record| record.record_id))
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    let last = plan(u64::MAX, "i").into_records();
    assert!(last.iter().all(|record| record.journal_seq == u64::MAX), "no number overflows");
}

#[test]
fn a_rejected_answer_is_one_record() {
    for decision in [
        HookResponseDecision::RejectedMutationRight,
        HookResponseDecision::RejectedPointMatrix,
        HookResponseDecision::RejectedPolicy,
    ] {
        let class = HookResponseClass::StopRun;
        let record = rejected_response(4, &hook_base(), &hook("a"), "i", class, decision).unwrap();
        assert_eq!(record.record_id.as_str(), "journal.hook.a.4.response");
        let JournalPayload::Hook(verdict) = &record.payload else { panic!("{record:?}") };
        let HookRecordPayload::ResponseDecision { decision: found, target_domain_refs, .. } =
            &verdict.payload
        else {
            panic!("{record:?}");
        };
        assert_eq!(*found, decision);
        assert!(target_domain_refs.is_empty(), "nothing is acted on");
    }
}

#[test]
fn every_end_of_an_invocation_has_a_form() {
    let spec = hook("a");
    let invocation_id = || "hook.invocation.1".to_owned();
    let failure_policy = || spec.failure.record_word().to_owned();
    for payload in [
        HookRecordPayload::Completed { invocation_id: invocation_id(), elapsed_ms: 1 },
        HookRecordPayload::TimedOut {
            invocation_id: invocation_id(),
            elapsed_ms: 250,
            failure_policy: failure_policy(),
        },
        HookRecordPayload::Cancelled { invocation_id: invocation_id() },
        HookRecordPayload::Failed {
            invocation_id: invocation_id(),
            failure_policy: failure_policy(),
            redacted_summary: "broke".to_owned(),
        },
    ] {
        let id = RecordId::new("journal.hook.a.1.end").unwrap();
        let record = hook_base().hook(id, "hook_ended", spec.record(payload.clone()));
        let text = serde_json::to_string(&record).unwrap();
        let read: JournalRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read, record);
        let JournalPayload::Hook(read) = read.payload else { panic!("{text}") };
        assert_eq!(read.payload.invocation_id(), Some("hook.invocation.1"));
        assert_eq!(read.payload, payload);
    }
    assert_eq!(failure_policy(), "InterruptRun");
}

#[test]
fn a_hook_without_a_name_is_a_read_error() {
    let good = serde_json::to_string(&hook("a")).unwrap();
    let error = serde_json::from_str::<HookSpec>(&good.replace("\"a\"", "\"\"")).unwrap_err();
    assert!(error.to_string().starts_with("HookId is empty"), "{error}");
    assert!(HookId::new("").is_err());
}

#[test]
fn two_hooks_of_a_set_never_have_one_name() {
    let (a, b) = (hook("a"), hook("b"));
    assert_eq!(hook_set_validate([&a, &b]), Ok(()));
    let twin = HookSpec { point: HookPoint::BeforeApprovalRequest, ..a.clone() };
    let error = hook_set_validate([&a, &b, &twin]).unwrap_err();
    assert_eq!(error.to_string(), "hook a: hook_id is taken by another hook of the set");
    let broken = HookSpec { timeout: HookTimeoutPolicy { timeout_ms: 0 }, ..b };
    assert!(hook_set_validate([&a, &broken]).is_err());
}

#[test]
fn a_known_id_with_other_content_is_told_from_the_same_record_again() {
    let record = hook_base().hook(
        RecordId::new("journal.hook.a.1.end").unwrap(),
        "hook_ended",
        hook("a").record(HookRecordPayload::Cancelled { invocation_id: "i".to_owned() }),
    );
    let draft = |record: &JournalRecord| JournalDraft::new(record.clone()).encode().unwrap();
    let stored = draft(&record).stamp(7);
    assert!(draft(&record).same_content(&stored));
    let moved = JournalRecord { journal_seq: 99, journal_schema_version: 9, ..record.clone() };
    assert!(draft(&moved).same_content(&stored), "the journal gives the place, not the caller");
    for other in [
        JournalRecord { timestamp_millis: 1, ..record.clone() },
        JournalRecord { tags: Vec::new(), ..record.clone() },
        JournalRecord { run_id: RunId::new("run.other").unwrap(), ..record },
    ] {
        assert!(!draft(&other).same_content(&stored));
    }
}

#[test]
fn a_grant_is_scoped_counted_and_ends() {
    let digest = |text: &str| Digest::of(text);
    let arguments = |path: &str| {
        BTreeMap::from([("path".to_owned(), digest(path)), ("mode".to_owned(), digest("any"))])
    };
    let grant = ApprovalGrant {
        agent_id: AgentId::new("agent").unwrap(),
        session: RefId::new("session").unwrap(),
        canonical_tool_name: "write".to_owned(),
        manifest_digest: "sha256:m".to_owned(),
        policy_digest: digest("policy"),
        arguments: BTreeMap::from([("path".to_owned(), digest("a"))]),
        any_value_of: BTreeSet::from(["mode".to_owned()]),
        max_uses: 2,
        expires_at_millis: 100,
    };
    let (agent, other_agent) = (grant.agent_id.clone(), AgentId::new("other").unwrap());
    let (session, other_session) = (grant.session.clone(), RefId::new("other").unwrap());
    let (policy, other_policy) = (grant.policy_digest, digest("other"));
    let (same, other, none) = (arguments("a"), arguments("b"), BTreeMap::new());
    let more = BTreeMap::from([("path".to_owned(), digest("a")), ("all".to_owned(), digest("x"))]);
    let call = GrantCall {
        agent_id: &agent,
        session: &session,
        canonical_tool_name: "write",
        manifest_digest: "sha256:m",
        policy_digest: &policy,
        arguments: &same,
        now_millis: 99,
    };
    let argument = || Err(GrantMismatch::Argument("path".to_owned()));
    for (call, uses, expected) in [
        (call, 0, Ok(())),
        (call, 1, Ok(())),
        (call, 2, Err(GrantMismatch::UsedUp)),
        (call, u64::MAX, Err(GrantMismatch::UsedUp)),
        (GrantCall { now_millis: 100, ..call }, 0, Err(GrantMismatch::Expired)),
        (GrantCall { agent_id: &other_agent, ..call }, 0, Err(GrantMismatch::Agent)),
        (GrantCall { session: &other_session, ..call }, 0, Err(GrantMismatch::Session)),
        (GrantCall { canonical_tool_name: "Write", ..call }, 0, Err(GrantMismatch::Tool)),
        (GrantCall { manifest_digest: "sha256:n", ..call }, 0, Err(GrantMismatch::Manifest)),
        (GrantCall { policy_digest: &other_policy, ..call }, 0, Err(GrantMismatch::Policy)),
        (GrantCall { arguments: &other, ..call }, 0, argument()),
        (GrantCall { arguments: &none, ..call }, 0, argument()),
        // What was absent is bound as well.
        (GrantCall { arguments: &more, ..call }, 0, Err(GrantMismatch::Argument("all".to_owned()))),
    ] {
        assert_eq!(grant.covers(&call, uses), expected, "{call:?} {uses}");
    }
}

#[test]
fn of_all_endings_only_the_two_approvals_release() {
    for status in ApprovalTerminalStatus::ALL {
        let outcome = ApprovalOutcome::unanswered(&request(), *status, "approval.timeout");
        assert_eq!(outcome.decision, None);
        let approves = matches!(
            status,
            ApprovalTerminalStatus::Approved | ApprovalTerminalStatus::ApprovedForSession
        );
        assert_eq!(outcome.releases_tool(), approves);
    }
    let outcome = ApprovalOutcome::decided(&request(), approved(source(SourceKind::User, "ada")));
    assert!(outcome.unwrap().releases_tool());
}
