//! The model's messages on standard output: in pieces as they come, or whole.

use crate::cli::output::{Output, OutputError};
use crate::cli::terminal::Neutraliser;
use crate::id::EventId;

/// A message on its way to the screen.
#[derive(Debug, Default)]
pub(super) struct Speech {
    live: Option<Live>,
    /// Whether the last thing on the line is a piece of a message.
    mid_line: bool,
}

#[derive(Debug)]
struct Live {
    event: EventId,
    /// What was taken up so far, as the model wrote it.
    taken: String,
    /// Pieces are missing: what comes now does not continue `taken`.
    gap: bool,
    neutraliser: Neutraliser,
    /// Line ends that are written once something follows them.
    held: String,
    /// Something was written.
    begun: bool,
}

impl Live {
    fn new(event: EventId) -> Self {
        let (taken, held) = (String::new(), String::new());
        Self { event, taken, gap: false, neutraliser: Neutraliser::default(), held, begun: false }
    }

    /// What of the next piece is written now: neutral, without blank lines at either end of the message.
    fn next(&mut self, piece: &str) -> String {
        self.taken.push_str(piece);
        let mut text = std::mem::take(&mut self.held) + &self.neutraliser.push(piece);
        if !self.begun {
            text = text.trim_start_matches('\n').to_owned();
        }
        self.held = text.split_off(text.trim_end_matches('\n').len());
        self.begun |= !text.is_empty();
        text
    }

    /// What was held back, if it is more than line ends.
    fn end(mut self) -> String {
        match self.neutraliser.finish() {
            "" => String::new(),
            last => self.held + last,
        }
    }
}

/// What of a committed message is still to be written.
enum Missing<'t> {
    /// All that follows what was shown; may be empty.
    Rest(&'t str),
    /// Something else was shown: the whole again.
    Whole,
}

impl Speech {
    /// Whether a piece of this message was taken up.
    pub(super) fn is_live(&self, event: &EventId) -> bool {
        self.live.as_ref().is_some_and(|live| live.event == *event)
    }

    /// Begins a message.
    pub(super) fn begin(&mut self, event: &EventId) {
        self.live = Some(Live::new(event.clone()));
    }

    /// Writes the next piece of the message that was begun.
    pub(super) fn piece(&mut self, piece: &str, out: &mut Output) -> Result<(), OutputError> {
        let Some(live) = self.live.as_mut().filter(|live| !live.gap) else { return Ok(()) };
        let text = live.next(piece);
        if !text.is_empty() {
            self.mid_line = true;
            out.data(text)?;
        }
        Ok(())
    }

    /// Notes that pieces were lost.
    pub(super) fn lost(&mut self) {
        if let Some(live) = &mut self.live {
            live.gap = true;
        }
    }

    /// Completes the message that was begun with what the committed text has beyond it.
    pub(super) fn complete(&mut self, text: &str, out: &mut Output) -> Result<(), OutputError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let rest = match missing(&live.taken, text) {
            Missing::Rest(rest) => {
                live.gap = false;
                rest
            }
            Missing::Whole => {
                *live = Live::new(live.event.clone());
                self.end_line(out)?;
                text
            }
        };
        self.piece(rest, out)?;
        let last = self.live.take().map(Live::end).unwrap_or_default();
        if !last.is_empty() {
            self.mid_line = true;
            out.data(last)?;
        }
        self.end_line(out)
    }

    /// Forgets the message that was begun; says whether any of it was shown.
    pub(super) fn discard(&mut self, out: &mut Output) -> Result<bool, OutputError> {
        let shown = self.live.take().is_some_and(|live| live.begun);
        self.end_line(out)?;
        Ok(shown)
    }

    /// Ends the line, so that something else can stand on the next.
    pub(super) fn end_line(&mut self, out: &mut Output) -> Result<(), OutputError> {
        if std::mem::take(&mut self.mid_line) { out.data("\n") } else { Ok(()) }
    }

    /// Whether the cursor stands behind a piece of a message.
    pub(super) fn is_mid_line(&self) -> bool {
        self.mid_line
    }
}

fn missing<'t>(taken: &str, text: &'t str) -> Missing<'t> {
    match text.strip_prefix(taken) {
        Some(rest) => Missing::Rest(rest),
        // The pieces may have had blanks at their end that the committed message lacks.
        None if taken.trim_end() == text.trim_end() => Missing::Rest(""),
        None => Missing::Whole,
    }
}
