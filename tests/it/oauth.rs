//! MCP servers that want tokens, and authorization servers of every kind of temper: what a login does, what it tells
//! whom, and that it ends. What the MCP project itself expects is in `tests/mcp/run conformance`.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::mcp::{agent, at, configure, of_kind, results, script};
use crate::support::Casemate;
use crate::support::http::{request, respond};

/// In everything that must not be shown.
const MARK: &str = "leak-check-77c2";
const SECRET: &str = "client-secret-leak-check-77c2";

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    head: String,
    body: String,
}

impl Asked {
    fn message(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A field of a form, or of a query.
    fn field(&self, name: &str) -> Option<String> {
        let text = match self.path.split_once('?') {
            Some((_, query)) => query,
            None => &self.body,
        };
        let mut fields = form_urlencoded::parse(text.as_bytes());
        fields.find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
    }

    fn place(&self) -> &str {
        self.path.split('?').next().unwrap()
    }

    fn token(&self) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "))
    }
}

struct Reply {
    status: &'static str,
    headers: String,
    body: String,
}

impl Reply {
    fn new(status: &'static str, headers: String, body: &str) -> Option<Self> {
        Some(Self { status, headers, body: body.to_owned() })
    }

    fn json(body: &Value) -> Option<Self> {
        Self::new("200 OK", "content-type: application/json\r\n".to_owned(), &body.to_string())
    }

    fn to(place: &str) -> Option<Self> {
        Self::new("302 Found", format!("location: {place}\r\n"), "")
    }

    fn unauthorized(site: &str) -> Option<Self> {
        let metadata = format!("{site}/.well-known/oauth-protected-resource/mcp");
        let header = format!(
            "www-authenticate: Bearer scope=\"read\", resource_metadata=\"{metadata}\"\r\n"
        );
        Self::new("401 Unauthorized", header, MARK)
    }

    fn forbidden(scope: &str) -> Option<Self> {
        let header =
            format!("www-authenticate: Bearer error=\"insufficient_scope\", scope=\"{scope}\"\r\n");
        Self::new("403 Forbidden", header, "")
    }
}

/// An MCP server and its authorization server, at one origin. Gone with the process.
struct Site {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    /// What the site does otherwise than an honest one: asked what, of all that was asked so far, at which origin.
    fn start(
        odd: impl Fn(&Asked, &[Asked], &str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, odd) = (Arc::clone(&asked), Arc::new(odd));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, odd) = (Arc::clone(&log), Arc::clone(&odd));
                std::thread::spawn(move || {
                    let Some(asked) = Asked::read(&stream) else { return };
                    let before = {
                        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                        log.push(asked.clone());
                        log.clone()
                    };
                    let site = format!("http://127.0.0.1:{port}");
                    let reply =
                        odd(&asked, &before, &site).or_else(|| honest(&asked, &before, &site));
                    let reply = reply.unwrap_or(Reply {
                        status: "404 Not Found",
                        headers: String::new(),
                        body: "no".to_owned(),
                    });
                    // A client that has had enough hangs up.
                    drop(respond(&mut stream, reply.status, &reply.headers, reply.body.as_bytes()));
                });
            }
        });
        Self { port, asked }
    }

    fn honest() -> Self {
        Self::start(|_, _, _| None)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    fn asked(&self, place: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.place() == place).cloned().collect()
    }

    fn grants(&self) -> Vec<String> {
        self.asked("/token").iter().filter_map(|asked| asked.field("grant_type")).collect()
    }
}

impl Asked {
    fn read(stream: &TcpStream) -> Option<Self> {
        let (head, path, body) = request(stream)?;
        Some(Self { path, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

fn metadata(site: &str) -> Value {
    json!({
        "issuer": site,
        "authorization_endpoint": format!("{site}/authorize"),
        "token_endpoint": format!("{site}/token"),
        "registration_endpoint": format!("{site}/register"),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
    })
}

/// The token that is given as the n-th, counted from one.
fn token(n: usize) -> String {
    format!("token-{n}-{MARK}")
}

fn given(n: usize, expires_in: u64) -> Value {
    json!({
        "access_token": token(n), "token_type": "Bearer", "expires_in": expires_in,
        "refresh_token": format!("refresh-{n}-{MARK}"),
    })
}

fn count(before: &[Asked], place: &str) -> usize {
    before.iter().filter(|asked| asked.place() == place).count()
}

/// Where a code goes, with what was asked.
fn back(asked: &Asked, more: &str) -> String {
    let (to, state) = (asked.field("redirect_uri").unwrap(), asked.field("state").unwrap());
    format!("{to}?code=code-{MARK}&state={state}{more}")
}

fn honest(asked: &Asked, before: &[Asked], site: &str) -> Option<Reply> {
    match asked.place() {
        "/.well-known/oauth-protected-resource/mcp" => Reply::json(
            &json!({"resource": format!("{site}/mcp"), "authorization_servers": [site]}),
        ),
        "/.well-known/oauth-authorization-server" => Reply::json(&metadata(site)),
        "/register" => Reply::json(&json!({"client_id": "registered"})),
        "/authorize" => Reply::to(&back(asked, "")),
        "/token" => Reply::json(&given(count(before, "/token"), 3600)),
        "/mcp" if asked.token().is_none_or(|token| !token.ends_with(MARK)) => {
            Reply::unauthorized(site)
        }
        "/mcp" => serve(asked),
        _ => None,
    }
}

fn serve(asked: &Asked) -> Option<Reply> {
    let message = asked.message();
    let result = match message["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "t", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{"name": "head", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": asked.head}]}),
        method if method.starts_with("notifications/") => {
            return Reply::new("202 Accepted", String::new(), "");
        }
        _ => {
            let unknown = json!({"code": -32601, "message": "no such method"});
            return Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "error": unknown}));
        }
    };
    Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

/// The log of a session with a call of the server for each number of calls; nothing that is to be hidden is in it or shown.
fn session(url: &str, config: &str, calls: usize) -> Vec<Value> {
    let casemate = Casemate::new();
    configure(&casemate, &config.replace("URL", url));
    let calls: Vec<_> = (0..calls).map(|_| ("mcp__srv__head", json!({}))).collect();
    let model = casemate.script(&script(&calls));
    let agent = agent(&casemate, &model, &at(url));
    let finished =
        casemate.run_with(&[("SECRET", SECRET)], &["run", "--agent", &agent, "go"]).expect(0);
    let log = casemate.log();
    let all = format!("{}{}{log:?}", finished.stdout(), finished.stderr());
    assert!(!all.contains(MARK), "a secret shows: {all}");
    log
}

const PLAIN: &str = "[mcp.servers.\"URL\"]\noauth = {}\n";
const WITH_SECRET: &str =
    "[mcp.servers.\"URL\"]\noauth = { client_id = 'me', client_secret_env = 'SECRET' }\n";

#[test]
fn a_code_is_had_where_nobody_is_asked() {
    let site = Site::honest();
    let log = session(&site.url(), PLAIN, 1);
    let (failed, said) = results(&log).remove(0);
    assert!(!failed && said.contains("authorization: Bearer [hidden]"), "{said}");
    let (asked, told) = (&site.asked("/authorize")[0], &site.asked("/token")[0]);
    let same = |name: &str| assert_eq!(asked.field(name), told.field(name), "{name}");
    ["client_id", "redirect_uri", "resource"].into_iter().for_each(same);
    assert_eq!(asked.field("resource"), Some(site.url()));
    assert_eq!(asked.field("scope").as_deref(), Some("read"));
    assert_eq!(asked.field("client_id").as_deref(), Some("registered"));
    assert_eq!(told.field("code"), Some(format!("code-{MARK}")));
    assert!(told.field("code_verifier").unwrap().len() >= 43);
    assert_eq!(
        (site.asked("/register").len(), site.grants()),
        (1, vec!["authorization_code".to_owned()])
    );
}

#[test]
fn without_a_word_of_the_configuration_nobody_is_asked_for_a_token() {
    let site = Site::honest();
    let log = session(&site.url(), "", 0);
    let message = of_kind(&log, "session.error")[0].to_string();
    assert!(message.contains("it wants credentials"), "{message}");
    let others = site.asked.lock().unwrap().iter().filter(|asked| asked.place() != "/mcp").count();
    assert_eq!(others, 0);
}

#[test]
fn a_token_is_renewed_when_it_ends_and_when_it_is_taken_back() {
    let check = |site: &Site, last: usize| {
        let log = session(&site.url(), PLAIN, 2);
        assert!(results(&log).iter().all(|(failed, _)| !failed), "{log:#?}");
        let told = site.asked("/token");
        assert_eq!(site.grants(), ["authorization_code", "refresh_token"]);
        assert_eq!(told[1].field("refresh_token"), Some(format!("refresh-1-{MARK}")));
        assert_eq!(told[1].field("resource"), Some(site.url()));
        let mut calls =
            site.asked("/mcp").into_iter().filter(|asked| asked.body.contains("tools/call"));
        assert_eq!(calls.next_back().unwrap().token(), Some(&*token(last)));
    };
    let ended = Site::start(|asked, before, _| match (asked.place(), count(before, "/token")) {
        ("/token", 1) => Reply::json(&given(1, 0)),
        _ => None,
    });
    check(&ended, 2);
    let taken_back = Site::start(|asked, before, site| {
        let calls = before.iter().filter(|asked| asked.body.contains("tools/call")).count();
        let is_old = asked.token() == Some(&*token(1));
        if asked.place() == "/mcp" && calls > 0 && is_old {
            Reply::unauthorized(site)
        } else {
            None
        }
    });
    check(&taken_back, 2);
}

/// Two connections that want a token at the same time get one.
#[test]
fn one_login_is_for_all() {
    let site = Site::honest();
    let casemate = Casemate::new();
    configure(&casemate, &PLAIN.replace("URL", &site.url()));
    let servers =
        ["a", "b", "c"].map(|name| json!({"type": "url", "name": name, "url": site.url()}));
    let sets = ["a", "b", "c"].map(|name| json!({"type": "mcp_toolset", "mcp_server_name": name}));
    let model = casemate.script(&script(&[]));
    let agent = json!({"model": model, "mcp_servers": servers, "tools": sets});
    let agent = casemate.put("agent.yaml", &agent.to_string()).display().to_string();
    casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
    assert_eq!(of_kind(&casemate.log(), "internal.mcp_listed").len(), 3);
    assert_eq!((site.asked("/register").len(), site.asked("/token").len()), (1, 1));
}

/// What a login that ends in nothing says, and how often it asks.
fn refused(site: &Site, config: &str, expected: &str, most: usize) {
    let log = session(&site.url(), config, 0);
    let errors = of_kind(&log, "session.error");
    assert_eq!(errors.len(), 1, "{expected}: {errors:#?}");
    let error = &errors[0]["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(expected), "{expected}: {message}");
    assert_eq!(error["type"], "mcp_authentication_failed_error", "{message}");
    let told = site.asked("/token").len();
    assert!(told <= most, "{expected}: {told} tokens were asked for");
}

#[test]
fn metadata_that_lie_end_the_login() {
    let check = |change: fn(&str, &mut Value, &mut Value), expected: &str| {
        let site = Site::start(move |asked, _, site| {
            let mut resource =
                json!({"resource": format!("{site}/mcp"), "authorization_servers": [site]});
            let mut server = metadata(site);
            change(site, &mut resource, &mut server);
            match asked.place() {
                "/.well-known/oauth-protected-resource/mcp" => Reply::json(&resource),
                "/.well-known/oauth-authorization-server" => Reply::json(&server),
                _ => None,
            }
        });
        refused(&site, PLAIN, expected, 0);
    };
    check(
        |_, resource, _| resource["resource"] = "https://other.example/mcp".into(),
        "its metadata are of `https://other.example/mcp`",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!([]),
        "name no authorization server",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!(["http://auth.example"]),
        "it is not https",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!(["https://10.0.0.1"]),
        "a private address",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!(["https://[::1]:1"]),
        "a loopback address",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!(["https://localhost"]),
        "this machine",
    );
    check(
        |_, resource, _| resource["authorization_servers"] = json!(["file:///etc"]),
        "it is not https",
    );
    check(|_, resource, _| resource["authorization_servers"] = json!("no list"), "the metadata at");
    check(
        |_, _, server| server["issuer"] = "https://other.example".into(),
        "its metadata are of `https://other.example`",
    );
    check(
        |_, _, server| server["token_endpoint"] = "http://other.example/token".into(),
        "it is not https",
    );
    check(
        |_, _, server| server["token_endpoint"] = "https://169.254.169.254/token".into(),
        "metadata; name it",
    );
    check(
        |_, _, server| server["token_endpoint"] = "nowhere".into(),
        "`token_endpoint` of its metadata",
    );
    check(
        |_, _, server| server["code_challenge_methods_supported"] = json!(["plain"]),
        "PKCE with S256",
    );
    check(
        |_, _, server| server["registration_endpoint"] = Value::Null,
        "it registers nobody; set `client_id`",
    );
    check(
        |_, _, server| server["authorization_response_iss_parameter_supported"] = true.into(),
        "of another server (`iss`)",
    );
    check(|_, _, server| server["padding"] = "x".repeat(300_000).into(), "its answer is too large");
}

#[test]
fn servers_that_lead_astray_are_not_followed() {
    let check =
        |place: &'static str, odd: fn(&Asked) -> Option<Reply>, expected: &str, most: usize| {
            let site = Site::start(
                move |asked, _, _| if asked.place() == place { odd(asked) } else { None },
            );
            refused(&site, PLAIN, expected, most);
        };
    let of_server = "/.well-known/oauth-authorization-server";
    check(of_server, |asked| Reply::to(asked.place()), "redirects without end", 0);
    check(of_server, |_| Reply::to("http://127.0.0.1:1/"), "redirects to `http://127.0.0.1:1/`", 0);
    check("/register", |_| Reply::json(&json!({})), "its answer to a registration is none", 0);
    let code = "/authorize";
    check(code, |_| Reply::to("/authorize?again"), "redirects without end", 0);
    check(
        code,
        |_| Reply::to("https://login.example/?a=b"),
        "log in at `https://login.example/`",
        0,
    );
    check(code, |_| Reply::new("200 OK", String::new(), "<form>"), "a person has to log in at", 0);
    check(code, |_| Reply::to("http://127.0.0.1/callback?code=x&state=stolen"), "(`state`)", 0);
    check(code, |asked| Reply::to(&back(asked, "&iss=https://other.example")), "(`iss`)", 0);
    check(
        code,
        |asked| Reply::to(&back(asked, "&error=access_denied")),
        "a code (access_denied)",
        0,
    );
    check(code, |_| Reply::new("500 Oh", String::new(), ""), "for a code with HTTP 500", 0);
    let token = "/token";
    check(token, |_| Reply::new("400 Bad Request", String::new(), "no"), "token with HTTP 400", 1);
    check(token, |_| Reply::to("/elsewhere"), "for a token with HTTP 302", 1);
    check(token, |_| Reply::json(&json!({"access_token": MARK})), "for a token is none", 1);
    let quotes = |asked: &Asked| {
        let why = format!(
            "no {} {}",
            asked.field("code").unwrap(),
            asked.field("code_verifier").unwrap()
        );
        let body = json!({"error": "invalid_grant", "error_description": why});
        Reply::new("400 Bad Request", String::new(), &body.to_string())
    };
    check(token, quotes, "(invalid_grant: no [hidden] [hidden])", 1);
}

/// A server that takes no token, or wants ever more of it, is not asked for ever.
#[test]
fn endless_refusals_have_an_end() {
    let none = Site::start(
        |asked, _, site| if asked.place() == "/mcp" { Reply::unauthorized(site) } else { None },
    );
    refused(&none, PLAIN, "it does not take the token", 1);
    let more = Site::start(|asked, before, _| {
        let scope = format!("scope-{}", before.len());
        if asked.place() == "/mcp" && asked.token().is_some() {
            Reply::forbidden(&scope)
        } else {
            None
        }
    });
    refused(&more, PLAIN, "do not reach that far", 2);
    let same = Site::start(|asked, _, _| {
        if asked.place() == "/mcp" && asked.token().is_some() {
            Reply::forbidden("read")
        } else {
            None
        }
    });
    refused(&same, PLAIN, "do not reach that far", 1);
    let pinned = "[mcp.servers.\"URL\"]\noauth = { scope = 'read' }\n";
    refused(&more, pinned, "and `scope` of `oauth` is `read`", 4);
    let silent = Site::start(|asked, _, _| {
        if asked.place() == "/token" {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        None
    });
    let log = session(&silent.url(), "[mcp.servers.\"URL\"]\noauth = {}\ntimeout_seconds = 1\n", 0);
    let message = of_kind(&log, "session.error")[0].to_string();
    assert!(message.contains("did not answer within 1 s"), "{message}");
}

#[test]
fn a_server_without_metadata_is_refused_at_once() {
    let bare = Site::start(|asked, _, _| match asked.place() {
        "/mcp" => Reply::new("401 Unauthorized", String::new(), "no"),
        _ => Reply::new("200 OK", "content-type: text/html\r\n".to_owned(), "<html>"),
    });
    refused(&bare, PLAIN, "it does not say who gives tokens for it", 0);
    assert!(
        bare.asked
            .lock()
            .unwrap()
            .iter()
            .all(|asked| asked.head.starts_with("GET") || asked.place() == "/mcp")
    );
}

/// A secret goes to the host that it is for, in the way that is asked for, and is in no answer.
#[test]
fn a_secret_is_for_one_authorization_server() {
    let site = Site::honest();
    let log = session(&site.url(), WITH_SECRET, 1);
    assert!(!results(&log)[0].0, "{log:#?}");
    let told = &site.asked("/token")[0];
    assert_eq!(told.field("grant_type").as_deref(), Some("client_credentials"));
    assert!(
        told.head.contains("authorization: Basic bWU6Y2xpZW50LXNlY3JldC1sZWFrLWNoZWNrLTc3YzI="),
        "{}",
        told.head
    );
    assert!(site.asked("/register").is_empty() && site.asked("/authorize").is_empty());

    let elsewhere = || {
        Site::start(|asked, _, site| {
            let other = site.replace("127.0.0.1", "localhost");
            match asked.place() {
                "/.well-known/oauth-protected-resource/mcp" => Reply::json(
                    &json!({"resource": format!("{site}/mcp"), "authorization_servers": [other]}),
                ),
                "/.well-known/oauth-authorization-server" => Reply::json(&metadata(&other)),
                _ => None,
            }
        })
    };
    let site = elsewhere();
    let allowed = format!("[mcp]\nprivate_hosts = ['localhost:{}']\n{WITH_SECRET}", site.port);
    refused(&site, &allowed, "a secret goes to no other host than the server's", 0);
    let named = allowed
        .replace("'SECRET'", &format!("'SECRET', issuer = 'http://localhost:{}/'", site.port));
    assert!(!results(&session(&site.url(), &named, 1))[0].0);
    let other = allowed.replace("'SECRET'", "'SECRET', issuer = 'https://auth.example'");
    refused(&site, &other, "than `https://auth.example`, which `issuer` names", 1);
}

/// A token is the server's own; another place that it redirects to never sees it.
#[test]
fn a_token_is_not_taken_elsewhere() {
    let other = Site::honest();
    let place = other.url();
    let site = Site::start(move |asked, _, _| {
        let moved = format!("location: {place}\r\n");
        if asked.token().is_some() { Reply::new("307 Temporary Redirect", moved, "") } else { None }
    });
    let log = session(&site.url(), PLAIN, 0);
    let message = of_kind(&log, "session.error")[0].to_string();
    assert!(message.contains("redirects to another place"), "{message}");
    assert_eq!(site.asked("/token").len(), 1);
    assert!(other.asked.lock().unwrap().is_empty());
}

/// A server of the newest lifecycle whose tool asks its user for something first, and then says what it was told.
fn asking(question: Value) -> Site {
    Site::start(move |asked, _, _| {
        let message = asked.message();
        let result = |mut result: Value| {
            result["resultType"] = result.get("resultType").cloned().unwrap_or("complete".into());
            (result["ttlMs"], result["cacheScope"]) = (0.into(), "private".into());
            Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
        };
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => result(json!({
                "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "t", "version": "1"},
            })),
            "tools/list" => {
                result(json!({"tools": [{"name": "head", "inputSchema": {"type": "object"}}]}))
            }
            "tools/call" if params["inputResponses"].is_null() => result(json!({
                "resultType": "input_required", "requestState": "s1",
                "inputRequests": {"q": {"method": "elicitation/create", "params": question}},
            })),
            "tools/call" => {
                let told = json!([params["inputResponses"]["q"], params["requestState"]]);
                result(json!({"content": [{"type": "text", "text": told.to_string()}]}))
            }
            _ => serve(asked),
        }
    })
}

#[test]
fn a_server_s_question_has_the_answer_that_the_configuration_gives() {
    let form = |default: Value| {
        let name = json!({"type": "string", "default": default});
        let name = if default.is_null() { json!({"type": "string"}) } else { name };
        let schema = json!({"type": "object", "properties": {"name": name}, "required": ["name"]});
        json!({"mode": "form", "message": "Who?", "requestedSchema": schema})
    };
    let check = |question: Value, config: &str, declared: bool, expected: (bool, &str)| {
        let site = asking(question);
        let log = session(&site.url(), config, 1);
        assert_eq!(results(&log), [(expected.0, expected.1.to_owned())]);
        let first = site.asked("/mcp")[0].body.contains("\"elicitation\":{\"form\"");
        assert_eq!(first, declared, "{}", site.asked("/mcp")[0].body);
    };
    let defaults = "[mcp.servers.\"URL\"]\nelicitation = 'defaults'\n";
    check(
        form("John".into()),
        defaults,
        true,
        (
            false,
            "[{\"action\":\"accept\",\"content\":{\"name\":\"John\"}},\"s1\"]\n\
             [the server asked: \"Who?\"; it was answered with its own defaults: {\"name\":\"John\"}]",
        ),
    );
    check(
        form(Value::Null),
        defaults,
        true,
        (
            false,
            "[{\"action\":\"decline\"},\"s1\"]\n[the server asked: \"Who?\"; that was declined]",
        ),
    );
    let nobody = "The server asks for input before it answers, which nobody can give it here.";
    check(form("John".into()), "", false, (true, nobody));
}
