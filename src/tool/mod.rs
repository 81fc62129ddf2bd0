//! The built-in tools: what the model sees of them, who may call them, and how they run inside of the guest.
//!
//! Owns: descriptions and schemas, the permission policy, the tools themselves ([`inside`]).
//! Does not: know sessions, the store or models; check paths on the host: the sandbox is what holds.
//! Invariants: a tool's failure is a sentence for the model, never a broken call; every output is bounded; the schemas are
//! pinned bytes, because they are the beginning of every request.
//! How to add one: a variant of `ToolName` with its effect, `schema/NAME.json` and a line below, a file in `inside`.

pub mod inside;
pub mod policy;
mod shell;

use std::sync::LazyLock;

use serde_json::Value;

use crate::agent::{Agent, ToolName};

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: ToolName,
    /// What it does, in a sentence or two: a local model reads all of them before each answer.
    pub description: &'static str,
    /// JSON Schema of its input.
    pub input_schema: Value,
}

static SPECS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let spec = |name, description, schema: &str| {
        let input_schema = serde_json::from_str(schema).expect("the schemas are JSON");
        Spec { name, description, input_schema }
    };
    vec![
        spec(
            ToolName::Bash,
            "Run a command in one lasting shell: directory, variables and jobs stay. No terminal, no input.",
            include_str!("schema/bash.json"),
        ),
        spec(
            ToolName::Read,
            "Read a text file, an image or a PDF. view_range: [first, last] line from 1; last -1 is the end.",
            include_str!("schema/read.json"),
        ),
        spec(
            ToolName::Write,
            "Create a file or replace it whole.",
            include_str!("schema/write.json"),
        ),
        spec(
            ToolName::Edit,
            "Replace a text that is unique in a file.",
            include_str!("schema/edit.json"),
        ),
        spec(
            ToolName::Glob,
            "Find files by pattern such as **/*.rs, newest first.",
            include_str!("schema/glob.json"),
        ),
        spec(
            ToolName::Grep,
            "Search file contents by regex. type: such as rust; context: lines around a match.",
            include_str!("schema/grep.json"),
        ),
        spec(
            ToolName::WebFetch,
            "Fetch a web page as text, or a PDF or image.",
            include_str!("schema/web_fetch.json"),
        ),
        spec(ToolName::WebSearch, "Search the web.", include_str!("schema/web_search.json")),
    ]
});

/// The tools that the agent has, in an order that never changes.
pub fn specs(agent: &Agent) -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(|spec| agent.grant(spec.name.as_str()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_model_sees_is_pinned() {
        let agent = Agent::with_model("m");
        // Without the web, which most local sessions do not have.
        let shown = specs(&agent).filter(|spec| !spec.name.asks_web()).map(|spec| {
            format!("{}: {}\n{}", spec.name.as_str(), spec.description, spec.input_schema)
        });
        let shown = shown.collect::<Vec<_>>().join("\n\n");
        // A token is about four bytes of English and JSON: small models read this before every answer.
        assert!(shown.len() < 4 * 600, "{} bytes", shown.len());
        insta::assert_snapshot!(shown);
    }
}
