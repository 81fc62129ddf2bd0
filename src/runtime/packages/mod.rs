//! The packages of environments: found on the shelf, or built by whoever needs them first.
//!
//! A build runs inside of a sandbox that reaches the registries and nothing else (`build`). What it is made of is its
//! key (`key`): who needs the same waits for it, and shares it (`flight`; across processes, by the shelf's locks).

mod build;
mod flight;
mod key;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use crate::sandbox::packages::shelf::{Lease, Lock, Resolved, ShelfError, Stored};

use super::Config;
use super::config::FetchBounds;
use super::registries::Registries;
use crate::clock::Clock;
use crate::environment::packages::{Manager, Packages, PackagesError};
use crate::environment::{Environment, ProfileSource, Tier};
use crate::limits::{PACKAGES_KEY_AGE, PACKAGES_WATCH_INTERVAL};
use crate::sandbox::packages::shelf::Shelf;
use crate::sandbox::{PlanError, SandboxError};
use flight::Flights;
use key::Key;

/// The directory of all layers, in the data directory.
const SHELF: &str = "packages";

/// Why an environment's packages cannot be had. A build that began has left its log.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// They may not be asked for.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// The sandbox that they would be built or seen in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The shelf.
    #[error("failed to {0}")]
    Shelf(#[from] ShelfError),
    /// What a manager needs of the machine cannot be read or prepared.
    #[error("failed to {what} {path}")]
    Prepare {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A manager that is not there.
    #[error("the environment has {manager} packages, and the sandbox has no {program}")]
    Lacking {
        /// The manager.
        manager: Manager,
        /// What it lacks.
        program: String,
        /// The Debian package that would bring it.
        debian: &'static str,
    },
    /// A manager that could not do it.
    #[error("{manager} could not install its packages (exit code {code}){}", quoted(.said))]
    Failed {
        /// The manager.
        manager: Manager,
        /// How it ended.
        code: u8,
        /// Its last lines, and what the network refused.
        said: Vec<String>,
        /// All that it said.
        log: PathBuf,
        /// Whether a place was not among the registries.
        refused: bool,
    },
    /// A manager that was ended.
    #[error("{manager} was ended: {reason}{}", quoted(.said))]
    Ended {
        /// The manager.
        manager: Manager,
        /// Why.
        reason: Excess,
        /// Its last lines, and what the network refused.
        said: Vec<String>,
        /// All that it said.
        log: PathBuf,
    },
    /// A list of what was installed that is none.
    #[error("{manager} installed its packages and did not say which: {reason}")]
    Unresolved {
        /// The manager.
        manager: Manager,
        /// What is wrong with it.
        reason: String,
        /// All that it said.
        log: PathBuf,
    },
    /// Another process builds them, and does not end.
    #[error("another process has been building the same packages for {} minutes", .0.as_secs() / 60)]
    Waited(Duration),
    /// A build that several waited for.
    #[error("{0}")]
    Shared(Arc<BuildError>),
}

fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n{line}")).collect()
}

/// What a manager took too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Nothing happened for so long.
    Silence(Duration),
    /// All together took so long.
    Time(Duration),
    /// The layer was so large, in bytes.
    Size(u64),
    /// The disk was full.
    Disk,
    /// The program was told to end.
    End,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silence(time) => write!(
                f,
                "for {} seconds no registry sent anything, no line was printed and nothing was computed",
                time.as_secs()
            ),
            Self::Time(time) => {
                write!(f, "all packages together took {} minutes", time.as_secs() / 60)
            }
            Self::Size(bytes) => write!(
                f,
                "the packages have more than {} MiB, with what is needed to build them",
                bytes / 1024 / 1024
            ),
            Self::Disk => write!(f, "the disk is almost full"),
            Self::End => write!(f, "casemate itself was told to end"),
        }
    }
}

impl BuildError {
    /// The log of the build that failed, if one began.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        match self {
            Self::Failed { log, .. } | Self::Ended { log, .. } | Self::Unresolved { log, .. } => {
                Some(log)
            }
            Self::Shared(error) => error.log(),
            Self::Packages(_)
            | Self::Sandbox(_)
            | Self::Shelf(_)
            | Self::Prepare { .. }
            | Self::Lacking { .. }
            | Self::Waited(_) => None,
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Shared(error) => error.hint(),
            Self::Shelf(ShelfError::Unknown(_) | ShelfError::Ambiguous(_)) => {
                Some("`casemate env list` shows the keys that there are".to_owned())
            }
            Self::Lacking { program, debian, .. } => Some(format!(
                "install {program} on this machine, or add `{debian}` to the environment's apt packages"
            )),
            Self::Failed { log, refused: true, .. } => Some(format!(
                "the whole log is {}\na registry that the package managers' own settings do not name is allowed by \
                 `hosts` in [package_managers] of the config file",
                log.display()
            )),
            error => error.log().map(|log| format!("the whole log is {}", log.display())),
        }
    }

    /// All that a session says of it: what, why, and what can be done.
    #[must_use]
    pub fn told(&self) -> String {
        let cause = match self {
            Self::Shared(error) => error.source(),
            error => error.source(),
        };
        let cause = cause.map(|cause| format!(": {cause}"));
        let hint = self.hint().map(|hint| format!("\n{hint}"));
        format!("{self}{}{}", cause.unwrap_or_default(), hint.unwrap_or_default())
    }
}

/// What is told of a build while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process builds the same.
    Waiting,
    /// A manager begins.
    Installing {
        /// Which.
        manager: Manager,
        /// How many packages were asked of it.
        packages: usize,
    },
    /// What it says.
    Says(&'a str),
    /// It is done.
    Installed {
        /// Which.
        manager: Manager,
        /// How many packages it installed, with all that they need.
        packages: usize,
        /// How long it took.
        time: Duration,
    },
    /// It cannot be done.
    Failed {
        /// Why not.
        reason: &'a str,
        /// All that was said.
        log: Option<&'a Path>,
    },
}

/// Takes what is told of builds, with the key of each.
pub type Watcher = Arc<dyn Fn(&str, Progress<'_>) + Send + Sync>;

/// Packages in use, and whether they were there already.
#[derive(Debug)]
pub struct Provided {
    /// The layer.
    pub lease: Lease,
    /// Whether it was built now.
    pub built: bool,
}

/// Finds and builds the packages of one data directory.
#[derive(Clone)]
pub struct Builder {
    shelf: Shelf,
    registries: Registries,
    bounds: FetchBounds,
    clock: Arc<dyn Clock>,
    flights: Flights,
    /// The last key that was made, until it is used.
    last: Arc<Mutex<Option<Asked>>>,
}

/// A key, what for, and since when.
struct Asked {
    profile: ProfileSource,
    packages: Packages,
    at: Instant,
    key: Key,
}

impl Builder {
    /// With these settings.
    #[must_use]
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        Self {
            shelf: Shelf::at(config.data_dir.join(SHELF)),
            registries: config.registries.clone(),
            bounds: config.packages,
            clock,
            flights: Flights::default(),
            last: Arc::default(),
        }
    }

    /// The packages of an environment, built now if they are not there; nothing if it has none. What is told of the
    /// build comes from another thread.
    ///
    /// # Errors
    /// If they cannot be had. Nothing of them is left then but the log.
    pub async fn provide(
        &self,
        environment: &Environment,
        watcher: &Watcher,
    ) -> Result<Option<Provided>, BuildError> {
        if environment.packages.is_empty() {
            return Ok(None);
        }
        environment.packages.check(&environment.networking)?;
        if environment.tier != Tier::Full {
            return Err(SandboxError::from(PlanError::Packages(environment.tier)).into());
        }
        let (own, asked) = (self.clone(), environment.clone());
        let key = blocking(move || own.key_of(&asked)).await?;
        let mut built = false;
        loop {
            let (shelf, text) = (self.shelf.clone(), key.text.clone());
            if let Some(lease) = blocking(move || shelf.find(&text)).await? {
                return Ok(Some(Provided { lease, built }));
            }
            let (own, asked) = (self.clone(), environment.clone());
            let (key_of_it, watcher) = (key.clone(), Arc::clone(watcher));
            let build = move || own.build(&asked, &key_of_it, &watcher);
            built = self.flights.board(&key.text, build).await.map_err(BuildError::Shared)?;
        }
    }

    /// The key of an environment's packages. A session needs it when it is created and again when its sandbox starts, mostly
    /// at once: the interpreters of the machine are asked only once for both.
    fn key_of(&self, environment: &Environment) -> Result<Key, BuildError> {
        let last = || self.last.lock().expect("nothing panics under this lock");
        let is_it = |last: &mut Asked| {
            last.profile == environment.profile
                && last.packages == environment.packages
                && last.at.elapsed() < PACKAGES_KEY_AGE
        };
        if let Some(Asked { key, .. }) = last().take_if(is_it) {
            return Ok(key);
        }
        let at = Instant::now();
        let key = Key::of(&self.shelf, environment, &self.registries)?;
        let (profile, packages) = (environment.profile.clone(), environment.packages.clone());
        *last() = Some(Asked { profile, packages, at, key: key.clone() });
        Ok(key)
    }

    /// Sees to it that the packages are there; whether they were built for that.
    fn build(
        &self,
        environment: &Environment,
        key: &Key,
        watcher: &Watcher,
    ) -> Result<bool, BuildError> {
        let built = self.build_once(environment, key, watcher);
        if let Err(error) = &built {
            watcher(&key.text, Progress::Failed { reason: &error.to_string(), log: error.log() });
        }
        built
    }

    fn build_once(
        &self,
        environment: &Environment,
        key: &Key,
        watcher: &Watcher,
    ) -> Result<bool, BuildError> {
        let is_there = || Ok::<_, BuildError>(self.shelf.find(&key.text)?.is_some());
        let told = |progress: Progress<'_>| watcher(&key.text, progress);
        let began = Instant::now();
        let mut waiting = false;
        loop {
            if is_there()? {
                return Ok(false);
            }
            if let Some(draft) = self.shelf.begin(&key.text)? {
                // Another process may have ended its build just now.
                if is_there()? {
                    return Ok(false);
                }
                let settings = build::Settings {
                    environment,
                    key,
                    registries: &self.registries,
                    bounds: self.bounds,
                    watcher: &told,
                    over: self.flights.over(),
                };
                return build::build(draft, &settings, self.clock.as_ref()).map(|()| true);
            }
            if !waiting {
                told(Progress::Waiting);
                waiting = true;
            }
            if began.elapsed() > self.bounds.time || self.flights.over().is_cancelled() {
                return Err(BuildError::Waited(began.elapsed()));
            }
            std::thread::sleep(PACKAGES_WATCH_INTERVAL);
        }
    }

    /// Ends the builds of this process; nothing is left of them.
    pub(super) async fn end(&self) {
        self.flights.end().await;
    }

    /// All packages that are there, the last used first. What crashes have left is removed.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> Result<Vec<Stored>, ShelfError> {
        self.shelf.sweep()?;
        self.shelf.list()
    }

    /// Removes packages whose key begins so, unless a session uses them; the key, and how many bytes they had.
    ///
    /// # Errors
    /// No such packages, or several, or in use.
    pub fn remove(&self, key: &str) -> Result<(String, u64), ShelfError> {
        let key = self.shelf.resolve(key)?;
        let bytes = self.shelf.remove(&key)?;
        Ok((key, bytes))
    }

    /// Removes what crashes have left.
    ///
    /// # Errors
    /// The system's.
    pub fn sweep(&self) -> Result<(), ShelfError> {
        self.shelf.sweep()
    }
}

/// Does something that blocks where it holds nobody up.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work).await.expect("looking for packages does not panic")
}

/// Tells nobody.
#[must_use]
pub fn unwatched() -> Watcher {
    Arc::new(|_, _| {})
}
