//! What to do when a stage of the set-up fails: the system's words alone help nobody.

use std::path::{Path, PathBuf};

use super::host;

/// What of this machine decides which remedy helps. A value, so that other machines can be made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// Where this program is.
    pub(super) program: PathBuf,
    /// AppArmor takes the capabilities of user namespaces away from programs without a profile.
    pub(super) apparmor_restricts: bool,
    /// Debian's switch for user namespaces is off.
    pub(super) unprivileged_off: bool,
    /// How many user namespaces there may be, if the kernel says.
    pub(super) max_user_namespaces: Option<u64>,
    /// The container that this runs in, such as `docker`.
    pub(super) container: Option<String>,
    /// The subsystem of Windows.
    pub(super) wsl: bool,
    /// Whether this user is root.
    pub(super) root: bool,
    /// Whether `/proc` is there: this program starts its guests and probes through it.
    pub(super) proc: bool,
}

impl Machine {
    /// This one.
    #[must_use]
    pub(super) fn this() -> Self {
        let setting = |name: &str| {
            let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
            Some(text.trim().to_owned())
        };
        let is = |name: &str, value: &str| setting(name).as_deref() == Some(value);
        let kernel = setting("kernel/osrelease").unwrap_or_default().to_lowercase();
        Self {
            program: std::env::current_exe().unwrap_or_else(|_| "casemate".into()),
            apparmor_restricts: is("kernel/apparmor_restrict_unprivileged_userns", "1"),
            unprivileged_off: is("kernel/unprivileged_userns_clone", "0"),
            max_user_namespaces: setting("user/max_user_namespaces").and_then(|n| n.parse().ok()),
            container: container(),
            wsl: kernel.contains("microsoft"),
            root: host::is_root(),
            proc: Path::new("/proc/self").exists(),
        }
    }
}

fn container() -> Option<String> {
    if Path::new("/.dockerenv").exists() {
        return Some("docker".to_owned());
    }
    if Path::new("/run/.containerenv").exists() {
        return Some("podman".to_owned());
    }
    let groups = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let known = ["docker", "kubepods", "containerd", "lxc"];
    known.into_iter().find(|name| groups.contains(name)).map(str::to_owned)
}

/// The remedy for a failure at `stage` on this machine; empty if none is known.
pub(super) fn of(stage: &str, errno: i32) -> String {
    on(&Machine::this(), stage, errno)
}

/// The remedy on some machine.
pub(super) fn on(machine: &Machine, stage: &str, errno: i32) -> String {
    match stage {
        _ if !machine.proc => "/proc is not mounted: `mount -t proc proc /proc`".to_owned(),
        "device" => "The host's /dev lacks it: in a chroot, `mount --rbind /dev` of the host's".to_owned(),
        _ if errno == libc::EAGAIN => "Too many processes: raise `ulimit -u`".to_owned(),
        _ if errno == libc::EMFILE || errno == libc::ENFILE => {
            "Too many files are open: raise `ulimit -n`".to_owned()
        }
        "mount" | "workspace owner" if machine.root && errno == libc::EPERM => "Root needs CAP_SYS_ADMIN over its mounts, to show its \
             files to the user that the session becomes: run casemate as an ordinary user who owns the workspace, or start \
             the container with `--cap-add SYS_ADMIN`"
            .to_owned(),
        "mount" if errno == libc::ENOSYS => "Mounts need Linux 5.12 or newer, and no outer filter that forbids them".to_owned(),
        "home" | "session user" if machine.root => "Root is never the user inside, and the user namespace that this runs in \
             has no other user: run casemate as an ordinary user"
            .to_owned(),
        "mount" | "namespaces" | "network namespace"
            if errno == libc::ENOSPC && machine.max_user_namespaces != Some(0) =>
        {
            "There may be no more namespaces of some kind: raise what is low among `sysctl user`, as in `sudo sysctl -w \
             user.max_mnt_namespaces=15000`, and `fs.mount-max`"
                .to_owned()
        }
        "user namespace" | "namespaces" | "process namespace" | "network namespace" | "host name"
        | "mount propagation" => namespaces(machine, errno),
        "proc" => proc(machine),
        "network door" => "Only sessions that may reach something need it: a kernel with CONFIG_INET and routes in network \
             namespaces, and a container that lets programs inside it have their own. `--network none` works without"
            .to_owned(),
        "landlock" => "Landlock needs Linux 5.13 or newer, built with it (CONFIG_SECURITY_LANDLOCK=y) and switched on at \
             boot: add `landlock` to the `lsm=` parameter, as in `lsm=landlock,lockdown,yama,integrity,apparmor`"
            .to_owned(),
        "seccomp" => "System call filters need a kernel built with CONFIG_SECCOMP_FILTER=y, and no outer filter that \
             forbids more of them"
            .to_owned(),
        "control group" => control_group(machine),
        "workspace owner" => "Root is never the user inside, so the workspace's file system must be able to map owners: \
             ext4, xfs, btrfs and tmpfs can. Work on a copy with `--workspace-mode copy` and `casemate apply`, or run casemate \
             as an ordinary user who owns the directory"
            .to_owned(),
        "workspace" if machine.root => "Without mounts, root's own files cannot be shown to the user that the session \
             becomes: run casemate as an ordinary user who owns the workspace, or use the tier `full`"
            .to_owned(),
        "sealed program" => "Programs in memory are forbidden: `sudo sysctl -w vm.memfd_noexec=1` allows those that ask \
             for it. Without it the guest runs from the program's own file"
            .to_owned(),
        "workspace layer" => "The workspace cannot have a layer over it here: its file system cannot be a lower one, or \
             something else is mounted in it, or the data directory's cannot hold a layer; --workspace-mode copy works on a \
             copy instead"
            .to_owned(),
        "overlay" => "Layers without privileges need Linux 5.11 or newer with the module: `sudo modprobe overlay`".to_owned(),
        "memory" | "root" if errno == libc::ENOSPC || errno == libc::ENOMEM => {
            "The machine is out of memory for the sandbox's own files".to_owned()
        }
        "protected path" => "The path changed while the sandbox started: try again, or give it up with --allow-path".to_owned(),
        _ => String::new(),
    }
}

fn namespaces(machine: &Machine, errno: i32) -> String {
    let path = machine.program.display();
    if machine.apparmor_restricts {
        return format!(
            "AppArmor forbids user namespaces to programs without a profile. Install one: \
             `printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile casemate {path} flags=(unconfined) {{\\n  \
             userns,\\n}}\\n' | sudo tee /etc/apparmor.d/casemate && sudo apparmor_parser -r /etc/apparmor.d/casemate`"
        );
    }
    if machine.unprivileged_off {
        return "User namespaces are switched off. Switch them on: `sudo sysctl -w kernel.unprivileged_userns_clone=1`; \
                to keep it: `echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-casemate.conf`"
            .to_owned();
    }
    if machine.max_user_namespaces == Some(0) || errno == libc::ENOSPC {
        return "There may be no more user namespaces. Allow some: `sudo sysctl -w user.max_user_namespaces=15000`; to \
                keep it: `echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/60-casemate.conf`"
            .to_owned();
    }
    match &machine.container {
        Some(container) if container == "kubepods" => "The pod's filter forbids user namespaces: set \
             `securityContext.seccompProfile.type: Unconfined` and `securityContext.procMount: Unmasked` for the container, \
             or accept less with --sandbox=landlock"
            .to_owned(),
        Some(container) => format!(
            "The container's filter forbids user namespaces: start it with `{container} run --security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`, or accept less \
             with --sandbox=landlock"
        ),
        None => "User namespaces are refused here. In a container, start it with `--security-opt seccomp=unconfined \
                 --security-opt systempaths=unconfined`; elsewhere the kernel needs CONFIG_USER_NS=y; or accept less with \
                 --sandbox=landlock"
            .to_owned(),
    }
}

fn proc(machine: &Machine) -> String {
    let start = match machine.container.as_deref() {
        Some("kubepods") => "set `securityContext.procMount: Unmasked` for it".to_owned(),
        Some(container) => {
            format!("start it with `{container} run --security-opt systempaths=unconfined`")
        }
        None => "start it with `--security-opt systempaths=unconfined`".to_owned(),
    };
    format!(
        "In a container, the outer /proc has covered parts, and the kernel forbids a fresh one then: {start}, or accept \
             less with --sandbox=landlock"
    )
}

fn control_group(machine: &Machine) -> String {
    let program = machine.program.file_name().unwrap_or_default().to_string_lossy();
    if machine.container.is_some() {
        return "Control groups belong to the container's host; limit the container itself with `--memory`. The guest \
                watches its own memory meanwhile"
            .to_owned();
    }
    if machine.wsl {
        return "Switch systemd on in /etc/wsl.conf (`[boot]`, `systemd=true`) and restart WSL. The guest watches its own \
                memory meanwhile"
            .to_owned();
    }
    format!(
        "Start it where control groups are delegated: `systemd-run --user --scope -p Delegate=yes {program} …`. The guest \
         watches its own memory meanwhile"
    )
}
