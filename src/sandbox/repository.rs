//! The git directory of a workspace that is a worktree or a submodule: it lies elsewhere, and git works only with it.
//!
//! `.git` is then a file with a path in it, and files of a workspace are anybody's. So the directory is shown only if it
//! points back at this workspace, by what nobody can write who can write the workspace alone; and of it, what git obeys on
//! the host is held as in any repository.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::protect::{Found, Held, Hold};
use crate::limits::GIT_FILE_BYTES;

/// A git directory outside of its workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// All of it: for a worktree, that of the repository which it is one of.
    pub directory: PathBuf,
    /// For a worktree, its own part.
    worktree: Option<PathBuf>,
}

/// Names in a git directory that git on the host obeys.
const OBEYED: [&str; 4] = ["commondir", "config", "config.worktree", "hooks"];

/// What the rest is held for: no pattern of a profile, for nothing in it is obeyed by itself.
const PART: &str = "a git directory";

impl Repository {
    /// That of a workspace, by its real path; none if its `.git` is none, or leads to what does not point back.
    pub(super) fn of(workspace: &Path) -> Option<Self> {
        let pointer = workspace.join(".git");
        let text = small_file(&pointer)?;
        let named = workspace.join(text.strip_prefix("gitdir:")?.trim()).canonicalize().ok()?;
        let repository = match small_file(&named.join("commondir")) {
            Some(common) => {
                let back = small_file(&named.join("gitdir"))?;
                let back = named.join(back.trim()).canonicalize().ok()?;
                let directory = named.join(common.trim()).canonicalize().ok()?;
                let is_its =
                    back == pointer && named.parent() == Some(&directory.join("worktrees"));
                is_its.then_some(Self { directory, worktree: Some(named) })?
            }
            None => {
                let config = small_file(&named.join("config"))?;
                let back = named.join(core_worktree(&config)?).canonicalize().ok()?;
                (back == workspace).then_some(Self { directory: named, worktree: None })?
            }
        };
        let directory = &repository.directory;
        let apart = !directory.starts_with(workspace) && !workspace.starts_with(directory);
        let whole = directory.join("HEAD").is_file()
            && ["objects", "refs"].iter().all(|name| is_real_directory(&directory.join(name)));
        (apart && whole && repository.has_no_links()).then_some(repository)
    }

    /// A link in the place of what is to be held could be replaced.
    fn has_no_links(&self) -> bool {
        let is_link = |path: PathBuf| path.symlink_metadata().is_ok_and(|facts| facts.is_symlink());
        let held = OBEYED.iter().chain(&["worktrees", "modules"]);
        !held.into_iter().any(|name| is_link(self.directory.join(name)))
    }

    /// What is held of it; `allowed` are paths of the workspace that are left alone, in which this is `.git`.
    pub(super) fn held(&self, allowed: &[PathBuf]) -> Found {
        let mut found = Found::default();
        let mut hold = |path: PathBuf, hold: Hold, pattern: &str| {
            let below = path.strip_prefix(&self.directory).unwrap_or(&path);
            let seen = Path::new(".git").join(below);
            if !allowed.iter().any(|allowed| seen.starts_with(allowed)) {
                found.held.push(Held { path, hold, pattern: pattern.to_owned(), within: None });
            }
        };
        hold(self.directory.clone(), Hold::Pin, PART);
        for name in OBEYED {
            let path = self.directory.join(name);
            if path.exists() {
                hold(path, Hold::Freeze, &format!(".git/{name}"));
            }
        }
        for (room, names) in
            [("worktrees", &["commondir", "config.worktree", "gitdir"][..]), ("modules", &OBEYED)]
        {
            let room = self.directory.join(room);
            let Ok(entries) = room.read_dir() else { continue };
            hold(room, Hold::Pin, PART);
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let path = entry.path();
                // Inside, the other worktrees are not there: `git worktree prune` would clear away what belongs to them.
                // For that, `git gc` says that it cannot lock them, and leaves all as it is.
                let own = self.worktree.as_ref() == Some(&path) || room_is_modules(&path);
                hold(path.clone(), if own { Hold::Pin } else { Hold::Freeze }, PART);
                for name in names.iter().filter(|name| own && path.join(name).exists()) {
                    hold(path.join(name), Hold::Freeze, &format!(".git/{name}"));
                }
            }
        }
        found
    }
}

fn room_is_modules(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name == "modules")
}

fn is_real_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|facts| facts.is_dir())
}

/// The text of a plain file, if it is as short as git's own are. What becomes a pipe just now is not waited for.
fn small_file(path: &Path) -> Option<String> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(GIT_FILE_BYTES).read_to_string(&mut text).ok()?;
    (text.len() as u64 != GIT_FILE_BYTES).then_some(text)
}

/// `core.worktree` in the text of a config, as git writes it.
fn core_worktree(config: &str) -> Option<&str> {
    let mut section = "";
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some((name, value)) = line.split_once('=')
            && section == "[core]"
            && name.trim() == "worktree"
        {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a directory; the workspace is `w` in it.
    fn repository(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = top.join(name);
            if name.ends_with('/') {
                std::fs::create_dir_all(path).unwrap();
                continue;
            }
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = text.replace("$TOP", &top.display().to_string());
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes())
                .unwrap();
        }
        let found = Repository::of(&top.join("w"))?;
        Some(found.directory.strip_prefix(&top).unwrap().display().to_string())
    }

    #[test]
    fn only_what_points_back_is_shown() {
        let check = |files: &[(&str, &str)], changed: &[(&str, &str)], expected: Option<&str>| {
            let mut files = files.to_vec();
            for change in changed {
                files.retain(|(name, _)| name != &change.0);
                files.push(*change);
            }
            assert_eq!(repository(&files).as_deref(), expected, "{changed:?}");
        };
        let worktree = [
            ("w/.git", "gitdir: $TOP/m/.git/worktrees/w\n"),
            ("m/.git/worktrees/w/gitdir", "$TOP/w/.git\n"),
            ("m/.git/worktrees/w/commondir", "../..\n"),
            ("m/.git/HEAD", "ref: refs/heads/main\n"),
            ("m/.git/objects/", ""),
            ("m/.git/refs/", ""),
        ];
        check(&worktree, &[], Some("m/.git"));
        check(&worktree, &[("m/.git/worktrees/w/gitdir", "../../../../w/.git\n")], Some("m/.git"));
        check(&worktree, &[("m/.git/worktrees/w/gitdir", "$TOP/other/.git\n")], None);
        check(
            &worktree,
            &[("other/.git", ""), ("m/.git/worktrees/w/gitdir", "$TOP/other/.git\n")],
            None,
        );
        check(&worktree, &[("m/.git/worktrees/w/commondir", "/\n")], None);
        check(&worktree, &[("m/.git/worktrees/w/commondir", "..\n")], None);
        check(&worktree, &[("w/.git", "gitdir: $TOP/m/.git\n")], None);
        check(&worktree, &[("w/.git", "gitdir: $TOP/m\n")], None);
        check(&worktree, &[("w/.git", "$TOP/m/.git/worktrees/w\n")], None);
        check(&worktree[..4], &[], None);
        let module = [
            ("w/.git", "gitdir: ../.git/modules/w\n"),
            (".git/modules/w/config", "[core]\n\tbare = false\n\tworktree = ../../../w\n"),
            (".git/modules/w/HEAD", "ref: refs/heads/main\n"),
            (".git/modules/w/objects/", ""),
            (".git/modules/w/refs/", ""),
        ];
        check(&module, &[], Some(".git/modules/w"));
        check(
            &module,
            &[(".git/modules/w/config", "[core]\n\tworktree = ../../../v\n"), ("v/", "")],
            None,
        );
        check(&module, &[(".git/modules/w/config", "[other]\n\tworktree = ../../../w\n")], None);
        // What the workspace alone can hold is no proof, and needs no mount.
        let inside = [
            ("w/.git", "gitdir: g\n"),
            ("w/g/config", "[core]\n\tworktree = ..\n"),
            ("w/g/HEAD", ""),
            ("w/g/objects/", ""),
            ("w/g/refs/", ""),
        ];
        check(&inside, &[], None);
    }
}
