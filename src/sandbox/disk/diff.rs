//! What a session changed of its workspace: its own version beside the user's, path by path.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use std::os::unix::ffi::OsStringExt as _;

use super::path::RelativePath;
use super::seal::{Seals, same_bytes};
use super::tree::{self, Kind, Node, Stamp, Tree};
use crate::limits::DIFF_FILE_BYTES;

/// What is at a path on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) mode: u32,
    /// When its content changed last.
    pub(super) modified: i64,
    /// When it changed last, by the kernel's clock.
    pub(super) changed: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    /// With its size.
    File(u64),
    Link(RelativePath),
    /// A pipe, a socket, a device: never touched.
    Other,
}

/// Where the files of one side are.
pub(super) enum Side<'a> {
    /// In a directory, as they are now.
    Live(&'a OwnedFd),
    /// In seals, as they were.
    Sealed(&'a Seals, &'a Tree),
    /// In the seals of a layer over a directory.
    Layer(&'a Seals, &'a Tree, &'a OwnedFd),
}

impl Side<'_> {
    /// What is at the path; a link on the way to it hides it.
    pub(super) fn look(&self, path: &RelativePath) -> io::Result<Option<Entry>> {
        match self {
            Self::Live(root) => {
                let Some((parent, name)) = tree::find(root, path)? else { return Ok(None) };
                let facts = match fstatat(&parent, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Ok(facts) => facts,
                    Err(Errno::ENOENT) => return Ok(None),
                    Err(e) => return Err(e.into()),
                };
                let stamp = Stamp::of(&facts);
                let what = match SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFDIR => What::Directory,
                    SFlag::S_IFREG => What::File(stamp.size),
                    SFlag::S_IFLNK => {
                        let target = readlinkat(&parent, &*name)?.into_vec();
                        What::Link(RelativePath::of_bytes(target))
                    }
                    _ => What::Other,
                };
                let modified = facts.st_mtime * 1_000_000_000 + facts.st_mtime_nsec;
                let mode = facts.st_mode & 0o1777;
                Ok(Some(Entry { what, mode, modified, changed: stamp.changed }))
            }
            Self::Sealed(_, tree) => Ok(tree.get(path).and_then(entry)),
            Self::Layer(_, layer, below) => match layer.get(path) {
                Some(node) => Ok(entry(node)),
                None if is_hidden(layer, path) => Ok(None),
                None => Side::Live(below).look(path),
            },
        }
    }

    /// The content of the regular file at the path.
    pub(super) fn open(&self, path: &RelativePath) -> io::Result<File> {
        let file = match self {
            Self::Live(root) => {
                let (parent, name) = tree::find(root, path)?.ok_or(io::ErrorKind::NotFound)?;
                let flags =
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                File::from(openat(&parent, &*name, flags, Mode::empty())?)
            }
            Self::Layer(_, layer, below) if !layer.contains_key(path) => {
                return Side::Live(below).open(path);
            }
            Self::Sealed(seals, tree) | Self::Layer(seals, tree, _) => {
                match tree.get(path).map(|node| &node.kind) {
                    Some(Kind::File { object, .. }) => File::open(seals.object(object))?,
                    _ => return Err(io::ErrorKind::NotFound.into()),
                }
            }
        };
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// The text of the file, if it is one that can be shown.
    pub(super) fn text(&self, path: &RelativePath) -> io::Result<Option<String>> {
        text_of(self.open(path)?)
    }
}

/// The text of a file, if it is one that can be shown.
pub(super) fn text_of(file: File) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    file.take(DIFF_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= DIFF_FILE_BYTES && !bytes.contains(&0);
    Ok(if fits { String::from_utf8(bytes).ok() } else { None })
}

/// Whether a layer hides what lies below it at a path that it does not have.
fn is_hidden(layer: &Tree, path: &RelativePath) -> bool {
    path.parents().any(|parent| {
        let above = layer.get(&parent);
        above.is_some_and(|node| !matches!(node.kind, Kind::Directory { opaque: false }))
    })
}

/// A sealed node as an entry; a whiteout is nothing.
fn entry(node: &Node) -> Option<Entry> {
    let (what, changed) = match &node.kind {
        Kind::Directory { .. } => (What::Directory, 0),
        Kind::File { stamp, .. } => (What::File(stamp.size), stamp.changed),
        Kind::Link { target } => (What::Link(target.clone()), 0),
        Kind::Whiteout => return None,
    };
    Some(Entry { what, mode: node.mode, modified: node.modified, changed })
}

/// Whether both sides have the same at a path, whatever the times.
pub(super) fn same(a: &Side<'_>, b: &Side<'_>, path: &RelativePath) -> io::Result<bool> {
    let (left, right) = (a.look(path)?, b.look(path)?);
    let (Some(left), Some(right)) = (&left, &right) else { return Ok(left == right) };
    match (&left.what, &right.what) {
        (What::Link(a), What::Link(b)) => Ok(a == b),
        (What::File(size), What::File(other)) if size == other && left.mode == right.mode => {
            same_bytes(a.open(path)?, b.open(path)?)
        }
        (What::Directory, What::Directory) => Ok(left.mode == right.mode),
        (What::Other, _) | (_, What::Other) => Ok(true),
        _ => Ok(false),
    }
}

/// The paths at which two trees of one session differ.
pub(super) fn between(old: &Tree, new: &Tree) -> BTreeSet<RelativePath> {
    let all = old.keys().chain(new.keys());
    let differs = |path: &&RelativePath| match (old.get(*path), new.get(*path)) {
        (Some(a), Some(b)) => {
            a.mode != b.mode
                || match (&a.kind, &b.kind) {
                    (Kind::File { object: a, .. }, Kind::File { object: b, .. }) => a != b,
                    (a, b) => a != b,
                }
        }
        _ => true,
    };
    all.filter(differs).cloned().collect()
}

/// The paths that an upper layer changes, those that it hides included.
pub(super) fn layered(upper: &Tree, below: &OwnedFd) -> io::Result<BTreeSet<RelativePath>> {
    let mut paths: BTreeSet<_> = upper.keys().cloned().collect();
    for (path, node) in upper {
        let hides = !matches!(node.kind, Kind::Directory { opaque: false });
        let Some((parent, name)) = tree::find(below, path)?.filter(|_| hides) else { continue };
        let Ok(directory) = tree::open_directory(&parent, &name) else { continue };
        let hidden = tree::walk(&directory, &mut |_| Ok(String::new()))?;
        paths.extend(hidden.into_keys().map(|inner| path.below(&inner)));
    }
    Ok(paths)
}
