//! The loop: ask for the next step, commit what is known together with the step's intent, perform it, ask again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::absent::Asker;
use super::attached::{AttachedFiles, Resolver};
use super::beginning::Beginning;
use super::call::{Call, CallState};
use super::disk::DiskSlot;
use super::files::changes_files;
use super::guest::GuestSlot;
use super::lineage::{Lineage, Rewind};
use super::made::Makings;
use super::mcp::Servers;
use super::network::Attempts;
use super::previews::Previews;
use super::step::{self, Step};
use super::{Definition, Session, recover};
use crate::agent::ToolName;
use crate::clock::{Clock, Timestamp};
use crate::event::{EventBody, NewEvent, Seq};
use crate::id::{EventId, SessionId};
use crate::mcp::Mcp;
use crate::provider::Model;
use crate::provider::prices::Price;
use crate::provider::windows::Window;
use crate::sandbox::disk::{DiskError, Place};
use crate::store::{Epoch, Store, StoreError};
use crate::web::Web;

pub use super::guest::{Launched, Launcher, Sandboxed};
pub use super::interrupt::Interrupt;
pub use super::judge::{Judge, JudgeModel};

/// What a driver works with. All of it is shared with the runtime.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The model that answers.
    pub model: Arc<dyn Model>,
    /// The model's own name at its provider.
    pub model_id: String,
    /// The provider and model, as `PROVIDER/MODEL`.
    pub model_name: String,
    /// What its tokens cost, if that is known.
    pub price: Option<Price>,
    /// How much it can read, if anybody knows.
    pub window: Window,
    /// Whether it can be given a PDF as it is.
    pub takes_documents: bool,
    /// Asks somebody else than clients whether calls may run, where the session has such a one.
    pub asker: Option<Asker>,
    /// Who judges calls under the policy `auto`.
    pub judge: Option<Judge>,
    /// When this process took the log over.
    pub opened_at: Timestamp,
    /// The web.
    pub web: Arc<Web>,
    /// The way to MCP servers.
    pub mcp: Arc<Mcp>,
    /// Makes sandboxes.
    pub launcher: Launcher,
    /// Whether it may take minutes.
    pub starts_slowly: bool,
    /// Where the session's own disk lies.
    pub disk: Place,
    /// Hands out what it has made, if it does that.
    pub hand_out: Option<HandOut>,
    /// What its conversation refers to.
    pub attached: AttachedFiles,
    /// Where pieces of answers go.
    pub previews: Previews,
    /// Cancelled by `user.interrupt`, then replaced.
    pub interrupt: Interrupt,
}

/// Hands out what a session has made; what could not be, and why.
pub type HandOut =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Why a driver had to stop. The session resumes with the next driver.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The log could not be read or written.
    #[error("could not keep the session's log")]
    Store(#[from] StoreError),
    /// The log belongs to a session that is not there.
    #[error("there is no session {0}")]
    NoSession(SessionId),
    /// A rewind that was begun could not be carried out.
    #[error("could not take back the files of session {session}")]
    Disk {
        /// The session.
        session: SessionId,
        /// What went wrong.
        source: DiskError,
    },
    /// The definition beside the log cannot be read.
    #[error("the definition of session {session} is not readable")]
    Definition {
        /// The session.
        session: SessionId,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The kind of [`EventBody::Rewound`].
pub(super) const REWOUND: &str = "internal.rewound";

pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether a step can be performed now.
enum Ready {
    Yes,
    /// There is no sandbox, for this reason.
    Failed(String),
    /// Something was said meanwhile: it is to be decided anew.
    Interrupted,
}

/// What performing a step yields.
#[derive(Default)]
pub(super) struct Performed {
    /// To be committed with the next intent.
    pub(super) facts: Vec<NewEvent>,
    /// Wait this long before the next step, with the facts committed.
    pub(super) pause: Option<Duration>,
}

/// Drives one session. Dropping it stops the work where it is; the log stays whole.
pub struct Driver {
    pub(super) parts: Parts,
    pub(super) id: SessionId,
    pub(super) session: Session,
    pub(super) guest: GuestSlot,
    pub(super) attempts: Attempts,
    pub(super) attached: Resolver,
    pub(super) makings: Makings,
    pub(super) servers: Servers,
    /// What the repositories brought was looked at for this turn.
    pub(super) looked_for_skills: bool,
    pub(super) beginning: Beginning,
    pub(super) disk: DiskSlot,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    /// Where the log ends; clients move it too.
    head: watch::Receiver<Seq>,
}

impl Driver {
    /// Takes the session over: fences every earlier driver, folds the log and repairs it.
    ///
    /// # Errors
    /// If the session is not there or its log cannot be read or written.
    pub async fn start(parts: Parts, id: SessionId) -> Result<Self, DriveError> {
        let epoch = parts.store.claim(&id).await?;
        let row =
            parts.store.reader().session(&id)?.ok_or_else(|| DriveError::NoSession(id.clone()))?;
        let wrong = |source| DriveError::Definition { session: id.clone(), source };
        let definition: Definition = row.definition.parse().map_err(wrong)?;
        let definition = Arc::new(definition);
        let guest = GuestSlot::new(parts.launcher.clone());
        let disk = DiskSlot::new(parts.disk.clone(), definition.environment.clone());
        let session = Session::new(definition);
        let beginning = Beginning::of(&session);
        let rewinds = parts.store.reader().of_kind(&id, REWOUND)?;
        let rewinds: Vec<_> = rewinds.iter().filter_map(Rewind::of).collect();
        let lineage = Lineage::to(row.head, &rewinds);
        let head = parts.store.head(&id)?;
        let attempts = Attempts::default();
        let attached = Resolver::new(Arc::clone(&parts.attached));
        let mut driver = Self {
            parts,
            id,
            session,
            guest,
            attempts,
            attached,
            makings: Makings::default(),
            servers: Servers::default(),
            looked_for_skills: false,
            beginning,
            disk,
            lineage,
            epoch,
            head,
        };
        driver.carry_out(rewinds.last()).await?;
        driver.catch_up(None)?;
        let repairs = recover::repairs(&driver.session, driver.parts.opened_at);
        driver.commit_bodies(repairs).await?;
        Ok(driver)
    }

    /// A rewind that was cut is ended before anything else.
    async fn carry_out(&mut self, rewind: Option<&Rewind>) -> Result<(), DriveError> {
        let Some(rewind) = rewind else { return Ok(()) };
        let done = self.disk.rewind(rewind.at, rewind.seal).await;
        done.map_err(|source| DriveError::Disk { session: self.id.clone(), source })
    }

    /// The session as the driver sees it.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether something of the session lives that its log does not have: its shell, what runs in the background.
    #[must_use]
    pub fn has_sandbox(&self) -> bool {
        !self.guest.is_cold()
    }

    /// Works until there is nothing to do. May be called again after new input.
    ///
    /// # Errors
    /// If the log cannot be kept; nothing that was acknowledged is lost.
    pub async fn run(&mut self) -> Result<(), DriveError> {
        let mut facts = Vec::new();
        let mut sealed = false;
        self.catch_up(None)?;
        loop {
            // A head is raised a moment after the append is answered, and a token may be tripped in between.
            let moved = *self.head.borrow() > self.session.head();
            if moved || self.parts.interrupt.is_tripped() {
                self.catch_up(None)?;
            }
            let token = self.parts.interrupt.step(self.session.head());
            let (step, intent) = self.decide(&facts);
            if step == Step::Sample && self.servers_are_due(&facts) {
                if let Some(news) = self.ask_servers(&token).await {
                    self.commit_news(&mut facts, news).await?;
                }
                continue;
            }
            if step == Step::Sample && self.skills_are_due(&facts) {
                if let Some(news) = self.find_skills(&token).await {
                    self.commit_news(&mut facts, news).await?;
                }
                continue;
            }
            if step.asks_model()
                && let Some(fact) = self.measure().await
            {
                facts.extend(fact);
                continue;
            }
            if self.waits_long_for(&step) && !facts.is_empty() {
                self.commit(std::mem::take(&mut facts)).await?;
                continue;
            }
            let (step, intent) = match self.ready_for(&step, &token).await {
                Ready::Yes => (step, intent),
                Ready::Failed(failure) => self.without_sandbox(&facts, failure),
                Ready::Interrupted => continue,
            };
            if !sealed && self.wants_seal(&step, &facts) {
                if !matches!(step, Step::Run(_)) {
                    facts.extend(self.look().await);
                }
                facts.extend(self.seal(&facts).await);
                sealed = true;
            }
            if step.ends_turn() {
                facts.extend(self.hand_out(&facts).await);
            }
            let intent = self.at_once(intent);
            if step.ends_turn() {
                self.turn_is_over();
                facts.splice(0..0, self.news());
                if !self.commit_here([&facts[..], &intent[..]].concat()).await? {
                    continue;
                }
                facts.clear();
            } else {
                facts.extend(intent);
                self.commit(std::mem::take(&mut facts)).await?;
            }
            sealed = false;
            let performed = match &step {
                Step::Rest => return Ok(()),
                Step::Sample => {
                    self.turn_is_over();
                    self.sample(&token).await?
                }
                Step::Compact(_) => self.compact(&token).await?,
                Step::Run(calls) => self.run_calls(calls, &token).await,
                Step::Trim(_) | Step::CompactFromLog => Performed::default(),
                Step::Settle(_) | Step::Stop | Step::GiveUp(_) | Step::Terminate => {
                    Performed::default()
                }
            };
            facts = performed.facts;
            if let Some(pause) = performed.pause {
                self.commit(std::mem::take(&mut facts)).await?;
                // An interrupt ends the wait: the next step is then to stop.
                let wait = tokio::time::timeout(pause, token.cancelled());
                if wait.await.is_ok() {
                    continue;
                }
            }
        }
    }

    /// What is asked before a turn's first request is asked anew in the next one.
    fn turn_is_over(&mut self) {
        self.servers.turn_is_over();
        self.looked_for_skills = false;
    }

    /// Whether the turn is about to begin, and what the session's repositories bring was not looked at for it.
    fn skills_are_due(&self, facts: &[NewEvent]) -> bool {
        let may_bring = !self.session.definition().skills.of_repositories.is_empty();
        may_bring && !self.looked_for_skills && self.session.ahead(facts).turn().requests == 0
    }

    /// Waits until the repositories are there, as far as they can be had, and says which skills they brought if that is
    /// not what the log has; nothing if that was interrupted.
    async fn find_skills(&mut self, token: &CancellationToken) -> Option<Vec<EventBody>> {
        tokio::select! {
            biased;
            // Where there is no sandbox, nobody can read them: that is told when a tool needs one.
            guest = self.guest.get() => drop(guest),
            () = token.cancelled() => return None,
        }
        self.looked_for_skills = true;
        let brought = self.guest.brought().filter(|brought| *brought != &**self.session.brought());
        Some(brought.cloned().map(EventBody::SkillsFound).into_iter().collect())
    }

    /// Commits what was heard before the turn's first request, together with what is known: what the model is offered is
    /// in the log before it is asked.
    async fn commit_news(
        &mut self,
        facts: &mut Vec<NewEvent>,
        news: Vec<EventBody>,
    ) -> Result<(), DriveError> {
        if news.is_empty() {
            return Ok(());
        }
        let mut bodies = step::wake(&self.session.ahead(facts));
        bodies.extend(news);
        facts.extend(self.at_once(bodies));
        self.commit(std::mem::take(facts)).await
    }

    /// Runs the calls, and seals what they may have changed.
    async fn run_calls(&mut self, calls: &[EventId], token: &CancellationToken) -> Performed {
        let mut performed = self.dispatch(calls, token).await;
        if changes_files(&self.session, calls) {
            let changes = |id: &&EventId| changes_files(&self.session, std::slice::from_ref(*id));
            let caller = calls.iter().find(changes).expect("one of them changes files").clone();
            self.makings.by(&caller);
            let made = self.look().await;
            performed.facts.iter_mut().for_each(|fact| self.makings.tell(&mut fact.body, &caller));
            performed.facts.splice(..0, made);
            let sealed = self.seal(&performed.facts).await;
            performed.facts.extend(sealed);
        }
        performed
    }

    fn decide(&self, facts: &[NewEvent]) -> (Step, Vec<EventBody>) {
        let ahead = self.session.ahead(facts);
        let step = step::next_step(&ahead);
        let intent = step::intent(&ahead, &step, self.parts.clock.now());
        (step, intent)
    }

    /// Whether what the sandbox shows may have to be built or fetched first: what the model said is not held back until then.
    fn waits_long_for(&self, step: &Step) -> bool {
        matches!(step, Step::Run(_)) && self.parts.starts_slowly && self.guest.get_if_up().is_none()
    }

    /// Brings the sandbox up while the model thinks, and waits for it where tools are about to run: its packages may
    /// have to be built.
    async fn ready_for(&mut self, step: &Step, token: &CancellationToken) -> Ready {
        match step {
            Step::Sample if !self.session.definition().agent.tools.is_empty() => self.guest.warm(),
            Step::Run(calls) if self.wants_guest(calls) => {
                tokio::select! {
                    biased;
                    guest = self.guest.get() => if let Err(failure) = guest {
                        return Ready::Failed(failure);
                    },
                    () = token.cancelled() => return Ready::Interrupted,
                }
            }
            Step::Sample
            | Step::Run(_)
            | Step::Rest
            | Step::Trim(_)
            | Step::Compact(_)
            | Step::CompactFromLog
            | Step::Settle(_)
            | Step::Stop
            | Step::GiveUp(_)
            | Step::Terminate => {}
        }
        Ready::Yes
    }

    /// Refusing a call takes no sandbox, nor does a search.
    fn wants_guest(&self, calls: &[EventId]) -> bool {
        let outside = |call: &Call| {
            matches!(call.state, CallState::Denied(_))
                || call.built_in() == Some(ToolName::WebSearch)
                || call.mcp.as_ref().is_some_and(|at| !at.is_sandboxed)
                || call.is_search()
        };
        calls.iter().any(|id| !self.session.call(id).is_some_and(outside))
    }

    /// No sandbox, no tools: the turn ends, and says what is missing.
    pub(super) fn without_sandbox(
        &self,
        facts: &[NewEvent],
        failure: String,
    ) -> (Step, Vec<EventBody>) {
        let ahead = self.session.ahead(facts);
        let step = step::no_sandbox(&failure);
        let mut intent = vec![EventBody::SandboxFailed { message: failure }];
        intent.extend(step::intent(&ahead, &step, self.parts.clock.now()));
        (step, intent)
    }
}
