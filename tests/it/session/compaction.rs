//! A conversation that fills the model's context: old results go first, then a summary takes the place of all; whatever the
//! model makes of it, the session goes on, knows its task, and never compacts without progress.

use std::process::Command;

use casemate::event::{EventBody, Summarised};
use casemate::runtime::{Input, SessionSpec};

use super::{Lab, Session, answer, calls, line, stop};
use crate::support::model::{Api, ModelServer, answer as reply, body, text};
use crate::support::{Casemate, peak_until_the_end, write};

/// A context in which little fits.
const SMALL: &str = "[[windows]]\nmatch = 'scripted:*'\ntokens = 4096\n";
const SUMMARY: &str = "summaries:\n  - repeat: 1000\n    text: |\n      ## Task\n      Answer the questions that are asked.\n      \
     ## State\n      Summary {n} says that nothing else is known.\n";
/// The task of which no summary here says anything.
const TASK: &str = "Remember the word PELICAN, and go.";

/// What the client sees of compactions, and the ends of turns.
fn story(events: &[casemate::event::Event]) -> Vec<String> {
    let of = |body: &EventBody| match body {
        EventBody::ContextTrimmed { tool_use_ids } => Some(format!("trims {}", tool_use_ids.len())),
        EventBody::CompactionStarted { reason } => Some(format!("asks for a summary: {reason:?}")),
        EventBody::CompactionFailed { message, again } => {
            Some(format!("fails, {again}: {message}"))
        }
        EventBody::Compacted { by, .. } => Some(format!("compacted by {by:?}")),
        EventBody::ContextOverflowed { .. }
        | EventBody::ThreadContextCompacted {}
        | EventBody::AgentMessage { .. }
        | EventBody::SessionError { .. }
        | EventBody::StatusIdle { .. } => line(body),
        _ => None,
    };
    events.iter().filter_map(|event| of(&event.body)).collect()
}

/// A session with one tool of the client's, which is told the task.
async fn go<'l>(lab: &'l Lab, script: &str) -> Session<'l> {
    let spec = lab.spec(script, &["ask"]);
    lab.create(SessionSpec { initial: vec![Input::text(TASK)], ..spec }).await
}

/// Answers what it asks, each with so many bytes, until it asks no more.
async fn feed(session: &mut Session<'_>, bytes: usize) -> Vec<casemate::event::Event> {
    let mut all = session.rested().await;
    loop {
        let asked = calls(&all[all.len() - last_turn(&all)..]);
        if asked.is_empty() {
            return all;
        }
        let answers: Vec<_> = asked.iter().map(|call| answer(call, &"x".repeat(bytes))).collect();
        session.say(&answers).await.unwrap();
        all.extend(session.rested().await);
    }
}

/// Events since the last but one end of a turn.
fn last_turn(events: &[casemate::event::Event]) -> usize {
    let ends = |event: &casemate::event::Event| matches!(event.body, EventBody::StatusIdle { .. });
    let before = events.iter().rev().skip(1).position(ends);
    before.map_or(events.len(), |n| n + 1)
}

#[tokio::test]
async fn old_results_go_first_then_a_summary_takes_the_place_of_all() {
    let lab = Lab::configured(SMALL);
    let turns = "  - { repeat: 6, text: I ask., tool_calls: [{ ask: { n: '{n}' } }] }
  - { expect: { conversation_contains: PELICAN }, text: It was PELICAN. }
";
    let mut session = go(&lab, &format!("{turns}{SUMMARY}")).await;
    let events = feed(&mut session, 1800).await;
    let told: Vec<_> =
        story(&events).into_iter().filter(|line| !line.starts_with("idle: waits")).collect();
    assert_eq!(
        told,
        [
            "says: I ask.",
            "says: I ask.",
            "says: I ask.",
            "says: I ask.",
            "says: I ask.",
            "trims 4",
            "says: I ask.",
            "says: It was PELICAN.",
            "idle: end_turn",
        ]
    );
    lab.runtime.shutdown().await;
}

/// Calls that are large in themselves cannot be trimmed.
const LONG_CALLS: &str =
    "  - { repeat: 12, tool_calls: [{ ask: { n: '{n}', why: 'WHY' } }] }\n  - text: Done.\n";

fn long_calls() -> String {
    LONG_CALLS.replace("WHY", &"because ".repeat(150))
}

async fn check(summaries: &str, expected: &[&str], by: Summarised) {
    let lab = Lab::configured(SMALL);
    let mut session = go(&lab, &format!("{}{summaries}", long_calls())).await;
    let events = feed(&mut session, 10).await;
    let told: Vec<_> =
        story(&events).into_iter().filter(|line| !line.starts_with("idle: waits")).collect();
    let first = told.iter().position(|line| line.starts_with("compacted by"));
    let first = first.unwrap_or_else(|| panic!("{summaries}: it was never compacted: {told:?}"));
    assert_eq!(told[..first], *expected, "{summaries}");
    assert_eq!(told[first], format!("compacted by {by:?}"), "{summaries}");
    assert_eq!(told[first + 1], "agent.thread_context_compacted");
    assert_eq!(told[told.len() - 2..], ["says: Done.", "idle: end_turn"], "{summaries}");
    for event in &events {
        if let EventBody::Compacted { text, before, after, .. } = &event.body {
            assert!(text.contains(TASK), "the task is lost: {text}");
            assert!(*before > 2 * after && *after < 1900, "{before} became {after}");
        }
    }
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn whatever_comes_instead_of_a_summary_the_session_goes_on() {
    use Summarised::{Log, Model};
    let asks = "asks for a summary: Full";
    let asks_in_vain = |wrong: &str| {
        let failed = format!("fails, true: the summary is not usable: {wrong}");
        (0..3).flat_map(|_| [asks.to_owned(), failed.clone()]).collect::<Vec<_>>()
    };
    check(SUMMARY, &[asks], Model).await;
    // No script for it is as fatal as a wrong key.
    let none = "fails, false: the scripted model cannot answer: the request is for summary 1, but the script has 0 \
                summaries";
    check("", &[asks, none], Log).await;
    let broken = "fails, true: the answer of scripted broke off: the script breaks off here";
    check(
        &SUMMARY.replace("    text", "    errors: [broken]\n    text"),
        &[asks, broken, asks],
        Model,
    )
    .await;
    let too_long = "fails, true: the conversation is too long for the model: the script says so";
    check(
        &SUMMARY.replace("    text", "    errors: [context]\n    text"),
        &[asks, too_long, asks],
        Model,
    )
    .await;
    let nothing = "fails, true: the model answered nothing";
    check(
        &SUMMARY.replace("    text", "    errors: [empty, empty, empty]\n    text"),
        &[asks, nothing].repeat(3),
        Log,
    )
    .await;
    for (garbage, wrong) in [
        ("Sure! Here you go.", "it says next to nothing"),
        (&"## Task la la la ".repeat(40)[..], "it says next to nothing"),
        (
            "one two three four five six seven eight nine",
            "it has none of the sections that were asked for",
        ),
    ] {
        let summaries = format!("summaries:\n  - {{ repeat: 99, text: '{garbage}' }}\n");
        let expected = asks_in_vain(wrong);
        check(&summaries, &expected.iter().map(String::as_str).collect::<Vec<_>>(), Log).await;
    }
    let words: String = (0..5000).map(|n| format!("word{n} ")).collect();
    let long = format!("summaries:\n  - {{ repeat: 99, text: \"## Task\\n{words}\" }}\n");
    check(&long, &[asks], Model).await;
}

#[tokio::test]
async fn a_refusal_as_too_long_compacts_once_and_then_says_so() {
    let check = async |errors: &str, expected: &[&str]| {
        let lab = Lab::new();
        let turns = format!(
            "  - {{ tool_calls: [{{ ask: {{}} }}] }}\n  - {{ errors: [{errors}], text: Done. }}\n"
        );
        let mut session = go(&lab, &format!("{turns}{SUMMARY}")).await;
        let events = feed(&mut session, 9000).await;
        assert_eq!(story(&events)[1..], *expected, "{errors}");
        // The session is usable, whatever came of it.
        session.say(&[Input::text("more")]).await.unwrap();
        let more = session.rested().await;
        let ended = story(&more).pop().unwrap();
        assert!(["idle: end_turn", "idle: retries_exhausted"].contains(&&ended[..]), "{ended}");
        lab.runtime.shutdown().await;
    };
    let compacts = [
        "internal.context_overflowed",
        "asks for a summary: Overflow",
        "compacted by Model",
        "agent.thread_context_compacted",
    ];
    check("context", &[&compacts[..], &["says: Done.", "idle: end_turn"]].concat()).await;
    let gives_up = ["error: CompactionLimitReachedError Exhausted", "idle: retries_exhausted"];
    check("context, context", &[&compacts[..], &gives_up].concat()).await;
}

#[tokio::test]
async fn what_no_summary_can_make_room_for_is_refused_and_the_next_message_is_taken() {
    let lab = Lab::configured(SMALL);
    let turns = "  - { repeat: 3, text: Fine. }\n";
    let mut session = go(&lab, &format!("{turns}{SUMMARY}")).await;
    assert_eq!(story(&session.rested().await), ["says: Fine.", "idle: end_turn"]);
    session.say(&[Input::text("word ".repeat(4000))]).await.unwrap();
    let events = session.rested().await;
    let error = events.iter().find_map(|event| match &event.body {
        EventBody::SessionError { error } => Some(error.clone()),
        _ => None,
    });
    let error = error.expect("an error");
    assert_eq!(
        serde_json::to_value(&error).unwrap()["type"],
        "compaction_limit_reached_error",
        "the protocol's word"
    );
    assert!(error.message.contains("a summary cannot make room for it"), "{}", error.message);
    session.say(&[Input::text("and shorter?")]).await.unwrap();
    assert_eq!(story(&session.rested().await), ["says: Fine.", "idle: end_turn"]);
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_compaction_on_request_leaves_nothing_to_answer() {
    let lab = Lab::new();
    let turns =
        "  - text: Fine.\n  - { expect: { conversation_contains: PELICAN }, text: PELICAN. }\n";
    let mut session = go(&lab, &format!("{turns}{SUMMARY}")).await;
    session.rested().await;
    lab.runtime.compact_session(&session.id).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        [
            "asks for a summary: Request",
            "compacted by Model",
            "agent.thread_context_compacted",
            "idle: end_turn",
        ]
    );
    let again = lab.runtime.compact_session(&session.id).await.unwrap_err().to_string();
    assert!(again.contains("has nothing to compact"), "{again}");
    session.say(&[Input::text("which word?")]).await.unwrap();
    assert_eq!(story(&session.rested().await), ["says: PELICAN.", "idle: end_turn"]);
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_stops_a_compaction_and_what_was_asked_for_is_not_asked_for_again() {
    let lab = Lab::new();
    let slow = SUMMARY.replace("    text", "    delay_ms: 3600000\n    text");
    let mut session = go(&lab, &format!("  - {{ repeat: 2, text: Fine. }}\n{slow}")).await;
    session.rested().await;
    lab.runtime.compact_session(&session.id).await.unwrap();
    session.requested().await;
    session.say(&[stop()]).await.unwrap();
    assert_eq!(story(&session.rested().await), ["idle: end_turn"]);
    session.say(&[Input::text("and now?")]).await.unwrap();
    assert_eq!(story(&session.rested().await), ["says: Fine.", "idle: end_turn"]);
    lab.runtime.shutdown().await;
}

/// What a server says of its model counts, and the request for a summary fits into it.
#[tokio::test]
async fn a_server_is_asked_how_much_its_model_can_read() {
    let api = Api::OpenAi;
    let large = body(api, &[text(&"word ".repeat(3000))], "end_turn");
    let summary = "## Task\nRemember what the user said, and go on with all of it from here.";
    let replies = vec![
        crate::support::model::Reply::stream(large),
        reply(api, &[text(summary)], "end_turn"),
        reply(api, &[text("Yes.")], "end_turn"),
    ];
    let server = ModelServer::with_window(4096, replies);
    let config = format!("[providers.near]\napi = 'openai'\nbase_url = '{}'\n", server.url());
    let lab = Lab::configured(&config);
    let mut spec = lab.spec("  - text: Never.\n", &[]);
    spec.agent.model = "near/m".to_owned();
    let initial = vec![Input::text(TASK)];
    let mut session = lab.create(SessionSpec { initial, ..spec }).await;
    let measured = session.rested().await.into_iter().find_map(|event| match event.body {
        EventBody::ContextMeasured { window, .. } => Some(window),
        _ => None,
    });
    assert_eq!(measured, Some(4096));
    session.say(&[Input::text("more ".repeat(400))]).await.unwrap();
    session.rested().await;
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.json()["max_tokens"], 1024, "a quarter of the window");
        assert!(request.body.len() < 3 * 3072, "{} bytes", request.body.len());
    }
    assert!(requests[1].json().get("tools").is_none(), "a summary takes no tools");
    let told = requests[2].json()["messages"].to_string();
    assert!(told.contains(TASK) && told.contains("go on with all of it"), "{told}");
    lab.runtime.shutdown().await;
}

/// Two thousand calls, ten in each answer, in a context of 4096 tokens; the peak of the program's memory in KiB.
fn peak_of(turns: usize, compactions: usize) -> u64 {
    let casemate = Casemate::new();
    for n in 0..10 {
        casemate.put(&format!("f{n}"), &format!("file {n} {}\n", "=".repeat(110)));
    }
    let config = casemate.home().join("config.toml");
    write(&config, SMALL);
    let agent = casemate.home().join("agent.yaml");
    let read = "{ name: read }";
    let off = ["bash", "write", "edit", "glob", "grep"]
        .map(|name| format!("{{ name: {name}, enabled: false }}"))
        .join(", ");
    write(
        &agent,
        &format!("tools: [{{ type: agent_toolset_20260401, configs: [{read}, {off}] }}]\n"),
    );
    let reads: Vec<_> = (0..10).map(|n| format!("{{ read: {{ file_path: f{n} }} }}")).collect();
    let reads = reads.join(", ");
    let model = casemate.script(&format!(
        "turns:\n  - {{ repeat: {turns}, tool_calls: [{reads}] }}\n  \
         - {{ expect: {{ conversation_contains: PELICAN }}, text: The word is PELICAN. }}\n{SUMMARY}"
    ));
    let mut command: Command = casemate.command();
    command.arg("--config").arg(&config).args(["run", "--quiet", "--max-turns", "400", "-m"]);
    command.arg(&model).arg("--agent").arg(&agent).arg(TASK);
    let (ended, peak) = peak_until_the_end(&mut command);
    assert!(ended.success(), "{ended}");
    let events = casemate.log();
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(count("agent.tool_result"), 10 * turns);
    let public = count("agent.thread_context_compacted");
    assert_eq!(public, count("internal.compacted"));
    assert!(public >= compactions, "{public} compactions");
    let said = events.iter().rfind(|event| event["type"] == "agent.message").unwrap();
    assert_eq!(said["content"][0]["text"], "The word is PELICAN.");
    let fullest = events.iter().filter_map(|event| event["before"].as_u64()).max();
    assert!(fullest < Some(3600), "{fullest:?} tokens before a compaction");
    peak
}

#[test]
fn two_thousand_calls_through_forty_compactions_know_the_first_message_and_take_no_more_memory() {
    let (few, many) = (peak_of(20, 4), peak_of(200, 40));
    println!("peak: {few} KiB at 200 calls, {many} KiB at 2000");
    assert!(few > 0 && many < few + 8 * 1024, "{few} KiB, then {many} KiB");
}
