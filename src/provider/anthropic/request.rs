//! A [`Request`] as the Messages API's JSON. Pinned by snapshots.
//!
//! Cache breakpoints go to the end of the fixed part (system, else tools), to the end of the last user message and to
//! the end of the one before it, where the previous request wrote: each request reads what the last one cached.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::event::{ContentBlock, DocumentSource, ImageSource, text_of};
use crate::provider::transcript::{Transcript, push};
use crate::provider::{Block, Message, Request, Role, marked_instruction, unseen, wire_name};

/// How a message ends, from the end of its last block on.
const MESSAGE_END: &[u8] = b"}]}";
/// Tells the provider to cache everything up to the block that it is put into.
const BREAKPOINT: &[u8] = br#","cache_control":{"type":"ephemeral"}"#;

/// The request's JSON text. `transcript` is that of this conversation's last request, and becomes this one's.
pub(super) fn body(request: &Request, transcript: &mut Transcript) -> Vec<u8> {
    transcript.follow(&request.messages, |message, list| {
        if let Some(message) = wire_message(message) {
            push(list, &message);
        }
    });
    let mut rest = transcript.json();
    let mut ends: Vec<_> = transcript.ends_of_user().take(2).collect();
    ends.reverse();
    let mut body = serde_json::to_vec(&Head::of(request)).expect("a request has string keys only");
    let tail = body.split_off(body.len() - b"]}".len());
    body.reserve(rest.len() + ends.len() * BREAKPOINT.len() + tail.len());
    for end in ends {
        let said = transcript.json().len() - rest.len();
        let (before, after) = rest.split_at(end - MESSAGE_END.len() - said);
        assert!(after.starts_with(MESSAGE_END), "a message ends with a block");
        body.extend_from_slice(before);
        body.extend_from_slice(BREAKPOINT);
        rest = after;
    }
    body.extend_from_slice(rest);
    body.extend_from_slice(&tail);
    body
}

/// All but the messages.
#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[WireSystem<'a>; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    messages: [(); 0],
}

#[derive(Serialize)]
struct OutputConfig {
    effort: &'static str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Vec<WireBlock<'a>>,
}

#[derive(Serialize)]
struct WireSystem<'a> {
    r#type: &'static str,
    text: &'a str,
    cache_control: CacheControl,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: Cow<'a, str>,
        input: &'a Map<String, Value>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<WireBlock<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    /// Images and documents: their own JSON is the API's.
    #[serde(untagged)]
    Media(&'a ContentBlock),
}

#[derive(Clone, Copy, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CacheControl {
    Ephemeral,
}

impl<'a> Head<'a> {
    fn of(request: &'a Request) -> Self {
        let cache_control = CacheControl::Ephemeral;
        let system = (!blank(&request.system)).then_some([WireSystem {
            r#type: "text",
            text: &request.system,
            cache_control,
        }]);
        let mut tools: Vec<_> = request
            .tools
            .iter()
            .map(|tool| WireTool {
                name: &tool.name,
                description: &tool.description,
                input_schema: &tool.input_schema,
                cache_control: None,
            })
            .collect();
        if system.is_none()
            && let Some(last) = tools.last_mut()
        {
            last.cache_control = Some(cache_control);
        }
        Self {
            model: &request.model,
            max_tokens: request.max_tokens,
            stream: true,
            output_config: request.effort.map(|e| OutputConfig { effort: e.as_str() }),
            system,
            tools,
            messages: [],
        }
    }
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// `None` if nothing of the message can be said to this API: it refuses empty messages.
fn wire_message(message: &Message) -> Option<WireMessage<'_>> {
    let content: Vec<_> = message.blocks.iter().filter_map(wire_block).collect();
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    (!content.is_empty()).then_some(WireMessage { role, content })
}

/// `None` for what the API refuses: blank text, and thoughts that it did not sign.
fn wire_block(block: &Block) -> Option<WireBlock<'_>> {
    Some(match block {
        Block::Content(ContentBlock::Text { text }) if blank(text) => return None,
        Block::Content(content) => media(content),
        Block::System { text: said } => text(marked_instruction(said)),
        Block::Thinking { thinking, signature } => {
            WireBlock::Thinking { thinking, signature: signature.as_deref()? }
        }
        Block::RedactedThinking { data } => WireBlock::RedactedThinking { data },
        Block::ToolUse { id, name, input } => {
            WireBlock::ToolUse { id, name: wire_name(name), input }
        }
        Block::ToolResult { tool_use_id, content, is_error } => WireBlock::ToolResult {
            tool_use_id,
            content: result_content(content, *is_error),
            is_error: *is_error,
        },
    })
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> WireBlock<'a> {
    WireBlock::Text { text: text.into() }
}

fn media(content: &ContentBlock) -> WireBlock<'_> {
    match content {
        ContentBlock::Text { text: said } => text(said),
        ContentBlock::Image { source: ImageSource::File { file_id } } => {
            text(unseen("image", file_id))
        }
        ContentBlock::Document { source: DocumentSource::File { file_id }, .. } => {
            text(unseen("document", file_id))
        }
        ContentBlock::Image { .. }
        | ContentBlock::Document { .. }
        | ContentBlock::SearchResult { .. } => WireBlock::Media(content),
    }
}

/// A failed result may hold text only, and no text may be blank.
fn result_content(content: &[ContentBlock], is_error: bool) -> Vec<WireBlock<'_>> {
    let is_blank =
        |block: &&ContentBlock| matches!(block, ContentBlock::Text { text } if blank(text));
    let spoken = content.iter().filter(|block| !is_blank(block));
    spoken.map(|block| if is_error { text(as_text(block)) } else { media(block) }).collect()
}

fn as_text(block: &ContentBlock) -> String {
    text_of(std::slice::from_ref(block))
}

#[cfg(test)]
mod tests;
