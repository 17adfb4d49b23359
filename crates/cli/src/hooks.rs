//! `[[hooks]]` in `countersign.toml`: programs and webhooks at the points of a run.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::hook::{
    HookExecutionMode, HookFailurePolicy, HookMutationRight, HookMutationRights, HookOrdering,
    HookOrderingPhase, HookOverflowPolicy, HookPoint, HookPrivacyPolicy, HookSource, HookSpec,
    HookSpecError, HookTimeoutPolicy,
};
use countersign_core::id::{HookExecutorRef, HookId, RefId};
use countersign_core::plan::RunLimits;
use countersign_core::refs::{PolicyKind, PolicyRef};
use countersign_exec::hook::{ProcessHook, WebhookHook};
use countersign_exec::{ProcessConfig, SupervisorCommand};
use countersign_kernel::Hook;
use countersign_ports::clock::Clock;
use countersign_ports::hook::HookExecutor;
use serde::Deserialize;
use toml::Spanned;

use crate::config::{Loaded, at};
use crate::endpoint::{Endpoint, Problem};
use crate::output::Failure;
use crate::serve::resolve;
use crate::system::SystemClock;

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

/// The rights that the gateway can apply an answer of. Answers by the others are for runtimes
/// that call models, and would be rejected.
const APPLIED: &[HookMutationRight] = &[
    HookMutationRight::Observe,
    HookMutationRight::ModifyToolRequest,
    HookMutationRight::ModifyApprovalRequest,
    HookMutationRight::Deny,
    HookMutationRight::RequestApproval,
    HookMutationRight::RewriteToolResult,
    HookMutationRight::StopCompletionWithRepairNeeded,
    HookMutationRight::StopRun,
];

/// How long a program or an endpoint may take unless told otherwise.
const TIMEOUT_MS: u64 = 2000;

/// How much later than its deadline a program ends when nobody has ended it.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

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

impl HookTable {
    /// The specification, held against the contract.
    fn spec(&self) -> Result<HookSpec, Problem> {
        let (id, point) = (self.id.get_ref().clone(), *self.point.get_ref());
        if !PASSED.contains(&point) {
            let passed: Vec<_> = PASSED.iter().map(|point| format!("`{point}`")).collect();
            let why = format!("the gateway never passes `{point}`, only {}", passed.join(", "));
            return Err((self.point.span(), why));
        }
        // Names the code too, so that another program or address is another specification.
        let reference = |kind: &str, code: &[u8]| {
            HookExecutorRef::new(format!("{kind}.{id}@{}", Digest::of(code)))
        };
        let reference = match (&self.command, &self.url) {
            (Some(command), None) => reference("process", command.get_ref().join("\0").as_bytes()),
            (None, Some(url)) => reference("webhook", url.get_ref().as_bytes()),
            _ => return Err(self.no_code()),
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
        spec.validate().map_err(|error| self.broken(&error))?;
        self.useless(point).map_or(Ok(spec), Err)
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

    /// The broken rule in the words of the configuration, and where the value stands.
    fn broken(&self, error: &HookSpecError) -> Problem {
        let (rights, mode) = (self.rights.as_ref(), self.mode.as_ref());
        let (rights, mode) = (rights.map(Spanned::span), mode.map(Spanned::span));
        let (span, why) = match error {
            HookSpecError::NoTime { .. } => {
                (self.timeout_ms.as_ref().map(Spanned::span), "no hook answers in 0 ms".to_owned())
            }
            HookSpecError::Right { right, point, .. } => {
                let possible = point.changes().iter().map(|class| class.right());
                let possible = words(possible.filter(|right| APPLIED.contains(right)));
                (
                    rights,
                    format!("`{right}` is not possible at `{point}`, only `observe`{possible}"),
                )
            }
            HookSpecError::NonBlockingChange { right, .. } => {
                (mode.or(rights), format!("the right `{right}` needs mode = \"blocking\""))
            }
            HookSpecError::FailOpen { why, .. } => {
                let given = self.on_failure.as_ref().map(Spanned::span);
                let default = match given {
                    Some(_) => "",
                    None => ", the default of a hook that is not waited for,",
                };
                let why = format!("`fail_open_observe_only`{default} is not possible {why}");
                (given.or(mode), format!("{why}; set another `on_failure`"))
            }
            HookSpecError::Duplicate { .. } | HookSpecError::Json { .. } => {
                (None, error.to_string())
            }
        };
        (span.unwrap_or_else(|| self.id.span()), why)
    }

    /// A right that is possible at the point, for an answer that nothing here could apply.
    fn useless(&self, point: HookPoint) -> Option<Problem> {
        let rights = self.rights.as_ref()?;
        let right = rights.get_ref().iter().find(|right| !APPLIED.contains(right))?;
        let why = format!("the gateway has nothing to apply `{right}` to at `{point}`");
        Some((rights.span(), why))
    }

    /// What the text alone decides about the code behind the hook.
    fn code(&self) -> Result<(), Problem> {
        match (&self.command, &self.url) {
            (Some(command), _) => self.program(command).map(drop),
            (None, Some(url)) => {
                let endpoint = self.endpoint(url)?;
                let config = endpoint.without_secret()?;
                let hook = WebhookHook::new(config, Arc::new(SystemClock));
                hook.map(drop).map_err(|error| endpoint.problem(&error))
            }
            (None, None) => Err(self.no_code()),
        }
    }

    fn no_code(&self) -> Problem {
        let both = self.command.as_ref().and(self.url.as_ref());
        let span = both.map_or_else(|| self.id.span(), Spanned::span);
        (span, "a hook has either `command` or `url`".to_owned())
    }

    fn executor(&self, folder: &Path, setting: &Setting) -> Result<Arc<dyn HookExecutor>, Problem> {
        match (&self.command, &self.url) {
            (Some(command), _) => self.process(command, folder, setting),
            (None, Some(url)) => self.webhook(url, folder, setting),
            (None, None) => Err(self.no_code()),
        }
    }

    /// The program's name.
    fn program<'a>(&self, command: &'a Spanned<Vec<String>>) -> Result<&'a str, Problem> {
        self.only(
            "command",
            [
                ("secret_file", self.secret_file.as_ref().map(Spanned::span)),
                ("secret_env", self.secret_env.as_ref().map(Spanned::span)),
                ("allow", self.allow.as_ref().map(Spanned::span)),
                ("ca_file", self.ca_file.as_ref().map(Spanned::span)),
            ],
        )?;
        let argv = command.get_ref();
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            return Err((command.span(), "the command names no program".to_owned()));
        };
        if argv.iter().any(|arg| arg.contains('\0')) {
            return Err((command.span(), "the command has a NUL byte".to_owned()));
        }
        Ok(program)
    }

    fn process(
        &self,
        command: &Spanned<Vec<String>>,
        folder: &Path,
        setting: &Setting,
    ) -> Result<Arc<dyn HookExecutor>, Problem> {
        let program = self.program(command)?;
        let problem = |why: String| (command.span(), why);
        let argv = command.get_ref();
        let found = match program.contains('/') {
            true => Some(folder.join(program)).filter(|file| file.is_file()),
            // As the executor looks for it.
            false => {
                let absolute = setting.path.iter().filter(|dir| dir.is_absolute());
                absolute.map(|dir| dir.join(program)).find(|file| file.is_file())
            }
        };
        let Some(found) = found else {
            return Err(problem(match program.contains('/') {
                true => format!("there is no file {}", folder.join(program).display()),
                false => format!("there is no program `{program}` in {}", setting.path_text()),
            }));
        };
        // Whatever a tool can write an agent can, and this runs with the gateway's rights.
        for path in argv.iter().map(|arg| folder.join(arg)).chain([found]) {
            if setting.reaches(&path) {
                return Err(problem(format!(
                    "{} lies in the folder tools work in: an agent could change it",
                    path.display()
                )));
            }
        }
        let mut env = vec![("PATH".to_owned(), setting.path_text())];
        if let Some(names) = &self.env {
            for name in names.get_ref() {
                let value = std::env::var(name)
                    .map_err(|_| (names.span(), format!("the environment has no `{name}`")))?;
                env.push((name.clone(), value));
            }
        }
        let config = ProcessConfig {
            root: folder.to_owned(),
            env,
            path: setting.path.clone(),
            supervisor: SupervisorCommand::this_binary(),
        };
        let (address_space, files) = PROCESS_LIMITS;
        let limits = RunLimits {
            // The coordinator gives up first, and records that.
            timeout: self.timeout().saturating_add(TIMEOUT_MARGIN),
            address_space_bytes: Some(address_space),
            nofile: Some(files),
            ..RunLimits::default()
        };
        Ok(Arc::new(ProcessHook::new(config, argv.clone(), limits)))
    }

    fn endpoint<'a>(&'a self, url: &'a Spanned<String>) -> Result<Endpoint<'a>, Problem> {
        self.only("url", [("env", self.env.as_ref().map(Spanned::span))])?;
        Ok(Endpoint {
            what: "a webhook",
            url,
            secret_file: self.secret_file.as_ref(),
            secret_env: self.secret_env.as_ref(),
            allow: self.allow.as_ref(),
            ca_file: self.ca_file.as_ref(),
            timeout: self.timeout(),
        })
    }

    fn webhook(
        &self,
        url: &Spanned<String>,
        folder: &Path,
        setting: &Setting,
    ) -> Result<Arc<dyn HookExecutor>, Problem> {
        let endpoint = self.endpoint(url)?;
        let config = endpoint.config(folder, setting)?;
        let hook = WebhookHook::new(config, Arc::clone(&setting.clock));
        Ok(Arc::new(hook.map_err(|error| endpoint.problem(&error))?))
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
    /// Whether tools can get at the file, and an agent through them.
    fn reaches(&self, path: &Path) -> bool {
        // Also of a file that is not there yet: a tool could put it there.
        resolve(path).is_none_or(|path| path.starts_with(&self.tool_root))
    }

    /// An error unless no tool can get at the file.
    pub(crate) fn outside(&self, path: &Path) -> Result<(), String> {
        if self.reaches(path) {
            let why = "lies in the folder tools work in: an agent could read or change it";
            return Err(format!("{} {why}", path.display()));
        }
        Ok(())
    }

    pub(crate) fn read(&self, folder: &Path, file: &Spanned<PathBuf>) -> Result<Vec<u8>, Problem> {
        let path = folder.join(file.get_ref());
        self.outside(&path).map_err(|why| (file.span(), why))?;
        std::fs::read(&path).map_err(|error| (file.span(), format!("{}: {error}", path.display())))
    }

    fn path_text(&self) -> String {
        let joined = std::env::join_paths(&self.path).unwrap_or_default();
        joined.to_string_lossy().into_owned()
    }
}

/// Finds whatever is wrong with the hooks of a configuration by its text alone.
pub(crate) fn check(path: &str, text: &str, tables: &[HookTable]) -> Result<(), Failure> {
    let code = |_| tables.iter().try_for_each(HookTable::code);
    specs(tables).and_then(code).map_err(|(span, why)| at(path, text, span.start, &why))
}

fn words(rights: impl Iterator<Item = HookMutationRight>) -> String {
    rights.map(|right| format!(", `{right}`")).collect()
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

/// The folder of a configuration file.
pub(crate) fn folder(file: &Path) -> PathBuf {
    std::path::absolute(file)
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// The hooks of a configuration with the code behind them. Relative paths are those of the
/// configuration's folder.
pub(crate) fn build(loaded: &Loaded, setting: &Setting) -> Result<Vec<Hook>, Failure> {
    let Some(file) = &loaded.path else { return Ok(Vec::new()) };
    let folder = folder(file);
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

#[cfg(test)]
mod tests;
