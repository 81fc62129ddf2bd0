//! Which paths of a workspace are protected: a bounded walk over what is there now.
//!
//! Mounts hold a path that exists; nothing is ever created for one that does not. So a protected path that a tool makes is
//! an ordinary file until the next sandbox starts: no layer of the kernel can forbid one name below a directory that may
//! be changed. The documentation says so.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::profile::{Kind, Protect, Protection};
use crate::limits::{PROTECT_DEPTH, PROTECT_ENTRIES};

/// What is done to one path, so that tools cannot do as they like with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Covered by an empty thing that cannot be opened.
    Hide(Kind),
    /// Mounted upon itself without write access: it cannot be changed, renamed or replaced.
    Freeze,
    /// A link, covered by the file that it leads to, without write access.
    FreezeLink(PathBuf),
    /// Mounted upon itself: what is below may change, but it cannot be renamed or replaced.
    Pin,
}

/// One path and what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Inside.
    pub path: PathBuf,
    /// How.
    pub hold: Hold,
    /// The pattern of the profile that it is held for.
    pub pattern: String,
    /// The inode of the directory that it was in when this was found, where that is part of what is held: a directory above
    /// can be moved away with what is held in it, and another put into its place.
    #[serde(skip)]
    pub within: Option<u64>,
}

/// What a walk found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Outer before inner, each path once.
    pub held: Vec<Held>,
    /// Links on the way to a protected path: what they lead to cannot be held.
    pub links: Vec<(PathBuf, String)>,
    /// Whether the walk ended at its bound.
    pub cut: bool,
}

/// Looks through the directory `source`, which appears inside as `target`. `allowed` are paths below it that are left alone.
///
/// # Errors
/// If the directory itself cannot be read.
pub(super) fn walk(
    source: &Path,
    target: &Path,
    patterns: &[Protect],
    allowed: &[PathBuf],
) -> io::Result<Found> {
    let patterns = Patterns::of(patterns);
    let mut walk = Walk { source, target, patterns, allowed, found: Found::default(), seen: 0 };
    walk.all()?;
    let mut found = walk.found;
    found.held.sort_by(|a, b| depth(&a.path).cmp(&depth(&b.path)).then(a.path.cmp(&b.path)));
    found.held.dedup_by(|b, a| {
        a.path == b.path && {
            // What hides is stronger than what freezes, and that than what pins.
            if strength(&b.hold) > strength(&a.hold) {
                std::mem::swap(a, b);
            }
            true
        }
    });
    Ok(found)
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn strength(hold: &Hold) -> u8 {
    match hold {
        Hold::Pin => 0,
        Hold::Freeze | Hold::FreezeLink(_) => 1,
        Hold::Hide(_) => 2,
    }
}

/// What is protected, by the last part of its path: most entries are told from all of it by the length of their name.
struct Patterns<'a> {
    all: &'a [Protect],
    /// Those of one name, at its length.
    named: Vec<Vec<(&'a str, &'a Protect)>>,
    /// Those whose last part has a `*`.
    wild: Vec<(&'a str, &'a Protect)>,
}

impl<'a> Patterns<'a> {
    fn of(all: &'a [Protect]) -> Self {
        let mut patterns = Self { all, named: Vec::new(), wild: Vec::new() };
        for protect in all {
            let last = protect.path.rsplit('/').next().unwrap_or(&protect.path);
            if last.contains('*') {
                patterns.wild.push((last, protect));
                continue;
            }
            let longest = patterns.named.len().max(last.len() + 1);
            patterns.named.resize_with(longest, Vec::new);
            patterns.named[last.len()].push((last, protect));
        }
        patterns
    }

    /// Those that a path with this name at its end matches.
    fn matching(&self, path: &Path, name: &str) -> Vec<&'a Protect> {
        let named = self.named.get(name.len()).into_iter().flatten();
        let named = named.filter(|(last, _)| *last == name);
        let wild = self.wild.iter().filter(|(last, _)| matches(name, last));
        let all = named.chain(wild).map(|(_, protect)| *protect);
        all.filter(|protect| ends_with(path, &protect.path)).collect()
    }
}

struct Walk<'a> {
    source: &'a Path,
    target: &'a Path,
    patterns: Patterns<'a>,
    allowed: &'a [PathBuf],
    found: Found,
    seen: usize,
}

impl Walk<'_> {
    /// Shallow directories first: what is protected lies near the top of a workspace.
    fn all(&mut self) -> io::Result<()> {
        let mut open = VecDeque::from([PathBuf::new()]);
        while let Some(dir) = open.pop_front() {
            let entries = match std::fs::read_dir(self.source.join(&dir)) {
                Ok(entries) => entries,
                Err(e) if dir.as_os_str().is_empty() => return Err(e),
                // What cannot be read here cannot be read inside either.
                Err(_) => continue,
            };
            for entry in entries.flatten() {
                self.seen += 1;
                if self.seen > PROTECT_ENTRIES {
                    self.found.cut = true;
                    return Ok(());
                }
                let path = dir.join(entry.file_name());
                let Ok(kind) = entry.file_type() else { continue };
                let hidden = self.look(&path, kind);
                if kind.is_dir() && !hidden && !bulk(&path) {
                    if depth(&path) < PROTECT_DEPTH {
                        open.push_back(path);
                    } else {
                        self.found.cut = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes in one entry; whether it is hidden with all that is below.
    fn look(&mut self, path: &Path, kind: std::fs::FileType) -> bool {
        if self.allowed.iter().any(|allowed| path.starts_with(allowed)) {
            return false;
        }
        // No pattern has a name that is not UTF-8.
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        if kind.is_symlink() {
            let ways = self.patterns.all.iter().filter(|protect| leads_to(path, &protect.path));
            let target = self.target.join(path);
            self.found.links.extend(ways.map(|protect| (target.clone(), protect.path.clone())));
        }
        let only = |protect: &Protect| match protect.only {
            None => true,
            Some(Kind::File) => !kind.is_dir(),
            Some(Kind::Directory) => kind.is_dir(),
        };
        let mut its = self.patterns.matching(path, name);
        its.retain(|protect| only(protect));
        for protect in &its {
            self.hold(path, kind, protect);
        }
        its.iter().any(|protect| protect.access == Protection::Hidden)
    }

    fn hold(&mut self, path: &Path, kind: std::fs::FileType, protect: &Protect) {
        let (target, source) = (self.target, self.source);
        let within = |path: &Path| Some(source.join(path.parent()?).metadata().ok()?.ino());
        let held = |path: &Path, hold| Held {
            path: target.join(path),
            hold,
            pattern: protect.path.clone(),
            within: within(path),
        };
        if kind.is_symlink() {
            return self.hold_link(path, protect);
        }
        let kind = if kind.is_dir() { Kind::Directory } else { Kind::File };
        if protect.access == Protection::Hidden {
            return self.found.held.push(held(path, Hold::Hide(kind)));
        }
        self.found.held.push(held(path, Hold::Freeze));
        // A frozen file in a directory that can be renamed away is no use: its directory is held too.
        let above = protect.path.split('/').count() - 1;
        let pins = path.ancestors().skip(1).take(above).map(|parent| held(parent, Hold::Pin));
        self.found.held.extend(pins);
    }

    /// A link of a protected name: it is covered itself, and what it leads to in the workspace is held as well.
    fn hold_link(&mut self, path: &Path, protect: &Protect) {
        let (pattern, link) = (protect.path.clone(), self.target.join(path));
        let real = self.source.join(path).canonicalize().ok();
        let below = real.as_deref().and_then(|real| real.strip_prefix(self.source).ok());
        let Some((real, below)) = real.as_deref().zip(below) else {
            // It leads nowhere that can be seen inside.
            return self.found.held.push(Held {
                path: link,
                hold: Hold::Hide(Kind::File),
                pattern,
                within: None,
            });
        };
        let to = self.target.join(below);
        let (cover, hold) = match protect.access {
            Protection::Hidden => {
                let kind = if real.is_dir() { Kind::Directory } else { Kind::File };
                (Hold::Hide(Kind::File), Hold::Hide(kind))
            }
            Protection::ReadOnly if real.is_dir() || below.as_os_str().is_empty() => {
                return self.found.links.push((link, pattern));
            }
            Protection::ReadOnly => (Hold::FreezeLink(to.clone()), Hold::Freeze),
        };
        let within = None;
        self.found.held.push(Held { path: link, hold: cover, pattern: pattern.clone(), within });
        if !below.as_os_str().is_empty() {
            self.found.held.push(Held { path: to, hold, pattern, within });
        }
    }
}

/// Directories of thousands of files that are made by machines: a walk through them would find nothing else.
fn bulk(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "node_modules" | "__pycache__" | ".venv") || path.ends_with(".git/objects")
}

/// Whether the path's last names are the pattern's.
pub(super) fn ends_with(path: &Path, pattern: &str) -> bool {
    let mut names = path.iter().rev();
    pattern.rsplit('/').all(|part| {
        names.next().and_then(|name| name.to_str()).is_some_and(|name| matches(name, part))
    })
}

/// Whether a longer path that goes through this one could match.
fn leads_to(path: &Path, pattern: &str) -> bool {
    pattern.match_indices('/').any(|(end, _)| ends_with(path, &pattern[..end]))
}

/// Whether a name is what the part says; `*` stands for anything.
fn matches(name: &str, part: &str) -> bool {
    match part.split_once('*') {
        None => name == part,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            match rest.contains('*') {
                true => ends.any(|at| matches(&name[at..], rest)),
                false => name.ends_with(rest),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sandbox::profile::Profile;

    /// A workspace with these files (`/` at the end: directories; `a -> b`: links), and what is held of it.
    fn held(files: &[&str], allowed: &[&str]) -> Found {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let (file, to) = file.split_once(" -> ").map_or((*file, None), |(f, to)| (f, Some(to)));
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match to {
                Some(to) => symlink(to, &path).unwrap(),
                None if file.ends_with('/') => std::fs::create_dir_all(&path).unwrap(),
                None => drop(std::fs::File::create(&path).unwrap()),
            }
        }
        let profile = Profile::built_in("default").unwrap();
        let allowed: Vec<_> = allowed.iter().map(PathBuf::from).collect();
        let real = dir.path().canonicalize().unwrap();
        walk(&real, Path::new("/w"), &profile.protect, &allowed).unwrap()
    }

    fn check(files: &[&str], allowed: &[&str], expected: &[(&str, Hold)]) {
        let found = held(files, allowed);
        let held: Vec<_> =
            found.held.iter().map(|h| (h.path.to_str().unwrap(), h.hold.clone())).collect();
        assert_eq!(held, expected, "{files:?}");
        assert!(found.links.is_empty() && !found.cut, "{found:?}");
    }

    #[test]
    fn secrets_are_hidden_and_what_the_host_runs_is_frozen() {
        use Hold::{Freeze, FreezeLink, Hide, Pin};
        let (file, directory) = (Hide(Kind::File), Hide(Kind::Directory));
        check(&["src/main.rs", "env", ".envoy", "a.env"], &[], &[]);
        check(&[".env"], &[], &[("/w/.env", file.clone())]);
        check(&["a/b/.env.local"], &[], &[("/w/a/b/.env.local", file.clone())]);
        check(&[".ssh/id_rsa"], &[], &[("/w/.ssh", directory)]);
        check(&["k.p12", "config.json"], &[], &[("/w/k.p12", file.clone())]);
        check(&[".docker/config.json"], &[], &[("/w/.docker/config.json", file.clone())]);
        check(
            &[".git/config", ".git/hooks/", ".git/HEAD"],
            &[],
            &[("/w/.git", Pin), ("/w/.git/config", Freeze), ("/w/.git/hooks", Freeze)],
        );
        check(&[".git"], &[], &[("/w/.git", Freeze)]);
        check(&[".vscode/tasks.json"], &[], &[("/w/.vscode", Freeze)]);
        check(&[".helix/languages.toml"], &[], &[("/w/.helix", Freeze)]);
        check(&["a/.Rprofile"], &[], &[("/w/a/.Rprofile", Freeze)]);
        check(
            &[".github/copilot-instructions.md", ".github/workflows/ci.yml"],
            &[],
            &[("/w/.github", Pin), ("/w/.github/copilot-instructions.md", Freeze)],
        );
        check(
            &[".casemate/.env"],
            &[],
            &[("/w/.casemate", Freeze), ("/w/.casemate/.env", file.clone())],
        );
        check(
            &["CLAUDE.md -> AGENTS.md", "AGENTS.md"],
            &[],
            &[("/w/AGENTS.md", Freeze), ("/w/CLAUDE.md", FreezeLink("/w/AGENTS.md".into()))],
        );
        check(&[".env -> /etc/passwd"], &[], &[("/w/.env", file.clone())]);
        check(
            &[".env -> conf/dev", "conf/dev"],
            &[],
            &[("/w/.env", file.clone()), ("/w/conf/dev", file)],
        );
    }

    #[test]
    fn what_was_allowed_is_left_alone() {
        check(&[".env", "a/.env"], &[".env"], &[("/w/a/.env", Hold::Hide(Kind::File))]);
        check(&[".git/config", ".vscode/x"], &[".git", ".vscode"], &[]);
    }

    #[test]
    fn a_link_on_the_way_is_named() {
        let check = |files: &[&str], expected: &str| {
            let links = held(files, &[]).links;
            assert!(links.iter().any(|(path, _)| path == Path::new(expected)), "{links:?}");
        };
        check(&[".git -> other", "other/config"], "/w/.git");
        check(&[".docker -> d", "d/config.json"], "/w/.docker");
        check(&[".vscode -> v", "v/tasks.json"], "/w/.vscode");
        check(&[".git/hooks -> ../h", "h/pre-commit"], "/w/.git/hooks");
    }

    #[test]
    fn the_walk_ends_at_its_depth_and_says_so() {
        let deep = format!("{}.env", "d/".repeat(PROTECT_DEPTH));
        assert_eq!(held(&[&deep], &[]), Found { cut: true, ..Found::default() });
    }
}
