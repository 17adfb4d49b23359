//! Decides what happens to a held action. The machine knows nothing of tokio, disks or
//! clocks: time arrives as an argument, effects leave as values. The queue around it knows
//! tokio, and records through a port; neither knows manifests or surfaces.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use countersign_core::hold::{Approver, Decision, DecisionKind, HoldKind, HoldStatus, Surface};
//! use countersign_escalation::{
//!     EscalationQueue, Held, HoldRequest, Limits, Outcome, QueueEventKind, RecordError, Recorder,
//! };
//! use countersign_ports::memory::ManualClock;
//!
//! /// An audit sink. Nobody learns a decision before this has returned, and when it fails the
//! /// call is denied.
//! struct Audit(std::sync::Mutex<Vec<String>>);
//!
//! #[async_trait::async_trait]
//! impl Recorder for Audit {
//!     async fn record(&self, hold: &Held, outcome: &Outcome) -> Result<(), RecordError> {
//!         let line = format!("{} {}", hold.id(), outcome.code);
//!         self.0.lock().map_err(|error| RecordError::Failed(error.to_string()))?.push(line);
//!         Ok(())
//!     }
//! }
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let (clock, audit) = (Arc::new(ManualClock::at(1_000)), Arc::new(Audit(Default::default())));
//! let queue = EscalationQueue::new(clock, audit, Limits::default());
//! let mut events = queue.subscribe(None);
//! let request = HoldRequest {
//!     id: "00112233445566778899aabbccddeeff".parse()?,
//!     kind: HoldKind::ToolCall,
//!     summary: "git commit".into(),
//!     reason: "the manifest asks for a person".into(),
//!     context_snapshot: serde_json::Value::Null.into(),
//!     created_at_millis: 1_000,
//!     fingerprint: None,
//!     rendering_digest: None,
//! };
//! let waiting = queue.enqueue("agent.a".parse()?, Duration::from_secs(60), request)?;
//!
//! // Whoever decides sees what waits, and answers; the waiter goes on.
//! let listed = queue.list_pending();
//! let decision = Decision { decision: DecisionKind::Approve, reason: None, grant: None };
//! let approver = Approver { surface: Surface::Cli, id: "ada".into(), display: "Ada".into() };
//! queue.resolve(listed[0].id(), decision, approver).await?;
//! assert_eq!(waiting.outcome().await?.status, HoldStatus::Approved);
//!
//! // Whoever follows learns of both, by number, and can resume after any of them.
//! assert_eq!(events.next().await?.kind, QueueEventKind::Held);
//! assert_eq!(events.next().await?.kind, QueueEventKind::Ended(HoldStatus::Approved));
//! assert_eq!(queue.subscribe(Some(1)).next().await?.seq, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod contain;
mod driver;
mod events;
mod held;
mod index;
pub mod machine;
mod notify;
mod page;
mod parts;
mod queue;
mod shard;
mod slab;
mod store;
mod sync;
#[cfg(test)]
mod tests;
pub mod time;
mod voter;
mod waiting;
mod wheel;

pub use events::{QueueEvent, QueueEventKind, Subscription, SubscriptionError};
pub use held::{Carried, Claimed, Edit, Held, HoldRequest, Snapshot};
pub use machine::{Change, Outcome, Refusal};
pub use notify::{LostNotice, LostReason, Notifiers};
pub use page::{Cursor, CursorError, Page};
pub use queue::{
    Closed, EscalationQueue, HoldError, Limits, NoRecorder, RecordError, Recorder, ResolveError,
    Resolved, Voted,
};
pub use voter::{Delegation, DelegationError, Voter};
pub use waiting::{Admission, Waiting};
