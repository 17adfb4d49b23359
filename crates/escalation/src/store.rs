//! All holds, and what happens to them: the machine's shell. Knows no tokio but what `sync`
//! lends it, so that every interleaving of its callers can be tried.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::BuildHasher as _;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::HoldStatus;
use countersign_core::id::{AgentId, ApprovalRequestId};
use countersign_ports::clock::Clock;
use countersign_ports::notifier::NoticeKind;
use tokio::sync::{Notify, watch};

use crate::contain::contained;
use crate::events::{EventLog, QueueEventKind};
use crate::held::Held;
use crate::index::Index;
use crate::machine::{Change, Effect, Event, Illegal, Outcome, State, step};
use crate::notify::{Notifiers, Worth};
use crate::parts::{Hashed, HashedMap, Parts, lock};
use crate::queue::{HoldError, Limits, RecordError, Recorder};
use crate::shard::{Hashes, Key, Live, Place, Shard, Wakers};
use crate::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Monotonic, Mutex, MutexGuard, Ordering, PARTS,
    RandomState, Spawner,
};
use crate::waiting::Pin;

/// Deadlines that are looked at before others get a turn.
const BATCH: usize = 256;

/// A wall clock that is ahead by more than this, in milliseconds, has jumped; by less, it
/// ticks a little faster.
const JUMP: i64 = 50;

/// How long people are told of an end, where that does not work at once.
const ENDED_FOR: Duration = Duration::from_secs(5 * 60);

/// When the timer looks next.
pub(crate) struct Wake {
    at: AtomicU64,
    pub(crate) earlier: Arc<Notify>,
}

impl Wake {
    /// In milliseconds on the monotonic clock.
    pub(crate) fn at(&self) -> u64 {
        self.at.load(Ordering::SeqCst)
    }

    fn by(&self, due: u64) {
        if due < self.at() {
            self.earlier.notify_one();
        }
    }
}

/// A shard and a slot of it as one number. `None` beyond half a billion holds of one shard:
/// those are not joined.
fn location(shard: u32, slot: u32) -> Option<u32> {
    slot.checked_mul(PARTS)?.checked_add(shard)
}

/// A hold before it is one.
pub(crate) struct Draft {
    pub(crate) held: Held,
    pub(crate) agent_hash: u64,
    pub(crate) timeout: Duration,
    pub(crate) kept: bool,
    pub(crate) waiters: u32,
}

pub(crate) struct Inner {
    // INVARIANT: whoever holds the lock of a shard may take that of `joins` or `events`, and
    // no other; whoever holds another lock takes none.
    shards: Parts<Shard>,
    /// Pending holds by who asks for what, each by its [`location`].
    pub(crate) joins: Parts<Index>,
    pub(crate) agents: Parts<HashedMap<Hashed<AgentId>, usize>>,
    admitted: AtomicUsize,
    finished: Mutex<VecDeque<(Key, u64)>>,
    hasher: RandomState,
    pub(crate) events: EventLog,
    pub(crate) changed: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    recorder: Arc<dyn Recorder>,
    notifiers: Option<Notifiers>,
    limits: Limits,
    pub(crate) monotonic: Monotonic,
    /// Wall time minus monotonic time, when it was looked at last.
    offset: Mutex<Option<i64>>,
    pub(crate) wake: Wake,
    closed: AtomicBool,
    pub(crate) spawner: Spawner,
}

/// What came of an event.
pub(crate) enum Applied {
    /// The hold goes on.
    Pending(Held),
    /// It has ended, or will as soon as that is recorded.
    Ending,
}

/// What came of what a person wants.
pub(crate) enum Begun {
    Applied(Applied),
    /// The hold would go on; that has to be recorded before the event is applied.
    Changing(Box<Changing>),
}

/// A change of a hold that goes on, before it is recorded.
pub(crate) struct Changing {
    /// As the hold would be.
    after: Held,
    change: Change,
    event: Event,
    /// When a person wanted it, in milliseconds since the Unix epoch.
    began: u64,
}

/// Why an event came to nothing.
pub(crate) enum Unapplied {
    /// The queue is closed.
    Closed,
    /// The hold is not kept any more.
    Gone,
    Illegal(Illegal),
}

/// A hold that has ended.
pub(crate) struct Ended {
    pub(crate) held: Held,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) failure: Option<Box<RecordError>>,
}

/// What is to be done when the lock is open again.
enum Then {
    Nothing,
    Record(Key, Held, Arc<Outcome>),
    Tell(Key, Held, Change),
    /// With the hash of its agent, and when it ended on the monotonic clock.
    Ended {
        key: Key,
        held: Held,
        agent: u64,
        at: u64,
    },
}

impl Inner {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        recorder: Arc<dyn Recorder>,
        limits: Limits,
        notifiers: Option<Notifiers>,
    ) -> Self {
        Self {
            shards: Parts::default(),
            joins: Parts::default(),
            agents: Parts::default(),
            admitted: AtomicUsize::new(0),
            finished: Mutex::default(),
            hasher: RandomState::default(),
            events: EventLog::default(),
            changed: watch::Sender::new(0),
            clock,
            recorder,
            notifiers,
            limits,
            monotonic: Monotonic::start(),
            offset: Mutex::default(),
            wake: Wake { at: AtomicU64::new(u64::MAX), earlier: Arc::default() },
            closed: AtomicBool::new(false),
            spawner: Spawner::here(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Has everybody look again. What is pending stays so.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for part in Parts::<Shard>::all() {
            let wakers = self.shards.lock(part).all_wakers();
            wakers.into_iter().for_each(Wakers::wake);
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Takes a place for one hold, if there is one.
    pub(crate) fn admit(&self, agent_id: AgentId) -> Result<Hashed<AgentId>, HoldError> {
        let full = |pending, limit, scope| {
            self.admitted.fetch_sub(1, Ordering::SeqCst);
            Err(HoldError::QueueFull { pending, limit, scope })
        };
        let limits = self.limits;
        let admitted = self.admitted.fetch_add(1, Ordering::SeqCst);
        if admitted >= limits.total {
            return full(admitted, limits.total, "");
        }
        let agent = self.hashed(agent_id);
        let mut agents = self.agents.lock(Parts::<()>::of(agent.hash));
        match agents.get_mut(&agent) {
            Some(own) if *own < limits.per_agent => *own += 1,
            None if limits.per_agent > 0 => drop(agents.insert(agent.clone(), 1)),
            own => {
                let own = own.map_or(0, |own| *own);
                drop(agents);
                return full(own, limits.per_agent, " for one agent");
            }
        }
        Ok(agent)
    }

    /// Takes a place for one hold, whatever the limits are.
    pub(crate) fn readmit(&self, agent_id: AgentId) -> Hashed<AgentId> {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        let agent = self.hashed(agent_id);
        *self.agents.lock(Parts::<()>::of(agent.hash)).entry(agent.clone()).or_insert(0) += 1;
        agent
    }

    fn hashed(&self, agent_id: AgentId) -> Hashed<AgentId> {
        Hashed { hash: self.hasher.hash_one(&agent_id), key: agent_id }
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, agent: &Hashed<AgentId>) {
        self.admitted.fetch_sub(1, Ordering::SeqCst);
        let mut agents = self.agents.lock(Parts::<()>::of(agent.hash));
        if let Some(own) = agents.get_mut(agent) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                agents.remove(agent);
            }
        }
    }

    fn call_hash(&self, agent_id: &AgentId, fingerprint: &Digest) -> u64 {
        self.hasher.hash_one((agent_id, fingerprint))
    }

    /// How many holds have a place.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::SeqCst)
    }

    /// Makes a hold visible, pinned for whoever waits, and returns where it is and under which
    /// token its waker can be left. A hold whose id is taken is not seen by anybody and denied.
    pub(crate) fn insert(self: &Arc<Self>, draft: Draft) -> (Key, u32) {
        let Draft { held, agent_hash, timeout, kept, waiters } = draft;
        let (wall, monotonic) = (self.clock.now_millis(), self.monotonic.millis());
        // A clock that has been set back since the hold was made gives it no more time than it
        // was allowed.
        let anchor = wall.max(held.created_at_millis());
        let call = held.asked_fingerprint();
        let call = call.map_or(0, |fingerprint| self.call_hash(held.agent_id(), &fingerprint));
        let hashes = Hashes { id: self.hasher.hash_one(held.id()), agent: agent_hash, call };
        let part = Parts::<Shard>::of(hashes.id);
        let mut shard = self.shards.lock(part);
        let taken = shard.find(hashes.id, held.id()).is_some();
        let state = match taken {
            false => State::Pending(held.clone()),
            true => {
                let status = HoldStatus::Denied;
                let (code, decision, at_millis) = ("approval.id_taken", None, anchor);
                let outcome = Arc::new(Outcome { status, code, decision, at_millis });
                State::Final(held.with_status(status), outcome)
            }
        };
        let mut live = Live::new(state, hashes, (anchor, monotonic), kept);
        let mut token = 0;
        for _ in 0..waiters {
            token = live.pin();
            live.waiters += 1;
        }
        live.evicted = taken;
        let due = live.due(wall, monotonic);
        let (slot, generation) = shard.put(live);
        let key = Key { shard: part, slot, generation };
        if taken {
            drop(shard);
            self.leave(&Hashed { hash: agent_hash, key: held.agent_id().clone() });
            return (key, token);
        }
        shard.list(slot, hashes.id, &held);
        shard.wheel.set(slot, due);
        if held.asked_fingerprint().is_some() {
            self.joinable(call, key);
        }
        self.events.push(anchor, held.id(), QueueEventKind::Held);
        drop(shard);
        self.wake.by(due);
        self.announce();
        let left = Duration::from_millis(held.expires_at_millis().saturating_sub(anchor));
        self.tell(key, &held, NoticeKind::Held, timeout.min(left));
        (key, token)
    }

    /// Has everybody told who wants to be.
    fn tell(self: &Arc<Self>, key: Key, held: &Held, kind: NoticeKind, left: Duration) {
        let Some(notifiers) = &self.notifiers else { return };
        let inner = Arc::downgrade(self);
        let worth = move || {
            let Some(inner) = inner.upgrade().filter(|inner| !inner.is_closed()) else {
                return Worth::Later;
            };
            let pending = inner.with(key, |live| matches!(live.state, State::Pending(_)));
            match kind == NoticeKind::Ended || pending == Some(true) {
                true => Worth::Trying,
                false => Worth::Nothing,
            }
        };
        notifiers.send(&self.spawner, held, kind, left, worth);
    }

    fn joinable(&self, hash: u64, key: Key) {
        if let Some(at) = location(key.shard, key.slot) {
            self.joins.lock(Parts::<()>::of(hash)).insert(hash, at);
        }
    }

    fn unjoinable(&self, hash: u64, key: Key) {
        if let Some(at) = location(key.shard, key.slot) {
            self.joins.lock(Parts::<()>::of(hash)).remove(hash, at);
        }
    }

    /// Has followers look. They subscribe before they look at the holds, so whoever is not
    /// seen here will see what has changed.
    fn announce(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_modify(|changes| *changes += 1);
        }
    }

    pub(crate) fn find(&self, id: &ApprovalRequestId) -> Option<Key> {
        self.find_locked(id).map(|(key, _)| key)
    }

    /// Where the hold is, with the lock that it is behind.
    fn find_locked(&self, id: &ApprovalRequestId) -> Option<(Key, MutexGuard<'_, Shard>)> {
        let hash = self.hasher.hash_one(id);
        let part = Parts::<Shard>::of(hash);
        let shard = self.shards.lock(part);
        let (slot, generation) = shard.find(hash, id)?;
        Some((Key { shard: part, slot, generation }, shard))
    }

    /// The pending holds of this agent for this call, the first one first.
    pub(crate) fn find_call(&self, agent_id: &AgentId, fingerprint: &Digest) -> Vec<Key> {
        let hash = self.call_hash(agent_id, fingerprint);
        let joins = self.joins.lock(Parts::<()>::of(hash));
        let locations: Vec<u32> = joins.find(hash).collect();
        drop(joins);
        let place = |at: u32| {
            let (part, slot) = (at % PARTS, at / PARTS);
            let mut shard = self.shards.lock(part);
            let (generation, live) = shard.in_slot(slot)?;
            let State::Pending(held) = &live.state else { return None };
            let same =
                held.agent_id() == agent_id && held.asked_fingerprint() == Some(*fingerprint);
            same.then(|| (Place::of(held), Key { shard: part, slot, generation }))
        };
        let mut found: Vec<_> = locations.into_iter().filter_map(place).collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// Looks at a hold under its lock.
    pub(crate) fn with<T>(&self, key: Key, look: impl FnOnce(&mut Live) -> T) -> Option<T> {
        self.shards.lock(key.shard).live(key).map(look)
    }

    /// Takes a pin back. The hold that goes with it is dropped outside the lock.
    pub(crate) fn unpin(&self, key: Key, token: u32) {
        let gone = self.shards.lock(key.shard).unpin(key, token);
        drop(gone);
    }

    /// Takes back the pin of one who waits. The last one to go cancels the hold.
    pub(crate) fn stop_waiting(self: &Arc<Self>, key: Key, token: u32) {
        let mut shard = self.shards.lock(key.shard);
        let Some(live) = shard.live(key) else { return };
        live.waiters = live.waiters.saturating_sub(1);
        let pending = matches!(live.state, State::Pending(_));
        if live.waiters == 0 && !live.kept && pending && !self.is_closed() {
            drop(shard);
            let _ = self.apply(key, Event::Abandon);
            shard = self.shards.lock(key.shard);
        }
        let gone = shard.unpin(key, token);
        drop(shard);
        drop(gone);
    }

    /// How the hold ended; otherwise leaves the waker under the token. `None` when it is not
    /// kept, which never comes while it is pinned.
    pub(crate) fn poll_ended(
        &self,
        key: Key,
        token: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Ended>> {
        let ended = self.with(key, |live| match &live.state {
            State::Final(held, outcome) => Some(Ended {
                held: held.clone(),
                outcome: Arc::clone(outcome),
                failure: live.failure.clone(),
            }),
            _ => {
                live.wake_with(token, cx.waker());
                None
            }
        });
        match ended {
            Some(None) => Poll::Pending,
            Some(ended) => Poll::Ready(ended),
            None => Poll::Ready(None),
        }
    }

    /// Pending holds of one part after a place, in order.
    pub(crate) fn page(
        &self,
        part: u32,
        after: Option<&Place>,
        limit: usize,
    ) -> Vec<(Place, Held)> {
        self.shards.lock(part).page(after, limit)
    }

    /// Applies an event.
    pub(crate) fn apply(self: &Arc<Self>, key: Key, event: Event) -> Result<Applied, Unapplied> {
        self.apply_begun(key, event, None)
    }

    /// Applies an event that began at a time: what is recorded of it is what counts, to the
    /// millisecond. Where the hold's own time is over by now, it is.
    fn apply_begun(
        self: &Arc<Self>,
        key: Key,
        event: Event,
        began: Option<u64>,
    ) -> Result<Applied, Unapplied> {
        let mut shard = self.shards.lock(key.shard);
        let (applied, then, wakers) = self.apply_locked(&mut shard, key, event, began)?;
        drop(shard);
        wakers.wake();
        self.follow_up(then);
        Ok(applied)
    }

    /// Pins a hold, and applies what a person wants if that ends it. Anything else comes back,
    /// so that it can be recorded first. `None` when there is no such hold.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: &ApprovalRequestId,
        event: Event,
    ) -> Option<(Pin, Result<Begun, Unapplied>)> {
        let (key, mut shard) = self.find_locked(id)?;
        let token = shard.live(key)?.pin();
        let begun = self.begin_locked(&mut shard, key, event);
        drop(shard);
        let pin = Pin::new(self, key, token);
        let begun = begun.map(|(begun, then, wakers)| {
            wakers.wake();
            self.follow_up(then);
            begun
        });
        Some((pin, begun))
    }

    fn begin_locked(
        &self,
        shard: &mut Shard,
        key: Key,
        event: Event,
    ) -> Result<(Begun, Then, Wakers), Unapplied> {
        let live = shard.live(key).ok_or(Unapplied::Gone)?;
        if self.is_closed() && !matches!(live.state, State::Final(..)) {
            return Err(Unapplied::Closed);
        }
        let ends = matches!(event, Event::Vote { .. }) && live.state.held().policy().is_none();
        if !ends {
            let now = live.now(self.clock.now_millis(), self.monotonic.millis());
            let stepped = step(&live.state, now, event.clone()).map_err(Unapplied::Illegal)?;
            if let (State::Pending(held), Some(Effect::Tell(change))) = stepped {
                let changing = Changing { after: held, change, event, began: now };
                return Ok((Begun::Changing(Box::new(changing)), Then::Nothing, Wakers::None));
            }
        }
        let (applied, then, wakers) = self.apply_locked(shard, key, event, None)?;
        Ok((Begun::Applied(applied), then, wakers))
    }

    fn apply_locked(
        &self,
        shard: &mut Shard,
        key: Key,
        event: Event,
        began: Option<u64>,
    ) -> Result<(Applied, Then, Wakers), Unapplied> {
        let live = shard.live(key).ok_or(Unapplied::Gone)?;
        let (wall, monotonic) = (self.clock.now_millis(), self.monotonic.millis());
        let now = live.now(wall, monotonic);
        let in_time = now < live.state.held().expires_at_millis();
        let now = began.filter(|_| in_time).unwrap_or(now);
        let (state, effect) = step(&live.state, now, event).map_err(Unapplied::Illegal)?;
        live.state = state;
        Ok(match effect {
            None => match &live.state {
                State::Pending(held) => {
                    (Applied::Pending(held.clone()), Then::Nothing, Wakers::None)
                }
                _ => (Applied::Ending, Then::Nothing, Wakers::None),
            },
            Some(Effect::Tell(change)) => {
                let (held, due) = (live.state.held().clone(), live.due(wall, monotonic));
                shard.wheel.set(key.slot, due);
                self.events.push(now, held.id(), QueueEventKind::from(&change));
                self.wake.by(due);
                (Applied::Pending(held.clone()), Then::Tell(key, held, change), Wakers::None)
            }
            Some(Effect::Record(outcome)) => {
                let held = live.state.held().clone();
                shard.wheel.unset(key.slot);
                (Applied::Ending, Then::Record(key, held, outcome), Wakers::None)
            }
            Some(Effect::Release(outcome)) => {
                let (held, wakers) = (live.state.held().clone(), live.take_wakers());
                let Hashes { agent, call, .. } = live.hashes;
                shard.unlist(&held);
                if held.asked_fingerprint().is_some() {
                    self.unjoinable(call, key);
                }
                self.events.push(now, held.id(), QueueEventKind::Ended(outcome.status));
                (Applied::Ending, Then::Ended { key, held, agent, at: monotonic }, wakers)
            }
        })
    }

    fn follow_up(self: &Arc<Self>, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Record(key, held, outcome) => self.record(key, held, outcome),
            Then::Tell(key, held, change) => {
                self.announce();
                if let Change::Escalated(_) = &change {
                    let left = held.expires_at_millis().saturating_sub(self.clock.now_millis());
                    let left = Duration::from_millis(left);
                    self.tell(key, &held, NoticeKind::Escalated, left);
                }
                if let Change::Escalated(_) = &change {
                    self.note(held, change);
                }
            }
            Then::Ended { key, held, agent, at } => {
                self.announce();
                self.tell(key, &held, NoticeKind::Ended, ENDED_FOR);
                self.leave(&Hashed { hash: agent, key: held.agent_id().clone() });
                self.finish(key, at);
            }
        }
    }

    /// Keeps an ended hold for a while, and lets the oldest go where there are too many.
    fn finish(&self, key: Key, at: u64) {
        let mut finished = lock(&self.finished);
        finished.push_back((key, at));
        let oldest = (finished.len() > self.limits.finished).then(|| finished.pop_front());
        drop(finished);
        if let Some((key, _)) = oldest.flatten() {
            let gone = self.shards.lock(key.shard).evict(key);
            drop(gone);
        }
    }

    /// Lets go of ended holds whose time is over.
    fn forget(&self, now: u64) {
        let keep = u64::try_from(self.limits.finished_for.as_millis()).unwrap_or(u64::MAX);
        loop {
            let mut finished = lock(&self.finished);
            let over = |(_, at): &(Key, u64)| now.saturating_sub(*at) >= keep;
            let Some((key, _)) = finished.pop_front_if(|entry| over(entry)) else { return };
            drop(finished);
            let gone = self.shards.lock(key.shard).evict(key);
            drop(gone);
        }
    }

    fn record(self: &Arc<Self>, key: Key, held: Held, outcome: Arc<Outcome>) {
        let inner = Arc::clone(self);
        self.run(Box::pin(async move {
            let recorded = contained(async { inner.recorder.record(&held, &outcome).await }).await;
            let event = match recorded.unwrap_or_else(panicked) {
                Ok(()) => Event::Recorded,
                Err(error) => {
                    let event = match &error {
                        RecordError::Failed(_) => Event::RecordFailed,
                        RecordError::Overruled { code, .. } => Event::Overruled(code),
                    };
                    inner.with(key, |live| live.failure = Some(Box::new(error)));
                    event
                }
            };
            // INVARIANT: only this task leaves the recording state, and a hold is not let go
            // before it has.
            let _ = inner.apply(key, event);
        }));
    }

    /// Has a change recorded, and then applies the event it comes from. What else has happened
    /// meanwhile counts: the event may end the hold now, or come too late.
    pub(crate) async fn record_change(
        self: &Arc<Self>,
        key: Key,
        changing: Box<Changing>,
    ) -> Result<Result<Applied, Unapplied>, RecordError> {
        let (done, result) = tokio::sync::oneshot::channel();
        let inner = Arc::clone(self);
        // Not in the caller's future: whoever votes may hang up meanwhile.
        self.run(Box::pin(async move {
            let Changing { after, change, event, began } = *changing;
            let recorded =
                contained(async { inner.recorder.record_change(&after, &change).await }).await;
            let applied = recorded
                .unwrap_or_else(panicked)
                .map(|()| inner.apply_begun(key, event, Some(began)));
            let _ = done.send(applied);
        }));
        result
            .await
            .unwrap_or_else(|_| Err(RecordError::Failed("the runtime is stopping".to_owned())))
    }

    /// Has recorded what follows from the policy and the time alone. It counts whether or not
    /// that succeeds: a verifier finds it again.
    fn note(self: &Arc<Self>, held: Held, change: Change) {
        let inner = Arc::clone(self);
        self.run(Box::pin(async move {
            let _ = contained(async { inner.recorder.record_change(&held, &change).await }).await;
        }));
    }

    /// Runs a task here as far as it goes at once, and the rest of it in the background.
    fn run(&self, mut task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        let _entered = self.spawner.enter();
        let mut cx = Context::from_waker(Waker::noop());
        if task.as_mut().poll(&mut cx).is_pending() {
            self.spawner.spawn(task);
        }
    }

    /// Looks at what is due, and says whether there is more. When not, [`Wake::at`] is when to
    /// look again, at most `latest` milliseconds from now.
    pub(crate) fn tick(self: &Arc<Self>, latest: u64) -> bool {
        // Whoever sets an earlier timer from here on says so.
        self.wake.at.store(u64::MAX, Ordering::SeqCst);
        let (wall, now) = (self.clock.now_millis(), self.monotonic.millis());
        self.forget(now);
        let jumped = self.jumped(wall, now);
        let mut next = now.saturating_add(latest);
        let mut more = false;
        for part in Parts::<Shard>::all() {
            let mut thens = Vec::new();
            let mut shard = self.shards.lock(part);
            if jumped {
                for slot in shard.pending_slots() {
                    let due = shard.in_slot(slot).and_then(|(_, live)| match live.state {
                        State::Pending(_) => Some(live.due(wall, now)),
                        _ => None,
                    });
                    due.into_iter().for_each(|due| shard.wheel.set(slot, due));
                }
            }
            if !self.is_closed() {
                let due = shard.wheel.expire(now, BATCH);
                more |= due.len() == BATCH;
                due.into_iter().for_each(|slot| self.fire(&mut shard, part, slot, &mut thens));
            }
            next = shard.wheel.next().unwrap_or(next).min(next);
            drop(shard);
            thens.into_iter().for_each(|then| self.follow_up(then));
        }
        // A deadline that the wall clock has not quite reached is looked at a little later.
        self.wake.at.store(next.max(now + 1), Ordering::SeqCst);
        more
    }

    fn fire(&self, shard: &mut Shard, part: u32, slot: u32, thens: &mut Vec<Then>) {
        let Some((generation, _)) = shard.in_slot(slot) else { return };
        let key = Key { shard: part, slot, generation };
        while let Ok((applied, then, _)) = self.apply_locked(shard, key, Event::Tick, None) {
            let told = matches!(then, Then::Tell(..));
            thens.push(then);
            match applied {
                Applied::Pending(_) if told => {}
                Applied::Pending(_) => {
                    let (wall, now) = (self.clock.now_millis(), self.monotonic.millis());
                    if let Some(due) = shard.live(key).map(|live| live.due(wall, now)) {
                        shard.wheel.set(slot, due.max(now + 1));
                    }
                    return;
                }
                Applied::Ending => return,
            }
        }
    }

    /// Whether the wall clock was set forward since the last look. A clock that was set back
    /// is followed: what counts is when it is set forward again.
    fn jumped(&self, wall: u64, now: u64) -> bool {
        let signed = |millis| i64::try_from(millis).unwrap_or(i64::MAX);
        let offset = signed(wall).saturating_sub(signed(now));
        let mut last = lock(&self.offset);
        match *last {
            Some(before) if offset.saturating_sub(before) > JUMP => {
                *last = Some(offset);
                true
            }
            before => {
                *last = Some(before.map_or(offset, |before| before.min(offset)));
                false
            }
        }
    }
}

fn panicked() -> Result<(), RecordError> {
    Err(RecordError::Failed("the recorder panicked".to_owned()))
}
