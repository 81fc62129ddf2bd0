//! Event streams. (Checklist of the protocol: 109–119, and `Last-Event-ID`.)

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use super::sessions::{ENDLESS, Lab, id, kinds, message};
use crate::support::model::{Api, ModelServer, answer, env_for, text};
use crate::support::{Casemate, until};

/// Nothing here takes a tenth of it, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// An open stream, read frame by frame.
pub(super) struct Stream(BufReader<TcpStream>);

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    event: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    /// Asks for it, and reads the head of the answer.
    pub(super) fn open(lab: &Lab, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(&lab.server.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let (address, key) = (&lab.server.address, &lab.server.key);
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n\
             authorization: Bearer {key}\r\n{headers}\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(socket));
        let status = stream.line();
        let mut headers = Vec::new();
        loop {
            match stream.line() {
                line if line.is_empty() => break,
                line => headers.push(line.to_ascii_lowercase()),
            }
        }
        assert_eq!(status, "HTTP/1.1 200 OK", "{headers:?}");
        assert!(headers.contains(&"content-type: text/event-stream".to_owned()), "{headers:?}");
        assert!(headers.iter().any(|line| line.starts_with("request-id: req_")), "{headers:?}");
        stream
    }

    pub(super) fn of(lab: &Lab, session: &str) -> Self {
        Self::open(lab, &format!("/v1/sessions/{session}/events/stream"), "")
    }

    fn with_previews(lab: &Lab, session: &str) -> Self {
        let query = "event_deltas%5B%5D=agent.message&event_deltas%5B%5D=agent.thinking";
        Self::open(lab, &format!("/v1/sessions/{session}/events/stream?{query}"), "")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next frame; `None` at the end. The chunks of the answer hold whole frames, and no line of theirs is a number.
    fn next(&mut self) -> Option<Frame> {
        let (mut event, mut id, mut data) = (None, None, None);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 || line == "0\r\n" {
                assert_eq!((&event, &data), (&None, &None), "a frame is cut");
                return None;
            }
            let line = line.trim_end_matches(['\r', '\n']);
            match line.split_once(": ") {
                Some(("event", value)) => assert_eq!(event.replace(value.to_owned()), None),
                Some(("id", value)) => assert_eq!(id.replace(value.to_owned()), None),
                Some(("data", value)) => {
                    assert_eq!(data.replace(serde_json::from_str::<Value>(value).unwrap()), None);
                }
                _ if line.is_empty() && data.is_some() => {
                    let frame = Frame { event: event.unwrap(), id, data: data.unwrap() };
                    assert_eq!(frame.data["type"], json!(frame.event), "{frame:?}");
                    return Some(frame);
                }
                _ => {}
            }
        }
    }

    /// All frames up to the first of that kind.
    pub(super) fn until(&mut self, kind: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("no {kind}: {frames:?}"));
            let last = frame.event == kind;
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }
}

fn data(frames: &[Frame]) -> Vec<Value> {
    frames.iter().map(|frame| frame.data.clone()).collect()
}

// 109, 110, 119
#[test]
fn a_stream_shows_what_the_list_has() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let mut streams: Vec<_> = (0..3).map(|_| Stream::of(&lab, &session)).collect();
    lab.send(&session, &json!([message("go")])).expect(200);
    for stream in &mut streams {
        let frames = stream.until("session.status_idle");
        assert_eq!(data(&frames), lab.events(&session));
        for frame in frames {
            assert_eq!(frame.id, Some(id(&frame.data)));
        }
    }
    let thread = lab.events(&session)[1]["session_thread_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{session}/threads/{thread}/stream");
    let mut own = Stream::open(&lab, &path, "");
    let mut late = Stream::of(&lab, &session);
    lab.send(&session, &json!([{ "type": "user.interrupt" }])).expect(200);
    let body = json!({ "title": "other" });
    lab.server.post(&format!("/v1/sessions/{session}"), &body).expect(200);
    for stream in [&mut own, &mut late] {
        assert_eq!(stream.next().unwrap().event, "session.updated");
    }
}

// 109
#[test]
fn the_list_and_the_stream_together_lose_nothing() {
    let lab = Lab::new("{text: a b c d e f g h, chunks: 8, chunk_delay_ms: 1}");
    for round in 0..20 {
        let session = lab.session(&["go"]);
        // At another moment of the turn each time.
        std::thread::sleep(Duration::from_millis(round));
        let mut stream = Stream::of(&lab, &session);
        let mut seen: BTreeSet<_> = lab.events(&session).iter().map(id).collect();
        lab.settled(&session);
        let body = json!({ "title": "the end" });
        lab.server.post(&format!("/v1/sessions/{session}"), &body).expect(200);
        seen.extend(data(&stream.until("session.updated")).iter().map(id));
        assert_eq!(seen, lab.events(&session).iter().map(id).collect(), "{round}");
    }
}

// 109: a thousand clients that open the stream, then list, while events come all the time.
#[test]
fn who_streams_and_then_lists_misses_nothing() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let path = format!("/v1/sessions/{session}");
    let update = |title: String| lab.server.post(&path, &json!({ "title": title })).expect(200);
    update("the first".to_owned());
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut rounds = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                update(n.to_string());
            }
        });
        for _ in 0..1000 {
            let mut stream = Stream::of(&lab, &session);
            let newest = lab.server.get(&format!("{path}/events?order=desc&limit=1")).expect(200);
            let next = [stream.next().unwrap(), stream.next().unwrap()];
            rounds.push((id(&newest["data"][0]), next.map(|frame| id(&frame.data))));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let all = super::events::walk(&lab, &session, "limit=1000");
    let place: std::collections::HashMap<_, _> = all.iter().zip(0..).collect();
    for (listed, [first, second]) in rounds {
        assert!(place[&first] <= place[&listed] + 1, "between the list and the stream is a gap");
        assert_eq!(place[&second], place[&first] + 1);
    }
}

// 113, 114, 116, 118
#[test]
fn previews_are_whole_beginnings_of_what_follows() {
    let lab = Lab::new("{thinking: hm, text: one two three four five six, chunks: 6}");
    let session = lab.session(&[]);
    let mut plain = Stream::of(&lab, &session);
    let mut stream = Stream::with_previews(&lab, &session);
    lab.send(&session, &json!([message("go")])).expect(200);
    let frames = stream.until("session.status_idle");
    let plain = plain.until("session.status_idle");
    let is_preview = |frame: &&Frame| matches!(&*frame.event, "event_start" | "event_delta");
    let events: Vec<_> = frames.iter().filter(|frame| !is_preview(frame)).cloned().collect();
    assert_eq!(events, plain);
    let previews: Vec<_> = frames.iter().filter(is_preview).collect();
    assert!(previews.iter().all(|frame| frame.id.is_none()));
    let of = |kind: &str| id(&plain.iter().find(|frame| frame.event == kind).unwrap().data);
    let (thought, said) = (of("agent.thinking"), of("agent.message"));
    let start = |kind: &str, id: &str| json!({ "type": "event_start", "event": { "type": kind, "id": id } });
    assert_eq!(previews[0].data, start("agent.thinking", &thought));
    assert_eq!(previews[1].data, start("agent.message", &said));
    let text = previews[2..].iter().map(|frame| {
        let content = &frame.data["delta"]["content"];
        let text = content["text"].as_str().unwrap();
        let delta = json!({ "type": "content_delta", "index": 0, "content": { "type": "text", "text": text } });
        assert_eq!(frame.data, json!({ "type": "event_delta", "event_id": said, "delta": delta }));
        text
    });
    assert_eq!(text.collect::<String>(), "one two three four five six");
    // Between the start of their request and its end.
    let at = |kind: &str| frames.iter().position(|frame| frame.event == kind).unwrap();
    assert!(at("span.model_request_start") < at("event_start"));
    assert!(frames.iter().rposition(|frame| is_preview(&frame)).unwrap() < at("agent.thinking"));
}

// 113
#[test]
fn a_message_begins_once_although_its_first_piece_is_empty() {
    let model = ModelServer::start(vec![answer(Api::Anthropic, &[text("hello")], "end_turn")]);
    let server = Server::with(Casemate::new(), &env_for(&model.url()), &[]);
    let lab = Lab::on(server, "anthropic/m", &json!([]), &json!({ "type": "cloud" }));
    let session = lab.session(&[]);
    let mut stream = Stream::with_previews(&lab, &session);
    lab.send(&session, &json!([message("go")])).expect(200);
    let frames = stream.until("session.status_idle");
    let previews = frames.iter().filter_map(|frame| match &*frame.event {
        "event_start" => Some("begins"),
        "event_delta" => frame.data["delta"]["content"]["text"].as_str(),
        _ => None,
    });
    assert_eq!(previews.collect::<Vec<_>>(), ["begins", "he", "llo"]);
}

// 115
#[test]
fn who_comes_late_is_shown_no_ends_without_beginnings() {
    let words = "word ".repeat(60);
    let lab = Lab::new(&format!("{{text: '{words}', chunks: 60, chunk_delay_ms: 20}}"));
    let session = lab.session(&[]);
    let mut first = Stream::with_previews(&lab, &session);
    lab.send(&session, &json!([message("go")])).expect(200);
    first.until("event_delta");
    let mut late = Stream::with_previews(&lab, &session);
    let frames = late.until("session.status_idle");
    let mut begun = HashSet::new();
    for frame in &frames {
        match &*frame.event {
            "event_start" => assert!(begun.insert(frame.data["event"]["id"].clone())),
            "event_delta" => assert!(begun.contains(&frame.data["event_id"]), "{frame:?}"),
            _ => {}
        }
    }
    assert_eq!(kinds(&data(&frames)).last(), Some(&"session.status_idle"));
}

// 117
#[test]
fn previews_are_of_two_kinds() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let many = "event_deltas[]=agent.message&".repeat(101);
    for query in ["event_deltas[]=agent.tool_use", "event_deltas=foo", &many] {
        let path = format!("/v1/sessions/{session}/events/stream?{query}");
        assert_eq!(lab.server.get(&path).error().0, 400);
    }
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    let lab = Lab::new("{text: hello}, {text: again}");
    let session = lab.session(&["one", "two"]);
    lab.settled(&session);
    let events = lab.events(&session);
    let path = format!("/v1/sessions/{session}/events/stream");
    for (at, seen) in events.iter().enumerate() {
        let header = format!("last-event-id: {}\r\n", id(seen));
        let mut stream = Stream::open(&lab, &path, &header);
        let rest = events[at + 1..].to_vec();
        let came: Vec<_> = rest.iter().map(|_| stream.next().unwrap().data).collect();
        assert_eq!(came, rest, "{at}");
    }
    let key = format!("Bearer {}", lab.server.key);
    for unknown in ["sevt_unknown", "x"] {
        let headers = [("authorization", key.as_str()), ("last-event-id", unknown)];
        assert_eq!(lab.server.send("GET", &path, &headers, b"").error().0, 400, "{unknown}");
    }
}

// 67, 112
#[test]
fn a_stream_ends_with_its_session_and_not_before() {
    let lab = Lab::new("{text: hello}");
    let (deleted, archived) = (lab.session(&[]), lab.session(&[]));
    let mut streams = [Stream::of(&lab, &deleted), Stream::of(&lab, &archived)];
    // One that leaves takes nothing along.
    drop(Stream::of(&lab, &deleted));
    lab.server.ask("DELETE", &format!("/v1/sessions/{deleted}"), None).expect(200);
    let last = streams[0].until("session.deleted").pop().unwrap();
    assert_eq!(last.id, Some(id(&last.data)));
    lab.server.post(&format!("/v1/sessions/{archived}/archive"), &json!({})).expect(200);
    streams[1].until("session.status_terminated");
    for stream in &mut streams {
        assert_eq!(stream.next(), None);
    }
    assert_eq!(Stream::of(&lab, &archived).next(), None);
}

#[test]
fn streams_end_when_the_server_stops() {
    let lab = Lab::new(ENDLESS);
    let session = lab.session(&["go"]);
    lab.once(&session, "span.model_request_start");
    let mut stream = Stream::of(&lab, &session);
    lab.server.stop();
    assert_eq!(stream.next(), None);
}

// 111
#[test]
fn a_quiet_stream_says_that_it_is_alive() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let frame = Stream::of(&lab, &session).next().unwrap();
    assert_eq!(
        frame,
        Frame { event: "ping".to_owned(), id: None, data: json!({ "type": "ping" }) }
    );
}

#[test]
fn a_slow_reader_costs_nobody_else_anything_and_misses_no_event() {
    let long = "x".repeat(1 << 20);
    let lab = Lab::new(&format!("{{text: '{long}', repeat: 16}}"));
    let session = lab.session(&[]);
    let (mut slow, mut quick) = (Stream::of(&lab, &session), Stream::of(&lab, &session));
    for _ in 0..16 {
        lab.send(&session, &json!([message("go")])).expect(200);
        quick.until("session.status_idle");
    }
    let expected = lab.server.get(&format!("/v1/sessions/{session}/events?types[]=session.usage"));
    let expected = expected.expect(200)["data"].as_array().unwrap().len();
    assert_eq!(expected, 16);
    let mut said = 0;
    for _ in 0..16 {
        let frames = slow.until("session.status_idle");
        said += frames.iter().filter(|frame| frame.event == "agent.message").count();
    }
    assert_eq!(said, 16);
    drop((slow, quick));
    until("the streams' end", || {
        let metrics = lab.server.get("/metrics").body;
        metrics.contains("\ncasemate_event_streams 0\n").then_some(())
    });
}
