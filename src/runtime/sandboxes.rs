//! Sandboxes: what a session's is made of and how it is launched, one for a single command, and what neither may show.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::packages::{Builder, Lease, Watcher};
use super::repositories::{Repository, Site};
use super::skills::brought;
use super::warm::Recipe;
use super::{Registries, Runtime, RuntimeError, network};
use crate::egress::policy::Policy;
use crate::egress::{Door, Report};
use crate::environment::Environment;
use crate::environment::networking::Networking;
use crate::id::SessionId;
use crate::sandbox::{self, Guest, Made, View};
use crate::session::{Launched, Launcher, Sandboxed};
use crate::skill::Brought;

impl Runtime {
    /// What a session's sandbox is made of, and what its network may reach.
    pub(super) fn recipe(&self, id: &SessionId, environment: Environment) -> (Recipe, Policy) {
        let policy = self.policy(&environment);
        let variables = registries_of(&environment, &self.shared.config.registries).variables;
        (Recipe { environment, disk: self.disk(id), variables }, policy)
    }

    /// What the sessions of an environment may reach.
    pub(super) fn policy(&self, environment: &Environment) -> Policy {
        let registries = registries_of(environment, &self.shared.config.registries);
        Policy::new(environment.networking.clone(), registries.hosts)
    }

    /// Where a session's repositories come to.
    pub(super) fn site(&self, id: &SessionId, environment: Environment) -> Site {
        let policy = self.policy(&environment);
        Site { disk: self.disk(id), environment, policy }
    }

    /// A launcher for one session: facts and plan are gathered anew for each sandbox, off the runtime's thread. The
    /// environment's packages are in use as long as it lives. What is wanted of repositories is there first, or is told of.
    pub(super) fn launcher(
        &self,
        id: &SessionId,
        environment: Environment,
        wanted: Vec<Repository>,
        trusted: Vec<String>,
    ) -> Launcher {
        let site = Arc::new(self.site(id, environment.clone()));
        let (repositories, wanted) = (self.shared.repositories.clone(), Arc::new(wanted));
        let trusted = Arc::new(trusted);
        let (recipe, policy) = self.recipe(id, environment);
        let (id, warm) = (id.clone(), Arc::clone(&self.shared.warm));
        let (builder, leased) = (self.shared.builder.clone(), Arc::new(Mutex::new(None)));
        let watcher = Arc::clone(&self.shared.watcher);
        Arc::new(move || -> Sandboxed {
            let (id, warm) = (id.clone(), Arc::clone(&warm));
            let (recipe, policy) = (recipe.clone(), policy.clone());
            let (builder, leased) = (builder.clone(), Arc::clone(&leased));
            let watcher = Arc::clone(&watcher);
            let (repositories, wanted) = (repositories.clone(), Arc::clone(&wanted));
            let trusted = Arc::clone(&trusted);
            let site = Arc::clone(&site);
            Box::pin(async move {
                let troubles = repositories.provide_all(&wanted, &site).await;
                let brought = bring(&wanted, &trusted, &site).await;
                let guest = match warm.take(&id, &recipe).await {
                    Some(guest) => guest,
                    None => {
                        let lease = lease(&builder, &recipe.environment, &watcher, &leased).await?;
                        launch(&recipe, lease.as_deref()).await?
                    }
                };
                let door = guest.take_asks().map(|asks| Door::open(asks, policy)).transpose();
                let door = door.map_err(|e| format!("network door: {e}"))?;
                Ok(Launched { guest, door, troubles, brought })
            })
        })
    }
}

/// Gives the session the skills of the repositories that are there and trusted; nothing where it has no repositories.
async fn bring(
    wanted: &Arc<Vec<Repository>>,
    trusted: &Arc<Vec<String>>,
    site: &Arc<Site>,
) -> Option<Brought> {
    if wanted.is_empty() {
        return None;
    }
    let (wanted, trusted, site) = (Arc::clone(wanted), Arc::clone(trusted), Arc::clone(site));
    let bring = move || brought::bring(&wanted, &trusted, &site.disk);
    Some(tokio::task::spawn_blocking(bring).await.expect("copying does not panic"))
}

/// The environment's packages, if it has any: those of the launch before, or else found or built.
async fn lease(
    builder: &Builder,
    environment: &Environment,
    watcher: &Watcher,
    leased: &Mutex<Option<Arc<Lease>>>,
) -> Result<Option<Arc<Lease>>, String> {
    let known = leased.lock().expect("nothing panics under this lock").clone();
    if known.is_some() {
        return Ok(known);
    }
    let provided = builder.provide(environment, watcher).await.map_err(|e| e.told())?;
    let lease = provided.map(|found| Arc::new(found.lease));
    leased.lock().expect("nothing panics under this lock").clone_from(&lease);
    Ok(lease)
}

async fn launch(recipe: &Recipe, lease: Option<&Lease>) -> Result<Guest, String> {
    let Recipe { environment, disk, variables } = recipe;
    let (mode, workspace) = (environment.workspace_mode, &environment.workspace);
    // Here it is made, unless something was put on it before.
    disk.prepare(mode, workspace).map_err(|e| format!("failed to {e}"))?;
    let view = lease.map(|lease| &lease.view);
    sandbox::launch(environment, disk, view, variables).await.map_err(|e| e.to_string())
}

/// Those that the environment opens.
fn registries_of(environment: &Environment, registries: &Registries) -> Registries {
    match environment.networking {
        Networking::Limited { allow_package_managers: true, .. } => registries.clone(),
        Networking::Limited { .. } | Networking::None | Networking::Unrestricted => {
            Registries::default()
        }
    }
}

/// The workspace as an absolute directory that can be read.
///
/// # Errors
/// Says what is wrong with it.
pub fn resolve_workspace(path: &Path) -> Result<PathBuf, RuntimeError> {
    let refuse = |reason: String| RuntimeError::Workspace { path: path.to_owned(), reason };
    let absolute = path.canonicalize().map_err(|e| refuse(e.to_string()))?;
    check_workspace(&absolute)?;
    Ok(absolute)
}

pub(super) fn check_workspace(path: &Path) -> Result<(), RuntimeError> {
    let refuse =
        |reason: &str| RuntimeError::Workspace { path: path.to_owned(), reason: reason.to_owned() };
    let facts = std::fs::metadata(path).map_err(|e| refuse(&e.to_string()))?;
    if !facts.is_dir() {
        return Err(refuse("it is not a directory"));
    }
    if path == Path::new("/") {
        return Err(refuse("it is the whole filesystem"));
    }
    std::fs::read_dir(path).map(drop).map_err(|e| refuse(&e.to_string()))
}

/// A command that ended in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code, as a shell counts.
    pub code: u8,
    /// What it made that programs of the user's obey.
    pub made: Vec<Made>,
    /// What it reached, and what was refused.
    pub network: Report,
}

/// Runs one command in a sandbox, with this process's standard streams. Blocks.
///
/// # Errors
/// If the workspace or the sandbox cannot be had.
pub fn sandbox_exec(
    environment: &Environment,
    registries: &Registries,
    argv: &[String],
    data_dir: Option<&Path>,
    packages: Option<&Lease>,
) -> Result<Executed, RuntimeError> {
    check_workspace(&environment.workspace)?;
    data_dir.map_or(Ok(()), |data_dir| check_apart(environment, data_dir))?;
    let Registries { hosts, variables, .. } = registries_of(environment, registries);
    let policy = Policy::new(environment.networking.clone(), hosts);
    let view = packages.map(|lease| &lease.view);
    let mut keeper = None;
    let mut door = |asks| keeper = Some(network::Keeper::start(asks, policy.clone()));
    let (code, made) = sandbox::run_command(environment, argv, view, &variables, &mut door)?;
    let network = keeper.map_or_else(|| Ok(Report::default()), network::Keeper::close);
    Ok(Executed { code, made, network: network.map_err(RuntimeError::Door)? })
}

/// What a sandbox for this environment would be.
///
/// # Errors
/// If the workspace or the profile cannot be used.
pub fn sandbox_view(environment: &Environment) -> Result<View, RuntimeError> {
    check_workspace(&environment.workspace)?;
    Ok(sandbox::view_of(environment)?)
}

/// No tool may reach the store: it holds every session's log.
pub(super) fn check_apart(environment: &Environment, data_dir: &Path) -> Result<(), RuntimeError> {
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let sources = environment.mounts.iter().map(|mount| &mount.source);
    for path in sources.chain([&environment.workspace]) {
        if path.starts_with(&data_dir) || data_dir.starts_with(path) {
            let reason = format!(
                "it holds casemate's data directory {}, or lies in it, and no tool may reach that",
                data_dir.display()
            );
            return Err(RuntimeError::Workspace { path: path.clone(), reason });
        }
    }
    Ok(())
}
