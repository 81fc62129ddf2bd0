//! Pieces of an answer, and how far calls are, on their way to whoever watches: bounded and lossy. Events never go through
//! here.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;

use crate::event::Seq;
use crate::id::EventId;
use crate::limits::PREVIEW_QUEUE;

/// What is not committed yet.
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
    /// A call that runs is so far.
    Progress {
        /// The call.
        call: EventId,
        /// In words, bounded; not neutral for a terminal.
        said: String,
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

/// The sending end. Nobody listening costs nothing, memory neither.
#[derive(Debug, Clone, Default)]
pub struct Previews(Arc<Mutex<Option<broadcast::Sender<Placed>>>>);

impl Previews {
    /// Shows a piece to whoever listens. `after` is the last event of the log.
    pub fn send(&self, after: Seq, preview: Preview) {
        let mut sender = self.lock();
        if let Some(listened) = &*sender
            && listened.send(Placed { after, preview }).is_err()
        {
            *sender = None;
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Placed> {
        self.lock().get_or_insert_with(|| broadcast::Sender::new(PREVIEW_QUEUE)).subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Option<broadcast::Sender<Placed>>> {
        self.0.lock().expect("nothing panics under this lock")
    }
}
