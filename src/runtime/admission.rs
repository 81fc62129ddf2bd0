//! Which inputs a session can take now, and the events that they become. What is refused changes nothing.

use std::fmt;

use super::{RuntimeError, SessionStatus};
use crate::clock::Timestamp;
use crate::event::{
    Confirmation, ContentBlock, Event, EventBody, NewEvent, Permission, Seq, StopReason,
};
use crate::id::{EventId, SessionId, ThreadId};
use crate::limits::{MAX_INPUTS, MAX_TASK_BYTES, SCAN_PAGE};
use crate::session::Definition;
use crate::session::step::running_pair;
use crate::store::{Append, Reader, SessionRow};

/// What a client says to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The user says something.
    Message(Vec<ContentBlock>),
    /// The client instructs the model; the last input of its request.
    System(Vec<ContentBlock>),
    /// Stop the turn, keep the session.
    Interrupt {
        /// The thread that is meant; all of them if absent.
        thread: Option<ThreadId>,
    },
    /// The answer to a call that waits for permission.
    Confirm {
        /// The `agent.tool_use` or `agent.mcp_tool_use` event.
        call: EventId,
        /// The answer.
        result: Confirmation,
        /// For the model, with a refusal.
        message: Option<String>,
    },
    /// The answer to a call of the client's own tool.
    CustomResult {
        /// The `agent.custom_tool_use` event.
        call: EventId,
        /// What the tool returned.
        content: Option<Vec<ContentBlock>>,
        /// Whether it failed.
        is_error: Option<bool>,
    },
}

impl Input {
    /// A message that is plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Message(vec![ContentBlock::text(text)])
    }
}

/// Why a call takes no such answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswerable {
    /// The session has no such call.
    Unknown,
    /// It has its answer.
    Answered,
    /// It was allowed or denied without asking.
    NotAsked,
    /// It is a call of the client's own tool, which takes a result.
    TakesResult,
    /// It is a call of a built-in tool, which takes a confirmation at most.
    TakesNoResult,
}

impl fmt::Display for Unanswerable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "does not wait for an answer: it is no call of this session",
            Self::Answered => "does not wait for an answer: it has one",
            Self::NotAsked => "does not wait for an answer: it never asked",
            Self::TakesResult => {
                "is a call of a custom tool: it takes a result, not a confirmation"
            }
            Self::TakesNoResult => "is no call of a custom tool: it takes no result",
        })
    }
}

/// What is to be appended, and what each input is told.
pub(super) struct Admitted {
    /// All that goes into the log.
    pub(super) append: Append,
    /// One event for each input, in order. One that changes nothing is not in the log.
    pub(super) echoes: Vec<NewEvent>,
}

/// A session as one request of a client finds it, and leaves it.
pub(super) struct Admission<'a> {
    reader: &'a Reader,
    id: &'a SessionId,
    definition: &'a Definition,
    now: Timestamp,
    head: Seq,
    /// It works, or an input of this request makes it work.
    works: bool,
    /// It waited for an answer when the request came.
    waits: bool,
    /// The calls that still wait for one.
    waiting: Vec<EventId>,
    at_cap: bool,
    answered: Vec<EventId>,
    /// What is decided depends on the log's end.
    exact: bool,
    interrupts: bool,
}

impl<'a> Admission<'a> {
    pub(super) fn to(
        reader: &'a Reader,
        row: &'a SessionRow,
        definition: &'a Definition,
        now: Timestamp,
        at_cap: bool,
    ) -> Result<Self, RuntimeError> {
        let mut new = Self::to_new(reader, &row.id, definition, now);
        let works = matches!(row.status, SessionStatus::Running | SessionStatus::Rescheduling);
        // The session may not have said yet that it has an answer.
        if let Some(StopReason::RequiresAction { event_ids }) = &row.stop_reason {
            for call in event_ids {
                if !new.is_answered(call)? {
                    new.waiting.push(call.clone());
                }
            }
        }
        new.waits = !new.waiting.is_empty();
        (new.head, new.works, new.at_cap) = (row.head, works, at_cap);
        Ok(new)
    }

    /// To a session that is not there yet.
    pub(super) fn to_new(
        reader: &'a Reader,
        id: &'a SessionId,
        definition: &'a Definition,
        now: Timestamp,
    ) -> Self {
        Self {
            reader,
            id,
            definition,
            now,
            head: 0,
            works: false,
            waits: false,
            waiting: Vec::new(),
            at_cap: false,
            answered: Vec::new(),
            exact: false,
            interrupts: false,
        }
    }

    /// All inputs of one request, or none.
    pub(super) fn admit(mut self, inputs: &[Input]) -> Result<Admitted, RuntimeError> {
        if inputs.len() > MAX_INPUTS {
            return Err(RuntimeError::TooManyInputs { count: inputs.len() });
        }
        let (mut events, mut echoes) = (Vec::new(), Vec::new());
        for (i, input) in inputs.iter().enumerate() {
            let event = match input {
                Input::Message(content) => self.message(content)?,
                Input::System(content) => self.instruction(content, inputs, i)?,
                Input::Interrupt { thread } => match self.interrupt(thread.as_ref())? {
                    Recorded::Yes(event) => event,
                    Recorded::No(event) => {
                        echoes.push(event);
                        continue;
                    }
                },
                Input::Confirm { call, result, message } => {
                    self.confirmation(call, *result, message.as_ref())?
                }
                Input::CustomResult { call, content, is_error } => {
                    self.custom_result(call, content.as_ref(), *is_error)?
                }
            };
            echoes.push(event.clone());
            events.push(event);
            if !self.works && self.begins_work(input) {
                let pair = running_pair(self.definition).into_iter();
                events.extend(pair.map(|body| NewEvent::now(self.now, body)));
                (self.works, self.exact) = (true, true);
            }
        }
        let at = self.exact.then_some(self.head);
        // What makes a session work is appended to one that rests, which its place sees to.
        let working = self.works && !self.exact;
        let append = Append { events, processed: Vec::new(), at, working };
        Ok(Admitted { append, echoes })
    }

    /// Whether a session at rest works from this input on: it was told something, or has the last answer that it waited
    /// for. That it runs is in the same commit, so that whoever asks right after never sees it at rest.
    fn begins_work(&self, input: &Input) -> bool {
        match input {
            Input::Message(_) | Input::System(_) => !self.waits,
            Input::Confirm { .. } | Input::CustomResult { .. } => {
                self.waits && self.waiting.is_empty() && !self.interrupts
            }
            Input::Interrupt { .. } => false,
        }
    }

    fn message(&self, content: &[ContentBlock]) -> Result<NewEvent, RuntimeError> {
        self.may_speak(content)?;
        if !self.waiting.is_empty() {
            let waiting = self.waiting.clone();
            return Err(RuntimeError::WaitsForConfirmation { waiting });
        }
        let content = content.to_vec();
        Ok(NewEvent::queued(self.now, EventBody::UserMessage { content }))
    }

    fn instruction(
        &self,
        content: &[ContentBlock],
        inputs: &[Input],
        at: usize,
    ) -> Result<NewEvent, RuntimeError> {
        self.may_speak(content)?;
        if at + 1 != inputs.len() {
            return Err(RuntimeError::MisplacedInstruction);
        }
        let before = at.checked_sub(1).and_then(|before| inputs.get(before));
        if !self.waiting.is_empty() && !matches!(before, Some(Input::CustomResult { .. })) {
            let waiting = self.waiting.clone();
            return Err(RuntimeError::WaitsForConfirmation { waiting });
        }
        let content = content.to_vec();
        Ok(NewEvent::queued(self.now, EventBody::SystemMessage { content }))
    }

    fn may_speak(&self, content: &[ContentBlock]) -> Result<(), RuntimeError> {
        let text = content.iter().filter_map(|block| match block {
            ContentBlock::Text { text } => Some(text.as_str()),
            ContentBlock::Image { .. }
            | ContentBlock::Document { .. }
            | ContentBlock::SearchResult { .. } => None,
        });
        let only_text = text.clone().count() == content.len();
        if only_text && text.clone().all(|text| text.trim().is_empty()) {
            return Err(RuntimeError::EmptyMessage);
        }
        let bytes = text.map(str::len).sum();
        if bytes > MAX_TASK_BYTES {
            return Err(RuntimeError::MessageTooLarge { bytes });
        }
        if self.at_cap {
            return Err(RuntimeError::BudgetReached(self.id.clone()));
        }
        Ok(())
    }

    /// An interrupt that finds nothing to stop is not recorded.
    fn interrupt(&mut self, thread: Option<&ThreadId>) -> Result<Recorded, RuntimeError> {
        if let Some(thread) = thread.filter(|thread| **thread != self.definition.thread) {
            return Err(RuntimeError::NoThread(thread.clone()));
        }
        let body = EventBody::UserInterrupt { session_thread_id: thread.cloned() };
        if !self.works && self.waiting.is_empty() {
            return Ok(Recorded::No(NewEvent::now(self.now, body)));
        }
        (self.exact, self.interrupts) = (true, true);
        // It closes the calls, so that a message behind it begins a turn.
        self.waiting.clear();
        Ok(Recorded::Yes(NewEvent::queued(self.now, body)))
    }

    fn confirmation(
        &mut self,
        call: &EventId,
        result: Confirmation,
        message: Option<&String>,
    ) -> Result<NewEvent, RuntimeError> {
        if result == Confirmation::Allow && message.is_some() {
            return Err(RuntimeError::ReasonForAllowing(call.clone()));
        }
        let refuse = |why| self.unanswerable(call, why);
        let asked = self.reader.event(self.id, call)?;
        match asked.as_ref().map(|event| &event.body) {
            Some(
                EventBody::AgentToolUse { evaluated_permission: Permission::Ask, .. }
                | EventBody::AgentMcpToolUse { evaluated_permission: Permission::Ask, .. },
            ) => {}
            Some(EventBody::AgentToolUse { .. } | EventBody::AgentMcpToolUse { .. }) => {
                return Err(refuse(Unanswerable::NotAsked));
            }
            Some(EventBody::AgentCustomToolUse { .. }) => {
                return Err(refuse(Unanswerable::TakesResult));
            }
            _ => return Err(refuse(Unanswerable::Unknown)),
        }
        self.take_answer(asked.as_ref(), call)?;
        let body = EventBody::UserToolConfirmation {
            tool_use_id: call.clone(),
            result,
            deny_message: message.cloned(),
        };
        Ok(NewEvent::now(self.now, body))
    }

    fn custom_result(
        &mut self,
        call: &EventId,
        content: Option<&Vec<ContentBlock>>,
        is_error: Option<bool>,
    ) -> Result<NewEvent, RuntimeError> {
        let refuse = |why| self.unanswerable(call, why);
        let asked = self.reader.event(self.id, call)?;
        match asked.as_ref().map(|event| &event.body) {
            Some(EventBody::AgentCustomToolUse { .. }) => {}
            Some(EventBody::AgentToolUse { .. } | EventBody::AgentMcpToolUse { .. }) => {
                return Err(refuse(Unanswerable::TakesNoResult));
            }
            _ => return Err(refuse(Unanswerable::Unknown)),
        }
        self.take_answer(asked.as_ref(), call)?;
        let body = EventBody::UserCustomToolResult {
            custom_tool_use_id: call.clone(),
            content: content.cloned(),
            is_error,
        };
        Ok(NewEvent::now(self.now, body))
    }

    /// Each call takes one answer, of whichever client comes first.
    fn take_answer(&mut self, asked: Option<&Event>, call: &EventId) -> Result<(), RuntimeError> {
        let since = asked.map_or(0, |event| event.seq);
        if self.answered.contains(call) || self.has_answer(call, since)? {
            return Err(self.unanswerable(call, Unanswerable::Answered));
        }
        self.answered.push(call.clone());
        self.waiting.retain(|waits| waits != call);
        self.exact = true;
        Ok(())
    }

    fn is_answered(&self, call: &EventId) -> Result<bool, RuntimeError> {
        let asked = self.reader.event(self.id, call)?;
        self.has_answer(call, asked.map_or(0, |event| event.seq))
    }

    /// Whether the log has an answer, or went back to before the call.
    fn has_answer(&self, call: &EventId, since: Seq) -> Result<bool, RuntimeError> {
        let answers = |event: &Event| match &event.body {
            EventBody::UserToolConfirmation { tool_use_id: id, .. }
            | EventBody::UserCustomToolResult { custom_tool_use_id: id, .. }
            | EventBody::AgentToolResult { tool_use_id: id, .. }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: id, .. } => id == call,
            EventBody::Rewound { position, .. } => *position < since,
            _ => false,
        };
        let mut seen = since;
        loop {
            let page = self.reader.scan(self.id, seen, SCAN_PAGE)?;
            let Some(last) = page.last() else { return Ok(false) };
            seen = last.seq;
            if page.iter().any(answers) {
                return Ok(true);
            }
        }
    }

    fn unanswerable(&self, call: &EventId, why: Unanswerable) -> RuntimeError {
        RuntimeError::NotWaiting { call: call.clone(), why, waiting: self.waiting.clone() }
    }
}

enum Recorded {
    Yes(NewEvent),
    No(NewEvent),
}
