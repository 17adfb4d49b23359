//! Asking for approval: requested, announced, put before somebody, ended. Each of these is
//! durable before the next can be seen, and an ending before anybody learns of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::approval::{
    ApprovalDecision, ApprovalEvent, ApprovalGrant, ApprovalLifecycleStatus, ApprovalOutcome,
    ApprovalRecord, ApprovalRequest, ApprovalRequestError, ApprovalTerminalStatus, DecisionRefused,
    GrantCall,
};
use countersign_core::effect::EffectTerminalStatus;
use countersign_core::hook::{HookPoint, HookView};
use countersign_core::id::{ApprovalRequestId, RuntimePackageFingerprint};
use countersign_core::refs::SourceRef;
use countersign_ports::clock::Clock;
use countersign_ports::journal::{AppendError, Batch, Content, Journal};
use serde_json::json;

use crate::hooks::{Brake, HookCoordinator, HookMoment, HookStop, Observed};
use crate::records::approval_revoking;
use crate::records::{BuildError, Ending, approval_base, approval_closing, approval_opening};

/// Puts one question before whoever decides, and has the answer recorded.
#[async_trait]
pub trait ApprovalDispatcher: Send + Sync {
    /// Puts the question, whose records are durable, and returns when [`Asked::settle`] has
    /// made an answer durable. Before that, nobody may learn of it.
    ///
    /// Dropping the future means that whoever asked went away.
    ///
    /// # Errors
    /// When the question could not be put, or nothing can be settled any more. A dispatcher
    /// that returns without an answer has failed.
    async fn dispatch(&self, asked: Asked) -> Result<(), DispatchError>;

    /// Whether the dispatcher settles a question itself when its time is over. If not, the
    /// broker does, and drops the future.
    fn keeps_deadline(&self) -> bool {
        false
    }
}

/// A question before a dispatcher.
pub struct Asked {
    broker: ApprovalBroker,
    request: Arc<ApprovalRequest>,
}

impl Asked {
    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &ApprovalRequest {
        &self.request
    }

    /// Records an answer. Returns when it is durable.
    ///
    /// # Errors
    /// When it does not count, and then the question stays open, or could not be recorded.
    pub async fn settle(&self, decision: ApprovalDecision) -> Result<ApprovalOutcome, SettleError> {
        let id = &self.request.approval_request_id;
        self.broker.settle(id, Answer::Decided(decision)).await
    }
}

/// Why a question was not put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// There is nobody to put it to now.
    #[error("nobody can be asked: {0}")]
    Unavailable(String),
    /// Putting it failed.
    #[error("asking failed: {0}")]
    Failed(String),
    /// The process is stopping. The question stays open, for the next start.
    #[error("stopping: the question stays open")]
    Stopping,
}

/// How a question ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Somebody answered.
    Decided(ApprovalDecision),
    /// Nobody did: [`ApprovalEvent::Deadline`], `CallOff`, `DispatcherMissing`,
    /// `DispatcherFailed` or `FoundLapsed`; and a stable code.
    Unanswered(ApprovalEvent, String),
}

/// Why an answer is not recorded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettleError {
    /// No open question has this id.
    #[error("there is no open approval request {0}")]
    Unknown(ApprovalRequestId),
    /// It has ended already.
    #[error("the approval request has ended: {0}")]
    Ended(ApprovalLifecycleStatus),
    /// The answer does not count. The question stays open.
    #[error(transparent)]
    Refused(#[from] DecisionRefused),
    /// It would cover more than the call allows. The question stays open.
    #[error("an approval for the session cannot cover that: {0}")]
    Grant(String),
    /// It could not be made durable. The question stays open in the journal.
    #[error("the answer is not recorded: {0}")]
    NotRecorded(String),
}

/// Why a question was not asked to its end.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It breaks a rule of the contract. Nothing was recorded.
    #[error("the approval request is not valid")]
    Invalid(#[from] ApprovalRequestError),
    /// It, or its end, could not be recorded.
    #[error("not recorded: {0}")]
    NotRecorded(String),
    /// The process is stopping. The question stays open, for the next start.
    #[error("stopping: the question stays open")]
    Stopping,
}

impl From<AppendError> for AskError {
    fn from(error: AppendError) -> Self {
        Self::NotRecorded(format!("journal: {error}"))
    }
}

impl From<BuildError> for AskError {
    fn from(error: BuildError) -> Self {
        Self::NotRecorded(error.to_string())
    }
}

/// A question to ask.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub request: ApprovalRequest,
    /// Content the request speaks about.
    pub contents: Vec<Content>,
    /// What an approval for the session could cover at most: exactly the call at hand. An
    /// approver's terms loosen arguments, and set the uses and the end. `None` when such an
    /// approval can cover this call only.
    pub coverable: Option<ApprovalGrant>,
    /// The run's brake.
    pub brake: Brake,
}

struct Open {
    request: Arc<ApprovalRequest>,
    coverable: Option<ApprovalGrant>,
    brake: Brake,
    /// Held while an ending is being written, so that there is one.
    state: tokio::sync::Mutex<State>,
}

struct State {
    status: ApprovalLifecycleStatus,
    outcome: Option<ApprovalOutcome>,
}

/// A grant, and how much of it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantStatus {
    /// The approval request by whose answer it was given.
    pub request_id: ApprovalRequestId,
    /// What it covers.
    pub grant: ApprovalGrant,
    /// Who gave it.
    pub granted_by: SourceRef,
    /// How many calls were released by it.
    pub uses: u64,
    pub(crate) request: Arc<ApprovalRequest>,
}

/// One use of a grant, taken before the call's intent is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantUse {
    pub(crate) request_id: ApprovalRequestId,
    pub(crate) number: u64,
}

struct Inner {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    package: RuntimePackageFingerprint,
    hooks: HookCoordinator,
    open: Mutex<HashMap<ApprovalRequestId, Arc<Open>>>,
    grants: Mutex<BTreeMap<ApprovalRequestId, GrantStatus>>,
}

/// Asks for approval and keeps grants. Clones are handles to one broker.
#[derive(Clone)]
pub struct ApprovalBroker(Arc<Inner>);

impl ApprovalBroker {
    /// A broker without open questions or grants. `package` stands in the records it writes.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        hooks: HookCoordinator,
        package: RuntimePackageFingerprint,
    ) -> Self {
        let (open, grants) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { journal, clock, package, hooks, open, grants }))
    }

    /// Asks, and returns how it ended. The request and its announcement are durable before the
    /// dispatcher sees them, the ending before this returns. Without a dispatcher the answer
    /// is no, and that is recorded too.
    ///
    /// Dropping the future leaves the question open in the journal unless the dispatcher
    /// settles it.
    ///
    /// # Errors
    /// When the question is not valid or something could not be recorded: nothing is released.
    pub async fn ask(
        &self,
        question: Question,
        dispatcher: Option<&dyn ApprovalDispatcher>,
    ) -> Result<ApprovalOutcome, AskError> {
        let open = self.open(question).await?;
        let id = open.request.approval_request_id.clone();
        let unanswered = |event, code: &str| Answer::Unanswered(event, code.to_owned());
        let Some(dispatcher) = dispatcher else {
            let missing =
                unanswered(ApprovalEvent::DispatcherMissing, "missing.approval_dispatcher");
            return self.end(&id, missing).await;
        };
        self.dispatched(&id).await;
        let asked = Asked { broker: self.clone(), request: Arc::clone(&open.request) };
        let left = open.request.expires_at_millis().saturating_sub(self.now());
        let deadline = async {
            match dispatcher.keeps_deadline() {
                true => std::future::pending().await,
                false => tokio::time::sleep(Duration::from_millis(left)).await,
            }
        };
        let dispatched = tokio::select! {
            biased;
            dispatched = dispatcher.dispatch(asked) => dispatched,
            () = deadline => {
                return self.end(&id, unanswered(ApprovalEvent::Deadline, "approval.timeout")).await;
            }
        };
        let failed = match dispatched {
            Ok(()) => {
                if let Some(outcome) = open.state.lock().await.outcome.clone() {
                    return Ok(outcome);
                }
                unanswered(ApprovalEvent::DispatcherFailed, "approval.dispatcher_error")
            }
            Err(DispatchError::Stopping) => return Err(AskError::Stopping),
            Err(DispatchError::Unavailable(code)) => {
                Answer::Unanswered(ApprovalEvent::DispatcherFailed, code)
            }
            Err(DispatchError::Failed(error)) => {
                tracing::error!(request = %id, error, "asking for approval failed");
                unanswered(ApprovalEvent::DispatcherFailed, "approval.dispatcher_error")
            }
        };
        self.end(&id, failed).await
    }

    async fn end(
        &self,
        id: &ApprovalRequestId,
        answer: Answer,
    ) -> Result<ApprovalOutcome, AskError> {
        let open = self.find(id);
        match self.settle(id, answer).await {
            Ok(outcome) => Ok(outcome),
            // Somebody was faster; theirs is the ending.
            Err(SettleError::Ended(_) | SettleError::Unknown(_)) => {
                let outcome = match open {
                    Some(open) => open.state.lock().await.outcome.clone(),
                    None => None,
                };
                outcome.ok_or_else(|| AskError::NotRecorded("the ending is not known".to_owned()))
            }
            Err(error) => Err(AskError::NotRecorded(error.to_string())),
        }
    }

    async fn open(&self, question: Question) -> Result<Arc<Open>, AskError> {
        let Question { request, contents, coverable, brake } = question;
        request.validate()?;
        let drafts = approval_opening(&request, &self.0.package, self.now())?;
        self.0.journal.append(Batch { drafts, contents }).await?;
        Ok(self.insert(Arc::new(request), coverable, brake))
    }

    /// Takes up a question whose request and announcement are in the journal.
    pub(crate) fn resume(&self, request: Arc<ApprovalRequest>, coverable: Option<ApprovalGrant>) {
        self.insert(request, coverable, Brake::default());
    }

    fn insert(
        &self,
        request: Arc<ApprovalRequest>,
        coverable: Option<ApprovalGrant>,
        brake: Brake,
    ) -> Arc<Open> {
        let id = request.approval_request_id.clone();
        let status = ApprovalLifecycleStatus::DispatchIntentRecorded;
        let state = tokio::sync::Mutex::new(State { status, outcome: None });
        let open = Arc::new(Open { request, coverable, brake, state });
        lock(&self.0.open).insert(id, Arc::clone(&open));
        open
    }

    /// Notes that somebody can see the question now.
    pub(crate) async fn dispatched(&self, id: &ApprovalRequestId) {
        if let Some(open) = self.find(id) {
            let mut state = open.state.lock().await;
            if let Ok(status) = state.status.step(ApprovalEvent::Dispatched) {
                state.status = status;
            }
        }
    }

    fn find(&self, id: &ApprovalRequestId) -> Option<Arc<Open>> {
        lock(&self.0.open).get(id).cloned()
    }

    /// Whether an answer to this open question would count, without recording anything.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check(
        &self,
        id: &ApprovalRequestId,
        decision: &ApprovalDecision,
    ) -> Result<(), SettleError> {
        let open = self.find(id).ok_or_else(|| SettleError::Unknown(id.clone()))?;
        Ok(open.request.admits(decision)?)
    }

    /// The grant that these terms make of an open question's call; `None` when there can be
    /// none.
    pub(crate) fn coverable(&self, id: &ApprovalRequestId) -> Option<ApprovalGrant> {
        self.find(id)?.coverable.clone()
    }

    /// Ends an open question. Returns once the ending is durable; nobody has learned of it
    /// before. Hooks at `after_approval_decision` have seen it, and if one of them stopped the
    /// step, the ending is a denial, which is recorded beside the decision.
    ///
    /// # Errors
    /// When the answer does not count, comes second, or cannot be recorded.
    pub async fn settle(
        &self,
        id: &ApprovalRequestId,
        answer: Answer,
    ) -> Result<ApprovalOutcome, SettleError> {
        let open = self.find(id).ok_or_else(|| SettleError::Unknown(id.clone()))?;
        let mut state = open.state.lock().await;
        let (request, now) = (&*open.request, self.now());
        let (ending, granted) = ending(request, answer, now)?;
        if let Some((grant, _)) = &granted {
            within(grant, open.coverable.as_ref()).map_err(SettleError::Grant)?;
        }
        let status =
            state.status.step(ending.event).map_err(|_| SettleError::Ended(state.status))?;
        let not_recorded =
            |error: &dyn std::fmt::Display| SettleError::NotRecorded(error.to_string());
        let drafts = approval_closing(request, &ending, &self.0.package, now)
            .map_err(|error| not_recorded(&error))?;
        let batch = Batch { drafts, contents: Vec::new() };
        self.0.journal.append(batch).await.map_err(|error| not_recorded(&error))?;
        state.status = status;
        let mut outcome = ending.outcome;
        if let Some((grant, granted_by)) = granted {
            let (request_id, request) = (id.clone(), Arc::clone(&open.request));
            let granted = GrantStatus { request_id, grant, granted_by, uses: 0, request };
            lock(&self.0.grants).insert(id.clone(), granted);
        }
        if let Err(stop) = self.after_decision(&open, &outcome).await {
            self.taken_back(&open, &stop).await;
            outcome =
                ApprovalOutcome::unanswered(request, ApprovalTerminalStatus::Denied, stop.code);
        }
        state.outcome = Some(outcome.clone());
        lock(&self.0.open).remove(id);
        Ok(outcome)
    }

    async fn after_decision(&self, open: &Open, outcome: &ApprovalOutcome) -> Result<(), HookStop> {
        let point = HookPoint::AfterApprovalDecision;
        let asked = matches!(
            outcome.status,
            ApprovalTerminalStatus::Approved
                | ApprovalTerminalStatus::ApprovedForSession
                | ApprovalTerminalStatus::Denied
                | ApprovalTerminalStatus::TimedOut
        );
        if !asked || !self.0.hooks.has(point) {
            return Ok(());
        }
        let request = &*open.request;
        let mut view = HookView::new(format!(
            "{}: {} ({})",
            request.canonical_tool_name, outcome.status, outcome.reason_code
        ));
        view.subject_refs = vec![request.subject_ref()];
        view.content_refs = vec![request.requested_args_ref.clone()];
        view.content = Some(json!({
            "tool": request.canonical_tool_name,
            "summary": request.redacted_args_summary,
            "outcome": outcome,
        }));
        let moment = Arc::new(HookMoment {
            point,
            base: approval_base(request, &self.0.package, self.now()),
            policy_refs: request.policy_refs.clone(),
            brake: open.brake.clone(),
            caller: None,
        });
        self.0.hooks.run(&moment, &mut Observed(view)).await
    }

    /// Records that a decision does not count after all.
    async fn taken_back(&self, open: &Open, stop: &HookStop) {
        let request = &*open.request;
        lock(&self.0.grants).remove(&request.approval_request_id);
        let record = ApprovalRecord::Denied {
            request_id: request.approval_request_id.clone(),
            reason_code: stop.code.to_owned(),
            actor_ref: None,
            reason: Some(stop.message.clone()),
        };
        let recorded = match approval_revoking(request, record, &self.0.package, self.now()) {
            Ok(draft) => self
                .0
                .journal
                .append(Batch { drafts: vec![draft], contents: Vec::new() })
                .await
                .map(drop)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = recorded {
            let request = &request.approval_request_id;
            tracing::error!(%request, error, "that a hook took an approval back is not recorded");
        }
    }

    /// The grants that cover anything at all now, by the id of their request.
    #[must_use]
    pub fn grants(&self) -> Vec<GrantStatus> {
        let now = self.now();
        let mut grants = lock(&self.0.grants);
        grants.retain(|_, status| {
            now < status.grant.expires_at_millis && status.uses < status.grant.max_uses
        });
        grants.values().cloned().collect()
    }

    /// Takes a grant back. Returns once that is durable; from the call on it covers nothing.
    /// `false` when there is no such grant.
    ///
    /// # Errors
    /// When it cannot be recorded. The grant covers nothing until the next start all the same.
    pub async fn revoke(
        &self,
        id: &ApprovalRequestId,
        actor: SourceRef,
        reason: Option<String>,
    ) -> Result<bool, AskError> {
        let Some(status) = lock(&self.0.grants).remove(id) else { return Ok(false) };
        let record = ApprovalRecord::Denied {
            request_id: id.clone(),
            reason_code: "approval.grant_revoked".to_owned(),
            actor_ref: Some(actor),
            reason,
        };
        let draft = approval_revoking(&status.request, record, &self.0.package, self.now())?;
        self.0.journal.append(Batch { drafts: vec![draft], contents: Vec::new() }).await?;
        Ok(true)
    }

    /// Takes up a grant from the journal.
    pub(crate) fn restore_grant(&self, status: GrantStatus) {
        lock(&self.0.grants).insert(status.request_id.clone(), status);
    }

    /// Takes one use of the first grant that covers the call.
    pub(crate) fn grant_take(&self, call: &GrantCall<'_>) -> Option<GrantUse> {
        let mut grants = lock(&self.0.grants);
        let covering =
            grants.values_mut().find(|status| status.grant.covers(call, status.uses).is_ok())?;
        covering.uses += 1;
        Some(GrantUse { request_id: covering.request_id.clone(), number: covering.uses })
    }

    /// Gives a use back whose call was never announced. Only the newest number can go back
    /// without being given twice.
    pub(crate) fn grant_return(&self, taken: &GrantUse) {
        if let Some(status) = lock(&self.0.grants).get_mut(&taken.request_id)
            && status.uses == taken.number
        {
            status.uses -= 1;
        }
    }

    fn now(&self) -> u64 {
        self.0.clock.now_millis()
    }
}

/// What an answer means for the request, and the grant it gives.
fn ending(
    request: &ApprovalRequest,
    answer: Answer,
    now: u64,
) -> Result<(Ending, Option<(ApprovalGrant, SourceRef)>), SettleError> {
    let unanswered = |event, code: String| {
        let (status, effect) = match event {
            ApprovalEvent::DispatcherMissing => {
                (ApprovalTerminalStatus::Denied, EffectTerminalStatus::Failed)
            }
            ApprovalEvent::DispatcherFailed => {
                let status = ApprovalTerminalStatus::DispatcherUnavailable;
                (status, status.effect_status())
            }
            ApprovalEvent::CallOff => {
                let status = ApprovalTerminalStatus::Cancelled;
                (status, status.effect_status())
            }
            ApprovalEvent::FoundLapsed => {
                let status = ApprovalTerminalStatus::RecoveryRequired;
                (status, status.effect_status())
            }
            _ => {
                let status = ApprovalTerminalStatus::TimedOut;
                (status, status.effect_status())
            }
        };
        Ending { event, effect, outcome: ApprovalOutcome::unanswered(request, status, code) }
    };
    let mut decision = match answer {
        Answer::Unanswered(event, code) => return Ok((unanswered(event, code), None)),
        Answer::Decided(decision) => decision,
    };
    let at = match &mut decision {
        ApprovalDecision::Approved { decided_at_millis, fingerprint, rendering_digest, .. }
        | ApprovalDecision::ApprovedForSession {
            decided_at_millis,
            fingerprint,
            rendering_digest,
            ..
        }
        | ApprovalDecision::Denied { decided_at_millis, fingerprint, rendering_digest, .. } => {
            // What was decided about is what was asked, whatever the answer says it is.
            *fingerprint = request.fingerprint;
            *rendering_digest = request.rendering_digest;
            *decided_at_millis.get_or_insert(now)
        }
    };
    if at >= request.expires_at_millis() {
        let late = unanswered(ApprovalEvent::Deadline, "approval.timeout".to_owned());
        return Ok((late, None));
    }
    let event = match &decision {
        ApprovalDecision::Approved { .. } => ApprovalEvent::Approve,
        ApprovalDecision::ApprovedForSession { .. } => ApprovalEvent::ApproveForSession,
        ApprovalDecision::Denied { .. } => ApprovalEvent::Deny,
    };
    let granted = match &decision {
        ApprovalDecision::ApprovedForSession { actor_ref, grant: Some(grant), .. } => {
            Some(((**grant).clone(), actor_ref.clone()))
        }
        _ => None,
    };
    let outcome = ApprovalOutcome::decided(request, decision)?;
    Ok((Ending { event, effect: outcome.status.effect_status(), outcome }, granted))
}

/// Whether a grant covers no more than it may: the call at hand, with arguments left open.
fn within(grant: &ApprovalGrant, most: Option<&ApprovalGrant>) -> Result<(), String> {
    let most = most.ok_or("this call can be approved once only")?;
    let loosened = ApprovalGrant {
        arguments: most.arguments.clone(),
        max_uses: grant.max_uses,
        expires_at_millis: grant.expires_at_millis,
        ..most.clone()
    };
    let strict = ApprovalGrant { arguments: most.arguments.clone(), ..grant.clone() };
    if strict != loosened {
        return Err("it is for another agent, session, tool or rule".to_owned());
    }
    if let Some((name, _)) =
        grant.arguments.iter().find(|(name, value)| most.arguments.get(*name) != Some(value))
    {
        return Err(format!("argument `{name}` is not as it was shown"));
    }
    if grant.max_uses == 0 || grant.max_uses > most.max_uses {
        return Err(format!("it may be used from 1 to {} times", most.max_uses));
    }
    if grant.expires_at_millis > most.expires_at_millis {
        return Err("it would be good for too long".to_owned());
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
