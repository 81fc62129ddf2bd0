//! Agent definition: which model, which words, which tools under which policy. Checked on construction.
//!
//! Field names and bounds are those of the Managed Agents `agent` object.

pub mod mcp;
mod on_ask;
pub mod rules;
pub mod web;

pub use on_ask::OnAsk;

use mcp::{MCP_TOOLSET, McpServer, ServerParams};
use rules::{Rules, RulesParams};
use web::WebSettings;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::Budget;

/// Longest agent name in characters.
pub const MAX_NAME_CHARS: usize = 256;
/// Longest system prompt in characters.
pub const MAX_SYSTEM_CHARS: usize = 100_000;
/// Longest name of a custom tool.
pub const MAX_TOOL_NAME_CHARS: usize = 128;
/// The one toolset there is.
pub const TOOLSET: &str = "agent_toolset_20260401";

/// The built-in tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolName {
    /// A command in the session's shell.
    Bash,
    /// A file's content.
    Read,
    /// A whole new content for a file.
    Write,
    /// A replacement within a file.
    Edit,
    /// Paths by pattern.
    Glob,
    /// Lines by pattern.
    Grep,
    /// A page of the web.
    WebFetch,
    /// Pages of the web by words.
    WebSearch,
}

impl ToolName {
    /// All of them, in the order in which the model sees them.
    pub const ALL: [Self; 8] = [
        Self::Bash,
        Self::Read,
        Self::Write,
        Self::Edit,
        Self::Glob,
        Self::Grep,
        Self::WebFetch,
        Self::WebSearch,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::WebFetch => "web_fetch",
            Self::WebSearch => "web_search",
        }
    }

    /// What a call of this tool may do to the world.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::Read | Self::Glob | Self::Grep | Self::WebFetch | Self::WebSearch => {
                Effect::Reads
            }
            Self::Write | Self::Edit => Effect::Writes,
            Self::Bash => Effect::Runs,
        }
    }

    /// Whether it asks the web, from the host; all others run inside the sandbox.
    #[must_use]
    pub fn asks_web(self) -> bool {
        match self {
            Self::WebFetch | Self::WebSearch => true,
            Self::Bash | Self::Read | Self::Write | Self::Edit | Self::Glob | Self::Grep => false,
        }
    }

    /// The tool of that name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }
}

/// What a tool call may do: decides what runs together, and what may run again after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Looks only: runs beside others, and again after a crash.
    Reads,
    /// Changes files.
    Writes,
    /// Changes what lies elsewhere: alone and once, and none of the session's files.
    Reaches,
    /// Anything at all.
    Runs,
}

impl Effect {
    /// Whether the session's files may be others afterwards.
    #[must_use]
    pub fn changes_files(self) -> bool {
        match self {
            Self::Writes | Self::Runs => true,
            Self::Reads | Self::Reaches => false,
        }
    }
}

/// Whether a tool's calls run at once or wait for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PermissionPolicy {
    /// Run at once.
    AlwaysAllow,
    /// Wait for the user.
    AlwaysAsk,
    /// Judge each call; wait for the user where nobody can tell.
    Auto,
}

/// How hard the model thinks, where its provider lets one say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// As little as possible.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// More.
    Xhigh,
    /// All it can.
    Max,
}

impl Effort {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }
}

/// One enabled tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolGrant {
    /// Which.
    pub name: ToolName,
    /// Under which policy.
    pub permission_policy: PermissionPolicy,
}

/// A tool that the client has: the session waits while the client runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomTool {
    /// 1 to 128 of `[A-Za-z0-9_-]`, and not the name of a built-in tool.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its input, of type `object`.
    pub input_schema: Map<String, Value>,
}

/// A checked agent definition. Made by [`AgentParams::validate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// 1 to 256 characters.
    pub name: String,
    /// A model id, or `PROVIDER/MODEL`; not empty.
    pub model: String,
    /// How hard the model thinks; the provider's default if absent.
    pub effort: Option<Effort>,
    /// Most tokens of one answer, at least 1.
    pub max_tokens: u32,
    /// The user's own system prompt, at most 100,000 characters.
    pub system: Option<String>,
    /// The enabled tools, in the order of [`ToolName::ALL`].
    pub tools: Vec<ToolGrant>,
    /// The client's own tools, in the order in which it named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_tools: Vec<CustomTool>,
    /// The MCP servers, in the order in which they were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// Which calls are denied, asked about and allowed, before the tools' own policies.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub permissions: Rules,
    /// What its sessions may use unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What the tools of the web may do.
    #[serde(default, skip_serializing_if = "WebSettings::is_default")]
    pub web: WebSettings,
}

impl Agent {
    /// The default agent: all tools, always allowed.
    #[must_use]
    pub fn with_model(model: impl Into<String>) -> Self {
        let grant = |name| ToolGrant { name, permission_policy: PermissionPolicy::AlwaysAllow };
        Self {
            name: "casemate".to_owned(),
            model: model.into(),
            effort: None,
            max_tokens: crate::limits::DEFAULT_MAX_TOKENS,
            system: None,
            tools: ToolName::ALL.map(grant).into(),
            custom_tools: Vec::new(),
            mcp_servers: Vec::new(),
            permissions: Rules::default(),
            budget: None,
            web: WebSettings::default(),
        }
    }

    /// The grant for a tool by name, if it is a built-in tool and enabled.
    #[must_use]
    pub fn grant(&self, name: &str) -> Option<ToolGrant> {
        self.tools.iter().copied().find(|grant| grant.name.as_str() == name)
    }

    /// Whether calls of any of its tools are to be judged.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        let own = self.tools.iter().map(|grant| grant.permission_policy);
        let servers = self.mcp_servers.iter();
        let settings = servers.flat_map(|server| server.tools.values().chain([&server.default]));
        let theirs = settings.filter(|setting| setting.enabled).map(|one| one.permission_policy);
        own.chain(theirs).any(|policy| policy == PermissionPolicy::Auto)
    }

    /// The client's tool of that name.
    #[must_use]
    pub fn custom_tool(&self, name: &str) -> Option<&CustomTool> {
        self.custom_tools.iter().find(|tool| tool.name == name)
    }

    /// The MCP server of that name.
    #[must_use]
    pub fn mcp_server(&self, name: &str) -> Option<&McpServer> {
        self.mcp_servers.iter().find(|server| server.name == name)
    }
}

/// An agent definition as a person writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentParams {
    /// See [`Agent::name`]; `casemate` if absent.
    pub name: Option<String>,
    /// For people only.
    pub description: Option<String>,
    /// A model id as text, or `{id, effort}`.
    pub model: Option<ModelParams>,
    /// See [`Agent::max_tokens`].
    pub max_tokens: Option<u32>,
    /// See [`Agent::system`].
    pub system: Option<String>,
    /// A toolset, those of MCP servers and custom tools; absent means all built-in tools, always allowed, and an empty list
    /// means none.
    pub tools: Option<Vec<ToolParams>>,
    /// See [`Agent::mcp_servers`]. Each is named by one toolset.
    pub mcp_servers: Option<Vec<ServerParams>>,
    /// See [`Agent::permissions`].
    pub permissions: Option<RulesParams>,
    /// What its sessions may use.
    pub limits: Option<Budget>,
}

/// `model` as written: an id, or an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ModelParams {
    /// The id.
    Id(String),
    /// The id and more.
    Object(ModelObject),
}

/// `model` as an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelObject {
    /// The id.
    pub id: String,
    /// See [`Agent::effort`].
    pub effort: Option<Effort>,
}

/// One entry of `tools`: toolsets have configs, a custom tool has the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolParams {
    /// [`TOOLSET`], [`MCP_TOOLSET`] or `custom`.
    pub r#type: String,
    /// The server that a toolset is of.
    pub mcp_server_name: Option<String>,
    /// For every tool of the set without an entry of its own.
    pub default_config: Option<ToolConfig>,
    /// Per tool of the set.
    pub configs: Option<Vec<NamedToolConfig>>,
    /// See [`CustomTool::name`].
    pub name: Option<String>,
    /// See [`CustomTool::description`].
    pub description: Option<String>,
    /// See [`CustomTool::input_schema`].
    pub input_schema: Option<Map<String, Value>>,
}

/// Settings of a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolConfig {
    /// Whether the model has the tool; true if absent.
    pub enabled: Option<bool>,
    /// `always_allow` if absent.
    pub permission_policy: Option<PermissionPolicy>,
}

/// Settings of one named tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedToolConfig {
    /// The tool.
    pub name: String,
    /// See [`ToolConfig::enabled`].
    pub enabled: Option<bool>,
    /// See [`ToolConfig::permission_policy`].
    pub permission_policy: Option<PermissionPolicy>,
    /// Of the tools of the web: these hosts alone.
    pub allowed_domains: Option<Vec<String>>,
    /// Of the tools of the web: all hosts but these.
    pub blocked_domains: Option<Vec<String>>,
    /// See [`web::FetchSettings::max_content_tokens`].
    pub max_content_tokens: Option<u32>,
    /// See [`web::FetchSettings::url_sources`].
    pub url_sources: Option<web::UrlSources>,
    /// See [`web::SearchSettings::user_location`].
    pub user_location: Option<web::Location>,
}

impl NamedToolConfig {
    /// Whether it says anything that is for tools of the web alone.
    fn has_web(&self) -> bool {
        self.allowed_domains.is_some()
            || self.blocked_domains.is_some()
            || self.max_content_tokens.is_some()
            || self.url_sources.is_some()
            || self.user_location.is_some()
    }
}

/// What is wrong with an agent definition: the field, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct AgentError {
    /// The field's path, such as `tools[0].configs[1].name`.
    pub field: String,
    /// What it must be.
    pub problem: String,
}

fn bad(field: impl Into<String>, problem: impl Into<String>) -> AgentError {
    AgentError { field: field.into(), problem: problem.into() }
}

impl AgentParams {
    /// Checks every field; `default_model` stands in where the file names none.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn validate(self, default_model: Option<&str>) -> Result<Agent, AgentError> {
        let name = self.name.unwrap_or_else(|| "casemate".to_owned());
        if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS {
            return Err(bad("name", "must have 1 to 256 characters"));
        }
        let (model, effort) = match self.model {
            Some(ModelParams::Id(id)) => (Some(id), None),
            Some(ModelParams::Object(object)) => (Some(object.id), object.effort),
            None => (None, None),
        };
        let model = model.or_else(|| default_model.map(str::to_owned)).unwrap_or_default();
        if model.trim().is_empty() {
            return Err(bad("model", "name a model, here or with --model"));
        }
        if self.system.as_ref().is_some_and(|s| s.chars().count() > MAX_SYSTEM_CHARS) {
            return Err(bad("system", "must have at most 100,000 characters"));
        }
        let max_tokens = self.max_tokens.unwrap_or(crate::limits::DEFAULT_MAX_TOKENS);
        if max_tokens == 0 {
            return Err(bad("max_tokens", "must be at least 1"));
        }
        let Tools { grants, custom, web, of_servers } = match self.tools {
            None => Tools { grants: Agent::with_model("").tools, ..Tools::default() },
            Some(tools) => resolve_tools(tools)?,
        };
        let mcp_servers = mcp::resolve(self.mcp_servers.unwrap_or_default(), of_servers)?;
        let permissions = self.permissions.unwrap_or_default().validate();
        let permissions =
            permissions.map_err(|(at, problem)| bad(format!("permissions.{at}"), problem))?;
        Ok(Agent {
            name,
            model,
            effort,
            max_tokens,
            system: self.system,
            tools: grants,
            custom_tools: custom,
            mcp_servers,
            permissions,
            budget: self.limits,
            web,
        })
    }
}

/// What `tools` of an agent comes to.
#[derive(Default)]
struct Tools {
    grants: Vec<ToolGrant>,
    custom: Vec<CustomTool>,
    web: WebSettings,
    /// Toolsets of MCP servers, and where they stand.
    of_servers: Vec<(String, ToolParams)>,
}

fn resolve_tools(params: Vec<ToolParams>) -> Result<Tools, AgentError> {
    let mut set: Option<(Vec<ToolGrant>, WebSettings)> = None;
    let mut custom: Vec<CustomTool> = Vec::new();
    let mut of_servers = Vec::new();
    for (i, params) in params.into_iter().enumerate() {
        let field = format!("tools[{i}]");
        if params.mcp_server_name.is_some() && params.r#type != MCP_TOOLSET {
            let problem = format!("is for an entry of type `{MCP_TOOLSET}`");
            return Err(bad(format!("{field}.mcp_server_name"), problem));
        }
        match params.r#type.as_str() {
            TOOLSET if set.is_some() => {
                return Err(bad(field, "only one toolset can be given"));
            }
            TOOLSET => set = Some(resolve_toolset(&field, params)?),
            MCP_TOOLSET => of_servers.push((field, params)),
            "custom" => {
                let tool = resolve_custom(&field, params)?;
                if custom.iter().any(|other| other.name == tool.name) {
                    let problem = format!("`{}` has two entries", tool.name);
                    return Err(bad(format!("{field}.name"), problem));
                }
                custom.push(tool);
            }
            other => {
                let problem = format!(
                    "`{other}` is not supported; it is `{TOOLSET}`, `{MCP_TOOLSET}` or `custom`"
                );
                return Err(bad(format!("{field}.type"), problem));
            }
        }
    }
    let (grants, web) = set.unwrap_or_default();
    Ok(Tools { grants, custom, web, of_servers })
}

fn resolve_custom(field: &str, params: ToolParams) -> Result<CustomTool, AgentError> {
    let at = |name: &str| format!("{field}.{name}");
    let missing = |name: &str| bad(at(name), "must be given");
    if params.default_config.is_some() || params.configs.is_some() {
        return Err(bad(field, "a custom tool has neither `default_config` nor `configs`"));
    }
    let name = params.name.ok_or_else(|| missing("name"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_TOOL_NAME_CHARS || !name.chars().all(plain) {
        return Err(bad(at("name"), "must have 1 to 128 letters, digits, `_` or `-`"));
    }
    if ToolName::parse(&name).is_some() || name.starts_with(mcp::PREFIX) {
        return Err(bad(at("name"), format!("`{name}` is the name of another kind of tool")));
    }
    let description = params.description.ok_or_else(|| missing("description"))?;
    let input_schema = params.input_schema.ok_or_else(|| missing("input_schema"))?;
    if input_schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(bad(at("input_schema.type"), "must be `object`"));
    }
    Ok(CustomTool { name, description, input_schema })
}

fn resolve_toolset(at: &str, set: ToolParams) -> Result<(Vec<ToolGrant>, WebSettings), AgentError> {
    if set.name.is_some() || set.description.is_some() || set.input_schema.is_some() {
        return Err(bad(at, "a toolset has only `default_config` and `configs`"));
    }
    let default = set.default_config.unwrap_or_default();
    let configs = set.configs.unwrap_or_default();
    let mut web = WebSettings::default();
    let mut seen = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        let field = format!("{at}.configs[{i}].name");
        let Some(name) = ToolName::parse(&config.name) else {
            let names = ToolName::ALL.map(ToolName::as_str).join(", ");
            return Err(bad(field, format!("`{}` is not one of {names}", config.name)));
        };
        if seen.contains(&name) {
            return Err(bad(field, format!("`{}` has two entries", config.name)));
        }
        seen.push(name);
        web.read(name, config)
            .map_err(|(own, problem)| bad(format!("{at}.configs[{i}].{own}"), problem))?;
    }
    let grant = |name: ToolName| {
        let own = configs.iter().find(|config| config.name == name.as_str());
        let enabled = own.and_then(|c| c.enabled).or(default.enabled).unwrap_or(true);
        let policy = own
            .and_then(|c| c.permission_policy)
            .or(default.permission_policy)
            .unwrap_or(PermissionPolicy::AlwaysAllow);
        enabled.then_some(ToolGrant { name, permission_policy: policy })
    };
    Ok((ToolName::ALL.into_iter().filter_map(grant).collect(), web))
}
