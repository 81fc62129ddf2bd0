//! What `web_fetch` and `web_search` have besides other tools: where they may look.

use serde_json::{Map, Value, json};

use crate::agent::web::{
    Domain, Domains, FetchSettings, Location, MAX_DOMAIN_CHARS, MAX_DOMAINS, SearchSettings,
};
use crate::api::body::{Node, Object, Tri};
use crate::api::error::ApiError;

pub(super) const FETCH: &str = "web_fetch";
pub(super) const SEARCH: &str = "web_search";

const MAX_REFERENCES: usize = 128;
const MAX_PLACE_CHARS: usize = 255;
/// Reads what the tool of that name has; nothing for tools that are not of the web.
pub(super) fn read(
    object: &mut Object<'_>,
    name: &str,
    custom: &[&str],
) -> Result<Map<String, Value>, ApiError> {
    let mut fields = Map::new();
    if !matches!(name, FETCH | SEARCH) {
        return Ok(fields);
    }
    let lists = ["allowed_domains", "blocked_domains"];
    for list in lists {
        let domains = match object.maybe(list) {
            Some(node) => read_domains(&node, name)?,
            None => Value::Null,
        };
        fields.insert(list.to_owned(), domains);
    }
    if lists.iter().all(|list| !fields[*list].is_null()) {
        let problem = "Only one of allowed_domains or blocked_domains may be set.";
        return Err(object.refuse(lists[1], problem));
    }
    if name == FETCH {
        let most = object.maybe("max_content_tokens");
        let most = most.map(|most| most.integer(1, u64::from(u32::MAX))).transpose()?;
        fields.insert("max_content_tokens".to_owned(), most.into());
        let sources = object.maybe("url_sources");
        let sources = sources.map(|sources| read_sources(&sources, custom)).transpose()?;
        fields.insert("url_sources".to_owned(), sources.unwrap_or_default());
    } else {
        let place = object.maybe("user_location");
        let place = place.map(|place| read_location(&place)).transpose()?;
        fields.insert("user_location".to_owned(), place.unwrap_or_default());
    }
    Ok(fields)
}

fn read_domains(node: &Node<'_>, tool: &str) -> Result<Value, ApiError> {
    let entries = node.list(MAX_DOMAINS)?;
    if entries.is_empty() {
        let problem = "Empty list of domains is ambiguous. Provide at least one domain or null.";
        return Err(node.refuse(problem));
    }
    let mut domains: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        let domain = read_domain(&entry, tool)?;
        if domains.contains(&domain) {
            return Err(entry.refuse(format!("\"{domain}\" is there twice")));
        }
        domains.push(domain);
    }
    Ok(domains.into())
}

/// A public name, such as `docs.example.com`; for searches also with a path.
fn read_domain(node: &Node<'_>, tool: &str) -> Result<String, ApiError> {
    let given = node.text(1, MAX_DOMAIN_CHARS)?;
    let domain: Domain = given.parse().map_err(|error| node.refuse(error))?;
    if domain.has_path() && tool == FETCH {
        return Err(node.refuse("must be a plain hostname, without a path"));
    }
    Ok(domain.to_string())
}

/// The settings of a stored `web_fetch` as sessions use them: what was read above, typed.
pub(super) fn fetch_settings(fields: &Map<String, Value>) -> FetchSettings {
    let typed = |name: &str| fields.get(name).filter(|value| !value.is_null()).cloned();
    let sources = typed("url_sources").map(|mut sources| {
        for source in sources.as_object_mut().into_iter().flat_map(Map::values_mut) {
            if source.is_null() {
                *source = json!({ "type": "all" });
            }
        }
        serde_json::from_value(sources).expect("it was read in this shape")
    });
    FetchSettings {
        domains: domains(fields),
        max_content_tokens: typed("max_content_tokens")
            .and_then(|most| most.as_u64())
            .and_then(|most| most.try_into().ok()),
        url_sources: sources,
    }
}

/// The same of a stored `web_search`.
pub(super) fn search_settings(fields: &Map<String, Value>) -> SearchSettings {
    let place = fields.get("user_location").and_then(Value::as_object);
    let part = |place: &Map<String, Value>, name: &str| {
        place.get(name).and_then(Value::as_str).map(str::to_owned)
    };
    let user_location = place.map(|place| Location {
        city: part(place, "city"),
        region: part(place, "region"),
        country: part(place, "country"),
        timezone: part(place, "timezone"),
    });
    SearchSettings { domains: domains(fields), user_location }
}

fn domains(fields: &Map<String, Value>) -> Domains {
    let list = |name: &str| -> Option<Vec<Domain>> {
        let entries = fields.get(name)?.as_array()?.iter().filter_map(Value::as_str);
        Some(entries.map(|domain| domain.parse().expect("it was read as a domain")).collect())
    };
    match (list("allowed_domains"), list("blocked_domains")) {
        (Some(only), _) => Domains::Only(only),
        (None, Some(except)) => Domains::Except(except),
        (None, None) => Domains::Any,
    }
}

fn read_location(node: &Node<'_>) -> Result<Value, ApiError> {
    let mut object = node.object()?;
    let kind = object.need("type")?;
    if kind.string()? != "approximate" {
        return Err(kind.refuse("must be \"approximate\""));
    }
    let mut place = json!({ "type": "approximate" });
    for field in ["city", "region", "country", "timezone"] {
        let text = object.maybe(field).map(|text| text.text(1, MAX_PLACE_CHARS)).transpose()?;
        place[field] = text.into();
    }
    object.done()?;
    Ok(place)
}

fn read_sources(node: &Node<'_>, custom: &[&str]) -> Result<Value, ApiError> {
    let mut object = node.object()?;
    let mut sources = Map::new();
    let server: &[&str] = &[SEARCH, FETCH];
    for (name, tools) in [
        ("user_input", None),
        ("client_tool_results", Some(custom)),
        ("server_tool_results", Some(server)),
    ] {
        let source = match object.tri(name) {
            Tri::Set(node) => read_source(&node, tools)?,
            Tri::Null | Tri::Absent => Value::Null,
        };
        sources.insert(name.to_owned(), source);
    }
    object.done()?;
    if sources.values().all(|source| source["type"] == "none") {
        return Err(node.refuse("must not be \"none\" for every source"));
    }
    Ok(sources.into())
}

/// `all`, `none`, or, where `tools` can be named, all but some of them or only those.
fn read_source(node: &Node<'_>, tools: Option<&[&str]>) -> Result<Value, ApiError> {
    if let Some(word) = node.value().as_str() {
        return match word {
            "all" | "none" => Ok(json!({ "type": word })),
            _ => Err(node.refuse("must be \"all\" or \"none\"")),
        };
    }
    let mut object = node.object()?;
    let kind = object.need("type")?;
    let source = match (kind.string()?, tools) {
        (word @ ("all" | "none"), _) => json!({ "type": word }),
        (word @ ("only" | "except"), Some(known)) => {
            let names = read_references(&object.need("tools")?, known)?;
            json!({ "type": word, "tools": names })
        }
        (_, Some(_)) => return Err(kind.refuse("must be one of all, none, only, except")),
        (_, None) => return Err(kind.refuse("must be \"all\" or \"none\"")),
    };
    object.done()?;
    Ok(source)
}

fn read_references(node: &Node<'_>, known: &[&str]) -> Result<Value, ApiError> {
    let entries = node.list(MAX_REFERENCES)?;
    if entries.is_empty() {
        return Err(node.refuse("must name at least one tool"));
    }
    let mut names: Vec<&str> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let mut object = entry.object()?;
        let kind = object.need("type")?;
        if kind.string()? != "tool_reference" {
            return Err(kind.refuse("must be \"tool_reference\""));
        }
        let name = object.need("name")?;
        let text = name.string()?;
        object.done()?;
        if !known.contains(&text) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(name.refuse(format!("names no tool that can be named here: {known}")));
        }
        if names.contains(&text) {
            return Err(name.refuse(format!("\"{text}\" is there twice")));
        }
        names.push(text);
    }
    Ok(names.into_iter().map(|name| json!({ "type": "tool_reference", "name": name })).collect())
}
