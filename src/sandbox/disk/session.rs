//! All trees of one session's disk, sealed and restored together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DiskError, Place, SealNumber, SealedTree};
use crate::environment::WorkspaceMode;

/// What the trees of a session were at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSeal {
    /// Of its home.
    pub home: SealNumber,
    /// Of its workspace, or of the layer over it.
    pub work: SealNumber,
}

/// A seal that was made, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealReport {
    /// The seal.
    pub seal: DiskSeal,
    /// Files in all trees.
    pub files: usize,
    /// Entries that changed since the seal before.
    pub changed: usize,
    /// Bytes that were copied or shared for it.
    pub bytes: u64,
}

/// A session's disk.
pub struct Disk {
    place: Place,
    mode: WorkspaceMode,
    workspace: PathBuf,
    home: SealedTree,
    pub(super) work: SealedTree,
}

impl Disk {
    /// The disk at `place`, whose session works on `workspace`.
    ///
    /// # Errors
    /// If it cannot be made or its seals cannot be read.
    pub fn open(place: &Place, mode: WorkspaceMode, workspace: &Path) -> Result<Self, DiskError> {
        place.prepare(mode, workspace)?;
        let owner = place.owner().map_err(DiskError::at("look at", &place.home()))?;
        let seals = place.seals("work");
        let work = match mode {
            WorkspaceMode::Direct => SealedTree::open(workspace, &seals)?.bounded(),
            WorkspaceMode::Overlay => SealedTree::open(&place.upper(), &seals)?.owned_by(owner),
            WorkspaceMode::Copy => SealedTree::open(&place.copy(), &seals)?.owned_by(owner),
            WorkspaceMode::Own => SealedTree::open(&place.own(), &seals)?.owned_by(owner),
        };
        let home = SealedTree::open(&place.home(), &place.seals("home"))?.owned_by(owner);
        Ok(Self { place: place.clone(), mode, workspace: workspace.to_owned(), home, work })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn mode(&self) -> WorkspaceMode {
        self.mode
    }

    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Copies the workspace into a session's own, which is empty.
    ///
    /// # Errors
    /// The system's.
    pub fn copy_workspace(&mut self, workspace: &Path) -> Result<(), DiskError> {
        self.work.adopt(workspace).map(drop)
    }

    /// Makes this new disk what another one was at a seal; shares its seals up to `last`, and takes the rewinds up to
    /// `rewound` for carried out. Neither sees what the other does from then on.
    ///
    /// # Errors
    /// A content that is not whole; the system's.
    pub fn fork_from(
        &mut self,
        other: &Place,
        last: DiskSeal,
        seal: DiskSeal,
        rewound: u64,
    ) -> Result<DiskSeal, DiskError> {
        let work = self.work.branch_off(&other.seals("work"), last.work, seal.work)?.number;
        let home = self.home.branch_off(&other.seals("home"), last.home, seal.home)?.number;
        self.place.set_rewound(rewound)?;
        Ok(DiskSeal { home, work })
    }

    /// Seals all trees as they are.
    ///
    /// # Errors
    /// The system's, or that the workspace is too large to be sealed. No seal is made then.
    pub fn seal(&mut self) -> Result<SealReport, DiskError> {
        let work = self.work.seal()?;
        let home = self.home.seal()?;
        Ok(SealReport {
            seal: DiskSeal { home: home.number, work: work.number },
            files: home.files + work.files,
            changed: home.changed + work.changed,
            bytes: home.bytes + work.bytes,
        })
    }

    /// Carries out the rewind of that number, unless it or a later one was: all trees become what they were. Where it
    /// was cut, the same call again ends it.
    ///
    /// # Errors
    /// A content that is not whole; the system's.
    pub fn rewind(&mut self, number: u64, seal: DiskSeal) -> Result<(), DiskError> {
        if self.place.rewound()? >= number {
            return Ok(());
        }
        self.work.restore(seal.work)?;
        self.home.restore(seal.home)?;
        self.place.set_rewound(number)
    }
}
