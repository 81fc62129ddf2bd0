//! What the processes of a sandbox use together, by looking at `/proc`. Only where that shows no others: in a process
//! namespace.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::statvfs::statvfs;

use super::show::size;
use crate::limits::DISK_FLOOR_BYTES;

/// A `/proc` that hides nothing, which is the guest's alone: in the one that all see, a process that lets nobody look into
/// it is not there, and would neither count nor end.
static WHOLE: OnceLock<OwnedFd> = OnceLock::new();

/// Processes are looked for here from now on.
pub(super) fn look_in(whole: OwnedFd) {
    // A guest is set up once.
    drop(WHOLE.set(whole));
}

/// A file of a process, or of `/proc` itself.
#[must_use]
pub fn process_file(path: impl std::fmt::Display) -> String {
    match WHOLE.get() {
        Some(whole) => format!("/proc/self/fd/{}/{path}", whole.as_raw_fd()),
        None => format!("/proc/{path}"),
    }
}

/// Every process that can be seen.
#[must_use]
pub fn processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(process_file(".")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Whether all processes use more than `limit` bytes of memory. Pages that they share are counted once for each at first,
/// and exactly only where that is too much. What was killed and waits for a processor to end on does not count: it is the
/// last command's, and the next one is not to pay for it.
#[must_use]
pub fn is_over(limit: u64) -> bool {
    let all = processes();
    let resident: u64 = all.iter().filter_map(|pid| resident(*pid)).sum();
    resident > limit && proportionally(&all) > limit
}

/// The memory that all processes use together, shared pages once.
#[must_use]
pub fn together() -> u64 {
    proportionally(&processes())
}

/// The memory of all processes that lies in no file, shared pages once; what lies in files is not counted twice where those
/// are.
#[must_use]
pub fn anonymous() -> u64 {
    processes().into_iter().filter_map(|pid| proportional(pid, "Pss_Anon:")).sum()
}

fn proportionally(all: &[i32]) -> u64 {
    let alive = all.iter().filter(|pid| !is_dying(**pid));
    // What hides its memory from others of its user is counted with what it shares.
    alive.filter_map(|pid| proportional(*pid, "Pss:").or_else(|| resident(*pid))).sum()
}

/// Whether a process was killed and has not ended yet.
fn is_dying(pid: i32) -> bool {
    std::fs::read_to_string(process_file(format_args!("{pid}/status")))
        .is_ok_and(|text| waits_to_die(&text))
}

/// Whether the signal that nobody survives is among those that wait.
fn waits_to_die(status: &str) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    ["SigPnd:", "ShdPnd:"].iter().any(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let signals = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
        signals.is_some_and(|signals| signals & KILL != 0)
    })
}

fn resident(pid: i32) -> Option<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string(process_file(format_args!("{pid}/statm"))).ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}

fn proportional(pid: i32, what: &str) -> Option<u64> {
    let mut text = String::new();
    let file = process_file(format_args!("{pid}/smaps_rollup"));
    File::open(file).ok()?.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Free bytes of the disk that each place is on.
#[must_use]
pub fn free(places: [&Path; 2]) -> Option<[u64; 2]> {
    let free = |place| {
        let facts = statvfs(place).ok()?;
        Some(facts.blocks_available() * facts.fragment_size())
    };
    let [one, other] = places;
    Some([free(one)?, free(other)?])
}

/// The limit that a command has passed which left this much of each disk.
#[must_use]
pub fn disk_limit_passed(before: [u64; 2], now: [u64; 2], limit: Option<u64>) -> Option<String> {
    let disks = before.into_iter().zip(now);
    disks.map(|(before, now)| (before.saturating_sub(now), now)).find_map(|(filled, now)| {
        if let Some(limit) = limit.filter(|limit| filled > *limit) {
            return Some(format!("disk limit {}", size(limit)));
        }
        let full = now < DISK_FLOOR_BYTES && filled > DISK_FLOOR_BYTES / 4;
        full.then(|| "the disk is almost full".to_owned())
    })
}

/// Processor time of a process of the host and all that came from it, in ticks: a hundredth of a second each.
#[must_use]
pub fn processor_time(root: u32) -> u64 {
    let root = i32::try_from(root).expect("process numbers are small");
    family([root]).iter().map(|one| one.used).sum()
}

/// One process, as `/proc/PID/stat` has it.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Who started it, or has it since that one ended.
    pub parent: i32,
    /// When it began, in ticks since the machine did.
    pub started: u64,
    /// Processor time of itself and of its children that have ended, in ticks.
    pub used: u64,
}

impl Process {
    /// What is told of a process; nothing if there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(process_file(format_args!("{pid}/stat"))).ok()?;
        // The name before it may hold anything (proc_pid_stat(5)).
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            used: fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum(),
        })
    }
}

/// These processes and all that descends from them.
#[must_use]
pub fn family(roots: impl IntoIterator<Item = i32>) -> Vec<Process> {
    let all: Vec<_> = processes().into_iter().filter_map(Process::of).collect();
    let mut family: HashSet<i32> = roots.into_iter().collect();
    loop {
        let children = all.iter().filter(|one| family.contains(&one.parent)).map(|one| one.pid);
        let more: Vec<_> = children.filter(|pid| !family.contains(pid)).collect();
        if more.is_empty() {
            break;
        }
        family.extend(more);
    }
    all.into_iter().filter(|one| family.contains(&one.pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_killed_waits_to_die() {
        let check = |own: &str, shared: &str, expected: bool| {
            let status =
                format!("Name:\ta\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\tffffffffffffffff\n");
            assert_eq!(waits_to_die(&status), expected, "{status}");
        };
        check("0000000000000000", "0000000000000000", false);
        check("0000000000000000", "0000000000000100", true);
        check("0000000000000100", "0000000000000000", true);
        check("0000000000004001", "0000000000000400", false);
        assert!(!is_dying(i32::try_from(std::process::id()).unwrap()));
    }

    #[test]
    fn what_a_process_started_is_told_from_what_started_it() {
        let number = |id: u32| i32::try_from(id).unwrap();
        let (own, parent) =
            (number(std::process::id()), number(std::os::unix::process::parent_id()));
        let mut child = std::process::Command::new("sleep").arg("9").spawn().expect("it starts");
        let descends = |pid: i32, from: i32| family([from]).iter().any(|one| one.pid == pid);
        let child_pid = number(child.id());
        assert!(descends(own, own) && descends(own, parent) && descends(child_pid, own));
        assert!(!descends(parent, own) && !descends(own, child_pid));
        child.kill().expect("it runs");
        child.wait().expect("it is a child");
    }
}
