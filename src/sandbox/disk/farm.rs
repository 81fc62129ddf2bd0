//! Makes a sealed tree out of links to its contents: as many files as it has, and no copy. Nobody ever writes to it; the
//! layers of forks lie over it.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::holes;
use super::path::RelativePath;
use super::seal::Seals;
use super::tree::{self, Kind, Node, Tree};
use crate::sandbox::sys;

/// Makes the tree in an empty directory, which is the caller's alone: no name in it is a stranger's yet.
pub(super) fn build(seals: &Seals, tree: &Tree, at: &Path) -> io::Result<()> {
    for (path, node) in tree {
        let spot = spot(at, path);
        match &node.kind {
            Kind::Directory { .. } => DirBuilder::new().mode(0o700).create(&spot)?,
            Kind::File { object, .. } => file(&seals.object(object), &spot, node)?,
            Kind::Link { target } => symlink(tree::link_text(target), &spot)?,
            Kind::Whiteout => {}
        }
    }
    // Inner ones first, for work within changes the time, and the mode may forbid it.
    for (path, node) in tree.iter().rev() {
        if matches!(node.kind, Kind::Directory { .. }) {
            finish(&File::open(spot(at, path))?, node)?;
        }
    }
    Ok(())
}

fn spot(at: &Path, path: &RelativePath) -> PathBuf {
    at.join(OsStr::from_bytes(path.bytes()))
}

/// A link to the content if it looks as the file did; a file whose mode or time changed alone is copied.
fn file(content: &Path, spot: &Path, node: &Node) -> io::Result<()> {
    let facts = content.symlink_metadata()?;
    let modified = facts.mtime() * 1_000_000_000 + facts.mtime_nsec();
    if (facts.mode() & 0o7777, modified) == (node.mode, node.modified)
        // A content may have as many names as the file system gives.
        && std::fs::hard_link(content, spot).is_ok()
    {
        return Ok(());
    }
    let (mut from, mut to) = (File::open(content)?, File::create_new(spot)?);
    if sys::share_blocks(&from, &to).is_err() {
        holes::copy(&mut from, &mut to)?;
    }
    finish(&to, node)
}

fn finish(file: &File, node: &Node) -> io::Result<()> {
    let since = Duration::from_nanos(node.modified.unsigned_abs());
    let modified = if node.modified < 0 {
        SystemTime::UNIX_EPOCH - since
    } else {
        SystemTime::UNIX_EPOCH + since
    };
    file.set_times(FileTimes::new().set_modified(modified))?;
    file.set_permissions(Permissions::from_mode(node.mode))
}
