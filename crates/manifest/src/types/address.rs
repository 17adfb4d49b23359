//! Addresses and ranges in one spelling each, and which of them are nobody's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Refusal, refuse};

/// What a declaration lifts or adds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostRule {
    pub(crate) block_internal: bool,
    pub(crate) allow_internal: bool,
    /// `/0` is a range like others.
    pub(crate) any: bool,
}

/// Link-local, and where clouds serve credentials.
const METADATA_V4: [(u32, u8); 4] = [
    (0xa9fe_0000, 16), // 169.254.0.0/16
    (0x6464_64c8, 32), // 100.100.100.200
    (0xa83f_8110, 32), // 168.63.129.16
    (0xc000_00c0, 32), // 192.0.0.192
];

/// Loopback, private, shared, reserved, multicast.
const INTERNAL_V4: [(u32, u8); 9] = [
    (0x0000_0000, 8),  // 0.0.0.0/8
    (0x0a00_0000, 8),  // 10.0.0.0/8
    (0x6440_0000, 10), // 100.64.0.0/10
    (0x7f00_0000, 8),  // 127.0.0.0/8
    (0xac10_0000, 12), // 172.16.0.0/12
    (0xc000_0000, 24), // 192.0.0.0/24
    (0xc0a8_0000, 16), // 192.168.0.0/16
    (0xc612_0000, 15), // 198.18.0.0/15
    (0xe000_0000, 3),  // 224.0.0.0/3
];

const METADATA_V6: [(u128, u8); 3] = [
    (0xfe80 << 112, 10),
    ((0xfd00 << 112) | (0x0ec2 << 96) | 0x254, 128),
    ((0xfd20 << 112) | (0x00ce << 96) | 0x254, 128),
];

const INTERNAL_V6: [(u128, u8); 6] = [
    (0, 128),
    (1, 128),
    (0xfc00 << 112, 7),
    (0xfec0 << 112, 10),
    (0xff00 << 112, 8),
    ((0x64 << 112) | (0xff9b << 96) | (1 << 80), 48),
];

/// A form of IPv6 address that an IPv4 one stands in.
struct Embedded {
    base: u128,
    /// Bits that tell the form.
    form: u8,
    /// Bits before the IPv4 address.
    before: u8,
    inverted: bool,
}

const fn embedded(base: u128, form: u8, before: u8) -> Embedded {
    Embedded { base, form, before, inverted: false }
}

const EMBEDDED: [Embedded; 8] = [
    embedded(0, 96, 96),                                          // v4-compatible
    embedded(0xffff << 32, 96, 96),                               // v4-mapped
    embedded(0xffff << 48, 96, 96),                               // stateless translation
    embedded((0x64 << 112) | (0xff9b << 96), 96, 96),             // NAT64
    embedded((0x64 << 112) | (0xff9b << 96) | (1 << 80), 48, 96), // NAT64 of a network
    embedded(0x2002 << 112, 16, 16),                              // 6to4
    embedded(0x2001 << 112, 32, 32),                              // Teredo, the server
    Embedded { base: 0x2001 << 112, form: 32, before: 96, inverted: true }, // and the client
];

fn v4_net((bits, len): (u32, u8)) -> Option<Ipv4Net> {
    Ipv4Net::new(Ipv4Addr::from_bits(bits), len).ok()
}

fn v6_net((bits, len): (u128, u8)) -> Option<Ipv6Net> {
    Ipv6Net::new(Ipv6Addr::from_bits(bits), len).ok()
}

fn overlap4(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn overlap6(a: Ipv6Net, b: Ipv6Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Whether two ranges share an address. An IPv4 range and an IPv6 one do not.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => overlap4(*a, *b),
        (IpNet::V6(a), IpNet::V6(b)) => overlap6(*a, *b),
        _ => false,
    }
}

/// The IPv4 range that an IPv6 range delivers to by way of a tunnel or translator: what of it
/// lies within the range, or all of IPv4 where the range holds the whole form.
pub(crate) fn within(net: Ipv6Net) -> Vec<Ipv4Net> {
    let mut found = Vec::new();
    let (bits, len) = (net.network().to_bits(), net.prefix_len());
    for Embedded { base, form, before, inverted } in EMBEDDED {
        // `::` and `::1` are themselves.
        let itself = base == 0 && len >= 127 && bits <= 1;
        if itself || !v6_net((base, form)).is_some_and(|form| overlap6(form, net)) {
            continue;
        }
        let shift = 96 - u32::from(before);
        let address = ((bits >> shift) & 0xffff_ffff) as u32;
        let address = if inverted { !address } else { address };
        let inner = len.saturating_sub(before).min(32);
        let inner = Ipv4Net::new(Ipv4Addr::from_bits(address), inner).ok();
        found.extend(inner.map(|net| net.trunc()));
    }
    // ISATAP: 0:5efe or 200:5efe, then the address.
    let [.., e, f, g, h] = net.network().segments();
    if len >= 96 && (e & 0xfdff) == 0 && f == 0x5efe {
        let address = Ipv4Addr::from_bits((u32::from(g) << 16) | u32::from(h));
        let inner = Ipv4Net::new(address, len.saturating_sub(96)).ok();
        found.extend(inner.map(|net| net.trunc()));
    }
    found
}

/// Every IPv4 range that is reached by asking for this one.
fn inner(net: &IpNet) -> Vec<Ipv4Net> {
    match net {
        IpNet::V4(net) => vec![*net],
        IpNet::V6(net) => within(*net),
    }
}

fn hits(net: &IpNet, v4: &[(u32, u8)], v6: &[(u128, u8)]) -> bool {
    let inner = inner(net);
    let four = v4.iter().filter_map(|n| v4_net(*n)).any(|n| inner.iter().any(|i| overlap4(*i, n)));
    let six = match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => v6.iter().filter_map(|n| v6_net(*n)).any(|n| overlap6(n, *net)),
    };
    four || six
}

/// Whether all of a range is link-local or for metadata.
fn lies_in_metadata(net: &IpNet) -> bool {
    let four = inner(net)
        .iter()
        .any(|net| METADATA_V4.iter().filter_map(|n| v4_net(*n)).any(|n| n.contains(net)));
    let six = match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => METADATA_V6.iter().filter_map(|n| v6_net(*n)).any(|n| n.contains(net)),
    };
    four || six
}

/// Refuses link-local and metadata addresses, and internal ones where that is declared. A range
/// is refused if any of it is: whoever scans it would reach that.
pub(crate) fn reachable(net: &IpNet, rule: HostRule) -> Result<(), Refusal> {
    if rule.any && net.prefix_len() == 0 && !rule.block_internal {
        return Ok(());
    }
    if hits(net, &METADATA_V4, &METADATA_V6) {
        let message = match net.prefix_len() == net.max_prefix_len() {
            true => "is a link-local or metadata address",
            false => "holds a link-local or metadata address; name smaller ranges around it",
        };
        return refuse("metadata_host", message);
    }
    if rule.block_internal && hits(net, &INTERNAL_V4, &INTERNAL_V6) {
        return refuse("internal_host", "is or holds an internal address");
    }
    Ok(())
}

/// One address in its canonical spelling, and no IPv4 address in the clothes of IPv6.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    (ip.to_string() == text && honest(ip)).then_some(ip)
}

fn honest(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            // Mapped, and compatible but for `::` and `::1`.
            (bits >> 32) != 0xffff && ((bits >> 32) != 0 || bits <= 1)
        }
    }
}

/// `ip_address`.
pub(crate) fn check_ip(text: &str, rule: HostRule) -> Result<(), Refusal> {
    match parse(text) {
        Some(ip) => reachable(&IpNet::from(ip), rule),
        None => refuse("not_an_ip", "is not an IP address in canonical form"),
    }
}

/// `cidr`: an address without host bits, a slash, a prefix length without leading zeros.
pub(crate) fn parse_cidr(text: &str, any: bool) -> Result<IpNet, Refusal> {
    let bad = || refuse("not_a_cidr", "is not an address range in canonical form");
    let Some((address, length)) = text.split_once('/') else {
        return bad();
    };
    let plain = length == "0"
        || (!length.starts_with('0')
            && (1..=3).contains(&length.len())
            && length.bytes().all(|b| b.is_ascii_digit()));
    let (Some(ip), true, Ok(length)) = (parse_any(address), plain, length.parse::<u8>()) else {
        return bad();
    };
    let Ok(net) = IpNet::new(ip, length) else {
        return bad();
    };
    // `::/0` and its like have an address that is compatible with IPv4 only by chance.
    if !honest(ip) && length > 0 {
        return bad();
    }
    if net.network() != ip {
        return refuse("host_bits", format!("has bits after the prefix; write `{}`", net.trunc()));
    }
    if length == 0 && !any {
        return refuse("everything", "is every address there is; `allow_any` lifts that");
    }
    Ok(net)
}

fn parse_any(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    (ip.to_string() == text).then_some(ip)
}

/// A range that is no target: one that merely holds a metadata address is fine, unless
/// `block_internal` says otherwise.
pub(crate) fn check_cidr(text: &str, rule: HostRule) -> Result<(), Refusal> {
    let net = parse_cidr(text, rule.any)?;
    if rule.block_internal || lies_in_metadata(&net) { reachable(&net, rule) } else { Ok(()) }
}
