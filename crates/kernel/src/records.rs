//! Building the records of a call. What stands where follows the record contract.

use std::sync::Arc;

use countersign_core::approval::{
    ApprovalDecisionKind, ApprovalEdit, ApprovalEvent, ApprovalOutcome, ApprovalPart,
    ApprovalRecord, ApprovalRequest, ApprovalTerminalStatus, DispatcherScope,
};
use countersign_core::digest::Digest;
use countersign_core::effect::{
    EffectClass, EffectIntent, EffectKind, EffectResult, EffectTerminalStatus, RiskClass,
};
use countersign_core::hold::{Approver, HoldRecord, Vote};
use countersign_core::hook::hook_ref;
use countersign_core::id::{
    AgentId, ApprovalRequestId, ContentRef, EffectId, HookId, IdError, IdempotencyKey, RecordId,
    RefId, RunId, RuntimePackageFingerprint, SessionId, ToolCallId, TurnId,
};
use countersign_core::journal::{
    EncodeError, EncodedDraft, JournalDraft, JournalRecord, RecordBase, RecoveryMarker,
    RunLifecycle, TOOL_CALL_KEY, UnsafePendingEffect,
};
use countersign_core::plan::PlanKind;
use countersign_core::refs::{
    CorrelationEntry, DestinationKind, DestinationRef, EntityKind, EntityRef, PolicyKind,
    PolicyRef, PrivacyClass, RetentionClass, SourceKind, SourceRef,
};
use countersign_core::tool::{SidecarRef, ToolCallRecord, ToolCallStatus};
use countersign_manifest::{Manifest, RiskTier};
use countersign_ports::mcp::McpCaller;

use crate::hooks::Brake;
use crate::policy::Demand;
use crate::render::Rendering;
use crate::run::{Addition, Note, Run};

/// Why a record could not be built. The step that needed it does not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
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
        note: &Note<'_>,
    ) -> Result<EncodedDraft, BuildError> {
        let key = note.key.iter();
        let key = key
            .map(|(key, value)| CorrelationEntry { key: (*key).to_owned(), value: value.clone() });
        let base = RecordBase {
            tags: vec!["run".to_owned()],
            correlation_keys: key.collect(),
            ..self.record_base(host()?)
        };
        let id = RecordId::new(format!("journal.record.{}.{suffix}", self.run_id))?;
        let run = RunLifecycle { status: note.status.to_owned(), reason: note.reason.to_owned() };
        let record = base.about_run(id, ("run", event), run.into());
        let contents = note.contents.iter().map(|content| content.digest().to_string());
        let content_refs = contents.map(ContentRef::new).collect::<Result<_, _>>()?;
        encode(JournalRecord { content_refs, ..record })
    }

    /// What a surface records that the kernel does not know.
    pub(crate) fn addition(&self, addition: Addition) -> Result<EncodedDraft, BuildError> {
        let Addition { record_id, event, source, subject, correlation_keys, payload } = addition;
        let tags = vec![event.to_owned()];
        let base = RecordBase { tags, correlation_keys, ..self.record_base(source) };
        encode(base.record(record_id, ("extension", event), subject, Vec::new(), payload))
    }

    /// Somebody was not told of a call that waits.
    pub(crate) fn notice(
        &self,
        call: &ToolCallId,
        suffix: &str,
        reason: &str,
    ) -> Result<EncodedDraft, BuildError> {
        let base = RecordBase {
            tags: vec!["run".to_owned()],
            correlation_keys: of_call(call),
            ..self.record_base(host()?)
        };
        let id = RecordId::new(format!("journal.record.{}.{suffix}", self.run_id))?;
        let status = "notice_lost".to_owned();
        let run = RunLifecycle { status, reason: reason.to_owned() };
        encode(base.about_run(id, ("run", "notice_lost"), run.into()))
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

/// The digest of what a call under an idempotency key was sent with.
pub(crate) const KEYED_REQUEST: &str = "idempotency_request";

/// The idempotency key itself, in records that have no field for it.
const KEY: &str = "idempotency_key";

/// The client's own name for a call, and the digest of what it was sent with.
pub(crate) type OwnKey = (IdempotencyKey, Digest);

/// The key of the call that an approval request is about, from its record.
pub(crate) fn own_key(record: &JournalRecord) -> Option<OwnKey> {
    let key = IdempotencyKey::new(record.correlation(KEY)?).ok()?;
    Some((key, Digest::parse(record.correlation(KEYED_REQUEST)?).ok()?))
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
    /// What the plan takes; until there is one, what most do.
    pub(crate) kind: PlanKind,
    pub(crate) risk: RiskClass,
    pub(crate) args_ref: Option<ContentRef>,
    pub(crate) args_summary: String,
    pub(crate) fingerprint: Option<Digest>,
    pub(crate) approval: Option<ApprovalRequestId>,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) session: RefId,
    pub(crate) brake: Brake,
    pub(crate) grant_use: Option<u64>,
    /// The client's own name for the call, and the digest of what it was sent with.
    pub(crate) key: Option<OwnKey>,
    /// The MCP client that made the call.
    pub(crate) caller: Option<Arc<dyn McpCaller>>,
    /// What an approver changed: the facts are those of the changed call then.
    pub(crate) edit: Option<Arc<ApprovalEdit>>,
    /// The arguments before that.
    pub(crate) asked_args_summary: Option<String>,
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
            kind: PlanKind::Command,
            risk: RiskClass::Low,
            args_ref: None,
            args_summary: "not read".to_owned(),
            fingerprint: None,
            approval: None,
            session_id: run.session_id().cloned(),
            session: run.session(),
            brake: run.brake().clone(),
            grant_use: None,
            key: None,
            caller: None,
            edit: None,
            asked_args_summary: None,
        })
    }

    pub(crate) fn plan(
        &mut self,
        manifest: &Manifest,
        kind: PlanKind,
        args: &Digest,
        rendering: &Rendering,
    ) -> Result<(), IdError> {
        self.manifest = Some(SidecarRef {
            sidecar_id: format!("manifest.{}", manifest.name()),
            kind: "tool_manifest".to_owned(),
            version: manifest.version().to_owned(),
            content_hash: Some(manifest.digest().to_owned()),
        });
        self.kind = kind;
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

    /// What runs the plan, by its name in records.
    fn executor(&self) -> &'static str {
        match self.kind {
            PlanKind::Command | PlanKind::Executor => "executor.process",
            PlanKind::Http => "executor.http",
            PlanKind::Mcp => "executor.mcp",
            PlanKind::Callback => "executor.callback",
        }
    }

    fn effect_class(&self) -> EffectClass {
        match self.kind {
            PlanKind::Http | PlanKind::Mcp => EffectClass::Network,
            PlanKind::Command | PlanKind::Executor | PlanKind::Callback => EffectClass::Process,
        }
    }

    fn effect_id(&self) -> Result<EffectId, IdError> {
        EffectId::new(format!("effect.{}", self.call_id))
    }

    /// What the call's records have in common.
    pub(crate) fn record_base(
        &self,
        package: &RuntimePackageFingerprint,
        now: u64,
    ) -> Result<RecordBase, IdError> {
        Ok(RecordBase {
            session_id: self.session_id.clone(),
            turn_id: Some(self.turn_id.clone()),
            destination: Some(self.destination()?),
            correlation_keys: self.correlation_keys(),
            ..self.base(package, now).record_base(self.source.clone())
        })
    }

    fn correlation_keys(&self) -> Vec<CorrelationEntry> {
        let mut keys = of_call(&self.call_id);
        if let Some((_, request)) = &self.key {
            let (key, value) = (KEYED_REQUEST.to_owned(), request.to_string());
            keys.push(CorrelationEntry { key, value });
        }
        keys
    }

    /// The call as other records refer to it.
    pub(crate) fn subject(&self) -> EntityRef {
        EntityRef::new(EntityKind::ToolCall, RefId::from(&self.call_id))
    }

    /// A step of the call itself.
    pub(crate) fn tool_record(
        &self,
        step: ToolStep<'_>,
        package: &RuntimePackageFingerprint,
        now: u64,
    ) -> Result<EncodedDraft, BuildError> {
        let (effect_id, subject) = (self.effect_id()?, self.subject());
        let mut related = vec![EntityRef::new(EntityKind::Effect, RefId::from(&effect_id))];
        if let Some(id) = &self.approval {
            related.push(EntityRef::new(EntityKind::ApprovalRequest, RefId::from(id)));
        }
        let requested: Vec<_> = self.args_ref.iter().cloned().collect();
        let policy_refs = match &self.approval {
            Some(_) => vec![policy("policy.approval")?],
            None => Vec::new(),
        };
        let mut record = ToolCallRecord {
            tool_call_id: self.call_id.clone(),
            run_id: self.run_id.clone(),
            turn_id: Some(self.turn_id.clone()),
            capability_id: RefId::new(format!("tool.{}", self.tool))?,
            canonical_tool_name: self.tool.clone(),
            namespace: format!("tool.{}", self.tool),
            source: self.source.clone(),
            destination: self.destination()?,
            executor_ref: Some(RefId::new(self.executor())?),
            policy_refs,
            sidecar_refs: self.manifest.iter().cloned().collect(),
            effect_class: self.effect_class(),
            risk_class: self.risk,
            privacy: PrivacyClass::default(),
            retention: RetentionClass::Durable,
            requested_args_refs: requested.clone(),
            redacted_args_summary: self.args_summary.clone(),
            original_redacted_args_summary: self.asked_args_summary.clone(),
            patched_redacted_args_summary: self
                .asked_args_summary
                .as_ref()
                .map(|_| self.args_summary.clone()),
            result_content_refs: Vec::new(),
            redacted_result_summary: None,
            original_redacted_result_summary: None,
            patched_redacted_result_summary: None,
            hook_id: None,
            idempotency_key: self.key.as_ref().map(|(key, _)| key.clone()),
            status: ToolCallStatus::IntentRecorded,
            policy_outcome: None,
            effect_intent: None,
            effect_result: None,
            unsafe_pending_reason: None,
            fingerprint: self.fingerprint,
            grant_use: self.grant_use,
        };
        let (part, event, contents);
        match step {
            ToolStep::Intent => {
                (part, event) = ("intent".to_owned(), "tool_intent_recorded");
                contents = requested.clone();
                record.effect_intent = Some(EffectIntent {
                    destination: Some(self.destination()?),
                    policy_refs: record.policy_refs.clone(),
                    content_refs: requested,
                    ..EffectIntent::new(
                        effect_id,
                        EffectKind::ToolExecution,
                        subject.clone(),
                        self.source.clone(),
                        format!("execute tool {}", self.tool),
                    )
                });
            }
            ToolStep::End { terminal, error, summary, contents: output, hook } => {
                record.status = terminal.into();
                if terminal == EffectTerminalStatus::DeniedBeforeExecution {
                    (part, event) = ("denied".to_owned(), "tool_denied");
                    record.executor_ref = None;
                } else {
                    (part, event) = ("result".to_owned(), "tool_result_recorded");
                }
                contents = output.to_vec();
                record.hook_id = hook.cloned();
                record.result_content_refs = output.to_vec();
                record.redacted_result_summary = Some(summary.to_owned());
                record.effect_result = Some(EffectResult {
                    error_ref: error.map(str::to_owned),
                    content_refs: output.to_vec(),
                    ..EffectResult::new(effect_id, terminal, summary)
                });
            }
            ToolStep::Modified { hook, before } => {
                (part, event) = (format!("request_modified.{hook}"), "tool_request_modified");
                contents = requested;
                record.status = ToolCallStatus::RequestModified;
                record.hook_id = Some(hook.clone());
                record.original_redacted_args_summary = Some(before.to_owned());
                record.patched_redacted_args_summary = Some(self.args_summary.clone());
            }
            ToolStep::Rewritten { hook, before, after, contents: output } => {
                (part, event) = (format!("result_rewritten.{hook}"), "tool_result_rewritten");
                contents = output.to_vec();
                record.status = ToolCallStatus::ResultRewritten;
                record.hook_id = Some(hook.clone());
                record.result_content_refs = output.to_vec();
                record.redacted_result_summary = Some(after.to_owned());
                record.original_redacted_result_summary = Some(before.to_owned());
                record.patched_redacted_result_summary = Some(after.to_owned());
            }
        }
        if let Some(hook) = &record.hook_id {
            related.push(hook_ref(hook));
        }
        let base = RecordBase {
            tags: vec!["tool_execution".to_owned()],
            ..self.record_base(package, now)?
        };
        let id = RecordId::new(format!("journal.record.tool.{}.{part}", self.call_id))?;
        let record = base.record(id, ("tool", event), subject, related, record.into());
        encode(JournalRecord { content_refs: contents, ..record })
    }

    /// The question a person is asked.
    pub(crate) fn approval_request(
        &self,
        id: ApprovalRequestId,
        demand: &Demand,
        rendering: &Rendering,
        package: &RuntimePackageFingerprint,
        now: u64,
    ) -> Result<ApprovalRequest, IdError> {
        let rule = &demand.rule;
        Ok(ApprovalRequest {
            approval_dispatch_effect_id: EffectId::new(format!("effect.approval.{id}"))?,
            approval_request_id: id,
            run_id: self.run_id.clone(),
            session_id: self.session_id.clone(),
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
            effect_class: self.effect_class(),
            risk_class: self.risk,
            requested_args_ref: match &self.args_ref {
                Some(args) => args.clone(),
                None => ContentRef::new("none")?,
            },
            redacted_args_summary: self.args_summary.clone(),
            policy_refs: vec![PolicyRef { version: Some(rule.text.clone()), ..policy(&rule.id)? }],
            dispatcher_scope: DispatcherScope::Host,
            timeout_ms: u64::try_from(demand.timeout.as_millis()).unwrap_or(u64::MAX),
            allowed_decisions: vec![ApprovalDecisionKind::Approved, ApprovalDecisionKind::Denied],
            created_at_millis: now,
            runtime_package_fingerprint: package.clone(),
            fingerprint: self.fingerprint,
            rendering_digest: Some(rendering.digest()),
            presentation: None,
            hold_policy: demand.policy.as_deref().cloned().map(Box::new),
        })
    }
}

/// What a tool record says beyond the call's facts.
#[derive(Clone, Copy)]
pub(crate) enum ToolStep<'a> {
    /// The effect is announced.
    Intent,
    /// The call has ended, or does not begin.
    End {
        terminal: EffectTerminalStatus,
        error: Option<&'a str>,
        summary: &'a str,
        contents: &'a [ContentRef],
        hook: Option<&'a HookId>,
    },
    /// A hook changed the arguments to those of the facts.
    Modified { hook: &'a HookId, before: &'a str },
    /// A hook replaced the result.
    Rewritten { hook: &'a HookId, before: &'a str, after: &'a str, contents: &'a [ContentRef] },
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) event: ApprovalEvent,
    /// How the effect of asking ended.
    pub(crate) effect: EffectTerminalStatus,
    pub(crate) outcome: ApprovalOutcome,
    /// The answers that made it, where the request names a policy.
    pub(crate) votes: Vec<Vote>,
    /// What an approver had changed of the call.
    pub(crate) edit: Option<ApprovalEdit>,
}

/// What the records of a request have in common.
pub(crate) fn approval_base(
    request: &ApprovalRequest,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> RecordBase {
    RecordBase {
        correlation_keys: of_call(&request.tool_call_id),
        runtime_package_fingerprint: package.clone(),
        ..request.record_base(now)
    }
}

fn approval_record(
    request: &ApprovalRequest,
    part: ApprovalPart,
    record: ApprovalRecord,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<EncodedDraft, BuildError> {
    encode(request.journal_record(approval_base(request, package, now), part, record)?)
}

/// The two records that must be durable before anybody may see the question. The first has the
/// key of the call.
pub(crate) fn approval_opening(
    request: &ApprovalRequest,
    key: Option<&OwnKey>,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let requested = ApprovalRecord::Requested { request: Box::new(request.clone()) };
    let intent = ApprovalRecord::DispatchIntent {
        request_id: request.approval_request_id.clone(),
        effect_intent: request.dispatch_intent(),
    };
    let mut base = approval_base(request, package, now);
    if let Some((key, sent)) = key {
        base.correlation_keys.extend([
            CorrelationEntry { key: KEY.to_owned(), value: key.to_string() },
            CorrelationEntry { key: KEYED_REQUEST.to_owned(), value: sent.to_string() },
        ]);
    }
    Ok(vec![
        encode(request.journal_record(base, ApprovalPart::Requested, requested)?)?,
        approval_record(request, ApprovalPart::Intent, intent, package, now)?,
    ])
}

/// The two records that must be durable before anybody may learn of the ending.
pub(crate) fn approval_closing(
    request: &ApprovalRequest,
    ending: &Ending,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<Vec<EncodedDraft>, BuildError> {
    let request_id = request.approval_request_id.clone();
    let ApprovalOutcome { status, decision, reason_code, .. } = &ending.outcome;
    let (part, answer) = match decision {
        Some(decision) => {
            let decision = decision.clone();
            let (request_id, votes) = (request_id.clone(), ending.votes.clone());
            let edit = ending.edit.clone().map(Box::new);
            let answer = ApprovalRecord::Responded { request_id, decision, votes, edit };
            (ApprovalPart::Responded, answer)
        }
        None => {
            let answer = ApprovalRecord::Denied {
                request_id: request_id.clone(),
                reason_code: reason_code.clone(),
                actor_ref: None,
                reason: None,
            };
            (ApprovalPart::Denied, answer)
        }
    };
    let summary = match status {
        ApprovalTerminalStatus::Approved => "approved",
        ApprovalTerminalStatus::ApprovedForSession => "approved for the session",
        ApprovalTerminalStatus::Denied => "denied",
        ApprovalTerminalStatus::TimedOut => "nobody decided",
        ApprovalTerminalStatus::Cancelled => "called off",
        ApprovalTerminalStatus::DispatcherUnavailable => "nobody could be asked",
        ApprovalTerminalStatus::RecoveryRequired => "its time ran out while the gateway was down",
    };
    let mut effect_result = request.dispatch_result(ending.effect, summary);
    effect_result.error_ref = (!status.releases_tool()).then(|| reason_code.clone());
    let result = ApprovalRecord::DispatchResult {
        request_id,
        lifecycle_status: (*status).into(),
        effect_result,
    };
    let last = match status {
        ApprovalTerminalStatus::RecoveryRequired => ApprovalPart::Recovery,
        _ => ApprovalPart::Result,
    };
    Ok(vec![
        approval_record(request, part, answer, package, now)?,
        approval_record(request, last, result, package, now)?,
    ])
}

/// The record that what was approved does not count any more.
pub(crate) fn approval_revoking(
    request: &ApprovalRequest,
    record: ApprovalRecord,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<EncodedDraft, BuildError> {
    approval_record(request, ApprovalPart::Revoked, record, package, now)
}

/// The record of what happened to the hold of a request meanwhile.
pub(crate) fn approval_step(
    request: &ApprovalRequest,
    record: HoldRecord,
    package: &RuntimePackageFingerprint,
    now: u64,
) -> Result<EncodedDraft, BuildError> {
    encode(request.hold_record(approval_base(request, package, now), record)?)
}

/// A person who decided, as records name them.
pub(crate) fn actor(approver: &Approver) -> Result<SourceRef, IdError> {
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
