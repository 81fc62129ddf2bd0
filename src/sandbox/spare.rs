//! A sandbox that is up before it is needed.
//!
//! What it shows was mounted when it came up, so it is given out only where a launch would mount the very same now: the plan
//! is made anew and compared, the walk for protected paths with it, and so is what each of its paths names. A file that took
//! a protected one's place would not be covered; it has another inode, or a change in its own. Whatever differs, the
//! sandbox is ended and another launched. Nothing has run in it until it is given out.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::disk::Place;
use super::guest::{Guest, LaunchError};
use super::plan::Plan;
use super::plan_for;
use crate::environment::Environment;

/// A running sandbox that nobody has used, and what it was launched by. Dropping it ends it.
pub struct Spare {
    guest: Guest,
    plan: Plan,
    seen: Seen,
}

impl Spare {
    pub(super) async fn launch(plan: Plan) -> Result<Self, LaunchError> {
        // Before anything is mounted: what changes meanwhile is seen as a change.
        let seen = Seen::of(&plan);
        Ok(Self { guest: Guest::launch(&plan).await?, plan, seen })
    }

    /// The same, with what was refused before it among its layers.
    pub(super) fn after(mut self, refused: Option<&LaunchError>) -> Self {
        self.guest = self.guest.after(refused);
        self
    }

    /// The sandbox, if a launch would give the same one now.
    #[must_use]
    pub fn take(
        self,
        environment: &Environment,
        disk: &Place,
        variables: &[(String, String)],
    ) -> Option<Guest> {
        let environment = Environment { tier: self.plan.tier, ..environment.clone() };
        // One that cannot be planned any more is refused by the launch that follows, in its words.
        let mut plan = plan_for(&environment, Some(disk)).ok()?;
        plan.env.extend_from_slice(variables);
        let same = plan == self.plan && Seen::of(&plan) == self.seen;
        (same && !self.guest.is_dead()).then_some(self.guest)
    }
}

/// What the paths of a plan named at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Device and inode of what is mounted, and of the layer.
    mounted: Vec<Option<(u64, u64)>>,
    /// The same of what is held, with its last change: a link that was made and removed again has loosened what covers it.
    held: Vec<Option<(u64, u64, i64, i64)>>,
    /// All mounts of the host: those below a directory that is shown are shown with it.
    mounts: Option<String>,
}

impl Seen {
    fn of(plan: &Plan) -> Self {
        let shown = plan.mounts.iter().map(|mount| &mount.source).chain(&plan.layer);
        let mounted = |path: &PathBuf| path.metadata().ok().map(|of| (of.dev(), of.ino()));
        let held = |path: &Path| {
            let of = outside(plan, path).symlink_metadata().ok()?;
            Some((of.dev(), of.ino(), of.ctime(), of.ctime_nsec()))
        };
        Self {
            mounted: shown.map(mounted).collect(),
            held: plan.held.iter().map(|held_path| held(&held_path.path)).collect(),
            mounts: std::fs::read_to_string("/proc/self/mountinfo").ok(),
        }
    }
}

/// Where a path of the sandbox lies on the host.
fn outside(plan: &Plan, path: &Path) -> PathBuf {
    // Outer mounts come before inner ones.
    let mut mounts = plan.mounts.iter().rev();
    let below = mounts.find_map(|mount| {
        let rest = path.strip_prefix(&mount.target).ok()?;
        Some(if rest.as_os_str().is_empty() {
            mount.source.clone()
        } else {
            mount.source.join(rest)
        })
    });
    below.unwrap_or_else(|| path.to_owned())
}
