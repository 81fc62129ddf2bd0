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
mod creation;
mod disks;
pub mod doctor;
mod drivers;
mod error;
mod feed;
pub mod files;
mod history;
mod instructions;
mod local;
mod mcp;
mod models;
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

use std::sync::Arc;

pub use crate::sandbox::Made;
pub use crate::sandbox::disk::{Change, ChangeKind, Choice, DiskError, Outcome};
pub use crate::session::{Definition, Preview};
pub use crate::store::{CreatedRange, Json, Order, Origin, SessionRow, SessionStatus};
pub use admission::{Input, Unanswerable};
pub use attachments::{AttachmentError, IMAGES};
pub use changes::{Changes, on_one_line, was_set_aside};
pub use config::{Config, ConfigError, Overrides};
pub use creation::SessionSpec;
pub use error::RuntimeError;
pub use feed::{Feed, FeedError, FeedItem};
pub use history::{Checkpoint, Rewound, checkpoints};
pub use local::{fresh_directory, new_file, profile_source, read_bounded};
pub use mcp::mcp_file;
pub use models::local_models;
pub use network::{NetworkUse, Refused, Used};
pub use records::{Record, RecordFilter};
pub use registries::Registries;
pub use sandboxes::{Executed, resolve_workspace, sandbox_exec, sandbox_view};
pub use update::SessionPatch;

use crate::agent::OnAsk;
use crate::clock::{Clock, SystemClock, Timestamp};
pub use crate::egress::Report;
use crate::environment::Environment;
use crate::event::{Event, EventBody, NewEvent, Seq, StopReason};
use crate::id::{EventId, SessionId};
use crate::limits::{ADMISSION_ATTEMPTS, SHUTDOWN_GRACE};
use crate::mcp::Mcp;
use crate::provider::routes::Catalog;
pub use crate::sandbox::SandboxError;
pub use crate::sandbox::View as SandboxView;
use crate::sandbox::{self};
use crate::session::lineage::{Lineage, Rewind};
use crate::session::step::{Step, next_step};
use crate::session::{DriveError, Parts, Session};
use crate::store::{self, Author, Store};
pub use crate::store::{Reader, SessionFilter, StoreError};
pub use crate::tool::policy::narrowest;
use crate::web::Web;
use admission::{Admission, Admitted};
use drivers::Drivers;
use packages::{BuildError, Builder, Provided, Watcher, unwatched};
use repositories::Repositories;
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
