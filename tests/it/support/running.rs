//! A program that runs: what it says is gathered beside it, and nobody waits for it without a deadline.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Finished;

/// Nothing here takes a tenth of it, also on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until there is a value. Gives up with `what` after a minute.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program. It is killed with the value.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = gather(child.stdout.take().unwrap());
        let stderr = gather(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// Writes to its standard input, which must be piped, and ends it.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = until("the program's end", || self.child.try_wait().unwrap());
        let take = |end: &Receiver<Vec<u8>>| end.recv_timeout(DEADLINE).expect("a stream's end");
        let (stdout, stderr) = (take(&self.stdout), take(&self.stderr));
        Finished(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already wherever the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads a stream to its end on a thread of its own, so that it never fills up.
fn gather(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        // Nobody asks any more if the test has failed.
        drop(sender.send(all));
    });
    receiver
}
