//! Where a name leads, and whether that may be dialled by an HTTP client of the host's own. The judged addresses are the ones that are dialled: the client
//! gets no others, so a name that changes its mind between question and connection gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address;
use crate::environment::networking::Host;
use crate::limits::EGRESS_ADDRESSES;

/// Resolves names by the system, and keeps what is public.
pub struct PublicOnly;

/// A name that leads to no public address.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` leads to {kind}")]
pub struct NotPublic {
    name: String,
    kind: &'static str,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is set by whoever dials.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            public(name.as_str(), found, &address::own())
        })
    }
}

fn public(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
    own: &[IpAddr],
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let mut refused = None;
    let mut addresses = Vec::new();
    for address in found.take(EGRESS_ADDRESSES) {
        match address::closed(address.ip(), own.contains(&address.ip())) {
            Some(kind) => refused = Some(kind),
            None => addresses.push(address),
        }
    }
    match (addresses.is_empty(), refused) {
        (true, Some(kind)) => Err(Box::new(NotPublic { name: name.to_owned(), kind })),
        (true, None) => Err(Box::new(io::Error::from(io::ErrorKind::NotFound))),
        (false, _) => Ok(Box::new(addresses.into_iter())),
    }
}

/// Judges a name that somebody else is to resolve, as far as this machine knows it. One that it does not know is left to
/// the other's judgement.
///
/// # Errors
/// If all that it leads to is not public.
pub async fn judge_name(host: &Host) -> Result<(), NotPublic> {
    let Host::Name(name) = host else { return Ok(()) };
    let Ok(found) = tokio::net::lookup_host((name.as_str(), 0)).await else { return Ok(()) };
    let own = address::own();
    let kind = |at: SocketAddr| address::closed(at.ip(), own.contains(&at.ip()));
    let kinds: Vec<_> = found.map(kind).collect();
    match kinds.iter().copied().collect::<Option<Vec<_>>>().as_deref() {
        Some([kind, ..]) => Err(NotPublic { name: name.to_string(), kind }),
        Some([]) | None => Ok(()),
    }
}

/// Why a host that is written as an address is not dialled; names are judged when they are resolved.
#[must_use]
pub fn refuse_literal(host: &Host) -> Option<&'static str> {
    match host {
        Host::Address(at) => address::closed(*at, address::own().contains(at)),
        Host::Name(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[&str], expected: Result<usize, &str>) {
        let found = found.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
        let own = ["93.184.216.35".parse().unwrap()];
        let given =
            public("a.example", found, &own).map(Iterator::count).map_err(|e| e.to_string());
        assert_eq!(given, expected.map_err(str::to_owned));
    }

    #[test]
    fn only_public_addresses_are_dialled() {
        check(&["93.184.216.34"], Ok(1));
        check(&["127.0.0.1"], Err("`a.example` leads to a loopback address"));
        check(&["10.0.0.1", "fd00::1"], Err("`a.example` leads to a private address"));
        // One that answers with both is asked at the public one alone.
        check(&["169.254.169.254", "1.1.1.1"], Ok(1));
        check(&["93.184.216.35"], Err("`a.example` leads to an address of this machine"));
        check(&["93.184.216.35", "1.1.1.1"], Ok(1));
        check(&[], Err("entity not found"));
    }
}
