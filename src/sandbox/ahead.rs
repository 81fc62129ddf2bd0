//! The namespaces of a guest, and what of them is made ahead: they depend little on its order, and the network alone takes the
//! kernel longer than all others together.
//!
//! An ordinary user is himself in every sandbox, so his user namespace is made, and in it all but those of mounts and
//! processes: the mounts are to be the host's of the moment. Root becomes another user with each order, so his network is
//! made before that, and belongs to the host's user namespace, in which a session has no rights at all; one that
//! leads to the host is set up from inside, and made with the rest. A guest that fails here ends, and the launch that
//! would have had it does the same by itself, and says what failed.

use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::init::{Failure, OwnerMap, at, failed, put};
use super::network::Network;
use super::plan::{INSIDE_UID, Plan};
use super::sys;

/// What was done before the order came.
pub(super) struct Ahead {
    /// The name of the host's network.
    pub(super) host_network: PathBuf,
    /// For root: what the owner of a workspace may be mapped by.
    pub(super) owner_map: Option<OwnerMap>,
    /// The namespaces that this process has of its own.
    made: CloneFlags,
}

/// The namespaces besides that of users.
const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

impl Ahead {
    /// What is of use for a plan that is known already.
    pub(super) fn make_for(plan: &Plan) -> Result<Self, Failure> {
        if plan.from_root && plan.network == Network::Door { Self::nothing() } else { Self::make() }
    }

    fn nothing() -> Result<Self, Failure> {
        let host_network = std::fs::read_link("/proc/self/ns/net");
        let host_network = host_network.map_err(|e| failed("network namespace", e))?;
        Ok(Self { host_network, owner_map: None, made: CloneFlags::empty() })
    }

    /// All of it.
    pub(super) fn make() -> Result<Self, Failure> {
        let mut ahead = Self::nothing()?;
        let made = if geteuid().is_root() {
            ahead.owner_map = Some(OwnerMap::begin(Path::new("/"))?);
            CloneFlags::CLONE_NEWNET
        } else {
            enter_user_namespace(geteuid().as_raw(), getegid().as_raw())?;
            ahead.made = CloneFlags::CLONE_NEWUSER;
            ALL.difference(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        };
        unshare(made).map_err(|e| failed("namespaces", e))?;
        ahead.made |= made;
        sys::loopback_up().map_err(|e| failed("network namespace", e))?;
        Ok(ahead)
    }

    /// The namespaces that the plan needs and that are not there yet.
    pub(super) fn complete(&self, plan: &Plan) -> Result<(), Failure> {
        if !self.made.contains(CloneFlags::CLONE_NEWUSER) {
            enter_user_namespace(plan.uid, plan.gid)?;
        }
        let mut missing = ALL.difference(self.made);
        missing.set(CloneFlags::CLONE_NEWNET, !self.has_network(plan));
        unshare(missing).map_err(|e| failed("namespaces", e))
    }

    /// The names and the network of the sandbox. Called in its first process.
    pub(super) fn set_names(&self, plan: &Plan) -> Result<(), Failure> {
        nix::unistd::sethostname("box").map_err(|e| failed("host name", e))?;
        if self.has_network(plan) {
            return Ok(());
        }
        sys::loopback_up().map_err(|e| failed("network namespace", e))
    }

    /// Whether the network that was made ahead is one for the plan.
    fn has_network(&self, plan: &Plan) -> bool {
        let rights = self.made.contains(CloneFlags::CLONE_NEWUSER);
        self.made.contains(CloneFlags::CLONE_NEWNET)
            && (rights || plan.network == Network::Isolated)
    }
}

/// Makes a user namespace in which this user is the session's.
fn enter_user_namespace(uid: u32, gid: u32) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| failed("user namespace", e))?;
    let map = |name: &'static str, text: String| {
        put(&format!("/proc/self/{name}"), &text).map_err(|e| at("user namespace", &name, &e))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{INSIDE_UID} {uid} 1"))?;
    map("gid_map", format!("{INSIDE_UID} {gid} 1"))
}
