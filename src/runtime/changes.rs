//! Which files of a workspace changed: for the closing summary, by looking, so that what bash did counts too.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{Match, WalkBuilder};

use super::instructions::repository_root;
use crate::clock::Timestamp;
use crate::environment::{Environment, WorkspaceMode};
use crate::limits::{CHANGES_LIST_BYTES, CHANGES_LOOKED_AT};
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
            let paths = on_one_line(&self.obeyed.join(", "));
            format!("look before you use git or an editor here, they obey: {paths}")
        })
    }
}

/// Names on one line: a session that chooses one must not write lines of ours with it.
#[must_use]
pub fn on_one_line(names: &str) -> String {
    names.replace('\n', "␊")
}

/// That a file was moved out of sight of who would obey it.
#[must_use]
pub fn was_set_aside(path: &str, aside: &str) -> String {
    on_one_line(&format!("{path} was made, which your git would obey: it is now {aside}"))
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
/// ignores do not count, nor do removed ones. Looks at no content but Git's lists and follows no link; gives up after a
/// bound, so a very large tree may have more.
fn files_changed(workspace: &Path, since: Timestamp) -> Vec<String> {
    let millis = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let mut walk = WalkBuilder::new(workspace);
    let lists = Lists::below(repository_root(workspace));
    walk.standard_filters(false)
        .filter_entry(move |entry| entry.file_name() != ".git" && !lists.ignore(entry));
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

/// Git's lists of ignored files, read as what they are: a stranger's files. The walk's own way to read them would wait for
/// a pipe of such a name, and read a link to a device for ever.
struct Lists {
    top: PathBuf,
    read: Mutex<Known>,
}

struct Known {
    lists: HashMap<PathBuf, Gitignore>,
    /// Bytes that may still be read.
    room: u64,
}

impl Lists {
    fn below(top: PathBuf) -> Self {
        let known = Known { lists: HashMap::new(), room: CHANGES_LIST_BYTES };
        Self { top, read: Mutex::new(known) }
    }

    /// Whether the nearest list that names an entry ignores it.
    fn ignore(&self, entry: &ignore::DirEntry) -> bool {
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        let mut known = self.read.lock().expect("nothing panics under this lock");
        let above = entry.path().ancestors().skip(1).take_while(|dir| dir.starts_with(&self.top));
        for dir in above {
            match known.of(dir).matched(entry.path(), is_dir) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }
}

impl Known {
    fn of(&mut self, dir: &Path) -> &Gitignore {
        let Self { lists, room } = self;
        lists.entry(dir.to_owned()).or_insert_with(|| {
            let mut list = GitignoreBuilder::new(dir);
            // The last line that names an entry counts.
            for name in [".git/info/exclude", ".gitignore", ".ignore"] {
                let text = read(&dir.join(name), *room).unwrap_or_default();
                *room -= text.len() as u64;
                for line in String::from_utf8_lossy(&text).lines() {
                    // A line that is no pattern names nothing.
                    drop(list.add_line(None, line));
                }
            }
            list.build().unwrap_or_else(|_| Gitignore::empty())
        })
    }
}

/// The bytes of a regular file that has no more than `most`.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).ok()?;
    let facts = file.metadata().ok()?;
    let mut bytes = Vec::new();
    let whole = facts.is_file() && facts.len() <= most;
    whole.then(|| file.take(most).read_to_end(&mut bytes)).and_then(Result::ok)?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::Changes;

    #[test]
    fn a_name_of_two_lines_is_one_line_of_the_warning() {
        let obeyed = vec!["a\n✓ done/AGENTS.md".to_owned(), "b".to_owned()];
        let warning = Changes { obeyed, ..Changes::default() }.warning().unwrap();
        assert!(warning.ends_with(": a␊✓ done/AGENTS.md, b"), "{warning}");
    }
}
