//! Which targets the operator has allowed: `[scope]` of a project, or of one manifest.

use ipnet::IpNet;

use crate::address::{overlap, within};
use crate::diagnostic::{Diagnostic, Report, excerpt};
use crate::fields::{At, Fields};
use crate::types::host::{Target, embedded, is_name};
use crate::types::{Refusal, refuse};

/// What may be asked for. Every rule in it is well formed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    allowed: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Why nobody knows what is allowed; then nothing is.
    broken: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Net(IpNet),
    /// Lower case.
    Name(String),
    /// What follows `*.`, lower case.
    Below(String),
}

impl Scope {
    /// Reads a scope file: `[scope]` with `targets`, `domains` and `exclude`, or `allowed_targets`,
    /// `allowed_domains`, `blocked_targets` and `blocked_domains`. There is a scope exactly if no
    /// diagnostic is an error.
    #[must_use]
    pub fn parse(text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        crate::parse::document(text, |mut root, report| {
            if !root.has("scope") {
                report.error("missing_table", &(0..0), "a scope file needs [scope]");
            }
            let scope = root.table("scope", report);
            root.finish(report);
            scope.map(|table| read(table, report))
        })
    }

    /// Stands for a scope that is there and cannot be read: everything is refused.
    pub(crate) fn broken(why: String) -> Self {
        Self { broken: Some(why), ..Self::default() }
    }

    /// The whole of what is asked for is allowed, and nothing of it is excluded.
    pub(crate) fn check(&self, target: &Target) -> Result<(), Refusal> {
        if let Some(why) = &self.broken {
            return refuse(
                "no_scope",
                format!("has to be within a scope, and it is broken: {why}"),
            );
        }
        // A name that resolvers read an address from is excluded with it.
        let mut reached: Vec<IpNet> = match target {
            Target::Net(net) => vec![*net],
            Target::Name(name) => embedded(name).into_iter().map(IpNet::from).collect(),
        };
        if let Target::Net(IpNet::V6(net)) = target {
            reached.extend(within(*net).into_iter().map(IpNet::V4));
        }
        let excluded = |rule: &Rule| match (rule, target) {
            (Rule::Net(rule), _) => reached.iter().any(|net| overlap(rule, net)),
            (Rule::Name(rule), Target::Name(name)) => rule == name,
            (Rule::Below(rule), Target::Name(name)) => name == rule || below(name, rule),
            (Rule::Name(_) | Rule::Below(_), Target::Net(_)) => false,
        };
        if self.excluded.iter().any(excluded) {
            return refuse("out_of_scope", "is, or overlaps, what the scope excludes");
        }
        let allowed = |rule: &Rule| match (rule, target) {
            (Rule::Net(IpNet::V4(rule)), Target::Net(IpNet::V4(net))) => rule.contains(net),
            (Rule::Net(IpNet::V6(rule)), Target::Net(IpNet::V6(net))) => rule.contains(net),
            (Rule::Name(rule), Target::Name(name)) => rule == name,
            (Rule::Below(rule), Target::Name(name)) => below(name, rule),
            _ => false,
        };
        if self.allowed.iter().any(allowed) {
            Ok(())
        } else {
            refuse("out_of_scope", "is not within one rule of the scope")
        }
    }
}

fn below(name: &str, rule: &str) -> bool {
    name.strip_suffix(rule).is_some_and(|head| head.ends_with('.'))
}

pub(crate) fn read(mut table: Fields<'_>, report: &mut Report) -> Scope {
    let mut scope = Scope::default();
    for key in ["targets", "allowed_targets", "domains", "allowed_domains"] {
        scope.allowed.extend(rules(&mut table, key, report));
    }
    for key in ["exclude", "blocked_targets", "blocked_domains"] {
        scope.excluded.extend(rules(&mut table, key, report));
    }
    table.finish(report);
    scope
}

fn rules(table: &mut Fields<'_>, key: &'static str, report: &mut Report) -> Vec<Rule> {
    let list = table.strings(key, report).map(|list| list.value).unwrap_or_default();
    list.iter().filter_map(|item| rule(item, report)).collect()
}

fn rule(item: &At<&str>, report: &mut Report) -> Option<Rule> {
    let found = parse(item.value);
    if found.is_none() {
        let message = format!(
            "`{}` is no address, range without host bits, host name or `*.` and a host name",
            excerpt(item.value)
        );
        report.error("bad_scope_rule", &item.span, message);
    }
    found
}

fn parse(text: &str) -> Option<Rule> {
    if let Ok(net) = text.parse::<IpNet>() {
        return (net.network() == net.addr()).then_some(Rule::Net(net));
    }
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Some(Rule::Net(ip.into()));
    }
    let lower = text.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("*.") {
        return is_name(name).then(|| Rule::Below(name.to_owned()));
    }
    is_name(&lower).then_some(Rule::Name(lower))
}

/// Whether a browser may be told to go by this rule: a host name, an address, or `*.` and a name.
pub(crate) fn is_rule(text: &str) -> bool {
    parse(text).is_some()
}
