//! The gateway's surfaces: MCP, REST, live events and the console, and who may use them.
//! Knows neither SQL nor processes; the kernel is behind all of them.

mod accept;
mod api;
mod approvals;
mod auth;
mod body;
mod console;
mod critics;
mod edits;
mod events;
mod gate;
mod gateway;
mod grants;
mod log;
mod mcp;
mod pending;
mod problem;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, extract::State};
use countersign_core::id::{AgentId, IdError};
use countersign_escalation::Delegation;
use countersign_kernel::{Kernel, RunError};
use countersign_ports::clock::Clock;
use countersign_ports::entropy::{Entropy, EntropyError};
use countersign_ports::journal::Batch;
use countersign_ports::log::Log;
use countersign_ports::mcp::McpUpstreams;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use auth::{Principal, Role};
pub use critics::{CRITIC_VERDICT, Critics, CriticsError};

use crate::auth::Auth;
use crate::gateway::Gateway;
use crate::problem::Problem;

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Names beside the address and `localhost` that requests may carry as their Host.
    pub allowed_hosts: Vec<String>,
    /// Longest request body.
    pub max_body_bytes: usize,
    /// How long running calls may take to end once the gateway is told to stop.
    pub drain: Duration,
    /// How long an MCP call waits for a person before its answer is that it is still pending.
    pub pending_after: Duration,
    /// Bytes of an answer of an upstream server that an MCP client gets over HTTP. A larger one is
    /// an error that says where it is kept.
    pub answer_max_bytes: usize,
    /// Whether browsers may send the console's cookie over TLS only.
    pub secure_cookie: bool,
    /// Whether everybody may have checkpoints and the hashes of the log. Records, and receipts,
    /// which hold one, are for principals only.
    pub public_log: bool,
    /// The agent that MCP clients without a token are, if they may come at all. Only for an
    /// address that nobody else can reach.
    pub anonymous_agent: Option<String>,
    /// The program's version, as clients see it.
    pub version: String,
}

/// What a server is made of.
pub struct ServerParts {
    /// What governs the calls.
    pub kernel: Kernel,
    /// The log over the kernel's journal, if that signs.
    pub log: Option<Arc<dyn Log>>,
    /// The chain of critics' verdicts, if one is kept.
    pub critics: Option<Critics>,
    /// Who may use the gateway.
    pub principals: Vec<Principal>,
    /// Who may answer for whom, and when.
    pub delegations: Vec<Delegation>,
    /// The upstream MCP servers, for what may pass beside the calls of their tools.
    pub upstreams: Option<Arc<dyn McpUpstreams>>,
    /// The time for sessions and links.
    pub clock: Arc<dyn Clock>,
    /// What sessions and links are made of.
    pub entropy: Arc<dyn Entropy>,
    /// Where and how.
    pub config: ServerConfig,
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Its own start cannot be recorded.
    #[error("the gateway's start cannot be recorded")]
    Run(#[from] RunError),
    /// The chain of verdicts cannot go on.
    #[error("the chain of critics' verdicts")]
    Critics(#[from] CriticsError),
    /// A fixed id is not valid.
    #[error("no id for the gateway's run")]
    Id(#[from] IdError),
    /// The configuration names an agent that is not there.
    #[error("there is no principal `{0}` with the role agent")]
    NoAgent(String),
    /// MCP over standard input and output broke down.
    #[error("MCP over standard input and output: {0}")]
    Stdio(String),
}

/// A gateway that is bound to its address and not serving yet.
pub struct Server {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    address: SocketAddr,
    config: ServerConfig,
}

impl Server {
    /// Takes the address, and records that the gateway has started.
    ///
    /// # Errors
    /// When the address is taken, or the start cannot be recorded.
    pub async fn bind(parts: ServerParts) -> Result<Self, ServeError> {
        let config = parts.config;
        let bound = |source| ServeError::Bind { address: config.bind, source };
        let listener = TcpListener::bind(config.bind).await.map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        let how = format!("countersign {} serves on {address}", config.version);
        let own_run = parts.kernel.run_start_own(AgentId::new("countersign")?, &how).await?;
        let critics = match parts.critics {
            None => None,
            Some(critics) => {
                let now = parts.clock.now_millis();
                Some(critics.begin(&parts.kernel, &own_run, now).await?)
            }
        };
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        hosts.push(match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        });
        hosts.extend(config.allowed_hosts.iter().cloned());
        let anonymous = match &config.anonymous_agent {
            None => None,
            Some(id) => {
                let mut known = parts.principals.iter();
                let agent = known.find(|p| p.id == *id && p.has_any(&[Role::Agent]));
                Some(Arc::new(agent.ok_or_else(|| ServeError::NoAgent(id.clone()))?.clone()))
            }
        };
        let clock = Arc::clone(&parts.clock);
        let gateway = Arc::new(Gateway {
            anonymous,
            kernel: parts.kernel,
            entropy: Arc::clone(&parts.entropy),
            auth: Auth::new(parts.principals, parts.clock, parts.entropy),
            clock,
            delegations: parts.delegations,
            own_run,
            passage: parts.upstreams.and_then(mcp::Passage::new),
            calls: TaskTracker::new(),
            stopping: CancellationToken::new(),
            give_up: CancellationToken::new(),
            version: config.version.clone(),
            pending_after: config.pending_after,
            answer_max: config.answer_max_bytes,
            secure_cookie: config.secure_cookie,
            log: parts.log,
            critics,
            public_log: config.public_log,
            hosts,
            under_way: std::sync::Mutex::default(),
        });
        Ok(Self { gateway, listener, address, config })
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A link that signs its first user in as the first principal with one of these roles.
    /// `None` when there is no such principal.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn console_link(&self, roles: &[Role]) -> Result<Option<String>, EntropyError> {
        let who = self.gateway.auth.principals().iter().find(|p| p.has_any(roles));
        let Some(principal) = who else { return Ok(None) };
        let code = self.gateway.auth.one_time_code(Arc::clone(principal))?;
        Ok(Some(format!("http://{}/login?code={code}", self.address)))
    }

    /// Serves until `stop` yields, then lets running calls finish for the configured time.
    /// Held calls stay held: they are in the journal. With `stdio_agent`, that agent is served
    /// on standard input and output as well, and the end of input is a reason to stop.
    ///
    /// # Errors
    /// When the agent is not known, or standard input and output break down.
    pub async fn run(
        self,
        stdio_agent: Option<String>,
        stop: impl Future<Output = &'static str>,
    ) -> Result<(), ServeError> {
        let Self { gateway, listener, config, address } = self;
        let agent = match stdio_agent {
            None => None,
            Some(id) => {
                let known = gateway.auth.principals().iter();
                let mut agents = known.filter(|principal| principal.has_any(&[Role::Agent]));
                let agent = agents.find(|principal| principal.id == id);
                Some(Arc::clone(agent.ok_or(ServeError::NoAgent(id))?))
            }
        };
        let mcp = mcp::McpConfig {
            max_body_bytes: config.max_body_bytes,
            allowed_hosts: gateway.hosts.clone(),
            own_port: address.port(),
            ..mcp::McpConfig::default()
        };
        let (mcp, sessions) = mcp::service(Arc::clone(&gateway), mcp);
        let app = app(&gateway, mcp, config.max_body_bytes);
        let close_listener = CancellationToken::new();
        let accept = tokio::spawn(accept::serve(
            listener,
            app,
            accept::AcceptLimits::default(),
            close_listener.clone(),
        ));
        let mut stdio =
            agent.map(|agent| tokio::spawn(mcp::serve_stdio(Arc::clone(&gateway), agent)));
        let mut failure = None;
        let why = match &mut stdio {
            None => stop.await,
            Some(serving) => tokio::select! {
                why = stop => why,
                ended = serving => {
                    stdio = None;
                    failure = stdio_failure(ended);
                    "end of input"
                }
            },
        };
        // New calls are refused; held ones answer that they stay held; running ones get their
        // time, and what is still running then is killed, and recorded as called off.
        gateway.stopping.cancel();
        gateway.kernel.queue().close();
        gateway.calls.close();
        // Also those that nobody waits for any more.
        let ended = async {
            gateway.calls.wait().await;
            gateway.kernel.settled().await;
        };
        if tokio::time::timeout(config.drain, ended).await.is_err() {
            tracing::warn!("calls are still running; killing them");
        }
        gateway.give_up.cancel();
        gateway.kernel.call_off_all();
        let ended = async {
            gateway.calls.wait().await;
            gateway.kernel.settled().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
        if let Some(serving) = stdio {
            let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
            failure = ended.ok().and_then(stdio_failure);
        }
        sessions.end_all().await;
        close_listener.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(5), accept).await;
        if let Err(error) = gateway.kernel.run_end(&gateway.own_run, why).await {
            tracing::error!(%error, "the gateway's end is not recorded");
        }
        gateway.kernel.hooks().close(config.drain).await;
        failure.map_or(Ok(()), Err)
    }
}

fn stdio_failure(
    ended: Result<Result<(), mcp::StdioError>, tokio::task::JoinError>,
) -> Option<ServeError> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(ServeError::Stdio(error.to_string())),
        Err(error) => Some(ServeError::Stdio(error.to_string())),
    }
}

fn app(gateway: &Arc<Gateway>, mcp: Router, max_body_bytes: usize) -> Router {
    let api = Router::new()
        .nest("/api/v1", api::routes())
        .route("/logout", post(console::logout))
        .layer(from_fn_with_state(Arc::clone(gateway), gate::api));
    let mcp = mcp.layer(from_fn_with_state(Arc::clone(gateway), gate::mcp));
    Router::new()
        .merge(api)
        .merge(console::routes())
        .merge(log::files())
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(nothing_here)
        .layer(from_fn_with_state(max_body_bytes, gate::body))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(gateway))
        .merge(mcp)
        .layer(from_fn_with_state(Arc::clone(gateway), gate::host))
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    // An empty batch changes nothing, and fails when the journal takes no more.
    if let Err(error) = gateway.kernel.journal().append(Batch::default()).await {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
    }
    "ready\n".into_response()
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
}
