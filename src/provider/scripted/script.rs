//! The file of a scripted model: its format, its defaults, and a turn as deltas.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::event::Usage;
use crate::provider::{Delta, Stop};

/// A checked script.
#[derive(Debug)]
pub(super) struct Script {
    /// The answers.
    pub(super) turns: Turns,
    /// What is said when the conversation is to be summed up.
    pub(super) summaries: Turns,
    pub(super) judgements: Turns,
}

/// Turns in their order.
#[derive(Debug)]
pub(super) struct Turns(Vec<Turn>);

/// A checked turn, played `repeat` times.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) expect: Option<Expect>,
    pub(super) delay: Duration,
    pub(super) chunk_delay: Duration,
    pub(super) errors: Vec<Fault>,
    thinking: Option<String>,
    text: Option<String>,
    calls: Vec<Call>,
    chunks: usize,
    stop: Stop,
    usage: Option<Usage>,
    repeat: usize,
}

#[derive(Debug)]
struct Call {
    name: String,
    input: Input,
}

#[derive(Debug)]
enum Input {
    Object(Map<String, Value>),
    Raw(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    turns: Vec<TurnFile>,
    #[serde(default)]
    summaries: Vec<TurnFile>,
    #[serde(default)]
    judgements: Vec<TurnFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outline {
    turns: Vec<Map<String, Value>>,
    #[serde(default)]
    summaries: Vec<Map<String, Value>>,
    #[serde(default)]
    judgements: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnFile {
    expect: Option<Expect>,
    thinking: Option<String>,
    text: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Map<String, Value>>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    chunk_delay_ms: u64,
    chunks: Option<usize>,
    #[serde(default)]
    errors: Vec<FaultFile>,
    stop: Option<String>,
    usage: Option<UsageFile>,
    repeat: Option<usize>,
}

/// What a turn expects of the request that it answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) last_user_contains: Option<String>,
    pub(super) last_tool_result_contains: Option<String>,
    pub(super) tool_result_is_error: Option<bool>,
    pub(super) system_contains: Option<String>,
    pub(super) conversation_contains: Option<String>,
    pub(super) last_system_contains: Option<String>,
    pub(super) tools: Option<Vec<String>>,
    pub(super) messages: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FaultFile {
    Status(u16),
    Word(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct UsageFile {
    input_tokens: u64,
    output_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
}

/// An injected failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This HTTP status.
    Status(u16),
    /// The stream breaks off half way.
    Broken,
    /// A deadline passes, at once.
    Timeout,
    /// No connection.
    Refused,
    /// An answer without any block.
    Empty,
    /// The conversation is too long.
    Context,
}

impl Script {
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(yaml).map_err(|error| locate(yaml, &error))?;
        if file.turns.is_empty() {
            return Err("the script has no turns".to_owned());
        }
        let turns = Turns::of("turn", file.turns)?;
        let summaries = Turns::of("summary", file.summaries)?;
        Ok(Self { turns, summaries, judgements: Turns::of("judgement", file.judgements)? })
    }
}

impl Turns {
    fn of(what: &str, turns: Vec<TurnFile>) -> Result<Self, String> {
        let checked = turns.into_iter().enumerate().map(|(i, turn)| {
            turn.check().map_err(|(field, wrong)| format!("{what} {}: {field}: {wrong}", i + 1))
        });
        Ok(Self(checked.collect::<Result<_, _>>()?))
    }

    /// How many turns there are, repetitions counted.
    pub(super) fn len(&self) -> usize {
        self.0.iter().fold(0, |sum, turn| sum.saturating_add(turn.repeat))
    }

    /// The one after so many.
    pub(super) fn at(&self, answered: usize) -> Option<&Turn> {
        let mut before = 0_usize;
        self.0.iter().find(|turn| {
            before = before.saturating_add(turn.repeat);
            answered < before
        })
    }
}

/// Adds turn and field to a parse error, which knows only line and column.
fn locate(yaml: &str, error: &serde_saphyr::Error) -> String {
    let Ok(outline) = serde_saphyr::from_str::<Outline>(yaml) else { return error.to_string() };
    let of = |what, turns: Vec<_>| turns.into_iter().enumerate().map(move |(i, t)| (what, i, t));
    let more = of("summary", outline.summaries).chain(of("judgement", outline.judgements));
    for (what, i, turn) in of("turn", outline.turns).chain(more) {
        for (field, value) in turn {
            let alone = Value::Object(Map::from_iter([(field.clone(), value)]));
            if let Err(wrong) = serde_json::from_value::<TurnFile>(alone) {
                return format!("{what} {}: {field}: {wrong}", i + 1);
            }
        }
    }
    error.to_string()
}

type Wrong = (&'static str, String);

impl TurnFile {
    fn check(self) -> Result<Turn, Wrong> {
        let calls = self.tool_calls.into_iter().map(call).collect::<Result<Vec<_>, _>>()?;
        let errors = self.errors.into_iter().map(fault).collect::<Result<_, _>>()?;
        let natural = if calls.is_empty() { Stop::EndTurn } else { Stop::ToolUse };
        let stop = match self.stop {
            None => natural,
            Some(word) => match Stop::from_word(&word) {
                Stop::Other(word) => {
                    let words = "end_turn, tool_use, max_tokens, stop_sequence, pause_turn, \
                                 refusal, model_context_window_exceeded";
                    return Err(("stop", format!("`{word}` is not one of {words}")));
                }
                stop => stop,
            },
        };
        let (chunks, repeat) = (self.chunks.unwrap_or(1), self.repeat.unwrap_or(1));
        if chunks == 0 {
            return Err(("chunks", "must be at least 1".to_owned()));
        }
        if repeat == 0 {
            return Err(("repeat", "must be at least 1".to_owned()));
        }
        Ok(Turn {
            expect: self.expect,
            delay: Duration::from_millis(self.delay_ms),
            chunk_delay: Duration::from_millis(self.chunk_delay_ms),
            errors,
            thinking: self.thinking,
            text: self.text,
            calls,
            chunks,
            stop,
            usage: self.usage.map(|usage| Usage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cache_creation_input_tokens: usage.cache_creation_input_tokens,
                cache_read_input_tokens: usage.cache_read_input_tokens,
            }),
            repeat,
        })
    }
}

/// A call is `{bash: {command: ls}}`, or `{name: bash, input: {…}}`, or `{name: bash, raw_input: "…"}`.
fn call(mut given: Map<String, Value>) -> Result<Call, Wrong> {
    let wrong = |what: String| ("tool_calls", what);
    let named = given.contains_key("name")
        && given.keys().all(|key| ["name", "input", "raw_input"].contains(&key.as_str()));
    let (name, input) = if named {
        let Some(Value::String(name)) = given.remove("name") else {
            return Err(wrong("name must be text".to_owned()));
        };
        match (given.remove("input"), given.remove("raw_input")) {
            (Some(_), Some(_)) => {
                return Err(wrong(format!("{name} has both input and raw_input")));
            }
            (None, Some(Value::String(raw))) => return Ok(Call { name, input: Input::Raw(raw) }),
            (None, Some(_)) => return Err(wrong("raw_input must be text".to_owned())),
            (input, None) => (name, input.unwrap_or(Value::Null)),
        }
    } else {
        let mut entries = given.into_iter();
        match (entries.next(), entries.next()) {
            (Some(entry), None) => entry,
            _ => return Err(wrong("each call is `TOOL: {arguments}`".to_owned())),
        }
    };
    match input {
        Value::Object(input) => Ok(Call { name, input: Input::Object(input) }),
        Value::Null => Ok(Call { name, input: Input::Object(Map::new()) }),
        _ => Err(wrong(format!("the arguments of {name} must be a mapping"))),
    }
}

fn fault(given: FaultFile) -> Result<Fault, Wrong> {
    match given {
        FaultFile::Status(status) if (300..600).contains(&status) => Ok(Fault::Status(status)),
        FaultFile::Status(status) => Err(("errors", format!("{status} is not an error status"))),
        FaultFile::Word(word) => match word.as_str() {
            "broken" => Ok(Fault::Broken),
            "timeout" => Ok(Fault::Timeout),
            "refused" => Ok(Fault::Refused),
            "empty" => Ok(Fault::Empty),
            "context" => Ok(Fault::Context),
            _ => {
                let words = "a status, broken, timeout, refused, empty, context";
                Err(("errors", format!("`{word}` is not one of {words}")))
            }
        },
    }
}

impl Turn {
    /// The turn as an answer; `{n}` in its texts becomes `number`.
    pub(super) fn deltas(&self, number: usize) -> Vec<Delta> {
        let numbered = |text: &str| text.replace("{n}", &number.to_string());
        let mut deltas: Vec<_> = self.usage.map(Delta::Usage).into_iter().collect();
        let mut index = 0;
        if let Some(thinking) = &self.thinking {
            let pieces = pieces(&numbered(thinking), self.chunks);
            deltas.extend(pieces.map(|text| Delta::Thinking { index, text }));
            deltas.push(Delta::BlockStop { index });
            index += 1;
        }
        if let Some(text) = &self.text {
            let pieces = pieces(&numbered(text), self.chunks);
            deltas.extend(pieces.map(|text| Delta::Text { index, text }));
            deltas.push(Delta::BlockStop { index });
            index += 1;
        }
        for call in &self.calls {
            let raw = match &call.input {
                Input::Raw(raw) => numbered(raw),
                Input::Object(input) => {
                    let mut input = Value::Object(input.clone());
                    number_strings(&mut input, &numbered);
                    input.to_string()
                }
            };
            deltas.push(Delta::ToolUse { index, name: call.name.clone() });
            deltas.extend(pieces(&raw, self.chunks).map(|json| Delta::ToolInput { index, json }));
            deltas.push(Delta::BlockStop { index });
            index += 1;
        }
        deltas.push(Delta::Stop(self.stop.clone()));
        deltas
    }
}

fn number_strings(value: &mut Value, numbered: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = numbered(text),
        Value::Array(items) => items.iter_mut().for_each(|item| number_strings(item, numbered)),
        Value::Object(map) => map.values_mut().for_each(|item| number_strings(item, numbered)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `text` in at most `count` pieces of about the same length.
fn pieces(text: &str, count: usize) -> std::vec::IntoIter<String> {
    let chars: Vec<char> = text.chars().collect();
    let size = chars.len().div_ceil(count).max(1);
    let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
    pieces.into_iter()
}
