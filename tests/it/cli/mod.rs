//! The command line as its users meet it: the real program, sandbox and store; the model follows a script.

mod bad_input;
mod exec;
mod judged;
mod misc;
mod permission;
mod resume;
mod run;
mod sessions;
mod stopping;
mod terminal;
mod trouble;
pub(crate) mod unattended;

use serde_json::Value;

use crate::support::{Casemate, Finished};

/// Says one thing and is done; also when it is asked again.
const HELLO: &str = "turns: [{ text: Hello there., repeat: 9 }]";

/// Works until the file `go` is there, which it never is unless a test makes it; holds a lock on `alive` as long.
const WORKS_ON: &str = r#"
turns:
  - text: I work.
    tool_calls: [{ bash: { command: "exec 9> alive; flock 9; touch started; until [ -e go ]; do sleep 0.02; done; touch finished" } }]
  - text: Over.
    repeat: 9
"#;

/// Events of one type.
fn of_type<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// The text of the first block of each event of that type.
fn texts(events: &[Value], kind: &str) -> Vec<String> {
    let text = |event: &&Value| event["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    of_type(events, kind).iter().map(text).collect()
}

fn events(casemate: &Casemate) -> Vec<Value> {
    let id = casemate.only_session();
    casemate.run(&["sessions", "events", &id, "--internal"]).expect(0).json_lines()
}

/// Demands that each of these stands in what was said on standard error.
#[track_caller]
fn demand(finished: &Finished, words: &[&str]) {
    let stderr = finished.stderr();
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}
