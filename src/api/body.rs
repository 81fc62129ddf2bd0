//! Reading a request's JSON by hand, so that every refusal names the path of its field, nothing unknown is swallowed, and
//! an absent field, a `null` and an empty value stay three things.

use serde_json::{Map, Value};

use super::error::ApiError;

/// A value and where it stands, such as `tools[0].configs[1].name`.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    value: &'a Value,
    path: String,
}

/// A field that may be left out, cleared or set.
#[derive(Debug, Clone, PartialEq)]
pub enum Tri<T> {
    /// Left out: it stays as it is.
    Absent,
    /// `null`: it is cleared.
    Null,
    /// A new value.
    Set(T),
}

impl<T> Tri<T> {
    /// Reads what is set.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn map<U>(self, read: impl FnOnce(T) -> Result<U, ApiError>) -> Result<Tri<U>, ApiError> {
        Ok(match self {
            Self::Absent => Tri::Absent,
            Self::Null => Tri::Null,
            Self::Set(value) => Tri::Set(read(value)?),
        })
    }
}

impl<'a> Node<'a> {
    /// The whole body.
    #[must_use]
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "body" } else { &self.path }
    }

    /// The value as it was sent.
    #[must_use]
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// A refusal of this value.
    pub fn refuse(&self, problem: impl std::fmt::Display) -> ApiError {
        ApiError::field(self.path(), problem)
    }

    fn expected(&self, what: &str) -> ApiError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.refuse(format!("must be {what}, not {found}"))
    }

    /// Text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn string(&self) -> Result<&'a str, ApiError> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// Text of so many characters.
    ///
    /// # Errors
    /// If it is something else, or has too few or too many.
    pub fn text(&self, least: usize, most: usize) -> Result<&'a str, ApiError> {
        let text = self.string()?;
        let length = text.chars().count();
        if length < least {
            return Err(self.refuse(format!("must have at least {least} characters")));
        }
        if length > most {
            let problem = format!("must have at most {most} characters; it has {length}");
            return Err(self.refuse(problem));
        }
        Ok(text)
    }

    /// True or false.
    ///
    /// # Errors
    /// If it is something else.
    pub fn boolean(&self) -> Result<bool, ApiError> {
        self.value.as_bool().ok_or_else(|| self.expected("a boolean"))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// If it is something else, or out of them.
    pub fn integer(&self, least: u64, most: u64) -> Result<u64, ApiError> {
        let number = self.value.as_u64().ok_or_else(|| self.expected("a whole number"))?;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(self.refuse(format!("must be between {least} and {most}; it is {number}")))
    }

    /// A list.
    ///
    /// # Errors
    /// If it is something else.
    pub fn array(&self) -> Result<Vec<Node<'a>>, ApiError> {
        let list = self.value.as_array().ok_or_else(|| self.expected("an array"))?;
        let place = |at| format!("{}[{at}]", self.path);
        Ok(list.iter().enumerate().map(|(at, value)| Node { value, path: place(at) }).collect())
    }

    /// A list of at most so many.
    ///
    /// # Errors
    /// If it is something else, or longer.
    pub fn list(&self, most: usize) -> Result<Vec<Node<'a>>, ApiError> {
        let list = self.array()?;
        if list.len() > most {
            let problem = format!("must have at most {most} entries; it has {}", list.len());
            return Err(self.refuse(problem));
        }
        Ok(list)
    }

    /// An object, whose fields are then asked for by name.
    ///
    /// # Errors
    /// If it is something else.
    pub fn object(&self) -> Result<Object<'a>, ApiError> {
        let map = self.value.as_object().ok_or_else(|| self.expected("an object"))?;
        Ok(Object { map, path: self.path.clone(), asked: Vec::new() })
    }
}

/// An object that is being read: every field that was not asked for is refused by [`Object::done`].
#[derive(Debug)]
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
    asked: Vec<&'static str>,
}

impl<'a> Object<'a> {
    /// Where a field of it stands.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A refusal of a field.
    pub fn refuse(&self, name: &str, problem: impl std::fmt::Display) -> ApiError {
        ApiError::field(&self.place(name), problem)
    }

    /// A field that may be left out, cleared or set.
    pub fn tri(&mut self, name: &'static str) -> Tri<Node<'a>> {
        self.asked.push(name);
        match self.map.get(name) {
            None => Tri::Absent,
            Some(Value::Null) => Tri::Null,
            Some(value) => Tri::Set(Node { value, path: self.place(name) }),
        }
    }

    /// A field that may be left out; `null` is the same.
    pub fn maybe(&mut self, name: &'static str) -> Option<Node<'a>> {
        match self.tri(name) {
            Tri::Set(node) => Some(node),
            Tri::Absent | Tri::Null => None,
        }
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn need(&mut self, name: &'static str) -> Result<Node<'a>, ApiError> {
        match self.tri(name) {
            Tri::Set(node) => Ok(node),
            Tri::Null => Err(self.refuse(name, "must not be null")),
            Tri::Absent => Err(self.refuse(name, "Field required")),
        }
    }

    /// All fields, for objects whose names are the client's.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        let place = |name: &str| self.place(name);
        self.map.iter().map(move |(name, value)| (name.as_str(), Node { value, path: place(name) }))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If there is a field that nobody asked for.
    pub fn done(self) -> Result<(), ApiError> {
        self.end("Extra inputs are not permitted")
    }

    /// Ends the reading of a thing whose fields depend on what it is, such as `name "bash"`.
    ///
    /// # Errors
    /// If there is a field that nobody asked for.
    pub fn done_for(self, what: &str) -> Result<(), ApiError> {
        self.end(format_args!("Extra inputs are not permitted for {what}"))
    }

    fn end(self, problem: impl std::fmt::Display) -> Result<(), ApiError> {
        match self.map.keys().find(|name| !self.asked.contains(&name.as_str())) {
            None => Ok(()),
            Some(extra) => {
                let extra: String = extra.chars().take(80).collect();
                Err(self.refuse(&extra, problem))
            }
        }
    }
}

/// `metadata` of a new object: at most 16 pairs of text.
///
/// # Errors
/// Names the pair that is wrong.
pub fn metadata(node: Option<&Node<'_>>) -> Result<Map<String, Value>, ApiError> {
    let mut pairs = Map::new();
    let Some(node) = node else { return Ok(pairs) };
    for (name, value) in node.object()?.fields() {
        metadata_key(&value, name)?;
        pairs.insert(name.to_owned(), value.text(0, METADATA_VALUE_CHARS)?.into());
    }
    bounded(node, pairs)
}

/// `metadata` after a patch: text sets a key, `null` deletes it.
///
/// # Errors
/// Names the pair that is wrong.
pub fn patched_metadata(
    stored: &Map<String, Value>,
    patch: &Node<'_>,
) -> Result<Map<String, Value>, ApiError> {
    patched(stored, patch, Value::is_null)
}

/// The same where an empty text deletes a key too.
///
/// # Errors
/// Names the pair that is wrong.
pub fn patched_metadata_without_empty(
    stored: &Map<String, Value>,
    patch: &Node<'_>,
) -> Result<Map<String, Value>, ApiError> {
    patched(stored, patch, |value| value.is_null() || value == "")
}

fn patched(
    stored: &Map<String, Value>,
    patch: &Node<'_>,
    deletes: impl Fn(&Value) -> bool,
) -> Result<Map<String, Value>, ApiError> {
    let mut pairs = stored.clone();
    for (name, value) in patch.object()?.fields() {
        metadata_key(&value, name)?;
        if deletes(value.value()) {
            pairs.shift_remove(name);
        } else {
            pairs.insert(name.to_owned(), value.text(0, METADATA_VALUE_CHARS)?.into());
        }
    }
    bounded(patch, pairs)
}

/// Most pairs, and the longest key and value in characters: the protocol's bounds.
const METADATA_PAIRS: usize = 16;
const METADATA_KEY_CHARS: usize = 64;
const METADATA_VALUE_CHARS: usize = 512;

fn metadata_key(node: &Node<'_>, name: &str) -> Result<(), ApiError> {
    let length = name.chars().count();
    if (1..=METADATA_KEY_CHARS).contains(&length) {
        return Ok(());
    }
    Err(node.refuse(format!("a key must have 1 to {METADATA_KEY_CHARS} characters")))
}

fn bounded(node: &Node<'_>, pairs: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    if pairs.len() > METADATA_PAIRS {
        let problem = format!("must have at most {METADATA_PAIRS} pairs; it has {}", pairs.len());
        return Err(node.refuse(problem));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<(), ApiError> {
        let mut object = Node::root(body).object()?;
        object.need("name")?.text(1, 3)?;
        object.maybe("count").map(|count| count.integer(1, 9)).transpose()?;
        if let Some(list) = object.maybe("list") {
            for entry in list.list(2)? {
                let mut entry = entry.object()?;
                entry.need("on")?.boolean()?;
                entry.done()?;
            }
        }
        object.done()
    }

    #[test]
    fn every_refusal_names_the_path_of_its_field() {
        for (body, expected) in [
            (json!([]), "body: must be an object, not an array"),
            (json!({}), "name: Field required"),
            (json!({"name": null}), "name: must not be null"),
            (json!({"name": 1}), "name: must be a string, not a number"),
            (json!({"name": ""}), "name: must have at least 1 characters"),
            (json!({"name": "äöüß"}), "name: must have at most 3 characters; it has 4"),
            (json!({"name": "x", "count": -1}), "count: must be a whole number, not a number"),
            (json!({"name": "x", "count": 10}), "count: must be between 1 and 9; it is 10"),
            (json!({"name": "x", "list": [{"on": true}, {}]}), "list[1].on: Field required"),
            (
                json!({"name": "x", "list": [{"on": true, "of": 1}]}),
                "list[0].of: Extra inputs are not permitted",
            ),
            (
                json!({"name": "x", "list": [1, 2, 3]}),
                "list: must have at most 2 entries; it has 3",
            ),
            (json!({"name": "x", "more": 1}), "more: Extra inputs are not permitted"),
        ] {
            assert_eq!(read(&body).unwrap_err().message(), expected);
        }
        assert_eq!(read(&json!({"name": "x", "count": null, "list": [{"on": false}]})), Ok(()));
    }

    #[test]
    fn metadata_is_patched_key_by_key() {
        let stored = metadata(Some(&Node::root(&json!({"a": "1", "b": "2"})))).unwrap();
        let patch = json!({"a": null, "c": "3", "gone": null});
        let patched = patched_metadata(&stored, &Node::root(&patch)).unwrap();
        assert_eq!(Value::from(patched), json!({"b": "2", "c": "3"}));
        let seventeen: Map<_, _> = (0..17).map(|n| (n.to_string(), "x".into())).collect();
        let error = metadata(Some(&Node::root(&seventeen.into()))).unwrap_err();
        assert_eq!(error.message(), "body: must have at most 16 pairs; it has 17");
    }
}
