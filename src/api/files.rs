//! Files: upload, list, metadata, download, delete.

use async_stream::try_stream;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use multer::{Field, Multipart};
use serde_json::{Value, json};

use super::endpoint::{self, Endpoint, Param};
use super::error::{Answer, ApiError};
use super::page::{self, Page};
use super::query::Query;
use super::records;
use super::schema::{self, Schema, must};
use super::{App, json};
use crate::event::rfc3339;
use crate::id::FileId;
use crate::limits::{MAX_FILE_NAME_CHARS, UPLOAD_IDLE_TIMEOUT};
use crate::runtime::files::{FileFacts, KIND, UNKNOWN_TYPE, Upload, extension_of, type_of_name};
use crate::runtime::{Record, RecordFilter};

/// The name of the list, for its cursors.
const LIST: &str = "files";
/// Bounds of `expires_in_seconds`: an hour, ninety days.
const EXPIRES: std::ops::RangeInclusive<u64> = 3600..=7_776_000;
/// Most ids in one request.
const MAX_IDS: usize = 100;
/// Bytes of a download that are read at once.
const CHUNK: usize = 64 * 1024;
/// Longest value of a form's field that is no file.
const MAX_FIELD_BYTES: usize = 1024;
/// What files are called in answers to people.
const WHAT: &str = "file";

const FILE: Schema = Schema { name: "File", make: file };
const DELETED: Schema = Schema { name: "DeletedFile", make: deleted };
const UPLOAD: Schema = Schema { name: "FileUpload", make: upload_form };

pub(super) fn endpoints() -> Vec<Endpoint> {
    let [limit, page] = Param::page(1000);
    let ids = schema::list_of(0, MAX_IDS, schema::string());
    let list_query = [
        limit,
        page,
        Param::new("ids[]", "These files and no pages.", ids),
        Param::new("scope_id", "Those of this session.", schema::string()),
    ];
    vec![
        Endpoint::post("/v1/files", "files.upload", upload)
            .about("Stores a file.")
            .takes(endpoint::Body::Multipart(UPLOAD))
            .answers(endpoint::Answer::Json(FILE)),
        Endpoint::get("/v1/files", "files.list", list)
            .about("Lists files, the newest first.")
            .query(list_query)
            .answers(endpoint::Answer::Page(FILE)),
        Endpoint::get("/v1/files/{file_id}", "files.retrieve_metadata", metadata)
            .about("Shows what is known of a file.")
            .answers(endpoint::Answer::Json(FILE)),
        Endpoint::delete("/v1/files/{file_id}", "files.delete", delete)
            .about("Deletes a file.")
            .answers(endpoint::Answer::Json(DELETED)),
        Endpoint::get("/v1/files/{file_id}/content", "files.download", download)
            .about("The file itself.")
            .answers(endpoint::Answer::Bytes),
    ]
}

fn file() -> Value {
    let scope = schema::tagged("session", [must("id", schema::string())]);
    schema::tagged(
        "file",
        [
            must("id", schema::pattern("^file_")),
            must("filename", schema::string()),
            must("mime_type", schema::string()),
            must("size_bytes", schema::integer(0)),
            must("created_at", schema::time()),
            must("downloadable", schema::boolean()),
            must("expires_at", schema::nullable(schema::time())),
            must("scope", schema::nullable(scope)),
        ],
    )
}

fn deleted() -> Value {
    schema::tagged("file_deleted", [must("id", schema::pattern("^file_"))])
}

fn upload_form() -> Value {
    let expires = schema::between(*EXPIRES.start(), *EXPIRES.end());
    schema::object([
        must("file", json!({ "type": "string", "format": "binary" })),
        schema::may("expires_in_seconds", expires),
    ])
}

/// A file as clients see it.
pub(super) fn view(record: &Record) -> Value {
    let field = |name: &str| record.body.get(name).cloned().unwrap_or(Value::Null);
    let expires_at = FileFacts::of(record).and_then(|facts| facts.expires_at(record.created_at));
    let scope = record.owner.as_ref().map(|id| json!({ "type": "session", "id": id }));
    json!({
        "id": record.id,
        "type": "file",
        "filename": field("filename"),
        "mime_type": field("mime_type"),
        "size_bytes": field("size_bytes"),
        "created_at": rfc3339(record.created_at),
        "downloadable": field("downloadable"),
        "expires_at": expires_at.map(rfc3339),
        "scope": scope,
    })
}

/// The record of a file that can be used.
pub(super) fn find(app: &App, id: &str) -> Result<(FileId, Record), ApiError> {
    let parsed: FileId = id.parse().map_err(|_| ApiError::no_such(WHAT, id))?;
    let record = app.runtime().reader().record(KIND, id)?;
    let record = record.ok_or_else(|| ApiError::no_such(WHAT, id))?;
    if FileFacts::is_over(&record, app.clock().now()) {
        return Err(ApiError::not_found(format!("file `{id}` has expired")).code("file_expired"));
    }
    Ok((parsed, record))
}

async fn metadata(State(app): State<App>, Path(id): Path<String>) -> Answer {
    Ok(json(&view(&find(&app, &id)?.1)))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let (file, _) = find(&app, &id)?;
    app.runtime().delete_file(&file).await?;
    Ok(json(&json!({ "id": id, "type": "file_deleted" })))
}

async fn list(State(app): State<App>, query: Query) -> Answer {
    let now = app.clock().now();
    let mut ids = query.many("ids");
    if !ids.is_empty() {
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > MAX_IDS {
            return Err(ApiError::field("ids", format!("must have at most {MAX_IDS} entries")));
        }
        if query.one("page").is_some() || query.one("limit").is_some() {
            return Err(ApiError::field("ids", "cannot be given together with page or limit"));
        }
        let found = ids.iter().filter_map(|id| find(&app, id).ok());
        let views: Vec<_> = found.map(|(_, record)| view(&record)).collect();
        return Ok(json(&page::body(&views, None)));
    }
    let page = Page::of(&query, LIST, 20, 1000)?;
    let filter = RecordFilter {
        kind: KIND,
        owner: query.one("scope_id").map(str::to_owned),
        ..RecordFilter::default()
    };
    let (records, next) = records::list(app.runtime().reader(), &page, LIST, filter)?;
    let views: Vec<_> =
        records.iter().filter(|record| !FileFacts::is_over(record, now)).map(view).collect();
    Ok(json(&page::body(&views, next.as_ref())))
}

async fn download(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let (file, record) = find(&app, &id)?;
    if record.body["downloadable"] != json!(true) {
        let message = format!("file `{id}` was uploaded and cannot be downloaded");
        return Err(ApiError::invalid(message).code("file_not_downloadable"));
    }
    let mut bytes = app.runtime().open_file(&file).map_err(ApiError::from)?;
    let stream = try_stream! {
        let mut chunk = vec![0; CHUNK];
        loop {
            // From the page cache, or one read of the disk: no longer than a query of the store.
            let count = std::io::Read::read(&mut bytes, &mut chunk)?;
            if count == 0 {
                break;
            }
            yield Bytes::copy_from_slice(&chunk[..count]);
        }
    };
    let stream: futures_util::stream::BoxStream<'static, std::io::Result<Bytes>> = Box::pin(stream);
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    let kind = record.body["mime_type"].as_str().and_then(|kind| HeaderValue::from_str(kind).ok());
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, kind);
    let size = record.body["size_bytes"].as_u64().unwrap_or(0);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    // A page in a browser must not run what somebody uploaded.
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

async fn upload(State(app): State<App>, request: Request) -> Answer {
    let mut form = form(request)?;
    let mut expires_in: Option<u64> = None;
    let mut received: Option<(Upload, String, String)> = None;
    while let Some(mut field) = next(&mut form).await? {
        match field.name().unwrap_or_default() {
            "file" if received.is_none() => {
                let kind = mime_type(&field);
                let name = file_name(&field, &kind);
                let mut upload = app.runtime().upload()?;
                while let Some(chunk) = piece(&mut field).await? {
                    upload.write(&chunk)?;
                }
                received = Some((upload, name, kind));
            }
            "file" => return Err(ApiError::field("file", "must be given once")),
            "expires_in_seconds" => {
                let text = value(&mut field).await?;
                let seconds = text.parse().ok().filter(|seconds| EXPIRES.contains(seconds));
                let problem = "must be a whole number between 3600 and 7776000";
                expires_in =
                    Some(seconds.ok_or_else(|| ApiError::field("expires_in_seconds", problem))?);
            }
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(ApiError::field(&other, "Extra inputs are not permitted"));
            }
        }
    }
    let Some((upload, filename, mime_type)) = received else {
        return Err(ApiError::field("file", "Field required"));
    };
    let facts = FileFacts {
        filename,
        mime_type,
        size_bytes: upload.size(),
        downloadable: !app.options().strict,
        expires_in_seconds: expires_in,
    };
    Ok(json(&view(&app.runtime().keep(upload, None, &facts).await?)))
}

/// The parts of a form.
pub(super) fn form(request: Request) -> Result<Multipart<'static>, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok());
    let boundary = boundary
        .ok_or_else(|| ApiError::invalid("the body must be multipart/form-data with a boundary"))?;
    Ok(Multipart::new(request.into_body().into_data_stream(), boundary))
}

fn broken(error: &multer::Error) -> ApiError {
    ApiError::invalid(format!("the form broke off or is no form: {error}"))
}

async fn timely<T>(part: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(UPLOAD_IDLE_TIMEOUT, part).await {
        Ok(part) => part.map_err(|error| broken(&error)),
        Err(_) => Err(ApiError::invalid("the upload stood still for too long")),
    }
}

pub(super) async fn next(
    form: &mut Multipart<'static>,
) -> Result<Option<Field<'static>>, ApiError> {
    timely(form.next_field()).await
}

pub(super) async fn piece(field: &mut Field<'static>) -> Result<Option<Bytes>, ApiError> {
    timely(field.chunk()).await
}

/// A short field's text.
pub(super) async fn value(field: &mut Field<'static>) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    while let Some(chunk) = piece(field).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_FIELD_BYTES {
            return Err(ApiError::field(&name, format!("has more than {MAX_FIELD_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::field(&name, "is not UTF-8"))
}

fn mime_type(field: &Field<'_>) -> String {
    let said = field.content_type().map(|kind| kind.essence_str().to_owned());
    let said = said.filter(|kind| kind != UNKNOWN_TYPE);
    said.unwrap_or_else(|| type_of_name(field.file_name().unwrap_or_default()).to_owned())
}

/// The last component of the name that was sent.
fn file_name(field: &Field<'_>, kind: &str) -> String {
    let sent = field.file_name().unwrap_or_default();
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME_CHARS).collect();
    if !matches!(name.trim(), "" | "." | "..") {
        return name;
    }
    extension_of(kind).map_or("unnamed".to_owned(), |extension| format!("unnamed.{extension}"))
}
