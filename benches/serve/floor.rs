//! The least that a server can do for its clients on the same stack (hyper, axum, tokio): a handler that has its answer, a
//! commit to SQLite with `synchronous=FULL`, a broadcast that every stream gets its bytes from. It knows one session, checks
//! nothing and keeps nothing apart.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::support::AnyError;

/// The argument that makes the benchmark this program; the model's address and a database's path follow.
pub(crate) const FLOOR: &str = "floor-server";

type Row = (Bytes, oneshot::Sender<()>);

#[derive(Clone)]
struct Floor {
    model: Arc<str>,
    /// What every reading request is answered with.
    answer: Arc<Mutex<Bytes>>,
    frames: broadcast::Sender<Bytes>,
    log: mpsc::Sender<Row>,
}

pub(crate) fn run(model: &str, database: &str) -> Result<(), AnyError> {
    // Only once in a process, and it is.
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(model, database))
}

async fn serve(model: &str, database: &str) -> Result<(), AnyError> {
    let (frames, _) = broadcast::channel(256);
    let floor = Floor { model: model.into(), answer: Arc::default(), frames, log: log(database)? };
    let router = Router::new()
        .route("/answer", post(set))
        .route("/append", post(append))
        .route("/stream", get(stream))
        .route("/relay/socket", post(relay_socket))
        .route("/relay/client", post(relay_client))
        .route("/v1/sessions", get(answer))
        .route("/v1/sessions/{id}", get(answer))
        .route("/v1/sessions/{id}/events", get(answer))
        .with_state(floor);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        // A client that has what it wanted hangs up.
        tokio::spawn(async { drop(connection.await) });
    }
}

/// One thread that commits what waits together.
fn log(database: &str) -> Result<mpsc::Sender<Row>, AnyError> {
    let conn = rusqlite::Connection::open(database)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);",
    )?;
    let (queue, mut waiting) = mpsc::channel::<Row>(256);
    std::thread::spawn(move || -> rusqlite::Result<()> {
        let mut insert = conn.prepare("INSERT INTO event (body) VALUES (?1)")?;
        let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
        let mut commit = conn.prepare("COMMIT")?;
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < 128
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            begin.execute([])?;
            for (body, _) in &group {
                insert.execute([&body[..]])?;
            }
            commit.execute([])?;
            for (_, done) in group {
                // A client that is gone needs no answer.
                done.send(()).ok();
            }
        }
        Ok(())
    });
    Ok(queue)
}

fn json(bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn set(State(floor): State<Floor>, body: Bytes) -> Response {
    *floor.answer.lock().unwrap_or_else(PoisonError::into_inner) = body;
    json(Bytes::from_static(b"{}"))
}

async fn answer(State(floor): State<Floor>) -> Response {
    json(floor.answer.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn append(State(floor): State<Floor>, body: Bytes) -> Response {
    let (done, durable) = oneshot::channel();
    if floor.log.send((body.clone(), done)).await.is_ok() && durable.await.is_ok() {
        floor.send("session.updated", &String::from_utf8_lossy(&body));
    }
    json(body)
}

async fn stream(State(floor): State<Floor>) -> Response {
    let frames = floor.frames.subscribe();
    let stream = futures_util::stream::unfold(frames, async |mut frames| {
        loop {
            match frames.recv().await {
                Ok(bytes) => return Some((Ok::<_, Infallible>(bytes), frames)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let mut response = Response::new(Body::from_stream(stream));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Asks the model over a socket, and hands its words on.
async fn relay_socket(State(floor): State<Floor>) -> Response {
    tokio::spawn(async move {
        let mut model = TcpStream::connect(&*floor.model).await?;
        model
            .write_all(b"POST /v1/messages HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}")
            .await?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = model.read(&mut buffer).await?;
            if floor.relay(&buffer[..count]) || count == 0 {
                return Ok::<_, std::io::Error>(());
            }
        }
    });
    json(Bytes::from_static(b"{}"))
}

/// The same by way of the HTTP client that casemate uses.
async fn relay_client(State(floor): State<Floor>) -> Response {
    tokio::spawn(async move {
        let url = format!("http://{}/v1/messages", floor.model);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut answer = client.post(url).body("{}").send().await?.bytes_stream();
        while let Some(chunk) = answer.next().await {
            floor.relay(&chunk?);
        }
        Ok::<_, reqwest::Error>(())
    });
    json(Bytes::from_static(b"{}"))
}

impl Floor {
    /// Whether these bytes were the last.
    fn relay(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines().filter(|line| line.contains("text_delta")) {
            self.send("event_delta", line.trim_start_matches("data: "));
        }
        let ends = text.contains("message_stop");
        if ends {
            self.send("session.status_idle", "{}");
        }
        ends
    }

    fn send(&self, kind: &str, data: &str) {
        // Nobody listens between two rounds.
        drop(self.frames.send(format!("event: {kind}\ndata: {data}\n\n").into()));
    }
}
