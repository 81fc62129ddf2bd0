//! Repositories of sessions: cloned on the host's side, each into its session's workspace, before its tools first run.
//!
//! What is kept for the next clone of the same URL is shared by all sessions, so nothing of it is shown on trust: each
//! clone asks the server with the session's own token first, the mirror is made to hold what that token shows, and the
//! checkout gets what can be reached from there. Two clones of one URL come one after the other.
//!
//! A session goes on without a repository that cannot be had; it is tried again whenever its sandbox starts, and when its
//! token is replaced.

mod clone;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio_util::sync::CancellationToken;

use super::config::FetchBounds;
use super::secrets::{SecretError, Secrets};
use super::{Config, Record};
use crate::egress::policy::{Policy, Target};
use crate::environment::Environment;
use crate::environment::networking::Networking;
use crate::environment::repository::{AccessToken, Checkout, RepositoryPath, RepositoryUrl};
use crate::event::{ErrorDetail, ErrorKind, RetryStatus};
use crate::sandbox::SandboxError;
use crate::sandbox::disk::{DiskError, Place};
use crate::sandbox::mirrors::Mirrors;

/// The directory of all mirrors, in the data directory.
const MIRRORS: &str = "repositories";

/// One of a session's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    /// The id of its resource.
    pub(super) id: String,
    pub(super) url: RepositoryUrl,
    pub(super) path: RepositoryPath,
    pub(super) checkout: Option<Checkout>,
}

impl Repository {
    /// That of a resource's record, if it is one.
    pub(super) fn of(record: &Record) -> Option<Self> {
        match super::resources::Resource::of(record)? {
            super::resources::Resource::GithubRepository { url, mount_path, checkout } => {
                Some(Self { id: record.id.clone(), url, path: mount_path, checkout })
            }
            super::resources::Resource::File { .. } => None,
        }
    }
}

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The rules of the environment.
    #[error("{0}")]
    Refused(String),
    /// Without TLS, where nobody said that it may be.
    #[error("a URL with http is for hosts that the environment's allowed_hosts names; use https")]
    Plain,
    /// The host.
    #[error("{0}")]
    Unreachable(String),
    /// The server wants a token.
    #[error("{}", if *.given { "its server refused the authorization_token" } else { "its server asks for an authorization_token" })]
    Authentication {
        /// Whether there was one.
        given: bool,
    },
    /// The server does not show it to this token.
    #[error("its server forbids it (403)")]
    Forbidden,
    /// The server has none.
    #[error(
        "its server has no such repository, or does not show it to this authorization_token (404)"
    )]
    NotFound,
    /// It has no such branch or commit.
    #[error("it has no {}", match .0 {
        Checkout::Branch { name } => format!("branch `{}`", name.as_str()),
        Checkout::Commit { sha } => format!("commit {}", sha.as_str()),
    })]
    NoCheckout(Checkout),
    /// It has no commits.
    #[error("it has no commit yet")]
    Empty,
    /// git.
    #[error("git is not installed on this machine, or not shown by the sandbox's profile")]
    NoGit,
    /// git, for a reason of its own.
    #[error("git could not clone it:\n{0}")]
    Failed(String),
    /// It takes too much room.
    #[error("it has more than {} MiB, with its checkout", .0 / 1024 / 1024)]
    TooLarge(u64),
    /// It took too long.
    #[error("it was not cloned within {} minutes", .0.as_secs() / 60)]
    TooLong(Duration),
    /// There is no room.
    #[error("the disk is almost full")]
    Full,
    /// Nobody waited for it any more.
    #[error("it was given up")]
    Over,
    /// The sandbox in which git runs.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// What git needs.
    #[error("failed to prepare {}: {source}", path.display())]
    Prepare {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The session's disk.
    #[error("failed to {}", whole(.0))]
    Disk(#[from] DiskError),
    /// The token at rest.
    #[error("failed to {0}")]
    Secret(#[from] SecretError),
}

fn whole(error: &DiskError) -> String {
    let source = std::error::Error::source(error);
    format!("{error}{}", source.map(|source| format!(": {source}")).unwrap_or_default())
}

impl RepositoryError {
    /// The protocol's word for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Authentication { .. } => ErrorKind::RepositoryAuthenticationError,
            Self::Refused(_) | Self::Plain | Self::Forbidden => ErrorKind::RepositoryForbiddenError,
            Self::NotFound => ErrorKind::RepositoryNotFoundError,
            Self::NoCheckout(_) | Self::Empty | Self::Disk(_) => ErrorKind::RepositoryCheckoutError,
            Self::Unreachable(_)
            | Self::NoGit
            | Self::Failed(_)
            | Self::TooLarge(_)
            | Self::TooLong(_)
            | Self::Full
            | Self::Over
            | Self::Sandbox(_)
            | Self::Prepare { .. }
            | Self::Secret(_) => ErrorKind::RepositoryCloneError,
        }
    }

    /// As a session says it: it goes on without the repository.
    fn told(&self, url: &RepositoryUrl) -> ErrorDetail {
        let message = format!("the repository {url} is not there: {self}");
        ErrorDetail {
            repository_url: Some(url.to_string()),
            ..ErrorDetail::new(self.kind(), message, RetryStatus::Retrying)
        }
    }
}

/// Clones repositories for the sessions of one data directory. Cheap to clone.
#[derive(Clone)]
pub(super) struct Repositories {
    mirrors: Mirrors,
    secrets: Secrets,
    bounds: FetchBounds,
    turns: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
    /// Held while a mirror is opened or mirrors are thinned out.
    shelf: Arc<Mutex<()>>,
}

/// Where a session's repositories come to, and what it may reach.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) disk: Place,
    pub(super) environment: Environment,
    pub(super) policy: Policy,
}

impl Repositories {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            mirrors: Mirrors::at(config.data_dir.join(MIRRORS)),
            secrets: Secrets::of(&config.data_dir),
            bounds: config.repositories,
            turns: Arc::default(),
            shelf: Arc::default(),
        }
    }

    /// Keeps the token of a repository, sealed.
    pub(super) fn keep_token(
        &self,
        disk: &Place,
        id: &str,
        token: &AccessToken,
    ) -> Result<(), RepositoryError> {
        let sealed = self.secrets.seal(id, token.reveal())?;
        Ok(disk.keep_token(id, &sealed)?)
    }

    /// Sees to it that all of these are in the session's workspace; what those that are not are told.
    pub(super) async fn provide_all(&self, all: &[Repository], site: &Site) -> Vec<ErrorDetail> {
        let mut troubles = Vec::new();
        for repository in all {
            if let Err(error) = self.provide(repository, site, None).await {
                troubles.push(error.told(&repository.url));
            }
        }
        troubles
    }

    /// Sees to it that the repository is in the session's workspace; with this token, or with the one that is kept. Ends
    /// when it is dropped.
    pub(super) async fn provide(
        &self,
        repository: &Repository,
        site: &Site,
        token: Option<AccessToken>,
    ) -> Result<(), RepositoryError> {
        if site.disk.has_repository(&repository.id, repository.path.relative())? {
            return Ok(());
        }
        check(&repository.url, &site.environment.networking, &site.policy)?;
        let key = key_of(&repository.url);
        let turn = self.turn(&key).lock_owned().await;
        let over = CancellationToken::new();
        let _given_up = over.clone().drop_guard();
        let (own, repository, site) = (self.clone(), repository.clone(), site.clone());
        let work = move || {
            let _turn = turn;
            own.provide_now(&key, &repository, &site, token, &over)
        };
        tokio::task::spawn_blocking(work).await.expect("cloning does not panic")
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().expect("nothing panics under this lock");
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn provide_now(
        &self,
        key: &str,
        repository: &Repository,
        site: &Site,
        token: Option<AccessToken>,
        over: &CancellationToken,
    ) -> Result<(), RepositoryError> {
        let path = repository.path.relative();
        // Somebody may have done it while this waited for its turn.
        if site.disk.has_repository(&repository.id, path)? {
            return Ok(());
        }
        let token = token
            .map_or_else(|| self.token(&site.disk, &repository.id), |given| Ok(Some(given)))?;
        let prepare = |source| RepositoryError::Prepare { path: PathBuf::from(MIRRORS), source };
        let mirror = {
            let _alone = self.shelf.lock().expect("nothing panics under this lock");
            self.mirrors.open(key).map_err(prepare)?
        };
        let job = clone::Job {
            repository,
            token: token.as_ref(),
            profile: &site.environment.profile,
            policy: &site.policy,
            bounds: self.bounds,
            over,
        };
        let ended = clone::clone(mirror.directory(), &job);
        let outcome = ended
            .outcome
            .and_then(|()| Ok(site.disk.take_repository(&repository.id, &mirror.out(), path)?));
        if ended.by_itself {
            let _alone = self.shelf.lock().expect("nothing panics under this lock");
            mirror.settle().and_then(|()| self.mirrors.thin()).map_err(prepare)?;
        }
        outcome
    }

    fn token(&self, disk: &Place, id: &str) -> Result<Option<AccessToken>, RepositoryError> {
        let Some(sealed) = disk.token(id)? else { return Ok(None) };
        let token = self.secrets.open(id, &sealed)?;
        Ok(Some(AccessToken::try_from(token).map_err(|_| SecretError::Sealed)?))
    }
}

/// Whether the rules of an environment allow a repository: before anything is asked of the network.
///
/// # Errors
/// If they do not.
pub(super) fn check(
    url: &RepositoryUrl,
    networking: &Networking,
    policy: &Policy,
) -> Result<(), RepositoryError> {
    let target = Target { host: url.host().clone(), port: url.port() };
    policy.judge(&target).map_err(|refusal| RepositoryError::Refused(refusal.to_string()))?;
    let named = match networking {
        Networking::Limited { allowed_hosts, .. } => {
            allowed_hosts.iter().any(|rule| rule.covers(url.host(), url.port()))
        }
        Networking::None | Networking::Unrestricted => false,
    };
    if url.scheme() == "http" && !named { Err(RepositoryError::Plain) } else { Ok(()) }
}

/// What names the mirror of a URL.
fn key_of(url: &RepositoryUrl) -> String {
    let digest = digest(&SHA256, url.as_str().as_bytes());
    digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
