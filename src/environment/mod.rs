//! Environment definition: where a session's tools run. Checked on construction.

pub mod networking;
pub mod packages;
pub mod params;
pub mod repository;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use networking::Networking;
use packages::Packages;

/// Where a session finds the files that it was given, in the mode `own`.
pub const UPLOADS: &str = "/mnt/session/uploads";
/// Where it leaves the files that it hands out, in the mode `own`.
pub const OUTPUTS: &str = "/mnt/session/outputs";
/// Where it finds its skills, in every mode.
pub const SKILLS: &str = "/mnt/session/skills";

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

    /// The number on the command line: more is more.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Landlock => 1,
            Self::Full => 2,
        }
    }

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

/// How a session works on its workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// On the user's own files.
    #[default]
    Direct,
    /// On a layer over them: what the session changes lies in its own disk.
    Overlay,
    /// On a copy of them, made when the session is created.
    Copy,
    /// On none of them: the workspace is the session's own and begins empty, at a path that means something inside alone.
    Own,
}

impl WorkspaceMode {
    /// Those that begin with a directory of the user's.
    pub const OF_THE_USER: [Self; 3] = [Self::Direct, Self::Overlay, Self::Copy];

    /// The word on the command line and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Overlay => "overlay",
            Self::Copy => "copy",
            Self::Own => "own",
        }
    }
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

/// Where a sandbox profile comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProfileSource {
    /// One of the program's own, by its name. An old session gets what a newer program mends in it.
    BuiltIn(String),
    /// A file of the user's, frozen as it was read: a later change of it, or its loss, changes no session.
    File {
        /// Where it was, for messages.
        path: PathBuf,
        /// What it said.
        text: String,
    },
}

impl ProfileSource {
    /// As the user named it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn(name) => name.clone(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

/// A checked environment definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Absolute path of the directory that the agent works in; read-write, at its own path inside. In the mode `own` it is
    /// a path inside and nothing else.
    pub workspace: PathBuf,
    /// Whether the agent works on the user's own files.
    #[serde(default)]
    pub workspace_mode: WorkspaceMode,
    /// More of the host, if any.
    pub mounts: Vec<ExtraMount>,
    /// The sandbox profile.
    pub profile: ProfileSource,
    /// Protected paths of the workspace that tools may use all the same, relative to it.
    #[serde(default)]
    pub allow_paths: Vec<PathBuf>,
    /// The isolation to begin with.
    pub tier: Tier,
    /// Least isolation that is accepted if this machine cannot give `tier`.
    #[serde(default)]
    pub least: Tier,
    /// What may be reached of the network.
    #[serde(default)]
    pub networking: Networking,
    /// What is installed besides what the machine has.
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    pub packages: Packages,
}

impl Environment {
    /// The default environment around a workspace.
    #[must_use]
    pub fn new(workspace: PathBuf) -> Self {
        Self {
            workspace,
            workspace_mode: WorkspaceMode::Direct,
            mounts: Vec::new(),
            profile: ProfileSource::BuiltIn("default".to_owned()),
            allow_paths: Vec::new(),
            tier: Tier::Full,
            least: Tier::Full,
            networking: Networking::None,
            packages: Packages::default(),
        }
    }

    /// The tiers to try, from most to least; never one below what is accepted.
    pub fn tiers(&self) -> impl Iterator<Item = Tier> {
        let (tier, least) = (self.tier, self.least.min(self.tier));
        Tier::ALL.into_iter().rev().filter(move |one| (least..=tier).contains(one))
    }
}
