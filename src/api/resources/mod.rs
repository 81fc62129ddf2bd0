//! `/v1/sessions/{id}/resources`: what a session is given, when it is created and later.

mod describe;
mod read;

use axum::extract::State;
use serde_json::{Value, json};

use super::body::Node;
use super::endpoint::{Answer, Body, Endpoint, Param};
use super::error::{self, ApiError};
use super::page::{self, Page};
use super::path::Ids;
use super::query::Query;
use super::{App, JsonBody, sessions};
use crate::event::rfc3339;
use crate::id::ResourceId;
use crate::runtime::{Record, SessionRow};

pub(super) use describe::{RESOURCE, new};
pub(super) use read::{all, refused};

/// The name of the list, for its cursors.
const LIST: &str = "resources";
/// Most entries of a page.
const MAX_LIMIT: usize = 1000;
/// What resources are called in answers to people.
const WHAT: &str = "session resource";

pub(super) fn endpoints() -> Vec<Endpoint> {
    let all = "/v1/sessions/{session_id}/resources";
    let one = "/v1/sessions/{session_id}/resources/{resource_id}";
    vec![
        Endpoint::post(all, "sessions.resources.add", add)
            .about("Gives a session a file.")
            .takes(Body::Json(describe::ADD))
            .answers(Answer::Json(RESOURCE)),
        Endpoint::get(all, "sessions.resources.list", list)
            .about("Lists what a session was given, all of it unless there is a limit.")
            .query(Param::page(MAX_LIMIT as u64))
            .answers(Answer::Page(RESOURCE)),
        Endpoint::get(one, "sessions.resources.retrieve", retrieve)
            .about("Shows what a session was given.")
            .answers(Answer::Json(RESOURCE)),
        Endpoint::post(one, "sessions.resources.update", update)
            .about("Replaces the token of a repository.")
            .takes(Body::Json(describe::UPDATE))
            .answers(Answer::Json(RESOURCE)),
        Endpoint::delete(one, "sessions.resources.delete", delete)
            .about("Takes a file away from a session.")
            .answers(Answer::Json(describe::DELETED)),
    ]
}

/// A resource as clients see it.
fn view(record: &Record) -> Value {
    let mut view = json!({ "id": record.id });
    let body = record.body.as_object().into_iter().flatten();
    view.as_object_mut()
        .expect("an object was just made")
        .extend(body.map(|(name, value)| (name.clone(), value.clone())));
    view["created_at"] = json!(rfc3339(record.created_at));
    view["updated_at"] = json!(rfc3339(record.updated_at));
    view
}

/// All of a session, as it shows them.
pub(super) fn of_session(app: &App, row: &SessionRow) -> Result<Vec<Value>, ApiError> {
    Ok(app.runtime().resources(&row.id)?.iter().map(view).collect())
}

/// The resource of that session and id.
fn find(app: &App, session: &SessionRow, id: &str) -> Result<(ResourceId, Record), ApiError> {
    let missing = || ApiError::no_such(WHAT, id);
    let parsed: ResourceId = id.parse().map_err(|_| missing())?;
    let all = app.runtime().resources(&session.id)?;
    let record = all.into_iter().find(|record| record.id == id).ok_or_else(missing)?;
    Ok((parsed, record))
}

async fn add(State(app): State<App>, Ids([id]): Ids<1>, JsonBody(body): JsonBody) -> error::Answer {
    let row = sessions::find(&app, &id)?;
    let new = read::file_only(&app, &Node::root(&body))?;
    let record = app.runtime().add_resource(&row.id, new).await;
    Ok(super::json(&view(&record.map_err(|error| read::refused(error, ""))?)))
}

async fn list(State(app): State<App>, Ids([id]): Ids<1>, query: Query) -> error::Answer {
    let row = sessions::find(&app, &id)?;
    // A cursor is good for the session that it was given for.
    let list = format!("{LIST} {}", row.id);
    let page = Page::of(&query, &list, usize::MAX - 1, MAX_LIMIT)?;
    let after = page.cursor.as_ref().map(page::Cursor::number::<i64>).transpose()?;
    let mut records = app.runtime().resources(&row.id)?;
    records.retain(|record| after.is_none_or(|after| record.key > after));
    let (records, next) = page::cut(records, page.limit, &list, |record| record.key.to_string());
    let views: Vec<_> = records.iter().map(view).collect();
    Ok(super::json(&page::body(&views, next.as_ref())))
}

async fn retrieve(State(app): State<App>, Ids([session, id]): Ids<2>) -> error::Answer {
    let row = sessions::find(&app, &session)?;
    Ok(super::json(&view(&find(&app, &row, &id)?.1)))
}

async fn update(
    State(app): State<App>,
    Ids([session, id]): Ids<2>,
    JsonBody(body): JsonBody,
) -> error::Answer {
    let row = sessions::find(&app, &session)?;
    let (resource, _) = find(&app, &row, &id)?;
    let body = Node::root(&body);
    let mut object = body.object()?;
    let token = read::parse(&object.need("authorization_token")?)?;
    object.done()?;
    let record = app.runtime().replace_token(&row.id, &resource, token).await;
    Ok(super::json(&view(&record.map_err(|error| read::refused(error, ""))?)))
}

async fn delete(State(app): State<App>, Ids([session, id]): Ids<2>) -> error::Answer {
    let row = sessions::find(&app, &session)?;
    let (resource, _) = find(&app, &row, &id)?;
    app.runtime().remove_resource(&row.id, &resource).await?;
    Ok(super::json(&json!({ "id": id, "type": "session_resource_deleted" })))
}
