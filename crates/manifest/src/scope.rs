//! Which targets the operator has allowed: `[scope]` of a project, or of one manifest.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use crate::address::{overlap, stands_for, within};
use crate::diagnostic::{Diagnostic, Report, excerpt};
use crate::fields::{At, Fields};
use crate::types::address::honest;
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
pub(crate) enum Rule {
    Net(IpNet),
    /// Lower case.
    Name(String),
    /// What follows `*.`, lower case.
    Below(String),
}

impl Rule {
    fn net(&self) -> Option<IpNet> {
        match self {
            Self::Net(net) => Some(*net),
            Self::Name(_) | Self::Below(_) => None,
        }
    }
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
        // And an IPv4 address with every IPv6 one that delivers to it.
        let inner: Vec<_> = sixes(&reached).flat_map(within).map(IpNet::V4).collect();
        reached.extend(inner);
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

fn sixes(nets: &[IpNet]) -> impl Iterator<Item = Ipv6Net> {
    nets.iter().filter_map(|net| match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(*net),
    })
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
    // Who excludes an IPv4 address by an IPv6 one that delivers to it excludes it in every form.
    let written: Vec<_> = scope.excluded.iter().filter_map(Rule::net).collect();
    let inner = sixes(&written).flat_map(stands_for).map(|net| Rule::Net(net.into()));
    scope.excluded.extend(inner.collect::<Vec<_>>());
    table.finish(report);
    scope
}

fn rules(table: &mut Fields<'_>, key: &'static str, report: &mut Report) -> Vec<Rule> {
    let list = table.strings(key, report).map(|list| list.value).unwrap_or_default();
    list.iter().filter_map(|item| rule(item, report)).collect()
}

/// A host name, an address or range, or `*.` and a name.
pub(crate) fn rule(item: &At<&str>, report: &mut Report) -> Option<Rule> {
    let shown = excerpt(item.value);
    let net =
        item.value.parse::<IpNet>().or_else(|_| item.value.parse::<IpAddr>().map(IpNet::from));
    if let Ok(IpNet::V6(six)) = net
        && !honest(six.network().into())
    {
        let message = format!("`{shown}` is IPv4 in the clothes of IPv6, which no value is");
        let diagnostic = report.error("bad_scope_rule", &item.span, message);
        if let Some(four) = within(six).first() {
            let four =
                if four.prefix_len() == 32 { four.addr().to_string() } else { four.to_string() };
            diagnostic.fix(format!("write `{four}`"));
        }
        return None;
    }
    let lower = item.value.to_ascii_lowercase();
    let below = lower.strip_prefix("*.");
    let found = match net {
        Ok(net) => (net.network() == net.addr()).then_some(Rule::Net(net)),
        Err(_) if !is_name(below.unwrap_or(&lower)) => None,
        Err(_) => Some(match below {
            Some(name) => Rule::Below(name.to_owned()),
            None => Rule::Name(lower),
        }),
    };
    if found.is_none() {
        let message = format!(
            "`{shown}` is no address, range without host bits, host name or `*.` and a host name"
        );
        report.error("bad_scope_rule", &item.span, message);
    }
    found
}
