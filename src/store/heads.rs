//! Who waits for the end of which log to move.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::event::Seq;
use crate::id::SessionId;

/// One channel per session that someone watches.
#[derive(Default)]
pub(super) struct Heads(Mutex<HashMap<SessionId, watch::Sender<Seq>>>);

impl Heads {
    /// Watches `session`, from 0 until somebody raises it.
    pub(super) fn watch(&self, session: &SessionId) -> watch::Receiver<Seq> {
        let mut heads = self.lock();
        match heads.get(session) {
            Some(head) => head.subscribe(),
            None => {
                // Before the map would grow, those go that nobody watches any more.
                if heads.len() == heads.capacity() {
                    heads.retain(|_, head| !head.is_closed());
                }
                let (head, watcher) = watch::channel(0);
                heads.insert(session.clone(), head);
                watcher
            }
        }
    }

    /// Tells the watchers of `session` that its log reaches to `head`. A head never goes back.
    pub(super) fn raise(&self, session: &SessionId, head: Seq) {
        let mut heads = self.lock();
        let Some(sender) = heads.get(session) else { return };
        sender.send_if_modified(|known| {
            let newer = *known < head;
            *known = head.max(*known);
            newer
        });
        if sender.is_closed() {
            heads.remove(session);
        }
    }

    /// Tells the watchers of `session`, by closing their channel, that there is nothing more to come.
    pub(super) fn close(&self, session: &SessionId) {
        self.lock().remove(session);
    }

    /// The same for every session.
    pub(super) fn close_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, watch::Sender<Seq>>> {
        // The map is whole after every statement that changes it, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
