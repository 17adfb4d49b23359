//! `countersign doctor`: is everything in place?

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use countersign_store_sqlite::{LogReader, OpenError};
use serde::Serialize;

use crate::args::Global;
use crate::config::{self, Loaded};
use crate::output::{Failure, Paint, counted, say, say_json};
use crate::serve;

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    detail: String,
}

pub(crate) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    let mut note = |what, result: Result<String, String>| {
        let ok = result.is_ok();
        let detail = result.unwrap_or_else(|problem| problem);
        findings.push(Finding { what, ok, detail });
    };
    match config::load(global) {
        Err(failure) => note("configuration", Err(failure.message)),
        Ok(loaded) => {
            note(
                "configuration",
                Ok(match &loaded.path {
                    Some(path) => path.display().to_string(),
                    None => "none; the defaults are in force".to_owned(),
                }),
            );
            note("state folder", state_folder(&loaded));
            let root = serve::tool_root(&loaded).map(|root| root.display().to_string());
            note("tool root", root.map_err(|failure| failure.message));
            note("journal", journal(&loaded));
            note("manifests", manifests(&loaded));
            note("programs", programs(&loaded));
            note("confinement", confinement(&loaded));
            note("hooks", hooks(&loaded));
            note("secrets", secrets(&loaded));
            note("rules", rules(&loaded));
            note("address", address(&loaded));
        }
    }
    let ok = findings.iter().all(|finding| finding.ok);
    if global.json {
        say_json(&findings);
    } else {
        let paint = Paint::stdout();
        for Finding { what, ok, detail } in &findings {
            let mark = if *ok { paint.good("ok ") } else { paint.bad("bad") };
            say(&format!("{mark}  {what:14} {detail}"));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn state_folder(loaded: &Loaded) -> Result<String, String> {
    let dir = &loaded.state;
    if !dir.exists() {
        return Ok(format!("{} is not there yet; `countersign serve` makes it", dir.display()));
    }
    for name in
        ["log.key", "principals.toml", "credentials/agent.token", "credentials/approver.token"]
    {
        let path = dir.join(name);
        let Ok(metadata) = path.metadata() else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(format!("{path} has mode {mode:o}; others can read it: chmod 600 {path}"));
        }
    }
    if loaded.database().exists() && !dir.join("log.key").exists() {
        return Err("there is a journal and no log.key; put the key back".to_owned());
    }
    Ok(dir.display().to_string())
}

fn journal(loaded: &Loaded) -> Result<String, String> {
    let path = loaded.database();
    match LogReader::open(&path).and_then(|reader| reader.head()) {
        Ok(records) => Ok(format!("{}, {records} records", path.display())),
        Err(OpenError::Missing(path)) => Ok(format!("{} is not there yet", path.display())),
        Err(error) => Err(error.to_string()),
    }
}

fn manifests(loaded: &Loaded) -> Result<String, String> {
    let (set, problems) =
        serve::load_manifests(&loaded.config).map_err(|failure| failure.message)?;
    match problems.first() {
        None => Ok(format!("{} tools in {}", set.iter().len(), loaded.config.tools.dir.display())),
        Some(first) => Err(format!("{}, the first: {first}", counted(problems.len(), "problem"))),
    }
}

fn programs(loaded: &Loaded) -> Result<String, String> {
    let (set, _) = serve::load_manifests(&loaded.config).map_err(|failure| failure.message)?;
    let path = serve::tool_path(loaded.config.tools.path.clone());
    let found = |name: &str| {
        let there = |path: &Path| {
            path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        if name.contains('/') {
            there(Path::new(name))
        } else {
            path.iter().any(|dir| there(&dir.join(name)))
        }
    };
    let missing: Vec<_> = set
        .iter()
        .filter(|manifest| !manifest.program().is_empty() && !found(manifest.program()))
        .map(|manifest| format!("{} (for {})", manifest.program(), manifest.name()))
        .collect();
    if missing.is_empty() {
        Ok("every tool's program is on the path".to_owned())
    } else {
        Err(format!("not found: {}", missing.join(", ")))
    }
}

/// Bad only if a tool needs it: then no call of that tool runs.
fn confinement(loaded: &Loaded) -> Result<String, String> {
    let (set, _) = serve::load_manifests(&loaded.config).map_err(|failure| failure.message)?;
    let confined = set.iter().filter(|manifest| manifest.filesystem().is_some());
    let confined: Vec<_> = confined.map(|manifest| manifest.name()).collect();
    match countersign_exec::confinement() {
        Ok(()) => Ok(format!("this kernel can; {} tools are confined to files", confined.len())),
        Err(why) if confined.is_empty() => Ok(format!("{why}; no tool needs it")),
        Err(why) => Err(format!("{why}; these tools do not run: {}", confined.join(", "))),
    }
}

fn setting(loaded: &Loaded) -> Result<crate::hooks::Setting, String> {
    Ok(crate::hooks::Setting {
        tool_root: serve::tool_root(loaded).map_err(|failure| failure.message)?,
        path: serve::tool_path(loaded.config.tools.path.clone()),
        clock: std::sync::Arc::new(crate::system::SystemClock),
    })
}

fn secrets(loaded: &Loaded) -> Result<String, String> {
    let build = || {
        let setting = setting(loaded)?;
        let secrets = crate::secrets::build(loaded, &setting).map_err(|f| f.message)?;
        crate::secrets::executor(loaded, &setting, secrets).map_err(|f| f.message)
    };
    build().map(|_| match loaded.config.secrets.len() {
        0 => "none".to_owned(),
        count => format!("{count}, all readable"),
    })
}

fn hooks(loaded: &Loaded) -> Result<String, String> {
    let setting = setting(loaded)?;
    let hooks = crate::hooks::build(loaded, &setting).map_err(|failure| failure.message)?;
    crate::notifiers::webhooks(loaded, &setting, &std::sync::Arc::default())
        .map_err(|failure| failure.message)?;
    Ok(match hooks.len() {
        0 => "none".to_owned(),
        count => format!("{count}; their programs and secrets are there, no endpoint was asked"),
    })
}

fn rules(loaded: &Loaded) -> Result<String, String> {
    let deciding = crate::explain::deciding(loaded).map_err(|failure| failure.message)?;
    Ok(match (deciding.rules.iter().len(), deciding.delegations.len()) {
        (0, 0) => "none".to_owned(),
        (rules, delegations) => format!("{rules} for approvals, {delegations} delegations"),
    })
}

fn address(loaded: &Loaded) -> Result<String, String> {
    let bind = loaded.config.server.bind;
    match TcpListener::bind(bind) {
        Ok(_) => Ok(format!("{bind} is free")),
        Err(_) if recorded(loaded).is_some_and(|at| TcpStream::connect(at).is_ok()) => {
            Ok(format!("{bind} is in use, by the gateway of this folder"))
        }
        Err(error) => Err(format!("{bind}: {error}")),
    }
}

/// Where the gateway of this folder says it listens.
fn recorded(loaded: &Loaded) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(loaded.state.join("address")).ok()?;
    text.trim().strip_prefix("http://")?.parse().ok()
}
