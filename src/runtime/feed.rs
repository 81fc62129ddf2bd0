//! A reader's way through a session: durable events by cursor, previews as they come and only if there is time. A preview
//! is yielded after the start of its request and before its end, or not at all.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use super::drivers::{Drivers, Fault};
use crate::event::{Event, EventBody, Seq};
use crate::id::SessionId;
use crate::limits::SCAN_PAGE;
use crate::session::{DriveError, Placed, Preview};
use crate::store::{Store, StoreError};

/// What a feed yields.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all that a feed yields are events")]
pub enum FeedItem {
    /// A committed fact. None is missed, none repeated, in order.
    Event(Event),
    /// A piece of an answer. May be lost.
    Preview(Preview),
    /// The session was deleted: there is nothing more to come.
    Deleted,
}

/// Why a feed ends.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The log cannot be read.
    #[error("could not read the session's log")]
    Store(#[from] StoreError),
    /// Nobody works on the session any more.
    #[error("the session stopped")]
    Driver(#[source] Arc<DriveError>),
}

/// A reader's place in a session.
pub struct Feed {
    store: Store,
    session: SessionId,
    cursor: Seq,
    page: VecDeque<Event>,
    /// How far the log may be yielded before previews are looked for again.
    bound: Seq,
    /// There is less in the log than there was.
    gone: bool,
    /// The last end of a request that was yielded: previews from before are too late.
    ended: Seq,
    head: watch::Receiver<Seq>,
    previews: broadcast::Receiver<Placed>,
    /// A preview that comes after events which are not yielded yet.
    held: Option<Placed>,
    fault: watch::Receiver<Fault>,
}

impl Feed {
    pub(super) fn open(
        store: &Store,
        drivers: &Drivers,
        session: &SessionId,
        from: Seq,
    ) -> Result<Self, StoreError> {
        let (previews, fault) = drivers.watch(session);
        Ok(Self {
            store: store.clone(),
            session: session.clone(),
            cursor: from,
            page: VecDeque::new(),
            bound: from,
            gone: false,
            ended: 0,
            held: None,
            head: store.head(session)?,
            previews: previews.subscribe(),
            fault,
        })
    }

    /// The next item; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// If the log cannot be read, or the driver had to stop.
    pub async fn next(&mut self) -> Result<FeedItem, FeedError> {
        loop {
            if let Some(event) = self.next_committed()? {
                return Ok(FeedItem::Event(event));
            }
            // What the log held at this moment, and the previews that were sent before it did.
            let head = *self.head.borrow_and_update();
            if let Some(preview) = self.next_preview() {
                return Ok(FeedItem::Preview(preview));
            }
            let wanted = self.held.as_ref().map_or(head, |held| held.after);
            if wanted > self.cursor && !self.gone {
                self.bound = wanted;
                continue;
            }
            if self.head.has_changed().is_err() && self.is_deleted()? {
                return Ok(FeedItem::Deleted);
            }
            let fault = self.fault.borrow_and_update().clone();
            if let Some(error) = fault {
                return Err(FeedError::Driver(error));
            }
            tokio::select! {
                biased;
                preview = self.previews.recv() => match preview {
                    Ok(placed) => self.held = Some(placed),
                    // What was lost is in the log as soon as it is whole.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => self.moved().await,
                },
                // A closed head is looked into above.
                _ = self.head.changed() => {
                    // The same commit woke the driver: the next request goes out before the last step is shown.
                    tokio::task::yield_now().await;
                }
                () = changed(&mut self.fault) => {}
            }
        }
    }

    async fn moved(&mut self) {
        tokio::select! {
            _ = self.head.changed() => {}
            () = changed(&mut self.fault) => {}
        }
    }

    /// Whether the log is gone rather than its store.
    fn is_deleted(&self) -> Result<bool, StoreError> {
        Ok(self.store.reader().session(&self.session)?.is_none())
    }

    fn next_committed(&mut self) -> Result<Option<Event>, StoreError> {
        if self.cursor >= self.bound {
            return Ok(None);
        }
        if self.page.is_empty() {
            self.page = self.store.reader().scan(&self.session, self.cursor, SCAN_PAGE)?.into();
        }
        let event = self.page.pop_front();
        match &event {
            Some(event) => {
                self.cursor = event.seq;
                if matches!(event.body, EventBody::ModelRequestEnd { .. }) {
                    self.ended = event.seq;
                }
            }
            None => (self.bound, self.gone) = (self.cursor, true),
        }
        Ok(event)
    }

    /// The next preview whose place is reached; one whose place is passed is dropped, one of a later place is held.
    fn next_preview(&mut self) -> Option<Preview> {
        loop {
            let placed = match self.held.take() {
                Some(held) => held,
                None => match self.previews.try_recv() {
                    Ok(placed) => placed,
                    Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
                    Err(_) => return None,
                },
            };
            if placed.after > self.cursor {
                self.held = Some(placed);
                return None;
            }
            if placed.after >= self.ended {
                return Some(placed.preview);
            }
        }
    }
}

/// Resolves when the value changed, and never if nobody can change it any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
