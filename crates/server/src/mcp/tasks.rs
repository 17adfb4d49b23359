//! Calls as MCP tasks, as of protocol version 2025-11-25: the answer to the call is a task at
//! once, and the client looks after it, waits for its result, or cancels it.
//!
//! A task's id is the idempotency key of its call, which stands in the call's own records: so a
//! task outlives its session, and the gateway. Nobody but its agent can see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::HoldStatus;
use countersign_core::id::{ApprovalRequestId, IdempotencyKey};
use countersign_escalation::time::rfc3339;
use countersign_kernel::{CallOptions, Kernel, Run, TakenUp, request_digest};
use countersign_ports::entropy::random_id;
use rmcp::ErrorData;
use rmcp::model::CallToolResult;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::handler::{UNAVAILABLE, stopping};
use super::result::answer;
use crate::gateway::Gateway;

/// Tasks of one agent that are kept.
const TASKS_MAX: usize = 256;
/// Bytes of all results of one agent that are kept.
const BYTES_MAX: usize = 8 << 20;
/// How long an ended task is kept when its client does not say, and at most.
const TTL: Duration = Duration::from_secs(60 * 60);
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of what is said of a task's state.
const MESSAGE_MAX: usize = 200;
/// How often a client should ask.
const POLL: Duration = Duration::from_secs(2);

/// The key of a result's `_meta` that says which task it is of.
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// What a client asked for beside the call: a task, kept so many milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskAsked {
    pub(crate) ttl_ms: Option<u64>,
}

/// A call to be made as a task.
pub(crate) struct NewTask<'a> {
    pub(crate) run: &'a Run,
    pub(crate) tool: &'a str,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) asked: TaskAsked,
}

type Answer = Result<CallToolResult, ErrorData>;

#[derive(Clone)]
enum State {
    Working,
    /// The gateway stops: the call stays held.
    Left,
    Ended(Arc<Ended>),
}

struct Ended {
    status: &'static str,
    /// Milliseconds since the Unix epoch.
    at: u64,
    answer: Answer,
    bytes: usize,
}

pub(crate) struct Task {
    id: IdempotencyKey,
    /// Of what it was made with.
    sent: Digest,
    created: u64,
    ttl: Duration,
    hold: watch::Receiver<Option<ApprovalRequestId>>,
    state: watch::Sender<State>,
    off: CancellationToken,
}

/// All tasks, by agent. Clones are handles to one table.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: Mutex<HashMap<String, Vec<Arc<Task>>>>,
    /// Held while a task is taken from the journal: of two who ask for it at once, the second
    /// finds what the first has taken up.
    taking: tokio::sync::Mutex<()>,
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Task>>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the call, and gives its task. Sent again under the client's own key, it is the
    /// same task; whether it is a new one, the second value says.
    pub(crate) fn start(
        &self,
        gateway: &Arc<Gateway>,
        new: NewTask<'_>,
    ) -> Result<(Arc<Task>, bool), ErrorData> {
        let NewTask { run, tool, arguments, key, asked } = new;
        let id = match key {
            Some(key) => key,
            None => random_id(&*gateway.entropy)
                .map_err(|error| error.to_string())
                .and_then(|id| IdempotencyKey::new(format!("task.{id}")).map_err(|e| e.to_string()))
                .map_err(|error| ErrorData::internal_error(format!("no id: {error}"), None))?,
        };
        let sent = request_digest(tool, &arguments);
        let now = gateway.clock.now_millis();
        let mut all = self.lock();
        let own = all.entry(run.agent_id().to_string()).or_default();
        forget(own, now);
        if let Some(task) = own.iter().find(|task| task.id == id) {
            return match task.sent == sent {
                true => Ok((Arc::clone(task), false)),
                false => {
                    let text = "another call was made under this idempotency key";
                    Err(ErrorData::invalid_params(text, None))
                }
            };
        }
        make_room(own)?;
        let options = CallOptions { kept: true, idempotency_key: Some(id.clone()), mcp: None };
        let call = gateway.kernel.call(run, tool, &arguments, options);
        let ttl = asked.ttl_ms.map_or(TTL, Duration::from_millis).min(TTL_MAX);
        let task = Task::new(id, sent, now, ttl, call.hold());
        own.push(Arc::clone(&task));
        drop(all);
        let taken = TakenUp {
            tool: tool.to_owned(),
            request: sent,
            made: false,
            made_at_millis: now,
            call,
        };
        self.drive(gateway, run, &task, taken);
        Ok((task, true))
    }

    /// The task, from the journal if need be.
    pub(crate) async fn find(
        &self,
        gateway: &Arc<Gateway>,
        run: &Run,
        id: &str,
    ) -> Result<Arc<Task>, ErrorData> {
        let agent = run.agent_id().as_str();
        let missing = || {
            let text = "there is no such task: it has ended and is not kept any more, or its call \
                        was not on record when the gateway last stopped, and has not run";
            ErrorData::invalid_params(text, None)
        };
        let id = IdempotencyKey::new(id).map_err(|_| missing())?;
        let known = || {
            let mut all = self.lock();
            let own = all.get_mut(agent)?;
            forget(own, gateway.clock.now_millis());
            own.iter().find(|task| task.id == id).cloned()
        };
        if let Some(task) = known() {
            return Ok(task);
        }
        let _taking = self.0.taking.lock().await;
        if let Some(task) = known() {
            return Ok(task);
        }
        if gateway.stopping.is_cancelled() {
            return Err(stopping());
        }
        let taken = gateway.kernel.take_up(run, &id).await;
        let taken = taken.map_err(|error| {
            tracing::error!(error, "the records of a task cannot be read");
            ErrorData::internal_error("the journal cannot be read", None)
        })?;
        let taken = taken.ok_or_else(missing)?;
        let created = taken.made_at_millis;
        let task = Task::new(id.clone(), taken.request, created, TTL, taken.call.hold());
        let mut working = Some(taken);
        // What has ended does not work again, not for a moment.
        if let Some(made) = working.take_if(|taken| taken.made) {
            task.state.send_replace(drive(gateway, &task, made).await);
        }
        let mut all = self.lock();
        let own = all.entry(agent.to_owned()).or_default();
        make_room(own)?;
        own.push(Arc::clone(&task));
        forget(own, gateway.clock.now_millis());
        drop(all);
        if let Some(taken) = working {
            self.drive(gateway, run, &task, taken);
        }
        Ok(task)
    }

    /// Follows the call to its end, whoever is connected.
    fn drive(&self, gateway: &Arc<Gateway>, run: &Run, task: &Arc<Task>, taken: TakenUp) {
        let (tasks, agent) = (self.clone(), run.agent_id().to_string());
        let (gateway, task) = (Arc::clone(gateway), Arc::clone(task));
        let calls = gateway.calls.clone();
        calls.spawn(async move {
            let state = drive(&gateway, &task, taken).await;
            // INVARIANT: what is too much goes when it comes, not when somebody looks.
            let mut all = tasks.lock();
            task.state.send_replace(state);
            if let Some(own) = all.get_mut(&agent) {
                forget(own, gateway.clock.now_millis());
            }
        });
    }

    /// The agent's tasks since the gateway started, and those from before that it asked for.
    pub(crate) fn list(&self, gateway: &Gateway, run: &Run) -> Value {
        let mut all = self.lock();
        let own = all.entry(run.agent_id().to_string()).or_default();
        forget(own, gateway.clock.now_millis());
        let tasks: Vec<_> = own.iter().map(|task| task.to_json(&gateway.kernel)).collect();
        json!({ "tasks": tasks })
    }
}

/// Forgets ended tasks: those whose time is over, and of too many bytes those that ended first.
fn forget(own: &mut Vec<Arc<Task>>, now: u64) {
    own.retain(|task| {
        task.end().is_none_or(|ended| now < ended.at.saturating_add(millis(task.ttl)))
    });
    let bytes = |task: &Arc<Task>| task.end().map_or(0, |ended| ended.bytes);
    while own.iter().map(bytes).sum::<usize>() > BYTES_MAX && forget_first(own) {}
}

/// Makes room for one more task.
fn make_room(own: &mut Vec<Arc<Task>>) -> Result<(), ErrorData> {
    while own.len() >= TASKS_MAX {
        if !forget_first(own) {
            let text = format!(
                "{TASKS_MAX} tasks of this agent are working already; wait for one of them, or \
                 cancel one"
            );
            return Err(ErrorData::new(UNAVAILABLE, text, None));
        }
    }
    Ok(())
}

/// Forgets the task that ended first; `false` when none has.
fn forget_first(own: &mut Vec<Arc<Task>>) -> bool {
    let ended = own.iter().enumerate().filter_map(|(at, task)| Some((task.end()?.at, at)));
    let Some((_, at)) = ended.min() else { return false };
    own.remove(at);
    true
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for the call until it has ended.
async fn drive(gateway: &Gateway, task: &Task, taken: TakenUp) -> State {
    let TakenUp { tool, mut call, .. } = taken;
    let passing = super::upstream::passing(&gateway.kernel, &tool, gateway.answer_max);
    let mut called_off = false;
    let governed = tokio::select! {
        biased;
        governed = call.outcome() => governed,
        () = task.off.cancelled() => {
            called_off = true;
            call.call_off();
            call.outcome().await
        }
        () = gateway.give_up.cancelled() => {
            call.call_off();
            call.outcome().await
        }
    };
    let left = |code: &str| code == "gateway_stopping";
    if let Ok(governed) = &governed
        && governed.denial.as_ref().is_some_and(|denial| left(&denial.code))
    {
        return State::Left;
    }
    let broke = |error| ErrorData::internal_error(format!("the call: {error}"), None);
    let mut answer = governed.map_err(broke).and_then(|governed| answer(governed, passing));
    let status = match &answer {
        Ok(result) if result.is_error != Some(true) => "completed",
        _ if called_off => "cancelled",
        _ => "failed",
    };
    if let Ok(result) = &mut answer {
        let meta = result.meta.get_or_insert_default();
        meta.0.insert(RELATED.to_owned(), json!({ "taskId": task.id }));
    }
    let bytes = match &answer {
        Ok(result) => super::result::size(result),
        Err(error) => super::result::size(error),
    };
    let ended = Ended { status, at: gateway.clock.now_millis(), answer, bytes };
    State::Ended(Arc::new(ended))
}

impl Task {
    fn new(
        id: IdempotencyKey,
        sent: Digest,
        created: u64,
        ttl: Duration,
        hold: watch::Receiver<Option<ApprovalRequestId>>,
    ) -> Arc<Self> {
        let (state, off) = (watch::Sender::new(State::Working), CancellationToken::new());
        Arc::new(Self { id, sent, created, ttl, hold, state, off })
    }

    fn end(&self) -> Option<Arc<Ended>> {
        match &*self.state.borrow() {
            State::Ended(ended) => Some(Arc::clone(ended)),
            State::Working | State::Left => None,
        }
    }

    pub(crate) fn hold(&self) -> watch::Receiver<Option<ApprovalRequestId>> {
        self.hold.clone()
    }

    /// As `tasks/get` shows it.
    pub(crate) fn to_json(&self, kernel: &Kernel) -> Value {
        let state = self.state.borrow().clone();
        let hold = self.hold.borrow().clone();
        let held = hold.as_ref().and_then(|id| kernel.queue().find(id));
        let (status, at, message) = match &state {
            State::Ended(ended) => (ended.status, ended.at, ended.message()),
            State::Left => ("working", self.created, "the gateway is stopping".to_owned()),
            State::Working => match &held {
                Some((held, _)) if held.status == HoldStatus::Pending => {
                    let id: String = held.id.as_str().chars().take(8).collect();
                    let until = &held.expires_at;
                    let message = format!("waits for a person: hold {id}, until {until}");
                    ("working", self.created, message)
                }
                Some(_) => ("working", self.created, "decided; running".to_owned()),
                None => ("working", self.created, "running".to_owned()),
            },
        };
        let mut task = json!({
            "taskId": self.id,
            "status": status,
            "statusMessage": message,
            "createdAt": rfc3339(self.created),
            "lastUpdatedAt": rfc3339(at),
            "ttl": millis(self.ttl),
            "pollInterval": millis(POLL),
        });
        if let (Value::Object(task), Some(hold)) = (&mut task, hold) {
            task.insert("_meta".to_owned(), json!({ "countersign/hold": hold }));
        }
        task
    }

    /// Returns when the state has changed, or a person is asked. `false` when nothing follows.
    pub(crate) async fn changed(&self, seen: &mut Seen) -> bool {
        if seen.end {
            return false;
        }
        loop {
            tokio::select! {
                biased;
                changed = seen.state.changed() => {
                    seen.end = !matches!(&*seen.state.borrow_and_update(), State::Working);
                    return changed.is_ok();
                }
                Ok(()) = seen.hold.changed() => {
                    if seen.hold.borrow_and_update().is_some() {
                        return true;
                    }
                }
            }
        }
    }

    /// What is known of it now: to be taken before it is told how it stands, so that nothing
    /// that comes after that is missed.
    pub(crate) fn seen(&self) -> Seen {
        Seen { state: self.state.subscribe(), hold: self.hold.clone(), end: self.end().is_some() }
    }

    /// Waits for the end, and gives what the call would have been answered with.
    pub(crate) async fn result(&self) -> Answer {
        match self.ended().await {
            Some(ended) => ended.answer.clone(),
            None => Err(stopping()),
        }
    }

    /// Calls the call off, and returns when that is on record.
    pub(crate) async fn cancel(&self) -> Result<(), ErrorData> {
        let over = |status: &str| {
            let text = format!("the task has ended before: it is {status}");
            ErrorData::invalid_params(text, None)
        };
        if let Some(ended) = self.end() {
            return Err(over(ended.status));
        }
        self.off.cancel();
        match self.ended().await {
            Some(ended) if ended.status == "cancelled" => Ok(()),
            Some(ended) => Err(over(ended.status)),
            None => Err(stopping()),
        }
    }

    /// `None` when the gateway stops before, and the call stays held.
    async fn ended(&self) -> Option<Arc<Ended>> {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| !matches!(state, State::Working)).await;
        match reached.as_deref() {
            Ok(State::Ended(ended)) => Some(Arc::clone(ended)),
            _ => None,
        }
    }
}

/// What somebody knows of a task.
pub(crate) struct Seen {
    state: watch::Receiver<State>,
    hold: watch::Receiver<Option<ApprovalRequestId>>,
    /// Nothing follows.
    end: bool,
}

impl Ended {
    fn message(&self) -> String {
        let text = match &self.answer {
            Ok(_) if self.status == "completed" => "done",
            Ok(result) => {
                let text = result.content.first().and_then(|part| part.as_text());
                text.map_or("failed", |text| &text.text)
            }
            Err(error) => &error.message,
        };
        text.lines().next().unwrap_or("failed").chars().take(MESSAGE_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: usize) -> Arc<Task> {
        let id = IdempotencyKey::new(format!("task.{n}")).unwrap();
        let (_, hold) = watch::channel(None);
        Task::new(id, Digest::of("sent"), 0, Duration::from_millis(10), hold)
    }

    fn ended(n: usize, at: u64, bytes: usize) -> Arc<Task> {
        let (task, answer) = (task(n), Ok(CallToolResult::default()));
        let end = Ended { status: "completed", at, answer, bytes };
        task.state.send_replace(State::Ended(Arc::new(end)));
        task
    }

    fn names(own: &[Arc<Task>]) -> Vec<&str> {
        own.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn an_ended_task_is_kept_for_its_time_and_one_that_works_for_ever() {
        let mut own = vec![task(0), ended(1, 100, 1), ended(2, 101, 1)];
        forget(&mut own, 109);
        assert_eq!(names(&own), ["task.0", "task.1", "task.2"]);
        forget(&mut own, 110);
        assert_eq!(names(&own), ["task.0", "task.2"]);
        forget(&mut own, u64::MAX);
        assert_eq!(names(&own), ["task.0"]);
    }

    #[test]
    fn of_too_many_bytes_those_go_that_ended_first() {
        let mut own = vec![ended(0, 3, BYTES_MAX / 2), ended(1, 1, BYTES_MAX / 2), task(2)];
        forget(&mut own, 3);
        assert_eq!(own.len(), 3);
        own.push(ended(3, 2, 1));
        forget(&mut own, 3);
        assert_eq!(names(&own), ["task.0", "task.2", "task.3"]);
        own.push(ended(4, 4, BYTES_MAX + 1));
        forget(&mut own, 4);
        assert_eq!(names(&own), ["task.2"]);
    }

    #[test]
    fn there_is_room_for_one_more_while_one_of_them_has_ended() {
        let mut own: Vec<_> = (0..TASKS_MAX - 1).map(task).collect();
        make_room(&mut own).unwrap();
        own.push(ended(TASKS_MAX, 1, 1));
        make_room(&mut own).unwrap();
        assert_eq!(own.len(), TASKS_MAX - 1);
        own.push(task(TASKS_MAX + 1));
        let error = make_room(&mut own).unwrap_err();
        assert_eq!((error.code, own.len()), (UNAVAILABLE, TASKS_MAX));
    }

    #[tokio::test]
    async fn an_end_that_comes_before_anybody_looks_is_seen_once() {
        let task = task(0);
        let mut seen = task.seen();
        let answer = Err(ErrorData::internal_error("\u{e4}".repeat(10_000), None));
        let end = Ended { status: "failed", at: 1, answer, bytes: 0 };
        assert_eq!(end.message().chars().count(), MESSAGE_MAX);
        task.state.send_replace(State::Ended(Arc::new(end)));
        assert!(task.changed(&mut seen).await);
        assert!(!task.changed(&mut seen).await);
        assert!(!task.changed(&mut task.seen()).await, "told as it stands");
    }
}
