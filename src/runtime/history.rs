//! A session's moments: list them, go back to one, begin another session at one.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Runtime, RuntimeError, definition};
use crate::clock::Timestamp;
use crate::environment::{Environment, WorkspaceMode};
use crate::event::{Event, EventBody, NewEvent, Seq};
use crate::id::{EventId, SessionId};
use crate::sandbox;
use crate::sandbox::disk::{Change, Choice, Disk, DiskError, DiskSeal, Fork, Form, Outcome, Place};
use crate::session::Definition;
use crate::session::lineage::{Lineage, Rewind};
use crate::session::rewind::{Moment, moment};
use crate::store::{Append, Author, NewSession, Origin, Reader, SessionRow, StoreError};

/// A moment at which a session's files were sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The event that says so: going back to it brings these files and the conversation of that moment.
    pub event: EventId,
    /// When.
    pub created_at: Timestamp,
    /// Files in the session's trees.
    pub files: u64,
    /// Entries that changed since the one before.
    pub changed: u64,
    /// Bytes kept for it.
    pub bytes: u64,
    /// Whether it lies on the way to the present; the others were taken back, and can be gone back to as well.
    pub current: bool,
}

/// What a rewind did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewound {
    /// The last event that counts now.
    pub position: Seq,
    /// The seals of home and workspace that are in place.
    pub seal: (u64, u64),
    /// The event that brings back what was there before.
    pub undo: EventId,
}

/// The checkpoints of a session, oldest first.
///
/// # Errors
/// If its log cannot be read.
pub fn checkpoints(reader: &Reader, row: &SessionRow) -> Result<Vec<Checkpoint>, StoreError> {
    let rewinds = reader.of_kind(&row.id, "internal.rewound")?;
    let rewinds: Vec<_> = rewinds.iter().filter_map(Rewind::of).collect();
    let lineage = Lineage::to(row.head, &rewinds);
    let sealed = reader.of_kind(&row.id, "internal.sealed")?.into_iter();
    let listed = sealed.filter_map(|event| match event.body {
        EventBody::Sealed { files, changed, bytes, .. } => Some(Checkpoint {
            current: lineage.holds(event.seq),
            event: event.id,
            created_at: event.created_at,
            files,
            changed,
            bytes,
        }),
        _ => None,
    });
    Ok(listed.collect())
}

/// A session that nobody works on, looked at for a change of its history.
struct Still {
    row: SessionRow,
    definition: Arc<Definition>,
    log: Vec<Event>,
    place: Place,
}

impl Runtime {
    /// Makes conversation and files what they were right after an event. What is there now is sealed first, so that this
    /// can be taken back as well; no event is lost.
    ///
    /// # Errors
    /// An unknown event, a session at work, files that cannot be sealed; nothing is done then. Where restoring itself
    /// fails or is cut, the next start of the session ends it.
    pub async fn rewind(&self, id: &SessionId, to: &EventId) -> Result<Rewound, RuntimeError> {
        let still = self.still(id).await?;
        let Moment { position, seal, closing, .. } = still.moment(to, self.now())?;
        let now = self.seal_now(&still).await?;
        let undo = NewEvent::now(self.now(), now.1);
        let (home, work) = seal.unwrap_or(now.0);
        let body = EventBody::Rewound { to: to.clone(), position, home, work };
        let events = [body].into_iter().chain(closing).map(|body| NewEvent::now(self.now(), body));
        let events: Vec<_> = [undo].into_iter().chain(events).collect();
        let committed = self.write(id, events).await?;
        let (undo, at) = (committed[0].id.clone(), committed[1].seq);
        let seal = DiskSeal { home, work };
        on_disk(&still, move |disk| disk.rewind(at, seal)).await?;
        Ok(Rewound { position, seal: (home, work), undo })
    }

    /// What a session changed of its workspace. In the mode `direct`: since its files were sealed first.
    ///
    /// # Errors
    /// A session at work, files that cannot be read.
    pub async fn diff(&self, id: &SessionId) -> Result<Vec<Change>, RuntimeError> {
        on_disk(&self.still(id).await?, Disk::changes).await
    }

    /// Gives the session's version of these paths, or of all, to the user.
    ///
    /// # Errors
    /// As [`Disk::apply`]: paths that both have changed take a choice, and without it nothing is done.
    pub async fn apply(
        &self,
        id: &SessionId,
        paths: &[PathBuf],
        choice: Option<Choice>,
    ) -> Result<Vec<(PathBuf, Outcome)>, RuntimeError> {
        let still = self.still(id).await?;
        let paths = still.below(paths);
        let wanted = paths.clone();
        let would = on_disk(&still, move |disk| disk.would_apply(&wanted, choice)).await?;
        let intent = EventBody::Applying { paths: shown(&would) };
        self.carry_out(&still, intent, move |disk| disk.apply(&paths, choice)).await
    }

    /// Takes back what the session changed at these paths, or all of it.
    ///
    /// # Errors
    /// As [`Disk::discard`].
    pub async fn discard(
        &self,
        id: &SessionId,
        paths: &[PathBuf],
    ) -> Result<Vec<(PathBuf, Outcome)>, RuntimeError> {
        let still = self.still(id).await?;
        let paths = still.below(paths);
        let wanted = paths.clone();
        let would = on_disk(&still, move |disk| disk.would_discard(&wanted)).await?;
        let intent = EventBody::Discarding { paths: shown(&would) };
        self.carry_out(&still, intent, move |disk| disk.discard(&paths)).await
    }

    /// Says what is about to be done with files, does it, and says what came of it. Where that is cut, whoever comes next
    /// looks and says it.
    async fn carry_out(
        &self,
        still: &Still,
        intent: EventBody,
        act: impl FnOnce(&mut Disk) -> Result<Vec<(PathBuf, Outcome)>, DiskError> + Send + 'static,
    ) -> Result<Vec<(PathBuf, Outcome)>, RuntimeError> {
        if matches!(&intent, EventBody::Applying { paths } | EventBody::Discarding { paths } if paths.is_empty())
        {
            return Ok(Vec::new());
        }
        let id = &still.row.id;
        self.write(id, vec![NewEvent::now(self.now(), intent.clone())]).await?;
        match on_disk(still, act).await {
            Ok(done) => {
                self.write(id, vec![NewEvent::now(self.now(), outcome(&intent, &done))]).await?;
                Ok(done)
            }
            Err(error) => {
                // It stopped on the way: what was done by then is said as well.
                self.settle(still, &intent).await?;
                Err(error)
            }
        }
    }

    /// Finds out what came of an intent, and says it. Nothing is done again: the user's files may be others by now.
    async fn settle(&self, still: &Still, intent: &EventBody) -> Result<Vec<Event>, RuntimeError> {
        let (EventBody::Applying { paths } | EventBody::Discarding { paths }) = intent else {
            return Ok(Vec::new());
        };
        let left = on_disk(still, Disk::changes).await?;
        let differs =
            |path: &String| left.iter().any(|change| change.path.display().to_string() == *path);
        let ended = match intent {
            EventBody::Applying { .. } => Outcome::Applied,
            _ => Outcome::Discarded,
        };
        let outcome_of = |path: &String| if differs(path) { Outcome::Kept } else { ended };
        let done: Vec<_> =
            paths.iter().map(|path| (PathBuf::from(path), outcome_of(path))).collect();
        self.write(&still.row.id, vec![NewEvent::now(self.now(), outcome(intent, &done))]).await
    }

    /// Begins a session that was this one up to an event, with files of its own; without one, as this one is now. A
    /// session that works on the user's own files is forked into one that works on a copy of them.
    ///
    /// # Errors
    /// An unknown event, a session at work, a full disk; nothing is left of the new session then.
    pub async fn fork(
        &self,
        id: &SessionId,
        at: Option<&EventId>,
        title: Option<String>,
    ) -> Result<SessionRow, RuntimeError> {
        let mut still = self.still(id).await?;
        let sealed = still.log.iter().any(|event| matches!(event.body, EventBody::Sealed { .. }));
        if at.is_none() || !sealed {
            let (_, body) = self.seal_now(&still).await?;
            still.log.extend(self.write(id, vec![NewEvent::now(self.now(), body)]).await?);
        }
        let at = at.unwrap_or(&still.log.last().expect("a seal was just made").id).clone();
        let moment = still.moment(&at, self.now())?;
        let new = SessionId::mint(self.now());
        let place = self.disk(&new);
        let made = self.branch(&still, &at, &moment, new, title).await;
        if made.is_err() {
            place.remove()?;
        }
        made
    }

    async fn branch(
        &self,
        still: &Still,
        at: &EventId,
        moment: &Moment,
        id: SessionId,
        title: Option<String>,
    ) -> Result<SessionRow, RuntimeError> {
        let mut definition = Definition::clone(&still.definition);
        if definition.environment.workspace_mode == WorkspaceMode::Direct {
            definition.environment.workspace_mode = WorkspaceMode::Copy;
        }
        let last = still.last_seal(moment.position);
        let seal = moment.seal.map_or(last, |(home, work)| DiskSeal { home, work });
        let last = DiskSeal { home: last.home.max(seal.home), work: last.work.max(seal.work) };
        let mode = definition.environment.workspace_mode;
        let fork = Fork { mode, last, seal, rewound: moment.position, form: Form::Layer };
        let DiskSeal { home, work } =
            self.fork_disk(still, &self.disk(&id), &definition.environment, fork).await?;
        self.disk(&id).link_skills_of(&still.place)?;
        let given = self.give_alike(&still.row.id, &id).await?;
        let title =
            title.or_else(|| still.row.title.as_ref().map(|title| format!("{title} (fork)")));
        let new = NewSession {
            id,
            title,
            workspace: still.row.workspace.clone(),
            definition: serde_json::to_value(&definition).expect("a definition is JSON"),
            origin: still.origin_at(moment.position),
            metadata: still.row.metadata.clone(),
            budget: moment.budget.clone(),
            records: given.records.clone(),
            created_at: self.now(),
        };
        let forked = EventBody::Forked { from: still.row.id.clone(), at: at.clone(), home, work };
        let events = [forked].into_iter().chain(moment.closing.clone());
        let events: Vec<_> = events.map(|body| NewEvent::now(self.now(), body)).collect();
        let last = moment.position;
        let commit = self.shared.store.fork_session(new, &still.row.id, last, events);
        given.commit(commit).await
    }

    /// Makes the disk of a fork: a layer, unless this machine has no use for one.
    async fn fork_disk(
        &self,
        still: &Still,
        place: &Place,
        environment: &Environment,
        fork: Fork,
    ) -> Result<DiskSeal, RuntimeError> {
        let to = place.clone();
        let made = on_disk(still, move |disk| disk.fork(&to, &fork)).await?;
        let layered = fork.mode == WorkspaceMode::Copy && place.base()?.is_some();
        // Whether a layer can be had here is found out by having it.
        if !layered || sandbox::launch(environment, place, None, &[]).await.is_ok() {
            return Ok(made);
        }
        place.remove()?;
        let (to, fork) = (place.clone(), Fork { form: Form::Copy, ..fork });
        on_disk(still, move |disk| disk.fork(&to, &fork)).await
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The session with its whole log, its last rewind carried out.
    async fn still(&self, id: &SessionId) -> Result<Still, RuntimeError> {
        let row = self.row(id)?;
        if self.shared.drivers.is_driven(id) {
            return Err(RuntimeError::Busy(id.clone()));
        }
        self.shared.warm.forget(id);
        let mut log = Vec::new();
        self.reader().each(id, 0, |event| log.push(event))?;
        let definition = Arc::new(definition(&row)?);
        let mut still = Still { row, definition, log, place: self.disk(id) };
        if let Some(last) = still.log.iter().rev().find_map(Rewind::of) {
            let (home, work) = last.seal;
            on_disk(&still, move |disk| disk.rewind(last.at, DiskSeal { home, work })).await?;
        }
        if let Some(intent) = still.open_intent() {
            let said = self.settle(&still, intent).await?;
            still.log.extend(said);
        }
        Ok(still)
    }

    /// Seals what is there, and the event that says so.
    async fn seal_now(&self, still: &Still) -> Result<((u64, u64), EventBody), RuntimeError> {
        let made = on_disk(still, Disk::seal).await?;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let DiskSeal { home, work } = made.seal;
        let (files, changed, bytes) = (count(made.files), count(made.changed), made.bytes);
        Ok(((home, work), EventBody::Sealed { home, work, files, changed, bytes }))
    }

    /// Appends to a log that nobody else works on; an earlier driver is fenced.
    async fn write(
        &self,
        id: &SessionId,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Event>, RuntimeError> {
        let author = Author::Driver(self.shared.store.claim(id).await?);
        Ok(self.shared.store.append(id, author, Append::from(events)).await?)
    }
}

/// The paths that ended so.
fn of(done: &[(PathBuf, Outcome)], wanted: Outcome) -> Vec<String> {
    let ended = done.iter().filter(|(_, outcome)| *outcome == wanted);
    ended.map(|(path, _)| path.display().to_string()).collect()
}

/// What came of an intent.
fn outcome(intent: &EventBody, done: &[(PathBuf, Outcome)]) -> EventBody {
    let mut kept = of(done, Outcome::Kept);
    kept.extend(of(done, Outcome::Beside));
    if matches!(intent, EventBody::Discarding { .. }) {
        return EventBody::Discarded { discarded: of(done, Outcome::Discarded), kept };
    }
    let (applied, merged) = (of(done, Outcome::Applied), of(done, Outcome::Merged));
    EventBody::Applied { applied, merged, kept }
}

fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

impl Still {
    /// What was about to be done with files, if nothing says what came of it.
    fn open_intent(&self) -> Option<&EventBody> {
        let mut acts = self.log.iter().rev().map(|event| &event.body).filter(|body| {
            matches!(
                body,
                EventBody::Applying { .. }
                    | EventBody::Applied { .. }
                    | EventBody::Discarding { .. }
                    | EventBody::Discarded { .. }
            )
        });
        acts.next().filter(|body| {
            matches!(body, EventBody::Applying { .. } | EventBody::Discarding { .. })
        })
    }

    /// Paths as the user named them, seen from the workspace.
    fn below(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let inner = |path: &PathBuf| {
            let path = path.strip_prefix(&self.row.workspace).unwrap_or(path);
            path.strip_prefix(".").unwrap_or(path).to_owned()
        };
        paths.iter().map(inner).collect()
    }

    fn moment(&self, to: &EventId, now: Timestamp) -> Result<Moment, RuntimeError> {
        let definition = Arc::clone(&self.definition);
        let missing = || {
            let (session, event) = (self.row.id.clone(), to.clone());
            RuntimeError::NoEvent { session, event }
        };
        moment(definition, &self.log, to, now).ok_or_else(missing)
    }

    /// The stored definitions that the session is made of, as they were then.
    fn origin_at(&self, position: Seq) -> Option<Origin> {
        let mut origin = self.definition.origin.clone()?;
        for event in self.log.iter().filter(|event| event.seq <= position) {
            if let EventBody::SessionUpdated { agent: Some(agent), .. } = &event.body {
                origin.agent = agent.clone();
            }
        }
        Some(origin)
    }

    /// The newest seals that the log up to there speaks of.
    fn last_seal(&self, position: Seq) -> DiskSeal {
        let seals = self.log.iter().filter(|event| event.seq <= position);
        let seals = seals.filter_map(|event| match event.body {
            EventBody::Sealed { home, work, .. }
            | EventBody::Rewound { home, work, .. }
            | EventBody::Forked { home, work, .. } => Some((home, work)),
            _ => None,
        });
        seals.fold(DiskSeal { home: 0, work: 0 }, |last, (home, work)| DiskSeal {
            home: last.home.max(home),
            work: last.work.max(work),
        })
    }
}

async fn on_disk<T: Send + 'static>(
    still: &Still,
    work: impl FnOnce(&mut Disk) -> Result<T, DiskError> + Send + 'static,
) -> Result<T, RuntimeError> {
    with_disk(still.place.clone(), &still.definition.environment, work).await
}

/// Opens a disk and works on it, off the runtime's thread.
pub(super) async fn with_disk<T: Send + 'static>(
    place: Place,
    environment: &Environment,
    work: impl FnOnce(&mut Disk) -> Result<T, DiskError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let (mode, workspace) = (environment.workspace_mode, environment.workspace.clone());
    let task = tokio::task::spawn_blocking(move || {
        let mut disk = Disk::open(&place, mode, &workspace)?;
        work(&mut disk)
    });
    Ok(task.await.expect("work on a disk does not panic")?)
}
