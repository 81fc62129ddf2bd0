//! What a session asks its model, byte for byte, over many requests: the stable prefix, the marks for the cache, what is
//! carried back, the key in its place; which server a model id leads to; and a session of a thousand calls.

use std::io::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::model::{
    Api, KEY, ModelServer, Part, Reply, Request, answer, call, env_for, text,
};
use crate::support::story::assert_whole;
use crate::support::{As, Casemate, Finished, PDF, peak_until_the_end, write};

const SIGNATURE: &str = "EuYBCkQYAiJA+/z0==\u{e9}☃ \\\"quoted\\\"";

/// A conversation with every kind of block: thoughts, parallel calls, a failure, a second message of the user's.
fn conversation(api: Api, who: As) -> (Casemate, Vec<Request>) {
    let seal = || SIGNATURE.to_owned();
    let thinking = Part::Thinking { text: "Let me\n\nthink ☃.".into(), signature: seal() };
    let two = [
        thinking,
        Part::Redacted("b3BhcXVl+/==".into()),
        text("Two files.\n"),
        call("t1", "write", r#"{"file_path":"a","content":"1\n"}"#),
        call("t2", "read", r#"{"file_path":"missing"}"#),
    ];
    let one = [
        Part::Thinking { text: String::new(), signature: seal() },
        call("t1", "read", r#"{ "file_path" : "a" }"#),
    ];
    let replies = vec![
        answer(api, &two, "tool_use"),
        answer(api, &one, "tool_use"),
        answer(api, &[text("Done.")], "end_turn"),
        answer(api, &[text("Again.")], "end_turn"),
    ];
    let server = ModelServer::start(replies);
    let casemate = Casemate::of(who);
    let model = format!("{}/m", api.provider());
    casemate.ask(&server.url(), &["run", "-m", &model, "do it"]).expect(0);
    // Another process goes on: the prefix must come out of the log as it went in.
    casemate.ask(&server.url(), &["resume", "and again"]).expect(0);
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    (casemate, requests)
}

/// Takes the marks for the cache away, which move and are no part of the prefix, and counts them.
fn without_marks(value: &mut Value) -> usize {
    match value {
        Value::Object(map) => {
            let here = usize::from(map.shift_remove("cache_control").is_some());
            here + map.values_mut().map(without_marks).sum::<usize>()
        }
        Value::Array(list) => list.iter_mut().map(without_marks).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The messages of a request as JSON text, one each.
fn messages(body: &Value) -> Vec<String> {
    body["messages"].as_array().unwrap().iter().map(Value::to_string).collect()
}

#[test]
fn every_request_begins_with_the_bytes_of_the_one_before() {
    for (api, who) in
        Api::BOTH.into_iter().flat_map(|api| As::all().into_iter().map(move |who| (api, who)))
    {
        let (_casemate, requests) = conversation(api, who);
        let mut bodies: Vec<_> = requests.iter().map(Request::json).collect();
        let marks: Vec<_> = bodies.iter_mut().map(without_marks).collect();
        let expected: &[usize] = if api == Api::Anthropic { &[2, 3, 3, 3] } else { &[0; 4] };
        assert_eq!(marks, expected, "{api:?}");
        for pair in bodies.windows(2) {
            let (before, after) = (messages(&pair[0]), messages(&pair[1]));
            assert!(before.len() < after.len(), "{api:?}: nothing was added");
            assert_eq!(before[..], after[..before.len()], "{api:?}: the prefix changed");
            for field in ["system", "tools", "model"] {
                assert_eq!(pair[0][field].to_string(), pair[1][field].to_string(), "{field}");
            }
        }
        for pair in requests.windows(2).filter(|_| api == Api::OpenAi) {
            // Nothing moves in this format: the whole request but its closing brackets is a prefix of the next.
            let prefix = pair[0].body.strip_suffix(b"]}").expect("the messages come last");
            assert!(pair[1].body.starts_with(prefix), "the prefix changed");
        }
        for body in &bodies {
            for sampling in ["temperature", "top_p", "top_k"] {
                assert_eq!(body.get(sampling), None, "{api:?} sends {sampling}");
            }
        }
    }
}

/// The calls of one turn: by turns each tool, alone and together, well and badly.
pub(super) fn calls(turn: usize) -> Vec<Part> {
    let call = |name: &str, input: Value| call(&format!("t{turn}"), name, &input.to_string());
    let bash =
        || call("bash", json!({"command": format!("echo \"{turn} ☃\\t'\\\\\" | tee -a log")}));
    let read = |file: &str| call("read", json!({"file_path": file}));
    let edit = |old: &str| {
        call(
            "edit",
            json!({"file_path": "a", "old_string": old, "new_string": format!("n{turn}\n")}),
        )
    };
    match turn % 10 {
        0 => vec![
            call("write", json!({"content": format!("é{turn}\n"), "file_path": "a"})),
            read("a"),
        ],
        1 => vec![text("Ünder \"way\".\n"), edit(&format!("é{}\n", turn - 1)), edit("nowhere")],
        2 => vec![read("image.png"), read("page.pdf"), read("missing")],
        3 => {
            vec![call("glob", json!({"pattern": "**/*"})), call("grep", json!({"pattern": "n\\d"}))]
        }
        4 => vec![bash(), bash()],
        5 => vec![call("no such tool!", json!({"x": turn})), bash()],
        6 => vec![self::call("t", "bash", "{\"command\": [}")],
        7 => vec![
            Part::Thinking { text: "Hm ☃\n".into(), signature: SIGNATURE.into() },
            Part::Redacted("b3BhcXVl+/==".into()),
            bash(),
        ],
        8 => {
            vec![Part::Thinking { text: "Sealed.".into(), signature: SIGNATURE.into() }, read("a")]
        }
        _ => vec![text(""), call("bash", json!({"command": format!("exit {}", turn % 7 + 1)}))],
    }
}

/// The bytes of a request up to where its messages end, without the marks for the cache, and where those were.
fn said(request: &Request) -> (Vec<u8>, Vec<usize>) {
    const MARK: &[u8] = br#","cache_control":{"type":"ephemeral"}"#;
    let mut rest = request.body.strip_suffix(b"]}").expect("the messages come last");
    let (mut plain, mut marks) = (Vec::new(), Vec::new());
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        plain.extend_from_slice(&rest[..at]);
        marks.push(plain.len());
        rest = &rest[at + MARK.len()..];
    }
    plain.extend_from_slice(rest);
    (plain, marks)
}

/// Also over a request that failed, and with a process that takes the session over from another in the middle.
#[test]
fn two_hundred_requests_each_begin_with_the_bytes_of_the_one_before() {
    const TURNS: usize = 200;
    let check = |api: Api| {
        let mut replies: Vec<_> =
            (0..TURNS).map(|turn| answer(api, &calls(turn), "tool_use")).collect();
        replies[TURNS / 2] = answer(api, &[text("Half of it.")], "end_turn");
        replies.insert(TURNS / 4, Reply::status("529 Overloaded", "", "not now"));
        replies.push(answer(api, &[text("Done.")], "end_turn"));
        let server = ModelServer::start(replies);
        let casemate = Casemate::new();
        std::fs::File::create(casemate.workspace().join("image.png"))
            .and_then(|mut file| file.write_all(b"\x89PNG\r\n\x1a\nrest"))
            .unwrap();
        casemate.put("page.pdf", PDF);
        let model = format!("{}/m", api.provider());
        casemate
            .ask(&server.url(), &["run", "--max-turns", "300", "-m", &model, "do it"])
            .expect(0);
        casemate.ask(&server.url(), &["resume", "and the rest"]).expect(0);
        let requests: Vec<_> = server.requests().iter().map(said).collect();
        assert_eq!(requests.len(), TURNS + 2);
        for (n, pair) in requests.windows(2).enumerate() {
            let [(before, written), (after, read)] = pair else { unreachable!("a pair is two") };
            assert!(after.starts_with(before), "{api:?}: request {n} is no prefix of the next");
            if api == Api::OpenAi {
                assert!(read.is_empty(), "{n}: {read:?}");
                continue;
            }
            // The system's, the last request's end and this one's; two of them are one where a request was repeated.
            assert_eq!(read.len(), 3, "{n}: {read:?}");
            let ends = [written.last(), read.last()].map(|end| end.expect("a mark"));
            assert!(
                read.contains(ends[0]),
                "{n}: what was written at {written:?}, read at {read:?}"
            );
            assert_eq!(*ends[1], after.len() - b"}]}".len(), "{n}: the end is not marked");
        }
    };
    std::thread::scope(|scope| {
        for api in Api::BOTH {
            scope.spawn(move || check(api));
        }
    });
}

/// The vendors' own servers are given the file; one that takes no documents, its text.
#[test]
fn a_pdf_is_given_as_the_model_takes_it() {
    for api in Api::BOTH {
        let read = call("c1", "read", r#"{"file_path": "page.pdf"}"#);
        let replies =
            vec![answer(api, &[read], "tool_use"), answer(api, &[text("Done.")], "end_turn")];
        let server = ModelServer::start(replies);
        let casemate = Casemate::new();
        casemate.put("page.pdf", PDF);
        let model = format!("{}/m", api.provider());
        casemate.ask(&server.url(), &["run", "-m", &model, "read it"]).expect(0);
        let request = server.requests().last().unwrap().json();
        let result = request["messages"].as_array().unwrap().last().unwrap();
        match api {
            Api::Anthropic => {
                let block = &result["content"][0]["content"][0];
                assert_eq!(block["source"]["media_type"], "application/pdf", "{result}");
            }
            Api::OpenAi => {
                assert_eq!(result["role"], "tool");
                assert_eq!(result["content"], "The river rose.", "{result}");
            }
        }
    }
}

/// The marks are where the last request wrote, and where the next one reads.
#[test]
fn the_cache_is_read_where_the_request_before_wrote_it() {
    let (_casemate, requests) = conversation(Api::Anthropic, As::Me);
    let mut written: Vec<String> = Vec::new();
    for request in &requests {
        let body = request.json();
        assert_eq!(body["system"][0]["cache_control"], json!({"type": "ephemeral"}));
        let mut marked = Vec::new();
        for message in body["messages"].as_array().unwrap() {
            for block in message["content"].as_array().unwrap() {
                let mut plain = block.clone();
                if without_marks(&mut plain) > 0 {
                    assert_eq!(message["role"], "user", "{block}");
                    marked.push(plain.to_string());
                }
            }
        }
        if let Some(last) = written.last() {
            assert!(marked.contains(last), "the end of the last request is not marked: {marked:?}");
        }
        written = marked;
    }
}

#[test]
fn thoughts_are_carried_back_byte_for_byte() {
    let (_casemate, requests) = conversation(Api::Anthropic, As::Me);
    let first = &requests[3].json()["messages"][1]["content"];
    let expected = [
        json!({"type": "thinking", "thinking": "Let me\n\nthink ☃.", "signature": SIGNATURE}),
        json!({"type": "redacted_thinking", "data": "b3BhcXVl+/=="}),
        json!({"type": "text", "text": "Two files.\n"}),
    ];
    assert_eq!(first.as_array().unwrap()[..3], expected);
    let second = &requests[3].json()["messages"][3]["content"][0];
    assert_eq!(*second, json!({"type": "thinking", "thinking": "", "signature": SIGNATURE}));
}

#[test]
fn the_key_is_in_one_header_and_nowhere_else() {
    for (api, header) in [(Api::Anthropic, "x-api-key: "), (Api::OpenAi, "authorization: Bearer ")]
    {
        let (_casemate, requests) = conversation(api, As::Me);
        for request in requests {
            assert!(request.head.contains(&format!("{header}{KEY}\r\n")), "{}", request.head);
            assert_eq!(request.head.matches(KEY).count(), 1, "{}", request.head);
            assert!(!String::from_utf8_lossy(&request.body).contains(KEY), "the body has the key");
        }
    }
}

/// Every call of the conversation has an id of its own, and its result names it.
#[test]
fn repeated_ids_do_not_reach_the_next_request() {
    let (_casemate, requests) = conversation(Api::OpenAi, As::Me);
    let body = requests[3].json();
    let messages = body["messages"].as_array().unwrap();
    let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let called: Vec<_> = calls.map(|call| call["id"].clone()).collect();
    let tools = messages.iter().filter(|message| message["role"] == "tool");
    let answered: Vec<_> = tools.map(|message| message["tool_call_id"].clone()).collect();
    assert_eq!(called, answered);
    let mut unique: Vec<_> = called.iter().map(Value::to_string).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 3);
}

const CONFIG: &str = r#"
[providers.mine]
api = "openai"
base_url = "URL/v1"

[providers.theirs]
api = "anthropic"
base_url = "URL"
api_key_env = "THEIR_KEY"

[[routes]]
match = "claude-*"
to = "theirs/big"

[[routes]]
match = "gpt-*"
to = "mine"
"#;

#[test]
fn routes_lead_where_they_say() {
    let (chat, messages) = ("POST /v1/chat/completions", "POST /v1/messages");
    for (model, flags, expected) in [
        ("claude-x", &["--route", "claude-*=mine/small"][..], Ok((chat, "small", ""))),
        ("claude-x", &["--route", "fast=mine/small"], Ok((messages, "big", "x-api-key: "))),
        ("fast", &["--route", "fast=theirs/quick"], Ok((messages, "quick", "x-api-key: "))),
        ("gpt-9", &[], Ok((chat, "gpt-9", ""))),
        ("mine/org/model:8b", &[], Ok((chat, "org/model:8b", ""))),
        ("theirs/claude-x", &[], Ok((messages, "claude-x", "x-api-key: "))),
        ("openai/claude-x", &[], Ok((chat, "claude-x", "authorization: Bearer "))),
        ("anthropic/gpt-9", &["--route", "*=mine"], Ok((messages, "gpt-9", "x-api-key: "))),
        ("llama9", &[], Err("no provider is known for the model `llama9`")),
        ("fast", &["--route", "fast=nowhere/x"], Err("which is none of the providers")),
        ("fast", &["--route", "fast"], Err("--route")),
    ] {
        let casemate = Casemate::new();
        let api = match expected {
            Ok((path, ..)) if path == messages => Api::Anthropic,
            _ => Api::OpenAi,
        };
        let server = ModelServer::start(vec![answer(api, &[text("Good.")], "end_turn")]);
        let config = casemate.home().join("config.toml");
        write(&config, &CONFIG.replace("URL", &server.url()));
        let mut command = casemate.command();
        command.envs(env_for(&server.url())).env("THEIR_KEY", KEY).args(["run", "--config"]);
        let output = command.arg(&config).args(["-m", model]).args(flags).arg("do it").output();
        let finished = Finished::of(output.unwrap());
        let requests = server.requests();
        match expected {
            Ok((path, name, key)) => {
                finished.expect(0);
                let [request] = &requests[..] else {
                    panic!("{model}: {} requests", requests.len())
                };
                assert!(request.head.starts_with(path), "{model}: {}", request.head);
                assert_eq!(request.json()["model"], name);
                let has_key = request.head.contains(&format!("{key}{KEY}"));
                assert_eq!(has_key, !key.is_empty(), "{model}: {}", request.head);
            }
            Err(words) => {
                let finished = finished.expect(2);
                assert!(finished.stderr().contains(words), "{model}: {finished:?}");
                assert!(requests.is_empty(), "{model} was asked for");
            }
        }
    }
}

/// A session of so many calls, each with a result of its own; the peak of the program's resident memory in KiB.
fn peak_of(calls: usize) -> u64 {
    let casemate = Casemate::new();
    let script = format!(
        r#"
turns:
  - repeat: {calls}
    tool_calls:
      - bash: {{ command: "echo call {{n}} >> log; echo {{n}}" }}
  - text: Done.
"#
    );
    let model = casemate.script(&script);
    let mut command = casemate.command();
    command.args(["run", "--quiet", "--max-turns", "2000", "-m", &model, "count"]);
    let (ended, peak) = peak_until_the_end(&mut command);
    assert!(ended.success(), "{ended}");
    let events = casemate.log();
    assert_whole(&events);
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let said = results.map(|result| result["content"][0]["text"].as_str().unwrap().trim());
    let expected: Vec<_> = (1..=calls).map(|n| n.to_string()).collect();
    assert_eq!(said.collect::<Vec<_>>(), expected);
    let written = std::fs::read_to_string(casemate.workspace().join("log")).unwrap();
    assert_eq!(written.lines().count(), calls);
    peak
}

#[test]
fn a_thousand_calls_take_no_more_memory_than_a_hundred() {
    let begun = Instant::now();
    let (hundred, thousand) = (peak_of(100), peak_of(1000));
    println!("peak: {hundred} KiB at 100 calls, {thousand} KiB at 1000, {:?}", begun.elapsed());
    // What a thousand calls say is 100 KiB; the conversation is in memory, its history is not.
    assert!(hundred > 0 && thousand < hundred + 8 * 1024, "{hundred} KiB, then {thousand} KiB");
}

#[test]
fn an_address_that_is_none_is_refused_at_once() {
    for (url, model) in [("localhost:8080", "openai/m"), ("http//h", "anthropic/m")] {
        let casemate = Casemate::new();
        let finished = casemate.ask(url, &["run", "-m", model, "do it"]).expect(2);
        let said = finished.stderr();
        assert!(said.contains("its base URL is no URL that begins with http://"), "{said}");
        assert_eq!(casemate.sessions(), [""; 0], "a session that can never work");
    }
}
