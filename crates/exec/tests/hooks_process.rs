//! Hooks that are real processes.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign_core::hook::{HookInput, HookResponse};
use countersign_core::plan::RunLimits;
use countersign_exec::hook::ProcessHook;
use countersign_exec::{ProcessConfig, SupervisorCommand, supervise};
use countersign_ports::hook::{HookError, HookExecutor};
use serde_json::json;
use tempfile::TempDir;

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(60);
const SUPERVISOR: &str = env!("CARGO_BIN_EXE_countersign-supervise");
const DENY: &str = r#"{"type":"deny","payload":{"code":"no","redacted_summary":"x"}}"#;

fn input(summary: &str) -> HookInput {
    serde_json::from_value(json!({
        "hook_id": "hook.test",
        "point": "before_tool_call",
        "run_id": "run.1",
        "agent_id": "agent.1",
        "source": {
            "kind": "hook", "id": "hook.test", "trust": "host_provided",
            "privacy": "content_refs_only",
        },
        "package_fingerprint": "fp",
        "view": { "privacy": "content_refs_only", "redacted_summary": summary },
        "cancellation": { "cancelled": false },
        "invocation_id": "hook.invocation.1",
    }))
    .unwrap()
}

/// Serialises to this many bytes.
fn input_of(bytes: usize) -> HookInput {
    let empty = serde_json::to_vec(&input("")).unwrap().len();
    input(&"x".repeat(bytes - empty))
}

/// Whatever ends a hook in time here, it is not this deadline.
fn limits() -> RunLimits {
    RunLimits { timeout: LONG * 10, ..RunLimits::default() }
}

struct Bench {
    root: TempDir,
    supervisor: SupervisorCommand,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, supervisor: SupervisorCommand::new(SUPERVISOR) }
    }

    fn hook(&self, argv: &[&str], limits: RunLimits) -> ProcessHook {
        let config = ProcessConfig {
            root: self.root.path().to_owned(),
            env: vec![("LANG".to_owned(), "C".to_owned())],
            path: vec!["/usr/bin".into(), "/bin".into()],
            supervisor: self.supervisor.clone(),
        };
        ProcessHook::new(config, argv.iter().map(|&arg| arg.to_owned()).collect(), limits)
    }

    async fn sh(&self, script: &str, input: HookInput) -> Result<HookResponse, HookError> {
        self.hook(&["sh", "-c", script], limits()).invoke(input).await
    }

    fn at(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.at(file)).unwrap()
    }

    /// Whether the file holds a process id, and the process is gone, also as a zombie.
    fn gone(&self, file: &str) -> bool {
        pid(&self.at(file)).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    }
}

fn pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

async fn bounded_wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_document_on_standard_output_is_the_answer() {
    let bench = Bench::new();
    let deny: HookResponse = serde_json::from_str(DENY).unwrap();
    for (script, response) in [
        ("true".to_owned(), HookResponse::ObserveOnly),
        ("echo; echo ' '".to_owned(), HookResponse::ObserveOnly),
        ("exec cat >/dev/null".to_owned(), HookResponse::ObserveOnly),
        (r#"printf '{"type":"observe_only"}'"#.to_owned(), HookResponse::ObserveOnly),
        (format!("printf '%s' '{DENY}'"), deny.clone()),
        (format!("printf ' \n%s\n\n' '{DENY}'"), deny.clone()),
        (format!("echo ignored >&2; echo '{DENY}'"), deny),
    ] {
        assert_eq!(bench.sh(&script, input("")).await, Ok(response), "{script}");
    }
}

#[tokio::test]
async fn everything_else_is_an_error_that_says_what_it_was() {
    let bench = Bench::new();
    let two = format!("echo '{DENY}' '{DENY}'");
    let failing = format!("echo '{DENY}'; exit 1");
    for (script, error) in [
        ("echo no", "the answer is not one hook response: expected ident at line 1 column 2"),
        ("echo '[]'", "the answer is not one hook response: "),
        ("echo '{\"type\":\"allow\"}'", "unknown variant `allow`"),
        ("printf '{\"type\":\"observe_only\"'", "EOF while parsing an object"),
        ("printf '{\"type\":\"\\377\"}'", "invalid unicode"),
        (&two, "the answer is not one hook response: trailing characters"),
        (&failing, "the hook exited with code 1"),
        ("exit 255", "the hook exited with code 255"),
        ("kill -KILL $$", "the hook ended by signal 9"),
        ("kill -SEGV $$", "the hook ended by signal 11"),
        ("echo >&2; echo why >&2; echo more >&2; exit 3", "the hook exited with code 3: why"),
        (
            r"printf '\033[2Jgone\r\342\200\256\377\nsecond' >&2; exit 3",
            "the hook exited with code 3: \\u{1b}[2Jgone\\r\\u{202e}\u{fffd}",
        ),
        ("echo why >&2; kill -TERM $$", "the hook ended by signal 15: why"),
        ("head -c 1048577 /dev/zero", "the answer exceeds 1048576 bytes"),
    ] {
        let HookError(text) = bench.sh(script, input("")).await.unwrap_err();
        assert!(text.contains(error), "{script}: {text}");
        // A whole sentence is compared as one.
        if error.starts_with("the hook") {
            assert_eq!(text, error, "{script}");
        }
    }
    let long = "head -c 100000 /dev/zero | tr '\\0' e >&2; exit 3";
    let HookError(text) = bench.sh(long, input("")).await.unwrap_err();
    assert_eq!(text, format!("the hook exited with code 3: {}", "e".repeat(200)));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut bench = Bench::new();
    for (argv, error) in [
        (&["no-such"][..], "the hook did not start: no-such was not found in PATH"),
        (&[], "the hook did not start: the plan has no program"),
        (&["true", "a\0b"], "the hook did not start: "),
    ] {
        let HookError(text) = bench.hook(argv, limits()).invoke(input("")).await.unwrap_err();
        assert!(text.starts_with(error), "{text}");
    }
    bench.supervisor = SupervisorCommand::new("/bin/true");
    let HookError(text) = bench.sh("true", input("")).await.unwrap_err();
    assert!(text.contains("the supervisor ended before it started anything"), "{text}");
}

#[tokio::test]
async fn the_input_arrives_whole_and_ends() {
    const MAX: usize = (1 << 20) - 1;
    let bench = Bench::new();
    for bytes in [1000, 65_535, 65_536, 300_000, MAX] {
        let input = input_of(bytes);
        let sent = serde_json::to_string(&input).unwrap() + "\n";
        assert_eq!(bench.sh("cat > got", input).await, Ok(HookResponse::ObserveOnly));
        assert!(bench.text("got") == sent, "{bytes} bytes did not arrive as they were");
    }
    let HookError(text) = bench.sh("touch ran", input_of(MAX + 1)).await.unwrap_err();
    assert_eq!(text, "the input exceeds 1048576 bytes");
    assert!(!bench.at("ran").exists());
}

#[tokio::test]
async fn an_input_that_is_not_read_stops_nobody() {
    let bench = Bench::new();
    let big = || input_of((1 << 20) - 1);
    let hook = bench.hook(&["true"], limits());
    assert_eq!(hook.invoke(big()).await, Ok(HookResponse::ObserveOnly));
    for script in [
        "exec <&-",
        // Reads a part of it, and leaves somebody who has the rest.
        "head -c 10 >/dev/null; sleep 1000 & echo $! > pid",
    ] {
        assert_eq!(bench.sh(script, big()).await, Ok(HookResponse::ObserveOnly), "{script}");
    }
    assert!(bench.gone("pid"));
}

#[tokio::test]
async fn nobody_can_change_the_input_and_nothing_else_is_open() {
    let bench = Bench::new();
    // It is opened for reading, from its beginning; opened again, it is sealed.
    let script = "ls /proc/self/fd > fds; readlink /proc/self/fd/0 > link; \
                  grep flags /proc/self/fdinfo/0 > flags; \
                  echo x >> /proc/self/fd/0; echo x > /proc/self/fd/0; cat > got; exit 0";
    let asked = input("unchanged");
    let sent = serde_json::to_string(&asked).unwrap() + "\n";
    assert_eq!(bench.sh(script, asked).await, Ok(HookResponse::ObserveOnly));
    // 3 is the directory that `ls` reads.
    assert_eq!(bench.text("fds"), "0\n1\n2\n3\n");
    assert!(bench.text("link").starts_with("/memfd:"), "{}", bench.text("link"));
    let flags = bench.text("flags");
    let flags = u32::from_str_radix(flags.trim_start_matches("flags:").trim(), 8).unwrap();
    assert_eq!(flags & 0o3, 0, "not opened for reading only");
    assert_eq!(bench.text("got"), sent);
}

#[tokio::test]
async fn a_hook_gets_its_root_and_only_the_given_environment() {
    let bench = Bench::new();
    let hook = bench.hook(&["sh", "-c", "pwd > pwd; exec env > env"], limits());
    assert_eq!(hook.invoke(input("")).await, Ok(HookResponse::ObserveOnly));
    assert_eq!(bench.text("pwd").trim_end(), bench.root.path().to_str().unwrap());
    let env = bench.text("env");
    let names: Vec<_> = env.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(names.contains(&("LANG", "C")), "{env}");
    // The shell adds these.
    assert!(names.iter().all(|(name, _)| ["LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)));
}

#[tokio::test]
async fn limits_bind_a_hook_and_its_second_deadline_ends_it() {
    let bench = Bench::new();
    let limits = RunLimits { timeout: Duration::from_millis(300), nofile: Some(37), ..limits() };
    let script = "ulimit -n > nofile; setsid sleep 1000 & echo $! > pid; sleep 1000";
    let HookError(text) =
        bench.hook(&["sh", "-c", script], limits).invoke(input("")).await.unwrap_err();
    assert_eq!(text, "the hook did not end within 300 ms");
    assert_eq!(bench.text("nofile"), "37\n");
    assert!(bench.gone("pid"));
}

#[tokio::test]
async fn dropping_the_future_kills_a_hook_that_hangs() {
    let bench = Bench::new();
    let script = "cat > /dev/null; setsid sleep 1000 & echo $! > pid; echo $$ > main; \
                  echo $PPID > supervisor; sleep 1000";
    let hook = bench.hook(&["sh", "-c", script], limits());
    let task = tokio::spawn(async move { hook.invoke(input_of(1_000_000)).await });
    bounded_wait("start", || pid(&bench.at("supervisor")).is_some()).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    for file in ["pid", "main", "supervisor"] {
        bounded_wait(file, || bench.gone(file)).await;
    }
}

#[tokio::test]
async fn dropping_the_future_kills_a_supervisor_that_does_not_take_the_input() {
    let mut bench = Bench::new();
    let script = "sleep 1000 & echo $! > pid; echo $$ > supervisor; sleep 1000";
    let args = ["-c", script, "sh"].map(str::to_owned).into();
    bench.supervisor = SupervisorCommand { program: "/bin/sh".into(), args };
    let hook = bench.hook(&["touch", "ran"], limits());
    let task = tokio::spawn(async move { hook.invoke(input_of(1_000_000)).await });
    bounded_wait("start", || pid(&bench.at("supervisor")).is_some()).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    for file in ["pid", "supervisor"] {
        bounded_wait(file, || bench.gone(file)).await;
    }
    assert!(!bench.at("ran").exists());
}

/// Speaks the executor's side of the protocol as far as `sent`, closes, and returns the answer.
fn supervised(bench: &Bench, announced: &str, sent: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut supervisor = Command::new(SUPERVISOR)
        .args([supervise::ARG, "run", announced, "-,-,-,-,-", "/usr/bin/touch", "touch", "ran"])
        .current_dir(bench.root.path())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    // It may have left already.
    ours.write_all(sent).ok();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    ours.read_to_string(&mut answer).ok();
    supervisor.wait().unwrap();
    answer
}

#[test]
fn a_socket_closed_within_the_input_starts_nothing() {
    let bench = Bench::new();
    for (announced, sent) in [("100", 0), ("100", 99), ("1048576", 500_000), ("1", 0)] {
        let answer = supervised(&bench, announced, &vec![b'x'; sent]);
        assert!(answer.starts_with("not-started the executor is gone"), "{answer}");
        assert!(!bench.at("ran").exists(), "{announced} {sent}");
    }
}

#[test]
fn an_input_that_cannot_be_is_refused() {
    let bench = Bench::new();
    for announced in ["1048577", "18446744073709551616", "-1", "", "x", "--"] {
        let answer = supervised(&bench, announced, &[]);
        assert_eq!(answer, format!("not-started bad input length {announced}\n"));
        assert!(!bench.at("ran").exists(), "{announced}");
    }
}
