//! Pieces of an answer on their way to whoever watches: bounded and lossy. Events never go through here.

use tokio::sync::broadcast;

use crate::event::Seq;
use crate::id::EventId;
use crate::limits::PREVIEW_QUEUE;

/// A piece of an answer that is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preview {
    /// The model thinks; the text is for the owner's eyes only.
    Thinking {
        /// The id that the `agent.thinking` event will have.
        event: EventId,
        /// More text; may be empty.
        text: String,
    },
    /// A message grows. Together the pieces are a prefix of the event that will be committed.
    Message {
        /// The id that the `agent.message` event will have.
        event: EventId,
        /// Bytes of its text that came before: a reader sees what it missed.
        at: usize,
        /// More text.
        text: String,
    },
    /// The model is writing a tool call.
    ToolUse {
        /// The tool.
        name: String,
    },
    /// The answer failed: what was shown of it will not be committed.
    Discarded,
}

/// A piece and its place: it comes after that event of the log, and before the end of the request that begins there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The last event that was committed when it was sent.
    pub after: Seq,
    /// The piece.
    pub preview: Preview,
}

/// The sending end. Nobody listening costs nothing.
#[derive(Debug, Clone)]
pub struct Previews(broadcast::Sender<Placed>);

impl Default for Previews {
    fn default() -> Self {
        Self(broadcast::Sender::new(PREVIEW_QUEUE))
    }
}

impl Previews {
    /// Shows a piece to whoever listens. `after` is the last event of the log.
    pub fn send(&self, after: Seq, preview: Preview) {
        // The only error is that nobody listens.
        drop(self.0.send(Placed { after, preview }));
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Placed> {
        self.0.subscribe()
    }
}
