//! A session's agent: references, overrides, rosters in full, and what runs of it (51, 56, 57, 58 of the checklist).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::agent::mcp::{McpServer, Place, Setting};
use crate::agent::web::WebSettings;
use crate::agent::{Agent, CustomTool, Effort, PermissionPolicy, ToolGrant, ToolName};
use crate::runtime::config::Env;
use crate::runtime::{Config, Overrides, Runtime};

/// Agents in a store of their own.
struct Agents {
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Agents {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let overrides =
            Overrides { data_dir: Some(dir.path().join("data")), ..Overrides::default() };
        let home = dir.path().to_str().unwrap();
        let config = Config::load(&Env::of(&[("HOME", home)]), &overrides).unwrap();
        Self { runtime: Runtime::open(config).unwrap(), _dir: dir }
    }

    async fn put(&self, id: &str, body: &Value) {
        let definition = Definition::create(&Node::root(body), self.runtime.reader()).unwrap();
        self.runtime.put_record(KIND, id.to_owned(), None, definition.body()).await.unwrap();
    }

    /// A stored skill with one version.
    async fn put_skill(&self, id: &str, version: &str) {
        let skill = json!({ "name": "x", "display_name": "x" });
        let facts = json!({ "name": "x", "description": "d", "digest": "", "size_bytes": 1 });
        let owner = Some(id.to_owned());
        self.runtime.put_record("skill", id.to_owned(), None, skill).await.unwrap();
        let put = self.runtime.put_record("skill_version", version.to_owned(), owner, facts);
        put.await.unwrap();
    }

    async fn rename(&self, id: &str, name: &str) {
        let record = self.runtime.reader().record(KIND, id).unwrap().unwrap();
        let mut body = record.body.clone();
        body["name"] = name.into();
        self.runtime.change_record(KIND, &record, body, true).await.unwrap();
    }

    fn resolve(&self, reference: &Value) -> Result<Resolved, String> {
        let body = json!({ "agent": reference });
        let mut object = Node::root(&body).object().unwrap();
        let resolved = resolve(self.runtime.reader(), &object.need("agent").unwrap());
        resolved.map_err(|error| format!("{} {}", error.status().as_u16(), error.message()))
    }
}

fn custom() -> Value {
    json!({
        "type": "custom", "name": "t", "description": "d", "input_schema": { "type": "object" },
    })
}

fn toolset() -> Value {
    json!({
        "type": "agent_toolset_20260401",
        "default_config": { "enabled": false },
        "configs": [
            { "name": "read", "enabled": true },
            { "name": "bash", "enabled": true, "permission_policy": { "type": "always_ask" } },
            { "name": "edit", "enabled": true, "permission_policy": { "type": "auto" } },
            { "name": "web_fetch", "enabled": true },
        ],
    })
}

fn mcp_toolset() -> Value {
    json!({ "type": "mcp_toolset", "mcp_server_name": "s" })
}

/// An agent with everything.
fn full() -> Value {
    json!({
        "name": "full",
        "model": { "id": "m", "effort": "low" },
        "system": "s",
        "tools": [toolset(), custom(), mcp_toolset()],
        "mcp_servers": [{ "type": "url", "name": "s", "url": "https://example.com/mcp" }],
        "skills": [{ "type": "custom", "skill_id": "skill_x" }],
    })
}

#[tokio::test]
async fn a_reference_pins_a_version() {
    let agents = Agents::new();
    agents.put("agent_a", &json!({ "name": "first", "model": "m" })).await;
    agents.rename("agent_a", "second").await;
    agents.put("agent_gone", &json!({ "name": "gone", "model": "m" })).await;
    agents.runtime.archive_record(KIND, "agent_gone").await.unwrap();
    for (reference, expected) in [
        (json!("agent_a"), Ok((2, "second"))),
        (json!({ "type": "agent", "id": "agent_a" }), Ok((2, "second"))),
        (json!({ "type": "agent", "id": "agent_a", "version": 1 }), Ok((1, "first"))),
        (
            json!({ "type": "agent_with_overrides", "id": "agent_a", "version": 1 }),
            Ok((1, "first")),
        ),
        (json!("agent_none"), Err("404 there is no agent `agent_none`")),
        (json!("agent_gone"), Err("400 agent: the agent `agent_gone` is archived")),
        (
            json!({ "type": "agent", "id": "agent_gone", "version": 1 }),
            Err("400 agent.id: the agent `agent_gone` is archived"),
        ),
        (
            json!({ "type": "agent", "id": "agent_a", "version": 3 }),
            Err("404 the agent `agent_a` has no version 3"),
        ),
        (
            json!({ "type": "agent", "id": "agent_a", "model": "n" }),
            Err("400 agent.model: Extra inputs are not permitted"),
        ),
        (json!({ "type": "agent" }), Err("400 agent.id: Field required")),
        (
            json!({ "type": "self" }),
            Err("400 agent.type: must be \"agent\" or \"agent_with_overrides\""),
        ),
        (json!(1), Err("400 agent: must be the id of an agent, or an object")),
    ] {
        let resolved = agents.resolve(&reference);
        let found = resolved.as_ref().map(|found| (found.version, found.agent.name.as_str()));
        assert_eq!(found.map_err(String::as_str), expected, "{reference}");
        if let Ok(found) = &resolved {
            assert_eq!(found.id.as_str(), "agent_a");
            assert_eq!(found.snapshot["version"], found.version);
            assert_eq!(found.snapshot["name"], found.agent.name);
        }
    }
}

#[tokio::test]
async fn an_override_replaces_the_whole_field_of_this_session() {
    let agents = Agents::new();
    agents.put_skill("skill_x", "skillver_x").await;
    agents.put("agent_a", &full()).await;
    let plain = agents.resolve(&json!("agent_a")).unwrap();
    let with = |field: &str, value: Value| {
        agents.resolve(&json!({ "type": "agent_with_overrides", "id": "agent_a", field: value }))
    };
    let model = |id: &str| {
        json!({
            "id": id,
            "effort": { "type": "high" },
            "inference_geo": null,
            "speed": "standard",
        })
    };
    let no_skill = [("skills", json!([])), ("skills", json!(null))];
    for (field, value, shown) in [
        ("system", json!("other"), json!("other")),
        ("system", json!(null), json!(null)),
        ("system", json!(""), json!(null)),
        // Neither the agent's effort nor the override's applies, whatever the id.
        ("model", json!("n"), model("n")),
        ("model", json!("m"), model("m")),
        ("model", json!({ "id": "m", "effort": "max" }), model("m")),
    ]
    .into_iter()
    .chain(no_skill.map(|(field, value)| (field, value, json!([]))))
    {
        let changed = with(field, value.clone()).unwrap();
        let mut expected = plain.snapshot.clone();
        expected[field] = shown;
        assert_eq!(changed.snapshot, expected, "{field} {value}");
    }
    assert_eq!(with("model", json!({ "id": "m", "effort": "max" })).unwrap().agent.effort, None);
    for (field, value, expected) in [
        ("model", json!(null), "400 agent.model: agent_model_required: a session needs a model"),
        (
            "tools",
            json!([mcp_toolset()]),
            "400 agent.skills: need the tool `read`, and it is not enabled",
        ),
        (
            "mcp_servers",
            json!([]),
            "400 agent.tools[2].mcp_server_name: `mcp_servers` has no server `s`",
        ),
        ("bogus", json!(1), "400 agent.bogus: Extra inputs are not permitted"),
        ("name", json!("x"), "400 agent.name: Extra inputs are not permitted"),
    ] {
        assert_eq!(with(field, value.clone()).unwrap_err(), expected, "{field} {value}");
    }
    // The stored agent is as it was.
    assert_eq!(agents.resolve(&json!("agent_a")), Ok(plain));
}

#[tokio::test]
async fn a_skill_is_one_version_from_the_creation_of_a_session_on() {
    let agents = Agents::new();
    agents.put_skill("skill_x", "skillver_x").await;
    agents.put_skill("skill_y", "skillver_y").await;
    agents.put("agent_a", &full()).await;
    let with = |kind: &str, id: &str, version: &str| {
        let skills = json!([{ "type": kind, "skill_id": id, "version": version }]);
        agents
            .resolve(&json!({ "type": "agent_with_overrides", "id": "agent_a", "skills": skills }))
    };
    let shown = json!([{ "type": "custom", "skill_id": "skill_x", "version": "skillver_x" }]);
    for version in ["latest", "skillver_x"] {
        let found = with("custom", "skill_x", version).unwrap();
        assert_eq!((&found.snapshot["skills"], found.skills.len()), (&shown, 1), "{version}");
    }
    assert_eq!(agents.resolve(&json!("agent_a")).unwrap().snapshot["skills"], shown);
    for (kind, id, version, expected) in [
        ("custom", "skill_z", "latest", "404 agent.skills[0]: there is no skill `skill_z`"),
        ("custom", "x", "latest", "404 agent.skills[0]: there is no skill `x`"),
        (
            "custom",
            "skill_x",
            "skillver_y",
            "404 agent.skills[0]: the skill `skill_x` has no version `skillver_y`",
        ),
        (
            "anthropic",
            "xlsx",
            "latest",
            "400 agent.skills[0]: `xlsx` is a skill of the hosted service's own, which this server does not have; upload \
             a skill of your own and name it as `custom`",
        ),
    ] {
        assert_eq!(with(kind, id, version).unwrap_err(), expected);
    }
}

#[tokio::test]
async fn what_runs_is_what_can_run() {
    let agents = Agents::new();
    agents.put_skill("skill_x", "skillver_x").await;
    agents.put("agent_a", &full()).await;
    let grant = |name, permission_policy| ToolGrant { name, permission_policy };
    let expected = Agent {
        mcp_servers: vec![McpServer {
            name: "s".to_owned(),
            place: Place::Url { url: "https://example.com/mcp".to_owned() },
            default: Setting::default(),
            tools: BTreeMap::new(),
        }],
        name: "full".to_owned(),
        model: "m".to_owned(),
        effort: Some(Effort::Low),
        max_tokens: crate::limits::DEFAULT_MAX_TOKENS,
        system: Some("s".to_owned()),
        tools: vec![
            grant(ToolName::Bash, PermissionPolicy::AlwaysAsk),
            grant(ToolName::Read, PermissionPolicy::AlwaysAllow),
            grant(ToolName::Edit, PermissionPolicy::Auto),
            grant(ToolName::WebFetch, PermissionPolicy::AlwaysAllow),
        ],
        custom_tools: vec![CustomTool {
            name: "t".to_owned(),
            description: "d".to_owned(),
            input_schema: json!({ "type": "object" }).as_object().cloned().unwrap(),
        }],
        permissions: crate::agent::rules::Rules::default(),
        budget: None,
        web: WebSettings::default(),
    };
    assert_eq!(agents.resolve(&json!("agent_a")).unwrap().agent, expected);
    // Who chose no effort gets the provider's own, although one is shown.
    agents.put("agent_b", &json!({ "name": "b", "model": "m" })).await;
    let plain = agents.resolve(&json!("agent_b")).unwrap();
    let effort = json!({ "type": "high" });
    assert_eq!((plain.agent.effort, &plain.snapshot["model"]["effort"]), (None, &effort));
    assert_eq!(plain.agent.tools, []);
}

#[tokio::test]
async fn a_snapshot_holds_a_roster_in_full() {
    let agents = Agents::new();
    agents.put("agent_child", &json!({ "name": "child", "model": "m", "system": "c" })).await;
    let advisor = json!({ "type": "advisor", "model": "wise" });
    let coordinator = json!({
        "name": "first",
        "model": "m",
        "multiagent": {
            "type": "coordinator",
            "agents": [advisor, { "type": "self" }, "agent_child"],
        },
    });
    agents.put("agent_a", &coordinator).await;
    agents.rename("agent_child", "renamed").await;
    let child = agents.resolve(&json!({ "type": "agent", "id": "agent_child", "version": 1 }));
    let without_roster = |snapshot: &Value| {
        let mut snapshot = snapshot.clone();
        snapshot.as_object_mut().unwrap().shift_remove("multiagent");
        snapshot
    };
    let child = without_roster(&child.unwrap().snapshot);
    // An override is for the copies of itself too, and for nobody else.
    for reference in [
        json!("agent_a"),
        json!({ "type": "agent_with_overrides", "id": "agent_a", "system": "mine" }),
    ] {
        let snapshot = agents.resolve(&reference).unwrap().snapshot;
        let own = without_roster(&snapshot);
        let expected = json!({ "type": "coordinator", "agents": [own, child, advisor] });
        assert_eq!(snapshot["multiagent"], expected, "{reference}");
    }
}

#[tokio::test]
async fn a_living_session_changes_its_tools_only() {
    let agents = Agents::new();
    agents.put_skill("skill_x", "skillver_x").await;
    agents.put("agent_a", &full()).await;
    let Resolved { agent, snapshot, .. } = agents.resolve(&json!("agent_a")).unwrap();
    let change = |body: &Value| {
        let body = json!({ "agent": body });
        let mut object = Node::root(&body).object().unwrap();
        changed(&agent, &snapshot, &object.need("agent").unwrap())
            .map_err(|error| error.message().to_owned())
    };
    assert_eq!(change(&json!({})), Ok((agent.clone(), snapshot.clone())));
    let read = json!({ "type": "agent_toolset_20260401", "configs": [{ "name": "bash", "enabled": false }] });
    let (runs, shown) = change(&json!({ "tools": [read], "mcp_servers": [] })).unwrap();
    let names: Vec<_> = runs.tools.iter().map(|grant| grant.name.as_str()).collect();
    assert_eq!(
        (names, runs.custom_tools),
        (vec!["read", "write", "edit", "glob", "grep", "web_fetch", "web_search"], vec![])
    );
    assert_eq!((runs.effort, shown["mcp_servers"].clone()), (Some(Effort::Low), json!([])));
    assert_eq!(shown["tools"].as_array().map(Vec::len), Some(1));
    for (body, expected) in [
        (json!({ "system": "x" }), "agent.system: Extra inputs are not permitted"),
        (
            json!({ "mcp_servers": null }),
            "agent.tools[2].mcp_server_name: `mcp_servers` has no server `s`",
        ),
        (json!({ "tools": 1 }), "agent.tools: must be an array, not a number"),
    ] {
        assert_eq!(change(&body), Err(expected.to_owned()), "{body}");
    }
}
