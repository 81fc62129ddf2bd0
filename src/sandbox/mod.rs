//! The only door to the kernel: sandboxes, from the plan to the running guest.
//!
//! Owns: profiles, plans, the set-up of a sandbox layer by layer, the frames between host and guest, the guest's life.
//! Does not: know what runs in a sandbox (`main` joins it with the tools), sessions, models or the store.
//! Invariants: a sandbox has every layer that its tier promises, or there is none; nothing inside is host root; what comes
//! out of a guest is bounded, strictly decoded and never obeyed; unsafe code is in `sys.rs` alone.
//! How to add a layer: a stage in `init.rs` with a name, its line in the self-test, its remedy, a probe that only it stops.

mod birth;
mod canary;
mod cgroup;
pub mod disk;
mod exec;
mod fds;
mod guest;
mod host;
pub mod init;
pub mod kept;
mod landlock;
mod launcher;
pub mod made;
mod mechanism;
pub mod mirrors;
mod mounts;
pub mod network;
mod owner;
pub mod packages;
pub mod plan;
mod private;
pub mod probe;
pub mod profile;
mod program;
mod protect;
mod reaper;
mod remedy;
mod repository;
mod seccomp;
mod show;
mod spare;
mod sys;
pub mod usage;
pub mod wire;

pub use fds::receive_one;
pub use guest::{Guest, GuestError, LaunchError};
pub use init::{Bounds, GuestContext, Relay, Serve, spawn_in_background};
pub use made::Made;
pub use plan::{Plan, PlanError};
pub use reaper::settle;
pub use show::{View, size};
pub use spare::Spare;
pub(crate) use sys::trim_memory;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use crate::environment::{Environment, Tier};
use disk::Place;
use guest::{Job, exec};
use packages::view::View as Packages;
use plan::Host;
use profile::Profile;
use spare::Basis;

/// Plans a sandbox for this environment on this host, with a session's disk or without one.
///
/// # Errors
/// An unknown profile, or a mount that cannot be had.
pub fn plan_for(environment: &Environment, disk: Option<&Place>) -> Result<Plan, PlanError> {
    plan_with(environment, disk, None).map(|(plan, _)| plan)
}

/// A plan, and the facts that it was made of.
fn plan_with(
    environment: &Environment,
    disk: Option<&Place>,
    packages: Option<&Packages>,
) -> Result<(Plan, Host), PlanError> {
    let profile = Profile::of(&environment.profile)?;
    let mut host = gather(&profile, environment, disk)?;
    host.packages = packages.cloned();
    Ok((plan::plan(&profile, environment, &host)?, host))
}

/// The files of the workspace that programs of the host obey, git's hooks among them. One that is there when a sandbox starts
/// cannot be changed; one that is made later can.
///
/// # Errors
/// An unknown profile, or a workspace that cannot be read.
pub fn obeyed(environment: &Environment) -> Result<Vec<PathBuf>, PlanError> {
    let profile = Profile::of(&environment.profile)?;
    let found =
        host::found(&profile, environment, None).map_err(|e| PlanError::Gather(e.to_string()))?;
    let frozen = |held: &protect::Held| {
        matches!(held.hold, protect::Hold::Freeze | protect::Hold::FreezeLink(_))
    };
    Ok(found.held.into_iter().filter(frozen).map(|held| held.path).collect())
}

/// Why an environment has no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It cannot be set up.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Starts a sandbox of the best tier that this machine gives and the environment accepts. What was refused on the way
/// down is among its layers. `packages` are those of the environment, `variables` are for its commands, besides the
/// profile's.
///
/// # Errors
/// If the machine gives none of them; the error is that of the best.
pub async fn launch(
    environment: &Environment,
    disk: &Place,
    packages: Option<&Packages>,
    variables: &[(String, String)],
) -> Result<Guest, SandboxError> {
    let start = async |basis: Basis| Guest::launch(&basis.plan).await;
    let (guest, refused) = best(environment, disk, packages, variables, start).await?;
    Ok(guest.with(packages).after(refused.as_ref()))
}

/// The same, ahead of need, for an environment without packages.
///
/// # Errors
/// As [`launch`].
pub async fn prepare(
    environment: &Environment,
    disk: &Place,
    variables: &[(String, String)],
) -> Result<Spare, SandboxError> {
    let (spare, refused) = best(environment, disk, None, variables, Spare::launch).await?;
    Ok(spare.after(refused.as_ref()))
}

/// What starts on the best tier, and what was refused on the way down to it.
async fn best<T>(
    environment: &Environment,
    disk: &Place,
    packages: Option<&Packages>,
    variables: &[(String, String)],
    start: impl AsyncFn(Basis) -> Result<T, LaunchError>,
) -> Result<(T, Option<LaunchError>), SandboxError> {
    let mut refused: Option<LaunchError> = None;
    for tier in environment.tiers() {
        let environment = Environment { tier, ..environment.clone() };
        let (mut plan, host) = plan_with(&environment, Some(disk), packages)?;
        plan.env.extend_from_slice(variables);
        match start(Basis { environment, variables: variables.to_vec(), host, plan }).await {
            Ok(started) => return Ok((started, refused)),
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    Err(refused.expect("an environment accepts at least one tier").into())
}

/// Runs one command in a sandbox of the best tier that this machine gives and the environment accepts, with this process's
/// standard streams; its exit code, as a shell counts. Blocks. Where it has a network, `door` is given the socket on which
/// it asks for connections, before the command begins. Also what the command made under protected names.
///
/// # Errors
/// As [`launch`].
pub fn run_command(
    environment: &Environment,
    argv: &[String],
    packages: Option<&Packages>,
    variables: &[(String, String)],
    door: &mut dyn FnMut(OwnedFd),
) -> Result<(u8, Vec<Made>), SandboxError> {
    let mut refused: Option<LaunchError> = None;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    for tier in environment.tiers() {
        let environment = Environment { tier, ..environment.clone() };
        let (mut plan, _) = plan_with(&environment, None, packages)?;
        plan.env.extend_from_slice(variables);
        let held = plan.held.clone();
        let job = Job { argv: argv.to_vec(), streams, door: &mut *door, watch: None };
        match exec(plan, job) {
            // A workspace that cannot be read any more has nothing that is obeyed.
            Ok(code) if tier == Tier::Full => {
                let code = code.expect("nobody watches it");
                return Ok((code, made::look(&environment, &held).unwrap_or_default()));
            }
            Ok(code) => return Ok((code.expect("nobody watches it"), Vec::new())),
            Err(e) if e.stage == guest::COMMAND_STAGE => return Err(e.into()),
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    Err(refused.expect("an environment accepts at least one tier").into())
}

/// What a sandbox for this environment would be, for people and scripts.
///
/// # Errors
/// As [`plan_for`].
pub fn view_of(environment: &Environment) -> Result<View, PlanError> {
    let profile = Profile::of(&environment.profile)?;
    let plan = plan::plan(&profile, environment, &gather(&profile, environment, None)?)?;
    let view = View::of(&profile, plan);
    Ok(if environment.tier == Tier::Full { view.with_door(probe::door()) } else { view })
}

fn gather(
    profile: &Profile,
    environment: &Environment,
    disk: Option<&Place>,
) -> Result<Host, PlanError> {
    Host::gather(profile, environment, disk).map_err(|e| PlanError::Gather(e.to_string()))
}
