//! The Messages API's event stream to deltas.
//!
//! Lenient where servers differ: blocks may overlap, `input` and `ping` may be missing, ids may look like anything, and
//! events, blocks and deltas of kinds that casemate does not know are passed over. Strict about the end: an answer
//! without `message_stop` is broken.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::event::Usage;
use crate::provider::failure::{Asked, ErrorBody};
use crate::provider::http::Decode;
use crate::provider::sse::{SseDecoder, SseEvent};
use crate::provider::{Delta, ModelError, Stop};

const FORMAT: &str = "a Messages API stream";

/// Decodes one answer.
#[derive(Debug)]
pub struct AnthropicDecoder {
    sse: SseDecoder,
    asked: Asked,
    /// Blocks of kinds that are passed over, so that their deltas are too.
    ignored: BTreeSet<usize>,
    called_a_tool: bool,
    stop: Option<Stop>,
    done: bool,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, default)]
    r#type: std::borrow::Cow<'a, str>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: MessageHead,
}

#[derive(Deserialize)]
struct MessageHead {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct BlockStart {
    index: usize,
    content_block: WireBlock,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        #[serde(default)]
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct BlockDelta {
    index: usize,
    delta: WireDelta,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireDelta {
    TextDelta {
        text: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    SignatureDelta {
        signature: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct BlockStop {
    index: usize,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Option<Ending>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Ending {
    stop_reason: Option<String>,
    stop_details: Option<StopDetails>,
}

#[derive(Deserialize)]
struct StopDetails {
    category: Option<String>,
    explanation: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl AnthropicDecoder {
    /// A decoder whose errors name `provider` and `model`.
    #[must_use]
    pub fn new(provider: &str, model: &str) -> Self {
        Self {
            sse: SseDecoder::default(),
            asked: Asked { provider: provider.to_owned(), model: model.to_owned() },
            ignored: BTreeSet::new(),
            called_a_tool: false,
            stop: None,
            done: false,
        }
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
            if let SseEvent::Message { data, .. } = event {
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
        if !self.done
            && let Some(SseEvent::Message { data, .. }) = std::mem::take(&mut self.sse).into_tail()
            && let Ok(tag) = serde_json::from_str::<Tag<'_>>(&data)
            && (tag.r#type == "message_stop" || tag.error.is_some())
        {
            self.event(&data, &mut deltas)?;
        }
        if self.done { Ok(deltas) } else { Err(self.asked.broken("it ended without message_stop")) }
    }

    fn event(&mut self, data: &str, out: &mut Vec<Delta>) -> Result<(), ModelError> {
        if self.done {
            return Ok(());
        }
        let tag: Tag<'_> = self.read(data)?;
        if let Some(error) = tag.error {
            let unreadable = || ErrorBody::parse(data.as_bytes());
            let body = ErrorBody::from_value(&error).unwrap_or_else(unreadable);
            return Err(self.asked.refused(body.own_status().unwrap_or(200), body, None));
        }
        match &*tag.r#type {
            "message_start" => {
                let start: MessageStart = self.read(data)?;
                out.extend(start.message.usage.as_ref().map(usage));
            }
            "content_block_start" => self.block_start(self.read(data)?, out),
            "content_block_delta" => self.block_delta(self.read(data)?, out),
            "content_block_stop" => {
                let BlockStop { index } = self.read(data)?;
                if !self.ignored.contains(&index) {
                    out.push(Delta::BlockStop { index });
                }
            }
            "message_delta" => {
                let MessageDelta { delta, usage: counts } = self.read(data)?;
                out.extend(counts.as_ref().map(usage));
                self.stop = delta.and_then(stop).or(self.stop.take());
            }
            "message_stop" => {
                let natural = if self.called_a_tool { Stop::ToolUse } else { Stop::EndTurn };
                out.push(Delta::Stop(self.stop.take().unwrap_or(natural)));
                self.done = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn block_start(&mut self, start: BlockStart, out: &mut Vec<Delta>) {
        let BlockStart { index, content_block } = start;
        match content_block {
            WireBlock::Text { text } => out.push(Delta::Text { index, text }),
            WireBlock::Thinking { thinking, signature } => {
                out.push(Delta::Thinking { index, text: thinking });
                if !signature.is_empty() {
                    out.push(Delta::Signature { index, signature });
                }
            }
            WireBlock::RedactedThinking { data } => {
                out.push(Delta::RedactedThinking { index, data });
            }
            WireBlock::ToolUse { name, input } => {
                self.called_a_tool = true;
                out.push(Delta::ToolUse { index, name });
                // An empty object is the official placeholder; the arguments follow as deltas.
                if input.as_object().is_some_and(|input| !input.is_empty()) {
                    out.push(Delta::ToolInput { index, json: input.to_string() });
                }
            }
            WireBlock::Unknown => {
                self.ignored.insert(index);
            }
        }
    }

    fn block_delta(&self, delta: BlockDelta, out: &mut Vec<Delta>) {
        let BlockDelta { index, delta } = delta;
        if self.ignored.contains(&index) {
            return;
        }
        match delta {
            WireDelta::TextDelta { text } => out.push(Delta::Text { index, text }),
            WireDelta::ThinkingDelta { thinking } => {
                out.push(Delta::Thinking { index, text: thinking });
            }
            WireDelta::SignatureDelta { signature } => {
                out.push(Delta::Signature { index, signature });
            }
            WireDelta::InputJsonDelta { partial_json } => {
                out.push(Delta::ToolInput { index, json: partial_json });
            }
            WireDelta::Unknown => {}
        }
    }

    fn read<'a, T: Deserialize<'a>>(&self, data: &'a str) -> Result<T, ModelError> {
        serde_json::from_str(data).map_err(|e| self.asked.protocol(FORMAT, &e.to_string(), data))
    }
}

fn usage(wire: &WireUsage) -> Delta {
    Delta::Usage(Usage {
        input_tokens: wire.input_tokens.unwrap_or(0),
        output_tokens: wire.output_tokens.unwrap_or(0),
        cache_creation_input_tokens: wire.cache_creation_input_tokens.unwrap_or(0),
        cache_read_input_tokens: wire.cache_read_input_tokens.unwrap_or(0),
    })
}

fn stop(ending: Ending) -> Option<Stop> {
    let mut stop = Stop::from_word(&ending.stop_reason?);
    if let (Stop::Refusal { category, explanation }, Some(details)) =
        (&mut stop, ending.stop_details)
    {
        *category = details.category;
        *explanation = details.explanation;
    }
    Some(stop)
}

impl Decode for AnthropicDecoder {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Delta>, ModelError> {
        Self::feed(self, bytes)
    }

    fn finish(&mut self) -> Result<Vec<Delta>, ModelError> {
        Self::finish(self)
    }

    fn could_end_here(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests;
