//! Which addresses are not of the public internet, after the special-purpose registries of
//! IANA (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whether the address is in one of the networks. An IPv4-mapped one also counts as the IPv4
/// address to which the operating system connects.
pub(super) fn covered(address: IpAddr, networks: &[IpNet]) -> bool {
    let canonical = address.to_canonical();
    networks.iter().any(|network| network.contains(&address) || network.contains(&canonical))
}

/// What the address is instead of a public one. Of an IPv6 address that some gateway turns
/// into an IPv4 address, the latter counts.
pub(super) fn internal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => internal_v4(address),
        IpAddr::V6(address) => internal_v6(address),
    }
}

/// Whether the address is one at which machines are told about themselves, often with credentials:
/// all of link-local, and what clouds have elsewhere. Nobody may declare these.
pub(super) fn metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => METADATA_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            METADATA_V6.iter().any(|network| network.contains(&address))
                || embedded(address).is_some_and(|address| metadata(address.into()))
        }
    }
}

fn internal_v4(address: Ipv4Addr) -> Option<&'static str> {
    V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, what)| *what)
}

fn internal_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some((_, what)) = V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(what);
    }
    match embedded(address) {
        Some(address) => internal_v4(address),
        // All that was ever given out as global unicast.
        None => (!v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3).contains(&address)).then_some("not global"),
    }
}

/// The IPv4 address that some gateway turns the address into.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (_, from) = EMBEDDING.iter().find(|(network, _)| network.contains(&address))?;
    Some(Ipv4Addr::from_bits((address.to_bits() >> (128 - 32 - u32::from(*from))) as u32))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(parts: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = parts;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

const V4: [(Ipv4Net, &str); 18] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    // Metadata services live here, and in two places below.
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "set aside for protocols"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "set aside for protocols"),
    (v4(192, 52, 193, 0, 24), "set aside for protocols"),
    (v4(192, 88, 99, 0, 24), "a relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for measurements"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    // Public by its number; a cloud answers its own machines on it.
    (v4(168, 63, 129, 16, 32), "a metadata service"),
];

const V6: [(Ipv6Net, &str); 13] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "translated locally"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discarded"),
    // Teredo among them, which hides an IPv4 address.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "set aside for protocols"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "set aside for protocols"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "for segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "private"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

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

/// Networks whose addresses hold an IPv4 address, and the bit at which it begins.
const EMBEDDING: [(Ipv6Net, u8); 4] = [
    // Compatible, mapped, NAT64, 6to4.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), 96),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), 96),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), 96),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), 16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_not_internal() {
        for (address, what) in [
            ("1.1.1.1", None),
            ("8.8.8.8", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.0.1.0", None),
            ("223.255.255.255", None),
            ("2606:4700::1111", None),
            ("2a00::1", None),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::8.8.8.8", None),
            ("2002:808:808::1", None),
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("10.0.0.1", Some("private")),
            ("100.64.0.1", Some("shared by a carrier")),
            ("100.100.100.200", Some("shared by a carrier")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.255", Some("loopback")),
            ("168.63.129.16", Some("a metadata service")),
            ("169.254.169.254", Some("link-local")),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.0.0.192", Some("set aside for protocols")),
            ("192.0.2.1", Some("documentation")),
            ("192.88.99.1", Some("a relay")),
            ("192.168.1.1", Some("private")),
            ("198.19.255.255", Some("for measurements")),
            ("198.51.100.1", Some("documentation")),
            ("203.0.113.1", Some("documentation")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("reserved")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::127.0.0.1", Some("loopback")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:10.0.0.1", Some("private")),
            ("::ffff:169.254.169.254", Some("link-local")),
            ("::ffff:0:127.0.0.1", Some("not global")),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("64:ff9b::a9fe:a9fe", Some("link-local")),
            ("64:ff9b:1::8.8.8.8", Some("translated locally")),
            ("100::1", Some("discarded")),
            ("2001::1", Some("set aside for protocols")),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some("set aside for protocols")),
            ("2001:db8::1", Some("documentation")),
            ("2002:7f00:1::", Some("loopback")),
            ("2002:a00:1::1", Some("private")),
            ("2002:c0a8:101::1", Some("private")),
            ("3fff::1", Some("documentation")),
            ("4000::1", Some("not global")),
            ("5f00::1", Some("for segment routing")),
            ("fc00::1", Some("private")),
            ("fd00:ec2::254", Some("private")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("fec0::1", Some("private")),
            ("ff02::1", Some("multicast")),
        ] {
            assert_eq!(internal(address.parse().unwrap()), what, "{address}");
        }
    }

    #[test]
    fn metadata_services_are_known_in_every_form_of_their_addresses() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "fe80::a9fe:a9fe",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            let address = address.parse().unwrap();
            assert!(metadata(address) && internal(address).is_some(), "{address}");
        }
        for address in ["10.0.0.1", "127.0.0.1", "::1", "100.100.100.201", "1.1.1.1", "fd00::1"] {
            assert!(!metadata(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_network_covers_what_is_connected_to() {
        for (address, network, covers) in [
            ("127.0.0.1", "127.0.0.0/8", true),
            ("128.0.0.1", "127.0.0.0/8", false),
            ("::ffff:127.0.0.1", "127.0.0.0/8", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.0/104", true),
            ("::1", "::1/128", true),
            ("::1", "127.0.0.0/8", false),
            ("127.0.0.1", "::/0", false),
            // Through a gateway, it is another path than the one that was declared.
            ("64:ff9b::127.0.0.1", "127.0.0.0/8", false),
            ("2002:7f00:1::", "127.0.0.0/8", false),
        ] {
            let network: IpNet = network.parse().unwrap();
            assert_eq!(covered(address.parse().unwrap(), &[network]), covers, "{address}");
        }
        assert!(!covered("127.0.0.1".parse().unwrap(), &[]));
    }
}
