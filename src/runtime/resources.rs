//! What sessions are given: files that they can read at a place of their own. A resource is a record that goes with its
//! session; what it stands for is put into the session's disk before that record is committed, and taken away after it is
//! gone. So what is there without a record was cut on its way in or out, and the next start takes it away.
//!
//! How to add a kind: a variant of [`NewResource`] and one of [`Resource`], an arm of `Runtime::materialise`, and its
//! reading and its view in `api/resources`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::files::{self, Draft, FileFacts};
use super::repositories::{self, Repository, RepositoryError};
use super::{Input, Record, RecordFilter, Runtime, RuntimeError, SessionStatus};
use crate::clock::Timestamp;
use crate::environment::repository::{
    AccessToken, Checkout, RepositoryPath, RepositoryUrl, check_names,
};
use crate::environment::{Environment, UPLOADS};
use crate::id::{FileId, ResourceId, SessionId};
use crate::limits::{MAX_MOUNT_PATH_BYTES, MAX_SESSION_FILES, MAX_SESSION_REPOSITORIES};
use crate::sandbox::disk::{Place, Shown};
use crate::store::{NewRecord, Reader, StoreError};

/// The kind of a resource's record.
pub const KIND: &str = "session_resource";

/// What a session is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewResource {
    /// A stored file.
    File {
        /// Which. The session gets one of its own with the same bytes.
        file_id: FileId,
        /// Where it is to be read.
        mount_path: UploadPath,
    },
    /// A git repository.
    GithubRepository {
        /// Where it is.
        url: RepositoryUrl,
        /// Where the session finds it.
        mount_path: RepositoryPath,
        /// What of it; its default branch if nothing is said.
        checkout: Option<Checkout>,
        /// What its server asks for.
        token: Option<AccessToken>,
    },
}

impl NewResource {
    /// A repository as the model is told of it: where it finds it, and of what address.
    pub(super) fn told(&self) -> Option<(String, String)> {
        match self {
            Self::File { .. } => None,
            Self::GithubRepository { url, mount_path, .. } => {
                Some((mount_path.to_string(), url.to_string()))
            }
        }
    }
}

/// What a session was given: the body of the resource's record, and what clients see of it besides its id and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Resource {
    /// A file that is the session's own.
    File {
        /// Which.
        file_id: FileId,
        /// Where the session reads it.
        mount_path: UploadPath,
    },
    /// A git repository, of any server.
    GithubRepository {
        /// Where it is.
        url: RepositoryUrl,
        /// Where the session finds it.
        mount_path: RepositoryPath,
        /// What of it; its default branch if nothing was said.
        checkout: Option<Checkout>,
    },
}

impl Resource {
    /// That of a record.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        serde_json::from_value(record.body.clone()).ok()
    }
}

/// A path at which a session reads a file: absolute, below `/mnt/session/uploads`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadPath(String);

impl UploadPath {
    /// Where a file is that was given no path: clients know it beforehand.
    #[must_use]
    pub fn of(file: &FileId) -> Self {
        Self(format!("{UPLOADS}/{file}"))
    }

    /// Below the directory of uploads.
    #[must_use]
    pub fn relative(&self) -> &Path {
        let rest = self.0.strip_prefix(UPLOADS).unwrap_or_default();
        Path::new(rest.trim_start_matches('/'))
    }

    /// Whether both can be there: they are not the same, and none lies below the other.
    fn is_apart_from(&self, other: &Self) -> bool {
        let (one, other) = (self.relative(), other.relative());
        !one.starts_with(other) && !other.starts_with(one)
    }
}

impl fmt::Display for UploadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a path as clients give it: `/data.csv` is a place below the directory of uploads, as is its whole path.
impl FromStr for UploadPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else { return Err("must be an absolute path") };
        if text.len() > MAX_MOUNT_PATH_BYTES {
            return Err("must have at most 1024 bytes");
        }
        let below = text.strip_prefix(UPLOADS).and_then(|below| below.strip_prefix('/'));
        let relative = below.unwrap_or(rest);
        if relative.is_empty() || text == UPLOADS {
            return Err("must name a file");
        }
        check_names(relative)?;
        Ok(Self(format!("{UPLOADS}/{relative}")))
    }
}

impl Serialize for UploadPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UploadPath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a session cannot be given something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// No such file, or none any more.
    #[error("there is no file `{0}`")]
    NoFile(FileId),
    /// Something is there already.
    #[error("{path} cannot be had: the session has a file at {taken}")]
    Taken {
        /// What was asked for.
        path: UploadPath,
        /// What is there.
        taken: UploadPath,
    },
    /// More than a session can have.
    #[error("a session can have at most {MAX_SESSION_FILES} files")]
    TooMany,
    /// Another repository is there, or above or below.
    #[error("{path} cannot be had: the session has a repository at {taken}")]
    RepositoryTaken {
        /// What was asked for.
        path: RepositoryPath,
        /// What is there.
        taken: RepositoryPath,
    },
    /// More than a session can have.
    #[error("a session can have at most {MAX_SESSION_REPOSITORIES} repositories")]
    TooManyRepositories,
    /// A repository stays as long as its session.
    #[error("a repository stays as long as its session")]
    Stays,
    /// Something that has no token.
    #[error("only a github_repository has a token, and this resource is none")]
    NoToken,
    /// The session has no such resource.
    #[error("there is no session resource `{0}`")]
    NoResource(String),
}

/// What is in the session's disk, and waits for its records.
#[derive(Default)]
pub(super) struct Given {
    pub(super) records: Vec<NewRecord>,
    pub(super) bytes: Vec<Draft>,
    shown: Vec<Shown>,
}

impl Given {
    /// Nothing but bytes.
    pub(super) fn of(bytes: Vec<Draft>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Awaits the commit of the records. Without it nothing stays of what they stand for.
    pub(super) async fn commit<T>(
        mut self,
        commit: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RuntimeError> {
        if let Some(first) = self.bytes.first() {
            first.sync_name().await?;
        }
        self.keep(true);
        let committed = commit.await;
        self.keep(committed.is_ok());
        Ok(committed?)
    }

    fn keep(&mut self, kept: bool) {
        self.bytes.iter_mut().for_each(|bytes| bytes.keep(kept));
        self.shown.iter_mut().for_each(|shown| shown.keep(kept));
    }
}

impl Runtime {
    /// What the session was given, in that order.
    ///
    /// # Errors
    /// The store's.
    pub fn resources(&self, id: &SessionId) -> Result<Vec<Record>, RuntimeError> {
        let filter = of_session(id);
        let mut records = self.reader().records(&filter, usize::MAX)?;
        records.reverse();
        Ok(records)
    }

    /// Gives a session something more; it is there at its next call.
    ///
    /// # Errors
    /// A place that is taken, a file that is not there, too many; a session that has ended. Nothing is changed then.
    pub async fn add_resource(
        &self,
        id: &SessionId,
        new: NewResource,
    ) -> Result<Record, RuntimeError> {
        let _alone = self.shared.giving.lock().await;
        let row = self.row(id)?;
        if row.status == SessionStatus::Terminated {
            return Err(RuntimeError::Terminated(row.id));
        }
        let present: Vec<_> = self.resources(id)?.iter().filter_map(Resource::of).collect();
        check_places(&present, std::slice::from_ref(&new))?;
        let environment = self.environment_of(&row)?;
        self.disk(id).prepare(environment.workspace_mode, &environment.workspace)?;
        let mut given = Given::default();
        self.materialise(id, &new, &mut given).await?;
        let records = std::mem::take(&mut given.records);
        let commit = self.shared.store.exchange_records(id, Vec::new(), records);
        let attached = given.commit(commit).await;
        // A session that was deleted meanwhile leaves no disk.
        if attached.is_err() && self.reader().session(id)?.is_none() {
            self.disk(id).remove()?;
        }
        let added = attached?.into_iter().next_back();
        Ok(added.expect("the record of a resource is the last of those that are made for it"))
    }

    /// Takes something away from a session.
    ///
    /// # Errors
    /// If it has no such resource, or has ended.
    pub async fn remove_resource(
        &self,
        id: &SessionId,
        resource: &ResourceId,
    ) -> Result<(), RuntimeError> {
        let _alone = self.shared.giving.lock().await;
        let row = self.row(id)?;
        if row.status == SessionStatus::Terminated {
            return Err(RuntimeError::Terminated(row.id));
        }
        let (_, found) = self.resource(id, resource)?;
        match found {
            Resource::GithubRepository { .. } => Err(ResourceError::Stays.into()),
            Resource::File { file_id, mount_path } => {
                // The file itself may have been deleted.
                let gone = vec![(KIND, resource.to_string()), (files::KIND, file_id.to_string())];
                self.shared.store.exchange_records(id, gone, Vec::new()).await?;
                self.disk(id).hide(mount_path.relative())?;
                Ok(files::remove_bytes(&self.config().data_dir, &file_id)?)
            }
        }
    }

    /// Replaces the token of a repository. One that is not there yet is cloned with it at once: then it is tried.
    ///
    /// # Errors
    /// If the session has no such resource or it has no token, has ended, or the repository cannot be had with it; the
    /// token before is kept then.
    pub async fn replace_token(
        &self,
        id: &SessionId,
        resource: &ResourceId,
        token: AccessToken,
    ) -> Result<Record, RuntimeError> {
        let row = self.row(id)?;
        if row.status == SessionStatus::Terminated {
            return Err(RuntimeError::Terminated(row.id));
        }
        let (record, _) = self.resource(id, resource)?;
        let repository = Repository::of(&record).ok_or(ResourceError::NoToken)?;
        let site = self.site(id, self.environment_of(&row)?);
        let repositories = &self.shared.repositories;
        repositories.provide(&repository, &site, Some(token.clone())).await?;
        repositories.keep_token(&site.disk, &record.id, &token)?;
        self.change_record(KIND, &record, record.body.clone(), false).await
    }

    /// A resource of that session.
    fn resource(
        &self,
        id: &SessionId,
        resource: &ResourceId,
    ) -> Result<(Record, Resource), RuntimeError> {
        let missing = || ResourceError::NoResource(resource.to_string());
        let record = self.reader().record(KIND, resource.as_str())?;
        let record = record.filter(|record| record.owner.as_deref() == Some(id.as_str()));
        let record = record.ok_or_else(missing)?;
        let found = Resource::of(&record).ok_or_else(missing)?;
        Ok((record, found))
    }

    /// The repositories among what the session was given.
    pub(super) fn repositories_of(&self, id: &SessionId) -> Result<Vec<Repository>, RuntimeError> {
        Ok(self.resources(id)?.iter().filter_map(Repository::of).collect())
    }

    /// Whether an environment's rules allow its sessions a repository.
    ///
    /// # Errors
    /// If they do not.
    pub fn check_repository(
        &self,
        url: &RepositoryUrl,
        environment: &Environment,
    ) -> Result<(), RepositoryError> {
        repositories::check(url, &environment.networking, &self.policy(environment))
    }

    /// Puts all of these into the disk of a session that is about to be created, and what it is told refers to.
    pub(super) async fn give(
        &self,
        id: &SessionId,
        resources: &[NewResource],
        told: &[Input],
    ) -> Result<Given, RuntimeError> {
        check_places(&[], resources)?;
        let mut given = self.attach(id, told)?;
        for resource in resources {
            self.materialise(id, resource, &mut given).await?;
        }
        Ok(given)
    }

    /// All that another session has, for one that goes on from it.
    pub(super) async fn give_alike(
        &self,
        from: &SessionId,
        to: &SessionId,
    ) -> Result<Given, RuntimeError> {
        let mut given = Given::default();
        for record in self.resources(from)? {
            let Some(Resource::File { file_id, mount_path }) = Resource::of(&record) else {
                continue;
            };
            match self.materialise(to, &NewResource::File { file_id, mount_path }, &mut given).await
            {
                // A client may have deleted the session's file.
                Ok(()) | Err(RuntimeError::Resource(ResourceError::NoFile(_))) => {}
                Err(error) => return Err(error),
            }
        }
        self.attach_alike(from, to, &mut given)?;
        Ok(given)
    }

    /// Puts what a resource stands for into a session's disk, where its sandbox shows it: now if one is up, and in each
    /// that comes up later. Its records are added to `given`, its own as the last; dropping that undoes all of it.
    async fn materialise(
        &self,
        id: &SessionId,
        new: &NewResource,
        given: &mut Given,
    ) -> Result<(), RuntimeError> {
        let now = self.shared.clock.now();
        let owner = Some(id.to_string());
        let resource_id = ResourceId::mint(now).to_string();
        let resource = match new {
            NewResource::File { file_id, mount_path } => {
                let facts = self.usable_file(file_id, now)?;
                let facts = facts.ok_or_else(|| ResourceError::NoFile(file_id.clone()))?;
                let bytes = self.share(file_id)?;
                given.shown.push(self.disk(id).show(mount_path.relative(), &bytes.path)?);
                // The time of what was uploaded is not that of what the session has.
                let facts = FileFacts { expires_in_seconds: None, ..facts };
                given.records.push(facts.record(files::KIND, &bytes.id, owner.clone(), now));
                let file_id = bytes.id.clone();
                given.bytes.push(bytes);
                Resource::File { file_id, mount_path: mount_path.clone() }
            }
            NewResource::GithubRepository { url, mount_path, checkout, token } => {
                if let Some(token) = token {
                    // Gone with the disk, if the session never comes to be.
                    self.shared.repositories.keep_token(&self.disk(id), &resource_id, token)?;
                }
                Resource::GithubRepository {
                    url: url.clone(),
                    mount_path: mount_path.clone(),
                    checkout: checkout.clone(),
                }
            }
        };
        let body = serde_json::to_value(resource).expect("a resource has string keys only");
        given.records.push(NewRecord { kind: KIND, id: resource_id, owner, created_at: now, body });
        Ok(())
    }

    /// What is known of a file whose time is not over.
    pub(super) fn usable_file(
        &self,
        id: &FileId,
        now: Timestamp,
    ) -> Result<Option<FileFacts>, RuntimeError> {
        let record = self.reader().record(files::KIND, id.as_str())?;
        let record = record.filter(|record| !FileFacts::is_over(record, now));
        Ok(record.as_ref().and_then(FileFacts::of))
    }
}

fn of_session(id: &SessionId) -> RecordFilter {
    RecordFilter { kind: KIND, owner: Some(id.to_string()), ..RecordFilter::default() }
}

/// Whether all of the new ones have a place beside those that are there, and beside each other.
fn check_places(present: &[Resource], new: &[NewResource]) -> Result<(), ResourceError> {
    let mut files: BTreeSet<UploadPath> = BTreeSet::new();
    let mut repositories: Vec<RepositoryPath> = Vec::new();
    for resource in present {
        match resource {
            Resource::File { mount_path, .. } => drop(files.insert(mount_path.clone())),
            Resource::GithubRepository { mount_path, .. } => repositories.push(mount_path.clone()),
        }
    }
    for resource in new {
        match resource {
            NewResource::File { mount_path, .. } => {
                let path = mount_path.clone();
                if let Some(taken) = files.iter().find(|other| !path.is_apart_from(other)) {
                    return Err(ResourceError::Taken { path, taken: taken.clone() });
                }
                files.insert(path);
            }
            NewResource::GithubRepository { mount_path, .. } => {
                let path = mount_path.clone();
                if let Some(taken) = repositories.iter().find(|other| !path.is_apart_from(other)) {
                    return Err(ResourceError::RepositoryTaken { path, taken: taken.clone() });
                }
                repositories.push(path);
            }
        }
        if files.len() > MAX_SESSION_FILES {
            return Err(ResourceError::TooMany);
        }
        if repositories.len() > MAX_SESSION_REPOSITORIES {
            return Err(ResourceError::TooManyRepositories);
        }
    }
    Ok(())
}

/// Makes what the sessions are shown what their records say: takes away what was cut on its way in or out, and puts back
/// what a crash of the machine took.
pub(super) fn sweep(data_dir: &Path, reader: &Reader) -> Result<(), RuntimeError> {
    let filter = RecordFilter { kind: KIND, ..RecordFilter::default() };
    let mut wanted: BTreeMap<String, BTreeMap<PathBuf, FileId>> = BTreeMap::new();
    for record in reader.records(&filter, usize::MAX)? {
        if let (Some(owner), Some(Resource::File { file_id, mount_path })) =
            (&record.owner, Resource::of(&record))
        {
            let paths = wanted.entry(owner.clone()).or_default();
            paths.insert(mount_path.relative().to_owned(), file_id);
        }
    }
    let none = BTreeMap::new();
    for name in Place::names(data_dir)? {
        let (place, wanted) = (Place::of(data_dir, &name), wanted.get(&name).unwrap_or(&none));
        let shown: BTreeSet<_> = place.shown()?.into_iter().collect();
        for stray in shown.iter().filter(|path| !wanted.contains_key(*path)) {
            place.hide(stray)?;
        }
        for (path, file) in wanted.iter().filter(|(path, _)| !shown.contains(*path)) {
            let bytes = files::bytes_of(data_dir, file);
            // A client may have deleted the session's file; what it was shown of it is lost with the machine's crash.
            if bytes.exists() && place.uploads().exists() {
                place.show(path, &bytes)?.keep(true);
            }
        }
    }
    Ok(())
}
