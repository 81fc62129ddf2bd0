//! The queries: from rows to the types of the vocabulary.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};

use super::row::{
    CreatedRange, Epoch, Json, Order, Projection, SessionFilter, SessionRow, SessionStatus,
};
use super::schema::Database;
use super::{StoreError, checksum};
use crate::clock::{Timestamp, from_millis};
use crate::event::{Activity, Cost, Event, Seq, ServerToolUse, Usage};
use crate::id::{AgentId, EnvironmentId, EventId, SessionId};
use crate::limits;

/// Matches shown of an ambiguous id.
const MATCHES_SHOWN: usize = 4;

/// The columns of a [`Projection`], which are 6 to 21 in every query that has them.
const PROJECTION: &str = "head, updated_at, status, stop_reason,
    input_tokens, output_tokens, cache_creation_input_tokens, cache_read_input_tokens,
    cost, active_ms, running_since, last_fact_at, archived_at, terminated_at,
    web_searches, web_pages";

/// A query of whole rows, with this after it.
fn sessions_where(rest: &str) -> String {
    format!(
        "SELECT id, title, workspace, created_at, definition, epoch, {PROJECTION}, key,
             agent_id, agent_version, environment_id, vault_ids, agent, metadata, budget
         FROM session JOIN projection ON projection.session = session.key {rest}"
    )
}

pub(super) fn session(db: &Database, id: &SessionId) -> Result<Option<SessionRow>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| sessions_where("WHERE id = ?1"));
    db.conn
        .prepare_cached(&SQL)
        .and_then(|mut select| select.query_row([id.as_str()], session_row).optional())
        .map_err(db.failed("read a session"))
}

/// In the order of creation, whatever the clock said.
pub(super) fn sessions(
    db: &Database,
    filter: &SessionFilter,
    limit: usize,
) -> Result<Vec<SessionRow>, StoreError> {
    let (compare, direction) = match filter.order {
        Order::NewestFirst => ("<", "DESC"),
        Order::OldestFirst => (">", "ASC"),
    };
    let sql = sessions_where(&format!(
        "WHERE (?1 = '' OR instr(?1, ' ' || status || ' '))
             AND (?2 IS NULL OR workspace = ?2)
             AND (?3 IS NULL OR agent_id = ?3) AND (?4 IS NULL OR agent_version = ?4)
             AND (?5 IS NULL OR environment_id = ?5)
             AND (?6 OR archived_at IS NULL)
             AND (?7 IS NULL OR created_at > ?7) AND (?8 IS NULL OR created_at >= ?8)
             AND (?9 IS NULL OR created_at < ?9) AND (?10 IS NULL OR created_at <= ?10)
             AND (?11 IS NULL OR key {compare} ?11)
             AND (NOT ?13 OR agent_id IS NOT NULL)
         ORDER BY key {direction} LIMIT ?12"
    ));
    let statuses: String =
        filter.statuses.iter().map(|status| format!(" {} ", status.as_str())).collect();
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
    let CreatedRange { gt, gte, lt, lte } = filter.created;
    db.conn
        .prepare_cached(&sql)
        .and_then(|mut select| {
            let bound = params![
                statuses,
                filter.workspace.as_ref().map(|path| path.as_os_str().as_bytes()),
                filter.agent.as_ref().map(AgentId::as_str),
                filter.agent_version,
                filter.environment.as_ref().map(EnvironmentId::as_str),
                filter.include_archived,
                millis(gt),
                millis(gte),
                millis(lt),
                millis(lte),
                filter.after.map(u64::cast_signed),
                row_limit(limit),
                filter.of_stored,
            ];
            select.query_map(bound, session_row)?.collect()
        })
        .map_err(db.failed("list sessions"))
}

/// The session of that directory whose last event is the youngest.
pub(super) fn latest(db: &Database, workspace: &Path) -> Result<Option<SessionRow>, StoreError> {
    let sql = sessions_where("WHERE workspace = ?1 ORDER BY updated_at DESC, key DESC LIMIT 1");
    db.conn
        .prepare_cached(&sql)
        .and_then(|mut select| {
            select.query_row([workspace.as_os_str().as_bytes()], session_row).optional()
        })
        .map_err(db.failed("find the latest session"))
}

pub(super) fn resolve(db: &Database, given: &str) -> Result<SessionId, StoreError> {
    let failed = || db.failed("find a session");
    let found = db
        .conn
        .prepare_cached(
            "SELECT id FROM session
             WHERE ?1 <> '' AND (substr(id, 1, length(?1)) = ?1
                 OR substr(id, 1 + length(?2), length(?1)) = ?1
                 OR substr(id, -length(?1)) = ?1)
             ORDER BY id <> ?1, id LIMIT ?3",
        )
        .and_then(|mut select| {
            let shown = row_limit(MATCHES_SHOWN);
            let rows = select.query_map(params![given, SessionId::PREFIX, shown], |row| {
                parsed(0, row.get_ref(0)?.as_str()?.parse::<SessionId>())
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed())?;
    let mut matches = found.into_iter();
    match (matches.next(), matches.len()) {
        (None, _) => Err(StoreError::NoMatch { given: given.to_owned() }),
        (Some(first), others) if others == 0 || first.as_str() == given => Ok(first),
        (Some(first), _) => {
            let matches = std::iter::once(first).chain(matches).collect();
            Err(StoreError::Ambiguous { given: given.to_owned(), matches })
        }
    }
}

/// The row's key, its epoch and its fold.
pub(super) fn projection(
    db: &Database,
    id: &SessionId,
) -> Result<Option<(i64, Epoch, Projection)>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT key, NULL, NULL, NULL, NULL, epoch, {PROJECTION}
             FROM session JOIN projection ON projection.session = session.key WHERE id = ?1"
        )
    });
    db.conn
        .prepare_cached(&SQL)
        .and_then(|mut select| {
            let row = select.query_row([id.as_str()], |row| {
                Ok((row.get(0)?, Epoch(unsigned(row, 5)?), projection_of(row)?))
            });
            row.optional()
        })
        .map_err(db.failed("read a session"))
}

/// Whether the user ended the turn that ended last: whether, from its end on, an interrupt is met before its beginning.
pub(super) fn was_interrupted(db: &Database, id: &SessionId) -> Result<bool, StoreError> {
    db.conn
        .prepare_cached(
            "WITH own (key) AS (SELECT key FROM session WHERE id = ?1)
             SELECT substr(body, 1, 24) = '{\"type\":\"user.interrupt\"' FROM event
             WHERE session = (SELECT key FROM own)
                 AND seq < (SELECT seq FROM event WHERE session = (SELECT key FROM own)
                     AND substr(body, 1, 29) = '{\"type\":\"session.status_idle\"'
                     ORDER BY seq DESC LIMIT 1)
                 AND (substr(body, 1, 24) = '{\"type\":\"user.interrupt\"'
                     OR substr(body, 1, 32) = '{\"type\":\"session.status_running\"')
             ORDER BY seq DESC LIMIT 1",
        )
        .and_then(|mut select| select.query_row([id.as_str()], |row| row.get(0)).optional())
        .map(Option::unwrap_or_default)
        .map_err(db.failed("read events"))
}

/// The events of `id` after `after`, at most `limit` and few if they are large, checked against their checksums and for
/// gaps.
pub(super) fn scan(
    db: &Database,
    id: &SessionId,
    after: Seq,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let failed = || db.failed("read events");
    let mut select = db
        .conn
        .prepare_cached(
            "SELECT seq, id, created_at, processed_at, checksum, body FROM event
             WHERE session = (SELECT key FROM session WHERE id = ?1) AND seq > ?2
             ORDER BY seq LIMIT ?3",
        )
        .map_err(failed())?;
    let from = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = select.query(params![id.as_str(), from, row_limit(limit)]).map_err(failed())?;
    let mut events = Vec::new();
    let mut expected = after;
    let mut bytes = 0;
    while bytes < limits::SCAN_BYTES
        && let Some(row) = rows.next().map_err(failed())?
    {
        expected += 1;
        bytes += row.get_ref(5).and_then(|body| Ok(body.as_bytes()?.len())).map_err(failed())?;
        match event(row, id, expected).map_err(failed())? {
            Ok(event) => events.push(event),
            Err(what) => {
                let session = id.clone();
                return Err(StoreError::DamagedEvent { session, seq: expected, what });
            }
        }
    }
    Ok(events)
}

/// The events of `id` whose body is of that kind. The kind is the first field of a body.
pub(super) fn of_kind(db: &Database, id: &SessionId, kind: &str) -> Result<Vec<Event>, StoreError> {
    let start = format!("{{\"type\":\"{kind}\"");
    rows(
        db,
        id,
        "SELECT seq, id, created_at, processed_at, checksum, body FROM event
         WHERE session = (SELECT key FROM session WHERE id = ?1)
             AND substr(body, 1, length(?2)) = ?2
         ORDER BY seq",
        &[&id.as_str(), &start],
    )
}

fn rows(
    db: &Database,
    id: &SessionId,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Event>, StoreError> {
    let failed = || db.failed("read events");
    let mut select = db.conn.prepare_cached(sql).map_err(failed())?;
    let mut rows = select.query(params).map_err(failed())?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let seq = unsigned(row, 0).map_err(failed())?;
        let session = id.clone();
        let event = event(row, id, seq).map_err(failed())?;
        events.push(event.map_err(|what| StoreError::DamagedEvent { session, seq, what })?);
    }
    Ok(events)
}

/// The events of `id` that wait to be processed, in order.
pub(super) fn queued(db: &Database, id: &SessionId) -> Result<Vec<Event>, StoreError> {
    rows(
        db,
        id,
        "SELECT seq, id, created_at, processed_at, checksum, body FROM event
         WHERE session = (SELECT key FROM session WHERE id = ?1) AND processed_at IS NULL
         ORDER BY seq",
        &[&id.as_str()],
    )
}

/// The event of that id, if the session has it.
pub(super) fn event_of(
    db: &Database,
    session: &SessionId,
    id: &EventId,
) -> Result<Option<Event>, StoreError> {
    let found = db
        .conn
        .prepare_cached(
            "SELECT seq, id, created_at, processed_at, checksum, body FROM event
             WHERE id = ?2 AND session = (SELECT key FROM session WHERE id = ?1)",
        )
        .and_then(|mut select| {
            let row = select.query_row(params![session.as_str(), id.as_str()], |row| {
                let seq = unsigned(row, 0)?;
                Ok((seq, event(row, session, seq)?))
            });
            row.optional()
        })
        .map_err(db.failed("read an event"))?;
    let damaged = |seq, what| StoreError::DamagedEvent { session: session.clone(), seq, what };
    found.map(|(seq, event)| event.map_err(|what| damaged(seq, what))).transpose()
}

/// The event at `seq`, or how it is damaged.
fn event(
    row: &Row<'_>,
    session: &SessionId,
    seq: Seq,
) -> rusqlite::Result<Result<Event, &'static str>> {
    if unsigned(row, 0)? != seq {
        return Ok(Err("it is missing"));
    }
    let (Ok(id), Ok(body)) = (row.get_ref(1)?.as_str(), row.get_ref(5)?.as_str()) else {
        return Ok(Err("it is not text"));
    };
    let created_at: i64 = row.get(2)?;
    if checksum::of_event(seq, id, created_at, body) != row.get::<_, u32>(4)? {
        return Ok(Err("its checksum is wrong"));
    }
    let (Ok(id), Ok(body)) = (id.parse(), serde_json::from_str(body)) else {
        return Ok(Err("this casemate does not understand it"));
    };
    let processed_at = row.get::<_, Option<i64>>(3)?.map(from_millis);
    let session = session.clone();
    Ok(Ok(Event { seq, id, session, created_at: from_millis(created_at), processed_at, body }))
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    let projection = projection_of(row)?;
    Ok(SessionRow {
        id: parsed(0, row.get_ref(0)?.as_str()?.parse())?,
        title: row.get(1)?,
        workspace: OsString::from_vec(row.get(2)?).into(),
        created_at: timestamp(row, 3)?,
        definition: stored(row, 4)?,
        epoch: Epoch(unsigned(row, 5)?),
        head: projection.head,
        updated_at: projection.updated_at,
        status: projection.status,
        stop_reason: projection.stop_reason,
        usage: projection.usage,
        cost: projection.cost,
        web: projection.web,
        active_ms: projection.activity.active_ms,
        running_since: projection.activity.running_since,
        archived_at: projection.archived_at,
        terminated_at: projection.terminated_at,
        place: unsigned(row, 22)?,
        agent_id: id(row, 23)?,
        agent_version: row.get(24)?,
        environment_id: id(row, 25)?,
        vault_ids: json(row, 26)?,
        agent: stored(row, 27)?,
        metadata: json(row, 28)?,
        budget: json(row, 29)?,
    })
}

/// Reads the columns of [`PROJECTION`].
fn projection_of(row: &Row<'_>) -> rusqlite::Result<Projection> {
    let status = row.get_ref(8)?.as_str()?;
    let stop_reason = match row.get_ref(9)?.as_str_or_null()? {
        Some(json) => Some(parsed(9, serde_json::from_str(json))?),
        None => None,
    };
    let moment = |column| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(from_millis))
    };
    Ok(Projection {
        head: unsigned(row, 6)?,
        updated_at: timestamp(row, 7)?,
        status: parsed(8, SessionStatus::parse(status).ok_or("an unknown status"))?,
        stop_reason,
        usage: Usage {
            input_tokens: unsigned(row, 10)?,
            output_tokens: unsigned(row, 11)?,
            cache_creation_input_tokens: unsigned(row, 12)?,
            cache_read_input_tokens: unsigned(row, 13)?,
        },
        cost: Cost::picodollars(unsigned(row, 14)?),
        activity: Activity {
            active_ms: unsigned(row, 15)?,
            running_since: moment(16)?,
            last_fact_at: moment(17)?,
        },
        archived_at: moment(18)?,
        terminated_at: moment(19)?,
        web: ServerToolUse {
            web_search_requests: unsigned(row, 20)?,
            web_fetch_requests: unsigned(row, 21)?,
        },
    })
}

fn stored(row: &Row<'_>, column: usize) -> rusqlite::Result<Json> {
    Ok(Json::stored(row.get_ref(column)?.as_str()?))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parsed(column, serde_json::from_str(row.get_ref(column)?.as_str()?))
}

fn id<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| parsed(column, text.parse())).transpose()
}

fn parsed<T, E>(column: usize, value: Result<T, E>) -> rusqlite::Result<T>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let wrong = |e: E| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, e.into());
    value.map_err(wrong)
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(from_millis)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
