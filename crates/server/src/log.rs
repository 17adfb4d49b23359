//! The log for those who check it: checkpoint and tiles (C2SP `tlog-tiles`), and receipts.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use countersign_audit::receipt::Receipt;
use countersign_audit::tiles;
use countersign_core::journal::{JournalPayload, JournalRecord};
use countersign_core::tool::ToolCallStatus;
use countersign_ports::journal::ReadError;
use countersign_ports::log::{Log, Proven};

use crate::api::{Answer, READERS, require};
use crate::auth::{Caller, Role};
use crate::gate;
use crate::gateway::Gateway;
use crate::problem::Problem;

/// For any tile client: the log's address is the gateway's own.
pub(crate) fn files() -> Router<Arc<Gateway>> {
    Router::new().route("/checkpoint", get(checkpoint)).route("/tile/{*path}", get(tile))
}

/// Below `/api/v1`.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/receipts/{call}", get(receipt))
}

fn log(gateway: &Gateway) -> Result<&dyn Log, Problem> {
    let none = "this gateway's journal does not sign, so there is nothing to prove";
    let problem = || Problem::new(StatusCode::NOT_FOUND, "no_log", none);
    gateway.log.as_deref().ok_or_else(problem)
}

fn unreadable(error: &ReadError) -> Problem {
    Problem::internal(error)
}

/// For what tells nothing but how many records there are, and when: any principal, or everybody.
async fn admit(gateway: &Arc<Gateway>, headers: &HeaderMap, what: &str) -> Result<(), Response> {
    if gateway.public_log || gateway.auth.caller(headers).is_some() {
        return Ok(());
    }
    Err(gate::unauthorized(gateway, what).await)
}

/// Records are nobody's business but that of those who may read them.
async fn admit_reader(gateway: &Arc<Gateway>, headers: &HeaderMap) -> Result<(), Response> {
    let what = "reading the log";
    match gateway.auth.caller(headers) {
        Some(caller) => {
            require(gateway, &caller, READERS, what).await.map_err(Problem::into_response)
        }
        None => Err(gate::unauthorized(gateway, what).await),
    }
}

fn file(bytes: Vec<u8>, kind: &'static str, cache: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), bytes).into_response()
}

async fn checkpoint(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&gateway, &headers, "GET /checkpoint").await {
        return refused;
    }
    let found = match log(&gateway) {
        Ok(log) => log.checkpoint().await.map_err(|error| unreadable(&error)),
        Err(problem) => Err(problem),
    };
    match found {
        Ok(Some(note)) => file(note.into_bytes(), "text/plain; charset=utf-8", "no-cache"),
        Ok(None) => nothing("nothing has been signed yet").into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn nothing(why: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", why)
}

async fn tile(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/').to_owned();
    let entries = !matches!(tiles::parse(&path), Some((tiles::Row::Hashes(_), ..)));
    let admitted = match entries {
        true => admit_reader(&gateway, &headers).await,
        false => admit(&gateway, &headers, "GET /tile").await,
    };
    if let Err(refused) = admitted {
        return refused;
    }
    let found = match log(&gateway) {
        Ok(log) => log.tile(&path).await.map_err(|error| unreadable(&error)),
        Err(problem) => Err(problem),
    };
    // A tile never changes, whole or partial: its width is in its address.
    let cache = match gateway.public_log && !entries {
        true => "public, max-age=31536000, immutable",
        false => "private, max-age=31536000, immutable",
    };
    match found {
        Ok(Some(bytes)) => file(bytes, "application/octet-stream", cache),
        Ok(None) => nothing("the log has no such tile, or not yet").into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// The receipt for the last record of a call. An agent gets one for its own calls, and none of
/// what a hook may have kept from it.
async fn receipt(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(call): Path<String>,
) -> Answer<Receipt> {
    let asking = &[READERS, &[Role::Agent]].concat();
    require(&gateway, &caller, asking, "fetching a receipt").await?;
    let none = || nothing("there is no call with this id");
    let read = gateway.kernel.journal().read_call(&call).await;
    let entries = read.map_err(|error| unreadable(&error))?;
    let seq = if caller.principal.has_any(READERS) {
        entries.last().ok_or_else(none)?.seq
    } else {
        let records = entries
            .iter()
            .map(|entry| countersign_core::json::read(&entry.bytes))
            .collect::<Result<Vec<JournalRecord>, _>>()
            .map_err(|error| Problem::internal(&error))?;
        // Whether somebody else's call is there is nothing an agent may learn.
        let own = records.iter().all(|record| record.agent_id.as_str() == caller.principal.id);
        let shown = own.then(|| shown_to_agent(&records)).flatten();
        shown.ok_or_else(none)?.journal_seq
    };
    let proven = log(&gateway)?.proven(seq).await.map_err(|error| unreadable(&error))?;
    let Proven { entry, coverage } = proven.ok_or_else(none)?;
    let record = String::from_utf8(entry.bytes).map_err(|error| Problem::internal(&error))?;
    Ok(Json(Receipt::new(seq, record, &coverage.proof, coverage.checkpoint.to_string())))
}

/// The record of a call whose proof its agent may have: that of the result or the refusal, or,
/// while there is none or when hooks have acted behind it, of the announcement. A result holds
/// the digest of an output that a hook may have kept from the agent.
fn shown_to_agent(records: &[JournalRecord]) -> Option<&JournalRecord> {
    let step = |record: &JournalRecord| match &record.payload {
        JournalPayload::Tool(tool) => Some((tool.status, tool.effect_result.is_some())),
        _ => None,
    };
    let ended = records.iter().rposition(|record| step(record).is_some_and(|(_, ended)| ended));
    let untouched = |at: &usize| {
        let behind = records.get(at + 1..).unwrap_or_default();
        !behind.iter().any(|record| {
            matches!(&record.payload, JournalPayload::Hook(_) | JournalPayload::Tool(_))
        })
    };
    match ended.filter(untouched) {
        Some(at) => records.get(at),
        None => records.iter().rev().find(|record| {
            step(record).is_some_and(|(status, _)| status == ToolCallStatus::IntentRecorded)
        }),
    }
}
