//! What every request passes: an id, the checks that keep strangers out, the log line, the shape of a refusal.
//!
//! Order: id, Host, Origin, key, beta header (`--strict` only), then the endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::App;
use super::error::ApiError;

/// The header that names a request, on every response.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// The beta of the whole surface, and those that other endpoints go by.
pub(super) const BETA: &str = "managed-agents-2026-04-01";
const BETAS: [&str; 6] = [
    BETA,
    "agent-memory-2026-07-22",
    "dreaming-2026-04-21",
    "files-api-2025-04-14",
    "skills-2025-10-02",
    "webhooks-2026-10-07",
];
/// Endpoints that need no beta header: they have left beta.
const STABLE: [&str; 3] = ["/v1/files", "/v1/skills", "/v1/models"];

/// The outermost layer.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let began = tokio::time::Instant::now();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = format!("req_{}{number:06}", app.started());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match check(&app, &request) {
        Ok(()) if matches!(method, Method::GET | Method::HEAD) => next.run(request).await,
        Ok(()) => to_its_end(next.run(request)).await,
        Err(error) => error.render(&id),
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.render(&id);
    }
    let value = HeaderValue::from_str(&id).expect("an id is plain text");
    response.headers_mut().insert(REQUEST_ID, value);
    app.counted(response.status());
    app.log(|| {
        serde_json::json!({
            "event": "request",
            "request_id": id,
            "method": method.as_str(),
            "path": path,
            "status": response.status().as_u16(),
            "ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    });
    response
}

/// Does what a request asks for, whether its client stays or not: one that goes away between a commit and what belongs to
/// it would leave half of it behind.
async fn to_its_end(work: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(cut) if cut.is_panic() => std::panic::resume_unwind(cut.into_panic()),
        Err(_) => ApiError::overloaded("the server is stopping").into_response(),
    }
}

/// An unknown path.
pub(super) async fn unknown(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!("there is no {} {path} here", request.method()))
}

fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let (headers, path) = (request.headers(), request.uri().path());
    check_host(app, request)?;
    check_origin(app, headers)?;
    if matches!(path, "/healthz" | "/readyz") {
        return Ok(());
    }
    check_key(app, headers)?;
    if app.options().strict && path.starts_with("/v1/") {
        check_beta(headers, path)?;
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A page of the web whose name was made to lead here has another `Host`. Every name that a request gives counts, also that
/// of an absolute address (RFC 9112, 3.2.2).
fn check_host(app: &App, request: &Request) -> Result<(), ApiError> {
    let Some(hosts) = &app.options().hosts else { return Ok(()) };
    let answers_to = |host: &str| {
        let name = without_port(host).to_ascii_lowercase();
        is_loopback(&name) || hosts.contains(&name)
    };
    let headers: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    let named = headers.iter().map(|value| value.to_str().unwrap_or_default());
    let named: Vec<_> = named.chain(request.uri().authority().map(Authority::as_str)).collect();
    if headers.len() <= 1 && !named.is_empty() && named.iter().all(|host| answers_to(host)) {
        return Ok(());
    }
    let refused = named.iter().find(|host| !answers_to(host)).copied().unwrap_or_default();
    let shown: String = refused.chars().take(100).collect();
    Err(ApiError::permission(format!(
        "the Host `{shown}` is not one that this server answers to; add it with --allowed-host"
    )))
}

/// A page of the web names itself.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = value.to_str().unwrap_or("null").to_ascii_lowercase();
    let host = origin.split_once("://").map_or("", |(_, rest)| rest);
    if app.options().origins.contains(&origin) || is_loopback(without_port(host)) {
        return Ok(());
    }
    Err(ApiError::permission("requests from this Origin are refused; add it with --allowed-origin"))
}

/// The name before a port. What is not plainly a name and a port is none: two readers could take it differently.
fn without_port(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(end) if authority.starts_with('[') => end + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at(end);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|digit| digit.is_ascii_digit());
    if rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port) { name } else { "" }
}

fn is_loopback(name: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};

    let name = name.strip_suffix('.').unwrap_or(name);
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()),
        None => {
            name == "localhost"
                || name.ends_with(".localhost")
                || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        }
    }
}

/// Both ways in which clients send it.
fn check_key(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let bearer = text(headers, header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let given = bearer.or_else(|| text(headers, "x-api-key"));
    match given {
        Some(given) if app.key().is(given) => Ok(()),
        Some(_) => Err(ApiError::authentication("the key is wrong; `casemate key` prints it")),
        None => Err(ApiError::authentication(
            "a key is needed: `Authorization: Bearer KEY`, or `x-api-key: KEY`; `casemate key` prints it",
        )),
    }
}

/// As the hosted service has it: without its beta an endpoint is not there, and an unknown beta is refused.
fn check_beta(headers: &HeaderMap, path: &str) -> Result<(), ApiError> {
    let values = headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    let given: Vec<_> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    if let Some(unknown) = given.iter().find(|beta| !beta.is_empty() && !BETAS.contains(*beta)) {
        let shown: String = unknown.chars().take(80).collect();
        return Err(ApiError::invalid(format!(
            "anthropic-beta: `{shown}` is no beta that this server knows"
        )));
    }
    let stable = STABLE.iter().any(|prefix| path.starts_with(prefix));
    if stable || given.contains(&BETA) {
        return Ok(());
    }
    Err(ApiError::not_found(format!("there is no {path} without the beta header `{BETA}`")))
}

impl App {
    fn counted(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1).min(4);
        self.counters().requests[class].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names() {
        for name in ["localhost", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "",
            "localhost.evil.example",
            "127.0.0.1.nip.example",
            "10.0.0.1",
            "[::2]",
            "[127.0.0.1]",
            "127.1",
            "0x7f.0.0.1",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("localhost:4180"), "localhost");
        for odd in
            ["[::1]evil", "[::1", "127.0.0.1:80@evil", "localhost:1:evil", "localhost:123456"]
        {
            assert!(!is_loopback(without_port(odd)), "{odd}");
        }
    }
}
