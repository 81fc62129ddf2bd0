//! What can go wrong at the store, and how SQLite's codes become it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::Epoch;
use crate::event::Seq;
use crate::id::{EventId, SessionId};
use crate::limits;

/// Why the store did not do what it was asked.
///
/// Cheap to clone: one failed commit is the answer to every append that it carried.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no store at that place.
    #[error("no sessions are stored in {}", dir.display())]
    NoStore {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory or a file in it could not be made or read.
    #[error("prepare {}", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The data directory belongs to another user.
    #[error("use {}: it belongs to user {owner}, not to you", dir.display())]
    ForeignDir {
        /// The data directory.
        dir: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// Another process holds the data directory.
    #[error("open the data directory {}: it is in use by {}", dir.display(), match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    })]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it, as far as it has told.
        pid: Option<u32>,
    },
    /// The file is no SQLite database, or one of another program.
    #[error("open {}: it is not a casemate store", path.display())]
    NotAStore {
        /// The database file.
        path: PathBuf,
    },
    /// A newer casemate has written the file.
    #[error("open {}: its format is {found}, this casemate knows up to {known}; update casemate", path.display())]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// An older casemate has written the file, and a reader does not migrate.
    #[error("read {}: its format is {found}, not {known} yet; start a session once to migrate it", path.display())]
    OlderFormat {
        /// The database file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// The database file does not hold together.
    #[error("{doing}: the database {} is damaged", path.display())]
    Damaged {
        /// What was being done.
        doing: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        source: Arc<rusqlite::Error>,
    },
    /// A stored event is not what was written, or missing. Other sessions are not affected.
    #[error("read event {seq} of session {session}: {what}")]
    DamagedEvent {
        /// The session.
        session: SessionId,
        /// The event's position.
        seq: Seq,
        /// How it is damaged.
        what: &'static str,
    },
    /// The session's row is not the fold of its log.
    #[error("verify session {session}: the row says {row}, the log says {log}")]
    Diverged {
        /// The session.
        session: SessionId,
        /// What the row holds.
        row: String,
        /// What the log folds to.
        log: String,
    },
    /// There is no such session.
    #[error("find session {session}: there is none")]
    NoSession {
        /// The session.
        session: SessionId,
    },
    /// There is no such record.
    #[error("find {id}: there is none")]
    NoRecord {
        /// What was named.
        id: String,
    },
    /// There is such a record already.
    #[error("store {id}: there is one already")]
    RecordExists {
        /// Its id.
        id: String,
    },
    /// Somebody else changed the record first.
    #[error("change {id}: its revision is {current}, not {given}")]
    StaleRecord {
        /// Its id.
        id: String,
        /// The revision that the change was made from.
        given: u64,
        /// The one that it has.
        current: u64,
    },
    /// What is archived does not change, and no session is made of it.
    #[error("use {id}: it is archived")]
    ArchivedRecord {
        /// Its id.
        id: String,
    },
    /// Sessions are in it.
    #[error("delete {id}: the session {session} is in it")]
    RecordInUse {
        /// Its id.
        id: String,
        /// One of them.
        session: String,
    },
    /// No session's id begins or ends like that.
    #[error("find a session by `{given}`: no id begins or ends like that")]
    NoMatch {
        /// What was given.
        given: String,
    },
    /// More than one session's id begins or ends like that.
    #[error(
        "find a session by `{given}`: {} and others match, give more characters",
        join(matches)
    )]
    Ambiguous {
        /// What was given.
        given: String,
        /// Some of the sessions that match.
        matches: Vec<SessionId>,
    },
    /// A session of that id is there already.
    #[error("create session {session}: it exists")]
    SessionExists {
        /// The session.
        session: SessionId,
    },
    /// A later driver has claimed the session.
    #[error("append to session {session} as driver {given}: driver {current} has taken over")]
    StaleEpoch {
        /// The session.
        session: SessionId,
        /// The caller's epoch.
        given: Epoch,
        /// The epoch in force.
        current: Epoch,
    },
    /// The log went on since the caller looked at it.
    #[error("append to session {session}: its log has gone on")]
    Moved {
        /// The session.
        session: SessionId,
    },
    /// The session has ended for good.
    #[error("append to session {session}: it has ended")]
    Ended {
        /// The session.
        session: SessionId,
    },
    /// The session has an event of that id already.
    #[error("append to session {session}: event {event} is in its log already")]
    DuplicateEvent {
        /// The session.
        session: SessionId,
        /// The event.
        event: EventId,
    },
    /// The event to be marked as processed is not in the log, or was marked before.
    #[error("mark event {event} of session {session} as processed: it is not waiting")]
    NotQueued {
        /// The session.
        session: SessionId,
        /// The event.
        event: EventId,
    },
    /// One event is larger than [`limits::MAX_EVENT_BYTES`].
    #[error("append event {event}: it has {bytes} bytes, the bound is {}", limits::MAX_EVENT_BYTES)]
    EventTooLarge {
        /// The event.
        event: EventId,
        /// The size of its body.
        bytes: usize,
    },
    /// One append has more events than [`limits::MAX_EVENTS_PER_APPEND`].
    #[error("append {count} events at once: the bound is {}", limits::MAX_EVENTS_PER_APPEND)]
    TooManyEvents {
        /// How many were given.
        count: usize,
    },
    /// The disk is full. Nothing was written; the same call may succeed once there is space.
    #[error("{doing}: the disk that holds {} is full; free some space and try again", path.display())]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// The database file.
        path: PathBuf,
    },
    /// An earlier write did not reach the disk. Reads go on; writes need a new process, which replays the log.
    #[error("write to {}: an earlier write failed and nothing is written until a restart: {reason}", path.display())]
    Failed {
        /// The database file.
        path: PathBuf,
        /// The first failure.
        reason: Arc<str>,
    },
    /// The store was closed.
    #[error("use the store: it is closed")]
    Closed,
    /// Any other answer of SQLite.
    #[error("{doing} in {}", path.display())]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        source: Arc<rusqlite::Error>,
    },
}

fn join(ids: &[SessionId]) -> String {
    ids.iter().map(SessionId::as_str).collect::<Vec<_>>().join(", ")
}

impl StoreError {
    /// Wraps what the system said about `path`.
    pub(super) fn prepare(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Prepare { path, source: Arc::new(source) }
    }

    /// Wraps what SQLite said while the store was `doing` something to `path`.
    pub(super) fn sqlite(doing: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::DiskFull { doing, path },
                Some(ErrorCode::DatabaseCorrupt) => {
                    Self::Damaged { doing, path, source: Arc::new(source) }
                }
                Some(ErrorCode::NotADatabase) => Self::NotAStore { path },
                _ => Self::Sqlite { doing, path, source: Arc::new(source) },
            }
        }
    }

    /// Whether the file can no longer be trusted to hold what is written to it.
    pub(super) fn is_io_failure(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
            }
            _ => false,
        }
    }
}
