//! What a profile's text must be beyond its shape, and where in the file it is not.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Profile, ProfileError, Resource, Without};
use crate::sandbox::seccomp;

/// A field that is wrong: of the profile itself, or of an entry of one of its tables.
pub(super) struct Fault {
    table: Option<(&'static str, usize)>,
    field: &'static str,
    problem: String,
}

impl Fault {
    /// In a field of the profile itself.
    pub(super) fn top(field: &'static str, problem: impl Into<String>) -> Self {
        Self { table: None, field, problem: problem.into() }
    }

    fn entry(
        table: &'static str,
        index: usize,
        field: &'static str,
        problem: impl Into<String>,
    ) -> Self {
        Self { table: Some((table, index)), field, problem: problem.into() }
    }

    /// The error, with the line that the field stands on.
    pub(super) fn in_file(self, file: &str, text: &str) -> ProfileError {
        let line = line_of(text, self.offset(text).unwrap_or(0));
        let field = match self.table {
            Some((table, _)) => format!("{table}.{}", self.field),
            None => self.field.to_owned(),
        };
        ProfileError::Wrong { file: file.to_owned(), line, field, problem: self.problem }
    }

    fn offset(&self, text: &str) -> Option<usize> {
        let document = DeTable::parse(text).ok()?.into_inner();
        let Some((table, index)) = self.table else {
            return Some(document.get(self.field)?.span().start);
        };
        let DeValue::Array(entries) = document.get(table)?.get_ref() else { return None };
        let entry = entries.get(index)?;
        let DeValue::Table(fields) = entry.get_ref() else { return None };
        Some(fields.get(self.field).map_or(entry.span().start, |value| value.span().start))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A text that is not of a profile's shape. The parser names the key in its message; the field is what the line holds.
pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ProfileError {
    let offset = error.span().map_or(0, |span| span.start);
    let line = line_of(text, offset);
    let words = text.lines().nth(line - 1).unwrap_or_default();
    let field = words.split('=').next().unwrap_or_default().trim().trim_matches(['[', ']']);
    let field = if field.is_empty() { "profile" } else { field };
    let problem = error.message().replace('\n', " ");
    ProfileError::Wrong { file: file.to_owned(), line, field: field.to_owned(), problem }
}

/// `[[without]]` in a profile that extends none.
pub(super) fn nothing_to_take_away() -> Fault {
    let problem = "takes something away from a profile that extends none; say which with `extends`";
    Fault::entry("without", 0, "reason", problem)
}

/// `[[without]]` of what the extended profile does not have.
pub(super) fn nothing_like_it(index: usize, without: &Without) -> Fault {
    let field = named(without).first().copied().unwrap_or("reason");
    Fault::entry("without", index, field, "the extended profile has nothing like it")
}

fn named(without: &Without) -> Vec<&'static str> {
    let Without { mount, tmpfs, protect, deny, deny_if, limit, env, reason: _ } = without;
    let fields = [
        ("mount", mount.is_some()),
        ("tmpfs", tmpfs.is_some()),
        ("protect", protect.is_some()),
        ("deny", deny.is_some()),
        ("deny_if", deny_if.is_some()),
        ("limit", limit.is_some()),
        ("env", env.is_some()),
    ];
    fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

/// The first thing that is wrong with a profile, by itself.
pub(super) fn faults(profile: &Profile) -> Option<Fault> {
    top(profile)
        .or_else(|| reasons(profile))
        .or_else(|| paths(profile))
        .or_else(|| numbers(profile))
        .or_else(|| calls(profile))
        .or_else(|| names(profile))
        .or_else(|| duplicates(profile))
}

fn top(profile: &Profile) -> Option<Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if profile.name.is_empty() || !profile.name.chars().all(plain) {
        return Some(Fault::top("name", "a name has letters, digits, `-` and `_`"));
    }
    let root = profile.root.as_deref()?;
    let problem = path_problem(&root.to_string_lossy())?;
    Some(Fault::top("root", problem))
}

/// Shorter than this, it says nothing.
const SHORTEST_REASON: usize = 6;

fn reasons(profile: &Profile) -> Option<Fault> {
    fn first<T>(table: &'static str, entries: &[T], reason: fn(&T) -> &str) -> Option<Fault> {
        let index =
            entries.iter().position(|entry| reason(entry).trim().len() < SHORTEST_REASON)?;
        Some(Fault::entry(table, index, "reason", "say why, in some words"))
    }
    first("mount", &profile.mount, |entry| &entry.reason)
        .or_else(|| first("tmpfs", &profile.tmpfs, |entry| &entry.reason))
        .or_else(|| first("protect", &profile.protect, |entry| &entry.reason))
        .or_else(|| first("proc_read_only", &profile.proc_read_only, |entry| &entry.reason))
        .or_else(|| first("proc_mask", &profile.proc_mask, |entry| &entry.reason))
        .or_else(|| first("deny", &profile.deny, |entry| &entry.reason))
        .or_else(|| first("deny_if", &profile.deny_if, |entry| &entry.reason))
        .or_else(|| first("limit", &profile.limit, |entry| &entry.reason))
        .or_else(|| first("env", &profile.env, |entry| &entry.reason))
        .or_else(|| first("without", &profile.without, |entry| &entry.reason))
}

fn path_problem(path: &str) -> Option<String> {
    let absolute = path.starts_with('/') || path.starts_with("~/");
    if !absolute || path.split('/').any(|part| part == "..") {
        return Some(format!("`{path}` must be absolute and without `..`"));
    }
    (path.trim_matches('/').is_empty()).then(|| "`/` itself cannot be named".to_owned())
}

fn paths(profile: &Profile) -> Option<Fault> {
    for (index, show) in profile.mount.iter().enumerate() {
        let own =
            ["/proc", "/dev", "/sys"].iter().find(|own| Path::new(&show.path).starts_with(own));
        let own = own.map(|own| format!("`{own}` is the sandbox's own and cannot be the host's"));
        if let Some(problem) = path_problem(&show.path).or(own) {
            return Some(Fault::entry("mount", index, "path", problem));
        }
    }
    for (index, tmpfs) in profile.tmpfs.iter().enumerate() {
        if let Some(problem) = path_problem(&tmpfs.path) {
            return Some(Fault::entry("tmpfs", index, "path", problem));
        }
    }
    for (table, places) in
        [("proc_read_only", &profile.proc_read_only), ("proc_mask", &profile.proc_mask)]
    {
        for (index, place) in places.iter().enumerate() {
            if path_problem(&place.path).is_some() || !place.path.starts_with("/proc/") {
                let problem = format!("`{}` must be below /proc", place.path);
                return Some(Fault::entry(table, index, "path", problem));
            }
        }
    }
    let pattern = |path: &str| {
        path.split('/').any(|part| matches!(part, "" | "." | ".." | "**"))
            || path.starts_with("*/")
            || path == "*"
    };
    let index = profile.protect.iter().position(|protect| pattern(&protect.path))?;
    let problem =
        "must be names with `/` between them, relative, with `*` for any part of one name";
    Some(Fault::entry("protect", index, "path", problem))
}

fn numbers(profile: &Profile) -> Option<Fault> {
    let at_least = |table, index, field, name: &str| {
        Some(Fault::entry(table, index, field, format!("`{name}` needs at least 1")))
    };
    if let Some(index) = profile.tmpfs.iter().position(|tmpfs| tmpfs.mib == 0) {
        return at_least("tmpfs", index, "mib", &profile.tmpfs[index].path);
    }
    // No core dump at all is a sensible limit; nothing of anything else is not.
    let zero = |limit: &super::Limit| limit.value == 0 && limit.resource != Resource::Core;
    let index = profile.limit.iter().position(zero)?;
    at_least("limit", index, "value", profile.limit[index].resource.as_str())
}

fn calls(profile: &Profile) -> Option<Fault> {
    for (index, deny) in profile.deny.iter().enumerate() {
        if let Some(unknown) = deny.calls.iter().find(|call| !seccomp::is_known(call)) {
            let problem = format!("`{unknown}` is not a system call that a profile can name");
            return Some(Fault::entry("deny", index, "calls", problem));
        }
    }
    None
}

fn names(profile: &Profile) -> Option<Fault> {
    let bad = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if let Some(index) = profile.env.iter().position(|variable| bad(&variable.name)) {
        return Some(Fault::entry("env", index, "name", "a name has neither `=` nor NUL"));
    }
    if let Some(index) = profile.env.iter().position(|variable| variable.value.contains('\0')) {
        return Some(Fault::entry("env", index, "value", "a value has no NUL"));
    }
    let index = profile.without.iter().position(|without| named(without).len() != 1)?;
    Some(Fault::entry("without", index, "reason", "must name exactly one entry"))
}

fn duplicates(profile: &Profile) -> Option<Fault> {
    fn first<K: PartialEq>(
        table: &'static str,
        field: &'static str,
        keys: impl Iterator<Item = (usize, K)>,
    ) -> Option<Fault> {
        let keys: Vec<_> = keys.collect();
        let mut again = keys
            .iter()
            .enumerate()
            .filter(|(at, (_, key))| keys[..*at].iter().any(|(_, earlier)| earlier == key));
        let (_, (index, _)) = again.next()?;
        Some(Fault::entry(table, *index, field, "this is named twice"))
    }
    let calls = profile.deny.iter().enumerate();
    let calls = calls.flat_map(|(index, deny)| deny.calls.iter().map(move |call| (index, call)));
    first("mount", "path", profile.mount.iter().map(|entry| &entry.path).enumerate())
        .or_else(|| first("tmpfs", "path", profile.tmpfs.iter().map(|e| &e.path).enumerate()))
        .or_else(|| first("protect", "path", profile.protect.iter().map(|e| &e.path).enumerate()))
        .or_else(|| {
            first(
                "proc_read_only",
                "path",
                profile.proc_read_only.iter().map(|e| &e.path).enumerate(),
            )
        })
        .or_else(|| {
            first("proc_mask", "path", profile.proc_mask.iter().map(|e| &e.path).enumerate())
        })
        .or_else(|| first("deny", "calls", calls))
        .or_else(|| first("deny_if", "rule", profile.deny_if.iter().map(|e| e.rule).enumerate()))
        .or_else(|| {
            first("limit", "resource", profile.limit.iter().map(|e| e.resource).enumerate())
        })
        .or_else(|| first("env", "name", profile.env.iter().map(|e| &e.name).enumerate()))
}
