//! Repositories as they are kept for whoever clones them next: one directory for each, worked in by one at a time.
//!
//! ```text
//! KEY/mirror   the repository, bare
//! KEY/out      a checkout that is being made of it
//! KEY/busy     somebody works here, or was cut: then nothing here can be relied upon
//! ```
//!
//! Owns: where they lie, which of them go. Does not: know git, or who may see what is in them.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::disk::remove_all;
use crate::limits::REPOSITORIES_KEPT;

/// All of them. The caller sees to it that one key is opened once at a time.
#[derive(Debug, Clone)]
pub struct Mirrors(PathBuf);

/// One that is being worked in. What is not settled is not relied upon, and made anew the next time.
#[derive(Debug)]
pub struct Mirror(PathBuf);

impl Mirrors {
    /// Those at this directory, made or not.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self(root)
    }

    /// The directory of a key, to work in.
    ///
    /// # Errors
    /// The system's.
    pub fn open(&self, key: &str) -> io::Result<Mirror> {
        let mirror = Mirror(self.0.join(key));
        if mirror.busy().exists() {
            remove_all(&mirror.0)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&mirror.0)?;
        remove_all(&mirror.out())?;
        File::create(mirror.busy())?;
        Ok(mirror)
    }

    /// Removes those that were used longest ago, beyond the number that is kept; one that is worked in stays.
    ///
    /// # Errors
    /// The system's.
    pub fn thin(&self) -> io::Result<()> {
        let mut settled = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let mirror = Mirror(entry?.path());
            if !mirror.busy().exists() {
                let used = mirror.0.metadata().and_then(|facts| facts.modified());
                settled.push((used.unwrap_or(SystemTime::UNIX_EPOCH), mirror.0));
            }
        }
        settled.sort();
        let surplus = settled.len().saturating_sub(REPOSITORIES_KEPT);
        settled[..surplus].iter().try_for_each(|(_, path)| remove_all(path))
    }
}

impl Mirror {
    /// Where to work.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Where the checkout is made.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    fn busy(&self) -> PathBuf {
        self.0.join("busy")
    }

    /// Whoever worked here ended by himself.
    ///
    /// # Errors
    /// The system's.
    pub fn settle(self) -> io::Result<()> {
        remove_all(&self.out())?;
        std::fs::remove_file(self.busy())
    }
}
