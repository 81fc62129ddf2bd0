//! A sandbox that is up before it is needed.
//!
//! What it shows was mounted when it came up, so it is given out only where a launch would mount the very same now: a plan
//! follows from the environment and the facts of the host alone, so both are compared, the facts gathered anew, the walk for
//! protected paths among them, and so is what each of the plan's paths names. A file that took
//! a protected one's place would not be covered; it has another inode, or a change in its own. Whatever differs, the
//! sandbox is ended and another launched. Nothing has run in it until it is given out.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::disk::Place;
use super::guest::{Guest, LaunchError};
use super::plan::{Host, Plan};
use super::profile::Profile;
use crate::environment::Environment;

/// A running sandbox that nobody has used, and what it was launched by. Dropping it ends it.
pub struct Spare {
    guest: Guest,
    basis: Basis,
    seen: Seen,
    mounts: Mounts,
}

impl Spare {
    pub(super) async fn launch(basis: Basis) -> Result<Self, LaunchError> {
        // Before anything is mounted: what changes meanwhile is seen as a change.
        let (seen, mounts) = (Seen::of(&basis.plan), Mounts::watch());
        Ok(Self { guest: Guest::launch(&basis.plan).await?, basis, seen, mounts })
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
        let same = self.basis.still_holds(environment, disk, variables)
            && Seen::of(&self.basis.plan) == self.seen
            && self.mounts.are_the_same()
            && !self.guest.is_dead();
        same.then_some(self.guest)
    }
}

/// What a sandbox is launched by.
pub(super) struct Basis {
    pub(super) environment: Environment,
    pub(super) variables: Vec<(String, String)>,
    pub(super) host: Host,
    /// What follows from all of these.
    pub(super) plan: Plan,
}

impl Basis {
    fn still_holds(
        &self,
        environment: &Environment,
        disk: &Place,
        variables: &[(String, String)],
    ) -> bool {
        let environment = Environment { tier: self.environment.tier, ..environment.clone() };
        if environment != self.environment || variables != self.variables {
            return false;
        }
        // One that cannot be planned any more is refused by the launch that follows, in its words.
        let Ok(profile) = Profile::of(&environment.profile) else { return false };
        Host::gather(&profile, &environment, Some(disk)).is_ok_and(|host| host == self.host)
    }
}

/// What the paths of a plan named at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Device and inode of what is mounted, and of the layer.
    mounted: Vec<Option<(u64, u64)>>,
    /// The same of what is held, with its last change: a link that was made and removed again has loosened what covers it.
    held: Vec<Option<(u64, u64, i64, i64)>>,
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
        }
    }
}

/// The host's mounts: those below a directory that is shown are shown with it. The kernel says when one comes or goes
/// (proc_pid_mountinfo(5)); to read them all takes longer than the rest of a look.
struct Mounts(Option<File>);

impl Mounts {
    fn watch() -> Self {
        Self(File::open("/proc/self/mountinfo").ok())
    }

    /// Whether none has come or gone. Those that cannot be watched may have.
    fn are_the_same(&self) -> bool {
        let Some(table) = &self.0 else { return false };
        let mut watched = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        poll(&mut watched, PollTimeout::ZERO).is_ok_and(|changed| changed == 0)
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

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, hard_link, remove_file, rename};

    use nix::mount::{MsFlags, mount, umount};

    use super::*;
    use crate::environment::{ProfileSource, WorkspaceMode};
    use crate::sandbox::plan_with;

    fn write(path: &Path, text: &str) {
        std::io::Write::write_all(&mut File::create(path).unwrap(), text.as_bytes()).unwrap();
    }

    /// Whether what a sandbox was launched by still holds after the change.
    #[track_caller]
    fn check(
        expected: bool,
        change: impl FnOnce(&Path, &mut Environment, &mut Vec<(String, String)>),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let workspace = root.join("work");
        create_dir(&workspace).unwrap();
        write(&workspace.join(".npmrc"), "a token");
        let disk = Place::of(&root, "disk");
        disk.prepare(WorkspaceMode::Direct, &workspace).unwrap();
        let mut environment = Environment::new(workspace.clone());
        let shown = root.join("shown");
        create_dir(&shown).unwrap();
        let text = format!(
            "name = 'own'\nreason = 'a test'\nextends = 'default'\n[[mount]]\npath = {shown:?}\nreason = 'a test'\n"
        );
        environment.profile = ProfileSource::File { path: root.join("own.toml"), text };
        let mut variables = vec![("NAME".to_owned(), "value".to_owned())];
        let (plan, host) = plan_with(&environment, Some(&disk), None).unwrap();
        let basis =
            Basis { environment: environment.clone(), variables: variables.clone(), host, plan };
        let seen = Seen::of(&basis.plan);
        change(&workspace, &mut environment, &mut variables);
        let place = std::panic::Location::caller();
        let holds = basis.still_holds(&environment, &disk, &variables);
        assert_eq!(holds && Seen::of(&basis.plan) == seen, expected, "{place}");
    }

    #[test]
    fn only_what_a_launch_would_give_now_is_given_out() {
        check(true, |_, _, _| {});
        check(true, |work, _, _| write(&work.join("main.rs"), "what is not protected may change"));
        check(false, |work, _, _| write(&work.join(".env"), "a secret that came later"));
        check(false, |work, _, _| remove_file(work.join(".npmrc")).unwrap());
        check(false, |work, _, _| {
            write(&work.join("new"), "a file that takes the place of one that is covered");
            rename(work.join("new"), work.join(".npmrc")).unwrap();
        });
        check(false, |work, _, _| {
            hard_link(work.join(".npmrc"), work.join("other")).unwrap();
            remove_file(work.join("other")).unwrap();
        });
        check(false, |work, _, _| {
            rename(work, work.with_file_name("before")).unwrap();
            create_dir(work).unwrap();
            rename(work.with_file_name("before").join(".npmrc"), work.join(".npmrc")).unwrap();
        });
        check(false, |work, _, _| {
            rename(work, work.with_file_name("before")).unwrap();
        });
        check(false, |work, _, _| {
            rename(work.with_file_name("shown"), work.with_file_name("before")).unwrap();
            create_dir(work.with_file_name("shown")).unwrap();
        });
        check(false, |_, environment, _| {
            environment.profile = ProfileSource::BuiltIn("strict".to_owned());
        });
        check(false, |_, _, variables| variables[0].1 = "another".to_owned());
    }

    #[test]
    fn a_mount_that_comes_or_goes_is_noticed() {
        if !nix::unistd::geteuid().is_root() {
            let said = "NOT TESTED: not root, so nothing can be mounted\n";
            return std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        let before = Mounts::watch();
        mount(Some("test"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let between = Mounts::watch();
        umount(dir.path()).unwrap();
        assert_eq!([before.are_the_same(), between.are_the_same()], [false, false]);
    }
}
