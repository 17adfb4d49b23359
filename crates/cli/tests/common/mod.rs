//! A real gateway in a folder of its own, driven from outside.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod mcp;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// How long anything may take before the test fails. Nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A state folder, a tool root with a git repository in it, and tools.
pub struct World {
    pub dir: tempfile::TempDir,
    pub tools: PathBuf,
    /// What the environment has beside that of the test.
    pub env: Vec<(&'static str, String)>,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap()
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        for args in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &["config", "user.name", "Test"],
            &["config", "user.email", "test@example.org"],
            &["commit", "--quiet", "--allow-empty", "--message=first commit"],
        ] {
            assert!(Command::new("git").current_dir(&root).args(args).status().unwrap().success());
        }
        std::fs::write(root.join("notes.md"), "hello\n").unwrap();
        let tools = repository().join("examples/tools");
        Self { dir, tools, env: Vec::new() }
    }

    /// The example tools, and these.
    pub fn with_tools(files: &[(&str, &str)]) -> Self {
        let mut world = Self::new();
        let tools = world.dir.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        for entry in std::fs::read_dir(&world.tools).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, tools.join(path.file_name().unwrap())).unwrap();
        }
        for (name, text) in files {
            std::fs::write(tools.join(name), text).unwrap();
        }
        world.tools = tools;
        world
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn database(&self) -> PathBuf {
        self.state().join("journal.db")
    }

    pub fn configure(&self, text: &str) {
        std::fs::write(self.dir.path().join("countersign.toml"), text).unwrap();
    }

    /// What the journal says of reloads, of those with this status.
    pub fn reloads(&self, status: &str) -> Vec<String> {
        let text = self.text(&["journal", "tail", "-n", "100000", "--json"]);
        text.lines().filter(|line| line.contains(status)).map(str::to_owned).collect()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.dir.path()).arg("--state").arg(self.state()).args(args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env_remove("COUNTERSIGN_URL").env_remove("COUNTERSIGN_TOKEN");
        command
    }

    pub fn serve_args(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (tools, root) = (path(&self.tools), path(&self.root()));
        let args = ["serve", "--json", "--bind", "127.0.0.1:0", "--tools", &tools, "--root", &root];
        args.map(str::to_owned).to_vec()
    }

    pub fn start(&self) -> Gateway {
        let args = self.serve_args();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut child = self
            .command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Ok(banner) = serde_json::from_str(&line) else {
            let mut why = String::new();
            stderr.read_to_string(&mut why).unwrap();
            panic!("the gateway did not start: {line}{why}");
        };
        // Read all along: a log that nobody reads would hold the gateway up.
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Gateway { child, banner, stdout, stderr: Some(stderr) }
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{args:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    pub fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a governed call through the command line and leaves it running.
    pub fn spawn_call(&self, tool: &str, args: &Value) -> Child {
        self.command(&["call", tool, "--json", "--args", &args.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The hold of a call of this tool, as soon as there is one.
    pub fn held(&self, tool: &str) -> Value {
        wait_for(&format!("a hold of {tool}"), || {
            // A gateway that somebody else starts may not be there yet.
            let output = self.run(&["approvals", "list", "--json"]);
            let holds: Value = serde_json::from_slice(&output.stdout).ok()?;
            let mut holds = holds.as_array()?.iter();
            holds.find(|hold| hold["context_snapshot"]["tool"] == tool).cloned()
        })
    }

    pub fn git_log(&self) -> Vec<String> {
        let output = Command::new("git")
            .current_dir(self.root())
            .args(["log", "--format=%s"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The event kinds of the whole journal, without those of runs.
    pub fn story(&self) -> Vec<String> {
        let text = self.text(&["journal", "tail", "-n", "100000", "--json"]);
        let kinds = text.lines().map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["event_index"]["event_kind"].as_str().unwrap().to_owned()
        });
        kinds.filter(|kind| !kind.starts_with("run_")).collect()
    }

    pub fn verify(&self) -> (bool, Value) {
        let report = self.json(&["audit", "verify"]);
        (report["ok"] == true, report)
    }
}

/// Looks until it is there; fails, by name, when patience ends.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a request was answered with.
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A principal of the configuration. Its token is its id and `-token`.
/// Replaces the file in one step, as a careful program does.
pub fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

pub fn principal(id: &str, role: &str) -> String {
    let digest = countersign_core::digest::Digest::of(format!("{id}-token"));
    format!("[[principals]]\nid = \"{id}\"\nroles = [\"{role}\"]\ntoken_sha256 = [\"{digest}\"]\n")
}

pub struct Gateway {
    pub child: Child,
    pub banner: Value,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
}

impl Gateway {
    pub fn mcp(&self) -> &str {
        self.banner["mcp"].as_str().unwrap()
    }

    pub fn token(&self) -> &str {
        self.banner["agent_token"].as_str().unwrap()
    }

    /// One request on a connection of its own.
    pub fn send(&self, request: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        self.send_text(request, token, &body.map(Value::to_string).unwrap_or_default())
    }

    /// As [`send`](Self::send), whatever the body is.
    pub fn send_text(&self, request: &str, token: Option<&str>, body: &str) -> Answer {
        let address = self.mcp().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let token = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// SIGKILL, and nothing else.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns the exit code and what was written to standard error.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the gateway does not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code(), self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn finish(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}
