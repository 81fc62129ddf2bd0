//! What sessions are given: files at a path of their own, when they are created and later. (Checklist of the protocol:
//! 68, 70–72, 74, 78.)

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Server;
use super::files::{attempt_upload, file, stored, upload};
use super::sessions::{Lab, message};
use crate::support::{As, Casemate, until};

const TOOLS: &str = "agent_toolset_20260401";

/// A server whose agent runs these commands, one for each message.
pub(super) fn lab(who: As, commands: &[&str]) -> Lab {
    let turn = |command: &&str| {
        let call = json!({ "tool_calls": [{ "name": "bash", "input": { "command": command } }] });
        format!("{call}, {{text: done}}")
    };
    let turns: Vec<_> = commands.iter().map(turn).collect();
    Lab::of(who, &turns.join(", "), &json!([{ "type": TOOLS }]))
}

/// A stored file's id.
fn put(server: &Server, name: &str, bytes: &[u8]) -> String {
    let made = upload(server, &[file(name, bytes)]).expect(200);
    made["id"].as_str().unwrap().to_owned()
}

/// What the last command said.
fn said(lab: &Lab, session: &str) -> String {
    let events = lab.events(session);
    let mut results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let last = results.next_back().unwrap_or_else(|| panic!("{events:?}"));
    last["content"][0]["text"].as_str().unwrap().trim().to_owned()
}

/// Has the session run its next command, and says what came of it.
pub(super) fn run(lab: &Lab, session: &str) -> String {
    lab.send(session, &json!([message("go on")])).expect(200);
    lab.settled(session);
    said(lab, session)
}

// 70, 71
#[test]
fn a_session_reads_the_files_that_it_is_given_and_cannot_change_them() {
    for who in As::all() {
        let look = "cd /mnt/session/uploads; for file in $(find . -type f | sort); do cat $file; done; \
                    echo more 2>/dev/null >> deep/er/data.csv || echo refused; \
                    rm -f deep/er/data.csv 2>/dev/null || echo refused; \
                    chmod 777 deep/er/data.csv 2>/dev/null || echo refused; \
                    touch x 2>/dev/null || echo refused";
        let lab = lab(who, &[look]);
        let (one, other) =
            (put(&lab.server, "a.txt", b"first\n"), put(&lab.server, "b", b"second\n"));
        let resources = json!([
            { "type": "file", "file_id": one, "mount_path": "/deep/er/data.csv" },
            { "type": "file", "file_id": other },
        ]);
        let made = lab.create(&json!({ "resources": resources })).expect(200);
        let session = made["id"].as_str().unwrap();
        let shown = made["resources"].as_array().unwrap();
        let paths: Vec<_> = shown.iter().map(|one| one["mount_path"].as_str().unwrap()).collect();
        let default = format!("/mnt/session/uploads/{other}");
        assert_eq!(paths, ["/mnt/session/uploads/deep/er/data.csv", &default]);
        for (given, original) in shown.iter().zip([&one, &other]) {
            assert_eq!(given["type"], "file");
            assert!(given["id"].as_str().unwrap().starts_with("sesrsc_"));
            assert_ne!(given["file_id"], json!(original), "the session has a file of its own");
            assert_eq!(given.as_object().unwrap().len(), 6, "{given}");
        }
        assert_eq!(lab.get(session)["resources"], made["resources"]);
        assert_eq!(
            run(&lab, session),
            "first\nsecond\nrefused\nrefused\nrefused\nrefused",
            "{who:?}"
        );
    }
}

fn path(session: &str) -> String {
    format!("/v1/sessions/{session}/resources")
}

fn given(file: &str) -> Value {
    json!({ "type": "file", "file_id": file })
}

fn given_at(file: &str, path: &str) -> Value {
    json!({ "type": "file", "file_id": file, "mount_path": path })
}

// 72, 74
#[test]
fn a_live_session_is_given_files_and_loses_them() {
    for who in As::all() {
        let look =
            "cd /mnt/session/uploads && find . | sort | tr '\\n' ' '; cat in/a 2>/dev/null || true";
        let lab = lab(who, &[look, look, look, look]);
        let session = lab.session(&[]);
        assert_eq!(run(&lab, &session), ".", "{who:?}");
        let file = put(&lab.server, "a.txt", b"hello");
        let added = lab.server.post(&path(&session), &given_at(&file, "/in/a")).expect(200);
        // The session has bytes of its own.
        lab.server.ask("DELETE", &format!("/v1/files/{file}"), None).expect(200);
        assert_eq!(run(&lab, &session), ". ./in ./in/a hello", "{who:?}");

        let one = format!("{}/{}", path(&session), added["id"].as_str().unwrap());
        assert_eq!(lab.server.get(&one).expect(200), added);
        let listed = lab.server.get(&path(&session)).expect(200);
        assert_eq!(listed, json!({ "data": [added], "next_page": null }));
        let own = format!("/v1/files?scope_id={session}");
        let own = lab.server.get(&own).expect(200);
        assert_eq!(own["data"][0]["id"], added["file_id"]);
        let (status, _, message) =
            lab.server.post(&one, &json!({ "authorization_token": "t" })).error();
        let expected =
            "authorization_token: only a github_repository has a token, and this resource is none";
        assert_eq!((status, message.as_str()), (400, expected));

        // It is the same after a restart.
        let Lab { server, agent, environment } = lab;
        let lab = Lab { server: Server::of(server.stop(), &[]), agent, environment };
        assert_eq!(run(&lab, &session), ". ./in ./in/a hello", "{who:?}");
        let deleted = lab.server.ask("DELETE", &one, None).expect(200);
        assert_eq!(deleted, json!({ "id": added["id"], "type": "session_resource_deleted" }));
        assert_eq!(run(&lab, &session), ".", "{who:?}");
        assert_eq!(lab.server.get(&one).error().0, 404);
        assert_eq!(stored(&lab.server.casemate), Vec::<String>::new());
    }
}

// 78
#[test]
fn a_list_has_all_unless_there_is_a_limit() {
    let lab = Lab::new("{text: hello}");
    let file = put(&lab.server, "a", b"a");
    let resources: Vec<_> = (0..5).map(|n| given_at(&file, &format!("/{n}"))).collect();
    let create = |resources: &[Value]| lab.create(&json!({ "resources": resources })).expect(200);
    let session = create(&resources);
    let other = create(&resources[..2]);
    let of = |session: &Value| path(session["id"].as_str().unwrap());
    let all = lab.server.get(&of(&session)).expect(200);
    assert_eq!(all, json!({ "data": session["resources"], "next_page": null }));
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = lab.server.get(&format!("{}?limit=2{next}", of(&session))).expect(200);
        seen.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_page"].as_str() else { break };
        next = format!("&page={cursor}");
        // A cursor of another list.
        assert_eq!(lab.server.get(&format!("{}?{next}", of(&other))).error().0, 400);
    }
    assert_eq!(json!(seen), session["resources"]);
    for query in ["limit=0", "limit=1001", "page=page_x"] {
        assert_eq!(lab.server.get(&format!("{}?{query}", of(&session))).error().0, 400, "{query}");
    }
}

#[test]
fn what_a_session_cannot_be_given_is_refused_and_changes_nothing() {
    let lab = Lab::new("{text: hello}");
    let file = put(&lab.server, "a", b"a");
    let session = lab.create(&json!({ "resources": [given_at(&file, "/a/b")] })).expect(200);
    let session = session["id"].as_str().unwrap();
    let (files, listed) = (stored(&lab.server.casemate).len(), lab.server.get(&path(session)).body);
    let long = format!("/{}", "x".repeat(256));
    let deep = format!("/{}", "x/".repeat(600));
    // Of a session that is there, and of a new one, where that is different.
    let check = |body: &Value, status: u16, add: &str, create: &str| {
        let (found, _, message) = lab.server.post(&path(session), body).error();
        assert_eq!((found, message.as_str()), (status, add), "{body}");
        let (found, _, message) = lab.create(&json!({ "resources": [body] })).error();
        assert_eq!((found, message.as_str()), (status, create), "{body}");
    };
    let same = |body: &Value, status: u16, message: &str| {
        check(body, status, message, &format!("resources[0].{message}"));
    };
    let at = |path: &str| given_at(&file, path);
    same(&json!({ "type": "file" }), 400, "file_id: Field required");
    same(&given("file_unknown"), 404, "file_id: there is no file `file_unknown`");
    same(&given("../../etc"), 404, "file_id: there is no file `../../etc`");
    same(
        &json!({ "type": "file", "file_id": file, "more": 1 }),
        400,
        "more: Extra inputs are not permitted",
    );
    same(&at("a"), 400, "mount_path: must be an absolute path");
    same(&at("/a/../../b"), 400, "mount_path: must not have `.` or `..` in it");
    same(&at("/./a"), 400, "mount_path: must not have `.` or `..` in it");
    same(&at("//a"), 400, "mount_path: must not have an empty name in it, nor end with a slash");
    same(&at("/a/"), 400, "mount_path: must not have an empty name in it, nor end with a slash");
    same(&at("/"), 400, "mount_path: must name a file");
    same(&at("/mnt/session/uploads"), 400, "mount_path: must name a file");
    same(&at("/a\nb"), 400, "mount_path: must not have a control character in it");
    same(&at(&long), 400, "mount_path: must not have a name of more than 255 bytes in it");
    same(&at(&deep), 400, "mount_path: must have at most 1024 bytes");
    check(
        &json!({ "type": "folder" }),
        400,
        "type: must be `file`",
        "resources[0].type: must be `file`, `github_repository` or `memory_store`",
    );
    // A place that is taken, its parent, and what lies below it.
    for (path, full) in [("/a/b", "a/b"), ("/a", "a"), ("/mnt/session/uploads/a/b/c", "a/b/c")] {
        let message = lab.server.post(&super::resources::path(session), &at(path)).error().2;
        let expected = format!(
            "mount_path: /mnt/session/uploads/{full} cannot be had: the session has a file at /mnt/session/uploads/a/b"
        );
        assert_eq!(message, expected);
    }
    let twice = lab.create(&json!({ "resources": [given(&file), given(&file)] })).error();
    assert!(twice.2.starts_with("resources.mount_path: "), "{twice:?}");
    let many: Vec<_> = (0..501).map(|n| at(&format!("/{n}"))).collect();
    let many = lab.create(&json!({ "resources": many })).error();
    assert_eq!(many.2, "resources: a session can have at most 500 files");
    for body in [json!({ "type": "memory_store" }), json!({ "type": "github_repository" })] {
        let message = lab.server.post(&path(session), &body).error().2;
        assert_eq!(
            message,
            "type: must be `file`: anything else is given when a session is created"
        );
    }
    for id in ["sesrsc_unknown", "file_x", "%2e%2e"] {
        for method in ["GET", "DELETE"] {
            let path = format!("{}/{id}", path(session));
            assert_eq!(lab.server.ask(method, &path, None).error().0, 404, "{method} {path}");
        }
    }
    assert_eq!(stored(&lab.server.casemate).len(), files);
    assert_eq!(lab.server.get(&path(session)).body, listed);
    let sessions = lab.server.get("/v1/sessions").expect(200);
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1);
}

// 68
#[test]
fn a_session_that_ended_keeps_what_it_has_until_it_is_deleted() {
    let lab = Lab::new("{text: hello}");
    let file = put(&lab.server, "a", b"a");
    let made = lab.create(&json!({ "resources": [given(&file)] })).expect(200);
    let session = made["id"].as_str().unwrap();
    lab.server.post(&format!("/v1/sessions/{session}/archive"), &json!({})).expect(200);
    let one = format!("{}/{}", path(session), made["resources"][0]["id"].as_str().unwrap());
    assert_eq!(lab.server.post(&path(session), &given_at(&file, "/b")).error().0, 400);
    assert_eq!(lab.server.ask("DELETE", &one, None).error().0, 400);
    assert_eq!(lab.server.get(&one).expect(200), made["resources"][0]);
    lab.server.ask("DELETE", &format!("/v1/sessions/{session}"), None).expect(200);
    assert_eq!(lab.server.get(&one).error().0, 404);
    assert_eq!(stored(&lab.server.casemate), [file], "the uploaded file stays");
}

/// What the store says of bytes: the ids of all that have a record.
fn recorded(casemate: &Casemate) -> BTreeSet<String> {
    let db = rusqlite::Connection::open(casemate.data_dir().join("casemate.db")).unwrap();
    let sql = "SELECT id FROM record WHERE kind IN ('file', 'attached_file')";
    let mut select = db.prepare(sql).unwrap();
    let ids = select.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

/// Every way in which files come and go, up to where the server stops.
fn come_and_go(server: &Server, model: &str) -> Option<()> {
    let key = format!("Bearer {}", server.key);
    let ask = |method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = server.attempt(method, path, &[("authorization", &key)], body.as_bytes())?;
        Some(reply.expect(200))
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let agent = json!({ "name": "a", "model": model, "tools": [{ "type": TOOLS }] });
    let agent = ask("POST", "/v1/agents", &agent)?;
    let environment = ask("POST", "/v1/environments", &json!({ "name": "e" }))?;
    let file = attempt_upload(server, &[file("a.txt", b"hello")])?.expect(200);
    let file = text(&file["id"]);
    let document = json!({ "type": "document", "source": { "type": "file", "file_id": file } });
    let told = json!({ "type": "user.message", "content": [document] });
    let session = json!({
        "agent": agent["id"], "environment_id": environment["id"], "resources": [given(&file)],
        "initial_events": [told],
    });
    let session = text(&ask("POST", "/v1/sessions", &session)?["id"]);
    let one = format!("/v1/sessions/{session}");
    let rested = || {
        until("the session's rest, or the server's end", || match ask("GET", &one, &Value::Null) {
            Some(session) if session["status"] != "idle" => None,
            seen => Some(seen.map(drop)),
        })
    };
    rested()?;
    let added = ask("POST", &path(&session), &given_at(&file, "/b"))?;
    ask("DELETE", &format!("/v1/files/{file}"), &Value::Null)?;
    ask("POST", &format!("{one}/events"), &json!({ "events": [message("again")] }))?;
    rested()?;
    ask("DELETE", &format!("{}/{}", path(&session), text(&added["id"])), &Value::Null)?;
    ask("DELETE", &one, &Value::Null).map(drop)
}

#[test]
fn stopped_at_every_commit_no_bytes_are_without_a_record_and_no_record_without_bytes() {
    let command = "date +%N > /mnt/session/outputs/a";
    let turn = json!({ "tool_calls": [{ "name": "bash", "input": { "command": command } }] });
    let mut at = 0;
    loop {
        at += 1;
        let mut ended = false;
        for phase in ["", ":before"] {
            let casemate = Casemate::new();
            let model = casemate
                .script(&format!("turns: [{turn}, {{text: done}}, {turn}, {{text: done}}]"));
            let crash = [("CASEMATE_CRASH_AT", format!("{at}{phase}"))];
            let server = Server::with(casemate, &crash, &[]);
            let whole = come_and_go(&server, &model).is_some();
            ended |= whole;
            let server = Server::of(server.crashed(!whole), &[]);
            let place = format!("commit {at}{phase}");
            let sessions = server.get("/v1/sessions").expect(200);
            let sessions = sessions["data"].as_array().unwrap().clone();
            for session in &sessions {
                let one = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
                until("the session's rest", || {
                    (server.get(&one).expect(200)["status"] == "idle").then_some(())
                });
            }
            let casemate = server.stop();
            let bytes: BTreeSet<_> = stored(&casemate).into_iter().collect();
            assert_eq!(bytes, recorded(&casemate), "{place}");
            for session in &sessions {
                let uploads = format!("sessions/{}/uploads", session["id"].as_str().unwrap());
                let shown = std::fs::read_dir(casemate.data_dir().join(uploads)).unwrap();
                let mut shown: Vec<_> =
                    shown.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                shown.sort();
                let resources = session["resources"].as_array().unwrap();
                let mut expected: Vec<_> = resources
                    .iter()
                    .map(|one| one["mount_path"].as_str().unwrap().rsplit('/').next().unwrap())
                    .collect();
                expected.sort_unstable();
                assert_eq!(shown, expected, "{place}");
            }
        }
        if ended {
            break;
        }
    }
    assert!(at > 15, "there are more commits than {at}");
}

#[test]
fn what_the_machine_lost_of_uploads_is_put_back_and_strays_are_taken_away() {
    let lab = Lab::new("{text: hello}");
    let file = put(&lab.server, "a", b"a");
    let made = lab.create(&json!({ "resources": [given_at(&file, "/x/y")] })).expect(200);
    let session = made["id"].as_str().unwrap();
    let casemate = lab.server.stop();
    let uploads = casemate.data_dir().join("sessions").join(session).join("uploads");
    std::fs::remove_dir_all(uploads.join("x")).unwrap();
    std::fs::create_dir(uploads.join("stray")).unwrap();
    crate::support::write(&uploads.join("stray/file"), "of nobody");
    casemate.give_to_user();
    let casemate = Server::of(casemate, &[]).stop();
    let uploads = casemate.data_dir().join("sessions").join(session).join("uploads");
    assert_eq!(std::fs::read_to_string(uploads.join("x/y")).unwrap(), "a");
    assert!(!uploads.join("stray").exists());
}
