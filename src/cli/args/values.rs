//! What a single word of the command line may be, and what is said of one that may not.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::environment::{Access, Tier, WorkspaceMode};
use crate::id::{EventId, SessionId};
use crate::limits::MAX_TASK_BYTES;
use crate::runtime::skills::Wanted;

/// What a run prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Words for people.
    #[default]
    Text,
    /// One JSON object at the end.
    Json,
    /// Every event on a line, as it comes.
    StreamJson,
}

impl OutputFormat {
    const ALL: [Self; 3] = [Self::Text, Self::Json, Self::StreamJson];

    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::StreamJson => "stream-json",
        }
    }
}

/// `--output`.
pub(super) fn format() -> impl TypedValueParser<Value = OutputFormat> {
    one_of(OutputFormat::ALL, OutputFormat::as_str)
}

/// How much of the network there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkWord {
    /// Nothing.
    None,
    /// The hosts that are listed.
    Limited,
    /// Every public address.
    Unrestricted,
}

impl NetworkWord {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Limited => "limited",
            Self::Unrestricted => "unrestricted",
        }
    }
}

/// `--network`.
pub(super) fn network() -> impl TypedValueParser<Value = NetworkWord> {
    let all = [NetworkWord::None, NetworkWord::Limited, NetworkWord::Unrestricted];
    one_of(all, NetworkWord::as_str)
}

/// `--sandbox`, from most to least.
pub(super) fn tier() -> impl TypedValueParser<Value = Tier> {
    one_of([Tier::Full, Tier::Landlock, Tier::None], Tier::as_str)
}

/// `--skills`.
pub(super) fn skills() -> impl TypedValueParser<Value = Wanted> {
    one_of([Wanted::None, Wanted::Trusted, Wanted::All], Wanted::as_str)
}

/// `--require-tier`: a number, or the tier's name.
pub(super) fn tier_number() -> impl TypedValueParser<Value = Tier> {
    PossibleValuesParser::new(["2", "1", "full", "landlock"]).map(|word| {
        let named = |tier: &Tier| tier.number().to_string() == word || tier.as_str() == word;
        Tier::ALL.into_iter().find(named).expect("clap let only these words through")
    })
}

/// `--workspace-mode`.
pub(super) fn workspace_mode() -> impl TypedValueParser<Value = WorkspaceMode> {
    one_of(WorkspaceMode::OF_THE_USER, WorkspaceMode::as_str)
}

fn one_of<T>(all: [T; 3], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).map(move |word| {
        let found = all.into_iter().find(|value| name(*value) == word);
        found.expect("clap let only these words through")
    })
}

/// Why a text cannot be a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// Nothing is said.
    #[error("it is empty: say what to do")]
    Empty,
    /// More than any model reads.
    #[error("it has more than 1 MiB: put it into a file of the workspace and name the file")]
    TooLong,
}

/// A task or a message from anywhere: from a word, or from standard input.
///
/// # Errors
/// When it is blank, or over [`MAX_TASK_BYTES`].
pub fn task(text: &str) -> Result<&str, TaskError> {
    if text.trim().is_empty() {
        return Err(TaskError::Empty);
    }
    if text.len() > MAX_TASK_BYTES {
        return Err(TaskError::TooLong);
    }
    Ok(text)
}

pub(super) fn task_word(word: &str) -> Result<String, TaskError> {
    task(word).map(str::to_owned)
}

/// `--prefix`.
pub(super) fn prefix(word: &str) -> Result<String, String> {
    let path = word.strip_suffix('/').unwrap_or(word);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
    if path.starts_with('/') && !path.contains("//") && path.bytes().all(plain) {
        return Ok(path.to_owned());
    }
    Err("must be a path such as /casemate, of letters, digits, `-`, `_` and `.`".to_owned())
}

/// The first word of `resume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// A session.
    Session(SessionId),
    /// A message for the last session.
    Message(String),
}

impl FromStr for Resumed {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.starts_with(SessionId::PREFIX) {
            return word.parse().map(Self::Session).map_err(|e: crate::id::IdError| e.to_string());
        }
        task_word(word).map(Self::Message).map_err(|e| e.to_string())
    }
}

/// `--deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// The tool call.
    pub event: EventId,
    /// What the model is told.
    pub message: Option<String>,
}

impl FromStr for Deny {
    type Err = crate::id::IdError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let (event, message) = match word.split_once('=') {
            Some((event, message)) => (event, Some(message.to_owned())),
            None => (word, None),
        };
        Ok(Self { event: event.parse()?, message: message.filter(|m| !m.trim().is_empty()) })
    }
}

/// `--route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which model ids.
    pub glob: String,
    /// `PROVIDER/MODEL`, or `PROVIDER` to keep the id.
    pub target: String,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let expected =
            "expected GLOB=PROVIDER or GLOB=PROVIDER/MODEL, such as 'claude-*=openrouter'";
        let (glob, target) = word.split_once('=').ok_or(expected)?;
        let (provider, model) = match target.split_once('/') {
            Some((provider, model)) => (provider, Some(model)),
            None => (target, None),
        };
        if glob.is_empty() || provider.is_empty() || model == Some("") {
            return Err(expected.to_owned());
        }
        Ok(Self { glob: glob.to_owned(), target: target.to_owned() })
    }
}

/// `--mount`, as typed: whether the source exists is for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On this machine; may be relative to the current directory.
    pub source: PathBuf,
    /// In the sandbox, absolute; the source's own absolute path if absent.
    pub target: Option<PathBuf>,
    /// Whether tools may change it.
    pub access: Access,
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (paths, access) = match word.rsplit_once(':') {
            Some((paths, "ro")) => (paths, Access::ReadOnly),
            Some((paths, "rw")) => (paths, Access::ReadWrite),
            _ => (word, Access::ReadOnly),
        };
        let (source, target) = match paths.split_once(':') {
            Some((source, target)) => (source, Some(target)),
            None => (paths, None),
        };
        if source.is_empty() {
            return Err("it names no source: expected SRC[:DST][:ro|rw]".to_owned());
        }
        if let Some(target) = target {
            check_target(target)?;
        }
        Ok(Self { source: source.into(), target: target.map(PathBuf::from), access })
    }
}

fn check_target(target: &str) -> Result<(), String> {
    if target.contains(':') {
        return Err(format!("`{target}` is neither ro nor rw, nor a path without colons"));
    }
    if !Path::new(target).is_absolute() {
        return Err(format!("the place in the sandbox must be an absolute path, not `{target}`"));
    }
    Ok(())
}
