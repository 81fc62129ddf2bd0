//! Deltas to the finished blocks of an answer. Decides which tool calls are fit to run; leaves running to the session.
//!
//! A call that may have been cut never runs: after a token limit, a full context or a stop that nobody knows, the last
//! block is not trusted even if it looks whole, since servers close a cut call's JSON for it (llama.cpp sends `{}`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::repair::{BadInput, Ending, arguments};
use super::{Delta, ModelError, Stop};
use crate::event::Usage;
use crate::limits::{
    MAX_ANSWER_BLOCKS, MAX_ANSWER_BYTES, MAX_TOOL_CALLS_PER_ANSWER, MAX_TOOL_INPUT_BYTES,
};

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its blocks in order; blank text is left out.
    pub blocks: Vec<AnswerBlock>,
    /// The index that each block had in the stream.
    pub indices: Vec<usize>,
    /// Why the model stopped. [`Stop::ToolUse`] if and only if it ended by itself and there is a tool call.
    pub stop: Stop,
    /// Its tokens.
    pub usage: Usage,
}

impl Answer {
    /// What it says, without thoughts and calls.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.blocks.iter().filter_map(|block| match block {
            AnswerBlock::Text(text) => Some(text.as_str()),
            AnswerBlock::Thinking { .. }
            | AnswerBlock::RedactedThinking { .. }
            | AnswerBlock::ToolCall { .. } => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// One block of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerBlock {
    /// Text, not blank.
    Text(String),
    /// What the model thought.
    Thinking {
        /// The text; may be empty if there is a signature.
        thinking: String,
        /// The provider's seal.
        signature: Option<String>,
    },
    /// Thoughts that the provider encrypted.
    RedactedThinking {
        /// The encrypted bytes, as given.
        data: String,
    },
    /// A tool call.
    ToolCall {
        /// The tool's name, as the model wrote it; may be any text.
        name: String,
        /// The arguments, or why the call must not run.
        input: Result<Map<String, Value>, BadInput>,
    },
}

/// What a delta meant, for those who watch the answer grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// More text.
    Text {
        /// The block.
        index: usize,
        /// What came.
        text: String,
    },
    /// More thoughts.
    Thinking {
        /// The block.
        index: usize,
        /// What came.
        text: String,
    },
    /// A tool call began.
    ToolCall {
        /// The block.
        index: usize,
        /// The tool.
        name: String,
    },
    /// Nothing to show.
    Quiet,
}

#[derive(Debug)]
enum Open {
    Text(String),
    Thinking { thinking: String, signature: String },
    Redacted(String),
    Tool { name: String, json: String, oversize: bool },
}

/// Gathers the deltas of one answer.
#[derive(Debug)]
pub struct Assembler {
    provider: String,
    blocks: BTreeMap<usize, Open>,
    /// The block that grew last: with interleaved blocks the one that a limit cut, whatever its index.
    grew_last: Option<usize>,
    calls: usize,
    /// Calls beyond the bound, which are counted and not kept; and the last of them.
    surplus: usize,
    last_surplus: Option<usize>,
    bytes: usize,
    stop: Option<Stop>,
    usage: Usage,
}

impl Assembler {
    /// An answer of `provider`, which errors will name.
    #[must_use]
    pub fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            blocks: BTreeMap::new(),
            grew_last: None,
            calls: 0,
            surplus: 0,
            last_surplus: None,
            bytes: 0,
            stop: None,
            usage: Usage::default(),
        }
    }

    /// Takes one delta.
    ///
    /// # Errors
    /// When the answer outgrows its bounds, or a delta does not belong to its block.
    pub fn push(&mut self, delta: Delta) -> Result<Pushed, ModelError> {
        match delta {
            Delta::Text { index, text } => {
                self.grow(index, text.len())?;
                match self.open(index, || Open::Text(String::new()))? {
                    Open::Text(so_far) => so_far.push_str(&text),
                    _ => return Err(self.misfit(index, "text")),
                }
                Ok(Pushed::Text { index, text })
            }
            Delta::Thinking { index, text } => {
                self.grow(index, text.len())?;
                match self.open_thinking(index)? {
                    Open::Thinking { thinking, .. } => thinking.push_str(&text),
                    _ => return Err(self.misfit(index, "thinking")),
                }
                Ok(Pushed::Thinking { index, text })
            }
            Delta::Signature { index, signature: more } => {
                self.grow(index, more.len())?;
                match self.open_thinking(index)? {
                    Open::Thinking { signature, .. } => signature.push_str(&more),
                    _ => return Err(self.misfit(index, "signature")),
                }
                Ok(Pushed::Quiet)
            }
            Delta::RedactedThinking { index, data } => {
                self.grow(index, data.len())?;
                self.open(index, || Open::Redacted(data))?;
                Ok(Pushed::Quiet)
            }
            Delta::ToolUse { index, name } => self.begin_call(index, name),
            Delta::ToolInput { index, json } => self.grow_call(index, &json),
            Delta::BlockStop { .. } => Ok(Pushed::Quiet),
            Delta::Usage(usage) => {
                raise(&mut self.usage, usage);
                Ok(Pushed::Quiet)
            }
            Delta::Stop(stop) => {
                self.stop = Some(stop);
                Ok(Pushed::Quiet)
            }
        }
    }

    /// What was counted so far, for an answer that is given up.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The whole answer.
    ///
    /// # Errors
    /// When no [`Delta::Stop`] came: what is there is a part of an answer.
    pub fn finish(self) -> Result<Answer, ModelError> {
        let Some(stop) = self.stop else {
            let reason = "it never said why it stopped".to_owned();
            return Err(ModelError::BrokenStream { provider: self.provider, reason });
        };
        let last = self.blocks.keys().next_back().copied();
        let trust = Trust { stop: &stop, last, grew_last: self.grew_last };
        let mut calls = 0;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut indices = Vec::with_capacity(self.blocks.len());
        for (index, open) in self.blocks {
            indices.push(index);
            match open {
                Open::Text(text) if text.trim().is_empty() => {}
                Open::Text(text) => blocks.push(AnswerBlock::Text(text)),
                Open::Thinking { thinking, signature } => {
                    let signature = Some(signature).filter(|s| !s.is_empty());
                    if !thinking.trim().is_empty() || signature.is_some() {
                        blocks.push(AnswerBlock::Thinking { thinking, signature });
                    }
                }
                Open::Redacted(data) => blocks.push(AnswerBlock::RedactedThinking { data }),
                Open::Tool { name, json, oversize } => {
                    calls += 1;
                    let input = check_call(calls, self.surplus, &name, oversize, &json)
                        .and_then(|()| trust.arguments(index, &json));
                    blocks.push(AnswerBlock::ToolCall { name, input });
                }
            }
            // A block that says nothing is left out.
            indices.truncate(blocks.len());
        }
        let stop = match stop {
            Stop::EndTurn if calls > 0 => Stop::ToolUse,
            Stop::ToolUse if calls == 0 => Stop::EndTurn,
            stop => stop,
        };
        Ok(Answer { blocks, indices, stop, usage: self.usage })
    }

    fn begin_call(&mut self, index: usize, given: String) -> Result<Pushed, ModelError> {
        self.grow(index, given.len())?;
        if !self.blocks.contains_key(&index) {
            // One call beyond the bound is kept, so that the model can be told of all that are not.
            if self.calls > MAX_TOOL_CALLS_PER_ANSWER {
                self.surplus += usize::from(self.last_surplus != Some(index));
                self.last_surplus = Some(index);
                return Ok(Pushed::Quiet);
            }
            self.calls += 1;
        }
        let fresh = || Open::Tool { name: String::new(), json: String::new(), oversize: false };
        match self.open(index, fresh)? {
            // A name may come after the call began without one, but a call has one name.
            Open::Tool { name, .. } if name.is_empty() => name.clone_from(&given),
            _ => return Err(self.misfit(index, "a second tool call")),
        }
        Ok(Pushed::ToolCall { index, name: given })
    }

    fn grow_call(&mut self, index: usize, more: &str) -> Result<Pushed, ModelError> {
        self.grow(index, more.len())?;
        match self.blocks.get_mut(&index) {
            Some(Open::Tool { json, oversize, .. }) => {
                *oversize |= json.len() + more.len() > MAX_TOOL_INPUT_BYTES;
                if !*oversize {
                    json.push_str(more);
                }
                Ok(Pushed::Quiet)
            }
            None if self.surplus > 0 => Ok(Pushed::Quiet),
            _ => Err(self.misfit(index, "tool arguments")),
        }
    }

    fn open_thinking(&mut self, index: usize) -> Result<&mut Open, ModelError> {
        self.open(index, || Open::Thinking { thinking: String::new(), signature: String::new() })
    }

    fn open(&mut self, index: usize, new: impl FnOnce() -> Open) -> Result<&mut Open, ModelError> {
        if self.blocks.len() >= MAX_ANSWER_BLOCKS && !self.blocks.contains_key(&index) {
            let reason = format!("more than {MAX_ANSWER_BLOCKS} blocks in one answer");
            return Err(self.protocol(reason));
        }
        Ok(self.blocks.entry(index).or_insert_with(new))
    }

    fn grow(&mut self, index: usize, bytes: usize) -> Result<(), ModelError> {
        self.grew_last = Some(index);
        self.bytes += bytes;
        if self.bytes > MAX_ANSWER_BYTES {
            let provider = self.provider.clone();
            return Err(ModelError::TooLarge { provider, limit: MAX_ANSWER_BYTES });
        }
        Ok(())
    }

    fn misfit(&self, index: usize, what: &str) -> ModelError {
        self.protocol(format!("{what} for block {index}, which is of another kind"))
    }

    fn protocol(&self, reason: String) -> ModelError {
        ModelError::Protocol { provider: self.provider.clone(), format: "a block stream", reason }
    }
}

fn raise(usage: &mut Usage, given: Usage) {
    let pairs = [
        (&mut usage.input_tokens, given.input_tokens),
        (&mut usage.output_tokens, given.output_tokens),
        (&mut usage.cache_creation_input_tokens, given.cache_creation_input_tokens),
        (&mut usage.cache_read_input_tokens, given.cache_read_input_tokens),
    ];
    for (have, new) in pairs {
        *have = new.max(*have);
    }
}

fn check_call(
    nth: usize,
    surplus: usize,
    name: &str,
    oversize: bool,
    json: &str,
) -> Result<(), BadInput> {
    if nth > MAX_TOOL_CALLS_PER_ANSWER {
        let reason = format!(
            "At most {MAX_TOOL_CALLS_PER_ANSWER} tool calls run in one answer; this one and {surplus} more did not"
        );
        return Err(BadInput::new(reason, json));
    }
    if oversize {
        let reason = format!("The arguments are larger than {MAX_TOOL_INPUT_BYTES} bytes");
        return Err(BadInput::new(reason, json));
    }
    if name.trim().is_empty() {
        return Err(BadInput::new("The call names no tool", json));
    }
    Ok(())
}

/// How far the way in which the answer ended lets its calls be believed.
struct Trust<'a> {
    stop: &'a Stop,
    last: Option<usize>,
    grew_last: Option<usize>,
}

impl Trust<'_> {
    fn arguments(&self, index: usize, json: &str) -> Result<Map<String, Value>, BadInput> {
        let at_the_cut = Some(index) == self.last || Some(index) == self.grew_last;
        let cut_by = match self.stop {
            Stop::EndTurn | Stop::ToolUse => return arguments(json, Ending::Whole),
            Stop::Refusal { .. } => {
                return Err(BadInput::new("The answer was refused, so its calls do not run", json));
            }
            Stop::MaxTokens => "The call was cut by the token limit",
            Stop::ContextFull => "The call was cut because the context is full",
            Stop::StopSequence | Stop::PauseTurn | Stop::Other(_) => {
                "The answer stopped within or after this call for a reason that may have cut it"
            }
        };
        if at_the_cut {
            let reason = format!("{cut_by}; send it again, in smaller pieces if it is long");
            return Err(BadInput::new(reason, json));
        }
        arguments(json, Ending::Unsure)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(index: usize, text: &str) -> Delta {
        Delta::Text { index, text: text.into() }
    }

    fn call(index: usize, json: &str) -> [Delta; 3] {
        [
            Delta::ToolUse { index, name: "bash".into() },
            Delta::ToolInput { index, json: json.into() },
            Delta::BlockStop { index },
        ]
    }

    fn assemble(deltas: impl IntoIterator<Item = Delta>) -> Result<Answer, ModelError> {
        let mut assembler = Assembler::new("test");
        for delta in deltas {
            assembler.push(delta)?;
        }
        assembler.finish()
    }

    /// The inputs of the calls: `Ok(json)`, or the first words of the reason.
    fn inputs(deltas: impl IntoIterator<Item = Delta>) -> Vec<Result<String, String>> {
        let answer = assemble(deltas).expect("a good stream");
        let calls = answer.blocks.into_iter().filter_map(|block| match block {
            AnswerBlock::ToolCall { input, .. } => Some(input),
            _ => None,
        });
        calls
            .map(|input| match input {
                Ok(map) => Ok(Value::Object(map).to_string()),
                Err(bad) => Err(bad.reason.split(';').next().unwrap_or_default().to_owned()),
            })
            .collect()
    }

    #[test]
    fn a_call_that_may_have_been_cut_never_runs() {
        let whole = r#"{"command":"ls"}"#;
        let ran = || Ok(r#"{"command":"ls"}"#.to_owned());
        let cut = |why: &str| Err(why.to_owned());
        let limit = "The call was cut by the token limit";
        let empty = || Ok("{}".to_owned());
        let other =
            "The answer stopped within or after this call for a reason that may have cut it";
        for (blocks, stop, expected) in [
            (vec![whole], Stop::ToolUse, vec![ran()]),
            (vec![whole], Stop::EndTurn, vec![ran()]),
            (vec![r#"{"command":"ls""#], Stop::ToolUse, vec![ran()]),
            (vec![whole], Stop::MaxTokens, vec![cut(limit)]),
            (vec!["{}"], Stop::MaxTokens, vec![cut(limit)]),
            (vec![""], Stop::MaxTokens, vec![cut(limit)]),
            (vec![whole, "{\"com"], Stop::MaxTokens, vec![ran(), cut(limit)]),
            (vec!["", "{}"], Stop::MaxTokens, vec![empty(), cut(limit)]),
            (
                vec![whole],
                Stop::ContextFull,
                vec![cut("The call was cut because the context is full")],
            ),
            (vec![whole], Stop::Other("abort".into()), vec![cut(other)]),
            (
                vec![whole],
                Stop::Refusal { category: None, explanation: None },
                vec![cut("The answer was refused, so its calls do not run")],
            ),
        ] {
            let calls = blocks.iter().enumerate().flat_map(|(i, json)| call(i, json));
            let deltas: Vec<_> = calls.chain([Delta::Stop(stop.clone())]).collect();
            assert_eq!(inputs(deltas), expected, "{blocks:?} {stop:?}");
        }
    }

    #[test]
    fn of_interleaved_calls_the_one_that_grew_last_is_cut_too() {
        let mut deltas: Vec<_> = [call(0, r#"{"a":1"#), call(1, "{}")].concat();
        deltas.push(Delta::ToolInput { index: 0, json: "}".into() });
        deltas.push(Delta::Stop(Stop::MaxTokens));
        assert!(inputs(deltas).iter().all(Result::is_err));
    }

    #[test]
    fn text_after_a_call_shows_that_the_call_is_whole() {
        let deltas =
            call(0, r#"{"a":1}"#).into_iter().chain([text(1, "and"), Delta::Stop(Stop::MaxTokens)]);
        assert_eq!(inputs(deltas), [Ok(r#"{"a":1}"#.to_owned())]);
    }

    #[test]
    fn blocks_come_out_by_index_and_blank_text_is_left_out() {
        let answer = assemble([
            Delta::Thinking { index: 0, text: "hm".into() },
            Delta::Signature { index: 0, signature: "se".into() },
            Delta::Signature { index: 0, signature: "al".into() },
            Delta::RedactedThinking { index: 1, data: "xyz".into() },
            text(4, "b"),
            text(2, "\n\n"),
            text(3, "a"),
            text(4, "c"),
            Delta::Usage(Usage { input_tokens: 7, output_tokens: 1, ..Usage::default() }),
            Delta::Usage(Usage { output_tokens: 5, ..Usage::default() }),
            Delta::Stop(Stop::ToolUse),
        ]);
        let blocks = vec![
            AnswerBlock::Thinking { thinking: "hm".into(), signature: Some("seal".into()) },
            AnswerBlock::RedactedThinking { data: "xyz".into() },
            AnswerBlock::Text("a".into()),
            AnswerBlock::Text("bc".into()),
        ];
        let usage = Usage { input_tokens: 7, output_tokens: 5, ..Usage::default() };
        let indices = vec![0, 1, 3, 4];
        assert_eq!(answer, Ok(Answer { blocks, indices, stop: Stop::EndTurn, usage }));
    }

    #[test]
    fn a_call_without_a_name_or_beyond_the_limit_is_answered_not_run() {
        let nameless = [Delta::ToolUse { index: 0, name: " ".into() }, Delta::Stop(Stop::ToolUse)];
        assert_eq!(inputs(nameless), [Err("The call names no tool".to_owned())]);
        // The last of them learns its name late.
        let late = Delta::ToolUse { index: 999, name: String::new() };
        let many = (0..1000).flat_map(|i| call(i, "{}")).chain([late, Delta::Stop(Stop::ToolUse)]);
        let mut blocks = assemble(many).expect("a good stream").blocks;
        let beyond = blocks.pop();
        let ran = |block: &AnswerBlock| matches!(block, AnswerBlock::ToolCall { input: Ok(_), .. });
        assert_eq!((blocks.len(), blocks.iter().all(ran)), (MAX_TOOL_CALLS_PER_ANSWER, true));
        let Some(AnswerBlock::ToolCall { input: Err(bad), .. }) = beyond else {
            panic!("{beyond:?}")
        };
        let told = "At most 128 tool calls run in one answer; this one and 871 more did not";
        assert_eq!(bad.reason, told);
    }

    #[test]
    fn an_oversize_call_is_answered_and_an_oversize_answer_is_refused() {
        let piece = "x".repeat(1024 * 1024);
        let grow = |index| Delta::ToolInput { index, json: piece.clone() };
        let begin = Delta::ToolUse { index: 0, name: "write".into() };
        let call = std::iter::once(begin.clone()).chain((0..5).map(|_| grow(0)));
        let results = inputs(call.chain([Delta::Stop(Stop::ToolUse)]));
        assert!(results[0].as_ref().is_err_and(|e| e.contains("larger than")), "{results:?}");
        let answer = assemble(std::iter::once(begin).chain((0..17).map(|_| grow(0))));
        assert!(matches!(answer, Err(ModelError::TooLarge { .. })), "{answer:?}");
    }

    #[test]
    fn deltas_that_do_not_belong_are_refused() {
        for deltas in [
            vec![Delta::ToolInput { index: 0, json: "{}".into() }],
            vec![text(0, "a"), Delta::ToolInput { index: 0, json: "{}".into() }],
            vec![text(0, "a"), Delta::ToolUse { index: 0, name: "x".into() }],
            [call(0, "{}"), call(0, "{}")].concat(),
            (0..=MAX_ANSWER_BLOCKS).map(|i| text(i, "a")).collect(),
        ] {
            let answer = assemble(deltas);
            assert!(matches!(answer, Err(ModelError::Protocol { .. })), "{answer:?}");
        }
        let answer = assemble([text(0, "half")]);
        assert!(matches!(answer, Err(ModelError::BrokenStream { .. })), "{answer:?}");
        let answer = assemble(call(0, "{}")).map(|a| json!(a.blocks.len()));
        assert!(answer.is_err(), "{answer:?}");
    }
}
