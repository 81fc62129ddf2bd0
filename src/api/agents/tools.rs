//! `tools` of an agent: the built-in toolset, those of MCP servers, the client's own. Settings are resolved when they are
//! read, so that what is stored is what is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::web;
use crate::agent::mcp::{self, MAX_SERVER_NAME_CHARS};
use crate::agent::{CustomTool, MAX_TOOL_NAME_CHARS, PermissionPolicy, TOOLSET};
use crate::api::body::{Node, Object, Tri};
use crate::api::error::ApiError;

/// Most tools of an agent, all sets together: the protocol's bound.
pub(super) const MAX_TOOLS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 100_000;
const MAX_PROPERTY_CHARS: usize = 64;
/// The tools of the built-in set, those that run inside the sandbox first.
const BUILT_IN: [&str; 8] =
    ["bash", "read", "write", "edit", "glob", "grep", web::FETCH, web::SEARCH];

/// One entry of `tools`, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Tool {
    #[serde(rename = "agent_toolset_20260401")]
    Toolset { default_config: Setting, configs: Vec<Config> },
    #[serde(rename = "mcp_toolset")]
    Mcp { mcp_server_name: String, default_config: Setting, configs: Vec<McpConfig> },
    #[serde(rename = "custom")]
    Custom(CustomTool),
}

/// Whether the model has a tool, and whether it may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) enabled: bool,
    pub(super) permission_policy: PermissionPolicy,
}

/// A built-in tool's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Config {
    r#type: String,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) setting: Setting,
    /// What tools of the web have besides.
    #[serde(flatten)]
    web: Map<String, Value>,
}

/// The own settings of a tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct McpConfig {
    name: String,
    #[serde(flatten)]
    setting: Setting,
}

impl Setting {
    fn of_server(self) -> mcp::Setting {
        mcp::Setting { enabled: self.enabled, permission_policy: self.permission_policy }
    }
}

impl Tool {
    /// What the built-in tool of that name is set to, if this is the built-in set.
    pub(super) fn built_in(&self, name: &str) -> Option<Setting> {
        let Self::Toolset { default_config, configs } = self else { return None };
        let own = configs.iter().find(|config| config.name == name);
        Some(own.map_or(*default_config, |config| config.setting))
    }

    /// What the tool of the web of that name may do, if this is the built-in set and says so.
    pub(super) fn web(&self, name: &str) -> Option<&Map<String, Value>> {
        let Self::Toolset { configs, .. } = self else { return None };
        configs.iter().find(|config| config.name == name).map(|config| &config.web)
    }

    /// The settings of that server's tools, if this is its toolset: of all of them, and of some by name.
    pub(super) fn of_server(
        &self,
        server: &str,
    ) -> Option<(mcp::Setting, BTreeMap<String, mcp::Setting>)> {
        let Self::Mcp { mcp_server_name, default_config, configs } = self else { return None };
        let own = configs.iter().map(|config| (config.name.clone(), config.setting.of_server()));
        (mcp_server_name == server).then(|| (default_config.of_server(), own.collect()))
    }

    fn count(&self) -> usize {
        match self {
            Self::Toolset { .. } => BUILT_IN.len(),
            // How many the server has is seen when it is asked.
            Self::Mcp { configs, .. } => configs.len().max(1),
            Self::Custom(_) => 1,
        }
    }
}

/// Reads the whole list.
pub(super) fn read(node: &Node<'_>) -> Result<Vec<Tool>, ApiError> {
    let entries = node.list(MAX_TOOLS)?;
    let custom = custom_names(node.value());
    let mut tools: Vec<Tool> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let tool = read_one(entry, &custom)?;
        if let Some((field, problem)) = tools.iter().find_map(|other| clash(other, &tool)) {
            return Err(ApiError::field(&format!("{}.{field}", entry.path()), problem));
        }
        tools.push(tool);
    }
    let count: usize = tools.iter().map(Tool::count).sum();
    if count > MAX_TOOLS {
        return Err(node.refuse(format!("must have at most {MAX_TOOLS} tools; it has {count}")));
    }
    Ok(tools)
}

/// The names of the client's own tools, which other entries of the list may speak of.
fn custom_names(tools: &Value) -> Vec<&str> {
    let entries = tools.as_array().into_iter().flatten();
    let custom = entries.filter(|entry| entry["type"] == "custom");
    custom.filter_map(|entry| entry["name"].as_str()).collect()
}

/// The field in which two entries must differ, and what is said if they do not.
fn clash(one: &Tool, other: &Tool) -> Option<(&'static str, String)> {
    match (one, other) {
        (Tool::Toolset { .. }, Tool::Toolset { .. }) => {
            Some(("type", format!("there can be one `{TOOLSET}` only")))
        }
        (Tool::Mcp { mcp_server_name: one, .. }, Tool::Mcp { mcp_server_name: other, .. })
            if one == other =>
        {
            Some(("mcp_server_name", format!("the MCP server `{one}` has a toolset already")))
        }
        (Tool::Custom(one), Tool::Custom(other)) if one.name == other.name => {
            Some(("name", format!("there is a custom tool `{}` already", one.name)))
        }
        _ => None,
    }
}

fn read_one(node: &Node<'_>, custom: &[&str]) -> Result<Tool, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let tool = match kind.string()? {
        TOOLSET => read_toolset(&mut object, custom)?,
        "mcp_toolset" => read_mcp(&mut object)?,
        "custom" => read_custom(&mut object)?,
        _ => {
            let known = format!("must be one of {TOOLSET}, mcp_toolset, custom");
            return Err(kind.refuse(known));
        }
    };
    object.done()?;
    Ok(tool)
}

fn read_toolset(object: &mut Object<'_>, custom: &[&str]) -> Result<Tool, ApiError> {
    let default_config = read_default(object, PermissionPolicy::AlwaysAllow)?;
    let mut configs: Vec<Config> = Vec::new();
    for entry in read_configs(object)? {
        let config = read_config(&entry, default_config, custom)?;
        if configs.iter().any(|other| other.name == config.name) {
            return Err(entry.refuse(format!("\"{}\" has two entries", config.name)));
        }
        configs.push(config);
    }
    Ok(Tool::Toolset { default_config, configs })
}

fn read_configs<'a>(object: &mut Object<'a>) -> Result<Vec<Node<'a>>, ApiError> {
    Ok(object.maybe("configs").map(|list| list.list(MAX_TOOLS)).transpose()?.unwrap_or_default())
}

fn read_default(object: &mut Object<'_>, policy: PermissionPolicy) -> Result<Setting, ApiError> {
    let standard = Setting { enabled: true, permission_policy: policy };
    let Some(node) = object.maybe("default_config") else { return Ok(standard) };
    let mut object = node.object()?;
    let setting = read_setting(&mut object, standard)?;
    object.done()?;
    Ok(setting)
}

fn read_setting(object: &mut Object<'_>, default: Setting) -> Result<Setting, ApiError> {
    let enabled = object.maybe("enabled").map(|enabled| enabled.boolean()).transpose()?;
    let policy =
        object.maybe("permission_policy").map(|policy| read_policy(&policy)).transpose()?;
    Ok(Setting {
        enabled: enabled.unwrap_or(default.enabled),
        permission_policy: policy.unwrap_or(default.permission_policy),
    })
}

fn read_policy(node: &Node<'_>) -> Result<PermissionPolicy, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let policy = match kind.string()? {
        "always_allow" => PermissionPolicy::AlwaysAllow,
        "always_ask" => PermissionPolicy::AlwaysAsk,
        "auto" => PermissionPolicy::Auto,
        _ => return Err(kind.refuse("must be one of always_allow, always_ask, auto")),
    };
    object.done()?;
    Ok(policy)
}

fn read_config(node: &Node<'_>, default: Setting, custom: &[&str]) -> Result<Config, ApiError> {
    let mut object = node.object()?;
    let name_node = object.need("name")?;
    let name = name_node.text(1, MAX_TOOL_NAME_CHARS)?;
    if !BUILT_IN.contains(&name) {
        let known = BUILT_IN.join(", ");
        return Err(name_node.refuse(format!("\"{name}\" does not match name of any of {known}")));
    }
    if let Some(kind) = object.maybe("type")
        && kind.string()? != name
    {
        return Err(kind.refuse(format!("must be \"{name}\" on a config of type \"{name}\"")));
    }
    let setting = read_setting(&mut object, default)?;
    let web = web::read(&mut object, name, custom)?;
    object.done_for(&format!("name \"{name}\""))?;
    Ok(Config { r#type: name.to_owned(), name: name.to_owned(), setting, web })
}

fn read_mcp(object: &mut Object<'_>) -> Result<Tool, ApiError> {
    let server = object.need("mcp_server_name")?.text(1, MAX_SERVER_NAME_CHARS)?.to_owned();
    let default_config = read_default(object, PermissionPolicy::AlwaysAsk)?;
    let mut configs: Vec<McpConfig> = Vec::new();
    for entry in read_configs(object)? {
        let mut config = entry.object()?;
        let name = config.need("name")?.text(1, MAX_TOOL_NAME_CHARS)?.to_owned();
        let setting = read_setting(&mut config, default_config)?;
        config.done_for(&format!("name \"{name}\""))?;
        if configs.iter().any(|other| other.name == name) {
            return Err(entry.refuse(format!("\"{name}\" has two entries")));
        }
        configs.push(McpConfig { name, setting });
    }
    Ok(Tool::Mcp { mcp_server_name: server, default_config, configs })
}

fn read_custom(object: &mut Object<'_>) -> Result<Tool, ApiError> {
    let node = object.need("name")?;
    let name = node.text(1, MAX_TOOL_NAME_CHARS)?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(node.refuse("must have letters, digits, underscores and hyphens only"));
    }
    if BUILT_IN.contains(&name) {
        return Err(node.refuse(format!("\"{name}\" is the name of a built-in tool")));
    }
    if name.starts_with("mcp__") {
        return Err(node.refuse("must not begin with \"mcp__\", as tools of MCP servers do"));
    }
    let name = name.to_owned();
    let description = object.need("description")?.text(1, MAX_DESCRIPTION_CHARS)?.to_owned();
    let input_schema = read_input_schema(&object.need("input_schema")?)?;
    Ok(Tool::Custom(CustomTool { name, description, input_schema }))
}

fn read_input_schema(node: &Node<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    if kind.string()? != "object" {
        return Err(kind.refuse("must be \"object\""));
    }
    for word in ["oneOf", "anyOf", "allOf"] {
        if !matches!(object.tri(word), Tri::Absent) {
            return Err(object.refuse(word, "is not supported at the top of an input schema"));
        }
    }
    if let Some(properties) = object.maybe("properties") {
        for (name, property) in properties.object()?.fields() {
            if name.chars().count() > MAX_PROPERTY_CHARS {
                let problem = format!("a name must have at most {MAX_PROPERTY_CHARS} characters");
                return Err(property.refuse(problem));
            }
        }
    }
    if let Some(required) = object.maybe("required") {
        required.array()?.iter().try_for_each(|name| name.string().map(drop))?;
    }
    if has_reference(node.value()) {
        return Err(node.refuse("`$ref` is not supported"));
    }
    Ok(node.value().as_object().cloned().unwrap_or_default())
}

fn has_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("$ref").is_some_and(Value::is_string) || fields.values().any(has_reference)
        }
        Value::Array(entries) => entries.iter().any(has_reference),
        _ => false,
    }
}
