//! Repositories of a session: each is put into its workspace once, whole, and is the session's from then on.
//!
//! ```text
//! repositories/ID.token    what its server asks for, sealed
//! repositories/ID.tree     a checkout that is on its way
//! repositories/ID.placed   it was put into the workspace, or is about to be, if the tree is still there
//! ```

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, lchown};
use std::path::{Path, PathBuf};

use nix::fcntl::renameat;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use super::DiskError;
use super::place::Place;
use super::restore::{open_root, remove_all};
use super::tree::open_directory;
use crate::sandbox::host;

/// Largest sealed token that is read.
const MAX_TOKEN_BYTES: u64 = 4096;

impl Place {
    pub(super) fn of_repository(&self, id: &str, what: &str) -> PathBuf {
        self.repositories().join(format!("{id}.{what}"))
    }

    fn make_repositories(&self) -> Result<(), DiskError> {
        let dir = self.repositories();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(DiskError::at("make", &dir)(e))
            }
            _ => Ok(()),
        }
    }

    /// Keeps the sealed token of a repository, in place of the one before.
    ///
    /// # Errors
    /// The system's; the one before is there then.
    pub fn keep_token(&self, id: &str, sealed: &[u8]) -> Result<(), DiskError> {
        self.make_repositories()?;
        let (path, fresh) = (self.of_repository(id, "token"), self.of_repository(id, "fresh"));
        let keep = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(sealed)?;
            file.sync_data()?;
            std::fs::rename(&fresh, &path)
        };
        keep().map_err(DiskError::at("keep", &path))
    }

    /// The sealed token of a repository, if it has one.
    ///
    /// # Errors
    /// The system's.
    pub fn token(&self, id: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.of_repository(id, "token");
        let mut sealed = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_end(&mut sealed));
        match read {
            Ok(_) => Ok(Some(sealed)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(DiskError::at("read", &path)(e)),
        }
    }

    /// Whether the repository was put into the workspace, at `path` below it; what was cut is ended first.
    ///
    /// # Errors
    /// The system's, or that something else has its place by now.
    pub fn has_repository(&self, id: &str, path: &Path) -> Result<bool, DiskError> {
        if !self.of_repository(id, "placed").exists() {
            return Ok(false);
        }
        if self.of_repository(id, "tree").exists() {
            self.put_repository(id, path)?;
        }
        Ok(true)
    }

    /// Takes a checkout over, and puts it into the workspace at `path` below it.
    ///
    /// # Errors
    /// The system's, or that something is there already.
    pub fn take_repository(&self, id: &str, checkout: &Path, path: &Path) -> Result<(), DiskError> {
        self.make_repositories()?;
        let tree = self.of_repository(id, "tree");
        let fail = || DiskError::at("take over", checkout);
        remove_all(&tree).and_then(|()| std::fs::rename(checkout, &tree)).map_err(fail())?;
        if host::is_root() {
            let owner = self.owner().map_err(fail())?;
            give_all(&tree, owner).map_err(fail())?;
        }
        let placed = self.of_repository(id, "placed");
        File::create(&placed).map_err(DiskError::at("make", &placed))?;
        self.put_repository(id, path)
    }

    fn put_repository(&self, id: &str, path: &Path) -> Result<(), DiskError> {
        let tree = self.of_repository(id, "tree");
        let put = self.put(&tree, path);
        if put.is_err() {
            // It is as if it had not been tried.
            let placed = self.of_repository(id, "placed");
            std::fs::remove_file(&placed).map_err(DiskError::at("remove", &placed))?;
            remove_all(&tree).map_err(DiskError::at("remove", &tree))?;
        }
        put.map_err(DiskError::at("put the repository at", &self.workspace().join(path)))
    }

    /// The session may be at work, and its links lead anywhere: none is followed. An empty directory gives way.
    fn put(&self, tree: &Path, path: &Path) -> io::Result<()> {
        let owner = self.owner()?;
        let mut directory = open_root(&self.workspace())?;
        let mut names: Vec<_> = path.iter().map(|name| CString::new(name.as_bytes())).collect();
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)??;
        for name in names {
            let name = name?;
            let made = match mkdirat(&directory, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
                Err(nix::Error::EEXIST) => false,
                made => made.map(|()| true)?,
            };
            directory = open_directory(&directory, &name)?;
            if made && host::is_root() {
                fchown(&directory, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
            }
        }
        Ok(renameat(open_root(Path::new("/"))?, tree, &directory, last.as_c_str())?)
    }
}

/// Gives a tree that nobody works in to a user, links themselves and not where they lead.
fn give_all(path: &Path, owner: u32) -> io::Result<()> {
    lchown(path, Some(owner), Some(owner))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_all(&entry?.path(), owner)?;
        }
    }
    Ok(())
}
