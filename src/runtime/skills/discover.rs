//! Skills in directories of this machine: the workspace's, up to the repository's root, nearest first; then the user's own.
//!
//! Of two skills with one name the first counts: the workspace's before the user's. What lies in a workspace are the words of
//! whoever wrote it, so it counts only where the user trusts it; and it is looked for only where it seems to lie: a link that
//! leaves the repository is passed over, or a session would be shown what it leads to.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::instructions::repository_root;
use super::{Chosen, Source};
use crate::limits::{
    MAX_SESSION_SKILLS, MAX_SKILL_BYTES, MAX_SKILL_DEPTH, MAX_SKILL_ENTRIES, MAX_SKILL_MD_BYTES,
    MAX_SKILLS_DIRECTORY,
};
use crate::skill::{self, Diagnostic, SKILL_FILE, Severity, Skill};

/// Which of the skills of this machine a session has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    None,
    /// The user's, and the workspace's where the configuration trusts it.
    #[default]
    Trusted,
    /// The workspace's too.
    All,
}

impl Wanted {
    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Trusted => "trusted",
            Self::All => "all",
        }
    }
}

/// Whose a skill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It came with the workspace.
    Workspace,
    /// It is in a directory of the user's own.
    User,
}

impl Level {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::User => "user",
        }
    }
}

/// What becomes of a skill that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Sessions have it.
    Used,
    /// Another one of its name comes first: that in this directory.
    Hidden(PathBuf),
    /// Nobody said that its author may tell an agent what to do.
    Untrusted,
    /// It is none, or cannot be read.
    Unusable,
}

/// A directory that is a skill, or should be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// Whose.
    pub level: Level,
    /// What it says, if it can be used.
    pub skill: Option<Skill>,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
    /// What becomes of it.
    pub fate: Fate,
}

/// `[skills]` of the config file, and where the user's own lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkillsConfig {
    /// The user's directories of skills, the first one first.
    pub directories: Vec<PathBuf>,
    /// Directories whose skills are trusted, with all that lies below.
    paths: Vec<PathBuf>,
    /// The same for the URLs of repositories.
    urls: Vec<String>,
}

/// `[skills]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::runtime) struct FileSkills {
    /// Directories and repositories whose skills sessions may go by.
    #[serde(default)]
    trusted: Vec<String>,
}

impl FileSkills {
    pub(in crate::runtime) fn checked(
        self,
        home: Option<&Path>,
        directories: Vec<PathBuf>,
    ) -> Result<SkillsConfig, String> {
        let mut config = SkillsConfig { directories, ..SkillsConfig::default() };
        for (i, entry) in self.trusted.into_iter().enumerate() {
            if entry.starts_with("https://") || entry.starts_with("http://") {
                config.urls.push(entry.trim_end_matches('/').to_owned());
                continue;
            }
            let path = match (entry.strip_prefix("~/"), home) {
                (Some(below), Some(home)) => home.join(below),
                _ => PathBuf::from(&entry),
            };
            if !path.is_absolute() {
                return Err(format!(
                    "skills.trusted[{i}]: `{entry}` must be an absolute path, one below `~/`, or a URL"
                ));
            }
            config.paths.push(path.canonicalize().unwrap_or(path));
        }
        Ok(config)
    }
}

impl SkillsConfig {
    fn trusts(&self, directory: &Path) -> bool {
        self.paths.iter().any(|trusted| directory.starts_with(trusted))
    }

    /// Whether the skills of the repository at that URL are trusted.
    #[must_use]
    pub fn trusts_repository(&self, url: &str) -> bool {
        let url = url.trim_end_matches('/');
        self.urls.iter().any(|trusted| {
            url.strip_prefix(trusted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Everything that is a skill or should be one, for a workspace: first what comes first.
#[must_use]
pub fn discover(config: &SkillsConfig, workspace: &Path, wanted: Wanted) -> Vec<Found> {
    let root = repository_root(workspace);
    let mut found: Vec<Found> = Vec::new();
    let own: Vec<_> = config.directories.iter().filter_map(|dir| dir.canonicalize().ok()).collect();
    for dir in workspace.ancestors().take_while(|dir| dir.starts_with(&root)) {
        for name in super::OF_REPOSITORIES {
            let Ok(place) = dir.join(name).canonicalize() else { continue };
            if place.starts_with(&root) && !own.contains(&place) {
                look_into(&place, Level::Workspace, Some(&root), &mut found);
            }
        }
    }
    for place in &own {
        look_into(place, Level::User, None, &mut found);
    }
    settle(config, wanted, &mut found);
    found
}

/// Everything that is a skill or should be one at the root of a repository that a session works on.
pub(super) fn of_repository(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let Ok(root) = root.canonicalize() else { return found };
    for name in super::OF_REPOSITORIES {
        let Ok(place) = root.join(name).canonicalize() else { continue };
        if place.starts_with(&root) {
            look_into(&place, Level::Workspace, Some(&root), &mut found);
        }
    }
    found
}

/// Those of them that a session has.
#[must_use]
pub fn chosen(found: &[Found]) -> Vec<Chosen> {
    let used = found.iter().filter(|found| found.fate == Fate::Used);
    let chosen = used.filter_map(|found| {
        let skill = found.skill.as_ref()?;
        Some(Chosen {
            name: skill.name.clone(),
            description: skill.description.clone(),
            source: Source::Directory(found.path.clone()),
        })
    });
    chosen.take(MAX_SESSION_SKILLS).collect()
}

/// Says what becomes of each.
fn settle(config: &SkillsConfig, wanted: Wanted, found: &mut [Found]) {
    let mut taken: Vec<(String, PathBuf)> = Vec::new();
    for one in found {
        let Some(skill) = &one.skill else { continue };
        let trusted = match (wanted, one.level) {
            (Wanted::None, _) => false,
            (_, Level::User) | (Wanted::All, Level::Workspace) => true,
            (Wanted::Trusted, Level::Workspace) => config.trusts(&one.path),
        };
        let before = taken.iter().find(|(name, _)| *name == skill.name);
        one.fate = match before {
            _ if !trusted => Fate::Untrusted,
            Some((_, path)) => Fate::Hidden(path.clone()),
            None => {
                taken.push((skill.name.clone(), one.path.clone()));
                Fate::Used
            }
        };
    }
}

/// Finds the skills in one directory of skills, by name.
fn look_into(place: &Path, level: Level, within: Option<&Path>, found: &mut Vec<Found>) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    let entries = entries.flatten().take(MAX_SKILLS_DIRECTORY).map(|entry| entry.path());
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    for entry in entries {
        let Ok(path) = entry.canonicalize() else { continue };
        let outside = within.is_some_and(|root| !path.starts_with(root));
        // The same directory by another way is the same skill.
        if outside || !path.is_dir() || found.iter().any(|known| known.path == path) {
            continue;
        }
        if let Some((skill, diagnostics)) = examine(&path, true) {
            found.push(Found { path, level, skill, diagnostics, fate: Fate::Unusable });
        }
    }
}

/// Looks at the directory of one skill.
#[must_use]
pub fn check(directory: &Path) -> (Option<Skill>, Vec<Diagnostic>) {
    examine(directory, false).expect("whatever is no skill is said to be none")
}

/// What the directory says; with `optional`, nothing if it does not mean to be a skill.
fn examine(directory: &Path, optional: bool) -> Option<(Option<Skill>, Vec<Diagnostic>)> {
    let path = directory.join(SKILL_FILE);
    let file = path.display().to_string();
    let fatal = |problem: String, fix: &str| Diagnostic {
        severity: Severity::Fatal,
        file: file.clone(),
        field: None,
        problem,
        fix: fix.to_owned(),
    };
    let bytes = match read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let other = otherwise_named(directory);
            if optional && other.is_none() {
                return None;
            }
            let problem = match other {
                Some(other) => format!("is not there, but `{other}` is"),
                None => "is not there".to_owned(),
            };
            let fix = "a skill is a directory with a file of that very name";
            return Some((None, vec![fatal(problem, fix)]));
        }
        Err(error) => {
            let problem = format!("cannot be read: {error}");
            return Some((None, vec![fatal(problem, "make it a file that you can read")]));
        }
    };
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let mut reading = skill::read(&file, &name, &bytes);
    if let Err(problem) = measure(directory) {
        let fix = "a skill is small: keep what is large elsewhere, and say where";
        reading.diagnostics.push(fatal(problem, fix));
        reading.skill = None;
    }
    Some((reading.skill, reading.diagnostics))
}

fn otherwise_named(directory: &Path) -> Option<String> {
    let names = std::fs::read_dir(directory).ok()?.flatten().take(MAX_SKILL_ENTRIES);
    let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| name.eq_ignore_ascii_case(SKILL_FILE))
}

/// A regular file, where it seems to lie.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    // One byte more than it may have tells that it has too many.
    file.take(MAX_SKILL_MD_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a session could have a copy of it.
fn measure(directory: &Path) -> Result<(), String> {
    let (mut entries, mut bytes) = (0, 0);
    let mut ahead = vec![(directory.to_owned(), 0)];
    while let Some((dir, depth)) = ahead.pop() {
        if depth > MAX_SKILL_DEPTH {
            return Err(format!("lies beside directories more than {MAX_SKILL_DEPTH} deep"));
        }
        for entry in std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))? {
            let entry = entry.map_err(|e| format!("{}: {e}", dir.display()))?;
            if matches!(entry.file_name().as_encoded_bytes(), b".git" | b"node_modules") {
                continue;
            }
            let facts = entry.metadata().map_err(|e| format!("{}: {e}", entry.path().display()))?;
            entries += 1;
            bytes += if facts.is_file() { facts.len() } else { 0 };
            if facts.is_dir() {
                ahead.push((entry.path(), depth + 1));
            }
            if entries >= MAX_SKILL_ENTRIES {
                return Err(format!("lies beside more than {MAX_SKILL_ENTRIES} files"));
            }
            if bytes > MAX_SKILL_BYTES {
                return Err(format!("lies beside more than {MAX_SKILL_BYTES} bytes"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, name: &str) {
        let dir = root.join(path).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let text = format!("---\nname: {name}\ndescription: From {path}.\n---\n");
        std::fs::File::create(dir.join(SKILL_FILE))
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .unwrap();
    }

    fn config(root: &Path, trusted: &[&str]) -> SkillsConfig {
        let file = FileSkills { trusted: trusted.iter().map(|one| (*one).to_owned()).collect() };
        let own = [root.join("config/skills"), root.join("home/.agents/skills")].into();
        file.checked(Some(&root.join("home")), own).unwrap()
    }

    /// Name, place and fate of each, relative to the root.
    fn told(root: &Path, found: &[Found]) -> Vec<String> {
        let below = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let line = |found: &Found| match &found.fate {
            Fate::Used => format!("{} used", below(&found.path)),
            Fate::Hidden(by) => format!("{} hidden by {}", below(&found.path), below(by)),
            Fate::Untrusted => format!("{} untrusted", below(&found.path)),
            Fate::Unusable => format!("{} unusable", below(&found.path)),
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn the_nearest_counts_and_the_workspaces_only_where_it_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("repo/.git")).unwrap();
        std::fs::create_dir_all(root.join("repo/a/.claude/skills/none")).unwrap();
        put(&root, "outside/.agents/skills", "never");
        put(&root, "repo/.agents/skills", "one");
        put(&root, "repo/a/.claude/skills", "one");
        put(&root, "repo/a/.claude/skills", "two");
        put(&root, "home/.agents/skills", "two");
        put(&root, "config/skills", "three");
        std::os::unix::fs::symlink(
            root.join("outside/.agents/skills/never"),
            root.join("repo/.agents/skills/never"),
        )
        .unwrap();
        std::os::unix::fs::symlink("../.claude/skills", root.join("repo/a/.agents")).unwrap();
        let of = |trusted: &[&str], wanted| {
            told(&root, &discover(&config(&root, trusted), &root.join("repo/a"), wanted))
        };
        let all = [
            "repo/a/.claude/skills/one used",
            "repo/a/.claude/skills/two used",
            "repo/.agents/skills/one hidden by repo/a/.claude/skills/one",
            "config/skills/three used",
            "home/.agents/skills/two hidden by repo/a/.claude/skills/two",
        ];
        assert_eq!(of(&[], Wanted::All), all);
        let repo = root.join("repo").display().to_string();
        assert_eq!(of(&[&repo], Wanted::Trusted), all);
        let untrusted = [
            "repo/a/.claude/skills/one untrusted",
            "repo/a/.claude/skills/two untrusted",
            "repo/.agents/skills/one untrusted",
            "config/skills/three used",
            "home/.agents/skills/two used",
        ];
        assert_eq!(of(&["~/elsewhere"], Wanted::Trusted), untrusted);
        let found = discover(&config(&root, &[]), &root.join("repo/a"), Wanted::None);
        assert_eq!(chosen(&found), []);
    }

    #[test]
    fn what_should_be_a_skill_and_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let own = root.join("config/skills");
        std::fs::create_dir_all(own.join("lower")).unwrap();
        std::fs::File::create(own.join("lower/skill.md")).unwrap();
        std::fs::create_dir_all(own.join("linked")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", own.join("linked/SKILL.md")).unwrap();
        put(&root, "config/skills", "large");
        let large = std::fs::File::create(own.join("large/data")).unwrap();
        large.set_len(MAX_SKILL_BYTES + 1).unwrap();
        let found = discover(&config(&root, &[]), &root.join("repo"), Wanted::All);
        let said: Vec<_> = found.iter().map(|found| found.diagnostics[0].to_string()).collect();
        assert!(found.iter().all(|found| found.fate == Fate::Unusable), "{said:?}");
        assert!(said[0].contains("large/SKILL.md: lies beside more than"), "{said:?}");
        assert!(said[1].contains("linked/SKILL.md: cannot be read"), "{said:?}");
        assert!(said[2].contains("lower/SKILL.md: is not there, but `skill.md` is"), "{said:?}");
    }

    #[test]
    fn a_repository_is_trusted_by_its_address_or_its_owners() {
        let root = Path::new("/nowhere");
        let config = config(root, &["https://github.com/acme/", "https://git.example/one/app"]);
        let check = |url: &str, expected: bool| {
            assert_eq!(config.trusts_repository(url), expected, "{url}");
        };
        check("https://github.com/acme/app", true);
        check("https://github.com/acme", true);
        check("https://github.com/acmeevil/app", false);
        check("http://github.com/acme/app", false);
        check("https://git.example/one/app/", true);
        check("https://git.example/one/apple", false);
        let wrong = FileSkills { trusted: vec!["src".to_owned()] }.checked(None, Vec::new());
        assert!(wrong.unwrap_err().starts_with("skills.trusted[0]: `src` must be an absolute"));
    }
}
