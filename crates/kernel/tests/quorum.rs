//! Calls that take more than one person: who counts, what is on record of it, and what of that
//! outlives the process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Setup, World, answers, approver, blocking, settle, start, until, world_with};
use countersign_core::approval::{ApprovalRecord, ApprovalRequest};
use countersign_core::hold::{
    Decision, DecisionKind, EscalationStep, Factor, GrantTerms, HeldAction, HoldRecord, HoldStatus,
    Vote,
};
use countersign_core::hook::{HookMutationRight, HookNote, HookPoint, HookResponse};
use countersign_core::id::AgentId;
use countersign_core::journal::JournalPayload;
use countersign_escalation::{Delegation, Refusal, ResolveError, Voted, Voter};
use countersign_kernel::{ApprovalRule, People, Policy, RuleAction, RuleTerms, Rules};
use countersign_manifest::{EnvelopeStatus, ManifestSet};
use countersign_ports::clock::Clock as _;
use countersign_ports::memory::ManualClock;
use serde_json::json;

const NOW: u64 = 1_000_000;

fn factors(of: &[(&str, u32)]) -> Vec<Factor> {
    of.iter().map(|(group, count)| Factor::new(*group, *count).unwrap()).collect()
}

/// Two of ops, and not agent.a's owner.
fn two_of_ops() -> RuleTerms {
    RuleTerms {
        factors: factors(&[("ops", 2)]),
        exclude_owner: true,
        timeout: None,
        escalate: Vec::new(),
        session_grants: true,
    }
}

/// A world in which calls of `write` take this.
fn taking(seed: u64, terms: RuleTerms) -> Setup {
    let setup = common::seed(seed);
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let approvers = [
        ("ada", groups(&["ops"])),
        ("bob", groups(&["ops"])),
        ("carol", groups(&["ops", "leads"])),
        ("owner", groups(&["ops"])),
    ];
    let people = People {
        approvers: approvers.into_iter().map(|(id, groups)| (id.to_owned(), groups)).collect(),
        agents: [(AgentId::new("agent.a").unwrap(), Some("owner".to_owned()))].into(),
    };
    let rule = ApprovalRule {
        name: "two".into(),
        reason: None,
        tools: vec!["write".into()],
        agents: Vec::new(),
        risk: None,
        when: None,
        action: RuleAction::Hold(terms),
    };
    let (manifests, _) = ManifestSet::load(setup.tools.clone());
    let timeout = Policy::default().approval_timeout;
    let rules = Rules::new(vec![rule], timeout, &manifests, &people).unwrap();
    Setup { policy: Policy { rules, ..Policy::default() }, ..setup }
}

fn of(who: &str, groups: &[&str]) -> Voter {
    Voter::of(approver(who), groups.iter().map(|group| (*group).to_owned()).collect())
}

fn ops(who: &str) -> Voter {
    of(who, &["ops", "approvers"])
}

fn for_ada(who: &str, from: u64, until: u64) -> Voter {
    let delegation = Delegation::new("ada", who, from, until).unwrap();
    Voter { on_behalf_of: Some(delegation), ..ops(who) }
}

fn yes() -> Decision {
    Decision { decision: DecisionKind::Approve, reason: Some("fine".into()), grant: None }
}

/// How many have approved, or how it ended.
type Stands = Result<Result<usize, HoldStatus>, ResolveError>;

const APPROVED: Stands = Ok(Err(HoldStatus::Approved));

async fn approve(w: &World, voter: Voter) -> Stands {
    vote(w, voter, yes()).await
}

async fn vote(w: &World, voter: Voter, decision: Decision) -> Stands {
    let hold = w.held().await;
    Ok(match w.kernel.vote(&hold.id, voter, decision, hold.fingerprint).await? {
        Voted::Counted(held) => Ok(held.votes().len()),
        Voted::Ended(resolved) => Err(resolved.outcome.status),
    })
}

fn refused(refusal: Refusal) -> Stands {
    Err(ResolveError::Refused(refusal))
}

async fn steps(w: &World) -> Vec<HoldRecord> {
    let payloads = w.records().await.into_iter().map(|record| record.payload);
    let steps = payloads.filter_map(|payload| match payload {
        JournalPayload::Hold(step) => Some(step),
        _ => None,
    });
    steps.collect()
}

/// The question, the answers that made the decision, and whether it was an approval.
async fn decided(w: &World) -> (ApprovalRequest, Vec<Vote>, bool) {
    let request = w.requests().await.remove(0);
    let approvals = w.approvals().await;
    let made = approvals.iter().find_map(|record| match record {
        ApprovalRecord::Responded { decision, votes, .. } => {
            Some((votes.clone(), decision.kind().as_str().starts_with("Approved")))
        }
        _ => None,
    });
    let (votes, approved) = made.unwrap();
    (request, votes, approved)
}

fn voters(votes: &[Vote]) -> Vec<&str> {
    votes.iter().map(|vote| vote.approver.id.as_str()).collect()
}

#[tokio::test]
async fn a_call_takes_distinct_people_who_neither_asked_nor_own_the_agent() {
    let w = world_with(taking(1, two_of_ops())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    assert_eq!(hold.reason, "rule `two` holds it; it takes 2 of `ops`");
    assert_eq!(hold.policy.as_ref().unwrap().excluded(), ["owner"]);
    assert_eq!(approve(&w, ops("ada")).await, Ok(Ok(1)));
    for (voter, error) in [
        (ops("ada"), refused(Refusal::AlreadyVoted("ada".into()))),
        (ops("owner"), refused(Refusal::Excluded("owner".into()))),
        (ops("agent.a"), Err(ResolveError::OwnRequest)),
        (of("eve", &["sales", "approvers"]), refused(Refusal::NoGroup("eve".into()))),
    ] {
        let who = voter.approver.id.clone();
        match approve(&w, voter).await {
            // Who asked is found out by the request already.
            Err(ResolveError::NotAllowed(why)) => assert!(why.contains("agent.a"), "{why}"),
            found => assert_eq!(found, error, "{who}"),
        }
    }
    assert!(!call.is_finished() && w.ran() == 0);
    assert_eq!(approve(&w, ops("bob")).await, APPROVED);
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    assert_eq!(
        w.story().await,
        [
            "approval_requested",
            "approval_dispatch_intent",
            "approval_voted",
            "approval_responded",
            "approval_dispatch_result",
            "tool_intent_recorded",
            "tool_result_recorded"
        ]
    );
}

#[tokio::test]
async fn the_records_alone_show_the_quorum() {
    let w = world_with(taking(1, two_of_ops())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    approve(&w, ops("ada")).await.unwrap().unwrap();
    assert_eq!(approve(&w, ops("carol")).await, APPROVED);
    call.await.unwrap();
    let (request, votes, approved) = decided(&w).await;
    assert!(approved);
    assert_eq!(voters(&votes), ["ada", "carol"]);
    assert_eq!(votes[0].groups, ["ops"], "groups nobody asked for are nobody's business");
    assert_eq!(votes[0].reason, None, "it stands in a record of its own");
    let HoldRecord::Voted { vote, .. } = &steps(&w).await[0] else { panic!() };
    assert_eq!(vote.reason.as_deref(), Some("fine"));
    let met = |votes: &[Vote]| request.met_by(votes, request.fingerprint, w.clock.now_millis());
    assert!(met(&votes));
    // Anything less is none.
    let change = |change: &dyn Fn(&mut Vote)| {
        let mut votes = votes.clone();
        change(&mut votes[1]);
        votes
    };
    for (what, votes) in [
        ("one", votes[..1].to_vec()),
        ("the same twice", change(&|vote| vote.approver.id = "ada".into())),
        ("for the same", change(&|vote| vote.on_behalf_of = Some("ada".into()))),
        ("who asked", change(&|vote| vote.approver.id = "agent.a".into())),
        ("for who asked", change(&|vote| vote.on_behalf_of = Some("agent.a".into()))),
        ("the owner", change(&|vote| vote.approver.id = "owner".into())),
        ("for the owner", change(&|vote| vote.on_behalf_of = Some("owner".into()))),
        ("of no group", change(&|vote| vote.groups.clear())),
        ("a denial", change(&|vote| vote.decision = DecisionKind::Deny)),
        ("about another call", change(&|vote| vote.fingerprint = None)),
    ] {
        assert!(!met(&votes), "{what}");
    }
}

#[tokio::test]
async fn one_denial_ends_it_and_says_whose_answers_there_were() {
    let w = world_with(taking(1, two_of_ops())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    approve(&w, ops("ada")).await.unwrap().unwrap();
    let no = Decision { decision: DecisionKind::Deny, reason: Some("no".into()), grant: None };
    // Of no group that is asked for.
    assert_eq!(vote(&w, of("eve", &[]), no).await, Ok(Err(HoldStatus::Denied)));
    assert_eq!(call.await.unwrap().denial.unwrap().message, "denied by eve: no");
    let (_, votes, approved) = decided(&w).await;
    assert_eq!((voters(&votes), approved), (vec!["ada", "eve"], false));
}

#[tokio::test(start_paused = true)]
async fn a_delegate_counts_for_the_other_while_that_lasts() {
    let w = world_with(taking(1, two_of_ops())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let gone = refused(Refusal::NotDelegated("bob".into()));
    assert_eq!(approve(&w, for_ada("bob", 0, NOW)).await, gone);
    assert_eq!(approve(&w, for_ada("bob", NOW + 60_000, u64::MAX)).await, gone);
    assert_eq!(approve(&w, for_ada("bob", NOW, NOW + 60_000)).await, Ok(Ok(1)));
    // Neither of the two counts once more.
    for voter in [ops("ada"), ops("bob"), for_ada("carol", 0, u64::MAX)] {
        let who = voter.approver.id.clone();
        assert_eq!(approve(&w, voter).await, refused(Refusal::AlreadyVoted(who)));
    }
    assert_eq!(approve(&w, ops("carol")).await, APPROVED);
    let (_, votes, _) = decided(&w).await;
    assert_eq!(votes[0].on_behalf_of.as_deref(), Some("ada"));
}

#[tokio::test]
async fn nobody_answers_for_somebody_where_anybody_may() {
    let w = world_with(common::seed(1)).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let error = approve(&w, for_ada("bob", 0, u64::MAX)).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotAllowed(_)), "{error}");
    assert_eq!(approve(&w, ops("bob")).await, APPROVED);
    call.await.unwrap();
    assert_eq!(decided(&w).await.1, [], "one answer stands in the decision");
}

#[tokio::test(start_paused = true)]
async fn others_are_brought_in_after_a_time() {
    let escalate = vec![
        EscalationStep { after_ms: 60_000, factors: factors(&[("leads", 1)]) },
        EscalationStep { after_ms: 120_000, factors: factors(&[("ops", 1)]) },
    ];
    let w = world_with(taking(1, RuleTerms { escalate, ..two_of_ops() })).await;
    let advance = async |millis| {
        w.clock.advance(Duration::from_millis(millis));
        tokio::time::advance(Duration::from_millis(millis)).await;
        settle().await;
    };
    // A lead alone is not enough before, and is after.
    let call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    assert_eq!(approve(&w, of("dan", &["leads"])).await, refused(Refusal::NoGroup("dan".into())));
    advance(59_999).await;
    assert_eq!(w.held().await.escalated, 0);
    advance(1).await;
    assert_eq!(w.held().await.escalated, 1);
    let step = HoldRecord::Escalated { request_id: id, steps: 1 };
    assert_eq!(steps(&w).await, [step]);
    assert_eq!(approve(&w, of("dan", &["leads"])).await, APPROVED);
    call.await.unwrap();
    let (request, votes, _) = decided(&w).await;
    let created = request.created_at_millis;
    assert!(request.met_by(&votes, request.fingerprint, created + 60_000));
    assert!(!request.met_by(&votes, request.fingerprint, created + 59_999), "too early");
    // What was not enough before is when the step comes, with nobody there.
    let call = w.spawn("write", json!({"file": "b"}));
    assert_eq!(approve(&w, ops("ada")).await, Ok(Ok(1)));
    advance(119_999).await;
    assert!(!call.is_finished());
    advance(1).await;
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    assert_eq!(w.ran(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_seen_ends_and_is_given_back() {
    let w = world_with(taking(1, two_of_ops())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    let minutes = |n: u64| Duration::from_secs(60 * n);
    w.kernel.claim(&id, approver("ada"), minutes(2)).await.unwrap();
    assert_eq!(w.held().await.claim.unwrap().by.id, "ada");
    let second = w.kernel.claim(&id, approver("bob"), minutes(2)).await;
    assert_eq!(second.unwrap_err(), ResolveError::Refused(Refusal::Claimed("ada".into())));
    let other = w.kernel.unclaim(&id, approver("bob")).await;
    assert_eq!(other.unwrap_err(), ResolveError::Refused(Refusal::NotClaimed("bob".into())));
    let owner = w.kernel.claim(&id, approver("owner"), minutes(2)).await;
    assert_eq!(owner.unwrap_err(), ResolveError::Refused(Refusal::Excluded("owner".into())));
    // It keeps nobody from deciding.
    assert_eq!(approve(&w, ops("bob")).await, Ok(Ok(1)));
    w.kernel.unclaim(&id, approver("ada")).await.unwrap();
    assert_eq!(w.held().await.claim, None);
    w.kernel.claim(&id, approver("bob"), minutes(2)).await.unwrap();
    w.clock.advance(minutes(2));
    tokio::time::advance(minutes(2)).await;
    until(async || w.held().await.claim.is_none()).await;
    let kinds: Vec<_> = w.story().await.split_off(2);
    assert_eq!(
        kinds,
        ["approval_claimed", "approval_voted", "approval_released", "approval_claimed"]
    );
}

#[tokio::test]
async fn what_is_not_recorded_does_not_count_and_ends_nothing() {
    let w = world_with(taking(1, two_of_ops())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    w.journal.refuse(Some(&format!("{id}.vote")));
    let error = approve(&w, ops("ada")).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotCounted(_)), "{error}");
    w.journal.refuse(Some(&format!("{id}.claim")));
    let error = w.kernel.claim(&id, approver("ada"), Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotCounted(_)), "{error}");
    let HeldAction { votes, claim, .. } = w.held().await;
    assert_eq!((votes.len(), claim), (0, None));
    w.journal.refuse(None);
    assert_eq!(approve(&w, ops("ada")).await, Ok(Ok(1)));
    assert_eq!(approve(&w, ops("bob")).await, APPROVED);
    call.await.unwrap();
}

#[tokio::test]
async fn a_vote_is_durable_before_it_counts() {
    let w = world_with(taking(1, two_of_ops())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    w.journal.permits.forget_permits(usize::MAX);
    let mut ada = std::pin::pin!(approve(&w, ops("ada")));
    for _ in 0..100 {
        tokio::select! {
            biased;
            _ = &mut ada => panic!("counted before it was durable"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(w.held().await.votes, []);
    }
    w.journal.permits.add_permits(100);
    assert_eq!(ada.await, Ok(Ok(1)));
}

#[tokio::test]
async fn two_at_once_are_counted_each_or_one_of_them() {
    for (count, expected) in [(1, 1), (2, 2)] {
        let terms = RuleTerms { factors: factors(&[("ops", count)]), ..two_of_ops() };
        let w = world_with(taking(1, terms)).await;
        let call = w.spawn("write", json!({"file": "a"}));
        let hold = w.held().await;
        let (ada, bob) = tokio::join!(
            w.kernel.vote(&hold.id, ops("ada"), yes(), None),
            w.kernel.vote(&hold.id, ops("bob"), yes(), None),
        );
        let mut ended = 0;
        for result in [&ada, &bob] {
            match result {
                Ok(Voted::Ended(_)) => ended += 1,
                Ok(Voted::Counted(_)) => assert_eq!(count, 2),
                Err(ResolveError::AlreadyResolved(_)) => assert_eq!(count, 1),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(ended, 1, "{ada:?} {bob:?}");
        assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
        assert_eq!((decided(&w).await.1.len(), w.ran()), (expected, 1));
    }
}

#[tokio::test]
async fn an_approval_for_the_session_is_not_for_several_and_not_where_a_rule_forbids_it() {
    let grant = Some(GrantTerms { max_uses: 1, valid_for_ms: 1000, any_value_of: Vec::new() });
    let terms = RuleTerms { session_grants: false, ..two_of_ops() };
    for (terms, forbidden) in [(two_of_ops(), false), (terms, true)] {
        let w = world_with(taking(1, terms)).await;
        let _call = w.spawn("write", json!({"file": "a"}));
        let error = vote(&w, ops("ada"), Decision { grant: grant.clone(), ..yes() }).await;
        match (forbidden, error.unwrap_err()) {
            (true, ResolveError::NotAllowed(why)) => assert!(why.contains("once only"), "{why}"),
            (false, ResolveError::Refused(refusal)) => assert_eq!(refusal, Refusal::SharedGrant),
            (_, error) => panic!("{error:?}"),
        }
        assert_eq!(w.held().await.context_snapshot.get("session_grant").is_none(), forbidden);
    }
}

#[tokio::test]
async fn a_hook_that_asks_does_not_make_one_approval_enough() {
    let rights = [HookMutationRight::RequestApproval];
    let ask = answers(
        blocking("ask", HookPoint::BeforeToolCall, &rights),
        HookResponse::RequestApproval(HookNote { redacted_summary: "please".into() }),
    );
    let w = world_with(Setup { hooks: vec![ask], ..taking(1, two_of_ops()) }).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    assert_eq!(w.held().await.reason, "a hook asks for a person: please");
    assert_eq!(approve(&w, ops("ada")).await, Ok(Ok(1)));
    assert_eq!(approve(&w, ops("bob")).await, APPROVED);
}

#[tokio::test]
async fn what_was_voted_outlives_the_process() {
    let escalate = vec![EscalationStep { after_ms: 60_000, factors: factors(&[("leads", 1)]) }];
    let terms = || RuleTerms { escalate: escalate.clone(), ..two_of_ops() };
    let w = world_with(taking(1, terms())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    approve(&w, for_ada("bob", 0, u64::MAX)).await.unwrap().unwrap();
    w.kernel.claim(&id, approver("carol"), Duration::from_secs(60)).await.unwrap();
    let before = w.held().await;
    let (journal, clock) = w.crash().await;
    clock.advance(Duration::from_secs(1));
    let w = start(journal, clock, taking(2, terms())).await;
    assert_eq!(w.held().await, before, "policy, votes, claim and time are as they were");
    let call = w.spawn("write", json!({"file": "a"}));
    for voter in [ops("ada"), ops("bob")] {
        let who = voter.approver.id.clone();
        assert_eq!(approve(&w, voter).await, refused(Refusal::AlreadyVoted(who)));
    }
    assert_eq!(approve(&w, ops("carol")).await, APPROVED);
    assert_eq!(call.await.unwrap().envelope.status, EnvelopeStatus::Success);
    let (request, votes, _) = decided(&w).await;
    assert!(request.met_by(&votes, request.fingerprint, w.clock.now_millis()));
    assert_eq!(voters(&votes), ["bob", "carol"]);
    assert_eq!(w.ran(), 1);
}

/// Cuts the journal after every record of a story of two people and starts again: what is on
/// record counts, what is not does not, and in both lives together it takes two.
#[tokio::test]
async fn a_quorum_over_two_lives_after_a_crash_at_any_record() {
    let w = world_with(taking(1, two_of_ops())).await;
    let call = w.spawn("write", json!({"file": "a"}));
    let id = w.held().await.id;
    w.kernel.claim(&id, approver("ada"), Duration::from_secs(100)).await.unwrap();
    approve(&w, ops("ada")).await.unwrap().unwrap();
    w.kernel.unclaim(&id, approver("ada")).await.unwrap();
    assert_eq!(approve(&w, ops("bob")).await, APPROVED);
    call.await.unwrap();
    let all = w.records().await;
    for cut in 0..=all.len() {
        let kinds: Vec<_> = all[..cut].iter().map(|r| r.event_index.event_kind.clone()).collect();
        let has = |kind: &str| kinds.iter().any(|k| k == kind);
        let journal = common::cut(&w.journal, cut).await;
        let clock = Arc::new(ManualClock::at(NOW + 500));
        let w = start(journal, clock, taking(9, two_of_ops())).await;
        let waiting = has("approval_requested") && !has("approval_responded");
        assert_eq!(w.found.reopened, usize::from(waiting), "after {kinds:?}");
        assert_eq!(w.ran(), 0, "something ran by itself after {kinds:?}");
        if !waiting {
            continue;
        }
        let hold = w.held().await;
        assert_eq!(hold.votes.len(), usize::from(has("approval_voted")), "{kinds:?}");
        let claimed = has("approval_claimed") && !has("approval_released");
        assert_eq!(hold.claim.is_some(), claimed, "{kinds:?}");
        // carol alone is enough just where ada's answer is on record.
        let first = approve(&w, ops("carol")).await;
        if has("approval_voted") {
            assert_eq!(first, APPROVED, "{kinds:?}");
        } else {
            assert_eq!(first, Ok(Ok(1)), "{kinds:?}");
            assert_eq!(approve(&w, ops("ada")).await, APPROVED, "{kinds:?}");
        }
        let (request, votes, _) = decided(&w).await;
        assert_eq!(votes.len(), 2);
        assert!(request.met_by(&votes, request.fingerprint, NOW + 500), "{votes:?}");
    }
}

#[tokio::test]
async fn a_quorum_on_record_without_its_decision_is_decided_at_the_next_start() {
    let w = world_with(taking(1, two_of_ops())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    let hold = w.held().await;
    // Both answers are on their way, so that each is recorded as one of several.
    w.journal.parks.send_replace(Some(".vote.".into()));
    let vote = |who: &'static str| {
        let (kernel, id) = (w.kernel.clone(), hold.id.clone());
        tokio::spawn(async move { kernel.vote(&id, ops(who), yes(), None).await })
    };
    let votes = [vote("ada"), vote("bob")];
    settle().await;
    w.journal.parks.send_replace(Some(".responded".into()));
    until(async || steps(&w).await.len() == 2).await;
    votes.iter().for_each(tokio::task::JoinHandle::abort);
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, taking(2, two_of_ops())).await;
    until(async || w.kernel.queue().pending().is_empty()).await;
    let (_, outcome) = w.kernel.queue().find(&hold.id).unwrap();
    assert_eq!(outcome.unwrap().status, HoldStatus::Approved);
    assert_eq!(decided(&w).await.1.len(), 2);
    assert_eq!(w.ran(), 0, "nobody has sent the call again");
    let again = w.call("write", json!({"file": "a"})).await;
    assert_eq!((again.envelope.status, w.ran()), (EnvelopeStatus::Success, 1));
}

#[tokio::test]
async fn other_rules_after_a_restart_do_not_lower_what_was_asked() {
    let w = world_with(taking(1, two_of_ops())).await;
    let _call = w.spawn("write", json!({"file": "a"}));
    w.held().await;
    let (journal, clock) = w.crash().await;
    let w = start(journal, clock, common::seed(2)).await;
    let any = approve(&w, of("eve", &["approvers"])).await;
    assert_eq!(any, refused(Refusal::NoGroup("eve".into())));
    assert_eq!(approve(&w, ops("ada")).await, Ok(Ok(1)));
}
