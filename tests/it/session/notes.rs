//! What the model is told by its own session: that it repeats itself, before its turn is stopped, and that little of its
//! budget is left.

use casemate::event::{Budget, Event, EventBody};
use casemate::runtime::{Input, SessionPatch, SessionSpec};

use super::{Lab, Session, answer, calls, story};

fn notes(events: &[Event]) -> Vec<String> {
    let note = |event: &Event| match &event.body {
        EventBody::Noted { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(note).collect()
}

/// Answers the last call that way, and gives all events up to the next rest.
async fn answered(session: &mut Session<'_>, events: &mut Vec<Event>, text: &str) {
    let call = calls(events).pop().expect("a call");
    session.say(&[answer(&call, text)]).await.unwrap();
    events.extend(session.rested().await);
}

#[tokio::test]
async fn a_model_that_repeats_itself_hears_of_it_before_it_is_stopped() {
    let lab = Lab::new();
    let turns = "
  - { repeat: 3, tool_calls: [{ ask: { what: time } }] }
  - { expect: { last_system_contains: 'had the same result 3 times in a row: ask {\"what\":\"time\"}' },
      repeat: 2, tool_calls: [{ ask: { what: time } }] }
  - { text: I stop. }
";
    let mut session = lab.go(turns, &["ask"]).await;
    let mut events = session.rested().await;
    for _ in 0..5 {
        answered(&mut session, &mut events, "noon").await;
    }
    assert_eq!(notes(&events).len(), 1, "it is told once");
    let told = story(&events);
    let error = "error: ToolUseLimitReachedError Exhausted".to_owned();
    assert!(told.contains(&error) && told.last().unwrap() == "idle: retries_exhausted", "{told:?}");
    session.say(&[Input::text("say something else")]).await.unwrap();
    assert!(story(&session.rested().await).contains(&"says: I stop.".to_owned()));
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn other_results_are_progress() {
    let lab = Lab::new();
    let turns = "  - { repeat: 7, tool_calls: [{ ask: {} }] }\n  - { text: Done. }\n";
    let mut session = lab.go(turns, &["ask"]).await;
    let mut events = session.rested().await;
    for n in 0..7 {
        answered(&mut session, &mut events, &n.to_string()).await;
    }
    assert_eq!(
        (notes(&events).len(), story(&events).last().unwrap().as_str()),
        (0, "idle: end_turn")
    );
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_model_hears_when_little_of_its_budget_is_left_and_again_after_it_is_raised() {
    let lab = Lab::new();
    let turns = "
  - { tool_calls: [{ ask: {} }], usage: { input_tokens: 80 } }
  - { expect: { last_system_contains: '80 of 100 tokens are used' },
      tool_calls: [{ ask: {} }], usage: { input_tokens: 5 } }
  - { tool_calls: [{ ask: {} }], usage: { input_tokens: 6 } }
  - { expect: { last_system_contains: '91 of 100 tokens are used' },
      tool_calls: [{ ask: {} }], usage: { input_tokens: 9 } }
  - { expect: { last_system_contains: '100 of 110 tokens are used' }, text: Done. }
";
    let budget = |tokens| Some(Budget { max_tokens: Some(tokens), ..Budget::default() });
    let initial = vec![Input::text("go")];
    let spec = SessionSpec { budget: budget(100), initial, ..lab.spec(turns, &["ask"]) };
    let mut session = lab.create(spec).await;
    let mut events = session.rested().await;
    for n in 0..4 {
        answered(&mut session, &mut events, &n.to_string()).await;
    }
    assert_eq!(story(&events).last().unwrap(), "idle: budget_reached");
    assert_eq!(notes(&events).len(), 2, "{:?}", notes(&events));
    let raised = SessionPatch { budget: Some(budget(110)), ..SessionPatch::default() };
    lab.runtime.update_session(&session.id, raised).await.unwrap();
    let after = session.rested().await;
    assert_eq!(notes(&after).len(), 1, "a new budget is told anew");
    assert!(story(&after).contains(&"says: Done.".to_owned()), "{:?}", story(&after));
    lab.runtime.shutdown().await;
}
