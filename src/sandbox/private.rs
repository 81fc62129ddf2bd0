//! A directory of the host for one session, in tiers that have no root of their own. Goes with the session; what a host that
//! was killed has left, the next one removes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::cgroup::{began, own_beginning};

const PREFIX: &str = "casemate-home-";

/// Removes the directory with all that is in it when dropped.
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    pub(super) fn make() -> io::Result<Self> {
        let base = std::env::temp_dir();
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| sweep(&base));
        let (pid, began) = (std::process::id(), own_beginning());
        let template = base.join(format!("{PREFIX}{pid}-{began}-XXXXXX"));
        Ok(Self(nix::unistd::mkdtemp(&template)?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // A process that is just ending may still write: what stays is swept by the next start.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let mut numbers = rest.splitn(3, '-');
        let pid = numbers.next().and_then(|pid| pid.parse().ok());
        let since: Option<u64> = numbers.next().and_then(|since| since.parse().ok());
        if pid.is_some_and(|pid| began(pid) != since) {
            // Another user's cannot be removed, and is not ours to.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}
