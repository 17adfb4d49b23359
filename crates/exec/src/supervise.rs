//! The process between the executor and the tool.
//!
//! `__supervise run INPUT LIMITS RULES PROGRAM ARGV0 ARG…` with the executor's socket as standard
//! input is the supervisor. It starts
//! `__supervise launch PARENT FD LIMITS RULES PROGRAM ARGV0 ARG…`,
//! which binds the limits and the rules for files to itself and becomes the tool: so no limit ever weakens the
//! supervisor, and none is late for the tool. Working directory and environment pass through
//! both unchanged.
//!
//! `INPUT` is how many bytes for the tool come first on the socket, or `-`: then the tool reads
//! `/dev/null`. The supervisor takes all of them before anything starts and keeps them in
//! memory as a sealed file, which is `FD` in the launcher and standard input in the tool. So a
//! tool that does not read blocks nobody, and the socket is free to mean what it always means.
//!
//! `INPUT` may also be `INPUT_PIPE`: then one byte comes first on the socket, and with it the
//! descriptor that is standard input in the tool. So a program can be talked to while it runs.
//!
//! The supervisor answers on the socket with `started`, before the tool exists, and one line
//! more when nothing of the tool is left. The two ends must be of one build: this is not a
//! contract.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use countersign_core::plan::RunLimits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getppid, getrlimit,
    getuid, pidfd_open, set_child_subreaper, set_parent_process_death_signal, setpriority_process,
    setrlimit, setsid, wait,
};
use rustix::thread::{CapabilitySet, capabilities};

use crate::{confine, tree};

/// The first argument by which an embedding binary recognises that it is to be a supervisor.
pub const ARG: &str = "__supervise";

/// The `INPUT` that comes as a descriptor.
pub(crate) const INPUT_PIPE: &str = "pipe";

/// Bytes of input that a supervisor takes. It holds them in memory as long as the tool runs.
pub(crate) const INPUT_MAX: usize = 1 << 20;

/// Runs a supervisor to its end. `args` are those after [`ARG`].
///
/// An embedding binary calls it first thing in `main`, before it starts a thread, opens a file
/// or writes a byte: the standard streams belong to the tool. `/proc/self/exe` must take
/// [`ARG`] as its first argument. Returns 2 when the arguments are not an executor's.
///
/// ```no_run
/// use std::process::ExitCode;
/// use countersign_exec::supervise;
///
/// fn main() -> ExitCode {
///     if std::env::args_os().nth(1).is_some_and(|arg| arg == supervise::ARG) {
///         return supervise::main(std::env::args_os().skip(2));
///     }
///     ExitCode::SUCCESS
/// }
/// ```
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let role = args.next();
    let args: Vec<OsString> = args.collect();
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(2);
    };
    match role.as_deref().and_then(OsStr::to_str) {
        Some("run") => run(socket, &args),
        Some("launch") => launch(socket, &args),
        _ => ExitCode::from(2),
    }
}

/// How a supervised tool ended. Its text is one line of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Signalled(i32),
    /// The socket closed first.
    Killed,
    NotStarted(String),
    /// The tool started, and the supervisor lost track of it.
    Lost(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited {code}"),
            Self::Signalled(signal) => write!(f, "signalled {signal}"),
            Self::Killed => write!(f, "killed "),
            Self::NotStarted(reason) => write!(f, "not-started {}", reason.replace('\n', " ")),
            Self::Lost(reason) => write!(f, "lost {}", reason.replace('\n', " ")),
        }
    }
}

/// Reads what a supervisor sent: whether it announced a start, and the ending if it is whole.
pub(crate) fn parse(text: &[u8]) -> (bool, Option<Ending>) {
    let text = &*String::from_utf8_lossy(text);
    let rest = text.strip_prefix("started\n");
    let line = rest.unwrap_or(text).strip_suffix('\n').and_then(|line| line.split_once(' '));
    let ending = line.and_then(|(kind, value)| match kind {
        "exited" => value.parse().ok().map(Ending::Exited),
        "signalled" => value.parse().ok().map(Ending::Signalled),
        "killed" => Some(Ending::Killed),
        "not-started" => Some(Ending::NotStarted(value.to_owned())),
        "lost" => Some(Ending::Lost(value.to_owned())),
        _ => None,
    });
    (rest.is_some(), ending)
}

const RESOURCES: [Resource; 5] =
    [Resource::Nofile, Resource::Fsize, Resource::Cpu, Resource::Nproc, Resource::As];

/// The limits as one argument, in the order of [`RESOURCES`]: `64,-,10,-,-`.
pub(crate) fn limits_arg(limits: &RunLimits) -> String {
    // In full, so that a limit added to the plan is not forgotten here.
    let RunLimits {
        timeout: _,
        output_max_bytes: _,
        nproc,
        nofile,
        fsize_bytes,
        address_space_bytes,
        cpu_seconds,
        // An argument of its own.
        filesystem: _,
        // Not for processes.
        evidence: _,
    } = limits;
    [*nofile, *fsize_bytes, *cpu_seconds, *nproc, *address_space_bytes]
        .map(|limit| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()))
        .join(",")
}

/// Binds this process to the limits, hard and soft, or to what it is bound to already if that
/// is less.
fn limits_apply(arg: &str) -> Result<(), String> {
    let mut values = arg.split(',');
    for resource in RESOURCES {
        let limit = match values.next() {
            Some("-") => continue,
            Some(text) => text.parse::<u64>().map_err(|_| format!("bad limits {arg}"))?,
            None => return Err(format!("bad limits {arg}")),
        };
        let limit = Some(getrlimit(resource).maximum.map_or(limit, |hard| hard.min(limit)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })
            .map_err(|error| format!("{resource:?} cannot be limited: {error}"))?;
    }
    Ok(())
}

/// How often processes are counted where the kernel does not bind them.
const COUNT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How many processes and threads the tool may have, where that is for the supervisor to see to:
/// the kernel binds neither root nor who may raise limits.
fn most_tasks(limits: &OsStr) -> Option<usize> {
    let at = RESOURCES.iter().position(|resource| *resource == Resource::Nproc)?;
    let most: usize = limits.to_str()?.split(',').nth(at)?.parse().ok()?;
    let above = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    let may_exceed = || capabilities(None).map_or(true, |sets| sets.effective.intersects(above));
    (getuid().is_root() || may_exceed()).then_some(most.max(1))
}

fn run(mut socket: UnixStream, args: &[OsString]) -> ExitCode {
    let ending = match start(&mut socket, args) {
        Err(reason) => Ending::NotStarted(reason),
        Ok((tool, mut report)) => {
            let most = args.get(1).and_then(|limits| most_tasks(limits));
            let ending = watch(&socket, tool, most);
            kill_everything();
            // Only a launcher that failed to become the tool has something to report, and it
            // wrote before it ended.
            let mut reason = String::new();
            let read =
                report.set_nonblocking(true).and_then(|()| report.read_to_string(&mut reason));
            match read {
                Ok(1..) => Ending::NotStarted(reason),
                _ => ending,
            }
        }
    };
    // The executor may be gone, and then nobody is left to tell.
    match socket.write_all(format!("{ending}\n").as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prepares this process and starts the tool. An error means that nothing runs.
fn start(socket: &mut UnixStream, args: &[OsString]) -> Result<(Pid, UnixStream), String> {
    let context = |what: &'static str| move |error| format!("{what}: {error}");
    // A session of its own: no terminal, no signal meant for the gateway's process group, and a
    // mark on everything that does not leave the session.
    setsid().map_err(|error| format!("no new session: {error}"))?;
    set_child_subreaper(Some(getpid())).map_err(|error| format!("no subreaper: {error}"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| format!("privileges cannot be fixed: {error}"))?;
    pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(|error| format!("processes cannot be watched: {error}"))?;
    std::fs::metadata("/proc/self/stat").map_err(context("no /proc"))?;
    let [input, args @ ..] = args else {
        return Err("arguments are missing".to_owned());
    };
    let input = input_receive(socket, input)?;
    let fd = input.as_ref().map_or_else(|| "-".to_owned(), |file| file.as_raw_fd().to_string());
    let (report, theirs) = UnixStream::pair().map_err(context("no socket"))?;
    socket.write_all(b"started\n").map_err(context("the executor is gone"))?;
    let launcher = Command::new("/proc/self/exe")
        .args([ARG, "launch", &getpid().to_string(), &fd])
        .args(args)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .process_group(0)
        .spawn()
        .map_err(context("no process"))?;
    // What it may have to end cannot keep it from the processor then. Only root may ask for that.
    setpriority_process(None, -20).ok();
    let pid = i32::try_from(launcher.id()).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or("no process id")?, report))
}

/// Takes the announced input off the socket, into a file that nobody can change and that the
/// next process inherits.
fn input_receive(socket: &mut UnixStream, announced: &OsStr) -> Result<Option<File>, String> {
    if announced == "-" {
        return Ok(None);
    }
    if announced == INPUT_PIPE {
        return pipe_receive(socket).map(Some);
    }
    let length = announced.to_str().and_then(|text| text.parse::<usize>().ok());
    let Some(length) = length.filter(|&length| length <= INPUT_MAX) else {
        return Err(format!("bad input length {}", announced.display()));
    };
    let mut input = vec![0; length];
    socket.read_exact(&mut input).map_err(|error| format!("the executor is gone: {error}"))?;
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let held = match memfd_create("input", sealable | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::INVAL) => memfd_create("input", sealable),
        result => result,
    };
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let hold = || -> io::Result<File> {
        let mut file = File::from(held?);
        file.write_all(&input)?;
        fcntl_add_seals(&file, seals)?;
        // INVARIANT: this process has one thread and starts one process.
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok(file)
    };
    hold().map(Some).map_err(|error| format!("the input cannot be held: {error}"))
}

/// Takes the descriptor off the socket, for the next process to inherit. Ours is closed once that
/// has started.
fn pipe_receive(socket: &UnixStream) -> Result<File, String> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| format!("the input does not come: {error}"))?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.next().and_then(|mut fds| fds.next()).ok_or("no input came")?;
    // INVARIANT: this process has one thread and starts one process.
    fcntl_setfd(&fd, FdFlags::empty()).map_err(|error| format!("the input: {error}"))?;
    Ok(File::from(fd))
}

/// Returns when the tool's main process has ended, the socket has closed, or there are more than
/// `most` processes and threads; those are gone then.
fn watch(socket: &UnixStream, tool: Pid, most: Option<usize>) -> Ending {
    let handle = match pidfd_open(tool, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(error) => return Ending::Lost(format!("no handle of the process: {error}")),
    };
    // Now and then it also buries what the tool orphaned.
    let tick = most.map_or(Timespec { tv_sec: 1, tv_nsec: 0 }, |_| COUNT);
    loop {
        let mut polled = [PollFd::new(socket, PollFlags::IN), PollFd::new(&handle, PollFlags::IN)];
        match poll(&mut polled, Some(&tick)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Ending::Lost(format!("the process cannot be watched: {error}")),
        }
        let closed = polled.first().is_some_and(|socket| !socket.revents().is_empty());
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == tool {
                return ending(status);
            }
        }
        if closed {
            return Ending::Killed;
        }
        if let Some(most) = most
            && tree::tasks_below(getpid().as_raw_pid()) > most
        {
            kill_everything();
            // The tool's standard error is its supervisor's.
            let note = format!("ended: it had more than {most} processes and threads (nproc)\n");
            io::stderr().write_all(note.as_bytes()).ok();
            return Ending::Signalled(Signal::KILL.as_raw());
        }
    }
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(signal)) => Ending::Signalled(signal),
        (None, None) => Ending::Lost(format!("unknown status {status:?}")),
    }
}

/// Returns when this process has no descendant left. Everything orphaned below it becomes its
/// own child, so having no child is having no descendant.
fn kill_everything() {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => {
                tree::kill_below(getpid().as_raw_pid());
                thread::sleep(Duration::from_micros(100));
            }
            Err(_) => return,
        }
    }
}

/// Becomes the tool. Whatever is wrong goes to the supervisor, as text.
fn launch(mut report: UnixStream, args: &[OsString]) -> ExitCode {
    let reason = become_tool(args);
    report.write_all(reason.as_bytes()).ok();
    ExitCode::from(127)
}

fn become_tool(args: &[OsString]) -> String {
    let [parent, input, limits, rules, program, name, rest @ ..] = args else {
        return "arguments are missing".to_owned();
    };
    let mut command = Command::new(program);
    command.arg0(name).args(rest);
    // Opened again, a file in memory is read from its beginning, and cannot be written.
    let input = match input.to_str() {
        Some("-") => "/dev/null".to_owned(),
        fd => format!("/proc/self/fd/{}", fd.unwrap_or_default()),
    };
    let stdin = File::open(&input).and_then(|file| Ok(rustix::stdio::dup2_stdin(file)?));
    if let Err(error) = stdin {
        return format!("no {input}: {error}");
    }
    // If somebody kills the supervisor, at least the main process must not stay.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("no parent signal: {error}");
    }
    if getppid().map(|pid| pid.to_string()).as_deref() != parent.to_str() {
        return "the supervisor is gone".to_owned();
    }
    // The gateway may itself have inherited descriptors that nobody marked.
    close_fds::CloseFdsBuilder::new().cloexecfrom(3);
    if let Err(reason) = confine::apply(&rules.to_string_lossy(), Path::new(program)) {
        return reason;
    }
    // INVARIANT: nothing between here and `exec` allocates; the address space may be used up.
    if let Err(reason) = limits_apply(&limits.to_string_lossy()) {
        return reason;
    }
    let error = command.exec();
    format!("{}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_survives_its_line() {
        for ending in [
            Ending::Exited(3),
            Ending::Signalled(9),
            Ending::Killed,
            Ending::NotStarted("no such file".to_owned()),
            Ending::Lost(String::new()),
        ] {
            assert_eq!(parse(format!("started\n{ending}\n").as_bytes()), (true, Some(ending)));
        }
    }

    #[test]
    fn a_cut_line_is_no_ending() {
        for (text, started) in [
            ("", false),
            ("started\n", true),
            ("started\nexited 1", true),
            ("started\nexited\n", true),
            ("started\nexited x\n", true),
            ("exited", false),
        ] {
            assert_eq!(parse(text.as_bytes()), (started, None), "{text:?}");
        }
    }
}
