//! `sandbox exec`: streams, exit code, directory and mounts of one command.

use std::process::Stdio;

use super::demand;
use crate::support::{As, Casemate, Running};

#[test]
fn streams_and_code_pass_through() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let mut command = casemate.command();
        command
            .args(["sandbox", "exec", "--", "sh", "-c", "cat; echo talk >&2; exit 7"])
            .stdin(Stdio::piped());
        let mut run = Running::start(command);
        let input = "line\n".repeat(50_000);
        run.type_in(&input);
        let run = run.finish().expect(7);
        assert_eq!((run.stdout() == input, run.stderr().as_str()), (true, "talk\n"));
    }
}

#[test]
fn exit_codes_are_those_of_a_shell() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        casemate.put("data", "");
        let check = |command: &[&str], code: i32| {
            casemate.run(&[&["sandbox", "exec", "--"], command].concat()).expect(code)
        };
        check(&["true"], 0);
        check(&["false"], 1);
        check(&["sh", "-c", "exit 255"], 255);
        demand(&check(&["nosuch"], 127), &["nosuch"]);
        demand(&check(&["./data"], 126), &["./data", "Permission denied"]);
        check(&["sh", "-c", "kill -9 $$"], 128 + 9);
        check(&["sh", "-c", "kill -TERM $$"], 128 + 15);
    }
}

#[test]
fn its_directory_is_the_workspace_and_its_environment_its_own() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        casemate.put("sub/file", "");
        let work = casemate.workspace().canonicalize().unwrap();
        let pwd = |args: &[&str]| {
            let run = casemate.run(&[&["sandbox", "exec"], args, &["--", "pwd"]].concat());
            run.expect(0).stdout().trim_end().to_owned()
        };
        assert_eq!(pwd(&[]), work.to_str().unwrap());
        assert_eq!(pwd(&["--workspace", "sub"]), work.join("sub").to_str().unwrap());
        casemate.run(&["sandbox", "exec", "--", "sh", "-c", "echo mine > file"]).expect(0);
        assert_eq!(std::fs::read_to_string(work.join("file")).unwrap(), "mine\n");

        let secrets = [("ANTHROPIC_API_KEY", "sk-secret"), ("MINE", "secret"), ("LD_PRELOAD", "")];
        let env = casemate.run_with(&secrets, &["sandbox", "exec", "--", "env"]).expect(0).stdout();
        for hidden in ["secret", "CASEMATE", "LD_PRELOAD", casemate.home().to_str().unwrap()] {
            assert!(!env.contains(hidden), "{hidden} in {env}");
        }
        assert!(env.contains("PATH="), "{env}");
    }
}

#[test]
fn mounts_show_more_and_are_written_only_if_asked() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let extra = casemate.home().join("extra");
        std::fs::create_dir(&extra).unwrap();
        crate::support::write(&extra.join("file"), "seen\n");
        casemate.give_to_user();
        let extra = extra.to_str().unwrap();
        let exec = |mount: &[&str], line: &str, code: i32| {
            casemate
                .run(&[&["sandbox", "exec"], mount, &["--", "sh", "-c", line]].concat())
                .expect(code)
        };
        let cat = format!("cat {extra}/file");
        let write = format!("echo new > {extra}/new");
        assert_eq!(exec(&[], &cat, 1).stdout(), "", "home is hidden");
        assert_eq!(exec(&["--mount", extra], &cat, 0).stdout(), "seen\n");
        demand(&exec(&["--mount", extra], &write, 2), &["Read-only file system"]);
        demand(&exec(&["--mount", &format!("{extra}:ro")], &write, 2), &["Read-only file system"]);
        exec(&["--mount", &format!("{extra}:rw")], &write, 0);
        assert_eq!(std::fs::read_to_string(format!("{extra}/new")).unwrap(), "new\n");
        let moved = format!("{extra}:/mnt/extra:rw");
        assert_eq!(
            exec(&["--mount", &moved], "cat /mnt/extra/file; rm /mnt/extra/new", 0).stdout(),
            "seen\n"
        );
        assert!(!std::path::Path::new(extra).join("new").exists());
    }
}

#[test]
fn what_cannot_be_run_is_named() {
    let casemate = Casemate::new();
    demand(&casemate.run(&["sandbox", "exec"]).expect(2), &["<CMD>..."]);
    demand(
        &casemate.run(&["sandbox", "exec", "-C", "/nowhere", "--", "true"]).expect(2),
        &["the workspace /nowhere"],
    );
    demand(
        &casemate.run(&["sandbox", "exec", "--mount", "/nowhere", "--", "true"]).expect(2),
        &["/nowhere"],
    );
    demand(
        &casemate.run(&["sandbox", "exec", "--profile", "x", "--", "true"]).expect(2),
        &["`x`", "default"],
    );
    demand(
        &casemate.run(&["sandbox", "exec", "--mount", "/usr:rel", "--", "true"]).expect(2),
        &["absolute path"],
    );
}
