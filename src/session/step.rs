//! The whole policy of the loop: given a session, what comes next. Pure.

use super::Definition;
use super::call::{Call, CallState, Runner};
use super::compact::{self, Remedy};
use super::notes;
use super::state::{Session, Status};
use crate::agent::{Effect, OnAsk};
use crate::clock::Timestamp;
use crate::event::{CompactionReason, ErrorDetail, ErrorKind, EventBody, RetryStatus, StopReason};
use crate::id::EventId;
use crate::limits::{GUEST_PARALLEL_CALLS, REPETITION_CHARS};
use crate::provider::repair::excerpt;

/// What the model is told of a call that the user stopped.
const INTERRUPTED: &str = "Tool execution was interrupted before completion. Please retry.";

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing until there is input.
    Rest,
    /// Ask the model.
    Sample,
    /// Show the model these results no more.
    Trim(Vec<EventId>),
    /// Ask the model for a summary that takes the place of the conversation.
    Compact(CompactionReason),
    /// Put what the log says in its place, without the model.
    CompactFromLog,
    /// Run these calls together, or refuse them.
    Run(Vec<EventId>),
    /// The turn is over; calls that are still open wait for the user.
    Settle(StopReason),
    /// The user wants it to stop: answer open calls, end the turn.
    Stop,
    /// The turn cannot go on: say why, answer open calls, end the turn.
    GiveUp(ErrorDetail),
    /// The session cannot go on: answer open calls, end it.
    Terminate,
}

impl Step {
    /// Whether the model is asked, or would be if there were room.
    #[must_use]
    pub fn asks_model(&self) -> bool {
        match self {
            Self::Sample | Self::Trim(_) | Self::Compact(_) | Self::CompactFromLog => true,
            Self::Rest
            | Self::Run(_)
            | Self::Settle(_)
            | Self::Stop
            | Self::GiveUp(_)
            | Self::Terminate => false,
        }
    }

    /// Whether the step ends the turn: then it must have seen every input that is there.
    #[must_use]
    pub fn ends_turn(&self) -> bool {
        match self {
            Self::Settle(_) | Self::Stop | Self::GiveUp(_) | Self::Terminate => true,
            Self::Rest
            | Self::Sample
            | Self::Trim(_)
            | Self::Compact(_)
            | Self::CompactFromLog
            | Self::Run(_) => false,
        }
    }
}

/// Decides. Called with a session that has no request under way.
#[must_use]
pub fn next_step(session: &Session) -> Step {
    debug_assert_eq!(session.request(), None, "a request is under way");
    if session.status() == Status::Terminated {
        return Step::Rest;
    }
    if session.turn().interrupted {
        return Step::Stop;
    }
    match session.turn().given_up {
        Some(RetryStatus::Terminal) => return Step::Terminate,
        Some(_) => return Step::Settle(StopReason::RetriesExhausted),
        None => {}
    }
    if session.calls().iter().any(Call::is_open) {
        return next_call(session);
    }
    if wants_sample(session) {
        return sample_or_give_up(session);
    }
    compact::on_request(session).map_or_else(|| end_of_turn(session), remedied)
}

fn remedied(remedy: Remedy) -> Step {
    match remedy {
        Remedy::Trim(ids) => Step::Trim(ids),
        Remedy::Summarise(reason) => Step::Compact(reason),
        Remedy::FromLog => Step::CompactFromLog,
        Remedy::Hopeless(message) => give_up(ErrorKind::CompactionLimitReachedError, message),
    }
}

/// Calls run in the model's order; calls that only read run together with their neighbours. What the client runs is no
/// part of that order, and once the client is waited for, nothing runs before all its answers are in.
fn next_call(session: &Session) -> Step {
    let waits = |call: &Call| call.state == CallState::Waiting;
    if session.status() == Status::Idle && session.calls().iter().any(waits) {
        return wait_for_user(session);
    }
    let ours = |call: &&Call| call.is_open() && call.runner == Runner::Session;
    let mut open = session.calls().iter().filter(ours).peekable();
    let Some(first) = open.peek().filter(|call| !waits(call)) else {
        return wait_for_user(session);
    };
    if first.effect() != Effect::Reads {
        return Step::Run(vec![first.id.clone()]);
    }
    let together =
        |call: &&Call| call.effect() == Effect::Reads && call.state != CallState::Waiting;
    let batch = open.take_while(together).take(GUEST_PARALLEL_CALLS);
    Step::Run(batch.map(|call| call.id.clone()).collect())
}

fn wait_for_user(session: &Session) -> Step {
    let waiting = session.calls().iter().filter(|call| call.state == CallState::Waiting);
    let mut asks = waiting.clone().filter(|call| call.runner == Runner::Session);
    if session.definition().on_ask == Some(OnAsk::Fail)
        && let Some(call) = asks.next()
    {
        return unanswered(call);
    }
    let reason =
        StopReason::RequiresAction { event_ids: waiting.map(|call| call.id.clone()).collect() };
    if session.status() == Status::Idle && session.stop_reason() == Some(&reason) {
        return Step::Rest;
    }
    Step::Settle(reason)
}

/// A question that the session was told to fail on.
fn unanswered(call: &Call) -> Step {
    let input = serde_json::to_string(&call.input).expect("JSON is JSON");
    let call = excerpt(&format!("{} {input}", call.name), REPETITION_CHARS);
    give_up(
        ErrorKind::UnknownError,
        format!("a call asks whether it may run, and `on_ask` is `fail`: {call}"),
    )
}

/// Whether the model owes an answer: there is input, there are results, or its last request failed or was paused.
fn wants_sample(session: &Session) -> bool {
    if session.queued().next().is_some() {
        return true;
    }
    let owed = match session.turn().stop.as_deref() {
        // A compaction that the user asked for leaves nothing to answer.
        None => session.turn().requests > 0,
        Some("pause_turn") => true,
        Some("model_context_window_exceeded") => session.context().overflowed,
        // Asking again would be refused again, however many calls the refused answer held.
        Some("refusal") => false,
        Some(_) => !session.calls().is_empty(),
    };
    (session.status() != Status::Idle || session.is_paused()) && owed
}

fn sample_or_give_up(session: &Session) -> Step {
    let turn = session.turn();
    if session.is_over_budget() {
        let told = session.stop_reason() == Some(&StopReason::BudgetReached);
        let rests = session.status() == Status::Idle && told;
        return if rests { Step::Rest } else { Step::Settle(StopReason::BudgetReached) };
    }
    let fresh = session.queued().next().is_some();
    if !fresh && turn.requests >= session.definition().max_turns {
        let limit = session.definition().max_turns;
        return give_up(
            ErrorKind::ToolUseLimitReachedError,
            format!(
                "the limit of {limit} model requests for one message is reached; send a message to go on, \
             or raise --max-turns"
            ),
        );
    }
    if !fresh && turn.repetition.is_hopeless() {
        return give_up(
            ErrorKind::ToolUseLimitReachedError,
            format!(
                "no progress: {}; send a message that says what to do instead",
                turn.repetition.words()
            ),
        );
    }
    compact::before_answer(session).map_or(Step::Sample, remedied)
}

fn give_up(r#type: ErrorKind, message: impl Into<String>) -> Step {
    Step::GiveUp(ErrorDetail::new(r#type, message, RetryStatus::Exhausted))
}

/// The step for a session whose tools have nowhere to run.
#[must_use]
pub fn no_sandbox(failure: &str) -> Step {
    give_up(ErrorKind::UnknownError, format!("no sandbox: {failure}"))
}

fn end_of_turn(session: &Session) -> Step {
    if session.status() == Status::Idle {
        return Step::Rest;
    }
    let failed = |message: &str| give_up(ErrorKind::ModelRequestFailedError, message);
    match session.turn().stop.as_deref() {
        Some("refusal") => Step::Settle(StopReason::Refusal),
        Some("max_tokens") => failed(
            "the answer was cut at the token limit; send a message to go on, or raise `max_tokens` \
             in the agent file",
        ),
        _ => Step::Settle(StopReason::EndTurn),
    }
}

/// What a step must have in the log before it is performed; for steps that end the turn, all there is to it.
/// `now` is when it is said.
#[must_use]
pub fn intent(session: &Session, step: &Step, now: Timestamp) -> Vec<EventBody> {
    match step {
        Step::Rest => Vec::new(),
        Step::Sample => {
            let mut facts = wake(session);
            facts.extend(taken_up(session.queued()));
            facts.extend(notes::due(session));
            facts.push(EventBody::ModelRequestStart {});
            facts
        }
        Step::Trim(ids) => {
            let mut facts = wake(session);
            facts.push(EventBody::ContextTrimmed { tool_use_ids: ids.clone() });
            facts
        }
        Step::Compact(reason) => {
            let mut facts = wake(session);
            let reason = *reason;
            facts
                .extend([EventBody::CompactionStarted { reason }, EventBody::ModelRequestStart {}]);
            facts
        }
        Step::CompactFromLog => {
            let mut facts = wake(session);
            facts.extend(compact::facts(session, None));
            facts
        }
        Step::Run(ids) => {
            let mut facts = wake(session);
            facts.extend(
                ids.iter()
                    .filter(|id| needs_start_mark(session, id))
                    .map(|id| EventBody::ToolStarted { tool_use_id: (*id).clone() }),
            );
            facts
        }
        Step::Settle(reason) => idle_group(session, reason, now),
        Step::Stop => {
            let mut facts = close_calls(session, INTERRUPTED);
            let messages = session.interrupted_messages();
            facts.extend(taken_up(messages.chain(session.interrupts())));
            facts.extend(idle_group(session, &StopReason::EndTurn, now));
            facts
        }
        Step::GiveUp(error) => {
            let mut facts = close_calls(session, "This call was not run: the turn was given up.");
            facts.push(EventBody::SessionError { error: error.clone() });
            facts.extend(idle_group(session, &StopReason::RetriesExhausted, now));
            facts
        }
        Step::Terminate => {
            let mut facts = close_calls(session, "This call was not run: the session has ended.");
            facts.extend(flushed(session));
            facts.extend(end_group(session));
            facts
        }
    }
}

/// The facts that end a session for good.
#[must_use]
pub fn end_group(session: &Session) -> Vec<EventBody> {
    let definition = session.definition();
    vec![
        EventBody::ThreadStatusTerminated {
            session_thread_id: definition.thread.clone(),
            agent_name: definition.agent.name.clone(),
        },
        EventBody::StatusTerminated {},
    ]
}

fn taken_up<'e>(ids: impl Iterator<Item = &'e EventId>) -> Option<EventBody> {
    let event_ids: Vec<_> = ids.cloned().collect();
    (!event_ids.is_empty()).then_some(EventBody::TakenUp { event_ids })
}

/// What waited for a turn that is given up is not run later.
fn flushed(session: &Session) -> Option<EventBody> {
    let event_ids: Vec<_> = session.queued().cloned().collect();
    (!event_ids.is_empty()).then_some(EventBody::Flushed { event_ids })
}

/// A call that only reads may run twice, so nobody needs to know whether it began.
fn needs_start_mark(session: &Session, id: &EventId) -> bool {
    let call = session.call(id).expect("a step names calls of its session");
    call.state == CallState::Ready && call.effect() != Effect::Reads
}

pub(super) fn wake(session: &Session) -> Vec<EventBody> {
    if session.status() == Status::Running {
        return Vec::new();
    }
    running_pair(session.definition())
}

/// The facts that begin a turn.
#[must_use]
pub fn running_pair(definition: &Definition) -> Vec<EventBody> {
    vec![
        EventBody::StatusRunning {},
        EventBody::ThreadStatusRunning {
            session_thread_id: definition.thread.clone(),
            agent_name: definition.agent.name.clone(),
        },
    ]
}

/// Error results for every call that has none.
#[must_use]
pub fn close_calls(session: &Session, why: &str) -> Vec<EventBody> {
    let open = session.calls().iter().filter(|call| call.is_open());
    open.map(|call| call.failure(why)).collect()
}

/// The facts that end a turn, or let it wait.
pub(super) fn idle_group(session: &Session, reason: &StopReason, now: Timestamp) -> Vec<EventBody> {
    let definition = session.definition();
    let refused = *reason == StopReason::Refusal;
    let details = if refused { session.refusal().cloned() } else { None };
    // The turn may be over together with the budget: the thread says the one, the session the other.
    let over = *reason == StopReason::EndTurn && session.is_over_budget();
    let of_session = if over { StopReason::BudgetReached } else { reason.clone() };
    let given_up = *reason == StopReason::RetriesExhausted;
    let mut facts: Vec<_> = flushed(session).into_iter().filter(|_| given_up).collect();
    facts.extend([
        EventBody::ThreadStatusIdle {
            session_thread_id: definition.thread.clone(),
            agent_name: definition.agent.name.clone(),
            stop_reason: reason.clone(),
            stop_details: details.clone(),
        },
        EventBody::SessionUsage { usage: session.usage_by(now), budget: session.budget().cloned() },
        EventBody::StatusIdle { stop_reason: of_session, stop_details: details },
    ]);
    facts
}
