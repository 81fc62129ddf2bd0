//! The guest's own eye on what its programs use: memory where the kernel does not count it, processes, disk.
//!
//! A command that goes too far is ended like a late one, and the model reads which limit it was. Jobs in the background
//! that do so while no command runs are killed here.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes;
use crate::limits::{WATCH_INTERVAL, WATCH_INTERVAL_IDLE};
use crate::sandbox::kept::Kept;
use crate::sandbox::{Bounds, GuestContext, size, usage};

/// Shared by the thread that looks and the commands that it may end.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    /// Where programs can fill a disk: the workspace and the home, which may be on two.
    places: [PathBuf; 2],
    /// The shell, or 0.
    shell: AtomicI32,
    kept: Kept,
    call: Mutex<Call>,
    began: Condvar,
}

#[derive(Default)]
struct Call {
    /// The free bytes of each disk when the command under way began.
    free: Option<[u64; 2]>,
    /// Which limit was passed, and when that was seen.
    passed: Option<(String, Instant)>,
    /// What the kernel had killed for want of memory when the command began.
    killed: u64,
}

impl Watch {
    /// Begins to look. Ends with the process.
    pub(super) fn start(context: &GuestContext) -> Self {
        let watch = Self(Arc::new(Shared {
            bounds: context.bounds.clone(),
            places: [context.workspace.clone(), context.home.clone()],
            shell: AtomicI32::new(0),
            kept: Kept::begin(),
            call: Mutex::default(),
            began: Condvar::new(),
        }));
        let eye = Arc::downgrade(&watch.0);
        let look = move || {
            while let Some(shared) = eye.upgrade() {
                let busy = shared.look();
                shared.rest(if busy { WATCH_INTERVAL } else { WATCH_INTERVAL_IDLE });
            }
        };
        let started = std::thread::Builder::new().name("watch".to_owned()).spawn(look);
        started.expect("the guest can start a thread before any program runs");
        watch
    }

    pub(super) fn shell(&self, shell: Option<Pid>) {
        self.0.shell.store(shell.map_or(0, Pid::as_raw), Ordering::Relaxed);
    }

    /// A command begins.
    pub(super) fn begin(&self) {
        let mut call = self.0.call();
        *call = Call { free: self.0.free(), passed: None, killed: self.0.killed() };
        self.0.began.notify_all();
    }

    /// Whether the command has gone too far.
    pub(super) fn says_stop(&self) -> bool {
        self.0.call().passed.is_some()
    }

    /// The command has ended; the limit that it passed, if any.
    pub(super) fn end(&self) -> Option<String> {
        let mut call = self.0.call();
        call.free = None;
        let passed = call.passed.take().map(|(limit, _)| limit);
        let killed = self.0.killed() > call.killed;
        passed.or_else(|| killed.then(|| self.0.memory_limit()))
    }

    /// Waits until the kernel counts what the guest will start.
    pub(super) fn wait_until_counted(&self) -> Result<(), String> {
        self.0.bounds.wait_until_counted()
    }

    pub(super) fn output_limit(&self) -> Option<usize> {
        self.0.bounds.output.and_then(|bytes| usize::try_from(bytes).ok())
    }

    pub(super) fn processes_limit(&self) -> Option<u64> {
        self.0.bounds.processes
    }

    /// The limit whose signal ended a command with this exit code, if one did.
    pub(super) fn limit_of(&self, code: i32) -> Option<String> {
        let limit = self.0.bounds.file.filter(|_| code == 128 + Signal::SIGXFSZ as i32)?;
        Some(format!("file size limit {}", size(limit)))
    }
}

impl Shared {
    fn call(&self) -> std::sync::MutexGuard<'_, Call> {
        self.call.lock().expect("nothing panics under this lock")
    }

    /// Waits until it is time to look again; a command that begins makes it time.
    fn rest(&self, interval: Duration) {
        // A lock that is poisoned or a wait that ends early only makes the next look come sooner.
        drop(self.began.wait_timeout(self.call(), interval));
    }

    /// One look; whether a command is under way.
    fn look(&self) -> bool {
        let passed = self.passed();
        let mut call = self.call();
        let busy = call.free.is_some();
        let Some(limit) = passed else { return busy };
        let since = call.passed.get_or_insert((limit, Instant::now())).1;
        if self.is_bomb() && std::process::id() == 1 {
            // What forks faster than it can be looked for is ended in one call, the shell with it: to the first process of
            // a namespace, this is everybody else.
            let nobody_left = kill(Pid::from_raw(-1), Signal::SIGKILL).is_err();
            return busy && !nobody_left;
        }
        // The command's own end comes first, so that the shell is told; what goes on regardless is killed from here.
        if !busy || since.elapsed() > 10 * WATCH_INTERVAL {
            drop(call);
            processes::kill_started_since(Pid::from_raw(self.shell.load(Ordering::Relaxed)), 0);
            if !busy {
                self.call().passed = None;
            }
        }
        busy
    }

    /// Whether there are so many processes that only a bomb makes them; half the limit is left for threads.
    fn is_bomb(&self) -> bool {
        self.bounds.processes.is_some_and(|limit| usage::processes().len() as u64 > limit / 2)
    }

    /// The limit that is passed now.
    fn passed(&self) -> Option<String> {
        let Bounds { memory, processes, disk, .. } = &self.bounds;
        if self.is_bomb() {
            return processes.map(|limit| format!("process limit {limit}"));
        }
        let has_too_much = |limit| usage::is_over(limit) || self.kept.is_over(limit);
        if self.bounds.oom.is_none() && memory.is_some_and(has_too_much) {
            return Some(self.memory_limit());
        }
        let (before, killed) = {
            let call = self.call();
            (call.free?, call.killed)
        };
        // The kernel ends one process at a time, and the next of many hogs takes what that one had.
        if self.killed() > killed {
            return Some(self.memory_limit());
        }
        usage::disk_limit_passed(before, self.free()?, *disk)
    }

    fn memory_limit(&self) -> String {
        format!("memory limit {}", size(self.bounds.memory.unwrap_or(0)))
    }

    fn free(&self) -> Option<[u64; 2]> {
        usage::free([&self.places[0], &self.places[1]])
    }

    /// How many processes the kernel has killed for want of memory.
    fn killed(&self) -> u64 {
        let Some(oom) = &self.bounds.oom else { return 0 };
        let mut bytes = [0; 512];
        let Ok(length) = oom.read_at(&mut bytes, 0) else { return 0 };
        let text = String::from_utf8_lossy(&bytes[..length]);
        let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        counts.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}
