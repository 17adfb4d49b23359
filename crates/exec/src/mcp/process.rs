//! An upstream server that is a program: supervised as a tool is, with a pipe for its input.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::plan::RunLimits;
use countersign_core::text::visible;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::UpstreamConfig;
use crate::executor::kill_stuck;
use crate::{ProcessConfig, Redactor, check, confine, supervise};

/// Bytes of one line of standard error that are logged.
const LINE_MAX: u64 = 4 << 10;
/// Lines of standard error that are logged of one process.
const LINES_MAX: usize = 1_000;
/// How long a supervisor may take to end everything below it.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Lines of standard error that are kept to say why a program ended, and characters of each.
const LAST_LINES: usize = 4;
const LAST_LINE_MAX: usize = 300;
/// How long what an ended program wrote may take to be read.
const READ_GRACE: Duration = Duration::from_secs(2);

/// A program that runs for as long as this lives.
pub(super) struct Process {
    leash: tokio::sync::oneshot::Sender<()>,
    said: Arc<Mutex<VecDeque<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// Ends the program. What it wrote to standard error last, without secrets; lines that begin
    /// with a space are details of others, and left out. Empty if there is nothing.
    pub(super) async fn end(mut self) -> String {
        drop(self.leash);
        if let Some(reading) = self.reading.take() {
            timeout(READ_GRACE, reading).await.ok();
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(String::as_str).collect::<Vec<_>>().join(" / ")
    }
}

/// Starts the program. What it reads and writes comes with it.
pub(super) async fn start(
    upstream: &UpstreamConfig,
    argv: &[String],
    config: &ProcessConfig,
) -> Result<(Process, ChildStdout, pipe::Sender), String> {
    let name = argv.first().ok_or("its command is empty")?.clone();
    let (root, path) = (config.root.clone(), config.path.clone());
    // Disks may hang.
    let program = tokio::task::spawn_blocking(move || check::program(&name, &root, &path))
        .await
        .map_err(|error| error.to_string())
        .flatten()?;
    let (mut child, leash, input) =
        spawn(&program, argv, config).map_err(|error| format!("it cannot be started: {error}"))?;
    let output = child.stdout.take().ok_or("it has no standard output")?;
    let said = Arc::default();
    let reading = child.stderr.take().map(|stderr| {
        let (name, redactor) = (upstream.name.clone(), upstream.redactor.clone());
        tokio::spawn(log(name, redactor, stderr, Arc::clone(&said)))
    });
    let (alive, gone) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        tokio::select! {
            _ = gone => {}
            _ = child.wait() => {}
        }
        // The supervisor ends everything below it.
        drop(leash);
        if timeout(KILL_GRACE, child.wait()).await.is_err() {
            kill_stuck(&mut child).await;
            child.wait().await.ok();
        }
    });
    Ok((Process { leash: alive, said, reading }, output, input))
}

fn spawn(
    program: &Path,
    argv: &[String],
    config: &ProcessConfig,
) -> std::io::Result<(Child, UnixStream, pipe::Sender)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let (reader, writer) = std::io::pipe()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [reader.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&passed));
    sendmsg(&ours, &[IoSlice::new(b"i")], &mut control, SendFlags::empty())?;
    ours.set_nonblocking(true)?;
    let leash = UnixStream::from_std(ours)?;
    let input = pipe::Sender::from_owned_fd(OwnedFd::from(writer))?;
    let child = Command::new(&config.supervisor.program)
        .args(&config.supervisor.args)
        .args(["run", supervise::INPUT_PIPE, &supervise::limits_arg(&RunLimits::default())])
        .arg(confine::arg(None))
        .arg(program)
        .args(argv)
        .env_clear()
        .envs(config.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&config.root)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((child, leash, input))
}

/// Logs what the program says on standard error, as far as that is bounded. Of a line that is too
/// long, the beginning is logged.
async fn log(
    upstream: String,
    redactor: Redactor,
    stderr: ChildStderr,
    last: Arc<Mutex<VecDeque<String>>>,
) {
    let mut stderr = BufReader::new(stderr);
    let mut lines = 0_usize;
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX;
        let clean = match whole {
            true => redactor.bytes(&line),
            false => redactor.cut_bytes(&line),
        };
        lines += 1;
        let text = String::from_utf8_lossy(&clean);
        let text = text.trim_end();
        keep(&last, text);
        if lines <= LINES_MAX {
            tracing::info!(upstream, "{}", visible(text));
        } else if lines == LINES_MAX + 1 {
            tracing::info!(upstream, "has written {LINES_MAX} lines; no more are logged");
        }
        if !whole && skip_line(&mut stderr).await.is_err() {
            return;
        }
    }
}

fn keep(last: &Mutex<VecDeque<String>>, line: &str) {
    if line.len() < 2 || line.starts_with([' ', '\t']) {
        return;
    }
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.len() == LAST_LINES {
        last.pop_front();
    }
    last.push_back(visible(line).chars().take(LAST_LINE_MAX).collect());
}

/// Reads to the end of the line.
async fn skip_line(stderr: &mut BufReader<ChildStderr>) -> std::io::Result<()> {
    loop {
        let read = stderr.fill_buf().await?;
        let (end, length) = match read.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (read.is_empty(), read.len()),
        };
        stderr.consume(length);
        if end {
            return Ok(());
        }
    }
}
