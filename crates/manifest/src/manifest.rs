//! What a manifest is once it is checked.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_core::plan::{Filesystem, RunLimits};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::command::Command;
use crate::http::Http;
use crate::output::Output;
use crate::scope::Scope;
use crate::session::{Browser, Session};
use crate::types::ArgType;
use crate::upstream::Upstream;

/// How much harm a tool can do, by its author's judgement. Ordered: `Info` is the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RiskTier {
    /// Tells what everybody may know.
    Info,
    /// Reads; what a manifest gets that does not say.
    #[default]
    Low,
    /// Changes something that can be changed back.
    Medium,
    /// Changes something that is hard to change back.
    High,
    /// Can do lasting harm beyond its own files.
    Critical,
}

impl RiskTier {
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("info", Self::Info),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];

    /// The word a manifest uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, tier)| *tier == self).map_or("low", |(word, _)| word)
    }
}

/// One declared argument.
#[derive(Clone, Debug)]
pub struct Arg {
    pub(crate) name: String,
    pub(crate) ty: ArgType,
    pub(crate) required: bool,
    pub(crate) feeds_decision: bool,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<DefaultValue>,
}

/// A default as written, and the text it resolves to.
#[derive(Clone, Debug)]
pub(crate) struct DefaultValue {
    pub(crate) value: Value,
    pub(crate) text: String,
}

impl Arg {
    /// The key an agent sends it under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The built-in type, such as `literal_text`; of a custom type, what it is based on.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.ty.name
    }

    /// Whether a call without it is refused: it is declared `required` and has no default.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required && self.default.is_none()
    }

    /// Whether the author says that something privileged is decided by it.
    #[must_use]
    pub fn feeds_decision(&self) -> bool {
        self.feeds_decision
    }

    /// The author's words, for agents and people.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What a call without it gets, as written in the manifest: `command.defaults` before the
    /// argument's own.
    #[must_use]
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref().map(|d| &d.value)
    }

    /// Whether a plan can lack it.
    pub(crate) fn may_be_absent(&self) -> bool {
        !self.required && self.default.is_none()
    }

    fn schema(&self) -> Value {
        let mut schema = self.ty.schema();
        if let Some(description) = &self.description {
            schema.insert("description".to_owned(), description.as_str().into());
        }
        if let Some(default) = self.default() {
            schema.insert("default".to_owned(), default.clone());
        }
        Value::Object(schema)
    }
}

/// One tool. It exists only if its text has no error, so nothing in it needs checking again.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) risk_tier: RiskTier,
    pub(crate) human_approval: bool,
    pub(crate) network_egress: bool,
    pub(crate) cedar: Option<Cedar>,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) filesystem: Option<Filesystem>,
    pub(crate) limits: RunLimits,
    pub(crate) digest: String,
    pub(crate) args: Vec<Arg>,
    pub(crate) index: HashMap<String, usize>,
    pub(crate) backend: Backend,
    pub(crate) scopes: Vec<Arc<Scope>>,
    pub(crate) output: Output,
    pub(crate) own: bool,
}

/// What a call of the tool does.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Command(Command),
    Executor(String),
    Http(Http),
    Mcp(Mcp),
    /// Described by the upstream server itself.
    Upstream(Box<Upstream>),
    Session(Box<Session>),
    Browser(Box<Browser>),
    Callback,
}

#[derive(Clone, Debug)]
pub(crate) struct Mcp {
    pub(crate) server: String,
    pub(crate) tool: String,
    /// The upstream's name of each argument, in the order of the arguments.
    pub(crate) fields: Vec<String>,
}

/// What runs a call of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// `[command]` with `exec` or `template`.
    Command,
    /// `[command]` with `executor`.
    Executor,
    /// `[http]`.
    Http,
    /// `[mcp]`, or a tool that an upstream server describes itself.
    Mcp,
    /// `[session]`; checked, but not planned yet.
    Session,
    /// `[browser]`; checked, but not planned yet.
    Browser,
    /// `dispatch = "callback"`.
    Callback,
}

impl BackendKind {
    /// A word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Executor => "executor",
            Self::Http => "HTTP",
            Self::Mcp => "MCP",
            Self::Session => "session",
            Self::Browser => "browser",
            Self::Callback => "callback",
        }
    }
}

/// Where the output of a call is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// A folder; `{evidence_dir}`, `{scan_id}` and `{session_id}` in it are for whoever runs the
    /// call.
    pub output_dir: String,
    /// Whether output is written there.
    pub capture: bool,
}

impl Evidence {
    /// The folder of one call beneath the folder for evidence: plain names with slashes between
    /// them, or empty. What is no letter, digit, `.`, `-` or `_` in an id becomes `_`.
    ///
    /// # Errors
    /// Says why, if `output_dir` leads anywhere else.
    pub fn folder(&self, scan_id: &str, session_id: &str) -> Result<String, String> {
        let id = |text: &str| -> String {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            text.chars().take(128).map(|c| if plain(c) { c } else { '_' }).collect()
        };
        // A name may begin with an underscore.
        let mut folder = self.output_dir.replace("{_", "{");
        if let Some(rest) = folder.strip_prefix("{evidence_dir}") {
            folder = rest.trim_start_matches('/').to_owned();
        } else if folder.starts_with('/') {
            return Err("output_dir must begin with {evidence_dir} or be relative".to_owned());
        }
        let folder =
            folder.replace("{scan_id}", &id(scan_id)).replace("{session_id}", &id(session_id));
        let names: Vec<_> = folder.split('/').filter(|name| !name.is_empty()).collect();
        let plain = |name: &str| {
            name != "."
                && name != ".."
                && name.len() <= 255
                && !name.contains(['{', '}', '\\', '\0'])
        };
        match names.iter().copied().all(plain) {
            true => Ok(names.join("/")),
            false => Err("output_dir leads out of the folder for evidence".to_owned()),
        }
    }
}

/// How a policy engine names a call of the tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cedar {
    /// Such as `Files::Repository`.
    pub resource: String,
    /// Such as `read`.
    pub action: String,
}

impl Manifest {
    /// Makes it a tool of the gateway itself, which no agent sees and none can call, and each call
    /// of which waits for a person. Its name begins with `_` from now on, as that of no other tool
    /// does.
    #[must_use]
    pub fn into_own(mut self) -> Self {
        self.name = format!("_{}", self.name);
        self.own = true;
        self.human_approval = true;
        self
    }

    /// Whether it is a tool of the gateway itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The tool's name: `[a-z][a-z0-9_]{0,63}`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program it starts: a name to be found on the path, or a path. Empty if it starts none.
    #[must_use]
    pub fn program(&self) -> &str {
        match &self.backend {
            Backend::Command(command) => command.program(),
            Backend::Session(session) => session.startup.program(),
            Backend::Executor(executor) => executor,
            _ => "",
        }
    }

    /// What runs a call.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        match &self.backend {
            Backend::Command(_) => BackendKind::Command,
            Backend::Executor(_) => BackendKind::Executor,
            Backend::Http(_) => BackendKind::Http,
            Backend::Mcp(_) | Backend::Upstream(_) => BackendKind::Mcp,
            Backend::Session(_) => BackendKind::Session,
            Backend::Browser(_) => BackendKind::Browser,
            Backend::Callback => BackendKind::Callback,
        }
    }

    /// The upstream server a call goes to, if it goes to one.
    #[must_use]
    pub fn mcp_server(&self) -> Option<&str> {
        match &self.backend {
            Backend::Mcp(mcp) => Some(&mcp.server),
            Backend::Upstream(upstream) => Some(upstream.server()),
            _ => None,
        }
    }

    /// The names of the secrets a call needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        match &self.backend {
            Backend::Http(http) => http.secrets(),
            _ => Vec::new(),
        }
    }

    /// The version as written; only a warning asks that it be a semantic version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The author's words, shown to agents.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The declared tier.
    #[must_use]
    pub fn risk_tier(&self) -> RiskTier {
        self.risk_tier
    }

    /// Whether every call waits for a person, whatever policy says.
    #[must_use]
    pub fn human_approval(&self) -> bool {
        self.human_approval
    }

    /// Whether the author says that the tool talks to the network.
    #[must_use]
    pub fn network_egress(&self) -> bool {
        self.network_egress
    }

    /// Where output is to be kept, when declared.
    #[must_use]
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// What the tool is confined to, when declared.
    #[must_use]
    pub fn filesystem(&self) -> Option<&Filesystem> {
        self.filesystem.as_ref()
    }

    /// The names under which policy knows the tool, when declared.
    #[must_use]
    pub fn cedar(&self) -> Option<&Cedar> {
        self.cedar.as_ref()
    }

    /// What to enforce while a plan of this tool runs.
    #[must_use]
    pub fn limits(&self) -> RunLimits {
        RunLimits { filesystem: self.filesystem.clone(), ..self.limits.clone() }
    }

    /// `sha256:` and the hex digest of the manifest's text, comments included, together with the
    /// project's types and scope where there are such, and with the definition that
    /// [`Manifest::with_definition`] was given.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The declared arguments: by `position`, then as the text has them.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &Arg> {
        self.args.iter()
    }

    /// How to read what the tool writes.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// JSON Schema of a call's arguments. It promises less than [`Manifest::plan`] checks:
    /// what it refuses is refused, what it accepts may still be.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        match &self.backend {
            Backend::Upstream(upstream) => upstream.input_schema().clone(),
            _ => schema_of(&self.args),
        }
    }

    /// The tool as MCP lists it; a session or browser as the list of its commands, each with the
    /// tool's name and a dot before its own.
    #[must_use]
    pub fn mcp_tools(&self) -> Vec<Value> {
        let commands = match &self.backend {
            Backend::Session(session) => &session.commands,
            Backend::Browser(browser) => &browser.commands,
            _ => {
                let (name, text) = (self.name.as_str(), self.description.as_str());
                let governed = (self.risk_tier, self.human_approval);
                return vec![mcp_tool(name, text, self.input_schema(), governed)];
            }
        };
        let tool = |c: &crate::session::SubCommand| {
            let name = format!("{}.{}", self.name, c.name);
            mcp_tool(&name, &c.description, c.input_schema(), (c.risk_tier, c.human_approval))
        };
        commands.iter().map(tool).collect()
    }
}

fn mcp_tool(
    name: &str,
    description: &str,
    input: Value,
    (tier, approval): (RiskTier, bool),
) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": input,
        "outputSchema": crate::Envelope::output_schema(),
        "_meta": {"countersign/risk_tier": tier, "countersign/human_approval": approval},
    })
}

/// JSON Schema of an object that has these arguments and no others.
pub(crate) fn schema_of(args: &[Arg]) -> Value {
    let properties: Map<String, Value> =
        args.iter().map(|arg| (arg.name.clone(), arg.schema())).collect();
    let required: Vec<&str> =
        args.iter().filter(|a| a.required()).map(|a| a.name.as_str()).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
