//! From a model id to the server that has the model: the table of providers, the routes, the catalog that opens them.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use globset::{Glob, GlobMatcher};
use serde_json::Value;

use super::anthropic::Anthropic;
pub use super::http::Secret;
use super::http::{Http, is_local};
use super::openai::{self, OpenAi};
use super::scripted::Scripted;
use super::windows::WindowServer;
use super::{Model, ModelError};
use crate::limits::MAX_MODEL_LIST_BYTES;

/// The name under which scripts are reached: `scripted:FILE`.
pub const SCRIPTED: &str = "scripted";

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The Messages API.
    Anthropic,
    /// Chat Completions.
    OpenAi,
}

/// A model server.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// How routes name it; no `/` in it.
    pub name: String,
    /// What it speaks.
    pub api: Api,
    /// Where it is.
    pub base_url: String,
    /// Its key, already read from wherever it is kept.
    pub key: Option<Secret>,
    /// The environment variable that the key is read from.
    pub key_variable: Option<String>,
    /// Whether it refuses requests without a key.
    pub key_required: bool,
    /// Whether it is to hold its models to calls that fit their tools.
    pub constrain_calls: bool,
}

/// The providers that everyone has: name, format, address, key variable.
const BUILT_IN: [(&str, Api, &str, Option<&str>); 6] = [
    ("anthropic", Api::Anthropic, "https://api.anthropic.com", Some("ANTHROPIC_API_KEY")),
    ("openai", Api::OpenAi, "https://api.openai.com/v1", Some("OPENAI_API_KEY")),
    ("ollama", Api::OpenAi, "http://127.0.0.1:11434/v1", None),
    ("llamacpp", Api::OpenAi, "http://127.0.0.1:8080/v1", None),
    ("lmstudio", Api::OpenAi, "http://127.0.0.1:1234/v1", None),
    ("vllm", Api::OpenAi, "http://127.0.0.1:8000/v1", None),
];

/// Ids without a provider, by how they begin.
const DEFAULTS: [(&str, &str); 7] = [
    ("claude-", "anthropic"),
    ("gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("chatgpt-", "openai"),
    ("codex-", "openai"),
];

impl ProviderConfig {
    /// The built-in providers, without keys.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let config = |(name, api, base_url, variable): (&str, Api, &str, Option<&str>)| Self {
            name: name.to_owned(),
            api,
            base_url: base_url.to_owned(),
            key: None,
            key_variable: variable.map(str::to_owned),
            key_required: variable.is_some(),
            constrain_calls: false,
        };
        BUILT_IN.map(config).into()
    }

    /// That calls can be constrained where they are to be.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let is_vendor = self.api == Api::OpenAi && openai::is_vendor(&self.base_url);
        let problem = match self.api {
            _ if !self.constrain_calls => return Ok(()),
            Api::Anthropic => {
                "the Messages API has no such thing; use `api = \"openai\"`, if the server speaks that too"
            }
            Api::OpenAi if is_vendor => {
                "OpenAI's own models need none, and its server takes no such schema; leave it out"
            }
            Api::OpenAi => return Ok(()),
        };
        Err(format!("providers.{}.constrain_calls: {problem}", self.name))
    }

    fn is_local(&self) -> bool {
        let url = reqwest::Url::parse(&self.base_url);
        url.is_ok_and(|url| url.host_str().is_some_and(is_local))
    }
}

/// A provider's model. Displays as `PROVIDER/MODEL`, or `scripted:FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The provider's name.
    pub provider: String,
    /// The model's own name there; a path for a script.
    pub model: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.provider == SCRIPTED { ':' } else { '/' };
        write!(f, "{}{between}{}", self.provider, self.model)
    }
}

/// A rule of the user's: ids that match go there.
#[derive(Debug, Clone)]
pub struct Rule {
    glob: GlobMatcher,
    /// `PROVIDER/MODEL`, or `PROVIDER` to keep the id.
    target: String,
}

impl Rule {
    /// A rule for ids that match `glob`.
    ///
    /// # Errors
    /// When the glob is none.
    pub fn new(glob: &str, target: &str) -> Result<Self, RouteError> {
        let bad = |e: globset::Error| RouteError::Glob {
            glob: glob.to_owned(),
            reason: e.kind().to_string(),
        };
        let glob = Glob::new(glob).map_err(bad)?.compile_matcher();
        Ok(Self { glob, target: target.to_owned() })
    }

    /// The one id that matches, where the glob is no more than an id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        let glob = self.glob.glob().glob();
        (!glob.contains(['*', '?', '[', '{', '\\'])).then_some(glob)
    }
}

impl FromStr for Rule {
    type Err = RouteError;

    /// Reads `GLOB=TARGET`.
    fn from_str(rule: &str) -> Result<Self, RouteError> {
        let (glob, target) = rule.split_once('=').ok_or_else(|| RouteError::Glob {
            glob: rule.to_owned(),
            reason: "expected GLOB=PROVIDER/MODEL".to_owned(),
        })?;
        Self::new(glob, target)
    }
}

/// Why a model id leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No rule knows the id.
    #[error(
        "no provider is known for the model `{id}`; write PROVIDER/MODEL, such as `ollama/{id}`, with one of the \
         providers {providers}"
    )]
    Unknown {
        /// The id.
        id: String,
        /// The providers' names.
        providers: String,
    },
    /// A rule's target names no provider.
    #[error("the route for `{id}` leads to `{target}`, which is none of the providers {providers}")]
    Target {
        /// The id.
        id: String,
        /// Where the rule leads.
        target: String,
        /// The providers' names.
        providers: String,
    },
    /// Nothing stands where the model's name should.
    #[error("`{id}` names no model")]
    Empty {
        /// The id.
        id: String,
    },
    /// A rule cannot be read.
    #[error("the route `{glob}` cannot be read: {reason}")]
    Glob {
        /// The glob, or the whole rule.
        glob: String,
        /// What is wrong.
        reason: String,
    },
}

/// The providers and the rules.
#[derive(Debug, Clone)]
pub struct Routes {
    providers: Vec<ProviderConfig>,
    rules: Vec<Rule>,
}

/// A model id that means the same from every directory: the file of a script by its absolute path.
#[must_use]
pub fn settled(id: &str) -> String {
    let script = id.strip_prefix(SCRIPTED).and_then(|rest| rest.strip_prefix(':'));
    match script.map(std::path::absolute) {
        Some(Ok(path)) => format!("{SCRIPTED}:{}", path.display()),
        _ => id.to_owned(),
    }
}

impl Routes {
    /// Of two providers with one name the later counts; of two rules that match, the earlier.
    #[must_use]
    pub fn new(providers: Vec<ProviderConfig>, rules: Vec<Rule>) -> Self {
        let mut unique: Vec<ProviderConfig> = Vec::with_capacity(providers.len());
        for provider in providers {
            match unique.iter_mut().find(|known| known.name == provider.name) {
                Some(known) => *known = provider,
                None => unique.push(provider),
            }
        }
        Self { providers: unique, rules }
    }

    /// The configured providers.
    #[must_use]
    pub fn providers(&self) -> &[ProviderConfig] {
        &self.providers
    }

    /// Finds the server for an id: a script, a provider named outright, a rule, or how the id begins.
    ///
    /// # Errors
    /// When nothing knows the id; the error says which providers there are.
    pub fn resolve(&self, id: &str) -> Result<Route, RouteError> {
        if let Some(path) = id.strip_prefix(SCRIPTED).and_then(|rest| rest.strip_prefix(':')) {
            return route(id, SCRIPTED, path);
        }
        if let Some((provider, model)) = self.named_outright(id) {
            return route(id, provider, model);
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.glob.is_match(id)) {
            return self.follow(rule, id);
        }
        let default = DEFAULTS.iter().find(|(start, _)| id.starts_with(start));
        match default.and_then(|(_, provider)| self.provider(provider)) {
            Some(provider) => route(id, &provider.name, id),
            None if id.trim().is_empty() => Err(RouteError::Empty { id: id.to_owned() }),
            None => Err(RouteError::Unknown { id: id.to_owned(), providers: self.names() }),
        }
    }

    fn follow(&self, rule: &Rule, id: &str) -> Result<Route, RouteError> {
        if let Some((provider, model)) = self.named_outright(&rule.target) {
            return route(id, provider, model);
        }
        if self.provider(&rule.target).is_some() {
            return route(id, &rule.target, id);
        }
        if rule.target.starts_with("scripted:") {
            return self.resolve(&rule.target);
        }
        let (id, target) = (id.to_owned(), rule.target.clone());
        Err(RouteError::Target { id, target, providers: self.names() })
    }

    /// Whether the provider runs on this machine.
    #[must_use]
    pub fn is_local(&self, provider: &str) -> bool {
        provider == SCRIPTED || self.provider(provider).is_some_and(ProviderConfig::is_local)
    }

    /// Whether the route's model can be given a PDF as it is: by the two vendors' APIs. Other servers of Chat Completions
    /// have no form for it.
    #[must_use]
    pub fn takes_documents(&self, route: &Route) -> bool {
        self.provider(&route.provider).is_none_or(|provider| match provider.api {
            Api::Anthropic => true,
            Api::OpenAi => openai::takes_documents(&provider.base_url),
        })
    }

    fn named_outright<'a>(&self, id: &'a str) -> Option<(&'a str, &'a str)> {
        id.split_once('/').filter(|(provider, _)| self.provider(provider).is_some())
    }

    fn provider(&self, name: &str) -> Option<&ProviderConfig> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    fn names(&self) -> String {
        self.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn is_http(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url);
    parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn route(id: &str, provider: &str, model: &str) -> Result<Route, RouteError> {
    if model.trim().is_empty() {
        return Err(RouteError::Empty { id: id.to_owned() });
    }
    Ok(Route { provider: provider.to_owned(), model: model.to_owned() })
}

/// A local server that answered, and the models that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The provider's name.
    pub provider: String,
    /// Its models, in its own order.
    pub models: Vec<String>,
}

/// Opens models. The connections are shared; a script is, because it counts the errors that it has given.
pub struct Catalog {
    routes: Routes,
    http: Arc<Http>,
    scripts: Mutex<HashMap<String, Arc<Scripted>>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog of these routes.
    #[must_use]
    pub fn new(routes: Routes, http: Arc<Http>) -> Self {
        Self { routes, http, scripts: Mutex::default() }
    }

    /// The routes.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The connections.
    pub(crate) fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http)
    }

    /// The model of a route, for one conversation. Connects to nothing yet; reads a script's file.
    ///
    /// # Errors
    /// When the provider is gone or wants a key that is not there, or a script cannot be read.
    pub fn model(&self, route: &Route) -> Result<Arc<dyn Model>, ModelError> {
        if route.provider == SCRIPTED {
            return Ok(self.script(&route.model)?);
        }
        let provider = self.routes.provider(&route.provider).ok_or_else(|| {
            let reason = format!("it is none of the providers {}", self.routes.names());
            ModelError::Unsupported { provider: route.provider.clone(), reason }
        })?;
        let key = provider.key.clone().filter(|key| !key.is_empty());
        if key.is_none() && provider.key_required {
            let variable = provider.key_variable.clone();
            return Err(ModelError::MissingKey {
                provider: provider.name.clone(),
                variable: variable.unwrap_or_else(|| "its key in the configuration".to_owned()),
            });
        }
        let (name, base_url) = (&provider.name, &provider.base_url);
        if !is_http(base_url) {
            let reason = "its base URL is no URL that begins with http:// or https://".to_owned();
            return Err(ModelError::Unsupported { provider: name.clone(), reason });
        }
        let http = Arc::clone(&self.http);
        http.check(base_url)
            .map_err(|reason| ModelError::Unsupported { provider: name.clone(), reason })?;
        Ok(match provider.api {
            Api::Anthropic => Arc::new(Anthropic::new(http, name, base_url, key)),
            Api::OpenAi if provider.constrain_calls => {
                Arc::new(OpenAi::new(http, name, base_url, key).constrained())
            }
            Api::OpenAi => Arc::new(OpenAi::new(http, name, base_url, key)),
        })
    }

    /// Who can be asked how much the model of a route can read. The two vendors' models are in the table.
    #[must_use]
    pub fn window_server(&self, route: &Route) -> Option<WindowServer> {
        let provider = self.routes.provider(&route.provider)?;
        let is_vendor = ["anthropic", "openai"].contains(&provider.name.as_str());
        if is_vendor || self.http.check(&provider.base_url).is_err() {
            return None;
        }
        Some(WindowServer {
            http: Arc::clone(&self.http),
            base: openai::base(&provider.base_url),
            headers: openai::headers(&provider.name, provider.key.as_ref()).ok()?,
            model: route.model.clone(),
            is_local: provider.is_local(),
        })
    }

    fn script(&self, path: &str) -> Result<Arc<Scripted>, ModelError> {
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(script) = scripts.get(path) {
            return Ok(Arc::clone(script));
        }
        let script = Arc::new(Scripted::load(Path::new(path))?);
        scripts.insert(path.to_owned(), Arc::clone(&script));
        Ok(script)
    }

    /// Asks every provider on this machine which models it has, all at once, none longer than `within`.
    pub async fn detect_local(&self, within: Duration) -> Vec<Detected> {
        let local = self.routes.providers.iter().filter(|p| p.is_local());
        let probes = local.map(|provider| async move {
            let models = tokio::time::timeout(within, self.models_of(provider)).await.ok()??;
            Some(Detected { provider: provider.name.clone(), models })
        });
        futures_util::future::join_all(probes).await.into_iter().flatten().collect()
    }

    async fn models_of(&self, provider: &ProviderConfig) -> Option<Vec<String>> {
        let url = match provider.api {
            Api::OpenAi => format!("{}/models", openai::base(&provider.base_url)),
            Api::Anthropic => {
                let base = provider.base_url.trim_end_matches('/');
                format!("{}/v1/models", base.strip_suffix("/v1").unwrap_or(base))
            }
        };
        let headers = openai::headers(&provider.name, provider.key.as_ref()).ok()?;
        let body = self.http.get(&url, headers, MAX_MODEL_LIST_BYTES).await?;
        let list: Value = serde_json::from_slice(&body).ok()?;
        let ids = list.get("data")?.as_array()?.iter();
        Some(ids.filter_map(|model| model.get("id")?.as_str().map(str::to_owned)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[(&str, &str)], id: &str, expected: Result<&str, &str>) {
        let rules = rules.iter().map(|(glob, to)| Rule::new(glob, to).expect("a glob")).collect();
        let routes = Routes::new(ProviderConfig::built_in(), rules);
        let got = routes.resolve(id).map(|r| r.to_string()).map_err(|e| e.to_string());
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{id}");
    }

    #[test]
    fn the_vendors_take_documents() {
        let mut providers = ProviderConfig::built_in();
        let mine = |name: &str, api, base_url: &str| ProviderConfig {
            name: name.to_owned(),
            api,
            base_url: base_url.to_owned(),
            ..providers[0].clone()
        };
        providers.extend([
            mine("relay", Api::Anthropic, "http://127.0.0.1:9/anthropic"),
            mine("azure", Api::OpenAi, "https://api.openai.com:443/v1"),
            mine("resold", Api::OpenAi, "https://models.example/v1"),
        ]);
        let routes = Routes::new(providers, Vec::new());
        let check = |id: &str, expected: bool| {
            assert_eq!(routes.takes_documents(&routes.resolve(id).unwrap()), expected, "{id}");
        };
        check("anthropic/m", true);
        check("relay/m", true);
        check("openai/m", true);
        check("azure/m", true);
        check("resold/m", false);
        check("ollama/m", false);
        check("scripted:m", true);
    }

    #[test]
    fn ids_find_their_servers() {
        let all = "anthropic, openai, ollama, llamacpp, lmstudio, vllm";
        check(&[], "claude-sonnet-4-5", Ok("anthropic/claude-sonnet-4-5"));
        check(&[], "gpt-5", Ok("openai/gpt-5"));
        check(&[], "o3-mini", Ok("openai/o3-mini"));
        check(&[], "ollama/qwen3:8b", Ok("ollama/qwen3:8b"));
        check(&[], "vllm/org/model", Ok("vllm/org/model"));
        check(&[], "scripted:demo.yaml", Ok("scripted:demo.yaml"));
        check(
            &[],
            "qwen3",
            Err(&format!(
                "no provider is known for the model `qwen3`; write PROVIDER/MODEL, such as `ollama/qwen3`, with one of the providers {all}"
            )),
        );
        check(&[], "ollama/", Err("`ollama/` names no model"));
        check(&[], "scripted:", Err("`scripted:` names no model"));
        check(&[], " ", Err("` ` names no model"));
        let rules = [
            ("fast", "ollama/qwen3"),
            ("claude-*", "llamacpp"),
            ("s", "scripted:x"),
            ("b", "nope/x"),
        ];
        check(&rules, "fast", Ok("ollama/qwen3"));
        check(&rules, "claude-x", Ok("llamacpp/claude-x"));
        check(&rules, "anthropic/claude-x", Ok("anthropic/claude-x"));
        check(&rules, "s", Ok("scripted:x"));
        check(
            &rules,
            "b",
            Err(&format!(
                "the route for `b` leads to `nope/x`, which is none of the providers {all}"
            )),
        );
        check(&[("*", "ollama")], "org/model", Ok("ollama/org/model"));
    }

    #[test]
    fn rules_are_read_from_text() {
        assert!("a*=ollama/b".parse::<Rule>().is_ok());
        for (rule, id) in [("fast=ollama", Some("fast")), ("f*=ollama", None), ("{a,b}=x", None)] {
            assert_eq!(rule.parse::<Rule>().expect("a rule").id(), id, "{rule}");
        }
        let error = "a[=ollama".parse::<Rule>().expect_err("a broken glob");
        assert!(error.to_string().starts_with("the route `a[` cannot be read"), "{error}");
    }

    #[test]
    fn a_missing_key_names_its_variable_and_a_key_shows_nowhere() {
        let mut providers = ProviderConfig::built_in();
        providers[1].key = Some(Secret::new(" sk-hidden\n"));
        let http =
            Arc::new(Http::new(super::super::http::HttpOptions::default()).expect("defaults"));
        let catalog = Catalog::new(Routes::new(providers, Vec::new()), http);
        assert!(!format!("{catalog:?}").contains("hidden"));
        let model = |id| catalog.model(&catalog.routes().resolve(id).expect("a route")).map(|_| ());
        assert_eq!(model("gpt-5"), Ok(()));
        assert_eq!(model("ollama/x"), Ok(()));
        let error = model("claude-x").expect_err("no key").to_string();
        assert_eq!(error, "no API key for provider `anthropic`: set ANTHROPIC_API_KEY");
    }

    #[test]
    fn a_base_url_must_be_one_that_can_be_asked() {
        let check = |base_url: &str, good: bool| {
            let mut providers = ProviderConfig::built_in();
            base_url.clone_into(&mut providers[2].base_url);
            let http =
                Arc::new(Http::new(super::super::http::HttpOptions::default()).expect("defaults"));
            let catalog = Catalog::new(Routes::new(providers, Vec::new()), http);
            let route = catalog.routes().resolve("ollama/x").expect("a route");
            assert_eq!(catalog.model(&route).is_ok(), good, "{base_url}");
        };
        check("http://127.0.0.1:1", true);
        check("https://example.com/v1/", true);
        for bad in ["localhost:8080", "127.0.0.1:8080", "", "ftp://h", "http://", "file:///v1"] {
            check(bad, false);
        }
    }
}
