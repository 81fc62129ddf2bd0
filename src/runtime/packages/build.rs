//! One build: each manager in its turn, in a sandbox that reaches the registries, watched for silence, time and size.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::key::{Key, prepare};
use super::{BuildError, Excess, Lock, Progress, Resolved};
use crate::clock::Clock;
use crate::egress::policy::Policy;
use crate::egress::{Door, Report};
use crate::environment::networking::Networking;
use crate::environment::packages::Manager;
use crate::environment::{Access, Environment, ExtraMount};
use crate::event::rfc3339;
use crate::limits::{DISK_FLOOR_BYTES, PACKAGES_LOG_BYTES, PACKAGES_LOG_LINES, PACKAGES_RESOLVED};
use crate::runtime::config::FetchBounds;
use crate::runtime::registries::Registries;
use crate::sandbox::packages::recipe::{self, LACKS};
use crate::sandbox::packages::shelf::Draft;
use crate::sandbox::packages::view::{PLACE, View};
use crate::sandbox::packages::{Step, run};
use crate::sandbox::usage::processor_time;

/// Largest list of what was installed.
const MAX_RESOLVED_BYTES: u64 = 16 * 1024 * 1024;
/// Longest line that is shown or looked at.
const MAX_LINE_BYTES: usize = 2048;
/// A package manager's own keys, which its sources name by their path.
const KEYRINGS: &str = "/etc/apt/keyrings";

/// What a build needs to know.
pub(super) struct Settings<'a> {
    pub(super) environment: &'a Environment,
    pub(super) key: &'a Key,
    pub(super) registries: &'a Registries,
    pub(super) bounds: FetchBounds,
    pub(super) watcher: &'a (dyn Fn(Progress<'_>) + Send + Sync),
    /// Tells it to end.
    pub(super) over: &'a CancellationToken,
}

/// Builds the layer and puts it on the shelf.
pub(super) fn build(
    draft: Draft,
    settings: &Settings<'_>,
    clock: &dyn Clock,
) -> Result<(), BuildError> {
    let began = Instant::now();
    let log = Log::new(draft.log()?, settings.watcher);
    let mut resolved = BTreeMap::new();
    for manager in settings.environment.packages.managers() {
        let packages = settings.environment.packages.of(manager).count();
        (settings.watcher)(Progress::Installing { manager, packages });
        log.begin(manager);
        let start = Instant::now();
        let found = match install(&draft, settings, &log, manager, began) {
            Ok(found) => found,
            // Nobody asks why: the draft goes, and nothing is left.
            Err(error @ BuildError::Ended { reason: Excess::End, .. }) => return Err(error),
            Err(mut error) => {
                let kept = draft.fail()?;
                if let BuildError::Failed { log, .. }
                | BuildError::Ended { log, .. }
                | BuildError::Unresolved { log, .. } = &mut error
                {
                    *log = kept;
                }
                return Err(error);
            }
        };
        let (packages, time) = (found.len(), start.elapsed());
        resolved.insert(manager, found);
        (settings.watcher)(Progress::Installed { manager, packages, time });
    }
    let build_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let lock = |bytes, files| Lock {
        key: settings.key.text.clone(),
        packages: settings.environment.packages.sorted(),
        base: settings.key.base.clone(),
        resolved,
        files,
        bytes,
        built_at: rfc3339(clock.now()),
        build_ms,
    };
    Ok(draft.finish(lock)?)
}

/// Runs the recipe of one manager; what it installed.
fn install(
    draft: &Draft,
    settings: &Settings<'_>,
    log: &Log<'_>,
    manager: Manager,
    began: Instant,
) -> Result<Vec<Resolved>, BuildError> {
    let directory = draft.work(manager)?;
    let patience = settings.bounds.patience();
    furnish(&directory, settings.key, manager, patience)?;
    let layer = draft.layer();
    let view = View::of(&layer, Access::ReadWrite, None);
    let view = view.map_err(prepare("look through", &layer))?;
    let keyrings = Path::new(KEYRINGS);
    let shown = (manager == Manager::Apt && keyrings.is_dir()).then(|| ExtraMount {
        source: keyrings.to_owned(),
        target: keyrings.to_owned(),
        access: Access::ReadOnly,
    });
    let mut argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), recipe::script(manager)];
    argv.push(manager.to_string());
    let sorted = settings.environment.packages.sorted();
    argv.extend(sorted.of(manager).map(str::to_owned));
    let step = Step {
        profile: &settings.environment.profile,
        directory: &directory,
        layer: Some(&view),
        shown: shown.into_iter().collect(),
        variables: variables(&directory, manager, patience, settings.registries),
        argv,
        online: true,
    };
    let mut guard = Guard::new(draft, log, settings, began);
    let policy = policy(settings.registries);
    let nothing = File::open("/dev/null").map_err(prepare("open", Path::new("/dev/null")))?;
    let (reader, writer) = io::pipe().map_err(prepare("make a pipe in", &directory))?;
    let ended = std::thread::scope(|scope| {
        let pump = scope.spawn(|| log.pump(reader));
        let door: Mutex<Option<io::Result<Door>>> = Mutex::new(None);
        let mut open = |asks: OwnedFd| {
            *door.lock().expect("nothing panics under this lock") =
                Some(Door::open(asks, policy.clone()));
        };
        let mut watch = |pid| {
            let door = door.lock().expect("nothing panics under this lock");
            if let Some(Ok(door)) = door.as_ref() {
                guard.hears(door.report());
            }
            guard.allows(pid)
        };
        let streams = [nothing.as_fd(), writer.as_fd(), writer.as_fd()];
        let ended = run(step, streams, &mut open, &mut watch);
        drop(writer);
        if let Some(Ok(door)) = door.into_inner().expect("nothing panics under this lock") {
            guard.hears(door.report());
        }
        // Everything that could write is gone, or its end is near.
        pump.join().expect("the log does not panic");
        ended
    });
    match ended?.filter(|_| guard.ends_well()) {
        Some(0) => resolved(&directory).map_err(|reason| BuildError::Unresolved {
            manager,
            reason,
            log: PathBuf::new(),
        }),
        Some(LACKS) if directory.join("missing").is_file() => {
            let program = bounded(&directory.join("missing")).unwrap_or_default();
            let debian = recipe::debian_package(manager);
            Err(BuildError::Lacking { manager, program: program.trim().to_owned(), debian })
        }
        Some(code) => Err(BuildError::Failed {
            manager,
            code,
            said: guard.last_words(),
            log: PathBuf::new(),
            refused: !guard.report.refusals.is_empty(),
        }),
        None => Err(BuildError::Ended {
            manager,
            reason: guard.excess.unwrap_or(Excess::Time(settings.bounds.time)),
            said: guard.last_words(),
            log: PathBuf::new(),
        }),
    }
}

/// The registries, and nothing else.
fn policy(registries: &Registries) -> Policy {
    let networking = Networking::Limited {
        allowed_hosts: Vec::new(),
        allow_package_managers: true,
        allow_mcp_servers: false,
    };
    Policy::new(networking, registries.hosts.clone())
}

fn variables(
    directory: &Path,
    manager: Manager,
    patience: u64,
    registries: &Registries,
) -> Vec<(String, String)> {
    let here = directory.display().to_string();
    let mut all = registries.variables.clone();
    let own = recipe::variables(manager, &here, patience).into_iter();
    all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let common = [
        ("HOME", here.clone()),
        ("TMPDIR", format!("{here}/tmp")),
        ("L", format!("{PLACE}/{manager}")),
        ("PATIENCE", patience.to_string()),
    ];
    all.extend(common.map(|(name, value)| (name.to_owned(), value)));
    all
}

/// Puts what the manager needs into its directory.
fn furnish(directory: &Path, key: &Key, manager: Manager, patience: u64) -> Result<(), BuildError> {
    let mut files = key.settings.get(&manager).cloned().unwrap_or_default();
    if manager == Manager::Apt {
        let text = recipe::apt_settings(&directory.display().to_string(), patience);
        files.push((PathBuf::from("apt.conf"), text.into_bytes()));
    }
    let tmp = directory.join("tmp");
    DirBuilder::new().create(&tmp).map_err(prepare("make", &tmp))?;
    for (name, bytes) in files {
        let path = directory.join(name);
        let put = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
            }
            File::create_new(&path)?.write_all(&bytes)
        };
        put().map_err(prepare("write", &path))?;
    }
    Ok(())
}

/// A small file that a stranger has written.
fn bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        options.read(true),
        libc::O_NOFOLLOW | libc::O_NONBLOCK,
    );
    options.open(path)?.take(MAX_RESOLVED_BYTES).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// What a recipe says it has installed.
fn resolved(directory: &Path) -> Result<Vec<Resolved>, String> {
    let text = bounded(&directory.join("resolved")).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for line in text.lines() {
        let plain = |word: &str| {
            !word.is_empty() && word.len() <= 300 && word.bytes().all(|b| b.is_ascii_graphic())
        };
        match line.split_once(' ') {
            Some((name, version)) if plain(name) && plain(version) => {
                all.push(Resolved { name: name.to_owned(), version: version.to_owned() });
            }
            _ => return Err("a line is no name and version".to_owned()),
        }
        if all.len() > PACKAGES_RESOLVED {
            return Err(format!("there are more than {PACKAGES_RESOLVED}"));
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// What managers say: kept up to a bound, shown line by line.
struct Log<'a> {
    file: Mutex<File>,
    bytes: AtomicU64,
    last: Mutex<VecDeque<String>>,
    watcher: &'a (dyn Fn(Progress<'_>) + Send + Sync),
}

impl<'a> Log<'a> {
    fn new(file: File, watcher: &'a (dyn Fn(Progress<'_>) + Send + Sync)) -> Self {
        let (bytes, last) = (AtomicU64::new(0), Mutex::default());
        Self { file: Mutex::new(file), bytes, last, watcher }
    }

    /// What comes now is another manager's.
    fn begin(&self, manager: Manager) {
        self.line(&format!("== {manager}\n"));
        self.last.lock().expect("nothing panics under this lock").clear();
    }

    /// Keeps a line. Where the disk is full it is lost; the guard ends the build then.
    fn line(&self, line: &str) {
        let length = line.len() as u64;
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length <= PACKAGES_LOG_BYTES {
            let mut file = self.file.lock().expect("nothing panics under this lock");
            drop(file.write_all(line.as_bytes()));
        }
    }

    fn pump(&self, reader: PipeReader) {
        let mut reader = BufReader::new(reader);
        let mut raw = Vec::new();
        loop {
            raw.clear();
            let read = (&mut reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut raw);
            if !read.is_ok_and(|length| length > 0) {
                return;
            }
            let text = String::from_utf8_lossy(&raw);
            self.line(&text);
            let text = text.trim_end();
            if !text.trim().is_empty() {
                (self.watcher)(Progress::Says(text));
                let mut last = self.last.lock().expect("nothing panics under this lock");
                if last.len() == PACKAGES_LOG_LINES {
                    last.pop_front();
                }
                last.push_back(text.to_owned());
            }
        }
    }
}

/// Decides whether a manager may go on.
struct Guard<'a> {
    draft: &'a Draft,
    log: &'a Log<'a>,
    bounds: FetchBounds,
    over: &'a CancellationToken,
    began: Instant,
    report: Report,
    heard: u64,
    /// What was seen when something happened last: bytes said and heard, processor time.
    seen: (u64, u64),
    worked: u64,
    active: Instant,
    measure_at: Instant,
    excess: Option<Excess>,
}

impl<'a> Guard<'a> {
    fn new(draft: &'a Draft, log: &'a Log<'a>, settings: &Settings<'a>, began: Instant) -> Self {
        let now = Instant::now();
        Self {
            draft,
            log,
            bounds: settings.bounds,
            over: settings.over,
            began,
            report: Report::default(),
            heard: 0,
            seen: (0, 0),
            worked: 0,
            active: now,
            measure_at: now,
            excess: None,
        }
    }

    fn hears(&mut self, report: Report) {
        self.heard += report.usage.iter().map(|usage| usage.received).sum::<u64>();
        for refusal in report.refusals {
            if !self.report.refusals.contains(&refusal) {
                self.report.refusals.push(refusal);
            }
        }
        for failure in report.failures {
            if !self.report.failures.contains(&failure) {
                self.report.failures.push(failure);
            }
        }
    }

    fn allows(&mut self, pid: u32) -> bool {
        self.excess = (self.over.is_cancelled().then_some(Excess::End))
            .or_else(|| self.too_long())
            .or_else(|| self.silent(pid))
            .or_else(|| self.too_large());
        self.excess.is_none()
    }

    /// Whether what is there now may stay.
    fn ends_well(&mut self) -> bool {
        self.measure_at = Instant::now();
        self.excess = self.too_large();
        self.excess.is_none()
    }

    fn too_long(&self) -> Option<Excess> {
        (self.began.elapsed() > self.bounds.time).then_some(Excess::Time(self.bounds.time))
    }

    fn silent(&mut self, pid: u32) -> Option<Excess> {
        let now = (self.log.bytes.load(Ordering::Relaxed), self.heard);
        if now != self.seen {
            self.seen = now;
            self.active = Instant::now();
        }
        if self.active.elapsed() < self.bounds.silence {
            return None;
        }
        // A compiler may say nothing for long; what waits for a server computes nothing.
        let worked = processor_time(pid);
        let ticks = self.bounds.silence.as_millis() as u64 / 10;
        if worked.abs_diff(self.worked) * 50 > ticks {
            self.worked = worked;
            self.active = Instant::now();
            return None;
        }
        Some(Excess::Silence(self.bounds.silence))
    }

    /// Looks at every file, so rarely that it takes a twentieth of the time at most.
    fn too_large(&mut self) -> Option<Excess> {
        let start = Instant::now();
        if start < self.measure_at {
            return None;
        }
        let free = nix::sys::statvfs::statvfs(self.draft.place())
            .map(|facts| facts.blocks_available() * facts.fragment_size());
        // One that cannot be read is not watched.
        let (bytes, _) = self.draft.size().unwrap_or_default();
        self.measure_at = Instant::now() + start.elapsed() * 20 + Duration::from_millis(200);
        if bytes > self.bounds.bytes {
            return Some(Excess::Size(self.bounds.bytes));
        }
        free.is_ok_and(|free| free < DISK_FLOOR_BYTES).then_some(Excess::Disk)
    }

    /// The end of the log, and what the network had against it.
    fn last_words(&self) -> Vec<String> {
        let last = self.log.last.lock().expect("nothing panics under this lock");
        let network = self.report.refusals.iter().map(ToString::to_string);
        let network =
            network.chain(self.report.failures.iter().map(|failure| format!("{failure}.")));
        last.iter().cloned().chain(network).collect()
    }
}
