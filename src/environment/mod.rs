//! Environment definition: where a session's tools run. Checked on construction.

pub mod networking;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use networking::Networking;

/// How much isolation a session demands. A run never gets less than it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// No isolation at all: tools run as the user, with the user's files and network.
    None,
    /// Landlock, seccomp and limits without namespaces: for hosts that forbid user namespaces.
    Landlock,
    /// Every layer: namespaces, an own root, Landlock, seccomp, limits.
    #[default]
    Full,
}

impl Tier {
    /// All of them, from least to most.
    pub const ALL: [Self; 3] = [Self::None, Self::Landlock, Self::Full];

    /// The word on the command line and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Landlock => "landlock",
            Self::Full => "full",
        }
    }
}

/// Whether the sandbox may change what a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look only.
    ReadOnly,
    /// Change too.
    ReadWrite,
}

/// A host directory or file that the sandbox shows besides the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether it can be changed.
    pub access: Access,
}

/// A checked environment definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Absolute path of the directory that the agent works in; read-write, at its own path inside.
    pub workspace: PathBuf,
    /// More of the host, if any.
    pub mounts: Vec<ExtraMount>,
    /// Name of the sandbox profile.
    pub profile: String,
    /// Least isolation that is accepted.
    pub tier: Tier,
    /// What may be reached of the network.
    #[serde(default)]
    pub networking: Networking,
}

impl Environment {
    /// The default environment around a workspace.
    #[must_use]
    pub fn new(workspace: PathBuf) -> Self {
        Self {
            workspace,
            mounts: Vec::new(),
            profile: "default".to_owned(),
            tier: Tier::Full,
            networking: Networking::None,
        }
    }
}
