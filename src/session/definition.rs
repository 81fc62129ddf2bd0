//! What a session was created with, frozen: the store keeps it as one JSON value beside the log.

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, OnAsk};
use crate::environment::Environment;
use crate::event::Budget;
use crate::id::ThreadId;
use crate::store::Origin;

use super::skills::Skills;

/// Everything about a session that its log does not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// What it may use, until `session.updated` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What becomes of calls that ask; absent, they wait for a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ask: Option<OnAsk>,
    /// The stored agent and environment that it was made of, as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Its skills as they were at creation.
    #[serde(default, skip_serializing_if = "Skills::is_empty")]
    pub skills: Skills,
}
