//! REST: other arguments for a held call, shown before they are confirmed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use countersign_core::digest::Digest;
use countersign_core::hold::{Decision, HeldAction};
use countersign_core::id::ApprovalRequestId;
use countersign_escalation::{Voted, Voter};
use countersign_kernel::{EditError, EditPreview};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::{self, Answer};
use crate::approvals;
use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/approvals/{id}/edit", post(preview))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Editing {
    /// All of them, in the place of those that were given.
    arguments: Map<String, Value>,
}

/// A held call as it would be with other arguments. An approval that names its fingerprint and
/// the arguments makes it so.
#[derive(Serialize)]
struct Preview {
    fingerprint: Digest,
    rendering_digest: Digest,
    summary: String,
    context_snapshot: Value,
    arguments: Map<String, Value>,
    /// The hold as it is.
    hold: HeldAction,
}

async fn preview(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<Preview> {
    let approver = api::decider(&gateway, &caller, "editing a call").await?;
    let Editing { arguments } = api::object(&body)?;
    let id = api::hold_id(&id)?;
    let voter = approvals::voter(&gateway, approver, &caller.principal, None).await?;
    match gateway.kernel.edit_preview(&id, &voter, &arguments) {
        Ok(EditPreview { held, fingerprint, rendering_digest, summary, context }) => {
            let (context_snapshot, hold) = (context, held.to_action());
            Ok(Json(Preview {
                fingerprint,
                rendering_digest,
                summary,
                context_snapshot,
                arguments,
                hold,
            }))
        }
        Err(error) => Err(refused(&gateway, &caller, error).await),
    }
}

/// Changes a held call and approves it so.
pub(crate) async fn approve(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    (id, voter, decision): (&ApprovalRequestId, Voter, Decision),
    arguments: Map<String, Value>,
    confirmed: Option<Digest>,
) -> Result<Voted, Problem> {
    let Some(confirmed) = confirmed else {
        let error = "an approval with other arguments has to name the fingerprint that the \
                     changed call has: ask for it with `edit` first";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "fingerprint_required", error));
    };
    match gateway.kernel.edit(id, voter, decision, arguments, confirmed).await {
        Ok(voted) => Ok(voted),
        Err(error) => Err(refused(gateway, caller, error).await),
    }
}

/// Why a held call is not changed, for clients.
async fn refused(gateway: &Arc<Gateway>, caller: &Caller, error: EditError) -> Problem {
    let text = error.to_string();
    let (status, code, details) = match error {
        EditError::Hold(error) => return api::unresolved(gateway, caller, error).await,
        EditError::Arguments(problems) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "bad_arguments", json!({ "arguments": problems }))
        }
        EditError::Stale => (StatusCode::CONFLICT, "stale", Value::Null),
        EditError::OtherRule(rule) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "other_rule", json!({ "rule": rule }))
        }
        EditError::OtherFingerprint(fingerprint) => {
            (StatusCode::CONFLICT, "fingerprint_mismatch", json!({ "fingerprint": fingerprint }))
        }
        EditError::Hook { code, .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "hook_refused", json!({ "by": code }))
        }
    };
    Problem::new(status, code, text).with(details)
}
