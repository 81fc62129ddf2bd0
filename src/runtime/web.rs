//! The `[web]` part of the configuration, and which tools of the web a session has.

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::config::Env;
use crate::agent::{Agent, ToolName};
use crate::environment::Environment;
use crate::environment::networking::{HostRule, Networking};
use crate::web::{Provider, WebConfig};

/// `[web]` as a person writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWeb {
    /// Hosts of the user's own network that pages may come from.
    #[serde(default)]
    private_hosts: Vec<HostRule>,
    #[serde(default)]
    robots: FileRobots,
    #[serde(default)]
    proxy: FileProxy,
    search: Option<FileSearch>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileProxy {
    /// Addresses are found and judged here.
    #[default]
    None,
    /// Those that the environment names.
    Environment,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileRobots {
    #[default]
    Ignore,
    Obey,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSearch {
    provider: FileProvider,
    url: Option<String>,
    api_key_env: Option<String>,
    command: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileProvider {
    Searxng,
    Brave,
    Tavily,
    Exa,
    Command,
}

impl FileProvider {
    /// Where it is by default, and the variable that holds its key.
    fn usual(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Brave => Some(("https://api.search.brave.com", "BRAVE_API_KEY")),
            Self::Tavily => Some(("https://api.tavily.com", "TAVILY_API_KEY")),
            Self::Exa => Some(("https://api.exa.ai", "EXA_API_KEY")),
            Self::Searxng | Self::Command => None,
        }
    }
}

impl FileWeb {
    /// Checks it; keys come from the environment.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub(super) fn checked(self, env: &Env) -> Result<WebConfig, String> {
        let search = self.search.map(|search| search.checked(env)).transpose()?.flatten();
        Ok(WebConfig {
            private_hosts: self.private_hosts,
            obeys_robots: self.robots == FileRobots::Obey,
            search,
            through_proxy: self.proxy == FileProxy::Environment,
        })
    }
}

impl FileSearch {
    /// `None` if its key is not set: then there are no searches, and `doctor` says so.
    fn checked(self, env: &Env) -> Result<Option<Provider>, String> {
        let given = self.provider;
        if (given == FileProvider::Command) != self.command.is_some() {
            return Err(
                "web.search.command: goes with `provider = \"command\"`, and with it alone"
                    .to_owned(),
            );
        }
        if let Some(argv) = self.command {
            if argv.is_empty() || self.url.is_some() || self.api_key_env.is_some() {
                return Err("web.search.command: must name a program; it has neither `url` nor `api_key_env`".to_owned());
            }
            return Ok(Some(Provider::Command { argv }));
        }
        let usual = given.usual();
        let url = self.url.as_deref().or(usual.map(|(url, _)| url));
        let url = url.ok_or("web.search.url: must be given, such as http://127.0.0.1:8888")?;
        let url = Url::parse(url).map_err(|error| format!("web.search.url: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("web.search.url: must begin with http:// or https://".to_owned());
        }
        let Some((_, variable)) = usual else { return Ok(Some(Provider::Searxng { url })) };
        let variable = self.api_key_env.as_deref().unwrap_or(variable);
        let Some(key) = env.get(variable) else { return Ok(None) };
        let secret = |value: String| {
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| format!("{variable}: holds characters that no header can carry"))?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let key = key.trim();
        Ok(Some(match given {
            FileProvider::Brave => Provider::Brave { url, key: secret(key.to_owned())? },
            FileProvider::Tavily => Provider::Tavily { url, key: secret(format!("Bearer {key}"))? },
            FileProvider::Exa => Provider::Exa { url, key: secret(key.to_owned())? },
            FileProvider::Searxng | FileProvider::Command => unreachable!("they need no key"),
        }))
    }
}

/// Takes from an agent what its session could not use: searches where nobody is asked, and the web at all where the
/// session's own rules are that nothing leaves it.
pub(super) fn offered(
    mut agent: Agent,
    environment: &Environment,
    of_client: bool,
    can_search: bool,
) -> Agent {
    let nothing_leaves = !of_client && environment.networking == Networking::None;
    agent.tools.retain(|grant| match grant.name {
        ToolName::WebSearch => can_search && !nothing_leaves,
        ToolName::WebFetch => !nothing_leaves,
        _ => true,
    });
    agent
}
