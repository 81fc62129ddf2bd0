//! Which addresses may be dialled. A name that is allowed must not lead into the user's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not dialled unless a rule names it; `None` for a public one. (IANA's special-purpose registries,
/// RFC 6890 and its successors.)
#[must_use]
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => v4_not_public(v4),
        IpAddr::V6(v6) => v6_not_public(v6),
    }
}

/// Why an address is not dialled even if somebody names it as such: nothing of the user's own is there.
#[must_use]
pub fn nobodys(address: IpAddr) -> Option<&'static str> {
    let kind = not_public(address)?;
    let own = ["a private address", "a loopback address", "a carrier's private address"];
    (!own.contains(&kind)).then_some(kind)
}

/// Why nobody is to be led there, if so: it is not public, or of this machine.
#[must_use]
pub fn closed(address: IpAddr, is_own: bool) -> Option<&'static str> {
    not_public(address).or(is_own.then_some("an address of this machine"))
}

/// The addresses of this machine: what listens on them is the user's own, whatever guards it from outside.
#[must_use]
pub fn own() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.collect()
}

/// Metadata services of clouds that lie outside of the link-local range.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

fn v4_not_public(address: Ipv4Addr) -> Option<&'static str> {
    if METADATA_V4.contains(&address) {
        return Some("a cloud's metadata service");
    }
    match address.octets() {
        [0, ..] => Some("an address of this network"),
        [10, ..] | [192, 168, ..] => Some("a private address"),
        [172, b, ..] if b & 0xf0 == 16 => Some("a private address"),
        [100, b, ..] if b & 0xc0 == 64 => Some("a carrier's private address"),
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address, where clouds keep their metadata"),
        [192, 0, 0, _] => Some("a reserved address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("a documentation address"),
        [192, 88, 99, _] => Some("a relay address"),
        [198, b, ..] if b & 0xfe == 18 => Some("a benchmarking address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn v6_not_public(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => return Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => return Some("a loopback address"),
        _ => {}
    }
    if let Some(v4) = embedded(&segments) {
        // A public one inside changes nothing: no honest name leads to it in this form.
        return Some(v4_not_public(v4).unwrap_or("an IPv4 address in IPv6 clothes"));
    }
    match segments[0] {
        0xfe80..=0xfebf => Some("a link-local address"),
        0xfec0..=0xfeff => Some("a site-local address"),
        0xfc00..=0xfdff => Some("a private address"),
        0xff00..=0xffff => Some("a multicast address"),
        0x2001 if segments[1] < 0x0200 => Some("a reserved address"),
        0x2001 if segments[1] == 0x0db8 => Some("a documentation address"),
        0x3fff if segments[1] < 0x1000 => Some("a documentation address"),
        0x2000..=0x3fff => None,
        _ => Some("a reserved address"),
    }
}

/// The IPv4 address within: mapped, compatible, translated (RFC 6052, 8215), 6to4.
fn embedded(segments: &[u16; 8]) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match *segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001:81b::200e",
        ] {
            assert_eq!(not_public(public.parse().unwrap()), None, "{public}");
        }
        for (address, expected) in [
            ("0.0.0.0", "this network"),
            ("0.1.2.3", "this network"),
            ("10.255.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "carrier"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("192.0.0.192", "metadata"),
            ("192.0.0.8", "reserved"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.9", "documentation"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:0:10.0.0.1", "private"),
            ("::ffff:8.8.8.8", "clothes"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("64:ff9b:1::a00:1", "private"),
            ("2002:7f00:1::", "loopback"),
            ("2002:808:808::", "clothes"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("fd20:ce::254", "private"),
            ("ff02::1", "multicast"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff:abc::1", "documentation"),
            ("100::1", "reserved"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
        ] {
            let reason = not_public(address.parse().unwrap()).unwrap_or("public");
            assert!(reason.contains(expected), "{address}: {reason}");
        }
    }
}
