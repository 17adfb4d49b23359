//! In front of rmcp: whose session it is, one deadline and one limit for every body, and
//! refusals in the form that MCP clients show to people.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::sessions::{DELETING, Sessions};
use super::tasks::TaskAsked;
use crate::auth::Principal;
use crate::body::{self, BodyError};

const SESSION: &str = "mcp-session-id";

const PARSE: i32 = -32700;
const INVALID: i32 = -32600;
const INTERNAL: i32 = -32603;
const NO_SESSION: i32 = -32001;

pub(crate) struct Gate {
    pub(crate) sessions: Sessions,
    pub(crate) max_body_bytes: usize,
}

pub(crate) async fn gate(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(principal) = request.extensions().get::<Arc<Principal>>().cloned() else {
        return refusal(StatusCode::UNAUTHORIZED, NO_SESSION, "a bearer token is needed");
    };
    let method = request.method().clone();
    let mut ids = request.headers().get_all(SESSION).iter();
    match (ids.next(), ids.next()) {
        // GET and DELETE never get to the handler, so ownership is decided here. Somebody
        // else's session and no session look the same.
        (Some(id), None) => {
            let id = id.to_str().unwrap_or_default();
            if !gate.sessions.used_by(id, &principal) {
                return refusal(StatusCode::NOT_FOUND, NO_SESSION, "there is no such session");
            }
        }
        (None, _) if matches!(method, Method::GET | Method::DELETE) => {
            let text = "this needs the Mcp-Session-Id that `initialize` was answered with";
            return refusal(StatusCode::BAD_REQUEST, INVALID, text);
        }
        (None, _) => {}
        (Some(_), Some(_)) => {
            let text = "there is more than one Mcp-Session-Id";
            return refusal(StatusCode::BAD_REQUEST, INVALID, text);
        }
    }
    if method == Method::POST {
        let body = std::mem::take(request.body_mut());
        match body::read(body, gate.max_body_bytes, body::TIMEOUT).await {
            Ok(bytes) => {
                if let Some(refused) = malformed(request.headers(), &bytes) {
                    return refused;
                }
                match task_asked(&bytes) {
                    Ok(None) => {}
                    Ok(Some(asked)) => drop(request.extensions_mut().insert(asked)),
                    Err(error) => {
                        let text = format!("`task` does not fit tools/call: {error}");
                        return refusal(StatusCode::BAD_REQUEST, INVALID, &text);
                    }
                }
                *request.body_mut() = Body::from(bytes);
            }
            Err(error) => {
                let status = match error {
                    BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                    BodyError::Broken => StatusCode::BAD_REQUEST,
                    BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                };
                let mut refused = refusal(status, INVALID, &error.to_string());
                if error == BodyError::TooSlow {
                    // The rest of the body may still be on its way.
                    let close = HeaderValue::from_static("close");
                    refused.headers_mut().insert(header::CONNECTION, close);
                }
                return refused;
            }
        }
    }
    if method == Method::DELETE {
        let mut response = DELETING.scope((), next.run(request)).await;
        if response.status() == StatusCode::ACCEPTED {
            // Some clients warn about a 202 here.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        return as_json_rpc(response).await;
    }
    let response = as_json_rpc(next.run(request).await).await;
    match method {
        Method::POST if is(response.headers(), "text/event-stream") => counted(&gate, response),
        _ => response,
    }
}

/// A stop waits for an answer that is being written.
fn counted(gate: &Gate, response: Response) -> Response {
    let token = gate.sessions.bodies().token();
    response.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |frame| {
            let _ = &token;
            frame
        }))
    })
}

fn refusal(status: StatusCode, code: i32, message: &str) -> Response {
    let error = json!({ "code": code, "message": message });
    (status, Json(json!({ "jsonrpc": "2.0", "id": null, "error": error }))).into_response()
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
    })
}

/// What rmcp does not read of a call: that its client wants a task.
fn task_asked(bytes: &[u8]) -> Result<Option<TaskAsked>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Message {
        method: Option<String>,
        params: Option<Params>,
    }
    #[derive(Deserialize)]
    struct Params {
        task: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Task {
        ttl: Option<u64>,
    }
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else { return Ok(None) };
    if message.method.as_deref() != Some("tools/call") {
        return Ok(None);
    }
    let Some(task) = message.params.and_then(|params| params.task) else { return Ok(None) };
    let Task { ttl } = serde_json::from_value(task)?;
    Ok(Some(TaskAsked { ttl_ms: ttl }))
}

/// rmcp does not tell JSON that is broken from a wrong kind of content.
fn malformed(headers: &HeaderMap, bytes: &[u8]) -> Option<Response> {
    if !is(headers, "application/json") {
        return None;
    }
    let error = serde_json::from_slice::<IgnoredAny>(bytes).err()?;
    let text = format!("the body is not JSON: {error}");
    Some(refusal(StatusCode::BAD_REQUEST, PARSE, &text))
}

/// rmcp refuses in plain text, which clients hide.
async fn as_json_rpc(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error())
        || is(response.headers(), "application/json")
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, 64 << 10).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text = match text.trim() {
        "" => status.canonical_reason().unwrap_or("refused"),
        text => text,
    };
    let (status, code, text) = match status {
        StatusCode::NOT_FOUND => (status, NO_SESSION, "there is no such session"),
        // Its content is called JSON, and it is.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if text.starts_with("fail to deserialize") => {
            (StatusCode::BAD_REQUEST, INVALID, "the body is not one JSON-RPC message")
        }
        _ if status.is_server_error() => (status, INTERNAL, text),
        _ => (status, INVALID, text),
    };
    let mut refused = refusal(status, code, text);
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::TRANSFER_ENCODING);
    refused.headers_mut().extend(parts.headers);
    refused
}
