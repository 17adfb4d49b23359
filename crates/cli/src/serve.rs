//! `countersign serve`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use countersign_audit::critic::CriticSigner;
use countersign_core::digest::Digest;
use countersign_kernel::{Found, Kernel, Parts};
use countersign_manifest::{ManifestSet, Severity};
use countersign_ports::journal::Journal as _;
use countersign_server::{CRITIC_VERDICT, Critics, Role, Server, ServerConfig, ServerParts};
use countersign_store_sqlite::SqliteJournal;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::SetOnce;

use crate::approvals::{self, Deciding};
use crate::args::{Beside, Global, Serve};
use crate::config::{self, Config, Loaded, Tools};
use crate::executors;
use crate::hooks;
use crate::log;
use crate::manifest::files::Files;
use crate::notifiers;
use crate::output::{Failure, Paint, counted};
use crate::reload::{Look, Reload};
use crate::secrets;
use crate::state;
use crate::system::{OsEntropy, SystemClock};
use crate::upstreams::Catalog;

pub(crate) fn run(global: &Global, args: Serve) -> Result<ExitCode, Failure> {
    log::start();
    let mut loaded = config::load(global)?;
    if let Some(bind) = args.bind {
        loaded.config.server.bind = bind;
        if !bind.ip().is_loopback() && loaded.config.server.anonymous_agent.is_some() {
            return Err(Failure::new("server.anonymous_agent is for loopback addresses only"));
        }
        if !bind.ip().is_loopback() && !loaded.config.server.behind_proxy {
            return Err(Failure::new(format!(
                "{bind} can be reached by others without encryption"
            ))
            .hint("bind to 127.0.0.1, or put a TLS proxy in front and set server.behind_proxy"));
        }
    }
    if let Some(tools) = args.tools {
        loaded.config.tools.dir = tools;
    }
    if let Some(root) = args.root {
        loaded.config.tools.root = root;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)))
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let result = runtime.block_on(serve(&loaded, args.stdio, global.json));
    // A reader of standard input cannot be interrupted; nothing else is left to wait for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve(loaded: &Loaded, stdio: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let stop = stop_signal()?;
    let config = &loaded.config;
    let entropy = Arc::new(OsEntropy);
    let clock = Arc::new(SystemClock);
    // Caught from now on, or it would end this process.
    let reload = signal(SignalKind::hangup())
        .map_err(|error| Failure::new(format!("signals cannot be caught: {error}")))?;
    let root = tool_root(loaded)?;
    let seen = Look::at(&config.tools.dir);
    let (manifests, problems) = load_manifests(config)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    let state = state::open(loaded, &*entropy)?;
    let origin = state.key.public().name().to_owned();
    let journal = SqliteJournal::open(&loaded.database(), state.key, config.store.max_bytes)
        .map_err(|error| Failure::of(&error))?;
    let journal = Arc::new(journal);
    let (env, path) = (tool_environment(&config.tools.env), tool_path(config.tools.path.clone()));
    // All that decides what a plan does, beside the plan: an approval is good for no other.
    let mut context = vec![("root".to_owned(), root.display().to_string())];
    context.extend(path.iter().map(|dir| ("path".to_owned(), dir.display().to_string())));
    context.extend(env.iter().map(|(name, value)| (format!("env.{name}"), value.clone())));
    context.extend(secrets::context(loaded));
    let setting =
        hooks::Setting { tool_root: root.clone(), path: path.clone(), clock: clock.clone() };
    let hooks = hooks::build(loaded, &setting)?;
    let console = Arc::new(SetOnce::new());
    let notifiers = notifiers::build(loaded, &setting, &console)?;
    let told = notifiers.len();
    for hook in &hooks {
        let hash = hook.spec.spec_hash().map_err(|error| Failure::of(&error))?;
        context.push((format!("hook.{}", hook.spec.hook_id), hash.to_string()));
    }
    let digest = manifests.digest();
    let secrets = secrets::build(loaded, &setting)?;
    log::redact(secrets.redactor());
    let catalog = Catalog::new(loaded, &setting, &secrets, &*journal, &manifests).await?;
    let (catalog, listings) = catalog.unzip();
    let (manifests, problems): (_, Vec<String>) = match &catalog {
        Some(catalog) => {
            let (manifests, more) = catalog.manifests().await;
            more.iter().for_each(|problem| eprintln!("{problem}"));
            (manifests, problems.into_iter().chain(more).collect())
        }
        None => (manifests, problems),
    };
    context.extend(catalog.iter().flat_map(Catalog::context));
    let Deciding { rules, delegations } = approvals::build(loaded, &manifests, &state.principals)?;
    let policy = loaded.policy(rules, context);
    let mcp = catalog.as_ref().map(Catalog::executor);
    let executor = executors::build(loaded, &setting, secrets, env, mcp)?;
    let served = || manifests.iter().filter(|manifest| !manifest.is_own());
    let tools = served().count();
    let hooked = hooks.len();
    let behind = served().filter(|manifest| manifest.upstream_definition().is_some()).count();
    let held = served().filter(|manifest| policy.may_hold(manifest)).count();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let (kernel, found) = Kernel::start(Parts {
        journal: journal.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        executor: Arc::new(executor),
        manifests,
        policy,
        limits: loaded.limits(),
        hooks,
        notifiers,
        version: format!("countersign {version}"),
    })
    .await
    .map_err(|error| Failure::of(&error))?;
    let critics = critics(&journal, &found, &origin, state.critic_key, state.critic_next).await?;
    if let (Some(catalog), Some(listings)) = (&catalog, listings) {
        catalog.begin(kernel.clone(), listings).await?;
    }
    let known = state.principals.clone();
    let running = kernel.clone();
    let server = Server::bind(ServerParts {
        kernel,
        log: Some(journal.clone()),
        critics: Some(critics),
        upstreams: catalog.as_ref().map(|catalog| Arc::new(catalog.upstreams()) as _),
        principals: state.principals,
        delegations,
        clock,
        entropy,
        config: ServerConfig {
            bind: config.server.bind,
            allowed_hosts: config.server.allowed_hosts.clone(),
            max_body_bytes: config.server.max_body_bytes,
            drain: Duration::from_secs(config.server.drain_seconds),
            pending_after: Duration::from_secs(config.server.pending_after_seconds),
            answer_max_bytes: config.server.answer_max_bytes,
            secure_cookie: config.server.behind_proxy,
            public_log: config.server.public_log,
            anonymous_agent: config.server.anonymous_agent.clone(),
            version: version.clone(),
        },
    })
    .await
    .map_err(|error| Failure::of(&error))?;
    state::critic_handed_over(loaded)?;
    let base = format!("http://{}", server.address());
    let link = config.server.public_url.as_ref().unwrap_or(&base);
    let _ = console.set(link.trim_end_matches('/').to_owned());
    // With --stdio, whoever reads this is the agent's own client: it gets nothing by which it
    // could decide.
    let sign_in = match stdio {
        true => None,
        false => server
            .console_link(&[Role::Approver, Role::Admin])
            .map_err(|error| Failure::of(&error))?,
    };
    // Only if it still is one: principals may have been configured since it was made.
    let agent = state::token(&loaded.state, "agent").filter(|token| {
        let digest = Digest::of(token.as_bytes());
        known.iter().any(|p| p.roles.contains(&Role::Agent) && p.tokens.contains(&digest))
    });
    let records = *journal.head().borrow();
    let address = loaded.state.join("address");
    std::fs::write(&address, format!("{base}\n"))
        .map_err(|error| Failure::new(format!("{}: {error}", address.display())))?;
    let unknown: Vec<_> = found.unknown_effects.iter().map(ToString::to_string).collect();
    let banner = if as_json {
        json!({
            "mcp": format!("{base}/mcp"),
            "agent_token": agent.as_ref().map(|token| token.as_str()),
            "console": sign_in,
            "api": format!("{base}/api/v1"),
            "tools": tools,
            "root": root.display().to_string(),
            "tools_held": held,
            "hooks": hooked,
            "notifiers": told,
            "manifest_problems": problems.len(),
            "records": records,
            "log": origin,
            "holds_reopened": found.reopened,
            "holds_lapsed": found.lapsed,
            "unused_approvals": found.unused_approvals,
            "grants": found.grants,
            "unknown_effects": unknown,
        })
        .to_string()
    } else {
        let paint = Paint::stdout();
        let mut text = format!("{} {version}\n\n", paint.bold("countersign"));
        let mut line = |name: &str, value: &str| {
            text.push_str(&format!("  {} {value}\n", paint.dim(&format!("{name:8}"))));
        };
        line("mcp", &format!("{base}/mcp"));
        line("token", agent.as_ref().map_or("as configured", |token| token.as_str()));
        line("console", sign_in.as_deref().unwrap_or(&base));
        line(
            "",
            match &sign_in {
                Some(_) => "one-time link, good for an hour; later: the token in credentials/",
                None => "sign in with the approver's token, in credentials/ of the state folder",
            },
        );
        let dir = config.tools.dir.display();
        let from = match (tools - behind, behind) {
            (_, 0) => format!("{tools} from {dir}"),
            (0, _) => format!("{tools} of upstream servers"),
            (described, _) => format!("{described} from {dir}, {behind} of upstream servers"),
        };
        line("tools", &format!("{from}, {held} of them need a person"));
        line("root", &format!("{}, where tools work", root.display()));
        if hooked > 0 {
            line("hooks", &format!("{hooked}, as declared in the configuration"));
        }
        if told > 0 {
            line("told", &format!("{told} notifiers, of each call that waits"));
        }
        let database = loaded.database();
        line("journal", &format!("{}, {records} records, log {origin}", database.display()));
        if !problems.is_empty() {
            line("", &format!("{}, see above", counted(problems.len(), "manifest problem")));
        }
        if found.reopened + found.lapsed + found.unused_approvals > 0 {
            line(
                "resumed",
                &format!(
                    "{} held calls wait on, {} ran out meanwhile, {} approvals wait to be used",
                    found.reopened, found.lapsed, found.unused_approvals
                ),
            );
        }
        if found.grants > 0 {
            line("", &format!("{} session grants are good for further calls", found.grants));
        }
        for call in &unknown {
            line("unknown", &format!("{call} may or may not have happened; it is not run again"));
        }
        text
    };
    if stdio {
        // Standard output belongs to the protocol.
        eprintln!("{banner}");
    } else {
        crate::output::say(&banner);
    }
    let agent = stdio.then(|| config.stdio.agent.clone());
    let fits = |set: &ManifestSet| approvals::build(loaded, set, &known).map(drop);
    let reloading =
        Reload { kernel: running, catalog: catalog.clone(), loaded, fits: &fits, seen, digest };
    let every = Duration::from_secs(config.tools.watch_seconds);
    let served = tokio::select! {
        served = server.run(agent, stop) => served,
        never = reloading.run(every, reload) => match never {},
    };
    let _ = std::fs::remove_file(&address);
    if let Some(catalog) = &catalog {
        catalog.end().await;
    }
    served.map_err(|error| Failure::of(&error))?;
    Ok(ExitCode::SUCCESS)
}

/// The chain of verdicts, behind the newest one in the journal.
async fn critics(
    journal: &SqliteJournal,
    found: &Found,
    origin: &str,
    signer: CriticSigner,
    next: Option<CriticSigner>,
) -> Result<Critics, Failure> {
    let last = match found.additions.get(CRITIC_VERDICT) {
        None => None,
        Some(seq) => {
            #[derive(serde::Deserialize)]
            struct Record {
                payload: serde_json::Value,
            }
            let entries = journal.read(*seq, 1).await.map_err(|error| Failure::of(&error))?;
            let bytes = entries.into_iter().next().map(|entry| entry.bytes).unwrap_or_default();
            let record: Record =
                serde_json::from_slice(&bytes).map_err(|error| Failure::of(&error))?;
            Some(record.payload)
        }
    };
    let chain_id = format!("{origin}/critics");
    Critics::resume(&chain_id, last.as_ref(), signer, next).map_err(|error| {
        Failure::of(&error)
            .hint("critic.key in the state folder is the key; put the right one back")
    })
}

/// The folder tools work in. Nothing of the gateway's own may lie in it: whatever a tool can
/// read an agent can, and the tokens and keys of the state folder would let it decide about
/// its own calls; whatever a tool can write it can, manifests and rules included.
pub(crate) fn tool_root(loaded: &Loaded) -> Result<PathBuf, Failure> {
    let named = &loaded.config.tools.root;
    let failure =
        |error: std::io::Error| Failure::new(format!("tools.root {}: {error}", named.display()));
    if named == Path::new(config::DEFAULT_ROOT) && !named.exists() {
        std::fs::create_dir(named).map_err(failure)?;
    }
    let root = std::fs::canonicalize(named).map_err(failure)?;
    if !root.is_dir() {
        return Err(Failure::new(format!("tools.root {} is no folder", named.display())));
    }
    let own = [
        ("the state folder", Some(loaded.state.as_path())),
        ("the manifests", Some(loaded.config.tools.dir.as_path())),
        ("the configuration", loaded.path.as_deref()),
    ];
    for (what, path) in own {
        let Some(path) = path.and_then(resolve) else { continue };
        if path.starts_with(&root) {
            return Err(Failure::new(format!(
                "{what} ({}) lies in the folder tools work in ({})",
                path.display(),
                root.display()
            ))
            .hint(
                "an agent could read or change it; name another folder with --root or tools.root, \
                 or another --state",
            ));
        }
        if root.starts_with(&path) && what == "the state folder" {
            return Err(Failure::new("the folder tools work in lies in the state folder")
                .hint("name another folder with --root or tools.root"));
        }
    }
    Ok(root)
}

/// The path with every symlink followed, as far as it exists.
pub(crate) fn resolve(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let mut missing = Vec::new();
    let mut there = absolute.as_path();
    loop {
        if let Ok(found) = std::fs::canonicalize(there) {
            return Some(missing.iter().rev().fold(found, |path, name| path.join(name)));
        }
        missing.push(there.file_name()?.to_owned());
        there = there.parent()?;
    }
}

/// Yields when the gateway is told to stop. The signals are caught from the call on, not only
/// once it is awaited.
fn stop_signal() -> Result<impl Future<Output = &'static str>, Failure> {
    let catch = |kind| {
        signal(kind).map_err(|error| Failure::new(format!("signals cannot be caught: {error}")))
    };
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        eprintln!("{name}: finishing what runs; once more to stop at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
        name
    })
}

/// A folder of manifests, as it was read.
pub(crate) struct Folder {
    /// Every tool that can be run.
    pub(crate) set: ManifestSet,
    /// Every problem in the manifests, in `toolclad.toml` and in the scope.
    pub(crate) problems: Vec<String>,
    /// Whether a file has an error, so that something is not served.
    pub(crate) broken: bool,
}

/// The tools and the problems of [`read_manifests`].
pub(crate) fn load_manifests(config: &Config) -> Result<(ManifestSet, Vec<String>), Failure> {
    read_manifests(config).map(|folder| (folder.set, folder.problems))
}

/// Reads the folder of manifests.
pub(crate) fn read_manifests(config: &Config) -> Result<Folder, Failure> {
    let dir = &config.tools.dir;
    // Whoever has upstream servers and names no folder need not have the one of this repository.
    let unnamed = *dir == Tools::default().dir && !dir.exists();
    if unnamed && !config.upstream.is_empty() {
        return Ok(Folder { set: ManifestSet::default(), problems: Vec::new(), broken: false });
    }
    let files = Files::of(dir).map_err(|error| {
        Failure::new(format!("the manifests in {}: {error}", dir.display()))
            .hint("name a folder with --tools, or tools.dir in countersign.toml")
    })?;
    let (mut set, found) = files.load(&Beside::default());
    let broken = found.iter().any(|problem| problem.diagnostic.severity == Severity::Error);
    let found = found.iter().map(|problem| {
        let kind = match problem.diagnostic.severity {
            Severity::Error => "not served",
            Severity::Warning => "served all the same",
        };
        format!("{problem} ({kind})")
    });
    let mut problems: Vec<_> = found.collect();
    problems.extend(set.iter().filter_map(|manifest| {
        let (name, what) = (manifest.name(), executors::missing(manifest, config)?);
        Some(format!("{name}: its manifest is right, but {what} (not served)"))
    }));
    set.retain(|manifest| executors::missing(manifest, config).is_none());
    Ok(Folder { set, problems, broken })
}

pub(crate) fn tool_path(configured: Option<Vec<PathBuf>>) -> Vec<PathBuf> {
    configured.unwrap_or_else(|| {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        // A relative entry would let the tool root choose the program.
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
    })
}

fn tool_environment(names: &[String]) -> Vec<(String, String)> {
    let set = names.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    set.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_upstream_no_folder_of_manifests_is_needed_unless_one_is_named() {
        let upstream = "[[upstream]]\nname = \"up\"\nurl = \"http://127.0.0.1:9/mcp\"\n";
        for (more, there) in [(upstream, true), ("", false)] {
            // Tests run in the folder of the crate, which has no `examples/tools`.
            let config: Config = toml::from_str(more).unwrap();
            assert_eq!(read_manifests(&config).is_ok(), there, "{more}");
        }
        let named = format!("[tools]\ndir = \"none\"\n{upstream}");
        let config: Config = toml::from_str(&named).unwrap();
        assert!(read_manifests(&config).is_err());
    }
}
