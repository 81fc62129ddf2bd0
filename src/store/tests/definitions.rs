//! Stored definitions and what is made of them: an archived one stays as it is, whoever read it before.

use serde_json::json;

use super::*;

async fn store_with(ids: &[(&'static str, &str)]) -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (kind, id) in ids {
        let body = json!({ "name": id });
        let new = NewRecord { kind, id: (*id).to_owned(), owner: None, created_at: at(0), body };
        store.put_record(new).await.unwrap();
    }
    (dir, store)
}

fn of(agent: &str, environment: &str) -> NewSession {
    let origin = Origin {
        agent_id: agent.parse().unwrap(),
        agent_version: 1,
        agent: json!({}),
        environment_id: environment.parse().unwrap(),
        vault_ids: Vec::new(),
    };
    NewSession { origin: Some(origin), ..new_session("/w") }
}

#[tokio::test]
async fn what_was_archived_meanwhile_does_not_change() {
    let (_dir, store) = store_with(&[("agent", "agent_1")]).await;
    let read = store.reader().record("agent", "agent_1").unwrap().unwrap();
    let archived = store.archive_record("agent", "agent_1", at(1)).await.unwrap();
    let change = RecordChange { body: json!({ "name": "late" }), at: at(2), keep_old: true };
    let refused = store.change_record("agent", "agent_1", read.revision, change).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::ArchivedRecord { id } if id == "agent_1"),
        "{refused:?}"
    );
    assert_eq!(store.reader().record("agent", "agent_1").unwrap(), Some(archived));
    assert_eq!(store.reader().record_versions("agent", "agent_1", None, 9).unwrap().len(), 1);
}

#[tokio::test]
async fn no_session_is_made_of_what_went_meanwhile() {
    let (_dir, store) = store_with(&[
        ("agent", "agent_1"),
        ("agent", "agent_old"),
        ("environment", "env_1"),
        ("environment", "env_old"),
    ])
    .await;
    store.archive_record("agent", "agent_old", at(1)).await.unwrap();
    store.archive_record("environment", "env_old", at(1)).await.unwrap();
    for (agent, environment, expected) in [
        ("agent_old", "env_1", "use agent_old: it is archived"),
        ("agent_1", "env_old", "use env_old: it is archived"),
        ("agent_none", "env_1", "find agent_none: there is none"),
        ("agent_1", "env_none", "find env_none: there is none"),
    ] {
        let refused = store.create_session(of(agent, environment), vec![]).await.unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
    assert_eq!(store.reader().sessions(&SessionFilter::default(), 9).unwrap(), []);
    let made = store.create_session(of("agent_1", "env_1"), vec![]).await.unwrap();
    let refused = store.delete_record("environment", "env_1").await.unwrap_err().to_string();
    assert_eq!(refused, format!("delete env_1: the session {} is in it", made.id));
    store.delete_session(&made.id, made.head).await.unwrap();
    store.delete_record("environment", "env_1").await.unwrap();
}
