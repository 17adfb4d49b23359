//! The approval broker: what is durable when, how questions end, and what an answer cannot do.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::{CountDrop, Gate, journal, settle, until};
use countersign_core::approval::{
    ApprovalDecision, ApprovalDecisionKind as Kind, ApprovalEvent, ApprovalGrant,
    ApprovalLifecycleStatus, ApprovalOutcome, ApprovalRecord, ApprovalRequest,
    ApprovalTerminalStatus as Terminal, DecisionRefused, DispatcherScope,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{EffectClass, EffectTerminalStatus as Effect, RiskClass};
use countersign_core::hold::{Factor, HoldPolicy};
use countersign_core::id::{
    AgentId, ApprovalRequestId, ContentRef, EffectId, RefId, RunId, RuntimePackageFingerprint,
    ToolCallId, TurnId,
};
use countersign_core::journal::JournalPayload;
use countersign_core::refs::{
    DestinationKind, DestinationRef, PolicyKind, PolicyRef, SourceKind, SourceRef, TrustClass,
};
use countersign_kernel::{
    Answer, ApprovalBroker, ApprovalDispatcher, AskError, Asked, Brake, DispatchError,
    HookCoordinator, Question, SettleError,
};
use countersign_ports::journal::Content;
use countersign_ports::memory::ManualClock;
use tokio::time::Instant;

/// A dispatcher that is a closure.
struct Ask<F>(F);

#[async_trait]
impl<F, A> ApprovalDispatcher for Ask<F>
where
    F: Fn(Asked) -> A + Send + Sync,
    A: Future<Output = Result<(), DispatchError>> + Send,
{
    async fn dispatch(&self, asked: Asked) -> Result<(), DispatchError> {
        (self.0)(asked).await
    }
}

/// Answers this.
fn says(decision: ApprovalDecision) -> impl ApprovalDispatcher {
    Ask(move |asked: Asked| {
        let decision = decision.clone();
        async move {
            asked.settle(decision).await.unwrap();
            Ok(())
        }
    })
}

struct Rig {
    journal: Arc<Gate>,
    clock: Arc<ManualClock>,
    broker: ApprovalBroker,
}

fn rig() -> Rig {
    let (journal, clock) = (journal(), Arc::new(ManualClock::at(1_000_000)));
    let hooks = HookCoordinator::new(Vec::new(), journal.clone(), clock.clone(), 1).unwrap();
    let package = RuntimePackageFingerprint::new("fp");
    let broker = ApprovalBroker::new(journal.clone(), clock.clone(), hooks, package);
    Rig { journal, clock, broker }
}

impl Rig {
    async fn ask(
        &self,
        dispatcher: Option<&dyn ApprovalDispatcher>,
    ) -> Result<ApprovalOutcome, AskError> {
        self.broker.ask(question(), dispatcher).await
    }

    fn spawn(
        &self,
        dispatcher: impl ApprovalDispatcher + 'static,
    ) -> tokio::task::JoinHandle<Result<ApprovalOutcome, AskError>> {
        let broker = self.broker.clone();
        tokio::spawn(async move { broker.ask(question(), Some(&dispatcher)).await })
    }

    async fn approvals(&self) -> Vec<ApprovalRecord> {
        let payloads = self.journal.records().await.into_iter().map(|record| record.payload);
        let approvals = payloads.map(|payload| match payload {
            JournalPayload::Approval(approval) => approval,
            other => panic!("{other:?}"),
        });
        approvals.collect()
    }

    async fn kinds(&self) -> Vec<String> {
        let records = self.journal.records().await.into_iter();
        records.map(|record| record.event_index.event_kind).collect()
    }
}

const OPENING: [&str; 2] = ["approval_requested", "approval_dispatch_intent"];

fn id() -> ApprovalRequestId {
    ApprovalRequestId::new("approval.1").unwrap()
}

fn source(kind: SourceKind, id: &str) -> SourceRef {
    SourceRef::new(kind, RefId::new(id).unwrap())
}

fn ada() -> SourceRef {
    source(SourceKind::User, "ada")
}

fn token(token: &str) -> ApprovalDecision {
    ApprovalDecision::from_finite_token(token, ada()).unwrap()
}

fn request() -> ApprovalRequest {
    ApprovalRequest {
        approval_request_id: id(),
        approval_dispatch_effect_id: EffectId::new("effect.approval.1").unwrap(),
        run_id: RunId::new("run.1").unwrap(),
        session_id: None,
        agent_id: AgentId::new("agent.a").unwrap(),
        turn_id: TurnId::new("turn.1").unwrap(),
        tool_call_id: ToolCallId::new("call.1").unwrap(),
        source: source(SourceKind::ExternalRuntime, "agent.a"),
        destination: DestinationRef::new(DestinationKind::Tool, RefId::new("tool.write").unwrap()),
        canonical_tool_name: "write".into(),
        tool_source: source(SourceKind::Tool, "tool.write"),
        effect_class: EffectClass::Process,
        risk_class: RiskClass::Medium,
        requested_args_ref: ContentRef::new(Digest::of("{}").to_string()).unwrap(),
        redacted_args_summary: "file=a".into(),
        policy_refs: vec![PolicyRef {
            kind: PolicyKind::Approval,
            id: RefId::new("policy.approval.manifest").unwrap(),
            version: None,
        }],
        dispatcher_scope: DispatcherScope::Host,
        timeout_ms: 60_000,
        allowed_decisions: vec![Kind::Approved, Kind::ApprovedForSession, Kind::Denied],
        created_at_millis: 1_000_000,
        runtime_package_fingerprint: RuntimePackageFingerprint::new("fp"),
        fingerprint: Some(Digest::of("the call")),
        rendering_digest: Some(Digest::of("the rendering")),
        presentation: None,
        hold_policy: None,
    }
}

fn most() -> ApprovalGrant {
    let arguments = [("file", "a"), ("mode", "w")];
    ApprovalGrant {
        agent_id: AgentId::new("agent.a").unwrap(),
        session: RefId::new("run.1").unwrap(),
        canonical_tool_name: "write".into(),
        manifest_digest: "sha256:m".into(),
        policy_digest: Digest::of("policy"),
        arguments: arguments.map(|(name, value)| (name.to_owned(), Digest::of(value))).into(),
        any_value_of: BTreeSet::new(),
        max_uses: 5,
        expires_at_millis: 2_000_000,
    }
}

fn question() -> Question {
    let contents = vec![Content::new(b"{}".to_vec())];
    Question { request: request(), contents, coverable: Some(most()), brake: Brake::default() }
}

fn granting(grant: ApprovalGrant) -> ApprovalDecision {
    match token("approved_for_session") {
        ApprovalDecision::ApprovedForSession { actor_ref, .. } => {
            ApprovalDecision::ApprovedForSession {
                actor_ref,
                reason: None,
                decided_at_millis: None,
                fingerprint: None,
                rendering_digest: None,
                grant: Some(Box::new(grant)),
            }
        }
        other => other,
    }
}

#[tokio::test]
async fn a_question_is_durable_before_the_dispatcher_sees_it_and_its_end_before_ask_returns() {
    let w = rig();
    w.journal.permits.forget_permits(usize::MAX);
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let asking = w.spawn(Ask(move |asked: Asked| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_eq!(*asked.request(), request());
            asked.settle(token("approved")).await.unwrap();
            Ok(())
        }
    }));
    settle().await;
    assert_eq!(seen.load(Ordering::SeqCst), 0, "seen before it was durable");
    w.journal.permits.add_permits(1);
    until(async || seen.load(Ordering::SeqCst) == 1).await;
    assert_eq!(w.kinds().await, OPENING);
    settle().await;
    assert!(!asking.is_finished(), "released before it was durable");
    w.journal.permits.add_permits(1);
    assert!(asking.await.unwrap().unwrap().releases_tool());
    let batches = w.journal.batches.lock().unwrap().clone();
    let ids =
        |parts: [&str; 2]| parts.map(|part| format!("journal.record.approval.approval.1.{part}"));
    assert_eq!(batches, [ids(["requested", "intent"]), ids(["responded", "result"])]);
}

/// Whoever settles: an approval that shows no quorum releases nothing, a denial needs none.
#[tokio::test]
async fn no_dispatcher_can_do_without_the_people_a_request_asks_for() {
    let policy = HoldPolicy::new(vec![Factor::new("ops", 2).unwrap()]).unwrap();
    for (answer, released) in [("approved", None), ("denied", Some(false))] {
        let w = rig();
        let dispatcher = Ask(move |asked: Asked| async move {
            let settled = asked.settle(token(answer)).await;
            assert_eq!(settled.is_ok(), released.is_some(), "{settled:?}");
            if let Err(error) = settled {
                assert_eq!(error, SettleError::NotEnough);
            }
            Ok(())
        });
        let mut question = question();
        question.request.hold_policy = Some(Box::new(policy.clone()));
        let outcome = w.broker.ask(question, Some(&dispatcher)).await.unwrap();
        assert!(!outcome.releases_tool(), "{outcome:?}");
    }
}

type Ending = (&'static str, Terminal, Effect, &'static str);

#[tokio::test(start_paused = true)]
async fn every_ending_is_recorded_as_the_contract_says() {
    let failing = |error: DispatchError| {
        Ask(move |_| {
            let error = error.clone();
            async move { Err(error) }
        })
    };
    let dispatchers: Vec<(Option<Box<dyn ApprovalDispatcher>>, Ending)> = vec![
        (
            Some(Box::new(says(token("approved")))),
            ("approved", Terminal::Approved, Effect::Completed, "approval.approved"),
        ),
        (
            Some(Box::new(says(token("approved_for_session")))),
            (
                "approved for the session",
                Terminal::ApprovedForSession,
                Effect::Completed,
                "approval.approved_for_session",
            ),
        ),
        (
            Some(Box::new(says(token("denied")))),
            ("denied", Terminal::Denied, Effect::DeniedBeforeExecution, "approval.denied"),
        ),
        (
            Some(Box::new(Ask(|_| std::future::pending()))),
            ("unanswered", Terminal::TimedOut, Effect::TimedOut, "approval.timeout"),
        ),
        (
            None,
            ("without dispatcher", Terminal::Denied, Effect::Failed, "missing.approval_dispatcher"),
        ),
        (
            Some(Box::new(failing(DispatchError::Unavailable("pager.off".into())))),
            ("unavailable", Terminal::DispatcherUnavailable, Effect::Failed, "pager.off"),
        ),
        (
            Some(Box::new(failing(DispatchError::Failed("broken".into())))),
            (
                "failing",
                Terminal::DispatcherUnavailable,
                Effect::Failed,
                "approval.dispatcher_error",
            ),
        ),
        (
            Some(Box::new(Ask(|_| async { panic!("told to") }))),
            (
                "panicking",
                Terminal::DispatcherUnavailable,
                Effect::Failed,
                "approval.dispatcher_error",
            ),
        ),
        (
            Some(Box::new(Ask(|_| async { Ok(()) }))),
            (
                "silent",
                Terminal::DispatcherUnavailable,
                Effect::Failed,
                "approval.dispatcher_error",
            ),
        ),
    ];
    for (dispatcher, (case, terminal, effect, code)) in dispatchers {
        let w = rig();
        let outcome = w.ask(dispatcher.as_deref()).await.unwrap();
        assert_eq!((outcome.status, outcome.reason_code.as_str()), (terminal, code), "{case}");
        assert_eq!(outcome.releases_tool(), effect == Effect::Completed, "{case}");
        let records = w.approvals().await;
        let [_, _, answer, ApprovalRecord::DispatchResult { lifecycle_status, effect_result, .. }] =
            &records[..]
        else {
            panic!("{case}: {records:?}")
        };
        assert_eq!(*lifecycle_status, ApprovalLifecycleStatus::from(terminal), "{case}");
        assert_eq!(effect_result.terminal_status, effect, "{case}");
        let error = (!outcome.releases_tool()).then_some(code);
        assert_eq!(effect_result.error_ref.as_deref(), error, "{case}");
        match answer {
            ApprovalRecord::Responded { decision, .. } => {
                assert_eq!(outcome.decision.as_ref(), Some(decision), "{case}");
                assert_eq!(decision.actor_ref(), Some(&ada()), "{case}");
            }
            ApprovalRecord::Denied { reason_code, .. } => {
                assert_eq!((outcome.decision, reason_code.as_str()), (None, code), "{case}");
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_asked_and_who_answered_are_on_record_with_all_they_said() {
    let w = rig();
    let denied = ApprovalDecision::Denied {
        reason_code: "policy.four_eyes".into(),
        actor_ref: Some(SourceRef { redacted_summary: Some("Ada".into()), ..ada() }),
        reason: Some("not on a friday".into()),
        decided_at_millis: None,
        fingerprint: None,
        rendering_digest: None,
    };
    let outcome = w.ask(Some(&says(denied))).await.unwrap();
    assert_eq!(
        (outcome.status, outcome.reason_code.as_str()),
        (Terminal::Denied, "policy.four_eyes")
    );
    let records = w.approvals().await;
    let ApprovalRecord::Requested { request: asked } = &records[0] else { panic!() };
    assert_eq!(**asked, request());
    let ApprovalRecord::DispatchIntent { effect_intent, .. } = &records[1] else { panic!() };
    assert_eq!(effect_intent.redacted_summary, "approval dispatch for write: file=a");
    assert_eq!(effect_intent.content_refs, [request().requested_args_ref]);
    let ApprovalRecord::Responded { decision, .. } = &records[2] else { panic!() };
    let expected = ApprovalDecision::Denied {
        reason_code: "policy.four_eyes".into(),
        actor_ref: Some(SourceRef { redacted_summary: Some("Ada".into()), ..ada() }),
        reason: Some("not on a friday".into()),
        decided_at_millis: Some(1_000_000),
        fingerprint: Some(Digest::of("the call")),
        rendering_digest: Some(Digest::of("the rendering")),
    };
    assert_eq!(*decision, expected);
}

#[tokio::test]
async fn an_answer_that_does_not_count_leaves_the_question_open() {
    let agent = |trust| SourceRef {
        trust,
        redacted_summary: Some("somebody else entirely".into()),
        ..source(SourceKind::ExternalRuntime, "agent.a")
    };
    let by = |actor| ApprovalDecision::from_finite_token("approved", actor).unwrap();
    let own = DecisionRefused::OwnRequest { who: RefId::new("agent.a").unwrap() };
    let not_allowed = DecisionRefused::NotAllowed { answer: Kind::ApprovedForSession };
    for (decision, refused) in [
        (by(agent(TrustClass::HostProvided)), Some(own.clone())),
        (by(agent(TrustClass::Untrusted)), Some(own)),
        // Another kind of party, or another id, is somebody else.
        (by(source(SourceKind::User, "agent.a")), None),
        (by(source(SourceKind::ExternalRuntime, "agent.b")), None),
        (token("approved_for_session"), Some(not_allowed)),
        (token("denied"), None),
    ] {
        let w = rig();
        let tried = Arc::new(Mutex::new(None));
        let (result, given) = (tried.clone(), decision.clone());
        let dispatcher = Ask(move |asked: Asked| {
            let (result, given) = (result.clone(), given.clone());
            async move {
                *result.lock().unwrap() = Some(asked.settle(given).await);
                // It is still open if the first answer did not count.
                let _ = asked.settle(token("denied")).await;
                Ok(())
            }
        });
        let allowed_decisions = vec![Kind::Approved, Kind::Denied];
        let request = ApprovalRequest { allowed_decisions, ..request() };
        let question = Question { request, ..question() };
        let outcome = w.broker.ask(question, Some(&dispatcher)).await.unwrap();
        let tried = tried.lock().unwrap().take().unwrap();
        assert_eq!(tried.err(), refused.clone().map(SettleError::Refused), "{decision:?}");
        let counted = if refused.is_some() { Kind::Denied } else { decision.kind() };
        assert_eq!(outcome.decision.unwrap().kind(), counted, "{decision:?}");
        assert_eq!(w.approvals().await.len(), 4, "{decision:?}");
    }
}

#[tokio::test]
async fn a_question_is_settled_once() {
    let w = rig();
    let dispatcher = Ask(|asked: Asked| async move {
        // At the same time, and once more afterwards.
        let (first, second) =
            tokio::join!(asked.settle(token("denied")), asked.settle(token("approved")));
        assert_eq!(first.unwrap().status, Terminal::Denied);
        let second = second.unwrap_err();
        assert!(matches!(second, SettleError::Ended(_) | SettleError::Unknown(_)), "{second}");
        let third = asked.settle(token("approved")).await;
        assert_eq!(third.unwrap_err(), SettleError::Unknown(id()));
        Ok(())
    });
    let outcome = w.ask(Some(&dispatcher)).await.unwrap();
    assert_eq!(outcome.status, Terminal::Denied);
    assert_eq!(w.approvals().await.len(), 4);
    let late = w.broker.settle(&id(), Answer::Decided(token("approved"))).await;
    assert_eq!(late.unwrap_err(), SettleError::Unknown(id()));
}

#[tokio::test]
async fn a_dispatcher_cannot_say_what_was_decided_about_or_when() {
    let forged = |decided_at_millis| ApprovalDecision::Approved {
        actor_ref: ada(),
        reason: None,
        decided_at_millis: Some(decided_at_millis),
        fingerprint: Some(Digest::of("another call")),
        rendering_digest: Some(Digest::of("something harmless")),
    };
    let w = rig();
    w.clock.advance(Duration::from_secs(1));
    let outcome = w.ask(Some(&says(forged(999)))).await.unwrap();
    let Some(ApprovalDecision::Approved {
        decided_at_millis, fingerprint, rendering_digest, ..
    }) = outcome.decision
    else {
        panic!()
    };
    assert_eq!(decided_at_millis, Some(1_001_000));
    assert_eq!(fingerprint, request().fingerprint);
    assert_eq!(rendering_digest, request().rendering_digest);
    // An answer that comes when the time is over is none, whatever time it carries.
    let w = rig();
    let clock = w.clock.clone();
    let late = Ask(move |asked: Asked| {
        let (clock, forged) = (clock.clone(), forged(1_000_001));
        async move {
            clock.advance(Duration::from_secs(60));
            asked.settle(forged).await.map(drop).map_err(|e| DispatchError::Failed(e.to_string()))
        }
    });
    let outcome = w.ask(Some(&late)).await.unwrap();
    assert_eq!((outcome.status, outcome.decision), (Terminal::TimedOut, None));
}

#[tokio::test]
async fn an_answer_cannot_cover_more_than_the_call_allows() {
    let argument = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), Digest::of(value))]);
    for (case, grant, counts) in [
        ("as it is", most(), true),
        ("less", ApprovalGrant { max_uses: 1, expires_at_millis: 1_500_000, ..most() }, true),
        ("any value of one", ApprovalGrant { arguments: argument("file", "a"), ..most() }, true),
        ("any value", ApprovalGrant { arguments: BTreeMap::new(), ..most() }, true),
        ("agent", ApprovalGrant { agent_id: AgentId::new("agent.b").unwrap(), ..most() }, false),
        ("session", ApprovalGrant { session: RefId::new("run.2").unwrap(), ..most() }, false),
        ("tool", ApprovalGrant { canonical_tool_name: "wipe".into(), ..most() }, false),
        ("manifest", ApprovalGrant { manifest_digest: "sha256:n".into(), ..most() }, false),
        ("policy", ApprovalGrant { policy_digest: Digest::of("other"), ..most() }, false),
        ("value", ApprovalGrant { arguments: argument("file", "b"), ..most() }, false),
        ("argument", ApprovalGrant { arguments: argument("size", "a"), ..most() }, false),
        ("uses", ApprovalGrant { max_uses: 6, ..most() }, false),
        ("no uses", ApprovalGrant { max_uses: 0, ..most() }, false),
        ("time", ApprovalGrant { expires_at_millis: 2_000_001, ..most() }, false),
    ] {
        for coverable in [Some(most()), None] {
            let w = rig();
            let (counts, asked_for) = (counts && coverable.is_some(), granting(grant.clone()));
            let broker = w.broker.clone();
            let dispatcher = Ask(move |asked: Asked| {
                let (broker, decision) = (broker.clone(), asked_for.clone());
                async move {
                    let checked = broker.check(&id(), &decision);
                    let settled = asked.settle(decision).await;
                    assert_eq!(checked.err(), settled.clone().err(), "{case}");
                    match settled {
                        Ok(_) => assert!(counts, "{case}"),
                        Err(SettleError::Grant(_)) => assert!(!counts, "{case}"),
                        Err(other) => panic!("{case}: {other}"),
                    }
                    // What covered too much has ended nothing.
                    let _ = asked.settle(token("denied")).await;
                    Ok(())
                }
            });
            let question = Question { coverable, ..question() };
            let outcome = w.broker.ask(question, Some(&dispatcher)).await.unwrap();
            assert_eq!(outcome.releases_tool(), counts, "{case}");
            let grants = w.broker.grants();
            let grants: Vec<_> = grants.iter().map(|status| &status.grant).collect();
            assert_eq!(grants, if counts { vec![&grant] } else { vec![] }, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_that_hangs_is_ended_at_the_deadline() {
    let w = rig();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = dropped.clone();
    let hanging = Ask(move |asked: Asked| {
        let guard = CountDrop(counted.clone());
        async move {
            let _kept = (asked, guard);
            std::future::pending().await
        }
    });
    let before = Instant::now();
    w.clock.advance(Duration::from_secs(20));
    let outcome = w.ask(Some(&hanging)).await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(40), "the time it took to ask counts too");
    assert_eq!((outcome.status, dropped.load(Ordering::SeqCst)), (Terminal::TimedOut, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_that_keeps_the_deadline_itself_is_left_alone() {
    struct Patient;
    #[async_trait]
    impl ApprovalDispatcher for Patient {
        async fn dispatch(&self, asked: Asked) -> Result<(), DispatchError> {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            asked.settle(token("approved")).await.unwrap();
            Ok(())
        }
        fn keeps_deadline(&self) -> bool {
            true
        }
    }
    let w = rig();
    assert_eq!(w.ask(Some(&Patient)).await.unwrap().status, Terminal::Approved);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_being_recorded_at_the_deadline_stands() {
    let w = rig();
    w.journal.permits.forget_permits(usize::MAX);
    w.journal.permits.add_permits(1);
    let asking = w.spawn(says(token("approved")));
    until(async || w.kinds().await.len() == 2).await;
    // In time, but the journal is slow.
    tokio::time::sleep(Duration::from_secs(61)).await;
    w.clock.advance(Duration::from_secs(61));
    w.journal.permits.add_permits(100);
    assert_eq!(asking.await.unwrap().unwrap().status, Terminal::Approved);
    assert_eq!(w.kinds().await[2..], ["approval_responded", "approval_dispatch_result"]);
}

#[tokio::test]
async fn an_answer_that_was_handed_to_the_journal_is_followed_up_though_nobody_waits() {
    let w = rig();
    w.journal.permits.forget_permits(usize::MAX);
    w.journal.permits.add_permits(1);
    let asking = w.spawn(says(granting(most())));
    until(async || w.kinds().await.len() == 2).await;
    settle().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    w.journal.permits.add_permits(100);
    until(async || w.broker.grants().len() == 1).await;
    assert_eq!(w.kinds().await.len(), 4);
    let again = w.broker.settle(&id(), Answer::Decided(token("denied"))).await;
    assert_eq!(again.unwrap_err(), SettleError::Unknown(id()));
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_releases_nothing() {
    let w = rig();
    let journal = w.journal.clone();
    let dispatcher = Ask(move |asked: Asked| {
        let journal = journal.clone();
        async move {
            journal.fails.store(true, Ordering::SeqCst);
            let settled = asked.settle(granting(most())).await;
            assert!(matches!(settled, Err(SettleError::NotRecorded(_))), "{settled:?}");
            Ok(())
        }
    });
    let error = w.ask(Some(&dispatcher)).await.unwrap_err();
    assert!(matches!(&error, AskError::NotRecorded(why) if why.contains("disk full")), "{error}");
    assert_eq!((w.broker.grants(), w.kinds().await.len()), (Vec::new(), 2));
    // The question is still open, and can be ended when there is room again.
    w.journal.fails.store(false, Ordering::SeqCst);
    let ended = w.broker.settle(&id(), Answer::Decided(token("denied"))).await.unwrap();
    assert_eq!((ended.status, w.kinds().await.len()), (Terminal::Denied, 4));
}

#[tokio::test]
async fn a_question_that_is_not_valid_or_not_recorded_is_not_put() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let counting = Ask(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let w = rig();
    let request = ApprovalRequest { allowed_decisions: Vec::new(), ..request() };
    let invalid = w.broker.ask(Question { request, ..question() }, Some(&counting)).await;
    assert!(matches!(invalid, Err(AskError::Invalid(_))), "{invalid:?}");
    w.journal.fails.store(true, Ordering::SeqCst);
    let unrecorded = w.ask(Some(&counting)).await;
    assert!(matches!(unrecorded, Err(AskError::NotRecorded(_))), "{unrecorded:?}");
    assert_eq!((seen.load(Ordering::SeqCst), w.journal.records().await.len()), (0, 0));
}

#[tokio::test]
async fn calling_off_and_stopping() {
    let w = rig();
    let asking = w.spawn(Ask(|_| std::future::pending()));
    until(async || w.kinds().await.len() == 2).await;
    let gone = Answer::Unanswered(ApprovalEvent::CallOff, "approval.cancelled".into());
    until(async || w.broker.check(&id(), &token("approved")).is_ok()).await;
    let outcome = w.broker.settle(&id(), gone).await.unwrap();
    assert_eq!(outcome.status, Terminal::Cancelled);
    let records = w.approvals().await;
    let ApprovalRecord::DispatchResult { effect_result, .. } = &records[3] else { panic!() };
    assert_eq!(effect_result.terminal_status, Effect::Cancelled);
    asking.abort();
    // A process that stops ends nothing.
    let w = rig();
    let stopping = w.ask(Some(&Ask(|_| async { Err(DispatchError::Stopping) }))).await;
    assert!(matches!(stopping, Err(AskError::Stopping)), "{stopping:?}");
    assert_eq!(w.kinds().await, OPENING);
}
