//! The head of a `SKILL.md`: a block of YAML between two lines `---`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use crate::limits::MAX_SKILL_HEAD_BYTES;

/// Its fields, as they were written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) license: Option<String>,
    pub(super) compatibility: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) allowed_tools: Option<String>,
    /// The tools are a list, as some write them.
    pub(super) tools_are_listed: bool,
    /// Fields that the format does not have.
    pub(super) unknown: Vec<String>,
}

/// Why the fields cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeadError {
    pub(super) field: Option<String>,
    pub(super) problem: String,
}

/// The YAML between the two lines.
pub(super) fn cut(text: &str) -> Result<&str, &'static str> {
    let is_line = |line: &str| line.trim_end() == "---";
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| is_line(line)) else {
        return Err("does not begin with a head");
    };
    let mut end = first.len();
    for line in lines {
        if is_line(line) {
            return Ok(&text[first.len()..end]);
        }
        end += line.len();
        if end > MAX_SKILL_HEAD_BYTES {
            return Err("has a head of more than 32 KiB");
        }
    }
    Err("has a head without an end")
}

/// Reads the fields.
pub(super) fn parse(yaml: &str) -> Result<Head, HeadError> {
    let field = RefCell::default();
    let fields = Fields { field: &field };
    let parsed = serde_saphyr::with_deserializer_from_str(yaml, |de| fields.deserialize(de));
    parsed.map_err(|error| {
        let problem = error.without_snippet().to_string();
        HeadError { field: field.into_inner(), problem }
    })
}

/// Reads fields of which one has a colon in a text without quotes, and names it.
pub(super) fn parse_quoted(yaml: &str) -> Option<(Head, String)> {
    let mut named = None;
    let mut quote = |line: &str| {
        let meant = line.split_once(": ").filter(|(field, rest)| {
            let plain = field.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            plain && rest.contains(':') && !rest.starts_with(['"', '\'', '|', '>', '[', '{', '&'])
        });
        let Some((field, rest)) = meant else { return line.to_owned() };
        named.get_or_insert_with(|| field.to_owned());
        format!("{field}: '{}'", rest.trim().replace('\'', "''"))
    };
    let quoted: Vec<_> = yaml.lines().map(&mut quote).collect();
    let head = parse(&quoted.join("\n")).ok()?;
    Some((head, named?))
}

/// Reads a map, and keeps the name of the field that is being read.
struct Fields<'a> {
    field: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Head;

    fn deserialize<D: serde::Deserializer<'de>>(self, de: D) -> Result<Head, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        while let Some(field) = map.next_key::<String>()? {
            self.field.replace(Some(field.clone()));
            match field.as_str() {
                "name" => head.name = map.next_value()?,
                "description" => head.description = map.next_value()?,
                "license" => head.license = map.next_value()?,
                "compatibility" => head.compatibility = map.next_value()?,
                "metadata" => {
                    let pairs: Option<BTreeMap<String, String>> = map.next_value()?;
                    head.metadata = pairs.unwrap_or_default();
                }
                "allowed-tools" => match map.next_value()? {
                    None => {}
                    Some(Tools::Text(text)) => head.allowed_tools = Some(text),
                    Some(Tools::List(list)) => {
                        (head.allowed_tools, head.tools_are_listed) = (Some(list.join(" ")), true);
                    }
                },
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    head.unknown.push(field);
                }
            }
            self.field.replace(None);
        }
        Ok(head)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Tools {
    Text(String),
    List(Vec<String>),
}
