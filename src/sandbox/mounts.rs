//! The session's root: a small file system in memory, read-only at the end, with the plan's mounts in it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::init::{Failure, at, put};
use super::plan::{INSIDE_UID, Mount, PathKind, Plan};
use super::protect::Hold;
use super::sys::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::environment::Access;

/// Devices that every program may use.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Descriptors that watch files, in a session.
const WATCHERS: &str = "64";
/// The stage of what the environment's packages need.
const PACKAGES: &str = "packages";

/// A detached mount on its way to its place.
pub(super) struct Tree {
    fd: OwnedFd,
    target: PathBuf,
    kind: PathKind,
}

/// Everything that the root will show.
pub(super) struct Taken {
    trees: Vec<Tree>,
    /// What lies over the workspace.
    layer: Option<OwnedFd>,
    /// What lies over `/usr`.
    system: Option<OwnedFd>,
}

/// Takes hold of everything that the root will show, while the host's paths can still be reached.
///
/// `owners` maps the owner of a writable mount to the session's user, for callers that give up root.
pub(super) fn take(
    plan: &Plan,
    owners: &mut dyn FnMut(&Mount) -> Result<Option<OwnedFd>, Failure>,
) -> Result<Taken, Failure> {
    let mut trees = Vec::new();
    for mount in plan.mounts.iter().filter(|mount| !matches!(mount.kind, PathKind::Link(_))) {
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
        trees.push(Tree { fd, target: mount.target.clone(), kind: file_or_directory(mount) });
    }
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        let fd = sys::open_tree_with(&source, NO_SUID)
            .map_err(|e| at("device", &source.display(), &e))?;
        trees.push(Tree { fd, target: source, kind: PathKind::File });
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

fn file_or_directory(mount: &Mount) -> PathKind {
    if mount.source.is_dir() { PathKind::Directory } else { PathKind::File }
}

fn unmappable(mount: &Mount, error: &io::Error) -> Failure {
    let path = mount.source.display();
    let mut failure = at("workspace owner", &path, error);
    failure.reason = format!(
        "{path} is on a file system that cannot map owners ({error}), and root is never the user inside; run casemate \
         as the owner of the directory, or give it to an ordinary user with chown"
    );
    failure
}

/// Builds the new root around the trees and makes it this process's root. Returns a `/proc` that lies nowhere in it and hides
/// nothing, for the guest alone.
pub(super) fn enter(plan: &Plan, taken: &Taken) -> Result<Option<OwnedFd>, Failure> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| at("mount propagation", &"/", &e.into()))?;
    let base = ["/tmp", "/mnt", "/run", "/usr"].into_iter().find(|dir| Path::new(dir).is_dir());
    let base = base.unwrap_or("/");
    memory(
        Path::new(base),
        "size=4m,nr_inodes=4k,mode=755",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
    )?;
    std::env::set_current_dir(base).map_err(|e| at("root", &base, &e))?;

    skeleton(plan).map_err(|e| at("root", &"its own files", &e))?;
    // Where there can be none, the guest sees what all see.
    let whole = sys::detached_proc().ok();
    process_files(plan)?;
    place(plan, taken)?;
    terminals()?;

    nix::unistd::pivot_root(".", ".").map_err(|e| at("pivot", &"root", &e.into()))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| at("pivot", &"the old root", &e.into()))?;
    std::env::set_current_dir("/").map_err(|e| at("pivot", &"/", &e))?;
    hold(plan)?;
    let fixed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, "/", none, fixed | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
        .map_err(|e| at("root", &"read-only", &e.into()))?;
    Ok(whole)
}

/// Holds the protected paths of the workspace by mounts upon them: what is mounted upon cannot be renamed or removed.
fn hold(plan: &Plan) -> Result<(), Failure> {
    const STAGE: &str = "protected path";
    let (file, directory) = (Path::new("/.hidden"), Path::new("/.hidden.d"));
    if !plan.held.is_empty() {
        let made = std::fs::File::create(file).and_then(|made| made.set_permissions(nobody()));
        made.map_err(|e| at(STAGE, &"a cover", &e))?;
        std::fs::create_dir(directory)
            .and_then(|()| std::fs::set_permissions(directory, nobody()))
            .map_err(|e| at(STAGE, &"a cover", &e))?;
    }
    for held in &plan.held {
        let stage = |e: io::Error| at(STAGE, &held.path.display(), &e);
        let Some(there) = what_is_at(&held.path, plan.layer.is_some()).map_err(stage)? else {
            continue;
        };
        let (source, flags) = match &held.hold {
            Hold::Hide(_) => (if there.is_dir() { directory } else { file }, READ_ONLY),
            Hold::FreezeLink(to) if there.is_symlink() => (to.as_path(), READ_ONLY),
            // A link that the session made in its layer, before the user's file was there.
            Hold::Freeze | Hold::Pin if there.is_symlink() => continue,
            Hold::Freeze | Hold::FreezeLink(_) => (held.path.as_path(), READ_ONLY),
            Hold::Pin => (held.path.as_path(), 0),
        };
        let tree = match sys::open_tree(source) {
            // What a link leads to may be hidden by the session's layer.
            Err(e) if plan.layer.is_some() && e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(stage)?,
        };
        if flags != 0 {
            sys::set_mount(tree.as_fd(), flags, None).map_err(stage)?;
        }
        sys::move_mount(tree.as_fd(), &held.path).map_err(stage)?;
    }
    if !plan.held.is_empty() {
        // The mounts keep what they cover with; nobody needs to see where it came from.
        std::fs::remove_file(file)
            .and_then(|()| std::fs::remove_dir(directory))
            .map_err(|e| at(STAGE, &"a cover", &e))?;
    }
    Ok(())
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

fn memory(at_path: &Path, options: &str, flags: MsFlags) -> Result<(), Failure> {
    mount(Some("casemate"), at_path, Some("tmpfs"), flags, Some(options))
        .map_err(|e| at("memory", &at_path.display(), &e.into()))
}

/// What the root has of its own: directories, links, and an `/etc` that names nobody of the host.
fn skeleton(plan: &Plan) -> io::Result<()> {
    for dir in ["etc", "proc", "sys", "dev", "dev/pts", "dev/shm", "tmp", "var", "run", "home"] {
        std::fs::create_dir(dir)?;
    }
    symlink("/run", "var/run")?;
    symlink("/proc/self/fd", "dev/fd")?;
    symlink("pts/ptmx", "dev/ptmx")?;
    for (fd, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        symlink(format!("/proc/self/fd/{fd}"), Path::new("dev").join(name))?;
    }
    let home = plan.home.display();
    let users = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         agent:x:{INSIDE_UID}:{INSIDE_UID}:agent:{home}:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let groups = format!("root:x:0:\nagent:x:{INSIDE_UID}:\nnogroup:x:65534:\n");
    let files = [
        ("passwd", users.as_str()),
        ("group", &groups),
        ("hosts", "127.0.0.1 localhost box\n::1 localhost\n"),
        ("hostname", "box\n"),
        ("resolv.conf", plan.network.resolv_conf()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("shells", "/bin/sh\n/bin/bash\n"),
    ];
    for (name, text) in files {
        let mut file = std::fs::File::create(Path::new("etc").join(name))?;
        io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(())
}

/// A fresh `/proc`, with the host's switches read-only and its secrets empty.
fn process_files(plan: &Plan) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // What a process must not look into, it does not see: the guest above all.
    mount(Some("proc"), "proc", Some("proc"), flags, Some("hidepid=2"))
        .map_err(|e| at("proc", &"a fresh /proc", &e.into()))?;
    bound_namespaces(plan)?;
    for path in &plan.proc_read_only {
        let path = inner(path);
        let stage = |e: io::Error| at("proc", &path.display(), &e);
        let tree = match sys::open_tree_with(&path, READ_ONLY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(stage)?,
        };
        sys::move_mount(tree.as_fd(), &path).map_err(stage)?;
    }
    cover_secrets(plan)
}

/// Puts something empty over each part of `/proc` that is masked.
fn cover_secrets(plan: &Plan) -> Result<(), Failure> {
    let (nothing, empty) = (Path::new("/dev/null"), Path::new(".empty"));
    let cover = |source: &Path, target: &Path| {
        let tree = sys::open_tree_with(source, READ_ONLY | NO_SUID | NO_EXEC)?;
        sys::move_mount(tree.as_fd(), target)
    };
    // Upon itself, in the root that will be left: what is bound from there has its flags, with one call for each.
    cover(nothing, nothing).map_err(|e| at("proc", &"a cover", &e))?;
    std::fs::create_dir(empty).map_err(|e| at("proc", &"a cover", &e))?;
    let none: Option<&str> = None;
    for path in &plan.proc_mask {
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
fn bound_namespaces(plan: &Plan) -> Result<(), Failure> {
    if !plan.user_namespaces {
        // No user namespace below this one, whatever the filter says; /proc/sys is read-only after this.
        put("proc/sys/user/max_user_namespaces", "0")
            .map_err(|e| at("user namespace", &"their number", &e))?;
    }
    // They count as the user's, who has 128 on most hosts: what a session hoards, his editor lacks.
    put("proc/sys/user/max_inotify_instances", WATCHERS)
        .map_err(|e| at("watchers", &"their number", &e))
}

/// Directories in memory, links and trees, outer before inner.
fn place(plan: &Plan, taken: &Taken) -> Result<(), Failure> {
    enum Item<'a> {
        Memory(&'a Path, u32),
        Link(&'a Path),
        Tree(&'a Tree),
        Layered(&'a Tree, &'a OwnedFd),
        System(&'a Tree, &'a OwnedFd),
    }
    let memories = plan.tmpfs.iter().map(|(path, mib)| (path.as_path(), Item::Memory(path, *mib)));
    let links = plan.mounts.iter().filter_map(|mount| match &mount.kind {
        PathKind::Link(to) => Some((mount.target.as_path(), Item::Link(to))),
        PathKind::Directory | PathKind::File => None,
    });
    let trees = taken.trees.iter().map(|tree| {
        let item = match (&taken.layer, &taken.system) {
            (Some(layer), _) if tree.target == plan.workspace => Item::Layered(tree, layer),
            (_, Some(system)) if tree.target == Path::new("/usr") => Item::System(tree, system),
            _ => Item::Tree(tree),
        };
        (tree.target.as_path(), item)
    });
    let mut items: Vec<_> = memories.chain(links).chain(trees).collect();
    items.sort_by_key(|(path, _)| path.components().count());
    for (path, item) in items {
        let spot = inner(path);
        let stage = |e: io::Error| at("mount", &path.display(), &e);
        match item {
            Item::Memory(path, mib) => {
                make_spot(&spot, &PathKind::Directory).map_err(stage)?;
                let mode = if path.starts_with("/home") { "0700" } else { "1777" };
                // Each is a kilobyte of the kernel's; a tree of packages belongs where the room is.
                let entries = if mib < 1024 { "64k" } else { "512k" };
                let options = format!("size={mib}m,nr_inodes={entries},mode={mode}");
                let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                flags.set(MsFlags::MS_NOEXEC, path.starts_with("/dev"));
                memory(&spot, &options, flags)?;
            }
            Item::Link(to) => {
                with_parent(&spot, || symlink(to, &spot)).map_err(stage)?;
            }
            Item::Tree(tree) => {
                make_spot(&spot, &tree.kind).map_err(stage)?;
                sys::move_mount(tree.fd.as_fd(), &spot).map_err(stage)?;
            }
            Item::Layered(tree, layer) => {
                make_spot(&spot, &tree.kind).map_err(stage)?;
                overlay(plan, tree, layer, &spot)?;
            }
            Item::System(tree, system) => {
                make_spot(&spot, &tree.kind).map_err(stage)?;
                let only = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
                let options = "lowerdir=.above:.below,userxattr";
                stack(PACKAGES, tree, system, &spot, only, options)?;
            }
        }
    }
    Ok(())
}

/// The session's layer over the workspace.
fn overlay(plan: &Plan, lower: &Tree, layer: &OwnedFd, spot: &Path) -> Result<(), Failure> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let shown = plan.mounts.iter().find(|mount| mount.target == plan.workspace);
    flags.set(MsFlags::MS_RDONLY, shown.is_some_and(|mount| mount.access == Access::ReadOnly));
    let options = "lowerdir=.below,upperdir=.above/upper,workdir=.above/work,userxattr";
    stack("workspace layer", lower, layer, spot, flags, options)
}

/// Puts an overlay of `.above` and `.below` at the spot. The kernel keeps both; their own places are gone when this
/// returns.
fn stack(
    stage: &'static str,
    lower: &Tree,
    upper: &OwnedFd,
    spot: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), Failure> {
    let fail = |e: io::Error| at(stage, &lower.target.display(), &e);
    let places = [(&lower.fd, Path::new(".below")), (upper, Path::new(".above"))];
    for (fd, place) in places {
        std::fs::create_dir(place).map_err(fail)?;
        sys::move_mount(fd.as_fd(), place).map_err(fail)?;
    }
    mount(Some("casemate"), spot, Some("overlay"), flags, Some(options))
        .map_err(|e| fail(e.into()))?;
    for (_, place) in places {
        umount2(place, MntFlags::MNT_DETACH).map_err(|e| fail(e.into()))?;
        std::fs::remove_dir(place).map_err(fail)?;
    }
    Ok(())
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
