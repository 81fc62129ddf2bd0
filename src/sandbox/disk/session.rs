//! All trees of one session's disk, sealed and restored together.

use std::path::Path;

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
    home: SealedTree,
    work: SealedTree,
}

impl Disk {
    /// The disk at `place`, whose session works on `workspace`.
    ///
    /// # Errors
    /// If it cannot be made or its seals cannot be read.
    pub fn open(place: &Place, mode: WorkspaceMode, workspace: &Path) -> Result<Self, DiskError> {
        place.prepare(mode, workspace)?;
        let seals = place.seals("work");
        let work = match mode {
            WorkspaceMode::Direct => SealedTree::open(workspace, &seals)?.bounded(),
            WorkspaceMode::Overlay => SealedTree::open(&place.upper(), &seals)?,
            WorkspaceMode::Copy => SealedTree::open(&place.copy(), &seals)?,
        };
        Ok(Self { home: SealedTree::open(&place.home(), &place.seals("home"))?, work })
    }

    /// Copies the workspace into a session's own, which is empty.
    ///
    /// # Errors
    /// The system's.
    pub fn copy_workspace(&mut self, place: &Place, workspace: &Path) -> Result<(), DiskError> {
        let owner = place.owner().map_err(DiskError::at("copy", workspace))?;
        self.work.adopt(workspace, owner).map(drop)
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

    /// Makes all trees what they were. Where it was cut, the same call again ends it.
    ///
    /// # Errors
    /// A content that is not whole; the system's.
    pub fn restore(&mut self, seal: DiskSeal) -> Result<(), DiskError> {
        self.work.restore(seal.work)?;
        self.home.restore(seal.home).map(drop)
    }
}
