//! Files that a client's words refer to. What a session was told must be said to the model again with each request, in the
//! same bytes, as long as the session lives: so it gets bytes of its own when it is told, and keeps them when the file is
//! deleted or its time is over.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::files::{self, ATTACHED, FileFacts};
use super::resources::Given;
use super::{Input, Record, RecordFilter, Runtime, RuntimeError};
use crate::event::{ContentBlock, DocumentSource, ImageSource};
use crate::id::{FileId, SessionId};
use crate::limits::{MAX_ATTACHED_BYTES, MAX_ATTACHED_FILES, MAX_MEDIA_BYTES, MAX_TASK_BYTES};
use crate::session::{Attached, AttachedFiles};
use crate::store::{NewRecord, Reader};

/// Image formats that models take.
pub const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// The document that is not text.
const PDF: &str = "application/pdf";

/// Why a session cannot be told what a file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// No such file, or none any more.
    #[error("there is no file `{0}`")]
    NoFile(FileId),
    /// An image that is none.
    #[error("the file is {found}, and an image must be one of {}", IMAGES.join(", "))]
    NoImage {
        /// What it is.
        found: String,
    },
    /// A document that models cannot read.
    #[error("the file is {found}, and a document must be a PDF or UTF-8 text")]
    NoDocument {
        /// What it is.
        found: String,
    },
    /// More than a model takes of one.
    #[error("the file has {bytes} bytes; a model takes at most {most} of it")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// More than one request may refer to.
    #[error("at most {MAX_ATTACHED_FILES} files can be referred to at once")]
    TooMany,
    /// More than a model takes in one conversation.
    #[error("all files of the session's conversation have more than {MAX_ATTACHED_BYTES} bytes")]
    Full,
}

/// What a block is made of: a file as an image, or as a document.
struct Reference<'a> {
    input: usize,
    block: usize,
    file_id: &'a str,
    image: bool,
}

fn references(inputs: &[Input]) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    for (input, said) in inputs.iter().enumerate() {
        let content = match said {
            Input::Message(content) | Input::System(content) => content.as_slice(),
            Input::CustomResult { content, .. } => content.as_deref().unwrap_or_default(),
            Input::Interrupt { .. } | Input::Confirm { .. } => &[],
        };
        for (block, content) in content.iter().enumerate() {
            let (file_id, image) = match content {
                ContentBlock::Image { source: ImageSource::File { file_id } } => (file_id, true),
                ContentBlock::Document { source: DocumentSource::File { file_id }, .. } => {
                    (file_id, false)
                }
                _ => continue,
            };
            found.push(Reference { input, block, file_id, image });
        }
    }
    found
}

impl Runtime {
    /// Bytes of the session's own for every file that the inputs refer to and that it does not have yet.
    ///
    /// # Errors
    /// Names the block whose file cannot be told.
    pub(super) fn attach(&self, id: &SessionId, inputs: &[Input]) -> Result<Given, RuntimeError> {
        let mut given = Given::default();
        let references = references(inputs);
        if references.is_empty() {
            return Ok(given);
        }
        let known = of_session(self.reader(), id)?;
        let facts = known.iter().filter_map(|record| Some((said(record)?, FileFacts::of(record)?)));
        let mut known: BTreeMap<String, FileFacts> = facts.collect();
        let mut bytes: u64 = known.values().map(|facts| facts.size_bytes).sum();
        for (n, reference) in references.into_iter().enumerate() {
            let Reference { input, block, file_id, image } = reference;
            let refuse = |source| RuntimeError::Attachment { input, block, source };
            if n >= MAX_ATTACHED_FILES {
                return Err(refuse(AttachmentError::TooMany));
            }
            if let Some(facts) = known.get(file_id) {
                check_kind(facts, image).map_err(refuse)?;
                continue;
            }
            let facts = self.attach_one(id, file_id, image, &mut given)?.map_err(refuse)?;
            bytes += facts.size_bytes;
            if bytes > MAX_ATTACHED_BYTES {
                return Err(refuse(AttachmentError::Full));
            }
            known.insert(file_id.to_owned(), facts);
        }
        Ok(given)
    }

    fn attach_one(
        &self,
        id: &SessionId,
        file_id: &str,
        image: bool,
        given: &mut Given,
    ) -> Result<Result<FileFacts, AttachmentError>, RuntimeError> {
        let now = self.shared.clock.now();
        let file: FileId = file_id.parse().expect("whoever made the block has read the id");
        let Some(mut facts) = self.usable_file(&file, now)? else {
            return Ok(Err(AttachmentError::NoFile(file)));
        };
        let most = match (image, facts.mime_type.as_str()) {
            (true, _) | (false, PDF) => MAX_MEDIA_BYTES,
            (false, _) => MAX_TASK_BYTES,
        } as u64;
        if facts.size_bytes > most {
            return Ok(Err(AttachmentError::TooLarge { bytes: facts.size_bytes, most }));
        }
        if !image && facts.mime_type != PDF {
            let mut text = Vec::new();
            let read = self.open_file(&file)?.take(most).read_to_end(&mut text);
            if read.is_err() || std::str::from_utf8(&text).is_err() {
                return Ok(Err(AttachmentError::NoDocument { found: facts.mime_type }));
            }
            facts.mime_type = "text/plain".to_owned();
        }
        if let Err(error) = check_kind(&facts, image) {
            return Ok(Err(error));
        }
        let bytes = self.share(&file)?;
        let facts = FileFacts { expires_in_seconds: None, ..facts };
        let mut record = facts.record(ATTACHED, &bytes.id, Some(id.to_string()), now);
        record.body[SAID] = file_id.into();
        given.records.push(record);
        given.bytes.push(bytes);
        Ok(Ok(facts))
    }

    /// Bytes for all that another session's conversation refers to.
    pub(super) fn attach_alike(
        &self,
        from: &SessionId,
        to: &SessionId,
        given: &mut Given,
    ) -> Result<(), RuntimeError> {
        for record in of_session(self.reader(), from)? {
            let Ok(known) = record.id.parse() else { continue };
            let bytes = self.share(&known)?;
            given.records.push(NewRecord {
                kind: ATTACHED,
                id: bytes.id.to_string(),
                owner: Some(to.to_string()),
                created_at: self.shared.clock.now(),
                body: record.body,
            });
            given.bytes.push(bytes);
        }
        Ok(())
    }

    /// What a session's conversation refers to.
    pub(super) fn attached_files(&self, id: &SessionId) -> AttachedFiles {
        let (store, data_dir) = (self.shared.store.clone(), self.config().data_dir.clone());
        let id = id.clone();
        Arc::new(move |file_id| find(store.reader(), &data_dir, &id, file_id))
    }

    /// Commits what the session was given to be told, before it is told.
    pub(super) async fn keep_attached(
        &self,
        id: &SessionId,
        mut given: Given,
    ) -> Result<Vec<FileId>, RuntimeError> {
        if given.records.is_empty() {
            return Ok(Vec::new());
        }
        let kept = given.bytes.iter().map(|draft| draft.id.clone()).collect();
        let records: Vec<NewRecord> = std::mem::take(&mut given.records);
        given.commit(self.shared.store.exchange_records(id, Vec::new(), records)).await?;
        Ok(kept)
    }

    /// Takes it back: the session was not told.
    pub(super) async fn detach(&self, id: &SessionId, kept: &[FileId]) -> Result<(), RuntimeError> {
        if kept.is_empty() {
            return Ok(());
        }
        let gone = kept.iter().map(|file| (ATTACHED, file.to_string())).collect();
        self.shared.store.exchange_records(id, gone, Vec::new()).await?;
        let removed = kept.iter().map(|id| files::remove_bytes(&self.config().data_dir, id));
        Ok(removed.collect::<Result<_, _>>()?)
    }
}

/// The field of a record that says by which id the client knows the bytes.
const SAID: &str = "file_id";

fn said(record: &Record) -> Option<String> {
    record.body[SAID].as_str().map(str::to_owned)
}

/// Oldest first.
fn of_session(reader: &Reader, id: &SessionId) -> Result<Vec<Record>, RuntimeError> {
    let owner = Some(id.to_string());
    let filter = RecordFilter { kind: ATTACHED, owner, ..RecordFilter::default() };
    let mut records = reader.records(&filter, usize::MAX)?;
    records.reverse();
    Ok(records)
}

/// Whether those bytes can be said as an image, or as a document.
fn check_kind(facts: &FileFacts, image: bool) -> Result<(), AttachmentError> {
    let found = facts.mime_type.clone();
    if image && !IMAGES.contains(&found.as_str()) {
        return Err(AttachmentError::NoImage { found });
    }
    if !image && !["text/plain", PDF].contains(&found.as_str()) {
        return Err(AttachmentError::NoDocument { found });
    }
    Ok(())
}

/// Reads what a block refers to; nothing, if it is lost.
fn find(reader: &Reader, data_dir: &Path, id: &SessionId, file_id: &str) -> Option<Attached> {
    let records = of_session(reader, id).ok()?;
    let record = records.iter().find(|record| said(record).as_deref() == Some(file_id))?;
    let facts = FileFacts::of(record)?;
    let bytes = std::fs::read(files::bytes_of(data_dir, &record.id.parse().ok()?)).ok()?;
    Some(Attached { name: facts.filename, media_type: facts.mime_type, bytes })
}
