//! Who is asked over HTTP whether calls may run: `--on-ask webhook=URL`. One question, one answer, both JSON, within a
//! bound of time.
//!
//! ```text
//! ──▶ {"type": "permission_request", "session_id": …, "calls": [{"event_id", "name", "input", "rules"}]}
//! ◀── {"answers": [{"event_id": …, "result": "allow" | "deny", "message": …}]}
//! ```

use serde::Deserialize;
use serde_json::json;

use super::{Input, Runtime, RuntimeError};
use crate::event::{Confirmation, EventBody};
use crate::id::{EventId, SessionId};
use crate::limits::{MAX_ERROR_BODY_BYTES, WEBHOOK_TIMEOUT};
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
        let wrong = |reason: String| RuntimeError::Webhook { url: url.to_owned(), reason };
        let mut asked = Vec::new();
        for call in calls {
            match self.reader().event(id, call)?.map(|event| event.body) {
                Some(EventBody::AgentToolUse { name, input, .. }) => {
                    let rules = policy::narrowest(&name, &input);
                    asked.push(
                        json!({"event_id": call, "name": name, "input": input, "rules": rules}),
                    );
                }
                Some(EventBody::AgentMcpToolUse { mcp_server_name, name, input, .. }) => {
                    let rules = policy::narrowest(&format!("{mcp_server_name}/{name}"), &input);
                    asked.push(json!({
                        "event_id": call, "mcp_server_name": mcp_server_name, "name": name,
                        "input": input, "rules": rules,
                    }));
                }
                _ => {}
            }
        }
        let question =
            json!({"type": "permission_request", "session_id": id, "calls": asked}).to_string();
        let http = self.shared.catalog.http();
        let answer = http.post_json(url, question, MAX_ERROR_BODY_BYTES);
        let answer = tokio::time::timeout(WEBHOOK_TIMEOUT, answer).await;
        let late = |_| wrong(format!("no answer within {} s", WEBHOOK_TIMEOUT.as_secs()));
        let answer = answer.map_err(late)?.map_err(wrong)?;
        let Answers { answers } =
            serde_json::from_slice(&answer).map_err(|e| wrong(format!("its answer: {e}")))?;
        let of = |call: &EventId| answers.iter().find(|answer| answer.event_id == *call);
        let confirm = |call: &EventId| {
            let Answer { result, message, .. } =
                of(call).ok_or_else(|| wrong(format!("its answer says nothing of {call}")))?;
            let message = message.clone().filter(|_| *result == Confirmation::Deny);
            Ok(Input::Confirm { call: call.clone(), result: *result, message })
        };
        calls.iter().map(confirm).collect()
    }
}
