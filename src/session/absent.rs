//! Questions that a session does not leave to its clients: it waits for so long, or has somebody asked over HTTP. Nothing
//! waits for ever then; what is not answered is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::call::{Call, CallState, Runner};
use super::driver::{DriveError, Driver};
use super::state::Status;
use crate::agent::OnAsk;
use crate::event::{Confirmation, EventBody, millis_between};
use crate::id::EventId;

/// A call that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The `agent.tool_use` event, or `agent.mcp_tool_use`.
    pub call: EventId,
    /// The MCP server that has the tool, if one has.
    pub server: Option<String>,
    /// The tool, by its own name.
    pub name: String,
    /// Its arguments.
    pub input: Map<String, Value>,
}

/// What somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The `agent.tool_use` event.
    pub call: EventId,
    /// Whether it may run.
    pub result: Confirmation,
    /// What the model is told of a refusal.
    pub message: Option<String>,
}

/// One answer for each question, or why there is none. It answers within a bound of time.
pub type Asker = Arc<
    dyn Fn(Vec<Question>) -> Pin<Box<dyn Future<Output = Result<Vec<Reply>, String>> + Send>>
        + Send
        + Sync,
>;

/// The answers to come.
pub type Replies = Pin<Box<dyn Future<Output = Vec<Reply>> + Send>>;

impl Driver {
    /// The calls that wait, in a session that does not leave them to its clients.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let waits = match self.session.definition().on_ask {
            Some(OnAsk::Wait(_) | OnAsk::Webhook(_)) => self.session.status() == Status::Idle,
            // Neither lets a call wait.
            None | Some(OnAsk::Deny | OnAsk::Fail) => false,
        };
        let calls = self.session.calls().iter().filter(|call| {
            waits && call.runner == Runner::Session && call.state == CallState::Waiting
        });
        let question = |call: &Call| Question {
            call: call.id.clone(),
            server: call.mcp.as_ref().map(|at| at.server.clone()),
            name: call.mcp.as_ref().map_or(&call.name, |at| &at.tool).clone(),
            input: call.input.clone(),
        };
        calls.map(question).collect()
    }

    /// Waits until the questions have their answers. Dropping it leaves them open.
    pub fn replies(&self, questions: Vec<Question>) -> Replies {
        let on_ask = self.session.definition().on_ask.clone();
        let asker = self.parts.asker.clone();
        let left = match on_ask {
            Some(OnAsk::Wait(time)) => self.left_of(time),
            _ => Duration::ZERO,
        };
        Box::pin(async move {
            let failed = match (on_ask, asker) {
                (Some(OnAsk::Webhook(_)), Some(asker)) => match asker(questions.clone()).await {
                    Ok(replies) => return replies,
                    Err(why) => format!("whoever should have been asked did not answer ({why})"),
                },
                (Some(OnAsk::Wait(time)), _) => {
                    tokio::time::sleep(left).await;
                    format!("nobody answered within {} s", time.as_secs())
                }
                _ => "nobody is there who could be asked".to_owned(),
            };
            let deny = |question: Question| Reply {
                call: question.call,
                result: Confirmation::Deny,
                message: Some(format!("{failed}; go on without this call")),
            };
            questions.into_iter().map(deny).collect()
        })
    }

    /// What is left of a time that began with the last fact: a restart does not begin it anew.
    fn left_of(&self, time: Duration) -> Duration {
        let now = self.parts.clock.now();
        let since = self.session.activity().last_fact_at.unwrap_or(now);
        time.saturating_sub(Duration::from_millis(millis_between(since, now)))
    }

    /// Puts the answers into the log, unless somebody said something meanwhile: then they are asked for again, if there
    /// is still something to ask.
    ///
    /// # Errors
    /// If the log cannot be kept.
    pub async fn answer(&mut self, replies: Vec<Reply>) -> Result<(), DriveError> {
        let body = |Reply { call, result, message }: Reply| EventBody::UserToolConfirmation {
            tool_use_id: call,
            result,
            deny_message: message.filter(|_| result == Confirmation::Deny),
        };
        let facts = self.at_once(replies.into_iter().map(body).collect());
        self.commit_here(facts).await.map(drop)
    }
}
