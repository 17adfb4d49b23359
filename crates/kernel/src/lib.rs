//! Governs one tool call from request to result: planned, approved if a rule asks for it,
//! announced in the journal, run, and recorded. Knows nothing of SQL, HTTP, MCP or terminals.
//!
//! The order is the product. Nothing to the right of an arrow can be seen by anybody before
//! the append to its left is durable:
//!
//! ```text
//! requested + dispatch_intent      ──▶ the hold becomes visible
//! responded or denied + result     ──▶ the waiter is released
//! effect intent                    ──▶ the effect may start
//! effect result                    ──▶ the agent has its answer
//! ```

mod approval;
mod broker;
mod govern;
mod hooks;
mod points;
mod policy;
mod records;
mod recovery;
mod render;
mod run;

pub use broker::{
    Answer, ApprovalBroker, ApprovalDispatcher, AskError, Asked, DispatchError, GrantStatus,
    Question, SettleError,
};
pub use govern::{Denial, Governed, Kernel, Parts};
pub use hooks::{
    Accepted, Brake, Hook, HookCoordinator, HookDomain, HookMoment, HookStop, Observed, StopScope,
};
pub use policy::{GrantLimits, Policy, Rule};
pub use recovery::{Found, StartError};
pub use render::{Rendering, fingerprint};
pub use run::{Run, RunError};
