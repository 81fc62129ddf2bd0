//! The packages of environments: found on the shelf, or built by whoever needs them first.
//!
//! A build runs inside of a sandbox that reaches the registries and nothing else (`build`). What it is made of is its
//! key (`key`): who needs the same waits for it, and shares it.

mod build;
mod key;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::sandbox::packages::shelf::{Lease, Lock, Resolved, ShelfError, Stored};

use super::Config;
use super::config::PackageBounds;
use super::registries::Registries;
use crate::clock::Clock;
use crate::environment::packages::{Manager, PackagesError};
use crate::environment::{Environment, Tier};
use crate::limits::PACKAGES_WATCH_INTERVAL;
use crate::sandbox::packages::shelf::Shelf;
use crate::sandbox::{PlanError, SandboxError};

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
        }
    }
}

impl BuildError {
    /// The log of the build that failed, if one began.
    #[must_use]
    pub fn log(&self) -> Option<&std::path::Path> {
        match self {
            Self::Failed { log, .. } | Self::Ended { log, .. } | Self::Unresolved { log, .. } => {
                Some(log)
            }
            Self::Packages(_)
            | Self::Sandbox(_)
            | Self::Shelf(_)
            | Self::Prepare { .. }
            | Self::Lacking { .. }
            | Self::Waited(_) => None,
        }
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
}

/// Takes what is told of a build.
pub type Watcher = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

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
    bounds: PackageBounds,
    clock: Arc<dyn Clock>,
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
        let (own, watcher) = (self.clone(), Arc::clone(watcher));
        let environment = environment.clone();
        let work = move || own.provide_now(&environment, &watcher).map(Some);
        tokio::task::spawn_blocking(work).await.expect("a build does not panic")
    }

    fn provide_now(
        &self,
        environment: &Environment,
        watcher: &Watcher,
    ) -> Result<Provided, BuildError> {
        environment.packages.check(&environment.networking)?;
        if environment.tier != Tier::Full {
            return Err(SandboxError::from(PlanError::Packages(environment.tier)).into());
        }
        let key = key::Key::of(&self.shelf, environment, &self.registries)?;
        let found = |built| -> Result<_, BuildError> {
            Ok(self.shelf.find(&key.text)?.map(|lease| Provided { lease, built }))
        };
        let began = Instant::now();
        let mut waiting = false;
        loop {
            if let Some(provided) = found(false)? {
                return Ok(provided);
            }
            if let Some(draft) = self.shelf.begin(&key.text)? {
                // Another process may have ended its build just now.
                if let Some(provided) = found(false)? {
                    return Ok(provided);
                }
                let settings = build::Settings {
                    environment,
                    key: &key,
                    registries: &self.registries,
                    bounds: self.bounds,
                    watcher: watcher.as_ref(),
                };
                build::build(draft, &settings, self.clock.as_ref())?;
                return Ok(found(true)?.expect("it was built just now, and the key is held"));
            }
            if !waiting {
                watcher(Progress::Waiting);
                waiting = true;
            }
            if began.elapsed() > self.bounds.time {
                return Err(BuildError::Waited(began.elapsed()));
            }
            std::thread::sleep(PACKAGES_WATCH_INTERVAL);
        }
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

/// Tells nobody.
#[must_use]
pub fn unwatched() -> Watcher {
    Arc::new(|_| {})
}
