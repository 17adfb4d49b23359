//! Calls as those see them who make them: one that waits can be left and taken up again, and
//! equal ones share it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::digest::Digest;
use countersign_core::id::{AgentId, ApprovalRequestId, IdempotencyKey, ToolCallId};
use countersign_ports::mcp::McpCaller;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::govern::{Governed, Kernel};
use crate::policy::Rule;
use crate::records::OwnKey;
use crate::render::canonical;

/// Idempotency keys of ended calls that are known.
const KEYS_KEPT: usize = 10_000;

/// Outcomes that nobody heard, and are kept for whoever sends the call again.
const UNHEARD_KEPT: usize = 1_000;

/// Bytes of an outcome up to which it is kept under its key. A larger one is read from the
/// journal when it is asked for.
const OUTCOME_MAX: usize = 16 << 10;

/// How a call is made.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Whoever makes the call may go away without calling it off: what is held stays held, and
    /// what runs after it was held runs to its end. Its outcome is for whoever sends the same
    /// call again.
    pub kept: bool,
    /// Sent again under this key, a call is not made again: its recorded outcome is given.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The MCP client that makes the call. Of equal calls that share a hold, the first one's.
    pub mcp: Option<Arc<dyn McpCaller>>,
}

/// SHA-256 over what a call is sent with, as canonical JSON: a key stands for that, in whatever
/// order it was spelled.
#[must_use]
pub fn request_digest(tool: &str, arguments: &Map<String, Value>) -> Digest {
    #[derive(Serialize)]
    struct Sent<'a> {
        tool: &'a str,
        arguments: &'a Map<String, Value>,
    }
    Digest::of(canonical(&Sent { tool, arguments }))
}

/// Whether whoever makes a call is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// They went away, and may come back.
    Left,
    CalledOff,
}

/// Who makes a call, as the call sees them. Gone when nobody is there to say anything.
#[derive(Clone)]
pub(crate) struct Caller(watch::Receiver<Presence>);

impl Caller {
    pub(crate) fn presence(&self) -> Presence {
        match self.0.has_changed() {
            Err(_) if *self.0.borrow() == Presence::Here => Presence::CalledOff,
            _ => *self.0.borrow(),
        }
    }

    /// Returns when they are not there any more, and how they went.
    pub(crate) async fn gone(&self) -> Presence {
        let mut presence = self.0.clone();
        let _ = presence.wait_for(|presence| *presence != Presence::Here).await;
        self.presence()
    }
}

/// A call on its way.
///
/// Dropping it calls it off, unless it is [kept](CallOptions::kept): then it goes on.
pub struct Call {
    presence: watch::Sender<Presence>,
    kept: bool,
    hold: watch::Receiver<Option<ApprovalRequestId>>,
    task: JoinHandle<Governed>,
    told: Told,
    _there: watch::Sender<()>,
}

/// A shared outcome on its way to whoever makes the call.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Option<Telling>>>);

struct Telling {
    calls: Arc<Calls>,
    shared: Arc<Shared>,
    until: u64,
}

impl Told {
    /// The outcome is on its way. If nobody takes it, it is kept until a time.
    pub(crate) fn tell(
        &self,
        calls: &Arc<Calls>,
        shared: &Arc<Shared>,
        until: u64,
        caller: &Caller,
    ) {
        let (calls, shared) = (Arc::clone(calls), Arc::clone(shared));
        *lock(&self.0) = Some(Telling { calls, shared, until });
        // They left while it was on its way, and may have looked here before it was there.
        if caller.presence() == Presence::Left {
            self.unheard();
        }
    }

    fn heard(&self) {
        if let Some(Telling { calls, shared, .. }) = lock(&self.0).take() {
            calls.heard(&shared);
        }
    }

    fn unheard(&self) {
        if let Some(Telling { calls, shared, until }) = lock(&self.0).take() {
            calls.unheard(shared, until);
        }
    }
}

/// What a call has of whoever makes it.
pub(crate) struct Ends {
    pub(crate) caller: Caller,
    pub(crate) hold: watch::Sender<Option<ApprovalRequestId>>,
    pub(crate) told: Told,
    /// Closed when nobody waits any more, whether the call goes on or not.
    pub(crate) there: watch::Receiver<()>,
    pub(crate) mcp: Option<Arc<dyn McpCaller>>,
}

impl Call {
    pub(crate) fn start(
        kept: bool,
        mcp: Option<Arc<dyn McpCaller>>,
        run: impl FnOnce(Ends) -> JoinHandle<Governed>,
    ) -> Self {
        let (presence, caller) = watch::channel(Presence::Here);
        let (hold, held) = watch::channel(None);
        let (there, gone) = watch::channel(());
        let told = Told::default();
        let caller = Caller(caller);
        let task = run(Ends { caller, hold, told: told.clone(), there: gone, mcp });
        Self { presence, kept, hold: held, task, told, _there: there }
    }

    /// Waits for the outcome, which comes once. May be dropped and called again before that.
    ///
    /// # Errors
    /// When the call broke, which is a fault of the program.
    pub async fn outcome(&mut self) -> Result<Governed, tokio::task::JoinError> {
        let outcome = (&mut self.task).await;
        self.told.heard();
        outcome
    }

    /// The hold that the call waits for or has waited for: its id, once it is visible. Closed
    /// when the call has ended, or only waits for a person and whoever made it has left.
    #[must_use]
    pub fn hold(&self) -> watch::Receiver<Option<ApprovalRequestId>> {
        self.hold.clone()
    }

    /// Calls it off, kept or not: a hold that nobody else waits for is cancelled, a tool that
    /// runs is killed, and both are recorded. The outcome says so.
    pub fn call_off(&self) {
        self.presence.send_replace(Presence::CalledOff);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let how = if self.kept { Presence::Left } else { Presence::CalledOff };
        self.presence.send_if_modified(|presence| {
            let here = *presence == Presence::Here;
            if here {
                *presence = how;
            }
            here
        });
        if self.kept {
            self.told.unheard();
        }
    }
}

/// How a shared call ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// With this.
    Governed(Arc<Governed>),
    /// It was approved when nobody was there. The approval is kept, and whoever comes back
    /// makes the call with it.
    Parked,
}

#[derive(Default)]
struct Listeners {
    count: usize,
    /// Somebody was there when it was approved: it runs, or has run.
    running: bool,
    /// Somebody has its outcome.
    heard: bool,
}

/// A call that several may wait for.
pub(crate) struct Shared {
    question: Rule,
    /// Calls under different keys are different calls, though they are equal.
    own_key: Option<(IdempotencyKey, Digest)>,
    key: (AgentId, Digest),
    listeners: Mutex<Listeners>,
    pub(crate) hold: watch::Sender<Option<ApprovalRequestId>>,
    end: watch::Sender<Option<End>>,
    off: watch::Sender<bool>,
}

impl Shared {
    /// Returns when everybody who waited has called it off.
    pub(crate) async fn called_off(&self) {
        let mut off = self.off.subscribe();
        let _ = off.wait_for(|off| *off).await;
    }

    pub(crate) fn is_called_off(&self) -> bool {
        *self.off.borrow()
    }
}

/// One who waits for a shared call.
pub(crate) struct Listener {
    pub(crate) shared: Arc<Shared>,
    listening: bool,
}

impl Listener {
    /// Waits until the call has ended, or its caller is gone.
    pub(crate) async fn end(&mut self) -> End {
        let mut end = self.shared.end.subscribe();
        // INVARIANT: whoever ends a call says how, and the sender lives in `shared`.
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Parked)
    }

    /// Goes away. `true` when the call runs, and goes on.
    pub(crate) fn leave(&mut self) -> bool {
        let mut listeners = lock(&self.shared.listeners);
        if std::mem::take(&mut self.listening) {
            listeners.count = listeners.count.saturating_sub(1);
        }
        listeners.running
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.listening
    }

    /// Goes away and calls the call off, unless somebody else still wants it. `true` when it
    /// is called off.
    pub(crate) fn call_off(&mut self) -> bool {
        let mut listeners = lock(&self.shared.listeners);
        if std::mem::take(&mut self.listening) {
            listeners.count = listeners.count.saturating_sub(1);
        }
        // INVARIANT: with the listeners locked, so that nobody joins a call on its way off.
        if listeners.count == 0 {
            self.shared.off.send_replace(true);
        }
        listeners.count == 0
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What is known under an idempotency key.
enum Keyed {
    /// Somebody is making the call, or waits for it. It may have ended without their hearing.
    Making { made: watch::Receiver<()>, unheard: Option<ToolCallId> },
    /// Nobody is making it now: whoever sends the same again does. It was asked about before
    /// a restart, or else has not been since.
    Left(Option<ApprovalRequestId>),
    /// It has been made.
    Ended(Arc<Governed>),
    /// It has been made, and how it ended is in the journal.
    Recorded(ToolCallId),
}

/// The turn to make a call under a key. Dropped without an end, it is somebody else's.
pub(crate) struct Turn {
    calls: Arc<Calls>,
    key: (AgentId, IdempotencyKey),
    request: Digest,
    ended: bool,
    /// Closed after [`Drop`], so that whoever waits looks again when the table says what is so.
    _making: watch::Sender<()>,
}

/// Where the outcome of a call under a key is to be found.
pub(crate) enum Whereabouts {
    Ended(Arc<Governed>),
    Recorded(ToolCallId),
    /// It was asked about before a restart, and nobody has made it since.
    Asked(ApprovalRequestId),
}

/// What whoever sends a call under a key finds.
pub(crate) enum Found {
    /// Nothing: it is theirs to make.
    Turn(Turn),
    /// Another call has this key.
    Conflict,
    /// Somebody is making it: look again when this closes.
    Making(watch::Receiver<()>),
    Ended(Arc<Governed>),
    Recorded(ToolCallId),
}

/// The calls that can be joined.
#[derive(Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    /// Shared calls that have not ended, whether somebody waits for them or not.
    under_way: watch::Sender<usize>,
}

/// A shared call that is under way.
pub(crate) struct Counted(Arc<Calls>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[derive(Default)]
struct Table {
    shared: HashMap<(AgentId, Digest), Vec<Arc<Shared>>>,
    /// Ended with nobody there to hear it, the oldest first, and until when each is kept.
    unheard: VecDeque<(Arc<Shared>, u64)>,
    keyed: HashMap<(AgentId, IdempotencyKey), (Digest, Keyed)>,
    /// The keys that nobody is making a call under, each once, the oldest first.
    resting: VecDeque<(AgentId, IdempotencyKey)>,
}

impl Table {
    fn forget(&mut self, shared: &Arc<Shared>) {
        if let Some(of_key) = self.shared.get_mut(&shared.key) {
            of_key.retain(|other| !Arc::ptr_eq(other, shared));
            if of_key.is_empty() {
                self.shared.remove(&shared.key);
            }
        }
    }

    fn prune(&mut self, now: u64) {
        while let Some((shared, until)) = self.unheard.front() {
            if *until > now && self.unheard.len() <= UNHEARD_KEPT {
                return;
            }
            let shared = Arc::clone(shared);
            self.unheard.pop_front();
            self.forget(&shared);
        }
    }
}

impl Calls {
    /// Waits for the call if it can be joined: the same question about the same call of the
    /// same agent. If not, the call is the caller's to make, and others can join it: the
    /// second value says so.
    pub(crate) fn join(
        &self,
        agent_id: &AgentId,
        fingerprint: Digest,
        question: &Rule,
        own_key: Option<&(IdempotencyKey, Digest)>,
        now: u64,
    ) -> (Listener, bool) {
        let mut table = lock(&self.table);
        table.prune(now);
        let key = (agent_id.clone(), fingerprint);
        let of_key = table.shared.entry(key.clone()).or_default();
        let same = |shared: &&Arc<Shared>| {
            if shared.question != *question || shared.own_key.as_ref() != own_key {
                return false;
            }
            let mut listeners = lock(&shared.listeners);
            let joins = !shared.is_called_off();
            listeners.count += usize::from(joins);
            joins
        };
        if let Some(shared) = of_key.iter().find(same).cloned() {
            // Heard, by whoever joins now: the next such call is a new one.
            if shared.end.borrow().is_some() {
                table.forget(&shared);
                table.unheard.retain(|(other, _)| !Arc::ptr_eq(other, &shared));
            }
            return (Listener { shared, listening: true }, false);
        }
        let shared = Arc::new(Shared {
            question: question.clone(),
            own_key: own_key.cloned(),
            key,
            listeners: Mutex::new(Listeners { count: 1, ..Listeners::default() }),
            hold: watch::Sender::new(None),
            end: watch::Sender::new(None),
            off: watch::Sender::new(false),
        });
        of_key.push(Arc::clone(&shared));
        (Listener { shared, listening: true }, true)
    }

    /// Whether somebody waits for the call, so that its approval may be used. If not, the call
    /// cannot be joined any more, `park` is called before anybody can look for it again, and
    /// the call has ended.
    pub(crate) fn heard_or_parked(&self, shared: &Arc<Shared>, park: impl FnOnce()) -> bool {
        let mut table = lock(&self.table);
        let mut listeners = lock(&shared.listeners);
        // What all have called off is not kept: it is refused, which is recorded.
        if listeners.count > 0 || shared.is_called_off() {
            listeners.running = true;
            return true;
        }
        drop(listeners);
        park();
        table.forget(shared);
        drop(table);
        shared.end.send_replace(Some(End::Parked));
        false
    }

    /// Ends a shared call. An outcome that nobody is there to hear is kept until a time, in
    /// milliseconds since the Unix epoch; a mere failure is not.
    pub(crate) fn end(&self, shared: &Arc<Shared>, governed: Governed, until: u64) {
        let worth_keeping = governed.is_outcome();
        let mut table = lock(&self.table);
        // Its caller may have left, or be about to: the key stands for the call all the same.
        if let (Some((key, _)), Some(call)) = (&shared.own_key, &governed.call_id)
            && (worth_keeping || governed.may_have_run())
        {
            let key = (shared.key.0.clone(), key.clone());
            match table.keyed.get_mut(&key) {
                Some((_, keyed @ Keyed::Left(_))) => *keyed = Keyed::Recorded(call.clone()),
                Some((_, Keyed::Making { unheard, .. })) => *unheard = Some(call.clone()),
                _ => {}
            }
        }
        let unheard = lock(&shared.listeners).count == 0 && !shared.is_called_off();
        match unheard && worth_keeping {
            true => table.unheard.push_back((Arc::clone(shared), until)),
            false => table.forget(shared),
        }
        // INVARIANT: with the table locked, so that whoever joins sees that it has ended.
        shared.end.send_replace(Some(End::Governed(Arc::new(governed))));
        drop(table);
    }

    /// Keeps an outcome that somebody waited for and did not take, unless somebody else did.
    fn unheard(&self, shared: Arc<Shared>, until: u64) {
        let mut table = lock(&self.table);
        let kept = table.unheard.iter().any(|(other, _)| Arc::ptr_eq(other, &shared));
        if kept || lock(&shared.listeners).heard || shared.is_called_off() {
            return;
        }
        let of_key = table.shared.entry(shared.key.clone()).or_default();
        if !of_key.iter().any(|other| Arc::ptr_eq(other, &shared)) {
            of_key.push(Arc::clone(&shared));
        }
        table.unheard.push_back((shared, until));
    }

    /// Somebody has the outcome: it is kept for nobody else.
    fn heard(&self, shared: &Arc<Shared>) {
        let mut table = lock(&self.table);
        lock(&shared.listeners).heard = true;
        if shared.end.borrow().is_some() {
            table.forget(shared);
            table.unheard.retain(|(other, _)| !Arc::ptr_eq(other, shared));
        }
    }

    /// Counts a shared call until the guard is dropped.
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.under_way.send_modify(|count| *count += 1);
        Counted(Arc::clone(self))
    }

    /// Returns when no shared call is under way.
    pub(crate) async fn none_under_way(&self) {
        let mut under_way = self.under_way.subscribe();
        let _ = under_way.wait_for(|count| *count == 0).await;
    }

    /// Calls every shared call off, whoever waits for it.
    pub(crate) fn all_off(&self) {
        let table = lock(&self.table);
        for shared in table.shared.values().flatten() {
            let _listeners = lock(&shared.listeners);
            shared.off.send_replace(true);
        }
    }

    /// Looks a key up, and takes the turn to make the call when nobody has.
    pub(crate) fn keyed(
        self: &Arc<Self>,
        agent_id: &AgentId,
        key: &IdempotencyKey,
        request: Digest,
    ) -> Found {
        let mut table = lock(&self.table);
        let key = (agent_id.clone(), key.clone());
        match table.keyed.get(&key) {
            Some((other, _)) if *other != request => Found::Conflict,
            Some((_, Keyed::Making { made, .. })) => Found::Making(made.clone()),
            Some((_, Keyed::Ended(governed))) => Found::Ended(Arc::clone(governed)),
            Some((_, Keyed::Recorded(call))) => Found::Recorded(call.clone()),
            None | Some((_, Keyed::Left(_))) => {
                let (making, made) = watch::channel(());
                let making_it = Keyed::Making { made, unheard: None };
                if table.keyed.insert(key.clone(), (request, making_it)).is_some() {
                    table.resting.retain(|other| *other != key);
                }
                let calls = Arc::clone(self);
                Found::Turn(Turn { calls, key, request, ended: false, _making: making })
            }
        }
    }

    /// Where the outcome of the call under a key is or will be, and the digest of what it was
    /// sent with. `None` when there is no such call, or somebody is making it.
    pub(crate) fn whereabouts(
        &self,
        agent_id: &AgentId,
        key: &IdempotencyKey,
    ) -> Option<(Digest, Whereabouts)> {
        let table = lock(&self.table);
        let (request, keyed) = table.keyed.get(&(agent_id.clone(), key.clone()))?;
        let found = match keyed {
            Keyed::Making { .. } | Keyed::Left(None) => return None,
            Keyed::Left(Some(id)) => Whereabouts::Asked(id.clone()),
            Keyed::Ended(governed) => Whereabouts::Ended(Arc::clone(governed)),
            Keyed::Recorded(call) => Whereabouts::Recorded(call.clone()),
        };
        Some((*request, found))
    }

    /// Settles a key whose call is in the journal.
    pub(crate) fn recorded(
        &self,
        agent_id: AgentId,
        key: IdempotencyKey,
        request: Digest,
        call: ToolCallId,
    ) {
        let mut table = lock(&self.table);
        let key = (agent_id, key);
        if table.keyed.insert(key.clone(), (request, Keyed::Recorded(call))).is_none() {
            table.rest(key);
        }
    }

    /// Takes a key whose call was asked about before the restart, and has not been made.
    pub(crate) fn asked(&self, agent_id: AgentId, own_key: OwnKey, id: ApprovalRequestId) {
        let (key, request) = own_key;
        let mut table = lock(&self.table);
        let key = (agent_id, key);
        if !table.keyed.contains_key(&key) {
            table.keyed.insert(key.clone(), (request, Keyed::Left(Some(id))));
            table.rest(key);
        }
    }
}

impl Kernel {
    /// Returns when no call is under way that a person was asked about, also of those that
    /// nobody waits for any more. For a stop, when the queue is closed: what is held has ended
    /// then, as far as this process goes.
    pub async fn settled(&self) {
        self.calls().none_under_way().await;
    }

    /// Calls off every call under way that a person was asked about, whoever waits for it: what
    /// runs is killed, and recorded as cancelled. For a stop, when the queue is closed and the
    /// calls have had their time.
    pub fn call_off_all(&self) {
        self.calls().all_off();
    }
}

impl Table {
    /// Keeps a key whose call is not being made, and forgets the oldest of too many.
    fn rest(&mut self, key: (AgentId, IdempotencyKey)) {
        self.resting.push_back(key);
        while self.resting.len() > KEYS_KEPT {
            if let Some(oldest) = self.resting.pop_front() {
                self.keyed.remove(&oldest);
            }
        }
    }
}

impl Turn {
    /// What the call came to, for whoever sends it again.
    pub(crate) fn end(mut self, governed: &Governed) {
        self.ended = true;
        let mut table = lock(&self.calls.table);
        let size = serde_json::to_vec(&governed.envelope.results).map_or(usize::MAX, |b| b.len());
        let ended = match &governed.call_id {
            Some(call) if size > OUTCOME_MAX => Keyed::Recorded(call.clone()),
            _ => Keyed::Ended(Arc::new(governed.clone())),
        };
        table.keyed.insert(self.key.clone(), (self.request, ended));
        table.rest(self.key.clone());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ended {
            let mut table = lock(&self.calls.table);
            if let Some((_, keyed)) = table.keyed.get_mut(&self.key)
                && let Keyed::Making { unheard, .. } = keyed
            {
                *keyed = unheard.take().map_or(Keyed::Left(None), Keyed::Recorded);
                table.rest(self.key.clone());
            }
        }
    }
}

/// Who can call a call off that may run.
#[derive(Clone, Copy)]
pub(crate) enum Off<'a> {
    /// Whoever makes it, and nobody else waits for it.
    Caller(&'a Caller),
    /// All who wait for it.
    Shared(&'a Shared),
}

impl Off<'_> {
    pub(crate) fn is_off(self) -> bool {
        match self {
            Self::Caller(caller) => caller.presence() != Presence::Here,
            Self::Shared(shared) => shared.is_called_off(),
        }
    }

    pub(crate) async fn called_off(self) {
        match self {
            Self::Caller(caller) => drop(caller.gone().await),
            Self::Shared(shared) => shared.called_off().await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use countersign_manifest::{Envelope, EnvelopeStatus};
    use serde_json::json;

    use super::*;

    fn governed(call: &ToolCallId) -> Governed {
        let envelope = Envelope {
            status: EnvelopeStatus::Success,
            scan_id: call.to_string(),
            tool: "t".to_owned(),
            command: String::new(),
            duration_ms: 0,
            timestamp: String::new(),
            output_hash: Digest::of([]).to_string(),
            exit_code: None,
            stderr: None,
            results: json!({}),
            output_file: None,
            output_truncated: None,
        };
        Governed {
            call_id: Some(call.clone()),
            envelope,
            denial: None,
            receipt: None,
            edited: None,
        }
    }

    #[test]
    fn a_call_that_ends_while_its_caller_leaves_settles_its_key() {
        let calls = Arc::new(Calls::default());
        let (agent, key) = (AgentId::new("a").unwrap(), IdempotencyKey::new("k").unwrap());
        let (request, call) = (Digest::of("request"), ToolCallId::new("call.1").unwrap());
        let rule = Rule { id: "policy.approval.manifest".into(), text: "asks".to_owned() };
        let Found::Turn(turn) = calls.keyed(&agent, &key, request) else { panic!("taken") };
        let own = (key.clone(), request);
        let (mut listener, new) = calls.join(&agent, Digest::of("call"), &rule, Some(&own), 0);
        assert!(new && !listener.leave());
        // Between leaving and giving the turn back.
        calls.end(&listener.shared, governed(&call), 1);
        drop(turn);
        let found = calls.keyed(&agent, &key, request);
        assert!(matches!(found, Found::Recorded(found) if found == call));
    }

    #[test]
    fn the_oldest_keys_are_forgotten_and_none_that_a_call_is_made_under() {
        let calls = Arc::new(Calls::default());
        let (agent, request) = (AgentId::new("a").unwrap(), Digest::of("request"));
        let key = |n: usize| IdempotencyKey::new(format!("k{n}")).unwrap();
        let Found::Turn(_making) = calls.keyed(&agent, &key(0), request) else { panic!("taken") };
        for n in 1..=KEYS_KEPT + 1 {
            let call = ToolCallId::new(format!("call.{n}")).unwrap();
            calls.recorded(agent.clone(), key(n), request, call);
        }
        let found = |n| calls.keyed(&agent, &key(n), request);
        assert!(matches!(found(0), Found::Making(_)));
        assert!(matches!(found(2), Found::Recorded(_)));
        assert!(matches!(found(1), Found::Turn(_)), "the oldest is still known");
    }
}
