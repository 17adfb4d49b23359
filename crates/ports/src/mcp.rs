//! What passes between an agent's MCP client and the upstream MCP servers.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

/// What of MCP may pass, beside the calls of tools: those are governed and always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum McpFeature {
    /// `prompts/…`
    Prompts,
    /// `resources/…`, with templates and subscriptions.
    Resources,
    /// `completion/complete`
    Completions,
    /// `logging/setLevel`, and the messages.
    Logging,
    /// `sampling/createMessage`, which the upstream asks of the agent's client.
    Sampling,
    /// `elicitation/create`, which the upstream asks of the agent's client.
    Elicitation,
}

/// An upstream server of which something may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpPass {
    /// Its name in the configuration.
    pub upstream: String,
    /// What stands before its own names of tools and prompts.
    pub prefix: String,
    /// What may pass.
    pub features: Vec<McpFeature>,
}

/// An error of JSON-RPC, or the lack of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct McpError {
    /// As the other side gave it; -32603 when there was no answer.
    pub code: i32,
    /// For a person.
    pub message: String,
    /// As the other side gave it.
    pub data: Option<Value>,
}

impl McpError {
    /// There is no answer, for this reason.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { code: -32603, message: message.into(), data: None }
    }

    /// The other side does not do that.
    #[must_use]
    pub fn no_method(method: &str) -> Self {
        Self { code: -32601, message: format!("there is no method {method}"), data: None }
    }
}

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for McpError {}

/// The client that a call or another request comes from, as an upstream server may reach it.
#[async_trait]
pub trait McpCaller: fmt::Debug + Send + Sync {
    /// The client's session: the same text for all its requests, and for no other session's.
    fn session(&self) -> &str;

    /// What the client says it can do, as in the handshake. Nobody is asked for more.
    fn capabilities(&self) -> Value;

    /// Asks the client, and waits for its answer.
    ///
    /// # Errors
    /// What the client answered, or that it cannot be reached.
    async fn request(&self, upstream: &str, method: &str, params: Value)
    -> Result<Value, McpError>;

    /// Tells the client. It may be gone.
    async fn notify(&self, upstream: &str, method: &str, params: Value);
}

/// The upstream servers, as the agents' side sees them.
#[async_trait]
pub trait McpUpstreams: Send + Sync {
    /// Those of which something may pass.
    fn passes(&self) -> Vec<McpPass>;

    /// Sends a request once, and waits for the answer. Whoever calls has made sure that the
    /// method may pass.
    ///
    /// # Errors
    /// What the upstream answered, or that it cannot be reached.
    async fn request(
        &self,
        caller: &std::sync::Arc<dyn McpCaller>,
        upstream: &str,
        method: &str,
        params: Value,
    ) -> Result<Value, McpError>;

    /// Ends what was kept for a session that has ended.
    fn left(&self, session: &str);
}
