//! The executor that hands each plan to the one for its kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::plan::PlanKind;
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use sha2::{Digest, Sha256};

/// One executor for each kind of plan. A plan of a kind without one is
/// [`NotStarted`](ExecutionStatus::NotStarted), by the name of what is missing.
#[derive(Clone, Default)]
pub struct Dispatch {
    executors: BTreeMap<PlanKind, Arc<dyn ToolExecutor>>,
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatch").field(&self.executors.keys()).finish()
    }
}

impl Dispatch {
    /// With this executor for plans of this kind, in place of one that was there.
    #[must_use]
    pub fn with(mut self, kind: PlanKind, executor: Arc<dyn ToolExecutor>) -> Self {
        self.executors.insert(kind, executor);
        self
    }

    /// Whether there is an executor for plans of this kind.
    #[must_use]
    pub fn runs(&self, kind: PlanKind) -> bool {
        self.executors.contains_key(&kind)
    }
}

#[async_trait]
impl ToolExecutor for Dispatch {
    async fn run(&self, run: ToolRun) -> Execution {
        let kind = run.plan.kind();
        match self.executors.get(&kind) {
            Some(executor) => executor.run(run).await,
            None => {
                not_started(format!("nothing here is configured to run {} plans", kind.as_str()))
            }
        }
    }
}

/// Nothing happened.
pub(crate) fn not_started(reason: String) -> Execution {
    Execution {
        status: ExecutionStatus::NotStarted(reason),
        stdout: Vec::new(),
        stdout_sha256: Sha256::digest([]).into(),
        stdout_len: 0,
        stderr: Vec::new(),
        duration: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::plan::{Plan, RunLimits};
    use countersign_ports::memory::FnExecutor;
    use serde_json::json;

    use super::*;

    fn plans() -> [Plan; 5] {
        [
            json!({"argv": ["true"]}),
            json!({"executor": "bin/x", "env": {}}),
            json!({"method": "GET", "url": "https://a.example/"}),
            json!({"server": "s", "tool": "t", "arguments": {}}),
            json!({"callback": "c", "arguments": {}}),
        ]
        .map(|plan| serde_json::from_value(plan).unwrap())
    }

    #[tokio::test]
    async fn each_kind_goes_to_its_own_executor_and_the_missing_one_is_named() {
        let all = plans().map(|plan| plan.kind());
        for missing in all {
            let mut dispatch = Dispatch::default();
            for kind in all.into_iter().filter(|kind| *kind != missing) {
                let says = move |_: &ToolRun| {
                    (ExecutionStatus::Exited(0), kind.as_str().as_bytes().to_vec())
                };
                dispatch = dispatch.with(kind, Arc::new(FnExecutor(says)));
            }
            for plan in plans() {
                let kind = plan.kind();
                assert_eq!(dispatch.runs(kind), kind != missing);
                let done = dispatch.run(ToolRun { plan, limits: RunLimits::default() }).await;
                if kind == missing {
                    let ExecutionStatus::NotStarted(why) = done.status else { panic!("{kind:?}") };
                    assert!(why.contains(&format!("run {} plans", kind.as_str())), "{why}");
                } else {
                    assert_eq!(done.stdout, kind.as_str().as_bytes());
                }
            }
        }
    }
}
