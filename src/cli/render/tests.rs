//! What a person or a script sees of a run, byte by byte.

mod story;

use clap::ColorChoice;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Outcome, Renderer, Settings, Tally};
use crate::cli::args::OutputFormat;
use crate::cli::output::testing;
use crate::cli::render::Preview;
use crate::cli::terminal::Facts;
use crate::event::{Confirmation, EventBody, Permission, RetryStatus, StopReason};
use story::{Beat, Story, repair, session};

const TTY: Facts =
    Facts { stdout_is_tty: true, stderr_is_tty: true, no_color: false, dumb: false, width: 80 };

fn settings(format: OutputFormat, facts: Facts) -> Settings {
    Settings {
        format,
        facts,
        color: ColorChoice::Auto,
        quiet: false,
        internal: false,
        answered: false,
        program: "casemate".to_owned(),
        workspace: Some("/home/ann/app".to_owned()),
    }
}

fn play(story: &Story, renderer: &mut Renderer) -> Outcome {
    for beat in &story.beats {
        match beat {
            Beat::Event(event) => renderer.event(event),
            Beat::Preview(preview) => renderer.preview(preview),
            Beat::Tick(now) => renderer.tick(*now),
            Beat::PreviewsLost => {
                renderer.previews_lost();
                Ok(())
            }
        }
        .unwrap();
    }
    renderer.finish(None).unwrap()
}

/// Both streams on one terminal, escape sequences made visible.
fn on_terminal(story: &Story, settings: Settings) -> String {
    let (out, screen) = testing::screen();
    play(story, &mut Renderer::new(settings, out));
    screen.text()
}

/// Standard output and standard error, in files.
fn in_files(story: &Story, settings: Settings) -> (String, String) {
    let (out, stdout, stderr) = testing::apart();
    play(story, &mut Renderer::new(settings, out));
    (stdout.text(), stderr.text())
}

/// What stays on the screen: redrawn lines are gone, and so are colours.
fn screen_of(bytes: &str) -> String {
    let lines = bytes.split('\n').map(|line| line.rsplit("\r\x1b[2K").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').expect("only colours are left").1;
    }
    plain + rest
}

#[test]
fn a_run_on_a_terminal() {
    let colored = on_terminal(&repair(), settings(OutputFormat::Text, TTY));
    insta::assert_snapshot!("terminal_screen", screen_of(&colored));
    insta::assert_snapshot!("terminal_bytes", colored.replace('\x1b', "␛").replace('\r', "␍"));
}

#[test]
fn a_run_on_a_terminal_without_colour() {
    let no_color = Settings { color: ColorChoice::Never, ..settings(OutputFormat::Text, TTY) };
    let bytes = on_terminal(&repair(), no_color);
    assert_eq!(bytes.replace("\r\x1b[2K", "").find('\x1b'), None, "nothing but redrawing");
    let colored = on_terminal(&repair(), settings(OutputFormat::Text, TTY));
    assert_eq!(screen_of(&bytes), screen_of(&colored));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [40, 60, 80, 200] {
        let facts = Facts { width, ..TTY };
        let bytes = on_terminal(&repair(), settings(OutputFormat::Text, facts));
        let own =
            bytes.split('\n').flat_map(|l| l.split("\r\x1b[2K")).map(screen_of).filter(|line| {
                // The model's words and errors wrap as they are; commands are for copying.
                !["I'll run", "The tests", "I changed", "! anthropic", "  resume"]
                    .iter()
                    .any(|w| line.starts_with(w))
            });
        for line in own {
            assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
        }
    }
}

#[test]
fn a_run_into_files() {
    let (stdout, stderr) = in_files(&repair(), settings(OutputFormat::Text, Facts::plain()));
    insta::assert_snapshot!("plain_stdout", stdout);
    insta::assert_snapshot!("plain_stderr", stderr);
}

#[test]
fn messages_are_the_same_however_they_come() {
    let plain = in_files(&repair(), settings(OutputFormat::Text, Facts::plain())).0;
    let check = |facts: Facts| {
        let (stdout, _) = in_files(&repair(), settings(OutputFormat::Text, facts));
        assert_eq!(stdout.replace("\n\n", "\n"), plain.replace("\n\n", "\n"), "{facts:?}");
    };
    check(TTY);
    check(Facts { stdout_is_tty: false, ..TTY });
    check(Facts { stderr_is_tty: false, ..TTY });
    check(Facts { dumb: true, ..TTY });
}

#[test]
fn quiet_keeps_the_messages() {
    let quiet = Settings { quiet: true, ..settings(OutputFormat::Text, Facts::plain()) };
    let (stdout, stderr) = in_files(&repair(), quiet);
    let (loud, _) = in_files(&repair(), settings(OutputFormat::Text, Facts::plain()));
    assert_eq!(stdout, loud);
    assert_eq!(stderr, "");
}

#[test]
fn one_object_at_the_end() {
    let (stdout, stderr) = in_files(&repair(), settings(OutputFormat::Json, TTY));
    assert_eq!((stdout.lines().count(), stderr.as_str()), (1, ""));
    let object: Value = serde_json::from_str(&stdout).unwrap();
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&object).unwrap());
}

#[test]
fn every_public_event_on_a_line() {
    let (stdout, stderr) = in_files(&repair(), settings(OutputFormat::StreamJson, TTY));
    assert_eq!(stderr, "");
    assert!(!stdout.contains("\"internal."));
    insta::assert_snapshot!("stream_json", stdout);
    let all = Settings { internal: true, ..settings(OutputFormat::StreamJson, TTY) };
    let (stdout, _) = in_files(&repair(), all);
    let seqs: Vec<_> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "all of them, in order");
}

fn asks() -> Story {
    let mut story = Story::default();
    story.begin("clean up").ask().wait(700).message("Two commands would do it.");
    let one = story.call("bash", &json!({"command": "rm -rf build"}), Permission::Ask);
    let two = story.call("bash", &json!({"command": "git gc\u{202e} &&\nls"}), Permission::Ask);
    let file = json!({"file_path": "/home/ann/app/.gitignore", "content": "build\n"});
    let three = story.call("write", &file, Permission::Ask);
    let event_ids = vec![one, two, three];
    story.answered(900, 30).idle(StopReason::RequiresAction { event_ids });
    story
}

#[test]
fn calls_that_wait_say_how_to_answer() {
    let bytes = on_terminal(&asks(), settings(OutputFormat::Text, TTY));
    insta::assert_snapshot!("waiting_screen", screen_of(&bytes));
    let (stdout, _) = in_files(&asks(), settings(OutputFormat::Json, TTY));
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(object["status"], "needs_input");
    assert_eq!(object["waiting"][0]["input"]["command"], "rm -rf build");
}

#[test]
fn a_resumed_run_knows_the_calls_that_waited() {
    let before = asks();
    let (out, screen) = testing::screen();
    let mut renderer = Renderer::new(settings(OutputFormat::Text, TTY), out);
    for beat in &before.beats {
        if let Beat::Event(event) = beat {
            renderer.recall(event);
        }
    }
    let mut after = Story::default();
    after.wait(60_000);
    let (allowed, refused, written) = (story::id(5), story::id(6), story::id(7));
    let (yes, no) = (Confirmation::Allow, Confirmation::Deny);
    for (call, result) in [(&allowed, yes), (&refused, no), (&written, yes)] {
        let deny_message = None;
        let tool_use_id = call.clone();
        after.event(EventBody::UserToolConfirmation { tool_use_id, result, deny_message });
    }
    after.event(EventBody::StatusRunning {});
    after.result(&refused, "the user refused: not now", true);
    after.started(&allowed).wait(900).result(&allowed, "", false);
    after.wait(5).started(&written).wait(12).result(&written, "no space left on device", true);
    after.ask().wait(400).message("Done.").answered(1_000, 5).idle(StopReason::EndTurn);
    assert_eq!(play(&after, &mut renderer), Outcome::Done);
    insta::assert_snapshot!("resumed_screen", screen_of(&screen.text()));
}

#[test]
fn a_discarded_answer_is_marked_and_said_again() {
    let mut story = Story::default();
    story.begin("x").ask().says(0, "Half of an ans").preview(Preview::Discarded).request_failed();
    story.error("the connection broke; trying again in 0.5 s", RetryStatus::Retrying).ask();
    story.says(0, "All of the answer.").message("All of the answer.");
    story.answered(10, 10).idle(StopReason::EndTurn);
    let bytes = on_terminal(&story, settings(OutputFormat::Text, TTY));
    insta::assert_snapshot!("discarded_screen", screen_of(&bytes));
}

#[test]
fn how_far_a_call_is_stands_beside_it_while_it_runs() {
    let mut story = Story::default();
    story.begin("x").ask().answered(10, 10);
    let call = story.call("bash", &json!({"command": "make"}), Permission::Allow);
    story.started(&call).wait(200).tick();
    let said = "3 of 10: \u{1b}[2Jlinking\nall".to_owned();
    story.preview(Preview::Progress { call: call.clone(), said }).wait(200).tick();
    story.result(&call, "", false);
    let other = story.call("bash", &json!({"command": "ls"}), Permission::Allow);
    story.started(&other).wait(200).tick();
    let bytes = on_terminal(&story, settings(OutputFormat::Text, TTY));
    let aside =
        |line: &str| line.split("running bash:").nth(1).map(|rest| rest.contains("3 of 10"));
    let told: Vec<_> = bytes.split('\r').filter_map(aside).collect();
    assert_eq!(told, [false, true, false], "{bytes:?}");
    assert!(!bytes.contains("\u{1b}[2J"), "{bytes:?}");
}

#[test]
fn lost_previews_lose_no_words() {
    let check = |tell: bool, expected: &str| {
        let mut story = Story::default();
        story.begin("x").ask().says(0, "one ");
        if tell {
            story.lost();
        }
        story.says(0, "three ").message("one two three four");
        let (stdout, _) = in_files(&story, settings(OutputFormat::Text, TTY));
        assert_eq!(stdout, expected);
    };
    check(true, "one two three four\n");
    check(false, "one three \none two three four\n");
}

proptest! {
    #[test]
    fn a_message_is_the_same_in_pieces_and_whole(
        pieces in prop::collection::vec("[a\\n\\r \u{1b}é]{0,5}", 0..8),
        shown in 0_usize..9,
        cut in 0_usize..9,
    ) {
        let text = pieces.concat();
        prop_assume!(!text.trim().is_empty());
        let mut streamed = Story::default();
        for (i, piece) in pieces.iter().enumerate().take(shown) {
            if i == cut {
                streamed.lost();
            }
            streamed.says(0, piece);
        }
        streamed.message(&text);
        let (stdout, _) = in_files(&streamed, settings(OutputFormat::Text, TTY));
        let mut whole = Story::default();
        whole.message(&text);
        let (expected, _) = in_files(&whole, settings(OutputFormat::Text, Facts::plain()));
        prop_assert_eq!(stdout.trim_matches('\n'), expected.trim_matches('\n'));
    }
}

#[test]
fn the_wait_for_other_calls_is_not_a_calls_own_time() {
    let mut story = Story::default();
    story.begin("x");
    let slow = story.call("bash", &json!({"command": "make"}), Permission::Allow);
    let reads =
        ["a", "b"].map(|path| story.call("read", &json!({"file_path": path}), Permission::Allow));
    story.started(&slow).wait(2_000).result(&slow, "", false).wait(30);
    for read in &reads {
        story.result(read, "one", false);
    }
    let (_, stderr) = in_files(&story, settings(OutputFormat::Text, Facts::plain()));
    let calls: Vec<_> = stderr.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        calls,
        ["● bash   make  2.0s", "● read   a  1 line  30ms", "● read   b  1 line  30ms"]
    );
}

#[test]
fn a_long_command_that_waits_is_shown_to_its_end() {
    let command = format!("echo {} ; rm -rf ~", "x".repeat(300));
    let mut story = Story::default();
    let call = story.begin("x").call("bash", &json!({"command": command}), Permission::Ask);
    story.idle(StopReason::RequiresAction { event_ids: vec![call] });
    let (_, stderr) = in_files(&story, settings(OutputFormat::Text, TTY));
    assert!(stderr.contains("; rm -rf ~"), "{stderr}");
}

#[test]
fn no_sandbox_and_giving_up_are_told_once() {
    let mut story = Story::default();
    let why = "no user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1\nallow them for \
               casemate, or run with --sandbox landlock";
    story.begin("x").ask().answered(10, 10);
    story.event(EventBody::SandboxFailed { message: why.to_owned() });
    story.error(why, RetryStatus::Exhausted).idle(StopReason::RetriesExhausted);
    let bytes = on_terminal(&story, settings(OutputFormat::Text, TTY));
    insta::assert_snapshot!("no_sandbox_screen", screen_of(&bytes));
}

#[test]
fn files_that_are_not_kept_are_told() {
    let mut story = Story::default();
    story
        .begin("x")
        .event(EventBody::Unsealed { message: "failed to seal /w: \u{1b}[2J".to_owned() });
    let (_, stderr) = in_files(&story, settings(OutputFormat::Text, TTY));
    let told = "changes of files cannot be taken back from here on: failed to seal /w: ␛[2J\n";
    assert!(stderr.contains(told), "{stderr:?}");
}

#[test]
fn outcomes() {
    let check = |story: &mut Story, expected: Option<Outcome>| {
        let mut tally = Tally::default();
        for beat in &story.beats {
            if let Beat::Event(event) = beat {
                tally.apply(event);
            }
        }
        assert_eq!(tally.outcome(), expected);
    };
    let story = Story::default;
    let interrupt = || EventBody::UserInterrupt { session_thread_id: None };
    let no_sandbox = || EventBody::SandboxFailed { message: "no".to_owned() };
    let waits = || StopReason::RequiresAction { event_ids: Vec::new() };
    let gave_up = || StopReason::RetriesExhausted;
    let end = || StopReason::EndTurn;
    use Outcome as O;

    check(story().begin("x"), None);
    check(story().begin("x").idle(end()), Some(O::Done));
    check(story().begin("x").idle(StopReason::Refusal), Some(O::Failed));
    check(story().begin("x").idle(gave_up()), Some(O::Failed));
    check(story().begin("x").fact(EventBody::StatusTerminated {}), Some(O::Failed));
    check(story().begin("x").idle(waits()), Some(O::NeedsInput));
    check(story().begin("x").idle(waits()).begin("y"), None);
    check(story().begin("x").idle(waits()).fact(interrupt()).idle(end()), Some(O::Interrupted));

    check(story().begin("x").fact(interrupt()).idle(end()), Some(O::Interrupted));
    check(story().fact(interrupt()).begin("x").idle(end()), Some(O::Interrupted));
    check(story().begin("x").fact(interrupt()).idle(end()).begin("y").idle(end()), Some(O::Done));
    check(story().begin("x").idle(end()).fact(interrupt()).begin("y").idle(end()), Some(O::Done));

    check(story().begin("x").fact(no_sandbox()).idle(gave_up()), Some(O::SandboxUnavailable));
    let mut before = story();
    before.begin("x").fact(no_sandbox()).idle(gave_up());
    check(before.begin("y").idle(gave_up()), Some(O::Failed));
}

#[test]
fn an_unfinished_run_counts_as_interrupted() {
    let mut story = Story::default();
    story.begin("x").ask().wait(2_500).tick();
    let bytes = on_terminal(&story, settings(OutputFormat::Text, TTY));
    let session = session();
    assert_eq!(
        screen_of(&bytes),
        format!(
            "■ interrupted after 0ms  0 turns, 0 tool calls\n  tokens   0 in, 0 out\n  \
             resume   casemate resume {session}\n"
        )
    );
}
