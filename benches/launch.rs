//! The start of a sandbox, beside bubblewrap with a similar root and the same namespaces, and beside those alone.
//!
//! `cargo bench --bench launch`; bubblewrap is left out where it is not installed. The floor unshares the namespaces,
//! maps one user and runs `true`: no root of its own, no Landlock, no filter. Both it and a guest begin as an exec of a
//! program of about this size. Run it as root and as an ordinary user: root also maps the owner of the workspace.

mod support;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use casemate::environment::Environment;
use casemate::sandbox::{Guest, plan_for};
use casemate::tool::inside;
use nix::sched::{CloneFlags, unshare};
use support::{AnyError, Contestant, Effort, compare};

/// The argument that makes this program the floor.
const NAMESPACES: &str = "namespaces-and-true";

fn main() -> Result<ExitCode, AnyError> {
    if let Some(code) = casemate::sandbox::init::enter(inside::serve, inside::relay) {
        return Ok(code);
    }
    if std::env::args().nth(1).is_some_and(|arg| arg == NAMESPACES) {
        return namespaces();
    }
    let Effort { rounds, calls } = Effort::of(11, 15);
    let workspace = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let place = workspace.path();
    let environment = Environment::new(place.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut contestants = Vec::new();
    if bubblewrap(place).status().is_ok_and(|status| status.success()) {
        contestants.push(Contestant::timed("bwrap --unshare-all … true", calls, || {
            succeed(&mut bubblewrap(place))
        }));
    }
    contestants.push(Contestant::timed("seven namespaces and true, no layers", calls, || {
        succeed(Command::new("/proc/self/exe").arg(NAMESPACES))
    }));
    contestants.push(Contestant::timed("casemate: plan alone", calls, || {
        Ok(plan_for(&environment, None).map(drop)?)
    }));
    contestants.push(Contestant::timed("casemate: plan and launch until ready", calls, || {
        let plan = plan_for(&environment, None)?;
        // Its end is not waited for, as in a session.
        Ok(runtime.block_on(Guest::launch(&plan)).map(drop)?)
    }));
    contestants.push(Contestant::timed("casemate sandbox exec -- true", calls, || {
        succeed(
            Command::new(env!("CARGO_BIN_EXE_casemate"))
                .args(["sandbox", "exec", "--workspace"])
                .arg(place)
                .args(["--", "true"]),
        )
    }));
    compare("a sandbox", rounds, contestants)?;
    Ok(ExitCode::SUCCESS)
}

fn succeed(command: &mut Command) -> Result<(), AnyError> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// What our default profile shows, in bubblewrap's words.
fn bubblewrap(workspace: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]);
    command.args(["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "box"]);
    for path in ["/usr", "/opt", "/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache"] {
        command.args(["--ro-bind-try", path, path]);
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        command.args(["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev"]);
    for path in ["/tmp", "/home/agent", "/run", "/var/tmp", "/dev/shm"] {
        command.args(["--tmpfs", path]);
    }
    command.arg("--bind").arg(workspace).arg(workspace).arg("--chdir").arg(workspace);
    command.args(["--remount-ro", "/", "true"]);
    command
}

fn namespaces() -> Result<ExitCode, AnyError> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("1000 {uid} 1")),
        ("gid_map", format!("1000 {gid} 1")),
    ] {
        let mut file = std::fs::File::options().write(true).open(format!("/proc/self/{file}"))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    succeed(&mut Command::new("/bin/true"))?;
    Ok(ExitCode::SUCCESS)
}
