//! The child's side: from a process of one thread, with nothing in it, to one that holds nothing of the host. A guest for
//! tools was forked from the launcher, one for a single command was started for it. With namespaces, it is born to
//! processes of its own (see `birth`).
//!
//! ```text
//! host ── order ──▶ (birth: namespaces, root) ─▶ guest: mounts, limits, capabilities, Landlock, seccomp, self-test, Ready
//! ```

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::{Arc, Mutex};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource as Rlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::birth::{self, Birth, Equipment, Group, Newborn};
use super::launcher::{self, Begun, Start};
use super::network::{self, Network, Opened};
use super::plan::{Order, Plan, Role, Supplement};
use super::profile::Resource;
use super::protect::Hold;
use super::wire::{self, FromGuest};
use super::{cgroup, exec, fds, landlock, mechanism, sys, usage};
use crate::environment::Tier;

/// The name that this program is started under when it is to become a guest.
pub const GUEST_NAME: &str = "casemate-guest";

/// What the guest's work needs to know of its place.
#[derive(Debug, Clone)]
pub struct GuestContext {
    /// The directory to work in.
    pub workspace: PathBuf,
    /// The session's home.
    pub home: PathBuf,
    /// A private directory for outputs that are too long to send.
    pub spool: PathBuf,
    /// The environment of every command.
    pub env: Vec<(String, String)>,
    /// What the guest itself sees to.
    pub bounds: Bounds,
}

/// Limits of the session, or of one command, that the guest sees to or reports.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Bytes of memory, all processes together.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes by which one command may fill the workspace's file system.
    pub disk: Option<u64>,
    /// Bytes that one file may have.
    pub file: Option<u64>,
    /// Bytes that one command may print.
    pub output: Option<u64>,
    /// Seconds that one command may pass without output and without processor time.
    pub idle: Option<u64>,
    /// Counts what the kernel killed for want of memory, where the kernel sees to it.
    pub oom: Option<Arc<File>>,
    counted: Option<Arc<Mutex<Counted>>>,
}

/// Whether the guest is in its control group. The kernel takes longer to move a process than the guest to be set up, so
/// that happens beside it.
#[derive(Debug)]
enum Counted {
    /// The other end says so with one byte.
    NotYet(UnixStream),
    Yes,
    /// It could not be moved, and must not start anything.
    Never,
}

impl Bounds {
    fn of(plan: &Plan, oom: Option<File>) -> Self {
        // Without a namespace of its own, what the guest sees in /proc is the host's.
        let own = plan.tier == Tier::Full;
        Self {
            memory: plan.limit(Resource::Memory).filter(|_| own || oom.is_some()),
            processes: plan.limit(Resource::Nproc).filter(|_| own),
            disk: plan.limit(Resource::Disk),
            file: plan.limit(Resource::Fsize),
            output: plan.limit(Resource::Output),
            idle: plan.limit(Resource::Idle),
            oom: oom.map(Arc::new),
            counted: None,
        }
    }

    /// Waits until the kernel counts what this process starts.
    ///
    /// # Errors
    /// If it never will: a sentence for the model.
    pub fn wait_until_counted(&self) -> Result<(), String> {
        let Some(counted) = &self.counted else { return Ok(()) };
        let mut counted = counted.lock().expect("nothing panics under this lock");
        if let Counted::NotYet(news) = &mut *counted {
            *counted = match news.read_exact(&mut [0]) {
                Ok(()) => Counted::Yes,
                Err(_) => Counted::Never,
            };
        }
        match *counted {
            Counted::Yes => Ok(()),
            Counted::NotYet(_) | Counted::Never => Err(
                "The sandbox could not be put under its memory limit, so nothing is started in it."
                    .to_owned(),
            ),
        }
    }
}

/// Starts a program that waits for the processor when the guest wants it: however many of them there are, they can be
/// ended.
///
/// # Errors
/// The system's.
pub fn spawn_in_background(mut command: Command) -> io::Result<Child> {
    // The priority is the thread's, and what it starts has it too.
    let start = move || {
        sys::be_patient(BACKGROUND);
        let child = command.spawn()?;
        // Where memory ends, the kernel is to take what a tool has started, and not the guest that can tell of it. If this
        // cannot be said, it takes the larger of them.
        drop(put(format!("/proc/{}/oom_score_adj", child.id()), MORE_LIKELY_KILLED));
        Ok(child)
    };
    let thread = std::thread::Builder::new().name("spawn".to_owned()).spawn(start)?;
    thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// By how much of all memory, in thousandths, a program seems larger to the kernel than it is.
const MORE_LIKELY_KILLED: &str = "500";
/// Steps by which programs are more patient than the guest.
const BACKGROUND: i32 = 5;

/// The guest's work after set-up: serves the socket until it closes, and returns the exit code.
pub type Serve = fn(UnixStream, &GuestContext) -> i32;

/// The guest's other work, where it has a network: starts the threads that lead connections to the host, and returns.
pub type Relay = fn(network::Inside) -> io::Result<()>;

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

/// A failure at a stage.
pub(super) fn failed(stage: &'static str, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    Failure { stage, reason: error.to_string(), errno: error.raw_os_error().unwrap_or(0) }
}

/// Becomes a guest if this process was started as one; `None` for every other start. Must be called before any thread
/// exists.
#[must_use]
pub fn enter(serve: Serve, relay: Relay) -> Option<ExitCode> {
    inherit_no_signals();
    if let Some(code) = mechanism::enter() {
        return Some(code);
    }
    let mut words = std::env::args_os();
    if words.next()? != GUEST_NAME {
        // A file that may not grow is an error where it is written, and not the end of this process.
        handle(Signal::SIGXFSZ, SigHandler::SigIgn);
        return None;
    }
    handle(Signal::SIGXFSZ, SigHandler::SigDfl);
    let start = match words.next() {
        Some(role) if role == launcher::ROLE => launcher::serve(),
        Some(_) | None => alone().map(Some),
    };
    let code = match start {
        Ok(Some(begun)) => run(begun, serve, relay),
        // The launcher's host is gone.
        Ok(None) => 0,
        Err(_) => 1,
    };
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Whoever started this may ignore the end of children, so that none could be waited for, or hold signals back.
fn inherit_no_signals() {
    handle(Signal::SIGCHLD, SigHandler::SigDfl);
    SigSet::empty().thread_set_mask().expect("a set of no signals is one");
}

fn handle(signal: Signal, handler: SigHandler) {
    sys::set_handler(signal, handler).expect("the signal can be handled");
}

fn run(begun: Begun, serve: Serve, relay: Relay) -> i32 {
    // What is made for the session must be readable for it, whatever the caller's mask, which its commands have again.
    let mask = umask(Mode::from_bits_truncate(0o022));
    let place = set_up(begun);
    umask(mask);
    let (mut socket, role, inside) = match place {
        Ok(Place::Outside(code)) => return code,
        Ok(Place::Guest(socket, role, inside)) => (socket, role, *inside),
        Err(Refused { failure: Failure { stage, reason, errno }, socket }) => {
            let failed = FromGuest::Failed { stage: stage.to_owned(), reason, errno };
            // Without a socket, whoever waits learns of it by the end of this process.
            drop(socket.map(|mut socket| wire::write_frame(&mut socket, &failed)));
            return 1;
        }
    };
    let Inside { layers, context, streams, network } = inside;
    let ready = FromGuest::Ready { version: wire::VERSION, layers };
    if wire::write_frame(&mut socket, &ready).is_err() {
        return 1;
    }
    match &role {
        Role::Tools => match network.map_or(Ok(()), relay) {
            Ok(()) => serve(socket, &context),
            Err(_) => 1,
        },
        Role::Exec(argv) => {
            // Threads may begin only after the command was forked.
            let forked = || network.map_or(Ok(()), relay);
            exec::supervise(&mut socket, argv, &context, streams, forked)
        }
    }
}

/// A set-up that failed.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// Where to say so, if there is such a place.
    pub(super) socket: Option<UnixStream>,
}

/// What a guest is for, and what came with it.
pub(super) struct Task {
    pub(super) order: Order,
    /// The control socket.
    pub(super) socket: UnixStream,
    pub(super) handed: Handed,
}

/// What the host hands over besides the control socket.
pub(super) struct Handed {
    /// For a single command, the caller's streams.
    pub(super) streams: Vec<OwnedFd>,
    /// Where there is a network, the way to ask for connections.
    pub(super) asks: Option<OwnedFd>,
}

/// What was handed to a guest of its own start, as its standard streams.
fn alone() -> io::Result<Begun> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let asks = io::stdout().as_fd().try_clone_to_owned()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    Ok(Begun::Asked(Start { socket, asks: Some(asks) }))
}

impl Task {
    /// From what a guest begins with: reads the order, and for a single command what comes with it.
    fn receive(start: Start) -> io::Result<Self> {
        let socket = UnixStream::from(start.socket);
        let order: Order = wire::read_frame(&mut &socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let streams = match order.plan.role {
            Role::Tools => Vec::new(),
            Role::Exec(_) => receive_streams(&socket)?,
        };
        Self::new(order, socket, start.asks, streams)
    }

    pub(super) fn new(
        order: Order,
        socket: UnixStream,
        asks: Option<OwnedFd>,
        streams: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let asks = match order.plan.network {
            Network::Isolated => None,
            Network::Door => Some(asks.ok_or(io::ErrorKind::InvalidData)?),
        };
        Ok(Self { order, socket, handed: Handed { streams, asks } })
    }
}

fn receive_streams(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let (_, streams) = fds::receive(socket, &mut [0])?;
    if streams.len() == 3 { Ok(streams) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Where this process ended up.
enum Place {
    /// It was needed for the guest, and its work is done: its exit code.
    Outside(i32),
    /// The guest.
    Guest(UnixStream, Role, Box<Inside>),
}

/// A guest that is set up.
struct Inside {
    layers: Vec<String>,
    context: GuestContext,
    streams: Vec<OwnedFd>,
    network: Option<network::Inside>,
}

fn set_up(begun: Begun) -> Result<Place, Refused> {
    let mute = |failure| Refused { failure, socket: None };
    let descriptors = |e| mute(failed("descriptors", e));
    let task = match begun {
        Begun::Ahead(launcher) => {
            sys::close_all_but(3, &[launcher.as_raw_fd()]).map_err(descriptors)?;
            leave_terminal().map_err(mute)?;
            return born(birth::begin_ahead(launcher)?);
        }
        Begun::Asked(start) => Task::receive(start).map_err(|e| mute(failed("start", e)))?,
    };
    let mut kept = vec![task.socket.as_raw_fd()];
    kept.extend(task.handed.streams.iter().chain(&task.handed.asks).map(OwnedFd::as_raw_fd));
    let done = sys::close_all_but(3, &kept).map_err(|e| failed("descriptors", e));
    let done = done.and_then(|()| match task.order.plan.role {
        Role::Tools => leave_terminal(),
        Role::Exec(_) => Ok(()),
    });
    match (done, task.order.plan.tier) {
        (Err(failure), _) => Err(Refused { failure, socket: Some(task.socket) }),
        (Ok(()), Tier::Full) => born(birth::begin(task)?),
        (Ok(()), Tier::Landlock | Tier::None) => place(task, without_namespaces),
    }
}

/// A Ctrl-C at the terminal is for the host alone.
fn leave_terminal() -> Result<(), Failure> {
    nix::unistd::setsid().map(drop).map_err(|e| failed("session", e))
}

fn born(birth: Birth) -> Result<Place, Refused> {
    match birth {
        Birth::Over(code) => Ok(Place::Outside(code)),
        Birth::Guest(newborn) => {
            let Newborn { task, equipment } = *newborn;
            place(task, |order, _, handed| with_namespaces(order, handed, equipment))
        }
    }
}

/// Carries an order out.
fn place(
    task: Task,
    work: impl FnOnce(&Order, &UnixStream, Handed) -> Result<Inside, Failure>,
) -> Result<Place, Refused> {
    let Task { order, socket, handed } = task;
    match work(&order, &socket, handed) {
        Ok(inside) => Ok(Place::Guest(socket, order.plan.role, Box::new(inside))),
        Err(failure) => Err(Refused { failure, socket: Some(socket) }),
    }
}

fn without_namespaces(
    order: &Order,
    socket: &UnixStream,
    Handed { streams, asks: _ }: Handed,
) -> Result<Inside, Failure> {
    let plan = &order.plan;
    let supplemented = supplement(socket)?;
    if plan.tier == Tier::Landlock {
        return unnamespaced(order, supplemented, streams);
    }
    let Supplemented { program: _, memory, group } = supplemented;
    let counted = group.is_some();
    let bounds = join(plan, group)?;
    set_limits(plan, counted)?;
    let context = host_context(order, bounds)?;
    Ok(Inside { layers: vec!["limits".to_owned(), memory], context, streams, network: None })
}

/// What follows the order, with the control group opened: before anything is given up.
pub(super) struct Supplemented {
    pub(super) program: String,
    pub(super) memory: String,
    pub(super) group: Option<cgroup::Open>,
}

pub(super) fn supplement(socket: &UnixStream) -> Result<Supplemented, Failure> {
    const STAGE: &str = "control group";
    let frame = wire::read_frame(&mut &*socket).map_err(|e| failed(STAGE, e))?;
    let Supplement { program, cgroup, memory } =
        frame.ok_or_else(|| failed(STAGE, io::ErrorKind::UnexpectedEof))?;
    let group = cgroup.as_ref().map(cgroup::Entry::open).transpose();
    Ok(Supplemented { program, memory, group: group.map_err(|e| failed(STAGE, e))? })
}

/// Puts this process into its control group, now.
fn join(plan: &Plan, group: Option<cgroup::Open>) -> Result<Bounds, Failure> {
    let Some(mut group) = group else { return Ok(Bounds::of(plan, None)) };
    group.take_in(0).map_err(|e| failed("control group", e))?;
    Ok(Bounds::of(plan, Some(group.events)))
}

/// What a guest with namespaces does once it has everything.
fn with_namespaces(order: &Order, handed: Handed, equipment: Equipment) -> Result<Inside, Failure> {
    let Equipment { blank, taken, program, memory, group, host_network, rules_network } = equipment;
    let plan = &order.plan;
    if plan.network == Network::Door && !rules_network {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed("namespaces", e))?;
        sys::loopback_up().map_err(|e| failed("network namespace", e))?;
    }
    let opened = handed.asks.map(network::open).transpose()?;
    let whole = blank.fill(plan, taken)?;
    set_limits(plan, group.is_some())?;
    let (counted, events) = match group {
        Some(Group { news, events }) => (Some(Counted::NotYet(news)), Some(File::from(events))),
        None => (None, None),
    };
    let counted = counted.map(|counted| Arc::new(Mutex::new(counted)));
    let mut context = GuestContext {
        workspace: plan.workspace.clone(),
        home: plan.home.clone(),
        spool: PathBuf::from("/tmp/.casemate"),
        env: plan.env.clone(),
        bounds: Bounds { counted, ..Bounds::of(plan, events) },
    };
    let mut layers: Vec<String> = ["user", "mount", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|ns| format!("{ns} namespace"))
        .into();
    layers.push("hidden processes".to_owned());
    let network = opened.map(|Opened { inside, how, env }| {
        context.env.extend(env);
        layers.push(format!("network door ({how})"));
        inside
    });
    layers.extend([program, memory]);
    if !plan.held.is_empty() || plan.held_cut {
        let cut = if plan.held_cut { ", the search ended at its bound" } else { "" };
        layers.push(format!("protected paths ({}{cut})", plan.held.len()));
    }
    lock(plan, true, &[], whole.as_ref(), &mut layers)?;
    whole.into_iter().for_each(usage::look_in);
    self_test(order, Some(&host_network))?;
    enter_workspace(&context)?;
    Ok(Inside { layers, context, streams: handed.streams, network })
}

/// Without namespaces: Landlock and the filter alone stand between the session and the host.
fn unnamespaced(
    order: &Order,
    Supplemented { program: _, memory, group }: Supplemented,
    streams: Vec<OwnedFd>,
) -> Result<Inside, Failure> {
    let plan = &order.plan;
    let counted = group.is_some();
    let bounds = join(plan, group)?;
    let context = host_context(order, bounds)?;
    if plan.from_root {
        for path in [&context.home, &context.spool] {
            std::os::unix::fs::chown(path, Some(plan.uid), Some(plan.gid))
                .map_err(|e| failed("home", e))?;
        }
        give_up_root(plan.uid, plan.gid)?;
    }
    set_limits(plan, counted)?;
    sys::adopt_orphans().map_err(|e| failed("orphans", e))?;
    let mut layers = Vec::new();
    layers.push(memory);
    lock(plan, false, &[&context.home], None, &mut layers)?;
    self_test(order, None)?;
    enter_workspace(&context)?;
    Ok(Inside { layers, context, streams, network: None })
}

/// The layers that need no namespace, in the order in which each still permits the next.
fn lock(
    plan: &Plan,
    privileged: bool,
    private: &[&Path],
    looked_in: Option<&OwnedFd>,
    layers: &mut Vec<String>,
) -> Result<(), Failure> {
    sys::drop_capabilities(privileged).map_err(|e| failed("capabilities", e))?;
    sys::no_new_privileges().map_err(|e| failed("no new privileges", e))?;
    sys::set_dumpable(false).map_err(|e| failed("dumpable", e))?;
    let landlock = landlock::restrict(plan, private, looked_in.map(OwnedFd::as_fd));
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

/// The session's place in tiers without a root of their own: a directory of the host that the host made and will remove.
fn host_context(order: &Order, bounds: Bounds) -> Result<GuestContext, Failure> {
    let plan = &order.plan;
    let home = order.private.clone().ok_or_else(|| failed("home", io::ErrorKind::NotFound))?;
    let spool = home.join("outputs");
    std::fs::create_dir(&spool).map_err(|e| failed("home", e))?;
    let mut env = plan.env.clone();
    env.retain(|(name, _)| name != "HOME" && name != "TMPDIR");
    env.push(("HOME".to_owned(), home.display().to_string()));
    env.push(("TMPDIR".to_owned(), home.display().to_string()));
    Ok(GuestContext { workspace: plan.workspace.clone(), home, spool, env, bounds })
}

/// Becomes another user, for good.
pub(super) fn give_up_root(uid: u32, gid: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let fail = |e: nix::Error| failed("session user", e);
    setgroups(&[]).map_err(fail)?;
    setresgid(gid, gid, gid).map_err(fail)?;
    setresuid(uid, uid, uid).map_err(fail)?;
    // Changing users made /proc/self root's; the maps of a user namespace are written through it.
    sys::set_dumpable(true).map_err(|e| failed("session user", e))
}

/// Writes a file of the kernel's.
pub(super) fn put(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

/// Sets the limits of a process; `counted` if the kernel counts the session's memory.
fn set_limits(plan: &Plan, counted: bool) -> Result<(), Failure> {
    for (resource, value) in &plan.limits {
        let kind = match resource {
            Resource::Nproc => Rlimit::RLIMIT_NPROC,
            Resource::Nofile => Rlimit::RLIMIT_NOFILE,
            Resource::Core => Rlimit::RLIMIT_CORE,
            Resource::Memlock => Rlimit::RLIMIT_MEMLOCK,
            Resource::Msgqueue => Rlimit::RLIMIT_MSGQUEUE,
            Resource::Sigpending => Rlimit::RLIMIT_SIGPENDING,
            Resource::Fsize => Rlimit::RLIMIT_FSIZE,
            // Where nobody counts the session's memory, no process may have more than all of it. Where the guest does, this
            // would only forbid what is promised and never used: sanitizers and race detectors ask for terabytes.
            Resource::Memory if !counted && plan.tier != Tier::Full => Rlimit::RLIMIT_DATA,
            // Of the session or of one command, which no limit of a process can say.
            Resource::Memory
            | Resource::Disk
            | Resource::Output
            | Resource::Cpu
            | Resource::Io
            | Resource::Idle => continue,
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

/// Refuses to run if a layer is not in force, whatever the calls that set it up said.
fn self_test(order: &Order, host_network: Option<&Path>) -> Result<(), Failure> {
    const STAGE: &str = "self-test";
    let broken = |reason: &str| Err(Failure { stage: STAGE, reason: reason.to_owned(), errno: 0 });
    // In one piece, or the kernel is asked for eight.
    let mut status = String::with_capacity(8192);
    let read =
        File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status));
    read.map_err(|e| failed(STAGE, e))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let zero = |text: &str| !text.is_empty() && text.bytes().all(|b| b == b'0');
    if !["CapEff", "CapPrm", "CapInh", "CapAmb"].iter().all(|set| zero(&field(set))) {
        return broken("capabilities are left");
    }
    if field("NoNewPrivs") != "1" || field("Seccomp") != "2" {
        return broken("the system call filter is not in force");
    }
    if field("Uid").split_whitespace().any(|uid| uid == "0") {
        return broken("the session is root");
    }
    if let Some(canary) = &order.canary
        && File::open(canary).is_ok()
    {
        return broken("a file of the host that was not shown can be read");
    }
    let Some(host_network) = host_network else { return Ok(()) };
    let network = std::fs::read_link("/proc/self/ns/net").map_err(|e| failed(STAGE, e))?;
    if network == host_network {
        return broken("the network is the host's");
    }
    if !zero(&field("CapBnd")) {
        return broken("the bounding set is not empty");
    }
    let settings = nix::sys::statvfs::statvfs("/proc/sys").map_err(|e| failed(STAGE, e))?;
    if !settings.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
        || File::options().write(true).open("/proc/sys/kernel/core_pattern").is_ok()
    {
        return broken("the host's kernel settings can be written");
    }
    if File::options().write(true).create_new(true).open("/.casemate").is_ok() {
        return broken("the root can be written");
    }
    let secret = order.plan.held.iter().find(|held| matches!(held.hold, Hold::Hide(_)));
    if secret.is_some_and(|held| File::open(&held.path).is_ok()) {
        return broken("a protected file can be read");
    }
    Ok(())
}
