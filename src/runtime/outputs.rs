//! What a session hands out: whatever lies below its `/mnt/session/outputs` when it comes to rest becomes files that go
//! with it. A file of ours never changes, so one that the session wrote anew is another file, in the place of the one
//! before. One that the session removed stays, and so does the absence of one that a client deleted, until it is written
//! anew.
//!
//! Bytes first, then one commit of the files and of what was seen of each: cut before it, the next start sweeps the bytes
//! and the next rest hands them out; nothing is handed out twice.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::files::{self, Draft, FileFacts};
use super::resources::Given;
use super::{Runtime, RuntimeError};
use crate::clock::{Clock, Timestamp};
use crate::environment::{Environment, WorkspaceMode};
use crate::id::{FileId, SessionId};
use crate::limits::{
    MAX_FILE_BYTES, MAX_FILE_NAME_CHARS, MAX_OUTPUT_BYTES, MAX_OUTPUTS, OUTPUTS_TOLD,
};
use crate::sandbox::disk::{Output, Place};
use crate::session::HandOut;
use crate::store::{NewRecord, Store};

/// The kind of the record that says what was seen of each output. Its id is the session's.
const KIND: &str = "session_outputs";

/// What was seen of each output, by its path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger(BTreeMap<String, Seen>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    file_id: FileId,
    size: u64,
    /// SHA-256 of its content.
    digest: String,
    /// What it looked like; if it could have changed without looking different, nothing.
    stamp: Option<String>,
}

/// Hands out what one session has made.
struct Desk {
    session: SessionId,
    place: Place,
    data_dir: PathBuf,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Runtime {
    /// What a session does with its outputs when it comes to rest; nothing, if it works on files of the user's.
    pub(super) fn hand_out(&self, id: &SessionId, environment: &Environment) -> Option<HandOut> {
        if environment.workspace_mode != WorkspaceMode::Own {
            return None;
        }
        let desk = Arc::new(Desk {
            session: id.clone(),
            place: self.disk(id),
            data_dir: self.config().data_dir.clone(),
            store: self.shared.store.clone(),
            clock: Arc::clone(&self.shared.clock),
        });
        Some(Arc::new(move || {
            let desk = Arc::clone(&desk);
            Box::pin(async move {
                match desk.hand_out().await {
                    Ok(left) if left.is_empty() => Ok(()),
                    Ok(left) => Err(told(&left)),
                    Err(error) => Err(error.to_string()),
                }
            })
        }))
    }
}

/// Why some outputs stay where they are.
fn told(left: &[String]) -> String {
    let mut text = format!("not handed out: {}", left[..left.len().min(OUTPUTS_TOLD)].join("; "));
    if left.len() > OUTPUTS_TOLD {
        text += &format!("; and {} more", left.len() - OUTPUTS_TOLD);
    }
    text
}

/// What one look at the directory found.
struct Look {
    data_dir: PathBuf,
    store: Store,
    now: Timestamp,
    ledger: Ledger,
    fresh: Vec<(Draft, FileFacts)>,
    replaced: Vec<FileId>,
    left: Vec<String>,
    /// Bytes of all that is handed out, once that matters.
    bytes: Option<u64>,
}

impl Desk {
    /// Hands out what is new; what it could not, and why.
    async fn hand_out(&self) -> Result<Vec<String>, RuntimeError> {
        let known = self.store.reader().record(KIND, self.session.as_str())?;
        let ledger: Ledger =
            known.and_then(|record| serde_json::from_value(record.body).ok()).unwrap_or_default();
        let (place, before) = (self.place.clone(), ledger.clone());
        let look = Look {
            data_dir: self.data_dir.clone(),
            store: self.store.clone(),
            now: self.clock.now(),
            ledger,
            fresh: Vec::new(),
            replaced: Vec::new(),
            left: Vec::new(),
            bytes: None,
        };
        let look = tokio::task::spawn_blocking(move || look.at(&place)).await;
        let Look { ledger, fresh, replaced, left, .. } = look.expect("a look does not panic")?;
        if ledger == before {
            return Ok(left);
        }
        let owner = Some(self.session.to_string());
        let body = serde_json::to_value(&ledger).expect("a ledger has string keys only");
        let id = self.session.to_string();
        let now = self.clock.now();
        let mut gone = vec![(KIND, id.clone())];
        gone.extend(replaced.iter().map(|file| (files::KIND, file.to_string())));
        let mut new: Vec<_> = fresh
            .iter()
            .map(|(draft, facts)| facts.record(files::KIND, &draft.id, owner.clone(), now))
            .collect();
        new.push(NewRecord { kind: KIND, id, owner, created_at: now, body });
        let bytes = fresh.into_iter().map(|(draft, _)| draft).collect();
        let commit = self.store.exchange_records(&self.session, gone, new);
        Given::of(bytes).commit(commit).await?;
        for file in &replaced {
            files::remove_bytes(&self.data_dir, file)?;
        }
        Ok(left)
    }
}

impl Look {
    /// Looks at all of them. Blocks.
    fn at(mut self, place: &Place) -> Result<Self, RuntimeError> {
        place.each_output(&mut |output| self.one(output))?;
        Ok(self)
    }

    fn one(&mut self, output: &Output<'_>) -> io::Result<()> {
        let (path, stamp, size) = (output.path(), output.stamp(), output.size());
        let known = self.ledger.0.get(&path).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.size == size) {
            let untouched = known.stamp.is_some() && known.stamp == stamp;
            if untouched || copy(output, &mut io::sink())?.digest == known.digest {
                let seen = Seen { stamp, ..known.clone() };
                self.ledger.0.insert(path, seen);
                return Ok(());
            }
        }
        if let Err(why) = self.has_room(known.as_ref(), size)? {
            self.left.push(format!("{path} ({why})"));
            return Ok(());
        }
        let (mut file, draft) =
            files::new_bytes(&self.data_dir, self.now).map_err(io::Error::other)?;
        output.fits(&file)?;
        let Copied { size, digest } = copy(output, &mut file)?;
        file.sync_all()?;
        let name: String = output.name().chars().filter(|c| !c.is_control()).collect();
        let facts = FileFacts {
            mime_type: files::type_of_name(&name).to_owned(),
            filename: name.chars().take(MAX_FILE_NAME_CHARS).collect(),
            size_bytes: size,
            downloadable: true,
            expires_in_seconds: None,
        };
        self.bytes = self.bytes.map(|bytes| bytes + size);
        self.ledger.0.insert(path, Seen { file_id: draft.id.clone(), size, digest, stamp });
        self.fresh.push((draft, facts));
        self.replaced.extend(known.map(|known| known.file_id));
        Ok(())
    }

    /// Whether one more file of that size can be handed out, in the place of another one or beside them.
    fn has_room(&mut self, known: Option<&Seen>, size: u64) -> io::Result<Result<(), String>> {
        if size > MAX_FILE_BYTES {
            return Ok(Err(format!("it has {size} bytes; a file can have {MAX_FILE_BYTES}")));
        }
        if known.is_none() && self.ledger.0.len() >= MAX_OUTPUTS {
            return Ok(Err(format!("a session can hand out {MAX_OUTPUTS} files")));
        }
        let bytes = match self.bytes {
            Some(bytes) => bytes,
            None => {
                self.ledger.0.values().map(|seen| self.stored(seen)).sum::<io::Result<u64>>()?
            }
        };
        self.bytes = Some(bytes);
        if bytes + size > MAX_OUTPUT_BYTES {
            return Ok(Err(format!("a session can hand out {MAX_OUTPUT_BYTES} bytes")));
        }
        Ok(Ok(()))
    }

    /// What it takes; nothing, if a client has deleted it.
    fn stored(&self, seen: &Seen) -> io::Result<u64> {
        let record = self.store.reader().record(files::KIND, seen.file_id.as_str());
        Ok(record.map_err(io::Error::other)?.map_or(0, |_| seen.size))
    }
}

/// What was copied of an output.
struct Copied {
    size: u64,
    digest: String,
}

/// Copies an output, which may grow meanwhile.
fn copy(output: &Output<'_>, to: &mut impl io::Write) -> io::Result<Copied> {
    let mut from = output.open()?.take(MAX_FILE_BYTES);
    let (mut hash, mut chunk, mut size) = (Context::new(&SHA256), vec![0; 64 * 1024], 0);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hash.update(&chunk[..count]);
        to.write_all(&chunk[..count])?;
        size += count as u64;
    }
    let digest = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Copied { size, digest })
}
