//! Calls as JSON that a server's grammar holds the model to, for models that write them badly when left alone.
//!
//! Owns: the form of such an answer as a schema and as an instruction, what was said before in the same form, and what an
//! answer in it says (`reader`). `grammar` cuts schemas to what grammars take. To the model there is no other way to speak:
//! the request names no tools to the server.

mod grammar;
mod reader;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Value, json};

pub(super) use self::reader::{Reader, Said};
use crate::limits::{GRAMMAR_BYTES, GRAMMAR_PARTS};
use crate::provider::{ModelError, ToolSpec};

/// One thing of an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Part<'a> {
    /// Words to the user.
    Text { text: &'a str },
    /// A call of a tool.
    Call { name: Cow<'a, str>, arguments: &'a Map<String, Value> },
}

/// An answer of these parts, as the model would have written it.
pub(super) fn written(parts: &[Part<'_>]) -> String {
    match parts {
        [one] => spaced(one),
        several => spaced(&several),
    }
}

/// What a tool returned, in a message of the user's: nothing of the server's knows that there are tools.
pub(super) fn result(text: &str) -> String {
    format!("<tool_response>\n{text}\n</tool_response>")
}

/// `response_format` for text of that schema.
pub(super) fn format(name: &str, schema: &Value) -> Value {
    let schema = json!({"name": name, "strict": true, "schema": schema});
    json!({"type": "json_schema", "json_schema": schema})
}

/// All that an answer can be: text or a call, or several of them.
pub(super) fn answer(tools: &[ToolSpec]) -> Value {
    let mut left = GRAMMAR_BYTES;
    let calls = tools.iter().map(|tool| {
        let arguments = grammar::arguments(&tool.input_schema);
        let bytes = arguments.to_string().len();
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        let arguments = if fits { arguments } else { grammar::any_object() };
        whole(&json!({"name": {"const": tool.name}, "arguments": arguments}))
    });
    let text = whole(&json!({"text": {"type": "string"}}));
    let parts: Vec<_> = std::iter::once(text).chain(calls).collect();
    let part = || json!({"$ref": "#/$defs/part"});
    let several =
        json!({"type": "array", "items": part(), "minItems": 1, "maxItems": GRAMMAR_PARTS});
    json!({"anyOf": [part(), several], "$defs": {"part": {"anyOf": parts}}})
}

/// An object of exactly these properties.
fn whole(properties: &Value) -> Value {
    let names: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let required = json!(names);
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// The system prompt with the tools, and how they are called: that comes last, where small models heed it most.
pub(super) fn system(own: &str, tools: &[ToolSpec]) -> String {
    let mut text = format!("{}\n\n# Tools\n\n", own.trim_end());
    for ToolSpec { name, description, input_schema } in tools {
        let tool = json!({"name": name, "description": description, "parameters": input_schema});
        writeln!(text, "{}", spaced(&tool)).expect("writing to a string cannot fail");
    }
    text.push_str(
        "\nAnswer with one JSON object. To call a tool: {\"name\": TOOL, \"arguments\": {…}}. What it returns is told you \
         next. Leave out arguments that are not required unless you need them. For several calls at once: a list of such \
         objects. Only when the task is done, or cannot be: {\"text\": \"…\"}, what came of it.\n",
    );
    text.trim_start().to_owned()
}

/// The error, and what to do if it is the schema that the server does not take.
pub(super) fn hinted(error: ModelError) -> ModelError {
    match error {
        ModelError::Status {
            provider,
            status: status @ (400 | 422 | 501),
            kind,
            message,
            retry_after_ms,
        } => {
            let words = message.trim_end_matches('.');
            let message = format!(
                "{words}; if it is `response_format` that it does not take, leave `constrain_calls` out of \
                 [providers.{provider}]"
            );
            ModelError::Status { provider, status, kind, message, retry_after_ms }
        }
        other => other,
    }
}

/// JSON on one line, spaced as models write it: what they wrote is then found again in the server's cache.
fn spaced(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    value.serialize(&mut writer).expect("a value has string keys only");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, schema: Value) -> ToolSpec {
        ToolSpec {
            name: name.to_owned(),
            description: format!("Does {name}."),
            input_schema: schema,
        }
    }

    #[test]
    fn an_answer_is_text_or_calls_of_the_tools_or_several_of_them() {
        let list = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let got = answer(&[tool("list", list)]);
        let arguments = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": [], "additionalProperties": false});
        let parts = json!([
            {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": false},
            {"type": "object", "properties": {"name": {"const": "list"}, "arguments": arguments},
             "required": ["name", "arguments"], "additionalProperties": false},
        ]);
        assert_eq!(got["$defs"]["part"]["anyOf"], parts);
        assert_eq!(got["anyOf"][1]["maxItems"], GRAMMAR_PARTS);
    }

    #[test]
    fn tools_beyond_the_bound_take_any_object() {
        let property = |n| (format!("property_{n}"), json!({"type": "string"}));
        let properties: Map<_, _> = (0..500).map(property).collect();
        let wide = json!({"type": "object", "properties": properties});
        let tools: Vec<_> = (0..30).map(|n| tool(&format!("t{n}"), wide.clone())).collect();
        let got = answer(&tools);
        assert!(got.to_string().len() < 2 * GRAMMAR_BYTES);
        let parts = got["$defs"]["part"]["anyOf"].as_array().unwrap();
        let is_free = |part: &&Value| part["properties"]["arguments"] == json!({"type": "object"});
        let free = parts.iter().filter(is_free).count();
        assert!(free > 0 && free < 30, "{free}");
    }

    #[test]
    fn what_was_said_reads_like_an_answer() {
        let arguments = json!({"path": "a", "lines": [1, 2]});
        let call = || Part::Call { name: "read".into(), arguments: arguments.as_object().unwrap() };
        let one = r#"{"name": "read", "arguments": {"path": "a", "lines": [1, 2]}}"#;
        assert_eq!(written(&[call()]), one);
        let text = Part::Text { text: "I \"look\".\n" };
        assert_eq!(
            written(&[text, call()]),
            format!("[{{\"text\": \"I \\\"look\\\".\\n\"}}, {one}]")
        );
    }
}
