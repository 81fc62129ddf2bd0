//! Memory that the kernel charges to no process: what lies in memory files, in shared mappings, between sockets. Where it
//! counts a session's memory (a control group) it counts this too; elsewhere somebody has to look.
//!
//! How much a socket holds, or a mapping that was let go of, nobody tells; but the machine has less then. So the
//! session has too much if the machine has lost that much since it began *and* what it holds is enough to be the reason.
//! That is as exact as the machine's own word: newer kernels keep hundreds of freed megabytes by processor for seconds.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::usage::{self, processes};
use crate::limits::KEPT_LOOKS;

/// Where a sandbox has directories in memory.
const IN_MEMORY: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
/// What the kernel needs for one entry of such a directory.
const ENTRY: u64 = 1536;
/// Most that one socket holds, sent and not yet received: twice the kernel's own bound, which is how it counts.
const SOCKET: u64 = 2 * 212_992;

/// What a process may keep that lets nobody look at its files.
const HIDDEN: u64 = 1 << 40;

/// What the machine once had free, as far as it was seen, and how often that was looked at.
#[derive(Debug)]
pub struct Kept {
    once: AtomicU64,
    looks: AtomicU32,
}

impl Kept {
    /// From now on, before anything runs: a program takes hundreds of megabytes before the first look.
    #[must_use]
    pub fn begin() -> Self {
        Self { once: AtomicU64::new(available().unwrap_or(0)), looks: AtomicU32::new(0) }
    }

    /// Whether the machine has lost more than the limit, and the session has enough to be the reason; or, at some looks,
    /// whether the session has more than the limit for certain: others may have let go of as much meanwhile.
    #[must_use]
    pub fn is_over(&self, limit: u64) -> bool {
        let Some(now) = available() else { return false };
        let once = self.once.fetch_max(now, Ordering::Relaxed).max(now);
        let is_lost = once - now > limit && has_more_than(limit, &POSSIBLE);
        let is_time = self.looks.fetch_add(1, Ordering::Relaxed) % KEPT_LOOKS == KEPT_LOOKS - 1;
        is_lost || (is_time && has_more_than(limit, &CERTAIN))
    }
}

/// Bytes that programs of the machine can still have.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the session can have, at most. What is quickly told is looked at first: who has thousands of files open has most
/// likely told enough by then.
const POSSIBLE: [fn() -> u64; 5] = [usage::together, directories, segments, sockets, files];
/// What it has, at least.
const CERTAIN: [fn() -> u64; 4] = [usage::anonymous, directories, segments, nameless];

/// Whether these are together more than that.
fn has_more_than(limit: u64, kinds: &[fn() -> u64]) -> bool {
    let mut held = 0_u64;
    kinds.iter().any(|kind| {
        held = held.saturating_add(kind());
        held > limit
    })
}

fn directories() -> u64 {
    let facts = IN_MEMORY.iter().filter_map(|path| statfs(*path).ok());
    let own = facts.filter(|facts| facts.filesystem_type() == TMPFS_MAGIC);
    let used = own.map(|facts| {
        let size = u64::try_from(facts.block_size()).unwrap_or(4096);
        let blocks = facts.blocks().saturating_sub(facts.blocks_free());
        blocks * size + facts.files().saturating_sub(facts.files_free()) * ENTRY
    });
    used.sum()
}

/// Shared memory of System V.
fn segments() -> u64 {
    const RESIDENT: usize = 14;
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let resident =
        |line: &str| line.split_whitespace().nth(RESIDENT).and_then(|n| n.parse::<u64>().ok());
    text.lines().skip(1).filter_map(resident).sum()
}

fn sockets() -> u64 {
    let count = |name| {
        let text = std::fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default();
        text.lines().count().saturating_sub(1) as u64
    };
    SOCKET * ["unix", "tcp", "tcp6", "udp", "udp6"].into_iter().map(count).sum::<u64>()
}

/// Files without a name and shared mappings, each once.
fn files() -> u64 {
    let mut sizes = HashMap::new();
    for pid in processes() {
        open_files(pid, &mut sizes);
        mappings(pid, &mut sizes);
    }
    sizes.into_values().sum()
}

/// Files without a name that processes have open, each once; those of a process that lets nobody look are not known.
fn nameless() -> u64 {
    let mut sizes = HashMap::new();
    processes().into_iter().for_each(|pid| open_files(pid, &mut sizes));
    sizes.into_values().filter(|size| *size != HIDDEN).sum()
}

/// By inode, what they take.
type Sizes = HashMap<u64, u64>;

fn open_files(pid: i32, sizes: &mut Sizes) {
    let entries = match std::fs::read_dir(usage::process_file(format_args!("{pid}/fd"))) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            sizes.insert(u64::MAX - u64::from(pid.unsigned_abs()), HIDDEN);
            return;
        }
        Err(_) => return,
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_nameless = path
            .read_link()
            .is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"));
        if let Some(facts) = is_nameless.then(|| path.metadata().ok()).flatten() {
            sizes.insert(facts.ino(), facts.blocks() * 512);
        }
    }
}

fn mappings(pid: i32, sizes: &mut Sizes) {
    let text = std::fs::read(usage::process_file(format_args!("{pid}/maps"))).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some((inode, size)) = shared(line) {
            let known = sizes.entry(inode).or_default();
            *known = size.max(*known);
        }
    }
}

/// The inode and the size of a mapping, if it is of shared memory without a name in any directory.
fn shared(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (range, mut rest) = (words.next()?, words.skip(3));
    let (inode, name) = (rest.next()?, rest.next()?);
    let (begin, end) = range.split_once('-')?;
    let of = |text| u64::from_str_radix(text, 16).ok();
    let is_shared = name == "/dev/zero" || name.starts_with("/memfd:");
    let size = of(end)?.checked_sub(of(begin)?)?;
    is_shared.then(|| Some((inode.parse().ok()?, size)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_are_told_from_others() {
        let check = |line: &str, expected| assert_eq!(shared(line), expected, "{line}");
        check("7f00-8f00 rw-s 00000000 00:01 42   /dev/zero (deleted)", Some((42, 0x1000)));
        check("7f00-8f00 rw-s 00000000 00:01 43   /memfd:a b (deleted)", Some((43, 0x1000)));
        check("7f00-8f00 rw-p 00000000 00:00 0", None);
        check("7f00-8f00 r--p 00000000 fe:00 99   /usr/bin/env", None);
        check("nonsense", None);
    }

    #[test]
    fn what_is_kept_is_counted() {
        let before = files();
        let file =
            nix::sys::memfd::memfd_create(c"kept", nix::sys::memfd::MFdFlags::empty()).unwrap();
        std::io::Write::write_all(
            &mut std::fs::File::from(file.try_clone().unwrap()),
            &[1; 1 << 20],
        )
        .unwrap();
        assert!(files() >= before + (1 << 20));
        assert!(available().unwrap() > 1 << 20);
        drop(file);
    }
}
