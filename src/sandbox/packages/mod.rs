//! The packages of environments: installed once, kept as layers that sessions share and cannot change.
//!
//! ```text
//! KEY/            a whole layer        layer/MANAGER/…   lock.json   log   used
//! KEY.building/   one that is being made, or what a crash has left of it
//! KEY.lock        held by whoever builds or removes it
//! KEY.log         what the last build that failed has said
//! ```
//!
//! Owns: where layers lie ([`shelf`]), how each manager installs into one ([`recipe`]), what a session sees of it ([`view`]).
//! Does not: know the network, or what a build is called by.
//! Invariants: a layer under its key is whole and never changes; it is removed only while nobody uses it. The kernel's
//! locks say who does, so that a crash ends every use.
//! How to add a manager: its arm in `environment::packages`, its recipe, what a session sees of it.

pub mod recipe;
pub mod shelf;
pub mod view;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::guest::{self, Job};
use super::host;
use super::plan::{self, Host, Root};
use super::profile::Profile;
use super::{LaunchError, PlanError, SandboxError};
use crate::environment::networking::Networking;
use crate::environment::{Access, Environment, ExtraMount, ProfileSource};
use view::View;

/// The root of the system that a profile shows: the host's, or a directory.
///
/// # Errors
/// An unknown profile.
pub fn root_of(profile: &ProfileSource) -> Result<PathBuf, SandboxError> {
    let profile = Profile::of(profile).map_err(PlanError::from)?;
    // One that cannot be used is refused when it is planned with.
    Ok(match profile.root.as_deref().map(host::root_of) {
        Some(Root::Directory { path, .. }) => path,
        Some(Root::Unusable { .. }) | None => PathBuf::from("/"),
    })
}

/// One command of a build: a program of the sandbox, with a directory to work in.
pub struct Step<'a> {
    /// The profile of the environment: what the machine shows it.
    pub profile: &'a ProfileSource,
    /// The directory to work in, and the home.
    pub directory: &'a Path,
    /// The layer as it is so far, if the command may write to it.
    pub layer: Option<&'a View>,
    /// More of the host, to be looked at.
    pub shown: Vec<ExtraMount>,
    /// Variables, in place of those of the same name.
    pub variables: Vec<(String, String)>,
    /// The program and its words.
    pub argv: Vec<String>,
    /// Whether it has a door to the network.
    pub online: bool,
}

/// Runs it with these streams; its exit code, or nothing if `watch` ended it. `door` gets the socket on which it asks for
/// connections. Blocks.
///
/// # Errors
/// If the sandbox cannot be had.
pub fn run(
    step: Step<'_>,
    streams: [BorrowedFd<'_>; 3],
    door: &mut dyn FnMut(OwnedFd),
    watch: &mut dyn FnMut(u32) -> bool,
) -> Result<Option<u8>, SandboxError> {
    let mut profile = Profile::of(step.profile).map_err(PlanError::from)?.into_owned();
    profile.workspace = Some(Access::ReadWrite);
    let environment = Environment {
        mounts: step.shown,
        profile: step.profile.clone(),
        networking: if step.online {
            Networking::Limited {
                allowed_hosts: Vec::new(),
                allow_package_managers: true,
                allow_mcp_servers: false,
            }
        } else {
            Networking::None
        },
        ..Environment::new(step.directory.to_owned())
    };
    let mut host =
        Host::gather(&profile, &environment, None).map_err(|e| PlanError::Gather(e.to_string()))?;
    host.packages = step.layer.cloned();
    let mut plan = plan::plan(&profile, &environment, &host)?;
    for (name, value) in step.variables {
        plan.env.retain(|(own, _)| *own != name);
        plan.env.push((name, value));
    }
    let job = Job { argv: step.argv, streams, door, watch: Some(watch) };
    guest::exec(plan, job).map_err(|e: LaunchError| e.into())
}
