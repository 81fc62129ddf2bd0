//! Searches, through whom the user's configuration names.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Web;
use crate::agent::web::{Domain, Domains, SearchSettings};
use crate::environment::networking::Host;
use crate::limits::{WEB_SEARCH_BYTES, WEB_SEARCH_HIT_CHARS, WEB_SEARCH_HITS, WEB_SEARCH_TIMEOUT};

/// Who searches. URLs are those of the provider or of a stand-in for it; keys show nowhere.
#[derive(Debug, Clone)]
pub enum Provider {
    /// A SearXNG instance, usually the user's own, with `json` among its formats.
    Searxng {
        /// Its root.
        url: Url,
    },
    /// Brave's API.
    Brave {
        /// Its root.
        url: Url,
        /// The subscription's token.
        key: HeaderValue,
    },
    /// Tavily's API.
    Tavily {
        /// Its root.
        url: Url,
        /// `Bearer` and the key.
        key: HeaderValue,
    },
    /// Exa's API.
    Exa {
        /// Its root.
        url: Url,
        /// The key.
        key: HeaderValue,
    },
    /// A program of the user's own: the query is its last argument, its output JSON, a list of `{title, url, snippet}`.
    Command {
        /// The program and its first arguments; not empty.
        argv: Vec<String>,
    },
}

impl Provider {
    /// Its name, as in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Searxng { .. } => "searxng",
            Self::Brave { .. } => "brave",
            Self::Tavily { .. } => "tavily",
            Self::Exa { .. } => "exa",
            Self::Command { .. } => "command",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hit {
    /// Its name.
    #[serde(default)]
    pub title: String,
    /// Where it is.
    pub url: String,
    /// What it says, in part.
    #[serde(default, alias = "content", alias = "description", alias = "text")]
    pub snippet: String,
}

impl Web {
    /// Searches, or says to the model why there is no answer.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what can be done.
    pub async fn search(&self, query: &str, settings: &SearchSettings) -> Result<Vec<Hit>, String> {
        let query = query.trim();
        if query.is_empty() {
            return Err("query is empty; say what to look for.".to_owned());
        }
        let Some(provider) = &self.config.search else {
            return Err(
                "There is no search provider; the user can set one in `[web.search]`.".to_owned()
            );
        };
        let found = tokio::time::timeout(
            WEB_SEARCH_TIMEOUT,
            ask(&self.clients().searching, provider, query, settings),
        );
        let found = found.await.unwrap_or_else(|_| Err(late(provider)))?;
        let mut hits: Vec<_> =
            found.into_iter().filter(|hit| is_wanted(hit, &settings.domains)).collect();
        hits.truncate(WEB_SEARCH_HITS);
        hits.iter_mut().for_each(shorten);
        Ok(hits)
    }
}

async fn ask(
    client: &Client,
    provider: &Provider,
    query: &str,
    settings: &SearchSettings,
) -> Result<Vec<Hit>, String> {
    let found = match request(client, provider, query, settings) {
        Some(request) => answer(provider, request).await?,
        None => run(provider, query).await?,
    };
    hits(&found).ok_or_else(|| {
        format!("The search provider `{}` answered in a form that is not its own.", provider.name())
    })
}

/// The request for a provider that is asked over HTTP.
fn request(
    client: &Client,
    provider: &Provider,
    query: &str,
    settings: &SearchSettings,
) -> Option<RequestBuilder> {
    let at = |url: &Url, path: &str| {
        let mut url = url.clone();
        let own = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{own}/{path}"));
        url
    };
    let place = settings.user_location.as_ref();
    let country = place.and_then(|place| place.country.as_deref());
    let (only, except) = lists(&settings.domains);
    let request = match provider {
        Provider::Searxng { url } => {
            client.get(with_query(at(url, "search"), &[("q", query), ("format", "json")]))
        }
        Provider::Brave { url, key } => {
            let mut pairs = vec![("q", query), ("count", "20")];
            pairs.extend(country.map(|country| ("country", country)));
            let url = with_query(at(url, "res/v1/web/search"), &pairs);
            client.get(url).header("x-subscription-token", key)
        }
        Provider::Tavily { url, key } => {
            let mut body = json!({ "query": query, "max_results": 20 });
            body["include_domains"] = only.into();
            body["exclude_domains"] = except.into();
            client.post(at(url, "search")).header(AUTHORIZATION, key).json(&body)
        }
        Provider::Exa { url, key } => {
            let text = json!({ "text": { "maxCharacters": WEB_SEARCH_HIT_CHARS } });
            let mut body = json!({ "query": query, "numResults": 20, "contents": text });
            if !only.is_empty() {
                body["includeDomains"] = only.into();
            }
            if !except.is_empty() {
                body["excludeDomains"] = except.into();
            }
            if let Some(country) = country {
                body["userLocation"] = country.into();
            }
            client.post(at(url, "search")).header("x-api-key", key).json(&body)
        }
        Provider::Command { .. } => return None,
    };
    Some(request.header(ACCEPT, "application/json").timeout(WEB_SEARCH_TIMEOUT))
}

fn with_query(mut url: Url, pairs: &[(&str, &str)]) -> Url {
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

/// What a provider that takes lists is told: hosts alone, since paths are its own business.
fn lists(domains: &Domains) -> (Vec<String>, Vec<String>) {
    let plain = |domains: &[Domain]| {
        domains.iter().filter(|domain| !domain.has_path()).map(ToString::to_string).collect()
    };
    match domains {
        Domains::Any => (Vec::new(), Vec::new()),
        // With one entry that cannot be said, the others would be all there is.
        Domains::Only(domains) if domains.iter().any(Domain::has_path) => (Vec::new(), Vec::new()),
        Domains::Only(domains) => (plain(domains), Vec::new()),
        Domains::Except(domains) => (Vec::new(), plain(domains)),
    }
}

async fn answer(provider: &Provider, request: RequestBuilder) -> Result<Value, String> {
    let name = provider.name();
    let broken = |error: &reqwest::Error| {
        if error.is_timeout() { late(provider) } else { unreachable(name) }
    };
    let mut response = request.send().await.map_err(|error| broken(&error))?;
    let status = response.status();
    if !status.is_success() {
        let wait = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
        return Err(match status.as_u16() {
            429 => limited(name, wait),
            401 | 403 if name == "searxng" => format!(
                "The search provider `{name}` answered {status}; the user must add `json` to `search.formats` in its settings."
            ),
            401 | 403 => format!(
                "The search provider `{name}` does not take the user's key ({status}). Go on without searching."
            ),
            _ => format!(
                "The search provider `{name}` answered {status}. Try once more, or go on without searching."
            ),
        });
    }
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + piece.len() > WEB_SEARCH_BYTES {
            return Err(format!(
                "The search provider `{name}` answered with more than {WEB_SEARCH_BYTES} bytes."
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| format!("The search provider `{name}` answered with no JSON."))
}

fn limited(name: &str, wait: Option<u32>) -> String {
    let wait = wait.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} s"));
    format!(
        "The search provider `{name}` limits how often it is asked (429). Try again {wait}, or go on without searching."
    )
}

fn late(provider: &Provider) -> String {
    let seconds = WEB_SEARCH_TIMEOUT.as_secs();
    format!("The search provider `{}` did not answer within {seconds} s.", provider.name())
}

fn unreachable(name: &str) -> String {
    format!("The search provider `{name}` cannot be reached. Go on without searching.")
}

/// Runs the user's own program. It ends at its deadline.
async fn run(provider: &Provider, query: &str) -> Result<Value, String> {
    let Provider::Command { argv } = provider else {
        unreachable!("all others are asked over HTTP")
    };
    let (argv, query) = (argv.clone(), query.to_owned());
    let ran = tokio::task::spawn_blocking(move || output_of(&argv, &query)).await;
    let output = ran.expect("running a program does not panic")?;
    serde_json::from_slice(&output)
        .map_err(|_| format!("The search command `{}` printed no JSON.", argv_name(provider)))
}

fn argv_name(provider: &Provider) -> &str {
    match provider {
        Provider::Command { argv } => &argv[0],
        other => other.name(),
    }
}

fn output_of(argv: &[String], query: &str) -> Result<Vec<u8>, String> {
    let name = &argv[0];
    let failed = |error: std::io::Error| format!("The search command `{name}` failed: {error}.");
    let mut command = Command::new(name);
    command
        .args(&argv[1..])
        .arg(query)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let stdout = child.stdout.take().expect("it is piped");
    let bound = u64::try_from(WEB_SEARCH_BYTES).unwrap_or(u64::MAX);
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        stdout.take(bound).read_to_end(&mut output).map(|_| output)
    });
    let deadline = Instant::now() + WEB_SEARCH_TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(LOOK),
        }
    };
    let Some(status) = status else {
        child.kill().and_then(|()| child.wait()).map_err(failed)?;
        return Err(format!(
            "The search command `{name}` did not end within {} s.",
            WEB_SEARCH_TIMEOUT.as_secs()
        ));
    };
    if !status.success() {
        return Err(format!("The search command `{name}` failed ({status})."));
    }
    reader.join().expect("reading does not panic").map_err(failed)
}

/// How often a program is looked at for its end.
const LOOK: Duration = Duration::from_millis(10);

/// The hits within an answer of any provider: a list, or one below `results` or `web.results`.
fn hits(answer: &Value) -> Option<Vec<Hit>> {
    let within = [answer, &answer["results"], &answer["web"]["results"]];
    let list = within.into_iter().find_map(Value::as_array);
    let none =
        || answer["type"].is_string() || answer["query"].is_string() || answer["web"].is_object();
    let Some(list) = list else { return none().then(Vec::new) };
    Some(list.iter().filter_map(|hit| serde_json::from_value(hit.clone()).ok()).collect())
}

/// Providers know no lists, or their own kind: what is closed is dropped without a word, as the protocol says.
fn is_wanted(hit: &Hit, domains: &Domains) -> bool {
    let Ok(url) = Url::parse(&hit.url) else { return false };
    let host = url.host_str().and_then(|host| host.parse::<Host>().ok());
    let web = matches!(url.scheme(), "http" | "https");
    web && host.is_some_and(|host| domains.allow(&host, url.path()))
}

fn shorten(hit: &mut Hit) {
    for text in [&mut hit.title, &mut hit.snippet] {
        let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        *text = plain.chars().take(WEB_SEARCH_HIT_CHARS).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_found_in_every_provider_s_answer() {
        let hit = |snippet: &str| Hit {
            title: "T".to_owned(),
            url: "https://a.example/".to_owned(),
            snippet: snippet.to_owned(),
        };
        let check = |answer: Value, expected: Option<Vec<Hit>>| {
            assert_eq!(hits(&answer), expected, "{answer}");
        };
        let url = "https://a.example/";
        check(
            json!({ "query": "q", "results": [{ "title": "T", "url": url, "content": "s" }] }),
            Some(vec![hit("s")]),
        );
        check(
            json!({ "web": { "results": [{ "title": "T", "url": url, "description": "d" }] } }),
            Some(vec![hit("d")]),
        );
        check(
            json!({ "results": [{ "title": "T", "url": url, "text": "x" }] }),
            Some(vec![hit("x")]),
        );
        check(json!([{ "title": "T", "url": url, "snippet": "c" }]), Some(vec![hit("c")]));
        check(
            json!({ "results": [{ "title": 1, "url": url }, { "title": "T", "url": url }] }),
            Some(vec![hit("")]),
        );
        check(json!({ "type": "search", "query": {} }), Some(vec![]));
        check(json!({ "error": "no" }), None);
        check(json!("no"), None);
    }

    #[test]
    fn what_the_lists_close_is_dropped() {
        let only = Domains::Only(vec!["docs.example.com/api".parse().unwrap()]);
        let except = Domains::Except(vec!["spam.example".parse().unwrap()]);
        let check = |url: &str, domains: &Domains, expected: bool| {
            let hit = Hit { title: String::new(), url: url.to_owned(), snippet: String::new() };
            assert_eq!(is_wanted(&hit, domains), expected, "{url}");
        };
        check("https://docs.example.com/api/x", &only, true);
        check("https://docs.example.com/blog", &only, false);
        check("https://www.spam.example/", &except, false);
        check("https://other.example/", &except, true);
        check("javascript:alert(1)", &Domains::Any, false);
        check("nonsense", &Domains::Any, false);
    }
}
