//! Trees that are changed at random, sealed and restored: the tree that comes back is the one that was sealed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;

use super::*;

/// Everything that a program could see of a tree: kind, mode, time and content by path.
fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let facts = path.symlink_metadata().unwrap();
            let what = if facts.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else if facts.is_symlink() {
                format!("link to {}", path.read_link().unwrap().display())
            } else if facts.is_file() {
                format!("file {:?}", fs::read(&path).unwrap())
            } else {
                continue; // Pipes are no part of a tree.
            };
            let mode = if facts.is_symlink() { 0 } else { facts.mode() & 0o7777 };
            let times = (facts.mtime(), facts.mtime_nsec());
            seen.insert(
                path.strip_prefix(root).unwrap().to_owned(),
                format!("{what} {mode:o} {times:?}"),
            );
        }
    }
    seen
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        Self { dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn open(&self) -> SealedTree {
        SealedTree::open(&self.tree(), self.lineage()).unwrap()
    }

    fn lineage(&self) -> Lineage {
        Lineage { own: self.dir.path().join("seals"), ..Lineage::default() }
    }

    fn write(&self, name: &str, content: &[u8]) {
        put(&self.tree().join(name), content);
    }
}

fn put(path: &Path, content: &[u8]) {
    File::create(path).and_then(|mut file| file.write_all(content)).unwrap();
}

/// Something that a session does to its tree. Names are few, so that they meet.
#[derive(Debug, Clone)]
enum Act {
    Write(usize, Vec<u8>),
    Append(usize, u8),
    MakeDirectory(usize),
    Rename(usize, usize),
    Remove(usize),
    Mode(usize, u32),
    Link(usize, usize),
    HardLink(usize, usize),
    Pipe(usize),
    Clear,
}

const NAMES: [&[u8]; 9] =
    [b"a", b"b", b"dir", b"dir/a", b"dir/b", b"dir/deep", b"dir/deep/a", b"dir.x", b"\xff\\x"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let name = 0..NAMES.len();
    let act = prop_oneof![
        4 => (name.clone(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(n, c)| Act::Write(n, c)),
        2 => (name.clone(), any::<u8>()).prop_map(|(n, b)| Act::Append(n, b)),
        3 => name.clone().prop_map(Act::MakeDirectory),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Act::Rename(a, b)),
        2 => name.clone().prop_map(Act::Remove),
        1 => (name.clone(), prop_oneof![Just(0o700_u32), Just(0o644), Just(0o755), Just(0o400), Just(0o1777)])
            .prop_map(|(n, m)| Act::Mode(n, m)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Act::Link(a, b)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Act::HardLink(a, b)),
        1 => name.prop_map(Act::Pipe),
        1 => Just(Act::Clear),
    ];
    prop::collection::vec(act, 0..8)
}

fn at(root: &Path, name: usize) -> PathBuf {
    root.join(OsStr::from_bytes(NAMES[name]))
}

/// Does it; what cannot be done is not.
fn perform(root: &Path, act: &Act) {
    // A stranger's links are not followed by the test either.
    let plain = |path: &Path| path.symlink_metadata().is_ok_and(|facts| facts.is_file());
    drop(match act {
        Act::Write(name, content) => {
            let path = at(root, *name);
            if path.symlink_metadata().is_err() || plain(&path) {
                File::create(path).and_then(|mut file| file.write_all(content))
            } else {
                Ok(())
            }
        }
        Act::Append(name, byte) if plain(&at(root, *name)) => OpenOptions::new()
            .append(true)
            .open(at(root, *name))
            .and_then(|mut f| f.write_all(&[*byte])),
        Act::Append(..) => Ok(()),
        Act::MakeDirectory(name) => fs::create_dir(at(root, *name)),
        Act::Rename(from, to) => fs::rename(at(root, *from), at(root, *to)),
        Act::Remove(name) => {
            let path = at(root, *name);
            if path.symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
        }
        Act::Mode(name, mode) if !at(root, *name).is_symlink() => {
            // The test itself must be able to look.
            let path = at(root, *name);
            let mode = if path.is_dir() { mode | 0o500 } else { *mode };
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Act::Mode(..) => Ok(()),
        Act::Link(from, to) => symlink(OsStr::from_bytes(NAMES[*to]), at(root, *from)),
        Act::HardLink(from, to) => fs::hard_link(at(root, *from), at(root, *to)),
        Act::Pipe(name) => {
            nix::unistd::mkfifo(&at(root, *name), nix::sys::stat::Mode::S_IRWXU).map_err(Into::into)
        }
        Act::Clear => fs::read_dir(root).map(|entries| {
            for entry in entries.flatten() {
                drop(fs::remove_dir_all(entry.path()));
                drop(fs::remove_file(entry.path()));
            }
        }),
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Seal after each burst of acts, then go back to any of them, in any order, also after the seals were read anew, and
    /// also if an earlier attempt was cut after any number of steps.
    #[test]
    fn what_was_sealed_comes_back(
        bursts in prop::collection::vec(acts(), 1..5),
        returns in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0_usize..12), 1..4),
    ) {
        let place = Place::new();
        let mut tree = place.open();
        let mut moments = Vec::new();
        for burst in &bursts {
            burst.iter().for_each(|act| perform(&place.tree(), act));
            moments.push((tree.seal().unwrap().number, look(&place.tree())));
        }
        for (which, reopen, cut) in &returns {
            let (number, expected) = which.get(&moments);
            if *reopen {
                tree = place.open();
            }
            cut_restore(&mut tree, *number, *cut);
            let sealed = tree.restore(*number).unwrap();
            prop_assert_eq!(&look(&place.tree()), expected);
            prop_assert_eq!(tree.seal().unwrap().number, sealed.number, "nothing has changed since");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The layer between two trees makes the one show the other; a layer of nothing shows what lies below.
    #[test]
    fn a_layer_makes_one_tree_the_other(first in acts(), second in acts()) {
        let place = Place::new();
        let mut tree = place.open();
        first.iter().for_each(|act| perform(&place.tree(), act));
        tree.seal().unwrap();
        let base = tree.seals.current().clone();
        second.iter().for_each(|act| perform(&place.tree(), act));
        tree.seal().unwrap();
        let target = tree.seals.current().clone();
        let shown = layer::shown(&base, &layer::between(&base, &target));
        prop_assert!(seal::same(&shown, &target), "{shown:#?}\nis not {target:#?}");
        prop_assert_eq!(layer::between(&base, &base), Tree::new());
        prop_assert_eq!(layer::shown(&base, &Tree::new()), base);
    }

    /// What is made of links to sealed contents is the tree that was sealed.
    #[test]
    fn a_sealed_tree_can_be_made_of_links(bursts in prop::collection::vec(acts(), 1..4)) {
        let place = Place::new();
        let mut tree = place.open();
        for burst in &bursts {
            burst.iter().for_each(|act| perform(&place.tree(), act));
            tree.seal().unwrap();
        }
        let made = tempfile::tempdir().unwrap();
        farm::build(&tree.seals, tree.seals.current(), made.path()).unwrap();
        let plain = |root: &Path| -> BTreeMap<_, _> {
            // Links keep no time: nobody reads it.
            let timeless = |(path, what): (PathBuf, String)| match what.split_once(" 0 (") {
                Some((link, _)) if what.starts_with("link") => (path, link.to_owned()),
                _ => (path, what),
            };
            look(root).into_iter().map(timeless).collect()
        };
        prop_assert_eq!(plain(made.path()), plain(&place.tree()));
    }
}

fn cut_restore(tree: &mut SealedTree, number: SealNumber, mut steps: usize) {
    let root = restore::open_root(&tree.root).unwrap();
    let target = tree.seals.tree(number).unwrap();
    let outcome = restore::restore(&mut tree.seals, &root, &tree.root, target, &mut || {
        steps = steps.checked_sub(1).ok_or_else(|| io::Error::other("cut"))?;
        Ok(())
    });
    assert!(outcome.is_ok() || steps == 0, "{outcome:?}");
}

#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let place = Place::new();
    let mut tree = place.open();
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let mut sealed = Vec::new();
    for round in 0..40_u8 {
        place.write("same-size", &[round]);
        File::options()
            .write(true)
            .open(place.tree().join("same-size"))
            .unwrap()
            .set_times(time)
            .unwrap();
        sealed.push(tree.seal().unwrap().number);
    }
    for (round, number) in sealed.iter().enumerate() {
        tree.restore(*number).unwrap();
        assert_eq!(
            fs::read(place.tree().join("same-size")).unwrap(),
            [u8::try_from(round).unwrap()]
        );
    }
}

#[test]
fn what_did_not_change_is_neither_copied_nor_sealed_again() {
    let place = Place::new();
    let mut tree = place.open();
    place.write("a", b"one");
    place.write("b", &[7; 100_000]);
    let first = tree.seal().unwrap();
    assert_eq!(first, Sealed { number: 1, files: 2, changed: 2, bytes: 100_003 });
    assert_eq!(tree.seal().unwrap(), Sealed { number: 1, files: 2, changed: 0, bytes: 0 });
    place.write("a", b"two");
    assert_eq!(tree.seal().unwrap(), Sealed { number: 2, files: 2, changed: 1, bytes: 3 });
    assert_eq!(place.open().seal().unwrap().number, 2, "read anew, it is the same tree");
}

#[test]
fn a_content_that_is_gone_is_named_before_anything_is_touched() {
    let place = Place::new();
    let mut tree = place.open();
    place.write("a", b"one");
    let first = tree.seal().unwrap().number;
    place.write("a", b"two");
    tree.seal().unwrap();
    fs::remove_file(place.dir.path().join("seals/objects/000001-0")).unwrap();
    let error = tree.restore(first).unwrap_err().to_string();
    assert_eq!(error, "restore `a`: its content 000001-0 is not whole");
    assert_eq!(fs::read(place.tree().join("a")).unwrap(), b"two");
    assert_eq!(tree.restore(9).unwrap_err().to_string(), "find seal 9: the last one is 2");
}

#[test]
fn a_copy_is_the_same_tree_and_the_other_stays_apart() {
    let (place, other) = (Place::new(), Place::new());
    other.write("a", b"one");
    fs::create_dir(other.tree().join("d")).unwrap();
    symlink("../a", other.tree().join("d/link")).unwrap();
    let before = look(&other.tree());
    let mut tree = place.open();
    assert_eq!(tree.adopt(&other.tree()).unwrap().number, 1);
    assert_eq!(look(&place.tree()), before);
    place.write("a", b"two");
    tree.seal().unwrap();
    tree.restore(1).unwrap();
    assert_eq!((look(&place.tree()), look(&other.tree())), (before.clone(), before));
}

#[test]
fn a_branch_begins_as_the_other_was_and_neither_sees_the_others_later_writes() {
    let (place, other) = (Place::new(), Place::new());
    let mut trunk = other.open();
    other.write("a", b"one");
    let first = trunk.seal().unwrap().number;
    let before = look(&other.tree());
    other.write("a", b"two");
    other.write("b", b"two");
    trunk.seal().unwrap();
    let before_it = vec![(first, other.lineage().own)];
    let lineage = || Lineage { before: before_it.clone(), ..place.lineage() };
    let mut branch = SealedTree::open(&place.tree(), lineage()).unwrap();
    branch.restore(first).unwrap();
    assert_eq!(look(&place.tree()), before);
    place.write("a", b"three");
    branch.seal().unwrap();
    assert_eq!(fs::read(other.tree().join("a")).unwrap(), b"two");
    branch.restore(first).unwrap();
    trunk.restore(first).unwrap();
    assert_eq!((look(&place.tree()), look(&other.tree())), (before.clone(), before));
}

#[test]
fn a_tree_beyond_its_bound_is_not_sealed() {
    let place = Place::new();
    place.write("a", &[7; 100]);
    place.write("b", b"x");
    let check = |bytes, files, fits: bool| {
        let mut tree = SealedTree { bound: Bound { bytes, files }, ..place.open() };
        let sealed = tree.seal();
        // Where blocks are shared, bytes cost nothing.
        assert!(sealed.is_ok() == fits || files == 2 && sealed.is_ok(), "{bytes} {files}");
        let words = sealed.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(words.is_empty() || words.contains("--workspace-mode overlay"), "{words}");
        let objects = fs::read_dir(place.dir.path().join("seals/objects")).unwrap().count();
        assert_eq!(objects, if words.is_empty() { 2 } else { 0 }, "what is of no use is removed");
        fs::remove_dir_all(place.dir.path().join("seals")).unwrap();
    };
    check(101, 2, true);
    check(100, 2, false);
    check(101, 1, false);
}

#[test]
fn the_whole_tree_can_be_gone() {
    let place = Place::new();
    let mut tree = place.open();
    place.write("a", b"one");
    fs::create_dir(place.tree().join("d")).unwrap();
    place.write("d/x", b"x");
    let (sealed, before) = (tree.seal().unwrap().number, look(&place.tree()));
    fs::remove_dir_all(place.tree()).unwrap();
    tree.restore(sealed).unwrap();
    assert_eq!(look(&place.tree()), before);
}

#[test]
fn what_its_owner_may_not_read_is_sealed_all_the_same() {
    let place = Place::new();
    let mut tree = place.open();
    let (dir, file) = (place.tree().join("d"), place.tree().join("d/x"));
    fs::create_dir(&dir).unwrap();
    place.write("d/x", b"x");
    let close =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    close(&file, 0o000);
    close(&dir, 0o000);
    let sealed = tree.seal().unwrap().number;
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(&dir), 0, "it is closed again");
    close(&dir, 0o700);
    assert_eq!(mode(&file), 0, "it is closed again");
    fs::remove_dir_all(&dir).unwrap();
    tree.seal().unwrap();
    tree.restore(sealed).unwrap();
    assert_eq!(mode(&dir), 0);
    close(&dir, 0o700);
    assert_eq!(mode(&file), 0);
    close(&file, 0o600);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_pipe_in_the_place_of_a_directory_gives_way() {
    let place = Place::new();
    let mut tree = place.open();
    fs::create_dir(place.tree().join("d")).unwrap();
    place.write("d/x", b"x");
    let (sealed, before) = (tree.seal().unwrap().number, look(&place.tree()));
    fs::remove_dir_all(place.tree().join("d")).unwrap();
    nix::unistd::mkfifo(&place.tree().join("d"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    tree.seal().unwrap();
    tree.restore(sealed).unwrap();
    assert_eq!(look(&place.tree()), before);
}

#[test]
fn a_link_that_leaves_the_tree_is_never_followed() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    put(&outside.join("secret"), b"secret");
    let mut tree = place.open();
    fs::create_dir(place.tree().join("d")).unwrap();
    place.write("d/x", b"x");
    let sealed = tree.seal().unwrap().number;
    fs::remove_dir_all(place.tree().join("d")).unwrap();
    symlink(&outside, place.tree().join("d")).unwrap();
    tree.seal().unwrap();
    tree.restore(sealed).unwrap();
    assert_eq!(fs::read(place.tree().join("d/x")).unwrap(), b"x");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was put outside");
    let objects = fs::read_dir(place.dir.path().join("seals/objects")).unwrap();
    assert!(objects.flatten().all(|entry| fs::read(entry.path()).unwrap() != b"secret"));
}

#[test]
fn an_upper_layer_keeps_its_whiteouts_and_opaque_directories() {
    let place = Place::new();
    let mut tree = place.open();
    let gone = place.tree().join("gone");
    let made = nix::sys::stat::mknod(
        &gone,
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::empty(),
        0,
    );
    made.unwrap();
    fs::create_dir(place.tree().join("own")).unwrap();
    let own = || restore::open_root(&place.tree().join("own")).unwrap();
    crate::sandbox::sys::set_opaque(std::os::fd::AsFd::as_fd(&own()), true).unwrap();
    let sealed = tree.seal().unwrap().number;
    fs::remove_file(&gone).unwrap();
    fs::remove_dir(place.tree().join("own")).unwrap();
    tree.seal().unwrap();
    tree.restore(sealed).unwrap();
    assert_eq!(gone.symlink_metadata().unwrap().rdev(), 0);
    assert!(crate::sandbox::sys::is_opaque(std::os::fd::AsFd::as_fd(&own())).unwrap());
}
