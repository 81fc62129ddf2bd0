//! The ends of a session: archived, deleted, an error that no message can mend.

use casemate::runtime::{FeedItem, Origin, SessionPatch, SessionSpec};

use super::{DEADLINE, Input, LONG, Lab, stop, story};

#[tokio::test]
async fn an_archived_session_can_be_read_and_nothing_else() {
    let lab = Lab::new();
    let mut session = lab.go("  - text: Hello.\n", &[]).await;
    session.rested().await;
    let row = lab.runtime.archive_session(&session.id).await.unwrap();
    assert_eq!(
        story(&session.rested().await),
        ["internal.archived", "session.thread_status_terminated", "session.status_terminated"]
    );
    assert_eq!(row.status.as_str(), "terminated");
    assert!(row.archived_at.is_some() && row.archived_at == row.terminated_at, "{row:?}");
    assert!(session.refusal(&[Input::text("more")]).await.contains("has ended"));
    let patch = SessionPatch { title: Some(None), ..SessionPatch::default() };
    let refused = lab.runtime.update_session(&session.id, patch).await.unwrap_err().to_string();
    assert!(refused.contains("has ended"), "{refused}");
    assert_eq!(lab.runtime.archive_session(&session.id).await.unwrap(), row, "once and for all");
    // The list hides it, unless it is asked for.
    let reader = lab.runtime.reader();
    let mut filter = casemate::runtime::SessionFilter::default();
    assert_eq!(reader.sessions(&filter, 9).unwrap(), []);
    filter.include_archived = true;
    assert_eq!(reader.sessions(&filter, 9).unwrap(), [row]);
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_deleted_session_ends_its_feeds() {
    let lab = Lab::new();
    let mut session = lab.go("  - text: Hello.\n", &[]).await;
    session.rested().await;
    lab.runtime.delete(&session.id).await.unwrap();
    let item = tokio::time::timeout(DEADLINE, session.feed.next()).await.unwrap();
    assert_eq!(item.unwrap(), FeedItem::Deleted);
    assert!(session.lab.runtime.subscribe(&session.id, 0).is_err());
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_working_session_is_neither_archived_nor_deleted() {
    let lab = Lab::new();
    let mut session = lab.go(&format!("  - {{ text: Never., {LONG} }}\n"), &[]).await;
    session.requested().await;
    let archived = lab.runtime.archive_session(&session.id).await.unwrap_err().to_string();
    let deleted = lab.runtime.delete(&session.id).await.unwrap_err().to_string();
    for refused in [archived, deleted] {
        assert!(refused.contains("is at work"), "{refused}");
    }
    assert_eq!(session.row().status.as_str(), "running");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_session_between_two_turns_is_neither_archived_nor_deleted() {
    let lab = Lab::new();
    let turns = format!("  - {{ text: Never., {LONG}, repeat: 2 }}\n");
    let mut session = lab.go(&turns, &[]).await;
    session.requested().await;
    // The first turn ends here, and for a moment the session is idle while a message waits.
    session.say(&[stop(), Input::text("and now")]).await.unwrap();
    loop {
        lab.runtime.archive_session(&session.id).await.unwrap_err();
        lab.runtime.delete(&session.id).await.unwrap_err();
        let event = session.next().await;
        if matches!(event.body, casemate::event::EventBody::ModelRequestStart {}) {
            break;
        }
    }
    assert_eq!(session.row().status.as_str(), "running");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_conversation_that_fits_no_more_ends_the_session() {
    let lab = Lab::new();
    for (kind, id) in [("agent", "agent_1"), ("environment", "env_1")] {
        let body = serde_json::json!({});
        lab.runtime.put_record(kind, id.to_owned(), None, body).await.unwrap();
    }
    let origin = Origin {
        agent_id: "agent_1".parse().unwrap(),
        agent_version: 1,
        agent: serde_json::json!({"type": "agent"}),
        environment_id: "env_1".parse().unwrap(),
        vault_ids: Vec::new(),
    };
    let spec = lab.spec("  - { errors: [context, context], text: Never. }\n", &[]);
    let initial = vec![Input::text("go on and on ".repeat(100))];
    let mut session = lab.create(SessionSpec { origin: Some(origin), initial, ..spec }).await;
    let told = story(&session.rested().await);
    assert_eq!(
        told[told.len() - 4..],
        [
            "request ends, failed: true",
            "error: CompactionLimitReachedError Terminal",
            "session.thread_status_terminated",
            "session.status_terminated",
        ],
        "{told:?}"
    );
    assert!(told.contains(&"agent.thread_context_compacted".to_owned()), "{told:?}");
    assert!(session.refusal(&[Input::text("more")]).await.contains("has ended"));
    let row = lab.runtime.archive_session(&session.id).await.unwrap();
    assert!(row.archived_at.is_some(), "what has ended can be put away");
    lab.runtime.shutdown().await;
}

#[tokio::test]
async fn a_failure_that_passes_reschedules_and_one_that_does_not_gives_up() {
    let lab = Lab::new();
    let turns = "  - { errors: [529], text: Hello. }\n  - { errors: [401], text: Never. }\n";
    let mut session = lab.go(turns, &[]).await;
    assert_eq!(
        story(&session.rested().await)[5..],
        [
            "request ends, failed: true",
            "error: ModelOverloadedError Retrying",
            "session.thread_status_rescheduled",
            "session.status_rescheduled",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "says: Hello.",
            "request ends, failed: false",
            "thread idle: end_turn",
            "usage: 0 tokens",
            "idle: end_turn",
        ]
    );
    session.say(&[Input::text("more")]).await.unwrap();
    let told = story(&session.rested().await);
    assert_eq!(told.last().unwrap(), "idle: retries_exhausted");
    assert!(told.iter().any(|line| line.ends_with("Exhausted")), "{told:?}");
    lab.runtime.shutdown().await;
}
