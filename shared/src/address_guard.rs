//! Which addresses an endpoint may have: globally routable unicast, and what the operator excepted.
//!
//! The guard names what it permits and refuses the rest. IPv6 forms that carry an IPv4 address
//! are judged by that address where a host really connects to it (mapped, NAT64), and refused
//! whole where that is obsolete (compatible, 6to4, Teredo).
//!
//! Deliberately absent: names (see `http_client`), ports, and NAT64 prefixes of an operator's own,
//! which cannot be told from other global addresses. A network that has one must filter there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Judges addresses; holds the operator's exceptions.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    excepted: Vec<IpNet>,
}

impl AddressGuard {
    /// `excepted` is `CARILLON_ENDPOINT_ALLOW_CIDRS`; empty means public addresses only. A network
    /// of IPv4-mapped addresses counts as the IPv4 network that it stands for.
    pub fn new(excepted: Vec<IpNet>) -> Self {
        Self {
            excepted: excepted.into_iter().map(canonical_net).collect(),
        }
    }

    /// Whether a connection to this address may be opened.
    pub fn permits(&self, address: IpAddr) -> bool {
        self.is_excepted(address) || is_public(address)
    }

    /// Whether the operator's list names the address, public or not.
    pub fn is_excepted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.excepted.iter().any(|net| net.contains(&address))
    }
}

/// A socket connected to `::ffff:a.b.c.d` talks to `a.b.c.d`, so both are one address here.
fn canonical_net(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4_prefix) = v6.prefix_len().checked_sub(96)
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(mapped) = Ipv4Net::new(v4, v4_prefix)
    {
        return IpNet::V4(mapped);
    }
    net
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !REFUSED_V4.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // RFC 6052, 3.1: behind DNS64 every IPv4-only endpoint has such an address, so refusing the
    // prefix whole would cut off IPv6-only deployments. The translator connects to the last 32
    // bits.
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    GLOBAL_UNICAST.contains(&address) && !REFUSED_V6.iter().any(|net| net.contains(&address))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 3], prefix: u8) -> Ipv6Net {
    let [a, b, c] = head;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA IPv4 Special-Purpose Address Registry (RFC 6890), what is not globally reachable there,
/// with multicast and what the comments say besides. The few reachable addresses inside
/// 192.0.0.0/24 are anycast services of the network itself, never a subscriber's endpoint.
const REFUSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),       // this network; 0.0.0.0 reaches the host itself on Linux
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // shared by carrier-grade NAT; cloud metadata of Alibaba
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local; cloud metadata of most providers
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments; cloud metadata of Oracle
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // 6to4 relays, withdrawn by RFC 7526
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarking
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, and broadcast
    // Public by number, but inside Azure it is the host's own platform service (metadata,
    // DNS, agents), and nothing outside Azure answers there.
    v4(168, 63, 129, 16, 32),
];

/// The only block that IANA delegates global unicast from. What lies outside needs no entry of
/// its own: unspecified, loopback, IPv4-compatible, local NAT64 (64:ff9b:1::/48, whose embedding
/// is the operator's secret), discard (100::/64), segment routing, unique local, link-local,
/// site-local, multicast.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);

/// The well-known prefix of RFC 6052.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

/// IANA IPv6 Special-Purpose Address Registry, within [`GLOBAL_UNICAST`].
const REFUSED_V6: [Ipv6Net; 4] = [
    // Protocol assignments: Teredo (2001::/32), benchmarking (2001:2::/48), ORCHID
    // (2001:10::/28, 2001:20::/28), drone ids. The reachable ones are anycast of the network.
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32), // documentation
    v6([0x2002, 0, 0], 16),     // 6to4: any IPv4 address, private ones included
    v6([0x3fff, 0, 0], 20),     // documentation, RFC 9637
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn guard(excepted: &[&str]) -> AddressGuard {
        AddressGuard::new(excepted.iter().map(|net| net.parse().expect(net)).collect())
    }

    #[test]
    fn public_addresses_are_permitted_up_to_the_edges_of_the_refused_nets() {
        let cases = [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "3fff:1000::",
            "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        for case in cases {
            assert!(guard(&[]).permits(ip(case)), "{case}");
            assert!(!guard(&[]).is_excepted(ip(case)), "{case}");
        }
    }

    #[test]
    fn what_is_not_globally_routable_unicast_is_refused() {
        let cases = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            "::",
            "::1",
            "::8.8.8.8",
            "::10.0.0.1",
            "::ffff:0:0",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::1:808:808",
            "64:ff9b:1::1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "1fff:ffff::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:2f::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2002::1",
            "2002:a00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff00::1",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        for case in cases {
            assert!(!guard(&[]).permits(ip(case)), "{case}");
        }
    }

    #[test]
    fn exceptions_permit_exactly_their_networks() {
        let cases: [(&[&str], &str, bool); 13] = [
            (&["127.0.0.0/8"], "127.0.0.1", true),
            (&["127.0.0.0/8"], "::ffff:127.0.0.1", true),
            (&["127.0.0.0/8"], "::1", false),
            (&["127.0.0.0/8"], "10.0.0.1", false),
            (&["10.1.2.3/32", "::1/128"], "10.1.2.3", true),
            (&["10.1.2.3/32", "::1/128"], "10.1.2.4", false),
            (&["10.1.2.3/32", "::1/128"], "::1", true),
            (&["::ffff:10.0.0.0/104"], "10.200.0.1", true),
            (&["::ffff:10.0.0.0/104"], "::ffff:10.200.0.1", true),
            (&["::ffff:10.0.0.0/104"], "127.0.0.1", false),
            (&["fd00::/8"], "fd12::1", true),
            // An IPv6 network that happens to cover the mapped block is no word about IPv4.
            (&["::/0"], "10.0.0.1", false),
            (&["10.0.0.0/8"], "64:ff9b::10.0.0.1", false),
        ];
        for (excepted, address, expected) in cases {
            let guard = guard(excepted);
            assert_eq!(
                guard.is_excepted(ip(address)),
                expected,
                "{excepted:?} {address}"
            );
            assert_eq!(
                guard.permits(ip(address)),
                expected,
                "{excepted:?} {address}"
            );
        }
    }

    #[test]
    fn a_public_address_may_be_excepted_too() {
        let guard = guard(&["8.8.8.0/24"]);
        assert!(guard.is_excepted(ip("8.8.8.8")));
        assert!(guard.permits(ip("9.9.9.9")) && !guard.is_excepted(ip("9.9.9.9")));
    }

    proptest! {
        #[test]
        fn embedded_ipv4_never_passes_where_the_address_itself_does_not(
            bits: u32,
            excepted in proptest::option::of((any::<u32>(), 0_u8..=32)),
        ) {
            let address = Ipv4Addr::from_bits(bits);
            let excepted = excepted
                .and_then(|(net, prefix)| Ipv4Net::new(Ipv4Addr::from_bits(net), prefix).ok())
                .map(IpNet::V4);
            let guard = AddressGuard::new(excepted.into_iter().collect());
            let mapped = IpAddr::V6(address.to_ipv6_mapped());
            prop_assert_eq!(guard.permits(mapped), guard.permits(IpAddr::V4(address)));
            prop_assert_eq!(guard.is_excepted(mapped), guard.is_excepted(IpAddr::V4(address)));

            let [a, b, c, d] = address.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
            prop_assert!(!guard.permits(IpAddr::V6(nat64)) || guard.permits(IpAddr::V4(address)));
            for obsolete in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
            ] {
                prop_assert!(!guard.permits(IpAddr::V6(obsolete)), "{}", obsolete);
            }
        }

        /// A second opinion from the standard library's own classes.
        #[test]
        fn nothing_that_std_calls_special_is_permitted(v4_bits: u32, v6_bits: u128) {
            let v4 = Ipv4Addr::from_bits(v4_bits);
            if AddressGuard::default().permits(IpAddr::V4(v4)) {
                prop_assert!(!(v4.is_private() || v4.is_loopback() || v4.is_link_local()
                    || v4.is_broadcast() || v4.is_documentation() || v4.is_multicast()
                    || v4.is_unspecified()));
            }
            let v6 = Ipv6Addr::from_bits(v6_bits);
            if AddressGuard::default().permits(IpAddr::V6(v6)) {
                prop_assert!(!(v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                    || v6.is_unique_local() || v6.is_unicast_link_local()));
            }
        }
    }
}
