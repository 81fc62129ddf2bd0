//! The order of a turn's events, as clients rely on it; interrupts; what is queued meanwhile.

use super::{Input, LONG, Lab, answer, calls, stop, story};

#[tokio::test]
async fn a_turn_tells_its_story_in_order() {
    let lab = Lab::new();
    let mut session = lab.go("  - text: Hello.\n", &[]).await;
    let events = session.rested().await;
    assert_eq!(
        story(&events),
        [
            "user: go",
            "session.status_running",
            "session.thread_status_running",
            "takes up 1",
            "span.model_request_start",
            "says: Hello.",
            "request ends, failed: false",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
        ]
    );
    let taken_up = session.row().head;
    let message = lab.runtime.reader().scan(&session.id, 0, 1).unwrap().remove(0);
    assert!(message.processed_at.is_some() && taken_up == 11, "{message:?}");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_session_works_as_soon_as_it_is_created_with_a_message() {
    let lab = Lab::new();
    let spec = lab.spec(&format!("  - {{ text: Hello., {LONG} }}\n"), &[]);
    let idle = lab.runtime.create_session(spec.clone()).await.unwrap();
    assert_eq!((idle.status.as_str(), idle.head), ("idle", 0));
    let initial = vec![Input::text("one"), Input::text("two")];
    let spec = super::SessionSpec { initial, ..spec };
    let row = lab.runtime.create_session(spec.clone()).await.unwrap();
    assert_eq!((row.status.as_str(), row.head), ("running", 4));
    // One that cannot be taken, and there is no session.
    let bad = super::SessionSpec { initial: vec![Input::text("one"), Input::text(" ")], ..spec };
    lab.runtime.create_session(bad).await.unwrap_err();
    let all = lab.runtime.reader().sessions(&Default::default(), 9).unwrap();
    assert_eq!(all.len(), 2);
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_and_what_follows_it_begins_another() {
    let lab = Lab::new();
    let turns = format!("  - {{ text: Never., {LONG} }}\n");
    let mut session = lab.go(&turns, &[]).await;
    session.requested().await;
    let queued = session.say(&[Input::text("later")]).await.unwrap();
    assert_eq!(queued[0].processed_at, None);
    session.say(&[stop(), Input::text("and now")]).await.unwrap();
    let mut events = session.rested().await;
    events.extend(session.requested().await);
    assert_eq!(
        story(&events),
        [
            "user: later",
            "user.interrupt",
            "user: and now",
            "request ends, failed: true",
            "takes up 1",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
            "session.status_running",
            "session.thread_status_running",
            "takes up 2",
            "span.model_request_start",
        ]
    );
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_that_finds_nothing_to_stop_is_not_recorded() {
    let lab = Lab::new();
    let mut session = lab.go("  - text: Hello.\n", &[]).await;
    session.rested().await;
    let before = session.row();
    let echoed = session.say(&[stop()]).await.unwrap();
    assert_eq!((echoed.len(), echoed[0].seq), (1, 0));
    assert_eq!(session.row(), before);
    let other = Input::Interrupt { thread: Some("sthr_other".parse().unwrap()) };
    assert_eq!(session.refusal(&[other]).await, "the session has no thread sthr_other");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_of_a_session_that_waits_closes_its_calls_without_the_model() {
    let lab = Lab::new();
    let turns = "
  - tool_calls: [{ ask: {} }]
  - tool_calls: [{ ask: {} }]
  - { expect: { last_user_contains: instead }, text: Hello. }
";
    let mut session = lab.go(turns, &["ask"]).await;
    let asked = calls(&session.rested().await);
    session.say(&[stop()]).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        [
            "user.interrupt",
            "result: Tool execution was interrupted before completion. Please retry. true",
            "takes up 1",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
        ]
    );
    let refused = session.refusal(&[answer(&asked[0], "late")]).await;
    assert!(refused.contains("it has one"), "{refused}");

    session.say(&[Input::text("again")]).await.unwrap();
    session.rested().await;
    assert!(session.refusal(&[Input::text("no")]).await.contains("waits for an answer to"));
    session.say(&[stop(), Input::text("do this instead")]).await.unwrap();
    let mut events = session.rested().await;
    events.extend(session.rested().await);
    assert_eq!(
        story(&events),
        [
            "user.interrupt",
            "user: do this instead",
            "result: Tool execution was interrupted before completion. Please retry. true",
            "takes up 1",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
            "session.status_running",
            "session.thread_status_running",
            "takes up 1",
            "span.model_request_start",
            "says: Hello.",
            "request ends, failed: false",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
        ]
    );
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_batch_with_one_bad_input_stores_none() {
    let lab = Lab::new();
    let mut session = lab.go("  - text: Hello.\n", &[]).await;
    session.rested().await;
    let system = || Input::System(vec![casemate::event::ContentBlock::text("be brief")]);
    let check = async |inputs: &[Input], expected: &str| {
        let refused = session.refusal(inputs).await;
        assert!(refused.contains(expected), "{refused}");
    };
    check(&[Input::text("good"), Input::text("\n")], "the message is empty").await;
    check(&[system(), Input::text("good")], "must be the last").await;
    check(&[Input::text("good"), system(), system()], "must be the last").await;
    check(&[Input::text("good"), answer(&"sevt_1".parse().unwrap(), "x")], "no call of this").await;
    lab.runtime.shutdown().await;
}
