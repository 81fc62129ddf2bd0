//! Asks the host about names and connections: the one socket of the relay's threads that leads out of the sandbox.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{MsgFlags, send};

use crate::egress::wire::{self, Answer, Ask, AskId, Outcome, Want};
use crate::limits::{EGRESS_ANSWER_TIMEOUT, EGRESS_MESSAGE_BYTES};
use crate::sandbox::network;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum No {
    /// The host may not be reached: says why.
    Refused(String),
    /// It may, and was not: says why.
    Failed(String),
}

type Answered = (Outcome, Option<OwnedFd>);

/// Who waits for which answer; `None` once the host is gone.
type Waiting = Mutex<Option<HashMap<AskId, SyncSender<Answered>>>>;

pub(super) struct Asks {
    socket: OwnedFd,
    next: AtomicU64,
    waiting: Waiting,
}

impl Asks {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Arc<Self>> {
        let waiting = Mutex::new(Some(HashMap::new()));
        let asks = Arc::new(Self { socket, next: AtomicU64::new(1), waiting });
        let listener = Arc::clone(&asks);
        std::thread::Builder::new().name("answers".to_owned()).spawn(move || listener.listen())?;
        Ok(asks)
    }

    /// Whether a name may be used.
    pub(super) fn may_look_up(&self, name: &str) -> Result<(), No> {
        self.ask(Want::Lookup { name: name.to_owned() }).map(drop)
    }

    /// A stream whose other end the host connects with the place.
    pub(super) fn connect(&self, host: &str, port: u16) -> Result<UnixStream, No> {
        let stream = self.ask(Want::Connect { host: host.to_owned(), port })?;
        let stream = stream.ok_or_else(|| No::Failed("no connection came".to_owned()))?;
        Ok(UnixStream::from(stream))
    }

    fn ask(&self, want: Want) -> Result<Option<OwnedFd>, No> {
        let gone = || No::Failed("the network of this session is gone".to_owned());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = sync_channel(1);
        match &mut *self.waiting.lock().expect("nothing panics under this lock") {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(gone()),
        }
        let asked = wire::encode(&Ask { id, want })
            .and_then(|packet| Ok(send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?));
        let answer = asked.ok().and_then(|_| answer.recv_timeout(EGRESS_ANSWER_TIMEOUT).ok());
        if let Some(waiting) = &mut *self.waiting.lock().expect("nothing panics under this lock") {
            waiting.remove(&id);
        }
        match answer.ok_or_else(gone)? {
            (Outcome::Ok, stream) => Ok(stream),
            (Outcome::Refused { text }, _) => Err(No::Refused(text)),
            (Outcome::Failed { text }, _) => Err(No::Failed(text)),
        }
    }

    /// Hands answers to those who wait, until the host is gone.
    fn listen(&self) {
        let mut packet = vec![0; EGRESS_MESSAGE_BYTES];
        while let Ok((length, stream)) = network::receive(&self.socket, &mut packet) {
            let Ok(Answer { id, outcome }) = wire::decode(&packet[..length]) else { break };
            let mut waiting = self.waiting.lock().expect("nothing panics under this lock");
            if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
                // Whoever waited may have given up.
                drop(sender.try_send((outcome, stream)));
            }
        }
        *self.waiting.lock().expect("nothing panics under this lock") = None;
    }
}
