//! What a session may reach: names, not addresses. Checked on construction; the words are those of the protocol.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports that a rule without a port of its own allows: the web's.
pub const WEB_PORTS: [u16; 2] = [80, 443];

/// What the session's programs may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Networking {
    /// Nothing.
    #[default]
    None,
    /// The hosts that are named.
    Limited {
        /// Names, `*.` and a name, or literal addresses; each may end in `:PORT`.
        #[serde(default)]
        allowed_hosts: Vec<HostRule>,
        /// Also the registries that the machine's package managers are set up to use.
        #[serde(default)]
        allow_package_managers: bool,
        /// Also the MCP servers of the agent.
        #[serde(default)]
        allow_mcp_servers: bool,
    },
    /// Every public address.
    Unrestricted,
}

impl Networking {
    /// The word on the command line and in the log.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Limited { .. } => "limited",
            Self::Unrestricted => "unrestricted",
        }
    }
}

/// Why a text is no host, or no rule about hosts. Fits after "the host".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` {problem}")]
pub struct HostError {
    given: String,
    problem: &'static str,
}

fn bad(given: &str, problem: &'static str) -> HostError {
    let given = given.chars().take(80).flat_map(char::escape_default).collect();
    HostError { given, problem }
}

/// A DNS name as it is compared: ASCII, lower case, without a dot at the end, and surely not an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

impl HostName {
    /// Longest name in bytes (RFC 1035, as text).
    pub const MAX_BYTES: usize = 253;
    /// Longest label in bytes (RFC 1035).
    pub const MAX_LABEL_BYTES: usize = 63;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is below `parent`, not the same.
    #[must_use]
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(given: &str) -> Result<Self, HostError> {
        let name = given.strip_suffix('.').unwrap_or(given).to_ascii_lowercase();
        if name.is_empty() {
            return Err(bad(given, "names no host"));
        }
        if !name.is_ascii() {
            return Err(bad(given, "is not ASCII; write the name in its `xn--` form"));
        }
        if name.len() > Self::MAX_BYTES {
            return Err(bad(given, "is longer than 253 characters"));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        for label in name.split('.') {
            if label.is_empty() || label.len() > Self::MAX_LABEL_BYTES {
                return Err(bad(given, "has a part of no or of more than 63 characters"));
            }
            if !label.bytes().all(fits) || label.starts_with('-') || label.ends_with('-') {
                return Err(bad(given, "has a character that no host name has"));
            }
        }
        // Whatever ends in a number is read as an address by some resolver: 127.1, 0x7f.1, 2130706433.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad(given, "is an address, or is read as one"));
        }
        Ok(Self(name.into()))
    }
}

/// Where a program wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// By name.
    Name(HostName),
    /// By address, without asking for a name.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    /// An address only in its canonical spelling; every other spelling of one is refused.
    fn from_str(given: &str) -> Result<Self, HostError> {
        let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(given).parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) if bare.is_some() => Err(bad(given, "is no IPv6 address")),
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if bare.is_some() => Err(bad(given, "is no IPv6 address")),
            Err(_) => given.parse().map(Self::Name),
        }
    }
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(Host),
    Below(HostName),
}

/// One entry of `allowed_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    pattern: Pattern,
    port: Option<u16>,
}

impl HostRule {
    /// A rule for exactly this place.
    #[must_use]
    pub fn exactly(host: Host, port: u16) -> Self {
        let port = (!WEB_PORTS.contains(&port)).then_some(port);
        Self { pattern: Pattern::Exactly(host), port }
    }

    /// Whether it covers the place.
    #[must_use]
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        let port_fits = match self.port {
            Some(own) => own == port,
            None => WEB_PORTS.contains(&port),
        };
        port_fits && self.names(host)
    }

    /// Whether it covers the host, on some port.
    #[must_use]
    pub fn names(&self, host: &Host) -> bool {
        match (&self.pattern, host) {
            (Pattern::Exactly(own), host) => own == host,
            (Pattern::Below(parent), Host::Name(name)) => name.is_below(parent),
            (Pattern::Below(_), Host::Address(_)) => false,
        }
    }

    /// Whether it names an address itself: only such a rule opens an address that is not public.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        matches!(self.pattern, Pattern::Exactly(Host::Address(_)))
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exactly(host) => host.fmt(f)?,
            Pattern::Below(name) => write!(f, "*.{name}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for HostRule {
    type Err = HostError;

    fn from_str(given: &str) -> Result<Self, HostError> {
        if given.contains("://") || given.contains('/') {
            return Err(bad(given, "is a URL; give the host alone"));
        }
        let (host, port) = match given.rsplit_once(':') {
            // The colons of an address without brackets are its own.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => (given, None),
            Some((host, port)) => {
                let number = port.parse().ok().filter(|port| *port != 0);
                (host, Some(number.ok_or_else(|| bad(given, "has no port after its colon"))?))
            }
            None => (given, None),
        };
        let pattern = match host.strip_prefix("*.") {
            Some(parent) => {
                let parent: HostName = parent.parse()?;
                if !parent.as_str().contains('.') {
                    return Err(bad(given, "would allow a whole top-level domain"));
                }
                Pattern::Below(parent)
            }
            None if host.contains('*') => {
                return Err(bad(given, "has a `*` elsewhere than in `*.` at its beginning"));
            }
            None => Pattern::Exactly(host.parse()?),
        };
        Ok(Self { pattern, port })
    }
}

impl Serialize for HostRule {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_one_form() {
        let check = |given: &str, expected: Option<&str>| {
            let name = given.parse::<HostName>().ok();
            assert_eq!(name.as_ref().map(HostName::as_str), expected, "{given:?}");
        };
        check("Example.COM", Some("example.com"));
        check("example.com.", Some("example.com"));
        check("a_b.x-y.example", Some("a_b.x-y.example"));
        check("localhost", Some("localhost"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
        check(&format!("{}.example", "a".repeat(63)), Some(&format!("{}.example", "a".repeat(63))));
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.-b",
            "a-.b",
            "bücher.example",
            "a b",
            "a\0b",
            "a\r\nb",
            "a@b",
            "a/b",
            "a\\b",
            "a#b",
            "a?b",
            "a%2eb",
            "a:80",
            "[::1]",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "017700000001",
            "1.2.3.0x4",
            "example.com..",
            "0x",
        ] {
            check(bad, None);
        }
        check(&format!("{}.example", "a".repeat(64)), None);
        check(&"a.".repeat(128), None);
    }

    #[test]
    fn a_host_is_a_name_or_a_canonical_address() {
        let check = |given: &str, expected: Option<&str>| {
            assert_eq!(
                given.parse::<Host>().ok().map(|host| host.to_string()).as_deref(),
                expected,
                "{given}"
            );
        };
        check("10.0.0.1", Some("10.0.0.1"));
        check("::1", Some("[::1]"));
        check("[2001:DB8::1]", Some("[2001:db8::1]"));
        check("a.example", Some("a.example"));
        for bad in [
            "[10.0.0.1]",
            "[a.example]",
            "10.0.0.01",
            "10.1",
            "0xa.0.0.1",
            "fe80::1%eth0",
            "::ffff:0x7f.1",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn rules_cover_what_they_say() {
        let check = |rule: &str, host: &str, port: u16, expected: bool| {
            let rule: HostRule = rule.parse().unwrap();
            assert_eq!(rule.covers(&host.parse().unwrap(), port), expected, "{rule} {host}:{port}");
        };
        check("example.com", "EXAMPLE.com.", 443, true);
        check("example.com", "example.com", 80, true);
        check("example.com", "example.com", 22, false);
        check("example.com:22", "example.com", 22, true);
        check("example.com:22", "example.com", 443, false);
        check("example.com", "a.example.com", 443, false);
        check("*.example.com", "a.example.com", 443, true);
        check("*.example.com", "a.b.example.com", 443, true);
        check("*.example.com", "example.com", 443, false);
        check("*.example.com", "evilexample.com", 443, false);
        check("*.example.com", "a.example.com.evil.org", 443, false);
        check("10.0.0.1:8080", "10.0.0.1", 8080, true);
        check("[fd00::1]:8080", "fd00::1", 8080, true);
        check("fd00::1", "fd00::1", 443, true);
        check("10.0.0.1", "10.0.0.2", 443, false);
    }

    #[test]
    fn what_is_no_rule_is_said() {
        let check = |given: &str, expected: &str| {
            let error = given.parse::<HostRule>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("https://example.com", "is a URL");
        check("example.com/x", "is a URL");
        check("*", "has a `*` elsewhere");
        check("*.com", "whole top-level domain");
        check("a*.example.com", "has a `*` elsewhere");
        check("example.com:", "no port after its colon");
        check("example.com:0", "no port after its colon");
        check("example.com:65536", "no port after its colon");
        check("127.1", "is an address, or is read as one");
        check("a\u{1b}b", "\\u{1b}");
    }

    #[test]
    fn the_wire_form_comes_back() {
        let text = r#"{"type":"limited","allowed_hosts":["*.example.com","a.example:8443","[fd00::1]:8080"],"allow_package_managers":true,"allow_mcp_servers":false}"#;
        let networking: Networking = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&networking).unwrap(), text);
    }
}
