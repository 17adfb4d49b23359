//! The records everybody around a governed agent exchanges. Knows no clock, randomness,
//! disk or async runtime: every value arrives as an argument.
//!
//! The JSON of these types is a contract. Effects, hooks, approvals and journal records are
//! read and written as agent-sdk-core 0.1.0-alpha.4 does, holds and decisions as
//! symbi-runtime 1.16–3.0 does: same names, same order, same omissions. Additions are
//! optional fields that are left out when absent, so those systems still read them.

pub mod approval;
pub mod digest;
pub mod effect;
pub mod error;
pub mod hold;
mod hold_policy;
mod hold_record;
pub mod hook;
pub mod id;
pub mod journal;
pub mod json;
pub mod plan;
pub mod refs;
pub mod story;
pub mod text;
pub mod tool;
mod word;
