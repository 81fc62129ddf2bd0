//! The system calls that no library wraps safely: the only unsafe code of the program.
#![expect(unsafe_code, reason = "raw system calls; every block says why it holds")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

/// Attributes of a mount that can be set.
pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// No set-user-id programs.
pub(super) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// No programs.
pub(super) const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// No devices.
pub(super) const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

/// Forks. Called by init only, which has one thread.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: init is single-threaded, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Starts a process in a user namespace of its own that does nothing, and ends when the other end of the socket `held` is
/// closed. Of this process's descriptors it keeps that alone: whoever waits for the end of another would wait for ever. It
/// shares this process's memory: to copy that would take longer than the namespace. Called by init only, which has one
/// thread.
pub(super) fn hold_user_namespace(held: BorrowedFd<'_>) -> io::Result<Pid> {
    struct Room {
        held: RawFd,
        /// For three system calls.
        stack: [u128; 1024],
    }
    extern "C" fn hold(held: *mut libc::c_void) -> libc::c_int {
        let mut byte = 0_u8;
        // SAFETY: `held` lies in the room of this process, which is never freed; the descriptors are its own copies, and
        // `byte` is on its own stack. What it shares with its parent, it does not touch.
        unsafe {
            let held = *held.cast::<RawFd>();
            if held > 0 {
                libc::syscall(libc::SYS_close_range, 0, held - 1, 0);
            }
            libc::syscall(libc::SYS_close_range, held + 1, RawFd::MAX, 0);
            libc::read(held, (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    // Never freed: it is in use until the process has ended.
    let room = Box::leak(Box::new(Room { held: held.as_raw_fd(), stack: [0; 1024] }));
    let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: the stack is aligned, grows down from its end, belongs to that process alone and is never freed; `hold`
    // reads nothing but `held`.
    let pid = check(unsafe {
        let stack = room.stack.as_mut_ptr_range().end.cast();
        libc::clone(hold, stack, flags, (&raw mut room.held).cast()).into()
    })?;
    Ok(Pid::from_raw(libc::pid_t::try_from(pid).expect("it is one")))
}

/// One file, mounted by itself, detached and without write access. A process in namespaces of its own makes it, where anybody
/// may mount, and ends; until then this thread waits.
pub(super) fn read_only_mount(file: &Path) -> io::Result<OwnedFd> {
    struct Room<'a> {
        file: &'a Path,
        mount: Option<io::Result<OwnedFd>>,
        stack: [u128; 4096],
    }
    extern "C" fn make(room: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `room` is that of `read_only_mount`, whose thread waits and touches nothing meanwhile: this process is that
        // thread, elsewhere. It has its memory and errno; the table of descriptors is shared, so what is opened here is open there.
        unsafe {
            let room = room.cast::<Room<'_>>();
            (*room).mount = Some(open_tree_with((*room).file, READ_ONLY | NO_SUID | NO_DEV));
            libc::_exit(0)
        }
    }
    let mut room = Box::new(Room { file, mount: None, stack: [0; 4096] });
    let shared = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
    let flags = shared | libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::SIGCHLD;
    let of_child: *mut Room<'_> = &raw mut *room;
    // SAFETY: the stack is aligned, grows down from its end and is that process's alone, which is gone when this returns
    // (CLONE_VFORK); nothing else is reached through `room` until then.
    let pid = check(unsafe {
        let stack = (&raw mut (*of_child).stack).add(1).cast();
        libc::clone(make, stack, flags, of_child.cast()).into()
    })?;
    let pid = Pid::from_raw(libc::pid_t::try_from(pid).expect("it is one"));
    nix::sys::wait::waitpid(pid, None)?;
    room.mount.take().unwrap_or_else(|| Err(io::ErrorKind::Other.into()))
}

/// A descriptor for a process, which goes on naming it when its number names another. Called for a child that was not
/// waited for yet.
pub(super) fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).expect("descriptors are small")) })
}

/// Kills the process that a descriptor names.
pub(super) fn kill_process(process: BorrowedFd<'_>) -> io::Result<()> {
    let no_details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without details the call takes integers only; the descriptor is open.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            no_details,
            0,
        )
    })?;
    Ok(())
}

/// Gives the memory back that this process has and does not use. Takes milliseconds; the allocator keeps it otherwise.
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ends a forked helper at once, without the destructors of what it shares with its parent.
pub(super) fn leave_with(code: u8) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Sets what a signal does.
pub(super) fn set_handler(signal: Signal, handler: SigHandler) -> io::Result<()> {
    // SAFETY: callers pass the default action or none at all, never a function.
    unsafe { nix::sys::signal::signal(signal, handler) }?;
    Ok(())
}

/// A detached copy of the mounts at `path`.
pub(super) fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let at_recursive = 0x8000;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | at_recursive;
    // SAFETY: `path` is a C string that outlives the call; the call reads nothing else.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).expect("descriptors are small")) })
}

/// The same with attributes, in one call where the kernel has one (6.15).
pub(super) fn open_tree_with(path: &Path, set: u64) -> io::Result<OwnedFd> {
    const OPEN_TREE_ATTR: libc::c_long = 467;
    let c_path = c_path(path)?;
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | u32::try_from(libc::AT_RECURSIVE).expect("flags are positive");
    // SAFETY: `c_path` is a C string and `attr` is initialised; both live through the call, which is given the true size.
    let fd = check(unsafe {
        libc::syscall(
            OPEN_TREE_ATTR,
            libc::AT_FDCWD,
            c_path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    });
    let Ok(fd) = fd else {
        // An older kernel, a filter that knows none so new, or what two calls will say again.
        let tree = open_tree(path)?;
        set_mount(tree.as_fd(), set, None)?;
        return Ok(tree);
    };
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).expect("descriptors are small")) })
}

/// A `/proc` of this process namespace that lies nowhere, read-only, and shows every process (5.8; before, it hides what
/// the other one hides).
pub(super) fn detached_proc() -> io::Result<OwnedFd> {
    detached(c"proc", &[], READ_ONLY | NO_SUID | NO_EXEC | NO_DEV)
}

/// A file system in memory that lies nowhere yet. It belongs to the user namespace that this process is in.
pub(super) fn detached_memory(options: &[(&CStr, &CStr)]) -> io::Result<OwnedFd> {
    detached(c"tmpfs", options, NO_SUID | NO_DEV)
}

/// A new file system that lies nowhere yet.
fn detached(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    const CLOSE_ON_EXEC: libc::c_uint = 1;
    let owned = |fd: libc::c_long| {
        let fd = RawFd::try_from(fd).expect("descriptors are small");
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    // SAFETY: takes a C string and flags.
    let made = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOSE_ON_EXEC) })?;
    let made = owned(made);
    let nothing = std::ptr::null::<libc::c_char>();
    let set = options.iter().map(|(key, value)| (SET_STRING, key.as_ptr(), value.as_ptr()));
    for (command, key, value) in set.chain([(CREATE, nothing, nothing)]) {
        // SAFETY: key and value are C strings that outlive the call, and to create takes none; the descriptor is open.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, made.as_raw_fd(), command, key, value, 0)
        })?;
    }
    // SAFETY: takes an open descriptor and flags.
    let mounted = check(unsafe {
        libc::syscall(libc::SYS_fsmount, made.as_raw_fd(), CLOSE_ON_EXEC, attributes)
    })?;
    Ok(owned(mounted))
}

/// Puts a detached mount at `target`.
pub(super) fn move_mount(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    let from_empty_path = 4;
    // SAFETY: both strings are C strings that outlive the call, the descriptor is open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            from_empty_path,
        )
    })?;
    Ok(())
}

/// Sets attributes of a detached mount and those below it; with `idmap`, also the mapping of owners.
pub(super) fn set_mount(
    tree: BorrowedFd<'_>,
    set: u64,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(idmap) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(idmap.as_raw_fd()).expect("descriptors are not negative");
    }
    // An idmapped copy is of one mount: what lies below has its own owners.
    let recursive = if idmap.is_some() { 0 } else { libc::AT_RECURSIVE };
    // SAFETY: `attr` is initialised, lives through the call, and its true size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// The version of Landlock that this kernel has.
pub(super) fn landlock_abi() -> io::Result<i64> {
    let version = 1;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no pointer and makes nothing.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, version) })
}

/// Closes every descriptor from `first` on but `keep`.
pub(super) fn close_all_but(first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = first;
    for fd in keep.into_iter().filter(|fd| *fd >= first).chain([u32::MAX]) {
        if from < fd {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: init is single-threaded and owns no descriptor outside of `keep` any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

fn prctl(option: i32, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take integers only.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into())?;
    Ok(())
}

/// Whether others of the same user may look into this process.
pub(super) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable))
}

/// This process dies when its parent does.
pub(super) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())
}

/// Orphans of this process become its children.
pub(super) fn adopt_orphans() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Lets this thread, and what it starts, wait for the processor when others want it.
pub(super) fn be_patient(steps: i32) {
    debug_assert!(steps > 0, "more patience is always allowed, less is not");
    // SAFETY: takes an integer. What it returns is the new value, not a failure: to wait longer is never refused.
    unsafe { libc::nice(steps) };
}

/// No program that is started from here gains anything.
pub(super) fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Gives up every capability, and the ways to get one back.
pub(super) fn drop_capabilities(privileged: bool) -> io::Result<()> {
    if privileged {
        // NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock.
        prctl(libc::PR_SET_SECUREBITS, 0b1100_1111 & !0b1_0000)?;
        for capability in 0..64 {
            match prctl(libc::PR_CAPBSET_DROP, capability) {
                // The kernel has no more of them.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
                other => other?,
            }
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned().into())?;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: the header names version 3, for which the kernel reads six words of data; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })?;
    Ok(())
}

/// Switches the loopback interface on.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: makes a descriptor and touches no memory.
    let fd = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let socket =
        unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).expect("descriptors are small")) };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).expect("ASCII fits");
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("the flags are small");
    let fd = socket.as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which is initialised and lives through the call.
    let up = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) };
    check(up.into())?;
    Ok(())
}

/// Descriptors that came over a socket.
pub(super) fn own(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: recvmsg made these descriptors for this process, and the caller hands each over once.
    fds.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect()
}

/// Replaces this process by a program. Returns only if that fails.
pub(super) fn exec(program: &Path, argv: &[String], env: &[(String, String)]) -> io::Error {
    let text =
        |text: &str| CString::new(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e));
    let build = || -> io::Result<(CString, Vec<CString>, Vec<CString>)> {
        let argv = argv.iter().map(|arg| text(arg)).collect::<io::Result<_>>()?;
        let env = env.iter().map(|(n, v)| text(&format!("{n}={v}"))).collect::<io::Result<_>>()?;
        Ok((c_path(program)?, argv, env))
    };
    match build() {
        Ok((program, argv, env)) => match nix::unistd::execve(&program, &argv, &env) {
            Ok(never) => match never {},
            Err(e) => e.into(),
        },
        Err(e) => e,
    }
}

/// Gives an empty file the content of another without a copy, where the file system can.
pub(super) fn share_blocks(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes the other descriptor as an integer; both are open.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE as _, from.as_raw_fd()) };
    check(done.into()).map(drop)
}

/// What marks a directory of an overlay's upper layer as hiding the lower one, where the mount is an ordinary user's.
const OPAQUE: &CStr = c"user.overlay.opaque";

/// Whether a directory of an upper layer hides what lies below it.
pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0_u8; 1];
    // SAFETY: the name is a C string, the buffer is ours and its length is given.
    let read = check(unsafe {
        libc::fgetxattr(
            directory.as_raw_fd(),
            OPAQUE.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        ) as libc::c_long
    });
    match read {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP | libc::ERANGE)) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// Makes a directory of an upper layer hide what lies below it, or no longer.
pub(super) fn set_opaque(directory: BorrowedFd<'_>, opaque: bool) -> io::Result<()> {
    let fd = directory.as_raw_fd();
    // SAFETY: the name is a C string, the value is one byte that lives through the call.
    let done = check(unsafe {
        if opaque {
            libc::fsetxattr(fd, OPAQUE.as_ptr(), b"y".as_ptr().cast(), 1, 0).into()
        } else {
            libc::fremovexattr(fd, OPAQUE.as_ptr()).into()
        }
    });
    match done {
        Err(e) if !opaque && matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => {
            Ok(())
        }
        other => other.map(drop),
    }
}
