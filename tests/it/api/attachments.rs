//! Files that a client's words refer to: what the model is told of them, for as long as the session lives.

use base64::Engine as _;
use serde_json::{Value, json};

use super::Server;
use super::files::{file, stored, upload};
use super::sessions::{Lab, id};
use crate::support::Casemate;
use crate::support::model::{Api, ModelServer, answer, env_for, text};

fn image(file: &str) -> Value {
    json!({ "type": "image", "source": { "type": "file", "file_id": file } })
}

fn document(file: &str) -> Value {
    json!({ "type": "document", "source": { "type": "file", "file_id": file } })
}

fn says(blocks: &[Value]) -> Value {
    json!({ "type": "user.message", "content": blocks })
}

fn put(server: &Server, name: &str, bytes: &[u8]) -> String {
    id(&upload(server, &[file(name, bytes)]).expect(200))
}

/// What the model is sent, without the marks for its cache, which move.
fn unmarked(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.shift_remove("cache_control");
            map.values_mut().for_each(|value| *value = unmarked(value.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| *value = unmarked(value.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

#[test]
fn the_model_is_told_what_a_file_says_also_when_the_file_is_gone() {
    let replies =
        ["one", "two", "three"].map(|said| answer(Api::Anthropic, &[text(said)], "end_turn"));
    let model = ModelServer::start(replies.into());
    let env = env_for(&model.url());
    let server = Server::with(Casemate::new(), &env, &[]);
    let agent = json!({ "name": "a", "model": "anthropic/m" });
    let agent = id(&server.post("/v1/agents", &agent).expect(200));
    let environment = id(&server.post("/v1/environments", &json!({"name": "e"})).expect(200));
    let png = b"\x89PNG\r\n\x1a\n\0\xff";
    let picture = put(&server, "p.png", png);
    let (notes, pdf) =
        (put(&server, "notes.csv", b"a,b\n1,2\n"), put(&server, "d.pdf", b"%PDF-1.4"));
    let first = says(&[json!({"type": "text", "text": "look"}), image(&picture), document(&notes)]);
    let begin = json!({ "agent": agent, "environment_id": environment, "initial_events": [first] });
    let session = id(&server.post("/v1/sessions", &begin).expect(200));
    let lab = Lab { server, agent, environment };
    lab.settled(&session);
    let events = lab.events(&session);
    assert!(events.iter().any(|event| event["content"] == first["content"]), "{events:?}");
    for file in [&picture, &notes] {
        lab.server.ask("DELETE", &format!("/v1/files/{file}"), None).expect(200);
    }
    lab.send(&session, &json!([says(&[document(&pdf)])])).expect(200);
    lab.settled(&session);
    // Another process goes on: it says the same again.
    let Lab { server, agent, environment } = lab;
    let server = Server::with(server.stop(), &env, &[]);
    let lab = Lab { server, agent, environment };
    lab.send(&session, &json!([says(&[json!({"type": "text", "text": "and now?"})])])).expect(200);
    lab.settled(&session);

    let requests = model.requests();
    let asked: Vec<_> = requests.iter().map(|request| unmarked(request.json())).collect();
    let messages = |n: usize| asked[n]["messages"].as_array().unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(png);
    let said = json!([
        { "type": "text", "text": "look" },
        { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": encoded } },
        {
            "type": "document",
            "source": { "type": "text", "media_type": "text/plain", "data": "a,b\n1,2\n" },
            "title": "notes.csv",
        },
    ]);
    assert_eq!(messages(0)[0]["content"], said);
    assert_eq!(messages(1)[..1], messages(0)[..1]);
    assert_eq!(messages(1)[2]["content"][0]["source"]["media_type"], "application/pdf");
    assert_eq!(messages(2)[..3], messages(1)[..3]);

    // With the session, its bytes go too; the file that nobody deleted stays.
    lab.server.ask("DELETE", &format!("/v1/sessions/{session}"), None).expect(200);
    assert_eq!(stored(&lab.server.casemate), [pdf]);
}

#[test]
fn what_cannot_be_told_is_refused_and_changes_nothing() {
    let lab = Lab::new("{text: hello}");
    let session = lab.session(&[]);
    let (text, binary) =
        (put(&lab.server, "a.txt", b"text"), put(&lab.server, "a.bin", b"\xff\xfe"));
    let large = put(&lab.server, "a.md", &vec![b'x'; 1024 * 1024 + 1]);
    let before = {
        let mut all = stored(&lab.server.casemate);
        all.sort();
        all
    };
    let at = |list: &str| format!("{list}[0].content[1].source.file_id: ");
    let plain = json!({ "type": "text", "text": "look" });
    for (block, status, problem) in [
        (image("file_unknown"), 404, "there is no file `file_unknown`"),
        (document("file_unknown"), 404, "there is no file `file_unknown`"),
        (image(&text), 400, "the file is text/plain, and an image must be one of image/png, "),
        (document(&binary), 400, "the file is application/octet-stream, and a document must be "),
        (document(&large), 400, "the file has 1048577 bytes; a model takes at most 1048576 of it"),
    ] {
        let events = json!([says(&[plain.clone(), block])]);
        for (reply, list) in [
            (lab.send(&session, &events), "events"),
            (lab.create(&json!({ "initial_events": events })), "initial_events"),
        ] {
            let (found, _, message) = reply.error();
            assert_eq!(found, status, "{message}");
            assert!(message.starts_with(&(at(list) + problem)), "{message}");
        }
    }
    let many: Vec<_> = (0..101).map(|_| document(&text)).collect();
    let message = lab.send(&session, &json!([says(&many)])).error().2;
    let expected =
        "events[0].content[100].source.file_id: at most 100 files can be referred to at once";
    assert_eq!(message, expected);
    let malformed = lab.send(&session, &json!([says(&[image("../../etc/passwd")])])).error().2;
    assert!(
        malformed.starts_with(
            "events[0].content[0].source.file_id: `../../etc/passwd` is not a file id"
        ),
        "{malformed}"
    );
    // One that comes too late is taken back with its bytes.
    let path = format!("/v1/sessions/{session}/archive");
    lab.server.post(&path, &json!({})).expect(200);
    assert_eq!(lab.send(&session, &json!([says(&[document(&text)])])).error().0, 400);
    let mut after = stored(&lab.server.casemate);
    after.sort();
    assert_eq!(after, before);
}
