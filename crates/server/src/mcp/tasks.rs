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
use countersign_kernel::{Call, CallOptions, Kernel, Run};
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
    at: u64,
    answer: Answer,
    bytes: usize,
}

pub(crate) struct Task {
    id: IdempotencyKey,
    /// What it was made with; absent when it was found in the journal.
    sent: Option<Digest>,
    created: u64,
    ttl: Duration,
    hold: watch::Receiver<Option<ApprovalRequestId>>,
    state: watch::Sender<State>,
    off: CancellationToken,
}

/// All tasks, by agent.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, Vec<Arc<Task>>>>);

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Task>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the call, and gives its task. Sent again under the client's own key, it is the
    /// same task.
    pub(crate) fn start(
        &self,
        gateway: &Arc<Gateway>,
        new: NewTask<'_>,
    ) -> Result<Arc<Task>, ErrorData> {
        let NewTask { run, tool, arguments, key, asked } = new;
        let id = match key {
            Some(key) => key,
            None => random_id(&*gateway.entropy)
                .map_err(|error| error.to_string())
                .and_then(|id| IdempotencyKey::new(format!("task.{id}")).map_err(|e| e.to_string()))
                .map_err(|error| ErrorData::internal_error(format!("no id: {error}"), None))?,
        };
        let sent = json!({ "tool": tool, "arguments": arguments });
        let sent = Digest::of(sent.to_string());
        let now = gateway.clock.now_millis();
        let mut all = self.lock();
        let own = all.entry(run.agent_id().to_string()).or_default();
        make_room(own, now);
        if let Some(task) = own.iter().find(|task| task.id == id) {
            return match task.sent.is_none_or(|before| before == sent) {
                true => Ok(Arc::clone(task)),
                false => {
                    let text = "another call was made under this idempotency key";
                    Err(ErrorData::invalid_params(text, None))
                }
            };
        }
        if own.len() >= TASKS_MAX {
            let text = format!("{TASKS_MAX} tasks of this agent are working already");
            return Err(ErrorData::new(UNAVAILABLE, text, None));
        }
        let options = CallOptions { kept: true, idempotency_key: Some(id.clone()), mcp: None };
        let call = gateway.kernel.call(run, tool, &arguments, options);
        let ttl = asked.ttl_ms.map_or(TTL, Duration::from_millis).min(TTL_MAX);
        let task = Task::new(id, Some(sent), now, ttl, &call);
        own.push(Arc::clone(&task));
        gateway.calls.spawn(drive(Arc::clone(gateway), Arc::clone(&task), call));
        Ok(task)
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
        let same = |task: &&Arc<Task>| task.id == id;
        if let Some(task) = self.lock().get(agent).and_then(|own| own.iter().find(same)) {
            return Ok(Arc::clone(task));
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
        let mut all = self.lock();
        let own = all.entry(agent.to_owned()).or_default();
        make_room(own, gateway.clock.now_millis());
        if let Some(task) = own.iter().find(same) {
            return Ok(Arc::clone(task));
        }
        let task = Task::new(id.clone(), None, taken.made_at_millis, TTL, &taken.call);
        own.push(Arc::clone(&task));
        gateway.calls.spawn(drive(Arc::clone(gateway), Arc::clone(&task), taken.call));
        Ok(task)
    }

    /// The agent's tasks since the gateway started, and those from before that it asked for.
    pub(crate) fn list(&self, gateway: &Gateway, run: &Run) -> Value {
        let mut all = self.lock();
        let own = all.entry(run.agent_id().to_string()).or_default();
        make_room(own, gateway.clock.now_millis());
        let tasks: Vec<_> = own.iter().map(|task| task.to_json(&gateway.kernel)).collect();
        json!({ "tasks": tasks })
    }
}

/// Forgets ended tasks: those whose time is over, and the oldest of too many.
fn make_room(own: &mut Vec<Arc<Task>>, now: u64) {
    own.retain(|task| match &*task.state.borrow() {
        State::Ended(ended) => now < ended.at.saturating_add(millis(task.ttl)),
        _ => true,
    });
    let bytes = |task: &Arc<Task>| match &*task.state.borrow() {
        State::Ended(ended) => Some(ended.bytes),
        _ => None,
    };
    while own.len() >= TASKS_MAX || own.iter().filter_map(bytes).sum::<usize>() > BYTES_MAX {
        let Some(oldest) = own.iter().position(|task| bytes(task).is_some()) else { return };
        own.remove(oldest);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for the call until it has ended, whoever is connected.
async fn drive(gateway: Arc<Gateway>, task: Arc<Task>, mut call: Call) {
    let governed = tokio::select! {
        biased;
        governed = call.outcome() => governed,
        () = task.off.cancelled() => {
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
        task.state.send_replace(State::Left);
        return;
    }
    let broke = |error| ErrorData::internal_error(format!("the call: {error}"), None);
    let mut answer = governed.map_err(broke).and_then(|governed| {
        let upstream = super::upstream::is_upstream(&gateway.kernel, &governed.envelope.tool);
        answer(governed, upstream)
    });
    let status = match &answer {
        Ok(result) if result.is_error != Some(true) => "completed",
        _ if task.off.is_cancelled() => "cancelled",
        _ => "failed",
    };
    if let Ok(result) = &mut answer {
        let meta = result.meta.get_or_insert_default();
        meta.0.insert(RELATED.to_owned(), json!({ "taskId": task.id }));
    }
    let bytes = answer.as_ref().map_or(0, super::result::size);
    let ended = Ended { status, at: gateway.clock.now_millis(), answer, bytes };
    task.state.send_replace(State::Ended(Arc::new(ended)));
}

impl Task {
    fn new(
        id: IdempotencyKey,
        sent: Option<Digest>,
        created: u64,
        ttl: Duration,
        call: &Call,
    ) -> Arc<Self> {
        let (state, off) = (watch::Sender::new(State::Working), CancellationToken::new());
        Arc::new(Self { id, sent, created, ttl, hold: call.hold(), state, off })
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
        if let State::Ended(_) | State::Left = &*seen.state.borrow_and_update() {
            return false;
        }
        tokio::select! {
            Ok(()) = seen.hold.changed() => true,
            changed = seen.state.changed() => changed.is_ok(),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen { state: self.state.subscribe(), hold: self.hold.clone() }
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
        if let State::Ended(ended) = &*self.state.borrow() {
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
}

impl Ended {
    fn message(&self) -> String {
        let text = match &self.answer {
            Ok(_) if self.status == "completed" => return "done".to_owned(),
            Ok(result) => result.content.first().and_then(|part| part.as_text()),
            Err(error) => return error.message.to_string(),
        };
        let line = text.and_then(|text| text.text.lines().next()).unwrap_or("failed");
        line.chars().take(200).collect()
    }
}
