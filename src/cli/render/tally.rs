//! What a run comes to: a fold over its events, for the summary, the JSON object and the exit code.

use std::collections::BTreeSet;

use super::calls::{Call, Calls};
use super::words::millis_between;
use crate::clock::Timestamp;
use crate::event::{ErrorDetail, Event, EventBody, StopReason, Usage, text_of};
use crate::id::{EventId, SessionId};

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model was done.
    Done,
    /// It was given up, or refused.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// Tool calls wait for the user.
    NeedsInput,
    /// There was no sandbox to work in.
    SandboxUnavailable,
}

/// The fold.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    session: Option<SessionId>,
    span: Option<(Timestamp, Timestamp)>,
    turns: u32,
    tool_calls: u32,
    usage: Usage,
    result: Option<String>,
    files_written: BTreeSet<String>,
    set_aside: BTreeSet<String>,
    errors: Vec<ErrorDetail>,
    calls: Calls,
    turn: Turn,
    request_since: Option<Timestamp>,
    stop_reason: Option<StopReason>,
    outcome: Option<Outcome>,
    /// The request under way is for a summary, which is no answer.
    summarising: bool,
    workspace: Option<String>,
}

/// What the end of the turn depends on.
#[derive(Debug, Clone, Default)]
struct Turn {
    /// Nothing was asked for yet: an interrupt now stops nothing.
    at_rest: bool,
    interrupted: bool,
    sandbox_failure: Option<String>,
}

impl Tally {
    /// Nothing yet; file names are told as seen from `workspace`.
    #[must_use]
    pub fn new(workspace: Option<String>) -> Self {
        Self { workspace, ..Self::default() }
    }

    /// Takes up the next event.
    pub fn apply(&mut self, event: &Event) {
        self.session.get_or_insert_with(|| event.session.clone());
        let first = self.span.map_or(event.created_at, |(first, _)| first);
        self.span = Some((first, event.created_at));
        self.apply_to_calls(event);
        match &event.body {
            EventBody::UserMessage { .. }
            | EventBody::UserToolConfirmation { .. }
            | EventBody::UserCustomToolResult { .. } => {
                self.turn.at_rest = false;
            }
            EventBody::UserInterrupt { .. } => self.turn.interrupted |= !self.turn.at_rest,
            EventBody::AgentMessage { content } => self.result = Some(text_of(content)),
            EventBody::StatusRunning {} => {
                self.turn.at_rest = false;
                self.stop_reason = None;
                self.outcome = None;
            }
            EventBody::StatusIdle { stop_reason, .. } => self.conclude(stop_reason),
            EventBody::StatusTerminated {} => self.outcome = Some(Outcome::Failed),
            EventBody::SessionError { error } => self.errors.push(error.clone()),
            EventBody::ModelRequestStart {} => self.request_since = Some(event.created_at),
            EventBody::ModelRequestEnd { is_error, model_usage, .. } => {
                self.request_since = None;
                let summary = std::mem::take(&mut self.summarising);
                self.turns += u32::from(!is_error && !summary);
                self.usage += *model_usage;
            }
            EventBody::Judged { usage, .. } => self.usage += *usage,
            EventBody::CompactionStarted { .. } => self.summarising = true,
            EventBody::SandboxFailed { message } => {
                self.turn.sandbox_failure = Some(message.clone());
            }
            EventBody::ProtectedMade { set_aside, .. } => self.set_aside.extend(set_aside.clone()),
            EventBody::AgentThinking {}
            | EventBody::SystemMessage { .. }
            | EventBody::AgentCustomToolUse { .. }
            | EventBody::SessionUpdated { .. }
            | EventBody::ThreadStatusRescheduled { .. }
            | EventBody::ThreadStatusTerminated { .. }
            | EventBody::TakenUp { .. }
            | EventBody::Flushed { .. }
            | EventBody::Metered { .. }
            | EventBody::WebUsed { .. }
            | EventBody::AgentReplaced { .. }
            | EventBody::Noted { .. }
            | EventBody::Archived {}
            | EventBody::Resumed {}
            | EventBody::AgentToolUse { .. }
            | EventBody::AgentToolResult { .. }
            | EventBody::AgentMcpToolUse { .. }
            | EventBody::AgentMcpToolResult { .. }
            | EventBody::McpListed { .. }
            | EventBody::McpLoaded { .. }
            | EventBody::SkillsFound(_)
            | EventBody::StatusRescheduled {}
            | EventBody::ThreadStatusRunning { .. }
            | EventBody::ThreadStatusIdle { .. }
            | EventBody::SessionUsage { .. }
            | EventBody::Thinking { .. }
            | EventBody::RedactedThinking { .. }
            | EventBody::ModelStop { .. }
            | EventBody::ContextMeasured { .. }
            | EventBody::ContextOverflowed { .. }
            | EventBody::ContextTrimmed { .. }
            | EventBody::CompactionRequested {}
            | EventBody::CompactionFailed { .. }
            | EventBody::Compacted { .. }
            | EventBody::ThreadContextCompacted {}
            | EventBody::ToolStarted { .. }
            | EventBody::EgressRefused { .. }
            | EventBody::EgressUsage { .. }
            | EventBody::SandboxReady { .. }
            | EventBody::Sealed { .. }
            | EventBody::Unsealed { .. }
            | EventBody::KeptBack { .. }
            | EventBody::Rewound { .. }
            | EventBody::Applying { .. }
            | EventBody::Applied { .. }
            | EventBody::Discarding { .. }
            | EventBody::Discarded { .. }
            | EventBody::Forked { .. } => {}
        }
    }

    /// Takes up an event from before this run: only the calls that are still open count.
    pub fn recall(&mut self, event: &Event) {
        self.session.get_or_insert_with(|| event.session.clone());
        // A call that ended before this run is none of its business.
        drop(self.calls.apply(event));
    }

    fn apply_to_calls(&mut self, event: &Event) {
        let ended = self.calls.apply(event);
        if let (Some(call), Some(result)) = (ended, event.body.tool_result()) {
            self.tool_calls += 1;
            let written = call.written_file(self.workspace.as_deref());
            self.files_written.extend(written.filter(|_| !result.is_error));
        }
    }

    fn conclude(&mut self, stop_reason: &StopReason) {
        // Calls that wait can still be stopped.
        let at_rest = !matches!(stop_reason, StopReason::RequiresAction { .. });
        let turn = std::mem::replace(&mut self.turn, Turn { at_rest, ..Turn::default() });
        self.outcome = Some(match stop_reason {
            StopReason::EndTurn if turn.interrupted => Outcome::Interrupted,
            StopReason::EndTurn => Outcome::Done,
            StopReason::RequiresAction { .. } => Outcome::NeedsInput,
            StopReason::RetriesExhausted if turn.sandbox_failure.is_some() => {
                Outcome::SandboxUnavailable
            }
            StopReason::RetriesExhausted | StopReason::BudgetReached | StopReason::Refusal => {
                Outcome::Failed
            }
        });
        self.stop_reason = Some(stop_reason.clone());
    }

    /// How the last turn ended; `None` while it goes on.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The session's id, once an event was seen.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// The last stop reason.
    #[must_use]
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason.as_ref()
    }

    /// The model's last message.
    #[must_use]
    pub fn result(&self) -> Option<&str> {
        self.result.as_deref()
    }

    /// Answers of the model.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// Tool calls that got a result.
    #[must_use]
    pub fn tool_calls(&self) -> u32 {
        self.tool_calls
    }

    /// Tokens of this run.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// From the first event to the last.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.span.map_or(0, |(first, last)| millis_between(first, last))
    }

    /// When the last event was made.
    pub(super) fn last_event_at(&self) -> Option<Timestamp> {
        self.span.map(|(_, last)| last)
    }

    /// Files that `write` and `edit` changed; what commands did is not known here.
    #[must_use]
    pub fn files_written(&self) -> &BTreeSet<String> {
        &self.files_written
    }

    /// Files that were moved out of sight of programs that would obey them.
    #[must_use]
    pub fn set_aside(&self) -> &BTreeSet<String> {
        &self.set_aside
    }

    /// What went wrong outside of tools.
    #[must_use]
    pub fn errors(&self) -> &[ErrorDetail] {
        &self.errors
    }

    /// Why there is no sandbox, if that was found in the turn that goes on.
    pub(super) fn sandbox_failure(&self) -> Option<&str> {
        self.turn.sandbox_failure.as_deref()
    }

    /// Since when a model request is under way.
    pub(super) fn request_since(&self) -> Option<Timestamp> {
        self.request_since
    }

    /// A call without a result.
    #[must_use]
    pub fn call(&self, id: &EventId) -> Option<&Call> {
        self.calls.get(id)
    }

    /// Calls that have started.
    pub(super) fn running(&self) -> impl Iterator<Item = &Call> {
        self.calls.running()
    }

    /// The calls that wait for the user, as far as they are known.
    #[must_use]
    pub fn waiting(&self) -> Vec<&Call> {
        match &self.stop_reason {
            Some(StopReason::RequiresAction { event_ids }) => {
                event_ids.iter().filter_map(|id| self.calls.get(id)).collect()
            }
            _ => Vec::new(),
        }
    }
}
