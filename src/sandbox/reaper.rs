//! The end of a sandbox: its processes killed and waited for, then what the host made for it removed.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::Cgroup;
use super::private::PrivateDirectory;
use super::{canary, launcher, sys};

/// The outer process of a sandbox, by what can end it.
pub(super) enum Outer {
    /// Started by this process.
    Child(Child),
    /// Forked by the launcher, which takes it in when it has ended.
    Forked(OwnedFd),
}

impl Outer {
    fn kill(&mut self) {
        // It may have ended already; then there is nothing to kill.
        match self {
            Self::Child(child) => drop(child.kill()),
            Self::Forked(process) => drop(sys::kill_process(process.as_fd())),
        }
    }

    /// Waits until it has ended.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        let process = match self {
            Self::Child(child) => return child.wait().map(drop),
            Self::Forked(process) => process,
        };
        loop {
            // A descriptor of a process can be read from when that has ended.
            match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }
}

/// A sandbox's processes, ended and waited for when dropped, and then what was made for them removed.
pub(super) struct Process {
    pub(super) outer: Option<Outer>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) private: Option<PrivateDirectory>,
}

/// Threads that take ended sandboxes apart.
static REAPERS: Mutex<Vec<std::thread::JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until every sandbox that was ended is gone, and what sandboxes are started from and tested by. Blocks, for moments.
pub fn settle() {
    let reapers = std::mem::take(&mut *REAPERS.lock().expect("nothing panics under this lock"));
    for reaper in reapers {
        // A reaper does nothing that could panic, and has nothing to say.
        drop(reaper.join());
    }
    launcher::stop();
    canary::forget();
}

impl Process {
    pub(super) fn end(&mut self) {
        let Some(mut outer) = self.outer.take() else { return };
        let (cgroup, private) = (self.cgroup.take(), self.private.take());
        outer.kill();
        // The kernel takes a namespace apart in milliseconds: long enough not to wait here.
        let reap = move || {
            drop(outer.wait());
            drop((cgroup, private));
        };
        if let Ok(reaper) = std::thread::Builder::new().name("reaper".to_owned()).spawn(reap) {
            let mut reapers = REAPERS.lock().expect("nothing panics under this lock");
            reapers.retain(|reaper| !reaper.is_finished());
            reapers.push(reaper);
        }
    }
}

impl Process {
    /// Kills what runs in it; its end comes later.
    pub(super) fn kill(&self) {
        if let Some(Outer::Forked(process)) = &self.outer {
            // It may have ended already.
            drop(sys::kill_process(process.as_fd()));
        }
    }

    /// Ends the sandbox and waits until it is gone.
    pub(super) fn end_now(mut self) -> io::Result<()> {
        let Some(mut outer) = self.outer.take() else { return Ok(()) };
        outer.kill();
        outer.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
