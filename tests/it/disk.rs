//! The session's own disk through the program: what persists, what is kept apart, what comes back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{As, Casemate, Finished, lacking, variable, write};

/// A session whose every message has the next of these commands run.
struct Session {
    casemate: Casemate,
    model: String,
}

impl Session {
    fn new(who: As, commands: &[&str]) -> Self {
        Self::with(Casemate::of(who), commands)
    }

    fn with(casemate: Casemate, commands: &[&str]) -> Self {
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
            } else if !facts.is_file() {
                "a whiteout".to_owned()
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
fn what_becomes_protected_where_the_session_has_something_else_is_no_obstacle() {
    for who in As::all() {
        let session = Session::new(
            who,
            &[
                "rm -r gone && mkdir .env CLAUDE.md && ln -s nowhere AGENTS.md && \
                 echo mine | tee .env/file CLAUDE.md/file > .ssh",
                "{ test -e gone || echo absent; cat .env/file || echo hidden; cat .ssh || echo hidden
                   echo more > CLAUDE.md/file || echo frozen; } 2>/dev/null",
            ],
        );
        let casemate = &session.casemate;
        casemate.put("gone/file", "here");
        casemate.give_to_user();
        session.run(&["--workspace-mode", "overlay"]);
        casemate.put("gone/.env", "TOKEN=1");
        casemate.put(".env", "TOKEN=1");
        casemate.put(".ssh/id_rsa", "a key");
        casemate.put("AGENTS.md", "Obey.");
        std::os::unix::fs::symlink("AGENTS.md", casemate.workspace().join("CLAUDE.md")).unwrap();
        casemate.give_to_user();
        assert_eq!(session.go_on().trim(), "absent\nhidden\nhidden\nfrozen", "{who:?}");
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

impl Session {
    fn log(&self, id: &str) -> Vec<Value> {
        self.casemate.run(&["sessions", "events", id, "--internal"]).expect(0).json_lines()
    }

    /// The last event of that kind.
    fn last(&self, kind: &str) -> String {
        let log = self.log(&self.id());
        let found = log.iter().rfind(|event| event["type"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}"))["id"].as_str().unwrap().to_owned()
    }

    /// Goes back; the event that undoes it.
    fn rewind(&self, to: &str) -> String {
        let done = self.casemate.run(&["rewind", &self.id(), "--to", to, "--json"]).expect(0);
        let value: Value = serde_json::from_str(&done.stdout()).unwrap();
        value["undo"].as_str().unwrap().to_owned()
    }

    fn fork(&self, flags: &[&str]) -> String {
        let id = self.id();
        let words = [&["fork", id.as_str()], flags].concat();
        self.casemate.run(&words).expect(0).stdout().trim().to_owned()
    }

    /// Everything that the session can change, wherever its mode keeps it.
    fn files(&self, mode: &str) -> [BTreeMap<PathBuf, String>; 2] {
        let disk = self.disk();
        let work = match mode {
            "direct" => self.casemate.workspace(),
            "overlay" => disk.join("layer/upper"),
            _ => disk.join("copy"),
        };
        [look(&work), look(&disk.join("home"))]
    }
}

/// The user messages and the answers that count, in the last request's words: what the model would read.
fn resumed_at(said: &str) -> &str {
    said.lines().next().unwrap_or_default()
}

const WORK: &str = "echo first; mkdir -p src ~/.local/bin; echo one > src/a; ln -s src/a link; \
                    chmod 700 src; echo tool > ~/.local/bin/tool";
const HAVOC: &str = "echo second; rm -rf ./* ~/.local ~/.cache; mkdir src; echo evil > src; echo evil > b; \
                     (while :; do date +%N > background; done) & sleep 0.1";

#[test]
fn a_rewind_takes_back_what_bash_did_and_can_be_taken_back() {
    for who in As::all() {
        for mode in MODES {
            let session = Session::new(who, &[WORK, HAVOC, "echo third; ls"]);
            session.casemate.put("kept", "the user's\n");
            session.casemate.put("deep/er/file", "the user's\n");
            session.casemate.give_to_user();
            let untouched = look(&session.casemate.workspace());
            session.run(&["--workspace-mode", mode]);
            let (good, idle) = (session.files(mode), session.last("session.status_idle"));
            assert_eq!(resumed_at(&session.go_on()), "second", "{who:?} {mode}");
            let bad = session.files(mode);
            assert_ne!(good, bad, "{who:?} {mode}");

            let undo = session.rewind(&idle);
            assert_eq!(session.files(mode), good, "{who:?} {mode}");
            // The model is where it was: it does the same again.
            assert_eq!(resumed_at(&session.go_on()), "second", "{who:?} {mode}");
            session.rewind(&idle);
            assert_eq!(session.files(mode), good, "{who:?} {mode}");
            session.rewind(&undo);
            assert_eq!(session.files(mode), bad, "{who:?} {mode}");
            assert_eq!(resumed_at(&session.go_on()), "third", "{who:?} {mode}");
            if mode != "direct" {
                assert_eq!(look(&session.casemate.workspace()), untouched, "{who:?} {mode}");
            }

            let log = session.log(&session.id());
            for (i, event) in log.iter().enumerate() {
                assert_eq!(event["seq"], i + 1, "the log has a gap");
            }
            let said = log.iter().filter(|event| event["type"] == "agent.message").count();
            assert_eq!(said, 4, "no answer is lost from the log");
        }
    }
}

#[test]
fn every_event_can_be_gone_back_to() {
    let session = Session::new(As::Me, &[WORK, "echo second > src/b; cat src/a", "echo third"]);
    session.casemate.put("kept", "the user's\n");
    let before = look(&session.casemate.workspace());
    session.run(&[]);
    let [first, _] = session.files("direct");
    session.go_on();
    let [second, _] = session.files("direct");
    let log = session.log(&session.id());
    let at = |kind: &str, n: usize| {
        let found = log.iter().filter(|event| event["type"] == kind).nth(n).unwrap();
        found["seq"].as_u64().unwrap()
    };
    let (call, result) = (at("internal.tool_started", 0), at("agent.tool_result", 0));
    let (later_call, later_result) = (at("internal.tool_started", 1), at("agent.tool_result", 1));
    for event in &log {
        let seq = event["seq"].as_u64().unwrap();
        session.rewind(event["id"].as_str().unwrap());
        let expected = match seq {
            _ if seq < result => &before,
            _ if seq < later_result => &first,
            _ => &second,
        };
        assert!(call < result && later_call < later_result);
        assert_eq!(&session.files("direct")[0], expected, "after a rewind to {event}");
        let shown = session.casemate.run(&["sessions", "show", &session.id(), "--json"]).expect(0);
        let shown: Value = serde_json::from_str(&shown.stdout()).unwrap();
        assert_eq!(shown["status"], "idle", "{event}");
        // Whatever was open there is closed: the session takes a message and comes to an end.
        session.casemate.run(&["resume", &session.id(), "go on"]).expect(0);
    }
}

#[test]
fn a_fork_and_its_parent_go_their_own_ways() {
    for who in As::all() {
        for mode in MODES {
            let session =
                Session::new(who, &[WORK, "pwd; echo mine >> src/a; cat src/a kept", "ls ~"]);
            session.casemate.put("kept", "the user's\n");
            session.casemate.give_to_user();
            session.run(&["--workspace-mode", mode]);
            let parent = session.id();
            let idle = session.last("session.status_idle");
            session.go_on();
            let files = session.files(mode);
            let fork = session.fork(&["--at", &idle, "--title", "another way"]);
            assert_ne!(fork, parent);
            let resume = |id: &str| {
                session.casemate.run(&["resume", id, "go on"]).expect(0);
                let log = session.log(id);
                let last = log.iter().rfind(|event| event["type"] == "agent.tool_result");
                last.unwrap()["content"][0]["text"].as_str().unwrap().to_owned()
            };
            let work = session.casemate.workspace().canonicalize().unwrap();
            let expected = format!("{}\none\nmine\nthe user's", work.display());
            assert_eq!(resume(&fork).trim(), expected, "{who:?} {mode}: as the parent was");
            assert_eq!(session.files(mode), files, "{who:?} {mode}: the fork changed its parent");
            // Back before the fork, in the fork: what was the parent's is the fork's own history.
            let before = session.log(&parent)[0]["id"].as_str().unwrap().to_owned();
            session.casemate.run(&["rewind", &fork, "--to", &before]).expect(0);
            assert_eq!(session.files(mode), files, "{who:?} {mode}");
            session.casemate.run(&["sessions", "delete", &parent]).expect(0);
            assert_eq!(resumed_at(&resume(&fork)), "first", "{who:?} {mode}: alone");
        }
    }
}

#[test]
fn a_rewind_that_is_cut_is_carried_out_by_whoever_comes_next() {
    let mut cuts = 0;
    for commit in 1..20 {
        for phase in [":before", ""] {
            let session = Session::new(As::Me, &[WORK, HAVOC, "echo third"]);
            session.run(&[]);
            let (good, idle) = (session.files("direct"), session.last("session.status_idle"));
            session.go_on();
            let at = format!("{commit}{phase}");
            let id = session.id();
            let words = ["rewind", &id, "--to", &idle];
            let cut = session.casemate.run_with(&[("CASEMATE_CRASH_AT", &at)], &words);
            let rewound = session.log(&id).iter().any(|e| e["type"] == "internal.rewound");
            if cut.code() == Some(0) {
                assert!(rewound);
                assert!(cuts >= 3, "only {cuts} cuts: the hook does not work");
                return;
            }
            cuts += 1;
            assert!(cut.was_aborted(), "{cut:?}");
            if !rewound {
                continue; // It was never said; the files were not touched either.
            }
            // A fork is the next to come; it sees what the parent is, not what it was.
            session.fork(&[]);
            assert_eq!(session.files("direct"), good, "cut at {at}");
        }
    }
    panic!("the sweep does not end");
}

#[test]
fn what_cannot_be_gone_back_to_is_named() {
    let session = Session::new(As::Me, &[WORK, "echo second"]);
    session.run(&[]);
    let id = session.id();
    let check = |words: &[&str], expected: &str| {
        let refused = session.casemate.run(words).expect(2);
        assert!(refused.stderr().contains(expected), "{refused:?}");
    };
    let before = (session.files("direct"), session.log(&id).len());
    let none = "sevt_01m86zzzzzzzzzzzzzzzzzzzzz";
    check(&["rewind", &id, "--to", none], &format!("session {id} has no event {none}"));
    check(&["fork", &id, "--at", none], &format!("session {id} has no event {none}"));
    check(&["rewind", "sesn_01m86zzzzzzzzzzzzzzzzzzzzz", "--to", none], "sesn_01m86z");
    check(&["rewind", &id, "--to", "yesterday"], "yesterday");
    assert_eq!((session.files("direct"), session.log(&id).len()), before);
    assert_eq!(session.casemate.sessions(), [id]);
}

#[test]
fn checkpoints_are_listed_with_what_was_taken_back() {
    let session = Session::new(As::Me, &[WORK, "echo second > b"]);
    session.run(&[]);
    let idle = session.last("session.status_idle");
    session.go_on();
    session.rewind(&idle);
    let id = session.id();
    let listed = session.casemate.run(&["checkpoints", &id, "--json"]).expect(0);
    let listed: Vec<Value> = serde_json::from_str(&listed.stdout()).unwrap();
    let current: Vec<_> = listed.iter().map(|one| one["current"].as_bool().unwrap()).collect();
    // Before the call, after it, at the end of the turn; the same again; what was there before the rewind.
    assert_eq!(current, [true, true, true, false, false, false, false]);
    let changed: Vec<_> = listed.iter().map(|one| one["changed"].as_u64().unwrap()).collect();
    assert_eq!(changed[1], 6, "src, src/a, link, .local, .local/bin, the tool: {listed:?}");
    assert_eq!(changed[2..4], [0, 0]);
    let text = session.casemate.run(&["checkpoints", &id]).expect(0).stdout();
    assert_eq!(text.lines().count(), 7);
    assert_eq!(text.matches("taken back").count(), 4, "{text}");
}

#[test]
fn what_is_mounted_in_the_workspace_is_named_and_can_be_copied() {
    let session = Session::new(As::Me, &["cat sub/file"]);
    session.casemate.put("sub/own", "");
    if !nix::unistd::geteuid().is_root() {
        return lacking("mounting something in a workspace takes root");
    }
    let check = |mode: &str| {
        let program = session.casemate.command();
        let line = format!(
            "mount -t tmpfs t sub && echo inner > sub/file && exec {} run -m {} --workspace-mode {mode} go",
            program.get_program().display(),
            session.model
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &line]).current_dir(session.casemate.workspace());
        let env = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        Finished::of(command.env_clear().envs(env).output().unwrap())
    };
    let refused = check("overlay").expect(2);
    for word in ["sub is mounted in it", "--workspace-mode copy"] {
        assert!(refused.stderr().contains(word), "{refused:?}");
    }
    check("copy").expect(0);
    assert_eq!(session.said().trim(), "inner");
}

/// Numbers that nobody can foresee; one seed gives the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// A line of shell that does something to a tree. What cannot be done is not.
    fn act(&mut self) -> String {
        const NAMES: [&str; 9] =
            ["a", "b", "dir", "dir/a", "dir/deep", "'sp ace'", "given", "given/x", "$'\\xff'"];
        let base = self.of(&[".", ".", "~", "~/.local/bin"]);
        let (one, other) = (self.of(&NAMES), self.of(&NAMES));
        let (one, other) = (format!("{base}/{one}"), format!("{base}/{other}"));
        let text = self.below(1000);
        match self.below(11) {
            0..3 => format!("echo {text} > {one}"),
            3 => format!("echo {text} >> {one}"),
            4 => format!("mkdir -p {one}"),
            5 => format!("mv {one} {other}"),
            6 => format!("rm -rf {one}"),
            7 => format!("chmod {} {one}", self.of(&["700", "644", "755", "400", "000"])),
            8 => format!("ln -sfn {} {one}", self.of(&NAMES)),
            9 => format!("ln {one} {other}"),
            _ => format!("(cd {base} && rm -rf ./* )"),
        }
    }

    /// One turn: acts with a writer in the background that ends with them, and an install.
    fn turn(&mut self, number: usize) -> String {
        let acts: Vec<_> = (0..6).map(|_| self.act()).collect();
        format!(
            "mkdir -p ~/.local/bin dir; (while :; do echo $EPOCHREALTIME > dir/ground; done) 2>&- & {}; \
             printf '#!/bin/sh\\necho {number}' > ~/.local/bin/tool$RANDOM; kill $!; wait; chmod -R u+rwX . ~; \
             true) 2>/dev/null; echo turn {number}",
            acts.join("; ")
        )
        .replacen("mkdir", "(mkdir", 1)
    }
}

/// `CASEMATE_TEST_REWINDS` makes it longer.
#[test]
fn after_random_acts_every_moment_can_be_had_again() {
    let rounds: usize = variable("CASEMATE_TEST_REWINDS").map_or(1, |n| n.parse().unwrap());
    let seed = RandomState::new().hash_one("seed") | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    for (who, mode) in As::all().into_iter().flat_map(|who| MODES.map(|mode| (who, mode))) {
        for _ in 0..rounds {
            let turns: Vec<_> = (0..5).map(|number| dice.turn(number)).collect();
            let turns: Vec<_> = turns.iter().map(String::as_str).collect();
            let session = Session::new(who, &turns);
            session.casemate.put("given/x", "the user's\n");
            session.casemate.give_to_user();
            assert_eq!(resumed_at(&session.run(&["--workspace-mode", mode])), "turn 0");
            let mut moments = vec![(session.last("session.status_idle"), session.files(mode))];
            for number in 1..4 {
                assert_eq!(session.go_on().trim(), format!("turn {number}"));
                moments.push((session.last("session.status_idle"), session.files(mode)));
            }
            assert!(moments.windows(2).all(|pair| pair[0].1 != pair[1].1), "nothing was done");
            for _ in 0..6 {
                let number = dice.below(moments.len());
                let (event, files) = &moments[number];
                session.rewind(event);
                assert_eq!(
                    &session.files(mode),
                    files,
                    "{who:?} {mode}: turn {number} of {turns:#?}"
                );
                if dice.below(2) == 0 {
                    assert_eq!(session.go_on().trim(), format!("turn {}", number + 1));
                }
            }
        }
    }
}

impl Session {
    /// What `diff` lists: the change, the path, and whether the user changed it too.
    fn diff(&self) -> Vec<String> {
        let done = self.casemate.run(&["diff", &self.id(), "--json"]).expect(0);
        let listed: Vec<Value> = serde_json::from_str(&done.stdout()).unwrap();
        let line = |one: &Value| {
            let conflict = if one["conflict"] == true { " !" } else { "" };
            format!(
                "{} {}{conflict}",
                one["change"].as_str().unwrap(),
                one["path"].as_str().unwrap()
            )
        };
        listed.iter().map(line).collect()
    }

    fn workspace(&self) -> PathBuf {
        self.casemate.workspace()
    }
}

const EDITS: &str = "echo two >> text; rm -r gone; mkdir -p new/deep; echo x > new/deep/x; chmod +x tool; \
                     ln -s text link; rm -r swap; echo file > swap; rm -r anew; mkdir anew; echo y > anew/y; \
                     printf '\\0\\1' > binary; cat text";
const EDITED: [&str; 12] = [
    "added anew/y",
    "added binary",
    "added link",
    "added new",
    "added new/deep",
    "added new/deep/x",
    "changed swap",
    "changed text",
    "mode tool",
    "removed anew/x",
    "removed gone",
    "removed swap/x",
];

/// A session that has made every kind of change to its own version.
fn edited(who: As, mode: &str) -> Session {
    let session = Session::new(who, &[EDITS, "cat text tool; ls"]);
    for name in ["gone/deep/x", "swap/x", "anew/x", "untouched"] {
        session.casemate.put(name, "the user's\n");
    }
    session.casemate.put("text", "one\n");
    session.casemate.put("tool", "#!/bin/sh\n");
    session.casemate.give_to_user();
    // Older than the session by more than the kernel's timer can tell.
    std::thread::sleep(std::time::Duration::from_millis(30));
    session.run(&["--workspace-mode", mode]);
    session
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn what_a_session_changed_is_listed_applied_and_then_the_same() {
    for who in As::all() {
        for mode in &MODES[1..] {
            let session = edited(who, mode);
            let mut expected: Vec<_> = EDITED.map(str::to_owned).into();
            expected.extend(["removed gone/deep".to_owned(), "removed gone/deep/x".to_owned()]);
            assert_eq!(sorted(session.diff()), sorted(expected), "{who:?} {mode}");
            let text = session.casemate.run(&["diff", &session.id()]).expect(0).stdout();
            assert!(text.contains("--- a/text\n+++ b/text\n@@ -1 +1,2 @@\n one\n+two\n"), "{text}");
            assert!(text.contains("added binary\nremoved gone\n"), "{text}");

            let id = session.id();
            session.casemate.run(&["apply", &id, "text", "new"]).expect(0);
            let read =
                |name: &str| std::fs::read_to_string(session.workspace().join(name)).unwrap();
            assert_eq!((read("text"), read("new/deep/x")), ("one\ntwo\n".into(), "x\n".into()));
            assert!(session.workspace().join("gone").exists(), "only what was named");
            session.casemate.run(&["apply", &id]).expect(0);
            assert_eq!(session.diff(), Vec::<String>::new(), "{who:?} {mode}");
            assert_eq!(read("swap"), "file\n");
            assert_eq!(read("untouched"), "the user's\n");
            assert!(!session.workspace().join("gone").exists());
            assert_eq!(session.workspace().join("tool").metadata().unwrap().mode() & 0o111, 0o111);
            let owner =
                |name: &str| session.workspace().join(name).symlink_metadata().unwrap().uid();
            let mine = session.workspace().metadata().unwrap().uid();
            for name in ["text", "new", "new/deep/x", "link", "swap"] {
                assert_eq!(owner(name), mine, "{who:?} {mode}: {name} belongs to another");
            }
            let last = session.log(&id).pop().unwrap();
            assert_eq!(last["type"], "internal.applied");
        }
    }
}

/// What the files of that size below a directory take of the disk.
fn room(root: &Path, size: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let facts = path.symlink_metadata().unwrap();
        if facts.is_dir() {
            found.extend(room(&path, size));
        } else if facts.len() == size {
            found.push(facts.blocks() * 512);
        }
    }
    found
}

#[test]
fn a_hole_takes_no_room_in_a_checkpoint_nor_where_it_is_applied() {
    const SIZE: u64 = (1 << 30) + 4;
    for (who, mode) in As::all().into_iter().zip(["overlay", "copy"]) {
        let session = Session::new(who, &["truncate -s 1G image && echo end >> image", "rm image"]);
        session.run(&["--workspace-mode", mode]);
        let idle = session.last("session.status_idle");
        session.go_on();
        session.rewind(&idle);
        let kept = room(&session.casemate.data_dir(), SIZE);
        session.casemate.run(&["apply", &session.id()]).expect(0);
        let applied = room(&session.workspace(), SIZE);
        assert_eq!((kept.len() > 1, applied.len()), (true, 1), "{who:?} {mode}");
        for room in kept.into_iter().chain(applied) {
            assert!(room < 1 << 20, "{who:?} {mode}: {room} bytes");
        }
    }
}

#[test]
fn what_the_users_own_programs_obey_is_named_when_it_is_applied() {
    let session = Session::new(
        As::Me,
        &["git init -q . 2>&1; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit"],
    );
    let model = &session.model;
    let words = ["run", "-m", model, "--workspace-mode", "overlay", "go"];
    let run = session.casemate.run(&words).expect(0);
    assert!(run.stderr().contains(&format!("casemate diff {}", session.id())), "{run:?}");
    let applied = session.casemate.run(&["apply", &session.id()]).expect(0);
    for word in ["look before you use git", ".git/hooks"] {
        assert!(applied.stderr().contains(word), "{applied:?}");
    }
}

#[test]
fn what_is_discarded_is_the_users_again() {
    for who in As::all() {
        for mode in &MODES[1..] {
            let session = edited(who, mode);
            let before = look(&session.workspace());
            let id = session.id();
            session.casemate.run(&["discard", &id, "text", "gone"]).expect(0);
            let left = session.diff();
            assert!(
                !left.iter().any(|one| one.contains("text") || one.contains("gone")),
                "{left:?}"
            );
            session.casemate.run(&["discard", &id]).expect(0);
            assert_eq!(session.diff(), Vec::<String>::new(), "{who:?} {mode}");
            assert_eq!(look(&session.workspace()), before, "{who:?} {mode}");
            let said = session.go_on();
            let expected = "one\n#!/bin/sh\nanew\ngone\nswap\ntext\ntool\nuntouched";
            assert_eq!(said.trim(), expected, "{who:?} {mode}");
        }
    }
}

#[test]
fn what_both_changed_is_merged_or_takes_a_choice() {
    for mode in &MODES[1..] {
        let session = edited(As::Me, mode);
        let id = session.id();
        session.casemate.put("text", "one, mine\n");
        session.casemate.put("tool", "#!/bin/sh\n# mine\n");
        let before = look(&session.workspace());
        let listed = session.diff();
        assert!(listed.contains(&"changed text !".to_owned()), "{mode}: {listed:?}");
        let refused = session.casemate.run(&["apply", &id]).expect(1);
        for word in ["text", "--ours", "--theirs"] {
            assert!(refused.stderr().contains(word), "{mode}: {refused:?}");
        }
        assert_eq!(look(&session.workspace()), before, "{mode}: something was done");
        session.casemate.run(&["apply", &id, "--theirs"]).expect(0);
        let read = |name: &str| std::fs::read_to_string(session.workspace().join(name)).unwrap();
        assert_eq!(read("text"), "one, mine\n", "{mode}");
        assert_eq!(read("swap"), "file\n", "{mode}: the others are applied");
        session.casemate.run(&["apply", &id, "text", "--ours"]).expect(0);
        assert_eq!(read("text"), "one\ntwo\n", "{mode}");
    }
}

#[test]
fn changes_of_one_text_that_do_not_meet_are_put_together_for_both() {
    let session = Session::new(As::Me, &["echo last >> text", "cat text"]);
    session.casemate.put("text", "1\n2\n3\n4\n");
    session.run(&["--workspace-mode", "copy"]);
    session.casemate.put("text", "first\n1\n2\n3\n4\n");
    session.casemate.run(&["apply", &session.id()]).expect(0);
    let both = "first\n1\n2\n3\n4\nlast\n";
    assert_eq!(std::fs::read_to_string(session.workspace().join("text")).unwrap(), both);
    assert_eq!(session.diff(), Vec::<String>::new());
    assert_eq!(session.go_on() + "\n", both, "the session has them too");
}

#[test]
fn in_an_overlay_both_changes_are_put_together_too() {
    for who in As::all() {
        let session =
            Session::new(who, &["echo last >> text; echo more >> text", "cat text", "cat text"]);
        session.casemate.put("text", "1\n2\n3\n4\n");
        session.casemate.give_to_user();
        // Older than the session by more than the kernel's timer can tell.
        std::thread::sleep(std::time::Duration::from_millis(30));
        session.run(&["--workspace-mode", "overlay"]);
        session.casemate.put("text", "first\n1\n2\n3\n4\n");
        session.casemate.run(&["apply", &session.id()]).expect(0);
        let text = || std::fs::read_to_string(session.workspace().join("text")).unwrap();
        assert_eq!(text(), "first\n1\n2\n3\n4\nlast\nmore\n", "{who:?}");
        assert_eq!(session.diff(), Vec::<String>::new(), "{who:?}");
        assert_eq!(session.go_on() + "\n", text(), "{who:?}: the session has them too");
        // What the user changes from here on is his alone, as before.
        session.casemate.put("text", "first\n1\n2\n3\n4\nlast\n");
        session.casemate.run(&["discard", &session.id()]).expect(0);
        assert_eq!(session.diff(), Vec::<String>::new(), "{who:?}");
        assert_eq!(session.go_on() + "\n", text(), "{who:?}");
    }
}

#[test]
fn a_file_that_the_user_changed_before_the_session_did_is_no_conflict_of_the_past() {
    let session = Session::new(As::Me, &["echo ours > other", "echo ours >> text"]);
    session.casemate.put("text", "1\n");
    session.run(&["--workspace-mode", "overlay"]);
    session.casemate.put("text", "1\n2\n");
    std::thread::sleep(std::time::Duration::from_millis(30));
    session.go_on();
    assert_eq!(session.diff(), ["added other", "changed text"], "only the session changed it");
    session.casemate.run(&["apply", &session.id()]).expect(0);
    let text = std::fs::read_to_string(session.workspace().join("text")).unwrap();
    assert_eq!(text, "1\n2\nours\n");
}

#[test]
fn lines_that_both_changed_are_named_and_the_sessions_version_can_lie_beside() {
    for mode in &MODES[1..] {
        let session =
            Session::new(As::Me, &["printf '1\\nB\\n3\\n4\\n5\\nF\\n' > text; echo x > new"]);
        session.casemate.put("text", "1\n2\n3\n4\n5\n6\n");
        std::thread::sleep(std::time::Duration::from_millis(30));
        session.run(&["--workspace-mode", mode]);
        session.casemate.put("text", "0\n1\nmine\nmore\n3\n4\n5\n6\n");
        let (id, before) = (session.id(), look(&session.workspace()));
        let refused = session.casemate.run(&["apply", &id]).expect(1);
        for word in ["text (at your lines 3-4)", "--ours", "--theirs", "--beside"] {
            assert!(refused.stderr().contains(word), "{mode}: {refused:?}");
        }
        assert_eq!(look(&session.workspace()), before, "{mode}: something was done");
        session.casemate.run(&["apply", &id, "--beside"]).expect(0);
        let read = |name: &str| std::fs::read_to_string(session.workspace().join(name)).unwrap();
        assert_eq!(read("text"), "0\n1\nmine\nmore\n3\n4\n5\n6\n", "{mode}");
        assert_eq!(read("text.casemate-session"), "1\nB\n3\n4\n5\nF\n", "{mode}");
        assert_eq!(read("new"), "x\n", "{mode}");
        let refused = session.casemate.run(&["apply", &id, "--beside"]).expect(1);
        assert!(refused.stderr().contains("is there already"), "{mode}: {refused:?}");
    }
}

#[test]
fn an_apply_or_a_discard_that_is_cut_is_said_all_the_same() {
    for (command, said) in [("apply", "internal.applied"), ("discard", "internal.discarded")] {
        let mut cuts = 0;
        'sweep: for commit in 1..20 {
            for phase in [":before", ""] {
                let session = Session::new(As::Me, &["echo ours > text; echo x > new"]);
                session.casemate.put("text", "theirs\n");
                session.run(&["--workspace-mode", "overlay"]);
                let (id, at) = (session.id(), format!("{commit}{phase}"));
                let (before, differed) = (look(&session.workspace()), session.diff());
                let cut = session.casemate.run_with(&[("CASEMATE_CRASH_AT", &at)], &[command, &id]);
                let log = session.log(&id);
                let begun = log.iter().any(|e| {
                    e["type"] == "internal.applying" || e["type"] == "internal.discarding"
                });
                let left = session.diff();
                let done = look(&session.workspace()) != before || left != differed;
                assert!(begun || !done, "{command} cut at {at}: something was done and not said");
                if cut.code() == Some(0) {
                    assert!(cuts >= 3, "only {cuts} cuts: the hook does not work");
                    break 'sweep;
                }
                cuts += 1;
                assert!(cut.was_aborted(), "{cut:?}");
                let log = session.log(&id);
                let told: Vec<_> = log.iter().filter(|e| e["type"] == said).collect();
                assert_eq!(told.len(), usize::from(begun), "{command} cut at {at}: {told:?}");
                if let Some(told) = told.first() {
                    let paths = json!(if done { vec!["new", "text"] } else { vec![] });
                    assert_eq!(told[&said["internal.".len()..]], paths, "{command} cut at {at}");
                }
                // Said once, and what was not done can be done now.
                session.casemate.run(&[command, &id]).expect(0);
                assert_eq!(session.diff(), Vec::<String>::new(), "{command} cut at {at}");
            }
        }
        assert!(cuts >= 3, "the sweep does not end");
    }
}

#[test]
fn an_apply_follows_no_link_that_the_user_or_the_session_laid() {
    for mode in &MODES[1..] {
        let session = Session::new(As::Me, &["echo evil > dir/x; ln -s /etc out; echo well"]);
        session.casemate.put("dir/own", "");
        session.run(&["--workspace-mode", mode]);
        let outside = session.casemate.home().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::remove_dir_all(session.workspace().join("dir")).unwrap();
        std::os::unix::fs::symlink(&outside, session.workspace().join("dir")).unwrap();
        session.casemate.run(&["apply", &session.id(), "dir/x", "--ours"]).expect(1);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{mode}");
        session.casemate.run(&["apply", &session.id(), "out"]).expect(0);
        assert!(session.workspace().join("out").is_symlink(), "{mode}: a link stays a link");
    }
}

#[test]
fn a_name_of_casemates_own_making_is_neither_lost_nor_in_the_way() {
    for who in As::all() {
        for mode in &MODES[1..] {
            let theirs = Session::new(who, &["echo new > text"]);
            theirs.casemate.put("text", "old\n");
            theirs.casemate.put(".casemate-apply", "the user's\n");
            theirs.casemate.give_to_user();
            theirs.run(&["--workspace-mode", mode]);
            theirs.casemate.run(&["apply", &theirs.id()]).expect(0);
            let read = |session: &Session, name| {
                std::fs::read_to_string(session.workspace().join(name)).unwrap()
            };
            assert_eq!(read(&theirs, "text"), "new\n", "{who:?} {mode}");
            assert_eq!(read(&theirs, ".casemate-apply"), "the user's\n", "{who:?} {mode}");

            let taken = "mkdir .casemate-apply; echo x > .casemate-apply/x; echo new > text; \
                         ln -s text link";
            let hostile = Session::new(who, &[taken]);
            hostile.casemate.put("text", "old\n");
            hostile.casemate.give_to_user();
            hostile.run(&["--workspace-mode", mode]);
            hostile.casemate.run(&["apply", &hostile.id()]).expect(0);
            assert_eq!(read(&hostile, "text"), "new\n", "{who:?} {mode}");
            assert_eq!(read(&hostile, ".casemate-apply/x"), "x\n", "{who:?} {mode}");
            let names = look(&hostile.workspace()).into_keys();
            let own = names.filter(|path| path.to_string_lossy().contains(".casemate-apply-"));
            assert_eq!(own.count(), 0, "{who:?} {mode}: something is left beside");
        }
    }
}

#[test]
fn what_is_applied_has_nobodys_rights_and_is_no_door_to_elsewhere() {
    for who in As::all() {
        for mode in &MODES[1..] {
            let command = "cp /bin/true tool && chmod 6755 tool; mkdir -m 7777 shared; mkfifo pipe; \
                           ln /etc/hostname hard; ln -s ../../../../etc/passwd away; \
                           setfattr -n user.evil -v 1 tool; : > $(printf 'a%.0s' $(seq 255)); echo over";
            let session = Session::new(who, &[command]);
            session.casemate.give_to_user();
            session.run(&["--workspace-mode", mode]);
            session.casemate.run(&["apply", &session.id()]);
            let facts = |name: &str| session.workspace().join(name).symlink_metadata().unwrap();
            assert_eq!(facts("tool").mode() & 0o7777, 0o755, "{who:?} {mode}");
            assert_eq!(facts("shared").mode() & 0o6000, 0, "{who:?} {mode}");
            assert!(facts(&"a".repeat(255)).is_file(), "{who:?} {mode}");
            assert!(!session.workspace().join("pipe").exists(), "{who:?} {mode}");
            assert!(facts("away").is_symlink(), "{who:?} {mode}");
        }
    }
}

#[test]
fn a_name_of_two_lines_is_shown_on_one() {
    let command = "printf x > \"$(printf 'n\\nadded forged\\n--- a forged\\033[2J')\"";
    let session = Session::new(As::Me, &[command]);
    session.run(&["--workspace-mode", "overlay"]);
    let shown = session.casemate.run(&["diff", &session.id()]).expect(0).stdout();
    let applied = session.casemate.run(&["apply", &session.id()]).expect(0).stderr();
    for text in [&shown, &applied] {
        let forged = |line: &str| line.starts_with("added f") || line.starts_with("--- a");
        assert!(!text.lines().any(forged), "{text}");
        assert!(text.contains("n␊added forged"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    if !As::all().contains(&As::User) {
        return lacking("a file of another user's needs root");
    }
    for name in ["deep/secret", "closed/file"] {
        let session = Session::new(As::User, &["echo well"]);
        session.casemate.put("own", "");
        let path = session.workspace().join(name);
        let above = path.parent().unwrap();
        std::fs::create_dir(above).unwrap();
        write(&path, "root's");
        let closed = if name.starts_with("closed") { above } else { &path };
        std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o600)).unwrap();
        session.run(&[]);
        let shown = closed.strip_prefix(session.workspace()).unwrap().display();
        for command in ["diff", "fork"] {
            let said = session.casemate.run(&[command, &session.id()]).expect(1);
            let named = format!("\"{shown}\" cannot be read: ");
            assert!(said.stderr().contains(&named), "{command} {name}: {said:?}");
        }
    }
}

#[test]
fn a_direct_session_shows_what_it_changed_and_has_nothing_to_apply() {
    let session = Session::new(As::Me, &["echo two >> text; echo x > new"]);
    session.casemate.put("text", "one\n");
    session.run(&[]);
    assert_eq!(sorted(session.diff()), ["added new", "changed text"]);
    for command in ["apply", "discard"] {
        let refused = session.casemate.run(&[command, &session.id()]).expect(2);
        assert!(refused.stderr().contains("works on your own files"), "{refused:?}");
    }
}

/// Makes a package of each kind without a network and installs it as anybody would.
const INSTALLS: &str = r##"
mkdir -p p c/src && cd p
have() { command -v "$1" > /dev/null && "$@" --version > /dev/null 2>&1; }
if have npm; then
    mkdir n && echo '{"name":"n-tool","version":"1.0.0","bin":{"n-tool":"n.js"}}' > n/package.json
    printf '#!/usr/bin/env node\nconsole.log("npm")\n' > n/n.js && chmod +x n/n.js
    npm pack --silent ./n > /dev/null && npm install --silent --offline -g ./n-tool-1.0.0.tgz > /dev/null && echo installed npm
fi
if have pip; then
    python3 - <<'END'
import zipfile
with zipfile.ZipFile('p_tool-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('p_tool.py', 'def main():\n    print("pip")\n')
    info = 'p_tool-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: p-tool\nVersion: 1.0\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(info + 'entry_points.txt', '[console_scripts]\np-tool = p_tool:main\n')
    wheel.writestr(info + 'RECORD', '')
END
    # pyenv's wrapper says 1 after it: it would write its shims beside the user's interpreters.
    pip install --quiet --no-index ./p_tool-1.0-py3-none-any.whl > /dev/null 2>&1
    python3 -c 'import p_tool' && echo installed pip
fi
if have cargo; then
    printf '[package]\nname = "c-tool"\nversion = "1.0.0"\nedition = "2021"\n' > ../c/Cargo.toml
    echo 'fn main() { println!("cargo") }' > ../c/src/main.rs
    cargo install --quiet --offline --path ../c 2> /dev/null && echo installed cargo
fi
if command -v go > /dev/null; then
    mkdir g && cd g && printf 'module example.org/g-tool\ngo 1.18\n' > go.mod
    printf 'package main\nfunc main() { println("go") }\n' > main.go
    go install . && echo installed go
    cd ..
fi
if have gem; then
    mkdir -p r/bin && cd r && printf '#!/usr/bin/env ruby\nputs "gem"\n' > bin/r-tool
    printf 'Gem::Specification.new do |s|\ns.name="r-tool"\ns.version="1.0"\ns.summary="t"\ns.authors=["t"]\ns.files=["bin/r-tool"]\ns.executables=["r-tool"]\nend\n' > r.gemspec
    gem build --quiet r.gemspec > /dev/null 2>&1 && gem install --quiet --local r-tool-1.0.gem > /dev/null 2>&1 && echo installed gem
fi
"##;

#[test]
fn what_package_managers_install_is_there_in_the_next_sandbox() {
    for who in As::all() {
        let tools = "n-tool; p-tool; c-tool; g-tool; r-tool";
        let session =
            Session::new(who, &[INSTALLS, &format!("({tools}) 2>&1 | grep -v 'not found'")]);
        let done = session.run(&["--workspace-mode", "overlay"]);
        let installed: Vec<_> =
            done.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
        for manager in ["npm", "pip", "cargo", "go", "gem"] {
            if installed.contains(&manager) {
                continue;
            }
            let text = format!("{manager} is not on this machine, or not for {who:?}: {done}");
            // Toolchains that a machine need not have are left out, loudly.
            if matches!(manager, "npm" | "pip") {
                lacking(&text);
            } else {
                eprintln!("NOT TESTED: {text}");
            }
        }
        assert!(!installed.is_empty(), "{who:?}: {done}");
        assert_eq!(session.go_on().lines().collect::<Vec<_>>(), installed, "{who:?}");
    }
}

/// A file system of its own for a test, gone with the value.
struct FileSystem(tempfile::TempDir);

impl FileSystem {
    /// Made in memory, or in a file; nothing, if this machine cannot make one.
    fn make(kind: &str, size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("at"));
        std::fs::create_dir(&at).unwrap();
        let line = match kind {
            "tmpfs" => format!("mount -t tmpfs -o size={size} tmpfs {}", at.display()),
            "overlay" => format!(
                "cd {} && mkdir low up work && mount -t overlay -o lowerdir=low,upperdir=up,workdir=work o {}",
                dir.path().display(),
                at.display()
            ),
            _ => format!(
                "truncate -s {size} {0} && mkfs.{kind} -q {0} && mount -o loop {0} {1}",
                image.display(),
                at.display()
            ),
        };
        let made = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        made.status.success().then_some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still hold it.
        drop(std::process::Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

#[test]
fn files_come_back_on_every_file_system() {
    for kind in ["ext4", "tmpfs", "btrfs", "xfs"] {
        let Some(place) = FileSystem::make(kind, "400M") else {
            lacking(&format!("this machine or this user cannot make {kind}"));
            continue;
        };
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for (who, mode) in As::all().into_iter().flat_map(|who| MODES.map(|mode| (who, mode))) {
            let casemate = Casemate::below(&place.path(), who);
            let session = Session::with(casemate, &[WORK, HAVOC]);
            session.casemate.put("kept", "the user's\n");
            session.run(&["--workspace-mode", mode]);
            let (good, idle) = (session.files(mode), session.last("session.status_idle"));
            session.go_on();
            assert_ne!(session.files(mode), good, "{kind} {who:?} {mode}");
            session.rewind(&idle);
            assert_eq!(session.files(mode), good, "{kind} {who:?} {mode}");
            session.fork(&[]);
        }
    }
}

/// The disk of a session, its own and what is sealed of it.
fn sealed(casemate: &Casemate) -> PathBuf {
    casemate.data_dir().join("sealed")
}

#[test]
fn a_fork_of_files_is_a_layer_over_links_to_what_was_sealed() {
    for who in As::all() {
        for mode in ["direct", "copy"] {
            let work =
                "echo new > made; echo more >> text; rm gone; mkdir d; echo x > d/x; cat text";
            let session =
                Session::new(who, &[work, "rm -r d made; echo last >> text; cat text; ls", "ls"]);
            session.casemate.put("text", "one\n");
            session.casemate.put("gone", "");
            session.casemate.put("kept/file", "the user's\n");
            session.casemate.give_to_user();
            session.run(&["--workspace-mode", mode]);
            let (parent, files, differs) = (session.id(), session.files(mode), session.diff());
            let fork = session.fork(&[]);
            let disk = session.casemate.data_dir().join("sessions").join(&fork);
            assert!(!disk.join("copy").exists(), "{who:?} {mode}: it was copied");
            assert_eq!(look(&disk.join("layer/upper")), BTreeMap::new(), "{who:?} {mode}");
            let trees = sealed(&session.casemate).join("disks").join(&parent).join("trees");
            let trees: Vec<_> = std::fs::read_dir(&trees).unwrap().flatten().collect();
            let [tree] = &trees[..] else { panic!("{who:?} {mode}: {trees:?}") };
            assert_eq!(look(&tree.path()), files[0], "{who:?} {mode}");
            assert!(
                tree.path().join("text").metadata().unwrap().nlink() > 1,
                "{who:?} {mode}: a copy"
            );

            // The fork shows what the parent does, and both go their own ways from there.
            let diff = |id: &str| {
                let done = session.casemate.run(&["diff", id, "--json"]).expect(0);
                serde_json::from_str::<Vec<Value>>(&done.stdout()).unwrap()
            };
            let paths = |id: &str| {
                let listed = diff(id);
                listed
                    .iter()
                    .map(|one| one["path"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            if mode == "copy" {
                assert_eq!(diff(&fork), diff(&parent), "{who:?}");
                assert_eq!(differs.len(), 5, "{differs:?}");
            }
            session.casemate.run(&["resume", &fork, "go on"]).expect(0);
            assert_eq!(session.files(mode), files, "{who:?} {mode}: the parent has changed");
            assert_eq!(look(&tree.path()), files[0], "{who:?} {mode}: the sealed tree has changed");
            let log = session.log(&fork);
            let result = log.iter().rfind(|event| event["type"] == "agent.tool_result").unwrap();
            let said = result["content"][0]["text"].as_str().unwrap();
            assert_eq!(said.trim(), "one\nmore\nlast\nkept\ntext", "{who:?} {mode}");

            // Back to a moment of the parent's, and on to the present again.
            let first = log.iter().find(|event| event["type"] == "internal.sealed").unwrap();
            let first = first["id"].as_str().unwrap();
            let now = look(&disk.join("layer/upper"));
            let done = session.casemate.run(&["rewind", &fork, "--to", first, "--json"]).expect(0);
            let undo: Value = serde_json::from_str(&done.stdout()).unwrap();
            if mode == "copy" {
                assert_eq!(paths(&fork), Vec::<String>::new(), "{who:?}: as it began");
            }
            let undo = undo["undo"].as_str().unwrap();
            session.casemate.run(&["rewind", &fork, "--to", undo]).expect(0);
            assert_eq!(look(&disk.join("layer/upper")), now, "{who:?} {mode}");

            // A fork of the fork, which outlives both.
            let done = session.casemate.run(&["fork", &fork]).expect(0);
            let last = done.stdout().trim().to_owned();
            for gone in [&parent, &fork] {
                session.casemate.run(&["sessions", "delete", gone]).expect(0);
            }
            session.casemate.run(&["resume", &last, "go on"]).expect(0);
            if mode == "copy" {
                session.casemate.run(&["apply", &last]).expect(0);
                let text = std::fs::read_to_string(session.workspace().join("text")).unwrap();
                assert_eq!(text, "one\nmore\nlast\n", "{who:?}");
                assert!(!session.workspace().join("gone").exists(), "{who:?}");
                assert_eq!(diff(&last), Vec::<Value>::new(), "{who:?}");
                session.casemate.put("kept/file", "changed\n");
                session.casemate.put("gone", "again\n");
                session.casemate.run(&["discard", &last]).expect(0);
                assert_eq!(diff(&last), Vec::<Value>::new(), "{who:?}");
            }
            session.casemate.run(&["sessions", "delete", &last]).expect(0);
            let left = look(&sealed(&session.casemate));
            let left: Vec<_> = left.keys().map(|path| path.display().to_string()).collect();
            assert_eq!(left, ["contents", "disks", "lock"], "{who:?} {mode}: something stayed");
        }
    }
}

#[test]
fn what_one_session_sealed_of_the_users_files_is_not_copied_for_the_next() {
    for mode in ["direct", "copy"] {
        let session = Session::new(As::Me, &["echo x > new", "echo y > new"]);
        session.casemate.put("text", "one\n");
        std::thread::sleep(std::time::Duration::from_millis(30));
        session.run(&["--workspace-mode", mode]);
        let contents = || look(&sealed(&session.casemate).join("contents")).len();
        let shared = contents();
        assert!(shared > 0, "{mode}: nothing is shared");
        session
            .casemate
            .run(&["run", "-m", &session.model, "--workspace-mode", mode, "go"])
            .expect(0);
        let sessions = session.casemate.sessions();
        let [one, other] = &sessions[..] else { panic!("{sessions:?}") };
        let disks = sealed(&session.casemate).join("disks");
        let inodes = |id: &str| {
            let objects = std::fs::read_dir(disks.join(id).join("work/objects")).unwrap();
            let of = |path: PathBuf| {
                let text = std::fs::read_to_string(&path).unwrap();
                (text == "one\n").then(|| path.metadata().unwrap().ino())
            };
            objects.flatten().filter_map(|object| of(object.path())).collect::<Vec<_>>()
        };
        assert_eq!(inodes(one).len(), 1, "{mode}");
        assert_eq!(inodes(one), inodes(other), "{mode}: it was copied again");
        for id in &sessions {
            session.casemate.run(&["sessions", "delete", id]).expect(0);
        }
        assert_eq!(contents(), 0, "{mode}: contents of nobody stayed");
    }
}

#[test]
fn where_no_layer_can_be_had_a_fork_is_a_copy() {
    let Some(place) = FileSystem::make("overlay", "64M") else {
        return lacking("this machine or this user cannot make an overlay");
    };
    let casemate = Casemate::below(&place.path(), As::Me);
    let session = Session::with(casemate, &[WORK, "cat src/a kept"]);
    session.casemate.put("kept", "the user's\n");
    session.run(&["--workspace-mode", "copy"]);
    let files = session.files("copy");
    let fork = session.fork(&[]);
    let copy = session.casemate.data_dir().join("sessions").join(&fork).join("copy");
    assert_eq!(look(&copy), files[0]);
    session.casemate.run(&["resume", &fork, "go on"]).expect(0);
}

#[test]
fn a_full_disk_while_sealing_is_said_and_the_turn_goes_on() {
    let Some(place) = FileSystem::make("tmpfs", "24M") else {
        return lacking("a small disk takes root");
    };
    let casemate = Casemate::below(&place.path(), As::Me);
    let fill = "head -c 9000000 /dev/urandom > big; echo done";
    let session = Session::with(
        casemate,
        &[fill, "head -c 4000000 /dev/urandom > more; echo done", "rm more big; echo done"],
    );
    assert_eq!(session.run(&[]).trim(), "done");
    let idle = session.last("session.status_idle");
    assert_eq!(session.go_on().trim(), "done");
    let said = |kind: &str| {
        let log = session.log(&session.id());
        log.into_iter().filter(|event| event["type"] == kind).collect::<Vec<_>>()
    };
    let unsealed = said("internal.unsealed");
    assert_eq!(unsealed.len(), 1, "once, not after each step: {unsealed:?}");
    assert!(unsealed[0]["message"].as_str().unwrap().contains("No space left"), "{unsealed:?}");
    // What cannot be sealed first is not taken back; nothing is half done.
    let (before, id) = (session.files("direct"), session.id());
    let refused = session.casemate.run(&["rewind", &id, "--to", &idle]).expect(1);
    assert!(refused.stderr().contains("No space left"), "{refused:?}");
    assert_eq!((session.files("direct"), said("internal.rewound").len()), (before, 0));
    assert_eq!(session.go_on().trim(), "done");
    session.rewind(&idle);
    assert!(session.casemate.workspace().join("big").exists());
}

#[test]
fn a_fork_that_is_cut_is_whole_or_leaves_nothing() {
    let mut cuts = 0;
    for commit in 1..20 {
        for phase in [":before", ""] {
            let session = Session::new(As::Me, &[WORK, "cat src/a"]);
            session.run(&[]);
            let (id, files, at) =
                (session.id(), session.files("direct"), format!("{commit}{phase}"));
            let cut = session.casemate.run_with(&[("CASEMATE_CRASH_AT", &at)], &["fork", &id]);
            if cut.code() == Some(0) {
                assert!(cuts >= 3, "only {cuts} cuts: the hook does not work");
                return;
            }
            cuts += 1;
            assert!(cut.was_aborted(), "{cut:?}");
            session.casemate.run(&["resume", &id, "go on"]).expect(0);
            assert_eq!((session.said().trim(), &session.files("direct")), ("one", &files), "{at}");
            let sessions = session.casemate.sessions();
            let disks = std::fs::read_dir(session.casemate.data_dir().join("sessions")).unwrap();
            assert_eq!(disks.count(), sessions.len(), "cut at {at}: a disk without a session");
            for fork in sessions.iter().filter(|one| **one != id) {
                session.casemate.run(&["resume", fork, "go on"]).expect(0);
            }
        }
    }
    panic!("the sweep does not end");
}
