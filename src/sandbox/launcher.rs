//! The process that guests are forked from: this program, started once, with nothing in it.
//!
//! ```text
//! host ── exec, once ──▶ launcher ── fork, for each guest ──▶ outer ──▶ guest (see `init`)
//!      ── two sockets ──▶          ◀── a descriptor of the process ──
//! ```
//!
//! To start this program, and to link it, takes longer than everything else that a sandbox needs. What starting it anew
//! for each guest would give, the launcher's own start gives: the same file that no session can write, an empty environment, no
//! argument of the host's, no descriptor but one socket, one thread, and a memory that no secret was ever in: the launcher
//! reads one byte for each guest and nothing else. An order goes to the guest past it, over a socket that it only hands on
//! and closes. So a guest inherits nothing of the host, and nothing of another session's.
//!
//! One guest is always forked ahead, and has done what no order changes (see `birth`). It goes to whoever asks first for
//! one of the usual shape, and is followed by the next; who asks meanwhile has one forked for him.
//!
//! One thing is less than with a start for each: guests of one host process lie at the same addresses, as those of a server
//! that forks do. Who could use that has taken over the first process of one sandbox already; programs that tools
//! start have addresses of their own.
//!
//! A launcher ends when the host closes its socket, so with the host, however that ends. It needs no signal for it, which
//! would come when the *thread* that started it ends. One that was killed is replaced by the next launch.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::init::GUEST_NAME;
use super::mounts::Shape;
use super::plan::Plan;
use super::program::Program;
use super::{fds, sys};
use crate::environment::Tier;

/// The argument that makes a guest's program a launcher.
pub(super) const ROLE: &str = "launcher";

/// The byte that asks for a guest of a shape of its own.
const OWN: u8 = 1;
/// The byte that asks for one that may have been forked ahead.
const USUAL: u8 = 2;

/// What a guest that was forked has from the host.
pub(super) struct Start {
    /// The control socket.
    pub(super) socket: OwnedFd,
    /// Where there is a network, the way to ask for connections.
    pub(super) asks: Option<OwnedFd>,
}

impl Start {
    pub(super) fn send(&self, to: impl AsFd, kind: u8) -> io::Result<()> {
        let handed: Vec<_> =
            [Some(&self.socket), self.asks.as_ref()].into_iter().flatten().collect();
        let handed: Vec<_> = handed.iter().map(|fd| fd.as_fd()).collect();
        fds::send(to, &[kind], &handed)
    }

    /// The byte and what came with it; nothing when the other side is gone.
    pub(super) fn receive(from: impl AsFd) -> io::Result<Option<(u8, Self)>> {
        let mut kind = [0];
        let (length, mut handed) = fds::receive(from, &mut kind)?;
        if length == 0 {
            return Ok(None);
        }
        if handed.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Some((kind[0], Self { socket: handed.remove(0), asks: handed.pop() })))
    }
}

/// A guest at its beginning.
pub(super) enum Begun {
    /// One that was asked for.
    Asked(Start),
    /// One that is ahead, and its way to hear what it is for.
    Ahead(UnixStream),
}

/// A guest that waits for its order.
pub(super) struct Forked {
    /// Its outer process.
    pub(super) process: OwnedFd,
    /// What it was started from, as a layer.
    pub(super) program: String,
}

struct Launcher {
    socket: OwnedFd,
    child: Child,
    program: Program,
}

static LAUNCHER: Mutex<Option<Launcher>> = Mutex::new(None);

fn current() -> MutexGuard<'static, Option<Launcher>> {
    LAUNCHER.lock().expect("nothing panics under this lock")
}

/// Has a guest for a plan forked from a launcher of this program, or of one that is kept better from its session.
pub(super) fn fork(program: Program, plan: &Plan, start: &Start) -> io::Result<Forked> {
    let usual = plan.tier == Tier::Full && Shape::of(plan) == *Shape::usual();
    let kind = if usual { USUAL } else { OWN };
    let mut current = current();
    let fits = |launcher: &Launcher| launcher.program.keeper >= program.keeper;
    if let Some(launcher) = current.as_ref().filter(|launcher| fits(launcher)) {
        match launcher.fork(kind, start) {
            Ok(forked) => {
                let same = launcher.program.keeper == program.keeper;
                let program = if same { program.layer } else { launcher.program.layer.clone() };
                return Ok(Forked { process: forked?, program });
            }
            // It is gone; nobody else has been forked for this.
            Err(_) => drop(current.take()),
        }
    }
    let launcher = Launcher::start(program)?;
    let process = launcher.fork(kind, start)??;
    let program = launcher.program.layer.clone();
    *current = Some(launcher);
    Ok(Forked { process, program })
}

/// Ends the launcher. What was forked from it lives on.
pub(super) fn stop() {
    drop(current().take());
}

impl Launcher {
    fn start(program: Program) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let child = Command::new(&program.path)
            .arg0(GUEST_NAME)
            .arg(ROLE)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, child, program })
    }

    /// The outer error says that the launcher is gone, the inner one what it could not do.
    fn fork(&self, kind: u8, start: &Start) -> io::Result<io::Result<OwnedFd>> {
        start.send(&self.socket, kind)?;
        let mut errno = [0; 4];
        let (length, mut handed) = fds::receive(&self.socket, &mut errno)?;
        match (length, handed.pop()) {
            (4, Some(process)) => Ok(Ok(process)),
            (4, None) => Ok(Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // It may have ended by itself, and holds nothing that must be put in order.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A guest's outer process that was not waited for yet.
struct Living {
    pid: Pid,
    process: OwnedFd,
}

/// A guest that was forked ahead, and says by one byte that it is ready.
struct Waiting {
    socket: UnixStream,
    process: OwnedFd,
}

impl Waiting {
    /// The one that waits, if it is ready: to fork another is faster than to wait for it. One that has failed is let go.
    fn take_ready(waiting: &mut Option<Self>) -> Option<Self> {
        let one = waiting.take()?;
        match (&one.socket).read(&mut [0]) {
            Ok(1) => Some(one),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                *waiting = Some(one);
                None
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Gives it what it is for, unless it is gone.
    fn begin(self, start: &Start) -> Option<OwnedFd> {
        start.send(&self.socket, USUAL).is_ok().then_some(self.process)
    }
}

/// The launcher's work, whose socket is its standard input. Returns in each guest with what that has from the host, and in
/// the launcher itself with nothing, when the host is gone. Nothing of the launcher's own is left in a guest.
pub(super) fn serve() -> io::Result<Option<Begun>> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    drop(nothing);
    // What the host itself was started with is for no guest.
    sys::close_all_but(3, &[socket.as_raw_fd()])?;
    // A Ctrl-C at the terminal is for the host alone.
    nix::unistd::setsid()?;
    let mut living: Vec<Living> = Vec::new();
    let mut waiting: Option<Waiting> = None;
    loop {
        if !is_asked(&socket, &mut living)? {
            continue;
        }
        let Some((kind, start)) = Start::receive(&socket)? else { return Ok(None) };
        let ready = if kind == USUAL { Waiting::take_ready(&mut waiting) } else { None };
        let forked = match ready.and_then(|ready| ready.begin(&start)) {
            Some(process) => Ok(process),
            None => match fork_into(&mut living) {
                Ok(None) => return Ok(Some(Begun::Asked(start))),
                Ok(Some(process)) => Ok(process),
                Err(e) => Err(e),
            },
        };
        drop(start);
        match forked {
            Ok(process) => fds::send(&socket, &[0; 4], &[process.as_fd()])?,
            // A guest that the host cannot end is given no order, and ends by itself.
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                fds::send(&socket, &errno.to_ne_bytes(), &[])?;
            }
        }
        if kind == USUAL && waiting.is_none() {
            let (ours, theirs) = UnixStream::pair()?;
            match fork_into(&mut living) {
                Ok(None) => return Ok(Some(Begun::Ahead(theirs))),
                Ok(Some(process)) => {
                    ours.set_nonblocking(true)?;
                    waiting = Some(Waiting { socket: ours, process });
                }
                // Whoever asks next is told.
                Err(_) => {}
            }
        }
    }
}

/// Forks a guest, and in the launcher gives its descriptor.
fn fork_into(living: &mut Vec<Living>) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = sys::fork()? else { return Ok(None) };
    let process = sys::open_process(pid)?;
    let ours = process.try_clone()?;
    living.push(Living { pid, process });
    Ok(Some(ours))
}

/// Waits until the host asks for something, or a guest has ended: that is taken in, and false.
fn is_asked(socket: &OwnedFd, living: &mut Vec<Living>) -> io::Result<bool> {
    let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let processes = living.iter().map(|one| watch(one.process.as_fd()));
    let mut watched: Vec<_> = std::iter::once(watch(socket.as_fd())).chain(processes).collect();
    poll(&mut watched, PollTimeout::NONE)?;
    let ready: Vec<bool> = watched.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    let mut ended = ready[1..].iter();
    let mut result = Ok(());
    living.retain(|one| {
        let ended = *ended.next().expect("each was watched");
        if ended && let Err(e) = waitpid(one.pid, None) {
            result = Err(e);
        }
        !ended
    });
    result?;
    Ok(ready[0])
}
