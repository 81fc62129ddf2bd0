//! The bytes of stored files: one file each below the data directory, whole or not there. What a file is called and whose
//! it is stands in its record; bytes without a record are swept at the next start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Record, Runtime, RuntimeError};
use crate::clock::Timestamp;
use crate::id::FileId;
use crate::limits::MAX_FILE_BYTES;
use crate::sandbox::disk::same_bytes;
use crate::store::{NewRecord, Reader};

/// The kind of a file's record.
pub const KIND: &str = "file";
/// The directory of all of them, in the data directory.
const FILES: &str = "files";

/// Why the bytes of a file could not be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk is full; nothing is kept.
    #[error("store a file in {}: the disk is full", dir.display())]
    Full {
        /// Where.
        dir: PathBuf,
    },
    /// It is larger than one may be; nothing is kept.
    #[error("store a file of more than {most} bytes")]
    TooLarge {
        /// The bound.
        most: u64,
    },
    /// Anything else.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl FileError {
    fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { dir: path },
            _ => Self::Io { what, path, source },
        }
    }
}

/// What is known of a stored file: the body of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// A name for people.
    pub filename: String,
    /// What it is.
    pub mime_type: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether clients may have it back.
    pub downloadable: bool,
    /// Its time from its creation on, if it has one.
    pub expires_in_seconds: Option<u64>,
}

impl FileFacts {
    /// Those of a file's record.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        serde_json::from_value(record.body.clone()).ok()
    }

    /// When the time of a file that was created then is over.
    #[must_use]
    pub fn expires_at(&self, created_at: Timestamp) -> Option<Timestamp> {
        self.expires_in_seconds.map(|seconds| created_at + Duration::from_secs(seconds))
    }

    pub(super) fn record(&self, id: &FileId, owner: Option<String>, at: Timestamp) -> NewRecord {
        let body = serde_json::to_value(self).expect("facts have string keys only");
        NewRecord { kind: KIND, id: id.to_string(), owner, created_at: at, body }
    }
}

/// Bytes that have no record yet. Dropped before they have one, they are removed.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Their record is committed.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What stays in spite of this is swept at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A file that is being received. Dropped before [`Runtime::keep`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    draft: Draft,
    file: File,
    size: u64,
}

impl Upload {
    /// The id that the file will have.
    #[must_use]
    pub fn id(&self) -> &FileId {
        &self.draft.id
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes at the end. Blocks for as long as the page cache takes them.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.size += bytes.len() as u64;
        if self.size > MAX_FILE_BYTES {
            return Err(FileError::TooLarge { most: MAX_FILE_BYTES });
        }
        self.file.write_all(bytes).map_err(FileError::at("write", &self.draft.path))
    }
}

impl Runtime {
    fn files_dir(&self) -> PathBuf {
        self.config().data_dir.join(FILES)
    }

    /// Where the bytes of a file will be, in a directory that is there.
    fn draft(&self) -> Result<Draft, FileError> {
        let dir = self.files_dir();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(FileError::at("make", &dir))?;
        let id = FileId::mint(self.shared.clock.now());
        let path = dir.join(id.as_str());
        Ok(Draft { id, path, kept: false })
    }

    /// The same bytes again, for another record: they stay when the other one is deleted.
    ///
    /// # Errors
    /// If they are not there.
    pub(super) fn share(&self, id: &FileId) -> Result<Draft, FileError> {
        let (from, to) = (self.files_dir().join(id.as_str()), self.draft()?);
        same_bytes(&from, &to.path).map_err(FileError::at("share", &from))?;
        Ok(to)
    }

    /// Begins to receive a file.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn upload(&self) -> Result<Upload, FileError> {
        let draft = self.draft()?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.path);
        let file = file.map_err(FileError::at("make", &draft.path))?;
        Ok(Upload { draft, file, size: 0 })
    }

    /// Makes a received file durable and gives it its record. First the bytes, then the record: a crash between leaves
    /// bytes that nobody knows, and never a record without bytes.
    ///
    /// # Errors
    /// If the disk or the store does not take it; nothing is kept then.
    pub async fn keep(
        &self,
        upload: Upload,
        owner: Option<String>,
        facts: &FileFacts,
    ) -> Result<Record, RuntimeError> {
        let Upload { draft, file, .. } = upload;
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        let synced = synced.unwrap_or_else(|_| Err(io::Error::other("the sync was cut")));
        synced.map_err(FileError::at("sync", &draft.path))?;
        let new = facts.record(&draft.id, owner, self.shared.clock.now());
        let record = self.shared.store.put_record(new).await?;
        draft.keep();
        Ok(record)
    }

    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// If they are not there.
    pub fn open_file(&self, id: &FileId) -> Result<File, FileError> {
        let path = self.files_dir().join(id.as_str());
        File::open(&path).map_err(FileError::at("read", &path))
    }

    /// Removes a file: first its record, then its bytes.
    ///
    /// # Errors
    /// If there is none, or it cannot be removed.
    pub async fn delete_file(&self, id: &FileId) -> Result<(), RuntimeError> {
        self.delete_record(KIND, id.as_str()).await?;
        Ok(self.remove_bytes(id)?)
    }

    /// Removes bytes whose record is gone.
    pub(super) fn remove_bytes(&self, id: &FileId) -> Result<(), FileError> {
        let path = self.files_dir().join(id.as_str());
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", &path)(e)),
            _ => Ok(()),
        }
    }
}

/// Where the bytes of a file are.
pub(super) fn bytes_of(data_dir: &Path, id: &FileId) -> PathBuf {
    data_dir.join(FILES).join(id.as_str())
}

/// Removes bytes that have no record: an upload that was cut, a deletion that was.
pub(super) fn sweep(data_dir: &Path, reader: &Reader) -> Result<(), RuntimeError> {
    let dir = data_dir.join(FILES);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(FileError::at("look through", &dir)(e).into()),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|name| name.parse::<FileId>().is_ok()) else {
            continue;
        };
        if reader.record(KIND, id)?.is_none() {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
        }
    }
    Ok(())
}
