//! Agents: the checklist's numbers 16 to 42 that need no session.

use serde_json::{Value, json};

use super::Server;
use crate::support::until;

/// The values at these pointers, for comparing what matters of an answer.
fn parts(value: &Value, pointers: &[&str]) -> Vec<Value> {
    let part = |pointer: &&str| value.pointer(pointer).cloned().unwrap_or_else(|| json!("absent"));
    pointers.iter().map(part).collect()
}

fn made(server: &Server, fields: &Value) -> Value {
    let mut body = json!({ "name": "a", "model": "m" });
    merge(&mut body, fields);
    server.post("/v1/agents", &body).expect(200)
}

fn merge(body: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
}

fn path(agent: &Value) -> String {
    format!("/v1/agents/{}", agent["id"].as_str().unwrap())
}

/// Each body is refused with that message, and no agent is there afterwards.
#[track_caller]
fn refused(server: &Server, cases: &[(Value, &str)]) {
    let count = || server.get("/v1/agents?limit=100").expect(200)["data"].as_array().unwrap().len();
    let before = count();
    for (fields, expected) in cases {
        let mut body = json!({ "name": "a", "model": "m" });
        merge(&mut body, fields);
        let error = server.post("/v1/agents", &body).error();
        let expected = (400, "invalid_request_error".to_owned(), (*expected).to_owned());
        assert_eq!(error, expected, "{fields}");
    }
    assert_eq!(count(), before);
}

const MODEL: [&str; 4] = ["/model/id", "/model/effort", "/model/inference_geo", "/model/speed"];

/// 16, 17, 18.
#[test]
fn a_new_agent_is_whole() {
    let server = Server::start();
    let mut agent = made(&server, &json!({}));
    for (field, start) in [("id", "agent_"), ("created_at", "20"), ("updated_at", "20")] {
        let text = agent[field].take();
        assert!(text.as_str().is_some_and(|text| text.starts_with(start)), "{field}: {text}");
    }
    insta::assert_snapshot!("new_agent", super::pretty(&agent));
    for (model, effort) in [
        (json!("m"), json!({ "type": "high" })),
        (json!({ "id": "m" }), json!({ "type": "high" })),
        (json!({ "id": "m", "effort": null }), json!({ "type": "high" })),
        (json!({ "id": "m", "effort": "low" }), json!({ "type": "low" })),
        (json!({ "id": "m", "effort": { "type": "max" } }), json!({ "type": "max" })),
    ] {
        let agent = made(&server, &json!({ "model": model }));
        assert_eq!(agent["model"]["effort"], effort, "{model}");
    }
    for (given, shown) in [
        (json!(null), json!({ "type": "service_account" })),
        (json!({ "type": "service_account" }), json!({ "type": "service_account" })),
        (
            json!({ "type": "aws_role", "role_arn": "arn:x" }),
            json!({ "type": "aws_role", "role_arn": "arn:x" }),
        ),
    ] {
        let agent = made(&server, &json!({ "execution_identity": given }));
        assert_eq!(agent["execution_identity"], shown);
    }
}

#[test]
fn a_field_that_is_wrong_is_named() {
    let server = Server::start();
    refused(
        &server,
        &[
            (json!({ "bogus": 1 }), "bogus: Extra inputs are not permitted"),
            (json!({ "name": "" }), "name: must have at least 1 characters"),
            (json!({ "name": " " }), "name: must not be blank"),
            (json!({ "name": null }), "name: must not be null"),
            (
                json!({ "name": "x".repeat(257) }),
                "name: must have at most 256 characters; it has 257",
            ),
            (json!({ "model": 1 }), "model: must be a model id, or an object with one"),
            (json!({ "model": " " }), "model: must be the id of a model"),
            (json!({ "model": {} }), "model.id: Field required"),
            (
                json!({ "model": { "id": "m", "effort": "most" } }),
                "model.effort: must be one of low, medium, high, xhigh, max",
            ),
            (
                json!({ "model": { "id": "m", "effort": { "type": "low", "x": 1 } } }),
                "model.effort.x: Extra inputs are not permitted",
            ),
            (
                json!({ "model": { "id": "m", "speed": "slow" } }),
                "model.speed: must be \"standard\" or \"fast\"",
            ),
            (
                json!({ "model": { "id": "m", "inference_geo": "moon" } }),
                "model.inference_geo: must be \"us\" or \"global\"",
            ),
            (
                json!({ "system": "x".repeat(100_001) }),
                "system: must have at most 100000 characters; it has 100001",
            ),
            (json!({ "tools": {} }), "tools: must be an array, not an object"),
            (
                json!({ "tools": [{ "type": "web" }] }),
                "tools[0].type: must be one of agent_toolset_20260401, mcp_toolset, custom",
            ),
            (
                json!({ "execution_identity": { "type": "aws_role" } }),
                "execution_identity.role_arn: Field required",
            ),
        ],
    );
    assert_eq!(server.post("/v1/agents", &json!({})).error().2, "name: Field required");
    assert_eq!(
        server.post("/v1/agents", &json!([])).error().2,
        "body: must be an object, not an array"
    );
}

/// 19, 20, 21.
#[test]
fn versions_follow_changes_and_nothing_else() {
    let server = Server::start();
    let agent = made(&server, &json!({ "description": "d" }));
    let path = path(&agent);
    for same in [json!({}), json!({ "version": 1 }), json!({ "name": "a", "model": "m" })] {
        assert_eq!(server.post(&path, &same).expect(200), agent, "{same}");
    }
    let changed = server.post(&path, &json!({ "name": "b", "version": 1 })).expect(200);
    assert_eq!(
        parts(&changed, &["/version", "/name", "/description"]),
        [json!(2), json!("b"), json!("d")]
    );
    // Stale, although it would change nothing.
    let reply = server.post(&path, &json!({ "name": "b", "version": 1 }));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    let id = agent["id"].as_str().unwrap();
    let message = format!("version: the agent `{id}` is at version 2, not 1");
    assert_eq!(reply.error(), (409, "conflict_error".to_owned(), message));
    assert_eq!(server.post(&path, &json!({ "name": "c" })).expect(200)["version"], 3);
    for (version, message) in [
        (json!(0), "version: must be between 1 and 9223372036854775807; it is 0"),
        (json!("1"), "version: must be a whole number, not a string"),
    ] {
        assert_eq!(server.post(&path, &json!({ "version": version })).error().2, message);
    }
}

/// 21: updates that name no version are all applied, whoever comes first.
#[test]
fn updates_at_once_are_all_applied() {
    let server = Server::start();
    let agent = made(&server, &json!({}));
    let path = path(&agent);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (server, path) = (&server, &path);
            let patch = json!({ "metadata": { format!("k{n}"): "v" } });
            scope.spawn(move || server.post(path, &patch).expect(200));
        }
    });
    let agent = server.get(&path).expect(200);
    assert_eq!(agent["version"], 5);
    assert_eq!(agent["metadata"].as_object().unwrap().len(), 4);
}

/// 22, 23, 24.
#[test]
fn what_is_cleared_and_what_cannot_be() {
    let server = Server::start();
    let toolset = json!({ "type": "agent_toolset_20260401" });
    let full = json!({ "system": "s", "description": "d", "tools": [toolset] });
    let shown = ["/system", "/description", "/tools"];
    let none = [json!(null), json!(null), json!([])];
    for clearing in [
        json!({ "system": null, "description": null, "tools": null }),
        json!({ "system": "", "description": "", "tools": [] }),
    ] {
        let agent = made(&server, &full);
        let path = path(&agent);
        let kept = server.post(&path, &json!({ "name": "b" })).expect(200);
        assert_eq!(parts(&kept, &shown), parts(&agent, &shown));
        let cleared = server.post(&path, &clearing).expect(200);
        assert_eq!(parts(&cleared, &shown), none, "{clearing}");
    }
    let agent = made(&server, &full);
    let custom = json!({
        "type": "custom", "name": "t", "description": "d", "input_schema": { "type": "object" },
    });
    let replaced = server.post(&path(&agent), &json!({ "tools": [custom] })).expect(200);
    assert_eq!(replaced["tools"], json!([custom]));
    for field in ["name", "model"] {
        let error = server.post(&path(&agent), &json!({ field: null })).error();
        let message = format!("{field}: cannot be cleared");
        assert_eq!(error, (400, "invalid_request_error".to_owned(), message));
    }
}

/// 25, 26.
#[test]
fn a_model_is_replaced_whole_but_for_its_effort() {
    let server = Server::start();
    let first = json!({ "id": "m", "effort": "low", "inference_geo": "us", "speed": "fast" });
    let (low, high) = (json!({ "type": "low" }), json!({ "type": "high" }));
    for (update, expected) in [
        (json!("m"), ["m".into(), low.clone(), json!(null), "standard".into()]),
        (json!({ "id": "m", "effort": null }), ["m".into(), low, json!(null), "standard".into()]),
        (json!("n"), ["n".into(), high.clone(), json!(null), "standard".into()]),
        (
            json!({ "id": "m", "effort": "high", "inference_geo": "global" }),
            ["m".into(), high, "global".into(), "standard".into()],
        ),
    ] {
        let agent = made(&server, &json!({ "model": first }));
        let updated = server.post(&path(&agent), &json!({ "model": update })).expect(200);
        assert_eq!(parts(&updated, &MODEL), expected, "{update}");
    }
}

/// 27.
#[test]
fn metadata_is_patched_key_by_key() {
    let server = Server::start();
    let agent = made(&server, &json!({ "metadata": { "a": "1", "b": "2" } }));
    let path = path(&agent);
    for (patch, expected) in [
        (json!({ "a": null, "c": "3" }), json!({ "b": "2", "c": "3" })),
        (json!({}), json!({ "b": "2", "c": "3" })),
        (json!({ "b": "" }), json!({ "b": "", "c": "3" })),
    ] {
        let agent = server.post(&path, &json!({ "metadata": patch })).expect(200);
        assert_eq!(agent["metadata"], expected);
    }
    let many: Value =
        (0..15).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    for (patch, message) in [
        (many, "metadata: must have at most 16 pairs; it has 17"),
        (
            json!({ "k": "v".repeat(513) }),
            "metadata.k: must have at most 512 characters; it has 513",
        ),
        (json!({ "": "v" }), "metadata.: a key must have 1 to 64 characters"),
        (json!({ "k": 1 }), "metadata.k: must be a string, not a number"),
    ] {
        assert_eq!(server.post(&path, &json!({ "metadata": patch })).error().2, message);
    }
}

/// 28, 29.
#[test]
fn history_can_be_read() {
    let server = Server::start();
    let agent = made(&server, &json!({}));
    let path = path(&agent);
    for name in ["b", "c"] {
        server.post(&path, &json!({ "name": name })).expect(200);
    }
    assert_eq!(server.get(&format!("{path}?version=1")).expect(200), agent);
    assert_eq!(server.get(&path).expect(200)["name"], "c");
    let id = agent["id"].as_str().unwrap();
    let message = format!("the agent `{id}` has no version 9");
    let error = server.get(&format!("{path}?version=9")).error();
    assert_eq!(error, (404, "not_found_error".to_owned(), message));
    assert_eq!(server.get(&format!("{path}?version=0")).error().0, 400);

    let first = server.get(&format!("{path}/versions?limit=2")).expect(200);
    let second = server
        .get(&format!("{path}/versions?limit=2&page={}", first["next_page"].as_str().unwrap()));
    let second = second.expect(200);
    let names = |page: &Value| {
        let data = page["data"].as_array().unwrap().iter();
        data.map(|one| (one["version"].as_u64().unwrap(), one["name"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let pair = |version, name: &str| (version, name.to_owned());
    assert_eq!(names(&first), [pair(3, "c"), pair(2, "b")]);
    assert_eq!((names(&second), &second["next_page"]), (vec![pair(1, "a")], &json!(null)));
    // A cursor of another agent's versions, and one of another list.
    let other = made(&server, &json!({}))["id"].as_str().unwrap().to_owned();
    let cursor = first["next_page"].as_str().unwrap();
    for wrong in [format!("/v1/agents/{other}/versions"), "/v1/agents".to_owned()] {
        assert_eq!(server.get(&format!("{wrong}?page={cursor}")).error().0, 400, "{wrong}");
    }
    assert_eq!(server.get("/v1/agents/agent_none/versions").error().0, 404);
}

/// 30, 31.
#[test]
fn an_archived_agent_stays_as_it_is() {
    let server = Server::start();
    let (kept, agent) = (made(&server, &json!({})), made(&server, &json!({})));
    let path = path(&agent);
    let archive = format!("{path}/archive");
    let archived = server.ask("POST", &archive, None).expect(200);
    assert_eq!(parts(&archived, &["/version", "/name"]), [json!(1), json!("a")]);
    assert!(archived["archived_at"].is_string(), "{archived}");
    assert_eq!(server.ask("POST", &archive, None).expect(200), archived);
    assert_eq!(server.get(&path).expect(200), archived);
    let id = agent["id"].as_str().unwrap();
    let error = server.post(&path, &json!({ "name": "b" })).error();
    let message = format!("the agent `{id}` is archived");
    assert_eq!(error, (400, "invalid_request_error".to_owned(), message));
    let listed = |query: &str| {
        let page = server.get(&format!("/v1/agents{query}")).expect(200);
        page["data"].as_array().unwrap().clone()
    };
    assert_eq!(listed(""), std::slice::from_ref(&kept));
    assert_eq!(listed("?include_archived=true"), [archived, kept]);
    assert_eq!(server.ask("POST", "/v1/agents/agent_none/archive", None).error().0, 404);
    assert_eq!(server.ask("DELETE", &path, None).error().0, 405);
}

/// Whoever updates while another archives is either before it, and then the archive shows it, or refused.
#[test]
fn what_an_archive_answered_stays() {
    let server = Server::start();
    for _ in 0..20 {
        let agent = path(&made(&server, &json!({})));
        let archived = std::thread::scope(|scope| {
            for client in 0..2 {
                let (server, agent) = (&server, &agent);
                scope.spawn(move || {
                    for n in 0.. {
                        let reply = server.post(agent, &json!({ "name": format!("{client}.{n}") }));
                        match reply.status {
                            // Others were faster all the time.
                            200 | 409 => {}
                            _ => return assert_eq!(reply.error().0, 400),
                        }
                    }
                });
            }
            until("an update", || (server.get(&agent).expect(200)["version"] != 1).then_some(()));
            server.post(&format!("{agent}/archive"), &json!({})).expect(200)
        });
        assert_eq!(server.get(&agent).expect(200), archived);
    }
}

#[test]
fn lists_are_cut_into_pages_and_by_time() {
    let server = Server::start();
    let first = made(&server, &json!({ "name": "0" }));
    // The clock's next millisecond, so that the times differ.
    let rest: Vec<_> = (1..5)
        .map(|n| {
            until("another millisecond", || {
                let agent = made(&server, &json!({ "name": n.to_string() }));
                (agent["created_at"] != first["created_at"]).then_some(agent)
            })
        })
        .collect();
    let mut names = Vec::new();
    let mut page = String::new();
    loop {
        let list = server.get(&format!("/v1/agents?limit=2{page}")).expect(200);
        names.extend(list["data"].as_array().unwrap().iter().map(|one| one["id"].clone()));
        match list["next_page"].as_str() {
            Some(next) => page = format!("&page={next}"),
            None => break,
        }
    }
    assert!(names.len() >= 5 && names.last() == Some(&first["id"]), "{names:?}");
    let at = |agent: &Value| agent["created_at"].as_str().unwrap().to_owned();
    let until_first = server.get(&format!("/v1/agents?created_at[lte]={}", at(&first))).expect(200);
    assert_eq!(until_first["data"].as_array().unwrap().last().unwrap()["id"], first["id"]);
    assert!(!until_first["data"].as_array().unwrap().iter().any(|one| one["id"] == rest[3]["id"]));
    let since = server.get(&format!("/v1/agents?created_at%5Bgte%5D={}", at(&rest[3]))).expect(200);
    assert!(!since["data"].as_array().unwrap().iter().any(|one| one["id"] == first["id"]));
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "page=x",
        "include_archived=perhaps",
        "created_at[gte]=soon",
    ] {
        assert_eq!(server.get(&format!("/v1/agents?{query}")).error().0, 400, "{query}");
    }
}

fn mcp(name: &str) -> Value {
    json!({ "type": "url", "name": name, "url": "https://example.com/mcp" })
}

/// 32.
#[test]
fn servers_and_toolsets_belong_together() {
    let server = Server::start();
    let toolset = json!({ "type": "mcp_toolset", "mcp_server_name": "s" });
    let many: Vec<_> = (0..21).map(|n| mcp(&n.to_string())).collect();
    refused(
        &server,
        &[
            (
                json!({ "mcp_servers": [mcp("s")] }),
                "mcp_servers[0].name: no mcp_toolset in `tools` is of the MCP server `s`",
            ),
            (
                json!({ "tools": [toolset] }),
                "tools[0].mcp_server_name: `mcp_servers` has no server `s`",
            ),
            (
                json!({ "tools": [toolset], "mcp_servers": [mcp("s"), mcp("s")] }),
                "mcp_servers[1].name: there is an MCP server `s` already",
            ),
            (
                json!({ "tools": [toolset, toolset], "mcp_servers": [mcp("s")] }),
                "tools[1].mcp_server_name: the MCP server `s` has a toolset already",
            ),
            (
                json!({ "mcp_servers": many }),
                "mcp_servers: must have at most 20 entries; it has 21",
            ),
            (
                json!({ "mcp_servers": [{ "type": "url", "name": "s", "url": "ftp://x" }] }),
                "mcp_servers[0].url: must be a URL that begins with https:// or http://",
            ),
        ],
    );
    let agent = made(&server, &json!({ "tools": [toolset], "mcp_servers": [mcp("s")] }));
    assert_eq!(agent["mcp_servers"], json!([mcp("s")]));
    // Either is only taken away with the other.
    for part in ["tools", "mcp_servers"] {
        assert_eq!(server.post(&path(&agent), &json!({ part: [] })).error().0, 400, "{part}");
    }
    let both = json!({ "tools": [], "mcp_servers": null });
    assert_eq!(server.post(&path(&agent), &both).expect(200)["mcp_servers"], json!([]));
}

/// 33.
#[test]
fn custom_tools_have_names_of_their_own_and_plain_schemas() {
    let server = Server::start();
    let tool = |name: &str, schema: Value| json!({ "tools": [{ "type": "custom", "name": name, "description": "d", "input_schema": schema }] });
    let named = |name: &str| tool(name, json!({ "type": "object" }));
    let object = |fields: Value| {
        let mut schema = json!({ "type": "object" });
        merge(&mut schema, &fields);
        tool("t", schema)
    };
    let mut twice = named("t");
    let again = twice["tools"][0].clone();
    twice["tools"].as_array_mut().unwrap().push(again);
    let long = "x".repeat(65);
    let many: Vec<_> = (0..257).map(|n| named(&format!("t{n}"))["tools"][0].clone()).collect();
    let mut sum = json!({ "tools": many[..249] });
    sum["tools"].as_array_mut().unwrap().push(json!({ "type": "agent_toolset_20260401" }));
    refused(
        &server,
        &[
            (named("bash"), "tools[0].name: \"bash\" is the name of a built-in tool"),
            (named("web_fetch"), "tools[0].name: \"web_fetch\" is the name of a built-in tool"),
            (
                named("mcp__x"),
                "tools[0].name: must not begin with \"mcp__\", as tools of MCP servers do",
            ),
            (
                named(&"x".repeat(129)),
                "tools[0].name: must have at most 128 characters; it has 129",
            ),
            (
                named("a b"),
                "tools[0].name: must have letters, digits, underscores and hyphens only",
            ),
            (twice, "tools[1].name: there is a custom tool `t` already"),
            (tool("t", json!({})), "tools[0].input_schema.type: Field required"),
            (
                tool("t", json!({ "type": "array" })),
                "tools[0].input_schema.type: must be \"object\"",
            ),
            (
                object(json!({ "anyOf": [] })),
                "tools[0].input_schema.anyOf: is not supported at the top of an input schema",
            ),
            (
                object(json!({ "properties": { "p": { "items": { "$ref": "#/x" } } } })),
                "tools[0].input_schema: `$ref` is not supported",
            ),
            (
                object(json!({ "properties": { long.clone(): {} } })),
                &format!(
                    "tools[0].input_schema.properties.{long}: a name must have at most 64 characters"
                ),
            ),
            (
                object(json!({ "required": [1] })),
                "tools[0].input_schema.required[0]: must be a string, not a number",
            ),
            (json!({ "tools": many }), "tools: must have at most 256 entries; it has 257"),
            (sum, "tools: must have at most 256 tools; it has 257"),
        ],
    );
    // A property may be called as a word of the language is.
    let schema =
        json!({ "type": "object", "properties": { "$ref": { "type": "string" } }, "title": "T" });
    let agent = made(&server, &tool("t", schema.clone()));
    assert_eq!(agent["tools"][0]["input_schema"], schema);
}

/// 34, 35.
#[test]
fn toolsets_are_shown_resolved() {
    let server = Server::start();
    let ask = json!({ "type": "always_ask" });
    let agent = made(
        &server,
        &json!({
            "mcp_servers": [mcp("s")],
            "tools": [
                {
                    "type": "agent_toolset_20260401",
                    "default_config": { "permission_policy": { "type": "auto" } },
                    "configs": [
                        { "name": "bash", "permission_policy": ask },
                        { "name": "grep", "type": "grep", "enabled": false },
                        { "name": "read", "enabled": null, "permission_policy": null },
                        { "name": "web_search", "user_location": { "type": "approximate", "city": "Ulm" } },
                    ],
                },
                {
                    "type": "mcp_toolset",
                    "mcp_server_name": "s",
                    "configs": [{ "name": "look", "permission_policy": { "type": "always_allow" } }],
                },
            ],
        }),
    );
    insta::assert_snapshot!("toolsets", super::pretty(&agent["tools"]));
    let agent = made(&server, &json!({ "tools": [{ "type": "agent_toolset_20260401" }] }));
    insta::assert_snapshot!("plain_toolset", super::pretty(&agent["tools"]));

    let set = |configs: Value| json!({ "tools": [{ "type": "agent_toolset_20260401", "configs": configs }] });
    refused(
        &server,
        &[
            (
                set(json!([{ "name": "read" }, { "name": "bash", "bogus": 1 }])),
                "tools[0].configs[1].bogus: Extra inputs are not permitted for name \"bash\"",
            ),
            (
                set(json!([{ "name": "shell" }])),
                "tools[0].configs[0].name: \"shell\" does not match name of any of bash, read, write, edit, glob, \
                 grep, web_fetch, web_search",
            ),
            (
                set(json!([{ "name": "bash", "type": "read" }])),
                "tools[0].configs[0].type: must be \"bash\" on a config of type \"bash\"",
            ),
            (
                set(json!([{ "name": "bash" }, { "name": "bash" }])),
                "tools[0].configs[1]: \"bash\" has two entries",
            ),
            (
                set(json!([{ "name": "bash", "permission_policy": { "type": "never" } }])),
                "tools[0].configs[0].permission_policy.type: must be one of always_allow, always_ask, auto",
            ),
            (
                json!({ "tools": [{ "type": "agent_toolset_20260401" }, { "type": "agent_toolset_20260401" }] }),
                "tools[1].type: there can be one `agent_toolset_20260401` only",
            ),
        ],
    );
}

fn web(tool: &str, fields: &Value) -> Value {
    let mut config = json!({ "name": tool });
    merge(&mut config, fields);
    json!({ "tools": [{ "type": "agent_toolset_20260401", "configs": [config] }] })
}

/// 36.
#[test]
fn domain_lists_hold_public_hostnames() {
    let server = Server::start();
    for (tool, given, shown) in [
        ("web_fetch", "Docs.Example.COM/", "docs.example.com"),
        ("web_search", "example.com/docs/a", "example.com/docs/a"),
        ("web_search", "example.com/", "example.com"),
    ] {
        let agent = made(&server, &web(tool, &json!({ "allowed_domains": [given] })));
        assert_eq!(agent["tools"][0]["configs"][0]["allowed_domains"], json!([shown]), "{given}");
    }
    let list = |domain: &str| web("web_fetch", &json!({ "blocked_domains": [domain] }));
    let at = "tools[0].configs[0].blocked_domains[0]:";
    let plain = format!("{at} must be a plain hostname, without scheme, port or wildcard");
    let suffix = format!("{at} must be a domain, not a whole suffix of domains");
    let public = format!("{at} must be a public hostname");
    let address = |given: &str| format!("{at} `{given}` is an address, or is read as one");
    let (first, second) = (address("127.0.0.1"), address("0x7f.1"));
    let path = format!("{at} must be a plain hostname, without a path");
    let ascii =
        format!("{at} `b\\u{{fc}}cher.example` is not ASCII; write the name in its `xn--` form");
    let many: Vec<_> = (0..65).map(|n| format!("d{n}.example.com")).collect();
    refused(
        &server,
        &[
            (
                web(
                    "web_fetch",
                    &json!({ "allowed_domains": ["a.example"], "blocked_domains": ["b.example"] }),
                ),
                "tools[0].configs[0].blocked_domains: Only one of allowed_domains or blocked_domains may be set.",
            ),
            (
                web("web_fetch", &json!({ "allowed_domains": [] })),
                "tools[0].configs[0].allowed_domains: Empty list of domains is ambiguous. Provide at least one \
                 domain or null.",
            ),
            (
                web("web_fetch", &json!({ "allowed_domains": many })),
                "tools[0].configs[0].allowed_domains: must have at most 64 entries; it has 65",
            ),
            (
                web("web_fetch", &json!({ "allowed_domains": ["a.example", "A.example"] })),
                "tools[0].configs[0].allowed_domains[1]: \"a.example\" is there twice",
            ),
            (
                web("bash", &json!({ "allowed_domains": ["a.example"] })),
                "tools[0].configs[0].allowed_domains: Extra inputs are not permitted for name \"bash\"",
            ),
            (list("https://a.example"), &plain),
            (list("a.example:80"), &plain),
            (list("*.a.example"), &plain),
            (list("127.0.0.1"), &first),
            (list("0x7f.1"), &second),
            (list("localhost"), &public),
            (list("a.internal"), &public),
            (list("com"), &suffix),
            (list("co.uk"), &suffix),
            (list("a.example/path"), &path),
            (list("bücher.example"), &ascii),
        ],
    );
}

/// 37.
#[test]
fn url_sources_are_shown_as_objects() {
    let server = Server::start();
    let custom = json!({
        "type": "custom", "name": "t", "description": "d", "input_schema": { "type": "object" },
    });
    let sources = |sources: Value| {
        let mut body = web("web_fetch", &json!({ "url_sources": sources }));
        body["tools"].as_array_mut().unwrap().push(custom.clone());
        body
    };
    let only = |name: &str| json!({ "type": "only", "tools": [{ "type": "tool_reference", "name": name }] });
    for (given, shown) in [
        (json!(null), json!(null)),
        (
            json!({ "user_input": "all", "client_tool_results": "none", "server_tool_results": null }),
            json!({
                "user_input": { "type": "all" },
                "client_tool_results": { "type": "none" },
                "server_tool_results": null,
            }),
        ),
        (
            json!({ "client_tool_results": only("t"), "server_tool_results": only("web_search") }),
            json!({
                "user_input": null,
                "client_tool_results": only("t"),
                "server_tool_results": only("web_search"),
            }),
        ),
    ] {
        let agent = made(&server, &sources(given.clone()));
        assert_eq!(agent["tools"][0]["configs"][0]["url_sources"], shown, "{given}");
    }
    let at = "tools[0].configs[0].url_sources";
    let message = |rest: &str| format!("{at}{rest}");
    let none = json!({ "user_input": "none", "client_tool_results": "none", "server_tool_results": { "type": "none" } });
    for (given, expected) in [
        (none, ": must not be \"none\" for every source"),
        (json!({ "user_input": only("t") }), ".user_input.type: must be \"all\" or \"none\""),
        (json!({ "user_input": "some" }), ".user_input: must be \"all\" or \"none\""),
        (
            json!({ "client_tool_results": only("bash") }),
            ".client_tool_results.tools[0].name: names no tool that can be named here: t",
        ),
        (
            json!({ "server_tool_results": only("t") }),
            ".server_tool_results.tools[0].name: names no tool that can be named here: web_search, web_fetch",
        ),
        (
            json!({ "server_tool_results": { "type": "except", "tools": [] } }),
            ".server_tool_results.tools: must name at least one tool",
        ),
    ] {
        refused(&server, &[(sources(given), &message(expected))]);
    }
}

/// 38.
#[test]
fn skills_need_the_tool_that_reads_them() {
    let server = Server::start();
    let skill = json!({ "type": "custom", "skill_id": "skill_x" });
    let set = |enabled: bool| {
        json!([{
            "type": "agent_toolset_20260401",
            "configs": [{ "name": "read", "enabled": enabled }],
        }])
    };
    let needs = "skills: need the tool `read`, and it is not enabled";
    refused(
        &server,
        &[
            (json!({ "skills": [skill] }), needs),
            (json!({ "skills": [skill], "tools": set(false) }), needs),
            (
                json!({ "skills": [skill, skill], "tools": set(true) }),
                "skills[1]: the skill `skill_x` is there already",
            ),
        ],
    );
    let agent = made(&server, &json!({ "skills": [skill], "tools": set(true) }));
    let shown = json!([{ "type": "custom", "skill_id": "skill_x", "version": "latest" }]);
    assert_eq!(agent["skills"], shown);
    assert_eq!(server.post(&path(&agent), &json!({ "tools": [] })).error().2, needs);
}

/// 39, 40, 41.
#[test]
fn rosters_are_pinned_and_one_level_deep() {
    let server = Server::start();
    let id = |agent: &Value| agent["id"].as_str().unwrap().to_owned();
    let roster =
        |agents: Value| json!({ "multiagent": { "type": "coordinator", "agents": agents } });
    let advisor = json!({ "type": "advisor", "model": "m" });
    let (child, gone) = (made(&server, &json!({})), made(&server, &json!({})));
    server.ask("POST", &format!("{}/archive", path(&gone)), None).expect(200);
    let agent = made(&server, &roster(json!([advisor, id(&child), { "type": "self" }])));
    let reference =
        |id: String, version: u64| json!({ "type": "agent", "id": id, "version": version });
    let pinned = json!({
        "type": "coordinator",
        "agents": [reference(id(&child), 1), reference(id(&agent), 1), advisor],
    });
    assert_eq!(agent["multiagent"], pinned);
    server.post(&path(&child), &json!({ "name": "changed" })).expect(200);
    assert_eq!(server.get(&path(&agent)).expect(200)["multiagent"], pinned);
    // What was shown can be sent back: it is the same.
    assert_eq!(server.post(&path(&agent), &json!({ "multiagent": pinned })).expect(200), agent);
    // `self` goes along with the versions.
    let renamed = server.post(&path(&agent), &json!({ "name": "b" })).expect(200);
    assert_eq!(renamed["multiagent"]["agents"][1], reference(id(&agent), 2));
    // A new save of the roster takes the child as it is now, or as it is asked to.
    for (entry, version) in [
        (json!(id(&child)), 2),
        (json!({ "type": "agent", "id": id(&child) }), 2),
        (reference(id(&child), 1), 1),
    ] {
        let saved = server.post(&path(&agent), &roster(json!([entry]))).expect(200);
        assert_eq!(saved["multiagent"]["agents"], json!([reference(id(&child), version)]));
    }
    let twenty_one: Vec<_> = (0..21).map(|_| json!({ "type": "self" })).collect();
    let at = |rest: &str| format!("multiagent.agents{rest}");
    for (agents, expected) in [
        (json!([]), ": must name at least one agent"),
        (json!(twenty_one), ": must have at most 20 entries; it has 21"),
        (
            json!([id(&child), reference(id(&child), 1)]),
            "[1]: names an agent that is there already",
        ),
        (
            json!([{ "type": "self" }, { "type": "self" }]),
            "[1]: names an agent that is there already",
        ),
        (json!([advisor, advisor]), "[1]: there can be one advisor only"),
        (json!([id(&gone)]), "[0]: the agent is archived"),
        (json!([id(&agent)]), "[0]: the agent has `multiagent` itself; one level is what there is"),
        (json!(["agent_none"]), "[0]: there is no such agent, or not at this version"),
        (
            json!([reference(id(&child), 9)]),
            "[0].id: there is no such agent, or not at this version",
        ),
        (json!([{ "type": "advisor" }]), "[0].model: Field required"),
    ] {
        refused(&server, &[(roster(agents), &at(expected))]);
    }
}

/// 42.
#[test]
fn the_newer_roster_is_merged_level_by_level() {
    let server = Server::start();
    let child = made(&server, &json!({}))["id"].as_str().unwrap().to_owned();
    let with = |fields: &Value| {
        let mut multiagent = json!({ "type": "multiagent_20261001" });
        merge(&mut multiagent, fields);
        json!({ "multiagent": multiagent })
    };
    let (on, off) = (json!({ "type": "enabled" }), json!({ "type": "disabled" }));
    let team = |agents: Value| json!({ "type": "enabled", "inline_agents": on, "predefined_agents": agents });
    let agent = made(&server, &with(&json!({})));
    let (path, empty) = (path(&agent), team(json!([])));
    let known = json!([{ "type": "agent", "id": child, "version": 1 }]);
    // One update after the other.
    for (update, subagents, workflows, advisor) in [
        (json!({}), &empty, &empty, &off),
        (json!({ "workflows": off }), &empty, &off, &off),
        (
            json!({ "subagents": { "type": "enabled", "predefined_agents": [child] } }),
            &team(known.clone()),
            &off,
            &off,
        ),
        (
            json!({ "subagents": { "type": "enabled", "inline_agents": off }, "workflows": null }),
            &json!({ "type": "enabled", "inline_agents": off, "predefined_agents": known }),
            &empty,
            &off,
        ),
        (
            json!({ "subagents": null, "advisor": { "type": "enabled", "model": "m" } }),
            &empty,
            &empty,
            &json!({ "type": "enabled", "model": "m" }),
        ),
        (json!({ "advisor": on }), &empty, &empty, &json!({ "type": "enabled", "model": "m" })),
        (json!({ "advisor": null }), &empty, &empty, &off),
    ] {
        let shown = server.post(&path, &with(&update)).expect(200);
        let expected =
            with(&json!({ "subagents": subagents, "workflows": workflows, "advisor": advisor }));
        assert_eq!(shown["multiagent"], expected["multiagent"], "{update}");
    }
    let lonely = json!({ "type": "enabled", "inline_agents": off });
    let need = |field: &str| {
        format!(
            "multiagent.{field}.predefined_agents: must name at least one agent where inline_agents is disabled"
        )
    };
    refused(
        &server,
        &[
            (with(&json!({ "subagents": lonely })), &need("subagents")),
            (with(&json!({ "workflows": lonely })), &need("workflows")),
            (with(&json!({ "advisor": on })), "multiagent.advisor.model: Field required"),
            (with(&json!({ "workflows": {} })), "multiagent.workflows.type: Field required"),
            (
                with(
                    &json!({ "subagents": { "type": "enabled", "predefined_agents": [{ "type": "advisor", "model": "m" }] } }),
                ),
                "multiagent.subagents.predefined_agents[0].type: must be \"agent\" or \"self\"",
            ),
        ],
    );
    // Another kind replaces the whole.
    let other = json!({ "multiagent": { "type": "coordinator", "agents": [child] } });
    let expected = json!({ "type": "coordinator", "agents": known });
    assert_eq!(server.post(&path, &other).expect(200)["multiagent"], expected);
    assert_eq!(
        server.post(&path, &json!({ "multiagent": null })).expect(200)["multiagent"],
        json!(null)
    );
}
