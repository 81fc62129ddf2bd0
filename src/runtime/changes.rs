//! Which files of a workspace changed: for the closing summary, by looking, so that what bash did counts too.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ignore::WalkBuilder;

use crate::clock::Timestamp;
use crate::limits::CHANGES_LOOKED_AT;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Files written or made since then; files that Git ignores do not count, nor do removed ones.
    pub files: usize,
    /// The tree was too large to look at all of it: there may be more.
    pub more: bool,
}

/// Counts the files below `workspace` that were changed at or after `since`. Looks at no content and follows no link.
#[must_use]
pub fn changed_since(workspace: &Path, since: Timestamp) -> Changes {
    let millis = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let mut changes = Changes::default();
    let walk = WalkBuilder::new(workspace)
        .hidden(false)
        .require_git(false)
        .filter_entry(|e| e.file_name() != ".git")
        .build();
    for (looked_at, entry) in walk.filter_map(Result::ok).enumerate() {
        if looked_at >= CHANGES_LOOKED_AT {
            changes.more = true;
            break;
        }
        let facts = entry.metadata().ok().filter(std::fs::Metadata::is_file);
        if facts.and_then(|facts| facts.modified().ok()).is_some_and(|at| at >= since) {
            changes.files += 1;
        }
    }
    changes
}
