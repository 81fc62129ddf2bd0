//! System prompt and tools for a model that can read little: each may take a quarter of its context. Pure, and the same for
//! every request of a session, as long as the window is: it is in the log.

use std::sync::Arc;

use serde_json::Value;

use super::context::{TOKEN_BYTES, cut, text_tokens};
use super::offers;
use super::prompt::INSTRUCTIONS;
use crate::agent::ToolName;
use crate::limits::{SHORT_DESCRIPTION, SMALL_WINDOW};
use crate::provider::ToolSpec;

/// What every request begins with, as it fits into a context of so many tokens.
pub(super) fn to_window(
    system: &Arc<str>,
    tools: &Arc<[ToolSpec]>,
    window: Option<u64>,
) -> (Arc<str>, Arc<[ToolSpec]>) {
    match window.filter(|window| *window < SMALL_WINDOW) {
        Some(window) => (prompt(system, window / 4), offered(tools, window / 4)),
        None => (Arc::clone(system), Arc::clone(tools)),
    }
}

/// The prompt with the instructions of files cut, each to the same length. Nothing else of it is anybody's to cut.
fn prompt(system: &Arc<str>, most: u64) -> Arc<str> {
    let Some(at) = system.find(INSTRUCTIONS).filter(|_| text_tokens(system) > most) else {
        return Arc::clone(system);
    };
    let (head, files) = system.split_at(at);
    let files: Vec<_> = files.split_inclusive("\n</instructions>\n").collect();
    let room = usize::try_from(most * TOKEN_BYTES).unwrap_or(usize::MAX).saturating_sub(head.len());
    let cut = files.iter().map(|file| instructions(file, room / files.len()));
    std::iter::once(head.to_owned()).chain(cut).collect::<String>().into()
}

/// One file of them; where next to nothing fits, no more than where it is.
fn instructions(file: &str, room: usize) -> String {
    let parts = file
        .split_once(">\n")
        .and_then(|(tag, rest)| Some((tag, rest.strip_suffix("\n</instructions>\n")?)));
    let Some((tag, body)) = parts else { return cut(file, room) };
    let told = "[Cut to what fits into your context: read the file.]";
    let room = room.saturating_sub(tag.len() + told.len() + 30);
    if body.len() <= room {
        return file.to_owned();
    }
    format!(
        "{tag}>\n{}\n{told}\n</instructions>\n",
        if room < 200 { String::new() } else { cut(body, room) }
    )
}

/// The tools, the less of each the less room there is: first the words of clients' tools are cut, then what `bash` does as
/// well is not offered. A call of what is not offered still runs.
fn offered(tools: &Arc<[ToolSpec]>, most: u64) -> Arc<[ToolSpec]> {
    let fits = |tools: &[ToolSpec]| tools.iter().map(offers::tokens).sum::<u64>() <= most;
    if fits(tools) {
        return Arc::clone(tools);
    }
    let mut tools: Vec<_> = tools.iter().cloned().map(shortened).collect();
    let has_bash = tools.iter().any(|tool| tool.name == ToolName::Bash.as_str());
    for spare in [ToolName::Grep, ToolName::Glob].into_iter().filter(|_| has_bash) {
        if !fits(&tools) {
            tools.retain(|tool| tool.name != spare.as_str());
        }
    }
    tools.into()
}

/// A tool's first sentence, and its schema without words.
fn shortened(mut tool: ToolSpec) -> ToolSpec {
    let first = tool.description.split_inclusive(['.', '\n']).next().unwrap_or_default();
    let short: String = first.trim().chars().take(SHORT_DESCRIPTION).collect();
    if short.len() < tool.description.len() {
        tool.description = short;
    }
    wordless(&mut tool.input_schema);
    tool
}

/// Takes from a schema what is said for readers, but not the properties that are called like that.
fn wordless(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, value| {
                let words = ["description", "title", "$comment", "examples", "default"];
                !words.contains(&key.as_str())
                    || (key != "examples" && key != "default" && !value.is_string())
            });
            for (key, inner) in map.iter_mut() {
                match (key.as_str(), inner) {
                    ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                        named.values_mut().for_each(wordless);
                    }
                    ("enum" | "const", _) => {}
                    (_, inner) => wordless(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(wordless),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::Agent;
    use crate::session::prompt::{Facts, Instructions, fixed_tokens, system};
    use crate::session::skills::Skills;
    use crate::tool;

    fn built_in() -> Vec<ToolSpec> {
        let spec = |tool: &tool::Spec| ToolSpec {
            name: tool.name.as_str().to_owned(),
            description: tool.description.to_owned(),
            input_schema: tool.input_schema.clone(),
        };
        tool::specs(&Agent::with_model("m")).map(spec).collect()
    }

    fn wordy(name: &str) -> ToolSpec {
        let property = json!({"type": "string", "description": "Many words. ".repeat(20)});
        ToolSpec {
            name: name.to_owned(),
            description: format!("Does {name}. {}", "And much is to be said of it. ".repeat(20)),
            input_schema: json!({"type": "object", "properties": {"description": property, "default": {"enum": ["title"]}}}),
        }
    }

    fn prompt_of(instructions: &[&str]) -> Arc<str> {
        let facts = Facts {
            workspace: "/home/user/project".as_ref(),
            workspace_mode: crate::environment::WorkspaceMode::Direct,
            repositories: &[],
            date: "2026-11-30",
            networking: None,
        };
        let file = |(n, text): (usize, &&str)| Instructions {
            path: format!("/p/{n}/AGENTS.md"),
            text: (*text).to_owned(),
        };
        let files: Vec<_> = instructions.iter().enumerate().map(file).collect();
        system(&facts, &Skills::default(), Some("Be brief."), &files).into()
    }

    #[test]
    fn what_every_request_begins_with_is_measured() {
        let tools: Arc<[ToolSpec]> = built_in().into();
        let system = prompt_of(&[]);
        let fixed = fixed_tokens(&system, &tools);
        println!("{fixed} tokens of system prompt and {} tools, about", tools.len());
        assert!(fixed < 1100, "{fixed} tokens: too much for a context of 4096");
        let (shown, offered) = to_window(&system, &tools, Some(4096));
        assert!(Arc::ptr_eq(&shown, &system) && Arc::ptr_eq(&offered, &tools), "all fits");
    }

    #[test]
    fn tools_lose_words_before_any_is_left_out() {
        let names = |tools: &[ToolSpec]| {
            tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        let all: Arc<[ToolSpec]> = built_in().into_iter().chain([wordy("x")]).collect();
        let check = |window: Option<u64>, expected: &str, short: bool| {
            let (_, tools) = to_window(&"".into(), &all, window);
            assert_eq!(names(&tools), expected, "{window:?}");
            let x = tools.last().unwrap();
            assert_eq!(x.description == "Does x.", short, "{window:?}: {}", x.description);
        };
        let every = "bash read write edit glob grep web_fetch web_search x";
        check(None, every, false);
        check(Some(SMALL_WINDOW), every, false);
        check(Some(4096), every, true);
        check(Some(2048), "bash read write edit web_fetch web_search x", true);
        let schema = json!({"type": "object", "properties": {
            "description": {"type": "string"}, "default": {"enum": ["title"]},
        }});
        assert_eq!(shortened(wordy("x")).input_schema, schema);
    }

    #[test]
    fn instructions_are_cut_and_the_rest_is_named() {
        let long = "Write tests first. ".repeat(1000);
        let whole = prompt_of(&["Use tabs.", &long]);
        let (shown, _) = to_window(&whole, &[].into(), Some(8192));
        assert!(text_tokens(&shown) <= 2048, "{} tokens", text_tokens(&shown));
        assert!(shown.starts_with(&*prompt_of(&[])), "{shown}");
        assert!(shown.contains("Use tabs.") && shown.contains("/p/1/AGENTS.md"), "{shown}");
        assert!(shown.contains("Cut to what fits"), "{shown}");
        let (nothing, _) = to_window(&whole, &[].into(), Some(800));
        assert!(nothing.contains("read the file") && !nothing.contains("Use tabs"), "{nothing}");
        let (large, _) = to_window(&whole, &[].into(), Some(SMALL_WINDOW));
        assert_eq!(large, whole);
    }
}
