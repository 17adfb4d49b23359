//! What cannot be seen from outside.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::HoldKind;
use countersign_ports::memory::ManualClock;

use crate::parts::Parts;
use crate::sync::Arc;
use crate::{EscalationQueue, HoldRequest, Limits, NoRecorder};

#[tokio::test]
async fn an_ended_hold_leaves_nothing_behind_in_any_index() {
    let limits = Limits { finished: 0, ..Limits::default() };
    let queue =
        EscalationQueue::new(Arc::new(ManualClock::at(1_000)), Arc::new(NoRecorder), limits);
    for n in 0..100 {
        let request = HoldRequest {
            id: format!("{n:032x}").parse().unwrap(),
            kind: HoldKind::ToolCall,
            summary: String::new(),
            reason: String::new(),
            context_snapshot: serde_json::Value::Null.into(),
            created_at_millis: 1_000,
            fingerprint: Some(Digest::of([n % 50])),
            rendering_digest: None,
        };
        let agent = format!("agent.{}", n % 7).parse().unwrap();
        drop(queue.enqueue(agent, Duration::from_secs(60), request).unwrap());
    }
    assert!(Parts::<()>::all().all(|part| queue.0.joins.lock(part).is_empty()));
    assert!(Parts::<()>::all().all(|part| queue.0.agents.lock(part).is_empty()));
    assert!(queue.list_pending().is_empty() && queue.is_empty());
}
