//! `/v1/skills`: stored skills and their versions. What an upload must be is said in `runtime::skills`.

mod upload;

use async_stream::try_stream;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};

use super::endpoint::{self, Endpoint, Param};
use super::error::{Answer, ApiError};
use super::page::{self, Page};
use super::path::Ids;
use super::query::Query;
use super::records;
use super::schema::{self, Schema, must};
use super::{App, json};
use crate::event::rfc3339;
use crate::runtime::skills::library::{self, LATEST, SKILL};
use crate::runtime::skills::{SkillFacts, VersionFacts};
use crate::runtime::{Record, RecordFilter};

/// The name of the list, for its cursors.
const LIST: &str = "skills";
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;
/// Where all that are stored here come from, in the protocol's word.
const SOURCE: &str = "custom";
/// All words for that.
const SOURCES: [&str; 4] = [SOURCE, "anthropic", "anthropic_example", "plugin"];

const SKILL_SCHEMA: Schema = Schema { name: "Skill", make: skill };
const DELETED: Schema = Schema { name: "DeletedSkill", make: deleted };
const NEW: Schema = Schema { name: "SkillUpload", make: upload::new };
const VERSION: Schema = Schema { name: "SkillVersion", make: version };
const DELETED_VERSION: Schema = Schema { name: "DeletedSkillVersion", make: deleted_version };
const NEW_VERSION: Schema = Schema { name: "SkillVersionUpload", make: upload::new_version };

pub(super) fn endpoints() -> Vec<Endpoint> {
    let [limit, page] = Param::page(MAX_LIMIT as u64);
    let source = Param::new("source", "Only those from there.", schema::words(&SOURCES));
    let one = "/v1/skills/{skill_id}";
    let versions = "/v1/skills/{skill_id}/versions";
    let of_version = "/v1/skills/{skill_id}/versions/{version}";
    vec![
        Endpoint::post("/v1/skills", "skills.create", create)
            .about("Stores a skill: its files, or a zip file of them.")
            .takes(endpoint::Body::Multipart(NEW))
            .answers(endpoint::Answer::Json(SKILL_SCHEMA)),
        Endpoint::get("/v1/skills", "skills.list", list)
            .about("Lists skills, the newest first.")
            .query([limit.clone(), page.clone(), source])
            .answers(endpoint::Answer::Page(SKILL_SCHEMA)),
        Endpoint::get(one, "skills.retrieve", retrieve)
            .about("Shows a skill.")
            .answers(endpoint::Answer::Json(SKILL_SCHEMA)),
        Endpoint::delete(one, "skills.delete", delete)
            .about("Deletes a skill with all its versions; sessions that have it keep it.")
            .answers(endpoint::Answer::Json(DELETED)),
        Endpoint::post(versions, "skills.versions.create", create_version)
            .about("Stores another version of a skill.")
            .takes(endpoint::Body::Multipart(NEW_VERSION))
            .answers(endpoint::Answer::Json(VERSION)),
        Endpoint::get(versions, "skills.versions.list", list_versions)
            .about("Lists a skill's versions, the newest first.")
            .query([limit, page])
            .answers(endpoint::Answer::Page(VERSION)),
        Endpoint::get(of_version, "skills.versions.retrieve", retrieve_version)
            .about("Shows a version of a skill; `latest` is the newest.")
            .answers(endpoint::Answer::Json(VERSION)),
        Endpoint::delete(of_version, "skills.versions.delete", delete_version)
            .about("Deletes a version of a skill, unless it is the only one.")
            .answers(endpoint::Answer::Json(DELETED_VERSION)),
        Endpoint::get(
            "/v1/skills/{skill_id}/versions/{version}/content",
            "skills.versions.download",
            download,
        )
        .about("A version of a skill as a zip file.")
        .answers(endpoint::Answer::Bytes),
    ]
}

fn skill() -> Value {
    schema::tagged(
        "skill",
        [
            must("id", schema::pattern("^skill_")),
            must("display_name", schema::text(1, 255)),
            must("latest_version_id", schema::pattern("^skillver_")),
            must("source", schema::object([must("type", schema::words(&SOURCES))])),
            must("created_at", schema::time()),
            must("updated_at", schema::time()),
        ],
    )
}

fn version() -> Value {
    schema::tagged(
        "skill_version",
        [
            must("id", schema::pattern("^skillver_")),
            must("skill_id", schema::pattern("^skill_")),
            must("name", schema::text(1, 64)),
            must("description", schema::text(1, 1024)),
            must("created_at", schema::time()),
        ],
    )
}

fn deleted() -> Value {
    schema::tagged("skill_deleted", [must("id", schema::pattern("^skill_"))])
}

fn deleted_version() -> Value {
    schema::tagged("skill_version_deleted", [must("id", schema::pattern("^skillver_"))])
}

/// A skill as clients see it.
fn view(app: &App, record: &Record) -> Result<Value, ApiError> {
    let facts: SkillFacts = library::facts(record)?;
    let latest = library::version(app.runtime().reader(), &record.id, LATEST)?;
    Ok(json!({
        "id": record.id,
        "type": "skill",
        "display_name": facts.display_name,
        "latest_version_id": latest.id,
        "source": { "type": SOURCE },
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
    }))
}

/// A version as clients see it.
fn version_view(record: &Record) -> Result<Value, ApiError> {
    let facts: VersionFacts = library::facts(record)?;
    Ok(json!({
        "id": record.id,
        "type": "skill_version",
        "skill_id": record.owner,
        "name": facts.name,
        "description": facts.description,
        "created_at": rfc3339(record.created_at),
    }))
}

async fn create(State(app): State<App>, request: Request) -> Answer {
    let (upload, display_name) = upload::receive(&app, request, true).await?;
    let record = app.runtime().create_skill(upload, display_name).await?;
    Ok(json(&view(&app, &record)?))
}

async fn list(State(app): State<App>, query: Query) -> Answer {
    let page = Page::of(&query, LIST, DEFAULT_LIMIT, MAX_LIMIT)?;
    match query.one("source") {
        None | Some(SOURCE) => {}
        Some(other) if SOURCES.contains(&other) => return Ok(json(&page::body(&[], None))),
        Some(_) => return Err(ApiError::field("source", "must be `custom` or `anthropic`")),
    }
    let filter = RecordFilter { kind: SKILL, ..RecordFilter::default() };
    let (records, next) = records::list(app.runtime().reader(), &page, LIST, filter)?;
    let views = records.iter().map(|record| view(&app, record)).collect::<Result<Vec<_>, _>>()?;
    Ok(json(&page::body(&views, next.as_ref())))
}

async fn retrieve(State(app): State<App>, Ids([id]): Ids<1>) -> Answer {
    let (_, record) = library::find(app.runtime().reader(), &id)?;
    Ok(json(&view(&app, &record)?))
}

async fn delete(State(app): State<App>, Ids([id]): Ids<1>) -> Answer {
    app.runtime().delete_skill(&id).await?;
    Ok(json(&json!({ "id": id, "type": "skill_deleted" })))
}

async fn create_version(State(app): State<App>, Ids([id]): Ids<1>, request: Request) -> Answer {
    // Before all of it is received in vain.
    library::find(app.runtime().reader(), &id)?;
    let (upload, _) = upload::receive(&app, request, false).await?;
    Ok(json(&version_view(&app.runtime().create_skill_version(&id, upload).await?)?))
}

async fn list_versions(State(app): State<App>, Ids([id]): Ids<1>, query: Query) -> Answer {
    library::find(app.runtime().reader(), &id)?;
    // A cursor is good for the skill that it was given for.
    let list = format!("{LIST} {id}");
    let page = Page::of(&query, &list, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = library::versions_of(&id);
    let (records, next) = records::list(app.runtime().reader(), &page, &list, filter)?;
    let views = records.iter().map(version_view).collect::<Result<Vec<_>, _>>()?;
    Ok(json(&page::body(&views, next.as_ref())))
}

async fn retrieve_version(State(app): State<App>, Ids([id, version]): Ids<2>) -> Answer {
    Ok(json(&version_view(&library::version(app.runtime().reader(), &id, &version)?)?))
}

async fn delete_version(State(app): State<App>, Ids([id, version]): Ids<2>) -> Answer {
    let deleted = app.runtime().delete_skill_version(&id, &version).await?;
    Ok(json(&json!({ "id": deleted, "type": "skill_version_deleted" })))
}

async fn download(State(app): State<App>, Ids([id, version]): Ids<2>) -> Answer {
    let pieces = app.runtime().packed_skill(&id, &version)?;
    let stream = try_stream! {
        for piece in pieces {
            yield Bytes::from(piece?);
        }
    };
    let stream: BoxStream<'static, std::io::Result<Bytes>> = Box::pin(stream);
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
