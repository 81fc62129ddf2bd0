//! What clients change of a session that is there: only what changed is told, and the next turn has it.

use std::collections::BTreeMap;

use casemate::agent::Agent;
use casemate::environment::networking::Networking;
use casemate::event::{Budget, Event, EventBody, Money};
use casemate::runtime::{Definition, SessionPatch};
use serde_json::{Value, json};

use super::{Input, LONG, Lab, Session, custom_tool};

fn money(cents: u64) -> Option<Option<Budget>> {
    Some(Some(Budget { max_list_cost: Some(Money { cents }), ..Budget::default() }))
}

/// The bodies after `head` that clients see.
fn told(session: &Session<'_>, head: u64) -> Vec<Value> {
    let events = session.lab.runtime.reader().scan(&session.id, head, 100).unwrap();
    let public = |event: &&Event| event.body.audience() == casemate::event::Audience::Public;
    events.iter().filter(public).map(|event| serde_json::to_value(&event.body).unwrap()).collect()
}

#[tokio::test]
async fn only_what_changed_is_told() {
    let lab = Lab::new();
    let session = lab.create(lab.spec("  - text: Hello.\n", &[])).await;
    let mut head = 0;
    let mut check = async |patch: SessionPatch, expected: &[Value]| {
        let row = lab.runtime.update_session(&session.id, patch).await.unwrap();
        assert_eq!(told(&session, head), expected);
        head = row.head;
        row
    };
    let title = |title: Option<&str>| SessionPatch {
        title: Some(title.map(str::to_owned)),
        ..SessionPatch::default()
    };
    let row =
        check(title(Some("new")), &[json!({"type": "session.updated", "title": "new"})]).await;
    assert_eq!(row.title.as_deref(), Some("new"));
    check(title(Some("new")), &[]).await;
    check(title(None), &[json!({"type": "session.updated", "title": null})]).await;
    check(SessionPatch::default(), &[]).await;

    let metadata = |pairs: &[(&str, Option<&str>)]| {
        let owned =
            |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        let metadata: BTreeMap<_, _> = pairs.iter().map(owned).collect();
        SessionPatch { metadata: Some(metadata), ..SessionPatch::default() }
    };
    let all = |metadata: Value| [json!({"type": "session.updated", "metadata": metadata})];
    check(metadata(&[("a", Some("1")), ("b", Some("2"))]), &all(json!({"a": "1", "b": "2"}))).await;
    check(metadata(&[("a", None), ("c", None)]), &all(json!({"b": "2"}))).await;
    check(metadata(&[("b", Some("2"))]), &[]).await;
    let row = check(metadata(&[("b", None)]), &all(json!({}))).await;
    assert_eq!(row.metadata, BTreeMap::new());
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn other_tools_are_there_from_the_next_turn_on() {
    let lab = Lab::new();
    let turns = "
  - { expect: { tools: [old] }, text: One. }
  - { expect: { tools: [new, newer] }, text: Two. }
";
    let mut session = lab.go(turns, &["old"]).await;
    session.rested().await;
    let definition: Definition = session.row().definition.parse().unwrap();
    let custom_tools = vec![custom_tool("new"), custom_tool("newer")];
    let agent = Agent { custom_tools, ..definition.agent };
    let seen = json!({"type": "agent", "tools": ["new", "newer"]});
    let head = session.row().head;
    let patch = SessionPatch { agent: Some((agent, seen.clone())), ..SessionPatch::default() };
    let row = lab.runtime.update_session(&session.id, patch.clone()).await.unwrap();
    assert_eq!(row.agent.parse::<serde_json::Value>().unwrap(), seen);
    assert_eq!(told(&session, head), [json!({"type": "session.updated", "agent": seen})]);
    // The same again is no change.
    let row = lab.runtime.update_session(&session.id, patch).await.unwrap();
    assert_eq!(row.head, head + 2);

    session.say(&[Input::text("again")]).await.unwrap();
    let said = super::story(&session.rested().await);
    assert!(said.contains(&"says: Two.".to_owned()), "{said:?}");
    lab.runtime.shutdown().await;
}

/// Searches are offered where there is a provider for them, at creation and later.
#[tokio::test]
async fn an_update_offers_no_tool_that_the_session_could_not_use() {
    let config = "[web.search]\nprovider = 'searxng'\nurl = 'http://127.0.0.1:1'\n";
    for (config, networking, expected) in [
        ("", Networking::Unrestricted, [false, true]),
        (config, Networking::Unrestricted, [true, true]),
        (config, Networking::None, [false, false]),
    ] {
        let lab = Lab::configured(config);
        let mut spec = lab.spec("  - text: Hello.\n", &[]);
        spec.environment.networking = networking;
        let session = lab.create(spec).await;
        let definition: Definition = session.row().definition.parse().unwrap();
        let tools = Agent::with_model("m").tools;
        let agent = Some((Agent { tools, ..definition.agent }, json!({"tools": "all"})));
        let patch = SessionPatch { agent, ..SessionPatch::default() };
        lab.runtime.update_session(&session.id, patch).await.unwrap();
        let events = lab.runtime.reader().scan(&session.id, 0, 100).unwrap();
        let replaced = events.iter().find_map(|event| match &event.body {
            EventBody::AgentReplaced { agent } => Some(agent),
            _ => None,
        });
        let agent = replaced.expect("another agent");
        let has = ["web_search", "web_fetch"].map(|tool| agent.grant(tool).is_some());
        assert_eq!(has, expected, "{config}");
        assert!(agent.grant("bash").is_some());
        lab.runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_working_session_keeps_its_agent() {
    let lab = Lab::new();
    let mut session = lab.go(&format!("  - {{ text: Never., {LONG} }}\n"), &["old"]).await;
    session.requested().await;
    let definition: Definition = session.row().definition.parse().unwrap();
    let agent = Some((definition.agent, json!({"other": true})));
    let patch = SessionPatch { agent, ..SessionPatch::default() };
    let refused = lab.runtime.update_session(&session.id, patch).await.unwrap_err();
    assert!(refused.to_string().contains("is at work"), "{refused}");
    // A title is no part of the work.
    let patch = SessionPatch { title: Some(Some("t".to_owned())), ..SessionPatch::default() };
    lab.runtime.update_session(&session.id, patch).await.unwrap();
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_budget_is_set_at_creation_or_never() {
    let lab = Lab::new();
    let session = lab.create(lab.spec("  - text: Hello.\n", &[])).await;
    let patch = SessionPatch { budget: money(100), ..SessionPatch::default() };
    let refused = lab.runtime.update_session(&session.id, patch).await.unwrap_err();
    assert_eq!(refused.to_string(), "a budget can only be set when a session is created");
    let patch = SessionPatch { budget: Some(None), ..SessionPatch::default() };
    assert_eq!(lab.runtime.update_session(&session.id, patch).await.unwrap().head, 0);
    lab.runtime.shutdown().await;
}
