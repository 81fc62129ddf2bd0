//! Where a session's disk lies, and whose it is.
//!
//! ```text
//! home/            the session's home
//! layer/upper      what it changed of what lies below: its workspace in the mode `overlay`, in a fork of files the tree
//!                  that it began with; `layer/work` is the kernel's
//! copy/            its workspace, in the mode `copy`
//! sealed           holds what is sealed of it, which lies with that of the others: see `shared.rs`
//! own/workspace    the same in the mode `own`; `own/outputs` is what it hands out
//! uploads/         what it was given in that mode; it is shown that, and cannot change it
//! skills/          its skills, in every mode; the same
//! repositories/    what is known of those that it was given: see `repositories.rs`
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
use super::shared::{Origin, Shared};
use crate::environment::WorkspaceMode;
use crate::sandbox::host;

/// The directory of all disks, in the data directory.
const DISKS: &str = "sessions";

/// The directory of one session's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
    name: String,
    shared: Shared,
}

impl Place {
    /// The disk of that name in a data directory, made or not.
    #[must_use]
    pub fn of(data_dir: &Path, name: &str) -> Self {
        let shared = Shared::of(data_dir);
        Self { root: data_dir.join(DISKS).join(name), name: name.to_owned(), shared }
    }

    /// The names of the disks of a data directory, and of whatever else lies with them.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn names(data_dir: &Path) -> Result<Vec<String>, DiskError> {
        let dir = data_dir.join(DISKS);
        let fail = DiskError::at("look through", &dir);
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(&fail)?,
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect::<io::Result<_>>().map_err(fail)
    }

    /// Goes on with a sweep that was cut.
    ///
    /// # Errors
    /// The system's.
    pub fn sweep(data_dir: &Path) -> Result<(), DiskError> {
        Shared::of(data_dir).sweep()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What holds the disk's seals: they stay as long as it, or that of a fork, is there.
    pub(super) fn hold(&self) -> PathBuf {
        self.root.join("sealed")
    }

    /// Where the disk comes from.
    pub(super) fn origin(&self) -> Result<Origin, DiskError> {
        Origin::read(&self.hold())
    }

    /// The sealed tree that lies below the session's layer, if it was forked so.
    ///
    /// # Errors
    /// If what is known of its origin cannot be read.
    pub fn base(&self) -> Result<Option<PathBuf>, DiskError> {
        let base = self.origin()?.base;
        Ok(base.map(|base| self.shared.tree(&base.name, base.seal)))
    }

    /// The session's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// What lies over the workspace.
    #[must_use]
    pub fn layer(&self) -> PathBuf {
        self.root.join("layer")
    }

    /// The changes in that.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.layer().join("upper")
    }

    /// A workspace of the session's own.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        self.root.join("copy")
    }

    /// What belongs to a session that has no directory of the user's: its workspace and what it hands out.
    pub(super) fn own(&self) -> PathBuf {
        self.root.join("own")
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
        self.root.join("uploads")
    }

    /// The session's skills, a directory each.
    #[must_use]
    pub fn skills(&self) -> PathBuf {
        self.root.join("skills")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    fn rewound_file(&self) -> PathBuf {
        self.root.join("rewound")
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
        self.root.join("applied")
    }

    /// When the disk was made, by the kernel's clock.
    pub(super) fn made(&self) -> Result<i64, DiskError> {
        let path = self.root.join("made");
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
        self.begin(&Origin::default())?;
        let owner = match self.owner() {
            // Root's own it is where no other user could be had: nothing has run there.
            Ok(owner) if owner != 0 => owner,
            _ if host::is_root() => host::session_uid(),
            _ => geteuid().as_raw(),
        };
        let own = |path: &Path| -> Result<(), DiskError> {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.and_then(|()| give(path, owner)).map_err(fail(path))
        };
        let made = self.root.join("made");
        if !made.exists() {
            File::create(&made).map_err(fail(&made))?;
        }
        own(&self.home())?;
        match mode {
            WorkspaceMode::Direct => return Ok(()),
            WorkspaceMode::Copy if self.base()?.is_none() => {
                return self.like(workspace, &self.copy(), &own);
            }
            WorkspaceMode::Own => {
                let uploads = self.uploads();
                let made = DirBuilder::new().recursive(true).create(&uploads);
                // Whatever this process masks: the session is to read it.
                made.and_then(|()| {
                    std::fs::set_permissions(&uploads, Permissions::from_mode(0o755))
                })
                .map_err(fail(&uploads))?;
                return [self.own(), self.workspace(), self.outputs()]
                    .iter()
                    .try_for_each(|path| own(path));
            }
            WorkspaceMode::Overlay | WorkspaceMode::Copy => {}
        }
        own(&self.layer())?;
        own(&self.layer().join("work"))?;
        self.like(workspace, &self.upper(), &own)
    }

    /// Makes the directory, and holds what will be sealed of it.
    pub(super) fn begin(&self, origin: &Origin) -> Result<(), DiskError> {
        let fail = DiskError::at("make the session's disk", &self.root);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(fail)?;
        if !self.hold().exists() {
            let text = serde_json::to_vec(origin).expect("names and numbers are JSON");
            self.write(&self.hold(), &text)?;
        }
        self.shared.join(self)
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

    /// Removes the disk, whatever the session left there, and what nobody else needs of its seals.
    ///
    /// # Errors
    /// The system's; the next start goes on with it.
    pub fn remove(&self) -> Result<(), DiskError> {
        self.shared.mark()?;
        let removed = super::restore::remove_all(&self.root);
        removed.map_err(DiskError::at("remove the session's disk", &self.root))?;
        self.shared.sweep()
    }
}

/// Only root can give a directory away; everybody else's is the session's already.
fn give(path: &Path, owner: u32) -> io::Result<()> {
    if !host::is_root() {
        return Ok(());
    }
    match chown(path, Some(owner), Some(owner)) {
        // A namespace without that user: its sandbox fails with a better word for it.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}
