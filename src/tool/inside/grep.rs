//! `grep`: lines by regular expression, in the engine and the manner of ripgrep.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use globset::GlobBuilder;
use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkFinish, SinkMatch,
};
use ignore::types::TypesBuilder;
use ignore::{WalkBuilder, WalkState};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::glob::{self, LeftOut};
use super::{Leash, Refusal, files, input, output};
use crate::limits::{GREP_COLLECTED_BYTES, GREP_LINE_BYTES, MAX_LINE_CHARS};
use crate::sandbox::GuestContext;
use crate::sandbox::wire::ToolReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
    #[serde(default)]
    output_mode: Mode,
    #[serde(default, deserialize_with = "input::number")]
    context: Option<usize>,
    #[serde(default, alias = "-B", deserialize_with = "input::number")]
    before: Option<usize>,
    #[serde(default, alias = "-A", deserialize_with = "input::number")]
    after: Option<usize>,
    glob: Option<String>,
    r#type: Option<String>,
    #[serde(default, alias = "-i", deserialize_with = "input::truth")]
    case_insensitive: bool,
    #[serde(default, deserialize_with = "input::truth")]
    multiline: bool,
    #[serde(default, deserialize_with = "input::number")]
    head_limit: Option<usize>,
    #[serde(default, deserialize_with = "input::truth")]
    include_ignored: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Content,
    FilesWithMatches,
    Count,
}

/// Most lines around a match: more is what `read` is for.
const MOST_CONTEXT: usize = 100;

pub(super) fn run(
    context: &GuestContext,
    leash: &Leash,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let input: Input = input::parse("grep", given)?;
    let matcher = matcher(&input)?;
    let root = glob::root(context, input.path.as_deref())?;
    let left_out = LeftOut::default();
    let found = search(&walker(&input, &root, &left_out)?, &input, &matcher, leash)?;
    let text = left_out.told(report(&found, &input, &root));
    Ok(ToolReply::text(output::bounded(text, &context.spool)))
}

fn matcher(input: &Input) -> Result<RegexMatcher, Refusal> {
    let mut builder = RegexMatcherBuilder::new();
    builder.case_insensitive(input.case_insensitive).multi_line(true);
    builder.dot_matches_new_line(input.multiline);
    if !input.multiline {
        builder.line_terminator(Some(b'\n'));
    }
    let wrong = |e: &dyn std::fmt::Display| {
        format!("`{}` is not a regular expression that can be searched for: {e}", input.pattern)
    };
    let matcher = builder.build(&input.pattern).map_err(|e| wrong(&e))?;
    if matcher.is_match(b"").unwrap_or(false) && input.pattern.is_empty() {
        return Err("pattern is empty; say what to look for.".to_owned());
    }
    Ok(matcher)
}

fn walker(input: &Input, root: &Path, left_out: &LeftOut) -> Result<WalkBuilder, Refusal> {
    let mut walker = glob::walker(root, input.include_ignored, left_out);
    if let Some(name) = &input.r#type {
        let mut types = TypesBuilder::new();
        types.add_defaults();
        let types = types.select(name).build();
        walker.types(types.map_err(|_| {
            format!("`{name}` is not a type of files that grep knows; use glob instead.")
        })?);
    }
    if let Some(pattern) = &input.glob {
        let anywhere =
            if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&anywhere).literal_separator(true).build();
        let glob = glob
            .map_err(|e| format!("`{pattern}` is not a glob pattern: {}.", e.kind()))?
            .compile_matcher();
        let (root, left_out, include_ignored) =
            (root.to_owned(), left_out.clone(), input.include_ignored);
        walker.filter_entry(move |entry| {
            let below = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            let directory = entry.file_type().is_some_and(|kind| kind.is_dir());
            let wanted = directory || entry.depth() == 0 || glob.is_match(below);
            wanted && left_out.lets(entry, include_ignored)
        });
    }
    Ok(walker)
}

/// What one file has.
struct Found {
    path: PathBuf,
    matches: usize,
    lines: String,
}

fn search(
    walker: &WalkBuilder,
    input: &Input,
    matcher: &RegexMatcher,
    leash: &Leash,
) -> Result<Vec<Found>, Refusal> {
    let found = Mutex::new((Vec::new(), 0));
    let problem = Mutex::new(None);
    walker.build_parallel().run(|| {
        let mut searcher = searcher(input);
        let (found, problem) = (&found, &problem);
        Box::new(move |entry| {
            if let Err(stop) = leash.check() {
                *problem.lock().expect("nothing panics under this lock") = Some(stop);
                return WalkState::Quit;
            }
            let Ok(entry) = entry else { return WalkState::Continue };
            if !entry.file_type().is_some_and(|kind| kind.is_file()) {
                return WalkState::Continue;
            }
            let mut sink = Lines::new(entry.into_path(), input.output_mode);
            // A file that cannot be read is passed over, as ripgrep does.
            // Nor is one waited for that has become a pipe since it was seen.
            let Ok((file, _)) = files::open(&sink.found.path) else { return WalkState::Continue };
            let searched = searcher.search_reader(matcher, Leashed(file, leash), &mut sink);
            if searched.is_err()
                && let Err(stop) = leash.check()
            {
                *problem.lock().expect("nothing panics under this lock") = Some(stop);
                return WalkState::Quit;
            }
            if searched.is_ok() && sink.found.matches > 0 {
                let mut all = found.lock().expect("nothing panics under this lock");
                all.1 += sink.found.lines.len();
                all.0.push(sink.found);
                if all.1 > GREP_COLLECTED_BYTES {
                    return WalkState::Quit;
                }
            }
            WalkState::Continue
        })
    });
    if let Some(stop) = problem.into_inner().expect("nothing panics under this lock") {
        return Err(stop);
    }
    let (mut found, _) = found.into_inner().expect("nothing panics under this lock");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// A file that ends when its call must.
struct Leashed<'a>(File, &'a Leash);

impl Read for Leashed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1.check().map_err(io::Error::other)?;
        self.0.read(into)
    }
}

fn searcher(input: &Input) -> Searcher {
    let around = input.context.unwrap_or(0);
    let (before, after) = match input.output_mode {
        Mode::Content => (input.before.unwrap_or(around), input.after.unwrap_or(around)),
        Mode::FilesWithMatches | Mode::Count => (0, 0),
    };
    SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .line_number(true)
        .multi_line(input.multiline)
        .heap_limit(Some(GREP_LINE_BYTES))
        .before_context(before.min(MOST_CONTEXT))
        .after_context(after.min(MOST_CONTEXT))
        .build()
}

fn report(found: &[Found], input: &Input, root: &Path) -> String {
    let mut text = String::new();
    let base = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
    for file in found {
        let path = file.path.strip_prefix(base).unwrap_or(&file.path).display();
        match input.output_mode {
            Mode::Content => {
                for line in file.lines.split_inclusive('\n') {
                    if line == "--\n" {
                        text.push_str(line);
                    } else {
                        write!(text, "{path}{line}").expect("writing to a string cannot fail");
                    }
                }
            }
            Mode::FilesWithMatches => {
                writeln!(text, "{path}").expect("writing to a string cannot fail");
            }
            Mode::Count => {
                writeln!(text, "{path}:{}", file.matches).expect("writing to a string cannot fail");
            }
        }
    }
    if text.is_empty() {
        return "no matches".to_owned();
    }
    if found.iter().map(|file| file.lines.len()).sum::<usize>() > GREP_COLLECTED_BYTES {
        text.push_str("[there are more matches; narrow the pattern or the path]\n");
    }
    limited(&text, input.head_limit)
}

fn limited(text: &str, most: Option<usize>) -> String {
    let count = text.lines().count();
    match most {
        Some(most) if most > 0 && count > most => {
            let kept: Vec<_> = text.lines().take(most).collect();
            format!("{}\n[{} more lines]", kept.join("\n"), count - most)
        }
        _ => text.trim_end_matches('\n').to_owned(),
    }
}

/// Gathers the lines of one file: `:N:text` for a match, `-N-text` for its neighbours.
struct Lines {
    found: Found,
    mode: Mode,
}

impl Lines {
    fn new(path: PathBuf, mode: Mode) -> Self {
        Self { found: Found { path, matches: 0, lines: String::new() }, mode }
    }

    fn line(&mut self, mark: char, number: Option<u64>, bytes: &[u8]) {
        let number = number.unwrap_or(0);
        for (i, line) in output::clean(bytes).lines().enumerate() {
            let cut = line.char_indices().nth(MAX_LINE_CHARS).map(|(at, _)| at);
            let (shown, more) = cut.map_or((line, ""), |at| (&line[..at], "…"));
            let number = number + i as u64;
            writeln!(self.found.lines, "{mark}{number}{mark}{shown}{more}")
                .expect("writing to a string cannot fail");
        }
    }
}

impl Sink for Lines {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, Self::Error> {
        self.found.matches += 1;
        if self.mode == Mode::Content {
            self.line(':', found.line_number(), found.bytes());
        }
        Ok(self.mode != Mode::FilesWithMatches && self.found.lines.len() < GREP_COLLECTED_BYTES)
    }

    fn context(&mut self, _: &Searcher, found: &SinkContext<'_>) -> Result<bool, Self::Error> {
        self.line('-', found.line_number(), found.bytes());
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, Self::Error> {
        self.found.lines.push_str("--\n");
        Ok(true)
    }

    fn finish(&mut self, _: &Searcher, end: &SinkFinish) -> Result<(), Self::Error> {
        if end.binary_byte_offset().is_some() {
            // It turned out to be binary: what was found so far is not text.
            self.found.matches = 0;
            self.found.lines.clear();
        }
        Ok(())
    }
}
