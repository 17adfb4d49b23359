//! The generated files of `fixtures/audit`: chains, logs and what can be done to them.

use crate::Outcome;
use countersign_audit::critic::successor::Chain;
use countersign_audit::critic::{
    Assessment, CriticSigner, Identity, Timestamp, Verdict, text_hash,
};
use std::collections::BTreeMap;

fn critic(seed: u8) -> CriticSigner {
    CriticSigner::from_seed(&[seed; 32])
}

fn time(second: u8) -> Outcome<Timestamp> {
    Ok(Timestamp::from_unix(1_790_000_000 + i64::from(second), 250_000_000).ok_or("no time")?)
}

fn assessment(n: u8, verdict: Verdict, score: f64) -> Outcome<Assessment> {
    Ok(Assessment {
        entry_id: format!("00000000-0000-4000-8000-{n:012}"),
        director_output_hash: text_hash(format!("draft {n}\n").as_bytes()),
        critic_assessment_hash: text_hash(format!("assessment {n}\n").as_bytes()),
        verdict,
        dimension_scores: BTreeMap::from([
            ("accuracy".to_owned(), score),
            ("tone".to_owned(), 0.5),
        ]),
        score,
        critic_identity: match n % 2 {
            0 => Identity::Llm { model_id: "model-1".to_owned() },
            _ => Identity::Human { user_id: "grace".to_owned(), name: "Grace".to_owned() },
        },
        timestamp: time(n)?,
        iteration: u64::from(n),
    })
}

/// A chain with every verdict, a change of keys and an anchor.
pub(crate) fn chain() -> Outcome<Chain> {
    let (old, new) = (critic(21), critic(22));
    let mut chain = Chain::new("example/review")?;
    chain.append(assessment(0, Verdict::Rejected, 0.1)?, &old)?;
    chain.append(assessment(1, Verdict::NeedsRevision, 0.7)?, &old)?;
    chain.rotate(&old, &new, time(2)?)?;
    chain.append(assessment(3, Verdict::Approved, 1.0)?, &new)?;
    chain.close(&new)?;
    Ok(chain)
}

fn pretty(value: &impl serde::Serialize) -> Outcome<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn critic_chain() -> Outcome<Vec<u8>> {
    pretty(&chain()?)
}

pub(crate) fn critic_anchor() -> Outcome<Vec<u8>> {
    pretty(&chain()?.anchor)
}

pub(crate) fn critic_key() -> Outcome<Vec<u8>> {
    Ok(format!("{}\n", critic(21).public()).into_bytes())
}
