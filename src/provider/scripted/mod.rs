//! A model that follows a file: for tests, for the demo, for trying a policy without a bill.
//!
//! Owns: choosing the turn, checking what it expects, playing it. The file's format is in `script`.
//! Invariant: the turn follows from the request alone, by counting the answers in it, so that a session that was
//! interrupted goes on at the right turn in another process. Only injected errors are counted in memory.

mod script;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::script::{Expect, Fault, Script, Turn};
use super::failure::{Asked, ErrorBody};
use super::repair::excerpt;
use super::{Block, Delta, DeltaStream, Message, Model, ModelError, Purpose, Request, Role, Stop};
use crate::event::text_of;
use crate::limits::MAX_SCRIPT_BYTES;

const PROVIDER: &str = "scripted";

/// The model.
#[derive(Debug)]
pub struct Scripted {
    script: Script,
    /// How many injected errors of each turn were given already.
    failed: Mutex<HashMap<(&'static str, usize), usize>>,
}

/// What a request is answered with.
struct Chosen<'s> {
    /// `turn` or `summary`.
    what: &'static str,
    /// Which of them, from 1.
    number: usize,
    turn: &'s Turn,
}

impl Scripted {
    /// Reads a script.
    ///
    /// # Errors
    /// Names the turn and the field that are wrong.
    pub fn parse(yaml: &str) -> Result<Self, ModelError> {
        let script = Script::parse(yaml).map_err(|reason| ModelError::Script { reason })?;
        Ok(Self { script, failed: Mutex::default() })
    }

    /// Reads a script from a file.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`Scripted::parse`].
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let named = |reason: String| {
            let reason = format!("{}: {reason}", path.display());
            ModelError::Script { reason }
        };
        let size = std::fs::metadata(path).map_err(|e| named(e.to_string()))?.len();
        if size > MAX_SCRIPT_BYTES as u64 {
            return Err(named(format!("the script is larger than {MAX_SCRIPT_BYTES} bytes")));
        }
        let yaml = std::fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
        Self::parse(&yaml).map_err(|error| match error {
            ModelError::Script { reason } => named(reason),
            other => other,
        })
    }

    /// The turn that answers the request, and its number from 1.
    fn choose(&self, request: &Request) -> Result<Chosen<'_>, ModelError> {
        let said = request.messages.iter().filter(|m| m.role == Role::Assistant).count();
        let (what, before, turns) = match request.purpose {
            Purpose::Answer { gone } => ("turn", gone + said, &self.script.turns),
            Purpose::Summary { nth } => ("summary", nth, &self.script.summaries),
            Purpose::Judgement { nth } => ("judgement", nth, &self.script.judgements),
        };
        let (what, number) = (what, before + 1);
        let turn = turns.at(before).ok_or_else(|| ModelError::Script {
            reason: format!(
                "the request is for {what} {number}, but the script has {}",
                plural(turns.len(), what)
            ),
        })?;
        Ok(Chosen { what, number, turn })
    }

    /// The next error that the turn injects, if it has one left.
    fn next_fault(&self, chosen: &Chosen<'_>) -> Option<Fault> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let given = failed.entry((chosen.what, chosen.number)).or_default();
        let fault = chosen.turn.errors.get(*given).copied()?;
        *given += 1;
        Some(fault)
    }
}

impl Model for Scripted {
    fn stream(&self, request: Request) -> DeltaStream {
        let chosen = self.choose(&request).and_then(|chosen| {
            let named = |wrong| format!("{} {}: {wrong}", chosen.what, chosen.number);
            check(chosen.turn.expect.as_ref(), &request)
                .map_err(|wrong| ModelError::Script { reason: named(wrong) })?;
            Ok(chosen)
        });
        let play = chosen.map(|chosen| {
            let fault = self.next_fault(&chosen);
            let Chosen { number, turn, .. } = chosen;
            (turn.delay, turn.chunk_delay, Play::of(number, turn, fault, &request.model))
        });
        Box::pin(async_stream::try_stream! {
            let (delay, chunk_delay, play) = play?;
            pause(delay).await;
            for delta in play.deltas {
                pause(chunk_delay).await;
                yield delta;
            }
            if let Some(error) = play.error {
                Err(error)?;
            }
        })
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// What a turn amounts to.
struct Play {
    deltas: Vec<Delta>,
    error: Option<ModelError>,
}

impl Play {
    fn of(number: usize, turn: &Turn, fault: Option<Fault>, model: &str) -> Self {
        let mut deltas = turn.deltas(number);
        let provider = PROVIDER.to_owned();
        let error = match fault {
            None => return Self { deltas, error: None },
            Some(Fault::Empty) => {
                return Self { deltas: vec![Delta::Stop(Stop::EndTurn)], error: None };
            }
            Some(Fault::Broken) => {
                // Half of what there is, and never the end.
                deltas.truncate(deltas.len() / 2);
                let reason = "the script breaks off here".to_owned();
                return Self { deltas, error: Some(ModelError::BrokenStream { provider, reason }) };
            }
            Some(Fault::Timeout) => {
                ModelError::Timeout { provider, phase: "more of the answer", seconds: 0 }
            }
            Some(Fault::Context) => {
                let message = "the script says so".to_owned();
                ModelError::ContextTooLong { message }
            }
            Some(Fault::Refused) => ModelError::Connect {
                url: "scripted://".to_owned(),
                reason: "connection refused".to_owned(),
            },
            Some(Fault::Status(status)) => {
                let asked = Asked { provider, model: model.to_owned() };
                let words = format!("the script answers {status}");
                asked.refused(status, ErrorBody::parse(words.as_bytes()), None)
            }
        };
        Self { deltas: Vec::new(), error: Some(error) }
    }
}

/// Compares the request with what the turn expects of it.
fn check(expect: Option<&Expect>, request: &Request) -> Result<(), String> {
    let Some(expect) = expect else { return Ok(()) };
    let contains = |field: &str, wanted: &Option<String>, got: &str| match wanted {
        Some(wanted) if !got.contains(wanted.as_str()) => {
            Err(format!("expected {field} `{wanted}`, but got `{}`", excerpt(got, 300)))
        }
        _ => Ok(()),
    };
    contains("system_contains", &expect.system_contains, &request.system)?;
    let said = last(request, |block| match block {
        Block::Content(content) => Some(text_of(std::slice::from_ref(content))),
        _ => None,
    });
    contains("last_user_contains", &expect.last_user_contains, &said.unwrap_or_default())?;
    let instructed = last(request, |block| match block {
        Block::System { text } => Some(text.clone()),
        _ => None,
    });
    contains(
        "last_system_contains",
        &expect.last_system_contains,
        &instructed.unwrap_or_default(),
    )?;
    let conversation = || {
        let blocks = request.messages.iter().flat_map(|message| &message.blocks);
        blocks.filter_map(words).collect::<Vec<_>>().join("\n")
    };
    if expect.conversation_contains.is_some() {
        contains("conversation_contains", &expect.conversation_contains, &conversation())?;
    }
    let result = last(request, |block| match block {
        Block::ToolResult { content, is_error, .. } => Some((text_of(content), *is_error)),
        _ => None,
    });
    let (text, is_error) = result.unwrap_or_default();
    contains("last_tool_result_contains", &expect.last_tool_result_contains, &text)?;
    equals("tool_result_is_error", expect.tool_result_is_error.as_ref(), &is_error)?;
    let names: Vec<_> = request.tools.iter().map(|tool| tool.name.clone()).collect();
    equals("tools", expect.tools.as_ref(), &names)?;
    equals("messages", expect.messages.as_ref(), &request.messages.len())
}

/// What a block says in words.
fn words(block: &Block) -> Option<String> {
    match block {
        Block::Content(content) => Some(text_of(std::slice::from_ref(content))),
        Block::ToolResult { content, .. } => Some(text_of(content)),
        Block::System { text } => Some(text.clone()),
        Block::Thinking { .. } | Block::RedactedThinking { .. } | Block::ToolUse { .. } => None,
    }
}

/// `1 turn`, `2 turns`, `0 summaries`.
fn plural(count: usize, what: &str) -> String {
    match (count, what) {
        (1, what) => format!("1 {what}"),
        (_, "summary") => format!("{count} summaries"),
        _ => format!("{count} {what}s"),
    }
}

fn equals<T: PartialEq + std::fmt::Debug>(
    field: &str,
    wanted: Option<&T>,
    got: &T,
) -> Result<(), String> {
    match wanted {
        Some(wanted) if wanted != got => {
            Err(format!("expected {field} {wanted:?}, but got {got:?}"))
        }
        _ => Ok(()),
    }
}

/// The last block of the user's messages for which `pick` has an answer.
fn last<T>(request: &Request, pick: impl Fn(&Block) -> Option<T>) -> Option<T> {
    let users = |message: &&Arc<Message>| message.role == Role::User;
    let mut blocks =
        request.messages.iter().rev().filter(users).flat_map(|m| m.blocks.iter().rev());
    blocks.find_map(pick)
}

#[cfg(test)]
mod tests;
