//! Decides what happens to a held action. The machine knows nothing of tokio, disks or
//! clocks: time arrives as an argument, effects leave as values. The queue around it knows
//! tokio, and records through a port; neither knows manifests or surfaces.
//!
//! ```
//! use std::sync::Arc;
//! use countersign_core::hold::{Approver, Decision, DecisionKind, HoldKind, HoldStatus, Surface};
//! use countersign_escalation::{EscalationQueue, HoldRequest, Limits, NoRecorder};
//! use countersign_ports::memory::ManualClock;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let clock = Arc::new(ManualClock::at(1_000));
//! let queue = EscalationQueue::new(clock, Arc::new(NoRecorder), Limits::default());
//! let place = queue.admit("agent.a".parse()?, std::time::Duration::from_secs(60))?;
//! let waiting = place.hold(HoldRequest {
//!     id: "00112233445566778899aabbccddeeff".parse()?,
//!     kind: HoldKind::ToolCall,
//!     summary: "git commit".into(),
//!     reason: "the manifest asks for a person".into(),
//!     context_snapshot: serde_json::Value::Null,
//!     created_at_millis: 1_000,
//!     fingerprint: None,
//!     rendering_digest: None,
//! });
//! let id = queue.pending()[0].id.clone();
//! let decision = Decision { decision: DecisionKind::Approve, reason: None, grant: None };
//! let approver = Approver { surface: Surface::Cli, id: "ada".into(), display: "Ada".into() };
//! queue.resolve(&id, decision, approver).await?;
//! assert_eq!(waiting.outcome().await?.status, HoldStatus::Approved);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod machine;
mod queue;
pub mod time;

pub use machine::Outcome;
pub use queue::{
    Admission, Closed, EscalationQueue, HoldError, HoldRequest, Limits, NoRecorder, RecordError,
    Recorder, ResolveError, Resolved, Waiting,
};
