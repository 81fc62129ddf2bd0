//! Event streams: every event of a session from the moment of the request on, as long as the client stays.
//!
//! For each session that somebody watches there is one [`Relay`]: it follows the session, makes each frame once and hands
//! it to all connections, which share its bytes. A connection is asked for its next frame when its socket has room. One
//! that is slow costs nobody anything: what it misses of events it reads from the store itself, what it misses of
//! previews it does without, and a socket that takes nothing for [`WRITE_TIMEOUT`](crate::limits::WRITE_TIMEOUT) is
//! closed.
//!
//! Of previews a connection sees whole beginnings or nothing: a start, then every piece in order until it lags.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::App;
use super::error::{Answer, ApiError};
use super::query::Query;
use super::view::{self, wire};
use crate::event::{Event, EventBody, Seq, rfc3339};
use crate::id::{EventId, SessionId};
use crate::limits::{SCAN_PAGE, SHARED_FRAME_BYTES, STREAM_CATCH_UP, STREAM_FRAMES, STREAM_PING};
use crate::runtime::{
    Feed, FeedItem, Preview, Reader, Runtime, RuntimeError, SessionStatus, StoreError,
};

/// Most values of `event_deltas[]`: the protocol's bound.
const MAX_DELTAS: usize = 100;
/// Keeps a quiet connection open.
const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// What goes to every connection of a session.
#[derive(Debug, Clone)]
enum Frame {
    /// The events at one place of the log.
    Events { seq: Seq, count: u64, bytes: Bytes, ends: bool },
    /// Events that are too large to be kept for all: each connection reads them itself.
    Stored { seq: Seq },
    /// A piece of a message, or the beginning of a thought, that follows the place `after`.
    Preview { after: Seq, of: Previewed, id: EventId, begins: bool, bytes: Bytes },
    /// The session is gone; these are its last bytes.
    Deleted(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Previewed {
    Message,
    Thinking,
}

/// Which previews a connection wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    message: bool,
    thinking: bool,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, ApiError> {
        let values = query.many("event_deltas");
        if values.len() > MAX_DELTAS {
            let problem = format!("must have at most {MAX_DELTAS} values; it has {}", values.len());
            return Err(ApiError::field("event_deltas", problem));
        }
        let mut wanted = Self::default();
        for value in values {
            match value {
                "agent.message" => wanted.message = true,
                "agent.thinking" => wanted.thinking = true,
                _ => {
                    let problem = "must be `agent.message` or `agent.thinking`";
                    return Err(ApiError::field("event_deltas", problem));
                }
            }
        }
        Ok(wanted)
    }

    fn has(self, of: Previewed) -> bool {
        match of {
            Previewed::Message => self.message,
            Previewed::Thinking => self.thinking,
        }
    }
}

/// The relays of all sessions that are watched.
#[derive(Default)]
pub(super) struct Relays(Mutex<HashMap<SessionId, Weak<Relay>>>);

/// Follows one session for all its connections; dropped with the last of them.
struct Relay {
    frames: broadcast::Sender<Frame>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relays {
    /// The session's relay, and its frames from now on.
    fn join(
        &self,
        runtime: &Runtime,
        id: &SessionId,
        head: Seq,
    ) -> Result<(Arc<Relay>, broadcast::Receiver<Frame>), RuntimeError> {
        let mut relays = self.0.lock().expect("nothing panics under this lock");
        let known = relays.get(id).and_then(Weak::upgrade).filter(|r| !r.task.is_finished());
        if let Some(relay) = known {
            let frames = relay.frames.subscribe();
            return Ok((relay, frames));
        }
        relays.retain(|_, relay| relay.strong_count() > 0);
        let feed = runtime.subscribe(id, head)?;
        let (sender, frames) = broadcast::channel(STREAM_FRAMES);
        let follow = Follow { runtime: runtime.clone(), id: id.clone(), last: head, message: None };
        let task = tokio::spawn(follow.run(feed, sender.clone()));
        let relay = Arc::new(Relay { frames: sender, task });
        relays.insert(id.clone(), Arc::downgrade(&relay));
        Ok((relay, frames))
    }
}

/// What a relay knows of the way so far.
struct Follow {
    runtime: Runtime,
    id: SessionId,
    last: Seq,
    /// The message, or the thought, that is being shown, and how much of it was.
    message: Option<(EventId, usize)>,
}

impl Follow {
    async fn run(mut self, mut feed: Feed, frames: broadcast::Sender<Frame>) {
        // An error ends all connections: their clients come back and are told what is wrong.
        while let Ok(item) = feed.next().await {
            let frame = match item {
                FeedItem::Event(event) => match self.events(event) {
                    Ok(frame) => frame,
                    Err(_) => return,
                },
                FeedItem::Preview(preview) => self.preview(preview),
                FeedItem::Deleted => Some(Frame::Deleted(deleted())),
            };
            let Some(frame) = frame else { continue };
            let ends = matches!(frame, Frame::Events { ends: true, .. } | Frame::Deleted(_));
            // Nobody listens for the moment between the last connection's end and this task's.
            drop(frames.send(frame));
            if ends {
                return;
            }
        }
    }

    fn events(&mut self, event: Event) -> Result<Option<Frame>, StoreError> {
        let (seq, ends) = (event.seq, ends_session(&event.body));
        self.last = seq;
        let shown = view::shown(self.runtime.reader(), &self.id, event)?;
        let Some(bytes) = frames_of(&shown) else { return Ok(None) };
        let count = shown.len() as u64;
        let large = bytes.len() > SHARED_FRAME_BYTES;
        Ok(Some(if large {
            Frame::Stored { seq }
        } else {
            Frame::Events { seq, count, bytes, ends }
        }))
    }

    fn preview(&mut self, preview: Preview) -> Option<Frame> {
        let after = self.last;
        match preview {
            Preview::Message { event: id, at, text } => {
                let known = self.message.take().filter(|(of, _)| *of == id);
                let begins = known.is_none() && at == 0;
                // What is missing cannot be made good: the rest of this message is not shown.
                let fits = known.is_some_and(|(_, shown)| shown == at);
                if !begins && !fits {
                    return None;
                }
                self.message = Some((id.clone(), at + text.len()));
                let mut bytes = Vec::new();
                if begins {
                    start(&mut bytes, "agent.message", &id);
                }
                if !text.is_empty() {
                    delta(&mut bytes, &id, &text);
                }
                if bytes.is_empty() {
                    return None;
                }
                let bytes = bytes.into();
                Some(Frame::Preview { after, of: Previewed::Message, id, begins, bytes })
            }
            Preview::Thinking { event: id, .. } => {
                if self.message.as_ref().is_some_and(|(of, _)| *of == id) {
                    return None;
                }
                self.message = Some((id.clone(), 0));
                let mut bytes = Vec::new();
                start(&mut bytes, "agent.thinking", &id);
                let bytes = bytes.into();
                Some(Frame::Preview { after, of: Previewed::Thinking, id, begins: true, bytes })
            }
            // The protocol has no event for how far a call is.
            Preview::ToolUse { .. } | Preview::Progress { .. } | Preview::Discarded => None,
        }
    }
}

fn ends_session(body: &EventBody) -> bool {
    matches!(body, EventBody::StatusTerminated {})
}

/// The frames of events, one after the other; `None` if there are none.
fn frames_of(events: &[Event]) -> Option<Bytes> {
    if events.is_empty() {
        return None;
    }
    let frame = |event: &Event| {
        let (kind, id, data) = (event.body.kind(), &event.id, wire(event));
        format!("event: {kind}\nid: {id}\ndata: {data}\n\n")
    };
    Some(events.iter().map(frame).collect::<String>().into())
}

fn start(bytes: &mut Vec<u8>, of: &str, id: &EventId) {
    let data = json!({ "type": "event_start", "event": { "type": of, "id": id.as_str() } });
    bytes.extend(format!("event: event_start\ndata: {data}\n\n").into_bytes());
}

/// Written by hand: there is one for every word of every model.
fn delta(bytes: &mut Vec<u8>, id: &EventId, text: &str) {
    bytes.extend_from_slice(b"event: event_delta\ndata: {\"type\":\"event_delta\",\"event_id\":\"");
    bytes.extend_from_slice(id.as_str().as_bytes());
    bytes.extend_from_slice(
        b"\",\"delta\":{\"type\":\"content_delta\",\"index\":0,\"content\":{\"type\":\"text\",\"text\":",
    );
    serde_json::to_writer(&mut *bytes, text).expect("memory takes what it is given");
    bytes.extend_from_slice(b"}}}\n\n");
}

/// The one event that no log has: with it, the log is gone.
fn deleted() -> Bytes {
    use crate::clock::Clock as _;
    let now = crate::clock::SystemClock.now();
    let (kind, id) = ("session.deleted", EventId::mint(now));
    let data = json!({ "id": id.as_str(), "processed_at": rfc3339(now), "type": kind });
    format!("event: {kind}\nid: {id}\ndata: {data}\n\n").into()
}

/// Answers with the events of a session from now on, or after the one that the client saw last.
pub(super) fn open(app: &App, id: &SessionId, query: &Query, headers: &HeaderMap) -> Answer {
    let wanted = Wanted::of(query)?;
    let reader = app.runtime().reader();
    let missing = || ApiError::no_such("session", id.as_str());
    let head = reader.session(id)?.ok_or_else(missing)?.head;
    let (relay, frames) = app.relays().join(app.runtime(), id, head)?;
    // What is committed before this look is in the list by now; what is committed after it comes through the relay.
    let row = reader.session(id)?.ok_or_else(missing)?;
    let seen = last_seen(reader, id, headers)?;
    let connection = Connection {
        app: app.clone(),
        id: id.clone(),
        frames,
        _relay: relay,
        cursor: seen.map_or(row.head, |seen| seen.seq - 1),
        skip: seen.map_or(0, |seen| seen.shown),
        floor: row.head,
        behind: seen.is_some(),
        over: seen.is_none() && row.status == SessionStatus::Terminated,
        ready: VecDeque::new(),
        wanted,
        current: None,
        stopping: app.stopping(),
        quiet: Box::pin(tokio::time::sleep(STREAM_PING)),
    };
    app.counters().streams.fetch_add(1, Ordering::Relaxed);
    let stream = futures_util::stream::unfold(connection, async |mut connection: Connection| {
        let bytes = connection.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), connection))
    });
    let mut response = Response::new(Body::from_stream(stream));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Where an event is shown: the place in the log, and how many are shown there up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    seq: Seq,
    shown: usize,
}

/// Where the event is shown that `Last-Event-ID` names; an extension, which clients of the protocol do not send.
fn last_seen(
    reader: &Reader,
    session: &SessionId,
    headers: &HeaderMap,
) -> Result<Option<Seen>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let unknown = || ApiError::field("Last-Event-ID", "is no event of this session");
    let id: EventId = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
    let event = reader.event(session, &id)?.ok_or_else(unknown)?;
    if !view::is_queued(&event.body) {
        return Ok(Some(Seen { seq: event.seq, shown: 1 }));
    }
    let mut after = event.seq;
    loop {
        let page = reader.scan(session, after, SCAN_PAGE)?;
        // It waits: whoever names it has seen all that there is.
        let Some(last) = page.last() else { return Ok(None) };
        after = last.seq;
        for event in page {
            let at = view::inputs(&event.body).iter().position(|input| *input == id);
            if let Some(at) = at {
                return Ok(Some(Seen { seq: event.seq, shown: at + 1 }));
            }
        }
    }
}

/// One client's way through a session.
struct Connection {
    app: App,
    id: SessionId,
    frames: broadcast::Receiver<Frame>,
    _relay: Arc<Relay>,
    /// Everything up to here was sent, or came before the connection.
    cursor: Seq,
    /// How many of the events that are shown at the next place were sent already.
    skip: usize,
    /// Previews from before this place are of messages that the client may have whole.
    floor: Seq,
    /// There may be more in the store than the relay will bring.
    behind: bool,
    over: bool,
    /// Read from the store, to be sent.
    ready: VecDeque<Bytes>,
    wanted: Wanted,
    /// The message that the client is being shown.
    current: Option<EventId>,
    stopping: watch::Receiver<bool>,
    quiet: Pin<Box<Sleep>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.app.counters().streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// The next bytes; `None` at the end. Called when the socket has room.
    async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.next_bytes().await;
        self.quiet.as_mut().reset(Instant::now() + STREAM_PING);
        bytes
    }

    async fn next_bytes(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.over || *self.stopping.borrow() {
                return None;
            }
            if self.behind {
                // The log cannot be read: the client comes back and is told why.
                self.catch_up().ok()?;
                continue;
            }
            let frame = tokio::select! {
                frame = self.frames.recv() => frame,
                _ = self.stopping.changed() => return None,
                () = &mut self.quiet => return Some(Bytes::from_static(PING)),
            };
            match frame {
                Ok(frame) => {
                    if let Some(bytes) = self.take(frame) {
                        return Some(bytes);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    (self.behind, self.current) = (true, None);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// What the client is sent of a frame.
    fn take(&mut self, frame: Frame) -> Option<Bytes> {
        match frame {
            Frame::Events { seq, count, bytes, ends } if seq > self.cursor => {
                (self.cursor, self.over) = (seq, ends);
                self.app.counters().events.fetch_add(count, Ordering::Relaxed);
                Some(bytes)
            }
            Frame::Stored { seq } if seq > self.cursor => {
                self.behind = true;
                None
            }
            Frame::Events { .. } | Frame::Stored { .. } => None,
            Frame::Preview { after, of, id, begins, bytes } => {
                if after < self.floor || !self.wanted.has(of) {
                    return None;
                }
                if begins {
                    self.current = Some(id);
                } else if self.current.as_ref() != Some(&id) {
                    return None;
                }
                Some(bytes)
            }
            Frame::Deleted(bytes) => {
                self.over = true;
                Some(bytes)
            }
        }
    }

    /// Reads the next events from the store.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let runtime = self.app.runtime().clone();
        let reader = runtime.reader();
        let page = reader.scan(&self.id, self.cursor, STREAM_CATCH_UP)?;
        self.behind = !page.is_empty();
        for event in page {
            self.cursor = event.seq;
            self.over |= ends_session(&event.body);
            let shown = view::shown(reader, &self.id, event)?;
            let unseen = shown.get(std::mem::take(&mut self.skip)..).unwrap_or_default();
            let count = unseen.len() as u64;
            self.app.counters().events.fetch_add(count, Ordering::Relaxed);
            self.ready.extend(frames_of(unseen));
        }
        self.floor = self.cursor;
        Ok(())
    }
}
