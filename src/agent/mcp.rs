//! MCP servers of an agent: where each is, which of its tools the agent has under which policy, and what they are called.
//!
//! Field names and bounds are those of the Managed Agents `mcp_servers` and `mcp_toolset`; servers that are programs are an
//! extension of agent files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AgentError, PermissionPolicy, ToolConfig, ToolParams, bad};
use crate::environment::networking::{Host, Networking};

/// Most servers of one agent.
pub const MAX_SERVERS: usize = 20;
/// Longest name of a server in characters.
pub const MAX_SERVER_NAME_CHARS: usize = 255;
/// Longest URL of a server in characters.
pub const MAX_URL_CHARS: usize = 2048;
/// Longest name of a tool that every provider takes.
pub const MAX_SHOWN_NAME: usize = 64;
/// The type of a toolset of a server.
pub const MCP_TOOLSET: &str = "mcp_toolset";
/// How the names begin under which the model knows the tools of servers.
pub const PREFIX: &str = "mcp__";

/// A server and what the agent has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    /// 1 to 255 characters, no other server's.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// For every tool without an entry of its own.
    pub default: Setting,
    /// Tools with settings of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Setting>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Place {
    /// On the network, or on this machine.
    Url {
        /// Begins with `http://` or `https://`.
        url: String,
    },
    /// A program that runs in the session's sandbox and is spoken to over its standard streams.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
        /// Variables besides those that the sandbox gives.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
    },
}

impl Place {
    /// Whether the server runs in the session's sandbox.
    #[must_use]
    pub fn is_sandboxed(&self) -> bool {
        match self {
            Self::Stdio { .. } => true,
            Self::Url { .. } => false,
        }
    }
}

/// Whether the model has a tool, and whether it may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The model has it.
    pub enabled: bool,
    /// Whether its calls run at once.
    pub permission_policy: PermissionPolicy,
}

impl Default for Setting {
    /// Others wrote the tool, so its calls ask.
    fn default() -> Self {
        Self { enabled: true, permission_policy: PermissionPolicy::AlwaysAsk }
    }
}

impl Setting {
    /// This one, as far as `config` says nothing else.
    fn but(self, config: ToolConfig) -> Self {
        Self {
            enabled: config.enabled.unwrap_or(self.enabled),
            permission_policy: config.permission_policy.unwrap_or(self.permission_policy),
        }
    }
}

impl McpServer {
    /// Whether rules of a network let a session speak with it: its host is named, or servers need not be.
    #[must_use]
    pub fn is_open(&self, rules: &Networking) -> bool {
        let Place::Url { url } = &self.place else { return true };
        let hosts = match rules {
            Networking::Unrestricted | Networking::Limited { allow_mcp_servers: true, .. } => {
                return true;
            }
            Networking::Limited { allowed_hosts, .. } => &allowed_hosts[..],
            Networking::None => &[],
        };
        host_of(url).is_some_and(|(host, port)| hosts.iter().any(|rule| rule.covers(&host, port)))
    }

    /// What the agent may do with a tool of that name.
    #[must_use]
    pub fn setting(&self, tool: &str) -> Setting {
        self.tools.get(tool).copied().unwrap_or(self.default)
    }
}

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerTool {
    /// Its name at the server.
    pub name: String,
    /// What it does, in the server's words; may be empty.
    pub description: String,
    /// JSON Schema of its input, of type `object`.
    pub input_schema: Map<String, Value>,
}

/// The name under which the model knows a tool of a server: `mcp__SERVER__TOOL` where that is a name that providers take
/// and no other tool can have; else its beginning, and a mark of the whole.
#[must_use]
pub fn shown_name(server: &str, tool: &str) -> String {
    let plain = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        text.chars().map(|c| if plain(c) { c } else { '_' }).collect::<String>()
    };
    let (of, own) = (plain(server), plain(tool));
    let whole = format!("{PREFIX}{of}__{own}");
    let is_alone = of == server && own == tool && !of.contains("__") && !of.ends_with('_');
    if is_alone && whole.len() <= MAX_SHOWN_NAME {
        return whole;
    }
    let mark = mark(server, tool);
    format!("{}_{mark:08x}", &whole[..whole.len().min(MAX_SHOWN_NAME - 9)])
}

/// FNV-1a: logs are read by later versions, so the mark must be the same in all of them.
fn mark(server: &str, tool: &str) -> u32 {
    let bytes = server.bytes().chain([0]).chain(tool.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A server as a person writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerParams {
    /// `url` or `stdio`.
    pub r#type: String,
    /// See [`McpServer::name`].
    pub name: String,
    /// See [`Place::Url`].
    pub url: Option<String>,
    /// See [`Place::Stdio`].
    pub command: Option<String>,
    /// See [`Place::Stdio`].
    pub args: Option<Vec<String>>,
    /// See [`Place::Stdio`].
    pub env: Option<BTreeMap<String, String>>,
}

impl ServerParams {
    /// The server with the default settings.
    ///
    /// # Errors
    /// Names the field below `at` that is wrong.
    pub fn validate(self, at: &str) -> Result<McpServer, AgentError> {
        let length = self.name.chars().count();
        if length == 0 || length > MAX_SERVER_NAME_CHARS {
            return Err(bad(format!("{at}.name"), "must have 1 to 255 characters"));
        }
        let place = match (self.r#type.as_str(), self.url, self.command) {
            ("url", Some(url), None) if self.args.is_none() && self.env.is_none() => {
                check_url(&url).map_err(|problem| bad(format!("{at}.url"), problem))?;
                Place::Url { url }
            }
            ("stdio", None, Some(command)) if !command.trim().is_empty() => Place::Stdio {
                command,
                args: self.args.unwrap_or_default(),
                env: self.env.unwrap_or_default(),
            },
            ("url", ..) => return Err(bad(at, "a server of type `url` has `url` and no program")),
            ("stdio", ..) => {
                let problem =
                    "a server of type `stdio` has `command`, and perhaps `args` and `env`";
                return Err(bad(at, problem));
            }
            (other, ..) => {
                let problem = format!("`{other}` is not supported; it is `url` or `stdio`");
                return Err(bad(format!("{at}.type"), problem));
            }
        };
        check_words(&place).map_err(|problem| bad(at, problem))?;
        let (default, tools) = (Setting::default(), BTreeMap::new());
        Ok(McpServer { name: self.name, place, default, tools })
    }
}

/// Whether it can be the URL of a server.
///
/// # Errors
/// What it must be.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    if url.chars().count() > MAX_URL_CHARS {
        return Err("must have at most 2048 characters");
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with(['/', ':', '?', '#']))
        || url.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err("must be a URL that begins with https:// or http://");
    }
    let host = rest.unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("must hold no user name and no password");
    }
    Ok(())
}

/// The host of a URL, and its port.
fn host_of(url: &str) -> Option<(Host, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let usual = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    Some((host.parse().ok()?, port))
}

/// What no program can be given.
fn check_words(place: &Place) -> Result<(), String> {
    let Place::Stdio { command, args, env } = place else { return Ok(()) };
    let mut words = std::iter::once(command).chain(args).chain(env.keys()).chain(env.values());
    if words.any(|word| word.contains('\0')) {
        return Err("its program's words hold a NUL byte, which no word can".to_owned());
    }
    match env.keys().find(|name| name.is_empty() || name.contains('=')) {
        Some(name) => Err(format!("`{name}` is no name of a variable")),
        None => Ok(()),
    }
}

/// Joins servers with the toolsets that speak of them: each has one.
///
/// # Errors
/// Names the field that is wrong.
pub(super) fn resolve(
    servers: Vec<ServerParams>,
    sets: Vec<(String, ToolParams)>,
) -> Result<Vec<McpServer>, AgentError> {
    if servers.len() > MAX_SERVERS {
        return Err(bad("mcp_servers", format!("must have at most {MAX_SERVERS} entries")));
    }
    let mut resolved: Vec<McpServer> = Vec::new();
    for (i, params) in servers.into_iter().enumerate() {
        let at = format!("mcp_servers[{i}]");
        let server = params.validate(&at)?;
        if resolved.iter().any(|other| other.name == server.name) {
            return Err(bad(format!("{at}.name"), format!("`{}` has two entries", server.name)));
        }
        resolved.push(server);
    }
    let mut seen = Vec::new();
    for (at, set) in sets {
        let (name, default, tools) = read_set(&at, set)?;
        let field = || format!("{at}.mcp_server_name");
        if seen.contains(&name) {
            return Err(bad(field(), format!("the MCP server `{name}` has a toolset already")));
        }
        let Some(server) = resolved.iter_mut().find(|server| server.name == name) else {
            return Err(bad(field(), format!("`mcp_servers` has no server `{name}`")));
        };
        (server.default, server.tools) = (default, tools);
        seen.push(name);
    }
    if let Some(i) = resolved.iter().position(|server| !seen.contains(&server.name)) {
        let name = &resolved[i].name;
        let problem = format!("no {MCP_TOOLSET} in `tools` is of the MCP server `{name}`");
        return Err(bad(format!("mcp_servers[{i}].name"), problem));
    }
    Ok(resolved)
}

type Set = (String, Setting, BTreeMap<String, Setting>);

fn read_set(at: &str, set: ToolParams) -> Result<Set, AgentError> {
    if set.name.is_some() || set.description.is_some() || set.input_schema.is_some() {
        let problem = "an MCP toolset has only `mcp_server_name`, `default_config` and `configs`";
        return Err(bad(at, problem));
    }
    let missing = || bad(format!("{at}.mcp_server_name"), "must be given");
    let name = set.mcp_server_name.ok_or_else(missing)?;
    let default = Setting::default().but(set.default_config.unwrap_or_default());
    let mut tools = BTreeMap::new();
    for (i, config) in set.configs.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{at}.configs[{i}]");
        if config.has_web() {
            return Err(bad(field, "a tool of an MCP server has no settings of the web"));
        }
        let own =
            ToolConfig { enabled: config.enabled, permission_policy: config.permission_policy };
        if tools.insert(config.name.clone(), default.but(own)).is_some() {
            return Err(bad(format!("{field}.name"), format!("`{}` has two entries", config.name)));
        }
    }
    Ok((name, default, tools))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_has_one_name_that_every_provider_takes() {
        let check = |server: &str, tool: &str, expected: &str| {
            let shown = shown_name(server, tool);
            assert_eq!(shown, expected);
            assert!(shown.len() <= MAX_SHOWN_NAME);
        };
        check("docs", "search", "mcp__docs__search");
        check("docs", "_x", "mcp__docs___x");
        check("do-cs", "a__b", "mcp__do-cs__a__b");
        // Each of these could be another server's tool under the plain name.
        check("docs_", "x", "mcp__docs___x_a754bd57");
        check("docs__a", "b", "mcp__docs__a__b_0972f419");
        check("my docs", "x", "mcp__my_docs__x_f372bd7e");
        check("my.docs", "x", "mcp__my_docs__x_218e72a8");
        check("s", &"x".repeat(100), &format!("mcp__s__{}_7c0ff2a6", "x".repeat(47)));
        check("é", "ü", "mcp_______a5857664");
    }

    #[test]
    fn rules_of_the_network_name_a_server_or_all() {
        let check = |url: &str, hosts: &[&str], allow_mcp_servers: bool, expected: bool| {
            let place = Place::Url { url: url.to_owned() };
            let (default, tools) = (Setting::default(), BTreeMap::new());
            let server = McpServer { name: "s".to_owned(), place, default, tools };
            let allowed_hosts = hosts.iter().map(|host| host.parse().expect("a rule")).collect();
            let allow_package_managers = false;
            let rules =
                Networking::Limited { allowed_hosts, allow_package_managers, allow_mcp_servers };
            assert_eq!(server.is_open(&rules), expected, "{url} {hosts:?}");
        };
        check("https://a.example/mcp", &[], false, false);
        check("https://a.example/mcp", &[], true, true);
        check("https://a.example/mcp", &["a.example"], false, true);
        check("https://a.example:8443/mcp", &["a.example"], false, false);
        check("https://a.example:8443/mcp", &["a.example:8443"], false, true);
        check("https://b.a.example?x", &["*.a.example"], false, true);
        check("http://[::1]:80/", &["[::1]"], false, true);
    }

    #[test]
    fn what_is_no_server_is_named() {
        let check = |params: ServerParams, expected: &str| {
            assert_eq!(params.validate("s").expect_err("no server").to_string(), expected);
        };
        let url = |url: &str| ServerParams {
            r#type: "url".to_owned(),
            name: "a".to_owned(),
            url: Some(url.to_owned()),
            ..ServerParams::default()
        };
        check(url("ftp://x"), "s.url: must be a URL that begins with https:// or http://");
        check(url("https://u:p@x/"), "s.url: must hold no user name and no password");
        check(
            ServerParams { name: String::new(), ..url("http://x") },
            "s.name: must have 1 to 255 characters",
        );
        check(
            ServerParams { command: Some("x".into()), ..url("http://x") },
            "s: a server of type `url` has `url` and no program",
        );
        check(
            ServerParams { r#type: "sse".into(), ..url("http://x") },
            "s.type: `sse` is not supported; it is `url` or `stdio`",
        );
        let program = |env: &str| ServerParams {
            r#type: "stdio".to_owned(),
            name: "a".to_owned(),
            command: Some("x".to_owned()),
            env: Some([(env.to_owned(), String::new())].into()),
            ..ServerParams::default()
        };
        check(program("a=b"), "s: `a=b` is no name of a variable");
        check(program("a\0"), "s: its program's words hold a NUL byte, which no word can");
    }
}
