//! `[[upstream]]` in `countersign.toml`: existing MCP servers behind the gateway.

mod catalog;
mod difference;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_core::plan::Piece;
use countersign_exec::mcp::{HttpUpstream, UpstreamConfig, UpstreamTransport};
use countersign_exec::{ProcessConfig, Secrets, SupervisorCommand};
use countersign_manifest::{RiskTier, UpstreamRules, secret_text};
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
    /// Values may name secrets, as in `headers`.
    #[serde(default)]
    set_env: BTreeMap<String, Spanned<String>>,
    url: Option<Spanned<String>>,
    bearer_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
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
                let file = self.bearer_file.as_ref().or(self.ca_file.as_ref()).map(Spanned::span);
                let header = self.headers.values().next().map(Spanned::span);
                match file.or(header) {
                    Some(span) => Err((span, "that is for an upstream with a url".into())),
                    None => self.check_env(),
                }
            }
            (None, Some(url)) => {
                let env = self.env.as_ref().map(Spanned::span);
                let set = self.set_env.values().next().map(Spanned::span);
                if let Some(span) = env.or(set) {
                    return Err((span, "that is for an upstream with a command".into()));
                }
                // The names count here, not the values.
                let token = self.bearer_file.iter().map(|_| BEARER);
                let names = self.headers.keys().map(String::as_str).chain(token);
                let headers = names.map(|name| (name.to_owned(), Zeroizing::default())).collect();
                let upstream = self.reached(url, headers, None)?;
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

    fn check_env(&self) -> Result<(), Problem> {
        let handed_on = self.env.as_ref().map(Spanned::get_ref);
        for (name, value) in &self.set_env {
            let why = if name.is_empty() || name.contains(['=', '\0']) {
                "this is no name of a variable"
            } else if name == "PATH" || handed_on.is_some_and(|names| names.contains(name)) {
                "this variable is handed on, and cannot be set as well"
            } else if value.get_ref().contains('\0') {
                "the value holds a NUL"
            } else {
                continue;
            };
            return Err((value.span(), why.to_owned()));
        }
        Ok(())
    }

    /// Texts in which secrets may stand.
    fn texts(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.set_env.values().chain(self.headers.values())
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
            _ if error.field == "headers" => (
                self.headers.values().next().map_or_else(|| url.span(), Spanned::span),
                format!("the headers {}", error.rule),
            ),
            _ => (url.span(), format!("the url {}", error.rule)),
        })
    }

    fn build(
        &self,
        folder: &std::path::Path,
        setting: &Setting,
        secrets: &Secrets,
    ) -> Result<Built, Problem> {
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
                for (name, text) in &self.set_env {
                    // The environment of a process is a text that is not wiped.
                    env.push((name.clone(), filled(text, secrets)?.to_string()));
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
                for (name, text) in &self.headers {
                    headers.push((name.clone(), filled(text, secrets)?));
                }
                let file = self.ca_file.as_ref();
                let roots_pem = file.map(|file| setting.read(folder, file)).transpose()?;
                roots = roots_pem.as_ref().map(Digest::of);
                UpstreamTransport::Http(self.reached(url, headers, roots_pem.as_deref())?)
            }
            (None, None) => return Err((self.name.span(), "nothing to connect to".to_owned())),
        };
        // Secrets by their names, and never by a digest that could be tried.
        let texts = |texts: &BTreeMap<String, Spanned<String>>| {
            texts.iter().map(|(name, text)| json!([name, text.get_ref()])).collect::<Vec<_>>()
        };
        let mut where_to = match &transport {
            UpstreamTransport::Process { argv, process } => {
                let env = process.env.iter().filter(|(name, _)| !self.set_env.contains_key(name));
                json!({
                    "argv": argv,
                    "env": env.map(|(name, value)| json!([name, Digest::of(value)]))
                        .collect::<Vec<_>>(),
                    "path": process.path,
                })
            }
            UpstreamTransport::Http(http) => match roots {
                Some(roots) => json!({ "url": http.url(), "ca": roots.to_string() }),
                None => json!({ "url": http.url() }),
            },
        };
        for (key, given) in [("set_env", &self.set_env), ("headers", &self.headers)] {
            if let Some(fields) = where_to.as_object_mut().filter(|_| !given.is_empty()) {
                fields.insert(key.to_owned(), texts(given).into());
            }
        }
        Ok(Built {
            config: UpstreamConfig {
                name: name.clone(),
                prefix: self.prefix(),
                transport,
                connect_timeout: Self::seconds(self.connect_timeout_seconds.as_ref(), 30)?,
                request_timeout: Self::seconds(self.timeout_seconds.as_ref(), 60)?,
                features,
                redactor: secrets.redactor().clone(),
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

fn filled(text: &Spanned<String>, secrets: &Secrets) -> Result<Zeroizing<String>, Problem> {
    let pieces = secret_text(text.get_ref());
    pieces.and_then(|pieces| secrets.fill(&pieces)).map_err(|why| (text.span(), why))
}

/// Holds the tables against the rules that the text alone decides. `secrets` are the names that
/// `[secrets]` has.
pub(crate) fn check(
    path: &str,
    text: &str,
    tables: &[UpstreamTable],
    secrets: &BTreeSet<&str>,
) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for table in tables {
        let checked = table.check().and_then(|()| {
            table.texts().try_for_each(|text| {
                let pieces = secret_text(text.get_ref()).map_err(|why| (text.span(), why))?;
                let unknown = pieces.iter().find_map(|piece| match piece {
                    Piece::Secret(of) if !secrets.contains(of.secret.as_str()) => Some(&of.secret),
                    _ => None,
                });
                let why = |name| format!("[secrets] does not name `{name}`");
                unknown.map_or(Ok(()), |name| Err((text.span(), why(name))))
            })
        });
        checked.map_err(|(span, why)| at(path, text, span.start, &why))?;
        if !names.insert(table.name.get_ref()) {
            let why = format!("two upstreams are called `{}`", table.name.get_ref());
            return Err(at(path, text, table.name.span().start, &why));
        }
    }
    Ok(())
}

fn build(loaded: &Loaded, setting: &Setting, secrets: &Secrets) -> Result<Vec<Built>, Failure> {
    let path = loaded.path.clone().unwrap_or_default();
    let folder = path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let build = |table: &UpstreamTable| {
        table
            .build(&folder, setting, secrets)
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
            ("name = \"a\"\nurl = \"http://a.example/\"\nset_env = { X = \"1\" }", "a command"),
            ("name = \"a\"\nurl = \"http://a.example/\"\nheaders = { X = \"1\" }", "encryption"),
            ("name = \"a\"\nurl = \"https://a.example/\"\nheaders = { Host = \"b\" }", "by itself"),
            (
                "name = \"a\"\nurl = \"https://a.example/\"\nheaders = { \"X Y\" = \"b\" }",
                "be sent",
            ),
            (
                "name = \"a\"\nurl = \"https://a.example/\"\nheaders = { X = \"{_secret:no}\" }",
                "`no`",
            ),
            ("name = \"a\"\ncommand = [\"x\"]\nheaders = { X = \"1\" }", "with a url"),
            ("name = \"a\"\ncommand = [\"x\"]\nset_env = { PATH = \"1\" }", "handed on"),
            (
                "name = \"a\"\ncommand = [\"x\"]\nenv = [\"X\"]\nset_env = { X = \"1\" }",
                "handed on",
            ),
            ("name = \"a\"\ncommand = [\"x\"]\nset_env = { \"X=Y\" = \"1\" }", "no name"),
            ("name = \"a\"\ncommand = [\"x\"]\nset_env = { X = \"{key}\" }", "stands for nothing"),
            ("name = \"a\"\ncommand = [\"x\"]\nset_env = { X = \"{_secret:no}\" }", "`no`"),
            ("name = \"a\"\ncommand = [\"x\"]\nprefix = \"_\"", "a prefix is"),
            ("name = \"a\"\ncommand = [\"x\"]\ntimeout_seconds = 0", "from 1 to"),
        ] {
            let text = format!("[[upstream]]\n{text}\n");
            let tables = toml::from_str::<Config>(&text).unwrap().upstream;
            let failure = check("c.toml", &text, &tables, &["key"].into()).unwrap_err();
            assert!(failure.message.contains(why), "{text}: {}", failure.message);
        }
        let twice = "[[upstream]]\nname = \"a\"\ncommand = [\"x\"]\n".repeat(2);
        let tables = toml::from_str::<Config>(&twice).unwrap().upstream;
        assert!(
            check("c.toml", &twice, &tables, &BTreeSet::new())
                .unwrap_err()
                .message
                .contains("two upstreams")
        );
    }
}
