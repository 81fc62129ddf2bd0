//! What a session installs by itself, without a word about where: into its home, from registries.

use serde_json::json;

use super::Shop;
use crate::support::{As, lacking};

/// A manager, whether a machine may lack it, how it is told to install, and what the program then says.
const INSTALLS: [(&str, bool, &str, &str); 5] = [
    // Where it is pyenv's, it ends with 1 after it has done its work: see `hint.rs`.
    ("pip", false, "python3 -m pip install -q casetest; true", "casetest-pip"),
    ("npm", false, "npm install --silent --no-audit --no-fund -g casetest", "casetest-npm"),
    // Of these two, only settings that name another index are not handed on to a session.
    (
        "cargo",
        true,
        "cargo install -q --index sparse+http://registry.example/index/ casetest",
        "casetest",
    ),
    (
        "gem",
        false,
        "gem install -q --no-document --clear-sources --source http://registry.example/gems/ casetest",
        "casetest-gem",
    ),
    ("go", true, "go install casetest.example/hello@latest", "hello"),
];

/// What nobody can install, and what the model is told of it.
const REFUSED: [(&str, &str); 3] = [
    ("apt-get install -y casetest-apt", "[sandbox] Nobody is root here"),
    ("sudo apt-get install -y casetest-apt", "[sandbox] Nobody is root here"),
    (
        "/usr/bin/python3 -m pip install -q --target /usr/lib/own casetest",
        "[sandbox] The system cannot be changed here",
    ),
];

#[test]
fn a_session_installs_into_its_home_and_is_told_what_it_cannot() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        let casemate = shop.casemate(who, "registry.example");
        let there = |manager: &str| {
            let look = match manager {
                "pip" => "python3 -m pip --version".to_owned(),
                "cargo" => "cargo --version && cc --version".to_owned(),
                "go" => "go version".to_owned(),
                other => format!("{other} --version"),
            };
            shop.shows(&casemate, who, &look)
        };
        let mut ours = Vec::new();
        for install in INSTALLS {
            match (there(install.0), install.1) {
                (true, _) => ours.push(install),
                (false, true) => eprintln!("NOT TESTED: {} as {who:?}, which it lacks", install.0),
                (false, false) => lacking(install.0),
            }
        }
        let refused = REFUSED.iter().map(|(line, _)| (*line).to_owned());
        let calls = ours.iter().map(|(_, _, install, run)| format!("{install} && {run}"));
        let calls: Vec<_> = calls.chain(refused).collect();
        let again = ours.iter().map(|(_, _, _, run)| *run).collect::<Vec<_>>().join("; ");
        let call = |line: &String| json!({ "tool_calls": [{ "bash": { "command": line } }] });
        let done = json!({ "text": "Done." });
        let turns = calls.iter().map(call).chain([done.clone(), call(&again), done]);
        let model = casemate.script(&json!({ "turns": turns.collect::<Vec<_>>() }).to_string());
        let told = |words: &[&str]| -> Vec<String> {
            let line = [words, &["--output", "stream-json", "go"]].concat();
            let events = shop.run(&casemate, who, &line).expect(0).json_lines();
            let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
            let text = |event: &serde_json::Value| {
                let blocks = event["content"].as_array().unwrap();
                blocks
                    .iter()
                    .filter_map(|block| block["text"].as_str())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            results.map(text).collect()
        };
        let first = told(&["run", "-m", &model, "--allow-package-managers"]);
        assert_eq!(first.len(), calls.len());
        for ((manager, ..), text) in ours.iter().zip(&first) {
            assert!(text.contains(&format!("MARKER {manager}")), "{who:?}: {manager}: {text}");
        }
        for ((line, expected), text) in REFUSED.iter().zip(&first[ours.len()..]) {
            assert!(text.contains(expected), "{who:?}: {line}: {text}");
        }
        // In the session's next sandbox they are still there.
        let id = casemate.only_session();
        let next = told(&["resume", &id]);
        for (manager, ..) in &ours {
            assert!(next[0].contains(&format!("MARKER {manager}")), "{who:?}: {manager}: {next:?}");
        }
    }
}
