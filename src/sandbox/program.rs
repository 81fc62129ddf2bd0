//! The program that a guest is started from: this one, where the session's user cannot write to its file; else the same
//! file on a mount of its own that nobody can write through; else a sealed copy of it in memory.
//!
//! A process can reach the file that it runs from through `/proc/PID/exe`, whatever its root shows. The kernel's permissions
//! keep a file that the session's user does not own. A file of his own is mounted without write access, in namespaces that
//! end with that (0.2 ms), and the sandbox shows it nowhere that can be written. Where there are no such namespaces, or
//! another way to the file, it is copied: a millisecond for each megabyte, and as much memory for each host process.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::plan::Plan;
use super::sys;
use crate::environment::{Access, Tier};

const ITSELF: &str = "/proc/self/exe";

/// What keeps a guest's program from its session. A later one does for all that an earlier one does for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keeper {
    /// The kernel's permissions.
    Permissions,
    /// A mount without write access, which the guest alone has.
    Mount,
    /// The seals of a copy.
    Seals,
}

/// What to start, and what is said about it.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) keeper: Keeper,
    pub(super) layer: String,
}

/// The program for this plan's guest.
pub(super) fn of(plan: &Plan) -> Program {
    static MOUNT: OnceLock<Option<OwnedFd>> = OnceLock::new();
    static COPY: OnceLock<Result<File, String>> = OnceLock::new();
    let itself =
        |layer: String| Program { path: PathBuf::from(ITSELF), keeper: Keeper::Permissions, layer };
    let handed = |fd: i32, keeper, layer: &str| Program {
        path: PathBuf::from(format!("/proc/self/fd/{fd}")),
        keeper,
        layer: layer.to_owned(),
    };
    let facts = std::fs::metadata(ITSELF);
    if facts.as_ref().is_ok_and(|facts| !can_write(plan, facts)) {
        return itself("guest program that the session cannot write".to_owned());
    }
    if facts.is_ok_and(|facts| facts.nlink() == 1)
        && !shows_for_writing(plan)
        && let Some(mount) = MOUNT.get_or_init(|| read_only_mount().ok())
    {
        return handed(mount.as_raw_fd(), Keeper::Mount, "guest program on a read-only mount");
    }
    match COPY.get_or_init(|| sealed_copy().map_err(|e| e.to_string())) {
        Ok(copy) => handed(copy.as_raw_fd(), Keeper::Seals, "guest program from a sealed copy"),
        // The guest is still not dumpable, so its children cannot open the file through it.
        Err(e) => itself(format!("guest program from its own file (no sealed copy: {e})")),
    }
}

fn can_write(plan: &Plan, facts: &Metadata) -> bool {
    facts.uid() == plan.uid || facts.mode() & 0o022 != 0
}

/// Whether the sandbox has the file where it may write, or may have: without a root of its own it sees all that the host
/// does.
fn shows_for_writing(plan: &Plan) -> bool {
    let Ok(file) = std::fs::read_link(ITSELF) else { return true };
    let mut written = plan.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    plan.tier != Tier::Full || written.any(|mount| file.starts_with(&mount.source))
}

/// This program's file, mounted by itself without write access.
fn read_only_mount() -> io::Result<OwnedFd> {
    let mount = sys::read_only_mount(&std::fs::read_link(ITSELF)?)?;
    let named = |path: &Path| path.metadata().map(|facts| (facts.dev(), facts.ino()));
    let is_it = named(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?
        == named(Path::new(ITSELF))?;
    // Another file may have its name by now.
    if is_it { Ok(mount) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A copy of this program in memory that nobody can change any more.
pub(super) fn sealed_copy() -> io::Result<File> {
    // Kernels before 6.3 do not know the flag, and need none.
    let exec = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = match memfd_create(c"casemate", flags | exec) {
        Err(nix::Error::EINVAL) => memfd_create(c"casemate", flags),
        other => other,
    };
    let mut copy = File::from(copy?);
    io::copy(&mut File::open(ITSELF)?, &mut copy)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_write_through_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        std::io::Write::write_all(&mut File::create(&file).unwrap(), b"text").unwrap();
        let mount = sys::read_only_mount(&file).unwrap();
        let seen = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        assert_eq!(std::fs::read(&seen).unwrap(), b"text");
        let refused = File::options().write(true).open(&seen).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        File::options().write(true).open(&file).unwrap();
        let missing = sys::read_only_mount(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
