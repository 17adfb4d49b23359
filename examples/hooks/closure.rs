//! A hook that is a Rust closure, around a kernel whose world is all in memory: every run may
//! make two calls. Run it with `cargo run -p countersign-testkit --example closure`.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::hook::{
    HookInput, HookMutationRight, HookMutationRights, HookPoint, HookReason, HookResponse,
    HookSource, HookSpec,
};
use countersign_core::id::{AgentId, HookExecutorRef, HookId, RefId};
use countersign_core::journal::JournalRecord;
use countersign_core::plan::Plan;
use countersign_core::refs::{PolicyKind, PolicyRef};
use countersign_core::story::tell;
use countersign_kernel::{Hook, Kernel, Parts, Policy};
use countersign_manifest::{Envelope, ManifestSet};
use countersign_ports::executor::{ExecutionStatus, ToolRun};
use countersign_ports::hook::HookFn;
use countersign_ports::journal::Journal as _;
use countersign_ports::memory::{FnExecutor, ManualClock, MemoryJournal, SeededEntropy};
use serde_json::{Map, json};

/// Calls that one run may make.
const BUDGET: u32 = 2;

const TOOL: &str = r#"
[tool]
name = "say"
version = "1.0.0"
description = "Says a word."
binary = "echo"
[args.word]
type = "string"
required = true
[command]
exec = ["echo", "{word}"]
[output]
format = "text"
[output.schema]
type = "object"
"#;

/// The hook: the closure, and what it is registered as.
fn budget() -> Result<Hook, Box<dyn Error>> {
    let spent = Mutex::new(HashMap::new());
    let answer = move |input: HookInput| {
        // Invocations of different runs overlap, so the count is behind a lock.
        let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = spent.entry(input.run_id).or_insert(0);
        *calls += 1;
        let response = match *calls <= BUDGET {
            true => HookResponse::ObserveOnly,
            false => HookResponse::Deny(HookReason {
                code: "budget.spent".to_owned(),
                redacted_summary: format!("a run has {BUDGET} calls"),
            }),
        };
        async { Ok(response) }
    };
    let policy =
        PolicyRef { kind: PolicyKind::Host, id: RefId::new("policy.budget")?, version: None };
    // Waited for, at most 250 ms. If it fails, its run takes no further call.
    let spec = HookSpec::blocking(
        HookId::new("budget")?,
        HookPoint::BeforeToolCall,
        HookSource::InProcess,
        HookExecutorRef::new("closure.budget")?,
        policy,
        HookMutationRights::with([HookMutationRight::Deny]),
    );
    Ok(Hook { spec, executor: Arc::new(HookFn::new(answer)) })
}

/// What runs plans. This one runs nothing: it gives back the last word of the command.
fn echo(run: &ToolRun) -> (ExecutionStatus, Vec<u8>) {
    let word = match &run.plan {
        Plan::Command(plan) => plan.argv.last().map_or("", String::as_str),
        _ => "",
    };
    (ExecutionStatus::Exited(0), format!("{word}\n").into_bytes())
}

/// Makes calls of one run with these words. What became of each, and all that was recorded.
async fn governed(words: &[&str]) -> Result<(Vec<Envelope>, Vec<JournalRecord>), Box<dyn Error>> {
    let journal = Arc::new(MemoryJournal::default());
    let (manifests, problems) = ManifestSet::load([("say.clad.toml".to_owned(), TOOL.to_owned())]);
    if let Some(problem) = problems.first() {
        return Err(problem.to_string().into());
    }
    let (kernel, _) = Kernel::start(Parts {
        journal: journal.clone(),
        clock: Arc::new(ManualClock::at(1_700_000_000_000)),
        entropy: Arc::new(SeededEntropy::new(1)),
        executor: Arc::new(FnExecutor(echo)),
        manifests,
        policy: Policy::default(),
        limits: countersign_escalation::Limits::default(),
        hooks: vec![budget()?],
        notifiers: Vec::new(),
        version: "closure example".to_owned(),
    })
    .await?;
    let run = kernel.run_start(AgentId::new("agent")?, None, "an example").await?;
    let mut envelopes = Vec::new();
    for word in words {
        let arguments = Map::from_iter([("word".to_owned(), json!(word))]);
        envelopes.push(kernel.govern(&run, "say", &arguments).await.envelope);
    }
    kernel.run_end(&run, "the example is over").await?;
    // What a hook did without changing anything is written behind.
    kernel.hooks().flush().await;
    let mut records = Vec::new();
    for entry in journal.read(1, usize::MAX).await? {
        records.push(serde_json::from_slice(&entry.bytes)?);
    }
    Ok((envelopes, records))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (envelopes, records) = governed(&["one", "two", "three"]).await?;
    for envelope in envelopes {
        println!("{}", envelope.results);
    }
    println!();
    for record in &records {
        let told = tell(record);
        println!("{:>3}  {}  {}", record.journal_seq, told.title, told.detail);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_third_call_is_denied_and_all_of_it_is_recorded() {
        let (envelopes, records) = governed(&["one", "two", "three"]).await.unwrap();
        let results: Vec<_> = envelopes.into_iter().map(|envelope| envelope.results).collect();
        assert_eq!(
            results,
            [
                json!({ "text": "one\n" }),
                json!({ "text": "two\n" }),
                json!({ "denied": {
                    "code": "hook.denied",
                    "message": "denied by hook `budget`: budget.spent: a run has 2 calls",
                    "reason": "budget.spent: a run has 2 calls",
                } }),
            ]
        );
        let count = |kind: &str| {
            records.iter().filter(|record| record.event_index.event_kind == kind).count()
        };
        for (kind, times) in [
            ("hook_registered", 1),
            // It stays in the process, so it is not announced.
            ("hook_invocation_started", 0),
            ("hook_completed", 3),
            ("hook_response_decision", 1),
            ("tool_intent_recorded", 2),
            ("tool_result_recorded", 2),
            ("tool_denied", 1),
        ] {
            assert_eq!(count(kind), times, "{kind}");
        }
    }
}
