//! The session's own disk through the program: what persists, what is kept apart, what comes back.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{As, Casemate};

/// A session whose every message has the next of these commands run.
struct Session {
    casemate: Casemate,
    model: String,
}

impl Session {
    fn new(who: As, commands: &[&str]) -> Self {
        let casemate = Casemate::of(who);
        let turns = commands.iter().enumerate().flat_map(|(i, command)| {
            let call = json!({ "tool_calls": [{ "bash": { "command": command } }] });
            [call, json!({ "text": format!("Answer {i}.") })]
        });
        let script = json!({ "turns": turns.collect::<Vec<_>>() });
        // JSON is YAML.
        let model = casemate.script(&script.to_string());
        Self { casemate, model }
    }

    /// Starts the session; what its first command printed.
    fn run(&self, flags: &[&str]) -> String {
        self.casemate.run(&[&["run", "-m", &self.model, "go"], flags].concat()).expect(0);
        self.said()
    }

    /// The next message; what its command printed.
    fn go_on(&self) -> String {
        self.casemate.run(&["resume", &self.id(), "go on"]).expect(0);
        self.said()
    }

    fn id(&self) -> String {
        self.casemate.sessions().pop().unwrap()
    }

    /// The text of the last tool result.
    fn said(&self) -> String {
        let log = self.casemate.run(&["sessions", "events", &self.id()]).expect(0).json_lines();
        let result = log.iter().rfind(|event| event["type"] == "agent.tool_result").unwrap();
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    fn disk(&self) -> PathBuf {
        self.casemate.data_dir().join("sessions").join(self.id())
    }
}

/// Kind, mode and content of everything below a directory, by path; nothing is followed.
fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let facts = path.symlink_metadata().unwrap();
            let what = if facts.is_symlink() {
                format!("-> {}", path.read_link().unwrap().display())
            } else if facts.is_dir() {
                open.push(path.clone());
                format!("{:o} directory", facts.mode() & 0o7777)
            } else {
                let content = std::fs::read(&path).unwrap();
                format!("{:o} {}", facts.mode() & 0o7777, String::from_utf8_lossy(&content))
            };
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    seen
}

const MODES: [&str; 3] = ["direct", "overlay", "copy"];

#[test]
fn the_home_outlives_the_sandbox_and_goes_with_the_session() {
    for who in As::all() {
        let session = Session::new(
            who,
            &[
                "mkdir -p ~/.local/bin && printf '#!/bin/sh\\necho installed' > ~/.local/bin/tool \
                 && chmod +x ~/.local/bin/tool && mkdir ~/closed && chmod 0 ~/closed && echo well",
                "tool; stat -c %u:%a ~",
            ],
        );
        assert_eq!(session.run(&[]).trim(), "well", "{who:?}");
        assert_eq!(session.go_on().trim(), "installed\n1000:700", "{who:?}");

        let disk = session.disk();
        assert_eq!(disk.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let owner = disk.join("home").metadata().unwrap().uid();
        let mine = session.casemate.data_dir().metadata().unwrap().uid();
        assert_eq!(owner == mine, mine != 0, "root's sessions have a user of their own: {owner}");
        let id = session.id();
        session.casemate.run(&["sessions", "delete", &id]).expect(0);
        assert!(!disk.exists(), "{who:?}: the disk stayed behind");
    }
}

#[test]
fn a_disk_without_a_session_is_swept() {
    let session = Session::new(As::Me, &["echo well"]);
    session.run(&[]);
    let stray = session.disk().with_file_name("sesn_01jqzzzzzzzzzzzzzzzzzzzzzz");
    std::fs::create_dir_all(stray.join("home")).unwrap();
    let foreign = session.disk().with_file_name("notes");
    std::fs::create_dir(&foreign).unwrap();
    session.casemate.run(&["run", "-m", &session.model, "another"]).expect(0);
    assert!(!stray.exists(), "the disk of no session stayed");
    assert!(foreign.exists(), "what is not casemate's went");
    assert!(session.disk().join("home").exists(), "a session lost its disk");
}

#[test]
fn in_overlay_and_copy_the_users_files_stay_as_they_are() {
    for who in As::all() {
        for mode in &MODES[1..] {
            let session = Session::new(
                who,
                &[
                    "rm -rf gone && echo new >> kept && mkdir made && echo x > made/x && cat kept",
                    "cat kept made/x; ls; cat .env",
                ],
            );
            session.casemate.put("kept", "old\n");
            session.casemate.put("gone/deep/file", "here\n");
            session.casemate.put(".env", "TOKEN=1\n");
            session.casemate.give_to_user();
            let before = look(&session.casemate.workspace());
            let flags = ["--workspace-mode", mode];
            assert_eq!(session.run(&flags).trim(), "old\nnew", "{who:?} {mode}");
            let said = session.go_on();
            assert!(said.starts_with("old\nnew\nx\nkept\nmade\n"), "{who:?} {mode}: {said}");
            assert!(said.contains("Permission denied"), "{who:?} {mode}: {said}");
            assert_eq!(look(&session.casemate.workspace()), before, "{who:?} {mode}");
        }
    }
}

#[test]
fn a_mode_that_cannot_be_had_names_the_other() {
    let session = Session::new(As::Me, &["echo well"]);
    let check = |flags: &[&str], words: &[&str]| {
        let words_given = [&["run", "-m", &session.model, "go"], flags].concat();
        let refused = session.casemate.run(&words_given);
        assert_ne!(refused.code(), Some(0), "{refused:?}");
        for word in words {
            assert!(refused.stderr().contains(word), "{word}: {refused:?}");
        }
        assert_eq!(session.casemate.sessions(), Vec::<String>::new());
        let disks = std::fs::read_dir(session.casemate.data_dir().join("sessions"));
        assert_eq!(disks.map_or(0, Iterator::count), 0, "a disk stayed behind");
    };
    check(
        &["--workspace-mode", "overlay", "--sandbox", "landlock"],
        &["the workspace mode `overlay` needs mounts", "direct"],
    );
    check(&["--workspace-mode", "sideways"], &["sideways", "direct, overlay, copy"]);
}
