//! What runs a plan, and what comes back from it, by the plan's kind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::{args, journal, new_run};
use countersign_core::effect::{EffectClass, EffectTerminalStatus};
use countersign_core::journal::JournalPayload;
use countersign_core::plan::PlanKind;
use countersign_core::tool::ToolCallRecord;
use countersign_escalation::Limits;
use countersign_kernel::{Governed, Kernel, Parts, Policy};
use countersign_manifest::{EnvelopeStatus, ManifestSet};
use countersign_ports::executor::{ExecutionStatus, ToolRun};
use countersign_ports::memory::{FnExecutor, ManualClock, SeededEntropy};
use serde_json::json;

const BACKENDS: [(PlanKind, &str, EffectClass, &str); 5] = [
    (PlanKind::Command, "executor.process", EffectClass::Process, "[command]\nexec = [\"true\"]\n"),
    (PlanKind::Executor, "executor.process", EffectClass::Process, "[command]\nexecutor = \"x\"\n"),
    (
        PlanKind::Http,
        "executor.http",
        EffectClass::Network,
        "[http]\nmethod = \"GET\"\nurl = \"https://api.example.org/\"\n",
    ),
    (
        PlanKind::Mcp,
        "executor.mcp",
        EffectClass::Network,
        "[mcp]\nserver = \"files\"\ntool = \"read\"\n",
    ),
    (PlanKind::Callback, "executor.callback", EffectClass::Process, ""),
];

/// One call of such a tool, whose executor says this; and the call's records.
async fn call(
    kind: PlanKind,
    backend: &str,
    says: ExecutionStatus,
) -> (Governed, Vec<ToolCallRecord>) {
    let more = match kind {
        PlanKind::Command => "binary = \"true\"\n",
        PlanKind::Executor => "binary = \"x\"\n",
        PlanKind::Callback => "dispatch = \"callback\"\n",
        PlanKind::Http | PlanKind::Mcp => "",
    };
    let text = format!(
        "[tool]\nname = \"t\"\nversion = \"1.0.0\"\ndescription = \"D.\"\n{more}\n{backend}\n\
         [output]\nformat = \"json\"\n"
    );
    let (manifests, problems) = ManifestSet::load(vec![("t.clad.toml".to_owned(), text)]);
    assert_eq!(manifests.iter().len(), 1, "{problems:?}");
    let executor = FnExecutor(move |run: &ToolRun| {
        assert_eq!(run.plan.kind(), kind);
        (says.clone(), b"{\"n\":1}".to_vec())
    });
    let journal = journal();
    let (kernel, _) = Kernel::start(Parts {
        journal: journal.clone(),
        clock: Arc::new(ManualClock::at(1_000_000)),
        entropy: Arc::new(SeededEntropy::new(1)),
        executor: Arc::new(executor),
        manifests,
        policy: Policy::default(),
        limits: Limits::default(),
        hooks: Vec::new(),
        notifiers: Vec::new(),
        version: "test".into(),
    })
    .await
    .unwrap();
    let run = new_run(&kernel, "agent.a", None).await;
    let governed = kernel.govern(&run, "t", &args(json!({}))).await;
    let records = journal.records().await.into_iter().filter_map(|record| match record.payload {
        JournalPayload::Tool(tool) => Some(*tool),
        _ => None,
    });
    (governed, records.collect())
}

fn answered(ok: bool) -> ExecutionStatus {
    ExecutionStatus::Answered { ok, note: "HTTP 404".to_owned() }
}

#[tokio::test]
async fn records_name_what_runs_the_plan_and_what_it_touches() {
    for (kind, executor, class, backend) in BACKENDS {
        let (governed, records) = call(kind, backend, answered(true)).await;
        assert_eq!(governed.envelope.status, EnvelopeStatus::Success, "{kind:?}");
        assert_eq!(records.len(), 2);
        for record in records {
            assert_eq!(record.executor_ref.unwrap().as_str(), executor);
            assert_eq!(record.effect_class, class, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_has_no_exit_code_and_its_failure_is_no_success() {
    let (kind, _, _, backend) = BACKENDS[2];
    for (ok, status, terminal, results) in [
        (true, EnvelopeStatus::Success, EffectTerminalStatus::Completed, json!({"n": 1})),
        (
            false,
            EnvelopeStatus::Error,
            EffectTerminalStatus::Failed,
            json!({"n": 1, "error": "HTTP 404"}),
        ),
    ] {
        let (Governed { envelope, .. }, records) = call(kind, backend, answered(ok)).await;
        assert_eq!((envelope.status, envelope.exit_code), (status, None));
        assert_eq!(envelope.results, results);
        let end = records[1].effect_result.clone().unwrap();
        assert_eq!(end.terminal_status, terminal);
        assert!(end.redacted_summary.starts_with("answered: HTTP 404; 7 bytes"), "{end:?}");
    }
}
