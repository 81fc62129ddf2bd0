//! A [`Request`] as Chat Completions JSON. Pinned by snapshots. Never sends `null`: some servers refuse it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use super::constrained;
use crate::agent::Effort;
use crate::event::{ContentBlock, DocumentSource, ImageSource, text_of};
use crate::provider::transcript::{Transcript, push};
use crate::provider::{
    Block, Message, Request, Role, ToolSpec, marked_instruction, unseen, wire_name,
};

/// Where the servers of this API differ in what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI itself: `max_completion_tokens`, PDF parts; parallel calls are its default, and reasoning models refuse
    /// to be told so.
    OpenAi,
    /// All others: `max_tokens`; llama.cpp makes parallel calls only when asked.
    Compatible,
    /// One of the others whose grammars hold the model to calls that are JSON: it is told of no tools, but of a schema.
    Constrained,
}

impl Dialect {
    pub(super) fn of(base_url: &str, constrain_calls: bool) -> Self {
        match constrain_calls {
            _ if is_vendor(base_url) => Self::OpenAi,
            true => Self::Constrained,
            false => Self::Compatible,
        }
    }
}

/// Whether the server is OpenAI's own.
pub(crate) fn is_vendor(base_url: &str) -> bool {
    let host = base_url.split("://").nth(1).unwrap_or(base_url);
    host.split(['/', ':']).next() == Some("api.openai.com")
}

/// The request's JSON text. `transcript` is that of this conversation's last request, and becomes this one's.
pub(super) fn body(request: &Request, dialect: Dialect, transcript: &mut Transcript) -> Vec<u8> {
    transcript.follow(&request.messages, |message, list| match message.role {
        Role::User => user(message, dialect, list),
        Role::Assistant if dialect == Dialect::Constrained => constrained_assistant(message, list),
        Role::Assistant => assistant(message, list),
    });
    let head = Head::of(request, dialect);
    let mut body = serde_json::to_vec(&head).expect("a request has string keys only");
    let tail = body.split_off(body.len() - b"]}".len());
    if !head.messages.is_empty() && !transcript.json().is_empty() {
        body.push(b',');
    }
    body.reserve(transcript.json().len() + tail.len());
    body.extend_from_slice(transcript.json());
    body.extend_from_slice(&tail);
    body
}

/// All but the conversation.
#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    stream: bool,
    stream_options: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    /// The system prompt, if there is one.
    messages: Vec<WireMessage<'a>>,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum WireMessage<'a> {
    System {
        content: Cow<'a, str>,
    },
    Developer {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<WireCall<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: Cow<'a, str>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(String),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl<'a> },
    File { file: Value },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireArguments<'a>,
}

#[derive(Serialize)]
struct WireArguments<'a> {
    name: Cow<'a, str>,
    arguments: String,
}

impl<'a> Head<'a> {
    fn of(request: &'a Request, dialect: Dialect) -> Self {
        let (system, response_format) = match dialect {
            Dialect::Constrained => (told(request), format(request)),
            Dialect::OpenAi | Dialect::Compatible => (Cow::Borrowed(&*request.system), None),
        };
        let is_silent = system.trim().is_empty();
        let system = WireMessage::System { content: system };
        let messages = if is_silent { Vec::new() } else { vec![system] };
        let tools: Vec<_> = match dialect {
            Dialect::Constrained => Vec::new(),
            Dialect::OpenAi | Dialect::Compatible => request.tools.iter().map(tool).collect(),
        };
        let ask_parallel = dialect == Dialect::Compatible && !tools.is_empty();
        let (max_tokens, max_completion_tokens) = match dialect {
            Dialect::OpenAi => (None, Some(request.max_tokens)),
            Dialect::Compatible | Dialect::Constrained => (Some(request.max_tokens), None),
        };
        Self {
            model: &request.model,
            stream: true,
            stream_options: json!({"include_usage": true}),
            max_tokens,
            max_completion_tokens,
            reasoning_effort: request.effort.map(effort),
            tools,
            parallel_tool_calls: ask_parallel.then_some(true),
            response_format,
            messages,
        }
    }
}

/// The system prompt, and the tools in words.
fn told(request: &Request) -> Cow<'_, str> {
    if request.tools.is_empty() {
        return Cow::Borrowed(&request.system);
    }
    constrained::system(&request.system, &request.tools).into()
}

/// What the server is to hold its model to.
fn format(request: &Request) -> Option<Value> {
    match &request.answer {
        Some(schema) => Some(constrained::format("answer", schema)),
        None if request.tools.is_empty() => None,
        None => Some(constrained::format("answer", &constrained::answer(&request.tools))),
    }
}

/// Every server knows these three words; not all know more.
fn effort(effort: Effort) -> &'static str {
    match effort {
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::Xhigh | Effort::Max => "high",
    }
}

fn tool(tool: &ToolSpec) -> WireTool<'_> {
    let function = WireFunction {
        name: &tool.name,
        description: &tool.description,
        parameters: &tool.input_schema,
    };
    WireTool { r#type: "function", function }
}

/// Nothing for an answer of thoughts alone: they are not sent back, and an empty message is refused.
fn assistant(message: &Message, list: &mut Vec<u8>) {
    let mut texts = Vec::new();
    let mut tool_calls = Vec::new();
    for block in &message.blocks {
        match block {
            Block::Content(content) => texts.push(text_of(std::slice::from_ref(content))),
            Block::ToolUse { id, name, input } => {
                let arguments = serde_json::to_string(input).expect("a map has string keys only");
                let function = WireArguments { name: wire_name(name), arguments };
                tool_calls.push(WireCall { id, r#type: "function", function });
            }
            Block::System { .. }
            | Block::Thinking { .. }
            | Block::RedactedThinking { .. }
            | Block::ToolResult { .. } => {}
        }
    }
    texts.retain(|text| !text.trim().is_empty());
    let content = (!texts.is_empty()).then(|| texts.join("\n"));
    if content.is_some() || !tool_calls.is_empty() {
        push(list, &WireMessage::Assistant { content, tool_calls });
    }
}

/// The same in the form that the server holds its model to.
fn constrained_assistant(message: &Message, list: &mut Vec<u8>) {
    let parts = message.blocks.iter().filter_map(|block| match block {
        Block::Content(ContentBlock::Text { text }) if !text.trim().is_empty() => {
            Some(constrained::Part::Text { text })
        }
        Block::ToolUse { name, input, .. } => {
            Some(constrained::Part::Call { name: wire_name(name), arguments: input })
        }
        Block::Content(_)
        | Block::System { .. }
        | Block::Thinking { .. }
        | Block::RedactedThinking { .. }
        | Block::ToolResult { .. } => None,
    });
    let parts: Vec<_> = parts.collect();
    if !parts.is_empty() {
        let content = Some(constrained::written(&parts));
        push(list, &WireMessage::Assistant { content, tool_calls: Vec::new() });
    }
}

/// The results of tools come first, as text; what of them is no text follows in the user's own message.
fn user(message: &Message, dialect: Dialect, list: &mut Vec<u8>) {
    let mut parts = Vec::new();
    for block in &message.blocks {
        match block {
            Block::ToolResult { tool_use_id, content, is_error } => {
                let text = result_text(content, *is_error);
                if dialect == Dialect::Constrained {
                    parts.push(Part::Text { text: constrained::result(&text).into() });
                } else {
                    push(list, &WireMessage::Tool { tool_call_id: tool_use_id, content: text });
                }
                let media = content.iter().filter(|block| match block {
                    ContentBlock::Text { .. } | ContentBlock::SearchResult { .. } => false,
                    ContentBlock::Image { .. } | ContentBlock::Document { .. } => true,
                });
                let mut media = media.flat_map(|block| part(block, dialect)).peekable();
                if media.peek().is_some() {
                    // In the constrained form it follows its result at once.
                    if dialect != Dialect::Constrained {
                        let text = format!("[from the result of {tool_use_id}]").into();
                        parts.push(Part::Text { text });
                    }
                    parts.extend(media);
                }
            }
            Block::Content(content) => parts.extend(part(content, dialect)),
            Block::System { text } if dialect == Dialect::OpenAi => {
                say(std::mem::take(&mut parts), list);
                push(list, &WireMessage::Developer { content: text });
            }
            // Chat templates refuse a system message that is not the first.
            Block::System { text } => {
                parts.push(Part::Text { text: marked_instruction(text).into() });
            }
            Block::Thinking { .. } | Block::RedactedThinking { .. } | Block::ToolUse { .. } => {}
        }
    }
    say(parts, list);
}

fn say(parts: Vec<Part<'_>>, list: &mut Vec<u8>) {
    if !parts.is_empty() {
        push(list, &WireMessage::User { content: joined(parts) });
    }
}

/// Plain text where that suffices: some chat templates know no parts.
fn joined(parts: Vec<Part<'_>>) -> Content<'_> {
    let texts: Option<Vec<_>> = parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => Some(&**text),
            Part::ImageUrl { .. } | Part::File { .. } => None,
        })
        .collect();
    match texts {
        Some(texts) => Content::Text(texts.join("\n")),
        None => Content::Parts(parts),
    }
}

/// The API has no mark for a failed result, so the text says it.
fn result_text(content: &[ContentBlock], is_error: bool) -> Cow<'_, str> {
    let text = match content {
        [ContentBlock::Text { text }] => Cow::Borrowed(text.as_str()),
        content => Cow::Owned(text_of(content)),
    };
    let says_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
    if is_error && !says_so { format!("Error: {text}").into() } else { text }
}

fn part(content: &ContentBlock, dialect: Dialect) -> Option<Part<'_>> {
    Some(match content {
        ContentBlock::Text { text } if text.trim().is_empty() => return None,
        ContentBlock::Text { text } => Part::Text { text: text.into() },
        ContentBlock::Image { source } => {
            let url = match source {
                ImageSource::Base64 { media_type, data } => data_url(media_type, data).into(),
                ImageSource::Url { url } => url.into(),
                ImageSource::File { file_id } => {
                    return Some(Part::Text { text: unseen("image", file_id).into() });
                }
            };
            Part::ImageUrl { image_url: ImageUrl { url } }
        }
        ContentBlock::Document { source, title, context } => {
            document(source, title.as_deref().unwrap_or("document"), context.as_deref(), dialect)
        }
        ContentBlock::SearchResult { .. } => {
            Part::Text { text: text_of(std::slice::from_ref(content)).into() }
        }
    })
}

fn document<'a>(
    source: &'a DocumentSource,
    title: &'a str,
    context: Option<&str>,
    dialect: Dialect,
) -> Part<'a> {
    let label = match context {
        Some(context) => format!("{title} ({context})"),
        None => title.to_owned(),
    };
    let note = |note: String| Part::Text { text: note.into() };
    match (source, dialect) {
        (DocumentSource::Text { data, .. }, _) => note(format!("[{label}]\n{data}")),
        (DocumentSource::Base64 { media_type, data }, Dialect::OpenAi) => {
            let file_data = data_url(media_type, data);
            Part::File { file: json!({"filename": title, "file_data": file_data}) }
        }
        (DocumentSource::Base64 { media_type, .. }, Dialect::Compatible | Dialect::Constrained) => {
            note(format!("[{label}: a document of type {media_type}, which this model cannot see]"))
        }
        (DocumentSource::Url { url }, _) => {
            note(format!("[{label}: a document at {url}, which this model cannot see]"))
        }
        (DocumentSource::File { file_id }, _) => note(unseen(&label, file_id)),
    }
}

fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

#[cfg(test)]
mod tests;
