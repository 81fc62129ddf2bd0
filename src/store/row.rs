//! What the store knows of a session besides its log: the row, and how the log folds into it.

use std::fmt;
use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::event::{EventBody, Seq, StopReason, Usage};
use crate::id::SessionId;

/// Which claim on a session a driver holds. A later claim fences the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(super) u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// Someone outside, who may always add to the queue.
    Client,
    /// The session's driver, as long as nobody has claimed the session after it.
    Driver(Epoch),
}

/// What a session is doing, as its last `session.status_*` event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionStatus {
    /// It waits for input.
    Idle,
    /// It works, or was interrupted by a crash.
    Running,
    /// It waits for a model server.
    Rescheduling,
    /// It has ended for good.
    Terminated,
}

impl SessionStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Running, Self::Rescheduling, Self::Terminated];

    /// The word in the file and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Rescheduling => "rescheduling",
            Self::Terminated => "terminated",
        }
    }

    /// The status of that name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// A session to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSession {
    /// Minted by the caller.
    pub id: SessionId,
    /// A name for people.
    pub title: Option<String>,
    /// The directory that the session works in.
    pub workspace: PathBuf,
    /// Agent and environment as they were at that moment; not looked into by the store.
    pub definition: serde_json::Value,
    /// When.
    pub created_at: Timestamp,
}

/// A session as listed: what it was created with, and what its log says so far.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// See [`NewSession::id`].
    pub id: SessionId,
    /// See [`NewSession::title`].
    pub title: Option<String>,
    /// See [`NewSession::workspace`].
    pub workspace: PathBuf,
    /// See [`NewSession::definition`].
    pub definition: serde_json::Value,
    /// What it is doing.
    pub status: SessionStatus,
    /// Why it stopped; only while it is idle and has run before.
    pub stop_reason: Option<StopReason>,
    /// Tokens so far.
    pub usage: Usage,
    /// The claim in force; 0 before the first.
    pub epoch: Epoch,
    /// Position of the last event; 0 while there is none.
    pub head: Seq,
    /// See [`NewSession::created_at`].
    pub created_at: Timestamp,
    /// When the last event was made.
    pub updated_at: Timestamp,
}

/// Chooses sessions out of the list. The default chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only those that do this.
    pub status: Option<SessionStatus>,
    /// Only those that work in this directory.
    pub workspace: Option<PathBuf>,
}

/// The part of a row that is a fold over the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Projection {
    pub(super) head: Seq,
    pub(super) updated_at: Timestamp,
    pub(super) status: SessionStatus,
    pub(super) stop_reason: Option<StopReason>,
    pub(super) usage: Usage,
}

impl Projection {
    /// Of an empty log.
    pub(super) fn new(created_at: Timestamp) -> Self {
        Self {
            head: 0,
            updated_at: created_at,
            status: SessionStatus::Idle,
            stop_reason: None,
            usage: Usage::default(),
        }
    }

    /// Takes the next event in.
    pub(super) fn apply(&mut self, created_at: Timestamp, body: &EventBody) {
        use EventBody as E;
        self.head += 1;
        self.updated_at = created_at;
        let (status, stop_reason) = match body {
            E::StatusRunning {} => (SessionStatus::Running, None),
            E::StatusIdle { stop_reason, .. } => (SessionStatus::Idle, Some(stop_reason.clone())),
            E::StatusRescheduled {} => (SessionStatus::Rescheduling, None),
            E::StatusTerminated {} => (SessionStatus::Terminated, None),
            E::SessionUsage { usage } => {
                self.usage = *usage;
                return;
            }
            E::UserMessage { .. }
            | E::UserInterrupt {}
            | E::UserToolConfirmation { .. }
            | E::AgentMessage { .. }
            | E::AgentThinking {}
            | E::AgentToolUse { .. }
            | E::AgentToolResult { .. }
            | E::ThreadStatusRunning { .. }
            | E::ThreadStatusIdle { .. }
            | E::SessionError { .. }
            | E::ModelRequestStart {}
            | E::ModelRequestEnd { .. }
            | E::Thinking { .. }
            | E::RedactedThinking { .. }
            | E::ModelStop { .. }
            | E::ToolStarted { .. }
            | E::EgressRefused { .. }
            | E::EgressUsage { .. }
            | E::ProtectedMade { .. }
            | E::SandboxFailed { .. }
            | E::SandboxReady { .. }
            | E::Sealed { .. }
            | E::Unsealed { .. }
            | E::Rewound { .. }
            | E::Applied { .. }
            | E::Discarded { .. }
            | E::Forked { .. } => return,
        };
        self.status = status;
        self.stop_reason = stop_reason;
    }
}
