//! Many sessions at once, each with a client that watches it and speaks as soon as it rests; half of the time beside
//! clients that ask for everything and read nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use casemate::clock::{Clock as _, SystemClock, Timestamp};
use serde_json::Value;

use crate::model::Model;
use crate::support::{AnyError, Effort, load};
use crate::{Lab, send};

const SESSIONS: usize = 400;
/// Clients that stop reading, each of a session of its own.
const STALLED: usize = 40;
const PHASE: Duration = Duration::from_secs(30);

/// What all clients have seen in one phase.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    turns: AtomicU64,
    delays: Mutex<Vec<u32>>,
}

pub(crate) fn soak() -> Result<(), AnyError> {
    let measured = Effort::of(2, 1).rounds == 2 && std::env::args().any(|arg| arg == "--bench");
    let (sessions, phase) = if measured { (SESSIONS, PHASE) } else { (4, PHASE / 100) };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let lab = Lab::new(dir.path(), &model)?;
    let mut connection = lab.server.connect()?;
    let paths: Vec<_> = (0..sessions)
        .map(|_| lab.session(&mut connection, &lab.scripted, &[]))
        .collect::<Result<_, _>>()?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n{:<32} | events/s | turns/s | p50 ms | p99 ms | max ms | MB begin, half, end   [{}]",
        format!("{sessions} sessions, {sessions} clients"),
        load()
    )?;
    let mut stalled: Vec<TcpStream> = Vec::new();
    for (name, stalls) in
        [("every client reads", 0), ("some stopped reading", STALLED), ("as in the beginning", 0)]
    {
        stalled.clear();
        for path in paths.iter().take(stalls) {
            let path = format!("{path}/events/stream?event_deltas[]=agent.message");
            stalled.push(lab.server.stream(&path)?.into_socket());
        }
        let seen = Seen::default();
        let memory = run(&lab, &paths, phase, &seen)?;
        let mut delays = seen.delays.into_inner().map_err(|_| "a client panicked")?;
        delays.sort_unstable();
        let at =
            |share: f64| delays.get((delays.len() as f64 * share) as usize).copied().unwrap_or(0);
        let per_second = |count: AtomicU64| count.into_inner() as f64 / phase.as_secs_f64();
        let memory = memory.map(|bytes| format!("{:.1}", bytes as f64 / 1e6)).join(", ");
        writeln!(
            out,
            "{name:<32} | {:>8.0} | {:>7.0} | {:>6} | {:>6} | {:>6} | {memory}",
            per_second(seen.events),
            per_second(seen.turns),
            at(0.5),
            at(0.99),
            delays.last().copied().unwrap_or(0),
        )?;
    }
    Ok(())
}

/// One phase; the server's memory at its beginning, in its middle and at its end.
fn run(lab: &Lab, paths: &[String], phase: Duration, seen: &Seen) -> Result<[u64; 3], AnyError> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(|| watch(lab, path, seen, &over).map_err(|e| e.to_string())))
            .collect();
        let began = Instant::now();
        let mut memory = [lab.server.memory()?; 3];
        for (at, place) in [(phase / 2, 1), (phase, 2)] {
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            memory[place] = lab.server.memory()?;
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok(memory)
    })
}

/// Speaks to a session whenever it rests, and notes how old each event is when it is read, to the millisecond.
fn watch(lab: &Lab, path: &str, seen: &Seen, over: &AtomicBool) -> Result<(), AnyError> {
    let mut stream = lab.server.stream(&format!("{path}/events/stream"))?;
    let mut connection = lab.server.connect()?;
    send(&mut connection, path, "go on")?;
    let mut delays = Vec::new();
    loop {
        let (kind, data) = stream.event("")?;
        let data: Value = serde_json::from_str(&data)?;
        let at = data["processed_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        if let Some(at) = at {
            let age = SystemClock.now().as_millisecond() - at.as_millisecond();
            delays.push(u32::try_from(age).unwrap_or(0));
            seen.events.fetch_add(1, Ordering::Relaxed);
        }
        if kind == "session.status_idle" {
            seen.turns.fetch_add(1, Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                seen.delays.lock().map_err(|_| "a client panicked")?.append(&mut delays);
                return Ok(());
            }
            send(&mut connection, path, "go on")?;
        }
    }
}
