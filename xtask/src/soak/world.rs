//! A folder with a configuration, tools that leave traces, and a gateway that can be killed.

use crate::{Outcome, process};
use countersign_core::digest::Digest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// How long the gateway may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// The tools whose calls need a person.
pub(crate) const HELD: &[&str] = &["held_stamp", "held_slow"];
pub(crate) const FREE: &str = "free_stamp";

pub(crate) struct World {
    pub(crate) dir: PathBuf,
    binary: PathBuf,
}

/// A person or an agent, and the token that is known in the configuration by its digest.
pub(crate) struct Somebody {
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Somebody {
    pub(crate) fn all(role: &str, count: usize) -> Vec<Self> {
        let one = |n| {
            let id = format!("{role}-{n}");
            Self { token: format!("soak_{id}_{}", Digest::of(&id)), id }
        };
        (1..=count).map(one).collect()
    }
}

/// What a gateway is asked to run: the arguments of every tool here.
pub(crate) fn arguments(name: &str) -> String {
    format!("{{\"name\":\"{name}\"}}")
}

impl World {
    pub(crate) fn new(
        dir: PathBuf,
        built: &Path,
        timeout: Duration,
        people: &[(&str, &[Somebody])],
    ) -> Outcome<Self> {
        for folder in ["root", "tools", "bin"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        for (name, then) in [("stamp", ""), ("slow-stamp", "sleep 0.3\n")] {
            let path = dir.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\nprintf x >> \"$2\"\n{then}"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        for (tool, binary, risk) in [
            (FREE, "stamp", "low"),
            ("held_stamp", "stamp", "high"),
            ("held_slow", "slow-stamp", "high"),
        ] {
            let text = format!(
                "[tool]\nname = \"{tool}\"\nversion = \"1.0.0\"\n\
                 description = \"Leave a mark\"\nbinary = \"{binary}\"\n\
                 timeout_seconds = 30\nrisk_tier = \"{risk}\"\n\
                 [args.name]\ntype = \"string\"\npattern = '^[a-z0-9-]+$'\nrequired = true\n\
                 [command]\nexec = [\"{binary}\", \"--\", \"{{name}}\"]\n[output]\nformat = \"text\"\n"
            );
            fs::write(dir.join("tools").join(format!("{tool}.clad.toml")), text)?;
        }
        let path = |name: &str| dir.join(name).display().to_string();
        let mut config = format!(
            "[server]\nbind = \"127.0.0.1:0\"\ndrain_seconds = 5\n\
             [tools]\ndir = {:?}\nroot = {:?}\npath = [{:?}, \"/usr/bin\", \"/bin\"]\n\
             [policy]\napproval_timeout_seconds = {}\napproval_valid_for_seconds = 86400\n",
            path("tools"),
            path("root"),
            path("bin"),
            timeout.as_secs(),
        );
        for (role, all) in people {
            for Somebody { id, token } in *all {
                write!(
                    config,
                    "[[principals]]\nid = \"{id}\"\nroles = [\"{role}\"]\n\
                     token_sha256 = [\"{}\"]\n",
                    Digest::of(token)
                )?;
            }
        }
        fs::write(dir.join("countersign.toml"), config)?;
        // A copy: whoever builds meanwhile must not have another program started again.
        let binary = dir.join("countersign");
        fs::copy(built, &binary).map_err(|error| format!("{}: {error}", built.display()))?;
        Ok(Self { dir, binary })
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = process::command(&self.binary);
        command
            .current_dir(&self.dir)
            .arg("--state")
            .arg(self.dir.join("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("COUNTERSIGN_URL")
            .env_remove("COUNTERSIGN_TOKEN");
        command
    }

    /// Starts the gateway on whatever state there is, and waits until it can be asked.
    pub(crate) fn start(&self) -> Outcome<Gateway> {
        let log =
            OpenOptions::new().create(true).append(true).open(self.dir.join("gateway.log"))?;
        let mut child = self
            .command(&["serve", "--json"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.binary.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let banner: Option<Value> = serde_json::from_str(&line).ok();
        let address = banner.as_ref().and_then(|banner| {
            banner.get("api")?.as_str()?.strip_prefix("http://")?.split('/').next()?.parse().ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            let log = self.dir.join("gateway.log");
            return Err(format!("the gateway does not start; see {}", log.display()).into());
        };
        Ok(Gateway { child, address, _stdout: stdout })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("state/journal.db")
    }

    /// What `audit verify` says against the log, if it says something.
    pub(crate) fn verify(&self) -> Outcome<Option<String>> {
        let output = self.command(&["audit", "verify", "--json"]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((!output.status.success()).then_some(said))
    }

    /// How often tools ran with these arguments, by the digest of the arguments.
    pub(crate) fn traces(&self) -> Outcome<BTreeMap<String, u64>> {
        let mut traces = BTreeMap::new();
        for entry in fs::read_dir(self.dir.join("root"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = Digest::of(arguments(&name)).to_string();
            traces.insert(key, entry.metadata()?.len());
        }
        Ok(traces)
    }
}

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    /// SIGKILL, and nothing else.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its answer to that.
    pub(crate) fn stop(mut self) -> Outcome {
        let id = self.child.id().to_string();
        process::output(process::command(Path::new("kill")).args(["-TERM", &id]))?;
        let started = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("told to stop, the gateway: {status}").into()),
                None if started.elapsed() > PATIENCE => {
                    return Err("told to stop, the gateway goes on".into());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
