//! Everything that a door can do: open, create, submit, subscribe, shut down.
//!
//! Owns: the configuration, which sessions are being driven, the feeds, the health of the machine ([`doctor`]).
//! Does not: know HTTP serving or terminals; decide what a session does next (`session`).
//! Invariants: an input is in the log before anybody acts on it; a feed misses no event and repeats none; dropping the
//! runtime stops all work, and every session resumes from its log.
//! How to add an ability: a method on [`Runtime`]; doors stay thin.

mod changes;
pub mod config;
mod disks;
pub mod doctor;
mod drivers;
mod feed;
mod history;
mod instructions;
mod network;
pub mod packages;
mod registries;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use crate::sandbox::disk::{Change, ChangeKind, Choice, DiskError, Outcome};
pub use crate::session::{Definition, Preview};
pub use crate::store::{SessionRow, SessionStatus};
pub use changes::Changes;
pub use config::{Config, ConfigError, Overrides};
pub use feed::{Feed, FeedError, FeedItem};
pub use history::{Checkpoint, Rewound, checkpoints};
pub use network::{NetworkUse, Refused, Used};
pub use registries::Registries;

use crate::agent::Agent;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::egress::Door;
pub use crate::egress::Report;
use crate::egress::policy::Policy;
use crate::environment::networking::Networking;
use crate::environment::{Environment, ProfileSource, Tier};
use crate::event::{Confirmation, ContentBlock, Event, EventBody, NewEvent, Seq, StopReason};
use crate::id::{EventId, SessionId, ThreadId};
use crate::limits::{LOCAL_PROBE_TIMEOUT, MAX_PROFILE_BYTES, MAX_TASK_BYTES, SHUTDOWN_GRACE};
use crate::provider::routes::{self, Catalog, Route, RouteError};
use crate::provider::{Model, ModelError};
pub use crate::sandbox::SandboxError;
pub use crate::sandbox::View as SandboxView;
use crate::sandbox::disk::Place;
use crate::sandbox::{self, LaunchError, PlanError};
use crate::session::lineage::{Lineage, Rewind};
use crate::session::prompt::{self, Facts};
use crate::session::step::{Step, next_step};
use crate::session::{DriveError, Launched, Launcher, Parts, Sandboxed, Session};
use crate::store::{self, Append, Author, NewSession, Store};
pub use crate::store::{Reader, SessionFilter, StoreError};
use drivers::Drivers;
use packages::{BuildError, Builder, Lease, Provided, Watcher, unwatched};

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The store.
    #[error("could not {0}")]
    Store(#[from] StoreError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No provider for the model.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The provider cannot be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The workspace cannot be used.
    #[error("the workspace {path} cannot be used: {reason}")]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sandbox cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The sandbox cannot be had.
    #[error("no sandbox: {0}")]
    Sandbox(#[from] LaunchError),
    /// The session's own disk.
    #[error("could not {0}")]
    Disk(#[from] DiskError),
    /// The session cannot be driven.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The sandbox has no way to the network, though it should.
    #[error("the network door: {0}")]
    Door(std::io::Error),
    /// The environment's packages.
    #[error(transparent)]
    Packages(#[from] BuildError),
    /// There is nothing to do.
    #[error("the message is empty")]
    EmptyMessage,
    /// More than a model can read.
    #[error("the message has {bytes} bytes; at most {MAX_TASK_BYTES} can be sent")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Tool calls wait for an answer first.
    #[error("the session waits for an answer to: {}", join(.waiting))]
    WaitsForConfirmation {
        /// The calls.
        waiting: Vec<EventId>,
    },
    /// The call does not wait for an answer.
    #[error("{call} does not wait for an answer{}", hint(.waiting))]
    NotWaiting {
        /// What was answered.
        call: EventId,
        /// What waits.
        waiting: Vec<EventId>,
    },
    /// The session has ended for good.
    #[error("session {0} has ended; start a new one")]
    Terminated(SessionId),
    /// No such session.
    #[error("there is no session {0}")]
    NoSession(SessionId),
    /// No such event.
    #[error("session {session} has no event {event}")]
    NoEvent {
        /// The session.
        session: SessionId,
        /// What was named.
        event: EventId,
    },
    /// Somebody works on the session.
    #[error("session {0} is at work; stop it first")]
    Busy(SessionId),
}

impl From<SandboxError> for RuntimeError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Plan(error) => Self::Plan(error),
            SandboxError::Launch(error) => Self::Sandbox(error),
        }
    }
}

impl RuntimeError {
    /// Whether there is no store yet: nothing was ever run here.
    #[must_use]
    pub fn is_no_store(&self) -> bool {
        matches!(self, Self::Store(StoreError::NoStore { .. }))
    }
}

fn join(ids: &[EventId]) -> String {
    ids.iter().map(EventId::as_str).collect::<Vec<_>>().join(", ")
}

fn hint(waiting: &[EventId]) -> String {
    if waiting.is_empty() { String::new() } else { format!("; these do: {}", join(waiting)) }
}

/// What a client says to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The user says something.
    Message(String),
    /// Stop the turn, keep the session.
    Interrupt,
    /// The answer to a call that waits.
    Confirm {
        /// The `agent.tool_use` event.
        call: EventId,
        /// The answer.
        result: Confirmation,
        /// For the model, with a refusal.
        message: Option<String>,
    },
}

/// How a session stands while nobody drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It would go on by itself: it was cut while it worked, or has input that waits.
    Working,
    /// These tool calls wait for an answer.
    Waiting(Vec<EventId>),
    /// It was interrupted, gave up or refused; a message makes it go on.
    Stopped,
    /// It finished what it was asked.
    Done,
    /// It was never asked anything.
    Fresh,
}

/// What a new session is made of.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// The agent.
    pub agent: Agent,
    /// Where its tools run.
    pub environment: Environment,
    /// For lists; cut from the first message if absent.
    pub title: Option<String>,
    /// Most model requests for one message.
    pub max_turns: u32,
}

/// The running program behind every door. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    config: Config,
    catalog: Catalog,
    drivers: Drivers,
    builder: Builder,
}

impl Runtime {
    /// Opens the data directory and takes it for this process.
    ///
    /// # Errors
    /// The store's: in use by another process, of a newer version, unreadable.
    pub fn open(config: Config) -> Result<Self, RuntimeError> {
        let on_commit = config.crash_at.map(|crash| crash.hook());
        let store = Store::open_with(&config.data_dir, store::Options { on_commit })?;
        disks::sweep(&config.data_dir, store.reader())?;
        let catalog = config.catalog()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let builder = Builder::new(&config, Arc::clone(&clock));
        builder.sweep().map_err(BuildError::from)?;
        let drivers = Drivers::default();
        let shared = Shared { store, clock, config, catalog, drivers, builder };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Looks at a data directory without taking it: works beside a running process.
    ///
    /// # Errors
    /// The store's: not there, of a newer version, unreadable.
    pub fn look(config: &Config) -> Result<Reader, RuntimeError> {
        Ok(Store::open_read_only(&config.data_dir)?)
    }

    /// The packages of an environment, built now if they are not there; nothing if it has none. They are in use while
    /// the result lives.
    ///
    /// # Errors
    /// If they cannot be had.
    pub async fn provide_packages(
        &self,
        environment: &Environment,
        watcher: &Watcher,
    ) -> Result<Option<Provided>, RuntimeError> {
        Ok(self.shared.builder.provide(environment, watcher).await?)
    }

    /// The environment that a session was created with.
    ///
    /// # Errors
    /// If its definition cannot be read.
    pub fn environment_of(&self, row: &SessionRow) -> Result<Environment, RuntimeError> {
        Ok(definition(row.clone())?.environment)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Reads what is stored.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        self.shared.store.reader()
    }

    /// Finds the provider for a model id and makes sure that it can be asked.
    ///
    /// # Errors
    /// An unknown route, or a key that is missing.
    pub fn check_model(&self, model: &str) -> Result<Route, RuntimeError> {
        let (route, _) = self.model(model)?;
        Ok(route)
    }

    fn model(&self, id: &str) -> Result<(Route, Arc<dyn Model>), RuntimeError> {
        let route = self.shared.catalog.routes().resolve(id)?;
        let model = self.shared.catalog.model(&route)?;
        Ok((route, model))
    }

    /// Creates an idle session. Nothing runs until it is given a message.
    ///
    /// # Errors
    /// Anything that would keep its first turn from running: route, key, workspace, profile, store.
    pub async fn create_session(&self, mut spec: SessionSpec) -> Result<SessionRow, RuntimeError> {
        spec.agent.model = routes::settled(&spec.agent.model);
        self.check_model(&spec.agent.model)?;
        check_workspace(&spec.environment.workspace)?;
        check_apart(&spec.environment, &self.shared.config.data_dir)?;
        sandbox::plan_for(&spec.environment, None)?;
        let now = self.shared.clock.now();
        let id = SessionId::mint(now);
        self.make_disk(&id, &spec.environment).await?;
        let date = now.to_string();
        let instructions = instructions::find(
            &spec.environment.workspace,
            self.shared.config.global_instructions.as_deref(),
        );
        let facts = Facts {
            workspace: &spec.environment.workspace,
            workspace_mode: spec.environment.workspace_mode,
            date: &date[..10],
            networking: (spec.environment.tier != Tier::None)
                .then_some(&spec.environment.networking),
        };
        let system = prompt::system(&facts, spec.agent.system.as_deref(), &instructions);
        let workspace = spec.environment.workspace.clone();
        let definition = Definition {
            agent: spec.agent,
            environment: spec.environment,
            thread: ThreadId::mint(now),
            system,
            max_turns: spec.max_turns,
        };
        let new = NewSession {
            id,
            title: spec.title,
            workspace,
            definition: serde_json::to_value(definition).expect("a definition is JSON"),
            created_at: now,
        };
        Ok(self.shared.store.create_session(new).await?)
    }

    /// Puts an input into the session's log and sees to it that somebody acts on it.
    ///
    /// # Errors
    /// An input that the session cannot take now; nothing is stored then.
    pub async fn submit(&self, id: &SessionId, input: Input) -> Result<Event, RuntimeError> {
        let mut events = self.submit_all(id, &[input]).await?;
        Ok(events.pop().expect("one event was appended"))
    }

    /// Puts inputs into the session's log together: all of them, or none. The answer to the last call that waits and
    /// a message go together; one after the other, the message would come too early or the session be off already.
    ///
    /// # Errors
    /// An input that the session cannot take now; nothing is stored then.
    pub async fn submit_all(
        &self,
        id: &SessionId,
        inputs: &[Input],
    ) -> Result<Vec<Event>, RuntimeError> {
        let row = self.row(id)?;
        if row.status == SessionStatus::Terminated {
            return Err(RuntimeError::Terminated(row.id));
        }
        let mut waiting = match row.stop_reason {
            Some(StopReason::RequiresAction { event_ids }) if row.status == SessionStatus::Idle => {
                event_ids
            }
            _ => Vec::new(),
        };
        let events = inputs.iter().map(|input| self.admit(input, &mut waiting));
        let append = Append { events: events.collect::<Result<_, _>>()?, processed: Vec::new() };
        let events = self.shared.store.append(id, Author::Client, append).await?;
        if inputs.contains(&Input::Interrupt) {
            self.shared.drivers.interrupt(id);
        }
        self.drive(id)?;
        Ok(events)
    }

    fn row(&self, id: &SessionId) -> Result<SessionRow, RuntimeError> {
        self.shared.store.reader().session(id)?.ok_or_else(|| RuntimeError::NoSession(id.clone()))
    }

    /// The event of an input that the session can take; an answer takes its call off those that wait.
    fn admit(&self, input: &Input, waiting: &mut Vec<EventId>) -> Result<NewEvent, RuntimeError> {
        let now = self.shared.clock.now();
        match input {
            Input::Message(text) => {
                if text.trim().is_empty() {
                    return Err(RuntimeError::EmptyMessage);
                }
                if text.len() > MAX_TASK_BYTES {
                    return Err(RuntimeError::MessageTooLarge { bytes: text.len() });
                }
                if !waiting.is_empty() {
                    return Err(RuntimeError::WaitsForConfirmation { waiting: waiting.clone() });
                }
                let content = vec![ContentBlock::text(text)];
                Ok(NewEvent::queued(now, EventBody::UserMessage { content }))
            }
            Input::Interrupt => Ok(NewEvent::queued(now, EventBody::UserInterrupt {})),
            Input::Confirm { call, result, message } => {
                let Some(at) = waiting.iter().position(|waits| waits == call) else {
                    let (call, waiting) = (call.clone(), waiting.clone());
                    return Err(RuntimeError::NotWaiting { call, waiting });
                };
                waiting.remove(at);
                let body = EventBody::UserToolConfirmation {
                    tool_use_id: call.clone(),
                    result: *result,
                    deny_message: message.clone(),
                };
                Ok(NewEvent::now(now, body))
            }
        }
    }

    /// Sees to it that the session is being driven: after a crash this is all that resuming takes.
    ///
    /// # Errors
    /// If its model has no route or no key.
    pub fn drive(&self, id: &SessionId) -> Result<(), RuntimeError> {
        if self.shared.drivers.wake(id) {
            return Ok(());
        }
        let definition = definition(self.row(id)?)?;
        let (route, model) = self.model(&definition.agent.model)?;
        let (previews, interrupt) = self.shared.drivers.channel(id);
        let parts = Parts {
            store: self.shared.store.clone(),
            clock: Arc::clone(&self.shared.clock),
            model,
            model_name: route.to_string(),
            model_id: route.model,
            launcher: launcher(
                definition.environment,
                self.disk(id),
                &self.shared.config.registries,
                self.shared.builder.clone(),
            ),
            disk: self.disk(id),
            previews,
            interrupt,
        };
        self.shared.drivers.start(id, parts);
        Ok(())
    }

    /// Everything that happens in a session after `from`, in order, without end.
    ///
    /// # Errors
    /// If there is no such session.
    pub fn subscribe(&self, id: &SessionId, from: Seq) -> Result<Feed, RuntimeError> {
        Ok(Feed::open(&self.shared.store, &self.shared.drivers, id, from)?)
    }

    /// How a session stands: whether it would go on by itself, or what it needs.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn standing(&self, id: &SessionId) -> Result<Standing, RuntimeError> {
        let row = self.row(id)?;
        let rewinds = self.reader().of_kind(id, "internal.rewound")?;
        let rewinds: Vec<_> = rewinds.iter().filter_map(Rewind::of).collect();
        let lineage = Lineage::to(row.head, &rewinds);
        let mut session = Session::new(Arc::new(definition(row)?));
        let mut interrupted = false;
        self.shared.store.reader().each(id, 0, |event| {
            if !lineage.holds(event.seq) {
                return session.skip(&event);
            }
            match &event.body {
                EventBody::UserMessage { .. } => interrupted = false,
                EventBody::UserInterrupt {} => interrupted = true,
                _ => {}
            }
            session.apply(&event);
        })?;
        // Cut before it could stop: it would only close its calls.
        if session.turn().interrupted {
            return Ok(Standing::Stopped);
        }
        if session.request().is_some() || next_step(&session) != Step::Rest {
            return Ok(Standing::Working);
        }
        Ok(match session.stop_reason() {
            Some(StopReason::RequiresAction { event_ids }) => Standing::Waiting(event_ids.clone()),
            Some(StopReason::EndTurn) if !interrupted => Standing::Done,
            Some(_) => Standing::Stopped,
            None => Standing::Fresh,
        })
    }

    /// What changed in the session's workspace since then.
    ///
    /// # Errors
    /// If the session's definition cannot be read.
    pub fn changes(&self, row: &SessionRow, since: Timestamp) -> Result<Changes, RuntimeError> {
        let definition = definition(row.clone())?;
        Ok(changes::changed_since(&definition.environment, since))
    }

    /// Deletes a session and its log.
    ///
    /// # Errors
    /// If it is not there or is at work.
    pub async fn delete(&self, id: &SessionId) -> Result<(), RuntimeError> {
        self.row(id)?;
        self.shared.store.delete_session(id).await?;
        // Cut here, the next start sweeps it.
        Ok(self.disk(id).remove()?)
    }

    /// Stops all work and closes the store. What was running resumes like after a crash.
    pub async fn shutdown(self) {
        let work = async {
            self.shared.drivers.stop().await;
            self.shared.store.clone().close().await;
            // A thread that panicked has nothing left to wait for.
            drop(tokio::task::spawn_blocking(sandbox::settle).await);
        };
        // Past the grace the process ends anyway; the log does not mind.
        drop(tokio::time::timeout(SHUTDOWN_GRACE, work).await);
    }
}

fn definition(row: SessionRow) -> Result<Definition, RuntimeError> {
    serde_json::from_value(row.definition)
        .map_err(|source| DriveError::Definition { session: row.id, source }.into())
}

/// A launcher for one environment: facts and plan are gathered anew for each sandbox, off the runtime's thread.
///
/// The packages of the environment are in use as long as the launcher lives.
fn launcher(
    environment: Environment,
    disk: Place,
    registries: &Registries,
    builder: Builder,
) -> Launcher {
    let leased: Arc<Mutex<Option<Arc<Lease>>>> = Arc::default();
    let registries = registries_of(&environment, registries);
    let policy = Policy::new(environment.networking.clone(), registries.hosts);
    Arc::new(move || -> Sandboxed {
        let (environment, disk, policy) = (environment.clone(), disk.clone(), policy.clone());
        let variables = registries.variables.clone();
        let (leased, builder) = (Arc::clone(&leased), builder.clone());
        Box::pin(async move {
            let (mode, workspace) = (environment.workspace_mode, &environment.workspace);
            // Made with the session; one of an older version has none.
            disk.prepare(mode, workspace).map_err(|e| format!("failed to {e}"))?;
            let known = leased.lock().expect("nothing panics under this lock").clone();
            let lease = match known {
                Some(lease) => Some(lease),
                None => {
                    let provided = builder.provide(&environment, &unwatched()).await;
                    provided.map_err(|e| e.to_string())?.map(|found| Arc::new(found.lease))
                }
            };
            leased.lock().expect("nothing panics under this lock").clone_from(&lease);
            let view = lease.as_ref().map(|lease| &lease.view);
            let guest = sandbox::launch(&environment, &disk, view, &variables).await;
            let guest = guest.map_err(|e| e.to_string())?;
            let door = guest.take_asks().map(|asks| Door::open(asks, policy)).transpose();
            let door = door.map_err(|e| format!("network door: {e}"))?;
            Ok(Launched { guest, door })
        })
    })
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

fn check_workspace(path: &Path) -> Result<(), RuntimeError> {
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

/// The models of the servers on this machine, as `PROVIDER/MODEL`, those of one server in its own order.
pub async fn local_models(config: &Config) -> Vec<String> {
    let Ok(catalog) = config.catalog() else { return Vec::new() };
    let found = catalog.detect_local(LOCAL_PROBE_TIMEOUT).await.into_iter();
    let names = found.flat_map(|server| {
        server.models.into_iter().map(move |model| format!("{}/{model}", server.provider))
    });
    names.collect()
}

/// A command that ended in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code, as a shell counts.
    pub code: u8,
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
    let code = sandbox::run_command(environment, argv, view, &variables, &mut door)?;
    let network = keeper.map_or_else(|| Ok(Report::default()), network::Keeper::close);
    Ok(Executed { code, network: network.map_err(RuntimeError::Door)? })
}

/// What a sandbox for this environment would be.
///
/// # Errors
/// If the workspace or the profile cannot be used.
pub fn sandbox_view(environment: &Environment) -> Result<SandboxView, RuntimeError> {
    check_workspace(&environment.workspace)?;
    Ok(sandbox::view_of(environment)?)
}

/// No tool may reach the store: it holds every session's log.
fn check_apart(environment: &Environment, data_dir: &Path) -> Result<(), RuntimeError> {
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

/// A profile by its name, or the file at that path as it reads now.
///
/// # Errors
/// If the file cannot be read.
pub fn profile_source(named: &str) -> std::io::Result<ProfileSource> {
    let path = Path::new(named);
    if !named.contains('/') && path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(ProfileSource::BuiltIn(named.to_owned()));
    }
    let text = read_bounded(path, MAX_PROFILE_BYTES)?;
    Ok(ProfileSource::File { path: std::path::absolute(path)?, text })
}

/// A definition that a person has written.
///
/// # Errors
/// The system's, or that it has more than `most` bytes.
pub fn read_bounded(path: &Path, most: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let size = std::fs::File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if size as u64 > most {
        let reason = format!("it has more than {most} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

/// A new directory for one use; `wanted`, which must be missing or empty, or one of its own in the temporary directory.
///
/// # Errors
/// The system's, or that `wanted` is not empty.
pub fn fresh_directory(wanted: Option<&Path>) -> std::io::Result<PathBuf> {
    let Some(wanted) = wanted else {
        let template = std::env::temp_dir().join("casemate-demo-XXXXXX");
        return Ok(nix::unistd::mkdtemp(&template)?);
    };
    std::fs::create_dir_all(wanted)?;
    if std::fs::read_dir(wanted)?.next().is_some() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::DirectoryNotEmpty,
            "the directory is not empty",
        ));
    }
    wanted.canonicalize()
}

/// Writes a file that is not there yet.
///
/// # Errors
/// The system's.
pub fn new_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::io::Write::write_all(&mut std::fs::File::create_new(path)?, content)
}
