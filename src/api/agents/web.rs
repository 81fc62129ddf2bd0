//! What `web_fetch` and `web_search` have besides other tools: where they may look.

use serde_json::{Map, Value, json};

use crate::api::body::{Node, Object, Tri};
use crate::api::error::ApiError;
use crate::environment::networking::HostName;

pub(super) const FETCH: &str = "web_fetch";
pub(super) const SEARCH: &str = "web_search";

const MAX_DOMAINS: usize = 64;
const MAX_DOMAIN_CHARS: usize = 255;
const MAX_REFERENCES: usize = 128;
const MAX_PLACE_CHARS: usize = 255;
/// Names of no public host.
const LOCAL: [&str; 5] = ["localhost", "local", "internal", "localdomain", "invalid"];
/// Suffixes under which others register names; a rule for all of one is a mistake. The usual ones, not the whole list.
const PUBLIC_SUFFIXES: [&str; 16] = [
    "co.uk", "org.uk", "ac.uk", "gov.uk", "com.au", "net.au", "org.au", "co.jp", "ne.jp", "or.jp",
    "co.nz", "com.br", "com.cn", "co.in", "co.za", "com.mx",
];

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
    let plain = given.strip_suffix('/').unwrap_or(given).to_ascii_lowercase();
    let (host, path) = plain.split_once('/').map_or((plain.as_str(), None), |(h, p)| (h, Some(p)));
    if given.contains("://") || host.contains([':', '*', '@', '?', '#']) {
        return Err(node.refuse("must be a plain hostname, without scheme, port or wildcard"));
    }
    if path.is_some() && tool == FETCH {
        return Err(node.refuse("must be a plain hostname, without a path"));
    }
    if path.is_some_and(|path| path.contains(|c: char| c.is_whitespace() || c.is_control())) {
        return Err(node.refuse("has a path with a space in it"));
    }
    let name: HostName = host.parse().map_err(|error| node.refuse(error))?;
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    if LOCAL.contains(&last) {
        return Err(node.refuse("must be a public hostname"));
    }
    if !name.as_str().contains('.') || PUBLIC_SUFFIXES.contains(&name.as_str()) {
        return Err(node.refuse("must be a domain, not a whole suffix of domains"));
    }
    Ok(match path {
        Some(path) => format!("{name}/{path}"),
        None => name.to_string(),
    })
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
