//! Makes a tree what it was. May be cut anywhere and begun again: every step brings it nearer to the same end.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::path::RelativePath;
use super::seal::{self, Sealed, Seals};
use super::tree::{self, Kind, Node, Stamp, Tree};
use super::{DiskError, holes};
use crate::sandbox::sys;

/// A name that no session has, for what is not in its place yet.
const BESIDE: &CStr = c".casemate-restore";

/// Makes the tree below `root` the target, whose contents are kept, and seals it so.
/// `steps` is asked before each change, and may end the work there.
pub(super) fn restore(
    seals: &mut Seals,
    root: &OwnedFd,
    shown: &Path,
    target: Tree,
    steps: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Sealed, DiskError> {
    let fail = DiskError::at("restore", shown);
    check_contents(seals, &target)?;
    let live = live(seals, root).map_err(&fail)?;
    let mut work = Work { root, seals, open: None, steps };
    work.remove(&live, &target).map_err(&fail)?;
    for (path, node) in &target {
        let there = live.get(path);
        if there != Some(node) {
            work.put(path, node, there).map_err(&fail)?;
        }
    }
    work.finish_directories(&target).map_err(&fail)?;
    let unsure = seal::unsure_from();
    let mut restored = target;
    restamp(&mut restored, root).map_err(&fail)?;
    seals.record_anew(restored, 0, unsure)
}

/// Refuses before anything is touched, if a content is not there whole.
fn check_contents(seals: &Seals, target: &Tree) -> Result<(), DiskError> {
    for (path, node) in target {
        if let Kind::File { object, stamp } = &node.kind {
            let size = std::fs::metadata(seals.object(object)).map(|facts| facts.len());
            if size.as_ref().ok() != Some(&stamp.size) {
                return Err(DiskError::Damaged { path: path.to_string(), object: object.clone() });
            }
        }
    }
    Ok(())
}

/// The tree as it is now; the content of a file that was touched since the last seal is unknown.
fn live(seals: &Seals, root: &OwnedFd) -> io::Result<Tree> {
    let known = seals.current();
    tree::walk(root, &mut |found| {
        let object = known.get(found.path).and_then(|node| match &node.kind {
            Kind::File { object, stamp } if *stamp == found.stamp => Some(object.clone()),
            _ => None,
        });
        Ok(object.unwrap_or_default())
    })
}

/// The stamps of the files that are there now.
fn restamp(restored: &mut Tree, root: &OwnedFd) -> io::Result<()> {
    let mut stamps: BTreeMap<RelativePath, Stamp> = BTreeMap::new();
    tree::walk(root, &mut |found| {
        stamps.insert(found.path.clone(), found.stamp);
        Ok(String::new())
    })?;
    for (path, node) in restored {
        if let (Kind::File { stamp, .. }, Some(now)) = (&mut node.kind, stamps.get(path)) {
            *stamp = *now;
        }
    }
    Ok(())
}

/// The restoring of one tree.
struct Work<'a> {
    root: &'a OwnedFd,
    seals: &'a Seals,
    /// The directory that was worked in last.
    open: Option<(Vec<u8>, OwnedFd)>,
    steps: &'a mut dyn FnMut() -> io::Result<()>,
}

impl Work<'_> {
    /// The directory that holds the entry, and its name there. Follows no link.
    fn place(&mut self, path: &RelativePath) -> io::Result<(OwnedFd, CString)> {
        let names: Vec<CString> =
            path.names().map(CString::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
        let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let key = parents.iter().flat_map(|name| name.to_bytes_with_nul()).copied().collect();
        if let Some((open, fd)) = &self.open
            && *open == key
        {
            return Ok((fd.try_clone()?, name.clone()));
        }
        let mut fd = self.root.try_clone()?;
        for parent in parents {
            fd = tree::open_directory(&fd, parent)?;
        }
        self.open = Some((key, fd.try_clone()?));
        Ok((fd, name.clone()))
    }

    /// Takes away what the target does not have, or has as something else; inner entries first.
    fn remove(&mut self, live: &Tree, target: &Tree) -> io::Result<()> {
        // A directory that its owner may not change could not be emptied.
        for (path, node) in live {
            if matches!(node.kind, Kind::Directory { .. }) && node.mode & 0o700 != 0o700 {
                let (parent, name) = self.place(path)?;
                tree::set_mode(&parent, &name, node.mode | 0o700)?;
            }
        }
        for (path, node) in live.iter().rev() {
            let stays = target.get(path).is_some_and(|wanted| alike(&wanted.kind, &node.kind));
            if stays {
                continue;
            }
            (self.steps)()?;
            let (parent, name) = self.place(path)?;
            if matches!(node.kind, Kind::Directory { .. }) {
                self.open = None;
                remove_directory(&parent, &name)?;
            } else {
                gone(unlinkat(&parent, &*name, UnlinkatFlags::NoRemoveDir))?;
            }
        }
        Ok(())
    }

    /// Puts an entry in its place.
    fn put(&mut self, path: &RelativePath, node: &Node, there: Option<&Node>) -> io::Result<()> {
        (self.steps)()?;
        let (parent, name) = self.place(path)?;
        match &node.kind {
            Kind::Directory { opaque } => {
                if there.is_none() {
                    // A pipe or a socket, which is no part of a tree, may be in the way.
                    gone(
                        unlinkat(&parent, &*name, UnlinkatFlags::NoRemoveDir)
                            .or_else(was_directory),
                    )?;
                }
                match mkdirat(&parent, &*name, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                let inner = tree::open_directory(&parent, &name)?;
                sys::set_opaque(inner.as_fd(), *opaque)
            }
            Kind::File { object, .. } => {
                let same = there.is_some_and(|there| there.kind == node.kind);
                if same {
                    return finish(&parent, &name, node);
                }
                self.write(&parent, object)?;
                finish(&parent, BESIDE, node)?;
                Ok(renameat(&parent, BESIDE, &parent, &*name)?)
            }
            Kind::Link { target } => {
                gone(unlinkat(&parent, BESIDE, UnlinkatFlags::NoRemoveDir))?;
                symlinkat(&*tree::link_text(target), &parent, BESIDE)?;
                finish(&parent, BESIDE, node)?;
                Ok(renameat(&parent, BESIDE, &parent, &*name)?)
            }
            Kind::Whiteout => {
                gone(unlinkat(&parent, &*name, UnlinkatFlags::NoRemoveDir))?;
                mknodat(&parent, &*name, SFlag::S_IFCHR, Mode::empty(), 0)?;
                finish(&parent, &name, node)
            }
        }
    }

    fn write(&self, parent: &OwnedFd, object: &str) -> io::Result<()> {
        gone(unlinkat(parent, BESIDE, UnlinkatFlags::NoRemoveDir))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut to = File::from(openat(parent, BESIDE, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let mut from = File::open(self.seals.object(object))?;
        holes::copy(&mut from, &mut to).map(drop)
    }

    /// Modes and times of directories come last, inner ones first: work within changes them.
    fn finish_directories(&mut self, target: &Tree) -> io::Result<()> {
        for (path, node) in target.iter().rev() {
            if matches!(node.kind, Kind::Directory { .. }) {
                let (parent, name) = self.place(path)?;
                finish(&parent, &name, node)?;
            }
        }
        Ok(())
    }
}

/// Whether one can become the other in its place.
fn alike(a: &Kind, b: &Kind) -> bool {
    match (a, b) {
        (Kind::Directory { .. }, Kind::Directory { .. })
        | (Kind::File { .. }, Kind::File { .. })
        | (Kind::Whiteout, Kind::Whiteout) => true,
        (Kind::Link { target: a }, Kind::Link { target: b }) => a == b,
        _ => false,
    }
}

/// Owner, mode and time, as they were.
fn finish(parent: &OwnedFd, name: &CStr, node: &Node) -> io::Result<()> {
    let facts = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if (facts.st_uid, facts.st_gid) != node.owner {
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        match fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Only root gives files away; an ordinary user's session has only files of that user.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if !matches!(node.kind, Kind::Link { .. }) {
        tree::set_mode(parent, name, node.mode)?;
    }
    let at = TimeSpec::new(
        node.modified.div_euclid(1_000_000_000),
        node.modified.rem_euclid(1_000_000_000),
    );
    Ok(utimensat(parent, name, &TimeSpec::UTIME_OMIT, &at, UtimensatFlags::NoFollowSymlink)?)
}

/// Removes a directory; what is still in it is no part of a tree: pipes, sockets, devices.
fn remove_directory(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    let inner = match tree::open_directory(parent, name) {
        Ok(inner) => inner,
        Err(Errno::ENOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for left in tree::names(&inner)? {
        gone(unlinkat(&inner, &*left, UnlinkatFlags::NoRemoveDir))?;
    }
    gone(unlinkat(parent, name, UnlinkatFlags::RemoveDir))
}

/// What unlinking a directory says, as root and as a user, on one file system and another.
fn was_directory(error: Errno) -> nix::Result<()> {
    if matches!(error, Errno::EISDIR | Errno::EPERM) { Ok(()) } else { Err(error) }
}

fn gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Opens the directory whose tree is meant.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path, flags, Mode::empty())?)
}

/// Removes a tree that nobody works in any more, directories included that their owner may not look into.
pub(in crate::sandbox) fn remove_all(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let mut closed = vec![path.to_owned()];
            while let Some(dir) = closed.pop() {
                std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
                for entry in std::fs::read_dir(&dir)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        closed.push(entry.path());
                    }
                }
            }
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}
