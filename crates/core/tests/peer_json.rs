//! JSON that agent-sdk-core 0.1.0-alpha.4 produced comes back byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use countersign_core::approval::{ApprovalLifecycleStatus, ApprovalRecord};
use countersign_core::effect::{EffectKind, EffectTerminalStatus};
use countersign_core::hook::{HookPoint, HookRecord, HookResponseClass, HookResponseDecision};
use countersign_core::journal::{JournalDraft, JournalPayload, JournalRecord, JournalRecordKind};
use countersign_core::refs::{
    DestinationKind, EntityKind, PolicyKind, PrivacyClass, RetentionClass, SourceKind, TrustClass,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn fixture(name: &str) -> String {
    let path = format!("{}/../../fixtures/records/v1/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn check<T: Serialize + DeserializeOwned>(name: &str) {
    for line in fixture(name).lines() {
        let value: T = serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}\n{line}"));
        assert_eq!(serde_json::to_string(&value).unwrap(), line, "{name}");
    }
}

#[test]
fn records_round_trip() {
    check::<JournalRecord>("journal-approval-dispatch-intent.json");
    check::<JournalRecord>("journal-hook-accepted.json");
    check::<JournalRecord>("journal-tool-intent.json");
    check::<ApprovalRecord>("approval-records.json");
    check::<HookRecord>("hook-records.json");
}

#[test]
fn a_stamped_draft_is_the_record() {
    let line = fixture("journal-tool-intent.json");
    let record: JournalRecord = serde_json::from_str(&line).unwrap();
    let encoded = JournalDraft::new(record).encode().unwrap();
    assert_eq!(encoded.stamp(1), line.trim_end().as_bytes());
    assert!(encoded.same_content(&encoded.stamp(u64::MAX)));
    assert!(!encoded.same_content(&line.replace("\"tc.1\"", "\"tc.2\"").into_bytes()));
}

#[test]
fn a_payload_of_unknown_type_is_kept_whole() {
    let line = fixture("journal-tool-intent.json");
    let mut record: serde_json::Value = serde_json::from_str(&line).unwrap();
    record["payload"] =
        serde_json::json!({"type": "wake", "z": 1, "a": [null, 0.1, {"type": "tool"}]});
    let text = record.to_string();
    let read: JournalRecord = serde_json::from_str(&text).unwrap();
    assert!(matches!(read.payload, JournalPayload::Other(_)));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

#[test]
fn a_payload_without_a_type_is_an_error() {
    let line = fixture("journal-tool-intent.json");
    let mut record: serde_json::Value = serde_json::from_str(&line).unwrap();
    record["payload"].as_object_mut().unwrap().remove("type");
    assert!(serde_json::from_value::<JournalRecord>(record).is_err());
}

#[test]
fn every_word_of_the_contract_is_known_and_no_other() {
    let words: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&fixture("words.json")).unwrap();
    let mut seen = 0;
    macro_rules! same {
        ($($name:ident),*) => {$(
            assert_eq!(words[stringify!($name)], serde_json::json!($name::ALL), stringify!($name));
            seen += 1;
        )*};
    }
    same!(
        EntityKind,
        SourceKind,
        DestinationKind,
        PolicyKind,
        PrivacyClass,
        RetentionClass,
        TrustClass,
        EffectKind,
        EffectTerminalStatus,
        JournalRecordKind,
        HookPoint,
        HookResponseClass,
        HookResponseDecision,
        ApprovalLifecycleStatus
    );
    assert_eq!(seen, words.len());
}
