//! Who gives tokens for a server: what its refusal says, the metadata of the server (RFC 9728), and those of its
//! authorization server (RFC 8414, OpenID Connect). Each must be about what it was asked of.

use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reach::{Reach, place};
use super::{NoToken, OAuth};

/// What a server says when it refuses a token.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) metadata: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) error: Option<String>,
}

impl Challenge {
    /// Reads the value of a `WWW-Authenticate` header.
    pub(super) fn parse(header: &str) -> Self {
        let mut found = Self::default();
        let mut rest = header;
        while let Some((name, value, after)) = parameter(rest) {
            rest = after;
            let field = match name {
                "resource_metadata" => &mut found.metadata,
                "scope" => &mut found.scope,
                "error" => &mut found.error,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        found
    }
}

/// The next `name=value` of a header, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (before, after) = text.split_once('=')?;
    let name = before.trim_end().rsplit([' ', ',', '\t']).next()?;
    let Some(quoted) = after.trim_start().strip_prefix('"') else {
        let end = after.find([' ', ',']).unwrap_or(after.len());
        return Some((name, after[..end].to_owned(), &after[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    None
}

/// Who gives tokens, and for what.
#[derive(Debug)]
pub(super) struct Found {
    /// The name of the server in requests for tokens.
    pub(super) resource: String,
    /// What can be asked for, as the server says.
    pub(super) scopes: Option<Vec<String>>,
    pub(super) at: AuthorizationServer,
}

/// An authorization server as it describes itself.
#[derive(Debug)]
pub(super) struct AuthorizationServer {
    pub(super) issuer: String,
    pub(super) token: Url,
    pub(super) authorize: Option<Url>,
    pub(super) register: Option<Url>,
    /// What it says besides.
    pub(super) says: ServerDocument,
}

#[derive(Debug, Deserialize)]
struct ResourceDocument {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    scopes_supported: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerDocument {
    issuer: String,
    token_endpoint: String,
    authorization_endpoint: Option<String>,
    registration_endpoint: Option<String>,
    pub(super) grant_types_supported: Option<Vec<String>>,
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    pub(super) token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    pub(super) code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) client_id_metadata_document_supported: bool,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// Finds out.
pub(super) async fn find(
    reach: &Reach,
    own: &OAuth,
    refused: &Challenge,
) -> Result<Found, NoToken> {
    let described = resource(reach, refused).await?;
    let server = reach.server.as_str();
    let Some(document) = described else {
        let at = match &own.issuer {
            Some(issuer) => of_issuer(reach, issuer).await?,
            None => of_origin(reach).await?,
        };
        return Ok(Found { resource: plain(server), scopes: None, at });
    };
    if !covers(&document.resource, &reach.server) {
        return Err(NoToken::new(format!("its metadata are of `{}`", quoted(&document.resource))));
    }
    let issuer = issuer(own, &document)?;
    let at = of_issuer(reach, issuer).await?;
    Ok(Found { resource: document.resource, scopes: document.scopes_supported, at })
}

/// The one that the configuration names, which must be the server's own choice too, or the server's first.
fn issuer<'i>(own: &'i OAuth, document: &'i ResourceDocument) -> Result<&'i str, NoToken> {
    let servers = &document.authorization_servers;
    match &own.issuer {
        Some(issuer) if servers.iter().any(|server| same(server, issuer)) => Ok(issuer),
        Some(issuer) => Err(NoToken::new(format!(
            "it sends to another authorization server than `{issuer}`, which `issuer` names"
        ))),
        None => servers
            .first()
            .map(String::as_str)
            .ok_or_else(|| NoToken::new("its metadata name no authorization server".to_owned())),
    }
}

/// The metadata of the MCP server: where it says that they are, else below its path, else at its root.
async fn resource(reach: &Reach, refused: &Challenge) -> Result<Option<ResourceDocument>, NoToken> {
    if let Some(said) = &refused.metadata {
        let url =
            Url::parse(said).map_err(|e| NoToken::new(format!("the URL of its metadata: {e}")))?;
        let document = document(reach, &url).await?;
        let missing = || NoToken::new(format!("there are no metadata at `{}`", place(&url)));
        return document.ok_or_else(missing).map(Some);
    }
    for url in well_known(&reach.server, &["oauth-protected-resource"]) {
        if let Some(document) = document(reach, &url).await? {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

/// Documents of a kind for a URL: with its path after the kind, and for none.
fn well_known(url: &Url, kinds: &[&str]) -> Vec<Url> {
    let path = url.path().trim_end_matches('/');
    let below = kinds.iter().map(|kind| format!("/.well-known/{kind}{path}"));
    let root = (!path.is_empty()).then(|| format!("/.well-known/{}", kinds[0]));
    below.chain(root).map(|path| at_path(url, &path)).collect()
}

fn at_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// The metadata of an authorization server by its name, which must be theirs.
async fn of_issuer(reach: &Reach, issuer: &str) -> Result<AuthorizationServer, NoToken> {
    let wrong =
        |why: String| NoToken::new(format!("its authorization server `{}`: {why}", quoted(issuer)));
    let url = Url::parse(issuer).map_err(|e| wrong(e.to_string()))?;
    let path = url.path().trim_end_matches('/');
    let mut places = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{path}/.well-known/openid-configuration"));
    }
    for path in places {
        if let Some(found) = document::<ServerDocument>(reach, &at_path(&url, &path)).await? {
            if !same(&found.issuer, issuer) {
                return Err(wrong(format!("its metadata are of `{}`", quoted(&found.issuer))));
            }
            return AuthorizationServer::of(found).map_err(wrong);
        }
    }
    Err(wrong("it has no metadata".to_owned()))
}

/// As before there were metadata of servers: the server's own origin is its authorization server.
async fn of_origin(reach: &Reach) -> Result<AuthorizationServer, NoToken> {
    let url = at_path(&reach.server, "/.well-known/oauth-authorization-server");
    let Some(found) = document::<ServerDocument>(reach, &url).await? else {
        return Err(NoToken::new("it does not say who gives tokens for it".to_owned()));
    };
    let is_own = Url::parse(&found.issuer).is_ok_and(|issuer| issuer.origin() == url.origin());
    if !is_own {
        return Err(NoToken::new(format!("its metadata are of `{}`", quoted(&found.issuer))));
    }
    AuthorizationServer::of(found).map_err(NoToken::new)
}

impl AuthorizationServer {
    fn of(says: ServerDocument) -> Result<Self, String> {
        let url = |name: &str, given: &str| {
            Url::parse(given).map_err(|e| format!("`{name}` of its metadata: {e}"))
        };
        let maybe = |name: &str, given: &Option<String>| {
            given.as_deref().map(|given| url(name, given)).transpose()
        };
        Ok(Self {
            issuer: says.issuer.clone(),
            token: url("token_endpoint", &says.token_endpoint)?,
            authorize: maybe("authorization_endpoint", &says.authorization_endpoint)?,
            register: maybe("registration_endpoint", &says.registration_endpoint)?,
            says,
        })
    }
}

/// A document of JSON. Sites that answer whatever they are asked with a page have none.
async fn document<T: DeserializeOwned>(reach: &Reach, url: &Url) -> Result<Option<T>, NoToken> {
    let Some(body) = reach.document(url).await? else { return Ok(None) };
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        return Ok(None);
    }
    let wrong =
        |e: serde_json::Error| NoToken::new(format!("the metadata at `{}`: {e}", place(url)));
    serde_json::from_slice(&body).map(Some).map_err(wrong)
}

/// Whether metadata of `resource` are those of the server at `url`: the same place, or one above it.
fn covers(resource: &str, url: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else { return false };
    let (above, path) = (resource.path().trim_end_matches('/'), url.path());
    let is_above =
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    resource.origin() == url.origin() && is_above && resource.fragment().is_none()
}

/// Names of servers are compared letter by letter; a slash at the end is none.
fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn plain(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

/// A stranger's word in an error.
fn quoted(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_whoever_else_is_named() {
        let check = |header: &str, expected: [Option<&str>; 3]| {
            let Challenge { metadata, scope, error } = Challenge::parse(header);
            assert_eq!(
                [metadata.as_deref(), scope.as_deref(), error.as_deref()],
                expected,
                "{header}"
            );
        };
        check("", [None; 3]);
        check("Bearer", [None; 3]);
        check("Bearer scope=\"a b\"", [None, Some("a b"), None]);
        check(
            "Bearer error=insufficient_scope, scope=\"a\", resource_metadata=\"https://x/y?a=b\"",
            [Some("https://x/y?a=b"), Some("a"), Some("insufficient_scope")],
        );
        check(
            "Basic realm=\"scope=evil, error=\\\"\", Bearer scope = \"a\"",
            [None, Some("a"), None],
        );
        check("Bearer scope=\"one\", Bearer scope=\"two\"", [None, Some("one"), None]);
        check("Bearer scope=\"without an end", [None; 3]);
        check("Negotiate abc==, Bearer error=\"x\"", [None, None, Some("x")]);
        check("=====", [None; 3]);
    }

    #[test]
    fn metadata_are_of_the_server_or_of_a_place_above_it() {
        let check = |resource: &str, url: &str, expected: bool| {
            assert_eq!(covers(resource, &Url::parse(url).unwrap()), expected, "{resource} {url}");
        };
        check("https://a.example/mcp", "https://a.example/mcp", true);
        check("https://a.example/mcp/", "https://a.example/mcp", true);
        check("https://a.example", "https://a.example/mcp", true);
        check("https://a.example/m", "https://a.example/mcp", false);
        check("https://a.example/mcp/x", "https://a.example/mcp", false);
        check("https://a.example:444/mcp", "https://a.example/mcp", false);
        check("http://a.example/mcp", "https://a.example/mcp", false);
        check("https://b.example/mcp", "https://a.example/mcp", false);
        check("https://a.example/mcp#x", "https://a.example/mcp", false);
        check("mcp", "https://a.example/mcp", false);
    }

    #[test]
    fn metadata_are_looked_for_below_the_path_first() {
        let check = |url: &str, expected: &[&str]| {
            let found = well_known(&Url::parse(url).unwrap(), &["k"]);
            assert_eq!(found.iter().map(Url::as_str).collect::<Vec<_>>(), expected);
        };
        check("https://a/mcp?x#y", &["https://a/.well-known/k/mcp", "https://a/.well-known/k"]);
        check("https://a/", &["https://a/.well-known/k"]);
    }
}
