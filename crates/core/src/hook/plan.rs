//! The records of a hook's judged answer.

use crate::effect::{EffectIntent, EffectKind, EffectResult, EffectTerminalStatus};
use crate::hook::{
    HOOK_SCHEMA_VERSION, HookRecord, HookRecordPayload, HookResponseClass, HookResponseDecision,
    HookSpec, RIGHTS_CHECKED,
};
use crate::id::{EffectId, HookId, IdError, RecordId, RefId};
use crate::journal::{JournalRecord, RecordBase};
use crate::refs::{EntityKind, EntityRef, SourceKind, SourceRef};

/// How hook records were redacted.
const REDACTION: &str = "policy.redaction.hook.default";

/// A hook as other records refer to it.
#[must_use]
pub fn hook_ref(hook_id: &HookId) -> EntityRef {
    EntityRef::new(EntityKind::Hook, RefId::from(hook_id))
}

/// The three records of an accepted answer. They belong into one batch, and the answer is
/// applied only when that is durable.
///
/// Pure data: made of its arguments alone, it reproduces the peer's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct HookMutationJournalPlan {
    /// The verdict.
    pub hook_record: HookRecord,
    /// The announcement of the change.
    pub effect_intent: EffectIntent,
    /// The verdict as it stands in the journal.
    pub hook_journal_record: JournalRecord,
    /// The announcement as it stands in the journal.
    pub intent_journal_record: JournalRecord,
    /// The end of the change as it stands in the journal.
    pub result_journal_record: JournalRecord,
}

impl HookMutationJournalPlan {
    /// Plans the records at `seq`, `seq + 1` and `seq + 2`, with ids
    /// `journal.hook.{hook}.{seq}.response`, `.intent` and `.result`. A journal that numbers
    /// records itself changes the places, not the ids.
    ///
    /// # Errors
    /// When the hook's and the invocation's id together are too long for an effect's.
    pub fn accepted(
        seq: u64,
        base: &RecordBase,
        spec: &HookSpec,
        invocation_id: &str,
        class: HookResponseClass,
    ) -> Result<Self, IdError> {
        let target = hook_ref(&spec.hook_id);
        let (hook_record, hook_journal_record) = judged(
            seq,
            base,
            spec,
            invocation_id,
            class,
            HookResponseDecision::AcceptedJournaledBeforeApply,
            vec![target.clone()],
        )?;
        let effect_id = EffectId::new(format!("effect.hook.{}.{invocation_id}", spec.hook_id))?;
        let mut effect_intent = EffectIntent::new(
            effect_id.clone(),
            EffectKind::HookMutation,
            target,
            source(&spec.hook_id),
            format!("accepted hook response {}", class.variant()),
        );
        effect_intent.policy_refs = vec![spec.policy_ref.clone()];
        let result = EffectResult::new(
            effect_id,
            EffectTerminalStatus::Completed,
            format!("accepted hook response {} journaled before apply", class.variant()),
        );
        let base = RecordBase { redaction_policy_id: REDACTION.to_owned(), ..base.clone() };
        let intent_id = record_id(&spec.hook_id, seq, "intent")?;
        let result_id = record_id(&spec.hook_id, seq, "result")?;
        let at =
            |offset, record| JournalRecord { journal_seq: seq.saturating_add(offset), ..record };
        Ok(Self {
            intent_journal_record: at(1, base.effect_intent(intent_id, effect_intent.clone())),
            result_journal_record: at(2, base.effect_result(result_id, result)),
            hook_record,
            effect_intent,
            hook_journal_record,
        })
    }

    /// The records in the order of the journal.
    #[must_use]
    pub fn into_records(self) -> [JournalRecord; 3] {
        [self.hook_journal_record, self.intent_journal_record, self.result_journal_record]
    }
}

/// The one record of a rejected answer, with id `journal.hook.{hook}.{seq}.response`.
///
/// # Errors
/// When the hook's id does not fit into a record's.
pub fn rejected_response(
    seq: u64,
    base: &RecordBase,
    spec: &HookSpec,
    invocation_id: &str,
    class: HookResponseClass,
    decision: HookResponseDecision,
) -> Result<JournalRecord, IdError> {
    Ok(judged(seq, base, spec, invocation_id, class, decision, Vec::new())?.1)
}

fn judged(
    seq: u64,
    base: &RecordBase,
    spec: &HookSpec,
    invocation_id: &str,
    response_class: HookResponseClass,
    decision: HookResponseDecision,
    target_domain_refs: Vec<EntityRef>,
) -> Result<(HookRecord, JournalRecord), IdError> {
    let payload = HookRecordPayload::ResponseDecision {
        invocation_id: invocation_id.to_owned(),
        decision,
        response_class,
        mutation_right_decision: RIGHTS_CHECKED.to_owned(),
        target_domain_refs,
    };
    let record = spec.record(payload);
    let id = record_id(&spec.hook_id, seq, "response")?;
    let journaled = base.hook(id, "hook_response_decision", record.clone());
    Ok((record, JournalRecord { journal_seq: seq, ..journaled }))
}

fn record_id(hook_id: &HookId, seq: u64, part: &str) -> Result<RecordId, IdError> {
    RecordId::new(format!("journal.hook.{hook_id}.{seq}.{part}"))
}

fn source(hook_id: &HookId) -> SourceRef {
    SourceRef::new(SourceKind::Hook, RefId::from(hook_id))
}

impl HookSpec {
    /// An event of this hook.
    #[must_use]
    pub fn record(&self, payload: HookRecordPayload) -> HookRecord {
        HookRecord {
            schema_version: HOOK_SCHEMA_VERSION,
            hook_id: self.hook_id.clone(),
            point: self.point,
            payload,
        }
    }
}

impl RecordBase {
    /// A hook's event as it stands in the journal. Its source is the hook, whoever the base
    /// names.
    #[must_use]
    pub fn hook(&self, record_id: RecordId, event_kind: &str, record: HookRecord) -> JournalRecord {
        let base = Self {
            source: source(&record.hook_id),
            tags: vec!["hook".to_owned()],
            redaction_policy_id: REDACTION.to_owned(),
            ..self.clone()
        };
        let subject = hook_ref(&record.hook_id);
        base.record(record_id, ("hook", event_kind), subject, Vec::new(), record.into())
    }
}
