//! Everything that a door can do: open, create, submit, subscribe, shut down.
//!
//! Owns: the configuration, which sessions are being driven, the feeds, the health of the machine ([`doctor`]).
//! Does not: know HTTP serving or terminals; decide what a session does next (`session`).
//! Invariants: an input is in the log before anybody acts on it; a feed misses no event and repeats none; dropping the
//! runtime stops all work, and every session resumes from its log.
//! How to add an ability: a method on [`Runtime`]; doors stay thin.

mod admission;
mod attachments;
mod changes;
pub mod config;
mod disks;
pub mod doctor;
mod drivers;
mod error;
mod feed;
pub mod files;
mod history;
mod instructions;
mod mcp;
mod network;
mod outputs;
pub mod packages;
mod records;
mod registries;
pub mod repositories;
pub mod resources;
mod sandboxes;
mod secrets;
pub mod skills;
mod update;
mod warm;
mod web;
mod webhook;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::sandbox::Made;
pub use crate::sandbox::disk::{Change, ChangeKind, Choice, DiskError, Outcome};
pub use crate::session::{Definition, Preview};
pub use crate::store::{CreatedRange, Json, Order, Origin, SessionRow, SessionStatus};
pub use admission::{Input, Unanswerable};
pub use attachments::{AttachmentError, IMAGES};
pub use changes::Changes;
pub use config::{Config, ConfigError, Overrides};
pub use error::RuntimeError;
pub use feed::{Feed, FeedError, FeedItem};
pub use history::{Checkpoint, Rewound, checkpoints};
pub use mcp::mcp_file;
pub use network::{NetworkUse, Refused, Used};
pub use records::{Record, RecordFilter};
pub use registries::Registries;
pub use sandboxes::{Executed, resolve_workspace, sandbox_exec, sandbox_view};
pub use update::SessionPatch;

use crate::agent::{Agent, OnAsk};
use crate::clock::{Clock, SystemClock, Timestamp};
pub use crate::egress::Report;
use crate::environment::{Environment, ProfileSource, Tier, WorkspaceMode};
use crate::event::{Budget, Event, EventBody, NewEvent, Seq, StopReason};
use crate::id::{EventId, SessionId, ThreadId};
use crate::limits::{
    ADMISSION_ATTEMPTS, DEFAULT_MAX_TURNS, LOCAL_PROBE_TIMEOUT, MAX_PROFILE_BYTES, SHUTDOWN_GRACE,
};
use crate::mcp::Mcp;
use crate::provider::Model;
use crate::provider::prices::Price;
use crate::provider::routes::{self, Catalog, Route};
pub use crate::sandbox::SandboxError;
pub use crate::sandbox::View as SandboxView;
use crate::sandbox::{self};
use crate::session::lineage::{Lineage, Rewind};
use crate::session::prompt::{self, Facts};
use crate::session::step::{Step, next_step};
use crate::session::{DriveError, Judge, JudgeModel, Parts, Session};
use crate::store::{self, Author, NewSession, Store};
pub use crate::store::{Reader, SessionFilter, StoreError};
pub use crate::tool::policy::narrowest;
use crate::web::Web;
use admission::{Admission, Admitted};
use drivers::Drivers;
use packages::{BuildError, Builder, Provided, Watcher, unwatched};
use repositories::Repositories;
use resources::NewResource;
use sandboxes::{check_apart, check_workspace};
use skills::Chosen;
use warm::Warm;

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
    /// The stored agent and environment that it is made of.
    pub origin: Option<Origin>,
    /// The client's own words about it.
    pub metadata: BTreeMap<String, String>,
    /// What it may use; what its agent says if absent.
    pub budget: Option<Budget>,
    /// What becomes of calls that ask; absent, they wait for a client.
    pub on_ask: Option<OnAsk>,
    /// What it is given.
    pub resources: Vec<NewResource>,
    /// Its skills, each with another name.
    pub skills: Vec<Chosen>,
    /// What it is told at once: then it works as soon as it is there.
    pub initial: Vec<Input>,
}

impl SessionSpec {
    /// A session that is told nothing yet.
    #[must_use]
    pub fn new(agent: Agent, environment: Environment) -> Self {
        Self {
            agent,
            environment,
            title: None,
            max_turns: DEFAULT_MAX_TURNS,
            origin: None,
            metadata: BTreeMap::new(),
            budget: None,
            on_ask: None,
            resources: Vec::new(),
            skills: Vec::new(),
            initial: Vec::new(),
        }
    }
}

/// The running program behind every door. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    opened_at: Timestamp,
    config: Config,
    catalog: Catalog,
    drivers: Drivers,
    warm: Arc<Warm>,
    builder: Builder,
    watcher: Watcher,
    repositories: Repositories,
    /// Held by whoever gives a session something or takes it away: no two find the same place free.
    giving: tokio::sync::Mutex<()>,
    /// The same for the stored skills.
    skills: tokio::sync::Mutex<()>,
    web: Arc<Web>,
    mcp: Arc<Mcp>,
}

impl Runtime {
    /// Opens the data directory and takes it for this process.
    ///
    /// # Errors
    /// The store's: in use by another process, of a newer version, unreadable.
    pub fn open(config: Config) -> Result<Self, RuntimeError> {
        Self::open_watched(config, unwatched())
    }

    /// The same; what sessions build for themselves is told to the watcher.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub fn open_watched(config: Config, watcher: Watcher) -> Result<Self, RuntimeError> {
        let on_commit = config.crash_at.map(|crash| crash.hook());
        let store = Store::open_with(&config.data_dir, store::Options { on_commit })?;
        disks::sweep(&config.data_dir, store.reader())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        files::sweep(&config.data_dir, store.reader(), clock.now())?;
        resources::sweep(&config.data_dir, store.reader())?;
        skills::library::sweep(&config.data_dir, store.reader())?;
        let catalog = config.catalog()?;
        let web = Arc::new(config.web()?);
        let mcp = Arc::new(config.mcp(Arc::clone(&clock))?);
        let builder = Builder::new(&config, Arc::clone(&clock));
        builder.sweep().map_err(BuildError::from)?;
        let opened_at = clock.now();
        let (drivers, warm) = (Drivers::default(), Arc::default());
        let (giving, skills) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        let repositories = Repositories::new(&config);
        let shared = Shared {
            store,
            clock,
            opened_at,
            config,
            catalog,
            drivers,
            warm,
            builder,
            watcher,
            repositories,
            giving,
            skills,
            web,
            mcp,
        };
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
        Ok(definition(row)?.environment)
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

    /// The models that are known by name: the configured one, those that routes name, the usual one of each provider
    /// with a key, and whatever the servers on this machine have. Sorted.
    pub async fn models(&self) -> Vec<String> {
        let mut models = self.shared.config.named_models();
        models.extend(detected(&self.shared.catalog).await);
        models.sort_unstable();
        models.dedup();
        models
    }

    fn model(&self, id: &str) -> Result<(Route, Arc<dyn Model>), RuntimeError> {
        let route = self.shared.catalog.routes().resolve(id)?;
        let model = self.shared.catalog.model(&route)?;
        Ok((route, model))
    }

    fn price(&self, route: &Route) -> Option<Price> {
        let is_local = self.shared.catalog.routes().is_local(&route.provider);
        self.shared.config.prices.of(route, is_local)
    }

    /// An agent whose calls are to be judged takes a judge that can be asked, where one is configured.
    fn check_judge(&self, agent: &Agent) -> Result<(), RuntimeError> {
        let judge = self.shared.config.judge.as_deref().filter(|_| agent.is_judged());
        judge.map_or(Ok(()), |judge| self.check_model(judge).map(drop))
    }

    /// The agent without the tools of the web that its session could not use.
    fn offered(&self, agent: Agent, environment: &Environment, of_client: bool) -> Agent {
        web::offered(agent, environment, of_client, self.shared.config.web.search.is_some())
    }

    fn judge(&self) -> Option<Judge> {
        let name = self.shared.config.judge.clone()?;
        let model = self.model(&name).map(|(route, model)| {
            let price = self.price(&route);
            JudgeModel { model, id: route.model, price }
        });
        Some(Judge { name, model: model.map_err(|error| error.to_string()) })
    }

    /// A budget of money takes a model whose price is known.
    fn check_budgetable(&self, model: &str, budget: &Budget) -> Result<(), RuntimeError> {
        let route = self.shared.catalog.routes().resolve(model)?;
        if budget.max_list_cost.is_some() && self.price(&route).is_none() {
            return Err(RuntimeError::NotBudgetable { model: route.to_string() });
        }
        Ok(())
    }

    /// Creates a session together with what it is told at once; without that it is idle until it is told something.
    ///
    /// # Errors
    /// Anything that would keep its first turn from running: route, key, workspace, profile, store; an input that it
    /// cannot take. There is no session then.
    pub async fn create_session(&self, mut spec: SessionSpec) -> Result<SessionRow, RuntimeError> {
        spec.agent.model = routes::settled(&spec.agent.model);
        self.check_model(&spec.agent.model)?;
        self.check_judge(&spec.agent)?;
        spec.agent.permissions = spec.agent.permissions.and(&self.shared.config.permissions);
        let own = spec.environment.workspace_mode == WorkspaceMode::Own;
        if !own {
            check_workspace(&spec.environment.workspace)?;
            check_apart(&spec.environment, &self.shared.config.data_dir)?;
            sandbox::plan_for(&spec.environment, None)?;
        }
        let now = self.shared.clock.now();
        let id = SessionId::mint(now);
        let date = now.to_string();
        // What the user tells agents is for those that work on his files.
        let instructions = if own {
            Vec::new()
        } else {
            let global = self.shared.config.global_instructions.as_deref();
            instructions::find(&spec.environment.workspace, global)
        };
        let skills = self.announce(&mut spec);
        let repositories: Vec<_> = spec.resources.iter().filter_map(NewResource::told).collect();
        let facts = Facts {
            workspace: &spec.environment.workspace,
            workspace_mode: spec.environment.workspace_mode,
            repositories: &repositories,
            date: &date[..10],
            networking: (spec.environment.tier != Tier::None)
                .then_some(&spec.environment.networking),
        };
        let system = prompt::system(&facts, &skills, spec.agent.system.as_deref(), &instructions);
        let by_default = || spec.agent.budget.clone().or(self.shared.config.limits.clone());
        let budget = spec.budget.clone().or_else(by_default);
        budget.iter().try_for_each(|budget| self.check_budgetable(&spec.agent.model, budget))?;
        let of_client = spec.origin.is_some();
        let mut definition = Definition {
            agent: self.offered(spec.agent, &spec.environment, of_client),
            environment: spec.environment,
            thread: ThreadId::mint(now),
            system,
            max_turns: spec.max_turns,
            budget: budget.clone(),
            on_ask: spec.on_ask,
            origin: spec.origin.clone(),
            skills,
        };
        let admission = Admission::to_new(self.reader(), &id, &definition, now);
        let Admitted { append, .. } = admission.admit(&spec.initial)?;
        // One that is all its own is made when something is to lie on it: a session without tools needs none.
        if !own || !spec.resources.is_empty() || !spec.skills.is_empty() {
            self.make_disk(&id, &definition.environment).await?;
        }
        let put = self.put_skills(&self.disk(&id), spec.skills, &mut definition.skills).await;
        let given = match put {
            Ok(()) => self.give(&id, &spec.resources, &spec.initial).await,
            Err(error) => Err(error),
        };
        let given = match given {
            Ok(given) => given,
            Err(error) => {
                self.disk(&id).remove()?;
                return Err(error);
            }
        };
        let works = !append.events.is_empty();
        let has_tools = !definition.agent.tools.is_empty();
        let environment = definition.environment.clone();
        let new = NewSession {
            id,
            title: spec.title,
            workspace: definition.environment.workspace.clone(),
            definition: serde_json::to_value(definition).expect("a definition is JSON"),
            origin: spec.origin,
            metadata: spec.metadata,
            budget,
            records: given.records.clone(),
            created_at: now,
        };
        let row = given.commit(self.shared.store.create_session(new, append)).await?;
        if works {
            self.drive(&row.id)?;
        } else if has_tools {
            self.prepare(&row.id, environment);
        }
        Ok(row)
    }

    /// Begins to bring a session's sandbox up: whoever creates one is about to tell it something.
    fn prepare(&self, id: &SessionId, environment: Environment) {
        self.shared.warm.prepare(id.clone(), self.recipe(id, environment).0);
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
    /// An input that changes nothing, such as an interrupt of an idle session, is echoed with position 0 and not recorded.
    ///
    /// # Errors
    /// An input that the session cannot take now; nothing is stored then.
    pub async fn submit_all(
        &self,
        id: &SessionId,
        inputs: &[Input],
    ) -> Result<Vec<Event>, RuntimeError> {
        if self.row(id)?.status == SessionStatus::Terminated {
            return Err(RuntimeError::Terminated(id.clone()));
        }
        let attached = self.attach(id, inputs)?;
        let attached = self.keep_attached(id, attached).await?;
        let admitted = self.admit_all(id, inputs).await;
        if admitted.is_err() {
            self.detach(id, &attached).await?;
        }
        admitted
    }

    async fn admit_all(
        &self,
        id: &SessionId,
        inputs: &[Input],
    ) -> Result<Vec<Event>, RuntimeError> {
        for _ in 0..ADMISSION_ATTEMPTS {
            let row = self.row(id)?;
            if row.status == SessionStatus::Terminated {
                return Err(RuntimeError::Terminated(row.id));
            }
            let definition = definition(&row)?;
            let now = self.shared.clock.now();
            let at_cap = self.is_at_cap(&row)?;
            let admission = Admission::to(self.reader(), &row, &definition, now, at_cap)?;
            let admitted = admission.admit(inputs)?;
            match self.append(id, admitted).await {
                Err(StoreError::Moved { .. }) => {}
                Err(StoreError::Ended { session }) => {
                    return Err(RuntimeError::Terminated(session));
                }
                appended => {
                    let events = appended?;
                    self.drive(id)?;
                    return Ok(events);
                }
            }
        }
        Err(RuntimeError::Busy(id.clone()))
    }

    /// Puts admitted inputs into the log and has them acted upon; one event for each input.
    async fn append(
        &self,
        id: &SessionId,
        Admitted { append, echoes }: Admitted,
    ) -> Result<Vec<Event>, StoreError> {
        let mut recorded = Vec::new();
        if !append.events.is_empty() {
            recorded = self.shared.store.append(id, Author::Client, append).await?;
        }
        let stops = |event: &&Event| matches!(event.body, EventBody::UserInterrupt { .. });
        if let Some(interrupt) = recorded.iter().rfind(stops) {
            self.shared.drivers.interrupt(id, interrupt.seq);
        }
        let echo = |new: NewEvent| {
            let found = recorded.iter().find(|event| event.id == new.id).cloned();
            found.unwrap_or_else(|| Event {
                seq: 0,
                id: new.id,
                session: id.clone(),
                created_at: new.created_at,
                processed_at: new.processed_at,
                body: new.body,
            })
        };
        let events = echoes.into_iter().map(echo).collect();
        Ok(events)
    }

    fn row(&self, id: &SessionId) -> Result<SessionRow, RuntimeError> {
        self.shared.store.reader().session(id)?.ok_or_else(|| RuntimeError::NoSession(id.clone()))
    }

    /// Sees to it that the session is being driven: after a crash this is all that resuming takes.
    ///
    /// # Errors
    /// If its model has no route or no key.
    pub fn drive(&self, id: &SessionId) -> Result<(), RuntimeError> {
        if self.shared.drivers.wake(id) {
            return Ok(());
        }
        let definition = definition(&self.row(id)?)?;
        let (route, model) = self.model(&definition.agent.model)?;
        let wanted = self.repositories_of(id)?;
        let hand_out = self.hand_out(id, &definition.environment);
        let attached = self.attached_files(id);
        let asker = match &definition.on_ask {
            Some(OnAsk::Webhook(url)) => {
                Some(webhook::asker(self.shared.catalog.http(), url.clone(), id.clone()))
            }
            None | Some(OnAsk::Deny | OnAsk::Fail | OnAsk::Wait(_)) => None,
        };
        let judge = self.judge();
        let starts_slowly = !definition.environment.packages.is_empty() || !wanted.is_empty();
        let trusted = definition.skills.of_repositories;
        let launcher = self.launcher(id, definition.environment, wanted, trusted);
        let (web, price) = (Arc::clone(&self.shared.web), self.price(&route));
        let mcp = Arc::clone(&self.shared.mcp);
        let server = self.shared.catalog.window_server(&route);
        let window = self.shared.config.windows.of(&route, server);
        let takes_documents = self.shared.catalog.routes().takes_documents(&route);
        self.shared.drivers.start(id, |previews, interrupt| Parts {
            store: self.shared.store.clone(),
            clock: Arc::clone(&self.shared.clock),
            model,
            model_name: route.to_string(),
            price,
            window,
            takes_documents,
            asker,
            judge,
            model_id: route.model,
            opened_at: self.shared.opened_at,
            hand_out,
            attached,
            starts_slowly,
            web,
            mcp,
            launcher,
            disk: self.disk(id),
            previews,
            interrupt,
        });
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
        let mut interrupted = false;
        let session = self.fold(&self.row(id)?, |body| match body {
            EventBody::UserMessage { .. } => interrupted = false,
            EventBody::UserInterrupt { .. } => interrupted = true,
            _ => {}
        })?;
        // Cut before it could stop: it would only close its calls.
        if session.turn().interrupted {
            return Ok(Standing::Stopped);
        }
        if has_work(&session) {
            return Ok(Standing::Working);
        }
        Ok(match session.stop_reason() {
            Some(StopReason::RequiresAction { event_ids }) => Standing::Waiting(event_ids.clone()),
            Some(StopReason::EndTurn) if !interrupted => Standing::Done,
            Some(_) => Standing::Stopped,
            None => Standing::Fresh,
        })
    }

    /// The session's state; every event that counts is shown to `visit`.
    fn fold(
        &self,
        row: &SessionRow,
        mut visit: impl FnMut(&EventBody),
    ) -> Result<Session, RuntimeError> {
        let id = row.id.clone();
        let rewinds = self.reader().of_kind(&id, "internal.rewound")?;
        let rewinds: Vec<_> = rewinds.iter().filter_map(Rewind::of).collect();
        let lineage = Lineage::to(row.head, &rewinds);
        let mut session = Session::new(Arc::new(definition(row)?));
        self.reader().each(&id, 0, |event| {
            if !lineage.holds(event.seq) {
                return session.skip(&event);
            }
            visit(&event.body);
            session.apply(&event);
        })?;
        Ok(session)
    }

    /// Whether nothing more may be asked of the session's model. Its last stop says so, until the budget is another.
    fn is_at_cap(&self, row: &SessionRow) -> Result<bool, RuntimeError> {
        let stopped = row.stop_reason == Some(StopReason::BudgetReached);
        Ok(stopped && self.fold(row, |_| {})?.is_over_budget())
    }

    /// What changed in the session's workspace since then.
    ///
    /// # Errors
    /// If the session's definition cannot be read.
    pub fn changes(&self, row: &SessionRow, since: Timestamp) -> Result<Changes, RuntimeError> {
        let definition = definition(row)?;
        Ok(changes::changed_since(&definition.environment, since))
    }

    /// Deletes a session and its log. Feeds of it end.
    ///
    /// # Errors
    /// If it is not there or is at work.
    pub async fn delete(&self, id: &SessionId) -> Result<(), RuntimeError> {
        for _ in 0..ADMISSION_ATTEMPTS {
            let row = self.row(id)?;
            self.check_still(&row)?;
            self.shared.drivers.retire(id).await;
            self.shared.warm.forget(id);
            let bytes = files::of_session(self.reader(), id)?;
            match self.shared.store.delete_session(id, row.head).await {
                // Whatever was said meanwhile is gone on with.
                Err(StoreError::Moved { .. }) => self.drive(id)?,
                deleted => {
                    deleted?;
                    // Cut here, the next start sweeps it.
                    self.disk(id).remove()?;
                    let data_dir = &self.config().data_dir;
                    let removed = bytes.iter().map(|file| files::remove_bytes(data_dir, file));
                    return Ok(removed.collect::<Result<_, _>>()?);
                }
            }
        }
        Err(RuntimeError::Busy(id.clone()))
    }

    /// Stops all work and closes the store. What was running resumes like after a crash.
    pub async fn shutdown(self) {
        let work = async {
            self.shared.drivers.stop().await;
            self.shared.warm.end();
            self.shared.builder.end().await;
            self.shared.store.clone().close().await;
            // A thread that panicked has nothing left to wait for.
            drop(tokio::task::spawn_blocking(sandbox::settle).await);
        };
        // Past the grace the process ends anyway; the log does not mind.
        drop(tokio::time::timeout(SHUTDOWN_GRACE, work).await);
    }
}

/// Whether a driver would do anything: also no more than to stop what was interrupted.
fn has_work(session: &Session) -> bool {
    session.request().is_some() || next_step(session) != Step::Rest
}

fn definition(row: &SessionRow) -> Result<Definition, RuntimeError> {
    let wrong = |source| DriveError::Definition { session: row.id.clone(), source }.into();
    row.definition.parse().map_err(wrong)
}

/// The models of the servers on this machine, as `PROVIDER/MODEL`, those of one server in its own order.
pub async fn local_models(config: &Config) -> Vec<String> {
    let Ok(catalog) = config.catalog() else { return Vec::new() };
    detected(&catalog).await
}

async fn detected(catalog: &Catalog) -> Vec<String> {
    let found = catalog.detect_local(LOCAL_PROBE_TIMEOUT).await.into_iter();
    let names = found.flat_map(|server| {
        server.models.into_iter().map(move |model| format!("{}/{model}", server.provider))
    });
    names.collect()
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
