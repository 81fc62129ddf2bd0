//! What each fact makes of the state.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Queued, Session, Status, Turn};
use crate::agent::mcp::shown_name;
use crate::agent::{Agent, Effect, OnAsk, ToolName};
use crate::clock::Timestamp;
use crate::event::{
    Confirmation, ContentBlock, ErrorDetail, Event, EventBody, NoteSubject, Permission,
    RetryStatus, StopReason, Usage, millis_between, text_of,
};
use crate::id::EventId;
use crate::provider::{Block, Message, Role, Stop};
use crate::session::call::{AtServer, Call, CallState, Denial, Runner};
use crate::session::context::{SkillRead, tokens_of};
use crate::session::{Definition, compact};

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

impl Session {
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
    pub(in crate::session) fn ahead(&self, facts: &[crate::event::NewEvent]) -> Self {
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
        if !reason.pauses() {
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
