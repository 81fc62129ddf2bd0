//! A session's own disk: its trees, sealed after each call that may have changed them, restored on a rewind.
//!
//! Owns: trees as values (`tree`), seals (`seal`), how a tree becomes what it was (`restore`).
//! Does not: mount anything, know events or sessions.
//! Invariants: a seal never changes; a restore that was cut is begun again and ends the same; no name of the session's is
//! ever followed out of its tree.

mod apply;
mod changes;
mod diff;
mod merge;
mod path;
mod place;
mod restore;
mod seal;
mod session;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use changes::{Change, ChangeKind, Choice, Outcome};
pub use place::Place;
pub(super) use restore::remove_all;
pub use seal::{SealNumber, Sealed};
pub use session::{Disk, DiskSeal, SealReport};

use crate::limits::{SEAL_DIRECT_BYTES, SEAL_DIRECT_FILES};
use seal::{Bound, Seals};

/// Why a disk could not do what it was asked to. Fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system refused.
    #[error("{what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such seal.
    #[error("find seal {number}: the last one is {last}")]
    NoSeal {
        /// What was asked for.
        number: SealNumber,
        /// The newest.
        last: SealNumber,
    },
    /// A tree that is not the session's own, and whose sealing would cost more than it is worth.
    #[error(
        "seal {}: it has more than {} files, or more than {} of content that the file system cannot share; \
         --workspace-mode overlay keeps the changes of a session apart, and seals these alone",
        .path.display(), SEAL_DIRECT_FILES, crate::sandbox::size(SEAL_DIRECT_BYTES)
    )]
    TooLarge {
        /// The tree.
        path: PathBuf,
    },
    /// Paths that both the user and the session changed.
    #[error(
        "apply: you changed these meanwhile, and so did the session: {}; --ours takes the session's version, --theirs \
         keeps yours, and the other paths can be named one by one", list(.paths)
    )]
    Conflicts {
        /// Which.
        paths: Vec<PathBuf>,
    },
    /// The session works on the user's own files.
    #[error("find anything to apply or discard: the session works on your own files")]
    Direct,
    /// A path at which nothing differs.
    #[error("find a change at {path}")]
    NoChange {
        /// As given.
        path: PathBuf,
    },
    /// A content is missing or cut, by a crash of the machine or by somebody's hand. Nothing was changed.
    #[error("restore `{path}`: its content {object} is not whole")]
    Damaged {
        /// The file.
        path: String,
        /// Where its content should be.
        object: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl DiskError {
    fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path: path.clone(), source }
    }
}

/// One tree and its seals.
pub struct SealedTree {
    root: PathBuf,
    seals: Seals,
    bound: Bound,
    /// Whose everything in it is, if that is one user's.
    owner: Option<u32>,
}

impl SealedTree {
    /// The tree below `root`, with its seals in `seals`, which lies outside of it.
    ///
    /// # Errors
    /// If the seals cannot be read.
    pub fn open(root: &Path, seals: &Path) -> Result<Self, DiskError> {
        Ok(Self {
            root: root.to_owned(),
            seals: Seals::open(seals)?,
            bound: Bound::NONE,
            owner: None,
        })
    }

    /// The same, of a tree that is the session's own: whatever the seals say, it belongs to its user.
    #[must_use]
    fn owned_by(self, owner: u32) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The same, of a tree that is not the session's own: it is sealed as long as that is cheap.
    #[must_use]
    fn bounded(self) -> Self {
        let bound = Bound { bytes: SEAL_DIRECT_BYTES, files: SEAL_DIRECT_FILES };
        Self { bound, ..self }
    }

    /// The newest seal.
    #[must_use]
    pub fn head(&self) -> SealNumber {
        self.seals.head()
    }

    /// Seals the tree as it is. Costs a look at every entry, and a copy of what changed.
    ///
    /// # Errors
    /// The system's: a full disk, a tree beyond its bounds. No seal is made then.
    pub fn seal(&mut self) -> Result<Sealed, DiskError> {
        let root = restore::open_root(&self.root).map_err(DiskError::at("seal", &self.root))?;
        self.seals.seal(&root, &self.root, self.bound)
    }

    /// Makes the tree a copy of the one below `source`, and seals it so.
    ///
    /// # Errors
    /// The system's.
    fn adopt(&mut self, source: &Path) -> Result<Sealed, DiskError> {
        let fail = DiskError::at("copy", source);
        let from = restore::open_root(source).map_err(&fail)?;
        let (target, _) = self.seals.keep(&from, source, Bound::NONE)?;
        self.become_tree(target)
    }

    /// Makes the tree what another one was at a seal; shares the other's seals up to `last`.
    ///
    /// # Errors
    /// As [`Self::restore`].
    fn branch_off(
        &mut self,
        seals: &Path,
        last: SealNumber,
        number: SealNumber,
    ) -> Result<Sealed, DiskError> {
        self.seals.link_from(seals, last)?;
        self.seals = self.seals.reopen()?;
        self.restore(number)
    }

    /// Makes the tree what it was at a seal, and seals it so.
    ///
    /// # Errors
    /// An unknown seal, or a content that is not whole: nothing was changed then. The system's: call it again.
    pub fn restore(&mut self, number: SealNumber) -> Result<Sealed, DiskError> {
        let target = self.seals.tree(number)?;
        self.become_tree(target)
    }

    fn become_tree(&mut self, mut target: tree::Tree) -> Result<Sealed, DiskError> {
        let fail = DiskError::at("restore", &self.root);
        std::fs::create_dir_all(&self.root).map_err(&fail)?;
        let root = restore::open_root(&self.root).map_err(&fail)?;
        if let Some(owner) = self.owner {
            target.values_mut().for_each(|node| node.owner = (owner, owner));
        }
        restore::restore(&mut self.seals, &root, &self.root, target, &mut || Ok(()))
    }
}
