//! Whatever the program is started with, the sandbox is the same, and what cannot be had is said.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{As, Casemate, until};

/// A shell does the first line to itself and becomes the program, whose command is the second line.
#[track_caller]
fn check(before: &str, line: &str, expected: &str) {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let args = ["sandbox", "exec", "--", "sh", "-c", line];
        let ended = casemate.shell(&format!("{before}\nexec \"$@\""), &args).expect(0);
        assert_eq!(ended.stdout(), expected, "{before}, {who:?}: {ended:?}");
    }
}

#[test]
fn a_caller_that_takes_in_no_children_does_not_make_it_wait_for_ever() {
    check("trap '' CHLD", "echo done", "done\n");
}

#[test]
fn what_a_caller_makes_unreadable_is_readable_for_the_session() {
    check("umask 777", "umask; echo done", "0777\ndone\n");
}

#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let casemate = Casemate::of(*As::all().last().unwrap());
    let model = casemate.script("turns: [{ text: done }]");
    let ended = casemate.shell("ulimit -f 8; exec \"$@\"", &["run", "-m", &model, "go"]).expect(1);
    assert!(ended.stderr().contains("error: "), "{ended:?}");
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let casemate = Casemate::of(*As::all().last().unwrap());
    let args = ["sandbox", "exec", "--", "true"];
    let mut said = String::new();
    // How many there may be before each stage depends on the kernel.
    for most in 1..12 {
        let line = format!("exec prlimit --nproc={most} \"$@\"");
        let ended = casemate.shell(&line, &args);
        if ended.code() == Some(0) {
            break;
        }
        assert!(!ended.stderr().is_empty(), "{ended:?}");
        said += &ended.stderr();
    }
    assert!(!said.is_empty());
}

#[test]
fn root_of_a_users_own_namespace_is_that_user() {
    let casemate = Casemate::of(*As::all().last().unwrap());
    let owner = "stat -c %u file && grep CapEff /proc/self/status";
    let line = format!("echo text > file && id -u && {owner}");
    let args = ["sandbox", "exec", "--", "sh", "-c", &line];
    let ended = casemate.shell("exec unshare --user --map-root-user \"$@\"", &args).expect(0);
    assert_eq!(ended.stdout(), "1000\n1000\nCapEff:\t0000000000000000\n");
    let script =
        "turns: [{ tool_calls: [{ bash: { command: 'echo more >> file' } }] }, { text: done }]";
    let model = casemate.script(script);
    let args = ["run", "-m", &model, "go"];
    casemate.shell("exec unshare --user --map-root-user \"$@\"", &args).expect(0);
    let text = std::fs::read_to_string(casemate.workspace().join("file")).unwrap();
    assert_eq!(text, "text\nmore\n");
}

#[test]
fn a_sandbox_that_cannot_be_had_leaves_no_process_behind() {
    for who in As::all() {
        let casemate = Casemate::of(who);
        let own = casemate.home().join("casemate");
        std::fs::copy(env!("CARGO_BIN_EXE_casemate"), &own).unwrap();
        casemate.give_to_user();
        let file = own.metadata().unwrap().ino();
        let alone = match who == As::Me && nix::unistd::geteuid().is_root() {
            true => "--mount",
            false => "--user --map-root-user --mount",
        };
        // No device can be shown, of the guest that is forked ahead either.
        let line = "mount -t tmpfs none /dev && touch /dev/null && exec $0 doctor";
        let line = format!("exec unshare {alone} sh -c '{line}' {}", own.display());
        let ended = casemate.shell(&line, &[]).expect(5);
        assert!(ended.stdout().contains("device: /dev/"), "{who:?}: {ended:?}");
        let living = || {
            let mut all = std::fs::read_dir("/proc").unwrap().flatten();
            all.any(|one| one.path().join("exe").metadata().is_ok_and(|exe| exe.ino() == file))
        };
        until("all have ended", || (!living()).then_some(()));
    }
}
