//! A client whose server dies at every commit: an interrupt with what to do instead, custom results, updates and the
//! archive included. What was answered is there afterwards, nothing is there twice, and the same story comes to its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use casemate::event::{Event, EventBody};
use casemate::runtime::{
    FeedItem, Input, Runtime, SessionFilter, SessionPatch, SessionRow, SessionSpec,
};

use super::{DEADLINE, Lab, answer, open, spec, stop, story};
use crate::support::{variable, write};

const TURNS: &str = "
  - { tool_calls: [{ ask: { n: 0 } }] }
  - { text: I ask., tool_calls: [{ ask: { n: 1 } }, { ask: { n: 2 } }] }
  - { tool_calls: [{ ask: { n: 3 } }] }
  - text: Done.
";

/// The directory of the client's story, in the process that is to die.
const STORY: &str = "CASEMATE_TEST_STORY";
/// Where it is to die.
const DEATH: &str = "CASEMATE_TEST_DEATH";

fn all() -> SessionFilter {
    SessionFilter { include_archived: true, ..SessionFilter::default() }
}

fn log(runtime: &Runtime, row: &SessionRow) -> Vec<Event> {
    let mut events = Vec::new();
    runtime.reader().each(&row.id, 0, |event| events.push(event)).unwrap();
    events
}

fn is_interrupt(event: &Event) -> bool {
    matches!(event.body, EventBody::UserInterrupt { .. })
}

/// Does what is left to do, as a client that looks at what is there.
async fn go_on(runtime: &Runtime, dir: &Path) {
    runtime.resume_all().unwrap();
    if runtime.reader().sessions(&all(), 1).unwrap().is_empty() {
        let spec = spec(dir, TURNS, &["ask"]);
        let initial = vec![Input::text("go")];
        runtime.create_session(SessionSpec { initial, ..spec }).await.unwrap();
    }
    let row = runtime.reader().sessions(&all(), 1).unwrap().remove(0);
    let mut feed = runtime.subscribe(&row.id, 0).unwrap();
    loop {
        // What waits is read first: a session that rests later has taken it up.
        let waits = !runtime.reader().queued(&row.id).unwrap().is_empty();
        let row = runtime.reader().session(&row.id).unwrap().unwrap();
        let stopped = row.stop_reason.clone().filter(|_| row.status.as_str() == "idle");
        match stopped {
            Some(_) if waits => {}
            Some(casemate::event::StopReason::RequiresAction { .. })
                if !log(runtime, &row).iter().any(is_interrupt) =>
            {
                let said = [stop(), Input::text("ask me something else")];
                runtime.submit_all(&row.id, &said).await.unwrap();
            }
            Some(casemate::event::StopReason::RequiresAction { event_ids }) => {
                // One that was answered before the death is refused, and that is fine.
                let said = [answer(&event_ids[0], "yes")];
                if let Err(refused) = runtime.submit_all(&row.id, &said).await {
                    assert!(refused.to_string().contains("it has one"), "{refused}");
                }
            }
            Some(_) if row.metadata.is_empty() => {
                let metadata = Some(BTreeMap::from([("k".to_owned(), Some("v".to_owned()))]));
                let title = Some(Some("t".to_owned()));
                let patch = SessionPatch { title, metadata, ..SessionPatch::default() };
                runtime.update_session(&row.id, patch).await.unwrap();
                continue;
            }
            Some(_) => drop(runtime.archive_session(&row.id).await.unwrap()),
            None if row.archived_at.is_some() => return,
            None => {}
        }
        let item = tokio::time::timeout(DEADLINE, feed.next()).await.expect("an event in time");
        assert!(!matches!(item.unwrap(), FeedItem::Deleted));
    }
}

/// The story in one process. Started by the sweep, it dies where it was told to.
#[tokio::test]
async fn a_client_comes_to_its_end() {
    let Some(dir) = variable(STORY) else {
        let lab = Lab::new();
        go_on(&lab.runtime, lab.dir.path()).await;
        lab.runtime.shutdown().await;
        return;
    };
    let (dir, death) = (Path::new(&dir), variable(DEATH));
    let env: Vec<_> = death.iter().map(|at| ("CASEMATE_CRASH_AT", at.as_str())).collect();
    let runtime = open(dir, &env).unwrap();
    go_on(&runtime, dir).await;
    runtime.shutdown().await;
}

/// Whether the process came to the end of the story.
fn lives_through(dir: &Path, death: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "session::survival::a_client_comes_to_its_end"]);
    command.env(STORY, dir).envs(death.map(|at| (DEATH, at)));
    let output = command.output().unwrap();
    let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6);
    assert!(output.status.success() || aborted, "{death:?}: {output:?}");
    output.status.success()
}

/// What the user and the model did, without the marks of the deaths.
fn told(dir: &Path) -> (SessionRow, Vec<String>) {
    let runtime = open(dir, &[]).unwrap();
    let row = runtime.reader().sessions(&all(), 2).unwrap().remove(0);
    let events = log(&runtime, &row);
    let requests =
        |wanted: fn(&EventBody) -> bool| events.iter().filter(|e| wanted(&e.body)).count();
    let starts = requests(|body| matches!(body, EventBody::ModelRequestStart {}));
    let ends = requests(|body| matches!(body, EventBody::ModelRequestEnd { .. }));
    assert_eq!(starts, ends, "a request has no end, or two");
    assert!(events.iter().all(|event| event.processed_at.is_some()), "an input was passed by");
    let kept = |line: &String| {
        [
            "user: ",
            "says: ",
            "calls ",
            "answer: ",
            "takes up ",
            "session.updated",
            "internal.archived",
        ]
        .iter()
        .any(|start| line.starts_with(start))
    };
    let told = story(&events).into_iter().filter(kept).collect();
    (row, told)
}

#[test]
fn dead_at_every_commit_the_story_is_the_same() {
    let stage = || {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("config.toml"), "");
        std::fs::create_dir(dir.path().join("work")).unwrap();
        dir
    };
    let whole = stage();
    assert!(lives_through(whole.path(), None));
    let (_, expected) = told(whole.path());
    assert_eq!(expected.len(), 16, "{expected:#?}");
    let mut deaths = 0;
    for commit in 1.. {
        let mut died = false;
        for at in [format!("{commit}:before"), commit.to_string()] {
            let dir = stage();
            if lives_through(dir.path(), Some(&at)) {
                continue;
            }
            (died, deaths) = (true, deaths + 1);
            assert!(lives_through(dir.path(), None), "at {at}");
            let (row, story) = told(dir.path());
            assert_eq!(story, expected, "at {at}");
            let kept = (row.title.as_deref(), row.metadata.len(), row.archived_at.is_some());
            assert_eq!(kept, (Some("t"), 1, true), "at {at}");
        }
        if !died {
            break;
        }
        assert!(commit < 100, "the sweep does not end");
    }
    println!("{deaths} deaths");
    assert!(deaths > 15, "only {deaths} deaths: the hook does not work");
}
