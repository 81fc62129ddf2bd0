//! Where a session's disk lies, and whose it is.
//!
//! ```text
//! home/            the session's home
//! layer/upper      what it changed of its workspace, in the mode `overlay`; `layer/work` is the kernel's
//! copy/            its workspace, in the mode `copy`
//! own/workspace    the same in the mode `own`; `own/outputs` is what it hands out
//! uploads/         what it was given in that mode; it is shown that, and cannot change it
//! seals-home/  seals-work/
//! made             an empty file that is as old as the disk
//! applied          which of the user's files were written by an `apply`, and when
//! rewound          the last rewind that was carried out, as its position in the log
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::DiskError;
use crate::environment::WorkspaceMode;
use crate::sandbox::host;

/// The directory of one session's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// The disk at `root`, made or not.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self(root)
    }

    /// The session's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// What lies over the workspace.
    #[must_use]
    pub fn layer(&self) -> PathBuf {
        self.0.join("layer")
    }

    /// The changes in that.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.layer().join("upper")
    }

    /// A workspace of the session's own.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        self.0.join("copy")
    }

    /// What belongs to a session that has no directory of the user's: its workspace and what it hands out.
    pub(super) fn own(&self) -> PathBuf {
        self.0.join("own")
    }

    /// The workspace of such a session.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.own().join("workspace")
    }

    /// What such a session hands out.
    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        self.own().join("outputs")
    }

    /// What such a session was given.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    /// Where the seals of a tree lie.
    pub(super) fn seals(&self, of: &str) -> PathBuf {
        self.0.join(format!("seals-{of}"))
    }

    fn rewound_file(&self) -> PathBuf {
        self.0.join("rewound")
    }

    /// The last rewind that was carried out; 0 if none was.
    pub(super) fn rewound(&self) -> Result<u64, DiskError> {
        let path = self.rewound_file();
        match std::fs::read_to_string(&path) {
            // What cannot be understood is no rewind: to carry one out again does no harm.
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(DiskError::at("read", &path)(e)),
        }
    }

    pub(super) fn set_rewound(&self, number: u64) -> Result<(), DiskError> {
        self.write(&self.rewound_file(), format!("{number}\n").as_bytes())
    }

    /// Replaces a small file of the disk.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let fresh = path.with_extension("new");
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(content)?;
            file.sync_data()?;
            std::fs::rename(&fresh, path)
        };
        write().map_err(DiskError::at("write", path))
    }

    /// Which of the user's files an `apply` has written.
    pub(super) fn applied(&self) -> PathBuf {
        self.0.join("applied")
    }

    /// When the disk was made, by the kernel's clock.
    pub(super) fn made(&self) -> Result<i64, DiskError> {
        let path = self.0.join("made");
        let facts = path.metadata().map_err(DiskError::at("look at", &path))?;
        Ok(facts.mtime() * 1_000_000_000 + facts.mtime_nsec())
    }

    /// The host's user that the session is for its whole life: who owns its home.
    ///
    /// # Errors
    /// If there is no home.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(self.home().metadata()?.uid())
    }

    /// Makes what is missing of the disk, for the session's user alone. For root, that is a user of the session's own,
    /// chosen here once.
    ///
    /// # Errors
    /// The system's.
    pub fn prepare(&self, mode: WorkspaceMode, workspace: &Path) -> Result<(), DiskError> {
        let fail = |path: &Path| DiskError::at("make the session's disk", path);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(fail(&self.0))?;
        let owner = match self.owner() {
            // Root's own it is where no other user could be had: nothing has run there.
            Ok(owner) if owner != 0 => owner,
            _ if geteuid().is_root() => host::session_uid(),
            _ => geteuid().as_raw(),
        };
        let own = |path: &Path| -> Result<(), DiskError> {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.and_then(|()| give(path, owner)).map_err(fail(path))
        };
        let made = self.0.join("made");
        if !made.exists() {
            File::create(&made).map_err(fail(&made))?;
        }
        own(&self.home())?;
        match mode {
            WorkspaceMode::Direct => Ok(()),
            WorkspaceMode::Overlay => {
                own(&self.layer())?;
                own(&self.layer().join("work"))?;
                self.like(workspace, &self.upper(), &own)
            }
            WorkspaceMode::Copy => self.like(workspace, &self.copy(), &own),
            WorkspaceMode::Own => {
                let uploads = self.uploads();
                let made = DirBuilder::new().recursive(true).create(&uploads);
                // Whatever this process masks: the session is to read it.
                made.and_then(|()| {
                    std::fs::set_permissions(&uploads, Permissions::from_mode(0o755))
                })
                .map_err(fail(&uploads))?;
                [self.own(), self.workspace(), self.outputs()].iter().try_for_each(|path| own(path))
            }
        }
    }

    /// A directory that stands for the workspace has the workspace's permissions.
    fn like(
        &self,
        workspace: &Path,
        path: &Path,
        own: &dyn Fn(&Path) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        if path.exists() {
            return Ok(());
        }
        own(path)?;
        let fail = DiskError::at("make the session's disk", path);
        let mode = workspace.metadata().map_err(&fail)?.mode() & 0o1777;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(&fail)
    }

    /// Removes the disk, whatever the session left there.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self) -> Result<(), DiskError> {
        let removed = super::restore::remove_all(&self.0);
        removed.map_err(DiskError::at("remove the session's disk", &self.0))
    }
}

/// Only root can give a directory away; everybody else's is the session's already.
fn give(path: &Path, owner: u32) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    match chown(path, Some(owner), Some(owner)) {
        // A namespace without that user: its sandbox fails with a better word for it.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}
