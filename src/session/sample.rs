//! Performs `Sample`: stream the answer, show it as it comes, turn it into facts.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::driver::{DriveError, Driver, Performed};
use super::guest::Disturbance;
use super::previews::Preview;
use super::{compact, fit, offers, prompt};
use crate::event::{
    ContentBlock, Cost, ErrorDetail, Evaluation, EventBody, NewEvent, Permission, RefusalDetails,
    RetryStatus, Usage,
};
use crate::id::EventId;
use crate::limits::{EMPTY_ANSWER_ATTEMPTS, MODEL_ATTEMPTS, RETRY_AFTER_MAX};
use crate::provider::assemble::{Answer, AnswerBlock, Assembler, Pushed};
use crate::provider::prices::Price;
use crate::provider::retry::{self, Verdict};
use crate::provider::{ModelError, Request, Stop};
use crate::tool::policy;

/// How a request ended.
enum Outcome {
    Answered(Answer),
    /// With the tokens that were counted until then: they are paid for.
    Failed(ModelError, Usage),
    Interrupted(Usage),
    NoSandbox(String, Usage),
}

/// Ids of the events that are being shown, and how much of them was, by block.
#[derive(Default)]
struct Shown(BTreeMap<usize, (EventId, usize)>);

impl Driver {
    pub(super) async fn sample(
        &mut self,
        token: &CancellationToken,
    ) -> Result<Performed, DriveError> {
        let end = self.end_of_request();
        let (system, tools) = self.shown();
        let window = self.session.context().window().map(|window| window.tokens);
        let (system, tools) = fit::to_window(&system, &tools, window);
        let mut request = prompt::request(&self.session, &self.parts.model_id, &system, &tools);
        request.messages = self.attached.resolve(request.messages).await;
        let mut shown = Shown::default();
        let outcome = self.stream(request, token, Some(&mut shown)).await?;
        if !matches!(outcome, Outcome::Answered(_)) {
            self.parts.previews.send(self.session.head(), Preview::Discarded);
        }
        Ok(match outcome {
            Outcome::Answered(answer) => {
                let usage = answer.usage;
                let mut facts = self.facts_of(answer, shown);
                self.judge(&mut facts, token).await;
                facts.extend(self.at_once(end(false, usage)));
                Performed { facts, pause: None }
            }
            Outcome::Interrupted(usage) => {
                Performed { facts: self.at_once(end(true, usage)), pause: None }
            }
            Outcome::Failed(error, usage) => self.failed(end(true, usage), &error),
            Outcome::NoSandbox(failure, usage) => {
                let mut facts = self.at_once(end(true, usage));
                let (_, closing) = self.without_sandbox(&facts, failure);
                facts.extend(self.at_once(closing));
                Performed { facts, pause: None }
            }
        })
    }

    /// Asks the model for a summary, and puts it in the place of the conversation if it is one.
    pub(super) async fn compact(
        &mut self,
        token: &CancellationToken,
    ) -> Result<Performed, DriveError> {
        let end = self.end_of_request();
        let request = prompt::summary_request(&self.session, &self.parts.model_id);
        let outcome = self.stream(request, token, None).await?;
        let failed = |message: String, again| EventBody::CompactionFailed { message, again };
        let mut pause = None;
        let bodies = match outcome {
            Outcome::Answered(answer) => {
                let usage = answer.usage;
                let text = answer.text();
                let facts = match compact::check(&text) {
                    Ok(()) => compact::facts(&self.session, Some(&text)),
                    Err(wrong) => vec![failed(format!("the summary is not usable: {wrong}"), true)],
                };
                [end(false, usage), facts].concat()
            }
            Outcome::Interrupted(usage) => end(true, usage),
            Outcome::Failed(error, usage) => {
                // What was too long is cut by half for the next try; what another try does not mend is not tried.
                let too_long = matches!(error, ModelError::ContextTooLong { .. });
                let verdict = retry::verdict(&error);
                let again = too_long || verdict != Verdict::Fatal;
                if let Verdict::Retry { after } = verdict {
                    let attempts = self.session.context().attempts;
                    pause = Some(retry::backoff(attempts, after, self.jitter()));
                }
                [end(true, usage), vec![failed(error.to_string(), again)]].concat()
            }
            Outcome::NoSandbox(failure, usage) => {
                let facts = self.at_once(end(true, usage));
                let (_, closing) = self.without_sandbox(&facts, failure);
                return Ok(Performed { facts: [facts, self.at_once(closing)].concat(), pause });
            }
        };
        Ok(Performed { facts: self.at_once(bodies), pause })
    }

    /// The facts that end the request under way, by whether it failed and what it used.
    fn end_of_request(&self) -> impl Fn(bool, Usage) -> Vec<EventBody> + use<> {
        let start = self.session.request().cloned().expect("the intent of a request is committed");
        let price = self.parts.price.unwrap_or(Price::FREE);
        move |is_error, model_usage| {
            let (id, cost) = (start.clone(), price.of(&model_usage));
            let metered = EventBody::Metered { model_request_start_id: start.clone(), cost };
            let ended =
                EventBody::ModelRequestEnd { model_request_start_id: id, is_error, model_usage };
            let costs = cost > Cost::default();
            [ended].into_iter().chain(costs.then_some(metered)).collect()
        }
    }

    /// The answer, piece by piece; they are shown where somebody is to see them.
    async fn stream(
        &mut self,
        request: Request,
        token: &CancellationToken,
        mut shown: Option<&mut Shown>,
    ) -> Result<Outcome, DriveError> {
        let model = Arc::clone(&self.parts.model);
        let tools = Arc::clone(&request.tools);
        let mut deltas = model.stream(request);
        let mut assembler = Assembler::new(&self.parts.model_name);
        loop {
            let next = tokio::select! {
                biased;
                () = token.cancelled() => return Ok(Outcome::Interrupted(assembler.usage())),
                next = deltas.next() => next,
                disturbance = self.guest.disturbance() => match disturbance {
                    Disturbance::Failed(why) => return Ok(Outcome::NoSandbox(why, assembler.usage())),
                    // What was refused is said when it happens, and not when the model has thought.
                    Disturbance::Refused => {
                        self.commit(Vec::new()).await?;
                        continue;
                    }
                },
            };
            let pushed = match next {
                Some(Ok(delta)) => assembler.push(delta),
                Some(Err(error)) => Err(error),
                None => break,
            };
            match pushed {
                Ok(pushed) => {
                    if let Some(shown) = shown.as_deref_mut() {
                        self.preview(pushed, shown);
                    }
                }
                Err(error) => return Ok(Outcome::Failed(error, assembler.usage())),
            }
        }
        let usage = assembler.usage();
        Ok(match assembler.finish() {
            Ok(answer) if says_nothing(&answer) => Outcome::Failed(ModelError::EmptyAnswer, usage),
            Ok(answer) => Outcome::Answered(answer.fitted(&tools)),
            Err(error) => Outcome::Failed(error, usage),
        })
    }

    /// Shows a piece. An event's id is minted with its first piece, so that previews can name it.
    fn preview(&self, pushed: Pushed, shown: &mut Shown) {
        let mut place = |index, text: &str| {
            let mint = || (EventId::mint(self.parts.clock.now()), 0);
            let (event, length) = shown.0.entry(index).or_insert_with(mint);
            let at = *length;
            *length += text.len();
            (event.clone(), at)
        };
        let preview = match pushed {
            Pushed::Text { index, text } => {
                let (event, at) = place(index, &text);
                Preview::Message { event, at, text }
            }
            Pushed::Thinking { index, text } => {
                let (event, _) = place(index, &text);
                Preview::Thinking { event, text }
            }
            Pushed::ToolCall { name, .. } => Preview::ToolUse { name },
            Pushed::Quiet => return,
        };
        self.parts.previews.send(self.session.head(), preview);
    }

    fn facts_of(&self, answer: Answer, mut shown: Shown) -> Vec<NewEvent> {
        let mut facts = Vec::new();
        for (block, index) in answer.blocks.into_iter().zip(answer.indices) {
            self.block_facts(block, shown.0.remove(&index).map(|(id, _)| id), &mut facts);
        }
        let refusal = match &answer.stop {
            Stop::Refusal { category, explanation } => Some(RefusalDetails {
                r#type: "refusal".to_owned(),
                category: category.clone(),
                explanation: explanation.clone(),
            }),
            _ => None,
        };
        facts.extend(self.at_once(vec![EventBody::ModelStop {
            reason: answer.stop.as_str().to_owned(),
            model: self.parts.model_name.clone(),
            refusal,
        }]));
        facts
    }

    /// `shown` is the id under which the block was shown.
    fn block_facts(&self, block: AnswerBlock, shown: Option<EventId>, facts: &mut Vec<NewEvent>) {
        let first = facts.len();
        match block {
            AnswerBlock::Text(text) => {
                let content = vec![ContentBlock::text(text)];
                facts.extend(self.at_once(vec![EventBody::AgentMessage { content }]));
            }
            AnswerBlock::Thinking { thinking, signature } => {
                let thought = EventBody::Thinking { thinking, signature };
                facts.extend(self.at_once(vec![EventBody::AgentThinking {}, thought]));
            }
            AnswerBlock::RedactedThinking { data } => {
                let thought = EventBody::RedactedThinking { data };
                facts.extend(self.at_once(vec![EventBody::AgentThinking {}, thought]));
            }
            AnswerBlock::ToolCall { name, input } => {
                let (input, problem) = match input {
                    Ok(input) => (input, None),
                    Err(bad) => (Map::new(), Some(bad)),
                };
                let body = self.call(name, input, problem.is_some());
                let of_server = matches!(body, EventBody::AgentMcpToolUse { .. });
                facts.extend(self.at_once(vec![body]));
                let id = &facts[first].id;
                let result = problem.map(|bad| unread(id, of_server, &bad.to_string()));
                facts.extend(self.at_once(result.into_iter().collect()));
            }
        }
        if let Some(id) = shown {
            facts[first].id = id;
        }
    }

    /// A client is not asked to run what the model did not say right: such a call is refused here, whoever runs it.
    fn call(&self, name: String, input: Map<String, Value>, is_bad: bool) -> EventBody {
        let agent = &self.session.definition().agent;
        if agent.custom_tool(&name).is_some() && !is_bad {
            return EventBody::AgentCustomToolUse { name, input };
        }
        if name == offers::SEARCH {
            return self.tool_search(name, input);
        }
        let at = self.session.offers().find(agent, &name);
        let at = at.map(|offered| (offered.server, offered.tool.name.as_str()));
        let policy::Verdict { permission, evaluation, .. } = self.verdict(&name, at, &input);
        let evaluated_permission = permission;
        match at {
            None => EventBody::AgentToolUse { name, input, evaluated_permission, evaluation },
            Some((server, tool)) => {
                let (mcp_server_name, name) = (server.to_owned(), tool.to_owned());
                EventBody::AgentMcpToolUse {
                    mcp_server_name,
                    name,
                    input,
                    evaluated_permission,
                    evaluation,
                }
            }
        }
    }

    /// A search for tools does nothing, so it runs at once, where there is anything to search.
    fn tool_search(&self, name: String, input: Map<String, Value>) -> EventBody {
        let is_offered = self.tool_names().contains(&offers::SEARCH);
        let evaluated_permission = if is_offered { Permission::Allow } else { Permission::Deny };
        let evaluation = is_offered.then_some(Evaluation::AlwaysAllow);
        EventBody::AgentToolUse { name, input, evaluated_permission, evaluation }
    }

    /// The facts of a failed request: its end, and whether the session tries again by itself.
    fn failed(&self, end: Vec<EventBody>, error: &ModelError) -> Performed {
        let too_long = matches!(error, ModelError::ContextTooLong { .. });
        let context = self.session.context();
        if too_long && !context.barren && !context.is_short() {
            let message = error.to_string();
            let facts = [end, vec![EventBody::ContextOverflowed { message }]].concat();
            return Performed { facts: self.at_once(facts), pause: None };
        }
        let failures = self.session.turn().failures + 1;
        let most = match error {
            ModelError::EmptyAnswer => EMPTY_ANSWER_ATTEMPTS,
            _ => MODEL_ATTEMPTS,
        };
        let pause = match retry::verdict(error) {
            Verdict::Retry { after } if failures < most => {
                Some(retry::backoff(failures, after, self.jitter()))
            }
            Verdict::Retry { .. } | Verdict::Fatal => None,
        };
        let retry_status = match error {
            _ if pause.is_some() => RetryStatus::Retrying,
            // The conversation is as short as a summary makes it: no message would make it fit. A session of the command
            // line is its owner's, who may give the model more context and resume; a client of the protocol is told so.
            ModelError::ContextTooLong { .. } if self.session.definition().origin.is_some() => {
                RetryStatus::Terminal
            }
            _ => RetryStatus::Exhausted,
        };
        let message = describe(error, failures, pause);
        let detail = ErrorDetail::new(retry::error_kind(error), message, retry_status);
        let mut bodies = end;
        bodies.push(EventBody::SessionError { error: detail });
        if pause.is_some() {
            let definition = self.session.definition();
            bodies.extend([
                EventBody::ThreadStatusRescheduled {
                    session_thread_id: definition.thread.clone(),
                    agent_name: definition.agent.name.clone(),
                },
                EventBody::StatusRescheduled {},
            ]);
        }
        Performed { facts: self.at_once(bodies), pause }
    }

    /// Between 0 and 1, different for every process and moment: clients that failed together come back apart.
    fn jitter(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        (std::process::id(), self.id.as_str(), self.parts.clock.now()).hash(&mut hasher);
        f64::from(u32::try_from(hasher.finish() >> 32).expect("32 bits remain"))
            / f64::from(u32::MAX)
    }
}

/// The result of a call whose arguments cannot be read.
fn unread(call: &EventId, of_server: bool, problem: &str) -> EventBody {
    let (id, content) = (call.clone(), vec![ContentBlock::text(problem)]);
    match of_server {
        true => EventBody::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error: true },
        false => EventBody::AgentToolResult { tool_use_id: id, content, is_error: true },
    }
}

/// An answer that neither says nor asks anything, for no reason that the model gave.
fn says_nothing(answer: &Answer) -> bool {
    let thought_only = answer.blocks.iter().all(|block| match block {
        AnswerBlock::Thinking { .. } | AnswerBlock::RedactedThinking { .. } => true,
        AnswerBlock::Text(_) | AnswerBlock::ToolCall { .. } => false,
    });
    thought_only && matches!(answer.stop, Stop::EndTurn | Stop::ToolUse | Stop::Other(_))
}

/// The error with its causes, and what happens next.
fn describe(error: &ModelError, failures: u32, pause: Option<Duration>) -> String {
    let whole = error.to_string();
    let words = whole.trim_end_matches('.');
    match (pause, too_long_a_wait(error)) {
        (Some(pause), _) => format!("{words}; trying again in {:.1} s", pause.as_secs_f64()),
        (None, Some(wait)) => {
            format!("{words}; it asks to wait {} min: resume then", wait.as_secs().div_ceil(60))
        }
        (None, None) if failures > 1 => format!("{words}; gave up after {failures} tries"),
        (None, None) => match way_out(error) {
            None => whole,
            Some(way_out) => format!("{words}; {way_out}"),
        },
    }
}

/// What the user can do about a failure that another try would not mend, where the error does not say it.
fn way_out(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::Auth { .. } => Some("set the right key, then resume"),
        ModelError::Billing { .. } => Some("resume when the account has credit"),
        ModelError::UnknownModel { .. } => Some("see which models the provider has"),
        ModelError::ContextTooLong { .. } => Some(
            "no summary makes room for it: say less at once, or use a model with a larger context",
        ),
        ModelError::TooLarge { .. } => Some("resume, and ask for less at once"),
        ModelError::MissingKey { .. }
        | ModelError::Status { .. }
        | ModelError::Connect { .. }
        | ModelError::Timeout { .. }
        | ModelError::BrokenStream { .. }
        | ModelError::Protocol { .. }
        | ModelError::EmptyAnswer
        | ModelError::Script { .. }
        | ModelError::Unsupported { .. } => None,
    }
}

/// The wait that a server asked for, if nobody would sit through it.
fn too_long_a_wait(error: &ModelError) -> Option<Duration> {
    let ModelError::Status { retry_after_ms, .. } = error else { return None };
    retry_after_ms.map(Duration::from_millis).filter(|wait| *wait > RETRY_AFTER_MAX)
}
