//! A session's threads: the primary one, and its events. There are no others yet.

use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::error::{Answer, ApiError};
use super::page::{self, Page};
use super::path::Ids;
use super::query::Query;
use super::sessions::{find, seconds, statuses, unreadable};
use super::{App, events, stream};
use crate::clock::Timestamp;
use crate::event::{Usage, rfc3339};
use crate::runtime::SessionRow;

/// Threads of a page, unless the client says otherwise and at most.
const LIMIT: usize = 1000;

fn id(row: &SessionRow) -> Result<String, ApiError> {
    #[derive(serde::Deserialize)]
    struct Named {
        thread: String,
    }
    Ok(row.definition.parse::<Named>().map_err(|_| unreadable(row))?.thread)
}

/// The primary thread as clients see it: what it did is what its session did.
fn view(row: &SessionRow, now: Timestamp) -> Result<Value, ApiError> {
    let mut agent: Value = row.agent.parse().map_err(|_| unreadable(row))?;
    if let Some(fields) = agent.as_object_mut() {
        fields.shift_remove("multiagent");
    }
    let used = row.usage != Usage::default();
    let began = row.active_ms > 0 || row.running_since.is_some();
    Ok(json!({
        "type": "session_thread",
        "id": id(row)?,
        "session_id": row.id,
        "parent_thread_id": null,
        "agent": agent,
        "status": row.status.as_str(),
        "usage": used.then(|| row.usage_by(now)),
        "stats": began.then(|| json!({
            "active_seconds": seconds(row.active_ms_by(now)),
            "duration_seconds": seconds(row.duration_ms_by(now)),
            "startup_seconds": null,
        })),
        "workflow_run_id": null,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "archived_at": row.archived_at.map(rfc3339),
    }))
}

/// The session, whose primary thread has that id.
fn found(app: &App, session: &str, thread: &str) -> Result<SessionRow, ApiError> {
    let row = find(app, session)?;
    if id(&row)? == thread {
        return Ok(row);
    }
    Err(ApiError::no_such("thread", thread))
}

pub(super) async fn list(State(app): State<App>, Ids([session]): Ids<1>, query: Query) -> Answer {
    let row = find(&app, &session)?;
    let list = format!("threads {session}");
    // All fit on one page: whoever comes with a cursor has seen them.
    let page = Page::of(&query, &list, LIMIT, LIMIT)?;
    let statuses = statuses(&query)?;
    let wanted = statuses.is_empty() || statuses.contains(&row.status);
    let shown = wanted && page.cursor.is_none();
    let data = shown.then(|| view(&row, app.clock().now())).transpose()?;
    let data: Vec<_> = data.into_iter().collect();
    Ok(super::json(&page::body(&data, None)))
}

pub(super) async fn retrieve(State(app): State<App>, Ids([session, thread]): Ids<2>) -> Answer {
    let row = found(&app, &session, &thread)?;
    Ok(super::json(&view(&row, app.clock().now())?))
}

pub(super) async fn archive(State(app): State<App>, Ids([session, thread]): Ids<2>) -> Answer {
    found(&app, &session, &thread)?;
    Err(ApiError::invalid("the primary thread ends with its session: archive the session instead"))
}

pub(super) async fn events(
    State(app): State<App>,
    Ids([session, thread]): Ids<2>,
    query: Query,
) -> Answer {
    let row = found(&app, &session, &thread)?;
    events::list_all(app, row.id, &query).await
}

pub(super) async fn stream(
    State(app): State<App>,
    Ids([session, thread]): Ids<2>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    let row = found(&app, &session, &thread)?;
    stream::open(&app, &row.id, &query, &headers)
}
