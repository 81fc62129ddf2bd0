//! A model server for one client at a time, in this process, that takes the time: it calls tools as it is told, and notes
//! when the last byte of each answer is about to leave and when the next request has arrived whole.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A model takes its time: whatever the client still does after a request, it does meanwhile.
const THINKING: Duration = Duration::from_millis(5);

/// What the model asks for in each answer.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Answers with calls; one without follows and ends the turn.
    pub(crate) answers: usize,
    /// Calls in each of them.
    pub(crate) calls: usize,
    pub(crate) work: Work,
}

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// `true`, each time with another argument: the same call over and over is no progress.
    True,
    /// `read` of these files by turns, for the same reason.
    Read([String; 2]),
}

/// What the server saw of one client.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the first request was whole.
    pub(crate) first: Option<Instant>,
    /// From the last byte of an answer to the next request, in order.
    pub(crate) gaps: Vec<Duration>,
    /// The client's process, whose memory is looked at.
    pub(crate) client: Option<u32>,
    /// The most memory that the client had, and that those had that it started, when the last request came.
    pub(crate) peak_kib: (u64, u64),
    answered: Option<Instant>,
    requests: usize,
}

/// The server; its thread lives as long as the process.
pub(crate) struct Model {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<(Task, Seen)>>,
}

impl Model {
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let idle = Task { answers: 0, calls: 0, work: Work::True };
        let state = Arc::new(Mutex::new((idle, Seen::default())));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that went away shows in what it did not ask.
                drop(serve(&stream, &shared));
            }
        });
        Ok(Self { address, state })
    }

    /// Begins a task for the next client.
    pub(crate) fn expect(&self, task: Task) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (task, Seen::default());
    }

    /// Says which process the client is.
    pub(crate) fn client(&self, pid: u32) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.client = Some(pid);
    }

    /// What was seen since [`Model::expect`].
    pub(crate) fn seen(&self) -> Seen {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

/// Answers requests on one connection until the client closes it.
fn serve(stream: &TcpStream, state: &Mutex<(Task, Seen)>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(length) = head(&mut reader)? {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let arrived = Instant::now();
        let answer = {
            let (task, seen) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
            note(task, seen, arrived);
            http(&answer(task, seen.requests - 1))
        };
        std::thread::sleep(THINKING);
        state.lock().unwrap_or_else(PoisonError::into_inner).1.answered = Some(Instant::now());
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn note(task: &Task, seen: &mut Seen, arrived: Instant) {
    seen.first.get_or_insert(arrived);
    seen.gaps.extend(seen.answered.take().map(|answered| arrived - answered));
    seen.requests += 1;
    if seen.requests > task.answers
        && let Some(pid) = seen.client
    {
        let peaks: Vec<u64> = family(pid).into_iter().filter_map(peak_kib).collect();
        let (own, others) =
            peaks.split_first().map_or((0, 0), |(own, rest)| (*own, rest.iter().sum()));
        seen.peak_kib = (own, others);
    }
}

/// The process and all that descends from it.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let below = children.split_whitespace().filter_map(|pid| pid.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(below).collect()
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads a request's head; the length of its body, or nothing at a clean end.
fn head(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<usize>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            return Ok(Some(length));
        }
        if let Some(given) = lower.strip_prefix("content-length:") {
            length = given.trim().parse().map_err(std::io::Error::other)?;
        }
    }
}

fn http(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
}

/// The answer with this number, as an event stream of the Messages API.
fn answer(task: &Task, number: usize) -> String {
    let mut events = vec![json!({"type": "message_start", "message": {
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": "bench",
        "content": [], "stop_reason": null, "usage": {"input_tokens": 10, "output_tokens": 1},
    }})];
    let mut block = |index: usize, start: Value, delta: Value| {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    };
    let calls = if number < task.answers { task.calls } else { 0 };
    for index in 0..calls {
        let (name, input) = match &task.work {
            Work::True => ("bash", json!({"command": format!("true {number}.{index}")})),
            Work::Read(paths) => ("read", json!({"file_path": paths[(number + index) % 2]})),
        };
        let id = format!("toolu_{number}_{index}");
        let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        block(index, start, json!({"type": "input_json_delta", "partial_json": input.to_string()}));
    }
    if calls == 0 {
        let delta = json!({"type": "text_delta", "text": "Done."});
        block(0, json!({"type": "text", "text": ""}), delta);
    }
    let reason = if calls == 0 { "end_turn" } else { "tool_use" };
    events.push(json!({
        "type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 20},
    }));
    events.push(json!({"type": "message_stop"}));
    let line = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
    };
    events.iter().map(line).collect()
}
