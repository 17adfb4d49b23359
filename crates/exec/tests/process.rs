//! Real processes. `/bin/sh` is here only as a tool that does as it is told.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use countersign_core::plan::{CommandPlan, Plan, RunLimits};
use countersign_exec::{ProcessConfig, ProcessExecutor, SupervisorCommand};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(60);

fn config(root: &Path) -> ProcessConfig {
    ProcessConfig {
        root: root.to_owned(),
        env: Vec::new(),
        path: vec!["/usr/bin".into(), "/bin".into()],
        supervisor: SupervisorCommand::new(env!("CARGO_BIN_EXE_countersign-supervise")),
    }
}

fn command(argv: &[&str], limits: RunLimits) -> ToolRun {
    let argv = argv.iter().map(|&arg| arg.to_owned()).collect();
    ToolRun::new(Plan::Command(CommandPlan { argv, ..CommandPlan::default() }), limits)
}

fn long() -> RunLimits {
    RunLimits { timeout: LONG, ..RunLimits::default() }
}

fn short() -> RunLimits {
    RunLimits { timeout: Duration::from_millis(700), ..RunLimits::default() }
}

struct Bench {
    root: TempDir,
    executor: ProcessExecutor,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let executor = ProcessExecutor::new(config(root.path()));
        Self { root, executor }
    }

    async fn run(&self, argv: &[&str], limits: RunLimits) -> Execution {
        self.executor.run(command(argv, limits)).await
    }

    async fn sh(&self, script: &str, limits: RunLimits) -> Execution {
        self.run(&["sh", "-c", script], limits).await
    }

    /// Asserts that nothing works in the root any more.
    #[track_caller]
    fn nothing_left(&self) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let cwd = fs::read_link(entry.path().join("cwd"));
            if cwd.is_ok_and(|cwd| cwd == self.root.path()) {
                panic!("left: {:?}", fs::read_to_string(entry.path().join("stat")));
            }
        }
    }

    fn pid(&self, file: &str) -> u32 {
        pid(&self.root.path().join(file)).unwrap()
    }
}

fn pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Whether the process exists and is no zombie.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

fn bounded_wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn not_started(execution: &Execution, reason: &str) {
    let ExecutionStatus::NotStarted(text) = &execution.status else { panic!("{execution:?}") };
    assert!(text.contains(reason), "{text}");
}

#[tokio::test]
async fn the_end_of_a_program_is_reported() {
    let bench = Bench::new();
    for (script, status) in [
        ("exit 0", ExecutionStatus::Exited(0)),
        ("exit 3", ExecutionStatus::Exited(3)),
        ("exit 127", ExecutionStatus::Exited(127)),
        ("exit 255", ExecutionStatus::Exited(255)),
        ("kill -KILL $$", ExecutionStatus::Signalled(9)),
        ("kill -TERM $$", ExecutionStatus::Signalled(15)),
        ("kill -PIPE $$", ExecutionStatus::Signalled(13)),
    ] {
        assert_eq!(bench.sh(script, long()).await.status, status, "{script}");
    }
}

#[tokio::test]
async fn output_is_kept_as_bytes() {
    let bench = Bench::new();
    let run = bench.sh(r"printf 'a\377\000\r\nb'; printf 'e\376' >&2", long()).await;
    assert_eq!(run.status, ExecutionStatus::Exited(0));
    assert_eq!(run.stdout, b"a\xff\x00\r\nb");
    assert_eq!(run.stdout_len, 6);
    assert_eq!(run.stdout_sha256, <[u8; 32]>::from(Sha256::digest(b"a\xff\x00\r\nb")));
    assert_eq!(run.stderr, b"e\xfe");
    assert!(!run.truncated());
}

#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let bench = Bench::new();
    let args = ["", "a b", "$(id)", "`id`", "*", "--", "-n", "';\"", "\n", "é"];
    let run = bench.run(&[&["printf", "[%s]"][..], &args].concat(), long()).await;
    assert_eq!(text(&run.stdout), args.map(|arg| format!("[{arg}]")).concat());
}

#[tokio::test]
async fn what_exceeds_the_limit_is_hashed_and_dropped() {
    const LEN: u64 = 100_000_000;
    let bench = Bench::new();
    let limits = RunLimits { output_max_bytes: 1000, ..long() };
    let run = bench.run(&["head", "-c", &LEN.to_string(), "/dev/zero"], limits).await;
    assert_eq!(run.status, ExecutionStatus::Exited(0));
    assert_eq!(run.stdout, [0; 1000]);
    assert_eq!(run.stdout_len, LEN);
    assert!(run.truncated());
    let mut hash = Sha256::new();
    (0..LEN / 1_000_000).for_each(|_| hash.update(vec![0; 1_000_000]));
    assert_eq!(run.stdout_sha256, <[u8; 32]>::from(hash.finalize()));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 80_000, "{peak} kB");
}

#[tokio::test]
async fn output_at_the_limit_is_whole() {
    let bench = Bench::new();
    for (max, kept) in [(0, ""), (4, "1234"), (5, "12345"), (6, "12345")] {
        let limits = RunLimits { output_max_bytes: max, ..long() };
        let run = bench.run(&["printf", "12345"], limits).await;
        assert_eq!((text(&run.stdout), run.truncated()), (kept, max < 5));
    }
}

#[tokio::test]
async fn errors_beyond_64_kib_are_drained() {
    let bench = Bench::new();
    let run = bench.sh("head -c 3000000 /dev/zero >&2; echo end", long()).await;
    assert_eq!((run.status, run.stdout), (ExecutionStatus::Exited(0), b"end\n".to_vec()));
    assert_eq!(run.stderr.len(), 64 << 10);
}

#[tokio::test]
async fn the_environment_is_what_was_given() {
    let root = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    assert_eq!(text(&bench.run(&["env"], long()).await.stdout), "");
    let env = [("LANG", "C"), ("EMPTY", ""), ("TOKEN", "a=b c")];
    let env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = ProcessConfig { env, ..config(root.path()) };
    assert!(!format!("{config:?}").contains("a=b"));
    let run = ProcessExecutor::new(config).run(command(&["env"], long())).await;
    let mut lines: Vec<_> = text(&run.stdout).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "LANG=C", "TOKEN=a=b c"]);
}

#[tokio::test]
async fn the_tool_gets_its_root_no_input_and_no_terminal() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["cat"], long()).await.status, ExecutionStatus::Exited(0));
    let run = bench.run(&["pwd"], long()).await;
    assert_eq!(text(&run.stdout).trim_end(), bench.root.path().to_str().unwrap());
    assert_ne!(bench.sh(": </dev/tty", long()).await.status, ExecutionStatus::Exited(0));
    let run = bench.run(&["grep", "NoNewPrivs", "/proc/self/status"], long()).await;
    assert_eq!(text(&run.stdout), "NoNewPrivs:\t1\n");
}

#[tokio::test]
async fn the_tool_leads_its_own_process_group() {
    let bench = Bench::new();
    let run = bench.sh("cut -d' ' -f5 /proc/$$/stat; echo $$", long()).await;
    let lines: Vec<_> = text(&run.stdout).lines().collect();
    assert_eq!(lines[0], lines[1]);
}

#[tokio::test]
async fn no_descriptor_is_inherited() {
    let bench = Bench::new();
    // As a careless parent of the gateway would leave it.
    let leaked = rustix::io::dup(std::io::stderr()).unwrap();
    let run = bench.run(&["ls", "/proc/self/fd"], long()).await;
    // 3 is the directory that `ls` reads.
    assert_eq!(text(&run.stdout), "0\n1\n2\n3\n");
    drop(leaked);
    let run = bench.run(&["readlink", "/proc/self/fd/0"], long()).await;
    assert_eq!(text(&run.stdout), "/dev/null\n");
}

#[tokio::test]
async fn the_deadline_ends_what_ignores_signals() {
    let bench = Bench::new();
    let script = "trap '' TERM HUP INT QUIT; echo $$ > pid; printf begun; \
                  while :; do sleep 1000; done";
    let run = bench.sh(script, short()).await;
    assert_eq!((run.status, text(&run.stdout)), (ExecutionStatus::TimedOut, "begun"));
    bench.nothing_left();
    assert!(!runs(bench.pid("pid")));
    assert!(run.duration >= short().timeout);
    assert!(run.duration < short().timeout + Duration::from_secs(5), "{:?}", run.duration);
}

#[tokio::test]
async fn the_deadline_ends_what_never_stops_writing() {
    let bench = Bench::new();
    let run = bench.run(&["cat", "/dev/zero"], short()).await;
    assert_eq!(run.status, ExecutionStatus::TimedOut);
    bench.nothing_left();
    assert!(run.truncated());
    assert!(run.duration < short().timeout + Duration::from_secs(5), "{:?}", run.duration);
}

#[tokio::test]
async fn a_deadline_may_be_far_away() {
    let bench = Bench::new();
    let limits = RunLimits { timeout: Duration::MAX, ..RunLimits::default() };
    assert_eq!(bench.run(&["true"], limits).await.status, ExecutionStatus::Exited(0));
}

#[tokio::test]
async fn a_child_that_holds_the_pipes_ends_with_the_program() {
    let bench = Bench::new();
    let run = bench.sh("sleep 1000 & echo $! > pid; echo done; exit 4", long()).await;
    assert_eq!((run.status, text(&run.stdout)), (ExecutionStatus::Exited(4), "done\n"));
    assert!(run.duration < LONG / 2);
    bench.nothing_left();
    assert!(!runs(bench.pid("pid")));
}

#[tokio::test]
async fn a_daemon_ends_with_the_program_and_at_the_deadline() {
    for (end, limits, status) in [
        ("exit 0", long(), ExecutionStatus::Exited(0)),
        ("sleep 1000", short(), ExecutionStatus::TimedOut),
    ] {
        let bench = Bench::new();
        // Forks twice, in a session of its own, and lets go of the pipes.
        let script = "setsid sh -c 'setsid sleep 1000 >/dev/null 2>&1 & echo $! > pid'";
        let run = bench.sh(&format!("{script}; {end}"), limits).await;
        assert_eq!(run.status, status);
        bench.nothing_left();
        assert!(!runs(bench.pid("pid")));
    }
}

#[tokio::test]
async fn a_process_that_forks_away_is_caught() {
    let bench = Bench::new();
    // Each process lives only until it has forked the next one.
    let script = "f() { echo >> forks; f & }; f; sleep 1000";
    let run = bench.sh(script, short()).await;
    assert_eq!(run.status, ExecutionStatus::TimedOut);
    let forks = bench.root.path().join("forks");
    assert!(fs::metadata(forks).unwrap().len() > 1);
    bench.nothing_left();
}

#[tokio::test]
async fn a_stopped_supervisor_changes_nothing() {
    let bench = Bench::new();
    let script = "echo $PPID > supervisor; setsid sleep 1000 & echo $! > pid; \
                  kill -STOP $PPID; echo $$ > main; sleep 1000";
    let run = bench.sh(script, short()).await;
    assert_eq!(run.status, ExecutionStatus::TimedOut);
    for file in ["supervisor", "pid", "main"] {
        assert!(!runs(bench.pid(file)), "{file}");
    }
    bench.nothing_left();
}

#[tokio::test]
async fn a_killed_supervisor_takes_the_session_along_and_is_unknown() {
    let bench = Bench::new();
    let script = "sleep 1000 & echo $! > pid; echo $$ > main; kill -KILL $PPID; sleep 1000";
    let run = bench.sh(script, long()).await;
    let ExecutionStatus::Unknown(reason) = &run.status else { panic!("{run:?}") };
    assert!(reason.contains("without a status (signal: 9"), "{reason}");
    for file in ["pid", "main"] {
        bounded_wait(file, || !runs(bench.pid(file)));
    }
}

#[tokio::test]
async fn dropping_the_future_kills() {
    let bench = Bench::new();
    let script = "setsid sleep 1000 & echo $! > pid; echo $$ > main; \
                  echo $PPID > supervisor; sleep 1000";
    let run = command(&["sh", "-c", script], long());
    let executor = bench.executor.clone();
    let task = tokio::spawn(async move { executor.run(run).await });
    let begun = bench.root.path().join("supervisor");
    let start = Instant::now();
    while pid(&begun).is_none() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    for file in ["pid", "main", "supervisor"] {
        let stat = format!("/proc/{}", bench.pid(file));
        let start = Instant::now();
        // Gone, not only dead: no zombie of ours either.
        while Path::new(&stat).exists() {
            assert!(start.elapsed() < LONG, "{file}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[test]
fn the_end_of_the_runtime_kills() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = "setsid sleep 1000 & echo $! > pid; echo $$ > main; sleep 1000";
    let (executor, run) = (bench.executor.clone(), command(&["sh", "-c", script], long()));
    runtime.spawn(async move { executor.run(run).await });
    bounded_wait("start", || pid(&bench.root.path().join("main")).is_some());
    drop(runtime);
    for file in ["pid", "main"] {
        bounded_wait(file, || !runs(bench.pid(file)));
    }
}

/// The gateway of the next test; nothing by itself.
#[tokio::test]
async fn gateway() {
    let Ok(root) = std::env::var("COUNTERSIGN_TEST_ROOT") else {
        return;
    };
    let script = "setsid sleep 1000 & echo $! > pid; echo $PPID > supervisor; \
                  echo $$ > main; sleep 1000";
    let executor = ProcessExecutor::new(config(Path::new(&root)));
    executor.run(command(&["sh", "-c", script], long())).await;
}

#[test]
fn the_death_of_the_gateway_kills() {
    let bench = Bench::new();
    let mut gateway = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gateway", "--nocapture"])
        .env("COUNTERSIGN_TEST_ROOT", bench.root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    bounded_wait("start", || pid(&bench.root.path().join("main")).is_some());
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    for file in ["pid", "main", "supervisor"] {
        bounded_wait(file, || !runs(bench.pid(file)));
    }
}

#[tokio::test]
async fn limits_bind_the_tool() {
    let bench = Bench::new();
    let limits = RunLimits {
        nproc: Some(4321),
        nofile: Some(37),
        fsize_bytes: Some(5120),
        address_space_bytes: Some(1 << 30),
        cpu_seconds: Some(17),
        ..long()
    };
    let run = bench.run(&["cat", "/proc/self/limits"], limits.clone()).await;
    let mut rows: Vec<_> = text(&run.stdout).lines().map(|row| &row[26..]).collect();
    rows.iter_mut().for_each(|row| *row = row.trim_end());
    for limit in ["4321", "37", "5120", "1073741824", "17"] {
        let bound = |row: &&str| row.split_whitespace().take(2).eq([limit, limit]);
        assert_eq!(rows.iter().copied().filter(|row| bound(row)).count(), 1, "{limit} {rows:?}");
    }
    let run = bench.sh("ulimit -n; ulimit -t; ulimit -v", limits).await;
    assert_eq!(text(&run.stdout), "37\n17\n1048576\n");
}

#[tokio::test]
async fn limits_have_their_effect() {
    let bench = Bench::new();
    let limits = RunLimits { fsize_bytes: Some(1000), ..long() };
    let run = bench.run(&["dd", "if=/dev/zero", "of=big", "bs=100", "count=99"], limits).await;
    assert_eq!(run.status, ExecutionStatus::Signalled(25), "{run:?}");
    assert_eq!(fs::metadata(bench.root.path().join("big")).unwrap().len(), 1000);
    let limits = RunLimits { cpu_seconds: Some(1), ..long() };
    let run = bench.sh("while :; do :; done", limits).await;
    assert_eq!(run.status, ExecutionStatus::Signalled(9));
    assert!(run.duration < LONG / 2);
}

#[tokio::test]
async fn limits_do_not_weaken_the_supervisor() {
    let bench = Bench::new();
    let limits = RunLimits {
        nproc: Some(0),
        nofile: Some(4),
        fsize_bytes: Some(0),
        cpu_seconds: Some(1),
        ..short()
    };
    let script = "setsid sleep 1000 & echo $!; exec sleep 1000";
    let run = bench.sh(script, limits).await;
    // Unless root, the tool cannot even fork, and says so.
    let said = text(&run.stderr);
    if run.status == ExecutionStatus::Signalled(9) {
        assert!(said.ends_with("more than 1 processes and threads (nproc)\n"), "{said}");
    } else {
        assert!(said.contains("fork"), "{run:?}");
    }
    assert!(text(&run.stdout).lines().all(|pid| !runs(pid.trim().parse().unwrap())));
    // Too little to load any program: whatever it is called, it ends and did not succeed.
    let limits = RunLimits { address_space_bytes: Some(4096), ..long() };
    let run = bench.run(&["true"], limits).await;
    assert_ne!(run.status, ExecutionStatus::Exited(0));
    assert!(run.duration < LONG / 2);
}

#[tokio::test]
async fn a_path_out_of_the_root_is_refused() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/etc", bench.root.path().join("link")).unwrap();
    for path in ["link/passwd", "../x", "/etc/passwd"] {
        let argv = vec!["touch".to_owned(), "ran".to_owned()];
        let plan = Plan::Command(CommandPlan {
            argv,
            paths: vec![path.to_owned()],
            ..CommandPlan::default()
        });
        let run = bench.executor.run(ToolRun::new(plan, long())).await;
        not_started(&run, path);
        assert!(!bench.root.path().join("ran").exists());
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bench = Bench::new();
    not_started(&bench.run(&["no-such"], long()).await, "not found in PATH /usr/bin:/bin");
    not_started(&bench.run(&[], long()).await, "no program");
    not_started(&bench.run(&["true", "a\0b"], long()).await, "nul byte");
    let script = bench.root.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    not_started(&bench.run(&["./script"], long()).await, "script: No such file");

    let good = config(bench.root.path());
    for (config, reason) in [
        (ProcessConfig { root: "/no/such/root".into(), ..good.clone() }, "/no/such/root"),
        (ProcessConfig { root: "relative".into(), ..good.clone() }, "not absolute"),
        (ProcessConfig { path: Vec::new(), ..good.clone() }, "not found in PATH"),
        (
            ProcessConfig { supervisor: SupervisorCommand::new("/no/such"), ..good.clone() },
            "/no/such: No such file",
        ),
        (
            ProcessConfig { supervisor: SupervisorCommand::new("/bin/true"), ..good.clone() },
            "before it started anything (exit status: 0)",
        ),
    ] {
        let run = ProcessExecutor::new(config).run(command(&["true"], long())).await;
        not_started(&run, reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_run_at_once() {
    let bench = Bench::new();
    let tasks: Vec<_> = (0..40)
        .map(|number: i32| {
            let executor = bench.executor.clone();
            let script = format!("sleep 1000 & echo {number}; exit {number}");
            tokio::spawn(async move { executor.run(command(&["sh", "-c", &script], long())).await })
        })
        .collect();
    for (number, task) in (0..).zip(tasks) {
        let run = task.await.unwrap();
        assert_eq!(run.status, ExecutionStatus::Exited(number));
        assert_eq!(text(&run.stdout), format!("{number}\n"));
    }
}
