//! What the model has in front of it: about how many tokens, of how many, and what outlives a compaction. Part of the
//! fold; pure. What is done about it is decided in `compact`.

use std::sync::Arc;

use crate::event::{ContentBlock, DocumentSource, Usage, text_of};
use crate::id::EventId;
use crate::limits::{
    COMPACTION_ATTEMPTS, COMPACTION_MIN_TOKENS, KEPT_FILES, KEPT_INSTRUCTIONS, KEPT_SKILLS_BYTES,
    KEPT_WORDS_BYTES,
};
use crate::provider::Block;

/// Bytes of a token, where nobody has counted: low, since code has 3 to 4 and an error in this direction only costs room.
pub(super) const TOKEN_BYTES: u64 = 3;
/// Tokens of a picture, about: providers scale it down to this.
const IMAGE_TOKENS: u64 = 1600;
/// Bytes of an encoded document for each token, about: a page of text has 3 kB there, and 100 kB in a scan.
const DOCUMENT_TOKEN_BYTES: u64 = 40;

/// What is not believed to be too much: whoever refuses less refuses for another reason.
const SMALLEST_CEILING: u64 = 2048;

/// What the model can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens, the answer's included.
    pub tokens: u64,
    /// What system prompt and tools take of it.
    pub fixed: u64,
}

/// What a compaction must not lose, whatever the summary says. Bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The user's first message.
    pub(super) first: String,
    /// The user's last one.
    pub(super) last: String,
    /// The summary of the last compaction.
    pub(super) summary: String,
    /// Files that `write` and `edit` changed, the last one last.
    pub(super) files: Vec<String>,
    /// What clients instructed the model to do.
    pub(super) instructions: Vec<String>,
    /// What the model has read of its skills, the last one last.
    pub(super) skills: Vec<SkillRead>,
}

/// A part of a skill's body that the model has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SkillRead {
    /// The call that read it.
    pub(super) call: EventId,
    /// The file.
    pub(super) path: String,
    /// Which part of it: the arguments of the call.
    pub(super) part: String,
    /// What the model was shown.
    pub(super) text: String,
}

/// The measures.
#[derive(Debug, Clone, Default)]
pub struct Context {
    window: Option<Window>,
    /// A provider refused as much.
    ceiling: Option<u64>,
    tokens: u64,
    /// The last request was refused as too long.
    pub(super) overflowed: bool,
    /// The user wants a summary.
    pub(super) requested: bool,
    /// The request under way is for a summary.
    pub(super) summarising: bool,
    /// Summaries that were asked for since the last one was had.
    pub(super) attempts: u32,
    /// It was compacted, and the model has not answered since.
    pub(super) barren: bool,
    compactions: usize,
    gone: usize,
    kept: Arc<Kept>,
}

impl Context {
    /// What the model can read, if that is known.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Tokens of system prompt, tools and conversation, about.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How often the conversation was replaced by a summary.
    #[must_use]
    pub fn compactions(&self) -> usize {
        self.compactions
    }

    /// Answers of the model that are in the conversation no more.
    #[must_use]
    pub fn gone(&self) -> usize {
        self.gone
    }

    /// Tokens that may be used at all, as far as it is known.
    pub(super) fn room(&self) -> Option<u64> {
        let window = self.window.map(|window| window.tokens);
        [window, self.ceiling].into_iter().flatten().min()
    }

    pub(super) fn fixed(&self) -> u64 {
        self.window.map_or(0, |window| window.fixed)
    }

    /// Whether what was said is so short that a text in its place would be longer.
    pub(super) fn is_short(&self) -> bool {
        self.tokens.saturating_sub(self.fixed()) < COMPACTION_MIN_TOKENS
    }

    /// What the user said first and last.
    pub(super) fn task(&self) -> (&str, &str) {
        (&self.kept.first, &self.kept.last)
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn measured(&mut self, tokens: u64, fixed: u64) {
        let before = self.window.replace(Window { tokens, fixed });
        let counted = before.map_or(0, |window| window.fixed);
        self.tokens = self.tokens.saturating_sub(counted).saturating_add(fixed);
        // Another model may take what the last one refused.
        if before.is_some_and(|window| window.tokens != tokens) {
            self.ceiling = None;
        }
    }

    /// What was refused was too long by some amount that nobody told.
    pub(super) fn overflow(&mut self) {
        self.overflowed = true;
        let refused = (self.tokens - self.tokens / 4).max(SMALLEST_CEILING);
        self.ceiling = Some(self.ceiling.map_or(refused, |ceiling| ceiling.min(refused)));
    }

    /// The conversation grows.
    pub(super) fn said(&mut self, blocks: &[Block]) {
        self.tokens = self.tokens.saturating_add(tokens_of(blocks));
    }

    /// It shrinks.
    pub(super) fn unsaid(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// An answer came, and perhaps a count. A server that counts much less than there is does not count it all.
    pub(super) fn answered(&mut self, answer: &[Block], usage: &Usage) {
        self.said(answer);
        if usage.total() > 0 {
            self.tokens = usage.total().max(self.tokens / 2);
        }
        self.barren = false;
    }

    pub(super) fn attempt(&mut self) {
        self.summarising = true;
        self.attempts += 1;
    }

    pub(super) fn hopeless(&mut self) {
        self.attempts = COMPACTION_ATTEMPTS;
    }

    /// The conversation became `blocks`; `answers` of it are gone.
    pub(super) fn compacted(&mut self, blocks: &[Block], answers: usize, summary: &str) {
        self.tokens = self.fixed().saturating_add(tokens_of(blocks));
        self.compactions += 1;
        self.gone += answers;
        self.attempts = 0;
        self.barren = true;
        self.overflowed = false;
        self.requested = false;
        summary.clone_into(&mut Arc::make_mut(&mut self.kept).summary);
    }

    /// The model is told something by its user or a client.
    pub(super) fn heard(&mut self, said: &[Block]) {
        let kept = Arc::make_mut(&mut self.kept);
        let words = |block: &Block| match block {
            Block::Content(content) => Some(text_of(std::slice::from_ref(content))),
            _ => None,
        };
        let words: Vec<_> = said.iter().filter_map(words).collect();
        if !words.is_empty() {
            kept.last = cut(&words.join("\n"), KEPT_WORDS_BYTES);
            if kept.first.is_empty() {
                kept.first.clone_from(&kept.last);
            }
        }
        for block in said {
            if let Block::System { text } = block {
                kept.instructions.push(cut(text, KEPT_WORDS_BYTES));
            }
        }
        let many = kept.instructions.len().saturating_sub(KEPT_INSTRUCTIONS);
        kept.instructions.drain(..many);
    }

    /// A file was changed.
    pub(super) fn touched(&mut self, path: &str) {
        let kept = Arc::make_mut(&mut self.kept);
        kept.files.retain(|known| known != path);
        kept.files.push(cut(path, 500));
        let many = kept.files.len().saturating_sub(KEPT_FILES);
        kept.files.drain(..many);
    }

    /// A skill's body was read. The same part again takes the place of what it was.
    pub(super) fn follows(&mut self, read: SkillRead) {
        let kept = Arc::make_mut(&mut self.kept);
        kept.skills.retain(|known| known.part != read.part);
        kept.skills.push(read);
        let mut bytes: usize = kept.skills.iter().map(|read| read.text.len()).sum();
        while bytes > KEPT_SKILLS_BYTES {
            bytes -= kept.skills.remove(0).text.len();
        }
    }
}

/// Tokens of what is said, about.
pub(super) fn tokens_of(blocks: &[Block]) -> u64 {
    blocks.iter().map(block_tokens).fold(0, u64::saturating_add)
}

fn block_tokens(block: &Block) -> u64 {
    match block {
        Block::Content(content) => content_tokens(std::slice::from_ref(content)),
        Block::System { text } => text_tokens(text),
        Block::Thinking { thinking, signature } => {
            text_tokens(thinking) + signature.as_deref().map_or(0, text_tokens)
        }
        Block::RedactedThinking { data } => text_tokens(data),
        Block::ToolUse { name, input, .. } => {
            let input = serde_json::to_string(input).expect("a map has string keys only");
            text_tokens(name) + text_tokens(&input)
        }
        Block::ToolResult { content, .. } => content_tokens(content),
    }
}

/// Tokens of content, about.
pub(super) fn content_tokens(content: &[ContentBlock]) -> u64 {
    let of = |block: &ContentBlock| match block {
        ContentBlock::Text { text } => text_tokens(text),
        ContentBlock::Image { .. } => IMAGE_TOKENS,
        ContentBlock::Document { source: DocumentSource::Base64 { data, .. }, .. } => {
            IMAGE_TOKENS.max(data.len() as u64 / DOCUMENT_TOKEN_BYTES)
        }
        ContentBlock::Document { source: DocumentSource::Text { data, .. }, .. } => {
            text_tokens(data)
        }
        ContentBlock::Document { .. } => IMAGE_TOKENS,
        ContentBlock::SearchResult { .. } => text_tokens(&text_of(std::slice::from_ref(block))),
    };
    content.iter().map(of).fold(0, u64::saturating_add)
}

/// Tokens of a text, about, with what sets it apart from its neighbours.
pub(super) fn text_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(TOKEN_BYTES) + 4
}

/// The beginning and the end of a text, in at most `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = format!(" [… {} bytes cut …] ", text.len() - most);
    let Some(room) = most.checked_sub(mark.len()) else {
        return text[..text.floor_char_boundary(most)].to_owned();
    };
    let head = &text[..text.floor_char_boundary(room - room / 3)];
    let tail = &text[text.ceil_char_boundary(text.len() - room / 3)..];
    format!("{head}{mark}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_keeps_both_ends_and_its_bound() {
        let check = |text: &str, most: usize, expected: &str| {
            let got = cut(text, most);
            assert_eq!(got, expected);
            assert!(got.len() <= most, "{} bytes", got.len());
        };
        check("short", 5, "short");
        check("ééé", 3, "é");
        let long = format!("{}{}", "a".repeat(50), "z".repeat(50));
        check(&long, 40, &format!("{} [… 60 bytes cut …] {}", "a".repeat(11), "z".repeat(5)));
        for most in 0..120 {
            assert!(cut(&"☃".repeat(40), most).len() <= most, "{most}");
        }
    }

    #[test]
    fn a_count_that_cannot_be_all_is_not_believed() {
        let check = |counted: u64, expected: u64| {
            let mut context = Context::default();
            context.said(&[Block::System { text: "x".repeat(3 * 996) }]);
            let usage = Usage { input_tokens: counted, ..Usage::default() };
            context.answered(&[], &usage);
            assert_eq!(context.tokens(), expected, "{counted}");
        };
        check(0, 1000);
        check(700, 700);
        check(3, 500);
        check(4000, 4000);
    }
}
