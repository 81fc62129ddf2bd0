//! Full disks, failed writes, damaged and foreign files, torn logs, crashes around a commit.

use std::io::{Read, Seek, SeekFrom, Write};

use rusqlite::{Connection, ffi};

use super::*;

/// A copy of the files as a crash would leave them at this moment.
fn snapshot(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for name in ["casemate.db", "casemate.db-wal"] {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

fn open_error(dir: &Path) -> String {
    Store::open(dir).err().expect("the store does not open").to_string()
}

#[tokio::test]
async fn a_full_disk_fails_the_append_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    let bound = |pages: u32| {
        store.0.writer.write(0, move |db| {
            let set = db.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
            set.map_err(db.failed("bound the file"))?;
            Ok(Done { value: (), effect: Effect::None })
        })
    };
    store.append(&id, Author::Client, vec![event("before")]).await.unwrap();
    let head = store.head(&id).unwrap();
    bound(1).await.unwrap();
    let large = "x".repeat(100_000);
    for _ in 0..3 {
        let error = store.append(&id, Author::Client, vec![event(&large)]).await.unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("free some space and try again"), "{error}");
    }
    assert!(!head.has_changed().unwrap());
    assert_eq!(texts(&store.reader().scan(&id, 0, 9).unwrap()), [(1, "before".to_owned())]);
    bound(u32::MAX - 1).await.unwrap();
    let after = store.append(&id, Author::Client, vec![event("after")]).await.unwrap();
    assert_eq!(after[0].seq, 2);
    store.reader().verify(&id).unwrap();
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_written_and_reads_go_on() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    store.append(&id, Author::Client, vec![event("kept")]).await.unwrap();
    let broken = store.0.writer.write(0, |db| -> Result<Done<()>, StoreError> {
        let code = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        Err(db.failed("append an event")(rusqlite::Error::SqliteFailure(code, None)))
    });
    assert!(broken.await.is_err());
    for _ in 0..2 {
        let error = store.append(&id, Author::Client, vec![event("lost")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("until a restart: append an event in"), "{text}");
    }
    let claimed = store.claim(&id).await;
    assert!(matches!(claimed, Err(StoreError::Failed { .. })), "{claimed:?}");
    assert_eq!(store.reader().session(&id).unwrap().unwrap().head, 1);
    store.close().await;
    assert!(dir.path().join("casemate.db-wal").exists(), "left for the next process to judge");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(texts(&store.reader().scan(&id, 0, 9).unwrap()), [(1, "kept".to_owned())]);
}

#[tokio::test]
async fn a_crash_before_the_commit_loses_it_and_one_after_it_does_not() {
    for (phase, survivors) in [(CommitPhase::Before, 1), (CommitPhase::After, 2)] {
        let dir = TempDir::new().unwrap();
        let crash: CommitHook = Box::new(move |n, at| assert!((n, at) != (3, phase), "crash"));
        let store = Store::open_with(dir.path(), Options { on_commit: Some(crash) }).unwrap();
        let id = session(&store).await;
        store.append(&id, Author::Client, vec![event("a")]).await.unwrap();
        let crashed = store.append(&id, Author::Client, vec![event("b")]).await;
        assert!(matches!(crashed, Err(StoreError::Closed)), "{crashed:?}");
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.reader().scan(&id, 0, 9).unwrap().len(), survivors, "{phase:?}");
        store.reader().verify(&id).unwrap();
    }
}

#[tokio::test]
async fn files_that_are_not_ours_to_open_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let file = dir.path().join("casemate.db");
    let set = |pragma, value: i32| {
        Connection::open(&file).unwrap().pragma_update(None, pragma, value).unwrap();
    };
    set("user_version", 99);
    let error = open_error(dir.path());
    assert!(error.contains("its format is 99") && error.ends_with("update casemate"), "{error}");
    assert!(error.contains("casemate.db"), "{error}");
    set("user_version", 0);
    let error = Store::open_read_only(dir.path()).err().unwrap().to_string();
    let expected = format!("its format is 0, not {} yet", schema::FORMAT);
    assert!(error.contains(&expected), "{error}");
    set("application_id", 1);
    assert!(open_error(dir.path()).contains("it is not a casemate store"));

    let mut header = fs::OpenOptions::new().write(true).open(&file).unwrap();
    header.write_all(&[b'?'; 100]).unwrap();
    assert!(open_error(dir.path()).contains("it is not a casemate store"));
    header.set_len(0).unwrap();
    assert!(open_error(dir.path()).contains("it is not a casemate store"));
    let error = Store::open_read_only(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_of_creating_the_store_is_replaced() {
    let dir = TempDir::new().unwrap();
    for name in ["casemate.db.new", "casemate.db.new-wal", "casemate.db-wal"] {
        fs::File::create(dir.path().join(name)).unwrap().write_all(b"half").unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    session(&store).await;
    store.close().await;
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["casemate.db", "casemate.lock"]);
}

#[tokio::test]
async fn a_flipped_bit_costs_one_session_and_is_never_served() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (whole, hit) = (session(&store).await, session(&store).await);
    store.append(&whole, Author::Client, vec![event("left alone")]).await.unwrap();
    let both = vec![event("first"), event("the damaged one")];
    store.append(&hit, Author::Client, both).await.unwrap();
    store.close().await;

    let path = dir.path().join("casemate.db");
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let place = bytes.windows(7).position(|window| window == b"damaged").unwrap();
    file.seek(SeekFrom::Start(place as u64)).unwrap();
    file.write_all(b"D").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = store.reader().scan(&hit, 0, 9).unwrap_err().to_string();
    assert!(error.contains("read event 2 of session") && error.contains("checksum"), "{error}");
    assert_eq!(store.reader().scan(&hit, 0, 1).unwrap().len(), 1);
    assert_eq!(texts(&store.reader().scan(&whole, 0, 9).unwrap()), [(1, "left alone".to_owned())]);
}

#[tokio::test]
async fn a_row_that_is_not_its_log_is_noticed() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    store.append(&id, Author::Client, vec![event("a"), event("b"), event("c")]).await.unwrap();
    let other = Connection::open(dir.path().join("casemate.db")).unwrap();
    other.execute("UPDATE projection SET status = 'running', head = 2", []).unwrap();
    let error = store.reader().verify(&id).unwrap_err();
    assert!(matches!(error, StoreError::Diverged { .. }), "{error}");
    let error = store.append(&id, Author::Client, vec![event("d")]).await.unwrap_err().to_string();
    assert!(error.contains("its position is taken"), "{error}");
    other.execute("DELETE FROM event WHERE seq = 2", []).unwrap();
    let error = store.reader().scan(&id, 0, 9).unwrap_err().to_string();
    assert!(error.contains("read event 2") && error.ends_with("it is missing"), "{error}");
}

#[tokio::test]
async fn a_torn_log_is_a_dense_prefix_with_everything_before_the_tear() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ids = [session(&store).await, session(&store).await];
    let log_bytes = || fs::metadata(dir.path().join("casemate.db-wal")).unwrap().len();
    // After each acknowledgement: how long the log was, and how far each session.
    let mut acked = vec![(log_bytes(), [0, 0])];
    for i in 0..12 {
        let events: Vec<_> = (0..=i % 3).map(|_| event(&"x".repeat(700 * i))).collect();
        let mut heads = acked.last().unwrap().1;
        heads[i % 2] += events.len() as u64;
        store.append(&ids[i % 2], Author::Client, events).await.unwrap();
        acked.push((log_bytes(), heads));
    }
    let crashed = snapshot(dir.path());
    let total = log_bytes();
    let frames = (0..).map(|n| 32 + n * (4096 + 24)).take_while(|at| *at <= total);
    let around_frames = frames.flat_map(|at: u64| [at.saturating_sub(1), at, at + 1]);
    for cut in around_frames.chain((0..total).step_by(5003)) {
        let torn = snapshot(crashed.path());
        let wal = fs::OpenOptions::new().write(true).open(torn.path().join("casemate.db-wal"));
        wal.unwrap().set_len(cut.min(total)).unwrap();
        let reader = Store::open_read_only(torn.path()).unwrap();
        let states: Vec<_> = ids.iter().map(|id| reader.session(id).unwrap()).collect();
        if let [Some(one), Some(two)] = &states[..] {
            let heads = [one.head, two.head];
            for (row, id) in states.iter().flatten().zip(&ids) {
                assert_eq!(reader.each(id, 0, |_| {}).unwrap(), row.head, "cut at {cut}");
                reader.verify(id).unwrap();
            }
            assert!(acked.iter().any(|(_, then)| *then == heads), "cut at {cut}: {heads:?}");
            let synced = acked.iter().rfind(|(bytes, _)| *bytes <= cut).map_or([0, 0], |ack| ack.1);
            assert!(heads[0] >= synced[0] && heads[1] >= synced[1], "cut at {cut}: {heads:?}");
        } else {
            assert!(cut < acked[0].0, "cut at {cut}: a session is gone");
        }
    }
    let store = Store::open(crashed.path()).unwrap();
    let head = acked.last().unwrap().1[0];
    let next = store.append(&ids[0], Author::Client, vec![event("on")]).await.unwrap();
    assert_eq!(next[0].seq, head + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_bounded_under_constant_reads_and_writes() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = session(&store).await;
    let scanned = store.clone();
    let (watched, reading) = (id.clone(), Arc::new(()));
    let alive = Arc::downgrade(&reading);
    let reads = tokio::task::spawn_blocking(move || {
        while alive.upgrade().is_some() {
            scanned.reader().scan(&watched, 0, 50).unwrap();
        }
    });
    let text = "x".repeat(40_000);
    let bound = 4 * u64::from(limits::CHECKPOINT_PAGES) * 4096;
    for _ in 0..20 {
        let burst = (0..32).map(|_| store.append(&id, Author::Client, vec![event(&text)]));
        for done in futures_util::future::join_all(burst).await {
            done.unwrap();
        }
        let log = fs::metadata(dir.path().join("casemate.db-wal")).unwrap().len();
        assert!(log < bound, "{log}");
    }
    drop(reading);
    reads.await.unwrap();
}
