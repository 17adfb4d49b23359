//! Logs, chains, receipts and checkpoints that somebody has changed, and what has to be found.
//! Everything is made from seeds and times that are fixed.

mod bounds;
mod bundles;
mod critics;
mod damages;
mod edits;
mod lies;
mod lists;
mod quorum;
mod readers;
mod receipts;
mod records;
mod splices;
mod story;

pub(crate) use bounds::bounds;
pub(crate) use bundles::{bundles, told};
pub(crate) use critics::critics;
pub(crate) use edits::edited_calls;
pub(crate) use lists::{listed_entries, listed_receipts, listed_records};
pub(crate) use quorum::quorums;
pub(crate) use readers::{critic_readings, readings, receipt_readings};
pub(crate) use receipts::{checkpoints, receipts};
pub(crate) use records::records;
pub(crate) use splices::splices;

use crate::Outcome;
use countersign_audit::key::LogKey;
use serde_json::Value;

const ORIGIN: &str = "countersign.example/attacks";

fn key(seed: u8) -> Outcome<LogKey> {
    Ok(LogKey::from_seed(ORIGIN, &[seed; 32])?)
}

/// One case on one line.
fn case(to: &mut Vec<u8>, case: &Value) -> Outcome {
    serde_json::to_writer(&mut *to, case)?;
    to.push(b'\n');
    Ok(())
}
