//! A tool's schema as far as the grammars of model servers take one. Pure.
//!
//! What is kept is the shape: types, properties, items, alternatives, and values that are listed. What is left out lets more
//! through than the tool takes, and the tool says so as ever; what a server does not know would have it refuse the request.

use serde_json::{Map, Value, json};

use crate::limits::{GRAMMAR_DEPTH, GRAMMAR_ITEMS, GRAMMAR_NODES};

/// Longest list of values that is kept, in bytes of JSON.
const VALUES_BYTES: usize = 8 * 1024;

/// The schema of a tool's arguments: always an object.
pub(super) fn arguments(schema: &Value) -> Value {
    let read = Simplifier { root: schema, left: GRAMMAR_NODES }.read(schema, 0);
    if read["type"] == "object" { read } else { any_object() }
}

/// Arguments that only the tool knows.
pub(super) fn any_object() -> Value {
    json!({"type": "object"})
}

fn anything() -> Value {
    json!({"type": ["object", "array", "string", "number", "boolean", "null"]})
}

struct Simplifier<'s> {
    root: &'s Value,
    /// Schemas that may still be looked at: what refers to itself would never end.
    left: usize,
}

impl Simplifier<'_> {
    fn read(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(left) = self.left.checked_sub(1).filter(|_| depth < GRAMMAR_DEPTH) else {
            return anything();
        };
        self.left = left;
        let Some(schema) = schema.as_object() else { return anything() };
        if let Some(target) = schema.get("$ref") {
            let target = target.as_str().and_then(|path| path.strip_prefix('#'));
            let target = target.and_then(|path| self.root.pointer(path));
            return target.map_or_else(anything, |target| self.read(target, depth + 1));
        }
        if let Some(values) = values(schema) {
            return values;
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let merged = self.merged(schema, parts);
            return self.read(&merged.into(), depth + 1);
        }
        let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array());
        // Beside properties they say no more than which of them go together.
        if let Some(list) = alternatives.filter(|list| !list.is_empty())
            && !schema.contains_key("properties")
        {
            return self.alternatives(schema, list, depth);
        }
        match schema.get("type") {
            Some(Value::String(word)) => self.typed(schema, word, depth),
            Some(Value::Array(words)) => {
                let words = words.iter().filter_map(Value::as_str);
                any_of(words.map(|word| self.typed(schema, word, depth)).collect())
            }
            _ if schema.contains_key("properties") => self.object(schema, depth),
            _ if schema.contains_key("items") => self.array(schema, depth),
            _ => anything(),
        }
    }

    /// The schema with what all parts of its `allOf` say of an object.
    fn merged(&self, schema: &Map<String, Value>, parts: &[Value]) -> Map<String, Value> {
        let mut merged = schema.clone();
        merged.remove("allOf");
        for part in parts {
            let target = part.get("$ref").and_then(Value::as_str);
            let target = target.and_then(|path| self.root.pointer(path.strip_prefix('#')?));
            let Some(part) = target.unwrap_or(part).as_object() else { continue };
            for (key, value) in part {
                match (merged.get_mut(key), value) {
                    (Some(Value::Object(own)), Value::Object(more)) if key == "properties" => {
                        own.extend(more.clone());
                    }
                    (Some(Value::Array(own)), Value::Array(more)) if key == "required" => {
                        own.extend(more.iter().cloned());
                    }
                    (None, _) if key != "$ref" => drop(merged.insert(key.clone(), value.clone())),
                    _ => {}
                }
            }
        }
        merged
    }

    /// One of these, each with the type that stands beside them.
    fn alternatives(&mut self, schema: &Map<String, Value>, list: &[Value], depth: usize) -> Value {
        let shared = schema.get("type");
        let read = list.iter().map(|one| {
            let mut one = one.clone();
            if let (Some(map), Some(shared)) = (one.as_object_mut(), shared)
                && !["type", "$ref", "const", "enum"].iter().any(|key| map.contains_key(*key))
            {
                map.insert("type".to_owned(), shared.clone());
            }
            self.read(&one, depth + 1)
        });
        any_of(read.collect())
    }

    fn typed(&mut self, schema: &Map<String, Value>, word: &str, depth: usize) -> Value {
        match word {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" => {
                let bounds = ["minimum", "maximum"].into_iter();
                let bounds = bounds.filter_map(|key| Some((key, schema.get(key)?.as_i64()?)));
                let mut read = json!({"type": "integer"});
                bounds.for_each(|(key, bound)| read[key] = bound.into());
                read
            }
            "string" | "number" | "boolean" | "null" => json!({"type": word}),
            _ => anything(),
        }
    }

    /// Properties that a schema does not name are not offered, unless it says that there are some.
    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let more = schema.get("additionalProperties");
        let Some(given) = schema.get("properties").and_then(Value::as_object) else {
            return match more {
                Some(of @ Value::Object(_)) => {
                    json!({"type": "object", "additionalProperties": self.read(of, depth + 1)})
                }
                _ => any_object(),
            };
        };
        let wanted = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let wanted = |name: &&str| wanted.clone().any(|wanted| wanted == name);
        let mut properties = Map::new();
        for (name, property) in given.iter().filter(|(_, property)| **property != false) {
            properties.insert(name.clone(), self.read(property, depth + 1));
        }
        let required: Vec<_> = properties.keys().map(String::as_str).filter(wanted).collect();
        let required = json!(required);
        let more = match more {
            Some(of @ Value::Object(_)) => self.read(of, depth + 1),
            Some(Value::Bool(true)) => true.into(),
            _ => false.into(),
        };
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": more})
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let mut read = json!({"type": "array"});
        if let Some(items @ Value::Object(_)) = schema.get("items") {
            read["items"] = self.read(items, depth + 1);
            for key in ["minItems", "maxItems"] {
                let bound = schema.get(key).and_then(Value::as_u64);
                if let Some(bound) = bound.filter(|bound| *bound <= GRAMMAR_ITEMS) {
                    read[key] = bound.into();
                }
            }
        }
        read
    }
}

/// The schema of listed values, as long as there are few.
fn values(schema: &Map<String, Value>) -> Option<Value> {
    let (key, values) = ["const", "enum"].iter().find_map(|key| Some((*key, schema.get(*key)?)))?;
    let is_list = key == "const" || values.as_array().is_some_and(|list| !list.is_empty());
    (is_list && values.to_string().len() <= VALUES_BYTES).then(|| json!({key: values}))
}

fn any_of(mut list: Vec<Value>) -> Value {
    list.dedup();
    match list.len() {
        0 => anything(),
        1 => list.remove(0),
        _ => json!({"anyOf": list}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a property of that schema.
    fn check(property: &Value, expected: &Value) {
        let defs = json!({
            "point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
            "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        });
        let schema = json!({"type": "object", "properties": {"p": property}, "required": ["p"], "$defs": defs});
        let read = arguments(&schema);
        assert_eq!(read["properties"]["p"], *expected, "{property}");
        assert_eq!(read["required"], json!(["p"]));
    }

    #[test]
    fn the_shape_is_kept_and_what_grammars_do_not_know_is_not() {
        let string = || json!({"type": "string"});
        let point = || json!({"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": false});
        let spoken = json!({"type": "string", "description": "d", "title": "t", "default": "x", "format": "uri",
            "pattern": "^a", "minLength": 3, "maxLength": 100_000, "not": {"const": "b"}});
        let one_of = json!({"type": "object", "properties": {"a": string(), "no": false}, "required": ["gone"], "anyOf": [{"required": ["a"]}]});
        for (property, expected) in [
            (spoken, string()),
            (
                json!({"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "multipleOf": 2}),
                json!({"type": "integer", "minimum": 1}),
            ),
            (json!({"type": "string", "enum": ["a", "b"]}), json!({"enum": ["a", "b"]})),
            (json!({"const": 3}), json!({"const": 3})),
            (json!({"type": ["string", "null"]}), json!({"anyOf": [string(), {"type": "null"}]})),
            (json!({"$ref": "#/$defs/point"}), point()),
            (
                json!({"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]}),
                json!({"anyOf": [point(), {"type": "null"}]}),
            ),
            (json!({"allOf": [{"$ref": "#/$defs/point"}], "description": "d"}), point()),
            (json!({"type": "string", "oneOf": [{"format": "a"}, {"format": "b"}]}), string()),
            (
                json!({"type": "array", "items": string(), "minItems": 1, "maxItems": 1_000_000, "uniqueItems": true}),
                json!({"type": "array", "items": string(), "minItems": 1}),
            ),
            (json!({"type": "array", "items": [string()]}), json!({"type": "array"})),
            (
                json!({"type": "object", "additionalProperties": string()}),
                json!({"type": "object", "additionalProperties": string()}),
            ),
            (
                one_of,
                json!({"type": "object", "properties": {"a": string()}, "required": [], "additionalProperties": false}),
            ),
        ] {
            check(&property, &expected);
        }
        for unknown in [
            json!({}),
            json!(true),
            json!({"type": "file"}),
            json!({"$ref": "http://x"}),
            json!({"enum": []}),
            json!(3),
        ] {
            check(&unknown, &anything());
        }
    }

    #[test]
    fn what_never_ends_ends() {
        let tree = json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/tree"}},
            "$defs": {"tree": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/tree"}}, {"$ref": "#/$defs/tree"}]}}});
        let bytes = arguments(&tree).to_string().len();
        assert!(bytes < 200_000, "{bytes} bytes");
        for no_object in [json!({"type": "string"}), json!(null), json!({"$ref": "#"}), json!([])] {
            assert_eq!(arguments(&no_object), any_object(), "{no_object}");
        }
        let none = json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false});
        assert_eq!(arguments(&json!({"type": "object", "properties": {}})), none);
    }
}
