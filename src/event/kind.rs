//! What is true of a fact by its kind: who may see it, its name on the wire, whether it is a result.

use super::{ContentBlock, EventBody};
use crate::id::EventId;

/// Who may see an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Clients of the protocol.
    Public,
    /// Only casemate itself, and its owner when asked for.
    Internal,
}

impl EventBody {
    /// Who may see this event: the single place where visibility is decided.
    #[must_use]
    pub fn audience(&self) -> Audience {
        use EventBody as E;
        match self {
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
            | E::ThreadContextCompacted {}
            | E::StatusRunning {}
            | E::StatusIdle { .. }
            | E::StatusRescheduled {}
            | E::StatusTerminated {}
            | E::ThreadStatusRunning { .. }
            | E::ThreadStatusIdle { .. }
            | E::ThreadStatusRescheduled { .. }
            | E::ThreadStatusTerminated { .. }
            | E::SessionUpdated { .. }
            | E::SessionError { .. }
            | E::SessionUsage { .. }
            | E::ModelRequestStart {}
            | E::ModelRequestEnd { .. } => Audience::Public,
            E::Thinking { .. }
            | E::RedactedThinking { .. }
            | E::ModelStop { .. }
            | E::TakenUp { .. }
            | E::Flushed { .. }
            | E::Metered { .. }
            | E::WebUsed { .. }
            | E::Judged { .. }
            | E::Noted { .. }
            | E::AgentReplaced { .. }
            | E::Archived {}
            | E::Resumed {}
            | E::ContextMeasured { .. }
            | E::McpListed { .. }
            | E::McpLoaded { .. }
            | E::SkillsFound(_)
            | E::ContextOverflowed { .. }
            | E::ContextTrimmed { .. }
            | E::CompactionRequested {}
            | E::CompactionStarted { .. }
            | E::CompactionFailed { .. }
            | E::Compacted { .. }
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
            | E::Forked { .. } => Audience::Internal,
        }
    }

    /// The `type` on the wire.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        use EventBody as E;
        match self {
            E::UserMessage { .. } => "user.message",
            E::UserInterrupt { .. } => "user.interrupt",
            E::UserToolConfirmation { .. } => "user.tool_confirmation",
            E::UserCustomToolResult { .. } => "user.custom_tool_result",
            E::SystemMessage { .. } => "system.message",
            E::AgentMessage { .. } => "agent.message",
            E::AgentThinking {} => "agent.thinking",
            E::AgentToolUse { .. } => "agent.tool_use",
            E::AgentCustomToolUse { .. } => "agent.custom_tool_use",
            E::AgentToolResult { .. } => "agent.tool_result",
            E::AgentMcpToolUse { .. } => "agent.mcp_tool_use",
            E::AgentMcpToolResult { .. } => "agent.mcp_tool_result",
            E::ThreadContextCompacted {} => "agent.thread_context_compacted",
            E::StatusRunning {} => "session.status_running",
            E::StatusIdle { .. } => "session.status_idle",
            E::StatusRescheduled {} => "session.status_rescheduled",
            E::StatusTerminated {} => "session.status_terminated",
            E::ThreadStatusRunning { .. } => "session.thread_status_running",
            E::ThreadStatusIdle { .. } => "session.thread_status_idle",
            E::ThreadStatusRescheduled { .. } => "session.thread_status_rescheduled",
            E::ThreadStatusTerminated { .. } => "session.thread_status_terminated",
            E::SessionUpdated { .. } => "session.updated",
            E::SessionError { .. } => "session.error",
            E::SessionUsage { .. } => "session.usage",
            E::ModelRequestStart {} => "span.model_request_start",
            E::ModelRequestEnd { .. } => "span.model_request_end",
            E::Thinking { .. } => "internal.thinking",
            E::RedactedThinking { .. } => "internal.redacted_thinking",
            E::ModelStop { .. } => "internal.model_stop",
            E::TakenUp { .. } => "internal.taken_up",
            E::Flushed { .. } => "internal.flushed",
            E::Metered { .. } => "internal.metered",
            E::WebUsed { .. } => "internal.web_used",
            E::Judged { .. } => "internal.judged",
            E::Noted { .. } => "internal.noted",
            E::AgentReplaced { .. } => "internal.agent_replaced",
            E::Archived {} => "internal.archived",
            E::Resumed {} => "internal.resumed",
            E::ContextMeasured { .. } => "internal.context_measured",
            E::McpListed { .. } => "internal.mcp_listed",
            E::SkillsFound(_) => "internal.skills_found",
            E::McpLoaded { .. } => "internal.mcp_loaded",
            E::ContextOverflowed { .. } => "internal.context_overflowed",
            E::ContextTrimmed { .. } => "internal.context_trimmed",
            E::CompactionRequested {} => "internal.compaction_requested",
            E::CompactionStarted { .. } => "internal.compaction_started",
            E::CompactionFailed { .. } => "internal.compaction_failed",
            E::Compacted { .. } => "internal.compacted",
            E::ToolStarted { .. } => "internal.tool_started",
            E::EgressRefused { .. } => "internal.egress_refused",
            E::EgressUsage { .. } => "internal.egress_usage",
            E::ProtectedMade { .. } => "internal.protected_made",
            E::SandboxFailed { .. } => "internal.sandbox_failed",
            E::SandboxReady { .. } => "internal.sandbox_ready",
            E::Sealed { .. } => "internal.sealed",
            E::Unsealed { .. } => "internal.unsealed",
            E::KeptBack { .. } => "internal.kept_back",
            E::Rewound { .. } => "internal.rewound",
            E::Applying { .. } => "internal.applying",
            E::Applied { .. } => "internal.applied",
            E::Discarding { .. } => "internal.discarding",
            E::Discarded { .. } => "internal.discarded",
            E::Forked { .. } => "internal.forked",
        }
    }
}

/// A result of a tool that the session ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolResult<'e> {
    /// The call.
    pub id: &'e EventId,
    /// What the tool returned.
    pub content: &'e [ContentBlock],
    /// Whether it failed.
    pub is_error: bool,
}

impl EventBody {
    /// The result that it is, if it is one of a tool that the session ran, itself or at an MCP server.
    #[must_use]
    pub fn tool_result(&self) -> Option<ToolResult<'_>> {
        match self {
            Self::AgentToolResult { tool_use_id: id, content, is_error }
            | Self::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error } => {
                Some(ToolResult { id, content, is_error: *is_error })
            }
            _ => None,
        }
    }

    /// The content of the result that it is, if it is one of that call.
    pub fn result_content_mut(&mut self, call: &EventId) -> Option<&mut Vec<ContentBlock>> {
        match self {
            Self::AgentToolResult { tool_use_id: id, content, .. }
            | Self::AgentMcpToolResult { mcp_tool_use_id: id, content, .. } => {
                (id == call).then_some(content)
            }
            _ => None,
        }
    }
}
