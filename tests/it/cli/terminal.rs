//! In front of a terminal: colours, the line that moves, typed lines, Ctrl-C; and that no stranger steers it.

use super::{HELLO, WORKS_ON, demand, events, of_type, texts};
use crate::support::{As, Casemate, until};

/// Clears a line, colours, C1, direction, clipboard: in words, thoughts, output, names of tools, files and errors.
const HOSTILE: &str = r#"
turns:
  - thinking: "think \e[2J\e]0;t\a"
    text: "say \e[31m \x9b2J \u202e \e]52;c;AAAA\a end"
    tool_calls:
      - bash: { command: "printf 'out \\033[31m \\302\\2332J \\033]52;c;AAAA\\007'; touch $'f\\033[2J'; exit 3" }
      - name: "to\e[2Jol"
        input: { "k\e[2J": "v\u202e" }
      - write: { file_path: "w\e[2J", content: x }
  - text: "bye \r over"
"#;

/// No control character but line ends and tabs, none that hides or turns text around.
#[track_caller]
fn check_harmless(text: &str) {
    let bad = |c: &char| {
        (c.is_control() && !"\n\t".contains(*c)) || ('\u{202a}'..='\u{202e}').contains(c)
    };
    assert_eq!(text.chars().find(bad), None, "{text:?}");
}

#[test]
fn strangers_do_not_steer_the_terminal() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(HOSTILE);
        let run = casemate.run(&["run", "-m", &model, "go \x1b[2J"]).expect(0);
        assert_eq!(run.stdout(), "say ␛[31m <U+009B>2J <U+202E> ␛]52;c;AAAA␇ end\n\nbye ␍ over\n");
        check_harmless(&run.stderr());
        demand(
            &run,
            &["· think ␛[2J", "to␛[2Jol", "write  w␛[2J", "files    2 changed: f␛[2J, w␛[2J\n"],
        );
        let id = casemate.only_session();
        for args in [&["sessions", "list"][..], &["sessions", "show", &id], &["resume"]] {
            let shown = casemate.run(args);
            check_harmless(&(shown.stdout() + &shown.stderr()));
        }
        // JSON escapes them by itself, but for those above ASCII, which are data.
        let events = casemate.run(&["sessions", "events", &id]).expect(0).stdout();
        assert!(!events.contains('\x1b'), "{events}");
        assert!(events.contains("\\u001b[31m \u{9b}2J"), "{events}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_who_asks() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    let on_terminal = |env: &[(&str, &str)], flag: &str| {
        let args = ["run", "-m", &model, &format!("--color={flag}"), "go"];
        let (code, screen) = casemate.on_terminal(env, &args).finish();
        assert_eq!(code, Some(0), "{screen}");
        screen.contains("\x1b[32m✓\x1b[0m \x1b[1mdone in")
    };
    assert!(on_terminal(&[], "auto"));
    assert!(on_terminal(&[("NO_COLOR", "")], "auto"), "an empty one says nothing");
    assert!(!on_terminal(&[("NO_COLOR", "1")], "auto"));
    assert!(!on_terminal(&[("TERM", "dumb")], "auto"));
    assert!(!on_terminal(&[], "never"));
    assert!(on_terminal(&[("NO_COLOR", "1")], "always"));
    let in_file =
        |flag: &str| casemate.run(&["run", "-m", &model, "--color", flag, "go"]).expect(0).stderr();
    assert!(!in_file("auto").contains('\x1b'));
    assert!(in_file("always").contains("\x1b[32m✓\x1b[0m"));
}

#[test]
fn a_line_tells_what_is_going_on_and_goes_away() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(WORKS_ON);
        let terminal = casemate.on_terminal(&[], &["run", "-m", &model, "go"]);
        terminal.wait_for("running bash:");
        // It counts from the first second on.
        terminal.wait_for("  \x1b[2m1s");
        assert!(terminal.screen().contains("\r\x1b[2K"), "{:?}", terminal.screen());
        casemate.put("go", "");
        let (code, screen) = terminal.finish();
        assert_eq!(code, Some(0), "{screen}");
        let end = &screen[screen.rfind("\x1b[2K").unwrap()..];
        assert!(end.contains("Over.") && !end.contains("running bash:"), "{end:?}");
    }
}

#[test]
fn a_dumb_terminal_gets_no_line_that_moves() {
    let casemate = Casemate::new();
    let model = casemate.script(WORKS_ON);
    casemate.put("go", "");
    let (code, screen) =
        casemate.on_terminal(&[("TERM", "dumb")], &["run", "-m", &model, "go"]).finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains('\x1b'), "{screen:?}");
}

#[test]
fn a_line_typed_while_it_works_is_in_the_next_request() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(
            "turns:\n  - text: I work.\n    tool_calls: [{ bash: { command: \"touch started; until [ -e go ]; do sleep 0.02; done\" } }]\n  \
             - expect: { last_user_contains: in French }\n    text: D'accord.\n",
        );
        let mut terminal = casemate.on_terminal(&[], &["run", "-m", &model, "go"]);
        terminal.wait_for("running bash:");
        terminal.type_in("in French please\r");
        terminal.wait_for("› in French please");
        until("the line in the log", || {
            (of_type(&events(&casemate), "user.message").len() == 2).then_some(())
        });
        assert!(
            of_type(&events(&casemate), "user.message")[1]["processed_at"].is_null(),
            "it waits"
        );
        casemate.put("go", "");
        let (code, screen) = terminal.finish();
        assert_eq!(code, Some(0), "{screen}");
        assert!(screen.contains("D'accord."), "{screen}");
        let log = events(&casemate);
        assert_eq!(texts(&log, "user.message"), ["go", "in French please"]);
        assert_eq!(
            of_type(&log, "span.model_request_start").len(),
            2,
            "one request took up results and line"
        );
        assert!(of_type(&log, "user.message")[1]["processed_at"].is_string());
    }
}

#[test]
fn control_c_stops_the_turn() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(WORKS_ON);
        let mut terminal = casemate.on_terminal(&[], &["run", "-m", &model, "go"]);
        terminal.wait_for("running bash:");
        terminal.type_in("\x03");
        let (code, screen) = terminal.finish();
        assert_eq!(code, Some(3), "{screen}");
        assert!(screen.contains("■ stopping") && screen.contains("interrupted after"), "{screen}");
        assert_eq!(events(&casemate).last().unwrap()["type"], "session.status_idle");
    }
}

#[test]
fn control_c_twice_quits() {
    let casemate = Casemate::new();
    let model = casemate.script(
        "turns: [{ tool_calls: [{ bash: { command: \"trap '' INT TERM; sleep 60 & wait; sleep 60\" } }] }, { text: Over. }]",
    );
    let mut terminal = casemate.on_terminal(&[], &["run", "-m", &model, "go"]);
    terminal.wait_for("running bash:");
    terminal.type_in("\x03");
    until("the first to be heard", || {
        (!of_type(&events(&casemate), "user.interrupt").is_empty()).then_some(())
    });
    terminal.type_in("\x03");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(3), "{screen}");
    assert_eq!(casemate.run(&["resume"]).expect(0).stdout(), "Over.\n");
}

#[test]
fn a_question_shows_the_whole_call_and_is_answered() {
    let casemate = Casemate::new();
    let model = casemate.script(
        &"turns: [{ tool_calls: [{ bash: { command: \": LONG\\necho 1 >> marks\" } }, { bash: { command: echo 2 >> marks } }, \
         { bash: { command: echo 3 >> marks } }] }, { text: Done. }]"
            .replace("LONG", &"x".repeat(500)),
    );
    casemate.put(
        "agent.yaml",
        "tools: [{ type: agent_toolset_20260401, default_config: { permission_policy: { type: always_ask } } }]",
    );
    let mut terminal =
        casemate.on_terminal(&[], &["run", "-m", &model, "--agent", "agent.yaml", "go"]);
    for (call, answer) in [("1", "y\r"), ("2", "\r"), ("3", "use a file\r")] {
        terminal.wait_for(&format!(" {call} >> marks\r\n  allow it? [y/N, or why not] "));
        terminal.type_in(answer);
    }
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    let marks = std::fs::read_to_string(casemate.workspace().join("marks")).unwrap();
    assert_eq!(marks, "1\n");
    let told = texts(&events(&casemate), "agent.tool_result");
    assert_eq!(
        told[1..],
        ["The user did not allow this call.", "The user did not allow this call: use a file"]
    );
}

#[test]
fn resume_puts_the_questions_that_nobody_answered() {
    let casemate = Casemate::new();
    let model = casemate.script(
        "turns: [{ tool_calls: [{ bash: { command: echo 1 >> marks } }] }, { text: Done. }]",
    );
    casemate.put(
        "agent.yaml",
        "tools: [{ type: agent_toolset_20260401, default_config: { permission_policy: { type: always_ask } } }]",
    );
    casemate.run(&["run", "-m", &model, "--agent", "agent.yaml", "go"]).expect(4);
    let mut terminal = casemate.on_terminal(&[], &["resume"]);
    terminal.wait_for(" 1 >> marks\r\n  allow it? [y/N, or why not] ");
    terminal.type_in("y\r");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    let marks = std::fs::read_to_string(casemate.workspace().join("marks")).unwrap();
    assert_eq!(marks, "1\n");
}

#[test]
fn a_question_can_be_left_open() {
    let check = |key: &str, expected: i32, state: &str| {
        let casemate = Casemate::new();
        let model = casemate.script(
            "turns: [{ tool_calls: [{ bash: { command: echo 1 >> marks } }] }, { text: Done. }]",
        );
        casemate.put(
            "agent.yaml",
            "tools: [{ type: agent_toolset_20260401, default_config: { permission_policy: { type: always_ask } } }]",
        );
        let args = ["run", "-m", &model, "--agent", "agent.yaml", "go"];
        let mut terminal = casemate.on_terminal(&[], &args);
        terminal.wait_for("allow it? [y/N, or why not] ");
        terminal.type_in(key);
        let (code, screen) = terminal.finish();
        assert_eq!(code, Some(expected), "{screen}");
        assert!(screen.contains(state), "{screen}");
        assert!(!screen.contains("why not] ^C\x1b"), "the question's line is ended: {screen}");
        assert!(!casemate.workspace().join("marks").exists());
    };
    // End of input leaves it to a later resume; Ctrl-C ends the turn.
    check("\x04", 4, "waiting for you after");
    check("\x03", 3, "interrupted after");
}
