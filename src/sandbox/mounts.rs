//! The session's root: a small file system in memory, read-only at the end, with the plan's mounts in it.
//!
//! It is blank first ([`Blank`]): what every sandbox of the same [`Shape`] has, made without an order, and the host's root left.
//! Then come the places to mount upon, the mounts that were taken on the host's side ([`Taken`]), and what is held.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::init::{Failure, at, put};
use super::plan::{INSIDE_UID, Mount, PathKind, Plan};
use super::profile::Profile;
use super::protect::{Held, Hold};
use super::sys::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use super::{fds, plan};
use crate::environment::Access;

/// Devices that every program may use.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Descriptors that watch files, in a session.
const WATCHERS: &str = "64";
/// The stage of what the environment's packages need.
const PACKAGES: &str = "packages";
/// The stage of what holds protected paths.
const HELD: &str = "protected path";

/// What lies backstage: covers for what is hidden, and where the parts of an overlay are until it is made.
const COVER_OF_FILES: &str = ".file";
const COVER_OF_DIRECTORIES: &str = ".directory";
const BELOW: &str = ".below";
const ABOVE: &str = ".above";

/// What of a plan its root is made by before anything of the plan is in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    proc_read_only: Vec<PathBuf>,
    proc_mask: Vec<PathBuf>,
    user_namespaces: bool,
}

impl Shape {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            proc_read_only: plan.proc_read_only.clone(),
            proc_mask: plan.proc_mask.clone(),
            user_namespaces: plan.user_namespaces,
        }
    }

    /// That of the default profile, which most others share.
    pub(super) fn usual() -> &'static Self {
        static USUAL: OnceLock<Shape> = OnceLock::new();
        USUAL.get_or_init(|| {
            let profile = Profile::built_in("default").expect("a test reads it");
            Self {
                proc_read_only: plan::paths(&profile.proc_read_only),
                proc_mask: plan::paths(&profile.proc_mask),
                user_namespaces: profile.user_namespaces.unwrap_or(false),
            }
        })
    }
}

/// Detached mounts on their way to their places.
pub(super) struct Taken {
    /// Those of the plan that are no links, in its order.
    trees: Vec<OwnedFd>,
    /// What lies over the workspace.
    layer: Option<OwnedFd>,
    /// What lies over `/usr`.
    system: Option<OwnedFd>,
}

impl Taken {
    /// All of them, in the order in which [`Taken::receive`] takes them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.trees.iter().chain(&self.layer).chain(&self.system).map(OwnedFd::as_fd).collect()
    }

    /// Takes in what the other side sends for a plan. Blocks.
    pub(super) fn receive(plan: &Plan, from: impl AsFd) -> io::Result<Self> {
        let number = shown(plan).count();
        let more = usize::from(plan.layer.is_some()) + usize::from(plan.system.is_some());
        let mut trees = Vec::with_capacity(number + more);
        while trees.len() < number + more {
            match fds::receive(from.as_fd(), &mut [0])? {
                (1, batch) if !batch.is_empty() => trees.extend(batch),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let system = plan.system.as_ref().and_then(|_| trees.pop());
        let layer = plan.layer.as_ref().and_then(|_| trees.pop());
        Ok(Self { trees, layer, system })
    }
}

/// What of a plan's mounts is taken from the host.
fn shown(plan: &Plan) -> impl Iterator<Item = &Mount> {
    plan.mounts.iter().filter(|mount| !matches!(mount.kind, PathKind::Link(_)))
}

/// Takes hold of everything that the root will show of the host.
///
/// `owners` maps the owner of a writable mount to the session's user, for callers that give up root.
pub(super) fn take(
    plan: &Plan,
    owners: &mut dyn FnMut(&Mount) -> Result<Option<OwnedFd>, Failure>,
) -> Result<Taken, Failure> {
    let mut trees = Vec::new();
    for mount in shown(plan) {
        let stage = |e: io::Error| at("mount", &mount.source.display(), &e);
        let write_protect = match mount.access {
            Access::ReadOnly => READ_ONLY,
            Access::ReadWrite => 0,
        };
        let attributes = NO_SUID | NO_DEV | write_protect;
        // The session's user owns the workspace even where he cannot write: git demands it.
        let git_looks =
            mount.target == plan.workspace || Some(&mount.target) == plan.repository.as_ref();
        let fd = if mount.access == Access::ReadWrite || git_looks {
            let fd = sys::open_tree(&mount.source).map_err(stage)?;
            if let Some(idmap) = owners(mount)? {
                sys::set_mount(fd.as_fd(), 0, Some(idmap.as_fd()))
                    .map_err(|e| unmappable(mount, &e))?;
            }
            sys::set_mount(fd.as_fd(), attributes, None).map_err(stage)?;
            fd
        } else {
            sys::open_tree_with(&mount.source, attributes).map_err(stage)?
        };
        trees.push(fd);
    }
    let layer = plan.layer.as_ref().map(|layer| {
        sys::open_tree(layer).map_err(|e| at("workspace layer", &layer.display(), &e))
    });
    let system = plan
        .system
        .as_ref()
        .map(|system| sys::open_tree(system).map_err(|e| at(PACKAGES, &system.display(), &e)));
    Ok(Taken { trees, layer: layer.transpose()?, system: system.transpose()? })
}

fn unmappable(mount: &Mount, error: &io::Error) -> Failure {
    let path = mount.source.display();
    let mut failure = at("workspace owner", &path, error);
    failure.reason = format!("{path} is on a file system that cannot map owners ({error})");
    failure
}

/// The memory of a root, which lies nowhere yet, and its owner.
pub(super) fn memory_of_root(owner: u32) -> Result<OwnedFd, Failure> {
    let owner = CString::new(owner.to_string()).expect("digits are not NUL");
    let options = [
        (c"source", c"casemate"),
        (c"size", c"4m"),
        (c"nr_inodes", c"4k"),
        (c"mode", c"755"),
        (c"uid", &*owner),
        (c"gid", &*owner),
    ];
    sys::detached_memory(&options).map_err(|e| at("memory", &"the root", &e))
}

/// A root that has nothing of a plan in it yet, and is this process's.
pub(super) struct Blank {
    /// A `/proc` that lies nowhere in it and hides nothing, for the guest alone.
    whole: Option<OwnedFd>,
    /// A directory of the root that `/proc` lies over: no path leads there any more.
    backstage: OwnedFd,
}

impl Blank {
    /// Makes it, of that memory if some is given, and leaves the host's root.
    pub(super) fn make(memory: Option<OwnedFd>, shape: &Shape) -> Result<Self, Failure> {
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|e| at("mount propagation", &"/", &e.into()))?;
        let base = ["/tmp", "/mnt", "/run", "/usr"].into_iter().find(|dir| Path::new(dir).is_dir());
        let base = base.unwrap_or("/");
        let memory = memory.map_or_else(|| memory_of_root(INSIDE_UID), Ok)?;
        sys::move_mount(memory.as_fd(), Path::new(base)).map_err(|e| at("memory", &base, &e))?;
        std::env::set_current_dir(base).map_err(|e| at("root", &base, &e))?;

        let backstage = skeleton().map_err(|e| at("root", &"its own files", &e))?;
        for name in DEVICES {
            let source = Path::new("/dev").join(name);
            let stage = |e: io::Error| at("device", &source.display(), &e);
            let device = sys::open_tree_with(&source, NO_SUID).map_err(stage)?;
            make_spot(&inner(&source), &PathKind::File).map_err(stage)?;
            sys::move_mount(device.as_fd(), &inner(&source)).map_err(stage)?;
        }
        terminals()?;
        // Where there can be none, the guest sees what all see.
        let whole = sys::detached_proc().ok();
        // After the devices: one of them covers what is hidden, and then has other flags where it comes from.
        process_files(shape)?;

        nix::unistd::pivot_root(".", ".").map_err(|e| at("pivot", &"root", &e.into()))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(|e| at("pivot", &"the old root", &e.into()))?;
        std::env::set_current_dir("/").map_err(|e| at("pivot", &"/", &e))?;
        Ok(Self { whole, backstage })
    }

    /// What of the plan needs nothing of the host: files that name the session, places to mount upon, and links.
    pub(super) fn prepare(&self, plan: &Plan) -> Result<(), Failure> {
        session_files(plan).map_err(|e| at("root", &"its own files", &e))?;
        for item in items(plan).iter().filter(|item| !item.is_inside_another) {
            item.make_spot()?;
        }
        Ok(())
    }

    /// Puts in what was taken, and holds what is to be held. Returns the `/proc` for the guest.
    pub(super) fn fill(self, plan: &Plan, taken: Taken) -> Result<Option<OwnedFd>, Failure> {
        self.place(plan, &taken)?;
        drop(taken);
        self.hold(plan)?;
        let none: Option<&str> = None;
        let fixed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, "/", none, fixed | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
            .map_err(|e| at("root", &"read-only", &e.into()))?;
        Ok(self.whole)
    }

    /// Does something whose relative paths lead backstage.
    fn behind<T>(
        &self,
        stage: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let there = nix::unistd::fchdir(&self.backstage);
        there.map_err(|e| at(stage, &"a place for it", &e.into()))?;
        let done = work()?;
        std::env::set_current_dir("/").map_err(|e| at(stage, &"/", &e))?;
        Ok(done)
    }
}

impl Blank {
    /// Holds the protected paths of the workspace by mounts upon them: what is mounted upon cannot be renamed or removed.
    fn hold(&self, plan: &Plan) -> Result<(), Failure> {
        if plan.held.is_empty() {
            return Ok(());
        }
        self.behind(HELD, || plan.held.iter().try_for_each(|held| hold(plan, held)))
    }
}

/// Holds one path. The covers are in the current directory.
fn hold(plan: &Plan, held: &Held) -> Result<(), Failure> {
    let stage = |e: io::Error| at(HELD, &held.path.display(), &e);
    let Some(there) = what_is_at(&held.path, plan.layer.is_some()).map_err(stage)? else {
        return Ok(());
    };
    let (source, flags) = match &held.hold {
        Hold::Hide(_) => (
            Path::new(if there.is_dir() { COVER_OF_DIRECTORIES } else { COVER_OF_FILES }),
            READ_ONLY,
        ),
        Hold::FreezeLink(to) if there.is_symlink() => (to.as_path(), READ_ONLY),
        // A link that the session made in its layer, before the user's file was there.
        Hold::Freeze | Hold::Pin if there.is_symlink() => return Ok(()),
        Hold::Freeze | Hold::FreezeLink(_) => (held.path.as_path(), READ_ONLY),
        Hold::Pin => (held.path.as_path(), 0),
    };
    let tree = match sys::open_tree(source) {
        // What a link leads to may be hidden by the session's layer.
        Err(e) if plan.layer.is_some() && e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(stage)?,
    };
    if flags != 0 {
        sys::set_mount(tree.as_fd(), flags, None).map_err(stage)?;
    }
    sys::move_mount(tree.as_fd(), &held.path).map_err(stage)
}

/// What is at a path that is to be held. Under a session's layer it may be another kind of thing than the user has there, or
/// nothing: what it is to be held from has it hidden already.
fn what_is_at(path: &Path, layered: bool) -> io::Result<Option<std::fs::FileType>> {
    match path.symlink_metadata() {
        Err(e)
            if layered
                && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        there => Ok(Some(there?.file_type())),
    }
}

/// Permissions for nobody, the owner included.
fn nobody() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o000)
}

/// A path of the new root, seen from its own directory.
fn inner(path: &Path) -> PathBuf {
    Path::new(".").join(path.strip_prefix("/").unwrap_or(path))
}

/// What the root has of its own: directories, links, and an `/etc` that names nobody of the host. Returns what is backstage.
fn skeleton() -> io::Result<OwnedFd> {
    for dir in ["etc", "proc", "sys", "dev", "dev/pts", "dev/shm", "tmp", "var", "run", "home"] {
        std::fs::create_dir(dir)?;
    }
    symlink("/run", "var/run")?;
    symlink("/proc/self/fd", "dev/fd")?;
    symlink("pts/ptmx", "dev/ptmx")?;
    for (fd, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        symlink(format!("/proc/self/fd/{fd}"), Path::new("dev").join(name))?;
    }
    for (name, text) in [
        ("group", format!("root:x:0:\nagent:x:{INSIDE_UID}:\nnogroup:x:65534:\n").as_str()),
        ("hosts", "127.0.0.1 localhost box\n::1 localhost\n"),
        ("hostname", "box\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("shells", "/bin/sh\n/bin/bash\n"),
    ] {
        write_in_etc(name, text)?;
    }
    let backstage = Path::new("proc");
    for name in [COVER_OF_DIRECTORIES, BELOW, ABOVE] {
        std::fs::create_dir(backstage.join(name))?;
    }
    std::fs::File::create(backstage.join(COVER_OF_FILES))?;
    for name in [COVER_OF_FILES, COVER_OF_DIRECTORIES] {
        std::fs::set_permissions(backstage.join(name), nobody())?;
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(backstage, flags, Mode::empty())?)
}

/// What of `/etc` depends on the plan.
fn session_files(plan: &Plan) -> io::Result<()> {
    let home = plan.home.display();
    let users = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         agent:x:{INSIDE_UID}:{INSIDE_UID}:agent:{home}:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    write_in_etc("passwd", &users)?;
    write_in_etc("resolv.conf", plan.network.resolv_conf())
}

fn write_in_etc(name: &str, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::create(Path::new("etc").join(name))?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// A fresh `/proc`, with the host's switches read-only and its secrets empty.
fn process_files(shape: &Shape) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // What a process must not look into, it does not see: the guest above all.
    mount(Some("proc"), "proc", Some("proc"), flags, Some("hidepid=2"))
        .map_err(|e| at("proc", &"a fresh /proc", &e.into()))?;
    bound_namespaces(shape)?;
    for path in &shape.proc_read_only {
        let path = inner(path);
        let stage = |e: io::Error| at("proc", &path.display(), &e);
        let tree = match sys::open_tree_with(&path, READ_ONLY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(stage)?,
        };
        sys::move_mount(tree.as_fd(), &path).map_err(stage)?;
    }
    cover_secrets(shape)
}

/// Puts something empty over each part of `/proc` that is masked.
fn cover_secrets(shape: &Shape) -> Result<(), Failure> {
    let (nothing, empty) = (Path::new("/dev/null"), Path::new(".empty"));
    let cover = |source: &Path, target: &Path| {
        let tree = sys::open_tree_with(source, READ_ONLY | NO_SUID | NO_EXEC)?;
        sys::move_mount(tree.as_fd(), target)
    };
    // Upon itself, in the root that will be left: what is bound from there has its flags, with one call for each.
    cover(nothing, nothing).map_err(|e| at("proc", &"a cover", &e))?;
    std::fs::create_dir(empty).map_err(|e| at("proc", &"a cover", &e))?;
    let none: Option<&str> = None;
    for path in &shape.proc_mask {
        let path = inner(path);
        let Ok(facts) = path.metadata() else { continue };
        // What only root may open needs no cover: the session is never root.
        let covered = match facts.is_dir() {
            true => cover(empty, &path),
            false if facts.mode() & 0o007 != 0 => {
                mount(Some(nothing), &path, none, MsFlags::MS_BIND, none).map_err(io::Error::from)
            }
            false => Ok(()),
        };
        covered.map_err(|e| at("proc", &path.display(), &e))?;
    }
    // The mounts keep it; in a directory that was removed nothing can be made.
    std::fs::remove_dir(empty).map_err(|e| at("proc", &"a cover", &e))
}

/// What the kernel counts for this sandbox's namespaces. Through its own `/proc`: the kernel would keep names in the host's
/// for every sandbox that ever was, and look through all of them.
fn bound_namespaces(shape: &Shape) -> Result<(), Failure> {
    if !shape.user_namespaces {
        // No user namespace below this one, whatever the filter says; /proc/sys is read-only after this.
        put("proc/sys/user/max_user_namespaces", "0")
            .map_err(|e| at("user namespace", &"their number", &e))?;
    }
    // They count as the user's, who has 128 on most hosts: what a session hoards, his editor lacks.
    put("proc/sys/user/max_inotify_instances", WATCHERS)
        .map_err(|e| at("watchers", &"their number", &e))
}

/// One thing in the root.
struct Item<'a> {
    path: &'a Path,
    what: What<'a>,
    /// Whether an outer one hides what is made at its place before.
    is_inside_another: bool,
}

enum What<'a> {
    /// A directory in memory, of so many MiB.
    Memory(u32),
    Link(&'a Path),
    /// The mount with that number among those that are taken.
    Tree(usize, &'a Mount),
}

/// Directories in memory, links and trees, outer before inner.
fn items(plan: &Plan) -> Vec<Item<'_>> {
    let item = |path, what| Item { path, what, is_inside_another: false };
    let memories = plan.tmpfs.iter().map(|(path, mib)| item(path.as_path(), What::Memory(*mib)));
    let links = plan.mounts.iter().filter_map(|mount| match &mount.kind {
        PathKind::Link(to) => Some(item(&mount.target, What::Link(to))),
        PathKind::Directory | PathKind::File => None,
    });
    let trees = shown(plan).enumerate();
    let trees = trees.map(|(at, mount)| item(&mount.target, What::Tree(at, mount)));
    let mut items: Vec<_> = memories.chain(links).chain(trees).collect();
    items.sort_by_key(|item| item.path.components().count());
    for at in 0..items.len() {
        let (outer, [inner, ..]) = items.split_at_mut(at) else { unreachable!("it is in range") };
        inner.is_inside_another = outer.iter().any(|outer| {
            !matches!(outer.what, What::Link(_)) && inner.path.starts_with(outer.path)
        });
    }
    items
}

impl Item<'_> {
    /// Makes the place to mount upon, or the link.
    fn make_spot(&self) -> Result<(), Failure> {
        let spot = inner(self.path);
        let made = match &self.what {
            What::Memory(_) => make_spot(&spot, &PathKind::Directory),
            What::Link(to) => with_parent(&spot, || symlink(to, &spot)),
            What::Tree(_, mount) => make_spot(&spot, &mount.kind),
        };
        made.map_err(|e| at("mount", &self.path.display(), &e))
    }
}

impl Blank {
    /// Puts everything at its place.
    fn place(&self, plan: &Plan, taken: &Taken) -> Result<(), Failure> {
        for item in items(plan) {
            if item.is_inside_another {
                item.make_spot()?;
            }
            match item.what {
                What::Memory(mib) => own_memory(item.path, mib)?,
                What::Link(_) => {}
                What::Tree(number, mount) => self.place_tree(plan, taken, number, mount)?,
            }
        }
        Ok(())
    }

    fn place_tree(
        &self,
        plan: &Plan,
        taken: &Taken,
        number: usize,
        mount: &Mount,
    ) -> Result<(), Failure> {
        let (tree, target) = (&taken.trees[number], &mount.target);
        match (&taken.layer, &taken.system) {
            (Some(layer), _) if *target == plan.workspace => {
                let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                flags.set(MsFlags::MS_RDONLY, mount.access == Access::ReadOnly);
                let options = format!(
                    "lowerdir={BELOW},upperdir={ABOVE}/upper,workdir={ABOVE}/work,userxattr"
                );
                self.stack("workspace layer", (tree, layer), target, flags, &options)
            }
            (_, Some(system)) if target == Path::new("/usr") => {
                let only = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
                let options = format!("lowerdir={ABOVE}:{BELOW},userxattr");
                self.stack(PACKAGES, (tree, system), target, only, &options)
            }
            _ => sys::move_mount(tree.as_fd(), target)
                .map_err(|e| at("mount", &target.display(), &e)),
        }
    }

    /// Puts an overlay of two trees at the target. The kernel keeps both; their own places are free when this returns.
    fn stack(
        &self,
        stage: &'static str,
        (lower, upper): (&OwnedFd, &OwnedFd),
        target: &Path,
        flags: MsFlags,
        options: &str,
    ) -> Result<(), Failure> {
        let fail = |e: io::Error| at(stage, &target.display(), &e);
        self.behind(stage, || {
            let places = [(lower, Path::new(BELOW)), (upper, Path::new(ABOVE))];
            for (fd, place) in places {
                sys::move_mount(fd.as_fd(), place).map_err(fail)?;
            }
            mount(Some("casemate"), target, Some("overlay"), flags, Some(options))
                .map_err(|e| fail(e.into()))?;
            for (_, place) in places {
                umount2(place, MntFlags::MNT_DETACH).map_err(|e| fail(e.into()))?;
            }
            Ok(())
        })
    }
}

/// A directory in memory, of the session's own.
fn own_memory(path: &Path, mib: u32) -> Result<(), Failure> {
    let mode = if path.starts_with("/home") { "0700" } else { "1777" };
    // Each is a kilobyte of the kernel's; a tree of packages belongs where the room is.
    let entries = if mib < 1024 { "64k" } else { "512k" };
    let options = format!("size={mib}m,nr_inodes={entries},mode={mode}");
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, path.starts_with("/dev"));
    mount(Some("casemate"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| at("memory", &path.display(), &e.into()))
}

/// Makes something, and the directory that it is to be in if that is not there: most are.
fn with_parent(spot: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match (make(), spot.parent()) {
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent).and_then(|()| make())
        }
        (made, _) => made,
    }
}

/// Something to mount upon, unless an outer mount has it already.
fn make_spot(spot: &Path, kind: &PathKind) -> io::Result<()> {
    let make = || match kind {
        PathKind::Directory => std::fs::create_dir(spot),
        PathKind::File | PathKind::Link(_) => {
            let anybody_reads = Mode::from_bits_truncate(0o644);
            Ok(mknod(spot, SFlag::S_IFREG, anybody_reads, 0)?)
        }
    };
    match with_parent(spot, make) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The session's own terminals: none of the host's can be opened.
fn terminals() -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620,max=64";
    mount(Some("devpts"), "dev/pts", Some("devpts"), flags, Some(options))
        .map_err(|e| at("terminals", &"/dev/pts", &e.into()))
}

/// The owner of what is mounted, as user and group.
pub(super) fn owner(mount: &Mount) -> io::Result<(u32, u32)> {
    let facts = mount.source.metadata()?;
    Ok((facts.uid(), facts.gid()))
}
