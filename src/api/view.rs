//! Events as clients see them: which of them, where in their order, and with which fields.
//!
//! A client sees the public events of the log in their order, with one difference: an input that waits is seen where it
//! is taken up. While it waits it has no place yet; a list shows it at its end, a stream not at all.

use crate::clock::Timestamp;
use crate::event::{Audience, Event, EventBody, rfc3339};
use crate::id::{EventId, SessionId};
use crate::runtime::{Reader, StoreError};

/// Every type that an event of a list can have, in the protocol's words; some of them no session here ever has.
pub const TYPES: [&str; 41] = [
    "user.message",
    "user.interrupt",
    "user.tool_confirmation",
    "user.custom_tool_result",
    "user.tool_result",
    "user.define_outcome",
    "system.message",
    "agent.message",
    "agent.thinking",
    "agent.tool_use",
    "agent.tool_result",
    "agent.custom_tool_use",
    "agent.mcp_tool_use",
    "agent.mcp_tool_result",
    "agent.thread_message_sent",
    "agent.thread_message_received",
    "agent.thread_context_compacted",
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.error",
    "session.updated",
    "session.usage",
    "session.thread_created",
    "session.thread_status_running",
    "session.thread_status_idle",
    "session.thread_status_rescheduled",
    "session.thread_status_terminated",
    "span.model_request_start",
    "span.model_request_end",
    "span.outcome_evaluation_start",
    "span.outcome_evaluation_ongoing",
    "span.outcome_evaluation_end",
    "workflow_run.created",
    "workflow_run.status_running",
    "workflow_run.status_idle",
    "workflow_run.status_ended",
    "workflow_run.error",
    "workflow_run.phase_started",
    "workflow_run.phase_ended",
];

/// Whether clients see the event where it is taken up rather than where it came.
#[must_use]
pub fn is_queued(body: &EventBody) -> bool {
    matches!(
        body,
        EventBody::UserMessage { .. }
            | EventBody::UserInterrupt { .. }
            | EventBody::SystemMessage { .. }
    )
}

/// The inputs that clients see at the place of this event.
#[must_use]
pub fn inputs(body: &EventBody) -> &[EventId] {
    match body {
        EventBody::TakenUp { event_ids } | EventBody::Flushed { event_ids } => event_ids,
        _ => &[],
    }
}

/// The events that clients see at the place of this one.
///
/// # Errors
/// The store's.
pub fn shown(reader: &Reader, session: &SessionId, event: Event) -> Result<Vec<Event>, StoreError> {
    if event.body.audience() == Audience::Public && !is_queued(&event.body) {
        return Ok(vec![event]);
    }
    shown_inputs(reader, session, &event)
}

/// The inputs that this event takes up.
///
/// # Errors
/// The store's.
pub fn shown_inputs(
    reader: &Reader,
    session: &SessionId,
    event: &Event,
) -> Result<Vec<Event>, StoreError> {
    let mut shown = Vec::new();
    for id in inputs(&event.body) {
        let input = reader.event(session, id)?;
        shown.extend(input.map(|input| Event { processed_at: event.processed_at, ..input }));
    }
    Ok(shown)
}

/// The event as one line of JSON.
#[must_use]
pub fn wire(event: &Event) -> String {
    let mut body = serde_json::to_string(&event.body).expect("an event body has string keys only");
    if let EventBody::StatusIdle { stop_details: None, .. }
    | EventBody::ThreadStatusIdle { stop_details: None, .. } = event.body
    {
        body.truncate(body.len() - 1);
        body.push_str(r#","stop_details":null}"#);
    }
    let processed_at = time(event.processed_at);
    format!(r#"{{"id":"{}","processed_at":{processed_at},{}"#, event.id, &body[1..])
}

/// A time in JSON.
fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "null".to_owned(), |at| format!("\"{}\"", rfc3339(at)))
}
