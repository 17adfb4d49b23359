//! The story that is told, and the pieces it is made of.

use crate::Outcome;
use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::LogKey;
use countersign_audit::key::Signer as _;
use countersign_audit::tree::{Frontier, leaf_hash};
use countersign_audit::verify::BundleWriter;
use serde_json::{Value, json};

pub(super) fn digest(text: &str) -> String {
    countersign_core::digest::Digest::of(text).to_string()
}

pub(super) fn party(kind: &str, id: &str) -> Value {
    json!({ "kind": kind, "id": id, "trust": "host_provided", "privacy": "content_refs_only" })
}

pub(super) fn entity(kind: &str, id: &str) -> Value {
    json!({ "kind": kind, "id": id, "privacy": "content_refs_only" })
}

/// A record without its place. `at` is in milliseconds.
pub(super) fn record(id: &str, at: u64, kind: &str, related: &[Value], payload: Value) -> Value {
    let subject = entity("run", "run.1");
    let source = party("external_runtime", "agent");
    json!({
        "journal_schema_version": 1,
        "journal_seq": 0,
        "record_id": id,
        "record_kind": kind,
        "run_id": "run.1",
        "agent_id": "agent",
        "subject_ref": subject,
        "related_refs": related,
        "source": source,
        "delivery_semantics": "journal_backed",
        "event_index": {
            "run_id": "run.1",
            "agent_id": "agent",
            "event_family": kind,
            "event_kind": kind,
            "source": source,
            "subject_ref": subject,
            "privacy_class": "content_refs_only",
            "delivery_semantics": "journal_backed",
        },
        "timestamp_millis": at,
        "runtime_package_fingerprint": "fp",
        "privacy": "content_refs_only",
        "redaction_policy_id": "redaction.default",
        "payload": payload,
    })
}

pub(super) fn tool(call: &str, status: &str, more: Value) -> Value {
    let mut payload = json!({
        "type": "tool",
        "tool_call_id": call,
        "run_id": "run.1",
        "capability_id": "tool.make",
        "canonical_tool_name": "make",
        "namespace": "tool.make",
        "source": party("external_runtime", "agent"),
        "destination": {
            "kind": "tool", "id": "tool.make", "privacy": "content_refs_only",
            "retention": "host_policy",
        },
        "sidecar_refs": [{
            "sidecar_id": "manifest.make", "kind": "tool_manifest", "version": "1.0.0",
            "content_hash": digest("manifest"),
        }],
        "effect_class": "Process",
        "risk_class": "High",
        "privacy": "content_refs_only",
        "retention": "durable",
        "redacted_args_summary": "make",
        "status": status,
        "fingerprint": digest(call),
    });
    if let (Some(payload), Value::Object(more)) = (payload.as_object_mut(), more) {
        payload.extend(more);
    }
    payload
}

pub(super) fn announced(call: &str, subject: Value) -> Value {
    json!({
        "effect_id": format!("effect.{call}"), "kind": "tool_execution", "subject_ref": subject,
        "source": party("external_runtime", "agent"), "redacted_summary": "execute tool make",
    })
}

pub(super) fn intent(call: &str, at: u64, approval: Option<&str>) -> Value {
    let subject = entity("tool_call", call);
    let related: Vec<_> = approval.iter().map(|id| entity("approval_request", id)).collect();
    let more = json!({ "effect_intent": announced(call, subject) });
    record(
        &format!("journal.record.tool.{call}.intent"),
        at,
        "tool",
        &related,
        tool(call, "intent_recorded", more),
    )
}

pub(super) fn result(call: &str, at: u64, status: &str) -> Value {
    let more = json!({ "effect_result": {
        "effect_id": format!("effect.{call}"), "terminal_status": status,
        "redacted_summary": status,
    }});
    let id = format!("journal.record.tool.{call}.result");
    record(&id, at, "tool", &[], tool(call, status, more))
}

pub(super) fn approval(id: &str, part: &str, at: u64, kind: &str, content: Value) -> Value {
    let payload = json!({ "type": "approval", "record_type": kind, "record": content });
    record(&format!("journal.record.approval.{id}.{part}"), at, "approval", &[], payload)
}

pub(super) fn requested(id: &str, call: &str, at: u64) -> Value {
    let request = json!({
        "approval_request_id": id,
        "approval_dispatch_effect_id": format!("effect.approval.{id}"),
        "run_id": "run.1",
        "agent_id": "agent",
        "turn_id": "turn.1",
        "tool_call_id": call,
        "source": party("external_runtime", "agent"),
        "destination": {
            "kind": "tool", "id": "tool.make", "privacy": "content_refs_only",
            "retention": "host_policy",
        },
        "canonical_tool_name": "make",
        "tool_source": party("tool", "tool.make"),
        "effect_class": "Process",
        "risk_class": "High",
        "requested_args_ref": digest("arguments"),
        "redacted_args_summary": "make",
        "policy_refs": [{ "kind": "approval", "id": "policy.approval" }],
        "dispatcher_scope": "Host",
        "timeout_ms": 1000,
        "allowed_decisions": ["Approved", "ApprovedForSession", "Denied"],
        "created_at_millis": at,
        "runtime_package_fingerprint": "fp",
        "fingerprint": digest(call),
        "rendering_digest": digest("shown"),
    });
    approval(id, "requested", at, "requested", json!({ "request": request }))
}

pub(super) fn dispatched(id: &str, at: u64) -> Value {
    let effect = json!({
        "effect_id": format!("effect.approval.{id}"), "kind": "approval_dispatch",
        "subject_ref": entity("approval_request", id),
        "source": party("external_runtime", "agent"), "redacted_summary": "ask",
    });
    let content = json!({ "request_id": id, "effect_intent": effect });
    approval(id, "intent", at, "dispatch_intent", content)
}

pub(super) fn approved(id: &str, call: &str, at: u64, by: &str, grant: Option<Value>) -> Value {
    let word = if grant.is_some() { "approved_for_session" } else { "approved" };
    let mut decision = json!({
        "decision": word, "actor_ref": party("user", by), "decided_at_millis": at,
        "fingerprint": digest(call), "rendering_digest": digest("shown"),
    });
    if let (Some(decision), Some(grant)) = (decision.as_object_mut(), grant) {
        decision.insert("grant".to_owned(), grant);
    }
    let content = json!({ "request_id": id, "decision": decision });
    approval(id, "responded", at, "responded", content)
}

pub(super) fn closed(id: &str, at: u64, status: &str, effect: &str) -> Value {
    let content = json!({ "request_id": id, "lifecycle_status": status, "effect_result": {
        "effect_id": format!("effect.approval.{id}"), "terminal_status": effect,
        "redacted_summary": status,
    }});
    approval(id, "result", at, "dispatch_result", content)
}

pub(super) fn hook(id: &str, part: &str, at: u64) -> Value {
    let event = match part {
        "registered" => json!({
            "type": part, "spec_hash": digest("spec"), "executor_ref": "executor.1",
            "policy_ref": { "kind": "approval", "id": "policy.hook" },
        }),
        _ => json!({ "type": part, "invocation_id": "hook.invocation.1" }),
    };
    let payload = json!({
        "type": "hook", "schema_version": 1, "hook_id": id, "point": "before_tool_call",
        "payload": event,
    });
    record(&format!("journal.record.{id}.{part}"), at, "hook", &[], payload)
}

/// Where things stand in the story, from 0.
pub(super) const REQUESTED: usize = 2;
pub(super) const DISPATCHED: usize = 3;
pub(super) const APPROVED: usize = 4;
pub(super) const CLOSED: usize = 5;
pub(super) const INTENT: usize = 6;
pub(super) const RESULT: usize = 7;
pub(super) const GRANTED: usize = 10;
pub(super) const FIRST_USE: usize = 14;
pub(super) const LISTED: usize = 17;
pub(super) const INVOKED: usize = 1;

/// A day of a gateway in which the rules were kept.
pub(super) fn story() -> Vec<Value> {
    let grant = json!({
        "agent_id": "agent", "session": "session.1", "canonical_tool_name": "make",
        "manifest_digest": digest("manifest"), "policy_digest": digest("policy"),
        "max_uses": 1, "expires_at_millis": 60_000,
    });
    vec![
        hook("hook.1", "registered", 1_000),
        hook("hook.1", "invocation_started", 1_100),
        requested("approval.1", "call.1", 2_000),
        dispatched("approval.1", 2_000),
        approved("approval.1", "call.1", 2_500, "grace", None),
        closed("approval.1", 2_500, "approved", "completed"),
        intent("call.1", 2_600, Some("approval.1")),
        result("call.1", 2_700, "completed"),
        requested("approval.2", "call.2", 3_000),
        dispatched("approval.2", 3_000),
        approved("approval.2", "call.2", 3_100, "grace", Some(grant)),
        closed("approval.2", 3_100, "approved_for_session", "completed"),
        intent("call.2", 3_200, Some("approval.2")),
        result("call.2", 3_300, "failed"),
        with(intent("call.3", 4_000, Some("approval.2")), "/payload/grant_use", json!(1)),
        result("call.3", 4_100, "completed"),
        intent("call.4", 5_000, None),
        record(
            "journal.record.recovery.1",
            6_000,
            "recovery",
            &[],
            json!({
                "type": "recovery",
                "unsafe_pending": [{
                    "effect_id": "effect.call.4",
                    "intent_record_id": "journal.record.tool.call.4.intent",
                    "unsafe_pending_reason": "an intent without a result",
                }],
                "recovery_reason": "the gateway ended while the effect was under way",
            }),
        ),
    ]
}

/// The record with another value there; the field is made where it was not.
pub(super) fn with(mut record: Value, path: &str, value: Value) -> Value {
    if let Some((parent, field)) = path.rsplit_once('/')
        && let Some(Value::Object(parent)) = record.pointer_mut(parent)
    {
        parent.insert(field.to_owned(), value);
    }
    record
}

pub(super) fn change(story: &mut [Value], at: usize, path: &str, value: Value) {
    if let Some(record) = story.get_mut(at) {
        *record = with(record.take(), path, value);
    }
}

/// The stored bytes of the records, each with its place.
pub(super) fn stored(story: &[Value]) -> Vec<String> {
    let numbered =
        |(seq, record): (u64, &Value)| with(record.clone(), "/journal_seq", json!(seq)).to_string();
    (1..).zip(story).map(numbered).collect()
}

/// A bundle with a checkpoint behind every fourth record, and the last.
pub(super) fn bundle(records: &[String], key: &LogKey) -> Outcome<String> {
    let mut bundle = BundleWriter::new(Vec::new(), &[key.public().clone()], (0, &[]))?;
    let mut tree = Frontier::default();
    for (at, record) in (1..).zip(records) {
        bundle.record(record.as_bytes())?;
        tree.push(leaf_hash(record.as_bytes()), |_, _| ());
        if at % 4 == 0 || at == records.len() {
            bundle.checkpoint(&Checkpoint::sign(tree.size(), tree.root(), key)?)?;
        }
    }
    Ok(String::from_utf8(bundle.finish()?)?)
}
