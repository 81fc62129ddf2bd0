//! The one vocabulary of events, durable and on the wire.
//!
//! Owns: the envelope, every body, the content blocks, the token counts.
//! Does not: decide what happens next (`session`), store (`store`) or show (`cli`).
//! Invariants: a body's JSON has the field names of the Managed Agents protocol; [`EventBody::audience`] is the
//! single place where visibility is decided; every variant's JSON is pinned by a snapshot.
//! How to add one: a variant in `body.rs`, its arms in `kind.rs`, its snapshot, its arm in `session::state`.

mod body;
mod budget;
mod content;
mod error;
mod kind;
#[cfg(test)]
mod tests;
mod usage;
mod verdict;

pub use body::{CompactionReason, EventBody, NoteSubject, RefusalDetails, StopReason, Summarised};
pub use budget::{Budget, BudgetKind, Cost, Money, Share, Used};
pub use content::{
    Citations, ContentBlock, DocumentSource, ImageSource, SearchText, SearchTextKind, text_of,
};
pub use error::{ErrorDetail, ErrorKind, RetryStatus};
pub use kind::Audience;
pub use usage::{Activity, CacheCreation, ServerToolUse, Usage, UsageSnapshot, millis_between};
pub use verdict::{Confirmation, Evaluation, Judgement, Permission, ReasonCode};

use crate::clock::Timestamp;
use crate::id::{EventId, SessionId};

/// Position of an event in its session's log: dense, from 1.
pub type Seq = u64;

/// One committed fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the session's log, given by the store.
    pub seq: Seq,
    /// Minted by the producer, so that a preview can carry it before the commit.
    pub id: EventId,
    /// The session whose log this is.
    pub session: SessionId,
    /// When the producer made it.
    pub created_at: Timestamp,
    /// When the session took it up; `None` while it waits in the queue. The one field that is ever updated.
    pub processed_at: Option<Timestamp>,
    /// What happened.
    pub body: EventBody,
}

impl Event {
    /// The event as one JSON object on one line, as it is stored: envelope first, then the body's fields.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        let body = serde_json::to_string(&self.body).expect("an event body has string keys only");
        let processed = match self.processed_at {
            Some(at) => format!("\"{}\"", rfc3339(at)),
            None => "null".to_owned(),
        };
        format!(
            r#"{{"seq":{},"id":"{}","session_id":"{}","created_at":"{}","processed_at":{},{}"#,
            self.seq,
            self.id,
            self.session,
            rfc3339(self.created_at),
            processed,
            &body[1..],
        )
    }
}

/// A fact that is not in the log yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// See [`Event::id`].
    pub id: EventId,
    /// See [`Event::created_at`].
    pub created_at: Timestamp,
    /// See [`Event::processed_at`].
    pub processed_at: Option<Timestamp>,
    /// See [`Event::body`].
    pub body: EventBody,
}

impl NewEvent {
    /// A fact that the session itself produced: processed at once.
    #[must_use]
    pub fn now(at: Timestamp, body: EventBody) -> Self {
        Self { id: EventId::mint(at), created_at: at, processed_at: Some(at), body }
    }

    /// An input that waits until the session takes it up.
    #[must_use]
    pub fn queued(at: Timestamp, body: EventBody) -> Self {
        Self { id: EventId::mint(at), created_at: at, processed_at: None, body }
    }
}

/// RFC 3339 in UTC with exactly three decimals: one width, one spelling.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}
