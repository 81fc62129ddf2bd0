//! A sandbox as a value: what will be mounted, allowed and limited. Pure; printed, compared, then carried out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Place;
use super::network::Network;
use super::packages::view::View as Packages;
use super::profile::{Profile, Resource};
use super::protect::{Found, Held, Hold};
use super::repository::Repository;
use super::{landlock, seccomp};
use crate::environment::networking::Networking;
use crate::environment::{Access, Environment, OUTPUTS, SKILLS, Tier, UPLOADS, WorkspaceMode};
use crate::limits::PROTECT_MOUNTS;

/// The user id that a session has inside.
pub const INSIDE_UID: u32 = 1000;

/// Facts about the host that a plan depends on. Gathered by `Host::gather`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The user who runs casemate.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its home.
    pub home: PathBuf,
    /// For root: the host user id that the session becomes, used by nobody else.
    pub session_uid: Option<u32>,
    /// Bytes of memory, if known.
    pub memory: Option<u64>,
    /// The directory that the profile wants as root, if it wants one.
    pub root: Option<Root>,
    /// The paths of the profile that exist.
    pub paths: Vec<Shown>,
    /// The protected paths of what is shown.
    pub found: Found,
    /// The git directory of the workspace, if it is another's.
    pub repository: Option<Repository>,
    /// Something that is mounted in the workspace, if anything is.
    pub submount: Option<PathBuf>,
    /// The session's own disk, if it has one.
    pub disk: Option<Place>,
    /// Whether there are skills on it.
    pub skills: bool,
    /// The sealed tree that its layer lies over, if it is a fork of another one's files.
    pub base: Option<PathBuf>,
    /// The environment's packages, if it has any.
    pub packages: Option<Packages>,
}

/// A path of the profile that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// As the profile says.
    pub name: String,
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    /// What it is.
    pub kind: PathKind,
}

/// A directory that is to take the place of the host's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// It can.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the image says of its programs' environment, if it is an unpacked one.
        env: Vec<(String, String)>,
    },
    /// It cannot.
    Unusable {
        /// As the profile says.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },
}

/// What a path is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link, and where it leads.
    Link(PathBuf),
}

/// One thing in the session's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    /// What it is.
    pub kind: PathKind,
    /// Whether it can be changed.
    pub access: Access,
}

/// What the guest process is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves tool calls.
    Tools,
    /// Runs one command with the caller's standard streams.
    Exec(Vec<String>),
}

/// Everything that init needs to know about a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How much isolation.
    pub tier: Tier,
    /// What for.
    pub role: Role,
    /// What it has of a network.
    pub network: Network,
    /// The directory to work in.
    pub workspace: PathBuf,
    /// The session's home, inside.
    pub home: PathBuf,
    /// Host user and group id that the session has on disk; differs from the caller's only for root.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Whether the caller is root and gives itself up.
    pub from_root: bool,
    /// The session's root, outer before inner.
    pub mounts: Vec<Mount>,
    /// The git directory of the workspace, if it lies elsewhere.
    pub repository: Option<PathBuf>,
    /// The directory of the session's disk that lies over the workspace, if one does.
    pub layer: Option<PathBuf>,
    /// The directory of the environment's packages that lies over `/usr`, if one does.
    pub system: Option<PathBuf>,
    /// Paths of the workspace that are held, outer before inner.
    pub held: Vec<Held>,
    /// Whether the search for paths to hold ended at its bound.
    pub held_cut: bool,
    /// Whether programs may make user namespaces.
    pub user_namespaces: bool,
    /// Own directories in memory, with their size in MiB.
    pub tmpfs: Vec<(PathBuf, u32)>,
    /// Parts of `/proc` that cannot be written.
    pub proc_read_only: Vec<PathBuf>,
    /// Parts of `/proc` that are empty.
    pub proc_mask: Vec<PathBuf>,
    /// What Landlock allows, whatever the mounts show.
    pub landlock: Vec<landlock::Grant>,
    /// Resource limits.
    pub limits: Vec<(Resource, u64)>,
    /// The environment of every command.
    pub env: Vec<(String, String)>,
    /// The system call filters, compiled.
    pub filters: Vec<seccomp::Filter>,
}

impl Plan {
    /// The limit of a resource, if there is one.
    #[must_use]
    pub fn limit(&self, resource: Resource) -> Option<u64> {
        self.limits.iter().find(|(kind, _)| *kind == resource).map(|(_, value)| *value)
    }
}

/// A plan, and what belongs to one launch of it. Goes to the child as one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The plan.
    pub plan: Plan,
    /// A file of the host that the guest must not be able to open.
    pub canary: Option<PathBuf>,
    /// A directory of the host for the session alone, in tiers without a root of their own.
    pub private: Option<PathBuf>,
}

/// What is known only once the guest has begun with the order: it follows in a frame of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplement {
    /// What the guest was started from, as a layer.
    pub program: String,
    /// The control group to enter, if there is one.
    pub cgroup: Option<super::cgroup::Entry>,
    /// Who counts memory, as a layer.
    pub memory: String,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The profile.
    #[error(transparent)]
    Profile(#[from] super::profile::ProfileError),
    /// The profile's system calls.
    #[error("the sandbox profile's system calls cannot be compiled: {0}")]
    Filter(String),
    /// What the host shows cannot be looked at.
    #[error("the workspace cannot be looked through: {0}")]
    Gather(String),
    /// A path that the profile cannot do without.
    #[error(
        "the sandbox profile `{profile}` needs {path}, which is not there; give it `required = false` if it may be missing"
    )]
    Missing {
        /// The profile's name.
        profile: String,
        /// As the profile says.
        path: String,
    },
    /// The profile's root.
    #[error("the root directory {path} of the sandbox profile {problem}")]
    Root {
        /// As the profile says.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A workspace that is no place for an agent.
    #[error("the workspace {path} {problem}; name a directory of the project itself")]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A link where a protected path should be.
    #[error("{path} is a link on the way to the protected path `{pattern}`, which cannot be held behind a link; replace \
             it by what it leads to, or give it up with --allow-path {}", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// The pattern of the profile.
        pattern: String,
    },
    /// More protected paths than mounts should be made for.
    #[error(
        "the workspace has {count} protected paths, and at most {PROTECT_MOUNTS} can be held; work in a part of it, \
             or give some up with --allow-path"
    )]
    TooManyHeld {
        /// How many.
        count: usize,
    },
    /// A secret that the tier cannot hide.
    #[error("{path} is protected, and the tier `landlock` has no mounts to hide it by; move it out of the workspace, or \
             give it up with --allow-path {}", .path.display())]
    Unhidden {
        /// The path.
        path: PathBuf,
    },
    /// A workspace mode that needs more than there is.
    #[error(
        "the workspace mode `{}` needs mounts, which the tier `{}` has none of; use --workspace-mode direct, or the tier \
             `full`", .mode.as_str(), .tier.as_str()
    )]
    Mode {
        /// What was asked for.
        mode: WorkspaceMode,
        /// The tier.
        tier: Tier,
    },
    /// Packages that need more than there is.
    #[error(
        "the environment's packages need mounts, which the tier `{}` has none of; use the tier `full`", .0.as_str()
    )]
    Packages(Tier),
    /// A workspace that no layer can lie over.
    #[error(
        "the workspace cannot have a layer over it: {} is mounted in it, and would be hidden; use --workspace-mode copy",
        .mount.display()
    )]
    Submount {
        /// What is mounted there.
        mount: PathBuf,
    },
    /// Networking that the tier cannot hold to.
    #[error("the networking `{networking}` cannot be had with --sandbox={}: {reason}", .tier.as_str())]
    Networking {
        /// The word for what was asked.
        networking: &'static str,
        /// What there is to hold it.
        tier: Tier,
        /// Why not.
        reason: &'static str,
    },
    /// A mount that cannot be had.
    #[error("the mount {path} {problem}")]
    Mount {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Where `PATH` looks besides the toolchains.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Toolchains that find their parts by a variable, because the session's home is not the user's.
const HOME_VARIABLES: [(&str, &str); 3] =
    [("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv"), ("NVM_DIR", ".nvm")];
/// Directories of programs below the user's home.
const HOME_BINS: [&str; 5] = [".local/bin", ".cargo/bin", ".pyenv/shims", ".pyenv/bin", "go/bin"];

/// Puts profile, environment and host together.
///
/// # Errors
/// A mount that hides what the sandbox is made of, or a profile that cannot be compiled.
pub fn plan(profile: &Profile, environment: &Environment, host: &Host) -> Result<Plan, PlanError> {
    check_host(profile, host)?;
    check_workspace(&environment.workspace, host)?;
    let (tier, mode) = (environment.tier, environment.workspace_mode);
    if mode != WorkspaceMode::Direct && tier != Tier::Full {
        return Err(PlanError::Mode { mode, tier });
    }
    if host.packages.is_some() && tier != Tier::Full {
        return Err(PlanError::Packages(tier));
    }
    if let (WorkspaceMode::Overlay, Some(mount)) = (mode, &host.submount) {
        return Err(PlanError::Submount { mount: mount.clone() });
    }
    let held = held(tier, host)?;
    let home = home(profile);
    // Without mounts of its own, a session's home is a directory of the moment.
    let disk = host.disk.as_ref().filter(|_| tier == Tier::Full);
    let mounts = mounts(profile, environment, host, disk.map(|disk| (disk, home.as_path())))?;
    let uid = host.session_uid.unwrap_or(host.uid);
    let tmpfs = profile.tmpfs.iter().map(|tmpfs| (PathBuf::from(&tmpfs.path), tmpfs.mib));
    let tmpfs: Vec<_> = tmpfs.filter(|(path, _)| disk.is_none() || *path != home).collect();
    Ok(Plan {
        tier,
        role: Role::Tools,
        network: network(environment)?,
        workspace: environment.workspace.clone(),
        uid,
        gid: host.session_uid.unwrap_or(host.gid),
        from_root: host.session_uid.is_some(),
        env: variables(profile, host, &home, &mounts),
        system: host.packages.as_ref().and_then(Packages::system),
        home,
        repository: host.repository.as_ref().map(|repository| repository.directory.clone()),
        layer: disk
            .filter(|_| mode == WorkspaceMode::Overlay || host.base.is_some())
            .map(Place::layer),
        landlock: landlock::grants(tier, &mounts, &tmpfs),
        held,
        held_cut: host.found.cut,
        user_namespaces: profile.user_namespaces.unwrap_or(false),
        mounts,
        tmpfs,
        proc_read_only: paths(&profile.proc_read_only),
        proc_mask: paths(&profile.proc_mask),
        limits: limits(profile, host),
        filters: seccomp::compile(profile, tier).map_err(PlanError::Filter)?,
    })
}

pub(super) fn paths(places: &[super::profile::Place]) -> Vec<PathBuf> {
    places.iter().map(|place| PathBuf::from(&place.path)).collect()
}

/// What the profile demands of the host.
fn check_host(profile: &Profile, host: &Host) -> Result<(), PlanError> {
    if let Some(Root::Unusable { path, problem }) = &host.root {
        return Err(PlanError::Root { path: path.clone(), problem });
    }
    let is_there = |path: &str| host.paths.iter().any(|shown| shown.name == path);
    let mut missing =
        profile.mount.iter().filter(|show| show.required == Some(true) && !is_there(&show.path));
    match missing.next() {
        None => Ok(()),
        Some(show) => {
            Err(PlanError::Missing { profile: profile.name.clone(), path: show.path.clone() })
        }
    }
}

/// Directories that hold what a session must never change, with all that is below.
const SYSTEM: [&str; 10] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys"];
/// Directories that hold others' directories: a workspace lies deeper.
const CROWDED: [&str; 8] = ["/", "/home", "/media", "/mnt", "/opt", "/srv", "/usr", "/var"];
/// Directories of a home that hold keys and settings, with all that is below.
const PRIVATE: [&str; 9] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config",
    ".local/share/keyrings",
    ".mozilla",
];

/// Refuses a workspace that is a protected place, or holds one. Its path is real: links were followed.
fn check_workspace(workspace: &Path, host: &Host) -> Result<(), PlanError> {
    let refuse =
        |problem: String| Err(PlanError::Workspace { path: workspace.to_owned(), problem });
    if let Some(problem) = problem_of(workspace) {
        return refuse(problem.to_owned());
    }
    if CROWDED.iter().any(|crowded| workspace == Path::new(crowded)) {
        return refuse("holds much more than a project".to_owned());
    }
    if let Some(system) = SYSTEM.iter().find(|system| workspace.starts_with(system)) {
        return refuse(format!("is a part of the system's {system}"));
    }
    if host.home.starts_with(workspace) {
        return refuse("holds your whole home directory, with its keys and settings".to_owned());
    }
    match PRIVATE.iter().find(|private| workspace.starts_with(host.home.join(private))) {
        Some(private) => refuse(format!("is a part of your ~/{private}, which is private")),
        None => Ok(()),
    }
}

/// What is held of the workspace, as far as the tier can.
fn held(tier: Tier, host: &Host) -> Result<Vec<Held>, PlanError> {
    let held = &host.found.held;
    if tier == Tier::None {
        return Ok(Vec::new());
    }
    if let Some((path, pattern)) = host.found.links.first() {
        return Err(PlanError::Link { path: path.clone(), pattern: pattern.clone() });
    }
    if held.len() > PROTECT_MOUNTS {
        return Err(PlanError::TooManyHeld { count: held.len() });
    }
    if tier == Tier::Full {
        return Ok(held.clone());
    }
    match held.iter().find(|held| matches!(held.hold, Hold::Hide(_))) {
        Some(secret) => Err(PlanError::Unhidden { path: secret.path.clone() }),
        None => Ok(Vec::new()),
    }
}

fn mounts(
    profile: &Profile,
    environment: &Environment,
    host: &Host,
    disk: Option<(&Place, &Path)>,
) -> Result<Vec<Mount>, PlanError> {
    let mut mounts: Vec<Mount> = host
        .paths
        .iter()
        .map(|shown| Mount {
            source: shown.source.clone(),
            target: shown.target.clone(),
            kind: shown.kind.clone(),
            access: Access::ReadOnly,
        })
        .collect();
    for extra in &environment.mounts {
        check_target(&extra.target)?;
        mounts.push(Mount {
            source: extra.source.clone(),
            target: extra.target.clone(),
            kind: PathKind::Directory,
            access: extra.access,
        });
    }
    if let Some((disk, home)) = disk {
        mounts.push(Mount {
            source: disk.home(),
            target: home.to_owned(),
            kind: PathKind::Directory,
            access: Access::ReadWrite,
        });
        mounts.extend(host.skills.then(|| Mount {
            source: disk.skills(),
            target: SKILLS.into(),
            kind: PathKind::Directory,
            access: Access::ReadOnly,
        }));
    }
    if let Some(repository) = host.repository.as_ref().filter(|_| environment.tier == Tier::Full) {
        // What a session does to a version of its own stays apart; this is the user's.
        let direct = environment.workspace_mode == WorkspaceMode::Direct;
        mounts.push(Mount {
            source: repository.directory.clone(),
            target: repository.directory.clone(),
            kind: PathKind::Directory,
            access: if direct {
                profile.workspace.unwrap_or(Access::ReadWrite)
            } else {
                Access::ReadOnly
            },
        });
    }
    let copy = disk.filter(|_| environment.workspace_mode == WorkspaceMode::Copy);
    let workspace = Mount {
        source: host
            .base
            .clone()
            .or_else(|| copy.map(|(disk, _)| disk.copy()))
            .unwrap_or_else(|| environment.workspace.clone()),
        target: environment.workspace.clone(),
        kind: PathKind::Directory,
        access: profile.workspace.unwrap_or(Access::ReadWrite),
    };
    match disk.filter(|_| environment.workspace_mode == WorkspaceMode::Own) {
        Some((disk, _)) => mounts.extend(own(disk, workspace)),
        None => mounts.push(workspace),
    }
    if let Some(packages) = &host.packages {
        mounts.extend(packages.mounts(&mounts));
    }
    // Outer before inner, or the outer would hide the inner; the sort is stable, so later entries win.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// What a session without a directory of the user's has: its workspace, what it was given and what it hands out.
fn own(disk: &Place, workspace: Mount) -> [Mount; 3] {
    let kind = PathKind::Directory;
    let at = |source, target: &str, access| Mount {
        source,
        target: target.into(),
        kind: kind.clone(),
        access,
    };
    [
        at(disk.uploads(), UPLOADS, Access::ReadOnly),
        at(disk.outputs(), OUTPUTS, Access::ReadWrite),
        Mount { source: disk.workspace(), ..workspace },
    ]
}

/// The profile's limits; of the machine's memory, a quarter stays with the host.
fn limits(profile: &Profile, host: &Host) -> Vec<(Resource, u64)> {
    let of = |resource, value: u64| match (resource, host.memory) {
        (Resource::Memory, Some(machine)) => value.min(machine / 4 * 3),
        _ => value,
    };
    profile.limit.iter().map(|limit| (limit.resource, of(limit.resource, limit.value))).collect()
}

/// Only a network namespace holds a session to a list of hosts.
fn network(environment: &Environment) -> Result<Network, PlanError> {
    let (networking, tier) = (&environment.networking, environment.tier);
    let refuse =
        |reason| Err(PlanError::Networking { networking: networking.as_str(), tier, reason });
    match (tier, networking) {
        (_, Networking::None) | (Tier::None, Networking::Unrestricted) => Ok(Network::Isolated),
        (Tier::Full, Networking::Limited { .. } | Networking::Unrestricted) => Ok(Network::Door),
        (Tier::Landlock, _) => refuse("without namespaces, no socket can be made at all"),
        (Tier::None, Networking::Limited { .. }) => refuse("nothing would hold it to its hosts"),
    }
}

/// A mount may not replace what makes the sandbox one.
fn check_target(target: &Path) -> Result<(), PlanError> {
    let refuse = |problem| Err(PlanError::Mount { path: target.to_owned(), problem });
    problem_of(target).map_or(Ok(()), refuse)
}

/// What is wrong with a place inside.
fn problem_of(target: &Path) -> Option<&'static str> {
    if !target.is_absolute()
        || target.components().any(|part| part == std::path::Component::ParentDir)
    {
        return Some("must be an absolute path without `..`");
    }
    if target == Path::new("/") {
        return Some("would replace the sandbox's own root");
    }
    let own = ["/proc", "/dev", "/sys"].iter().any(|own| target.starts_with(own));
    own.then_some("would replace a directory of the sandbox's own")
}

fn home(profile: &Profile) -> PathBuf {
    let home = profile.env.iter().find(|variable| variable.name == "HOME");
    home.map_or_else(|| PathBuf::from("/tmp"), |variable| PathBuf::from(&variable.value))
}

/// Directories of programs below the session's home: what a session installs comes before what the host has.
const SESSION_BINS: [&str; 2] = [".local/bin", ".local/share/gem/bin"];

fn variables(
    profile: &Profile,
    host: &Host,
    home: &Path,
    mounts: &[Mount],
) -> Vec<(String, String)> {
    let shown = |path: &Path| mounts.iter().any(|mount| path.starts_with(&mount.target));
    let mut env: Vec<_> = profile.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    let bins = HOME_BINS.iter().map(|bin| host.home.join(bin)).filter(|bin| shown(bin));
    let own = SESSION_BINS.iter().map(|bin| home.join(bin).display().to_string());
    let installed = host.packages.iter().flat_map(Packages::bins);
    let mut path: Vec<_> = own.chain(installed).collect();
    path.extend(bins.map(|bin| bin.display().to_string()));
    // What the profile says stands; the image knows where its programs are.
    let of_image = match &host.root {
        Some(Root::Directory { env, .. }) => env.as_slice(),
        Some(Root::Unusable { .. }) | None => &[],
    };
    path.extend(of_image.iter().filter(|(name, _)| name == "PATH").map(|(_, dirs)| dirs.clone()));
    path.push(SYSTEM_PATH.to_owned());
    env.push(("PATH".to_owned(), path.join(":")));
    for (name, value) in of_image {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.clone(), value.clone()));
        }
    }
    for (name, below) in HOME_VARIABLES {
        let place = host.home.join(below);
        if shown(&place) {
            env.push((name.to_owned(), place.display().to_string()));
        }
    }
    env.extend(host.packages.iter().flat_map(|packages| packages.variables(home)));
    env
}

#[cfg(test)]
pub(super) mod tests;
