//! `write`: a whole new content. It may replace a file that the session never read: the model means all of it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::{self, Seen};
use super::{Refusal, input, resolve};
use crate::sandbox::GuestContext;
use crate::sandbox::wire::ToolReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(alias = "path")]
    file_path: String,
    #[serde(alias = "text")]
    content: String,
}

pub(super) fn run(
    context: &GuestContext,
    seen: &Seen,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let Input { file_path, content } = input::parse("write", given)?;
    let path = resolve(&context.workspace, &file_path)?;
    if file_path.ends_with('/') {
        return Err(format!("{file_path} names a directory; name a file."));
    }
    let facts = files::replace(&path, content.as_bytes())?;
    seen.note(&path, &facts);
    Ok(ToolReply::text(format!("wrote {} bytes to {}", content.len(), path.display())))
}
