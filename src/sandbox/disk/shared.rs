//! What is sealed of all sessions' disks: each content lies there once, whoever needs it.
//!
//! ```text
//! sealed/
//!   disks/NAME/of               where the disk comes from; whoever needs these seals holds a hard link of it
//!   disks/NAME/below            such a link: of the disk that it was forked from
//!   disks/NAME/home  work       its seals
//!   disks/NAME/trees/000012/    what the workspace was at a seal, made of links to its contents; forks lie over it
//!   contents/STAMP              contents of users' own files, for every session that seals the same file
//!   unswept                     something was removed, and what nobody needs any more may still be there
//! ```
//!
//! The count of links is the count of those who need it, so no crash can make it wrong.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::seal::{Lineage, SealNumber, Seals};
use super::tree::Tree;
use super::{DiskError, Place, farm, restore};

/// Where a disk comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// The disk that it was forked from, if it was.
    pub(super) below: Option<Below>,
    /// The tree that its layer lies over, if that is a sealed one.
    pub(super) base: Option<Base>,
}

/// The seals of another disk that are this one's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Below {
    pub(super) name: String,
    pub(super) home: SealNumber,
    pub(super) work: SealNumber,
}

/// A workspace at one of its seals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Base {
    pub(super) name: String,
    pub(super) seal: SealNumber,
    /// The last seal of a whole tree; those after it are of the layer.
    pub(super) last: SealNumber,
}

impl Origin {
    /// What a holding link says; of a disk that is not made yet, nothing.
    pub(super) fn read(hold: &Path) -> Result<Self, DiskError> {
        let fail = DiskError::at("read", hold);
        match std::fs::read(hold) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| fail(e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(fail(e)),
        }
    }
}

/// Which tree of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Home,
    Work,
}

/// The directory of all that is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared(PathBuf);

impl Shared {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("sealed"))
    }

    fn disks(&self) -> PathBuf {
        self.0.join("disks")
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.disks().join(name)
    }

    fn contents(&self) -> PathBuf {
        self.0.join("contents")
    }

    fn unswept(&self) -> PathBuf {
        self.0.join("unswept")
    }

    /// Where the tree of a disk at a seal of its workspace is, once it was made.
    pub(super) fn tree(&self, name: &str, seal: SealNumber) -> PathBuf {
        self.disk(name).join("trees").join(format!("{seal:06}"))
    }

    /// Nothing is swept while somebody joins.
    fn lock(&self, kind: FlockArg) -> Result<Flock<File>, DiskError> {
        let fail = DiskError::at("lock", &self.0);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(&fail)?;
        let file = File::create(self.0.join("lock")).map_err(&fail)?;
        Flock::lock(file, kind).map_err(|(_, e)| fail(e.into()))
    }

    /// Makes the directory for what is sealed of a disk, and holds those that it builds on.
    pub(super) fn join(&self, place: &Place) -> Result<(), DiskError> {
        let own = self.disk(place.name());
        if own.join("of").exists() {
            return Ok(());
        }
        let _lock = self.lock(FlockArg::LockShared)?;
        let fail = DiskError::at("make the session's disk", &own);
        for dir in [&own, &self.contents()] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(&fail)?;
        }
        if let Some(below) = place.origin()?.below {
            let theirs = self.disk(&below.name).join("of");
            link(&theirs, &own.join("below")).map_err(DiskError::at("share the seals", &theirs))?;
        }
        link(&place.hold(), &own.join("of")).map_err(fail)
    }

    /// Where the seals of a disk lie, those that it began with included.
    pub(super) fn lineage(&self, place: &Place, which: Which) -> Result<Lineage, DiskError> {
        let part = match which {
            Which::Home => "home",
            Which::Work => "work",
        };
        let origin = place.origin()?;
        let whole = origin.base.as_ref().filter(|_| which == Which::Work).map_or(0, |b| b.last);
        let mut before = Vec::new();
        let mut next = origin.below;
        while let Some(below) = next {
            let last = match which {
                Which::Home => below.home,
                Which::Work => below.work,
            };
            let dir = self.disk(&below.name);
            before.push((last, dir.join(part)));
            next = Origin::read(&dir.join("of"))?.below;
        }
        before.reverse();
        let own = self.disk(place.name()).join(part);
        Ok(Lineage { before, own, whole, contents: None })
    }

    /// Where the contents of users' own files are.
    pub(super) fn users_contents(&self) -> PathBuf {
        self.contents()
    }

    /// Makes a sealed tree, unless somebody did.
    pub(super) fn build(&self, base: &Base, seals: &Seals, tree: &Tree) -> Result<(), DiskError> {
        let at = self.tree(&base.name, base.seal);
        let _lock = self.lock(FlockArg::LockExclusive)?;
        if at.exists() {
            return Ok(());
        }
        let fresh = at.with_extension("new");
        let fail = DiskError::at("make a sealed tree", &at);
        restore::remove_all(&fresh).map_err(&fail)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&fresh).map_err(&fail)?;
        farm::build(seals, tree, &fresh).map_err(&fail)?;
        std::fs::rename(&fresh, &at).map_err(fail)
    }

    /// Says that something is about to be removed.
    pub(super) fn mark(&self) -> Result<(), DiskError> {
        let path = self.unswept();
        if !self.0.exists() {
            return Ok(());
        }
        File::create(&path).map(drop).map_err(DiskError::at("write", &path))
    }

    /// Removes what nobody holds any more, if something was removed since the last time.
    pub(super) fn sweep(&self) -> Result<(), DiskError> {
        if !self.unswept().exists() {
            return Ok(());
        }
        let _lock = self.lock(FlockArg::LockExclusive)?;
        let sweep = || -> io::Result<()> {
            // Who goes may have been the last to hold another.
            while self.sweep_disks()? > 0 {}
            self.sweep_trees()?;
            for content in entries(&self.contents())? {
                if content.symlink_metadata()?.nlink() == 1 {
                    std::fs::remove_file(content)?;
                }
            }
            std::fs::remove_file(self.unswept())
        };
        sweep().map_err(DiskError::at("sweep", &self.0))
    }

    fn sweep_disks(&self) -> io::Result<usize> {
        let mut removed = 0;
        for disk in entries(&self.disks())? {
            let held = match disk.join("of").symlink_metadata() {
                Ok(facts) => facts.nlink() > 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(e),
            };
            if !held {
                restore::remove_all(&disk)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Trees that no fork lies over any more.
    fn sweep_trees(&self) -> io::Result<()> {
        let mut used = Vec::new();
        for disk in entries(&self.disks())? {
            let origin = Origin::read(&disk.join("of")).map_err(io::Error::other)?;
            used.extend(origin.base.map(|base| self.tree(&base.name, base.seal)));
        }
        for disk in entries(&self.disks())? {
            for tree in entries(&disk.join("trees"))? {
                if !used.contains(&tree) {
                    restore::remove_all(&tree)?;
                }
            }
        }
        Ok(())
    }
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// What is in a directory; one that is not there is empty.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
