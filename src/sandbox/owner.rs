//! The owner of a workspace, shown as the session's user where root has given itself up: a user namespace with one mapping,
//! which a mount is given.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::init::{Failure, at, failed, put};
use super::mounts;
use super::plan::{Mount, Plan};
use super::sys;

const STAGE: &str = "workspace owner";

/// A user namespace in the making, whose only mapping will show the owner of a directory as another user of the host. A
/// process holds it until it is mapped.
pub(super) struct OwnerMap {
    holder: Pid,
    /// The process ends when this is closed.
    _held: UnixStream,
}

impl OwnerMap {
    /// Starts the process. `source` is what it is for.
    pub(super) fn begin(source: &Path) -> Result<Self, Failure> {
        let fail = |e: io::Error| at(STAGE, &source.display(), &e);
        let (held, theirs) = UnixStream::pair().map_err(fail)?;
        let holder = sys::hold_user_namespace(theirs.as_fd());
        let holder = holder.map_err(|e| failed("user namespace", e))?;
        Ok(Self { holder, _held: held })
    }

    /// The namespace, and the process that ends now and is to be waited for.
    pub(super) fn finish(
        self,
        source: &Path,
        (uid, gid): (u32, u32),
        (outside_uid, outside_gid): (u32, u32),
    ) -> Result<(OwnedFd, Pid), Failure> {
        let fail = |e: io::Error| at(STAGE, &source.display(), &e);
        let place = format!("/proc/{}", self.holder);
        let map = |name: &str, inside: u32, outside: u32| {
            put(format!("{place}/{name}"), &format!("{inside} {outside} 1")).map_err(fail)
        };
        map("uid_map", uid, outside_uid)?;
        map("gid_map", gid, outside_gid)?;
        let namespace = File::open(format!("{place}/ns/user")).map_err(fail)?;
        Ok((namespace.into(), self.holder))
    }
}

/// The maps of one launch.
pub(super) struct Owners {
    /// The first that will be needed, begun before anything is taken: it gets ready meanwhile.
    first: Option<OwnerMap>,
    /// Processes that end and are to be waited for.
    holders: Vec<Pid>,
}

impl Owners {
    /// With one that was begun ahead; else with what the plan's workspace will need.
    pub(super) fn begin(plan: &Plan, ahead: Option<OwnerMap>) -> Result<Self, Failure> {
        let holders = Vec::new();
        if ahead.is_some() {
            return Ok(Self { first: ahead, holders });
        }
        let workspace = plan.mounts.iter().find(|mount| mount.target == plan.workspace);
        // One that cannot be looked at is refused when it is taken.
        let owner = workspace.and_then(|mount| mounts::owner(mount).ok());
        let needed = plan.from_root && owner.is_some_and(|owner| owner != (plan.uid, plan.gid));
        let first = needed.then(|| OwnerMap::begin(&plan.workspace)).transpose()?;
        Ok(Self { first, holders })
    }

    /// What shows a mount's owner as the session's user, unless it is.
    pub(super) fn of(&mut self, plan: &Plan, mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
        if !plan.from_root {
            return Ok(None);
        }
        let owner = mounts::owner(mount);
        let owner = owner.map_err(|e| at(STAGE, &mount.source.display(), &e))?;
        if owner == (plan.uid, plan.gid) {
            return Ok(None);
        }
        let map = self.first.take().map_or_else(|| OwnerMap::begin(&mount.source), Ok)?;
        let (namespace, holder) = map.finish(&mount.source, owner, (plan.uid, plan.gid))?;
        self.holders.push(holder);
        Ok(Some(namespace))
    }

    /// Waits until the processes have ended.
    pub(super) fn end(self) -> io::Result<()> {
        let unused = self.first.map(|map| map.holder);
        let mut all = self.holders.into_iter().chain(unused);
        all.try_for_each(|holder| Ok(waitpid(holder, None).map(drop)?))
    }
}
