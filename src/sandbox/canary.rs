//! A file of the host that anybody may read: a guest that can open it has no walls.
//!
//! One serves all launches of a process that do not show its place: to make and to remove a directory takes longer than
//! all of a sandbox's mounts. It lies in a directory of its own, which goes with it; what a host that was killed has left,
//! the next one removes.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};

use super::cgroup::{began, own_beginning};
use super::plan::{Plan, Role};

/// Removes the file when dropped.
pub(super) struct Canary(PathBuf);

/// Where one may lie. Memory first: on a disk, two directory changes take longer than a whole sandbox.
const PLACES: [&str; 3] = ["/dev/shm", "/tmp", "/var/tmp"];

/// The last one that was put, for the launches to come.
static LAST: Mutex<Option<Arc<Canary>>> = Mutex::new(None);

fn last() -> std::sync::MutexGuard<'static, Option<Arc<Canary>>> {
    LAST.lock().expect("nothing panics under this lock")
}

/// Keeps none for launches to come.
pub(super) fn forget() {
    drop(last().take());
}

impl Canary {
    /// One where the plan shows nothing; `None` if there is no such place.
    pub(super) fn put(plan: &Plan) -> Option<Arc<Self>> {
        let shown = |place: &Path| {
            plan.mounts
                .iter()
                .any(|mount| place.starts_with(&mount.target) || place.starts_with(&mount.source))
        };
        // A process with a single command may end with it: nothing is kept.
        if matches!(plan.role, Role::Exec(_)) {
            return Self::put_anew(&shown).map(Arc::new);
        }
        let mut last = last();
        let fits = |canary: &&Arc<Self>| !shown(&canary.0) && canary.is_there();
        if let Some(canary) = last.as_ref().filter(fits) {
            return Some(Arc::clone(canary));
        }
        *last = Self::put_anew(&shown).map(Arc::new);
        last.clone()
    }

    /// Whether nobody has removed it.
    fn is_there(&self) -> bool {
        self.0.symlink_metadata().is_ok_and(|facts| facts.is_file())
    }

    fn put_anew(shown: &dyn Fn(&Path) -> bool) -> Option<Self> {
        static SWEPT: Once = Once::new();
        let own = format!(".casemate-{}", nix::unistd::geteuid());
        let places = PLACES.map(Path::new).into_iter();
        // Each of them: the host that was killed may have had another one.
        SWEPT.call_once(|| places.clone().for_each(|place| sweep(&place.join(&own))));
        let places = places.filter(|place| place.is_dir() && !shown(place));
        // A place that cannot be written is no place; another may be.
        places.map(|place| place.join(&own)).find_map(|dir| put_in(&dir).ok())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

fn put_in(dir: &Path) -> io::Result<Canary> {
    /// Another host may remove the directory just when this one has made it.
    const TRIES: usize = 8;
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{pid}-{}-{number}", own_beginning()));
    for _ in 0..TRIES {
        match DirBuilder::new().mode(0o755).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        match is_own(dir) {
            // Anybody may read what it holds, whatever this process masks, or nothing were proved.
            Ok(true) => drop(std::fs::set_permissions(dir, Permissions::from_mode(0o755))),
            // Whatever it holds would prove nothing.
            Ok(false) => return Err(io::ErrorKind::PermissionDenied.into()),
            Err(_) => continue,
        }
        match File::create_new(&path) {
            Ok(file) => {
                let canary = Canary(path);
                file.set_permissions(Permissions::from_mode(0o644))?;
                return Ok(canary);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether it is this user's directory. Somebody else's may bear his number: that of a user namespace's root is 0 too.
fn is_own(dir: &Path) -> io::Result<bool> {
    let facts = dir.symlink_metadata()?;
    Ok(facts.is_dir() && facts.uid() == nix::unistd::geteuid().as_raw())
}

/// Removes what hosts that are gone have left, and the directory with the last of it.
fn sweep(dir: &Path) {
    if !is_own(dir).unwrap_or_default() {
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut numbers = name.to_str().unwrap_or_default().splitn(3, '-');
        let pid = numbers.next().and_then(|pid| pid.parse().ok());
        let since: Option<u64> = numbers.next().and_then(|since| since.parse().ok());
        if pid.is_some_and(|pid| began(pid) != since) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
    drop(std::fs::remove_dir(dir));
}

impl Drop for Canary {
    fn drop(&mut self) {
        // What stays is swept by the next start, and the directory goes with the last file.
        drop(std::fs::remove_file(&self.0));
        drop(self.0.parent().map(std::fs::remove_dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_have_left_is_swept_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("canaries");
        let own = put_in(&dir).unwrap();
        for name in ["1-1-1", "999999999-1-2", "of nobody"] {
            File::create_new(dir.join(name)).unwrap();
        }
        sweep(&dir);
        assert!(own.is_there());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
        std::fs::remove_file(dir.join("of nobody")).unwrap();
        drop(own);
        assert!(!dir.exists());
        // A directory that nothing holds goes too, and one that its owner may not use is used.
        std::fs::create_dir(&dir).unwrap();
        sweep(&dir);
        assert!(!dir.exists());
        DirBuilder::new().mode(0o000).create(&dir).unwrap();
        let own = put_in(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o755);
        drop(own);
        assert!(!dir.exists());
    }
}
