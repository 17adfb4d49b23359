//! Which addresses are not of the public internet, after the special-purpose registries of IANA
//! (RFC 6890 and its updates), and at which machines are told secrets about themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What the address is instead of one of the public internet, in a few words: loopback, private,
/// link-local, set aside for documentation and the like. Of an IPv6 address that some tunnel or
/// translator turns into an IPv4 one, the latter counts.
#[must_use]
pub fn internal_address(address: IpAddr) -> Option<&'static str> {
    internal(&address.into()).next()
}

/// Whether machines are told about themselves there, often with credentials: all of link-local, and
/// what clouds have elsewhere, in every form that embeds one. Each such address is also an
/// [`internal_address`].
#[must_use]
pub fn metadata_address(address: IpAddr) -> bool {
    holds_metadata(&address.into())
}

/// What stands in documents, and in no network: nothing is behind it.
pub(crate) const DOCUMENTATION: &str = "documentation";

const V4: [(Ipv4Net, &str); 19] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "set aside for protocols"),
    (v4(192, 0, 2, 0, 24), DOCUMENTATION),
    (v4(192, 31, 196, 0, 24), "set aside for protocols"),
    (v4(192, 52, 193, 0, 24), "set aside for protocols"),
    (v4(192, 88, 99, 0, 24), "a relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "set aside for protocols"),
    (v4(198, 18, 0, 0, 15), "for measurements"),
    (v4(198, 51, 100, 0, 24), DOCUMENTATION),
    (v4(203, 0, 113, 0, 24), DOCUMENTATION),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    // Public by its number; a cloud answers its own machines on it.
    (v4(168, 63, 129, 16, 32), "a metadata service"),
];

const V6: [(Ipv6Net, &str); 13] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "translated locally"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 63), "discarded"),
    // Teredo among them, which hides an IPv4 address.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "set aside for protocols"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), DOCUMENTATION),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "set aside for protocols"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), DOCUMENTATION),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "for segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "private"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// What may be of the public internet: all that was ever given out as global unicast, and the
/// two forms by which a public IPv4 address is reached.
const PUBLIC_V6: [Ipv6Net; 3] = [v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), MAPPED, NAT64];
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// Link-local, and where clouds serve credentials.
const METADATA_V4: [Ipv4Net; 4] = [
    v4(169, 254, 0, 0, 16),
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v4(192, 0, 0, 192, 32),
];

const METADATA_V6: [Ipv6Net; 3] = [
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
];

/// A form of IPv6 address that an IPv4 one stands in.
struct Embedded {
    form: Ipv6Net,
    /// Bits before the IPv4 address.
    before: u8,
    inverted: bool,
}

const fn embedded(form: Ipv6Net, before: u8) -> Embedded {
    Embedded { form, before, inverted: false }
}

const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

const EMBEDDED: [Embedded; 8] = [
    embedded(v6([0, 0, 0, 0, 0, 0, 0, 0], 96), 96), // v4-compatible
    embedded(MAPPED, 96),
    embedded(v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), 96), // stateless translation
    embedded(NAT64, 96),
    embedded(v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), 96), // NAT64 of a network
    embedded(v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), 16),    // 6to4
    embedded(TEREDO, 32),                                   // the server
    Embedded { form: TEREDO, before: 96, inverted: true },  // and the client
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(parts: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = parts;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

fn overlap4(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

fn overlap6(a: &Ipv6Net, b: &Ipv6Net) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether two ranges share an address. An IPv4 range and an IPv6 one do not.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => overlap4(a, b),
        (IpNet::V6(a), IpNet::V6(b)) => overlap6(a, b),
        _ => false,
    }
}

/// The IPv4 range that an IPv6 range delivers to by way of a tunnel or translator: what of it
/// lies within the range, or all of IPv4 where the range holds the whole form.
pub(crate) fn within(net: Ipv6Net) -> Vec<Ipv4Net> {
    let mut found = Vec::new();
    let (bits, len) = (net.network().to_bits(), net.prefix_len());
    for Embedded { form, before, inverted } in EMBEDDED {
        // `::` and `::1` are themselves.
        let itself = form.network().is_unspecified() && len >= 127 && bits <= 1;
        if itself || !overlap6(&form, &net) {
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

/// The IPv4 ranges that an IPv6 range writes some or all bits of. A range that holds a whole form
/// writes none.
pub(crate) fn stands_for(net: Ipv6Net) -> impl Iterator<Item = Ipv4Net> {
    within(net).into_iter().filter(|inner| inner.prefix_len() > 0)
}

/// Every IPv4 range that is reached by asking for this one.
fn inner(net: &IpNet) -> Vec<Ipv4Net> {
    match net {
        IpNet::V4(net) => vec![*net],
        IpNet::V6(net) => within(*net),
    }
}

/// What the range is or holds that is not of the public internet.
pub(crate) fn internal(net: &IpNet) -> impl Iterator<Item = &'static str> {
    let inner = inner(net);
    let six = match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(*net),
    };
    let own = V6.iter().filter(move |(known, _)| six.is_some_and(|net| overlap6(known, &net)));
    let four = V4.iter().filter(move |(known, _)| inner.iter().any(|net| overlap4(known, net)));
    let public = six.is_none_or(|net| PUBLIC_V6.iter().any(|known| known.contains(&net)));
    own.map(|(_, what)| *what)
        .chain(four.map(|(_, what)| *what))
        .chain((!public).then_some("not global"))
}

/// Whether any of a range is link-local or for metadata.
pub(crate) fn holds_metadata(net: &IpNet) -> bool {
    let inner = inner(net);
    METADATA_V4.iter().any(|known| inner.iter().any(|i| overlap4(known, i)))
        || matches!(net, IpNet::V6(net) if METADATA_V6.iter().any(|known| overlap6(known, net)))
}

/// Whether all of a range is link-local or for metadata.
pub(crate) fn lies_in_metadata(net: &IpNet) -> bool {
    let inner = inner(net);
    METADATA_V4.iter().any(|known| inner.iter().any(|i| known.contains(i)))
        || matches!(net, IpNet::V6(net) if METADATA_V6.iter().any(|known| known.contains(net)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the addresses before a range, at both its ends, and after it are.
    fn edges(range: &str) -> [Option<&'static str>; 4] {
        let net: IpNet = range.parse().unwrap();
        let (first, last) = (net.network(), net.broadcast());
        let beside = |address, by: i8| match address {
            IpAddr::V4(address) => {
                address.to_bits().checked_add_signed(by.into()).map(|b| Ipv4Addr::from(b).into())
            }
            IpAddr::V6(address) => {
                address.to_bits().checked_add_signed(by.into()).map(|b| Ipv6Addr::from(b).into())
            }
        };
        [beside(first, -1), Some(first), Some(last), beside(last, 1)]
            .map(|address: Option<IpAddr>| address.and_then(internal_address))
    }

    #[test]
    fn every_range_of_the_registries_is_internal_from_edge_to_edge() {
        let protocols = Some("set aside for protocols");
        let (private, relay) = (Some("private"), Some("a relay"));
        let (documentation, unspecified) = (Some(DOCUMENTATION), Some("unspecified"));
        let (reserved, multicast) = (Some("reserved"), Some("multicast"));
        let (loopback, local) = (Some("loopback"), Some("link-local"));
        // Range, before it, in it, after it.
        for (range, before, what, after) in [
            // The IPv4 registry, and multicast.
            ("0.0.0.0/8", None, unspecified, None),
            ("0.0.0.0/32", None, unspecified, unspecified),
            ("10.0.0.0/8", None, private, None),
            ("100.64.0.0/10", None, Some("shared by a carrier"), None),
            ("127.0.0.0/8", None, loopback, None),
            ("169.254.0.0/16", None, local, None),
            ("172.16.0.0/12", None, private, None),
            ("192.0.0.0/24", None, protocols, None),
            ("192.0.0.0/29", None, protocols, protocols),
            ("192.0.0.8/32", protocols, protocols, protocols),
            ("192.0.0.9/32", protocols, protocols, protocols),
            ("192.0.0.10/32", protocols, protocols, protocols),
            ("192.0.0.170/31", protocols, protocols, protocols),
            ("192.0.2.0/24", None, documentation, None),
            ("192.31.196.0/24", None, protocols, None),
            ("192.52.193.0/24", None, protocols, None),
            ("192.88.99.0/24", None, relay, None),
            ("192.88.99.2/32", relay, relay, relay),
            ("192.168.0.0/16", None, private, None),
            ("192.175.48.0/24", None, protocols, None),
            ("198.18.0.0/15", None, Some("for measurements"), None),
            ("198.51.100.0/24", None, documentation, None),
            ("203.0.113.0/24", None, documentation, None),
            ("224.0.0.0/4", None, multicast, reserved),
            ("240.0.0.0/4", multicast, reserved, None),
            ("255.255.255.255/32", reserved, reserved, None),
            // The IPv6 registry, multicast, and what was private before.
            ("::/128", None, unspecified, loopback),
            ("::1/128", unspecified, loopback, unspecified),
            ("64:ff9b:1::/48", Some("not global"), Some("translated locally"), Some("not global")),
            ("100::/64", Some("not global"), Some("discarded"), Some("discarded")),
            ("100:0:0:1::/64", Some("discarded"), Some("discarded"), Some("not global")),
            ("2001::/23", None, protocols, None),
            ("2001::/32", None, protocols, protocols),
            ("2001:1::1/128", protocols, protocols, protocols),
            ("2001:1::2/128", protocols, protocols, protocols),
            ("2001:1::3/128", protocols, protocols, protocols),
            ("2001:2::/48", protocols, protocols, protocols),
            ("2001:3::/32", protocols, protocols, protocols),
            ("2001:4:112::/48", protocols, protocols, protocols),
            ("2001:10::/28", protocols, protocols, protocols),
            ("2001:20::/28", protocols, protocols, protocols),
            ("2001:30::/28", protocols, protocols, protocols),
            ("2001:db8::/32", None, documentation, None),
            ("2620:4f:8000::/48", None, protocols, None),
            ("3fff::/20", None, documentation, None),
            ("5f00::/16", Some("not global"), Some("for segment routing"), Some("not global")),
            ("fc00::/7", Some("not global"), private, Some("not global")),
            ("fe80::/10", Some("not global"), local, private),
            ("fec0::/10", local, private, multicast),
            ("ff00::/8", private, multicast, None),
            // All that is global unicast.
            ("2000::/3", Some("not global"), None, Some("not global")),
        ] {
            let [first, from, to, last] = edges(range);
            assert_eq!([first, from, to, last], [before, what, what, after], "{range}");
        }
    }

    #[test]
    fn an_ipv4_address_counts_in_every_form_that_embeds_it() {
        // Mapped, NAT64 and 6to4 lead to what they embed; others lead nowhere, or only inside.
        for (form, public) in [
            ("::ffff:0:0/96", true),
            ("64:ff9b::/96", true),
            ("2002::/16", true),
            ("::/96", false),
            ("::ffff:0:0:0/96", false),
            ("64:ff9b:1::/96", false),
            // ISATAP, of any network.
            ("2606:4700::5efe:0:0/96", true),
            ("2606:4700::200:5efe:0:0/96", true),
        ] {
            let form: Ipv6Net = form.parse().unwrap();
            let before = if form.prefix_len() == 16 { 16 } else { 96 };
            let put = |inner: &str| {
                let inner = u128::from(inner.parse::<Ipv4Addr>().unwrap().to_bits());
                IpAddr::from(Ipv6Addr::from(form.network().to_bits() | (inner << (96 - before))))
            };
            for (inner, is_public, metadata) in [
                ("8.8.8.8", true, false),
                ("9.255.255.255", true, false),
                ("10.0.0.0", false, false),
                ("127.0.0.1", false, false),
                ("169.254.169.254", false, true),
                ("100.100.100.200", false, true),
                ("192.168.255.255", false, false),
            ] {
                let address = put(inner);
                assert_eq!(
                    internal_address(address).is_none(),
                    public && is_public,
                    "{form} {inner}"
                );
                assert_eq!(metadata_address(address), metadata, "{form} {inner}");
            }
        }
    }

    #[test]
    fn metadata_services_are_known_in_every_form_of_their_addresses() {
        for address in [
            "169.254.169.254",
            "169.254.0.0",
            "169.254.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "2001:0:a9fe:a9fe::1",
            "2001::1:0:5601:5601",
            "2606:4700::5efe:a9fe:a9fe",
            "fe80::",
            "fe80::a9fe:a9fe",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            let address = address.parse().unwrap();
            assert!(metadata_address(address) && internal_address(address).is_some(), "{address}");
        }
        for address in [
            "10.0.0.1",
            "127.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "100.100.100.199",
            "100.100.100.201",
            "168.63.129.15",
            "168.63.129.17",
            "192.0.0.191",
            "192.0.0.193",
            "1.1.1.1",
            "::1",
            "fd00:ec2::253",
            "fd00:ec2::255",
            "fd20:ce::255",
            "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fec0::",
        ] {
            assert!(!metadata_address(address.parse().unwrap()), "{address}");
        }
    }
}
