//! What a checkpoint, a rewind and a fork cost, by the size of the tree, beside `cp -a` and `git stash create`.
//!
//! `cargo bench --bench seal [-- LARGEST_MB]`; trees up to 1 GB and 200,000 files unless a smaller bound is given. Each
//! checkpoint, of ours and of git's, follows the change of one file. The last line is the disk that 100 of them take.
//! `-- 10000` measures 10 GB as well, and needs 40 GB of disk.
//!
//! Medians in ms on two cores that other builds kept busy (load 6 to 8), ext4, as root:
//!
//! ```text
//!                       cp -a   git stash   checkpoint   rewind   first fork   another fork
//! 10 files,      1 MB       3          37            4       16           16             16
//! 1,000 files,  10 MB     583          55           16      425           72             41
//! 1,000 files, 100 MB     424          66           13       52           54             26
//! 10,000 files,  1 GB  10,834         159           73      174          423            112
//! ```

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use casemate::environment::WorkspaceMode;
use casemate::sandbox::disk::{Disk, DiskSeal, Fork, Form, Place};
use support::{AnyError, Contestant, Effort, compare};

/// Files, and the bytes of each.
const TREES: [(usize, usize); 6] = [
    (10, 100_000),
    (1_000, 10_000),
    (1_000, 100_000),
    (10_000, 100_000),
    (200_000, 100),
    (100_000, 100_000),
];

fn main() -> Result<ExitCode, AnyError> {
    let Effort { rounds, calls } = Effort::of(4, 1);
    let given = std::env::args().filter_map(|arg| arg.parse::<usize>().ok()).next();
    let bound = given.unwrap_or(if rounds > 2 { 1_000 } else { 1 }) * 1_000_000;
    for (files, bytes) in TREES {
        // A tree of many small files takes a block for each.
        if files * bytes.max(4_096) <= bound {
            measure(files, bytes, rounds, calls)?;
        }
    }
    hundred_checkpoints(if rounds > 2 { 100 } else { 3 })?;
    Ok(ExitCode::SUCCESS)
}

/// A tree, its copy in a session's disk, and a repository of the same.
struct Scene {
    dir: tempfile::TempDir,
    place: Place,
    disk: Disk,
}

impl Scene {
    fn new(files: usize, bytes: usize) -> Result<Self, AnyError> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let tree = dir.path().join("tree");
        for i in 0..files {
            let parent = tree.join(format!("d{}", i / 100));
            std::fs::create_dir_all(&parent)?;
            let content: Vec<u8> = (0..bytes).map(|at| (at * 31 + i * 7) as u8).collect();
            File::create(parent.join(format!("f{i}")))?.write_all(&content)?;
        }
        let place = Place::of(dir.path(), "parent");
        let mut disk = Disk::open(&place, WorkspaceMode::Copy, &tree)?;
        disk.copy_workspace(&tree)?;
        Ok(Self { dir, place, disk })
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }
}

fn measure(files: usize, bytes: usize, rounds: usize, calls: usize) -> Result<(), AnyError> {
    let Scene { dir, place, mut disk } = Scene::new(files, bytes)?;
    let tree = dir.path().join("tree");
    git(&tree, &["init", "-q"])?;
    git(&tree, &["add", "-A"])?;
    git(&tree, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "base"])?;
    let first = disk.seal()?.seal;
    let other = dir.path().join("other");
    let copied = place.copy();
    let (mut number, mut forks) = (0_u64, 0);
    let disk = std::cell::RefCell::new(disk);
    let mut contestants = vec![
        Contestant::new("cp -a", || {
            let started = Instant::now();
            succeed(Command::new("cp").arg("-a").arg(&copied).arg(&other))?;
            let took = started.elapsed();
            std::fs::remove_dir_all(&other)?;
            Ok(vec![took])
        }),
        Contestant::timed("git add -A; git stash create", calls, || {
            touch(&tree, bytes)?;
            git(&tree, &["add", "-A"])?;
            git(&tree, &["-c", "user.name=t", "-c", "user.email=t@t", "stash", "create"])
        }),
    ];
    contestants.push(Contestant::new("casemate: a checkpoint", || {
        touch(&copied, bytes)?;
        let started = Instant::now();
        disk.borrow_mut().seal()?;
        Ok(vec![started.elapsed()])
    }));
    contestants.push(Contestant::new("casemate: a rewind over one change", || {
        touch(&copied, bytes)?;
        number += 1;
        let started = Instant::now();
        disk.borrow_mut().rewind(number, first)?;
        Ok(vec![started.elapsed()])
    }));
    contestants.push(Contestant::new("casemate: the first fork at a moment", || {
        touch(&copied, bytes)?;
        forks += 1;
        let mut disk = disk.borrow_mut();
        let seal = disk.seal()?.seal;
        fork(&disk, &Place::of(dir.path(), &format!("fork{forks}")), seal)
    }));
    let last = std::cell::OnceCell::new();
    let mut others = 0;
    contestants.push(Contestant::new("casemate: another fork there", || {
        let mut disk = disk.borrow_mut();
        if last.get().is_none() {
            // It stays, and with it the tree that the others lie over.
            let seal = *last.get_or_init(|| disk.seal().map(|made| made.seal).unwrap_or(first));
            let place = Place::of(dir.path(), "stays");
            disk.fork(&place, &of(seal))?;
        }
        others += 1;
        fork(
            &disk,
            &Place::of(dir.path(), &format!("other{others}")),
            last.get().copied().unwrap_or(first),
        )
    }));
    let title = format!("{files} files of {bytes} bytes, {} MB", files * bytes / 1_000_000);
    compare(&title, rounds, contestants)
}

fn of(seal: DiskSeal) -> Fork {
    let (mode, form) = (WorkspaceMode::Copy, Form::Layer);
    Fork { mode, last: seal, seal, rewound: 0, form }
}

fn fork(disk: &Disk, place: &Place, seal: DiskSeal) -> Result<Vec<Duration>, AnyError> {
    let started = Instant::now();
    disk.fork(place, &of(seal))?;
    let took = started.elapsed();
    place.remove()?;
    Ok(vec![took])
}

/// Gives the first file another content of the same size.
fn touch(tree: &Path, bytes: usize) -> Result<(), AnyError> {
    let now = Instant::now();
    let content: Vec<u8> =
        format!("{now:?}").into_bytes().into_iter().cycle().take(bytes).collect();
    Ok(File::create(tree.join("d0/f0"))?.write_all(&content)?)
}

fn git(tree: &Path, words: &[&str]) -> Result<(), AnyError> {
    succeed(Command::new("git").arg("-C").arg(tree).args(words))
}

fn succeed(command: &mut Command) -> Result<(), AnyError> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The disk that checkpoints take, each after the change of one file, against as many copies of the tree.
fn hundred_checkpoints(count: usize) -> Result<(), AnyError> {
    let mut scene = Scene::new(1_000, 10_000)?;
    let seals = scene.dir.path().join("sealed/disks/parent/work");
    scene.disk.seal()?;
    let (tree, before) = (used(&scene.tree())?, used(&seals)?);
    for _ in 0..count {
        touch(&scene.place.copy(), 10_000)?;
        scene.disk.seal()?;
    }
    let after = used(&seals)?;
    let copies = tree * count as u64;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n{count} checkpoints of {} MB: the first {} kB, the others {} kB together; as copies {} kB, {:.1} times as much",
        tree / 1_000,
        before,
        after - before,
        copies,
        copies as f64 / (after - before) as f64,
    )?;
    Ok(())
}

/// Kilobytes on the disk, as `du` counts.
fn used(path: &Path) -> Result<u64, AnyError> {
    let done = Command::new("du").arg("-sk").arg(path).output()?;
    let text = String::from_utf8(done.stdout)?;
    Ok(text.split_whitespace().next().ok_or("du says nothing")?.parse()?)
}
