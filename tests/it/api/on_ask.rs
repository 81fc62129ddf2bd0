//! `on_ask` of a session, an extension: calls that ask do not wait for a client that may never come.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Server;
use super::sessions::{Lab, id, message};
use crate::cli::unattended::webhook;
use crate::support::{As, until};

const TURNS: &str = r#"{tool_calls: [{bash: {command: "echo ran"}}]}, {text: Done., repeat: 9}"#;

fn lab() -> Lab {
    let asks = json!({ "permission_policy": { "type": "always_ask" } });
    Lab::of(As::Me, TURNS, &json!([{ "type": "agent_toolset_20260401", "default_config": asks }]))
}

/// A session that is told to go at once, with that `on_ask`.
fn go(lab: &Lab, on_ask: &str) -> String {
    let more = json!({ "initial_events": [message("go")], "on_ask": on_ask });
    id(&lab.create(&more).expect(200))
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn result(lab: &Lab, session: &str) -> (bool, String) {
    let events = lab.once(session, "agent.tool_result");
    let result = of(&events, "agent.tool_result")[0];
    (
        result["is_error"].as_bool().unwrap(),
        result["content"][0]["text"].as_str().unwrap().to_owned(),
    )
}

fn ended(lab: &Lab, session: &str, reason: &str) -> Vec<Value> {
    until(reason, || {
        let events = lab.events(session);
        let last = of(&events, "session.status_idle").pop().cloned();
        last.is_some_and(|idle| idle["stop_reason"]["type"] == reason).then_some(events)
    })
}

#[test]
fn a_call_that_asks_is_denied_or_ends_its_turn_without_a_pause() {
    let lab = lab();
    let session = go(&lab, "deny");
    let events = ended(&lab, &session, "end_turn");
    let (is_error, said) = result(&lab, &session);
    assert!(is_error && said.contains("nobody is there who could be asked"), "{said}");
    assert_eq!(of(&events, "agent.tool_use")[0]["evaluated_permission"], "ask");
    assert_eq!(of(&events, "session.status_idle").len(), 1, "it never waits");

    let session = go(&lab, "fail");
    let events = ended(&lab, &session, "retries_exhausted");
    let error = &of(&events, "session.error")[0]["error"];
    let said = error["message"].as_str().unwrap();
    assert!(said.contains(r#"bash {"command":"echo ran"}"#), "it says which: {said}");
    lab.send(&session, &json!([message("go on")])).expect(200);
    ended(&lab, &session, "end_turn");
}

#[test]
fn a_client_has_so_long_to_answer_and_a_restart_gives_it_no_more() {
    let mut lab = lab();
    let session = go(&lab, "wait=1s");
    let events = ended(&lab, &session, "end_turn");
    let confirmed = of(&events, "user.tool_confirmation")[0];
    assert_eq!(confirmed["result"], "deny");
    assert!(result(&lab, &session).1.contains("nobody answered within 1 s"));

    let session = go(&lab, "wait=1h");
    let waits = ended(&lab, &session, "requires_action");
    let call = &of(&waits, "agent.tool_use")[0]["id"];
    let allow = json!({ "type": "user.tool_confirmation", "tool_use_id": call, "result": "allow" });
    lab.send(&session, &json!([allow])).expect(200);
    ended(&lab, &session, "end_turn");
    assert_eq!(result(&lab, &session), (false, "ran".to_owned()));

    let session = go(&lab, "wait=3s");
    ended(&lab, &session, "requires_action");
    lab.server = Server::of(lab.server.end(Signal::SIGKILL), &[]);
    ended(&lab, &session, "end_turn");
    assert!(result(&lab, &session).0);

    let session = go(&lab, "wait=1h");
    ended(&lab, &session, "requires_action");
    assert_eq!(lab.server.ask("DELETE", &format!("/v1/sessions/{session}"), None).status, 200);
}

#[test]
fn a_webhook_answers_for_a_client_and_denies_if_it_does_not() {
    let lab = lab();
    let (url, asked) = webhook(|question| {
        let call = &question["calls"][0]["event_id"];
        json!({"answers": [{"event_id": call, "result": "allow"}]})
    });
    let session = go(&lab, &format!("webhook={url}"));
    ended(&lab, &session, "end_turn");
    assert_eq!(result(&lab, &session), (false, "ran".to_owned()));
    assert_eq!(asked.join().unwrap()["session_id"], session.as_str());

    let (url, asked) = webhook(|_| json!({"answers": []}));
    let session = go(&lab, &format!("webhook={url}"));
    ended(&lab, &session, "end_turn");
    let (is_error, said) = result(&lab, &session);
    assert!(is_error && said.contains("whoever should have been asked did not answer"), "{said}");
    asked.join().unwrap();
}

#[test]
fn a_session_shows_its_on_ask_if_it_has_one() {
    let lab = lab();
    let shown = |on_ask: &Value| {
        let session = lab.create(&json!({ "on_ask": on_ask })).expect(200);
        let again = lab.server.get(&format!("/v1/sessions/{}", id(&session))).expect(200);
        assert_eq!(session["on_ask"], again["on_ask"]);
        session.get("on_ask").cloned()
    };
    let check = |given: &str, expected: &str| {
        assert_eq!(shown(&json!(given)), Some(json!(expected)), "{given}");
    };
    check("deny", "deny");
    check("wait=2m", "wait=120s");
    check("webhook=https://a.example/x", "webhook=https://a.example/x");
    // Clients of the protocol see no field that they do not know.
    assert_eq!(shown(&Value::Null), None);
}

#[test]
fn what_is_no_on_ask_is_named() {
    let lab = lab();
    for (given, words) in [
        (json!("maybe"), "on_ask: it is deny, fail, wait=DURATION or webhook=URL"),
        (json!("wait=2d"), "on_ask: `2d` is no time"),
        (json!("webhook=ftp://a"), "on_ask: a webhook begins with http:// or https://"),
        (json!(7), "on_ask: "),
    ] {
        let (status, _, said) = lab.create(&json!({ "on_ask": given })).error();
        assert!(status == 400 && said.contains(words), "{given}: {said}");
    }
}
