//! The second lock on files: even if a mount were wrong, a process may touch only what the plan shows.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::plan::Plan;
use crate::environment::{Access, Tier};

/// The newest ABI that the rules below know; older kernels enforce what they have.
const NEWEST: ABI = ABI::V6;

/// Puts this process and all that it will start under the plan's rules. Returns what is in force.
pub(super) fn restrict(plan: &Plan, private: &[&Path]) -> Result<String, String> {
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    let all = AccessFs::from_all(NEWEST);
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
    let read = AccessFs::from_read(NEWEST);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    ruleset = ruleset.handle_access(all).map_err(|e| failed(&e))?;
    ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(|e| failed(&e))?;
    if plan.tier == Tier::Landlock {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(|e| failed(&e))?;
    }
    let mut created = ruleset.create().map_err(|e| failed(&e))?;
    let mut allow = |path: &Path, access| -> Result<(), String> {
        // What is not there needs no rule.
        let Ok(fd) = PathFd::new(path) else { return Ok(()) };
        let rules = std::mem::replace(
            &mut created,
            Ruleset::default()
                .handle_access(all)
                .and_then(Ruleset::create)
                .map_err(|e| failed(&e))?,
        );
        created = rules.add_rule(PathBeneath::new(fd, access)).map_err(|e| failed(&e))?;
        Ok(())
    };
    let changeable = all & !devices;
    match plan.tier {
        // The mounts decide what can be changed; these rules hold if one of them is wrong.
        Tier::Full => {
            allow(Path::new("/"), read)?;
            allow(
                Path::new("/dev"),
                AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev,
            )?;
            allow(
                Path::new("/proc"),
                AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile,
            )?;
            for (path, _) in &plan.tmpfs {
                allow(path, changeable)?;
            }
        }
        Tier::Landlock | Tier::None => {
            for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
                allow(Path::new(device), AccessFs::ReadFile | AccessFs::WriteFile)?;
            }
            for own in ["/proc/self", "/proc/stat", "/proc/cpuinfo", "/proc/meminfo"] {
                allow(Path::new(own), AccessFs::ReadFile | AccessFs::ReadDir)?;
            }
        }
    }
    for mount in &plan.mounts {
        let access = match mount.access {
            Access::ReadOnly => read,
            Access::ReadWrite => changeable,
        };
        allow(if plan.tier == Tier::Full { &mount.target } else { &mount.source }, access)?;
    }
    for path in private {
        allow(path, changeable)?;
    }
    let status = created.restrict_self().map_err(|e| failed(&e))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
        RulesetStatus::FullyEnforced => Ok("landlock".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("landlock (an older ABI)".to_owned()),
    }
}
