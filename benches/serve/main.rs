//! What the server costs its clients: from a model's word to a client, from a change to a client, requests, lists, many
//! clients, memory, and all of it at once.
//!
//! `cargo bench --bench serve`, or with the name of one table: `-- relay`, `append`, `start`, `requests`, `lists`,
//! `fanout`, `memory`, `soak`. The floor (`floor.rs`) is a bare handler on the same stack; both are processes of their
//! own, with a fresh database on the disk of the target directory. Clients and the model server are threads of this one.

mod client;
mod floor;
mod model;
mod soak;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use client::{Connection, Server};
use model::Model;
use serde_json::{Value, json};
use support::{AnyError, Contestant, Effort, compare, load};

/// Sessions in the store of the tables that are about many.
const SESSIONS: usize = 10_000;
/// A little longer than a resting session's state is kept.
const RESTED: Duration = Duration::from_secs(40);
/// Clients of one session.
const WATCHERS: usize = 500;

fn main() -> Result<ExitCode, AnyError> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, model, database] = &args[..]
        && mode == floor::FLOOR
    {
        floor::run(model, database)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<_> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let tables: [(&str, Table); 8] = [
        ("relay", relay),
        ("append", append),
        ("start", start),
        ("requests", requests),
        ("lists", lists),
        ("fanout", fanout),
        ("memory", memory),
        ("soak", soak::soak),
    ];
    for (name, table) in tables {
        if wanted.is_empty() || wanted.iter().any(|word| *word == name) {
            table()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Table = fn() -> Result<(), AnyError>;

/// The floor, with its database in `dir`.
fn floor(dir: &Path, model: &Model) -> Result<Server, AnyError> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(floor::FLOOR).arg(model.address.to_string()).arg(dir.join("floor.db"));
    Server::start(command, String::new())
}

/// casemate as a server, an environment, and two agents: one of the model server, one of a script.
struct Lab {
    server: Server,
    agent: String,
    scripted: String,
    environment: String,
}

impl Lab {
    fn new(home: &Path, model: &Model) -> Result<Self, AnyError> {
        let server = Self::serve(home, model)?;
        let mut connection = server.connect()?;
        let script = home.join("script.yaml");
        let text =
            "turns: [{text: one two three four five six seven eight, chunks: 8, repeat: 1000000}]";
        std::fs::File::create(&script)?.write_all(text.as_bytes())?;
        let system = "You are a careful engineer. ".repeat(70);
        let mut agent = |model: &str| {
            let body = json!({ "name": "bench", "model": model, "system": system });
            id(&connection.post("/v1/agents", &body.to_string())?)
        };
        let scripted = agent(&format!("scripted:{}", script.display()))?;
        let agent = agent("anthropic/bench")?;
        let environment = id(&connection.post("/v1/environments", r#"{"name":"bench"}"#)?)?;
        drop(connection);
        Ok(Self { server, agent, scripted, environment })
    }

    fn serve(home: &Path, model: &Model) -> Result<Server, AnyError> {
        let command = |word: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
            command.arg(word).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
            command.env("HOME", home).env("ANTHROPIC_API_KEY", "none");
            command.env("ANTHROPIC_BASE_URL", format!("http://{}", model.address));
            command
        };
        let key = String::from_utf8(command("key").output()?.stdout)?;
        let mut serve = command("serve");
        serve.args(["--listen", "127.0.0.1:0", "--quiet"]);
        Server::start(serve, format!("authorization: Bearer {}\r\n", key.trim()))
    }

    /// A new session's path.
    fn session(
        &self,
        connection: &mut Connection<'_>,
        agent: &str,
        told: &[&str],
    ) -> Result<String, AnyError> {
        let initial: Vec<_> = told.iter().map(|text| message(text)).collect();
        let body = json!({
            "agent": agent, "environment_id": self.environment, "initial_events": initial,
        });
        let session = connection.post("/v1/sessions", &body.to_string())?;
        Ok(format!("/v1/sessions/{}", id(&session)?))
    }

    /// Many sessions that were told nothing.
    fn fill(&self, sessions: usize) -> Result<(), AnyError> {
        const HANDS: usize = 16;
        std::thread::scope(|scope| {
            let hands = (0..HANDS).map(|hand| {
                scope.spawn(move || -> Result<(), String> {
                    let said = |error: AnyError| error.to_string();
                    let mut connection = self.server.connect().map_err(said)?;
                    for _ in (hand..sessions).step_by(HANDS) {
                        self.session(&mut connection, &self.scripted, &[]).map_err(said)?;
                    }
                    Ok(())
                })
            });
            let hands: Vec<_> = hands.collect();
            hands.into_iter().try_for_each(|hand| {
                hand.join().map_err(|_| "a client panicked")?.map_err(AnyError::from)
            })
        })
    }
}

fn id(value: &Value) -> Result<String, AnyError> {
    Ok(value["id"].as_str().ok_or_else(|| format!("no id: {value}"))?.to_owned())
}

fn message(text: &str) -> Value {
    json!({ "type": "user.message", "content": [{ "type": "text", "text": text }] })
}

fn send(connection: &mut Connection<'_>, session: &str, text: &str) -> Result<(), AnyError> {
    let body = json!({ "events": [message(text)] });
    connection.post(&format!("{session}/events"), &body.to_string()).map(drop)
}

/// From the moment at which the model server writes a word to the one at which a client has read it.
fn relay() -> Result<(), AnyError> {
    let Effort { rounds, calls: words } = Effort::of(11, 200);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(words)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let heard = |mut stream: Connection<'_>| {
        let one = |_| {
            let (_, data) = stream.event("event_delta")?;
            model::since(&data).ok_or_else(|| format!("a word without its moment: {data}").into())
        };
        let heard: Result<Vec<_>, AnyError> = (0..words).map(one).collect();
        stream.event("session.status_idle")?;
        heard
    };
    let by = |path: &'static str| {
        let (floor, heard) = (&floor, &heard);
        move || {
            let stream = floor.stream("/stream")?;
            floor.connect()?.post(path, "{}")?;
            heard(stream)
        }
    };
    let contestants = vec![
        Contestant::new("floor: socket, broadcast, bare handler", by("/relay/socket")),
        Contestant::new("the same, and an HTTP client", by("/relay/client")),
        Contestant::new("casemate", || {
            let mut connection = lab.server.connect()?;
            let session = lab.session(&mut connection, &lab.agent, &[])?;
            let path = format!("{session}/events/stream?event_deltas[]=agent.message");
            let stream = lab.server.stream(&path)?;
            send(&mut connection, &session, "go")?;
            heard(stream)
        }),
    ];
    compare("from the model's word to a client", rounds, contestants)
}

/// From the moment at which a change is sent to the one at which a client reads of it.
fn append() -> Result<(), AnyError> {
    let Effort { rounds, calls } = Effort::of(11, 200);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let session = lab.session(&mut lab.server.connect()?, &lab.scripted, &[])?;
    let body = || json!({ "title": model::stamp() }).to_string();
    let one = |connection: &mut Connection<'_>, stream: &mut Connection<'_>, path: &str| {
        let body = body();
        let began = Instant::now();
        connection.ask("POST", path, &body)?;
        stream.event("session.updated")?;
        let took = began.elapsed();
        connection.answer()?;
        Ok::<_, AnyError>(took)
    };
    let (mut to_floor, mut of_floor) = (floor.connect()?, floor.stream("/stream")?);
    let mut to_lab = lab.server.connect()?;
    let mut of_lab = lab.server.stream(&format!("{session}/events/stream"))?;
    let contestants = vec![
        Contestant::new("floor: commit, broadcast, bare handler", || {
            (0..calls).map(|_| one(&mut to_floor, &mut of_floor, "/append")).collect()
        }),
        Contestant::new("casemate", || {
            (0..calls).map(|_| one(&mut to_lab, &mut of_lab, &session)).collect()
        }),
    ];
    compare("from a change to a client", rounds, contestants)?;
    let (mut floor, mut lab) = (floor.connect()?, lab.server.connect()?);
    let contestants = vec![
        Contestant::timed("floor: commit", calls, || floor.post("/append", &body()).map(drop)),
        Contestant::timed("casemate", calls, || lab.post(&session, &body()).map(drop)),
    ];
    compare("from a change to its answer", rounds, contestants)
}

/// From a request for a session that begins with a message to the model's being asked.
fn start() -> Result<(), AnyError> {
    let Effort { rounds, calls } = Effort::of(9, 20);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let tools = json!({ "name": "t", "model": "anthropic/bench",
        "tools": [{ "type": "agent_toolset_20260401" }] });
    let tools = id(&lab.server.connect()?.post("/v1/agents", &tools.to_string())?)?;
    let mut to_floor = floor.connect()?;
    let one = |connection: &mut Connection<'_>, agent: &str| {
        model.forget();
        let began = Instant::now();
        let session = lab.session(connection, agent, &["go"])?;
        let took = model.asked()? - began;
        // The next one does not wait for the end of this.
        let mut stream = lab.server.stream(&format!("{session}/events/stream"))?;
        let status: Value = serde_json::from_slice(&connection.get(&session)?)?;
        if status["status"] != "idle" {
            stream.event("session.status_idle")?;
        }
        // Otherwise each would keep its sandbox.
        connection.ask("DELETE", &session, "")?;
        connection.answer()?;
        Ok::<_, AnyError>(took)
    };
    let (mut first, mut second) = (lab.server.connect()?, lab.server.connect()?);
    let contestants = vec![
        Contestant::timed("floor: a request and a commit", calls, || {
            to_floor.post("/append", "{}").map(drop)
        }),
        Contestant::new("casemate, no tools", || {
            (0..calls).map(|_| one(&mut first, &lab.agent)).collect()
        }),
        Contestant::new("casemate, all tools", || {
            (0..calls).map(|_| one(&mut second, &tools)).collect()
        }),
    ];
    compare("from a new session to the model's being asked", rounds, contestants)
}

/// The time of one request while so many connections ask without a pause.
fn hammer(
    server: &Server,
    path: &str,
    connections: usize,
    requests: usize,
) -> Result<Vec<Duration>, AnyError> {
    let ask = || -> Result<(), String> {
        let mut connection = server.connect().map_err(|error| error.to_string())?;
        (0..requests).try_for_each(|_| connection.get(path).map(drop)).map_err(|e| e.to_string())
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let hands: Vec<_> = (0..connections).map(|_| scope.spawn(ask)).collect();
        hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| "a client panicked")?)
    })?;
    let all = u32::try_from(connections * requests)?;
    Ok(vec![began.elapsed() / all])
}

/// Compares the server with a handler that has the same bytes at hand.
fn against_floor(
    title: &str,
    floor: &Server,
    lab: &Lab,
    path: &str,
    requests: usize,
) -> Result<(), AnyError> {
    let body = String::from_utf8(lab.server.connect()?.get(path)?)?;
    floor.connect()?.post("/answer", &body)?;
    let plain = path.split('?').next().unwrap_or(path);
    for connections in [1, 16] {
        let each = (requests / connections).max(1);
        let contestants = vec![
            Contestant::new("floor: a bare handler", || hammer(floor, plain, connections, each)),
            Contestant::new("casemate", || hammer(&lab.server, path, connections, each)),
        ];
        let rounds = Effort::of(9, 0).rounds;
        compare(&format!("{title}, {connections} connections"), rounds, contestants)?;
    }
    Ok(())
}

fn requests() -> Result<(), AnyError> {
    let requests = Effort::of(0, 8000).calls;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let session = lab.session(&mut lab.server.connect()?, &lab.scripted, &[])?;
    against_floor("GET a session", &floor, &lab, &session, requests)
}

fn lists() -> Result<(), AnyError> {
    let Effort { calls: requests, .. } = Effort::of(0, 1000);
    let sessions = Effort::of(0, SESSIONS).calls;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let mut connection = lab.server.connect()?;
    let session = lab.session(&mut connection, &lab.scripted, &[])?;
    let mut stream = lab.server.stream(&format!("{session}/events/stream"))?;
    for _ in 0..12 {
        send(&mut connection, &session, "go")?;
        stream.event("session.status_idle")?;
    }
    drop(stream);
    lab.fill(sessions)?;
    for (title, path) in [
        ("20 sessions", "/v1/sessions".to_owned()),
        ("20 sessions of one status", "/v1/sessions?statuses[]=running".to_owned()),
        ("100 events", format!("{session}/events")),
    ] {
        let title = format!("GET {title} of {sessions}");
        against_floor(&title, &floor, &lab, &path, requests)?;
    }
    Ok(())
}

/// The time of one delivery of one event to one of many clients.
fn fanout() -> Result<(), AnyError> {
    let Effort { rounds, calls } = Effort::of(6, 200);
    let watchers = if calls < 10 { 4 } else { WATCHERS };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    let session = lab.session(&mut lab.server.connect()?, &lab.scripted, &[])?;
    let path = format!("{session}/events/stream");
    let open = |server: &'_ Server, path: &str| {
        (0..watchers).map(|_| server.stream(path)).collect::<Result<Vec<_>, _>>().map(drop)
    };
    // The first time that so many connect is not what is measured.
    open(&floor, "/stream")?;
    open(&lab.server, &path)?;
    let round = |server: &Server, stream: &str, change: &str| {
        let mut streams: Vec<_> =
            (0..watchers).map(|_| server.stream(stream)).collect::<Result<_, _>>()?;
        let mut poster = server.connect()?;
        let began = Instant::now();
        std::thread::scope(|scope| {
            let hear = |stream: &mut Connection<'_>| {
                (0..calls).try_for_each(|_| stream.event("session.updated").map(drop))
            };
            let hands: Vec<_> = streams
                .iter_mut()
                .map(|stream| scope.spawn(move || hear(stream).map_err(|e| e.to_string())))
                .collect();
            for _ in 0..calls {
                poster.post(change, &json!({ "title": model::stamp() }).to_string())?;
            }
            hands.into_iter().try_for_each(|hand| {
                hand.join().map_err(|_| "a client panicked")?.map_err(AnyError::from)
            })
        })?;
        Ok::<_, AnyError>(vec![began.elapsed() / u32::try_from(watchers * calls)?])
    };
    let contestants = vec![
        Contestant::new("floor: broadcast, bare handler", || round(&floor, "/stream", "/append")),
        Contestant::new("casemate", || round(&lab.server, &path, &session)),
    ];
    compare(&format!("one event to one of {watchers} clients"), rounds, contestants)
}

fn memory() -> Result<(), AnyError> {
    let Effort { calls: sessions, .. } = Effort::of(0, SESSIONS);
    let told = sessions.div_ceil(10);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let model = Model::start(1)?;
    let (floor, lab) = (floor(dir.path(), &model)?, Lab::new(dir.path(), &model)?);
    floor.connect()?.get("/v1/sessions")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{:<44} |      MB | KB for each   [{}]", "resident memory", load())?;
    let mut line = |name: &str, bytes: u64, since: u64, count: usize| {
        let each = (bytes as f64 - since as f64) / 1024.0 / count.max(1) as f64;
        let each = if count == 0 { String::new() } else { format!("{each:>11.2}") };
        writeln!(out, "{name:<44} | {:>7.1} | {each}", bytes as f64 / 1e6)
    };
    line("floor, one request", floor.memory()?, 0, 0)?;
    let fresh = lab.server.memory()?;
    line("casemate, an empty store", fresh, 0, 0)?;
    lab.fill(sessions)?;
    let filled = lab.server.memory()?;
    line(&format!("{sessions} sessions created"), filled, fresh, sessions)?;
    let Lab { server, agent, scripted, environment } = lab;
    drop(server);
    let server = Lab::serve(dir.path(), &model)?;
    let lab = Lab { server, agent, scripted, environment };
    let mut connection = lab.server.connect()?;
    let listed = connection.get("/v1/sessions?limit=100")?;
    let started = lab.server.memory()?;
    line(&format!("started anew with {sessions} in the store"), started, fresh, sessions)?;
    let listed: Value = serde_json::from_slice(&listed)?;
    let last = listed["data"][0]["id"].as_str().ok_or("no session")?.to_owned();
    for number in 0..told {
        let session = lab.session(&mut connection, &lab.scripted, &[])?;
        let mut stream = lab.server.stream(&format!("{session}/events/stream"))?;
        send(&mut connection, &session, &format!("go {number}"))?;
        stream.event("session.status_idle")?;
    }
    connection.get(&format!("/v1/sessions/{last}"))?;
    let worked = lab.server.memory()?;
    line(&format!("{told} of them worked, watched, and rest"), worked, started, told)?;
    std::thread::sleep(if sessions == SESSIONS { RESTED } else { Duration::ZERO });
    let rested = lab.server.memory()?;
    line("the same, once they have rested for long", rested, started, told)?;
    Ok(())
}
