//! Permission rules: `TOOL` or `TOOL(PATTERN)`, for calls by their tool and their arguments. What they come to is judged in
//! `tool::policy`.
//!
//! ```text
//! bash(git log *)            words of one command; `*` within a word, and as the last one any more words
//! read(/etc/**)  edit(src/**)   a path, below the workspace if it is relative; `read` also covers glob and grep, `edit` write
//! web_fetch(domain:docs.rs)  a host and all below it
//! mcp(server/tool)           a tool of a server; `server/*` all of them
//! ```

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// Most rules of one list: what a person can oversee.
pub const MAX_RULES: usize = 256;
/// Longest rule in bytes.
pub const MAX_RULE_BYTES: usize = 1000;

/// What is denied, what asks and what is allowed, in this order of strength.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Rule>,
    /// Asked about, whatever the tool's policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<Rule>,
    /// Run without asking, whatever the tool's policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Rule>,
}

impl Rules {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.ask.is_empty() && self.allow.is_empty()
    }

    /// These and the other ones.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.deny.extend(other.deny.iter().cloned());
        self.ask.extend(other.ask.iter().cloned());
        self.allow.extend(other.allow.iter().cloned());
        self
    }
}

/// Rules as a person writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesParams {
    /// See [`Rules::deny`].
    pub deny: Vec<String>,
    /// See [`Rules::ask`].
    pub ask: Vec<String>,
    /// See [`Rules::allow`].
    pub allow: Vec<String>,
}

impl RulesParams {
    /// Checks every rule.
    ///
    /// # Errors
    /// The path of the first that is wrong, such as `deny[2]`, and what is wrong with it.
    pub fn validate(self) -> Result<Rules, (String, String)> {
        let list = |name: &str, rules: Vec<String>| {
            if rules.len() > MAX_RULES {
                return Err((name.to_owned(), format!("at most {MAX_RULES} rules can be given")));
            }
            let rules = rules.into_iter().enumerate();
            let rule = |(i, text)| Rule::parse(text).map_err(|e| (format!("{name}[{i}]"), e));
            rules.map(rule).collect::<Result<Vec<_>, _>>()
        };
        Ok(Rules {
            deny: list("deny", self.deny)?,
            ask: list("ask", self.ask)?,
            allow: list("allow", self.allow)?,
        })
    }
}

/// One rule. Two with the same text are the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    text: String,
    /// Which calls it is for.
    pub subject: Subject,
}

/// Which calls a rule is for.
#[derive(Debug, Clone)]
pub enum Subject {
    /// All of a tool.
    Tool(String),
    /// A command, word by word.
    Command(Vec<Word>),
    /// A path, for the tools that the rule's tool stands for.
    Path(&'static [&'static str], PathPattern),
    /// A host and all below it, as text: rules that are stored may name what is no host, such as `a..b`, and must stay
    /// readable.
    Domain(String),
    /// A tool of an MCP server, or all of them.
    Mcp(String, Option<String>),
}

/// A pattern for one word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// Whether it is a star alone: as a rule's last word it stands for any more words.
    #[must_use]
    pub fn is_star(&self) -> bool {
        self.0 == "*"
    }

    /// Whether it is that word.
    #[must_use]
    pub fn matches(&self, word: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(rest) = word.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
        let mut pieces: Vec<_> = pieces.collect();
        let Some(last) = pieces.pop() else { return rest.is_empty() };
        let mut rest = rest;
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

/// A pattern for paths.
#[derive(Debug, Clone)]
pub struct PathPattern {
    /// It is relative to the workspace.
    pub relative: bool,
    /// What comes before its first special character, up to the last slash; all of it where there is none.
    pub prefix: String,
    glob: GlobMatcher,
}

impl PathPattern {
    /// Whether it is that path, seen from the workspace if the pattern is.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.glob.is_match(path)
    }
}

/// Tools with a path and the calls that a rule for each covers: who may not read a file may not search it either.
const PATHS: [(&str, &[&str]); 5] = [
    ("read", &["read", "glob", "grep"]),
    ("edit", &["edit", "write"]),
    ("write", &["write"]),
    ("glob", &["glob"]),
    ("grep", &["grep"]),
];

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: String) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("`{text}`: {what}"));
        if text.len() > MAX_RULE_BYTES || text.chars().any(char::is_control) {
            return Err(format!("a rule is one line of at most {MAX_RULE_BYTES} bytes"));
        }
        let (tool, pattern) = match text.split_once('(') {
            None => (text.as_str(), None),
            Some((tool, rest)) => match rest.strip_suffix(')') {
                Some(pattern) if !pattern.trim().is_empty() => (tool, Some(pattern)),
                Some(_) => return wrong("there is nothing between the parentheses"),
                None => return wrong("it ends without `)`"),
            },
        };
        let path = PATHS.iter().find(|(name, _)| *name == tool);
        let subject = match (tool, pattern) {
            ("bash" | "web_fetch" | "web_search", None) => Ok(Subject::Tool(tool.to_owned())),
            (_, None) if path.is_some() => Ok(Subject::Tool(tool.to_owned())),
            ("bash", Some(words)) => command(words),
            ("web_fetch", Some(pattern)) => domain(pattern),
            ("mcp", Some(pattern)) => server(pattern),
            ("mcp", None) => Err("name a server: mcp(SERVER/TOOL) or mcp(SERVER/*)".to_owned()),
            (_, Some(pattern)) => match path {
                Some((_, covers)) => path_pattern(pattern).map(|p| Subject::Path(covers, p)),
                None => Err(unknown(tool)),
            },
            (_, None) => Err(unknown(tool)),
        };
        match subject {
            Ok(subject) => Ok(Self { text, subject }),
            Err(what) => wrong(&what),
        }
    }
}

fn unknown(tool: &str) -> String {
    format!(
        "there are no rules for `{tool}`; there are for bash, read, write, edit, glob, grep, web_fetch, web_search and mcp"
    )
}

fn command(words: &str) -> Result<Subject, String> {
    let words: Vec<_> = words.split_whitespace().map(|word| Word(word.to_owned())).collect();
    let first = &words.first().expect("it is not blank").0;
    if first.contains('*') {
        return Err("it must begin with the name of a command; `bash` alone is for all".to_owned());
    }
    let quoted =
        |word: &Word| word.0.contains(['"', '\'', '\\', '$', '`', ';', '|', '&', '<', '>']);
    if words.iter().any(quoted) {
        return Err("it is for the words of one command, without quotes and operators".to_owned());
    }
    Ok(Subject::Command(words))
}

fn path_pattern(pattern: &str) -> Result<PathPattern, String> {
    if pattern.split('/').any(|part| part == "..") || pattern.starts_with('~') {
        return Err("the path must be whole: no `..` and no `~`".to_owned());
    }
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    let glob = glob.map_err(|e| e.kind().to_string())?.compile_matcher();
    let special = pattern.find(['*', '?', '[', '{', '\\']);
    let literal = |special| pattern[..special].rsplit_once('/').map_or("", |(before, _)| before);
    let prefix = special.map_or(pattern, literal).to_owned();
    Ok(PathPattern { relative: !pattern.starts_with('/'), prefix, glob })
}

fn domain(pattern: &str) -> Result<Subject, String> {
    let host = pattern.strip_prefix("domain:").ok_or("write it as web_fetch(domain:HOST)")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if host.is_empty() || !host.chars().all(plain) || host.starts_with('.') {
        return Err("a domain is a plain host name".to_owned());
    }
    Ok(Subject::Domain(host.to_ascii_lowercase()))
}

fn server(pattern: &str) -> Result<Subject, String> {
    match pattern.split_once('/') {
        Some((server, "*")) if !server.is_empty() => Ok(Subject::Mcp(server.to_owned(), None)),
        Some((server, tool)) if !server.is_empty() && !tool.is_empty() => {
            Ok(Subject::Mcp(server.to_owned(), Some(tool.to_owned())))
        }
        _ => Err("write it as mcp(SERVER/TOOL) or mcp(SERVER/*)".to_owned()),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rule {}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rule_is_named() {
        let check = |text: &str, expected: &str| {
            let wrong = Rule::parse(text.to_owned()).expect_err(text);
            assert!(wrong.contains(expected), "{text}: {wrong}");
        };
        check("", "there are no rules for ``");
        check("bsh(git *)", "there are no rules for `bsh`");
        check("bash(git *", "ends without `)`");
        check("bash()", "nothing between the parentheses");
        check("bash(*)", "must begin with the name of a command");
        check("bash(git 'a b')", "without quotes");
        check("bash(a && b)", "without quotes and operators");
        check("read(../x)", "no `..`");
        check("read(~/x)", "no `~`");
        check("read([)", "`read([)`: ");
        check("web_fetch(docs.rs)", "domain:HOST");
        check("web_fetch(domain:a b)", "plain host name");
        check("mcp", "name a server");
        check("mcp(x)", "mcp(SERVER/TOOL)");
        check("read(a\nb)", "one line");
        check(&format!("bash({})", "x".repeat(1000)), "at most 1000 bytes");
        let params =
            RulesParams { deny: vec!["bash".into(), "x".into()], ..RulesParams::default() };
        assert_eq!(params.validate().expect_err("no rule").0, "deny[1]");
    }

    #[test]
    fn a_word_matches_as_a_whole() {
        let check = |pattern: &str, word: &str, expected: bool| {
            assert_eq!(Word(pattern.to_owned()).matches(word), expected, "{pattern} {word}");
        };
        check("git", "git", true);
        check("git", "gitx", false);
        check("git", "xgit", false);
        check("a*", "a", true);
        check("a*", "ab", true);
        check("a*b", "ab", true);
        check("a*b", "a", false);
        check("a*a", "a", false);
        check("*:x:*", "ab:x:", true);
        check("*", "", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "acb", false);
    }
}
