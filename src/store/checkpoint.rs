//! Moves the write-ahead log into the database, beside the writer: a checkpoint syncs twice, and no append waits for it.
//!
//! The log starts over once all of it is copied. While appends keep coming that moment never falls by itself, so the
//! writer then copies the little that is missing between two commits, while nobody reads. It pays: a log that starts over overwrites its
//! blocks, and one that grows takes twice as long to sync.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::StoreError;
use super::reader::Reading;
use super::schema::Database;
use super::writer::spawn;
use crate::limits;

/// Whether writes can still be trusted. Once failed, failed until the process ends.
pub(super) struct Health {
    path: Box<Path>,
    failure: OnceLock<Arc<str>>,
}

impl Health {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), failure: OnceLock::new() }
    }

    /// The failure, if there was one.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(self.error(reason)),
        }
    }

    /// Nothing is written from now on; the error that says so. The first reason stays.
    pub(super) fn fail(&self, error: &StoreError) -> StoreError {
        let source = std::error::Error::source(error);
        let detail = source.map(|source| format!(": {source}")).unwrap_or_default();
        self.error(self.failure.get_or_init(|| format!("{error}{detail}").into()))
    }

    fn error(&self, reason: &Arc<str>) -> StoreError {
        StoreError::Failed { path: self.path.to_path_buf(), reason: Arc::clone(reason) }
    }
}

/// The writer's view of the checkpoint thread.
pub(super) struct Checkpointer {
    nudge: SyncSender<()>,
    thread: JoinHandle<()>,
    catch_up: Arc<AtomicBool>,
    health: Arc<Health>,
    reading: Reading,
    /// Pages logged since the last nudge, estimated.
    pages: usize,
}

impl Checkpointer {
    pub(super) fn start(
        path: &Path,
        reading: Reading,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let db = Database::open_beside(path)?;
        let (nudge, nudges) = sync_channel(1);
        let catch_up = Arc::new(AtomicBool::new(false));
        let rounds = Rounds { db, catch_up: Arc::clone(&catch_up), health: Arc::clone(&health) };
        let thread = spawn("store-checkpoint", path, move || rounds.work(&nudges))?;
        Ok(Self { nudge, thread, catch_up, health, reading, pages: 0 })
    }

    /// To be told of every commit; `db` is the writer's connection, between two transactions.
    pub(super) fn written(&mut self, db: &Database, jobs: usize, bytes: usize) {
        // A job touches a page of the table and of each index; a commit, the tables' inner pages.
        self.pages += 2 + 2 * jobs + bytes / 4096;
        if self.catch_up.swap(false, Ordering::Acquire) && self.health.check().is_ok() {
            let _alone = self.reading.write().unwrap_or_else(PoisonError::into_inner);
            note(db.checkpoint(), &self.health);
        }
        if self.pages < limits::CHECKPOINT_PAGES as usize {
            return;
        }
        match self.nudge.try_send(()) {
            Ok(()) => self.pages = 0,
            // At work and told to go on; or ended, with a failure that `health` tells.
            Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Ends the thread, then closes the writer's connection: it is the last, and copies what is left.
    pub(super) fn end(self, db: Database) {
        let Self { nudge, thread, health, .. } = self;
        drop(nudge);
        let ended = thread.join().is_ok();
        // A log that failed to reach the disk is left for the next process to judge.
        if ended && health.check().is_ok() {
            note(db.close(), &health);
        }
    }
}

/// A full disk or a busy log costs nothing but a longer log, and the next round tries again.
fn note(done: Result<(), StoreError>, health: &Health) {
    if let Err(error) = done
        && error.is_io_failure()
    {
        health.fail(&error);
    }
}

/// What the thread owns.
struct Rounds {
    db: Database,
    catch_up: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl Rounds {
    fn work(self, nudges: &Receiver<()>) {
        while nudges.recv().is_ok() && self.health.check().is_ok() {
            note(self.round(), &self.health);
        }
    }

    fn round(&self) -> Result<(), StoreError> {
        self.db.checkpoint()?;
        self.catch_up.store(true, Ordering::Release);
        Ok(())
    }
}
