//! `resume`: which session is meant, and how sessions that stand in different ways go on.

use super::{HELLO, demand, texts};
use crate::support::{As, Casemate};

/// Each message gets an answer that names its number.
const ANSWERS: &str = "turns: [{ text: 'Answer {n}.', repeat: 9 }]";

fn messages(casemate: &Casemate, id: &str) -> Vec<String> {
    texts(&casemate.run(&["sessions", "events", id]).expect(0).json_lines(), "user.message")
}

#[test]
fn the_last_session_of_the_directory_goes_on() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(ANSWERS);
        casemate.run(&["run", "-m", &model, "one"]).expect(0);
        let here = casemate.only_session();
        let there = casemate.put("sub/file", "").parent().unwrap().to_str().unwrap().to_owned();
        casemate.run(&["run", "-m", &model, "-C", &there, "two"]).expect(0);
        let resumed = casemate.run(&["resume", "three"]).expect(0);
        assert_eq!(resumed.stdout(), "Answer 2.\n", "only what is new is shown");
        assert_eq!(messages(&casemate, &here), ["one", "three"]);
        casemate.run(&["resume", "-C", &there, "four"]).expect(0);
        assert_eq!(messages(&casemate, &here), ["one", "three"]);
    }
}

#[test]
fn an_id_or_its_beginning_names_a_session() {
    let casemate = Casemate::new();
    let model = casemate.script(ANSWERS);
    casemate.run(&["run", "-m", &model, "one"]).expect(0);
    let id = casemate.only_session();
    casemate.run(&["run", "-m", &model, "other"]).expect(0);
    for given in [&id, &id[..id.len() - 2]] {
        let resumed = casemate.run(&["resume", given, "more"]).expect(0);
        assert!(resumed.stdout().starts_with("Answer "), "{resumed:?}");
    }
    assert_eq!(messages(&casemate, &id), ["one", "more", "more"]);
}

#[test]
fn what_cannot_be_resumed_says_why() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    let check = |args: &[&str], words: &[&str]| {
        let refused = casemate.run(&[&["resume"], args].concat()).expect(2);
        assert_eq!(refused.stdout(), "");
        demand(&refused, words);
    };
    let work = casemate.workspace().canonicalize().unwrap();
    let none = format!("no session has worked in {}", work.display());
    check(&[], &[&none, "sessions list"]);
    casemate.run(&["run", "-m", &model, "hi"]).expect(0);
    let id = casemate.only_session();
    check(&[], &[&format!("session {id} is done"), &format!("casemate resume {id} 'MESSAGE'")]);
    check(&["sesn_nonesuch"], &["sesn_nonesuch", "sessions list"]);
    check(&["sesn_"], &["sesn_"]);
    check(&["one", "two"], &["the first must be a session id"]);
    check(&[&id, "-C", "."], &["give one of them"]);
    check(&[""], &["it is empty: say what to do"]);
    check(&["--allow", "yes"], &["`yes` is not an event id"]);
    check(&["-C", "/nowhere"], &["/nowhere"]);
    // A data directory that is named is named again in what to type.
    let elsewhere = casemate.home().join("other place");
    let flag = ["--data-dir", elsewhere.to_str().unwrap()];
    casemate.run(&[&flag[..], &["run", "-m", &model, "hi"]].concat()).expect(0);
    let refused = casemate.run(&[&flag[..], &["resume"]].concat()).expect(2);
    demand(&refused, &[&format!("casemate --data-dir '{}' resume sesn_", elsewhere.display())]);
}
