//! The door to what is stored, for one process that writes and for any number that only look.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::records::{self, Record, RecordFilter};
use super::row::{Projection, SessionFilter, SessionRow, SessionStatus, TurnState};
use super::schema::Database;
use super::{StoreError, directory, read};
use crate::event::{Event, Seq, StopReason};
use crate::id::{EventId, SessionId};
use crate::limits;

/// Reads the store. The calls block, for well under a millisecond unless a page has to come from the disk, so that
/// they are fine on an async thread; a scan of large events is the exception and belongs on a blocking one.
pub struct Reader {
    /// `None` once it is closed.
    db: Mutex<Option<Database>>,
    reading: Reading,
}

/// Held shared by every query, and alone by the writer while it completes a checkpoint: the write-ahead log cannot
/// start over while somebody reads from it. The lock prefers writers, so that constant reads do not keep it away.
pub(super) type Reading = Arc<RwLock<()>>;

impl Reader {
    /// Reads the store in `dir`, whether or not another process has it open. It takes no lock and migrates nothing.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = directory::database(dir);
        if !path.try_exists().map_err(StoreError::prepare(&path))? {
            return Err(StoreError::NoStore { dir: dir.to_owned() });
        }
        let db = Mutex::new(Some(Database::open_reader(&path)?));
        Ok(Self { db, reading: Reading::default() })
    }

    /// What the writer takes to keep this reader out for a moment.
    pub(super) fn reading(&self) -> Reading {
        Arc::clone(&self.reading)
    }

    /// The session, if there is one.
    pub fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, StoreError> {
        self.with(|db| read::session(db, id))
    }

    /// The sessions that `filter` chooses, in its order.
    pub fn sessions(
        &self,
        filter: &SessionFilter,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.with(|db| read::sessions(db, filter, limit))
    }

    /// The session of the directory `workspace` that was last at work.
    pub fn latest(&self, workspace: &Path) -> Result<Option<SessionRow>, StoreError> {
        self.with(|db| read::latest(db, workspace))
    }

    /// The one session whose id begins or ends with `given`, with or without the id's own prefix. (Ids begin with
    /// their time, so that those of one day begin alike: the end tells them apart.)
    pub fn resolve(&self, given: &str) -> Result<SessionId, StoreError> {
        self.with(|db| read::resolve(db, given))
    }

    /// The events of `session` after `after`, at most `limit` and at most [`limits::SCAN_PAGE`], in order and without
    /// gaps; fewer if they have more than [`limits::SCAN_BYTES`], and none only at the end of the log. An unknown session
    /// has none.
    pub fn scan(
        &self,
        session: &SessionId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.with(|db| read::scan(db, session, after, limit.min(limits::SCAN_PAGE)))
    }

    /// Gives all events of `session` after `after` to `visit`, page by page; the last position.
    pub fn each(
        &self,
        session: &SessionId,
        after: Seq,
        mut visit: impl FnMut(Event),
    ) -> Result<Seq, StoreError> {
        let mut seen = after;
        loop {
            let page = self.scan(session, seen, limits::SCAN_PAGE)?;
            let Some(last) = page.last() else { return Ok(seen) };
            seen = last.seq;
            page.into_iter().for_each(&mut visit);
        }
    }

    /// The events of `session` of one kind, such as `internal.rewound`, in order.
    pub fn of_kind(&self, session: &SessionId, kind: &str) -> Result<Vec<Event>, StoreError> {
        self.with(|db| read::of_kind(db, session, kind))
    }

    /// The event of that id, if the session has it.
    pub fn event(&self, session: &SessionId, id: &EventId) -> Result<Option<Event>, StoreError> {
        self.with(|db| read::event_of(db, session, id))
    }

    /// The record of that kind and id, if there is one.
    pub fn record(&self, kind: &str, id: &str) -> Result<Option<Record>, StoreError> {
        self.with(|db| records::record(db, kind, id))
    }

    /// The records that `filter` chooses, the newest first.
    pub fn records(&self, filter: &RecordFilter, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.with(|db| records::records(db, filter, limit))
    }

    /// A record as it was at that revision, if it still is or was kept.
    pub fn record_version(
        &self,
        kind: &str,
        id: &str,
        revision: u64,
    ) -> Result<Option<Record>, StoreError> {
        self.with(|db| records::version(db, kind, id, revision))
    }

    /// A record's revisions below `before` that can still be read, the newest first.
    pub fn record_versions(
        &self,
        kind: &str,
        id: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.with(|db| records::versions(db, kind, id, before, limit))
    }

    /// What became of the session's last turn.
    pub fn turn(&self, row: &SessionRow) -> Result<TurnState, StoreError> {
        self.with(|db| {
            Ok(match (row.status, &row.stop_reason) {
                (SessionStatus::Running | SessionStatus::Rescheduling, _) => {
                    // Whoever takes over a store appends to every session that it goes on with.
                    let since = directory::held_since(db.directory())?;
                    let at = std::time::SystemTime::from(row.updated_at);
                    if since.is_some_and(|since| at >= since) {
                        TurnState::Running
                    } else {
                        TurnState::Interrupted
                    }
                }
                (SessionStatus::Terminated, _) => TurnState::Done,
                (SessionStatus::Idle, None) => TurnState::New,
                (SessionStatus::Idle, Some(StopReason::RequiresAction { .. })) => {
                    TurnState::Waiting
                }
                (
                    SessionStatus::Idle,
                    Some(
                        StopReason::RetriesExhausted
                        | StopReason::BudgetReached
                        | StopReason::Refusal,
                    ),
                ) => TurnState::Failed,
                (SessionStatus::Idle, Some(StopReason::EndTurn)) => {
                    if read::was_interrupted(db, &row.id)? {
                        TurnState::Interrupted
                    } else {
                        TurnState::Done
                    }
                }
            })
        })
    }

    /// The inputs of `session` that wait to be taken up, in order.
    pub fn queued(&self, session: &SessionId) -> Result<Vec<Event>, StoreError> {
        self.with(|db| read::queued(db, session))
    }

    /// Checks that the row of `session` is the fold of its log. Not to be called while the session is appended to.
    pub fn verify(&self, session: &SessionId) -> Result<(), StoreError> {
        let missing = || StoreError::NoSession { session: session.clone() };
        let created_at = self.session(session)?.ok_or_else(missing)?.created_at;
        let row = self.with(|db| read::projection(db, session))?;
        let (_, _, row) = row.ok_or_else(missing)?;
        let mut log = Projection::new(created_at);
        self.each(session, 0, |event| log.apply(event.created_at, &event.body))?;
        if row == log {
            return Ok(());
        }
        let (row, log) = (format!("{row:?}"), format!("{log:?}"));
        Err(StoreError::Diverged { session: session.clone(), row, log })
    }

    /// The position of the last event of `id`, if there is such a session.
    pub(super) fn head(&self, id: &SessionId) -> Result<Option<Seq>, StoreError> {
        self.with(|db| Ok(read::projection(db, id)?.map(|(_, _, projection)| projection.head)))
    }

    /// Every later call answers [`StoreError::Closed`].
    pub(super) fn close(&self) {
        drop(self.db.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn with<T>(
        &self,
        query: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A query that panicked has changed nothing.
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let _reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
        query(db.as_ref().ok_or(StoreError::Closed)?)
    }
}
