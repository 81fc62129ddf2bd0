//! Durable appends: the store against a bare group-commit program on the same disk, in interleaved rounds.
//!
//! The floor is what anyone would write first: a thread, a queue, one table with its index, `synchronous=FULL`. It is
//! given finished JSON, checks nothing, keeps no row per session and checkpoints as SQLite does by itself. Disks
//! change their mood by the minute, so only the ratio within a pair of rounds means something; the first pair of each
//! row is dropped. The disk is that of the target directory.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use casemate::clock::{Clock, SystemClock};
use casemate::event::{ContentBlock, EventBody, NewEvent};
use casemate::id::SessionId;
use casemate::store::{Author, NewSession, Store};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

type AnyError = Box<dyn std::error::Error>;

const SESSIONS: [usize; 3] = [1, 8, 64];
const PAIRS: usize = 8;
const ROUND: Duration = Duration::from_millis(380);

fn main() -> Result<(), AnyError> {
    // `cargo test --benches` runs this too, and only wants to know that it works.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (pairs, length) = if measured { (PAIRS, ROUND) } else { (2, Duration::from_millis(20)) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "sessions | events/s, floor, ratio | ack p50 us, floor, ratio | ack p99 us, floor, ratio"
    )?;
    for sessions in SESSIONS {
        let store =
            Stored::open(&dir.path().join(format!("store-{sessions}")), sessions, &runtime)?;
        let floor = Floor::open(&dir.path().join(format!("floor-{sessions}.db")))?;
        let mut rounds = Vec::new();
        for _ in 0..pairs {
            let ours = runtime.block_on(round(sessions, length, |i| store.client(i)))?;
            let theirs = runtime.block_on(round(sessions, length, |i| floor.client(i)))?;
            rounds.push((ours, theirs));
        }
        write!(out, "{sessions:>8}")?;
        for figure in [Round::per_second, Round::p50, Round::p99] {
            let pairs = rounds[1..].iter().map(|(ours, floor)| (figure(ours), figure(floor)));
            let median = |value: fn((f64, f64)) -> f64| {
                let mut values: Vec<f64> = pairs.clone().map(value).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let (ours, floor) = (median(|pair| pair.0), median(|pair| pair.1));
            write!(
                out,
                " | {ours:>7.0} {floor:>7.0} {:>5.2}",
                median(|(ours, floor)| ours / floor)
            )?;
        }
        writeln!(out)?;
        runtime.block_on(store.0.close());
        floor.close()?;
    }
    Ok(())
}

/// Appends one event and returns once it is durable.
trait Client: Send + 'static {
    fn append(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// The sorted times to acknowledgement of one round, and how long it took.
struct Round {
    acks: Vec<Duration>,
    took: Duration,
}

impl Round {
    fn per_second(&self) -> f64 {
        self.acks.len() as f64 / self.took.as_secs_f64()
    }

    fn p50(&self) -> f64 {
        self.micros(self.acks.len() / 2)
    }

    fn p99(&self) -> f64 {
        self.micros(self.acks.len() * 99 / 100)
    }

    fn micros(&self, place: usize) -> f64 {
        self.acks[place].as_secs_f64() * 1e6
    }
}

/// Every client appends one event after the other until the time is over.
async fn round<C: Client>(
    sessions: usize,
    length: Duration,
    client: impl Fn(usize) -> C,
) -> Result<Round, AnyError> {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in (0..sessions).map(client) {
        tasks.spawn(async move {
            let mut acks = Vec::new();
            while started.elapsed() < length || acks.is_empty() {
                let sent = Instant::now();
                client.append().await?;
                acks.push(sent.elapsed());
            }
            Ok::<_, String>(acks)
        });
    }
    let mut acks = Vec::new();
    while let Some(done) = tasks.join_next().await {
        acks.extend(done??);
    }
    let took = started.elapsed();
    acks.sort();
    Ok(Round { acks, took })
}

fn body() -> EventBody {
    EventBody::AgentMessage { content: vec![ContentBlock::text("x".repeat(900))] }
}

struct Stored(Store, Vec<SessionId>);

impl Stored {
    fn open(dir: &Path, sessions: usize, runtime: &Runtime) -> Result<Self, AnyError> {
        let store = Store::open(dir)?;
        let ids = (0..sessions).map(|_| {
            let created_at = SystemClock.now();
            let new = NewSession {
                records: Vec::new(),
                id: SessionId::mint(created_at),
                title: None,
                workspace: dir.to_owned(),
                definition: serde_json::json!({"system": "x".repeat(2_000)}),
                origin: None,
                metadata: std::collections::BTreeMap::new(),
                budget: None,
                created_at,
            };
            runtime.block_on(store.create_session(new, Vec::new())).map(|row| row.id)
        });
        let ids = ids.collect::<Result<_, _>>()?;
        Ok(Self(store, ids))
    }

    fn client(&self, i: usize) -> StoredClient {
        StoredClient(self.0.clone(), self.1[i].clone())
    }
}

struct StoredClient(Store, SessionId);

impl Client for StoredClient {
    async fn append(&mut self) -> Result<(), String> {
        let new = vec![NewEvent::now(SystemClock.now(), body())];
        let appended = self.0.append(&self.1, Author::Client, new).await;
        appended.map(drop).map_err(|error| error.to_string())
    }
}

type Row = (usize, String, oneshot::Sender<()>);

struct Floor(mpsc::Sender<Row>, std::thread::JoinHandle<rusqlite::Result<()>>);

impl Floor {
    fn open(path: &Path) -> Result<Self, AnyError> {
        let conn = Connection::open(path)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE event (session INTEGER, seq INTEGER, body TEXT);
             CREATE UNIQUE INDEX event_by_seq ON event (session, seq);",
        )?;
        let (queue, waiting) = mpsc::channel(256);
        Ok(Self(queue, std::thread::spawn(move || Self::work(&conn, waiting))))
    }

    fn work(conn: &Connection, mut waiting: mpsc::Receiver<Row>) -> rusqlite::Result<()> {
        let mut seq = 0;
        let mut insert = conn.prepare("INSERT INTO event VALUES (?1, ?2, ?3)")?;
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
            for (session, body, _) in &group {
                seq += 1;
                insert.execute(params![i64::try_from(*session).unwrap_or(0), seq, body])?;
            }
            commit.execute([])?;
            for (_, _, done) in group {
                if done.send(()).is_err() {
                    return Ok(()); // The round has failed and says why.
                }
            }
        }
        Ok(())
    }

    fn client(&self, i: usize) -> FloorClient {
        let body = serde_json::to_string(&body()).unwrap_or_default();
        FloorClient(self.0.clone(), i, body)
    }

    fn close(self) -> Result<(), AnyError> {
        let Self(queue, thread) = self;
        drop(queue);
        thread.join().map_err(|_| "the floor's thread panicked")??;
        Ok(())
    }
}

struct FloorClient(mpsc::Sender<Row>, usize, String);

impl Client for FloorClient {
    async fn append(&mut self) -> Result<(), String> {
        let (done, durable) = oneshot::channel();
        let row = (self.1, self.2.clone(), done);
        self.0.send(row).await.map_err(|error| error.to_string())?;
        durable.await.map_err(|error| error.to_string())
    }
}
