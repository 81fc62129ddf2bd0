//! System call filters: compiled from the profile on the host, loaded by init as the last layer.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::profile::{Errno, Profile, Rule};
use crate::environment::Tier;

/// A program for the kernel: code, jumps and constant of each instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter(Vec<(u16, u8, u8, u32)>);

/// Compiles the profile's rules.
///
/// # Errors
/// Names the system call or rule that cannot be compiled.
pub(super) fn compile(profile: &Profile, tier: Tier) -> Result<Vec<Filter>, String> {
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
        Rule::CloneNamespaces => {
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
        Rule::TerminalInjection => {
            const TIOCLINUX: u64 = 0x541c;
            const TIOCSETD: u64 = 0x5423;
            const TIOCCONS: u64 = 0x541d;
            for request in [libc::TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS] {
                deny(rules, "ioctl", vec![(1, SeccompCmpOp::Eq, request)])?;
            }
            Ok(())
        }
        Rule::SocketFamilies => {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            for call in ["socket", "socketpair"] {
                deny(rules, call, families.map(|f| (0, SeccompCmpOp::Ne, unsigned(f))).into())?;
            }
            // Of netlink, only what `ip` and getifaddrs ask.
            let netlink = (0, SeccompCmpOp::Eq, unsigned(libc::AF_NETLINK));
            let other = (2, SeccompCmpOp::Ne, unsigned(libc::NETLINK_ROUTE));
            deny(rules, "socket", vec![netlink, other])
        }
        Rule::SetuidBits => {
            for (call, argument) in [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)]
            {
                deny_mask(rules, call, argument, libc::S_ISUID)?;
                deny_mask(rules, call, argument, libc::S_ISGID)?;
            }
            for (call, argument) in
                [("open", 2), ("openat", 3), ("creat", 1), ("mkdir", 1), ("mkdirat", 2)]
            {
                deny_mask(rules, call, argument, libc::S_ISUID)?;
            }
            Ok(())
        }
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

/// The number of a system call here; `None` for one that only other architectures have.
fn call_number(name: &str) -> Result<Option<i64>, String> {
    let common: &[(&str, i64)] = &[
        ("clone3", libc::SYS_clone3),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("quotactl", libc::SYS_quotactl),
        ("quotactl_fd", libc::SYS_quotactl_fd),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("process_madvise", libc::SYS_process_madvise),
        ("kcmp", libc::SYS_kcmp),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("keyctl", libc::SYS_keyctl),
        ("kexec_load", libc::SYS_kexec_load),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("reboot", libc::SYS_reboot),
        ("syslog", libc::SYS_syslog),
        ("acct", libc::SYS_acct),
        ("vhangup", libc::SYS_vhangup),
        ("nfsservctl", libc::SYS_nfsservctl),
        ("lookup_dcookie", libc::SYS_lookup_dcookie),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("fanotify_mark", libc::SYS_fanotify_mark),
        ("clock_settime", libc::SYS_clock_settime),
        ("clock_adjtime", libc::SYS_clock_adjtime),
        ("adjtimex", libc::SYS_adjtimex),
        ("settimeofday", libc::SYS_settimeofday),
        ("sethostname", libc::SYS_sethostname),
        ("setdomainname", libc::SYS_setdomainname),
        ("move_pages", libc::SYS_move_pages),
        ("migrate_pages", libc::SYS_migrate_pages),
        ("mbind", libc::SYS_mbind),
        ("set_mempolicy", libc::SYS_set_mempolicy),
        ("get_mempolicy", libc::SYS_get_mempolicy),
        ("ioprio_set", libc::SYS_ioprio_set),
        ("clone", libc::SYS_clone),
        ("ioctl", libc::SYS_ioctl),
        ("socket", libc::SYS_socket),
        ("socketpair", libc::SYS_socketpair),
        ("fchmod", libc::SYS_fchmod),
        ("fchmodat", libc::SYS_fchmodat),
        ("openat", libc::SYS_openat),
        ("mkdirat", libc::SYS_mkdirat),
        ("mknodat", libc::SYS_mknodat),
        ("fcntl", libc::SYS_fcntl),
    ];
    #[cfg(target_arch = "x86_64")]
    let own: &[(&str, i64)] = &[
        ("iopl", libc::SYS_iopl),
        ("ioperm", libc::SYS_ioperm),
        ("modify_ldt", libc::SYS_modify_ldt),
        ("uselib", libc::SYS_uselib),
        ("_sysctl", libc::SYS__sysctl),
        ("sysfs", libc::SYS_sysfs),
        ("ustat", libc::SYS_ustat),
        ("chmod", libc::SYS_chmod),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("open", libc::SYS_open),
        ("creat", libc::SYS_creat),
        ("mkdir", libc::SYS_mkdir),
        ("mknod", libc::SYS_mknod),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let own: &[(&str, i64)] = &[];
    const X86_ONLY: &[&str] = &[
        "iopl",
        "ioperm",
        "modify_ldt",
        "uselib",
        "_sysctl",
        "sysfs",
        "ustat",
        "chmod",
        "fchmodat2",
        "open",
        "creat",
        "mkdir",
        "mknod",
    ];
    let found = common.iter().chain(own).find(|(known, _)| *known == name);
    match found {
        Some((_, number)) => Ok(Some(*number)),
        None if X86_ONLY.contains(&name) => Ok(None),
        None => Err(format!("`{name}` is not a system call that a profile can name")),
    }
}
