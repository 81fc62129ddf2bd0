//! What the store knows of a session besides its log: the row, and how the log folds into it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NewRecord;
use crate::clock::Timestamp;
use crate::event::{
    Activity, Budget, Cost, EventBody, Seq, ServerToolUse, StopReason, Usage, UsageSnapshot,
    millis_between,
};
use crate::id::{AgentId, EnvironmentId, SessionId};

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

/// What became of a session's last turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnState {
    /// There has been none.
    New,
    /// Somebody works on it.
    Running,
    /// It waits for the user's permission.
    Waiting,
    /// The user stopped it, or its process ended in the middle.
    Interrupted,
    /// It was given up, its budget was used up, or the model refused.
    Failed,
    /// The model was done.
    Done,
}

impl TurnState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

/// JSON of somebody else's, as it is stored: most that is read is passed on, or not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

impl Json {
    /// A value as it will be stored.
    #[must_use]
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::to_string(value).expect("what is kept has string keys only").into())
    }

    pub(super) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads what it needs of it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }
}

/// Where a session's definition came from, where that is a stored one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The agent.
    pub agent_id: AgentId,
    /// Its version.
    pub agent_version: u32,
    /// The agent as clients see it.
    pub agent: Value,
    /// The environment.
    pub environment_id: EnvironmentId,
    /// Vaults that it may use.
    pub vault_ids: Vec<String>,
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
    pub definition: Value,
    /// See [`Origin`].
    pub origin: Option<Origin>,
    /// The client's own words about it.
    pub metadata: BTreeMap<String, String>,
    /// What it may use.
    pub budget: Option<Budget>,
    /// What goes with it, such as files: there when it is, and gone with it.
    pub records: Vec<NewRecord>,
    /// When.
    pub created_at: Timestamp,
}

/// A session as listed: what it was created with, and what its log says so far.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// See [`NewSession::id`].
    pub id: SessionId,
    /// Its place among all sessions, in the order of their creation.
    pub place: u64,
    /// A name for people.
    pub title: Option<String>,
    /// See [`NewSession::workspace`].
    pub workspace: PathBuf,
    /// See [`NewSession::definition`].
    pub definition: Json,
    /// See [`Origin::agent_id`].
    pub agent_id: Option<AgentId>,
    /// See [`Origin::agent_version`].
    pub agent_version: Option<u32>,
    /// See [`Origin::environment_id`].
    pub environment_id: Option<EnvironmentId>,
    /// See [`Origin::vault_ids`].
    pub vault_ids: Vec<String>,
    /// The agent as clients see it, as it is now; null without an origin.
    pub agent: Json,
    /// The client's own words about it.
    pub metadata: BTreeMap<String, String>,
    /// What it may use.
    pub budget: Option<Budget>,
    /// What it is doing.
    pub status: SessionStatus,
    /// Why it stopped; only while it is idle and has run before.
    pub stop_reason: Option<StopReason>,
    /// Tokens so far.
    pub usage: Usage,
    /// The sum of list prices so far.
    pub cost: Cost,
    /// Pages and searches so far.
    pub web: ServerToolUse,
    /// Time in which it worked, up to `running_since`.
    pub active_ms: u64,
    /// Since when it works.
    pub running_since: Option<Timestamp>,
    /// The claim in force; 0 before the first.
    pub epoch: Epoch,
    /// Position of the last event; 0 while there is none.
    pub head: Seq,
    /// See [`NewSession::created_at`].
    pub created_at: Timestamp,
    /// When the last event was made.
    pub updated_at: Timestamp,
    /// Since when it is read-only.
    pub archived_at: Option<Timestamp>,
    /// When it ended for good.
    pub terminated_at: Option<Timestamp>,
}

impl SessionRow {
    /// Time in which it worked, by `now`.
    #[must_use]
    pub fn active_ms_by(&self, now: Timestamp) -> u64 {
        let current = self.running_since.map_or(0, |since| millis_between(since, now));
        self.active_ms.saturating_add(current)
    }

    /// From its creation to its end, or to `now`.
    #[must_use]
    pub fn duration_ms_by(&self, now: Timestamp) -> u64 {
        millis_between(self.created_at, self.terminated_at.unwrap_or(now))
    }

    /// What it used by `now`.
    #[must_use]
    pub fn usage_by(&self, now: Timestamp) -> UsageSnapshot {
        UsageSnapshot::new(self.usage, self.cost, self.active_ms_by(now), self.web)
    }
}

/// Chooses sessions out of the list. The default chooses all that are not archived, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only those that do one of these; all if empty.
    pub statuses: Vec<SessionStatus>,
    /// Only those that work in this directory.
    pub workspace: Option<PathBuf>,
    /// Only those that were made of a stored agent.
    pub of_stored: bool,
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those of this version of it.
    pub agent_version: Option<u32>,
    /// Only those in this environment.
    pub environment: Option<EnvironmentId>,
    /// Only those created then.
    pub created: CreatedRange,
    /// Archived ones too.
    pub include_archived: bool,
    /// Which comes first.
    pub order: Order,
    /// Only those that come after this [place](SessionRow::place) in that order.
    pub after: Option<u64>,
}

/// Bounds of a time; each is optional.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreatedRange {
    /// Later than.
    pub gt: Option<Timestamp>,
    /// Not before.
    pub gte: Option<Timestamp>,
    /// Before.
    pub lt: Option<Timestamp>,
    /// Not later than.
    pub lte: Option<Timestamp>,
}

/// Which session of a list comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The youngest.
    #[default]
    NewestFirst,
    /// The oldest.
    OldestFirst,
}

impl Order {
    /// The other way round.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::NewestFirst => Self::OldestFirst,
            Self::OldestFirst => Self::NewestFirst,
        }
    }
}

/// The part of a row that is a fold over the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Projection {
    pub(super) head: Seq,
    pub(super) updated_at: Timestamp,
    pub(super) status: SessionStatus,
    pub(super) stop_reason: Option<StopReason>,
    pub(super) usage: Usage,
    pub(super) cost: Cost,
    pub(super) web: ServerToolUse,
    pub(super) activity: Activity,
    pub(super) archived_at: Option<Timestamp>,
    pub(super) terminated_at: Option<Timestamp>,
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
            cost: Cost::default(),
            web: ServerToolUse::default(),
            activity: Activity::default(),
            archived_at: None,
            terminated_at: None,
        }
    }

    /// Takes the next event in.
    pub(super) fn apply(&mut self, created_at: Timestamp, body: &EventBody) {
        use EventBody as E;
        self.head += 1;
        self.updated_at = created_at;
        self.activity.apply(created_at, body);
        match body {
            E::StatusRunning {} => self.is_now(SessionStatus::Running, None),
            E::StatusIdle { stop_reason, .. } => {
                self.is_now(SessionStatus::Idle, Some(stop_reason.clone()));
            }
            E::StatusRescheduled {} => self.is_now(SessionStatus::Rescheduling, None),
            E::StatusTerminated {} => {
                self.is_now(SessionStatus::Terminated, None);
                self.terminated_at = Some(created_at);
            }
            E::Archived {} => self.archived_at = Some(created_at),
            E::ModelRequestEnd { model_usage, .. } => self.usage += *model_usage,
            E::Metered { cost, .. } => self.cost += *cost,
            E::WebUsed { used, .. } => self.web += *used,
            E::Judged { usage, cost, .. } => {
                self.usage += *usage;
                self.cost += *cost;
            }
            E::UserMessage { .. }
            | E::UserInterrupt { .. }
            | E::UserToolConfirmation { .. }
            | E::UserCustomToolResult { .. }
            | E::SystemMessage { .. }
            | E::AgentMessage { .. }
            | E::AgentThinking {}
            | E::AgentToolUse { .. }
            | E::AgentCustomToolUse { .. }
            | E::AgentToolResult { .. }
            | E::AgentMcpToolUse { .. }
            | E::AgentMcpToolResult { .. }
            | E::McpListed { .. }
            | E::McpLoaded { .. }
            | E::SkillsFound(_)
            | E::ThreadStatusRunning { .. }
            | E::ThreadStatusIdle { .. }
            | E::ThreadStatusRescheduled { .. }
            | E::ThreadStatusTerminated { .. }
            | E::SessionUpdated { .. }
            | E::SessionError { .. }
            | E::SessionUsage { .. }
            | E::ModelRequestStart {}
            | E::Thinking { .. }
            | E::RedactedThinking { .. }
            | E::ModelStop { .. }
            | E::TakenUp { .. }
            | E::Flushed { .. }
            | E::AgentReplaced { .. }
            | E::Noted { .. }
            | E::Resumed {}
            | E::ContextMeasured { .. }
            | E::ContextOverflowed { .. }
            | E::ContextTrimmed { .. }
            | E::CompactionRequested {}
            | E::CompactionStarted { .. }
            | E::CompactionFailed { .. }
            | E::Compacted { .. }
            | E::ThreadContextCompacted {}
            | E::ToolStarted { .. }
            | E::EgressRefused { .. }
            | E::EgressUsage { .. }
            | E::ProtectedMade { .. }
            | E::SandboxFailed { .. }
            | E::SandboxReady { .. }
            | E::Sealed { .. }
            | E::Unsealed { .. }
            | E::KeptBack { .. }
            | E::Rewound { .. }
            | E::Applying { .. }
            | E::Applied { .. }
            | E::Discarding { .. }
            | E::Discarded { .. }
            | E::Forked { .. } => {}
        }
    }

    fn is_now(&mut self, status: SessionStatus, stop_reason: Option<StopReason>) {
        // A rewind goes back to before the end.
        self.terminated_at = None;
        self.status = status;
        self.stop_reason = stop_reason;
    }
}
