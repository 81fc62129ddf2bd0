//! Environments in the server's description.

use serde_json::{Value, json};

use super::config::{MAX_HOST_CHARS, MAX_HOSTS};
use super::{MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS};
use crate::api::schema::{
    self, Field, Schema, any, boolean, list, list_of, literal, may, must, nullable, object,
    pattern, string, tagged, text, time,
};
use crate::environment::packages::Manager;
use crate::limits::{MAX_PACKAGE_CHARS, MAX_PACKAGES};

/// An environment as it is answered.
pub(super) const ENVIRONMENT: Schema = Schema { name: "Environment", make: environment };
/// What makes one.
pub(super) const CREATE: Schema = Schema { name: "EnvironmentCreate", make: create };
/// What changes one.
pub(super) const UPDATE: Schema = Schema { name: "EnvironmentUpdate", make: update };
/// What is left of one.
pub(super) const DELETED: Schema = Schema { name: "DeletedEnvironment", make: deleted };

fn environment() -> Value {
    let packages = [must("type", literal("packages"))];
    let packages = packages
        .into_iter()
        .chain(Manager::ALL.map(|manager| must(manager.as_str(), list(string()))));
    let limited = tagged(
        "limited",
        [
            must("allowed_hosts", list(string())),
            must("allow_package_managers", boolean()),
            must("allow_mcp_servers", boolean()),
        ],
    );
    let cloud = tagged(
        "cloud",
        [
            must("networking", any([tagged("unrestricted", []), limited])),
            must("packages", object(packages)),
        ],
    );
    tagged(
        "environment",
        [
            must("id", pattern("^env_")),
            must("name", string()),
            must("description", nullable(string())),
            must("config", any([cloud, tagged("self_hosted", [])])),
            must("metadata", schema::metadata()),
            must("scope", literal("organization")),
            must("created_at", time()),
            must("updated_at", time()),
            must("archived_at", nullable(time())),
        ],
    )
}

fn deleted() -> Value {
    tagged("environment_deleted", [must("id", pattern("^env_"))])
}

fn optional(name: &'static str, value: Value) -> Field {
    may(name, nullable(value))
}

fn create() -> Value {
    let name = || list_of(0, MAX_PACKAGES, text(1, MAX_PACKAGE_CHARS));
    let packages = [may("type", literal("packages"))];
    let packages =
        packages.into_iter().chain(Manager::ALL.map(|manager| optional(manager.as_str(), name())));
    let hosts = list_of(0, MAX_HOSTS, text(1, MAX_HOST_CHARS));
    let limited = tagged(
        "limited",
        [
            optional("allowed_hosts", hosts),
            optional("allow_package_managers", boolean()),
            optional("allow_mcp_servers", boolean()),
        ],
    );
    let cloud = tagged(
        "cloud",
        [
            optional("networking", any([tagged("unrestricted", []), limited])),
            optional("packages", object(packages)),
        ],
    );
    object([
        must("name", text(1, MAX_NAME_CHARS)),
        optional("description", text(0, MAX_DESCRIPTION_CHARS)),
        optional("config", any([cloud, tagged("self_hosted", [])])),
        optional("metadata", schema::metadata()),
        optional("scope", literal("organization")),
    ])
}

fn update() -> Value {
    let mut update = create();
    update["properties"]["metadata"] = nullable(schema::metadata_patch());
    update["properties"]["name"] = nullable(text(1, MAX_NAME_CHARS));
    update["required"] = json!([]);
    update
}
