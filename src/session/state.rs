//! The fold: a session's state as a function of its log. No other mutation exists.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::context::{Context, SkillRead, tokens_of};
use super::offers::{self, Offers};
use super::repetition::Repetition;
use super::{Definition, compact};
use crate::agent::mcp::shown_name;
use crate::agent::{Agent, Effect, OnAsk, ToolName};
use crate::clock::Timestamp;
use crate::event::{
    Activity, Budget, Confirmation, ContentBlock, Cost, ErrorDetail, Event, EventBody, NoteSubject,
    Permission, RefusalDetails, RetryStatus, Seq, ServerToolUse, StopReason, Usage, UsageSnapshot,
    Used, millis_between, text_of,
};
use crate::id::EventId;
use crate::provider::{Block, Message, Role, Stop};
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

/// How far a tool call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// It may run.
    Ready,
    /// It waits for the user.
    Waiting,
    /// It must not run; the model is told why.
    Denied(Denial),
    /// It may have had an effect.
    Started,
    /// It has its one result.
    Answered {
        /// What the tool returned.
        content: Vec<ContentBlock>,
        /// Whether it failed.
        is_error: bool,
    },
}

/// Why a call must not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The policy refuses it, or there is no such tool.
    Policy,
    /// The user does, perhaps with a reason.
    User(Option<String>),
    /// A judge does, with its reason.
    Judge(String),
    /// It asks, and the session has nobody who could answer.
    Nobody,
}

/// Who runs a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// The session: in its sandbox, or by asking the web or an MCP server.
    Session,
    /// The client.
    Client,
}

/// A tool at its MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtServer {
    /// The server.
    pub server: String,
    /// The tool's name there.
    pub tool: String,
    /// Whether the server runs in the session's sandbox.
    pub is_sandboxed: bool,
}

/// A tool call of the model's last answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The `agent.tool_use` event, or `agent.mcp_tool_use`.
    pub id: EventId,
    /// The tool, as the model named it.
    pub name: String,
    /// The MCP server that has it; nothing for other tools.
    pub mcp: Option<AtServer>,
    /// The arguments.
    pub input: Map<String, Value>,
    /// Who runs it.
    pub runner: Runner,
    /// How far it has come.
    pub state: CallState,
}

impl Call {
    /// What the call may do; a tool that does not exist does nothing.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match &self.mcp {
            Some(AtServer { is_sandboxed: true, .. }) => Effect::Runs,
            Some(AtServer { is_sandboxed: false, .. }) => Effect::Reaches,
            None => ToolName::parse(&self.name).map_or(Effect::Reads, ToolName::effect),
        }
    }

    /// The built-in tool that it is of, if it is.
    #[must_use]
    pub fn built_in(&self) -> Option<ToolName> {
        ToolName::parse(&self.name).filter(|_| self.mcp.is_none())
    }

    /// Whether it is a search for tools of MCP servers.
    #[must_use]
    pub fn is_search(&self) -> bool {
        self.mcp.is_none() && self.name == offers::SEARCH
    }

    /// Its result, as a fact.
    #[must_use]
    pub fn result(&self, content: Vec<ContentBlock>, is_error: bool) -> EventBody {
        let id = self.id.clone();
        match self.mcp {
            None => EventBody::AgentToolResult { tool_use_id: id, content, is_error },
            Some(_) => EventBody::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error },
        }
    }

    /// A result that tells the model what went wrong.
    #[must_use]
    pub fn failure(&self, text: impl Into<String>) -> EventBody {
        self.result(vec![ContentBlock::text(text)], true)
    }

    /// Whether the call still lacks its result.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, CallState::Answered { .. })
    }
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

impl CallState {
    fn of(permission: Permission) -> Self {
        match permission {
            Permission::Allow => Self::Ready,
            Permission::Ask => Self::Waiting,
            Permission::Deny => Self::Denied(Denial::Policy),
        }
    }
}

/// A thought as it is carried back.
fn thought(body: &EventBody) -> Option<Block> {
    match body.clone() {
        EventBody::Thinking { thinking, signature } => {
            Some(Block::Thinking { thinking, signature })
        }
        EventBody::RedactedThinking { data } => Some(Block::RedactedThinking { data }),
        _ => None,
    }
}

/// Whether a turn goes on after such a stop.
fn pauses(reason: &StopReason) -> bool {
    match reason {
        StopReason::RequiresAction { .. } | StopReason::BudgetReached => true,
        StopReason::EndTurn | StopReason::RetriesExhausted | StopReason::Refusal => false,
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
        self.status == Status::Idle && self.thread_stop.as_ref().is_some_and(pauses)
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

    /// Passes over an event that a rewind made history: only what it used still counts, and what clients changed.
    pub fn skip(&mut self, event: &Event) {
        assert_eq!(event.seq, self.head + 1, "the log of {} has a gap", event.session);
        self.head = event.seq;
        self.count(event.created_at, &event.body);
    }

    /// Takes the next event of the log.
    ///
    /// # Panics
    /// On an event that no correct log has at this place: the log is ours, and going on would make it worse.
    pub fn apply(&mut self, event: &Event) {
        assert_eq!(event.seq, self.head + 1, "the log of {} has a gap", event.session);
        self.head = event.seq;
        let marked = event.processed_at.is_some();
        self.apply_body(&event.id, event.created_at, &event.body, marked);
    }

    /// The state as if these facts were in the log.
    #[must_use]
    pub(super) fn ahead(&self, facts: &[crate::event::NewEvent]) -> Self {
        let mut session = self.clone();
        for fact in facts {
            let marked = fact.processed_at.is_some();
            session.apply_body(&fact.id, fact.created_at, &fact.body, marked);
        }
        session
    }

    /// What counts whether or not the event does.
    fn count(&mut self, at: Timestamp, body: &EventBody) {
        use EventBody as E;
        match body {
            E::ModelRequestEnd { model_usage, .. } => self.usage += *model_usage,
            E::Metered { cost, .. } => self.cost += *cost,
            E::WebUsed { used, .. } => self.web += *used,
            E::Judged { usage, cost, .. } => {
                self.usage += *usage;
                self.cost += *cost;
                self.judged += 1;
            }
            E::EgressUsage { sent, received, .. } => {
                let bytes = sent.saturating_add(*received);
                self.egress_bytes = self.egress_bytes.saturating_add(bytes);
            }
            // What lies between a result and the fact before it is the time of the tool.
            E::AgentToolResult { .. } | E::AgentMcpToolResult { .. } => {
                let since = self.activity.last_fact_at.unwrap_or(at);
                self.tool_ms = self.tool_ms.saturating_add(millis_between(since, at));
            }
            E::SessionUpdated { budget: Some(budget), .. } => {
                self.budget.clone_from(budget);
                self.budget_told = 0;
            }
            E::AgentReplaced { agent } => {
                let agent = Agent::clone(agent);
                self.definition = Arc::new(Definition { agent, ..(*self.definition).clone() });
            }
            _ => {}
        }
        self.activity.apply(at, body);
    }

    fn apply_body(&mut self, id: &EventId, at: Timestamp, body: &EventBody, marked: bool) {
        use EventBody as E;
        self.count(at, body);
        match body {
            E::UserMessage { content } => self.user_message(id, content, marked),
            E::SystemMessage { content } => {
                self.queue(id, vec![Block::System { text: text_of(content) }], marked);
            }
            E::UserInterrupt { .. } => self.interrupt(id, marked),
            E::UserToolConfirmation { tool_use_id, result, deny_message } => {
                self.confirm(tool_use_id, *result, deny_message.clone());
            }
            E::UserCustomToolResult { custom_tool_use_id, content, is_error } => {
                self.custom_result(custom_tool_use_id, content.as_deref(), *is_error);
            }
            E::TakenUp { event_ids } => self.take_up(event_ids),
            E::Flushed { event_ids } => self.queue.retain(|queued| !event_ids.contains(&queued.id)),
            E::AgentMessage { content } => {
                self.answer.extend(content.iter().cloned().map(Block::Content));
            }
            E::StatusTerminated {} => self.status = Status::Terminated,
            E::Archived {} => self.archived = true,
            // Told to clients, or counted; the rest of the state does not depend on them.
            E::AgentThinking {}
            | E::EgressRefused { .. }
            | E::EgressUsage { .. }
            | E::ProtectedMade { .. }
            | E::SandboxFailed { .. }
            | E::SandboxReady { .. }
            | E::ThreadStatusRunning { .. }
            | E::ThreadStatusRescheduled { .. }
            | E::ThreadStatusTerminated { .. }
            | E::SessionUpdated { .. }
            | E::AgentReplaced { .. }
            | E::Metered { .. }
            | E::WebUsed { .. }
            | E::Resumed {}
            | E::SessionUsage { .. } => {}
            E::Judged { tool_use_id: id, decision, reason, .. } => {
                self.judge(id, *decision, reason);
            }
            E::Noted { about, text } => self.noted(*about, text),
            E::ThreadStatusIdle { stop_reason, .. } => {
                self.thread_stop = Some(stop_reason.clone());
            }
            E::Thinking { .. } | E::RedactedThinking { .. } => self.answer.extend(thought(body)),
            E::AgentToolUse { .. }
            | E::AgentCustomToolUse { .. }
            | E::AgentMcpToolUse { .. }
            | E::ToolStarted { .. }
            | E::AgentToolResult { .. }
            | E::AgentMcpToolResult { .. } => self.apply_to_calls(id, body),
            E::McpListed { mcp_server_name, tools } => {
                Arc::make_mut(&mut self.offers).listed(mcp_server_name, tools);
            }
            E::SkillsFound(brought) => self.brought = Arc::new(brought.clone()),
            E::McpLoaded { names } => Arc::make_mut(&mut self.offers).loaded(names),
            E::ContextMeasured { .. }
            | E::ContextOverflowed { .. }
            | E::ContextTrimmed { .. }
            | E::CompactionRequested {}
            | E::CompactionStarted { .. }
            | E::CompactionFailed { .. }
            | E::Compacted { .. }
            | E::ThreadContextCompacted {} => self.apply_to_context(body),
            E::Sealed { home, work, .. }
            | E::Rewound { home, work, .. }
            | E::Forked { home, work, .. } => self.files.seal(*home, *work),
            // The session's files are others than those of its last seal.
            E::Applying { .. } | E::Applied { .. } | E::Discarding { .. } | E::Discarded { .. } => {
                self.files.clean = false;
            }
            E::KeptBack { message } => self.files.kept_back = Some(message.clone()),
            E::Unsealed { message } => self.files.unsealed = Some(message.clone()),
            E::StatusRunning {} => self.run(),
            E::StatusRescheduled {} => self.status = Status::Rescheduling,
            E::StatusIdle { stop_reason, .. } => self.settle(stop_reason),
            E::SessionError { error } => self.failed(error),
            E::ModelRequestStart {} => self.request_start(id),
            E::ModelStop { reason, refusal, .. } => {
                self.turn.stop = Some(reason.clone());
                self.refusal.clone_from(refusal);
            }
            E::ModelRequestEnd { model_request_start_id, is_error, model_usage } => {
                self.request_end(model_request_start_id, *is_error, model_usage);
            }
        }
    }

    /// What the model calls, and what comes of it.
    fn apply_to_calls(&mut self, id: &EventId, body: &EventBody) {
        use EventBody as E;
        match body {
            E::AgentToolUse { name, input, evaluated_permission, .. } => {
                let state = self.state_of(*evaluated_permission);
                self.tool_use(id, name, input, Runner::Session, state);
            }
            E::AgentCustomToolUse { name, input } => {
                self.tool_use(id, name, input, Runner::Client, CallState::Waiting);
            }
            E::AgentMcpToolUse { mcp_server_name, name, input, evaluated_permission, .. } => {
                let state = self.state_of(*evaluated_permission);
                self.mcp_tool_use(id, (mcp_server_name, name), input, state);
            }
            E::ToolStarted { tool_use_id } => {
                let call = self.call_mut(tool_use_id);
                call.state = CallState::Started;
                if call.effect().changes_files() {
                    self.turn.wrote = true;
                    self.files.clean = false;
                }
            }
            body => {
                if let Some(result) = body.tool_result() {
                    self.tool_result(result.id, result.content, result.is_error);
                }
            }
        }
    }

    /// What happens to the context beside the conversation itself.
    fn apply_to_context(&mut self, body: &EventBody) {
        use EventBody as E;
        match body {
            E::ContextMeasured { window, fixed } => self.context.measured(*window, *fixed),
            E::ContextOverflowed { .. } => self.context.overflow(),
            E::ContextTrimmed { tool_use_ids } => self.trim(tool_use_ids),
            E::CompactionRequested {} => self.context.requested = self.can_be_compacted(),
            E::CompactionStarted { .. } => self.context.attempt(),
            E::CompactionFailed { again: false, .. } => self.context.hopeless(),
            E::Compacted { text, summary, instructions, .. } => {
                self.compact(text, summary, instructions);
            }
            // Another try may do, or it is said for clients.
            _ => {}
        }
    }

    fn run(&mut self) {
        self.status = Status::Running;
        self.thread_stop = None;
    }

    fn failed(&mut self, error: &ErrorDetail) {
        if let Some(server) = &error.mcp_server_name {
            Arc::make_mut(&mut self.offers).lost(server);
        }
        if error.r#type.is_of_resource() {
            return;
        }
        match error.retry_status {
            RetryStatus::Retrying => self.turn.failures += 1,
            status @ (RetryStatus::Exhausted | RetryStatus::Terminal) => {
                self.turn.given_up = Some(status);
                self.context.overflowed = false;
            }
        }
    }

    fn interrupt(&mut self, id: &EventId, marked: bool) {
        let works = matches!(self.status, Status::Running | Status::Rescheduling);
        // A session that waits for a confirmation is idle, but its open calls can be stopped.
        if works || self.calls.iter().any(Call::is_open) {
            self.turn.interrupted = true;
            self.context.requested = false;
            let said = Vec::new();
            self.interrupts.push(Queued { id: id.clone(), after: self.head, said, marked });
        }
    }

    fn user_message(&mut self, id: &EventId, content: &[ContentBlock], marked: bool) {
        self.queue(id, content.iter().cloned().map(Block::Content).collect(), marked);
        // The user may have changed files since the last turn.
        self.files.clean = false;
    }

    fn queue(&mut self, id: &EventId, said: Vec<Block>, marked: bool) {
        self.queue.push_back(Queued { id: id.clone(), after: self.head, said, marked });
    }

    /// A message that is taken up begins a turn, or goes on with one in its own words.
    fn take_up(&mut self, ids: &[EventId]) {
        self.interrupts.retain(|queued| !ids.contains(&queued.id));
        for id in ids {
            let Some(at) = self.queue.iter().position(|queued| queued.id == *id) else { continue };
            let said = self.queue.remove(at).expect("it was found there").said;
            self.context.heard(&said);
            self.taken_up.extend(said);
            let Turn { failures, interrupted, .. } = self.turn;
            self.turn = Turn { failures, interrupted, ..Turn::default() };
        }
    }

    fn confirm(&mut self, id: &EventId, result: Confirmation, message: Option<String>) {
        // Of two clients that answer the same call, the first wins.
        let waiting = |call: &&mut Call| {
            call.id == *id && call.runner == Runner::Session && call.state == CallState::Waiting
        };
        if let Some(call) = self.calls.iter_mut().find(waiting) {
            call.state = match result {
                Confirmation::Allow => CallState::Ready,
                Confirmation::Deny => CallState::Denied(Denial::User(message)),
            };
        }
    }

    /// What a new call may do. Where nobody is asked, nothing waits.
    fn state_of(&self, permission: Permission) -> CallState {
        let nobody = self.definition.on_ask == Some(OnAsk::Deny);
        match CallState::of(permission) {
            CallState::Waiting if nobody => CallState::Denied(Denial::Nobody),
            state => state,
        }
    }

    fn judge(&mut self, id: &EventId, decision: Permission, reason: &str) {
        if decision == Permission::Deny {
            self.call_mut(id).state = CallState::Denied(Denial::Judge(reason.to_owned()));
        }
    }

    fn noted(&mut self, about: NoteSubject, text: &str) {
        match about {
            NoteSubject::Repetition => self.turn.repetition.told = true,
            NoteSubject::Budget { level } => self.budget_told = level,
        }
        self.notes.push(Block::System { text: text.to_owned() });
    }

    fn custom_result(
        &mut self,
        id: &EventId,
        content: Option<&[ContentBlock]>,
        is_error: Option<bool>,
    ) {
        // Of two clients that answer the same call, the first wins.
        let open = |call: &Call| call.id == *id && call.runner == Runner::Client && call.is_open();
        if self.calls.iter().any(open) {
            self.tool_result(id, content.unwrap_or_default(), is_error.unwrap_or(false));
        }
    }

    fn tool_use(
        &mut self,
        id: &EventId,
        name: &str,
        input: &Map<String, Value>,
        runner: Runner,
        state: CallState,
    ) {
        self.answer.push(Block::ToolUse {
            id: id.as_str().to_owned(),
            name: name.to_owned(),
            input: input.clone(),
        });
        let (id, name, input) = (id.clone(), name.to_owned(), input.clone());
        self.calls.push(Call { id, name, mcp: None, input, runner, state });
    }

    fn mcp_tool_use(
        &mut self,
        id: &EventId,
        (server, tool): (&str, &str),
        input: &Map<String, Value>,
        state: CallState,
    ) {
        self.tool_use(id, &shown_name(server, tool), input, Runner::Session, state);
        let known = self.definition.agent.mcp_server(server);
        let is_sandboxed = known.is_some_and(|server| server.place.is_sandboxed());
        let (server, tool) = (server.to_owned(), tool.to_owned());
        let call = self.calls.last_mut().expect("it was pushed just now");
        call.mcp = Some(AtServer { server, tool, is_sandboxed });
    }

    fn tool_result(&mut self, id: &EventId, content: &[ContentBlock], is_error: bool) {
        let definition = Arc::clone(&self.definition);
        let call = self.call_mut(id);
        assert!(call.is_open(), "{id} has two results");
        let path = call.input.get("file_path").and_then(Value::as_str);
        let reads = call.name == ToolName::Read.as_str() && !is_error;
        let skill = path.filter(|path| reads && definition.skills.is_body(path)).map(|path| {
            let part = serde_json::to_string(&call.input).expect("a map has string keys only");
            SkillRead { call: id.clone(), path: path.to_owned(), part, text: text_of(content) }
        });
        let written = path.filter(|_| call.effect() == Effect::Writes && !is_error);
        let written = written.map(str::to_owned);
        call.state = CallState::Answered { content: content.to_vec(), is_error };
        let said =
            format!("{} {}", call.name, serde_json::to_string(&call.input).expect("JSON is JSON"));
        self.turn.repetition.add(&said, content);
        written.iter().for_each(|path| self.context.touched(path));
        skill.into_iter().for_each(|read| self.context.follows(read));
    }

    fn settle(&mut self, reason: &StopReason) {
        self.status = Status::Idle;
        self.stop_reason = Some(reason.clone());
        self.interrupts.clear();
        // Where the thread says more than the session, it counts.
        let reason = self.thread_stop.as_ref().unwrap_or(reason);
        if !pauses(reason) {
            self.turn = Turn::default();
        }
    }

    /// What there is to say goes into the conversation: results first, in the order of the calls, then messages.
    fn request_start(&mut self, id: &EventId) {
        assert_eq!(self.request, None, "a request within a request");
        self.request = Some(id.clone());
        if self.context.summarising {
            return;
        }
        let mut blocks = Vec::new();
        for call in self.calls.drain(..) {
            let CallState::Answered { content, is_error } = call.state else {
                panic!("{} is sent without a result", call.id);
            };
            let tool_use_id = call.id.as_str().to_owned();
            blocks.push(Block::ToolResult { tool_use_id, content, is_error });
        }
        blocks.append(&mut self.taken_up);
        blocks.append(&mut self.notes);
        self.context.said(&blocks);
        self.push(Role::User, blocks);
        self.turn.requests += 1;
        self.turn.stop = None;
    }

    fn request_end(&mut self, start: &EventId, is_error: bool, usage: &Usage) {
        let open = self.request.take();
        assert_eq!(open.as_ref(), Some(start), "an end without its start");
        if std::mem::take(&mut self.context.summarising) {
            return;
        }
        let answer = std::mem::take(&mut self.answer);
        if is_error {
            assert!(answer.is_empty(), "a failed request has no answer");
            return;
        }
        self.turn.failures = 0;
        let was_barren = self.context.barren;
        self.context.answered(&answer, usage);
        if self.turn.stop.as_deref() == Some(Stop::ContextFull.as_str()) {
            // Its end is missing: no progress, and no room for more.
            self.context.overflow();
            self.context.barren = was_barren;
        }
        self.push(Role::Assistant, answer);
    }

    /// What these calls returned is shown no more.
    fn trim(&mut self, ids: &[EventId]) {
        let mut saved = 0;
        for message in Arc::make_mut(&mut self.messages) {
            let is_meant = |block: &Block| match block {
                Block::ToolResult { tool_use_id, .. } => {
                    ids.iter().any(|id| id.as_str() == tool_use_id)
                }
                _ => false,
            };
            if !message.blocks.iter().any(is_meant) {
                continue;
            }
            let before = tokens_of(&message.blocks);
            for block in Arc::make_mut(message).blocks.iter_mut().filter(|block| is_meant(block)) {
                if let Block::ToolResult { content, .. } = block {
                    *content = compact::trimmed();
                }
            }
            saved += before.saturating_sub(tokens_of(&message.blocks));
        }
        self.context.unsaid(saved);
    }

    /// The conversation becomes one text. Results that were not sent yet are in it.
    fn compact(&mut self, text: &str, summary: &str, instructions: &[String]) {
        let blocks = compact::blocks(text, instructions);
        // It knows nothing of what it was told.
        self.budget_told = 0;
        let answers = self.messages.iter().filter(|message| message.role == Role::Assistant);
        self.context.compacted(&blocks, answers.count(), summary);
        self.messages = Arc::new(vec![Arc::new(Message { role: Role::User, blocks })]);
        // The model still owes an answer to what it was about to be told, or could not end.
        let cut_short = self.turn.stop.as_deref() == Some(Stop::ContextFull.as_str());
        if !self.calls.is_empty() || cut_short {
            self.turn.stop = None;
        }
        self.calls.clear();
    }

    fn push(&mut self, role: Role, blocks: Vec<Block>) {
        if blocks.is_empty() {
            return;
        }
        let messages = Arc::make_mut(&mut self.messages);
        match messages.last_mut() {
            // A request failed, or an answer was paused: the same side goes on.
            Some(last) if last.role == role => Arc::make_mut(last).blocks.extend(blocks),
            _ => messages.push(Arc::new(Message { role, blocks })),
        }
    }

    fn call_mut(&mut self, id: &EventId) -> &mut Call {
        let call = self.calls.iter_mut().find(|call| call.id == *id);
        call.unwrap_or_else(|| panic!("{id} is not a call of the last answer"))
    }
}
