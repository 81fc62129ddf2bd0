//! The program on a terminal: a pseudo-terminal of its own, with somebody who types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use super::running::DEADLINE;
use super::{As, USER, until};

const SIZE: Winsize = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };

/// The terminal and the program on it.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Says that nobody writes any more.
    written: Receiver<()>,
}

impl Terminal {
    /// Starts `program` in a session whose terminal is this one, so that Ctrl-C is a signal to it.
    pub(super) fn start(program: &Command, who: As) -> Self {
        let pty = openpty(&SIZE, None).unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args()).env_clear();
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap());
        }
        command.current_dir(program.get_current_dir().unwrap());
        if who == As::User {
            std::os::unix::fs::fchown(&pty.slave, Some(USER), Some(USER)).unwrap();
            command.uid(USER).gid(USER);
        }
        let slave = || pty.slave.try_clone().unwrap();
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let keyboard = File::from(pty.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let written = read_on(keyboard.try_clone().unwrap(), Arc::clone(&screen));
        Self { child, keyboard, screen, written }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// All that was written to the terminal so far.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until this stands in what was written.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.screen().contains(text) {
            assert!(Instant::now() < end, "no {text:?} in {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the program's end; its exit code and all that was written.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let status = until("the program's end", || self.child.try_wait().unwrap());
        self.written.recv_timeout(DEADLINE).expect("the terminal is free once the program is gone");
        (status.code(), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_on(mut from: File, screen: Arc<Mutex<Vec<u8>>>) -> Receiver<()> {
    let (end, written) = sync_channel(1);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        // The read fails once nobody has the other end open: the program is gone.
        while let Ok(n @ 1..) = from.read(&mut piece) {
            screen.lock().unwrap().extend_from_slice(&piece[..n]);
        }
        end.send(()).unwrap_or_default(); // Nobody asks any more if the test has failed.
    });
    written
}
