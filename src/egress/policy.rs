//! May this session go there? Pure: a name and a port are judged before anything is looked up, an address before it is
//! dialled.

use std::fmt;
use std::net::IpAddr;

use super::address;
use super::sniff::Inspector;
use crate::environment::networking::{Host, HostRule, Networking};

/// A place that a program of the session wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a place was not reached: the rule, and the smallest change that would allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was to go; a text, because it may be no host at all.
    pub target: String,
    /// The rule that stood against it.
    pub rule: String,
    /// What would allow it; nothing, if nothing should.
    pub change: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not reached: {}.", self.target, self.rule)?;
        self.change.as_ref().map_or(Ok(()), |change| write!(f, " To allow it: {change}."))
    }
}

/// What a session may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    networking: Networking,
    /// The registries, where package managers are allowed.
    registries: Vec<HostRule>,
}

impl Policy {
    /// The policy of an environment; `registries` are where this machine's package managers get their packages.
    #[must_use]
    pub fn new(networking: Networking, registries: Vec<HostRule>) -> Self {
        let allowed =
            matches!(networking, Networking::Limited { allow_package_managers: true, .. });
        Self { networking, registries: if allowed { registries } else { Vec::new() } }
    }

    fn rules(&self) -> impl Iterator<Item = &HostRule> {
        let own: &[HostRule] = match &self.networking {
            Networking::Limited { allowed_hosts, .. } => allowed_hosts,
            Networking::None | Networking::Unrestricted => &[],
        };
        own.iter().chain(&self.registries)
    }

    /// Judges a name that a program asks for, before the port is known: may it be looked up at all?
    ///
    /// # Errors
    /// The refusal.
    pub fn judge_name(&self, host: &Host) -> Result<(), Refusal> {
        match &self.networking {
            Networking::Unrestricted => Ok(()),
            Networking::Limited { .. } if self.rules().any(|rule| rule.names(host)) => Ok(()),
            Networking::Limited { .. } => {
                Err(not_listed(host.to_string(), &HostRule::exactly(host.clone(), 443)))
            }
            Networking::None => Err(offline(host.to_string())),
        }
    }

    /// Judges a place.
    ///
    /// # Errors
    /// The refusal.
    pub fn judge(&self, target: &Target) -> Result<(), Refusal> {
        let Target { host, port } = target;
        match &self.networking {
            Networking::None => Err(offline(target.to_string())),
            Networking::Unrestricted => Ok(()),
            Networking::Limited { .. } if self.rules().any(|rule| rule.covers(host, *port)) => {
                Ok(())
            }
            Networking::Limited { .. } => {
                Err(not_listed(target.to_string(), &HostRule::exactly(host.clone(), *port)))
            }
        }
    }

    /// What must look at the client's bytes: where only some names are allowed, and this is one of them.
    #[must_use]
    pub fn inspector(&self, target: &Target) -> Option<Inspector> {
        match (&self.networking, &target.host) {
            (Networking::Limited { .. }, Host::Name(name)) => {
                Some(Inspector::new(name.clone(), target.port))
            }
            (Networking::Limited { .. }, Host::Address(_))
            | (Networking::Unrestricted | Networking::None, _) => None,
        }
    }

    /// Judges an address that the host of `target` has. One that is not public, or is this machine's own (`is_own`), must
    /// be named by a rule itself.
    ///
    /// # Errors
    /// The refusal.
    pub fn judge_address(
        &self,
        target: &Target,
        address: IpAddr,
        is_own: bool,
    ) -> Result<(), Refusal> {
        let Some(kind) = address::closed(address, is_own) else { return Ok(()) };
        let literal = Host::Address(address);
        if self.rules().any(|rule| rule.is_literal() && rule.covers(&literal, target.port)) {
            return Ok(());
        }
        let rule = match &target.host {
            Host::Address(_) => format!("it is {kind}"),
            Host::Name(_) => format!("its address {address} is {kind}"),
        };
        let literal = HostRule::exactly(literal, target.port);
        let change = match &self.networking {
            Networking::Limited { .. } => {
                format!("add `{literal}` to allowed_hosts (--allow-host {literal})")
            }
            Networking::None | Networking::Unrestricted => {
                format!(
                    "use `limited` networking with `{literal}` in allowed_hosts (--allow-host {literal})"
                )
            }
        };
        Err(Refusal { target: target.to_string(), rule, change: Some(change) })
    }
}

fn offline(target: String) -> Refusal {
    Refusal {
        target,
        rule: "this session has no network".to_owned(),
        change: Some("start it with --allow-host HOST or --network unrestricted".to_owned()),
    }
}

fn not_listed(target: String, smallest: &HostRule) -> Refusal {
    Refusal {
        target,
        rule: "it is not in allowed_hosts".to_owned(),
        change: Some(format!("add `{smallest}` to allowed_hosts (--allow-host {smallest})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(hosts: &[&str]) -> Policy {
        let allowed_hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let (allow_package_managers, allow_mcp_servers) = (true, false);
        let networking =
            Networking::Limited { allowed_hosts, allow_package_managers, allow_mcp_servers };
        Policy::new(networking, vec!["registry.example".parse().unwrap()])
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.parse().unwrap(), port }
    }

    #[test]
    fn a_refusal_names_the_rule_and_the_smallest_change() {
        let check = |policy: &Policy, host: &str, port: u16, expected: Result<(), &str>| {
            let verdict = policy.judge(&target(host, port)).map_err(|refusal| refusal.to_string());
            assert_eq!(
                verdict.as_ref().map_err(String::as_str),
                expected.as_ref().copied().map_err(|e| *e).map(|()| &())
            );
        };
        let some = limited(&["a.example", "*.b.example", "10.0.0.5:8080"]);
        check(&some, "a.example", 443, Ok(()));
        check(&some, "registry.example", 443, Ok(()));
        check(&some, "x.b.example", 80, Ok(()));
        check(&some, "10.0.0.5", 8080, Ok(()));
        check(
            &some,
            "c.example",
            443,
            Err(
                "c.example:443 was not reached: it is not in allowed_hosts. To allow it: add `c.example` to allowed_hosts \
                 (--allow-host c.example).",
            ),
        );
        check(
            &some,
            "a.example",
            22,
            Err(
                "a.example:22 was not reached: it is not in allowed_hosts. To allow it: add `a.example:22` to allowed_hosts \
                 (--allow-host a.example:22).",
            ),
        );
        check(
            &Policy::default(),
            "a.example",
            443,
            Err(
                "a.example:443 was not reached: this session has no network. To allow it: start it with --allow-host HOST or \
                 --network unrestricted.",
            ),
        );
        check(&Policy::new(Networking::Unrestricted, Vec::new()), "a.example", 22, Ok(()));
    }

    #[test]
    fn an_inner_address_must_be_named_itself() {
        let check = |policy: &Policy, host: &str, port: u16, address: &str, passes: bool| {
            let verdict =
                policy.judge_address(&target(host, port), address.parse().unwrap(), false);
            assert_eq!(verdict.is_ok(), passes, "{host}:{port} at {address}: {verdict:?}");
        };
        let some = limited(&["a.example", "a.example:8080", "10.0.0.5:8080"]);
        let all = Policy::new(Networking::Unrestricted, Vec::new());
        check(&some, "a.example", 443, "93.184.216.34", true);
        check(&some, "a.example", 443, "10.0.0.5", false);
        check(&some, "a.example", 8080, "10.0.0.5", true);
        check(&some, "10.0.0.5", 8080, "10.0.0.5", true);
        check(&some, "a.example", 443, "::ffff:10.0.0.5", false);
        check(&all, "a.example", 443, "169.254.169.254", false);
        check(&all, "169.254.169.254", 80, "169.254.169.254", false);
        check(&all, "1.1.1.1", 443, "1.1.1.1", true);
        let own = "93.184.216.34".parse().unwrap();
        assert!(some.judge_address(&target("a.example", 443), own, true).is_err());
    }
}
