//! What the guarantees of the process executor cost: `/bin/true`, supervised and bare, turn by
//! turn.

use std::process::Command;
use std::time::{Duration, Instant};

use countersign_core::plan::{CommandPlan, Plan, RunLimits};
use countersign_exec::{ProcessConfig, ProcessExecutor, SupervisorCommand};
use countersign_ports::executor::{ExecutionStatus, ToolExecutor as _, ToolRun};

use crate::figures;

pub(crate) fn run(runs: usize) {
    let executor = ProcessExecutor::new(ProcessConfig {
        root: std::env::temp_dir(),
        env: Vec::new(),
        path: Vec::new(),
        supervisor: SupervisorCommand::this_binary(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut supervised, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let plan =
            Plan::Command(CommandPlan { argv: vec!["/bin/true".into()], ..CommandPlan::default() });
        let begin = Instant::now();
        let run = executor.run(ToolRun::new(plan, RunLimits::default()));
        let ended = runtime.block_on(run);
        supervised.push(begin.elapsed());
        assert_eq!(ended.status, ExecutionStatus::Exited(0));
        let begin = Instant::now();
        Command::new("/bin/true").output().unwrap();
        bare.push(begin.elapsed());
    }
    for (name, times) in [("supervised", supervised), ("bare", bare)] {
        let elapsed: Duration = times.iter().sum();
        let figures = figures(times, elapsed);
        println!("{name:12} p50 {:6.0} µs   p99 {:6.0} µs", figures.p50_us, figures.p99_us);
    }
}
