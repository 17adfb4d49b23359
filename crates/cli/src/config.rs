//! `countersign.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use countersign_core::digest::Digest;
use countersign_escalation::Limits;
use countersign_kernel::{APPROVERS, GrantLimits, Policy, Rules};
use countersign_manifest::{RiskTier, line_column};
use countersign_server::{Principal, Role};
use serde::Deserialize;

use crate::approvals::{self, ApprovalsTable, DelegationTable};
use crate::args::Global;
use crate::hooks::{self, HookTable};
use crate::notifiers::{self, NotifierTable};
use crate::output::Failure;
use crate::secrets::{self, HttpTable, SecretTable};
use crate::upstreams::{self, UpstreamTable};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) tools: Tools,
    pub(crate) policy: PolicyTable,
    pub(crate) limits: LimitsTable,
    pub(crate) stdio: Stdio,
    pub(crate) principals: Vec<PrincipalTable>,
    pub(crate) approvals: ApprovalsTable,
    pub(crate) delegations: Vec<DelegationTable>,
    pub(crate) hooks: Vec<HookTable>,
    pub(crate) notifiers: Vec<NotifierTable>,
    pub(crate) secrets: std::collections::BTreeMap<String, SecretTable>,
    pub(crate) http: HttpTable,
    pub(crate) upstream: Vec<UpstreamTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) bind: SocketAddr,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) behind_proxy: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) drain_seconds: u64,
    /// How long an MCP call waits for a person before its answer is that it is still pending:
    /// less than clients wait, which is often 60.
    pub(crate) pending_after_seconds: u64,
    /// Bytes of an answer of an upstream server over HTTP.
    pub(crate) answer_max_bytes: usize,
    /// Who MCP clients without a token are.
    pub(crate) anonymous_agent: Option<String>,
    /// Where people reach the console, if not at the address that is bound.
    pub(crate) public_url: Option<String>,
    pub(crate) public_log: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 7700)),
            allowed_hosts: Vec::new(),
            behind_proxy: false,
            max_body_bytes: 4 << 20,
            drain_seconds: 10,
            pending_after_seconds: 45,
            answer_max_bytes: 1_000_000,
            anonymous_agent: None,
            public_url: None,
            public_log: false,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    pub(crate) max_bytes: Option<u64>,
}

/// Where tools work unless told otherwise: a folder with nothing of the gateway's in it.
pub(crate) const DEFAULT_ROOT: &str = "workspace";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tools {
    pub(crate) dir: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) path: Option<Vec<PathBuf>>,
    pub(crate) env: Vec<String>,
    pub(crate) watch_seconds: u64,
}

impl Default for Tools {
    fn default() -> Self {
        let env = ["LANG", "LC_ALL", "TZ"].map(str::to_owned).to_vec();
        Self {
            dir: "examples/tools".into(),
            root: DEFAULT_ROOT.into(),
            path: None,
            env,
            watch_seconds: 2,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PolicyTable {
    pub(crate) hold_from: HoldFrom,
    pub(crate) approval_timeout_seconds: u64,
    pub(crate) approval_valid_for_seconds: u64,
    pub(crate) grant_max_uses: u64,
    pub(crate) grant_max_seconds: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HoldFrom {
    Info,
    Low,
    Medium,
    High,
    Critical,
    Never,
}

impl Default for PolicyTable {
    fn default() -> Self {
        Self {
            hold_from: HoldFrom::High,
            approval_timeout_seconds: 300,
            approval_valid_for_seconds: 600,
            grant_max_uses: 100,
            grant_max_seconds: 3600,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsTable {
    pub(crate) pending_total: usize,
    pub(crate) pending_per_agent: usize,
}

impl Default for LimitsTable {
    fn default() -> Self {
        let limits = Limits::default();
        Self { pending_total: limits.total, pending_per_agent: limits.per_agent }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stdio {
    pub(crate) agent: String,
}

impl Default for Stdio {
    fn default() -> Self {
        Self { agent: "agent".to_owned() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrincipalTable {
    pub(crate) id: String,
    pub(crate) display: Option<String>,
    pub(crate) roles: std::collections::BTreeSet<Role>,
    pub(crate) owner: Option<String>,
    #[serde(default)]
    pub(crate) groups: std::collections::BTreeSet<String>,
    #[serde(default)]
    pub(crate) token_sha256: Vec<Digest>,
}

impl PrincipalTable {
    pub(crate) fn principal(&self) -> Principal {
        Principal {
            id: self.id.clone(),
            display: self.display.clone().unwrap_or_else(|| self.id.clone()),
            roles: self.roles.clone(),
            owner: self.owner.clone(),
            groups: self.groups.clone(),
            tokens: self.token_sha256.clone(),
        }
    }
}

/// The configuration, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) path: Option<PathBuf>,
    /// As it was read; for saying where in it a problem is.
    pub(crate) text: String,
    pub(crate) state: PathBuf,
}

impl Loaded {
    pub(crate) fn database(&self) -> PathBuf {
        self.state.join("journal.db")
    }

    pub(crate) fn public_key(&self) -> PathBuf {
        self.state.join("log.pub")
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            total: self.config.limits.pending_total,
            per_agent: self.config.limits.pending_per_agent,
            ..Limits::default()
        }
    }

    /// `context` is whatever else decides about the effect of a plan.
    pub(crate) fn policy(&self, rules: Rules, context: Vec<(String, String)>) -> Policy {
        let table = &self.config.policy;
        Policy {
            hold_from: match table.hold_from {
                HoldFrom::Info => Some(RiskTier::Info),
                HoldFrom::Low => Some(RiskTier::Low),
                HoldFrom::Medium => Some(RiskTier::Medium),
                HoldFrom::High => Some(RiskTier::High),
                HoldFrom::Critical => Some(RiskTier::Critical),
                HoldFrom::Never => None,
            },
            approval_timeout: Duration::from_secs(table.approval_timeout_seconds),
            approval_valid_for: Duration::from_secs(table.approval_valid_for_seconds),
            grants: (table.grant_max_uses > 0 && table.grant_max_seconds > 0).then(|| {
                GrantLimits {
                    max_uses: table.grant_max_uses,
                    valid_for: Duration::from_secs(table.grant_max_seconds),
                }
            }),
            rules,
            context,
        }
    }
}

/// Reads the configuration named on the command line, or `countersign.toml`, or the defaults.
pub(crate) fn load(global: &Global) -> Result<Loaded, Failure> {
    let default = PathBuf::from("countersign.toml");
    let path = match &global.config {
        Some(path) => Some(path.clone()),
        None => default.exists().then_some(default),
    };
    let (config, text) = match &path {
        None => (Config::default(), String::new()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            let name = path.display().to_string();
            let config: Config =
                toml::from_str(&text).map_err(|error| explain(&name, &text, &error))?;
            hooks::check(&name, &text, &config.hooks)?;
            approvals::check(&name, &text, &config.approvals.rules, &config.delegations)?;
            notifiers::check(&name, &text, &config.notifiers)?;
            secrets::check(&name, &text, &config.secrets, &config.http)?;
            let secrets = config.secrets.keys().map(String::as_str).collect();
            upstreams::check(&name, &text, &config.upstream, &secrets)?;
            (config, text)
        }
    };
    let state = global.state.clone().unwrap_or_else(|| PathBuf::from(".countersign"));
    check(&config)?;
    Ok(Loaded { config, path, text, state })
}

fn check(config: &Config) -> Result<(), Failure> {
    // As much as the gateway's own answers take, and twice what an upstream reads by default.
    if !(1_000_000..=16 << 20).contains(&config.server.answer_max_bytes) {
        return Err(Failure::new("server.answer_max_bytes is not between 1000000 and 16777216"));
    }
    let server = &config.server;
    if !server.bind.ip().is_loopback() && !server.behind_proxy {
        return Err(Failure::new(format!(
            "server.bind is {}, which others can reach without encryption",
            server.bind
        ))
        .hint(
            "bind to 127.0.0.1, or put a TLS proxy in front and set server.behind_proxy = true",
        ));
    }
    if server.anonymous_agent.is_some() {
        let others = !server.bind.ip().is_loopback()
            || server.behind_proxy
            || !server.allowed_hosts.is_empty();
        if others {
            let text = "server.anonymous_agent lets anybody in who can reach the gateway";
            return Err(Failure::new(text).hint(
                "bind to 127.0.0.1, without behind_proxy and allowed_hosts, or give agents tokens",
            ));
        }
    }
    if let Some(url) = &server.public_url
        && !url.starts_with("https://")
        && !url.starts_with("http://")
    {
        return Err(Failure::new(format!(
            "server.public_url is `{url}`, which is no https:// URL"
        )));
    }
    let mut ids = std::collections::BTreeSet::new();
    for principal in &config.principals {
        if !ids.insert(&principal.id) {
            return Err(Failure::new(format!("two principals have the id `{}`", principal.id)));
        }
        if principal.roles.contains(&Role::Agent) && principal.roles.len() > 1 {
            return Err(Failure::new(format!(
                "the principal `{}` is an agent and something else",
                principal.id
            ))
            .hint("an agent never decides; give the person a principal of their own"));
        }
        if principal.id.is_empty() || principal.id.chars().any(char::is_control) {
            return Err(Failure::new("a principal's id must be a text without control characters"));
        }
        for group in &principal.groups {
            check_group(&principal.id, group)?;
        }
    }
    let mut tokens = std::collections::BTreeMap::new();
    for principal in &config.principals {
        for token in &principal.token_sha256 {
            if let Some(other) = tokens.insert(token.to_string(), &principal.id)
                && *other != principal.id
            {
                let text = format!("`{other}` and `{}` have one and the same token", principal.id);
                return Err(
                    Failure::new(text).hint("a token says who somebody is: give each their own")
                );
            }
        }
    }
    if !(1..=366 * 24 * 60 * 60).contains(&config.policy.approval_timeout_seconds) {
        let text = "policy.approval_timeout_seconds must be from 1 to 31622400, which is 366 days";
        return Err(Failure::new(text));
    }
    if config.tools.watch_seconds > 3600 {
        return Err(Failure::new("tools.watch_seconds must be from 0 to 3600"));
    }
    Ok(())
}

/// The longest name of a group: answers are recorded with the groups they count for.
const GROUP_MAX: usize = 64;

fn check_group(principal: &str, group: &str) -> Result<(), Failure> {
    if group == APPROVERS {
        let text = format!("`{principal}` cannot be put into the group `{APPROVERS}`");
        return Err(Failure::new(text)
            .hint("everybody who may decide is in it, by the role approver or admin"));
    }
    if group.is_empty() || group.len() > GROUP_MAX || group.chars().any(char::is_control) {
        return Err(Failure::new(format!(
            "a group of `{principal}` has no name of 1 to {GROUP_MAX} bytes without control \
             characters"
        )));
    }
    Ok(())
}

/// A problem at a place of the file.
pub(crate) fn at(path: &str, text: &str, start: usize, why: &str) -> Failure {
    let (line, column) = line_column(text, start);
    Failure::new(format!("{path}:{line}:{column}: {why}"))
}

fn explain(path: &str, text: &str, error: &toml::de::Error) -> Failure {
    let place = match error.span() {
        Some(span) => {
            let (line, column) = line_column(text, span.start);
            format!("{path}:{line}:{column}")
        }
        None => path.to_owned(),
    };
    let failure = Failure::new(format!("{place}: {}", error.message()));
    match suggestion(error.message()) {
        Some(word) => failure.hint(format!("did you mean `{word}`?")),
        None => failure,
    }
}

/// The known word nearest to the unknown one, out of serde's "unknown … expected …".
fn suggestion(message: &str) -> Option<String> {
    let (unknown, expected) = message.split_once("expected")?;
    let quoted = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let unknown = quoted(unknown).into_iter().next()?;
    nearest(&unknown, quoted(expected).iter().map(String::as_str))
}

/// The known word nearest to one that is not, if one is near.
pub(crate) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(word, unknown), word))
        .filter(|(distance, word)| *distance <= word.len().max(3) / 2)
        .min()
        .map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion() {
        for (text, place, word) in [
            ("[server]\nbnd = \"127.0.0.1:1\"\n", "c.toml:2:1", Some("bind")),
            ("[sever]\n", "c.toml:1:2", Some("server")),
            ("[policy]\nhold_from = \"hihg\"\n", "c.toml:2:13", Some("high")),
            ("[store]\nzzzzzzzzzzzzzz = 1\n", "c.toml:2:1", None),
        ] {
            let error = toml::from_str::<Config>(text).unwrap_err();
            let failure = explain("c.toml", text, &error);
            assert!(failure.message.starts_with(place), "{}", failure.message);
            assert_eq!(failure.hint.is_some(), word.is_some(), "{text}");
            if let (Some(hint), Some(word)) = (failure.hint, word) {
                assert!(hint.contains(word), "{hint}");
            }
        }
    }

    #[test]
    fn what_is_not_safe_is_refused() {
        for text in [
            "[server]\nbind = \"0.0.0.0:7700\"\n",
            "[server]\nanonymous_agent = \"agent\"\nbehind_proxy = true\n",
            "[server]\nanonymous_agent = \"agent\"\nallowed_hosts = [\"a.example\"]\n",
            "[policy]\napproval_timeout_seconds = 0\n",
            "[server]\npublic_url = \"gateway.example.org\"\n",
            "[policy]\napproval_timeout_seconds = 99999999\n",
            "[[principals]]\nid = \"a\"\nroles = [\"agent\", \"approver\"]\n",
            "[[principals]]\nid = \"a\"\nroles = []\n[[principals]]\nid = \"a\"\nroles = []\n",
        ] {
            let config = toml::from_str(text).unwrap();
            assert!(check(&config).is_err(), "{text}");
        }
        check(&toml::from_str("[server]\nbind = \"0.0.0.0:1\"\nbehind_proxy = true\n").unwrap())
            .unwrap();
    }
}
