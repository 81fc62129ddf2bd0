//! The data directory: made private, owned by one process at a time.
//!
//! The lock is the kernel's (`flock`), so that it ends with its owner however that ends. What the lock file says is
//! for people: it is never consulted to decide who holds the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::StoreError;

const LOCK: &str = "casemate.lock";
const DATABASE: &str = "casemate.db";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The lock file's second line in a directory that is casemate's alone. Only there is a wider mode taken back:
/// a home or project directory that someone names as data directory keeps the mode that it has.
const MADE: &str = "this directory was made by casemate";

/// Where the database of the data directory `dir` is.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// The data directory, held by this process until the value is dropped.
pub(super) struct Held {
    _lock: File,
}

/// Since when another process or this one has held `dir`; `None` if nobody does. It takes no lock itself, not even for a
/// moment: whoever wants to hold the directory would find it taken.
pub(super) fn held_since(dir: &Path) -> Result<Option<SystemTime>, StoreError> {
    let path = dir.join(LOCK);
    let lock = match fs::metadata(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::prepare(&path)(error)),
    };
    let locks = Path::new("/proc/locks");
    let all = fs::read_to_string(locks).map_err(StoreError::prepare(locks))?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`, proc_locks(5). The device is that of the file system, which for
    // some is not the one that a file names.
    let inode = format!(":{}", lock.ino());
    let is_ours = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(3).is_some_and(|file| file.ends_with(&inode))
    };
    if !all.lines().any(is_ours) {
        return Ok(None);
    }
    lock.modified().map(Some).map_err(StoreError::prepare(&path))
}

/// Makes `dir` if it is missing and takes its lock, without waiting.
pub(super) fn hold(dir: &Path) -> Result<Held, StoreError> {
    let fresh = make(dir)?;
    let owner = fs::metadata(dir).map_err(StoreError::prepare(dir))?;
    if owner.uid() != nix::unistd::geteuid().as_raw() {
        return Err(StoreError::ForeignDir { dir: dir.to_owned(), owner: owner.uid() });
    }
    let path = dir.join(LOCK);
    let failed = || StoreError::prepare(&path);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut lock = options.open(&path).map_err(failed())?;
    let mut note = String::new();
    let taken = lock.try_lock();
    // A note that is not text is an old or foreign one; it only costs the process id in a message.
    if lock.read_to_string(&mut note).is_err() {
        note.clear();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = note.lines().next().and_then(|line| line.parse().ok());
            return Err(StoreError::Locked { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed()(source)),
    }
    let made = fresh || note.lines().nth(1) == Some(MADE);
    if made && owner.mode() & 0o777 != DIR_MODE {
        let private = Permissions::from_mode(DIR_MODE);
        fs::set_permissions(dir, private).map_err(StoreError::prepare(dir))?;
    }
    sign(&mut lock, made).map_err(failed())?;
    Ok(Held { _lock: lock })
}

/// Makes `dir` and its missing parents; whether it is new or empty, and so casemate's alone.
fn make(dir: &Path) -> Result<bool, StoreError> {
    let failed = || StoreError::prepare(dir);
    match fs::read_dir(dir) {
        Ok(mut entries) => return Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed()(error)),
    }
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed())?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync(parent)?;
    }
    Ok(true)
}

fn sign(lock: &mut File, made: bool) -> std::io::Result<()> {
    let mut note = format!("{}\n", std::process::id());
    if made {
        note.push_str(MADE);
        note.push('\n');
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(note.as_bytes())
}

/// Makes an empty private file.
pub(super) fn new_file(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    options.open(path).map_err(StoreError::prepare(path)).map(drop)
}

/// Removes the file at `path` if there is one.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::prepare(path)(error)),
        _ => Ok(()),
    }
}

/// Takes a wider mode of the file at `path` back. SQLite gives the files beside it the same mode.
pub(super) fn tighten_file(path: &Path) -> Result<(), StoreError> {
    let failed = || StoreError::prepare(path);
    let mode = fs::metadata(path).map_err(failed())?.mode();
    if mode & 0o777 != FILE_MODE {
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(failed())?;
    }
    Ok(())
}

/// Makes the file or directory at `path` durable.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::prepare(path))
}
