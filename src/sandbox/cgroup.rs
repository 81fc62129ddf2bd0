//! A control group for one session, where this process may make one: version 2 if its controllers are delegated, version 1
//! if root has it. The kernel then counts memory, processor time and disk traffic of the whole session, whatever it forks.
//!
//! The host makes and removes the directory; the child enters it before it gives anything up. A host that was killed
//! leaves an empty directory, which the next one removes.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::profile::Resource;
use super::usage;
use crate::limits::{CGROUP_MOVES, CGROUP_REMOVAL};

/// What a child needs to enter a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Files that take the number of a process.
    pub procs: Vec<PathBuf>,
    /// The file that counts what was killed for want of memory.
    pub events: PathBuf,
}

/// The directories of one group. Removed when dropped, which waits until its processes are gone.
pub(super) struct Cgroup {
    dirs: Vec<PathBuf>,
    events: PathBuf,
    version: u8,
    /// Whether the speed of the disk is limited, if it should be; or why not.
    io: Option<Result<(), String>>,
}

/// What a group is to limit.
struct Wanted<'a> {
    memory: u64,
    cpu: Option<u64>,
    processes: Option<u64>,
    /// Bytes in a second, on the disk of a path.
    io: Option<(u64, &'a Path)>,
}

/// Where this process may make groups.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Version 2: one directory for all, below the one where the groups are mounted.
    Unified { base: PathBuf, mounted: PathBuf },
    /// Version 1: a directory for memory, and others for the processor and for disks if there are any.
    Split { memory: PathBuf, cpu: Option<PathBuf>, io: Option<PathBuf> },
}

impl Place {
    /// Where else a group could be made, nearest first: in those groups above that hand out limits already. A shell and what
    /// it started share a group that cannot; to its user, or to root, one above may belong.
    fn above(&self) -> Vec<Self> {
        let Self::Unified { base, mounted } = self else { return Vec::new() };
        let above = base.ancestors().skip(1).take_while(|above| above.starts_with(mounted));
        // Who moves a process needs to be allowed to in the group above both.
        let is_ours =
            |above: &&Path| access(&above.join("cgroup.procs"), AccessFlags::W_OK).is_ok();
        let hands_out = |above: &&Path| hands_out(above, "memory").unwrap_or(false);
        let place = |base: &Path| Self::Unified { base: base.to_owned(), mounted: mounted.clone() };
        above.filter(is_ours).filter(hands_out).map(place).collect()
    }
}

impl Cgroup {
    /// A group with the plan's limits.
    ///
    /// # Errors
    /// Why there can be none, as a sentence for the layer and for `doctor`.
    pub(super) fn make(plan: &Plan) -> Result<Self, String> {
        let Some(memory) = plan.limit(Resource::Memory) else {
            return Err("no limit of memory".to_owned());
        };
        Self::make_with(&Wanted {
            memory,
            cpu: plan.limit(Resource::Cpu),
            processes: plan.limit(Resource::Nproc),
            io: plan.limit(Resource::Io).map(|bytes| (bytes, plan.workspace.as_path())),
        })
    }

    /// A group to try it out, with limits of memory and of the speed of the disk below `path`.
    ///
    /// # Errors
    /// As [`Cgroup::make`].
    pub(super) fn to_try(path: &Path) -> Result<Self, String> {
        let io = Some((1 << 30, path));
        Self::make_with(&Wanted { memory: 64 << 20, cpu: None, processes: None, io })
    }

    fn make_with(wanted: &Wanted<'_>) -> Result<Self, String> {
        // Where that is takes moves of processes to find out, and does not change.
        static FOUND: OnceLock<Place> = OnceLock::new();
        static SHARED: AtomicBool = AtomicBool::new(false);
        if let Some(place) = FOUND.get() {
            return Self::make_at(place, wanted).map_err(|e| words(&e));
        }
        if SHARED.load(Ordering::Relaxed) {
            return Err(words(&io::ErrorKind::ResourceBusy.into()));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let place = place(&mounts, &own)?;
        let above = place.above();
        let mut first = None;
        for place in std::iter::once(place).chain(above) {
            match Self::make_at(&place, wanted) {
                Ok(made) => {
                    sweep(FOUND.get_or_init(|| place));
                    return Ok(made);
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        let first = first.expect("one place was tried");
        SHARED.store(first.kind() == io::ErrorKind::ResourceBusy, Ordering::Relaxed);
        Err(words(&first))
    }

    fn make_at(place: &Place, wanted: &Wanted<'_>) -> io::Result<Self> {
        let (base, version) = match place {
            Place::Unified { base, .. } => (base, 2),
            Place::Split { memory, .. } => (memory, 1),
        };
        let name = name();
        let dir = base.join(&name);
        let Wanted { memory, cpu, processes, io } = *wanted;
        let mut made = Self { dirs: Vec::new(), events: PathBuf::new(), version, io: None };
        match place {
            Place::Unified { base, .. } => {
                delegate(base)?;
                made.add(&dir)?;
                put(&dir.join("memory.max"), memory)?;
                // Without swap the limit is what it says; a kernel without swap has no such file.
                put_if_there(&dir.join("memory.swap.max"), 0)?;
                if let Some(processes) = processes {
                    put_if_there(&dir.join("pids.max"), processes)?;
                }
                if let Some(percent) = cpu {
                    let text = format!("{} {PERIOD_US}", percent * PERIOD_US / 100);
                    put_text(&dir.join("cpu.max"), &text)?;
                }
                made.io = io.map(|(bytes, path)| slow_down(base, &dir, bytes, path));
                made.events = dir.join("memory.events");
            }
            Place::Split { cpu: cpu_base, io: io_base, .. } => {
                made.add(&dir)?;
                put(&dir.join("memory.limit_in_bytes"), memory)?;
                put_if_there(&dir.join("memory.memsw.limit_in_bytes"), memory)?;
                made.events = dir.join("memory.oom_control");
                if let Some((percent, base)) = cpu.zip(cpu_base.as_ref()) {
                    let dir = base.join(&name);
                    made.add(&dir)?;
                    put(&dir.join("cpu.cfs_period_us"), PERIOD_US)?;
                    put(&dir.join("cpu.cfs_quota_us"), percent * PERIOD_US / 100)?;
                }
                made.io = io.map(|(bytes, path)| {
                    let base = io_base.as_ref().ok_or("no group for disks is mounted")?;
                    let dir = base.join(&name);
                    made.add(&dir).map_err(|e| e.to_string())?;
                    throttle(&dir, bytes, path)
                });
            }
        }
        Ok(made)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)?;
        self.dirs.push(dir.to_owned());
        Ok(())
    }

    pub(super) fn entry(&self) -> Entry {
        let procs = self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect();
        Entry { procs, events: self.events.clone() }
    }

    /// As a layer.
    pub(super) fn layer(&self) -> String {
        let io = match &self.io {
            None => String::new(),
            Some(Ok(())) => ", disk speed limited".to_owned(),
            Some(Err(reason)) => format!(", disk speed not limited: {reason}"),
        };
        format!("memory counted by the kernel (control groups, version {}){io}", self.version)
    }
}

/// Why there is no group.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "control groups are not delegated to this user".to_owned()
        }
        io::ErrorKind::ResourceBusy => {
            "other programs share the control group of this one".to_owned()
        }
        _ => format!("control groups: {error}"),
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + CGROUP_REMOVAL;
        for dir in &self.dirs {
            // Its processes are being taken apart; what stays all the same is swept by the next start.
            while let Err(e) = std::fs::remove_dir(dir) {
                if e.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// The kernel's usual period of processor quotas.
const PERIOD_US: u64 = 100_000;

impl Entry {
    /// Opens the group's files while this process still may.
    pub(super) fn open(&self) -> io::Result<Open> {
        let write = |procs: &PathBuf| File::options().write(true).open(procs);
        let procs = self.procs.iter().map(write).collect::<io::Result<_>>()?;
        Ok(Open { procs, events: File::open(&self.events)? })
    }
}

/// A group whose files are open.
pub(super) struct Open {
    procs: Vec<File>,
    /// Counts what was killed for want of memory.
    pub(super) events: File,
}

impl Open {
    /// Moves a process into the group, with all that it will start; 0 is this one. The kernel takes some 10 ms for it.
    pub(super) fn take_in(&mut self, pid: i32) -> io::Result<()> {
        self.procs.iter_mut().try_for_each(|procs| procs.write_all(pid.to_string().as_bytes()))
    }
}

fn put(path: &Path, value: u64) -> io::Result<()> {
    put_text(path, &value.to_string())
}

fn put_text(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

fn put_if_there(path: &Path, value: u64) -> io::Result<()> {
    match put(path, value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Limits the speed of the disk that `path` is on, for a group of version 2 whose parent is `base`.
fn slow_down(base: &Path, group: &Path, bytes: u64, path: &Path) -> Result<(), String> {
    let device = device(path)?;
    // Often delegated less than memory is.
    let given = put_text(&base.join("cgroup.subtree_control"), "+io");
    let text = format!("{device} rbps={bytes} wbps={bytes}");
    let refused = |e: io::Error| match &given {
        Ok(()) => format!("device {device}: {e}"),
        Err(_) => "the control group of disks is not delegated".to_owned(),
    };
    put_text(&group.join("io.max"), &text).map_err(refused)
}

/// The same in version 1, which sees what is read, and what is written past the page cache or synced.
fn throttle(group: &Path, bytes: u64, path: &Path) -> Result<(), String> {
    let device = device(path)?;
    ["read", "write"].iter().try_for_each(|what| {
        let file = group.join(format!("blkio.throttle.{what}_bps_device"));
        put_text(&file, &format!("{device} {bytes}")).map_err(|e| format!("device {device}: {e}"))
    })
}

/// The number of the disk that a path is on: the whole one, where that is a part.
fn device(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::MetadataExt as _;
    let device = path.metadata().map_err(|e| e.to_string())?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    if major == 0 {
        return Err("the file system has no disk of its own".to_owned());
    }
    let place = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !place.join("partition").exists() {
        return Ok(format!("{major}:{minor}"));
    }
    // Its directory lies in that of the disk.
    let disk = place.canonicalize().ok().and_then(|part| Some(part.parent()?.join("dev")));
    let number = disk.and_then(|disk| std::fs::read_to_string(disk).ok());
    Ok(number.ok_or("its disk is not known")?.trim().to_owned())
}

/// Says who made the group: the process and when it began, so that a number used again is told apart.
fn name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let (pid, began) = (std::process::id(), own_beginning());
    format!("casemate-{pid}-{began}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// When this process began, or 0.
pub(super) fn own_beginning() -> u64 {
    static BEGAN: OnceLock<u64> = OnceLock::new();
    *BEGAN.get_or_init(|| began(std::process::id()).unwrap_or(0))
}

/// When a process began, in the kernel's ticks.
pub(super) fn began(pid: u32) -> Option<u64> {
    Some(usage::Process::of(pid.try_into().ok()?)?.started)
}

/// Removes the groups of hosts that are gone. One that is in use cannot be removed: the kernel refuses.
fn sweep(place: &Place) {
    let bases: Vec<&PathBuf> = match place {
        Place::Unified { base, .. } => vec![base],
        Place::Split { memory, cpu, io } => std::iter::once(memory).chain(cpu).chain(io).collect(),
    };
    for base in bases {
        let Ok(entries) = std::fs::read_dir(base) else { continue };
        for entry in entries.flatten() {
            if is_stale(&entry.file_name().to_string_lossy()) {
                drop(std::fs::remove_dir(entry.path()));
            }
        }
    }
}

fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("casemate-") else { return false };
    let numbers: Vec<u64> = rest.split('-').filter_map(|part| part.parse().ok()).collect();
    let [pid, since, _] = numbers[..] else { return false };
    u32::try_from(pid).is_ok_and(|pid| began(pid) != Some(since))
}

/// The room of the host's own processes, in a group that hands out limits.
const ROOM: &str = "casemate-host";

/// Lets directories below this one have limits.
fn delegate(base: &Path) -> io::Result<()> {
    if hands_out(base, "memory")? {
        return Ok(());
    }
    let control = base.join("cgroup.subtree_control");
    let hand_out = || put_text(&control, "+memory +pids +cpu");
    let Err(e) = hand_out() else { return Ok(()) };
    if e.raw_os_error() != Some(libc::EBUSY) {
        return Err(e);
    }
    // A group that hands out limits holds no processes itself: those of this host move into a room of their own.
    let room = base.join(ROOM);
    match std::fs::create_dir(&room) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let mut result = Err(e);
    for _ in 0..CGROUP_MOVES {
        move_own(base, &room)?;
        result = hand_out();
        // A guest may have been forked meanwhile.
        if result.is_ok() || own_processes(base)?.is_empty() {
            break;
        }
    }
    if result.is_err() {
        // Others are in it too: back to where it was, as if nothing had been tried.
        drop(move_own(&room, base));
        drop(std::fs::remove_dir(&room));
    }
    result
}

/// Whether the groups below this one have a controller.
fn hands_out(group: &Path, controller: &str) -> io::Result<bool> {
    let given = std::fs::read_to_string(group.join("cgroup.subtree_control"))?;
    Ok(given.split_whitespace().any(|given| given == controller))
}

/// Moves this host's processes from one group to another.
fn move_own(from: &Path, to: &Path) -> io::Result<()> {
    let to = to.join("cgroup.procs");
    own_processes(from)?.into_iter().try_for_each(|pid| match put_text(&to, &pid.to_string()) {
        // It has ended.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        moved => moved,
    })
}

/// The processes of a group that are this host's: itself, what it started, and its parent if that is the same program,
/// as it is where a mechanism is tried in a process of its own.
fn own_processes(group: &Path) -> io::Result<Vec<i32>> {
    let program = |process: &str| std::fs::read_link(format!("/proc/{process}/exe")).ok();
    let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let is_same = program("self").is_some_and(|own| program(&parent.to_string()) == Some(own));
    let host = i32::try_from(if is_same { parent } else { own }).expect("they are small");
    let listed = std::fs::read_to_string(group.join("cgroup.procs"))?;
    let listed: Vec<i32> = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
    let family = usage::family([host]).into_iter().map(|process| process.pid);
    Ok(family.filter(|pid| listed.contains(pid)).collect())
}

/// Where groups can be made, by what is mounted and where this process is.
fn place(mounts: &str, own: &str) -> Result<Place, String> {
    let mounted = |is_it: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            is_it(kind, options).then(|| PathBuf::from(at))
        })
    };
    let path_of = |is_it: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            is_it(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let split = |name: &str| {
        let has = |list: &str| list.split(',').any(|one| one == name);
        let at = mounted(&|kind, options| kind == "cgroup" && has(options))?;
        Some(at.join(path_of(&|controllers| has(controllers))?))
    };
    if let Some(memory) = split("memory") {
        return Ok(Place::Split { memory, cpu: split("cpu"), io: split("blkio") });
    }
    let unified = mounted(&|kind, _| kind == "cgroup2");
    match unified.zip(path_of(&str::is_empty)) {
        Some((mounted, path)) => {
            // A host that has moved into its room makes groups beside it.
            let base = mounted.join(path.strip_suffix(ROOM).unwrap_or(&path));
            Ok(Place::Unified { base, mounted })
        }
        None => Err("no control groups are mounted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_what_is_mounted() {
        let check = |mounts: &str, own: &str, expected: Result<Place, &str>| {
            assert_eq!(place(mounts, own), expected.map_err(str::to_owned));
        };
        let unified = || Place::Unified {
            base: "/sys/fs/cgroup/user.slice/a.scope".into(),
            mounted: "/sys/fs/cgroup".into(),
        };
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0";
        check(mounts, "0::/user.slice/a.scope", Ok(unified()));
        check(mounts, "0::/user.slice/a.scope/casemate-host", Ok(unified()));
        let hybrid = "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /c/blkio cgroup rw,blkio 0 0\ncgroup2 /c/unified cgroup2 rw 0 0";
        check(
            hybrid,
            "4:memory:/m\n1:cpu,cpuacct:/\n3:blkio:/b\n0::/",
            Ok(Place::Split {
                memory: "/c/memory/m".into(),
                cpu: Some("/c/cpu".into()),
                io: Some("/c/blkio/b".into()),
            }),
        );
        check("proc /proc proc rw 0 0", "0::/", Err("no control groups are mounted"));
    }

    #[test]
    fn only_groups_of_hosts_that_are_gone_are_stale() {
        let pid = std::process::id();
        let since = began(pid).unwrap();
        let check = |name: &str, stale: bool| assert_eq!(is_stale(name), stale, "{name}");
        check(&format!("casemate-{pid}-{since}-1"), false);
        check(&format!("casemate-{pid}-{}-1", since + 1), true);
        check("casemate-host", false);
        check("docker-1-2-3", false);
    }
}
