//! Which tools of upstream servers are served: those whose definition was there when the server
//! was first seen, or that a person has accepted since.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use countersign_core::id::AgentId;
use countersign_core::plan::{McpPlan, Plan};
use countersign_core::text::visible;
use countersign_exec::Secrets;
use countersign_exec::mcp::{Listing, Upstreams};
use countersign_kernel::{CallOptions, Kernel, PinReason, Pins, Run, pins};
use countersign_manifest::{Manifest, ManifestSet, RiskTier, UpstreamRules, definition_digest};
use countersign_ports::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use countersign_ports::journal::Journal;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::difference::{Difference, difference};
use super::{Built, OWN, Selection, build};
use crate::config::Loaded;
use crate::hooks::Setting;
use crate::output::Failure;

/// The gateway's own tool by whose calls people accept definitions.
const ACCEPT: &str = "accept_upstream_tool";
/// How often a server that was never reached is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What became of the question whether a definition is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Open,
    Denied,
}

#[derive(Default)]
struct State {
    /// The definitions in force.
    pins: Pins,
    /// What was last listed, by upstream and tool; nothing of an upstream that was not reached.
    listed: BTreeMap<String, BTreeMap<String, Value>>,
    asked: HashMap<(String, String), (Digest, Asked)>,
    /// Of upstreams that nothing was known of, and not recorded yet.
    first: Vec<(String, String)>,
    said: BTreeSet<String>,
}

/// What the catalog needs once the kernel runs.
struct Running {
    kernel: Kernel,
    run: Run,
}

/// The tools of all upstreams. Clones are handles to one catalog.
#[derive(Clone)]
pub(crate) struct Catalog(Arc<Inner>);

struct Inner {
    upstreams: Upstreams,
    selections: Vec<Selection>,
    /// The tools that manifests describe.
    base: Mutex<ManifestSet>,
    state: tokio::sync::Mutex<State>,
    running: OnceLock<Running>,
}

impl Catalog {
    /// Reads what is in force, and asks every upstream for its tools, for as long as each may
    /// take to be connected to. `None` if there is no upstream in the configuration.
    pub(crate) async fn new(
        loaded: &Loaded,
        setting: &Setting,
        secrets: &Secrets,
        journal: &dyn Journal,
        manifests: &ManifestSet,
    ) -> Result<Option<(Self, UnboundedReceiver<Listing>)>, Failure> {
        let built = build(loaded, setting, secrets)?;
        if built.is_empty() {
            return Ok(None);
        }
        let (configs, selections): (Vec<_>, Vec<_>) =
            built.into_iter().map(|Built { config, selection }| (config, selection)).unzip();
        let pins = pins(journal).await.map_err(|error| Failure::of(&error))?;
        let (upstreams, mut listings) = Upstreams::new(configs);
        let catalog = Self(Arc::new(Inner {
            upstreams,
            selections,
            base: Mutex::new(based_on(manifests)?),
            state: tokio::sync::Mutex::new(State { pins, ..State::default() }),
            running: OnceLock::new(),
        }));
        let mut connecting = tokio::task::JoinSet::new();
        for selection in &catalog.0.selections {
            let (upstreams, name) = (catalog.0.upstreams.clone(), selection.rules.server.clone());
            connecting.spawn(async move {
                if let Err(why) = upstreams.connect(&name).await {
                    eprintln!("{why} (its tools are served as they were known, if they were)");
                }
            });
        }
        while connecting.join_next().await.is_some() {}
        let mut state = catalog.0.state.lock().await;
        while let Ok(listing) = listings.try_recv() {
            catalog.take(&mut state, listing);
        }
        drop(state);
        Ok(Some((catalog, listings)))
    }

    /// The tools that manifests describe.
    pub(crate) fn described(&self) -> ManifestSet {
        let mut set = self.0.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        set.retain(|manifest| !manifest.is_own());
        set
    }

    /// All tools there would be if manifests described these.
    pub(crate) async fn with(&self, manifests: &ManifestSet) -> ManifestSet {
        let (now, _) = self.manifests().await;
        let mut set = manifests.clone();
        for manifest in now.iter().filter(|m| m.upstream_definition().is_some()) {
            // What a manifest describes comes first.
            let _ = set.add(Arc::clone(manifest));
        }
        set
    }

    /// Puts other manifests in the place of those there are. The tools of upstreams stay.
    pub(crate) async fn describe(
        &self,
        kernel: &Kernel,
        manifests: &ManifestSet,
    ) -> Result<(), Failure> {
        let base = based_on(manifests)?;
        let mut state = self.0.state.lock().await;
        *self.0.base.lock().unwrap_or_else(PoisonError::into_inner) = base;
        self.replace(kernel, &mut state);
        Ok(())
    }

    /// Where each upstream is, as far as it decides what a call does.
    pub(crate) fn context(&self) -> Vec<(String, String)> {
        let rules = self.0.selections.iter().map(|selection| &selection.rules);
        rules.map(|of| (format!("upstream.{}", of.server), of.context.to_string())).collect()
    }

    pub(crate) fn upstreams(&self) -> Upstreams {
        self.0.upstreams.clone()
    }

    /// What runs the plans of upstream tools.
    pub(crate) fn executor(&self) -> Arc<dyn ToolExecutor> {
        Arc::new(self.clone())
    }

    /// All tools, and what there is to say about those that are not served.
    pub(crate) async fn manifests(&self) -> (ManifestSet, Vec<String>) {
        let mut state = self.0.state.lock().await;
        self.set(&mut state)
    }

    /// Records what was seen for the first time, and keeps the tools up to date from now on.
    pub(crate) async fn begin(
        &self,
        kernel: Kernel,
        mut listings: UnboundedReceiver<Listing>,
    ) -> Result<(), Failure> {
        let agent = AgentId::new(OWN).map_err(|error| Failure::of(&error))?;
        let how = "looks after the upstream servers";
        let run = kernel.run_start_own(agent, how).await.map_err(|error| Failure::of(&error))?;
        {
            let mut state = self.0.state.lock().await;
            for key in std::mem::take(&mut state.first) {
                let Some(definition) = state.pins.get(&key) else { continue };
                kernel
                    .pin(&run, (&key.0, &key.1), definition, PinReason::FirstSeen)
                    .await
                    .map_err(|error| Failure::of(&error))?;
            }
        }
        let _ = self.0.running.set(Running { kernel, run });
        self.ask().await;
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(listing) = listings.recv().await {
                this.update(listing).await;
            }
        });
        for selection in &self.0.selections {
            let (this, name) = (self.clone(), selection.rules.server.clone());
            tokio::spawn(async move {
                while !this.0.state.lock().await.listed.contains_key(&name) {
                    tokio::time::sleep(AGAIN).await;
                    let _ = this.0.upstreams.connect(&name).await;
                }
            });
        }
        Ok(())
    }

    /// Records the end.
    pub(crate) async fn end(&self) {
        if let Some(Running { kernel, run }) = self.0.running.get()
            && let Err(error) = kernel.run_end(run, "the gateway stopped").await
        {
            tracing::error!(%error, "the end of a run is not recorded");
        }
    }

    /// Takes a listing in: what belongs to an upstream that nothing was known of is in force.
    fn take(&self, state: &mut State, Listing { upstream, tools }: Listing) {
        let known = state.listed.contains_key(&upstream)
            || state.pins.keys().any(|(name, _)| *name == upstream);
        let mut listed = BTreeMap::new();
        for definition in tools {
            let Some(tool) = definition.get("name").and_then(Value::as_str) else { continue };
            listed.insert(tool.to_owned(), definition);
        }
        if !known {
            for (tool, definition) in &listed {
                let key = (upstream.clone(), tool.clone());
                state.pins.insert(key.clone(), definition.clone());
                state.first.push(key);
            }
        }
        state.listed.insert(upstream, listed);
    }

    /// The tools that are served by what is in force. Tells the upstreams, too.
    fn set(&self, state: &mut State) -> (ManifestSet, Vec<String>) {
        let base = self.0.base.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut set, mut problems) = (bound(&base, &state.pins), Vec::new());
        for selection in &self.0.selections {
            let server = &selection.rules.server;
            let listed = state.listed.get(server);
            for ((_, tool), definition) in state.pins.iter().filter(|((of, _), _)| of == server) {
                self.0.upstreams.accept(server, tool, Some(definition_digest(definition)));
                // A tool that is gone is not served.
                let there = listed.is_none_or(|listed| listed.contains_key(tool));
                if !there || !selection.serves(tool) || definition.is_null() {
                    continue;
                }
                let not_served = |why: &str| {
                    format!("upstream `{server}`: `{}` is not served: {why}", visible(tool))
                };
                match Manifest::of_upstream(definition, &selection.rules(tool, definition)) {
                    Ok(manifest) => {
                        if let Err(manifest) = set.add(manifest) {
                            let why = format!("there is another tool `{}`", manifest.name());
                            problems.push(not_served(&why));
                        }
                    }
                    Err(why) => problems.push(not_served(&why.to_string())),
                }
            }
        }
        problems.retain(|problem| state.said.insert(problem.clone()));
        (set, problems)
    }

    async fn update(&self, listing: Listing) {
        let Some(Running { kernel, run }) = self.0.running.get() else { return };
        let mut state = self.0.state.lock().await;
        self.take(&mut state, listing);
        for key in std::mem::take(&mut state.first) {
            let Some(definition) = state.pins.get(&key) else { continue };
            let why = PinReason::FirstSeen;
            if let Err(error) = kernel.pin(run, (&key.0, &key.1), definition, why).await {
                tracing::error!(%error, "a definition is not recorded, so it is not in force");
                state.pins.remove(&key);
            }
        }
        self.replace(kernel, &mut state);
        drop(state);
        self.ask().await;
    }

    fn replace(&self, kernel: &Kernel, state: &mut State) {
        let (set, problems) = self.set(state);
        for problem in problems {
            tracing::warn!("{problem}");
        }
        if set.digest() != kernel.manifests().digest() {
            kernel.manifests_replace(set);
        }
    }

    /// Has people asked about every definition that is not in force and not asked about.
    async fn ask(&self) {
        let mut state = self.0.state.lock().await;
        let mut questions = Vec::new();
        // A manifest may call a tool that is not served as it is.
        let described = self.described();
        let called = described.iter().filter_map(|manifest| manifest.mcp_target());
        let called: BTreeSet<_> =
            called.map(|(server, tool)| (server.to_owned(), tool.to_owned())).collect();
        for (upstream, tools) in &state.listed {
            let selection = self.0.selections.iter().find(|of| of.rules.server == *upstream);
            for (tool, definition) in tools {
                // What nobody can call is nobody's question, whatever it says it is.
                let served = selection.is_some_and(|selection| selection.serves(tool));
                if !served && !called.contains(&(upstream.clone(), tool.clone())) {
                    continue;
                }
                let key = (upstream.clone(), tool.clone());
                let (digest, pin) = (definition_digest(definition), state.pins.get(&key));
                if pin.is_some_and(|pin| definition_digest(pin) == digest)
                    || state.asked.get(&key).is_some_and(|(of, _)| *of == digest)
                {
                    continue;
                }
                questions.push((key, digest, question(upstream, tool, pin, definition, digest)));
            }
        }
        for (key, digest, arguments) in questions {
            state.asked.insert(key.clone(), (digest, Asked::Open));
            tracing::warn!(
                upstream = key.0,
                tool = key.1,
                "its definition is not the one in force; a person is asked"
            );
            tokio::spawn(self.clone().ask_one(key, digest, arguments));
        }
    }

    async fn ask_one(self, key: (String, String), digest: Digest, arguments: Map<String, Value>) {
        let Some(Running { kernel, run }) = self.0.running.get() else { return };
        let options = CallOptions { kept: true, ..CallOptions::default() };
        let mut call = kernel.call(run, &format!("_{ACCEPT}"), &arguments, options);
        let denied = match call.outcome().await {
            Ok(governed) => governed.denial.is_some_and(|denial| denial.code == "approval.denied"),
            Err(_) => false,
        };
        let mut state = self.0.state.lock().await;
        if let Some(asked) = state.asked.get_mut(&key)
            && asked.0 == digest
        {
            match denied {
                true => asked.1 = Asked::Denied,
                // Nobody has said no: it is asked again when the tool is called, or listed.
                false => drop(state.asked.remove(&key)),
            }
        }
    }

    /// What a person has approved.
    async fn accept(&self, plan: &McpPlan) -> Result<String, String> {
        let text = |name| plan.arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        let (upstream, tool, digest) = (text("upstream"), text("tool"), text("definition"));
        let Running { kernel, run } = self.0.running.get().ok_or("the gateway is starting")?;
        let key = (upstream.to_owned(), tool.to_owned());
        let mut state = self.0.state.lock().await;
        let listed = state.listed.get(upstream).and_then(|tools| tools.get(tool)).cloned();
        let definition = listed.ok_or("the upstream does not list the tool any more")?;
        if definition_digest(&definition).to_string() != digest {
            return Err("the definition has changed once more since it was asked about".to_owned());
        }
        kernel
            .pin(run, (upstream, tool), &definition, PinReason::Accepted)
            .await
            .map_err(|error| format!("it is not recorded: {error}"))?;
        state.pins.insert(key, definition);
        self.replace(kernel, &mut state);
        Ok(format!("the definition of `{tool}` of upstream `{upstream}` is in force"))
    }
}

#[async_trait]
impl ToolExecutor for Catalog {
    async fn run(&self, run: ToolRun) -> Execution {
        let started = std::time::Instant::now();
        match &run.plan {
            Plan::Mcp(plan) if plan.server == OWN => {
                let (ok, note) = match self.accept(plan).await {
                    Ok(note) => (true, note),
                    Err(why) => (false, why),
                };
                let stdout = json!({ "text": note }).to_string().into_bytes();
                Execution {
                    status: ExecutionStatus::Answered { ok, note },
                    stdout_sha256: *Digest::of(&stdout).as_bytes(),
                    stdout_len: stdout.len() as u64,
                    stdout,
                    stderr: Vec::new(),
                    duration: started.elapsed(),
                }
            }
            Plan::Mcp(plan) => {
                let server = plan.server.clone();
                let execution = self.0.upstreams.run(run).await;
                if let ExecutionStatus::NotStarted(_) = &execution.status
                    && self.0.selections.iter().any(|of| of.rules.server == server)
                {
                    // The tools may be others than are known, or a question may have run out.
                    let upstreams = self.0.upstreams.clone();
                    tokio::spawn(async move {
                        if let Err(why) = upstreams.refresh(&server).await {
                            tracing::debug!("{why}");
                        }
                    });
                }
                execution
            }
            _ => self.0.upstreams.run(run).await,
        }
    }
}

/// The same tools, with each `[mcp]` for the definition in force of what it calls.
fn bound(manifests: &ManifestSet, pins: &Pins) -> ManifestSet {
    let mut set = ManifestSet::default();
    for manifest in manifests.iter() {
        let target = manifest.mcp_target().map(|(server, tool)| (server.into(), tool.into()));
        let manifest = match target.and_then(|target| pins.get(&target)) {
            Some(pin) => Arc::new(manifest.with_definition(&definition_digest(pin))),
            None => Arc::clone(manifest),
        };
        // No two of one set have one name.
        let _ = set.add(manifest);
    }
    set
}

/// These tools, and the gateway's own.
fn based_on(manifests: &ManifestSet) -> Result<ManifestSet, Failure> {
    let mut base = manifests.clone();
    base.add(accepting()?).map_err(|_| Failure::new("two tools accept definitions"))?;
    Ok(base)
}

/// The gateway's own tool: each call of it is a question to a person.
fn accepting() -> Result<Manifest, Failure> {
    let definition = json!({
        "name": ACCEPT,
        "description": "Accepts what an upstream server says one of its tools is.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "upstream": {"type": "string"},
                "tool": {"type": "string"},
                "definition": {"type": "string"},
            },
            "required": ["upstream", "tool", "definition"],
            "additionalProperties": {"type": "string"},
        },
    });
    let rules = UpstreamRules {
        server: OWN.to_owned(),
        prefix: String::new(),
        risk_tier: RiskTier::High,
        timeout: Duration::from_secs(30),
        output_max_bytes: 1 << 16,
        context: Digest::of(OWN),
    };
    let manifest = Manifest::of_upstream(&definition, &rules);
    Ok(manifest.map_err(|error| Failure::of(&error))?.into_own())
}

/// What a person is shown: which tool, and what is different, one line each.
fn question(
    upstream: &str,
    tool: &str,
    before: Option<&Value>,
    now: &Value,
    digest: Digest,
) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: String| drop(shown.insert(name.to_owned(), value.into()));
    put("upstream", upstream.to_owned());
    put("tool", tool.to_owned());
    put("definition", digest.to_string());
    let what = match before {
        Some(_) => "the definition has changed",
        None => "the tool is new",
    };
    put("why", what.to_owned());
    let Difference { size, lines, left_out } = difference(before.unwrap_or(&Value::Null), now);
    put("difference", size);
    if let Some(left_out) = left_out {
        put("not shown", left_out);
    }
    for (number, line) in lines.into_iter().enumerate() {
        put(&format!("line {}", number + 1), line);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_tool_always_asks_and_takes_what_is_asked() {
        let tool = accepting().unwrap();
        assert!(tool.is_own() && tool.human_approval());
        let digest = Digest::of("x");
        let long = json!({"name": "t", "description": "y".repeat(10_000)});
        let many: Map<_, _> = (0..2_000).map(|n| (format!("k{n}"), json!(n))).collect();
        let places: Map<_, _> = (0..5_000).map(|n| (format!("k{n}"), json!(n % 2 * n))).collect();
        let before = (0..5_000).map(|n| (format!("k{n}"), json!(0))).collect();
        let large =
            question("up", "t", Some(&Value::Object(before)), &Value::Object(places), digest);
        tool.plan(&large).unwrap();
        for now in [long, Value::Object(many)] {
            tool.plan(&question("up", "t", None, &now, digest)).unwrap();
        }
    }
}
