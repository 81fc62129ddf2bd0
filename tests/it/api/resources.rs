//! What sessions are given: files at a path of their own, when they are created and later. (Checklist of the protocol:
//! 68, 70–72, 74, 78.)

use serde_json::{Value, json};

use super::files::{file, stored, upload};
use super::sessions::{Lab, kinds, message};
use super::{Server, pretty};
use crate::support::As;

const TOOLS: &str = "agent_toolset_20260401";

/// A server whose agent runs these commands, one for each message.
fn lab(who: As, commands: &[&str]) -> Lab {
    let turn = |command: &&str| {
        let call = json!({ "tool_calls": [{ "name": "bash", "input": { "command": command } }] });
        format!("{call}, {{text: done}}")
    };
    let turns: Vec<_> = commands.iter().map(turn).collect();
    Lab::of(who, &turns.join(", "), &json!([{ "type": TOOLS }]))
}

/// A stored file's id.
fn put(server: &Server, name: &str, bytes: &[u8]) -> String {
    let made = upload(server, &[file(name, bytes)]).expect(200);
    made["id"].as_str().unwrap().to_owned()
}

/// What the last command said.
fn said(lab: &Lab, session: &str) -> String {
    let events = lab.events(session);
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let last = results.last().unwrap_or_else(|| panic!("{events:?}"));
    last["content"][0]["text"].as_str().unwrap().trim().to_owned()
}

/// Has the session run its next command, and says what came of it.
fn run(lab: &Lab, session: &str) -> String {
    lab.send(session, &json!([message("go on")])).expect(200);
    lab.settled(session);
    said(lab, session)
}

// 70, 71
#[test]
fn a_session_reads_the_files_that_it_is_given_and_cannot_change_them() {
    for who in As::all() {
        let look = "cd /mnt/session/uploads; for file in $(find . -type f | sort); do cat $file; done; \
                    echo more 2>/dev/null >> deep/er/data.csv || echo refused; \
                    rm -f deep/er/data.csv 2>/dev/null || echo refused; \
                    chmod 777 deep/er/data.csv 2>/dev/null || echo refused; \
                    touch x 2>/dev/null || echo refused";
        let lab = lab(who, &[look]);
        let (one, other) =
            (put(&lab.server, "a.txt", b"first\n"), put(&lab.server, "b", b"second\n"));
        let resources = json!([
            { "type": "file", "file_id": one, "mount_path": "/deep/er/data.csv" },
            { "type": "file", "file_id": other },
        ]);
        let made = lab.create(&json!({ "resources": resources })).expect(200);
        let session = made["id"].as_str().unwrap();
        let shown = made["resources"].as_array().unwrap();
        let paths: Vec<_> = shown.iter().map(|one| one["mount_path"].as_str().unwrap()).collect();
        let default = format!("/mnt/session/uploads/{other}");
        assert_eq!(paths, ["/mnt/session/uploads/deep/er/data.csv", &default]);
        for (given, original) in shown.iter().zip([&one, &other]) {
            assert_eq!(given["type"], "file");
            assert!(given["id"].as_str().unwrap().starts_with("sesrsc_"));
            assert_ne!(given["file_id"], json!(original), "the session has a file of its own");
            assert_eq!(given.as_object().unwrap().len(), 6, "{given}");
        }
        assert_eq!(lab.get(session)["resources"], made["resources"]);
        assert_eq!(
            run(&lab, session),
            "first\nsecond\nrefused\nrefused\nrefused\nrefused",
            "{who:?}"
        );
    }
}
