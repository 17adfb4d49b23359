//! The traits through which the kernel meets the world. Knows every adapter's duty and no
//! adapter.
//!
//! [`memory`] has an implementation of each that lives in memory, for tests and for trying
//! things out.

pub mod clock;
pub mod entropy;
pub mod executor;
pub mod hook;
pub mod journal;
pub mod log;
pub mod mcp;
pub mod memory;
pub mod notifier;
