//! How the server is: for people, for supervisors, for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::endpoint::{Answer, Endpoint};
use super::error::{self, ApiError};
use super::schema::{self, Schema};
use super::{App, json};

/// What is counted while the server runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answered requests by the first digit of their status.
    pub requests: [AtomicU64; 5],
    /// Open connections.
    pub connections: AtomicU64,
    /// Open event streams.
    pub streams: AtomicU64,
    /// Events that streams have sent.
    pub events: AtomicU64,
}

/// `{"status": …}`.
const STATUS: Schema = Schema { name: "Status", make: status };

fn status() -> Value {
    schema::object([schema::must("status", schema::words(&["ok", "ready"]))])
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/healthz", "status.health", health)
            .about("The process answers.")
            .answers(Answer::Json(STATUS)),
        Endpoint::get("/readyz", "status.ready", ready)
            .about("The server takes work.")
            .answers(Answer::Json(STATUS)),
        Endpoint::get("/metrics", "status.metrics", metrics)
            .about("What is counted, in the text format of Prometheus.")
            .answers(Answer::Text("text/plain")),
    ]
}

/// The process answers.
async fn health() -> Response {
    json(&json!({ "status": "ok" }))
}

/// The server takes work: its store can be read, and it is not stopping.
async fn ready(State(app): State<App>) -> error::Answer {
    if app.is_stopping() {
        return Err(ApiError::overloaded("the server is stopping"));
    }
    app.runtime().reader().sessions(&crate::runtime::SessionFilter::default(), 1)?;
    Ok(json(&json!({ "status": "ready" })))
}

/// In the text format of Prometheus.
async fn metrics(State(app): State<App>) -> Response {
    let counters = app.counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
    let mut text = String::new();
    let head = |name: &str, kind: &str, help: &str| {
        format!("# HELP casemate_{name} {help}\n# TYPE casemate_{name} {kind}\n")
    };
    text += &head("http_requests_total", "counter", "Requests answered, by class of status.");
    for (class, counter) in (1..).zip(&counters.requests) {
        let count = read(counter);
        writeln!(text, "casemate_http_requests_total{{status=\"{class}xx\"}} {count}")
            .expect("a string takes what it is given");
    }
    for (name, kind, help, value) in [
        ("connections", "gauge", "Open connections.", read(&counters.connections)),
        ("event_streams", "gauge", "Open event streams.", read(&counters.streams)),
        ("events_sent_total", "counter", "Events sent on streams.", read(&counters.events)),
        ("sessions_driven", "gauge", "Sessions with a driver.", app.runtime().driven()),
        ("tasks", "gauge", "Tasks that have not ended.", tasks),
        ("uptime_seconds", "gauge", "Since the server started.", app.uptime().as_secs()),
    ] {
        text += &head(name, kind, help);
        writeln!(text, "casemate_{name} {value}").expect("a string takes what it is given");
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
