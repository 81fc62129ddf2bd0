//! System call filters: compiled from the profile on the host, loaded by init as the last layer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::profile::{Deny, DenyIf, Errno, Profile, Rule};
use crate::environment::Tier;

/// A program for the kernel: code, jumps and constant of each instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter(Vec<(u16, u8, u8, u32)>);

/// What a compilation depends on, and its result.
struct Compiled {
    deny: Vec<Deny>,
    deny_if: Vec<DenyIf>,
    tier: Tier,
    filters: Vec<Filter>,
}

/// The profile's rules, compiled. The last compilation is kept: a process has most of its sandboxes of one profile.
///
/// # Errors
/// Names the system call or rule that cannot be compiled.
pub(super) fn compile(profile: &Profile, tier: Tier) -> Result<Vec<Filter>, String> {
    static LAST: Mutex<Option<Compiled>> = Mutex::new(None);
    let mut last = LAST.lock().expect("nothing panics under this lock");
    let (deny, deny_if) = (&profile.deny, &profile.deny_if);
    let is_it =
        |last: &&Compiled| last.tier == tier && last.deny == *deny && last.deny_if == *deny_if;
    if let Some(last) = last.as_ref().filter(is_it) {
        return Ok(last.filters.clone());
    }
    let filters = compile_anew(profile, tier)?;
    let (deny, deny_if) = (deny.clone(), deny_if.clone());
    *last = Some(Compiled { deny, deny_if, tier, filters: filters.clone() });
    Ok(filters)
}

fn compile_anew(profile: &Profile, tier: Tier) -> Result<Vec<Filter>, String> {
    if tier == Tier::None {
        return Ok(Vec::new());
    }
    let mut filters = vec![no_x32()];
    for errno in [Errno::NoSys, Errno::Perm] {
        let calls = profile.deny.iter().filter(|deny| deny.errno == errno);
        let mut rules: Rules = BTreeMap::new();
        for name in calls.flat_map(|deny| &deny.calls) {
            // A call that this architecture does not have needs no rule.
            if let Some(number) = call_number(name)? {
                rules.insert(number, Vec::new());
            }
        }
        if errno == Errno::Perm {
            for deny in &profile.deny_if {
                add_rule(&mut rules, deny.rule)?;
            }
            if tier == Tier::Landlock {
                no_network(&mut rules)?;
            }
        }
        filters.push(assemble(rules, errno)?);
    }
    Ok(filters)
}

impl Filter {
    /// The program in the library's form.
    pub(super) fn program(&self) -> BpfProgram {
        let instruction =
            |&(code, jt, jf, k): &(u16, u8, u8, u32)| seccompiler::sock_filter { code, jt, jf, k };
        self.0.iter().map(instruction).collect()
    }

    fn of(program: &BpfProgram) -> Self {
        Self(program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn assemble(rules: Rules, errno: Errno) -> Result<Filter, String> {
    let number = match errno {
        Errno::Perm => libc::EPERM,
        Errno::NoSys => libc::ENOSYS,
    };
    let deny = SeccompAction::Errno(u32::try_from(number).expect("errnos are positive"));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch()?);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|e| e.to_string())?;
    Ok(Filter::of(&program))
}

fn arch() -> Result<TargetArch, String> {
    std::env::consts::ARCH.try_into().map_err(|e| format!("{e:?}"))
}

/// On x86-64, calls with bit 30 set are those of the x32 ABI: the same calls under other numbers, past every rule.
fn no_x32() -> Filter {
    const LOAD_NUMBER: (u16, u8, u8, u32) = (0x20, 0, 0, 0);
    const X32: u32 = 0x4000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let enosys = ERRNO | u32::try_from(libc::ENOSYS).expect("errnos are positive");
    let limit = if cfg!(target_arch = "x86_64") { X32 } else { u32::MAX };
    Filter(vec![LOAD_NUMBER, (0x35, 0, 1, limit), (0x06, 0, 0, enosys), (0x06, 0, 0, ALLOW)])
}

fn add_rule(rules: &mut Rules, rule: Rule) -> Result<(), String> {
    match rule {
        Rule::CloneNamespaces => no_namespaces(rules),
        Rule::FileAttributes => {
            // FS_IOC_SETFLAGS in both widths, and FS_IOC_FSSETXATTR.
            for request in [0x4008_6602, 0x4004_6602, 0x401c_5820] {
                deny(rules, "ioctl", vec![(1, SeccompCmpOp::Eq, request)])?;
            }
            Ok(())
        }
        Rule::Personality => {
            // To ask for it, the usual one, and that of 32-bit names for the machine.
            let harmless = [0xffff_ffff, 0, 8].map(|persona| (0, SeccompCmpOp::Ne, persona));
            deny(rules, "personality", harmless.into())
        }
        Rule::LargeSharedMemory => no_large_shared_memory(rules),
        Rule::InternetSockets => {
            for call in ["socket", "socketpair"] {
                deny(rules, call, vec![(0, SeccompCmpOp::Ne, unsigned(libc::AF_UNIX))])?;
            }
            Ok(())
        }
        Rule::TerminalInjection => {
            const TIOCLINUX: u64 = 0x541c;
            const TIOCSETD: u64 = 0x5423;
            const TIOCCONS: u64 = 0x541d;
            for request in [libc::TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS] {
                deny(rules, "ioctl", vec![(1, SeccompCmpOp::Eq, request)])?;
            }
            Ok(())
        }
        Rule::SocketFamilies => few_families(rules),
        Rule::SetuidBits => no_set_id_bits(rules),
        Rule::DeviceNodes => {
            for (call, argument) in [("mknod", 1), ("mknodat", 2)] {
                for kind in [libc::S_IFCHR, libc::S_IFBLK] {
                    let op = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
                    deny(rules, call, vec![(argument, op, u64::from(kind))])?;
                }
            }
            Ok(())
        }
        Rule::Leases => {
            deny(rules, "fcntl", vec![(1, SeccompCmpOp::Eq, unsigned(libc::F_SETLEASE))])
        }
    }
}

fn no_namespaces(rules: &mut Rules) -> Result<(), String> {
    let flags = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    for flag in flags {
        deny_mask(rules, "clone", 0, flag.cast_unsigned())?;
    }
    Ok(())
}

fn few_families(rules: &mut Rules) -> Result<(), String> {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    for call in ["socket", "socketpair"] {
        deny(rules, call, families.map(|f| (0, SeccompCmpOp::Ne, unsigned(f))).into())?;
    }
    // Of netlink, only what `ip` and getifaddrs ask.
    let netlink = (0, SeccompCmpOp::Eq, unsigned(libc::AF_NETLINK));
    let other = (2, SeccompCmpOp::Ne, unsigned(libc::NETLINK_ROUTE));
    deny(rules, "socket", vec![netlink, other])
}

fn no_set_id_bits(rules: &mut Rules) -> Result<(), String> {
    for (call, argument) in [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)] {
        deny_mask(rules, call, argument, libc::S_ISUID)?;
        deny_mask(rules, call, argument, libc::S_ISGID)?;
    }
    for (call, argument) in [("open", 2), ("openat", 3), ("creat", 1), ("mknod", 1), ("mknodat", 2)]
    {
        deny_mask(rules, call, argument, libc::S_ISUID)?;
        deny_mask(rules, call, argument, libc::S_ISGID)?;
    }
    Ok(())
}

fn no_large_shared_memory(rules: &mut Rules) -> Result<(), String> {
    const GIBIBYTE: u64 = 1 << 30;
    let Some(number) = call_number("shmget")? else { return Ok(()) };
    let whole = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ge, GIBIBYTE);
    let rule = whole.and_then(|whole| SeccompRule::new(vec![whole]));
    rules.entry(number).or_default().push(rule.map_err(|e| format!("shmget: {e}"))?);
    Ok(())
}

/// Without a network namespace, no socket may be made but pairs.
fn no_network(rules: &mut Rules) -> Result<(), String> {
    if let Some(number) = call_number("socket")? {
        rules.insert(number, Vec::new());
    }
    Ok(())
}

fn unsigned(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn deny_mask(rules: &mut Rules, call: &str, argument: u8, bits: u32) -> Result<(), String> {
    let bits = u64::from(bits);
    deny(rules, call, vec![(argument, SeccompCmpOp::MaskedEq(bits), bits)])
}

/// Denies `call` where all conditions hold. Arguments are compared in their low 32 bits: that is what the kernel takes
/// of them here, and what a caller could hide above them counts for nothing.
fn deny(rules: &mut Rules, call: &str, when: Vec<(u8, SeccompCmpOp, u64)>) -> Result<(), String> {
    let Some(number) = call_number(call)? else { return Ok(()) };
    let conditions = when
        .into_iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
        })
        .collect::<Result<Vec<_>, _>>();
    let rule = conditions.and_then(SeccompRule::new).map_err(|e| format!("{call}: {e}"))?;
    rules.entry(number).or_default().push(rule);
    Ok(())
}

/// Whether a profile can name this call.
pub(super) fn is_known(name: &str) -> bool {
    call_number(name).is_ok()
}

/// The number of a system call here; `None` for one that only other architectures have.
fn call_number(name: &str) -> Result<Option<i64>, String> {
    match CALLS.iter().chain(X86_CALLS).chain(YOUNG_CALLS).find(|(known, _)| *known == name) {
        Some((_, number)) => Ok(*number),
        None => Err(format!("`{name}` is not a system call that a profile can name")),
    }
}

/// Name and number, written once.
macro_rules! calls {
    ($($name:ident = $number:ident),* $(,)?) => {
        &[$((stringify!($name), Some(libc::$number))),*]
    };
}

type Calls = &'static [(&'static str, Option<i64>)];

/// The calls that a profile can name.
const CALLS: Calls = calls![
    clone3 = SYS_clone3,
    open_tree = SYS_open_tree,
    set_mempolicy_home_node = SYS_set_mempolicy_home_node,
    personality = SYS_personality,
    shmget = SYS_shmget,
    memfd_secret = SYS_memfd_secret,
    memfd_create = SYS_memfd_create,
    execveat = SYS_execveat,
    landlock_create_ruleset = SYS_landlock_create_ruleset,
    inotify_add_watch = SYS_inotify_add_watch,
    io_setup = SYS_io_setup,
    mlockall = SYS_mlockall,
    msgget = SYS_msgget,
    semget = SYS_semget,
    mq_open = SYS_mq_open,
    connect = SYS_connect,
    bind = SYS_bind,
    listen = SYS_listen,
    move_mount = SYS_move_mount,
    fsopen = SYS_fsopen,
    fsconfig = SYS_fsconfig,
    fsmount = SYS_fsmount,
    fspick = SYS_fspick,
    mount_setattr = SYS_mount_setattr,
    mount = SYS_mount,
    umount2 = SYS_umount2,
    pivot_root = SYS_pivot_root,
    chroot = SYS_chroot,
    unshare = SYS_unshare,
    setns = SYS_setns,
    swapon = SYS_swapon,
    swapoff = SYS_swapoff,
    quotactl = SYS_quotactl,
    quotactl_fd = SYS_quotactl_fd,
    ptrace = SYS_ptrace,
    process_vm_readv = SYS_process_vm_readv,
    process_vm_writev = SYS_process_vm_writev,
    process_madvise = SYS_process_madvise,
    kcmp = SYS_kcmp,
    pidfd_getfd = SYS_pidfd_getfd,
    bpf = SYS_bpf,
    perf_event_open = SYS_perf_event_open,
    userfaultfd = SYS_userfaultfd,
    io_uring_setup = SYS_io_uring_setup,
    io_uring_enter = SYS_io_uring_enter,
    io_uring_register = SYS_io_uring_register,
    add_key = SYS_add_key,
    request_key = SYS_request_key,
    keyctl = SYS_keyctl,
    kexec_load = SYS_kexec_load,
    kexec_file_load = SYS_kexec_file_load,
    init_module = SYS_init_module,
    finit_module = SYS_finit_module,
    delete_module = SYS_delete_module,
    reboot = SYS_reboot,
    syslog = SYS_syslog,
    acct = SYS_acct,
    vhangup = SYS_vhangup,
    nfsservctl = SYS_nfsservctl,
    lookup_dcookie = SYS_lookup_dcookie,
    name_to_handle_at = SYS_name_to_handle_at,
    open_by_handle_at = SYS_open_by_handle_at,
    fanotify_init = SYS_fanotify_init,
    fanotify_mark = SYS_fanotify_mark,
    clock_settime = SYS_clock_settime,
    clock_adjtime = SYS_clock_adjtime,
    adjtimex = SYS_adjtimex,
    settimeofday = SYS_settimeofday,
    sethostname = SYS_sethostname,
    setdomainname = SYS_setdomainname,
    move_pages = SYS_move_pages,
    migrate_pages = SYS_migrate_pages,
    mbind = SYS_mbind,
    set_mempolicy = SYS_set_mempolicy,
    get_mempolicy = SYS_get_mempolicy,
    ioprio_set = SYS_ioprio_set,
    clone = SYS_clone,
    ioctl = SYS_ioctl,
    socket = SYS_socket,
    socketpair = SYS_socketpair,
    fchmod = SYS_fchmod,
    fchmodat = SYS_fchmodat,
    openat = SYS_openat,
    openat2 = SYS_openat2,
    mkdirat = SYS_mkdirat,
    mknodat = SYS_mknodat,
    fcntl = SYS_fcntl,
];

/// Calls that are younger than the library's tables; every architecture has them under these numbers.
const YOUNG_CALLS: Calls =
    &[("statmount", Some(457)), ("listmount", Some(458)), ("open_tree_attr", Some(467))];

/// Those that only x86-64 has; elsewhere they need no rule.
#[cfg(target_arch = "x86_64")]
const X86_CALLS: Calls = calls![
    iopl = SYS_iopl,
    ioperm = SYS_ioperm,
    modify_ldt = SYS_modify_ldt,
    uselib = SYS_uselib,
    _sysctl = SYS__sysctl,
    sysfs = SYS_sysfs,
    ustat = SYS_ustat,
    chmod = SYS_chmod,
    fchmodat2 = SYS_fchmodat2,
    open = SYS_open,
    creat = SYS_creat,
    mkdir = SYS_mkdir,
    mknod = SYS_mknod,
];
#[cfg(not(target_arch = "x86_64"))]
const X86_CALLS: Calls = &[
    ("iopl", None),
    ("ioperm", None),
    ("modify_ldt", None),
    ("uselib", None),
    ("_sysctl", None),
    ("sysfs", None),
    ("ustat", None),
    ("chmod", None),
    ("fchmodat2", None),
    ("open", None),
    ("creat", None),
    ("mkdir", None),
    ("mknod", None),
];
