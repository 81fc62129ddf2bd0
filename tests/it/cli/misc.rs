//! The commands around a run: demo, doctor, completions, manual pages, help.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::demand;
use crate::support::{As, Casemate, Running};

#[test]
fn the_demo_runs_to_its_end_and_says_what_to_do_next() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let dir = casemate.home().join("demo");
        let demo = casemate.run(&["demo", "--keep", dir.to_str().unwrap()]).expect(0);
        let id = casemate.only_session();
        assert!(demo.stdout().contains("all four tests pass"), "{demo:?}");
        demand(
            &demo,
            &[
                "✗ bash   bash test.sh  exit 1  ",
                "● edit   wordcount.sh  +1 -1  ",
                "● bash   bash test.sh  ",
                "✓ done in ",
                "files    2 changed: test.sh, wordcount.sh\n",
                &format!("casemate sessions events {id}\n"),
                &format!("casemate resume {id} 'and now?'\n"),
                "`casemate run` has no model yet: set ANTHROPIC_API_KEY",
            ],
        );
        let test = Command::new("bash").arg("test.sh").current_dir(&dir).output().unwrap();
        assert!(test.status.success(), "{test:?}");
        // What it says to do next is true.
        casemate.run(&["sessions", "events", &id]).expect(0);
        let resumed = casemate.run(&["resume", &id, "and now?"]).expect(0);
        assert!(resumed.stdout().contains("casemate run"), "{resumed:?}");
    }
}

#[test]
fn the_demo_needs_a_directory_of_its_own_and_knows_the_model_of_run() {
    let casemate = Casemate::new();
    casemate.put("mine", "");
    let refused = casemate.run(&["demo", "--keep", "."]).expect(2);
    demand(&refused, &["the demo cannot work in .", "the directory is not empty"]);
    assert!(casemate.sessions().is_empty());
    let env = [("ANTHROPIC_API_KEY", "k")];
    let demo = casemate.run_with(&env, &["demo", "--keep", "new"]).expect(0);
    demand(&demo, &["`casemate run` would ask anthropic/claude-"]);
}

#[test]
fn the_doctor_finds_this_machine_well() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let text = casemate.run(&["doctor"]).expect(0);
        assert_eq!(text.stderr(), "");
        let lines = text.stdout();
        let of =
            |begin: &str| lines.lines().find(|line| line.starts_with(begin)).map(str::to_owned);
        assert!(of("ok    sandbox: sandbox, tier `full`: ").is_some(), "{lines}");
        assert!(of("ok    store: data directory: ").is_some(), "{lines}");
        assert!(of("note  models: anthropic: ANTHROPIC_API_KEY is not set").is_some(), "{lines}");
        let json = casemate.run(&["doctor", "--json"]).expect(0).stdout();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["sandbox"][0]["verdict"], "ok", "{json}");
        assert_eq!(json["store"][0]["verdict"], "ok", "{json}");
    }
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let casemate = Casemate::new();
    crate::support::write(&casemate.data_dir(), "a file, not a directory");
    let doctor = casemate.run(&["doctor"]).expect(1);
    assert!(doctor.stdout().contains("FAIL  store: data directory: "), "{doctor:?}");
    assert!(doctor.stdout().contains("→ set CASEMATE_DATA_DIR"), "{doctor:?}");
}

#[test]
fn completions_for_every_shell() {
    let casemate = Casemate::new();
    let print = |shell: &str| casemate.run(&["completions", shell]).expect(0).stdout();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = print(shell);
        assert!(script.contains("casemate") && script.contains("max-turns"), "{shell}: {script}");
    }
    let mut bash = Command::new("bash");
    bash.arg("-n").stdin(Stdio::piped());
    let mut bash = Running::start(bash);
    bash.type_in(&print("bash"));
    assert_eq!(bash.finish().expect(0).stderr(), "");
    demand(&casemate.run(&["completions", "tcsh"]).expect(2), &["'tcsh'", "bash, elvish, fish"]);
}

#[test]
fn manual_pages_are_printed_or_written() {
    let casemate = Casemate::new();
    let page = casemate.run(&["man"]).expect(0).stdout();
    assert!(page.contains(".TH casemate 1") && page.contains("Exit codes"), "{page}");
    let written = casemate.run(&["man", "."]).expect(0).stdout();
    assert!(written.lines().any(|path| path == "./casemate-sessions-events.1"), "{written}");
    for path in written.lines() {
        let text = std::fs::read_to_string(casemate.workspace().join(path)).unwrap();
        assert!(text.contains(".TH"), "{path}");
    }
    demand(
        &casemate.run(&["man", "/nowhere"]).expect(1),
        &["write the manual page /nowhere/casemate.1", "No such file"],
    );
}

#[test]
fn help_is_data_and_lists_the_exit_codes() {
    let casemate = Casemate::new();
    let help = casemate.run(&["--help"]).expect(0);
    assert_eq!(help.stderr(), "");
    for words in [
        "  0 done ",
        "  1 failed ",
        "  2 wrong usage",
        "  3 interrupted ",
        "  4 a tool call waits",
        "  5 no sandbox",
    ] {
        assert!(help.stdout().contains(words), "no {words:?} in {help:?}");
    }
    let version = casemate.run(&["--version"]).expect(0);
    assert_eq!(version.stdout(), concat!("casemate ", env!("CARGO_PKG_VERSION"), "\n"));
    for command in ["run", "resume", "sessions", "sandbox", "doctor", "demo", "completions", "man"]
    {
        let help = casemate.run(&[command, "--help"]).expect(0).stdout();
        assert!(help.contains("Example"), "{help}");
    }
    demand(&casemate.run(&[] as &[&str]).expect(2), &["Usage: casemate"]);
    demand(&casemate.run(&["rnu"]).expect(2), &["unrecognized subcommand 'rnu'", "'--help'"]);
}

#[test]
fn a_stdout_that_takes_nothing_is_told() {
    let casemate = Casemate::new();
    let full = casemate.shell(r#"exec "$@" > /dev/full"#, &["completions", "bash"]).expect(1);
    demand(&full, &["failed to write to standard output", "No space left"]);
    casemate.shell(r#""$@" | head -c 1"#, &["completions", "bash"]).expect(0);
}

#[test]
fn without_a_home_the_way_out_is_named() {
    let casemate = Casemate::new();
    let lost = casemate
        .shell(r#"unset HOME CASEMATE_DATA_DIR; exec "$@""#, &["sessions", "list"])
        .expect(2);
    demand(&lost, &["no place for data: set CASEMATE_DATA_DIR, XDG_DATA_HOME or HOME"]);
    let relative =
        casemate.run_with(&[("CASEMATE_DATA_DIR", "here")], &["sessions", "list"]).expect(2);
    demand(&relative, &["CASEMATE_DATA_DIR must be an absolute path, and is `here`"]);
}
