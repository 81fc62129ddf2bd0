//! The one writer thread: takes what waits, commits it together, answers, wakes.
//!
//! It knows transactions and failures, not what is written: a job brings that along. A job that fails takes back what
//! it did, so that the others are committed without it. Nothing is answered before the commit is on the disk, except for
//! what may be lost with the process that wrote it: it gets there with the next commit.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};

use super::checkpoint::{Checkpointer, Health};
use super::directory::Held;
use super::heads::Heads;
use super::reader::Reading;
use super::schema::Database;
use super::{CommitHook, CommitPhase, StoreError};
use crate::event::Seq;
use crate::id::SessionId;
use crate::limits;

/// What a job has done, as long as the commit succeeds.
pub(super) struct Done<T> {
    pub(super) value: T,
    pub(super) effect: Effect,
}

/// What others are told after the commit.
pub(super) enum Effect {
    None,
    Head(SessionId, Seq),
    Deleted(SessionId),
}

/// One write with someone who waits for its result.
trait Job: Send {
    /// What it writes, roughly.
    fn bytes(&self) -> usize;
    /// Whether it must be on the disk before it is answered.
    fn lasts(&self) -> bool;
    /// Does it inside of the open transaction; its failure, if it did nothing.
    fn perform(&mut self, db: &Database) -> Option<&StoreError>;
    /// Answers, now that the transaction is decided.
    fn settle(self: Box<Self>, committed: Result<(), StoreError>) -> Effect;
}

struct Ticket<T, F> {
    bytes: usize,
    lasts: bool,
    work: Option<F>,
    result: Option<Result<Done<T>, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Ticket<T, F>
where
    T: Send,
    F: FnOnce(&Database) -> Result<Done<T>, StoreError> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn lasts(&self) -> bool {
        self.lasts
    }

    fn perform(&mut self, db: &Database) -> Option<&StoreError> {
        let work = self.work.take()?;
        self.result.insert(work(db)).as_ref().err()
    }

    fn settle(self: Box<Self>, committed: Result<(), StoreError>) -> Effect {
        let (answer, effect) = match (self.result, committed) {
            (Some(Ok(done)), Ok(())) => (Ok(done.value), done.effect),
            (Some(Err(own)), _) => (Err(own), Effect::None),
            (_, Err(commit)) => (Err(commit), Effect::None),
            (None, Ok(())) => unreachable!("a transaction is committed after all of its jobs ran"),
        };
        // Whoever gave up waiting reads the outcome from the log.
        drop(self.reply.send(answer));
        effect
    }
}

enum Message {
    Job(Box<dyn Job>),
    Close,
}

/// The door to the writer thread. Dropping it drains the queue and waits for the thread.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Message>>,
    health: Arc<Health>,
    ended: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        db: Database,
        held: Held,
        heads: Arc<Heads>,
        reading: Reading,
        hook: Option<CommitHook>,
    ) -> Result<Self, StoreError> {
        let path = db.path().to_owned();
        let health = Arc::new(Health::new(&path));
        let checkpointer = Checkpointer::start(&path, reading, Arc::clone(&health))?;
        let (queue, waiting) = mpsc::channel(limits::WRITER_QUEUE);
        let (end, ended) = watch::channel(());
        let desk = Desk {
            db,
            waiting,
            heads,
            hook,
            health: Arc::clone(&health),
            checkpointer,
            commits: 0,
            synced: true,
        };
        let thread = spawn("store-writer", &path, move || {
            desk.work();
            // Only now may another process open the directory, and only then does `close` return.
            drop(held);
            drop(end);
        })?;
        Ok(Self { queue: Some(queue), health, ended, thread: Some(thread) })
    }

    /// Queues `work`, waits until the queue has room, and then for the commit. Dropping the future after it was queued
    /// does not take it back.
    pub(super) async fn write<T, F>(&self, bytes: usize, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<Done<T>, StoreError> + Send + 'static,
    {
        self.send(bytes, true, work).await
    }

    /// The same for what says nothing once the process is gone: it is answered before it is on the disk.
    pub(super) async fn write_fleeting<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<Done<T>, StoreError> + Send + 'static,
    {
        self.send(0, false, work).await
    }

    async fn send<T, F>(&self, bytes: usize, lasts: bool, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<Done<T>, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Ticket { bytes, lasts, work: Some(work), result: None, reply });
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Message::Job(job)).await.map_err(|_| StoreError::Closed)?;
        answer
            .await
            .unwrap_or_else(|_| Err(self.health.check().err().unwrap_or(StoreError::Closed)))
    }

    /// Takes no more work, does what is queued, and waits until the file is closed.
    pub(super) async fn close(&self) {
        if let Some(queue) = &self.queue
            && queue.send(Message::Close).await.is_err()
        {
            // Somebody else has closed it; the end is awaited all the same.
        }
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // It has panicked and said so; every job that it held was answered with `Closed`.
        }
    }
}

pub(super) fn spawn(
    name: &str,
    path: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StoreError::prepare(path))
}

/// What the thread owns.
struct Desk {
    db: Database,
    waiting: mpsc::Receiver<Message>,
    heads: Arc<Heads>,
    hook: Option<CommitHook>,
    health: Arc<Health>,
    checkpointer: Checkpointer,
    /// Commits since the store was opened.
    commits: u64,
    /// Whether commits wait for the disk, as they do from the beginning.
    synced: bool,
}

impl Desk {
    fn work(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            let mut group = self.gather(first);
            let bytes = group.iter().map(|job| job.bytes()).sum();
            let jobs = group.len();
            let committed = self.health.check().and_then(|()| self.commit(&mut group));
            for job in group {
                match job.settle(committed.clone()) {
                    Effect::None => {}
                    Effect::Head(session, head) => self.heads.raise(&session, head),
                    Effect::Deleted(session) => self.heads.close(&session),
                }
            }
            self.checkpointer.written(&self.db, jobs, bytes);
        }
        self.heads.close_all();
        self.checkpointer.end(self.db);
    }

    /// What waits, up to the bounds of one transaction.
    fn gather(&mut self, first: Message) -> Vec<Box<dyn Job>> {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job(job) => {
                    bytes += job.bytes();
                    group.push(job);
                }
                Message::Close => self.waiting.close(),
            }
            let full =
                group.len() == limits::GROUP_COMMIT_MAX || bytes >= limits::GROUP_COMMIT_BYTES;
            next = if full { None } else { self.waiting.try_recv().ok() };
        }
        group
    }

    /// All jobs in one transaction, on the disk when this returns if one of them must be. On an error none of them is.
    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let lasts = group.iter().any(|job| job.lasts());
        let done = self
            .sync(lasts)
            .and_then(|()| self.db.run("BEGIN IMMEDIATE"))
            .and_then(|()| self.perform_and_commit(group));
        let Err(error) = done else { return Ok(()) };
        if !self.db.conn.is_autocommit()
            && let Err(stuck) = self.db.run("ROLLBACK")
        {
            return Err(self.health.fail(&stuck));
        }
        // After a failed sync the kernel may have dropped the pages: a second sync would succeed and mean nothing.
        if error.is_io_failure() {
            return Err(self.health.fail(&error));
        }
        Err(error)
    }

    /// Whether the next commit waits for the disk. The one after one that did not takes its pages along.
    fn sync(&mut self, now: bool) -> Result<(), StoreError> {
        if self.synced != now {
            self.db.set_synchronous(if now { "FULL" } else { "NORMAL" })?;
            self.synced = now;
        }
        Ok(())
    }

    fn perform_and_commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut worth = false;
        for job in group {
            worth |= perform(&self.db, job.as_mut())?;
        }
        if !worth {
            return self.db.run("ROLLBACK");
        }
        self.commits += 1;
        self.tell(CommitPhase::Before);
        self.db.run("COMMIT")?;
        self.tell(CommitPhase::After);
        Ok(())
    }

    fn tell(&self, phase: CommitPhase) {
        if let Some(hook) = &self.hook {
            hook(self.commits, phase);
        }
    }
}

/// Does one job; whether it succeeded. An error ends the whole transaction.
fn perform(db: &Database, job: &mut dyn Job) -> Result<bool, StoreError> {
    match job.perform(db) {
        None => Ok(true),
        // A full disk, for one, may have ended the transaction by itself.
        Some(own) if own.is_io_failure() || db.conn.is_autocommit() => Err(own.clone()),
        Some(_) => Ok(false),
    }
}
