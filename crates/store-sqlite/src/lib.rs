//! The journal on SQLite: records, Merkle tree and signed checkpoint in one transaction, one
//! sync for everybody who waits. Knows neither the kernel nor HTTP.
//!
//! The database is in WAL mode with `synchronous=FULL`. One thread writes; an append returns
//! when the transaction that holds its records, their tree nodes and a checkpoint over them
//! is on disk. While one group is being flushed the next gathers; there is no delay timer.

mod append;
mod journal;
mod open;
mod prove;
mod schema;
mod verify;
mod wal;

pub use journal::SqliteJournal;
pub use open::OpenError;
pub use prove::{Consistency, ProofError};
pub use verify::{LogReader, Stored};
