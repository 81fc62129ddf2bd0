//! `sessions`: list, show, events, delete; beside whoever works, and with ids that are wrong.

use super::{HELLO, demand};
use crate::support::{As, Casemate};

#[test]
fn before_the_first_session_there_is_nothing_and_nothing_is_made() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let listed = casemate.run(&["sessions", "list"]).expect(0);
        assert_eq!(listed.stdout(), "");
        demand(&listed, &["no sessions yet; casemate run 'TASK' starts one"]);
        assert_eq!(casemate.run(&["sessions", "list", "--json"]).expect(0).stdout(), "[]\n");
        demand(&casemate.run(&["sessions", "show", "x"]).expect(2), &["no sessions are stored in"]);
        demand(
            &casemate.run(&["sessions", "events", "x"]).expect(2),
            &["no sessions are stored in"],
        );
        demand(&casemate.run(&["sessions", "delete", "x"]).expect(2), &["`x`"]);
    }
}

#[test]
fn a_session_is_listed_shown_printed_and_deleted() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let model = casemate.script(HELLO);
        casemate.run(&["run", "-m", &model, "--title", "a \x1b[2Jtitle", "hi"]).expect(0);
        let id = casemate.only_session();

        let listed = casemate.run(&["sessions", "list"]).expect(0).stdout();
        assert!(listed.starts_with(&format!("{id}  done         20")), "{listed}");
        assert!(listed.ends_with("  a ␛[2Jtitle\n"), "{listed}");
        assert_eq!(listed.lines().count(), 1);

        let shown = casemate.run(&["sessions", "show", &id]).expect(0).stdout();
        let workspace = casemate.workspace().canonicalize().unwrap();
        for line in [
            id.clone(),
            "  title      a ␛[2Jtitle".to_owned(),
            "  state      done".to_owned(),
            format!("  workspace  {}", workspace.display()),
            format!("  model      {model}"),
            "Hello there.".to_owned(),
            format!("casemate resume {id} 'MESSAGE'"),
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line:?} in {shown}");
        }
        let json = casemate.run(&["sessions", "show", &id, "--json"]).expect(0).stdout();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["id"], &json["title"]), (&id.as_str().into(), &"a \x1b[2Jtitle".into()));
        assert_eq!(json["definition"]["agent"]["model"], model.as_str());

        let public = casemate.run(&["sessions", "events", &id]).expect(0).json_lines();
        let all = casemate.run(&["sessions", "events", &id, "--internal"]).expect(0).json_lines();
        assert!(public.len() < all.len());
        assert_eq!(json["events"], all.len());
        assert!(
            public.iter().all(|event| !event["type"].as_str().unwrap().starts_with("internal."))
        );

        demand(
            &casemate.run(&["sessions", "delete", &id]).expect(0),
            &[&format!("deleted {id}\n")],
        );
        assert!(casemate.sessions().is_empty());
        demand(&casemate.run(&["sessions", "show", &id]).expect(2), &[&id, "sessions list"]);
    }
}

#[test]
fn ids_may_be_short_but_not_ambiguous() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    for _ in 0..2 {
        casemate.run(&["run", "-m", &model, "hi"]).expect(0);
    }
    let [newer, older] = &casemate.sessions()[..] else { panic!("there are two sessions") };
    let tail = &newer[newer.len() - 10..];
    for command in ["show", "events", "delete"] {
        let check = |given: &str, words: &[&str]| {
            demand(&casemate.run(&["sessions", command, given]).expect(2), words);
        };
        check("sesn_", &["`sesn_`", newer, older, "give more characters"]);
        check("nonesuch", &["`nonesuch`: no id begins or ends like that"]);
        check("", &["``"]);
        check("%", &["`%`"]);
    }
    assert!(
        casemate.run(&["sessions", "show", tail]).expect(0).stdout().starts_with(newer.as_str())
    );
    casemate.run(&["sessions", "delete", tail]).expect(0);
    assert_eq!(casemate.only_session(), *older);
    // One that is wrong deletes none of them.
    casemate.run(&["run", "-m", &model, "hi"]).expect(0);
    let both = casemate.sessions();
    casemate.run(&["sessions", "delete", &both[0], "nonesuch"]).expect(2);
    assert_eq!(casemate.sessions(), both);
}

#[test]
fn the_list_is_newest_first_and_bounded() {
    let casemate = Casemate::new();
    let model = casemate.script(HELLO);
    for title in ["one", "two", "three"] {
        casemate.run(&["run", "-m", &model, title]).expect(0);
    }
    let titles = |args: &[&str]| {
        let listed = casemate.run(&[&["sessions", "list"], args].concat()).expect(0).stdout();
        let title = |line: &str| line.rsplit("  ").next().unwrap().to_owned();
        listed.lines().map(title).collect::<Vec<_>>()
    };
    assert_eq!(titles(&[]), ["three", "two", "one"]);
    assert_eq!(titles(&["--limit", "2"]), ["three", "two"]);
    // Going on with an old one does not make it new.
    casemate.run(&["resume", &casemate.sessions()[2], "again"]).expect(0);
    assert_eq!(titles(&["--limit", "1"]), ["three"]);
}
