//! What tools made under protected names after their sandbox started: found by looking, after each call that may have made
//! it, and taken out of git's sight where git would obey it.
//!
//! Nothing prevents it: a mount needs something to lie upon, Landlock knows no single name, and a filter sees no paths. So
//! what a repository of the user's never gets by ordinary work is set aside, by a rename beside itself that loses nothing;
//! all else, such as `AGENTS.md` or the repository of a `git init`, may be what the user asked for, and is named.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;

use super::plan::PlanError;
use super::profile::{Profile, Protection};
use super::protect::{self, Held};
use super::repository::Repository;
use crate::environment::{Access, Environment, WorkspaceMode};
use crate::limits::SET_ASIDE;

/// Something that programs of the host obey, and that was not there when the sandbox started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// Where it was made.
    pub path: PathBuf,
    /// Where it is now, if it was moved out of sight of who obeys it.
    pub set_aside: Option<PathBuf>,
}

/// Looks for it in what the environment lets tools change, and sets aside what can be. `held` is what the sandbox holds.
///
/// # Errors
/// An unknown profile, or a workspace that cannot be read.
pub fn look(environment: &Environment, held: &[Held]) -> Result<Vec<Made>, PlanError> {
    if environment.workspace_mode != WorkspaceMode::Direct {
        // What the user's programs see changes with `apply`, after he has looked.
        return Ok(Vec::new());
    }
    let profile = Profile::of(&environment.profile)?;
    let found = super::host::found(&profile, environment, None)
        .map_err(|e| PlanError::Gather(e.to_string()))?;
    let repository = Repository::of(&environment.workspace).map(|outside| outside.directory);
    let outside =
        |path: &Path| repository.as_ref().is_some_and(|outside| path.starts_with(outside));
    let obeyed = |pattern: &str| {
        let mut protects = profile.protect.iter();
        protects.any(|one| one.path == pattern && one.access == Protection::ReadOnly)
    };
    let links = found.links.into_iter().map(|(path, pattern)| (path, pattern, None));
    let all =
        found.held.into_iter().map(|held| (held.path, held.pattern, held.within)).chain(links);
    let mut made: Vec<_> = all
        // Neither the directories above, nor what a link of the name leads to.
        .filter(|(path, pattern, _)| {
            (outside(path) || protect::ends_with(path, pattern)) && obeyed(pattern)
        })
        // In another directory of the same name it is another thing.
        .filter(|(path, _, within)| !held.iter().any(|h| h.path == *path && h.within == *within))
        .map(|(path, pattern, _)| {
            let set_aside = unwanted(&path, &pattern, held)
                .then(|| set_aside(environment, repository.as_deref(), &path));
            Made { set_aside: set_aside.and_then(Result::ok), path }
        })
        .collect();
    made.sort();
    made.dedup();
    Ok(made)
}

/// Whether nobody can have wanted it: ordinary work makes no `commondir` in a repository, and gives one that was there no new
/// hooks or settings. (`git init`, `git clone` and `git submodule add` make theirs in a directory that is new itself.)
fn unwanted(path: &Path, pattern: &str, held: &[Held]) -> bool {
    let repository = path.parent();
    let was_there = held.iter().any(|held| Some(held.path.as_path()) == repository);
    pattern == ".git/commondir" || pattern.starts_with(".git/") && was_there
}

/// Renames an entry beside itself, following no link on the way; its new path.
fn set_aside(
    environment: &Environment,
    repository: Option<&Path>,
    path: &Path,
) -> io::Result<PathBuf> {
    let (top, below) = host_side(environment, repository, path).ok_or(io::ErrorKind::NotFound)?;
    let (above, name) = below.parent().zip(below.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let directory = descend(&top, above)?;
    for number in 1..=SET_ASIDE {
        let beside = aside(name, number);
        let at = directory.as_fd();
        match renameat2(at, name, at, beside.as_os_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(path.with_file_name(beside)),
            Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn aside(name: &OsStr, number: u32) -> OsString {
    let mut beside = name.to_owned();
    beside.push(format!(".set-aside-{number}"));
    beside
}

/// A path inside, as a directory of the host that tools may change, and the way from there.
fn host_side(
    environment: &Environment,
    repository: Option<&Path>,
    path: &Path,
) -> Option<(PathBuf, PathBuf)> {
    let own = [Some(environment.workspace.as_path()), repository];
    let own = own.into_iter().flatten().map(|path| (path, path));
    let extra = environment.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    let extra = extra.map(|mount| (mount.target.as_path(), mount.source.as_path()));
    let shown = own.chain(extra).filter(|(target, _)| path.starts_with(target));
    let (target, source) = shown.max_by_key(|(target, _)| target.components().count())?;
    Some((source.to_owned(), path.strip_prefix(target).ok()?.to_owned()))
}

/// Opens a directory below `top`, one name at a time: what a session puts in the way is no way out.
fn descend(top: &Path, below: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = openat(AT_FDCWD, top, flags, Mode::empty())?;
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        directory = openat(directory.as_fd(), name, flags, Mode::empty())?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What becomes of files that are made in a workspace which had `before`.
    fn check(before: &[&str], after: &[&str], expected: &[(&str, Option<&str>)]) {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let put = |names: &[&str]| {
            for name in names {
                let (name, to) =
                    name.split_once(" -> ").map_or((*name, None), |(a, b)| (a, Some(b)));
                let path = top.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                match to {
                    Some(to) => symlink(to, &path).unwrap(),
                    None if name.ends_with('/') => std::fs::create_dir_all(&path).unwrap(),
                    None => drop(std::fs::File::create(&path).unwrap()),
                }
            }
        };
        let environment = Environment::new(top.clone());
        put(before);
        let held = crate::sandbox::plan_for(&environment, None).unwrap().held;
        put(after);
        let below = |path: &PathBuf| path.strip_prefix(&top).unwrap().display().to_string();
        let made = look(&environment, &held).unwrap();
        for Made { path, set_aside } in &made {
            let there = set_aside.as_ref().unwrap_or(path);
            assert!(there.symlink_metadata().is_ok(), "{made:?}");
            assert_eq!(path.symlink_metadata().is_err(), set_aside.is_some(), "{made:?}");
        }
        let made: Vec<_> =
            made.iter().map(|m| (below(&m.path), m.set_aside.as_ref().map(below))).collect();
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), b.map(str::to_owned))).collect();
        assert_eq!(made, expected, "{before:?} {after:?}");
    }

    #[test]
    fn what_a_repository_never_gets_by_ordinary_work_is_set_aside() {
        let repository = [".git/config", ".git/HEAD"];
        check(&repository, &["src/a", ".env", ".git/index"], &[]);
        check(
            &repository,
            &[".git/commondir", ".git/hooks/pre-commit"],
            &[
                (".git/commondir", Some(".git/commondir.set-aside-1")),
                (".git/hooks", Some(".git/hooks.set-aside-1")),
            ],
        );
        check(
            &repository,
            &[".git/commondir", ".git/commondir.set-aside-1"],
            &[(".git/commondir", Some(".git/commondir.set-aside-2"))],
        );
        check(
            &[".git/config", ".git/modules/m/config"],
            &[
                ".git/config.worktree -> /etc/passwd",
                ".git/modules/m/hooks -> ../../../evil",
                "evil/",
            ],
            &[
                (".git/config.worktree", Some(".git/config.worktree.set-aside-1")),
                (".git/modules/m/hooks", Some(".git/modules/m/hooks.set-aside-1")),
            ],
        );
    }

    #[test]
    fn what_the_user_may_have_asked_for_is_named() {
        check(
            &[".git/config"],
            &["AGENTS.md", ".vscode/tasks.json", "new/.git/config", ".git/modules/new/config"],
            &[
                (".git/modules/new/config", None),
                (".vscode", None),
                ("AGENTS.md", None),
                ("new/.git/config", None),
            ],
        );
        check(&["AGENTS.md"], &["CLAUDE.md -> AGENTS.md"], &[("CLAUDE.md", None)]);
        // A commondir is never wanted, whosever the repository is.
        check(
            &[],
            &["new/.git/commondir", "new/.git/HEAD"],
            &[("new/.git/commondir", Some("new/.git/commondir.set-aside-1"))],
        );
    }

    #[test]
    fn a_link_in_the_way_is_no_way_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("victim/.git")).unwrap();
        drop(std::fs::File::create(dir.path().join("victim/.git/commondir")).unwrap());
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        symlink("../victim", work.join("sub")).unwrap();
        let environment = Environment::new(work.clone());
        set_aside(&environment, None, &work.join("sub/.git/commondir")).unwrap_err();
        set_aside(&environment, None, &dir.path().join("victim/.git/commondir")).unwrap_err();
        assert!(dir.path().join("victim/.git/commondir").exists());
    }
}
