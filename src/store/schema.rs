//! Tables and their migrations; how a connection is opened.
//!
//! How to add a migration: one more entry at the end of [`MIGRATIONS`]; an entry that was released never changes.
//!
//! Layout, each choice measured:
//! - events are a rowid table with an index by (session, seq): clustered by session they take three times the disk;
//! - the index by event id leads with the id, which sorts by time: its writes stay on the last page;
//! - what changes (`projection`) is apart from what seldom does (`session`): a definition of many kilobytes is not
//!   rewritten with every event;
//! - `body` is the last column: scans that do not want it do not follow its overflow pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{StoreError, directory};
use crate::limits;

/// Marks the file as casemate's: `file(1)` and we ourselves look at it. ("case" in ASCII.)
const APPLICATION_ID: i32 = 0x6361_7365;

/// Format `n` is reached by the first `n` entries.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE session (
        key        INTEGER PRIMARY KEY,
        id         TEXT NOT NULL UNIQUE,
        title      TEXT,
        workspace  BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        definition TEXT NOT NULL
    ) STRICT;
    CREATE INDEX session_by_workspace ON session (workspace);

    CREATE TABLE projection (
        session                     INTEGER PRIMARY KEY REFERENCES session ON DELETE CASCADE,
        epoch                       INTEGER NOT NULL,
        head                        INTEGER NOT NULL,
        updated_at                  INTEGER NOT NULL,
        status                      TEXT NOT NULL,
        stop_reason                 TEXT,
        input_tokens                INTEGER NOT NULL,
        output_tokens               INTEGER NOT NULL,
        cache_creation_input_tokens INTEGER NOT NULL,
        cache_read_input_tokens     INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE event (
        session      INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
        seq          INTEGER NOT NULL,
        id           TEXT NOT NULL,
        created_at   INTEGER NOT NULL,
        processed_at INTEGER,
        checksum     INTEGER NOT NULL,
        body         TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX event_by_seq ON event (session, seq);
    CREATE UNIQUE INDEX event_by_id ON event (id, session);
",
    "
    CREATE TABLE record (
        key         INTEGER PRIMARY KEY AUTOINCREMENT,
        kind        TEXT NOT NULL,
        id          TEXT NOT NULL UNIQUE,
        owner       TEXT,
        revision    INTEGER NOT NULL,
        created_at  INTEGER NOT NULL,
        updated_at  INTEGER NOT NULL,
        archived_at INTEGER,
        body        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX record_by_kind ON record (kind, key);
    CREATE INDEX record_by_owner ON record (owner, kind, key) WHERE owner IS NOT NULL;

    CREATE TABLE record_version (
        record   INTEGER NOT NULL REFERENCES record ON DELETE CASCADE,
        revision INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        body     TEXT NOT NULL,
        PRIMARY KEY (record, revision)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE session ADD COLUMN agent_id TEXT;
    ALTER TABLE session ADD COLUMN agent_version INTEGER;
    ALTER TABLE session ADD COLUMN environment_id TEXT;
    ALTER TABLE session ADD COLUMN vault_ids TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE session ADD COLUMN agent TEXT NOT NULL DEFAULT 'null';
    ALTER TABLE session ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE session ADD COLUMN budget TEXT NOT NULL DEFAULT 'null';
    CREATE INDEX session_by_agent ON session (agent_id, agent_version);
    CREATE INDEX session_by_environment ON session (environment_id);

    ALTER TABLE projection ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE projection ADD COLUMN active_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE projection ADD COLUMN running_since INTEGER;
    ALTER TABLE projection ADD COLUMN last_fact_at INTEGER;
    ALTER TABLE projection ADD COLUMN archived_at INTEGER;
    ALTER TABLE projection ADD COLUMN terminated_at INTEGER;
",
    "
    CREATE INDEX event_queued ON event (session, seq) WHERE processed_at IS NULL;
",
    "
    ALTER TABLE projection ADD COLUMN web_searches INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE projection ADD COLUMN web_pages INTEGER NOT NULL DEFAULT 0;
",
];

/// The newest format.
pub(super) const FORMAT: u32 = MIGRATIONS.len() as u32;

/// Time to wait for a lock of SQLite's own. Only a foreign program (a shell on the file) ever holds one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements kept prepared per connection: more than there are.
const STATEMENTS: usize = 48;

/// One connection to the database file.
pub(super) struct Database {
    pub(super) conn: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens the database for writing; makes it if it is missing, migrates it if it is old.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.try_exists().map_err(StoreError::prepare(path))? {
            create(path)?;
        }
        directory::tighten_file(path)?;
        let db = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let found = db.format()?;
        db.configure()?;
        migrate(&db.conn, found).map_err(db.failed("migrate the store"))?;
        Ok(db)
    }

    /// A further connection to an open store, for the checkpoint thread.
    pub(super) fn open_beside(path: &Path) -> Result<Self, StoreError> {
        let db = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.configure()?;
        Ok(db)
    }

    /// A connection that cannot write.
    pub(super) fn open_reader(path: &Path) -> Result<Self, StoreError> {
        let db = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match db.format()? {
            FORMAT => Ok(db),
            found => Err(StoreError::OlderFormat { path: db.path, found, known: FORMAT }),
        }
    }

    fn connect(path: &Path, access: OpenFlags) -> Result<Self, StoreError> {
        // One thread at a time uses a connection (owned, or behind a mutex): SQLite's own mutexes are not needed.
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)
            .map_err(StoreError::sqlite("open the store", path))?;
        let db = Self { conn, path: path.to_owned() };
        // The planner may not look at bound values: otherwise each new value may have the statement compiled anew.
        db.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .and_then(|_| db.conn.busy_timeout(BUSY_TIMEOUT))
            .map_err(db.failed("open the store"))?;
        db.conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(db)
    }

    /// The format of the file, if it is ours to read.
    fn format(&self) -> Result<u32, StoreError> {
        let pragma = |name| {
            self.conn
                .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
                .map_err(self.failed("read the header"))
        };
        if pragma("application_id")? != APPLICATION_ID {
            return Err(StoreError::NotAStore { path: self.path.clone() });
        }
        let found = pragma("user_version")?.unsigned_abs();
        if found > FORMAT {
            return Err(StoreError::NewerFormat { path: self.path.clone(), found, known: FORMAT });
        }
        Ok(found)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it lies.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().expect("the database is a file in the data directory")
    }

    /// Wraps what SQLite said.
    pub(super) fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
        StoreError::sqlite(doing, &self.path)
    }

    /// Runs a statement that takes and gives nothing.
    pub(super) fn run(&self, sql: &'static str) -> Result<(), StoreError> {
        let done = self.conn.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        done.map(drop).map_err(self.failed("write"))
    }

    /// When commits wait for the disk. Never prepared: SQLite acts upon it while it reads it, and not again after.
    pub(super) fn set_synchronous(&self, level: &str) -> Result<(), StoreError> {
        let done = self.conn.pragma_update(None, "synchronous", level);
        done.map_err(self.failed("say when to wait for the disk"))
    }

    /// Does `work` all or not at all, within the open transaction.
    pub(super) fn atomically<T>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.run("SAVEPOINT work")?;
        let done = work();
        // A full disk, for one, may have ended the transaction by itself.
        if done.is_err() && !self.conn.is_autocommit() {
            self.run("ROLLBACK TO work")?;
        }
        if !self.conn.is_autocommit() {
            self.run("RELEASE work")?;
        }
        done
    }

    /// Copies what it can of the write-ahead log into the database, without holding anyone up.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let done = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        done.map_err(self.failed("checkpoint"))
    }

    fn configure(&self) -> Result<(), StoreError> {
        // The journal of savepoints is a temporary file beyond 64 KiB, unless `temp_store` says otherwise: making one
        // per transaction halves the speed.
        let sql = format!(
            "PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = {};
             PRAGMA cache_size = -{};",
            limits::LOG_KEPT_BYTES,
            limits::PAGE_CACHE_BYTES / 1024,
        );
        // Only `close` may copy the log by closing: a connection that is dropped after a failure leaves it alone.
        let kept = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        self.conn
            .execute_batch(&sql)
            .and_then(|()| self.conn.set_db_config(kept, true))
            .map(drop)
            .map_err(self.failed("configure a connection"))
    }

    /// Closes the last connection: copies the write-ahead log into the database and removes it.
    pub(super) fn close(self) -> Result<(), StoreError> {
        let Self { conn, path } = self;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .and_then(|_| conn.close().map_err(|(_, error)| error))
            .map_err(StoreError::sqlite("close the store", &path))
    }
}

/// Builds the database under another name and moves it into place: a crash leaves all of it or nothing, and one sync
/// does. The directory is synced by SQLite with the first commit, before which there is nothing to lose.
fn create(path: &Path) -> Result<(), StoreError> {
    let draft = path.with_extension("db.new");
    // The log of a database that is gone would be replayed into the new one.
    for leftover in ["db-wal", "db-shm", "db.new", "db.new-wal", "db.new-shm"] {
        directory::remove_file(&path.with_extension(leftover))?;
    }
    directory::new_file(&draft)?;
    let Database { conn, .. } = Database::connect(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let built = conn
        .execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;",
        )
        .and_then(|()| conn.pragma_update(None, "application_id", APPLICATION_ID))
        .and_then(|()| migrate(&conn, 0))
        .and_then(|()| conn.execute_batch("PRAGMA journal_mode = WAL;"))
        .and_then(|()| conn.close().map_err(|(_, error)| error));
    built.map_err(StoreError::sqlite("create the store", path))?;
    directory::sync(&draft)?;
    fs::rename(&draft, path).map_err(StoreError::prepare(path))
}

/// Applies each migration after `found` in a transaction of its own, together with the format that it reaches.
fn migrate(conn: &Connection, found: u32) -> rusqlite::Result<()> {
    for (format, sql) in (1..).zip(MIGRATIONS).skip(found as usize) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {sql}; PRAGMA user_version = {format}; COMMIT;"
        ))?;
    }
    Ok(())
}
