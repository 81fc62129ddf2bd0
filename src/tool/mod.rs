//! Stub.

pub mod inside;
pub mod policy;

use crate::agent::{Agent, ToolName};

/// Stub.
pub struct Spec {
    /// Stub.
    pub name: ToolName,
    /// Stub.
    pub description: &'static str,
    /// Stub.
    pub input_schema: serde_json::Value,
}
/// Stub.
pub fn specs(_: &Agent) -> impl Iterator<Item = Spec> {
    std::iter::empty()
}
