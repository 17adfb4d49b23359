//! MCP, over HTTP and over standard input and output. One session is one run: the run starts
//! with the handshake and ends with the session, and both ends are recorded.
//!
//! Knows nothing of tokens: whoever serves the router puts an `Arc<Principal>` into each
//! request.

mod body;
mod caller;
mod events;
mod handler;
mod pass;
mod result;
mod run;
mod sessions;
mod tasks;
mod upstream;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Router, middleware};
use rmcp::ServiceExt as _;
use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::auth::Principal;
use crate::gateway::Gateway;
use handler::{Handler, Shared};
pub(crate) use pass::Passage;
use run::AgentRun;
pub(crate) use sessions::Sessions;

/// How soon a client may come back to a stream that broke.
const RETRY: Duration = Duration::from_secs(1);

/// Bounds of the HTTP side.
#[derive(Clone, Debug)]
pub(crate) struct McpConfig {
    /// Bytes of one message.
    pub(crate) max_body_bytes: usize,
    /// A session ends this long after its last request or call, unless a call is pending.
    pub(crate) idle: Duration,
    /// Values of `Host` that are answered, with or without a port. When empty: only the names
    /// of this machine's loopback interface.
    pub(crate) allowed_hosts: Vec<String>,
    /// Pages from this port of this machine are the gateway's own; no others may ask anything.
    pub(crate) own_port: u16,
    /// How often a silent stream gets a comment, so that nothing between takes it for dead.
    pub(crate) sse_keep_alive: Duration,
}

impl Default for McpConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            idle: Duration::from_secs(60 * 60),
            allowed_hosts: Vec::new(),
            own_port: 0,
            sse_keep_alive: Duration::from_secs(15),
        }
    }
}

/// Why MCP over standard input and output ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdioError {
    /// The client and the gateway did not get to know each other.
    #[error("the MCP handshake failed: {0}")]
    Handshake(Box<ServerInitializeError>),
    /// The task that serves it failed.
    #[error("MCP over standard input and output failed: {0}")]
    Failed(String),
}

/// The router of `/mcp`, and the handle that ends its sessions.
///
/// Must be called inside a tokio runtime: one task looks for idle sessions.
pub(crate) fn service(gateway: Arc<Gateway>, config: McpConfig) -> (Router, Sessions) {
    let shared = Arc::new(Shared::new(gateway));
    let sessions = Sessions::new(Arc::clone(&shared), RETRY);
    sessions.watch_idle(config.idle);
    let mut hosts = config.allowed_hosts.clone();
    if hosts.is_empty() {
        hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
    }
    let origin = |host| format!("http://{host}:{}", config.own_port);
    let origins = ["localhost", "127.0.0.1", "[::1]"].map(origin);
    let http = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        // Whatever a browser sends from another page is refused.
        .with_allowed_origins(origins)
        .enforce_origin_validation()
        .with_sse_keep_alive(Some(config.sse_keep_alive))
        .with_sse_retry(Some(RETRY))
        .with_max_request_body_bytes(config.max_body_bytes)
        .with_cancellation_token(sessions.stop_token());
    let mcp = StreamableHttpService::new(
        move || Ok(Handler::http(Arc::clone(&shared))),
        Arc::new(sessions.clone()),
        http,
    );
    let gate = body::Gate { sessions: sessions.clone(), max_body_bytes: config.max_body_bytes };
    let router = Router::new()
        .route_service("/mcp", mcp)
        .layer(middleware::from_fn_with_state(Arc::new(gate), body::gate));
    (router, sessions)
}

/// Serves one client on standard input and output, until it closes its end or
/// `Gateway::give_up` fires. After the end of input, pending calls have five seconds to be
/// answered. Those that take longer go on as tasks of `Gateway::calls`, with nobody to answer:
/// whoever stops the gateway then closes the queue first, so that held calls stay held.
///
/// Standard output belongs to the protocol meanwhile.
pub(crate) async fn serve_stdio(
    gateway: Arc<Gateway>,
    principal: Arc<Principal>,
) -> Result<(), StdioError> {
    let (give_up, stop) = (gateway.give_up.clone(), CancellationToken::new());
    let run = Arc::new(AgentRun::new(Arc::clone(&gateway), principal));
    let handler = Handler::stdio(Arc::new(Shared::new(gateway)), Arc::clone(&run));
    let pending = run.calls.clone();
    let (input, output) = rmcp::transport::io::stdio_pipes();
    let input = Input { inner: input, ended: run.input_ended.clone() };
    let serving = stop.clone();
    let watch = async move {
        give_up.cancelled().await;
        // Calls answer now; what they answer is still to be written.
        pending.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), pending.wait()).await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let serve = async move {
        match handler.serve_with_ct((input, output), serving).await {
            Ok(running) => match running.waiting().await {
                Ok(QuitReason::JoinError(error)) => Err(StdioError::Failed(error.to_string())),
                Ok(_) => Ok(()),
                Err(error) => Err(StdioError::Failed(error.to_string())),
            },
            // Nobody said anything, or the gateway stopped first.
            Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
                Ok(())
            }
            Err(error) => Err(StdioError::Handshake(Box::new(error))),
        }
    };
    let served = tokio::select! {
        served = serve => served,
        () = watch => Ok(()),
    };
    let why = match run.stopping() {
        true => "the gateway stopped",
        false => "the client closed its end",
    };
    run.end(why).await;
    served
}

/// Input that tells when it is over.
struct Input<R> {
    inner: R,
    ended: CancellationToken,
}

impl<R: AsyncRead + Unpin> AsyncRead for Input<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        if read.is_err() || (room > 0 && buffer.filled().len() == before) {
            self.ended.cancel();
        }
        Poll::Ready(read)
    }
}
