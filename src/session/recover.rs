//! After a crash: the facts that make a log whole again. Pure; the loop then goes on as always.

use super::call::{Call, CallState};
use super::state::Session;
use crate::agent::Effect;
use crate::clock::Timestamp;
use crate::event::{EventBody, Usage};

/// What the model is told of a call that was under way when the process ended.
pub const OUTCOME_UNKNOWN: &str = "The runtime restarted while this call ran; its effect is unknown. \
     Look at the current state before you decide whether to repeat it. The shell is a new one: its directory, \
     variables and background jobs are gone.";

/// The same of a call that was made elsewhere: the session's shell has no part in it.
const OUTCOME_UNKNOWN_ELSEWHERE: &str = "The runtime restarted while this call ran; its effect is unknown. \
     Look at the current state before you decide whether to repeat it.";

fn unknown(call: &Call) -> &'static str {
    match call.effect() {
        Effect::Reaches => OUTCOME_UNKNOWN_ELSEWHERE,
        Effect::Reads | Effect::Writes | Effect::Runs => OUTCOME_UNKNOWN,
    }
}

/// The facts that are missing. A request without an end gets one (asking again only costs tokens); a started call that
/// changes things gets a result that says so. A call that only reads, or never started, simply runs. What another
/// process left running before this one was opened is said to go on, so that the time between does not count as work.
#[must_use]
pub fn repairs(session: &Session, opened_at: Timestamp) -> Vec<EventBody> {
    let mut facts = Vec::new();
    let activity = session.activity();
    if activity.running_since.is_some() && activity.last_fact_at < Some(opened_at) {
        facts.push(EventBody::Resumed {});
    }
    if let Some(start) = session.request() {
        facts.push(EventBody::ModelRequestEnd {
            model_request_start_id: start.clone(),
            is_error: true,
            model_usage: Usage::default(),
        });
    }
    let lost = session
        .calls()
        .iter()
        .filter(|call| call.state == CallState::Started && call.effect() != Effect::Reads);
    facts.extend(lost.map(|call| call.failure(unknown(call))));
    facts
}
