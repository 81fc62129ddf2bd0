//! The writes: each a function that runs inside of the writer's transaction and does all of its work or nothing.
//!
//! A single statement is atomic by itself; what takes several that may fail runs `atomically`.

use std::os::unix::ffi::OsStrExt;

use rusqlite::{ErrorCode, OptionalExtension, params};

use super::row::{Author, Epoch, NewSession, Projection, SessionRow};
use super::schema::Database;
use super::writer::{Done, Effect};
use super::{StoreError, checksum, read};
use crate::clock::{Timestamp, from_millis};
use crate::event::{Event, NewEvent, Seq};
use crate::id::{EventId, SessionId};
use crate::limits;

/// What one append puts into a session's log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Append {
    /// New facts, in order.
    pub events: Vec<NewEvent>,
    /// Queued events of earlier appends that the session takes up now, and when.
    pub processed: Vec<(EventId, Timestamp)>,
}

impl From<Vec<NewEvent>> for Append {
    fn from(events: Vec<NewEvent>) -> Self {
        Self { events, processed: Vec::new() }
    }
}

/// An append within its bounds, serialized before the writer thread sees it.
pub(super) struct Prepared {
    session: SessionId,
    author: Author,
    events: Vec<(NewEvent, String)>,
    processed: Vec<(EventId, Timestamp)>,
}

impl Prepared {
    pub(super) fn new(
        session: SessionId,
        author: Author,
        Append { events, processed }: Append,
    ) -> Result<Self, StoreError> {
        let count = events.len().max(processed.len());
        if count > limits::MAX_EVENTS_PER_APPEND {
            return Err(StoreError::TooManyEvents { count });
        }
        let events = events.into_iter().map(|event| {
            let body =
                serde_json::to_string(&event.body).expect("an event body has string keys only");
            if body.len() > limits::MAX_EVENT_BYTES {
                return Err(StoreError::EventTooLarge { event: event.id, bytes: body.len() });
            }
            Ok((event, body))
        });
        Ok(Self { session, author, events: events.collect::<Result<_, _>>()?, processed })
    }

    /// The size of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|(_, body)| body.len()).sum()
    }
}

pub(super) fn create(db: &Database, new: &NewSession) -> Result<Done<SessionRow>, StoreError> {
    let failed = || db.failed("create a session");
    let definition = new.definition.to_string();
    let inserted = db
        .conn
        .prepare_cached(
            "INSERT INTO session (id, title, workspace, created_at, definition)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut insert| {
            insert.insert(params![
                new.id.as_str(),
                new.title,
                new.workspace.as_os_str().as_bytes(),
                new.created_at.as_millisecond(),
                definition,
            ])
        });
    let key = match inserted {
        Ok(key) => key,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Err(StoreError::SessionExists { session: new.id.clone() });
        }
        Err(error) => return Err(failed()(error)),
    };
    db.conn
        .prepare_cached("INSERT INTO projection VALUES (?1, 0, 0, ?2, 'idle', NULL, 0, 0, 0, 0)")
        .and_then(|mut insert| insert.execute(params![key, new.created_at.as_millisecond()]))
        .map_err(failed())?;
    let value = read::session(db, &new.id)?
        .ok_or_else(|| StoreError::NoSession { session: new.id.clone() })?;
    Ok(Done { value, effect: Effect::None })
}

/// The rows of the other log are taken as they are: no checksum names its session.
pub(super) fn fork(
    db: &Database,
    new: &NewSession,
    from: &SessionId,
    last: Seq,
    more: Prepared,
) -> Result<Done<SessionRow>, StoreError> {
    db.atomically(|| {
        create(db, new)?;
        let copied = db
            .conn
            .prepare_cached(
                "INSERT INTO event (session, seq, id, created_at, processed_at, checksum, body)
                 SELECT (SELECT key FROM session WHERE id = ?1), seq, id, created_at,
                     processed_at, checksum, body FROM event
                 WHERE session = (SELECT key FROM session WHERE id = ?2) AND seq <= ?3
                 ORDER BY seq",
            )
            .and_then(|mut insert| {
                insert.execute(params![new.id.as_str(), from.as_str(), last.cast_signed()])
            })
            .map_err(db.failed("copy a log"))?;
        if copied as u64 != last {
            return Err(StoreError::NoSession { session: from.clone() });
        }
        project_anew(db, new)?;
        append_all(db, more)?;
        let value = read::session(db, &new.id)?
            .ok_or_else(|| StoreError::NoSession { session: new.id.clone() })?;
        Ok(Done { value, effect: Effect::None })
    })
}

/// Folds the whole log of a session into its row.
fn project_anew(db: &Database, new: &NewSession) -> Result<(), StoreError> {
    let missing = || StoreError::NoSession { session: new.id.clone() };
    let (key, _, mut projection) = read::projection(db, &new.id)?.ok_or_else(missing)?;
    loop {
        let page = read::scan(db, &new.id, projection.head, limits::SCAN_PAGE)?;
        if page.is_empty() {
            return project(db, key, &projection);
        }
        page.iter().for_each(|event| projection.apply(event.created_at, &event.body));
    }
}

pub(super) fn claim(db: &Database, session: &SessionId) -> Result<Done<Epoch>, StoreError> {
    let epoch = db
        .conn
        .prepare_cached(
            "UPDATE projection SET epoch = epoch + 1
             WHERE session = (SELECT key FROM session WHERE id = ?1) RETURNING epoch",
        )
        .and_then(|mut update| {
            let epoch = update.query_row([session.as_str()], |row| row.get::<_, i64>(0));
            epoch.optional()
        })
        .map_err(db.failed("claim a session"))?
        .ok_or_else(|| StoreError::NoSession { session: session.clone() })?;
    Ok(Done { value: Epoch(epoch.cast_unsigned()), effect: Effect::None })
}

pub(super) fn delete(db: &Database, session: SessionId) -> Result<Done<()>, StoreError> {
    // The events and the projection go with the row, by their foreign keys.
    let deleted = db
        .conn
        .prepare_cached("DELETE FROM session WHERE id = ?1")
        .and_then(|mut delete| delete.execute([session.as_str()]))
        .map_err(db.failed("delete a session"))?;
    if deleted == 0 {
        return Err(StoreError::NoSession { session });
    }
    Ok(Done { value: (), effect: Effect::Deleted(session) })
}

pub(super) fn append(db: &Database, new: Prepared) -> Result<Done<Vec<Event>>, StoreError> {
    // The usual append is one event, whose insertion is the first write and the only one that can be refused.
    if new.events.len() + new.processed.len() > 1 {
        db.atomically(|| append_all(db, new))
    } else {
        append_all(db, new)
    }
}

fn append_all(db: &Database, new: Prepared) -> Result<Done<Vec<Event>>, StoreError> {
    let Prepared { session, author, events, processed } = new;
    let Some((key, current, mut projection)) = read::projection(db, &session)? else {
        return Err(StoreError::NoSession { session });
    };
    match author {
        Author::Driver(given) if given != current => {
            return Err(StoreError::StaleEpoch { session, given, current });
        }
        Author::Driver(_) | Author::Client => {}
    }
    for (event, at) in processed {
        if !mark_processed(db, key, &event, at)? {
            return Err(StoreError::NotQueued { session, event });
        }
    }
    let mut value = Vec::with_capacity(events.len());
    for (new, body) in events {
        let created_at = from_millis(new.created_at.as_millisecond());
        projection.apply(created_at, &new.body);
        let event = Event {
            seq: projection.head,
            id: new.id,
            session: session.clone(),
            created_at,
            processed_at: new.processed_at.map(|at| from_millis(at.as_millisecond())),
            body: new.body,
        };
        insert(db, key, &event, &body)?;
        value.push(event);
    }
    if value.is_empty() {
        return Ok(Done { value, effect: Effect::None });
    }
    project(db, key, &projection)?;
    Ok(Done { value, effect: Effect::Head(session, projection.head) })
}

/// Whether the event was waiting.
fn mark_processed(
    db: &Database,
    key: i64,
    event: &EventId,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let marked = db
        .conn
        .prepare_cached(
            "UPDATE event SET processed_at = ?3
             WHERE id = ?1 AND session = ?2 AND processed_at IS NULL",
        )
        .and_then(|mut update| update.execute(params![event.as_str(), key, at.as_millisecond()]));
    Ok(marked.map_err(db.failed("mark an event as processed"))? == 1)
}

fn insert(db: &Database, key: i64, event: &Event, body: &str) -> Result<(), StoreError> {
    let created_at = event.created_at.as_millisecond();
    let inserted = db
        .conn
        .prepare_cached(
            "INSERT INTO event (session, seq, id, created_at, processed_at, checksum, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                key,
                event.seq.cast_signed(),
                event.id.as_str(),
                created_at,
                event.processed_at.map(Timestamp::as_millisecond),
                checksum::of_event(event.seq, event.id.as_str(), created_at, body),
                body,
            ])
        });
    match inserted {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(clash(db, key, event)?)
        }
        Err(error) => Err(db.failed("append an event")(error)),
    }
}

/// Why `event` clashes with what is there: its id is taken, or else the row's head is behind the log.
fn clash(db: &Database, key: i64, event: &Event) -> Result<StoreError, StoreError> {
    let session = event.session.clone();
    let taken = db
        .conn
        .prepare_cached("SELECT 1 FROM event WHERE id = ?1 AND session = ?2")
        .and_then(|mut select| select.exists(params![event.id.as_str(), key]))
        .map_err(db.failed("append an event"))?;
    Ok(if taken {
        StoreError::DuplicateEvent { session, event: event.id.clone() }
    } else {
        let what = "its position is taken although the session's head is before it";
        StoreError::DamagedEvent { session, seq: event.seq, what }
    })
}

fn project(db: &Database, key: i64, projection: &Projection) -> Result<(), StoreError> {
    let stop_reason = projection
        .stop_reason
        .as_ref()
        .map(|reason| serde_json::to_string(reason).expect("a stop reason has string keys only"));
    let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let usage = &projection.usage;
    let head: Seq = projection.head;
    db.conn
        .prepare_cached(
            "UPDATE projection SET head = ?2, updated_at = ?3, status = ?4, stop_reason = ?5,
                 input_tokens = ?6, output_tokens = ?7,
                 cache_creation_input_tokens = ?8, cache_read_input_tokens = ?9
             WHERE session = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![
                key,
                head.cast_signed(),
                projection.updated_at.as_millisecond(),
                projection.status.as_str(),
                stop_reason,
                tokens(usage.input_tokens),
                tokens(usage.output_tokens),
                tokens(usage.cache_creation_input_tokens),
                tokens(usage.cache_read_input_tokens),
            ])
        })
        .map(drop)
        .map_err(db.failed("update a session"))
}
