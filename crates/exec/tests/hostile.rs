//! Tools that do their worst, tools that are confined, and what is kept of their output.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::plan::{CommandPlan, ExecutorPlan, Filesystem, Plan, RunLimits};
use countersign_exec::{Evidence, ProcessConfig, ProcessExecutor, SupervisorCommand, confinement};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Forks for ever: what cannot fork dies, and makes room for others that do.
const STORM: &str = "f() { f & f; }; f 2>/dev/null & exec sleep 61";

/// As [`STORM`], for a user whom no limit binds. It ends by itself at 255 shells, so that a broken
/// promise does not take the machine with it.
const UNBOUND: &str =
    "f() { if [ $1 -gt 0 ]; then f $(($1-1)) & f $(($1-1)) & fi; exec sleep 61; }; f 7";

/// Far longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(300);

struct Bench {
    /// The tool root is `root` in it.
    dir: TempDir,
    executor: ProcessExecutor,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let executor = ProcessExecutor::new(ProcessConfig {
            root,
            env: vec![("GIVEN".to_owned(), "1".to_owned())],
            path: vec!["/usr/bin".into(), "/bin".into()],
            supervisor: SupervisorCommand::new(env!("CARGO_BIN_EXE_countersign-supervise")),
        });
        Self { dir, executor }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    async fn sh(&self, script: &str, limits: RunLimits) -> Execution {
        self.executor.run(sh(script, limits)).await
    }

    #[track_caller]
    fn nothing_left(&self) {
        let root = self.at("");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let cwd = fs::read_link(entry.path().join("cwd"));
            if cwd.is_ok_and(|cwd| cwd == root.components().as_path()) {
                panic!("left: {:?}", fs::read_to_string(entry.path().join("stat")));
            }
        }
    }
}

fn sh(script: &str, limits: RunLimits) -> ToolRun {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    ToolRun::new(Plan::Command(CommandPlan { argv, ..CommandPlan::default() }), limits)
}

fn long() -> RunLimits {
    RunLimits { timeout: LONG, ..RunLimits::default() }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn not_started(execution: &Execution, reason: &str) {
    let ExecutionStatus::NotStarted(text) = &execution.status else { panic!("{execution:?}") };
    assert!(text.contains(reason), "{text}");
}

fn script(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn an_executor_gets_its_arguments_from_the_environment_and_nothing_else() {
    let bench = Bench::new();
    script(
        &bench.at("tool"),
        "#!/bin/sh\necho \"$# [$TOOLCLAD_ARG_A] [$GIVEN]\"; env | grep -c TOOLCLAD_",
    );
    let run = |limits| {
        let hostile = "x'; touch made #\n$(touch made)";
        let env = BTreeMap::from([("TOOLCLAD_ARG_A".to_owned(), hostile.to_owned())]);
        let (paths, credentials) = (Vec::new(), Vec::new());
        let plan =
            Plan::Executor(ExecutorPlan { executor: "./tool".into(), env, paths, credentials });
        bench.executor.run(ToolRun::new(plan, limits))
    };
    let done = run(long()).await;
    assert_eq!(done.status, ExecutionStatus::Exited(0));
    assert_eq!(text(&done.stdout), "0 [x'; touch made #\n$(touch made)] [1]\n1\n");
    assert!(!bench.at("made").exists());
    // The same deadline, too.
    script(&bench.at("tool"), "#!/bin/sh\ntrap '' TERM; setsid sleep 61 & sleep 61");
    let done = run(RunLimits { timeout: Duration::from_millis(500), ..long() }).await;
    assert_eq!(done.status, ExecutionStatus::TimedOut);
    bench.nothing_left();
}

/// Whether a confined script can do these things. Each writes its own line.
async fn tried(bench: &Bench, rules: &Filesystem, script: &str) -> Execution {
    let limits = RunLimits { filesystem: Some(rules.clone()), ..long() };
    bench.sh(script, limits).await
}

fn rules(read: &[&str], write: &[&str], create: &[&str]) -> Filesystem {
    let owned = |list: &[&str]| list.iter().map(|&path| path.to_owned()).collect();
    Filesystem { read: owned(read), write: owned(write), create: owned(create) }
}

#[tokio::test]
async fn a_confined_tool_reaches_what_its_manifest_names_and_no_more() {
    let bench = Bench::new();
    for folder in ["in", "log", "out", "other"] {
        fs::create_dir(bench.at(folder)).unwrap();
        fs::write(bench.at(folder).join("file"), "old\n").unwrap();
    }
    symlink("../../outside", bench.at("out/link")).unwrap();
    fs::write(bench.dir.path().join("outside"), "secret\n").unwrap();
    let outside = bench.dir.path().join("outside").display().to_string();
    let all = rules(&["in"], &["log/file"], &["out"]);
    if let Err(why) = confinement() {
        // Where the kernel cannot, nothing runs.
        not_started(&tried(&bench, &all, "echo x > in/file").await, &why);
        assert_eq!(fs::read_to_string(bench.at("in/file")).unwrap(), "old\n");
        return;
    }
    for (attempt, works) in [
        ("cat in/file", true),
        ("ls in", true),
        ("echo x >> in/file", false),
        ("echo x > in/new", false),
        ("rm in/file", false),
        ("cat log/file", true),
        ("echo x >> log/file", true),
        (": > log/file", true),
        ("echo x > log/new", false),
        ("rm log/file", false),
        ("ls log", false),
        ("echo x > out/new && mkdir out/more && mv out/new out/more/ && rm -r out/more", true),
        ("ln -s /etc/passwd out/way", false),
        ("cat out/link", false),
        ("cat other/file", false),
        ("ls .", false),
        ("cat other/../in/file", true),
        (format!("cat {outside}").as_str(), false),
        ("cat /etc/passwd", false),
        ("cat /proc/self/environ", false),
        ("echo x > /tmp/countersign-confined", false),
        ("cat < /dev/null > /dev/null", true),
        // Whatever it starts, and wherever that goes.
        ("setsid sh -c 'cat other/file'", false),
        ("cp /bin/cat out/cat && out/cat in/file", false),
    ] {
        let done = tried(&bench, &all, attempt).await;
        let ExecutionStatus::Exited(code) = done.status else { panic!("{attempt}: {done:?}") };
        assert_eq!(code == 0, works, "{attempt}: {done:?}");
    }
    assert_eq!(fs::read_to_string(bench.at("in/file")).unwrap(), "old\n");
    // The program may stand anywhere.
    script(&bench.at("other/tool"), "#!/bin/sh\necho ran; cat other/file");
    let argv = vec!["./other/tool".to_owned()];
    let plan = Plan::Command(CommandPlan { argv, ..CommandPlan::default() });
    let limits = RunLimits { filesystem: Some(Filesystem::default()), ..long() };
    let done = bench.executor.run(ToolRun::new(plan, limits)).await;
    assert_eq!((done.status, text(&done.stdout)), (ExecutionStatus::Exited(1), "ran\n"));
}

#[tokio::test]
async fn a_tool_that_cannot_be_confined_as_declared_does_not_run() {
    let bench = Bench::new();
    fs::create_dir(bench.dir.path().join("outside")).unwrap();
    fs::write(bench.at("file"), "").unwrap();
    symlink("../outside", bench.at("link")).unwrap();
    for (rules, reason) in [
        (rules(&["missing"], &[], &[]), "[filesystem] missing: No such file"),
        (rules(&[], &["/missing"], &[]), "[filesystem] /missing: No such file"),
        (rules(&[], &[], &["file"]), "files can be made in folders only"),
        (rules(&["link"], &[], &[]), "leads out of the tool root"),
        (rules(&[], &[], &["link"]), "leads out of the tool root"),
    ] {
        let reason = match confinement() {
            Ok(()) => reason.to_owned(),
            Err(why) => why,
        };
        not_started(&tried(&bench, &rules, "touch ran").await, &reason);
        assert!(!bench.at("ran").exists(), "{rules:?}");
    }
}

#[tokio::test]
async fn output_is_kept_as_evidence_for_its_owner_alone() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("evidence");
    let evidence = Evidence::new(&dir, Arc::new(bench.executor.clone()));
    let limits = |file: &str, max| RunLimits {
        evidence: Some(file.to_owned()),
        output_max_bytes: max,
        ..long()
    };
    for (file, script, kept) in [
        ("a.out", "printf 'a\\377b'", &b"a\xffb"[..]),
        ("x/y/b.out", "echo b; exit 3", b"b\n"),
        ("x/cut.out", "echo 123456789", b"12345678"),
        ("x/none.out", ":", b""),
    ] {
        let done = evidence.run(sh(script, limits(file, 8))).await;
        assert!(matches!(done.status, ExecutionStatus::Exited(_)), "{done:?}");
        let found = dir.join(file);
        assert_eq!(fs::read(&found).unwrap(), kept);
        assert_eq!(done.stdout, kept);
        assert_eq!(found.metadata().unwrap().mode() & 0o7777, 0o600);
        if !done.truncated() {
            assert_eq!(done.stdout_sha256, <[u8; 32]>::from(Sha256::digest(kept)));
        }
        for folder in found.ancestors().skip(1).take_while(|path| path.starts_with(&dir)) {
            assert_eq!(folder.metadata().unwrap().mode() & 0o7777, 0o700, "{folder:?}");
        }
    }
    // What is there already is never written to, nor a way out followed.
    fs::create_dir(bench.dir.path().join("outside")).unwrap();
    symlink("../outside", dir.join("link")).unwrap();
    symlink("../outside/file", dir.join("file.out")).unwrap();
    fs::create_dir(dir.join("open")).unwrap();
    fs::set_permissions(dir.join("open"), fs::Permissions::from_mode(0o755)).unwrap();
    for (file, reason) in [
        ("a.out", "File exists"),
        ("file.out", "File exists"),
        ("link/c.out", "symbolic link"),
        ("open/c.out", "mode 700"),
        ("../outside/c.out", "no plain path"),
        ("", "no plain path"),
    ] {
        let done = evidence.run(sh("touch ran", limits(file, 8))).await;
        not_started(&done, reason);
        assert!(!bench.at("ran").exists(), "{file}");
    }
    assert_eq!(fs::read_dir(bench.dir.path().join("outside")).unwrap().count(), 0);
    // Of what did not run there is none.
    let mut run = sh("", limits("d.out", 8));
    run.plan = Plan::Command(CommandPlan { argv: vec!["missing".into()], ..Default::default() });
    not_started(&evidence.run(run).await, "missing");
    assert!(!dir.join("d.out").exists());
}

/// The most memory that this process has had, in MiB. The kernel counts it in batches, so that it
/// may seem to shrink.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn a_gigabyte_of_output_takes_no_memory() {
    let bench = Bench::new();
    let before = peak();
    let limits = RunLimits { output_max_bytes: 4 << 20, ..long() };
    let done = bench.sh("head -c 1G /dev/zero", limits).await;
    assert_eq!((&done.status, done.stdout_len), (&ExecutionStatus::Exited(0), 1 << 30));
    assert_eq!(done.stdout.len(), 4 << 20);
    // Of 2^30 zeros.
    let hash = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14";
    let hex: String = done.stdout_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, hash);
    let grown = peak().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB");
}

/// The script, run as a user whom a limit of processes binds: root is not bound.
fn as_other(script: &str, limits: RunLimits) -> ToolRun {
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    if rustix::process::geteuid().is_root() {
        let other = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--"];
        argv.splice(0..0, other.map(str::to_owned));
    }
    ToolRun::new(Plan::Command(CommandPlan { argv, ..CommandPlan::default() }), limits)
}

/// A tool that forks until it cannot.
#[tokio::test]
async fn a_fork_storm_ends_at_its_limit_and_leaves_nothing() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let storm = "i=0; while [ $i -lt 300 ]; do sleep 61 & i=$((i+1)); echo $i; done; exit 0";
    let limits = RunLimits { nproc: Some(40), ..long() };
    let done = bench.executor.run(as_other(storm, limits)).await;
    assert!(matches!(done.status, ExecutionStatus::Exited(1..)), "{done:?}");
    let started = text(&done.stdout).lines().count();
    assert!(started <= 40, "{started}: {}", text(&done.stderr));
    bench.nothing_left();
}

/// Root is not bound by the kernel, and anybody else is.
#[tokio::test]
async fn a_fork_storm_of_root_ends_when_it_is_seen_to_have_more_than_its_limit() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bench = Bench::new();
    let limits = RunLimits { nproc: Some(40), ..long() };
    let done = bench.sh(UNBOUND, limits).await;
    assert_eq!(done.status, ExecutionStatus::Signalled(9), "{done:?}");
    let said = text(&done.stderr);
    assert!(said.ends_with("ended: it had more than 40 processes and threads (nproc)\n"), "{said}");
    bench.nothing_left();

    let few = "i=0; while [ $i -lt 20 ]; do sleep 0.3 & i=$((i+1)); done; wait; echo done";
    let done = bench.sh(few, RunLimits { nproc: Some(40), ..long() }).await;
    assert_eq!((&done.status, text(&done.stdout)), (&ExecutionStatus::Exited(0), "done\n"));
}

/// A shell whose child is killed a moment earlier than itself would go on with the next command.
#[tokio::test]
async fn nothing_goes_on_behind_the_deadline() {
    let bench = Bench::new();
    let limits = RunLimits { timeout: Duration::from_millis(300), ..long() };
    for _ in 0..20 {
        let done = bench.sh("(sleep 61; echo x >> after); echo y >> after", limits.clone()).await;
        assert_eq!(done.status, ExecutionStatus::TimedOut);
        assert!(done.stderr.is_empty(), "{}", text(&done.stderr));
        assert!(!bench.at("after").exists());
    }
}

/// A machine that is busy with other things makes a run late, so the best of some counts: one
/// that broke its promise would break it each time.
#[tokio::test]
async fn everything_is_dead_within_250_ms_of_the_deadline() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let timeout = Duration::from_millis(400);
    let before = peak();
    for hostile in [
        "sleep 61",
        "trap '' TERM INT HUP; while :; do sleep 61; done",
        "(trap '' TERM; sleep 61) & wait",
        "setsid sh -c 'sleep 61 & sleep 61' & sleep 61",
        "cat /dev/zero",
        "cat /dev/zero >&2",
        "printf '\\377\\376'; sleep 61",
        "cat; read line; sleep 61",
        "kill -STOP $$",
        "i=0; while [ $i -lt 40 ]; do sleep 61 & i=$((i+1)); done; wait",
        STORM,
        UNBOUND,
    ] {
        let mut late = Duration::MAX;
        for _ in 0..8 {
            let limits = RunLimits { timeout, ..long() };
            let run = match hostile {
                STORM => as_other(hostile, RunLimits { nproc: Some(40), ..limits }),
                _ => sh(hostile, limits),
            };
            let done = bench.executor.run(run).await;
            assert_eq!(done.status, ExecutionStatus::TimedOut, "{hostile}");
            bench.nothing_left();
            late = late.min(done.duration - timeout);
            if late < Duration::from_millis(250) {
                break;
            }
        }
        assert!(late < Duration::from_millis(250), "{hostile}: {late:?} late");
        let grown = peak().saturating_sub(before);
        assert!(grown < 64, "{hostile}: {grown} MiB");
    }
}
