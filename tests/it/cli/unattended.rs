//! Work that nobody watches: permission rules of the agent file and the config file, and what `--on-ask` makes of a question.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::{events, of_type};
use crate::support::{As, Casemate, write};

const SCRIPT: &str = r#"
turns:
  - tool_calls:
      - bash: { command: "echo one && echo two" }
      - bash: { command: "rm -f x; echo three" }
      - bash: { command: "touch four" }
  - text: Done.
    repeat: 9
"#;

/// `echo` runs, `rm` is denied, all else asks.
const AGENT: &str = "tools:\n  - type: agent_toolset_20260401\n    \
                     default_config: { permission_policy: { type: always_ask } }\n\
                     permissions:\n  allow: ['bash(echo *)']\n";
const CONFIG: &str = "[permissions]\ndeny = ['bash(rm *)']\n";

/// What was judged of each call, and what it came to; the exit code.
fn run(who: As, flags: &[&str]) -> (Casemate, crate::support::Finished, Vec<(String, String)>) {
    let casemate = Casemate::of(who);
    let model = casemate.script(SCRIPT);
    let config = casemate.home().join("config.toml");
    write(&config, CONFIG);
    casemate.put("agent.yaml", AGENT);
    let config = config.to_str().unwrap();
    let args = ["run", "--config", config, "-m", &model, "--agent", "agent.yaml"];
    let finished = casemate.run(&[&args[..], flags, &["go"]].concat());
    let log = events(&casemate);
    let results = of_type(&log, "agent.tool_result");
    let result = |call: &Value| {
        let mut found = results.iter().filter(|result| result["tool_use_id"] == call["id"]);
        let text = found.next().map(|result| result["content"][0]["text"].as_str().unwrap_or(""));
        text.unwrap_or("none").trim().to_owned()
    };
    let judged = |call: &Value| call["evaluated_permission"].as_str().unwrap().to_owned();
    let calls = of_type(&log, "agent.tool_use");
    let told = calls.iter().map(|call| (judged(call), result(call))).collect();
    (casemate, finished, told)
}

fn told(pairs: [(&str, &str); 3]) -> Vec<(String, String)> {
    pairs.map(|(judged, result)| (judged.to_owned(), result.to_owned())).into()
}

const RAN: (&str, &str) = ("allow", "one\ntwo");
const DENIED: (&str, &str) =
    ("deny", "The rule `bash(rm *)` denies this call. Do not try it another way.");

#[test]
fn rules_run_what_they_allow_and_refuse_what_they_deny_and_the_rest_ends_the_run() {
    for flags in [&[][..], &["--on-ask", "fail"], &["--on-ask", "wait=1h"]] {
        for who in As::all() {
            let (casemate, finished, calls) = run(who, flags);
            let finished = finished.expect(4);
            assert_eq!(calls, told([RAN, DENIED, ("ask", "none")]), "{flags:?}");
            let log = events(&casemate);
            let last = log.last().unwrap();
            let call = &of_type(&log, "agent.tool_use")[2]["id"];
            assert_eq!(
                last["stop_reason"],
                json!({"type": "requires_action", "event_ids": [call]})
            );
            let said = finished.stderr();
            for words in [call.as_str().unwrap(), r#"permissions.allow = ["bash(touch four)"]"#] {
                assert!(said.contains(words), "{words}: {said}");
            }
            assert!(!casemate.workspace().join("four").exists());
        }
    }
}

#[test]
fn a_question_that_nobody_is_there_for_can_be_denied() {
    let (casemate, finished, calls) = run(As::Me, &["--on-ask", "deny"]);
    assert_eq!(finished.expect(0).stdout(), "Done.\n");
    let nobody = "The user did not allow this call: nobody is there who could be asked; go on without this call";
    assert_eq!(calls, told([RAN, DENIED, ("ask", nobody)]));
    assert!(!casemate.workspace().join("four").exists());
}

/// Answers one question over HTTP with what `reply` makes of it, and gives the question back.
pub(crate) fn webhook(reply: fn(&Value) -> Value) -> (String, JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ask", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_lowercase();
            if let Some(given) = lower.strip_prefix("content-length:") {
                length = given.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let answer = reply(&question).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        socket.write_all(format!("{head}{answer}").as_bytes()).unwrap();
        question
    });
    (url, thread)
}

#[test]
fn a_webhook_is_asked_and_its_answer_counts() {
    let allow = |question: &Value| {
        let call = &question["calls"][0]["event_id"];
        json!({"answers": [{"event_id": call, "result": "allow"}]})
    };
    let (url, asked) = webhook(allow);
    let (casemate, finished, calls) = run(As::Me, &["--on-ask", &format!("webhook={url}")]);
    finished.expect(0);
    assert_eq!((&calls[..2], &calls[2].0[..]), (&told([RAN, DENIED, RAN])[..2], "ask"));
    assert!(casemate.workspace().join("four").exists(), "it was allowed");
    let question = asked.join().unwrap();
    assert_eq!(question["session_id"], casemate.only_session());
    let call = &question["calls"][0];
    assert_eq!(
        (&call["name"], &call["input"], &call["rules"]),
        (&json!("bash"), &json!({"command": "touch four"}), &json!(["bash(touch four)"]))
    );
}

#[test]
fn a_webhook_that_does_not_decide_leaves_the_question_open() {
    let (nothing, asked) = webhook(|_| json!({"answers": []}));
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    for (url, words) in [(nothing, "says nothing of sevt_"), (gone, "did not decide")] {
        let (casemate, finished, calls) = run(As::Me, &["--on-ask", &format!("webhook={url}")]);
        let finished = finished.expect(4);
        assert!(finished.stderr().contains(words), "{}", finished.stderr());
        assert_eq!(calls[2], ("ask".to_owned(), "none".to_owned()));
        casemate.run(&["resume", "--yes"]).expect(0);
        assert!(casemate.workspace().join("four").exists(), "the session is usable");
    }
    asked.join().unwrap();
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let casemate = Casemate::new();
    let model = casemate.script("turns: [{ text: Never. }]\n");
    let check = |agent: &str, config: &str, flags: &[&str], words: &str| {
        casemate.put("agent.yaml", agent);
        let path = casemate.home().join("config.toml");
        write(&path, config);
        let args = ["run", "--config", path.to_str().unwrap(), "-m", &model];
        let args = [&args[..], &["--agent", "agent.yaml"], flags, &["go"]].concat();
        let said = casemate.run(&args).expect(2).stderr();
        assert!(said.contains(words), "{words}: {said}");
    };
    check(
        "permissions: { deny: [ls, 'bash(x'] }",
        "",
        &[],
        "permissions.deny[0]: `ls`: there are no rules for `ls`",
    );
    check("permissions: { dney: [] }", "", &[], "dney");
    check(
        "{}",
        "[permissions]\nask = ['read(../x)']",
        &[],
        "permissions.ask[0]: `read(../x)`: the path must be whole",
    );
    check("{}", "[[windows]]\nmatch = '*'\ntokens = 9", &[], "must be at least 512");
    check("{}", "", &["--on-ask", "maybe"], "it is deny, fail, wait=DURATION or webhook=URL");
    check("{}", "", &["--on-ask", "wait=soon"], "`soon` is no time such as 90s, 10m or 2h");
    check("{}", "", &["--on-ask", "webhook=ftp://x"], "a webhook begins with http:// or https://");
}

#[test]
fn a_stored_session_is_compacted_on_request() {
    let casemate = Casemate::new();
    let summaries =
        "summaries: [{ text: 'Task: say hello and then wait for what the user says next.' }]";
    let turns = "{ expect: { conversation_contains: PELICAN }, text: It is PELICAN. }";
    let model = casemate.script(&format!("turns: [{{ text: Hello. }}, {turns}]\n{summaries}\n"));
    casemate.run(&["run", "-m", &model, "The word is PELICAN."]).expect(0);
    let id = casemate.only_session();
    let said = casemate.run(&["compact", &id]).expect(0);
    assert!(said.stderr().contains("· context compacted: about "), "{said:?}");
    let log = casemate.run(&["sessions", "events", &id]).expect(0).json_lines();
    assert_eq!(of_type(&log, "agent.thread_context_compacted").len(), 1, "clients see it");
    let again = casemate.run(&["compact", &id]).expect(2);
    assert!(again.stderr().contains("has nothing to compact"), "{again:?}");
    assert_eq!(casemate.run(&["resume", "which?"]).expect(0).stdout(), "It is PELICAN.\n");
}
