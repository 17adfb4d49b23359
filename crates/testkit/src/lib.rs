//! Builders and shared suites for the tests of the other crates. Knows only core and ports.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod draft;
pub mod journal_contract;
