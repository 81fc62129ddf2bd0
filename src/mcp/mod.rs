//! MCP servers: how they are reached, what they offer, calls of their tools.
//!
//! Owns: which address of a server may be dialled and with which credentials (`http`, and `old` for the transport of before 2025), the
//! connection in either lifecycle of the protocol (`connection`), the list of tools as far as a model can be shown it (`listing`), results as content
//! (`content`), questions of servers as far as somebody set answers (`questions`), how far a call is (`progress`), tokens for
//! servers (`oauth`).
//! Does not: know sessions, sandboxes, models or permissions. A server that runs in a sandbox is a stream that whoever
//! started it hands over.
//! Invariants: every wait has a deadline and every message a bound; no name leads into the user's own network unless the
//! configuration names it; credentials go to the URL that they are for, and are in no error, result or log; what a server
//! says is for the model, and is obeyed by nobody here.
//! How to add a transport: a case in `Mcp::connect` that ends in `Connection::begin`.

mod connection;
mod content;
mod failure;
mod http;
mod listing;
mod oauth;
mod old;
mod progress;
mod questions;

pub use connection::{CallError, Connection};
pub use content::Answer;
pub use failure::Failure;
pub use http::Credentials;
pub use oauth::{Identity, Key, OAuth, Proof, Secret};
pub use questions::Questions;

use connection::{Lifecycle, Terms};
use failure::{Instead, NotBegun};
use oauth::Login;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use reqwest::Client;
use tokio::net::UnixStream;

use crate::clock::Clock;
use crate::environment::networking::HostRule;
use crate::limits::MCP_CALL_TIMEOUT;

/// What the user set for MCP servers.
#[derive(Debug, Clone, Default)]
pub struct McpConfig {
    /// What is said to some of them.
    pub credentials: Vec<Credentials>,
    /// Hosts of the user's own network that names may lead to.
    pub private_hosts: Vec<HostRule>,
}

/// Connects with servers, for all sessions of a process.
pub struct Mcp {
    config: McpConfig,
    clock: Arc<dyn Clock>,
    trust: Box<dyn Fn() -> rustls::ClientConfig + Send + Sync>,
    clients: OnceLock<Clients>,
    /// By URL as the configuration has it, as far as one was needed.
    logins: Mutex<HashMap<String, Arc<Login>>>,
}

#[derive(Clone)]
struct Clients {
    /// Dials public addresses only.
    guarded: Client,
    /// For what is named as an address, or by the configuration.
    trusted: Client,
}

impl Mcp {
    /// Ready to connect; nothing is loaded or opened yet. `trust` says whom to believe.
    pub fn new(
        config: McpConfig,
        clock: Arc<dyn Clock>,
        trust: impl Fn() -> rustls::ClientConfig + Send + Sync + 'static,
    ) -> Self {
        let (clients, logins) = (OnceLock::new(), Mutex::default());
        Self { config, clock, trust: Box::new(trust), clients, logins }
    }

    /// Connects with the server at a URL.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self, url: &str) -> Result<Connection, Failure> {
        let target = self.target(url)?;
        let credentials = self.credentials(url);
        let missing = credentials.and_then(|own| own.missing.clone());
        let begun = match Connection::begin(target.transport(), target.terms.clone()).await {
            Ok(connection) => Ok(connection),
            Err(NotBegun { failure, instead: None }) => Err(failure),
            Err(NotBegun { failure, instead: Some(Instead::Events) }) => {
                target.events().await.map_err(|_| failure)
            }
            Err(NotBegun { instead: Some(Instead::Initialize), .. }) => target.initialize().await,
        };
        begun.map_err(|failure| match missing {
            Some(variable) => failure.but(&format!("{variable} is not set")),
            None => failure,
        })
    }

    /// Speaks with a server that is at the other end of a stream.
    ///
    /// # Errors
    /// Why they do not understand each other.
    pub async fn speak(&self, stream: UnixStream) -> Result<Connection, Failure> {
        let seal = failure::Seal::default();
        let (timeout, lifecycle) = (MCP_CALL_TIMEOUT, Lifecycle::Any);
        let terms = Terms { seal, timeout, lifecycle, questions: Questions::Decline };
        Connection::begin(connection::lines(stream), terms).await.map_err(|begun| begun.failure)
    }

    fn credentials(&self, url: &str) -> Option<&Credentials> {
        self.config.credentials.iter().find(|own| own.is_for(url))
    }

    fn timeout(&self, url: &str) -> Duration {
        self.credentials(url).and_then(|own| own.timeout).unwrap_or(MCP_CALL_TIMEOUT)
    }
}
