//! The only door to the kernel: sandboxes, from the plan to the running guest.
//!
//! Owns: profiles, plans, the set-up of a sandbox layer by layer, the frames between host and guest, the guest's life.
//! Does not: know what runs in a sandbox (`main` joins it with the tools), sessions, models or the store.
//! Invariants: a sandbox has every layer that its tier promises, or there is none; nothing inside is host root; what comes
//! out of a guest is bounded, strictly decoded and never obeyed; unsafe code is in `sys.rs` alone.
//! How to add a layer: a stage in `init.rs` with a name, its line in the self-test, its remedy, a probe that only it stops.

pub mod disk;
mod exec;
mod guest;
mod host;
pub mod init;
mod landlock;
mod mounts;
pub mod plan;
pub mod probe;
pub mod profile;
mod remedy;
mod seccomp;
mod sys;
pub mod wire;

pub use guest::{Guest, GuestError, LaunchError, exec};
pub use init::{GuestContext, Serve};
pub use plan::{Plan, PlanError};

use crate::environment::Environment;

/// Plans a sandbox for this environment on this host.
///
/// # Errors
/// An unknown profile, or a mount that cannot be had.
pub fn plan_for(environment: &Environment) -> Result<Plan, PlanError> {
    let profile = profile::Profile::named(&environment.profile)?;
    plan::plan(&profile, environment, &plan::Host::gather(&profile))
}
