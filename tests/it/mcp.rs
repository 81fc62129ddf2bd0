//! MCP servers of every kind of temper, on this machine: what the model gets of them, what clients see, and that no session
//! is lost with them. Servers that others wrote are in `tests/mcp`.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{request, respond};
use crate::support::model::{Api, ModelServer, answer, call, text};
use crate::support::{As, Casemate, OUTCOME_UNKNOWN, write};

const TOKEN: &str = "sk-mcp-leak-check-51ab";

/// A server; it ends with the process.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    head: String,
    body: Value,
}

impl Asked {
    fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(stream, &log));
            }
        });
        Self { port, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self, method: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.method() == method).cloned().collect()
    }
}

/// One request for each connection.
fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>) {
    let Some((head, path, body)) = request(&stream) else { return };
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Asked { path, head, body };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.iter().filter(|other| other.method() == asked.method()).count()
    };
    // A client that has had enough hangs up.
    drop(say(&mut stream, &asked, before));
}

fn reply(to: &mut TcpStream, answer: &Value) -> std::io::Result<()> {
    respond(
        to,
        "200 OK",
        "content-type: application/json\r\nmcp-session-id: s1\r\n",
        answer.to_string().as_bytes(),
    )
}

fn tool(name: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    json!({"name": name, "description": format!("Does {name}."), "inputSchema": schema})
}

const TOOLS: [&str; 11] =
    ["echo", "fail", "picture", "big", "huge", "slow", "die", "lie", "odd", "secret", "change"];

fn say(to: &mut TcpStream, asked: &Asked, nth: usize) -> std::io::Result<()> {
    let result =
        |result: Value| json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result});
    let unknown = json!({"jsonrpc": "2.0", "id": asked.body["id"], "error": {"code": -32601, "message": "no such method"}});
    if !asked.head.starts_with("POST") {
        return respond(to, "405 Method Not Allowed", "", b"");
    }
    let modern = asked.path == "/modern";
    match (&*asked.path, asked.method()) {
        ("/auth", _) if !asked.head.contains(&format!("Bearer {TOKEN}")) => {
            return respond(
                to,
                "401 Unauthorized",
                "www-authenticate: Bearer realm=\"x\"\r\n",
                TOKEN.as_bytes(),
            );
        }
        ("/bare", _) => return respond(to, "401 Unauthorized", "", b"no"),
        ("/broken", _) => return respond(to, "500 Internal Server Error", "", b"oh"),
        ("/html", _) => return respond(to, "200 OK", "content-type: text/html\r\n", b"<html>"),
        ("/silent", _) => std::thread::sleep(Duration::from_secs(60)),
        ("/elsewhere", _) => {
            return respond(
                to,
                "307 Temporary Redirect",
                "location: http://127.0.0.1:1/mcp\r\n",
                b"",
            );
        }
        ("/moved", _) => return respond(to, "307 Temporary Redirect", "location: /mcp\r\n", b""),
        _ => {}
    }
    match asked.method() {
        "server/discover" if modern => reply(
            to,
            &result(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "t", "version": "1"}, "ttlMs": 0, "cacheScope": "private",
            })),
        ),
        "initialize" if !modern => reply(
            to,
            &result(json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
                "serverInfo": {"name": "t", "version": "1"},
            })),
        ),
        "tools/list" => {
            let mut tools: Vec<_> = TOOLS.iter().map(|name| tool(name)).collect();
            match &*asked.path {
                "/lists" => tools.extend([
                    json!({"name": "no_schema", "inputSchema": "a string"}),
                    json!({"name": "bad_schema", "inputSchema": {"type": "object", "properties": {"a": 7}}}),
                    json!({"name": "x".repeat(200), "inputSchema": {"type": "object"}}),
                    json!({"name": "long name with spaces", "inputSchema": {}}),
                ]),
                "/none" => tools.clear(),
                "/many" => tools.extend((0..200).map(|i| tool(&format!("tool_{i}")))),
                "/endless" => {
                    let page = json!({"tools": [tool(&format!("page_{nth}"))], "nextCursor": "more"});
                    return reply(to, &result(page));
                }
                "/nothing" => return reply(to, &result(json!({"tools": "none"}))),
                "/changing" if nth > 1 => tools.push(tool("new")),
                "/reports" => tools.push(tool("report")),
                _ => {}
            }
            reply(
                to,
                &result(
                    json!({"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}),
                ),
            )
        }
        "tools/call" => called(to, asked, &result),
        method if method.starts_with("notifications/") => respond(to, "202 Accepted", "", b""),
        // It answers whatever it is asked.
        _ if asked.path == "/lax" => reply(to, &result(json!({}))),
        _ => reply(to, &unknown),
    }
}

fn called(
    to: &mut TcpStream,
    asked: &Asked,
    result: &dyn Fn(Value) -> Value,
) -> std::io::Result<()> {
    let text =
        |text: &str| json!({"content": [{"type": "text", "text": text}], "resultType": "complete"});
    let params = &asked.body["params"];
    match params["name"].as_str().unwrap_or_default() {
        "echo" | "new" => {
            reply(to, &result(text(params["arguments"]["text"].as_str().unwrap_or("nothing"))))
        }
        "fail" => {
            let mut failed = text("it went wrong");
            failed["isError"] = true.into();
            reply(to, &result(failed))
        }
        "picture" => reply(
            to,
            &result(json!({"content": [
                {"type": "image", "mimeType": "image/png", "data": "aGkh"},
                {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            ]})),
        ),
        "big" => reply(to, &result(text(&"0123456789\n".repeat(20_000)))),
        "huge" => reply(to, &result(text(&"x".repeat(17 * 1024 * 1024)))),
        "slow" => {
            std::thread::sleep(Duration::from_secs(60));
            reply(to, &result(text("late")))
        }
        "lie" => reply(to, &result(json!({"content": "a string"}))),
        "odd" => respond(to, "200 OK", "content-type: application/json\r\n", b"{\"jsonrpc\":"),
        "secret" => reply(to, &result(text(&asked.head))),
        "change" => {
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            let body = format!("data: {changed}\n\ndata: {}\n\n", result(text("changed")));
            respond(to, "200 OK", "content-type: text/event-stream\r\n", body.as_bytes())
        }
        "report" => {
            let token = &params["_meta"]["progressToken"];
            let report = |of: &Value, done: u32, message: &str| {
                let params =
                    json!({"progressToken": of, "progress": done, "total": 10, "message": message});
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            };
            to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")?;
            let reports = [
                report(token, 3, "\u{1b}[2Jreading\n\u{202e}files"),
                report(&json!("another call"), 9, "nothing to do with it"),
            ];
            for report in reports {
                write!(to, "data: {report}\n\n")?;
            }
            std::thread::sleep(Duration::from_secs(1));
            write!(to, "data: {}\n\n", result(text("reported")))
        }
        // `die`: the connection ends without an answer.
        _ => Ok(()),
    }
}

pub(crate) fn configure(casemate: &Casemate, text: &str) {
    let place = casemate.home().join(".config/casemate");
    std::fs::create_dir_all(&place).unwrap();
    write(&place.join("config.toml"), text);
    casemate.give_to_user();
}

/// A model that makes these calls one after another, and is done.
pub(crate) fn script(calls: &[(&str, Value)]) -> String {
    let turn = |(name, input): &(&str, Value)| json!({"tool_calls": [{*name: input}]});
    let turns: Vec<_> = calls.iter().map(turn).chain([json!({"text": "done"})]).collect();
    json!({"turns": turns}).to_string()
}

/// An agent file with this server, all of whose tools are allowed.
pub(crate) fn agent(casemate: &Casemate, model: &str, server: &Value) -> String {
    let agent = json!({
        "model": model,
        "mcp_servers": [server],
        "tools": [
            {"type": "agent_toolset_20260401"},
            {"type": "mcp_toolset", "mcp_server_name": server["name"],
             "default_config": {"permission_policy": {"type": "always_allow"}}},
        ],
    });
    casemate.put("agent.yaml", &agent.to_string()).display().to_string()
}

pub(crate) fn at(url: &str) -> Value {
    json!({"type": "url", "name": "srv", "url": url})
}

/// The results of calls at servers, in their order: whether each failed, and what it says.
pub(crate) fn results(log: &[Value]) -> Vec<(bool, String)> {
    let results = log.iter().filter(|event| event["type"] == "agent.mcp_tool_result");
    let of = |event: &Value| {
        let words =
            event["content"].as_array().unwrap().iter().map(|block| match block["text"].as_str() {
                Some(text) => text.to_owned(),
                None => format!("[{}]", block["type"].as_str().unwrap()),
            });
        (event["is_error"].as_bool().unwrap(), words.collect::<Vec<_>>().join("\n"))
    };
    results.map(of).collect()
}

pub(crate) fn of_kind<'l>(log: &'l [Value], kind: &str) -> Vec<&'l Value> {
    log.iter().filter(|event| event["type"] == kind).collect()
}

#[test]
fn whatever_a_server_answers_the_session_goes_on() {
    for who in As::all() {
        for path in ["/mcp", "/modern", "/moved", "/lax"] {
            let server = Server::start();
            let casemate = Casemate::of(who);
            configure(
                &casemate,
                &format!("[mcp.servers.\"{}\"]\ntimeout_seconds = 2\n", server.url(path)),
            );
            let cases = [
                ("echo", false, "hi"),
                ("fail", true, "it went wrong"),
                ("picture", false, "[resource file:///a]\ninside\n[image]"),
                ("big", false, "all of it is in "),
                ("huge", true, "exceeded the maximum size"),
                ("lie", true, "its answer is not one of the protocol"),
                ("odd", true, "could not parse"),
                ("die", true, "its answer broke off"),
                ("slow", true, "said nothing for 2 s"),
                ("echo", false, "hi"),
            ];
            let names = cases.map(|(tool, ..)| format!("mcp__srv__{tool}"));
            let calls: Vec<_> =
                names.iter().map(|name| (name.as_str(), json!({"text": "hi"}))).collect();
            let model = casemate.script(&script(&calls));
            let agent = agent(&casemate, &model, &at(&server.url(path)));
            casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
            let log = casemate.log();
            let results = results(&log);
            assert_eq!(results.len(), cases.len(), "{log:#?}");
            for ((tool, is_error, expected), (failed, said)) in cases.iter().zip(&results) {
                assert!(failed == is_error && said.contains(expected), "{path} {tool}: {said}");
            }
            let kept = results[3].1.split("all of it is in ").nth(1).unwrap();
            assert!(kept.contains("output-"), "{kept}");
            let began = if path == "/modern" { "server/discover" } else { "initialize" };
            assert!(!server.asked(began).is_empty());
        }
    }
}

#[test]
fn how_far_a_call_is_stands_on_the_terminal_and_in_no_log() {
    let server = Server::start();
    let casemate = Casemate::new();
    let model = casemate.script(&script(&[("mcp__srv__report", json!({"text": "hi"}))]));
    let agent = agent(&casemate, &model, &at(&server.url("/reports")));
    let terminal = casemate.on_terminal(&[("NO_COLOR", "1")], &["run", "--agent", &agent, "go"]);
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    let shown = screen.split("running srv/report: ").skip(1).filter(|line| line.starts_with('3'));
    assert!(shown.count() > 0, "{screen:?}");
    assert!(!screen.contains("\u{1b}[2J") && !screen.contains('\u{202e}'), "{screen:?}");
    assert!(!screen.contains("nothing to do with it"), "{screen:?}");
    let log = casemate.log();
    assert_eq!(results(&log), [(false, "reported".to_owned())]);
    assert!(log.iter().all(|event| !event.to_string().contains("3 of 10")), "{log:?}");
}

#[test]
fn a_call_asks_and_is_answered_in_the_protocol_s_words() {
    let server = Server::start();
    let casemate = Casemate::new();
    let model = casemate.script(&script(&[("mcp__srv__echo", json!({"text": "hi"}))]));
    let file = json!({"mcpServers": {"srv": {"type": "http", "url": server.url("/mcp")}}});
    let file = casemate.put(".mcp.json", &file.to_string()).display().to_string();
    let asked = casemate.run(&["run", "--model", &model, "--mcp-config", &file, "go"]).expect(4);
    assert!(asked.stderr().contains("srv/echo"), "{asked:?}");
    assert!(asked.stderr().contains("mcp(srv/echo)"), "{asked:?}");
    assert!(server.asked("tools/call").is_empty());
    let id = casemate.only_session();
    casemate.run(&["resume", &id, "--yes"]).expect(0);
    let log = casemate.log();
    let used = of_kind(&log, "agent.mcp_tool_use")[0];
    assert_eq!(
        json!([
            used["mcp_server_name"],
            used["name"],
            used["input"],
            used["evaluated_permission"],
            used["evaluation"]
        ]),
        json!(["srv", "echo", {"text": "hi"}, "ask", {"type": "always_ask"}])
    );
    let result = of_kind(&log, "agent.mcp_tool_result")[0];
    assert_eq!((&result["mcp_tool_use_id"], &result["is_error"]), (&used["id"], &json!(false)));
    assert_eq!(server.asked("tools/call").len(), 1);
    // The program that resumed knew the tools from the log.
    assert_eq!(of_kind(&log, "internal.mcp_listed").len(), 1, "{log:#?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_the_turn_goes_on_without_it() {
    let check = |path: &str, config: &str, kind: &str, expected: &str| {
        let server = Server::start();
        let casemate = Casemate::new();
        let url = server.url(path);
        configure(&casemate, &config.replace("URL", &url));
        let model = casemate
            .script("turns:\n  - tool_calls:\n      - mcp__srv__echo: {}\n  - text: done\n");
        let agent = agent(&casemate, &model, &at(&url));
        casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
        let log = casemate.log();
        let errors = of_kind(&log, "session.error");
        let error = &errors[0]["error"];
        assert_eq!(
            (errors.len(), &error["mcp_server_name"]),
            (1, &json!("srv")),
            "{path}: {errors:#?}"
        );
        assert_eq!(
            (&error["type"], &error["retry_status"]),
            (&json!(kind), &json!({"type": "retrying"})),
            "{path}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{path}: {message}");
        let told = of_kind(&log, "agent.tool_result")[0].to_string();
        assert!(told.contains("There is no tool `mcp__srv__echo`"), "{path}: {told}");
        assert!(!format!("{log:?}").contains(TOKEN), "{path}: the token shows");
    };
    let (gone, closed) = ("mcp_connection_failed_error", "mcp_authentication_failed_error");
    check("/auth", "", closed, "it wants credentials");
    check("/auth", "[mcp.servers.\"URL\"]\nbearer_env = 'NOT_SET'\n", closed, "NOT_SET is not set");
    check("/bare", "", closed, "401");
    check("/broken", "", gone, "HTTP 500");
    check("/html", "", gone, "text/html");
    check("/elsewhere", "", gone, "it redirects to another place");
    check(
        "/silent",
        "[mcp.servers.\"URL\"]\ntimeout_seconds = 1\n",
        gone,
        "did not answer within 1 s",
    );
    check("/nothing", "", gone, "its list of tools is none");
}

#[test]
fn an_unreachable_server_is_tried_again_in_the_next_turn() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let casemate = Casemate::new();
    let model = casemate.script("turns:\n  - text: alone\n  - tool_calls:\n      - mcp__srv__echo: { text: hi }\n  - text: done\n");
    let url = format!("http://127.0.0.1:{port}/mcp");
    let agent = agent(&casemate, &model, &at(&url));
    casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let log = Arc::<Mutex<Vec<Asked>>>::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &log);
        }
    });
    let id = casemate.only_session();
    casemate.run(&["resume", &id, "again"]).expect(0);
    let log = casemate.log();
    let errors = of_kind(&log, "session.error");
    assert!(
        errors.len() == 1 && errors[0].to_string().contains("it cannot be reached"),
        "{errors:?}"
    );
    assert_eq!(results(&log), [(false, "hi".to_owned())]);
}

#[test]
fn credentials_are_said_to_their_server_and_to_nobody_else() {
    let server = Server::start();
    let casemate = Casemate::new();
    configure(
        &casemate,
        &format!("[mcp.servers.mine]\nurl = '{}'\nbearer_env = 'MCP_TOKEN'\n", server.url("/auth")),
    );
    let model = casemate.script(&script(&[("mcp__srv__secret", json!({}))]));
    let agent = agent(&casemate, &model, &at(&server.url("/auth")));
    let finished =
        casemate.run_with(&[("MCP_TOKEN", TOKEN)], &["run", "--agent", &agent, "go"]).expect(0);
    let log = casemate.log();
    let said = &results(&log)[0].1;
    assert!(said.to_lowercase().contains("authorization: [hidden]"), "{said}");
    let all = format!("{}{}{log:?}", finished.stdout(), finished.stderr());
    assert!(!all.contains(TOKEN), "the token shows");
    assert!(server.asked("tools/call")[0].head.contains(TOKEN));
}

#[test]
fn lists_that_lie_are_shown_as_far_as_they_are_true() {
    let check = |path: &str, expected: &[&str], missing: &[&str], most: usize| {
        let server = Server::start();
        let casemate = Casemate::new();
        let model = casemate.script("turns:\n  - text: done\n");
        let agent = agent(&casemate, &model, &at(&server.url(path)));
        casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
        let log = casemate.log();
        let listed = of_kind(&log, "internal.mcp_listed")[0]["tools"].as_array().unwrap();
        let names: Vec<_> = listed.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert!(names.len() <= most && names.is_sorted(), "{path}: {names:?}");
        assert!(expected.iter().all(|name| names.contains(name)), "{path}: {names:?}");
        assert!(!missing.iter().any(|name| names.contains(name)), "{path}: {names:?}");
    };
    check("/lists", &["echo", "long name with spaces"], &["no_schema", "bad_schema"], 12);
    check("/none", &[], &[], 0);
    check("/endless", &["page_1", "page_64"], &["page_65"], 64);
}

/// The tools of a turn are those that were listed when it began.
#[test]
fn tools_that_change_are_others_in_the_next_turn() {
    let server = Server::start();
    let casemate = Casemate::new();
    let call = |name: &str| json!({"tool_calls": [{name: {}}]});
    let text = |text: &str| json!({"text": text});
    let (change, new) = (call("mcp__srv__change"), call("mcp__srv__new"));
    let turns = json!({"turns": [change, new.clone(), text("one"), new, text("two")]});
    let model = casemate.script(&turns.to_string());
    let agent = agent(&casemate, &model, &at(&server.url("/changing")));
    casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
    assert_eq!(of_kind(&casemate.log(), "internal.mcp_listed").len(), 1);
    let told = of_kind(&casemate.log(), "agent.tool_result")[0].to_string();
    assert!(told.contains("There is no tool `mcp__srv__new`"), "{told}");
    let id = casemate.only_session();
    casemate.run(&["resume", &id, "again"]).expect(0);
    let log = casemate.log();
    let listed = of_kind(&log, "internal.mcp_listed");
    assert!(listed.len() == 2 && listed[1].to_string().contains("\"new\""), "{listed:#?}");
    assert_eq!(results(&log)[1], (false, "nothing".to_owned()));
}

#[test]
fn an_interrupt_ends_a_call_and_tells_the_server() {
    let server = Server::start();
    let casemate = Casemate::new();
    let model = casemate.script(&script(&[("mcp__srv__slow", json!({}))]));
    let agent = agent(&casemate, &model, &at(&server.url("/mcp")));
    let running = casemate.start(&["run", "--agent", &agent, "go"]);
    crate::support::until("the call runs", || {
        (!server.asked("tools/call").is_empty()).then_some(())
    });
    running.signal(nix::sys::signal::Signal::SIGINT);
    running.finish();
    let (failed, said) = results(&casemate.log()).remove(0);
    assert!(failed && said.contains("cancelled"), "{said}");
    assert!(!server.asked("notifications/cancelled").is_empty());
}

/// What the model is told of tools is the same in every request, also of another process; an image and an error are told.
#[test]
fn requests_begin_with_the_same_tools() {
    for api in Api::BOTH {
        let server = Server::start();
        let calls = ["picture", "fail", "echo"].map(|tool| {
            let call = call("toolu_1", &format!("mcp__srv__{tool}"), r#"{"text":"hi"}"#);
            answer(api, &[call], "tool_use")
        });
        let ends = ["one", "two"].map(|end| answer(api, &[text(end)], "end_turn"));
        let model = ModelServer::start([&calls[..], &ends[..]].concat());
        let casemate = Casemate::new();
        let agent = agent(&casemate, &format!("{}/m", api.provider()), &at(&server.url("/mcp")));
        casemate.ask(&model.url(), &["run", "--agent", &agent, "go"]).expect(0);
        casemate.ask(&model.url(), &["resume", "again"]).expect(0);
        let requests: Vec<_> = model.requests().iter().map(|request| request.json()).collect();
        assert_eq!(requests.len(), 5);
        let tools = requests[0]["tools"].to_string();
        assert!(tools.contains("mcp__srv__echo") && tools.contains("Does echo."), "{tools}");
        for request in &requests {
            assert_eq!(request["tools"].to_string(), tools);
        }
        let last = requests[4]["messages"].to_string();
        assert!(last.contains("aGkh") && last.contains("it went wrong"), "{last}");
    }
}

/// Where a server has more tools than fit a tenth of the context, the model finds them by words.
#[test]
fn too_many_tools_are_searched_for() {
    let server = Server::start();
    let casemate = Casemate::new();
    let model = casemate.script(&script(&[
        ("mcp__search", json!({"query": "tool_77"})),
        ("mcp__srv__tool_77", json!({})),
        ("mcp__search", json!({"query": "weather"})),
        ("mcp__srv__echo", json!({"text": "unseen and known"})),
    ]));
    let agent = agent(&casemate, &model, &at(&server.url("/many")));
    casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
    let log = casemate.log();
    let searched = of_kind(&log, "agent.tool_result");
    assert!(searched[0].to_string().contains("mcp__srv__tool_77: Does tool_77."), "{searched:#?}");
    assert!(searched[1].to_string().contains("No tool has to do with"), "{searched:#?}");
    let loaded = of_kind(&log, "internal.mcp_loaded");
    assert_eq!((loaded.len(), &loaded[0]["names"][0]), (1, &json!("mcp__srv__tool_77")));
    assert_eq!(results(&log)[1], (false, "unseen and known".to_owned()));
}

#[test]
fn what_cannot_be_an_agent_or_a_file_of_servers_is_named() {
    let check = |agent: Value, expected: &str| {
        let casemate = Casemate::new();
        let agent = casemate.put("agent.yaml", &agent.to_string()).display().to_string();
        let refused = casemate.run(&["run", "--agent", &agent, "go"]).expect(2);
        assert!(refused.stderr().contains(expected), "{refused:?}");
    };
    let set = |name: &str| json!({"type": "mcp_toolset", "mcp_server_name": name});
    let server = at("http://127.0.0.1:1/mcp");
    check(
        json!({"model": "x", "mcp_servers": [server]}),
        "no mcp_toolset in `tools` is of the MCP server `srv`",
    );
    check(json!({"model": "x", "tools": [set("srv")]}), "`mcp_servers` has no server `srv`");
    check(
        json!({"model": "x", "mcp_servers": [server, server], "tools": [set("srv")]}),
        "mcp_servers[1].name: `srv` has two entries",
    );
    check(
        json!({"model": "x", "mcp_servers": [server], "tools": [set("srv"), set("srv")]}),
        "the MCP server `srv` has a toolset already",
    );
    let program = json!({"type": "stdio", "name": "srv"});
    check(json!({"model": "x", "mcp_servers": [program], "tools": [set("srv")]}), "has `command`");
    let casemate = Casemate::new();
    let file = casemate
        .put("mcp.json", r#"{"mcpServers": {"a": {"url": "http://x", "headers": {"A": "b"}}}}"#);
    let refused = casemate
        .run(&["run", "--model", "x", "--mcp-config", file.to_str().unwrap(), "go"])
        .expect(2);
    assert!(refused.stderr().contains("credentials are taken from"), "{refused:?}");
}

/// What a server is told is in the log before, and a call that a crash cut is not made again.
#[test]
fn stopped_at_every_commit_no_call_is_made_twice() {
    let mut unknown = 0;
    for commit in 1.. {
        let server = Server::start();
        let casemate = Casemate::new();
        let calls = ["one", "two"].map(|text| ("mcp__srv__echo", json!({"text": text})));
        let model = casemate.script(&script(&calls));
        let agent = agent(&casemate, &model, &at(&server.url("/mcp")));
        let at = commit.to_string();
        let first =
            casemate.run_with(&[("CASEMATE_CRASH_AT", &at)], &["run", "--agent", &agent, "go"]);
        if first.code() == Some(0) {
            break;
        }
        assert!(first.was_aborted(), "at {at}: {first:?}");
        let resumed = casemate.run(&["resume", &casemate.only_session()]);
        assert!(resumed.code() == Some(0) || resumed.stderr().contains("is done"), "{resumed:?}");
        let log = casemate.log();
        let told: Vec<_> = results(&log).into_iter().map(|(_, said)| said).collect();
        let made: Vec<_> = server
            .asked("tools/call")
            .iter()
            .map(|asked| asked.body["params"]["arguments"]["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told.len(), 2, "at {at}: {told:?}");
        for (text, said) in ["one", "two"].iter().zip(&told) {
            let times = made.iter().filter(|made| made == text).count();
            let cut = said.starts_with(OUTCOME_UNKNOWN);
            assert!(times == 1 || (cut && times == 0), "at {at}: {made:?}, {told:?}");
            assert!(cut || said == text, "at {at}: {told:?}");
            unknown += usize::from(cut);
        }
        assert_eq!(of_kind(&log, "internal.mcp_listed").len(), 1, "at {at}");
        assert!(commit < 100, "the sweep does not end");
    }
    assert!(unknown > 0, "no call was ever cut");
}

/// A server in Python that needs nothing but the language: it says its name, what it sees, and what it can write.
const PROGRAM: &str = r#"
import json, os, socket, sys
def see(path):
    try:
        return open(path).read()[:20]
    except OSError as e:
        return type(e).__name__
def reach(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
        return "reached"
    except OSError as e:
        return type(e).__name__
print("a word on standard error", file=sys.stderr)
for line in sys.stdin:
    asked = json.loads(line)
    method, params = asked.get("method"), asked.get("params") or {}
    if "id" not in asked:
        continue
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "p", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("look", "note", "end")]}
    elif method == "tools/call" and params["name"] == "look":
        own = params["arguments"]
        said = {"pid": os.getpid(), "variable": os.environ.get("GREETING"), "home": see(own["secret"]), "port": reach(own["port"])}
        result = {"content": [{"type": "text", "text": json.dumps(said)}]}
    elif method == "tools/call" and params["name"] == "note":
        open("note.txt", "w").write("written")
        result = {"content": [{"type": "text", "text": os.getcwd()}]}
    elif method == "tools/call":
        sys.exit("the end")
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

#[test]
fn a_program_runs_in_the_sandbox_and_ends_with_it() {
    for who in As::all() {
        let site = Server::start();
        let casemate = Casemate::of(who);
        let secret = casemate.home().join("secret");
        write(&secret, "a secret of the user");
        let program = casemate.put("server.py", PROGRAM).display().to_string();
        let mark = format!("mark-{}", site.port);
        let server = json!({
            "type": "stdio", "name": "srv", "command": "python3", "args": [program, mark],
            "env": {"GREETING": "hello"},
        });
        let look = json!({"secret": secret, "port": site.port});
        let model = casemate.script(&script(&[
            ("mcp__srv__look", look.clone()),
            ("mcp__srv__note", json!({})),
            ("bash", json!({"command": "cat note.txt"})),
            ("mcp__srv__end", json!({})),
            ("mcp__srv__look", look),
        ]));
        let agent = agent(&casemate, &model, &server);
        casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
        let log = casemate.log();
        let results = results(&log);
        let seen: Value =
            serde_json::from_str(&results[0].1).unwrap_or_else(|_| panic!("{log:#?}"));
        assert_eq!(
            json!([seen["variable"], seen["home"], seen["port"]]),
            json!(["hello", "FileNotFoundError", "ConnectionRefusedError"])
        );
        assert_eq!(results[1], (false, casemate.workspace().display().to_string()));
        assert!(of_kind(&log, "agent.tool_result")[0].to_string().contains("written"));
        assert!(results[2].0 && results[2].1.contains("effect is unknown"), "{results:?}");
        assert!(!results[3].0, "it is started again: {results:?}");
        // What it wrote is among what can be gone back to.
        assert!(of_kind(&log, "internal.sealed").len() >= 2, "{log:#?}");
        assert!(is_gone(&mark), "a server is left");
    }
}

#[test]
fn a_program_that_does_not_start_says_why() {
    let check = |server: Value, expected: &str| {
        let casemate = Casemate::new();
        let model = casemate.script("turns:\n  - text: done\n");
        let agent = agent(&casemate, &model, &server);
        casemate.run(&["run", "--agent", &agent, "go"]).expect(0);
        let log = casemate.log();
        let message =
            of_kind(&log, "session.error")[0]["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message}");
    };
    let program = |command: &str, args: &[&str]| json!({"type": "stdio", "name": "srv", "command": command, "args": args});
    check(program("/nowhere/server", &[]), "`/nowhere/server` cannot be started: No such file");
    check(
        program("sh", &["-c", "echo no module of that name >&2; exit 1"]),
        "it printed: no module of that name",
    );
}

/// Whether no process has that word in its command line, now or soon.
fn is_gone(mark: &str) -> bool {
    let is_there = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    (0..100).any(|_| {
        let gone = !is_there();
        if !gone {
            std::thread::sleep(Duration::from_millis(50));
        }
        gone
    })
}
