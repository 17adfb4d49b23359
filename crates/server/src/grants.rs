//! REST: approvals for a session, and taking them back.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use countersign_core::approval::ApprovalGrant;
use countersign_core::hold::{Approver, Surface};
use countersign_core::id::ApprovalRequestId;
use countersign_escalation::time::rfc3339;
use countersign_kernel::GrantStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{self, Answer, DECIDERS, READERS, require};
use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/grants", get(list)).route("/grants/{id}", delete(revoke))
}

fn view(status: &GrantStatus) -> Value {
    let GrantStatus { request_id, grant, granted_by, uses, .. } = status;
    let ApprovalGrant { agent_id, session, canonical_tool_name, arguments, .. } = grant;
    json!({
        "id": request_id,
        "agent_id": agent_id,
        "session": session,
        "tool": canonical_tool_name,
        "as_shown": arguments.keys().collect::<Vec<_>>(),
        "uses": uses,
        "max_uses": grant.max_uses,
        "expires_at": rfc3339(grant.expires_at_millis),
        "granted_by": granted_by.redacted_summary.as_deref().unwrap_or(granted_by.id.as_str()),
    })
}

async fn list(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Vec<Value>> {
    require(&gateway, &caller, READERS, "listing grants").await?;
    Ok(Json(gateway.kernel.broker().grants().iter().map(view).collect()))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoking {
    reason: Option<String>,
}

async fn revoke(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<Value> {
    require(&gateway, &caller, DECIDERS, "revoking a grant").await?;
    let Revoking { reason } = match body.trim_ascii() {
        b"" => Revoking::default(),
        body => api::object(body)?,
    };
    let reason = api::reason(reason)?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such grant");
    let id = ApprovalRequestId::new(&id).map_err(|_| none())?;
    let surface = if caller.csrf.is_some() { Surface::Web } else { Surface::Rest };
    let approver = Approver {
        surface,
        id: caller.principal.id.clone(),
        display: caller.principal.display.clone(),
    };
    match gateway.kernel.grant_revoke(&id, &approver, reason).await {
        Ok(true) => Ok(Json(json!({ "id": id, "revoked": true }))),
        Ok(false) => Err(none()),
        Err(error) => {
            let text = format!("{error}; it covers nothing until the gateway starts again");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_recorded", text))
        }
    }
}
