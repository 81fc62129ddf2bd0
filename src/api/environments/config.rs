//! `config` of an environment: which network its sessions have, which packages; or that it is somebody else's machine.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::body::{Node, Object};
use crate::api::error::ApiError;
use crate::environment::networking::{Host, HostName, HostRule, Networking};
use crate::environment::packages::{Manager, Packages, PackagesError};
use crate::limits::MAX_PACKAGES;

pub(super) const MAX_HOSTS: usize = 256;
pub(super) const MAX_HOST_CHARS: usize = 255;

/// A checked configuration, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Config {
    /// The sandbox of this machine.
    Cloud { networking: Network, packages: Packages },
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
        Self::Cloud { networking: Network::default(), packages: Packages::default() }
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
            if let Some(node) = object.maybe("packages") {
                merge_packages(packages, &node)?;
            }
            let network = networking.runnable().expect("its hosts were read as such");
            packages.check(&network).map_err(|error| object.refuse("packages", error))?;
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

/// Each list that is given replaces that of its manager.
fn merge_packages(packages: &mut Packages, node: &Node<'_>) -> Result<(), ApiError> {
    let mut object = node.object()?;
    if let Some(kind) = object.maybe("type")
        && kind.string()? != "packages"
    {
        return Err(kind.refuse("must be \"packages\""));
    }
    for manager in Manager::ALL {
        if let Some(node) = object.maybe(manager.as_str()) {
            let entries = node.list(MAX_PACKAGES)?;
            let names = entries.iter().map(Node::string).collect::<Result<Vec<_>, _>>()?;
            let replaced = packages.replace(manager, &names);
            replaced.map_err(|(at, problem)| entries[at].refuse(problem))?;
        }
    }
    object.done()?;
    match packages.count() {
        count if count > MAX_PACKAGES => Err(node.refuse(PackagesError::TooMany(count))),
        _ => Ok(()),
    }
}
