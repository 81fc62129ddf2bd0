//! A session's events: send, list.
//!
//! A list has the events in the order in which clients see them (see [`view`]), those that wait at its end. Its cursor
//! names a place of the log and what was shown of those that waited, so that pages neither repeat nor pass over anything
//! while the session goes on.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::body::Node;
use super::error::{Answer, ApiError};
use super::page::{Cursor, Page};
use super::path::Ids;
use super::query::Query;
use super::sessions::find;
use super::view::{self, wire};
use super::{App, JsonBody, input, json_text, stream};
use crate::clock::Timestamp;
use crate::event::{Event, Seq};
use crate::id::SessionId;
use crate::limits::{DESCENT_PAGE, EVENTS_PAGE_BYTES, SCAN_PAGE};
use crate::runtime::{Reader, StoreError};

/// Events of a page unless the client says otherwise, and at most.
const LIMIT: (usize, usize) = (100, 1000);

pub(super) async fn send(
    State(app): State<App>,
    Ids([id]): Ids<1>,
    JsonBody(body): JsonBody,
) -> Answer {
    let row = find(&app, &id)?;
    let inputs = input::events(&Node::root(&body))?;
    let submitted = app.runtime().submit_all(&row.id, &inputs).await;
    let events = submitted.map_err(|error| {
        let place = input::place_of(&inputs, &error);
        let error = ApiError::from(error);
        place.map_or(error.clone(), |place| error.at(&place))
    })?;
    let echoes: Vec<_> = events.iter().map(wire).collect();
    Ok(json_text(format!(r#"{{"data":[{}]}}"#, echoes.join(","))))
}

pub(super) async fn stream(
    State(app): State<App>,
    Ids([id]): Ids<1>,
    query: Query,
    headers: HeaderMap,
) -> Answer {
    let row = find(&app, &id)?;
    stream::open(&app, &row.id, &query, &headers)
}

pub(super) async fn list(State(app): State<App>, Ids([id]): Ids<1>, query: Query) -> Answer {
    let row = find(&app, &id)?;
    let wanted = Wanted::of(&query)?;
    let order = Order::of(&query)?;
    page(app, row.id, order, wanted, &query).await
}

/// The events of a thread, which has no filters.
pub(super) async fn list_all(app: App, id: SessionId, query: &Query) -> Answer {
    page(app, id, Order::Ascending, Wanted::default(), query).await
}

async fn page(app: App, id: SessionId, order: Order, wanted: Wanted, query: &Query) -> Answer {
    let list = format!("events {id} {}", order.as_str());
    let page = Page::of(query, &list, LIMIT.0, LIMIT.1)?;
    let place = page.cursor.as_ref().map(Place::of).transpose()?;
    // A filter may look through the whole of a log.
    let read = tokio::task::spawn_blocking(move || {
        let reader = app.runtime().reader();
        let mut walk =
            Walk { reader, id: &id, wanted, limit: page.limit, found: Vec::new(), bytes: 0 };
        let next = match order {
            Order::Ascending => walk.ascend(place.unwrap_or(Place::BEGIN))?,
            Order::Descending => walk.descend(place)?,
        };
        Ok::<_, ApiError>(body(&walk.found, next.map(|place| place.cursor(&list))))
    });
    read.await.expect("a read does not panic")
}

fn body(found: &[String], next: Option<Cursor>) -> Response {
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    json_text(format!(r#"{{"data":[{}],"next_page":{next}}}"#, found.join(",")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

impl Order {
    fn of(query: &Query) -> Result<Self, ApiError> {
        match query.one("order") {
            None | Some("asc") => Ok(Self::Ascending),
            Some("desc") => Ok(Self::Descending),
            Some(_) => Err(ApiError::field("order", "must be `asc` or `desc`")),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// Which events a list has.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// All if empty.
    types: HashSet<String>,
    gt: Option<Timestamp>,
    gte: Option<Timestamp>,
    lt: Option<Timestamp>,
    lte: Option<Timestamp>,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, ApiError> {
        let types = query.many("types");
        if let Some(unknown) = types.iter().find(|kind| !view::TYPES.contains(*kind)) {
            let shown: String = unknown.chars().take(80).collect();
            return Err(ApiError::field("types", format!("`{shown}` is no type of event")));
        }
        Ok(Self {
            types: types.into_iter().map(str::to_owned).collect(),
            gt: query.time("created_at[gt]")?,
            gte: query.time("created_at[gte]")?,
            lt: query.time("created_at[lt]")?,
            lte: query.time("created_at[lte]")?,
        })
    }

    /// The times are those at which events were processed: one that waits has none, and no bound holds it.
    fn has(&self, event: &Event) -> bool {
        let of_type = self.types.is_empty() || self.types.contains(event.body.kind());
        let bounds = [self.gt, self.gte, self.lt, self.lte];
        let within = match event.processed_at {
            None => bounds.iter().all(Option::is_none),
            Some(at) => {
                self.gt.is_none_or(|bound| at > bound)
                    && self.gte.is_none_or(|bound| at >= bound)
                    && self.lt.is_none_or(|bound| at < bound)
                    && self.lte.is_none_or(|bound| at <= bound)
            }
        };
        of_type && within
    }
}

/// A place between two events of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The place of the log at which the last event was shown.
    seq: Seq,
    /// How many of those that are shown there lie before this one.
    within: usize,
    /// Of the inputs that waited when the log ended at `seq`, the last that was shown: the later ones are still to be
    /// shown going up, the earlier ones going down.
    waited: Seq,
}

impl Place {
    const BEGIN: Self = Self { seq: 0, within: 0, waited: 0 };

    fn of(cursor: &Cursor) -> Result<Self, ApiError> {
        let mut parts = cursor.key.split('.').map(str::parse::<u64>);
        let mut part = || parts.next().and_then(Result::ok);
        let (seq, within, waited) = (part(), part(), part());
        let place = seq.zip(within).zip(waited).filter(|_| part().is_none());
        let ((seq, within), waited) =
            place.ok_or_else(|| ApiError::field("page", "is no cursor of this list"))?;
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        Ok(Self { seq, within, waited })
    }

    fn cursor(self, list: &str) -> Cursor {
        Cursor::after(list, format!("{}.{}.{}", self.seq, self.within, self.waited))
    }
}

/// A way through a session's events, until a page is full.
struct Walk<'a> {
    reader: &'a Reader,
    id: &'a SessionId,
    wanted: Wanted,
    limit: usize,
    found: Vec<String>,
    bytes: usize,
}

impl Walk<'_> {
    /// Takes an event; false if it belongs on the next page.
    fn take(&mut self, event: &Event) -> bool {
        if !self.wanted.has(event) {
            return true;
        }
        if self.is_full() {
            return false;
        }
        let line = wire(event);
        self.bytes += line.len();
        self.found.push(line);
        true
    }

    fn is_full(&self) -> bool {
        self.found.len() == self.limit || self.bytes >= EVENTS_PAGE_BYTES
    }

    /// The oldest first. What waits comes last, once the log was seen to its end: it waits there as long as nothing was
    /// appended since, because whatever takes it up appends.
    fn ascend(&mut self, from: Place) -> Result<Option<Place>, StoreError> {
        let Place { seq: mut seen, within: mut skip, mut waited } = from;
        loop {
            let page = self.reader.scan(self.id, seen, SCAN_PAGE)?;
            if page.is_empty() {
                let waiting = self.reader.queued(self.id)?;
                if !self.reader.scan(self.id, seen, 1)?.is_empty() {
                    continue;
                }
                for event in waiting.iter().filter(|event| event.seq > from.waited) {
                    if !self.take(event) {
                        return Ok(Some(Place { seq: seen, within: 0, waited }));
                    }
                    waited = event.seq;
                }
                return Ok(None);
            }
            for event in page {
                let seq = event.seq;
                let inputs = !view::inputs(&event.body).is_empty();
                let shown = view::shown(self.reader, self.id, event)?;
                for (at, event) in shown.iter().enumerate().skip(std::mem::take(&mut skip)) {
                    // On an earlier page already, when it waited.
                    let repeats = inputs && event.seq <= from.waited;
                    if !repeats && !self.take(event) {
                        return Ok(Some(Place { seq: seq - 1, within: at, waited }));
                    }
                }
                seen = seq;
            }
        }
    }

    /// The youngest first: what waits, then the log from its end, or from the place down.
    fn descend(&mut self, from: Option<Place>) -> Result<Option<Place>, StoreError> {
        let (end, waiting) = match from {
            None => self.end()?,
            Some(Place { waited: 0, .. }) => (0, Vec::new()),
            Some(place) => (place.seq, self.waited_at(place)?),
        };
        let mut waited = from.map_or(0, |place| place.waited);
        for event in waiting.iter().rev() {
            if !self.take(event) {
                return Ok(Some(Place { seq: end, within: 0, waited }));
            }
            waited = event.seq;
        }
        let (mut below, mut within) = match from {
            Some(Place { seq, within, waited: 0 }) => (seq + 1, within),
            _ => (end + 1, usize::MAX),
        };
        while below > 1 {
            let after = below.saturating_sub(DESCENT_PAGE as u64 + 1);
            let count = usize::try_from(below - 1 - after).expect("no more than a page");
            for event in self.between(after, count)?.into_iter().rev() {
                let seq = event.seq;
                let shown = view::shown(self.reader, self.id, event)?;
                let rest = std::mem::replace(&mut within, usize::MAX).min(shown.len());
                for (at, event) in shown[..rest].iter().enumerate().rev() {
                    if !self.take(event) {
                        return Ok(Some(Place { seq, within: at + 1, waited: 0 }));
                    }
                }
            }
            below = after + 1;
        }
        Ok(None)
    }

    /// So many events, all of them.
    fn between(&self, after: Seq, count: usize) -> Result<Vec<Event>, StoreError> {
        let mut events: Vec<Event> = Vec::with_capacity(count);
        while events.len() < count {
            let seen = events.last().map_or(after, |event| event.seq);
            let page = self.reader.scan(self.id, seen, count - events.len())?;
            // A session that was deleted meanwhile has none.
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        Ok(events)
    }

    /// Where the log ends, and what waits there.
    fn end(&self) -> Result<(Seq, Vec<Event>), StoreError> {
        let head = || Ok::<_, StoreError>(self.reader.session(self.id)?.map_or(0, |row| row.head));
        loop {
            let end = head()?;
            let waiting = self.reader.queued(self.id)?;
            if head()? == end {
                return Ok((end, waiting));
            }
        }
    }

    /// What waited when the log ended at a place, as far as it is still to be shown: it waits, or was taken up since.
    fn waited_at(&self, place: Place) -> Result<Vec<Event>, StoreError> {
        let (end, mut waited) = self.end()?;
        let mut seen = place.seq;
        while seen < end {
            let page = self.reader.scan(self.id, seen, SCAN_PAGE)?;
            let Some(last) = page.last() else { break };
            seen = last.seq;
            // What was taken up since then still waits among the others.
            for event in page.into_iter().filter(|event| event.seq <= end) {
                waited.extend(view::shown_inputs(self.reader, self.id, &event)?);
            }
        }
        waited.retain(|event| event.seq < place.waited);
        waited.sort_by_key(|event| event.seq);
        Ok(waited)
    }
}
