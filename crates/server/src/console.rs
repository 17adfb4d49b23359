//! The console: files in the binary, and signing in.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::auth::{Principal, Role, SESSION_COOKIE};
use crate::gateway::Gateway;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("console/index.html")))
        .route("/login", get(login_page).post(login))
        .route(
            "/assets/app.js",
            file("text/javascript; charset=utf-8", include_str!("console/app.js")),
        )
        .route(
            "/assets/style.css",
            file("text/css; charset=utf-8", include_str!("console/style.css")),
        )
        .route("/assets/favicon.svg", file("image/svg+xml", include_str!("console/favicon.svg")))
}

#[derive(Deserialize)]
struct Code {
    code: Option<String>,
}

async fn login_page(
    State(gateway): State<Arc<Gateway>>,
    method: Method,
    Query(query): Query<Code>,
) -> Response {
    // A preview asks with HEAD, and must not use the link up.
    let Some(code) = query.code.filter(|_| method == Method::GET) else {
        let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        return (kind, include_str!("console/login.html")).into_response();
    };
    match gateway.auth.redeem(&code) {
        Some(principal) => signed_in(&gateway, principal),
        None => refused(&gateway, "a used or wrong one-time link").await,
    }
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

async fn login(State(gateway): State<Arc<Gateway>>, Form(form): Form<Token>) -> Response {
    match gateway.auth.by_token(form.token.trim()) {
        Some(principal) if principal.has_any(&[Role::Approver, Role::Auditor, Role::Admin]) => {
            signed_in(&gateway, principal)
        }
        _ => refused(&gateway, "a wrong token at the console").await,
    }
}

async fn refused(gateway: &Arc<Gateway>, what: &str) -> Response {
    let counted = gateway.refused_unknown(what).await;
    Redirect::to(if counted { "/login?error=1" } else { "/login?error=rate" }).into_response()
}

fn signed_in(gateway: &Gateway, principal: Arc<Principal>) -> Response {
    let cookie = match gateway.auth.sign_in(principal) {
        Ok(cookie) => cookie,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let secure = if gateway.secure_cookie { "; Secure" } else { "" };
    let cookie = format!("{SESSION_COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict{secure}");
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

pub(crate) async fn logout(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    gateway.auth.sign_out(&headers);
    let gone = format!("{SESSION_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        response.headers_mut().insert(header::SET_COOKIE, gone);
    }
    response
}
