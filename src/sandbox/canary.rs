//! A file of the host that anybody may read, made for one launch: a guest that can open it has no walls.

use std::io;
use std::path::{Path, PathBuf};

use super::plan::Plan;

/// Removes the file when dropped.
pub(super) struct Canary(PathBuf);

impl Canary {
    /// Puts one where the plan shows nothing; `None` if there is no such place.
    pub(super) fn put(plan: &Plan) -> io::Result<Option<Self>> {
        let shown = |place: &Path| {
            plan.mounts
                .iter()
                .any(|mount| place.starts_with(&mount.target) || place.starts_with(&mount.source))
        };
        let places = ["/tmp", "/var/tmp", "/dev/shm"].map(Path::new);
        for place in places.into_iter().filter(|place| place.is_dir() && !shown(place)) {
            match nix::unistd::mkstemp(&place.join("casemate-canary-XXXXXX")) {
                Ok((file, path)) => {
                    let canary = Self(path);
                    let file = std::fs::File::from(file);
                    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                    file.set_permissions(everybody)?;
                    return Ok(Some(canary));
                }
                // Another place may be writable.
                Err(_) => continue,
            }
        }
        Ok(None)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // An empty file that stays behind says nothing.
        drop(std::fs::remove_file(&self.0));
    }
}
