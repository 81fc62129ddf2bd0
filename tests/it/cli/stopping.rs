//! Ctrl-C, kill and worse in the middle of a call: what is said, what is kept, how it goes on.

use nix::sys::signal::Signal;

use super::{WORKS_ON, demand, events, of_type, texts};
use crate::support::{As, Casemate, OUTCOME_UNKNOWN, Running, until};

/// A run in the middle of its call.
fn working(casemate: &Casemate) -> Running {
    let model = casemate.script(WORKS_ON);
    let run = casemate.start(&["run", "-m", &model, "go"]);
    let started = casemate.workspace().join("started");
    until("the call", || started.exists().then_some(()));
    run
}

#[test]
fn an_interrupt_stops_the_turn_and_keeps_the_session() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let run = working(&casemate);
        run.signal(Signal::SIGINT);
        let run = run.finish().expect(3);
        demand(
            &run,
            &[
                "■ stopping\n",
                "✗ bash   exec 9> alive",
                "■ interrupted after ",
                "casemate resume sesn_",
            ],
        );
        let log = events(&casemate);
        assert!(texts(&log, "agent.tool_result")[0].contains("cancelled"), "{log:?}");
        assert_eq!(log.last().unwrap()["type"], "session.status_idle");
        assert_eq!(of_type(&log, "user.interrupt").len(), 1);
        assert!(of_type(&log, "user.interrupt")[0]["processed_at"].is_string(), "it was taken up");

        let resumed = casemate.run(&["resume"]).expect(0);
        assert_eq!(resumed.stdout(), "Over.\n");
        assert_eq!(
            texts(&events(&casemate), "user.message"),
            ["go", "Continue where you stopped."]
        );
        assert!(!casemate.workspace().join("finished").exists());
    }
}

/// A run that is ended for good by these signals; the next one repairs what was cut.
#[track_caller]
fn check_cut(who: As, signals: &[Signal], code: Option<i32>) {
    let casemate = Casemate::of(who);
    let run = working(&casemate);
    for signal in signals {
        run.signal(*signal);
    }
    let run = run.finish();
    assert_eq!(run.code(), code, "{run:?}");
    // Its sandbox goes with it: nothing goes on to change files.
    let alive = std::fs::File::open(casemate.workspace().join("alive")).unwrap();
    until("the end of the call", || alive.try_lock().ok());
    casemate.put("go", "");
    let resumed = casemate.run(&["resume"]).expect(0);
    assert_eq!(resumed.stdout(), "Over.\n");
    assert!(!casemate.workspace().join("finished").exists());
    let told = texts(&events(&casemate), "agent.tool_result");
    assert!(told[0].starts_with(OUTCOME_UNKNOWN), "{told:?}");
    assert_eq!(told.len(), 1);
}

#[test]
fn a_kill_loses_nothing_and_repeats_nothing() {
    for who in As::all() {
        check_cut(who, &[Signal::SIGKILL], None);
    }
}

#[test]
fn a_polite_kill_ends_it_as_interrupted() {
    check_cut(As::Me, &[Signal::SIGTERM], Some(3));
    check_cut(As::Me, &[Signal::SIGHUP], Some(3));
}

/// Interrupts a run twice. Whether it left without the end of its turn, which the first interrupt alone brings about.
fn quits_at_once() -> bool {
    let casemate = Casemate::new();
    let run = working(&casemate);
    run.signal(Signal::SIGINT);
    // Two of a kind that were not received yet are one.
    until("the first to be heard", || {
        (!of_type(&events(&casemate), "user.interrupt").is_empty()).then_some(())
    });
    run.signal(Signal::SIGINT);
    run.finish().expect(3);
    let left = events(&casemate).last().unwrap()["type"] != "session.status_idle";
    assert_eq!(casemate.run(&["resume"]).expect(0).stdout(), "Over.\n");
    let inputs = ["go", "Continue where you stopped."];
    assert_eq!(texts(&events(&casemate), "user.message"), inputs);
    left
}

#[test]
fn a_second_interrupt_quits_at_once() {
    // A turn ends within a tenth of a second, so the second interrupt has to hurry: it may come too late, not always.
    assert!((0..100).any(|_| quits_at_once()), "every run waited for the end of its turn");
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_stop() {
    let casemate = Casemate::new();
    let model = casemate.script(
        "turns: [{ text: First., tool_calls: [{ bash: { command: 'echo {n} >> marks' } }], repeat: 3 }, { text: Last. }]",
    );
    casemate
        .shell(r#"{ "$@"; echo $? > code; } | head -c 3"#, &["run", "-m", &model, "go"])
        .expect(0);
    let read = |name: &str| std::fs::read_to_string(casemate.workspace().join(name)).unwrap();
    assert_eq!((read("code").as_str(), read("marks").as_str()), ("0\n", "1\n2\n3\n"));
}

#[test]
fn an_interrupt_ends_any_wait() {
    let check = |script: &str, waits: &str| {
        let casemate = Casemate::new();
        let model = casemate.script(script);
        let run = casemate.start(&["run", "-m", &model, "go"]);
        until(waits, || {
            let begun = !casemate.sessions().is_empty();
            (begun && !of_type(&events(&casemate), waits).is_empty()).then_some(())
        });
        run.signal(Signal::SIGINT);
        demand(&run.finish().expect(3), &["■ interrupted after "]);
        let log = events(&casemate);
        assert_eq!(log.last().unwrap()["type"], "session.status_idle");
        let (starts, ends) =
            (of_type(&log, "span.model_request_start"), of_type(&log, "span.model_request_end"));
        assert_eq!(starts.len(), ends.len(), "a request was left open");
    };
    // For the model, in the middle of its answer, and between two tries.
    check("turns: [{ delay_ms: 90000, text: Late. }]", "span.model_request_start");
    check(
        "turns: [{ chunks: 9, chunk_delay_ms: 30000, text: A slow answer. }]",
        "span.model_request_start",
    );
    check(
        "turns: [{ errors: [529, 529, 529, 529, 529, 529], text: Late. }]",
        "session.status_rescheduled",
    );
}

/// The state of every session, newest first, as the list and the JSON say it.
fn states(casemate: &Casemate) -> Vec<String> {
    let rows = casemate.run(&["sessions", "list", "--json"]).expect(0).stdout();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).unwrap();
    let states: Vec<_> = rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect();
    let listed = casemate.run(&["sessions", "list"]).expect(0).stdout();
    let words = listed.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    assert_eq!(words.collect::<Vec<_>>(), states);
    states
}

#[test]
fn a_session_that_was_stopped_is_not_listed_as_done() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let run = working(&casemate);
        assert_eq!(states(&casemate), ["running"]);
        run.signal(Signal::SIGINT);
        run.finish().expect(3);
        assert_eq!(states(&casemate), ["interrupted"]);
        // Once it has gone on to its end, the interrupt is history.
        casemate.run(&["resume"]).expect(0);
        assert_eq!(states(&casemate), ["done"]);

        std::fs::remove_file(casemate.workspace().join("started")).unwrap();
        let run = working(&casemate);
        run.signal(Signal::SIGKILL);
        run.finish();
        assert_eq!(states(&casemate), ["interrupted", "done"]);
        // Also while another process works, on another session.
        std::fs::remove_file(casemate.workspace().join("started")).unwrap();
        let run = working(&casemate);
        assert_eq!(states(&casemate), ["running", "interrupted", "done"]);
        drop(run);
    }
}
