//! The skills of a session: a directory each below its `skills`, as they were when it was created, or when the repository
//! that brought them came. It is shown them and cannot change them; nothing else does.
//!
//! ```text
//! repositories/ID.skills   copies of what a repository brings, on their way
//! repositories/ID.brought  they are whole, and this is what they are: now they are the session's
//! ```

use std::ffi::CStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use ring::digest::{Context, SHA256};

use super::DiskError;
use super::place::Place;
use super::restore::{open_root, remove_all};
use super::tree::{names, open_directory};
use super::uploads::link_or_copy;
use crate::limits::{MAX_SKILL_BYTES, MAX_SKILL_DEPTH, MAX_SKILL_ENTRIES};

/// What a skill may have.
struct Room {
    entries: usize,
    bytes: u64,
}

impl Room {
    const WHOLE: Self = Self { entries: MAX_SKILL_ENTRIES, bytes: MAX_SKILL_BYTES };

    fn enter(&mut self, depth: usize) -> io::Result<()> {
        let too_many = || io::Error::other(format!("it has more than {MAX_SKILL_ENTRIES} files"));
        if depth > MAX_SKILL_DEPTH {
            return Err(io::Error::other(format!("it is more than {MAX_SKILL_DEPTH} deep")));
        }
        self.entries = self.entries.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }
}

impl Place {
    /// Gives the session a skill of that name: second names of the files of a tree that nobody changes.
    ///
    /// # Errors
    /// The system's.
    pub fn link_skill(&self, name: &str, tree: &Path) -> Result<(), DiskError> {
        let to = self.skill(name)?;
        link(tree, &to).map_err(DiskError::at("show the session", &to))
    }

    /// Gives the session a copy of a directory that others may be changing, as a skill of that name. Links and whatever is
    /// no file stay out of it.
    ///
    /// # Errors
    /// The system's, or that it is too large.
    pub fn copy_skill(&self, name: &str, from: &Path) -> Result<(), DiskError> {
        let to = self.skill(name)?;
        let copied = open_root(from).and_then(|from| copy(&from, &to, 0, &mut { Room::WHOLE }));
        copied.map_err(DiskError::at("copy the skill", from))
    }

    /// Gives the session the skills that another one has.
    ///
    /// # Errors
    /// The system's.
    pub fn link_skills_of(&self, other: &Self) -> Result<(), DiskError> {
        if !other.skills().is_dir() {
            return Ok(());
        }
        let to = self.skills();
        link(&other.skills(), &to).map_err(DiskError::at("show the session", &to))
    }

    /// Makes the place of the session's skills: a sandbox shows it if it is there when it starts.
    ///
    /// # Errors
    /// The system's.
    pub fn make_skills(&self) -> Result<(), DiskError> {
        let skills = self.skills();
        let made = if skills.is_dir() { Ok(()) } else { make(&skills) };
        made.map_err(DiskError::at("make", &skills))
    }

    /// Where a skill of that name will be.
    fn skill(&self, name: &str) -> Result<PathBuf, DiskError> {
        self.make_skills()?;
        Ok(self.skills().join(name))
    }

    /// What was written down of the skills that a repository brought, if it has brought them; what was cut is ended first.
    ///
    /// # Errors
    /// The system's.
    pub fn brought(&self, repository: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.of_repository(repository, "brought");
        match std::fs::read(&path) {
            Ok(record) => self.settle_brought(repository).map(|()| Some(record)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(DiskError::at("read", &path)(e)),
        }
    }

    /// Makes room for the skills of a repository; what was cut before is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn begin_bringing(&self, repository: &str) -> Result<(), DiskError> {
        let on_its_way = self.of_repository(repository, "skills");
        let made = remove_all(&on_its_way).and_then(|()| make(&on_its_way));
        made.map_err(DiskError::at("make", &on_its_way))
    }

    /// Copies a skill out of a repository, and says its digest.
    ///
    /// # Errors
    /// The system's, or that it is too large.
    pub fn copy_brought(
        &self,
        repository: &str,
        name: &str,
        from: &Path,
    ) -> Result<String, DiskError> {
        let to = self.of_repository(repository, "skills").join(name);
        let copied = open_root(from).and_then(|from| copy(&from, &to, 0, &mut { Room::WHOLE }));
        copied.and_then(|()| digest(&to)).map_err(DiskError::at("copy the skill", from))
    }

    /// Gives the session what was copied out of a repository, once and for all: the record says what that is.
    ///
    /// # Errors
    /// The system's.
    pub fn bring(&self, repository: &str, record: &[u8]) -> Result<(), DiskError> {
        self.write(&self.of_repository(repository, "brought"), record)?;
        self.settle_brought(repository)
    }

    fn settle_brought(&self, repository: &str) -> Result<(), DiskError> {
        let on_its_way = self.of_repository(repository, "skills");
        if !on_its_way.is_dir() {
            return Ok(());
        }
        self.make_skills()?;
        let settle = || {
            for name in listed(&on_its_way)? {
                std::fs::rename(on_its_way.join(&name), self.skills().join(&name))?;
            }
            std::fs::remove_dir(&on_its_way)
        };
        settle().map_err(DiskError::at("take over", &on_its_way))
    }
}

/// What the files of a skill hold and are called, as a SHA-256 in hexadecimal. Nobody else changes them meanwhile.
///
/// # Errors
/// The system's.
pub fn digest(tree: &Path) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    digest_below(tree, Path::new(""), &mut context)?;
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digest_below(tree: &Path, at: &Path, context: &mut Context) -> io::Result<()> {
    for name in listed(&tree.join(at))? {
        let below = at.join(&name);
        let path = tree.join(&below);
        let facts = path.symlink_metadata()?;
        if facts.is_dir() {
            digest_below(tree, &below, context)?;
            continue;
        }
        // Of lengths that are told no two trees look the same.
        let name = below.as_os_str().as_bytes();
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name);
        context.update(&[u8::from(facts.mode() & 0o100 != 0)]);
        context.update(&facts.len().to_le_bytes());
        let (mut file, mut piece) = (File::open(&path)?, vec![0; 64 * 1024]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                count => context.update(&piece[..count]),
            }
        }
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    make(to)?;
    for name in listed(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.symlink_metadata()?.is_dir() {
            link(&from, &to)?;
        } else {
            link_or_copy(&from, &to)?;
        }
    }
    Ok(())
}

/// The names in a directory, in order.
fn listed(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// A directory that the session can look into, whatever this process masks.
fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Names are resolved one at a time below an open directory: a session may be at work where this is copied from.
fn copy(from: &OwnedFd, to: &Path, depth: usize, room: &mut Room) -> io::Result<()> {
    room.enter(depth)?;
    make(to)?;
    for name in names(from)? {
        if matches!(name.to_bytes(), b".git" | b"node_modules") {
            continue;
        }
        let inner = to.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let facts = match fstatat(from, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            facts => facts?,
        };
        match SFlag::from_bits_truncate(facts.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => copy(&open_directory(from, &name)?, &inner, depth + 1, room)?,
            SFlag::S_IFREG => copy_file(from, &name, &inner, room)?,
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(parent: &OwnedFd, name: &CStr, to: &Path, room: &mut Room) -> io::Result<()> {
    room.enter(0)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let from = File::from(openat(parent, name, flags, Mode::empty())?);
    let facts = from.metadata()?;
    if !facts.is_file() {
        return Ok(());
    }
    let mut copied = File::create_new(to)?;
    let count = io::copy(&mut from.take(room.bytes + 1), &mut copied)?;
    let too_large = || io::Error::other(format!("it has more than {MAX_SKILL_BYTES} bytes"));
    room.bytes = room.bytes.checked_sub(count).ok_or_else(too_large)?;
    copied.flush()?;
    let mode = if facts.mode() & 0o111 == 0 { 0o444 } else { 0o555 };
    copied.set_permissions(Permissions::from_mode(mode))
}
