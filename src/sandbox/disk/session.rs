//! All trees of one session's disk, sealed and restored together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shared::{Base, Below, Origin, Which};
use super::{DiskError, Place, SealNumber, Sealed, SealedTree};
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

/// Which moment of a disk another one begins with, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The workspace mode of the new one.
    pub mode: WorkspaceMode,
    /// The last seals that it takes over.
    pub last: DiskSeal,
    /// What its trees become.
    pub seal: DiskSeal,
    /// The last rewind that was carried out for it.
    pub rewound: u64,
    /// What it is made as.
    pub form: Form,
}

/// What a fork of files is made as. A layer over a sealed tree needs no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A layer, where the mode keeps files of the session's own.
    Layer,
    /// A copy; of a disk that is a layer already, a layer all the same.
    Copy,
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
        let shared = place.shared();
        let mut lineage = shared.lineage(place, Which::Work)?;
        let root = match mode {
            WorkspaceMode::Direct => workspace.to_owned(),
            WorkspaceMode::Overlay => place.upper(),
            WorkspaceMode::Copy if place.base()?.is_some() => place.upper(),
            WorkspaceMode::Copy => place.copy(),
            WorkspaceMode::Own => place.own(),
        };
        if mode != WorkspaceMode::Overlay {
            lineage.contents = Some(shared.users_contents());
        }
        let work = SealedTree::open(&root, lineage)?;
        let work = match (mode, place.origin()?.base) {
            (WorkspaceMode::Direct, _) => work.bounded(),
            (WorkspaceMode::Overlay | WorkspaceMode::Own, _) | (WorkspaceMode::Copy, None) => {
                work.owned_by(owner)
            }
            (WorkspaceMode::Copy, Some(base)) => work.owned_by(owner).over(base.seal)?,
        };
        let home = SealedTree::open(&place.home(), shared.lineage(place, Which::Home)?)?;
        let home = home.owned_by(owner);
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

    /// Makes a disk that begins as this one was at a seal; goes on from its seals up to `last`, and takes the rewinds up
    /// to `rewound` for carried out. Neither sees what the other does from then on. A fork of files is a layer over the
    /// sealed tree, or where that cannot be had, a copy of it.
    ///
    /// # Errors
    /// A content that is not whole; the system's.
    pub fn fork(&self, to: &Place, fork: &Fork) -> Result<DiskSeal, DiskError> {
        let Fork { mode, last, seal, rewound, form } = *fork;
        let name = self.place.name().to_owned();
        let below = Below { name: name.clone(), home: last.home, work: last.work };
        let base = match self.place.origin()?.base {
            Some(base) => Some(base),
            None if form == Form::Layer && mode == WorkspaceMode::Copy => {
                Some(Base { name, seal: seal.work, last: last.work })
            }
            None => None,
        };
        if let Some(base) = base.as_ref().filter(|base| base.name == self.place.name()) {
            let tree = self.work.seals.tree(base.seal)?;
            self.place.shared().build(base, &self.work.seals, &tree)?;
        }
        to.begin(&Origin { below: Some(below), base })?;
        let mut disk = Self::open(to, mode, &self.workspace)?;
        let work = disk.work.restore(seal.work)?.number;
        let home = disk.home.restore(seal.home)?.number;
        to.set_rewound(rewound)?;
        Ok(DiskSeal { home, work })
    }

    /// Seals all trees as they are.
    ///
    /// # Errors
    /// The system's, or that the workspace is too large to be sealed. No seal is made then.
    pub fn seal(&mut self) -> Result<SealReport, DiskError> {
        let work = self.seal_work()?;
        let home = self.home.seal()?;
        Ok(SealReport {
            seal: DiskSeal { home: home.number, work: work.number },
            files: home.files + work.files,
            changed: home.changed + work.changed,
            bytes: home.bytes + work.bytes,
        })
    }

    pub(super) fn seal_work(&mut self) -> Result<Sealed, DiskError> {
        match self.mode {
            WorkspaceMode::Overlay => self.work.seal_over(&self.workspace, self.place.made()?),
            WorkspaceMode::Direct | WorkspaceMode::Copy | WorkspaceMode::Own => self.work.seal(),
        }
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
