//! The program against a model server that fails in every way that servers fail: what it tells, what it asks next,
//! and that the session goes on afterwards. Waits of minutes are tested beside the client, in `provider/http/tests.rs`.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::support::model::{
    Api, KEY, ModelServer, Part, Reply, answer, body, call, env_for, text,
};
use crate::support::story::{assert_whole, told};
use crate::support::{Casemate, peak_until_the_end};

/// What the server does, and what its fault is called.
struct Case {
    name: &'static str,
    api: Api,
    replies: Vec<Reply>,
}

fn good(api: Api) -> Reply {
    answer(api, &[text("Good.")], "end_turn")
}

/// A run of the program against these replies; a run that failed is resumed, and must then succeed.
fn story(case: &Case) -> String {
    let casemate = Casemate::new();
    let mut replies = case.replies.clone();
    replies.push(good(case.api));
    let server = ModelServer::start(replies);
    let model = format!("{}/m", case.api.provider());
    let finished = casemate.ask(&server.url(), &["run", "-m", &model, "do it"]);
    let asked = server.requests().len();
    assert_eq!(asked, case.replies.len(), "{}: {finished:?}", case.name);
    let events = casemate.log();
    assert_whole(&events);
    let code = finished.code().expect("it ended by itself");
    let outcome = format!("{} over {:?}: exit {code}\n{}", case.name, case.api, told(&events));
    if code != 0 {
        let id = casemate.only_session();
        casemate.ask(&server.url(), &["resume", &id]).expect(0);
        let events = casemate.log();
        assert_whole(&events);
        assert!(told(&events).ends_with("says: Good.\n  idle: end_turn\n"), "{}", told(&events));
    }
    assert_no_key_below(&casemate.home());
    let workspace = casemate.workspace().display().to_string();
    outcome.replace(&server.url(), "URL").replace(&workspace, "WORK")
}

fn assert_no_key_below(dir: &Path) {
    let mut files = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
                assert!(!found, "{} holds the key", path.display());
            }
        }
    }
    assert!(files > 0, "no database below {}", dir.display());
}

/// All stories in order, told at the same time: most of each is waiting.
fn stories(cases: &[Case]) -> String {
    std::thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| scope.spawn(|| story(case))).collect();
        let join = |case: std::thread::ScopedJoinHandle<'_, String>| {
            case.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(join).collect()
    })
}

fn cases(of: impl Fn(Api) -> Vec<(&'static str, Vec<Reply>)>) -> Vec<Case> {
    let of_api = |api| of(api).into_iter().map(move |(name, replies)| Case { name, api, replies });
    Api::BOTH.into_iter().flat_map(of_api).collect()
}

const OVERLOADED: &str =
    r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;

#[test]
fn what_passes_is_tried_again() {
    let again = |api| {
        let failing = |status: &str, body: &str| vec![Reply::status(status, "", body), good(api)];
        vec![
            ("429", failing("429 Too Many Requests", "slow down")),
            ("408", failing("408 Request Timeout", "")),
            ("409", failing("409 Conflict", "busy")),
            ("500", failing("500 Internal Server Error", r#"{"error":{"message":"oops"}}"#)),
            ("502", failing("502 Bad Gateway", "<html><h1>Bad Gateway</h1></html>")),
            ("529", failing("529 Overloaded", OVERLOADED)),
            ("no byte", vec![Reply::hang_up(), good(api)]),
            ("no head", vec![Reply::Send(b"HTTP/1.1 200 O".to_vec()), good(api)]),
            ("no event", vec![Reply::stream(""), good(api)]),
            ("an empty answer", vec![answer(api, &[], "end_turn"), good(api)]),
            ("an error in the stream", vec![error_in_stream(api), good(api)]),
        ]
    };
    insta::assert_snapshot!(stories(&cases(again)));
}

/// Half a call, then an error in the server's words for being overloaded.
fn error_in_stream(api: Api) -> Reply {
    let whole =
        body(api, &[text("Half."), call("t1", "bash", r#"{"command":"touch ran"}"#)], "tool_use");
    let begun = &whole[..whole.find("touch").expect("the arguments")];
    let begun = &begun[..begun.rfind("\n\n").expect("an event") + 2];
    let event = match api {
        Api::Anthropic => format!("event: error\ndata: {OVERLOADED}\n\n"),
        Api::OpenAi => "data: {\"error\":{\"message\":\"Overloaded\",\"code\":503}}\n\n".to_owned(),
    };
    Reply::stream(begun.to_owned() + &event)
}

#[test]
fn what_does_not_pass_is_said_plainly() {
    let fatal = |api| {
        let once =
            |status: &str, headers: &str, body: &str| vec![Reply::status(status, headers, body)];
        let elsewhere = "location: http://example.com/v1\r\n";
        let long = match api {
            Api::Anthropic => {
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#
            }
            Api::OpenAi => {
                r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 8192 tokens."}}"#
            }
        };
        let echo = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}."}}}}"#);
        vec![
            ("400", once("400 Bad Request", "", r#"{"error":{"message":"messages: wrong"}}"#)),
            ("401", once("401 Unauthorized", "", &echo)),
            ("403", once("403 Forbidden", "", r#"{"error":{"message":"not for you"}}"#)),
            ("404", once("404 Not Found", "", r#"{"error":{"message":"model: m"}}"#)),
            ("404 of a page", once("404 Not Found", "", "404 page not found")),
            ("a context too long", once("400 Bad Request", "", long)),
            ("a redirect", once("307 Temporary Redirect", elsewhere, "")),
            ("a page", once("200 OK", "content-type: text/html\r\n", "<html>Welcome</html>")),
            ("garbage in the stream", vec![Reply::stream("data: {\"type\":\n\n")]),
            ("no HTTP", vec![Reply::Send(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()); 6]),
            ("a wait of an hour", once("429 Too Many Requests", "retry-after: 3600\r\n", "later")),
        ]
    };
    insta::assert_snapshot!(stories(&cases(fatal)));
}

/// A message with characters of several bytes, and a call that leaves a file.
fn long_answer(api: Api) -> Vec<u8> {
    let parts =
        [text("Grüße ☃ from here."), call("t1", "write", r#"{"file_path":"ran","content":"☃"}"#)];
    body(api, &parts, "tool_use").into_bytes()
}

/// Byte offsets where a cut hurts: before and within events, names, JSON, and the middle of a character.
fn cuts(whole: &[u8]) -> Vec<usize> {
    let find = |what: &str| {
        let what = what.as_bytes();
        whole.windows(what.len()).position(|window| window == what).expect("it is in there")
    };
    let snowman = find("☃");
    vec![
        0,
        1,
        find("Gr") + 3,
        snowman + 1,
        snowman + 2,
        find("write") + 2,
        find("file_path") + 4,
        find("}\n\n") + 1,
    ]
}

#[test]
fn a_stream_cut_anywhere_leaves_one_message_and_runs_nothing() {
    let check = |api: Api, at: usize| {
        let casemate = Casemate::new();
        let whole = long_answer(api);
        let server = ModelServer::start(vec![Reply::cut(&whole, at), good(api)]);
        let model = format!("{}/m", api.provider());
        let finished = casemate.ask(&server.url(), &["run", "-m", &model, "do it"]).expect(0);
        let events = casemate.log();
        assert_whole(&events);
        let told = told(&events);
        let lines: Vec<_> = told.lines().map(str::trim).collect();
        let [user, error, says, idle] = lines[..] else { panic!("cut at {at}: {told}") };
        assert_eq!([user, says, idle], ["user: do it", "says: Good.", "idle: end_turn"]);
        assert!(error.contains("[retrying] the answer of"), "cut at {at}: {error}");
        assert!(!casemate.workspace().join("ran").exists(), "cut at {at}: an unfinished call ran");
        assert_eq!(finished.stdout().matches("Good.").count(), 1, "cut at {at}: {finished:?}");
    };
    std::thread::scope(|scope| {
        for api in Api::BOTH {
            for at in cuts(&long_answer(api)) {
                scope.spawn(move || check(api, at));
            }
        }
    });
}

#[test]
fn what_a_server_asks_for_is_waited_for() {
    for (headers, least) in [("retry-after: 1\r\n", 1000), ("retry-after-ms: 800\r\n", 800)] {
        for api in Api::BOTH {
            let casemate = Casemate::new();
            let busy = Reply::status("429 Too Many Requests", headers, "slow down");
            let server = ModelServer::start(vec![busy, good(api)]);
            let model = format!("{}/m", api.provider());
            casemate.ask(&server.url(), &["run", "-m", &model, "do it"]).expect(0);
            let [first, second] = &server.requests()[..] else { panic!("two requests") };
            let waited = second.at - first.at;
            assert!(waited >= Duration::from_millis(least), "{headers:?}: {waited:?}");
            assert_eq!(first.body, second.body, "asked again in other words");
        }
    }
}

#[test]
fn a_server_that_is_not_there_ends_the_turn_and_the_session_resumes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let casemate = Casemate::new();
    let finished = casemate.ask(&url, &["run", "-m", "openai/m", "do it"]).expect(1);
    let tries = casemate.log().iter().filter(|e| e["type"] == "span.model_request_start").count();
    assert_eq!(tries, 6);
    let said = finished.stderr().replace(&url, "URL");
    assert!(said.contains("could not reach URL: "), "{said}");
    let server = ModelServer::on(TcpListener::bind(address).unwrap(), vec![good(Api::OpenAi)]);
    casemate.ask(&server.url(), &["resume"]).expect(0);
    assert_whole(&casemate.log());
}

#[test]
fn a_stream_that_drips_is_read_to_its_end() {
    for api in Api::BOTH {
        let casemate = Casemate::new();
        let Reply::Send(bytes) = good(api) else { unreachable!("an answer is sent whole") };
        let drip = Reply::Drip { bytes, piece: 3, pause: Duration::from_millis(2) };
        let server = ModelServer::start(vec![drip]);
        let model = format!("{}/m", api.provider());
        let finished = casemate.ask(&server.url(), &["run", "-m", &model, "do it"]).expect(0);
        assert_eq!(finished.stdout().trim(), "Good.");
    }
}

#[test]
fn tokens_of_half_an_answer_are_counted() {
    let casemate = Casemate::new();
    let whole = long_answer(Api::Anthropic);
    let server =
        ModelServer::start(vec![Reply::cut(&whole, whole.len() / 2), good(Api::Anthropic)]);
    casemate.ask(&server.url(), &["run", "-m", "anthropic/m", "do it"]).expect(0);
    let events = casemate.log();
    let total = events.iter().rfind(|event| event["type"] == "session.usage").unwrap();
    // Ten of each request; the half answer ended before its output was counted for good.
    assert_eq!(total["usage"]["input_tokens"], 20, "{total}");
    assert_eq!(total["usage"]["output_tokens"], 6, "{total}");
}

#[test]
fn an_endless_answer_is_given_up_within_a_bound_of_memory() {
    let pieces = vec![text(&"x".repeat(1024 * 1024)); 100];
    let one = [text(&"x".repeat(100 * 1024 * 1024))];
    for api in Api::BOTH {
        for (parts, words) in [
            (&pieces[..], "is larger than 16777216 bytes"),
            (&one, "an event is larger than 16777216 bytes"),
        ] {
            let server = ModelServer::start(vec![answer(api, parts, "end_turn")]);
            let casemate = Casemate::new();
            let model = format!("{}/m", api.provider());
            let mut command = casemate.command();
            command.envs(env_for(&server.url())).args(["run", "-m", &model, "do it"]);
            let (ended, peak) = peak_until_the_end(&mut command);
            assert_eq!(ended.code(), Some(1));
            let events = casemate.log();
            assert_whole(&events);
            assert!(told(&events).contains(words), "{}", told(&events));
            println!("{api:?}: peak {peak} KiB");
            // 64 MiB over what a session without a long answer takes.
            assert!(peak < (20 + 64) * 1024, "{api:?}: {peak} KiB");
        }
    }
}

/// Chunks of Chat Completions as servers other than OpenAI's send them.
fn dialect(chunks: &[&str]) -> Vec<Reply> {
    let stream: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    vec![Reply::stream(stream + "data: [DONE]\n\n"), good(Api::OpenAi)]
}

#[test]
fn dialects_of_chat_completions_are_understood() {
    let whole = r#"{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"write","arguments":"{\"file_path\":\"a\",\"content\":\"\"}"}}]}}]}"#;
    let object = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"write","arguments":{"file_path":"b","content":""}}}]}}]}"#;
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let calls = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    let reasoning = r#"{"choices":[{"delta":{"reasoning_content":"I see."}}]}"#;
    let renamed = r#"{"choices":[{"delta":{"reasoning":"I see.","reasoning_content":"I see."}}]}"#;
    let tagged = r#"{"choices":[{"delta":{"content":"<think>I see.</think>\n\nFine."}}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    let cases = [
        ("a call whole, without index and usage", dialect(&[whole, calls])),
        ("arguments as an object, and the wrong reason", dialect(&[object, stop, usage])),
        (
            "two calls whole",
            dialect(&[object, &whole.replace("\"id\":\"c\",", "\"index\":1,"), calls]),
        ),
        ("reasoning_content", dialect(&[reasoning, whole, calls])),
        ("both names of reasoning", dialect(&[renamed, whole, calls])),
        ("thoughts in the text", dialect(&[tagged, stop]).into_iter().take(1).collect()),
        ("no reason at all", dialect(&[whole])),
    ];
    let case = |(name, replies)| Case { name, api: Api::OpenAi, replies };
    insta::assert_snapshot!(stories(&cases.map(case)));
}

#[test]
fn hostile_calls_are_answered_and_the_session_goes_on() {
    let hostile = |api| {
        let then_good = |parts: &[Part], stop| vec![answer(api, parts, stop), good(api)];
        let touch = |id: &str, name: &str| {
            call(id, "write", &format!(r#"{{"file_path":"{name}","content":""}}"#))
        };
        let bad = |arguments: &str| then_good(&[call("t1", "write", arguments)], "tool_use");
        vec![
            ("repeated ids", then_good(&[touch("t", "a"), touch("t", "b")], "tool_use")),
            ("no ids", then_good(&[touch("", "a"), touch("", "b")], "tool_use")),
            ("an unknown tool", then_good(&[call("t1", "fly", r#"{"to":"moon"}"#)], "tool_use")),
            ("a tool without a name", then_good(&[call("t1", "", "{}")], "tool_use")),
            ("arguments that can be repaired", bad("{\"file_path\":\"a\",\"content\":\"x\ny\",}")),
            ("arguments cut within a string", bad(r#"{"file_path":"a","content":"x"#)),
            ("arguments that are no object", bad(r#"["a","x"]"#)),
            ("no arguments", bad("")),
            ("an argument of the wrong type", bad(r#"{"file_path":7,"content":"x"}"#)),
            ("a call and the wrong reason", then_good(&[touch("t1", "a")], "end_turn")),
            (
                "a reason and no call",
                then_good(&[text("Hm.")], "tool_use").into_iter().take(1).collect(),
            ),
            ("a call cut by the limit", then_good(&[touch("t1", "a")], "max_tokens")),
            ("a refusal", vec![answer(api, &[text("No.")], "refusal")]),
            ("a refusal with a call", vec![answer(api, &[touch("t1", "a")], "refusal")]),
        ]
    };
    insta::assert_snapshot!(stories(&cases(hostile)));
}

#[test]
fn a_paused_turn_goes_on() {
    let api = Api::Anthropic;
    let replies = vec![answer(api, &[text("Wait…")], "pause_turn"), good(api)];
    insta::assert_snapshot!(story(&Case { name: "a pause", api, replies }), @"
    a pause over Anthropic: exit 0
      user: do it
      says: Wait…
      says: Good.
      idle: end_turn
    ");
}

#[test]
fn of_a_thousand_calls_the_first_run_and_the_model_hears_of_the_rest() {
    for api in Api::BOTH {
        let casemate = Casemate::new();
        let nth = |n: usize| call(&format!("t{n}"), "read", &format!(r#"{{"file_path":"f{n}"}}"#));
        let calls: Vec<_> = (0..1000).map(nth).collect();
        let server = ModelServer::start(vec![answer(api, &calls, "tool_use"), good(api)]);
        let model = format!("{}/m", api.provider());
        casemate.ask(&server.url(), &["run", "-m", &model, "do it"]).expect(0);
        let events = casemate.log();
        assert_whole(&events);
        let results: Vec<_> = events.iter().filter(|e| e["type"] == "agent.tool_result").collect();
        let told = "At most 128 tool calls run in one answer; this one and 871 more did not";
        let refused = results.iter().filter(|result| result.to_string().contains(told)).count();
        assert_eq!((results.len(), refused), (129, 1), "{api:?}");
    }
}
