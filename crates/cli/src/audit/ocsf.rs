//! Journal records as OCSF events (class API Activity, 6003, schema 1.5.0), for systems that
//! watch other systems. Each carries the record's place, id and leaf hash, by which it is found
//! again in the log and proven.

use chrono::{DateTime, SecondsFormat};
use countersign_audit::tree::leaf_hash;
use countersign_core::approval::{ApprovalDecision, ApprovalRecord};
use countersign_core::effect::RiskClass;
use countersign_core::journal::{JournalPayload, JournalRecord, TOOL_CALL_KEY};
use countersign_core::story::tell;
use countersign_core::tool::ToolCallStatus;
use serde_json::{Map, Value, json};

const SCHEMA: &str = "1.5.0";
const CATEGORY: u32 = 6;
const CLASS: u32 = 6003;
/// `Other`: what agents do has no word of its own among create, read, update and delete.
const ACTIVITY: u32 = 99;

/// OCSF `status_id`.
#[derive(Clone, Copy)]
enum Status {
    Unknown = 0,
    Success = 1,
    Failure = 2,
}

/// One event on one line; `None` for a record of a kind that is no activity.
pub(super) fn event(bytes: &[u8], cloudevents: bool) -> Result<Option<String>, String> {
    let record: JournalRecord = serde_json::from_slice(bytes).map_err(|error| {
        format!("a record cannot be read, `countersign audit verify` says more: {error}")
    })?;
    let Some(event) = activity(&record, bytes) else { return Ok(None) };
    let missing = missing(&event);
    if !missing.is_empty() {
        return Err(format!("record {}: no {}", record.journal_seq, missing.join(", ")));
    }
    let event = if cloudevents { envelope(&record, event) } else { event };
    Ok(Some(event.to_string()))
}

/// What the published schema requires of the class and of the objects in it, and is not there; of
/// several fields that would do, the one that is written here.
fn missing(event: &Value) -> Vec<&'static str> {
    const REQUIRED: &[&str] = &[
        "/activity_id",
        "/actor/user/uid",
        "/api/operation",
        "/api/service/name",
        "/category_uid",
        "/class_uid",
        "/metadata/product/name",
        "/metadata/version",
        "/severity_id",
        "/src_endpoint/name",
        "/time",
        "/type_uid",
    ];
    let there = |path: &&str| event.pointer(path).is_some_and(|value| !value.is_null());
    REQUIRED.iter().filter(|path| !there(path)).copied().collect()
}

fn activity(record: &JournalRecord, bytes: &[u8]) -> Option<Value> {
    let told = tell(record);
    let (operation, status, risk) = match &record.payload {
        JournalPayload::Tool(tool) => {
            let status = match tool.status {
                ToolCallStatus::Completed => Status::Success,
                ToolCallStatus::Failed
                | ToolCallStatus::TimedOut
                | ToolCallStatus::Cancelled
                | ToolCallStatus::DeniedBeforeExecution => Status::Failure,
                _ => Status::Unknown,
            };
            (tool.canonical_tool_name.clone(), status, Some(tool.risk_class))
        }
        JournalPayload::Approval(approval) => match approval {
            ApprovalRecord::Requested { request } => {
                let risk = Some(request.risk_class);
                (format!("approval.request:{}", request.canonical_tool_name), Status::Unknown, risk)
            }
            ApprovalRecord::Responded { decision, .. } => {
                let status = match decision {
                    ApprovalDecision::Denied { .. } => Status::Failure,
                    _ => Status::Success,
                };
                ("approval.decide".to_owned(), status, None)
            }
            ApprovalRecord::Denied { .. } => ("approval.deny".to_owned(), Status::Failure, None),
            // That a question is put and closed again is said by the records around it.
            _ => return None,
        },
        JournalPayload::RunLifecycle(run) => (format!("run.{}", run.status), Status::Unknown, None),
        JournalPayload::Recovery(_) => {
            ("effect.outcome_unknown".to_owned(), Status::Unknown, Some(RiskClass::High))
        }
        JournalPayload::Hook(_) => (record.event_index.event_kind.clone(), Status::Unknown, None),
        _ => (record.event_index.event_kind.clone(), Status::Unknown, None),
    };
    let severity = match risk {
        None | Some(RiskClass::Low) => 1,
        Some(RiskClass::Medium) => 3,
        Some(RiskClass::High) => 4,
        Some(RiskClass::Critical) => 5,
    };
    let actor = match &record.payload {
        JournalPayload::Approval(ApprovalRecord::Responded { decision, .. }) => {
            decision.actor_ref().map(|actor| actor.id.to_string())
        }
        JournalPayload::Approval(ApprovalRecord::Denied { actor_ref, .. }) => {
            actor_ref.as_ref().map(|actor| actor.id.to_string())
        }
        _ => None,
    };
    let call = record.correlation(TOOL_CALL_KEY);
    let mut api = Map::new();
    api.insert("operation".to_owned(), operation.into());
    api.insert("service".to_owned(), json!({ "name": "countersign" }));
    if let Some(call) = call {
        api.insert("request".to_owned(), json!({ "uid": call }));
    }
    Some(json!({
        "activity_id": ACTIVITY,
        "activity_name": told.title,
        "actor": { "user": { "uid": actor.unwrap_or_else(|| record.agent_id.to_string()) } },
        "api": api,
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "message": told.detail,
        "metadata": {
            "product": { "name": "Countersign", "vendor_name": "Countersign" },
            "version": SCHEMA,
            "uid": record.record_id,
            "sequence": record.journal_seq,
            "correlation_uid": record.run_id,
        },
        "severity_id": severity,
        "src_endpoint": { "name": record.source.id },
        "status_id": status as u32,
        "time": record.timestamp_millis,
        "type_uid": CLASS * 100 + ACTIVITY,
        "unmapped": {
            "journal_seq": record.journal_seq,
            "record_id": record.record_id,
            "leaf_hash": hex::encode(leaf_hash(bytes)),
        },
    }))
}

/// The event in a CloudEvents 1.0 envelope, structured as JSON.
fn envelope(record: &JournalRecord, event: Value) -> Value {
    let mut envelope = Map::new();
    let mut put = |name: &str, value: Value| drop(envelope.insert(name.to_owned(), value));
    put("specversion", "1.0".into());
    put("id", record.record_id.to_string().into());
    put("source", format!("/countersign/{}", reference(record.agent_id.as_str())).into());
    put("type", format!("countersign.journal.{}", record.event_index.event_kind).into());
    let time = i64::try_from(record.timestamp_millis).ok();
    if let Some(time) = time.and_then(DateTime::from_timestamp_millis) {
        put("time", time.to_rfc3339_opts(SecondsFormat::Millis, true).into());
    }
    if let Some(call) = record.correlation(TOOL_CALL_KEY) {
        put("subject", call.into());
    }
    put("datacontenttype", "application/json".into());
    put("data", event);
    Value::Object(envelope)
}

/// A text as a segment of a URI reference: what is not unreserved is percent-encoded.
fn reference(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_of_the_contract_becomes_an_event_with_all_that_is_required() {
        let record = include_str!("../../../../fixtures/records/v1/journal-tool-intent.json");
        let event: Value =
            serde_json::from_str(&event(record.trim().as_bytes(), false).unwrap().unwrap())
                .unwrap();
        assert_eq!(missing(&event), Vec::<&str>::new());
        assert_eq!(event["type_uid"], 600_399);
        assert_eq!(event["unmapped"]["leaf_hash"].as_str().unwrap().len(), 64);
        let mut less = event.clone();
        less["api"] = json!({});
        less["time"] = Value::Null;
        assert_eq!(missing(&less), ["/api/operation", "/api/service/name", "/time"]);
        assert!(super::event(b"{}", false).is_err());
    }

    #[test]
    fn an_envelope_has_the_attributes_that_cloudevents_requires() {
        let record = include_str!("../../../../fixtures/records/v1/journal-tool-intent.json");
        let text = event(record.trim().as_bytes(), true).unwrap().unwrap();
        let event: Value = serde_json::from_str(&text).unwrap();
        for attribute in ["id", "source", "type", "specversion"] {
            assert!(!event[attribute].as_str().unwrap().is_empty(), "{attribute}");
        }
        assert_eq!(event["data"]["class_uid"], 6003);
        assert_eq!(reference("a b/ü"), "a%20b%2F%C3%BC");
    }
}
