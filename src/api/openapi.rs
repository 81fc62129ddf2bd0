//! The server's own description, in OpenAPI 3.1: made of the table of endpoints that the router is made of.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::endpoint::{Answer, Body, Endpoint};
use super::schema::{self, Schema, must, object};
use super::{App, json as answer_json};

/// What every refusal looks like.
const ERROR: Schema = Schema { name: "Error", make: error };
/// A description, as this endpoint sees itself.
const DESCRIPTION: Schema = Schema { name: "Description", make: schema::any_object };

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/openapi.json", "openapi", description)
            .about("This description.")
            .answers(Answer::Json(DESCRIPTION)),
    ]
}

async fn description(State(app): State<App>) -> Response {
    answer_json(&describe(&super::endpoints(), &app.options().prefix))
}

/// Describes a table of endpoints that is served under a prefix.
#[must_use]
pub fn describe(endpoints: &[Endpoint], prefix: &str) -> Value {
    let mut paths = Map::new();
    let mut components = Map::new();
    let mut add = |schema: Schema| {
        components.entry(schema.name).or_insert_with(|| (schema.make)());
    };
    add(ERROR);
    for endpoint in endpoints {
        match endpoint.body {
            Body::Json(schema) | Body::Multipart(schema) => add(schema),
            Body::None => {}
        }
        match endpoint.answer {
            Answer::Json(schema)
            | Answer::Page(schema)
            | Answer::TwoWayPage(schema)
            | Answer::Stream(schema) => add(schema),
            Answer::Bytes | Answer::Text(_) => {}
        }
        let methods = paths.entry(endpoint.described_path()).or_insert_with(|| json!({}));
        methods[endpoint.method] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "casemate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The Managed Agents protocol on one's own machine.",
        },
        "servers": [{ "url": if prefix.is_empty() { "/" } else { prefix } }],
        "security": [{ "bearer": [] }, { "key": [] }],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let in_path = endpoint.path_params().map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": schema::text(1, 256) })
    });
    let in_query = endpoint.query.iter().map(|param| {
        json!({
            "name": param.name,
            "in": "query",
            "description": param.about,
            "schema": param.schema,
        })
    });
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "tags": [endpoint.operation.split('.').next()],
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(endpoint),
    });
    if let Some(body) = body(endpoint.body) {
        operation["requestBody"] = body;
    }
    if is_open(endpoint) {
        operation["security"] = json!([]);
    }
    operation
}

/// Whether it answers those who have no key.
fn is_open(endpoint: &Endpoint) -> bool {
    matches!(endpoint.path, "/healthz" | "/readyz")
}

fn body(body: Body) -> Option<Value> {
    let (kind, schema) = match body {
        Body::None => return None,
        Body::Json(schema) => ("application/json", schema),
        Body::Multipart(schema) => ("multipart/form-data", schema),
    };
    Some(json!({ "required": true, "content": { kind: { "schema": schema.reference() } } }))
}

fn responses(endpoint: &Endpoint) -> Value {
    let page = |schema: Schema, ways: &[&'static str]| {
        let cursors = ways.iter().map(|way| must(way, schema::nullable(schema::string())));
        let data = must("data", schema::list(schema.reference()));
        ("application/json", object(std::iter::once(data).chain(cursors)))
    };
    let (kind, schema) = match endpoint.answer {
        Answer::Json(schema) => ("application/json", schema.reference()),
        Answer::Page(schema) => page(schema, &["next_page"]),
        Answer::TwoWayPage(schema) => page(schema, &["next_page", "prev_page"]),
        Answer::Stream(schema) => ("text/event-stream", frame(schema)),
        Answer::Bytes => ("*/*", json!({})),
        Answer::Text(kind) => (kind, schema::string()),
    };
    let mut responses = Map::new();
    let good = json!({ "description": "Done.", "content": { kind: { "schema": schema } } });
    responses.insert("200".to_owned(), good);
    let refused = json!({ "application/json": { "schema": ERROR.reference() } });
    for (status, description) in statuses(endpoint) {
        let refusal = json!({ "description": description, "content": refused });
        responses.insert(status.to_owned(), refusal);
    }
    responses.into()
}

/// What may come back instead.
fn statuses(endpoint: &Endpoint) -> Vec<(&'static str, &'static str)> {
    let mut statuses = vec![
        ("400", "The request makes no sense; the message names the field."),
        ("401", "The key is missing or wrong."),
        ("403", "The host or the origin is not one that is answered."),
        ("404", "There is no such thing."),
        ("431", "The head of the request is too large."),
        ("500", "The server's own fault."),
        ("503", "The server is stopping."),
    ];
    if endpoint.method != "get" {
        statuses.push(("409", "Somebody else changed it first, or it is in use."));
        statuses.push(("413", "The body is too large."));
        statuses.push(("507", "The disk of the server is full."));
    }
    statuses.sort_unstable();
    statuses
}

/// A frame of a stream; its data is JSON.
fn frame(data: Schema) -> Value {
    let data = json!({
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": data.reference(),
    });
    let (event, id) = (schema::string(), schema::pattern("^sevt_"));
    object([must("event", event), schema::may("id", id), must("data", data)])
}

fn error() -> Value {
    let details = schema::any_object();
    object([
        must("type", schema::literal("error")),
        must(
            "error",
            object([
                must("type", schema::string()),
                must("message", schema::string()),
                schema::may("details", details),
            ]),
        ),
        must("request_id", schema::pattern("^req_")),
    ])
}
