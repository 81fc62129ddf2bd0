//! What a session was given: files that it reads below its `uploads`, each a second name of bytes that are kept elsewhere.
//! It is shown the directory and cannot change it, so what is put there is there at its next look.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::DiskError;
use super::place::Place;

/// A file that is shown and has no record yet. Dropped before it has one, it is hidden again.
#[derive(Debug)]
pub struct Shown {
    place: Place,
    path: PathBuf,
    kept: bool,
}

impl Shown {
    /// Whether it stays. While its record is being committed it does: whoever stops waiting for that does not know
    /// whether it has it.
    pub fn keep(&mut self, kept: bool) {
        self.kept = kept;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !self.kept {
            // What stays in spite of this is hidden at the next start.
            drop(self.place.hide(&self.path));
        }
    }
}

impl Place {
    /// Shows the session a file: `bytes`, at `path` below its uploads.
    ///
    /// # Errors
    /// If the session has no disk (any more), something is there already, or the system's.
    pub fn show(&self, path: &Path, bytes: &Path) -> Result<Shown, DiskError> {
        let target = self.uploads().join(path);
        let fail = || DiskError::at("show the session", &target);
        // The first of them must be there: a session that is gone gets no disk again.
        let parents: Vec<_> = path.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| !parent.as_os_str().is_empty()) {
            let directory = self.uploads().join(parent);
            match DirBuilder::new().mode(0o755).create(&directory) {
                // Whatever this process masks: the session is to read it.
                Ok(()) => std::fs::set_permissions(&directory, Permissions::from_mode(0o755)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(e) => Err(e),
            }
            .map_err(fail())?;
        }
        // For a session that is another user than its host; nobody else comes as far as this.
        std::fs::set_permissions(bytes, Permissions::from_mode(0o444)).map_err(fail())?;
        link_or_copy(bytes, &target).map_err(fail())?;
        Ok(Shown { place: self.clone(), path: path.to_owned(), kept: false })
    }

    /// Takes it away again, and the directories that were for it alone.
    ///
    /// # Errors
    /// The system's.
    pub fn hide(&self, path: &Path) -> Result<(), DiskError> {
        let target = self.uploads().join(path);
        match std::fs::remove_file(&target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(DiskError::at("hide from the session", &target)(e));
            }
            _ => {}
        }
        let parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        // The first that holds something else stays, and so do those above it.
        let mut emptied = parents.map(|parent| std::fs::remove_dir(self.uploads().join(parent)));
        while let Some(Ok(())) = emptied.next() {}
        Ok(())
    }

    /// The paths of all that the session is shown.
    ///
    /// # Errors
    /// The system's.
    pub fn shown(&self) -> Result<Vec<PathBuf>, DiskError> {
        let (root, mut found) = (self.uploads(), Vec::new());
        let mut ahead = vec![PathBuf::new()];
        while let Some(directory) = ahead.pop() {
            let path = root.join(&directory);
            let fail = || DiskError::at("look through", &path);
            let entries = match std::fs::read_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(fail())?,
            };
            for entry in entries {
                let entry = entry.map_err(fail())?;
                let name = directory.join(entry.file_name());
                let kind = entry.file_type().map_err(fail())?;
                if kind.is_dir() { &mut ahead } else { &mut found }.push(name);
            }
        }
        Ok(found)
    }
}

/// Gives bytes a second name: they cost nothing more, and no session can change them. A file that has as many names as it
/// can have is copied.
///
/// # Errors
/// The system's; something that is there already.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::TooManyLinks => std::fs::copy(from, to).map(drop),
        done => done,
    }
}
