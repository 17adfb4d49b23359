//! Upstream MCP servers: how they are started or reached, called, and ended.
//!
//! - A server is connected to when it is first needed, and again after its connection has ended,
//!   at the earliest after a time that doubles with each failure. A program is a supervised
//!   process like any tool: with its connection ends everything that it started.
//! - A request is sent at most once. When the connection ends before the answer, nobody knows
//!   what became of the request, and the answer is [`ExecutionStatus::Unknown`].
//! - A call is made only if the connection's own listing has the tool, with the definition that
//!   was accepted.
//! - Where something of MCP passes beside calls of tools, each session of an agent has a
//!   connection of its own: what an upstream asks reaches the client that it is about, and
//!   nobody else's. Otherwise all share one.
//!
//! [`ExecutionStatus::Unknown`]: countersign_ports::executor::ExecutionStatus::Unknown

mod call;
mod client;
mod connection;
mod http;
mod numbers;
mod process;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_manifest::definition_digest;
use countersign_ports::executor::{Execution, ToolExecutor, ToolRun};
use countersign_ports::mcp::{McpCaller, McpError, McpFeature, McpPass, McpUpstreams};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::{ProcessConfig, Redactor};
use connection::Connection;
pub use http::{HttpUpstream, HttpUpstreamError};

/// How long a server that could not be reached is left alone, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Sessions with a connection of their own, of one upstream.
const SESSIONS_MAX: usize = 256;

/// One upstream server.
#[derive(Debug)]
pub struct UpstreamConfig {
    /// How manifests, records and messages name it.
    pub name: String,
    /// What stands before its own names where agents see them.
    pub prefix: String,
    /// Where it is.
    pub transport: UpstreamTransport,
    /// How long starting or reaching it, the handshake and the list of its tools may take.
    pub connect_timeout: Duration,
    /// How long the answer to a request may take that is no call of a tool.
    pub request_timeout: Duration,
    /// What may pass.
    pub features: BTreeSet<McpFeature>,
    /// Takes secrets out of whatever the server says: definitions, requests, notifications, their
    /// answers, errors, and the log of standard error. Answers to calls of tools are left to
    /// [`Dispatch`](crate::Dispatch), as those of all executors.
    pub redactor: Redactor,
    /// The gateway's version, for the handshake.
    pub version: String,
}

/// Where an upstream server is.
pub enum UpstreamTransport {
    /// A program that speaks MCP on its standard input and output.
    Process {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Its folder, its environment, and where it is looked for.
        process: ProcessConfig,
    },
    /// A server that speaks streamable HTTP.
    Http(HttpUpstream),
}

impl fmt::Debug for UpstreamTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { argv, .. } => f.debug_tuple("Process").field(argv).finish(),
            Self::Http(http) => f.debug_tuple("Http").field(http).finish(),
        }
    }
}

/// What a server said its tools are.
#[derive(Debug)]
pub struct Listing {
    /// The upstream's name.
    pub upstream: String,
    /// The definitions, each an element of the answer to `tools/list`.
    pub tools: Vec<Value>,
}

/// A connection, or when there may be the next try.
#[derive(Default)]
struct Slot {
    connection: Option<Arc<Connection>>,
    /// There has been a connection.
    was_there: bool,
    failures: u32,
    retry: Option<(Instant, String)>,
}

struct Upstream {
    config: UpstreamConfig,
    /// By session; `None` is the one that all share.
    slots: Mutex<HashMap<Option<String>, Arc<tokio::sync::Mutex<Slot>>>>,
    accepted: RwLock<BTreeMap<String, Digest>>,
    listings: mpsc::UnboundedSender<Listing>,
}

/// The upstream servers. Clones are handles to the same ones.
///
/// Dropping the last ends every connection, and every program with whatever it started.
#[derive(Clone)]
pub struct Upstreams(Arc<Vec<Arc<Upstream>>>);

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|upstream| &upstream.config.name);
        f.debug_tuple("Upstreams").field(&names.collect::<Vec<_>>()).finish()
    }
}

impl Upstreams {
    /// Connects to nothing yet. The second value has what servers say their tools are: with each
    /// connection, and when they say that it has changed.
    #[must_use]
    pub fn new(configs: Vec<UpstreamConfig>) -> (Self, mpsc::UnboundedReceiver<Listing>) {
        let (listings, listed) = mpsc::unbounded_channel();
        let upstreams = configs.into_iter().map(|config| {
            Arc::new(Upstream {
                config,
                slots: Mutex::default(),
                accepted: RwLock::default(),
                listings: listings.clone(),
            })
        });
        (Self(Arc::new(upstreams.collect())), listed)
    }

    /// Connects to this upstream, if it is not connected; its listing is on its way then.
    ///
    /// # Errors
    /// Why it cannot be reached, for a person.
    pub async fn connect(&self, upstream: &str) -> Result<(), String> {
        self.find(upstream)?.connection(None).await.map(drop)
    }

    /// Has this upstream list its tools anew, for whoever reads the listings.
    ///
    /// # Errors
    /// Why it cannot be reached, for a person.
    pub async fn refresh(&self, upstream: &str) -> Result<(), String> {
        let connection = self.find(upstream)?.connection(None).await?;
        connection.list_again();
        Ok(())
    }

    /// Lets calls of a tool through as long as its definition is this one, or none with `None`.
    pub fn accept(&self, upstream: &str, tool: &str, definition: Option<Digest>) {
        let Ok(upstream) = self.find(upstream) else { return };
        let mut accepted = upstream.accepted.write().unwrap_or_else(PoisonError::into_inner);
        match definition {
            Some(digest) => drop(accepted.insert(tool.to_owned(), digest)),
            None => drop(accepted.remove(tool)),
        }
    }

    fn find(&self, name: &str) -> Result<&Arc<Upstream>, String> {
        let found = self.0.iter().find(|upstream| upstream.config.name == name);
        found.ok_or_else(|| format!("there is no upstream `{name}` in the configuration"))
    }
}

impl Upstream {
    fn slots(&self) -> MutexGuard<'_, HashMap<Option<String>, Arc<tokio::sync::Mutex<Slot>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self, tool: &str) -> Option<Digest> {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).get(tool).copied()
    }

    /// The connection for requests of this client, made if there is none.
    async fn connection(
        &self,
        caller: Option<&Arc<dyn McpCaller>>,
    ) -> Result<Arc<Connection>, String> {
        let caller = caller.filter(|_| !self.config.features.is_empty());
        let key = caller.map(|caller| caller.session().to_owned());
        let slot = {
            let mut slots = self.slots();
            if slots.len() > SESSIONS_MAX && !slots.contains_key(&key) {
                return Err(format!("{SESSIONS_MAX} sessions are connected to it already"));
            }
            Arc::clone(slots.entry(key).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|c| !c.is_dead()) {
            return Ok(Arc::clone(connection));
        }
        slot.connection = None;
        if let Some((at, why)) = slot.retry.as_ref().filter(|(at, _)| Instant::now() < *at) {
            let wait = at.saturating_duration_since(Instant::now()).as_secs_f64();
            return Err(format!("{why}; it is tried again in {wait:.1} s at the earliest"));
        }
        let name = &self.config.name;
        let connect = Connection::new(&self.config, caller.cloned(), self.listings.clone());
        let connected = match timeout(self.config.connect_timeout, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(format!(
                "it did not answer the handshake within {} s",
                self.config.connect_timeout.as_secs_f64()
            )),
        };
        match connected {
            Ok(connection) => {
                let connection = Arc::new(connection);
                tracing::info!(upstream = name, "connected");
                *slot = Slot {
                    connection: Some(Arc::clone(&connection)),
                    was_there: true,
                    ..Slot::default()
                };
                Ok(connection)
            }
            Err(why) => {
                let why = self.config.redactor.text(why);
                let why = format!("upstream `{name}` cannot be reached: {why}");
                // Who asks first hears of it; that it does not come back is nobody's answer.
                match slot.was_there && slot.failures == 0 {
                    true => tracing::warn!("{why}"),
                    false => tracing::debug!("{why}"),
                }
                let wait = BACKOFF.0.saturating_mul(1 << slot.failures.min(16)).min(BACKOFF.1);
                slot.failures += 1;
                slot.retry = Some((Instant::now() + wait, why.clone()));
                Err(why)
            }
        }
    }
}

#[async_trait]
impl McpUpstreams for Upstreams {
    fn passes(&self) -> Vec<McpPass> {
        let passing = self.0.iter().map(|upstream| &upstream.config);
        let passing = passing.filter(|config| !config.features.is_empty());
        let passing = passing.map(|config| McpPass {
            upstream: config.name.clone(),
            prefix: config.prefix.clone(),
            features: config.features.iter().copied().collect(),
        });
        passing.collect()
    }

    async fn request(
        &self,
        caller: &Arc<dyn McpCaller>,
        upstream: &str,
        method: &str,
        params: Value,
    ) -> Result<Value, McpError> {
        let upstream = self.find(upstream).map_err(McpError::internal)?;
        let connection = upstream.connection(Some(caller)).await.map_err(McpError::internal)?;
        connection.request(caller, method, params, upstream.config.request_timeout).await
    }

    fn left(&self, session: &str) {
        for upstream in self.0.iter() {
            upstream.slots().remove(&Some(session.to_owned()));
        }
    }
}

#[async_trait]
impl ToolExecutor for Upstreams {
    async fn run(&self, run: ToolRun) -> Execution {
        call::run(self, run).await
    }
}

/// Each tool's name and the digest of its definition.
fn digests(tools: &[Value]) -> BTreeMap<String, Digest> {
    let named = tools.iter().filter_map(|tool| {
        let name = tool.get("name")?.as_str()?;
        Some((name.to_owned(), definition_digest(tool)))
    });
    named.collect()
}
