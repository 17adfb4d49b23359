//! Fields in a row, without their names, in the place of an object. What is derived from a type reads
//! them as well, and nobody else does.

use super::receipts::receipt;
use super::story::{APPROVED, INTENT, REQUESTED, bundle, change, stored, story, with};
use super::{ORIGIN, case, key};
use crate::Outcome;
use crate::audit::chain;
use countersign_audit::critic::CriticSigner;
use countersign_audit::key::Signer as _;
use serde_json::{Value, json};

const WHY: &str = "Its fields have names.";

/// Bundles with lists in them.
pub(crate) fn listed_records() -> Outcome<Vec<u8>> {
    let (own, mut out) = (key(31)?, Vec::new());
    let mut put = |name: &str, input: &str, verdict: &str, rule: Option<&str>| {
        let expect = json!({ "verdict": verdict, "rule": rule, "seq": null });
        let key = own.public().to_string();
        case(
            &mut out,
            &json!({ "case": name, "why": WHY, "input": input, "key": key, "expect": expect }),
        )
    };
    let whole = bundle(&stored(story().get(..2).unwrap_or_default()), &key(31)?)?;
    put("nothing", &whole, "whole", None)?;
    let header = format!("{{\"bundle_header\":[1,\"{ORIGIN}\",[],1,[]]}}\n");
    let rest = whole.split_once('\n').map_or("", |(_, rest)| rest);
    put("a header", &(header + rest), "unusable", None)?;
    let end = whole.replacen("{\"records\":2,\"checkpoints\":1}", "[2,1]", 1);
    put("an end", &end, "broken", Some("bundle_damaged"))?;
    for (name, at, path, value) in [
        ("a payload", INTENT, "/payload", json!(["later"])),
        ("an effect", INTENT, "/payload/effect_intent", json!(["effect.call.1"])),
        ("a related thing", INTENT, "/related_refs", json!([["approval_request", "approval.1"]])),
    ] {
        let mut told = story();
        told.truncate(INTENT + 1);
        change(&mut told, at, path, value);
        put(name, &bundle(&stored(&told), &key(31)?)?, "broken", Some("record_unreadable"))?;
    }
    // The deepest that is read stands in what is passed over, and in a decision nothing is.
    for (name, at, verdict, rule) in [
        ("lists in a request, very deep", REQUESTED, "whole", None),
        ("lists in a decision, very deep", APPROVED, "broken", Some("record_unreadable")),
    ] {
        let mut told = story();
        told.truncate(INTENT + 2);
        let path = match at {
            APPROVED => "/payload/record/decision/later",
            _ => "/payload/record/request/later",
        };
        let deep: String = format!("{}{}", "[".repeat(125), "]".repeat(125));
        change(&mut told, at, path, json!("deep"));
        let records: Vec<_> =
            stored(&told).iter().map(|record| record.replacen("\"deep\"", &deep, 1)).collect();
        put(name, &bundle(&records, &key(31)?)?, verdict, rule)?;
    }
    Ok(out)
}

/// Chains with lists in them.
pub(crate) fn listed_entries() -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    let mut own = chain()?;
    own.close(&CriticSigner::from_seed(&[22; 32]))?;
    let own = serde_json::to_value(&own)?;
    let anchor = ["chain_id", "len", "head", "key_id", "signature"]
        .map(|name| own.pointer(&format!("/anchor/{name}")));
    for (name, path, value) in [
        ("a critic", "/entries/0/critic_identity", json!(["llm", "model-1"])),
        ("an anchor", "/anchor", json!(anchor)),
    ] {
        let key = CriticSigner::from_seed(&[21; 32]).public().to_string();
        let input = with(own.clone(), path, value).to_string();
        let expect = json!({ "verdict": "unusable", "rule": null, "index": null });
        case(
            &mut out,
            &json!({ "case": name, "why": WHY, "input": input, "key": key, "expect": expect }),
        )?;
    }
    Ok(out)
}

/// A receipt that is a list.
pub(crate) fn listed_receipts() -> Outcome<Vec<u8>> {
    let (own, mut out) = (key(31)?, Vec::new());
    let (receipt, _) = receipt(&own)?;
    let input: Value =
        json!([1, receipt.seq, receipt.record, receipt.inclusion_proof, receipt.checkpoint]);
    case(
        &mut out,
        &json!({
            "case": "a receipt", "why": WHY, "input": input.to_string(),
            "key": own.public().to_string(), "expect": { "verdict": "unusable", "rule": null },
        }),
    )?;
    Ok(out)
}
