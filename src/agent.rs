//! Agent definition: which model, which words, which tools under which policy. Checked on construction.
//!
//! Field names and bounds are those of the Managed Agents `agent` object.

use serde::{Deserialize, Serialize};

/// Longest agent name in characters.
pub const MAX_NAME_CHARS: usize = 256;
/// Longest system prompt in characters.
pub const MAX_SYSTEM_CHARS: usize = 100_000;
/// The one toolset there is.
pub const TOOLSET: &str = "agent_toolset_20260401";

/// The built-in tools that run inside the sandbox.
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
}

impl ToolName {
    /// All of them, in the order in which the model sees them.
    pub const ALL: [Self; 6] =
        [Self::Bash, Self::Read, Self::Write, Self::Edit, Self::Glob, Self::Grep];

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
        }
    }

    /// What a call of this tool may do to the world.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::Read | Self::Glob | Self::Grep => Effect::Reads,
            Self::Write | Self::Edit => Effect::Writes,
            Self::Bash => Effect::Runs,
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
    /// Anything at all.
    Runs,
}

/// Whether a tool's calls run at once or wait for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PermissionPolicy {
    /// Run at once.
    AlwaysAllow,
    /// Wait for the user.
    AlwaysAsk,
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
}

impl Agent {
    /// The default agent: all six tools, always allowed.
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
        }
    }

    /// The grant for a tool by name, if it is a built-in tool and enabled.
    #[must_use]
    pub fn grant(&self, name: &str) -> Option<ToolGrant> {
        self.tools.iter().copied().find(|grant| grant.name.as_str() == name)
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
    /// Toolsets; absent means all six tools, always allowed, and an empty list means none.
    pub tools: Option<Vec<ToolsetParams>>,
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

/// One entry of `tools`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolsetParams {
    /// Must be [`TOOLSET`].
    pub r#type: String,
    /// For every tool without an entry of its own.
    #[serde(default)]
    pub default_config: ToolConfig,
    /// Per tool.
    #[serde(default)]
    pub configs: Vec<NamedToolConfig>,
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedToolConfig {
    /// The tool.
    pub name: String,
    /// See [`ToolConfig::enabled`].
    pub enabled: Option<bool>,
    /// See [`ToolConfig::permission_policy`].
    pub permission_policy: Option<PermissionPolicy>,
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
        let tools = match self.tools {
            None => Agent::with_model("").tools,
            Some(sets) => resolve_tools(&sets)?,
        };
        Ok(Agent { name, model, effort, max_tokens, system: self.system, tools })
    }
}

fn resolve_tools(sets: &[ToolsetParams]) -> Result<Vec<ToolGrant>, AgentError> {
    let set = match sets {
        [] => return Ok(Vec::new()),
        [set] => set,
        [_, ..] => return Err(bad("tools[1]", "only one toolset can be given")),
    };
    if set.r#type != TOOLSET {
        let problem = format!("`{}` is not supported; the toolset is `{TOOLSET}`", set.r#type);
        return Err(bad("tools[0].type", problem));
    }
    let mut seen = Vec::new();
    for (i, config) in set.configs.iter().enumerate() {
        let field = format!("tools[0].configs[{i}].name");
        let Some(name) = ToolName::parse(&config.name) else {
            let names = ToolName::ALL.map(ToolName::as_str).join(", ");
            return Err(bad(field, format!("`{}` is not one of {names}", config.name)));
        };
        if seen.contains(&name) {
            return Err(bad(field, format!("`{}` has two entries", config.name)));
        }
        seen.push(name);
    }
    let grant = |name: ToolName| {
        let own = set.configs.iter().find(|config| config.name == name.as_str());
        let enabled = own.and_then(|c| c.enabled).or(set.default_config.enabled).unwrap_or(true);
        let policy = own
            .and_then(|c| c.permission_policy)
            .or(set.default_config.permission_policy)
            .unwrap_or(PermissionPolicy::AlwaysAllow);
        enabled.then_some(ToolGrant { name, permission_policy: policy })
    };
    Ok(ToolName::ALL.into_iter().filter_map(grant).collect())
}
