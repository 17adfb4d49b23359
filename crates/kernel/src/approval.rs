//! Asking a person: recorded before it is visible, decided before it is released.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use countersign_core::approval::ApprovalRequest;
use countersign_core::digest::Digest;
use countersign_core::hold::{HeldAction, HoldKind, HoldStatus};
use countersign_core::id::{AgentId, ApprovalRequestId, RuntimePackageFingerprint, ToolCallId};
use countersign_escalation::{HoldRequest, Outcome, RecordError, Recorder, Waiting};
use countersign_manifest::Manifest;
use countersign_ports::clock::Clock;
use countersign_ports::entropy::{ordered_id, random_id};
use countersign_ports::journal::{Batch, Content, Journal};
use serde_json::{Value, json};

use crate::govern::{CallerGone, Denial, Kernel};
use crate::policy::Rule;
use crate::records::{CallFacts, approval_closing, approval_opening};
use crate::render::Rendering;

/// An approval request from before a restart, by whom and for which call.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) request: Arc<ApprovalRequest>,
    pub(crate) state: EarlierState,
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

/// Writes outcomes down for the queue.
pub(crate) struct JournalRecorder {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) package: RuntimePackageFingerprint,
    pub(crate) requests: Mutex<HashMap<ApprovalRequestId, Arc<ApprovalRequest>>>,
}

impl JournalRecorder {
    pub(crate) fn expect(&self, request: Arc<ApprovalRequest>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.insert(request.approval_request_id.clone(), request);
    }

    fn request(&self, id: &ApprovalRequestId) -> Option<Arc<ApprovalRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

#[async_trait]
impl Recorder for JournalRecorder {
    async fn record(&self, hold: &HeldAction, outcome: &Outcome) -> Result<(), RecordError> {
        let request = self
            .request(&hold.id)
            .ok_or_else(|| RecordError("the approval request is not known".to_owned()))?;
        let now = self.clock.now_millis();
        let drafts = approval_closing(&request, outcome, &self.package, now)
            .map_err(|error| RecordError(error.to_string()))?;
        self.journal
            .append(Batch { drafts, contents: Vec::new() })
            .await
            .map_err(|error| RecordError(error.to_string()))?;
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&hold.id);
        Ok(())
    }
}

/// What the approver is shown beside the one-line summary.
pub(crate) fn context(manifest: &Manifest, rendering: &Rendering, facts: &CallFacts) -> Value {
    json!({
        "tool": rendering.tool,
        "tool_description": countersign_core::text::visible(manifest.description()),
        "risk": manifest.risk_tier().as_str(),
        "command": rendering.command,
        "arguments": rendering.arguments,
        "call_id": facts.call_id,
        "run_id": facts.run_id,
    })
}

impl Kernel {
    /// Asks a person, and waits. `Ok` carries the approval that the effect's intent uses up.
    ///
    /// A call that is waiting, or was approved and not run, when the gateway last stopped is
    /// taken up again under its own ids when the same agent sends it again.
    pub(crate) async fn countersign(
        &self,
        facts: &mut CallFacts,
        manifest: &Manifest,
        rendering: &Rendering,
        rule: &Rule,
        args: &Content,
        gone: &mut CallerGone,
    ) -> Result<(), Box<Denial>> {
        let mut waiting = match self.take_earlier(facts) {
            Some(Earlier { request, state }) => {
                facts.call_id = request.tool_call_id.clone();
                facts.run_id = request.run_id.clone();
                facts.turn_id = request.turn_id.clone();
                let id = request.approval_request_id.clone();
                facts.approval = Some(id.clone());
                match state {
                    EarlierState::Approved { .. } => return Ok(()),
                    EarlierState::Waiting => match self.queue().join(&id) {
                        Some(waiting) => waiting,
                        None => return self.ended(&id),
                    },
                }
            }
            None => self.ask(facts, manifest, rendering, rule, args).await?,
        };
        let outcome = tokio::select! {
            outcome = waiting.decided() => outcome,
            _ = gone.changed() => {
                waiting.call_off().await;
                return Err(Denial::new("called_off", "the caller went away".to_owned()));
            }
        };
        match outcome {
            Ok(outcome) => denial(&outcome, self.policy().approval_timeout),
            Err(closed) => Err(Denial::new(
                "gateway_stopping",
                format!("{closed}; send the same call again when the gateway is back"),
            )),
        }
    }

    async fn ask(
        &self,
        facts: &mut CallFacts,
        manifest: &Manifest,
        rendering: &Rendering,
        rule: &Rule,
        args: &Content,
    ) -> Result<Waiting, Box<Denial>> {
        let timeout = self.policy().approval_timeout;
        let place = self
            .queue()
            .admit(facts.agent_id.clone(), timeout)
            .map_err(|error| Denial::new("not_held", error.to_string()))?;
        let id = random_id(self.entropy())
            .map_err(|error| Denial::new("no_entropy", error.to_string()))?;
        let internal =
            |error: &dyn std::fmt::Display| Denial::new("not_recorded", error.to_string());
        let id = ApprovalRequestId::new(id).map_err(|e| internal(&e))?;
        let (package, now) = (self.package(), self.now());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = facts
            .approval_request(id.clone(), rule, rendering, timeout_ms, package, now)
            .map_err(|e| internal(&e))?;
        request.validate().map_err(|e| internal(&e))?;
        let drafts = approval_opening(&request, package, now).map_err(|e| internal(&e))?;
        let batch = Batch { drafts, contents: vec![args.clone()] };
        self.journal().append(batch).await.map_err(|e| internal(&e))?;
        facts.approval = Some(id.clone());
        self.recorder().expect(Arc::new(request));
        Ok(place.hold(HoldRequest {
            id,
            kind: HoldKind::ToolCall,
            summary: rendering.command.clone(),
            reason: rule.text.clone(),
            context_snapshot: context(manifest, rendering, facts),
            created_at_millis: now,
            fingerprint: facts.fingerprint,
            rendering_digest: Some(rendering.digest()),
        }))
    }

    /// An approval that was given before the restart, or else the oldest hold that waits.
    fn take_earlier(&self, facts: &CallFacts) -> Option<Earlier> {
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
        let at = earlier.iter().position(ready).unwrap_or(0);
        let taken = earlier.remove(at);
        if earlier.is_empty() {
            all.remove(&key);
        }
        taken
    }

    /// The outcome of a hold from before the restart that has ended by now.
    fn ended(&self, id: &ApprovalRequestId) -> Result<(), Box<Denial>> {
        let found = self.queue().find(id).and_then(|(_, outcome)| outcome);
        let Some(outcome) = found else {
            return Err(Denial::new("approval.gone", "the approval request has ended".to_owned()));
        };
        let valid = u64::try_from(self.policy().approval_valid_for.as_millis()).unwrap_or(u64::MAX);
        if outcome.status == HoldStatus::Approved
            && self.now() >= outcome.at_millis.saturating_add(valid)
        {
            return Err(Denial::new(
                "approval.stale",
                "the approval was not used in time".to_owned(),
            ));
        }
        denial(&outcome, self.policy().approval_timeout)
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
        (_, None) => "denied: the decision could not be recorded".to_owned(),
    };
    let code = outcome.code.to_owned();
    Err(Box::new(Denial { code, message, by, reason, problems: Vec::new() }))
}

/// The id of a new call.
pub(crate) fn call_id(kernel: &Kernel) -> Result<ToolCallId, Box<Denial>> {
    let id = ordered_id(kernel.entropy(), kernel.now())
        .map_err(|error| Denial::new("no_entropy", error.to_string()))?;
    ToolCallId::new(format!("call.{id}"))
        .map_err(|error| Denial::new("not_recorded", error.to_string()))
}
