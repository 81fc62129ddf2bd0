//! What is going on right now, for the line that is redrawn.

use super::lines::Lines;
use crate::cli::render::words::plural;
use crate::cli::render::{Preview, Tally};
use crate::clock::Timestamp;
use crate::event::EventBody;
use crate::id::EventId;
use crate::limits::MAX_LINE_CHARS;

/// What the previews of the request under way have shown.
#[derive(Debug, Default)]
pub(super) struct Doing {
    stage: Stage,
    /// The start of the thought that is being shown.
    thought: String,
    /// A thought of this request was shown before it was committed.
    thought_shown: bool,
    /// How far a call is, in words.
    progress: Option<(EventId, String)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing was heard yet.
    #[default]
    Asked,
    Thinking,
    Answering,
    Calling {
        name: String,
    },
    /// A summary is asked for.
    Compacting,
    /// The model's server is waited for.
    Waiting,
}

/// What the redrawn line says: the words, and what may be said beside them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) words: String,
    pub(super) aside: String,
}

impl Doing {
    /// Takes up an event.
    pub(super) fn event(&mut self, body: &EventBody) {
        match body {
            // Its request begins right after it.
            EventBody::CompactionStarted { .. } => self.stage = Stage::Compacting,
            EventBody::ModelRequestStart {} if self.stage == Stage::Compacting => {}
            EventBody::ModelRequestStart {} => *self = Self::default(),
            EventBody::ModelRequestEnd { .. } => self.stage = Stage::Asked,
            EventBody::StatusRescheduled {} => self.stage = Stage::Waiting,
            _ => {}
        }
    }

    /// Takes up a preview. Gives back the thought that has come to its end.
    pub(super) fn preview(&mut self, preview: &Preview) -> Option<String> {
        let stage = match preview {
            Preview::Thinking { text, .. } => {
                let room = MAX_LINE_CHARS.saturating_sub(self.thought.len());
                self.thought.push_str(&text[..text.floor_char_boundary(room)]);
                self.stage = Stage::Thinking;
                return None;
            }
            Preview::Message { .. } => Stage::Answering,
            Preview::ToolUse { name } => Stage::Calling { name: name.clone() },
            Preview::Progress { call, said } => {
                self.progress = Some((call.clone(), said.clone()));
                return None;
            }
            Preview::Discarded => {
                self.thought.clear();
                Stage::Asked
            }
        };
        self.stage = stage;
        let thought = std::mem::take(&mut self.thought);
        self.thought_shown |= !thought.is_empty();
        Some(thought).filter(|thought| !thought.is_empty())
    }

    /// Whether the request's thoughts were shown while they came.
    pub(super) fn thought_was_shown(&self) -> bool {
        self.thought_shown
    }

    /// What to say, and since when it is so.
    pub(super) fn now(&self, tally: &Tally, lines: &Lines) -> Option<(Label, Timestamp)> {
        let plain = |words: &str| Label { words: words.to_owned(), aside: String::new() };
        let mut running = tally.running();
        if let Some(first) = running.next() {
            let label = match running.count() {
                0 => Label {
                    words: format!("running {}:", first.name),
                    aside: self.progress_of(&first.id).unwrap_or_else(|| lines.subject(first)),
                },
                others => plain(&format!("running {}", plural(others + 1, "tool"))),
            };
            return Some((label, first.since));
        }
        let label = match &self.stage {
            Stage::Compacting => plain("compacting the conversation"),
            Stage::Waiting => plain("waiting for the model server"),
            Stage::Asked if tally.request_since().is_some() => plain("waiting for the model"),
            Stage::Asked => plain("working"),
            Stage::Thinking => {
                Label { words: "thinking".to_owned(), aside: self.last_words().to_owned() }
            }
            Stage::Answering => plain("answering"),
            Stage::Calling { name } => plain(&format!("writing a {name} call")),
        };
        Some((label, tally.request_since().or(tally.last_event_at())?))
    }

    fn progress_of(&self, call: &EventId) -> Option<String> {
        self.progress.as_ref().filter(|(of, _)| of == call).map(|(_, said)| said.clone())
    }

    /// The line of the thought that grows.
    fn last_words(&self) -> &str {
        self.thought.trim_end().lines().next_back().unwrap_or_default()
    }
}
