//! What a session was created with, frozen: the store keeps it as one JSON value beside the log.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::environment::Environment;
use crate::id::ThreadId;

/// Everything about a session that its log does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The agent as it was at creation.
    pub agent: Agent,
    /// The environment as it was at creation.
    pub environment: Environment,
    /// The primary thread.
    pub thread: ThreadId,
    /// The whole system prompt: fixed at creation, so that every request has the same prefix.
    pub system: String,
    /// Most model requests for one user message.
    pub max_turns: u32,
}
