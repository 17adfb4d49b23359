//! Building the records of a call. What stands where follows the record contract.

use countersign_core::approval::{
    ApprovalDecision, ApprovalDecisionKind, ApprovalPart, ApprovalRecord, ApprovalRequest,
    ApprovalTerminalStatus, DispatcherScope,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{
    EffectClass, EffectIntent, EffectKind, EffectResult, EffectTerminalStatus, RiskClass,
};
use countersign_core::hold::{Approver, DecisionKind, HoldStatus};
use countersign_core::id::{
    AgentId, ApprovalRequestId, ContentRef, EffectId, IdError, RecordId, RefId, RunId,
    RuntimePackageFingerprint, ToolCallId, TurnId,
};
use countersign_core::journal::{
    EncodeError, EncodedDraft, JournalDraft, JournalRecord, RecordBase, RecoveryMarker,
    RunLifecycle, TOOL_CALL_KEY, UnsafePendingEffect,
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
    pub(crate) package: &'a RuntimePackageFingerprint,
    pub(crate) now: u64,
}

impl Base<'_> {
    pub(crate) fn record_base(&self, source: SourceRef) -> RecordBase {
        RecordBase {
            timestamp_millis: self.now,
            ..RecordBase::new(
                self.run_id.clone(),
                self.agent_id.clone(),
                source,
                self.package.clone(),
            )
        }
    }

    /// A run started, ended, or had something happen to it outside a call.
    pub(crate) fn run(
        &self,
        suffix: &str,
        event: &'static str,
        status: &str,
        reason: &str,
    ) -> Result<EncodedDraft, BuildError> {
        let base = RecordBase { tags: vec!["run".to_owned()], ..self.record_base(host()?) };
        let id = RecordId::new(format!("journal.record.{}.{suffix}", self.run_id))?;
        let run = RunLifecycle { status: status.to_owned(), reason: reason.to_owned() };
        encode(base.about_run(id, ("run", event), run.into()))
    }

    /// An effect was found with an intent and without a result.
    pub(crate) fn recovery(
        &self,
        call: &ToolCallId,
        effect: UnsafePendingEffect,
    ) -> Result<EncodedDraft, BuildError> {
        let base = RecordBase {
            tags: vec!["recovery".to_owned()],
            correlation_keys: of_call(call),
            ..self.record_base(host()?)
        };
        let id = RecordId::new(format!("journal.record.recovery.{}", effect.effect_id))?;
        let subject = EntityRef::new(EntityKind::Effect, RefId::from(&effect.effect_id));
        let marker = RecoveryMarker {
            unsafe_pending: vec![effect],
            recovery_reason: "the gateway ended while the effect was under way".to_owned(),
            policy_refs: Vec::new(),
        };
        let event = ("recovery", "effect_outcome_unknown");
        encode(base.record(id, event, subject, Vec::new(), marker.into()))
    }
}

pub(crate) fn encode(record: JournalRecord) -> Result<EncodedDraft, BuildError> {
    Ok(JournalDraft::new(record).encode()?)
}

/// The key by which all records of a call are found.
pub(crate) fn of_call(call: &ToolCallId) -> Vec<CorrelationEntry> {
    vec![CorrelationEntry { key: TOOL_CALL_KEY.to_owned(), value: call.to_string() }]
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

    fn base<'a>(&'a self, package: &'a RuntimePackageFingerprint, now: u64) -> Base<'a> {
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
        package: &RuntimePackageFingerprint,
        now: u64,
    ) -> Result<EncodedDraft, BuildError> {
        let effect_id = self.effect_id()?;
        let subject = EntityRef::new(EntityKind::ToolCall, RefId::from(&self.call_id));
        let mut related = vec![EntityRef::new(EntityKind::Effect, RefId::from(&effect_id))];
        if let Some(id) = &self.approval {
            related.push(EntityRef::new(EntityKind::ApprovalRequest, RefId::from(id)));
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
                error_ref: step.error.map(str::to_owned),
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
        let payload = ToolCallRecord {
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
        }
        .into();
        let base = RecordBase {
            turn_id: Some(self.turn_id.clone()),
            destination: Some(self.destination()?),
            correlation_keys: of_call(&self.call_id),
            tags: vec!["tool_execution".to_owned()],
            ..self.base(package, now).record_base(self.source.clone())
        };
        let id = RecordId::new(format!("journal.record.tool.{}.{part}", self.call_id))?;
        let record = base.record(id, ("tool", event), subject, related, payload);
        encode(JournalRecord { content_refs: contents, ..record })
    }

    /// The question a person is asked.
    pub(crate) fn approval_request(
        &self,
        id: ApprovalRequestId,
        rule: &Rule,
        rendering: &Rendering,
        timeout_ms: u64,
        package: &RuntimePackageFingerprint,
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
            runtime_package_fingerprint: package.clone(),
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
    part: ApprovalPart,
    record: ApprovalRecord,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<EncodedDraft, BuildError> {
    let base = RecordBase {
        correlation_keys: of_call(&request.tool_call_id),
        runtime_package_fingerprint: package.clone(),
        ..request.record_base(now)
    };
    encode(request.journal_record(base, part, record)?)
}

/// The two records that must be durable before anybody may see the question.
pub(crate) fn approval_opening(
    request: &ApprovalRequest,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let requested = ApprovalRecord::Requested { request: Box::new(request.clone()) };
    let intent = ApprovalRecord::DispatchIntent {
        request_id: request.approval_request_id.clone(),
        effect_intent: request.dispatch_intent(),
    };
    Ok(vec![
        approval_record(request, ApprovalPart::Requested, requested, package, now)?,
        approval_record(request, ApprovalPart::Intent, intent, package, now)?,
    ])
}

/// The two records that must be durable before the waiter may learn the outcome.
pub(crate) fn approval_closing(
    request: &ApprovalRequest,
    outcome: &Outcome,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let request_id = request.approval_request_id.clone();
    let (status, summary) = match outcome.status {
        HoldStatus::Approved => (ApprovalTerminalStatus::Approved, "approved"),
        HoldStatus::Expired => (ApprovalTerminalStatus::TimedOut, "nobody decided"),
        HoldStatus::Cancelled => (ApprovalTerminalStatus::Cancelled, "called off"),
        HoldStatus::RecoveryRequired => (
            ApprovalTerminalStatus::RecoveryRequired,
            "its time ran out while the gateway was down",
        ),
        HoldStatus::Denied | HoldStatus::Pending => (ApprovalTerminalStatus::Denied, "denied"),
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
            approval_record(request, ApprovalPart::Responded, record, package, now)?
        }
        None => {
            let record = ApprovalRecord::Denied {
                request_id: request_id.clone(),
                reason_code: outcome.code.to_owned(),
                actor_ref: None,
                reason: None,
            };
            approval_record(request, ApprovalPart::Denied, record, package, now)?
        }
    };
    let part = match status {
        ApprovalTerminalStatus::RecoveryRequired => ApprovalPart::Recovery,
        _ => ApprovalPart::Result,
    };
    let mut effect_result = request.dispatch_result(status.effect_status(), summary);
    effect_result.error_ref = (!status.releases_tool()).then(|| outcome.code.to_owned());
    let result = ApprovalRecord::DispatchResult {
        request_id,
        lifecycle_status: status.into(),
        effect_result,
    };
    Ok(vec![answer, approval_record(request, part, result, package, now)?])
}

fn actor(approver: &Approver) -> Result<SourceRef, IdError> {
    let mut actor = SourceRef::new(SourceKind::User, RefId::new(&approver.id)?);
    actor.redacted_summary = Some(approver.display.clone());
    actor.correlation =
        vec![CorrelationEntry { key: "surface".to_owned(), value: approver.surface.to_string() }];
    Ok(actor)
}

fn host() -> Result<SourceRef, IdError> {
    Ok(SourceRef::new(SourceKind::Host, RefId::new("countersign")?))
}

fn policy(id: &str) -> Result<PolicyRef, IdError> {
    Ok(PolicyRef { kind: PolicyKind::Approval, id: RefId::new(id)?, version: None })
}
