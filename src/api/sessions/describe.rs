//! Sessions, their events and threads in the server's description.

use serde_json::{Value, json};

use super::MAX_TITLE_CHARS;
use crate::api::resources;
use crate::api::schema::{
    Schema, any, any_object, boolean, integer, list, list_of, literal, may, metadata,
    metadata_patch, must, nullable, object, pattern, string, tagged, text, time, words,
};
use crate::limits::{MAX_INITIAL_EVENTS, MAX_INPUTS, MAX_SESSION_RESOURCES};
use crate::runtime::SessionStatus;

/// A session as it is answered.
pub(super) const SESSION: Schema = Schema { name: "Session", make: session };
/// What begins one.
pub(super) const CREATE: Schema = Schema { name: "SessionCreate", make: create };
/// What changes one.
pub(super) const UPDATE: Schema = Schema { name: "SessionUpdate", make: update };
/// What is left of one.
pub(super) const DELETED: Schema = Schema { name: "DeletedSession", make: deleted };
/// A thread of one.
pub(super) const THREAD: Schema = Schema { name: "SessionThread", make: thread };
/// An event of one.
pub(super) const EVENT: Schema = Schema { name: "SessionEvent", make: event };
/// What a stream of them has besides: signs of life, and pieces of what is to come.
pub(super) const STREAMED: Schema = Schema { name: "StreamedEvent", make: streamed };
/// What is sent to one.
pub(super) const SEND: Schema = Schema { name: "SendEvents", make: send };
/// What comes back.
pub(super) const SENT: Schema = Schema { name: "SentEvents", make: sent };

fn number() -> Value {
    json!({ "type": "number", "minimum": 0 })
}

fn statuses() -> Value {
    words(&SessionStatus::ALL.map(SessionStatus::as_str))
}

fn money() -> Value {
    object([must("amount", pattern("^(0|[1-9][0-9]*)$")), must("currency", literal("USD"))])
}

fn budget() -> Value {
    tagged(
        "limit",
        [
            may("max_list_cost", money()),
            may("max_tokens", integer(1)),
            may("max_active_seconds", integer(1)),
            may("max_tool_seconds", integer(1)),
            may("max_egress_bytes", integer(1)),
        ],
    )
}

fn usage() -> Value {
    let cache = [
        must("ephemeral_5m_input_tokens", integer(0)),
        must("ephemeral_1h_input_tokens", integer(0)),
    ];
    let tools = [must("web_search_requests", integer(0)), must("web_fetch_requests", integer(0))];
    object([
        must("input_tokens", integer(0)),
        must("output_tokens", integer(0)),
        must("cache_read_input_tokens", integer(0)),
        must("cache_creation", object(cache)),
        must("list_cost", money()),
        must("active_seconds", number()),
        must("server_tool_use", object(tools)),
    ])
}

fn session() -> Value {
    let stats = object([must("active_seconds", number()), must("duration_seconds", number())]);
    tagged(
        "session",
        [
            must("id", pattern("^sesn_")),
            must("status", statuses()),
            must("title", nullable(string())),
            must("agent", any_object()),
            must("environment_id", pattern("^env_")),
            must("resources", list(resources::RESOURCE.reference())),
            must("vault_ids", list(string())),
            must("metadata", metadata()),
            must("usage", usage()),
            must("stats", stats),
            must("outcome_evaluations", list(any_object())),
            must("budget", nullable(budget())),
            may("on_ask", on_ask()),
            must("deployment_id", json!({ "type": "null" })),
            must("created_at", time()),
            must("updated_at", time()),
            must("archived_at", nullable(time())),
        ],
    )
}

fn on_ask() -> Value {
    pattern("^(deny|fail|wait=[0-9]+[smh]|webhook=https?://.+)$")
}

fn create() -> Value {
    object([
        must("agent", any([string(), any_object()])),
        must("environment_id", string()),
        may("title", nullable(text(0, MAX_TITLE_CHARS))),
        may("metadata", nullable(metadata())),
        may("budget", nullable(budget())),
        may("on_ask", nullable(on_ask())),
        may("initial_events", nullable(list_of(0, MAX_INITIAL_EVENTS, user_message()))),
        may("resources", nullable(list_of(0, MAX_SESSION_RESOURCES, resources::new()))),
        may("vault_ids", nullable(list_of(0, 0, string()))),
    ])
}

fn update() -> Value {
    let agent = object([
        may("tools", nullable(list(any_object()))),
        may("mcp_servers", nullable(list(any_object()))),
    ]);
    object([
        may("title", nullable(text(0, MAX_TITLE_CHARS))),
        may("metadata", nullable(metadata_patch())),
        may("agent", nullable(agent)),
        may("budget", nullable(budget())),
    ])
}

fn deleted() -> Value {
    tagged("session_deleted", [must("id", pattern("^sesn_"))])
}

fn thread() -> Value {
    let stats = object([
        must("active_seconds", number()),
        must("duration_seconds", number()),
        must("startup_seconds", nullable(number())),
    ]);
    tagged(
        "session_thread",
        [
            must("id", pattern("^sthr_")),
            must("session_id", pattern("^sesn_")),
            must("parent_thread_id", json!({ "type": "null" })),
            must("agent", any_object()),
            must("status", statuses()),
            must("usage", nullable(usage())),
            must("stats", nullable(stats)),
            must("workflow_run_id", json!({ "type": "null" })),
            must("created_at", time()),
            must("updated_at", time()),
            must("archived_at", nullable(time())),
        ],
    )
}

fn event() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": pattern("^sevt_"),
            "type": string(),
            "processed_at": nullable(time()),
        },
        "required": ["id", "type", "processed_at"],
    })
}

fn streamed() -> Value {
    let begun = object([must("type", string()), must("id", pattern("^sevt_"))]);
    let content = tagged("text", [must("text", string())]);
    let piece = tagged("content_delta", [must("index", integer(0)), must("content", content)]);
    any([
        EVENT.reference(),
        tagged("ping", []),
        tagged("event_start", [must("event", begun)]),
        tagged("event_delta", [must("event_id", pattern("^sevt_")), must("delta", piece)]),
    ])
}

fn blocks() -> Value {
    list_of(0, 1000, any_object())
}

fn user_message() -> Value {
    tagged("user.message", [must("content", blocks())])
}

fn send() -> Value {
    let confirmation = [
        must("tool_use_id", pattern("^sevt_")),
        must("result", words(&["allow", "deny"])),
        may("deny_message", nullable(string())),
    ];
    let result = [
        must("custom_tool_use_id", pattern("^sevt_")),
        may("content", nullable(blocks())),
        may("is_error", nullable(boolean())),
    ];
    let kinds = [
        user_message(),
        tagged("system.message", [must("content", blocks())]),
        tagged("user.interrupt", [may("session_thread_id", nullable(pattern("^sthr_")))]),
        tagged("user.tool_confirmation", confirmation),
        tagged("user.custom_tool_result", result),
    ];
    object([must("events", list_of(1, MAX_INPUTS, any(kinds)))])
}

fn sent() -> Value {
    object([must("data", list(event()))])
}
