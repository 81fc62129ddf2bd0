//! The session's sandbox from the driver's side: made ahead of need, replaced when it dies.

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::egress::{Door, Report};
use crate::event::{ErrorDetail, EventBody};
use crate::limits::EGRESS_QUIET;
use crate::sandbox::Guest;
use crate::skill::Brought;

/// A sandbox that came up, and its way out if it has one.
pub struct Launched {
    /// The sandbox.
    pub guest: Guest,
    /// Where its connections are made.
    pub door: Option<Door>,
    /// What it has to do without.
    pub troubles: Vec<ErrorDetail>,
    /// The skills that the session's repositories brought, where it has repositories.
    pub brought: Option<Brought>,
}

/// A future that makes a sandbox; its error says stage, cause and remedy.
pub type Sandboxed = Pin<Box<dyn Future<Output = Result<Launched, String>> + Send>>;

/// Makes sandboxes for one session.
pub type Launcher = Arc<dyn Fn() -> Sandboxed + Send + Sync>;

enum State {
    Cold,
    Launching(JoinHandle<Result<Launched, String>>),
    Up(Arc<Guest>),
}

/// What a driver hears of the sandbox while it waits for something else.
pub(super) enum Disturbance {
    /// It cannot be had.
    Failed(String),
    /// A program in the background was refused something.
    Refused,
}

/// At most one live sandbox. Dropping the slot ends it and everything in it.
pub(super) struct GuestSlot {
    launcher: Launcher,
    state: State,
    door: Option<Door>,
    news: Vec<EventBody>,
    brought: Option<Brought>,
    /// No refusal is told before.
    quiet_until: Instant,
}

impl GuestSlot {
    pub(super) fn new(launcher: Launcher) -> Self {
        let (state, news) = (State::Cold, Vec::new());
        Self { launcher, state, door: None, news, brought: None, quiet_until: Instant::now() }
    }

    /// Whether there is none, and none is coming.
    pub(super) fn is_cold(&self) -> bool {
        matches!(self.state, State::Cold)
    }

    /// Begins to make a sandbox unless there is one.
    pub(super) fn warm(&mut self) {
        let dead = matches!(&self.state, State::Up(guest) if guest.is_dead());
        if dead || matches!(self.state, State::Cold) {
            self.state = State::Launching(tokio::spawn((self.launcher)()));
        }
    }

    /// The sandbox, made now if need be.
    pub(super) async fn get(&mut self) -> Result<Arc<Guest>, String> {
        self.warm();
        if let State::Launching(launch) = &mut self.state {
            let outcome = launch.await;
            self.state = State::Cold;
            let Launched { guest, door, troubles, brought } =
                outcome.unwrap_or_else(|e| Err(format!("the launch itself failed: {e}")))?;
            (self.door, self.brought) = (door, brought);
            let troubles = troubles.into_iter().map(|error| EventBody::SessionError { error });
            self.news.extend(troubles);
            self.news.push(EventBody::SandboxReady {
                tier: guest.tier().as_str().to_owned(),
                layers: guest.layers().to_vec(),
            });
            self.state = State::Up(Arc::new(guest));
        }
        match &self.state {
            State::Up(guest) => Ok(Arc::clone(guest)),
            State::Cold | State::Launching(_) => unreachable!("a launch ends in one of two ways"),
        }
    }

    /// The sandbox, if one is up.
    pub(super) fn get_if_up(&self) -> Option<Arc<Guest>> {
        match &self.state {
            State::Up(guest) => Some(Arc::clone(guest)),
            State::Cold | State::Launching(_) => None,
        }
    }

    /// Resolves when a launch under way has failed, or when something in the background was refused, soon after and not
    /// too often; never otherwise.
    pub(super) async fn disturbance(&mut self) -> Disturbance {
        if matches!(self.state, State::Launching(_))
            && let Err(failure) = self.get().await
        {
            return Disturbance::Failed(failure);
        }
        let Some(door) = &self.door else { return std::future::pending().await };
        tokio::time::sleep_until(self.quiet_until).await;
        door.has_refused().await;
        self.quiet_until = Instant::now() + EGRESS_QUIET;
        Disturbance::Refused
    }

    /// What happened on the network since the last time.
    pub(super) fn report(&self) -> Report {
        self.door.as_ref().map_or_else(Report::default, Door::report)
    }

    /// The skills that repositories had brought when the last sandbox came up.
    pub(super) fn brought(&self) -> Option<&Brought> {
        self.brought.as_ref()
    }

    /// What happened to sandboxes since the last time.
    pub(super) fn news(&mut self) -> impl Iterator<Item = EventBody> {
        std::mem::take(&mut self.news).into_iter()
    }
}

impl Drop for GuestSlot {
    fn drop(&mut self) {
        if let State::Launching(launch) = &self.state {
            launch.abort();
        }
    }
}
