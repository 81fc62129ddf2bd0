//! The bytes of stored files: one file each below the data directory, whole or not there. What a file is called and whose
//! it is stands in its record; bytes without a record are swept at the next start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Record, RecordFilter, Runtime, RuntimeError};
use crate::clock::Timestamp;
use crate::id::{FileId, SessionId};
use crate::limits::MAX_FILE_BYTES;
use crate::sandbox::disk::link_or_copy;
use crate::store::{NewRecord, Reader};

/// The kind of a file's record.
pub const KIND: &str = "file";
/// The kind of the record of bytes that a session's conversation needs, whatever becomes of the file.
pub(super) const ATTACHED: &str = "attached_file";
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
    pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
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

    /// Whether the time of that file is over.
    #[must_use]
    pub fn is_over(record: &Record, now: Timestamp) -> bool {
        let expires_at = Self::of(record).and_then(|facts| facts.expires_at(record.created_at));
        expires_at.is_some_and(|at| at <= now)
    }

    pub(super) fn record(
        &self,
        kind: &'static str,
        id: &FileId,
        owner: Option<String>,
        at: Timestamp,
    ) -> NewRecord {
        let body = serde_json::to_value(self).expect("facts have string keys only");
        NewRecord { kind, id: id.to_string(), owner, created_at: at, body }
    }
}

/// Bytes that have no record yet. Dropped before they may have one, they are removed.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Makes the name of these bytes durable, and those of all that lie beside them: content is so by its file alone, a
    /// name by its directory.
    pub(super) async fn sync_name(&self) -> Result<(), FileError> {
        let directory = self.path.parent().expect("bytes lie in a directory").to_owned();
        let fail = FileError::at("sync", &directory);
        let sync = move || File::open(&directory).and_then(|directory| directory.sync_all());
        tokio::task::spawn_blocking(sync).await.expect("a sync does not panic").map_err(fail)
    }

    /// Whether they stay. While their record is being committed they do: whoever stops waiting for that does not know
    /// whether they have it.
    pub(super) fn keep(&mut self, kept: bool) {
        self.kept = kept;
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
    /// Removes the bytes of files whose time is over.
    ///
    /// # Errors
    /// The system's, or the store's.
    pub async fn remove_expired(&self) -> Result<(), RuntimeError> {
        let (data_dir, store) = (self.config().data_dir.clone(), self.shared.store.clone());
        let now = self.shared.clock.now();
        let sweep = move || sweep_some(&data_dir, store.reader(), now, Sweep::Expired);
        tokio::task::spawn_blocking(sweep).await.expect("a sweep does not panic")
    }

    /// The same bytes again, for another record: they stay when the other one is deleted.
    ///
    /// # Errors
    /// If they are not there.
    pub(super) fn share(&self, id: &FileId) -> Result<Draft, FileError> {
        let data_dir = &self.config().data_dir;
        let (from, to) = (bytes_of(data_dir, id), draft(data_dir, self.shared.clock.now())?);
        link_or_copy(&from, &to.path).map_err(FileError::at("share", &from))?;
        Ok(to)
    }

    /// Begins to receive a file.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn upload(&self) -> Result<Upload, FileError> {
        let (file, draft) = new_bytes(&self.config().data_dir, self.shared.clock.now())?;
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
        let Upload { mut draft, file, .. } = upload;
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        let synced = synced.unwrap_or_else(|_| Err(io::Error::other("the sync was cut")));
        synced.map_err(FileError::at("sync", &draft.path))?;
        draft.sync_name().await?;
        let new = facts.record(KIND, &draft.id, owner, self.shared.clock.now());
        draft.keep(true);
        let put = self.shared.store.put_record(new).await;
        draft.keep(put.is_ok());
        Ok(put?)
    }

    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// If they are not there.
    pub fn open_file(&self, id: &FileId) -> Result<File, FileError> {
        let path = bytes_of(&self.config().data_dir, id);
        File::open(&path).map_err(FileError::at("read", &path))
    }

    /// Removes a file: first its record, then its bytes.
    ///
    /// # Errors
    /// If there is none, or it cannot be removed.
    pub async fn delete_file(&self, id: &FileId) -> Result<(), RuntimeError> {
        self.delete_record(KIND, id.as_str()).await?;
        Ok(remove_bytes(&self.config().data_dir, id)?)
    }
}

/// Removes bytes whose record is gone.
pub(super) fn remove_bytes(data_dir: &Path, id: &FileId) -> Result<(), FileError> {
    let path = bytes_of(data_dir, id);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", &path)(e)),
        _ => Ok(()),
    }
}

/// Where the bytes of a new file will be, in a directory that is there.
fn draft(data_dir: &Path, now: Timestamp) -> Result<Draft, FileError> {
    let dir = data_dir.join(FILES);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(FileError::at("make", &dir))?;
    let id = FileId::mint(now);
    let path = dir.join(id.as_str());
    Ok(Draft { id, path, kept: false })
}

/// An empty file for the bytes of a new one.
pub(super) fn new_bytes(data_dir: &Path, now: Timestamp) -> Result<(File, Draft), FileError> {
    let draft = draft(data_dir, now)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.path);
    let file = file.map_err(FileError::at("make", &draft.path))?;
    Ok((file, draft))
}

/// Where the bytes of a file are.
pub(super) fn bytes_of(data_dir: &Path, id: &FileId) -> PathBuf {
    data_dir.join(FILES).join(id.as_str())
}

/// The ids of all bytes that go with a session.
pub(super) fn of_session(reader: &Reader, id: &SessionId) -> Result<Vec<FileId>, RuntimeError> {
    let mut ids = Vec::new();
    for kind in [KIND, ATTACHED] {
        let owner = Some(id.to_string());
        let filter = RecordFilter { kind, owner, ..RecordFilter::default() };
        let records = reader.records(&filter, usize::MAX)?;
        ids.extend(records.iter().filter_map(|record| record.id.parse::<FileId>().ok()));
    }
    Ok(ids)
}

/// Types by extension, for files of which nobody said anything better.
const TYPES: [(&str, &str); 16] = [
    ("csv", "text/csv"),
    ("gif", "image/gif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("md", "text/markdown"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("py", "text/x-python"),
    ("txt", "text/plain"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
];
/// The type of a file of which nothing is known.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The type of a file by its name.
#[must_use]
pub fn type_of_name(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let known = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    known.map_or(UNKNOWN_TYPE, |(_, kind)| kind)
}

/// The extension of a type, if it has one.
#[must_use]
pub fn extension_of(kind: &str) -> Option<&'static str> {
    TYPES.iter().find(|(_, known)| *known == kind).map(|(extension, _)| *extension)
}

/// Which bytes are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    /// Those of files whose time is over. Their records stay and say so.
    Expired,
    /// Those too that have no record: what was cut on its way in or out. Only while nothing is on its way.
    Strays,
}

/// Removes bytes that nobody can have any more, before anything else happens to them.
pub(super) fn sweep(data_dir: &Path, reader: &Reader, now: Timestamp) -> Result<(), RuntimeError> {
    sweep_some(data_dir, reader, now, Sweep::Strays)
}

fn sweep_some(
    data_dir: &Path,
    reader: &Reader,
    now: Timestamp,
    which: Sweep,
) -> Result<(), RuntimeError> {
    let dir = data_dir.join(FILES);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(FileError::at("look through", &dir)(e).into()),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<FileId>().ok()) else {
            continue;
        };
        let record = match reader.record(KIND, id.as_str())? {
            None => reader.record(ATTACHED, id.as_str())?,
            found => found,
        };
        let over = match &record {
            None => which == Sweep::Strays,
            Some(record) => FileFacts::is_over(record, now),
        };
        if over {
            remove_bytes(data_dir, &id)?;
        }
    }
    Ok(())
}
