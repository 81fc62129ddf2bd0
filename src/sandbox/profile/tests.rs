//! The built-in profiles are sound, and what is wrong with another is told with its place.

use super::*;

#[test]
fn the_built_in_profiles_are_whole() {
    for (name, _) in BUILT_IN {
        let profile = Profile::built_in(name).unwrap();
        assert_eq!(profile.name, name);
        assert!(profile.mount.iter().any(|show| show.path == "/usr"), "{name} has no programs");
    }
}

fn mine(text: &str) -> Result<Profile, String> {
    let source = ProfileSource::File { path: "mine.toml".into(), text: text.to_owned() };
    Profile::of(&source).map(Cow::into_owned).map_err(|e| e.to_string())
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_field() {
    let check = |rest: &str, expected: &str| {
        let error = mine(&format!("name = 'mine'\nreason = 'for a test'\n{rest}")).unwrap_err();
        assert!(error.starts_with(expected), "{error}\n  is not\n{expected}");
    };
    check("monts = 1", "mine.toml:3: monts: unknown field `monts`");
    check("[[mount]]\npath = '/usr'", "mine.toml:3: mount: missing field `reason`");
    check(
        "[[mount]]\npath = 7\nreason = 'why not'",
        "mine.toml:4: path: invalid type: integer `7`",
    );
    check(
        "[[mount]]\npath = '/usr'\nreason = 'programs'\n[[mount]]\nreason = 'a place'\npath = 'usr'",
        "mine.toml:8: mount.path: `usr` must be absolute",
    );
    check(
        "[[mount]]\npath='/a/../b'\nreason='a place'",
        "mine.toml:4: mount.path: `/a/../b` must be",
    );
    check("[[mount]]\npath='/'\nreason='a place'", "mine.toml:4: mount.path: `/` itself");
    check("[[mount]]\npath='/proc/1'\nreason='a place'", "mine.toml:4: mount.path: `/proc` is the");
    check("[[mount]]\npath='/a'\nreason=' '", "mine.toml:5: mount.reason: say why");
    check(
        "[[tmpfs]]\npath='/t'\nmib=0\nreason='a place'",
        "mine.toml:5: tmpfs.mib: `/t` needs at least 1",
    );
    check(
        "[[limit]]\nresource='nproc'\nvalue=0\nreason='a limit'",
        "mine.toml:5: limit.value: `nproc` needs at least 1",
    );
    check(
        "[[limit]]\nresource='air'\nvalue=1\nreason='a limit'",
        "mine.toml:4: resource: unknown variant `air`",
    );
    check(
        "[[deny]]\ncalls=['mount', 'teleport']\nerrno='EPERM'\nreason='a call'",
        "mine.toml:4: deny.calls: `teleport` is not a system call",
    );
    check(
        "[[deny]]\ncalls=['bpf', 'bpf']\nerrno='EPERM'\nreason='a call'",
        "mine.toml:4: deny.calls: this is named twice",
    );
    check("[[deny_if]]\nrule='nope'\nreason='a rule'", "mine.toml:4: rule: unknown variant `nope`");
    check(
        "[[mount]]\npath='/a'\nreason='a place'\n[[mount]]\npath='/a'\nreason='a place'",
        "mine.toml:7: mount.path: this is named twice",
    );
    check("[[env]]\nname='A=B'\nvalue='c'\nreason='a name'", "mine.toml:4: env.name: a name has");
    check(
        "[[protect]]\npath='/etc'\naccess='hidden'\nreason='a secret'",
        "mine.toml:4: protect.path: must be names",
    );
    check(
        "[[without]]\nmount='/opt'\nreason='not mine'",
        "mine.toml:5: without.reason: takes something",
    );
    check(
        "extends = 'nope'",
        "mine.toml:3: extends: there is no sandbox profile `nope`; there are `default`, ",
    );
    check(
        "extends = 'default'\n[[without]]\nmount='/nope'\nreason='not mine'",
        "mine.toml:5: without.mount: the extended profile has nothing like it",
    );
    check(
        "extends = 'default'\n[[without]]\nreason='not mine'",
        "mine.toml:5: without.reason: must name exactly one entry",
    );
    check("root = 'here'", "mine.toml:3: root: `here` must be absolute");
    check("workspace = 'gone'", "mine.toml:3: workspace: unknown variant `gone`");
    check("[[mount]\n", "mine.toml:3: mount: ");
}

#[test]
fn a_file_changes_what_it_extends_and_nothing_else() {
    let own = mine(
        "name = 'mine'\nreason = 'for a test'\nextends = 'default'\nworkspace = 'read_only'\n\
         [[without]]\nmount = '/opt'\nreason = 'not needed'\n\
         [[without]]\ndeny = 'ptrace'\nreason = 'a debugger'\n\
         [[mount]]\npath = '/srv/data'\nreason = 'the data'\n\
         [[limit]]\nresource = 'nproc'\nvalue = 5\nreason = 'few of them'\n",
    )
    .unwrap();
    let mut expected = Profile::built_in("default").unwrap().clone();
    expected.name = "mine".to_owned();
    expected.reason = "for a test".to_owned();
    expected.extends = Some("default".to_owned());
    expected.workspace = Some(Access::ReadOnly);
    expected.mount.retain(|show| show.path != "/opt");
    expected.mount.push(Show {
        path: "/srv/data".to_owned(),
        required: Some(true),
        reason: "the data".to_owned(),
    });
    expected.deny.iter_mut().for_each(|deny| deny.calls.retain(|call| call != "ptrace"));
    let limit = expected.limit.iter_mut().find(|limit| limit.resource == Resource::Nproc).unwrap();
    limit.value = 5;
    limit.reason = "few of them".to_owned();
    assert_eq!(own, expected);
}

#[test]
fn an_unknown_name_is_told_what_there_is() {
    let error = Profile::built_in("nope").unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no sandbox profile `nope`; there are `default`, `strict`, `read-only`, `offline-build`, `hosted`, \
         `trusted`, and a file of your own by its path"
    );
}
