//! The program against a mock of both vendors' APIs that nobody here wrote: `@copilotkit/aimock`, installed from npm into
//! the target directory the first time.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::model::Api;
use crate::support::story::{assert_whole, told};
use crate::support::{Casemate, lacking, write};

const PACKAGE: &str = "@copilotkit/aimock@1.43.0";

/// What the mock answers: by the user's words, and by how far the conversation or the test has come.
const FIXTURES: &str = r#"{"fixtures": [
  {"match": {"userMessage": "say hello"}, "response": {"content": "Hello ☃, from the mock."}},
  {"match": {"userMessage": "think", "turnIndex": 0}, "response": {
    "reasoning": "Let me look first.", "reasoningSignature": "c2VhbA==",
    "toolCalls": [{"id": "call_0", "name": "glob", "arguments": {"pattern": "*"}}]}},
  {"match": {"userMessage": "think", "turnIndex": 1}, "response": {"reasoning": "So.", "content": "Nothing there."}},
  {"match": {"userMessage": "make a file", "turnIndex": 0}, "response": {
    "content": "I write it.",
    "toolCalls": [{"id": "call_1", "name": "write", "arguments": {"file_path": "a.txt", "content": "wörld ☃\n"}}]}},
  {"match": {"userMessage": "make a file", "turnIndex": 1}, "response": {
    "toolCalls": [
      {"id": "call_2", "name": "read", "arguments": {"file_path": "a.txt"}},
      {"id": "call_3", "name": "bash", "arguments": {"command": "wc -c < a.txt"}}]}},
  {"match": {"userMessage": "make a file", "turnIndex": 2}, "response": {"content": "Done."}},
  {"match": {"userMessage": "be busy", "sequenceIndex": 0},
    "response": {"error": {"message": "Rate limited", "type": "rate_limit_error"}, "status": 429}},
  {"match": {"userMessage": "be busy", "sequenceIndex": 1},
    "response": {"error": {"message": "Overloaded", "type": "overloaded_error"}, "status": 529}},
  {"match": {"userMessage": "be busy", "sequenceIndex": 2}, "response": {"content": "At last."}},
  {"match": {"userMessage": "be cut", "sequenceIndex": 0}, "response": {
    "toolCalls": [{"id": "call_4", "name": "write", "arguments": {"file_path": "cut.txt", "content": "no"}}]},
    "truncateAfterChunks": 4, "latency": 5, "chunkSize": 8},
  {"match": {"userMessage": "be cut", "sequenceIndex": 1}, "response": {"content": "Whole this time."}}
]}"#;

/// The installed mock's program, or why there is none.
fn installed() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aimock");
    let program = dir.join("node_modules/.bin/llmock");
    if program.exists() {
        return Ok(program);
    }
    let mut npm = Command::new("npm");
    let npm = npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&dir).arg(PACKAGE);
    match npm.output() {
        Ok(done) if done.status.success() => Ok(program),
        Ok(failed) => Err(format!("npm: {}", String::from_utf8_lossy(&failed.stderr).trim())),
        Err(error) => Err(format!("npm: {error}")),
    }
}

/// A running mock. Dropping it ends it.
struct Mock {
    process: Child,
    url: String,
}

impl Mock {
    fn start(program: &Path, dir: &Path) -> Self {
        let fixtures = dir.join("fixtures.json");
        write(&fixtures, FIXTURES);
        let mut command = Command::new("node");
        let command = command.arg(program).args(["--strict", "-p", "0", "-f"]).arg(&fixtures);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("npm came with node");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let url = lines.find_map(|line| Some(line.ok()?.split_once("listening on ")?.1.to_owned()));
        let url = url.expect("the mock says where it listens");
        // It writes on; a closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.process.kill().expect("a child that was not waited for");
        self.process.wait().expect("a killed child ends");
    }
}

fn story(mock: &Mock, api: Api, task: &str) -> String {
    let casemate = Casemate::new();
    let model = format!("{}/mock", api.provider());
    casemate.ask(&mock.url, &["run", "-m", &model, task]).expect(0);
    let events = casemate.log();
    assert_whole(&events);
    assert!(!casemate.workspace().join("cut.txt").exists(), "an unfinished call ran");
    let workspace = casemate.workspace().display().to_string();
    format!("over {api:?}\n{}", told(&events).replace(&workspace, "WORK"))
}

#[test]
fn a_mock_of_both_vendors_is_served_in_both_formats() {
    let program = match installed() {
        Ok(program) => program,
        Err(reason) => return lacking(&format!("{PACKAGE} is not installed: {reason}")),
    };
    let mut all = String::new();
    for api in Api::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mock = Mock::start(&program, dir.path());
        for task in ["say hello", "think", "make a file", "be busy", "be cut"] {
            all += &story(&mock, api, task);
        }
    }
    insta::assert_snapshot!(all);
}
