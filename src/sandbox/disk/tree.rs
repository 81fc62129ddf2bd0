//! A directory tree as a value: what is at each path. Made by a walk that follows no link and opens nothing that waits.
//!
//! The tree belongs to the session, so every step is a stranger's: names are resolved one at a time below an open
//! directory, never as a path.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat};
use serde::{Deserialize, Serialize};

use super::path::RelativePath;
use crate::limits::{DISK_DEPTH, DISK_ENTRIES};
use crate::sandbox::sys;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Permission bits, with the sticky bit.
    pub(super) mode: u32,
    /// Owner and group on disk.
    pub(super) owner: (u32, u32),
    /// When its content changed last, in nanoseconds since the epoch.
    pub(super) modified: i64,
    /// Of a file in a layer or a copy: the content that the user's file had when the session's began to differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<String>,
}

/// What kind of thing it is. Pipes, sockets and devices are no part of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A directory; an opaque one hides what lies below it in a layer.
    Directory { opaque: bool },
    /// A regular file, and where its content is kept.
    File { object: String, stamp: Stamp },
    /// A symbolic link and its text, in which bytes over 127 are escaped like those of a path.
    Link { target: RelativePath },
    /// Marks a removed entry in an overlay's upper layer.
    Whiteout,
}

/// Tells a file that nobody touched from one that somebody may have: the kernel alone sets the change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) changed: i64,
}

impl Stamp {
    pub(super) fn of(facts: &FileStat) -> Self {
        Self {
            device: facts.st_dev,
            inode: facts.st_ino,
            size: u64::try_from(facts.st_size).unwrap_or(0),
            changed: facts.st_ctime * 1_000_000_000 + facts.st_ctime_nsec,
        }
    }
}

/// As the name of a content that sessions share: a file that looks so has this content, and always will.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, inode, size, changed } = self;
        write!(f, "{device:x}-{inode:x}-{size:x}-{changed:x}")
    }
}

/// All nodes below a root, which has no entry of its own.
pub(super) type Tree = BTreeMap<RelativePath, Node>;

/// A regular file that the walk has found.
pub(super) struct Found<'a> {
    pub(super) path: &'a RelativePath,
    pub(super) parent: &'a OwnedFd,
    pub(super) name: &'a CStr,
    pub(super) stamp: Stamp,
}

/// Walks the tree below `root`; `content` says where a file's content is kept.
pub(super) fn walk(
    root: &OwnedFd,
    content: &mut dyn FnMut(&Found<'_>) -> io::Result<String>,
) -> io::Result<Tree> {
    let mut tree = Tree::new();
    directory(root, &RelativePath::default(), 0, &mut tree, content)?;
    Ok(tree)
}

fn directory(
    fd: &OwnedFd,
    at: &RelativePath,
    depth: usize,
    tree: &mut Tree,
    content: &mut dyn FnMut(&Found<'_>) -> io::Result<String>,
) -> io::Result<()> {
    if depth > DISK_DEPTH {
        let text = format!("`{at}` lies more than {DISK_DEPTH} directories deep");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    for name in names(fd)? {
        let path = at.join(&name);
        // Whatever vanishes under our eyes was removed.
        let Some(facts) = gone(fstatat(fd, &*name, AtFlags::AT_SYMLINK_NOFOLLOW))? else {
            continue;
        };
        let unread = |e| unread(&path, e);
        let found = kind(fd, &name, &path, &facts, content).map_err(unread)?;
        let Some(kind) = found else { continue };
        if matches!(kind, Kind::Directory { .. }) {
            let opened = gone(open_closed_directory(fd, &name, &facts)).map_err(unread)?;
            let Some(inner) = opened else { continue };
            let opaque = sys::is_opaque(inner.as_fd())?;
            tree.insert(path.clone(), node(Kind::Directory { opaque }, &facts));
            let walked = directory(&inner, &path, depth + 1, tree, content);
            if is_closed(&facts) {
                set_mode(fd, &name, facts.st_mode)?;
            }
            walked?;
        } else {
            tree.insert(path, node(kind, &facts));
        }
        if tree.len() > DISK_ENTRIES {
            let text = format!("there are more than {DISK_ENTRIES} files");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    Ok(())
}

/// Names what may not be read, as a file of another user's: nobody finds it in a large tree otherwise.
fn unread(path: &RelativePath, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!("{path:?} cannot be read: {error}; make it readable, or remove it");
    io::Error::new(error.kind(), text)
}

fn kind(
    parent: &OwnedFd,
    name: &CStr,
    path: &RelativePath,
    facts: &FileStat,
    content: &mut dyn FnMut(&Found<'_>) -> io::Result<String>,
) -> io::Result<Option<Kind>> {
    Ok(match SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Some(Kind::Directory { opaque: false }),
        SFlag::S_IFLNK => match readlinkat(parent, name) {
            Ok(target) => Some(Kind::Link { target: RelativePath::of_bytes(target.into_vec()) }),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e.into()),
        },
        SFlag::S_IFREG => {
            let stamp = Stamp::of(facts);
            match content(&Found { path, parent, name, stamp }) {
                Ok(object) => Some(Kind::File { object, stamp }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            }
        }
        SFlag::S_IFCHR if facts.st_rdev == 0 => Some(Kind::Whiteout),
        _ => None,
    })
}

fn node(kind: Kind, facts: &FileStat) -> Node {
    Node {
        kind,
        mode: facts.st_mode & 0o1777,
        owner: (facts.st_uid, facts.st_gid),
        modified: facts.st_mtime * 1_000_000_000 + facts.st_mtime_nsec,
        base: None,
    }
}

fn gone<T>(result: nix::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens a directory of a directory, and nothing else.
pub(super) fn open_directory(parent: impl AsFd, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The directory that holds the entry, and its name there; nothing, if a link or a file is on the way.
pub(super) fn find(root: &OwnedFd, path: &RelativePath) -> io::Result<Option<(OwnedFd, CString)>> {
    let names: Vec<CString> =
        path.names().map(CString::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let Some((name, parents)) = names.split_last() else { return Ok(None) };
    let mut fd = root.try_clone()?;
    for parent in parents {
        match gone(open_directory(&fd, parent))? {
            Some(inner) => fd = inner,
            None => return Ok(None),
        }
    }
    Ok(Some((fd, name.clone())))
}

/// Whether its own owner may not look into the directory.
fn is_closed(facts: &FileStat) -> bool {
    facts.st_mode & 0o500 != 0o500
}

/// Opens a directory that its owner may not look into by letting him for the moment; the caller closes it again.
fn open_closed_directory(parent: &OwnedFd, name: &CStr, facts: &FileStat) -> nix::Result<OwnedFd> {
    if is_closed(facts) {
        set_mode(parent, name, facts.st_mode | 0o500)?;
    }
    open_directory(parent, name)
}

/// Sets the permission bits. `name` is no link: the kernel cannot change those of a link.
pub(super) fn set_mode(parent: &OwnedFd, name: &CStr, mode: u32) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(mode & 0o7777);
    fchmodat(parent, name, mode, FchmodatFlags::NoFollowSymlink)
}

/// The names in a directory, in order.
pub(super) fn names(fd: &OwnedFd) -> io::Result<Vec<CString>> {
    // A copy of its own position: the caller's descriptor may be read again.
    let own =
        openat(fd, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The text of a link, as the kernel takes it.
pub(super) fn link_text(target: &RelativePath) -> OsString {
    OsString::from_vec(target.bytes().to_vec())
}

const _: () = assert!(size_of::<libc::ino_t>() == 8, "stamps hold whole inode numbers");
