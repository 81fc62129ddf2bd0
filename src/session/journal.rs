//! A driver's side of the log: it appends what it knows, and applies what clients appended before.

use super::driver::{DriveError, Driver};
use crate::event::{Event, EventBody, NewEvent, Seq};
use crate::limits::SCAN_PAGE;
use crate::store::{Append, Author, StoreError};

impl Driver {
    pub(super) fn at_once(&self, bodies: Vec<EventBody>) -> Vec<NewEvent> {
        let now = self.parts.clock.now();
        bodies.into_iter().map(|body| NewEvent::now(now, body)).collect()
    }

    pub(super) async fn commit_bodies(&mut self, bodies: Vec<EventBody>) -> Result<(), DriveError> {
        let facts = self.at_once(bodies);
        self.commit(facts).await
    }

    /// What was noticed beside the steps.
    pub(super) fn news(&mut self) -> Vec<NewEvent> {
        let mut news: Vec<_> = self.guest.news().collect();
        news.extend(self.attempts.in_background(self.guest.report()));
        self.at_once(news)
    }

    /// Appends the facts and applies them, together with what clients appended before them.
    pub(super) async fn commit(&mut self, facts: Vec<NewEvent>) -> Result<(), DriveError> {
        // First, because it came first.
        let mut news = self.news();
        news.extend(facts);
        self.append(news, None).await
    }

    /// Appends the facts only if nobody said anything meanwhile; otherwise listens, and is to decide again.
    pub(super) async fn commit_here(&mut self, facts: Vec<NewEvent>) -> Result<bool, DriveError> {
        match self.append(facts, Some(self.session.head())).await {
            Ok(()) => Ok(true),
            Err(DriveError::Store(StoreError::Moved { .. })) => {
                self.catch_up(None)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn append(&mut self, facts: Vec<NewEvent>, at: Option<Seq>) -> Result<(), DriveError> {
        if facts.is_empty() {
            return Ok(());
        }
        let now = self.parts.clock.now();
        let ends_wait = facts.iter().flat_map(|fact| match &fact.body {
            EventBody::TakenUp { event_ids } | EventBody::Flushed { event_ids } => &event_ids[..],
            _ => &[],
        });
        let unmarked = ends_wait.filter(|id| self.session.is_unmarked(id));
        let processed = unmarked.map(|id| (id.clone(), now)).collect();
        let append = Append { events: facts, processed, at, working: false };
        let events = self.parts.store.append(&self.id, Author::Driver(self.epoch), append).await?;
        let first = events.first().map_or(0, |event| event.seq);
        if first != self.session.head() + 1 {
            self.catch_up(Some(first))?;
        }
        events.iter().for_each(|event| self.session.apply(event));
        Ok(())
    }

    /// Applies what others appended, up to but not including `until`.
    pub(super) fn catch_up(&mut self, until: Option<u64>) -> Result<(), DriveError> {
        loop {
            let next = self.session.head() + 1;
            let room =
                until.map_or(SCAN_PAGE, |until| usize::try_from(until - next).unwrap_or(SCAN_PAGE));
            let wanted = room.min(SCAN_PAGE);
            if wanted == 0 {
                return Ok(());
            }
            let page: Vec<Event> =
                self.parts.store.reader().scan(&self.id, self.session.head(), wanted)?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                if self.lineage.holds(event.seq) {
                    self.session.apply(&event);
                } else {
                    self.session.skip(&event);
                }
            }
        }
    }
}
