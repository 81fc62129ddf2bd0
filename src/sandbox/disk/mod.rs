//! A session's own disk: its trees, sealed after each call that may have changed them, restored on a rewind.
//!
//! Owns: trees as values (`tree`), seals (`seal`), how a tree becomes what it was (`restore`), what all sessions share of
//! that (`shared`).
//! Does not: mount anything, know events or sessions.
//! Invariants: a seal never changes; a restore that was cut is begun again and ends the same; no name of the session's is
//! ever followed out of its tree.

mod apply;
mod changes;
mod diff;
mod farm;
mod holes;
mod layer;
mod merge;
mod outputs;
mod path;
mod place;
mod repositories;
mod restore;
mod seal;
mod session;
mod shared;
mod skills;
mod tree;
mod uploads;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub use changes::{Change, ChangeKind, Choice, Conflict, Outcome};
pub use outputs::Output;
pub use place::Place;
pub(super) use restore::remove_all;
pub use seal::{SealNumber, Sealed};
pub use session::{Disk, DiskSeal, Fork, Form, SealReport};
pub use skills::digest;
pub use uploads::{Shown, link_or_copy};

use crate::limits::{SEAL_DIRECT_BYTES, SEAL_DIRECT_FILES};
use path::RelativePath;
use seal::{Bound, Lineage, Seals};
use tree::Tree;

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
         keeps yours, --beside keeps yours and puts the session's in a file beside it, and the other paths can be named \
         one by one", list(.paths)
    )]
    Conflicts {
        /// Which, and where.
        paths: Vec<Conflict>,
    },
    /// The session works on the user's own files.
    #[error("find anything to apply or discard: the session works on your own files")]
    Direct,
    /// The session has no files of the user's.
    #[error(
        "find anything to compare: the session's workspace is its own, and nothing of yours was its beginning"
    )]
    Own,
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

fn list(conflicts: &[Conflict]) -> String {
    let lines = |range: &RangeInclusive<usize>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let shown = |Conflict { path, lines: met }: &Conflict| match met[..] {
        [] => path.display().to_string(),
        _ => format!(
            "{} (at your lines {})",
            path.display(),
            met.iter().map(lines).collect::<Vec<_>>().join(", ")
        ),
    };
    conflicts.iter().map(shown).collect::<Vec<_>>().join(", ")
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
    /// What it lies over, if it is a layer over a sealed tree.
    base: Option<Tree>,
}

impl SealedTree {
    /// The tree below `root`, with seals that lie outside of it.
    fn open(root: &Path, lineage: Lineage) -> Result<Self, DiskError> {
        let (root, seals) = (root.to_owned(), Seals::open(lineage)?);
        Ok(Self { root, seals, bound: Bound::NONE, owner: None, base: None })
    }

    /// The same, as a layer over what the tree was at a seal.
    fn over(self, seal: SealNumber) -> Result<Self, DiskError> {
        Ok(Self { base: Some(self.seals.tree(seal)?), ..self })
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
        self.seals.seal(&root, &self.root, self.bound, None)
    }

    /// The same of a layer over the user's files: what these were when they were first changed is kept as well.
    fn seal_over(&mut self, users: &Path, made: i64) -> Result<Sealed, DiskError> {
        let root = restore::open_root(&self.root).map_err(DiskError::at("seal", &self.root))?;
        let users = restore::open_root(users).map_err(DiskError::at("look at", users))?;
        self.seals.seal(&root, &self.root, self.bound, Some((&users, made)))
    }

    /// Makes the tree a copy of the one below `source`, and seals it so.
    ///
    /// # Errors
    /// The system's.
    fn adopt(&mut self, source: &Path) -> Result<Sealed, DiskError> {
        let fail = DiskError::at("copy", source);
        let from = restore::open_root(source).map_err(&fail)?;
        let unsure = seal::unsure_from();
        let (mut target, _) = self.seals.keep(&from, source, Bound::NONE)?;
        let sealed = self.become_tree(target.clone())?;
        seal::distrust_the_young(&mut target, unsure);
        self.seals.publish(&target);
        Ok(sealed)
    }

    /// Makes the tree what it was at a seal, and seals it so.
    ///
    /// # Errors
    /// An unknown seal, or a content that is not whole: nothing was changed then. The system's: call it again.
    pub fn restore(&mut self, number: SealNumber) -> Result<Sealed, DiskError> {
        let target = self.seals.tree(number)?;
        if self.seals.is_whole(number) { self.show(target) } else { self.become_tree(target) }
    }

    /// What was shown at the last seal: of a layer, with what it lies over.
    fn shown(&self) -> Tree {
        let sealed = self.seals.current();
        self.base.as_ref().map_or_else(|| sealed.clone(), |base| layer::shown(base, sealed))
    }

    /// Makes it show a tree, whose contents are kept, and seals it so.
    fn show(&mut self, target: Tree) -> Result<Sealed, DiskError> {
        match &self.base {
            Some(base) => self.become_tree(layer::between(base, &target)),
            None => self.become_tree(target),
        }
    }

    /// From now on, what is at these paths is what the user has too: what changes there does so from here.
    fn begin_anew(&mut self, paths: impl Iterator<Item = RelativePath>) -> Result<(), DiskError> {
        self.seals.begin_anew(paths)
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
