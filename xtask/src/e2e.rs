//! Prepares the clients of the end-to-end tests below `target/e2e/` and runs the tests:
//! a Python with the MCP package, a Node project with the MCP package and a browser driver,
//! and Chromium. The versions are stamped, so that the second run prepares nothing.

use crate::{Outcome, process, workspace};
use std::path::{Path, PathBuf};

const PYTHON_PACKAGES: &[&str] = &["cryptography==48.0.0", "mcp==2.3.0"];
/// What `tests/e2e/package.json` must install.
const NODE_PACKAGES: &[(&str, &str)] = &[
    ("@modelcontextprotocol/conformance", "0.1.16"),
    ("@modelcontextprotocol/sdk", "1.32.2"),
    ("@modelcontextprotocol/server-everything", "2026.8.31"),
    ("@modelcontextprotocol/server-filesystem", "2026.8.31"),
    ("node", "22.23.3"),
    ("playwright-core", "1.65.1"),
];
const PYTHON_AT_LEAST: (u32, u32) = (3, 10);
const NODE_AT_LEAST: u32 = 18;
/// The Node project and the scripts of the tests, copied to `target/e2e/ts` on every run.
const SOURCE: &str = "tests/e2e";

#[derive(Default, clap::Args)]
pub(crate) struct Options {
    /// Only prepare, run no test
    #[arg(long)]
    prepare: bool,
    /// For the test program, after `--`: the name of a test, --nocapture is given
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let metadata = workspace::metadata()?;
    let folder = metadata.target_directory.join("e2e").into_std_path_buf();
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;

    let system_python = tool(&Tool {
        what: "Python 3.10 or newer with venv and pip",
        packages: &["python3", "python3-venv"],
        find: python,
    })?;
    let (node, npm) = tool(&NODE)?;
    let chromium = tool(&Tool {
        what: "Chromium (chromium, chromium-browser or google-chrome)",
        packages: &["chromium"],
        find: chromium,
    })?;
    let python = prepare_python(&folder, &system_python)?;
    let project = prepare_node(&folder, &node, &npm)?;
    println!("e2e: python    {}", python.display());
    println!("e2e: node      {}", project.display());
    println!("e2e: chromium  {}", chromium.display());
    if options.prepare {
        return Ok(());
    }

    let has_tests =
        metadata.packages.iter().filter(|package| package.name == "countersign").any(|package| {
            package.targets.iter().any(|target| target.is_test() && target.name == "e2e")
        });
    if !has_tests {
        return Err("crates/cli/Cargo.toml has no test named `e2e`; add \
                    [[test]] name = \"e2e\", path = \"tests/e2e.rs\", test = false"
            .into());
    }
    process::run(process::cargo().args(["build", "--locked", "--package", "countersign"]))?;
    process::run(
        process::cargo()
            .args(["test", "--locked", "--package", "countersign", "--test", "e2e"])
            .args(["--", "--nocapture"])
            .args(&options.arguments)
            .env("COUNTERSIGN_E2E", "1")
            .env("COUNTERSIGN_E2E_PYTHON", &python)
            .env("COUNTERSIGN_E2E_NODE_DIR", &project)
            .env("COUNTERSIGN_E2E_CHROMIUM", &chromium),
    )
}

/// The Node project alone, prepared below this folder.
pub(crate) fn node_project(folder: &Path) -> Outcome<PathBuf> {
    let (node, npm) = tool(&NODE)?;
    prepare_node(folder, &node, &npm)
}

const NODE: Tool<(PathBuf, PathBuf)> =
    Tool { what: "Node 18 or newer with npm", packages: &["nodejs", "npm"], find: node };

/// A program the machine must have.
struct Tool<T> {
    what: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// The program, or why it cannot be used.
    find: fn() -> Result<T, String>,
}

/// The program; installed with apt-get first when it is missing and this may be done.
fn tool<T>(tool: &Tool<T>) -> Outcome<T> {
    let missing = match (tool.find)() {
        Ok(found) => return Ok(found),
        Err(missing) => missing,
    };
    let packages = tool.packages.join(" ");
    let advice = format!(
        "the end-to-end tests need {}: {missing}\n  on Debian: apt-get install {packages}; \
         elsewhere install it so that it is on PATH",
        tool.what
    );
    let Some(apt_get) = process::find(&["apt-get"]).filter(|_| is_root()) else {
        return Err(advice.into());
    };
    println!("e2e: installing {packages}: {missing}");
    let apt = |arguments: &[&str]| {
        process::run(
            process::command(&apt_get).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update", "-qq"]).map_err(|error| format!("{advice}\n  {error}"))?;
    let mut install = vec!["install", "-qq", "-y", "--no-install-recommends"];
    install.extend(tool.packages);
    apt(&install).map_err(|error| format!("{advice}\n  {error}"))?;
    (tool.find)().map_err(|missing| {
        format!(
            "the packages {packages} are installed, but the end-to-end tests need {}: {missing}",
            tool.what
        )
        .into()
    })
}

fn is_root() -> bool {
    process::output(process::command("id").arg("-u")).is_ok_and(|said| said.trim_ascii() == b"0")
}

/// What the program prints about itself, in one line.
fn ask(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let said = process::output(process::command(program).args(arguments))
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

fn python() -> Result<PathBuf, String> {
    let found = process::find(&["python3", "python"]).ok_or("no python3 on PATH")?;
    let script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
    let version = ask(&found, &["-c", script])?;
    if numbers(&version) < vec![PYTHON_AT_LEAST.0, PYTHON_AT_LEAST.1] {
        return Err(format!("{} is version {version}", found.display()));
    }
    Ok(found)
}

fn node() -> Result<(PathBuf, PathBuf), String> {
    let node = process::find(&["node", "nodejs"]).ok_or("no node on PATH")?;
    let version = ask(&node, &["--version"])?;
    if numbers(&version) < vec![NODE_AT_LEAST] {
        return Err(format!("{} is version {version}", node.display()));
    }
    let npm = process::find(&["npm"]).ok_or("no npm on PATH")?;
    Ok((node, npm))
}

fn chromium() -> Result<PathBuf, String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = process::find(&names).ok_or("none of them is on PATH")?;
    // A placeholder that only says how to install the program is no browser.
    ask(&found, &["--version"])?;
    Ok(found)
}

/// The numbers of a version such as `v20.1` or `3.11`, without a leading letter.
fn numbers(version: &str) -> Vec<u32> {
    version.trim_start_matches('v').split('.').map_while(|part| part.parse().ok()).collect()
}

/// The Python of a virtual environment that has the MCP package, and the one for Ed25519 that
/// `examples/verify.py` needs.
fn prepare_python(folder: &Path, system: &Path) -> Outcome<PathBuf> {
    let home = folder.join("python");
    let python = home.join("bin/python");
    let version = ask(system, &["-c", "import sys; print(sys.executable, sys.version)"])?;
    let packages = PYTHON_PACKAGES.join(" ");
    let stamp = Stamp::new(folder, "python", format!("{packages}\n{version}\n"));
    if python.is_file() && stamp.is_current() {
        return Ok(python);
    }
    stamp.remove()?;
    process::run(process::command(system).args(["-m", "venv", "--clear"]).arg(&home)).map_err(
        |error| format!("cannot make a Python environment; is python3-venv installed?\n  {error}"),
    )?;
    process::run(
        process::command(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PYTHON_PACKAGES),
    )
    .map_err(|error| {
        format!("cannot install {packages} with pip; is the package index reachable?\n  {error}")
    })?;
    stamp.write()?;
    Ok(python)
}

/// The Node project with its packages installed.
fn prepare_node(folder: &Path, node: &Path, npm: &Path) -> Outcome<PathBuf> {
    let source = workspace::root().join(SOURCE);
    let manifest = std::fs::read_to_string(source.join("package.json")).map_err(|error| {
        format!("cannot read {SOURCE}/package.json, which names the Node packages: {error}")
    })?;
    let lock = std::fs::read_to_string(source.join("package-lock.json")).ok();
    let project = folder.join("ts");
    copy_below(&source, &project)
        .map_err(|error| format!("cannot copy {SOURCE} to {}: {error}", project.display()))?;

    let version = ask(node, &["--version"])?;
    let content = format!("node {version}\n{manifest}\n{}", lock.as_deref().unwrap_or_default());
    let stamp = Stamp::new(folder, "ts", content);
    if project.join("node_modules").is_dir() && stamp.is_current() {
        return Ok(project);
    }
    stamp.remove()?;
    let verb = if lock.is_some() { "ci" } else { "install" };
    process::run(
        process::command(npm)
            .args([verb, "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&project),
    )
    .map_err(|error| {
        format!("cannot install the Node packages; is the package registry reachable?\n  {error}")
    })?;
    for (package, wanted) in NODE_PACKAGES {
        let installed = installed_version(&project, package).unwrap_or_else(|| "missing".into());
        if installed != *wanted {
            return Err(format!(
                "{package} is {installed}, not {wanted}; correct {SOURCE}/package.json and its lock"
            )
            .into());
        }
    }
    stamp.write()?;
    Ok(project)
}

fn installed_version(project: &Path, package: &str) -> Option<String> {
    let at = project.join("node_modules").join(package).join("package.json");
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(at).ok()?).ok()?;
    manifest.get("version")?.as_str().map(str::to_owned)
}

/// Copies a folder; `node_modules` stays behind.
fn copy_below(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "node_modules" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_below(&entry.path(), &to.join(name))?;
        } else {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

/// A file that says what a folder was prepared from; written last, so that a folder whose
/// preparation was cut short has none.
struct Stamp {
    at: PathBuf,
    content: String,
}

impl Stamp {
    fn new(folder: &Path, name: &str, content: String) -> Self {
        Self { at: folder.join(format!("{name}.stamp")), content }
    }

    fn is_current(&self) -> bool {
        std::fs::read_to_string(&self.at).is_ok_and(|found| found == self.content)
    }

    fn remove(&self) -> Outcome {
        match std::fs::remove_file(&self.at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", self.at.display()).into())
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> Outcome {
        std::fs::write(&self.at, &self.content)
            .map_err(|error| format!("cannot write {}: {error}", self.at.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(numbers("v20.20.2"), [20, 20, 2]);
        assert!(numbers("3.9") < vec![3, 10]);
        assert!(numbers("3.11") >= vec![3, 10]);
        assert!(numbers("v16.0.0") < vec![18]);
        assert!(numbers("v18.0.0") >= vec![18]);
        assert!(numbers("garbage") < vec![18]);
    }
}
