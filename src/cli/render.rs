//! From events to what is printed: words for people, or JSON for scripts.
//!
//! Owns: the three output formats, and the fold ([`Tally`]) behind the summary and the exit code. Does not: wait, read
//! a clock or follow a session; the caller feeds events, previews and ticks. In text, the model's messages are data
//! and everything else is talk. Invariant: with previews or without, the same messages end up on the screen.

mod calls;
mod json;
mod speech;
mod tally;
mod text;
mod words;

#[cfg(test)]
mod tests;

use clap::ColorChoice;

use super::args::OutputFormat;
use super::output::{Output, OutputError};
use super::terminal::Facts;
use crate::clock::Timestamp;
use crate::event::{Audience, Event};
use crate::id::EventId;
use crate::runtime::{Changes, Preview};

pub use calls::Call;
pub use tally::{Outcome, Tally};
pub(super) use words::plural;

/// How a run is shown.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is printed.
    pub format: OutputFormat,
    /// The terminal.
    pub facts: Facts,
    /// `--color`.
    pub color: ColorChoice,
    /// Messages and errors only.
    pub quiet: bool,
    /// Internal events are printed too, where events are printed.
    pub internal: bool,
    /// Somebody answers the calls that wait: there is no need to explain how to.
    pub answered: bool,
    /// How to call casemate with the same data directory, such as `casemate --data-dir /d`.
    pub program: String,
    /// Paths below it are shown without it.
    pub workspace: Option<String>,
}

/// Prints a run as it goes.
pub struct Renderer {
    view: View,
    tally: Tally,
    out: Output,
}

enum View {
    Text(Box<text::TextView>),
    Json,
    StreamJson { internal: bool },
}

impl Renderer {
    /// A renderer before the first event.
    #[must_use]
    pub fn new(settings: Settings, out: Output) -> Self {
        let tally = Tally::new(settings.workspace.clone());
        let view = match settings.format {
            OutputFormat::Text => View::Text(Box::new(text::TextView::new(settings))),
            OutputFormat::Json => View::Json,
            OutputFormat::StreamJson => View::StreamJson { internal: settings.internal },
        };
        Self { view, tally, out }
    }

    /// Takes up an event from before this run, without printing it: results of calls that waited find their call.
    pub fn recall(&mut self, event: &Event) {
        self.tally.recall(event);
    }

    /// Prints the next event. Every event goes here, internal ones too.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn event(&mut self, event: &Event) -> Result<(), OutputError> {
        match &mut self.view {
            View::Text(text) => text.event(&self.tally, event, &mut self.out)?,
            View::Json => {}
            View::StreamJson { internal } => {
                if *internal || event.body.audience() == Audience::Public {
                    self.out.data(event.to_json_line() + "\n")?;
                }
            }
        }
        self.tally.apply(event);
        self.out.flush()
    }

    /// Shows a piece of an answer that is on its way.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn preview(&mut self, preview: &Preview) -> Result<(), OutputError> {
        let View::Text(text) = &mut self.view else { return Ok(()) };
        text.preview(preview, &mut self.out)?;
        self.out.flush()
    }

    /// Notes that previews were lost: the message on its way is completed when its event comes.
    pub fn previews_lost(&mut self) {
        if let View::Text(text) = &mut self.view {
            text.previews_lost();
        }
    }

    /// Redraws the line that says what is going on. To be called about ten times a second.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn tick(&mut self, now: Timestamp) -> Result<(), OutputError> {
        let View::Text(text) = &mut self.view else { return Ok(()) };
        text.tick(&self.tally, now, &mut self.out)?;
        self.out.flush()
    }

    /// Shows that a line which was typed while the session works was heard.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn heard(&mut self, line: &str) -> Result<(), OutputError> {
        let View::Text(text) = &mut self.view else { return Ok(()) };
        text.heard(line, &mut self.out)?;
        self.out.flush()
    }

    /// Prints what the run came to. `files_changed` as the caller knows it, or what the tools wrote.
    ///
    /// A turn that has not ended counts as interrupted: whoever watched it has stopped doing so.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn finish(&mut self, changes: Option<Changes>) -> Result<Outcome, OutputError> {
        let changes = changes.unwrap_or_else(|| Changes {
            files: self.tally.files_written().iter().cloned().collect(),
            ..Changes::default()
        });
        let outcome = self.tally.outcome().unwrap_or(Outcome::Interrupted);
        match &mut self.view {
            View::Text(text) => text.finish(&self.tally, outcome, &changes, &mut self.out)?,
            View::Json => self.out.data(json::report(&self.tally, outcome, &changes) + "\n")?,
            View::StreamJson { .. } => {}
        }
        self.out.flush()?;
        Ok(outcome)
    }

    /// What the run came to so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Asks whether this call may run; the answer is typed behind it.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn question(&mut self, call: &EventId) -> Result<(), OutputError> {
        let View::Text(text) = &mut self.view else { return Ok(()) };
        text.question(self.tally.call(call), &mut self.out)?;
        self.out.flush()
    }

    /// Ends the line of a question that gets no answer.
    ///
    /// # Errors
    /// Those of [`Output`].
    pub fn leave_question(&mut self) -> Result<(), OutputError> {
        self.out.talk("\n")?;
        self.out.flush()
    }
}
