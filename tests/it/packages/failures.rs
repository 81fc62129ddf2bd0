//! What goes wrong: each with a name, its log, and nothing left but that.

use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Shop, environment, shelf, words};
use crate::support::{As, Casemate, Finished, until, write};

/// A host that takes connections and says nothing, ever.
fn hang(shop: &Shop) {
    let listener = shop.lab.server.inside(|| TcpListener::bind("93.184.216.35:80").unwrap());
    std::thread::spawn(move || {
        let taken: Vec<_> = listener.incoming().collect();
        drop(taken);
    });
}

fn set_bounds(casemate: &Casemate, text: &str) {
    let path = casemate.home().join(".config/casemate/config.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write(&path, &format!("[package_managers]\n{text}\n"));
    casemate.give_to_user();
}

fn build(shop: &Shop, casemate: &Casemate, who: As, packages: &Value) -> Finished {
    let file = environment(casemate, packages);
    shop.run(casemate, who, &["env", "build", words(&file)])
}

/// Demands a sentence, and that the log is where it says, with this in it.
#[track_caller]
fn check(casemate: &Casemate, done: Finished, sentence: &str, logged: &str) {
    let done = done.expect(1);
    let said = done.stderr();
    assert!(said.contains(sentence), "{done:?}");
    let log = said.split("the whole log is ").nth(1).unwrap().lines().next().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(logged), "{log}");
    assert_eq!(shelf(casemate), [".log"]);
}

#[test]
fn a_package_that_is_not_there_is_named_with_the_end_of_the_log() {
    let Some(shop) = Shop::open() else { return };
    for who in As::all() {
        let one = |manager: &str, package: &str, code: u8, last: &str| {
            let casemate = shop.casemate(who, "registry.example");
            let done = build(&shop, &casemate, who, &json!({ manager: [package] }));
            assert!(done.stderr().contains(last), "{done:?}");
            let sentence = format!("{manager} could not install its packages (exit code {code})");
            check(&casemate, done, &sentence, last);
            assert_eq!(shop.list(&casemate, who), [] as [Value; 0]);
        };
        one("apt", "nosuchpackage", 100, "Unable to locate package nosuchpackage");
        one("npm", "nosuchpackage", 1, "code E404");
        one(
            "pip",
            "nosuchpackage==1.0",
            1,
            "No matching distribution found for nosuchpackage==1.0",
        );
    }
}

#[test]
fn what_was_built_before_a_failure_is_not_used() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    let packages = json!({"npm": ["casetest"], "pip": ["nosuchpackage"]});
    let done = build(&shop, &casemate, As::Me, &packages);
    let sentence = "pip could not install its packages (exit code 1)";
    assert!(done.stderr().contains("packages: npm installed 2 packages in "), "{done:?}");
    check(&casemate, done, sentence, "== pip");
}

#[test]
fn a_registry_that_says_nothing_is_not_waited_for() {
    let Some(shop) = Shop::open() else { return };
    hang(&shop);
    for who in As::all() {
        let casemate = shop.casemate(who, "other.example");
        set_bounds(&casemate, "max_silence_seconds = 3");
        let done = build(&shop, &casemate, who, &json!({"pip": ["casetest"]}));
        let sentence = "pip was ended: for 3 seconds no registry sent anything, no line was printed and nothing was \
                        computed";
        check(&casemate, done, sentence, "== pip");
    }
}

#[test]
fn a_build_that_was_killed_leaves_nothing_and_stands_in_nobodys_way() {
    let Some(shop) = Shop::open() else { return };
    hang(&shop);
    for who in As::all() {
        let casemate = shop.casemate(who, "other.example");
        let file = environment(&casemate, &json!({"npm": ["casetest"]}));
        let line = [env!("CARGO_BIN_EXE_casemate"), "env", "build", words(&file)];
        let mut command = shop.lab.command(&casemate, who, &line);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let is_building = || {
            let place = casemate.data_dir().join("packages");
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
            let mut caches = entries.map(|entry| entry.path().join("work/npm/cache"));
            caches.any(|path| path.exists()).then_some(())
        };
        until("npm is at work", is_building);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(shelf(&casemate), [".building", ".lock"], "{who:?}");
        // What it had started may end a moment later, and must not be in the way.
        let swept = || {
            let none = shop.list(&casemate, who).is_empty();
            (none && shelf(&casemate) == [] as [&str; 0]).then_some(())
        };
        until("it is swept", swept);
        set_bounds(&casemate, "max_silence_seconds = 3");
        let done = shop.run(&casemate, who, &["env", "build", words(&file)]);
        check(&casemate, done, "npm was ended: for 3 seconds", "== npm");
    }
}

#[test]
fn packages_that_are_too_large_are_not_kept() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    set_bounds(&casemate, "max_mib = 12");
    let done = build(&shop, &casemate, As::Me, &json!({"pip": ["caselarge"]}));
    check(&casemate, done, "pip was ended: the packages have more than 12 MiB", "== pip");
}

#[test]
fn a_host_that_is_no_registry_is_refused_and_named() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    // An index whose links lead elsewhere.
    std::fs::remove_file(casemate.home().join(".npmrc")).unwrap();
    let done = build(&shop, &casemate, As::Me, &json!({"npm": ["casetest"]}));
    assert!(done.stderr().contains("was not reached: it is not in allowed_hosts"), "{done:?}");
    assert!(done.stderr().contains("is allowed by `hosts` in [package_managers]"), "{done:?}");
    check(&casemate, done, "npm could not install its packages (exit code 1)", "== npm");
}

#[test]
fn limited_networking_without_its_permission_and_weaker_tiers_have_no_packages() {
    let casemate = Casemate::new();
    let networking = json!({"type": "limited", "allowed_hosts": ["allowed.example"]});
    let config = json!({"type": "cloud", "networking": networking, "packages": {"pip": ["x"]}});
    let file = casemate.put("limited.yaml", &json!({ "config": config }).to_string());
    let refused = "and its `limited` networking does not allow package managers: set `allow_package_managers: true`";
    let done = casemate.run(&["env", "build", words(&file)]).expect(2);
    assert!(done.stderr().contains(refused), "{done:?}");
    let file = environment(&casemate, &json!({"pip": ["x"]}));
    let exec = |flags: &[&str]| {
        let line = [&["sandbox", "exec", "--environment", words(&file)], flags, &["--", "true"]];
        casemate.run(&line.concat())
    };
    let done = exec(&["--allow-host", "allowed.example"]).expect(2);
    assert!(done.stderr().contains(refused), "{done:?}");
    for tier in ["landlock", "none"] {
        let done = exec(&["--sandbox", tier]).expect(2);
        let sentence = format!("packages need mounts, which the tier `{tier}` has none of");
        assert!(done.stderr().contains(&sentence), "{done:?}");
    }
    let bad = casemate.put("bad.yaml", "config: { packages: { pip: ['--index-url=http://x'] } }\n");
    let done = casemate.run(&["env", "build", words(&bad)]).expect(2);
    let sentence = "packages.pip: `--index-url=http://x` must begin with a letter or a digit";
    assert!(done.stderr().contains(sentence), "{done:?}");
}

#[test]
fn a_manager_that_the_sandbox_does_not_show_is_named() {
    let Some(shop) = Shop::open() else { return };
    let casemate = shop.casemate(As::Me, "registry.example");
    // npm is a link to where Node keeps it; with nothing there, it is no program.
    let npm = std::fs::canonicalize("/usr/bin/npm").unwrap();
    let place = npm.parent().unwrap().display();
    let profile = format!(
        "name = 'bare'\nreason = 'for a test'\nextends = 'default'\n[[tmpfs]]\npath = '{place}'\nmib = 1\nreason = 'hides npm'\n"
    );
    let profile = casemate.put("bare.toml", &profile);
    let file = environment(&casemate, &json!({"npm": ["casetest"]}));
    let line = ["env", "build", words(&file), "--profile", words(&profile)];
    let done = shop.run(&casemate, As::Me, &line).expect(1);
    let said = done.stderr();
    assert!(
        said.contains("the environment has npm packages, and the sandbox has no npm"),
        "{said}"
    );
    assert!(said.contains("or add `npm` to the environment's apt packages"), "{said}");
}
