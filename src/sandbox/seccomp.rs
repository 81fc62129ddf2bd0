//! System call filters: compiled from the profile on the host, loaded by init as the last layer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::profile::{Deny, DenyIf, Errno, Profile, Rule};
use crate::environment::Tier;

/// A program for the kernel: code, jumps and constant of each instruction. Written down as base64 of the kernel's own form,
/// which is read faster than numbers, and looked at by nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Filter(Vec<(u16, u8, u8, u32)>);

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        let bytes = |(code, jt, jf, k): (u16, u8, u8, u32)| {
            let ([a, b], [c, d, e, f]) = (code.to_le_bytes(), k.to_le_bytes());
            [a, b, jt, jf, c, d, e, f]
        };
        STANDARD.encode(filter.0.into_iter().flat_map(bytes).collect::<Vec<u8>>())
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|e| format!("a filter: {e}"))?;
        let (instructions, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err("a filter ends within an instruction".to_owned());
        }
        let instruction = |&[a, b, jt, jf, c, d, e, f]: &[u8; 8]| {
            (u16::from_le_bytes([a, b]), jt, jf, u32::from_le_bytes([c, d, e, f]))
        };
        Ok(Self(instructions.iter().map(instruction).collect()))
    }
}

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
    // One for all: the kernel makes each into machine code by itself, and passes every call through each.
    Ok(vec![assemble(all_rules(profile, tier)?)?])
}

/// What fails how: what is absent, and what is forbidden. A call that is both is absent, unless it is forbidden whatever
/// its arguments are.
fn all_rules(profile: &Profile, tier: Tier) -> Result<[(Errno, Rules); 2], String> {
    let refused = |errno| -> Result<Rules, String> {
        let calls = profile.deny.iter().filter(|deny| deny.errno == errno);
        let mut rules: Rules = BTreeMap::new();
        for name in calls.flat_map(|deny| &deny.calls) {
            // A call that this architecture does not have needs no rule.
            if let Some(number) = call_number(name)? {
                rules.insert(number, Vec::new());
            }
        }
        Ok(rules)
    };
    let (mut absent, mut forbidden) = (refused(Errno::NoSys)?, refused(Errno::Perm)?);
    for deny in &profile.deny_if {
        add_rule(&mut forbidden, deny.rule)?;
    }
    if tier == Tier::Landlock {
        no_network(&mut forbidden)?;
    }
    absent.retain(|call, _| forbidden.get(call).is_none_or(|rules| !rules.is_empty()));
    forbidden.retain(|call, _| !absent.contains_key(call));
    Ok([(Errno::NoSys, absent), (Errno::Perm, forbidden)])
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

fn assemble(rules: [(Errno, Rules); 2]) -> Result<Filter, String> {
    let mut leaves = Vec::new();
    for (errno, rules) in rules {
        for (call, rules) in rules {
            leaves.push(leaf(call, rules, &errno_of(errno))?);
        }
    }
    leaves.sort_by_key(|leaf| leaf.number);
    let mut whole = library(BTreeMap::from([(0, Vec::new())]), &errno_of(Errno::Perm))?.0;
    whole.truncate(PROLOGUE);
    whole.extend(no_x32());
    tree(&leaves, &mut whole);
    Ok(Filter(whole))
}

fn leaf(call: i64, rules: Vec<SeccompRule>, deny: &SeccompAction) -> Result<Leaf, String> {
    let number = u32::try_from(call).expect("numbers of calls are small");
    let body = match rules.is_empty() {
        true => vec![
            (JUMP_IF_EQUAL, 0, 1, number),
            (RETURN, 0, 0, deny.clone().into()),
            (RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ],
        false => library(BTreeMap::from([(call, rules)]), deny)?.0.split_off(PROLOGUE),
    };
    Ok(Leaf { number, body })
}

/// The rules as the library makes a program of them: one comparison of the number after the other.
fn library(rules: Rules, deny: &SeccompAction) -> Result<Filter, String> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny.clone(), arch()?);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    program.map(|program| Filter::of(&program)).map_err(|e| e.to_string())
}

fn errno_of(errno: Errno) -> SeccompAction {
    let number = match errno {
        Errno::Perm => libc::EPERM,
        Errno::NoSys => libc::ENOSYS,
    };
    SeccompAction::Errno(u32::try_from(number).expect("errnos are positive"))
}

/// What the library begins each program with: load the architecture, compare, kill, load the number of the call.
const PROLOGUE: usize = 4;

const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The rules of one call: they begin with the number in the accumulator, and each way through them returns.
struct Leaf {
    number: u32,
    body: Vec<(u16, u8, u8, u32)>,
}

/// A search for the call by halves. The library compares with one call after the other, and the kernel, which tries a new
/// filter with every call that there is, takes longer for that than for the rest of a launch's layers.
fn tree(leaves: &[Leaf], program: &mut Vec<(u16, u8, u8, u32)>) {
    match leaves {
        [] => program.push((RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)),
        [leaf] => program.extend_from_slice(&leaf.body),
        _ => {
            let (less, more) = leaves.split_at(leaves.len() / 2);
            program.push((JUMP_IF_NOT_LESS, 0, 1, more[0].number));
            // A conditional jump cannot go far enough.
            let over = program.len();
            program.push((JUMP, 0, 0, 0));
            tree(less, program);
            let distance = program.len() - over - 1;
            program[over].3 = u32::try_from(distance).expect("programs are short");
            tree(more, program);
        }
    }
}

fn arch() -> Result<TargetArch, String> {
    std::env::consts::ARCH.try_into().map_err(|e| format!("{e:?}"))
}

/// On x86-64, calls with bit 30 set are those of the x32 ABI: the same calls under other numbers, past every rule. The
/// number is in the accumulator.
fn no_x32() -> Vec<(u16, u8, u8, u32)> {
    if cfg!(target_arch = "x86_64") {
        vec![(JUMP_IF_NOT_LESS, 0, 1, X32), (RETURN, 0, 0, errno_of(Errno::NoSys).into())]
    } else {
        Vec::new()
    }
}

/// The bit that marks a call of the x32 ABI.
const X32: u32 = 0x4000_0000;

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
            // What a rename can leave behind is a device too.
            deny_mask(rules, "renameat2", 4, libc::RENAME_WHITEOUT)
        }
        Rule::Leases => {
            deny(rules, "fcntl", vec![(1, SeccompCmpOp::Eq, unsigned(libc::F_SETLEASE))])
        }
        Rule::OtherProcesses => no_hold_on_others(rules),
        Rule::SocketProtocols => {
            let protocols = PROTOCOLS.map(|known| (2, SeccompCmpOp::Ne, known));
            deny(rules, "socket", protocols.into())
        }
    }
}

/// Of sockets: none given, ICMP, TCP, UDP, ICMP of version 6, raw, and TCP by several ways, which Go asks for first.
const PROTOCOLS: [u64; 7] = [0, 1, 6, 17, 58, 255, 262];

/// The guest has the same user as what it starts, and to the kernel that is enough for its limits and its turn on a
/// processor. A process means itself by 0; some name a thread of theirs to choose its processor, which harms nobody.
fn no_hold_on_others(rules: &mut Rules) -> Result<(), String> {
    const OF_A_USER: u64 = 2;
    if let Some(number) = call_number("prlimit64")? {
        let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0);
        let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
        let both = another.and_then(|another| SeccompRule::new(vec![another, sets?]));
        rules.entry(number).or_default().push(both.map_err(|e| format!("prlimit64: {e}"))?);
    }
    for call in ["sched_setscheduler", "sched_setparam", "sched_setattr"] {
        deny(rules, call, vec![(0, SeccompCmpOp::Ne, 0)])?;
    }
    deny(rules, "sched_setaffinity", vec![(0, SeccompCmpOp::Eq, 1)])?;
    deny(rules, "setpriority", vec![(0, SeccompCmpOp::Eq, OF_A_USER)])?;
    deny(rules, "setpriority", vec![(1, SeccompCmpOp::Ne, 0)])
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
    prlimit64 = SYS_prlimit64,
    renameat2 = SYS_renameat2,
    sched_setaffinity = SYS_sched_setaffinity,
    sched_setattr = SYS_sched_setattr,
    sched_setparam = SYS_sched_setparam,
    sched_setscheduler = SYS_sched_setscheduler,
    setpriority = SYS_setpriority,
];

/// Calls that are younger than the library's tables; every architecture has them under these numbers.
const YOUNG_CALLS: Calls = &[
    ("statmount", Some(457)),
    ("listmount", Some(458)),
    ("open_tree_attr", Some(467)),
    ("file_setattr", Some(469)),
    ("listns", Some(470)),
];

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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer to a call with these arguments.
    fn answer(program: &[(u16, u8, u8, u32)], call: u32, arguments: [u64; 6]) -> u32 {
        let arch = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let data = |offset: u32| match offset {
            0 => call,
            4 => arch,
            8..16 => 0,
            _ => {
                let argument = arguments[(offset as usize - 16) / 8].to_le_bytes();
                let half = if offset.is_multiple_of(8) { 0..4 } else { 4..8 };
                u32::from_le_bytes(argument[half].try_into().unwrap())
            }
        };
        let (mut at, mut held) = (0_usize, 0_u32);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let mut choose = |holds: bool| at += usize::from(if holds { yes } else { no });
            match code {
                0x20 => held = data(k),
                0x54 => held &= k,
                0x05 => at += k as usize,
                0x15 => choose(held == k),
                0x25 => choose(held > k),
                0x35 => choose(held >= k),
                0x06 => return k,
                _ => panic!("an instruction {code:#x} at {at}"),
            }
        }
    }

    /// The rules of a profile, as the library puts them one after the other in two programs, and as one tree, answer
    /// everything alike.
    #[test]
    fn a_tree_answers_as_the_list_does() {
        let words = [0, 1, 2, 3, 5, 8, 10, 16, 17, 29, 40, 0x1000_0000, 0x4008_6602, u64::MAX];
        let more = [0o4755, 0o2000, 0x5412, 0x541c, 0x2000_0000, 1 << 30, 0x6000, 1024];
        let x32 = if cfg!(target_arch = "x86_64") { X32 } else { u32::MAX };
        for (name, _) in crate::sandbox::profile::BUILT_IN {
            let profile = Profile::built_in(name).unwrap();
            let rules = all_rules(profile, Tier::Landlock).unwrap();
            let list = |(errno, rules): &(Errno, Rules)| {
                library(rules.clone(), &errno_of(*errno)).unwrap()
            };
            let lists = [list(&rules[0]), list(&rules[1])];
            let expected = |call: u32, arguments: [u64; 6]| {
                let answers = lists.each_ref().map(|list| answer(&list.0, call, arguments));
                let refused = answers.into_iter().find(|a| *a != libc::SECCOMP_RET_ALLOW);
                match refused {
                    _ if call >= x32 => errno_of(Errno::NoSys).into(),
                    Some(refused) => refused,
                    None => libc::SECCOMP_RET_ALLOW,
                }
            };
            let tree = assemble(rules.clone()).unwrap();
            for call in (0..600).chain([u32::MAX, 0x4000_0001]) {
                for word in words.iter().chain(&more) {
                    for place in 0..4 {
                        let mut arguments = [2; 6];
                        arguments[place] = *word;
                        assert_eq!(
                            answer(&tree.0, call, arguments),
                            expected(call, arguments),
                            "{name}: call {call} with {arguments:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_filter_is_read_as_it_was_written() {
        let filter =
            Filter(vec![(0x20, 0, 0, 4), (0x15, 1, 255, 0xc000_003e), (6, 0, 0, u32::MAX)]);
        assert_eq!(Filter::try_from(String::from(filter.clone())), Ok(filter));
        assert!(Filter::try_from("AAAA".to_owned()).is_err(), "half an instruction");
        assert!(Filter::try_from("not base64".to_owned()).is_err());
    }
}
