//! The gateway's side of a run: starts the supervisor, reads, and stops it in time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use countersign_core::plan::{CommandPlan, ExecutorPlan, Plan, RunLimits};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::dispatch::not_started;
use crate::supervise::{self, Ending};
use crate::{check, confine, tree};

/// How long a supervisor may take to kill everything before that is done without it.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// How long the pipes may stay open once nothing of ours holds them.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// Bytes of standard error kept.
pub(crate) const STDERR_MAX: u64 = 64 << 10;

/// What every process of one executor gets.
#[derive(Clone)]
pub struct ProcessConfig {
    /// Working directory, and the directory that `path` arguments may not leave. Absolute.
    pub root: PathBuf,
    /// The whole environment. Values are taken when this is made: a later change of the
    /// gateway's own environment reaches no tool. `PATH` here is only for the tool; see `path`.
    pub env: Vec<(String, String)>,
    /// Where a program without a slash in its name is looked up. Relative entries are skipped.
    pub path: Vec<PathBuf>,
    /// What to start as the supervisor.
    pub supervisor: SupervisorCommand,
}

impl fmt::Debug for ProcessConfig {
    /// Leaves out the values of the environment: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessConfig")
            .field("root", &self.root)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("path", &self.path)
            .field("supervisor", &self.supervisor)
            .finish()
    }
}

/// A program that ends in [`supervise::main`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorCommand {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments that lead there, before those of the executor.
    pub args: Vec<String>,
}

impl SupervisorCommand {
    /// `program`, with [`supervise::ARG`] as its first argument.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: vec![supervise::ARG.to_owned()] }
    }

    /// The running binary, also after its file was replaced: both ends of the socket are of one
    /// build. Its `main` must call [`supervise::main`].
    #[must_use]
    pub fn this_binary() -> Self {
        Self::new("/proc/self/exe")
    }
}

/// Runs commands, and the programs of `executor` manifests, as supervised processes of this
/// machine.
///
/// - When [`run`](ToolExecutor::run) returns, nothing that it started is left, within what the
///   [crate](crate) promises.
/// - After the deadline everything is dead within 250 ms, usually within a few, unless the
///   kernel itself is stuck; also when the supervisor is stopped or busy. What was read until
///   then is in the result.
/// - A dropped future kills in the background as long as the runtime lives, and by the closed
///   socket when it does not. So does the death of the gateway.
/// - Memory per run stays below twice the kept output plus 256 KiB, and the input of a hook.
/// - `RunLimits::nproc` counts all processes and threads of the user. A tool starts even when that
///   many run; its first fork fails. The kernel binds neither root nor who may raise limits: there
///   the tool's own processes and threads are counted every 20 ms, and when they are more, it is
///   ended as by SIGKILL, which its standard error says.
/// - `CommandPlan::paths` are checked before the start, and opened again by the tool. Whoever
///   can write beneath the root meanwhile can put a symlink in between.
/// - `RunLimits::filesystem` confines whatever is started, or nothing is.
///
/// Needs a Tokio runtime with I/O and time.
#[derive(Clone, Debug)]
pub struct ProcessExecutor {
    config: Arc<ProcessConfig>,
}

impl ProcessExecutor {
    /// Checks nothing: what is missing shows as [`ExecutionStatus::NotStarted`].
    #[must_use]
    pub fn new(config: ProcessConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// [`run`](ToolExecutor::run) of a program that has these bytes, and then the end, on its
    /// standard input: none means `/dev/null`. Whether it reads them changes nothing. More than
    /// [`supervise::INPUT_MAX`] is [`ExecutionStatus::NotStarted`].
    pub(crate) async fn run_with_input(&self, run: ToolRun, input: Option<Vec<u8>>) -> Execution {
        let started = Instant::now();
        // Dropped with this future; the task sees it and cleans up.
        let (_alive, cancelled) = oneshot::channel();
        let (plan, env) = match run.plan {
            Plan::Command(plan) => (plan, BTreeMap::new()),
            // Started like a command without arguments.
            Plan::Executor(ExecutorPlan { executor, env, paths, credentials }) => {
                (CommandPlan { argv: vec![executor], paths, credentials }, env)
            }
            Plan::Http(_) | Plan::Mcp(_) | Plan::Callback(_) => {
                return not_started("this executor starts processes only".to_owned());
            }
        };
        let config = Arc::clone(&self.config);
        let task = Run { config, plan, env, limits: run.limits, input, started };
        tokio::spawn(task.run(cancelled)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task of a run failed");
            let reason = format!("the task of the run failed: {error}");
            Captured::new(0).execution(ExecutionStatus::Unknown(reason), Vec::new(), started)
        })
    }
}

#[async_trait]
impl ToolExecutor for ProcessExecutor {
    async fn run(&self, run: ToolRun) -> Execution {
        self.run_with_input(run, None).await
    }
}

struct Run {
    config: Arc<ProcessConfig>,
    plan: CommandPlan,
    /// Beside what every process gets.
    env: BTreeMap<String, String>,
    limits: RunLimits,
    input: Option<Vec<u8>>,
    started: Instant,
}

impl Run {
    async fn run(mut self, mut cancelled: oneshot::Receiver<()>) -> Execution {
        let deadline = sleep(self.limits.timeout);
        tokio::pin!(deadline);
        let mut stdout = Captured::new(self.limits.output_max_bytes);
        let mut stderr = Captured::new(STDERR_MAX);

        // Disks may hang. Nothing has started yet, so the thread can be left to itself.
        let (config, plan) = (Arc::clone(&self.config), self.plan.clone());
        let check = tokio::task::spawn_blocking(move || checked(&config, &plan));
        let program = tokio::select! {
            biased;
            program = check => program.map_err(|error| error.to_string()).flatten(),
            () = &mut deadline => {
                return stdout.execution(ExecutionStatus::TimedOut, Vec::new(), self.started);
            }
            _ = &mut cancelled => Err("cancelled".to_owned()),
        };
        let spawned = program.and_then(|program| self.spawn(&program));
        let (mut child, control) = match spawned {
            Ok(spawned) => spawned,
            Err(reason) => {
                let status = ExecutionStatus::NotStarted(reason);
                return stdout.execution(status, Vec::new(), self.started);
            }
        };

        let (pipe_out, pipe_err) = (child.stdout.take(), child.stderr.take());
        let (answer, leash) = control.into_split();
        let mut leash = Box::pin(hold(leash, self.input.take().unwrap_or_default()));
        let ended = async {
            let mut text = Vec::new();
            answer.take(64 << 10).read_to_end(&mut text).await.ok();
            text
        };
        let output = async { tokio::join!(stdout.read(pipe_out), stderr.read(pipe_err)) };
        tokio::pin!(ended);
        let (mut answered, timed_out);
        let mut clean = true;
        {
            tokio::pin!(output);
            let mut drained = false;
            // INVARIANT: output comes last, or a tool that never stops writing would use up
            // the task's budget before the deadline is looked at.
            answered = loop {
                tokio::select! {
                    biased;
                    () = &mut deadline => break None,
                    _ = &mut cancelled => break None,
                    text = &mut ended => break Some(text),
                    () = &mut leash => {}
                    _ = &mut output, if !drained => drained = true,
                }
            };
            timed_out = answered.is_none();
            // Closes our half of the socket: the supervisor kills.
            drop(leash);
            if timed_out {
                answered = timeout(KILL_GRACE, &mut ended).await.ok();
            }
            if answered.as_deref().and_then(|text| supervise::parse(text).1).is_none() {
                // Nobody cleaned up.
                clean = kill_stuck(&mut child).await;
            }
            // Nothing of ours holds the pipes any more, and a stranger to whom they were handed
            // cannot keep us waiting.
            if !drained {
                timeout(DRAIN_GRACE, output).await.ok();
            }
        }
        let (announced, ending) = supervise::parse(&answered.unwrap_or_default());
        let supervisor = match timeout(DRAIN_GRACE, child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "still ending".to_owned(),
        };
        let status = match ending {
            _ if !clean => ExecutionStatus::Unknown(
                "not all that it started could be killed within a second".to_owned(),
            ),
            Some(Ending::Exited(code)) => ExecutionStatus::Exited(code),
            Some(Ending::Signalled(signal)) => ExecutionStatus::Signalled(signal),
            Some(Ending::NotStarted(reason)) => ExecutionStatus::NotStarted(reason),
            _ if timed_out => ExecutionStatus::TimedOut,
            Some(Ending::Lost(reason)) => ExecutionStatus::Unknown(reason),
            Some(Ending::Killed) => ExecutionStatus::Unknown("killed unasked".to_owned()),
            None if announced => ExecutionStatus::Unknown(format!(
                "the supervisor ended without a status ({supervisor})"
            )),
            None => ExecutionStatus::NotStarted(format!(
                "the supervisor ended before it started anything ({supervisor})"
            )),
        };
        stdout.execution(status, stderr.kept, self.started)
    }

    /// Starts the supervisor. When it is left or its socket closes, it kills everything.
    fn spawn(&self, program: &Path) -> Result<(Child, UnixStream), String> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(|error| format!("no socket: {error}"))?;
        let ours = ours
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(ours))
            .map_err(|error| format!("no socket: {error}"))?;
        let supervisor = &self.config.supervisor;
        let input = match self.input.as_ref().map(Vec::len) {
            None => "-".to_owned(),
            Some(length @ ..=supervise::INPUT_MAX) => length.to_string(),
            Some(_) => return Err(format!("the input exceeds {} bytes", supervise::INPUT_MAX)),
        };
        let child = Command::new(&supervisor.program)
            .args(&supervisor.args)
            .args(["run", &input, &supervise::limits_arg(&self.limits)])
            .arg(confine::arg(self.limits.filesystem.as_ref()))
            .arg(program)
            .args(&self.plan.argv)
            .env_clear()
            .envs(self.config.env.iter().map(|(name, value)| (name, value)))
            .envs(&self.env)
            .current_dir(&self.config.root)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", supervisor.program.display()))?;
        Ok((child, ours))
    }
}

/// Hands the input over and then holds our half of the socket, until it is dropped.
async fn hold(mut leash: OwnedWriteHalf, input: Vec<u8>) {
    // Where it fails there is nobody left, and the other half ends too.
    leash.write_all(&input).await.ok();
    drop(input);
    pending().await
}

fn checked(config: &ProcessConfig, plan: &CommandPlan) -> Result<PathBuf, String> {
    let name = plan.argv.first().ok_or("the plan has no program")?;
    if !config.root.is_absolute() {
        return Err(format!("root {} is not absolute", config.root.display()));
    }
    check::paths(&config.root, &plan.paths)?;
    check::credentials(&config.root, &plan.credentials)?;
    check::program(name, &config.root, &config.path)
}

/// Kills everything below a supervisor that does not, and then the supervisor. Returns whether
/// nothing was left to kill in the end: `false` also when that is not known.
pub(crate) async fn kill_stuck(child: &mut Child) -> bool {
    let Some(root) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return false;
    };
    let killed = tokio::task::spawn_blocking(move || {
        let stop = Instant::now() + Duration::from_secs(1);
        loop {
            match tree::kill_below(root) {
                0 => return true,
                _ if Instant::now() >= stop => return false,
                _ => thread::sleep(Duration::from_micros(100)),
            }
        }
    });
    let clean = match killed.await {
        Ok(true) => true,
        Ok(false) => {
            tracing::error!("a run has left processes that could not be killed within a second");
            false
        }
        Err(error) => {
            tracing::error!(%error, "a run may have left processes");
            false
        }
    };
    child.start_kill().ok();
    clean
}

/// A stream: its head, its hash and its length.
struct Captured {
    kept: Vec<u8>,
    max: u64,
    len: u64,
    hash: Sha256,
}

impl Captured {
    fn new(max: u64) -> Self {
        Self { kept: Vec::new(), max, len: 0, hash: Sha256::new() }
    }

    /// Reads to the end. Can be dropped at any time: what was read by then is in `self`.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 64 << 10];
        // A pipe that fails is as good as ended.
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            let bytes = buffer.get(..count).unwrap_or_default();
            self.hash.update(bytes);
            let room = usize::try_from(self.max).unwrap_or(usize::MAX) - self.kept.len();
            self.kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            self.len += count as u64;
        }
    }

    fn execution(self, status: ExecutionStatus, stderr: Vec<u8>, started: Instant) -> Execution {
        Execution {
            status,
            stdout: self.kept,
            stdout_sha256: self.hash.finalize().into(),
            stdout_len: self.len,
            stderr,
            duration: started.elapsed(),
        }
    }
}
