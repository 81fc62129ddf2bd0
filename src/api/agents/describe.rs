//! Agents in the server's description.

use serde_json::{Value, json};

use crate::agent::{MAX_NAME_CHARS, MAX_SYSTEM_CHARS, TOOLSET};
use crate::api::schema::{
    self, Schema, any, any_object, boolean, integer, list, list_of, literal, may, must, nullable,
    object, pattern, string, tagged, text, time, words,
};

/// An agent as it is answered.
pub(super) const AGENT: Schema = Schema { name: "Agent", make: agent };
/// What makes one.
pub(super) const CREATE: Schema = Schema { name: "AgentCreate", make: create };
/// What changes one.
pub(super) const UPDATE: Schema = Schema { name: "AgentUpdate", make: update };

fn agent() -> Value {
    tagged(
        "agent",
        [
            must("id", pattern("^agent_")),
            must("version", integer(1)),
            must("name", string()),
            must("description", nullable(string())),
            must("model", model()),
            must("system", nullable(string())),
            must("tools", list(tool(must))),
            must("mcp_servers", list(server())),
            must("skills", list(skill(must("version", string())))),
            must("multiagent", nullable(any_object())),
            must("execution_identity", identity()),
            must("metadata", schema::metadata()),
            must("created_at", time()),
            must("updated_at", time()),
            must("archived_at", nullable(time())),
        ],
    )
}

fn create() -> Value {
    object([
        must("name", text(1, MAX_NAME_CHARS)),
        must("model", model_params()),
        may("description", nullable(string())),
        may("system", nullable(text(0, MAX_SYSTEM_CHARS))),
        may("tools", nullable(list_of(0, super::tools::MAX_TOOLS, tool(optional)))),
        may("mcp_servers", nullable(list_of(0, 20, server()))),
        may("skills", nullable(list(skill(may("version", nullable(string())))))),
        may("multiagent", nullable(multiagent())),
        may("execution_identity", nullable(identity())),
        may("metadata", nullable(schema::metadata())),
    ])
}

fn update() -> Value {
    let mut update = create();
    let fields = &mut update["properties"];
    fields["metadata"] = nullable(schema::metadata_patch());
    fields["version"] = nullable(integer(1));
    update["required"] = json!([]);
    update
}

/// A field of a request: the default stands in for `null`.
fn optional(name: &'static str, value: Value) -> schema::Field {
    may(name, nullable(value))
}

fn efforts() -> Value {
    words(&["low", "medium", "high", "xhigh", "max"])
}

fn model() -> Value {
    object([
        must("id", string()),
        must("effort", object([must("type", efforts())])),
        must("inference_geo", nullable(words(&["us", "global"]))),
        must("speed", words(&["standard", "fast"])),
    ])
}

fn model_params() -> Value {
    let id = || text(1, super::model::MAX_MODEL_CHARS);
    let effort = any([efforts(), object([must("type", efforts())])]);
    let config = object([
        must("id", id()),
        may("effort", nullable(effort)),
        may("inference_geo", nullable(words(&["us", "global"]))),
        may("speed", nullable(words(&["standard", "fast"]))),
    ]);
    any([id(), config])
}

type MakeField = fn(&'static str, Value) -> schema::Field;

/// One entry of `tools`. In requests most of it can be left out.
fn tool(field: MakeField) -> Value {
    let policy = || object([must("type", words(&["always_allow", "always_ask", "auto"]))]);
    let setting = || [field("enabled", boolean()), field("permission_policy", policy())];
    let built_in = words(&["bash", "read", "write", "edit", "glob", "grep"]);
    let config = object(
        [must("name", built_in.clone()), field("type", built_in)].into_iter().chain(setting()),
    );
    let of_web = |name: &'static str, fields: [schema::Field; 2]| {
        let domains = || nullable(list_of(1, 64, text(1, 255)));
        let own = [field("type", literal(name)), must("name", literal(name))];
        let lists = [may("allowed_domains", domains()), may("blocked_domains", domains())];
        object(own.into_iter().chain(setting()).chain(lists).chain(fields))
    };
    let fetch = of_web(
        "web_fetch",
        [
            may("max_content_tokens", nullable(integer(1))),
            may("url_sources", nullable(any_object())),
        ],
    );
    let search = of_web(
        "web_search",
        [may("user_location", nullable(any_object())), may("type", literal("web_search"))],
    );
    let of_server = object(std::iter::once(must("name", text(1, 128))).chain(setting()));
    any([
        tagged(
            TOOLSET,
            [
                field("default_config", object(setting())),
                field("configs", list(any([config, fetch, search]))),
            ],
        ),
        tagged(
            "mcp_toolset",
            [
                must("mcp_server_name", text(1, 255)),
                field("default_config", object(setting())),
                field("configs", list(of_server)),
            ],
        ),
        tagged(
            "custom",
            [
                must("name", pattern("^[A-Za-z0-9_-]{1,128}$")),
                must("description", text(1, 100_000)),
                must("input_schema", input_schema()),
            ],
        ),
    ])
}

fn input_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "type": { "const": "object" },
            "properties": { "type": ["object", "null"] },
            "required": { "type": ["array", "null"], "items": { "type": "string" } },
        },
        "required": ["type"],
    })
}

fn server() -> Value {
    tagged("url", [must("name", text(1, 255)), must("url", pattern("^https?://[^/:?#\\s]+\\S*$"))])
}

fn skill(version: schema::Field) -> Value {
    object([must("type", words(&["anthropic", "custom"])), must("skill_id", text(1, 255)), version])
}

fn identity() -> Value {
    any([tagged("service_account", []), tagged("aws_role", [must("role_arn", text(1, 2048))])])
}

/// `multiagent` of a request.
fn multiagent() -> Value {
    let reference = || {
        any([
            string(),
            tagged("agent", [must("id", string()), may("version", nullable(integer(1)))]),
            tagged("self", []),
        ])
    };
    let advisor = tagged("advisor", [must("model", string())]);
    let switch = || any([tagged("enabled", []), tagged("disabled", [])]);
    let team = || {
        let enabled = tagged(
            "enabled",
            [
                may("inline_agents", nullable(switch())),
                may("predefined_agents", nullable(list_of(0, 20, reference()))),
            ],
        );
        nullable(any([enabled, tagged("disabled", [])]))
    };
    let consulted = any([tagged("enabled", [may("model", string())]), tagged("disabled", [])]);
    any([
        tagged("coordinator", [must("agents", list_of(1, 20, any([reference(), advisor])))]),
        tagged(
            "multiagent_20261001",
            [
                may("subagents", team()),
                may("workflows", team()),
                may("advisor", nullable(consulted)),
            ],
        ),
    ])
}
