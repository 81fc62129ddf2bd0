//! The writes: each a function that runs inside of the writer's transaction and does all of its work or nothing.
//!
//! A single statement is atomic by itself; what takes several that may fail runs `atomically`.

use std::os::unix::ffi::OsStrExt;

use rusqlite::{ErrorCode, OptionalExtension, params};

use super::row::{Author, Epoch, NewSession, Projection, SessionRow, SessionStatus};
use super::schema::Database;
use super::writer::{Done, Effect};
use super::{StoreError, checksum, read, records};
use crate::clock::{Timestamp, from_millis};
use crate::event::{Event, EventBody, NewEvent, Seq};
use crate::id::{EventId, SessionId};
use crate::limits;

/// What one append puts into a session's log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Append {
    /// New facts, in order.
    pub events: Vec<NewEvent>,
    /// Queued events of earlier appends that the session takes up now, and when.
    pub processed: Vec<(EventId, Timestamp)>,
    /// Only if the log ends here: what was decided in its light still holds then.
    pub at: Option<Seq>,
    /// Only while the session works: an input that finds it at rest has to make it work.
    pub working: bool,
}

impl From<Vec<NewEvent>> for Append {
    fn from(events: Vec<NewEvent>) -> Self {
        Self { events, ..Self::default() }
    }
}

/// An append within its bounds, serialized before the writer thread sees it.
pub(super) struct Prepared {
    session: SessionId,
    author: Author,
    events: Vec<(NewEvent, String)>,
    processed: Vec<(EventId, Timestamp)>,
    at: Option<Seq>,
    working: bool,
}

impl Prepared {
    pub(super) fn new(
        session: SessionId,
        author: Author,
        Append { events, processed, at, working }: Append,
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
        let events = events.collect::<Result<_, _>>()?;
        Ok(Self { session, author, events, processed, at, working })
    }

    /// The size of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|(_, body)| body.len()).sum()
    }
}

pub(super) fn create(
    db: &Database,
    new: &NewSession,
    events: Prepared,
) -> Result<Done<SessionRow>, StoreError> {
    db.atomically(|| {
        new.origin.iter().try_for_each(|origin| records::check_origin(db, origin))?;
        insert_session(db, new)?;
        new.records.iter().try_for_each(|record| records::put(db, record).map(drop))?;
        append_all(db, events)?;
        Ok(Done { value: existing(db, &new.id)?, effect: Effect::None })
    })
}

fn existing(db: &Database, id: &SessionId) -> Result<SessionRow, StoreError> {
    read::session(db, id)?.ok_or_else(|| StoreError::NoSession { session: id.clone() })
}

fn insert_session(db: &Database, new: &NewSession) -> Result<(), StoreError> {
    let failed = || db.failed("create a session");
    let origin = new.origin.as_ref();
    let inserted = db
        .conn
        .prepare_cached(
            "INSERT INTO session (id, title, workspace, created_at, definition,
                 agent_id, agent_version, environment_id, vault_ids, agent, metadata, budget)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut insert| {
            insert.insert(params![
                new.id.as_str(),
                new.title,
                new.workspace.as_os_str().as_bytes(),
                new.created_at.as_millisecond(),
                json(&new.definition),
                origin.map(|origin| origin.agent_id.as_str()),
                origin.map(|origin| origin.agent_version),
                origin.map(|origin| origin.environment_id.as_str()),
                json(&origin.map(|origin| origin.vault_ids.as_slice()).unwrap_or_default()),
                json(&origin.map(|origin| &origin.agent)),
                json(&new.metadata),
                json(&new.budget),
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
        .prepare_cached(
            "INSERT INTO projection (session, epoch, head, updated_at, status, stop_reason,
                 input_tokens, output_tokens, cache_creation_input_tokens, cache_read_input_tokens)
             VALUES (?1, 0, 0, ?2, 'idle', NULL, 0, 0, 0, 0)",
        )
        .and_then(|mut insert| insert.execute(params![key, new.created_at.as_millisecond()]))
        .map(drop)
        .map_err(failed())
}

/// A value of ours as JSON text.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("what is kept has string keys only")
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
        insert_session(db, new)?;
        new.records.iter().try_for_each(|record| records::put(db, record).map(drop))?;
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
        Ok(Done { value: existing(db, &new.id)?, effect: Effect::None })
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

pub(super) fn delete(db: &Database, session: SessionId, at: Seq) -> Result<Done<()>, StoreError> {
    db.atomically(|| {
        if read::projection(db, &session)?.is_some_and(|(_, _, projection)| projection.head != at) {
            return Err(StoreError::Moved { session });
        }
        // The events and the projection go with the row, by their foreign keys.
        let deleted = db
            .conn
            .prepare_cached("DELETE FROM session WHERE id = ?1")
            .and_then(|mut delete| delete.execute([session.as_str()]))
            .map_err(db.failed("delete a session"))?;
        if deleted == 0 {
            return Err(StoreError::NoSession { session });
        }
        records::delete_of(db, session.as_str())?;
        Ok(Done { value: (), effect: Effect::Deleted(session) })
    })
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
    let Prepared { session, author, events, processed, at, working } = new;
    let Some((key, current, mut projection)) = read::projection(db, &session)? else {
        return Err(StoreError::NoSession { session });
    };
    match author {
        Author::Driver(given) if given != current => {
            return Err(StoreError::StaleEpoch { session, given, current });
        }
        // Only what needs no further word can follow: that it is read-only now.
        Author::Client if projection.status == SessionStatus::Terminated && !archives(&events) => {
            return Err(StoreError::Ended { session });
        }
        Author::Driver(_) | Author::Client => {}
    }
    let rests = projection.status == SessionStatus::Idle;
    if at.is_some_and(|at| at != projection.head) || working && rests {
        return Err(StoreError::Moved { session });
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
        update(db, key, &new.body)?;
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

fn archives(events: &[(NewEvent, String)]) -> bool {
    events.iter().all(|(event, _)| matches!(event.body, EventBody::Archived {}))
}

/// What clients may change of a session changes in its row.
fn update(db: &Database, key: i64, body: &EventBody) -> Result<(), StoreError> {
    let EventBody::SessionUpdated { agent, title, metadata, budget } = body else {
        return Ok(());
    };
    db.conn
        .prepare_cached(
            "UPDATE session SET title = iif(?2, ?3, title), agent = coalesce(?4, agent),
                 metadata = coalesce(?5, metadata), budget = coalesce(?6, budget)
             WHERE key = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![
                key,
                title.is_some(),
                title.as_ref().and_then(Option::as_ref),
                agent.as_ref().map(json),
                metadata.as_ref().map(json),
                budget.as_ref().map(json),
            ])
        })
        .map(drop)
        .map_err(db.failed("update a session"))
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
    let stop_reason = projection.stop_reason.as_ref().map(json);
    let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let usage = &projection.usage;
    let head: Seq = projection.head;
    db.conn
        .prepare_cached(
            "UPDATE projection SET head = ?2, updated_at = ?3, status = ?4, stop_reason = ?5,
                 input_tokens = ?6, output_tokens = ?7,
                 cache_creation_input_tokens = ?8, cache_read_input_tokens = ?9, cost = ?10,
                 active_ms = ?11, running_since = ?12, last_fact_at = ?13, archived_at = ?14,
                 terminated_at = ?15, web_searches = ?16, web_pages = ?17
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
                tokens(projection.cost.as_picodollars()),
                tokens(projection.activity.active_ms),
                projection.activity.running_since.map(Timestamp::as_millisecond),
                projection.activity.last_fact_at.map(Timestamp::as_millisecond),
                projection.archived_at.map(Timestamp::as_millisecond),
                projection.terminated_at.map(Timestamp::as_millisecond),
                tokens(projection.web.web_search_requests),
                tokens(projection.web.web_fetch_requests),
            ])
        })
        .map(drop)
        .map_err(db.failed("update a session"))
}
