//! One call of an upstream tool.

use std::sync::Arc;
use std::time::Instant;

use countersign_core::plan::{McpPlan, Plan, RunLimits};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolRun};
use countersign_ports::mcp::McpCaller;
use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest, ErrorData};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::connection::{Connection, Lost, error_value, value};
use super::{Upstream, Upstreams};

/// How long a call that nobody waits for any more may take to tell the upstream so.
const OFF_REASON: &str = "the call was called off";

struct McpCall {
    upstream: Arc<Upstream>,
    plan: McpPlan,
    limits: RunLimits,
    caller: Option<Arc<dyn McpCaller>>,
    started: Instant,
}

/// Makes the call at most once. Dropping the future tells the upstream that it is called off.
pub(super) async fn run(upstreams: &Upstreams, run: ToolRun) -> Execution {
    let started = Instant::now();
    let Plan::Mcp(plan) = run.plan else {
        let reason = "this executor calls upstream MCP servers only".to_owned();
        return execution(ExecutionStatus::NotStarted(reason), &[], 0, started);
    };
    let upstream = match upstreams.find(&plan.server) {
        Ok(upstream) => Arc::clone(upstream),
        Err(why) => return execution(ExecutionStatus::NotStarted(why), &[], 0, started),
    };
    let call = McpCall { upstream, plan, limits: run.limits, caller: run.caller, started };
    // Dropped with this future; the task sees it and tells the upstream.
    let (_alive, gone) = oneshot::channel();
    tokio::spawn(call.make(gone)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a call failed");
        let reason = format!("the task of the call failed: {error}");
        execution(ExecutionStatus::Unknown(reason), &[], 0, started)
    })
}

impl McpCall {
    async fn make(self, mut gone: oneshot::Receiver<()>) -> Execution {
        let deadline = sleep(self.limits.timeout);
        tokio::pin!(deadline);
        let ready = tokio::select! {
            biased;
            ready = self.ready() => ready,
            // Nothing is sent yet.
            () = &mut deadline => return self.end(ExecutionStatus::TimedOut, &Value::Null),
            _ = &mut gone => Err(OFF_REASON.to_owned()),
        };
        let connection = match ready {
            Ok(connection) => connection,
            Err(why) => return self.end(ExecutionStatus::NotStarted(why), &Value::Null),
        };
        let params = CallToolRequestParams::new(self.plan.tool.clone())
            .with_arguments(self.plan.arguments.clone());
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let mut handle = match connection.send(request, self.caller.as_ref()).await {
            Ok(handle) => handle,
            Err(lost) => return self.lost(lost),
        };
        let id = handle.id.clone();
        let answer = tokio::select! {
            biased;
            answer = &mut handle.rx => Ok(answer),
            () = &mut deadline => Err(ExecutionStatus::TimedOut),
            _ = &mut gone => Err(ExecutionStatus::Unknown(OFF_REASON.to_owned())),
        };
        connection.forget(&id).await;
        match answer {
            Ok(Ok(Ok(result))) => match value(&result) {
                Ok(result) => self.answered(&result),
                Err(why) => self.end(ExecutionStatus::Unknown(why), &Value::Null),
            },
            Ok(Ok(Err(error))) => match connection.lost(error) {
                Ok(error) => self.refused(&error),
                Err(lost) => self.lost(lost),
            },
            Ok(Err(_)) => {
                self.lost(Lost::Unknown("the connection ended before the answer".to_owned()))
            }
            Err(status) => {
                let reason = match &status {
                    ExecutionStatus::TimedOut => "its deadline has come",
                    _ => OFF_REASON,
                };
                handle.cancel(Some(reason.to_owned())).await.ok();
                self.end(status, &Value::Null)
            }
        }
    }

    /// A connection that has the tool as it was accepted.
    async fn ready(&self) -> Result<Arc<Connection>, String> {
        let McpPlan { server, tool, .. } = &self.plan;
        let connection = self.upstream.connection(self.caller.as_ref()).await?;
        let Some(found) = connection.definition(tool) else {
            return Err(format!("upstream `{server}` has no tool `{tool}` now"));
        };
        match self.upstream.accepted(tool) {
            Some(accepted) if accepted == found => Ok(connection),
            Some(_) => Err(format!(
                "upstream `{server}` describes its tool `{tool}` otherwise than was accepted; a \
                 person has to look at it first"
            )),
            None => Err(format!(
                "nobody has accepted what upstream `{server}` says its tool `{tool}` is"
            )),
        }
    }

    fn answered(&self, result: &Value) -> Execution {
        let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
        let note = if failed { "answered with an error" } else { "answered" };
        self.end(ExecutionStatus::Answered { ok: !failed, note: note.to_owned() }, result)
    }

    fn refused(&self, error: &ErrorData) -> Execution {
        let note = format!("refused by the upstream with {}", error.code.0);
        self.end(ExecutionStatus::Answered { ok: false, note }, &error_value(error))
    }

    fn lost(&self, lost: Lost) -> Execution {
        let server = &self.plan.server;
        let status = match lost {
            Lost::NotSent(why) => {
                ExecutionStatus::NotStarted(format!("upstream `{server}` was not reached: {why}"))
            }
            Lost::Unknown(why) => ExecutionStatus::Unknown(format!(
                "upstream `{server}` may or may not have made the call: {why}"
            )),
        };
        self.end(status, &Value::Null)
    }

    fn end(&self, status: ExecutionStatus, output: &Value) -> Execution {
        let bytes = match output {
            Value::Null => Vec::new(),
            output => output.to_string().into_bytes(),
        };
        execution(status, &bytes, self.limits.output_max_bytes, self.started)
    }
}

fn execution(status: ExecutionStatus, bytes: &[u8], max: u64, started: Instant) -> Execution {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    Execution {
        status,
        stdout: bytes.get(..max).unwrap_or(bytes).to_vec(),
        stdout_sha256: Sha256::digest(bytes).into(),
        stdout_len: bytes.len() as u64,
        stderr: Vec::new(),
        duration: started.elapsed(),
    }
}
