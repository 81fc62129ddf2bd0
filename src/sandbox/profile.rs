//! Sandbox profiles: data with a reason on every entry, compiled in or the user's own, checked when they are read.
//!
//! A profile may extend a built-in one: an entry of the same key replaces the other's, any other entry is added, and
//! `[[without]]` takes one away. What it becomes is one flat [`Profile`].

mod check;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::environment::{Access, ProfileSource};

/// What a sandbox shows and allows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub reason: String,
    /// The built-in profile that this one begins with.
    pub extends: Option<String>,
    /// A directory that takes the place of the host's own root, for everything that is shown by its path.
    pub root: Option<PathBuf>,
    /// Whether tools may change the workspace; they may unless this says otherwise.
    pub workspace: Option<Access>,
    /// Whether programs may make user namespaces, for sandboxes of their own; they may not unless this says so.
    pub user_namespaces: Option<bool>,
    /// What the extended profile has and this one does not.
    #[serde(default)]
    pub without: Vec<Without>,
    /// Host paths, shown read-only.
    #[serde(default)]
    pub mount: Vec<Show>,
    /// Own writable directories in memory.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
    /// Parts of the workspace that tools cannot read, or cannot change.
    #[serde(default)]
    pub protect: Vec<Protect>,
    /// Parts of `/proc` that cannot be written.
    #[serde(default)]
    pub proc_read_only: Vec<Place>,
    /// Parts of `/proc` that are empty.
    #[serde(default)]
    pub proc_mask: Vec<Place>,
    /// System calls that fail.
    #[serde(default)]
    pub deny: Vec<Deny>,
    /// System calls that fail for some arguments.
    #[serde(default)]
    pub deny_if: Vec<DenyIf>,
    /// Resource limits.
    #[serde(default)]
    pub limit: Vec<Limit>,
    /// The environment of every command.
    #[serde(default)]
    pub env: Vec<Variable>,
}

/// A path and why it is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Absolute.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A host path that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// Absolute, or `~/` and a path below the user's home.
    pub path: String,
    /// Whether there is no sandbox without it. So it is for a file of the user's, unless it says otherwise; what a
    /// built-in profile names and the host does not have is passed over.
    pub required: Option<bool>,
    /// Why.
    pub reason: String,
}

/// A directory in memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Absolute.
    pub path: String,
    /// Its size.
    pub mib: u32,
    /// Why.
    pub reason: String,
}

/// A part of the workspace that tools cannot use freely.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// The end of a path, at any depth of the workspace; `*` stands for any part of one name.
    pub path: String,
    /// What is kept from the tools.
    pub access: Protection,
    /// Holds for a file of that name, or a directory, alone.
    pub only: Option<Kind>,
    /// Why.
    pub reason: String,
}

/// What is kept from the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// Its content: it cannot be opened.
    Hidden,
    /// Changing, renaming or replacing it.
    ReadOnly,
}

/// What a protected path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// System calls that fail.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// Their names.
    pub calls: Vec<String>,
    /// How they fail.
    pub errno: Errno,
    /// Why.
    pub reason: String,
}

/// How a denied call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Errno {
    /// Not permitted.
    #[serde(rename = "EPERM")]
    Perm,
    /// No such call: programs fall back to an older one.
    #[serde(rename = "ENOSYS")]
    NoSys,
}

/// A rule about arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct DenyIf {
    /// Which; each is written out in `seccomp.rs`.
    pub rule: Rule,
    /// Why.
    pub reason: String,
}

/// The rules about arguments that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `clone` with any `CLONE_NEW*`.
    CloneNamespaces,
    /// `ioctl` that types into a terminal.
    TerminalInjection,
    /// `ioctl` that sets a file's attributes, such as immutable.
    FileAttributes,
    /// `socket` of any family but unix, inet, inet6 and netlink.
    SocketFamilies,
    /// `socket` of any family but unix.
    InternetSockets,
    /// `chmod` and its kin with a set-id bit.
    SetuidBits,
    /// `mknod` of a device.
    DeviceNodes,
    /// `fcntl` for leases.
    Leases,
    /// `personality` other than to ask for it.
    Personality,
    /// `shmget` of a gibibyte or more.
    LargeSharedMemory,
    /// Limits and priorities of other processes than the caller, the guest's above all.
    OtherProcesses,
    /// `socket` of a protocol that few programs know.
    SocketProtocols,
}

/// A resource limit, soft and hard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Which.
    pub resource: Resource,
    /// In the resource's own unit.
    pub value: u64,
    /// Why.
    pub reason: String,
}

/// The resources that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Bytes of memory of the whole session.
    Memory,
    /// Bytes by which one command may fill the file system of the workspace.
    Disk,
    /// Bytes that one command may write to its output.
    Output,
    /// Processor time of the whole session, in percent of one processor.
    Cpu,
    /// Bytes that the whole session may read from its workspace's disk in a second, and write to it.
    Io,
    /// Seconds that one command may pass without output and without processor time.
    Idle,
    /// Processes and threads of the whole session.
    Nproc,
    /// Open files.
    Nofile,
    /// Bytes of a core dump.
    Core,
    /// Bytes locked in memory.
    Memlock,
    /// Bytes in message queues.
    Msgqueue,
    /// Signals that wait.
    Sigpending,
    /// Bytes of one file.
    Fsize,
}

impl Resource {
    /// The word in a profile.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Output => "output",
            Self::Cpu => "cpu",
            Self::Io => "io",
            Self::Idle => "idle",
            Self::Nproc => "nproc",
            Self::Nofile => "nofile",
            Self::Core => "core",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Sigpending => "sigpending",
            Self::Fsize => "fsize",
        }
    }
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// One thing that the extended profile has, by its key; exactly one field names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Without {
    /// A path of `[[mount]]`.
    pub mount: Option<String>,
    /// A path of `[[tmpfs]]`.
    pub tmpfs: Option<String>,
    /// A path of `[[protect]]`.
    pub protect: Option<String>,
    /// One system call of `[[deny]]`.
    pub deny: Option<String>,
    /// A rule of `[[deny_if]]`.
    pub deny_if: Option<Rule>,
    /// A resource of `[[limit]]`.
    pub limit: Option<Resource>,
    /// A name of `[[env]]`.
    pub env: Option<String>,
    /// Why.
    pub reason: String,
}

/// Why there is no such profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No profile has that name.
    #[error(
        "there is no sandbox profile `{name}`; there are {}, and a file of your own by its path",
        names()
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The text is not a profile.
    #[error("{file}:{line}: {field}: {problem}")]
    Wrong {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The profiles that are compiled in.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("default", include_str!("../../sandbox-profiles/default.toml")),
    ("strict", include_str!("../../sandbox-profiles/strict.toml")),
    ("read-only", include_str!("../../sandbox-profiles/read-only.toml")),
    ("offline-build", include_str!("../../sandbox-profiles/offline-build.toml")),
    ("hosted", include_str!("../../sandbox-profiles/hosted.toml")),
    ("trusted", include_str!("../../sandbox-profiles/trusted.toml")),
];

fn names() -> String {
    BUILT_IN.map(|(name, _)| format!("`{name}`")).join(", ")
}

impl Profile {
    /// The profile that was asked for, whole.
    ///
    /// # Errors
    /// If there is none, or it is wrong: names file, line and field.
    pub fn of(source: &ProfileSource) -> Result<Cow<'static, Self>, ProfileError> {
        match source {
            ProfileSource::BuiltIn(name) => Self::built_in(name).map(Cow::Borrowed),
            ProfileSource::File { path, text } => {
                let file = path.display().to_string();
                let mut profile = Self::parse(&file, text)?;
                for show in &mut profile.mount {
                    show.required = show.required.or(Some(true));
                }
                profile.extended(&file, text).map(Cow::Owned)
            }
        }
    }

    /// The built-in profile of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn built_in(name: &str) -> Result<&'static Self, ProfileError> {
        static PARSED: [OnceLock<Result<Profile, ProfileError>>; BUILT_IN.len()] =
            [const { OnceLock::new() }; BUILT_IN.len()];
        let mut all = BUILT_IN.iter().zip(&PARSED);
        let found = all.find(|((known, _), _)| *known == name);
        let ((_, text), parsed) =
            found.ok_or_else(|| ProfileError::Unknown { name: name.to_owned() })?;
        let parse = || {
            let file = format!("sandbox-profiles/{name}.toml");
            Self::parse(&file, text)?.extended(&file, text)
        };
        parsed.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// Reads one file and checks it by itself.
    fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(|e| check::syntax(file, text, &e))?;
        match check::faults(&profile) {
            Some(fault) => Err(fault.in_file(file, text)),
            None => Ok(profile),
        }
    }

    /// The profile that this one extends, with this one's changes; itself if it extends none.
    fn extended(self, file: &str, text: &str) -> Result<Self, ProfileError> {
        let fault = |fault: check::Fault| fault.in_file(file, text);
        let Some(base) = &self.extends else {
            return match self.without.is_empty() {
                true => Ok(self),
                false => Err(fault(check::nothing_to_take_away())),
            };
        };
        let base =
            Self::built_in(base).map_err(|e| fault(check::Fault::top("extends", e.to_string())))?;
        base.clone().changed_by(self).map_err(fault)
    }

    fn changed_by(mut self, own: Self) -> Result<Self, check::Fault> {
        for (index, without) in own.without.iter().enumerate() {
            if !self.take_away(without) {
                return Err(check::nothing_like_it(index, without));
            }
        }
        for deny in own.deny {
            self.deny
                .iter_mut()
                .for_each(|old| old.calls.retain(|call| !deny.calls.contains(call)));
            self.deny.push(deny);
        }
        self.deny.retain(|deny| !deny.calls.is_empty());
        put(&mut self.mount, own.mount, |a, b| a.path == b.path);
        put(&mut self.tmpfs, own.tmpfs, |a, b| a.path == b.path);
        put(&mut self.protect, own.protect, |a, b| a.path == b.path);
        put(&mut self.proc_read_only, own.proc_read_only, |a, b| a.path == b.path);
        put(&mut self.proc_mask, own.proc_mask, |a, b| a.path == b.path);
        put(&mut self.deny_if, own.deny_if, |a, b| a.rule == b.rule);
        put(&mut self.limit, own.limit, |a, b| a.resource == b.resource);
        put(&mut self.env, own.env, |a, b| a.name == b.name);
        Ok(Self {
            name: own.name,
            reason: own.reason,
            extends: own.extends,
            root: own.root.or(self.root),
            workspace: own.workspace.or(self.workspace),
            user_namespaces: own.user_namespaces.or(self.user_namespaces),
            ..self
        })
    }

    /// Takes one entry away; false if there is none like it.
    fn take_away(&mut self, without: &Without) -> bool {
        fn less<T>(entries: &mut Vec<T>, is_it: impl Fn(&T) -> bool) -> bool {
            let before = entries.len();
            entries.retain(|entry| !is_it(entry));
            entries.len() < before
        }
        let Without { mount, tmpfs, protect, deny, deny_if, limit, env, reason: _ } = without;
        if let Some(call) = deny {
            return self.deny.iter_mut().any(|deny| less(&mut deny.calls, |known| known == call));
        }
        mount.as_ref().is_some_and(|path| less(&mut self.mount, |entry| entry.path == *path))
            || tmpfs.as_ref().is_some_and(|path| less(&mut self.tmpfs, |entry| entry.path == *path))
            || protect
                .as_ref()
                .is_some_and(|path| less(&mut self.protect, |entry| entry.path == *path))
            || deny_if.is_some_and(|rule| less(&mut self.deny_if, |entry| entry.rule == rule))
            || limit.is_some_and(|kind| less(&mut self.limit, |entry| entry.resource == kind))
            || env.as_ref().is_some_and(|name| less(&mut self.env, |entry| entry.name == *name))
    }

    /// The limit of a resource, if there is one.
    #[must_use]
    pub fn limit_of(&self, resource: Resource) -> Option<u64> {
        self.limit.iter().find(|limit| limit.resource == resource).map(|limit| limit.value)
    }
}

/// Adds entries; one of the same key takes the old one's place.
fn put<T>(entries: &mut Vec<T>, own: Vec<T>, same: fn(&T, &T) -> bool) {
    for entry in own {
        match entries.iter_mut().find(|old| same(old, &entry)) {
            Some(old) => *old = entry,
            None => entries.push(entry),
        }
    }
}

#[cfg(test)]
mod tests;
