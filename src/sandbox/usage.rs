//! What the processes of a sandbox use together, by looking at `/proc`. Only where that shows no others: in a process
//! namespace.

use std::fs::File;
use std::io::Read as _;

/// Every process that can be seen.
#[must_use]
pub fn processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Whether all processes use more than `limit` bytes of memory. Pages that they share are counted once for each at first,
/// and exactly only where that is too much.
#[must_use]
pub fn is_over(limit: u64) -> bool {
    let all = processes();
    let resident: u64 = all.iter().filter_map(|pid| resident(*pid)).sum();
    resident > limit && all.iter().filter_map(|pid| proportional(*pid)).sum::<u64>() > limit
}

fn resident(pid: i32) -> Option<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}

fn proportional(pid: i32) -> Option<u64> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/smaps_rollup")).ok()?.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Processor time of a process of the host and all that came from it, in ticks: a hundredth of a second each.
#[must_use]
pub fn processor_time(root: u32) -> u64 {
    let all: Vec<_> = processes().into_iter().filter_map(Ticks::of).collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(all.iter().filter(|one| one.parent == parent).map(|one| one.pid));
        at += 1;
    }
    all.iter().filter(|one| family.contains(&one.pid)).map(|one| one.ticks).sum()
}

/// One process: who started it, and what it and its ended children have used.
struct Ticks {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Ticks {
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything (proc_pid_stat(5)).
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { pid: pid.try_into().ok()?, parent: fields.get(1)?.parse().ok()?, ticks })
    }
}
