//! Where the layers of a data directory lie: found, made, listed and removed under the kernel's locks.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::environment::Access;
use crate::environment::packages::{Manager, Packages};
use crate::sandbox::disk::remove_all;

const LAYER: &str = "layer";
const LOCK_FILE: &str = "lock.json";
const LOG: &str = "log";
const USED: &str = "used";
/// Largest lock file: 50,000 packages of 200 characters.
const MAX_LOCK_BYTES: u64 = 16 * 1024 * 1024;

/// What could not be done with a layer.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The system.
    #[error("{what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A lock file that says nothing.
    #[error("read the lock file {path}: {reason}")]
    LockFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No such layer.
    #[error("find packages with the key {0}")]
    Unknown(String),
    /// More than one such layer.
    #[error("tell which packages are meant by {0}: several keys begin so")]
    Ambiguous(String),
    /// Somebody uses it.
    #[error("remove the packages {0}: a session uses them")]
    InUse(String),
    /// Somebody builds it.
    #[error("remove the packages {0}: they are being built")]
    Building(String),
}

impl ShelfError {
    fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path: path.clone(), source }
    }
}

/// A package that was installed, in the version that it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resolved {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a layer is: its lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The key.
    pub key: String,
    /// What was asked for.
    pub packages: Packages,
    /// What it was made upon: system, architecture, versions of interpreters.
    pub base: BTreeMap<String, String>,
    /// What was installed, with all that it needs; of `apt`, what the machine had already too.
    pub resolved: BTreeMap<Manager, Vec<Resolved>>,
    /// Files and links.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// When it was made.
    pub built_at: String,
    /// How long that took.
    pub build_ms: u64,
}

impl Lock {
    /// The version of Python that the packages are for, as `3.11`.
    fn python(&self) -> Option<String> {
        let version = self.base.get("python3")?.split(' ').next()?;
        let mut parts = version.split('.');
        Some(format!("{}.{}", parts.next()?, parts.next()?))
    }
}

/// A layer on its shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub lock: Lock,
    /// When it was used last, by the kernel's clock, in seconds.
    pub used_at: i64,
    /// Whether a process uses it now.
    pub in_use: bool,
}

/// A layer in use: it stays while this value lives, whatever other processes do.
#[derive(Debug)]
pub struct Lease {
    /// What it is.
    pub lock: Lock,
    /// What a session sees of it.
    pub view: View,
    /// Where its lock file and its log are.
    pub directory: PathBuf,
    _used: File,
}

/// All layers of a data directory.
#[derive(Debug, Clone)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// The shelf at this directory, made or not.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self(root)
    }

    fn make(&self) -> Result<(), ShelfError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(ShelfError::at("make", &self.0))
    }

    fn place(&self, key: &str) -> PathBuf {
        self.0.join(key)
    }

    /// The log of the last build of this key that failed.
    #[must_use]
    pub fn failed_log(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.log"))
    }

    /// An empty directory that belongs to nobody's work.
    ///
    /// # Errors
    /// The system's.
    pub fn nowhere(&self) -> Result<PathBuf, ShelfError> {
        let path = self.0.join("nowhere");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(ShelfError::at("make", &path))?;
        Ok(path)
    }

    /// The layer of this key, if it is there; from now on it is in use.
    ///
    /// # Errors
    /// The system's, or a lock file that says nothing.
    pub fn find(&self, key: &str) -> Result<Option<Lease>, ShelfError> {
        let directory = self.place(key);
        let path = directory.join(USED);
        let fail = ShelfError::at("use", &path);
        let used = match File::open(&path) {
            Ok(used) => used,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        // Held by nobody but one that removes it, or looks whether it is in use: for moments.
        used.lock_shared().map_err(&fail)?;
        if !is_at(&used, &path) {
            return Ok(None);
        }
        let lock = read_lock(&directory)?;
        let now = TimeSpec::UTIME_NOW;
        futimens(used.as_fd(), &now, &now).map_err(|e| fail(e.into()))?;
        let layer = directory.join(LAYER);
        let view = View::of(&layer, Access::ReadOnly, lock.python());
        let view = view.map_err(ShelfError::at("look through", &layer))?;
        Ok(Some(Lease { lock, view, directory, _used: used }))
    }

    /// Begins to make the layer of this key; nothing, while another process does.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&self, key: &str) -> Result<Option<Draft>, ShelfError> {
        self.make()?;
        let Some(held) = self.hold(key)? else { return Ok(None) };
        let place = self.0.join(format!("{key}.building"));
        remove(&place)?;
        for path in [place.clone(), place.join(LAYER)] {
            let made = DirBuilder::new().mode(0o755).create(&path);
            made.map_err(ShelfError::at("make", &path))?;
        }
        Ok(Some(Draft { shelf: self.clone(), key: key.to_owned(), place, _held: held }))
    }

    /// Takes the lock of a key, without waiting.
    fn hold(&self, key: &str) -> Result<Option<Held>, ShelfError> {
        let path = self.0.join(format!("{key}.lock"));
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(ShelfError::at("lock", &path))?;
            match file.try_lock() {
                // Whoever held it before may have removed it.
                Ok(()) if is_at(&file, &path) => return Ok(Some(Held { path, _file: file })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(ShelfError::at("lock", &path)(e)),
            }
        }
    }

    fn names(&self) -> Result<Vec<String>, ShelfError> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(ShelfError::at("look through", &self.0)(e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    fn keys(&self) -> Result<Vec<String>, ShelfError> {
        let is_key = |name: &String| name.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(self.names()?.into_iter().filter(is_key).collect())
    }

    /// All layers, the last used first.
    ///
    /// # Errors
    /// The system's, or a lock file that says nothing.
    pub fn list(&self) -> Result<Vec<Stored>, ShelfError> {
        let mut all = Vec::new();
        for key in self.keys()? {
            let path = self.place(&key).join(USED);
            // One that is gone meanwhile is no layer.
            let Ok(used) = File::open(&path) else { continue };
            let in_use = matches!(used.try_lock(), Err(TryLockError::WouldBlock));
            let facts = used.metadata().map_err(ShelfError::at("look at", &path))?;
            let lock = read_lock(&self.place(&key))?;
            all.push(Stored { lock, used_at: facts.mtime(), in_use });
        }
        all.sort_by_key(|stored| std::cmp::Reverse(stored.used_at));
        Ok(all)
    }

    /// The whole key that begins so.
    ///
    /// # Errors
    /// None, or several.
    pub fn resolve(&self, beginning: &str) -> Result<String, ShelfError> {
        let mut keys = self.keys()?;
        keys.retain(|key| key.starts_with(beginning));
        match keys.len() {
            1 => Ok(keys.remove(0)),
            0 => Err(ShelfError::Unknown(beginning.to_owned())),
            _ => Err(ShelfError::Ambiguous(beginning.to_owned())),
        }
    }

    /// Removes a layer that nobody uses; how large it was.
    ///
    /// # Errors
    /// That somebody does; the system's.
    pub fn remove(&self, key: &str) -> Result<u64, ShelfError> {
        let Some(_held) = self.hold(key)? else {
            return Err(ShelfError::Building(key.to_owned()));
        };
        let place = self.place(key);
        let path = place.join(USED);
        let used = File::open(&path).map_err(|_| ShelfError::Unknown(key.to_owned()))?;
        if !take_alone(&used).map_err(ShelfError::at("lock", &path))? {
            return Err(ShelfError::InUse(key.to_owned()));
        }
        let bytes = read_lock(&place).map_or(0, |lock| lock.bytes);
        // First it is no layer any more, at once; a crash leaves what the next sweep takes.
        let gone = self.0.join(format!("{key}.building"));
        remove(&gone)?;
        std::fs::rename(&place, &gone).map_err(ShelfError::at("remove", &place))?;
        remove(&gone)?;
        remove_file(&self.failed_log(key))?;
        Ok(bytes)
    }

    /// Removes what crashes have left.
    ///
    /// # Errors
    /// The system's.
    pub fn sweep(&self) -> Result<(), ShelfError> {
        for name in self.names()? {
            let Some(key) = name.strip_suffix(".building") else { continue };
            if let Some(_held) = self.hold(key)? {
                remove(&self.0.join(&name))?;
            }
        }
        Ok(())
    }
}

/// The lock of a key, and its file while that is needed.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed before it is released: who waits for it sees that, and makes another. One that stays does no harm.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Takes the lock unless somebody keeps it: one that only looks has it for less than a moment.
fn take_alone(file: &File) -> io::Result<bool> {
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Ok(false)
}

/// Whether that path is still this file.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |facts: std::fs::Metadata| (facts.dev(), facts.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(own), Ok(there)) => inode(own) == inode(there),
        _ => false,
    }
}

fn remove(path: &Path) -> Result<(), ShelfError> {
    remove_all(path).map_err(ShelfError::at("remove", path))
}

fn remove_file(path: &Path) -> Result<(), ShelfError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ShelfError::at("remove", path)(e)),
        _ => Ok(()),
    }
}

fn read_lock(directory: &Path) -> Result<Lock, ShelfError> {
    let path = directory.join(LOCK_FILE);
    let fail = ShelfError::at("read", &path);
    let mut text = String::new();
    let file = File::open(&path).map_err(&fail)?;
    file.take(MAX_LOCK_BYTES).read_to_string(&mut text).map_err(&fail)?;
    serde_json::from_str(&text)
        .map_err(|e| ShelfError::LockFile { path: path.clone(), reason: e.to_string() })
}

/// A layer that is being made. Dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    shelf: Shelf,
    key: String,
    place: PathBuf,
    _held: Held,
}

impl Draft {
    /// Its directory, for everything that goes with it.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What will be the layer.
    #[must_use]
    pub fn layer(&self) -> PathBuf {
        self.place.join(LAYER)
    }

    /// A file for what its managers say.
    ///
    /// # Errors
    /// The system's.
    pub fn log(&self) -> Result<File, ShelfError> {
        let path = self.place.join(LOG);
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path);
        file.map_err(ShelfError::at("make", &path))
    }

    /// An empty directory for the work of one manager.
    ///
    /// # Errors
    /// The system's.
    pub fn work(&self, manager: Manager) -> Result<PathBuf, ShelfError> {
        let path = self.place.join("work").join(manager.as_str());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(ShelfError::at("make", &path))?;
        Ok(path)
    }

    /// Its size as it is now, in bytes and files: what is built included.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self) -> Result<(u64, u64), ShelfError> {
        let mut size = (0, 0);
        measure(&self.place, &mut size).map_err(ShelfError::at("look through", &self.place))?;
        Ok(size)
    }

    /// Keeps the log of a build that failed; where it is.
    ///
    /// # Errors
    /// The system's.
    pub fn fail(self) -> Result<PathBuf, ShelfError> {
        let path = self.shelf.failed_log(&self.key);
        let kept = std::fs::rename(self.place.join(LOG), &path);
        kept.map_err(ShelfError::at("keep", &path))?;
        Ok(path)
    }

    /// Makes it a layer: readable by every session, safe on the disk, under its key at once.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(self, lock: impl FnOnce(u64, u64) -> Lock) -> Result<(), ShelfError> {
        remove(&self.place.join("work"))?;
        let layer = self.layer();
        let fail = ShelfError::at("finish", &layer);
        settle(&layer).map_err(&fail)?;
        let mut size = (0, 0);
        measure(&layer, &mut size).map_err(&fail)?;
        let lock = lock(size.0, size.1);
        let text = serde_json::to_string_pretty(&lock).expect("a lock is JSON") + "\n";
        let path = self.place.join(LOCK_FILE);
        let write = || File::create_new(&path)?.write_all(text.as_bytes());
        write().map_err(ShelfError::at("write", &path))?;
        File::create_new(self.place.join(USED)).map_err(&fail)?;
        let directory = File::open(&self.place).map_err(&fail)?;
        nix::unistd::syncfs(&directory).map_err(|e| fail(e.into()))?;
        let to = self.shelf.place(&self.key);
        // A layer that could not be used is replaced by one that can.
        remove(&to)?;
        std::fs::rename(&self.place, &to).map_err(ShelfError::at("finish", &to))?;
        remove_file(&self.shelf.failed_log(&self.key))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        drop(remove_all(&self.place));
    }
}

fn measure(directory: &Path, (bytes, files): &mut (u64, u64)) -> io::Result<()> {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A build removes directories while it is measured, and hides some.
            Err(e) if is_passing(&e) => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => open.push(entry.path()),
                Ok(facts) => {
                    *bytes += facts.blocks() * 512;
                    *files += 1;
                }
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Lets everybody read a tree.
fn settle(directory: &Path) -> io::Result<()> {
    let mode = std::fs::symlink_metadata(directory)?.mode();
    std::fs::set_permissions(directory, Permissions::from_mode(mode & 0o755 | 0o755))?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let facts = path.symlink_metadata()?;
        if facts.is_dir() {
            settle(&path)?;
        } else if facts.is_file() {
            let runs = if facts.mode() & 0o111 == 0 { 0 } else { 0o111 };
            std::fs::set_permissions(
                &path,
                Permissions::from_mode(0o444 | runs | facts.mode() & 0o200),
            )?;
        } else if !facts.is_symlink() {
            // A socket or a pipe that was left behind.
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
