//! The view for people: the model's words on standard output; calls, errors and what is going on on standard error.
//!
//! On a terminal, words come as the model says them and the last line tells what is going on. Elsewhere messages come
//! whole, and nothing is ever redrawn.

mod doing;
mod lines;

use super::calls::Call;
use super::speech::Speech;
use super::tally::{Outcome, Tally};
use super::{Preview, Settings};
use crate::cli::output::{Output, OutputError};
use crate::cli::terminal::Paint;
use crate::clock::Timestamp;
use crate::event::{Event, EventBody, RetryStatus, StopReason, text_of};
use crate::id::EventId;
use crate::runtime::Changes;
use doing::Doing;
use lines::Lines;

/// Back to the start of the line, and nothing on it.
const CLEAR_LINE: &str = "\r\x1b[2K";
/// To the line above, and nothing on it.
const CLEAR_LINE_ABOVE: &str = "\x1b[1A\r\x1b[2K";

/// The view.
pub(super) struct TextView {
    settings: Settings,
    lines: Lines,
    speech: Speech,
    doing: Doing,
    /// What the screen's last whole line was.
    last: Last,
    /// A message was written to standard output.
    has_spoken: bool,
    /// The line that says what is going on stands on the screen.
    status_shown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Line,
    Message,
}

impl TextView {
    pub(super) fn new(settings: Settings) -> Self {
        let paint = Paint { color: settings.facts.talk_has_color(settings.color) };
        let lines = Lines::new(paint, &settings);
        Self {
            lines,
            settings,
            speech: Speech::default(),
            doing: Doing::default(),
            last: Last::Nothing,
            has_spoken: false,
            status_shown: false,
        }
    }

    /// Shows an event; `tally` is as of before it.
    pub(super) fn event(
        &mut self,
        tally: &Tally,
        event: &Event,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        self.doing.event(&event.body);
        let line = match &event.body {
            EventBody::AgentMessage { content } => {
                return self.message(&event.id, &text_of(content), out);
            }
            EventBody::Thinking { thinking, .. } if !self.doing.thought_was_shown() => {
                self.lines.thought(thinking)
            }
            EventBody::AgentToolResult { tool_use_id: id, content, is_error }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error } => {
                self.lines.call(tally.call(id), event.created_at, content, *is_error)
            }
            EventBody::Compacted { before, after, by, .. } => {
                Some(self.lines.compacted(*before, *after, *by))
            }
            EventBody::ContextTrimmed { tool_use_ids } => {
                Some(self.lines.trimmed(tool_use_ids.len()))
            }
            EventBody::EgressRefused { target, rule, .. } => {
                Some(self.lines.unreached(target, rule))
            }
            EventBody::ProtectedMade { path, set_aside: Some(aside), .. } => {
                Some(self.lines.set_aside(path, aside))
            }
            EventBody::Unsealed { message } => Some(self.lines.unsealed(message)),
            EventBody::SandboxReady { tier, layers } => self.lines.sandbox(tier, layers),
            EventBody::SandboxFailed { message } => {
                return self.important(&self.lines.no_sandbox(message), out);
            }
            EventBody::SessionError { error } => {
                if tally.sandbox_failure().is_some_and(|shown| error.message.contains(shown)) {
                    return Ok(());
                }
                let line = self.lines.error(error);
                return match error.retry_status {
                    RetryStatus::Retrying => self.progress(&line, out),
                    RetryStatus::Exhausted | RetryStatus::Terminal => self.important(&line, out),
                };
            }
            EventBody::UserInterrupt { .. } if tally.outcome().is_none() => {
                Some(self.lines.stopping())
            }
            EventBody::StatusIdle { stop_reason, stop_details } => match stop_reason {
                StopReason::RequiresAction { event_ids } if !self.settings.answered => {
                    let text = self.lines.waiting(&event.session, event_ids, tally);
                    return self.important(&text, out);
                }
                StopReason::Refusal => {
                    return self.important(&self.lines.refusal(stop_details.as_ref()), out);
                }
                StopReason::BudgetReached => {
                    return self.important(&self.lines.budget_reached(), out);
                }
                StopReason::RequiresAction { .. }
                | StopReason::EndTurn
                | StopReason::RetriesExhausted => None,
            },
            _ => None,
        };
        match line {
            Some(line) => self.progress(&line, out),
            None => Ok(()),
        }
    }

    fn message(&mut self, id: &EventId, text: &str, out: &mut Output) -> Result<(), OutputError> {
        self.make_room(out)?;
        if !self.speech.is_live(id) {
            if text.trim().is_empty() {
                return Ok(());
            }
            self.begin_message(id, out)?;
        }
        self.speech.complete(text, out)
    }

    fn begin_message(&mut self, id: &EventId, out: &mut Output) -> Result<(), OutputError> {
        self.speech.end_line(out)?;
        // A blank line between messages; on one screen, also between talk and a message.
        if self.last == Last::Line && self.settings.facts.one_screen() {
            out.talk("\n")?;
        } else if self.has_spoken {
            out.data("\n")?;
        }
        self.last = Last::Message;
        self.has_spoken = true;
        self.speech.begin(id);
        Ok(())
    }

    /// Shows a piece of what is on its way, where there is a terminal to show it on.
    pub(super) fn preview(
        &mut self,
        preview: &Preview,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        let facts = self.settings.facts;
        if !facts.stdout_is_tty && !facts.can_redraw() {
            return Ok(());
        }
        if let Some(thought) = self.doing.preview(preview)
            && let Some(line) = self.lines.thought(&thought)
        {
            self.progress(&line, out)?;
        }
        match preview {
            Preview::Message { event, text, .. } if facts.stdout_is_tty => {
                self.make_room(out)?;
                if !self.speech.is_live(event) {
                    self.begin_message(event, out)?;
                }
                self.speech.piece(text, out)
            }
            Preview::Message { .. } | Preview::Thinking { .. } | Preview::Progress { .. } => Ok(()),
            Preview::ToolUse { .. } => self.speech.end_line(out),
            Preview::Discarded => {
                if self.speech.discard(out)? {
                    self.last = Last::Line;
                    out.talk(self.lines.discarded())?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn previews_lost(&mut self) {
        self.speech.lost();
    }

    /// Redraws the last line, unless words stand there.
    pub(super) fn tick(
        &mut self,
        tally: &Tally,
        now: Timestamp,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        let facts = self.settings.facts;
        let busy_line = facts.stdout_is_tty && self.speech.is_mid_line();
        if !facts.can_redraw() || self.settings.quiet || busy_line || tally.outcome().is_some() {
            return Ok(());
        }
        let Some((label, since)) = self.doing.now(tally, &self.lines) else { return Ok(()) };
        self.status_shown = true;
        out.talk(CLEAR_LINE.to_owned() + &self.lines.status(&label, since, now))
    }

    /// Shows that a typed line was heard, in place of its echo behind what is going on. Where words stand, the echo stays.
    pub(super) fn heard(&mut self, line: &str, out: &mut Output) -> Result<(), OutputError> {
        if !std::mem::take(&mut self.status_shown) {
            return Ok(());
        }
        out.talk(CLEAR_LINE_ABOVE)?;
        let text = self.lines.heard(line);
        self.progress(&text, out)
    }

    /// Asks whether a call may run.
    pub(super) fn question(
        &mut self,
        call: Option<&Call>,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        self.important(&self.lines.question(call), out)
    }

    /// What the run came to.
    pub(super) fn finish(
        &mut self,
        tally: &Tally,
        outcome: Outcome,
        changes: &Changes,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        self.make_room(out)?;
        self.speech.end_line(out)?;
        if self.settings.quiet {
            return Ok(());
        }
        if self.last != Last::Nothing {
            out.talk("\n")?;
        }
        out.talk(self.lines.summary(tally, outcome, changes))
    }

    /// Takes the line that says what is going on off the screen.
    fn make_room(&mut self, out: &mut Output) -> Result<(), OutputError> {
        if std::mem::take(&mut self.status_shown) { out.talk(CLEAR_LINE) } else { Ok(()) }
    }

    /// Lines that `--quiet` keeps back.
    fn progress(&mut self, text: &str, out: &mut Output) -> Result<(), OutputError> {
        if self.settings.quiet { Ok(()) } else { self.important(text, out) }
    }

    /// Lines that are always shown; they end with a line end.
    fn important(&mut self, text: &str, out: &mut Output) -> Result<(), OutputError> {
        self.make_room(out)?;
        self.speech.end_line(out)?;
        if self.last == Last::Message && self.settings.facts.one_screen() {
            out.talk("\n")?;
        }
        self.last = Last::Line;
        out.talk(text)
    }
}
