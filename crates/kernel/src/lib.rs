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
mod call;
mod edit;
mod envelope;
mod govern;
mod hooks;
mod notices;
mod outcome;
mod pins;
mod points;
mod policy;
mod records;
mod recovery;
mod render;
mod rules;
mod run;
mod vote;

pub use broker::{
    Answer, ApprovalBroker, ApprovalDispatcher, AskError, Asked, DispatchError, GrantStatus,
    Question, SettleError,
};
pub use call::{Call, CallOptions, request_digest};
pub use edit::{EditError, EditPreview};
pub use govern::{Denial, Governed, Kernel, Parts};
pub use hooks::{
    Accepted, Brake, Hook, HookCoordinator, HookDomain, HookMoment, HookStop, Observed, StopScope,
};
pub use outcome::TakenUp;
pub use pins::{PinReason, Pins, pins};
pub use policy::{Demand, Explanation, GrantLimits, MatchingRule, Policy, PolicyCall, Rule};
pub use recovery::{Found, StartError};
pub use render::{Rendering, fingerprint};
pub use rules::{
    APPROVERS, ApprovalRule, People, RuleAction, RuleError, RulePart, RuleTerms, Rules, Specificity,
};
pub use run::{Addition, Note, Run, RunError};
