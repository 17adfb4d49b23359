//! The gateway's way of asking: a place in the escalation queue first, then the records, then
//! the hold. And what was asked before a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use countersign_core::approval::{
    ApprovalDecision, ApprovalEvent, ApprovalGrant, ApprovalOutcome, ApprovalRequest,
    ApprovalTerminalStatus,
};
use countersign_core::digest::Digest;
use countersign_core::hold::{
    Approver, Decision, DecisionKind, GrantTerms, HoldKind, HoldRecord, HoldStatus,
};
use countersign_core::id::{AgentId, ApprovalRequestId, ToolCallId};
use countersign_escalation::{
    Admission, Change, EscalationQueue, Held, HoldRequest, Outcome, RecordError, Recorder, Waiting,
};
use countersign_manifest::Manifest;
use countersign_ports::entropy::{ordered_id, random_id};
use countersign_ports::journal::Content;
use serde_json::{Map, Value, json};

use crate::broker::{
    Answer, ApprovalBroker, ApprovalDispatcher, AskError, Asked, DispatchError, Question,
    SettleError, stamp,
};
use crate::call::Shared;
use crate::edit::{Edits, HeldCall};
use crate::govern::{Denial, Kernel};
use crate::points::{HOOK_RULE, Presentation};
use crate::policy::{Demand, Policy, Rule};
use crate::records::{CallFacts, OwnKey, actor};
use crate::render::Rendering;
use crate::vote::made_by;

/// An approval request from before a restart, by whom and for which call.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) request: Arc<ApprovalRequest>,
    /// The key of that call: one under another key is another call.
    pub(crate) key: Option<OwnKey>,
    pub(crate) state: EarlierState,
    pub(crate) edits: Arc<Edits>,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EarlierState {
    /// Still waiting in the queue.
    Waiting,
    /// Approved and not used; good until this time, in milliseconds since the Unix epoch.
    Approved { until: u64 },
}

/// The oldest first; each is used once.
pub(crate) type EarlierApprovals = HashMap<(AgentId, Digest), VecDeque<Earlier>>;

/// Has the broker write outcomes down for the queue.
pub(crate) struct BrokerRecorder(pub(crate) ApprovalBroker);

#[async_trait]
impl Recorder for BrokerRecorder {
    async fn record(&self, hold: &Held, outcome: &Outcome) -> Result<(), RecordError> {
        let about = hold.fingerprint();
        let unanswered = |event| Answer::Unanswered(event, outcome.code.to_owned());
        let answer = match (&outcome.decision, outcome.status) {
            (Some((decision, approver)), _) => {
                let mut decision =
                    self.0.decision(hold.id(), decision, approver, (outcome.at_millis, about));
                if let Ok(decided) = &mut decision {
                    stamp(decided, outcome.at_millis);
                }
                Answer::Decided(decision.map_err(failed)?)
            }
            (None, HoldStatus::Expired) => unanswered(ApprovalEvent::Deadline),
            (None, HoldStatus::RecoveryRequired) => unanswered(ApprovalEvent::FoundLapsed),
            (None, _) => unanswered(ApprovalEvent::CallOff),
        };
        let settled = self.0.settle_at(hold.id(), answer, made_by(hold), about).await;
        match settled.map_err(failed)? {
            (_, Some(stop)) if outcome.status == HoldStatus::Approved => {
                Err(RecordError::Overruled { code: stop.code, reason: stop.message })
            }
            _ => Ok(()),
        }
    }

    async fn record_change(&self, hold: &Held, change: &Change) -> Result<(), RecordError> {
        if let Change::Edited(_) = change {
            let edits = self.0.edits(hold.id());
            let edited = edits.zip(hold.fingerprint()).and_then(|(edits, at)| edits.find(at));
            let Some(edited) = edited else {
                return Err(RecordError::Failed("what was edited is not known".to_owned()));
            };
            let (request_id, edit) = (hold.id().clone(), Box::new(edited.edit.clone()));
            let record = HoldRecord::Edited { request_id, edit };
            let contents = vec![edited.args.clone()];
            return self.0.step(hold.id(), record, contents).await.map_err(failed);
        }
        match crate::vote::record(hold, change) {
            Some(record) => self.0.step(hold.id(), record, Vec::new()).await.map_err(failed),
            None => Ok(()),
        }
    }
}

/// What a hook made of an approval, in words for the agent.
fn taken_back(why: &str) -> String {
    format!("a hook took the approval back: {why}")
}

fn failed(error: SettleError) -> RecordError {
    RecordError::Failed(error.to_string())
}

impl ApprovalBroker {
    /// A surface's decision in the contract's form: made at that time, in milliseconds since the
    /// Unix epoch, about the call of that fingerprint.
    pub(crate) fn decision(
        &self,
        id: &ApprovalRequestId,
        decision: &Decision,
        approver: &Approver,
        (now, about): (u64, Option<Digest>),
    ) -> Result<ApprovalDecision, SettleError> {
        let actor_ref =
            actor(approver).map_err(|error| SettleError::NotRecorded(error.to_string()))?;
        let reason = decision.reason.clone();
        let (decided_at_millis, fingerprint, rendering_digest) = (None, None, None);
        Ok(match (decision.decision, &decision.grant) {
            (DecisionKind::Approve, None) => ApprovalDecision::Approved {
                actor_ref,
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
            },
            (DecisionKind::Approve, Some(terms)) => ApprovalDecision::ApprovedForSession {
                actor_ref,
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
                grant: Some(Box::new(self.grant(id, terms, (now, about))?)),
            },
            (DecisionKind::Deny, Some(_)) => {
                return Err(SettleError::Grant("a denial covers nothing".to_owned()));
            }
            (DecisionKind::Deny, None) => ApprovalDecision::Denied {
                reason_code: "approval.denied".to_owned(),
                actor_ref: Some(actor_ref),
                reason,
                decided_at_millis,
                fingerprint,
                rendering_digest,
            },
        })
    }

    fn grant(
        &self,
        id: &ApprovalRequestId,
        terms: &GrantTerms,
        (now, about): (u64, Option<Digest>),
    ) -> Result<ApprovalGrant, SettleError> {
        let (most, longest) = self
            .coverable(id, about)
            .ok_or_else(|| SettleError::Grant("this call can be approved once only".to_owned()))?;
        let mut arguments = most.arguments.clone();
        for name in &terms.any_value_of {
            if arguments.remove(name).is_none() {
                return Err(SettleError::Grant(format!("the call has no argument `{name}`")));
            }
        }
        if terms.valid_for_ms == 0 || terms.valid_for_ms > longest {
            return Err(SettleError::Grant(format!("it may be good from 1 to {longest} ms")));
        }
        // Deciding took its time too, and recording it will.
        let expires_at_millis = now.saturating_add(terms.valid_for_ms).min(most.expires_at_millis);
        let any_value_of = terms.any_value_of.iter().cloned().collect();
        Ok(ApprovalGrant {
            arguments,
            any_value_of,
            max_uses: terms.max_uses,
            expires_at_millis,
            ..most
        })
    }
}

/// One place in the queue as a dispatcher: the question is put by making the hold visible.
struct Seat {
    queue: EscalationQueue,
    taken: Mutex<Option<(Admission, HoldRequest)>>,
    shared: Arc<Shared>,
    call: HeldCall,
    edits: Arc<OnceLock<Arc<Edits>>>,
}

#[async_trait]
impl ApprovalDispatcher for Seat {
    async fn dispatch(&self, asked: Asked) -> Result<(), DispatchError> {
        let edits = asked.edits();
        let _ = edits.call.set(self.call.clone());
        let _ = self.edits.set(Arc::clone(edits));
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((place, hold)) = taken else {
            return Err(DispatchError::Failed("the place was used before".to_owned()));
        };
        match wait(place.hold(hold), &self.shared).await? {
            Some(outcome) if outcome.code == "approval.not_recorded" => {
                Err(DispatchError::NotRecorded("journal".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn keeps_deadline(&self) -> bool {
        true
    }
}

/// Waits for a hold, and calls it off when everybody who waits does.
async fn wait(
    mut waiting: Waiting,
    shared: &Shared,
) -> Result<Option<Arc<Outcome>>, DispatchError> {
    shared.hold.send_replace(Some(waiting.id().clone()));
    tokio::select! {
        outcome = waiting.decided() => outcome.map(Some).map_err(|_| DispatchError::Stopping),
        () = shared.called_off() => {
            waiting.call_off().await;
            Ok(None)
        }
    }
}

/// What the approver is shown beside the one-line summary.
pub(crate) fn context(
    manifest: &Manifest,
    rendering: &Rendering,
    facts: &CallFacts,
    presentation: Option<&Presentation>,
    coverable: Option<&ApprovalGrant>,
) -> Value {
    let mut context = json!({
        "tool": rendering.tool,
        "tool_description": countersign_core::text::visible(manifest.description()),
        "risk": manifest.risk_tier().as_str(),
        "command": rendering.command,
        "arguments": rendering.arguments,
        "call_id": facts.call_id,
        "run_id": facts.run_id,
    });
    if let Value::Object(fields) = &mut context {
        if let Some(presentation) = presentation {
            fields.insert("presentation".to_owned(), json!(presentation));
        }
        if let Some(most) = coverable {
            let until = countersign_escalation::time::rfc3339(most.expires_at_millis);
            let bounds = json!({ "max_uses": most.max_uses, "expires_at_most": until });
            fields.insert("session_grant".to_owned(), bounds);
        }
    }
    context
}

/// What an approval for the session could cover at most: this very call, as often and as long
/// as the policy lets it.
pub(crate) fn coverable(
    policy: &Policy,
    policy_digest: &Digest,
    facts: &CallFacts,
    manifest: &Manifest,
    arguments: &[(String, String)],
    now: u64,
) -> Option<ApprovalGrant> {
    let limits = policy.grants_for(manifest)?;
    let valid_for = u64::try_from(limits.valid_for.as_millis()).unwrap_or(u64::MAX);
    Some(ApprovalGrant {
        agent_id: facts.agent_id.clone(),
        session: facts.session.clone(),
        canonical_tool_name: facts.tool.clone(),
        manifest_digest: manifest.digest().to_owned(),
        policy_digest: *policy_digest,
        arguments: argument_digests(arguments),
        any_value_of: BTreeSet::new(),
        max_uses: limits.max_uses,
        expires_at_millis: now.saturating_add(valid_for),
    })
}

/// SHA-256 over each argument as it stands in the plan, defaults included: what the approver saw.
pub(crate) fn argument_digests(arguments: &[(String, String)]) -> BTreeMap<String, Digest> {
    arguments.iter().map(|(name, value)| (name.clone(), Digest::of(value))).collect()
}

/// One call that needs a person.
pub(crate) struct Need<'a> {
    pub(crate) manifest: &'a Arc<Manifest>,
    pub(crate) rendering: &'a Rendering,
    pub(crate) demand: &'a Demand,
    pub(crate) args: &'a Content,
    /// As they were given.
    pub(crate) given: &'a Map<String, Value>,
    /// As they stand in the plan.
    pub(crate) arguments: &'a [(String, String)],
}

impl Kernel {
    /// Asks a person, and waits. `Ok` means that the call may run, by this approval, which its
    /// intent uses up.
    ///
    /// A call that is waiting, or was approved and not run, when the gateway last stopped is
    /// taken up again under its own ids when the same agent sends it again.
    pub(crate) async fn countersign(
        &self,
        facts: &mut CallFacts,
        need: Need<'_>,
        shared: &Arc<Shared>,
    ) -> Result<Earlier, Box<Denial>> {
        let Some(Earlier { request, key, state, edits }) =
            self.take_earlier(facts, &need.demand.rule)
        else {
            return self.ask(facts, need, shared).await;
        };
        facts.call_id = request.tool_call_id.clone();
        facts.run_id = request.run_id.clone();
        facts.turn_id = request.turn_id.clone();
        let id = request.approval_request_id.clone();
        facts.approval = Some(id.clone());
        if let EarlierState::Approved { .. } = state {
            return Ok(Earlier { request, key, state, edits });
        }
        let until = match self.queue().join(&id) {
            None => self.ended(&id)?,
            Some(waiting) => match wait(waiting, shared).await {
                Ok(Some(outcome)) => {
                    denial(&outcome, need.demand.timeout)?;
                    self.valid_until(&outcome)
                }
                Ok(None) => return Err(called_off()),
                Err(error) => return Err(stopping(&error.to_string())),
            },
        };
        Ok(Earlier { request, key, state: EarlierState::Approved { until }, edits })
    }

    /// Keeps an approval that nobody is there to use.
    pub(crate) fn park(&self, approval: Earlier) {
        let Some(fingerprint) = approval.request.fingerprint else { return };
        let key = (approval.request.agent_id.clone(), fingerprint);
        let now = self.now();
        let mut all = self.earlier().lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, of_call| {
            of_call.retain(|earlier| match earlier.state {
                EarlierState::Approved { until } => now < until,
                EarlierState::Waiting => true,
            });
            !of_call.is_empty()
        });
        all.entry(key).or_default().push_back(approval);
    }

    fn valid_until(&self, outcome: &Outcome) -> u64 {
        let valid = u64::try_from(self.policy().approval_valid_for.as_millis()).unwrap_or(u64::MAX);
        outcome.at_millis.saturating_add(valid)
    }

    async fn ask(
        &self,
        facts: &mut CallFacts,
        need: Need<'_>,
        shared: &Arc<Shared>,
    ) -> Result<Earlier, Box<Denial>> {
        let Need { manifest, rendering, demand, args, given, arguments } = need;
        let Demand { rule, timeout, .. } = demand;
        let timeout = *timeout;
        let place = self
            .queue()
            .admit(facts.agent_id.clone(), timeout)
            .map_err(|error| Denial::new("not_held", error.to_string()))?;
        let place = match &demand.policy {
            Some(policy) => place.under(Arc::clone(policy)),
            None => place,
        };
        let presentation = self.before_approval(facts, rendering, rule).await?;
        let id = random_id(self.entropy())
            .map_err(|error| Denial::new("no_entropy", error.to_string()))?;
        let internal =
            |error: &dyn std::fmt::Display| Denial::new("not_recorded", error.to_string());
        let id = ApprovalRequestId::new(id).map_err(|e| internal(&e))?;
        let (package, now) = (self.package(), self.now());
        let coverable =
            coverable(self.policy(), self.policy_digest(), facts, manifest, arguments, now)
                .filter(|_| demand.session_grants);
        let mut request = facts
            .approval_request(id.clone(), demand, rendering, package, now)
            .map_err(|e| internal(&e))?;
        if coverable.is_some() {
            let for_session = countersign_core::approval::ApprovalDecisionKind::ApprovedForSession;
            request.allowed_decisions.insert(1, for_session);
        }
        request.presentation = presentation.clone().map(Box::new);
        let shown = presentation.as_ref();
        let digest = rendering.shown_digest(shown);
        request.rendering_digest = Some(digest);
        facts.approval = Some(id.clone());
        let hold = HoldRequest {
            id,
            kind: HoldKind::ToolCall,
            summary: shown.map_or(&rendering.command, |shown| &shown.summary).clone(),
            reason: shown.map_or(&rule.text, |shown| &shown.reason).clone(),
            context_snapshot: context(manifest, rendering, facts, shown, coverable.as_ref()).into(),
            created_at_millis: now,
            fingerprint: facts.fingerprint,
            rendering_digest: Some(digest),
        };
        let brake = facts.brake.clone();
        let asked_for = Arc::new(request.clone());
        let question = Question { request, contents: vec![args.clone()], coverable, brake };
        let taken = Mutex::new(Some((place, hold)));
        let seat = Seat {
            queue: self.queue().clone(),
            taken,
            shared: Arc::clone(shared),
            call: HeldCall {
                manifest: Arc::clone(manifest),
                facts: facts.clone(),
                arguments: given.clone(),
                rendering: rendering.clone(),
                presentation,
                asks: (rule.id == HOOK_RULE).then(|| rule.clone()),
                policy: demand.policy.clone(),
                asked_at: now,
            },
            edits: Arc::default(),
        };
        let asked = self.broker().asked(question, facts.key.as_ref(), Some(&seat)).await;
        let id = facts.approval.clone();
        let found = id.and_then(|id| seat.queue.find(&id)).and_then(|(_, outcome)| outcome);
        match asked {
            Ok((_, Some(stop))) => {
                let message = taken_back(&stop.message);
                Err(Box::new(Denial { message, ..*Denial::by_hook(stop) }))
            }
            Ok((outcome, None)) => {
                released(&outcome, found.as_deref(), timeout)?;
                let until = match &found {
                    Some(found) => self.valid_until(found),
                    None => self.now(),
                };
                let edits = seat.edits.get().cloned().unwrap_or_default();
                let (request, key) = (asked_for, facts.key.clone());
                Ok(Earlier { request, key, state: EarlierState::Approved { until }, edits })
            }
            Err(AskError::Stopping) => Err(stopping(&AskError::Stopping.to_string())),
            // The hold is denied when its outcome cannot be recorded.
            Err(AskError::NotRecorded(error)) => Err(found
                .and_then(|found| denial(&found, timeout).err())
                .unwrap_or_else(|| internal(&error))),
            Err(error) => Err(internal(&error)),
        }
    }

    /// Takes a grant back. Returns once that is durable; from the call on it covers nothing.
    /// `false` when there is no such grant.
    ///
    /// # Errors
    /// When it cannot be recorded. The grant covers nothing until the next start all the same.
    pub async fn grant_revoke(
        &self,
        id: &ApprovalRequestId,
        approver: &Approver,
        reason: Option<String>,
    ) -> Result<bool, AskError> {
        let actor = actor(approver).map_err(|error| AskError::NotRecorded(error.to_string()))?;
        // The approval that gave it, kept for whoever comes back, goes with it.
        self.forget_approval(id);
        self.broker().revoke(id, actor, reason).await
    }

    pub(crate) fn ended_hold(&self, id: &ApprovalRequestId) -> bool {
        self.queue().find(id).is_none_or(|(_, outcome)| outcome.is_some())
    }

    fn forget_approval(&self, id: &ApprovalRequestId) {
        let mut all = self.earlier().lock().unwrap_or_else(PoisonError::into_inner);
        for of_call in all.values_mut() {
            of_call.retain(|earlier| earlier.request.approval_request_id != *id);
        }
    }

    /// An approval that was given before the restart, or else the oldest hold that waits. Only
    /// of the same question, under the same key: what the policy asked does not answer a hook,
    /// nor the reverse.
    fn take_earlier(&self, facts: &CallFacts, rule: &Rule) -> Option<Earlier> {
        let key = (facts.agent_id.clone(), facts.fingerprint?);
        let now = self.now();
        let mut all = self.earlier().lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = all.get_mut(&key)?;
        earlier.retain(|earlier| match earlier.state {
            EarlierState::Approved { until } => now < until,
            EarlierState::Waiting => true,
        });
        let ready = |earlier: &Earlier| match earlier.state {
            EarlierState::Approved { .. } => true,
            EarlierState::Waiting => {
                let id = &earlier.request.approval_request_id;
                let outcome = self.queue().find(id).and_then(|(_, outcome)| outcome);
                outcome.is_some_and(|outcome| outcome.status == HoldStatus::Approved)
            }
        };
        let same = |earlier: &Earlier| {
            let asked = earlier.request.policy_refs.first();
            earlier.key == facts.key
                && asked.is_some_and(|asked| {
                    asked.id.as_str() == rule.id.as_ref()
                        && asked.version.as_deref() == Some(rule.text.as_str())
                })
        };
        let at = earlier
            .iter()
            .position(|earlier| same(earlier) && ready(earlier))
            .or_else(|| earlier.iter().position(same));
        let taken = at.and_then(|at| earlier.remove(at));
        if earlier.is_empty() {
            all.remove(&key);
        }
        taken
    }

    /// The outcome of a hold from before the restart that has ended by now.
    fn ended(&self, id: &ApprovalRequestId) -> Result<u64, Box<Denial>> {
        let found = self.queue().find(id).and_then(|(_, outcome)| outcome);
        let Some(outcome) = found else {
            return Err(Denial::new("approval.gone", "the approval request has ended".to_owned()));
        };
        let until = self.valid_until(&outcome);
        if outcome.status == HoldStatus::Approved && self.now() >= until {
            return Err(Denial::new(
                "approval.stale",
                "the approval was not used in time".to_owned(),
            ));
        }
        denial(&outcome, self.policy().approval_timeout)?;
        Ok(until)
    }
}

pub(crate) fn called_off() -> Box<Denial> {
    Denial::new("called_off", "the caller went away".to_owned())
}

fn stopping(why: &str) -> Box<Denial> {
    let message = format!("the gateway is {why}; send the same call again when it is back");
    Denial::new("gateway_stopping", message)
}

/// What the broker's ending means for the call. The queue, where it knows the hold, has the
/// approver's name for people.
fn released(
    outcome: &ApprovalOutcome,
    found: Option<&Outcome>,
    timeout: std::time::Duration,
) -> Result<(), Box<Denial>> {
    if outcome.releases_tool() {
        return Ok(());
    }
    match (outcome.status, found) {
        (ApprovalTerminalStatus::Cancelled, _) => Err(called_off()),
        (_, Some(found)) if found.code == outcome.reason_code => denial(found, timeout),
        _ => Err(Denial::new(&outcome.reason_code, format!("denied: {}", outcome.reason_code))),
    }
}

fn denial(outcome: &Outcome, timeout: std::time::Duration) -> Result<(), Box<Denial>> {
    let by = outcome.decision.as_ref().map(|(_, approver)| approver.clone());
    let reason = outcome.decision.as_ref().and_then(|(decision, _)| decision.reason.clone());
    let message = match (outcome.status, &by) {
        (HoldStatus::Approved, Some(_)) => return Ok(()),
        (_, Some(approver)) => match &reason {
            Some(reason) => format!("denied by {}: {reason}", approver.display),
            None => format!("denied by {}, without a reason", approver.display),
        },
        (HoldStatus::Expired, None) => {
            format!("denied by the deadline: nobody decided within {} s", timeout.as_secs_f64())
        }
        (HoldStatus::Cancelled, None) => "the call was called off".to_owned(),
        (_, None) if outcome.code == "approval.not_recorded" => {
            "denied: the decision could not be recorded".to_owned()
        }
        (_, None) => taken_back(outcome.code),
    };
    let code = outcome.code;
    Err(Box::new(Denial { by, reason, ..*Denial::new(code, message) }))
}

/// The id of a new call.
pub(crate) fn call_id(kernel: &Kernel) -> Result<ToolCallId, Box<Denial>> {
    let id = ordered_id(kernel.entropy(), kernel.now())
        .map_err(|error| Denial::new("no_entropy", error.to_string()))?;
    ToolCallId::new(format!("call.{id}"))
        .map_err(|error| Denial::new("not_recorded", error.to_string()))
}
