//! Plans as values, and what is refused before there is one.

use super::*;
use crate::environment::ExtraMount;

fn shown(name: &str, path: &str, kind: PathKind) -> Shown {
    Shown { name: name.to_owned(), source: path.into(), target: path.into(), kind }
}

/// An ordinary user's host, made up.
pub(in crate::sandbox) fn host() -> Host {
    Host {
        uid: 501,
        gid: 502,
        home: "/home/u".into(),
        session_uid: None,
        memory: Some(8 << 30),
        root: None,
        paths: vec![
            shown("/usr", "/usr", PathKind::Directory),
            shown("/bin", "/bin", PathKind::Link("usr/bin".into())),
            shown("~/.cargo/bin", "/home/u/.cargo/bin", PathKind::Directory),
            shown("~/.rustup", "/home/u/.rustup", PathKind::Directory),
            shown("/etc/localtime", "/etc/localtime", PathKind::File),
        ],
        found: Found::default(),
        repository: None,
        submount: None,
        disk: None,
        skills: false,
        base: None,
        packages: None,
    }
}

#[test]
fn the_plan_of_the_default_profile() {
    let profile = Profile::built_in("default").unwrap();
    let environment = Environment::new("/home/u/project".into());
    let mut plan = plan(profile, &environment, &host()).unwrap();
    plan.filters.clear();
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan).unwrap());
}

#[test]
fn a_mount_cannot_replace_what_makes_the_sandbox() {
    let profile = Profile::built_in("default").unwrap();
    for target in ["/", "/proc", "/dev/shm", "/sys/fs", "relative", "/a/../proc"] {
        let mut environment = Environment::new("/w".into());
        let (source, access) = ("/data".into(), Access::ReadOnly);
        environment.mounts = vec![ExtraMount { source, target: target.into(), access }];
        assert!(plan(profile, &environment, &host()).is_err(), "{target}");
    }
}

#[test]
fn outer_mounts_come_before_inner_ones() {
    let profile = Profile::built_in("default").unwrap();
    let environment = Environment::new("/usr/src/project".into());
    let plan = plan(profile, &environment, &host()).unwrap();
    let at = |path: &str| plan.mounts.iter().position(|m| m.target == Path::new(path)).unwrap();
    assert!(at("/usr") < at("/usr/src/project"));
}

#[test]
fn a_workspace_is_no_protected_place() {
    let profile = Profile::built_in("default").unwrap();
    let check = |workspace: &str, expected: &str| {
        let error = plan(profile, &Environment::new(workspace.into()), &host()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("/", "would replace the sandbox's own root");
    check("/home", "holds much more than a project");
    check("/home/u", "holds your whole home directory");
    check("/home/u/.ssh", "is a part of your ~/.ssh");
    check("/home/u/.config/casemate", "is a part of your ~/.config");
    check("/etc/nginx", "is a part of the system's /etc");
    check("/proc/1", "would replace a directory of the sandbox's own");
}

#[test]
fn what_cannot_be_held_is_refused_and_named() {
    let profile = Profile::built_in("default").unwrap();
    let hidden = Held {
        path: "/w/.env".into(),
        hold: Hold::Hide(crate::sandbox::profile::Kind::File),
        pattern: ".env".to_owned(),
        within: None,
    };
    let check = |found: Found, tier: Tier, expected: Option<&str>| {
        let mut environment = Environment::new("/w".into());
        environment.tier = tier;
        let plan = plan(profile, &environment, &Host { found, ..host() });
        let error = plan.err().map(|e| e.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
        assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()));
    };
    let one = |held: &Held| Found { held: vec![held.clone()], ..Found::default() };
    check(one(&hidden), Tier::Full, None);
    check(one(&hidden), Tier::Landlock, Some("/w/.env is protected, and the tier `landlock`"));
    check(one(&Held { hold: Hold::Freeze, ..hidden.clone() }), Tier::Landlock, None);
    let links = vec![("/w/.git".into(), ".git/config".to_owned())];
    check(Found { links, ..Found::default() }, Tier::Full, Some("/w/.git is a link on the way to"));
    let many = vec![hidden; PROTECT_MOUNTS + 1];
    check(Found { held: many, ..Found::default() }, Tier::Full, Some("501 protected paths"));
}

#[test]
fn a_required_path_that_is_missing_is_named() {
    let text = "name = 'mine'\nreason = 'for a test'\nextends = 'default'\n\
                [[mount]]\npath = '/srv/data'\nreason = 'the data'\n";
    let source =
        crate::environment::ProfileSource::File { path: "mine.toml".into(), text: text.to_owned() };
    let profile = Profile::of(&source).unwrap();
    let error = plan(&profile, &Environment::new("/w".into()), &host()).unwrap_err();
    let expected = "the sandbox profile `mine` needs /srv/data, which is not there";
    assert!(error.to_string().starts_with(expected), "{error}");
}
