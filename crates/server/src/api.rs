//! REST: approvals, calls, and who I am.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use countersign_audit::receipt::Receipt;
use countersign_core::approval::ApprovalEdit;
use countersign_core::digest::Digest;
use countersign_core::hold::{Approver, Decision, DecisionKind, GrantTerms, HeldAction, Surface};
use countersign_core::id::{AgentId, ApprovalRequestId, IdempotencyKey, SessionId};
use countersign_core::journal::{JournalPayload, JournalRecord, TOOL_CALL_KEY};
use countersign_core::story::{CallStatus, call_status, tell};
use countersign_core::text::visible;
use countersign_escalation::time::rfc3339;
use countersign_escalation::{Outcome, ResolveError, Voted};
use countersign_kernel::{CallOptions, RunError};
use countersign_manifest::{Envelope, EnvelopeStatus};
use countersign_ports::journal::Entry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::approvals;
use crate::auth::{Caller, Principal, Role};
use crate::gateway::{CallPlace, Gateway};
use crate::pending::{envelope, still_pending};
use crate::problem::Problem;

pub(crate) type Answer<T> = Result<Json<T>, Problem>;

/// Longest reason a person may give, in characters.
const REASON_MAX: usize = 2000;

/// Calls of one page.
const PAGE_MAX: usize = 200;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/me", get(me))
        .route("/approvals/{id}", get(approval))
        .route("/approvals/{id}/approve", post(approve))
        .route("/approvals/{id}/deny", post(deny))
        .route("/calls", get(calls).post(make_call))
        .route("/calls/{id}", get(call))
        .merge(crate::approvals::routes())
        .merge(crate::edits::routes())
        .merge(crate::grants::routes())
        .merge(crate::log::routes())
        .merge(crate::critics::routes())
        .route("/events", get(crate::events::stream))
}

pub(crate) async fn require(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    roles: &[Role],
    what: &str,
) -> Result<(), Problem> {
    if caller.principal.has_any(roles) {
        return Ok(());
    }
    gateway.refused(&format!("{what} by {}", caller.principal.id)).await;
    let needed: Vec<_> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let error = format!("this needs the role {}", needed.join(" or "));
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", error))
}

pub(crate) const READERS: &[Role] = &[Role::Approver, Role::Auditor, Role::Admin];
pub(crate) const DECIDERS: &[Role] = &[Role::Approver, Role::Admin];

async fn me(Extension(caller): Extension<Caller>) -> Json<Value> {
    let Caller { principal, csrf } = caller;
    Json(json!({
        "id": principal.id,
        "display": principal.display,
        "roles": principal.roles,
        "csrf_token": csrf,
    }))
}

/// A hold, and how it ended.
#[derive(Serialize)]
pub(crate) struct HoldView {
    #[serde(flatten)]
    hold: HeldAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Value>,
    /// As they were given, and what the tool accepts in their place; absent where they cannot be
    /// changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    editable: Option<Value>,
}

impl HoldView {
    pub(crate) fn new(hold: HeldAction, outcome: Option<&Outcome>) -> Self {
        let decision = outcome.map(|outcome| {
            let (decision, approver) = outcome.decision.clone().unzip();
            json!({
                "code": outcome.code,
                "decision": decision.as_ref().map(|d| d.decision),
                "reason": decision.as_ref().and_then(|d| d.reason.clone()),
                "grant": decision.and_then(|d| d.grant),
                "approver": approver,
                "at": rfc3339(outcome.at_millis),
            })
        });
        Self { hold, decision, editable: None }
    }
}

pub(crate) fn hold_id(id: &str) -> Result<ApprovalRequestId, Problem> {
    ApprovalRequestId::new(id).map_err(|_| not_found())
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no hold with this id")
}

async fn approval(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<HoldView> {
    require(&gateway, &caller, READERS, "reading an approval").await?;
    let id = hold_id(&id)?;
    let (hold, outcome) = gateway.kernel.queue().find(&id).ok_or_else(not_found)?;
    let editable = gateway.kernel.edit_arguments(&id).map(|(arguments, manifest)| {
        json!({ "arguments": arguments, "schema": manifest.input_schema() })
    });
    Ok(Json(HoldView { editable, ..HoldView::new(hold, outcome.as_deref()) }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answering {
    reason: Option<String>,
    /// The fingerprint the approver was shown; a decision about another call is refused.
    fingerprint: Option<Digest>,
    surface: Option<Surface>,
    /// Later calls an approval covers too.
    grant: Option<GrantTerms>,
    /// The principal for whom the answer is given, by a delegation.
    on_behalf_of: Option<String>,
    /// Other arguments to approve the call with; the fingerprint is then that of the changed
    /// call.
    arguments: Option<Map<String, Value>>,
}

async fn approve(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<HoldView> {
    decide(&gateway, &caller, &id, &body, DecisionKind::Approve).await
}

async fn deny(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<HoldView> {
    decide(&gateway, &caller, &id, &body, DecisionKind::Deny).await
}

async fn decide(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &str,
    body: &[u8],
    decision: DecisionKind,
) -> Answer<HoldView> {
    let approver = decider(gateway, caller, "deciding about a call").await?;
    let answering: Answering = self::body(body)?;
    let surface =
        answering.surface.filter(|surface| matches!(surface, Surface::Cli | Surface::Tui));
    // A program may say which it is; a console session is one.
    let approver = match (&caller.csrf, surface) {
        (None, Some(surface)) => Approver { surface, ..approver },
        _ => approver,
    };
    let reason = reason(answering.reason)?;
    let id = hold_id(id)?;
    let queue = gateway.kernel.queue();
    let (hold, _) = queue.find(&id).ok_or_else(not_found)?;
    if answering.arguments.is_none()
        && answering.fingerprint.is_some()
        && answering.fingerprint != hold.fingerprint
    {
        let error = "the fingerprint is not that of the held call; look at the call again";
        return Err(Problem::new(StatusCode::CONFLICT, "fingerprint_mismatch", error)
            .with(json!({ "fingerprint": hold.fingerprint })));
    }
    let on_behalf_of = answering.on_behalf_of.as_deref();
    let voter = approvals::voter(gateway, approver, &caller.principal, on_behalf_of).await?;
    let decision = Decision { decision, reason, grant: answering.grant };
    let seen = answering.fingerprint;
    let voted = match (answering.arguments, decision.decision) {
        (Some(arguments), DecisionKind::Approve) => {
            crate::edits::approve(gateway, caller, (&id, voter, decision), arguments, seen).await?
        }
        (Some(_), DecisionKind::Deny) => {
            let error = "a denial takes no arguments";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", error));
        }
        (None, _) => match gateway.kernel.vote(&id, voter, decision, seen).await {
            Ok(voted) => voted,
            Err(error) => return Err(unresolved(gateway, caller, error).await),
        },
    };
    Ok(Json(match voted {
        Voted::Counted(held) => HoldView::new(held.to_action(), None),
        Voted::Ended(resolved) => HoldView::new(resolved.hold.to_action(), Some(&resolved.outcome)),
    }))
}

/// The caller as somebody who may decide.
pub(crate) async fn decider(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    what: &str,
) -> Result<Approver, Problem> {
    require(gateway, caller, DECIDERS, what).await?;
    let Principal { id, display, .. } = &*caller.principal;
    if caller.principal.has_any(&[Role::Agent]) {
        gateway.refused(&format!("deciding by the agent {id}")).await;
        let error = "an agent can never decide, whatever other roles it has";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", error));
    }
    let surface = if caller.csrf.is_some() { Surface::Web } else { Surface::Rest };
    Ok(Approver { surface, id: id.clone(), display: display.clone() })
}

/// Why something about a hold came to nothing, for clients.
pub(crate) async fn unresolved(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    error: ResolveError,
) -> Problem {
    let text = error.to_string();
    let ended = |resolved: &countersign_escalation::Resolved| {
        json!(HoldView::new(resolved.hold.to_action(), Some(&resolved.outcome)))
    };
    match error {
        ResolveError::NotFound => not_found(),
        ResolveError::AlreadyResolved(resolved) => {
            Problem::new(StatusCode::CONFLICT, "already_resolved", text).with(ended(&resolved))
        }
        ResolveError::Expired(resolved) => {
            Problem::new(StatusCode::GONE, "expired", text).with(ended(&resolved))
        }
        ResolveError::OwnRequest => {
            gateway.refused(&format!("deciding its own call by {}", caller.principal.id)).await;
            Problem::new(StatusCode::FORBIDDEN, "forbidden", text)
        }
        ResolveError::Refused(refusal) => approvals::refused(&refusal),
        ResolveError::NotAllowed(_) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_allowed", text)
        }
        ResolveError::NotRecorded(_) | ResolveError::NotCounted(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_recorded", text)
        }
        ResolveError::Overruled { code, .. } => {
            Problem::new(StatusCode::CONFLICT, "overruled", text).with(json!({ "by": code }))
        }
        ResolveError::Closed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", text),
    }
}

/// A reason a person gave, if it says anything.
pub(crate) fn reason(given: Option<String>) -> Result<Option<String>, Problem> {
    if given.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
        let error = format!("a reason has at most {REASON_MAX} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", error));
    }
    Ok(given.filter(|reason| !reason.trim().is_empty()))
}

/// Reads a body that may be left out.
pub(crate) fn body<T: Default + serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    match body.trim_ascii() {
        b"" => Ok(T::default()),
        body => object(body),
    }
}

/// Reads a JSON object; serde would take an array for one.
pub(crate) fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice::<Map<String, Value>>(body)
        .and_then(|object| serde_json::from_value(Value::Object(object)))
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))
}

/// REST calls one agent may have under way: each keeps a connection, and others need some.
const CALLS_PER_AGENT: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCall {
    tool: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    /// The agent's own session, which may have many calls; grants reach as far as it does.
    session: Option<SessionId>,
    /// Sent again under the same key, the call is not made again: its outcome is given.
    idempotency_key: Option<IdempotencyKey>,
    /// Answer after so long that a person still has to decide, if that is so. Without it, the
    /// answer is the outcome.
    wait_seconds: Option<u32>,
}

/// What a call came to.
#[derive(Serialize)]
struct CallAnswer {
    call_id: Option<String>,
    is_error: bool,
    envelope: Envelope,
    receipt: Option<Receipt>,
    /// What an approver changed of the call before it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<Arc<ApprovalEdit>>,
}

/// One governed call, as a run of its own. Hanging up calls it off, unless it is held: then it
/// stays held, and is joined by the same call.
async fn make_call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer<CallAnswer> {
    require(&gateway, &caller, &[Role::Agent], "calling a tool").await?;
    let call: NewCall = object(&body)?;
    if gateway.stopping.is_cancelled() {
        let error = "the gateway is stopping; try again";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error));
    }
    let Some(place) = gateway.call_place(&caller.principal.id, CALLS_PER_AGENT) else {
        let error = format!("{CALLS_PER_AGENT} calls of this agent are under way already");
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", error));
    };
    let agent = AgentId::new(&caller.principal.id).map_err(|e| Problem::internal(&e))?;
    // A task of its own: a client that hangs up while hooks look at the run must not leave a
    // run that began and never ended.
    let starting = Arc::clone(&gateway);
    let started = gateway.calls.spawn(async move {
        let run = starting.kernel.run_start(agent, call.session, "one call over REST").await?;
        let run = Arc::new(run);
        Ok(EndRun { gateway: starting, run, place: Some(place), call: None })
    });
    let started = started.await.map_err(|error| Problem::internal(&error))?;
    // Ends the run also when the client hangs up and this future is dropped.
    let mut ending = started.map_err(|error| match error {
        RunError::Stopped(stop) => {
            let error = format!("the run may not begin: {}", stop.message);
            Problem::new(StatusCode::FORBIDDEN, stop.code, error)
        }
        RunError::Session => {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string())
        }
        error => Problem { status: StatusCode::SERVICE_UNAVAILABLE, ..Problem::internal(&error) },
    })?;
    let _tracked = gateway.calls.token();
    let options = CallOptions { kept: true, idempotency_key: call.idempotency_key, mcp: None };
    let mut made = gateway.kernel.call(&ending.run, &call.tool, &call.arguments, options);
    ending.call = Some(made.hold());
    let (hold, wait) = (made.hold(), call.wait_seconds.map(u64::from).map(Duration::from_secs));
    let still_pending = async {
        match wait {
            Some(wait) => still_pending(&gateway.kernel, hold, wait).await,
            None => std::future::pending().await,
        }
    };
    let governed = tokio::select! {
        biased;
        governed = made.outcome() => governed.map_err(|error| Problem::internal(&error))?,
        hold = still_pending => {
            let envelope = envelope(&call.tool, &hold);
            let (call_id, receipt, edited) = (None, None, None);
            let is_error = false;
            return Ok(Json(CallAnswer { call_id, is_error, envelope, receipt, edited }));
        }
        () = gateway.give_up.cancelled() => {
            made.call_off();
            let _ = made.outcome().await;
            let error = "the gateway is stopping; a held call stays held, a running one was killed";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error));
        }
    };
    Ok(Json(CallAnswer {
        call_id: governed.call_id.map(|id| id.to_string()),
        is_error: governed.envelope.status != EnvelopeStatus::Success,
        envelope: governed.envelope,
        receipt: governed.receipt,
        edited: governed.edited,
    }))
}

/// A run to be ended when this is dropped. The call keeps its place among the agent's until the
/// end is on record, so that what hooks do about it is bounded too.
struct EndRun {
    gateway: Arc<Gateway>,
    run: Arc<countersign_kernel::Run>,
    place: Option<CallPlace>,
    /// Its call, which may go on when its caller has hung up: until it is called off on record,
    /// or has ended.
    call: Option<watch::Receiver<Option<ApprovalRequestId>>>,
}

impl Drop for EndRun {
    fn drop(&mut self) {
        let (gateway, run) = (Arc::clone(&self.gateway), Arc::clone(&self.run));
        let (place, call) = (self.place.take(), self.call.take());
        self.gateway.calls.spawn(async move {
            let _place = place;
            if let Some(mut call) = call {
                while call.changed().await.is_ok() {}
            }
            if let Err(error) = gateway.kernel.run_end(&run, "the call ended").await {
                tracing::error!(%error, run = %run.id(), "the end of a run is not recorded");
            }
        });
    }
}

#[derive(Deserialize)]
struct Paging {
    limit: Option<usize>,
    before: Option<u64>,
}

#[derive(Serialize)]
struct CallLine {
    call_id: String,
    tool: String,
    agent_id: String,
    run_id: String,
    status: CallStatus,
    summary: String,
    at: String,
    seq: u64,
}

#[derive(Serialize)]
struct CallList {
    calls: Vec<CallLine>,
    next: Option<u64>,
}

/// Records looked through at once while paging back.
const WINDOW: u64 = 256;

async fn calls(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Query(paging): Query<Paging>,
) -> Answer<CallList> {
    require(&gateway, &caller, READERS, "listing calls").await?;
    let limit = paging.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    let journal = gateway.kernel.journal();
    let head = *journal.head().borrow();
    let mut end = paging.before.map_or(head + 1, |before| before.min(head + 1));
    let mut lines = Vec::new();
    // A call stands where its first record stands, so that pages do not overlap.
    while end > 1 && lines.len() < limit {
        let start = end.saturating_sub(WINDOW).max(1);
        let entries = journal
            .read(start, usize::try_from(end - start).unwrap_or(usize::MAX))
            .await
            .map_err(|error| Problem::internal(&error))?;
        let mut seen = HashSet::new();
        for entry in entries.iter().rev() {
            let Some(call) = call_of(entry) else { continue };
            if !seen.insert(call.clone()) {
                continue;
            }
            let records = call_records(&gateway, &call).await?;
            if let Some(line) = line(&call, &records)
                && line.seq >= start
                && line.seq < end
            {
                lines.push(line);
            }
        }
        end = start;
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.seq));
    let more = lines.len() > limit || end > 1;
    lines.truncate(limit);
    let next = lines.last().filter(|_| more).map(|line| line.seq);
    Ok(Json(CallList { calls: lines, next }))
}

fn call_of(entry: &Entry) -> Option<String> {
    #[derive(Deserialize)]
    struct Keys {
        #[serde(default)]
        correlation_keys: Vec<HashMap<String, String>>,
    }
    let keys: Keys = serde_json::from_slice(&entry.bytes).ok()?;
    keys.correlation_keys
        .into_iter()
        .find(|key| key.get("key").is_some_and(|key| key == TOOL_CALL_KEY))?
        .remove("value")
}

async fn call_records(gateway: &Gateway, call: &str) -> Result<Vec<JournalRecord>, Problem> {
    let entries = gateway
        .kernel
        .journal()
        .read_call(call)
        .await
        .map_err(|error| Problem::internal(&error))?;
    entries
        .iter()
        .map(|entry| serde_json::from_slice(&entry.bytes).map_err(|e| Problem::internal(&e)))
        .collect()
}

fn line(call: &str, records: &[JournalRecord]) -> Option<CallLine> {
    let first = records.first()?;
    let tool = records.iter().find_map(|record| match &record.payload {
        JournalPayload::Tool(tool) => {
            let refused =
                tool.redacted_result_summary.clone().filter(|_| tool.fingerprint.is_none());
            Some((
                tool.canonical_tool_name.clone(),
                refused.unwrap_or_else(|| tool.redacted_args_summary.clone()),
            ))
        }
        JournalPayload::Approval(countersign_core::approval::ApprovalRecord::Requested {
            request,
        }) => Some((request.canonical_tool_name.clone(), request.redacted_args_summary.clone())),
        _ => None,
    });
    let (tool, summary) = tool?;
    Some(CallLine {
        call_id: call.to_owned(),
        tool: visible(&tool).into_owned(),
        agent_id: first.agent_id.to_string(),
        run_id: first.run_id.to_string(),
        status: call_status(records)?,
        summary,
        at: rfc3339(first.timestamp_millis),
        seq: first.journal_seq,
    })
}

async fn call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Value> {
    require(&gateway, &caller, READERS, "reading a call").await?;
    let records = call_records(&gateway, &id).await?;
    let Some(line) = line(&id, &records) else {
        let error = "there is no call with this id";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", error));
    };
    let timeline: Vec<_> = records
        .iter()
        .map(|record| {
            let told = tell(record);
            json!({
                "seq": record.journal_seq,
                "record_id": record.record_id,
                "at": rfc3339(record.timestamp_millis),
                "title": told.title,
                "detail": told.detail,
                "actor": told.actor,
                "event": record.event_index.event_kind,
            })
        })
        .collect();
    let tools = || {
        records.iter().filter_map(|record| match &record.payload {
            JournalPayload::Tool(tool) => Some(tool),
            _ => None,
        })
    };
    // Content is filed under the record that brought it.
    let first = records.iter().filter(|record| !record.content_refs.is_empty());
    // What was made, where it is not what was asked.
    let first = first.min_by_key(|record| match &record.payload {
        JournalPayload::Tool(tool) if tool.patched_redacted_args_summary.is_some() => 0,
        _ => record.journal_seq,
    });
    let arguments = match first {
        Some(record) => content(&gateway, record).await?,
        None => None,
    };
    let arguments = arguments.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let last = records.iter().find(|record| match &record.payload {
        JournalPayload::Tool(tool) => !tool.result_content_refs.is_empty(),
        _ => false,
    });
    let output = match last {
        Some(record) => content(&gateway, record).await?,
        None => None,
    };
    let output = output.map(|mut bytes| {
        bytes.truncate(256 << 10);
        shown_lines(&String::from_utf8_lossy(&bytes))
    });
    let fingerprint = tools().find_map(|tool| tool.fingerprint);
    let covered = *gateway.kernel.journal().head().borrow();
    let mut view = serde_json::to_value(&line).map_err(|error| Problem::internal(&error))?;
    if let Value::Object(fields) = &mut view {
        fields.insert("fingerprint".to_owned(), json!(fingerprint));
        fields.insert("timeline".to_owned(), json!(timeline));
        fields.insert("arguments".to_owned(), json!(arguments.map(|a| visible_json(&a))));
        fields.insert("output".to_owned(), json!(output));
        fields.insert("covered_by".to_owned(), json!({ "size": covered }));
    }
    Ok(Json(view))
}

async fn content(gateway: &Gateway, record: &JournalRecord) -> Result<Option<Vec<u8>>, Problem> {
    let reference = record.content_refs.first();
    let digest = reference.and_then(|reference| Digest::parse(reference.as_str()).ok());
    let Some(digest) = digest else { return Ok(None) };
    let found = gateway.kernel.journal().content(record.journal_seq, digest).await;
    found.map_err(|error| Problem::internal(&error))
}

/// Output with its lines kept and everything that hides shown.
fn shown_lines(text: &str) -> String {
    text.split('\n').map(|line| visible(line).replace("\\t", "\t")).collect::<Vec<_>>().join("\n")
}

fn visible_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(visible(text).into_owned()),
        Value::Array(items) => items.iter().map(visible_json).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (visible(name).into_owned(), visible_json(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
