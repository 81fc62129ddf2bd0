//! How a command ends: the exit codes, and the words for a failure. Errors become either nowhere else.

use std::error::Error;

use super::output::{Output, OutputError};
use super::render::Outcome;
use super::terminal::{Look, Paint, neutralise};
use crate::id::{EventId, SessionId};
use crate::runtime::packages::{BuildError, ShelfError};
use crate::runtime::{ConfigError, DiskError, FeedError, RuntimeError, SandboxError, StoreError};

/// The exit codes. Scripts rely on them: a code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The command did what it was asked to.
    Done,
    /// It did not; the last words on standard error say why.
    Failed,
    /// It was asked for something that makes no sense; nothing was done.
    Usage,
    /// The user stopped the turn; the session can be resumed.
    Interrupted,
    /// Tool calls wait for permission; the session can be resumed with an answer.
    NeedsInput,
    /// This machine cannot give the isolation that was asked for; no tool ran.
    SandboxUnavailable,
    /// What the command of `sandbox exec` answered.
    Command(u8),
}

impl ExitStatus {
    /// All of casemate's own, in order.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Interrupted,
        Self::NeedsInput,
        Self::SandboxUnavailable,
    ];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted => 3,
            Self::NeedsInput => 4,
            Self::SandboxUnavailable => 5,
            Self::Command(code) => code,
        }
    }

    /// What the help says about it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong usage",
            Self::Interrupted => "interrupted",
            Self::NeedsInput => "a tool call waits for permission",
            Self::SandboxUnavailable => "no sandbox",
            Self::Command(_) => "the command's own code",
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}

impl From<Outcome> for ExitStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Failed => Self::Failed,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::NeedsInput => Self::NeedsInput,
            Outcome::SandboxUnavailable => Self::SandboxUnavailable,
        }
    }
}

/// What to do where there is no sandbox.
pub const NO_SANDBOX_HINT: &str = "`casemate doctor` shows what this machine can do; --sandbox=landlock or --sandbox=none accepts less";

/// The command that allows these calls.
pub(super) fn allow_all(program: &str, session: &SessionId, calls: &[EventId]) -> String {
    let flags: String = calls.iter().map(|call| format!(" --allow {call}")).collect();
    format!("{program} resume {session}{flags}")
}

/// A command that could not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub status: ExitStatus,
    /// What happened, without a full stop.
    pub message: String,
    /// Why, from the nearest cause to the farthest.
    pub causes: Vec<String>,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure in our own words.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A command line that parses and makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Usage, message)
    }

    /// An error of a layer below: its Display is a fragment that fits `failed to …`.
    #[must_use]
    pub fn failed_to(error: &(dyn Error + 'static)) -> Self {
        Self::new(ExitStatus::Failed, format!("failed to {error}")).because_of(error.source())
    }

    /// Adds an error and its chain as causes; one that repeats what was said is left out.
    #[must_use]
    pub fn because_of(mut self, error: Option<&(dyn Error + 'static)>) -> Self {
        let mut next = error;
        while let Some(error) = next {
            let cause = error.to_string();
            let last = self.causes.last().unwrap_or(&self.message);
            if !last.ends_with(&cause) {
                self.causes.push(cause);
            }
            next = error.source();
        }
        self
    }

    /// The same failure with another exit code.
    #[must_use]
    pub fn with_status(self, status: ExitStatus) -> Self {
        Self { status, ..self }
    }

    /// The same failure with advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says it on standard error.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn report(&self, out: &mut Output, paint: Paint) -> Result<(), OutputError> {
        out.talk(self.text(paint))?;
        out.flush()
    }

    fn text(&self, paint: Paint) -> String {
        let error = paint.paint(Look::Bad, "error:");
        let mut text = format!("{error} {}\n", indented(&self.message));
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {}\n", indented(cause)));
        }
        if let Some(hint) = &self.hint {
            let label = paint.paint(Look::Good, "hint:");
            text.push_str(&format!("\n{label} {}\n", indented(hint)));
        }
        text
    }
}

/// Messages may quote what a server or a tool said; further lines stand under the first.
fn indented(text: &str) -> String {
    neutralise(text.trim_end()).replace('\n', "\n    ")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string()).because_of(error.source())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::failed_to(&error);
        match &error {
            StoreError::Locked { .. } => failure.hint(
                "wait for it to end, or give this one a data directory of its own with --data-dir",
            ),
            StoreError::NoStore { .. }
            | StoreError::NoSession { .. }
            | StoreError::NoMatch { .. }
            | StoreError::Ambiguous { .. } => failure
                .with_status(ExitStatus::Usage)
                .hint("`casemate sessions list` shows the sessions that there are"),
            _ => failure,
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        use RuntimeError as E;
        match error {
            E::Store(error) => error.into(),
            E::Config(error) => error.into(),
            E::Door(_) => Self::new(ExitStatus::SandboxUnavailable, error.to_string()),
            E::Sandbox(error) => {
                Self::new(ExitStatus::SandboxUnavailable, format!("no sandbox: {error}"))
                    .hint(NO_SANDBOX_HINT)
            }
            E::Disk(error @ (DiskError::Direct | DiskError::Own | DiskError::NoChange { .. })) => {
                Self::failed_to(&error).with_status(ExitStatus::Usage)
            }
            E::Disk(error) => Self::failed_to(&error),
            E::Packages(error) => error.into(),
            E::File(error) => Self::failed_to(&error),
            E::Drive(error) => {
                Self::new(ExitStatus::Failed, error.to_string()).because_of(error.source())
            }
            E::Workspace { .. } => Self::usage(error.to_string())
                .hint("name a directory that you can read with --workspace"),
            E::Route(_)
            | E::Model(_)
            | E::Plan(_)
            | E::EmptyMessage
            | E::MessageTooLarge { .. }
            | E::NotWaiting { .. }
            | E::ReasonForAllowing(_)
            | E::MisplacedInstruction
            | E::TooManyInputs { .. }
            | E::BudgetReached(_)
            | E::BudgetCreateOnly
            | E::BudgetNotRaised
            | E::NoThread(_)
            | E::NotBudgetable { .. }
            | E::Resource(_)
            | E::Repository(_)
            | E::Skill(_)
            | E::Attachment { .. }
            | E::Terminated(_)
            | E::NothingToCompact(_)
            | E::Busy(_)
            | E::NoSession(_) => Self::usage(error.to_string()).because_of(error.source()),
            E::NoEvent { ref session, .. } => Self::usage(error.to_string())
                .hint(format!("`casemate sessions events {session}` shows them all")),
            E::Webhook { .. } => Self::new(ExitStatus::NeedsInput, error.to_string()),
            E::WaitsForConfirmation { .. } => Self::new(ExitStatus::NeedsInput, error.to_string())
                .hint("answer with --allow EVENT or --deny EVENT first"),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        use BuildError as E;
        let (text, hint) = (error.to_string(), error.hint());
        let failure = match error {
            E::Sandbox(SandboxError::Launch(error)) => return RuntimeError::Sandbox(error).into(),
            E::Sandbox(SandboxError::Plan(error)) => return RuntimeError::Plan(error).into(),
            E::Packages(_) | E::Shelf(ShelfError::Unknown(_) | ShelfError::Ambiguous(_)) => {
                Self::usage(text)
            }
            E::Shelf(_)
            | E::Prepare { .. }
            | E::Lacking { .. }
            | E::Failed { .. }
            | E::Ended { .. }
            | E::Unresolved { .. }
            | E::Waited(_) => {
                Self::new(ExitStatus::Failed, text).because_of(std::error::Error::source(&error))
            }
            E::Shared(ref shared) => {
                Self::new(ExitStatus::Failed, text).because_of(std::error::Error::source(shared))
            }
        };
        Self { hint, ..failure }
    }
}

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Self {
        Self::new(ExitStatus::Failed, error.to_string()).because_of(error.source())
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::failed_to(&error)
    }
}

/// Says what clap has to say: help and version are data, a usage error is talk.
///
/// # Errors
/// Those of [`Output`].
pub fn report_parse(
    error: &clap::Error,
    out: &mut Output,
    paint: Paint,
) -> Result<ExitStatus, OutputError> {
    let rendered = error.render();
    let text = if paint.color { rendered.ansi().to_string() } else { rendered.to_string() };
    let status = if error.use_stderr() {
        out.talk(text)?;
        ExitStatus::Usage
    } else {
        out.data(text)?;
        ExitStatus::Done
    };
    out.flush()?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Stream, testing};

    const PLAIN: Paint = Paint { color: false };

    #[test]
    fn the_codes_are_pinned() {
        assert_eq!(ExitStatus::ALL.map(ExitStatus::code), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_failure_names_its_causes_and_then_what_to_do() {
        let source =
            std::io::Error::new(std::io::ErrorKind::StorageFull, "disk full\nreally\x1b[2J");
        let error = OutputError { stream: Stream::Stdout, source };
        let failure = Failure::from(error).hint("free some space");
        assert_eq!(
            failure.text(PLAIN),
            "error: failed to write to standard output\n  \
             caused by: disk full\n    really␛[2J\n\n\
             hint: free some space\n"
        );
        assert_eq!(failure.status, ExitStatus::Failed);
    }

    #[test]
    fn a_cause_that_repeats_the_message_is_left_out() {
        let source = std::io::Error::other("no such agent");
        let failure = Failure::usage("read a.yaml: no such agent").because_of(Some(&source));
        assert_eq!(failure.text(PLAIN), "error: read a.yaml: no such agent\n");
    }

    #[test]
    fn help_is_data_and_a_usage_error_is_talk() {
        let check = |args: &[&str], status, on_stdout: bool| {
            let error = crate::cli::args::Cli::parse_words(args).unwrap_err();
            let (mut out, stdout, stderr) = testing::apart();
            assert_eq!(report_parse(&error, &mut out, PLAIN).unwrap(), status);
            assert_eq!(
                (!stdout.text().is_empty(), !stderr.text().is_empty()),
                (on_stdout, !on_stdout)
            );
        };
        check(&["casemate", "--help"], ExitStatus::Done, true);
        check(&["casemate", "-V"], ExitStatus::Done, true);
        check(&["casemate", "run"], ExitStatus::Usage, false);
        check(&["casemate"], ExitStatus::Usage, false);
    }
}
