//! `glob`: paths by pattern, newest first. Hidden files count; `.git` does not, and what Git ignores only if asked for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use ignore::{DirEntry, WalkBuilder, WalkState};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Leash, Refusal, input, lists, resolve};
use crate::limits::GLOB_RESULTS;
use crate::sandbox::GuestContext;
use crate::sandbox::wire::ToolReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
    #[serde(default, deserialize_with = "input::truth")]
    include_ignored: bool,
}

pub(super) fn run(
    context: &GuestContext,
    leash: &Leash,
    given: Map<String, Value>,
) -> Result<ToolReply, Refusal> {
    let Input { pattern, path, include_ignored } = input::parse("glob", given)?;
    let matcher = matcher(&pattern)?;
    let root = root(context, path.as_deref())?;
    let found = Mutex::new(Vec::new());
    let problem = Mutex::new(None);
    let left_out = LeftOut::default();
    walker(&root, include_ignored, &left_out).build_parallel().run(|| {
        Box::new(|entry| {
            if let Err(stop) = leash.check() {
                *problem.lock().expect("nothing panics under this lock") = Some(stop);
                return WalkState::Quit;
            }
            if let Some(file) = entry.ok().and_then(|entry| matching(&entry, &root, &matcher)) {
                found.lock().expect("nothing panics under this lock").push(file);
            }
            WalkState::Continue
        })
    });
    if let Some(stop) = problem.into_inner().expect("nothing panics under this lock") {
        return Err(stop);
    }
    let found = found.into_inner().expect("nothing panics under this lock");
    Ok(ToolReply::text(left_out.told(listing(found))))
}

fn matching(entry: &DirEntry, root: &Path, matcher: &GlobMatcher) -> Option<(SystemTime, PathBuf)> {
    if entry.file_type()?.is_dir() || !matcher.is_match(entry.path().strip_prefix(root).ok()?) {
        return None;
    }
    let changed = entry.metadata().ok()?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some((changed, entry.path().to_owned()))
}

fn listing(mut found: Vec<(SystemTime, PathBuf)>) -> String {
    if found.is_empty() {
        return "no matches".to_owned();
    }
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let total = found.len();
    let mut lines: Vec<_> =
        found.into_iter().take(GLOB_RESULTS).map(|(_, path)| path.display().to_string()).collect();
    if total > GLOB_RESULTS {
        lines.push(format!(
            "[{total} files match; these are the {GLOB_RESULTS} newest. Narrow the pattern.]"
        ));
    }
    lines.join("\n")
}

/// A pattern of paths: `*` stays within one directory, `**` does not. One without a slash is looked for at any depth.
fn matcher(pattern: &str) -> Result<GlobMatcher, Refusal> {
    if pattern.is_empty() {
        return Err("pattern is empty; write one such as **/*.rs.".to_owned());
    }
    if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err(format!(
            "`{pattern}` must be relative and without `..`; name the directory in `path`."
        ));
    }
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let anywhere = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
    let glob = GlobBuilder::new(&anywhere).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|e| format!("`{pattern}` is not a glob pattern: {}.", e.kind()))
}

/// The directory or file to look in.
pub(super) fn root(context: &GuestContext, path: Option<&str>) -> Result<PathBuf, Refusal> {
    let root = match path {
        Some(path) if !path.is_empty() => resolve(&context.workspace, path)?,
        _ => context.workspace.clone(),
    };
    match root.metadata() {
        Ok(_) => Ok(root),
        Err(e) => Err(super::files::cannot("look in", &root, &e)),
    }
}

/// The directories that a walk did not look into, because their lists of ignored files cannot be read.
#[derive(Clone, Default)]
pub(super) struct LeftOut(Arc<AtomicUsize>);

impl LeftOut {
    /// Whether a walk goes on with this entry.
    pub(super) fn lets(&self, entry: &DirEntry, include_ignored: bool) -> bool {
        if entry.file_name() == ".git" {
            return false;
        }
        let enters = entry.file_type().is_some_and(|kind| kind.is_dir());
        if include_ignored || !enters || lists::can_be_read(entry.path()) {
            return true;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// What a walk found, and that it did not look everywhere.
    pub(super) fn told(&self, found: String) -> String {
        match self.0.load(Ordering::Relaxed) {
            0 => found,
            count => format!(
                "{found}\n[{count} directories were left out: their .gitignore or the like is no regular file of a usual \
                 size; include_ignored looks there too]"
            ),
        }
    }
}

/// Walks the way both search tools do: follows no links, leaves `.git` out, honours Git's ignore files unless told not to,
/// or unless those of the root cannot be read.
pub(super) fn walker(root: &Path, include_ignored: bool, left_out: &LeftOut) -> WalkBuilder {
    let mut walker = WalkBuilder::new(root);
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let include_ignored = include_ignored || !real.ancestors().all(lists::can_be_read);
    let left_out = left_out.clone();
    walker
        .hidden(false)
        .require_git(false)
        .ignore(!include_ignored)
        .git_ignore(!include_ignored)
        .git_exclude(!include_ignored)
        .git_global(false)
        .parents(!include_ignored)
        .threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(8)))
        .filter_entry(move |entry| left_out.lets(entry, include_ignored));
    walker
}
