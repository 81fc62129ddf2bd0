//! Facts about this host, gathered for a plan.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::disk::Place;
use super::plan::{Host, PathKind, Root, Shown};
use super::profile::Profile;
use super::protect::{self, Found};
use super::repository::Repository;
use crate::environment::{Environment, ExtraMount, WorkspaceMode};
use crate::limits::IMAGE_DESCRIPTION;

/// Above every range that systemd and containers hand out (they end at 0x6fff_ffff).
const SESSION_UIDS: u32 = 0x7000_0000;

impl Host {
    /// Looks at the paths that profile and environment name, and at who runs this.
    ///
    /// # Errors
    /// A directory that is shown and cannot be read.
    pub fn gather(
        profile: &Profile,
        environment: &Environment,
        disk: Option<&Place>,
    ) -> io::Result<Self> {
        let uid = nix::unistd::geteuid().as_raw();
        let session_uid = match disk {
            _ if !is_root() => None,
            // Never root: whoever can be none else is refused by a stage of the set-up.
            Some(disk) => {
                Some(disk.owner()?).filter(|owner| *owner != 0).or_else(|| Some(session_uid()))
            }
            None => Some(session_uid()),
        };
        let home = home_of(uid);
        let root = profile.root.as_deref().map(root_of);
        let base = match &root {
            Some(Root::Directory { path, .. }) => path.clone(),
            Some(Root::Unusable { .. }) | None => PathBuf::from("/"),
        };
        let paths = profile.mount.iter().filter_map(|show| {
            let (source, target) = match show.path.strip_prefix("~/") {
                Some(below) => {
                    let path = home.as_ref()?.join(below);
                    (path.clone(), path)
                }
                None => (base.join(show.path.trim_start_matches('/')), PathBuf::from(&show.path)),
            };
            let kind = kind_of(&source, &base)?;
            Some(Shown { name: show.path.clone(), source, target, kind })
        });
        let paths = paths.collect();
        Ok(Self {
            uid,
            gid: nix::unistd::getegid().as_raw(),
            home: home.unwrap_or_else(|| PathBuf::from("/nonexistent")),
            session_uid,
            memory: memory(),
            root,
            paths,
            found: found(profile, environment, disk)?,
            // In that mode the path means something inside alone.
            repository: Some(&environment.workspace)
                .filter(|_| environment.workspace_mode != WorkspaceMode::Own)
                .and_then(|workspace| Repository::of(workspace)),
            // Only what a layer would hide is asked for: the kernel takes long to write down its mounts.
            submount: Some(&environment.workspace)
                .filter(|_| environment.workspace_mode == WorkspaceMode::Overlay)
                .and_then(|workspace| submount(workspace)),
            disk: disk.cloned(),
            skills: disk.is_some_and(|disk| disk.skills().is_dir()),
            base: base_of(environment, disk)?,
            packages: None,
        })
    }
}

/// The protected paths of every directory of the host that the environment shows, the workspace first.
pub(super) fn found(
    profile: &Profile,
    environment: &Environment,
    disk: Option<&Place>,
) -> io::Result<Found> {
    let workspace = &environment.workspace;
    // What is protected is protected from the session, which has made all of it.
    if environment.workspace_mode == WorkspaceMode::Own {
        return Ok(Found::default());
    }
    let copy = disk.filter(|_| environment.workspace_mode == WorkspaceMode::Copy).map(Place::copy);
    let own = base_of(environment, disk)?.or(copy);
    let source = own.as_ref().unwrap_or(workspace);
    let mut all = protect::walk(source, workspace, &profile.protect, &environment.allow_paths)?;
    if let Some(repository) = Repository::of(workspace) {
        all.held.extend(repository.held(&environment.allow_paths).held);
    }
    for ExtraMount { source, target, .. } in &environment.mounts {
        // A file that is shown by its name is meant.
        if source.is_dir() {
            let allowed = allowed_below(environment, source, target);
            let more = protect::walk(source, target, &profile.protect, &allowed)?;
            all.held.extend(more.held);
            all.links.extend(more.links);
            all.cut |= more.cut;
        }
    }
    Ok(all)
}

/// The sealed tree that the session's layer lies over, if it is one of its own.
fn base_of(environment: &Environment, disk: Option<&Place>) -> io::Result<Option<PathBuf>> {
    match (environment.workspace_mode, disk) {
        (WorkspaceMode::Copy, Some(disk)) => disk.base().map_err(io::Error::other),
        _ => Ok(None),
    }
}

/// The allowed paths that lie in another mount than the workspace, relative to it.
fn allowed_below(environment: &Environment, source: &Path, target: &Path) -> Vec<PathBuf> {
    let all = environment.allow_paths.iter().map(|path| environment.workspace.join(path));
    all.filter_map(|path| {
        let below = path.strip_prefix(source).or_else(|_| path.strip_prefix(target)).ok()?;
        Some(below.to_owned())
    })
    .collect()
}

/// What a directory that is to be the root is.
pub(super) fn root_of(path: &Path) -> Root {
    let unusable = |problem| Root::Unusable { path: path.to_owned(), problem };
    let Ok(real) = path.canonicalize() else { return unusable("is not there") };
    if !real.is_dir() {
        return unusable("is not a directory");
    }
    if real.join("oci-layout").is_file() {
        return unusable(
            "is an image whose layers are packed; unpack it (`umoci unpack --rootless --image IMAGE:TAG BUNDLE`) and name \
             the bundle",
        );
    }
    // What an unpacked image is for a container's runtime: the root, and a description.
    let (bundle, description) = (real.join("rootfs"), real.join("config.json"));
    let (real, env) = match description.is_file() && bundle.is_dir() {
        true => match image_env(&description) {
            Some(env) => (bundle, env),
            None => return unusable("has a config.json that describes no container"),
        },
        false => (real, Vec::new()),
    };
    if real == Path::new("/") || !real.join("usr").is_dir() {
        return unusable("has no `usr` directory of its own: it is no root of a system");
    }
    Root::Directory { path: real, env }
}

/// The environment of an unpacked image's programs; `None` if the description cannot be read.
fn image_env(description: &Path) -> Option<Vec<(String, String)>> {
    #[derive(serde::Deserialize)]
    struct Description {
        process: Option<Process>,
    }
    #[derive(serde::Deserialize)]
    struct Process {
        #[serde(default)]
        env: Vec<String>,
    }
    let mut text = String::new();
    let file = std::fs::File::open(description).ok()?;
    io::Read::read_to_string(&mut io::Read::take(file, IMAGE_DESCRIPTION), &mut text).ok()?;
    let description: Description = serde_json::from_str(&text).ok()?;
    let env = description.process.map(|process| process.env).unwrap_or_default();
    let pair = |line: &String| line.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
    env.iter().map(pair).collect()
}

/// What is at `path`, if anything; a link that leads to nothing is nothing.
fn kind_of(path: &Path, root: &Path) -> Option<PathKind> {
    let facts = path.symlink_metadata().ok()?;
    if facts.is_symlink() {
        // `/bin -> usr/bin` is kept as a link. One that leads elsewhere is followed: its target may not be shown.
        let target = path.read_link().ok()?;
        if root != Path::new("/") {
            // Seen from inside of that root, which is not this one: only what stays in /usr is understood.
            let from_top = Path::new("/").join(&target);
            let plain = !target.iter().any(|part| part == "..");
            return (plain && from_top.starts_with("/usr")).then_some(PathKind::Link(target));
        }
        let real = path.canonicalize().ok()?;
        if real.starts_with("/usr") {
            return Some(PathKind::Link(target));
        }
        return Some(if real.is_dir() { PathKind::Directory } else { PathKind::File });
    }
    Some(if facts.is_dir() { PathKind::Directory } else { PathKind::File })
}

/// The home that the user database gives; `$HOME` is not asked, it may name anything.
fn home_of(uid: u32) -> Option<PathBuf> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut mine = fields.filter(|f| f.len() >= 6 && f[2].parse() == Ok(uid));
    mine.next()
        .map(|fields| PathBuf::from(fields[5]))
        .filter(|home| home.is_absolute() && home != Path::new("/"))
}

/// Something that is mounted below the directory, if anything is.
fn submount(directory: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel writes blanks and backslashes as octal numbers.
    let plain = |point: &str| {
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        let point =
            escapes.iter().fold(point.to_owned(), |text, (from, to)| text.replace(from, to));
        PathBuf::from(point)
    };
    points.map(plain).find(|point| point.starts_with(directory) && point != directory)
}

/// The memory of this machine, in bytes. It stays what it was when the program started.
fn memory() -> Option<u64> {
    static BYTES: OnceLock<Option<u64>> = OnceLock::new();
    *BYTES.get_or_init(read_memory)
}

fn read_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Whether this process is root of the machine. Root of a user namespace that shows an ordinary user as 0, as in a rootless
/// container, is that user: nobody else's files could be shown as a session's there, and what it makes is his, as outside.
pub(super) fn is_root() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| nix::unistd::geteuid().is_root() && !shows_another_as_root(&user_map()))
}

fn user_map() -> String {
    std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

fn shows_another_as_root(map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace();
        numbers.next() == Some("0") && numbers.next().is_some_and(|outside| outside != "0")
    })
}

/// A user id of the host that belongs to nobody, another one for each session: sessions cannot reach each other's
/// processes or files even where they meet.
pub(super) fn session_uid() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    let wanted = SESSION_UIDS | u32::try_from(random & 0xffff).expect("16 bits");
    mapped(&user_map(), wanted)
}

/// That id where the map of a user namespace has it. In a container only a few exist: then the last before `nobody`.
fn mapped(map: &str, wanted: u32) -> u32 {
    const NOBODY: u32 = 65_534;
    let first_and_count = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, count) = (numbers.next()??, numbers.nth(1)??);
        count.checked_sub(1).map(|more| first..=first.saturating_add(more))
    };
    let ranges: Vec<_> = map.lines().filter_map(first_and_count).collect();
    if ranges.iter().any(|range| range.contains(&wanted)) {
        return wanted;
    }
    let last = ranges.iter().filter(|range| *range.start() < NOBODY);
    let last = last.map(|range| *range.end().min(&(NOBODY - 1))).max();
    last.filter(|uid| *uid != 0).unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::{mapped, shows_another_as_root};

    #[test]
    fn root_of_a_rootless_container_is_a_user() {
        for (map, another) in [
            ("         0          0 4294967295\n", false),
            ("0 20123 1\n", true),
            ("0 1000 1\n1 100000 65536\n", true),
            ("0 100000 65536\n", true),
            // Root's own containers, where it has given up what it may do.
            ("0 0 1\n", false),
            ("1000 0 1\n", false),
            ("", false),
        ] {
            assert_eq!(shows_another_as_root(map), another, "{map:?}");
        }
    }

    #[test]
    fn a_session_gets_an_id_that_is_mapped() {
        let wanted = 0x7000_1234;
        for (map, given) in [
            ("         0          0 4294967295\n", wanted),
            // A container with its usual range, two more ranges, one without the last ids.
            ("0 100000 65536\n", 65_533),
            ("0 1000 1\n1 100000 40000\n70000 200000 5\n", 40_000),
            ("0 1000 1\n1 100000 65536\n1879048192 300000 65536\n", wanted),
            // A user who is root in a namespace of his own has nobody else.
            ("0 20123 1\n", 65_534),
            ("", 65_534),
            ("nonsense\n0 1\n5 6 0\n", 65_534),
        ] {
            assert_eq!(mapped(map, wanted), given, "{map:?}");
        }
    }
}
