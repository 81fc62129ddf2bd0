//! One lasting bash, driven over a socket and heard over a pipe.
//!
//! The shell is interactive, without a terminal, so that an interrupt brings it back to its top level with directory and
//! variables kept. It reads commands from its standard input, a socket, and answers each there with its exit code and
//! directory; the command itself has an empty input, and output and errors share one pipe, so they come in order. A
//! command has ended when its answer is there, whoever still holds the pipe.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::output::Spool;
use super::processes::{self, Ticks};
use crate::limits::{GUEST_PROCESSES, SHELL_RETURN_GRACE};
use crate::sandbox::spawn_in_background;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this exit code.
    Done(i32),
    /// The shell itself ended, with this exit code.
    ShellGone(i32),
    /// At its deadline or because somebody wanted it; whether the shell is still there.
    Killed {
        /// The shell came back with its state.
        shell_kept: bool,
    },
}

/// A running shell.
pub(super) struct Shell {
    child: Child,
    control: UnixStream,
    output: File,
    directory: PathBuf,
    answer: Vec<u8>,
}

/// Brings the shell back to its top level: its trap interrupts the shell, which an interrupt sent from outside does not
/// do while a command runs. Programs ignore this signal unless they ask for it.
const ABORT: Signal = Signal::SIGURG;

const PREPARE: &str =
    "PS1= PS2=; unset PROMPT_COMMAND; set +o history +H; trap 'kill -INT $$' URG\n";
/// Answered once everything before it is done or given up.
const SYNC: &str = "printf 'sync\\0%s\\0' \"$PWD\" >&0; set +eux\n";

impl Shell {
    /// Starts a shell in `directory`, with at most so many processes and threads.
    pub(super) fn start(
        directory: &Path,
        env: &[(String, String)],
        processes: Option<u64>,
    ) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(output.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = Command::new("bash");
        command
            .args(["--norc", "--noprofile", "--noediting", "-i"])
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("PS1", "")
            .env("PS2", "")
            .current_dir(directory)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(input.try_clone()?))
            .stderr(Stdio::from(input));
        let child = spawn_in_background(command)?;
        let mut shell = Self {
            child,
            control,
            output: File::from(output),
            directory: directory.to_owned(),
            answer: Vec::new(),
        };
        shell.control.write_all(PREPARE.as_bytes())?;
        if let Some(processes) = processes {
            // What is left of the session's limit is for the guest, so that it can still end what used up the rest.
            let own = processes.saturating_sub(GUEST_PROCESSES).max(1);
            shell.control.write_all(format!("ulimit -u {own} 2>/dev/null\n").as_bytes())?;
        }
        let mut greeting = Spool::new(directory);
        let deadline = Instant::now() + 10 * SHELL_RETURN_GRACE;
        shell.control.write_all(SYNC.as_bytes())?;
        match shell.hear(&mut greeting, deadline, &|_| false)? {
            Heard::Synced => Ok(shell),
            Heard::Answer(_) | Heard::Gone(_) | Heard::Late => {
                Err(io::Error::other("bash did not start"))
            }
        }
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Where the shell was after its last command.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes in what background jobs wrote since the last command. Does not wait.
    pub(super) fn overhear(&mut self, output: &mut Spool) {
        self.drain(output);
    }

    /// The pipe, for whoever waits for background jobs to write.
    pub(super) fn output(&self) -> &File {
        &self.output
    }

    /// Runs a command until it ends, its deadline passes, or `stop`, which is told how much was written, says so.
    pub(super) fn run(
        &mut self,
        command: &str,
        output: &mut Spool,
        deadline: Instant,
        stop: &dyn Fn(usize) -> bool,
    ) -> io::Result<Ended> {
        let began = processes::now();
        let quoted = command.replace('\'', r"'\''");
        let line =
            format!("eval '{quoted}' </dev/null; printf '%d\\0%s\\0' $? \"$PWD\" >&0; set +eux\n");
        self.say(line.as_bytes(), output)?;
        match self.hear(output, deadline, stop)? {
            Heard::Answer(code) => Ok(Ended::Done(code)),
            Heard::Synced => Err(io::Error::other("the shell answered what it was not asked")),
            Heard::Gone(code) => Ok(Ended::ShellGone(code)),
            Heard::Late => Ok(Ended::Killed { shell_kept: self.abort(began)? }),
        }
    }

    /// Gets the shell back to its top level without what its command started; false if it had to be killed.
    fn abort(&mut self, began: Ticks) -> io::Result<bool> {
        // The trap comes first: when its command dies, the shell must not begin the next one of the list.
        kill(self.pid(), ABORT)?;
        processes::kill_started_since(self.pid(), began);
        let mut noise = Spool::new(Path::new("/nonexistent"));
        if self.say(SYNC.as_bytes(), &mut noise).is_err() {
            self.kill(began);
            return Ok(false);
        }
        let deadline = Instant::now() + SHELL_RETURN_GRACE;
        loop {
            match self.hear(&mut noise, deadline, &|_| false)? {
                // The killed command's own answer may come first.
                Heard::Answer(_) => {}
                Heard::Synced => return Ok(true),
                Heard::Gone(_) | Heard::Late => {
                    self.kill(began);
                    return Ok(false);
                }
            }
        }
    }

    /// Ends the shell and what it has started since then.
    pub(super) fn kill(&mut self, since: Ticks) {
        processes::kill_started_since(self.pid(), since);
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends a line; a shell that is busy reading it may meanwhile fill the output pipe.
    fn say(&mut self, line: &[u8], output: &mut Spool) -> io::Result<()> {
        self.control.set_nonblocking(true)?;
        let mut rest = line;
        while !rest.is_empty() {
            match self.control.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.drain(output);
                    let mut writable = [PollFd::new(self.control.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut writable, PollTimeout::from(50_u8))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits for an answer, taking in output all the while.
    fn hear(
        &mut self,
        output: &mut Spool,
        deadline: Instant,
        stop: &dyn Fn(usize) -> bool,
    ) -> io::Result<Heard> {
        self.control.set_nonblocking(true)?;
        loop {
            if let Some(heard) = self.answered() {
                self.drain(output);
                return Ok(heard);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stop(output.total()) {
                return Ok(Heard::Late);
            }
            let timeout =
                PollTimeout::try_from(left.min(STOP_CHECK)).unwrap_or(PollTimeout::from(50_u8));
            let mut both = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.output.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let [answers, outputs] = both.map(|fd| fd.any().unwrap_or(false));
            if outputs {
                self.drain(output);
            }
            if answers && !self.take_answer()? {
                self.drain(output);
                return Ok(Heard::Gone(self.exit_code()?));
            }
        }
    }

    /// Reads from the socket; false at its end.
    fn take_answer(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        match self.control.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.answer.extend_from_slice(&bytes[..n]);
                Ok(true)
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
            {
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The next whole answer: exit code, NUL, directory, NUL.
    fn answered(&mut self) -> Option<Heard> {
        let code_end = self.answer.iter().position(|b| *b == 0)?;
        let length = self.answer[code_end + 1..].iter().position(|b| *b == 0)?;
        let word = String::from_utf8_lossy(&self.answer[..code_end]).into_owned();
        let directory = &self.answer[code_end + 1..code_end + 1 + length];
        self.directory = PathBuf::from(String::from_utf8_lossy(directory).into_owned());
        self.answer.drain(..code_end + length + 2);
        Some(if word == "sync" { Heard::Synced } else { Heard::Answer(word.parse().unwrap_or(1)) })
    }

    /// Takes in all output that is there.
    fn drain(&mut self, output: &mut Spool) {
        let mut bytes = [0; 64 * 1024];
        // A pipe holds less than this; one that is filled as fast as it is emptied must not keep the call from its deadline.
        for _ in 0..DRAIN_READS {
            match self.output.read(&mut bytes) {
                Ok(0) => return,
                Ok(n) => output.push(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn exit_code(&mut self) -> io::Result<i32> {
        let status = self.child.wait()?;
        Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
    }
}

/// Most reads from the pipe at a time.
const DRAIN_READS: usize = 64;

/// How often a waiting call looks whether somebody wants it to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

enum Heard {
    /// A command's exit code.
    Answer(i32),
    /// The answer to [`SYNC`].
    Synced,
    /// The shell ended, with this exit code.
    Gone(i32),
    /// The deadline passed, or somebody wants it to stop.
    Late,
}
