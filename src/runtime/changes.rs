//! Which files of a workspace changed: for the closing summary, by looking, so that what bash did counts too.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ignore::WalkBuilder;

use crate::clock::Timestamp;
use crate::environment::{Environment, WorkspaceMode};
use crate::limits::CHANGES_LOOKED_AT;
use crate::sandbox;

/// What changed in a workspace, as paths seen from there, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files with new content.
    pub files: Vec<String>,
    /// Files that programs on this machine obey, such as git's hooks, made while no sandbox held them.
    pub obeyed: Vec<String>,
    /// The session works on a version of its own: what it changed is to be looked at there.
    pub apart: bool,
}

impl Changes {
    /// What the user should look at before he goes on here.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let some = !self.obeyed.is_empty();
        some.then(|| {
            let paths = self.obeyed.join(", ");
            format!("look before you use git or an editor here, they obey: {paths}")
        })
    }
}

/// What changed in the environment's workspace at or after `since`.
pub(super) fn changed_since(environment: &Environment, since: Timestamp) -> Changes {
    let workspace = &environment.workspace;
    let seconds = since.as_second();
    let young = |path: &Path| path.symlink_metadata().is_ok_and(|facts| facts.ctime() >= seconds);
    // Where nothing can be told, nothing is said: the next sandbox says it.
    let obeyed = sandbox::obeyed(environment).unwrap_or_default();
    let obeyed = obeyed.iter().filter(|path| young(path));
    let below = |path: &Path| path.strip_prefix(workspace).unwrap_or(path).display().to_string();
    Changes {
        files: files_changed(workspace, since),
        obeyed: obeyed.map(|path| below(path)).collect(),
        apart: environment.workspace_mode != WorkspaceMode::Direct,
    }
}

/// The files below `workspace` that were changed at or after `since`, as seen from there, in order. Files that Git
/// ignores do not count, nor do removed ones. Looks at no content and follows no link; gives up after a bound, so a very
/// large tree may have more.
fn files_changed(workspace: &Path, since: Timestamp) -> Vec<String> {
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
