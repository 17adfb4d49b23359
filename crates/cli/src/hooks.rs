//! `[[hooks]]` in `countersign.toml`: programs and webhooks at the points of a run.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::hook::{
    HookExecutionMode, HookFailurePolicy, HookMutationRight, HookMutationRights, HookOrdering,
    HookOrderingPhase, HookOverflowPolicy, HookPoint, HookPrivacyPolicy, HookSource, HookSpec,
    HookSpecError, HookTimeoutPolicy,
};
use countersign_core::id::{HookExecutorRef, HookId, RefId};
use countersign_core::plan::RunLimits;
use countersign_core::refs::{PolicyKind, PolicyRef};
use countersign_exec::hook::{ProcessHook, WebhookConfig, WebhookHook};
use countersign_exec::{ProcessConfig, SupervisorCommand};
use countersign_kernel::Hook;
use countersign_ports::clock::Clock;
use countersign_ports::hook::HookExecutor;
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use crate::config::{Loaded, at};
use crate::output::Failure;

/// The points that the gateway passes. A hook at another would never run.
const PASSED: &[HookPoint] = &[
    HookPoint::RunStarting,
    HookPoint::BeforeToolCall,
    HookPoint::AfterToolCall,
    HookPoint::BeforeApprovalRequest,
    HookPoint::AfterApprovalDecision,
    HookPoint::BeforeRunComplete,
    HookPoint::AfterRunTerminal,
];

/// How long a program or an endpoint may take unless told otherwise.
const TIMEOUT_MS: u64 = 2000;

/// How long a webhook may take to be connected to, within its time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Most memory a program may map, and how many files it may open.
const PROCESS_LIMITS: (u64, u64) = (4 << 30, 256);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HookTable {
    id: Spanned<HookId>,
    point: Spanned<HookPoint>,
    command: Option<Spanned<Vec<String>>>,
    env: Option<Spanned<Vec<String>>>,
    url: Option<Spanned<String>>,
    secret_file: Option<Spanned<PathBuf>>,
    secret_env: Option<Spanned<String>>,
    allow: Option<Spanned<Vec<String>>>,
    ca_file: Option<Spanned<PathBuf>>,
    mode: Option<Spanned<Mode>>,
    rights: Option<Spanned<BTreeSet<HookMutationRight>>>,
    timeout_ms: Option<Spanned<u64>>,
    on_failure: Option<Spanned<HookFailurePolicy>>,
    phase: Option<HookOrderingPhase>,
    order: Option<i32>,
    queue_capacity: Option<Spanned<std::num::NonZeroUsize>>,
    terminal_reserve: Option<Spanned<std::num::NonZeroUsize>>,
    overflow: Option<Spanned<HookOverflowPolicy>>,
    privacy: Option<HookPrivacyPolicy>,
    policy: Option<Spanned<RefId>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Blocking,
    NonBlocking,
}

/// A problem, and where in the file it is.
type Problem = (Range<usize>, String);

impl HookTable {
    /// The specification, held against the contract.
    fn spec(&self) -> Result<HookSpec, Problem> {
        let (id, point) = (self.id.get_ref().clone(), *self.point.get_ref());
        if !PASSED.contains(&point) {
            let passed: Vec<_> = PASSED.iter().map(|point| format!("`{point}`")).collect();
            let why = format!("the gateway never passes `{point}`, only {}", passed.join(", "));
            return Err((self.point.span(), why));
        }
        let reference = match (&self.command, &self.url) {
            (Some(_), None) => HookExecutorRef::new(format!("process.{id}")),
            (None, Some(_)) => HookExecutorRef::new(format!("webhook.{id}")),
            _ => {
                let why = "a hook has either `command` or `url`".to_owned();
                return Err((self.id.span(), why));
            }
        };
        let own = |error: countersign_core::id::IdError| (self.id.span(), error.to_string());
        let executor_ref = reference.map_err(own)?;
        let policy = match &self.policy {
            Some(policy) => policy.get_ref().clone(),
            None => RefId::new(format!("policy.hooks.{id}")).map_err(own)?,
        };
        let policy = PolicyRef { kind: PolicyKind::Host, id: policy, version: None };
        let rights = HookMutationRights::with(
            self.rights.iter().flat_map(|rights| rights.get_ref().iter().copied()),
        );
        let waits = match &self.mode {
            Some(mode) => *mode.get_ref() == Mode::Blocking,
            None => point.is_security_critical() || rights.first_change().is_some(),
        };
        let source = HookSource::HostConfig;
        let mut spec = match waits {
            true => HookSpec::blocking(id, point, source, executor_ref, policy, rights),
            false => HookSpec {
                mutation_rights: rights,
                ..HookSpec::observing(id, point, source, executor_ref, policy)
            },
        };
        self.queue(&mut spec)?;
        spec.ordering = HookOrdering {
            phase: self.phase.unwrap_or(spec.ordering.phase),
            order: self.order.unwrap_or(spec.ordering.order),
        };
        let timeout_ms = self.timeout_ms.as_ref().map_or(TIMEOUT_MS, |ms| *ms.get_ref());
        spec.timeout = HookTimeoutPolicy { timeout_ms };
        if let Some(failure) = &self.on_failure {
            spec.failure = *failure.get_ref();
        }
        spec.privacy = self.privacy.unwrap_or(spec.privacy);
        match spec.validate() {
            Ok(()) => Ok(spec),
            Err(error) => Err((self.place(&error), error.to_string())),
        }
    }

    fn queue(&self, spec: &mut HookSpec) -> Result<(), Problem> {
        match &mut spec.execution {
            HookExecutionMode::NonBlocking { queue, overflow } => {
                let given = |count: &Option<Spanned<_>>| count.as_ref().map(|c| *c.get_ref());
                queue.capacity = given(&self.queue_capacity).unwrap_or(queue.capacity);
                queue.terminal_reserve =
                    given(&self.terminal_reserve).unwrap_or(queue.terminal_reserve);
                *overflow = self.overflow.as_ref().map_or(*overflow, |given| *given.get_ref());
                Ok(())
            }
            HookExecutionMode::Blocking => {
                let spans = [
                    self.queue_capacity.as_ref().map(Spanned::span),
                    self.terminal_reserve.as_ref().map(Spanned::span),
                    self.overflow.as_ref().map(Spanned::span),
                ];
                match spans.into_iter().flatten().next() {
                    None => Ok(()),
                    Some(span) => {
                        let why = "a hook that is waited for has no queue; set mode = \
                                   \"non_blocking\"";
                        Err((span, why.to_owned()))
                    }
                }
            }
        }
    }

    /// Where the value stands that breaks the rule.
    fn place(&self, error: &HookSpecError) -> Range<usize> {
        let (rights, mode) = (self.rights.as_ref(), self.mode.as_ref());
        let span = match error {
            HookSpecError::NoTime { .. } => self.timeout_ms.as_ref().map(Spanned::span),
            HookSpecError::Right { .. } => rights.map(Spanned::span),
            HookSpecError::NonBlockingChange { .. } => {
                mode.map(Spanned::span).or(rights.map(Spanned::span))
            }
            HookSpecError::FailOpen { .. } => {
                self.on_failure.as_ref().map(Spanned::span).or(mode.map(Spanned::span))
            }
            HookSpecError::Duplicate { .. } | HookSpecError::Json { .. } => None,
        };
        span.unwrap_or_else(|| self.id.span())
    }

    fn executor(&self, folder: &Path, setting: &Setting) -> Result<Arc<dyn HookExecutor>, Problem> {
        match (&self.command, &self.url) {
            (Some(command), _) => self.process(command, folder, setting),
            (None, Some(url)) => self.webhook(url, folder, setting),
            (None, None) => {
                Err((self.id.span(), "a hook has either `command` or `url`".to_owned()))
            }
        }
    }

    fn process(
        &self,
        command: &Spanned<Vec<String>>,
        folder: &Path,
        setting: &Setting,
    ) -> Result<Arc<dyn HookExecutor>, Problem> {
        self.only(
            "command",
            [
                ("secret_file", self.secret_file.as_ref().map(Spanned::span)),
                ("secret_env", self.secret_env.as_ref().map(Spanned::span)),
                ("allow", self.allow.as_ref().map(Spanned::span)),
                ("ca_file", self.ca_file.as_ref().map(Spanned::span)),
            ],
        )?;
        let problem = |why: String| (command.span(), why);
        let argv = command.get_ref();
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            return Err(problem("the command names no program".to_owned()));
        };
        if argv.iter().any(|arg| arg.contains('\0')) {
            return Err(problem("the command has a NUL byte".to_owned()));
        }
        // Whatever a tool can write an agent can, and this runs with the gateway's rights.
        for arg in argv {
            let Ok(path) = std::fs::canonicalize(folder.join(arg)) else { continue };
            if path.starts_with(&setting.tool_root) {
                return Err(problem(format!(
                    "`{arg}` lies in the folder tools work in: an agent could change it"
                )));
            }
        }
        if program.contains('/') && !folder.join(program).is_file() {
            return Err(problem(format!("there is no file {}", folder.join(program).display())));
        }
        let names = self.env.iter().flat_map(|names| names.get_ref());
        let env = names.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        let config = ProcessConfig {
            root: folder.to_owned(),
            env: env.chain([("PATH".to_owned(), setting.path_text())]).collect(),
            path: setting.path.clone(),
            supervisor: SupervisorCommand::this_binary(),
        };
        let (address_space, files) = PROCESS_LIMITS;
        let limits = RunLimits {
            timeout: self.timeout(),
            address_space_bytes: Some(address_space),
            nofile: Some(files),
            ..RunLimits::default()
        };
        Ok(Arc::new(ProcessHook::new(config, argv.clone(), limits)))
    }

    fn webhook(
        &self,
        url: &Spanned<String>,
        folder: &Path,
        setting: &Setting,
    ) -> Result<Arc<dyn HookExecutor>, Problem> {
        self.only("url", [("env", self.env.as_ref().map(Spanned::span))])?;
        let (secret, place) = match (&self.secret_file, &self.secret_env) {
            (Some(file), None) => {
                let path = folder.join(file.get_ref());
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| (file.span(), format!("{}: {error}", path.display())))?;
                (Zeroizing::new(Zeroizing::new(text).trim().to_owned()), file.span())
            }
            (None, Some(name)) => {
                let missing = || {
                    let why = format!("the environment has no `{}`", name.get_ref());
                    (name.span(), why)
                };
                let text = std::env::var(name.get_ref()).map_err(|_| missing())?;
                (Zeroizing::new(text), name.span())
            }
            _ => {
                let why = "a webhook has either `secret_file` or `secret_env`: whsec_ and 24 to \
                           64 bytes in base64, by which it knows the gateway";
                return Err((url.span(), why.to_owned()));
            }
        };
        let mut allow = Vec::new();
        if let Some(networks) = &self.allow {
            for text in networks.get_ref() {
                let network = text.parse();
                allow.push(network.map_err(|error| {
                    let why = format!("`{text}` is no network such as 10.0.0.0/8: {error}");
                    (networks.span(), why)
                })?);
            }
        }
        let roots_pem = match &self.ca_file {
            None => None,
            Some(file) => {
                let path = folder.join(file.get_ref());
                let pem = std::fs::read(&path);
                Some(pem.map_err(|error| (file.span(), format!("{}: {error}", path.display())))?)
            }
        };
        let connect_timeout = CONNECT_TIMEOUT.min(self.timeout());
        let url_text = url.get_ref().clone();
        let config = WebhookConfig { url: url_text, secret, allow, connect_timeout, roots_pem };
        let hook = WebhookHook::new(config, Arc::clone(&setting.clock)).map_err(|error| {
            let span = match error.field {
                "secret" => place,
                "allow" => self.allow.as_ref().map_or(url.span(), Spanned::span),
                "roots_pem" => self.ca_file.as_ref().map_or(url.span(), Spanned::span),
                _ => url.span(),
            };
            (span, format!("{}: {}", error.field, error.rule))
        })?;
        Ok(Arc::new(hook))
    }

    fn only<const N: usize>(
        &self,
        what: &str,
        foreign: [(&str, Option<Range<usize>>); N],
    ) -> Result<(), Problem> {
        match foreign.into_iter().find_map(|(name, span)| Some((name, span?))) {
            None => Ok(()),
            Some((name, span)) => {
                Err((span, format!("`{name}` means nothing for a hook with `{what}`")))
            }
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.as_ref().map_or(TIMEOUT_MS, |ms| *ms.get_ref()))
    }
}

/// What hooks need from their surroundings.
pub(crate) struct Setting {
    pub(crate) tool_root: PathBuf,
    pub(crate) path: Vec<PathBuf>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Setting {
    fn path_text(&self) -> String {
        let joined = std::env::join_paths(&self.path).unwrap_or_default();
        joined.to_string_lossy().into_owned()
    }
}

/// Holds the hooks of a configuration against the contract, without touching anything else.
pub(crate) fn check(path: &str, text: &str, tables: &[HookTable]) -> Result<(), Failure> {
    specs(tables).map(drop).map_err(|(span, why)| at(path, text, span.start, &why))
}

fn specs(tables: &[HookTable]) -> Result<Vec<HookSpec>, Problem> {
    let mut seen = BTreeSet::new();
    let mut specs = Vec::new();
    for table in tables {
        let spec = table.spec()?;
        if !seen.insert(spec.hook_id.clone()) {
            let why = format!("two hooks have the id `{}`", spec.hook_id);
            return Err((table.id.span(), why));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// The hooks of a configuration with the code behind them. Relative paths are those of the
/// configuration's folder.
pub(crate) fn build(loaded: &Loaded, setting: &Setting) -> Result<Vec<Hook>, Failure> {
    let Some(file) = &loaded.path else { return Ok(Vec::new()) };
    let folder = std::path::absolute(file)
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("/"));
    let tables = &loaded.config.hooks;
    let failure =
        |(span, why): Problem| at(&file.display().to_string(), &loaded.text, span.start, &why);
    let specs = specs(tables).map_err(failure)?;
    let mut hooks = Vec::new();
    for (table, spec) in tables.iter().zip(specs) {
        let executor = table.executor(&folder, setting).map_err(failure)?;
        hooks.push(Hook { spec, executor });
    }
    Ok(hooks)
}
