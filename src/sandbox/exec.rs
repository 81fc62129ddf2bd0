//! One command in a sandbox, with the caller's own standard streams: `casemate sandbox exec`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::init::{Bounds, GuestContext};
use super::kept::Kept;
use super::show::size;
use super::wire::{self, FromGuest};
use super::{sys, usage};
use crate::limits::WATCH_INTERVAL;

/// What a shell answers for a command that is not there.
const NOT_FOUND: u8 = 127;
/// What a shell answers for a file that is no program.
const NOT_EXECUTABLE: u8 = 126;

/// Runs the command, passes signals on, and reports how it ended. Returns the guest's own exit code. `forked` is called
/// once the command is a process of its own.
pub(super) fn supervise(
    socket: &mut UnixStream,
    argv: &[String],
    context: &GuestContext,
    streams: Vec<OwnedFd>,
    forked: impl FnOnce() -> io::Result<()>,
) -> i32 {
    let errors = streams.last().and_then(|stderr| stderr.try_clone().ok()).map(File::from);
    let tell = |text: String| {
        // Nobody may be listening any more.
        drop(errors.as_ref().map(|mut errors| errors.write_all(text.as_bytes())));
    };
    let code = command(socket, argv, context, streams, forked, &tell).unwrap_or_else(|e| {
        tell(format!("casemate: {}: {e}\n", argv[0]));
        1
    });
    i32::from(wire::write_frame(socket, &FromGuest::Exited { code }).is_err())
}

fn command(
    socket: &UnixStream,
    argv: &[String],
    context: &GuestContext,
    streams: Vec<OwnedFd>,
    forked: impl FnOnce() -> io::Result<()>,
    tell: &dyn Fn(String),
) -> io::Result<u8> {
    let passed_on =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD];
    let watched: SigSet = passed_on.into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), None)?;
    let watch = Watch::begin(context);
    let Some(child) = sys::fork()? else {
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&watched), None)?;
        become_command(argv, context, &streams);
    };
    forked()?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC)?;
    let (mut passed, mut looked) = (None, Instant::now());
    drop(streams);
    loop {
        if let Some(code) = reap(child) {
            if let Some(limit) = passed {
                tell(format!("casemate: killed: {limit}\n"));
            }
            return Ok(code);
        }
        let signalled = wait(socket, &signals)?;
        // Also where processes end faster than that.
        if looked.elapsed() >= WATCH_INTERVAL {
            passed = watch.end_excess().or(passed);
            looked = Instant::now();
        }
        if !signalled {
            continue;
        }
        match signals.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok()) {
            Some(number) if number == Signal::SIGCHLD as i32 => {}
            Some(number) => {
                match kill(child, Signal::try_from(number)?) {
                    // It has ended just now; the next round sees it.
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            None => {}
        }
    }
}

/// Waits for a signal, or until it is time to look at what the command uses: false. A host that is gone ends the sandbox.
fn wait(socket: &UnixStream, signals: &SignalFd) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut both = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(socket.as_fd(), PollFlags::empty()),
    ];
    let interval = PollTimeout::try_from(WATCH_INTERVAL).expect("it is short");
    let ready = poll(&mut both, interval)?;
    let gone = both[1]
        .revents()
        .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
    if gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(ready > 0) }
}

/// What the command uses, and what was free when it began.
struct Watch<'a> {
    context: &'a GuestContext,
    kept: Kept,
    free: Option<[u64; 2]>,
}

impl<'a> Watch<'a> {
    fn begin(context: &'a GuestContext) -> Self {
        let watch = Self { context, kept: Kept::begin(), free: None };
        Self { free: watch.free(), ..watch }
    }

    fn free(&self) -> Option<[u64; 2]> {
        // The home is in memory here, and has a bound of its own.
        usage::free([&self.context.workspace; 2].map(PathBuf::as_path))
    }

    /// Ends everything if it uses more than it may; the limit. To the first process of a namespace, everything is
    /// everybody else.
    fn end_excess(&self) -> Option<String> {
        let limit = self.limit_passed()?;
        // It may have ended by itself just now.
        kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok().then_some(limit)
    }

    fn limit_passed(&self) -> Option<String> {
        let Bounds { memory, processes, disk, .. } = &self.context.bounds;
        if processes.is_some_and(|most| usage::processes().len() as u64 > most / 2) {
            return Some(format!("process limit {}", (*processes)?));
        }
        if memory.is_some_and(|limit| usage::is_over(limit) || self.kept.is_over(limit)) {
            return Some(format!("memory limit {}", size((*memory)?)));
        }
        usage::disk_limit_passed(self.free?, self.free()?, *disk)
    }
}

/// Takes in whatever ended; the command's own code if it was among it.
fn reap(command: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        match status {
            WaitStatus::Exited(pid, value) if pid == command => code = u8::try_from(value).ok(),
            WaitStatus::Signaled(pid, signal, _) if pid == command => {
                code = u8::try_from(128 + signal as i32).ok();
            }
            WaitStatus::StillAlive => break,
            _ => {}
        }
    }
    code
}

/// The forked child: the caller's streams, then the program.
fn become_command(argv: &[String], context: &GuestContext, streams: &[OwnedFd]) -> ! {
    let ready = || -> io::Result<()> {
        nix::unistd::dup2_stdin(&streams[0])?;
        nix::unistd::dup2_stdout(&streams[1])?;
        nix::unistd::dup2_stderr(&streams[2])?;
        for stream in streams {
            nix::unistd::close(stream.as_raw_fd())?;
        }
        Ok(())
    };
    let default = [Signal::SIGPIPE, Signal::SIGCHLD];
    let reset = default.map(|signal| sys::set_handler(signal, SigHandler::SigDfl));
    let error = match ready() {
        Ok(()) if reset.iter().all(Result::is_ok) => match find(&argv[0], context) {
            Some(program) => sys::exec(&program, argv, &context.env),
            None => io::ErrorKind::NotFound.into(),
        },
        Ok(()) => io::ErrorKind::Other.into(),
        Err(e) => e,
    };
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    let text = format!("casemate: {}: {error}\n", argv[0]);
    let told = nix::unistd::write(io::stderr(), text.as_bytes());
    sys::leave_with(if told.is_ok() { code } else { 1 })
}

/// The program that a shell would start.
fn find(name: &str, context: &GuestContext) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let (_, path) = context.env.iter().find(|(variable, _)| variable == "PATH")?;
    let places = path.split(':').map(|dir| Path::new(dir).join(name));
    let mut found = places.filter(|place| {
        nix::unistd::access(place, nix::unistd::AccessFlags::X_OK).is_ok() && place.is_file()
    });
    found.next()
}
