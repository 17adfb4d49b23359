//! A log of records that anyone with the public key can check: the Merkle tree over it, its
//! signed checkpoints, proofs, tiles, receipts and bundles, and the offline verifier of the bytes
//! and of what they say. Beside it, chains of critics' verdicts. Knows neither where records are
//! stored nor who is asking.
//!
//! Hashing is RFC 6962, checkpoints are C2SP `tlog-checkpoint` signed notes, so the tools of
//! ordinary transparency logs accept both. A signature proves that the holder of the key
//! vouched for this history; it cannot stop the holder from writing another. Comparing
//! checkpoints that were published, or cosigned by a witness, can.

pub mod checkpoint;
pub mod critic;
pub mod key;
pub mod receipt;
mod signature;
mod strict;
pub mod tiles;
pub mod tree;
pub mod verify;
