//! What every request passes first: the Host check, authentication, the CSRF check, and the
//! headers that every answer carries.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::auth::{Role, same_secret};
use crate::body::{self, BodyError};
use crate::gateway::Gateway;
use crate::problem::Problem;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page on another site that had its name point here cannot use the gateway.
pub(crate) async fn host(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    });
    let known = name.is_some_and(|name| gateway.hosts.iter().any(|h| h.eq_ignore_ascii_case(name)));
    let mut response = if known {
        next.run(request).await
    } else {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            "this gateway does not answer to that Host; add it to `allowed_hosts` if it should",
        )
        .into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// For the REST interface: a token or a console session, and the CSRF token with the latter.
pub(crate) async fn api(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let Some(caller) = gateway.auth.caller(request.headers()) else {
        return unauthorized(&gateway, &what).await;
    };
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if let (Some(csrf), false) = (&caller.csrf, safe) {
        let sent = request.headers().get("x-csrf-token").and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| same_secret(sent, csrf)) {
            gateway
                .refused(&format!("{what} by {} without a CSRF token", caller.principal.id))
                .await;
            return Problem::new(
                StatusCode::FORBIDDEN,
                "csrf",
                "the X-CSRF-Token header is missing or wrong; reload the console",
            )
            .into_response();
        }
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// For MCP: an agent's token, or a critic's; or none, where the operator has named who everybody
/// without one is.
pub(crate) async fn mcp(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let what = format!("{} /mcp", request.method());
    // A console session is no way in: an agent has a token.
    let token = request.headers().contains_key(header::AUTHORIZATION);
    if let (false, Some(anybody)) = (token, &gateway.anonymous) {
        request.extensions_mut().insert(Arc::clone(anybody));
        return next.run(request).await;
    }
    let caller = token.then(|| gateway.auth.caller(request.headers())).flatten();
    let (status, message) = match caller {
        Some(caller) if caller.principal.has_any(&[Role::Agent, Role::Critic]) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(caller.principal);
            return next.run(request).await;
        }
        Some(caller) => {
            gateway
                .refused(&format!(
                    "{what} by {}, who is neither agent nor critic",
                    caller.principal.id
                ))
                .await;
            (
                StatusCode::FORBIDDEN,
                "this token's principal is neither an agent nor a critic".to_owned(),
            )
        }
        None if gateway.refused_unknown(&format!("{what} with a wrong token")).await => (
            StatusCode::UNAUTHORIZED,
            "the bearer token is missing or wrong; `countersign serve` says where it is".to_owned(),
        ),
        None => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens; wait a minute".to_owned()),
    };
    // MCP clients show the message of a JSON-RPC error, and of little else.
    let error = json!({ "code": -32001, "message": message });
    let body = json!({ "jsonrpc": "2.0", "id": null, "error": error });
    let mut response = (status, axum::Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

pub(crate) async fn unauthorized(gateway: &Arc<Gateway>, what: &str) -> Response {
    if !gateway.refused_unknown(&format!("{what} with a wrong token or session")).await {
        let mut response = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_refusals",
            "too many requests with wrong tokens; wait a minute",
        )
        .into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        return response;
    }
    let mut response = Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "a bearer token or a console session is needed; `countersign serve` says where they are",
    )
    .into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Reads the body before anybody looks at it, within bounds.
pub(crate) async fn body(State(max): State<usize>, mut request: Request, next: Next) -> Response {
    let sent = std::mem::take(request.body_mut());
    let error = match body::read(sent, max, body::TIMEOUT).await {
        Ok(bytes) => {
            *request.body_mut() = Body::from(bytes);
            return next.run(request).await;
        }
        Err(error) => error,
    };
    let (status, code) = match error {
        BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        BodyError::Broken => (StatusCode::BAD_REQUEST, "bad_request"),
        BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
    };
    let mut response = Problem::new(status, code, error.to_string()).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
