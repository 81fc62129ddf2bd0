//! What the tools of the web may do for an agent: which hosts, how much of a page, where an address may come from.
//!
//! Field names and bounds are those of the Managed Agents `web_fetch` and `web_search` configs.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{NamedToolConfig, ToolName};

use crate::environment::networking::{Host, HostName};

/// Most entries of a list of domains.
pub const MAX_DOMAINS: usize = 64;
/// Longest entry of a list of domains, in characters.
pub const MAX_DOMAIN_CHARS: usize = 255;
/// Names of no public host.
const LOCAL: [&str; 5] = ["localhost", "local", "internal", "localdomain", "invalid"];
/// Suffixes under which others register names; a rule for all of one is a mistake. The usual ones, not the whole list.
const PUBLIC_SUFFIXES: [&str; 16] = [
    "co.uk", "org.uk", "ac.uk", "gov.uk", "com.au", "net.au", "org.au", "co.jp", "ne.jp", "or.jp",
    "co.nz", "com.br", "com.cn", "co.in", "co.za", "com.mx",
];

/// A public host with all that is below it, and perhaps the beginning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    name: HostName,
    path: Option<Box<str>>,
}

impl Domain {
    /// Whether it begins a path too: searches can say so, pages cannot.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Whether a page at that path of that host is within. An address is within no domain.
    #[must_use]
    pub fn covers(&self, host: &Host, path: &str) -> bool {
        let Host::Name(name) = host else { return false };
        let begins = |own: &str| {
            let rest = path.trim_start_matches('/').strip_prefix(own);
            rest.is_some_and(|rest| rest.is_empty() || own.ends_with('/') || rest.starts_with('/'))
        };
        (*name == self.name || name.is_below(&self.name)) && self.path.as_deref().is_none_or(begins)
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)?;
        self.path.as_deref().map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

/// What is wrong with a domain. Fits after the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DomainError(String);

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(given: &str) -> Result<Self, DomainError> {
        let bad = |problem: &str| Err(DomainError(problem.to_owned()));
        let plain = given.strip_suffix('/').unwrap_or(given);
        let (host, path) = plain.split_once('/').map_or((plain, None), |(h, p)| (h, Some(p)));
        if given.contains("://") || host.contains([':', '*', '@', '?', '#']) {
            return bad("must be a plain hostname, without scheme, port or wildcard");
        }
        if path.is_some_and(|path| path.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return bad("has a path with a space in it");
        }
        let name: HostName = host.parse().map_err(|error| DomainError(format!("{error}")))?;
        let last = name.as_str().rsplit('.').next().unwrap_or_default();
        if LOCAL.contains(&last) {
            return bad("must be a public hostname");
        }
        if !name.as_str().contains('.') || PUBLIC_SUFFIXES.contains(&name.as_str()) {
            return bad("must be a domain, not a whole suffix of domains");
        }
        Ok(Self { name, path: path.map(Into::into) })
    }
}

impl Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which hosts a tool of the web may show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Domains {
    /// All of them.
    #[default]
    Any,
    /// These alone.
    #[serde(rename = "allowed_domains")]
    Only(Vec<Domain>),
    /// All but these.
    #[serde(rename = "blocked_domains")]
    Except(Vec<Domain>),
}

impl Domains {
    fn read(entry: &NamedToolConfig, whole_hosts: bool) -> Result<Self, (&'static str, String)> {
        let read = |field: &'static str, list: &[String]| {
            let of = |given: &String| {
                let domain =
                    given.parse::<Domain>().map_err(|problem| format!("`{given}` {problem}"))?;
                if whole_hosts && domain.has_path() {
                    return Err(format!("`{given}` must be a plain hostname, without a path"));
                }
                Ok(domain)
            };
            if list.is_empty() || list.len() > MAX_DOMAINS {
                return Err((field, format!("must have 1 to {MAX_DOMAINS} entries")));
            }
            list.iter().map(of).collect::<Result<Vec<_>, _>>().map_err(|problem| (field, problem))
        };
        match (&entry.allowed_domains, &entry.blocked_domains) {
            (Some(_), Some(_)) => {
                let problem = "only one of `allowed_domains` and `blocked_domains` can be set";
                Err(("blocked_domains", problem.to_owned()))
            }
            (Some(only), None) => read("allowed_domains", only).map(Self::Only),
            (None, Some(except)) => read("blocked_domains", except).map(Self::Except),
            (None, None) => Ok(Self::Any),
        }
    }

    /// Whether a page at that path of that host may be shown.
    #[must_use]
    pub fn allow(&self, host: &Host, path: &str) -> bool {
        let within = |domains: &[Domain]| domains.iter().any(|domain| domain.covers(host, path));
        match self {
            Self::Any => true,
            Self::Only(domains) => within(domains),
            Self::Except(domains) => !within(domains),
        }
    }
}

/// Settings of both tools of the web.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSettings {
    /// Of `web_fetch`.
    #[serde(default)]
    pub fetch: FetchSettings,
    /// Of `web_search`.
    #[serde(default)]
    pub search: SearchSettings,
}

impl WebSettings {
    /// Takes what a tool's entry in an agent's file says of the web.
    pub(super) fn read(
        &mut self,
        tool: ToolName,
        entry: &NamedToolConfig,
    ) -> Result<(), (&'static str, String)> {
        let fetches = tool == ToolName::WebFetch;
        let searches = tool == ToolName::WebSearch;
        let given = [
            ("allowed_domains", entry.allowed_domains.is_some(), fetches || searches),
            ("blocked_domains", entry.blocked_domains.is_some(), fetches || searches),
            ("max_content_tokens", entry.max_content_tokens.is_some(), fetches),
            ("url_sources", entry.url_sources.is_some(), fetches),
            ("user_location", entry.user_location.is_some(), searches),
        ];
        if let Some((field, ..)) = given.into_iter().find(|(_, given, fits)| *given && !fits) {
            return Err((field, format!("`{}` has no such setting", tool.as_str())));
        }
        if fetches {
            if entry.max_content_tokens == Some(0) {
                return Err(("max_content_tokens", "must be at least 1".to_owned()));
            }
            let sources = entry.url_sources.clone();
            if sources.as_ref().is_some_and(|sources| !sources.has_any()) {
                let problem = "must not be `none` for every source".to_owned();
                return Err(("url_sources", problem));
            }
            self.fetch = FetchSettings {
                domains: Domains::read(entry, fetches)?,
                max_content_tokens: entry.max_content_tokens,
                url_sources: sources,
            };
        } else if searches {
            let user_location = entry.user_location.clone();
            self.search = SearchSettings { domains: Domains::read(entry, fetches)?, user_location };
        }
        Ok(())
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings of `web_fetch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSettings {
    /// Which hosts.
    #[serde(default)]
    pub domains: Domains,
    /// Most of a page, in tokens of four characters; the whole page if absent.
    #[serde(default)]
    pub max_content_tokens: Option<u32>,
    /// Where an address may come from; anywhere if absent.
    #[serde(default)]
    pub url_sources: Option<UrlSources>,
}

/// Settings of `web_search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchSettings {
    /// Which hosts.
    #[serde(default)]
    pub domains: Domains,
    /// Where the user is, for providers that ask.
    #[serde(default)]
    pub user_location: Option<Location>,
}

/// About where somebody is. Every part is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Such as `Vienna`.
    pub city: Option<String>,
    /// Such as a state.
    pub region: Option<String>,
    /// Two letters (ISO 3166-1).
    pub country: Option<String>,
    /// Such as `Europe/Vienna`.
    pub timezone: Option<String>,
}

/// What may have said an address before it can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlSources {
    /// The user's messages.
    #[serde(default)]
    pub user_input: Source,
    /// Results of the client's own tools.
    #[serde(default)]
    pub client_tool_results: Source,
    /// Results of `web_search` and `web_fetch`.
    #[serde(default)]
    pub server_tool_results: Source,
}

impl UrlSources {
    /// Whether anything may name a page at all.
    #[must_use]
    pub fn has_any(&self) -> bool {
        let all = [&self.user_input, &self.client_tool_results, &self.server_tool_results];
        all.into_iter().any(|source| *source != Source::None)
    }
}

/// Which tools' results of a kind count. For messages it is all or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// All of them; also where nothing is set.
    #[default]
    All,
    /// None.
    None,
    /// Those of these tools.
    Only {
        /// Their names.
        tools: Vec<ToolReference>,
    },
    /// Those of all other tools.
    Except {
        /// Their names.
        tools: Vec<ToolReference>,
    },
}

/// A tool by name, in the protocol's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tool_reference")]
pub struct ToolReference {
    /// The name.
    pub name: String,
}

impl Source {
    /// Whether what that tool said counts.
    #[must_use]
    pub fn takes(&self, tool: &str) -> bool {
        let named = |tools: &[ToolReference]| tools.iter().any(|named| named.name == tool);
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only { tools } => named(tools),
            Self::Except { tools } => !named(tools),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_cover_what_they_say() {
        let check = |domain: &str, host: &str, path: &str, expected: bool| {
            let domain: Domain = domain.parse().unwrap();
            assert_eq!(
                domain.covers(&host.parse().unwrap(), path),
                expected,
                "{domain} {host}{path}"
            );
        };
        check("example.com", "example.com", "/", true);
        check("Example.COM/", "docs.example.com", "/a", true);
        check("example.com", "evilexample.com", "/", false);
        check("example.com", "example.com.evil.org", "/", false);
        check("example.com", "93.184.216.34", "/", false);
        check("example.com/docs", "example.com", "/docs", true);
        check("example.com/docs", "example.com", "/docs/a", true);
        check("example.com/docs", "example.com", "/docsecret", false);
        check("example.com/docs", "example.com", "/", false);
    }

    #[test]
    fn what_is_no_domain_is_said() {
        let check = |given: &str, expected: &str| {
            let error = given.parse::<Domain>().unwrap_err().to_string();
            assert!(error.contains(expected), "{given}: {error}");
        };
        check("https://example.com", "plain hostname");
        check("example.com:443", "plain hostname");
        check("*.example.com", "plain hostname");
        check("example.com/a b", "space");
        check("10.0.0.1", "is an address");
        check("localhost", "public hostname");
        check("db.internal", "public hostname");
        check("com", "whole suffix");
        check("co.uk", "whole suffix");
        check("bücher.example", "not ASCII");
    }

    #[test]
    fn sources_name_tools() {
        let tools = || vec![ToolReference { name: "lookup".to_owned() }];
        assert!(Source::All.takes("lookup") && !Source::None.takes("lookup"));
        assert!(Source::Only { tools: tools() }.takes("lookup"));
        assert!(!Source::Only { tools: tools() }.takes("other"));
        assert!(!Source::Except { tools: tools() }.takes("lookup"));
        let text = r#"{"type":"only","tools":[{"type":"tool_reference","name":"lookup"}]}"#;
        assert_eq!(serde_json::from_str::<Source>(text).unwrap(), Source::Only { tools: tools() });
    }
}
