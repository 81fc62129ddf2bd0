//! A provider that is to hold its model to calls that fit their tools: what it is asked, byte for byte, and what is made of
//! its answers; a summary, a refusal, and a server that holds its model to nothing.

use serde_json::{Value, json};

use super::requests::calls;
use crate::support::model::{Api, ModelServer, Part, Reply, answer, text};
use crate::support::story::{assert_whole, told};
use crate::support::{Casemate, Finished, write};

/// Runs the program with a provider `mine` at the server.
fn ask(casemate: &Casemate, server: &ModelServer, args: &[&str]) -> Finished {
    let config = casemate.home().join("config.toml");
    let provider = "[providers.mine]\napi = 'openai'\nconstrain_calls = true\n";
    write(&config, &format!("model = 'mine/m'\n{provider}base_url = '{}'\n", server.url()));
    let config = config.to_str().unwrap();
    casemate.run(&[&args[..1], &["--config", config], &args[1..]].concat())
}

/// The answer with its parts as a list of JSON, and thoughts as the server sends them.
fn listed(parts: &[Part]) -> Reply {
    let listed = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(json!({ "text": text }).to_string()),
        Part::Call { name, arguments, .. } => {
            Some(format!("{{\"name\": {}, \"arguments\": {arguments}}}", json!(name)))
        }
        Part::Thinking { .. } | Part::Redacted(_) => None,
    });
    let listed: Vec<_> = listed.collect();
    let thoughts = parts.iter().filter(|part| matches!(part, Part::Thinking { .. })).cloned();
    let said = match &listed[..] {
        [one] => text(one),
        several => text(&format!("[{}]", several.join(", "))),
    };
    answer(Api::OpenAi, &thoughts.chain([said]).collect::<Vec<_>>(), "end_turn")
}

#[test]
fn each_request_begins_with_the_bytes_of_the_one_before_and_its_answer_runs() {
    const TURNS: usize = 40;
    let mut replies: Vec<_> = (0..TURNS).map(|turn| listed(&calls(turn))).collect();
    replies[TURNS / 2] = listed(&[text("Half of it.")]);
    replies.push(listed(&[text("Done.")]));
    let server = ModelServer::start(replies);
    let casemate = Casemate::new();
    ask(&casemate, &server, &["run", "--max-turns", "300", "do it"]).expect(0);
    ask(&casemate, &server, &["resume", "and the rest"]).expect(0);
    let requests = server.requests();
    assert_eq!(requests.len(), TURNS + 1);
    for (n, pair) in requests.windows(2).enumerate() {
        let before = pair[0].body.strip_suffix(b"]}").expect("the messages come last");
        assert!(pair[1].body.starts_with(before), "request {n} is no prefix of the next");
    }
    let log = casemate.log();
    assert_whole(&log);
    let calls = log.iter().filter(|event| event["type"] == "agent.tool_use").count();
    assert_eq!(calls, 4 * (2 + 2 + 3 + 2 + 2 + 2 + 1 + 1 + 1 + 1) - 2, "{}", told(&log));

    let body = requests[TURNS].json();
    assert_eq!(body.get("tools"), None);
    assert_eq!(body["response_format"]["json_schema"]["strict"], true);
    let messages = body["messages"].as_array().unwrap();
    let system = messages[0]["content"].as_str().unwrap();
    assert!(system.contains("{\"name\": \"bash\", \"description\": "), "{system}");
    assert!(messages.iter().all(|message| message.get("tool_calls").is_none()));
    let roles = messages.iter().map(|message| message["role"].as_str().unwrap());
    assert!(roles.into_iter().all(|role| ["system", "user", "assistant"].contains(&role)));
    // What the model said is said again as it had to say it.
    let said = messages.iter().filter(|message| message["role"] == "assistant");
    for message in said {
        let parsed = serde_json::from_str::<Value>(message["content"].as_str().unwrap());
        assert!(parsed.is_ok(), "{message}");
    }
    let results = messages.iter().filter_map(|message| message["content"].as_str());
    assert!(results.into_iter().any(|text| text.starts_with("<tool_response>\n")), "{messages:?}");
}

#[test]
fn a_server_that_holds_its_model_to_nothing_is_understood_as_ever() {
    let call = r#"{"command": "echo made > it"}"#;
    let bare = format!("```json\n{{\"name\": \"bash\", \"arguments\": {call}}}\n```");
    let one = |part: Part, stop: &str| answer(Api::OpenAi, &[part], stop);
    let native = crate::support::model::call("t1", "bash", r#"{"command": "echo more >> it"}"#);
    let server = ModelServer::start(vec![
        one(text(&bare), "end_turn"),
        one(native, "tool_use"),
        one(text("All is made."), "end_turn"),
    ]);
    let casemate = Casemate::new();
    let finished = ask(&casemate, &server, &["run", "do it"]).expect(0);
    assert!(finished.stdout().contains("All is made."), "{finished:?}");
    let made = std::fs::read_to_string(casemate.workspace().join("it")).unwrap();
    assert_eq!(made, "made\nmore\n");
}

#[test]
fn a_call_that_was_cut_does_not_run() {
    let cut =
        text(r#"[{"text": "I make it."}, {"name": "bash", "arguments": {"command": "touch it"}"#);
    let server = ModelServer::start(vec![
        answer(Api::OpenAi, &[cut], "max_tokens"),
        listed(&[text("Done.")]),
    ]);
    let casemate = Casemate::new();
    ask(&casemate, &server, &["run", "do it"]).expect(0);
    assert!(!casemate.workspace().join("it").exists());
    let told = told(&casemate.log());
    assert!(told.contains("says: I make it.") && told.contains("cut by the token limit"), "{told}");
}

#[test]
fn a_server_that_takes_no_schema_is_named_with_the_setting() {
    let refusal = r#"{"error": {"message": "response_format is not supported."}}"#;
    let server = ModelServer::start(vec![Reply::status("400 Bad Request", "", refusal)]);
    let casemate = Casemate::new();
    let finished = ask(&casemate, &server, &["run", "do it"]);
    let said = finished.stderr();
    assert_eq!(server.requests().len(), 1, "asking the same again does not help");
    let told = "mine answered 400: response_format is not supported; if it is `response_format` that it does not take, \
                leave `constrain_calls` out of [providers.mine]";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_summary_is_asked_for_without_tools_and_without_a_schema() {
    let summary = "## Task\nDo it.\n## State\nNothing is known.";
    let server = ModelServer::start(vec![
        listed(&[text("Begun.")]),
        answer(Api::OpenAi, &[text(summary)], "end_turn"),
        listed(&[text("Done.")]),
    ]);
    let casemate = Casemate::new();
    ask(&casemate, &server, &["run", "do it"]).expect(0);
    let id = casemate.only_session();
    ask(&casemate, &server, &["compact", &id]).expect(0);
    ask(&casemate, &server, &["resume", "go on"]).expect(0);
    let bodies: Vec<_> = server.requests().iter().map(|request| request.json()).collect();
    let has = |n: usize, key: &str| bodies[n].get(key).is_some();
    assert_eq!([0, 1, 2].map(|n| has(n, "response_format")), [true, false, true]);
    assert!(!bodies[1].to_string().contains("# Tools"), "{}", bodies[1]);
    assert!(bodies[2].to_string().contains("Nothing is known."), "{}", bodies[2]);
}
