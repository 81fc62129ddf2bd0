//! From a stored agent to one that runs. What is stored but cannot run yet is not offered to the model.

use super::stored::Definition;
use super::tools::{Policy, Tool};
use crate::agent::{Agent, CustomTool, PermissionPolicy, ToolGrant, ToolName};
use crate::limits::DEFAULT_MAX_TOKENS;

impl Definition {
    /// The agent as sessions run it.
    pub(super) fn runnable(&self) -> Agent {
        let grant = |name: ToolName| {
            let setting = self.tools.iter().find_map(|tool| tool.built_in(name.as_str()))?;
            let permission_policy = policy(setting.permission_policy);
            setting.enabled.then_some(ToolGrant { name, permission_policy })
        };
        Agent {
            name: self.name.clone(),
            model: self.model.id.clone(),
            effort: self.model.effort,
            max_tokens: DEFAULT_MAX_TOKENS,
            system: self.system.clone(),
            tools: ToolName::ALL.into_iter().filter_map(grant).collect(),
            custom_tools: self.tools.iter().filter_map(custom).collect(),
            budget: None,
        }
    }
}

fn custom(tool: &Tool) -> Option<CustomTool> {
    let Tool::Custom { name, description, input_schema } = tool else { return None };
    let (name, description) = (name.clone(), description.clone());
    Some(CustomTool { name, description, input_schema: input_schema.clone() })
}

fn policy(policy: Policy) -> PermissionPolicy {
    match policy {
        Policy::AlwaysAllow => PermissionPolicy::AlwaysAllow,
        Policy::AlwaysAsk => PermissionPolicy::AlwaysAsk,
        Policy::Auto => PermissionPolicy::Auto,
    }
}
