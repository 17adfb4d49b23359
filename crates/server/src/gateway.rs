//! What every surface shares.

use std::sync::Arc;

use countersign_kernel::{Kernel, Run};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;

pub(crate) struct Gateway {
    pub(crate) kernel: Kernel,
    pub(crate) auth: Auth,
    /// The gateway's own run: its start, its end, and refused access.
    pub(crate) own_run: Run,
    pub(crate) calls: TaskTracker,
    /// New calls are refused from now on.
    pub(crate) stopping: CancellationToken,
    /// Pending calls answer now, whatever they wait for.
    pub(crate) give_up: CancellationToken,
    pub(crate) version: String,
    pub(crate) secure_cookie: bool,
    pub(crate) hosts: Vec<String>,
}

impl Gateway {
    /// Records that somebody was turned away. False when there are too many to record each.
    pub(crate) async fn refused(self: &Arc<Self>, what: &str) -> bool {
        if !self.auth.count_refusal() {
            return false;
        }
        if let Err(error) = self.kernel.run_note(&self.own_run, "access_refused", what).await {
            tracing::error!(%error, what, "a refusal is not recorded");
        }
        true
    }
}
