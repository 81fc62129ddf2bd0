//! What can go wrong at the runtime. Doors make words, statuses and exit codes of it.

use std::path::PathBuf;

use super::admission::Unanswerable;
use super::attachments::AttachmentError;
use super::config::ConfigError;
use super::files::FileError;
use super::packages::BuildError;
use super::repositories::RepositoryError;
use super::resources::ResourceError;
use super::skills::SkillError;
use crate::id::{EventId, SessionId, ThreadId};
use crate::limits::{MAX_INPUTS, MAX_TASK_BYTES};
use crate::provider::ModelError;
use crate::provider::routes::RouteError;
use crate::sandbox::disk::DiskError;
use crate::sandbox::{LaunchError, PlanError, SandboxError};
use crate::session::DriveError;
use crate::store::StoreError;

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The store.
    #[error("could not {0}")]
    Store(#[from] StoreError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No provider for the model.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The provider cannot be asked.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The workspace cannot be used.
    #[error("the workspace {path} cannot be used: {reason}")]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sandbox cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The sandbox cannot be had.
    #[error("no sandbox: {0}")]
    Sandbox(#[from] LaunchError),
    /// The session's own disk.
    #[error("could not {0}")]
    Disk(#[from] DiskError),
    /// A stored file.
    #[error("could not {0}")]
    File(#[from] FileError),
    /// A file that it was to be told.
    #[error("{source}")]
    Attachment {
        /// Which of the inputs refers to it.
        input: usize,
        /// Which block of that.
        block: usize,
        /// What is wrong with it.
        source: AttachmentError,
    },
    /// What a session was to be given, or to lose.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// A skill.
    #[error(transparent)]
    Skill(#[from] SkillError),
    /// A repository that cannot be had.
    #[error("the repository cannot be had: {0}")]
    Repository(#[from] RepositoryError),
    /// The session cannot be driven.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The sandbox has no way to the network, though it should.
    #[error("the network door: {0}")]
    Door(std::io::Error),
    /// The environment's packages.
    #[error(transparent)]
    Packages(#[from] BuildError),
    /// Nobody said over HTTP whether calls may run.
    #[error("the webhook {url} did not decide: {reason}")]
    Webhook {
        /// Who was asked.
        url: String,
        /// Why there is no answer.
        reason: String,
    },
    /// The conversation is as short as it can be.
    #[error(
        "session {0} has nothing to compact: the model has not answered since it began or was compacted"
    )]
    NothingToCompact(SessionId),
    /// There is nothing to do.
    #[error("the message is empty")]
    EmptyMessage,
    /// More than a model can read.
    #[error("the message has {bytes} bytes; at most {MAX_TASK_BYTES} can be sent")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Tool calls wait for an answer first.
    #[error("the session waits for an answer to: {}", join(.waiting))]
    WaitsForConfirmation {
        /// The calls.
        waiting: Vec<EventId>,
    },
    /// The call does not wait for such an answer.
    #[error("{call} {why}{}", hint(.waiting))]
    NotWaiting {
        /// What was answered.
        call: EventId,
        /// Why it cannot be.
        why: Unanswerable,
        /// What waits.
        waiting: Vec<EventId>,
    },
    /// A reason goes with a refusal only.
    #[error("a message for the model goes with a denial, and {0} is allowed")]
    ReasonForAllowing(EventId),
    /// An instruction that is not where it can be.
    #[error("a system message must be the last of its request, and there can be one")]
    MisplacedInstruction,
    /// More than one request may bring.
    #[error("{count} inputs at once; at most {MAX_INPUTS} can be sent")]
    TooManyInputs {
        /// How many there were.
        count: usize,
    },
    /// The budget is used up.
    #[error(
        "the budget of session {0} is reached: raise or remove it; until then only user.tool_confirmation, \
         user.custom_tool_result, user.tool_result and user.interrupt can be sent"
    )]
    BudgetReached(SessionId),
    /// A budget for a session that was created without one.
    #[error("a budget can only be set when a session is created")]
    BudgetCreateOnly,
    /// A budget that is used up already.
    #[error("budget.max_list_cost must be greater than the session's consumed list cost")]
    BudgetNotRaised,
    /// Nobody knows what the model costs.
    #[error(
        "model_not_budgetable: no list price is known for {model}; name one under [[prices]] in the configuration"
    )]
    NotBudgetable {
        /// The model.
        model: String,
    },
    /// No such thread.
    #[error("the session has no thread {0}")]
    NoThread(ThreadId),
    /// The session has ended for good.
    #[error("session {0} has ended; start a new one")]
    Terminated(SessionId),
    /// No such session.
    #[error("there is no session {0}")]
    NoSession(SessionId),
    /// No such event.
    #[error("session {session} has no event {event}")]
    NoEvent {
        /// The session.
        session: SessionId,
        /// What was named.
        event: EventId,
    },
    /// Somebody works on the session.
    #[error("session {0} is at work; stop it first")]
    Busy(SessionId),
}

impl From<SandboxError> for RuntimeError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Plan(error) => Self::Plan(error),
            SandboxError::Launch(error) => Self::Sandbox(error),
        }
    }
}

impl RuntimeError {
    /// Whether there is no store yet: nothing was ever run here.
    #[must_use]
    pub fn is_no_store(&self) -> bool {
        matches!(self, Self::Store(StoreError::NoStore { .. }))
    }
}

fn join(ids: &[EventId]) -> String {
    ids.iter().map(EventId::as_str).collect::<Vec<_>>().join(", ")
}

fn hint(waiting: &[EventId]) -> String {
    if waiting.is_empty() { String::new() } else { format!("; these do: {}", join(waiting)) }
}
