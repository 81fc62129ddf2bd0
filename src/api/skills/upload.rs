//! The form in which a skill comes: its files, each with its path as the name of the part, or one zip file.

use axum::extract::Request;
use multer::Field;
use serde_json::{Value, json};

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::files::{form, next, piece, value};
use crate::api::schema::{self, may, must};
use crate::runtime::skills::SkillUpload;

/// Longest label (the protocol's bound).
const MAX_DISPLAY_NAME_CHARS: usize = 255;

pub(super) fn new() -> Value {
    let display_name = may("display_name", schema::text(1, MAX_DISPLAY_NAME_CHARS));
    schema::object([must("files[]", files()), display_name])
}

pub(super) fn new_version() -> Value {
    schema::object([must("files[]", files())])
}

fn files() -> Value {
    schema::list(json!({ "type": "string", "format": "binary" }))
}

/// Receives a form, with a label of the skill where one is `labelled`.
///
/// # Errors
/// Names what is wrong; nothing of it stays then.
pub(super) async fn receive(
    app: &App,
    request: Request,
    labelled: bool,
) -> Result<(SkillUpload, Option<String>), ApiError> {
    let mut form = form(request)?;
    let mut upload = app.runtime().skill_upload()?;
    let (mut label, mut files) = (None, 0);
    while let Some(mut field) = next(&mut form).await? {
        match field.name().unwrap_or_default() {
            "files[]" | "files" => {
                files += 1;
                begin(&mut upload, &field)?;
                while let Some(chunk) = piece(&mut field).await? {
                    upload.write(&chunk)?;
                }
            }
            "display_name" if labelled => label = Some(display_name(&value(&mut field).await?)?),
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(ApiError::field(&other, "Extra inputs are not permitted"));
            }
        }
    }
    if files == 0 {
        return Err(ApiError::field("files", "Field required"));
    }
    Ok((upload, label))
}

fn begin(upload: &mut SkillUpload, field: &Field<'_>) -> Result<(), ApiError> {
    let Some(name) = field.file_name().filter(|name| !name.is_empty()) else {
        let problem = "each must have its path as its file name, in UTF-8";
        return Err(ApiError::field("files", problem));
    };
    let kind = field.content_type().map(|kind| kind.essence_str());
    let lower = name.to_ascii_lowercase();
    let named_so = [".zip", ".skill"].iter().any(|ending| lower.ends_with(ending));
    // Within a directory, a zip file is a file of the skill's.
    if !name.contains('/') && (named_so || kind == Some("application/zip")) {
        return Ok(upload.begin_zip(name)?);
    }
    Ok(upload.begin(name)?)
}

fn display_name(text: &str) -> Result<String, ApiError> {
    let count = text.chars().count();
    if text.trim().is_empty() || count > MAX_DISPLAY_NAME_CHARS || text.contains(char::is_control) {
        let problem = "must be one line of 1 to 255 characters";
        return Err(ApiError::field("display_name", problem));
    }
    Ok(text.to_owned())
}
