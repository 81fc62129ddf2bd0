//! What the model is offered: the built-in tools, the client's, and those of MCP servers as far as the log says what these
//! have. Pure: the beginning of every request is made here, and must be the same bytes after a crash.
//!
//! Where the tools of servers would take more than a tenth of the model's context, it is offered a search for them instead;
//! what a search finds is added at the end of the list, so that what comes before stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::context::text_tokens;
use crate::agent::Agent;
use crate::agent::mcp::{ServerTool, shown_name};
use crate::limits::{MCP_CONTEXT_SHARE, MCP_FOUND, UNKNOWN_WINDOW};
use crate::provider::ToolSpec;

/// The tool that finds others. No tool of a server or a client can have this name.
pub const SEARCH: &str = "mcp__search";

/// The tools of an agent's MCP servers, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offers {
    by_server: BTreeMap<String, Vec<ServerTool>>,
    /// Names of tools that searches have found, in this order.
    loaded: Vec<String>,
}

/// A tool of a server that the agent has.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// The server.
    pub server: &'a str,
    /// The tool.
    pub tool: &'a ServerTool,
}

impl Offered<'_> {
    /// What the model knows it by.
    fn name(&self) -> String {
        shown_name(self.server, &self.tool.name)
    }

    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name(),
            description: self.tool.description.clone(),
            input_schema: self.tool.input_schema.clone().into(),
        }
    }
}

impl Offers {
    /// What is known of a server.
    #[must_use]
    pub fn of(&self, server: &str) -> Option<&[ServerTool]> {
        self.by_server.get(server).map(Vec::as_slice)
    }

    pub(super) fn listed(&mut self, server: &str, tools: &[ServerTool]) {
        self.by_server.insert(server.to_owned(), tools.to_vec());
    }

    pub(super) fn lost(&mut self, server: &str) {
        self.by_server.remove(server);
    }

    pub(super) fn loaded(&mut self, names: &[String]) {
        for name in names {
            if !self.loaded.contains(name) {
                self.loaded.push(name.clone());
            }
        }
    }

    /// The enabled tools of the agent's servers, in the order of the servers and by name.
    fn tools<'a>(&'a self, agent: &'a Agent) -> impl Iterator<Item = Offered<'a>> {
        agent.mcp_servers.iter().flat_map(|server| {
            let tools = self.of(&server.name).unwrap_or_default();
            let enabled = tools.iter().filter(|tool| server.setting(&tool.name).enabled);
            enabled.map(|tool| Offered { server: &server.name, tool })
        })
    }

    /// The tool that the model means, whether or not it was shown it.
    #[must_use]
    pub fn find<'a>(&'a self, agent: &'a Agent, name: &str) -> Option<Offered<'a>> {
        self.tools(agent).find(|offered| offered.name() == name)
    }

    /// Whether the tools of servers are too many to be offered at once.
    #[must_use]
    pub fn are_searched(&self, agent: &Agent, window: Option<u64>) -> bool {
        let tokens: u64 = self.tools(agent).map(|offered| tokens(&offered.spec())).sum();
        tokens > window.unwrap_or(UNKNOWN_WINDOW) / MCP_CONTEXT_SHARE
    }

    /// The tools as the model sees them: the built-in ones, the client's, those of servers.
    #[must_use]
    pub fn specs(&self, agent: &Agent, window: Option<u64>) -> Arc<[ToolSpec]> {
        let built_in = crate::tool::specs(agent).map(|tool| ToolSpec {
            name: tool.name.as_str().to_owned(),
            description: tool.description.to_owned(),
            input_schema: tool.input_schema.clone(),
        });
        let custom = agent.custom_tools.iter().map(|tool| ToolSpec {
            name: tool.name.clone(),
            description: tool.description.clone(),
            input_schema: tool.input_schema.clone().into(),
        });
        let own = built_in.chain(custom);
        if !self.are_searched(agent, window) {
            return own.chain(self.tools(agent).map(|offered| offered.spec())).collect();
        }
        let loaded = self.loaded.iter().filter_map(|name| self.find(agent, name));
        own.chain([self.search_spec(agent)]).chain(loaded.map(|offered| offered.spec())).collect()
    }

    fn search_spec(&self, agent: &Agent) -> ToolSpec {
        let of =
            |server: &str| self.tools(agent).filter(|offered| offered.server == server).count();
        let servers =
            agent.mcp_servers.iter().map(|server| (server.name.as_str(), of(&server.name)));
        let named = servers.filter(|(_, tools)| *tools > 0);
        let named: Vec<_> = named.map(|(name, tools)| format!("{name} ({tools})")).collect();
        ToolSpec {
            name: SEARCH.to_owned(),
            description: format!(
                "Find tools of these servers by words, and get them as tools of your own from then on: {}.",
                named.join(", ")
            ),
            input_schema: json!({
                "type": "object",
                "properties": { "query": { "type": "string" } },
                "required": ["query"],
            }),
        }
    }

    /// The tools that have most to do with the words, best first.
    #[must_use]
    pub fn search<'a>(&'a self, agent: &'a Agent, query: &str) -> Vec<Offered<'a>> {
        let words: Vec<_> = query
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let mut found: Vec<_> = self
            .tools(agent)
            .map(|offered| (score(&offered, &words), offered))
            .filter(|(score, _)| *score > 0)
            .collect();
        // A stable order: of equals, the first of the list.
        found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        found.into_iter().take(MCP_FOUND).map(|(_, offered)| offered).collect()
    }
}

/// How much a tool has to do with the words: in its name they count most.
fn score(offered: &Offered<'_>, words: &[String]) -> u64 {
    let name = offered.tool.name.to_lowercase();
    let parts: Vec<_> = name.split(|c: char| !c.is_alphanumeric()).collect();
    let server = offered.server.to_lowercase();
    let described = offered.tool.description.to_lowercase();
    let properties = offered.tool.input_schema.get("properties").and_then(Value::as_object);
    let fields = properties.into_iter().flat_map(|own| own.keys()).map(|key| key.to_lowercase());
    let fields = fields.collect::<Vec<_>>().join(" ");
    let of = |word: &String| {
        u64::from(parts.contains(&word.as_str())) * 10
            + u64::from(name.contains(word.as_str())) * 10
            + u64::from(described.contains(word.as_str())) * 3
            + u64::from(server.contains(word.as_str())) * 2
            + u64::from(fields.contains(word.as_str()))
    };
    words.iter().map(of).sum()
}

/// What a search says: the tools, and that they can be called now.
#[must_use]
pub fn found(found: &[Offered<'_>]) -> String {
    if found.is_empty() {
        return "No tool has to do with these words. Try other ones.".to_owned();
    }
    let lines = found.iter().map(|offered| {
        let first = offered.tool.description.trim().lines().next().unwrap_or_default();
        format!("{}: {first}", offered.name())
    });
    let lines: Vec<_> = lines.collect();
    format!("You can call these from now on:\n{}", lines.join("\n"))
}

/// The names of what was found.
#[must_use]
pub fn names(found: &[Offered<'_>]) -> Vec<String> {
    found.iter().map(Offered::name).collect()
}

/// Tokens of a definition, about.
pub(super) fn tokens(tool: &ToolSpec) -> u64 {
    let schema = serde_json::to_string(&tool.input_schema).expect("a schema is JSON");
    [&tool.name, &tool.description, &schema].map(|text| text_tokens(text)).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::PermissionPolicy;
    use crate::agent::mcp::{McpServer, Place, Setting};

    fn tool(name: &str, description: &str) -> ServerTool {
        let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
        ServerTool {
            name: name.to_owned(),
            description: description.to_owned(),
            input_schema: schema.as_object().unwrap().clone(),
        }
    }

    fn agent(servers: &[&str]) -> Agent {
        let server = |name: &&str| McpServer {
            name: (*name).to_owned(),
            place: Place::Url { url: "http://x".to_owned() },
            default: Setting::default(),
            tools: [(
                "off".to_owned(),
                Setting { enabled: false, permission_policy: PermissionPolicy::AlwaysAsk },
            )]
            .into(),
        };
        Agent {
            tools: Vec::new(),
            mcp_servers: servers.iter().map(server).collect(),
            ..Agent::with_model("m")
        }
    }

    fn shown(offers: &Offers, agent: &Agent, window: u64) -> Vec<String> {
        offers.specs(agent, Some(window)).iter().map(|spec| spec.name.clone()).collect()
    }

    #[test]
    fn tools_are_shown_in_the_order_of_their_servers_as_long_as_there_is_room() {
        let agent = agent(&["b", "a"]);
        let mut offers = Offers::default();
        offers.listed("a", &[tool("read", "Reads a file."), tool("off", "")]);
        offers.listed("b", &[tool("x", ""), tool("y", "")]);
        offers.listed("gone", &[tool("z", "")]);
        assert_eq!(shown(&offers, &agent, 100_000), ["mcp__b__x", "mcp__b__y", "mcp__a__read"]);
        assert!(offers.find(&agent, "mcp__a__off").is_none());
        assert_eq!(shown(&offers, &agent, 500), [SEARCH]);
        let names = names(&offers.search(&agent, "read something"));
        assert_eq!(names, ["mcp__a__read"]);
        offers.loaded(&names);
        offers.loaded(&names);
        assert_eq!(shown(&offers, &agent, 500), [SEARCH, "mcp__a__read"]);
        offers.lost("a");
        assert_eq!(shown(&offers, &agent, 500), [SEARCH]);
        assert!(offers.search(&agent, "weather").is_empty());
    }
}
