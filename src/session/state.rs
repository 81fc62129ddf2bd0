//! The fold: a session's state as a function of its log. No other mutation exists.

mod apply;

use std::collections::VecDeque;
use std::sync::Arc;

use super::Definition;
use super::call::Call;
use super::context::{Context, tokens_of};
use super::offers::Offers;
use super::repetition::Repetition;
use crate::clock::Timestamp;
use crate::event::{
    Activity, Budget, Cost, Event, RefusalDetails, RetryStatus, Seq, ServerToolUse, StopReason,
    Usage, UsageSnapshot, Used,
};
use crate::id::EventId;
use crate::provider::{Block, Message, Role};
use crate::skill::Brought;

/// Whether a session works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits for input.
    Idle,
    /// It works.
    Running,
    /// It waits for a model server.
    Rescheduling,
    /// It has ended for good.
    Terminated,
}

/// What happened since the user last spoke.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// Model requests begun.
    pub requests: u32,
    /// Model requests that failed in a row.
    pub failures: u32,
    /// The user wants it to stop.
    pub interrupted: bool,
    /// It was given up; the last `session.error` says why.
    pub given_up: Option<RetryStatus>,
    /// A call that may change files was started.
    pub wrote: bool,
    /// Why the model stopped last, in the Messages API's words.
    pub stop: Option<String>,
    /// What it does again and again.
    pub repetition: Repetition,
}

/// An input that waits to be taken up.
#[derive(Debug, Clone)]
struct Queued {
    id: EventId,
    /// The event before it.
    after: Seq,
    said: Vec<Block>,
    /// It was taken up before; a rewind put it back.
    marked: bool,
}

/// What is known of the session's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The last seal of home and workspace.
    pub seal: Option<(u64, u64)>,
    /// Nothing that could change them has run since that seal.
    pub clean: bool,
    /// Why the last try to seal them failed, if it did.
    pub unsealed: Option<String>,
    /// Why some outputs could not be handed out the last time.
    pub kept_back: Option<String>,
}

impl Files {
    fn seal(&mut self, home: u64, work: u64) {
        (self.seal, self.clean, self.unsealed) = (Some((home, work)), true, None);
    }
}

/// A session's state.
#[derive(Debug, Clone)]
pub struct Session {
    definition: Arc<Definition>,
    head: Seq,
    status: Status,
    stop_reason: Option<StopReason>,
    /// Shared with the states that are looked at [ahead](Self::ahead), most of which add nothing to it.
    messages: Arc<Vec<Arc<Message>>>,
    answer: Vec<Block>,
    calls: Vec<Call>,
    queue: VecDeque<Queued>,
    interrupts: Vec<Queued>,
    /// What was taken up for the next request.
    taken_up: Vec<Block>,
    request: Option<EventId>,
    turn: Turn,
    /// Why the thread stopped: it may have ended its turn where the session ended its budget.
    thread_stop: Option<StopReason>,
    refusal: Option<RefusalDetails>,
    usage: Usage,
    cost: Cost,
    web: ServerToolUse,
    tool_ms: u64,
    egress_bytes: u64,
    judged: usize,
    activity: Activity,
    budget: Option<Budget>,
    /// How often the model was told of it.
    budget_told: u8,
    /// What it is told with the next request.
    notes: Vec<Block>,
    archived: bool,
    files: Files,
    context: Context,
    offers: Arc<Offers>,
    brought: Arc<Brought>,
}

impl Session {
    /// A session before its first event.
    #[must_use]
    pub fn new(definition: Arc<Definition>) -> Self {
        Self {
            budget: definition.budget.clone(),
            definition,
            head: 0,
            status: Status::Idle,
            stop_reason: None,
            messages: Arc::default(),
            answer: Vec::new(),
            calls: Vec::new(),
            queue: VecDeque::new(),
            interrupts: Vec::new(),
            taken_up: Vec::new(),
            request: None,
            turn: Turn::default(),
            thread_stop: None,
            refusal: None,
            usage: Usage::default(),
            cost: Cost::default(),
            web: ServerToolUse::default(),
            tool_ms: 0,
            egress_bytes: 0,
            judged: 0,
            budget_told: 0,
            notes: Vec::new(),
            activity: Activity::default(),
            archived: false,
            files: Files::default(),
            context: Context::default(),
            offers: Arc::default(),
            brought: Arc::default(),
        }
    }

    /// The state after these events, from the first on.
    #[must_use]
    pub fn fold<'e>(
        definition: Arc<Definition>,
        events: impl IntoIterator<Item = &'e Event>,
    ) -> Self {
        let mut session = Self::new(definition);
        for event in events {
            session.apply(event);
        }
        session
    }

    /// What the session was created with.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The last event that was applied.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Whether it works.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why it is idle, if it ever worked.
    #[must_use]
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason.as_ref()
    }

    /// The conversation as sent in the last request, and the answer to it.
    #[must_use]
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// The tool calls of the last answer, in the model's order.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The call of that id.
    #[must_use]
    pub fn call(&self, id: &EventId) -> Option<&Call> {
        self.calls.iter().find(|call| call.id == *id)
    }

    /// The messages that wait to be taken up, in order.
    pub fn queued(&self) -> impl Iterator<Item = &EventId> {
        self.queue.iter().map(|queued| &queued.id)
    }

    /// The interrupts that this turn has to obey.
    pub fn interrupts(&self) -> impl Iterator<Item = &EventId> {
        self.interrupts.iter().map(|queued| &queued.id)
    }

    /// The messages whose turn the interrupts end before it asked the model: those that came before them.
    pub(super) fn interrupted_messages(&self) -> impl Iterator<Item = &EventId> {
        let first = self.interrupts.first().map_or(0, |interrupt| interrupt.after);
        let begun = self.turn.requests == 0;
        let before = self.queue.iter().filter(move |queued| begun && queued.after < first);
        before.map(|queued| &queued.id)
    }

    /// Whether an input waits that was never taken up.
    pub(super) fn is_unmarked(&self, id: &EventId) -> bool {
        let mut waiting = self.queue.iter().chain(&self.interrupts);
        waiting.any(|queued| queued.id == *id && !queued.marked)
    }

    /// The model request that has no end yet.
    #[must_use]
    pub fn request(&self) -> Option<&EventId> {
        self.request.as_ref()
    }

    /// What happened since the user last spoke.
    #[must_use]
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// What the provider said about its last refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<&RefusalDetails> {
        self.refusal.as_ref()
    }

    /// All tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// What it used up to its last event, in the shape of `session.usage`.
    #[must_use]
    pub fn usage_by(&self, now: Timestamp) -> UsageSnapshot {
        UsageSnapshot::new(self.usage, self.cost, self.activity.total_ms(now), self.web)
    }

    /// How long it worked.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What it may use.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// What it used of what a budget limits, up to its last event.
    #[must_use]
    pub fn used(&self) -> Used {
        let now = self.activity.last_fact_at.unwrap_or_default();
        Used {
            cost: self.cost,
            tokens: self.usage.total(),
            active_ms: self.activity.total_ms(now),
            tool_ms: self.tool_ms,
            egress_bytes: self.egress_bytes,
        }
    }

    /// How often the model was told of its budget.
    pub(super) fn budget_told(&self) -> u8 {
        self.budget_told
    }

    /// How often a judge was asked.
    #[must_use]
    pub fn judged(&self) -> usize {
        self.judged
    }

    /// Whether nothing more may be asked of the model.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_reached(&self.used()))
    }

    /// Whether it is idle in the middle of a turn: it waited for an answer, or its budget was used up.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.status == Status::Idle && self.thread_stop.as_ref().is_some_and(StopReason::pauses)
    }

    /// Whether it is read-only.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// What is known of its files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// How full the model's context is.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What its MCP servers offer.
    #[must_use]
    pub fn offers(&self) -> &Arc<Offers> {
        &self.offers
    }

    /// The skills that its repositories brought.
    #[must_use]
    pub fn brought(&self) -> &Arc<Brought> {
        &self.brought
    }

    /// Whether there is anything that a summary could take the place of.
    #[must_use]
    pub fn can_be_compacted(&self) -> bool {
        let answered = self.messages.iter().any(|message| message.role == Role::Assistant);
        answered && !self.context.barren
    }

    /// Tokens of what waits to be taken up, about.
    pub(super) fn waiting_tokens(&self) -> u64 {
        let queued = self.queue.iter().map(|queued| tokens_of(&queued.said));
        queued.fold(tokens_of(&self.taken_up), u64::saturating_add)
    }

    /// Whether a part of an answer is there whose end is not.
    #[must_use]
    pub fn is_within_answer(&self) -> bool {
        !self.answer.is_empty()
    }
}
