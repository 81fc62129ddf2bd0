//! From a stored agent to one that runs. What is stored but cannot run yet is not offered to the model.

use super::stored::{Definition, Server};
use super::tools::Tool;
use super::web;
use crate::agent::mcp::{McpServer, Place};
use crate::agent::rules::Rules;
use crate::agent::web::WebSettings;
use crate::agent::{Agent, CustomTool, ToolGrant, ToolName};
use crate::limits::DEFAULT_MAX_TOKENS;
use serde_json::{Map, Value};

impl Definition {
    /// The agent as sessions run it.
    pub(super) fn runnable(&self) -> Agent {
        Agent {
            name: self.name.clone(),
            model: self.model.id.clone(),
            effort: self.model.effort,
            max_tokens: DEFAULT_MAX_TOKENS,
            system: self.system.clone(),
            tools: ToolName::ALL.into_iter().filter_map(|name| self.grant(name)).collect(),
            custom_tools: self.custom_tools().cloned().collect(),
            mcp_servers: self.mcp_servers.iter().map(|server| self.mcp_server(server)).collect(),
            permissions: Rules::default(),
            budget: None,
            web: WebSettings {
                fetch: self.web(web::FETCH).map(web::fetch_settings).unwrap_or_default(),
                search: self.web(web::SEARCH).map(web::search_settings).unwrap_or_default(),
            },
        }
    }

    /// A server with the settings of its toolset; each has one.
    fn mcp_server(&self, server: &Server) -> McpServer {
        let set = self.tools.iter().find_map(|tool| tool.of_server(&server.name));
        let (default, configs) = set.unwrap_or_default();
        let place = Place::Url { url: server.url.clone() };
        McpServer { name: server.name.clone(), place, default, tools: configs }
    }

    fn web(&self, name: &str) -> Option<&Map<String, Value>> {
        self.tools.iter().find_map(|tool| tool.web(name))
    }

    fn grant(&self, name: ToolName) -> Option<ToolGrant> {
        let setting = self.tools.iter().find_map(|tool| tool.built_in(name.as_str()))?;
        let permission_policy = setting.permission_policy;
        setting.enabled.then_some(ToolGrant { name, permission_policy })
    }

    fn custom_tools(&self) -> impl Iterator<Item = &CustomTool> {
        self.tools.iter().filter_map(|tool| match tool {
            Tool::Custom(tool) => Some(tool),
            Tool::Toolset { .. } | Tool::Mcp { .. } => None,
        })
    }
}
