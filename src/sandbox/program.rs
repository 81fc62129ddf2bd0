//! The program that a guest is started from: this one, or a sealed copy of it in memory where the session's user could
//! write to the file.
//!
//! A process can reach the file that it runs from through `/proc/PID/exe`, whatever its root shows. The kernel's permissions
//! keep a file that the session's user does not own; a file of his own is copied once per process and sealed. Copying
//! takes about a millisecond for each megabyte, which is why it is not done for nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::plan::Plan;

const ITSELF: &str = "/proc/self/exe";

/// What to start, and what is said about it.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Whether it is the copy, which no session can write.
    pub(super) sealed: bool,
    pub(super) layer: String,
}

/// The program for this plan's guest.
pub(super) fn of(plan: &Plan) -> Program {
    static COPY: OnceLock<Result<File, String>> = OnceLock::new();
    let itself = |layer: String| Program { path: PathBuf::from(ITSELF), sealed: false, layer };
    match std::fs::metadata(ITSELF) {
        Ok(facts) if !can_write(plan, facts.uid(), facts.mode()) => {
            return itself("guest program that the session cannot write".to_owned());
        }
        Ok(_) | Err(_) => {}
    }
    match COPY.get_or_init(|| sealed_copy().map_err(|e| e.to_string())) {
        Ok(copy) => Program {
            path: PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())),
            sealed: true,
            layer: "guest program from a sealed copy".to_owned(),
        },
        // The guest is still not dumpable, so its children cannot open the file through it.
        Err(e) => itself(format!("guest program from its own file (no sealed copy: {e})")),
    }
}

fn can_write(plan: &Plan, owner: u32, mode: u32) -> bool {
    owner == plan.uid || mode & 0o022 != 0
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
