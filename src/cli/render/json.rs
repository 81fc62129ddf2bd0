//! `--output json`: what a run came to, as one object.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::tally::{Outcome, Tally};
use crate::event::{ErrorDetail, StopReason};
use crate::id::{EventId, SessionId};
use crate::runtime::Changes;

/// The object; its fields are a promise to scripts.
#[derive(Debug, Serialize)]
struct Report<'a> {
    session_id: Option<&'a SessionId>,
    status: Outcome,
    stop_reason: Option<&'a StopReason>,
    result: Option<&'a str>,
    turns: u32,
    tool_calls: u32,
    usage: Value,
    duration_ms: u64,
    files_changed: &'a [String],
    files_obeyed: &'a [String],
    files_set_aside: &'a BTreeSet<String>,
    waiting: Vec<Waiting<'a>>,
    errors: &'a [ErrorDetail],
}

/// A call that waits for the user.
#[derive(Debug, Serialize)]
struct Waiting<'a> {
    event_id: &'a EventId,
    name: &'a str,
    input: &'a Map<String, Value>,
}

/// The object on one line.
pub(super) fn report(tally: &Tally, status: Outcome, changes: &Changes) -> String {
    let waiting = tally.waiting().into_iter().map(|call| Waiting {
        event_id: &call.id,
        name: &call.name,
        input: &call.input,
    });
    let report = Report {
        session_id: tally.session(),
        status,
        stop_reason: tally.stop_reason(),
        result: tally.result(),
        turns: tally.turns(),
        tool_calls: tally.tool_calls(),
        usage: tally.usage().with_hit_rate(),
        duration_ms: tally.duration_ms(),
        files_changed: &changes.files,
        files_obeyed: &changes.obeyed,
        files_set_aside: tally.set_aside(),
        waiting: waiting.collect(),
        errors: tally.errors(),
    };
    serde_json::to_string(&report).expect("a report has string keys only")
}
