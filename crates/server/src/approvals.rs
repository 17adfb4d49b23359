//! REST: the list of held calls, claims, and who answers for whom.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use countersign_core::hold::{Approver, HeldAction, HoldPolicy};
use countersign_escalation::{Cursor, Delegation, Held, Refusal, Voter};
use countersign_kernel::APPROVERS;
use serde::Deserialize;

use crate::api::{self, Answer, DECIDERS, HoldView, READERS, require};
use crate::auth::{Caller, Principal, Role};
use crate::gateway::Gateway;
use crate::problem::Problem;

/// Holds of one page, and of a list nobody asked to have in pages.
const PAGE_MAX: usize = 1000;

/// How long a claim lasts unless told otherwise, and at most, in minutes.
const CLAIM_MINUTES: (u64, u64) = (10, 240);

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/approvals", get(list))
        .route("/approvals/{id}/claim", post(claim))
        .route("/approvals/{id}/release", post(release))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
}

/// The pending holds the caller is concerned with, the oldest first. More of them are a page
/// further, at the address in the `Link` header.
async fn list(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Query(paging): Query<Paging>,
) -> Result<(HeaderMap, Json<Vec<HeldAction>>), Problem> {
    require(&gateway, &caller, READERS, "listing approvals").await?;
    let limit = paging.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let mut after = match &paging.after {
        None => None,
        Some(text) => Some(text.parse::<Cursor>().map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string())
        })?),
    };
    let sight = Sight::of(&gateway, &caller.principal);
    let (mut holds, mut next): (Vec<Held>, _) = (Vec::new(), None);
    // One more than asked for tells whether there is a next page.
    while holds.len() <= limit {
        let page = gateway.kernel.queue().page(after.as_ref(), limit);
        holds.extend(page.holds.into_iter().filter(|held| sight.includes(held)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if holds.len() > limit {
        holds.truncate(limit);
        next = holds.last().map(Cursor::after);
    }
    let mut headers = HeaderMap::new();
    if let Some(next) = next {
        let link = format!("</api/v1/approvals?limit={limit}&after={next}>; rel=\"next\"");
        headers.extend(HeaderValue::from_str(&link).ok().map(|link| (LINK, link)));
    }
    Ok((headers, Json(holds.iter().map(Held::to_action).collect())))
}

/// Which holds a principal is shown.
struct Sight {
    all: bool,
    id: String,
    /// Their own groups, and those of the principals they may answer for now.
    groups: Vec<String>,
}

impl Sight {
    fn of(gateway: &Gateway, principal: &Principal) -> Self {
        let now = gateway.auth.now();
        let mut groups = groups_of(principal);
        for delegation in &gateway.delegations {
            if delegation.covers(&principal.id, now)
                && let Some(delegator) = gateway.auth.principal(delegation.delegator())
            {
                groups.extend(groups_of(delegator));
            }
        }
        let all = principal.has_any(&[Role::Auditor, Role::Admin]);
        Self { all, id: principal.id.clone(), groups }
    }

    fn includes(&self, held: &Held) -> bool {
        self.all || held.policy().is_none_or(|policy| self.concerns(policy))
    }

    /// Whether they may decide, now or after some time.
    fn concerns(&self, policy: &HoldPolicy) -> bool {
        !policy.excluded().contains(&self.id)
            && policy.groups().any(|group| self.groups.iter().any(|own| own == group))
    }
}

/// The groups a principal's approval may count for.
fn groups_of(principal: &Principal) -> Vec<String> {
    let decides = principal.has_any(DECIDERS).then(|| APPROVERS.to_owned());
    principal.groups.iter().cloned().chain(decides).collect()
}

/// Who answers: the caller, for themselves or by a delegation.
pub(crate) async fn voter(
    gateway: &Arc<Gateway>,
    approver: Approver,
    principal: &Principal,
    on_behalf_of: Option<&str>,
) -> Result<Voter, Problem> {
    let Some(name) = on_behalf_of else {
        return Ok(Voter::of(approver, groups_of(principal)));
    };
    let now = gateway.auth.now();
    let theirs = |delegation: &&Delegation| {
        delegation.delegator() == name && delegation.delegate() == principal.id
    };
    let delegations: Vec<_> = gateway.delegations.iter().filter(theirs).collect();
    let in_force = delegations.iter().find(|delegation| delegation.covers(&principal.id, now));
    // One that is over gets the queue's own refusal.
    let delegation = in_force.or(delegations.last()).copied().cloned();
    match (delegation, gateway.auth.principal(name)) {
        (Some(delegation), Some(delegator)) => {
            Ok(Voter { groups: groups_of(delegator), on_behalf_of: Some(delegation), approver })
        }
        _ => {
            let who = &principal.id;
            gateway.refused(&format!("deciding for somebody else by {who}")).await;
            let error = format!("no delegation lets `{who}` answer for `{name}`");
            Err(Problem::new(StatusCode::FORBIDDEN, "not_delegated", error))
        }
    }
}

/// Why what a person wants does not count, for clients.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    let (status, code) = match refusal {
        Refusal::OwnRequest => (StatusCode::FORBIDDEN, "forbidden"),
        Refusal::Excluded(_) => (StatusCode::FORBIDDEN, "excluded"),
        Refusal::NoGroup(_) => (StatusCode::FORBIDDEN, "no_group"),
        Refusal::NotDelegated(_) => (StatusCode::FORBIDDEN, "not_delegated"),
        Refusal::AlreadyVoted(_) => (StatusCode::CONFLICT, "already_voted"),
        Refusal::OtherCall => (StatusCode::CONFLICT, "fingerprint_mismatch"),
        Refusal::Claimed(_) => (StatusCode::CONFLICT, "claimed"),
        Refusal::NotClaimed(_) => (StatusCode::CONFLICT, "not_claimed"),
        Refusal::SharedGrant => (StatusCode::UNPROCESSABLE_ENTITY, "shared_grant"),
        Refusal::SameCall => (StatusCode::UNPROCESSABLE_ENTITY, "same_call"),
    };
    Problem::new(status, code, refusal.to_string())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claiming {
    /// How long it is good at most.
    minutes: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn claim(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<HoldView> {
    let by = api::decider(&gateway, &caller, "claiming a call").await?;
    let Claiming { minutes } = api::body(&body)?;
    let (usual, most) = CLAIM_MINUTES;
    let minutes = minutes.unwrap_or(usual);
    if !(1..=most).contains(&minutes) {
        let error = format!("a claim is good from 1 to {most} minutes");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", error));
    }
    let time = Duration::from_secs(minutes * 60);
    let claimed = gateway.kernel.claim(&api::hold_id(&id)?, by, time).await;
    changed(&gateway, &caller, claimed).await
}

async fn release(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer<HoldView> {
    let by = api::decider(&gateway, &caller, "releasing a claim").await?;
    let Nothing {} = api::body(&body)?;
    let released = gateway.kernel.unclaim(&api::hold_id(&id)?, by).await;
    changed(&gateway, &caller, released).await
}

async fn changed(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    changed: Result<Held, countersign_escalation::ResolveError>,
) -> Answer<HoldView> {
    match changed {
        Ok(held) => Ok(Json(HoldView::new(held.to_action(), None))),
        Err(error) => Err(api::unresolved(gateway, caller, error).await),
    }
}
