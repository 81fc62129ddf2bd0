//! Sandbox profiles: data with a reason on every entry, compiled in, checked when they are read.

use serde::Deserialize;

/// What a sandbox shows and allows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub reason: String,
    /// Host paths, shown read-only.
    #[serde(default)]
    pub mount: Vec<Place>,
    /// Own writable directories in memory.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
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
    /// Absolute, or `~/` and a path below the user's home.
    pub path: String,
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

/// System calls that fail.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Errno {
    /// Not permitted.
    #[serde(rename = "EPERM")]
    Perm,
    /// No such call: programs fall back to an older one.
    #[serde(rename = "ENOSYS")]
    NoSys,
}

/// A rule about arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyIf {
    /// Which; each is written out in `seccomp.rs`.
    pub rule: Rule,
    /// Why.
    pub reason: String,
}

/// The rules about arguments that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `clone` with any `CLONE_NEW*`.
    CloneNamespaces,
    /// `ioctl` that types into a terminal.
    TerminalInjection,
    /// `socket` of any family but unix, inet, inet6 and netlink.
    SocketFamilies,
    /// `chmod` and its kin with a set-id bit.
    SetuidBits,
    /// `mknod` of a device.
    DeviceNodes,
    /// `fcntl` for leases.
    Leases,
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
    /// Processes and threads.
    Nproc,
    /// Open files.
    Nofile,
    /// Bytes of a core dump.
    Core,
    /// Bytes locked in memory.
    Memlock,
    /// Bytes in message queues.
    Msgqueue,
    /// Bytes of one file.
    Fsize,
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

/// Why there is no such profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No profile has that name.
    #[error("there is no sandbox profile `{name}`; there is: default")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The text is not a profile.
    #[error("the sandbox profile `{name}` is wrong: {reason}")]
    Wrong {
        /// The name.
        name: String,
        /// Line, field and what it must be.
        reason: String,
    },
}

const DEFAULT: &str = include_str!("../../sandbox-profiles/default.toml");

impl Profile {
    /// The profile of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        match name {
            "default" => Self::parse(name, DEFAULT),
            _ => Err(ProfileError::Unknown { name: name.to_owned() }),
        }
    }

    /// Reads a profile and checks it.
    ///
    /// # Errors
    /// Names line and field.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let wrong = |reason: String| ProfileError::Wrong { name: name.to_owned(), reason };
        let profile: Self = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let places = profile.mount.iter().map(|place| ("mount.path", place.path.as_str()));
        let more = profile.tmpfs.iter().map(|tmpfs| ("tmpfs.path", tmpfs.path.as_str()));
        for (field, path) in places.chain(more) {
            let absolute = path.starts_with('/') || path.starts_with("~/");
            if !absolute || path.split('/').any(|part| part == "..") {
                return Err(wrong(format!("{field}: `{path}` must be absolute and without `..`")));
            }
        }
        if let Some(zero) = profile.tmpfs.iter().find(|tmpfs| tmpfs.mib == 0) {
            return Err(wrong(format!("tmpfs.mib: `{}` needs at least 1", zero.path)));
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_is_whole_and_reasoned() {
        let profile = Profile::named("default").unwrap();
        let reasons = profile
            .mount
            .iter()
            .map(|place| &place.reason)
            .chain(profile.tmpfs.iter().map(|tmpfs| &tmpfs.reason))
            .chain(profile.proc_mask.iter().map(|place| &place.reason))
            .chain(profile.deny.iter().map(|deny| &deny.reason))
            .chain(profile.deny_if.iter().map(|deny| &deny.reason))
            .chain(profile.limit.iter().map(|limit| &limit.reason))
            .chain(profile.env.iter().map(|variable| &variable.reason));
        for reason in reasons {
            assert!(reason.len() > 5, "`{reason}` is no reason");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let check = |text: &str, expected: &str| {
            let error = Profile::parse("mine", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("name = 'x'\nreason = 'y'\nmonts = 1", "unknown field `monts`");
        check("name = 'x'", "missing field `reason`");
        check("name='x'\nreason='y'\n[[mount]]\npath='/usr'", "missing field `reason`");
        check("name='x'\nreason='y'\n[[mount]]\npath='usr'\nreason='z'", "must be absolute");
        check("name='x'\nreason='y'\n[[mount]]\npath='/a/../b'\nreason='z'", "without `..`");
        check("name='x'\nreason='y'\n[[tmpfs]]\npath='/t'\nmib=0\nreason='z'", "at least 1");
        check(
            "name='x'\nreason='y'\n[[deny_if]]\nrule='nope'\nreason='z'",
            "unknown variant `nope`",
        );
        assert!(Profile::named("nope").unwrap_err().to_string().contains("`nope`"));
    }
}
