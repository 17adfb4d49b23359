//! What is answered to a call when its maker cannot wait until a person has decided.

use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hold::{HeldAction, HoldStatus};
use countersign_core::id::ApprovalRequestId;
use countersign_kernel::Kernel;
use countersign_manifest::{Envelope, EnvelopeStatus};
use serde_json::json;
use tokio::sync::watch;

/// Returns when so long has passed and a person still has to decide. Of a call that needs
/// nobody, or has been decided about, the outcome comes by itself, and this never returns.
pub(crate) async fn still_pending(
    kernel: &Kernel,
    mut hold: watch::Receiver<Option<ApprovalRequestId>>,
    wait: Duration,
) -> HeldAction {
    tokio::time::sleep(wait).await;
    loop {
        let id = hold.borrow_and_update().clone();
        if let Some((held, _)) = id.and_then(|id| kernel.queue().find(&id))
            && held.status == HoldStatus::Pending
        {
            return held;
        }
        if hold.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The envelope of a call that waits.
pub(crate) fn envelope(tool: &str, hold: &HeldAction) -> Envelope {
    Envelope {
        status: EnvelopeStatus::Pending,
        scan_id: hold.id.to_string(),
        tool: tool.to_owned(),
        command: hold.summary.clone(),
        duration_ms: 0,
        timestamp: hold.created_at.clone(),
        output_hash: Digest::of([]).to_string(),
        exit_code: None,
        stderr: None,
        results: json!({ "pending": { "hold": hold.id, "expires_at": hold.expires_at } }),
        output_file: None,
        output_truncated: None,
    }
}
