//! Hosts: which are well formed, and which are nobody's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Refusal, refuse};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostRule {
    pub(crate) block_internal: bool,
    pub(crate) allow_internal: bool,
}

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
    "instance-data",
    "instance-data.ec2.internal",
    "rancher-metadata",
];

/// Checks a host as it stands in a URL: a name, an address, or an address in brackets.
pub(crate) fn check(host: &str, rule: HostRule) -> Result<(), Refusal> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return match inner.parse::<Ipv6Addr>() {
            Ok(ip) if ip.to_string() == inner => address(IpAddr::V6(ip), rule),
            _ => refuse("url_host", "is not a canonical IPv6 address"),
        };
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return address(IpAddr::V4(ip), rule);
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
            && !l.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("xn--"))
    };
    let top = host.rsplit('.').next().unwrap_or_default();
    let numeric = top.bytes().all(|b| b.is_ascii_digit())
        || top.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
    if host.len() > 253 || numeric || !host.split('.').all(label) {
        return refuse("url_host", "is not a plain host name or canonical address");
    }
    name(&host.to_ascii_lowercase(), rule)
}

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
    if internal && !rule.allow_internal {
        return refuse("internal_host", "is a name of an internal host");
    }
    embedded(host).into_iter().try_for_each(|ip| address(ip, rule))
}

/// Addresses that resolvers such as nip.io read out of a name: dotted, dashed, hexadecimal.
fn embedded(host: &str) -> Vec<IpAddr> {
    let parts: Vec<&str> = host.split(['.', '-']).collect();
    let octet = |s: &&str| match s.len() {
        1..=3 if s.bytes().all(|b| b.is_ascii_digit()) => s.parse::<u8>().ok(),
        _ => None,
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for window in parts.windows(4) {
        let octets: Option<Vec<u8>> = window.iter().map(octet).collect();
        if let Some([a, b, c, d]) = octets.as_deref() {
            found.push(Ipv4Addr::new(*a, *b, *c, *d).into());
        }
    }
    for part in &parts {
        if part.len() == 8
            && let Ok(bits) = u32::from_str_radix(part, 16)
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

fn address(ip: IpAddr, rule: HostRule) -> Result<(), Refusal> {
    let inner = match ip {
        IpAddr::V4(v4) => vec![v4],
        IpAddr::V6(v6) => {
            if v6.to_ipv4_mapped().is_some() {
                return refuse("url_host", "is an IPv4 address in the clothes of IPv6");
            }
            within(v6)
        }
    };
    if inner.iter().any(|v4| metadata_v4(*v4)) || matches!(ip, IpAddr::V6(v6) if metadata_v6(v6)) {
        return refuse("metadata_host", "is a link-local or metadata address");
    }
    if rule.block_internal
        && (inner.iter().any(|v4| internal_v4(*v4))
            || matches!(ip, IpAddr::V6(v6) if internal_v6(v6)))
    {
        return refuse("internal_host", "is an internal address");
    }
    Ok(())
}

fn metadata_v4(ip: Ipv4Addr) -> bool {
    ip.is_link_local()
        || matches!(ip.octets(), [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
}

fn metadata_v6(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
        || matches!(
            ip.segments(),
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        )
}

fn internal_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b & 0xfe) == 18)
        || (a == 192 && b == 0 && c == 0)
}

fn internal_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_unique_local()
        || ip.is_multicast()
        || (a & 0xffc0) == 0xfec0
        || (a == 0x64 && b == 0xff9b && ip.segments()[2] == 1)
        || (a == 0x2001 && b == 0xdb8)
}

/// The IPv4 addresses a tunnel or translator would deliver to.
fn within(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    let [a, b, c, d, e, f, g, h] = s;
    let mut found = Vec::new();
    match s {
        // v4-compatible; `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => found.push(v4(high, low)),
        // Stateless translation, ::ffff:0:a.b.c.d.
        [0, 0, 0, 0, 0xffff, 0, high, low] => found.push(v4(high, low)),
        [0x64, 0xff9b, ..] => found.push(v4(g, h)),
        _ => {}
    }
    if a == 0x2002 {
        found.push(v4(b, c));
    }
    if a == 0x2001 && b == 0 {
        found.push(v4(c, d));
        found.push(v4(!g, !h));
    }
    // ISATAP: 0:5efe or 200:5efe, then the address.
    if (e & 0xfdff) == 0 && f == 0x5efe {
        found.push(v4(g, h));
    }
    found
}
