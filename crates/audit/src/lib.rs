//! A log of records that anyone with the public key can check: the Merkle tree over it, its
//! signed checkpoints, receipts, and the offline verifier. Knows neither where records are
//! stored nor who is asking.
//!
//! Hashing is RFC 6962, checkpoints are C2SP `tlog-checkpoint` signed notes, so the tools of
//! ordinary transparency logs accept both. A signature proves that the holder of the key
//! vouched for this history; it cannot stop the holder from writing another. Comparing
//! checkpoints that were published, or cosigned by a witness, can.

pub mod checkpoint;
pub mod key;
pub mod receipt;
pub mod tree;
pub mod verify;
