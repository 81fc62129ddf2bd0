//! A sandbox as a value: what will be mounted, allowed and limited. Pure; printed, compared, then carried out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::network::Network;
use super::profile::{Profile, Resource};
use super::seccomp;
use crate::environment::networking::Networking;
use crate::environment::{Access, Environment, Tier};

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
    /// The paths of the profile that exist, and what they are.
    pub paths: Vec<(PathBuf, PathKind)>,
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

/// Everything that init needs to know. Goes to the child as one frame.
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
    /// Own directories in memory, with their size in MiB.
    pub tmpfs: Vec<(PathBuf, u32)>,
    /// Parts of `/proc` that cannot be written.
    pub proc_read_only: Vec<PathBuf>,
    /// Parts of `/proc` that are empty.
    pub proc_mask: Vec<PathBuf>,
    /// Resource limits.
    pub limits: Vec<(Resource, u64)>,
    /// The environment of every command.
    pub env: Vec<(String, String)>,
    /// The system call filters, compiled.
    pub filters: Vec<seccomp::Filter>,
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
    /// A mount that cannot be had.
    #[error("the mount {path} {problem}")]
    Mount {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
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
    let mut mounts: Vec<Mount> = host
        .paths
        .iter()
        .map(|(path, kind)| Mount {
            source: path.clone(),
            target: path.clone(),
            kind: kind.clone(),
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
    check_target(&environment.workspace)?;
    mounts.push(Mount {
        source: environment.workspace.clone(),
        target: environment.workspace.clone(),
        kind: PathKind::Directory,
        access: Access::ReadWrite,
    });
    // Outer before inner, or the outer would hide the inner; the sort is stable, so later entries win.
    mounts.sort_by_key(|mount| mount.target.components().count());
    let paths = |places: &[super::profile::Place]| {
        places.iter().map(|place| PathBuf::from(&place.path)).collect()
    };
    let uid = host.session_uid.unwrap_or(host.uid);
    Ok(Plan {
        tier: environment.tier,
        role: Role::Tools,
        network: network(environment)?,
        workspace: environment.workspace.clone(),
        home: home(profile),
        uid,
        gid: host.session_uid.unwrap_or(host.gid),
        from_root: host.session_uid.is_some(),
        env: variables(profile, host, &mounts),
        mounts,
        tmpfs: profile.tmpfs.iter().map(|tmpfs| (PathBuf::from(&tmpfs.path), tmpfs.mib)).collect(),
        proc_read_only: paths(&profile.proc_read_only),
        proc_mask: paths(&profile.proc_mask),
        limits: profile.limit.iter().map(|limit| (limit.resource, limit.value)).collect(),
        filters: seccomp::compile(profile, environment.tier).map_err(PlanError::Filter)?,
    })
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
    if !target.is_absolute()
        || target.components().any(|part| part == std::path::Component::ParentDir)
    {
        return refuse("must be an absolute path without `..`");
    }
    if target == Path::new("/") {
        return refuse("would replace the sandbox's own root");
    }
    if ["/proc", "/dev", "/sys"].iter().any(|own| target.starts_with(own)) {
        return refuse("would replace a directory of the sandbox's own");
    }
    Ok(())
}

fn home(profile: &Profile) -> PathBuf {
    let home = profile.env.iter().find(|variable| variable.name == "HOME");
    home.map_or_else(|| PathBuf::from("/tmp"), |variable| PathBuf::from(&variable.value))
}

fn variables(profile: &Profile, host: &Host, mounts: &[Mount]) -> Vec<(String, String)> {
    let shown = |path: &Path| mounts.iter().any(|mount| path.starts_with(&mount.target));
    let mut env: Vec<_> = profile.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    let bins = HOME_BINS.iter().map(|bin| host.home.join(bin)).filter(|bin| shown(bin));
    let mut path: Vec<_> = bins.map(|bin| bin.display().to_string()).collect();
    path.push(SYSTEM_PATH.to_owned());
    env.push(("PATH".to_owned(), path.join(":")));
    for (name, below) in HOME_VARIABLES {
        let place = host.home.join(below);
        if shown(&place) {
            env.push((name.to_owned(), place.display().to_string()));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::ExtraMount;

    fn host() -> Host {
        Host {
            uid: 501,
            gid: 502,
            home: "/home/u".into(),
            session_uid: None,
            paths: vec![
                ("/usr".into(), PathKind::Directory),
                ("/bin".into(), PathKind::Link("usr/bin".into())),
                ("/home/u/.cargo/bin".into(), PathKind::Directory),
                ("/home/u/.rustup".into(), PathKind::Directory),
                ("/etc/localtime".into(), PathKind::File),
            ],
        }
    }

    #[test]
    fn the_plan_of_the_default_profile() {
        let profile = Profile::named("default").unwrap();
        let environment = Environment::new("/home/u/project".into());
        let mut plan = plan(&profile, &environment, &host()).unwrap();
        plan.filters.clear();
        insta::assert_snapshot!(serde_json::to_string_pretty(&plan).unwrap());
    }

    #[test]
    fn a_mount_cannot_replace_what_makes_the_sandbox() {
        let profile = Profile::named("default").unwrap();
        for target in ["/", "/proc", "/dev/shm", "/sys/fs", "relative", "/a/../proc"] {
            let mut environment = Environment::new("/w".into());
            let (source, access) = ("/data".into(), Access::ReadOnly);
            environment.mounts = vec![ExtraMount { source, target: target.into(), access }];
            assert!(plan(&profile, &environment, &host()).is_err(), "{target}");
        }
    }

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let profile = Profile::named("default").unwrap();
        let environment = Environment::new("/usr/src/project".into());
        let plan = plan(&profile, &environment, &host()).unwrap();
        let at = |path: &str| plan.mounts.iter().position(|m| m.target == Path::new(path)).unwrap();
        assert!(at("/usr") < at("/usr/src/project"));
    }
}
