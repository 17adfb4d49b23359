//! What the queue promises about who decides: quorum, delegation, escalation, edits, claims.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Decision, DecisionKind, Factor, GrantTerms, HoldPolicy, HoldPolicyError, HoldStatus,
};
use countersign_escalation::{
    Change, Delegation, EscalationQueue, Limits, Notifiers, QueueEventKind, Refusal, ResolveError,
    SubscriptionError, Voted, Voter,
};
use countersign_ports::notifier::{Notice, NoticeKind, Notifier, NotifyError};
use tokio::time::Instant;

use crate::common::*;

const APPROVED: Result<Result<usize, HoldStatus>, ResolveError> = Ok(Err(HoldStatus::Approved));

fn refused<T>(refusal: Refusal) -> Result<T, ResolveError> {
    Err(ResolveError::Refused(refusal))
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_met_by_distinct_people_only() {
    let b = bench();
    let waiting = b.hold_under(1, 60, policy(&[("ops", 2), ("security", 1)]));
    assert_eq!(b.approve(1, of("ada", &["ops", "security"])).await, Ok(Ok(1)));
    let again = b.approve(1, of("ada", &["security"])).await;
    assert_eq!(again, refused(Refusal::AlreadyVoted("ada".into())));
    assert_eq!(b.approve(1, of("bob", &["ops"])).await, Ok(Ok(2)));
    let listed = &b.queue.pending()[0];
    assert_eq!(listed.votes.len(), 2, "whoever looks sees who has approved");
    assert_eq!(listed.policy.as_ref().unwrap().factors().len(), 2);
    let outsider = b.approve(1, of("dan", &["sales"])).await;
    assert_eq!(outsider, refused(Refusal::NoGroup("dan".into())));
    assert_eq!(b.approve(1, of("eve", &["ops"])).await, APPROVED);
    assert_eq!(waiting.outcome().await.unwrap().decision.as_ref().unwrap().1.id, "eve");
    let (held, _) = b.queue.find_held(&id(1)).unwrap();
    assert_eq!((held.votes().len(), held.status()), (3, HoldStatus::Approved));
    assert_eq!(b.recorded(), [HoldStatus::Approved]);
    assert_eq!(*b.sink.changes.lock().unwrap(), [Change::Voted, Change::Voted]);
}

#[tokio::test(start_paused = true)]
async fn people_are_given_to_factors_as_they_fit() {
    let b = bench();
    // Whoever could do both is kept for what only they can do, in whatever order they come.
    let all = [("ada", vec!["a", "b", "c"]), ("bob", vec!["a", "b"]), ("eve", vec!["a"])];
    for (n, order) in
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate()
    {
        let n = n as u32;
        let _waiting = b.hold_under(n, 60, policy(&[("a", 1), ("b", 1), ("c", 1)]));
        for (at, who) in order.into_iter().enumerate() {
            let (name, groups) = &all[who];
            let result = b.approve(n, of(name, groups)).await;
            assert_eq!(result, if at == 2 { APPROVED } else { Ok(Ok(at + 1)) });
        }
    }
    // Three people, but nobody left for the one of `b`.
    let _waiting = b.hold_under(9, 60, policy(&[("a", 2), ("b", 1)]));
    for name in ["ada", "bob", "eve"] {
        assert!(b.approve(9, of(name, &["a"])).await.unwrap().is_ok());
    }
    assert_eq!(b.approve(9, of("dan", &["b"])).await, APPROVED);
}

#[tokio::test(start_paused = true)]
async fn an_empty_group_never_satisfies() {
    let b = bench();
    let waiting = b.hold_under(1, 60, policy(&[("ops", 1), ("nobody", 1)]));
    for (counted, name) in ["ada", "bob", "eve"].into_iter().enumerate() {
        assert_eq!(b.approve(1, of(name, &["ops", ""])).await, Ok(Ok(counted + 1)));
    }
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Expired);
    let none = HoldPolicy::new(Vec::new());
    assert_eq!(none, Err(HoldPolicyError::NoFactors));
    assert_eq!(Factor::new("ops", 0), Err(HoldPolicyError::ZeroCount("ops".into())));
    assert_eq!(Factor::new("", 1), Err(HoldPolicyError::Name(String::new())));
    let step = policy(&[("ops", 1)]).escalating(5, Vec::new());
    assert_eq!(step, Err(HoldPolicyError::NoFactors));
    for json in [
        r#"{"factors":[]}"#,
        r#"{"factors":[{"group":"ops","count":0}]}"#,
        r#"{"factors":[{"group":"","count":1}]}"#,
        r#"{"factors":[{"group":"ops","count":1}],"escalate":[{"after_ms":1,"factors":[]}]}"#,
        r#"{"factors":[{"group":"ops","count":1}],"anything_else":true}"#,
    ] {
        assert!(serde_json::from_str::<HoldPolicy>(json).is_err(), "{json}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_requester_never_counts_and_neither_does_whom_the_policy_excludes() {
    let b = bench();
    let excluding = policy(&[("ops", 1)]).excluding(vec!["owner".into()]).unwrap();
    let _waiting = [b.hold(1, 60), b.hold_under(2, 60, excluding)];
    for (n, decision) in
        [(1, DecisionKind::Approve), (2, DecisionKind::Approve), (2, DecisionKind::Deny)]
    {
        let own = b.decide(n, decision, "agent.a").await;
        assert_eq!(own, Err(ResolveError::OwnRequest));
    }
    let own = b.approve(2, of("agent.a", &["ops"])).await;
    assert_eq!(own, Err(ResolveError::OwnRequest));
    let owner = b.approve(2, of("owner", &["ops"])).await;
    assert_eq!(owner, refused(Refusal::Excluded("owner".into())));
    // Nor by way of somebody else.
    for (delegator, error) in [
        ("agent.a", ResolveError::OwnRequest),
        ("owner", ResolveError::Refused(Refusal::Excluded("owner".into()))),
    ] {
        assert_eq!(b.approve(2, for_(delegator, "ada", 0, u64::MAX)).await, Err(error));
    }
    let edited = b.queue.edit(&id(2), person("agent.a"), edit("other")).await;
    assert_eq!(edited.unwrap_err(), ResolveError::OwnRequest);
    assert_eq!(b.queue.pending().len(), 2);
}

fn for_(delegator: &str, delegate: &str, from: u64, until: u64) -> Voter {
    let delegation = Delegation::new(delegator, delegate, from, until).unwrap();
    Voter { on_behalf_of: Some(delegation), ..of(delegate, &["ops"]) }
}

#[tokio::test(start_paused = true)]
async fn an_expired_delegation_does_not_count() {
    let b = bench();
    let _waiting = b.hold_under(1, 60, policy(&[("ops", 1)]));
    let refused = || refused(Refusal::NotDelegated("bob".into()));
    assert_eq!(b.approve(1, for_("ada", "bob", 0, START)).await, refused());
    assert_eq!(b.approve(1, for_("ada", "bob", START + 1, u64::MAX)).await, refused());
    let others = Voter { approver: person("bob"), ..for_("ada", "eve", 0, u64::MAX) };
    assert_eq!(b.approve(1, others).await, refused());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(b.approve(1, for_("ada", "bob", START + 1, START + 2)).await, APPROVED);
    let (hold, _) = b.queue.find(&id(1)).unwrap();
    assert_eq!(hold.votes[0].on_behalf_of.as_deref(), Some("ada"));
    assert!(Delegation::new("ada", "bob", 5, 5).is_err());
    assert!(Delegation::new("ada", "ada", 5, 6).is_err());
}

#[tokio::test(start_paused = true)]
async fn those_who_stand_behind_a_delegated_vote_count_once() {
    let b = bench();
    let delegated = |delegate: &str| for_("ada", delegate, 0, u64::MAX);
    // bob for ada, and then each who would make a person count twice.
    for (n, second) in
        [of("ada", &["ops"]), of("bob", &["ops"]), delegated("eve")].into_iter().enumerate()
    {
        let (n, who) = (n as u32, second.approver.id.clone());
        let _waiting = b.hold_under(n, 60, policy(&[("ops", 2)]));
        assert_eq!(b.approve(n, delegated("bob")).await, Ok(Ok(1)));
        assert_eq!(b.approve(n, second).await, refused(Refusal::AlreadyVoted(who)));
        assert_eq!(b.approve(n, of("dan", &["ops"])).await, APPROVED);
    }
}

#[tokio::test(start_paused = true)]
async fn one_denial_ends_a_hold_whatever_was_approved() {
    let b = bench();
    let waiting = b.hold_under(1, 60, policy(&[("ops", 3)]));
    b.approve(1, of("ada", &["ops"])).await.unwrap().unwrap();
    // Also by somebody whose approval would not count, and by one who has approved.
    assert_eq!(b.decide(1, DecisionKind::Deny, "ada").await, Ok(HoldStatus::Denied));
    assert_eq!(waiting.outcome().await.unwrap().decision.as_ref().unwrap().1.id, "ada");
}

#[tokio::test(start_paused = true)]
async fn an_approval_without_a_group_does_not_release_what_a_policy_guards() {
    let b = bench();
    let _waiting = b.hold_under(1, 60, policy(&[("ops", 1)]));
    let resolved = b.decide(1, DecisionKind::Approve, "ada").await;
    assert_eq!(resolved, refused(Refusal::NoGroup("ada".into())));
    assert_eq!(b.recorded(), []);
}

/// Who was told: of what, and after how many steps of escalation.
struct Bell(Arc<Mutex<Vec<(NoticeKind, u32)>>>);

#[async_trait]
impl Notifier for Bell {
    fn name(&self) -> &str {
        "bell"
    }

    async fn notify(&self, notice: Arc<Notice>) -> Result<(), NotifyError> {
        self.0.lock().unwrap().push((notice.kind, notice.hold.escalated));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn escalation_widens_after_its_time_and_tells() {
    use NoticeKind::{Escalated, Held};
    let told = Arc::new(Mutex::new(Vec::new()));
    let notifiers =
        Notifiers::new(|_| ()).with(Arc::new(Bell(told.clone())), Duration::from_secs(1));
    let (limits, sink) = (Limits::default(), sink(1 << 20));
    let queue = EscalationQueue::with_notifiers(tokio_clock(), sink.clone(), limits, notifiers);
    let b = Bench { queue, sink };
    let steps = policy(&[("ops", 2)])
        .escalating(10_000, factors(&[("leads", 1)]))
        .unwrap()
        .escalating(20_000, factors(&[("ops", 1), ("board", 1)]))
        .unwrap();
    let waiting = b.hold_under(1, 60, steps);
    let start = Instant::now();
    b.approve(1, of("ada", &["ops"])).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(9_990)).await;
    let early = b.approve(1, of("eve", &["leads"])).await;
    assert_eq!(early, refused(Refusal::NoGroup("eve".into())));
    assert_eq!(*told.lock().unwrap(), [(Held, 0)]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(*told.lock().unwrap(), [(Held, 0), (Escalated, 1)]);
    assert_eq!(b.queue.pending()[0].escalated, 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(b.queue.pending()[0].escalated, 2);
    assert_eq!(b.approve(1, of("dan", &["board"])).await, APPROVED, "with what ada said before");
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    assert!(start.elapsed() < Duration::from_secs(21));

    // What was not enough is enough when the time comes.
    let both = policy(&[("ops", 2)]).escalating(5_000, factors(&[("leads", 1)])).unwrap();
    let created = START + start.elapsed().as_millis() as u64;
    let waiting = b.admit(60).under(Arc::new(both)).hold(request(2, created));
    b.approve(2, of("ada", &["ops", "leads"])).await.unwrap().unwrap();
    let start = Instant::now();
    assert_eq!(waiting.outcome().await.unwrap().decision.as_ref().unwrap().1.id, "ada");
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_edit_resets_votes_and_answers_to_what_was_shown_before_do_not_count() {
    let b = bench();
    let waiting = b.hold_under(1, 60, policy(&[("ops", 2)]));
    let asked = Digest::of("asked");
    b.approve(1, of("ada", &["ops"])).await.unwrap().unwrap();
    let same = b.queue.edit(&id(1), person("eve"), edit("asked")).await;
    assert_eq!(same.unwrap_err(), ResolveError::Refused(Refusal::SameCall));
    let held = b.queue.edit(&id(1), person("eve"), edit("other")).await.unwrap();
    assert_eq!((held.approvals().len(), held.votes().len()), (0, 1));
    let action = held.to_action();
    assert_eq!((action.fingerprint, action.edited_from), (Some(Digest::of("other")), Some(asked)));
    assert_eq!((action.summary.as_str(), action.reason.as_str()), ("other", "manifest"));
    assert_eq!(action.context_snapshot, serde_json::json!({"edited": "other"}));
    let approve = || answer(DecisionKind::Approve);
    let old = b.queue.vote(&id(1), of("bob", &["ops"]), approve(), Some(asked)).await;
    assert_eq!(old.unwrap_err(), ResolveError::Refused(Refusal::OtherCall));
    let seen = Some(Digest::of("other"));
    let voted = b.queue.vote(&id(1), of("bob", &["ops"]), approve(), seen).await.unwrap();
    assert!(matches!(voted, Voted::Counted(_)), "one of two");
    assert_eq!(b.approve(1, of("ada", &["ops"])).await, APPROVED, "ada looked again");
    waiting.outcome().await.unwrap();
    let changes = b.sink.changes.lock().unwrap().clone();
    assert_eq!(changes, [Change::Voted, Change::Edited(person("eve")), Change::Voted]);
    // Changed back, it is not what was looked at then.
    let _waiting = b.hold_under(3, 60, policy(&[("ops", 2)]));
    b.approve(3, of("ada", &["ops"])).await.unwrap().unwrap();
    b.queue.edit(&id(3), person("eve"), edit("other")).await.unwrap();
    let held = b.queue.edit(&id(3), person("eve"), edit("asked")).await.unwrap();
    assert_eq!((held.fingerprint(), held.approvals().len()), (Some(asked), 0));
    let voted = b.approve(3, of("bob", &["ops"])).await.unwrap();
    assert_eq!(voted.err(), None, "one of two");
    assert_eq!(b.approve(3, of("ada", &["ops"])).await, APPROVED, "ada looked again");
    // The agent that asks again asks for what it asked first.
    let _waiting = b.hold(2, 60);
    b.queue.edit(&id(2), person("eve"), edit("other")).await.unwrap();
    assert_eq!(b.queue.find_call(&agent(), &asked).unwrap().id(), &id(2));
    assert!(b.queue.find_call(&agent(), &Digest::of("other")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_visible_keeps_others_from_claiming_and_ends() {
    let b = bench();
    let _waiting = [b.hold(1, 60), b.hold(2, 60)];
    let claim = async |n, who: &str, secs| {
        b.queue.claim(&id(n), person(who), Duration::from_secs(secs)).await
    };
    claim(1, "ada", 10).await.unwrap();
    let listed = b.queue.pending()[0].claim.clone().unwrap();
    assert_eq!((listed.by.id.as_str(), listed.until.as_str()), ("ada", "1970-01-01T00:16:50Z"));
    let other = claim(1, "bob", 10).await.unwrap_err();
    assert_eq!(other, ResolveError::Refused(Refusal::Claimed("ada".into())));
    assert_eq!(claim(1, "agent.a", 10).await.unwrap_err(), ResolveError::OwnRequest);
    let other = b.queue.unclaim(&id(1), person("bob")).await.unwrap_err();
    assert_eq!(other, ResolveError::Refused(Refusal::NotClaimed("bob".into())));
    let mut events = b.queue.subscribe(None);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(b.queue.pending()[0].claim, None, "its time is over");
    assert_eq!(events.next().await.unwrap().kind, QueueEventKind::Unclaimed);
    claim(1, "bob", 3600).await.unwrap();
    let listed = b.queue.pending()[0].clone();
    assert_eq!(listed.claim.unwrap().until, listed.expires_at, "never longer than the hold");
    b.queue.unclaim(&id(1), person("bob")).await.unwrap();
    claim(1, "bob", 3600).await.unwrap();
    assert_eq!(b.decide(1, DecisionKind::Approve, "ada").await, Ok(HoldStatus::Approved));
    let late = claim(1, "bob", 10).await.unwrap_err();
    assert!(matches!(late, ResolveError::AlreadyResolved(_)), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_vote_counts_once_it_is_recorded_and_one_that_is_not_does_not() {
    let b = bench_with(Limits::default(), tokio_clock(), 0);
    let waiting = b.hold_under(1, 60, policy(&[("ops", 2)]));
    let vote = |who: &'static str| b.approve(1, of(who, &["ops"]));
    let (mut first, mut second) = (Box::pin(vote("ada")), Box::pin(vote("bob")));
    tokio::select! {
        biased;
        _ = &mut first => panic!("not recorded yet"),
        _ = &mut second => panic!("not recorded yet"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(b.queue.list_pending()[0].votes().len(), 0, "nobody sees it");
    // Both were one of two when they were recorded; together they are enough.
    drop(first);
    b.sink.gate.add_permits(3);
    assert_eq!(second.await, APPROVED);
    assert_eq!(waiting.outcome().await.unwrap().status, HoldStatus::Approved);
    assert_eq!(b.queue.find_held(&id(1)).unwrap().0.votes().len(), 2);

    b.sink.gate.add_permits(100);
    b.sink.fails.store(true, Ordering::SeqCst);
    let _waiting = b.hold_under(2, 60, policy(&[("ops", 2)]));
    let lost = b.approve(2, of("ada", &["ops"])).await.unwrap_err();
    assert_eq!(lost, ResolveError::NotCounted("no room".into()));
    b.sink.fails.store(false, Ordering::SeqCst);
    assert_eq!(b.approve(2, of("bob", &["ops"])).await, Ok(Ok(1)));
    assert_eq!(b.approve(2, of("ada", &["ops"])).await, APPROVED);
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_given_by_one_approver_alone() {
    let b = bench();
    let _waiting =
        [b.hold_under(1, 60, policy(&[("ops", 2)])), b.hold_under(2, 60, policy(&[("ops", 1)]))];
    let terms = GrantTerms { max_uses: 5, valid_for_ms: 1000, any_value_of: Vec::new() };
    let for_session = || Decision { grant: Some(terms.clone()), ..answer(DecisionKind::Approve) };
    let vote =
        async |n, who: &str| b.queue.vote(&id(n), of(who, &["ops"]), for_session(), None).await;
    let shared = ResolveError::Refused(Refusal::SharedGrant);
    assert_eq!(vote(1, "ada").await.unwrap_err(), shared);
    b.approve(1, of("ada", &["ops"])).await.unwrap().unwrap();
    assert_eq!(vote(1, "bob").await.unwrap_err(), shared);
    assert!(matches!(vote(2, "ada").await.unwrap(), Voted::Ended(_)));
}

#[tokio::test(start_paused = true)]
async fn events_are_numbered_and_can_be_resumed() {
    let b = bench();
    let mut events = b.queue.subscribe(None);
    let _waiting = b.hold_under(1, 60, policy(&[("ops", 2)]));
    b.approve(1, of("ada", &["ops"])).await.unwrap().unwrap();
    b.queue.edit(&id(1), person("eve"), edit("other")).await.unwrap();
    b.decide(1, DecisionKind::Deny, "ada").await.unwrap();
    use QueueEventKind::{Edited, Ended, Held, Voted};
    let all = [Held, Voted, Edited, Ended(HoldStatus::Denied)];
    for (at, kind) in all.into_iter().enumerate() {
        let event = events.next().await.unwrap();
        assert_eq!((event.seq, event.kind, event.id), (at as u64 + 1, kind, id(1)));
    }
    let mut resumed = b.queue.subscribe(Some(2));
    assert_eq!(resumed.next().await.unwrap().kind, Edited);
    assert_eq!(resumed.seen(), 3);
    let waits = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
    assert!(waits.is_err(), "nothing has happened");
    for n in 0..9_000 {
        drop(b.queue.enqueue(agent(), Duration::from_secs(9), request(100 + n, START)).unwrap());
        tokio::task::yield_now().await;
    }
    let missed = 4 + 18_000 - 16_384;
    assert_eq!(b.queue.subscribe(Some(0)).next().await, Err(SubscriptionError::Missed(missed)));
    assert_eq!(events.next().await, Err(SubscriptionError::Missed(missed - 4)));
    assert_eq!(events.next().await.unwrap().seq, missed + 1);
    b.queue.close();
    let mut last = b.queue.subscribe(None);
    assert_eq!(last.next().await, Err(SubscriptionError::Closed));
}
