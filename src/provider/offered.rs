//! Calls in the light of the tools that were offered: a name that is written in another way, arguments that are wrapped
//! once too often, values of a schema's type in quotes. Pure.
//!
//! What does not fit even so stays as it is: then there is no such tool, or the tool says what is wrong with its input.

use serde_json::{Map, Value};

use super::ToolSpec;
use super::assemble::{Answer, AnswerBlock};
use super::repair::{Ending, arguments, unmarked};

impl Answer {
    /// The answer with each call as the tools would have it.
    #[must_use]
    pub fn fitted(mut self, tools: &[ToolSpec]) -> Self {
        for block in &mut self.blocks {
            let AnswerBlock::ToolCall { name, input } = block else { continue };
            let Some(tool) = named(name, tools) else { continue };
            tool.name.clone_into(name);
            if let Ok(input) = input {
                *input = fitted(std::mem::take(input), tool);
            }
        }
        self
    }
}

/// The one tool that a name can mean: exactly, or but for case, separators, quotes and the marks of a chat template.
pub(super) fn named<'t>(name: &str, tools: &'t [ToolSpec]) -> Option<&'t ToolSpec> {
    let exact = tools.iter().find(|tool| tool.name == name);
    exact.or_else(|| {
        let wanted = plain(bare(name));
        let mut found = tools.iter().filter(|tool| plain(&tool.name) == wanted);
        found.next().filter(|_| found.next().is_none())
    })
}

/// Namespaces that models put before the names of their tools.
const NAMESPACES: [&str; 4] = ["functions.", "default_api.", "tools.", "tool."];

fn bare(name: &str) -> &str {
    let name = name.split("<|").next().unwrap_or_default();
    let name = unmarked(name).trim_matches(['"', '\'', '`']);
    let name = name.strip_suffix("()").unwrap_or(name);
    NAMESPACES.iter().find_map(|space| name.strip_prefix(space)).unwrap_or(name)
}

fn plain(name: &str) -> String {
    let separates = |c: &char| !matches!(c, '_' | '-' | ' ' | '.');
    name.chars().filter(separates).map(|c| c.to_ascii_lowercase()).collect()
}

fn fitted(input: Map<String, Value>, tool: &ToolSpec) -> Map<String, Value> {
    let mut input = unwrapped(input, tool);
    rename(&mut input, tool);
    for (key, value) in &mut input {
        if let Some(better) = property(tool, key).and_then(|schema| unquoted(value, schema)) {
            *value = better;
        }
    }
    input
}

fn property<'t>(tool: &'t ToolSpec, name: &str) -> Option<&'t Value> {
    tool.input_schema.get("properties")?.get(name)
}

/// What models call the arguments of a call.
pub(super) const WRAPPERS: [&str; 5] = ["arguments", "parameters", "input", "args", "params"];

/// The arguments within a call that was written where its arguments belong.
fn unwrapped(input: Map<String, Value>, tool: &ToolSpec) -> Map<String, Value> {
    let says_name = |key: &str, value: &Value| {
        key == "name" && value.as_str().is_some_and(|name| plain(bare(name)) == plain(&tool.name))
    };
    let is_own = |key: &String| property(tool, key).is_some();
    let wrapper = input.iter().find(|(key, _)| WRAPPERS.contains(&key.as_str()));
    let Some((wrapper, inner)) = wrapper.filter(|_| !input.keys().any(is_own)) else {
        return input;
    };
    let rest = || input.iter().filter(|(key, _)| *key != wrapper);
    if !rest().all(|(key, value)| says_name(key, value)) {
        return input;
    }
    let inner = match inner {
        Value::Object(inner) => Some(inner.clone()),
        Value::String(text) => arguments(text, Ending::Unsure).ok(),
        _ => None,
    };
    inner.unwrap_or(input)
}

/// A property that is required and missing, under a name that differs by case and separators alone.
fn rename(input: &mut Map<String, Value>, tool: &ToolSpec) {
    let required = tool.input_schema.get("required").and_then(Value::as_array);
    for wanted in required.into_iter().flatten().filter_map(Value::as_str) {
        let means = |key: &&String| property(tool, key).is_none() && plain(key) == plain(wanted);
        if input.contains_key(wanted) || input.keys().filter(means).count() != 1 {
            continue;
        }
        let written = input.keys().find(means).cloned();
        if let Some(value) = written.and_then(|key| input.remove(&key)) {
            input.insert(wanted.to_owned(), value);
        }
    }
}

/// A value of the type that the schema names, where a text holds exactly that.
fn unquoted(value: &Value, schema: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    let wanted = schema.get("type")?.as_str()?;
    let inner: Value = match text {
        "True" => true.into(),
        "False" => false.into(),
        text => serde_json::from_str(text).ok()?,
    };
    let fits = match wanted {
        "integer" => inner.is_i64() || inner.is_u64(),
        "number" => inner.is_number(),
        "boolean" => inner.is_boolean(),
        "array" => inner.is_array(),
        "object" => inner.is_object(),
        _ => false,
    };
    fits.then_some(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str) -> ToolSpec {
        let input_schema = json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string"},
                "lines": {"type": "array"},
                "limit": {"type": "integer"},
                "deep": {"type": "boolean"},
                "ratio": {"type": "number"},
                "more": {"type": "object"},
            },
            "required": ["file_path"],
        });
        ToolSpec { name: name.to_owned(), description: String::new(), input_schema }
    }

    #[test]
    fn a_name_means_one_tool_or_none() {
        let tools = ["bash", "web_fetch", "read_file", "readFile", "a.b"].map(tool);
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(named(name, &tools).map(|t| t.name.as_str()), expected, "{name}");
        };
        check("bash", Some("bash"));
        check("Bash", Some("bash"));
        check(" `bash` ", Some("bash"));
        check("functions.bash", Some("bash"));
        check("default_api.web-fetch()", Some("web_fetch"));
        check("WebFetch", Some("web_fetch"));
        check("bash<|channel|>commentary", Some("bash"));
        check("read_file", Some("read_file"));
        check("readFile", Some("readFile"));
        check("ReadFile", None);
        check("shell", None);
        check("bash ls", None);
        check("", None);
    }

    #[test]
    fn arguments_fit_their_schema_or_stay() {
        let check = |given: Value, expected: Value| {
            let Value::Object(map) = given.clone() else { panic!("no object") };
            assert_eq!(Value::Object(fitted(map, &tool("read"))), expected, "{given}");
        };
        let same = |given: Value| check(given.clone(), given);
        check(json!({"arguments": {"file_path": "a"}}), json!({"file_path": "a"}));
        check(
            json!({"name": "Read", "input": "{\"file_path\": \"a\"}"}),
            json!({"file_path": "a"}),
        );
        check(json!({"filePath": "a"}), json!({"file_path": "a"}));
        check(
            json!({"file_path": "a", "lines": "[1, 2]", "limit": "5", "deep": "True", "ratio": "0.5"}),
            json!({"file_path": "a", "lines": [1, 2], "limit": 5, "deep": true, "ratio": 0.5}),
        );
        same(json!({"name": "bash", "arguments": {"file_path": "a"}}));
        same(json!({"file_path": "a", "arguments": {}}));
        same(json!({"arguments": [1]}));
        same(json!({"file_path": "5", "limit": "five", "lines": "1, 2", "more": "[1]"}));
        same(json!({"file_path": "a", "filePath": "b"}));
        same(json!({"FILE_PATH": "a", "filePath": "b"}));
    }
}
