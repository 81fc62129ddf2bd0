//! How much a model can read: what the user says, else what its server says, else a table.
//!
//! Servers tell it in their own ways. What a model was trained for is not what it was started with, so only the latter
//! counts: llama.cpp's `/props`, Ollama's list of loaded models, LM Studio's own API, and the list of models of vLLM and of
//! those who resell.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use reqwest::header::HeaderMap;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::http::Http;
use super::routes::Route;
use crate::limits::{MAX_MODEL_LIST_BYTES, WINDOW_TIMEOUT};

/// The table that is built in.
const BUILT_IN: &str = include_str!("windows.toml");

/// Fewest tokens that a window can have: below, not even a system prompt fits.
const MIN_TOKENS: u64 = 512;

/// The window of the models that a pattern matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRule {
    /// Matches `PROVIDER/MODEL`.
    #[serde(deserialize_with = "glob")]
    r#match: GlobMatcher,
    #[serde(deserialize_with = "tokens")]
    tokens: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    window: Vec<WindowRule>,
}

/// All windows that are known without asking.
#[derive(Debug, Clone)]
pub struct Windows {
    own: Vec<WindowRule>,
    table: Vec<WindowRule>,
}

impl Windows {
    /// The built-in table, after the user's own.
    #[must_use]
    pub fn new(own: Vec<WindowRule>) -> Self {
        let Table { window: table } =
            toml::from_str(BUILT_IN).expect("the built-in table is right");
        Self { own, table }
    }

    /// How much the model of a route can read; `server` is who can be asked.
    #[must_use]
    pub fn of(&self, route: &Route, server: Option<WindowServer>) -> Window {
        let name = route.to_string();
        let find = |rules: &[WindowRule]| {
            rules.iter().find(|rule| rule.r#match.is_match(&name)).map(|rule| rule.tokens)
        };
        Window { own: find(&self.own), server, listed: find(&self.table) }
    }
}

/// How much one model can read.
#[derive(Debug, Clone, Default)]
pub struct Window {
    own: Option<u64>,
    server: Option<WindowServer>,
    listed: Option<u64>,
}

impl Window {
    /// Tokens, if anybody knows.
    pub async fn tokens(&self) -> Option<u64> {
        if self.own.is_some() {
            return self.own;
        }
        let said = match &self.server {
            Some(server) => server.tokens().await,
            None => None,
        };
        said.or(self.listed)
    }
}

/// A server that can be asked.
#[derive(Clone)]
pub struct WindowServer {
    pub(super) http: Arc<Http>,
    /// Below which the API's paths lie.
    pub(super) base: String,
    pub(super) headers: HeaderMap,
    pub(super) model: String,
    /// Servers of this machine are asked for what only they have.
    pub(super) is_local: bool,
}

impl std::fmt::Debug for WindowServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowServer").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Finds the tokens of a model in what a server says.
type Read = fn(&Value, &str) -> Option<u64>;

/// Where a server may say it, below its root or its API, and how that is read.
const PLACES: [(bool, &str, Read); 4] = [
    (true, "/props", llama_cpp),
    (true, "/api/ps", ollama),
    (true, "/api/v0/models", lm_studio),
    (false, "/models", listed),
];

impl WindowServer {
    async fn tokens(&self) -> Option<u64> {
        let root = self.base.strip_suffix("/v1").unwrap_or(&self.base);
        let places = PLACES.iter().filter(|(only_local, ..)| self.is_local || !only_local);
        let asked = places.map(|(below_root, path, read)| async move {
            let url = format!("{}{path}", if *below_root { root } else { &self.base });
            let body = self.http.get(&url, self.headers.clone(), MAX_MODEL_LIST_BYTES);
            let body = tokio::time::timeout(WINDOW_TIMEOUT, body).await.ok()??;
            let value: Value = serde_json::from_slice(&body).ok()?;
            read(&value, &self.model).filter(|tokens| *tokens >= MIN_TOKENS)
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().next()
    }
}

fn llama_cpp(props: &Value, _: &str) -> Option<u64> {
    props.pointer("/default_generation_settings/n_ctx")?.as_u64()
}

fn ollama(loaded: &Value, model: &str) -> Option<u64> {
    let names = |entry: &&Value| {
        let named = |field| entry.get(field).and_then(Value::as_str);
        let same = |name: &str| name == model || name.strip_suffix(":latest") == Some(model);
        named("name").is_some_and(same) || named("model").is_some_and(same)
    };
    loaded.get("models")?.as_array()?.iter().find(names)?.get("context_length")?.as_u64()
}

fn lm_studio(list: &Value, model: &str) -> Option<u64> {
    entry(list, model)?.get("loaded_context_length")?.as_u64()
}

/// Under the names that vLLM, OpenRouter and Groq have for it.
fn listed(list: &Value, model: &str) -> Option<u64> {
    let entry = entry(list, model)?;
    let names = ["max_model_len", "context_length", "context_window"];
    names.iter().find_map(|name| entry.get(name)?.as_u64())
}

fn entry<'a>(list: &'a Value, model: &str) -> Option<&'a Value> {
    let is_meant = |entry: &&Value| entry.get("id").and_then(Value::as_str) == Some(model);
    list.get("data")?.as_array()?.iter().find(is_meant)
}

fn glob<'de, D: Deserializer<'de>>(from: D) -> Result<GlobMatcher, D::Error> {
    let text = String::deserialize(from)?;
    Glob::new(&text).map(|glob| glob.compile_matcher()).map_err(serde::de::Error::custom)
}

fn tokens<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let tokens = u64::deserialize(from)?;
    if tokens < MIN_TOKENS {
        return Err(serde::de::Error::custom(format!("tokens: must be at least {MIN_TOKENS}")));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_server_is_understood() {
        let check = |read: Read, answer: Value, expected: Option<u64>| {
            assert_eq!(read(&answer, "m"), expected, "{answer}");
        };
        check(llama_cpp, json!({"default_generation_settings": {"n_ctx": 4096}}), Some(4096));
        check(llama_cpp, json!({"error": "no such path"}), None);
        let ps = |name| json!({"models": [{"name": name, "context_length": 8192}]});
        check(ollama, ps("m:latest"), Some(8192));
        check(ollama, ps("m"), Some(8192));
        check(ollama, ps("other"), None);
        check(ollama, json!({"models": []}), None);
        let list = |field: &str| json!({"data": [{"id": "x", field: 1}, {"id": "m", field: 9000}]});
        check(lm_studio, list("loaded_context_length"), Some(9000));
        check(lm_studio, list("max_context_length"), None);
        for name in ["max_model_len", "context_length", "context_window"] {
            check(listed, list(name), Some(9000));
        }
        check(listed, json!({"data": "x"}), None);
        check(listed, json!({"data": [{"id": "m", "max_model_len": "9"}]}), None);
    }

    #[test]
    fn the_users_word_comes_before_the_table() {
        let own = "[[window]]\nmatch = \"openai/gpt-4o\"\ntokens = 4096";
        let Table { window } = toml::from_str(own).unwrap();
        let windows = Windows::new(window);
        let check = |provider: &str, model: &str, expected: Option<u64>| {
            let route = Route { provider: provider.to_owned(), model: model.to_owned() };
            let window = windows.of(&route, None);
            assert_eq!(window.own.or(window.listed), expected, "{provider}/{model}");
        };
        check("openai", "gpt-4o", Some(4096));
        check("openai", "gpt-4o-mini", Some(128_000));
        check("openai", "gpt-4", Some(8192));
        check("openai", "o3-mini", Some(200_000));
        check("mine", "anthropic/claude-sonnet-5-5", Some(200_000));
        check("ollama", "qwen3", None);
        let few = toml::from_str::<Table>("[[window]]\nmatch = \"*\"\ntokens = 5");
        assert!(few.err().unwrap().to_string().contains("must be at least 512"));
    }
}
