//! Addresses and ranges in one spelling each, and which of them a declaration refuses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Refusal, refuse};
use crate::address::{DOCUMENTATION, holds_metadata, internal, lies_in_metadata};

/// What a declaration lifts or adds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostRule {
    pub(crate) block_internal: bool,
    pub(crate) allow_internal: bool,
    /// `/0` is a range like others.
    pub(crate) any: bool,
}

/// Refuses link-local and metadata addresses, and internal ones where that is declared. A range
/// is refused if any of it is: whoever scans it would reach that.
pub(crate) fn reachable(net: &IpNet, rule: HostRule) -> Result<(), Refusal> {
    if rule.any && net.prefix_len() == 0 && !rule.block_internal {
        return Ok(());
    }
    if holds_metadata(net) {
        let message = match net.prefix_len() == net.max_prefix_len() {
            true => "is a link-local or metadata address",
            false => "holds a link-local or metadata address; name smaller ranges around it",
        };
        return refuse("metadata_host", message);
    }
    // Nobody is at an address that stands in documents; manuals and tests write them.
    match internal(net).find(|what| *what != DOCUMENTATION) {
        Some(what) if rule.block_internal => {
            refuse("internal_host", format!("is or holds an internal address ({what})"))
        }
        _ => Ok(()),
    }
}

/// One address in its canonical spelling, and no IPv4 address in the clothes of IPv6.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    (ip.to_string() == text && honest(ip)).then_some(ip)
}

/// No IPv4 address in the clothes of IPv6.
pub(crate) fn honest(ip: IpAddr) -> bool {
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
