//! Asking for approval: requested, announced, put before somebody, ended. Each of these is
//! durable before the next can be seen, and an ending before anybody learns of it.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::approval::{
    ApprovalDecision, ApprovalEdit, ApprovalEvent, ApprovalGrant, ApprovalLifecycleStatus,
    ApprovalOutcome, ApprovalRecord, ApprovalRequest, ApprovalRequestError, ApprovalTerminalStatus,
    DecisionRefused, GrantCall,
};
use countersign_core::digest::Digest;
use countersign_core::effect::EffectTerminalStatus;
use countersign_core::hold::{HoldRecord, Vote};
use countersign_core::hook::{HookPoint, HookView};
use countersign_core::id::{ApprovalRequestId, RuntimePackageFingerprint};
use countersign_core::refs::SourceRef;
use countersign_ports::clock::Clock;
use countersign_ports::journal::{AppendError, Batch, Content, Journal};
use serde_json::{Value, json};

use crate::edit::{EditedCall, Edits};
use crate::hooks::{Brake, HookCoordinator, HookMoment, HookStop, Observed};
use crate::records::{
    BuildError, Ending, OwnKey, approval_base, approval_closing, approval_opening,
    approval_revoking, approval_step,
};

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
    /// that returns without an answer, or panics, has failed.
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
    edits: Arc<Edits>,
}

impl Asked {
    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &ApprovalRequest {
        &self.request
    }

    pub(crate) fn edits(&self) -> &Arc<Edits> {
        &self.edits
    }

    /// Records an answer, given now. Returns when it is durable.
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
    /// There was an answer, and it could not be recorded. The question stays open, for the next
    /// start: what somebody answered is not to be told as something else.
    #[error("the answer is not recorded: {0}")]
    NotRecorded(String),
    /// The process is stopping. The question stays open, for the next start.
    #[error("stopping: the question stays open")]
    Stopping,
}

/// How a question ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Somebody answered.
    Decided(ApprovalDecision),
    /// Nobody did: [`ApprovalEvent::CallOff`], `DispatcherMissing`, `DispatcherFailed` or
    /// `FoundLapsed`, and a stable code. Any other event counts as `Deadline`.
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
    /// The request names a policy, and these approvals are not enough for it. The question stays
    /// open.
    #[error("more approvals are needed than there are")]
    NotEnough,
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
    edits: Arc<Edits>,
    /// Held while an ending is being written, so that there is one.
    state: tokio::sync::Mutex<State>,
}

impl Open {
    /// What the call of this fingerprint was edited to be; `None` when it is the one that was
    /// asked.
    fn edited(&self, about: Option<Digest>) -> Result<Option<Arc<EditedCall>>, SettleError> {
        match about.filter(|about| self.request.fingerprint != Some(*about)) {
            None => Ok(None),
            Some(about) => match self.edits.find(about) {
                Some(edited) => Ok(Some(edited)),
                None => Err(SettleError::NotRecorded("what was edited is not known".to_owned())),
            },
        }
    }

    fn coverable(&self, about: Option<Digest>) -> Option<ApprovalGrant> {
        match self.edited(about).ok()? {
            None => self.coverable.clone(),
            Some(edited) => edited.coverable.clone(),
        }
    }
}

struct State {
    status: ApprovalLifecycleStatus,
    outcome: Option<ApprovalOutcome>,
    /// The hook that took the approval back.
    overruled_by: Option<HookStop>,
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
    /// Taken back, which is not on record.
    pub(crate) revoked: bool,
    /// Held for reading by uses on their way into the journal, for writing by a revocation.
    pub(crate) in_use: Gate,
}

/// Keeps a revocation out of the journal until the uses before it are in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<tokio::sync::RwLock<()>>);

/// A use says nothing about what a grant is.
impl PartialEq for Gate {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One use of a grant, to be dropped when the call's intent is recorded: a revocation waits
/// for that.
#[derive(Debug)]
pub(crate) struct GrantUse {
    pub(crate) request_id: ApprovalRequestId,
    pub(crate) number: u64,
    _in_use: tokio::sync::OwnedRwLockReadGuard<()>,
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
        self.asked(question, None, dispatcher).await.map(|(outcome, _)| outcome)
    }

    /// As [`ask`](Self::ask), about a call under this key, with the hook that took an approval
    /// back.
    pub(crate) async fn asked(
        &self,
        question: Question,
        key: Option<&OwnKey>,
        dispatcher: Option<&dyn ApprovalDispatcher>,
    ) -> Result<(ApprovalOutcome, Option<HookStop>), AskError> {
        let open = self.open(question, key).await?;
        let outcome = self.put(&open, dispatcher).await?;
        let overruled_by = open.state.lock().await.overruled_by.clone();
        Ok((outcome, overruled_by))
    }

    async fn put(
        &self,
        open: &Open,
        dispatcher: Option<&dyn ApprovalDispatcher>,
    ) -> Result<ApprovalOutcome, AskError> {
        let id = open.request.approval_request_id.clone();
        let unanswered = |event, code: &str| Answer::Unanswered(event, code.to_owned());
        let Some(dispatcher) = dispatcher else {
            let missing =
                unanswered(ApprovalEvent::DispatcherMissing, "missing.approval_dispatcher");
            return self.end(&id, missing).await;
        };
        self.dispatched(&id).await;
        let asked = Asked {
            broker: self.clone(),
            request: Arc::clone(&open.request),
            edits: Arc::clone(&open.edits),
        };
        let left = open.request.expires_at_millis().saturating_sub(self.now());
        let deadline = async {
            match dispatcher.keeps_deadline() {
                true => std::future::pending().await,
                false => tokio::time::sleep(Duration::from_millis(left)).await,
            }
        };
        let dispatched = tokio::select! {
            biased;
            dispatched = contained(dispatcher.dispatch(asked)) => dispatched,
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
            Err(DispatchError::Stopping) => {
                lock(&self.0.open).remove(&id);
                return Err(AskError::Stopping);
            }
            Err(DispatchError::NotRecorded(error)) => {
                lock(&self.0.open).remove(&id);
                return Err(AskError::NotRecorded(error));
            }
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
        match self.settle_at(id, answer, Vec::new(), None).await {
            Ok((outcome, _)) => Ok(outcome),
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

    async fn open(&self, question: Question, key: Option<&OwnKey>) -> Result<Arc<Open>, AskError> {
        let Question { request, contents, coverable, brake } = question;
        request.validate()?;
        let drafts = approval_opening(&request, key, &self.0.package, self.now())?;
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
        let state = tokio::sync::Mutex::new(State { status, outcome: None, overruled_by: None });
        let edits = Arc::default();
        let open = Arc::new(Open { request, coverable, brake, edits, state });
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

    /// Records what happened to the hold of an open question, which goes on. Returns once that
    /// is durable.
    pub(crate) async fn step(
        &self,
        id: &ApprovalRequestId,
        record: HoldRecord,
        contents: Vec<Content>,
    ) -> Result<(), SettleError> {
        let open = self.find(id).ok_or_else(|| SettleError::Unknown(id.clone()))?;
        // INVARIANT: in the journal it stands before the ending or not at all.
        let state = open.state.lock().await;
        if let Some(outcome) = &state.outcome {
            return Err(SettleError::Ended(outcome.status.into()));
        }
        let not_recorded =
            |error: &dyn std::fmt::Display| SettleError::NotRecorded(error.to_string());
        let draft = approval_step(&open.request, record, &self.0.package, self.now())
            .map_err(|error| not_recorded(&error))?;
        let batch = Batch { drafts: vec![draft], contents };
        self.0.journal.append(batch).await.map_err(|error| not_recorded(&error))?;
        Ok(())
    }

    /// What becomes of the arguments of an open question's call.
    pub(crate) fn edits(&self, id: &ApprovalRequestId) -> Option<Arc<Edits>> {
        Some(Arc::clone(&self.find(id)?.edits))
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
        self.check_about(id, decision, None)
    }

    /// As [`check`](Self::check), of an answer about the call of this fingerprint.
    pub(crate) fn check_about(
        &self,
        id: &ApprovalRequestId,
        decision: &ApprovalDecision,
        about: Option<Digest>,
    ) -> Result<(), SettleError> {
        let open = self.find(id).ok_or_else(|| SettleError::Unknown(id.clone()))?;
        open.request.admits(decision)?;
        match granted(decision) {
            Some((grant, _)) => {
                within(&grant, open.coverable(about).as_ref()).map_err(SettleError::Grant)
            }
            None => Ok(()),
        }
    }

    /// What an approval of this open question could cover at most, about the call of this
    /// fingerprint, and for how many milliseconds; `None` when it can cover this call only.
    pub(crate) fn coverable(
        &self,
        id: &ApprovalRequestId,
        about: Option<Digest>,
    ) -> Option<(ApprovalGrant, u64)> {
        let open = self.find(id)?;
        let most = open.coverable(about)?;
        let longest = most.expires_at_millis.saturating_sub(open.request.created_at_millis);
        Some((most, longest))
    }

    /// Ends an open question. Returns once the ending is durable; nobody has learned of it
    /// before. Hooks at `after_approval_decision` have seen it, and if one of them stopped the
    /// step, an approval becomes a denial, which is recorded beside the decision.
    ///
    /// What has been handed to the journal is followed up, also when the future is dropped.
    ///
    /// # Errors
    /// When the answer does not count, comes second, or cannot be recorded.
    pub async fn settle(
        &self,
        id: &ApprovalRequestId,
        mut answer: Answer,
    ) -> Result<ApprovalOutcome, SettleError> {
        // The time is not the caller's to say.
        if let Answer::Decided(decision) = &mut answer {
            stamp(decision, self.now());
        }
        self.settle_at(id, answer, Vec::new(), None).await.map(|(outcome, _)| outcome)
    }

    /// As [`settle`](Self::settle), with the time of a decision as it stands in the answer, with
    /// the answers that made it, the fingerprint of the call it is about if an approver may have
    /// changed that, and the hook that took an approval back.
    pub(crate) async fn settle_at(
        &self,
        id: &ApprovalRequestId,
        answer: Answer,
        votes: Vec<Vote>,
        about: Option<Digest>,
    ) -> Result<(ApprovalOutcome, Option<HookStop>), SettleError> {
        // INVARIANT: whoever settles may go away at any time, as a dispatcher does at the
        // deadline; the record and what it means stay together.
        let (broker, id) = (self.clone(), id.clone());
        let settled =
            tokio::spawn(async move { broker.settled(&id, answer, votes, about).await }).await;
        settled.unwrap_or_else(|error| Err(SettleError::NotRecorded(error.to_string())))
    }

    async fn settled(
        &self,
        id: &ApprovalRequestId,
        answer: Answer,
        votes: Vec<Vote>,
        about: Option<Digest>,
    ) -> Result<(ApprovalOutcome, Option<HookStop>), SettleError> {
        let open = self.find(id).ok_or_else(|| SettleError::Unknown(id.clone()))?;
        let mut state = open.state.lock().await;
        let (request, now) = (&*open.request, self.now());
        let edited = open.edited(about)?;
        let edit = edited.as_ref().map(|edited| edited.edit.clone());
        let ending = ending(request, answer, (votes, edit), now)?;
        let granted = ending.outcome.decision.as_ref().and_then(granted);
        if let Some((grant, _)) = &granted {
            within(grant, open.coverable(about).as_ref()).map_err(SettleError::Grant)?;
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
        if let (Some(edited), Some(_)) = (&edited, &outcome.decision) {
            open.edits.decide(Arc::clone(edited));
        }
        match self.after_decision(&open, &outcome).await {
            Err(stop) if outcome.releases_tool() => {
                self.taken_back(&open, &stop).await;
                outcome =
                    ApprovalOutcome::unanswered(request, ApprovalTerminalStatus::Denied, stop.code);
                state.overruled_by = Some(stop);
            }
            // What releases nothing stays as it was given.
            Err(_) | Ok(()) => {
                if let Some((grant, granted_by)) = granted {
                    let (request_id, request) = (id.clone(), Arc::clone(&open.request));
                    let (uses, revoked, in_use) = (0, false, Gate::default());
                    self.restore_grant(GrantStatus {
                        request_id,
                        grant,
                        granted_by,
                        uses,
                        request,
                        revoked,
                        in_use,
                    });
                }
            }
        }
        state.outcome = Some(outcome.clone());
        lock(&self.0.open).remove(id);
        Ok((outcome, state.overruled_by.clone()))
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
        let edit = open.edits.decided().map(|edited| &edited.edit);
        let (args, summary) = match edit {
            None => (&request.requested_args_ref, &request.redacted_args_summary),
            Some(edit) => (&edit.args_ref, &edit.redacted_args_summary),
        };
        view.subject_refs = vec![request.subject_ref()];
        view.content_refs = vec![args.clone()];
        let mut content = json!({
            "tool": request.canonical_tool_name,
            "summary": summary,
            "outcome": outcome,
        });
        if let (Some(edit), Value::Object(fields)) = (edit, &mut content) {
            fields.insert("edit".to_owned(), json!(edit));
        }
        view.content = Some(content);
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
        let record = ApprovalRecord::Denied {
            request_id: request.approval_request_id.clone(),
            reason_code: stop.code.to_owned(),
            actor_ref: None,
            reason: Some(stop.message.clone()),
        };
        if let Err(error) = self.revoking(request, record).await {
            let request = &request.approval_request_id;
            tracing::error!(%request, %error, "that a hook took an approval back is not recorded");
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
        grants.values().filter(|status| !status.revoked).cloned().collect()
    }

    /// Takes a grant back. Returns once that is durable; from the call on it covers nothing. A
    /// call that took its use before is in the journal before the revocation. `false` when
    /// there is no such grant.
    ///
    /// # Errors
    /// When it cannot be recorded. The grant covers nothing until the next start all the same,
    /// and can be taken back again.
    pub async fn revoke(
        &self,
        id: &ApprovalRequestId,
        actor: SourceRef,
        reason: Option<String>,
    ) -> Result<bool, AskError> {
        let (request, in_use) = match lock(&self.0.grants).get_mut(id) {
            None => return Ok(false),
            Some(status) => {
                status.revoked = true;
                (Arc::clone(&status.request), status.in_use.clone())
            }
        };
        let record = ApprovalRecord::Denied {
            request_id: id.clone(),
            reason_code: "approval.grant_revoked".to_owned(),
            actor_ref: Some(actor),
            reason,
        };
        // INVARIANT: not in the caller's future: whoever takes it back may hang up meanwhile.
        let (broker, id) = (self.clone(), id.clone());
        let revoked = tokio::spawn(async move {
            let _gate = in_use.0.write_owned().await;
            broker.revoking(&request, record).await?;
            lock(&broker.0.grants).remove(&id);
            Ok(true)
        });
        revoked.await.unwrap_or_else(|error| Err(AskError::NotRecorded(error.to_string())))
    }

    async fn revoking(
        &self,
        request: &ApprovalRequest,
        record: ApprovalRecord,
    ) -> Result<(), AskError> {
        let draft = approval_revoking(request, record, &self.0.package, self.now())?;
        self.0.journal.append(Batch { drafts: vec![draft], contents: Vec::new() }).await?;
        Ok(())
    }

    /// Shows an approval from before a restart to the hooks at `after_approval_decision`: the
    /// process may have ended between its record and their answer. Whether it still stands.
    pub(crate) async fn recheck(
        &self,
        request: &Arc<ApprovalRequest>,
        decision: ApprovalDecision,
        edits: Arc<Edits>,
    ) -> bool {
        let Ok(outcome) = ApprovalOutcome::decided(request, decision) else { return false };
        let (status, brake) = (outcome.status.into(), Brake::default());
        let state = tokio::sync::Mutex::new(State { status, outcome: None, overruled_by: None });
        let request = Arc::clone(request);
        let open = Open { request, coverable: None, brake, edits, state };
        match self.after_decision(&open, &outcome).await {
            Ok(()) => true,
            Err(stop) => {
                self.taken_back(&open, &stop).await;
                false
            }
        }
    }

    /// Takes up a grant whose record is in the journal.
    pub(crate) fn restore_grant(&self, status: GrantStatus) {
        lock(&self.0.grants).insert(status.request_id.clone(), status);
    }

    /// Takes one use of the first grant that covers the call.
    pub(crate) fn grant_take(&self, call: &GrantCall<'_>) -> Option<GrantUse> {
        let mut grants = lock(&self.0.grants);
        grants.retain(|_, status| call.now_millis < status.grant.expires_at_millis);
        let covering =
            grants.values_mut().find(|s| !s.revoked && s.grant.covers(call, s.uses).is_ok())?;
        // Held for writing only once the grant is revoked.
        let in_use = Arc::clone(&covering.in_use.0).try_read_owned().ok()?;
        covering.uses += 1;
        let (request_id, number) = (covering.request_id.clone(), covering.uses);
        Some(GrantUse { request_id, number, _in_use: in_use })
    }

    /// Gives a use back whose call was never announced. Only the newest number can go back
    /// without being given twice.
    pub(crate) fn grant_return(&self, taken: GrantUse) {
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

/// A dispatcher that panics has failed, and takes nobody along.
async fn contained(
    dispatching: impl Future<Output = Result<(), DispatchError>>,
) -> Result<(), DispatchError> {
    let mut dispatching = std::pin::pin!(dispatching);
    std::future::poll_fn(|context| {
        let polled = AssertUnwindSafe(|| dispatching.as_mut().poll(context));
        catch_unwind(polled).unwrap_or_else(|_| {
            Poll::Ready(Err(DispatchError::Failed("the dispatcher panicked".to_owned())))
        })
    })
    .await
}

pub(crate) fn stamp(decision: &mut ApprovalDecision, at: u64) {
    match decision {
        ApprovalDecision::Approved { decided_at_millis, .. }
        | ApprovalDecision::ApprovedForSession { decided_at_millis, .. }
        | ApprovalDecision::Denied { decided_at_millis, .. } => *decided_at_millis = Some(at),
    }
}

/// The grant that an answer gives, and who gives it.
fn granted(decision: &ApprovalDecision) -> Option<(ApprovalGrant, SourceRef)> {
    match decision {
        ApprovalDecision::ApprovedForSession { actor_ref, grant: Some(grant), .. } => {
            Some(((**grant).clone(), actor_ref.clone()))
        }
        _ => None,
    }
}

/// What an answer means for the request.
fn ending(
    request: &ApprovalRequest,
    answer: Answer,
    (votes, edit): (Vec<Vote>, Option<ApprovalEdit>),
    now: u64,
) -> Result<Ending, SettleError> {
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
        let outcome = ApprovalOutcome::unanswered(request, status, code);
        Ending { event, effect, outcome, votes: Vec::new(), edit: None }
    };
    let mut decision = match answer {
        Answer::Unanswered(event, code) => return Ok(unanswered(event, code)),
        Answer::Decided(decision) => decision,
    };
    let about = match &edit {
        None => (request.fingerprint, request.rendering_digest),
        Some(edit) => (Some(edit.fingerprint), Some(edit.rendering_digest)),
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
            // What was decided about is what was shown, whatever the answer says it is.
            (*fingerprint, *rendering_digest) = about;
            *decided_at_millis.get_or_insert(now)
        }
    };
    if at >= request.expires_at_millis() {
        return Ok(unanswered(ApprovalEvent::Deadline, "approval.timeout".to_owned()));
    }
    let event = match &decision {
        ApprovalDecision::Approved { .. } => ApprovalEvent::Approve,
        ApprovalDecision::ApprovedForSession { .. } => ApprovalEvent::ApproveForSession,
        ApprovalDecision::Denied { .. } => ApprovalEvent::Deny,
    };
    let outcome = ApprovalOutcome::decided(request, decision)?;
    // Whoever settles: what does not show a quorum releases nothing.
    if outcome.releases_tool() && !request.met_by(&votes, about.0, at) {
        return Err(SettleError::NotEnough);
    }
    Ok(Ending { event, effect: outcome.status.effect_status(), outcome, votes, edit })
}

/// Whether a grant covers no more than it may: the call at hand, with arguments left open.
fn within(grant: &ApprovalGrant, most: Option<&ApprovalGrant>) -> Result<(), String> {
    let most = most.ok_or("this call can be approved once only")?;
    let loosened = ApprovalGrant {
        arguments: most.arguments.clone(),
        any_value_of: grant.any_value_of.clone(),
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
    if let Some(name) = grant.any_value_of.iter().find(|name| !most.arguments.contains_key(*name)) {
        return Err(format!("the call has no argument `{name}`"));
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
