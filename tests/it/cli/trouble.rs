//! Runs that go wrong: the exit code, a sentence that names the thing and the way out, and a session that goes on.

use std::path::Path;
use std::process::Command;

use super::{HELLO, WORKS_ON, demand, events, of_type, texts};
use crate::support::{As, Casemate, until};

/// A run of this script fails with these words; a further message finishes it.
#[track_caller]
fn check_failure(script: &str, flags: &[&str], words: &[&str]) {
    let casemate = Casemate::new();
    let model = casemate.script(script);
    let run = casemate.run(&[&["run", "-m", &model, "go"], flags].concat()).expect(1);
    demand(&run, words);
    demand(&run, &["✗ failed after ", "casemate resume sesn_"]);
    let listed = casemate.run(&["sessions", "list"]).expect(0);
    assert!(listed.stdout().contains("  failed  "), "{listed:?}");
    casemate.script("turns: [{ text: Better now., repeat: 9 }]");
    let resumed = casemate.run(&["resume", "try something else"]).expect(0);
    assert!(resumed.stdout().ends_with("Better now.\n"), "{resumed:?}");
}

#[test]
fn a_model_that_answers_nothing() {
    check_failure(
        "turns: [{ errors: [empty, empty, empty], text: Never said. }]",
        &[],
        &["✗ the model answered nothing"],
    );
}

#[test]
fn a_server_that_stays_overloaded() {
    check_failure(
        "turns: [{ errors: [529, 529, 529, 529, 529, 529], text: Never said. }]",
        &[],
        &["scripted answered 529", "; trying again in ", "; gave up after 6 tries\n"],
    );
}

#[test]
fn a_model_that_refuses_the_request() {
    check_failure("turns: [{ errors: [400], text: Never said. }]", &[], &["scripted answered 400"]);
}

#[test]
fn a_turn_limit() {
    check_failure(
        "turns: [{ tool_calls: [{ bash: { command: 'echo {n}' } }], repeat: 4 }]",
        &["--max-turns", "3"],
        &[
            "the limit of 3 model requests for one message is reached; send a message to go on, or raise --max-turns",
        ],
    );
}

#[test]
fn no_progress() {
    check_failure(
        "turns: [{ tool_calls: [{ bash: { command: 'echo same' } }], repeat: 6 }]",
        &[],
        &["no progress: the same tool call had the same result 5 times in a row"],
    );
}

#[test]
fn an_answer_cut_at_the_token_limit() {
    check_failure(
        "turns: [{ text: Half of it, stop: max_tokens }]",
        &[],
        &["the answer was cut at the token limit", "raise `max_tokens` in the agent file"],
    );
}

#[test]
fn a_refusal() {
    let casemate = Casemate::new();
    let model = casemate.script("turns: [{ text: No., stop: refusal }, { text: Gladly. }]");
    demand(
        &casemate.run(&["run", "-m", &model, "go"]).expect(1),
        &["the model refused", "✗ failed after "],
    );
    assert_eq!(casemate.run(&["resume", "please"]).expect(0).stdout(), "Gladly.\n");
}

#[test]
fn a_stream_cut_in_mid_json_is_asked_for_again_and_its_call_runs_once() {
    let casemate = Casemate::new();
    let model = casemate.script(
        "turns: [{ errors: [broken], chunks: 8, text: I mark it., tool_calls: [{ bash: { command: echo mark >> marks } }] }, \
         { text: Done. }]",
    );
    let run = casemate.run(&["run", "-m", &model, "go"]).expect(0);
    demand(&run, &["broke off", "; trying again in "]);
    assert!(!run.stderr().contains("(trying again)"), "said twice: {run:?}");
    assert_eq!(run.stdout(), "I mark it.\n\nDone.\n");
    assert_eq!(std::fs::read_to_string(casemate.workspace().join("marks")).unwrap(), "mark\n");
    assert_eq!(of_type(&events(&casemate), "session.error").len(), 1);
}

#[test]
fn tool_inputs_of_the_wrong_kind_are_answered_to_the_model() {
    let casemate = Casemate::new();
    let model = casemate.script(
        "turns: [{ tool_calls: [{ read: { file_path: 17 } }, { bash: { timeout_ms: soon, command: ls } }, \
         { name: bash, raw_input: '{not json' }, { nosuch: {} }, { write: { file_path: x } }] }, \
         { expect: { tool_result_is_error: true }, text: I see. }]",
    );
    casemate.run(&["run", "-m", &model, "go"]).expect(0);
    let log = events(&casemate);
    let results = of_type(&log, "agent.tool_result");
    assert!(results.iter().all(|result| result["is_error"] == true), "{results:?}");
    let expected =
        ["`file_path`", "`timeout_ms`", "JSON", "There is no tool `nosuch`", "`content`"];
    let told = texts(&log, "agent.tool_result");
    // A call without arguments that can be read is answered before the others run.
    for words in expected {
        assert!(told.iter().any(|text| text.contains(words)), "no {words} in {told:?}");
    }
    assert_eq!(told.len(), expected.len());
}

#[test]
fn a_store_of_a_newer_version() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(HELLO);
        casemate.run(&["run", "-m", &model, "go"]).expect(0);
        let path = casemate.data_dir().join("casemate.db");
        let database = rusqlite::Connection::open(&path).unwrap();
        database.pragma_update(None, "user_version", 99).unwrap();
        drop(database);
        casemate.give_to_user();
        for args in [&["run", "-m", &model, "go"][..], &["resume"], &["sessions", "list"]] {
            let refused = casemate.run(args).expect(1);
            let named = format!("failed to open {}: its format is 99", path.display());
            demand(&refused, &[&named, "update casemate"]);
        }
    }
}

#[test]
fn a_data_directory_that_is_not_a_store() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    std::fs::create_dir(casemate.data_dir()).unwrap();
    crate::support::write(&casemate.data_dir().join("casemate.db"), &"no database ".repeat(999));
    let refused = casemate.run(&["run", "-m", &model, "go"]).expect(1);
    demand(&refused, &["casemate.db: it is not a casemate store"]);
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(WORKS_ON);
        let first = casemate.start(&["run", "-m", &model, "go"]);
        let started = casemate.workspace().join("started");
        until("the first call", || started.exists().then_some(()));
        let second = casemate.run(&["run", "-m", &model, "go"]).expect(1);
        let holder = format!("it is in use by process {}", first.pid());
        demand(&second, &[&holder, casemate.data_dir().to_str().unwrap(), "--data-dir"]);
        // Looking is possible beside it.
        let listed = casemate.run(&["sessions", "list"]).expect(0);
        assert!(listed.stdout().contains("  running  "), "{listed:?}");
        casemate.put("go", "");
        first.finish().expect(0);
    }
}

/// A disk of two mebibytes, gone with the value.
struct SmallDisk<'d>(&'d Path);

impl<'d> SmallDisk<'d> {
    fn new(at: &'d Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let disk = Self(at);
        disk.mount("size=2m");
        disk
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still hold it.
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[test]
fn a_full_disk_ends_the_run_and_loses_nothing() {
    if !nix::unistd::geteuid().is_root() {
        let required =
            std::env::vars().any(|(name, value)| name == "CASEMATE_TEST_REQUIRE" && value == "all");
        assert!(!required, "a full disk cannot be had: only root mounts a tmpfs");
        eprintln!("not root: no tmpfs can be mounted, so a full disk is not tested");
        return;
    }
    let casemate = Casemate::new();
    let data = casemate.data_dir();
    let disk = SmallDisk::new(&data);
    let model = casemate.script(
        "turns: [{ tool_calls: [{ bash: { command: \"echo {n} >> marks; head -c 90000 /dev/zero | tr '\\\\0' x\" } }], \
         repeat: 40 }, { text: All written. }]",
    );
    let run = casemate.run(&["run", "-m", &model, "go"]).expect(1);
    let full = format!("the disk that holds {}", data.join("casemate.db").display());
    let id = casemate.only_session();
    demand(&run, &[&full, "is full", "free some space", &format!("casemate resume {id}")]);
    // Still full: the same again, and no harm.
    demand(&casemate.run(&["resume"]).expect(1), &["is full"]);

    disk.mount("remount,size=64m");
    let resumed = casemate.run(&["resume"]).expect(0);
    assert_eq!(resumed.stdout(), "All written.\n");
    let log = events(&casemate);
    for (i, event) in log.iter().enumerate() {
        assert_eq!(event["seq"], i + 1, "the log has a gap");
    }
    let (calls, results) = (of_type(&log, "agent.tool_use"), of_type(&log, "agent.tool_result"));
    assert_eq!((calls.len(), results.len()), (40, 40));
    let marks = std::fs::read_to_string(casemate.workspace().join("marks")).unwrap();
    let mut once: Vec<_> = marks.lines().collect();
    once.dedup();
    assert_eq!(once.len(), marks.lines().count(), "a call ran twice: {marks}");
}

#[test]
fn without_a_sandbox_no_tool_runs() {
    // The outer namespace allows no further one, so that the real stage of the real sandbox fails.
    const NO_NAMESPACES: &str = r#"exec unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"' sh "$@""#;
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(
            "turns: [{ delay_ms: 200, tool_calls: [{ bash: { command: touch ran } }] }, { text: Done. }]",
        );
        let run = casemate.shell(NO_NAMESPACES, &["run", "-m", &model, "go"]).expect(5);
        demand(
            &run,
            &[
                "✗ no sandbox: user namespace: ",
                "`casemate doctor` shows what this machine can do",
                "--sandbox=",
            ],
        );
        assert!(!casemate.workspace().join("ran").exists(), "{run:?}");
        let log = events(&casemate);
        assert!(of_type(&log, "internal.tool_started").is_empty(), "{log:?}");
        assert_eq!(of_type(&log, "session.status_idle").len(), 1);

        demand(
            &casemate.shell(NO_NAMESPACES, &["sandbox", "exec", "--", "touch", "ran"]).expect(5),
            &["no sandbox: user namespace: "],
        );
        assert!(!casemate.workspace().join("ran").exists());

        casemate.give_to_user();
        casemate.run(&["resume"]).expect(0);
        assert!(casemate.workspace().join("ran").exists(), "with a sandbox the session goes on");
    }
}
