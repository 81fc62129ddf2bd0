//! Where a rewind or a fork goes: from the event that was named to a moment at which conversation and files agree. Pure.

use std::sync::Arc;

use super::Definition;
use super::call::{Call, CallState};
use super::lineage::{Lineage, Rewind};
use super::state::{Session, Status};
use super::step::{close_calls, idle_group};
use crate::clock::Timestamp;
use crate::event::{Budget, Event, EventBody, Seq, StopReason, Usage};
use crate::id::EventId;

/// What the model is told of a call that had not ended at the moment to which the user went back.
const TAKEN_BACK: &str =
    "The user went back to the moment before this call had an effect; nothing of it is left.";

/// A moment of a session.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The last event that counts.
    pub position: Seq,
    /// What home and workspace were, if they were ever sealed.
    pub seal: Option<(u64, u64)>,
    /// What the session might use.
    pub budget: Option<Budget>,
    /// What makes the conversation whole there, and idle.
    pub closing: Vec<EventBody>,
}

/// The moment right after the event `to`, if the log has it. An answer of the model counts as one event.
#[must_use]
pub fn moment(
    definition: Arc<Definition>,
    log: &[Event],
    to: &EventId,
    now: Timestamp,
) -> Option<Moment> {
    let named = log.iter().find(|event| event.id == *to)?.seq;
    let rewinds: Vec<_> = log.iter().filter_map(Rewind::of).collect();
    let lineage = Lineage::to(named, &rewinds);
    let mut session = Session::new(definition);
    let (before, after) = log.split_at(usize::try_from(named).expect("a log fits into memory"));
    for event in before {
        if lineage.holds(event.seq) { session.apply(event) } else { session.skip(event) }
    }
    let mut rest = after.iter().take_while(|event| Rewind::of(event).is_none()).peekable();
    // Half an answer is none: its end was committed with it.
    while session.is_within_answer() {
        let Some(event) = rest.next() else { break };
        session.apply(event);
    }
    let seal = seal_at(&session, rest);
    let (position, budget) = (session.head(), session.budget().cloned());
    Some(Moment { position, seal, budget, closing: closing(&session, now) })
}

/// The seal that holds the files of that moment: one that comes before anything that could change them, or the last.
fn seal_at<'e>(session: &Session, rest: impl Iterator<Item = &'e Event>) -> Option<(u64, u64)> {
    let last = session.files().seal;
    let under_way = session.calls().iter().any(|call| call.state == CallState::Started);
    if session.files().clean || under_way {
        return last;
    }
    for event in rest {
        match event.body {
            EventBody::Sealed { home, work, .. } => return Some((home, work)),
            // The user may have changed files before the next message, unless there was no seal before it.
            EventBody::UserMessage { .. } if last.is_some() => return last,
            EventBody::ToolStarted { .. } => return last,
            _ => {}
        }
    }
    last
}

/// Ends what is open, and leaves the session idle as it was, or as if its turn had ended there.
fn closing(session: &Session, now: Timestamp) -> Vec<EventBody> {
    let mut facts = Vec::new();
    if let Some(start) = session.request() {
        facts.push(EventBody::ModelRequestEnd {
            model_request_start_id: start.clone(),
            is_error: true,
            model_usage: Usage::default(),
        });
    }
    let reason = match session.stop_reason() {
        Some(reason) if session.status() == Status::Idle => reason.clone(),
        Some(_) | None => StopReason::EndTurn,
    };
    let waits = matches!(reason, StopReason::RequiresAction { .. });
    if !waits && session.calls().iter().any(Call::is_open) {
        facts.extend(close_calls(session, TAKEN_BACK));
    }
    facts.extend(idle_group(session, &reason, now));
    facts
}
