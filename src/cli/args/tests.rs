//! What parses to what, what is refused in which words, and the help of every command.

use clap::CommandFactory;

use super::{
    Cli, Command, Deny, Mount, NetworkWord, OutputFormat, Resumed, Route, SandboxCommand,
    SessionsCommand,
};
use crate::environment::{Access, Tier};

const SESSION: &str = "sesn_01jqexample";
const EVENT: &str = "sevt_01jrexample";

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::parse_words(["casemate"].iter().chain(words))
}

fn command(words: &[&str]) -> Command {
    parse(words).unwrap_or_else(|e| panic!("{words:?}: {e}")).command
}

fn refusal(words: &[&str]) -> String {
    let error = parse(words).expect_err("the command line makes no sense");
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_everything_at_once() {
    let words = [
        "run",
        "-m",
        "ollama/qwen3",
        "--agent",
        "a.yaml",
        "-C",
        "/w",
        "--max-turns",
        "10000",
        "--output",
        "stream-json",
        "--sandbox",
        "landlock",
        "--network",
        "limited",
        "--allow-host",
        "*.Example.com:8443",
        "--allow-host",
        "10.0.0.1",
        "--allow-package-managers",
        "--profile",
        "tight",
        "--mount",
        "/a",
        "--mount",
        "b:/c:rw",
        "--route",
        "gpt-*=openai",
        "--title",
        "T",
        "--yes",
        "do it",
        "--data-dir",
        "/d",
        "-q",
    ];
    let cli = parse(&words).unwrap();
    assert!(cli.global.quiet);
    assert_eq!(cli.global.data_dir.as_deref(), Some("/d".as_ref()));
    let Command::Run(run) = cli.command else { panic!("not run") };
    assert_eq!((run.task.as_str(), run.model.as_deref()), ("do it", Some("ollama/qwen3")));
    assert_eq!((run.max_turns, run.yes), (Some(10_000), true));
    assert_eq!(run.place.sandbox, Some(Tier::Landlock));
    assert_eq!(run.place.mounts.len(), 2);
    let hosts: Vec<_> = run.place.allow_hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["*.example.com:8443", "10.0.0.1"]);
    assert_eq!(
        (run.place.network, run.place.allow_package_managers),
        (Some(NetworkWord::Limited), true)
    );
    assert_eq!(run.watch.output, OutputFormat::StreamJson);
    assert_eq!(run.watch.routes[0].target, "openai");
}

#[test]
fn a_task_may_begin_with_a_hyphen_after_two_of_them() {
    let task = |words: &[&str]| match command(words) {
        Command::Run(run) => run.task,
        other => panic!("{other:?}"),
    };
    assert_eq!(task(&["run", "-"]), "-");
    assert_eq!(task(&["run", "--", "--why"]), "--why");
    assert!(refusal(&["run", "--why"]).contains("--why"));
    assert!(refusal(&["run", "two", "words"]).contains("words"));
}

#[test]
fn the_command_for_the_sandbox_keeps_its_hyphens() {
    let check = |words: &[&str], workspace: Option<&str>, expected: &[&str]| {
        let Command::Sandbox(sandbox) = command(words) else { panic!("not sandbox") };
        let SandboxCommand::Exec { place, command } = sandbox.command else { panic!("not exec") };
        assert_eq!(place.workspace.as_deref(), workspace.map(str::as_ref));
        assert_eq!(command, expected);
    };
    check(&["sandbox", "exec", "--", "ls", "-la", "--", "x"], None, &["ls", "-la", "--", "x"]);
    check(&["sandbox", "exec", "ls", "-la", "-C", "/x"], None, &["ls", "-la", "-C", "/x"]);
    check(&["sandbox", "exec", "-C", "/w", "--", "-odd"], Some("/w"), &["-odd"]);
    check(&["sandbox", "exec", "--", "sh", "--help"], None, &["sh", "--help"]);
    assert!(refusal(&["sandbox", "exec"]).contains("<CMD>"));
}

#[test]
fn resume_takes_an_id_a_message_or_both() {
    let check = |words: &[&str], session: Option<&str>, message: Option<&str>| {
        let Command::Resume(resume) = command(words) else { panic!("not resume") };
        assert_eq!(resume.session().map(|id| id.as_str()), session, "{words:?}");
        assert_eq!(resume.message(), message, "{words:?}");
    };
    check(&["resume"], None, None);
    check(&["resume", SESSION], Some(SESSION), None);
    check(&["resume", "go on"], None, Some("go on"));
    check(&["resume", SESSION, "go on"], Some(SESSION), Some("go on"));
    check(&["resume", SESSION, "-"], Some(SESSION), Some("-"));
    check(&["resume", "-C", "/w", "go on"], None, Some("go on"));
    check(&["resume", SESSION, "--allow", EVENT, "--allow", EVENT], Some(SESSION), None);
}

#[test]
fn sessions_can_be_deleted_several_at_once() {
    let Command::Sessions(sessions) = command(&["sessions", "delete", SESSION, "sesn_2"]) else {
        panic!("not sessions")
    };
    let SessionsCommand::Delete { ids } = sessions.command else { panic!("not delete") };
    assert_eq!(ids.len(), 2);
}

#[test]
fn words_that_make_no_sense_are_named() {
    let check = |words: &[&str], expected: &[&str]| {
        let text = refusal(words);
        for part in expected {
            assert!(text.contains(part), "{words:?}: {part:?} is not in {text}");
        }
    };
    check(&["run"], &["<TASK>"]);
    check(&["run", ""], &["<TASK>", "it is empty"]);
    check(&["run", " \n\t "], &["<TASK>", "it is empty"]);
    check(&["run", &"x".repeat(1024 * 1024 + 1)], &["<TASK>", "1 MiB"]);
    check(&["run", "x", "--max-turns", "0"], &["--max-turns", "0 is not in 1..=10000"]);
    check(&["run", "x", "--max-turns", "10001"], &["10001 is not in 1..=10000"]);
    check(&["run", "x", "--sandbox", "ful"], &["'ful'", "[possible values: full, landlock, none]"]);
    check(&["run", "x", "--mount", "/a:b"], &["absolute path, not `b`"]);
    check(&["run", "x", "--route", "gpt-*"], &["--route", "GLOB=PROVIDER"]);
    check(&["resume", "sesn_!"], &["[ID]", "`sesn_!` is not a session id"]);
    check(&["resume", "one", "two"], &["the first must be a session id"]);
    check(&["resume", SESSION, "-C", "/w"], &["give one of them", "Usage: casemate resume"]);
    check(&["resume", ""], &["it is empty"]);
    check(&["resume", "--allow", "sesn_1"], &["--allow", "`sevt_`"]);
    check(&["sessions", "delete"], &["<ID>..."]);
    check(&["sessions", "list", "--limit", "0"], &["1..=1000"]);
    check(&["completions", "tcsh"], &["bash", "fish", "zsh"]);
}

#[test]
fn mounts() {
    let check = |word: &str, expected: Option<(&str, Option<&str>, Access)>| {
        let expected = expected.map(|(source, target, access)| Mount {
            source: source.into(),
            target: target.map(Into::into),
            access,
        });
        assert_eq!(word.parse::<Mount>().ok(), expected, "{word}");
    };
    check("/a", Some(("/a", None, Access::ReadOnly)));
    check("a/b", Some(("a/b", None, Access::ReadOnly)));
    check("/a:ro", Some(("/a", None, Access::ReadOnly)));
    check("/a:rw", Some(("/a", None, Access::ReadWrite)));
    check("/a:/b", Some(("/a", Some("/b"), Access::ReadOnly)));
    check("/a:/b:rw", Some(("/a", Some("/b"), Access::ReadWrite)));
    check("", None);
    check(":rw", None);
    check(":/b", None);
    check("/a:", None);
    check("/a:b:rw", None);
    check("/a:/b:rx", None);
    check("/a:/b:/c:rw", None);
}

#[test]
fn routes_and_refusals() {
    let route = |word: &str| word.parse::<Route>().ok().map(|r| (r.glob, r.target));
    let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    assert_eq!(route("gpt-*=openai"), pair("gpt-*", "openai"));
    assert_eq!(route("*=or/a/b:free"), pair("*", "or/a/b:free"));
    for bad in ["", "x", "=y", "x=", "x=/m", "x=p/"] {
        assert_eq!(route(bad), None, "{bad}");
    }
    let deny = |word: &str| word.parse::<Deny>().unwrap().message;
    assert_eq!(deny(EVENT), None);
    assert_eq!(deny(&format!("{EVENT}=")), None);
    assert_eq!(deny(&format!("{EVENT}=a=b")), Some("a=b".to_owned()));
    assert!("=why".parse::<Deny>().is_err());
    assert_eq!("hi".parse(), Ok(Resumed::Message("hi".to_owned())));
}

/// The help as a user of a wide terminal gets it.
fn help(words: &[&str]) -> String {
    let words = ["casemate"].iter().chain(words).chain(&["--help"]);
    let command = Cli::command().term_width(100);
    command.try_get_matches_from(words).expect_err("help was asked for").to_string()
}

#[test]
fn every_help_is_pinned_and_fits() {
    let paths: [&[&str]; 29] = [
        &[],
        &["run"],
        &["resume"],
        &["sessions"],
        &["sessions", "list"],
        &["sessions", "show"],
        &["sessions", "events"],
        &["sessions", "delete"],
        &["sandbox"],
        &["sandbox", "exec"],
        &["sandbox", "show"],
        &["checkpoints"],
        &["diff"],
        &["apply"],
        &["discard"],
        &["rewind"],
        &["fork"],
        &["env"],
        &["env", "build"],
        &["env", "list"],
        &["env", "rm"],
        &["doctor"],
        &["net"],
        &["skills"],
        &["skills", "list"],
        &["skills", "check"],
        &["demo"],
        &["completions"],
        &["man"],
    ];
    for path in paths {
        let help = help(path);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        let name = ["help"].iter().chain(path).copied().collect::<Vec<_>>().join("_");
        insta::assert_snapshot!(name, help);
    }
}
