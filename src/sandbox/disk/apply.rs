//! Puts one entry of a tree into another, path by path: all of it or nothing, and no link is followed on the way.

use std::collections::hash_map::RandomState;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, symlinkat, unlinkat};

use super::diff::{Entry, What};
use super::path::RelativePath;
use super::{holes, tree};
use crate::sandbox::sys;

/// A name that nobody has or can foresee, for what is not in its place yet: the user or a session may have files of
/// any other.
fn spot() -> CString {
    let random = RandomState::new().build_hasher().finish();
    CString::new(format!(".casemate-apply-{random:016x}")).expect("digits are not NUL")
}

/// A tree that entries are put into.
pub(super) struct Ground<'a> {
    pub(super) root: &'a OwnedFd,
    /// Who owns what is put there, where root does it.
    pub(super) owner: (u32, u32),
    /// It is an upper layer: a directory that takes the place of a whiteout hides what is below.
    pub(super) layer: bool,
}

/// What a file is filled with.
pub(super) enum Content<'a> {
    /// What another one holds.
    Of(&'a mut dyn FnMut() -> io::Result<File>),
    /// A text.
    Text(&'a str),
}

impl Ground<'_> {
    /// Makes the path that entry. Its parents are made if they are missing.
    pub(super) fn put(
        &self,
        path: &RelativePath,
        entry: &Entry,
        content: Content<'_>,
    ) -> io::Result<()> {
        self.make_parents(path)?;
        let (parent, name) = tree::find(self.root, path)?.ok_or(io::ErrorKind::NotADirectory)?;
        let file_mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match &entry.what {
            What::Directory => self.directory(&parent, &name)?,
            What::File(_) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let spot = spot();
                let mut to = File::from(openat(&parent, &*spot, flags, file_mode)?);
                let fill = || -> io::Result<()> {
                    match content {
                        Content::Of(open) => holes::copy(&mut open()?, &mut to).map(drop)?,
                        Content::Text(text) => to.write_all(text.as_bytes())?,
                    }
                    tree::set_mode(&parent, &spot, entry.mode)?;
                    to.sync_data()
                };
                let filled = fill();
                self.replace(&parent, &spot, &name, filled)?;
            }
            What::Link(target) => {
                let spot = spot();
                symlinkat(&*tree::link_text(target), &parent, &*spot)?;
                self.replace(&parent, &spot, &name, Ok(()))?;
            }
            What::Other => return Ok(()),
        }
        if entry.what == What::Directory {
            tree::set_mode(&parent, &name, entry.mode)?;
        }
        Ok(())
    }

    /// Whether what lies below a layer is seen at the path once the layer has nothing there.
    pub(super) fn shows_through(&self, path: &RelativePath) -> io::Result<bool> {
        let names: Vec<_> = path.names().collect();
        for depth in 1..names.len() {
            let parent = RelativePath::of_bytes(names[..depth].join(&b'/'));
            let Some((above, name)) = tree::find(self.root, &parent)? else { return Ok(false) };
            match tree::open_directory(&above, &name) {
                Ok(directory) if sys::is_opaque(directory.as_fd())? => return Ok(false),
                Ok(_) => {}
                // The layer has nothing there: nothing is hidden.
                Err(Errno::ENOENT) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Removes what is at the path. A directory that is not empty stays: what is in it was not named.
    pub(super) fn remove(&self, path: &RelativePath) -> io::Result<bool> {
        let Some((parent, name)) = tree::find(self.root, path)? else { return Ok(true) };
        match unlinkat(&parent, &*name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(true),
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(e) => return Err(e.into()),
        }
        match unlinkat(&parent, &*name, UnlinkatFlags::RemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOTEMPTY) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn make_parents(&self, path: &RelativePath) -> io::Result<()> {
        let names: Vec<_> = path.names().collect();
        for depth in 1..names.len() {
            let parent = RelativePath::of_bytes(names[..depth].join(&b'/'));
            let (above, name) =
                tree::find(self.root, &parent)?.ok_or(io::ErrorKind::NotADirectory)?;
            let there = fstatat(&above, &*name, AtFlags::AT_SYMLINK_NOFOLLOW);
            let kind = there.map(|facts| SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT);
            match kind {
                Ok(SFlag::S_IFDIR) => {}
                Ok(SFlag::S_IFCHR) if self.layer => self.directory(&above, &name)?,
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(Errno::ENOENT) => self.directory(&above, &name)?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// A directory, in the place of whatever else is there.
    fn directory(&self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let was_there = match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => true,
            Err(Errno::ENOENT | Errno::EISDIR | Errno::EPERM) => false,
            Err(e) => return Err(e.into()),
        };
        match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => self.own(parent, name)?,
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
        if self.layer && was_there {
            sys::set_opaque(tree::open_directory(parent, name)?.as_fd(), true)?;
        }
        Ok(())
    }

    fn own(&self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        Ok(fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Moves what was made beside into its place; an empty directory gives way. What failed leaves nothing beside.
    fn replace(
        &self,
        parent: &OwnedFd,
        spot: &CStr,
        name: &CStr,
        made: io::Result<()>,
    ) -> io::Result<()> {
        let moved = made.and_then(|()| self.own(parent, spot)).and_then(|()| {
            Ok(match renameat(parent, spot, parent, name) {
                Err(Errno::EISDIR) => unlinkat(parent, name, UnlinkatFlags::RemoveDir)
                    .and_then(|()| renameat(parent, spot, parent, name)),
                other => other,
            }?)
        });
        if moved.is_err() {
            gone(unlinkat(parent, spot, UnlinkatFlags::NoRemoveDir))?;
        }
        moved
    }
}

fn gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
