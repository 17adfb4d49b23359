//! Keeps the output of calls as files of their own.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::dispatch::not_started;

/// An executor around another one that writes the kept output of a run to the file that
/// `RunLimits::evidence` names, beneath one folder.
///
/// - The file is new, has mode 0600 and is there before anything runs. Folders have mode 0700 and
///   belong to the user of this process; no symbolic link is followed, not even in the path of a
///   folder that was there. Where that fails the run is
///   [`NotStarted`](ExecutionStatus::NotStarted).
/// - When the run returns, its output is on the disk. If it cannot be written, the outcome is
///   [`Unknown`](ExecutionStatus::Unknown), in words that say how the run went.
/// - Of a run that did not start, whose end is unknown or that was dropped, there is no file.
pub struct Evidence {
    dir: PathBuf,
    inner: Arc<dyn ToolExecutor>,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Evidence {
    /// `dir` is made when it is needed first; its parent must be there.
    pub fn new(dir: impl Into<PathBuf>, inner: Arc<dyn ToolExecutor>) -> Self {
        Self { dir: dir.into(), inner }
    }
}

#[async_trait]
impl ToolExecutor for Evidence {
    async fn run(&self, run: ToolRun) -> Execution {
        let Some(path) = run.limits.evidence.clone() else {
            return self.inner.run(run).await;
        };
        let dir = self.dir.clone();
        let made = blocking(move || Kept::make(&dir, &path)).await;
        let kept = match made {
            Ok(kept) => kept,
            Err(why) => return not_started(format!("no file for its evidence: {why}")),
        };
        let mut execution = self.inner.run(run).await;
        let how = match &execution.status {
            ExecutionStatus::NotStarted(_) | ExecutionStatus::Unknown(_) => return execution,
            ExecutionStatus::Exited(code) => format!("it ended with exit code {code}"),
            ExecutionStatus::Signalled(signal) => format!("it ended by signal {signal}"),
            ExecutionStatus::Answered { note, .. } => format!("it was answered ({note})"),
            ExecutionStatus::TimedOut => "it was ended at its deadline".to_owned(),
        };
        let output = std::mem::take(&mut execution.stdout);
        let written = blocking(move || {
            let written = kept.keep(&output);
            Ok((output, written))
        });
        let why = match written.await {
            Ok((output, written)) => {
                execution.stdout = output;
                written.err()
            }
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            let text = format!("{how}, and its output could not be kept as evidence: {why}");
            execution.status = ExecutionStatus::Unknown(text);
        }
        execution
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string()).flatten()
}

/// An empty file, removed when it is dropped before it was kept.
struct Kept {
    folder: OwnedFd,
    name: String,
    file: File,
    done: bool,
}

impl Kept {
    fn make(dir: &Path, path: &str) -> Result<Self, String> {
        let mut shown = dir.to_owned();
        if let Err(error) = DirBuilder::new().mode(0o700).create(dir)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(format!("{}: {error}", shown.display()));
        }
        let mut folder = own(openat(CWD, dir, folders(), Mode::empty()), &shown)?;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            if name.is_empty() || name == "." || name == ".." {
                return Err(format!("{path:?} is no plain path"));
            }
            shown.push(name);
            if names.peek().is_none() {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|error| format!("{}: {error}", shown.display()))?;
                return Ok(Self { folder, name: name.to_owned(), file: file.into(), done: false });
            }
            match mkdirat(&folder, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(format!("{}: {error}", shown.display())),
            }
            folder = own(openat(&folder, name, folders(), Mode::empty()), &shown)?;
        }
        Err(format!("{path:?} is no plain path"))
    }

    fn keep(mut self, output: &[u8]) -> Result<(), String> {
        let written = self.file.write_all(output).and_then(|()| self.file.sync_all());
        written.map_err(|error| error.to_string())?;
        rustix::fs::fsync(&self.folder).map_err(|error| error.to_string())?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.done {
            unlinkat(&self.folder, &self.name, AtFlags::empty()).ok();
        }
    }
}

fn folders() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// A folder that nobody else can write to or read.
fn own(opened: Result<OwnedFd, Errno>, shown: &Path) -> Result<OwnedFd, String> {
    let fail = |reason: &dyn fmt::Display| format!("{}: {reason}", shown.display());
    let folder = opened.map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => fail(&"is no folder, or a symbolic link"),
        error => fail(&error),
    })?;
    let stat = fstat(&folder).map_err(|error| fail(&error))?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(fail(&"belongs to somebody else"));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(fail(&"others can read it: it must have mode 700"));
    }
    Ok(folder)
}
