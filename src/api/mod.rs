//! The Managed Agents protocol over HTTP: a door onto [`Runtime`], as thin as the command line.
//!
//! Owns: the listener, authentication, the order of checks, request decoding, pages, event streams, the shape of every
//! answer and error.
//! Does not: decide what a session does next, know SQL, vendors or Linux, write to the terminal.
//! Invariants: every response has a `request-id`; a refused request changes nothing; every refusal names its field; a
//! client that is slow or gone costs nobody else anything.
//! How to add an endpoint: a handler in its resource's file, a line in that file's `endpoints`, a test through an
//! official client.

pub mod agents;
pub mod body;
pub mod endpoint;
pub mod environments;
pub mod error;
mod events;
mod files;
mod guard;
mod input;
pub mod key;
pub mod models;
pub mod openapi;
pub mod page;
pub mod path;
mod patience;
pub mod query;
mod records;
mod resources;
pub mod schema;
pub mod serve;
mod sessions;
mod skills;
pub mod status;
mod stream;
mod threads;
pub mod view;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::limits::{MAX_BODY_BYTES, REQUEST_BODY_TIMEOUT};
use crate::runtime::Runtime;
use endpoint::Endpoint;
use error::ApiError;
use key::ApiKey;
use status::Counters;

/// How the server behaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Answer as the hosted service would where it is stricter: beta headers are needed.
    pub strict: bool,
    /// Names in `Host` that are answered besides loopback, in lower case; `None` answers to all of them.
    pub hosts: Option<HashSet<String>>,
    /// Values of `Origin` that are answered besides loopback, in lower case.
    pub origins: HashSet<String>,
    /// What the paths of all endpoints begin with, such as `/casemate`; empty for nothing.
    pub prefix: String,
}

/// Where the log of the server goes: one JSON object a line.
pub type Log = Arc<dyn Fn(Value) + Send + Sync>;

/// What every handler has. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    runtime: Runtime,
    key: ApiKey,
    options: Options,
    counters: Counters,
    relays: stream::Relays,
    clock: Arc<dyn Clock>,
    log: Option<Log>,
    /// Becomes true when the server begins to stop.
    stopping: watch::Receiver<bool>,
    /// Part of every request id: two runs of the server share none.
    started: String,
    since: tokio::time::Instant,
}

impl App {
    /// The application around an open runtime.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        key: ApiKey,
        options: Options,
        log: Option<Log>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let clock = Arc::new(SystemClock);
        let started = format!("{:011x}", clock.now().as_millisecond());
        let since = tokio::time::Instant::now();
        let (counters, relays) = (Counters::default(), stream::Relays::default());
        Self(Arc::new(Shared {
            runtime,
            key,
            options,
            counters,
            relays,
            clock,
            log,
            stopping,
            started,
            since,
        }))
    }

    /// The runtime behind the door.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Tells the time.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.0.clock.as_ref()
    }

    /// See [`Options`].
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    fn relays(&self) -> &stream::Relays {
        &self.0.relays
    }

    /// Becomes true when the server begins to stop: streams end then.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.clone()
    }

    fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    fn key(&self) -> &ApiKey {
        &self.0.key
    }

    fn started(&self) -> &str {
        &self.0.started
    }

    fn uptime(&self) -> Duration {
        self.0.since.elapsed()
    }

    fn log(&self, line: impl FnOnce() -> Value) {
        if let Some(log) = &self.0.log {
            log(line());
        }
    }
}

/// The table of all endpoints.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    let tables = [
        status::endpoints(),
        openapi::endpoints(),
        agents::endpoints(),
        environments::endpoints(),
        models::endpoints(),
        files::endpoints(),
        skills::endpoints(),
        sessions::endpoints(),
        resources::endpoints(),
    ];
    tables.into_iter().flatten().collect()
}

/// Everything that is answered.
pub fn router(app: App) -> Router {
    let endpoints = endpoint::router(endpoints());
    let endpoints = match app.options().prefix.as_str() {
        "" => endpoints,
        prefix => Router::new().nest(prefix, endpoints),
    };
    endpoints
        .fallback(guard::unknown)
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

/// A JSON answer with status 200.
#[must_use]
pub fn json(value: &Value) -> Response {
    json_text(value.to_string())
}

/// The same of a value that is text already.
#[must_use]
pub fn json_text(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A request's body as JSON, whatever its content type says; an empty one is an empty object.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonBody(pub Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        let bytes = whole(request.into_body(), MAX_BODY_BYTES).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Object(serde_json::Map::new())));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| ApiError::invalid(format!("the body is not valid JSON: {e}")))
    }
}

/// A body of at most so many bytes, within [`REQUEST_BODY_TIMEOUT`].
///
/// # Errors
/// If it is longer, too slow, or breaks off.
pub async fn whole(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let collected = tokio::time::timeout(REQUEST_BODY_TIMEOUT, Limited::new(body, most).collect());
    match collected.await {
        Err(_) => Err(ApiError::invalid("the body did not arrive in time")),
        Ok(Ok(bytes)) => Ok(bytes.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::too_large(format!("the body has more than {most} bytes")))
        }
        Ok(Err(error)) => Err(ApiError::invalid(format!("the body broke off: {error}"))),
    }
}
