//! A server that is killed at random moments under load and started again: what was answered is there, sessions go on by
//! themselves, and who reads on with `Last-Event-ID` sees every event exactly once.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;
use super::sessions::{Lab, id, message};
use crate::support::variable;

/// Nothing here takes a tenth of it, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const SESSIONS: usize = 3;
/// The longest that a server lives, once it listens.
const LONGEST: Duration = Duration::from_millis(250);
/// The title that ends a reader.
const END: &str = "the end";

/// Where the server is now, and its key.
struct Place {
    address: Mutex<String>,
    key: String,
    over: AtomicBool,
}

impl Place {
    /// A request on a connection of its own; nothing if the server went away before it had answered it whole.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let mut stream = self.send(method, path, "", &body.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let size = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() != size.parse::<usize>().unwrap() {
            return None;
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        Some(serde_json::from_str(body).unwrap())
    }

    /// The connection, with a request sent; nothing if there is no server.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<TcpStream> {
        let address = self.address.lock().unwrap().clone();
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (key, size) = (&self.key, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\nconnection: close\r\n\
             content-length: {size}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    }

    /// The same again and again, until some server answers it.
    fn insist(&self, method: &str, path: &str, body: &Value) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = self.ask(method, path, body) {
                return answer;
            }
            assert!(Instant::now() < end, "{method} {path}: no answer within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Does it until all is over; the ids of what was answered.
    fn keep_asking(&self, path: &str, mut body: impl FnMut(usize) -> Value) -> Vec<String> {
        let mut made = Vec::new();
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            if let Some(answer) = self.ask("POST", path, &body(number)) {
                let one = answer["data"].as_array().map_or(&answer, |list| &list[0]);
                made.push(id(one));
            }
            // Load, and not a flood: turns are to end too.
            std::thread::sleep(Duration::from_millis(5));
        }
        made
    }

    /// Reads a session's events from the one after `seen` to the one that is the end, over as many servers as it takes.
    fn follow(&self, session: &str, seen: &str) -> Vec<Value> {
        let path = format!("/v1/sessions/{session}/events/stream");
        let mut seen = seen.to_owned();
        let mut events = Vec::new();
        let mut heard = Instant::now();
        while heard.elapsed() < DEADLINE {
            let Some(stream) = self.send("GET", &path, &format!("last-event-id: {seen}\r\n"), "")
            else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            for event in frames(stream) {
                (seen, heard) = (id(&event), Instant::now());
                events.push(event);
                if events.last().is_some_and(|event| event["title"] == END) {
                    return events;
                }
            }
        }
        panic!("no end after {} events", events.len());
    }
}

/// The whole frames of a stream until it breaks off.
fn frames(stream: TcpStream) -> impl Iterator<Item = Value> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let status = lines.next().unwrap_or_else(|| "HTTP/1.1 200 OK".to_owned());
    assert_eq!(status, "HTTP/1.1 200 OK");
    let mut data = None;
    lines.filter_map(move |line| {
        if let Some(text) = line.strip_prefix("data: ") {
            data = Some(text.to_owned());
        }
        // A frame ends with an empty line; what has none was cut.
        let whole = line.is_empty().then(|| data.take()).flatten()?;
        let event: Value = serde_json::from_str(&whole).unwrap();
        (event["type"] != "ping").then_some(event)
    })
}

/// All events of a session.
fn listed(server: &Server, session: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut path = format!("/v1/sessions/{session}/events?limit=1000");
    loop {
        let page = server.get(&path).expect(200);
        events.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_page"].as_str() else { return events };
        path = format!("/v1/sessions/{session}/events?limit=1000&page={next}");
    }
}

/// How many model requests of a log were cut. Each has an end, and every message was taken up.
fn cut(events: &[Value]) -> usize {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    for start in of("span.model_request_start") {
        let ends =
            of("span.model_request_end").filter(|e| e["model_request_start_id"] == start["id"]);
        assert_eq!(ends.count(), 1, "{start}");
    }
    for message in of("user.message") {
        assert!(message["processed_at"].is_string(), "{message}");
    }
    let last = of("session.status_idle").next_back().expect("it rested");
    assert_eq!(last["stop_reason"]["type"], "end_turn", "{last}");
    of("span.model_request_end").filter(|end| end["is_error"] == true).count()
}

/// `CASEMATE_TEST_KILLS` makes it longer.
#[test]
fn killed_under_load_a_server_keeps_what_it_answered_and_goes_on() {
    let rounds: u32 = variable("CASEMATE_TEST_KILLS").map_or(20, |n| n.parse().expect("a number"));
    let seed = RandomState::new().hash_one("seed");
    println!("seed {seed}");
    let lab = Lab::new("{text: one two three four, chunks: 4, chunk_delay_ms: 1, repeat: 1000000}");
    let sessions: Vec<_> = (0..SESSIONS).map(|_| lab.session(&[])).collect();
    let retitle = json!({ "title": "the beginning" });
    let begun = |session: &String| {
        lab.server.post(&format!("/v1/sessions/{session}"), &retitle).expect(200);
        lab.events(session).pop().unwrap()
    };
    let begun: Vec<_> = sessions.iter().map(begun).collect();
    let Lab { server, agent, environment } = lab;
    let place = Place {
        address: Mutex::new(server.address.clone()),
        key: server.key.clone(),
        over: AtomicBool::new(false),
    };
    let (server, heard, told, made) = std::thread::scope(|scope| {
        let mut server = server;
        let place = &place;
        let readers = sessions.iter().zip(&begun);
        let readers =
            readers.map(|(session, seen)| scope.spawn(|| place.follow(session, &id(seen))));
        let readers: Vec<_> = readers.collect();
        let senders = sessions.iter().map(|session| {
            let path = format!("/v1/sessions/{session}/events");
            let body = |number| json!({ "events": [message(&format!("message {number}"))] });
            scope.spawn(move || place.keep_asking(&path, body))
        });
        let senders: Vec<_> = senders.collect();
        let new = json!({ "agent": agent, "environment_id": environment });
        let maker = scope.spawn(move || place.keep_asking("/v1/sessions", |_| new.clone()));
        for round in 0..rounds {
            let dice = RandomState::new().hash_one((seed, round));
            std::thread::sleep(LONGEST.mul_f64((dice >> 11) as f64 / (1_u64 << 53) as f64));
            server = Server::of(server.end(nix::sys::signal::Signal::SIGKILL), &[]);
            place.address.lock().unwrap().clone_from(&server.address);
        }
        place.over.store(true, Ordering::Relaxed);
        let told: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        let made = maker.join().unwrap();
        for session in &sessions {
            let path = format!("/v1/sessions/{session}");
            let end = Instant::now() + DEADLINE;
            while place.insist("GET", &path, &json!({}))["status"] != "idle" {
                assert!(Instant::now() < end, "{session} does not come to rest");
                std::thread::sleep(Duration::from_millis(5));
            }
            place.insist("POST", &path, &json!({ "title": END }));
        }
        let heard: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (server, heard, told, made)
    });
    let mut cuts = 0;
    for ((session, heard), told) in sessions.iter().zip(&heard).zip(&told) {
        let events = listed(&server, session);
        assert_eq!(heard, &events[1..], "{session}");
        let there: HashSet<_> = events.iter().map(id).collect();
        assert_eq!(told.iter().find(|id| !there.contains(*id)), None, "{session}");
        cuts += cut(&events);
    }
    for session in &made {
        server.get(&format!("/v1/sessions/{session}")).expect(200);
    }
    let told: usize = told.iter().map(Vec::len).sum();
    println!(
        "{rounds} kills, {told} messages and {} sessions answered, {cuts} requests cut",
        made.len()
    );
    assert!(told > 0 && !made.is_empty() && cuts > 0, "the kills come too early, or not at all");
}
