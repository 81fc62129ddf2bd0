//! A tool call of the model's last answer.

use serde_json::{Map, Value};

use super::offers;
use crate::agent::{Effect, ToolName};
use crate::event::{ContentBlock, EventBody, Permission};
use crate::id::EventId;

/// How far a tool call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// It may run.
    Ready,
    /// It waits for the user.
    Waiting,
    /// It must not run; the model is told why.
    Denied(Denial),
    /// It may have had an effect.
    Started,
    /// It has its one result.
    Answered {
        /// What the tool returned.
        content: Vec<ContentBlock>,
        /// Whether it failed.
        is_error: bool,
    },
}

/// Why a call must not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The policy refuses it, or there is no such tool.
    Policy,
    /// The user does, perhaps with a reason.
    User(Option<String>),
    /// A judge does, with its reason.
    Judge(String),
    /// It asks, and the session has nobody who could answer.
    Nobody,
}

/// Who runs a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// The session: in its sandbox, or by asking the web or an MCP server.
    Session,
    /// The client.
    Client,
}

/// A tool at its MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtServer {
    /// The server.
    pub server: String,
    /// The tool's name there.
    pub tool: String,
    /// Whether the server runs in the session's sandbox.
    pub is_sandboxed: bool,
}

/// A tool call of the model's last answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The `agent.tool_use` event, or `agent.mcp_tool_use`.
    pub id: EventId,
    /// The tool, as the model named it.
    pub name: String,
    /// The MCP server that has it; nothing for other tools.
    pub mcp: Option<AtServer>,
    /// The arguments.
    pub input: Map<String, Value>,
    /// Who runs it.
    pub runner: Runner,
    /// How far it has come.
    pub state: CallState,
}

impl CallState {
    /// What a call is that was judged so.
    pub(super) fn of(permission: Permission) -> Self {
        match permission {
            Permission::Allow => Self::Ready,
            Permission::Ask => Self::Waiting,
            Permission::Deny => Self::Denied(Denial::Policy),
        }
    }
}

impl Call {
    /// What the call may do; a tool that does not exist does nothing.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match &self.mcp {
            Some(AtServer { is_sandboxed: true, .. }) => Effect::Runs,
            Some(AtServer { is_sandboxed: false, .. }) => Effect::Reaches,
            None => ToolName::parse(&self.name).map_or(Effect::Reads, ToolName::effect),
        }
    }

    /// The built-in tool that it is of, if it is.
    #[must_use]
    pub fn built_in(&self) -> Option<ToolName> {
        ToolName::parse(&self.name).filter(|_| self.mcp.is_none())
    }

    /// Whether it is a search for tools of MCP servers.
    #[must_use]
    pub fn is_search(&self) -> bool {
        self.mcp.is_none() && self.name == offers::SEARCH
    }

    /// Its result, as a fact.
    #[must_use]
    pub fn result(&self, content: Vec<ContentBlock>, is_error: bool) -> EventBody {
        let id = self.id.clone();
        match self.mcp {
            None => EventBody::AgentToolResult { tool_use_id: id, content, is_error },
            Some(_) => EventBody::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error },
        }
    }

    /// A result that tells the model what went wrong.
    #[must_use]
    pub fn failure(&self, text: impl Into<String>) -> EventBody {
        self.result(vec![ContentBlock::text(text)], true)
    }

    /// Whether the call still lacks its result.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, CallState::Answered { .. })
    }
}
