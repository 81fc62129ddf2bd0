//! Host ⇄ guest frames: a little-endian `u32` length, then that many bytes of JSON.
//!
//! One stream socket carries both directions. The host sends [`ToGuest`], the guest [`FromGuest`]. Frames over
//! [`crate::limits::MAX_FRAME_BYTES`] and unknown fields are refused: to the host, the guest is a stranger.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::agent::ToolName;
use crate::event::ContentBlock;
use crate::limits::{
    ANSWER_GRACE, BASH_TIMEOUT_MAX_MS, BASH_TIMEOUT_MS, FILE_TOOL_TIMEOUT_MS, MAX_FRAME_BYTES,
};

/// Spoken by both sides; a guest of another version is refused.
pub const VERSION: u32 = 3;

/// Bytes of a frame's length.
const PREFIX: usize = 4;

/// Names one call between host and guest; the host counts up from 1.
pub type CallId = u64;

/// A tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The model's arguments, unchecked.
    pub input: Map<String, Value>,
    /// Whether the model can be given a PDF as it is.
    pub takes_documents: bool,
}

impl ToolCall {
    /// A call of the host's own.
    #[must_use]
    pub fn of_host(name: &str, input: Map<String, Value>) -> Self {
        Self { name: name.to_owned(), input, takes_documents: false }
    }
}

impl ToolCall {
    /// How long its answer is waited for: its own deadline, and what the guest may need to end what it has started.
    pub(super) fn patience(&self) -> Duration {
        let own = match ToolName::parse(&self.name) {
            Some(ToolName::Bash) => self.input.get("timeout_ms").map_or(BASH_TIMEOUT_MS, asked),
            _ => FILE_TOOL_TIMEOUT_MS,
        };
        Duration::from_millis(own) + ANSWER_GRACE
    }
}

/// The deadline that a command asks for, in any of the ways in which models write numbers.
fn asked(value: &Value) -> u64 {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.trim().parse::<f64>() {
        Ok(0.0) => BASH_TIMEOUT_MS,
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        Ok(ms) => (ms as u64).min(BASH_TIMEOUT_MAX_MS),
        Err(_) => BASH_TIMEOUT_MAX_MS,
    }
}

/// A call of the host's own, which no model can make: keeps a `text` that is too long for the model in a file, and answers
/// with what the model is to see of it.
pub const KEEP_OUTPUT: &str = "keep_output";
/// A call of the host's own: answers with the last errors of the program of that `id`.
pub const PROGRAM_SAID: &str = "program_said";

/// A program that runs beside the tools and is spoken to over its standard streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The program and its words.
    pub argv: Vec<String>,
    /// Variables besides those of every command.
    pub env: Vec<(String, String)>,
}

/// The input of a `web_fetch` call as the guest gets it: the host has fetched the page, the guest makes text of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchedPage {
    /// Where it came from.
    pub url: String,
    /// The server's words about what it is; empty if it said nothing.
    pub content_type: String,
    /// The body in base64.
    pub data: String,
    /// Whether there was more of it.
    pub is_cut: bool,
    /// Most of it that the model is to see.
    pub max_content_tokens: Option<u32>,
}

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolReply {
    /// For the model; may be empty.
    pub content: Vec<ContentBlock>,
    /// Whether the tool failed.
    pub is_error: bool,
}

impl ToolReply {
    /// A text answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![ContentBlock::text(text)], is_error: false }
    }

    /// A failure, in a sentence that the model can act on.
    pub fn error(text: impl Into<String>) -> Self {
        Self { content: vec![ContentBlock::text(text)], is_error: true }
    }
}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToGuest {
    /// Run a tool. Answered by exactly one [`FromGuest::Reply`].
    Call {
        /// Chosen by the host.
        id: CallId,
        /// What to run.
        call: ToolCall,
    },
    /// Start a program. One byte follows the frame, and with it the stream that becomes the program's standard input and
    /// output. Answered by exactly one [`FromGuest::Reply`], once it runs or cannot.
    Start {
        /// Chosen by the host; names the program from now on.
        id: CallId,
        /// What to start.
        program: Program,
    },
    /// End the call now; it is still answered.
    Cancel {
        /// The call.
        id: CallId,
    },
}

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromGuest {
    /// Set-up is done and every layer holds.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// The layers in force, such as `landlock (ABI 7)`.
        layers: Vec<String>,
    },
    /// Set-up failed; the process ends.
    Failed {
        /// What was being set up, such as `user namespace`.
        stage: String,
        /// What went wrong, with the system's words.
        reason: String,
        /// The errno, or 0.
        errno: i32,
    },
    /// The answer to a call.
    Reply {
        /// The call.
        id: CallId,
        /// What it returned.
        reply: ToolReply,
    },
    /// The one command of `sandbox exec` ended.
    Exited {
        /// As a shell counts: the exit code, or 128 and the signal.
        code: u8,
    },
}

/// A frame as bytes.
///
/// # Errors
/// `InvalidData` for a frame over the bound.
pub fn encode(frame: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = bytes.len() - PREFIX;
    if length > MAX_FRAME_BYTES {
        let text = format!("a frame of {length} bytes is over the bound of {MAX_FRAME_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let prefix = u32::try_from(length).expect("the bound fits 32 bits").to_le_bytes();
    bytes[..PREFIX].copy_from_slice(&prefix);
    Ok(bytes)
}

/// A frame from the bytes after its length.
///
/// # Errors
/// `InvalidData` for anything that is not exactly one frame.
pub fn decode<F: DeserializeOwned>(body: &[u8]) -> io::Result<F> {
    serde_json::from_slice(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Checks a length prefix.
///
/// # Errors
/// `InvalidData` for a length over the bound.
pub fn body_length(prefix: [u8; PREFIX]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME_BYTES {
        let text = format!("a frame of {length} bytes is over the bound of {MAX_FRAME_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

/// Writes one frame, blocking.
///
/// # Errors
/// The socket's, and those of [`encode`].
pub fn write_frame(to: &mut impl Write, frame: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(frame)?)
}

/// Reads one frame, blocking; `None` at a clean end between frames.
///
/// # Errors
/// The socket's, `UnexpectedEof` within a frame, and those of [`decode`].
pub fn read_frame<F: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<F>> {
    let bytes = read_bytes(from)?;
    bytes.map(|bytes| decode(&bytes[PREFIX..])).transpose()
}

/// The same as it came, its length before it.
///
/// # Errors
/// The socket's, `UnexpectedEof` within a frame, `InvalidData` for one over the bound.
pub fn read_bytes(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; PREFIX];
    let mut filled = 0;
    while filled < prefix.len() {
        match from.read(&mut prefix[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let mut bytes = vec![0; PREFIX + body_length(prefix)?];
    bytes[..PREFIX].copy_from_slice(&prefix);
    from.read_exact(&mut bytes[PREFIX..])?;
    Ok(Some(bytes))
}
