//! What the session has seen of files, and how it changes one: whole or not at all.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::Refusal;

/// A file as it was when the session last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    seconds: i64,
    nanos: i64,
}

impl Version {
    fn of(facts: &Metadata) -> Self {
        Self {
            inode: facts.ino(),
            size: facts.size(),
            seconds: facts.mtime(),
            nanos: facts.mtime_nsec(),
        }
    }
}

/// The versions of files that the session has read or written.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<PathBuf, Version>>);

impl Seen {
    /// Remembers the file as it is.
    pub(super) fn note(&self, path: &Path, facts: &Metadata) {
        let mut seen = self.0.lock().expect("nothing panics under this lock");
        seen.insert(path.to_owned(), Version::of(facts));
    }

    /// Refuses a file that somebody changed since the session saw it; one that it never saw is taken as it is.
    pub(super) fn check(&self, path: &Path, facts: &Metadata) -> Result<(), Refusal> {
        let seen = self.0.lock().expect("nothing panics under this lock");
        match seen.get(path) {
            Some(version) if *version != Version::of(facts) => Err(format!(
                "{} has changed since you last read it. Read it again, then edit.",
                path.display()
            )),
            _ => Ok(()),
        }
    }
}

/// Opens a regular file without ever waiting for one that is something else.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), Refusal> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|e| cannot("read", path, &e))?;
    let facts = file.metadata().map_err(|e| cannot("read", path, &e))?;
    let shown = path.display();
    if facts.is_dir() {
        return Err(format!("{shown} is a directory. Use glob to see what is in it."));
    }
    if !facts.is_file() {
        return Err(format!(
            "{shown} is not a regular file (a pipe, socket or device), so it is not read."
        ));
    }
    Ok((file, facts))
}

/// All bytes of a regular file, up to a bound.
pub(super) fn load(path: &Path, most: usize) -> Result<(Vec<u8>, Metadata), Refusal> {
    let (file, facts) = open(path)?;
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let too_large = || {
        let (shown, size) = (path.display(), facts.len());
        Err(format!(
            "{shown} has {size} bytes, and at most {most} can be taken at once. Use bash to take a part of it."
        ))
    };
    if facts.len() > limit {
        return too_large();
    }
    let mut bytes = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| cannot("read", path, &e))?;
    if bytes.len() > most {
        return too_large();
    }
    Ok((bytes, facts))
}

/// What went wrong with a file, in words that say what to do.
pub(super) fn cannot(what: &str, path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{shown} does not exist. Use glob to find the file that you mean.")
        }
        io::ErrorKind::PermissionDenied => format!("Could not {what} {shown}: permission denied."),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "Could not {what} {shown}: it is read-only here. Only the working directory and /tmp can be changed."
            )
        }
        io::ErrorKind::NotADirectory => {
            format!("Could not {what} {shown}: a part of the path is a file.")
        }
        _ => format!("Could not {what} {shown}: {error}."),
    }
}

/// Puts new content in the place of a file: readers see the old or the new, never a part. Keeps the mode of a file that
/// is there, makes parents, and writes through a link to the file that it names.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<Metadata, Refusal> {
    let target = match path.canonicalize() {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => dangling(path),
        Err(e) => return Err(cannot("write", path, &e)),
    };
    let old = target.symlink_metadata().ok();
    if old.as_ref().is_some_and(Metadata::is_dir) {
        return Err(format!("{} is a directory, so it cannot be written.", path.display()));
    }
    if old.as_ref().is_some_and(|facts| !facts.is_file()) {
        return Err(format!("{} is not a regular file, so it is not written.", path.display()));
    }
    swap(&target, content, old.as_ref()).map_err(|e| cannot("write", path, &e))
}

/// Where a link to a file that is not there leads.
fn dangling(path: &Path) -> PathBuf {
    match (path.read_link(), path.parent()) {
        (Ok(target), Some(parent)) => parent.join(target),
        _ => path.to_owned(),
    }
}

fn swap(target: &Path, content: &[u8], old: Option<&Metadata>) -> io::Result<Metadata> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(parent)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let beside = parent.join(format!(".casemate-{}-{number}.tmp", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(content)?;
        if let Some(old) = old {
            file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        // Exchanging and removing is twice as fast as renaming over: the file system need not write the old one out.
        let exchange =
            || renameat2(AT_FDCWD, &beside, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE);
        let exchanged = old.is_some() && exchange().is_ok();
        if !exchanged {
            std::fs::rename(&beside, target)?;
        }
        file.metadata()
    })();
    // After an exchange this is the old content; after a failure, the new; after a rename, nothing.
    drop(std::fs::remove_file(&beside));
    written
}
