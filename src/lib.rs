//! casemate runs AI agents by itself: it asks the model, runs the tools in a sandbox and keeps every event.
//!
//! | layer | modules | may import | must not know |
//! |---|---|---|---|
//! | 5 doors | [`cli`] | api, runtime, vocabulary | SQL, vendors, Linux |
//! | 5 doors | [`api`] | runtime, vocabulary | SQL, vendors, Linux, terminals |
//! | 4 | [`runtime`] | session and below | terminals |
//! | 3 | [`session`] | tool, web, mcp, provider, store, sandbox, egress, vocabulary | SQL, vendor JSON, namespaces |
//! | 2 | [`tool`] | sandbox (`wire`, `network`), egress (`wire`, `http`), vocabulary | sessions, store, models |
//! | 2 | [`web`] | egress (`address`, `dial`), vocabulary | sessions, sandboxes, what a page holds |
//! | 2 | [`mcp`] | egress (`address`, `dial`), vocabulary | sessions, sandboxes, the store, models |
//! | 1 | [`store`], [`provider`], [`sandbox`], [`egress`]: strangers to each other | vocabulary | everything above |
//! | 0 | [`id`], [`clock`], [`limits`], [`event`], [`agent`], [`environment`], [`skill`] | std, serde | I/O, tokio |
//!
//! Imports go strictly down; `tests/it/tidy.rs` checks it. Invariants of the whole: the log is the session; a fact is
//! committed before it is acted upon; tools see the world only from inside of the sandbox.

pub mod agent;
pub mod api;
pub mod cli;
pub mod clock;
pub mod egress;
pub mod environment;
pub mod event;
pub mod id;
pub mod limits;
pub mod mcp;
pub mod provider;
pub mod runtime;
pub mod sandbox;
pub mod session;
pub mod skill;
pub mod store;
pub mod tool;
pub mod web;
