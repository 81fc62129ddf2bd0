//! Sandboxes of sessions that were just created: brought up while nobody waits for them.
//!
//! A sandbox is a session's own, because its disk is. So it is made when the session is, and given to the first driver if it
//! would be launched alike then. The number is bounded, and a session that nobody gives anything to loses its place.

use std::sync::Mutex;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::environment::{Environment, WorkspaceMode};
use crate::id::SessionId;
use crate::limits::{WARM_SANDBOXES, WARM_TIME};
use crate::sandbox::disk::Place;
use crate::sandbox::{self, Guest, Spare};

/// What a sandbox is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) environment: Environment,
    pub(super) disk: Place,
    pub(super) variables: Vec<(String, String)>,
}

/// One that is coming up, or is up.
struct Coming {
    session: SessionId,
    since: Instant,
    spare: JoinHandle<Option<Spare>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        // One that is up goes with its handle.
        self.spare.abort();
    }
}

/// All of them. Dropping it ends them.
#[derive(Default)]
pub(super) struct Warm(Mutex<Vec<Coming>>);

impl Warm {
    /// Begins to bring a session's sandbox up, if there is a place for one.
    pub(super) fn prepare(&self, session: SessionId, recipe: Recipe) {
        // Two mounts of one layer are one too many, and a spare could still be there when the next is launched. What
        // packages need may have to be built first.
        let environment = &recipe.environment;
        if environment.workspace_mode == WorkspaceMode::Overlay || !environment.packages.is_empty()
        {
            return;
        }
        let mut all = self.0.lock().expect("nothing panics under this lock");
        all.retain(|coming| coming.since.elapsed() < WARM_TIME);
        if all.len() < WARM_SANDBOXES {
            let spare = tokio::spawn(async move {
                let Recipe { environment, disk, variables } = recipe;
                disk.prepare(environment.workspace_mode, &environment.workspace).ok()?;
                // What keeps it from coming up is said by the launch that follows.
                sandbox::prepare(&environment, &disk, &variables).await.ok()
            });
            all.push(Coming { session, since: Instant::now(), spare });
        }
    }

    /// The session's sandbox, if it is still what a launch would give.
    pub(super) async fn take(&self, session: &SessionId, recipe: &Recipe) -> Option<Guest> {
        let mut coming = self.remove(session)?;
        let spare = (&mut coming.spare).await.ok().flatten()?;
        spare.take(&recipe.environment, &recipe.disk, &recipe.variables)
    }

    /// Ends the session's, if there is one: its disk is about to change.
    pub(super) fn forget(&self, session: &SessionId) {
        drop(self.remove(session));
    }

    /// Ends all.
    pub(super) fn end(&self) {
        self.0.lock().expect("nothing panics under this lock").clear();
    }

    fn remove(&self, session: &SessionId) -> Option<Coming> {
        let mut all = self.0.lock().expect("nothing panics under this lock");
        let at = all.iter().position(|coming| coming.session == *session)?;
        Some(all.swap_remove(at))
    }
}
