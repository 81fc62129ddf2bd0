//! Tools that the client runs: the session waits, takes the answers as they come, and goes on with the last one.

use casemate::event::{Confirmation, ContentBlock};

use super::{Input, LONG, Lab, answer, calls, story};

#[tokio::test]
async fn a_session_waits_until_every_call_is_answered() {
    let lab = Lab::new();
    let turns = "
  - tool_calls: [{ first: { n: 1 } }, { second: {} }]
  - { expect: { last_tool_result_contains: two, last_user_contains: be brief }, text: Done. }
";
    let mut session = lab.go(turns, &["first", "second"]).await;
    let events = session.rested().await;
    assert_eq!(
        story(&events)[5..],
        [
            "calls first",
            "calls second",
            "request ends, failed: false",
            "thread idle: waits for 2",
            "usage: 0 tokens",
            "idle: waits for 2",
        ]
    );
    let asked = calls(&events);
    let check = async |input: Input, expected: &str| {
        let refused = session.refusal(&[input]).await;
        assert!(refused.contains(expected), "{refused}");
    };
    check(Input::text("hello?"), "waits for an answer to").await;
    let confirm = |result, message: Option<&str>| Input::Confirm {
        call: asked[0].clone(),
        result,
        message: message.map(str::to_owned),
    };
    check(confirm(Confirmation::Allow, None), "it takes a result").await;
    check(confirm(Confirmation::Allow, Some("why")), "goes with a denial").await;
    check(answer(&"sevt_nobody".parse().unwrap(), "x"), "no call of this session").await;

    let echoed = session.say(&[answer(&asked[0], "one")]).await.unwrap();
    assert!(echoed[0].processed_at.is_some(), "it is processed on receipt");
    assert_eq!(
        story(&session.rested().await),
        ["answer: one", "thread idle: waits for 1", "usage: 0 tokens", "idle: waits for 1"]
    );
    assert!(session.refusal(&[answer(&asked[0], "again")]).await.contains("it has one"));
    let brief = Input::System(vec![ContentBlock::text("be brief")]);
    assert!(session.refusal(std::slice::from_ref(&brief)).await.contains("waits for an answer to"));
    let twice = [answer(&asked[1], "two"), answer(&asked[1], "three")];
    assert!(session.refusal(&twice).await.contains("it has one"));

    // The scripted model looks at what it is asked; the instruction is the last that the user's side said.
    session.say(&[answer(&asked[1], "two"), Input::text("be brief")]).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        [
            "answer: two",
            "session.status_running",
            "session.thread_status_running",
            "user: be brief",
            "takes up 1",
            "span.model_request_start",
            "says: Done.",
            "request ends, failed: false",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
        ]
    );
    assert!(session.refusal(&[answer(&asked[1], "late")]).await.contains("it has one"));
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn the_last_answer_makes_the_session_work_at_once() {
    let lab = Lab::new();
    let turns =
        format!("  - tool_calls: [{{ a: {{}} }}, {{ b: {{}} }}]\n  - {{ text: Never., {LONG} }}\n");
    let mut session = lab.go(&turns, &["a", "b"]).await;
    let asked = calls(&session.rested().await);
    for (call, expected) in asked.iter().zip(["idle", "running"]) {
        session.say(&[answer(call, "x")]).await.unwrap();
        assert_eq!(session.row().status.as_str(), expected);
    }
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn an_instruction_goes_to_the_model_behind_an_answer() {
    let lab = Lab::new();
    let turns = "
  - tool_calls: [{ ask: {} }]
  - { expect: { last_system_contains: be brief }, text: Done. }
";
    let mut session = lab.go(turns, &["ask"]).await;
    let asked = calls(&session.rested().await);
    let brief = Input::System(vec![ContentBlock::text("be brief")]);
    session.say(&[answer(&asked[0], "one"), brief]).await.unwrap();
    let told = story(&session.rested().await);
    assert_eq!(
        told[..4],
        [
            "answer: one",
            "session.status_running",
            "session.thread_status_running",
            "system: be brief"
        ]
    );
    assert_eq!(told.last().unwrap(), "idle: end_turn");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_call_that_the_model_did_not_say_right_is_no_call_for_the_client() {
    let lab = Lab::new();
    let turns = "
  - tool_calls: [{ name: ask, raw_input: '{not json' }]
  - { expect: { tool_result_is_error: true }, text: Sorry. }
";
    let mut session = lab.go(turns, &["ask"]).await;
    let events = session.rested().await;
    assert_eq!(calls(&events), []);
    assert_eq!(story(&events).last().unwrap(), "idle: end_turn");
    lab.runtime.shutdown().await;
}
