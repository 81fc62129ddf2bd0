//! `casemate serve`, as any HTTP client sees it.

mod agents;
mod attachments;
mod crash;
mod environments;
mod events;
mod files;
mod models;
mod on_ask;
mod openapi;
mod outputs;
mod resources;
pub(crate) mod server;
pub(crate) mod sessions;
mod skills;
mod stream;
mod threads;
mod transport;
mod vanish;

pub(crate) use server::Server;

/// For snapshots: one field a line, in the order of the wire.
fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}
