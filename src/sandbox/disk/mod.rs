//! A session's own disk: its trees, sealed after each call that may have changed them, restored on a rewind.
//!
//! Owns: trees as values ([`tree`]), seals ([`seal`]), how a tree becomes what it was ([`restore`]).
//! Does not: mount anything, know events or sessions.
//! Invariants: a seal never changes; a restore that was cut is begun again and ends the same; no name of the session's is
//! ever followed out of its tree.

mod path;
mod restore;
mod seal;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use seal::{SealNumber, Sealed};

use seal::Seals;

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
    /// A content is missing or cut, by a crash of the machine or by somebody's hand. Nothing was changed.
    #[error("restore `{path}`: its content {object} is not whole")]
    Damaged {
        /// The file.
        path: String,
        /// Where its content should be.
        object: String,
    },
}

impl DiskError {
    fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path: path.clone(), source }
    }
}

/// One tree and its seals.
pub struct SealedTree {
    root: PathBuf,
    seals: Seals,
}

impl SealedTree {
    /// The tree below `root`, with its seals in `seals`, which lies outside of it.
    ///
    /// # Errors
    /// If the seals cannot be read.
    pub fn open(root: &Path, seals: &Path) -> Result<Self, DiskError> {
        Ok(Self { root: root.to_owned(), seals: Seals::open(seals)? })
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
        self.seals.seal(root, &self.root)
    }

    /// Makes the tree what it was at a seal, and seals it so.
    ///
    /// # Errors
    /// An unknown seal, or a content that is not whole: nothing was changed then. The system's: call it again.
    pub fn restore(&mut self, number: SealNumber) -> Result<Sealed, DiskError> {
        let fail = DiskError::at("restore", &self.root);
        std::fs::create_dir_all(&self.root).map_err(&fail)?;
        let root = restore::open_root(&self.root).map_err(&fail)?;
        restore::restore(&mut self.seals, &root, &self.root, number, &mut || Ok(()))
    }
}
