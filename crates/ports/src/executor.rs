//! Running a plan.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::plan::{Plan, RunLimits};

use crate::mcp::McpCaller;

/// Runs plans. The kernel calls it only after the intent of the effect is durable.
#[async_trait]
pub trait ToolExecutor: Send + Sync {
    /// Runs the plan to its end and reports what happened.
    ///
    /// Never outlives `limits.timeout` by more than the time it takes to kill what was started.
    /// Dropping the future kills it too. There is no error beside the outcome: a program
    /// that could not start is [`ExecutionStatus::NotStarted`].
    async fn run(&self, run: ToolRun) -> Execution;
}

/// One plan to run.
#[derive(Clone, Debug)]
pub struct ToolRun {
    /// What to do.
    pub plan: Plan,
    /// What to enforce meanwhile.
    pub limits: RunLimits,
    /// The MCP client that the call comes from, if it comes from one: an upstream server may
    /// have something to ask or tell it.
    pub caller: Option<Arc<dyn McpCaller>>,
}

impl ToolRun {
    /// A run that no MCP client waits for.
    #[must_use]
    pub fn new(plan: Plan, limits: RunLimits) -> Self {
        Self { plan, limits, caller: None }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// The program ended by itself with this exit code.
    Exited(i32),
    /// The program was ended by this signal, not by the executor.
    Signalled(i32),
    /// Nothing of this machine ran: another one answered, such as a web or an MCP server.
    Answered {
        /// Whether the answer is a success, as the plan or the protocol defines it.
        ok: bool,
        /// The answer's own word for how it went, such as `HTTP 404`; for a person, in one line.
        note: String,
    },
    /// The deadline came first; everything the call started was killed.
    TimedOut,
    /// Nothing ran. The text says why, for a person.
    NotStarted(String),
    /// It started, or a request may have arrived, and how it ended cannot be known. The text says why.
    Unknown(String),
}

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// How it ended.
    pub status: ExecutionStatus,
    /// The first `output_max_bytes` bytes of standard output, or of an answer, as they came.
    pub stdout: Vec<u8>,
    /// SHA-256 over all of standard output, also what was not kept.
    pub stdout_sha256: [u8; 32],
    /// Bytes of standard output, also those not kept.
    pub stdout_len: u64,
    /// The first 64 KiB of standard error.
    pub stderr: Vec<u8>,
    /// Wall time from start to end.
    pub duration: Duration,
}

impl Execution {
    /// Whether output was dropped because it exceeded the limit.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.stdout_len > self.stdout.len() as u64
    }
}
