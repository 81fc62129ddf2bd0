//! JSON Schemas as values, from small pieces: what bodies and answers are, for the description of the server.
//!
//! A description is for people and generators. What is refused, and in which words, is decided where bodies are read.

use serde_json::{Map, Value, json};

/// A schema that has a place and a name of its own in the description.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Its name among the components.
    pub name: &'static str,
    /// Makes it.
    pub make: fn() -> Value,
}

impl Schema {
    /// Where to find it.
    #[must_use]
    pub fn reference(self) -> Value {
        json!({ "$ref": format!("#/components/schemas/{}", self.name) })
    }
}

/// A field of an object.
pub struct Field {
    name: &'static str,
    schema: Value,
    required: bool,
}

/// A field that is always there.
#[must_use]
pub fn must(name: &'static str, schema: Value) -> Field {
    Field { name, schema, required: true }
}

/// A field that may be left out.
#[must_use]
pub fn may(name: &'static str, schema: Value) -> Field {
    Field { name, schema, required: false }
}

/// An object of these fields and no others.
#[must_use]
pub fn object(fields: impl IntoIterator<Item = Field>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        properties.insert(field.name.to_owned(), field.schema);
        required.extend(field.required.then_some(field.name));
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// An object whose `type` says which it is.
#[must_use]
pub fn tagged(tag: &'static str, fields: impl IntoIterator<Item = Field>) -> Value {
    object(std::iter::once(must("type", literal(tag))).chain(fields))
}

/// Exactly this text.
#[must_use]
pub fn literal(text: &str) -> Value {
    json!({ "type": "string", "const": text })
}

/// One of these words.
#[must_use]
pub fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// Text of so many characters.
#[must_use]
pub fn text(least: usize, most: usize) -> Value {
    json!({ "type": "string", "minLength": least, "maxLength": most })
}

/// Any text.
#[must_use]
pub fn string() -> Value {
    json!({ "type": "string" })
}

/// Text of this shape.
#[must_use]
pub fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// True or false.
#[must_use]
pub fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// A whole number of at least so much.
#[must_use]
pub fn integer(least: u64) -> Value {
    json!({ "type": "integer", "minimum": least })
}

/// A whole number within bounds.
#[must_use]
pub fn between(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// A time.
#[must_use]
pub fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// Any object.
#[must_use]
pub fn any_object() -> Value {
    json!({ "type": "object" })
}

/// A list.
#[must_use]
pub fn list(entry: Value) -> Value {
    let mut list = json!({ "type": "array" });
    list["items"] = entry;
    list
}

/// A list of so many entries.
#[must_use]
pub fn list_of(least: usize, most: usize, entry: Value) -> Value {
    let mut list = list(entry);
    list["minItems"] = least.into();
    list["maxItems"] = most.into();
    list
}

/// One of these.
#[must_use]
pub fn any(choices: impl IntoIterator<Item = Value>) -> Value {
    json!({ "anyOf": choices.into_iter().collect::<Vec<_>>() })
}

/// That, or `null`.
#[must_use]
pub fn nullable(schema: Value) -> Value {
    any([schema, json!({ "type": "null" })])
}

/// `metadata` in an answer.
#[must_use]
pub fn metadata() -> Value {
    bag(text(0, 512))
}

/// `metadata` in an update: `null` deletes a key.
#[must_use]
pub fn metadata_patch() -> Value {
    bag(nullable(text(0, 512)))
}

fn bag(value: Value) -> Value {
    let mut bag = json!({
        "type": "object",
        "maxProperties": 16,
        "propertyNames": { "minLength": 1, "maxLength": 64 },
    });
    bag["additionalProperties"] = value;
    bag
}
