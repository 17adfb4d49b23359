//! The executor that hands each plan to the one for its kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::plan::PlanKind;
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use sha2::{Digest, Sha256};

use crate::executor::STDERR_MAX;
use crate::redact::Redactor;

/// One executor for each kind of plan. A plan of a kind without one is
/// [`NotStarted`](ExecutionStatus::NotStarted), by the name of what is missing.
///
/// Whatever they give back passes one [`Redactor`] before anybody sees it. Where that finds
/// something, length and hash are those of what is left: the hash is always that of what can be
/// kept, and says nothing about a secret.
#[derive(Clone, Default)]
pub struct Dispatch {
    executors: BTreeMap<PlanKind, Arc<dyn ToolExecutor>>,
    redactor: Redactor,
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

    /// With this in front of all that executors give back.
    #[must_use]
    pub fn redacting(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
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
            Some(executor) => redacted(&self.redactor, executor.run(run).await),
            None => {
                not_started(format!("nothing here is configured to run {} plans", kind.as_str()))
            }
        }
    }
}

fn redacted(redactor: &Redactor, execution: Execution) -> Execution {
    let Execution { status, stdout, stdout_sha256, stdout_len, stderr, duration } = execution;
    let dropped = stdout_len.saturating_sub(stdout.len() as u64);
    let clean = match dropped {
        0 => redactor.bytes(&stdout),
        _ => redactor.cut_bytes(&stdout),
    };
    let (stdout, stdout_sha256, stdout_len) = match clean.as_ref() == stdout {
        true => (stdout, stdout_sha256, stdout_len),
        false => {
            let clean = clean.into_owned();
            let (hash, length) = (Sha256::digest(&clean).into(), clean.len() as u64 + dropped);
            (clean, hash, length)
        }
    };
    let stderr = match stderr.len() as u64 {
        ..STDERR_MAX => redactor.bytes(&stderr),
        // It may have been cut.
        _ => redactor.cut_bytes(&stderr),
    }
    .into_owned();
    let status = match status {
        ExecutionStatus::Answered { ok, note } => {
            ExecutionStatus::Answered { ok, note: redactor.text(note) }
        }
        ExecutionStatus::NotStarted(why) => ExecutionStatus::NotStarted(redactor.text(why)),
        ExecutionStatus::Unknown(why) => ExecutionStatus::Unknown(redactor.text(why)),
        other @ (ExecutionStatus::Exited(_)
        | ExecutionStatus::Signalled(_)
        | ExecutionStatus::TimedOut) => other,
    };
    Execution { status, stdout, stdout_sha256, stdout_len, stderr, duration }
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
                let done = dispatch.run(ToolRun::new(plan, RunLimits::default())).await;
                if kind == missing {
                    let ExecutionStatus::NotStarted(why) = done.status else { panic!("{kind:?}") };
                    assert!(why.contains(&format!("run {} plans", kind.as_str())), "{why}");
                } else {
                    assert_eq!(done.stdout, kind.as_str().as_bytes());
                }
            }
        }
    }

    #[tokio::test]
    async fn nothing_an_executor_gives_back_has_a_secret_and_the_hash_is_that_of_what_is_left() {
        let secrets = [("key".to_owned(), "hunter2hunter2".to_owned().into())].into();
        let redactor = crate::Secrets::new(secrets).unwrap().redactor().clone();
        let shown = "{_secret:key}";
        for (status, clean) in [
            (
                ExecutionStatus::Answered { ok: true, note: "hunter2hunter2!".to_owned() },
                ExecutionStatus::Answered { ok: true, note: format!("{shown}!") },
            ),
            (
                ExecutionStatus::NotStarted("a hunter2hunter2".to_owned()),
                ExecutionStatus::NotStarted(format!("a {shown}")),
            ),
            (
                ExecutionStatus::Unknown("HUNTER2HUNTER2".to_owned()),
                ExecutionStatus::Unknown(shown.to_owned()),
            ),
            (ExecutionStatus::Exited(3), ExecutionStatus::Exited(3)),
        ] {
            for (dropped, stdout, left) in [
                (0, "x=hunter2hunter2;", "x={_secret:key};"),
                (7, "x=hunter2hun", "x="),
                (0, "x=hunter2hun", "x=hunter2hun"),
            ] {
                let raw = Execution {
                    status: status.clone(),
                    stdout: stdout.into(),
                    stdout_sha256: Sha256::digest(stdout).into(),
                    stdout_len: stdout.len() as u64 + dropped,
                    stderr: b"hunter2hunter2 hunter".to_vec(),
                    duration: Duration::ZERO,
                };
                let executor = Fixed(raw);
                let dispatch = Dispatch::default()
                    .with(PlanKind::Command, Arc::new(executor))
                    .redacting(redactor.clone());
                let [plan, ..] = plans();
                let done = dispatch.run(ToolRun::new(plan, RunLimits::default())).await;
                assert_eq!(done.status, clean);
                assert_eq!(String::from_utf8(done.stdout).unwrap(), left);
                assert_eq!(done.stdout_sha256, <[u8; 32]>::from(Sha256::digest(left)));
                assert_eq!(done.stdout_len, left.len() as u64 + dropped);
                assert_eq!(done.stderr, format!("{shown} hunter").into_bytes());
            }
        }
    }

    struct Fixed(Execution);

    #[async_trait]
    impl ToolExecutor for Fixed {
        async fn run(&self, _: ToolRun) -> Execution {
            self.0.clone()
        }
    }
}
