use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which addresses requests may go to: all that are public, and those that an operator allowed.
///
/// Subscribers name the URLs that the server calls. Without a policy they could make it call what
/// only the server can reach: itself, its neighbours, the metadata service of its cloud.
///
/// - An address that is not public is refused unless a network in `allow` contains it.
/// - An IPv4 address written as IPv6 (`::ffff:10.0.0.1`, `::10.0.0.1`) is judged as IPv4.
/// - IPv6 addresses that stand for IPv4 ones beyond a gateway (NAT64, 6to4, Teredo) are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Networks that are allowed although they are not public.
    pub allow: Vec<IpNet>,
}

/// An address that an [`AddressPolicy`] does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The address, as it was found.
    pub address: IpAddr,
    /// What it is instead of public.
    pub range: &'static str,
}

impl AddressPolicy {
    /// Whether a request may go to `address`.
    ///
    /// # Errors
    /// [`Refused`] where it may not.
    pub fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let judged = as_reached(address);
        match special_range(judged) {
            Some(range) if !self.allow.iter().any(|net| net.contains(&judged)) => {
                Err(Refused { address, range })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} is refused: {}", self.address, self.range)
    }
}

impl std::error::Error for Refused {}

/// The IPv4 address that an IPv6 one is another spelling of, or the address itself.
fn as_reached(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => {
            v6.to_ipv4().map_or(address, IpAddr::V4)
        }
        _ => address,
    }
}

fn special_range(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => SPECIAL_V4.iter().find(|(net, _)| net.contains(&v4)).map(|(_, name)| *name),
        IpAddr::V6(v6) => SPECIAL_V6
            .iter()
            .find(|(net, _)| net.contains(&v6))
            .map(|(_, name)| *name)
            .or_else(|| (!GLOBAL_UNICAST_V6.contains(&v6)).then_some("not allocated")),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// The IANA registry of special-purpose addresses (RFC 6890), and one of a cloud's own.
const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    // Public in form, but Azure answers it inside every virtual machine.
    (v4(168, 63, 129, 16, 32), "a cloud's own service"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// The IANA registry of special-purpose addresses (RFC 6890), with the first match naming it.
const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (v6(0x64, 0xff9b, 0, 0, 96), "IPv4 beyond a gateway (NAT64)"),
    (v6(0x64, 0xff9b, 1, 0, 48), "IPv4 beyond a gateway (NAT64)"),
    (v6(0x100, 0, 0, 0, 64), "discarded"),
    (v6(0x2001, 0, 0, 0, 32), "IPv4 beyond a gateway (Teredo)"),
    (v6(0x2001, 0, 0, 0, 23), "for protocols"),
    (v6(0x2001, 0xdb8, 0, 0, 32), "for documentation"),
    (v6(0x2002, 0, 0, 0, 16), "IPv4 beyond a gateway (6to4)"),
    (v6(0x3fff, 0, 0, 0, 20), "for documentation"),
    (v6(0x5f00, 0, 0, 0, 16), "for segment routing"),
    (v6(0xfc00, 0, 0, 0, 7), "private"),
    (v6(0xfe80, 0, 0, 0, 10), "link-local"),
    (v6(0xfec0, 0, 0, 0, 10), "site-local"),
    (v6(0xff00, 0, 0, 0, 8), "multicast"),
];

/// All that is allocated for public use; the rest of IPv6 leads nowhere good.
const GLOBAL_UNICAST_V6: Ipv6Net = v6(0x2000, 0, 0, 0, 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allow: &[&str], address: &str) -> Option<&'static str> {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        AddressPolicy { allow }.judge(address.parse().unwrap()).err().map(|refused| refused.range)
    }

    /// Each range by its first and last address, between neighbours that are not in it.
    #[test]
    fn every_special_range_is_refused_from_edge_to_edge() {
        let public = None;
        for (below, first, last, above, range, beside) in [
            // IPv4: public on both sides unless said otherwise.
            ("", "0.0.0.0", "0.255.255.255", "1.0.0.0", "unspecified", public),
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "private", public),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", "shared by a carrier", public),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", "loopback", public),
            (
                "168.63.129.15",
                "168.63.129.16",
                "168.63.129.16",
                "168.63.129.17",
                "a cloud's own service",
                public,
            ),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", "link-local", public),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", "private", public),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", "for protocols", public),
            ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", "for documentation", public),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", "a 6to4 relay", public),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", "private", public),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", "for benchmarks", public),
            ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0", "for documentation", public),
            ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0", "for documentation", public),
            ("223.255.255.255", "224.0.0.0", "239.255.255.255", "", "multicast", public),
            ("", "240.0.0.0", "255.255.255.254", "", "reserved", public),
            ("", "255.255.255.255", "255.255.255.255", "", "broadcast", public),
            // IPv6: outside of 2000::/3 the neighbours are not allocated.
            ("", "::", "::", "", "unspecified", public),
            ("", "::1", "::1", "", "loopback", public),
            (
                "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff",
                "64:ff9b::",
                "64:ff9b::ffff:ffff",
                "64:ff9b::1:0:0",
                "IPv4 beyond a gateway (NAT64)",
                Some("not allocated"),
            ),
            (
                "64:ff9b:0:ffff:ffff:ffff:ffff:ffff",
                "64:ff9b:1::",
                "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
                "64:ff9b:2::",
                "IPv4 beyond a gateway (NAT64)",
                Some("not allocated"),
            ),
            (
                "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "100::",
                "100::ffff:ffff:ffff:ffff",
                "100:0:0:1::",
                "discarded",
                Some("not allocated"),
            ),
            (
                "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001::",
                "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
                "",
                "IPv4 beyond a gateway (Teredo)",
                public,
            ),
            ("", "2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::", "for protocols", public),
            (
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
                "for documentation",
                public,
            ),
            (
                "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2002::",
                "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2003::",
                "IPv4 beyond a gateway (6to4)",
                public,
            ),
            (
                "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff::",
                "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff:1000::",
                "for documentation",
                public,
            ),
            (
                "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "5f00::",
                "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "5f01::",
                "for segment routing",
                Some("not allocated"),
            ),
            (
                "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fc00::",
                "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fe00::",
                "private",
                Some("not allocated"),
            ),
            (
                "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fe80::",
                "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "",
                "link-local",
                Some("not allocated"),
            ),
            ("", "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "site-local", public),
            ("", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "multicast", public),
            (
                "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "4000::",
                "5eff::",
                "",
                "not allocated",
                Some("not allocated"),
            ),
        ] {
            for refused in [first, last] {
                assert_eq!(judge(&[], refused), Some(range), "{refused}");
            }
            for neighbour in [below, above].into_iter().filter(|address| !address.is_empty()) {
                assert_eq!(judge(&[], neighbour), beside, "{neighbour}");
            }
        }
    }

    #[test]
    fn a_public_address_is_allowed() {
        for address in ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"] {
            assert_eq!(judge(&[], address), None, "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_judged_as_ipv4() {
        for (address, range) in [
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("link-local")),
            ("::ffff:8.8.8.8", None),
            ("::10.0.0.1", Some("private")),
            ("::2", Some("unspecified")),
            ("::8.8.8.8", None),
        ] {
            assert_eq!(judge(&[], address), range, "{address}");
        }
        assert_eq!(judge(&["127.0.0.0/8"], "::ffff:127.0.0.1"), None);
        assert_eq!(judge(&["::/0"], "::ffff:127.0.0.1"), Some("loopback"));
    }

    #[test]
    fn a_network_that_is_allowed_is_no_larger_than_it_says() {
        let allow = ["10.1.0.0/16", "fd00:1::/32", "::1/128"];
        for address in ["10.1.0.0", "10.1.255.255", "fd00:1::1", "::1"] {
            assert_eq!(judge(&allow, address), None, "{address}");
        }
        for address in ["10.0.255.255", "10.2.0.0", "fd00:2::1", "127.0.0.1"] {
            assert!(judge(&allow, address).is_some(), "{address}");
        }
    }

    #[test]
    fn a_refusal_names_the_address_as_it_was_found() {
        let address = "::ffff:10.0.0.1".parse().unwrap();
        let refused = AddressPolicy::default().judge(address).unwrap_err();
        assert_eq!(refused.to_string(), "address ::ffff:10.0.0.1 is refused: private");
    }
}
