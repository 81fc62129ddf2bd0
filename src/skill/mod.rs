//! A skill as its directory says: a `SKILL.md` with a head of YAML and a body of instructions, as agentskills.io has it.
//! What is wrong with one is told by file and field, with what would mend it.

mod head;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{
    MAX_SKILL_COMPATIBILITY_CHARS, MAX_SKILL_DESCRIPTION_CHARS, MAX_SKILL_MD_BYTES,
    MAX_SKILL_NAME_CHARS,
};
use head::Head;

/// The file that makes a directory a skill.
pub const SKILL_FILE: &str = "SKILL.md";

/// A skill that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// 1 to 64 of `a-z`, `0-9` and `-`: what it is called, also as a directory.
    pub name: String,
    /// What it does and when to use it: one line of at most 1024 characters.
    pub description: String,
    /// Under which terms.
    pub license: Option<String>,
    /// What it needs.
    pub compatibility: Option<String>,
    /// Its author's own words about it.
    pub metadata: BTreeMap<String, String>,
    /// The tools that it would have allowed. Nothing is allowed by it: it may be a stranger's.
    pub allowed_tools: Option<String>,
}

/// A skill that a session is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSkill {
    /// Its name, and that of its directory.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// Where it is from: a directory of the host, a stored version, or a directory of a repository.
    pub from: String,
    /// What all its files hold and are called, as a SHA-256.
    pub digest: String,
}

/// What the repositories of a session brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The skills that it is shown.
    pub skills: Vec<ShownSkill>,
    /// What is none, or has a name that another one has, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Other programs may refuse it.
    Note,
    /// Against the format: used where it lies, refused where it is uploaded.
    Fault,
    /// Nobody can use it.
    Fatal,
}

impl Severity {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Fault => "fault",
            Self::Fatal => "fatal",
        }
    }
}

/// What is wrong with a skill, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named by whoever read it.
    pub file: String,
    /// The field of its head, if it is one.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}; {}", self.problem, self.fix)
    }
}

/// What came of reading one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The skill, unless something is fatal.
    pub skill: Option<Skill>,
    /// Whatever is wrong, the worst last.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the `SKILL.md` of a directory of that name. `file` is what diagnostics call it.
#[must_use]
pub fn read(file: &str, directory: &str, bytes: &[u8]) -> Reading {
    let mut judge = Judge { file, diagnostics: Vec::new() };
    let skill = judge.skill(directory, bytes);
    judge.diagnostics.sort_by_key(|diagnostic| diagnostic.severity);
    Reading { skill, diagnostics: judge.diagnostics }
}

/// What is wrong with a name, if anything.
///
/// # Errors
/// Says it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() {
        Err("is empty")
    } else if name.chars().count() > MAX_SKILL_NAME_CHARS {
        Err("has more than 64 characters")
    } else if !name.bytes().all(plain) {
        Err("has other characters than a-z, 0-9 and `-`")
    } else if name.starts_with('-') || name.ends_with('-') {
        Err("begins or ends with `-`")
    } else if name.contains("--") {
        Err("has `--` in it")
    } else {
        Ok(())
    }
}

/// Gathers what is wrong.
struct Judge<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl Judge<'_> {
    fn say(
        &mut self,
        severity: Severity,
        field: Option<&str>,
        problem: impl Into<String>,
        fix: &str,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            file: self.file.to_owned(),
            field: field.map(str::to_owned),
            problem: problem.into(),
            fix: fix.to_owned(),
        });
    }

    fn skill(&mut self, directory: &str, bytes: &[u8]) -> Option<Skill> {
        let head = self.head(bytes)?;
        for field in &head.unknown {
            self.say(
                Severity::Note,
                Some(field),
                "the format has no such field",
                "put it below `metadata`",
            );
        }
        let name = self.name(&head, directory);
        let description = self.description(&head);
        let compatibility = self.text("compatibility", head.compatibility);
        if let Some(text) = &compatibility
            && text.chars().count() > MAX_SKILL_COMPATIBILITY_CHARS
        {
            self.say(
                Severity::Fault,
                Some("compatibility"),
                "has more than 500 characters",
                "say what it needs, and the rest in the body",
            );
        }
        if head.tools_are_listed {
            self.say(
                Severity::Note,
                Some("allowed-tools"),
                "is a list",
                "write the tools into one text, with spaces between them",
            );
        }
        Some(Skill {
            name: name?,
            description: description?,
            license: self.text("license", head.license),
            compatibility,
            metadata: head.metadata,
            allowed_tools: head.allowed_tools,
        })
    }

    /// The head's fields, read as what their author meant if a colon makes YAML something else of them.
    fn head(&mut self, bytes: &[u8]) -> Option<Head> {
        if bytes.len() > MAX_SKILL_MD_BYTES {
            let problem = format!("has more than {MAX_SKILL_MD_BYTES} bytes");
            self.say(
                Severity::Fatal,
                None,
                problem,
                "move what is not always needed to files beside it",
            );
            return None;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.say(Severity::Fatal, None, "is not UTF-8", "save it as UTF-8");
            return None;
        };
        let unmarked = text.strip_prefix('\u{feff}');
        if unmarked.is_some() {
            self.say(
                Severity::Fault,
                None,
                "begins with a byte order mark",
                "save it as UTF-8 without one",
            );
        }
        let yaml = match head::cut(unmarked.unwrap_or(text)) {
            Ok(yaml) => yaml,
            Err(problem) => {
                self.say(
                    Severity::Fatal,
                    None,
                    problem,
                    "begin it with a line `---`, the fields, and another line `---`",
                );
                return None;
            }
        };
        let error = match head::parse(yaml) {
            Ok(head) => return Some(head),
            Err(error) => error,
        };
        if let Some((head, field)) = head::parse_quoted(yaml) {
            let problem = "has a colon that makes YAML another thing of it";
            self.say(Severity::Fault, Some(&field), problem, "put the text into quotes");
            return Some(head);
        }
        self.say(
            Severity::Fatal,
            error.field.as_deref(),
            error.problem,
            "write the fields as YAML, each a name, a colon and a text",
        );
        None
    }

    fn name(&mut self, head: &Head, directory: &str) -> Option<String> {
        const FIX: &str = "use at most 64 of a-z, 0-9 and single `-`";
        let field = Some("name");
        let of_directory = check_name(directory).is_ok().then(|| directory.to_owned());
        let Some(name) = head.name.as_deref().map(str::trim).filter(|name| !name.is_empty()) else {
            let worst = if of_directory.is_some() { Severity::Note } else { Severity::Fatal };
            self.say(worst, field, "is missing", "give it the name of the directory");
            return of_directory;
        };
        if let Err(problem) = check_name(name) {
            let worst = if of_directory.is_some() { Severity::Fault } else { Severity::Fatal };
            self.say(worst, field, problem, FIX);
            return of_directory;
        }
        if name != directory {
            let problem = format!("is `{name}`, and the directory `{}`", shown(directory));
            self.say(Severity::Fault, field, problem, "give both the same name");
        }
        Some(name.to_owned())
    }

    fn description(&mut self, head: &Head) -> Option<String> {
        let field = Some("description");
        let text = one_line(head.description.as_deref().unwrap_or_default());
        if text.is_empty() {
            let problem = if head.description.is_some() { "is empty" } else { "is missing" };
            self.say(
                Severity::Fatal,
                field,
                problem,
                "say in a sentence or two what it does and when to use it",
            );
            return None;
        }
        // As its author wrote it, for that is what others count.
        let written = head.description.as_deref().map_or(0, |text| text.trim().chars().count());
        if written > MAX_SKILL_DESCRIPTION_CHARS {
            self.say(
                Severity::Fault,
                field,
                "has more than 1024 characters",
                "say the rest in the body",
            );
        }
        Some(text.chars().take(MAX_SKILL_DESCRIPTION_CHARS).collect())
    }

    fn text(&mut self, field: &str, text: Option<String>) -> Option<String> {
        let text = text?;
        if text.trim().is_empty() {
            self.say(Severity::Note, Some(field), "is empty", "leave it out");
            return None;
        }
        Some(text)
    }
}

/// A text of a stranger's as one line: nothing of it can look like the beginning of something else.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
