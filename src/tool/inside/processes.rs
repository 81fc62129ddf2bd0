//! The processes of the session, by looking at `/proc`: what a late call has started, and how to end it.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

use crate::sandbox::usage::{self, Process};

/// Ticks of `/proc/PID/stat` since boot.
pub(super) type Ticks = u64;

/// Now, as processes count their start.
pub(super) fn now() -> Ticks {
    let per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    let (seconds, nanos) = boot.map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    let ticks = seconds * per_second + nanos * per_second / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(0)
}

/// Whether what loses its parent becomes a child of this process: so it is for the first process of a sandbox.
fn gets_orphans() -> bool {
    std::process::id() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(false)
}

/// What descends from the shell, or from this process by being orphaned, and began since `since`; the shell not.
fn started_since(shell: Pid, since: Ticks) -> Vec<i32> {
    let (processes, own) = (family(shell), own());
    let young = processes.iter().filter(|p| p.started >= since);
    young.map(|p| p.pid).filter(|pid| *pid != shell.as_raw() && *pid != own).collect()
}

/// The processor time of the shell and of what descends from it. Less than before if some of it has ended.
pub(super) fn time_used(shell: Pid) -> Ticks {
    let own = own();
    family(shell).iter().filter(|p| p.pid != own).map(|p| p.used).sum()
}

fn own() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(1)
}

/// The shell, and what descends from it, or from this process by being orphaned.
fn family(shell: Pid) -> Vec<Process> {
    usage::family([shell.as_raw()].into_iter().chain(gets_orphans().then(own)))
}

/// Kills what the shell has started since then, until nothing more appears. Bounded: what forks faster than this loses
/// to the limit of processes.
pub(super) fn kill_started_since(shell: Pid, since: Ticks) {
    const ROUNDS: usize = 50;
    for _ in 0..ROUNDS {
        let found = started_since(shell, since);
        let killed =
            found.iter().filter(|pid| kill(Pid::from_raw(**pid), Signal::SIGKILL).is_ok()).count();
        reap(Some(shell));
        if killed == 0 {
            return;
        }
    }
}

/// Takes in orphans that have ended; `but` is waited for by somebody else. Where this process gets no orphans, each of
/// its children is somebody's, and nothing is taken.
pub(super) fn reap(but: Option<Pid>) {
    if !gets_orphans() {
        return;
    }
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look) {
        match status.pid() {
            Some(pid) if Some(pid) != but => drop(waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok()),
            _ => return,
        }
    }
}
