//! `[[upstream]]` in `countersign.toml`: existing MCP servers behind the gateway.

mod catalog;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_exec::mcp::{HttpUpstream, UpstreamConfig, UpstreamTransport};
use countersign_exec::{ProcessConfig, SupervisorCommand};
use countersign_manifest::{RiskTier, UpstreamRules};
use countersign_ports::mcp::McpFeature;
use serde::Deserialize;
use serde_json::json;
use toml::Spanned;
use zeroize::Zeroizing;

pub(crate) use catalog::Catalog;

use crate::config::{Loaded, at};
use crate::endpoint::Problem;
use crate::hooks::Setting;
use crate::output::Failure;

/// What no upstream may be called: calls of the gateway's own tools go there.
const OWN: &str = "countersign";

/// The header field with the token of `bearer_file`.
const BEARER: &str = "authorization";

/// Longest name of an upstream.
const NAME_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTable {
    name: Spanned<String>,
    command: Option<Spanned<Vec<String>>>,
    env: Option<Spanned<Vec<String>>>,
    url: Option<Spanned<String>>,
    bearer_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
    prefix: Option<Spanned<String>>,
    tools: Option<BTreeSet<String>>,
    #[serde(default)]
    deny: BTreeSet<String>,
    #[serde(default)]
    risk: Risk,
    #[serde(default)]
    tool_risk: BTreeMap<String, Risk>,
    #[serde(default)]
    trust_read_only_hint: bool,
    timeout_seconds: Option<Spanned<u64>>,
    connect_timeout_seconds: Option<Spanned<u64>>,
    output_max_bytes: Option<Spanned<u64>>,
    #[serde(default)]
    pass: BTreeSet<Pass>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Risk {
    Info,
    Low,
    Medium,
    /// Whoever has not looked at a server has a person look at its calls.
    #[default]
    High,
    Critical,
}

impl From<Risk> for RiskTier {
    fn from(risk: Risk) -> Self {
        match risk {
            Risk::Info => Self::Info,
            Risk::Low => Self::Low,
            Risk::Medium => Self::Medium,
            Risk::High => Self::High,
            Risk::Critical => Self::Critical,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pass {
    Prompts,
    Resources,
    Completions,
    Logging,
    Sampling,
    Elicitation,
}

impl From<Pass> for McpFeature {
    fn from(pass: Pass) -> Self {
        match pass {
            Pass::Prompts => Self::Prompts,
            Pass::Resources => Self::Resources,
            Pass::Completions => Self::Completions,
            Pass::Logging => Self::Logging,
            Pass::Sampling => Self::Sampling,
            Pass::Elicitation => Self::Elicitation,
        }
    }
}

/// Which tools of an upstream are served, and as what.
#[derive(Debug)]
struct Selection {
    rules: UpstreamRules,
    tools: Option<BTreeSet<String>>,
    deny: BTreeSet<String>,
    tool_risk: BTreeMap<String, RiskTier>,
    trust_read_only_hint: bool,
}

impl Selection {
    fn serves(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.contains(tool)) && !self.deny.contains(tool)
    }

    fn rules(&self, tool: &str, definition: &serde_json::Value) -> UpstreamRules {
        let hint = definition.pointer("/annotations/readOnlyHint");
        let read_only = hint.and_then(serde_json::Value::as_bool) == Some(true);
        let risk_tier = match self.tool_risk.get(tool) {
            Some(tier) => *tier,
            None if self.trust_read_only_hint && read_only => RiskTier::Low,
            None => self.rules.risk_tier,
        };
        UpstreamRules { risk_tier, ..self.rules.clone() }
    }
}

/// An upstream as it is configured.
struct Built {
    config: UpstreamConfig,
    selection: Selection,
}

impl UpstreamTable {
    pub(crate) fn name(&self) -> &str {
        self.name.get_ref()
    }

    fn seconds(given: Option<&Spanned<u64>>, default: u64) -> Result<Duration, Problem> {
        let seconds = given.map_or(default, |seconds| *seconds.get_ref());
        match (1..=86_400).contains(&seconds) {
            true => Ok(Duration::from_secs(seconds)),
            false => {
                let span = given.map_or(0..0, Spanned::span);
                Err((span, "a time is from 1 to 86400 seconds".to_owned()))
            }
        }
    }

    fn prefix(&self) -> String {
        match &self.prefix {
            Some(prefix) => prefix.get_ref().clone(),
            None => format!("{}_", self.name.get_ref()),
        }
    }

    /// What the text alone decides.
    fn check(&self) -> Result<(), Problem> {
        let name = self.name.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || name.len() > NAME_MAX || !name.chars().all(plain) || name == OWN {
            let why = format!(
                "the name of an upstream is `[a-z][a-z0-9_-]*`, at most {NAME_MAX} bytes, and not \
                 `{OWN}`"
            );
            return Err((self.name.span(), why));
        }
        if let Some(prefix) = &self.prefix {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let text = prefix.get_ref();
            if text.len() > NAME_MAX
                || !text.chars().all(plain)
                || text.starts_with(['_', '.', '-'])
            {
                let why = format!(
                    "a prefix is letters, digits, `_`, `.` and `-`, begins with a letter or a \
                     digit, and has at most {NAME_MAX} bytes"
                );
                return Err((prefix.span(), why));
            }
        }
        Self::seconds(self.timeout_seconds.as_ref(), 60)?;
        Self::seconds(self.connect_timeout_seconds.as_ref(), 30)?;
        if let Some(max) = &self.output_max_bytes
            && !(1..=1 << 30).contains(max.get_ref())
        {
            return Err((max.span(), "output_max_bytes is from 1 to 2^30".to_owned()));
        }
        match (&self.command, &self.url) {
            (Some(command), None) => {
                if command.get_ref().first().is_none_or(String::is_empty) {
                    return Err((command.span(), "the command names no program".to_owned()));
                }
                match self.bearer_file.as_ref().or(self.ca_file.as_ref()) {
                    Some(file) => Err((file.span(), "that is for an upstream with a url".into())),
                    None => Ok(()),
                }
            }
            (None, Some(url)) => {
                if let Some(env) = &self.env {
                    return Err((env.span(), "`env` is for an upstream with a command".into()));
                }
                let token = Zeroizing::new(String::new());
                let token = self.bearer_file.iter().map(|_| (BEARER.to_owned(), token.clone()));
                let upstream = self.reached(url, token.collect(), None)?;
                match &self.ca_file {
                    Some(file) if !upstream.is_encrypted() => {
                        Err((file.span(), "that is for an https:// url".to_owned()))
                    }
                    _ => Ok(()),
                }
            }
            _ => {
                let why = "an upstream has either a `command` or a `url`".to_owned();
                Err((self.name.span(), why))
            }
        }
    }

    fn reached(
        &self,
        url: &Spanned<String>,
        headers: Vec<(String, Zeroizing<String>)>,
        roots_pem: Option<&[u8]>,
    ) -> Result<HttpUpstream, Problem> {
        HttpUpstream::new(url.get_ref(), headers, roots_pem).map_err(|error| match &self.ca_file {
            Some(file) if error.field == "roots_pem" => {
                (file.span(), format!("ca_file {}", error.rule))
            }
            _ => (url.span(), format!("the url {}", error.rule)),
        })
    }

    fn build(&self, folder: &std::path::Path, setting: &Setting) -> Result<Built, Problem> {
        self.check()?;
        let name = self.name.get_ref().clone();
        let features: BTreeSet<McpFeature> = self.pass.iter().map(|pass| (*pass).into()).collect();
        let mut roots = None;
        let transport = match (&self.command, &self.url) {
            (Some(command), _) => {
                let mut env = Vec::new();
                let joined = std::env::join_paths(&setting.path).ok();
                let path = joined.and_then(|path| path.into_string().ok());
                env.extend(path.map(|path| ("PATH".to_owned(), path)));
                for name in self.env.iter().flat_map(Spanned::get_ref) {
                    match std::env::var(name) {
                        Ok(value) => env.push((name.clone(), value)),
                        Err(_) => {
                            let span = self.env.as_ref().map_or(0..0, Spanned::span);
                            return Err((span, format!("the environment has no `{name}`")));
                        }
                    }
                }
                UpstreamTransport::Process {
                    argv: command.get_ref().clone(),
                    process: ProcessConfig {
                        root: setting.tool_root.clone(),
                        env,
                        path: setting.path.clone(),
                        supervisor: SupervisorCommand::this_binary(),
                    },
                }
            }
            (None, Some(url)) => {
                let mut headers = Vec::new();
                if let Some(file) = &self.bearer_file {
                    let bytes = Zeroizing::new(setting.read(folder, file)?);
                    let text = std::str::from_utf8(&bytes)
                        .map_err(|_| (file.span(), "the token is no text".to_owned()))?;
                    let value = Zeroizing::new(format!("Bearer {}", text.trim()));
                    headers.push((BEARER.to_owned(), value));
                }
                let file = self.ca_file.as_ref();
                let roots_pem = file.map(|file| setting.read(folder, file)).transpose()?;
                roots = roots_pem.as_ref().map(Digest::of);
                UpstreamTransport::Http(self.reached(url, headers, roots_pem.as_deref())?)
            }
            (None, None) => return Err((self.name.span(), "nothing to connect to".to_owned())),
        };
        let where_to = match &transport {
            UpstreamTransport::Process { argv, process } => json!({
                "argv": argv,
                "env": process.env.iter().map(|(name, value)| json!([name, Digest::of(value)]))
                    .collect::<Vec<_>>(),
                "path": process.path,
            }),
            UpstreamTransport::Http(http) => match roots {
                Some(roots) => json!({ "url": http.url(), "ca": roots.to_string() }),
                None => json!({ "url": http.url() }),
            },
        };
        Ok(Built {
            config: UpstreamConfig {
                name: name.clone(),
                prefix: self.prefix(),
                transport,
                connect_timeout: Self::seconds(self.connect_timeout_seconds.as_ref(), 30)?,
                request_timeout: Self::seconds(self.timeout_seconds.as_ref(), 60)?,
                features,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            selection: Selection {
                rules: UpstreamRules {
                    server: name,
                    prefix: self.prefix(),
                    risk_tier: self.risk.into(),
                    timeout: Self::seconds(self.timeout_seconds.as_ref(), 60)?,
                    output_max_bytes: self
                        .output_max_bytes
                        .as_ref()
                        .map_or(8 << 20, |max| *max.get_ref()),
                    context: Digest::of(where_to.to_string()),
                },
                tools: self.tools.clone(),
                deny: self.deny.clone(),
                tool_risk: self.tool_risk.iter().map(|(t, r)| (t.clone(), (*r).into())).collect(),
                trust_read_only_hint: self.trust_read_only_hint,
            },
        })
    }
}

/// Holds the tables against the rules that the text alone decides.
pub(crate) fn check(path: &str, text: &str, tables: &[UpstreamTable]) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for table in tables {
        table.check().map_err(|(span, why)| at(path, text, span.start, &why))?;
        if !names.insert(table.name.get_ref()) {
            let why = format!("two upstreams are called `{}`", table.name.get_ref());
            return Err(at(path, text, table.name.span().start, &why));
        }
    }
    Ok(())
}

fn build(loaded: &Loaded, setting: &Setting) -> Result<Vec<Built>, Failure> {
    let path = loaded.path.clone().unwrap_or_default();
    let folder = path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let build = |table: &UpstreamTable| {
        table
            .build(&folder, setting)
            .map_err(|(span, why)| at(&path.display().to_string(), &loaded.text, span.start, &why))
    };
    loaded.config.upstream.iter().map(build).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_where_it_stands() {
        #[derive(Debug, Deserialize)]
        struct Config {
            upstream: Vec<UpstreamTable>,
        }
        for (text, why) in [
            ("name = \"A\"\ncommand = [\"x\"]", "the name of an upstream"),
            ("name = \"countersign\"\ncommand = [\"x\"]", "and not `countersign`"),
            ("name = \"a\"", "either a `command` or a `url`"),
            ("name = \"a\"\ncommand = [\"x\"]\nurl = \"http://a.example/\"", "either"),
            ("name = \"a\"\ncommand = []", "names no program"),
            ("name = \"a\"\ncommand = [\"x\"]\nbearer_file = \"f\"", "with a url"),
            ("name = \"a\"\nurl = \"http://a.example/\"\nenv = [\"X\"]", "with a command"),
            ("name = \"a\"\ncommand = [\"x\"]\nca_file = \"f\"", "with a url"),
            ("name = \"a\"\nurl = \"ftp://a.example/\"", "is not https:// or http://"),
            ("name = \"a\"\nurl = \"http://a.example/\"\nca_file = \"f\"", "an https:// url"),
            ("name = \"a\"\nurl = \"https://a!b.example/\"", "no certificate"),
            ("name = \"a\"\nurl = \"http://u:p@a.example/\"", "user or password"),
            ("name = \"a\"\nurl = \"http://a.example/\"\nbearer_file = \"f\"", "encryption"),
            ("name = \"a\"\ncommand = [\"x\"]\nprefix = \"_\"", "a prefix is"),
            ("name = \"a\"\ncommand = [\"x\"]\ntimeout_seconds = 0", "from 1 to"),
        ] {
            let text = format!("[[upstream]]\n{text}\n");
            let tables = toml::from_str::<Config>(&text).unwrap().upstream;
            let failure = check("c.toml", &text, &tables).unwrap_err();
            assert!(failure.message.contains(why), "{text}: {}", failure.message);
        }
        let twice = "[[upstream]]\nname = \"a\"\ncommand = [\"x\"]\n".repeat(2);
        let tables = toml::from_str::<Config>(&twice).unwrap().upstream;
        assert!(check("c.toml", &twice, &tables).unwrap_err().message.contains("two upstreams"));
    }
}
