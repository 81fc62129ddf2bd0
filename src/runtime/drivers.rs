//! Which sessions are being driven, by which task. Every task is owned here and ends with the runtime, or once its session
//! has rested for [`DRIVER_REST`]: what a session needs then is in its log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::event::Seq;
use crate::id::SessionId;
use crate::limits::DRIVER_REST;
use crate::sandbox::trim_memory;
use crate::session::{DriveError, Driver, Interrupt, Parts, Previews, Question, Replies};

/// Why a driver stopped before its session was done; `None` while all is well.
pub(super) type Fault = Option<Arc<DriveError>>;

/// What a session's task shares with those who talk to it.
struct Channel {
    wake: Arc<Notify>,
    previews: Previews,
    interrupt: Interrupt,
    fault: watch::Sender<Fault>,
    task: Option<JoinHandle<()>>,
}

impl Channel {
    fn new() -> Self {
        Self {
            wake: Arc::default(),
            previews: Previews::default(),
            interrupt: Interrupt::default(),
            fault: watch::Sender::new(None),
            task: None,
        }
    }

    fn is_driven(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    fn is_watched(&self) -> bool {
        self.fault.receiver_count() > 0
    }
}

type Channels = Mutex<HashMap<SessionId, Channel>>;

fn lock(channels: &Channels) -> MutexGuard<'_, HashMap<SessionId, Channel>> {
    channels.lock().expect("nothing panics under this lock")
}

/// All sessions that are driven or watched.
#[derive(Default)]
pub(super) struct Drivers(Arc<Channels>);

impl Drivers {
    fn with<T>(&self, id: &SessionId, act: impl FnOnce(&mut Channel) -> T) -> T {
        let mut channels = lock(&self.0);
        // Before the map would grow, those go that nobody drives or watches any more.
        if channels.len() == channels.capacity() {
            channels.retain(|_, channel| channel.is_driven() || channel.is_watched());
        }
        act(channels.entry(id.clone()).or_insert_with(Channel::new))
    }

    /// Tells the session's task that there is input; false if it has none.
    pub(super) fn wake(&self, id: &SessionId) -> bool {
        self.with(id, |channel| {
            channel.wake.notify_one();
            channel.is_driven()
        })
    }

    /// Whether somebody works on the session.
    pub(super) fn is_driven(&self, id: &SessionId) -> bool {
        self.with(id, |channel| channel.is_driven())
    }

    /// How many sessions somebody works on.
    pub(super) fn driven(&self) -> usize {
        lock(&self.0).values().filter(|channel| channel.is_driven()).count()
    }

    /// Stops the step that the session performs, if any, for that event of its log.
    pub(super) fn interrupt(&self, id: &SessionId, event: Seq) {
        self.with(id, |channel| channel.interrupt.trip(event));
    }

    pub(super) fn watch(&self, id: &SessionId) -> (Previews, watch::Receiver<Fault>) {
        self.with(id, |channel| (channel.previews.clone(), channel.fault.subscribe()))
    }

    /// Drives the session from now on, unless somebody does already.
    pub(super) fn start(&self, id: &SessionId, parts: impl FnOnce(Previews, Interrupt) -> Parts) {
        self.with(id, |channel| {
            if channel.is_driven() {
                return;
            }
            channel.fault.send_replace(None);
            let task = Task {
                parts: parts(channel.previews.clone(), channel.interrupt.clone()),
                id: id.clone(),
                wake: Arc::clone(&channel.wake),
                fault: channel.fault.clone(),
                channels: Arc::downgrade(&self.0),
            };
            channel.task = Some(tokio::spawn(task.run()));
        });
    }

    /// Ends the session's task, and waits until it is gone.
    pub(super) async fn retire(&self, id: &SessionId) {
        let task = lock(&self.0).get_mut(id).and_then(|channel| channel.task.take());
        if let Some(task) = task {
            task.abort();
            // Cancelled is what it should be; a panic was reported where it happened.
            drop(task.await);
        }
    }

    /// Ends all tasks, wherever they are, and waits until they are gone.
    pub(super) async fn stop(&self) {
        let tasks: Vec<_> = lock(&self.0).drain().filter_map(|(_, channel)| channel.task).collect();
        for task in tasks {
            task.abort();
            // Cancelled is what it should be; a panic was reported where it happened.
            drop(task.await);
        }
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        lock(&self.0)
            .values()
            .filter_map(|channel| channel.task.as_ref())
            .for_each(JoinHandle::abort);
    }
}

/// What drives one session.
struct Task {
    parts: Parts,
    id: SessionId,
    wake: Arc<Notify>,
    fault: watch::Sender<Fault>,
    channels: Weak<Channels>,
}

impl Task {
    async fn run(self) {
        match self.drive().await {
            Ok(()) => self.give_back(),
            Err(error) => drop(self.fault.send_replace(Some(Arc::new(error)))),
        }
    }

    /// The last of all sessions that is let go takes the memory with it that they had together.
    fn give_back(self) {
        let channels = self.channels.upgrade();
        drop(self);
        let is_last =
            |channels: Arc<Channels>| lock(&channels).values().all(|channel| !channel.is_driven());
        if channels.is_some_and(is_last) {
            tokio::task::spawn_blocking(trim_memory);
        }
    }

    /// Works whenever there is something to do, until the session has rested for long.
    async fn drive(&self) -> Result<(), DriveError> {
        let mut driver = Driver::start(self.parts.clone(), self.id.clone()).await?;
        let mut asked: Option<(Vec<Question>, Replies)> = None;
        loop {
            driver.run().await?;
            let questions = driver.questions();
            // Whoever is asked is not asked again because something else happened.
            if asked.as_ref().is_none_or(|(about, _)| *about != questions) {
                let replies = (!questions.is_empty()).then(|| driver.replies(questions.clone()));
                asked = replies.map(|replies| (questions, replies));
            }
            if let Some((_, replies)) = &mut asked {
                tokio::select! {
                    replies = replies => {
                        asked = None;
                        driver.answer(replies).await?;
                    }
                    () = self.wake.notified() => {}
                }
                continue;
            }
            if driver.has_sandbox() {
                self.wake.notified().await;
            } else if tokio::time::timeout(DRIVER_REST, self.wake.notified()).await.is_err()
                && self.is_dismissed()
            {
                return Ok(());
            }
        }
    }

    /// Gives the session up, unless somebody has woken this task at the last moment: whoever comes from now on starts
    /// another.
    fn is_dismissed(&self) -> bool {
        let Some(channels) = self.channels.upgrade() else { return true };
        let mut channels = lock(&channels);
        if self.wake.notified().now_or_never().is_some() {
            return false;
        }
        if let Some(channel) = channels.get_mut(&self.id) {
            channel.task = None;
            if !channel.is_watched() {
                channels.remove(&self.id);
            }
        }
        true
    }
}
