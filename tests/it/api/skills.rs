//! Skills over HTTP (checklist 144–146): stored, versioned, attached to sessions; and uploads that are none.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Server;
use super::files::{Part, attempt_form};
use super::resources;
use super::server::Reply;
use super::sessions::{Lab, id};
use crate::support::{As, Casemate, until};

pub(super) fn skill_md(name: &str, description: &str) -> String {
    format!("---\nname: {name}\ndescription: {description}\n---\n\n# How\nDo it the {name} way.\n")
}

fn post(server: &Server, path: &str, parts: &[Part<'_>]) -> Reply {
    attempt_form(server, path, parts).expect("an answer")
}

fn part<'a>(path: &'a str, bytes: &'a [u8]) -> Part<'a> {
    ("files[]", Some(path), None, bytes)
}

/// Stores a skill of that name with a program in it.
fn put(server: &Server, path: &str, name: &str, description: &str) -> Value {
    let (skill, script) = (format!("{name}/SKILL.md"), format!("{name}/scripts/run.sh"));
    let text = skill_md(name, description);
    let parts = [part(&skill, text.as_bytes()), part(&script, b"#!/bin/sh\necho it ran\n")];
    post(server, path, &parts).expect(200)
}

/// What lies in the directory of skills.
fn stored(casemate: &Casemate) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(casemate.data_dir().join("skills"));
    entries.map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// The bytes of a version.
fn downloaded(server: &Server, path: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (to, url) = (dir.path().join("a.zip"), format!("http://{}{path}", server.address));
    let script = "import sys, urllib.request as u\nr = u.Request(sys.argv[1], headers={'x-api-key': sys.argv[2]})\n\
                  a = u.urlopen(r, timeout=60)\nassert a.headers['content-type'] == 'application/zip'\n\
                  open(sys.argv[3], 'wb').write(a.read())";
    let said = Command::new("python3").args(["-c", script, &url, &server.key]).arg(&to).output();
    let said = said.unwrap();
    assert!(said.status.success(), "{said:?}");
    std::fs::read(to).unwrap()
}

/// The files of a zip file, as Python reads it: path, whether it is a program, content.
fn unzipped(bytes: &[u8]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    std::fs::File::create(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
        .unwrap();
    let script = "import json, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  print(json.dumps([[i.filename, bool(i.external_attr >> 16 & 0o100), z.read(i).decode()] \
                  for i in z.infolist()]))";
    let said = Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

/// What Python makes of these files: path, content.
fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    let script = "import json, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n\
                  for name, text in json.load(sys.stdin): z.writestr(name, text)\nz.close()";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", script]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
    let files = json!(files).to_string();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), files.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success());
    std::fs::read(path).unwrap()
}

// 144, 145, 146
#[test]
fn a_skill_is_stored_versioned_downloaded_and_deleted() {
    let server = Server::start();
    let made = put(&server, "/v1/skills", "demo", "First.");
    let skill = id(&made);
    let first = made["latest_version_id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": skill, "type": "skill", "display_name": "demo", "latest_version_id": first,
        "source": { "type": "custom" }, "created_at": made["created_at"],
        "updated_at": made["created_at"],
    });
    assert_eq!(made, expected);
    let one = format!("/v1/skills/{skill}");
    assert_eq!(server.get(&one).expect(200), made);
    let listed = json!({ "data": [made], "next_page": null });
    assert_eq!(server.get("/v1/skills").expect(200), listed);
    assert_eq!(server.get("/v1/skills?source=custom").expect(200), listed);
    assert_eq!(server.get("/v1/skills?source=anthropic").expect(200)["data"], json!([]));

    let versions = format!("{one}/versions");
    let second = put(&server, &versions, "demo", "Second.");
    let expected = json!({
        "id": second["id"], "type": "skill_version", "skill_id": skill, "name": "demo",
        "description": "Second.", "created_at": second["created_at"],
    });
    assert_eq!(second, expected);
    assert_eq!(server.get(&one).expect(200)["latest_version_id"], second["id"]);
    assert_eq!(server.get(&format!("{versions}/latest")).expect(200), second);
    let page = server.get(&format!("{versions}?limit=1")).expect(200);
    assert_eq!(page["data"], json!([second]));
    let next = page["next_page"].as_str().unwrap();
    let page = server.get(&format!("{versions}?limit=1&page={next}")).expect(200);
    assert_eq!((&page["data"][0]["id"], &page["next_page"]), (&json!(first), &json!(null)));

    let files = unzipped(&downloaded(&server, &format!("{versions}/{first}/content")));
    let text = skill_md("demo", "First.");
    let run = "#!/bin/sh\necho it ran\n";
    assert_eq!(files, json!([["demo/SKILL.md", false, text], ["demo/scripts/run.sh", true, run]]));

    let newest = format!("{versions}/latest");
    let deleted = server.ask("DELETE", &newest, None).expect(200);
    assert_eq!(deleted, json!({ "id": second["id"], "type": "skill_version_deleted" }));
    assert_eq!(server.get(&one).expect(200)["latest_version_id"], json!(first));
    let (status, _, message) = server.ask("DELETE", &newest, None).error();
    let only = format!("`{first}` is the only version of its skill: delete the skill instead");
    assert_eq!((status, message), (400, only));
    assert_eq!(stored(&server.casemate).len(), 1);
    let deleted = server.ask("DELETE", &one, None).expect(200);
    assert_eq!(deleted, json!({ "id": skill, "type": "skill_deleted" }));
    for path in [one, versions, newest] {
        assert_eq!(server.get(&path).error().0, 404, "{path}");
    }
    assert_eq!(stored(&server.casemate), Vec::<PathBuf>::new());
}

// 144
#[test]
fn a_zip_file_is_a_skill_too() {
    let server = Server::start();
    let text = skill_md("demo", "Zipped.");
    let zip = zipped(&[("demo/", ""), ("demo/SKILL.md", &text), ("demo/größe.md", "groß")]);
    let label: Part<'_> = ("display_name", None, None, b"My demo");
    let made = post(&server, "/v1/skills", &[label, part("skill.zip", &zip)]).expect(200);
    assert_eq!(made["display_name"], "My demo");
    let got = downloaded(&server, &format!("/v1/skills/{}/versions/latest/content", id(&made)));
    let files = json!([["demo/SKILL.md", false, text], ["demo/größe.md", false, "groß"]]);
    assert_eq!(unzipped(&got), files);
    // What came back is taken again.
    let again = format!("/v1/skills/{}/versions", id(&made));
    post(&server, &again, &[part("again.skill", &got)]).expect(200);
}

#[test]
fn an_upload_that_is_no_skill_is_refused_and_leaves_nothing() {
    let server = Server::start();
    let good = skill_md("demo", "Does it.");
    let good = part("demo/SKILL.md", good.as_bytes());
    let zip = |files: &[(&str, &str)]| zipped(files);
    let check = |parts: &[Part<'_>], status: u16, expected: &str| {
        let (found, _, message) = post(&server, "/v1/skills", parts).error();
        assert_eq!(found, status, "{message}");
        assert!(message.contains(expected), "{message}, not {expected}");
        assert_eq!(stored(&server.casemate), Vec::<PathBuf>::new(), "{message}");
    };
    check(&[], 400, "files: Field required");
    check(&[part("demo/readme.md", b"x")], 400, "files: demo/SKILL.md: is not there");
    check(&[part("demo/skill.md", b"x")], 400, "files: demo/SKILL.md: is not there");
    check(&[part("SKILL.md", b"x")], 400, "files: SKILL.md: lies in no directory");
    check(
        &[good, part("other/a", b"")],
        400,
        "other/a: has the top directory `other`, and another",
    );
    check(&[good, part("demo/../../a", b"")], 400, "must not have `.` or `..` in it");
    check(&[part("/demo/SKILL.md", b"")], 400, "is an absolute path");
    check(&[good, part("demo/skill.MD", b"")], 400, "is `SKILL.md` but for the case of letters");
    check(&[good, good], 400, "demo/SKILL.md: is there twice");
    let nameless: Part<'_> = ("files[]", None, None, b"x");
    check(&[nameless], 400, "files: each must have its path as its file name");
    let extra: Part<'_> = ("purpose", None, None, b"x");
    check(&[good, extra], 400, "purpose: Extra inputs are not permitted");
    let label: Part<'_> = ("display_name", None, None, b"two\nlines");
    check(&[good, label], 400, "display_name: must be one line of 1 to 255 characters");
    let bare = part("demo/SKILL.md", b"---\nname: demo\n---\n");
    check(&[bare], 400, "files: demo/SKILL.md: description: is missing; say in a sentence");
    let other = skill_md("other", "d");
    let other = part("demo/SKILL.md", other.as_bytes());
    check(&[other], 400, "demo/SKILL.md: name: is `other`, and the directory `demo`");
    let nine = vec![b'x'; 9 << 20];
    let large = ["demo/a", "demo/b", "demo/c", "demo/d"].map(|path| part(path, &nine));
    check(&large, 413, "files: a skill can have at most 31457280 bytes");
    let text = skill_md("demo", "d");
    let zeros = "\0".repeat(4 << 20);
    let bomb = zip(&[("demo/SKILL.md", &text), ("demo/zeros", &zeros)]);
    check(&[part("a.zip", &bomb)], 400, "would be more than 100 times as large as it is packed");
    let climbing = zip(&[("demo/SKILL.md", &text), ("../a", "x")]);
    check(&[part("a.zip", &climbing)], 400, "../a: must not have `.` or `..` in it");
    let two = zip(&[("demo/SKILL.md", &text), ("other/SKILL.md", &text)]);
    check(&[part("a.zip", &two)], 400, "has the top directory `other`");
    check(&[part("a.zip", b"no zip")], 400, "files: the zip file is none, or is cut");
    check(&[part("a.zip", &two), good], 400, "comes after a zip file");
    check(&[good, part("a.zip", &two)], 400, "a.zip: is a zip file, which must be all");
    assert_eq!(server.get("/v1/skills").expect(200)["data"], json!([]));
    let plain = server.post("/v1/skills", &json!({ "files": [] })).error();
    assert_eq!(plain.2, "the body must be multipart/form-data with a boundary");
}

// 145
#[test]
fn a_name_is_taken_once_and_stays() {
    let server = Server::start();
    let made = put(&server, "/v1/skills", "demo", "First.");
    let text = skill_md("demo", "d");
    let reply = post(&server, "/v1/skills", &[part("demo/SKILL.md", text.as_bytes())]);
    assert_eq!(reply.expect(409)["error"]["details"]["error_code"], "skill_name_taken");
    let versions = format!("/v1/skills/{}/versions", id(&made));
    let text = skill_md("other", "d");
    let (status, _, message) =
        post(&server, &versions, &[part("other/SKILL.md", text.as_bytes())]).error();
    let expected = "files: the name of a skill stays: it is `demo`, and the upload's `other`";
    assert_eq!((status, message.as_str()), (400, expected));
    let unknown = "/v1/skills/skill_none/versions";
    assert_eq!(post(&server, unknown, &[part("other/SKILL.md", text.as_bytes())]).error().0, 404);
    assert_eq!(stored(&server.casemate).len(), 1);
    server.ask("DELETE", &format!("/v1/skills/{}", id(&made)), None).expect(200);
    put(&server, "/v1/skills", "demo", "Again.");
}

#[test]
fn a_session_has_the_version_of_its_creation_and_keeps_it() {
    for who in As::all() {
        let look = "cd /mnt/session/skills/demo && cat SKILL.md | tail -1 && scripts/run.sh; \
                    echo x 2>/dev/null >> SKILL.md || echo refused; rm -f SKILL.md 2>/dev/null || echo refused; \
                    touch more 2>/dev/null || echo refused; ls /mnt/session/skills";
        let lab = resources::lab(who, &[look, look]);
        let made = put(&lab.server, "/v1/skills", "demo", "Does it.");
        let (skill, version) = (id(&made), made["latest_version_id"].clone());
        let skills = json!([{ "type": "custom", "skill_id": skill }]);
        let agent = format!("/v1/agents/{}", lab.agent);
        lab.server.post(&agent, &json!({ "skills": skills })).expect(200);
        let created = lab.create(&json!({})).expect(200);
        let shown = json!([{ "type": "custom", "skill_id": skill, "version": version }]);
        assert_eq!(created["agent"]["skills"], shown);
        let session = id(&created);
        let expected = "Do it the demo way.\nit ran\nrefused\nrefused\nrefused\ndemo";
        assert_eq!(resources::run(&lab, &session), expected, "{who:?}");
        lab.server.ask("DELETE", &format!("/v1/skills/{skill}"), None).expect(200);
        assert_eq!(resources::run(&lab, &session), expected, "{who:?}");
        // A new one cannot have it any more; the stored agent is as it was.
        let (status, _, message) = lab.create(&json!({})).error();
        let gone = format!("agent.skills[0]: there is no skill `{skill}`");
        assert_eq!((status, message), (404, gone));
        let all = lab.server.get("/v1/sessions").expect(200);
        assert_eq!(all["data"].as_array().unwrap().len(), 1);
        let overriding = json!({ "type": "agent_with_overrides", "id": lab.agent, "skills": [] });
        lab.create(&json!({ "agent": overriding })).expect(200);
    }
}

#[test]
fn the_model_is_told_and_reads_the_body() {
    let read = json!({ "tool_calls": [{ "name": "read",
        "input": { "file_path": "/mnt/session/skills/demo/SKILL.md" } }] });
    let mut first = read;
    first["expect"] = json!({ "system_contains": "\n- demo: Does it.\n" });
    let last = "{expect: {last_tool_result_contains: Do it the demo way.}, text: done}";
    let tools = json!([{ "type": "agent_toolset_20260401" }]);
    let lab = Lab::of(As::Me, &format!("{first}, {last}"), &tools);
    let made = put(&lab.server, "/v1/skills", "demo", "Does it.");
    let skills = json!([{ "type": "custom", "skill_id": id(&made) }]);
    lab.server.post(&format!("/v1/agents/{}", lab.agent), &json!({ "skills": skills })).expect(200);
    let session = lab.session(&["go"]);
    lab.settled(&session);
    let events = lab.events(&session);
    assert!(events.iter().any(|event| event["content"][0]["text"] == "done"), "{events:?}");
}

#[test]
fn a_crash_leaves_a_whole_skill_or_none() {
    for (at, left) in [("1:before", 0), ("1", 1), ("2:before", 1), ("2", 0)] {
        let casemate = Casemate::new();
        let crash = [("CASEMATE_CRASH_AT", at.to_owned())];
        let server = Server::with(casemate, &crash, &[]);
        let text = skill_md("demo", "Does it.");
        let parts = [part("demo/SKILL.md", text.as_bytes())];
        let made = attempt_form(&server, "/v1/skills", &parts);
        if let Some(made) = made {
            let path = format!("/v1/skills/{}", id(&made.expect(200)));
            let headers = [("x-api-key", server.key.as_str())];
            assert_eq!(server.attempt("DELETE", &path, &headers, b""), None, "{at}");
        }
        let server = Server::of(server.crashed(true), &[]);
        let skills = server.get("/v1/skills").expect(200);
        let skills = skills["data"].as_array().unwrap();
        assert_eq!((skills.len(), stored(&server.casemate).len()), (left, left), "{at}");
        for skill in skills {
            let path = format!("/v1/skills/{}/versions/latest/content", id(skill));
            assert_eq!(
                unzipped(&downloaded(&server, &path)),
                json!([["demo/SKILL.md", false, text]])
            );
        }
    }
}

#[test]
fn a_client_that_vanishes_leaves_nothing_of_its_skill() {
    let server = Server::start();
    let body = "--b\r\ncontent-disposition: form-data; name=\"files[]\"; filename=\"demo/SKILL.md\"\r\n\r\nhalf";
    let key = &server.key;
    let request = format!(
        "POST /v1/skills HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: 100000\r\n\
         content-type: multipart/form-data; boundary=b\r\n\r\n{body}"
    );
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    until("the beginning of a skill", || (stored(&server.casemate).len() == 1).then_some(()));
    drop(stream);
    until("nothing of it", || stored(&server.casemate).is_empty().then_some(()));
}
