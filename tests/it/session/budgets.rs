//! Budgets: metered exactly, looked at before each request, and what they stop goes on by itself once they are raised.

use casemate::event::{Budget, Event, EventBody, Money, UsageSnapshot};
use casemate::runtime::{Input, SessionPatch, SessionSpec};

use super::{Lab, answer, calls, stop, story};

/// A dollar for a million tokens in, four for a million out.
const PRICED: &str =
    "[[prices]]\nmatch = 'scripted:*'\ninput = '1'\noutput = '4'\ncache_read = '0.1'\n";
/// Each turn but the last costs a dollar.
const TURNS: &str = "
  - { tool_calls: [{ ask: {} }], usage: { input_tokens: 1000000 } }
  - { tool_calls: [{ ask: {} }], usage: { output_tokens: 250000 } }
  - { text: Done., usage: { input_tokens: 4, cache_read_input_tokens: 100000 } }
  - { text: Free. }
";

fn limit(cents: u64) -> Budget {
    Budget { max_list_cost: Some(Money { cents }), ..Budget::default() }
}

fn budget(budget: Option<Budget>) -> SessionPatch {
    SessionPatch { budget: Some(budget), ..SessionPatch::default() }
}

fn usage(events: &[Event]) -> Vec<(UsageSnapshot, Option<Budget>)> {
    let found = events.iter().filter_map(|event| match &event.body {
        EventBody::SessionUsage { usage, budget } => Some((*usage, budget.clone())),
        _ => None,
    });
    found.collect()
}

#[tokio::test]
async fn a_budget_stops_before_the_next_request_and_raising_it_goes_on() {
    let lab = Lab::configured(PRICED);
    let spec = lab.spec(TURNS, &["ask"]);
    let initial = vec![Input::text("go")];
    let mut session = lab.create(SessionSpec { budget: Some(limit(150)), initial, ..spec }).await;
    let mut events = session.rested().await;
    session.say(&[answer(&calls(&events)[0], "one")]).await.unwrap();
    events = session.rested().await;
    // What it costs now is over the budget, but it asks first.
    assert_eq!(story(&events).last().unwrap(), "idle: waits for 1");
    let (used, told) = usage(&events).remove(0);
    assert_eq!((used.list_cost, told), (Money { cents: 200 }, Some(limit(150))));
    session.say(&[answer(&calls(&events)[0], "two")]).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        [
            "answer: two",
            "session.status_running",
            "session.thread_status_running",
            "thread idle: budget_reached",
            "usage: 1000000 tokens",
            "idle: budget_reached",
        ]
    );

    let refused = session.refusal(&[Input::text("more")]).await;
    for settles in
        ["user.tool_confirmation", "user.custom_tool_result", "user.tool_result", "user.interrupt"]
    {
        assert!(refused.contains(settles), "{refused}");
    }
    let before = session.row();
    assert_eq!(session.say(&[stop()]).await.unwrap()[0].seq, 0);
    assert_eq!(session.row(), before, "an interrupt at the cap is not recorded");
    for cents in [1, 150, 200] {
        let refused = lab.runtime.update_session(&session.id, budget(Some(limit(cents)))).await;
        let same = cents == 150;
        assert_eq!(refused.is_ok(), same, "{cents}: {refused:?}");
    }

    lab.runtime.update_session(&session.id, budget(Some(limit(201)))).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        [
            "session.updated",
            "session.status_running",
            "session.thread_status_running",
            "internal.noted",
            "span.model_request_start",
            "says: Done.",
            "request ends, failed: false",
            // It is done, and has used a cent more.
            "thread idle: end_turn",
            "usage: 1000004 tokens",
            "idle: budget_reached",
        ]
    );
    assert_eq!(session.row().cost.as_picodollars(), 2_010_004_000_000);

    lab.runtime.update_session(&session.id, budget(None)).await.unwrap();
    let again = lab.runtime.update_session(&session.id, budget(Some(limit(9999)))).await;
    assert_eq!(
        again.unwrap_err().to_string(),
        "a budget can only be set when a session is created"
    );
    session.say(&[Input::text("more")]).await.unwrap();
    assert_eq!(story(&session.rested().await).last().unwrap(), "idle: end_turn");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn limits_of_other_kinds_come_from_the_configuration() {
    let lab = Lab::configured("[limits]\nmax_tokens = 100\n");
    let turns = "
  - { tool_calls: [{ ask: {} }], usage: { input_tokens: 60, output_tokens: 40 } }
  - text: Done.
";
    let mut session = lab.go(turns, &["ask"]).await;
    let asked = calls(&session.rested().await);
    session.say(&[answer(&asked[0], "one")]).await.unwrap();
    assert_eq!(story(&session.rested().await).last().unwrap(), "idle: budget_reached");
    let more = Budget { max_tokens: Some(101), ..Budget::default() };
    lab.runtime.update_session(&session.id, budget(Some(more))).await.unwrap();
    assert_eq!(story(&session.rested().await).last().unwrap(), "idle: end_turn");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn money_takes_a_model_whose_price_is_known() {
    let config = "[providers.far]\napi = 'openai'\nbase_url = 'http://far.example/v1'\n";
    let lab = Lab::configured(config);
    let mut spec = lab.spec("  - text: Hello.\n", &[]);
    spec.agent.model = "far/m".to_owned();
    let spec = SessionSpec { budget: Some(limit(1)), ..spec };
    let refused = lab.runtime.create_session(spec.clone()).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("model_not_budgetable: no list price is known for far/m"),
        "{refused}"
    );
    assert_eq!(lab.runtime.reader().sessions(&Default::default(), 9).unwrap(), []);
    let tokens = Some(Budget { max_tokens: Some(1), ..Budget::default() });
    lab.runtime.create_session(SessionSpec { budget: tokens, ..spec }).await.unwrap();
    lab.runtime.shutdown().await;
}
