//! Programs that run beside the tools, such as MCP servers: started with a stream as their standard input and output, and
//! ended with the sandbox. What they print as errors is listened to, and its end kept.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Refusal;
use crate::limits::{MCP_PROGRAM_SAID, MCP_PROGRAMS};
use crate::sandbox::wire::{CallId, Program};
use crate::sandbox::{GuestContext, spawn_in_background};

/// The programs of a sandbox.
#[derive(Default)]
pub(super) struct Programs(Mutex<HashMap<CallId, Running>>);

/// How often, and after which pause, it is looked whether a program's errors have ended: it may have left others that
/// hold the pipe.
const LAST_WORDS_LOOKS: u32 = 20;
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(10);

struct Running {
    child: Child,
    said: Arc<Mutex<VecDeque<u8>>>,
}

impl Programs {
    /// Starts a program in the working directory.
    pub(super) fn start(
        &self,
        id: CallId,
        program: &Program,
        stream: OwnedFd,
        context: &GuestContext,
    ) -> Result<(), Refusal> {
        let mut running = self.0.lock().expect("nothing panics under this lock");
        running.values_mut().for_each(|program| drop(program.child.try_wait()));
        if running.len() >= MCP_PROGRAMS {
            return Err(format!("{MCP_PROGRAMS} programs were started; that is enough"));
        }
        let (name, args) = program.argv.split_first().ok_or("no program is named")?;
        context.bounds.wait_until_counted()?;
        let started = spawn(name, args, &program.env, stream, context);
        let started = started.map_err(|e| format!("`{name}` cannot be started: {e}"))?;
        running.insert(id, started);
        Ok(())
    }

    /// The last that a program has printed as errors, once it has ended or a moment later.
    pub(super) fn said(&self, id: CallId) -> String {
        let running = self.0.lock().expect("nothing panics under this lock");
        let Some(said) = running.get(&id).map(|program| Arc::clone(&program.said)) else {
            return String::new();
        };
        drop(running);
        for _ in 0..LAST_WORDS_LOOKS {
            // The listener lets go of it at the end.
            if Arc::strong_count(&said) <= 2 {
                break;
            }
            std::thread::sleep(LAST_WORDS_PAUSE);
        }
        let mut said = said.lock().expect("nothing panics under this lock");
        super::output::clean(said.make_contiguous())
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let mut running = self.0.lock().expect("nothing panics under this lock");
        for (_, mut program) in running.drain() {
            // Each leads a group of its own.
            let group = Pid::from_raw(program.child.id().cast_signed());
            if killpg(group, Signal::SIGKILL).is_err() {
                // It has ended by itself.
            }
            drop(program.child.wait());
        }
    }
}

fn spawn(
    name: &str,
    args: &[String],
    env: &[(String, String)],
    stream: OwnedFd,
    context: &GuestContext,
) -> io::Result<Running> {
    let (errors, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(name);
    command
        .args(args)
        .env_clear()
        .envs(context.env.iter().map(|(name, value)| (name, value)))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(&context.workspace)
        .process_group(0)
        .stdin(Stdio::from(stream.try_clone()?))
        .stdout(Stdio::from(stream))
        .stderr(Stdio::from(theirs));
    let child = spawn_in_background(command)?;
    let said = Arc::new(Mutex::new(VecDeque::new()));
    let heard = Arc::clone(&said);
    std::thread::Builder::new()
        .name("errors".to_owned())
        .spawn(move || listen(File::from(errors), &heard))?;
    Ok(Running { child, said })
}

/// Takes in all that is printed, so that nobody waits for a full pipe; the end of it stays.
fn listen(mut errors: File, said: &Mutex<VecDeque<u8>>) {
    let mut bytes = [0; 4096];
    loop {
        let read = match errors.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut said = said.lock().expect("nothing panics under this lock");
        said.extend(&bytes[..read]);
        let excess = said.len().saturating_sub(MCP_PROGRAM_SAID);
        said.drain(..excess);
    }
}
