//! A hook that is a program.

use async_trait::async_trait;
use countersign_core::hook::{HookInput, HookResponse};
use countersign_core::plan::{CommandPlan, Plan, RunLimits};
use countersign_ports::executor::{ExecutionStatus, ToolRun};
use countersign_ports::hook::{HookError, HookExecutor};

use super::{answer, question};
use crate::quote::quote;
use crate::webhook::ANSWER_MAX;
use crate::{ProcessConfig, ProcessExecutor};

/// A hook that is started anew for each invocation, as a tool is: see [`ProcessExecutor`].
///
/// It finds the input, compact and with a newline, on standard input, and then its end; reading
/// it is its own affair. It succeeds with exit code 0 and one JSON document, or nothing, on
/// standard output. Nothing that it started outlives the invocation.
///
/// Input and answer have at most 1 MiB. The first line of standard error is part of the error
/// when the program fails: it must not print secrets there.
#[derive(Clone, Debug)]
pub struct ProcessHook {
    executor: ProcessExecutor,
    argv: Vec<String>,
    limits: RunLimits,
}

impl ProcessHook {
    /// `argv` begins with the program, which is looked up as a tool's is; it works in the root
    /// of `config`. `limits.timeout` is a second deadline beneath the caller's.
    ///
    /// Checks nothing: what is missing shows when the hook is invoked.
    #[must_use]
    pub fn new(config: ProcessConfig, argv: Vec<String>, limits: RunLimits) -> Self {
        let output_max_bytes = limits.output_max_bytes.min(ANSWER_MAX as u64);
        let limits = RunLimits { output_max_bytes, ..limits };
        Self { executor: ProcessExecutor::new(config), argv, limits }
    }

    async fn ask(&self, mut input: Vec<u8>) -> Result<Vec<u8>, String> {
        input.push(b'\n');
        let plan = Plan::Command(CommandPlan { argv: self.argv.clone(), ..CommandPlan::default() });
        let run = ToolRun::new(plan, self.limits.clone());
        let run = self.executor.run_with_input(run, Some(input)).await;
        let failed = match &run.status {
            ExecutionStatus::Exited(0) if run.truncated() => {
                let max = self.limits.output_max_bytes;
                return Err(format!("the answer exceeds {max} bytes"));
            }
            ExecutionStatus::Exited(0) => return Ok(run.stdout),
            ExecutionStatus::Answered { note, .. } => note.clone(),
            ExecutionStatus::Exited(code) => format!("the hook exited with code {code}"),
            ExecutionStatus::Signalled(signal) => format!("the hook ended by signal {signal}"),
            ExecutionStatus::TimedOut => {
                format!("the hook did not end within {} ms", self.limits.timeout.as_millis())
            }
            ExecutionStatus::NotStarted(reason) => {
                format!("the hook did not start: {}", quote(reason))
            }
            ExecutionStatus::Unknown(reason) => {
                format!("nobody knows how the hook ended: {}", quote(reason))
            }
        };
        match quote(&String::from_utf8_lossy(&run.stderr)) {
            said if said.is_empty() => Err(failed),
            said => Err(format!("{failed}: {said}")),
        }
    }
}

#[async_trait]
impl HookExecutor for ProcessHook {
    async fn invoke(&self, input: HookInput) -> Result<HookResponse, HookError> {
        answer(&self.ask(question(&input)?).await.map_err(HookError)?)
    }
}
