//! An upload becomes a directory: every name in it is a stranger's and is judged before anything is made of it.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::library::SkillError;
use crate::environment::repository::check_names;
use crate::limits::{MAX_SKILL_BYTES, MAX_SKILL_DEPTH, MAX_SKILL_ENTRIES, MAX_SKILL_PATH_BYTES};

/// A tree that grows. Its files lie below `root` without the top directory that all of them name.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    top: Option<String>,
    /// What is there, by its path in small letters: some file systems tell no more apart.
    entries: HashMap<String, Entry>,
    bytes: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    is_file: bool,
}

#[derive(Debug)]
struct Open {
    path: String,
    file: File,
    /// Whether it is a program, as far as that was said.
    runs: Option<bool>,
}

impl Tree {
    /// One below a directory that is made for it.
    pub(super) fn new(root: &Path) -> Result<Self, SkillError> {
        make(root).map_err(SkillError::at("make", root))?;
        let entries = HashMap::new();
        Ok(Self { root: root.to_owned(), top: None, entries, bytes: 0, open: None })
    }

    /// The top directory, if there is anything.
    pub(super) fn top(&self) -> Option<&str> {
        self.top.as_deref()
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A directory that is named by itself.
    pub(super) fn directory(&mut self, path: &str) -> Result<(), SkillError> {
        let below = self.judge(path)?;
        self.parents(&below, true).map_err(|problem| SkillError::of(path, problem))?;
        self.make_parents(&below, true)
    }

    /// Begins a file, whose bytes follow. Nobody has said whether it is a program if `runs` is nothing: its beginning tells.
    pub(super) fn begin(&mut self, path: &str, runs: Option<bool>) -> Result<(), SkillError> {
        self.end()?;
        let below = self.judge(path)?;
        if below.is_empty() {
            let problem =
                "lies in no directory: all files of a skill lie in one, with SKILL.md at its top";
            return Err(SkillError::of(path, problem));
        }
        self.parents(&below, false).map_err(|problem| SkillError::of(path, problem))?;
        self.make_parents(&below, false)?;
        let target = self.root.join(&below);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&target);
        let file = file.map_err(SkillError::at("make", &target))?;
        self.open = Some(Open { path: path.to_owned(), file, runs });
        Ok(())
    }

    /// More bytes of the file that was begun last.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SkillError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_SKILL_BYTES {
            return Err(SkillError::TooLarge);
        }
        let open = self.open.as_mut().expect("bytes follow the beginning of a file");
        open.file.write_all(bytes).map_err(SkillError::at("write", &self.root))
    }

    /// The last file is whole.
    pub(super) fn end(&mut self) -> Result<(), SkillError> {
        let Some(Open { path, mut file, runs }) = self.open.take() else { return Ok(()) };
        let mut end = || {
            let mut head = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            (&file).take(2).read_to_end(&mut head)?;
            let mode = if runs.unwrap_or(head == b"#!") { 0o555 } else { 0o444 };
            file.set_permissions(Permissions::from_mode(mode))
        };
        end().map_err(SkillError::at("write", Path::new(&path)))
    }

    /// The path below the top directory. All of a skill have the same.
    fn judge(&mut self, path: &str) -> Result<String, SkillError> {
        let refuse = |problem: &str| Err(SkillError::of(path, problem));
        if path.starts_with('/') {
            return refuse("is an absolute path");
        }
        if path.contains('\\') {
            return refuse("has a backslash in it");
        }
        if path.len() > MAX_SKILL_PATH_BYTES {
            return refuse("has more than 1024 bytes");
        }
        if let Err(problem) = check_names(path) {
            return refuse(problem);
        }
        if path.split('/').count() > MAX_SKILL_DEPTH {
            return refuse("is more than 16 deep");
        }
        let (top, below) = path.split_once('/').unwrap_or((path, ""));
        match &self.top {
            Some(known) if known != top => {
                let problem = format!("has the top directory `{top}`, and another file `{known}`");
                return refuse(&problem);
            }
            Some(_) => {}
            None => self.top = Some(top.to_owned()),
        }
        Ok(below.to_owned())
    }

    /// Takes note of the path and of all directories above it; says what is in their way.
    fn parents(&mut self, below: &str, itself_too: bool) -> Result<(), String> {
        let ends = below.match_indices('/').map(|(at, _)| at);
        let ends: Vec<usize> = ends.chain((!below.is_empty()).then_some(below.len())).collect();
        for end in ends {
            let path = &below[..end];
            let is_file = end == below.len() && !itself_too;
            match self.entries.get(&path.to_lowercase()) {
                Some(known) if known.path != path => {
                    return Err(format!("is `{}` but for the case of letters", known.path));
                }
                Some(known) if is_file && known.is_file => return Err("is there twice".to_owned()),
                Some(known) if is_file || known.is_file => {
                    return Err(format!("needs `{path}` as a file and as a directory"));
                }
                Some(_) => {}
                None => {
                    if self.entries.len() >= MAX_SKILL_ENTRIES {
                        return Err(format!("is one more than {MAX_SKILL_ENTRIES} files"));
                    }
                    let entry = Entry { path: path.to_owned(), is_file };
                    self.entries.insert(path.to_lowercase(), entry);
                }
            }
        }
        Ok(())
    }

    fn make_parents(&self, below: &str, itself_too: bool) -> Result<(), SkillError> {
        let ends = below.match_indices('/').map(|(at, _)| at);
        for end in ends.chain((itself_too && !below.is_empty()).then_some(below.len())) {
            let path = self.root.join(&below[..end]);
            if !path.is_dir() {
                make(&path).map_err(SkillError::at("make", &path))?;
            }
        }
        Ok(())
    }
}

/// A directory that sessions can look into, whatever this process masks.
fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of the last of these files.
    fn last(paths: &[&str]) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(&dir.path().join("t")).unwrap();
        let (last, before) = paths.split_last().unwrap();
        let mut put = |path: &str| {
            if let Some(directory) = path.strip_suffix('/') {
                return tree.directory(directory);
            }
            tree.begin(path, None)?;
            tree.write(b"#!x")?;
            tree.end()
        };
        before.iter().for_each(|path| put(path).unwrap());
        put(last).map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_is_judged_before_anything_is_made_of_it() {
        let check = |paths: &[&str], expected: &str| {
            let said = last(paths).unwrap_err();
            assert!(said.contains(expected), "{paths:?}: {said}");
        };
        check(&["/etc/passwd"], "is an absolute path");
        check(&["a/../b"], "must not have `.` or `..` in it");
        check(&["../a"], "must not have `.` or `..` in it");
        check(&["a//b"], "must not have an empty name in it");
        check(&["a\\b"], "has a backslash in it");
        check(&["a/b\nc"], "must not have a control character in it");
        check(&["SKILL.md"], "lies in no directory");
        check(&["a/b", "c/d"], "has the top directory `c`, and another file `a`");
        check(&["a/b", "a/B"], "is `b` but for the case of letters");
        check(&["a/b/c", "a/B/d"], "is `b` but for the case of letters");
        check(&["a/é", "a/É"], "is `é` but for the case of letters");
        check(&["a/b", "a/b"], "is there twice");
        check(&["a/b", "a/b/c"], "needs `b` as a file and as a directory");
        check(&["a/b/c", "a/b"], "needs `b` as a file and as a directory");
        check(&["a/b", "a/b/"], "needs `b` as a file and as a directory");
        check(&[&format!("a/{}", "b".repeat(256))], "a name of more than 255 bytes");
        check(&[&format!("a/{}", "b/".repeat(600))], "has more than 1024 bytes");
        check(&[&format!("a/{}c", "b/".repeat(16))], "is more than 16 deep");
        last(&["a/", "a/b/", "a/b/c", "a/b/"]).unwrap();
    }

    #[test]
    fn a_file_with_a_head_for_a_shell_is_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        let mut tree = Tree::new(&root).unwrap();
        for (path, runs, text) in [
            ("a/one", None, "#!/bin/sh"),
            ("a/two", None, "text"),
            ("a/three", Some(false), "#!/bin/sh"),
            ("a/four", Some(true), ""),
        ] {
            tree.begin(path, runs).unwrap();
            tree.write(text.as_bytes()).unwrap();
        }
        tree.end().unwrap();
        let mode = |name: &str| root.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(["one", "two", "three", "four"].map(mode), [0o555, 0o444, 0o444, 0o555]);
    }

    #[test]
    fn more_bytes_than_a_skill_may_have_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(&dir.path().join("t")).unwrap();
        tree.begin("a/b", None).unwrap();
        let piece = vec![0; 1 << 20];
        let error = (0..31).find_map(|_| tree.write(&piece).err());
        assert!(matches!(error, Some(SkillError::TooLarge)));
    }
}
