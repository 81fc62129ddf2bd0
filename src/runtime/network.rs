//! The network of one command, and what a session's log says of its own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::egress::policy::Policy;
use crate::egress::{Door, Report};
use crate::event::EventBody;
use crate::id::{EventId, SessionId};
use crate::store::{Reader, StoreError};

/// A door for a caller that blocks: kept by a thread of its own, which ends with this value.
pub(super) struct Keeper {
    thread: JoinHandle<io::Result<Report>>,
    over: DropGuard,
}

impl Keeper {
    pub(super) fn start(asks: OwnedFd, policy: Policy) -> Self {
        let over = CancellationToken::new();
        let closed = over.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let door = Door::open(asks, policy)?;
                closed.cancelled().await;
                Ok(door.report())
            })
        });
        Self { thread, over: over.drop_guard() }
    }

    /// Closes every connection; what happened.
    pub(super) fn close(self) -> io::Result<Report> {
        let Self { thread, over } = self;
        drop(over);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread broke")))
    }
}

/// What a session reached, and what it was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUse {
    /// By place, in the order of their names.
    pub used: BTreeMap<String, Used>,
    /// In the order in which they happened.
    pub refused: Vec<Refused>,
}

/// What went to and from one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Connections made.
    pub connections: u64,
    /// Bytes from the session.
    pub sent: u64,
    /// Bytes to the session.
    pub received: u64,
}

/// A place that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The call that started the program.
    pub call: EventId,
    /// Where it wanted to go.
    pub target: String,
    /// The rule against it.
    pub rule: String,
    /// What would allow it.
    pub change: Option<String>,
}

impl NetworkUse {
    /// Sums up a session's log.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(reader: &Reader, session: &SessionId) -> Result<Self, StoreError> {
        let mut sum = Self::default();
        reader.each(session, 0, |event| sum.add(event.body))?;
        Ok(sum)
    }

    fn add(&mut self, body: EventBody) {
        match body {
            EventBody::EgressRefused { tool_use_id: call, target, rule, change } => {
                self.refused.push(Refused { call, target, rule, change });
            }
            EventBody::EgressUsage { target, connections, sent, received, .. } => {
                let used = self.used.entry(target).or_default();
                used.connections += connections;
                used.sent += sent;
                used.received += received;
            }
            _ => {}
        }
    }
}
