//! Seals: what a tree was at a moment. Contents lie beside the tree, each once; a seal is the difference from the one
//! before it. Nothing that was sealed ever changes, so a fork goes on from the seals of the other where they lie.
//!
//! ```text
//! 000001.json  000002.json  …     one file a seal: what changed, what was removed
//! objects/000001-0 …              contents, named by the seal that first held them, with mode and time of the file
//! ```

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statvfs::fstatvfs;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::diff::{Entry, Side, What};
use super::path::RelativePath;
use super::tree::{self, Found, Kind, Node, Stamp, Tree};
use super::{DiskError, holes};
use crate::limits::{DIFF_FILE_BYTES, DISK_FLOOR_BYTES};
use crate::sandbox::sys;

/// A file that changed so short a time before it was looked at may change again with the same stamp: the kernel's
/// change times are as coarse as its timer.
const UNSURE: i64 = 20_000_000;
/// The change time of a stamp that matches nothing.
const NEVER: i64 = 0;
/// Times that a file which changes while it is copied is copied again, before it is taken as it comes.
const COPIES: usize = 3;

/// The number of a seal; they count up from 1. 0 is the empty tree before the first.
pub type SealNumber = u64;

/// A seal that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its number; that of the last one, if nothing has changed since.
    pub number: SealNumber,
    /// Files in the tree.
    pub files: usize,
    /// Entries that changed or went since the last one.
    pub changed: usize,
    /// Bytes that were copied.
    pub bytes: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// When the look at the tree began.
    looked: i64,
    changed: Vec<(RelativePath, Node)>,
    removed: Vec<RelativePath>,
}

impl Difference {
    fn between(old: &Tree, new: &Tree, looked: i64) -> Self {
        let changed = new.iter().filter(|(path, node)| old.get(*path) != Some(node));
        let removed = old.keys().filter(|path| !new.contains_key(*path));
        Self {
            looked,
            changed: changed.map(|(path, node)| (path.clone(), node.clone())).collect(),
            removed: removed.cloned().collect(),
        }
    }

    fn apply(self, tree: &mut Tree) {
        for path in &self.removed {
            tree.remove(path);
        }
        tree.extend(self.changed);
    }
}

/// Whether two trees are the same to whoever uses them, whatever their inodes.
pub(super) fn same(old: &Tree, new: &Tree) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|((p, a), (q, b))| p == q && same_node(a, b))
}

fn same_node(a: &Node, b: &Node) -> bool {
    let kinds = match (&a.kind, &b.kind) {
        (Kind::File { object: a, .. }, Kind::File { object: b, .. }) => a == b,
        (a, b) => a == b,
    };
    kinds && (a.mode, a.owner, a.modified) == (b.mode, b.owner, b.modified)
}

/// Where the seals of a tree lie.
#[derive(Debug, Clone, Default)]
pub(super) struct Lineage {
    /// Those that the tree began with: the last number in each directory, oldest first.
    pub(super) before: Vec<(SealNumber, PathBuf)>,
    /// Its own.
    pub(super) own: PathBuf,
    /// The last seal of a whole tree, where those after it are of a layer; else 0.
    pub(super) whole: SealNumber,
    /// Where contents are shared with other sessions, if they are.
    pub(super) contents: Option<PathBuf>,
}

impl Lineage {
    fn directory(&self, number: SealNumber) -> &Path {
        let before = self.before.iter().find(|(last, _)| number <= *last);
        before.map_or(self.own.as_path(), |(_, dir)| dir)
    }
}

/// The seals of one tree.
pub(super) struct Seals {
    lineage: Lineage,
    head: SealNumber,
    tree: Tree,
    /// When the look for the last seal began; what was older then is as it was.
    looked: i64,
}

impl Seals {
    /// Reads what is there; what a crash left half made is removed.
    pub(super) fn open(lineage: Lineage) -> Result<Self, DiskError> {
        let objects = lineage.own.join("objects");
        let fail = DiskError::at("open the seals", &lineage.own);
        std::fs::create_dir_all(&objects).map_err(&fail)?;
        let inherited = lineage.before.last().map_or(0, |(last, _)| *last);
        let mut seals = Self { head: inherited, lineage, tree: Tree::new(), looked: NEVER };
        seals.tree = seals.fold(seals.lineage.whole + 1, inherited)?;
        while let Some(difference) = seals.load(seals.head + 1)? {
            seals.looked = difference.looked;
            difference.apply(&mut seals.tree);
            seals.head += 1;
        }
        for entry in std::fs::read_dir(objects).map_err(&fail)? {
            let path = entry.map_err(&fail)?.path();
            let number = path.file_name().and_then(seal_of);
            if number.is_none_or(|number| number > seals.head) {
                std::fs::remove_file(path).map_err(&fail)?;
            }
        }
        Ok(seals)
    }

    /// What the seals of these numbers say together.
    fn fold(&self, first: SealNumber, last: SealNumber) -> Result<Tree, DiskError> {
        let mut tree = Tree::new();
        for number in first..=last {
            let missing = DiskError::NoSeal { number, last: self.head };
            self.load(number)?.ok_or(missing)?.apply(&mut tree);
        }
        Ok(tree)
    }

    /// The last seal.
    pub(super) fn head(&self) -> SealNumber {
        self.head
    }

    /// What the tree was at the last seal.
    pub(super) fn current(&self) -> &Tree {
        &self.tree
    }

    fn file(&self, number: SealNumber) -> PathBuf {
        self.lineage.directory(number).join(format!("{number:06}.json"))
    }

    /// Where a content lies.
    pub(super) fn object(&self, name: &str) -> PathBuf {
        let number = seal_of(OsStr::new(name)).unwrap_or(SealNumber::MAX);
        self.lineage.directory(number).join("objects").join(name)
    }

    /// The name of a content of the next seal.
    fn name(&self, index: usize) -> String {
        format!("{:06}-{index}", self.head + 1)
    }

    fn load(&self, number: SealNumber) -> Result<Option<Difference>, DiskError> {
        let path = self.file(number);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DiskError::at("read a seal", &path)(e)),
        };
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|e| DiskError::at("read a seal", &path)(e.into()))
    }

    /// What the tree, or the layer, was at a seal.
    pub(super) fn tree(&self, number: SealNumber) -> Result<Tree, DiskError> {
        if number > self.head {
            return Err(DiskError::NoSeal { number, last: self.head });
        }
        if self.is_whole(number) {
            return self.fold(1, number);
        }
        if number == self.head {
            return Ok(self.tree.clone());
        }
        self.fold(self.lineage.whole + 1, number)
    }

    /// Whether that seal is of a whole tree where those after it are of a layer.
    pub(super) fn is_whole(&self, number: SealNumber) -> bool {
        number <= self.lineage.whole
    }

    /// Seals the tree below `root` as it is now.
    pub(super) fn seal(
        &mut self,
        root: &OwnedFd,
        shown: &Path,
        bound: Bound,
        users: Option<(&OwnedFd, i64)>,
    ) -> Result<Sealed, DiskError> {
        let unsure = unsure_from();
        let (mut tree, bytes) = self.keep(root, shown, bound)?;
        distrust_the_young(&mut tree, unsure);
        self.carry_bases(&mut tree);
        if let Some((users, made)) = users {
            let kept = self.keep_bases(&mut tree, users, made);
            kept.map_err(DiskError::at("seal", shown))?;
        }
        // A number of its own for the empty tree of the beginning too: 0 is no seal.
        if self.head > 0 && same(&self.tree, &tree) {
            let files = files_in(&tree);
            (self.tree, self.looked) = (tree, unsure);
            return Ok(Sealed { number: self.head, files, changed: 0, bytes: 0 });
        }
        let sealed = self.record(tree, bytes, unsure)?;
        self.publish(&self.tree);
        Ok(sealed)
    }

    /// A file that was there at the last seal began to differ from the user's when it did then.
    fn carry_bases(&self, tree: &mut Tree) {
        for (path, node) in tree {
            if let (Kind::File { .. }, Some(known)) = (&node.kind, self.tree.get(path)) {
                node.base.clone_from(&known.base);
            }
        }
    }

    /// Keeps what the user's files were where the layer has just begun to differ: what they are, if nobody has touched them
    /// since the look for the last seal, or since the disk was made.
    fn keep_bases(&self, tree: &mut Tree, users: &OwnedFd, made: i64) -> io::Result<()> {
        let since = if self.head == 0 { made } else { self.looked };
        let side = Side::Live(users);
        let is_file = |node: &Node| matches!(node.kind, Kind::File { .. });
        let mut next = tree.len();
        for (path, node) in tree {
            if !is_file(node) || self.tree.get(path).is_some_and(is_file) {
                continue;
            }
            match side.look(path)? {
                Some(Entry { what: What::File(size), changed, .. })
                    if size <= DIFF_FILE_BYTES && changed < since =>
                {
                    let mut from = side.open(path)?;
                    if let Kind::File { object, .. } = self.keep_content(next, &mut from)? {
                        node.base = Some(object);
                    }
                    next += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps a content of the next seal, of which this is the one of that index.
    pub(super) fn keep_content(&self, index: usize, from: &mut dyn io::Read) -> io::Result<Kind> {
        let object = self.name(index);
        let mut to = File::create(self.object(&object))?;
        let size = io::copy(from, &mut to)?;
        let stamp = Stamp { device: 0, inode: 0, size, changed: NEVER };
        Ok(Kind::File { object, stamp })
    }

    /// Seals that what is at these paths is now what the user has.
    pub(super) fn begin_anew(
        &mut self,
        paths: impl Iterator<Item = RelativePath>,
    ) -> Result<(), DiskError> {
        let mut tree = self.tree.clone();
        for path in paths {
            if let Some(node) = tree.get_mut(&path)
                && let Kind::File { object, .. } = &node.kind
            {
                node.base = Some(object.clone());
            }
        }
        self.record(tree, 0, self.looked).map(drop)
    }

    /// Lets other sessions have the contents that the last seal was the first to hold. Where that cannot be, they keep
    /// their own.
    pub(super) fn publish(&self, tree: &Tree) {
        let Some(contents) = &self.lineage.contents else { return };
        for node in tree.values() {
            let Kind::File { object, stamp } = &node.kind else { continue };
            if stamp.changed != NEVER && seal_of(OsStr::new(object)) == Some(self.head) {
                drop(std::fs::hard_link(self.object(object), contents.join(stamp.to_string())));
            }
        }
    }

    /// The tree below `root`, its contents kept for the next seal, and the bytes that were copied for it.
    pub(super) fn keep(
        &self,
        root: &OwnedFd,
        shown: &Path,
        bound: Bound,
    ) -> Result<(Tree, u64), DiskError> {
        let mut copier = Copier { seals: self, next: 0, bytes: 0, unshared: 0, entries: 0, bound };
        let walked = tree::walk(root, &mut |found| copier.keep(found));
        let (bytes, made, over) = (copier.bytes, copier.next, copier.is_over());
        let kept = match walked {
            _ if over => Err(DiskError::TooLarge { path: shown.to_owned() }),
            other => other.map_err(DiskError::at("seal", shown)),
        };
        if kept.is_err() {
            // A full disk would stay full of what nobody needs. What cannot be removed is, when the seals are opened next.
            (0..made).for_each(|i| drop(std::fs::remove_file(self.object(&self.name(i)))));
        }
        Ok((kept?, bytes))
    }

    /// Makes a tree, whose contents are kept already, the newest seal, even if nothing but stamps has changed: the next
    /// process then need not compare contents. Stamps from `unsure` on are not trusted.
    pub(super) fn record_anew(
        &mut self,
        mut tree: Tree,
        bytes: u64,
        unsure: i64,
    ) -> Result<Sealed, DiskError> {
        distrust_the_young(&mut tree, unsure);
        self.record(tree, bytes, unsure)
    }

    fn record(&mut self, tree: Tree, bytes: u64, looked: i64) -> Result<Sealed, DiskError> {
        let files = files_in(&tree);
        let difference = Difference::between(&self.tree, &tree, looked);
        let number = self.head + 1;
        self.write(number, &difference)?;
        let changed = difference.changed.len() + difference.removed.len();
        self.head = number;
        (self.tree, self.looked) = (tree, looked);
        Ok(Sealed { number, files, changed, bytes })
    }

    fn write(&self, number: SealNumber, difference: &Difference) -> Result<(), DiskError> {
        let path = self.file(number);
        let fresh = self.lineage.own.join("fresh");
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(difference)?)?;
            file.sync_data()?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(DiskError::at("write a seal", &path))
    }
}

/// The seal that first held the content of that name.
fn seal_of(name: &OsStr) -> Option<SealNumber> {
    name.to_str()?.split('-').next()?.parse().ok()
}

fn files_in(tree: &Tree) -> usize {
    tree.values().filter(|node| matches!(node.kind, Kind::File { .. })).count()
}

/// What one seal may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Bytes that are copied because the file system cannot share them.
    pub(super) bytes: u64,
    /// Files that are looked at.
    pub(super) files: usize,
}

impl Bound {
    /// No bound but those of every tree.
    pub(super) const NONE: Self = Self { bytes: u64::MAX, files: usize::MAX };
}

/// The time, as files have it.
pub(super) fn now() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    i64::try_from(now.as_nanos()).unwrap_or(NEVER)
}

/// From when on a change is too young for its stamp to be trusted. Taken before the stamps are.
pub(super) fn unsure_from() -> i64 {
    now() - UNSURE
}

pub(super) fn distrust_the_young(tree: &mut Tree, from: i64) {
    for node in tree.values_mut() {
        if let Kind::File { stamp, .. } = &mut node.kind
            && stamp.changed >= from
        {
            stamp.changed = NEVER;
        }
    }
}

/// Keeps contents while the tree is walked.
struct Copier<'a> {
    seals: &'a Seals,
    next: usize,
    bytes: u64,
    /// Of these, those whose blocks are not shared.
    unshared: u64,
    entries: usize,
    bound: Bound,
}

impl Copier<'_> {
    fn is_over(&self) -> bool {
        self.unshared > self.bound.bytes || self.entries > self.bound.files
    }

    /// Where the content of a file is kept: where it was, if nobody touched it since.
    fn keep(&mut self, found: &Found<'_>) -> io::Result<String> {
        self.entries += 1;
        if self.is_over() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let known = self.seals.tree.get(found.path).and_then(|node| match &node.kind {
            Kind::File { object, stamp } => Some((object, stamp)),
            Kind::Directory { .. } | Kind::Link { .. } | Kind::Whiteout => None,
        });
        if let Some((object, stamp)) = known {
            let untouched = *stamp == found.stamp;
            if untouched || stamp.size == found.stamp.size && self.holds(object, found)? {
                return Ok(object.clone());
            }
        }
        let name = self.seals.name(self.next);
        self.next += 1;
        if !self.is_shared(&name, found.stamp)? {
            self.copy(&name, found)?;
        }
        Ok(name)
    }

    /// Takes the content over from another session that has sealed the same file as it is.
    fn is_shared(&self, name: &str, stamp: Stamp) -> io::Result<bool> {
        let Some(contents) = &self.seals.lineage.contents else { return Ok(false) };
        let (theirs, own) = (contents.join(stamp.to_string()), self.seals.object(name));
        match std::fs::hard_link(&theirs, &own) {
            Ok(()) if own.metadata()?.size() == stamp.size => Ok(true),
            // Cut by a crash of the machine.
            Ok(()) => std::fs::remove_file(&theirs)
                .and_then(|()| std::fs::remove_file(&own))
                .map(|()| false),
            // Not there, or it has as many names as the file system gives.
            Err(_) => Ok(false),
        }
    }

    fn holds(&self, object: &str, found: &Found<'_>) -> io::Result<bool> {
        let kept = File::open(self.seals.object(object))?;
        same_bytes(kept, open_file(found)?)
    }

    fn copy(&mut self, name: &str, found: &Found<'_>) -> io::Result<()> {
        let path = self.seals.object(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        for attempt in 0..COPIES {
            if attempt > 0 {
                std::fs::remove_file(&path)?;
            }
            let mut from = open_file(found)?;
            let facts = fstat(&from)?;
            let before = Stamp::of(&facts);
            let mut to = options.open(&path)?;
            if sys::share_blocks(&from, &to).is_ok() {
                self.bytes += holes::held(&facts);
            } else {
                let held = holes::held(&facts);
                self.unshared += held;
                if self.is_over() {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                keep_free(&to, held)?;
                self.bytes += holes::copy(&mut from, &mut to)?;
            }
            // A tree is made of contents by links: they look like the files.
            to.set_modified(from.metadata()?.modified()?)?;
            to.set_permissions(Permissions::from_mode(facts.st_mode & 0o777 | 0o400))?;
            if Stamp::of(&fstat(&from)?) == before && to.metadata()?.size() == before.size {
                break;
            }
        }
        Ok(())
    }
}

/// Refuses to take the last of a disk for what is kept: the host and the session itself need it more.
pub(super) fn keep_free(file: &File, wanted: u64) -> io::Result<()> {
    let facts = fstatvfs(file)?;
    let (size, free) =
        (facts.blocks() * facts.fragment_size(), facts.blocks_available() * facts.fragment_size());
    let floor = DISK_FLOOR_BYTES.min(size / 16);
    if free >= wanted.saturating_add(floor) {
        return Ok(());
    }
    // No figure that changes from call to call: a reason is told once.
    let text = format!(
        "No space left: {} of the disk are left free; delete sessions that you need no more",
        crate::sandbox::size(floor)
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

/// Opens a regular file of the walk for reading; one whose owner may not read it is made readable for the moment.
pub(super) fn open_file(found: &Found<'_>) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let open = || openat(found.parent, found.name, flags, Mode::empty());
    let fd = match open() {
        Err(Errno::EACCES) => {
            let facts: FileStat = fstatat(found.parent, found.name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            tree::set_mode(found.parent, found.name, facts.st_mode | 0o400)?;
            let fd = open();
            tree::set_mode(found.parent, found.name, facts.st_mode)?;
            fd?
        }
        other => other?,
    };
    let file = File::from(fd);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

pub(super) fn same_bytes(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let (n, m) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
