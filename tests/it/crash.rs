//! Crashes: stop the process dead at every commit of a scenario, and at random moments; resume; demand the same story.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Casemate, Finished, OUTCOME_UNKNOWN, variable};

/// Every kind of step: parallel reads, writes, shell commands that leave marks, a failed model request, a bad call.
const SCENARIO: &str = r#"
turns:
  - text: I begin.
    tool_calls:
      - write: { file_path: a.txt, content: "one\n" }
      - bash: { command: "echo first >> marks; echo done" }
  - errors: [529]
    tool_calls:
      - read: { file_path: a.txt }
      - glob: { pattern: "*.txt" }
      - bash: { command: "echo second >> marks; cat marks" }
  - text: I go on.
    tool_calls:
      - edit: { file_path: a.txt, old_string: one, new_string: two }
      - bash: { raw_input: "{not json" }
      - bash: { command: "echo third >> marks; exit 3" }
  - text: All done.
"#;

struct Story {
    said: Vec<String>,
    calls: Vec<(String, Value)>,
    results: Vec<String>,
}

fn events(casemate: &Casemate) -> Vec<Value> {
    let id = casemate.only_session();
    casemate.run(&["sessions", "events", &id, "--internal"]).expect(0).json_lines()
}

fn story(events: &[Value]) -> Story {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let text = |event: &Value| event["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    let call = |event: &Value| (event["name"].as_str().unwrap().to_owned(), event["input"].clone());
    // Results in the order of their calls: a sweep may answer them in another.
    let results = of("agent.tool_use").map(|call| {
        let mut found =
            of("agent.tool_result").filter(|result| result["tool_use_id"] == call["id"]);
        let result = found.next().unwrap_or_else(|| panic!("no result for {call}"));
        assert!(found.next().is_none(), "two results for {call}");
        text(result)
    });
    Story {
        said: of("agent.message").map(text).collect(),
        calls: of("agent.tool_use").map(call).collect(),
        results: results.collect(),
    }
}

fn check_log(events: &[Value]) {
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], i + 1, "the log has a gap");
    }
    let starts = events.iter().filter(|e| e["type"] == "span.model_request_start");
    for start in starts {
        let ends = events.iter().filter(|e| e["model_request_start_id"] == start["id"]).count();
        assert_eq!(ends, 1, "{start} has {ends} ends");
    }
    for call in events.iter().filter(|e| e["type"] == "agent.tool_use") {
        let starts = events
            .iter()
            .filter(|e| e["type"] == "internal.tool_started" && e["tool_use_id"] == call["id"]);
        assert!(starts.count() <= 1, "{call} was started twice");
    }
    let last = events.last().unwrap();
    assert_eq!(last["type"], "session.status_idle");
    assert_eq!(last["stop_reason"]["type"], "end_turn");
}

fn marks(workspace: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(workspace.join("marks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn start(casemate: &Casemate, script: &Path, crash_at: Option<&str>) -> Finished {
    let model = format!("scripted:{}", script.display());
    let env: Vec<_> = crash_at.map(|at| ("CASEMATE_CRASH_AT", at)).into_iter().collect();
    casemate.run_with(&env, &["run", "--model", &model, "do it"])
}

fn script(dir: &Path) -> PathBuf {
    let path = dir.join("script.yaml");
    crate::support::write(&path, SCENARIO);
    path
}

#[test]
fn stopped_at_every_commit_the_story_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let script = script(dir.path());
    let whole = Casemate::new();
    start(&whole, &script, None).expect(0);
    let expected = story(&events(&whole));
    check_log(&events(&whole));
    assert_eq!(marks(&whole.workspace()), ["first", "second", "third"]);

    let mut stops = 0;
    let mut unknown = 0;
    for commit in 1.. {
        let mut crashed = false;
        for phase in ["before", ""] {
            let at =
                if phase.is_empty() { commit.to_string() } else { format!("{commit}:{phase}") };
            let casemate = Casemate::new();
            let first = start(&casemate, &script, Some(&at));
            if first.code() == Some(0) {
                continue;
            }
            assert!(first.was_aborted(), "at {at}: {first:?}");
            crashed = true;
            stops += 1;
            if casemate.sessions().is_empty() {
                continue; // Nothing was acknowledged yet.
            }
            finish(&casemate, &at);
            let log = events(&casemate);
            check_log(&log);
            let told = story(&log);
            assert_eq!(told.said, expected.said, "at {at}");
            assert_eq!(told.calls, expected.calls, "at {at}");
            unknown += compare_results(&told, &expected, &marks(&casemate.workspace()), &at);
        }
        if !crashed {
            break;
        }
        assert!(commit < 200, "the sweep does not end");
    }
    println!("{stops} stops, {unknown} calls of unknown outcome");
    assert!(stops > 20, "only {stops} stops: the hook does not work");
    assert!(unknown > 0, "no call was ever cut: the sweep does not reach them");
}

/// Calls that a judge decides about, one way and the other, and a budget of which little is left after the first.
const JUDGED: &str = r#"
turns:
  - usage: { input_tokens: 80 }
    tool_calls:
      - bash: { command: "echo first >> marks" }
      - bash: { command: "echo never >> marks" }
  - expect: { last_system_contains: "80 of 100 tokens are used" }
    tool_calls: [{ bash: { command: "echo second >> marks" } }]
  - text: All done.
judgements:
  - text: '{"decision": "allow", "reason": "fine"}'
  - text: '{"decision": "deny", "reason": "no"}'
  - text: '{"decision": "allow", "reason": "fine too"}'
"#;

#[test]
fn stopped_at_every_commit_a_judgement_stands_beside_its_call_and_a_note_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.yaml");
    crate::support::write(&script, JUDGED);
    let installed = || {
        let casemate = Casemate::new();
        let config = casemate.home().join(".config/casemate");
        std::fs::create_dir_all(&config).unwrap();
        let judge = format!("[permissions]\njudge = 'scripted:{}'\n", script.display());
        let text = format!("{judge}[limits]\nmax_tokens = 100\n");
        crate::support::write(&config.join("config.toml"), &text);
        let auto = "tools: [{ type: agent_toolset_20260401, default_config: { permission_policy: { type: auto } } }]";
        casemate.put("agent.yaml", auto);
        casemate
    };
    let go = |casemate: &Casemate, crash_at: Option<&str>| {
        let model = format!("scripted:{}", script.display());
        let env: Vec<_> = crash_at.map(|at| ("CASEMATE_CRASH_AT", at)).into_iter().collect();
        casemate.run_with(&env, &["run", "--model", &model, "--agent", "agent.yaml", "do it"])
    };
    let judged = |log: &[Value]| -> Vec<(String, String)> {
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let fact = |call: &Value| {
            let about = |event: &&Value| {
                event["type"] == "internal.judged" && event["tool_use_id"] == call["id"]
            };
            let facts: Vec<_> = log.iter().filter(about).collect();
            assert_eq!(facts.len(), 1, "each call is judged once: {call}");
            assert_eq!(facts[0]["decision"], call["evaluated_permission"]);
            (word(&facts[0]["decision"]), word(&facts[0]["reason"]))
        };
        log.iter().filter(|event| event["type"] == "agent.tool_use").map(fact).collect()
    };
    let noted = |log: &[Value]| log.iter().filter(|e| e["type"] == "internal.noted").count();
    let whole = installed();
    go(&whole, None).expect(0);
    assert_eq!(noted(&events(&whole)), 1);
    let expected = (story(&events(&whole)).said, judged(&events(&whole)));
    assert_eq!(expected.1.len(), 3);
    assert_eq!(marks(&whole.workspace()), ["first", "second"]);
    let mut stops = 0;
    for commit in 1.. {
        let mut crashed = false;
        for at in [format!("{commit}:before"), commit.to_string()] {
            let casemate = installed();
            let first = go(&casemate, Some(&at));
            if first.code() == Some(0) {
                continue;
            }
            assert!(first.was_aborted(), "at {at}: {first:?}");
            (crashed, stops) = (true, stops + 1);
            if casemate.sessions().is_empty() {
                continue; // Nothing was acknowledged yet.
            }
            finish(&casemate, &at);
            let log = events(&casemate);
            check_log(&log);
            assert_eq!((story(&log).said, judged(&log)), expected, "at {at}");
            assert_eq!(noted(&log), 1, "at {at}");
            let marks = marks(&casemate.workspace());
            assert!(!marks.contains(&"never".to_owned()), "at {at}: {marks:?}");
        }
        if !crashed {
            break;
        }
        assert!(commit < 200, "the sweep does not end");
    }
    assert!(stops > 10, "only {stops} stops: the hook does not work");
}

/// A context in which a few results are too much: they are taken out, a summary fails, one comes, and one is made from the
/// log.
const FULL: &str = r#"
turns:
  - { repeat: 5, tool_calls: [{ read: { file_path: big } }, { glob: { pattern: "{n}*" } }] }
  - { repeat: 15, text: "On {n}: WORDS", tool_calls: [{ glob: { pattern: "{n}*" } }] }
  - { expect: { conversation_contains: do it }, text: All done. }
summaries:
  - { errors: [529], text: "Task:\nDo what the user said, and go on with all that is left of it." }
"#;

#[test]
fn stopped_at_every_commit_a_compaction_is_not_lost_and_not_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.yaml");
    crate::support::write(&script, &FULL.replace("WORDS", &"more and more ".repeat(150)));
    let installed = || {
        let casemate = Casemate::new();
        casemate.put("big", &format!("{}\n", "=".repeat(1500)).repeat(2));
        let config = casemate.home().join(".config/casemate");
        std::fs::create_dir_all(&config).unwrap();
        let window = "[[windows]]\nmatch = 'scripted:*'\ntokens = 9000\n";
        crate::support::write(&config.join("config.toml"), window);
        casemate
    };
    let kinds = |log: &[Value]| {
        let kinds = ["internal.context_trimmed", "internal.compacted"];
        kinds.map(|kind| log.iter().filter(|event| event["type"] == kind).count())
    };
    let whole = installed();
    start(&whole, &script, None).expect(0);
    let expected = story(&events(&whole));
    let [trims, compactions] = kinds(&events(&whole));
    assert!(trims >= 1 && compactions >= 2, "{trims} trims, {compactions} compactions");
    let mut stops = 0;
    for commit in 1.. {
        let casemate = installed();
        let at = commit.to_string();
        let first = start(&casemate, &script, Some(&at));
        if first.code() == Some(0) {
            break;
        }
        assert!(first.was_aborted(), "at {at}: {first:?}");
        stops += 1;
        finish(&casemate, &at);
        let log = events(&casemate);
        check_log(&log);
        let told = story(&log);
        assert_eq!(told.said, expected.said, "at {at}");
        assert_eq!((told.calls, told.results), (expected.calls.clone(), expected.results.clone()));
        let public = log.iter().filter(|e| e["type"] == "agent.thread_context_compacted").count();
        assert_eq!(kinds(&log), [trims, compactions], "at {at}");
        assert_eq!(public, compactions, "at {at}: clients see each once");
        assert!(commit < 200, "the sweep does not end");
    }
    println!("{stops} stops");
    assert!(stops > 20, "only {stops} stops: the hook does not work");
}

/// A session that was cut before its message was stored has nothing to resume: it is told what to do.
fn finish(casemate: &Casemate, at: &str) {
    let resumed = casemate.run(&["resume"]);
    if resumed.code() == Some(0) {
        return;
    }
    assert_eq!(resumed.code(), Some(2), "at {at}: {resumed:?}");
    if events(casemate).last().is_some_and(|last| last["type"] == "session.status_idle") {
        return; // It was stopped after its last word.
    }
    casemate.run(&["resume", &casemate.only_session(), "do it"]).expect(0);
}

/// Numbers that nobody can foresee; one seed gives the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        bound.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// Runs until it ends or `limit` is over; then it is killed. Whether it ended by itself, and the events that it printed.
fn run_for(casemate: &Casemate, args: &[&str], limit: Duration) -> (bool, Vec<Value>) {
    let path = casemate.home().join("printed");
    let mut command: Command = casemate.command();
    command.args(args).args(["--output", "stream-json"]).stdout(File::create(&path).unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + limit;
    let mut ended = false;
    while !ended && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
        ended = child.try_wait().unwrap().is_some();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    // The last line may be cut; it was not given to anybody.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    (ended, whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// What was printed is in the log, under the same number, with the same words. Only `processed_at` may come later.
fn nothing_is_lost(printed: &[Value], log: &[Value]) {
    let fixed = |event: &Value| {
        let mut event = event.clone();
        event.as_object_mut().unwrap().remove("processed_at");
        event
    };
    for event in printed {
        let place = usize::try_from(event["seq"].as_u64().unwrap()).unwrap() - 1;
        assert_eq!(log.get(place).map(fixed), Some(fixed(event)), "an event is lost");
    }
}

/// `CASEMATE_TEST_KILLS` makes it longer.
#[test]
fn killed_at_random_moments_nothing_is_lost_and_nothing_done_twice() {
    let rounds: u32 = variable("CASEMATE_TEST_KILLS").map_or(25, |n| n.parse().expect("a number"));
    let seed = RandomState::new().hash_one("seed") | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let script = script(dir.path());
    let model = format!("scripted:{}", script.display());
    let whole = Casemate::new();
    let began = Instant::now();
    start(&whole, &script, None).expect(0);
    let length = began.elapsed();
    let expected = story(&events(&whole));

    let (mut kills, mut unknown) = (0, 0);
    for round in 0..rounds {
        let casemate = Casemate::new();
        let mut args = vec!["run", "--model", &model, "do it"];
        loop {
            let (ended, printed) = run_for(&casemate, &args, dice.below(length.mul_f64(1.2)));
            kills += u32::from(!ended);
            if casemate.sessions().is_empty() {
                continue; // Nothing was acknowledged yet.
            }
            nothing_is_lost(&printed, &events(&casemate));
            if ended {
                break;
            }
            args = vec!["resume"];
        }
        let at = format!("round {round}");
        finish(&casemate, &at);
        let log = events(&casemate);
        check_log(&log);
        let told = story(&log);
        assert_eq!((&told.said, &told.calls), (&expected.said, &expected.calls), "{at}");
        unknown += told.results.iter().filter(|result| result.contains(OUTCOME_UNKNOWN)).count();
        let marks = marks(&casemate.workspace());
        for mark in ["first", "second", "third"] {
            let times = marks.iter().filter(|seen| *seen == mark).count();
            assert!(times <= 1, "{at}: `{mark}` was done {times} times");
        }
    }
    println!("{rounds} sessions, {kills} kills, {unknown} calls of unknown outcome");
    assert!(kills >= rounds / 2, "only {kills} kills: they come too late");
}

/// Results are those of the undisturbed run, or say that they are unknown; nothing was done twice. Returns how many are unknown.
fn compare_results(told: &Story, expected: &Story, marks: &[String], at: &str) -> usize {
    let mut unknown = 0;
    for (i, (result, wanted)) in told.results.iter().zip(&expected.results).enumerate() {
        if result.contains(OUTCOME_UNKNOWN) {
            unknown += 1;
        } else if wanted.contains("first") {
            // Shows the marks so far, of which one may be missing.
            assert!(result.contains("second"), "at {at}, call {i}: {result}");
        } else if told.results[0] == expected.results[0] {
            assert_eq!(result, wanted, "at {at}, call {i}");
        }
    }
    assert!(unknown <= 1, "at {at}: one crash cuts one call at most");
    for mark in ["first", "second", "third"] {
        let times = marks.iter().filter(|seen| *seen == mark).count();
        assert!(times <= 1, "at {at}: `{mark}` was done {times} times");
        assert!(times == 1 || unknown == 1, "at {at}: `{mark}` was never done and nobody was told");
    }
    unknown
}
