//! Which files of a workspace changed: for the closing summary, by looking, so that what bash did counts too.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ignore::WalkBuilder;

use crate::clock::Timestamp;
use crate::limits::CHANGES_LOOKED_AT;

/// The files below `workspace` that were changed at or after `since`, as seen from there, in order. Files that Git
/// ignores do not count, nor do removed ones. Looks at no content and follows no link; gives up after a bound, so a very
/// large tree may have more.
#[must_use]
pub fn changed_since(workspace: &Path, since: Timestamp) -> Vec<String> {
    let millis = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let mut walk = WalkBuilder::new(workspace);
    walk.hidden(false).require_git(false).filter_entry(|entry| entry.file_name() != ".git");
    let entries = walk.build().take(CHANGES_LOOKED_AT).filter_map(Result::ok);
    let changed = entries.filter(|entry| {
        let facts = entry.metadata().ok().filter(std::fs::Metadata::is_file);
        facts.and_then(|facts| facts.modified().ok()).is_some_and(|at| at >= since)
    });
    let below = |entry: ignore::DirEntry| {
        let path = entry.path().strip_prefix(workspace).unwrap_or(entry.path());
        path.display().to_string()
    };
    let mut names: Vec<_> = changed.map(below).collect();
    names.sort();
    names
}
