//! Profiles, protected paths and limits through the program, as root and as an ordinary user.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{As, Casemate, lacking, write};

/// Runs a line of shell in the sandbox; what it printed, both streams together.
fn inside(casemate: &Casemate, flags: &[&str], line: &str) -> String {
    let line = format!("exec 2>&1; {line}");
    let words = [&["sandbox", "exec"], flags, &["--", "bash", "-c", &line]].concat();
    let done = casemate.run(&words);
    assert!(done.stderr().is_empty(), "{done:?}");
    done.stdout()
}

/// Every path below a directory, and what the files hold.
fn everything(dir: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push((path.clone(), std::fs::read_to_string(path).ok()));
        }
    }
    found.sort();
    found
}

#[test]
fn secrets_cannot_be_read_and_what_the_host_runs_cannot_be_changed() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        for name in [".env", "app/.env.local", ".ssh/id_ed25519", ".aws/credentials"] {
            casemate.put(name, "TOKEN=1\n");
        }
        for name in [".git/config", ".git/hooks/pre-commit", ".vscode/tasks.json", ".envrc"] {
            casemate.put(name, "host\n");
        }
        casemate.put("AGENTS.md", "instructions\n");
        symlink("AGENTS.md", casemate.workspace().join("CLAUDE.md")).unwrap();
        let before = everything(&casemate.workspace());
        let check = |line: &str, expected: &str| {
            let said = inside(&casemate, &[], line);
            assert!(said.contains(expected), "{who:?}: {line}: {said}");
            assert!(!said.contains("TOKEN"), "{who:?}: {line}: {said}");
        };
        let (denied, fixed, busy) = ("Permission denied", "Read-only", "Device or resource busy");
        check("cat .env", denied);
        check("cat app/.env.local", denied);
        check("ls .ssh", denied);
        check("cat .aws/credentials", denied);
        check("cp .env copy; cat copy", denied);
        check("chmod 644 .env; cat .env", denied);
        check("mv .env e && cat e", busy);
        check("mv app a && cat a/.env.local; mv a app", denied);
        check("ln .env e", "Invalid cross-device link");
        check("echo evil > .git/config", fixed);
        check("echo evil > .git/hooks/post-commit", fixed);
        check("mv .git/hooks .git/h", busy);
        check("mv .git git", busy);
        check("rm -rf .git/hooks", fixed);
        check("rm .envrc", busy);
        check("echo evil > .vscode/tasks.json", fixed);
        check("mv .vscode v", busy);
        check("echo evil >> AGENTS.md", fixed);
        check("cat CLAUDE.md", "instructions");
        check("rm CLAUDE.md", busy);
        check("echo evil > CLAUDE.md", fixed);
        check("touch .git/index && rm .git/index && echo well", "well");
        assert_eq!(everything(&casemate.workspace()), before, "{who:?}");

        let open = inside(&casemate, &["--allow-path", ".env"], "cat .env");
        assert_eq!(open, "TOKEN=1\n", "{who:?}");
        let absolute = casemate.workspace().join(".git");
        let flags = ["--allow-path", absolute.to_str().unwrap()];
        assert_eq!(inside(&casemate, &flags, "echo mine > .git/config; cat .git/config"), "mine\n");
    }
}

#[test]
fn git_works_in_a_repository_that_is_held() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let line = "git init -q && echo a > a && git add a && git -c user.name=a -c user.email=b commit -qm one";
        let made = casemate.run(&["sandbox", "exec", "--", "bash", "-c", line]).expect(0);
        let named = "casemate: look before you use git or an editor here, they obey: .git/config, .git/hooks\n";
        assert_eq!(made.stderr(), named);
        let line = "echo b > b && git add b && git -c user.name=a -c user.email=b commit -qm two && git log --format=%s";
        assert_eq!(inside(&casemate, &[], line), "two\none\n", "{who:?}");
        let read = inside(&casemate, &["--profile", "read-only"], "git log --format=%s; touch c");
        assert_eq!(read, "two\none\ntouch: cannot touch 'c': Read-only file system\n", "{who:?}");
    }
}

#[test]
fn what_is_obeyed_is_named_on_one_line_whatever_it_is_called() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let line = r#"touch "$(printf 'a\ncasemate: all is well\033[2J.code-workspace')""#;
        let made = casemate.run(&["sandbox", "exec", "--", "bash", "-c", line]).expect(0).stderr();
        assert!(made.contains("they obey: a␊casemate: all is well␛[2J.code-workspace"), "{made}");
        assert_eq!(made.lines().count(), 1, "{made:?}");
        let line = r#"git init -q "$(printf 'a\ncasemate: all is well')""#;
        let made = casemate.run(&["sandbox", "exec", "--", "bash", "-c", line]).expect(0).stderr();
        assert!(made.lines().all(|line| !line.starts_with("casemate: all")), "{made:?}");
    }
}

#[test]
fn a_place_that_cannot_be_held_is_refused_with_a_sentence_and_nothing_is_left() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        std::fs::create_dir(casemate.workspace().join("other")).unwrap();
        symlink("other", casemate.workspace().join(".git")).unwrap();
        symlink("/etc", casemate.home().join("link")).unwrap();
        let check = |flags: &[&str], expected: &str| {
            let refused = casemate.run(&[&["sandbox", "exec"], flags, &["--", "true"]].concat());
            assert!(refused.stderr().contains(expected), "{who:?}: {flags:?}: {refused:?}");
            refused.expect(2);
        };
        check(&[], "is a link on the way to the protected path `.git/config`");
        casemate.run(&["sandbox", "exec", "--allow-path", ".git", "--", "true"]).expect(0);
        let link = casemate.home().join("link");
        check(&["-C", link.to_str().unwrap()], "the workspace /etc is a part of the system's /etc");
        check(&["-C", "/"], "it is the whole filesystem");
        check(&["-C", "/usr"], "holds much more than a project");
        std::fs::create_dir_all(casemate.data_dir()).unwrap();
        casemate.give_to_user();
        check(&["-C", casemate.data_dir().to_str().unwrap()], "no tool may reach that");
        check(&["-C", casemate.home().to_str().unwrap()], "no tool may reach that");
        let left = std::fs::read_dir(casemate.workspace()).unwrap().count();
        assert_eq!(left, 2, "{who:?}");
    }
}

#[test]
fn a_profile_of_ones_own_changes_the_sandbox_and_its_faults_have_a_place() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let own = casemate.home().join("own.toml");
        let named = own.to_str().unwrap().to_owned();
        let profile = |rest: &str| {
            write(
                &own,
                &format!("name = 'own'\nreason = 'for a test'\nextends = 'default'\n{rest}"),
            );
            casemate.give_to_user();
        };
        profile("[[env]]\nname = 'COLOUR'\nvalue = 'blue'\nreason = 'to see it'");
        assert_eq!(inside(&casemate, &["--profile", &named], "echo $COLOUR"), "blue\n", "{who:?}");
        let shown = casemate.run(&["sandbox", "show", &named, "--json"]).expect(0);
        let shown: Value = serde_json::from_str(&shown.stdout()).unwrap();
        assert_eq!((&shown["profile"], &shown["tier"]), (&"own".into(), &"full".into()));

        let check = |rest: &str, expected: &str| {
            profile(rest);
            let refused = casemate.run(&["sandbox", "exec", "--profile", &named, "--", "true"]);
            assert!(refused.stderr().contains(&format!("{named}{expected}")), "{refused:?}");
            refused.expect(2);
        };
        check("colour = 1", ":4: colour: unknown field `colour`");
        check(
            "[[limit]]\nresource = 'memory'\nvalue = 0\nreason = 'nothing'",
            ":6: limit.value: `memory`",
        );
        profile("[[mount]]\npath = '/nowhere/at/all'\nreason = 'the data'");
        let refused = casemate.run(&["sandbox", "exec", "--profile", &named, "--", "true"]);
        assert!(
            refused.stderr().contains("needs /nowhere/at/all, which is not there"),
            "{refused:?}"
        );
        let unknown = casemate.run(&["sandbox", "exec", "--profile", "nope", "--", "true"]);
        assert!(
            unknown.stderr().contains("there are `default`, `strict`, `read-only`"),
            "{unknown:?}"
        );
    }
}

#[test]
fn a_session_keeps_the_profile_that_it_began_with() {
    let casemate = Casemate::new();
    let own = casemate.home().join("own.toml");
    write(
        &own,
        "name = 'own'\nreason = 'for a test'\nextends = 'default'\n\
         [[env]]\nname = 'COLOUR'\nvalue = 'blue'\nreason = 'to see it'",
    );
    let model = casemate.script(
        "turns:\n  - text: one\n  - tool_calls: [{ bash: { command: 'echo it is $COLOUR' } }]\n  - text: two\n",
    );
    let begun = ["run", "-m", &model, "--profile", own.to_str().unwrap(), "begin"];
    casemate.run(&begun).expect(0);
    std::fs::remove_file(own).unwrap();
    let resumed = casemate.run(&["resume", "--output", "stream-json", "go on"]).expect(0);
    assert!(resumed.stdout().contains("it is blue"), "{resumed:?}");
}

/// What the tool results of a run say, in order, each with whether it is an error.
fn results(casemate: &Casemate, model: &str, flags: &[&str]) -> Vec<(bool, String)> {
    let words = [&["run", "-m", model, "--output", "stream-json"], flags, &["go"]].concat();
    let events = casemate.run(&words).expect(0).json_lines();
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let told = |event: &Value| {
        let text = event["content"][0]["text"].as_str().unwrap().to_owned();
        (event["is_error"].as_bool().unwrap(), text)
    };
    results.map(told).collect()
}

/// Small enough to be passed in a moment.
const TIGHT: &str = "\
name = 'tight'
reason = 'limits that a test passes quickly'
extends = 'default'
[[limit]]
resource = 'memory'
value = 1073741824
reason = 'a gibibyte: more than the processes of the bomb have together, each counted whole'
[[limit]]
resource = 'nproc'
value = 200
reason = 'few processes'
[[limit]]
resource = 'output'
value = 1048576
reason = 'a little output'
[[limit]]
resource = 'fsize'
value = 16777216
reason = 'a small file'
";

#[test]
fn what_goes_too_far_is_ended_by_name_and_the_session_goes_on() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        write(&casemate.home().join("tight.toml"), TIGHT);
        let cases = [
            (
                "python3 -c \"x = []\nwhile True: x.append(bytearray(1 << 24))\"",
                "killed: memory limit 1 GiB",
            ),
            // The first that the kernel kills ends them all: one after another they would take many times as long.
            (
                "for i in {1..16}; do python3 -c 'x = []\nwhile True: x.append(b\"x\" * (1 << 24))' & done; wait",
                "killed: memory limit 1 GiB; the command and its children were killed",
            ),
            ("bomb() { bomb | bomb & }; bomb; sleep 60", "killed: process limit 200"),
            ("yes | head -c 10G", "killed: output limit 1 MiB"),
            ("cat /dev/zero > large", "killed: file size limit 16 MiB"),
            ("echo alive", "alive"),
        ];
        let calls = cases.map(|(line, _)| {
            let call = serde_json::json!({ "bash": { "command": line } });
            format!("  - tool_calls: [{call}]\n")
        });
        let model = casemate.script(&format!("turns:\n{}  - text: done\n", calls.concat()));
        let profile = casemate.home().join("tight.toml");
        let began = Instant::now();
        let told = results(&casemate, &model, &["--profile", profile.to_str().unwrap()]);
        for ((line, expected), (is_error, text)) in cases.iter().zip(&told) {
            assert!(text.contains(expected), "{who:?}: {line}: {text}");
            assert_eq!(*is_error, expected.starts_with("killed"), "{who:?}: {line}: {text}");
        }
        assert_eq!(told.len(), cases.len());
        assert!(began.elapsed() < Duration::from_secs(60), "{who:?}: {:?}", began.elapsed());
    }
}

/// By itself: whoever fills the disk meanwhile, it counts.
#[test]
fn what_fills_the_disk_is_ended_by_name() {
    const FULL: &str = "name = 'full'\nreason = 'a small disk'\nextends = 'default'\n[[limit]]\n\
                        resource = 'disk'\nvalue = 67108864\nreason = 'a little disk'\n";
    for who in As::all() {
        let casemate = Casemate::of(who);
        write(&casemate.home().join("full.toml"), FULL);
        let call = serde_json::json!({ "bash": { "command": "cat /dev/zero > fill" } });
        let model = casemate.script(&format!("turns:\n  - tool_calls: [{call}]\n  - text: done\n"));
        let profile = casemate.home().join("full.toml");
        let told = results(&casemate, &model, &["--profile", profile.to_str().unwrap()]);
        assert!(told[0].0 && told[0].1.contains("killed: disk limit 64 MiB"), "{who:?}: {told:?}");
    }
}

/// A command that waits for nothing is ended long before its deadline; a word or some work now and then is life.
#[test]
fn a_command_that_says_and_does_nothing_is_ended_by_name() {
    const PATIENT: &str = "name = 'patient'\nreason = 'a little patience'\nextends = 'default'\n[[limit]]\n\
                           resource = 'idle'\nvalue = 5\nreason = 'a test can wait for it'\n";
    for who in As::all() {
        let casemate = Casemate::of(who);
        write(&casemate.home().join("patient.toml"), PATIENT);
        let cases = [
            (
                "kept=1; echo begun; sleep 1000; echo late",
                "begun\n[killed: idle limit, 5 s without output",
            ),
            ("for i in {1..12}; do sleep 0.5; echo $i; done; echo $kept", "11\n12\n1"),
            ("timeout 6 bash -c 'while :; do :; done'; echo worked", "worked"),
        ];
        let calls = cases.map(|(line, _)| {
            let call = serde_json::json!({ "bash": { "command": line } });
            format!("  - tool_calls: [{call}]\n")
        });
        let model = casemate.script(&format!("turns:\n{}  - text: done\n", calls.concat()));
        let profile = casemate.home().join("patient.toml");
        let told = results(&casemate, &model, &["--profile", profile.to_str().unwrap()]);
        for ((line, expected), (is_error, text)) in cases.iter().zip(&told) {
            assert!(text.contains(expected), "{who:?}: {line}: {text}");
            assert_eq!(*is_error, expected.contains("killed"), "{who:?}: {line}: {text}");
        }
        assert_eq!(told.len(), cases.len());
    }
}

/// What is written past the cache at a megabyte a second takes its time; where the kernel does not see to it, the layers
/// say so.
#[test]
fn the_speed_of_the_disk_is_limited_or_said_not_to_be() {
    const SLOW: &str = "name = 'slow'\nreason = 'a slow disk'\nextends = 'default'\n[[limit]]\nresource = 'io'\n\
                        value = 1048576\nreason = 'a test can see it'\n";
    for who in As::all() {
        let casemate = Casemate::of(who);
        write(&casemate.home().join("slow.toml"), SLOW);
        casemate.give_to_user();
        let line = "dd if=/dev/zero of=fill bs=1M count=4 oflag=direct status=none && echo written";
        let call = serde_json::json!({ "bash": { "command": line } });
        let model = casemate.script(&format!("turns:\n  - tool_calls: [{call}]\n  - text: done\n"));
        let profile = casemate.home().join("slow.toml");
        let began = Instant::now();
        let done =
            casemate.run(&["run", "-m", &model, "--profile", profile.to_str().unwrap(), "go"]);
        let took = began.elapsed();
        done.expect(0);
        let log = casemate.log();
        let of = |kind: &str| log.iter().find(|event| event["type"] == kind).unwrap().to_string();
        let layers = of("internal.sandbox_ready");
        if layers.contains("disk speed limited") {
            assert!(of("agent.tool_result").contains("written"), "{log:?}");
            assert!(took > Duration::from_secs(2), "{who:?}: {took:?}");
        } else {
            assert!(layers.contains("disk speed not limited"), "{who:?}: {layers}");
        }
        println!("{who:?}: {layers} {took:?}");
    }
}

#[test]
fn a_single_command_that_goes_too_far_is_ended_too() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        write(&casemate.home().join("tight.toml"), TIGHT);
        casemate.give_to_user();
        let profile = casemate.home().join("tight.toml");
        let check = |line: &str, expected: &str| {
            let flags = ["sandbox", "exec", "--profile", profile.to_str().unwrap(), "--"];
            let done = casemate.run(&[&flags[..], &["bash", "-c", line]].concat());
            assert!(done.stderr().contains(expected), "{who:?}: {line}: {done:?}");
            done.expect(137);
        };
        let hogs = "python3 -c \"x = []\nwhile True: x.append(bytearray(1 << 22))\"";
        check(&format!("{hogs} & {hogs} & wait"), "casemate: killed: memory limit 1 GiB");
        check("bomb() { bomb | bomb & }; bomb; sleep 60", "casemate: killed: process limit 200");
    }
}

#[test]
fn less_than_the_tier_that_is_required_is_never_given() {
    let casemate = Casemate::new();
    let check = |flags: &[&str], code: i32| {
        casemate.run(&[&["sandbox", "exec"], flags, &["--", "true"]].concat()).expect(code);
    };
    check(&["--require-tier", "2"], 0);
    check(&["--require-tier", "1"], 0);
    check(&["--require-tier", "0"], 2);
    check(&["--require-tier", "3"], 2);
    check(&["--require-tier", "1", "--sandbox", "full"], 2);
    // A secret cannot be hidden without mounts, and is not shown instead.
    casemate.put(".env", "TOKEN=1\n");
    let refused = casemate.run(&["sandbox", "exec", "--sandbox", "landlock", "--", "cat", ".env"]);
    assert!(
        refused.stderr().contains("the tier `landlock` has no mounts to hide it"),
        "{refused:?}"
    );
    refused.expect(2);
}

/// By trying it, so that it is what a session would get.
#[test]
fn what_leads_to_the_network_is_said_before_it_is_needed() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let text = casemate.run(&["sandbox", "show", "default"]).expect(0).stdout();
        let how = text.lines().find_map(|line| {
            line.strip_prefix("network     none unless hosts are allowed; then by a door: ")
        });
        let how = how.unwrap_or_else(|| panic!("{text}")).to_owned();
        assert!(!how.starts_with("none"), "{who:?}: {how}");
        let doctor = casemate.run(&["doctor", "--json"]).stdout();
        let found: Value = serde_json::from_str(&doctor).unwrap();
        let checks = found["sandbox"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "network door").unwrap();
        assert_eq!(check["detail"], how.as_str(), "{who:?}");
        let call = serde_json::json!({ "bash": { "command": "true" } });
        let model = casemate.script(&format!("turns:\n  - tool_calls: [{call}]\n  - text: done\n"));
        casemate.run(&["run", "-m", &model, "--allow-host", "example.com", "go"]).expect(0);
        let log = casemate.log();
        let ready = log.iter().find(|event| event["type"] == "internal.sandbox_ready").unwrap();
        let layers = ready["layers"].as_array().unwrap();
        assert!(layers.contains(&Value::from(format!("network door ({how})"))), "{ready}");
    }
}

#[test]
fn doctor_tries_every_mechanism_and_every_failure_has_a_remedy() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let mut command = casemate.command();
        command.args(["doctor", "--json"]).env("TMPDIR", casemate.home());
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = found["sandbox"].as_array().unwrap();
        for check in checks {
            assert_ne!(check["verdict"], "fail", "{who:?}: {check}");
            assert!(check["verdict"] == "ok" || check["remedy"].is_string(), "{who:?}: {check}");
        }
        let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
        let expected = [
            "user namespace",
            "other namespaces",
            "network of its own",
            "network door",
            "fresh /proc",
            "Landlock",
            "system call filter",
            "control group",
            "mapped owners",
            "sealed program",
            "overlay",
            "sandbox, tier `full`",
            "sandbox, tier `landlock`",
            "best tier",
        ];
        assert_eq!(names, expected);
    }
}

/// Control groups that casemate made and that are still there.
fn groups_of(pid: u32) -> Vec<PathBuf> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with(&format!("casemate-{pid}-")) {
                found.push(path.clone());
            }
            open.push(path);
        }
    }
    found
}

#[test]
fn a_control_group_ends_with_its_session_even_if_the_host_was_killed() {
    let casemate = Casemate::new();
    let layers = casemate.run(&["doctor", "--json"]);
    if !layers.stdout().contains("memory counted by the kernel") {
        lacking("control groups: this machine has none for the user of the tests");
        return;
    }
    let start = |seconds: &str| -> std::process::Child {
        let line = format!("sleep {seconds}");
        let call = serde_json::json!({ "bash": { "command": line } });
        let model = casemate.script(&format!("turns:\n  - tool_calls: [{call}]\n  - text: done\n"));
        let mut command: Command = casemate.command();
        command.args(["run", "-m", &model, "go"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while groups_of(child.id()).is_empty() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no group appears");
        }
        child
    };
    let mut well = start("0");
    well.wait().unwrap();
    assert_eq!(groups_of(well.id()), Vec::<PathBuf>::new());

    let mut killed = start("1000");
    assert!(!groups_of(killed.id()).is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !groups_of(killed.id()).is_empty() {
        assert!(Instant::now() < deadline, "{:?} is left", groups_of(killed.id()));
        // Each start sweeps what hosts that are gone have left, once its processes are gone too.
        start("0").wait().unwrap();
    }
}

/// Whether a process of this machine was started with that word.
fn is_running(word: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|found| found == word.as_bytes()))
}

#[test]
fn a_host_that_is_killed_at_any_moment_leaves_nothing() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        // A number that no other test sleeps for.
        let word = format!("{}.{}", 100_000 + std::process::id(), who as u8);
        let mut killed = Vec::new();
        for moment in 0..40 {
            let mut command = casemate.command();
            command.args(["sandbox", "exec", "--", "sleep", &word]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(2 * moment));
            child.kill().unwrap();
            child.wait().unwrap();
            killed.push(child.id());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_running(&word) {
            assert!(Instant::now() < deadline, "{who:?}: a command outlived its host");
            std::thread::sleep(Duration::from_millis(10));
        }
        casemate.run(&["sandbox", "exec", "--", "true"]).expect(0);
        let uid =
            if who == As::User { crate::support::USER } else { nix::unistd::geteuid().as_raw() };
        let places = ["/dev/shm", "/tmp"].map(|place| format!("{place}/.casemate-{uid}"));
        let left = places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten();
        // Tests beside this one make canaries too: those of the hosts that were killed here are meant.
        let ours = left.flatten().filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            killed.iter().any(|pid| name.starts_with(&format!("{pid}-")))
        });
        assert_eq!(ours.count(), 0, "{who:?}");
        let left = std::fs::read_dir(casemate.workspace()).unwrap().count();
        assert_eq!(left, 0, "{who:?}");
    }
}

#[test]
fn a_tier_without_a_root_of_its_own_leaves_no_home_behind() {
    let casemate = Casemate::of(*As::all().last().unwrap());
    let temporary = casemate.home().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    casemate.give_to_user();
    for tier in ["landlock", "none"] {
        let line = "echo kept > $HOME/file; cat $HOME/file; case $HOME in */casemate-home-*) echo own;; esac";
        let mut command = casemate.command();
        command.args(["sandbox", "exec", "--sandbox", tier, "--", "sh", "-c", line]);
        let output = command.env("TMPDIR", &temporary).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\nown\n", "{tier}: {output:?}");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{tier}");
    }
}

#[test]
fn a_program_that_the_user_could_write_is_kept_from_the_session() {
    use std::os::unix::process::CommandExt as _;
    let casemate = Casemate::of(*As::all().last().unwrap());
    let own = casemate.home().join("casemate");
    std::fs::copy(env!("CARGO_BIN_EXE_casemate"), &own).unwrap();
    casemate.give_to_user();
    let check = |program: &Path, who: Option<u32>, expected: &str| {
        let mut command = Command::new(program);
        command.args(["doctor", "--json"]).env_clear().env("HOME", casemate.home());
        command.env("PATH", "/usr/bin:/bin").env("TMPDIR", casemate.home());
        if let Some(uid) = who {
            command.uid(uid).gid(uid);
        }
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    };
    let root = nix::unistd::geteuid().is_root();
    let user = root.then_some(crate::support::USER);
    check(&own, user, "guest program on a read-only mount");
    // Another name of it may lie anywhere.
    let other = casemate.home().join("other");
    std::fs::hard_link(&own, &other).unwrap();
    check(&own, user, "guest program from a sealed copy");
    std::fs::remove_file(other).unwrap();
    if root {
        // The session is never root, so root's own file is safe from it.
        check(
            Path::new(env!("CARGO_BIN_EXE_casemate")),
            None,
            "guest program that the session cannot write",
        );
    }
}

/// Makes system calls by their numbers on x86-64 and prints name and errno of each, 0 for one that went through.
const CALLS: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    ctypes.set_errno(0)
    got = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    print(name, ctypes.get_errno() if got == -1 else 0)
    return got
file = os.open("made", os.O_CREAT | os.O_RDWR, 0o644)
flags = ctypes.byref(ctypes.c_int(0x80))
call("personality_asked", 135, 0xffffffff)
call("personality_fixed_addresses", 135, 0x0040000)
segment = call("large_shared_memory", 29, 0, 2 << 30, 0o1600)
if segment != -1: libc.shmctl(segment, 0, None)
segment = call("small_shared_memory", 29, 0, 1 << 20, 0o1600)
if segment != -1: libc.shmctl(segment, 0, None)
call("file_attributes", 16, file, 0x40086602, flags)
call("file_attributes_above_32_bits", 16, file, 0x140086602, flags)
call("set_id_by_mknod", 133, ctypes.c_char_p(b"node"), 0o104755, 0)
call("set_id_by_chmod", 90, ctypes.c_char_p(b"made"), 0o4755)
call("plain_chmod", 90, ctypes.c_char_p(b"made"), 0o755)
call("openat2", 437, -100, ctypes.c_char_p(b"made"), ctypes.byref((ctypes.c_uint64 * 3)(0, 0, 0)), 24)
call("user_namespace", 272, 0x10000000)
call("vsock", 41, 40, 1, 0)
call("unix_socket", 41, 1, 1, 0)
call("landlock_version", 444, 0, 0, 1)
call("mount_list", 458, 0, 0, 0, 0)
os.close(file)
for name in ("made", "node"):
    if os.path.exists(name): os.remove(name)
"#;

#[test]
fn calls_are_refused_by_the_filter_and_by_nothing_else() {
    if !cfg!(target_arch = "x86_64") {
        return lacking("the numbers of system calls on this architecture");
    }
    let answers = |text: &str| -> Vec<(String, i32)> {
        let pair = |line: &str| {
            let (name, errno) = line.split_once(' ').unwrap();
            (name.to_owned(), errno.parse().unwrap())
        };
        text.lines().map(pair).collect()
    };
    let (well, perm, nosys) =
        (0, nix::errno::Errno::EPERM as i32, nix::errno::Errno::ENOSYS as i32);
    let expected = [
        ("personality_asked", well),
        ("personality_fixed_addresses", perm),
        ("large_shared_memory", perm),
        ("small_shared_memory", well),
        ("file_attributes", perm),
        ("file_attributes_above_32_bits", perm),
        ("set_id_by_mknod", perm),
        ("set_id_by_chmod", perm),
        ("plain_chmod", well),
        ("openat2", nosys),
        ("user_namespace", perm),
        ("vsock", perm),
        ("unix_socket", well),
        ("landlock_version", well),
        ("mount_list", nosys),
    ];
    for who in As::all() {
        let casemate = Casemate::of(who);
        casemate.put("calls.py", CALLS);
        let inside = inside(&casemate, &[], "python3 calls.py");
        let expected: Vec<_> =
            expected.iter().map(|(name, errno)| ((*name).to_owned(), *errno)).collect();
        assert_eq!(answers(&inside), expected, "{who:?}");
    }
    // The same calls outside: what the filter refuses must be something that would have worked.
    let casemate = Casemate::new();
    let script = casemate.put("calls.py", CALLS);
    let outside = Command::new("python3").arg(script).current_dir(casemate.workspace()).output();
    let outside = answers(&String::from_utf8(outside.unwrap().stdout).unwrap());
    let refused =
        ["personality_fixed_addresses", "large_shared_memory", "set_id_by_mknod", "openat2"];
    for name in refused {
        let (_, errno) = outside.iter().find(|(known, _)| known == name).unwrap();
        assert_eq!(*errno, 0, "{name} fails without the sandbox too: {outside:?}");
    }
}

/// A system of the least: a shell with its libraries, copied from this one, and a mark.
fn put_system(at: &Path) {
    for dir in ["usr/bin", "usr/lib", "usr/lib64"] {
        std::fs::create_dir_all(at.join(dir)).unwrap();
    }
    for dir in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), at.join(dir)).unwrap();
    }
    std::fs::copy("/bin/bash", at.join("usr/bin/bash")).unwrap();
    let listed = Command::new("ldd").arg("/bin/bash").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target =
            at.join("usr").join(library.trim_start_matches("/usr").trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(library, target).unwrap();
    }
    write(&at.join("usr/mark"), "of the image");
}

#[test]
fn a_directory_or_an_unpacked_image_takes_the_place_of_the_hosts_root() {
    let description = r#"{"ociVersion": "1.0.2", "process": {"env": ["PATH=/usr/image/bin", "HOME=/root", "OF_IMAGE=yes"]}}"#;
    for who in As::all() {
        let casemate = Casemate::of(who);
        put_system(&casemate.home().join("plain"));
        let bundle = casemate.home().join("bundle");
        put_system(&bundle.join("rootfs"));
        write(&bundle.join("config.json"), description);
        let packed = casemate.home().join("packed");
        std::fs::create_dir_all(packed.join("blobs/sha256")).unwrap();
        write(&packed.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#);
        let wrong = casemate.home().join("wrong");
        put_system(&wrong.join("rootfs"));
        write(&wrong.join("config.json"), "[]");
        casemate.give_to_user();
        let profile = |root: &str| {
            let text = format!(
                "name = \"mine\"\nreason = \"a test\"\nextends = \"default\"\nroot = \"{}\"\n",
                casemate.home().join(root).display()
            );
            casemate.put("profile.toml", &text).display().to_string()
        };
        let line = r#"echo "$(< /usr/mark) $OF_IMAGE $HOME $PATH""#;
        let check = |root: &str, starts: &str, has: &str| {
            let said = inside(&casemate, &["--profile", &profile(root)], line);
            assert!(said.starts_with(starts) && said.contains(has), "{who:?} {root}: {said}");
        };
        check("plain", "of the image  /home/agent ", ":/usr/bin:");
        check("bundle", "of the image yes /home/agent ", ":/usr/image/bin:");
        let refused = |root: &str, expected: &str| {
            let words =
                ["sandbox", "exec", "--profile", &profile(root), "--", "bash", "-c", "true"];
            let said = casemate.run(&words).stderr();
            assert!(said.contains(expected), "{who:?} {root}: {said}");
        };
        refused("packed", "umoci unpack --rootless --image IMAGE:TAG BUNDLE");
        refused("wrong", "has a config.json that describes no container");
        refused("absent", "is not there");
    }
}
