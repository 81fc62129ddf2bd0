//! The second lock on files: even if a mount were wrong, a process may touch only what the plan shows.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

use super::plan::{Mount, Plan};
use super::sys;
use crate::environment::{Access, Tier};

/// The newest ABI whose rights the grants below know; older kernels enforce what they have, newer ones no more.
const NEWEST: ABI = ABI::V7;

/// What is allowed below a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Inside; a path that is not there needs no grant.
    pub path: PathBuf,
    /// What.
    pub rights: Rights,
}

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// To read, list and start.
    Look,
    /// To read and list.
    Read,
    /// To read, list and write files that are there.
    Fill,
    /// As `Fill`, and the requests of devices.
    Device,
    /// Everything but making devices and asking things of them.
    Change,
}

impl Rights {
    fn access(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Look => AccessFs::from_read(NEWEST),
            Self::Read => read,
            Self::Fill => read | AccessFs::WriteFile,
            Self::Device => read | AccessFs::WriteFile | AccessFs::IoctlDev,
            Self::Change => {
                AccessFs::from_all(NEWEST)
                    & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
            }
        }
    }
}

/// The grants of a plan with these mounts. Pure.
pub(super) fn grants(tier: Tier, mounts: &[Mount], tmpfs: &[(PathBuf, u32)]) -> Vec<Grant> {
    let grant = |path: &Path, rights| Grant { path: path.to_owned(), rights };
    let mut grants = Vec::new();
    match tier {
        Tier::None => return grants,
        // The mounts decide what can be changed; these rules hold if one of them is wrong.
        Tier::Full => {
            grants.push(grant(Path::new("/"), Rights::Look));
            grants.push(grant(Path::new("/dev"), Rights::Device));
            grants.push(grant(Path::new("/proc"), Rights::Fill));
            grants.extend(tmpfs.iter().map(|(path, _)| grant(path, Rights::Change)));
        }
        Tier::Landlock => {
            for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
                grants.push(grant(Path::new(device), Rights::Fill));
            }
            for own in ["/proc/self", "/proc/stat", "/proc/cpuinfo", "/proc/meminfo"] {
                grants.push(grant(Path::new(own), Rights::Read));
            }
        }
    }
    for mount in mounts {
        let rights = match mount.access {
            // The grant of the root holds for it.
            Access::ReadOnly if tier == Tier::Full => continue,
            Access::ReadOnly => Rights::Look,
            Access::ReadWrite => Rights::Change,
        };
        grants.push(grant(if tier == Tier::Full { &mount.target } else { &mount.source }, rights));
    }
    grants
}

/// Puts this process and all that it will start under the plan's grants; `looked_in` is a tree that lies nowhere. Returns what
/// is in force.
pub(super) fn restrict(
    plan: &Plan,
    private: &[&Path],
    looked_in: Option<BorrowedFd<'_>>,
) -> Result<String, String> {
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    let abi = sys::landlock_abi().map_err(|_| "this kernel has no Landlock".to_owned())?;
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    ruleset = ruleset.handle_access(AccessFs::from_all(NEWEST)).map_err(|e| failed(&e))?;
    ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(|e| failed(&e))?;
    if plan.tier == Tier::Landlock {
        // There is no network namespace: no port may be bound or reached.
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(|e| failed(&e))?;
    }
    let mut created = ruleset.create().map_err(|e| failed(&e))?;
    let private = private.iter().map(|path| (*path, Rights::Change));
    for (path, rights) in
        plan.landlock.iter().map(|grant| (grant.path.as_path(), grant.rights)).chain(private)
    {
        // What is not there needs no rule.
        let Ok(fd) = PathFd::new(path) else { continue };
        created =
            created.add_rule(PathBeneath::new(fd, rights.access())).map_err(|e| failed(&e))?;
    }
    if let Some(tree) = looked_in {
        let rule = PathBeneath::new(tree, Rights::Read.access());
        created = created.add_rule(rule).map_err(|e| failed(&e))?;
    }
    let status = created.restrict_self().map_err(|e| failed(&e))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            Ok(format!("landlock (ABI {abi}{})", lacking(abi)))
        }
    }
}

/// What a kernel of that ABI cannot restrict.
pub(super) fn lacking(abi: i64) -> &'static str {
    match abi {
        ..=1 => "; without moves between directories, truncation, ports, device requests, signals",
        2 => "; without truncation, ports, device requests, signals",
        3 => "; without ports, device requests, signals",
        4 => "; without device requests, signals",
        5 => "; without signals",
        _ => "",
    }
}
