//! Facts about this host, gathered for a plan.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::plan::{Host, PathKind};
use super::profile::Profile;

/// Above every range that systemd and containers hand out (they end at 0x6fff_ffff).
const SESSION_UIDS: u32 = 0x7000_0000;

impl Host {
    /// Looks at the paths that the profile names and at who runs this.
    #[must_use]
    pub fn gather(profile: &Profile) -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        let home = home_of(uid);
        let paths = profile.mount.iter().filter_map(|place| {
            let path = match place.path.strip_prefix("~/") {
                Some(below) => home.as_ref()?.join(below),
                None => PathBuf::from(&place.path),
            };
            kind_of(&path).map(|kind| (path, kind))
        });
        let paths = paths.collect();
        Self {
            uid,
            gid: nix::unistd::getegid().as_raw(),
            home: home.unwrap_or_else(|| PathBuf::from("/nonexistent")),
            session_uid: (uid == 0).then(session_uid),
            paths,
        }
    }
}

/// What is at `path`, if anything; a link that leads to nothing is nothing.
fn kind_of(path: &Path) -> Option<PathKind> {
    let facts = path.symlink_metadata().ok()?;
    if facts.is_symlink() {
        // `/bin -> usr/bin` is kept as a link. One that leads elsewhere is followed: its target may not be shown.
        let target = path.read_link().ok()?;
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

/// A user id of the host that belongs to nobody, another one for each session: sessions cannot reach each other's
/// processes or files even where they meet.
fn session_uid() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    let wanted = SESSION_UIDS | u32::try_from(random & 0xffff).expect("16 bits");
    if is_mapped(wanted) {
        return wanted;
    }
    // In a container only a few ids exist: the last before `nobody`.
    (1..65_534).rev().find(|uid| is_mapped(*uid)).unwrap_or(65_534)
}

fn is_mapped(uid: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [inside, _, count] if (inside..inside + count).contains(&uid.into()))
    })
}
