//! What a call will do, decided before anything happens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The effect of one call, with every argument resolved and every secret still a name.
///
/// The JSON of a plan is what the call's fingerprint covers, so two calls with equal plans
/// are the same effect: `{"argv":["git","log"]}`. The forms have no key in common by which one
/// could be read as another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plan {
    /// Start one process, without a shell.
    Command(CommandPlan),
    /// Start the manifest's own program and give it the arguments as environment variables.
    Executor(ExecutorPlan),
    /// Send one HTTP request.
    Http(HttpPlan),
    /// Call one tool of an upstream MCP server.
    Mcp(McpPlan),
    /// Hand the arguments to whoever embeds the gateway; nothing is started or sent.
    Callback(CallbackPlan),
}

impl Plan {
    /// What kind of executor it takes.
    #[must_use]
    pub fn kind(&self) -> PlanKind {
        match self {
            Self::Command(_) => PlanKind::Command,
            Self::Executor(_) => PlanKind::Executor,
            Self::Http(_) => PlanKind::Http,
            Self::Mcp(_) => PlanKind::Mcp,
            Self::Callback(_) => PlanKind::Callback,
        }
    }
}

/// The forms of a [`Plan`], for choosing what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanKind {
    /// [`Plan::Command`].
    Command,
    /// [`Plan::Executor`].
    Executor,
    /// [`Plan::Http`].
    Http,
    /// [`Plan::Mcp`].
    Mcp,
    /// [`Plan::Callback`].
    Callback,
}

impl PlanKind {
    /// The word for people and in the name of an executor.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Executor => "executor",
            Self::Http => "http",
            Self::Mcp => "mcp",
            Self::Callback => "callback",
        }
    }
}

/// One process to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandPlan {
    /// The program and its arguments, one element each; never empty.
    pub argv: Vec<String>,
    /// Values of `path` and `credential_file` arguments. Each stands inside an element of `argv`
    /// and must resolve beneath the tool root when the process starts. Left out of the JSON:
    /// `argv` holds them.
    #[serde(skip)]
    pub paths: Vec<String>,
    /// Those of `paths` that must be existing regular files, no symbolic links, and not readable
    /// by everybody. Left out of the JSON like `paths`.
    #[serde(skip)]
    pub credentials: Vec<String>,
}

/// The escape hatch: one program of the manifest's author, started without arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorPlan {
    /// The program, fixed by the manifest.
    pub executor: String,
    /// `TOOLCLAD_ARG_NAME` for every argument with a value; nothing else comes from the call.
    pub env: BTreeMap<String, String>,
    /// As in [`CommandPlan::paths`].
    #[serde(skip)]
    pub paths: Vec<String>,
    /// As in [`CommandPlan::credentials`].
    #[serde(skip)]
    pub credentials: Vec<String>,
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpPlan {
    /// Upper case, such as `POST`.
    pub method: String,
    /// Absolute and canonical; its scheme, host and port are the manifest's.
    pub url: String,
    /// In the manifest's order; no name twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
    /// Absent if the request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Vec<Piece>>,
    /// Status codes that mean success; none means 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success_status: Vec<u16>,
    /// Status codes whose response is an error that the agent is to see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_status: Vec<u16>,
}

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpHeader {
    /// A token, as the manifest spells it.
    pub name: String,
    /// Without CR and LF. A secret that holds one must not be sent.
    pub value: Vec<Piece>,
}

/// A part of a text that may need secrets. Adjacent texts are one piece, so that equal requests
/// have equal JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// As it is sent.
    Text(String),
    /// A name; whoever executes puts the value here.
    Secret(Secret),
}

/// A secret by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// As the manifest has it after `_secret:`.
    pub secret: String,
    /// How the value is written where it stands.
    pub escape: SecretEscape,
}

/// What becomes of a secret's value before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretEscape {
    /// Nothing: a header or a plain body.
    None,
    /// It stands inside a JSON string.
    Json,
    /// It is percent-encoded as in a form.
    Form,
}

/// One call of an upstream tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpPlan {
    /// The name of a configured upstream.
    pub server: String,
    /// The upstream's own name of the tool.
    pub tool: String,
    /// By the upstream's names, each in the JSON type of the manifest's argument.
    pub arguments: Map<String, Value>,
}

/// Arguments that passed every check, for a tool that the embedding program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackPlan {
    /// The manifest's tool.
    pub callback: String,
    /// By the manifest's names, each in the JSON type of its argument.
    pub arguments: Map<String, Value>,
}

/// What an executor enforces while a plan runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Wall time from start until everything the call started is killed.
    pub timeout: Duration,
    /// Bytes of standard output kept; the rest is hashed and dropped.
    pub output_max_bytes: u64,
    /// `RLIMIT_NPROC`: processes of the user.
    pub nproc: Option<u64>,
    /// `RLIMIT_NOFILE`: open file descriptors per process.
    pub nofile: Option<u64>,
    /// `RLIMIT_FSIZE`: bytes of any file written.
    pub fsize_bytes: Option<u64>,
    /// `RLIMIT_AS`: bytes of address space per process.
    pub address_space_bytes: Option<u64>,
    /// `RLIMIT_CPU`: seconds of processor time per process.
    pub cpu_seconds: Option<u64>,
    /// What of the file system a process is confined to; nothing runs where that cannot be done.
    pub filesystem: Option<Filesystem>,
    /// Where the kept output is written, beneath the folder for evidence: a relative path of
    /// plain names, that of no other run. Nothing runs where there is no place for it.
    pub evidence: Option<String>,
}

/// What of the file system a tool is confined to, beside the programs and libraries of the
/// system. Paths are relative to the tool root, or absolute, and hold no `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// Files and folders to read.
    pub read: Vec<String>,
    /// Files and folders to read and change.
    pub write: Vec<String>,
    /// Folders to make, rename and remove files and folders in, and to read and change them.
    pub create: Vec<String>,
}

impl Default for RunLimits {
    /// 30 seconds, 8 MiB of output, no other limits: the defaults of a manifest.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            output_max_bytes: 8 << 20,
            nproc: None,
            nofile: None,
            fsize_bytes: None,
            address_space_bytes: None,
            cpu_seconds: None,
            filesystem: None,
            evidence: None,
        }
    }
}
