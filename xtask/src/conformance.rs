//! Holds the gateway against the official MCP conformance suite: a server that passes it is asked
//! directly, and behind the gateway with every call allowed, and no verdict may be worse.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Outcome, e2e, process, workspace};

/// The agent that the suite is, which sends no token.
const CONFIG: &str = "\
[server]\nbind = \"127.0.0.1:0\"\nanonymous_agent = \"agent\"\n\
[policy]\nhold_from = \"never\"\n\
[[upstream]]\nname = \"suite\"\nprefix = \"\"\nrisk = \"low\"\n\
pass = [\"prompts\", \"resources\", \"completions\", \"logging\", \"sampling\", \"elicitation\"]\n";

/// How many scenarios the suite has for servers, at least.
const SCENARIOS_MIN: usize = 32;

/// The worst that a scenario said of each of its checks.
type Verdicts = BTreeMap<String, BTreeMap<String, String>>;

pub(crate) fn run() -> Outcome {
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let folder = target.join("e2e");
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let project = e2e::node_project(&folder)?;
    process::run(process::cargo().args(["build", "--locked", "--package", "countersign"]))?;
    let node = project.join("node_modules/node/bin/node");
    let work = tempfile::tempdir()?;

    let mut server = process::command(&node);
    server.arg(project.join("conformance-server.mjs"));
    let (_server, said) = Running::start(server)?;
    let direct = said.trim().to_owned();

    let config = work.path().join("countersign.toml");
    std::fs::write(&config, format!("{CONFIG}url = \"{direct}\"\n"))?;
    for name in ["tools", "root"] {
        std::fs::create_dir(work.path().join(name))?;
    }
    let mut gateway = process::command(target.join("debug/countersign"));
    gateway.current_dir(work.path());
    gateway.args(["--state", "state", "serve", "--json", "--tools", "tools", "--root", "root"]);
    let (_gateway, said) = Running::start(gateway)?;
    let banner: Value = serde_json::from_str(&said)?;
    let behind = banner.get("mcp").and_then(Value::as_str).ok_or("the gateway has no address")?;

    let suite = |url: &str, name: &str| suite(&node, &project, url, &work.path().join(name));
    let (expected, found) = (suite(&direct, "direct")?, suite(behind, "behind")?);
    compare(&expected, &found)
}

fn compare(expected: &Verdicts, found: &Verdicts) -> Outcome {
    if expected.len() < SCENARIOS_MIN {
        return Err(format!("the suite ran {} scenarios of {SCENARIOS_MIN}", expected.len()).into());
    }
    let mut worse_count = 0;
    for (scenario, checks) in expected {
        let behind = found.get(scenario);
        let worse = is_worse(checks, behind);
        let words = |checks: Option<&BTreeMap<String, String>>| match checks {
            Some(checks) => {
                let words = checks.iter().map(|(id, verdict)| format!("{id} {verdict}"));
                words.collect::<Vec<_>>().join(", ")
            }
            None => "not run".to_owned(),
        };
        let said = if behind == Some(checks) {
            "same"
        } else if worse {
            "WORSE"
        } else {
            "better"
        };
        println!("{said} {scenario}: {}", words(Some(checks)));
        if said != "same" {
            println!("     behind the gateway: {}", words(behind));
        }
        worse_count += usize::from(worse);
    }
    println!("conformance: {} scenarios, {worse_count} with a worse verdict", expected.len());
    match worse_count {
        0 => Ok(()),
        _ => Err("the conformance suite judges worse of the server behind the gateway".into()),
    }
}

/// Whether a check is not there, says worse, or complains only behind the gateway.
fn is_worse(checks: &BTreeMap<String, String>, behind: Option<&BTreeMap<String, String>>) -> bool {
    let Some(behind) = behind else { return true };
    let missing = checks.keys().any(|id| !behind.contains_key(id));
    let best = rank("SUCCESS");
    missing || behind.iter().any(|(id, verdict)| verdict > checks.get(id).unwrap_or(&best))
}

/// Runs every scenario. That some fail is no failure here.
fn suite(node: &Path, project: &Path, url: &str, results: &Path) -> Outcome<Verdicts> {
    let program = project.join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    println!("conformance: asking {url}");
    let said = process::command(node)
        .arg(program)
        .args(["server", "--suite", "all", "--url", url, "--output-dir"])
        .arg(results)
        .stdin(Stdio::null())
        .output()?;
    let mut verdicts = Verdicts::new();
    let folders = std::fs::read_dir(results).map_err(|error| {
        format!("the suite left no results: {error}\n{}", String::from_utf8_lossy(&said.stderr))
    })?;
    for folder in folders {
        let path: PathBuf = folder?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // server-NAME-2030-01-01T00-00-00-000Z
        let name = name.trim_start_matches("server-");
        let scenario = name.get(..name.len().saturating_sub(25)).unwrap_or(name).to_owned();
        let text = std::fs::read_to_string(path.join("checks.json"))?;
        let checks: Vec<Value> = serde_json::from_str(&text)?;
        let of = verdicts.entry(scenario).or_default();
        for check in &checks {
            let text = |key| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            // Those say what happened, and judge nothing.
            if text("status") == "INFO" {
                continue;
            }
            let verdict = of.entry(text("id")).or_default();
            *verdict = std::mem::take(verdict).max(rank(&text("status")));
        }
    }
    Ok(verdicts)
}

/// The verdicts as words that sort from the best to the worst.
fn rank(status: &str) -> String {
    match status {
        "SUCCESS" => "passes".to_owned(),
        "WARNING" => "warns".to_owned(),
        other => format!("x-{}", other.to_lowercase()),
    }
}

/// A program that ends with this.
struct Running(Child);

impl Running {
    /// Starts it, and waits for its first line.
    fn start(mut command: Command) -> Outcome<(Self, String)> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut running = Self(child);
        let output = running.0.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        match line.is_empty() {
            true => Err("a program ended before it was ready".into()),
            false => Ok((running, line)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
