//! The Chat Completions stream to deltas, in all its dialects.
//!
//! Blocks are numbered in the order in which they begin. The answer ends at `[DONE]`, or where the body ends after a
//! `finish_reason`; a body that ends with neither is broken.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::calls::{Calls, Clue, Target};
use super::constrained::{Reader, Said};
use super::spoken::Listener;
use super::think::{Piece, Splitter};
use crate::event::Usage;
use crate::provider::failure::{Asked, ErrorBody};
use crate::provider::http::Decode;
use crate::provider::repair::excerpt;
use crate::provider::sse::{SseDecoder, SseEvent};
use crate::provider::{Delta, ModelError, Stop, ToolSpec};

const FORMAT: &str = "a Chat Completions stream";
const DONE: &str = "[DONE]";
/// Characters of a refusal that are kept.
const REFUSAL_CHARS: usize = 2_000;

/// Decodes one answer.
#[derive(Debug)]
pub struct OpenAiDecoder {
    sse: SseDecoder,
    asked: Asked,
    splitter: Splitter,
    listener: Listener,
    /// The answer is one that the server holds its model to.
    reader: Option<Reader>,
    calls: Calls,
    /// The text or thinking block that grows, and which of the two it is.
    open: Option<(Prose, usize)>,
    blocks: usize,
    refusal: String,
    finish: Option<Stop>,
    /// Calls were found in the text.
    spoke: bool,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prose {
    Text,
    Thinking,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: Option<u64>,
    delta: Option<WireDelta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireDelta {
    content: Option<Value>,
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    refusal: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
}

#[derive(Deserialize)]
struct WireCall {
    index: Option<u64>,
    id: Option<String>,
    function: Option<WireFunction>,
}

#[derive(Deserialize, Default)]
struct WireFunction {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl OpenAiDecoder {
    /// A decoder whose errors name `provider` and `model`.
    #[must_use]
    pub fn new(provider: &str, model: &str) -> Self {
        Self {
            sse: SseDecoder::default(),
            asked: Asked { provider: provider.to_owned(), model: model.to_owned() },
            splitter: Splitter::default(),
            listener: Listener::new([].into()),
            reader: None,
            calls: Calls::default(),
            open: None,
            blocks: 0,
            refusal: String::new(),
            finish: None,
            spoke: false,
            done: false,
        }
    }

    /// Hears calls of these tools that come as text: of a server that need not know its model's marks for them.
    #[must_use]
    pub fn hearing(mut self, tools: Arc<[ToolSpec]>) -> Self {
        self.listener = Listener::new(tools);
        self
    }

    /// Reads calls as the server was told to hold its model to them.
    #[must_use]
    pub(super) fn constrained(mut self) -> Self {
        self.reader = Some(Reader::default());
        self
    }

    /// Takes the next piece of the body. What comes after the answer's end is passed over.
    ///
    /// # Errors
    /// When the server reports an error within the stream, or the bytes are not this format.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Delta>, ModelError> {
        if self.done {
            return Ok(Vec::new());
        }
        let events =
            self.sse.feed(bytes).map_err(|e| self.asked.protocol(FORMAT, &e.to_string(), ""))?;
        let mut deltas = Vec::new();
        for event in events {
            if let SseEvent::Message { data, .. } = event
                && !self.done
            {
                self.event(&data, &mut deltas)?;
            }
        }
        Ok(deltas)
    }

    /// The body has ended.
    ///
    /// # Errors
    /// When the answer has not.
    pub fn finish(&mut self) -> Result<Vec<Delta>, ModelError> {
        let mut deltas = Vec::new();
        if self.done {
            return Ok(deltas);
        }
        if let Some(SseEvent::Message { data, .. }) = std::mem::take(&mut self.sse).into_tail()
            && (data.trim() == DONE || self.finish.is_none() && self.error(&data).is_some())
        {
            self.event(&data, &mut deltas)?;
        }
        if !self.done && self.finish.is_some() {
            self.end(&mut deltas)?;
        }
        if self.done {
            Ok(deltas)
        } else {
            Err(self.asked.broken("it ended without finish_reason and [DONE]"))
        }
    }

    fn event(&mut self, data: &str, out: &mut Vec<Delta>) -> Result<(), ModelError> {
        if data.trim() == DONE {
            return self.end(out);
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
            let unreadable = self.asked.protocol(FORMAT, &error.to_string(), data);
            self.error(data).unwrap_or(unreadable)
        })?;
        if chunk.error.is_some_and(|error| !error.is_null())
            && let Some(error) = self.error(data)
        {
            return Err(error);
        }
        out.extend(chunk.usage.map(usage));
        // One answer was asked for; another choice would be someone else's.
        let choices = chunk.choices.unwrap_or_default();
        for choice in choices.into_iter().filter(|choice| choice.index.unwrap_or(0) == 0) {
            if let Some(delta) = choice.delta {
                self.delta(delta, out);
            }
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.finish = Some(stop(reason));
            }
        }
        Ok(())
    }

    /// The error that an event reports, if it reports one.
    fn error(&self, data: &str) -> Option<ModelError> {
        let value: Value = serde_json::from_str(data).ok()?;
        value.get("error").filter(|error| !error.is_null())?;
        let body =
            ErrorBody::from_value(&value).unwrap_or_else(|| ErrorBody::parse(data.as_bytes()));
        Some(self.asked.refused(body.own_status().unwrap_or(200), body, None))
    }

    fn delta(&mut self, delta: WireDelta, out: &mut Vec<Delta>) {
        // vLLM sends the same thoughts under both names during its renaming.
        let thoughts = delta.reasoning_content.as_ref().map(words).filter(|text| !text.is_empty());
        let thoughts = thoughts.or_else(|| delta.reasoning.as_ref().map(words));
        self.prose(Prose::Thinking, thoughts.unwrap_or_default(), out);
        let mut pieces = Vec::new();
        self.splitter.feed(&delta.content.as_ref().map(words).unwrap_or_default(), &mut pieces);
        self.pieces(pieces, out);
        if let Some(refusal) = delta.refusal {
            self.refusal = excerpt(&(std::mem::take(&mut self.refusal) + &refusal), REFUSAL_CHARS);
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let mut pieces = Vec::new();
            self.splitter.finish(&mut pieces);
            self.pieces(pieces, out);
            let held = self.listener.give_up();
            self.prose(Prose::Text, held, out);
            self.call(call, out);
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>, out: &mut Vec<Delta>) {
        for piece in pieces {
            match piece {
                Piece::Thinking(text) => self.prose(Prose::Thinking, text, out),
                Piece::Text(text) => match &mut self.reader {
                    Some(reader) => {
                        let said = reader.read(&text);
                        said.into_iter().for_each(|said| self.said(said, out));
                    }
                    None => self.said(Said::Plain(text), out),
                },
            }
        }
    }

    fn said(&mut self, said: Said, out: &mut Vec<Delta>) {
        match said {
            Said::Text(text) => self.prose(Prose::Text, text, out),
            Said::Plain(text) => {
                let text = self.listener.hear(&text);
                self.prose(Prose::Text, text, out);
            }
            Said::Call(name) => {
                self.spoke = true;
                self.open = None;
                out.push(Delta::ToolUse { index: self.next_block(), name });
            }
            Said::Input(json) => out.push(Delta::ToolInput { index: self.blocks - 1, json }),
        }
    }

    fn prose(&mut self, kind: Prose, text: String, out: &mut Vec<Delta>) {
        if text.is_empty() {
            return;
        }
        let index = match self.open {
            Some((open, index)) if open == kind => index,
            _ => self.next_block(),
        };
        self.open = Some((kind, index));
        out.push(match kind {
            Prose::Text => Delta::Text { index, text },
            Prose::Thinking => Delta::Thinking { index, text },
        });
    }

    fn call(&mut self, call: WireCall, out: &mut Vec<Delta>) {
        let function = call.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let json = match function.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
        };
        let id = call.id.unwrap_or_default();
        let clue = Clue { index: call.index, id: &id, name: &name, arguments: &json };
        let index = match self.calls.place(&clue, self.blocks) {
            Target::Open(block) => block,
            Target::Named(block) => {
                out.push(Delta::ToolUse { index: block, name });
                block
            }
            Target::New => {
                let index = self.next_block();
                self.open = None;
                out.push(Delta::ToolUse { index, name });
                index
            }
        };
        if !json.is_empty() {
            out.push(Delta::ToolInput { index, json });
        }
    }

    /// What was held back of the text is a call, or text after all. An answer that was cut has no calls in its text.
    fn end_of_text(&mut self, out: &mut Vec<Delta>) {
        if let Some(rest) = self.reader.as_mut().map(Reader::rest) {
            self.said(Said::Plain(rest), out);
        }
        let by_itself =
            matches!(self.finish, Some(Stop::EndTurn | Stop::ToolUse)) && self.refusal.is_empty();
        if !by_itself || !self.calls.is_empty() || self.spoke {
            let held = self.listener.give_up();
            return self.prose(Prose::Text, held, out);
        }
        let calls = match self.listener.calls() {
            Ok(calls) => calls,
            Err(text) => return self.prose(Prose::Text, text, out),
        };
        self.spoke = true;
        for call in calls {
            let index = self.next_block();
            out.push(Delta::ToolUse { index, name: call.name });
            out.push(Delta::ToolInput { index, json: call.json });
        }
    }

    fn next_block(&mut self) -> usize {
        self.blocks += 1;
        self.blocks - 1
    }

    fn end(&mut self, out: &mut Vec<Delta>) -> Result<(), ModelError> {
        let mut pieces = Vec::new();
        self.splitter.finish(&mut pieces);
        self.pieces(pieces, out);
        let is_whole = self.calls.are_whole() && self.reader.as_ref().is_none_or(Reader::is_whole);
        self.end_of_text(out);
        // A gateway may add [DONE] to an answer that was cut upstream; half a call betrays it.
        if self.finish.is_none() && !is_whole {
            return Err(self.asked.broken("it ended within a tool call"));
        }
        let refusal = std::mem::take(&mut self.refusal);
        let stop =
            match self.finish.take() {
                _ if !refusal.is_empty() => {
                    Stop::Refusal { category: None, explanation: Some(refusal) }
                }
                // Many servers say `stop` although they sent calls, and some say `tool_calls` without any.
                Some(Stop::EndTurn | Stop::ToolUse) | None => {
                    if self.calls.is_empty() && !self.spoke { Stop::EndTurn } else { Stop::ToolUse }
                }
                Some(stop) => stop,
            };
        out.push(Delta::Stop(stop));
        self.done = true;
        Ok(())
    }
}

/// Text that comes as such, or as a list of parts.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

fn stop(reason: String) -> Stop {
    match reason.as_str() {
        "stop" => Stop::EndTurn,
        "tool_calls" | "function_call" => Stop::ToolUse,
        "length" => Stop::MaxTokens,
        "content_filter" => {
            Stop::Refusal { category: Some("content_filter".to_owned()), explanation: None }
        }
        _ => Stop::Other(reason),
    }
}

fn usage(wire: WireUsage) -> Delta {
    let prompt = wire.prompt_tokens.unwrap_or(0);
    let cached = wire.prompt_tokens_details.and_then(|d| d.cached_tokens).unwrap_or(0).min(prompt);
    Delta::Usage(Usage {
        input_tokens: prompt - cached,
        output_tokens: wire.completion_tokens.unwrap_or(0),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: cached,
    })
}

impl Decode for OpenAiDecoder {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Delta>, ModelError> {
        Self::feed(self, bytes)
    }

    fn finish(&mut self) -> Result<Vec<Delta>, ModelError> {
        Self::finish(self)
    }

    fn could_end_here(&self) -> bool {
        self.done || self.finish.is_some()
    }
}

#[cfg(test)]
mod tests;
