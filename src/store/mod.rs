//! The only door to SQLite: the log of every session, one row per session that is a fold of it, and records.
//!
//! Owns: the data directory and its lock, the schema and its migrations, the writer thread, the checkpoints, the
//! sequence numbers, the epochs.
//! Does not: know what an event means beyond the columns of a session's row, nor look into a definition; decide what
//! to do about a crash.
//! Invariants: what was answered is on the disk, but for a claim, which is this process's. A session's sequence numbers
//! are dense from 1. A row and its log change in one transaction. Heads are raised after the commit. One process writes;
//! within it, one thread. After a write that did not reach the disk nothing more is written.
//! How to add a write: a function in `log.rs`, its method here. A query: a function in `read.rs`, its method on
//! [`Reader`]. A column: a migration in `schema.rs`, and if it follows from events, `Projection::apply` in `row.rs`.

mod checkpoint;
mod checksum;
mod directory;
mod error;
mod heads;
mod log;
mod read;
mod reader;
mod records;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

pub use error::StoreError;
pub use log::Append;
pub use reader::Reader;
pub use records::{NewRecord, Record, RecordChange, RecordFilter};
pub use row::{
    Author, CreatedRange, Epoch, Json, NewSession, Order, Origin, SessionFilter, SessionRow,
    SessionStatus, TurnState,
};

use crate::clock::Timestamp;
use crate::event::{Event, Seq};
use crate::id::SessionId;
use heads::Heads;
use log::Prepared;
use schema::Database;
use writer::Writer;

/// A moment of a commit, for the crash sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPhase {
    /// The transaction is complete but not committed: a crash here loses it.
    Before,
    /// It is on the disk and nobody has been told: a crash here must not lose it.
    After,
}

/// Called on the writer thread with the number of the commit since the store was opened, from 1.
pub type CommitHook = Box<dyn Fn(u64, CommitPhase) + Send>;

/// How to open a store. The default is right for everyone but the crash sweep.
#[derive(Default)]
pub struct Options {
    /// Called around every commit, so that a test can end the process there.
    pub on_commit: Option<CommitHook>,
}

/// The open store of this process. Clones are the same store.
///
/// Dropping the last clone does what [`Store::close`] does, and blocks for it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    reader: Reader,
    heads: Arc<Heads>,
    writer: Writer,
}

impl Store {
    /// Opens the store in `dir`, which is made if it is missing and held until the store is closed. Blocks for a few
    /// milliseconds; a directory that another process holds is an error at once.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Options::default())
    }

    /// The same, with options.
    pub fn open_with(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let held = directory::hold(dir)?;
        let db = Database::open(&directory::database(dir))?;
        let reader = Reader::open(dir)?;
        let heads = Arc::new(Heads::default());
        let writer =
            Writer::start(db, held, Arc::clone(&heads), reader.reading(), options.on_commit)?;
        Ok(Self(Arc::new(Inner { reader, heads, writer })))
    }

    /// Opens the store in `dir` only to look at it. It may be in use by another process.
    pub fn open_read_only(dir: &Path) -> Result<Reader, StoreError> {
        Reader::open(dir)
    }

    /// Reads what is committed.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// Creates a session whose log begins with these events, if there are any; all or nothing.
    pub async fn create_session(
        &self,
        new: NewSession,
        events: impl Into<Append>,
    ) -> Result<SessionRow, StoreError> {
        let events = Prepared::new(new.id.clone(), Author::Client, events.into())?;
        self.0.writer.write(events.bytes(), move |db| log::create(db, &new, events)).await
    }

    /// Creates a session whose log begins as that of `from` up to `last`, and goes on with `events`; all or nothing.
    pub async fn fork_session(
        &self,
        new: NewSession,
        from: &SessionId,
        last: Seq,
        events: impl Into<Append>,
    ) -> Result<SessionRow, StoreError> {
        let more = Prepared::new(new.id.clone(), Author::Client, events.into())?;
        let from = from.clone();
        self.0.writer.write(more.bytes(), move |db| log::fork(db, &new, &from, last, more)).await
    }

    /// Makes the caller the session's driver: appends of earlier drivers fail from now on. They are of this process: a
    /// claim that a crash takes back goes with everyone whom it could concern.
    pub async fn claim(&self, session: &SessionId) -> Result<Epoch, StoreError> {
        let session = session.clone();
        self.0.writer.write_fleeting(move |db| log::claim(db, &session)).await
    }

    /// Puts events at the end of the session's log, all or none, and returns them with their positions once they are
    /// on the disk. A caller that stops waiting may find them in the log nevertheless.
    pub async fn append(
        &self,
        session: &SessionId,
        author: Author,
        append: impl Into<Append>,
    ) -> Result<Vec<Event>, StoreError> {
        let new = Prepared::new(session.clone(), author, append.into())?;
        self.0.writer.write(new.bytes(), move |db| log::append(db, new)).await
    }

    /// Removes a session, its log and the records that go with it, if it still ends there. Who watches its head sees the
    /// channel closed.
    pub async fn delete_session(&self, session: &SessionId, at: Seq) -> Result<(), StoreError> {
        let session = session.clone();
        self.0.writer.write(0, move |db| log::delete(db, session, at)).await
    }

    /// Makes a record.
    pub async fn put_record(&self, new: NewRecord) -> Result<Record, StoreError> {
        self.0.writer.write(0, move |db| records::put(db, &new)).await
    }

    /// Makes records that belong together: all of them, or none.
    pub async fn put_records(&self, new: Vec<NewRecord>) -> Result<Vec<Record>, StoreError> {
        self.0.writer.write(0, move |db| records::put_all(db, &new)).await
    }

    /// Removes records of a session and makes others that go with it, all or nothing: it must be there and not have
    /// ended. What is to go may be gone already.
    pub async fn exchange_records(
        &self,
        session: &SessionId,
        gone: Vec<(&'static str, String)>,
        new: Vec<NewRecord>,
    ) -> Result<Vec<Record>, StoreError> {
        let session = session.clone();
        self.0.writer.write(0, move |db| records::exchange(db, session, &gone, &new)).await
    }

    /// Changes a record that still has `revision`.
    pub async fn change_record(
        &self,
        kind: &'static str,
        id: &str,
        revision: u64,
        change: RecordChange,
    ) -> Result<Record, StoreError> {
        let id = id.to_owned();
        let write = move |db: &Database| records::change(db, kind, &id, revision, &change);
        self.0.writer.write(0, write).await
    }

    /// Archives a record, unless it is archived already.
    pub async fn archive_record(
        &self,
        kind: &'static str,
        id: &str,
        at: Timestamp,
    ) -> Result<Record, StoreError> {
        let id = id.to_owned();
        self.0.writer.write(0, move |db| records::archive(db, kind, &id, at)).await
    }

    /// Removes a record and what was kept of it.
    pub async fn delete_record(&self, kind: &'static str, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.0.writer.write(0, move |db| records::delete(db, kind, &id)).await
    }

    /// Removes a record and all that goes with it.
    pub async fn delete_record_whole(
        &self,
        kind: &'static str,
        id: &str,
    ) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.0.writer.write(0, move |db| records::delete_whole(db, kind, &id)).await
    }

    /// The position of the session's last committed event, now and from now on: look at the value first, then wait for
    /// changes. The channel closes with the session or the store.
    pub fn head(&self, session: &SessionId) -> Result<watch::Receiver<Seq>, StoreError> {
        // Watching before reading: a commit between the two is not missed.
        let mut watcher = self.0.heads.watch(session);
        match self.0.reader.head(session)? {
            Some(head) => {
                self.0.heads.raise(session, head);
                watcher.mark_unchanged();
                Ok(watcher)
            }
            None => {
                self.0.heads.close(session);
                Err(StoreError::NoSession { session: session.clone() })
            }
        }
    }

    /// Writes what is queued, copies the write-ahead log into the database and lets the directory go. Other clones
    /// answer [`StoreError::Closed`] afterwards.
    pub async fn close(self) {
        self.0.reader.close();
        self.0.writer.close().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer, which is dropped next, is to be the last connection: it removes the write-ahead log.
        self.reader.close();
    }
}
