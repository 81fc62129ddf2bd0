//! The birth of a guest with namespaces: the outer process makes them, takes hold of what the order names while the host's
//! paths can be reached, then waits for the guest and dies with it. The guest, pid 1 inside, makes a blank root, leaves the
//! host's (see `mounts`), and puts in what was taken.
//!
//! Little of this depends on an order. A guest that is forked ahead has its namespaces and its blank root when that comes, and
//! its outer process takes what the order names and hands it over:
//!
//! ```text
//! launcher ── order ──▶ outer ── order, mounts as descriptors ──▶ guest
//! ```
//!
//! An ordinary user is himself in every sandbox. Root becomes another user with each order: its guest ahead has an empty map
//! until then, is nobody inside and a user without a name outside, whose share of the kernel's tables is the session's; the
//! outer process, which stays outside of the user namespace, writes the map. For root the network is made before the user namespace, and belongs to the host's, so that
//! a session has no rights in it; one that leads to the host is set up from inside, and made with the order. A birth ahead
//! that fails before it is ready ends, and the launch that would have had it does the same by itself, and says what failed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::init::{
    Failure, Refused, Supplemented, Task, at, failed, give_up_root, put, supplement,
};
use super::launcher::Start;
use super::mounts::{self, Blank, Shape, Taken};
use super::network::Network;
use super::owner::{OwnerMap, Owners};
use super::plan::{INSIDE_UID, Order, Plan};
use super::{cgroup, fds, host, sys, wire};

/// What became of this process.
pub(super) enum Birth {
    /// It was the outer one, and its guest is gone: the exit code.
    Over(i32),
    /// It is the guest.
    Guest(Box<Newborn>),
}

/// A guest, its task, and everything that it will get from the host for it.
pub(super) struct Newborn {
    pub(super) task: Task,
    pub(super) equipment: Equipment,
}

/// What a guest is born with.
pub(super) struct Equipment {
    pub(super) blank: Blank,
    pub(super) taken: Taken,
    /// What it was started from, as a layer.
    pub(super) program: String,
    /// Who counts memory, as a layer.
    pub(super) memory: String,
    /// Where the kernel counts.
    pub(super) group: Option<Group>,
    /// The name of the host's network.
    pub(super) host_network: PathBuf,
    /// Whether its network belongs to its own user namespace.
    pub(super) rules_network: bool,
}

/// The control group of a guest, which is on its way into it.
pub(super) struct Group {
    /// Gives one byte when the guest is in it, and ends.
    pub(super) news: UnixStream,
    /// Counts what was killed for want of memory.
    pub(super) events: OwnedFd,
}

/// The namespaces besides that of users.
const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// The process that waits for a guest.
struct Outer {
    guest: Pid,
    group: Option<cgroup::Open>,
    /// Tells the guest when it is in its group.
    teller: UnixStream,
    owners: Owners,
}

/// One of the two processes.
enum Part {
    Outer(Outer),
    Guest(Equipment),
}

/// Becomes a guest for a task, or the process that waits for it.
pub(super) fn begin(task: Task) -> Result<Birth, Refused> {
    match split(&task) {
        Ok(Part::Outer(outer)) => {
            // The guest alone is to hold what the host has given.
            drop(task);
            Ok(Birth::Over(outer.wait()))
        }
        Ok(Part::Guest(equipment)) => Ok(Birth::Guest(Box::new(Newborn { task, equipment }))),
        Err(failure) => Err(Refused { failure, socket: Some(task.socket) }),
    }
}

fn split(task: &Task) -> Result<Part, Failure> {
    let plan = &task.order.plan;
    let host_network = name_of_network()?;
    let rules_network = !plan.from_root || plan.network == Network::Door;
    let (mut owners, mut taken) = (Owners::begin(plan, None)?, None);
    if plan.from_root {
        taken = Some(mounts::take(plan, &mut |mount| owners.of(plan, mount))?);
    }
    let Supplemented { program, memory, group } = supplement(&task.socket)?;
    let mut missing = ALL;
    if !rules_network {
        own_network()?;
        missing.remove(CloneFlags::CLONE_NEWNET);
    }
    if plan.from_root {
        give_up_root(plan.uid, plan.gid)?;
    }
    enter_user_namespace(plan.uid, plan.gid)?;
    namespaces(missing)?;
    let (news, teller) = pair("control group")?;
    if let Some(guest) = fork()? {
        return Ok(Part::Outer(Outer { guest, group, teller, owners }));
    }
    drop(teller);
    live_with_parent()?;
    if rules_network {
        sys::loopback_up().map_err(|e| failed("network namespace", e))?;
    }
    let taken = taken.map_or_else(|| mounts::take(plan, &mut |_| Ok(None)), Ok)?;
    let blank = make_blank(None, &Shape::of(plan))?;
    blank.prepare(plan)?;
    let group = group.map(|group| Group { news, events: group.events.into() });
    Ok(Part::Guest(Equipment { blank, taken, program, memory, group, host_network, rules_network }))
}

impl Outer {
    /// Puts the guest into its control group, then holds nothing, waits, and ends as its guest did.
    fn wait(self) -> i32 {
        let Self { guest, group, mut teller, owners } = self;
        if let Some(mut group) = group
            && group.take_in(guest.as_raw()).is_ok()
        {
            // A guest that is gone needs no news.
            drop(teller.write_all(&[1]));
        }
        drop(teller);
        let ended = owners.end();
        loop {
            match waitpid(guest, None) {
                Ok(WaitStatus::Exited(_, code)) if ended.is_ok() => return code,
                Ok(_) => return 1,
                Err(nix::Error::EINTR) => {}
                Err(_) => return 1,
            }
        }
    }
}

/// Does what no order changes, and waits for one from the launcher. A failure before it comes is for nobody.
pub(super) fn begin_ahead(launcher: UnixStream) -> Result<Birth, Refused> {
    match split_ahead().map_err(mute)? {
        AheadPart::Outer(early) => early.serve(&launcher),
        AheadPart::Guest(unborn) => {
            drop(launcher);
            unborn.grow().map(|newborn| Birth::Guest(Box::new(newborn)))
        }
    }
}

fn mute(failure: Failure) -> Refused {
    Refused { failure, socket: None }
}

enum AheadPart {
    Outer(EarlyOuter),
    Guest(Unborn),
}

/// The outer process of a guest that was forked ahead.
struct EarlyOuter {
    guest: Pid,
    /// To the guest.
    way: UnixStream,
    /// For root: what will show the owner of a workspace.
    map: Option<OwnerMap>,
}

/// A guest that was forked ahead.
struct Unborn {
    /// To the outer process.
    way: UnixStream,
    /// The memory for its root, if that was made outside of its user namespace.
    memory: Option<OwnedFd>,
    host_network: PathBuf,
}

fn split_ahead() -> Result<AheadPart, Failure> {
    let host_network = name_of_network()?;
    let (ours, way) = pair("start")?;
    let unborn = |way, memory| Unborn { way, memory, host_network };
    if !host::is_root() {
        enter_user_namespace(geteuid().as_raw(), getegid().as_raw())?;
        own_network()?;
        // The mounts are to be the host's of the moment of the order: this process has its own then, the guest now.
        namespaces(ALL.difference(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS))?;
        return match fork()? {
            Some(guest) => Ok(AheadPart::Outer(EarlyOuter { guest, way: ours, map: None })),
            None => {
                namespaces(CloneFlags::CLONE_NEWNS)?;
                Ok(AheadPart::Guest(unborn(way, None)))
            }
        };
    }
    let nobody = host::session_uid();
    let map = Some(OwnerMap::begin(Path::new("/"))?);
    own_network()?;
    let memory = Some(mounts::memory_of_root(nobody)?);
    // Whoever makes the user namespace is in it: a process that is gone when it has started the guest there.
    sys::adopt_orphans().map_err(|e| failed("process", e))?;
    let (mut number, mut tells_number) = pair("start")?;
    let Some(maker) = fork()? else {
        drop((ours, number, map));
        give_up_root(nobody, nobody)?;
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| failed("user namespace", e))?;
        namespaces(ALL.difference(CloneFlags::CLONE_NEWNET))?;
        return match fork()? {
            None => Ok(AheadPart::Guest(unborn(way, memory))),
            Some(guest) => {
                let told = tells_number.write_all(&guest.as_raw().to_ne_bytes());
                sys::leave_with(u8::from(told.is_err()))
            }
        };
    };
    drop(tells_number);
    let mut guest = [0; 4];
    number.read_exact(&mut guest).map_err(|e| failed("process namespace", e))?;
    waitpid(maker, None).map_err(|e| failed("process namespace", e))?;
    let guest = Pid::from_raw(i32::from_ne_bytes(guest));
    Ok(AheadPart::Outer(EarlyOuter { guest, way: ours, map }))
}

/// Why an order could not be carried out.
enum Trouble {
    Failed(Failure),
    /// The other side is gone, and has said why if it could.
    Alone,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Trouble {
    fn refuse(self, socket: UnixStream) -> Refused {
        match self {
            Self::Failed(failure) => Refused { failure, socket: Some(socket) },
            Self::Alone => lost(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn alone(_: io::Error) -> Trouble {
    Trouble::Alone
}

fn lost(error: io::Error) -> Refused {
    mute(failed("start", error))
}

/// What the guest is told besides the mounts.
#[derive(Serialize, Deserialize)]
struct Words {
    program: String,
    memory: String,
    counted: bool,
}

impl EarlyOuter {
    /// Says that all is ready, waits for the order, and carries it out.
    fn serve(mut self, mut launcher: &UnixStream) -> Result<Birth, Refused> {
        if self.way.read_exact(&mut [0]).is_err() {
            return Ok(Birth::Over(1));
        }
        launcher.write_all(&[0]).map_err(lost)?;
        let Some((kind, start)) = Start::receive(launcher).map_err(lost)? else {
            return Ok(Birth::Over(0));
        };
        start.send(&self.way, kind).map_err(lost)?;
        let mut socket = UnixStream::from(start.socket);
        let frame = wire::read_bytes(&mut socket).and_then(|frame| {
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.way.write_all(&frame)?;
            Ok(frame)
        });
        let order = wire::read_frame::<Order>(&mut &frame.map_err(lost)?[..]).map_err(lost)?;
        let plan = order.expect("it was read whole").plan;
        match self.hand_over(&plan, &socket) {
            Ok(outer) => {
                // The guest alone is to hold it.
                drop(socket);
                Ok(Birth::Over(outer.wait()))
            }
            Err(trouble) => Err(trouble.refuse(socket)),
        }
    }

    fn hand_over(self, plan: &Plan, socket: &UnixStream) -> Result<Outer, Trouble> {
        let Self { guest, mut way, map } = self;
        let mut owners = Owners::begin(plan, map)?;
        if !plan.from_root {
            // A copy of the host's, of which this user may take some.
            namespaces(CloneFlags::CLONE_NEWNS)?;
        }
        // While the guest still lets others look at it.
        let mounts = mounts_of(guest)?;
        let taken = mounts::take(plan, &mut |mount| owners.of(plan, mount))?;
        for batch in taken.descriptors().chunks(fds::MOST) {
            fds::send(&way, &[0], batch).map_err(alone)?;
        }
        drop(taken);
        let Supplemented { program, memory, group } = supplement(socket)?;
        if plan.from_root {
            map_users(&guest.to_string(), plan.uid, plan.gid)?;
            enter(&mounts)?;
            give_up_root(plan.uid, plan.gid)?;
        }
        // The last word: after it, the guest alone speaks to the host.
        let words = Words { program, memory, counted: group.is_some() };
        wire::write_frame(&mut way, &words).map_err(alone)?;
        if let Some(group) = &group {
            fds::send(&way, &[0], &[group.events.as_fd()]).map_err(alone)?;
        }
        if !plan.from_root {
            // The copy goes with it, which takes the kernel long. Should it fail, the guest dies with this process.
            enter(&mounts).map_err(|_| Trouble::Alone)?;
        }
        Ok(Outer { guest, group, teller: way, owners })
    }
}

impl Unborn {
    /// Makes its root, says that it is ready, and becomes what the order says.
    fn grow(mut self) -> Result<Newborn, Refused> {
        let blank = make_blank(self.memory.take(), Shape::usual()).map_err(mute)?;
        let task = self.wait_for_task().map_err(lost)?;
        match self.take_over(&task.order.plan, blank) {
            Ok(equipment) => Ok(Newborn { task, equipment }),
            Err(trouble) => Err(trouble.refuse(task.socket)),
        }
    }

    fn wait_for_task(&mut self) -> io::Result<Task> {
        self.way.write_all(&[0])?;
        let (_, start) = Start::receive(&self.way)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let order = wire::read_frame(&mut self.way)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Task::new(order, start.socket.into(), start.asks, Vec::new())
    }

    /// Gets ready for what is taken meanwhile, takes it over, and becomes the session's user.
    fn take_over(mut self, plan: &Plan, blank: Blank) -> Result<Equipment, Trouble> {
        blank.prepare(plan)?;
        let taken = Taken::receive(plan, &self.way).map_err(alone)?;
        let words = wire::read_frame(&mut self.way).map_err(alone)?;
        let Words { program, memory, counted } = words.ok_or(Trouble::Alone)?;
        let events = counted.then(|| fds::receive_one(&self.way)).transpose().map_err(alone)?;
        if plan.from_root {
            let (uid, gid) = (Uid::from_raw(INSIDE_UID), Gid::from_raw(INSIDE_UID));
            let changed = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
            changed.map_err(|e| failed("session user", e))?;
        }
        // Not before: it would be another parent, or forgotten with the change of users.
        live_with_parent()?;
        let group = events.map(|events| Group { news: self.way, events });
        let (host_network, rules_network) = (self.host_network, !plan.from_root);
        Ok(Equipment { blank, taken, program, memory, group, host_network, rules_network })
    }
}

/// The mounts of a guest.
fn mounts_of(guest: Pid) -> Result<File, Failure> {
    File::open(format!("/proc/{guest}/ns/mnt")).map_err(|e| failed("namespaces", e))
}

/// Leaves the host's mounts, or a copy of them that would keep each of them in use, for others.
fn enter(mounts: &File) -> Result<(), Failure> {
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(|e| failed("namespaces", e))
}

/// A blank root in a sandbox that has its names.
fn make_blank(memory: Option<OwnedFd>, shape: &Shape) -> Result<Blank, Failure> {
    nix::unistd::sethostname("box").map_err(|e| failed("host name", e))?;
    Blank::make(memory, shape)
}

fn namespaces(wanted: CloneFlags) -> Result<(), Failure> {
    unshare(wanted).map_err(|e| failed("namespaces", e))
}

fn own_network() -> Result<(), Failure> {
    namespaces(CloneFlags::CLONE_NEWNET)?;
    sys::loopback_up().map_err(|e| failed("network namespace", e))
}

/// The name of the network that this process is in.
fn name_of_network() -> Result<PathBuf, Failure> {
    let name = std::fs::read_link("/proc/self/ns/net");
    name.map_err(|e| failed("network namespace", e))
}

/// Makes a user namespace in which this user is the session's.
fn enter_user_namespace(uid: u32, gid: u32) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| failed("user namespace", e))?;
    map_users("self", uid, gid)
}

/// Gives the session's user of a process's namespace a user of the host's.
fn map_users(process: &str, uid: u32, gid: u32) -> Result<(), Failure> {
    let map = |name: &'static str, text: String| {
        put(format!("/proc/{process}/{name}"), &text).map_err(|e| at("user namespace", &name, &e))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{INSIDE_UID} {uid} 1"))?;
    map("gid_map", format!("{INSIDE_UID} {gid} 1"))
}

fn pair(stage: &'static str) -> Result<(UnixStream, UnixStream), Failure> {
    UnixStream::pair().map_err(|e| failed(stage, e))
}

fn fork() -> Result<Option<Pid>, Failure> {
    sys::fork().map_err(|e| failed("process namespace", e))
}

fn live_with_parent() -> Result<(), Failure> {
    sys::die_with_parent().map_err(|e| failed("process namespace", e))
}
