//! The sessions there are, whose they are, and when they end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions as _, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig, SessionTransport,
};
use rmcp::transport::streamable_http_server::session::{
    EventStore, EventStream, RestoreOutcome, ServerSseMessage, SessionId, SessionManager,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::{NoEvents, SessionEvents};
use super::handler::{Shared, as_read_here, with_tasks};
use super::run::AgentRun;
use crate::auth::{Principal, Role};

/// Sessions of one principal. One more, and the one idle longest ends.
const PER_PRINCIPAL_MAX: usize = 128;
/// How long the last answers may take to be written when the gateway stops.
const WRITE_GRACE: Duration = Duration::from_secs(1);
/// How long the ends of all runs may take to be recorded when the gateway stops.
const RECORD_GRACE: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// Set while the client's own DELETE is served.
    pub(crate) static DELETING: ();
}

struct Session {
    /// rmcp's manager, with this one session: so its events are its own, bounded by
    /// themselves, out of reach of other sessions, and gone with it.
    manager: LocalSessionManager,
    /// Set by the handshake.
    run: OnceLock<Arc<AgentRun>>,
}

impl Session {
    fn owner(&self) -> Option<&str> {
        self.run.get().map(|run| run.principal.id.as_str())
    }

    /// Since when nothing has happened; `None` while a call is pending, and before there is a
    /// run.
    fn idle_since(&self) -> Option<Instant> {
        let run = self.run.get()?;
        run.calls.is_empty().then(|| run.last_used())
    }
}

struct Inner {
    shared: Arc<Shared>,
    retry: Duration,
    table: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Streams that are being written.
    bodies: TaskTracker,
    /// Ends of sessions that are being recorded.
    ends: TaskTracker,
    stop: CancellationToken,
}

/// Every open session. Clones are handles to one table.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

impl Sessions {
    pub(super) fn new(shared: Arc<Shared>, retry: Duration) -> Self {
        Self(Arc::new(Inner {
            shared,
            retry,
            table: Mutex::default(),
            bodies: TaskTracker::new(),
            ends: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop_token(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    pub(super) fn bodies(&self) -> &TaskTracker {
        &self.0.bodies
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.table().len()
    }

    /// Whether this principal may use this session, which counts as a use.
    pub(super) fn used_by(&self, id: &str, principal: &Principal) -> bool {
        let table = self.table();
        let run = table.get(id).and_then(|session| session.run.get());
        let Some(run) = run.filter(|run| run.principal.id == principal.id) else { return false };
        // INVARIANT: under the table's lock, so that an idle session is not taken away from a
        // request that was just let in.
        run.touch();
        true
    }

    /// Ends every session, after the answers that are being written. For the shutdown, once
    /// no call is pending: one that is would be called off.
    pub(crate) async fn end_all(&self) {
        self.0.bodies.close();
        let _ = tokio::time::timeout(WRITE_GRACE, self.0.bodies.wait()).await;
        tracing::info!(sessions = self.count(), "ending all sessions");
        let ids = self.table().keys().cloned().collect::<Vec<_>>();
        for id in ids {
            self.spawn_end(id, "the gateway stopped");
        }
        self.0.ends.close();
        if tokio::time::timeout(RECORD_GRACE, self.0.ends.wait()).await.is_err() {
            tracing::error!(left = self.0.ends.len(), "the ends of runs are not all recorded");
        }
        self.0.stop.cancel();
    }

    /// Takes the session out of the table and returns a task that records its end: whoever
    /// asked for it may go.
    fn spawn_end(&self, id: SessionId, why: &'static str) -> Option<tokio::task::JoinHandle<()>> {
        let session = self.table().remove(&id)?;
        Some(self.spawn_finish(id, session, why))
    }

    fn spawn_finish(
        &self,
        id: SessionId,
        session: Arc<Session>,
        why: &'static str,
    ) -> tokio::task::JoinHandle<()> {
        self.0.ends.spawn(async move {
            if let Some(run) = session.run.get() {
                run.end(why).await;
            }
            if let Err(error) = session.manager.close_session(&id).await {
                tracing::debug!(%error, "closing a session");
            }
        })
    }

    /// Ends sessions that nobody has used for this long and that have no pending call.
    pub(super) fn watch_idle(&self, idle: Duration) {
        let inner = Arc::downgrade(&self.0);
        let stop = self.stop_token();
        let every = (idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(30));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(every) => {}
                }
                let Some(inner) = inner.upgrade() else { return };
                Self(inner).end_idle(idle);
            }
        });
    }

    fn end_idle(&self, idle: Duration) {
        let gone = self
            .table()
            .extract_if(|_, session| {
                session.idle_since().is_some_and(|since| since.elapsed() >= idle)
            })
            .collect::<Vec<_>>();
        for (id, session) in gone {
            drop(self.spawn_finish(id, session, "idle for too long"));
        }
    }

    /// Keeps one principal from filling the memory with sessions it has forgotten. False when
    /// each of them has a pending call.
    fn make_room(&self, principal: &Principal) -> bool {
        let oldest = {
            let table = self.table();
            let own = || table.iter().filter(|(_, s)| s.owner() == Some(principal.id.as_str()));
            if own().count() < PER_PRINCIPAL_MAX {
                return true;
            }
            let idle = own().filter_map(|(id, session)| Some((session.idle_since()?, id)));
            idle.min_by_key(|(since, _)| *since).map(|(_, id)| id.clone())
        };
        let Some(oldest) = oldest else { return false };
        drop(self.spawn_end(oldest, "the client opened too many sessions"));
        true
    }

    fn session(&self, id: &SessionId) -> Result<Arc<Session>, LocalSessionManagerError> {
        let found = self.table().get(id).cloned();
        found.ok_or_else(|| LocalSessionManagerError::SessionNotFound(id.clone()))
    }
}

/// Lets go of the manager that made the stream.
fn boxed(stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static) -> EventStream {
    Box::pin(stream)
}

impl SessionManager for Sessions {
    type Error = LocalSessionManagerError;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let mut config = SessionConfig::default();
        // rmcp counts a session with a pending call as idle; see `watch_idle`.
        config.keep_alive = None;
        config.sse_retry = Some(self.0.retry);
        let mut manager =
            LocalSessionManager::default().with_event_store(Arc::new(SessionEvents::default()));
        manager.session_config = config;
        let (id, transport) = manager.create_session().await?;
        let session = Session { manager, run: OnceLock::new() };
        self.table().insert(id.clone(), Arc::new(session));
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        let session = self.session(id)?;
        let principal = match &message {
            ClientJsonRpcMessage::Request(request) => request
                .request
                .extensions()
                .get::<Parts>()
                .and_then(|parts| parts.extensions.get::<Arc<Principal>>())
                .cloned(),
            _ => None,
        };
        // Without a run among the extensions, the handler refuses.
        if let Some(principal) = principal
            && self.make_room(&principal)
        {
            let gateway = Arc::clone(&self.0.shared.gateway);
            let run = Arc::new(AgentRun::new(gateway, principal));
            if session.run.set(Arc::clone(&run)).is_ok() {
                message.insert_extension(run);
            }
        }
        let answer = session.manager.initialize_session(id, message).await?;
        // Only agents call tools.
        let agent = session.run.get().is_some_and(|run| run.principal.has_any(&[Role::Agent]));
        Ok(match answer {
            ServerJsonRpcMessage::Response(mut answer) if agent => {
                answer.result = with_tasks(answer.result);
                ServerJsonRpcMessage::Response(answer)
            }
            other => other,
        })
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        Ok(self.table().contains_key(id))
    }

    /// rmcp calls this for a DELETE, and once more when the session's task has ended.
    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        let why = match DELETING.try_with(|()| ()) {
            Ok(()) => "the client ended the session",
            Err(_) => "the session ended",
        };
        if let Some(ended) = self.spawn_end(id.clone(), why) {
            let _ = ended.await;
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let session = self.session(id)?;
        Ok(boxed(session.manager.create_stream(id, as_read_here(message)).await?))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        let session = self.session(id)?;
        session.manager.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let session = self.session(id)?;
        Ok(boxed(session.manager.create_standalone_stream(id).await?))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let session = self.session(id)?;
        Ok(boxed(session.manager.resume(id, last_event_id).await?))
    }

    async fn restore_session(
        &self,
        _id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        Ok(RestoreOutcome::NotSupported)
    }

    fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        // rmcp would replay from here without a session.
        Some(Arc::new(NoEvents))
    }
}
