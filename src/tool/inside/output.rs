//! Bounded output: what is too long for the model lies in a file, and the model sees its two ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits::{TOOL_OUTPUT_CHARS, TOOL_PREVIEW_CHARS, TOOL_SPOOL_BYTES};

/// Bytes held in memory before they go to a file: every text of the bound's length fits, whatever its characters.
const HELD: usize = 4 * TOOL_OUTPUT_CHARS;
/// Bytes of the end that are held: the preview's half, whatever its characters.
const TAIL: usize = 2 * TOOL_PREVIEW_CHARS;

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// Output as it comes, of any length, in bounded memory.
pub(super) struct Spool {
    directory: PathBuf,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    file: Option<(PathBuf, File)>,
    total: usize,
}

impl Spool {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            head: Vec::new(),
            tail: VecDeque::new(),
            file: None,
            total: 0,
        }
    }

    /// Bytes taken so far, kept or not.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Takes more. A file that cannot be written loses the middle of the output, not the call.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let before = self.total;
        self.total += bytes.len();
        let room = HELD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        let rest = &bytes[room..];
        if rest.is_empty() {
            return;
        }
        self.tail.extend(rest.iter().skip(rest.len().saturating_sub(TAIL)));
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        if before < TOOL_SPOOL_BYTES && self.spill(rest).is_err() {
            self.file = None;
        }
    }

    fn spill(&mut self, rest: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.total - rest.len() <= HELD {
            let (path, mut file) = create(&self.directory)?;
            file.write_all(&self.head)?;
            self.file = Some((path, file));
        }
        match &mut self.file {
            Some((_, file)) => file.write_all(rest),
            None => Ok(()),
        }
    }

    /// The output as text for the model.
    pub(super) fn finish(mut self) -> String {
        if self.total <= HELD {
            let text = clean(&self.head);
            if text.chars().count() <= TOOL_OUTPUT_CHARS {
                return text;
            }
            let kept = create(&self.directory).and_then(|(path, mut file)| {
                file.write_all(&self.head)?;
                Ok(path)
            });
            return preview(&text, &text, self.total, kept.ok().as_deref());
        }
        let head = clean(&self.head);
        let tail = clean(self.tail.make_contiguous());
        preview(&head, &tail, self.total, self.file.as_ref().map(|(path, _)| path.as_path()))
    }
}

/// A finished text, bounded in the same way.
pub(super) fn bounded(text: String, directory: &Path) -> String {
    if text.chars().count() <= TOOL_OUTPUT_CHARS {
        return text;
    }
    let mut spool = Spool::new(directory);
    spool.push(text.as_bytes());
    spool.finish()
}

fn create(directory: &Path) -> io::Result<(PathBuf, File)> {
    std::fs::create_dir_all(directory)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("output-{number}.txt"));
    let file = File::create(&path)?;
    Ok((path, file))
}

fn preview(head: &str, tail: &str, total: usize, path: Option<&Path>) -> String {
    let half = TOOL_PREVIEW_CHARS / 2;
    let first: String = head.chars().take(half).collect();
    let skipped = tail.chars().count().saturating_sub(half);
    let last: String = tail.chars().skip(skipped).collect();
    let whole = match path {
        Some(path) if total > TOOL_SPOOL_BYTES => {
            format!("its first {TOOL_SPOOL_BYTES} bytes are in {}", path.display())
        }
        Some(path) => format!("all of it is in {}; read parts of it or search it", path.display()),
        None => "the rest is lost".to_owned(),
    };
    format!(
        "{first}\n\n[the output has {total} bytes, of which this shows the two ends; {whole}]\n\n{last}"
    )
}

/// Bytes as text: what is not UTF-8 is marked, terminal escapes are taken out.
pub(super) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains('\u{1b}') && !text.contains('\r') {
        return text.into_owned();
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            // A progress bar redraws its line; of CRLF only the newline counts.
            '\r' if rest.peek() == Some(&'\n') => {}
            '\r' => clean.push('\n'),
            other => clean.push(other),
        }
    }
    clean
}

/// Skips what follows an escape character: a control sequence, a string up to its terminator, or one character.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => while rest.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    rest.next_if_eq(&'\\');
                    return;
                }
            }
        }
        Some('(' | ')' | '*' | '+' | '#' | '%') => {
            rest.next();
        }
        _ => {}
    }
}
