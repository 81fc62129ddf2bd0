//! What sessions hand out: files below `/mnt/session/outputs`. (Checklist of the protocol: 68, 141.)

use serde_json::{Value, json};

use super::files::stored;
use super::resources::{lab, run};
use super::sessions::Lab;
use crate::support::As;

/// What a session has handed out: names and contents, in the order of the names.
fn handed(lab: &Lab, session: &str) -> Vec<(String, String)> {
    let mut all: Vec<_> = list(lab, session)
        .iter()
        .map(|file| {
            assert_eq!(file["scope"], json!({ "type": "session", "id": session }), "{file}");
            assert_eq!(file["downloadable"], json!(true), "{file}");
            let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
            (file["filename"].as_str().unwrap().to_owned(), lab.server.get(&path).body)
        })
        .collect();
    all.sort();
    all
}

fn list(lab: &Lab, session: &str) -> Vec<Value> {
    let files = lab.server.get(&format!("/v1/files?scope_id={session}&limit=1000")).expect(200);
    files["data"].as_array().unwrap().clone()
}

fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

// 141
#[test]
fn what_a_session_leaves_in_its_outputs_is_there_when_it_rests() {
    for who in As::all() {
        let lab = lab(
            who,
            &[
                "cd /mnt/session/outputs && echo one > a.txt && mkdir -p deep/er && echo two > deep/er/b.csv",
                "cd /mnt/session/outputs && echo other > a.txt && touch deep/er/b.csv && rm -rf nothing",
                "rm -rf /mnt/session/outputs/*; echo gone",
                "echo last > /mnt/session/outputs/a.txt",
            ],
        );
        let session = lab.session(&[]);
        assert_eq!(list(&lab, &session), Vec::<Value>::new());
        run(&lab, &session);
        let first = list(&lab, &session);
        assert_eq!(
            handed(&lab, &session),
            expected(&[("a.txt", "one\n"), ("b.csv", "two\n")]),
            "{who:?}"
        );
        let of = |name: &str| first.iter().find(|file| file["filename"] == name).unwrap().clone();
        assert_eq!(of("b.csv")["mime_type"], "text/csv");
        assert_eq!(of("b.csv")["size_bytes"], 4);

        // What was written anew is another file in the place of the one before; what was only touched is the same.
        run(&lab, &session);
        assert_eq!(handed(&lab, &session), expected(&[("a.txt", "other\n"), ("b.csv", "two\n")]));
        let second = list(&lab, &session);
        assert!(second.contains(&of("b.csv")), "{second:?}");
        let old = format!("/v1/files/{}", of("a.txt")["id"].as_str().unwrap());
        assert_eq!(lab.server.get(&old).error().0, 404);

        // What the session removed stays. What the client deleted stays away until it is written anew.
        let id = second.iter().find(|file| file["filename"] == "a.txt").unwrap()["id"].clone();
        lab.server.ask("DELETE", &format!("/v1/files/{}", id.as_str().unwrap()), None).expect(200);
        run(&lab, &session);
        assert_eq!(handed(&lab, &session), expected(&[("b.csv", "two\n")]));
        run(&lab, &session);
        assert_eq!(handed(&lab, &session), expected(&[("a.txt", "last\n"), ("b.csv", "two\n")]));

        // 68
        lab.server.ask("DELETE", &format!("/v1/sessions/{session}"), None).expect(200);
        assert_eq!(list(&lab, &session), Vec::<Value>::new());
        assert_eq!(stored(&lab.server.casemate), Vec::<String>::new(), "{who:?}");
    }
}

#[test]
fn a_file_that_a_client_deleted_does_not_come_back_by_being_touched() {
    let lab = lab(
        As::Me,
        &["echo one > /mnt/session/outputs/a", "touch /mnt/session/outputs/a", "sleep 0"],
    );
    let session = lab.session(&[]);
    run(&lab, &session);
    let id = list(&lab, &session)[0]["id"].as_str().unwrap().to_owned();
    lab.server.ask("DELETE", &format!("/v1/files/{id}"), None).expect(200);
    for _ in 0..2 {
        run(&lab, &session);
        assert_eq!(list(&lab, &session), Vec::<Value>::new());
    }
}

#[test]
fn only_regular_files_are_handed_out_and_no_link_is_followed() {
    for who in As::all() {
        // The target of the links can be read by whoever runs the server.
        let lab = lab(
            who,
            &[
                "cd /mnt/session/outputs && ln -s /etc/passwd link && ln -s /etc dir && ln -s . round && \
               mkfifo pipe && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; \
               echo mine > plain; ln plain twin; touch empty; chmod 000 plain; \
               printf x > \"$(printf 'odd\\nname\\377')\"; ls | wc -l",
            ],
        );
        let session = lab.session(&[]);
        run(&lab, &session);
        let all = handed(&lab, &session);
        let odd = "oddname\u{fffd}";
        let expected =
            expected(&[("empty", ""), (odd, "x"), ("plain", "mine\n"), ("twin", "mine\n")]);
        assert_eq!(all, expected, "{who:?}");
    }
}

#[test]
fn what_is_too_much_stays_where_it_is_and_the_log_says_so_once() {
    let lab = lab(
        As::Me,
        &[
            "cd /mnt/session/outputs && truncate -s 600M huge && echo small > small",
            "true",
            "cd /mnt/session/outputs && rm huge && seq 1 1000 | xargs -n1 touch",
        ],
    );
    let session = lab.session(&[]);
    run(&lab, &session);
    assert_eq!(handed(&lab, &session), expected(&[("small", "small\n")]));
    run(&lab, &session);
    let said = |casemate: &crate::support::Casemate| -> Vec<String> {
        let log = casemate.log();
        let kept = log.iter().filter(|event| event["type"] == "internal.kept_back");
        kept.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    };
    let huge = "not handed out: huge (it has 629145600 bytes; a file can have 524288000)";
    assert_eq!(said(&lab.server.casemate), [huge]);
    run(&lab, &session);
    assert_eq!(list(&lab, &session).len(), 1000);
    let last = said(&lab.server.casemate).pop().unwrap();
    assert_eq!(last, "not handed out: 999 (a session can hand out 1000 files)", "{last}");
}
