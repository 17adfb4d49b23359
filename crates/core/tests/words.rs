//! The words of every enumeration, and the types that take one of several forms, are those of
//! the contract's tables: no more, no less, in the same order.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use countersign_core::approval::*;
use countersign_core::effect::*;
use countersign_core::error::*;
use countersign_core::hold::*;
use countersign_core::hook::*;
use countersign_core::journal::*;
use countersign_core::refs::*;
use countersign_core::tool::ToolCallStatus;
use serde_json::{Map, Value, json};

use crate::common::fixture;

#[test]
fn every_word_is_known_and_no_other() {
    let table: Map<String, Value> = serde_json::from_str(&fixture("words/v1/words.json")).unwrap();
    let mut seen = BTreeSet::new();
    macro_rules! same {
        ($($name:ident)*) => {$(
            let words = &table[stringify!($name)];
            assert_eq!(*words, json!($name::ALL), stringify!($name));
            for (variant, word) in $name::ALL.iter().zip(words.as_array().unwrap()) {
                let word = word.as_str().unwrap();
                assert_eq!(variant.as_str(), word);
                assert_eq!(variant.to_string(), word);
                assert_eq!($name::from_word(word), Some(*variant));
                assert_eq!($name::from_word(&word.to_uppercase()), None);
                assert_eq!($name::from_word(&format!("{word} ")), None);
            }
            assert!(seen.insert(stringify!($name).to_owned()));
        )*};
    }
    same! {
        EntityKind SourceKind DestinationKind PolicyKind PrivacyClass RetentionClass TrustClass
        AgentErrorKind RetryClassification ApprovalDecisionKind DispatcherScope EffectClass
        RiskClass EffectKind EffectTerminalStatus JournalRecordKind HookPoint HookSource
        HookOrderingPhase HookOverflowPolicy HookFailurePolicy HookMutationRight
        HookResponseClass HookPrivacyPolicy HookResponseDecision ApprovalLifecycleStatus
        ApprovalTerminalStatus ToolCallStatus TurnLifecycleStatus HoldKind HoldStatus Surface
        DecisionKind
    }
    assert_eq!(seen, table.keys().cloned().collect());
}

#[test]
fn the_published_table_of_words_is_part_of_the_newer_one() {
    let older: Map<String, Value> =
        serde_json::from_str(&fixture("records/v1/words.json")).unwrap();
    let newer: Map<String, Value> = serde_json::from_str(&fixture("words/v1/words.json")).unwrap();
    for (name, words) in &older {
        assert_eq!(&newer[name], words, "{name}");
    }
}

#[test]
fn rights_and_response_classes_are_one_to_one() {
    assert_eq!(HookMutationRight::ALL.len(), 20);
    for (right, class) in HookMutationRight::ALL.iter().zip(HookResponseClass::ALL) {
        assert_eq!(right.response_class(), *class);
        assert_eq!(class.right(), *right);
        assert_eq!(right.as_str(), class.as_str());
    }
}

#[test]
fn every_answer_has_the_class_of_its_word() {
    let types: Value = serde_json::from_str(&fixture("types/v1/types.json")).unwrap();
    let variants = types["types"]["HookResponse"]["variants"].as_object().unwrap();
    assert_eq!(variants.len(), HookResponseClass::ALL.len());
    for ((word, content), class) in variants.iter().zip(HookResponseClass::ALL) {
        let payload = match content.as_str() {
            None => json!({"type": word}),
            Some(list) if list.starts_with('[') => json!({"type": word, "payload": []}),
            Some(_) => json!({"type": word, "payload": {"code": "c", "redacted_summary": "s"}}),
        };
        let answer: HookResponse = serde_json::from_value(payload).unwrap();
        assert_eq!(answer.class(), *class);
        let expected =
            if *class == HookResponseClass::Observe { "observe_only" } else { class.as_str() };
        assert_eq!(word, expected);
    }
}
