//! The server's own description.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Server;
use crate::support::Casemate;

fn operations(description: &Value) -> BTreeMap<String, (String, String, Value)> {
    let mut found = BTreeMap::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let known = (method.to_uppercase(), path.clone(), operation.clone());
            assert!(found.insert(id.clone(), known).is_none(), "{id} is there twice");
        }
    }
    found
}

/// Each reference leads somewhere, and each operation says what it does.
#[test]
fn the_description_is_whole() {
    let server = Server::start();
    let description = server.get("/openapi.json").expect(200);
    assert_eq!(description["openapi"], "3.1.0");
    let schemas = &description["components"]["schemas"];
    let mut open = vec![&description["paths"]];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                    let name = name.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas[name].is_object(), "{name}");
                }
                open.extend(fields.values());
            }
            Value::Array(entries) => open.extend(entries),
            _ => {}
        }
    }
    for (id, (_, path, operation)) in operations(&description) {
        assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{id}");
        assert!(operation["responses"]["200"].is_object(), "{id}");
        let in_path = path.matches('{').count();
        let params = operation["parameters"].as_array().unwrap();
        assert_eq!(params.iter().filter(|param| param["in"] == "path").count(), in_path, "{id}");
    }
}

/// Whatever is described is there, and answers with a status that is described.
#[test]
fn every_operation_is_served() {
    let server = Server::start();
    let description = server.get("/openapi.json").expect(200);
    let operations = operations(&description);
    for id in [
        "agents.create",
        "agents.versions.list",
        "environments.delete",
        "files.upload",
        "models.list",
    ] {
        assert!(operations.contains_key(id), "{id}");
    }
    for (id, (method, path, operation)) in operations {
        let path = path.replace(['{', '}'], "");
        let body = (method == "POST").then(|| json!({ "bogus": 1 }));
        let reply = server.ask(&method, &path, body.as_ref());
        let described = operation["responses"].as_object().unwrap();
        assert!(described.contains_key(&reply.status.to_string()), "{id}: {reply:?}");
        assert!(![405, 500].contains(&reply.status), "{id}: {reply:?}");
        if reply.status == 404 {
            assert!(!reply.error().2.ends_with(" here"), "{id}: {reply:?}");
        }
    }
}

#[test]
fn a_prefix_is_part_of_the_address() {
    let server = Server::of(Casemate::new(), &["--prefix", "/below"]);
    let description = server.get("/below/openapi.json").expect(200);
    assert_eq!(description["servers"], json!([{ "url": "/below" }]));
    assert_eq!(server.get("/below/v1/agents").expect(200)["data"], json!([]));
    assert_eq!(server.get("/v1/agents").error().0, 404);
}
