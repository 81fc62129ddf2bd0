//! What a caller of the store sees. Stored definitions are in `definitions.rs`, faults are in `faults.rs`, properties over random logs in `properties.rs`.

mod definitions;
mod faults;
mod properties;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Instant;
use std::{fs, io};

use tempfile::TempDir;

use super::writer::{Done, Effect};
use super::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::event::{ContentBlock, Cost, EventBody, NewEvent, ServerToolUse, StopReason, Usage};
use crate::id::EventId;
use crate::limits;

fn at(millis: i64) -> Timestamp {
    ManualClock::at_millis(1_700_000_000_000 + millis).now()
}

fn say(text: &str) -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text(text)] }
}

fn event(text: &str) -> NewEvent {
    NewEvent::now(at(1), say(text))
}

fn new_session(workspace: &str) -> NewSession {
    NewSession {
        records: Vec::new(),
        id: SessionId::mint(at(0)),
        title: Some("a title".to_owned()),
        workspace: workspace.into(),
        definition: serde_json::json!({"agent": {"z": 1, "a": [true, null]}}),
        origin: None,
        metadata: BTreeMap::new(),
        budget: None,
        created_at: at(0),
    }
}

async fn session(store: &Store) -> SessionId {
    store.create_session(new_session("/w"), vec![]).await.unwrap().id
}

fn texts(events: &[Event]) -> Vec<(Seq, String)> {
    let text = |event: &Event| match &event.body {
        EventBody::UserMessage { content } => crate::event::text_of(content),
        other => other.kind().to_owned(),
    };
    events.iter().map(|event| (event.seq, text(event))).collect()
}

#[tokio::test]
async fn what_was_appended_is_read_back_after_reopening() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let row = store.create_session(new_session("/w"), vec![]).await.unwrap();
    assert_eq!((row.status, row.head, row.epoch), (SessionStatus::Idle, 0, Epoch(0)));
    assert_eq!((row.stop_reason, row.usage), (None, Usage::default()));
    let id = row.id;
    let epoch = store.claim(&id).await.unwrap();
    let usage = Usage { input_tokens: 7, output_tokens: u64::from(u32::MAX), ..Usage::default() };
    let stop_reason = StopReason::RequiresAction { event_ids: vec![EventId::mint(at(3))] };
    let bodies = [
        EventBody::StatusRunning {},
        say("ünï\u{0}code"),
        EventBody::ModelRequestEnd {
            model_request_start_id: EventId::mint(at(3)),
            is_error: false,
            model_usage: usage,
        },
        EventBody::StatusIdle { stop_reason: stop_reason.clone(), stop_details: None },
    ];
    let new: Vec<_> = bodies.into_iter().map(|body| NewEvent::now(at(5), body)).collect();
    let appended = store.append(&id, Author::Driver(epoch), new).await.unwrap();
    store.close().await;
    assert!(!dir.path().join("casemate.db-wal").exists(), "the log is copied by closing");

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.reader().scan(&id, 0, 10).unwrap(), appended);
    assert_eq!(store.reader().scan(&id, 1, 2).unwrap(), appended[1..3]);
    let row = store.reader().session(&id).unwrap().unwrap();
    let NewSession { title, workspace, definition, created_at, .. } = new_session("/w");
    let expected = SessionRow {
        id: id.clone(),
        title,
        workspace,
        definition: Json::of(&definition),
        status: SessionStatus::Idle,
        stop_reason: Some(stop_reason),
        usage,
        cost: Cost::default(),
        web: ServerToolUse::default(),
        active_ms: 0,
        running_since: None,
        epoch,
        head: 4,
        place: 1,
        agent_id: None,
        agent_version: None,
        environment_id: None,
        vault_ids: Vec::new(),
        agent: Json::of(&serde_json::Value::Null),
        metadata: BTreeMap::new(),
        budget: None,
        created_at,
        updated_at: at(5),
        archived_at: None,
        terminated_at: None,
    };
    assert_eq!(row, expected);
    store.reader().verify(&id).unwrap();
}

#[tokio::test]
async fn an_append_is_all_or_nothing_and_says_why() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    let stale = store.claim(&id).await.unwrap();
    let epoch = store.claim(&id).await.unwrap();
    let first = event("first");
    store.append(&id, Author::Driver(epoch), vec![first.clone()]).await.unwrap();
    let queued = NewEvent::queued(at(2), say("queued"));
    store.append(&id, Author::Client, vec![queued.clone()]).await.unwrap();

    let check = async |id: &SessionId, author, append: Append, expected: &str| {
        let error = store.append(id, author, append).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}\nexpected: {expected}");
        assert_eq!(store.reader().session(&self::id_of(&store)).unwrap().unwrap().head, 2);
    };
    let client = Author::Client;
    let unknown = SessionId::mint(at(9));
    check(&unknown, client, vec![event("x")].into(), "there is none").await;
    let taken_over = "as driver 1: driver 2 has taken over";
    check(&id, Author::Driver(stale), vec![event("x")].into(), taken_over).await;
    check(&id, client, vec![event("x"), first.clone()].into(), "is in its log already").await;
    let same = event("x");
    check(&id, client, vec![same.clone(), same].into(), "is in its log already").await;
    let mark = |id: &EventId| Append {
        events: vec![event("x")],
        processed: vec![(id.clone(), at(3))],
        ..Append::default()
    };
    check(&id, client, mark(&first.id), "it is not waiting").await;
    let to_one_that_works =
        || Append { events: vec![event("x")], working: true, ..Append::default() };
    check(&id, client, to_one_that_works(), "its log has gone on").await;
    check(&id, client, mark(&EventId::mint(at(9))), "it is not waiting").await;
    let many = vec![event("x"); limits::MAX_EVENTS_PER_APPEND + 1];
    check(&id, client, many.into(), "append 1025 events at once").await;
    let large = event(&"x".repeat(limits::MAX_EVENT_BYTES));
    check(&id, client, vec![large].into(), "the bound is 25165824").await;

    store.append(&id, Author::Driver(epoch), mark(&queued.id)).await.unwrap();
    let events = store.reader().scan(&id, 0, 10).unwrap();
    let processed: Vec<_> = events.iter().map(|event| event.processed_at).collect();
    assert_eq!(processed, [Some(at(1)), Some(at(3)), Some(at(1))]);
    store.reader().verify(&id).unwrap();
}

fn id_of(store: &Store) -> SessionId {
    store.reader().sessions(&SessionFilter::default(), 1).unwrap().remove(0).id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_keep_every_log_dense_and_in_order() {
    const TASKS: usize = 8;
    const APPENDS: usize = 40;
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let shared = session(&store).await;
    let tasks = (0..TASKS).map(|task| {
        let (store, shared) = (store.clone(), shared.clone());
        tokio::spawn(async move {
            let own = session(&store).await;
            let mut last = 0;
            for i in 0..APPENDS {
                let text = format!("{task}:{i}");
                let both = vec![event(&text), event(&text)];
                store.append(&own, Author::Client, both).await.unwrap();
                let [event] =
                    &*store.append(&shared, Author::Client, vec![event(&text)]).await.unwrap()
                else {
                    panic!("one event appended, one returned")
                };
                assert!(event.seq > last, "later appends have later positions");
                last = event.seq;
            }
            own
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        let own = task.await.unwrap();
        let mut seen = Vec::new();
        assert_eq!(store.reader().each(&own, 0, |event| seen.push(event)).unwrap(), 80);
        store.reader().verify(&own).unwrap();
    }
    let events = store.reader().scan(&shared, 0, TASKS * APPENDS).unwrap();
    assert!(events.iter().map(|event| event.seq).eq(1..=(TASKS * APPENDS) as u64));
    store.reader().verify(&shared).unwrap();
}

#[tokio::test]
async fn what_waits_is_committed_together_and_a_bad_append_fails_alone() {
    let dir = TempDir::new().unwrap();
    let (seen, commits) = sync_channel(64);
    let tell: CommitHook = Box::new(move |n, phase| seen.send((n, phase)).unwrap());
    let store = Store::open_with(dir.path(), Options { on_commit: Some(tell) }).unwrap();
    let id = session(&store).await;
    assert_eq!(commits.try_iter().count(), 2);

    // Holds the writer until everything else waits in the queue.
    let (go, gate) = sync_channel::<()>(0);
    let held = store.0.writer.write(0, move |_| {
        gate.recv().expect("the test lets the writer go");
        Ok(Done { value: (), effect: Effect::None })
    });
    let appends = async {
        let append = |author, text| store.append(&id, author, vec![event(text)]);
        tokio::join!(
            append(Author::Client, "a"),
            append(Author::Driver(Epoch(9)), "bad"),
            append(Author::Client, "b"),
            async { go.send(()).expect("the writer waits") },
        )
    };
    // The held job is alone in its group unless the others were queued before the writer looked.
    let (held, (a, bad, b, ())) = tokio::join!(biased; held, appends);
    held.unwrap();
    assert!(matches!(bad, Err(StoreError::StaleEpoch { .. })), "{bad:?}");
    assert_eq!(texts(&a.unwrap()), [(1, "a".to_owned())]);
    assert_eq!(texts(&b.unwrap()), [(2, "b".to_owned())]);
    let commits: Vec<_> = commits.try_iter().collect();
    assert!(commits.len() <= 4, "two transactions at most: {commits:?}");
    assert_eq!(commits.last().unwrap().1, CommitPhase::After);
}

#[tokio::test]
async fn heads_wake_after_the_commit_and_close_with_the_session() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    store.append(&id, Author::Client, vec![event("a")]).await.unwrap();
    let mut head = store.head(&id).unwrap();
    assert_eq!(*head.borrow_and_update(), 1);
    store.append(&id, Author::Client, vec![event("b"), event("c")]).await.unwrap();
    head.changed().await.unwrap();
    assert_eq!(*head.borrow_and_update(), 3);
    store.append(&id, Author::Client, Append::default()).await.unwrap();
    assert!(!head.has_changed().unwrap(), "nothing new");

    let early = store.delete_session(&id, 2).await;
    assert!(matches!(early, Err(StoreError::Moved { .. })), "{early:?}");
    store.delete_session(&id, 3).await.unwrap();
    assert!(head.changed().await.is_err(), "nothing more to come");
    assert!(matches!(store.head(&id), Err(StoreError::NoSession { .. })));
    let again = store.delete_session(&id, 3).await;
    assert!(matches!(again, Err(StoreError::NoSession { .. })), "{again:?}");
    assert_eq!(store.reader().scan(&id, 0, 10).unwrap(), []);
    let rows = rusqlite::Connection::open(dir.path().join("casemate.db")).unwrap();
    for table in ["session", "projection", "event"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(rows.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "{table}");
    }
}

#[tokio::test]
async fn sessions_are_listed_found_and_resolved() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (id, workspace) in
        [("sesn_aab", "/w"), ("sesn_aac", "/w"), ("sesn_xab", "/v"), ("sesn_aa", "/v")]
    {
        let id = id.parse().unwrap();
        store.create_session(NewSession { id, ..new_session(workspace) }, vec![]).await.unwrap();
    }
    let exists = store
        .create_session(NewSession { id: "sesn_aa".parse().unwrap(), ..new_session("/w") }, vec![]);
    assert!(matches!(exists.await, Err(StoreError::SessionExists { .. })));
    let touched = NewEvent::now(at(50), EventBody::StatusRunning {});
    store.append(&"sesn_aab".parse().unwrap(), Author::Client, vec![touched]).await.unwrap();

    let reader = store.reader();
    let list = |filter: SessionFilter, limit| -> Vec<String> {
        let rows = reader.sessions(&filter, limit).unwrap();
        rows.iter().map(|row| row.id.to_string()).collect()
    };
    let all = SessionFilter::default();
    assert_eq!(list(all.clone(), 9), ["sesn_aa", "sesn_xab", "sesn_aac", "sesn_aab"]);
    assert_eq!(list(all.clone(), 2), ["sesn_aa", "sesn_xab"]);
    let running = SessionFilter { statuses: vec![SessionStatus::Running], ..all.clone() };
    assert_eq!(list(running, 9), ["sesn_aab"]);
    let there = SessionFilter { workspace: Some("/v".into()), ..all };
    assert_eq!(list(there, 9), ["sesn_aa", "sesn_xab"]);
    let latest =
        |path: &str| reader.latest(&PathBuf::from(path)).unwrap().map(|row| row.id.to_string());
    assert_eq!(latest("/w").as_deref(), Some("sesn_aab"));
    assert_eq!(latest("/nowhere"), None);

    let check = |given: &str, expected: Result<&str, &str>| {
        let found = reader.resolve(given).map(|id| id.to_string()).map_err(|e| e.to_string());
        match (&found, expected) {
            (Ok(id), Ok(expected)) => assert_eq!(id, expected, "{given}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{given}: {error}"),
            _ => panic!("{given}: {found:?}, expected {expected:?}"),
        }
    };
    check("sesn_aab", Ok("sesn_aab"));
    check("sesn_x", Ok("sesn_xab"));
    check("aac", Ok("sesn_aac"));
    check("ac", Ok("sesn_aac"));
    check("sesn_aa", Ok("sesn_aa"));
    check("aa", Err("sesn_aa, sesn_aab, sesn_aac and others match"));
    check("ab", Err("sesn_aab, sesn_xab"));
    check("", Err("no id begins or ends"));
    check("%", Err("no id begins or ends"));
    check("sesn_b", Err("no id begins or ends"));
}

#[tokio::test]
async fn one_process_holds_the_directory_and_any_may_look() {
    let dir = TempDir::new().unwrap();
    let missing = Store::open_read_only(dir.path()).err().unwrap();
    assert!(matches!(missing, StoreError::NoStore { .. }), "{missing}");

    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    store.append(&id, Author::Client, vec![event("a")]).await.unwrap();
    let started = Instant::now();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(started.elapsed().as_secs() < 1);
    let expected = format!("in use by process {}", std::process::id());
    assert!(error.to_string().ends_with(&expected), "{error}");

    let reader = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(texts(&reader.scan(&id, 0, 9).unwrap()), [(1, "a".to_owned())]);
    store.append(&id, Author::Client, vec![event("b")]).await.unwrap();
    assert_eq!(reader.session(&id).unwrap().unwrap().head, 2);

    let clone = store.clone();
    store.close().await;
    let closed = clone.append(&id, Author::Client, vec![event("c")]).await;
    assert!(matches!(closed, Err(StoreError::Closed)), "{closed:?}");
    assert!(matches!(clone.reader().session(&id), Err(StoreError::Closed)));

    // The lock is the kernel's: what a killed owner left in the file does not matter.
    fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("casemate.lock"))
        .unwrap()
        .set_len(1)
        .unwrap();
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(reader.session(&id).unwrap().unwrap().head, 2, "readers outlive the writer");
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    let done = Mutex::new(0);
    let appends = (0..100).map(|_| async {
        store.append(&id, Author::Client, vec![event("x")]).await.unwrap();
        *done.lock().unwrap() += 1;
    });
    let close = store.clone().close();
    tokio::join!(biased; futures_util::future::join_all(appends), close);
    assert_eq!(*done.lock().unwrap(), 100);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.reader().session(&id).unwrap().unwrap().head, 100);
}

#[tokio::test]
async fn the_directory_is_private() -> io::Result<()> {
    let base = TempDir::new()?;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));

    let made = base.path().join("deep/in/here");
    let store = Store::open(&made).unwrap();
    session(&store).await;
    assert_eq!(mode(&made), 0o700);
    for file in fs::read_dir(&made)? {
        let path = file?.path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(store);
    set(&made, 0o755)?;
    set(&made.join("casemate.db"), 0o644)?;
    drop(Store::open(&made).unwrap());
    assert_eq!((mode(&made), mode(&made.join("casemate.db"))), (0o700, 0o600), "taken back");

    let shared = base.path().join("home");
    fs::create_dir_all(shared.join("documents"))?;
    set(&shared, 0o755)?;
    for _ in 0..2 {
        drop(Store::open(&shared).unwrap());
        assert_eq!(mode(&shared), 0o755, "not casemate's to change");
    }
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&shared, Some(12_345), None)?;
        let error = Store::open(&shared).err().unwrap().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }
    Ok(())
}
