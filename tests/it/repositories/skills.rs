//! Skills that a repository of a session brings: told before the first request, the same after a crash, and only where the
//! configuration trusts the repository.

use serde_json::{Value, json};

use super::{Forge, repository, session};
use crate::api::sessions::{Lab as Api, message};
use crate::support::{As, Casemate, until, write};

/// A model that makes these turns.
fn script(turns: &[Value]) -> String {
    json!({ "turns": turns }).to_string()
}

/// Turns that are told of the skill, read it, and go on with what is given.
fn reads(mut then: Value) -> [Value; 2] {
    let call = json!({ "read": { "file_path": "/mnt/session/skills/demo/SKILL.md" } });
    let told = json!({ "system_contains": "\n- demo: Does it.\n" });
    then["expect"] = json!({ "last_tool_result_contains": "WOMBAT" });
    [json!({ "expect": told, "tool_calls": [call] }), then]
}

fn done() -> Value {
    json!({ "text": "done" })
}

fn api(forge: &Forge, casemate: Casemate, who: As, script: &str, trusted: &str) -> Api {
    let config = casemate.home().join(".config/casemate/config.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    write(&config, &format!("[skills]\ntrusted = ['{trusted}']\n"));
    casemate.give_to_user();
    let model = casemate.script(script);
    let networking = json!({ "type": "limited", "allowed_hosts": ["127.0.0.1"] });
    let config = json!({ "type": "cloud", "networking": networking });
    let server = forge.lab.serve(casemate, who);
    Api::on(server, &model, &json!([{ "type": "agent_toolset_20260401" }]), &config)
}

/// The whole log, once nobody works on it.
fn log(casemate: &Casemate, session: &str) -> Vec<Value> {
    casemate.run(&["sessions", "events", session, "--internal"]).expect(0).json_lines()
}

fn results(log: &[Value]) -> Vec<&str> {
    let results = log.iter().filter(|event| event["type"] == "agent.tool_result");
    results.map(|result| result["content"][0]["text"].as_str().unwrap()).collect()
}

/// What the session was told once, before anything was asked of the model.
#[track_caller]
fn found(log: &[Value]) -> &Value {
    let at =
        |kind: &str| log.iter().position(|event| event["type"] == kind).expect("such an event");
    let found = at("internal.skills_found");
    assert!(found < at("span.model_request_start"), "{log:#?}");
    let count = log.iter().filter(|event| event["type"] == "internal.skills_found").count();
    assert_eq!(count, 1, "{log:#?}");
    &log[found]
}

#[test]
fn a_trusted_repository_brings_its_skills_before_the_first_request() {
    for who in As::all() {
        let Some(forge) = Forge::open() else { return };
        let change = "cd /mnt/session/skills; ls -A . demo; echo x 2>/dev/null >> demo/SKILL.md || echo refused; \
                      rm -r /workspace/skilled/.agents && echo gone";
        let [told, read] = reads(json!({ "tool_calls": [{ "bash": { "command": change } }] }));
        let [told_again, read_again] = reads(done());
        let script = script(&[told, read, done(), told_again, read_again]);
        let api = api(&forge, Casemate::of(who), who, &script, "http://127.0.0.1/public");
        let skilled = session(&api, &[repository("public/skilled", &json!({}))]);
        api.send(&skilled, &json!([message("go on")])).expect(200);
        api.settled(&skilled);
        // Another process has the same to say, though the repository has lost it.
        let Api { server, agent, environment } = api;
        let server = forge.lab.serve(server.stop(), who);
        let api = Api { server, agent, environment };
        api.send(&skilled, &json!([message("and once more")])).expect(200);
        api.settled(&skilled);
        let casemate = api.server.stop();
        let log = log(&casemate, &skilled);
        let results = results(&log);
        assert_eq!(results.len(), 3, "{log:#?}");
        assert!(results[0].contains("WOMBAT") && results[2] == results[0], "{results:?}");
        assert_eq!(results[1].trim(), ".:\ndemo\n\ndemo:\nSKILL.md\nrefused\ngone");
        let found = found(&log);
        let skill = &found["skills"][0];
        assert_eq!(found["skills"].as_array().unwrap().len(), 1, "{found}");
        let from = "http://127.0.0.1/public/skilled /workspace/skilled/.agents/skills/demo";
        assert_eq!((&skill["name"], &skill["from"]), (&json!("demo"), &json!(from)));
        let passed_over = found["passed_over"].as_array().unwrap();
        assert_eq!(passed_over.len(), 2, "{found}");
        let broken = "/workspace/skilled/.agents/skills/broken/SKILL.md: description: is missing";
        assert!(passed_over[0].as_str().unwrap().starts_with(broken), "{found}");
        let taken =
            "/workspace/skilled/.claude/skills/demo: another skill of the session is called `demo`";
        assert_eq!(passed_over[1], taken);
    }
}

#[test]
fn a_repository_that_nobody_trusts_brings_none() {
    let Some(forge) = Forge::open() else { return };
    let look =
        json!({ "tool_calls": [{ "bash": { "command": "ls -A /mnt/session; ls /workspace" } }] });
    let script = script(&[look, done()]);
    let api = api(&forge, Casemate::new(), As::Me, &script, "http://127.0.0.1/other");
    let skilled = session(&api, &[repository("public/skilled", &json!({}))]);
    api.send(&skilled, &json!([message("go on")])).expect(200);
    api.settled(&skilled);
    let log = log(&api.server.stop(), &skilled);
    assert_eq!(results(&log)[0].trim(), "outputs\nuploads\nskilled");
    assert!(log.iter().all(|event| event["type"] != "internal.skills_found"), "{log:#?}");
}

/// The first request waits for what the repository brings; where it cannot be had, nothing is brought and the turn goes on.
#[test]
fn a_repository_that_is_not_there_brings_its_skills_when_it_comes() {
    let Some(forge) = Forge::open() else { return };
    let [told, read] = reads(done());
    let script = script(&[done(), told, read]);
    let api = api(&forge, Casemate::new(), As::Me, &script, "http://127.0.0.1/private");
    let place = forge.dir.path().join("git");
    std::fs::rename(place.join("public/skilled.git"), place.join("private/later.git")).unwrap();
    let later = session(&api, &[repository("private/later", &json!({}))]);
    api.send(&later, &json!([message("go on")])).expect(200);
    api.settled(&later);
    super::rotate(&api, &later, super::TOKEN).expect(200);
    let Api { server, agent, environment } = api;
    let api = Api { server: forge.lab.serve(server.stop(), As::Me), agent, environment };
    api.send(&later, &json!([message("go on")])).expect(200);
    api.settled(&later);
    let log = log(&api.server.stop(), &later);
    assert!(results(&log)[0].contains("WOMBAT"), "{log:#?}");
}

#[test]
fn stopped_at_every_commit_a_session_has_the_same_skills() {
    let Some(forge) = Forge::open() else { return };
    let script = script(&reads(done()));
    let mut expected = None;
    let mut stops = 0;
    for commit in 1.. {
        assert!(commit < 60, "the sweep does not end");
        let phases = [format!("{commit}:before"), commit.to_string()];
        let stopped = phases.map(|at| story(&forge, &script, &at, &mut expected));
        stops += stopped.iter().filter(|stopped| **stopped).count();
        if stopped == [false, false] {
            break;
        }
    }
    assert!(stops > 10, "{stops} stops");
}

/// Whether a server stopped at that commit; what its session was told and has read is the same in either case.
fn story(forge: &Forge, script: &str, at: &str, expected: &mut Option<(Value, String)>) -> bool {
    let api = api(forge, Casemate::new(), As::Me, script, "http://127.0.0.1/public");
    let Api { server, agent, environment } = api;
    let server = forge.lab.serve_until(server.stop(), As::Me, Some(at));
    let body = json!({
        "agent": agent, "environment_id": environment, "initial_events": [message("go on")],
        "resources": [repository("public/skilled", &json!({}))],
    });
    let key = format!("Bearer {}", server.key);
    let ask = |method: &str, path: &str, body: &str| {
        server.attempt(method, path, &[("authorization", key.as_str())], body.as_bytes())
    };
    let made = ask("POST", "/v1/sessions", &body.to_string()).is_some();
    let whole = made
        && until("the end or a crash", || match ask("GET", "/v1/sessions", "") {
            None => Some(false),
            Some(reply) => (reply.json()["data"][0]["status"] == "idle").then_some(true),
        });
    let casemate = server.crashed(!whole);
    let server = forge.lab.serve(casemate, As::Me);
    let all = server.get("/v1/sessions").expect(200);
    let Some(session) = all["data"][0]["id"].as_str().map(str::to_owned) else { return true };
    let api = Api { server, agent, environment };
    api.settled(&session);
    let log = log(&api.server.stop(), &session);
    let mut told = found(&log).clone();
    for varies in ["id", "session_id", "seq", "created_at", "processed_at"] {
        told.as_object_mut().unwrap().remove(varies);
    }
    let last = log.last().unwrap();
    assert_eq!(last["stop_reason"]["type"], "end_turn", "at {at}: {log:#?}");
    let has = (told, results(&log)[0].to_owned());
    let expected = expected.get_or_insert_with(|| has.clone());
    assert_eq!(has, *expected, "at {at}");
    !whole
}
