//! What a session hands out: the regular files below its `outputs`. The directory is a stranger's, and may change while
//! it is looked at: the walk follows no link and opens nothing that waits.

use std::fs::File;
use std::io;

use super::DiskError;
use super::place::Place;
use super::restore::open_root;
use super::seal::{keep_free, open_file, unsure_from};
use super::tree::{self, Found};

/// A file that is handed out, as the walk finds it.
pub struct Output<'a> {
    found: &'a Found<'a>,
    unsure: i64,
}

impl Output<'_> {
    /// Where it lies below the directory: each path has one form, whatever bytes it is made of.
    #[must_use]
    pub fn path(&self) -> String {
        match serde_json::to_value(self.found.path) {
            Ok(serde_json::Value::String(path)) => path,
            other => unreachable!("a path is written as text, not as {other:?}"),
        }
    }

    /// The last name of its path, for people.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.found.name.to_bytes()).into_owned()
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.found.stamp.size
    }

    /// Tells it from what it is after any change; nothing, if it changed so lately that it could not.
    #[must_use]
    pub fn stamp(&self) -> Option<String> {
        let stamp = self.found.stamp;
        (stamp.changed < self.unsure).then(|| stamp.to_string())
    }

    /// Opens it.
    ///
    /// # Errors
    /// The system's; that it is none any more.
    pub fn open(&self) -> io::Result<File> {
        open_file(self.found)
    }

    /// Whether there is room for it where that file is.
    ///
    /// # Errors
    /// If there is not.
    pub fn fits(&self, beside: &File) -> io::Result<()> {
        keep_free(beside, self.size())
    }
}

impl Place {
    /// Visits every file that the session hands out, in the order of their paths. What vanishes meanwhile is passed over.
    ///
    /// # Errors
    /// The visitor's; the system's; more than a disk may have.
    pub fn each_output(
        &self,
        visit: &mut dyn FnMut(&Output<'_>) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        let outputs = self.outputs();
        let fail = DiskError::at("hand out", &outputs);
        let root = match open_root(&outputs) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            root => root.map_err(&fail)?,
        };
        let unsure = unsure_from();
        let mut visit = |found: &Found<'_>| {
            visit(&Output { found, unsure })?;
            Ok(String::new())
        };
        tree::walk(&root, &mut visit).map(drop).map_err(fail)
    }
}
