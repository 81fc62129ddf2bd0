//! Who is asked over HTTP whether calls may run: `--on-ask webhook=URL`, and `on_ask` of a session. One question, one
//! answer, both JSON, within a bound of time.
//!
//! ```text
//! ──▶ {"type": "permission_request", "session_id": …, "calls": [{"event_id", "name", "input", "rules"}]}
//! ◀── {"answers": [{"event_id": …, "result": "allow" | "deny", "message": …}]}
//! ```

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{Input, Runtime, RuntimeError};
use crate::event::{Confirmation, EventBody};
use crate::id::{EventId, SessionId};
use crate::limits::{MAX_ERROR_BODY_BYTES, WEBHOOK_TIMEOUT};
use crate::provider::http::Http;
use crate::session::{Asker, Question, Reply};
use crate::tool::policy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    event_id: EventId,
    result: Confirmation,
    message: Option<String>,
}

/// Puts the questions to that URL. Every one of them has its answer, or there is none.
async fn ask(
    http: &Http,
    url: &str,
    id: &SessionId,
    questions: &[Question],
) -> Result<Vec<Reply>, String> {
    let asked = questions.iter().map(|Question { call, server, name, input }| {
        let tool =
            server.as_ref().map_or_else(|| name.clone(), |server| format!("{server}/{name}"));
        let rules = policy::narrowest(&tool, input);
        let mut asked = json!({"event_id": call, "name": name, "input": input, "rules": rules});
        if let Some(server) = server {
            asked["mcp_server_name"] = json!(server);
        }
        asked
    });
    let calls: Vec<_> = asked.collect();
    let question = json!({"type": "permission_request", "session_id": id, "calls": calls});
    let answer = http.post_json(url, question.to_string(), MAX_ERROR_BODY_BYTES);
    let answer = tokio::time::timeout(WEBHOOK_TIMEOUT, answer).await;
    let late = |_| format!("no answer within {} s", WEBHOOK_TIMEOUT.as_secs());
    let Answers { answers } = serde_json::from_slice(&answer.map_err(late)??)
        .map_err(|error| format!("its answer: {error}"))?;
    let reply = |Question { call, .. }: &Question| {
        let answer = answers.iter().find(|answer| answer.event_id == *call);
        let Answer { result, message, .. } =
            answer.ok_or_else(|| format!("its answer says nothing of {call}"))?;
        let message = message.clone().filter(|_| *result == Confirmation::Deny);
        Ok(Reply { call: call.clone(), result: *result, message })
    };
    questions.iter().map(reply).collect()
}

/// Asks at that URL whenever calls of the session wait.
pub(super) fn asker(http: Arc<Http>, url: String, id: SessionId) -> Asker {
    Arc::new(move |questions| {
        let (http, url, id) = (Arc::clone(&http), url.clone(), id.clone());
        Box::pin(async move { ask(&http, &url, &id, &questions).await })
    })
}

impl Runtime {
    /// Asks whether these calls may run. Every one of them has its answer, or there is none.
    ///
    /// # Errors
    /// If nobody answers in time, or not to every question.
    pub async fn ask_webhook(
        &self,
        url: &str,
        id: &SessionId,
        calls: &[EventId],
    ) -> Result<Vec<Input>, RuntimeError> {
        let mut questions = Vec::new();
        for call in calls {
            let body = self.reader().event(id, call)?.map(|event| event.body);
            let (server, name, input) = match body {
                Some(EventBody::AgentToolUse { name, input, .. }) => (None, name, input),
                Some(EventBody::AgentMcpToolUse { mcp_server_name, name, input, .. }) => {
                    (Some(mcp_server_name), name, input)
                }
                _ => continue,
            };
            questions.push(Question { call: call.clone(), server, name, input });
        }
        let http = self.shared.catalog.http();
        let wrong = |reason: String| RuntimeError::Webhook { url: url.to_owned(), reason };
        let replies = ask(&http, url, id, &questions).await.map_err(wrong)?;
        let confirm = |Reply { call, result, message }| Input::Confirm { call, result, message };
        Ok(replies.into_iter().map(confirm).collect())
    }
}
