//! Sessions over the protocol: how they begin, change, are listed and end, and what they see of this machine.
//! (Checklist of the protocol: 51–69.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Server;
use crate::support::{As, Casemate, until};

/// A turn that nobody waits for to end by itself.
pub(crate) const ENDLESS: &str = "{delay_ms: 3600000, text: never}";

/// A server whose agent follows a script.
pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) agent: String,
    pub(crate) environment: String,
}

impl Lab {
    /// One whose model answers with these turns and has no tools.
    pub(crate) fn new(turns: &str) -> Self {
        Self::of(As::Me, turns, &json!([]))
    }

    pub(crate) fn of(who: As, turns: &str, tools: &Value) -> Self {
        let casemate = Casemate::of(who);
        let model = casemate.script(&format!("turns: [{turns}]"));
        let server = Server::of(casemate, &[]);
        Self::on(server, &model, tools, &json!({ "type": "cloud" }))
    }

    /// One on that server, with an environment of that configuration.
    pub(crate) fn on(server: Server, model: &str, tools: &Value, config: &Value) -> Self {
        let agent = json!({ "name": "tester", "model": model, "tools": tools });
        let agent = id(&server.post("/v1/agents", &agent).expect(200));
        let environment = json!({ "name": "e", "config": config });
        let environment = id(&server.post("/v1/environments", &environment).expect(200));
        Self { server, agent, environment }
    }

    /// A session that is told this at once, or nothing.
    pub(crate) fn session(&self, told: &[&str]) -> String {
        let events: Vec<_> = told.iter().map(|text| message(text)).collect();
        id(&self.create(&json!({ "initial_events": events })).expect(200))
    }

    /// A request for a session with these fields more.
    pub(crate) fn create(&self, more: &Value) -> super::server::Reply {
        let mut body = json!({ "agent": self.agent, "environment_id": self.environment });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.server.post("/v1/sessions", &body)
    }

    pub(crate) fn get(&self, session: &str) -> Value {
        self.server.get(&format!("/v1/sessions/{session}")).expect(200)
    }

    /// All events as they are listed.
    pub(crate) fn events(&self, session: &str) -> Vec<Value> {
        let reply = self.server.get(&format!("/v1/sessions/{session}/events?limit=1000"));
        reply.expect(200)["data"].as_array().unwrap().clone()
    }

    pub(crate) fn send(&self, session: &str, events: &Value) -> super::server::Reply {
        let body = json!({ "events": events });
        self.server.post(&format!("/v1/sessions/{session}/events"), &body)
    }

    /// The events once one of that kind is among them.
    pub(crate) fn once(&self, session: &str, kind: &str) -> Vec<Value> {
        until(kind, || {
            let events = self.events(session);
            events.iter().any(|event| event["type"] == kind).then_some(events)
        })
    }

    /// The session once it rests.
    pub(crate) fn settled(&self, session: &str) -> Value {
        until("the session's rest", || {
            let session = self.get(session);
            (session["status"] == "idle").then_some(session)
        })
    }
}

pub(crate) fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}")).to_owned()
}

pub(crate) fn message(text: &str) -> Value {
    json!({ "type": "user.message", "content": [{ "type": "text", "text": text }] })
}

pub(crate) fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

// 52, 69
#[test]
fn a_session_is_shown_whole() {
    let lab = Lab::new("{text: hello, usage: {output_tokens: 3}}");
    let more = json!({ "title": "a title", "metadata": { "a": "b" } });
    let created = lab.create(&more).expect(200);
    let shown = lab.get(&id(&created));
    let at = created["created_at"].as_str().unwrap();
    assert!(at.ends_with('Z') && at.len() == "2026-01-31T12:00:00.000Z".len(), "{at}");
    let mut expected = json!({
        "type": "session", "id": created["id"], "status": "idle", "title": "a title",
        "agent": created["agent"], "environment_id": lab.environment, "resources": [],
        "vault_ids": [], "metadata": { "a": "b" }, "outcome_evaluations": [], "budget": null,
        "deployment_id": null, "created_at": at, "updated_at": at, "archived_at": null,
        "usage": {
            "input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0,
            "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
            "list_cost": { "amount": "0", "currency": "USD" }, "active_seconds": 0.0,
            "server_tool_use": { "web_search_requests": 0, "web_fetch_requests": 0 },
        },
    });
    assert!(shown["stats"]["duration_seconds"].as_f64().unwrap() >= 0.0);
    expected["stats"] = shown["stats"].clone();
    assert_eq!(shown, expected);
    assert_eq!(shown["agent"]["id"], json!(lab.agent));
    let running = lab.create(&json!({ "initial_events": [message("go")] })).expect(200);
    assert_eq!(running["status"], "running");
    assert_eq!(lab.settled(&id(&running))["usage"]["output_tokens"], 3);
}

// 54, 55, 57, 61, 138
#[test]
fn a_session_that_is_refused_does_not_exist() {
    let lab = Lab::new("{text: hello}");
    let outcome = json!({ "type": "user.define_outcome", "description": "x",
        "rubric": { "type": "text", "content": "y" } });
    let budget = |amount: &str| {
        json!({ "budget": { "type": "limit",
            "max_list_cost": { "amount": amount, "currency": "USD" } } })
    };
    for (more, expected) in [
        (json!({ "agent": "agent_unknown" }), "there is no agent `agent_unknown`"),
        (
            json!({ "agent": { "type": "agent_with_overrides", "id": lab.agent, "model": null } }),
            "agent.model: ",
        ),
        (json!({ "environment_id": 7 }), "environment_id: must be a string, not a number"),
        (json!({ "title": ["x"] }), "title: must be a string, not an array"),
        (json!({ "metadata": { "a": 1 } }), "metadata"),
        (json!({ "unknown": 1 }), "unknown: Extra inputs are not permitted"),
        (
            json!({ "initial_events": vec![message("x"); 51] }),
            "initial_events: must have at most 50 entries; it has 51",
        ),
        (
            json!({ "initial_events": [message("x"), { "type": "user.interrupt" }] }),
            "initial_events[1]: a session begins with",
        ),
        (
            json!({ "initial_events": [{ "type": "system.message", "content": [] }] }),
            "initial_events[0]: a session begins with",
        ),
        (
            json!({ "initial_events": [outcome] }),
            "initial_events[0].type: outcomes are not supported",
        ),
        (
            json!({ "initial_events": [message("x"), { "type": "user.message" }] }),
            "initial_events[1].content: Field required",
        ),
        (json!({ "resources": [{ "type": "memory_store" }] }), "resources[0].type: memory stores"),
        (json!({ "vault_ids": ["vlt_x"] }), "vault_ids: "),
        (budget("25.00"), "budget: "),
        (budget("0"), "budget: "),
        (budget("-1"), "budget: "),
        (budget("007"), "budget: "),
        (json!({ "budget": { "type": "limit" } }), "budget.max_list_cost: Field required"),
    ] {
        let reply = lab.create(&more);
        let (status, _, told) = reply.error();
        assert!(matches!(status, 400 | 404), "{more}: {told}");
        assert!(told.starts_with(expected), "{more}: {told}");
    }
    assert_eq!(lab.server.get("/v1/sessions").expect(200)["data"], json!([]));
}

// 59, 60, 61
#[test]
fn a_change_is_an_event_and_no_change_is_none() {
    let lab = Lab::new(ENDLESS);
    let session = lab.session(&[]);
    let path = format!("/v1/sessions/{session}");
    let update = |body: Value| lab.server.post(&path, &body);
    let last = || {
        let mut event = lab.events(&session).pop().unwrap();
        for name in ["id", "processed_at"] {
            assert!(event.as_object_mut().unwrap().shift_remove(name).is_some());
        }
        event
    };
    for (body, expected) in [
        (json!({ "title": "one" }), json!({ "type": "session.updated", "title": "one" })),
        (
            json!({ "metadata": { "a": "b", "c": "d" } }),
            json!({ "type": "session.updated", "metadata": { "a": "b", "c": "d" } }),
        ),
        (
            json!({ "metadata": { "a": null } }),
            json!({ "type": "session.updated", "metadata": { "c": "d" } }),
        ),
        (json!({ "title": null }), json!({ "type": "session.updated", "title": null })),
    ] {
        update(body.clone()).expect(200);
        assert_eq!(last(), expected, "{body}");
        let count = lab.events(&session).len();
        update(body).expect(200);
        assert_eq!(lab.events(&session).len(), count);
    }
    update(json!({})).expect(200);
    let (status, _, told) = update(json!({ "vault_ids": [] })).error();
    assert_eq!((status, told.as_str()), (400, "vault_ids: cannot be changed"));
    update(json!({ "agent": { "tools": [{ "type": "agent_toolset_20260401" }] } })).expect(200);
    assert_eq!(last()["agent"]["tools"][0]["type"], "agent_toolset_20260401");
    lab.send(&session, &json!([message("go")])).expect(200);
    let (status, _, told) = update(json!({ "agent": { "tools": [] } })).error();
    assert_eq!(status, 400, "{told}");
}

// 62, 63, 64
#[test]
fn lists_are_walked_both_ways() {
    let lab = Lab::new("{text: hello}");
    let made: Vec<_> = (0..5).map(|_| lab.session(&[])).collect();
    let newest: Vec<_> = made.iter().rev().cloned().collect();
    let page = |query: &str| lab.server.get(&format!("/v1/sessions?{query}")).expect(200);
    let ids = |page: &Value| page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>();
    for (order, expected) in [("", &newest), ("&order=desc", &newest), ("&order=asc", &made)] {
        let first = page(&format!("limit=2{order}"));
        assert_eq!((ids(&first), &first["prev_page"]), (expected[..2].to_vec(), &Value::Null));
        let follow = |from: &Value, side: &str| {
            page(&format!("limit=2{order}&page={}", from[side].as_str().unwrap()))
        };
        let second = follow(&first, "next_page");
        assert_eq!(ids(&second), expected[2..4]);
        let third = follow(&second, "next_page");
        assert_eq!((ids(&third), &third["next_page"]), (expected[4..].to_vec(), &Value::Null));
        let back = follow(&third, "prev_page");
        assert_eq!(ids(&back), ids(&second));
        assert_eq!(ids(&follow(&back, "prev_page")), expected[..2]);
    }
    let cursor = page("limit=2")["next_page"].as_str().unwrap().to_owned();
    for query in [
        format!("order=asc&page={cursor}"),
        format!("created_at[lt]=2020-01-01T00:00:00Z&page={cursor}"),
        "page=page_x".to_owned(),
        "agent_version=1".to_owned(),
        "statuses[]=busy".to_owned(),
        "order=up".to_owned(),
        "limit=101".to_owned(),
    ] {
        assert_eq!(lab.server.get(&format!("/v1/sessions?{query}")).error().0, 400, "{query}");
    }
    let agent = &lab.agent;
    for (query, count) in [
        (format!("agent_id={agent}"), 5),
        (format!("agent_id={agent}&agent_version=1&statuses[]=idle&statuses[]=running"), 5),
        (format!("agent_id={agent}&agent_version=2"), 0),
        ("agent_id=agent_other".to_owned(), 0),
        ("statuses=running".to_owned(), 0),
        ("deployment_id=depl_x".to_owned(), 0),
        ("memory_store_id=memstore_x".to_owned(), 0),
        ("created_at[gt]=2020-01-01T00:00:00".to_owned(), 5),
    ] {
        assert_eq!(ids(&page(&query)).len(), count, "{query}");
    }
}

// 65, 66, 67
#[test]
fn a_session_ends_only_at_rest() {
    let lab = Lab::new(ENDLESS);
    let session = lab.session(&["go"]);
    let path = format!("/v1/sessions/{session}");
    lab.once(&session, "span.model_request_start");
    for reply in [
        lab.server.post(&format!("{path}/archive"), &json!({})),
        lab.server.ask("DELETE", &path, None),
    ] {
        assert_eq!(reply.error().0, 400);
    }
    lab.send(&session, &json!([{ "type": "user.interrupt" }])).expect(200);
    lab.settled(&session);
    let archived = lab.server.post(&format!("{path}/archive"), &json!({})).expect(200);
    assert_eq!(archived["status"], "terminated");
    assert!(archived["archived_at"].is_string());
    assert_eq!(kinds(&lab.events(&session)).pop(), Some("session.status_terminated"));
    assert_eq!(lab.send(&session, &json!([message("more")])).error().0, 400);
    assert_eq!(lab.server.get("/v1/sessions").expect(200)["data"], json!([]));
    let all = lab.server.get("/v1/sessions?include_archived=true").expect(200);
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
    let deleted = lab.server.ask("DELETE", &path, None).expect(200);
    assert_eq!(deleted, json!({ "id": session, "type": "session_deleted" }));
    for path in [path.clone(), format!("{path}/events"), format!("{path}/threads")] {
        assert_eq!(lab.server.get(&path).error().0, 404, "{path}");
    }
}

#[test]
fn a_session_sees_its_own_files_and_no_others() {
    for who in As::all() {
        let look = "cd /workspace && touch mine && ls -A && touch /mnt/session/outputs/result && \
                    ls /mnt/session/outputs && ! touch /mnt/session/uploads/x 2>/dev/null && \
                    ls /home && pwd";
        let turn = json!({ "tool_calls": [{ "name": "bash", "input": { "command": look } }] });
        let turns = format!("{turn}, {{text: done}}");
        let lab = Lab::of(who, &turns, &json!([{ "type": "agent_toolset_20260401" }]));
        let secret = lab.server.casemate.put("secret", "of the user");
        assert!(secret.exists());
        let session = lab.session(&["go"]);
        lab.settled(&session);
        let events = lab.events(&session);
        let result = events.iter().find(|event| event["type"] == "agent.tool_result");
        let result = result.unwrap_or_else(|| panic!("{who:?}: {events:?}"));
        assert_eq!(result["is_error"], false, "{who:?}: {result}");
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(text.trim(), "mine\nresult\nagent\n/workspace", "{who:?}");
    }
}

/// In which mount namespaces besides its own what a process has started is, and how many of them.
fn mount_namespaces(process: u32) -> BTreeMap<PathBuf, usize> {
    let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
    let (host, mut found) = (of(process).unwrap(), BTreeMap::new());
    let mut family = vec![process];
    while let Some(pid) = family.pop() {
        // One that has ended meanwhile has none.
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
            let children = std::fs::read_to_string(thread.unwrap().path().join("children"));
            let children = children.unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        if let Some(other) = of(pid).ok().filter(|namespace| *namespace != host) {
            *found.entry(other).or_default() += 1;
        }
    }
    found
}

/// The second and third sandbox of a host are forked ahead of their order, the first is not.
#[test]
fn a_sandbox_that_was_forked_ahead_has_the_walls_of_every_other() {
    let look = "{ grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status; hostname; ulimit -Hu; \
                cut -d: -f1 /proc/net/dev; cat /proc/sys/user/max_user_namespaces; ls -A /proc | grep -vx '[0-9]*'; \
                cut -d' ' -f5- /proc/self/mountinfo | sed 's/ - .*//; s/master:[0-9]*//' | sort; \
                for file in /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/hostname /.x; do echo 1 >$file; echo $?; done; } 2>/dev/null; \
                echo; readlink /proc/self/ns/{user,mnt,pid,net,ipc,uts,cgroup}";
    for who in As::all() {
        let turn = json!({ "tool_calls": [{ "name": "bash", "input": { "command": look } }] });
        let turns = format!("{turn}, {{text: done}}");
        let lab = Lab::of(who, &turns, &json!([{ "type": "agent_toolset_20260401" }]));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let session = lab.session(&["go"]);
            lab.settled(&session);
            let events = lab.events(&session);
            let result = events.iter().find(|event| event["type"] == "agent.tool_result");
            let result = result.unwrap_or_else(|| panic!("{who:?}: {events:?}"));
            let text = result["content"][0]["text"].as_str().unwrap();
            let (walls, namespaces) = text.split_once("\n\n").unwrap();
            let namespaces: Vec<_> = namespaces.trim().lines().map(str::to_owned).collect();
            let lab_own = format!("/proc/{}/ns", lab.server.pid());
            for namespace in &namespaces {
                let kind = namespace.split(':').next().unwrap();
                let host = std::fs::read_link(format!("{lab_own}/{kind}")).unwrap();
                assert_ne!(Path::new(namespace), host, "{who:?}");
            }
            assert_eq!(namespaces.len(), 7, "{who:?}: {text}");
            seen.push((walls.to_owned(), namespaces));
        }
        // An outer process is where its guest is: a copy of the host's mounts would keep each of them in use. One guest waits.
        let shared = mount_namespaces(lab.server.pid()).into_values().filter(|number| *number > 1);
        assert_eq!(shared.count(), 3, "{who:?}");
        let [first, rest @ ..] = &seen[..] else { unreachable!("there are three") };
        for other in rest {
            assert_eq!(first.0, other.0, "{who:?}");
            assert!(!first.1.iter().any(|namespace| other.1.contains(namespace)), "{who:?}");
        }
    }
}

/// A user has 128 watchers of files in the kernel. As root each session is another user, also one whose sandbox was there
/// before its user was known.
#[test]
fn what_sessions_of_root_hoard_is_not_roots() {
    let hoard = "import ctypes, time; made = sum(ctypes.CDLL(None).inotify_init() >= 0 for _ in range(60)); \
                 print(made, flush=True); time.sleep(60)";
    let command =
        format!("(python3 -c '{hoard}' >made &); until [ -s made ]; do sleep 0.1; done; cat made");
    let turn = json!({ "tool_calls": [{ "name": "bash", "input": { "command": command } }] });
    let tools = json!([{ "type": "agent_toolset_20260401" }]);
    let lab = Lab::of(As::Me, &format!("{turn}, {{text: done}}"), &tools);
    for number in 0..5 {
        let session = lab.session(&["go"]);
        lab.settled(&session);
        let events = lab.events(&session);
        let result = events.iter().find(|event| event["type"] == "agent.tool_result").unwrap();
        // Where the tests are an ordinary user's, all are his.
        if number == 0 || nix::unistd::geteuid().is_root() {
            assert_eq!(result["content"][0]["text"].as_str().unwrap().trim(), "60", "{number}");
        }
        // The next is forked ahead meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn what_a_server_left_running_goes_on_by_itself() {
    let lab = Lab::new("{delay_ms: 1000, text: hello}");
    let session = lab.session(&["go"]);
    lab.once(&session, "span.model_request_start");
    let Lab { server, agent, environment } = lab;
    let server = Server::of(server.stop(), &[]);
    let lab = Lab { server, agent, environment };
    lab.settled(&session);
    assert!(kinds(&lab.events(&session)).contains(&"agent.message"));
}

#[test]
fn what_a_client_asked_for_is_done_also_if_it_leaves() {
    let lab = Lab::new("{text: hello}");
    let body = json!({
        "agent": lab.agent, "environment_id": lab.environment, "initial_events": [message("go")],
    });
    let body = body.to_string();
    let request = format!(
        "POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        lab.server.key,
        body.len()
    );
    let ids = || {
        let sessions = lab.server.get("/v1/sessions").expect(200);
        sessions["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    for n in 1..=8 {
        let mut stream = std::net::TcpStream::connect(&lab.server.address).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        // It leaves as soon as there is something that could be left half done.
        until("the session", || (ids().len() == n).then_some(()));
    }
    for session in ids() {
        lab.once(&session, "session.status_idle");
    }
}

#[test]
fn who_rests_for_long_is_let_go_and_goes_on_all_the_same() {
    let lab = Lab::new("{text: hello, repeat: 2}");
    let session = lab.session(&["go"]);
    lab.settled(&session);
    let driven = |count: u32| {
        let line = format!("\ncasemate_sessions_driven {count}\n");
        lab.server.get("/metrics").body.contains(&line)
    };
    assert!(driven(1));
    // Half a minute, and nobody has to watch.
    until("the driver's end", || driven(0).then_some(()));
    lab.send(&session, &json!([message("and now?")])).expect(200);
    until("the second answer", || {
        let events = lab.events(&session);
        let answers = kinds(&events).into_iter().filter(|kind| *kind == "agent.message").count();
        (answers == 2).then_some(())
    });
    lab.settled(&session);
}
