//! Which sessions are being driven, by which task. Every task is owned here and ends with the runtime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::event::Seq;
use crate::id::SessionId;
use crate::session::{DriveError, Driver, Interrupt, Parts, Previews};

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
}

/// All driven sessions.
#[derive(Default)]
pub(super) struct Drivers(Mutex<HashMap<SessionId, Channel>>);

impl Drivers {
    fn with<T>(&self, id: &SessionId, act: impl FnOnce(&mut Channel) -> T) -> T {
        let mut channels = self.0.lock().expect("nothing panics under this lock");
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
        let channels = self.0.lock().expect("nothing panics under this lock");
        channels.values().filter(|channel| channel.is_driven()).count()
    }

    /// Stops the step that the session performs, if any, for that event of its log.
    pub(super) fn interrupt(&self, id: &SessionId, event: Seq) {
        self.with(id, |channel| channel.interrupt.trip(event));
    }

    pub(super) fn channel(&self, id: &SessionId) -> (Previews, Interrupt) {
        self.with(id, |channel| (channel.previews.clone(), channel.interrupt.clone()))
    }

    pub(super) fn watch(&self, id: &SessionId) -> (Previews, watch::Receiver<Fault>) {
        self.with(id, |channel| (channel.previews.clone(), channel.fault.subscribe()))
    }

    /// Drives the session from now on, unless somebody does already.
    pub(super) fn start(&self, id: &SessionId, parts: Parts) {
        self.with(id, |channel| {
            if channel.is_driven() {
                return;
            }
            channel.fault.send_replace(None);
            let work = drive(parts, id.clone(), Arc::clone(&channel.wake), channel.fault.clone());
            channel.task = Some(tokio::spawn(work));
        });
    }

    /// Ends the session's task, and waits until it is gone.
    pub(super) async fn retire(&self, id: &SessionId) {
        let task = self.with(id, |channel| channel.task.take());
        if let Some(task) = task {
            task.abort();
            // Cancelled is what it should be; a panic was reported where it happened.
            drop(task.await);
        }
    }

    /// Ends all tasks, wherever they are, and waits until they are gone.
    pub(super) async fn stop(&self) {
        let tasks: Vec<_> = {
            let mut channels = self.0.lock().expect("nothing panics under this lock");
            channels.drain().filter_map(|(_, channel)| channel.task).collect()
        };
        for task in tasks {
            task.abort();
            // Cancelled is what it should be; a panic was reported where it happened.
            drop(task.await);
        }
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        let channels = self.0.get_mut().expect("nothing panics under this lock");
        channels.values().filter_map(|channel| channel.task.as_ref()).for_each(JoinHandle::abort);
    }
}

async fn drive(parts: Parts, id: SessionId, wake: Arc<Notify>, fault: watch::Sender<Fault>) {
    let work = async {
        let mut driver = Driver::start(parts, id).await?;
        loop {
            driver.run().await?;
            wake.notified().await;
        }
    };
    let outcome: Result<std::convert::Infallible, DriveError> = work.await;
    let Err(error) = outcome;
    fault.send_replace(Some(Arc::new(error)));
}
