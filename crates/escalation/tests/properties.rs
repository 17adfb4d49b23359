//! Whatever is done with the queue, it does what a list of holds would do, one after the other.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::{DecisionKind, HoldPolicy, HoldStatus};
use countersign_core::id::AgentId;
use countersign_escalation::{Cursor, Limits, ResolveError, Voted, Waiting};
use proptest::prelude::*;

use crate::common::*;

const LIMITS: Limits =
    Limits { total: 6, per_agent: 4, finished: 1000, finished_for: Duration::from_secs(1 << 30) };

/// Two of ops within the first ten seconds; then one of the leads is enough too.
fn two_of_ops() -> HoldPolicy {
    policy(&[("ops", 2)]).escalating(10_000, factors(&[("leads", 1)])).unwrap()
}

const PEOPLE: [(&str, &[&str]); 5] = [
    ("ada", &["ops"]),
    ("bob", &["ops", "leads"]),
    ("eve", &["leads"]),
    ("dan", &[]),
    ("agent.0", &["ops", "leads"]),
];

#[derive(Clone, Debug)]
enum Action {
    Enqueue { agent: usize, millis: u64, quorum: bool, kept: bool },
    Vote { hold: usize, who: usize, deny: bool, seen: Option<u8> },
    Edit { hold: usize, who: usize, to: u8 },
    Claim { hold: usize, who: usize, millis: u64 },
    Unclaim { hold: usize, who: usize },
    Drop { hold: usize },
    Join { hold: usize },
    Advance { millis: u64 },
    Page { limit: usize },
}

fn actions() -> impl Strategy<Value = Action> {
    let (hold, who) = (0usize..8, 0usize..PEOPLE.len());
    let to = 0u8..3;
    prop_oneof![
        4 => (0usize..2, 1u64..30_000, any::<bool>(), any::<bool>())
            .prop_map(|(agent, millis, quorum, kept)| Action::Enqueue { agent, millis, quorum, kept }),
        6 => (hold.clone(), who.clone(), prop::bool::weighted(0.2), prop::option::of(to.clone()))
            .prop_map(|(hold, who, deny, seen)| Action::Vote { hold, who, deny, seen }),
        1 => (hold.clone(), who.clone(), to)
            .prop_map(|(hold, who, to)| Action::Edit { hold, who, to }),
        2 => (hold.clone(), who.clone(), 0u64..20_000)
            .prop_map(|(hold, who, millis)| Action::Claim { hold, who, millis }),
        1 => (hold.clone(), who).prop_map(|(hold, who)| Action::Unclaim { hold, who }),
        1 => hold.clone().prop_map(|hold| Action::Drop { hold }),
        1 => hold.prop_map(|hold| Action::Join { hold }),
        3 => prop_oneof![1u64..50, 1u64..20_000].prop_map(|millis| Action::Advance { millis }),
        2 => (1usize..5).prop_map(|limit| Action::Page { limit }),
    ]
}

/// A hold of the model: what there is to know about it, and nothing clever.
#[derive(Clone, Debug)]
struct Naive {
    agent: usize,
    created: u64,
    expires: u64,
    quorum: bool,
    kept: bool,
    waiters: usize,
    call: u8,
    votes: Vec<(usize, u8)>,
    claim: Option<(usize, u64)>,
    ended: Option<HoldStatus>,
}

impl Naive {
    fn counted(&self) -> Vec<usize> {
        self.votes.iter().filter(|(_, call)| *call == self.call).map(|(who, _)| *who).collect()
    }

    fn late(&self, now: u64) -> bool {
        now >= self.created + 10_000
    }

    fn enough(&self, now: u64) -> bool {
        let of =
            |group| self.counted().iter().filter(|who| PEOPLE[**who].1.contains(&group)).count();
        of("ops") >= 2 || (self.late(now) && of("leads") >= 1)
    }

    fn own(&self, who: usize) -> bool {
        PEOPLE[who].0 == format!("agent.{}", self.agent)
    }

    /// What time alone does until `now`, moment by moment.
    fn pass(&mut self, now: u64) {
        if self.ended.is_some() {
            return;
        }
        let opens = self.created + 10_000;
        if self.quorum && opens < self.expires && now >= opens && self.enough(opens) {
            self.ended = Some(HoldStatus::Approved);
        } else if now >= self.expires {
            self.ended = Some(HoldStatus::Expired);
        }
        self.claim = self.claim.filter(|(_, until)| now < *until);
    }
}

/// What a person is told, as a word.
fn told<T>(result: &Result<T, ResolveError>) -> String {
    match result {
        Ok(_) => "yes".into(),
        Err(ResolveError::AlreadyResolved(resolved)) => format!("{:?}", resolved.outcome.status),
        Err(ResolveError::Expired(_)) => "Expired".into(),
        Err(ResolveError::OwnRequest | ResolveError::Refused(_)) => "no".into(),
        Err(error) => panic!("{error}"),
    }
}

struct World {
    bench: Bench,
    start: tokio::time::Instant,
    model: Vec<Naive>,
    waiting: Vec<Vec<Waiting>>,
}

impl World {
    fn now(&self) -> u64 {
        START + self.start.elapsed().as_millis() as u64
    }

    /// What the model says to a person before anything else.
    fn answer(naive: &Naive, who: usize) -> Option<String> {
        match naive.ended {
            Some(status) => Some(format!("{status:?}")),
            None => naive.own(who).then(|| "no".into()),
        }
    }

    async fn act(&mut self, action: Action) {
        let now = self.now();
        let queue = self.bench.queue.clone();
        match action {
            Action::Enqueue { agent, millis, quorum, kept } => {
                let open = |naive: &&Naive| naive.ended.is_none();
                let all = self.model.iter().filter(open).count();
                let own = self.model.iter().filter(|n| n.agent == agent).filter(open).count();
                let id = AgentId::new(format!("agent.{agent}")).unwrap();
                let place = queue.admit(id, Duration::from_millis(millis));
                let full = all >= LIMITS.total || own >= LIMITS.per_agent;
                assert_eq!(place.is_err(), full);
                let Ok(mut place) = place else { return };
                if quorum {
                    place = place.under(Arc::new(two_of_ops()));
                }
                if kept {
                    place = place.kept();
                }
                let mut request = request(self.model.len() as u32, now);
                request.fingerprint = Some(Digest::of([0]));
                self.waiting.push(vec![place.hold(request)]);
                let expires = now + millis;
                let (votes, claim, ended) = (Vec::new(), None, None);
                let (created, call, waiters) = (now, 0, 1);
                self.model.push(Naive {
                    agent,
                    created,
                    expires,
                    quorum,
                    kept,
                    waiters,
                    call,
                    votes,
                    claim,
                    ended,
                });
            }
            Action::Vote { hold, who, deny, seen } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                let expected = Self::answer(naive, who).unwrap_or_else(|| {
                    if seen.is_some_and(|seen| seen != naive.call) {
                        return "no".into();
                    }
                    if deny || !naive.quorum {
                        let (yes, no) = (HoldStatus::Approved, HoldStatus::Denied);
                        naive.ended = Some(if deny { no } else { yes });
                        return "yes".into();
                    }
                    let groups = PEOPLE[who].1;
                    let asked =
                        groups.contains(&"ops") || (naive.late(now) && groups.contains(&"leads"));
                    if !asked || naive.counted().contains(&who) {
                        return "no".into();
                    }
                    naive.votes.push((who, naive.call));
                    if naive.enough(now) {
                        naive.ended = Some(HoldStatus::Approved);
                    }
                    "yes".into()
                });
                let decision = if deny { DecisionKind::Deny } else { DecisionKind::Approve };
                let (voter, seen) =
                    (of(PEOPLE[who].0, PEOPLE[who].1), seen.map(|n| Digest::of([n])));
                let voted = queue.vote(&id(hold as u32), voter, answer(decision), seen).await;
                assert_eq!(told(&voted), expected);
                if let Ok(voted) = voted {
                    assert_eq!(matches!(voted, Voted::Ended(_)), naive.ended.is_some());
                }
            }
            Action::Edit { hold, who, to } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                let expected = Self::answer(naive, who).unwrap_or_else(|| {
                    let other = naive.call != to;
                    if other {
                        naive.call = to;
                        naive.votes.retain(|(_, call)| *call != to);
                    }
                    if other { "yes".into() } else { "no".into() }
                });
                let mut edit = edit("other");
                edit.fingerprint = Digest::of([to]);
                let edited = queue.edit(&id(hold as u32), person(PEOPLE[who].0), edit).await;
                assert_eq!(told(&edited), expected);
            }
            Action::Claim { hold, who, millis } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                let expected = Self::answer(naive, who).unwrap_or_else(|| match naive.claim {
                    Some((other, _)) if other != who => "no".into(),
                    _ => {
                        naive.claim = Some((who, (now + millis).min(naive.expires)));
                        "yes".into()
                    }
                });
                let (by, time) = (person(PEOPLE[who].0), Duration::from_millis(millis));
                assert_eq!(told(&queue.claim(&id(hold as u32), by, time).await), expected);
            }
            Action::Unclaim { hold, who } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                let expected = match naive.ended {
                    Some(status) => format!("{status:?}"),
                    None if naive.claim.is_some_and(|(by, _)| by == who) => {
                        naive.claim = None;
                        "yes".into()
                    }
                    None => "no".into(),
                };
                let by = person(PEOPLE[who].0);
                assert_eq!(told(&queue.unclaim(&id(hold as u32), by).await), expected);
            }
            Action::Drop { hold } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                if self.waiting[hold].pop().is_some() {
                    naive.waiters -= 1;
                    if naive.waiters == 0 && !naive.kept && naive.ended.is_none() {
                        naive.ended = Some(HoldStatus::Cancelled);
                    }
                }
            }
            Action::Join { hold } => {
                let Some(naive) = self.model.get_mut(hold) else { return };
                let joined = queue.join(&id(hold as u32));
                assert_eq!(joined.is_some(), naive.ended.is_none());
                naive.waiters += usize::from(joined.is_some());
                self.waiting[hold].extend(joined);
            }
            Action::Advance { millis } => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            Action::Page { limit } => {
                let (mut seen, mut cursor): (Vec<_>, Option<Cursor>) = (Vec::new(), None);
                loop {
                    let page = queue.page(cursor.as_ref(), limit);
                    assert!(page.holds.len() <= limit);
                    seen.extend(page.holds.iter().map(|held| held.id().clone()));
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
                let open = |(_, naive): &(usize, &Naive)| naive.ended.is_none();
                let all = self.model.iter().enumerate().filter(open);
                assert_eq!(seen, all.map(|(n, _)| id(n as u32)).collect::<Vec<_>>());
            }
        }
    }

    fn check(&mut self) {
        let now = self.now();
        self.model.iter_mut().for_each(|naive| naive.pass(now));
        for (n, naive) in self.model.iter().enumerate() {
            let (held, outcome) = self.bench.queue.find_held(&id(n as u32)).unwrap();
            assert_eq!(outcome.map(|outcome| outcome.status), naive.ended, "{n}: {naive:?}");
            assert_eq!(held.status(), naive.ended.unwrap_or(HoldStatus::Pending));
            if naive.ended.is_none() {
                let claim = naive.claim.map(|(who, _)| PEOPLE[who].0);
                assert_eq!(held.claim().map(|claim| claim.by.id.as_str()), claim);
                assert_eq!(held.approvals().len(), naive.counted().len());
            }
        }
        let open = self.model.iter().filter(|naive| naive.ended.is_none()).count();
        assert_eq!((self.bench.queue.len(), self.bench.queue.list_pending().len()), (open, open));
        let recorded = self.bench.recorded();
        assert_eq!(recorded.len(), self.model.len() - open, "each end is recorded once");
    }
}

proptest! {
    #[test]
    fn the_queue_does_what_a_list_would(actions in prop::collection::vec(actions(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let bench = bench_with(LIMITS, tokio_clock(), 1 << 20);
            let start = tokio::time::Instant::now();
            let mut world = World { bench, start, model: Vec::new(), waiting: Vec::new() };
            for action in actions {
                world.act(action).await;
                // The timer has its turn before the next moment is looked at.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                world.check();
            }
            for (naive, waiting) in world.model.iter().zip(world.waiting) {
                for waiting in waiting.into_iter().filter(|_| naive.ended.is_some()) {
                    assert_eq!(Some(waiting.outcome().await.unwrap().status), naive.ended);
                }
            }
        });
    }
}
