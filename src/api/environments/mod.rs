//! `/v1/environments`: where sessions run. They have no versions: a session keeps what it was made with.

mod config;
mod describe;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::body::{Node, Object, Tri, metadata, patched_metadata_without_empty};
use super::endpoint::{Answer, Body, Endpoint, Param};
use super::error::{self, ApiError};
use super::page::{self, Page};
use super::path::Ids;
use super::query::Query;
use super::records::{self, Change};
use super::{App, JsonBody};
use crate::environment::networking::Networking;
use crate::event::rfc3339;
use crate::id::EnvironmentId;
use crate::runtime::{Reader, Record, RecordFilter};
use config::Config;

/// The kind of its records.
const KIND: &str = "environment";
const LIST: &str = "environments";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
const MAX_NAME_CHARS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 10_000;

/// All of an environment that a client decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Definition {
    name: String,
    description: Option<String>,
    config: Config,
    metadata: Map<String, Value>,
}

/// What a session gets of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The stored environment.
    pub id: EnvironmentId,
    /// What the session may reach.
    pub networking: Networking,
}

/// Reads `environment_id` of a new session.
///
/// # Errors
/// If there is none, if it is archived, or if its sessions would run elsewhere.
pub fn resolve(reader: &Reader, node: &Node<'_>) -> Result<Resolved, ApiError> {
    let id = node.string()?;
    let record = found(reader, id)?;
    if record.archived_at.is_some() {
        return Err(archived(&node.refuse(format!("the environment `{id}` is archived"))));
    }
    match definition(&record)?.config {
        Config::Cloud { networking, .. } => Ok(Resolved {
            id: identity(&record)?,
            networking: networking.runnable().ok_or_else(|| unreadable(&record, "network"))?,
        }),
        Config::SelfHosted => Err(node.refuse(format!(
            "the environment `{id}` is self-hosted, and sessions in those are not supported yet"
        ))),
    }
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    let [limit, page] = Param::page(MAX_LIMIT as u64);
    vec![
        Endpoint::post("/v1/environments", "environments.create", create)
            .about("Stores an environment.")
            .takes(Body::Json(describe::CREATE))
            .answers(Answer::Json(describe::ENVIRONMENT)),
        Endpoint::get("/v1/environments", "environments.list", list)
            .about("Lists environments, the newest first.")
            .query([limit, page, Param::include_archived()])
            .answers(Answer::Page(describe::ENVIRONMENT)),
        Endpoint::get("/v1/environments/{environment_id}", "environments.retrieve", retrieve)
            .about("Shows an environment.")
            .answers(Answer::Json(describe::ENVIRONMENT)),
        Endpoint::post("/v1/environments/{environment_id}", "environments.update", update)
            .about("Changes an environment; sessions that are there keep what they have.")
            .takes(Body::Json(describe::UPDATE))
            .answers(Answer::Json(describe::ENVIRONMENT)),
        Endpoint::delete("/v1/environments/{environment_id}", "environments.delete", delete)
            .about("Deletes an environment that no session is in.")
            .answers(Answer::Json(describe::DELETED)),
        Endpoint::post(
            "/v1/environments/{environment_id}/archive",
            "environments.archive",
            archive,
        )
        .about("Archives an environment for good: no new sessions, no more changes.")
        .answers(Answer::Json(describe::ENVIRONMENT)),
    ]
}

async fn create(State(app): State<App>, JsonBody(body): JsonBody) -> error::Answer {
    let definition = Definition::create(&Node::root(&body))?;
    let id = EnvironmentId::mint(app.clock().now()).to_string();
    let body = json!(definition);
    answer(&app.runtime().put_record(KIND, id, None, body).await?)
}

async fn list(State(app): State<App>, query: Query) -> error::Answer {
    let page = Page::of(&query, LIST, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = RecordFilter {
        kind: KIND,
        archived: query.boolean("include_archived")?,
        ..RecordFilter::default()
    };
    let (records, next) = records::list(app.runtime().reader(), &page, LIST, filter)?;
    let views = records.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(super::json(&page::body(&views, next.as_ref())))
}

async fn retrieve(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    answer(&found(app.runtime().reader(), &id)?)
}

async fn update(
    State(app): State<App>,
    Ids([id]): Ids<1>,
    JsonBody(body): JsonBody,
) -> error::Answer {
    let reader = app.runtime().reader();
    let new = |record: &Record| {
        if record.archived_at.is_some() {
            let message = format!("environment_archived: the environment `{id}` is archived");
            return Err(archived(&ApiError::invalid(message)));
        }
        let stored = definition(record)?;
        let new = stored.update(&Node::root(&body))?;
        Ok((new != stored).then(|| json!(new)))
    };
    let change = Change { kind: KIND, id: &id, keep_old: false };
    answer(&change.make(app.runtime(), || found(reader, &id), new).await?)
}

async fn archive(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    found(app.runtime().reader(), &id)?;
    answer(&app.runtime().archive_record(KIND, &id).await?)
}

async fn delete(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    found(app.runtime().reader(), &id)?;
    app.runtime().delete_record(KIND, &id).await?;
    Ok(super::json(&json!({ "id": id, "type": "environment_deleted" })))
}

fn found(reader: &Reader, id: &str) -> Result<Record, ApiError> {
    let record = reader.record(KIND, id)?;
    record.ok_or_else(|| ApiError::no_such("environment", id).code("environment_not_found"))
}

fn archived(error: &ApiError) -> ApiError {
    error.clone().code("environment_archived")
}

fn definition(record: &Record) -> Result<Definition, ApiError> {
    Definition::deserialize(&record.body).map_err(|error| unreadable(record, error))
}

fn identity(record: &Record) -> Result<EnvironmentId, ApiError> {
    record.id.parse().map_err(|error| unreadable(record, error))
}

fn unreadable(record: &Record, what: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("the stored environment {} cannot be read: {what}", record.id))
}

fn view(record: &Record) -> Result<Value, ApiError> {
    let Definition { name, description, config, metadata } = definition(record)?;
    Ok(json!({
        "type": "environment",
        "id": record.id,
        "name": name,
        "description": description,
        "config": config.view(),
        "metadata": metadata,
        "scope": "organization",
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
        "archived_at": record.archived_at.map(rfc3339),
    }))
}

fn answer(record: &Record) -> error::Answer {
    Ok(super::json(&view(record)?))
}

impl Definition {
    fn create(body: &Node<'_>) -> Result<Self, ApiError> {
        let mut object = body.object()?;
        let name = read_name(&object.need("name")?)?;
        let description = object.maybe("description");
        let description =
            description.map(|text| text.text(0, MAX_DESCRIPTION_CHARS)).transpose()?;
        let config = object.maybe("config").map(|config| Config::create(&config)).transpose()?;
        let metadata = metadata(object.maybe("metadata").as_ref()).map_err(invalid_metadata)?;
        check_scope(&mut object)?;
        object.done()?;
        Ok(Self {
            name,
            description: description.map(str::to_owned),
            config: config.unwrap_or_default(),
            metadata,
        })
    }

    fn update(&self, body: &Node<'_>) -> Result<Self, ApiError> {
        let mut new = self.clone();
        let mut object = body.object()?;
        if let Some(node) = object.maybe("name") {
            new.name = read_name(&node)?;
        }
        match object.tri("description") {
            Tri::Absent => {}
            Tri::Null => new.description = None,
            Tri::Set(node) => {
                new.description = Some(node.text(0, MAX_DESCRIPTION_CHARS)?.to_owned());
            }
        }
        if let Some(node) = object.maybe("config") {
            new.config = self.config.update(&node)?;
        }
        if let Some(patch) = object.maybe("metadata") {
            let patched = patched_metadata_without_empty(&self.metadata, &patch);
            new.metadata = patched.map_err(invalid_metadata)?;
        }
        check_scope(&mut object)?;
        object.done()?;
        Ok(new)
    }
}

fn invalid_metadata(error: ApiError) -> ApiError {
    error.code("invalid_metadata")
}

fn read_name(node: &Node<'_>) -> Result<String, ApiError> {
    let name = node.text(1, MAX_NAME_CHARS)?;
    if name.trim().is_empty() {
        return Err(node.refuse("must not be blank"));
    }
    Ok(name.to_owned())
}

/// There is one organization here, and no accounts in it.
fn check_scope(object: &mut Object<'_>) -> Result<(), ApiError> {
    match object.maybe("scope") {
        Some(scope) if scope.string()? != "organization" => {
            Err(scope.refuse("must be \"organization\""))
        }
        Some(_) | None => Ok(()),
    }
}
