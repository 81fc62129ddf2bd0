//! `run`: what is printed where, and what each flag does.

use std::process::Stdio;

use super::{HELLO, demand, events, of_type, texts};
use crate::support::{As, Casemate, Running};

/// A file is written, a command fails, thoughts are thought.
const WORK: &str = r#"
turns:
  - thinking: A file first.
    text: I write.
    tool_calls:
      - write: { file_path: new.txt, content: "one\ntwo\n" }
      - bash: { command: "echo out; exit 3" }
  - text: "It is\nwritten."
"#;

#[test]
fn text_is_the_models_words_on_stdout_and_talk_on_stderr() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let run = casemate.run(&["run", "-m", &casemate.script(WORK), "do it"]).expect(0);
        assert_eq!(run.stdout(), "I write.\n\nIt is\nwritten.\n");
        demand(
            &run,
            &[
                "· sandbox: full (",
                "· A file first.\n",
                "\n● write  new.txt  2 lines  ",
                "\n✗ bash   echo out; exit 3  exit 3  ",
                "\n    out\n",
                "\n✓ done in ",
                "2 turns, 2 tool calls\n",
                "\n  files    1 changed: new.txt\n",
                &format!("\n  resume   casemate resume {}\n", casemate.only_session()),
            ],
        );
        assert!(!run.stderr().contains(['\x1b', '\r']), "plain without a terminal: {run:?}");
        let written = casemate.workspace().join("new.txt");
        assert_eq!(std::fs::read_to_string(&written).unwrap(), "one\ntwo\n");
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&written).unwrap()),
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(casemate.workspace()).unwrap()),
            "what tools write belongs to the user"
        );
    }
}

#[test]
fn quiet_leaves_the_words() {
    let casemate = Casemate::new();
    let run = casemate.run(&["-q", "run", "-m", &casemate.script(WORK), "do it"]).expect(0);
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("I write.\n\nIt is\nwritten.\n", "")
    );
}

#[test]
fn json_is_one_object() {
    let casemate = Casemate::new();
    let script = casemate.script(WORK);
    let run = casemate.run(&["run", "-m", &script, "--output", "json", "do it"]).expect(0);
    let mut reports = run.json_lines();
    let mut report = reports.pop().unwrap();
    assert!(reports.is_empty(), "{run:?}");
    assert!(report["duration_ms"].take().is_u64());
    assert_eq!(
        report,
        serde_json::json!({
            "session_id": casemate.only_session(),
            "status": "done",
            "stop_reason": { "type": "end_turn" },
            "result": "It is\nwritten.",
            "turns": 2,
            "tool_calls": 2,
            "usage": {
                "input_tokens": 0,
                "output_tokens": 0,
                "cache_hit_rate": null,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0
            },
            "duration_ms": null,
            "files_changed": ["new.txt"],
            "files_obeyed": [],
            "files_set_aside": [],
            "waiting": [],
            "errors": []
        })
    );
    assert_eq!(run.stderr(), "");
}

#[test]
fn stream_json_is_the_log_byte_for_byte() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let script = casemate.script(WORK);
        let run =
            casemate.run(&["run", "-m", &script, "--output", "stream-json", "do it"]).expect(0);
        let id = casemate.only_session();
        let stored = casemate.run(&["sessions", "events", &id]).expect(0);
        assert!(run.stdout().lines().count() > 10, "{run:?}");
        // When the input was taken up stands beside it later: the stream was before that.
        let taken_up = stored.json_lines()[0]["processed_at"].to_string();
        let stored = stored.stdout().replacen(
            &format!("\"processed_at\":{taken_up}"),
            "\"processed_at\":null",
            1,
        );
        assert_eq!(run.stdout(), stored);
        assert!(taken_up.starts_with("\"20"), "{taken_up}");
    }
}

#[test]
fn a_dash_reads_the_task_from_standard_input() {
    let casemate = Casemate::new();
    let script = casemate.script(HELLO);
    let mut command = casemate.command();
    command.args(["run", "-m", &script, "-"]).stdin(Stdio::piped());
    let mut run = Running::start(command);
    run.type_in("fix it\nand tell me\n");
    run.finish().expect(0);
    assert_eq!(texts(&events(&casemate), "user.message"), ["fix it\nand tell me\n"]);
    demand(&casemate.run(&["sessions", "list"]).expect(0), &[]);
    let listed = casemate.run(&["sessions", "list", "--json"]).expect(0);
    assert!(listed.stdout().contains("\"title\": \"fix it\""), "{listed:?}");
}

#[test]
fn a_workspace_elsewhere_is_where_tools_work() {
    let casemate = Casemate::new();
    let script = casemate
        .script("turns: [{ tool_calls: [{ bash: { command: pwd > here } }] }, { text: Done. }]");
    let there = casemate.home().join("elsewhere");
    std::fs::create_dir(&there).unwrap();
    casemate.run(&["run", "-m", &script, "-C", there.to_str().unwrap(), "do it"]).expect(0);
    let here = std::fs::read_to_string(there.join("here")).unwrap();
    assert_eq!(here.trim_end(), there.canonicalize().unwrap().to_str().unwrap());
}

#[test]
fn an_agent_file_gives_model_words_and_tools() {
    let casemate = Casemate::new();
    let script = casemate.script(
        "turns: [{ expect: { system_contains: You count beans., tools: [read, grep] }, text: Two. }]",
    );
    let agent = casemate.put(
        "agent.yaml",
        &format!(
            "name: counter\nmodel: '{script}'\nsystem: You count beans.\ntools:\n  \
             - type: agent_toolset_20260401\n    default_config: {{ enabled: false }}\n    \
             configs: [{{ name: read, enabled: true }}, {{ name: grep, enabled: true }}]\n"
        ),
    );
    let run = casemate.run(&["run", "--agent", agent.to_str().unwrap(), "count"]).expect(0);
    assert_eq!(run.stdout(), "Two.\n");
}

#[test]
fn a_route_sends_a_model_to_a_provider_with_a_key() {
    let casemate = Casemate::new();
    let refused = casemate.run(&["run", "-m", "qwen3", "--route", "qwen*=openai/gpt-5.4", "hi"]);
    demand(&refused.expect(2), &["no API key for provider `openai`: set OPENAI_API_KEY"]);
    // Nobody listens there: the request went where the route leads.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || answer_once(&listener));
    let env = [("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", url.as_str())];
    let args = ["run", "-m", "qwen3", "--route", "qwen*=openai/gpt-5.4", "hi"];
    let run = casemate.run_with(&env, &args).expect(0);
    assert_eq!(run.stdout(), "Routed.\n");
    let request = asked.join().unwrap();
    assert!(request.contains("\"model\":\"gpt-5.4\""), "{request}");
}

/// A model server for one request; gives back what it was asked.
fn answer_once(listener: &std::net::TcpListener) -> String {
    use std::io::{Read as _, Write as _};
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut request = Vec::new();
    let mut piece = [0; 65536];
    while !request.ends_with(b"}") {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "the request ended early");
        request.extend_from_slice(&piece[..n]);
    }
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"Routed.\"},\"finish_reason\":\"stop\"}]}\n\n\
                data: [DONE]\n\n";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    String::from_utf8(request).unwrap()
}

#[test]
fn calls_of_one_answer_all_run_and_are_all_answered() {
    let casemate = Casemate::new();
    casemate.put("a.txt", "needle\n");
    let script = casemate.script(
        "turns: [{ tool_calls: [{ read: { file_path: a.txt } }, { grep: { pattern: needle } }, \
         { glob: { pattern: '*.txt' } }, { bash: { command: cat a.txt } }] }, { text: Done. }]",
    );
    casemate.run(&["run", "-m", &script, "look"]).expect(0);
    let log = events(&casemate);
    assert_eq!(of_type(&log, "agent.tool_use").len(), 4);
    let results = texts(&log, "agent.tool_result");
    assert_eq!(results.len(), 4);
    assert!(
        results.iter().all(|text| text.contains("needle") || text.contains("a.txt")),
        "{results:?}"
    );
}

/// What a tool makes under a protected name is not held before the next sandbox; the user is told before he runs git there.
#[test]
fn new_files_that_programs_of_the_user_obey_are_named() {
    let script = "turns:\n  - tool_calls:\n      - bash: { command: \"git init -q . && mkdir -p .vscode && \
                  echo x > .git/commondir\" }\n  - text: done\n";
    let casemate = Casemate::new();
    let model = casemate.script(script);
    let done = casemate.run(&["run", "--model", &model, "x"]).expect(0);
    let line = done.stderr().lines().find(|line| line.contains("! look before")).map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("{done:?}"));
    assert!(line.contains(".vscode") && line.contains(".git/hooks"), "{line}");

    let casemate = Casemate::new();
    let model = casemate.script(
        "turns:\n  - tool_calls:\n      - write: { file_path: a, content: b }\n  - text: done\n",
    );
    let done = casemate.run(&["run", "--model", &model, "--output", "json", "x"]).expect(0);
    assert_eq!(done.json_lines()[0]["files_obeyed"], serde_json::json!([]));
}

/// In a repository of the user's, git's own files are out of its sight before anybody runs it: after the call that made
/// them, and after what a job in the background makes later.
#[test]
fn what_the_users_git_would_obey_is_set_aside() {
    let script = "turns:\n  - tool_calls:\n      - bash: { command: \"echo /evil > .git/commondir; \
                  (until [ -e go ]; do sleep 0.01; done; mkdir .git/hooks; touch made) >/dev/null 2>&1 &\" }\n  \
                  - tool_calls:\n      - bash: { command: \"ls .git; touch go; until [ -e made ]; do sleep 0.01; done\" }\n  \
                  - text: done\n";
    for who in As::all() {
        let casemate = Casemate::of(who);
        casemate.put(".git/config", "[core]\n\trepositoryformatversion = 0\n");
        let model = casemate.script(script);
        let done = casemate.run(&["run", "--model", &model, "--output", "json", "x"]).expect(0);
        let aside = [".git/commondir.set-aside-1", ".git/hooks.set-aside-1"];
        assert_eq!(done.json_lines()[0]["files_set_aside"], serde_json::json!(aside));
        let git = casemate.workspace().join(".git");
        let mut left: Vec<_> =
            std::fs::read_dir(git).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["commondir.set-aside-1", "config", "hooks.set-aside-1"]);
        let log = casemate.log();
        let made = of_type(&log, "internal.protected_made");
        let made: Vec<_> = made.iter().map(|event| &event["set_aside"]).collect();
        assert_eq!(made, aside, "{log:?}");
        let results = of_type(&log, "agent.tool_result");
        let results: Vec<_> = results.iter().map(|event| event["content"].to_string()).collect();
        let told = "[workspace] `.git/commondir` is protected: git on the user's machine would obey it. It was moved to \
                    `.git/commondir.set-aside-1`";
        assert!(results[0].contains(told), "{results:?}");
        assert!(results[1].contains(r"commondir.set-aside-1\nconfig"), "{results:?}");
        assert!(results[1].contains("[workspace] `.git/hooks` is protected"), "{results:?}");
    }
}
