//! Servers at URLs: whether one may be dialled, by which client, and with which credentials.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

use super::connection::{Lifecycle, Terms};
use super::failure::Seal;
use super::oauth::{Authorized, Login, OAuth, Reach};
use super::old::OldTransport;
use super::{Clients, Connection, Failure, Mcp, Questions};
use crate::egress::address::nobodys;
use crate::egress::dial::PublicOnly;
use crate::environment::networking::Host;
use crate::limits::{
    MCP_CONNECT_TIMEOUT, MCP_CONTROL_TIMEOUT, MCP_MESSAGE_BYTES, MCP_REDIRECTS, MCP_SAID_CHARS,
    MCP_STREAM_RETRIES, WEB_CONNECT_TIMEOUT,
};

/// What is said to one server besides the protocol.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where it is: what is for one URL goes to no other.
    pub url: String,
    /// Headers of every request; their values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A variable that should hold a credential and is not set.
    pub missing: Option<String>,
    /// How tokens for it are got, if they are.
    pub oauth: Option<OAuth>,
    /// Silence that one call may have.
    pub timeout: Option<Duration>,
    /// What its questions are answered.
    pub questions: Questions,
}

impl Credentials {
    pub(super) fn is_for(&self, url: &str) -> bool {
        let plain = |url: &str| Url::parse(url).ok();
        plain(&self.url).is_some_and(|own| plain(url) == Some(own))
    }
}

/// A server that may be dialled.
pub(super) struct Target {
    client: Authorized,
    url: Url,
    headers: HeaderMap,
    pub(super) terms: Terms,
}

impl Target {
    pub(super) fn transport(&self) -> StreamableHttpClientTransport<Authorized> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str());
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        config.custom_headers = headers.collect::<HashMap<_, _>>();
        let mut retries = ExponentialBackoff::default();
        retries.max_times = Some(MCP_STREAM_RETRIES);
        config.retry_config = Arc::new(retries);
        config.max_sse_event_size = MCP_MESSAGE_BYTES;
        config.max_json_response_size = MCP_MESSAGE_BYTES;
        config.max_error_response_size = 4 * MCP_SAID_CHARS;
        let config = config
            .control_request_timeout(MCP_CONTROL_TIMEOUT)
            .session_recovery_timeout(MCP_CONTROL_TIMEOUT);
        StreamableHttpClientTransport::with_client(self.client.clone(), config)
    }

    /// Connects in the lifecycle of all but the newest version.
    pub(super) async fn initialize(self) -> Result<Connection, Failure> {
        let terms = Terms { lifecycle: Lifecycle::Initialize, ..self.terms.clone() };
        let begun = Connection::begin(self.transport(), terms).await;
        begun.map_err(|begun| begun.failure)
    }

    /// Connects as before 2025.
    pub(super) async fn events(self) -> Result<Connection, Failure> {
        let opened = OldTransport::open(self.client.client, self.url, self.headers);
        let patience = self.terms.timeout.min(MCP_CONNECT_TIMEOUT);
        let opened = tokio::time::timeout(patience, opened).await;
        let none = |words: String| Failure::Connection(words);
        let transport = opened
            .map_err(|_| none("it did not answer in time".to_owned()))?
            .map_err(|error| none(error.to_string()))?;
        let terms = Terms { lifecycle: Lifecycle::Initialize, ..self.terms };
        Connection::begin(transport, terms).await.map_err(|begun| begun.failure)
    }
}

impl Mcp {
    pub(super) fn target(&self, given: &str) -> Result<Target, Failure> {
        let url = Url::parse(given).map_err(|e| Failure::Connection(format!("its URL: {e}")))?;
        let client = self.client_for(&url)?.clone();
        let own = self.credentials(given);
        let headers = own.map_or(&[][..], |own| &own.headers);
        let login = own.and_then(|own| self.login(own, &url));
        let terms = Terms {
            seal: seal(headers).and(login.clone()),
            timeout: self.timeout(given),
            lifecycle: Lifecycle::Any,
            questions: own.map(|own| own.questions).unwrap_or_default(),
        };
        let client = Authorized { client, login };
        Ok(Target { client, url, headers: headers.iter().cloned().collect(), terms })
    }

    /// The login at a server, if the configuration has one: the same for all connections.
    fn login(&self, own: &Credentials, url: &Url) -> Option<Arc<Login>> {
        let oauth = own.oauth.as_ref()?;
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let login = logins.entry(own.url.clone()).or_insert_with(|| {
            let reach = Reach {
                clients: Clients::new(&(self.trust)(), redirect::Policy::none),
                private_hosts: self.config.private_hosts.clone(),
                server: url.clone(),
            };
            Arc::new(Login::new(oauth.clone(), reach, Arc::clone(&self.clock)))
        });
        Some(Arc::clone(login))
    }

    /// An address that is written as one is meant; a name may lead anywhere, and leads to public addresses only, unless the
    /// configuration names it.
    fn client_for(&self, url: &Url) -> Result<&Client, Failure> {
        let host: Host = url
            .host_str()
            .unwrap_or_default()
            .parse()
            .map_err(|error| Failure::Connection(format!("the host {error}")))?;
        let port = url.port_or_known_default().unwrap_or_default();
        let clients = self.clients();
        if self.config.private_hosts.iter().any(|rule| rule.covers(&host, port)) {
            return Ok(&clients.trusted);
        }
        match &host {
            Host::Address(address) => match nobodys(*address) {
                Some(kind) => Err(Failure::Connection(format!(
                    "`{host}` is {kind}; name it in `private_hosts` of `[mcp]` if it is yours"
                ))),
                None => Ok(&clients.trusted),
            },
            Host::Name(name) if name.as_str() == "localhost" => Ok(&clients.trusted),
            Host::Name(_) => Ok(&clients.guarded),
        }
    }

    fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(|| Clients::new(&(self.trust)(), || redirect::Policy::custom(stay)))
    }
}

impl Clients {
    pub(super) fn new(
        tls: &rustls::ClientConfig,
        redirects: impl Fn() -> redirect::Policy,
    ) -> Self {
        let client = || {
            Client::builder()
                .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")))
                .redirect(redirects())
                .connect_timeout(WEB_CONNECT_TIMEOUT)
                .no_proxy()
                .referer(false)
                .tls_backend_preconfigured(tls.clone())
        };
        let made = "these settings make a client";
        Self {
            guarded: client().dns_resolver(Arc::new(PublicOnly)).build().expect(made),
            trusted: client().build().expect(made),
        }
    }
}

/// A redirect within the server's own origin is followed; credentials go nowhere else.
fn stay(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last().map(Url::origin);
    if from != Some(attempt.url().origin()) {
        return attempt.error("the other place is not the server's own");
    }
    if attempt.previous().len() > MCP_REDIRECTS {
        return attempt.error("too many redirects");
    }
    attempt.follow()
}

/// The values, and what is in them behind a scheme such as `Bearer`.
fn seal(headers: &[(HeaderName, HeaderValue)]) -> Seal {
    let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
    let parts = values.flat_map(|value| [value, value.split_once(' ').map_or(value, |(_, v)| v)]);
    Seal::of(parts.map(str::to_owned).collect())
}

/// Trusts nobody.
#[cfg(test)]
pub(super) fn no_roots() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("they are known");
    config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::mcp::McpConfig;

    #[test]
    fn an_address_is_meant_and_a_name_is_public() {
        let hosts = ["intranet.example:8080"].map(|host| host.parse().expect("a rule"));
        let config = McpConfig { private_hosts: hosts.into(), ..McpConfig::default() };
        let mcp = Mcp::new(config, Arc::new(SystemClock), no_roots);
        let check = |url: &str, expected: Result<bool, &str>| {
            let client = mcp.client_for(&Url::parse(url).unwrap());
            let guarded =
                client.map(|client| std::ptr::eq(client, &raw const mcp.clients().guarded));
            match (guarded, expected) {
                (Ok(guarded), Ok(expected)) => assert_eq!(guarded, expected, "{url}"),
                (Err(Failure::Connection(words)), Err(expected)) => {
                    assert!(words.contains(expected), "{url}: {words}");
                }
                (other, _) => panic!("{url}: {other:?}"),
            }
        };
        check("http://127.0.0.1:3000/mcp", Ok(false));
        check("http://[::1]:3000/mcp", Ok(false));
        check("http://localhost:3000/mcp", Ok(false));
        check("http://10.1.2.3/mcp", Ok(false));
        check("https://mcp.example/", Ok(true));
        check("http://intranet.example:8080/", Ok(false));
        check("http://intranet.example:8081/", Ok(true));
        check("http://169.254.169.254/", Err("where clouds keep their metadata"));
        check("http://0.0.0.0/", Err("an address of this network"));
    }

    #[test]
    fn credentials_are_for_one_url() {
        let own = |url: &str| Credentials {
            url: url.to_owned(),
            headers: Vec::new(),
            missing: None,
            oauth: None,
            timeout: None,
            questions: Questions::default(),
        };
        let check = |url: &str, other: &str, expected: bool| {
            assert_eq!(own(url).is_for(other), expected, "{url} {other}");
        };
        check("https://a.example/mcp", "https://A.example:443/mcp", true);
        check("https://a.example", "https://a.example/", true);
        check("https://a.example/mcp", "https://a.example/other", false);
        check("https://a.example/mcp", "http://a.example/mcp", false);
        check("https://a.example/mcp", "https://b.example/mcp", false);
    }
}
