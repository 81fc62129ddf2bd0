//! Permission policy: may this call run? Pure but for one question to the file system, which the caller answers.
//!
//! Rules come first, deny before ask before allow; then the tool's own policy. A rule that says no counts if any part of
//! a call may be what it names, one that says yes only if every part certainly is. What nobody can tell is asked.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::shell::{self, Line, Part, base_name};
use crate::agent::rules::{PathPattern, Rule, Rules, Subject, Word};
use crate::agent::{Agent, PermissionPolicy};
use crate::event::{Evaluation, Judgement, Permission, ReasonCode};

/// A call that is to be judged.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The tool, as the model named it.
    pub name: &'a str,
    /// The MCP server that has the tool, and the tool's name there; nothing for other tools.
    pub mcp: Option<(&'a str, &'a str)>,
    /// The arguments.
    pub input: &'a Map<String, Value>,
    /// Where relative paths begin.
    pub workspace: &'a Path,
    /// Where a path leads past all links, if anybody can tell.
    pub resolve: &'a dyn Fn(&Path) -> Option<PathBuf>,
}

/// What the policy says, and how it came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'r> {
    /// Run, ask or refuse.
    pub permission: Permission,
    /// Absent if no policy applies, because there is no such tool or it is disabled.
    pub evaluation: Option<Evaluation>,
    /// The rule that decided, if one did.
    pub rule: Option<&'r Rule>,
    /// No rule is about the call and its tool's policy is to judge each: a judge may, if there is one.
    pub is_for_judge: bool,
}

/// Whether a rule is about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// Nobody can tell.
    Unclear,
}

impl From<bool> for Match {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

/// Judges a call.
#[must_use]
pub fn evaluate<'r>(agent: &'r Agent, asked: &Asked<'_>) -> Verdict<'r> {
    let Some(policy) = policy_of(agent, asked) else {
        let (permission, evaluation) = (Permission::Deny, None);
        return Verdict { permission, evaluation, rule: None, is_for_judge: false };
    };
    let auto = |evaluated_permission| Some(Evaluation::Auto { evaluated_permission });
    let unclear = Judgement::Ask { reason_code: ReasonCode::Indeterminate };
    let call = Call::of(asked);
    let ruled = judge(&agent.permissions, &call);
    let is_for_judge = ruled.is_none() && policy == PermissionPolicy::Auto;
    let (permission, evaluation, rule) = match ruled {
        Some((Permission::Deny, rule)) => {
            let refused = Judgement::Deny { reason_code: ReasonCode::HighRisk };
            (Permission::Deny, auto(refused), rule)
        }
        Some((Permission::Ask, Some(rule))) => {
            (Permission::Ask, Some(Evaluation::AlwaysAsk), Some(rule))
        }
        Some((Permission::Ask, None)) => (Permission::Ask, auto(unclear), None),
        Some((Permission::Allow, rule)) => match policy {
            PermissionPolicy::AlwaysAllow => {
                (Permission::Allow, Some(Evaluation::AlwaysAllow), rule)
            }
            PermissionPolicy::AlwaysAsk | PermissionPolicy::Auto => {
                (Permission::Allow, auto(Judgement::Allow), rule)
            }
        },
        None => match policy {
            PermissionPolicy::AlwaysAllow => {
                (Permission::Allow, Some(Evaluation::AlwaysAllow), None)
            }
            PermissionPolicy::AlwaysAsk => (Permission::Ask, Some(Evaluation::AlwaysAsk), None),
            // Until a judge has said more, nobody can tell, so the user decides.
            PermissionPolicy::Auto => (Permission::Ask, auto(unclear), None),
        },
    };
    Verdict { permission, evaluation, rule, is_for_judge }
}

/// The tool's own policy; nothing for a tool that the agent does not have.
fn policy_of(agent: &Agent, asked: &Asked<'_>) -> Option<PermissionPolicy> {
    let Some((server, tool)) = asked.mcp else {
        return agent.grant(asked.name).map(|grant| grant.permission_policy);
    };
    let setting = agent.mcp_server(server)?.setting(tool);
    setting.enabled.then_some(setting.permission_policy)
}

/// What the rules say, and which of them; nothing if none is about the call.
fn judge<'r>(rules: &'r Rules, call: &Call<'_>) -> Option<(Permission, Option<&'r Rule>)> {
    let named = |rules: &'r [Rule]| rules.iter().find(|rule| call.may_be(rule) == Match::Yes);
    if let Some(rule) = named(&rules.deny) {
        return Some((Permission::Deny, Some(rule)));
    }
    if let Some(rule) = named(&rules.ask) {
        return Some((Permission::Ask, Some(rule)));
    }
    let mut strict = rules.deny.iter().chain(&rules.ask);
    if strict.any(|rule| call.may_be(rule) == Match::Unclear) {
        return Some((Permission::Ask, None));
    }
    call.is_covered(&rules.allow).map(|rule| (Permission::Allow, Some(rule)))
}

/// A call in the terms of rules.
struct Call<'a> {
    name: &'a str,
    subject: About<'a>,
}

enum About<'a> {
    /// A command line, if it could be read.
    Commands(Option<Line>),
    Path(PathCall),
    Host(Option<String>),
    /// A tool of an MCP server.
    Server(&'a str, &'a str),
    Other,
}

/// A path as it is written, normalised, and as it leads past links.
struct PathCall {
    /// Absolute; `None` if it is no text.
    written: Option<PathBuf>,
    resolved: Option<PathBuf>,
    workspace: PathBuf,
    /// The call looks at what lies below it, too.
    walks: bool,
}

impl<'a> Call<'a> {
    fn of(asked: &Asked<'a>) -> Self {
        let text = |name: &str| asked.input.get(name).and_then(Value::as_str);
        if let Some((server, tool)) = asked.mcp {
            return Self { name: asked.name, subject: About::Server(server, tool) };
        }
        let subject = match asked.name {
            "bash" => About::Commands(text("command").and_then(shell::read)),
            "read" | "write" | "edit" => {
                About::Path(PathCall::of(asked, text("file_path").map(str::to_owned), false))
            }
            "glob" | "grep" => {
                let pattern = text("pattern").filter(|_| asked.name == "glob").unwrap_or_default();
                let leaves = pattern.starts_with('/') || pattern.split('/').any(|p| p == "..");
                let path = Some(text("path").unwrap_or(".").to_owned()).filter(|_| !leaves);
                About::Path(PathCall::of(asked, path, true))
            }
            "web_fetch" => About::Host(text("url").and_then(host)),
            _ => About::Other,
        };
        Self { name: asked.name, subject }
    }

    /// Whether a rule that says no is about any of it.
    fn may_be(&self, rule: &Rule) -> Match {
        match (&rule.subject, &self.subject) {
            (Subject::Tool(tool), _) => (tool == self.name).into(),
            (Subject::Command(words), About::Commands(line)) => {
                line.as_ref().map_or(Match::Unclear, |line| may_run(words, line))
            }
            (Subject::Path(tools, pattern), About::Path(path)) if tools.contains(&self.name) => {
                path.may_be(pattern)
            }
            (Subject::Domain(domain), About::Host(host)) => match host {
                None => Match::Unclear,
                Some(host) => is_below(host, domain).into(),
            },
            (Subject::Mcp(server, tool), About::Server(of, own)) => {
                is_tool_of(server, tool.as_deref(), of, own).into()
            }
            _ => Match::No,
        }
    }

    /// A rule that covers the last of it, where each part is covered by one.
    fn is_covered<'r>(&self, rules: &'r [Rule]) -> Option<&'r Rule> {
        let whole =
            |rule: &&Rule| matches!(&rule.subject, Subject::Tool(tool) if tool == self.name);
        if let Some(rule) = rules.iter().find(whole) {
            return Some(rule);
        }
        let one = |is: &dyn Fn(&Subject) -> bool| rules.iter().find(|rule| is(&rule.subject));
        match &self.subject {
            About::Commands(line) => {
                let line = line.as_ref().filter(|line| line.is_certain)?;
                let covers = |part: &Part| {
                    one(&|subject| match subject {
                        Subject::Command(words) => names(words, part, false),
                        _ => false,
                    })
                };
                let covering = line.parts.iter().map(covers).collect::<Option<Vec<_>>>()?;
                covering.last().copied()
            }
            About::Path(path) => one(&|subject| match subject {
                Subject::Path(tools, pattern) => tools.contains(&self.name) && path.is(pattern),
                _ => false,
            }),
            About::Host(host) => one(&|subject| match (subject, host) {
                (Subject::Domain(domain), Some(host)) => is_below(host, domain),
                _ => false,
            }),
            About::Server(of, own) => one(&|subject| match subject {
                Subject::Mcp(server, tool) => is_tool_of(server, tool.as_deref(), of, own),
                _ => false,
            }),
            About::Other => None,
        }
    }
}

/// Whether a rule's words are those of a command. A rule that says no knows a program by any path.
fn names(words: &[Word], part: &Part, by_any_path: bool) -> bool {
    let (open, words) = match words.split_last() {
        Some((last, rest)) if last.is_star() => (true, rest),
        _ => (false, words),
    };
    let fits = if open { part.len() >= words.len() } else { part.len() == words.len() };
    let mut pairs = words.iter().zip(part).enumerate();
    fits && pairs.all(|(i, (word, said))| {
        word.matches(said) || (by_any_path && i == 0 && word.matches(base_name(said)))
    })
}

/// Whether a line runs a command that a rule says no to. Where another command names it, nobody can tell.
fn may_run(words: &[Word], line: &Line) -> Match {
    if line.parts.iter().any(|part| names(words, part, true)) {
        return Match::Yes;
    }
    let program = words.first().expect("a rule has a word");
    let is_named = |argument: &String| {
        let mut named =
            argument.split(|c: char| !(c.is_ascii_alphanumeric() || "_-.+".contains(c)));
        named.any(|word| program.matches(word))
    };
    let mut arguments = line.parts.iter().flat_map(|part| &part[1..]);
    if !line.is_certain || arguments.any(is_named) { Match::Unclear } else { Match::No }
}

impl PathCall {
    fn of(asked: &Asked<'_>, path: Option<String>, walks: bool) -> Self {
        let written = path.map(|path| normal(&asked.workspace.join(path)));
        let resolved = written.as_deref().and_then(asked.resolve);
        let workspace = asked.workspace.to_owned();
        Self { written, resolved, workspace, walks }
    }

    fn fits(&self, pattern: &PathPattern, path: &Path) -> bool {
        let path =
            if pattern.relative { path.strip_prefix(&self.workspace).ok() } else { Some(path) };
        path.and_then(Path::to_str).is_some_and(|path| pattern.matches(path))
    }

    /// Certainly: as it is written and where it leads. What walks is allowed by a rule for all that lies below.
    fn is(&self, pattern: &PathPattern) -> bool {
        let (Some(written), Some(resolved)) = (&self.written, &self.resolved) else { return false };
        let fits = |path: &Path| {
            let below = path.join("x").join("x");
            self.fits(pattern, if self.walks { &below } else { path })
        };
        fits(written) && fits(resolved)
    }

    fn may_be(&self, pattern: &PathPattern) -> Match {
        let Some(written) = &self.written else { return Match::Unclear };
        let paths = [Some(written), self.resolved.as_ref()];
        if paths.into_iter().flatten().any(|path| self.fits(pattern, path)) {
            return Match::Yes;
        }
        // What is looked for lies below what is walked, or it is not known where the path leads.
        let base = if pattern.relative { self.workspace.as_path() } else { Path::new("/") };
        let prefix = base.join(pattern.prefix.trim_start_matches('/'));
        let meets = |path: &PathBuf| prefix.starts_with(path) || path.starts_with(&prefix);
        if self.walks && paths.into_iter().flatten().any(meets) {
            return Match::Unclear;
        }
        Match::No
    }
}

/// Without `.` and `..`, as it is written: links are another question.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// The host of an address as rules compare it; `None` where it may be read in two ways.
#[must_use]
pub fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    if !["http", "https"].contains(&scheme) || authority.contains('@') {
        return None;
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty() && host.chars().all(plain)).then(|| host.to_ascii_lowercase())
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a rule for a server, or for one tool of it, is for that tool.
fn is_tool_of(server: &str, tool: Option<&str>, of: &str, own: &str) -> bool {
    server == of && tool.is_none_or(|tool| tool == own)
}

/// The narrowest rules that would allow a call from now on; none if no narrow rule covers it. A tool of an MCP server is
/// named as `SERVER/TOOL`.
#[must_use]
pub fn narrowest(name: &str, input: &Map<String, Value>) -> Vec<String> {
    let text = |field: &str| input.get(field).and_then(Value::as_str);
    let rules = match name {
        "bash" => {
            let line = text("command").and_then(shell::read).filter(|line| line.is_certain);
            let parts = line.map_or_else(Vec::new, |line| line.parts);
            let mut rules: Vec<_> =
                parts.iter().map(|part| format!("bash({})", part.join(" "))).collect();
            let exact =
                parts.iter().flatten().all(|word| !word.is_empty() && !word.contains([' ', '*']));
            rules.dedup();
            if exact { rules } else { Vec::new() }
        }
        "read" | "write" | "edit" => {
            let special = |path: &&str| !path.contains(['*', '?', '[', ']', '{', '}', '\\']);
            let path = text("file_path").filter(special);
            path.map(|path| format!("{name}({path})")).into_iter().collect()
        }
        // A server's name with a slash in it could not be told from a tool's.
        _ => match name.split_once('/') {
            Some((_, tool)) if !tool.contains('/') => vec![format!("mcp({name})")],
            _ => Vec::new(),
        },
    };
    let all = rules.iter().all(|rule| Rule::parse(rule.clone()).is_ok());
    if all { rules } else { Vec::new() }
}

#[cfg(test)]
mod tests;
