//! Environments: the checklist's numbers 43 to 49 that need no session.

use serde_json::{Value, json};

use super::Server;

fn made(server: &Server, config: &Value) -> Value {
    server.post("/v1/environments", &json!({ "name": "e", "config": config })).expect(200)
}

fn path(environment: &Value) -> String {
    format!("/v1/environments/{}", environment["id"].as_str().unwrap())
}

#[track_caller]
fn refused(server: &Server, cases: &[(Value, &str)]) {
    for (body, message) in cases {
        let error = server.post("/v1/environments", body).error();
        assert_eq!(
            error,
            (400, "invalid_request_error".to_owned(), (*message).to_owned()),
            "{body}"
        );
    }
    let list = server.get("/v1/environments").expect(200);
    assert_eq!(list["data"], json!([]));
}

fn code(reply: &super::server::Reply) -> Value {
    reply.json()["error"]["details"]["error_code"].clone()
}

/// 43.
#[test]
fn a_new_environment_is_whole() {
    let server = Server::start();
    let mut environment = server.post("/v1/environments", &json!({ "name": "e" })).expect(200);
    for (field, start) in [("id", "env_"), ("created_at", "20"), ("updated_at", "20")] {
        let text = environment[field].take();
        assert!(text.as_str().is_some_and(|text| text.starts_with(start)), "{field}: {text}");
    }
    insta::assert_snapshot!("new_environment", super::pretty(&environment));
    for config in
        [json!(null), json!({ "type": "cloud" }), json!({ "type": "cloud", "networking": null })]
    {
        assert_eq!(made(&server, &config)["config"], environment["config"]);
    }
    assert_eq!(
        made(&server, &json!({ "type": "self_hosted" }))["config"],
        json!({ "type": "self_hosted" })
    );
    let limited = json!({ "type": "cloud", "networking": { "type": "limited" } });
    let shown = json!({
        "type": "limited",
        "allowed_hosts": [],
        "allow_package_managers": false,
        "allow_mcp_servers": false,
    });
    assert_eq!(made(&server, &limited)["config"]["networking"], shown);
}

/// 44.
#[test]
fn a_field_that_is_wrong_is_named() {
    let server = Server::start();
    let cloud = |fields: &[(&str, Value)]| {
        let mut config = json!({ "type": "cloud" });
        for (name, value) in fields {
            config[*name] = value.clone();
        }
        json!({ "name": "e", "config": config })
    };
    let hosts = |host: &str| {
        cloud(&[("networking", json!({ "type": "limited", "allowed_hosts": [host] }))])
    };
    let pip = |package: &str| cloud(&[("packages", json!({ "pip": [package] }))]);
    let first = "config.networking.allowed_hosts[0]:";
    let many = |count: usize| -> Vec<_> { (0..count).map(|n| format!("p{n}")).collect() };
    refused(
        &server,
        &[
            (json!({}), "name: Field required"),
            (json!({ "name": " " }), "name: must not be blank"),
            (json!({ "name": "e", "scope": "account" }), "scope: must be \"organization\""),
            (json!({ "name": "e", "config": {} }), "config.type: Field required"),
            (
                json!({ "name": "e", "config": { "type": "moon" } }),
                "config.type: must be \"cloud\" or \"self_hosted\"",
            ),
            (
                json!({ "name": "e", "config": { "type": "self_hosted", "networking": null } }),
                "config.networking: Extra inputs are not permitted",
            ),
            (
                cloud(&[
                    ("networking", json!({ "type": "limited" })),
                    ("packages", json!({ "pip": ["requests"] })),
                ]),
                "config.packages: the environment has packages, and its `limited` networking does not allow package \
                 managers: set `allow_package_managers: true`",
            ),
            (
                hosts("https://a.example"),
                &format!("{first} must be a host, without scheme and path"),
            ),
            (hosts("a.example/x"), &format!("{first} must be a host, without scheme and path")),
            (hosts("a.example:80"), &format!("{first} must be a host, without a port")),
            (hosts("[::1]:80"), &format!("{first} must be a host, without a port")),
            (hosts(""), &format!("{first} must have at least 1 characters")),
            (hosts("*"), &format!("{first} `*` has a character that no host name has")),
            (
                hosts("*.*.example"),
                &format!("{first} `*.example` has a character that no host name has"),
            ),
            (
                pip("--index-url=x"),
                "config.packages.pip[0]: must begin with a letter or a digit: it is a name, not an option or a path",
            ),
            (
                pip("git+https://x"),
                "config.packages.pip[0]: must be a package of a registry, not a URL or a path",
            ),
            (
                pip("x;rm"),
                "config.packages.pip[0]: has a character that no package's name or version has",
            ),
            (
                cloud(&[("packages", json!({ "npm": ["a", "user/repository"] }))]),
                "config.packages.npm[1]: must be a package of a registry, not a repository",
            ),
            (
                cloud(&[("packages", json!({ "brew": [] }))]),
                "config.packages.brew: Extra inputs are not permitted",
            ),
            (
                cloud(&[("packages", json!({ "pip": many(501) }))]),
                "config.packages.pip: must have at most 500 entries; it has 501",
            ),
            (
                cloud(&[("packages", json!({ "pip": many(500), "apt": many(1) }))]),
                "config.packages: there are 501 packages, and at most 500 can be had",
            ),
        ],
    );
    let reply = server.post("/v1/environments", &json!({ "name": "e", "metadata": { "k": 1 } }));
    assert_eq!((reply.error().0, code(&reply)), (400, json!("invalid_metadata")));
}

/// 45.
#[test]
fn an_update_keeps_what_it_leaves_out() {
    let server = Server::start();
    let environment = made(
        &server,
        &json!({
            "type": "cloud",
            "networking": {
                "type": "limited",
                "allowed_hosts": ["a.example", "*.b.example"],
                "allow_package_managers": true,
            },
            "packages": { "apt": ["jq"], "pip": ["numpy==2.1.0"] },
        }),
    );
    let path = path(&environment);
    for same in [
        json!({}),
        json!({ "name": "e" }),
        json!({ "config": { "type": "cloud" } }),
        json!({ "name": null }),
    ] {
        assert_eq!(server.post(&path, &same).expect(200), environment, "{same}");
    }
    let config = |update: Value| {
        let body = json!({ "config": update });
        server.post(&path, &body).expect(200)["config"].clone()
    };
    let mut expected = environment["config"].clone();
    expected["networking"]["allow_mcp_servers"] = json!(true);
    let update = json!({ "type": "limited", "allow_mcp_servers": true });
    assert_eq!(config(json!({ "type": "cloud", "networking": update })), expected);
    expected["packages"]["pip"] = json!([]);
    assert_eq!(config(json!({ "type": "cloud", "packages": { "pip": [] } })), expected);
    // What is left must still make sense.
    let forbid = json!({ "type": "cloud", "networking": { "type": "limited", "allow_package_managers": false } });
    assert_eq!(server.post(&path, &json!({ "config": forbid })).error().0, 400);
    expected["networking"] = json!({ "type": "unrestricted" });
    assert_eq!(
        config(json!({ "type": "cloud", "networking": { "type": "unrestricted" } })),
        expected
    );
    for (description, shown) in
        [(json!("d"), json!("d")), (json!(""), json!("")), (json!(null), json!(null))]
    {
        let body = json!({ "description": description });
        assert_eq!(server.post(&path, &body).expect(200)["description"], shown);
    }
}

/// 46, 47.
#[test]
fn what_cannot_change_has_a_code() {
    let server = Server::start();
    let environment = made(&server, &json!(null));
    let path = path(&environment);
    let reply = server.post(&path, &json!({ "config": { "type": "self_hosted" } }));
    assert_eq!((reply.error().0, code(&reply)), (400, json!("invalid_config_type_change")));
    let archived = server.ask("POST", &format!("{path}/archive"), None).expect(200);
    assert!(archived["archived_at"].is_string(), "{archived}");
    assert_eq!(server.ask("POST", &format!("{path}/archive"), None).expect(200), archived);
    let reply = server.post(&path, &json!({ "name": "f" }));
    assert_eq!((reply.error().0, code(&reply)), (400, json!("environment_archived")));
    assert_eq!(server.get("/v1/environments").expect(200)["data"], json!([]));
    let all = server.get("/v1/environments?include_archived=true").expect(200);
    assert_eq!(all["data"], json!([archived]));
}

/// 48.
#[test]
fn metadata_has_two_ways_to_delete_a_key() {
    let server = Server::start();
    let body = json!({ "name": "e", "metadata": { "a": "1", "b": "2", "c": "3" } });
    let environment = server.post("/v1/environments", &body).expect(200);
    let patch = json!({ "metadata": { "a": null, "b": "", "d": "4" } });
    let patched = server.post(&path(&environment), &patch).expect(200);
    assert_eq!(patched["metadata"], json!({ "c": "3", "d": "4" }));
}

/// 49, without sessions.
#[test]
fn a_deleted_environment_is_gone() {
    let server = Server::start();
    let (first, second) = (made(&server, &json!(null)), made(&server, &json!(null)));
    server.ask("POST", &format!("{}/archive", path(&second)), None).expect(200);
    for environment in [first, second] {
        let path = path(&environment);
        let deleted = json!({ "id": environment["id"], "type": "environment_deleted" });
        assert_eq!(server.ask("DELETE", &path, None).expect(200), deleted);
        for (method, path) in [
            ("GET", path.clone()),
            ("POST", path.clone()),
            ("DELETE", path.clone()),
            ("POST", format!("{path}/archive")),
        ] {
            let reply = server.ask(method, &path, None);
            let (status, kind, _) = reply.error();
            assert_eq!((status, kind.as_str()), (404, "not_found_error"), "{method} {path}");
            assert_eq!(code(&reply), json!("environment_not_found"));
        }
    }
}

#[test]
fn lists_are_cut_into_pages() {
    let server = Server::start();
    let made: Vec<_> = (0..3).map(|_| made(&server, &json!(null))).collect();
    let first = server.get("/v1/environments?limit=2").expect(200);
    assert_eq!(first["data"], json!([made[2], made[1]]));
    let cursor = first["next_page"].as_str().unwrap();
    let second = server.get(&format!("/v1/environments?limit=2&page={cursor}")).expect(200);
    assert_eq!(second, json!({ "data": [made[0]], "next_page": null }));
    assert_eq!(server.get(&format!("/v1/agents?page={cursor}")).error().0, 400);
}
