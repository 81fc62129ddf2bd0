//! A model server that says exactly what a test tells it to, in both formats, and records every request whole.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The key that every test uses. It may be in one header of a request, and nowhere else.
pub(crate) const KEY: &str = "sk-leak-check-7d1f0c9ab2e4";

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Anthropic,
    OpenAi,
}

impl Api {
    pub(crate) const BOTH: [Self; 2] = [Self::Anthropic, Self::OpenAi];

    /// The built-in provider that speaks it.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
        }
    }
}

/// What one request gets.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes, then the end of the connection.
    Send(Vec<u8>),
    /// The bytes in pieces of a size, one after each pause.
    Drip { bytes: Vec<u8>, piece: usize, pause: Duration },
}

impl Reply {
    /// The connection closes before any byte.
    pub(crate) fn hang_up() -> Self {
        Self::Send(Vec::new())
    }

    /// A whole response with a length.
    pub(crate) fn status(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Send(
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
                .into_bytes(),
        )
    }

    /// An event stream that ends with the connection.
    pub(crate) fn stream(body: impl AsRef<[u8]>) -> Self {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        Self::Send([head.as_bytes(), body.as_ref()].concat())
    }

    /// An event stream that announces all of `body` and sends its beginning.
    pub(crate) fn cut(body: &[u8], at: usize) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n"
        );
        Self::Send([head.as_bytes(), &body[..at]].concat())
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a request's body is JSON")
    }
}

/// The server. Dropping it closes its port.
pub(crate) struct ModelServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// The n-th request for an answer gets the n-th reply; more requests than replies are refused for good. What else is
    /// asked is not there, and not counted.
    pub(crate) fn start(replies: Vec<Reply>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), replies)
    }

    /// One that says how much its model can read, as llama.cpp does.
    pub(crate) fn with_window(tokens: u64, replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::serve(listener, replies, Some(tokens))
    }

    pub(crate) fn on(listener: TcpListener, replies: Vec<Reply>) -> Self {
        Self::serve(listener, replies, None)
    }

    fn serve(listener: TcpListener, replies: Vec<Reply>, props: Option<u64>) -> Self {
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (stop, stopped) = watch::channel(false);
        let record = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, replies, props, record, stopped));
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The environment that leads both built-in providers to `url`.
pub(crate) fn env_for(url: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ANTHROPIC_BASE_URL", url.to_owned()),
        ("OPENAI_BASE_URL", url.to_owned()),
        ("ANTHROPIC_API_KEY", KEY.to_owned()),
        ("OPENAI_API_KEY", KEY.to_owned()),
    ]
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the server panicked");
    }
}

async fn serve(
    listener: TcpListener,
    replies: Vec<Reply>,
    props: Option<u64>,
    record: Arc<Mutex<Vec<Request>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (record, replies) = (Arc::clone(&record), replies.clone());
        let (mut socket, _) = accepted.expect("a client");
        tokio::spawn(async move {
            // A client may go at any time; what it sent until then was no request.
            let Ok(request) = take(&mut socket).await else { return };
            if let Some(path) = request.head.strip_prefix("GET ") {
                let reply = if path.starts_with("/props ") { props } else { None };
                let lost = || Reply::status("404 Not Found", "", "{}");
                drop(say(&mut socket, reply.map_or_else(lost, window)).await);
                return;
            }
            let number = {
                let mut seen = record.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push(request);
                seen.len() - 1
            };
            let none_left = || Reply::status("418 I'm a teapot", "", "no reply is left");
            let reply = replies.get(number).cloned().unwrap_or_else(none_left);
            // A client that has heard enough closes; the test sees it in what it tells.
            drop(say(&mut socket, reply).await);
        });
    }
}

/// What llama.cpp says of itself.
fn window(tokens: u64) -> Reply {
    let said = json!({"default_generation_settings": {"n_ctx": tokens}}).to_string();
    Reply::status("200 OK", "content-type: application/json\r\n", &said)
}

async fn say(socket: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Send(bytes) => socket.write_all(&bytes).await?,
        Reply::Drip { bytes, piece, pause } => {
            for piece in bytes.chunks(piece) {
                socket.write_all(piece).await?;
                tokio::time::sleep(pause).await;
            }
        }
    }
    socket.shutdown().await
}

async fn take(socket: &mut TcpStream) -> std::io::Result<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        more(socket, &mut bytes).await?;
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let at = Instant::now();
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())?.ok()
    });
    let end = head + length.unwrap_or(0);
    while bytes.len() < end {
        more(socket, &mut bytes).await?;
    }
    Ok(Request { at, head: text, body: bytes[head..end].to_vec() })
}

async fn more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    match socket.read_buf(bytes).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// One block of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    Redacted(String),
    /// Arguments as the model wrote them, JSON or not.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

pub(crate) fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

pub(crate) fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::Call { id: id.into(), name: name.into(), arguments: arguments.into() }
}

/// The body of a whole streamed answer; the reason in the Messages API's words.
pub(crate) fn body(api: Api, parts: &[Part], stop: &str) -> String {
    match api {
        Api::Anthropic => anthropic(parts, stop),
        Api::OpenAi => openai(parts, stop),
    }
}

/// A whole streamed answer.
pub(crate) fn answer(api: Api, parts: &[Part], stop: &str) -> Reply {
    Reply::stream(body(api, parts, stop))
}

/// Text in two pieces, cut at a character, as servers send it.
fn halves(text: &str) -> [&str; 2] {
    let middle = text.floor_char_boundary(text.len() / 2);
    [&text[..middle], &text[middle..]]
}

fn events(values: impl IntoIterator<Item = Value>) -> String {
    let event = |value: Value| {
        format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or("message"))
    };
    values.into_iter().map(event).collect()
}

fn anthropic(parts: &[Part], stop: &str) -> String {
    let usage = json!({"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 7});
    let head = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage});
    let mut out = vec![json!({"type": "message_start", "message": head}), json!({"type": "ping"})];
    for (index, part) in parts.iter().enumerate() {
        let (block, deltas) = match part {
            Part::Text(text) => {
                let piece = |text: &str| json!({"type": "text_delta", "text": text});
                (json!({"type": "text", "text": ""}), halves(text).map(piece).to_vec())
            }
            Part::Thinking { text, signature } => {
                let piece = |text: &str| json!({"type": "thinking_delta", "thinking": text});
                let mut deltas = halves(text).map(piece).to_vec();
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
                (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
            }
            Part::Redacted(data) => (json!({"type": "redacted_thinking", "data": data}), vec![]),
            Part::Call { id, name, arguments } => {
                let piece = |json: &str| json!({"type": "input_json_delta", "partial_json": json});
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                (block, halves(arguments).map(piece).to_vec())
            }
        };
        out.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        let delta = |delta| json!({"type": "content_block_delta", "index": index, "delta": delta});
        out.extend(deltas.into_iter().map(delta));
        out.push(json!({"type": "content_block_stop", "index": index}));
    }
    out.push(json!({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}}));
    out.push(json!({"type": "message_stop"}));
    events(out)
}

fn openai(parts: &[Part], stop: &str) -> String {
    let chunk = |delta: Value| json!({"id": "c", "choices": [{"index": 0, "delta": delta}]});
    let mut out = vec![chunk(json!({"role": "assistant", "content": null}))];
    let mut calls = 0;
    for part in parts {
        match part {
            Part::Text(text) => {
                out.extend(halves(text).map(|text| chunk(json!({"content": text}))));
            }
            Part::Thinking { text, .. } => {
                out.extend(halves(text).map(|text| chunk(json!({"reasoning_content": text}))));
            }
            Part::Redacted(_) => {}
            Part::Call { id, name, arguments } => {
                let first = json!({"index": calls, "id": id, "type": "function",
                    "function": {"name": name, "arguments": ""}});
                let more = |json: &str| json!({"index": calls, "function": {"arguments": json}});
                let deltas = [first].into_iter().chain(halves(arguments).map(more));
                out.extend(deltas.map(|call| chunk(json!({"tool_calls": [call]}))));
                calls += 1;
            }
        }
    }
    let reason = match stop {
        "end_turn" => "stop",
        "tool_use" => "tool_calls",
        "max_tokens" => "length",
        "refusal" => "content_filter",
        other => other,
    };
    out.push(json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}));
    let usage = json!({"prompt_tokens": 17, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 7}});
    out.push(json!({"id": "c", "choices": [], "usage": usage}));
    let data = out.into_iter().map(|value| format!("data: {value}\n\n"));
    data.chain(["data: [DONE]\n\n".to_owned()]).collect()
}
