//! The run behind a session: recorded at its start and, once, at its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use countersign_core::id::{AgentId, SessionId};
use countersign_kernel::{Run, RunError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::Principal;
use crate::gateway::Gateway;

/// How long the end of a run waits for the calls it called off.
const CALLS_GRACE: Duration = Duration::from_secs(2);

pub(crate) struct AgentRun {
    gateway: Arc<Gateway>,
    pub(crate) principal: Arc<Principal>,
    run: OnceLock<Arc<Run>>,
    why: OnceLock<&'static str>,
    end_recorded: AtomicBool,
    last_used: Mutex<Instant>,
    /// Fires when the run ends; its pending calls are called off.
    pub(crate) ended: CancellationToken,
    /// On standard input and output: fires when there is no more input.
    pub(crate) input_ended: CancellationToken,
    /// Its pending calls.
    pub(crate) calls: TaskTracker,
}

impl AgentRun {
    pub(crate) fn new(gateway: Arc<Gateway>, principal: Arc<Principal>) -> Self {
        Self {
            gateway,
            principal,
            run: OnceLock::new(),
            why: OnceLock::new(),
            end_recorded: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
            ended: CancellationToken::new(),
            input_ended: CancellationToken::new(),
            calls: TaskTracker::new(),
        }
    }

    /// The run, once its start is recorded.
    pub(crate) fn run(&self) -> Option<&Arc<Run>> {
        self.run.get()
    }

    /// Returns when the session has ended, in whichever way.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = self.input_ended.cancelled() => {}
            () = self.gateway.give_up.cancelled() => {}
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.gateway.stopping.is_cancelled()
    }

    /// When there was last a request, or a call that ended: its result may still be fetched by
    /// a client whose connection broke.
    pub(crate) fn last_used(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Counts a call as pending for as long as the value lives.
    pub(crate) fn pending(self: &Arc<Self>) -> Pending {
        Pending { run: Arc::clone(self), _token: self.calls.token() }
    }

    /// Records the start. The error is a sentence for the client.
    pub(crate) async fn start(
        self: &Arc<Self>,
        session: Option<SessionId>,
        how: String,
    ) -> Result<(), String> {
        let this = Arc::clone(self);
        // A task of its own: a start that is recorded must get its end recorded, also when
        // whoever asked for it has gone.
        let started = tokio::spawn(async move {
            let agent = AgentId::new(this.principal.id.as_str())
                .map_err(|error| format!("the principal's id is no agent id: {error}"))?;
            let started = this.gateway.kernel.run_start(agent, session, &how).await;
            let run = started.map_err(|error| {
                if let RunError::Stopped(_) | RunError::Session = error {
                    return error.to_string();
                }
                let error = chain(&error);
                tracing::error!(%error, "a run could not be started");
                format!("the journal does not record the start of the run: {error}")
            })?;
            let _ = this.run.set(Arc::new(run));
            if this.why.get().is_some() {
                this.record_end().await;
            }
            Ok(())
        });
        started.await.unwrap_or_else(|error| Err(format!("starting the run failed: {error}")))
    }

    /// Calls off what is pending and records the end. Only the first time has an effect. The
    /// end of input calls nothing off: the client is gone, but it has not said so.
    pub(crate) async fn end(self: &Arc<Self>, why: &'static str) {
        let _ = self.why.set(why);
        if !self.input_ended.is_cancelled() {
            self.ended.cancel();
        }
        let this = Arc::clone(self);
        let ended = tokio::spawn(async move {
            this.calls.close();
            let _ = tokio::time::timeout(CALLS_GRACE, this.calls.wait()).await;
            this.record_end().await;
            if let (Some(run), Some(passage)) = (this.run.get(), &this.gateway.passage) {
                passage.left(run.id().as_str());
            }
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "ending a run failed");
        }
    }

    async fn record_end(&self) {
        let Some(run) = self.run.get() else { return };
        if self.end_recorded.swap(true, Ordering::SeqCst) {
            return;
        }
        let why = self.why.get().copied().unwrap_or("the session ended");
        if let Err(error) = self.gateway.kernel.run_end(run, why).await {
            tracing::error!(run = %run.id(), error = %chain(&error), "the end of a run is not recorded");
        }
    }
}

/// A call of a run.
pub(crate) struct Pending {
    run: Arc<AgentRun>,
    _token: TaskTrackerToken,
}

impl Drop for Pending {
    fn drop(&mut self) {
        // INVARIANT: before the token goes, so that there is no moment in which the session
        // has neither a call nor a recent use.
        self.run.touch();
    }
}

/// An error and its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
