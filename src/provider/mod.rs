//! The only door to models.
//!
//! Owns: the [`Model`] trait, what a request and a streamed answer are, one adapter per wire format, routes from model
//! ids to providers, and the classification of failures into "try again" and "give up".
//! Does not: know sessions, events beyond content blocks and usage, tools beyond their schemas, or read the environment.
//! Invariants: an adapter never retries, but for a pooled connection that died before the first byte of an answer; dropping the stream cancels the request; keys appear in no error and no `Debug`;
//! every wait has a deadline and every buffer a bound.
//! How to add one: a file with a decoder (`feed(&[u8]) -> Deltas`, pure) and a `Model`; a variant in the routes.

pub mod anthropic;
pub mod assemble;
#[cfg(test)]
mod corpus;
mod failure;
pub mod http;
mod literal;
mod offered;
pub mod openai;
pub mod prices;
pub mod repair;
pub mod retry;
pub mod routes;
pub mod scripted;
pub mod sse;
#[cfg(test)]
mod testing;
mod transcript;
pub mod windows;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use serde_json::{Map, Value};

use crate::agent::Effort;
use crate::event::{ContentBlock, Usage};

/// What a model is asked: everything that may influence the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's own name at its provider, without the provider's prefix.
    pub model: String,
    /// The system prompt; may be empty.
    pub system: Arc<str>,
    /// The tools, in an order that never changes within a session.
    pub tools: Arc<[ToolSpec]>,
    /// The conversation; append-only from one request to the next, so that caches hit.
    pub messages: Vec<Arc<Message>>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// How hard to think; the provider's default if absent.
    pub effort: Option<Effort>,
    /// The JSON Schema of the answer's text, for providers that can hold a model to one.
    pub answer: Option<Value>,
    /// What for.
    pub purpose: Purpose,
}

/// What a request is for. Only a scripted model, which has nothing to go by but numbers, needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The next answer of a conversation.
    Answer {
        /// Answers that are in the conversation no more.
        gone: usize,
    },
    /// A summary that takes the place of a conversation.
    Summary {
        /// Those before it.
        nth: usize,
    },
    /// Whether a call may run.
    Judgement {
        /// Those before it.
        nth: usize,
    },
}

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ToolSpec {
    /// `[A-Za-z0-9_-]{1,128}`.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its input, type `object`.
    pub input_schema: Value,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// One message of the conversation. Roles alternate.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; never empty. Tool results come first in a user message.
    pub blocks: Vec<Block>,
}

/// One block of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Text, image or document.
    Content(ContentBlock),
    /// An instruction of the client's in the middle of the conversation; in a user message.
    System {
        /// The instruction.
        text: String,
    },
    /// A thinking block, carried back as it came.
    Thinking {
        /// The text.
        thinking: String,
        /// The provider's seal.
        signature: Option<String>,
    },
    /// An encrypted thinking block, carried back as it came.
    RedactedThinking {
        /// The encrypted bytes, as given.
        data: String,
    },
    /// A tool call. Its id is casemate's own, unique in the session.
    ToolUse {
        /// `[A-Za-z0-9_-]+`.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
    },
    /// The answer to a tool call of the message before.
    ToolResult {
        /// The call's id.
        tool_use_id: String,
        /// What the tool returned; may be empty.
        content: Vec<ContentBlock>,
        /// Whether it failed.
        is_error: bool,
    },
}

/// A piece of a streamed answer. Blocks are keyed by `index`; deltas of different blocks may interleave.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// A text block begins or grows.
    Text {
        /// The block.
        index: usize,
        /// More text; may be empty.
        text: String,
    },
    /// A thinking block begins or grows.
    Thinking {
        /// The block.
        index: usize,
        /// More text; may be empty.
        text: String,
    },
    /// The seal of a thinking block, or more of it.
    Signature {
        /// The block.
        index: usize,
        /// More of the seal.
        signature: String,
    },
    /// An encrypted thinking block, whole.
    RedactedThinking {
        /// The block.
        index: usize,
        /// The encrypted bytes.
        data: String,
    },
    /// A tool call begins.
    ToolUse {
        /// The block.
        index: usize,
        /// The tool's name, as the model wrote it.
        name: String,
    },
    /// The arguments of a tool call grow, as JSON text.
    ToolInput {
        /// The block.
        index: usize,
        /// More JSON text.
        json: String,
    },
    /// The block is whole. Not every provider says so.
    BlockStop {
        /// The block.
        index: usize,
    },
    /// Token counts; each field replaces the one before if it is larger.
    Usage(Usage),
    /// The answer ended by itself; the last delta of a good stream.
    Stop(Stop),
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It was done.
    EndTurn,
    /// It wants tools to run.
    ToolUse,
    /// The answer reached the token limit.
    MaxTokens,
    /// A stop sequence matched.
    StopSequence,
    /// The provider paused a long turn; send the conversation again to go on.
    PauseTurn,
    /// The model or its provider refused.
    Refusal {
        /// The provider's category.
        category: Option<String>,
        /// The provider's words.
        explanation: Option<String>,
    },
    /// The conversation filled the model's context.
    ContextFull,
    /// Something else, in the provider's word.
    Other(String),
}

impl Stop {
    /// The reason in the Messages API's words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::PauseTurn => "pause_turn",
            Self::Refusal { .. } => "refusal",
            Self::ContextFull => "model_context_window_exceeded",
            Self::Other(word) => word,
        }
    }

    /// The reason that the Messages API's word names; a refusal without its details.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "end_turn" => Self::EndTurn,
            "tool_use" => Self::ToolUse,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal { category: None, explanation: None },
            "model_context_window_exceeded" => Self::ContextFull,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// An instruction for a provider that takes none in the middle of a conversation: the user's words, marked.
fn marked_instruction(text: &str) -> String {
    format!("<system>\n{text}\n</system>")
}

/// What a model is told of an uploaded file whose bytes it is not given.
fn unseen(kind: &str, file_id: &str) -> String {
    format!("[{kind} {file_id}, which this model cannot see]")
}

/// Longest tool name that every provider takes.
const MAX_TOOL_NAME: usize = 64;

/// A tool name as every provider takes it in a conversation: a model may have called what no tool can be named.
fn wire_name(name: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= MAX_TOOL_NAME && name.chars().all(fits) {
        return Cow::Borrowed(name);
    }
    let fit = name.chars().take(MAX_TOOL_NAME).map(|c| if fits(c) { c } else { '_' });
    let name: String = fit.collect();
    Cow::Owned(if name.is_empty() { "unnamed".to_owned() } else { name })
}

/// A streamed answer. Dropping it ends the request.
pub type DeltaStream = Pin<Box<dyn Stream<Item = Result<Delta, ModelError>> + Send>>;

/// Something that answers requests: those of one conversation, each of which may begin with what the last one said.
pub trait Model: Send + Sync {
    /// Sends the request and streams the answer. A good stream ends with exactly one [`Delta::Stop`]; after an error
    /// nothing follows.
    fn stream(&self, request: Request) -> DeltaStream;
}

/// Why a request failed. Display texts are fragments that fit after "failed to ask the model: ", and contain no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No key for a provider that wants one.
    #[error("no API key for provider `{provider}`: set {variable}")]
    MissingKey {
        /// The provider's name.
        provider: String,
        /// The environment variable that is empty.
        variable: String,
    },
    /// The key is wrong (401, 403).
    #[error("{provider} refused the API key ({status}): {message}")]
    Auth {
        /// The provider's name.
        provider: String,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The account cannot pay (402, or the provider's own word for it).
    #[error("{provider} refused for lack of credit: {message}")]
    Billing {
        /// The provider's name.
        provider: String,
        /// The server's words.
        message: String,
    },
    /// The server does not know the model.
    #[error("{provider} does not know the model `{model}`: {message}")]
    UnknownModel {
        /// The provider's name.
        provider: String,
        /// The model that was asked for.
        model: String,
        /// The server's words.
        message: String,
    },
    /// The conversation does not fit into the model's context.
    #[error("the conversation is too long for the model: {message}")]
    ContextTooLong {
        /// The server's words.
        message: String,
    },
    /// Any other refusal.
    #[error("{provider} {}: {message}", answered(*status))]
    Status {
        /// The provider's name.
        provider: String,
        /// The HTTP status, or 200 for an error inside of a stream.
        status: u16,
        /// The provider's error type, such as `overloaded_error`; may be empty.
        kind: String,
        /// The server's words.
        message: String,
        /// How long the server asks to wait, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The server could not be reached.
    #[error("could not reach {url}: {reason}")]
    Connect {
        /// Scheme, host and port.
        url: String,
        /// The cause.
        reason: String,
    },
    /// A deadline passed.
    #[error("no answer from {provider} within {seconds} s while waiting for {phase}")]
    Timeout {
        /// The provider's name.
        provider: String,
        /// What was awaited: `the connection`, `the first byte`, `more of the answer`.
        phase: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The stream ended before the answer did.
    #[error("the answer of {provider} broke off: {reason}")]
    BrokenStream {
        /// The provider's name.
        provider: String,
        /// The cause.
        reason: String,
    },
    /// The bytes are not what the format says.
    #[error("{provider} sent what is not {format}: {reason}")]
    Protocol {
        /// The provider's name.
        provider: String,
        /// The wire format.
        format: &'static str,
        /// What was wrong, with an excerpt.
        reason: String,
    },
    /// A whole answer without a word or a call.
    #[error("the model answered nothing")]
    EmptyAnswer,
    /// The answer is larger than any honest one.
    #[error("the answer of {provider} is larger than {limit} bytes")]
    TooLarge {
        /// The provider's name.
        provider: String,
        /// The bound.
        limit: usize,
    },
    /// A scripted model met a request that its script does not allow.
    #[error("the scripted model cannot answer: {reason}")]
    Script {
        /// Which turn, and what was expected.
        reason: String,
    },
    /// The request cannot be put into the provider's format.
    #[error("{provider} cannot be asked this: {reason}")]
    Unsupported {
        /// The provider's name.
        provider: String,
        /// What, and the way out.
        reason: String,
    },
}

/// What a server did that refused; an error within a stream has no status of its own.
fn answered(status: u16) -> String {
    match status {
        200 => "broke off its answer with an error".to_owned(),
        status => format!("answered {status}"),
    }
}

impl ModelError {
    /// The error with a server's words, and what was made of them, passed through `edit`.
    fn map_words(mut self, edit: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::Auth { message: words, .. }
            | Self::Billing { message: words, .. }
            | Self::UnknownModel { message: words, .. }
            | Self::ContextTooLong { message: words }
            | Self::Status { message: words, .. }
            | Self::Connect { reason: words, .. }
            | Self::BrokenStream { reason: words, .. }
            | Self::Protocol { reason: words, .. }
            | Self::Script { reason: words }
            | Self::Unsupported { reason: words, .. } => *words = edit(words),
            Self::MissingKey { .. }
            | Self::Timeout { .. }
            | Self::EmptyAnswer
            | Self::TooLarge { .. } => {}
        }
        self
    }
}
