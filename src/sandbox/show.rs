//! A plan for people and scripts: everything that a sandbox shows, allows and limits, each with its reason.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::landlock::Grant;
use super::plan::{PathKind, Plan};
use super::profile::{Deny, DenyIf, Profile, Resource};
use super::protect::{Held, Hold};
use crate::environment::Access;

/// What `casemate sandbox show` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    profile: String,
    reason: String,
    tier: &'static str,
    tier_number: u8,
    user_namespaces: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_door: Option<String>,
    workspace: PathBuf,
    mounts: Vec<Shown>,
    memory_directories: Vec<Memory>,
    protected: Vec<Kept>,
    protected_patterns: Vec<Pattern>,
    search_was_cut: bool,
    landlock: Vec<Grant>,
    system_calls: Calls,
    proc: Proc,
    limits: Vec<Limit>,
    environment: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Shown {
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<PathBuf>,
    access: Access,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Memory {
    path: PathBuf,
    mib: u32,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Kept {
    path: PathBuf,
    how: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Pattern {
    path: String,
    access: super::profile::Protection,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Calls {
    denied: Vec<Deny>,
    denied_for_some_arguments: Vec<DenyIf>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Proc {
    read_only: Vec<PathBuf>,
    empty: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Limit {
    resource: Resource,
    value: u64,
    reason: String,
}

impl View {
    /// Puts a plan beside the profile that it was made of.
    pub(super) fn of(profile: &Profile, plan: Plan) -> Self {
        let limits = profile.limit.iter().zip(&plan.limits).map(|(limit, (resource, value))| {
            Limit { resource: *resource, value: *value, reason: limit.reason.clone() }
        });
        let patterns = profile.protect.iter().map(|protect| Pattern {
            path: protect.path.clone(),
            access: protect.access,
            reason: protect.reason.clone(),
        });
        let memory = profile.tmpfs.iter().map(|tmpfs| Memory {
            path: PathBuf::from(&tmpfs.path),
            mib: tmpfs.mib,
            reason: tmpfs.reason.clone(),
        });
        Self {
            profile: profile.name.clone(),
            reason: profile.reason.clone(),
            tier: plan.tier.as_str(),
            tier_number: plan.tier.number(),
            user_namespaces: plan.user_namespaces,
            network_door: None,
            mounts: plan
                .mounts
                .iter()
                .map(|mount| shown(profile, &plan.workspace, mount))
                .collect(),
            workspace: plan.workspace,
            memory_directories: memory.collect(),
            protected: plan.held.iter().map(|held| kept(profile, held)).collect(),
            protected_patterns: patterns.collect(),
            search_was_cut: plan.held_cut,
            landlock: plan.landlock,
            system_calls: Calls {
                denied: profile.deny.clone(),
                denied_for_some_arguments: profile.deny_if.clone(),
            },
            proc: Proc { read_only: plan.proc_read_only, empty: plan.proc_mask },
            limits: limits.collect(),
            environment: plan.env,
        }
    }

    /// The same, with how a network would be had on this machine.
    pub(super) fn with_door(self, how: String) -> Self {
        Self { network_door: Some(how), ..self }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a view is JSON") + "\n"
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "profile     {} — {}\ntier        {} ({})\nworkspace   {}\nnamespaces  {}\n",
            self.profile,
            self.reason,
            self.tier,
            self.tier_number,
            self.workspace.display(),
            if self.user_namespaces { "programs may make their own" } else { "none from inside" },
        );
        if let Some(how) = &self.network_door {
            let _ =
                writeln!(text, "network     none unless hosts are allowed; then by a door: {how}");
        }
        self.say_places(&mut text);
        self.say_rules(&mut text);
        text
    }

    fn say_places(&self, text: &mut String) {
        section(
            text,
            "mounts",
            self.mounts.iter().map(|shown| {
                let access = match shown.access {
                    Access::ReadOnly => "ro",
                    Access::ReadWrite => "rw",
                };
                let mut what = format!("{access}  {}", shown.path.display());
                if let Some(source) = &shown.source {
                    let _ = write!(what, " (of {})", source.display());
                }
                if let Some(link) = &shown.link {
                    let _ = write!(what, " → {}", link.display());
                }
                (what, shown.reason.clone())
            }),
        );
        section(
            text,
            "directories in memory",
            self.memory_directories.iter().map(|memory| {
                (
                    format!("{} {}", memory.path.display(), size(u64::from(memory.mib) << 20)),
                    memory.reason.clone(),
                )
            }),
        );
        section(
            text,
            "protected in the workspace now",
            self.protected.iter().map(|kept| {
                (format!("{:<7} {}", kept.how, kept.path.display()), kept.reason.clone())
            }),
        );
        section(
            text,
            "protected wherever it is there at the start",
            self.protected_patterns.iter().map(|pattern| {
                let access = match pattern.access {
                    super::profile::Protection::Hidden => "hide",
                    super::profile::Protection::ReadOnly => "freeze",
                };
                (format!("{access:<7} {}", pattern.path), pattern.reason.clone())
            }),
        );
    }

    fn say_rules(&self, text: &mut String) {
        section(
            text,
            "Landlock",
            self.landlock.iter().map(|grant| {
                let rights = serde_json::to_string(&grant.rights).expect("a word is JSON");
                (format!("{:<7} {}", rights.trim_matches('"'), grant.path.display()), String::new())
            }),
        );
        section(
            text,
            "system calls that fail",
            self.system_calls.denied.iter().map(|deny| (deny.calls.join(" "), deny.reason.clone())),
        );
        section(
            text,
            "system calls that fail for some arguments",
            self.system_calls.denied_for_some_arguments.iter().map(|deny| {
                let rule = serde_json::to_string(&deny.rule).expect("a word is JSON");
                (rule.trim_matches('"').to_owned(), deny.reason.clone())
            }),
        );
        let paths = |paths: &[PathBuf]| {
            paths.iter().map(|path| (path.display().to_string(), String::new())).collect::<Vec<_>>()
        };
        section(text, "read-only in /proc", paths(&self.proc.read_only).into_iter());
        section(text, "empty in /proc", paths(&self.proc.empty).into_iter());
        section(
            text,
            "limits",
            self.limits.iter().map(|limit| {
                (
                    format!("{} {}", limit.resource.as_str(), amount(limit.resource, limit.value)),
                    limit.reason.clone(),
                )
            }),
        );
        section(
            text,
            "environment",
            self.environment.iter().map(|(name, value)| (format!("{name}={value}"), String::new())),
        );
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = (String, String)>) {
    text.push_str(&format!("\n{title}\n"));
    let before = text.len();
    for (what, reason) in lines {
        match reason.is_empty() {
            true => text.push_str(&format!("  {what}\n")),
            false => text.push_str(&format!("  {what}  — {reason}\n")),
        }
    }
    if text.len() == before {
        text.push_str("  (nothing)\n");
    }
}

fn shown(profile: &Profile, workspace: &Path, mount: &super::plan::Mount) -> Shown {
    let named = profile.mount.iter().find(|show| match show.path.strip_prefix('~') {
        Some(below) => mount.target.to_string_lossy().ends_with(below),
        None => mount.target == Path::new(&show.path),
    });
    let reason = match named {
        _ if mount.target == workspace => "the workspace".to_owned(),
        Some(show) => show.reason.clone(),
        None => "asked for with --mount".to_owned(),
    };
    let link = match &mount.kind {
        PathKind::Link(to) => Some(to.clone()),
        PathKind::Directory | PathKind::File => None,
    };
    Shown {
        path: mount.target.clone(),
        source: (mount.source != mount.target).then(|| mount.source.clone()),
        link,
        access: mount.access,
        reason,
    }
}

fn kept(profile: &Profile, held: &Held) -> Kept {
    let how = match held.hold {
        Hold::Hide(_) => "hide",
        Hold::Freeze | Hold::FreezeLink(_) => "freeze",
        Hold::Pin => "pin",
    };
    let protect = profile.protect.iter().find(|protect| protect.path == held.pattern);
    let reason = match (&held.hold, protect) {
        (Hold::Pin, _) => format!("holds `{}`", held.pattern),
        (_, Some(protect)) => protect.reason.clone(),
        (_, None) => String::new(),
    };
    Kept { path: held.path.clone(), how, reason }
}

/// A value in its resource's unit.
pub(super) fn amount(resource: Resource, value: u64) -> String {
    match resource {
        Resource::Memory
        | Resource::Disk
        | Resource::Output
        | Resource::Core
        | Resource::Memlock
        | Resource::Msgqueue
        | Resource::Fsize => size(value),
        Resource::Io => format!("{} a second", size(value)),
        Resource::Idle => format!("{value} s"),
        Resource::Cpu => format!("{value} %"),
        Resource::Nproc | Resource::Nofile | Resource::Sigpending => value.to_string(),
    }
}

/// Bytes as people say them: the largest unit with at most one digit after the point.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            let tenths = bytes * 10 / unit;
            return match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                rest => format!("{}.{rest} {name}", tenths / 10),
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Environment, Tier};
    use crate::sandbox::plan::tests::host;
    use crate::sandbox::plan::{Host, plan};
    use crate::sandbox::profile::{BUILT_IN, Kind};
    use crate::sandbox::protect::Found;

    fn view(name: &str, tier: Tier) -> View {
        let profile = Profile::built_in(name).unwrap();
        let held = |path: &str, hold, pattern: &str| Held {
            path: path.into(),
            hold,
            pattern: pattern.to_owned(),
            within: None,
        };
        let all = vec![
            held("/home/u/project/.env", Hold::Hide(Kind::File), ".env"),
            held("/home/u/project/.git", Hold::Pin, ".git/config"),
            held("/home/u/project/.git/config", Hold::Freeze, ".git/config"),
        ];
        let found =
            Found { held: if tier == Tier::Full { all } else { Vec::new() }, ..Found::default() };
        let mut environment = Environment::new("/home/u/project".into());
        environment.tier = tier;
        View::of(profile, plan(profile, &environment, &Host { found, ..host() }).unwrap())
    }

    #[test]
    fn every_profile_as_text() {
        for (name, _) in BUILT_IN {
            insta::assert_snapshot!(format!("show_{name}"), view(name, Tier::Full).text());
        }
    }

    #[test]
    fn the_default_profile_as_json_and_without_namespaces() {
        insta::assert_snapshot!("show_json", view("default", Tier::Full).json());
        insta::assert_snapshot!("show_landlock", view("default", Tier::Landlock).text());
    }

    #[test]
    fn sizes_are_said_as_people_say_them() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(65_536, "64 KiB");
        check(819_200, "800 KiB");
        check(2 << 30, "2 GiB");
        check((3 << 30) / 2, "1.5 GiB");
    }
}
