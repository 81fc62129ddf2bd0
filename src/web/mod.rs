//! The web for agents: pages by address, and searches. Asked from the host, never from the sandbox.
//!
//! Owns: which address may be fetched ([`Scope`], the agent's domain lists, `robots.txt`), how it is dialled,
//! redirects, bounds of time and size, a small cache; the search providers ([`search`]).
//! Does not: look into what a page holds. A page is input from a stranger: the tool inside of the sandbox turns it into
//! text.
//! Invariants: no address is dialled that is not public, unless the user's own configuration names it; every hop of a
//! redirect is judged as the first; what is refused is a sentence for the model; no key is in any sentence.
//! How to add a search provider: a variant of [`search::Provider`] with its request and its answer's shape.

mod cache;
mod fetch;
mod robots;
pub mod search;

pub use fetch::{Page, Permits, Scope};
pub use search::{Hit, Provider};

use std::sync::{Arc, OnceLock};

use reqwest::{Client, ClientBuilder};
use tokio::sync::Mutex;

use crate::egress::dial::PublicOnly;
use crate::environment::networking::HostRule;
use crate::limits::{WEB_CONNECT_TIMEOUT, WEB_FETCH_TIMEOUT};
use cache::Cache;
use robots::Robots;

/// What the user set for the web.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    /// Addresses that are not public and may be fetched all the same, as they are written in URLs.
    pub private_hosts: Vec<HostRule>,
    /// Whether pages that `robots.txt` closes to casemate are left alone.
    pub obeys_robots: bool,
    /// Who is asked for searches, if anybody is.
    pub search: Option<Provider>,
    /// Whether the user's proxies are used.
    pub through_proxy: bool,
}

/// Fetches and searches for all sessions of a process.
pub struct Web {
    config: WebConfig,
    trust: Box<dyn Fn() -> rustls::ClientConfig + Send + Sync>,
    proxies: Vec<reqwest::Proxy>,
    clients: OnceLock<Clients>,
    pages: Mutex<Cache>,
    robots: Mutex<Robots>,
}

struct Clients {
    /// For pages: dials public addresses only.
    guarded: Client,
    /// For what the user's own configuration names.
    trusted: Client,
    /// For search providers.
    searching: Client,
}

impl Web {
    /// Ready to ask; nothing is loaded or opened yet. `trust` says whom to believe, and is asked before the first page;
    /// `proxies` are those to go through.
    pub fn new(
        config: WebConfig,
        proxies: Vec<reqwest::Proxy>,
        trust: impl Fn() -> rustls::ClientConfig + Send + Sync + 'static,
    ) -> Self {
        let (clients, pages, robots) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { config, trust: Box::new(trust), proxies, clients, pages, robots }
    }

    fn clients(&self) -> &Clients {
        self.clients.get_or_init(|| {
            let tls = (self.trust)();
            let client = || {
                Client::builder()
                    .user_agent(USER_AGENT)
                    .redirect(reqwest::redirect::Policy::none())
                    .connect_timeout(WEB_CONNECT_TIMEOUT)
                    .timeout(WEB_FETCH_TIMEOUT)
                    .no_proxy()
                    .referer(false)
                    .tls_backend_preconfigured(tls.clone())
            };
            let made = "these settings make a client";
            let proxied = || self.proxies.iter().cloned().fold(client(), ClientBuilder::proxy);
            // A proxy finds the addresses itself, and may have a private one: names are judged before it is asked.
            let guarded = match self.proxies[..] {
                [] => client().dns_resolver(Arc::new(PublicOnly)),
                [..] => proxied(),
            };
            Clients {
                guarded: guarded.build().expect(made),
                trusted: client().build().expect(made),
                searching: proxied().build().expect(made),
            }
        })
    }
}

/// How casemate names itself to servers, in `User-Agent` and to `robots.txt`.
const USER_AGENT: &str = concat!("casemate/", env!("CARGO_PKG_VERSION"));
/// The product's name alone, as `robots.txt` files write it.
const PRODUCT: &str = "casemate";
