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
