//! What a hook may be and do, held against the peer's matrix and hashes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::digest::Digest;
use countersign_core::hook::*;
use countersign_core::id::{HookExecutorRef, HookId, RefId};
use countersign_core::refs::{PolicyKind, PolicyRef};
use serde::Deserialize;

use crate::common::fixture;

#[derive(Deserialize)]
struct Row {
    security_critical: bool,
    allowed: Vec<HookResponseClass>,
}

fn matrix() -> BTreeMap<HookPoint, Row> {
    let rows: BTreeMap<String, Row> =
        serde_json::from_str(&fixture("hooks/v1/matrix.json")).unwrap();
    rows.into_iter().map(|(point, row)| (HookPoint::from_word(&point).unwrap(), row)).collect()
}

fn spec(id: &str, point: HookPoint) -> HookSpec {
    HookSpec::observing(
        HookId::new(id).unwrap(),
        point,
        HookSource::InProcess,
        HookExecutorRef::new("executor").unwrap(),
        PolicyRef {
            kind: PolicyKind::RuntimePackage,
            id: RefId::new("policy").unwrap(),
            version: None,
        },
    )
}

#[test]
fn every_point_allows_what_the_matrix_says() {
    let matrix = matrix();
    assert_eq!(matrix.len(), HookPoint::ALL.len());
    let mut allowed = 0;
    for point in HookPoint::ALL {
        let row = &matrix[point];
        assert_eq!(point.is_security_critical(), row.security_critical, "{point}");
        for class in HookResponseClass::ALL {
            assert_eq!(point.allows(*class), row.allowed.contains(class), "{point} {class}");
            allowed += usize::from(point.allows(*class));
        }
    }
    assert_eq!(allowed, 55);
}

/// The rules of the contract, in words of the matrix alone.
fn verdict(row: &Row, right: HookMutationRight, failure: &str, blocking: bool) -> &'static str {
    let observes = right.as_str() == "observe";
    if !row.allowed.iter().any(|class| class.as_str() == right.as_str()) {
        "is not possible at"
    } else if !blocking && !observes {
        "needs execution `blocking`"
    } else if failure == "fail_open_observe_only" && (row.security_critical || !observes) {
        "`fail_open_observe_only` is not possible"
    } else {
        ""
    }
}

#[test]
fn a_specification_is_valid_exactly_when_the_rules_say_so() {
    let (mut valid, mut invalid) = (0, 0);
    for (point, row) in matrix() {
        for right in HookMutationRight::ALL {
            for failure in HookFailurePolicy::ALL {
                for blocking in [true, false] {
                    let mut spec = spec("h", point);
                    if blocking {
                        spec.execution = HookExecutionMode::Blocking;
                    }
                    spec.failure = *failure;
                    spec.mutation_rights.rights = BTreeSet::from([*right]);
                    let expected = verdict(&row, *right, failure.as_str(), blocking);
                    let found =
                        spec.validate().map_err(|e| e.to_string()).err().unwrap_or_default();
                    let same = found.contains(expected) && found.is_empty() == expected.is_empty();
                    assert!(same, "{point} {right} {failure} {blocking}: {expected:?}: {found}");
                    assert_eq!(spec.spec_hash().is_ok(), found.is_empty());
                    *(if found.is_empty() { &mut valid } else { &mut invalid }) += 1;
                    spec.timeout.timeout_ms = 0;
                    let late = spec.validate().unwrap_err().to_string();
                    assert_eq!(late, "hook h: timeout.timeout_ms is 0");
                }
            }
        }
    }
    // Of 55 allowed answers 22 observe: 17 points let those fail open, and do not make them wait.
    assert_eq!((valid, invalid), (22 * 2 * 3 + 17 * 2 + 33 * 3, 22 * 20 * 4 * 2 - 265));
}

#[test]
fn the_peers_hashes_are_found_again() {
    #[derive(Deserialize)]
    struct Hashed {
        spec: HookSpec,
        spec_hash: Digest,
    }
    let hashed: Vec<Hashed> = serde_json::from_str(&fixture("hooks/v1/spec-hashes.json")).unwrap();
    for Hashed { spec, spec_hash } in &hashed {
        assert_eq!(spec.spec_hash().unwrap(), *spec_hash, "{}", spec.hook_id);
        let mut other = spec.clone();
        other.ordering.order += 1;
        assert_ne!(other.spec_hash().unwrap(), *spec_hash, "{}", spec.hook_id);
    }
    assert!(hashed.len() >= 2);
}

#[test]
fn the_defaults_are_the_peers() {
    let hashed: serde_json::Value =
        serde_json::from_str(&fixture("hooks/v1/spec-hashes.json")).unwrap();
    let policy = |id| PolicyRef {
        kind: PolicyKind::RuntimePackage,
        id: RefId::new(id).unwrap(),
        version: None,
    };
    let observing = HookSpec::observing(
        HookId::new("audit.before_context").unwrap(),
        HookPoint::BeforeContextAssembly,
        HookSource::InProcess,
        HookExecutorRef::new("executor.audit.before_context").unwrap(),
        policy("policy.hooks.observe"),
    );
    let blocking = HookSpec::blocking(
        HookId::new("audit.before_tool").unwrap(),
        HookPoint::BeforeToolCall,
        HookSource::InProcess,
        HookExecutorRef::new("executor.audit.before_tool").unwrap(),
        policy("policy.hooks.before_tool"),
        HookMutationRights::with([HookMutationRight::RequestApproval, HookMutationRight::Deny]),
    );
    for (spec, expected) in [observing, blocking].iter().zip(hashed.as_array().unwrap()) {
        let written = serde_json::to_string(spec).unwrap();
        assert_eq!(written, expected["spec"].to_string());
        assert_eq!(spec.spec_hash().unwrap().to_string(), expected["spec_hash"]);
    }
}

#[test]
fn hooks_run_by_point_phase_order_and_id() {
    let at = |id: &str, point, phase, order| {
        let mut spec = spec(id, point);
        spec.ordering = HookOrdering { phase, order };
        spec
    };
    use HookOrderingPhase::{Early, Late, Normal};
    let sorted = [
        at("z", HookPoint::RunStarting, Late, i32::MAX),
        at("y", HookPoint::BeforeToolCall, Early, 900),
        at("b", HookPoint::BeforeToolCall, Normal, i32::MIN),
        at("a", HookPoint::BeforeToolCall, Normal, -1),
        at("c", HookPoint::BeforeToolCall, Normal, -1),
        at("d", HookPoint::BeforeToolCall, Late, -2),
        at("a", HookPoint::AfterToolCall, Early, 0),
    ];
    let mut found = sorted.to_vec();
    found.reverse();
    found.sort_by_key(HookSpec::sort_key);
    assert_eq!(found, sorted);
}

#[test]
fn rights_cover_what_they_name() {
    let rights = HookMutationRights::with([HookMutationRight::Deny]);
    for class in HookResponseClass::ALL {
        let covered = matches!(class, HookResponseClass::Observe | HookResponseClass::Deny);
        assert_eq!(rights.cover(*class), covered, "{class}");
    }
    assert_eq!(rights.first_change(), Some(HookMutationRight::Deny));
    assert_eq!(HookMutationRights::observe().first_change(), None);
}
