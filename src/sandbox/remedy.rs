//! What to do when a stage of the set-up fails: the system's words alone help nobody.

use std::path::Path;

/// The remedy for a failure at `stage`; empty if none is known.
pub(super) fn of(stage: &str, errno: i32) -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "casemate".into());
    match stage {
        "user namespace" | "namespaces" | "process namespace" | "network namespace" | "host name" | "mount propagation" => {
            namespaces(errno, &path)
        }
        "proc" => "In a container, the outer /proc hides a fresh one: start the container with \
             `--security-opt systempaths=unconfined`, or accept less with --sandbox=landlock"
            .to_owned(),
        "landlock" => "Landlock needs Linux 5.13 or newer, built with it and with `landlock` in the `lsm=` boot \
             parameter"
            .to_owned(),
        "start" if errno == libc::EMFILE || errno == libc::ENFILE => {
            "Too many files are open: raise `ulimit -n`".to_owned()
        }
        "start" | "process" if errno == libc::EAGAIN => {
            "Too many processes: raise `ulimit -u`".to_owned()
        }
        "memory" | "root" if errno == libc::ENOSPC || errno == libc::ENOMEM => {
            "The machine is out of memory for the sandbox's own files".to_owned()
        }
        _ => String::new(),
    }
}

fn setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn namespaces(errno: i32, path: &Path) -> String {
    let path = path.display();
    if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return format!(
            "AppArmor forbids user namespaces to programs without a profile. Install one: \
             `printf 'abi <abi/4.0>,\\nprofile casemate {path} flags=(unconfined) {{\\n  userns,\\n}}\\n' | \
             sudo tee /etc/apparmor.d/casemate && sudo apparmor_parser -r /etc/apparmor.d/casemate`"
        );
    }
    if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "User namespaces are switched off. Switch them on: `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
            .to_owned();
    }
    if setting("user/max_user_namespaces").as_deref() == Some("0") {
        return "User namespaces are switched off. Switch them on: `sudo sysctl -w user.max_user_namespaces=15000`"
            .to_owned();
    }
    if errno == libc::ENOSPC {
        return "The limit of namespaces is reached: raise it with `sudo sysctl -w user.max_user_namespaces=15000`"
            .to_owned();
    }
    "User namespaces are refused here. In a container, start it with `--security-opt seccomp=unconfined` (Docker) or \
     as a privileged one; or accept less with --sandbox=landlock"
        .to_owned()
}
