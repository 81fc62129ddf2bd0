//! The `[mcp]` part of the configuration, and files of MCP servers as other programs have them (`.mcp.json`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::config::Env;
use super::read_bounded;
use crate::agent::mcp::{MAX_SERVERS, McpServer, ServerParams, check_url};
use crate::environment::networking::HostRule;
use crate::limits::MAX_AGENT_FILE_BYTES;
use crate::mcp::{Credentials, Identity, Key, McpConfig, OAuth, Proof, Questions, Secret};

/// `[mcp]` as a person writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileMcp {
    /// Hosts of the user's own network that names of servers may lead to.
    #[serde(default)]
    private_hosts: Vec<HostRule>,
    /// By URL, or by any name with the URL within.
    #[serde(default)]
    servers: BTreeMap<String, FileServer>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileServer {
    url: Option<String>,
    bearer_env: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    headers_env: BTreeMap<String, String>,
    oauth: Option<FileOAuth>,
    timeout_seconds: Option<NonZeroU32>,
    #[serde(default)]
    elicitation: FileQuestions,
}

/// Where a server's tokens are from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOAuth {
    client_id: Option<String>,
    client_secret_env: Option<String>,
    private_key_env: Option<String>,
    scope: Option<String>,
    issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileQuestions {
    #[default]
    Decline,
    Defaults,
}

impl std::fmt::Debug for FileServer {
    /// Its headers may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl FileMcp {
    /// Checks it; variables are read from the environment.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub(super) fn checked(self, env: &Env) -> Result<McpConfig, String> {
        let servers = self.servers.into_iter();
        let credentials = servers.map(|(key, server)| server.checked(&key, env));
        Ok(McpConfig {
            credentials: credentials.collect::<Result<_, _>>()?,
            private_hosts: self.private_hosts,
        })
    }
}

impl FileServer {
    fn checked(self, key: &str, env: &Env) -> Result<Credentials, String> {
        let at = |field: &str, wrong: &str| format!("mcp.servers.{key:?}.{field}: {wrong}");
        let url = self.url.clone().unwrap_or_else(|| key.to_owned());
        check_url(&url).map_err(|wrong| at("url", wrong))?;
        let mut missing = None;
        let mut headers = Vec::new();
        let mut add = |name: &str, value: &str, field: &str| {
            let name = HeaderName::try_from(name)
                .map_err(|_| at(field, &format!("`{name}` is no name of a header")))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| at(field, "holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.push((name, value));
            Ok::<_, String>(())
        };
        for (name, value) in &self.headers {
            add(name, value, "headers")?;
        }
        let bearer = self.bearer_env.iter().map(|own| ("authorization", own, "Bearer "));
        let named = self.headers_env.iter().map(|(name, own)| (name.as_str(), own, ""));
        for (name, variable, scheme) in bearer.chain(named) {
            match env.get(variable) {
                Some(value) => add(name, &format!("{scheme}{}", value.trim()), variable)?,
                None => missing = Some(variable.clone()),
            }
        }
        if self.oauth.is_some() && headers.iter().any(|(name, _)| name == AUTHORIZATION) {
            return Err(at(
                "oauth",
                "there is an `authorization` already, of `bearer_env` or `headers`",
            ));
        }
        let oauth = self.oauth.map(|oauth| oauth.checked(env, &mut missing));
        let oauth =
            oauth.transpose().map_err(|(field, wrong)| at(&format!("oauth.{field}"), &wrong))?;
        let timeout = self.timeout_seconds.map(|n| Duration::from_secs(n.get().into()));
        let questions = match self.elicitation {
            FileQuestions::Decline => Questions::Decline,
            FileQuestions::Defaults => Questions::Defaults,
        };
        // Without what is missing no login can be right.
        let oauth = oauth.filter(|_| missing.is_none());
        Ok(Credentials { url, headers, missing, oauth, timeout, questions })
    }
}

impl FileOAuth {
    /// The name of a wrong field, and what it must be.
    fn checked(
        self,
        env: &Env,
        missing: &mut Option<String>,
    ) -> Result<OAuth, (&'static str, String)> {
        let wrong = |field, why: &str| (field, why.to_owned());
        let mut get = |variable: &String| {
            let value = env.get(variable);
            if value.is_none() {
                *missing = Some(variable.clone());
            }
            value
        };
        let proof = match (&self.client_secret_env, &self.private_key_env) {
            (None, None) => Proof::None,
            (Some(secret), None) => match get(secret) {
                Some(secret) => Proof::Secret(Secret::new(secret)),
                None => Proof::None,
            },
            (None, Some(key)) => match get(key).map(Key::parse).transpose() {
                Ok(Some(key)) => Proof::Key(Arc::new(key)),
                Ok(None) => Proof::None,
                Err(why) => return Err(("private_key_env", format!("{key} {why}"))),
            },
            (Some(_), Some(_)) => {
                return Err(wrong("private_key_env", "a client has this or `client_secret_env`"));
            }
        };
        let has_proof = self.client_secret_env.is_some() || self.private_key_env.is_some();
        let client = match self.client_id {
            Some(id) if id.is_empty() || id.len() > 2048 || id.chars().any(char::is_control) => {
                return Err(wrong("client_id", "must have 1 to 2048 plain characters"));
            }
            Some(id) => Some(Identity { id, proof }),
            None if has_proof => {
                return Err(wrong(
                    "client_id",
                    "must name the client that the secret or key is of",
                ));
            }
            None => None,
        };
        if self.scope.as_ref().is_some_and(|scope| !is_scope(scope)) {
            return Err(wrong(
                "scope",
                "must be words of printable ASCII with a space between them",
            ));
        }
        if let Some(issuer) = &self.issuer {
            check_url(issuer).map_err(|why| wrong("issuer", why))?;
        }
        Ok(OAuth { client, scope: self.scope, issuer: self.issuer })
    }
}

fn is_scope(scope: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    scope.split(' ').all(is_word)
}

/// The servers of a file such as `.mcp.json`, under the default policy.
///
/// # Errors
/// What is wrong with the file, and where.
pub fn mcp_file(path: &Path) -> Result<Vec<McpServer>, String> {
    let text = read_bounded(path, MAX_AGENT_FILE_BYTES).map_err(|e| e.to_string())?;
    servers_of(&text)
}

/// One server as other programs write it.
#[derive(Debug, Deserialize)]
struct OtherServer {
    r#type: Option<String>,
    url: Option<String>,
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    headers: Option<BTreeMap<String, String>>,
}

fn servers_of(text: &str) -> Result<Vec<McpServer>, String> {
    let file: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let servers = file.get("mcpServers").and_then(Value::as_object);
    let servers = servers.ok_or("there is no object `mcpServers` in it")?;
    if servers.len() > MAX_SERVERS {
        return Err(format!("mcpServers: must have at most {MAX_SERVERS} entries"));
    }
    let read = |(name, server): (&String, &Value)| {
        let at = format!("mcpServers.{name}");
        let other = OtherServer::deserialize(server).map_err(|e| format!("{at}: {e}"))?;
        other.server(name, &at)
    };
    servers.iter().map(read).collect()
}

impl OtherServer {
    fn server(self, name: &str, at: &str) -> Result<McpServer, String> {
        if self.headers.is_some_and(|headers| !headers.is_empty()) {
            return Err(format!(
                "{at}.headers: credentials are taken from `[mcp.servers]` of the configuration alone"
            ));
        }
        let values = self.env.iter().flatten().map(|(_, value)| value);
        let words = values.chain(self.args.iter().flatten()).chain(&self.command).chain(&self.url);
        if let Some(word) = words.into_iter().find(|word| word.contains("${")) {
            return Err(format!(
                "{at}: `{word}` wants a variable of this machine, and none enters the sandbox; write its value"
            ));
        }
        let kind = match (self.r#type.as_deref(), &self.command) {
            (None, Some(_)) | (Some("stdio"), _) => "stdio",
            (None | Some("http" | "streamable-http" | "sse" | "url"), _) => "url",
            (Some(other), _) => {
                return Err(format!(
                    "{at}.type: `{other}` is not supported; it is stdio, http or sse"
                ));
            }
        };
        let params = ServerParams {
            r#type: kind.to_owned(),
            name: name.to_owned(),
            url: self.url,
            command: self.command,
            args: self.args,
            env: self.env,
        };
        params.validate(at).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::mcp::Place;

    fn credentials(file: &str, env: &[(&str, &str)]) -> Result<Vec<(String, Vec<String>)>, String> {
        let file: FileMcp = toml::from_str(file).map_err(|e| e.to_string())?;
        let config = file.checked(&Env::of(env))?;
        assert!(!format!("{config:?}").contains("sk-secret"), "{config:?}");
        let shown = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let of = |own: &Credentials| {
            let missing = own.missing.iter().map(|name| format!("missing {name}"));
            (own.url.clone(), own.headers.iter().map(shown).chain(missing).collect())
        };
        Ok(config.credentials.iter().map(of).collect())
    }

    #[test]
    fn credentials_come_from_the_configuration_and_its_variables() {
        let check = |file: &str, env: &[(&str, &str)], expected: &[&str]| {
            let found = credentials(file, env).unwrap();
            assert_eq!(
                found,
                [(
                    "https://a.example/mcp".to_owned(),
                    expected.iter().map(|s| (*s).to_owned()).collect()
                )]
            );
        };
        let env = [("TOKEN", "sk-secret-1\n")];
        let by_url = "[servers.\"https://a.example/mcp\"]\nbearer_env = 'TOKEN'\n";
        check(by_url, &env, &["authorization: Bearer sk-secret-1"]);
        check(by_url, &[], &["missing TOKEN"]);
        let by_name = "[servers.a]\nurl = 'https://a.example/mcp'\nheaders = { X-Key = 'sk-secret-2' }\nheaders_env = { X-Other = 'TOKEN' }\n";
        check(by_name, &env, &["x-key: sk-secret-2", "x-other: sk-secret-1"]);
    }

    #[test]
    fn a_login_has_what_it_needs_or_is_none() {
        let check = |fields: &str, env: &[(&str, &str)], expected: Result<&str, &str>| {
            let file = format!("[servers.\"https://a.example/mcp\"]\noauth = {{ {fields} }}\n");
            let file: FileMcp = toml::from_str(&file).unwrap();
            let own = file.checked(&Env::of(env)).unwrap().credentials.remove(0);
            let shown = own.oauth.as_ref().map(|oauth| format!("{:?}", oauth.client));
            let found = shown.as_deref().ok_or(own.missing.as_deref().unwrap_or_default());
            assert_eq!(found, expected, "{fields}");
        };
        let secret = [("S", "sk-secret")];
        check("", &[], Ok("None"));
        check("client_id = 'a'", &[], Ok("Some(Identity { id: \"a\", proof: None })"));
        let with_secret = "client_id = 'a', client_secret_env = 'S'";
        check(with_secret, &secret, Ok("Some(Identity { id: \"a\", proof: Secret([hidden]) })"));
        check(with_secret, &[], Err("S"));
        let file = "[servers.\"http://x\"]\noauth = { client_id = 'a', private_key_env = 'S' }";
        let file: FileMcp = toml::from_str(file).unwrap();
        let wrong = file.checked(&Env::of(&secret)).unwrap_err();
        assert!(wrong.contains("oauth.private_key_env: S must be a private key"), "{wrong}");
        assert!(!wrong.contains("sk-secret"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |file: &str, expected: &str| {
            let wrong = credentials(file, &[]).unwrap_err();
            assert!(wrong.contains(expected), "{wrong}");
        };
        check("[servers.github]\nbearer_env = 'X'", "mcp.servers.\"github\".url: must be a URL");
        check("[servers.\"http://x\"]\nheaders = { 'a b' = 'c' }", "`a b` is no name of a header");
        check("[servers.\"http://x\"]\nheaders = { a = \"b\\nc\" }", "no header can carry");
        check("[servers.\"http://x\"]\ntoken = 'x'", "unknown field `token`");
        let oauth = |fields: &str| format!("[servers.\"http://x\"]\noauth = {{ {fields} }}\n");
        let at =
            |field: &str, wrong: &str| format!("mcp.servers.\"http://x\".oauth{field}: {wrong}");
        check(&oauth("token = 'x'"), "unknown field `token`");
        check(&oauth("client_id = ''"), &at(".client_id", "must have 1 to 2048"));
        check(&oauth("client_secret_env = 'A'"), &at(".client_id", "must name the client"));
        check(
            &oauth("client_id = 'a', client_secret_env = 'A', private_key_env = 'B'"),
            &at(".private_key_env", "a client has this or"),
        );
        check(&oauth("scope = 'a  b'"), &at(".scope", "must be words"));
        check(&oauth("issuer = 'example'"), &at(".issuer", "must be a URL"));
        check(
            &(oauth("") + "headers = { Authorization = 'x' }"),
            &at("", "there is an `authorization` already"),
        );
        check("[servers.\"http://x\"]\nelicitation = 'yes'", "unknown variant `yes`");
    }

    #[test]
    fn files_of_other_programs_are_read() {
        let file = r#"{"mcpServers": {
            "files": {"command": "npx", "args": ["-y", "x"], "env": {"A": "b"}},
            "docs": {"type": "http", "url": "http://127.0.0.1:1/mcp"},
            "old": {"type": "sse", "url": "http://127.0.0.1:1/sse"}
        }}"#;
        let servers = servers_of(file).unwrap();
        let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["files", "docs", "old"]);
        assert!(matches!(&servers[0].place, Place::Stdio { command, args, env }
            if command == "npx" && args.len() == 2 && env["A"] == "b"));
        let check = |server: &str, expected: &str| {
            let wrong = servers_of(&format!(r#"{{"mcpServers": {{"s": {server}}}}}"#)).unwrap_err();
            assert!(wrong.contains(expected), "{wrong}");
        };
        check(r#"{"url": "http://x", "headers": {"A": "b"}}"#, "mcpServers.s.headers: credentials");
        check(r#"{"command": "x", "env": {"A": "${B}"}}"#, "`${B}` wants a variable");
        check(r#"{"type": "ws", "url": "ws://x"}"#, "`ws` is not supported");
        check(r#"{"command": 7}"#, "mcpServers.s: ");
        check(r#"{}"#, "has `url`");
        assert!(servers_of("[]").unwrap_err().contains("`mcpServers`"));
        assert!(servers_of("{").is_err());
    }
}
