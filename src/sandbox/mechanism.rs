//! The mechanisms that a sandbox is made of, each tried by itself in a child of this program: it either does the thing or
//! says with which error the kernel refused.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use landlock::{ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::owner::OwnerMap;
use super::profile::Profile;
use super::{host, init, network, program, seccomp, sys};
use crate::environment::Tier;

/// The name that this program is started under when it is to try a mechanism.
const PROBE_NAME: &str = "casemate-probe";

/// One mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mechanism {
    /// A user namespace in which this process has capabilities.
    UserNamespace,
    /// The other namespaces.
    Namespaces,
    /// A network of its own, with a loopback interface that works.
    Loopback,
    /// A network that leads to the host alone.
    NetworkDoor,
    /// A fresh `/proc` for a process namespace.
    FreshProc,
    /// Landlock.
    Landlock,
    /// System call filters.
    Seccomp,
    /// A control group that counts memory.
    ControlGroup,
    /// A mount that shows other owners.
    IdmappedMount,
    /// A program started from sealed memory.
    SealedProgram,
    /// A layer over a directory, without privileges.
    Overlay,
}

impl Mechanism {
    /// All of them, those that others rest on first.
    pub(super) const ALL: [Self; 11] = [
        Self::UserNamespace,
        Self::Namespaces,
        Self::Loopback,
        Self::NetworkDoor,
        Self::FreshProc,
        Self::Landlock,
        Self::Seccomp,
        Self::ControlGroup,
        Self::IdmappedMount,
        Self::SealedProgram,
        Self::Overlay,
    ];

    fn word(self) -> String {
        let word = serde_json::to_value(self).expect("a unit variant is JSON");
        word.as_str().expect("and a string").to_owned()
    }
}

/// How a mechanism went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It works; what was seen.
    Works(String),
    /// The kernel, or who rules it, refused.
    Refused {
        /// What was being done.
        doing: String,
        /// The system's number for it, or 0.
        errno: i32,
        /// The system's words.
        reason: String,
    },
}

/// Tries one mechanism in a child, so that nothing of it stays.
pub(super) fn try_out(mechanism: Mechanism) -> Outcome {
    let refused = |reason: String| Outcome::Refused {
        doing: "starting a child".to_owned(),
        errno: 0,
        reason,
    };
    let output = Command::new("/proc/self/exe")
        .arg0(PROBE_NAME)
        .arg(mechanism.word())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            // A filter that kills, such as a container's, leaves no words.
            refused(format!("the child ended without a word ({})", output.status))
        }),
        Err(e) => refused(e.to_string()),
    }
}

/// Tries a mechanism if this process was started for that; `None` for every other start.
#[must_use]
pub(super) fn enter() -> Option<ExitCode> {
    let mut words = std::env::args();
    if words.next()? != PROBE_NAME {
        return None;
    }
    let word = words.next()?;
    let mechanism = Mechanism::ALL.into_iter().find(|mechanism| mechanism.word() == word)?;
    let outcome = attempt(mechanism);
    let text = serde_json::to_vec(&outcome).expect("an outcome is JSON");
    let told = io::stdout().write_all(&text);
    Some(if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was being done, and how it failed.
type Attempt = Result<String, (&'static str, io::Error)>;

fn attempt(mechanism: Mechanism) -> Outcome {
    let attempt = match mechanism {
        Mechanism::UserNamespace => user_namespace().map(|()| "with capabilities".to_owned()),
        Mechanism::Namespaces => namespaces(),
        Mechanism::Loopback => loopback(),
        Mechanism::NetworkDoor => network_door(),
        Mechanism::FreshProc => fresh_proc(),
        Mechanism::Landlock => landlock(),
        Mechanism::Seccomp => filter(),
        Mechanism::ControlGroup => Cgroup::to_try(&std::env::temp_dir())
            .map(|group| group.layer())
            .map_err(|reason| ("making one", io::Error::other(reason))),
        Mechanism::IdmappedMount => idmapped_mount(),
        Mechanism::SealedProgram => sealed_program(),
        Mechanism::Overlay => overlay(),
    };
    match attempt {
        Ok(seen) => Outcome::Works(seen),
        Err((doing, e)) => Outcome::Refused {
            doing: doing.to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
            reason: e.to_string(),
        },
    }
}

fn of(doing: &'static str) -> impl Fn(nix::Error) -> (&'static str, io::Error) {
    move |e| (doing, e.into())
}

/// A user namespace, with what it is made for: AppArmor lets one be made and takes its capabilities away.
fn user_namespace() -> Result<(), (&'static str, io::Error)> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(of("making it"))?;
    for (name, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("1000 {uid} 1")),
        ("gid_map", format!("1000 {gid} 1")),
    ] {
        init::put(format!("/proc/self/{name}"), &text).map_err(|e| ("mapping a user", e))?;
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(of("using its capabilities"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(of("using its capabilities"))
}

fn namespaces() -> Attempt {
    user_namespace()?;
    for (name, flag) in [
        ("making a process namespace", CloneFlags::CLONE_NEWPID),
        ("making a network namespace", CloneFlags::CLONE_NEWNET),
        ("making an ipc namespace", CloneFlags::CLONE_NEWIPC),
        ("making a host name namespace", CloneFlags::CLONE_NEWUTS),
        ("making a control group namespace", CloneFlags::CLONE_NEWCGROUP),
    ] {
        unshare(flag).map_err(of(name))?;
    }
    Ok("mount, pid, net, ipc, uts, cgroup".to_owned())
}

fn loopback() -> Attempt {
    user_namespace()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(of("making a network namespace"))?;
    sys::loopback_up().map_err(|e| ("switching the loopback interface on", e))?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
    let listener = listener.map_err(|e| ("listening on it", e))?;
    let address = listener.local_addr().map_err(|e| ("listening on it", e))?;
    std::net::TcpStream::connect(address).map_err(|e| ("connecting over it", e))?;
    Ok("a connection went through".to_owned())
}

/// As init opens it; how what programs send is led to the relay.
fn network_door() -> Attempt {
    user_namespace()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(of("making a network namespace"))?;
    sys::loopback_up().map_err(|e| ("switching the loopback interface on", e))?;
    let (asks, _host) = network::pair().map_err(|e| ("making a way to the host", e))?;
    let opened = network::open(asks).map_err(|failure| {
        let reason = match failure.errno {
            0 => io::Error::other(failure.reason),
            errno => io::Error::from_raw_os_error(errno),
        };
        ("leading everything to the relay", reason)
    })?;
    Ok(opened.how)
}

/// Runs a piece of work in a child and takes over its error.
fn in_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Some(child) = sys::fork()? else {
        let code = match work() {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().and_then(|errno| u8::try_from(errno).ok()).unwrap_or(255),
        };
        sys::leave_with(code);
    };
    match nix::sys::wait::waitpid(child, None)? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        nix::sys::wait::WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::Error::other("it was killed")),
    }
}

fn fresh_proc() -> Attempt {
    user_namespace()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(of("making a process namespace"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let work = || Ok(mount(Some("proc"), "/proc", Some("proc"), flags, Some("hidepid=2"))?);
    in_child(work).map_err(|e| ("mounting it", e))?;
    Ok("mounted, with other users' processes hidden".to_owned())
}

fn landlock() -> Attempt {
    let abi = sys::landlock_abi().map_err(|e| ("asking for its version", e))?;
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.restrict_self());
    restricted.map_err(|e| ("restricting a process", io::Error::other(e)))?;
    if File::open("/proc/self/status").is_ok() {
        return Err((
            "restricting a process",
            io::Error::other("a forbidden file could be opened"),
        ));
    }
    Ok(format!("ABI {abi}{}", super::landlock::lacking(abi)))
}

fn filter() -> Attempt {
    let refused = |text: String| ("filtering a process", io::Error::other(text));
    let profile = Profile::built_in("default").map_err(|e| refused(e.to_string()))?;
    let filters = seccomp::compile(profile, Tier::Full).map_err(refused)?;
    sys::no_new_privileges().map_err(|e| ("giving privileges up", e))?;
    for filter in &filters {
        seccompiler::apply_filter(&filter.program()).map_err(|e| refused(e.to_string()))?;
    }
    match nix::unistd::chroot("/") {
        Err(nix::Error::EPERM) => Ok("a forbidden call was refused".to_owned()),
        _ => Err(refused("a forbidden call went through".to_owned())),
    }
}

fn idmapped_mount() -> Attempt {
    if !host::is_root() {
        return Ok("not needed: files belong to the user anyway".to_owned());
    }
    let place = std::env::temp_dir();
    let (map, holder) = OwnerMap::begin(&place)
        .and_then(|map| map.finish(&place, (0, 0), (65_534, 65_534)))
        .map_err(|e| ("making a map of owners", io::Error::other(e.reason)))?;
    waitpid(holder, None).map_err(|e| ("making a map of owners", e.into()))?;
    let tree = sys::open_tree(&place).map_err(|e| ("taking a directory", e))?;
    let fd = std::os::fd::AsFd::as_fd;
    sys::set_mount(fd(&tree), 0, Some(fd(&map))).map_err(|e| ("mapping its owners", e))?;
    Ok(format!("{} can be shown with other owners", place.display()))
}

fn sealed_program() -> Attempt {
    let copy = program::sealed_copy().map_err(|e| ("copying", e))?;
    let status = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
        .arg0(PROBE_NAME)
        .arg(Mechanism::Landlock.word())
        .stdout(Stdio::null())
        .status();
    match status.map_err(|e| ("starting it", e))?.success() {
        true => Ok("a sealed copy of this program runs".to_owned()),
        false => Err(("running it", io::Error::other("the copy failed"))),
    }
}

fn overlay() -> Attempt {
    user_namespace()?;
    let none: Option<&str> = None;
    mount(Some("casemate"), "/tmp", Some("tmpfs"), MsFlags::empty(), none)
        .map_err(of("mounting memory"))?;
    for dir in ["l", "u", "w", "m"] {
        std::fs::create_dir(Path::new("/tmp").join(dir)).map_err(|e| ("making directories", e))?;
    }
    let options = "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr";
    mount(Some("casemate"), "/tmp/m", Some("overlay"), MsFlags::empty(), Some(options))
        .map_err(of("mounting the layer"))?;
    File::create("/tmp/m/file").map_err(|e| ("writing to the layer", e))?;
    Ok("a file was written to a layer".to_owned())
}
