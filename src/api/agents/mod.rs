//! `/v1/agents`: stored agents and their versions.

mod describe;
mod model;
mod multiagent;
mod reference;
mod runnable;
mod stored;
#[cfg(test)]
mod tests;
mod tools;
mod web;

use axum::extract::State;

use super::body::Node;
use super::endpoint::{Answer, Body, Endpoint, Param};
use super::error::{self, ApiError};
use super::page::{self, Page};
use super::path::Ids;
use super::query::Query;
use super::records::{self, Change};
use super::{App, JsonBody, json, schema};
use crate::id::AgentId;
use crate::runtime::{Record, RecordFilter};
use multiagent::{Surroundings, read_version};
pub use reference::{Resolved, changed, resolve};
use stored::{Definition, KIND, Stored};

const LIST: &str = "agents";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let [limit, page] = Param::page(MAX_LIMIT as u64);
    let version = Param::new("version", "Of this version.", schema::integer(1));
    let list_query = [
        limit.clone(),
        page.clone(),
        Param::include_archived(),
        Param::created_at("created_at[gte]"),
        Param::created_at("created_at[lte]"),
    ];
    vec![
        Endpoint::post("/v1/agents", "agents.create", create)
            .about("Stores an agent.")
            .takes(Body::Json(describe::CREATE))
            .answers(Answer::Json(describe::AGENT)),
        Endpoint::get("/v1/agents", "agents.list", list)
            .about("Lists agents, the newest first.")
            .query(list_query)
            .answers(Answer::Page(describe::AGENT)),
        Endpoint::get("/v1/agents/{agent_id}", "agents.retrieve", retrieve)
            .about("Shows an agent as it is or was.")
            .query([version])
            .answers(Answer::Json(describe::AGENT)),
        Endpoint::post("/v1/agents/{agent_id}", "agents.update", update)
            .about("Changes an agent: a change makes a new version.")
            .takes(Body::Json(describe::UPDATE))
            .answers(Answer::Json(describe::AGENT)),
        Endpoint::post("/v1/agents/{agent_id}/archive", "agents.archive", archive)
            .about("Archives an agent for good: no new sessions, no more changes.")
            .answers(Answer::Json(describe::AGENT)),
        Endpoint::get("/v1/agents/{agent_id}/versions", "agents.versions.list", versions)
            .about("Lists all versions of an agent, the newest first.")
            .query([limit, page])
            .answers(Answer::Page(describe::AGENT)),
    ]
}

async fn create(State(app): State<App>, JsonBody(body): JsonBody) -> error::Answer {
    let runtime = app.runtime();
    let definition = Definition::create(&Node::root(&body), runtime.reader())?;
    let id = AgentId::mint(app.clock().now()).to_string();
    let record = runtime.put_record(KIND, id, None, definition.body()).await?;
    answer(record)
}

async fn list(State(app): State<App>, query: Query) -> error::Answer {
    let page = Page::of(&query, LIST, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = RecordFilter {
        kind: KIND,
        owner: None,
        archived: query.boolean("include_archived")?,
        created_from: query.time("created_at[gte]")?,
        created_to: query.time("created_at[lte]")?,
        before: None,
    };
    let (records, next) = records::list(app.runtime().reader(), &page, LIST, filter)?;
    Ok(json(&page::body(&views(records)?, next.as_ref())))
}

async fn retrieve(State(app): State<App>, Ids([id]): Ids<1>, query: Query) -> error::Answer {
    let version = query.integer("version", 1, i64::MAX.cast_unsigned())?;
    let reader = app.runtime().reader();
    let present = find(&app, &id)?;
    let Some(version) = version else { return answer(present) };
    let record = reader.record_version(KIND, &id, version)?;
    let missing = || ApiError::not_found(format!("the agent `{id}` has no version {version}"));
    answer(record.ok_or_else(missing)?)
}

/// Of two that update at once one is told if it named the version that it saw, and is applied to the other's otherwise.
async fn update(
    State(app): State<App>,
    Ids([id]): Ids<1>,
    JsonBody(body): JsonBody,
) -> error::Answer {
    let reader = app.runtime().reader();
    let new = |record: &Record| {
        let stored = Stored::of(record.clone())?.definition;
        if record.archived_at.is_some() {
            return Err(ApiError::invalid(format!("the agent `{id}` is archived")));
        }
        let mut object = Node::root(&body).object()?;
        let version = object.maybe("version").map(|version| read_version(&version)).transpose()?;
        if let Some(version) = version.filter(|version| *version != record.revision) {
            let current = record.revision;
            return Err(ApiError::conflict(format!(
                "version: the agent `{id}` is at version {current}, not {version}"
            )));
        }
        let around = Surroundings { reader, own: Some((id.as_str(), record.revision)) };
        let new = stored.update(object, &around)?;
        Ok((new != stored).then(|| new.body()))
    };
    let change = Change { kind: KIND, id: &id, keep_old: true };
    answer(change.make(app.runtime(), || find(&app, &id), new).await?)
}

async fn archive(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    find(&app, &id)?;
    answer(app.runtime().archive_record(KIND, &id).await?)
}

async fn versions(State(app): State<App>, Ids([id]): Ids<1>, query: Query) -> error::Answer {
    find(&app, &id)?;
    let list = format!("{LIST} {id}");
    let page = Page::of(&query, &list, DEFAULT_LIMIT, MAX_LIMIT)?;
    let before = page.cursor.as_ref().map(page::Cursor::number).transpose()?;
    let reader = app.runtime().reader();
    let records = reader.record_versions(KIND, &id, before, page.limit + 1)?;
    let (records, next) = page::cut(records, page.limit, &list, |one| one.revision.to_string());
    Ok(json(&page::body(&views(records)?, next.as_ref())))
}

fn find(app: &App, id: &str) -> Result<Record, ApiError> {
    let record = app.runtime().reader().record(KIND, id)?;
    record.ok_or_else(|| ApiError::no_such("agent", id))
}

fn answer(record: Record) -> error::Answer {
    Ok(json(&Stored::of(record)?.view()))
}

fn views(records: Vec<Record>) -> Result<Vec<serde_json::Value>, ApiError> {
    records.into_iter().map(|record| Ok(Stored::of(record)?.view())).collect()
}
