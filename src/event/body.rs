//! What can happen in a session: one variant per fact, named as on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{
    Budget, Confirmation, ContentBlock, Cost, ErrorDetail, Evaluation, Permission, Seq,
    ServerToolUse, Usage, UsageSnapshot,
};
use crate::agent::Agent;
use crate::agent::mcp::ServerTool;
use crate::id::{EventId, SessionId, ThreadId};
use crate::skill::Brought;

/// The fact itself. Variants under `internal.` never leave the machine's own tools; see [`EventBody::audience`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventBody {
    /// The user says something. Queued while the session runs.
    #[serde(rename = "user.message")]
    UserMessage {
        /// What was said.
        content: Vec<ContentBlock>,
    },
    /// The user stops the turn and keeps the session.
    #[serde(rename = "user.interrupt")]
    UserInterrupt {
        /// The thread that is meant; all of them if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_thread_id: Option<ThreadId>,
    },
    /// The user answers a tool call that waits for permission.
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
        /// The answer.
        result: Confirmation,
        /// What the model is told about a refusal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
    },
    /// The client answers a call of a tool of its own.
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult {
        /// The `agent.custom_tool_use` event.
        custom_tool_use_id: EventId,
        /// What the tool returned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Vec<ContentBlock>>,
        /// Whether it failed; it did not if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    },
    /// The client instructs the model in the middle of a conversation. Queued like a message.
    #[serde(rename = "system.message")]
    SystemMessage {
        /// The instruction.
        content: Vec<ContentBlock>,
    },

    /// The model says something.
    #[serde(rename = "agent.message")]
    AgentMessage {
        /// What was said.
        content: Vec<ContentBlock>,
    },
    /// The model thought. Progress only: the text is in `internal.thinking`.
    #[serde(rename = "agent.thinking")]
    AgentThinking {},
    /// The model calls a built-in tool.
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        /// The tool's name.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
        /// What the policy said.
        evaluated_permission: Permission,
        /// How the policy came to it; absent if the call was refused before any policy applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Evaluation>,
    },
    /// The model calls a tool that the client has; the answer is a `user.custom_tool_result`.
    #[serde(rename = "agent.custom_tool_use")]
    AgentCustomToolUse {
        /// The tool's name.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
    },
    /// The answer to a tool call; exactly one for each call.
    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
        /// What the tool returned.
        content: Vec<ContentBlock>,
        /// Whether the tool failed.
        is_error: bool,
    },
    /// The model calls a tool of an MCP server.
    #[serde(rename = "agent.mcp_tool_use")]
    AgentMcpToolUse {
        /// The server.
        mcp_server_name: String,
        /// The tool's name at the server.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
        /// What the policy said.
        evaluated_permission: Permission,
        /// How the policy came to it; absent if the call was refused before any policy applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Evaluation>,
    },
    /// The answer to a call of a tool of an MCP server; exactly one for each call.
    #[serde(rename = "agent.mcp_tool_result")]
    AgentMcpToolResult {
        /// The `agent.mcp_tool_use` event.
        mcp_tool_use_id: EventId,
        /// What the tool returned.
        content: Vec<ContentBlock>,
        /// Whether the tool failed.
        is_error: bool,
    },

    /// The conversation so far was replaced by a summary, because it filled the model's context or because somebody asked.
    #[serde(rename = "agent.thread_context_compacted")]
    ThreadContextCompacted {},

    /// The session works.
    #[serde(rename = "session.status_running")]
    StatusRunning {},
    /// The session waits for input.
    #[serde(rename = "session.status_idle")]
    StatusIdle {
        /// Why it stopped.
        stop_reason: StopReason,
        /// More about a refusal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_details: Option<RefusalDetails>,
    },
    /// The session waits for a model server and will go on by itself.
    #[serde(rename = "session.status_rescheduled")]
    StatusRescheduled {},
    /// The session has ended for good.
    #[serde(rename = "session.status_terminated")]
    StatusTerminated {},
    /// A thread works.
    #[serde(rename = "session.thread_status_running")]
    ThreadStatusRunning {
        /// The thread.
        session_thread_id: ThreadId,
        /// The name of its agent.
        agent_name: String,
    },
    /// A thread waits for input.
    #[serde(rename = "session.thread_status_idle")]
    ThreadStatusIdle {
        /// The thread.
        session_thread_id: ThreadId,
        /// The name of its agent.
        agent_name: String,
        /// Why it stopped.
        stop_reason: StopReason,
        /// More about a refusal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_details: Option<RefusalDetails>,
    },
    /// A thread waits for a model server.
    #[serde(rename = "session.thread_status_rescheduled")]
    ThreadStatusRescheduled {
        /// The thread.
        session_thread_id: ThreadId,
        /// The name of its agent.
        agent_name: String,
    },
    /// A thread has ended for good.
    #[serde(rename = "session.thread_status_terminated")]
    ThreadStatusTerminated {
        /// The thread.
        session_thread_id: ThreadId,
        /// The name of its agent.
        agent_name: String,
    },
    /// The session was changed; only what changed is there.
    #[serde(rename = "session.updated")]
    SessionUpdated {
        /// The whole agent as clients see it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Value>,
        /// The title, or none.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        title: Option<Option<String>>,
        /// All of the metadata.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<BTreeMap<String, String>>,
        /// The budget, or none.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        budget: Option<Option<Budget>>,
    },
    /// Something went wrong outside of a tool.
    #[serde(rename = "session.error")]
    SessionError {
        /// What, and whether the session goes on by itself.
        error: ErrorDetail,
    },
    /// What the session used so far; right before each `session.status_idle`.
    #[serde(rename = "session.usage")]
    SessionUsage {
        /// Summed over the session.
        usage: UsageSnapshot,
        /// What it may use.
        budget: Option<Budget>,
    },

    /// A request to the model begins.
    #[serde(rename = "span.model_request_start")]
    ModelRequestStart {},
    /// A request to the model ended; exactly one for each start.
    #[serde(rename = "span.model_request_end")]
    ModelRequestEnd {
        /// The matching `span.model_request_start` event.
        model_request_start_id: EventId,
        /// Whether it failed or was interrupted.
        is_error: bool,
        /// Its tokens.
        model_usage: Usage,
    },

    /// A thinking block as the model signed it, to be carried back unchanged.
    #[serde(rename = "internal.thinking")]
    Thinking {
        /// The text; empty if the provider withholds it.
        thinking: String,
        /// The provider's seal, if it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// A thinking block that the provider encrypted, to be carried back unchanged.
    #[serde(rename = "internal.redacted_thinking")]
    RedactedThinking {
        /// The encrypted bytes, as given.
        data: String,
    },
    /// Why the model stopped; committed together with its answer.
    #[serde(rename = "internal.model_stop")]
    ModelStop {
        /// The provider's reason, in the Messages API's words.
        reason: String,
        /// The provider and model that answered, as `PROVIDER/MODEL`.
        model: String,
        /// What the provider said about a refusal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<RefusalDetails>,
    },
    /// Queued inputs are taken up, here and in this order: this is where clients see them.
    #[serde(rename = "internal.taken_up")]
    TakenUp {
        /// The inputs.
        event_ids: Vec<EventId>,
    },
    /// Queued inputs are dropped, because the turn that they waited for was given up.
    #[serde(rename = "internal.flushed")]
    Flushed {
        /// The inputs.
        event_ids: Vec<EventId>,
    },
    /// What a request to the model costs by the prices in force. Absent where that is nothing.
    #[serde(rename = "internal.metered")]
    Metered {
        /// The `span.model_request_start` event.
        model_request_start_id: EventId,
        /// Its cost.
        cost: Cost,
    },
    /// A call asked the web; committed together with its result.
    #[serde(rename = "internal.web_used")]
    WebUsed {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
        /// How often.
        #[serde(flatten)]
        used: ServerToolUse,
    },
    /// What a judge was asked of a call under the policy `auto`; committed together with the call.
    #[serde(rename = "internal.judged")]
    Judged {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
        /// What it said; to ask, where it said nothing that counts.
        decision: Permission,
        /// Why, in its words or ours.
        reason: String,
        /// Who judged, as `PROVIDER/MODEL`.
        model: String,
        /// What it took.
        usage: Usage,
        /// What that costs by the prices in force.
        cost: Cost,
    },
    /// The model is told something by the session itself, after results and messages; committed together with the request.
    #[serde(rename = "internal.noted")]
    Noted {
        /// What it is about.
        about: NoteSubject,
        /// The words.
        text: String,
    },
    /// The agent is another one from the next turn on; committed together with `session.updated`.
    #[serde(rename = "internal.agent_replaced")]
    AgentReplaced {
        /// The whole of it.
        agent: Box<Agent>,
    },
    /// The session is read-only from now on.
    #[serde(rename = "internal.archived")]
    Archived {},
    /// A process goes on with what another left running.
    #[serde(rename = "internal.resumed")]
    Resumed {},
    /// How much the model can read; said before the first request, and again when it is another.
    #[serde(rename = "internal.context_measured")]
    ContextMeasured {
        /// Tokens of the model's context, the answer's included.
        window: u64,
        /// Tokens that system prompt and tools take of it, about.
        fixed: u64,
    },
    /// What an MCP server offers; said before the first request of a turn when it is not what was said before. A server
    /// that is lost is the subject of a `session.error`.
    #[serde(rename = "internal.mcp_listed")]
    McpListed {
        /// The server.
        mcp_server_name: String,
        /// Its tools, by name.
        tools: Vec<ServerTool>,
    },
    /// The model found these tools of MCP servers and has them from now on, where it does not have all of them at once.
    #[serde(rename = "internal.mcp_loaded")]
    McpLoaded {
        /// Under which names the model knows them.
        names: Vec<String>,
    },
    /// What the repositories of the session brought of skills; said before the first request of a turn when it is not what
    /// was said before.
    #[serde(rename = "internal.skills_found")]
    SkillsFound(Brought),
    /// The provider refused a request as too long.
    #[serde(rename = "internal.context_overflowed")]
    ContextOverflowed {
        /// The server's words.
        message: String,
    },
    /// The results of these calls are shown to the model no more, to make room in its context. The log keeps them.
    #[serde(rename = "internal.context_trimmed")]
    ContextTrimmed {
        /// The `agent.tool_use` events.
        tool_use_ids: Vec<EventId>,
    },
    /// The user wants the conversation to be replaced by a summary.
    #[serde(rename = "internal.compaction_requested")]
    CompactionRequested {},
    /// The model is about to be asked for a summary of the conversation.
    #[serde(rename = "internal.compaction_started")]
    CompactionStarted {
        /// Why.
        reason: CompactionReason,
    },
    /// No summary came of it; what happened before still stands.
    #[serde(rename = "internal.compaction_failed")]
    CompactionFailed {
        /// What was wrong.
        message: String,
        /// Whether another try may end better.
        again: bool,
    },
    /// The conversation is this text from here on; committed together with `agent.thread_context_compacted`. The log keeps
    /// what it was.
    #[serde(rename = "internal.compacted")]
    Compacted {
        /// What the model is told instead of everything that came before.
        text: String,
        /// The summary in it.
        summary: String,
        /// What clients instructed the model to do meanwhile, still in force.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        instructions: Vec<String>,
        /// Who wrote the summary.
        by: Summarised,
        /// Tokens of the context before, about.
        before: u64,
        /// Tokens of the context after, about.
        after: u64,
    },
    /// A tool call is about to have its first effect.
    #[serde(rename = "internal.tool_started")]
    ToolStarted {
        /// The `agent.tool_use` event.
        tool_use_id: EventId,
    },
    /// No sandbox could be had; the turn ends.
    #[serde(rename = "internal.sandbox_failed")]
    SandboxFailed {
        /// The stage that failed, why, and the remedy.
        message: String,
    },
    /// A program of a tool call wanted to go where it may not.
    #[serde(rename = "internal.egress_refused")]
    EgressRefused {
        /// The `agent.tool_use` event that started the program.
        tool_use_id: EventId,
        /// Where it wanted to go.
        target: String,
        /// The rule against it.
        rule: String,
        /// The smallest change that would allow it, if anything should.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<String>,
    },
    /// What went to and from one place since the last such event.
    #[serde(rename = "internal.egress_usage")]
    EgressUsage {
        /// The `agent.tool_use` event that started the program.
        tool_use_id: EventId,
        /// Host and port.
        target: String,
        /// Connections made.
        connections: u64,
        /// Bytes from the session.
        sent: u64,
        /// Bytes to the session.
        received: u64,
    },
    /// A tool made something that programs of the user's obey, and that no sandbox held because it was not there.
    #[serde(rename = "internal.protected_made")]
    ProtectedMade {
        /// The `agent.tool_use` event that made it.
        tool_use_id: EventId,
        /// Where, seen from the workspace.
        path: String,
        /// Where it is now, if it was moved out of sight of who obeys it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set_aside: Option<String>,
    },
    /// A sandbox came up for this session.
    #[serde(rename = "internal.sandbox_ready")]
    SandboxReady {
        /// The tier's name.
        tier: String,
        /// The layers in force.
        layers: Vec<String>,
    },
    /// The session's disk was sealed: after a call that may have changed it, before the first, at the end of a turn.
    #[serde(rename = "internal.sealed")]
    Sealed {
        /// The seal of its home.
        home: u64,
        /// The seal of its workspace, or of the layer over it.
        work: u64,
        /// Files in both.
        files: u64,
        /// Entries that changed since the seal before.
        changed: u64,
        /// Bytes kept for it.
        bytes: u64,
    },
    /// The session's disk could not be sealed; the turn goes on. Said once for each reason.
    #[serde(rename = "internal.unsealed")]
    Unsealed {
        /// Why, and what to do about it.
        message: String,
    },
    /// Some of what the session made could not be handed out; the rest was. Said once for each reason.
    #[serde(rename = "internal.kept_back")]
    KeptBack {
        /// Which, and why.
        message: String,
    },
    /// Files and conversation become what they were: what follows `position` up to here is history and no more.
    #[serde(rename = "internal.rewound")]
    Rewound {
        /// The event that was named.
        to: EventId,
        /// The last event that still counts; not before `to`, within its own commit.
        position: Seq,
        /// The seal of the home that is restored.
        home: u64,
        /// The seal of the workspace that is restored.
        work: u64,
    },
    /// The user is about to take over what the session changed at these paths; what came of it follows.
    #[serde(rename = "internal.applying")]
    Applying {
        /// Below the workspace.
        paths: Vec<String>,
    },
    /// The session's version at these paths is about to become the user's again; what came of it follows.
    #[serde(rename = "internal.discarding")]
    Discarding {
        /// Below the workspace.
        paths: Vec<String>,
    },
    /// The user took over what the session changed of its own version of the workspace.
    #[serde(rename = "internal.applied")]
    Applied {
        /// The user's files that became the session's.
        applied: Vec<String>,
        /// Those that now hold both changes.
        merged: Vec<String>,
        /// Those that stayed as the user has them.
        kept: Vec<String>,
    },
    /// The session's version of the workspace became the user's again.
    #[serde(rename = "internal.discarded")]
    Discarded {
        /// Where.
        discarded: Vec<String>,
        /// Directories that stayed, because there is more in them.
        kept: Vec<String>,
    },
    /// This session began as another one up to some event; everything before is that one's.
    #[serde(rename = "internal.forked")]
    Forked {
        /// The other session.
        from: SessionId,
        /// The event that was named.
        at: EventId,
        /// The seal of the other's home.
        home: u64,
        /// The seal of the other's workspace.
        work: u64,
    },
}

/// Why a conversation is replaced by a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionReason {
    /// It is about to fill the model's context.
    Full,
    /// The provider refused it as too long.
    Overflow,
    /// The user asked for it.
    Request,
}

/// What the model is told of its own session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NoteSubject {
    /// It does the same again and again.
    Repetition,
    /// Little of the budget is left.
    Budget {
        /// How little: the second time it is told, nearly nothing.
        level: u8,
    },
}

/// Who wrote a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Summarised {
    /// The model.
    Model,
    /// Nobody: it is taken from the log, because no summary of the model's could be had.
    Log,
}

/// Why a session is idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopReason {
    /// The model was done, or the user stopped it.
    EndTurn,
    /// Tool calls wait for a confirmation.
    RequiresAction {
        /// The `agent.tool_use` events that wait.
        event_ids: Vec<EventId>,
    },
    /// The turn was given up; a `session.error` before says why.
    RetriesExhausted,
    /// The budget is used up.
    BudgetReached,
    /// The model refused.
    Refusal,
}

impl StopReason {
    /// Whether the turn goes on after it.
    #[must_use]
    pub fn pauses(&self) -> bool {
        match self {
            Self::RequiresAction { .. } | Self::BudgetReached => true,
            Self::EndTurn | Self::RetriesExhausted | Self::Refusal => false,
        }
    }
}

/// More about a refusal, as the provider gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalDetails {
    /// Always `refusal`.
    pub r#type: String,
    /// The provider's category.
    pub category: Option<String>,
    /// The provider's words.
    pub explanation: Option<String>,
}

/// A member that is there, if only as null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    given: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(given).map(Some)
}
