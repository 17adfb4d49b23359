//! The whole state × event table of an approval request, and the rules it follows.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use countersign_core::approval::*;
use countersign_core::effect::EffectTerminalStatus;
use countersign_core::id::RefId;
use countersign_core::refs::{SourceKind, SourceRef};
use proptest::prelude::*;

use crate::common::fixture;

#[test]
fn the_whole_table() {
    let mut table = String::new();
    for status in ApprovalLifecycleStatus::ALL {
        for event in ApprovalEvent::ALL {
            let result = match status.step(*event) {
                Ok(next) => {
                    let effect = next.terminal().map(|terminal| {
                        let releases =
                            if terminal.releases_tool() { ", releases the tool" } else { "" };
                        format!(" (asking {}{releases})", terminal.effect_status())
                    });
                    format!("{next}{}", effect.unwrap_or_default())
                }
                Err(illegal) => {
                    assert_eq!((illegal.status, illegal.event), (*status, *event));
                    "error".to_owned()
                }
            };
            let event = format!("{event:?}");
            table += &format!("{:24} {event:17} → {result}\n", status.as_str());
        }
    }
    assert_eq!(table, include_str!("approvals.txt"), "the table is now:\n{table}");
}

proptest! {
    #[test]
    fn a_tool_is_released_only_by_an_answer_to_a_question_that_was_put(
        events in prop::collection::vec(prop::sample::select(ApprovalEvent::ALL), 0..12)
    ) {
        let mut status = ApprovalLifecycleStatus::Requested;
        let mut past = Vec::new();
        for event in events {
            let ended = status.terminal();
            if let Ok(next) = status.step(event) {
                prop_assert_eq!(ended, None, "nothing happens to a request that has ended");
                past.push(event);
                status = next;
            }
        }
        use ApprovalEvent as Event;
        if status.terminal().is_some_and(ApprovalTerminalStatus::releases_tool) {
            prop_assert_eq!(&past[..2], &[Event::IntentRecorded, Event::Dispatched]);
            prop_assert!(matches!(past[2..], [Event::Approve | Event::ApproveForSession]));
        }
    }
}

#[test]
fn an_ending_is_the_status_of_the_same_word() {
    for terminal in ApprovalTerminalStatus::ALL {
        let status = ApprovalLifecycleStatus::from(*terminal);
        assert_eq!(status.as_str(), terminal.as_str());
        assert_eq!(status.terminal(), Some(*terminal));
        let approves = terminal.as_str().starts_with("approved");
        assert_eq!(terminal.releases_tool(), approves);
        assert_eq!(terminal.effect_status() == EffectTerminalStatus::Completed, approves);
    }
    let open = ApprovalLifecycleStatus::ALL.iter().filter(|status| status.terminal().is_none());
    assert_eq!(
        open.count() + ApprovalTerminalStatus::ALL.len(),
        ApprovalLifecycleStatus::ALL.len()
    );
}

#[test]
fn three_tokens_are_answers_and_no_other_text_is() {
    let actor = SourceRef::new(SourceKind::User, RefId::new("ada").unwrap());
    for (token, kind) in [
        ("approved", Some(ApprovalDecisionKind::Approved)),
        ("approved_for_session", Some(ApprovalDecisionKind::ApprovedForSession)),
        ("denied", Some(ApprovalDecisionKind::Denied)),
        ("Approved", None),
        ("approve", None),
        (" approved", None),
        ("approved\n", None),
        ("APPROVED", None),
        ("approved ", None),
        ("yes", None),
        ("", None),
        ("approved_for_session\0", None),
        ("аpproved", None),
    ] {
        let answer = ApprovalDecision::from_finite_token(token, actor.clone());
        assert_eq!(answer.as_ref().map(ApprovalDecision::kind), kind, "{token:?}");
        if let Some(answer) = answer {
            assert_eq!(answer.actor_ref(), Some(&actor));
        }
    }
    let Some(ApprovalDecision::Denied { reason_code, .. }) =
        ApprovalDecision::from_finite_token("denied", actor)
    else {
        panic!("denied is a denial");
    };
    assert_eq!(reason_code, "approval.denied");
}

#[test]
fn a_request_that_says_too_little_is_refused() {
    let records = fixture("approvals/v1/peer.ndjson");
    let line: serde_json::Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    let good: ApprovalRequest =
        serde_json::from_value(line["input"]["record"]["request"].clone()).unwrap();
    assert_eq!(good.validate(), Ok(()));
    type Spoil = fn(&mut ApprovalRequest);
    let cases: [(&str, Spoil); 5] = [
        ("canonical_tool_name is empty", |request| request.canonical_tool_name.clear()),
        ("redacted_args_summary is empty", |request| request.redacted_args_summary.clear()),
        ("policy_refs is empty", |request| request.policy_refs.clear()),
        ("allowed_decisions is empty", |request| request.allowed_decisions.clear()),
        ("timeout_ms is 0", |request| request.timeout_ms = 0),
    ];
    for (message, spoil) in cases {
        let mut request = good.clone();
        spoil(&mut request);
        assert_eq!(request.validate().unwrap_err().to_string(), message);
    }
    assert_eq!(good.expires_at_millis(), good.created_at_millis + good.timeout_ms);
    let late = ApprovalRequest { timeout_ms: u64::MAX, ..good };
    assert_eq!(late.expires_at_millis(), u64::MAX);
}
