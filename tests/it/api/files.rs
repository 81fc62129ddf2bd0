//! Files over HTTP (checklist 140, 142, 143), and what is left behind by a client that goes away.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::Server;
use super::server::Reply;
use crate::support::{Casemate, until};

/// A form with one part for each entry: name, file name if any, content type if any, bytes.
pub(super) type Part<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

const BOUNDARY: &str = "b0undary";

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, kind, bytes) in parts {
        write!(body, "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"").unwrap();
        if let Some(file) = file {
            write!(body, "; filename=\"{file}\"").unwrap();
        }
        if let Some(kind) = kind {
            write!(body, "\r\ncontent-type: {kind}").unwrap();
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    write!(body, "--{BOUNDARY}--\r\n").unwrap();
    body
}

pub(super) fn upload(server: &Server, parts: &[Part<'_>]) -> Reply {
    attempt_upload(server, parts).expect("an answer")
}

/// The same of a server that may be gone, or go meanwhile.
pub(super) fn attempt_upload(server: &Server, parts: &[Part<'_>]) -> Option<Reply> {
    attempt_form(server, "/v1/files", parts)
}

/// A form to any path.
pub(super) fn attempt_form(server: &Server, path: &str, parts: &[Part<'_>]) -> Option<Reply> {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [("x-api-key", server.key.as_str()), ("content-type", kind.as_str())];
    server.attempt("POST", path, &headers, &form(parts))
}

pub(super) fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Part<'a> {
    ("file", Some(name), None, bytes)
}

/// Names of what lies in the directory of files.
pub(super) fn stored(casemate: &Casemate) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(casemate.data_dir().join("files")) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_is_uploaded_listed_downloaded_and_deleted() {
    let server = Server::start();
    let made = upload(&server, &[file("notes.txt", b"hello\0\xff")]).expect(200);
    let id = made["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": id, "type": "file", "filename": "notes.txt", "mime_type": "text/plain",
        "size_bytes": 7, "created_at": made["created_at"], "downloadable": true,
        "expires_at": null, "scope": null,
    });
    assert_eq!(made, expected);
    assert!(id.starts_with("file_"));
    assert_eq!(server.get(&format!("/v1/files/{id}")).expect(200), expected);
    assert_eq!(
        server.get("/v1/files").expect(200),
        json!({ "data": [expected], "next_page": null })
    );
    let got = server.get(&format!("/v1/files/{id}/content"));
    assert_eq!((got.status, got.header("content-length")), (200, Some("7")), "{got:?}");
    assert!(got.body.starts_with("hello\0"));
    let deleted = server.ask("DELETE", &format!("/v1/files/{id}"), None).expect(200);
    assert_eq!(deleted, json!({ "id": id, "type": "file_deleted" }));
    for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
        assert_eq!(server.get(&path).error().0, 404, "{path}");
    }
    assert_eq!(stored(&server.casemate), Vec::<String>::new());
}

#[test]
fn names_and_types_are_made_safe() {
    let server = Server::start();
    for (name, kind, expected) in [
        ("a/b/../c.csv", None, ("c.csv", "text/csv")),
        ("C:\\x\\d.PNG", None, ("d.PNG", "image/png")),
        ("..", Some("text/plain"), ("unnamed.txt", "text/plain")),
        ("", Some("application/pdf"), ("unnamed.pdf", "application/pdf")),
        ("data.json", Some("application/octet-stream"), ("data.json", "application/json")),
        ("data", None, ("data", "application/octet-stream")),
        ("größe.md", None, ("größe.md", "text/markdown")),
    ] {
        let made = upload(&server, &[("file", Some(name), kind, b"x")]).expect(200);
        assert_eq!(
            (&made["filename"], &made["mime_type"]),
            (&json!(expected.0), &json!(expected.1))
        );
    }
}

#[test]
fn a_form_that_is_wrong_is_refused_and_leaves_nothing() {
    let server = Server::start();
    let one = file("a", b"a");
    let soon: Part<'_> = ("expires_in_seconds", None, None, b"3599");
    let never: Part<'_> = ("expires_in_seconds", None, None, b"soon");
    let extra: Part<'_> = ("purpose", None, None, b"x");
    for (parts, expected) in [
        (vec![], "file: Field required"),
        (vec![one, one], "file: must be given once"),
        (vec![one, soon], "expires_in_seconds: must be a whole number between 3600 and 7776000"),
        (vec![one, never], "expires_in_seconds: must be a whole number between 3600 and 7776000"),
        (vec![one, extra], "purpose: Extra inputs are not permitted"),
    ] {
        let (status, kind, message) = upload(&server, &parts).error();
        assert_eq!(
            (status, kind.as_str(), message.as_str()),
            (400, "invalid_request_error", expected)
        );
    }
    let plain = server.post("/v1/files", &json!({"file": "x"})).error();
    assert_eq!(plain.2, "the body must be multipart/form-data with a boundary");
    assert_eq!(stored(&server.casemate), Vec::<String>::new());
    assert_eq!(server.get("/v1/files").expect(200)["data"], json!([]));
}

#[test]
fn a_file_has_a_time_if_it_is_given_one() {
    let server = Server::start();
    let hour: Part<'_> = ("expires_in_seconds", None, None, b"3600");
    let made = upload(&server, &[hour, file("a.txt", b"a")]).expect(200);
    let at = |name: &str| made[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!((at("expires_at") - at("created_at")).get_seconds(), 3600, "{made}");
}

#[test]
fn lists_page_and_choose() {
    let server = Server::start();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            upload(&server, &[file(&format!("{n}.txt"), b"x")]).expect(200)["id"]
                .as_str()
                .unwrap()
                .into()
        })
        .collect();
    let mut seen = Vec::new();
    let mut path = "/v1/files?limit=2".to_owned();
    loop {
        let page = server.get(&path).expect(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(|file| file["id"].clone()));
        let Some(next) = page["next_page"].as_str() else { break };
        path = format!("/v1/files?limit=2&page={next}");
    }
    let newest_first: Vec<Value> = ids.iter().rev().map(|id| json!(id)).collect();
    assert_eq!(seen, newest_first);

    let chosen = format!("/v1/files?ids[]={}&ids[]=file_gone&ids[]={}", ids[3], ids[0]);
    let chosen = server.get(&chosen).expect(200);
    assert_eq!(chosen["data"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/v1/files?scope_id=sesn_none").expect(200)["data"], json!([]));
    for path in [
        "/v1/files?limit=0".to_owned(),
        "/v1/files?limit=1001".to_owned(),
        "/v1/files?page=page_x".to_owned(),
        format!("/v1/files?ids[]={}&limit=2", ids[0]),
        format!("/v1/files?{}", (0..101).map(|n| format!("ids[]=file_{n}&")).collect::<String>()),
    ] {
        assert_eq!(server.get(&path).error().0, 400, "{path}");
    }
    for id in ["file_gone", "agent_x", "..", "%2e%2e%2fcasemate.db"] {
        assert_eq!(server.get(&format!("/v1/files/{id}")).error().0, 404, "{id}");
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_nothing() {
    let server = Server::start();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-length: 1000000\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n--{BOUNDARY}\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhalf of it",
        server.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    until("the beginning of the upload", || (stored(&server.casemate).len() == 1).then_some(()));
    drop(stream);
    until("the end of the upload", || stored(&server.casemate).is_empty().then_some(()));
    assert_eq!(server.get("/v1/files").expect(200)["data"], json!([]));
}

#[test]
fn what_a_crash_left_is_swept_and_what_was_kept_is_there() {
    let server = Server::start();
    let made = upload(&server, &[file("a.txt", b"kept")]).expect(200);
    let id = made["id"].as_str().unwrap();
    std::fs::copy(
        server.casemate.data_dir().join("files").join(id),
        server.casemate.data_dir().join("files/file_orphan"),
    )
    .unwrap();
    let casemate = server.stop();
    let server = Server::of(casemate, &[]);
    assert_eq!(stored(&server.casemate), [id]);
    assert_eq!(server.get(&format!("/v1/files/{id}/content")).body, "kept");
}

#[test]
fn a_strict_server_gives_uploads_to_nobody() {
    let server = Server::of(Casemate::new(), &["--strict"]);
    let made = upload(&server, &[file("a.txt", b"a")]).expect(200);
    assert_eq!(made["downloadable"], json!(false));
    let path = format!("/v1/files/{}/content", made["id"].as_str().unwrap());
    let refused = server.get(&path);
    assert_eq!(refused.error().0, 400);
    assert_eq!(refused.json()["error"]["details"]["error_code"], "file_not_downloadable");
}

#[test]
fn a_file_whose_time_is_over_says_so_and_has_no_bytes() {
    let server = Server::start();
    let hour: Part<'_> = ("expires_in_seconds", None, None, b"3600");
    let made = upload(&server, &[hour, file("a.txt", b"a")]).expect(200);
    let kept = upload(&server, &[file("b.txt", b"b")]).expect(200);
    let (id, kept) = (made["id"].as_str().unwrap(), kept["id"].as_str().unwrap());
    let casemate = server.stop();
    let db = rusqlite::Connection::open(casemate.data_dir().join("casemate.db")).unwrap();
    let aged =
        db.execute("UPDATE record SET created_at = created_at - 3600000 WHERE id = ?1", [id]);
    assert_eq!(aged, Ok(1));
    drop(db);
    let server = Server::of(casemate, &[]);
    assert_eq!(stored(&server.casemate), [kept]);
    for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
        let refused = server.get(&path);
        assert_eq!(refused.error().0, 404, "{path}");
        assert_eq!(refused.json()["error"]["details"]["error_code"], "file_expired", "{path}");
    }
    let listed = server.get("/v1/files").expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
}
