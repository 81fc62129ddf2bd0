//! `bash`: one command in the session's lasting shell.

use std::cell::Cell;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::hint;
use super::output::Spool;
use super::processes::{self, Ticks};
use super::shell::{Ended, Shell};
use super::watch::Watch;
use super::{Refusal, input};
use crate::event::ContentBlock;
use crate::limits::{BASH_TIMEOUT_MAX_MS, BASH_TIMEOUT_MS, IDLE_LOOK};
use crate::sandbox::wire::ToolReply;
use crate::sandbox::{GuestContext, size};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(alias = "cmd")]
    command: Option<String>,
    #[serde(default, alias = "timeout", deserialize_with = "input::number")]
    timeout_ms: Option<u64>,
    #[serde(default, deserialize_with = "input::truth")]
    restart: bool,
}

/// The session's shell, started when first needed.
#[derive(Clone)]
pub(super) struct Bash(Arc<Mutex<State>>);

struct State {
    shell: Option<Shell>,
    /// Where the next shell starts.
    directory: PathBuf,
    /// What background jobs wrote since the last command.
    overheard: Spool,
    watch: Watch,
    context: GuestContext,
}

/// How long a command has neither said nor done anything.
struct Idle {
    shell: Pid,
    limit: Option<Duration>,
    seen: Cell<Sign>,
    passed: Cell<bool>,
}

/// The last sign of life.
#[derive(Clone, Copy)]
struct Sign {
    at: Instant,
    looked: Instant,
    written: usize,
    used: Ticks,
}

impl Idle {
    fn of(shell: Pid, seconds: Option<u64>) -> Self {
        let now = Instant::now();
        let sign = Sign { at: now, looked: now, written: 0, used: 0 };
        Self {
            shell,
            limit: seconds.map(Duration::from_secs),
            seen: Cell::new(sign),
            passed: Cell::new(false),
        }
    }

    /// Looks, if it is time to: now and then, for it costs a look at every process.
    fn is_too_long(&self, written: usize) -> bool {
        let (Some(limit), seen, now) = (self.limit, self.seen.get(), Instant::now()) else {
            return false;
        };
        if now - seen.looked >= IDLE_LOOK {
            let used = processes::time_used(self.shell);
            let alive = (written, used) != (seen.written, seen.used);
            let at = if alive { now } else { seen.at };
            self.seen.set(Sign { at, looked: now, written, used });
        }
        self.passed.set(now - self.seen.get().at >= limit);
        self.passed.get()
    }

    /// The limit in words, if it is passed.
    fn limit_passed(&self) -> Option<String> {
        let seconds = self.limit.filter(|_| self.passed.get())?.as_secs();
        Some(format!("idle limit, {seconds} s without output and without processor time"))
    }
}

impl Bash {
    pub(super) fn new(context: &GuestContext) -> Self {
        Self(Arc::new(Mutex::new(State {
            shell: None,
            directory: context.workspace.clone(),
            overheard: Spool::new(&context.spool),
            watch: Watch::start(context),
            context: context.clone(),
        })))
    }

    pub(super) fn run(
        &self,
        cancelled: &AtomicBool,
        given: Map<String, Value>,
    ) -> Result<ToolReply, Refusal> {
        let Input { command, timeout_ms, restart } = input::parse("bash", given)?;
        let mut state = self.0.lock().expect("nothing panics under this lock");
        if restart {
            state.end();
            state.directory = state.context.workspace.clone();
            self.shell(&mut state)?;
            return Ok(ToolReply::text("bash session restarted"));
        }
        let command = command.ok_or("`command` is missing: give the command to run.")?;
        if command.contains('\0') {
            return Err("The command contains a NUL byte, which a shell cannot take.".to_owned());
        }
        let timeout = match timeout_ms {
            None | Some(0) => BASH_TIMEOUT_MS,
            Some(ms) => ms.min(BASH_TIMEOUT_MAX_MS),
        };
        self.shell(&mut state)?;
        state.run(&command, Duration::from_millis(timeout), cancelled)
    }

    /// Makes sure that there is a shell, and somebody who listens to it between commands.
    fn shell(&self, state: &mut State) -> Result<(), Refusal> {
        if state.shell.is_some() {
            return Ok(());
        }
        let directory =
            if state.directory.is_dir() { &state.directory } else { &state.context.workspace };
        state.watch.wait_until_counted()?;
        let shell = Shell::start(directory, &state.context.env, state.watch.processes_limit());
        let shell = shell.map_err(|e| format!("bash could not be started: {e}."))?;
        if let Ok(output) = shell.output().try_clone() {
            let bash = Self(Arc::clone(&self.0));
            std::thread::spawn(move || bash.listen(&output));
        }
        state.watch.shell(Some(shell.pid()));
        state.shell = Some(shell);
        Ok(())
    }

    /// Takes in what background jobs write, so that none of them blocks on a full pipe. Ends with the shell.
    fn listen(&self, output: &std::fs::File) {
        loop {
            let mut readable = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            if readable[0].revents().is_none_or(|events| !events.contains(PollFlags::POLLIN)) {
                return;
            }
            // While a command runs it listens itself, under this lock.
            let mut state = self.0.lock().expect("nothing panics under this lock");
            let State { shell, overheard, .. } = &mut *state;
            match shell {
                Some(shell) => shell.overhear(overheard),
                None => return,
            }
            processes::reap(shell.as_ref().map(Shell::pid));
        }
    }
}

impl State {
    fn run(
        &mut self,
        command: &str,
        timeout: Duration,
        cancelled: &AtomicBool,
    ) -> Result<ToolReply, Refusal> {
        let shell = self.shell.as_mut().expect("the caller started one");
        shell.overhear(&mut self.overheard);
        let mut output = Spool::new(&self.context.spool);
        let deadline = Instant::now() + timeout;
        let limit = self.watch.output_limit().unwrap_or(usize::MAX);
        let idle = Idle::of(shell.pid(), self.context.bounds.idle);
        let stop = |written| {
            cancelled.load(Ordering::Relaxed)
                || self.watch.says_stop()
                || written > limit
                || idle.is_too_long(written)
        };
        self.watch.begin();
        let ended = shell.run(command, &mut output, deadline, &stop);
        let passed = self.watch.end();
        let too_much = || {
            let limit = self.context.bounds.output.filter(|_| output.total() > limit);
            limit.map(|limit| format!("output limit {}", size(limit)))
        };
        let too_large = || match ended {
            Ok(Ended::Done(code)) => self.watch.limit_of(code),
            _ => None,
        };
        let passed = passed.or_else(too_much).or_else(|| idle.limit_passed()).or_else(too_large);
        self.directory = shell.directory().to_owned();
        let ended = ended.map_err(|e| {
            self.end();
            format!("The shell broke: {e}. The next command starts a new one.")
        })?;
        if !matches!(ended, Ended::Done(_) | Ended::Killed { shell_kept: true }) {
            self.end();
        }
        processes::reap(self.shell.as_ref().map(Shell::pid));
        let overheard = std::mem::replace(&mut self.overheard, Spool::new(&self.context.spool));
        let why = match passed {
            Some(limit) => Why::Limit(limit),
            None if cancelled.load(Ordering::Relaxed) => Why::Cancelled,
            None => Why::Late(timeout),
        };
        let mut reply = report(overheard, output, ended, &why, &self.directory);
        if let Some(hint) = hint::of(command, &reply) {
            reply.content.push(ContentBlock::text(hint));
        }
        Ok(reply)
    }

    /// Ends the shell with all that it started.
    fn end(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            self.watch.shell(None);
            shell.kill(0);
            shell.overhear(&mut self.overheard);
        }
    }
}

/// Without what an interactive shell says when a program of its was killed and it has no terminal to put in order.
fn without_complaint(output: String) -> String {
    const COMPLAINT: &str = ")] tcsetattr: Inappropriate ioctl for device";
    if !output.contains(COMPLAINT) {
        return output;
    }
    let complains = |line: &&str| line.starts_with("bash: [") && line.ends_with(COMPLAINT);
    output.lines().filter(|line| !complains(line)).collect::<Vec<_>>().join("\n")
}

/// Why a command was ended, if it was.
enum Why {
    Late(Duration),
    Cancelled,
    Limit(String),
}

/// What the model reads: background output first, as it came first; then the command's, then how it ended.
fn report(overheard: Spool, output: Spool, ended: Ended, why: &Why, directory: &Path) -> ToolReply {
    let mut text = String::new();
    if !overheard.is_empty() {
        text.push_str("[output of background jobs since the last command]\n");
        text.push_str(overheard.finish().trim_end_matches('\n'));
        text.push_str("\n[output of this command]\n");
    }
    let own = without_complaint(output.finish());
    let own = own.trim_end_matches('\n');
    // An interactive shell says "exit" when it is told to.
    let said_exit =
        matches!(ended, Ended::ShellGone(_)).then(|| own.strip_suffix("exit")).flatten();
    let said_exit = said_exit.filter(|rest| rest.is_empty() || rest.ends_with('\n'));
    text.push_str(said_exit.unwrap_or(own).trim_end_matches('\n'));
    let place = directory.display();
    let end = match ended {
        Ended::Done(0) => None,
        Ended::Done(code) => Some(format!("[exit code {code}]")),
        Ended::ShellGone(code) => Some(format!(
            "[exit code {code}; the shell itself ended; the next command starts a new one in {place}, without \
             variables and background jobs]"
        )),
        Ended::Killed { shell_kept } => {
            let why = match why {
                Why::Cancelled => "cancelled".to_owned(),
                Why::Late(timeout) => format!("timed out after {} ms", timeout.as_millis()),
                Why::Limit(limit) => format!("killed: {limit}"),
            };
            let shell = if shell_kept {
                "the shell is kept".to_owned()
            } else {
                format!(
                    "the shell had to be killed too, the next command starts a new one in {place}"
                )
            };
            Some(format!("[{why}; the command and its children were killed; {shell}]"))
        }
    };
    let end = match (end, why, ended) {
        // The kernel ended a part of it; the command itself may have gone on.
        (end, Why::Limit(limit), Ended::Done(_) | Ended::ShellGone(_)) => Some(format!(
            "[killed: {limit}]{}",
            end.map(|end| format!("\n{end}")).unwrap_or_default()
        )),
        (end, _, _) => end,
    };
    let is_error =
        !matches!(ended, Ended::Done(0) | Ended::ShellGone(0)) || matches!(why, Why::Limit(_));
    if let Some(end) = end {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&end);
    }
    if text.is_empty() {
        text.push_str("(no output)");
    }
    let mut reply = ToolReply::text(text);
    reply.is_error = is_error;
    reply
}
