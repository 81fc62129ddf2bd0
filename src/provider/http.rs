//! Asking a server over HTTP and pumping its stream through a decoder. Knows statuses and deadlines, no model's format.
//!
//! Connections are kept and used again. Local servers announce that they keep one and close it all the same, so a request
//! whose connection dies before any byte of the response is sent once more at once.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, timeout_at};

use super::failure::{Asked, ErrorBody, retry_after};
use super::{Delta, DeltaStream, ModelError};
use crate::limits::{
    MAX_ERROR_BODY_BYTES, MODEL_CONNECT_TIMEOUT, MODEL_FIRST_BYTE_TIMEOUT, MODEL_IDLE_TIMEOUT,
    MODEL_TAIL_TIMEOUT,
};

const EVENT_STREAM: &str = "an event stream";

/// A key. Shown nowhere.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key; surrounding whitespace, as files and shells leave it, is cut off.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keys shorter than this are placeholders such as `ollama`, which a message may well hold as a word.
const SHORTEST_KEY: usize = 8;

/// The error without the key, whole or cut at the end: servers quote it, and errors are logged.
fn without_key(error: ModelError, key: Option<&Secret>) -> ModelError {
    let Some(Secret(key)) = key.filter(|Secret(key)| key.len() >= SHORTEST_KEY) else {
        return error;
    };
    error.map_words(|words| {
        let words = words.replace(key.as_str(), HIDDEN);
        let end = words.trim_end_matches('…');
        let starts = (SHORTEST_KEY..key.len()).rev().filter_map(|n| key.get(..n));
        match starts.into_iter().find_map(|start| end.strip_suffix(start)) {
            Some(before) => format!("{before}{HIDDEN}…"),
            None => words,
        }
    })
}

const HIDDEN: &str = "[the API key]";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The key as a header value that logs do not show.
pub(crate) fn key_header(
    provider: &str,
    prefix: &str,
    key: &Secret,
) -> Result<HeaderValue, ModelError> {
    let value = HeaderValue::try_from(format!("{prefix}{}", key.0));
    let mut value = value.map_err(|_| ModelError::Unsupported {
        provider: provider.to_owned(),
        reason: "the API key holds characters that no header can carry; set it again".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// How long each phase of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To reach the server.
    pub connect: Duration,
    /// From the request to the first byte of the body.
    pub first_byte: Duration,
    /// Between two pieces of the body, comments included.
    pub idle: Duration,
    /// For the end of the body after a complete answer.
    pub tail: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: MODEL_CONNECT_TIMEOUT,
            first_byte: MODEL_FIRST_BYTE_TIMEOUT,
            idle: MODEL_IDLE_TIMEOUT,
            tail: MODEL_TAIL_TIMEOUT,
        }
    }
}

/// What the network needs besides addresses.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// Certificates in PEM that are trusted besides the usual ones.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// See [`Proxies`]. None is taken from the environment.
    pub proxies: Proxies,
}

/// The proxies through which servers are asked. Those on this machine never are.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// `http://` or `https://` URL of the one for plain servers; it may hold a password.
    pub plain: Option<Secret>,
    /// The same for encrypted ones, which it only passes on.
    pub secure: Option<Secret>,
    /// Hosts that are asked directly, as in `NO_PROXY`.
    pub except: String,
}

/// What `NO_PROXY` need not say.
const LOCAL: &str = "localhost,127.0.0.0/8,::1";

impl Proxies {
    /// The one for that kind of server; an error that names it without its password if it speaks no HTTP.
    fn of(&self, secure: bool) -> Result<Option<reqwest::Proxy>, String> {
        let given = if secure { &self.secure } else { &self.plain };
        let Some(Secret(given)) = given else { return Ok(None) };
        let url = if given.contains("://") { given.clone() } else { format!("http://{given}") };
        let proxy = match url.split("://").next() {
            Some("http" | "https") if secure => reqwest::Proxy::https(url),
            Some("http" | "https") => reqwest::Proxy::http(url),
            _ => return Err(unusable(given)),
        };
        let except = reqwest::NoProxy::from_string(&format!("{LOCAL},{}", self.except));
        proxy.map(|proxy| Some(proxy.no_proxy(except))).map_err(|_| unusable(given))
    }

    /// Whether a host is asked directly, as far as names say it.
    fn excepts(&self, host: &str) -> bool {
        let within = |name: &str| {
            let name = name.trim().trim_start_matches('.');
            let parent = host.strip_suffix(name).filter(|_| !name.is_empty());
            name == "*" || parent.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        is_local(host) || self.except.split(',').any(within)
    }
}

/// Whether a URL's host is this machine.
pub(crate) fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

fn unusable(proxy: &str) -> String {
    let shown = proxy.rsplit('@').next().unwrap_or_default();
    format!(
        "the proxy `{shown}` of the environment speaks no HTTP: write it as http://HOST:PORT, or name the server in \
         NO_PROXY"
    )
}

/// What is wrong with [`HttpOptions`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpOptionsError {
    /// The PEM text holds no certificate, or a broken one.
    #[error("the extra certificates are not PEM: {reason}")]
    Certificates {
        /// What was wrong.
        reason: String,
    },
}

/// Clients for plain and for encrypted servers, each made when first needed.
#[derive(Debug)]
pub struct Http {
    timeouts: Timeouts,
    extra_roots: Vec<CertificateDer<'static>>,
    proxies: Proxies,
    plain: OnceLock<Client>,
    secure: OnceLock<Client>,
}

/// One request.
pub(crate) struct Post {
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) asked: Asked,
    /// The key in the headers, to be kept out of errors.
    pub(crate) key: Option<Secret>,
}

/// A wire format: pieces of a body to deltas.
pub(crate) trait Decode: Send + 'static {
    /// Takes a piece.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Delta>, ModelError>;
    /// Takes the end.
    fn finish(&mut self) -> Result<Vec<Delta>, ModelError>;
    /// Whether the answer is complete if nothing more comes.
    fn could_end_here(&self) -> bool;
}

impl Http {
    /// Checks the options. Opens nothing yet.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(options: HttpOptions) -> Result<Self, HttpOptionsError> {
        let extra_roots = match &options.extra_ca_pem {
            Some(pem) => certificates(pem)?,
            None => Vec::new(),
        };
        Ok(Self {
            timeouts: options.timeouts,
            extra_roots,
            proxies: options.proxies,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
        })
    }

    /// Whether a server can be asked as the environment wants it.
    ///
    /// # Errors
    /// That its proxy cannot be used, in words.
    pub(crate) fn check(&self, url: &str) -> Result<(), String> {
        let url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
        if url.host_str().is_some_and(|host| self.proxies.excepts(host)) {
            return Ok(());
        }
        self.proxies.of(url.scheme() == "https").map(drop)
    }

    fn client(&self, secure: bool) -> Result<&Client, String> {
        let cell = if secure { &self.secure } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.timeouts.connect)
            .no_gzip()
            .no_proxy()
            .tls_backend_preconfigured(self.tls(secure).map_err(|e| e.to_string())?);
        // One that cannot be used was refused by `check`, but for servers that are asked directly.
        if let Ok(Some(proxy)) = self.proxies.of(secure) {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|e| causes(&e))?;
        Ok(cell.get_or_init(|| client))
    }

    /// The proxies for plain and for encrypted servers, as far as there are any.
    ///
    /// # Errors
    /// That one of them cannot be used, in words.
    pub fn proxies(&self) -> Result<Vec<reqwest::Proxy>, String> {
        let both = [self.proxies.of(false)?, self.proxies.of(true)?];
        Ok(both.into_iter().flatten().collect())
    }

    /// Whom to believe that it is a server: the usual roots, and the extra ones.
    ///
    /// # Panics
    /// Never: the library knows its own protocol versions.
    #[must_use]
    pub fn trust(&self) -> rustls::ClientConfig {
        self.tls(true).expect("the library knows its own protocol versions")
    }

    /// The trusted roots are loaded for the first encrypted server only; a plain one reached through an encrypted
    /// proxy needs them too.
    fn tls(&self, secure: bool) -> Result<rustls::ClientConfig, rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        if secure || self.proxies.plain.is_some() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            roots.add_parsable_certificates(self.extra_roots.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Fetches a small JSON text, within a bound of bytes; the caller bounds the time.
    pub(crate) async fn get(&self, url: &str, headers: HeaderMap, limit: usize) -> Option<Vec<u8>> {
        let client = self.client(url.starts_with("https:")).ok()?;
        let response = client.get(url).headers(headers).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        Some(bounded(response, limit).await)
    }

    /// Sends a JSON text and takes a small one, within a bound of bytes; the caller bounds the time.
    pub(crate) async fn post_json(
        &self,
        url: &str,
        body: String,
        limit: usize,
    ) -> Result<Vec<u8>, String> {
        self.check(url)?;
        let client = self.client(url.starts_with("https:"))?;
        let request = client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|e| causes(&e))?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status().as_u16()));
        }
        Ok(bounded(response, limit).await)
    }

    /// Sends the request and decodes the answer's body. An error that prevented the request comes out as the stream.
    pub(crate) fn stream(
        self: Arc<Self>,
        post: Result<Post, ModelError>,
        decoder: impl Decode,
    ) -> DeltaStream {
        let key = post.as_ref().ok().and_then(|post| post.key.clone());
        let deltas = self.deltas(post, decoder);
        Box::pin(deltas.map(move |delta| delta.map_err(|error| without_key(error, key.as_ref()))))
    }

    fn deltas(
        self: Arc<Self>,
        post: Result<Post, ModelError>,
        mut decoder: impl Decode,
    ) -> DeltaStream {
        Box::pin(async_stream::try_stream! {
            let post = post?;
            let asked = post.asked.clone();
            let mut deadline = Deadline::new(&asked, self.timeouts);
            let mut response = self.open(post, &deadline).await?;
            loop {
                let ended = match deadline.wait(response.chunk()).await {
                    Ok(Ok(Some(bytes))) => {
                        for delta in decoder.feed(&bytes)? {
                            if matches!(delta, Delta::Stop(_)) {
                                tokio::spawn(drain(response, self.timeouts.tail));
                                yield delta;
                                return;
                            }
                            yield delta;
                        }
                        deadline.alive(decoder.could_end_here());
                        continue;
                    }
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => Some(asked.broken(causes(&error))),
                    Err(late) => Some(late),
                };
                // A body that breaks off after a complete answer took nothing from it.
                if let Some(error) = ended && !decoder.could_end_here() {
                    Err(error)?;
                }
                for delta in decoder.finish()? {
                    yield delta;
                }
                return;
            }
        })
    }

    async fn open(&self, post: Post, deadline: &Deadline<'_>) -> Result<Response, ModelError> {
        let secure = post.url.starts_with("https:");
        let unreachable = |reason| ModelError::Connect { url: origin(&post.url), reason };
        let client = self.client(secure).map_err(unreachable)?;
        let mut request = client
            .post(&post.url)
            .headers(post.headers)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(post.body)
            .build()
            .map_err(|error| unreachable(causes(&error)))?;
        // Sharing the body costs nothing; a request with a body in memory can always be copied.
        let mut spare = request.try_clone();
        loop {
            match deadline.wait(client.execute(request)).await? {
                Ok(response) => return self.accept(response, &post.asked).await,
                Err(error) if error.is_connect() && error.is_timeout() => {
                    return Err(late(&post.asked, "the connection", self.timeouts.connect));
                }
                Err(error) if error.is_connect() => return Err(unreachable(causes(&error))),
                Err(error) => match spare.take().filter(|_| connection_died(&error)) {
                    Some(again) => request = again,
                    None => return Err(post.asked.broken(causes(&error))),
                },
            }
        }
    }

    async fn accept(&self, response: Response, asked: &Asked) -> Result<Response, ModelError> {
        let status = response.status();
        let header =
            |name| response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let wait = retry_after(header("retry-after-ms"), header("retry-after"), header("date"));
        let kind = header("content-type").unwrap_or_default().to_owned();
        let location = header("location").map(str::to_owned);
        if status.is_success() && (kind.is_empty() || kind.starts_with("text/event-stream")) {
            return Ok(response);
        }
        let read = bounded(response, MAX_ERROR_BODY_BYTES);
        let body = tokio::time::timeout(self.timeouts.idle, read).await.unwrap_or_default();
        if let Some(target) = location.filter(|_| status.is_redirection()) {
            let words = format!("it redirects to {target}; set the base URL to where that leads");
            return Err(asked.refused(status.as_u16(), ErrorBody::parse(words.as_bytes()), None));
        }
        if !status.is_success() {
            return Err(asked.refused(status.as_u16(), ErrorBody::parse(&body), wait));
        }
        let value = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let error = value.as_ref().filter(|value| value.get("error").is_some());
        if let Some(body) = error.and_then(ErrorBody::from_value) {
            return Err(asked.refused(body.own_status().unwrap_or(200), body, wait));
        }
        let problem = format!("its content type is `{kind}` (is the base URL right?)");
        Err(asked.protocol(EVENT_STREAM, &problem, &String::from_utf8_lossy(&body)))
    }
}

/// The point in time until which something must come.
struct Deadline<'a> {
    asked: &'a Asked,
    timeouts: Timeouts,
    at: Instant,
    phase: &'static str,
    allowed: Duration,
}

impl<'a> Deadline<'a> {
    fn new(asked: &'a Asked, timeouts: Timeouts) -> Self {
        let allowed = timeouts.first_byte;
        Self { asked, timeouts, at: Instant::now() + allowed, phase: "the first byte", allowed }
    }

    fn alive(&mut self, could_end_here: bool) {
        self.phase = "more of the answer";
        self.allowed = if could_end_here { self.timeouts.tail } else { self.timeouts.idle };
        self.at = Instant::now() + self.allowed;
    }

    async fn wait<F: Future>(&self, future: F) -> Result<F::Output, ModelError> {
        let late = |_| late(self.asked, self.phase, self.allowed);
        timeout_at(self.at, future).await.map_err(late)
    }
}

fn late(asked: &Asked, phase: &'static str, allowed: Duration) -> ModelError {
    let provider = asked.provider.clone();
    ModelError::Timeout { provider, phase, seconds: allowed.as_secs() }
}

/// Whether the connection ended before any byte of a response: the request was for nobody, and can be sent again.
fn connection_died(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let closed = error.to_string().starts_with("connection closed before message completed");
        if closed || kind.is_some_and(|kind| LOST.contains(&kind)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How the system says that the other side is gone.
const LOST: [std::io::ErrorKind; 3] = [
    std::io::ErrorKind::ConnectionReset,
    std::io::ErrorKind::ConnectionAborted,
    std::io::ErrorKind::BrokenPipe,
];

/// Reads what little is left of an answer, so that its connection can be used again.
async fn drain(response: Response, within: Duration) {
    // What is over the bound, late or broken costs a new connection, no more.
    drop(tokio::time::timeout(within, bounded(response, MAX_ERROR_BODY_BYTES)).await);
}

/// The body up to `limit` bytes; what breaks off or comes beyond is left out.
async fn bounded(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece[..piece.len().min(limit - body.len())]);
        if body.len() == limit {
            break;
        }
    }
    body
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpOptionsError> {
    let bad = |reason| HttpOptionsError::Certificates { reason };
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = parsed.map_err(|error| bad(error.to_string()))?;
    let (good, _) = rustls::RootCertStore::empty().add_parsable_certificates(found.iter().cloned());
    match found.len() {
        0 => Err(bad("there is no certificate in them".to_owned())),
        n if n == good => Ok(found),
        n => Err(bad(format!("{} of {n} cannot be used as a root", n - good))),
    }
}

/// Scheme, host and port of a URL, without any user name or password.
fn origin(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "a URL that cannot be parsed".to_owned(),
    }
}

/// The chain of causes on one line, without the URL, which may hold a key.
fn causes(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    // The client's own name for the phase says nothing to a reader if a cause follows.
    if words.len() > 1 {
        words.retain(|words| !words.starts_with("client error ("));
    }
    words.dedup();
    if words.is_empty() { "the request failed".to_owned() } else { words.join(": ") }
}

#[cfg(test)]
mod tests;
