//! What every surface shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_escalation::Delegation;
use countersign_kernel::{Kernel, Run};
use countersign_ports::clock::Clock;
use countersign_ports::entropy::Entropy;
use countersign_ports::log::Log;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Auth, Principal};
use crate::critics::Chain;
use crate::mcp::Passage;

pub(crate) struct Gateway {
    pub(crate) kernel: Kernel,
    pub(crate) auth: Auth,
    pub(crate) clock: Arc<dyn Clock>,
    /// Who may answer for whom.
    pub(crate) delegations: Vec<Delegation>,
    /// The gateway's own run: its start, its end, and refused access.
    pub(crate) own_run: Run,
    /// What may pass to upstream servers beside calls, if anything may.
    pub(crate) passage: Option<Passage>,
    pub(crate) calls: TaskTracker,
    /// New calls are refused from now on.
    pub(crate) stopping: CancellationToken,
    /// Pending calls answer now, whatever they wait for.
    pub(crate) give_up: CancellationToken,
    pub(crate) version: String,
    pub(crate) pending_after: Duration,
    /// Bytes of an answer of an upstream server, over HTTP.
    pub(crate) answer_max: usize,
    pub(crate) secure_cookie: bool,
    pub(crate) log: Option<Arc<dyn Log>>,
    pub(crate) public_log: bool,
    pub(crate) critics: Option<Chain>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) hosts: Vec<String>,
    /// Who an MCP client without a token is.
    pub(crate) anonymous: Option<Arc<Principal>>,
    /// REST calls under way, by agent.
    pub(crate) under_way: Mutex<HashMap<String, usize>>,
}

/// A REST call's place among those of its agent; free again when dropped.
pub(crate) struct CallPlace {
    gateway: Arc<Gateway>,
    agent: String,
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let mut under_way = self.gateway.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
        }
    }
}

impl Gateway {
    /// A place for one more REST call of this agent, if it has fewer than `max`.
    pub(crate) fn call_place(self: &Arc<Self>, agent: &str, max: usize) -> Option<CallPlace> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(agent.to_owned()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(CallPlace { gateway: Arc::clone(self), agent: agent.to_owned() })
    }

    /// Records that somebody unknown was turned away. False when there are too many to record
    /// each.
    pub(crate) async fn refused_unknown(self: &Arc<Self>, what: &str) -> bool {
        let counted = self.auth.count_refusal();
        if counted {
            self.refused(what).await;
        }
        counted
    }

    /// Records that somebody known was turned away; nobody's noise can drown that out.
    pub(crate) async fn refused(self: &Arc<Self>, what: &str) {
        if let Err(error) = self.kernel.run_note(&self.own_run, "access_refused", what).await {
            tracing::error!(%error, what, "a refusal is not recorded");
        }
    }
}
