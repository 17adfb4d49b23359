//! Building the records of a call. What stands where follows the record contract.

use countersign_core::approval::{
    ApprovalDecision, ApprovalDecisionKind, ApprovalLifecycleStatus, ApprovalRecord,
    ApprovalRequest, DispatcherScope,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{
    EffectClass, EffectIntent, EffectKind, EffectResult, EffectTerminalStatus, RiskClass,
};
use countersign_core::hold::{Approver, DecisionKind, HoldStatus};
use countersign_core::id::{
    AgentId, ApprovalRequestId, ContentRef, EffectId, IdError, RecordId, RefId, RunId, ToolCallId,
    TurnId,
};
use countersign_core::journal::{
    EncodeError, EncodedDraft, EventIndexProjection, JournalDraft, JournalPayload, JournalRecord,
    JournalRecordKind, RecoveryMarker, RunLifecycle, SCHEMA_VERSION, TOOL_CALL_KEY,
    UnsafePendingEffect,
};
use countersign_core::refs::{
    CorrelationEntry, DestinationKind, DestinationRef, EntityKind, EntityRef, PolicyKind,
    PolicyRef, PrivacyClass, RetentionClass, SourceKind, SourceRef,
};
use countersign_core::tool::{SidecarRef, ToolCallRecord, ToolCallStatus};
use countersign_escalation::Outcome;
use countersign_manifest::{Manifest, RiskTier};

use crate::policy::Rule;
use crate::render::Rendering;
use crate::run::Run;

/// Why a record could not be built. The step that needed it does not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Who a record is about and when it was written.
#[derive(Clone, Debug)]
pub(crate) struct Base<'a> {
    pub(crate) run_id: &'a RunId,
    pub(crate) agent_id: &'a AgentId,
    pub(crate) package: &'a str,
    pub(crate) now: u64,
}

/// What differs between records of one base.
struct Body {
    id: String,
    kind: JournalRecordKind,
    event: &'static str,
    subject: EntityRef,
    source: SourceRef,
    payload: JournalPayload,
    family: &'static str,
    turn: Option<TurnId>,
    related: Vec<EntityRef>,
    destination: Option<DestinationRef>,
    call: Option<ToolCallId>,
    tags: Vec<String>,
    contents: Vec<ContentRef>,
}

impl Base<'_> {
    fn draft(&self, body: Body) -> Result<EncodedDraft, BuildError> {
        let keys: Vec<_> = body
            .call
            .iter()
            .map(|call| CorrelationEntry { key: TOOL_CALL_KEY.into(), value: call.to_string() })
            .collect();
        let event_index = EventIndexProjection {
            run_id: self.run_id.clone(),
            session_id: None,
            agent_id: self.agent_id.clone(),
            turn_id: body.turn.clone(),
            event_family: body.family.to_owned(),
            event_kind: body.event.to_owned(),
            source: body.source.clone(),
            destination: body.destination.clone(),
            subject_ref: body.subject.clone(),
            // The peer's approval records leave the related references out of the index.
            related_refs: match body.kind {
                JournalRecordKind::Approval => Vec::new(),
                _ => body.related.clone(),
            },
            correlation_keys: keys.clone(),
            tags: body.tags.clone(),
            privacy_class: PrivacyClass::default(),
            delivery_semantics: "journal_backed".to_owned(),
        };
        let record = JournalRecord {
            journal_schema_version: SCHEMA_VERSION,
            journal_seq: 0,
            record_id: RecordId::new(&body.id)?,
            record_kind: body.kind,
            run_id: self.run_id.clone(),
            session_id: None,
            agent_id: self.agent_id.clone(),
            turn_id: body.turn,
            attempt_id: None,
            subject_ref: body.subject,
            related_refs: body.related,
            causal_refs: Vec::new(),
            source: body.source,
            destination: body.destination,
            correlation_keys: keys,
            tags: body.tags,
            delivery_semantics: "journal_backed".to_owned(),
            event_index,
            timestamp_millis: self.now,
            runtime_package_fingerprint: self.package.to_owned(),
            privacy: PrivacyClass::default(),
            content_refs: body.contents,
            redaction_policy_id: "redaction.default".to_owned(),
            idempotency_key: None,
            dedupe_key: None,
            checkpoint_ref: None,
            payload: body.payload,
        };
        Ok(JournalDraft::new(record).encode()?)
    }

    /// A run started, ended, or had something happen to it outside a call.
    pub(crate) fn run(
        &self,
        suffix: &str,
        event: &'static str,
        status: &str,
        reason: &str,
    ) -> Result<EncodedDraft, BuildError> {
        self.draft(Body {
            id: format!("journal.record.{}.{suffix}", self.run_id),
            kind: JournalRecordKind::Run,
            event,
            subject: entity(EntityKind::Run, self.run_id.as_str())?,
            source: host()?,
            payload: JournalPayload::RunLifecycle(RunLifecycle {
                status: status.to_owned(),
                reason: reason.to_owned(),
            }),
            family: "run",
            turn: None,
            related: Vec::new(),
            destination: None,
            call: None,
            tags: vec!["run".to_owned()],
            contents: Vec::new(),
        })
    }

    /// An effect was found with an intent and without a result.
    pub(crate) fn recovery(
        &self,
        call: ToolCallId,
        effect: UnsafePendingEffect,
    ) -> Result<EncodedDraft, BuildError> {
        self.draft(Body {
            id: format!("journal.record.recovery.{}", effect.effect_id),
            kind: JournalRecordKind::Recovery,
            event: "effect_outcome_unknown",
            subject: entity(EntityKind::Effect, effect.effect_id.as_str())?,
            source: host()?,
            payload: JournalPayload::Recovery(RecoveryMarker {
                unsafe_pending: vec![effect],
                recovery_reason: "the gateway ended while the effect was under way".to_owned(),
                policy_refs: Vec::new(),
            }),
            family: "recovery",
            turn: None,
            related: Vec::new(),
            destination: None,
            call: Some(call),
            tags: vec!["recovery".to_owned()],
            contents: Vec::new(),
        })
    }
}

/// Everything the records of one call have in common.
#[derive(Clone, Debug)]
pub(crate) struct CallFacts {
    pub(crate) run_id: RunId,
    pub(crate) agent_id: AgentId,
    pub(crate) turn_id: TurnId,
    pub(crate) call_id: ToolCallId,
    pub(crate) source: SourceRef,
    pub(crate) tool: String,
    pub(crate) manifest: Option<SidecarRef>,
    pub(crate) risk: RiskClass,
    pub(crate) args_ref: Option<ContentRef>,
    pub(crate) args_summary: String,
    pub(crate) fingerprint: Option<Digest>,
    pub(crate) approval: Option<ApprovalRequestId>,
}

impl CallFacts {
    pub(crate) fn new(
        run: &Run,
        call_id: ToolCallId,
        turn: u64,
        tool: String,
    ) -> Result<Self, IdError> {
        Ok(Self {
            run_id: run.id().clone(),
            agent_id: run.agent_id().clone(),
            turn_id: TurnId::new(format!("turn.{turn}"))?,
            call_id,
            source: run.source().clone(),
            tool,
            manifest: None,
            risk: RiskClass::Low,
            args_ref: None,
            args_summary: "not read".to_owned(),
            fingerprint: None,
            approval: None,
        })
    }

    pub(crate) fn plan(
        &mut self,
        manifest: &Manifest,
        args: &Digest,
        rendering: &Rendering,
    ) -> Result<(), IdError> {
        self.manifest = Some(SidecarRef {
            sidecar_id: format!("manifest.{}", manifest.name()),
            kind: "tool_manifest".to_owned(),
            version: manifest.version().to_owned(),
            content_hash: Some(manifest.digest().to_owned()),
        });
        self.risk = match manifest.risk_tier() {
            RiskTier::Info | RiskTier::Low => RiskClass::Low,
            RiskTier::Medium => RiskClass::Medium,
            RiskTier::High => RiskClass::High,
            RiskTier::Critical => RiskClass::Critical,
        };
        self.args_ref = Some(ContentRef::new(args.to_string())?);
        self.args_summary = rendering.summary();
        Ok(())
    }

    fn base<'a>(&'a self, package: &'a str, now: u64) -> Base<'a> {
        Base { run_id: &self.run_id, agent_id: &self.agent_id, package, now }
    }

    fn destination(&self) -> Result<DestinationRef, IdError> {
        Ok(DestinationRef::new(DestinationKind::Tool, RefId::new(format!("tool.{}", self.tool))?))
    }

    fn effect_id(&self) -> Result<EffectId, IdError> {
        EffectId::new(format!("effect.{}", self.call_id))
    }

    /// A step of the call itself.
    pub(crate) fn tool_record(
        &self,
        step: ToolStep<'_>,
        package: &str,
        now: u64,
    ) -> Result<EncodedDraft, BuildError> {
        let effect_id = self.effect_id()?;
        let subject = entity(EntityKind::ToolCall, self.call_id.as_str())?;
        let mut related = vec![entity(EntityKind::Effect, effect_id.as_str())?];
        if let Some(id) = &self.approval {
            related.push(entity(EntityKind::ApprovalRequest, id.as_str())?);
        }
        let requested: Vec<_> = self.args_ref.iter().cloned().collect();
        let policy_refs = match &self.approval {
            Some(_) => vec![policy("policy.approval")?],
            None => Vec::new(),
        };
        let effect_intent = match step.terminal {
            Some(_) => None,
            None => Some(EffectIntent {
                effect_id: effect_id.clone(),
                kind: EffectKind::ToolExecution,
                subject_ref: subject.clone(),
                source: self.source.clone(),
                destination: Some(self.destination()?),
                policy_refs: policy_refs.clone(),
                idempotency_key: None,
                dedupe_key: None,
                content_refs: requested.clone(),
                redacted_summary: format!("execute tool {}", self.tool),
            }),
        };
        let effect_result = match step.terminal {
            None => None,
            Some(terminal_status) => Some(EffectResult {
                effect_id,
                terminal_status,
                external_operation_id: None,
                reconciliation_ref: None,
                error_ref: step.error.map(RefId::new).transpose()?,
                content_refs: step.contents.to_vec(),
                redacted_summary: step.summary.to_owned(),
            }),
        };
        let (part, event) = match step.terminal {
            None => ("intent", "tool_intent_recorded"),
            Some(EffectTerminalStatus::DeniedBeforeExecution) => ("denied", "tool_denied"),
            Some(_) => ("result", "tool_result_recorded"),
        };
        let contents = match step.terminal {
            None => requested.clone(),
            Some(_) => step.contents.to_vec(),
        };
        let payload = JournalPayload::Tool(Box::new(ToolCallRecord {
            tool_call_id: self.call_id.clone(),
            run_id: self.run_id.clone(),
            turn_id: Some(self.turn_id.clone()),
            capability_id: RefId::new(format!("tool.{}", self.tool))?,
            canonical_tool_name: self.tool.clone(),
            namespace: format!("tool.{}", self.tool),
            source: self.source.clone(),
            destination: self.destination()?,
            executor_ref: match step.status {
                ToolCallStatus::DeniedBeforeExecution => None,
                _ => Some(RefId::new("executor.process")?),
            },
            policy_refs,
            sidecar_refs: self.manifest.iter().cloned().collect(),
            effect_class: EffectClass::Process,
            risk_class: self.risk,
            privacy: PrivacyClass::default(),
            retention: RetentionClass::Durable,
            requested_args_refs: requested,
            redacted_args_summary: self.args_summary.clone(),
            original_redacted_args_summary: None,
            patched_redacted_args_summary: None,
            result_content_refs: step.contents.to_vec(),
            redacted_result_summary: step.terminal.map(|_| step.summary.to_owned()),
            original_redacted_result_summary: None,
            patched_redacted_result_summary: None,
            hook_id: None,
            idempotency_key: None,
            status: step.status,
            policy_outcome: None,
            effect_intent,
            effect_result,
            unsafe_pending_reason: None,
            fingerprint: self.fingerprint,
        }));
        self.base(package, now).draft(Body {
            id: format!("journal.record.tool.{}.{part}", self.call_id),
            kind: JournalRecordKind::Tool,
            event,
            subject,
            source: self.source.clone(),
            payload,
            family: "tool",
            turn: Some(self.turn_id.clone()),
            related,
            destination: Some(self.destination()?),
            call: Some(self.call_id.clone()),
            tags: vec!["tool_execution".to_owned()],
            contents,
        })
    }

    /// The question a person is asked.
    pub(crate) fn approval_request(
        &self,
        id: ApprovalRequestId,
        rule: &Rule,
        rendering: &Rendering,
        timeout_ms: u64,
        package: &str,
        now: u64,
    ) -> Result<ApprovalRequest, IdError> {
        Ok(ApprovalRequest {
            approval_dispatch_effect_id: EffectId::new(format!("effect.approval.{id}"))?,
            approval_request_id: id,
            run_id: self.run_id.clone(),
            session_id: None,
            agent_id: self.agent_id.clone(),
            turn_id: self.turn_id.clone(),
            tool_call_id: self.call_id.clone(),
            source: self.source.clone(),
            destination: self.destination()?,
            canonical_tool_name: self.tool.clone(),
            tool_source: SourceRef::new(
                SourceKind::Tool,
                RefId::new(format!("tool.{}", self.tool))?,
            ),
            effect_class: EffectClass::Process,
            risk_class: self.risk,
            requested_args_ref: match &self.args_ref {
                Some(args) => args.clone(),
                None => ContentRef::new("none")?,
            },
            redacted_args_summary: self.args_summary.clone(),
            policy_refs: vec![PolicyRef { version: Some(rule.text.clone()), ..policy(rule.id)? }],
            dispatcher_scope: DispatcherScope::Host,
            timeout_ms,
            allowed_decisions: vec![ApprovalDecisionKind::Approved, ApprovalDecisionKind::Denied],
            created_at_millis: now,
            runtime_package_fingerprint: package.to_owned(),
            fingerprint: self.fingerprint,
            rendering_digest: Some(rendering.digest()),
        })
    }
}

/// What a tool record says beyond the call's facts.
pub(crate) struct ToolStep<'a> {
    pub(crate) status: ToolCallStatus,
    pub(crate) terminal: Option<EffectTerminalStatus>,
    pub(crate) error: Option<&'a str>,
    pub(crate) summary: &'a str,
    pub(crate) contents: &'a [ContentRef],
}

fn approval_record(
    request: &ApprovalRequest,
    part: &'static str,
    event: &'static str,
    record: ApprovalRecord,
    package: &str,
    now: u64,
) -> Result<EncodedDraft, BuildError> {
    let base = Base { run_id: &request.run_id, agent_id: &request.agent_id, package, now };
    let id = &request.approval_request_id;
    base.draft(Body {
        id: format!("journal.record.approval.{id}.{part}"),
        kind: JournalRecordKind::Approval,
        event,
        subject: entity(EntityKind::ApprovalRequest, id.as_str())?,
        source: request.source.clone(),
        payload: JournalPayload::Approval(record),
        family: "approval",
        turn: Some(request.turn_id.clone()),
        related: vec![entity(EntityKind::Effect, request.approval_dispatch_effect_id.as_str())?],
        destination: Some(request.destination.clone()),
        call: Some(request.tool_call_id.clone()),
        tags: vec!["approval".to_owned()],
        contents: vec![request.requested_args_ref.clone()],
    })
}

/// The two records that must be durable before anybody may see the hold.
pub(crate) fn approval_opening(
    request: &ApprovalRequest,
    package: &str,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let request_id = request.approval_request_id.clone();
    let effect_intent = EffectIntent {
        effect_id: request.approval_dispatch_effect_id.clone(),
        kind: EffectKind::ApprovalDispatch,
        subject_ref: entity(EntityKind::ApprovalRequest, request_id.as_str())?,
        source: request.source.clone(),
        destination: Some(request.destination.clone()),
        policy_refs: request.policy_refs.clone(),
        idempotency_key: None,
        dedupe_key: None,
        content_refs: vec![request.requested_args_ref.clone()],
        redacted_summary: format!(
            "approval dispatch for {}: {}",
            request.canonical_tool_name, request.redacted_args_summary
        ),
    };
    let requested = ApprovalRecord::Requested { request: Box::new(request.clone()) };
    let intent = ApprovalRecord::DispatchIntent { request_id, effect_intent };
    Ok(vec![
        approval_record(request, "requested", "approval_requested", requested, package, now)?,
        approval_record(request, "intent", "approval_dispatch_intent", intent, package, now)?,
    ])
}

/// The two records that must be durable before the waiter may learn the outcome.
pub(crate) fn approval_closing(
    request: &ApprovalRequest,
    outcome: &Outcome,
    package: &str,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let request_id = request.approval_request_id.clone();
    let (lifecycle_status, effect, summary) = match outcome.status {
        HoldStatus::Approved => {
            (ApprovalLifecycleStatus::Approved, EffectTerminalStatus::Completed, "approved")
        }
        HoldStatus::Expired => {
            (ApprovalLifecycleStatus::TimedOut, EffectTerminalStatus::TimedOut, "nobody decided")
        }
        HoldStatus::Cancelled => {
            (ApprovalLifecycleStatus::Cancelled, EffectTerminalStatus::Cancelled, "called off")
        }
        HoldStatus::RecoveryRequired => (
            ApprovalLifecycleStatus::RecoveryRequired,
            EffectTerminalStatus::TimedOut,
            "its time ran out while the gateway was down",
        ),
        HoldStatus::Denied | HoldStatus::Pending => {
            (ApprovalLifecycleStatus::Denied, EffectTerminalStatus::DeniedBeforeExecution, "denied")
        }
    };
    let answer = match &outcome.decision {
        Some((decision, approver)) => {
            let actor = actor(approver)?;
            let reason = decision.reason.clone();
            let decided_at_millis = Some(outcome.at_millis);
            let (fingerprint, rendering_digest) = (request.fingerprint, request.rendering_digest);
            let decision = match decision.decision {
                DecisionKind::Approve => ApprovalDecision::Approved {
                    actor_ref: actor,
                    reason,
                    decided_at_millis,
                    fingerprint,
                    rendering_digest,
                },
                DecisionKind::Deny => ApprovalDecision::Denied {
                    reason_code: outcome.code.to_owned(),
                    actor_ref: Some(actor),
                    reason,
                    decided_at_millis,
                    fingerprint,
                    rendering_digest,
                },
            };
            let record = ApprovalRecord::Responded { request_id: request_id.clone(), decision };
            approval_record(request, "responded", "approval_responded", record, package, now)?
        }
        None => {
            let reason_code = outcome.code.to_owned();
            let record = ApprovalRecord::Denied { request_id: request_id.clone(), reason_code };
            approval_record(request, "denied", "approval_denied", record, package, now)?
        }
    };
    let recovered = outcome.status == HoldStatus::RecoveryRequired;
    let result = ApprovalRecord::DispatchResult {
        request_id,
        lifecycle_status,
        effect_result: EffectResult {
            effect_id: request.approval_dispatch_effect_id.clone(),
            terminal_status: effect,
            external_operation_id: None,
            reconciliation_ref: None,
            error_ref: match outcome.status {
                HoldStatus::Approved => None,
                _ => Some(RefId::new(outcome.code)?),
            },
            content_refs: Vec::new(),
            redacted_summary: summary.to_owned(),
        },
    };
    let part = if recovered { "recovery" } else { "result" };
    Ok(vec![
        answer,
        approval_record(request, part, "approval_dispatch_result", result, package, now)?,
    ])
}

fn actor(approver: &Approver) -> Result<SourceRef, IdError> {
    let mut actor = SourceRef::new(SourceKind::User, RefId::new(&approver.id)?);
    actor.redacted_summary = Some(approver.display.clone());
    let surface = serde_json::to_value(approver.surface).unwrap_or_default();
    actor.correlation = vec![CorrelationEntry {
        key: "surface".to_owned(),
        value: surface.as_str().unwrap_or_default().to_owned(),
    }];
    Ok(actor)
}

fn host() -> Result<SourceRef, IdError> {
    Ok(SourceRef::new(SourceKind::Host, RefId::new("countersign")?))
}

fn policy(id: &str) -> Result<PolicyRef, IdError> {
    Ok(PolicyRef { kind: PolicyKind::Approval, id: RefId::new(id)?, version: None })
}

fn entity(kind: EntityKind, id: &str) -> Result<EntityRef, IdError> {
    Ok(EntityRef::new(kind, RefId::new(id)?))
}
