//! `read`: a text, an image or a PDF.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::{self, Seen};
use super::media::{self, Given};
use super::{Leash, Refusal, decode, input, output, resolve};
use crate::limits::{MAX_LINE_CHARS, MAX_TEXT_FILE_BYTES};
use crate::sandbox::GuestContext;
use crate::sandbox::wire::ToolReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(alias = "path")]
    file_path: String,
    #[serde(default, deserialize_with = "input::range")]
    view_range: Option<(i64, i64)>,
}

pub(super) fn run(
    context: &GuestContext,
    seen: &Seen,
    leash: &Leash,
    takes_documents: bool,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let Input { file_path, view_range } = input::parse("read", given)?;
    let path = resolve(&context.workspace, &file_path)?;
    let (bytes, facts) = files::load(&path, MAX_TEXT_FILE_BYTES)?;
    if let Some(media) = media::given(&path.to_string_lossy(), &bytes, takes_documents, leash)? {
        if view_range.is_some() {
            return Err("view_range is for text files; read this one without it.".to_owned());
        }
        return Ok(match media {
            Given::Block(block) => ToolReply { content: vec![block], is_error: false },
            Given::Text(text, notes) => told(text, &notes, context),
        });
    }
    let Some((text, encoding)) = decode::text(&bytes) else {
        let (shown, kind) = (path.display(), decode::kind(&bytes));
        return Err(format!(
            "{shown} is {kind} of {} bytes, not text. Use bash to look into it.",
            bytes.len()
        ));
    };
    seen.note(&path, &facts);
    if text.is_empty() {
        return Ok(ToolReply::text("(the file is empty)"));
    }
    let mut shown = match view_range {
        Some((first, last)) => lines(&text, first, last)?,
        None => text,
    };
    let mut notes = cut_long_lines(&mut shown);
    notes.extend(encoding.name().map(|name| format!("the file is {name}; edit keeps it so")));
    Ok(told(shown, &notes, context))
}

/// A text as far as the model is to see it, and what there is to say about it.
fn told(text: String, notes: &[String], context: &GuestContext) -> ToolReply {
    let mut shown = output::bounded(text, &context.spool);
    for note in notes {
        shown.push_str(&format!("\n[{note}]"));
    }
    ToolReply::text(shown)
}

/// Lines `first` to `last`, counted from 1; a `last` below 1 is the end.
fn lines(text: &str, first: i64, last: i64) -> Result<String, Refusal> {
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let last = if last < 1 { count } else { last.min(count) };
    if first < 1 || first > count {
        return Err(format!("view_range begins at line {first}, but the file has {count} lines."));
    }
    if last < first {
        return Err(format!("view_range ends at line {last}, before it begins at {first}."));
    }
    let index = |line: i64| usize::try_from(line).unwrap_or(usize::MAX);
    Ok(all[index(first) - 1..index(last)].concat())
}

fn cut_long_lines(text: &mut String) -> Vec<String> {
    if text.lines().all(|line| line.len() <= MAX_LINE_CHARS) {
        return Vec::new();
    }
    let mut cut = 0;
    let shorter = text.split_inclusive('\n').map(|line| {
        let Some((at, _)) = line.trim_end_matches('\n').char_indices().nth(MAX_LINE_CHARS) else {
            return line.to_owned();
        };
        cut += 1;
        let end = if line.ends_with('\n') { "\n" } else { "" };
        format!("{}… [{} more bytes]{end}", &line[..at], line.trim_end_matches('\n').len() - at)
    });
    let shorter: String = shorter.collect();
    *text = shorter;
    if cut == 0 {
        Vec::new()
    } else {
        vec![format!("{cut} lines are longer than {MAX_LINE_CHARS} characters and cut")]
    }
}
