//! `/v1/models`: what can be asked here. A model that is not listed can be asked all the same if a route leads to it.

use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use super::endpoint::{Answer, Endpoint, Param};
use super::error::{self, ApiError};
use super::path::Ids;
use super::query::Query;
use super::schema::{self, Schema, must, nullable, object};

const DEFAULT_LIMIT: u64 = 20;
const MAX_LIMIT: u64 = 1000;
const STAGES: [&str; 3] = ["active", "deprecated", "retired"];

const MODEL: Schema = Schema { name: "Model", make: model };
const MODELS: Schema = Schema { name: "Models", make: models };

pub(super) fn endpoints() -> Vec<Endpoint> {
    let stages = schema::list_of(0, STAGES.len(), schema::words(&STAGES));
    let list_query = [
        Param::new("limit", "At most so many entries.", schema::between(1, MAX_LIMIT)),
        Param::new("after_id", "Those after this one.", schema::string()),
        Param::new("before_id", "Those before this one.", schema::string()),
        Param::new("lifecycle[]", "Those at one of these stages.", stages),
    ];
    vec![
        Endpoint::get("/v1/models", "models.list", list)
            .about("Lists the models that are known here.")
            .query(list_query)
            .answers(Answer::Json(MODELS)),
        // The id of a local model has a slash in it, which not every client escapes.
        Endpoint::get("/v1/models/{*model_id}", "models.retrieve", retrieve)
            .about("Shows a model that can be asked here.")
            .answers(Answer::Json(MODEL)),
    ]
}

async fn list(State(app): State<App>, query: Query) -> error::Answer {
    let limit = query.integer("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let stages = query.many("lifecycle");
    if let Some(stage) = stages.iter().find(|stage| !STAGES.contains(stage)) {
        let known = STAGES.join(", ");
        let shown: String = stage.chars().take(80).collect();
        let problem = format!("`{shown}` is not one of {known}");
        return Err(ApiError::field("lifecycle", problem));
    }
    let mut ids = app.runtime().models().await;
    if !stages.is_empty() && !stages.contains(&"active") {
        ids.clear();
    }
    let place = |name: &str| {
        let Some(id) = query.one(name) else { return Ok(None) };
        let at = ids.iter().position(|known| known == id);
        at.map(Some).ok_or_else(|| ApiError::field(name, "is no model of this list"))
    };
    let range = match (place("after_id")?, place("before_id")?) {
        (Some(_), Some(_)) => {
            return Err(ApiError::field("before_id", "cannot be given together with after_id"));
        }
        (None, Some(end)) => end.saturating_sub(limit)..end,
        (after, None) => {
            let start = after.map_or(0, |at| at + 1);
            start..ids.len().min(start.saturating_add(limit))
        }
    };
    let more = match query.one("before_id") {
        Some(_) => range.start > 0,
        None => range.end < ids.len(),
    };
    let page = &ids[range];
    Ok(super::json(&json!({
        "data": page.iter().map(|id| view(id)).collect::<Vec<_>>(),
        "has_more": more,
        "first_id": page.first(),
        "last_id": page.last(),
    })))
}

async fn retrieve(State(app): State<App>, Ids([id]): Ids<1>) -> error::Answer {
    let listed = app.runtime().models().await.contains(&id);
    // A script is a file: whether there is one is not for this endpoint to say.
    let script = id.starts_with("scripted:");
    if listed || !script && app.runtime().check_model(&id).is_ok() {
        return Ok(super::json(&view(&id)));
    }
    Err(ApiError::no_such("model", &id))
}

/// A local model has no release date: the protocol has the epoch for that.
fn view(id: &str) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "line": null,
        "capabilities": null,
        "max_input_tokens": null,
        "max_tokens": null,
        "deprecated_at": null,
        "retires_at": null,
        "allowed_fallback_models": [],
    })
}

fn model() -> Value {
    let unknown = || json!({ "type": "null" });
    schema::tagged(
        "model",
        [
            must("id", schema::string()),
            must("display_name", schema::string()),
            must("created_at", schema::time()),
            must("lifecycle", schema::literal("active")),
            must("line", unknown()),
            must("capabilities", unknown()),
            must("max_input_tokens", unknown()),
            must("max_tokens", unknown()),
            must("deprecated_at", unknown()),
            must("retires_at", unknown()),
            must("allowed_fallback_models", schema::list(schema::string())),
        ],
    )
}

fn models() -> Value {
    let id = || nullable(schema::string());
    object([
        must("data", schema::list(model())),
        must("has_more", schema::boolean()),
        must("first_id", id()),
        must("last_id", id()),
    ])
}
