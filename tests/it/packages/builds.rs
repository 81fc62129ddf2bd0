//! What is built, once, and what sessions see of it.

use std::process::Stdio;

use serde_json::{Value, json};

use super::{Shop, environment, shelf, words};
use crate::support::{As, Casemate, Finished, lacking, until};

/// A manager, how to see that the sandbox has it, its package, and what shows that it is there.
const MANAGERS: [(&str, &str, &str, &str, &[&str]); 6] = [
    ("apt", "command -v apt-get", "casetest-apt", "casetest-apt", &["MARKER apt data settings"]),
    ("cargo", "cargo --version && cc --version", "casetest@1.0.0", "casetest", &["MARKER cargo"]),
    (
        "gem",
        "gem --version",
        "casetest",
        "casetest-gem && ruby -e 'require \"casetest\"; puts CASETEST'",
        &["MARKER gem 4", "4"],
    ),
    ("go", "go version", "casetest.example/hello", "hello", &["MARKER go"]),
    (
        "npm",
        "npm --version",
        "casetest",
        "casetest-npm && node -e 'require(\"casetest\")' && node --input-type=module -e 'import \"casetest\"'",
        &["MARKER npm 2", "MARKER npm 2", "MARKER npm 2"],
    ),
    (
        "pip",
        "python3 -m pip --version",
        "casetest",
        "casetest-pip && python3 -c 'import casetest; casetest.main()'",
        &["MARKER pip 1", "MARKER pip 1"],
    ),
];
/// Managers that a machine need not have, or that an ordinary user without a home of his own does not see.
const OPTIONAL: [&str; 2] = ["cargo", "go"];

fn json_of(done: Finished) -> Value {
    serde_json::from_str(&done.expect(0).stdout()).unwrap()
}

/// The value with what differs from machine to machine made the same.
fn plain(mut value: Value) -> Value {
    let key = value["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 32);
    for name in ["bytes", "files", "build_ms"] {
        assert!(value[name].is_u64(), "{value}");
        value[name] = json!("a number");
    }
    for name in ["built_at", "used_at"] {
        if value[name].is_string() {
            value[name] = json!("a time");
        }
    }
    for (_, version) in value["base"].as_object_mut().unwrap() {
        assert!(version.as_str().is_some_and(|version| !version.is_empty()));
        *version = json!("a version");
    }
    for name in ["lock", "log"] {
        if let Some(path) = value[name].as_str().map(str::to_owned) {
            assert!(std::path::Path::new(&path).is_file(), "{path}");
            let (_, end) = path.split_once("/packages/").unwrap();
            value[name] = json!(end.replace(&key, "KEY"));
        }
    }
    value["key"] = json!("KEY");
    value
}

#[test]
fn packages_of_every_manager_are_there_for_every_session_and_built_once() {
    let Some(mut shop) = Shop::open() else { return };
    let mut built = Vec::new();
    for who in As::all() {
        let casemate = shop.casemate(who, "registry.example");
        let mut packages = json!({});
        let mut checks = Vec::new();
        for (manager, is_there, package, check, expected) in MANAGERS {
            if shop.shows(&casemate, who, is_there) {
                packages[manager] = json!([package]);
                checks.push((check, expected));
            } else if OPTIONAL.contains(&manager) {
                eprintln!("NOT TESTED: {manager} as {who:?}, which this machine lacks");
            } else {
                lacking(manager);
            }
        }
        let file = environment(&casemate, &packages);
        let done = json_of(shop.run(&casemate, who, &["env", "build", words(&file), "--json"]));
        assert_eq!(done["built"], true, "{who:?}");
        for (manager, list) in packages.as_object().unwrap() {
            let name = list[0].as_str().unwrap().split('@').next().unwrap();
            let resolved = done["resolved"][manager].as_array().unwrap();
            assert!(resolved.iter().any(|one| one["name"] == name), "{manager}: {resolved:?}");
        }
        built.push((who, casemate, file, checks));
    }
    shop.close();
    for (who, casemate, file, checks) in built {
        for (check, expected) in checks {
            let line = ["sandbox", "exec", "--environment", words(&file), "--", "sh", "-c", check];
            let done = shop.run(&casemate, who, &line);
            assert_eq!(done.stdout().lines().collect::<Vec<_>>(), expected, "{who:?}: {done:?}");
        }
        let again = json_of(shop.run(&casemate, who, &["env", "build", words(&file), "--json"]));
        assert_eq!(again["built"], false, "{who:?}");
        assert_eq!(shelf(&casemate), ["KEY"], "{who:?}");
        sessions_see_it(&shop, &casemate, who, words(&file));
    }
}

/// Two sessions, one after the other, have the packages, cannot change them, and are told of them.
fn sessions_see_it(shop: &Shop, casemate: &Casemate, who: As, file: &str) {
    let model = casemate.script(
        "turns:\n  - tool_calls:\n      - bash: { command: \"casetest-apt; casetest-pip; casetest-npm; touch /packages/x\" }\n  \
         - text: Done.\n",
    );
    for _ in 0..2 {
        let line = ["run", "-m", &model, "--environment", file, "go"];
        let run = shop.run(casemate, who, &line).expect(0);
        assert!(!run.stderr().contains("packages:"), "it was built again: {run:?}");
        let listed = shop.run(casemate, who, &["sessions", "list", "--json"]).expect(0);
        let rows: Value = serde_json::from_str(&listed.stdout()).unwrap();
        let id = rows[0]["id"].as_str().unwrap();
        let events = shop.run(casemate, who, &["sessions", "events", id, "--internal"]);
        let events = events.expect(0).json_lines();
        let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap();
        let result = of("agent.tool_result")["content"][0]["text"].as_str().unwrap();
        for marker in ["MARKER apt data settings", "MARKER pip 1", "MARKER npm 2"] {
            assert!(result.contains(marker), "{who:?}: {result}");
        }
        assert!(result.contains("Read-only file system"), "{who:?}: {result}");
        let layers = of("internal.sandbox_ready")["layers"].as_array().unwrap();
        let layer = |text: &str| layers.iter().any(|one| one.as_str().unwrap().starts_with(text));
        assert!(layer("packages "), "{layers:?}");
    }
}

#[test]
fn what_scripts_read_is_this() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    let file = environment(
        &casemate,
        &json!({"pip": ["casetest"], "apt": ["casetest-apt"], "npm": ["casetest"]}),
    );
    let built = json_of(shop.run(&casemate, As::Me, &["env", "build", words(&file), "--json"]));
    let key = built["key"].as_str().unwrap().to_owned();
    let place = casemate.data_dir().join("packages").join(&key);
    let lock: Value =
        serde_json::from_str(&std::fs::read_to_string(place.join("lock.json")).unwrap()).unwrap();
    let listed = shop.list(&casemate, As::Me);
    let built = plain(built);
    let removed = shop.run(&casemate, As::Me, &["env", "rm", &key[..6], "--json"]);
    let mut removed = json_of(removed);
    assert_eq!((&removed["removed"], removed["bytes"].is_u64()), (&json!([key]), true));
    removed = json!({"removed": ["KEY"], "bytes": "a number"});
    assert_eq!(shelf(&casemate), [] as [&str; 0]);
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&json!({
            "env build --json": built,
            "lock.json": plain(lock),
            "env list --json": listed.into_iter().map(plain).collect::<Vec<_>>(),
            "env rm --json": removed,
            "env list --json, then": shop.list(&casemate, As::Me),
        }))
        .unwrap()
    );
}

#[test]
fn of_two_that_need_the_same_one_builds_it() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    let file = environment(&casemate, &json!({"pip": ["casetest"]}));
    let line = [env!("CARGO_BIN_EXE_casemate"), "env", "build", words(&file), "--json"];
    let start = || {
        let mut command = shop.lab.command(&casemate, As::Me, &line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start(), start()];
    let built = both.map(|child| {
        json_of(Finished::of(child.wait_with_output().unwrap()))["built"].as_bool().unwrap()
    });
    assert_eq!(built.iter().filter(|built| **built).count(), 1, "{built:?}");
    assert_eq!(shelf(&casemate), ["KEY"]);
}

#[test]
fn packages_that_a_session_uses_are_not_removed() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        let casemate = shop.casemate(who, "registry.example");
        let file = environment(&casemate, &json!({"pip": ["casetest"]}));
        let model = casemate.script(
            "turns:\n  - tool_calls:\n      - bash: { command: \"until [ -e go ]; do sleep 0.05; done; casetest-pip\" }\n  \
             - text: Done.\n",
        );
        let line = [
            env!("CARGO_BIN_EXE_casemate"),
            "run",
            "-m",
            &model,
            "--environment",
            words(&file),
            "go",
        ];
        let mut command = shop.lab.command(&casemate, who, &line);
        let session = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let in_use = || {
            let layers = shop.list(&casemate, who);
            layers.iter().any(|layer| layer["in_use"] == true).then_some(())
        };
        until("a session uses the packages", in_use);
        let key = shop.list(&casemate, who)[0]["key"].as_str().unwrap().to_owned();
        let refused = shop.run(&casemate, who, &["env", "rm", &key]).expect(1);
        let sentence = format!("failed to remove the packages {key}: a session uses them");
        assert!(refused.stderr().contains(&sentence), "{refused:?}");
        casemate.put("go", "");
        let done = Finished::of(session.wait_with_output().unwrap()).expect(0);
        assert!(done.stderr().contains("packages: pip installed 2 packages in "), "{done:?}");
        shop.run(&casemate, who, &["env", "rm", &key]).expect(0);
        assert_eq!(shop.list(&casemate, who), [] as [Value; 0]);
        let unknown = shop.run(&casemate, who, &["env", "rm", &key]).expect(2);
        assert!(unknown.stderr().contains("failed to find packages with the key"), "{unknown:?}");
    }
}

#[test]
fn what_a_session_installs_itself_comes_before_the_packages() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    let file = environment(&casemate, &json!({"pip": ["casetest"]}));
    let script = "mkdir -p $(python3 -m site --user-site) && echo 'VALUE = 7' > $(python3 -m site --user-site)/casedep.py \
                  && casetest-pip";
    let line = ["sandbox", "exec", "--environment", words(&file), "--", "sh", "-c", script];
    let done = shop.run(&casemate, As::Me, &line).expect(0);
    assert_eq!(done.stdout(), "MARKER pip 7\n", "{done:?}");
}
