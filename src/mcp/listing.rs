//! A server's list of tools, as far as a model can be shown it. What model servers would refuse is left out or cut here:
//! one bad schema would otherwise cost the whole request.

use rmcp::model::Tool;
use serde_json::{Map, Value};

use super::Failure;
use crate::agent::MAX_TOOL_NAME_CHARS;
use crate::agent::mcp::ServerTool;
use crate::limits::{
    MCP_DESCRIPTION_CHARS, MCP_LIST_BYTES, MCP_SCHEMA_BYTES, MCP_SCHEMA_DEPTH, MCP_TOOLS,
};

#[derive(Default)]
pub(super) struct Listing {
    tools: Vec<ServerTool>,
    bytes: usize,
}

impl Listing {
    pub(super) fn add(&mut self, tool: &Tool) {
        let described = tool.description.as_deref().or(tool.title.as_deref());
        self.push(&tool.name, described.unwrap_or_default(), &tool.input_schema);
    }

    /// A page that is not as the protocol has it: the entries that are. Gives back where the next page is.
    pub(super) fn add_page(&mut self, page: &Value) -> Result<Option<String>, Failure> {
        let none = || Failure::Connection("its list of tools is none".to_owned());
        for tool in page.get("tools").and_then(Value::as_array).ok_or_else(none)? {
            let text = |name: &str| tool.get(name).and_then(Value::as_str);
            if let (Some(name), Some(Value::Object(schema))) =
                (text("name"), tool.get("inputSchema"))
            {
                self.push(name, text("description").unwrap_or_default(), schema);
            }
        }
        Ok(page.get("nextCursor").and_then(Value::as_str).map(str::to_owned))
    }

    fn push(&mut self, name: &str, description: &str, schema: &Map<String, Value>) {
        let known = self.tools.iter().any(|tool| tool.name == name);
        let length = name.chars().count();
        if known || self.is_full() || length == 0 || length > MAX_TOOL_NAME_CHARS {
            return;
        }
        let Some((input_schema, bytes)) = usable(schema) else { return };
        let description: String = description.chars().take(MCP_DESCRIPTION_CHARS).collect();
        self.bytes += name.len() + description.len() + bytes;
        self.tools.push(ServerTool { name: name.to_owned(), description, input_schema });
    }

    pub(super) fn is_full(&self) -> bool {
        self.tools.len() >= MCP_TOOLS || self.bytes >= MCP_LIST_BYTES
    }

    /// By name: a server may list them in another order each time.
    pub(super) fn finish(self) -> Vec<ServerTool> {
        let mut tools = self.tools;
        tools.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        tools
    }
}

/// The schema as model servers take it, and its size: of type `object`, with properties and names of those that must be there. Nothing
/// for what is no schema of an object at all.
fn usable(schema: &Map<String, Value>) -> Option<(Map<String, Value>, usize)> {
    let mut schema = schema.clone();
    schema.remove("$schema");
    let is_object = match schema.get("type") {
        None => true,
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(_) => false,
    };
    let named =
        |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let is_sound = is_object
        && schema
            .get("properties")
            .is_none_or(|own| own.as_object().is_some_and(|own| own.values().all(is_schema)))
        && schema.get("required").is_none_or(named)
        && depth_is_within(&schema, MCP_SCHEMA_DEPTH);
    let bytes = Value::Object(schema.clone()).to_string().len();
    if !is_sound || bytes > MCP_SCHEMA_BYTES {
        return None;
    }
    // First, where people and models look for it.
    let mut whole = Map::from_iter([("type".to_owned(), Value::from("object"))]);
    whole.extend(schema.into_iter().filter(|(name, _)| name != "type"));
    Some((whole, bytes))
}

/// Whether it can be a schema: an object whose type, if it names one, is one, or a truth value.
fn is_schema(value: &Value) -> bool {
    const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
    let is_type = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
    match value {
        Value::Bool(_) => true,
        Value::Object(own) => own.get("type").is_none_or(|kind| match kind {
            Value::Array(kinds) => kinds.iter().all(is_type),
            kind => is_type(kind),
        }),
        _ => false,
    }
}

fn depth_is_within(object: &Map<String, Value>, most: usize) -> bool {
    fn of(value: &Value, left: usize) -> bool {
        match value {
            Value::Object(own) => left > 0 && own.values().all(|value| of(value, left - 1)),
            Value::Array(own) => left > 0 && own.iter().all(|value| of(value, left - 1)),
            _ => true,
        }
    }
    object.values().all(|value| of(value, most))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_schema_is_left_out() {
        let check = |schema: Value, expected: Option<Value>| {
            let usable =
                usable(schema.as_object().unwrap()).map(|(usable, _)| Value::Object(usable));
            assert_eq!(usable, expected, "{schema}");
        };
        let plain = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        check(plain.clone(), Some(plain));
        check(json!({}), Some(json!({"type": "object"})));
        check(
            json!({"$schema": "x", "required": ["a"]}),
            Some(json!({"type": "object", "required": ["a"]})),
        );
        check(json!({"type": ["object", "null"]}), Some(json!({"type": "object"})));
        check(json!({"type": "string"}), None);
        check(json!({"type": 7}), None);
        check(json!({"properties": []}), None);
        check(json!({"properties": {"a": 7}}), None);
        check(json!({"properties": {"a": {"type": "text"}}}), None);
        check(json!({"required": "a"}), None);
        check(json!({"description": "x".repeat(MCP_SCHEMA_BYTES)}), None);
        let mut deep = json!({});
        for _ in 0..MCP_SCHEMA_DEPTH {
            deep = json!({"properties": {"a": deep}});
        }
        check(deep, None);
    }

    #[test]
    fn a_list_has_its_bounds() {
        let large = json!({"type": "object", "description": "x".repeat(MCP_SCHEMA_BYTES / 2)});
        let mut listing = Listing::default();
        (0..300).for_each(|i| listing.push(&i.to_string(), "", large.as_object().unwrap()));
        assert_eq!(listing.finish().len(), MCP_LIST_BYTES / (MCP_SCHEMA_BYTES / 2));
        let mut listing = Listing::default();
        (0..300).for_each(|i| listing.push(&i.to_string(), "", &Map::new()));
        assert_eq!(listing.finish().len(), MCP_TOOLS);
    }

    #[test]
    fn a_page_with_a_bad_entry_has_the_others() {
        let mut listing = Listing::default();
        let page = json!({
            "tools": [
                {"name": "b", "inputSchema": {"type": "object"}},
                {"name": "bad", "inputSchema": "a string"},
                {"name": 7, "inputSchema": {}},
                "no tool",
                {"name": "a", "description": "first", "inputSchema": {}},
                {"name": "a", "description": "twice", "inputSchema": {}},
            ],
            "nextCursor": "2",
        });
        assert_eq!(listing.add_page(&page), Ok(Some("2".to_owned())));
        let found = listing.finish();
        let names: Vec<_> = found.iter().map(|tool| (&*tool.name, &*tool.description)).collect();
        assert_eq!(names, [("a", "first"), ("b", "")]);
        assert!(Listing::default().add_page(&json!({"tools": {}})).is_err());
    }
}
