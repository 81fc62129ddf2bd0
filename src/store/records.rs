//! Records: definitions that doors make and change, such as agents and environments. The store does not look into them.
//!
//! A record has a revision that grows by one with each change. A change names the revision that it was made from, so that
//! of two who change at once one is told. A change may keep what was there: that is how an agent has versions.

use rusqlite::types::Type;
use rusqlite::{ErrorCode, OptionalExtension, Row, params};
use serde_json::Value;

use super::row::SessionStatus;
use super::schema::Database;
use super::writer::{Done, Effect};
use super::{Origin, StoreError, read};
use crate::clock::{Timestamp, from_millis};
use crate::id::SessionId;

/// A record to be made; its revision is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// What it is, such as `agent`.
    pub kind: &'static str,
    /// Minted by the caller; unique over all kinds.
    pub id: String,
    /// What it goes with, such as a session.
    pub owner: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// The rest.
    pub body: Value,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place in lists: later records have greater ones.
    pub key: i64,
    /// See [`NewRecord::id`].
    pub id: String,
    /// See [`NewRecord::owner`].
    pub owner: Option<String>,
    /// From 1.
    pub revision: u64,
    /// See [`NewRecord::created_at`].
    pub created_at: Timestamp,
    /// When this revision was made.
    pub updated_at: Timestamp,
    /// When it was archived, if it was.
    pub archived_at: Option<Timestamp>,
    /// See [`NewRecord::body`].
    pub body: Value,
}

/// A change of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordChange {
    /// The new body.
    pub body: Value,
    /// When the change was made.
    pub at: Timestamp,
    /// Whether the old body can still be read, by its revision.
    pub keep_old: bool,
}

/// Chooses records. The default of all but the kind chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Of this kind.
    pub kind: &'static str,
    /// That go with this.
    pub owner: Option<String>,
    /// Archived ones too.
    pub archived: bool,
    /// Created then or later.
    pub created_from: Option<Timestamp>,
    /// Created then or earlier.
    pub created_to: Option<Timestamp>,
    /// Older than the record of this key.
    pub before: Option<i64>,
}

const RECORD: &str =
    "SELECT key, id, owner, revision, created_at, updated_at, archived_at, body FROM record";

pub(super) fn put(db: &Database, new: &NewRecord) -> Result<Done<Record>, StoreError> {
    let inserted = db
        .conn
        .prepare_cached(
            "INSERT INTO record (kind, id, owner, revision, created_at, updated_at, body)
             VALUES (?1, ?2, ?3, 1, ?4, ?4, ?5)",
        )
        .and_then(|mut insert| {
            let at = new.created_at.as_millisecond();
            insert.insert(params![new.kind, new.id, new.owner, at, new.body.to_string()])
        });
    match inserted {
        Ok(_) => {}
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Err(StoreError::RecordExists { id: new.id.clone() });
        }
        Err(error) => return Err(db.failed("store a record")(error)),
    }
    let value = record(db, new.kind, &new.id)?;
    let value = value.ok_or_else(|| StoreError::NoRecord { id: new.id.clone() })?;
    Ok(Done { value, effect: Effect::None })
}

/// All of them, or none.
pub(super) fn put_all(db: &Database, new: &[NewRecord]) -> Result<Done<Vec<Record>>, StoreError> {
    db.atomically(|| {
        let records = new.iter().map(|new| put(db, new).map(|done| done.value));
        Ok(Done { value: records.collect::<Result<_, _>>()?, effect: Effect::None })
    })
}

pub(super) fn change(
    db: &Database,
    kind: &'static str,
    id: &str,
    revision: u64,
    change: &RecordChange,
) -> Result<Done<Record>, StoreError> {
    db.atomically(|| {
        let missing = || StoreError::NoRecord { id: id.to_owned() };
        let old = record(db, kind, id)?.ok_or_else(missing)?;
        if old.revision != revision {
            return Err(StoreError::StaleRecord {
                id: old.id,
                given: revision,
                current: old.revision,
            });
        }
        if old.archived_at.is_some() {
            return Err(StoreError::ArchivedRecord { id: old.id });
        }
        let failed = || db.failed("change a record");
        if change.keep_old {
            let (at, body) = (old.updated_at.as_millisecond(), old.body.to_string());
            db.conn
                .prepare_cached("INSERT INTO record_version VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut insert| {
                    insert.execute(params![old.key, old.revision.cast_signed(), at, body])
                })
                .map_err(failed())?;
        }
        db.conn
            .prepare_cached(
                "UPDATE record SET revision = revision + 1, updated_at = ?2, body = ?3 WHERE key = ?1",
            )
            .and_then(|mut update| {
                let at = change.at.as_millisecond();
                update.execute(params![old.key, at, change.body.to_string()])
            })
            .map_err(failed())?;
        let value = record(db, kind, id)?.ok_or_else(missing)?;
        Ok(Done { value, effect: Effect::None })
    })
}

/// One that is archived already stays as it is; the revision does so in any case.
pub(super) fn archive(
    db: &Database,
    kind: &str,
    id: &str,
    at: Timestamp,
) -> Result<Done<Record>, StoreError> {
    db.conn
        .prepare_cached(
            "UPDATE record SET archived_at = ?3, updated_at = ?3
             WHERE id = ?1 AND kind = ?2 AND archived_at IS NULL",
        )
        .and_then(|mut update| update.execute(params![id, kind, at.as_millisecond()]))
        .map_err(db.failed("archive a record"))?;
    let value = record(db, kind, id)?.ok_or_else(|| StoreError::NoRecord { id: id.to_owned() })?;
    Ok(Done { value, effect: Effect::None })
}

/// Refuses a session that is made of what was archived or deleted meanwhile.
pub(super) fn check_origin(db: &Database, origin: &Origin) -> Result<(), StoreError> {
    for id in [origin.agent_id.as_str(), origin.environment_id.as_str()] {
        let archived = db
            .conn
            .prepare_cached("SELECT archived_at IS NOT NULL FROM record WHERE id = ?1")
            .and_then(|mut select| select.query_row([id], |row| row.get(0)).optional())
            .map_err(db.failed("read a record"))?;
        match archived {
            Some(false) => {}
            Some(true) => return Err(StoreError::ArchivedRecord { id: id.to_owned() }),
            None => return Err(StoreError::NoRecord { id: id.to_owned() }),
        }
    }
    Ok(())
}

/// One that sessions are in stays.
pub(super) fn delete(db: &Database, kind: &str, id: &str) -> Result<Done<()>, StoreError> {
    let user = db
        .conn
        .prepare_cached("SELECT id FROM session WHERE environment_id = ?1 LIMIT 1")
        .and_then(|mut select| select.query_row([id], |row| row.get(0)).optional())
        .map_err(db.failed("delete a record"))?;
    if let Some(session) = user {
        return Err(StoreError::RecordInUse { id: id.to_owned(), session });
    }
    let deleted = db
        .conn
        .prepare_cached("DELETE FROM record WHERE id = ?1 AND kind = ?2")
        .and_then(|mut delete| delete.execute([id, kind]))
        .map_err(db.failed("delete a record"))?;
    if deleted == 0 {
        return Err(StoreError::NoRecord { id: id.to_owned() });
    }
    Ok(Done { value: (), effect: Effect::None })
}

/// With it goes whatever goes with it.
pub(super) fn delete_whole(db: &Database, kind: &str, id: &str) -> Result<Done<()>, StoreError> {
    db.atomically(|| {
        let done = delete(db, kind, id)?;
        delete_of(db, id)?;
        Ok(done)
    })
}

/// Removes records and makes others, all of it or nothing, for a session that must be there and not have ended. One that is
/// to go may be gone already.
pub(super) fn exchange(
    db: &Database,
    session: SessionId,
    gone: &[(&'static str, String)],
    new: &[NewRecord],
) -> Result<Done<Vec<Record>>, StoreError> {
    db.atomically(|| {
        let Some((_, _, projection)) = read::projection(db, &session)? else {
            return Err(StoreError::NoSession { session });
        };
        if projection.status == SessionStatus::Terminated {
            return Err(StoreError::Ended { session });
        }
        for (kind, id) in gone {
            match delete(db, kind, id) {
                Ok(_) | Err(StoreError::NoRecord { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let records = new.iter().map(|new| put(db, new).map(|done| done.value));
        Ok(Done { value: records.collect::<Result<_, _>>()?, effect: Effect::None })
    })
}

/// Removes whatever goes with that.
pub(super) fn delete_of(db: &Database, owner: &str) -> Result<(), StoreError> {
    db.conn
        .prepare_cached("DELETE FROM record WHERE owner = ?1")
        .and_then(|mut delete| delete.execute([owner]))
        .map(drop)
        .map_err(db.failed("delete records"))
}

pub(super) fn record(db: &Database, kind: &str, id: &str) -> Result<Option<Record>, StoreError> {
    db.conn
        .prepare_cached(&format!("{RECORD} WHERE id = ?1 AND kind = ?2"))
        .and_then(|mut select| select.query_row([id, kind], of_row).optional())
        .map_err(db.failed("read a record"))
}

/// Newest first.
pub(super) fn records(
    db: &Database,
    filter: &RecordFilter,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    // Spelled so that the index by owner is used: it has only those that have one.
    let owner = if filter.owner.is_some() { "owner = ?2" } else { "?2 IS NULL" };
    let sql = format!(
        "{RECORD} WHERE kind = ?1 AND {owner}
             AND (?3 OR archived_at IS NULL)
             AND (?4 IS NULL OR created_at >= ?4) AND (?5 IS NULL OR created_at <= ?5)
             AND (?6 IS NULL OR key < ?6)
         ORDER BY key DESC LIMIT ?7"
    );
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
    db.conn
        .prepare_cached(&sql)
        .and_then(|mut select| {
            let chosen = params![
                filter.kind,
                filter.owner,
                filter.archived,
                millis(filter.created_from),
                millis(filter.created_to),
                filter.before,
                i64::try_from(limit).unwrap_or(i64::MAX),
            ];
            select.query_map(chosen, of_row)?.collect()
        })
        .map_err(db.failed("list records"))
}

/// The record as it was at that revision, whether it is the present one or was kept.
pub(super) fn version(
    db: &Database,
    kind: &str,
    id: &str,
    revision: u64,
) -> Result<Option<Record>, StoreError> {
    Ok(versions(db, kind, id, revision.checked_add(1), 1)?
        .into_iter()
        .find(|version| version.revision == revision))
}

/// The present revision and those that were kept, the newest first, below `before`.
pub(super) fn versions(
    db: &Database,
    kind: &str,
    id: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    let sql =
        "SELECT key, id, owner, revision, created_at, updated_at, archived_at, body FROM record
             WHERE id = ?1 AND kind = ?2 AND (?3 IS NULL OR revision < ?3)
         UNION ALL
         SELECT key, id, owner, version.revision, created_at, at, archived_at, version.body
             FROM record_version AS version JOIN record ON record.key = version.record
             WHERE id = ?1 AND kind = ?2 AND (?3 IS NULL OR version.revision < ?3)
         ORDER BY 4 DESC LIMIT ?4";
    db.conn
        .prepare_cached(sql)
        .and_then(|mut select| {
            let before = before.map(|revision| i64::try_from(revision).unwrap_or(i64::MAX));
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            select.query_map(params![id, kind, before, limit], of_row)?.collect()
        })
        .map_err(db.failed("list versions"))
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    let wrong = |e: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(7, Type::Text, Box::new(e))
    };
    Ok(Record {
        key: row.get(0)?,
        id: row.get(1)?,
        owner: row.get(2)?,
        revision: row.get::<_, i64>(3)?.cast_unsigned(),
        created_at: from_millis(row.get(4)?),
        updated_at: from_millis(row.get(5)?),
        archived_at: row.get::<_, Option<i64>>(6)?.map(from_millis),
        body: serde_json::from_str(row.get_ref(7)?.as_str()?).map_err(wrong)?,
    })
}
