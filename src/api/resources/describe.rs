//! What sessions are given, in the server's description.

use serde_json::Value;

use crate::api::schema::{Schema, any, may, must, nullable, object, pattern, string, tagged, time};

/// A resource as it is answered.
pub(in crate::api) const RESOURCE: Schema = Schema { name: "SessionResource", make: resource };
/// What one that is there is given.
pub(super) const ADD: Schema = Schema { name: "SessionResourceAdd", make: new_file };
/// What changes one.
pub(super) const UPDATE: Schema = Schema { name: "SessionResourceUpdate", make: update };
/// What is left of one.
pub(super) const DELETED: Schema = Schema { name: "DeletedSessionResource", make: deleted };

fn resource() -> Value {
    any([file(), repository()])
}

fn repository() -> Value {
    tagged(
        "github_repository",
        [
            must("id", pattern("^sesrsc_")),
            must("url", pattern("^https?://")),
            must("mount_path", pattern("^/workspace/")),
            must("checkout", nullable(checkout())),
            must("created_at", time()),
            must("updated_at", time()),
        ],
    )
}

fn checkout() -> Value {
    any([
        tagged("branch", [must("name", string())]),
        tagged("commit", [must("sha", pattern("^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$"))]),
    ])
}

fn file() -> Value {
    tagged(
        "file",
        [
            must("id", pattern("^sesrsc_")),
            must("file_id", pattern("^file_")),
            must("mount_path", pattern("^/")),
            must("created_at", time()),
            must("updated_at", time()),
        ],
    )
}

/// What a session is to be given when it is created.
pub(in crate::api) fn new() -> Value {
    any([new_file(), new_repository()])
}

fn new_repository() -> Value {
    let path = pattern("^/workspace/");
    tagged(
        "github_repository",
        [
            must("url", pattern("^https?://")),
            may("authorization_token", nullable(string())),
            may("mount_path", nullable(path)),
            may("checkout", nullable(checkout())),
        ],
    )
}

fn new_file() -> Value {
    let file = pattern("^file_");
    tagged("file", [must("file_id", file), may("mount_path", nullable(pattern("^/")))])
}

fn update() -> Value {
    object([must("authorization_token", string())])
}

fn deleted() -> Value {
    tagged("session_resource_deleted", [must("id", pattern("^sesrsc_"))])
}
