//! `config` of an environment: which network its sessions have, which packages; or that it is somebody else's machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::body::{Node, Object};
use crate::api::error::ApiError;
use crate::environment::networking::{Host, HostName, HostRule, Networking};

/// The package managers, in the order in which they install.
pub(super) const MANAGERS: [&str; 6] = ["apt", "cargo", "gem", "go", "npm", "pip"];
pub(super) const MAX_HOSTS: usize = 256;
pub(super) const MAX_HOST_CHARS: usize = 255;
pub(super) const MAX_PACKAGES: usize = 200;
pub(super) const MAX_PACKAGE_CHARS: usize = 200;

/// A checked configuration, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Config {
    /// The sandbox of this machine.
    Cloud { networking: Network, packages: BTreeMap<String, Vec<String>> },
    /// Sessions' tools run elsewhere.
    SelfHosted,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Network {
    #[default]
    Unrestricted,
    Limited(Limits),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    allowed_hosts: Vec<String>,
    allow_package_managers: bool,
    allow_mcp_servers: bool,
}

impl Default for Config {
    fn default() -> Self {
        let packages = MANAGERS.map(|manager| (manager.to_owned(), Vec::new())).into();
        Self::Cloud { networking: Network::default(), packages }
    }
}

impl Config {
    /// That of a new environment.
    pub(super) fn create(node: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        let stored = match is_cloud(&mut object)? {
            true => Self::default(),
            false => Self::SelfHosted,
        };
        stored.merge(object)
    }

    /// That of an update: what is left out stays, and its type cannot change.
    pub(super) fn update(&self, node: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        if is_cloud(&mut object)? != matches!(self, Self::Cloud { .. }) {
            let problem = "invalid_config_type_change: the type of an environment cannot change";
            return Err(object.refuse("type", problem).code("invalid_config_type_change"));
        }
        self.clone().merge(object)
    }

    fn merge(mut self, mut object: Object<'_>) -> Result<Self, ApiError> {
        if let Self::Cloud { networking, packages } = &mut self {
            if let Some(node) = object.maybe("networking") {
                *networking = networking.merge(&node)?;
            }
            let node = object.maybe("packages");
            if let Some(node) = &node {
                merge_packages(packages, node)?;
            }
            let has_packages = packages.values().any(|list| !list.is_empty());
            if has_packages && !networking.allows_package_managers() {
                let problem = "need networking.allow_package_managers where networking is limited";
                return Err(object.refuse("packages", problem));
            }
        }
        object.done()?;
        Ok(self)
    }

    pub(super) fn view(&self) -> Value {
        let mut view = json!(self);
        if let Some(packages) = view.get_mut("packages").and_then(Value::as_object_mut) {
            packages.shift_insert(0, "type".to_owned(), "packages".into());
        }
        view
    }
}

fn is_cloud(object: &mut Object<'_>) -> Result<bool, ApiError> {
    let kind = object.need("type")?;
    match kind.string()? {
        "cloud" => Ok(true),
        "self_hosted" => Ok(false),
        _ => Err(kind.refuse("must be \"cloud\" or \"self_hosted\"")),
    }
}

impl Network {
    fn merge(&self, node: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = node.object()?;
        let kind = object.need("type")?;
        let network = match kind.string()? {
            "unrestricted" => Self::Unrestricted,
            "limited" => {
                let mut limits = match self {
                    Self::Limited(limits) => limits.clone(),
                    Self::Unrestricted => Limits::default(),
                };
                if let Some(node) = object.maybe("allowed_hosts") {
                    limits.allowed_hosts = read_hosts(&node)?;
                }
                if let Some(node) = object.maybe("allow_package_managers") {
                    limits.allow_package_managers = node.boolean()?;
                }
                if let Some(node) = object.maybe("allow_mcp_servers") {
                    limits.allow_mcp_servers = node.boolean()?;
                }
                Self::Limited(limits)
            }
            _ => return Err(kind.refuse("must be \"unrestricted\" or \"limited\"")),
        };
        object.done()?;
        Ok(network)
    }

    fn allows_package_managers(&self) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Limited(limits) => limits.allow_package_managers,
        }
    }

    /// As sessions have it; nothing if a host of it is none, which no stored one is.
    pub(super) fn runnable(&self) -> Option<Networking> {
        let limits = match self {
            Self::Unrestricted => return Some(Networking::Unrestricted),
            Self::Limited(limits) => limits,
        };
        let rules = limits.allowed_hosts.iter().map(|host| host.parse::<HostRule>().ok());
        Some(Networking::Limited {
            allowed_hosts: rules.collect::<Option<_>>()?,
            allow_package_managers: limits.allow_package_managers,
            allow_mcp_servers: limits.allow_mcp_servers,
        })
    }
}

/// Names, `*.` and a name, or addresses; never a port.
fn read_hosts(node: &Node<'_>) -> Result<Vec<String>, ApiError> {
    let mut hosts = Vec::new();
    for entry in node.list(MAX_HOSTS)? {
        let host = entry.text(1, MAX_HOST_CHARS)?;
        if host.contains("://") || host.contains('/') {
            return Err(entry.refuse("must be a host, without scheme and path"));
        }
        let has_port = !host.starts_with('[') && host.matches(':').count() == 1;
        if has_port || host.contains("]:") {
            return Err(entry.refuse("must be a host, without a port"));
        }
        let checked = match host.strip_prefix("*.") {
            Some(parent) => parent.parse::<HostName>().map(drop),
            None => host.parse::<Host>().map(drop),
        };
        checked.map_err(|error| entry.refuse(error))?;
        hosts.push(host.to_owned());
    }
    Ok(hosts)
}

fn merge_packages(
    packages: &mut BTreeMap<String, Vec<String>>,
    node: &Node<'_>,
) -> Result<(), ApiError> {
    let mut object = node.object()?;
    if let Some(kind) = object.maybe("type")
        && kind.string()? != "packages"
    {
        return Err(kind.refuse("must be \"packages\""));
    }
    for manager in MANAGERS {
        if let Some(node) = object.maybe(manager) {
            packages.insert(manager.to_owned(), read_packages(&node)?);
        }
    }
    object.done()?;
    let count: usize = packages.values().map(Vec::len).sum();
    if count > MAX_PACKAGES {
        return Err(node.refuse(format!("must be at most {MAX_PACKAGES}; there are {count}")));
    }
    Ok(())
}

/// A name and perhaps a version, never an option, a path or a URL.
fn read_packages(node: &Node<'_>) -> Result<Vec<String>, ApiError> {
    let mut packages = Vec::new();
    for entry in node.list(MAX_PACKAGES)? {
        let package = entry.text(1, MAX_PACKAGE_CHARS)?;
        if !package.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@') {
            return Err(
                entry.refuse("must be a package's name, which begins with a letter or digit")
            );
        }
        if package.contains("://") || package.contains("..") || package.contains(char::is_control) {
            return Err(entry.refuse("must be a package of a registry, not a URL or a path"));
        }
        packages.push(package.to_owned());
    }
    Ok(packages)
}
