//! `edit`: one text for another, in a file that keeps everything else: line endings, encoding, mode.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::{self, Seen};
use super::{Refusal, decode, input, resolve};
use crate::limits::MAX_TEXT_FILE_BYTES;
use crate::sandbox::GuestContext;
use crate::sandbox::wire::ToolReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(alias = "path")]
    file_path: String,
    #[serde(alias = "old_str")]
    old_string: String,
    #[serde(alias = "new_str")]
    new_string: String,
    #[serde(default, deserialize_with = "input::truth")]
    replace_all: bool,
}

pub(super) fn run(
    context: &GuestContext,
    seen: &Seen,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let Input { file_path, old_string, new_string, replace_all } = input::parse("edit", given)?;
    if old_string.is_empty() {
        return Err(
            "old_string is empty; give the text to replace, or use write for a whole file."
                .to_owned(),
        );
    }
    if old_string == new_string {
        return Err(
            "old_string and new_string are the same; there is nothing to change.".to_owned()
        );
    }
    let path = resolve(&context.workspace, &file_path)?;
    let (bytes, facts) = files::load(&path, MAX_TEXT_FILE_BYTES)?;
    seen.check(&path, &facts)?;
    let Some((text, encoding)) = decode::text(&bytes) else {
        return Err(format!(
            "{} is {}, not text, so it cannot be edited.",
            path.display(),
            decode::kind(&bytes)
        ));
    };
    let (edited, count) = replace(&text, &old_string, &new_string, replace_all)?;
    let Some(bytes) = encoding.encode(&edited) else {
        let name = encoding.name().unwrap_or("UTF-8");
        return Err(format!(
            "{} is {name}, which lacks a character of new_string.",
            path.display()
        ));
    };
    let facts = files::replace(&path, &bytes)?;
    seen.note(&path, &facts);
    let plural = if count == 1 { "" } else { "s" };
    Ok(ToolReply::text(format!("edited {} ({count} replacement{plural})", path.display())))
}

/// The new text and how often it was changed.
pub(super) fn replace(
    text: &str,
    old: &str,
    new: &str,
    all: bool,
) -> Result<(String, usize), Refusal> {
    let (old, new) = in_the_files_endings(text, old, new);
    let count = text.matches(&old).count();
    match count {
        0 => Err(nearest(text, &old)),
        1 => Ok((text.replacen(&old, &new, 1), 1)),
        _ if all => Ok((text.replace(&old, &new), count)),
        _ => {
            let lines: Vec<_> = text
                .match_indices(&old)
                .take(10)
                .map(|(at, _)| line_of(text, at).to_string())
                .collect();
            Err(format!(
                "old_string matches {count} times, at lines {}. Give more of the text around the one that you mean, or \
                 set replace_all.",
                lines.join(", ")
            ))
        }
    }
}

/// A model writes newlines; a file whose lines end in CRLF is matched and changed in its own way.
fn in_the_files_endings(text: &str, old: &str, new: &str) -> (String, String) {
    let crlf = text.matches("\r\n").count();
    let dominant = crlf > 0 && crlf * 2 >= text.matches('\n').count();
    if !dominant
        || old.contains('\r')
        || text.contains(old) && !old.contains('\n') && !new.contains('\n')
    {
        return (old.to_owned(), new.to_owned());
    }
    (old.replace('\n', "\r\n"), new.replace("\r\n", "\n").replace('\n', "\r\n"))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Lines of a file that are looked at for a candidate: enough for source files, bounded for data.
const CANDIDATE_LINES: usize = 20_000;
/// Lines that are shown of it.
const SHOWN_LINES: usize = 12;

/// Tells what in the file is most like what was not found.
fn nearest(text: &str, old: &str) -> Refusal {
    let wanted: Vec<&str> = old.lines().collect();
    let lines: Vec<&str> = text.lines().take(CANDIDATE_LINES).collect();
    let first = wanted.iter().copied().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let offset = wanted.iter().position(|line| *line == first).unwrap_or(0);
    let ratio = |line: &str| {
        if line.trim() == first.trim() {
            return 1.0;
        }
        if line.len() > 4 * first.len() + 40 || first.len() > 4 * line.len() + 40 {
            return 0.0;
        }
        likeness(line.trim(), first.trim())
    };
    let scored = lines.iter().enumerate().map(|(i, line)| (i, ratio(line)));
    let best = scored.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    let Some((at, score)) = best.filter(|(_, score)| *score > 0.5) else {
        return "old_string does not occur in the file, nor anything like it. Read the file again."
            .to_owned();
    };
    let from = at.saturating_sub(offset);
    let to = (from + wanted.len().min(SHOWN_LINES)).min(lines.len()).max(from + 1);
    let shown: Vec<_> = lines[from..to]
        .iter()
        .enumerate()
        .map(|(i, line)| format!("{:>6}  {line}", from + i + 1))
        .collect();
    let hint = if score >= 1.0 { " It differs in spaces or in later lines." } else { "" };
    format!(
        "old_string does not occur in the file. The nearest text is:{hint}\n{}",
        shown.join("\n")
    )
}

/// How alike two lines are, from 0 to 1: the share of neighbouring characters that they have in common.
fn likeness(one: &str, other: &str) -> f64 {
    let pairs = |line: &str| {
        let mut pairs: Vec<_> = line.chars().zip(line.chars().skip(1)).collect();
        pairs.sort_unstable();
        pairs
    };
    let (one, other) = (pairs(one), pairs(other));
    let (mut i, mut j, mut common) = (0, 0, 0_u32);
    while i < one.len() && j < other.len() {
        match one[i].cmp(&other[j]) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    let all = (one.len() + other.len()).max(1);
    2.0 * f64::from(common) / all as f64
}
