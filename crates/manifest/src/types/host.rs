//! Host names, and what asks for a host: `scope_target`, and the host of a `url`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::address::{self, HostRule};
use super::{Refusal, refuse};

/// Names under which clouds serve credentials to whoever asks from inside.
const METADATA: &[&str] = &[
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.com",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "metadata.oraclecloud.com",
    "instance-data",
    "instance-data.ec2.internal",
    "rancher-metadata",
];

/// What is asked for: a range, of one address or more, or a name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Net(IpNet),
    Name(String),
}

/// A `scope_target`.
pub(crate) fn target(text: &str, rule: HostRule) -> Result<Target, Refusal> {
    if text.contains('/') {
        let net = address::parse_cidr(text, rule.any)?;
        address::reachable(&net, rule)?;
        return Ok(Target::Net(net));
    }
    if text.contains(':') {
        return match address::parse(text) {
            Some(ip) => {
                address::reachable(&IpNet::from(ip), rule)?;
                Ok(Target::Net(ip.into()))
            }
            None => refuse("not_a_target", "is neither a canonical address, range nor host name"),
        };
    }
    plain(text, rule, "not_a_target")
}

/// A host as it stands in a URL: a name, an address, or an address in brackets.
pub(crate) fn of_url(host: &str, rule: HostRule) -> Result<Target, Refusal> {
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => match address::parse(inner) {
            Some(ip @ IpAddr::V6(_)) => {
                address::reachable(&IpNet::from(ip), rule)?;
                Ok(Target::Net(ip.into()))
            }
            _ => refuse("url_host", "is not a canonical IPv6 address"),
        },
        None => plain(host, rule, "url_host"),
    }
}

/// An IPv4 address or a name.
fn plain(host: &str, rule: HostRule, code: &'static str) -> Result<Target, Refusal> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        address::reachable(&IpNet::from(IpAddr::V4(ip)), rule)?;
        return Ok(Target::Net(IpAddr::V4(ip).into()));
    }
    if !is_name(host) {
        return refuse(code, "is not a plain host name or canonical address");
    }
    let host = host.to_ascii_lowercase();
    name(&host, rule)?;
    Ok(Target::Name(host))
}

/// At most 253 characters; labels of letters, digits and inner hyphens; none encoded; the last
/// one neither a number nor a range of numbers.
pub(crate) fn is_name(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
            && !l.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("xn--"))
    };
    let top = host.rsplit('.').next().unwrap_or_default();
    // Digits and hyphens alone are how scanners write the end of a range of addresses.
    let numeric = top.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        || top
            .get(..2)
            .filter(|p| p.eq_ignore_ascii_case("0x"))
            .is_some_and(|_| top.bytes().skip(2).all(|b| b.is_ascii_hexdigit()));
    host.len() <= 253 && !numeric && host.split('.').all(label)
}

/// Refuses the names of metadata services and of this machine and network.
fn name(host: &str, rule: HostRule) -> Result<(), Refusal> {
    let under = |suffix: &str| {
        host.strip_suffix(suffix).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    let internal = ["localhost", "local", "internal", "localdomain"].into_iter().any(under);
    let first = host.split('.').next().unwrap_or_default();
    if METADATA.iter().any(|m| under(m))
        || (internal && matches!(first, "metadata" | "instance-data"))
    {
        return refuse("metadata_host", "is a cloud metadata service");
    }
    if internal && (!rule.allow_internal || rule.block_internal) {
        return refuse("internal_host", "is a name of an internal host");
    }
    embedded(host).into_iter().try_for_each(|ip| address::reachable(&ip.into(), rule))
}

/// Addresses that resolvers such as nip.io read out of a name: dotted, dashed, hexadecimal, or as
/// one number.
pub(crate) fn embedded(host: &str) -> Vec<IpAddr> {
    let parts: Vec<&str> = host.split(['.', '-']).collect();
    let octet = |s: &&str| match s.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok().filter(|_| hex.len() <= 2),
        None => match s.len() {
            1..=3 if s.bytes().all(|b| b.is_ascii_digit()) => s.parse::<u8>().ok(),
            _ => None,
        },
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for window in parts.windows(4) {
        let octets: Option<Vec<u8>> = window.iter().map(octet).collect();
        if let Some([a, b, c, d]) = octets.as_deref() {
            found.push(Ipv4Addr::new(*a, *b, *c, *d).into());
        }
    }
    for part in &parts {
        let hex = part.strip_prefix("0x").unwrap_or(part);
        if hex.len() == 8
            && let Ok(bits) = u32::from_str_radix(hex, 16)
        {
            found.push(Ipv4Addr::from_bits(bits).into());
        }
        if (8..=10).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit())
            && let Ok(bits) = part.parse()
        {
            found.push(Ipv4Addr::from_bits(bits).into());
        }
    }
    for label in host.split('.') {
        if let Ok(ip) = label.replace('-', ":").parse::<Ipv6Addr>() {
            found.push(ip.into());
        }
    }
    found
}
