//! One clone: git in a sandbox of its own, which reaches what the session may reach and sees a directory of ours.
//!
//! Its settings are these alone: no hooks, no prompts, no files of the system's or the user's, the one protocol of the URL,
//! no redirects (a token must not follow one), no submodules. The token comes in through a pipe.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Repository, RepositoryError};
use crate::egress::policy::Policy;
use crate::egress::{Door, Report};
use crate::environment::ProfileSource;
use crate::environment::repository::{AccessToken, Checkout};
use crate::limits::{DISK_FLOOR_BYTES, REPOSITORY_SAID_BYTES};
use crate::runtime::config::FetchBounds;
use crate::sandbox::network::PROXY_PORT;
use crate::sandbox::packages::{Step, run};

const SCRIPT: &str = include_str!("clone.sh");
/// Lines of git's last words that are shown.
const LAST_LINES: usize = 6;

/// What a clone needs to know.
pub(super) struct Job<'a> {
    pub(super) repository: &'a Repository,
    pub(super) token: Option<&'a AccessToken>,
    pub(super) profile: &'a ProfileSource,
    pub(super) policy: &'a Policy,
    pub(super) bounds: FetchBounds,
    /// Nobody waits for it any more.
    pub(super) over: &'a CancellationToken,
}

/// What ended a clone before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Time,
    Size,
    Disk,
    Over,
}

/// How a clone ended.
pub(super) struct Ended {
    /// Whether git ended by itself: then what it worked in is in order.
    pub(super) by_itself: bool,
    /// What came of it.
    pub(super) outcome: Result<(), RepositoryError>,
}

/// Makes `directory/out` a checkout, with the help of `directory/mirror`.
pub(super) fn clone(directory: &Path, job: &Job<'_>) -> Ended {
    match attempt(directory, job) {
        Ok(ended) => ended,
        Err(error) => Ended { by_itself: false, outcome: Err(error) },
    }
}

fn attempt(directory: &Path, job: &Job<'_>) -> Result<Ended, RepositoryError> {
    let fail = |source| RepositoryError::Prepare { path: directory.to_owned(), source };
    let settings = directory.join("settings");
    File::create(&settings)
        .and_then(|mut file| file.write_all(text_of_settings(job).as_bytes()))
        .map_err(fail)?;
    let (token, mut tell) = io::pipe().map_err(fail)?;
    // A pipe holds more than the longest token.
    writeln!(tell, "{}", job.token.map_or("", AccessToken::reveal)).map_err(fail)?;
    drop(tell);
    let (reader, writer) = io::pipe().map_err(fail)?;
    let step = Step {
        profile: job.profile,
        directory,
        layer: None,
        shown: Vec::new(),
        variables: variables(directory, &settings),
        argv: argv(job.repository),
        online: true,
    };
    let mut guard = Guard::new(directory, job);
    let (code, said, report) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| last_of(reader));
        let door: Mutex<Option<io::Result<Door>>> = Mutex::new(None);
        let mut open = |asks: OwnedFd| {
            *door.lock().expect("nothing panics under this lock") =
                Some(Door::open(asks, job.policy.clone()));
        };
        let streams = [token.as_fd(), writer.as_fd(), writer.as_fd()];
        let code = run(step, streams, &mut open, &mut |_| guard.allows());
        drop(writer);
        let report = match door.into_inner().expect("nothing panics under this lock") {
            Some(Ok(door)) => door.report(),
            Some(Err(_)) | None => Report::default(),
        };
        (code, listener.join().expect("listening does not panic"), report)
    });
    let code = code?;
    if code == Some(0) {
        guard.looks_once_more();
    }
    let outcome = match (guard.excess, code) {
        (Some(excess), _) => Err(guard.named(excess)),
        (None, Some(0)) => Ok(()),
        (None, code) => Err(named(job, code.unwrap_or(1), &said, &report)),
    };
    Ok(Ended { by_itself: code.is_some(), outcome })
}

fn argv(repository: &Repository) -> Vec<String> {
    let (what, which) = match &repository.checkout {
        None => ("default", ""),
        Some(Checkout::Branch { name }) => ("branch", name.as_str()),
        Some(Checkout::Commit { sha }) => ("commit", sha.as_str()),
    };
    ["/bin/sh", "-c", SCRIPT, "clone", repository.url.as_str(), what, which]
        .map(str::to_owned)
        .into()
}

fn variables(directory: &Path, settings: &Path) -> Vec<(String, String)> {
    let all = [
        ("HOME", directory.display().to_string()),
        ("TMPDIR", directory.display().to_string()),
        ("GIT_CONFIG_GLOBAL", settings.display().to_string()),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ("GIT_ATTR_NOSYSTEM", "1".to_owned()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        // The relay is a proxy for all of it: an address of the host's own loopback would be the sandbox's otherwise.
        ("no_proxy", String::new()),
        ("NO_PROXY", String::new()),
        // What git says is understood by its words.
        ("LC_ALL", "C".to_owned()),
    ];
    all.map(|(name, value)| (name.to_owned(), value)).into()
}

fn text_of_settings(job: &Job<'_>) -> String {
    format!(
        "[core]\n\thooksPath = /dev/null\n\taskPass =\n\
         [credential]\n\thelper = \"!f() {{ cat <&9; }}; f\"\n\
         [protocol]\n\tallow = never\n[protocol \"{}\"]\n\tallow = always\n\
         [http]\n\tproxy = socks5h://127.0.0.1:{PROXY_PORT}\n\tfollowRedirects = false\n\tlowSpeedLimit = 16\n\tlowSpeedTime = {}\n\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n\
         [submodule]\n\trecurse = false\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n",
        job.repository.url.scheme(),
        job.bounds.silence.as_secs(),
    )
}

/// The end of what is said.
fn last_of(mut reader: PipeReader) -> String {
    let mut last = VecDeque::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = reader.read(&mut piece) {
        last.extend(&piece[..length]);
        let surplus = last.len().saturating_sub(REPOSITORY_SAID_BYTES);
        last.drain(..surplus);
    }
    String::from_utf8_lossy(last.make_contiguous()).into_owned()
}

/// What went wrong, by how it ended and what was said.
fn named(job: &Job<'_>, code: u8, said: &str, report: &Report) -> RepositoryError {
    use RepositoryError as E;
    let said = job.token.map_or(said.to_owned(), |token| said.replace(token.reveal(), "…"));
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    match (code, &job.repository.checkout) {
        (11 | 12, Some(checkout)) => E::NoCheckout(checkout.clone()),
        (13, _) => E::Empty,
        (14, _) => E::NoGit,
        (10, _) => {
            if let Some(refusal) = report.refusals.first() {
                E::Refused(refusal.to_string())
            } else if let Some(failure) = report.failures.first() {
                E::Unreachable(failure.clone())
            } else if says(&["Authentication failed", "could not read Username", "error: 401"]) {
                E::Authentication { given: job.token.is_some() }
            } else if says(&["error: 403"]) {
                E::Forbidden
            } else if says(&["not found", "error: 404"]) {
                E::NotFound
            } else {
                E::Failed(last)
            }
        }
        _ => E::Failed(last),
    }
}

/// Decides whether a clone may go on.
struct Guard<'a> {
    directory: &'a Path,
    bounds: FetchBounds,
    over: &'a CancellationToken,
    began: Instant,
    measure_at: Instant,
    excess: Option<Excess>,
}

impl<'a> Guard<'a> {
    fn new(directory: &'a Path, job: &Job<'a>) -> Self {
        let (bounds, over, began) = (job.bounds, job.over, Instant::now());
        Self { directory, bounds, over, began, measure_at: began, excess: None }
    }

    fn allows(&mut self) -> bool {
        self.excess = if self.over.is_cancelled() {
            Some(Excess::Over)
        } else if self.began.elapsed() > self.bounds.time {
            Some(Excess::Time)
        } else {
            self.too_large()
        };
        self.excess.is_none()
    }

    /// Looks at every file, so rarely that it takes a twentieth of the time at most.
    fn too_large(&mut self) -> Option<Excess> {
        let start = Instant::now();
        if start < self.measure_at {
            return None;
        }
        let bytes = size(self.directory);
        self.measure_at = Instant::now() + start.elapsed() * 20 + Duration::from_millis(200);
        if bytes > self.bounds.bytes {
            return Some(Excess::Size);
        }
        let free = nix::sys::statvfs::statvfs(self.directory)
            .map(|facts| facts.blocks_available() * facts.fragment_size());
        free.is_ok_and(|free| free < DISK_FLOOR_BYTES).then_some(Excess::Disk)
    }

    /// What is there now may be more than it was a moment ago.
    fn looks_once_more(&mut self) {
        self.measure_at = Instant::now();
        self.excess = self.too_large();
    }

    fn named(&self, excess: Excess) -> RepositoryError {
        match excess {
            Excess::Time => RepositoryError::TooLong(self.bounds.time),
            Excess::Size => RepositoryError::TooLarge(self.bounds.bytes),
            Excess::Disk => RepositoryError::Full,
            Excess::Over => RepositoryError::Over,
        }
    }
}

/// Bytes below a directory, in which somebody works.
fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        // What is gone meanwhile takes no room.
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => open.push(entry.path()),
                Ok(facts) => bytes += std::os::unix::fs::MetadataExt::blocks(&facts) * 512,
                Err(_) => {}
            }
        }
    }
    bytes
}
