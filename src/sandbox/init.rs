//! The child's side: from a fresh, single-threaded exec of this program to a process that holds nothing of the host.
//!
//! ```text
//! host ── spawn ──▶ outer: read the plan, (root: take mounts, become the session's user), namespaces, fork
//!                     │                        waits for the guest, dies with it
//!                     └─▶ guest (pid 1): mounts, pivot, limits, capabilities, Landlock, seccomp, self-test, Ready
//! ```

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource as Rlimit, setrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::mounts::{self, Tree};
use super::network::{self, Inside, Network, Opened};
use super::plan::{INSIDE_UID, Mount, Plan, Role};
use super::profile::Resource;
use super::wire::{self, FromGuest};
use super::{exec, landlock, sys};
use crate::environment::Tier;

/// The name that this program is started under when it is to become a guest.
pub const GUEST_NAME: &str = "casemate-guest";

/// What the guest's work needs to know of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestContext {
    /// The directory to work in.
    pub workspace: PathBuf,
    /// The session's home.
    pub home: PathBuf,
    /// A private directory for outputs that are too long to send.
    pub spool: PathBuf,
    /// The environment of every command.
    pub env: Vec<(String, String)>,
}

/// The guest's work after set-up: serves the socket until it closes, and returns the exit code.
pub type Serve = fn(UnixStream, &GuestContext) -> i32;

/// The guest's other work, where it has a network: starts the threads that lead connections to the host, and returns.
pub type Relay = fn(Inside) -> io::Result<()>;

/// A stage of the set-up that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: &'static str,
    pub(super) reason: String,
    pub(super) errno: i32,
}

/// A failure at a stage, on a thing.
pub(super) fn at(stage: &'static str, thing: &dyn std::fmt::Display, error: &io::Error) -> Failure {
    let reason = format!("{thing}: {error}");
    Failure { stage, reason, errno: error.raw_os_error().unwrap_or(0) }
}

fn failed(stage: &'static str, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    Failure { stage, reason: error.to_string(), errno: error.raw_os_error().unwrap_or(0) }
}

/// Becomes a guest if this process was started as one; `None` for every other start. Must be called before any thread
/// exists.
#[must_use]
pub fn enter(serve: Serve, relay: Relay) -> Option<ExitCode> {
    let name = std::env::args_os().next()?;
    if name != GUEST_NAME {
        return None;
    }
    let code = run(serve, relay);
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn run(serve: Serve, relay: Relay) -> i32 {
    let Ok((mut socket, plan, handed)) = receive() else { return 1 };
    match set_up(&plan, &socket, handed) {
        Ok(Place::Outer(code)) => code,
        Ok(Place::Guest { layers, context, streams, inside }) => {
            let ready = FromGuest::Ready { version: wire::VERSION, layers };
            if wire::write_frame(&mut socket, &ready).is_err() {
                return 1;
            }
            match &plan.role {
                Role::Tools => match inside.map_or(Ok(()), |inside| relay(*inside)) {
                    Ok(()) => serve(socket, &context),
                    Err(_) => 1,
                },
                Role::Exec(argv) => {
                    // Threads may begin only after the command was forked.
                    let forked = || inside.map_or(Ok(()), |inside| relay(*inside));
                    exec::supervise(&mut socket, argv, &context, streams, forked)
                }
            }
        }
        Err(Failure { stage, reason, errno }) => {
            let failed = FromGuest::Failed { stage: stage.to_owned(), reason, errno };
            i32::from(wire::write_frame(&mut socket, &failed).is_err()) + 1
        }
    }
}

/// What the host hands over besides the control socket.
struct Handed {
    /// For a single command, the caller's streams.
    streams: Vec<OwnedFd>,
    /// Where there is a network, the way to ask for connections.
    asks: Option<OwnedFd>,
}

/// The socket that came as standard input, the plan, and what else was handed over.
fn receive() -> io::Result<(UnixStream, Plan, Handed)> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    let plan: Plan = wire::read_frame(&mut &socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let asks = match plan.network {
        Network::Isolated => None,
        Network::Door => Some(io::stdout().as_fd().try_clone_to_owned()?),
    };
    nix::unistd::dup2_stdout(&nothing)?;
    let streams = match plan.role {
        Role::Tools => Vec::new(),
        Role::Exec(_) => receive_streams(&socket)?,
    };
    Ok((socket, plan, Handed { streams, asks }))
}

fn receive_streams(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 3]);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut streams = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            streams.extend(sys::own(&fds));
        }
    }
    if streams.len() == 3 { Ok(streams) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Where this process ended up.
enum Place {
    /// The process that waited for the guest, which is gone: its exit code.
    Outer(i32),
    /// The guest.
    Guest {
        layers: Vec<String>,
        context: GuestContext,
        streams: Vec<OwnedFd>,
        inside: Option<Box<Inside>>,
    },
}

fn set_up(plan: &Plan, socket: &UnixStream, handed: Handed) -> Result<Place, Failure> {
    let mut kept = vec![socket.as_raw_fd()];
    kept.extend(handed.streams.iter().chain(&handed.asks).map(OwnedFd::as_raw_fd));
    sys::close_all_but(3, &kept).map_err(|e| failed("descriptors", e))?;
    if plan.role == Role::Tools {
        // A Ctrl-C at the terminal is for the host alone.
        nix::unistd::setsid().map_err(|e| failed("session", e))?;
    }
    match plan.tier {
        Tier::Full => full(plan, socket, handed),
        Tier::Landlock => unnamespaced(plan, handed.streams),
        Tier::None => {
            set_limits(plan)?;
            let context = host_context(plan)?;
            let layers = vec!["limits".to_owned()];
            Ok(Place::Guest { layers, context, streams: handed.streams, inside: None })
        }
    }
}

fn full(plan: &Plan, socket: &UnixStream, handed: Handed) -> Result<Place, Failure> {
    let own_network =
        std::fs::read_link("/proc/self/ns/net").map_err(|e| failed("network namespace", e))?;
    let mut trees = None;
    if plan.from_root {
        trees = Some(mounts::take(plan, &mut |mount| owner_map(plan, mount).map(Some))?);
        give_up_root(plan)?;
    }
    set_limits(plan)?;
    namespaces(plan)?;
    if let Some(guest) = sys::fork().map_err(|e| failed("process namespace", e))? {
        return Ok(Place::Outer(wait_for(guest, socket, handed)));
    }
    sys::die_with_parent().map_err(|e| failed("process namespace", e))?;
    let trees = match trees {
        Some(trees) => trees,
        None => mounts::take(plan, &mut |_| Ok(None))?,
    };
    set_names()?;
    let opened = handed.asks.map(network::open).transpose()?;
    // No user namespace below this one, whatever the filter says; /proc/sys is read-only after this.
    put("/proc/sys/user/max_user_namespaces", "0").map_err(|e| failed("user namespace", e))?;
    mounts::enter(plan, &trees)?;
    drop::<Vec<Tree>>(trees);
    let mut context = GuestContext {
        workspace: plan.workspace.clone(),
        home: plan.home.clone(),
        spool: PathBuf::from("/tmp/.casemate"),
        env: plan.env.clone(),
    };
    let mut layers: Vec<String> = ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|ns| format!("{ns} namespace"))
        .into();
    let inside = opened.map(|Opened { inside, layer, env }| {
        context.env.extend(env);
        layers.push(layer);
        Box::new(inside)
    });
    lock(plan, true, &[], &mut layers)?;
    self_test(plan, Some(&own_network))?;
    enter_workspace(&context)?;
    Ok(Place::Guest { layers, context, streams: handed.streams, inside })
}

/// Without namespaces: Landlock and the filter alone stand between the session and the host.
fn unnamespaced(plan: &Plan, streams: Vec<OwnedFd>) -> Result<Place, Failure> {
    let context = host_context(plan)?;
    if plan.from_root {
        for path in [&context.home, &context.spool] {
            std::os::unix::fs::chown(path, Some(plan.uid), Some(plan.gid))
                .map_err(|e| failed("home", e))?;
        }
        give_up_root(plan)?;
    }
    set_limits(plan)?;
    sys::adopt_orphans().map_err(|e| failed("orphans", e))?;
    let mut layers = Vec::new();
    lock(plan, false, &[&context.home], &mut layers)?;
    self_test(plan, None)?;
    enter_workspace(&context)?;
    Ok(Place::Guest { layers, context, streams, inside: None })
}

/// The layers that need no namespace, in the order in which each still permits the next.
fn lock(
    plan: &Plan,
    privileged: bool,
    private: &[&Path],
    layers: &mut Vec<String>,
) -> Result<(), Failure> {
    sys::drop_capabilities(privileged).map_err(|e| failed("capabilities", e))?;
    sys::no_new_privileges().map_err(|e| failed("no new privileges", e))?;
    sys::set_dumpable(false).map_err(|e| failed("dumpable", e))?;
    let landlock = landlock::restrict(plan, private);
    let landlock = landlock.map_err(|reason| Failure { stage: "landlock", reason, errno: 0 })?;
    for filter in &plan.filters {
        seccompiler::apply_filter(&filter.program()).map_err(|e| Failure {
            stage: "seccomp",
            reason: e.to_string(),
            errno: 0,
        })?;
    }
    layers.extend([
        "capabilities dropped".to_owned(),
        landlock,
        "seccomp".to_owned(),
        "limits".to_owned(),
    ]);
    Ok(())
}

/// A private directory on the host for tiers without a root of their own.
fn host_context(plan: &Plan) -> Result<GuestContext, Failure> {
    let template = std::env::temp_dir().join("casemate-XXXXXX");
    let home = nix::unistd::mkdtemp(&template).map_err(|e| failed("home", e))?;
    let spool = home.join("outputs");
    std::fs::create_dir(&spool).map_err(|e| failed("home", e))?;
    let mut env = plan.env.clone();
    env.retain(|(name, _)| name != "HOME" && name != "TMPDIR");
    env.push(("HOME".to_owned(), home.display().to_string()));
    env.push(("TMPDIR".to_owned(), home.display().to_string()));
    Ok(GuestContext { workspace: plan.workspace.clone(), home, spool, env })
}

/// A user namespace whose only mapping shows the mount's owner as the session's user.
fn owner_map(plan: &Plan, mount: &Mount) -> Result<OwnedFd, Failure> {
    const STAGE: &str = "workspace owner";
    let fail = |e: io::Error| at(STAGE, &mount.source.display(), &e);
    let (uid, gid) = mounts::owner(mount).map_err(fail)?;
    let (mut ours, mut theirs) = UnixStream::pair().map_err(fail)?;
    let Some(holder) = sys::fork().map_err(fail)? else {
        drop(ours);
        let made = unshare(CloneFlags::CLONE_NEWUSER).is_ok();
        let told = theirs.write_all(&[u8::from(made)]);
        // Holds the namespace until the other side has it.
        let held = theirs.read(&mut [0]);
        sys::leave(told.is_ok() && held.is_ok());
    };
    drop(theirs);
    let mut made = [0];
    ours.read_exact(&mut made).map_err(fail)?;
    let place = format!("/proc/{holder}");
    let map = |name: &str, inside: u32, outside: u32| {
        put(&format!("{place}/{name}"), &format!("{inside} {outside} 1")).map_err(fail)
    };
    map("uid_map", uid, plan.uid)?;
    map("gid_map", gid, plan.gid)?;
    let namespace = File::open(format!("{place}/ns/user")).map_err(fail)?;
    drop(ours);
    waitpid(holder, None).map_err(|e| fail(e.into()))?;
    Ok(namespace.into())
}

fn give_up_root(plan: &Plan) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    let fail = |e: nix::Error| failed("session user", e);
    setgroups(&[]).map_err(fail)?;
    setresgid(gid, gid, gid).map_err(fail)?;
    setresuid(uid, uid, uid).map_err(fail)?;
    // Changing users made /proc/self root's; the maps below are written through it.
    sys::set_dumpable(true).map_err(|e| failed("session user", e))
}

fn namespaces(plan: &Plan) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| failed("user namespace", e))?;
    let map = |name: &'static str, text: String| {
        put(&format!("/proc/self/{name}"), &text).map_err(|e| at("user namespace", &name, &e))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{INSIDE_UID} {} 1", plan.uid))?;
    map("gid_map", format!("{INSIDE_UID} {} 1", plan.gid))?;
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(rest).map_err(|e| failed("namespaces", e))
}

fn set_names() -> Result<(), Failure> {
    nix::unistd::sethostname("box").map_err(|e| failed("host name", e))?;
    sys::loopback_up().map_err(|e| failed("network namespace", e))
}

/// Writes a file of the kernel's.
fn put(path: &str, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

fn set_limits(plan: &Plan) -> Result<(), Failure> {
    for (resource, value) in &plan.limits {
        let kind = match resource {
            Resource::Nproc => Rlimit::RLIMIT_NPROC,
            Resource::Nofile => Rlimit::RLIMIT_NOFILE,
            Resource::Core => Rlimit::RLIMIT_CORE,
            Resource::Memlock => Rlimit::RLIMIT_MEMLOCK,
            Resource::Msgqueue => Rlimit::RLIMIT_MSGQUEUE,
            Resource::Fsize => Rlimit::RLIMIT_FSIZE,
        };
        // A limit that is tighter already stays.
        let (_, hard) = nix::sys::resource::getrlimit(kind).map_err(|e| failed("limits", e))?;
        let value = (*value).min(hard);
        setrlimit(kind, value, value).map_err(|e| failed("limits", e))?;
    }
    Ok(())
}

fn enter_workspace(context: &GuestContext) -> Result<(), Failure> {
    let place = context.workspace.display();
    std::env::set_current_dir(&context.workspace).map_err(|e| at("workspace", &place, &e))?;
    std::fs::create_dir_all(&context.spool).map_err(|e| at("spool", &context.spool.display(), &e))
}

/// The outer process: holds nothing, waits, and ends as its guest did.
fn wait_for(guest: nix::unistd::Pid, socket: &UnixStream, handed: Handed) -> i32 {
    drop(handed);
    let closed = nix::unistd::close(socket.as_raw_fd());
    loop {
        match waitpid(guest, None) {
            Ok(WaitStatus::Exited(_, code)) if closed.is_ok() => return code,
            Ok(_) => return 1,
            Err(nix::Error::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Refuses to run if a layer is not in force, whatever the calls that set it up said.
fn self_test(plan: &Plan, host_network: Option<&Path>) -> Result<(), Failure> {
    let broken =
        |reason: &str| Err(Failure { stage: "self-test", reason: reason.to_owned(), errno: 0 });
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| failed("self-test", e))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let zero = |text: &str| !text.is_empty() && text.bytes().all(|b| b == b'0');
    if !zero(&field("CapEff"))
        || !zero(&field("CapPrm"))
        || !zero(&field("CapInh"))
        || !zero(&field("CapAmb"))
    {
        return broken("capabilities are left");
    }
    if field("NoNewPrivs") != "1" || field("Seccomp") != "2" {
        return broken("the system call filter is not in force");
    }
    if field("Uid").split_whitespace().any(|uid| uid == "0") {
        return broken("the session is root");
    }
    if let Some(host_network) = host_network {
        let network =
            std::fs::read_link("/proc/self/ns/net").map_err(|e| failed("self-test", e))?;
        if network == host_network {
            return broken("the network is the host's");
        }
        if !zero(&field("CapBnd")) {
            return broken("the bounding set is not empty");
        }
        if File::options().write(true).open("/proc/sys/kernel/core_pattern").is_ok() {
            return broken("the host's kernel settings can be written");
        }
    }
    let canary = ["/etc/shadow", "/root/.ssh", "/var/log", "/boot"];
    let shown = |path: &str| {
        plan.mounts.iter().any(|mount| {
            Path::new(path).starts_with(&mount.target) || mount.target.starts_with(path)
        })
    };
    if canary.iter().any(|path| !shown(path) && (File::open(path).is_ok())) {
        return broken("a file of the host that was not shown can be read");
    }
    Ok(())
}
