//! The web for agents: pages by address, and searches. Asked from the host, never from the sandbox.
//!
//! Owns: which address may be fetched ([`Scope`], the agent's domain lists, `robots.txt`), how it is dialled
//! (`dial`), redirects, bounds of time and size, a small cache; the search providers ([`search`]).
//! Does not: look into what a page holds. A page is input from a stranger: the tool inside of the sandbox turns it into
//! text.
//! Invariants: no address is dialled that is not public, unless the user's own configuration names it; every hop of a
//! redirect is judged as the first; what is refused is a sentence for the model; no key is in any sentence.
//! How to add a search provider: a variant of [`search::Provider`] with its request and its answer's shape.

mod cache;
mod dial;
mod fetch;
mod robots;
pub mod search;

pub use fetch::{Page, Scope};
pub use search::{Hit, Provider};

use std::sync::Arc;

use reqwest::Client;
use tokio::sync::Mutex;

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
}

/// Fetches and searches for all sessions of a process.
#[derive(Debug)]
pub struct Web {
    config: WebConfig,
    /// For pages: dials public addresses only.
    guarded: Client,
    /// For what the user's own configuration names.
    trusted: Client,
    pages: Mutex<Cache>,
    robots: Mutex<Robots>,
}

impl Web {
    /// Ready to ask; nothing is opened yet. `tls` says whom to trust.
    ///
    /// # Errors
    /// If no client can be made of `tls`.
    pub fn new(config: WebConfig, tls: &rustls::ClientConfig) -> Result<Self, reqwest::Error> {
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
        Ok(Self {
            config,
            guarded: client().dns_resolver(Arc::new(dial::PublicOnly)).build()?,
            trusted: client().build()?,
            pages: Mutex::default(),
            robots: Mutex::default(),
        })
    }

    /// Whether searches have a provider.
    #[must_use]
    pub fn can_search(&self) -> bool {
        self.config.search.is_some()
    }
}

/// How casemate names itself to servers, in `User-Agent` and to `robots.txt`.
const USER_AGENT: &str = concat!("casemate/", env!("CARGO_PKG_VERSION"));
/// The product's name alone, as `robots.txt` files write it.
const PRODUCT: &str = "casemate";
