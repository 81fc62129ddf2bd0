//! Tokens for MCP servers at URLs (OAuth 2.1 as the protocol has it): who gives them, how they are got, when they are
//! renewed.
//!
//! Owns: which addresses of a stranger's choice are asked (`reach`), who gives tokens for a server (`discover`), a login
//! (`login`, with a key: `jwt`), what came of it (`token`), and requests that carry it (`client`).
//! Does not: know sessions, keep anything beyond the process, or speak for a server that the configuration does not name:
//! where there is no `oauth`, a refusal is only a refusal.
//! Invariants: one login at a time for each server, shared by all sessions; a request is repeated a bounded number of
//! times, and a failed login is not tried again for a while; no token, code or secret is in an error, or goes to another
//! place than its own; metadata count only if they are about what was asked.

mod client;
mod discover;
mod jwt;
mod login;
mod reach;
mod token;

pub(super) use client::Authorized;
pub use jwt::Key;
pub(super) use reach::Reach;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use serde::Deserialize;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::limits::{MCP_LOGIN_PAUSE, MCP_LOGIN_TIMEOUT, MCP_OAUTH_SCOPES, MCP_SECRETS_HIDDEN};

use discover::{Challenge, Found};
use login::{Client, Desk};
use token::Token;

/// How tokens for a server are got, as the configuration has it.
#[derive(Debug, Clone, Default)]
pub struct OAuth {
    /// Who this program is; without it, it registers itself.
    pub client: Option<Identity>,
    /// All that is asked for; without it, what the server says.
    pub scope: Option<String>,
    /// Who gives the tokens; without it, whom the server names.
    pub issuer: Option<String>,
}

/// A client that its authorization server knows.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name there, or the URL of a document about it.
    pub id: String,
    /// How it shows who it is.
    pub proof: Proof,
}

impl Identity {
    /// Whether its name is the URL of a document, which not every server reads.
    fn is_document(&self) -> bool {
        self.id.starts_with("https://")
    }
}

/// How a client shows who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Not at all.
    None,
    /// By a secret that both know.
    Secret(Secret),
    /// By a statement that its key signs.
    Key(Arc<Key>),
}

/// Shown nowhere.
#[derive(Clone, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps it; surrounding whitespace, as files and shells leave it, is cut off.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.trim().to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Why there is no token, in words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{words}")]
pub(super) struct NoToken {
    words: String,
    /// The authorization server's own word for it.
    code: Option<String>,
}

impl NoToken {
    fn new(words: String) -> Self {
        Self { words, code: None }
    }

    fn coded(self, code: String) -> Self {
        Self { code: Some(code), ..self }
    }
}

/// The login at one MCP server, for all sessions of the process.
pub(super) struct Login {
    own: OAuth,
    reach: Reach,
    clock: Arc<dyn Clock>,
    /// Held for as long as a login takes: whoever comes meanwhile waits for what comes of it.
    state: tokio::sync::Mutex<State>,
    /// The latest of what must be in no text.
    secrets: Mutex<VecDeque<String>>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Tokens got so far.
    got: u64,
    /// What was asked for so far.
    scopes: BTreeSet<String>,
    /// Who gave the token.
    giver: Option<Giver>,
    /// What came of the last login, if nothing, and when.
    failed: Option<(Instant, NoToken)>,
}

/// An authorization server, and who this program is there.
struct Giver {
    found: Found,
    registered: Option<Client>,
}

/// A token to be said.
#[derive(Clone)]
pub(super) struct Held {
    value: String,
    number: u64,
}

impl Login {
    pub(super) fn new(own: OAuth, reach: Reach, clock: Arc<dyn Clock>) -> Self {
        let (state, secrets) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { own, reach, clock, state, secrets }
    }

    /// What must be in no text.
    pub(super) fn secrets(&self) -> Vec<String> {
        let own = self.own.client.iter().filter_map(|client| match &client.proof {
            Proof::Secret(Secret(secret)) => Some(secret.clone()),
            Proof::None | Proof::Key(_) => None,
        });
        let got = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        own.chain(got.iter().cloned()).collect()
    }

    fn hide(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.iter().any(|own| own == secret) {
            return;
        }
        if secrets.len() >= MCP_SECRETS_HIDDEN {
            secrets.pop_front();
        }
        secrets.push_back(secret.to_owned());
    }

    /// The token as it is.
    async fn current(&self) -> Option<Held> {
        self.state.lock().await.held()
    }

    /// The token, renewed where its time has come. One that cannot be renewed is forgotten: the server says what it wants.
    async fn held(&self) -> Option<Held> {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.is_due(Instant::now())) {
            return self.refresh(&mut state).await;
        }
        state.held()
    }

    /// Another token than the one that a server did not take.
    async fn renew(&self, said: Option<u64>, refused: &Challenge) -> Result<Held, NoToken> {
        let mut state = self.state.lock().await;
        if let Some(held) = state.held().filter(|held| Some(held.number) != said) {
            return Ok(held);
        }
        match self.refresh(&mut state).await {
            Some(held) => Ok(held),
            None => self.log_in(&mut state, refused).await,
        }
    }

    /// A token for more than the one that did not reach far enough; nothing if no other would.
    async fn widen(&self, said: Option<u64>, refused: &Challenge) -> Result<Option<Held>, NoToken> {
        let mut state = self.state.lock().await;
        if let Some(held) = state.held().filter(|held| Some(held.number) != said) {
            return Ok(Some(held));
        }
        let wanted = scopes(refused.scope.as_deref());
        let is_narrow = refused.error.as_deref() == Some("insufficient_scope");
        let is_more = !wanted.is_subset(&state.scopes) && state.scopes.len() < MCP_OAUTH_SCOPES;
        if !is_narrow || !is_more {
            return Ok(None);
        }
        if let Some(own) = &self.own.scope {
            let wanted = Vec::from_iter(wanted).join(" ");
            return Err(NoToken::new(format!(
                "it wants the scope `{wanted}`, and `scope` of `oauth` is `{own}`"
            )));
        }
        let (token, before) = (state.token.take(), state.scopes.clone());
        let widened = self.log_in(&mut state, refused).await;
        if widened.is_err() {
            (state.token, state.scopes) = (token, before);
        }
        widened.map(Some)
    }

    /// The server did not take a token that was new: it is forgotten, and there is no other for a while.
    async fn refused(&self, said: u64) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.number == said) {
            state.token = None;
            let why = NoToken::new("it does not take the token that it was given".to_owned());
            state.failed = Some((Instant::now(), why));
        }
    }

    async fn refresh(&self, state: &mut State) -> Option<Held> {
        let refresh = state.token.take()?.refresh?;
        let giver = state.giver.as_mut()?;
        let desk = self.desk(&giver.found);
        let client = desk.client(&mut giver.registered).await.ok()?;
        let body = desk.refresh(&client, &refresh).await.ok()?;
        self.took(state, &body, Some(refresh)).ok()
    }

    async fn log_in(&self, state: &mut State, refused: &Challenge) -> Result<Held, NoToken> {
        if let Some((at, why)) = &state.failed
            && at.elapsed() < MCP_LOGIN_PAUSE
        {
            return Err(why.clone());
        }
        let tried = Box::pin(self.try_log_in(state, refused));
        let late = || {
            NoToken::new(format!("the login took longer than {} s", MCP_LOGIN_TIMEOUT.as_secs()))
        };
        let outcome =
            tokio::time::timeout(MCP_LOGIN_TIMEOUT, tried).await.unwrap_or_else(|_| Err(late()));
        state.failed = outcome.as_ref().err().map(|why| (Instant::now(), why.clone()));
        outcome
    }

    async fn try_log_in(&self, state: &mut State, refused: &Challenge) -> Result<Held, NoToken> {
        let found = discover::find(&self.reach, &self.own, refused).await?;
        let scope = self.scope(state, &found, refused);
        let registered =
            state.giver.take().filter(|giver| giver.found.at.issuer == found.at.issuer);
        let registered = registered.and_then(|giver| giver.registered);
        let giver = state.giver.insert(Giver { found, registered });
        let desk = self.desk(&giver.found);
        let client = desk.client(&mut giver.registered).await?;
        client.secret().iter().for_each(|secret| self.hide(secret));
        match desk.log_in(&client, scope.as_deref()).await {
            Ok(body) => self.took(state, &body, None),
            Err(why) => {
                // It may have forgotten whom it registered.
                if why.code.as_deref() == Some("invalid_client") {
                    giver.registered = None;
                }
                Err(why)
            }
        }
    }

    /// What is asked for: what the configuration says and no more; else what the server wants, beside what was asked for
    /// before; else all that it knows.
    fn scope(&self, state: &mut State, found: &Found, refused: &Challenge) -> Option<String> {
        if let Some(own) = &self.own.scope {
            return Some(own.clone());
        }
        state.scopes.extend(scopes(refused.scope.as_deref()));
        if state.scopes.is_empty() {
            state.scopes =
                found.scopes.iter().flatten().flat_map(|word| scopes(Some(word))).collect();
        }
        let scopes: Vec<_> = state.scopes.iter().take(MCP_OAUTH_SCOPES).cloned().collect();
        state.scopes = scopes.iter().cloned().collect();
        (!scopes.is_empty()).then(|| scopes.join(" "))
    }

    /// Keeps the token of an answer.
    fn took(
        &self,
        state: &mut State,
        body: &[u8],
        refresh: Option<String>,
    ) -> Result<Held, NoToken> {
        let token = Token::parse(body, state.got + 1, Instant::now());
        let mut token =
            token.map_err(|why| NoToken::new(format!("its authorization server: {why}")))?;
        token.refresh = token.refresh.or(refresh);
        self.hide(&token.value);
        token.refresh.iter().for_each(|refresh| self.hide(refresh));
        state.got = token.number;
        let held = Held { value: token.value.clone(), number: token.number };
        state.token = Some(token);
        Ok(held)
    }

    fn desk<'l>(&'l self, found: &'l Found) -> Desk<'l> {
        Desk { own: &self.own, reach: &self.reach, clock: self.clock.as_ref(), found }
    }
}

impl State {
    fn held(&self) -> Option<Held> {
        self.token.as_ref().map(|token| Held { value: token.value.clone(), number: token.number })
    }
}

/// The scopes of a list, as far as they can be said.
fn scopes(list: Option<&str>) -> BTreeSet<String> {
    let is_plain = |word: &&str| {
        word.len() <= 256 && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    let words = list.unwrap_or_default().split_ascii_whitespace().filter(is_plain);
    words.take(MCP_OAUTH_SCOPES).map(str::to_owned).collect()
}

/// 256 bits that nobody guesses, in letters.
fn random() -> String {
    let bytes: [u8; 32] =
        ring::rand::generate(&SystemRandom::new()).expect("the system has random numbers").expose();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
