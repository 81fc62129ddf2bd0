//! Stored skills and their versions. A version is a directory of files below the data directory that nobody changes, named
//! by its record; a skill is a record that its versions go with.
//!
//! First the bytes, then the record; and the other way round when they go. So a crash leaves bytes that nobody knows, which
//! the next start sweeps, and never a record without bytes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::tree::Tree;
use super::{Chosen, Source, archive};
use crate::clock::Timestamp;
use crate::id::{SkillId, SkillVersionId};
use crate::limits::MAX_SKILL_BYTES;
use crate::runtime::files::FileError;
use crate::runtime::{Record, RecordFilter, Runtime, RuntimeError};
use crate::sandbox::disk;
use crate::skill::{self, SKILL_FILE, Severity};
use crate::store::{NewRecord, Reader};

/// The kind of a skill's record.
pub const SKILL: &str = "skill";
/// The kind of a version's record; its owner is the skill.
pub const VERSION: &str = "skill_version";
/// What stands for the newest version.
pub const LATEST: &str = "latest";
/// The directory of all versions, in the data directory.
const SKILLS: &str = "skills";

/// Why a skill cannot be stored, had or removed.
#[derive(Debug, thiserror::Error)]
pub enum SkillError {
    /// The upload is no skill: what is wrong with it.
    #[error("{0}")]
    Refused(String),
    /// It is too large.
    #[error("a skill can have at most {MAX_SKILL_BYTES} bytes")]
    TooLarge,
    /// Another skill has its name.
    #[error("there is a skill `{name}` already: {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// The skill that has it.
        id: String,
    },
    /// A version of another name.
    #[error("the name of a skill stays: it is `{name}`, and the upload's `{given}`")]
    OtherName {
        /// The skill's.
        name: String,
        /// The upload's.
        given: String,
    },
    /// No such skill.
    #[error("there is no skill `{0}`")]
    NoSkill(String),
    /// No such version.
    #[error("the skill `{skill}` has no version `{version}`")]
    NoVersion {
        /// Which skill.
        skill: String,
        /// What was asked for.
        version: String,
    },
    /// A skill has a version at any time.
    #[error("`{0}` is the only version of its skill: delete the skill instead")]
    OnlyVersion(String),
    /// Its bytes.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SkillError {
    /// A refusal because of one file of the upload.
    pub(super) fn of(path: &str, problem: impl AsRef<str>) -> Self {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(200).collect();
        Self::Refused(format!("{shown}: {}", problem.as_ref()))
    }

    pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let fail = FileError::at(what, path);
        move |source| Self::File(fail(source))
    }
}

/// What is known of a skill: the body of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillFacts {
    /// That of all its versions.
    pub name: String,
    /// A label for people.
    pub display_name: String,
}

/// What is known of a version: the body of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFacts {
    /// The skill's.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// What its files hold and are called.
    pub digest: String,
    /// Of all its files.
    pub size_bytes: u64,
}

/// A skill that is being received. Dropped before it is stored, it leaves nothing behind.
#[derive(Debug)]
pub struct SkillUpload {
    draft: Draft,
    tree: Tree,
    zip: Option<(File, u64)>,
}

/// The place of a version that has no record yet.
#[derive(Debug)]
struct Draft {
    id: SkillVersionId,
    path: PathBuf,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What stays in spite of this is swept at the next start.
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

/// An upload that is a skill.
#[derive(Debug)]
struct Received {
    draft: Draft,
    facts: VersionFacts,
}

impl SkillUpload {
    /// Begins a file of the skill, `top/below`.
    ///
    /// # Errors
    /// A path that no file of a skill can have.
    pub fn begin(&mut self, path: &str) -> Result<(), SkillError> {
        if self.zip.is_some() {
            return Err(SkillError::of(path, "comes after a zip file, which is the whole skill"));
        }
        self.tree.begin(path, None)
    }

    /// Begins a zip file that is the whole skill.
    ///
    /// # Errors
    /// If something else is there already.
    pub fn begin_zip(&mut self, name: &str) -> Result<(), SkillError> {
        if self.zip.is_some() || self.tree.top().is_some() {
            return Err(SkillError::of(name, "is a zip file, which must be all of the upload"));
        }
        let path = self.draft.path.join("zip");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(SkillError::at("make", &path))?;
        // Nobody needs its name any more.
        std::fs::remove_file(&path).map_err(SkillError::at("remove", &path))?;
        self.zip = Some((file, 0));
        Ok(())
    }

    /// More bytes of the file that was begun last.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SkillError> {
        let Some((zip, size)) = &mut self.zip else { return self.tree.write(bytes) };
        *size += bytes.len() as u64;
        if *size > MAX_SKILL_BYTES {
            return Err(SkillError::TooLarge);
        }
        zip.write_all(bytes).map_err(SkillError::at("write", &self.draft.path))
    }

    /// Makes a durable skill of what was received. Blocks.
    fn finish(mut self) -> Result<Received, SkillError> {
        if let Some((mut zip, _)) = self.zip.take() {
            archive::unpack(&mut zip, &mut self.tree)?;
        }
        self.tree.end()?;
        let missing = || SkillError::Refused("at least one file is needed".to_owned());
        let top = self.tree.top().ok_or_else(missing)?;
        let root = tree_in(&self.draft.path);
        let file = format!("{top}/{SKILL_FILE}");
        let bytes = match std::fs::read(root.join(SKILL_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let problem = "is not there: a skill has a file of that very name at its top";
                return Err(SkillError::of(&file, problem));
            }
            bytes => bytes.map_err(|_| SkillError::of(&file, "is not a file"))?,
        };
        let reading = skill::read(&file, top, &bytes);
        let bad = reading.diagnostics.iter().rfind(|one| one.severity > Severity::Note);
        if let Some(bad) = bad {
            return Err(SkillError::Refused(bad.to_string()));
        }
        let skill = reading.skill.expect("where nothing is fatal there is a skill");
        let facts = VersionFacts {
            name: skill.name,
            description: skill.description,
            digest: disk::digest(&root).map_err(SkillError::at("read", &root))?,
            size_bytes: self.tree.bytes(),
        };
        let directory = File::open(&root).map_err(SkillError::at("sync", &root))?;
        let synced = nix::unistd::syncfs(&directory).map_err(io::Error::from);
        synced.map_err(SkillError::at("sync", &root))?;
        Ok(Received { draft: self.draft, facts })
    }
}

impl Runtime {
    /// Begins to receive a skill.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn skill_upload(&self) -> Result<SkillUpload, SkillError> {
        let id = SkillVersionId::mint(self.shared.clock.now());
        let path = place_of(&self.config().data_dir, id.as_str());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(SkillError::at("make", &path))?;
        let draft = Draft { id, path, kept: false };
        let tree = Tree::new(&tree_in(&draft.path))?;
        Ok(SkillUpload { draft, tree, zip: None })
    }

    /// Stores a new skill with its first version.
    ///
    /// # Errors
    /// If the upload is none, or its name is taken; nothing is kept then.
    pub async fn create_skill(
        &self,
        upload: SkillUpload,
        display_name: Option<String>,
    ) -> Result<Record, RuntimeError> {
        let received = received(upload).await?;
        let _alone = self.shared.skills.lock().await;
        let name = received.facts.name.clone();
        if let Some(id) = self.skill_named(&name)? {
            return Err(SkillError::NameTaken { name, id }.into());
        }
        let now = self.shared.clock.now();
        let id = SkillId::mint(now);
        let display_name = display_name.unwrap_or_else(|| name.clone());
        let skill = NewRecord {
            kind: SKILL,
            id: id.to_string(),
            owner: None,
            created_at: now,
            body: body_of(&SkillFacts { name, display_name }),
        };
        let mut put = self.put_version(&id, received, vec![skill], now).await?;
        Ok(put.pop().expect("the skill is the last of what was put"))
    }

    /// Stores a new version of a skill.
    ///
    /// # Errors
    /// If there is no such skill, the upload is none or has another name; nothing is kept then.
    pub async fn create_skill_version(
        &self,
        skill: &str,
        upload: SkillUpload,
    ) -> Result<Record, RuntimeError> {
        let received = received(upload).await?;
        let _alone = self.shared.skills.lock().await;
        let (id, record) = find(self.reader(), skill)?;
        let name = facts::<SkillFacts>(&record)?.name;
        if name != received.facts.name {
            return Err(SkillError::OtherName { name, given: received.facts.name }.into());
        }
        let mut put = self.put_version(&id, received, vec![], self.shared.clock.now()).await?;
        self.change_record(SKILL, &record, record.body.clone(), false).await?;
        Ok(put.pop().expect("the version was put"))
    }

    /// Removes a skill with all its versions. Sessions that have it keep it.
    ///
    /// # Errors
    /// If there is none.
    pub async fn delete_skill(&self, skill: &str) -> Result<(), RuntimeError> {
        let _alone = self.shared.skills.lock().await;
        find(self.reader(), skill)?;
        let versions = self.reader().records(&versions_of(skill), usize::MAX)?;
        self.shared.store.delete_record_whole(SKILL, skill).await?;
        let data_dir = &self.config().data_dir;
        let removed = versions.iter().map(|version| remove_place(data_dir, &version.id));
        Ok(removed.collect::<Result<_, _>>()?)
    }

    /// Removes a version, unless it is the only one. Sessions that have it keep it.
    ///
    /// # Errors
    /// If there is none, or no other.
    pub async fn delete_skill_version(
        &self,
        skill: &str,
        version: &str,
    ) -> Result<String, RuntimeError> {
        let _alone = self.shared.skills.lock().await;
        let (_, record) = find(self.reader(), skill)?;
        let version = self::version(self.reader(), skill, version)?.id;
        if self.reader().records(&versions_of(skill), 2)?.len() < 2 {
            return Err(SkillError::OnlyVersion(version).into());
        }
        self.delete_record(VERSION, &version).await?;
        remove_place(&self.config().data_dir, &version)?;
        self.change_record(SKILL, &record, record.body.clone(), false).await?;
        Ok(version)
    }

    /// A version as a zip file, piece by piece, with its entries below the skill's name.
    ///
    /// # Errors
    /// If there is none.
    pub fn packed_skill(
        &self,
        skill: &str,
        version: &str,
    ) -> Result<impl Iterator<Item = io::Result<Vec<u8>>> + use<>, RuntimeError> {
        let record = self::version(self.reader(), skill, version)?;
        let facts = facts::<VersionFacts>(&record)?;
        let place = place_of(&self.config().data_dir, &record.id);
        Ok(archive::pack(tree_in(&place), &facts.name))
    }

    /// Stores a version, and with it what else begins with it.
    async fn put_version(
        &self,
        skill: &SkillId,
        received: Received,
        more: Vec<NewRecord>,
        now: Timestamp,
    ) -> Result<Vec<Record>, RuntimeError> {
        let Received { mut draft, facts } = received;
        let version = NewRecord {
            kind: VERSION,
            id: draft.id.to_string(),
            owner: Some(skill.to_string()),
            created_at: now,
            body: body_of(&facts),
        };
        // Whoever stops waiting for the commit does not know whether it has them.
        draft.kept = true;
        let all = [version].into_iter().chain(more).collect();
        let put = self.shared.store.put_records(all).await;
        draft.kept = put.is_ok();
        Ok(put?)
    }

    fn skill_named(&self, name: &str) -> Result<Option<String>, RuntimeError> {
        let filter = RecordFilter { kind: SKILL, ..RecordFilter::default() };
        let all = self.reader().records(&filter, usize::MAX)?;
        Ok(all.into_iter().find(|record| record.body["name"] == name).map(|record| record.id))
    }
}

async fn received(upload: SkillUpload) -> Result<Received, SkillError> {
    tokio::task::spawn_blocking(|| upload.finish()).await.expect("finishing does not panic")
}

/// The record of a skill.
///
/// # Errors
/// If there is none.
pub fn find(reader: &Reader, id: &str) -> Result<(SkillId, Record), RuntimeError> {
    let missing = || SkillError::NoSkill(id.chars().take(80).collect());
    let parsed: SkillId = id.parse().map_err(|_| missing())?;
    let record = reader.record(SKILL, id)?.ok_or_else(missing)?;
    Ok((parsed, record))
}

/// The record of a version of a skill; of its newest one, if that is what is asked for.
///
/// # Errors
/// If there is no such skill, or it has no such version.
pub fn version(reader: &Reader, skill: &str, version: &str) -> Result<Record, RuntimeError> {
    find(reader, skill)?;
    let found = match version {
        LATEST => reader.records(&versions_of(skill), 1)?.pop(),
        id => reader.record(VERSION, id)?,
    };
    let found = found.filter(|record| record.owner.as_deref() == Some(skill));
    Ok(found.ok_or_else(|| SkillError::NoVersion {
        skill: skill.to_owned(),
        version: version.chars().take(80).collect(),
    })?)
}

/// A stored skill as a session has it: the version is one from now on, whatever comes after it.
///
/// # Errors
/// If there is no such skill, or it has no such version.
pub fn choose(reader: &Reader, skill: &str, version: &str) -> Result<Chosen, RuntimeError> {
    let record = self::version(reader, skill, version)?;
    let VersionFacts { name, description, digest, .. } = facts(&record)?;
    let skill = skill.parse().map_err(|_| unreadable(&record))?;
    let version = record.id.parse().map_err(|_| unreadable(&record))?;
    Ok(Chosen { name, description, source: Source::Stored { skill, version, digest } })
}

/// Chooses the versions of a skill, the newest first.
#[must_use]
pub fn versions_of(skill: &str) -> RecordFilter {
    RecordFilter { kind: VERSION, owner: Some(skill.to_owned()), ..RecordFilter::default() }
}

/// What a record of a skill or of a version says.
///
/// # Errors
/// If it says something else.
pub fn facts<T: DeserializeOwned>(record: &Record) -> Result<T, RuntimeError> {
    serde_json::from_value(record.body.clone()).map_err(|_| unreadable(record).into())
}

fn unreadable(record: &Record) -> SkillError {
    let source = io::Error::other("its record cannot be read");
    SkillError::at("use", Path::new(&record.id))(source)
}

fn body_of(facts: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(facts).expect("facts have string keys only")
}

/// The place of a version, in which its tree lies.
fn place_of(data_dir: &Path, id: &str) -> PathBuf {
    data_dir.join(SKILLS).join(id)
}

fn tree_in(place: &Path) -> PathBuf {
    place.join("tree")
}

/// Where the files of a version lie.
pub(super) fn tree_of(data_dir: &Path, id: &SkillVersionId) -> PathBuf {
    tree_in(&place_of(data_dir, id.as_str()))
}

fn remove_place(data_dir: &Path, id: &str) -> Result<(), SkillError> {
    let place = place_of(data_dir, id);
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SkillError::at("remove", &place)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the files of no version: what was cut on its way in or out.
pub(in crate::runtime) fn sweep(data_dir: &Path, reader: &Reader) -> Result<(), RuntimeError> {
    let dir = data_dir.join(SKILLS);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SkillError::at("look through", &dir)(error).into()),
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(SkillVersionId::PREFIX) && reader.record(VERSION, &name)?.is_none() {
            remove_place(data_dir, &name)?;
        }
    }
    Ok(())
}
